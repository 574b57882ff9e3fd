//! What time it is, by a director, in answer to one `hello` of one device: the only way in which a device
//! comes to trust its clock.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{DeviceId, FleetId, Nonce, UnixMs};
use crate::limits::SMALL_MESSAGE_BYTES_MAX;
use crate::wire::Message;

/// A time, wire codec inside a director's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorTime {
    /// The fleet it is bound to.
    pub fleet: FleetId,
    /// The device it is for.
    pub device: DeviceId,
    /// The fingerprint of that device's key.
    pub fingerprint: Digest,
    /// The nonce of the hello that it answers.
    pub nonce: Nonce,
    /// The director's clock.
    pub now_ms: UnixMs,
}

impl Message for DirectorTime {
    const NAME: &'static str = "director's time";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}
