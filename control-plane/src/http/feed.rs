//! One live stream for everyone who watches: the whole picture first, then what changed. One task
//! looks, and only while somebody watches; readers get what it saw. A reader that cannot keep up is
//! told to start again, so that nothing piles up here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use futures_util::{Stream, stream};
use muster_shared::api::Problem;
use muster_shared::api::dashboard::{DeploymentLive, FeedChange, FeedMessage, FeedSnapshot};
use muster_shared::api::fleet::{DeviceView, EventView};
use muster_shared::api::plan::FreezeView;
use muster_shared::id::{FleetId, UnixMs};
use muster_shared::{DeploymentName, DeviceId};
use tokio::sync::{Mutex, broadcast};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::devices::Known;
use super::error::ApiError;
use super::plan;
use crate::db::{self, DbError};
use crate::plane::Plane;
use crate::{now_ms, status};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// A look that took long is followed by a pause of so many times its length: watching must not be
/// what keeps the plane busy.
const PAUSE_FACTOR: u32 = 4;
/// A word in between, so that the page knows that the stream still lives.
const BEAT: Duration = Duration::from_secs(10);
/// How long one stream lasts; then the page asks again, and shows its session anew.
const STREAM_TIME: Duration = Duration::from_secs(3600);
/// How soon the page asks again.
const RETRY: Duration = Duration::from_secs(1);
/// Streams at once.
const READERS_MAX: usize = 64;
/// Changes that wait for a slow reader; with more, it starts again.
const CHANGES_MAX: usize = 32;
/// Devices in the picture; those in trouble come first.
const DEVICES_MAX: usize = 2_000;
/// Events in the picture.
const EVENTS_MAX: usize = 100;

/// Calls that need a token or a session.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(feed))
}

/// What those who watch share.
pub struct Feed(Mutex<Hub>);

struct Hub {
    /// As everyone who watches knows it; none: nobody watches.
    picture: Option<Picture>,
    changes: broadcast::Sender<Message>,
    /// Counts the pictures.
    number: u64,
}

#[derive(Debug, Clone)]
struct Message {
    number: u64,
    json: Arc<str>,
}

#[derive(Debug, Clone, PartialEq)]
struct Picture {
    at_ms: UnixMs,
    fleet: Option<FleetId>,
    devices: BTreeMap<DeviceId, DeviceView>,
    devices_left_out: u32,
    deployments: BTreeMap<DeploymentName, DeploymentLive>,
    events: Vec<EventView>,
    frozen: Vec<FreezeView>,
    restored: Option<String>,
}

impl Default for Feed {
    fn default() -> Self {
        Self(Mutex::new(Hub { picture: None, changes: broadcast::Sender::new(CHANGES_MAX), number: 0 }))
    }
}

/// The whole picture, then what changes: server-sent events `snapshot` (a `FeedSnapshot`), `change`
/// (a `FeedChange`), `beat` (nothing new), and `again` (this reader was too slow: connect anew).
#[utoipa::path(get, path = "/feed", tag = "people",
    responses((status = 200, content_type = "text/event-stream", body = FeedMessage), (status = 503, body = Problem)))]
async fn feed(
    State(plane): State<Arc<Plane>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, ApiError> {
    let mut hub = plane.feed.0.lock().await;
    if hub.changes.receiver_count() >= READERS_MAX {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("{READERS_MAX} pages watch already"))
            .hint("close one, or try again in a moment"));
    }
    // Under the lock: no change falls between the picture and the subscription.
    if hub.picture.is_none() {
        hub.picture = Some(Picture::look(&plane).await?);
        plane.tasks.spawn(watch(plane.clone()));
    }
    let first = hub.picture.as_ref().map(|picture| picture.snapshot(hub.number));
    let changes = hub.changes.subscribe();
    drop(hub);
    let reader =
        Reader { first, changes, ends: Instant::now() + STREAM_TIME, stop: plane.stop.clone(), is_over: false };
    Ok(Sse::new(stream::unfold(reader, |mut reader| async { reader.next().await.map(|event| (Ok(event), reader)) })))
}

