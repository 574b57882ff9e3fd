//! What an agent believes, told as stories; [`chances`] has the promises that hold whatever it is offered.

mod chances;

use std::collections::BTreeMap;

use muster_shared::desired::BlobRef;
use muster_shared::root::{Publisher, Root};
use muster_shared::signing::payload_type;
use muster_shared::wire::encode;
use muster_shared::{DeploymentName, Version};

use super::tests::{offer, wanted};
use super::time_tests::time;
use super::*;
use crate::clock::Clock;
use crate::slot::SlotEvent;
use crate::testing::{self, DIRECTOR, PUBLISHER, ROOT, floor, key, manifest};
use muster_shared::reported::{Measured, Phase};

/// A second publisher.
const OTHER: u8 = 11;
/// Nobody's key.
const NOBODY: u8 = 33;
const NONCE: Nonce = Nonce([7; 16]);

/// The blobs, the journal, the watermark and the workers of one device, as a driver would have them.
struct World {
    agent: Agent,
    blobs: BTreeMap<Digest, Vec<u8>>,
    limits: OwnerLimits,
    root: Root,
    roots: Vec<Envelope>,
    desired: Option<Envelope>,
    proven: BTreeMap<DeploymentName, Proven>,
    watermark: Watermark,
    /// Whether the watermark can be written.
    keeps: bool,
    /// Why it is not known after a restart, if so.
    unknown: Option<String>,
    /// What the clock knows to have passed after a restart.
    bound_ms: UnixMs,
    workers: BTreeMap<WorkerId, SlotSpec>,
    routed: BTreeMap<DeploymentName, WorkerId>,
    told: Vec<(EventKind, String)>,
    hellos: usize,
    now_ms: UnixMs,
    /// The highest generation that was ever taken.
    highest: Option<Generation>,
}

fn first_root() -> Root {
    let mut root = testing::root();
    root.publishers.push(Publisher { key: key(OTHER).public(), models: None });
    root
}

impl World {
    fn new() -> Self {
        let root = first_root();
        let roots = vec![testing::signed(&root)];
        let mut blobs = BTreeMap::new();
        let model = b"the model".to_vec();
        let index = muster_shared::chunk::ChunkIndex::of(&model).to_bytes();
        for version in 1..6 {
            for publisher in [PUBLISHER, OTHER, NOBODY] {
                let bytes = manifest("digits", version, publisher).0.to_json().into_bytes();
                blobs.insert(Digest::of(&bytes), bytes);
            }
        }
        blobs.insert(Digest::of(&index), index);
        blobs.insert(Digest::of(&model), model);
        let (proven, watermark, limits) = Default::default();
        let (agent, actions) = Self::boot(&roots, None, &proven, &watermark, &limits);
        assert!(actions.is_empty());
        let (desired, workers, routed, told, hellos, now_ms, highest) = Default::default();
        let (keeps, unknown, bound_ms) = (true, None, 0);
        let mut world = Self {
            agent,
            blobs,
            limits,
            root,
            roots,
            desired,
            proven,
            watermark,
            keeps,
            unknown,
            bound_ms,
            workers,
            routed,
            told,
            hellos,
            now_ms,
            highest,
        };
        world.connect();
        world
    }

    /// Serves version 2 and holds version 3, whose bundle is there only from the next start on.
    fn that_holds_what_is_not_here() -> Self {
        let mut world = Self::new();
        world.offer(1, 1, &[good(2)]);
        let blob = good(3).envelope.sha256;
        let bytes = world.blobs.remove(&blob).unwrap();
        world.offer(1, 2, &[good(3)]);
        world.blobs.insert(blob, bytes);
        world
    }

