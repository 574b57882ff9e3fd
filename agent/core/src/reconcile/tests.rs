//! The agent told as stories.

use std::collections::BTreeMap;

use muster_shared::reported::{Measured, Phase};
use muster_shared::root::Root;
use muster_shared::signing::payload_type;
use muster_shared::wire::encode;

use super::*;
use crate::slot::Death;
use crate::testing::{self, DIRECTOR, PUBLISHER, key, spec};

pub(super) const NONCE: Nonce = Nonce([7; 16]);

fn root_envelope(version: u64, epoch: u64) -> Envelope {
    testing::signed(&Root { version, epoch, ..testing::root() })
}

/// What a director has this device run.
pub(super) fn wanted(epoch: u64, number: u64, slots: &[SlotSpec]) -> Desired {
    Desired {
        fleet: "home".parse().unwrap(),
        device: "edge-1".parse().unwrap(),
        fingerprint: Digest::of("key"),
        generation: Generation { epoch, number },
        issued_ms: 0,
        expires_ms: 1_000_000,
        nonce: Some(NONCE),
        root_version: 1,
        slots: slots.to_vec(),
    }
}

pub(super) fn desired(epoch: u64, number: u64, slots: &[SlotSpec]) -> Envelope {
    let desired = wanted(epoch, number, slots);
    Envelope::sign(payload_type::DESIRED, encode(&desired).unwrap(), &[&key(DIRECTOR)])
}

pub(super) fn agent(proven: Vec<SlotSpec>, refusals: Vec<Refusal>) -> (Agent, Vec<Action>) {
    let restored = Restored {
        identity: Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") },
        version: "0.1.0".into(),
        root: testing::trusted(&testing::root()),
        clock: Clock::new(0, 0),
        watermark: Watermark::default(),
        watermark_unknown: None,
        software: testing::software(),
        limits: OwnerLimits::default(),
        desired: None,
        proven: proven.into_iter().map(proven_here).collect(),
        refusals,
    };
    let (mut agent, actions) = Agent::restored(restored, 0);
    agent.step(Event::HelloSaid(NONCE), 0);
    agent.step(Event::Connected, 0);
    (agent, actions)
}

/// A version that was proven on this device, signed by the publisher.
fn proven_here(spec: SlotSpec) -> Proven {
    Proven { spec, signers: vec![key(PUBLISHER).public().id()], files: BTreeMap::new() }
}

/// Offers a desired state, and keeps what is to be kept before it is taken.
pub(super) fn offer(agent: &mut Agent, desired: Envelope, now_ms: UnixMs) -> Vec<Action> {
    let mut actions = agent.step(Event::DesiredOffered(desired), now_ms);
    if let [Action::KeepWatermark(watermark)] = &actions[..] {
        actions = agent.step(Event::WatermarkKept(watermark.desired), now_ms);
    }
    actions
}

pub(super) fn phase(agent: &Agent, deployment: &str) -> Option<Phase> {
    agent.slot(&deployment.parse().unwrap()).map(Slot::phase)
}

#[test]
fn a_desired_state_is_durable_before_anything_follows_from_it() {
    let (mut agent, _) = agent(vec![], vec![]);
    let offered = desired(1, 1, &[spec("digits", 1)]);
    let actions = offer(&mut agent, offered.clone(), 0);
    assert_eq!(actions[0], Action::SaveDesired(offered));
    assert!(actions.iter().any(|action| matches!(action, Action::Fetch(FetchAction::Look { .. }))));
    assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
}

#[test]
fn a_replayed_desired_state_changes_nothing_and_is_reported() {
    let (mut agent, _) = agent(vec![], vec![]);
    offer(&mut agent, desired(1, 5, &[spec("digits", 1)]), 0);
    let actions = offer(&mut agent, desired(1, 4, &[]), 0);
    assert!(matches!(actions[..], [Action::Tell(EventKind::DesiredRefused, ..), Action::Report]));
    assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
    let refused = agent.desired_refused().expect("reported");
    assert_eq!(refused.generation, Some(Generation { epoch: 1, number: 4 }));
    // The next good one clears it.
    offer(&mut agent, desired(1, 6, &[]), 0);
    assert_eq!((agent.desired_refused(), phase(&agent, "digits")), (None, None));
}

#[test]
fn a_proven_version_starts_before_any_network_and_survives_an_unchanged_desired_state() {
    let (mut agent, actions) = agent(vec![spec("digits", 1)], vec![]);
    assert_eq!(actions, [Action::Start(WorkerId(1), spec("digits", 1))]);
    agent.step(Event::Slot("digits".parse().unwrap(), SlotEvent::Started(WorkerId(1))), 1);
    let actions = offer(&mut agent, desired(1, 1, &[spec("digits", 1)]), 2);
    assert!(!actions.iter().any(|action| matches!(action, Action::Stop(_) | Action::Check(..) | Action::Fetch(_))));
    assert_eq!(phase(&agent, "digits"), Some(Phase::Serving));
}

#[test]
fn a_refused_bundle_is_not_fetched_again_also_after_a_restart() {
    let (mut first, _) = agent(vec![], vec![]);
    offer(&mut first, desired(1, 1, &[spec("digits", 1)]), 0);
    let digits: DeploymentName = "digits".parse().unwrap();
    first.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
    let failed = SlotEvent::CheckFailed(WorkerId(1), RefusalKind::GoldenMismatch, "y differs".into());
    let actions = first.step(Event::Slot(digits, failed), 0);
    let Some(Action::SaveRefusals(saved)) = actions.first() else { panic!("{actions:?}") };

    let (mut second, _) = agent(vec![], saved.clone());
    let actions = offer(&mut second, desired(1, 2, &[spec("digits", 1)]), 0);
    assert!(!actions.iter().any(|action| matches!(action, Action::Fetch(_))));
    assert_eq!(phase(&second, "digits"), Some(Phase::Refused));
    // Another agent version may manage.
    let mut older = saved.clone();
    older[0].agent = "0.0.9".into();
    let (mut third, _) = agent(vec![], older);
    offer(&mut third, desired(1, 2, &[spec("digits", 1)]), 0);
    assert_eq!(phase(&third, "digits"), Some(Phase::Fetching));
}

