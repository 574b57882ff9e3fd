//! A slot's life told as stories, and the promises that hold in every one.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::reported::Phase;
use proptest::prelude::*;

use super::running::STABLE_MS;
use super::*;
use crate::testing;

fn spec(version: u64) -> SlotSpec {
    SlotSpec { probation_ms: 1_000, ..testing::spec("digits", version) }
}

const MEASURED: Measured = Measured { memory_peak_bytes: 1, latency_us: 1 };

/// A slot with its clock, its worker numbers and all that it asked for.
struct Life {
    slot: Slot,
    now_ms: UnixMs,
    workers: u64,
    last: Vec<SlotAction>,
}

impl Life {
    fn new() -> Self {
        Self { slot: Slot::Empty, now_ms: 0, workers: 0, last: vec![] }
    }

    fn on(&mut self, event: SlotEvent) -> &mut Self {
        let mut step = Step { now_ms: self.now_ms, next_worker: &mut self.workers };
        let (slot, actions) = std::mem::replace(&mut self.slot, Slot::Empty).step(event, &mut step);
        (self.slot, self.last) = (slot, actions);
        self
    }

    fn through(&mut self, events: Vec<SlotEvent>) {
        for event in events {
            self.on(event);
        }
    }

    fn at(&mut self, now_ms: UnixMs) -> &mut Self {
        self.now_ms = now_ms;
        self.on(SlotEvent::Tick)
    }

    /// Brings `version` to probation.
    fn until_probation(&mut self, version: u64) -> &mut Self {
        self.until_watched(spec(version))
    }

    /// Brings this spec to probation.
    fn until_watched(&mut self, spec: SlotSpec) -> &mut Self {
        self.on(SlotEvent::Want(spec)).on(SlotEvent::Fetched);
        let worker = WorkerId(self.workers);
        self.on(SlotEvent::CheckPassed(worker, MEASURED))
    }

    /// Brings `version` to serving.
    fn until_serving(&mut self, version: u64) -> &mut Self {
        let proven_ms = self.now_ms + 1_000;
        self.until_probation(version).at(proven_ms)
    }

    fn answering(&self) -> Option<u64> {
        self.slot.answering().map(|running| running.spec.version.get())
    }

    fn worker(&self) -> WorkerId {
        self.slot.answering().expect("a worker").worker
    }

    fn remembered(&self) -> Option<RefusalKind> {
        self.last.iter().find_map(|action| match action {
            SlotAction::Remember(_, kind, _) => Some(*kind),
            _ => None,
        })
    }
}

/// The old version makes room for this one.
fn swap(version: u64) -> SlotSpec {
    SlotSpec { swap_in_place: true, ..spec(version) }
}

#[test]
fn a_version_is_fetched_checked_watched_and_then_proven() {
    let mut life = Life::new();
    life.on(SlotEvent::Want(spec(1)));
    assert_eq!(life.last, [SlotAction::Fetch(spec(1))]);
    life.on(SlotEvent::Fetched);
    assert_eq!(life.last, [SlotAction::Check(WorkerId(1), spec(1))]);
    assert_eq!(life.answering(), None);
    life.on(SlotEvent::CheckPassed(WorkerId(1), MEASURED));
    assert_eq!(life.last[0], SlotAction::Route(WorkerId(1), spec(1)));
    assert_eq!((life.slot.phase(), life.slot.next_deadline_ms()), (Phase::Probation, Some(1_000)));
    life.at(999);
    assert_eq!(life.last, []);
    life.at(1_000);
    assert_eq!(life.last, [SlotAction::Prove(Some(spec(1)))]);
    assert_eq!(life.slot.phase(), Phase::Serving);
}

