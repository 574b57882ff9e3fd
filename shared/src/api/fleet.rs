//! Devices and what happened on them.

use serde::{Deserialize, Serialize};

use super::api_types;
use super::members::{Departure, Standing};
use crate::Digest;
use crate::figures::Figures;
use crate::hardware::Health;
use crate::id::{DeploymentName, DeviceId, Generation, Labels, UnixMs};
use crate::message::EventKind;
use crate::reported::{DesiredRefused, Facts, Refusal, SlotReport};
use crate::telemetry::HostSample;

/// What an operator wants of a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Schedule {
    /// Replicas may be placed on it.
    #[default]
    Open,
    /// Nothing new comes to it.
    Cordoned,
    /// Nothing new comes to it, and what is there moves elsewhere.
    Draining,
}

/// What can happen in a fleet: on a device, or in the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Happening {
    /// A device did not take a desired state.
    DesiredRefused,
    /// A device refused a bundle.
    BundleRefused,
    /// A chunk arrived that is not what its index names.
    ChunkDiscarded,
    /// A version began to serve.
    Serving,
    /// A device took a version back.
    RolledBack,
    /// A worker died.
    WorkerCrashed,
    /// An agent started.
    Started,
    /// A device has been silent for longer than replicas wait.
    DeviceLost,
    /// A lost device is back.
    DeviceReturned,
    /// A replica was given to another device.
    ReplicaMoved,
    /// Many devices fell silent together: nothing moves.
    MovesFrozen,
    /// Moves go on.
    MovesResumed,
    /// A rollout began.
    RolloutStarted,
    /// A rollout came to its next wave.
    RolloutWave,
    /// A rollout is held by an operator, or goes on.
    RolloutPaused,
    /// A rollout failed, and devices go back.
    RolloutStopped,
    /// An operator took a rollout back.
    RolloutUndone,
    /// Every device has the new version.
    RolloutDone,
    /// A root, a floor or a command was not believed by a device.
    TrustRefused,
    /// A root was followed, or a floor was raised.
    TrustChanged,
    /// A device stopped a version: its publisher's key is compromised, or it is below its floor.
    Distrusted,
    /// A device's clock cannot be right, or is trusted again.
    Clock,
    /// Something began to slow a device down, or no longer does.
    Throttling,
    /// Somebody was not let in.
    EnrolmentRefused,
    /// A device became one of the fleet.
    DeviceEnrolled,
    /// A device waits for an operator, or may go on.
    DeviceHeld,
    /// A device was told to empty itself.
    DeviceLeaving,
    /// A device is one of the fleet no more.
    DeviceRevoked,
    /// The database is older than what devices or the files beside it say.
    DatabaseRestored,
}

impl From<EventKind> for Happening {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::DesiredRefused => Self::DesiredRefused,
            EventKind::BundleRefused => Self::BundleRefused,
            EventKind::ChunkDiscarded => Self::ChunkDiscarded,
            EventKind::Serving => Self::Serving,
            EventKind::RolledBack => Self::RolledBack,
            EventKind::WorkerCrashed => Self::WorkerCrashed,
            EventKind::Started => Self::Started,
            EventKind::TrustRefused => Self::TrustRefused,
            EventKind::TrustChanged => Self::TrustChanged,
            EventKind::Distrusted => Self::Distrusted,
            EventKind::Clock => Self::Clock,
            EventKind::Throttling => Self::Throttling,
        }
    }
}

api_types! {
    /// One device.
    pub struct DeviceView {
        /// Its id.
        pub id: DeviceId,
        /// Whether the broker holds a connection of it.
        pub connected: bool,
        /// Since when it has been silent; none: it is connected.
        pub silent_since_ms: Option<UnixMs>,
        /// What an operator wants of it.
        #[serde(default)]
        pub schedule: Schedule,
        /// Whether it is one of the fleet.
        #[serde(default)]
        pub standing: Standing,
        /// Why it is not simply a member.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub standing_why: Option<String>,
        /// Whether it was told to empty itself, and has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub departure: Option<Departure>,
        /// When it was last heard.
        pub last_seen_ms: Option<UnixMs>,
        /// When it was enrolled.
        pub enrolled_ms: UnixMs,
        /// SHA-256 of its key.
        pub fingerprint: Digest,
        /// Labels of its claim and of its owner.
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
        /// The newest desired state signed for it.
        pub desired: Option<Generation>,
        /// The desired state it works towards.
        pub applied: Option<Generation>,
        /// What it last said of itself.
        pub facts: Option<Facts>,
        /// How its hardware fares, as it last reported.
        #[serde(default)]
        pub health: Option<Health>,
        /// Its slots as it last reported them.
        pub slots: Vec<SlotReport>,
        /// Bundles that it will not try again.
        pub refusals: Vec<Refusal>,
        /// The last desired state that it did not take.
        pub desired_refused: Option<DesiredRefused>,
        /// What else it says that a person should know: its clock, its owner's limits, who signed what runs.
        #[serde(default)]
        pub notes: Vec<String>,
        /// Its newest telemetry.
        pub host: Option<HostSample>,
        /// Each of its models, summed over the telemetry that is kept.
        pub models: Vec<ModelView>,
    }

    /// One model on one device.
    pub struct ModelView {
        /// Its slot.
        pub deployment: DeploymentName,
        /// The version that answered.
        pub version: u64,
        /// Predictions asked for.
        pub requests: u64,
        /// Those that failed by our fault or the model's.
        pub errors: u64,
        /// Processor time that the good ones took, in microseconds.
        #[serde(default)]
        pub cpu_us: u64,
        /// The figures of the last minute; none: nothing came lately.
        pub figures: Option<Figures>,
        /// Median latency in microseconds.
        pub p50_us: Option<f64>,
        /// 99th percentile in microseconds.
        pub p99_us: Option<f64>,
    }

    /// Something that happened.
    pub struct EventView {
        /// When the plane heard of it.
        pub at_ms: UnixMs,
        /// On which device.
        pub device: Option<DeviceId>,
        /// What.
        pub kind: Happening,
        /// Which deployment.
        pub deployment: Option<DeploymentName>,
        /// The particulars.
        pub text: String,
    }
}
