//! The agent's thin edge: it carries out what `muster-agent-core` decides.
//!
//! In the order of the story: what is configured and who this device is ([`config`], [`identity`],
//! [`enrol`], [`renewal`]); how it comes here ([`release`], [`install`]); what it keeps ([`journal`], [`store`], [`trust_store`]); how it
//! reaches its control plane ([`network`]), talks ([`mqtt`]) and shows how that stands ([`status`]); the one loop
//! ([`driver`]) and what its decisions do ([`effects`]), what it tells of itself when a director asks ([`diagnosis`]) or a person beside it ([`doctor`]), how it leaves its fleet ([`departure`]), or, without a fleet, [`serve`]; a model's process
//! ([`worker`], [`engine`], [`tensor`], [`json`]); who answers ([`table`]) and may be asked ([`doors`]); what is told about it ([`facts`], [`meter`], [`stats`],
//! [`telemetry`]); and the time and chance that a pure core must be given ([`outside`]).

pub mod config;
pub mod enrol;
pub mod identity;
pub mod renewal;

pub mod install;
pub mod release;

pub mod journal;
pub mod store;
pub mod trust_store;

pub mod mqtt;
pub mod network;
pub mod status;

pub mod departure;
pub mod diagnosis;
pub mod doctor;
pub mod driver;
pub mod effects;
pub mod serve;

pub mod engine;
pub mod json;
pub mod table;
pub mod tensor;
pub mod worker;

pub mod doors;

pub mod facts;
pub mod meter;
pub mod metrics;
pub mod stats;
pub mod telemetry;

pub mod outside;