#[test]
fn the_old_version_answers_until_the_new_one_is_routed_and_is_kept_until_it_is_proven() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(spec(2)));
    assert_eq!(life.answering(), Some(1));
    life.on(SlotEvent::Fetched);
    assert_eq!(life.answering(), Some(1));
    life.on(SlotEvent::CheckPassed(WorkerId(2), MEASURED));
    assert_eq!(life.answering(), Some(2));
    assert!(!life.last.contains(&SlotAction::Stop(WorkerId(1))));
    life.at(life.now_ms + 1_000);
    assert_eq!(life.last, [SlotAction::Prove(Some(spec(2))), SlotAction::Stop(WorkerId(1))]);
}

#[test]
fn wrong_golden_vectors_are_remembered_and_the_old_version_serves_on() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(spec(2))).on(SlotEvent::Fetched);
    life.on(SlotEvent::CheckFailed(WorkerId(2), RefusalKind::GoldenMismatch, "y differs".into()));
    assert!(matches!(life.last[0], SlotAction::Remember(_, RefusalKind::GoldenMismatch, _)));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Refused, Some(1)));
    // Wanted again later, the driver finds the refusal: nothing is fetched.
    life.on(SlotEvent::WantRefused(spec(2), "y differs".into()));
    assert_eq!((&life.last[..], life.answering()), (&[][..], Some(1)));
}

#[test]
fn an_untrusted_manifest_is_refused_but_nothing_is_remembered() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(spec(2))).on(SlotEvent::Untrusted("no publisher".into()));
    assert!(!life.last.iter().any(|action| matches!(action, SlotAction::Remember(..))));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Refused, Some(1)));
}

#[test]
fn a_crash_in_probation_brings_the_old_version_back_at_once() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2);
    life.on(SlotEvent::Died(life.worker(), Death::Crashed, "signal 11".into()));
    assert!(life.last.contains(&SlotAction::Route(WorkerId(1), spec(1))));
    assert!(
        life.last.iter().any(|action| matches!(action, SlotAction::Remember(_, RefusalKind::CrashedInProbation, _)))
    );
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Refused, Some(1)));
}

#[test]
fn too_little_memory_in_probation_is_proven_of_the_grant_and_brings_the_old_version_back() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2);
    life.on(SlotEvent::Died(life.worker(), Death::OutOfMemory, "more than 1Mi".into()));
    assert_eq!(life.remembered(), Some(RefusalKind::TooMuchMemoryInProbation));
    assert!(life.last.contains(&SlotAction::Route(WorkerId(1), spec(1))));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Refused, Some(1)));
    assert_eq!(life.slot.waiting().as_deref(), Some("more than 1Mi"));
}

#[test]
fn too_little_memory_after_probation_costs_a_restart() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Died(WorkerId(1), Death::OutOfMemory, "more than 1Mi".into()));
    assert_eq!((life.slot.phase(), life.remembered()), (Phase::Serving, None));
    life.on(SlotEvent::Tick);
    assert_eq!(life.last, [SlotAction::Start(WorkerId(2), spec(1))]);
}

#[test]
fn a_worker_that_is_killed_again_and_again_fails_its_probation_unproven() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2);
    for kill in 1..=DEATHS_IN_PROBATION_MAX {
        assert_eq!((life.slot.phase(), life.answering()), (Phase::Probation, Some(2)), "before kill {kill}");
        life.on(SlotEvent::Died(life.worker(), Death::Killed, "killed (signal 9)".into()));
        assert_eq!(life.remembered(), None);
        if let Some(due) = life.slot.next_deadline_ms() {
            life.at(due);
            life.on(SlotEvent::Started(life.worker()));
        }
    }
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Refused, Some(1)));
    let reason = "its worker ended 3 times while it was watched, the last time: killed (signal 9)";
    assert_eq!(life.slot.waiting().as_deref(), Some(reason));

    // Wanted as before, it would only go round in a circle.
    let unproven = life.slot.clone();
    for same in [spec(2), SlotSpec { probation_ms: 1, ..spec(2) }, swap(2)] {
        life.slot = unproven.clone();
        life.on(SlotEvent::Want(same));
        assert_eq!((&life.last[..], life.slot.phase()), (&[][..], Phase::Refused));
    }
    let resources = muster_shared::desired::Resources { cpu_milli: 1, memory_bytes: 2 };
    for other in [SlotSpec { attempt: 1, ..spec(2) }, SlotSpec { resources, ..spec(2) }, spec(3)] {
        life.slot = unproven.clone();
        life.on(SlotEvent::Want(other.clone()));
        assert_eq!((&life.last[..], life.slot.phase()), (&[SlotAction::Fetch(other)][..], Phase::Fetching));
    }
    life.slot = unproven;
    life.on(SlotEvent::Want(spec(1)));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Serving, Some(1)));
}

