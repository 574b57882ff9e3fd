//! A slot's life told as stories, and the promises that hold in every one.

use proptest::prelude::*;

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

    fn at(&mut self, now_ms: UnixMs) -> &mut Self {
        self.now_ms = now_ms;
        self.on(SlotEvent::Tick)
    }

    /// Brings `version` to probation.
    fn until_probation(&mut self, version: u64) -> &mut Self {
        self.on(SlotEvent::Want(spec(version))).on(SlotEvent::Fetched);
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
fn a_kill_in_probation_proves_nothing_and_the_watch_begins_again() {
    let mut life = Life::new();
    life.until_serving(1).until_probation(2);
    life.on(SlotEvent::Died(life.worker(), Death::Killed, "killed".into()));
    assert!(!life.last.iter().any(|action| matches!(action, SlotAction::Remember(..))));
    life.at(1_500);
    assert!(matches!(life.last[..], [SlotAction::Start(..)]));
    life.on(SlotEvent::Started(life.worker()));
    assert_eq!((life.slot.phase(), life.answering()), (Phase::Probation, Some(2)));
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
    life.at(life.slot.next_deadline_ms().expect("a retry"));
    assert_eq!(life.last, [SlotAction::Check(WorkerId(2), spec(1))]);
}

#[test]
fn a_reboot_starts_the_proven_version_unchecked() {
    let mut workers = 0;
    let (slot, actions) = Slot::restored(spec(1), &mut Step { now_ms: 0, next_worker: &mut workers });
    assert_eq!(actions, [SlotAction::Start(WorkerId(1), spec(1))]);
    assert_eq!(slot.phase(), Phase::Serving);
}

fn any_event() -> impl Strategy<Value = u8> {
    0u8..12
}

proptest! {
    /// Whatever happens in whatever order: every worker that was begun is known or stopped, what
    /// was remembered is never checked again, and only a version that served is ever proven.
    #[test]
    fn no_worker_is_lost_and_nothing_unproven_survives(events in prop::collection::vec((any_event(), 1u64..4, 0u64..1_500), 0..120)) {
        let mut life = Life::new();
        let mut alive = std::collections::BTreeSet::new();
        let mut served = std::collections::BTreeSet::new();
        let mut refused = std::collections::BTreeSet::new();
        for (event, version, passed_ms) in events {
            life.now_ms += passed_ms;
            let newest = WorkerId(life.workers);
            let current = life.slot.answering().map_or(newest, |running| running.worker);
            let event = match event {
                0 | 1 if refused.contains(&version) => SlotEvent::WantRefused(spec(version), "before".into()),
                0 | 1 => SlotEvent::Want(spec(version)),
                2 => SlotEvent::Unwant,
                3 => SlotEvent::Fetched,
                4 => SlotEvent::CheckPassed(newest, MEASURED),
                5 => SlotEvent::CheckFailed(newest, RefusalKind::GoldenMismatch, "bad".into()),
                6 => SlotEvent::CheckStopped(newest, "busy".into()),
                7 => SlotEvent::Started(current),
                8 => SlotEvent::Died(current, Death::Crashed, "crash".into()),
                9 => SlotEvent::Died(newest, Death::Killed, "kill".into()),
                10 => SlotEvent::Untrusted("nobody".into()),
                _ => SlotEvent::Tick,
            };
            if let SlotEvent::CheckFailed(worker, ..) | SlotEvent::CheckStopped(worker, _) | SlotEvent::Died(worker, ..) = &event {
                alive.remove(worker);
            }
            life.on(event);
            for action in &life.last {
                match action {
                    SlotAction::Check(worker, spec) => {
                        prop_assert!(!refused.contains(&spec.version.get()));
                        alive.insert(*worker);
                    }
                    SlotAction::Start(worker, _) => { alive.insert(*worker); }
                    SlotAction::Stop(worker) => { alive.remove(worker); }
                    SlotAction::Route(_, spec) => { served.insert(spec.version.get()); }
                    SlotAction::Remember(spec, ..) => { refused.insert(spec.version.get()); }
                    SlotAction::Prove(Some(spec)) => prop_assert!(served.contains(&spec.version.get())),
                    _ => {}
                }
            }
            let mut known: std::collections::BTreeSet<_> = life.slot.runnings().iter().map(|running| running.worker).collect();
            if let Slot::Checking { child: Child::Running { worker, .. }, .. } = &life.slot {
                known.insert(*worker);
            }
            prop_assert!(alive.is_subset(&known), "{alive:?} of {known:?}");
        }
    }
}