/// Looks as long as somebody watches.
async fn watch(plane: Arc<Plane>) {
    let mut pause = PAUSE;
    loop {
        tokio::select! {
            () = plane.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        let began = Instant::now();
        let looked = Picture::look(&plane).await;
        pause = PAUSE.max(began.elapsed() * PAUSE_FACTOR);
        let mut hub = plane.feed.0.lock().await;
        if hub.changes.receiver_count() == 0 {
            hub.picture = None;
            return;
        }
        match looked {
            Ok(picture) => hub.show(picture),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot look; will retry"),
        }
    }
}

impl Hub {
    fn show(&mut self, picture: Picture) {
        let change = self.picture.as_ref().and_then(|before| picture.since(before));
        if let Some(change) = change {
            self.number += 1;
            let json = serde_json::to_string(&change).unwrap_or_default().into();
            // Nobody listens: they left just now.
            let _ = self.changes.send(Message { number: self.number, json });
        }
        self.picture = Some(picture);
    }
}

impl Picture {
    async fn look(plane: &Plane) -> Result<Self, DbError> {
        let mut known = Known::read(plane).await?;
        let records = db::devices::list(plane.db.read()).await?;
        let mut devices: Vec<DeviceView> = records.into_iter().map(|record| known.view(plane, record)).collect();
        devices.sort_by_key(|device| (device.connected && device.silent_since_ms.is_none(), device.id.clone()));
        let devices_left_out = devices.len().saturating_sub(DEVICES_MAX).try_into().unwrap_or(u32::MAX);
        devices.truncate(DEVICES_MAX);
        let records = db::deployments::list(plane.db.read()).await?;
        let live = |record: db::deployments::DeploymentRecord| {
            let resource = status::resource(&record, &known.facts);
            (record.name.clone(), DeploymentLive { resource, demand: plan::demand(&record, &known.facts) })
        };
        Ok(Self {
            at_ms: now_ms(),
            fleet: plane.trust.newest().map(|root| root.root().fleet.clone()),
            devices: devices.into_iter().map(|device| (device.id.clone(), device)).collect(),
            devices_left_out,
            deployments: records.into_iter().map(live).collect(),
            events: db::events::newest(plane.db.read(), EVENTS_MAX as u64).await?,
            frozen: plan::freezes(&known.facts.liveness),
            restored: known.facts.restored.clone(),
        })
    }

    fn snapshot(&self, number: u64) -> Event {
        let snapshot = FeedMessage::Snapshot(FeedSnapshot {
            at_ms: self.at_ms,
            fleet: self.fleet.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: self.devices.values().cloned().collect(),
            devices_left_out: self.devices_left_out,
            deployments: self.deployments.values().cloned().collect(),
            events: self.events.clone(),
            frozen: self.frozen.clone(),
            restored: self.restored.clone(),
        });
        let json = serde_json::to_string(&snapshot).unwrap_or_default();
        Event::default().event("snapshot").id(number.to_string()).retry(RETRY).data(json)
    }

    /// What is new; none: nothing is.
    fn since(&self, before: &Self) -> Option<FeedChange> {
        let change = FeedChange {
            at_ms: self.at_ms,
            fleet: self.fleet.clone(),
            devices: changed(&before.devices, &self.devices),
            devices_gone: gone(&before.devices, &self.devices),
            devices_left_out: self.devices_left_out,
            deployments: changed(&before.deployments, &self.deployments),
            deployments_gone: gone(&before.deployments, &self.deployments),
            events: self.events[..self.new_events(before)].to_vec(),
            frozen: self.frozen.clone(),
            restored: self.restored.clone(),
        };
        let same = Self { at_ms: before.at_ms, ..self.clone() } == *before;
        (!same).then_some(change)
    }

    /// Events before the one that was the newest.
    fn new_events(&self, before: &Self) -> usize {
        let Some(newest) = before.events.first() else { return self.events.len() };
        self.events.iter().position(|event| event == newest).unwrap_or(self.events.len())
    }
}

fn changed<K: Ord, V: Clone + PartialEq>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Vec<V> {
    after.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(_, value)| value.clone()).collect()
}

fn gone<K: Ord + Clone, V>(before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Vec<K> {
    before.keys().filter(|key| !after.contains_key(key)).cloned().collect()
}

/// One page that watches.
struct Reader {
    first: Option<Event>,
    changes: broadcast::Receiver<Message>,
    ends: Instant,
    stop: CancellationToken,
    is_over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.is_over {
            return None;
        }
        let received = tokio::select! {
            () = self.stop.cancelled() => return None,
            () = sleep_until(self.ends) => return None,
            () = sleep(BEAT) => return Some(Event::default().event("beat").data("{}")),
            received = self.changes.recv() => received,
        };
        match received {
            Ok(Message { number, json }) => Some(Event::default().event("change").id(number.to_string()).data(&*json)),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.is_over = true;
                Some(Event::default().event("again").data("{}"))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::api::fleet::Happening;

    use super::*;

    fn picture(events: &[u64]) -> Picture {
        let event = |at_ms: &u64| EventView {
            at_ms: *at_ms,
            device: None,
            kind: Happening::Started,
            deployment: None,
            text: String::new(),
        };
        Picture {
            at_ms: 1,
            fleet: None,
            devices: BTreeMap::new(),
            devices_left_out: 0,
            deployments: BTreeMap::new(),
            events: events.iter().map(event).collect(),
            frozen: vec![],
            restored: None,
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let before = picture(&[2, 1]);
        assert_eq!(Picture { at_ms: 9, ..before.clone() }.since(&before), None);
        let change = picture(&[4, 3, 2]).since(&before).expect("a change");
        assert_eq!(change.events.iter().map(|event| event.at_ms).collect::<Vec<_>>(), [4, 3]);
        // More happened than the picture holds.
        assert_eq!(picture(&[9, 8]).since(&before).expect("a change").events.len(), 2);
        let (one, two) = (BTreeMap::from([(1, 'a'), (2, 'b')]), BTreeMap::from([(2, 'c'), (3, 'd')]));
        assert_eq!((changed(&one, &two), gone(&one, &two)), (vec!['c', 'd'], vec![1]));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_to_start_again() {
        let changes = broadcast::Sender::new(CHANGES_MAX);
        let mut reader = Reader {
            first: None,
            changes: changes.subscribe(),
            ends: Instant::now() + STREAM_TIME,
            stop: CancellationToken::new(),
            is_over: false,
        };
        for number in 0..=CHANGES_MAX as u64 {
            changes.send(Message { number, json: "{}".into() }).expect("a reader");
        }
        let event = format!("{:?}", reader.next().await.expect("a last word"));
        assert!(event.contains("again"), "{event}");
        assert!(reader.next().await.is_none());
    }
}
