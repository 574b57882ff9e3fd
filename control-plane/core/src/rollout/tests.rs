//! Tables of one rollout over devices that obey, refuse, hang or fall silent.

use muster_shared::api::deployment::RolloutStage;
use std::collections::BTreeSet;

use muster_shared::reported::Phase;

use super::*;
use crate::fleet::{Granted, Presence, Report};
use crate::testing::*;

const DEADLINE_MS: u64 = 60_000;
const STEP_MS: u64 = 1_000;

/// One deployment on a few devices.
struct Bench {
    name: DeploymentName,
    policy: Policy,
    devices: BTreeMap<DeviceId, Device>,
    lost: BTreeSet<DeviceId>,
    without_room: BTreeSet<DeviceId>,
    /// Devices that get nowhere with this version.
    stuck: BTreeMap<DeviceId, u64>,
    rollout: Option<Rollout>,
    resolved: Option<Release>,
    frozen: bool,
    now_ms: UnixMs,
    happened: Vec<Happening>,
}

impl Bench {
    /// So many devices, on which version 1 came first.
    fn settled(devices: usize) -> Self {
        let mut bench = Self::empty(devices);
        bench.target(1);
        bench.turns(3);
        assert_eq!(bench.say(), format!("done v1 {devices}/{devices}"));
        bench.happened.clear();
        bench
    }

    fn empty(devices: usize) -> Self {
        let waves = vec![CountOrPercent::Count(1), CountOrPercent::Percent(25), CountOrPercent::Percent(100)];
        let devices = (1..=devices).map(|number| (id(&format!("edge-{number}")), device(512, "n")));
        Self {
            name: name("a"),
            policy: Policy { waves, max_failed: CountOrPercent::Count(0), deadline_ms: DEADLINE_MS },
            devices: devices.collect(),
            lost: BTreeSet::new(),
            without_room: BTreeSet::new(),
            stuck: BTreeMap::new(),
            rollout: None,
            resolved: None,
            frozen: false,
            now_ms: 1_000_000,
            happened: Vec::new(),
        }
    }

    fn target(&mut self, version: u64) {
        self.resolved = Some(release(version, 64));
    }