#[test]
fn a_kill_in_probation_proves_nothing_and_the_watch_begins_again() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2);
    life.on(SlotEvent::Died(life.worker(), Death::Killed, "killed".into()));
    assert!(!life.last.iter().any(|action| matches!(action, SlotAction::Remember(..))));
    life.at(1_500);
    assert!(matches!(life.last[..], [SlotAction::Start(..)]));
    // Its model takes longer to load than it is watched: only from then on is it watched.
    life.at(9_000);
    assert_eq!(life.slot.phase(), Phase::Probation);
    life.on(SlotEvent::Started(life.worker()));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Probation, Some(2)));
    life.at(9_999);
    assert_eq!(life.slot.phase(), Phase::Probation);
    life.at(10_000);
    assert_eq!(life.slot.phase(), Phase::Serving);
}

#[test]
fn a_dead_worker_is_started_at_once_then_ever_later() {
    let mut life = Life::new();
    life.until_serving(1);
    let mut waits = vec![];
    for _ in 0..4 {
        life.on(SlotEvent::Died(life.worker(), Death::Killed, "killed".into()));
        let due = life.slot.next_deadline_ms().expect("a restart");
        waits.push(due - life.now_ms);
        life.at(due);
        assert_eq!(life.last, [SlotAction::Start(life.worker(), spec(1))]);
        life.on(SlotEvent::Started(life.worker()));
        assert_eq!(life.last, [SlotAction::Route(life.worker(), spec(1))]);
    }
    assert_eq!(waits, [0, 1_000, 2_000, 4_000]);
    // A minute without a death, and the next restart is immediate again.
    let stable_ms = life.now_ms + STABLE_MS;
    life.at(stable_ms);
    life.on(SlotEvent::Died(life.worker(), Death::Crashed, "signal 6".into()));
    assert_eq!(life.slot.next_deadline_ms(), Some(life.now_ms));
}

#[test]
fn the_old_version_is_restarted_also_while_a_new_one_comes() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(spec(2)));
    life.on(SlotEvent::Died(life.worker(), Death::Killed, "killed".into())).on(SlotEvent::Tick);
    assert!(matches!(life.last[..], [SlotAction::Start(..)]));
    life.on(SlotEvent::Started(life.worker()));
    assert_eq!(life.last, [SlotAction::Route(life.worker(), spec(1))]);
}

#[test]
fn a_third_version_during_probation_builds_on_the_proven_one() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2).on(SlotEvent::Want(spec(3)));
    assert_eq!(life.answering(), Some(1));
    assert_eq!(life.last[0], SlotAction::Route(WorkerId(1), spec(1)));
    assert_eq!(life.last[1], SlotAction::Stop(WorkerId(2)));
}

#[test]
fn wanting_the_old_version_back_is_immediate() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2).on(SlotEvent::Want(spec(1)));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Serving, Some(1)));
    assert!(life.last.contains(&SlotAction::Stop(WorkerId(2))));
}

#[test]
fn what_is_not_wanted_ends_and_leaves_nothing_to_restore() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2).on(SlotEvent::Unwant);
    assert_eq!(life.slot, Slot::Empty);
    for ended in [SlotAction::Stop(WorkerId(1)), SlotAction::Stop(WorkerId(2)), SlotAction::Prove(None)] {
        assert!(life.last.contains(&ended), "{ended:?}");
    }
}

