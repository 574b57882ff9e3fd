//! Who said it: the envelope every signed document travels in, and the two kinds of keys.
//!
//! The algorithm follows from the role that signs, never from the message: people and the control
//! plane use Ed25519 ([`key`]), a device uses ECDSA P-256 ([`device`]). Bytes are verified before
//! they are parsed.

pub mod device;
mod dsse;
pub mod key;

pub use dsse::{Envelope, Signature, VerifyError};

/// What a payload is; part of what is signed, so one document can never pass for another.
pub mod payload_type {
    /// A root document, JSON ([`crate::root::Root`]).
    pub const ROOT: &str = "application/vnd.muster.root.v1+json";
    /// A bundle's manifest, JSON ([`crate::manifest::Manifest`]).
    pub const MANIFEST: &str = "application/vnd.muster.manifest.v1+json";
    /// A version floor, JSON ([`crate::floor::Floor`]).
    pub const FLOOR: &str = "application/vnd.muster.floor.v1+json";
    /// A release of the agent, JSON ([`crate::release::Release`]).
    pub const RELEASE: &str = "application/vnd.muster.release.v1+json";
    /// The time, wire codec ([`crate::director_time::DirectorTime`]).
    pub const TIME: &str = "application/vnd.muster.time";
    /// A command to a device, wire codec ([`crate::command::Command`]).
    pub const COMMAND: &str = "application/vnd.muster.command";
    /// Word that a device is empty, wire codec ([`crate::command::Emptied`]).
    pub const EMPTIED: &str = "application/vnd.muster.emptied";
    /// A desired state, wire codec ([`crate::desired::Desired`]).
    pub const DESIRED: &str = "application/vnd.muster.desired";
    /// A reported state, wire codec ([`crate::reported::Reported`]).
    pub const REPORTED: &str = "application/vnd.muster.reported";
    /// A telemetry batch, wire codec ([`crate::telemetry::Batch`]).
    pub const TELEMETRY: &str = "application/vnd.muster.telemetry";
    /// A request for a new client certificate, wire codec ([`crate::message::Renewal`]).
    pub const RENEWAL: &str = "application/vnd.muster.renewal";
    /// The proof that opens a tunnel, wire codec ([`crate::tunnel::TunnelProof`]).
    pub const TUNNEL_PROOF: &str = "application/vnd.muster.tunnel-proof";
}
