//! Whole looks at small fleets of simulated devices that do what they are told, a step at a time.

use std::collections::BTreeMap;

use muster_shared::api::deployment::{self, OnDeviceLoss, VersionRule};
use muster_shared::desired::SlotSpec;
use muster_shared::id::BootId;
use muster_shared::quantity::{Bytes, CountOrPercent, MilliCpu, Millis};
use muster_shared::reported::{BundleRef, Facts, Phase, Refusal, RefusalKind, SlotReport};
use proptest::prelude::*;

use super::*;
use crate::rebalance::SETTLED_MS;
use crate::rollout::Stage;
use crate::testing::{GRACE_MS, MIB, bundles, id, labels, machine, model, name, version};

/// One device: what it was told, and how far it is with that.
#[derive(Debug, Clone)]
struct Sim {
    memory_mib: u64,
    site: &'static str,
    up_since_ms: Option<UnixMs>,
    schedule: Schedule,
    told: Slots,
    slots: BTreeMap<DeploymentName, SlotReport>,
    refusals: Vec<Refusal>,
    /// It fetches for ever.
    jammed: bool,
}

/// A fleet with its plane.
#[derive(Debug, Clone)]
struct World {
    now_ms: UnixMs,
    state: State,
    devices: BTreeMap<DeviceId, Sim>,
    deployments: BTreeMap<DeploymentName, Spec>,
    /// Versions in the catalog, and whether they are any good.
    versions: BTreeMap<u64, bool>,
    plan: Plan,
    happened: Vec<Event>,
}

fn spec(replicas: u32, memory_mib: u64) -> Spec {
    Spec {
        model: model(),
        version: VersionRule::Latest,
        replicas,
        every_device: false,
        selector: Default::default(),
        resources: deployment::Resources { cpu: MilliCpu(250), memory: Bytes(memory_mib * MIB) },
        rollout: deployment::Rollout {
            probation: Millis(10_000),
            progress_deadline: Millis(50_000),
            ..Default::default()
        },
        on_device_loss: OnDeviceLoss::Move,
        device_loss_grace: Millis(GRACE_MS),
        served_as: None,
    }
}

impl Sim {
    fn new(memory_mib: u64, site: &'static str) -> Self {
        Self {
            memory_mib,
            site,
            up_since_ms: Some(0),
            schedule: Schedule::Open,
            told: Slots::new(),
            slots: BTreeMap::new(),
            refusals: Vec::new(),
            jammed: false,
        }
    }

    fn seen(&self, id: &DeviceId, placed: Option<&Slots>) -> DeviceSeen {
        let machine = machine(self.memory_mib);
        let facts = Facts {
            arch: machine.arch,
            cpu_milli: machine.cpu_milli,
            memory_bytes: machine.memory_bytes,
            engines: machine.engines,
            ..Facts::default()
        };
        let reported = Reported {
            device: id.clone(),
            boot: BootId([0; 16]),
            sequence: 0,
            at_ms: 0,
            root_version: 1,
            applied: None,
            desired_refused: None,
            facts,
            slots: self.slots.values().cloned().collect(),
            refusals: self.refusals.clone(),
            floors: Vec::new(),
            health: Default::default(),
            notes: Vec::new(),
        };
        DeviceSeen {
            labels: labels(&[("site", self.site)]),
            connected_ms: self.up_since_ms,
            schedule: self.schedule,
            reported: Some(Arc::new(reported)),
            is_current: placed.cloned().unwrap_or_default() == self.told,
        }
    }

    /// Does one step of what it was told.
    fn obey(&mut self, placed: Option<&Slots>, versions: &BTreeMap<u64, bool>) {
        self.told = placed.cloned().unwrap_or_default();
        self.slots.retain(|name, _| self.told.contains_key(name));
        for (name, slot) in &self.told {
            let report = self.slots.entry(name.clone()).or_insert_with(|| SlotReport {
                deployment: name.clone(),
                phase: Phase::Empty,
                wanted: None,
                running: None,
                waiting: None,
                restarts: 0,
                measured: None,
            });
            if self.jammed {
                report.phase = Phase::Fetching;
                continue;
            }
            step_slot(report, slot, &mut self.refusals, versions);
        }
    }
}