#[test]
fn a_check_that_could_not_be_made_is_made_again() {
    let mut life = Life::new();
    life.on(SlotEvent::Want(spec(1))).on(SlotEvent::Fetched);
    life.on(SlotEvent::CheckStopped(WorkerId(1), "no process".into()));
    assert_eq!(life.slot.phase(), Phase::Checking);
    let waiting = "the check could not be made (no process); it is tried again";
    assert_eq!(life.slot.waiting().as_deref(), Some(waiting));
    life.at(life.slot.next_deadline_ms().expect("a retry"));
    assert_eq!(life.last, [SlotAction::Check(WorkerId(2), spec(1))]);
    assert_eq!(life.slot.waiting(), None);
}

#[test]
fn a_spec_of_the_same_worker_restarts_nothing() {
    let other = SlotSpec { attempt: 3, probation_ms: 9, swap_in_place: true, ..spec(2) };
    let refused = || SlotEvent::CheckFailed(WorkerId(2), RefusalKind::GoldenMismatch, "y differs".into());
    let check = |phase: Phase, events: Vec<SlotEvent>| {
        let mut life = Life::new();
        life.until_serving(1);
        life.through(events);
        assert_eq!(life.slot.phase(), phase);
        life.on(SlotEvent::Want(other.clone()));
        assert_eq!((&life.last[..], life.slot.phase()), (&[][..], phase));
        assert_eq!(life.slot.target(), Some(&other));
    };
    let (want, passed) = (|| SlotEvent::Want(spec(2)), || SlotEvent::CheckPassed(WorkerId(2), MEASURED));
    check(Phase::Fetching, vec![want()]);
    check(Phase::Checking, vec![want(), SlotEvent::Fetched]);
    check(Phase::Probation, vec![want(), SlotEvent::Fetched, passed()]);
    // A refusal that does not count any more is another matter.
    let mut life = Life::new();
    life.until_serving(1).on(want()).on(SlotEvent::Fetched).on(refused()).on(SlotEvent::Want(other.clone()));
    assert_eq!(life.last, [SlotAction::Fetch(other)]);
}

#[test]
fn another_name_changes_the_route_and_nothing_else() {
    let mut life = Life::new();
    let renamed = SlotSpec { served_as: Some("numbers".parse().unwrap()), ..spec(1) };
    life.until_serving(1).on(SlotEvent::Want(renamed.clone()));
    assert_eq!(life.last, [SlotAction::Unroute, SlotAction::Route(WorkerId(1), renamed.clone())]);
    // One that is down gets it when it is up again.
    life.on(SlotEvent::Died(WorkerId(1), Death::Killed, "killed".into())).on(SlotEvent::Want(spec(1)));
    assert_eq!(life.last, [SlotAction::Unroute]);
    life.on(SlotEvent::Tick).on(SlotEvent::Started(WorkerId(2)));
    assert_eq!(life.last, [SlotAction::Route(WorkerId(2), spec(1))]);
}

#[test]
fn where_two_do_not_fit_the_old_version_makes_room_and_is_forgotten_on_success() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(swap(2)));
    assert_eq!(life.last, [SlotAction::Fetch(swap(2))]);
    life.on(SlotEvent::Fetched);
    let check = SlotAction::Check(WorkerId(2), swap(2));
    assert_eq!(life.last, [SlotAction::Unroute, SlotAction::Stop(WorkerId(1)), check]);
    let waiting = "version 1 made room for version 2, which is being checked";
    assert_eq!(life.slot.waiting().as_deref(), Some(waiting));
    assert!(!life.slot.answering().expect("kept").is_up());
    // What the stopped worker still had to say is of no interest.
    life.on(SlotEvent::Died(WorkerId(1), Death::Killed, "killed".into()));
    assert_eq!((&life.last[..], life.slot.next_deadline_ms()), (&[][..], None));
    life.on(SlotEvent::CheckPassed(WorkerId(2), MEASURED));
    assert_eq!(life.last[0], SlotAction::Route(WorkerId(2), swap(2)));
    assert_eq!(life.slot.runnings().len(), 2, "the old version stays on disk");
    life.at(life.now_ms + 1_000);
    assert_eq!(life.last, [SlotAction::Prove(Some(swap(2)))]);
    assert_eq!(life.slot.runnings().len(), 1);
}

