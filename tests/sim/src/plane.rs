//! The control plane around the real `decide` and `issue`: what its database holds, what it knows only
//! as long as it runs, and what its planner, publisher and chunk server do with that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_control_plane_core::decide::{Decision, DeviceSeen, Observed, State, decide};
use muster_control_plane_core::fleet::Slots;
use muster_control_plane_core::issue::{self, Issued, Need};
use muster_control_plane_core::plan::Plan;
use muster_shared::api::deployment::Spec;
use muster_shared::api::fleet::Schedule;
use muster_shared::chunk::frame_range;
use muster_shared::desired::Desired;
use muster_shared::id::{BootId, UnixMs};
use muster_shared::message::{ChunkData, ChunkGet, Hello};
use muster_shared::reported::Reported;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{DeploymentName, DeviceId, Digest, wire};

use crate::catalog::{Catalog, must};
use crate::check;
use crate::device::Device;

/// The planner waits so long for what else changes. The real one waits shorter; nothing may depend on it.
const PLANNER_PAUSE_MS: u64 = 250;
/// It looks so often in any case.
const PLANNER_EVERY_MS: u64 = 30_000;
const PUBLISHER_PAUSE_MS: u64 = 10;

/// The plane.
#[derive(Debug)]
pub struct Plane {
    /// What its database holds.
    pub database: Database,
    /// What it knows while it runs; none: it is down.
    pub live: Option<Live>,
    /// The last plan, for the checks.
    pub plan: Plan,
    /// How often it decided.
    pub decisions: u64,
    /// How many desired states it signed.
    pub signed: u64,
    /// What happened, by kind, and how often.
    pub happened: BTreeMap<String, u64>,
}

/// What survives a restart.
#[derive(Debug, Default)]
pub struct Database {
    /// What `decide` remembers.
    pub state: State,
    /// The newest desired state of each device.
    pub desired: BTreeMap<DeviceId, DesiredRecord>,
    /// What operators want.
    pub deployments: BTreeMap<DeploymentName, Spec>,
    /// The devices.
    pub devices: BTreeMap<DeviceId, DeviceRecord>,
}

/// One device as the database knows it.
#[derive(Debug)]
pub struct DeviceRecord {
    /// What it last reported.
    pub reported: Option<Arc<Reported>>,
    /// What an operator wants of it.
    pub schedule: Schedule,
    /// The slots it is to have, by content.
    pub placed: Digest,
    site: String,
    fingerprint: Digest,
    past_boots: Vec<BootId>,
}

/// A desired state that was committed.
#[derive(Debug)]
pub struct DesiredRecord {
    /// What is known of it.
    pub issued: Issued,
    payload: Vec<u8>,
    manifests: BTreeSet<Digest>,
}

/// What is known only while the plane runs.
#[derive(Debug)]
pub struct Live {
    observed: Observed,
    hellos: BTreeMap<DeviceId, Hello>,
    hello_is_due: BTreeSet<DeviceId>,
    roots_sent: BTreeMap<DeviceId, u64>,
    outdated: BTreeSet<DeviceId>,
    decide_ms: UnixMs,
    publish_ms: Option<UnixMs>,
    decided_ms: UnixMs,
}

/// What goes down.
#[derive(Debug, Clone)]
pub enum Down {
    /// The next root.
    Trust(Envelope),
    /// What is wanted.
    Desired(Envelope),
    /// A frame, or word that there is none.
    Chunk(ChunkData),
}

impl Plane {
    /// A plane that knows these devices by their enrolment, and is down.
    pub fn new(devices: &[Device]) -> Self {
        let record = |device: &Device| {
            let record = DeviceRecord {
                reported: None,
                schedule: Schedule::Open,
                placed: slots_digest(&Slots::new()),
                site: device.site.clone(),
                fingerprint: device.fingerprint,
                past_boots: vec![],
            };
            (device.id.clone(), record)
        };
        let devices = devices.iter().map(record).collect();
        let database = Database { devices, ..Database::default() };
        Self { database, live: None, plan: Plan::default(), decisions: 0, signed: 0, happened: BTreeMap::new() }
    }

