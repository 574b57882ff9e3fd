//! The shapes of version 1 that have grown since, read for ever: from an agent or a plane that was
//! not updated yet, and from a device's journal. Nothing writes them any more.

use serde::Deserialize;

use crate::Digest;
use crate::desired::{self, BlobRef, Resources};
use crate::hardware::Health;
use crate::id::{
    BootId, DeploymentName, DeviceId, FleetId, Generation, InstanceId, ModelName, Nonce, UnixMs, VariantName, Version,
};
use crate::message::{self, Door, DoorRequest};
use crate::reported::{self, BundleRef, DesiredRefused, RefusalKind, SlotReport};
use crate::signing::Envelope;
use crate::telemetry::{self, ModelSample};
use crate::v3::Facts;

/// A [`desired::Desired`] of version 1.
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

/// A [`desired::SlotSpec`] of version 1: tried once, beside the old version.
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
            attempt: 0,
            swap_in_place: false,
            floor: None,
        }
    }
}

/// A [`reported::Reported`] of version 1.
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
            refusals: old.refusals.into_iter().map(Into::into).collect(),
            floors: vec![],
            notes: vec![],
        }
    }
}

/// A [`reported::Refusal`] of version 1: of the first attempt; none of its kinds asks for the memory.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    bundle: BundleRef,
    agent: String,
    kind: RefusalKind,
    reason: String,
    at_ms: UnixMs,
}

impl From<Refusal> for reported::Refusal {
    fn from(old: Refusal) -> Self {
        Self {
            bundle: old.bundle,
            agent: old.agent,
            attempt: 0,
            memory_bytes: 0,
            kind: old.kind,
            reason: old.reason,
            at_ms: old.at_ms,
        }
    }
}

/// A [`message::Call`] of version 1: TF Serving's status and predict only.
#[derive(Debug, Deserialize)]
pub struct Call {
    id: Nonce,
    reply_to: InstanceId,
    deadline_ms: u32,
    request: Request,
}

#[derive(Debug, Deserialize)]
enum Request {
    TfServing { served: DeploymentName, version: Option<Version>, verb: TfServingVerb, body: Vec<u8> },
}

#[derive(Debug, Deserialize)]
enum TfServingVerb {
    Status,
    Predict,
}

impl From<Call> for message::Call {
    fn from(old: Call) -> Self {
        let Request::TfServing { served, version, verb, body } = old.request;
        let version = version.map_or_else(String::new, |version| format!("/versions/{version}"));
        let (post, verb) = match verb {
            TfServingVerb::Status => (false, ""),
            TfServingVerb::Predict => (true, ":predict"),
        };
        let rest = format!("{version}{verb}");
        let request = DoorRequest { door: Door::TfServing, post, served, rest, json_bytes: None, body };
        Self {
            id: old.id,
            reply_to: old.reply_to,
            deadline_ms: old.deadline_ms,
            request: message::Request::Door(request),
        }
    }
}

/// A [`message::Reply`] of version 1: always JSON.
#[derive(Debug, Deserialize)]
pub struct Reply {
    id: Nonce,
    status: u16,
    version: Option<Version>,
    body: Vec<u8>,
}

impl From<Reply> for message::Reply {
    fn from(old: Reply) -> Self {
        Self { id: old.id, status: old.status, version: old.version, json_bytes: None, body: old.body }
    }
}

/// A [`message::Hello`] of version 1.
#[derive(Debug, Deserialize)]
pub struct Hello {
    boot: BootId,
    nonce: Nonce,
    root_version: u64,
    holds: Option<message::Held>,
}

impl From<Hello> for message::Hello {
    fn from(old: Hello) -> Self {
        let Hello { boot, nonce, root_version, holds } = old;
        Self { boot, nonce, root_version, holds, wants_time: false }
    }
}

/// A [`message::TrustUpdate`] of version 1: roots only.
#[derive(Debug, Deserialize)]
pub struct TrustUpdate {
    root: Envelope,
}

impl From<TrustUpdate> for message::TrustUpdate {
    fn from(old: TrustUpdate) -> Self {
        Self::Root(old.root)
    }
}

/// A [`telemetry::Batch`] of version 1.
#[derive(Debug, Deserialize)]
pub struct Batch {
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    from_ms: UnixMs,
    until_ms: UnixMs,
    host: HostSample,
    models: Vec<ModelSample>,
}

impl From<Batch> for telemetry::Batch {
    fn from(old: Batch) -> Self {
        Self {
            device: old.device,
            boot: old.boot,
            sequence: old.sequence,
            from_ms: old.from_ms,
            until_ms: old.until_ms,
            host: old.host.into(),
            models: old.models,
        }
    }
}

/// A [`telemetry::HostSample`] of version 1: it tells neither what slows the machine down nor what feeds it.
#[derive(Debug, Deserialize)]
pub struct HostSample {
    cpu_permille: u32,
    memory_used_bytes: u64,
    memory_bytes: u64,
    disk_free_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    temperature_millicelsius: Option<i32>,
}

impl From<HostSample> for telemetry::HostSample {
    fn from(old: HostSample) -> Self {
        Self {
            cpu_permille: old.cpu_permille,
            memory_used_bytes: old.memory_used_bytes,
            memory_bytes: old.memory_bytes,
            disk_free_bytes: old.disk_free_bytes,
            disk_bytes: old.disk_bytes,
            temperature_millicelsius: old.temperature_millicelsius,
            strains: vec![],
            on_mains: None,
            battery_percent: None,
        }
    }
}
