//! The shapes of version 2 that have grown since, read for ever. Nothing writes them any more.

use serde::Deserialize;

use crate::Digest;
use crate::desired::{self, BlobRef, Resources};
use crate::hardware::Health;
use crate::id::{
    BootId, DeploymentName, DeviceId, FleetId, Generation, ModelName, Nonce, UnixMs, VariantName, Version,
};
use crate::reported::{self, DesiredRefused, Refusal, SlotReport};
use crate::v3::Facts;

/// A [`desired::Desired`] of version 2: it does not say which root it was signed under.
#[derive(Debug, Deserialize)]
pub struct Desired {
    fleet: FleetId,
    device: DeviceId,
    fingerprint: Digest,
    generation: Generation,
    issued_ms: UnixMs,
    expires_ms: UnixMs,
    nonce: Option<Nonce>,
    slots: Vec<SlotSpec>,
}

impl From<Desired> for desired::Desired {
    fn from(old: Desired) -> Self {
        Self {
            fleet: old.fleet,
            device: old.device,
            fingerprint: old.fingerprint,
            generation: old.generation,
            issued_ms: old.issued_ms,
            expires_ms: old.expires_ms,
            nonce: old.nonce,
            root_version: 0,
            slots: old.slots.into_iter().map(Into::into).collect(),
        }
    }
}

/// A [`desired::SlotSpec`] of version 2: it names no floor.
#[derive(Debug, Deserialize)]
pub struct SlotSpec {
    deployment: DeploymentName,
    served_as: Option<DeploymentName>,
    model: ModelName,
    version: Version,
    manifest: Digest,
    envelope: BlobRef,
    variant: VariantName,
    resources: Resources,
    probation_ms: u32,
    attempt: u32,
    swap_in_place: bool,
}

impl From<SlotSpec> for desired::SlotSpec {
    fn from(old: SlotSpec) -> Self {
        Self {
            deployment: old.deployment,
            served_as: old.served_as,
            model: old.model,
            version: old.version,
            manifest: old.manifest,
            envelope: old.envelope,
            variant: old.variant,
            resources: old.resources,
            probation_ms: old.probation_ms,
            attempt: old.attempt,
            swap_in_place: old.swap_in_place,
            floor: None,
        }
    }
}

/// A [`reported::Reported`] of version 2: it tells of no floors.
#[derive(Debug, Deserialize)]
pub struct Reported {
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    at_ms: UnixMs,
    root_version: u64,
    applied: Option<Generation>,
    desired_refused: Option<DesiredRefused>,
    facts: Facts,
    slots: Vec<SlotReport>,
    refusals: Vec<Refusal>,
}

impl From<Reported> for reported::Reported {
    fn from(old: Reported) -> Self {
        Self {
            device: old.device,
            boot: old.boot,
            sequence: old.sequence,
            at_ms: old.at_ms,
            root_version: old.root_version,
            applied: old.applied,
            desired_refused: old.desired_refused,
            facts: old.facts.into(),
            health: Health::default(),
            slots: old.slots,
            refusals: old.refusals,
            floors: vec![],
            notes: vec![],
        }
    }
}