#[test]
fn without_an_old_version_there_is_nothing_to_make_room() {
    let mut life = Life::new();
    life.on(SlotEvent::Want(swap(1))).on(SlotEvent::Fetched);
    assert_eq!(life.last, [SlotAction::Check(WorkerId(1), swap(1))]);
}

#[test]
fn what_made_room_is_started_again_whatever_goes_wrong() {
    let passed = || SlotEvent::CheckPassed(WorkerId(2), MEASURED);
    let died = |death| SlotEvent::Died(WorkerId(2), death, "it died".into());
    let start = || SlotAction::Start(WorkerId(3), spec(1));
    let stop = || SlotAction::Stop(WorkerId(2));
    let check = |events: Vec<SlotEvent>, phase: Phase, first: Vec<SlotAction>| {
        let mut life = Life::new();
        life.until_serving(1).on(SlotEvent::Want(swap(2))).on(SlotEvent::Fetched);
        life.through(events);
        assert_eq!((life.slot.phase(), life.answering()), (phase, Some(1)));
        let process = |action: &&SlotAction| !matches!(action, SlotAction::Tell(..) | SlotAction::Remember(..));
        let seen: Vec<_> = life.last.iter().filter(process).cloned().collect();
        assert_eq!(seen, first);
        life.on(SlotEvent::Started(WorkerId(3)));
        assert_eq!(life.last, [SlotAction::Route(WorkerId(3), spec(1))]);
    };
    let failed = SlotEvent::CheckFailed(WorkerId(2), RefusalKind::CannotLoad, "no".into());
    check(vec![failed], Phase::Refused, vec![start()]);
    check(vec![SlotEvent::CheckStopped(WorkerId(2), "no memory".into())], Phase::Checking, vec![start()]);
    check(vec![died(Death::Killed)], Phase::Checking, vec![start()]);
    check(vec![SlotEvent::WantRefused(swap(2), "no".into())], Phase::Refused, vec![stop(), start()]);
    check(vec![SlotEvent::Want(spec(1))], Phase::Serving, vec![stop(), start()]);
    check(vec![SlotEvent::Want(spec(3))], Phase::Fetching, vec![stop(), start(), SlotAction::Fetch(spec(3))]);
    check(vec![passed(), died(Death::Crashed)], Phase::Refused, vec![SlotAction::Unroute, start()]);
    check(vec![passed(), died(Death::OutOfMemory)], Phase::Refused, vec![SlotAction::Unroute, start()]);
    let back = || vec![SlotAction::Unroute, stop(), start()];
    check(vec![passed(), SlotEvent::Want(spec(1))], Phase::Serving, back());
    check(
        vec![passed(), SlotEvent::Want(spec(3))],
        Phase::Fetching,
        [back(), vec![SlotAction::Fetch(spec(3))]].concat(),
    );
}

#[test]
fn a_check_that_stops_the_old_version_is_tried_again_less_often() {
    let wait_ms = |target: SlotSpec| {
        let mut life = Life::new();
        life.until_serving(1).on(SlotEvent::Want(target)).on(SlotEvent::Fetched);
        life.on(SlotEvent::CheckStopped(WorkerId(2), "no memory".into()));
        life.slot.next_deadline_ms().expect("a retry") - life.now_ms
    };
    assert_eq!((wait_ms(spec(2)), wait_ms(swap(2))), (1_000, 1_000 * PARKED_RETRY_FACTOR));
    // When its time has come, the old version makes room once more.
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(swap(2))).on(SlotEvent::Fetched);
    life.on(SlotEvent::CheckStopped(WorkerId(2), "no memory".into())).on(SlotEvent::Started(WorkerId(3)));
    life.at(life.slot.next_deadline_ms().expect("a retry"));
    let check = SlotAction::Check(WorkerId(4), swap(2));
    assert_eq!(life.last, [SlotAction::Unroute, SlotAction::Stop(WorkerId(3)), check]);
}