    /// It starts, and reads everything from its database.
    pub fn start(&mut self, catalog: &Catalog, now_ms: UnixMs) {
        let seen = |(id, record): (&DeviceId, &DeviceRecord)| {
            let labels = [(must("site".parse()), must(record.site.parse()))].into();
            let (reported, schedule) = (record.reported.clone(), record.schedule);
            (id.clone(), DeviceSeen { labels, connected_ms: None, schedule, reported, is_current: false })
        };
        let observed = Observed {
            devices: self.database.devices.iter().map(seen).collect(),
            deployments: self.database.deployments.clone(),
            bundles: catalog.bundles().clone(),
            hearing_since_ms: Some(now_ms),
        };
        let desired = &self.database.desired;
        let stale =
            |id: &&DeviceId| desired.get(*id).map(|it| it.issued.slots) != Some(self.database.devices[*id].placed);
        self.live = Some(Live {
            observed,
            hellos: BTreeMap::new(),
            hello_is_due: BTreeSet::new(),
            roots_sent: BTreeMap::new(),
            outdated: self.database.state.placements.keys().filter(stale).cloned().collect(),
            decide_ms: now_ms,
            publish_ms: Some(now_ms),
            decided_ms: 0,
        });
        for id in self.database.devices.keys().cloned().collect::<Vec<_>>() {
            self.note_current(&id);
        }
    }

    /// It stops; only its database is left.
    pub fn stop(&mut self) {
        self.live = None;
    }

    /// When it has something to do next.
    pub fn next_ms(&self) -> Option<UnixMs> {
        self.live.as_ref().map(|live| live.publish_ms.map_or(live.decide_ms, |publish| publish.min(live.decide_ms)))
    }

    /// Something changed that a plan may follow from.
    pub fn nudge_planner(&mut self, now_ms: UnixMs) {
        if let Some(live) = &mut self.live {
            let due_ms = now_ms.max(live.decided_ms + PLANNER_PAUSE_MS);
            live.decide_ms = live.decide_ms.min(due_ms);
        }
    }

    fn nudge_publisher(&mut self, now_ms: UnixMs) {
        if let Some(live) = &mut self.live {
            live.publish_ms.get_or_insert(now_ms + PUBLISHER_PAUSE_MS);
        }
    }

    /// Its broker went, and with it all connections; or it came back, and hears from now on.
    pub fn hear(&mut self, since_ms: Option<UnixMs>) {
        let Some(live) = &mut self.live else { return };
        live.observed.hearing_since_ms = since_ms;
        if since_ms.is_none() {
            live.observed.devices.values_mut().for_each(|seen| seen.connected_ms = None);
        }
    }

    /// Its broker sees that a device came or went.
    pub fn connection(&mut self, id: &DeviceId, is_up: bool, now_ms: UnixMs) {
        let Some(live) = &mut self.live else { return };
        if let Some(seen) = live.observed.devices.get_mut(id) {
            seen.connected_ms = is_up.then_some(now_ms);
        }
        self.nudge_planner(now_ms);
    }

    /// A device says what it holds.
    pub fn hello(&mut self, id: &DeviceId, hello: Hello, now_ms: UnixMs) {
        let Some(live) = &mut self.live else { return };
        live.hellos.insert(id.clone(), hello);
        live.hello_is_due.insert(id.clone());
        // It says which root it has: whatever was sent before and did not arrive is sent again.
        live.roots_sent.remove(id);
        self.nudge_publisher(now_ms);
    }

    /// A device says what it is and has; an older report, or one of an earlier run, is ignored.
    pub fn reported(&mut self, id: &DeviceId, reported: Reported, now_ms: UnixMs) {
        let (Some(live), Some(record)) = (&mut self.live, self.database.devices.get_mut(id)) else { return };
        let mut is_news = true;
        if let Some(held) = &record.reported {
            if held.boot == reported.boot && held.sequence >= reported.sequence
                || record.past_boots.contains(&reported.boot)
            {
                return;
            }
            if held.boot != reported.boot {
                record.past_boots.push(held.boot);
            }
            let says_the_same = (held.applied, &held.slots, &held.refusals, &held.facts)
                == (reported.applied, &reported.slots, &reported.refusals, &reported.facts);
            is_news = !says_the_same;
        }
        let reported = Arc::new(reported);
        record.reported = Some(reported.clone());
        if let Some(seen) = live.observed.devices.get_mut(id) {
            seen.reported = Some(reported);
        }
        if is_news {
            self.note_current(id);
            self.nudge_planner(now_ms);
        }
    }

