//! Devices and what happened on them.

use serde::{Deserialize, Serialize};

use super::api_types;
use crate::Digest;
use crate::id::{DeploymentName, DeviceId, Generation, Labels, UnixMs};
use crate::message::EventKind;
use crate::reported::{DesiredRefused, Facts, Refusal, SlotReport};
use crate::telemetry::HostSample;

api_types! {
    /// One device.
    pub struct DeviceView {
        /// Its id.
        pub id: DeviceId,
        /// Whether the broker holds a connection of it.
        pub connected: bool,
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
        /// Its slots as it last reported them.
        pub slots: Vec<SlotReport>,
        /// Bundles that it will not try again.
        pub refusals: Vec<Refusal>,
        /// The last desired state that it did not take.
        pub desired_refused: Option<DesiredRefused>,
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
        pub kind: EventKind,
        /// Which deployment.
        pub deployment: Option<DeploymentName>,
        /// The particulars.
        pub text: String,
    }
}
