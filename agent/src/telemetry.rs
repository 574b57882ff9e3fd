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

/// Batches under way at once; each acknowledgement lets the next one follow.
const IN_FLIGHT_BATCHES_MAX: usize = 16;

/// Makes and keeps batches.
pub struct Telemetry {
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    from_ms: UnixMs,
    key: Arc<DeviceKey>,
    meter: Arc<Meter>,
    window: Window,
}

/// Which of the kept batches were sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Window {
    /// The key of the last one that was sent.
    sent: u64,
    /// How many of them have yet to be acknowledged.
    in_flight: usize,
    /// Whether any was acknowledged since the last look.
    moves: bool,
}

impl Window {
    /// How many more may be sent.
    fn room(&self) -> usize {
        IN_FLIGHT_BATCHES_MAX.saturating_sub(self.in_flight)
    }

    fn sent(&mut self, key: u64) {
        (self.sent, self.in_flight) = (key, self.in_flight + 1);
    }

    fn acknowledged(&mut self, batches: usize) {
        self.in_flight = self.in_flight.saturating_sub(batches);
        self.moves |= batches > 0;
    }

    /// Nothing came back for a whole batch's time: what was sent may be lost, so it is sent again.
    fn look(&mut self) {
        if self.in_flight > 0 && !self.moves {
            *self = Self::default();
        }
        self.moves = false;
    }
}

impl Telemetry {
    /// Begins with this boot's first batch.
    pub fn new(device: DeviceId, boot: BootId, key: Arc<DeviceKey>, meter: Arc<Meter>, now_ms: UnixMs) -> Self {
        Self { device, boot, sequence: 0, from_ms: now_ms, key, meter, window: Window::default() }
    }

    /// The clock was corrected from one time to another: the batch that is open began that much later, or earlier.
    pub fn corrected(&mut self, was_ms: UnixMs, now_ms: UnixMs) {
        self.from_ms = now_ms.saturating_sub(was_ms.saturating_sub(self.from_ms));
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
        self.window.look();
        self.send_more(journal, mqtt);
    }

    fn keep(&self, batch: &Batch, journal: &Journal) -> anyhow::Result<()> {
        let signed = SignedBatch(self.key.sign(payload_type::TELEMETRY, wire::encode(batch)?)?);
        let dropped = journal.keep_batch(batch.boot, batch.sequence, &signed)?;
        if dropped > 0 {
            warn!(dropped, "old telemetry gave way to new");
        }
        Ok(())
    }

    /// The connection is new: sends what waits from the oldest on. What is sent twice is counted once.
    pub fn connected(&mut self, journal: &Journal, mqtt: &Mqtt) {
        self.window = Window::default();
        self.send_more(journal, mqtt);
    }

    /// Sends the oldest batches that were not sent yet, as many as may be under way.
    fn send_more(&mut self, journal: &Journal, mqtt: &Mqtt) {
        match journal.batches(self.window.sent, self.window.room()) {
            Ok(batches) => {
                for (key, batch) in batches {
                    self.window.sent(key);
                    if let Ok(bytes) = wire::encode(&batch) {
                        mqtt.send(Leaf::Telemetry, QoS::AtLeastOnce, bytes);
                    }
                }
            }
            Err(error) => warn!(%error, "cannot read the telemetry that waits"),
        }
    }

    /// The plane has batches: forget them, and send more if more wait.
    pub fn acknowledged(&mut self, ack: Ack, journal: &Journal, mqtt: &Mqtt) {
        match journal.acknowledge(ack) {
            Ok(forgotten) => {
                self.window.acknowledged(forgotten);
                self.send_more(journal, mqtt);
            }
            Err(error) => warn!(%error, "cannot forget acknowledged telemetry"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_acknowledgement_lets_the_next_batch_follow_and_what_is_lost_is_sent_again() {
        let mut window = Window::default();
        (1..=IN_FLIGHT_BATCHES_MAX as u64).for_each(|key| window.sent(key));
        assert_eq!((window.room(), window.sent), (0, 16));
        window.acknowledged(3);
        window.look();
        assert_eq!((window.room(), window.sent), (3, 16));
        // Nothing came back since: from the oldest on again.
        window.look();
        assert_eq!(window, Window::default());
        // With nothing under way there is nothing to miss.
        window.sent(17);
        window.acknowledged(1);
        window.look();
        window.look();
        assert_eq!((window.room(), window.sent), (IN_FLIGHT_BATCHES_MAX, 17));
    }
}