#[test]
fn what_made_room_and_is_not_wanted_any_more_is_gone() {
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(swap(2))).on(SlotEvent::Fetched).on(SlotEvent::Unwant);
    assert_eq!(life.last, [SlotAction::Unroute, SlotAction::Stop(WorkerId(2)), SlotAction::Prove(None)]);
    assert_eq!(life.slot, Slot::Empty);
}

#[test]
fn a_reboot_starts_the_proven_version_unchecked() {
    let mut workers = 0;
    let (slot, actions) = Slot::restored(spec(1), &mut Step { now_ms: 0, next_worker: &mut workers });
    assert_eq!(actions, [SlotAction::Start(WorkerId(1), spec(1))]);
    assert_eq!(slot.phase(), Phase::Serving);
}

fn distrust(versions: &[u64]) -> SlotEvent {
    SlotEvent::Distrust(
        versions.iter().map(|version| spec(*version).manifest).collect(),
        "its key is compromised".into(),
    )
}

#[test]
fn a_distrusted_version_stops_and_a_trusted_one_takes_over() {
    // Alone it stops, is forgotten, and stays wanted.
    let mut life = Life::new();
    life.until_serving(1).on(distrust(&[1]));
    assert_eq!(life.last[..3], [SlotAction::Prove(None), SlotAction::Unroute, SlotAction::Stop(WorkerId(1))]);
    assert!(matches!(life.last[3..], [SlotAction::Tell(EventKind::Distrusted, _)]));
    assert!(life.slot.phase() == Phase::Refused && life.slot.runnings().is_empty());
    // In probation it gives way to the version before it, which stays proven.
    let mut life = Life::new();
    life.until_serving(1).until_probation(2).on(distrust(&[2]));
    assert_eq!(life.last[..2], [SlotAction::Route(WorkerId(1), spec(1)), SlotAction::Stop(WorkerId(2))]);
    assert_eq!(life.slot.answering().map(|running| running.spec.version.get()), Some(1));
    // The version kept beside it is forgotten, and the new one answers on.
    let mut life = Life::new();
    life.until_serving(1).until_probation(2).on(distrust(&[1]));
    assert_eq!(life.last[..2], [SlotAction::Prove(None), SlotAction::Stop(WorkerId(1))]);
    assert_eq!(life.slot.phase(), Phase::Probation);
    // What made room for it is started again.
    let mut life = Life::new();
    life.until_serving(1).on(SlotEvent::Want(swap(2))).on(SlotEvent::Fetched).on(distrust(&[2]));
    assert!(life.last.contains(&SlotAction::Start(WorkerId(3), spec(1))), "{:?}", life.last);
    // What is trusted does not notice.
    let mut life = Life::new();
    life.until_serving(1).on(distrust(&[2]));
    assert!(life.last.is_empty() && life.slot.phase() == Phase::Serving);
}

/// What an event of the random story is about.
#[derive(Debug, Clone)]
struct Chance {
    event: u8,
    version: u64,
    attempt: u32,
    /// Which of the newest workers.
    back: u64,
    passed_ms: u64,
}

fn chance() -> impl Strategy<Value = Chance> {
    (0u8..24, 1u64..4, 0u32..3, 0u64..3, 0u64..1_500).prop_map(|(event, version, attempt, back, passed_ms)| Chance {
        event,
        version,
        attempt,
        back,
        passed_ms,
    })
}