    /// Whether the last report speaks of what is placed now.
    fn note_current(&mut self, id: &DeviceId) {
        let is_current = self.is_current(id);
        if let Some(seen) = self.live.as_mut().and_then(|live| live.observed.devices.get_mut(id)) {
            seen.is_current = is_current;
        }
    }

    /// Whether a device works towards what is placed there now, as far as it was heard.
    pub fn is_current(&self, id: &DeviceId) -> bool {
        let record = self.database.devices.get(id);
        let desired = self.database.desired.get(id).filter(|it| Some(it.issued.slots) == record.map(|it| it.placed));
        let applied = record.and_then(|record| record.reported.as_ref()).and_then(|reported| reported.applied);
        desired.is_some_and(|desired| applied == Some(desired.issued.generation))
    }

    /// An operator changed what is wanted.
    pub fn wanted_changed(&mut self, catalog: &Catalog, now_ms: UnixMs) {
        let Some(live) = &mut self.live else { return };
        live.observed.deployments = self.database.deployments.clone();
        live.observed.bundles = catalog.bundles().clone();
        for (id, record) in &self.database.devices {
            if let Some(seen) = live.observed.devices.get_mut(id) {
                seen.schedule = record.schedule;
            }
        }
        self.nudge_planner(now_ms);
    }

    /// The owner signed another root.
    pub fn root_changed(&mut self, now_ms: UnixMs) {
        let Some(live) = &mut self.live else { return };
        live.outdated.extend(self.database.desired.keys().cloned());
        live.hello_is_due.extend(live.hellos.keys().cloned());
        self.nudge_publisher(now_ms);
    }

