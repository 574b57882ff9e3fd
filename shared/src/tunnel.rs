//! MQTT through a WebSocket, for sites whose firewall lets nothing out but port 443: what the device's end
//! and the control plane's end agree on. The bytes in it are MQTT's and nobody else's; where they begin a
//! message means nothing.
//!
//! A device shows its certificate as it does to the broker, and speaks [`SUBPROTOCOL`]. Behind a proxy that
//! ends TLS no certificate arrives. There it asks for [`SUBPROTOCOL_WITH_PROOF`]: the control plane sends a
//! [`TunnelChallenge`], the device answers with a [`SignedTunnelProof`], and MQTT begins.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{DeviceId, Nonce};
use crate::limits::SMALL_MESSAGE_BYTES_MAX;
use crate::signing::Envelope;
use crate::wire::Message;

/// Where the tunnel is, on the listener for devices.
pub const PATH: &str = "/mqtt";
/// MQTT from the first byte on.
pub const SUBPROTOCOL: &str = "mqtt";
/// The challenge and its proof first.
pub const SUBPROTOCOL_WITH_PROOF: &str = "muster-proof.mqtt";
/// A WebSocket message, either way. Whoever sends a longer one is cut off.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The first thing that a control plane says in a tunnel whose device showed no certificate. Fresh for each
/// connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelChallenge {
    /// Random.
    pub nonce: Nonce,
}

impl Message for TunnelChallenge {
    const NAME: &'static str = "tunnel challenge";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}

/// What a device signs to open that tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelProof {
    /// Who it is.
    pub device: DeviceId,
    /// The challenge's.
    pub nonce: Nonce,
    /// The digest of the CA that the device pins: whose control plane it means.
    pub ca: Digest,
}

impl Message for TunnelProof {
    const NAME: &'static str = "tunnel proof";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}

/// That proof in the device's envelope, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTunnelProof(pub Envelope);

impl Message for SignedTunnelProof {
    const NAME: &'static str = "signed tunnel proof";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}