/// The processes, the doors and the journal as a driver would have them.
#[derive(Default)]
struct Machine {
    /// Every worker that was begun and did not end; whether its check is still to come out.
    alive: BTreeMap<WorkerId, bool>,
    /// The worker that doors send to.
    routed: Option<WorkerId>,
    proven: Option<u64>,
    refused: BTreeMap<u64, u32>,
    /// Versions that are believed no more.
    distrusted: BTreeSet<u64>,
}

impl Machine {
    /// The event that this chance stands for; none where no driver would tell of it. What a worker
    /// said before it was stopped may still come.
    fn event(&mut self, chance: &Chance, newest: u64, spec: SlotSpec) -> Option<SlotEvent> {
        let worker = WorkerId(newest.saturating_sub(chance.back));
        let checking = self.alive.get(&worker).copied();
        let mut ends = |event, when: bool| {
            if when {
                self.alive.remove(&worker);
            }
            (when || checking.is_none()).then_some(event)
        };
        Some(match chance.event {
            0..=3 if self.distrusted.contains(&chance.version) => SlotEvent::WantRefused(spec, "distrusted".into()),
            0..=3 => match self.refused.get(&chance.version) {
                Some(attempt) if spec.attempt <= *attempt => SlotEvent::WantRefused(spec, "before".into()),
                _ => SlotEvent::Want(spec),
            },
            4 => SlotEvent::Unwant,
            5..=7 => SlotEvent::Fetched,
            8..=10 => {
                self.alive.entry(worker).and_modify(|checking| *checking = false);
                (checking != Some(false)).then_some(SlotEvent::CheckPassed(worker, MEASURED))?
            }
            11 => {
                let failed = SlotEvent::CheckFailed(worker, RefusalKind::GoldenMismatch, "bad".into());
                ends(failed, checking == Some(true))?
            }
            12 => ends(SlotEvent::CheckStopped(worker, "busy".into()), checking == Some(true))?,
            13 => (checking != Some(true)).then_some(SlotEvent::Started(worker))?,
            14 => ends(SlotEvent::Died(worker, Death::Crashed, "crash".into()), checking.is_some())?,
            15 => ends(SlotEvent::Died(worker, Death::OutOfMemory, "memory".into()), checking.is_some())?,
            16 => ends(SlotEvent::Died(worker, Death::Killed, "kill".into()), checking.is_some())?,
            17 => SlotEvent::Untrusted("nobody".into()),
            20 => {
                // Now and then one more, and what was said before is said again.
                self.distrusted.insert(chance.version);
                let bundles = self.distrusted.iter().map(|version| self::spec(*version).manifest).collect();
                SlotEvent::Distrust(bundles, "its key is compromised".into())
            }
            21 => SlotEvent::FetchAgain,
            _ => SlotEvent::Tick,
        })
    }

    /// Carries out one action, which must make sense.
    fn carry_out(&mut self, action: &SlotAction) -> Result<(), TestCaseError> {
        if let SlotAction::Check(_, spec) | SlotAction::Start(_, spec) | SlotAction::Route(_, spec) = action {
            prop_assert!(!self.distrusted.contains(&spec.version.get()), "distrusted, and yet {action:?}");
        }
        match action {
            SlotAction::Check(worker, spec) => {
                let refused = self.refused.get(&spec.version.get());
                prop_assert!(refused.is_none_or(|attempt| spec.attempt > *attempt), "checked again: {spec:?}");
                prop_assert!(!spec.swap_in_place || self.alive.is_empty(), "no room was made");
                prop_assert_eq!(self.alive.insert(*worker, true), None);
            }
            SlotAction::Start(worker, _) => prop_assert_eq!(self.alive.insert(*worker, false), None),
            SlotAction::Stop(worker) => {
                prop_assert!(self.alive.remove(worker).is_some(), "{worker:?} is stopped without being there");
                prop_assert!(self.routed != Some(*worker), "{worker:?} is stopped while doors send to it");
            }
            SlotAction::Route(worker, _) => {
                prop_assert_eq!(self.alive.get(worker), Some(&false), "{:?} is routed to", worker);
                self.routed = Some(*worker);
            }
            SlotAction::Unroute => self.routed = None,
            SlotAction::Remember(spec, ..) => {
                self.refused.insert(spec.version.get(), spec.attempt);
            }
            SlotAction::Prove(spec) => self.proven = spec.as_ref().map(|spec| spec.version.get()),
            SlotAction::Fetch(_) | SlotAction::StopFetch | SlotAction::Tell(..) => {}
        }
        Ok(())
    }

