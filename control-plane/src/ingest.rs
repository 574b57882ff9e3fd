//! What devices say, sorted by topic. Nothing a device sends can do more than be dropped.
//!
//! Two loops: this one passes on what is quick (replies, chunk requests, hints); [`record`] writes to
//! the database what is signed, one thing after the other. So a prediction never waits for a disk.

pub mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use muster_shared::DeviceId;
use muster_shared::checks::{self, Check};
use muster_shared::message::{ChunkGet, Event, Hello, Reply};
use muster_shared::reported::SignedReported;
use muster_shared::telemetry::SignedBatch;
use muster_shared::topic::{Leaf, Topic};
use muster_shared::wire::{self, Message};
use tokio::sync::mpsc;

use self::record::Record;
use crate::broker::BrokerEvent;
use crate::hearing;
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;

/// Signed documents and events that wait for the database; then the broker waits, and with it the
/// devices.
const RECORDS_QUEUED_MAX: usize = 256;
/// Unsigned hints of one kind that one device may send in [`RATE_TIME`].
const HINTS_MAX: u32 = 120;
/// Signed reports and telemetry batches that one device may send in [`RATE_TIME`]: what an outage left behind
/// comes as fast as it is acknowledged.
const SIGNED_MAX: u32 = 6_000;
/// The time that [`HINTS_MAX`] counts in.
const RATE_TIME: Duration = Duration::from_secs(60);

/// Reads what devices say, until the plane stops.
pub async fn run(plane: Arc<Plane>, mut events: mpsc::Receiver<BrokerEvent>) {
    let (records, receiver) = mpsc::channel(RECORDS_QUEUED_MAX);
    plane.tasks.spawn(record::run(plane.clone(), receiver));
    let mut ingest = Ingest { plane: plane.clone(), records, rates: HashMap::new() };
    let mut beat = tokio::time::interval(hearing::BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = plane.stop.cancelled() => return,
            event = events.recv() => event,
            _ = beat.tick() => {
                plane.hearing.beat(now_ms());
                continue;
            }
        };
        match event {
            Some(event) => ingest.take(event).await,
            None => return,
        }
    }
}

struct Ingest {
    plane: Arc<Plane>,
    records: mpsc::Sender<Record>,
    /// Of connected devices only.
    rates: HashMap<DeviceId, Rates>,
}

#[derive(Default)]
struct Rates {
    hello: Rate,
    event: Rate,
    signed: Rate,
}

impl Ingest {
    async fn take(&mut self, event: BrokerEvent) {
        match event {
            BrokerEvent::Connected { device } => self.session(&device, true),
            BrokerEvent::Disconnected { device } => self.session(&device, false),
            BrokerEvent::Message { device, topic, payload } => {
                // The broker's access rule lets only these through; a bug there must not become one here.
                match topic.parse::<Topic>() {
                    Ok(topic) if topic.device.as_str() == device || !checks::on(Check::Topics) => {
                        self.message(topic, payload).await
                    }
                    _ => tracing::warn!(device, topic, "dropped a message on another's topic"),
                }
            }
        }
    }

    fn session(&mut self, device: &str, connected: bool) {
        let Ok(device) = device.parse::<DeviceId>() else { return };
        tracing::info!(%device, connected, "device session");
        if !connected {
            self.rates.remove(&device);
            self.plane.gateway.device_is_gone(&device);
        }
        self.plane.live.change(&device, |live| live.session(connected, now_ms()));
        self.plane.nudges.planner.notify_one();
    }

    async fn message(&mut self, topic: Topic, payload: Bytes) {
        let Topic { device, leaf } = topic;
        // Also of a device that was revoked a moment ago, or that comes by a broker that is not ours.
        if !self.plane.live.is_heard(&device) {
            return;
        }
        self.plane.live.change(&device, |live| live.last_seen_ms = Some(now_ms()));
        match leaf {
            Leaf::Hello => self.hello(&device, &payload),
            Leaf::ChunkGet => {
                if let Some(request) = read::<ChunkGet>(&device, &payload) {
                    self.plane.chunks.ask(&self.plane, &device, request);
                }
            }
            Leaf::Reply(_) => {
                if let Some(reply) = read::<Reply>(&device, &payload) {
                    self.plane.gateway.reply(&device, reply);
                }
            }
            Leaf::Gone => {
                self.plane.live.change(&device, LiveDevice::gone);
                self.plane.gateway.device_is_gone(&device);
                self.plane.nudges.planner.notify_one();
            }
            Leaf::Reported => {
                if self.signed_allowed(&device, &payload, SignedReported::BYTES_MAX) {
                    self.record(Record::Reported { device, payload }).await;
                }
            }
            Leaf::Telemetry => {
                if self.signed_allowed(&device, &payload, SignedBatch::BYTES_MAX) {
                    self.record(Record::Telemetry { device, payload }).await;
                }
            }
            Leaf::Event => self.event(device, &payload).await,
            Leaf::Trust | Leaf::Desired | Leaf::ChunkData | Leaf::TelemetryAck | Leaf::Call => {
                tracing::warn!(%device, "dropped a message that only the plane sends");
            }
        }
    }

    fn hello(&mut self, device: &DeviceId, payload: &[u8]) {
        if !self.rates.entry(device.clone()).or_default().hello.allows(Instant::now()) {
            return;
        }
        let Some(hello) = read::<Hello>(device, payload) else { return };
        self.plane.live.change(device, |live| {
            live.hello = Some(hello);
            live.hello_is_due = true;
            // What it says that it believes is what it has: a root that was lost on the way is sent again.
            live.root_sent = 0;
        });
        self.plane.nudges.publisher.notify_one();
    }

    /// Whether one more signed document of a device may wait for the database, which all devices share.
    fn signed_allowed(&mut self, device: &DeviceId, payload: &Bytes, bytes_max: usize) -> bool {
        let rate = &mut self.rates.entry(device.clone()).or_default().signed;
        payload.len() <= bytes_max && rate.allows_up_to(SIGNED_MAX, Instant::now())
    }

    async fn event(&mut self, device: DeviceId, payload: &[u8]) {
        if !self.rates.entry(device.clone()).or_default().event.allows(Instant::now()) {
            return;
        }
        if let Some(event) = read::<Event>(&device, payload) {
            self.record(Record::Event { device, event }).await;
        }
    }

    async fn record(&self, record: Record) {
        // Fails only while the plane stops.
        let _ = self.records.send(record).await;
    }
}

fn read<M: Message>(device: &DeviceId, payload: &[u8]) -> Option<M> {
    wire::decode(payload).inspect_err(|error| tracing::warn!(%device, %error, "dropped a malformed message")).ok()
}

/// Counts in windows of [`RATE_TIME`].
struct Rate {
    since: Instant,
    count: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { since: Instant::now(), count: 0 }
    }
}

impl Rate {
    fn allows(&mut self, now: Instant) -> bool {
        self.allows_up_to(HINTS_MAX, now)
    }

    fn allows_up_to(&mut self, most: u32, now: Instant) -> bool {
        if now.duration_since(self.since) >= RATE_TIME {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chatty_device_is_heard_again_in_the_next_minute() {
        let mut rate = Rate::default();
        let start = rate.since;
        assert_eq!((0..HINTS_MAX * 2).filter(|_| rate.allows(start)).count(), HINTS_MAX as usize);
        assert!(!rate.allows(start + RATE_TIME / 2));
        assert!(rate.allows(start + RATE_TIME));
    }
}
