//! How a device and its models fare, in numbered batches, signed by the device.

use serde::{Deserialize, Serialize};

use crate::hardware::Strain;
use crate::id::{BootId, DeploymentName, DeviceId, ModelName, UnixMs, Version};
use crate::limits::TELEMETRY_BYTES_MAX;
use crate::signing::Envelope;
use crate::sketch::Sketch;
use crate::v1;
use crate::wire::{Message, WireError, decode_as};

/// One batch, wire codec inside the device's envelope. (boot, sequence) names it: counted once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Whose batch.
    pub device: DeviceId,
    /// Which run of the agent.
    pub boot: BootId,
    /// Grows by one within a boot.
    pub sequence: u64,
    /// The device's clock at its start.
    pub from_ms: UnixMs,
    /// The device's clock at its end.
    pub until_ms: UnixMs,
    /// The machine at the batch's end.
    pub host: HostSample,
    /// What each model did in the batch's time.
    pub models: Vec<ModelSample>,
}

impl Message for Batch {
    const NAME: &'static str = "telemetry batch";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = TELEMETRY_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_as::<v1::Batch, _>(body))
    }
}

/// A batch as it travels and as it waits on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBatch(pub Envelope);

impl Message for SignedBatch {
    const NAME: &'static str = "signed telemetry batch";
    const BYTES_MAX: usize = TELEMETRY_BYTES_MAX;
}

/// The machine. Absent: the kernel does not tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HostSample {
    /// Share of all cores in use, in thousandths.
    pub cpu_permille: u32,
    /// Memory in use.
    pub memory_used_bytes: u64,
    /// Memory there is.
    pub memory_bytes: u64,
    /// Disk free where bundles are stored.
    pub disk_free_bytes: Option<u64>,
    /// Disk there.
    pub disk_bytes: Option<u64>,
    /// The hottest sensor, in thousandths of a degree Celsius. The others stand in the reported state, which
    /// comes less often and is kept once.
    pub temperature_millicelsius: Option<i32>,
    /// What slows it down.
    #[serde(default)]
    pub strains: Vec<Strain>,
    /// Whether it is fed from outside.
    #[serde(default)]
    pub on_mains: Option<bool>,
    /// How full its emptiest battery is.
    #[serde(default)]
    pub battery_percent: Option<u8>,
}

/// One model in one batch's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSample {
    /// Its slot.
    pub deployment: DeploymentName,
    /// The model.
    pub model: ModelName,
    /// The version that answered.
    pub version: Version,
    /// Predictions asked for, good and bad.
    pub requests: u64,
    /// Those that failed by our fault or the model's: not the caller's mistakes.
    pub errors: u64,
    /// Processor time its worker used, in microseconds.
    pub cpu_us: u64,
    /// Wall time of the good ones.
    pub latency: Sketch,
}

/// Which batches are durable: every sequence number of `boot` up to and including this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which run of the agent.
    pub boot: BootId,
    /// The highest durable batch; those before it are durable too.
    pub sequence: u64,
}

impl Message for Ack {
    const NAME: &'static str = "telemetry acknowledgement";
    const BYTES_MAX: usize = crate::limits::SMALL_MESSAGE_BYTES_MAX;
}