    /// What holds after every step.
    fn check(&self, slot: &Slot) -> Result<(), TestCaseError> {
        let is_distrusted = |version: &u64| self.distrusted.contains(version);
        let mut running = slot.runnings().into_iter().map(|running| running.spec.version.get());
        prop_assert!(!running.any(|version| is_distrusted(&version)), "a distrusted version is kept: {slot:?}");
        prop_assert!(!self.proven.as_ref().is_some_and(is_distrusted), "a reboot would bring back {:?}", self.proven);
        let of_runnings = slot.runnings().into_iter().filter(|running| running.has_worker());
        let mut known: BTreeSet<_> = of_runnings.map(|running| running.worker).collect();
        if let Slot::Checking { child, .. } = slot {
            known.extend(child.worker());
        }
        let alive: BTreeSet<_> = self.alive.keys().copied().collect();
        prop_assert!(alive == known && alive.len() <= 2, "alive {alive:?}, known {known:?}");
        if let Some(routed) = self.routed.filter(|routed| self.alive.contains_key(routed)) {
            prop_assert_eq!(slot.answering().map(|running| running.worker), Some(routed));
        }
        if let Some(up) = slot.answering().filter(|running| running.is_up()) {
            prop_assert_eq!(self.routed, Some(up.worker), "it answers and nobody asks it");
        }
        if slot.runnings().iter().any(|running| running.is_parked()) {
            let another = matches!(slot, Slot::Checking { child: Child::Running { .. }, .. } | Slot::Probation { .. });
            prop_assert!(another, "parked for nobody: {slot:?}");
        }
        if let Some(proven) = self.proven {
            let kept = slot.runnings().iter().any(|running| running.spec.version.get() == proven);
            prop_assert!(kept, "the proven version {proven} is lost: {slot:?}");
        }
        Ok(())
    }
}

fn live(chances: &[Chance], swaps: impl Fn(&Chance) -> bool, alive_max: usize) -> Result<(), TestCaseError> {
    let (mut life, mut machine) = (Life::new(), Machine::default());
    let unwant = Chance { event: 4, version: 1, attempt: 0, back: 0, passed_ms: 0 };
    for chance in chances.iter().chain([&unwant]) {
        life.now_ms += chance.passed_ms;
        let wanted = SlotSpec { attempt: chance.attempt, swap_in_place: swaps(chance), ..spec(chance.version) };
        let Some(event) = machine.event(chance, life.workers, wanted) else { continue };
        life.on(event);
        for action in &life.last {
            machine.carry_out(action)?;
            prop_assert!(machine.alive.len() <= alive_max, "{action:?} makes {:?}", machine.alive);
        }
        machine.check(&life.slot)?;
    }
    prop_assert_eq!(life.slot, Slot::Empty);
    prop_assert_eq!((machine.alive.len(), machine.routed, machine.proven), (0, None, None));
    Ok(())
}

proptest! {
    /// Whatever happens in whatever order: each worker that was begun ends once, doors send only to
    /// one that is there, what was remembered is not checked again and what was proven is not lost.
    #[test]
    fn no_worker_and_no_proven_version_is_lost(chances in prop::collection::vec(chance(), 0..120)) {
        live(&chances, |chance| chance.version == 2, 2)?;
    }

    /// Where two do not fit, there are never two; and what made room comes back or is replaced.
    #[test]
    fn where_two_do_not_fit_there_are_never_two(chances in prop::collection::vec(chance(), 0..120)) {
        live(&chances, |_| true, 1)?;
    }
}
