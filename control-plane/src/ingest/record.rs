//! Writes down what devices say: signed reports, signed telemetry, events. One at a time: there is
//! one writer to the database anyway.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use muster_control_plane_core::clones::Runs;
use muster_shared::api::fleet::EventView;
use muster_shared::api::members::Standing;
use muster_shared::checks::{self, Check};
use muster_shared::id::BootId;
use muster_shared::limits::clip;
use muster_shared::message::Event;
use muster_shared::reported::{Facts, Reported, SignedReported};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::telemetry::{Ack, Batch, SignedBatch};
use muster_shared::topic::Leaf;
use muster_shared::wire::{self, WireError};
use muster_shared::{DeviceId, signing::VerifyError};
use tokio::sync::mpsc;

use crate::broker::QoS;
use crate::db::devices::Order;
use crate::db::{self, DbError};
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;
use crate::trust::members;

/// What is to be written down.
pub enum Record {
    /// A reported state, as it came.
    Reported {
        /// Whose topic it came on.
        device: DeviceId,
        /// The bytes.
        payload: Bytes,
    },
    /// A telemetry batch, as it came.
    Telemetry {
        /// Whose topic it came on.
        device: DeviceId,
        /// The bytes.
        payload: Bytes,
    },
    /// An event.
    Event {
        /// Whose topic it came on.
        device: DeviceId,
        /// The event.
        event: Event,
    },
}

/// Why something is not written down.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("the device is not enrolled")]
    Unknown,
    #[error("the message is malformed")]
    Wire(#[from] WireError),
    #[error("the signature does not hold")]
    Signature(#[from] VerifyError),
    #[error("it speaks for device {0}")]
    OtherDevice(DeviceId),
    #[error("a number in it is beyond what can be stored")]
    TooLarge,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Writes down what comes, until the plane stops.
pub async fn run(plane: Arc<Plane>, mut records: mpsc::Receiver<Record>) {
    let mut acks = Acks::default();
    let mut runs = HashMap::new();
    loop {
        let record = tokio::select! {
            () = plane.stop.cancelled() => return,
            record = records.recv() => record,
        };
        let Some(record) = record else { return };
        let (device, what, written) = match record {
            Record::Reported { device, payload } => {
                let written = reported(&plane, &device, &payload, &mut runs).await;
                (device, "report", written)
            }
            Record::Telemetry { device, payload } => {
                let written = telemetry(&plane, &device, &payload, &mut acks).await;
                (device, "telemetry", written)
            }
            Record::Event { device, event } => {
                let written = event_happened(&plane, &device, event).await;
                (device, "event", written)
            }
        };
        // A device that sends nonsense is no trouble of ours; a database that takes nothing is.
        plane.hearing.written(!matches!(written, Err(RecordError::Db(_))));
        if let Err(error) = written {
            tracing::warn!(%device, what, error = &error as &dyn std::error::Error, "not written down");
        }
    }
}

/// The payload of a document, once the device's key has signed it.
fn verified<'a>(envelope: &'a Envelope, kind: &str, live: &LiveDevice) -> Result<&'a [u8], RecordError> {
    if !live.is_let_in() {
        return Err(RecordError::Unknown);
    }
    let verified = envelope.verify_device(kind, &live.key);
    if checks::on(Check::DeviceSignature) { Ok(verified?) } else { Ok(&envelope.payload) }
}

async fn reported(
    plane: &Plane,
    device: &DeviceId,
    payload: &[u8],
    runs: &mut HashMap<DeviceId, Runs>,
) -> Result<(), RecordError> {
    let live = plane.live.get(device).ok_or(RecordError::Unknown)?;
    let SignedReported(envelope) = wire::decode(payload)?;
    let bytes = verified(&envelope, payload_type::REPORTED, &live)?;
    let reported: Reported = wire::decode(bytes)?;
    if reported.device != *device {
        return Err(RecordError::OtherDevice(reported.device));
    }
    let is_held = live.standing == Standing::Cloned;
    let heard = runs.entry(device.clone()).or_default();
    // A time that has yet to come must not make every later report look old.
    let at_ms = reported.at_ms.min(now_ms().saturating_add(CLOCK_AHEAD_MS_MAX));
    let found = heard.hear(reported.boot, reported.sequence, at_ms) && !is_held;
    if is_held || found {
        // Once an operator lets it go on, what is counted is counted anew.
        *heard = Runs::default();
    }
    if found {
        members::hold_clone(plane, device).await?;
    }
    let transaction = plane.db.begin().await?;
    let order = db::devices::store_report(&transaction, &reported, bytes, now_ms()).await?;
    db::commit(transaction).await?;
    if order == Order::Old {
        tracing::debug!(%device, "dropped an old report");
        return Ok(());
    }
    let news = live.reported.is_none_or(|held| is_news(&held, &reported));
    plane.live.change(device, |live| {
        live.reported = Some(Arc::new(reported));
        live.has_reported = true;
    });
    plane.nudges.publisher.notify_one();
    if news {
        plane.nudges.planner.notify_one();
    }
    Ok(())
}