    /// One look, after which the devices do what they are told.
    fn turn(&mut self) {
        self.look(0);
        self.obey();
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    fn look(&mut self, lapsed_ms: u64) {
        self.now_ms += STEP_MS;
        let holders = self.devices.iter().map(|(id, device)| (id, (device, self.lost.contains(id)))).collect();
        let resolved = self.resolved.clone();
        let without_room = self.without_room.iter().map(|id| (id, format!("{id}: no room"))).collect();
        let (name, policy, frozen) = (&self.name, &self.policy, self.frozen);
        let view = View { name, resolved, policy, holders, without_room, frozen, lapsed_ms };
        let (rollout, happened) = Rollout::step(self.rollout.take(), &view, self.now_ms);
        self.rollout = rollout;
        self.happened.extend(happened.into_iter().map(|(kind, ..)| kind));
    }

    fn obey(&mut self) {
        let Some(releases) = self.rollout.as_ref().map(Rollout::releases) else { return };
        for (id, device) in self.devices.iter_mut().filter(|(_, device)| device.is_up()) {
            let release = releases.of(id);
            let before = device.slots.get(&self.name).and_then(|report| report.running);
            let report = Report { running: before, ..serving(release.version.get()) };
            let report = if self.stuck.get(id) == Some(&release.version.get()) {
                Report { phase: Phase::Fetching, waiting: Some("1 of 9 chunks are here".into()), ..report }
            } else if device.why_refused(release).is_some() {
                Report { phase: Phase::Refused, ..report }
            } else {
                serving(release.version.get())
            };
            device.slots.insert(self.name.clone(), report);
        }
    }

    /// These devices prove that a version is bad as soon as they try it.
    fn refuse(&mut self, version: u64, devices: impl IntoIterator<Item = DeviceId>) {
        for id in devices {
            let refused = crate::fleet::Refused { reason: "y differs".into(), attempt: 0, memory_bytes: None };
            self.devices.get_mut(&id).expect("a device").refused.insert(manifest(version), refused);
        }
    }

    fn all(&self) -> Vec<DeviceId> {
        self.devices.keys().cloned().collect()
    }

    fn fall_silent(&mut self, device: &DeviceId) {
        self.devices.get_mut(device).expect("a device").presence = silent(0, false);
    }

    fn come_back(&mut self, device: &DeviceId) {
        self.devices.get_mut(device).expect("a device").presence = Presence::Up { for_ms: 0 };
        self.lost.remove(device);
    }

    fn rollout(&self) -> &Rollout {
        self.rollout.as_ref().expect("a rollout")
    }

    fn first_granted(&self) -> DeviceId {
        self.rollout().granted.keys().next().expect("a device").clone()
    }

    /// Devices by the version that they answer with.
    fn running(&self, version: u64) -> usize {
        let runs = |device: &&Device| device.slots.get(&self.name).and_then(|it| it.running) == Some(manifest(version));
        self.devices.values().filter(runs).count()
    }

    /// `running v2 wave 1 of 3, 1 granted, 0 healthy`, `stopped v2 → v1: …`, `done v2 3/3`.
    fn say(&self) -> String {
        let rollout = self.rollout();
        let view = rollout.view(&self.policy, self.devices.len() as u32, self.frozen);
        let version = view.version;
        match view.stage {
            RolloutStage::Done => {
                let target = rollout.target.version.get();
                format!("done v{version} {}/{}", self.running(target), view.devices)
            }
            RolloutStage::Stopped | RolloutStage::Undone => format!("{:?}: {}", view.stage, view.message),
            stage => {
                let (wave, waves, granted, healthy) = (view.wave, view.waves, view.granted, view.healthy);
                format!("{stage:?} v{version} wave {wave} of {waves}, {granted} granted, {healthy} healthy")
            }
        }
    }
}

#[test]
fn waves_go_from_one_to_all() {
    for devices in 1..=20usize {
        let mut bench = Bench::settled(devices);
        bench.target(2);
        let mut sizes = vec![];
        for _ in 0..20 {
            bench.turn();
            let granted = bench.rollout().granted.len();
            if sizes.last() != Some(&granted) {
                sizes.push(granted);
            }
        }
        let mut expected = vec![1, devices.div_ceil(4), devices];
        expected.dedup();
        assert_eq!(sizes, expected, "of {devices}");
        assert_eq!(bench.say(), format!("done v2 {devices}/{devices}"));
        assert_eq!(bench.rollout().releases().granted, Granted::All);
        let waves = expected.len() - 1;
        assert_eq!(bench.happened.iter().filter(|kind| **kind == Happening::RolloutWave).count(), waves);
    }
}

#[test]
fn a_failure_in_the_first_wave_stops_and_returns() {
    let mut bench = Bench::settled(8);
    bench.refuse(2, bench.all());
    bench.target(2);
    bench.turn();
    assert_eq!(bench.say(), "Running v2 wave 1 of 3, 1 granted, 0 healthy");
    let first = bench.first_granted();
    bench.turns(5);
    assert_eq!(bench.say(), format!("Stopped: {first}: refused version 2: y differs; devices are back on version 1"));
    let releases = bench.rollout().releases();
    assert_eq!((bench.running(1), releases.target, releases.granted), (8, release(1, 64), Granted::All));
    assert_eq!(bench.rollout().settled_on(), &release(1, 64));
    assert_eq!(bench.happened, [Happening::RolloutStarted, Happening::RolloutStopped]);
}

#[test]
fn some_failures_may_be_tolerated_but_not_a_wave_of_them() {
    let tolerant = |max_failed, waves: &[CountOrPercent]| {
        let mut bench = Bench::settled(8);
        bench.policy = Policy { max_failed, waves: waves.to_vec(), ..bench.policy };
        bench.target(2);
        bench.turn();
        assert_eq!(bench.rollout().granted.len(), 1);
        bench
    };
    let refuse = |bench: &mut Bench, count| {
        let others = bench.all().into_iter().filter(|id| !bench.rollout().granted.contains_key(id));
        let others: Vec<DeviceId> = others.take(count).collect();
        bench.refuse(2, others);
        bench.turns(5);
    };
    let (one, two, all) = (CountOrPercent::Count(1), CountOrPercent::Count(2), CountOrPercent::Percent(100));
    let mut bench = tolerant(one, &[one, all]);
    refuse(&mut bench, 1);
    assert_eq!((bench.say().as_str(), bench.rollout().failed.len()), ("done v2 7/8", 1));
    // Two are too many; 13 % of 8 are two.
    let mut bench = tolerant(one, &[one, all]);
    refuse(&mut bench, 2);
    assert!(bench.say().contains("(and 1 more): refused version 2"), "{}", bench.say());
    let mut bench = tolerant(CountOrPercent::Percent(13), &[one, all]);
    refuse(&mut bench, 2);
    assert_eq!(bench.say(), "done v2 6/8");
    // The second wave brings one more, and that one fails.
    let mut bench = tolerant(one, &[one, two, all]);
    refuse(&mut bench, 7);
    assert!(bench.say().starts_with("Stopped: it succeeded on no device of wave 2; "), "{}", bench.say());
}

#[test]
fn a_device_that_gets_nowhere_fails_at_its_deadline() {
    let mut bench = Bench::settled(8);
    bench.stuck = bench.all().into_iter().map(|id| (id, 2)).collect();
    bench.target(2);
    bench.turns(2);
    let deadline_ms = bench.rollout().next_deadline_ms(&bench.policy).expect("a deadline");
    assert_eq!(deadline_ms, bench.now_ms + DEADLINE_MS);
    bench.now_ms = deadline_ms - 2 * STEP_MS;
    bench.turn();
    assert_eq!(bench.say(), "Running v2 wave 1 of 3, 1 granted, 0 healthy");
    bench.turn();
    let why = "it made no progress for 1m with version 2: fetching: 1 of 9 chunks are here";
    assert!(bench.say().contains(why), "{}", bench.say());
}

#[test]
fn a_device_that_comes_and_goes_reaches_its_whole_deadline() {
    let mut bench = Bench::settled(8);
    bench.stuck = bench.all().into_iter().map(|id| (id, 2)).collect();
    bench.target(2);
    bench.turn();
    let first = bench.first_granted();
    for _ in 0..DEADLINES_MAX {
        assert!(bench.rollout().is_under_way(), "{}", bench.say());
        bench.now_ms += DEADLINE_MS / 2 - STEP_MS;
        bench.fall_silent(&first);
        bench.turn();
        bench.now_ms += DEADLINE_MS / 2 - STEP_MS;
        bench.come_back(&first);
        bench.turn();
    }
    assert!(bench.say().contains("it did not serve version 2 within 10m"), "{}", bench.say());
}

#[test]
fn time_that_counts_for_nobody_makes_nobody_late() {
    let mut bench = Bench::settled(8);
    bench.stuck = bench.all().into_iter().map(|id| (id, 2)).collect();
    bench.target(2);
    bench.turns(2);
    // The plane was away for an hour, or many were silent.
    for frozen in [false, true] {
        bench.frozen = frozen;
        bench.now_ms += 3_600_000 - STEP_MS;
        bench.look(3_600_000);
        assert_eq!(bench.say(), "Running v2 wave 1 of 3, 1 granted, 0 healthy");
        let deadline_ms = bench.rollout().next_deadline_ms(&bench.policy).expect("a deadline");
        assert!(deadline_ms > bench.now_ms);
    }
    bench.frozen = false;
    bench.now_ms += DEADLINE_MS;
    bench.turn();
    assert!(!bench.rollout().is_under_way());
}

#[test]
fn silence_of_many_holds_everything() {
    let mut bench = Bench::settled(8);
    bench.frozen = true;
    bench.target(2);
    bench.turns(5);
    assert_eq!(bench.say(), "Running v2 wave 1 of 3, 0 granted, 0 healthy");
    bench.frozen = false;
    bench.turns(10);
    assert_eq!(bench.say(), "done v2 8/8");
}

#[test]
fn a_device_that_is_lost_while_it_takes_the_version_failed() {
    let mut bench = Bench::settled(8);
    bench.stuck = bench.all().into_iter().map(|id| (id, 2)).collect();
    bench.target(2);
    bench.turn();
    let first = bench.first_granted();
    bench.fall_silent(&first);
    bench.turns(3);
    assert_eq!(bench.say(), "Running v2 wave 1 of 3, 1 granted, 0 healthy");
    bench.lost.insert(first.clone());
    bench.turn();
    let why = format!("Stopped: {first}: it fell silent while it took version 2; devices are back on version 1");
    assert_eq!(bench.say(), why);
    // One that serves it already, and one that never began, hold nobody up.
    let mut bench = Bench::settled(8);
    bench.target(2);
    bench.turns(2);
    let first = bench.first_granted();
    let second = bench.all().into_iter().find(|id| *id != first).expect("another");
    for device in [first, second] {
        bench.fall_silent(&device);
        bench.lost.insert(device);
    }
    bench.turns(5);
    assert_eq!(bench.say(), "done v2 7/8");
}

#[test]
fn devices_that_are_lost_with_the_first_version_do_not_close_it_until_they_are_many() {
    for (lost, expected) in [(2, "done v1 6/8"), (3, "Stopped: ")] {
        let mut bench = Bench::empty(8);
        bench.stuck = bench.all().into_iter().take(lost).map(|id| (id, 1)).collect();
        bench.target(1);
        bench.turn();
        for device in bench.all().into_iter().take(lost) {
            bench.fall_silent(&device);
            bench.lost.insert(device);
        }
        bench.turns(5);
        assert!(bench.say().starts_with(expected), "{}", bench.say());
    }
    // Whom an operator takes for lost says nothing of the version.
    let mut bench = Bench::settled(8);
    bench.stuck = bench.all().into_iter().map(|id| (id, 2)).collect();
    bench.target(2);
    bench.turn();
    let first = bench.first_granted();
    bench.devices.get_mut(&first).expect("a device").presence = Presence::Silent { for_ms: u64::MAX, frozen: false };
    bench.lost.insert(first);
    bench.turn();
    assert!(bench.rollout().is_under_way(), "{}", bench.say());
}

#[test]
fn a_worker_that_dies_again_and_again_after_its_probation_fails_the_device() {
    let mut bench = Bench::settled(8);
    bench.target(2);
    bench.turns(2);
    let first = bench.first_granted();
    bench.look(0);
    for (restarts, running) in [(2, true), (3, true)] {
        assert_eq!(bench.rollout().is_under_way(), running);
        let device = bench.devices.get_mut(&first).expect("a device");
        device.slots.get_mut(&bench.name).expect("a slot").restarts = restarts;
        bench.look(0);
    }
    assert!(bench.say().contains("its worker died 3 times after its probation"), "{}", bench.say());
}

#[test]
fn an_operator_may_pause_resume_and_undo() {
    let mut bench = Bench::settled(8);
    assert_eq!(bench.rollout().clone().undo(0).unwrap_err(), CannotChange::NoPrevious);
    assert_eq!(bench.rollout().clone().pause(0).unwrap_err(), CannotChange::Over);
    assert_eq!(bench.rollout().clone().resume(0).unwrap_err(), CannotChange::Over);
    bench.target(2);
    bench.turn();
    assert_eq!(bench.rollout().clone().resume(0).unwrap_err(), CannotChange::Running);
    bench.rollout = bench.rollout.take().map(|rollout| rollout.pause(7).expect("it runs"));
    assert_eq!(bench.rollout().clone().pause(0).unwrap_err(), CannotChange::Paused);
    bench.turns(5);
    assert_eq!(bench.say(), "Paused v2 wave 1 of 3, 1 granted, 0 healthy");
    bench.rollout = bench.rollout.take().map(|rollout| rollout.resume(8).expect("it is held"));
    bench.turns(8);
    assert_eq!(bench.say(), "done v2 8/8");
    // Back, everywhere and at once, also when it was done.
    bench.rollout = bench.rollout.take().map(|rollout| rollout.undo(9).expect("there was a version before"));
    bench.turns(2);
    assert_eq!(bench.say(), "Undone: an operator took it back; devices are back on version 1");
    assert_eq!((bench.running(1), bench.rollout().settled_on().version), (8, version(1)));
    assert_eq!(bench.rollout().clone().undo(0).unwrap_err(), CannotChange::Undone);
    // Once more, as a new attempt that is a new rollout.
    let number = bench.rollout().number;
    bench.rollout = bench.rollout.take().map(|rollout| rollout.resume(9).expect("it can begin again"));
    assert_eq!((bench.rollout().number, bench.rollout().target.attempt), (number + 1, 1));
    bench.turns(12);
    assert_eq!(bench.say(), "done v2 8/8");
}

#[test]
fn a_stopped_rollout_tries_again_what_was_refused() {
    let mut bench = Bench::settled(8);
    bench.refuse(2, bench.all());
    bench.target(2);
    bench.turns(5);
    bench.rollout = bench.rollout.take().map(|rollout| rollout.resume(9).expect("it can begin again"));
    bench.turns(12);
    assert_eq!(bench.say(), "done v2 8/8");
}

#[test]
fn another_target_goes_back_to_what_proved_itself() {
    let mut bench = Bench::settled(8);
    bench.target(2);
    bench.turn();
    bench.target(3);
    bench.turn();
    assert_eq!((bench.rollout().previous.clone(), bench.rollout().number), (Some(release(1, 64)), 3));
    assert_eq!((bench.running(1), bench.running(3)), (7, 1));
    bench.turns(10);
    assert_eq!(bench.say(), "done v3 8/8");
    // Back to what the others still have is at once.
    bench.target(4);
    bench.turns(2);
    bench.target(3);
    bench.turn();
    assert_eq!((bench.rollout().previous.clone(), bench.running(3)), (None, 8));
    bench.turns(2);
    assert_eq!(bench.say(), "done v3 8/8");
}

#[test]
fn the_first_version_comes_at_once_and_closes_when_it_fails() {
    let mut bench = Bench::empty(4);
    bench.turn();
    assert_eq!(bench.rollout, None);
    bench.target(1);
    bench.turn();
    assert_eq!((bench.say().as_str(), bench.running(1)), ("Running v1 wave 1 of 1, 4 granted, 0 healthy", 4));
    bench.refuse(1, [id("edge-2")]);
    bench.turns(2);
    assert_eq!(bench.say(), "Stopped: edge-2: refused version 1: y differs");
    let releases = bench.rollout().releases();
    assert_eq!(
        (releases.granted, releases.closed.as_deref()),
        (Granted::All, Some("edge-2: refused version 1: y differs"))
    );
    // Where some have proven it, the next version goes in waves.
    bench.target(2);
    bench.turn();
    assert_eq!(bench.rollout().previous, Some(release(1, 64)));
    // Where none has, there is nothing to protect: an unproven version must not hold the next one up.
    let mut bench = Bench::empty(4);
    bench.refuse(1, bench.all());
    bench.target(1);
    bench.turns(2);
    for device in bench.devices.values_mut() {
        let probation = Report { phase: Phase::Probation, ..serving(1) };
        device.slots.insert(name("a"), probation);
    }
    bench.target(2);
    bench.turn();
    assert_eq!((bench.rollout().previous.clone(), bench.running(2)), (None, 4));
}

#[test]
fn who_was_lost_before_does_not_fail_the_next_attempt() {
    let mut bench = Bench::empty(6);
    bench.target(1);
    bench.look(0);
    let lost = ["edge-2", "edge-3", "edge-4"].map(id);
    for device in &lost {
        bench.fall_silent(device);
        bench.lost.insert(device.clone());
    }
    bench.turns(2);
    assert_eq!(bench.say(), "Stopped: edge-4: it fell silent while it took version 1");
    bench.rollout = bench.rollout.take().map(|rollout| rollout.resume(9).expect("it can begin again"));
    bench.turns(4);
    assert_eq!(bench.say(), "done v1 3/6");
    // Nor does one that had it before.
    for device in &lost {
        bench.devices.get_mut(device).expect("a device").slots = reports(&[("a", serving(1))]);
    }
    bench.lost.clear();
    let rollout = Rollout { stage: Stage::Stopped { reason: "something".into() }, ..bench.rollout().clone() };
    bench.rollout = Some(rollout.resume(9).expect("it can begin again"));
    bench.turn();
    bench.lost.extend(lost);
    bench.turns(4);
    assert_eq!(bench.rollout().stage, Stage::Done);
}

#[test]
fn devices_that_serve_the_target_already_keep_it() {
    let mut bench = Bench::settled(8);
    for device in bench.devices.values_mut().take(5) {
        device.slots.insert(name("a"), serving(2));
    }
    bench.target(2);
    bench.turn();
    assert_eq!((bench.running(2), bench.rollout().granted.len()), (5, 5));
    bench.turns(8);
    assert_eq!(bench.say(), "done v2 8/8");
}

#[test]
fn a_change_of_the_grant_goes_in_waves_too() {
    let mut bench = Bench::settled(8);
    bench.resolved = Some(release(1, 128));
    bench.turn();
    assert_eq!(bench.say(), "Running v1 wave 1 of 3, 1 granted, 0 healthy");
    bench.turns(8);
    assert_eq!(bench.rollout().stage, Stage::Done);
}

#[test]
fn who_has_no_room_comes_last_and_says_so() {
    let mut bench = Bench::settled(8);
    bench.target(2);
    bench.turn();
    let first = bench.first_granted();
    let mut bench = Bench::settled(8);
    bench.without_room.insert(first.clone());
    bench.target(2);
    bench.turn();
    assert_ne!(bench.first_granted(), first);
    bench.turns(2);
    let fetching = Report { phase: Phase::Fetching, wanted: None, ..serving(1) };
    bench.devices.get_mut(&first).expect("a device").slots = reports(&[("a", fetching)]);
    bench.look(0);
    bench.now_ms += DEADLINE_MS;
    bench.look(0);
    let why = format!("{first}: it made no progress for 1m with version 2: {first}: no room");
    assert!(bench.say().contains(&why), "{}", bench.say());
}

#[test]
fn whoever_comes_meanwhile_gets_it_too() {
    let mut bench = Bench::settled(8);
    bench.policy.waves = vec![CountOrPercent::Count(1)];
    bench.policy.max_failed = CountOrPercent::Count(1);
    bench.target(2);
    bench.turn();
    let mut others = bench.all().into_iter().filter(|id| !bench.rollout().granted.contains_key(id));
    let (failing, slow) = (others.next().expect("a device"), others.next().expect("another"));
    bench.stuck = [(slow, 2)].into();
    bench.refuse(2, [failing.clone()]);
    bench.turns(3);
    assert_eq!(bench.rollout().failed.len(), 1);
    // The one that failed was replaced by another device.
    bench.devices.remove(&failing);
    bench.devices.insert(id("edge-9"), device(512, "n"));
    bench.turns(2);
    assert!(bench.rollout().granted.contains_key(&id("edge-9")));
    bench.stuck.clear();
    bench.turns(3);
    assert_eq!(bench.say(), "done v2 8/8");
}

#[test]
fn fewer_devices_are_watched_to_the_end_all_the_same() {
    let mut bench = Bench::settled(20);
    bench.target(2);
    bench.turns(3);
    assert_eq!(bench.rollout().stage, Stage::Running { wave: 2 });
    // One is left, and it gets nowhere.
    let last = bench.first_granted();
    bench.devices.retain(|id, _| *id == last);
    let fetching = Report { phase: Phase::Fetching, running: Some(manifest(1)), ..serving(2) };
    bench.devices.get_mut(&last).expect("a device").slots = reports(&[("a", fetching)]);
    bench.rollout.as_mut().expect("a rollout").granted.get_mut(&last).expect("a grant").healthy = None;
    bench.look(0);
    assert!(bench.rollout().is_under_way());
    bench.obey();
    bench.turns(2);
    assert_eq!(bench.say(), "done v2 1/1");
}

#[test]
fn nothing_to_run_changes_nothing() {
    let mut bench = Bench::settled(2);
    bench.resolved = None;
    let before = bench.rollout.clone();
    bench.turns(2);
    assert_eq!(bench.rollout, before);
    let json = serde_json::to_string(&before).expect("JSON");
    assert_eq!(serde_json::from_str::<Option<Rollout>>(&json).expect("reads back"), before);
}