#[test]
fn a_refusal_counts_until_something_it_was_proven_with_changes() {
    let wanted = |attempt, memory_bytes| {
        let mut spec = SlotSpec { attempt, ..spec("digits", 1) };
        spec.resources.memory_bytes = memory_bytes;
        spec
    };
    // Each is refused in its second attempt, with 64 bytes, by this agent.
    let check = |kind, agent: &str, wanted: SlotSpec, phase_then| {
        let refusal = Refusal {
            bundle: bundle_of(&wanted),
            agent: agent.into(),
            attempt: 1,
            memory_bytes: 64,
            kind,
            reason: "it was proven".into(),
            at_ms: 0,
        };
        let (mut agent, _) = self::agent(vec![], vec![refusal]);
        let actions = offer(&mut agent, desired(1, 1, std::slice::from_ref(&wanted)), 0);
        assert_eq!(phase(&agent, "digits"), Some(phase_then), "{kind:?} {wanted:?}");
        let fetches = actions.iter().any(|action| matches!(action, Action::Fetch(_)));
        assert_eq!(fetches, phase_then == Phase::Fetching);
    };
    let (counts, does_not) = (Phase::Refused, Phase::Fetching);
    use RefusalKind::*;
    for kind in [GoldenMismatch, CannotLoad, CrashedInProbation, TooMuchMemoryInProbation] {
        check(kind, "0.1.0", wanted(1, 64), counts);
        check(kind, "0.1.0", wanted(0, 64), counts);
        check(kind, "0.1.0", wanted(2, 64), does_not);
        check(kind, "0.0.9", wanted(1, 64), does_not);
        check(kind, "0.1.0", wanted(1, 63), counts);
    }
    check(TooMuchMemoryInProbation, "0.1.0", wanted(1, 65), does_not);
    check(CrashedInProbation, "0.1.0", wanted(1, 65), counts);
}

#[test]
fn what_ran_out_of_memory_in_probation_is_remembered_with_its_attempt_and_its_grant() {
    let mut wanted = SlotSpec { attempt: 3, probation_ms: 1_000, ..spec("digits", 1) };
    wanted.resources.memory_bytes = 64;
    let (mut agent, _) = agent(vec![], vec![]);
    let digits: DeploymentName = "digits".parse().unwrap();
    offer(&mut agent, desired(1, 1, std::slice::from_ref(&wanted)), 0);
    agent.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
    let measured = Measured { memory_peak_bytes: 1, latency_us: 2 };
    agent.step(Event::Slot(digits.clone(), SlotEvent::CheckPassed(WorkerId(1), measured)), 0);
    let died = SlotEvent::Died(WorkerId(1), Death::OutOfMemory, "more than 64 bytes".into());
    let actions = agent.step(Event::Slot(digits, died), 5);
    let [refusal] = agent.refusals() else { panic!("{:?}", agent.refusals()) };
    assert!(actions.contains(&Action::SaveRefusals(vec![refusal.clone()])));
    assert_eq!((refusal.kind, refusal.attempt), (RefusalKind::TooMuchMemoryInProbation, 3));
    assert_eq!((refusal.memory_bytes, refusal.at_ms), (64, 5));
    // The operator wants it tried again: `rollout resume`.
    offer(&mut agent, desired(1, 2, &[SlotSpec { attempt: 4, ..wanted }]), 6);
    assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
}

#[test]
fn the_next_root_is_saved_and_a_new_epoch_outranks_the_old_generations() {
    let (mut agent, _) = agent(vec![], vec![]);
    offer(&mut agent, desired(1, 900, &[]), 0);
    let next = root_envelope(2, 2);
    let actions = agent.step(Event::TrustOffered(next.clone()), 0);
    assert_eq!(actions[0], Action::SaveRoot(2, next.clone()));
    assert!(actions.contains(&Action::SayHello));
    assert!(agent.step(Event::TrustOffered(next), 0).is_empty());
    offer(&mut agent, desired(1, 901, &[]), 0);
    assert!(agent.desired_refused().is_some());
    offer(&mut agent, desired(2, 1, &[]), 0);
    assert_eq!(agent.held().map(|held| held.generation), Some(Generation { epoch: 2, number: 1 }));
}

#[test]
fn what_answers_is_reported_only_while_its_worker_is_up() {
    let (mut agent, _) = agent(vec![], vec![]);
    let digits: DeploymentName = "digits".parse().unwrap();
    offer(&mut agent, desired(1, 1, &[spec("digits", 1)]), 0);
    agent.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
    let measured = Measured { memory_peak_bytes: 1, latency_us: 2 };
    agent.step(Event::Slot(digits.clone(), SlotEvent::CheckPassed(WorkerId(1), measured)), 0);
    let report = &agent.slot_reports()[0];
    assert_eq!((report.phase, report.running.is_some(), report.measured), (Phase::Probation, true, Some(measured)));
    let died = SlotEvent::Died(WorkerId(1), Death::Killed, "killed".into());
    agent.step(Event::Slot(digits, died), 5);
    let report = &agent.slot_reports()[0];
    assert!(report.running.is_none() && report.waiting.is_some());
}