fn step_slot(report: &mut SlotReport, slot: &SlotSpec, refusals: &mut Vec<Refusal>, versions: &BTreeMap<u64, bool>) {
    let bundle = BundleRef { model: slot.model.clone(), version: slot.version, manifest: slot.manifest };
    let is_refused = refusals.iter().any(|it| it.bundle == bundle && it.attempt >= slot.attempt);
    report.phase = match report.phase {
        _ if is_refused => Phase::Refused,
        _ if report.running.as_ref() == Some(&bundle) => Phase::Serving,
        Phase::Fetching if report.wanted.as_ref() == Some(&bundle) => {
            if versions.get(&slot.version.get()) == Some(&true) {
                report.running = Some(bundle.clone());
                Phase::Probation
            } else {
                refusals.retain(|it| it.bundle != bundle);
                refusals.push(Refusal {
                    bundle: bundle.clone(),
                    agent: "0".into(),
                    attempt: slot.attempt,
                    memory_bytes: slot.resources.memory_bytes,
                    kind: RefusalKind::GoldenMismatch,
                    reason: "y differs".into(),
                    at_ms: 0,
                });
                Phase::Refused
            }
        }
        _ => Phase::Fetching,
    };
    report.wanted = Some(bundle);
}

impl World {
    fn new(devices: &[(&str, u64, &'static str)]) -> Self {
        Self {
            now_ms: 1_000_000,
            state: State::default(),
            devices: devices.iter().map(|(text, mib, site)| (id(text), Sim::new(*mib, site))).collect(),
            deployments: BTreeMap::new(),
            versions: [(1, true)].into(),
            plan: Plan::default(),
            happened: Vec::new(),
        }
    }

    fn observed(&self) -> Observed {
        let seen = |(id, sim): (&DeviceId, &Sim)| (id.clone(), sim.seen(id, self.state.placements.get(id)));
        Observed {
            devices: self.devices.iter().map(seen).collect(),
            deployments: self.deployments.clone(),
            bundles: bundles(&self.versions.keys().copied().collect::<Vec<_>>()),
            hearing_since_ms: Some(0),
        }
    }

    fn look(&mut self) {
        let decision = decide(self.state.clone(), &self.observed(), self.now_ms);
        self.state = decision.state;
        self.plan = decision.plan;
        self.happened.extend(decision.happened);
    }

    fn obey(&mut self) {
        for (id, sim) in self.devices.iter_mut().filter(|(_, sim)| sim.up_since_ms.is_some()) {
            sim.obey(self.state.placements.get(id), &self.versions);
        }
    }

    fn turn(&mut self, after_ms: u64) {
        self.now_ms += after_ms;
        self.look();
        self.obey();
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn(1_000));
    }

    fn change(&mut self, device: &str) -> &mut Sim {
        self.devices.get_mut(&id(device)).expect("a device")
    }

    /// Which devices have which version: `a@edge-1:v1 | …`.
    fn say(&self) -> String {
        let of = |(device, slots): (&DeviceId, &Slots)| -> Vec<String> {
            slots.iter().map(|(name, slot)| format!("{name}@{device}:v{}", slot.version)).collect()
        };
        self.state.placements.iter().flat_map(of).collect::<Vec<_>>().join(" | ")
    }

    fn kinds(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happened).into_iter().map(|event| event.kind).collect()
    }

    fn stage(&self, deployment: &str) -> Stage {
        self.state.rollouts[&name(deployment)].stage.clone()
    }
}

fn three() -> World {
    let mut world = World::new(&[("edge-1", 512, "n"), ("edge-2", 512, "n"), ("edge-3", 512, "n")]);
    world.deployments.insert(name("a"), spec(2, 64));
    world.turns(8);
    assert_eq!((world.say().as_str(), world.stage("a")), ("a@edge-1:v1 | a@edge-2:v1", Stage::Done));
    world.kinds();
    world
}