/// Whether a report says anything that a plan or a condition follows from.
fn is_news(held: &Reported, new: &Reported) -> bool {
    let stable = |facts: &Facts| Facts { disk_free_bytes: None, ..facts.clone() };
    stable(&held.facts) != stable(&new.facts)
        || held.slots != new.slots
        || held.refusals != new.refusals
        || held.applied != new.applied
}

async fn telemetry(plane: &Plane, device: &DeviceId, payload: &[u8], acks: &mut Acks) -> Result<(), RecordError> {
    let live = plane.live.get(device).ok_or(RecordError::Unknown)?;
    let SignedBatch(envelope) = wire::decode(payload)?;
    let bytes = verified(&envelope, payload_type::TELEMETRY, &live)?;
    let batch: Batch = wire::decode(bytes)?;
    if batch.device != *device {
        return Err(RecordError::OtherDevice(batch.device));
    }
    if i64::try_from(batch.sequence).is_err() {
        return Err(RecordError::TooLarge);
    }
    let key = (device.clone(), batch.boot);
    let stored = store(plane, &batch).await;
    if acks.may_acknowledge(key, batch.sequence, stored.as_ref().ok().copied()) {
        let ack = Ack { boot: batch.boot, sequence: batch.sequence };
        plane.send(device, Leaf::TelemetryAck, &ack, QoS::AtLeastOnce).await;
    }
    if matches!(stored, Ok(true)) {
        plane.figures.add(&batch, now_ms());
    }
    stored.map(drop).map_err(RecordError::from)
}

async fn store(plane: &Plane, batch: &Batch) -> Result<bool, DbError> {
    let transaction = plane.telemetry.begin().await?;
    let news = db::telemetry::store(&transaction, batch, now_ms()).await?;
    db::commit(transaction).await?;
    Ok(news)
}

/// Batches that could not be stored, by run of the agent: the lowest sequence number of each. An
/// acknowledgement covers everything before it, so nothing after such a batch may be acknowledged
/// until it is stored.
#[derive(Default)]
struct Acks {
    failed: HashMap<(DeviceId, BootId), u64>,
}

/// A device's clock may be so far ahead of ours where runs are compared.
const CLOCK_AHEAD_MS_MAX: u64 = 60_000;
/// Runs of agents with a batch that could not be stored; beyond that all are forgotten, and their
/// agents are told nothing until they repeat from their oldest batch.
const FAILED_RUNS_MAX: usize = 10_000;

impl Acks {
    /// `stored`: whether the batch was news; nothing if it could not be stored.
    fn may_acknowledge(&mut self, run: (DeviceId, BootId), sequence: u64, stored: Option<bool>) -> bool {
        let Some(news) = stored else {
            if self.failed.len() >= FAILED_RUNS_MAX {
                self.failed.clear();
            }
            let lowest = self.failed.entry(run).or_insert(sequence);
            *lowest = sequence.min(*lowest);
            return false;
        };
        match self.failed.get(&run) {
            // A device repeats from its oldest batch: a repeated later one means that it has given the
            // failed one up.
            Some(failed) if sequence > *failed && news => false,
            Some(_) => {
                self.failed.remove(&run);
                true
            }
            None => true,
        }
    }
}

async fn event_happened(plane: &Plane, device: &DeviceId, event: Event) -> Result<(), RecordError> {
    if !plane.live.is_heard(device) {
        return Err(RecordError::Unknown);
    }
    let event = EventView {
        at_ms: now_ms(),
        device: Some(device.clone()),
        kind: event.kind.into(),
        deployment: event.deployment,
        text: clip(event.text),
    };
    tracing::info!(%device, kind = ?event.kind, text = event.text, "event");
    Ok(db::events::insert(plane.db.write(), &event).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_after_a_batch_that_failed_is_acknowledged_until_it_is_stored() {
        let mut acks = Acks::default();
        let run = || ("edge-1".parse().expect("an id"), BootId([1; 16]));
        let other = || ("edge-2".parse().expect("an id"), BootId([1; 16]));
        assert!(acks.may_acknowledge(run(), 1, Some(true)));
        assert!(!acks.may_acknowledge(run(), 2, None));
        assert!(!acks.may_acknowledge(run(), 3, Some(true)));
        assert!(acks.may_acknowledge(other(), 3, Some(true)));
        assert!(acks.may_acknowledge(run(), 2, Some(true)));
        assert!(acks.may_acknowledge(run(), 4, Some(true)));
        // The device gives batch 5 up and repeats from 6 on.
        assert!(!acks.may_acknowledge(run(), 5, None));
        assert!(!acks.may_acknowledge(run(), 6, Some(true)));
        assert!(acks.may_acknowledge(run(), 6, Some(false)));
    }
}
