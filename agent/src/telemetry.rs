//! Telemetry: a batch is made, signed, kept on disk, sent, and forgotten once the plane has it.

use std::sync::Arc;

use muster_shared::DeviceId;
use muster_shared::id::{BootId, UnixMs};
use muster_shared::signing::payload_type;
use muster_shared::telemetry::{Ack, Batch, HostSample, SignedBatch};
use muster_shared::topic::Leaf;
use muster_shared::wire;
use rumqttc::QoS;
use tracing::warn;

use crate::identity::DeviceKey;
use crate::journal::Journal;
use crate::meter::Meter;
use crate::mqtt::Mqtt;

/// Batches sent again at once after an outage; the rest follows with the next ones.
const RESEND_BATCHES_MAX: usize = 16;

/// Makes and keeps batches.
pub struct Telemetry {
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    from_ms: UnixMs,
    key: Arc<DeviceKey>,
    meter: Arc<Meter>,
}

impl Telemetry {
    /// Begins with this boot's first batch.
    pub fn new(device: DeviceId, boot: BootId, key: Arc<DeviceKey>, meter: Arc<Meter>, now_ms: UnixMs) -> Self {
        Self { device, boot, sequence: 0, from_ms: now_ms, key, meter }
    }

    /// Closes the current batch and keeps it; then sends what waits.
    pub fn batch(&mut self, host: HostSample, journal: &Journal, mqtt: &Mqtt, now_ms: UnixMs) {
        self.sequence += 1;
        let batch = Batch {
            device: self.device.clone(),
            boot: self.boot,
            sequence: self.sequence,
            from_ms: self.from_ms,
            until_ms: now_ms,
            host,
            models: self.meter.take(),
        };
        self.from_ms = now_ms;
        if let Err(error) = self.keep(&batch, journal) {
            warn!(error = format!("{error:#}"), "a telemetry batch is lost");
        }
        self.send_waiting(journal, mqtt);
    }

    fn keep(&self, batch: &Batch, journal: &Journal) -> anyhow::Result<()> {
        let signed = SignedBatch(self.key.sign(payload_type::TELEMETRY, wire::encode(batch)?)?);
        let dropped = journal.keep_batch(batch.boot, batch.sequence, &signed)?;
        if dropped > 0 {
            warn!(dropped, "old telemetry gave way to new");
        }
        Ok(())
    }

    /// Sends what waits, oldest first. What is sent twice is counted once.
    pub fn send_waiting(&self, journal: &Journal, mqtt: &Mqtt) {
        match journal.batches(RESEND_BATCHES_MAX) {
            Ok(batches) => {
                for batch in batches {
                    if let Ok(bytes) = wire::encode(&batch) {
                        mqtt.send(Leaf::Telemetry, QoS::AtLeastOnce, bytes);
                    }
                }
            }
            Err(error) => warn!(%error, "cannot read the telemetry that waits"),
        }
    }

    /// The plane has batches: forget them, and send more if more wait.
    pub fn acknowledged(&self, ack: Ack, journal: &Journal) {
        if let Err(error) = journal.acknowledge(ack) {
            warn!(%error, "cannot forget acknowledged telemetry");
        }
    }
}