#[test]
fn a_lost_device_is_told_of_and_its_replica_moves_and_stays_moved() {
    let mut world = three();
    world.change("edge-1").up_since_ms = None;
    world.turn(1_000);
    world.turn(GRACE_MS - 1);
    assert_eq!((world.say().as_str(), world.kinds()), ("a@edge-1:v1 | a@edge-2:v1", vec![]));
    world.turn(1);
    assert_eq!(
        (world.say().as_str(), world.kinds()),
        ("a@edge-1:v1 | a@edge-2:v1 | a@edge-3:v1", vec![Happening::DeviceLost])
    );
    world.turns(4);
    assert_eq!((world.say().as_str(), world.kinds()), ("a@edge-2:v1 | a@edge-3:v1", vec![Happening::ReplicaMoved]));
    world.change("edge-1").up_since_ms = Some(world.now_ms);
    world.turns(200);
    assert_eq!((world.say().as_str(), world.kinds()), ("a@edge-2:v1 | a@edge-3:v1", vec![Happening::DeviceReturned]));
}

#[test]
fn a_replica_that_gets_nowhere_is_given_to_another_device() {
    let mut world = World::new(&[("edge-1", 512, "n"), ("edge-2", 512, "n"), ("edge-3", 512, "n")]);
    world.deployments.insert(name("a"), spec(1, 64));
    world.turns(10);
    assert_eq!((world.say().as_str(), world.stage("a")), ("a@edge-1:v1", Stage::Done));
    world.change("edge-2").jammed = true;
    world.change("edge-1").up_since_ms = None;
    let began_ms = world.now_ms;
    // It moves to the next one, which never gets to serve it; after the deadline to the third.
    while !world.say().contains("edge-3") {
        world.turn(1_000);
        assert!(world.now_ms < began_ms + 10 * 60_000, "{}", world.say());
    }
    assert!(world.now_ms >= began_ms + GRACE_MS + 60_000, "it had its time");
    world.turns(10);
    assert_eq!(world.say(), "a@edge-3:v1");
    let moved: Vec<String> = world.happened.iter().map(|event| event.text.clone()).collect();
    assert!(moved.iter().any(|text| text.contains("edge-2 has not got to serve it for too long")), "{moved:?}");
}

#[test]
fn many_that_fall_silent_freeze_and_nothing_of_theirs_moves() {
    let mut world = three();
    for device in ["edge-1", "edge-2"] {
        world.change(device).up_since_ms = None;
    }
    world.versions.insert(2, true);
    world.turns(100);
    assert_eq!(world.say(), "a@edge-1:v1 | a@edge-2:v1");
    assert_eq!(
        world.kinds(),
        [
            Happening::RolloutStarted,
            Happening::MovesFrozen,
            Happening::MovesFrozen,
            Happening::DeviceLost,
            Happening::DeviceLost,
        ]
    );
    assert_eq!(world.stage("a"), Stage::Running { wave: 0 });
    let mut approved = world.clone();
    for device in ["edge-1", "edge-2"] {
        world.change(device).up_since_ms = Some(world.now_ms);
    }
    world.turns(20);
    assert_eq!((world.say().as_str(), world.stage("a")), ("a@edge-1:v2 | a@edge-2:v2", Stage::Done));
    // Or an operator takes them for lost.
    approved.state.liveness.approve();
    approved.turns(20);
    assert!(approved.say().contains("a@edge-3:v"), "{}", approved.say());
}

#[test]
fn a_restart_of_the_plane_loses_nobody_and_fails_nobody() {
    let mut world = three();
    world.versions.insert(2, true);
    world.turn(1_000);
    // Away for an hour; then nobody is connected yet, then everybody.
    world.now_ms += 3_600_000;
    let up: Vec<_> = world.devices.values_mut().map(|sim| sim.up_since_ms.take()).collect();
    let observed = Observed { hearing_since_ms: Some(world.now_ms), ..world.observed() };
    let decision = decide(world.state.clone(), &observed, world.now_ms);
    assert!(decision.next_look_ms.is_none_or(|at| at > world.now_ms), "{:?}", decision.next_look_ms);
    world.state = decision.state;
    world.devices.values_mut().zip(up).for_each(|(sim, up)| sim.up_since_ms = up);
    world.turns(12);
    assert_eq!((world.say().as_str(), world.stage("a")), ("a@edge-1:v2 | a@edge-2:v2", Stage::Done));
    let moved = [Happening::DeviceLost, Happening::ReplicaMoved, Happening::RolloutStopped];
    assert!(!world.kinds().iter().any(|kind| moved.contains(kind)));
}