    /// What is due now: a look, or something to be sent. Broken rules come back as errors.
    pub fn work(&mut self, catalog: &Catalog, now_ms: UnixMs) -> Result<Vec<(DeviceId, Down)>, String> {
        let Some(live) = &mut self.live else { return Ok(vec![]) };
        if live.publish_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            live.publish_ms = None;
            return Ok(self.publish(catalog, now_ms));
        }
        if live.decide_ms <= now_ms {
            self.look(now_ms)?;
        }
        Ok(vec![])
    }

    fn look(&mut self, now_ms: UnixMs) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let before = self.database.state.rollouts.clone();
        let decision = decide(std::mem::take(&mut self.database.state), &live.observed, now_ms);
        check::decision(&before, &decision)?;
        let Decision { state, plan, inputs, happened, next_look_ms } = decision;
        for event in happened {
            *self.happened.entry(format!("{:?}", event.kind)).or_default() += 1;
        }
        live.decided_ms = now_ms;
        live.decide_ms =
            next_look_ms.unwrap_or(UnixMs::MAX).clamp(now_ms + PLANNER_PAUSE_MS, now_ms + PLANNER_EVERY_MS);
        self.decisions += 1;
        let changed = changed(&inputs.previous, &state.placements);
        live.outdated.extend(changed.iter().cloned());
        self.database.state = state;
        self.plan = plan;
        for id in &changed {
            let slots = self.database.state.placements.get(id);
            if let Some(record) = self.database.devices.get_mut(id) {
                record.placed = slots.map_or_else(|| slots_digest(&Slots::new()), slots_digest);
            }
            self.note_current(id);
        }
        if !changed.is_empty() {
            self.nudge_publisher(now_ms);
        }
        Ok(())
    }

    fn publish(&mut self, catalog: &Catalog, now_ms: UnixMs) -> Vec<(DeviceId, Down)> {
        let Some(live) = &mut self.live else { return vec![] };
        let mut due = std::mem::take(&mut live.outdated);
        due.extend(live.hello_is_due.iter().cloned());
        due.into_iter().flat_map(|id| self.tell(&id, catalog, now_ms)).collect()
    }

    /// Sends a device the roots it lacks, and its desired state where it is new or lacks it.
    fn tell(&mut self, id: &DeviceId, catalog: &Catalog, now_ms: UnixMs) -> Vec<(DeviceId, Down)> {
        let Some(live) = &mut self.live else { return vec![] };
        let hello_is_due = live.hello_is_due.remove(id);
        let hello = live.hellos.get(id);
        let is_up = live.observed.devices.get(id).is_some_and(|seen| seen.connected_ms.is_some());
        let mut sent = Vec::new();
        if let Some(hello) = hello.filter(|_| is_up) {
            let known = hello.root_version.max(live.roots_sent.get(id).copied().unwrap_or(0));
            for root in catalog.roots_after(known) {
                sent.push((id.clone(), Down::Trust(root.clone())));
            }
            live.roots_sent.insert(id.clone(), catalog.root().root().version);
        }
        let Some(record) = self.database.devices.get(id) else { return sent };
        let held = self.database.desired.get(id);
        let need = Need {
            slots: record.placed,
            epoch: catalog.root().root().epoch,
            hello,
            applied: record.reported.as_ref().and_then(|reported| reported.applied),
            now_ms,
        };
        let next = must(issue::next(held.map(|held| &held.issued), need));
        let is_new = next.is_some();
        if let Some(generation) = next {
            let slots: Vec<_> =
                self.database.state.placements.get(id).into_iter().flat_map(BTreeMap::values).cloned().collect();
            let manifests = slots.iter().map(|slot| slot.manifest).collect();
            let desired = Desired {
                fleet: catalog.root().root().fleet.clone(),
                device: id.clone(),
                fingerprint: record.fingerprint,
                generation,
                issued_ms: now_ms,
                expires_ms: now_ms + issue::LIFE_MS,
                nonce: hello.map(|hello| hello.nonce),
                root_version: catalog.root().root().version,
                slots,
            };
            let payload = must(wire::encode(&desired));
            let issued = Issued {
                generation,
                digest: Digest::of(&payload),
                slots: record.placed,
                nonce: desired.nonce,
                issued_ms: now_ms,
            };
            // Committed first; signed and sent is only what is committed.
            self.database.desired.insert(id.clone(), DesiredRecord { issued, payload, manifests });
            self.note_current(id);
        }
        let Some(record) = self.database.desired.get(id) else { return sent };
        let hello = self.live.as_ref().and_then(|live| live.hellos.get(id));
        let lacks = hello_is_due && hello.is_some_and(|hello| issue::lacks(hello, &record.issued));
        if is_up && (is_new || lacks) {
            let envelope = Envelope::sign(payload_type::DESIRED, record.payload.clone(), &[catalog.director()]);
            sent.push((id.clone(), Down::Desired(envelope)));
            self.signed += 1;
        }
        sent
    }

    /// The chunk server: a device gets what its desired state names, and what that names.
    pub fn chunks(&self, id: &DeviceId, get: ChunkGet, catalog: &Catalog) -> Vec<Down> {
        let manifests = self.database.desired.get(id).into_iter().flat_map(|record| record.manifests.iter().copied());
        let Some(bytes) = catalog.blob(get.blob, manifests) else {
            return vec![Down::Chunk(ChunkData::Unavailable { blob: get.blob })];
        };
        let frame = |number| {
            let (offset, length) = frame_range(bytes.len() as u64, number)?;
            let bytes = bytes.get(offset as usize..offset as usize + length)?.to_vec();
            Some(Down::Chunk(ChunkData::Frame { blob: get.blob, number, bytes }))
        };
        get.wanted().filter_map(frame).collect()
    }
}

/// Devices whose slots differ.
fn changed(before: &BTreeMap<DeviceId, Slots>, after: &BTreeMap<DeviceId, Slots>) -> BTreeSet<DeviceId> {
    let ids = before.keys().chain(after.keys());
    ids.filter(|id| before.get(*id) != after.get(*id)).cloned().collect()
}

/// Slots by content.
fn slots_digest(slots: &Slots) -> Digest {
    Digest::of(format!("{slots:?}"))
}