    fn boot(
        roots: &[Envelope],
        desired: Option<&Envelope>,
        proven: &BTreeMap<DeploymentName, Proven>,
        watermark: &Watermark,
        limits: &OwnerLimits,
    ) -> (Agent, Vec<Action>) {
        let identity = Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") };
        let first = TrustedRoot::self_signed(&roots[0]).unwrap();
        let root = roots[1..].iter().fold(first, |held, next| held.follow(next).unwrap());
        let (nonce, earlier_nonce) = (None, None);
        let holding = Holding { identity: &identity, root: &root, held: None, watermark: None, nonce, earlier_nonce };
        let desired = desired.and_then(|desired| crate::verify::desired::recall(desired, holding).ok());
        Agent::restored(
            Restored {
                identity: identity.clone(),
                version: "0.1.0".into(),
                root: root.clone(),
                clock: Clock::new(0, 0),
                watermark: watermark.clone(),
                watermark_unknown: None,
                software: testing::software(),
                limits: limits.clone(),
                desired,
                proven: proven.values().cloned().collect(),
                refusals: vec![],
            },
            0,
        )
    }

    fn connect(&mut self) {
        self.happen(Event::HelloSaid(NONCE));
        self.happen(Event::Connected);
    }

    /// A restart, perhaps after all but the identity folder was lost.
    fn restart(&mut self, loses_journal: bool) {
        if loses_journal {
            (self.desired, self.proven) = (None, BTreeMap::new());
        }
        (self.workers, self.routed) = Default::default();
        let (agent, actions) =
            Self::boot(&self.roots, self.desired.as_ref(), &self.proven, &self.watermark, &self.limits);
        self.agent = agent;
        self.agent.mark_unknown = self.unknown.clone();
        self.agent.clock = Clock::new(self.bound_ms, self.now_ms);
        self.carry_out(actions);
        self.connect();
        self.work();
    }