#[test]
fn a_move_for_a_gain_is_remembered_until_its_replacement_serves() {
    let mut world = World::new(&[("edge-1", 256, "n")]);
    for text in ["a", "b", "c"] {
        world.deployments.insert(name(text), spec(1, 80));
    }
    world.turns(8);
    world.devices.insert(id("edge-2"), Sim { up_since_ms: Some(world.now_ms), ..Sim::new(256, "n") });
    // It may be gone again soon.
    world.turns(10);
    assert_eq!(world.say(), "a@edge-1:v1 | b@edge-1:v1 | c@edge-1:v1");
    world.turn(SETTLED_MS);
    let moving = "a@edge-1:v1 | b@edge-1:v1 | c@edge-1:v1 | a@edge-2:v1";
    assert_eq!(world.say(), moving);
    let note = world.state.notes[&id("edge-1")][&name("a")].clone();
    assert!(note.relieved && note.leaving.is_some());
    // Also when nothing comes of it for a while.
    for _ in 0..5 {
        world.now_ms += 1_000;
        world.look();
    }
    assert_eq!(world.say(), moving);
    world.turns(5);
    assert_eq!(world.say(), "b@edge-1:v1 | c@edge-1:v1 | a@edge-2:v1");
    world.turns(300);
    assert_eq!(world.say(), "b@edge-1:v1 | c@edge-1:v1 | a@edge-2:v1");
    assert_eq!(world.kinds().iter().filter(|kind| **kind == Happening::ReplicaMoved).count(), 1);
}

#[test]
fn a_note_says_why_a_replica_came_as_long_as_it_stays() {
    let world = three();
    let note = &world.state.notes[&id("edge-1")][&name("a")];
    assert_eq!(note.why, "of 3 devices the one with the most room: 87% stays free");
    assert_eq!(note.since_ms, 1_001_000);
    let json = serde_json::to_string(note).expect("JSON");
    assert_eq!(serde_json::from_str::<Note>(&json).expect("reads back"), *note);
}

/// What can happen in a random fleet.
#[derive(Debug, Clone)]
enum Op {
    /// The plane looks, after so long.
    Look(u64),
    /// Devices that are up do a step.
    Obey,
    Fall(usize),
    Return(usize),
    Schedule(usize, Schedule),
    Scale(usize, u32),
    Resize(usize, u64),
    Push(bool),
    Delete(usize),
    Undo(usize),
    Resume(usize),
    Pause(usize),
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn any_op() -> impl Strategy<Value = Op> {
    let schedule = prop::sample::select(vec![Schedule::Open, Schedule::Cordoned, Schedule::Draining]);
    prop_oneof![
        12 => prop::sample::select(vec![50u64, 1_000, 4_000, 20_000, 70_000]).prop_map(Op::Look),
        8 => Just(Op::Obey),
        3 => (0usize..6).prop_map(Op::Fall),
        3 => (0usize..6).prop_map(Op::Return),
        2 => (0usize..6, schedule).prop_map(|(device, schedule)| Op::Schedule(device, schedule)),
        2 => (0usize..3, 0u32..6).prop_map(|(deployment, replicas)| Op::Scale(deployment, replicas)),
        1 => (0usize..3, 16u64..200).prop_map(|(deployment, mib)| Op::Resize(deployment, mib)),
        2 => any::<bool>().prop_map(Op::Push),
        1 => (0usize..3).prop_map(Op::Delete),
        1 => (0usize..3).prop_map(Op::Undo),
        1 => (0usize..3).prop_map(Op::Resume),
        1 => (0usize..3).prop_map(Op::Pause),
    ]
}

prop_compose! {
    fn any_world()(
        machines in prop::collection::vec((64u64..400, any::<bool>()), 1..6),
        specs in prop::collection::vec((0u32..6, 16u64..200), 1..4),
    ) -> World {
        let mut world = World::new(&[]);
        for (at, (mib, north)) in machines.into_iter().enumerate() {
            world.devices.insert(id(&format!("edge-{at}")), Sim::new(mib, if north { "n" } else { "s" }));
        }
        for (text, (replicas, mib)) in NAMES.iter().zip(specs) {
            world.deployments.insert(name(text), spec(replicas, mib));
        }
        world
    }
}

impl World {
    fn device_at(&mut self, at: usize) -> Option<&mut Sim> {
        self.devices.values_mut().nth(at)
    }

