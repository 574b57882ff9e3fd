//! A status in each phase of a deployment's life.

use std::sync::Arc;

use muster_shared::api::deployment::Spec;
use muster_shared::desired::{BlobRef, Resources};
use muster_shared::id::BootId;
use muster_shared::reported::{BundleRef, Refusal, RefusalKind, SlotReport};
use muster_shared::{Digest, Version};

use super::*;
use crate::trust::ca::tests::device_key;

fn version(number: u64) -> Version {
    Version::new(number).expect("positive")
}

fn manifest(number: u64) -> Digest {
    Digest::of(number.to_be_bytes())
}

fn record(replicas: u32) -> DeploymentRecord {
    let spec = serde_json::json!({"model": "digits", "replicas": replicas});
    let spec: Spec = serde_json::from_value(spec).expect("a spec");
    DeploymentRecord { name: "a".parse().expect("a name"), generation: 2, labels: Default::default(), spec }
}

pub(crate) fn slot(number: u64) -> SlotSpec {
    SlotSpec {
        deployment: "a".parse().expect("a name"),
        served_as: None,
        model: "digits".parse().expect("a name"),
        version: version(number),
        manifest: manifest(number),
        envelope: BlobRef { sha256: manifest(number), bytes: 1 },
        variant: "fp32".parse().expect("a name"),
        resources: Resources { cpu_milli: 250, memory_bytes: 1 },
        probation_ms: 0,
        attempt: 0,
        swap_in_place: false,
        floor: None,
    }
}

fn bundle(number: u64) -> BundleRef {
    BundleRef { model: "digits".parse().expect("a name"), version: version(number), manifest: manifest(number) }
}

fn report(phase: Phase, wanted: u64, running: Option<u64>, waiting: Option<&str>) -> Reported {
    Reported {
        device: "edge-1".parse().expect("an id"),
        boot: BootId([0; 16]),
        sequence: 1,
        at_ms: 1,
        root_version: 1,
        applied: None,
        desired_refused: None,
        facts: Default::default(),
        slots: vec![SlotReport {
            deployment: "a".parse().expect("a name"),
            phase,
            wanted: Some(bundle(wanted)),
            running: running.map(bundle),
            waiting: waiting.map(str::to_owned),
            restarts: 0,
            measured: None,
        }],
        refusals: vec![],
        floors: vec![],
        health: Default::default(),
        notes: vec![],
    }
}

/// One replica of version 2 on edge-1, which said this.
fn facts(connected: bool, reported: Option<Reported>) -> Facts {
    let id: DeviceId = "edge-1".parse().expect("an id");
    let live = crate::live::Live::new("cp-1".parse().expect("an id"), vec![], Default::default());
    live.enrolled(&id, &device_key().1);
    live.change(&id, |live| {
        live.connected = connected;
        live.reported = reported.map(Arc::new);
    });
    let verdict = Verdict { generation: 2, version: Some(version(2)), wanted: 1, waiting: None };
    let name: DeploymentName = "a".parse().expect("a name");
    Facts {
        placements: [(id, [(name.clone(), slot(2))].into())].into(),
        verdicts: [(name.clone(), verdict)].into(),
        notes: BTreeMap::new(),
        rollouts: BTreeMap::new(),
        liveness: Liveness::default(),
        sums: BTreeMap::new(),
        conditions: [((name, AVAILABLE.to_owned()), Held { holds: true, since_ms: 7 })].into(),
        devices: live.read(Clone::clone),
        restored: None,
        now_ms: 100,
    }
}

fn check(facts: &Facts, ready: u32, available: (bool, &str, &str)) {
    let status = status(&record(1), facts);
    assert_eq!((status.ready, status.wanted, status.observed_generation), (ready, 1, 2));
    let condition = &status.conditions[1];
    assert_eq!((condition.status, condition.reason.as_str(), condition.message.as_str()), available);
    assert_eq!(condition.since_ms, if available.0 { 7 } else { 100 });
}

#[test]
fn a_replica_is_ready_when_it_answers_with_what_is_wanted() {
    let (serving, probation, fetching) = (Phase::Serving, Phase::Probation, Phase::Fetching);
    let good = (true, "Serving", "1 of 1 replicas answer");
    check(&facts(true, Some(report(serving, 2, Some(2), None))), 1, good);
    check(&facts(true, Some(report(probation, 2, Some(2), None))), 1, good);
    let fetches = (false, "Progressing", "0 of 1 replicas answer; edge-1: fetching");
    check(&facts(true, Some(report(fetching, 2, Some(1), None))), 0, fetches);
    let waits = (false, "Progressing", "0 of 1 replicas answer; edge-1: the disk is full");
    check(&facts(true, Some(report(fetching, 2, None, Some("the disk is full")))), 0, waits);
    let away = (false, "Progressing", "0 of 1 replicas answer; edge-1: the device is not connected");
    check(&facts(false, Some(report(serving, 2, Some(2), None))), 0, away);
    let silent = (false, "Progressing", "0 of 1 replicas answer; edge-1: not started");
    check(&facts(true, None), 0, silent);
    check(&facts(true, Some(report(serving, 1, Some(1), None))), 0, silent);
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let mut refused = report(Phase::Refused, 2, Some(1), None);
    refused.refusals = vec![Refusal {
        bundle: bundle(2),
        agent: "0.1.0".into(),
        attempt: 0,
        memory_bytes: 1,
        kind: RefusalKind::GoldenMismatch,
        reason: "golden vectors: row 2 is off by 0.5".into(),
        at_ms: 1,
    }];
    let message = "0 of 1 replicas answer; edge-1: refused version 2: golden vectors: row 2 is off by 0.5";
    check(&facts(true, Some(refused)), 0, (false, "Refused", message));
    let mut desired = report(Phase::Serving, 1, Some(1), None);
    desired.desired_refused = Some(muster_shared::reported::DesiredRefused {
        generation: None,
        reason: "the signature does not hold".into(),
        at_ms: 1,
    });
    let message =
        "0 of 1 replicas answer; edge-1: the device did not take its desired state: the signature does not hold";
    check(&facts(true, Some(desired)), 0, (false, "Progressing", message));
}

#[test]
fn what_waits_for_a_place_is_neither_placed_nor_available() {
    let mut facts = facts(true, None);
    facts.placements.clear();
    let waiting = Some(("NoDeviceMatches".to_owned(), "no device matches site=north".to_owned()));
    for verdict in facts.verdicts.values_mut() {
        verdict.waiting = waiting.clone();
    }
    check(&facts, 0, (false, "NoDeviceMatches", "no device matches site=north"));
    assert_eq!(why_not_available(&status(&record(1), &facts)).as_deref(), Some("no device matches site=north"));
    // A spec that is newer than the plan.
    for verdict in facts.verdicts.values_mut() {
        verdict.generation = 1;
    }
    let status = status(&record(1), &facts);
    assert_eq!((status.observed_generation, status.conditions[0].reason.as_str()), (1, "Planning"));
}