    fn happen(&mut self, event: Event) {
        let actions = self.agent.step(event, self.now_ms);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SaveRoot(_, root) => self.roots.push(root),
                Action::SaveDesired(desired) => {
                    let generation = self.agent.held().map(|held| held.generation);
                    assert!(generation >= self.highest, "{generation:?} after {:?}", self.highest);
                    assert!(self.watermark.desired.map(|mark| mark.generation) >= generation, "not marked first");
                    self.highest = generation;
                    self.desired = Some(desired);
                }
                Action::SaveProven(deployment, Some(proven)) => drop(self.proven.insert(deployment, proven)),
                Action::SaveProven(deployment, None) => drop(self.proven.remove(&deployment)),
                Action::KeepWatermark(watermark) if self.keeps => {
                    let mark = watermark.desired;
                    self.watermark = watermark;
                    self.happen(Event::WatermarkKept(mark));
                }
                Action::KeepWatermark(_) => self.happen(Event::WatermarkNotKept("the disk is full".into())),
                Action::Fetch(FetchAction::Look { blob, index, .. }) => {
                    let found = match self.blobs.get(&blob) {
                        Some(bytes) => Looked::Whole(index.is_none().then(|| bytes.clone())),
                        None => Looked::Pieces(vec![]),
                    };
                    self.happen(Event::Looked(blob, found));
                }
                Action::Check(worker, spec) | Action::Start(worker, spec) => {
                    self.may_run(&spec);
                    self.workers.insert(worker, spec);
                }
                Action::Route(worker, spec) => drop(self.routed.insert(spec.deployment, worker)),
                Action::Unroute(deployment) => drop(self.routed.remove(&deployment)),
                Action::Stop(worker) => drop(self.workers.remove(&worker)),
                Action::Tell(kind, _, text) => self.told.push((kind, text)),
                Action::SayHello => self.hellos += 1,
                Action::SaveRefusals(_) | Action::Fetch(_) | Action::Report => {}
            }
        }
    }

    /// What begins must be trusted as things stand.
    fn may_run(&self, spec: &SlotSpec) {
        let signer = [PUBLISHER, OTHER, NOBODY]
            .into_iter()
            .find(|signer| manifest("digits", spec.version.get(), *signer).1.manifest == spec.manifest)
            .expect("a known manifest");
        let signer = if *spec == signed_again(spec.version.get()).1 { OTHER } else { signer };
        assert_ne!(signer, NOBODY, "no publisher signed {spec:?}");
        let id = key(signer).public().id();
        assert!(!self.root.compromised.contains(&id), "compromised: {spec:?}");
        let floor = self.agent.floors().effective(&spec.model);
        assert!(floor.is_none_or(|floor| spec.version >= floor), "{spec:?} is below {floor:?}");
    }

    /// Workers do what they are to do, until nothing more happens.
    fn work(&mut self) {
        for _ in 0..50 {
            let slots = self.workers.clone();
            for (worker, spec) in slots {
                let measured = Measured { memory_peak_bytes: 1, latency_us: 1 };
                let deployment = spec.deployment.clone();
                self.happen(Event::Slot(deployment.clone(), SlotEvent::CheckPassed(worker, measured)));
                self.happen(Event::Slot(deployment, SlotEvent::Started(worker)));
            }
            match self.agent.next_deadline_ms() {
                Some(due_ms) if due_ms <= self.now_ms + 10 => {
                    self.now_ms = self.now_ms.max(due_ms);
                    self.happen(Event::Tick);
                }
                _ => return,
            }
        }
        panic!("it goes round in a circle");
    }

    fn offer(&mut self, epoch: u64, number: u64, slots: &[SlotSpec]) {
        self.offer_under(1, epoch, number, slots);
    }

    fn offer_under(&mut self, root_version: u64, epoch: u64, number: u64, slots: &[SlotSpec]) {
        let desired = Desired { expires_ms: 900_000, root_version, ..wanted(epoch, number, slots) };
        let envelope = Envelope::sign(payload_type::DESIRED, encode(&desired).unwrap(), &[&key(DIRECTOR)]);
        self.happen(Event::DesiredOffered(envelope));
        self.work();
    }

    fn follow(&mut self, change: impl FnOnce(&mut Root)) {
        self.root.version += 1;
        change(&mut self.root);
        self.happen(Event::TrustOffered(testing::signed(&self.root)));
        self.work();
    }

    fn floor(&mut self, version: u64, publisher: u8, seen: Option<u64>) {
        let seen = seen.map(|version| manifest("digits", version, publisher).0);
        self.happen(Event::FloorOffered(floor("digits", version, publisher), seen));
        self.work();
    }

    fn answers(&self) -> Option<u64> {
        let worker = self.routed.get(&"digits".parse::<DeploymentName>().unwrap())?;
        self.workers.get(worker).map(|spec| spec.version.get())
    }

    fn phase(&self) -> Option<Phase> {
        self.agent.slot(&"digits".parse().unwrap()).map(Slot::phase)
    }

    fn waiting(&self) -> String {
        self.agent.slot_reports().pop().and_then(|report| report.waiting).unwrap_or_default()
    }

    fn was_told(&self, kind: EventKind) -> bool {
        self.told.iter().any(|(told, _)| *told == kind)
    }
}

fn signed_by(publisher: u8, version: u64) -> SlotSpec {
    manifest("digits", version, publisher).1
}

/// A version of the publisher that the other one signed, too, later.
fn signed_again(version: u64) -> (Vec<u8>, SlotSpec) {
    let (envelope, spec) = manifest("digits", version, PUBLISHER);
    let again = Envelope::sign(payload_type::MANIFEST, envelope.payload, &[&key(OTHER)]).to_json().into_bytes();
    let envelope = BlobRef { sha256: Digest::of(&again), bytes: again.len() as u64 };
    (again, SlotSpec { envelope, ..spec })
}

fn good(version: u64) -> SlotSpec {
    signed_by(PUBLISHER, version)
}

#[test]
fn a_removed_publishers_model_serves_on_also_over_a_reboot_and_is_reported() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    assert_eq!((world.answers(), world.phase()), (Some(2), Some(Phase::Serving)));
    world.follow(|root| root.publishers.retain(|publisher| publisher.key != key(PUBLISHER).public()));
    assert_eq!(world.answers(), Some(2));
    world.restart(false);
    assert_eq!(world.answers(), Some(2));
    assert!(world.agent.notes().iter().any(|note| note.contains("names its publisher no more")));
    // Nothing new of it begins.
    world.offer(1, 2, &[good(3)]);
    assert_eq!((world.answers(), world.phase()), (Some(2), Some(Phase::Refused)));
}