    fn spec_at(&mut self, at: usize) -> Option<&mut Spec> {
        self.deployments.get_mut(&name(NAMES[at]))
    }

    fn operate(&mut self, at: usize, wish: impl FnOnce(Rollout) -> Result<Rollout, crate::rollout::CannotChange>) {
        let name = name(NAMES[at]);
        if let Some(rollout) = self.state.rollouts.get(&name).cloned()
            && let Ok(rollout) = wish(rollout)
        {
            self.state.rollouts.insert(name, rollout);
        }
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        let now_ms = self.now_ms;
        match op {
            Op::Look(after_ms) => {
                self.now_ms += after_ms;
                self.look();
                return self.is_sound();
            }
            Op::Obey => self.obey(),
            Op::Fall(at) => self.device_at(at).into_iter().for_each(|sim| sim.up_since_ms = None),
            Op::Return(at) => self.device_at(at).into_iter().for_each(|sim| {
                sim.up_since_ms.get_or_insert(now_ms);
            }),
            Op::Schedule(at, schedule) => self.device_at(at).into_iter().for_each(|sim| sim.schedule = schedule),
            Op::Scale(at, replicas) => self.spec_at(at).into_iter().for_each(|spec| spec.replicas = replicas),
            Op::Resize(at, mib) => {
                self.spec_at(at).into_iter().for_each(|spec| spec.resources.memory = Bytes(mib * MIB));
            }
            Op::Push(good) => {
                let next = self.versions.keys().last().map_or(1, |last| last + 1);
                self.versions.insert(next, good);
            }
            Op::Delete(at) => {
                self.deployments.remove(&name(NAMES[at]));
            }
            Op::Undo(at) => self.operate(at, |rollout| rollout.undo(now_ms)),
            Op::Resume(at) => self.operate(at, |rollout| rollout.resume(now_ms)),
            Op::Pause(at) => self.operate(at, |rollout| rollout.pause(now_ms)),
        }
        Ok(())
    }

    /// What holds after every look.
    fn is_sound(&self) -> Result<(), TestCaseError> {
        for (id, slots) in &self.state.placements {
            let memory: u64 = slots.values().map(|slot| slot.resources.memory_bytes).sum();
            let cpu: u32 = slots.values().map(|slot| slot.resources.cpu_milli).sum();
            prop_assert!(memory <= self.devices[id].memory_mib * MIB && cpu <= 4000, "{} on {}", self.say(), id);
            prop_assert!(slots.keys().all(|name| self.deployments.contains_key(name)));
        }
        for (name, spec) in &self.deployments {
            let placed = self.state.placements.values().filter(|slots| slots.contains_key(name)).count() as u32;
            let leaving = self.plan.leaving.keys().filter(|(of, _)| of == name).count() as u32;
            let missing = self.plan.waiting.get(name).map_or(0, |waiting| waiting.missing);
            prop_assert_eq!(placed - leaving + missing, spec.replicas, "{}: {}", name, self.say());
            prop_assert!(leaving <= spec.replicas);
        }
        Ok(())
    }

