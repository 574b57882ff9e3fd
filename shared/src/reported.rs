//! What a device says it has: the whole of it, signed by its key. Only this moves a rollout, a
//! refusal or a generation.

use serde::{Deserialize, Serialize};

use crate::hardware::{Hardware, Health};
use crate::id::{BootId, DeploymentName, DeviceId, Generation, Labels, ModelName, UnixMs, Version};
use crate::limits::REPORTED_BYTES_MAX;
use crate::signing::Envelope;
use crate::wire::{Message, WireError, decode_as};
use crate::{Digest, v1, v2, v3};

/// A reported state, wire codec inside the device's envelope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// Who reports.
    pub device: DeviceId,
    /// Which run of the agent.
    pub boot: BootId,
    /// Grows within one boot; an older report of the same boot is ignored.
    pub sequence: u64,
    /// The device's clock.
    pub at_ms: UnixMs,
    /// The root it believes in.
    pub root_version: u64,
    /// The desired state it works towards.
    pub applied: Option<Generation>,
    /// The last desired state it did not take, and why.
    pub desired_refused: Option<DesiredRefused>,
    /// What the machine is.
    pub facts: Facts,
    /// How its hardware fares.
    pub health: Health,
    /// Its slots.
    pub slots: Vec<SlotReport>,
    /// Bundles that it will not try again.
    pub refusals: Vec<Refusal>,
    /// Version floors that it holds a publisher's word for.
    pub floors: Vec<ModelFloor>,
    /// What else a person should know: a publisher that the root names no more, a clock that is not
    /// trusted, what the owner's limits keep out. At most [`crate::limits::NOTES_MAX`].
    pub notes: Vec<String>,
}

/// The lowest version of a model that may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ModelFloor {
    /// The model.
    pub model: ModelName,
    /// Its floor.
    pub version: Version,
}

impl Message for Reported {
    const NAME: &'static str = "reported state";
    const VERSION: u8 = 4;
    const BYTES_MAX: usize = REPORTED_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        match version {
            1 => Some(decode_as::<v1::Reported, _>(body)),
            2 => Some(decode_as::<v2::Reported, _>(body)),
            3 => Some(decode_as::<v3::Reported, _>(body)),
            _ => None,
        }
    }
}

/// A reported state as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedReported(pub Envelope);

impl Message for SignedReported {
    const NAME: &'static str = "signed reported state";
    const BYTES_MAX: usize = REPORTED_BYTES_MAX;
}

/// A desired state that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DesiredRefused {
    /// Its generation, where that could be read at all.
    pub generation: Option<Generation>,
    /// Why, for a person.
    pub reason: String,
    /// The device's clock.
    pub at_ms: UnixMs,
}

/// What a machine is. Absent facts are unknown, not zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The agent's version.
    pub agent: String,
    /// `x86_64`, `aarch64`, `arm`.
    pub arch: String,
    /// The operating system's name and release.
    pub os: String,
    /// The processor's name.
    pub cpu_model: Option<String>,
    /// Thousandths of a core that models may use together.
    pub cpu_milli: u32,
    /// Bytes of memory that models may use together.
    pub memory_bytes: u64,
    /// Bytes free where bundles are stored.
    pub disk_free_bytes: Option<u64>,
    /// `tract`, `onnxruntime`, …
    pub engines: Vec<String>,
    /// What confines workers here, and what the kernel could not give.
    pub isolation: Vec<String>,
    /// What it is made of.
    #[serde(default)]
    pub hardware: Hardware,
    /// What its owner calls it.
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub labels: Labels,
}

/// Where a slot stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing is wanted and nothing runs.
    Empty,
    /// The bundle is on its way.
    Fetching,
    /// Golden vectors run in a child process.
    Checking,
    /// The new version serves under watch; the old one is kept loaded.
    Probation,
    /// As wanted.
    Serving,
    /// What is wanted does not run here; the reason stands beside it.
    Refused,
}

impl Phase {
    /// The phase as a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Fetching => "fetching",
            Self::Checking => "checking",
            Self::Probation => "in probation",
            Self::Serving => "serving",
            Self::Refused => "refused",
        }
    }
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SlotReport {
    /// The slot's key.
    pub deployment: DeploymentName,
    /// Where it stands.
    pub phase: Phase,
    /// The bundle it works towards.
    pub wanted: Option<BundleRef>,
    /// The bundle whose worker answers now.
    pub running: Option<BundleRef>,
    /// Why it does not go on, for a person.
    pub waiting: Option<String>,
    /// How often its worker was started again.
    pub restarts: u32,
    /// What the wanted bundle needs on this machine.
    pub measured: Option<Measured>,
}

/// A bundle, for machines and for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BundleRef {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the manifest's payload.
    pub manifest: Digest,
}

/// Measured on this machine while the golden vectors ran.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// The worker's peak resident memory.
    pub memory_peak_bytes: u64,
    /// Median wall time of one prediction of one row, in microseconds.
    pub latency_us: u64,
}

/// A bundle that is not tried again: proven bad on verified bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// The bundle.
    pub bundle: BundleRef,
    /// The agent that refused it: another one may manage.
    pub agent: String,
    /// The attempt that failed; a later one is made.
    pub attempt: u32,
    /// The memory that it was granted; with more, one that needed too much is tried again.
    pub memory_bytes: u64,
    /// What was proven.
    pub kind: RefusalKind,
    /// The particulars, for a person.
    pub reason: String,
    /// The device's clock.
    pub at_ms: UnixMs,
}

/// What can be proven of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum RefusalKind {
    /// Its outputs are not the golden ones.
    GoldenMismatch,
    /// The engine cannot load it.
    CannotLoad,
    /// Its worker died while it was watched.
    CrashedInProbation,
    /// Its worker needed more memory than it was granted while it was watched.
    TooMuchMemoryInProbation,
}