#[test]
fn what_only_a_compromised_key_signed_stops_and_never_starts_again() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    world.follow(|root| root.compromised.push(key(PUBLISHER).public().id()));
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Refused)));
    assert!(world.workers.is_empty() && world.proven.is_empty() && world.was_told(EventKind::Distrusted));
    world.restart(false);
    world.offer(1, 2, &[good(2)]);
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Refused)));
    // Another publisher's version takes its place.
    world.offer(1, 3, &[signed_by(OTHER, 3)]);
    assert_eq!(world.answers(), Some(3));
}

/// It was refused until the agent was restarted, since what was known of its signers was never asked anew.
#[test]
fn a_compromised_version_that_another_publisher_signs_again_runs_and_only_then() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    world.follow(|root| root.compromised.push(key(PUBLISHER).public().id()));
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Refused)));
    let (bytes, again) = signed_again(2);
    // What a plane only says to be signed again is not.
    let forged = SlotSpec { envelope: BlobRef { sha256: Digest::of("forged"), bytes: 9 }, ..again.clone() };
    world.blobs.insert(Digest::of("forged"), world.blobs[&good(2).envelope.sha256].clone());
    world.offer(1, 2, &[forged]);
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Refused)));
    world.blobs.insert(again.envelope.sha256, bytes);
    world.offer(1, 3, &[again]);
    assert_eq!((world.answers(), world.phase()), (Some(2), Some(Phase::Serving)));
}

#[test]
fn a_device_that_does_not_know_what_it_took_last_begins_nothing_of_what_it_holds() {
    let mut world = World::that_holds_what_is_not_here();
    world.unknown = Some("its file is damaged".into());
    world.restart(false);
    assert_eq!(world.answers(), Some(2));
    assert!(world.waiting().contains("its file is damaged"), "{}", world.waiting());
    world.happen(Event::WatermarkRead(world.watermark.clone()));
    world.work();
    assert_eq!(world.answers(), Some(3));
}

#[test]
fn a_compromised_version_that_the_journal_still_has_is_not_started_at_boot() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    let proven = world.proven.clone();
    world.follow(|root| root.compromised.push(key(PUBLISHER).public().id()));
    world.proven = proven;
    world.restart(false);
    assert!(world.workers.is_empty() && world.proven.is_empty());
}

#[test]
fn what_falls_below_a_raised_floor_stops_and_a_floor_needs_a_version_seen() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    // A floor without a successor stops nothing.
    world.floor(4, PUBLISHER, None);
    assert_eq!(world.answers(), Some(2));
    world.floor(4, PUBLISHER, Some(5));
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Refused)));
    assert!(world.waiting().contains("below its floor"), "{}", world.waiting());
    // Also after a loss of the journal, and for a director that wants it.
    world.restart(true);
    world.offer(1, 2, &[good(3)]);
    assert_eq!(world.answers(), None);
    world.offer(1, 3, &[good(4)]);
    assert_eq!(world.answers(), Some(4));
    // A stolen key's floor goes with the key.
    world.floor(5, OTHER, Some(5));
    assert_eq!(world.answers(), None);
    world.follow(|root| root.compromised.push(key(OTHER).public().id()));
    world.offer_under(2, 1, 4, &[good(4)]);
    assert_eq!(world.answers(), Some(4));
}

#[test]
fn a_slot_waits_for_the_floor_that_the_director_knows_and_goes_on_by_itself() {
    let mut world = World::new();
    let spec = SlotSpec { floor: Version::new(2), ..good(3) };
    world.offer(1, 1, std::slice::from_ref(&spec));
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Fetching)));
    assert!(world.waiting().contains("waits for the publisher's word on the version floor"));
    world.floor(2, PUBLISHER, Some(3));
    assert_eq!(world.answers(), Some(3));
}

