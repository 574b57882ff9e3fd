//! The words both sides of Muster speak. Pure: no socket, file, clock or random number.
//!
//! Read in this order: names and bounds ([`limits`], [`id`], [`digest`]); who may say what
//! ([`signing`], [`root`], [`floor`], [`release`], and by which [`checks`]); what is delivered ([`manifest`], [`chunk`], [`golden`]); what a device is told and
//! tells ([`desired`], [`director_time`], [`command`], [`reported`] with its [`hardware`], [`telemetry`], [`figures`], [`message`]); how it travels ([`topic`],
//! [`wire`], with what it was in [`v1`], [`v2`] and [`v3`], [`tunnel`]); and what people and scripts use ([`claim`], [`api`]).

pub mod limits;

pub mod digest;
pub mod id;
pub mod quantity;

pub mod checks;
pub mod floor;
pub mod release;
pub mod root;
pub mod signing;

pub mod chunk;
pub mod golden;
pub mod manifest;

pub mod command;
pub mod desired;
pub mod director_time;
pub mod door;
pub mod figures;
pub mod hardware;
pub mod message;
pub mod reported;
pub mod sketch;
pub mod telemetry;

pub mod topic;
pub mod tunnel;
pub mod v1;
pub mod v2;
pub mod v3;
pub mod wire;

pub mod api;
pub mod claim;

pub use digest::Digest;
pub use id::{BootId, DeploymentName, DeviceId, FleetId, ModelName, Nonce, Version};
