//! What the control plane wants of one device: the whole of it, signed by a director, numbered.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentName, DeviceId, FleetId, Generation, ModelName, Nonce, UnixMs, VariantName, Version};
use crate::limits::{DESIRED_BYTES_MAX, SLOTS_MAX};
use crate::signing::Envelope;
use crate::wire::{Message, WireError, decode_as};
use crate::{Digest, v1, v2};

/// A desired state, wire codec inside a director's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The fleet it is bound to.
    pub fleet: FleetId,
    /// The device it is for.
    pub device: DeviceId,
    /// The fingerprint of that device's key: a name alone is not an identity.
    pub fingerprint: Digest,
    /// Its place in the order; each signing takes a new one.
    pub generation: Generation,
    /// When it was signed.
    pub issued_ms: UnixMs,
    /// After this nothing new begins; what serves goes on.
    pub expires_ms: UnixMs,
    /// The nonce of the `hello` it answers; needed by a device that lost its state.
    pub nonce: Option<Nonce>,
    /// The newest root when it was signed: a device that does not have it yet takes nothing that was
    /// signed after it.
    pub root_version: u64,
    /// At most [`SLOTS_MAX`], each deployment once.
    pub slots: Vec<SlotSpec>,
}

impl Message for Desired {
    const NAME: &'static str = "desired state";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = DESIRED_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        match version {
            1 => Some(decode_as::<v1::Desired, _>(body)),
            2 => Some(decode_as::<v2::Desired, _>(body)),
            _ => None,
        }
    }
}

/// What one slot is to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// The slot's key.
    pub deployment: DeploymentName,
    /// The name doors use instead of the deployment's.
    pub served_as: Option<DeploymentName>,
    /// The model; the verified manifest must agree.
    pub model: ModelName,
    /// Its version; the verified manifest must agree.
    pub version: Version,
    /// SHA-256 of the manifest's signed payload: which bundle.
    pub manifest: Digest,
    /// The manifest in its envelope, as a blob to fetch.
    pub envelope: BlobRef,
    /// Which form of the model.
    pub variant: VariantName,
    /// What it may use.
    pub resources: Resources,
    /// How long a new version is watched beside the old one.
    pub probation_ms: u32,
    /// Grows when an operator wants a refused bundle tried again.
    #[serde(default)]
    pub attempt: u32,
    /// Whether the old version is stopped before the new one is loaded: the device has no room for
    /// both. The gateway sends nothing there meanwhile.
    #[serde(default)]
    pub swap_in_place: bool,
    /// The model's version floor as the director knows it: a device that does not hold the publisher's
    /// word for it yet waits for it before anything new runs here.
    #[serde(default)]
    pub floor: Option<Version>,
}

/// Bytes by digest and length: a manifest in its envelope, a chunk index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// Their digest.
    pub sha256: Digest,
    /// Their length.
    pub bytes: u64,
}

/// What a slot's worker is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// A desired state as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedDesired(pub Envelope);

impl Message for SignedDesired {
    const NAME: &'static str = "signed desired state";
    const BYTES_MAX: usize = DESIRED_BYTES_MAX;
}

/// What an offered desired state is to one that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Later: take it.
    New,
    /// The same again: nothing to do.
    Repeat,
    /// Earlier: a replay, or a director that lost its memory.
    Stale,
    /// The same number on other content.
    Conflict,
}

/// Orders an offer against what is held: generation and digest of the signed payload.
pub fn compare(held: (Generation, Digest), offered: (Generation, Digest)) -> Offer {
    match offered.0.cmp(&held.0) {
        Ordering::Greater => Offer::New,
        Ordering::Less => Offer::Stale,
        Ordering::Equal if offered.1 == held.1 => Offer::Repeat,
        Ordering::Equal => Offer::Conflict,
    }
}

impl Desired {
    /// Whether its slots keep the bounds: not too many, each deployment and each served name once.
    pub fn slots_are_sound(&self) -> bool {
        let (mut names, mut deployments) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        let once =
            |slot: &SlotSpec| names.insert(slot.served_name().clone()) && deployments.insert(slot.deployment.clone());
        self.slots.len() <= SLOTS_MAX && self.slots.iter().all(once)
    }
}

impl SlotSpec {
    /// The name that doors use.
    pub fn served_name(&self) -> &DeploymentName {
        self.served_as.as_ref().unwrap_or(&self.deployment)
    }

    /// Whether a worker that was started for one serves the other too: the same bundle from the same
    /// files with the same resources. How it came, and the name that doors use, make no difference.
    pub fn same_worker(&self, other: &Self) -> bool {
        // Taken apart field by field, so that a new one is decided on here.
        let Self {
            deployment,
            served_as: _,
            model,
            version,
            manifest,
            envelope,
            variant,
            resources,
            probation_ms: _,
            attempt: _,
            swap_in_place: _,
            floor: _,
        } = other;
        (&self.deployment, &self.model, &self.version, &self.variant) == (deployment, model, version, variant)
            && (&self.manifest, &self.envelope, &self.resources) == (manifest, envelope, resources)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_harmless_and_a_second_content_is_noticed() {
        let at = |number| Generation { epoch: 1, number };
        let (a, b) = (Digest::of("a"), Digest::of("b"));
        for (offered, offer) in [
            ((at(6), b), Offer::New),
            ((at(5), a), Offer::Repeat),
            ((at(5), b), Offer::Conflict),
            ((at(4), a), Offer::Stale),
        ] {
            assert_eq!(compare((at(5), a), offered), offer);
        }
    }

    #[test]
    fn a_worker_serves_on_where_only_its_way_or_its_name_differs() {
        let spec = SlotSpec {
            deployment: "digits".parse().unwrap(),
            served_as: None,
            model: "digits".parse().unwrap(),
            version: Version::new(1).unwrap(),
            manifest: Digest::of("manifest"),
            envelope: BlobRef { sha256: Digest::of("envelope"), bytes: 1 },
            variant: "fp32".parse().unwrap(),
            resources: Resources { cpu_milli: 250, memory_bytes: 64 << 20 },
            probation_ms: 60_000,
            attempt: 0,
            swap_in_place: false,
            floor: None,
        };
        let check = |same: bool, change: fn(&mut SlotSpec)| {
            let mut other = spec.clone();
            change(&mut other);
            assert_eq!((spec.same_worker(&other), other.same_worker(&spec)), (same, same), "{other:?}");
        };
        check(true, |_| {});
        check(true, |spec| spec.served_as = Some("numbers".parse().unwrap()));
        check(true, |spec| spec.probation_ms = 1);
        check(true, |spec| spec.attempt = 1);
        check(true, |spec| spec.swap_in_place = true);
        check(true, |spec| spec.floor = Version::new(2));
        check(false, |spec| spec.manifest = Digest::of("another"));
        check(false, |spec| spec.envelope.sha256 = Digest::of("signed again"));
        check(false, |spec| spec.variant = "int8".parse().unwrap());
        check(false, |spec| spec.resources.cpu_milli += 1);
        check(false, |spec| spec.resources.memory_bytes += 1);
    }
}