#[test]
fn floors_that_no_publisher_signed_are_told_and_change_nothing() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    world.floor(5, NOBODY, Some(5));
    assert_eq!(world.answers(), Some(2));
    assert!(world.was_told(EventKind::TrustRefused) && world.agent.floors().all().next().is_none());
}

#[test]
fn a_replay_to_a_device_that_lost_its_state_is_refused_also_with_the_right_nonce() {
    let mut world = World::new();
    world.offer(1, 7, &[good(3)]);
    world.restart(true);
    assert_eq!((world.agent.held(), world.agent.applied()), (None, Some(Generation { epoch: 1, number: 7 })));
    world.offer(1, 6, &[good(1)]);
    assert!(world.agent.desired_refused().is_some_and(|refused| refused.reason.contains("lost its state")));
    assert_eq!(world.answers(), None);
    world.offer(1, 8, &[good(3)]);
    assert_eq!(world.answers(), Some(3));
}

#[test]
fn a_desired_state_whose_mark_cannot_be_kept_waits() {
    let mut world = World::new();
    world.keeps = false;
    world.offer(1, 1, &[good(2)]);
    assert_eq!((world.agent.held(), world.answers()), (None, None));
    assert!(world.agent.desired_refused().is_some_and(|refused| refused.reason.contains("the disk is full")));
    world.keeps = true;
    world.offer(1, 1, &[good(2)]);
    assert_eq!(world.answers(), Some(2));
}

#[test]
fn a_desired_state_under_a_root_to_come_asks_for_the_root_and_leaves_no_error() {
    let mut world = World::new();
    world.offer_under(2, 1, 1, &[good(2)]);
    assert_eq!((world.hellos, world.agent.desired_refused(), world.answers()), (1, None, None));
    world.follow(|_| {});
    world.offer_under(2, 1, 1, &[good(2)]);
    assert_eq!(world.answers(), Some(2));
}

#[test]
fn nothing_new_begins_by_a_desired_state_that_expired_and_what_runs_goes_on() {
    let mut world = World::that_holds_what_is_not_here();
    world.now_ms = 900_000;
    world.restart(false);
    assert_eq!(world.answers(), Some(2));
    assert!(world.waiting().contains("expired"), "{}", world.waiting());
}

#[test]
fn nothing_that_is_held_begins_while_the_clock_is_surely_behind() {
    let mut world = World::that_holds_what_is_not_here();
    // A reboot without a clock: whether what is held has expired, nobody knows.
    world.bound_ms = 800_000;
    world.restart(false);
    assert_eq!(world.answers(), Some(2));
    assert!(world.waiting().contains("nothing new begins"), "{}", world.waiting());
    world.happen(Event::TimeTold(time(850_000, NONCE)));
    world.work();
    assert_eq!(world.answers(), Some(3));
}

#[test]
fn the_owners_limits_keep_out_what_a_director_wants_and_the_rest_runs() {
    let mut world = World::new();
    world.limits = OwnerLimits { slots: Some(1), models: Some(vec!["digits".parse().unwrap()]), ..Default::default() };
    world.restart(false);
    let second = SlotSpec { deployment: "second".parse().unwrap(), ..good(3) };
    let foreign = SlotSpec { deployment: "foreign".parse().unwrap(), model: "other".parse().unwrap(), ..good(3) };
    world.offer(1, 1, &[foreign, good(2), second]);
    assert_eq!((world.answers(), world.workers.len()), (Some(2), 1));
    let notes = world.agent.notes();
    assert!(
        notes.iter().any(|note| note.contains("limits.models"))
            && notes.iter().any(|note| note.contains("limits.slots"))
    );
    // An owner that allows it no more is heard at the next start.
    world.limits.models = Some(vec![]);
    world.restart(false);
    assert_eq!((world.answers(), world.phase()), (None, Some(Phase::Refused)));
}

#[test]
fn a_held_state_that_is_offered_again_is_only_reported() {
    let mut world = World::new();
    world.offer(1, 1, &[good(2)]);
    let again = world.desired.clone().expect("held");
    assert_eq!(offer(&mut world.agent, again, 0), [Action::Report]);
}