    /// Everybody is there and obeys: after how many turns does nothing change any more?
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for sim in self.devices.values_mut() {
            sim.up_since_ms.get_or_insert(self.now_ms);
            sim.schedule = Schedule::Open;
        }
        for at in 0..NAMES.len() {
            let now_ms = self.now_ms;
            self.operate(at, |rollout| {
                if matches!(rollout.stage, Stage::Paused { .. }) { rollout.resume(now_ms) } else { Ok(rollout) }
            });
        }
        let mut same = 0;
        for _ in 0..400 {
            let before = (self.state.placements.clone(), self.stages());
            self.turn(5_000);
            self.is_sound()?;
            same = if before == (self.state.placements.clone(), self.stages()) { same + 1 } else { 0 };
            // Longer than anything that waits for the time.
            if same > SETTLED_MS / 5_000 + 20 {
                return Ok(());
            }
        }
        prop_assert!(false, "it never settles: {} {:?}", self.say(), self.state.rollouts);
        Ok(())
    }

    fn stages(&self) -> Vec<Stage> {
        self.state.rollouts.values().map(|rollout| rollout.stage.clone()).collect()
    }

    fn is_settled(&self) -> Result<(), TestCaseError> {
        for (name, rollout) in &self.state.rollouts {
            let holders = self.state.placements.values().filter(|slots| slots.contains_key(name)).count();
            prop_assert!(!rollout.is_under_way() || holders == 0, "{}: {:?} {}", name, rollout, self.say());
        }
        for (id, slots) in &self.state.placements {
            for (name, slot) in slots {
                let report = &self.devices[id].slots[name];
                let leaves = self.plan.leaving.contains_key(&(name.clone(), id.clone()));
                // Whatever stays serves what it should; what leaves for want of a place says so.
                let serves = report.phase == Phase::Serving;
                prop_assert!(
                    serves || leaves && self.plan.waiting.contains_key(name),
                    "{} {:?} {}",
                    id,
                    report,
                    self.say()
                );
                prop_assert!(!leaves || self.plan.waiting.contains_key(name), "{} {} {}", name, id, self.say());
                prop_assert!(!serves || self.versions[&slot.version.get()]);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn whatever_happens_plans_are_sound_and_it_settles(
        mut world in any_world(),
        ops in prop::collection::vec(any_op(), 0..60),
    ) {
        for op in ops {
            world.apply(op)?;
        }
        world.settle()?;
        world.is_settled()?;
        // Equal states and sights give equal decisions, and what is remembered is kept.
        let (observed, now_ms) = (world.observed(), world.now_ms);
        let first = decide(world.state.clone(), &observed, now_ms);
        let second = decide(world.state.clone(), &observed, now_ms);
        prop_assert_eq!((&first.state, &first.plan), (&second.state, &second.plan));
        prop_assert_eq!(&first.state.placements, &world.state.placements);
    }

    #[test]
    fn a_bad_version_reaches_no_more_than_the_first_wave(
        mut world in any_world(),
        replicas in 2u32..6,
        first_wave in 1u32..3,
        ops in prop::collection::vec(any_op(), 0..40),
    ) {
        for spec in world.deployments.values_mut() {
            spec.replicas = replicas;
            spec.rollout.waves.insert(0, CountOrPercent::Count(first_wave));
        }
        world.settle()?;
        let before = world.state.placements.clone();
        world.apply(Op::Push(false))?;
        for op in ops.into_iter().chain((0..12).flat_map(|_| [Op::Look(1_000), Op::Obey])) {
            // What operators do is their own.
            if matches!(op, Op::Look(_) | Op::Obey | Op::Fall(_) | Op::Return(_)) {
                world.apply(op)?;
            }
            for name in world.deployments.keys() {
                let is_bad = |slots: &&Slots| slots.get(name).is_some_and(|slot| slot.version == version(2));
                let granted = world.state.placements.values().filter(is_bad).count();
                // Where there was none before, there is nothing to protect.
                let held = before.values().any(|slots| slots.contains_key(name));
                prop_assert!(!held || granted <= first_wave as usize, "{}: {}", name, world.say());
            }
        }
        // One that fell silent before it could try it is given up; another one may try in its place.
        for name in before.values().flat_map(Slots::keys) {
            let refused = |sim: &&Sim| sim.slots.get(name).is_some_and(|slot| slot.phase == Phase::Refused);
            prop_assert!(world.devices.values().filter(refused).count() <= first_wave as usize, "{}", name);
        }
    }
}
