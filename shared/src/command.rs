//! What a director asks of one device beside its desired state. Signed, bound to the device and to a
//! `hello` of it, so that a broker's owner can neither make one nor say it again.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{DeviceId, FleetId, Nonce, UnixMs};
use crate::limits::COMMAND_BYTES_MAX;
use crate::signing::Envelope;
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
    /// Leave the fleet: stop every model, remove all that came from it, and last the key; say so before that.
    Decommission,
}

/// A device says that it is empty, wire codec inside an envelope that its key signed: what it says last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emptied {
    /// The fleet that it leaves.
    pub fleet: FleetId,
    /// The device.
    pub device: DeviceId,
    /// The command that it carried out.
    pub command: Nonce,
    /// The device's clock.
    pub at_ms: UnixMs,
}

impl Message for Emptied {
    const NAME: &'static str = "word that a device is empty";
    const BYTES_MAX: usize = COMMAND_BYTES_MAX;
}

/// [`Emptied`], signed by the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEmptied(pub Envelope);

impl Message for SignedEmptied {
    const NAME: &'static str = "signed word that a device is empty";
    const BYTES_MAX: usize = COMMAND_BYTES_MAX;
}

impl Message for Command {
    const NAME: &'static str = "command";
    const BYTES_MAX: usize = COMMAND_BYTES_MAX;
}
