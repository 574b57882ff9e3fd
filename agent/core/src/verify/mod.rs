//! Everything a device must see proven before it believes or runs something: each check once, in one
//! order, without I/O. What passes has a type whose only constructor is its check.
//!
//! | document | who must have signed | then, in this order |
//! |---|---|---|
//! | root ([`roots`]) | the threshold of the root before it, and its own | fleet, version (the next one), epoch |
//! | version floor ([`floors`]) | a publisher of its model | fleet; counts up to the highest version seen signed |
//! | time ([`crate::clock::told`]) | a director | fleet, device and key, nonce of the last hello |
//! | desired state ([`desired`]) | a director | fleet, device and key, root known here, epoch, order (also against the watermark), jump, nonce where nothing is held, expiry of both, slots |
//! | bundle ([`bundle`]) | a publisher of its model | declared length, digest, signature, model and version, software; then floor, the floor that the director knows, the desired state still good, room that the owner gives |
//! | chunk index, chunk | nobody: named by digest | declared length, digest; sent length, digest (`muster_shared::chunk`, [`crate::transfer`]) |
//! | command ([`command`]) | a director | fleet, device and key, the call's id, nonce of one of the last two hellos; once |
//!
//! Signatures come before parsing, always. What the device's owner allows is in [`crate::limits`].

use std::collections::BTreeMap;

use muster_shared::id::{Generation, ModelName};
use muster_shared::message::Held;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, VerifyError};
use muster_shared::wire::WireError;
use muster_shared::{DeviceId, Digest, Nonce, Version};
use serde::{Deserialize, Serialize};

pub mod bundle;
pub mod command;
pub mod desired;
pub mod floors;
pub mod roots;

/// Who this device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub device: DeviceId,
    /// The fingerprint of its key.
    pub fingerprint: Digest,
}

/// What this device holds, as the checks of what a director says need it.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// This device.
    pub identity: &'a Identity,
    /// The root it believes in.
    pub root: &'a TrustedRoot,
    /// The desired state it holds; none after enrolment or a loss of state.
    pub held: Option<Held>,
    /// The highest desired state that it ever took; outlives a loss of state.
    pub watermark: Option<Mark>,
    /// The nonce of its last hello.
    pub nonce: Option<Nonce>,
    /// The nonce of the hello before.
    pub earlier_nonce: Option<Nonce>,
}

/// A desired state by number, and by content where that is known: a counter keeps numbers only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// Its place in the order.
    pub generation: Generation,
    /// SHA-256 of its signed payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// What a device keeps beside its key, so that it survives the loss of all else: below it nothing is
/// believed, however well it is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watermark {
    /// The highest desired state that was ever taken.
    #[serde(default)]
    pub desired: Option<Mark>,
    /// The newest root that was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Envelope>,
    /// Version floors as publishers signed them; each is verified again by each root.
    #[serde(default)]
    pub floors: Vec<Envelope>,
    /// Of each model, the highest version ever seen in a manifest that a publisher signed.
    #[serde(default)]
    pub seen: BTreeMap<ModelName, Version>,
}

/// Why something that a director signed, or should have, is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotAccepted {
    #[error("no director that the root names signed it ({0})")]
    Signature(#[from] VerifyError),
    #[error("the signed bytes cannot be read ({0})")]
    Malformed(#[from] WireError),
    #[error("it is of fleet {found}, this device is of fleet {ours}")]
    OtherFleet { ours: String, found: String },
    #[error("it is for device {device} with key {}", .fingerprint.short())]
    OtherDevice { device: DeviceId, fingerprint: Digest },
    #[error("it was signed under root {found}, which has yet to come: this device knows root {known}")]
    RootToCome { known: u64, found: u64 },
    #[error("its epoch is {found}, the root's is {root}")]
    OtherEpoch { root: u64, found: u64 },
    #[error("generation {offered} is older than {held}, which this device holds")]
    Stale { held: Generation, offered: Generation },
    #[error("generation {offered} is older than {watermark}, the last that this device took before it lost its state")]
    BelowWatermark { watermark: Generation, offered: Generation },
    #[error("generation {0} is held already with other content")]
    Conflict(Generation),
    #[error("generation {offered} jumps too far ahead of {held}")]
    Jump { held: Generation, offered: Generation },
    #[error("it expired before it arrived")]
    Expired,
    #[error("it answers this device's last hello, and by this device's clock it expired before: the clock is doubted")]
    OutOfTime,
    #[error("root {0} has expired: nothing new begins before the next root comes")]
    RootExpired(u64),
    #[error("the root names the director no more that signed it")]
    DirectorGone,
    #[error("this device holds no state and the offer does not answer its hello")]
    NotFresh,
    #[error("its slots break the bounds: at most 64, each name once")]
    Slots,
    #[error("it is of another call than the one that brought it")]
    OtherCall,
}

/// Whether a document of a director is of this fleet and for this device and its key.
fn addressed(
    holding: Holding<'_>,
    fleet: &muster_shared::id::FleetId,
    device: &DeviceId,
    fingerprint: Digest,
) -> Result<(), NotAccepted> {
    use muster_shared::checks::{self, Check};
    let ours = &holding.root.root().fleet;
    if checks::on(Check::Fleet) && fleet != ours {
        return Err(NotAccepted::OtherFleet { ours: ours.to_string(), found: fleet.to_string() });
    }
    let other = *device != holding.identity.device || fingerprint != holding.identity.fingerprint;
    if checks::on(Check::Device) && other {
        return Err(NotAccepted::OtherDevice { device: device.clone(), fingerprint });
    }
    Ok(())
}
