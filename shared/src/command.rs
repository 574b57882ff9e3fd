//! What a director asks of one device beside its desired state. Signed, bound to the device and to a
//! `hello` of it, so that a broker's owner can neither make one nor say it again.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{DeviceId, FleetId, Nonce, UnixMs};
use crate::limits::COMMAND_BYTES_MAX;
use crate::wire::Message;

/// A command, wire codec inside a director's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The fleet it is bound to.
    pub fleet: FleetId,
    /// The device it is for.
    pub device: DeviceId,
    /// The fingerprint of that device's key.
    pub fingerprint: Digest,
    /// The call's id: a command is carried out once.
    pub id: Nonce,
    /// The nonce of one of the device's last two hellos.
    pub nonce: Nonce,
    /// When it was signed.
    pub issued_ms: UnixMs,
    /// What is asked.
    pub order: Order,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Say, as JSON, what the device believes and why it does what it does.
    Diagnose,
}

impl Message for Command {
    const NAME: &'static str = "command";
    const BYTES_MAX: usize = COMMAND_BYTES_MAX;
}
