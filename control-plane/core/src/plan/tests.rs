//! Tables of small fleets, and properties of random ones.

use muster_shared::api::deployment::{OnDeviceLoss, Selector, VersionRule};
use muster_shared::api::fleet::Schedule;
use muster_shared::desired::Resources;
use muster_shared::reported::Measured;
use proptest::prelude::*;

use super::*;
use crate::fleet::{Barred, Device, Machine, Presence, Refused, Release, Releases, Replicas, Report};
use crate::testing::*;

/// `a@edge-1:v1 | a@edge-2:v1 leaves: … | b waits: …`; `!` stands behind what is swapped in place.
fn say(plan: &Plan) -> String {
    let mut parts = Vec::new();
    for (device, slots) in &plan.slots {
        parts.extend(slots.iter().map(|(name, slot)| {
            let swap = if slot.swap_in_place { "!" } else { "" };
            let leaving = plan.leaving.get(&(name.clone(), device.clone()));
            let leaves = leaving.map_or(String::new(), |reason| format!(" leaves: {reason}"));
            format!("{name}@{device}:v{}{swap}{leaves}", slot.version)
        }));
    }
    parts.sort();
    parts.extend(plan.waiting.iter().map(|(name, waiting)| format!("{name} waits: {waiting}")));
    parts.join(" | ")
}

fn check(inputs: &Inputs, expected: &str) -> Plan {
    let plan = plan(inputs);
    assert_eq!(say(&plan), expected);
    plan
}

/// Plans, and lets every device that is up do at once what the plan says.
fn obey(inputs: &mut Inputs, expected: &str) -> Plan {
    let plan = remember(inputs, expected);
    for (id, device) in inputs.devices.iter_mut().filter(|(_, device)| device.is_up()) {
        let slots = plan.slots.get(id).cloned().unwrap_or_default();
        device.slots = slots.iter().map(|(name, slot)| (name.clone(), serving(slot.version.get()))).collect();
    }
    plan
}

/// Plans, and remembers the plan; the devices have not done it yet.
fn remember(inputs: &mut Inputs, expected: &str) -> Plan {
    let plan = check(inputs, expected);
    inputs.previous = plan.slots.clone();
    let crowded = plan.leaving.iter().filter(|(_, reason)| matches!(reason, Reason::Crowded(_)));
    inputs.relieved = crowded.map(|(of, _)| of.clone()).collect();
    plan
}

fn change<'a>(inputs: &'a mut Inputs, device: &str) -> &'a mut Device {
    inputs.devices.get_mut(&id(device)).expect("a device")
}

fn two_devices(first_mib: u64, second_mib: u64) -> [(&'static str, Device); 2] {
    [("edge-1", device(first_mib, "north")), ("edge-2", device(second_mib, "north"))]
}

fn changing(from: u64, to: u64, granted: &[&str], memory_mib: u64) -> Option<Releases> {
    let granted = Granted::Only(granted.iter().map(|device| id(device)).collect());
    Some(Releases { target: release(to, memory_mib), previous: Some(release(from, memory_mib)), granted, closed: None })
}

#[test]
fn the_device_with_the_most_room_takes_it() {
    let devices = two_devices(256, 512);
    check(&fleet(&devices, &[("a", wanted(1, 64))], &[1, 2]), "a@edge-2:v2");
    check(&fleet(&devices, &[("a", wanted(2, 64))], &[1]), "a@edge-1:v1 | a@edge-2:v1");
}

#[test]
fn replicas_spread_over_sites_and_then_over_devices() {
    let devices = [
        ("north-1", device(4096, "north")),
        ("north-2", device(4096, "north")),
        ("south-1", device(256, "south")),
        ("south-2", device(512, "south")),
    ];
    let plan = check(&fleet(&devices, &[("a", wanted(2, 64))], &[1]), "a@north-1:v1 | a@south-2:v1");
    let why: Vec<String> = plan.choices.values().map(ToString::to_string).collect();
    assert_eq!(
        why,
        [
            "of 4 devices the one with the most room: 93% stays free",
            "of 3 devices one whose site has the fewest replicas: 0, the next one has 1"
        ]
    );
    check(&fleet(&devices, &[("a", wanted(3, 64))], &[1]), "a@north-1:v1 | a@north-2:v1 | a@south-2:v1");
    // Two deployments do not both crowd the first device.
    let two = [("a", wanted(1, 64)), ("b", wanted(1, 2048))];
    check(&fleet(&devices, &two, &[1]), "a@north-1:v1 | b@north-2:v1");
}

#[test]
fn among_equal_devices_the_measured_speed_decides() {
    let fast = |mib, latency_us| {
        let measured = Some(Measured { memory_peak_bytes: 1, latency_us });
        let slots = reports(&[("other", Report { measured, ..serving(1) })]);
        Device { slots, ..device(mib, "north") }
    };
    let devices = [("edge-1", fast(512, 900)), ("edge-2", fast(512, 300)), ("edge-3", fast(500, 100))];
    let plan = check(&fleet(&devices, &[("a", wanted(1, 64))], &[1]), "a@edge-3:v1");
    let why = plan.choices.values().next().expect("a choice").to_string();
    assert_eq!(why, "of 3 devices the fastest with much room: 0.10 ms for a prediction, 87% stays free");
    // Much more room counts more.
    let devices = [("edge-1", fast(128, 100)), ("edge-2", fast(512, 900))];
    check(&fleet(&devices, &[("a", wanted(1, 64))], &[1]), "a@edge-2:v1");
}

#[test]
fn what_has_no_place_waits_with_a_reason() {
    let one = [("edge-1", device(128, "north"))];
    let none = [];
    check(&fleet(&none, &[("a", wanted(1, 64))], &[1]), "a waits: no device is enrolled yet");
    check(&fleet(&one, &[("a", wanted(1, 64))], &[]), "a waits: model digits has no complete bundle");
    check(&fleet(&one, &[("a", wanted(1, 200))], &[1]), "a waits: edge-1: 200Mi wanted, 128Mi of 128Mi free");
    check(
        &fleet(&one, &[("a", wanted(1, 100)), ("b", wanted(1, 100))], &[1]),
        "a@edge-1:v1 | b waits: edge-1: 100Mi wanted, 28Mi of 128Mi free",
    );
    check(
        &fleet(&one, &[("a", wanted(3, 64))], &[1]),
        "a@edge-1:v1 | a waits: 2 of 3 replicas wait: every matching device already holds one",
    );
    let south = Wanted { selector: Selector { match_labels: labels(&[("site", "south")]) }, ..wanted(1, 64) };
    check(&fleet(&one, &[("a", south)], &[1]), "a waits: no device matches site=south");
    let busy = Wanted { resources: Resources { cpu_milli: 5000, memory_bytes: 1 }, ..wanted(1, 64) };
    check(&fleet(&one, &[("a", busy)], &[1]), "a waits: edge-1: 5 CPU wanted, 4 of 4 free");
}

#[test]
fn a_device_can_be_unfit_in_many_ways() {
    let base = device(512, "north");
    let refused = |memory_bytes| Refused { reason: "golden vectors".to_owned(), attempt: 0, memory_bytes };
    let refuses = |refused| Device { refused: [(manifest(1), refused)].into(), ..base.clone() };
    for (unfit, text) in [
        (Device { schedule: Schedule::Cordoned, ..base.clone() }, "edge-1 is cordoned"),
        (Device { schedule: Schedule::Draining, ..base.clone() }, "edge-1 is being drained"),
        (Device { presence: silent(1, false), ..base.clone() }, "edge-1 is not connected"),
        (Device { presence: silent(1, true), ..base.clone() }, "edge-1 fell silent together with many others"),
        (Device { machine: None, ..base.clone() }, "edge-1 has yet to report"),
        (refuses(refused(None)), "edge-1 refused version 1: golden vectors"),
        (refuses(refused(Some(64 * MIB))), "edge-1 refused version 1: golden vectors"),
        (
            Device { machine: Some(Machine { engines: vec![], ..machine(512) }), ..base.clone() },
            "edge-1 has no engine for this model's format",
        ),
    ] {
        check(&fleet(&[("edge-1", unfit)], &[("a", wanted(1, 64))], &[1]), &format!("a waits: {text}"));
    }
    // With more memory than it needed too much of, it is tried again; so it is in a later attempt.
    check(&fleet(&[("edge-1", refuses(refused(Some(32 * MIB))))], &[("a", wanted(1, 64))], &[1]), "a@edge-1:v1");
    let again = Releases {
        target: Release { attempt: 1, ..release(1, 64) },
        previous: None,
        granted: Granted::All,
        closed: None,
    };
    let again = Wanted { releases: Some(again), ..wanted(1, 64) };
    check(&fleet(&[("edge-1", refuses(refused(None)))], &[("a", again)], &[1]), "a@edge-1:v1");
}

#[test]
fn what_a_model_was_measured_to_need_counts_for_new_places() {
    let measured = Some(Measured { memory_peak_bytes: 100 * MIB, latency_us: 1 });
    let slots = reports(&[("a", Report { measured, ..serving(1) })]);
    let devices = [("edge-1", Device { slots, ..device(128, "north") }), ("edge-2", device(90, "north"))];
    let mut inputs = fleet(&devices, &[("a", wanted(1, 64))], &[1]);
    remember(&mut inputs, "a@edge-1:v1");
    want(&mut inputs, "a", wanted(2, 64));
    // What is there stays; a new place must have what was measured.
    let waits = "a@edge-1:v1 | a waits: 1 of 2 replicas waits: edge-2: 100Mi wanted, 90Mi of 90Mi free";
    check(&inputs, waits);
}

#[test]
fn every_device_that_matches_has_one() {
    let every = Wanted { replicas: Replicas::EveryDevice, ..wanted(0, 64) };
    let devices = two_devices(256, 256);
    let mut inputs = fleet(&devices, &[("a", every)], &[1]);
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1");
    inputs.devices.insert(id("edge-3"), device(256, "north"));
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1 | a@edge-3:v1");
    // A drain of such a device ends, too.
    change(&mut inputs, "edge-2").schedule = Schedule::Draining;
    check(&inputs, "a@edge-1:v1 | a@edge-3:v1");
    change(&mut inputs, "edge-2").schedule = Schedule::Open;
    change(&mut inputs, "edge-3").presence = silent(GRACE_MS, false);
    check(
        &inputs,
        "a@edge-1:v1 | a@edge-2:v1 | a@edge-3:v1 leaves: edge-3 fell silent and did not come back in time | \
         a waits: 1 of 3 replicas waits: edge-3 fell silent and did not come back in time; every other matching device already holds one",
    );
}

#[test]
fn scaling_keeps_who_serves() {
    let devices = [("edge-1", device(256, "n")), ("edge-2", device(1024, "n")), ("edge-3", device(256, "n"))];
    let mut inputs = fleet(&devices, &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-2:v1");
    want(&mut inputs, "a", wanted(3, 64));
    let three = inputs.clone();
    remember(&mut inputs, "a@edge-1:v1 | a@edge-2:v1 | a@edge-3:v1");
    want(&mut inputs, "a", wanted(1, 64));
    check(&inputs, "a@edge-2:v1");
    change(&mut inputs, "edge-2").schedule = Schedule::Cordoned;
    check(&inputs, "a@edge-2:v1");
    // Where all serve, who is cordoned or silent goes first, then the name decides.
    inputs = three;
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1 | a@edge-3:v1");
    change(&mut inputs, "edge-1").presence = silent(0, false);
    change(&mut inputs, "edge-2").schedule = Schedule::Cordoned;
    want(&mut inputs, "a", wanted(1, 64));
    check(&inputs, "a@edge-3:v1");
    want(&mut inputs, "a", wanted(0, 64));
    check(&inputs, "");
    inputs.deployments.clear();
    check(&inputs, "");
}

#[test]
fn a_cordon_moves_nothing_and_lets_nothing_come() {
    let mut inputs = fleet(&two_devices(512, 256), &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").schedule = Schedule::Cordoned;
    want(&mut inputs, "b", wanted(1, 64));
    let plan = check(&inputs, "a@edge-1:v1 | b@edge-2:v1");
    assert_eq!(plan.choices[&(name("a"), id("edge-1"))], Choice::Kept);
}

#[test]
fn a_drain_makes_before_it_breaks() {
    let mut inputs = fleet(&two_devices(512, 256), &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").schedule = Schedule::Draining;
    remember(&mut inputs, "a@edge-1:v1 leaves: edge-1 is being drained | a@edge-2:v1");
    // The new one has yet to serve.
    remember(&mut inputs, "a@edge-1:v1 leaves: edge-1 is being drained | a@edge-2:v1");
    change(&mut inputs, "edge-2").slots = reports(&[("a", serving(1))]);
    check(&inputs, "a@edge-2:v1");
    // An end of the drain before that cancels the move.
    change(&mut inputs, "edge-2").slots.clear();
    change(&mut inputs, "edge-1").schedule = Schedule::Open;
    check(&inputs, "a@edge-1:v1");
}

#[test]
fn without_another_place_a_drained_replica_stays_and_says_why() {
    let mut inputs = fleet(&two_devices(512, 32), &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").schedule = Schedule::Draining;
    let stays = "a@edge-1:v1 leaves: edge-1 is being drained | a waits: edge-1 is being drained; \
                 edge-2: 64Mi wanted, 32Mi of 32Mi free";
    obey(&mut inputs, stays);
    // It keeps up with the others meanwhile.
    inputs.bundles = bundles(&[1, 2]);
    let v2 = Wanted { releases: changing(1, 2, &["edge-1"], 64), ..wanted(1, 64) };
    want(&mut inputs, "a", v2);
    check(&inputs, &stays.replace(":v1", ":v2"));
    // Another replica that is broken does not hold a drain up for ever.
    let devices = [("edge-1", device(512, "n")), ("edge-2", device(512, "n")), ("edge-3", device(512, "n"))];
    let keep = Wanted { on_device_loss: OnDeviceLoss::Keep, ..wanted(2, 64) };
    let mut inputs = fleet(&devices, &[("a", keep)], &[1]);
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1");
    change(&mut inputs, "edge-1").presence = silent(u64::MAX, false);
    change(&mut inputs, "edge-2").schedule = Schedule::Draining;
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1 leaves: edge-2 is being drained | a@edge-3:v1");
    check(&inputs, "a@edge-1:v1 | a@edge-3:v1");
}

#[test]
fn a_lost_device_is_replaced_after_its_grace() {
    let mut inputs = fleet(&two_devices(512, 256), &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").presence = silent(GRACE_MS - 1, false);
    check(&inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").presence = silent(GRACE_MS, false);
    let moving = "a@edge-1:v1 leaves: edge-1 fell silent and did not come back in time | a@edge-2:v1";
    remember(&mut inputs, moving);
    let before = inputs.clone();
    // Back before the other one serves: the move is cancelled.
    change(&mut inputs, "edge-1").presence = Presence::Up { for_ms: 0 };
    obey(&mut inputs, "a@edge-1:v1");
    // Back after: nothing moves.
    inputs = before;
    obey(&mut inputs, moving);
    obey(&mut inputs, "a@edge-2:v1");
    change(&mut inputs, "edge-1").presence = Presence::Up { for_ms: 3_600_000 };
    let plan = check(&inputs, "a@edge-2:v1");
    assert!(plan.choices.values().all(|choice| *choice == Choice::Kept));
}

#[test]
fn silence_of_many_and_the_operators_wish_keep_a_replica_where_it_is() {
    let mut inputs = fleet(&two_devices(512, 256), &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").presence = silent(u64::MAX, true);
    check(&inputs, "a@edge-1:v1");
    change(&mut inputs, "edge-1").presence = silent(u64::MAX, false);
    want(&mut inputs, "a", Wanted { on_device_loss: OnDeviceLoss::Keep, ..wanted(1, 64) });
    check(&inputs, "a@edge-1:v1");
}

#[test]
fn two_moves_end_one_by_one() {
    let devices = ["edge-1", "edge-2", "edge-3", "edge-4"].map(|id| (id, device(512, "n")));
    let mut inputs = fleet(&devices, &[("a", wanted(2, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1");
    change(&mut inputs, "edge-1").presence = silent(GRACE_MS, false);
    change(&mut inputs, "edge-2").schedule = Schedule::Draining;
    let lost = "a@edge-1:v1 leaves: edge-1 fell silent and did not come back in time";
    let drained = "a@edge-2:v1 leaves: edge-2 is being drained";
    remember(&mut inputs, &format!("{lost} | {drained} | a@edge-3:v1 | a@edge-4:v1"));
    change(&mut inputs, "edge-3").slots = reports(&[("a", serving(1))]);
    // The one that serves is kept, not the lost one.
    remember(&mut inputs, &format!("{drained} | a@edge-3:v1 | a@edge-4:v1"));
    change(&mut inputs, "edge-4").slots = reports(&[("a", serving(1))]);
    check(&inputs, "a@edge-3:v1 | a@edge-4:v1");
}

#[test]
fn a_device_that_refused_is_replaced() {
    let mut inputs = fleet(&two_devices(512, 256), &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    inputs.bundles = bundles(&[1, 2]);
    want(&mut inputs, "a", wanted(1, 64));
    remember(&mut inputs, "a@edge-1:v2");
    let refused = Refused { reason: "golden vectors".into(), attempt: 0, memory_bytes: None };
    change(&mut inputs, "edge-1").refused = [(manifest(2), refused)].into();
    remember(&mut inputs, "a@edge-1:v2 leaves: edge-1 refused version 2: golden vectors | a@edge-2:v2");
    change(&mut inputs, "edge-2").slots = reports(&[("a", serving(2))]);
    check(&inputs, "a@edge-2:v2");
}

#[test]
fn a_closed_rollout_begins_nowhere_new() {
    let devices = two_devices(512, 512);
    let releases =
        Releases { target: release(1, 64), previous: None, granted: Granted::All, closed: Some("edge-9: bad".into()) };
    let mut inputs = fleet(&devices, &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    want(&mut inputs, "a", Wanted { releases: Some(releases), ..wanted(2, 64) });
    check(&inputs, "a@edge-1:v1 | a waits: 1 of 2 replicas waits: the rollout of version 1 stopped: edge-9: bad");
}

#[test]
fn each_device_has_the_release_that_it_is_to_have() {
    let mut inputs = fleet(&two_devices(512, 512), &[("a", wanted(2, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1 | a@edge-2:v1");
    inputs.bundles = bundles(&[1, 2]);
    inputs.devices.insert(id("edge-3"), device(512, "north"));
    let releases = changing(1, 2, &["edge-1"], 64);
    want(&mut inputs, "a", Wanted { releases: releases.clone(), ..wanted(3, 64) });
    // A new place begins with what the others have.
    check(&inputs, "a@edge-1:v2 | a@edge-2:v1 | a@edge-3:v1");
    // Without the bundle, what runs goes on as it is.
    inputs.bundles = bundles(&[2]);
    let waits = "a waits: 1 of 3 replicas waits: model digits has no complete bundle";
    check(&inputs, &format!("a@edge-1:v2 | a@edge-2:v1 | {waits}"));
}

#[test]
fn a_replica_moves_when_its_device_is_gone_or_no_longer_matches() {
    let north = Wanted { selector: Selector { match_labels: labels(&[("site", "north")]) }, ..wanted(1, 64) };
    let mut inputs = fleet(&two_devices(256, 128), &[("a", north)], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    // Where it may not be it does not linger.
    change(&mut inputs, "edge-1").labels = labels(&[("site", "south")]);
    check(&inputs, "a@edge-2:v1");
    inputs.devices.pop_first();
    check(&inputs, "a@edge-2:v1");
}

#[test]
fn nobody_drives_out_one_that_runs() {
    let mut inputs = fleet(&[("edge-1", device(128, "north"))], &[("b", wanted(1, 100))], &[1]);
    obey(&mut inputs, "b@edge-1:v1");
    want(&mut inputs, "a", wanted(1, 100));
    check(&inputs, "b@edge-1:v1 | a waits: edge-1: 100Mi wanted, 28Mi of 128Mi free");
    // Nor does one that grows; where it has no room it moves, and stays as it is until then.
    let mut inputs = fleet(&[("edge-1", device(128, "n"))], &[("a", wanted(1, 64)), ("b", wanted(1, 60))], &[1]);
    obey(&mut inputs, "a@edge-1:v1 | b@edge-1:v1");
    want(&mut inputs, "a", wanted(1, 100));
    let grows = "a@edge-1:v1 leaves: edge-1: 100Mi wanted, 68Mi of 128Mi free";
    let plan = check(
        &inputs,
        &format!(
            "{grows} | b@edge-1:v1 | a waits: edge-1: 100Mi wanted, 68Mi of 128Mi free; \
             every matching device already holds one"
        ),
    );
    assert_eq!(plan.slots[&id("edge-1")][&name("a")].resources, resources(64));
    inputs.devices.insert(id("edge-2"), device(128, "n"));
    obey(&mut inputs, &format!("{grows} | a@edge-2:v1 | b@edge-1:v1"));
    check(&inputs, "a@edge-2:v1 | b@edge-1:v1");
}

#[test]
fn one_name_at_the_doors_is_one_deployment() {
    let alias = Wanted { served_as: Some(name("a")), ..wanted(1, 64) };
    let inputs = fleet(&[("edge-1", device(512, "north"))], &[("a", wanted(1, 64)), ("b", alias)], &[1]);
    check(&inputs, "a@edge-1:v1 | b waits: edge-1: another deployment answers as a there");
}

#[test]
fn the_old_version_stops_first_only_where_both_do_not_fit() {
    for (memory_mib, expected) in [(128, "a@edge-1:v2"), (127, "a@edge-1:v2!")] {
        let mut inputs = fleet(&[("edge-1", device(memory_mib, "n"))], &[("a", wanted(1, 64))], &[1]);
        obey(&mut inputs, "a@edge-1:v1");
        inputs.bundles = bundles(&[1, 2]);
        want(&mut inputs, "a", wanted(1, 64));
        remember(&mut inputs, expected);
        // Decided once, also when room comes or goes meanwhile.
        change(&mut inputs, "edge-1").machine = Some(machine(if memory_mib == 127 { 512 } else { 64 }));
        obey(&mut inputs, expected);
        check(&inputs, expected);
    }
    // Two that change at once do not both count on the same room.
    let two = [("a", wanted(1, 64)), ("b", wanted(1, 64))];
    let mut inputs = fleet(&[("edge-1", device(192, "n"))], &two, &[1]);
    obey(&mut inputs, "a@edge-1:v1 | b@edge-1:v1");
    inputs.bundles = bundles(&[1, 2]);
    want(&mut inputs, "b", wanted(1, 64));
    remember(&mut inputs, "a@edge-1:v1 | b@edge-1:v2");
    want(&mut inputs, "a", wanted(1, 64));
    check(&inputs, "a@edge-1:v2! | b@edge-1:v2");
}

#[test]
fn a_new_place_does_not_count_on_what_an_old_version_still_takes() {
    let mut inputs = fleet(&[("edge-1", device(160, "n"))], &[("a", wanted(1, 64))], &[1]);
    obey(&mut inputs, "a@edge-1:v1");
    inputs.bundles = bundles(&[1, 2]);
    want(&mut inputs, "a", wanted(1, 64));
    remember(&mut inputs, "a@edge-1:v2");
    want(&mut inputs, "b", wanted(1, 64));
    obey(&mut inputs, "a@edge-1:v2 | b waits: edge-1: 64Mi wanted, 32Mi of 160Mi free");
    check(&inputs, "a@edge-1:v2 | b@edge-1:v2");
}

#[test]
fn one_replica_at_a_time_moves_for_a_gain_and_never_back() {
    let five = ["a", "b", "c", "d"].map(|name| (name, wanted(1, 64)));
    let mut inputs = fleet(&[("edge-1", device(256, "n"))], &five, &[1]);
    obey(&mut inputs, "a@edge-1:v1 | b@edge-1:v1 | c@edge-1:v1 | d@edge-1:v1");
    // A device that came only now gets nothing yet: it may be gone again soon.
    let fresh = Presence::Up { for_ms: rebalance::SETTLED_MS - 1 };
    inputs.devices.insert(id("edge-2"), Device { presence: fresh, ..device(256, "n") });
    check(&inputs, "a@edge-1:v1 | b@edge-1:v1 | c@edge-1:v1 | d@edge-1:v1");
    change(&mut inputs, "edge-2").presence = Presence::Up { for_ms: rebalance::SETTLED_MS };
    let crowded = "leaves: edge-1 is much fuller than another device";
    let moving = format!("a@edge-1:v1 {crowded} | a@edge-2:v1 | b@edge-1:v1 | c@edge-1:v1 | d@edge-1:v1");
    let plan = remember(&mut inputs, &moving);
    let why = plan.choices[&(name("a"), id("edge-2"))].to_string();
    assert_eq!(why, "it relieves edge-1, which had 0% free; now the fuller of the two has 25%");
    // As long as it is under way no other one moves.
    let kept = remember(&mut inputs, &moving);
    assert!(kept.choices.values().all(|choice| *choice == Choice::Kept));
    change(&mut inputs, "edge-2").slots = reports(&[("a", serving(1))]);
    let moving = format!("a@edge-2:v1 | b@edge-1:v1 {crowded} | b@edge-2:v1 | c@edge-1:v1 | d@edge-1:v1");
    obey(&mut inputs, &moving);
    let done = "a@edge-2:v1 | b@edge-2:v1 | c@edge-1:v1 | d@edge-1:v1";
    obey(&mut inputs, done);
    obey(&mut inputs, done);
}

#[test]
fn a_move_for_a_gain_ends_when_its_other_end_is_gone() {
    let four = ["a", "b", "c", "d"].map(|name| (name, wanted(1, 64)));
    let mut inputs = fleet(&[("edge-1", device(256, "n"))], &four, &[1]);
    let all = "a@edge-1:v1 | b@edge-1:v1 | c@edge-1:v1 | d@edge-1:v1";
    obey(&mut inputs, all);
    inputs.devices.insert(id("edge-2"), device(256, "n"));
    let moving = "a@edge-1:v1 leaves: edge-1 is much fuller than another device | a@edge-2:v1 | \
                  b@edge-1:v1 | c@edge-1:v1 | d@edge-1:v1";
    remember(&mut inputs, moving);
    change(&mut inputs, "edge-2").presence = silent(GRACE_MS, false);
    obey(&mut inputs, all);
}

fn any_device() -> impl Strategy<Value = Device> {
    let site = prop::sample::select(vec!["north", "south"]);
    let presence = prop_oneof![
        6 => (0u64..200_000).prop_map(|for_ms| Presence::Up { for_ms }),
        1 => (0u64..10_000, any::<bool>()).prop_map(|(for_ms, frozen)| silent(for_ms, frozen)),
    ];
    let schedule = prop::sample::select(vec![
        Schedule::Open,
        Schedule::Open,
        Schedule::Open,
        Schedule::Open,
        Schedule::Cordoned,
        Schedule::Draining,
    ]);
    (0u64..600, site, presence, schedule, prop::bool::weighted(0.9)).prop_map(
        |(memory, site, presence, schedule, reported)| {
            let machine = Some(machine(memory)).filter(|_| reported);
            Device { presence, schedule, machine, ..device(memory, site) }
        },
    )
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let site = prop::sample::select(vec![None, Some("north"), Some("south")]);
    (0u32..6, 1u64..300, 0u32..5000, site, 0u64..4).prop_map(|(replicas, memory, cpu_milli, site, version)| {
        let pairs: Vec<_> = site.into_iter().map(|site| ("site", site)).collect();
        Wanted {
            selector: Selector { match_labels: labels(&pairs) },
            resources: Resources { cpu_milli, memory_bytes: memory * MIB },
            version: Version::new(version).map_or(VersionRule::Latest, VersionRule::Exact),
            ..wanted(replicas, memory)
        }
    })
}

prop_compose! {
    fn any_inputs()(
        devices in prop::collection::vec(any_device(), 0..8),
        deployments in prop::collection::vec(any_wanted(), 0..8),
        versions in prop::collection::btree_set(1u64..4, 0..3),
    ) -> Inputs {
        let devices: Vec<_> = devices.into_iter().enumerate().map(|(at, it)| (format!("edge-{at}"), it)).collect();
        let deployments: Vec<_> = deployments.into_iter().enumerate().map(|(at, it)| (format!("d{at}"), it)).collect();
        let devices: Vec<_> = devices.iter().map(|(id, it)| (id.as_str(), it.clone())).collect();
        let deployments: Vec<_> = deployments.iter().map(|(name, it)| (name.as_str(), it.clone())).collect();
        fleet(&devices, &deployments, &versions.into_iter().collect::<Vec<_>>())
    }
}

fn within_capacity(inputs: &Inputs, plan: &Plan) -> bool {
    plan.slots.iter().all(|(id, slots)| {
        let Some(machine) = inputs.devices.get(id).and_then(|device| device.machine.as_ref()) else { return true };
        let memory: u64 = slots.values().map(|slot| slot.resources.memory_bytes).sum();
        let cpu: u32 = slots.values().map(|slot| slot.resources.cpu_milli).sum();
        memory <= machine.memory_bytes && cpu <= machine.cpu_milli
    })
}

/// What holds of every plan: nobody has more than is wanted beside what leaves, and whatever has no
/// place has a reason.
fn is_sound(inputs: &Inputs, plan: &Plan) -> Result<(), TestCaseError> {
    prop_assert!(within_capacity(inputs, plan));
    for (name, wanted) in &inputs.deployments {
        // At most one replica a device holds by the shape of `slots`.
        let placed = plan.slots.values().filter(|slots| slots.contains_key(name)).count() as u32;
        let leaving = plan.leaving.keys().filter(|(of, _)| of == name).count() as u32;
        let missing = plan.waiting.get(name).map_or(0, |waiting| waiting.missing);
        prop_assert_eq!(placed - leaving + missing, inputs.replicas(wanted));
        prop_assert!(leaving <= inputs.replicas(wanted));
        prop_assert!(plan.waiting.get(name).is_none_or(|waiting| !waiting.reasons.is_empty()));
    }
    let known = |name| inputs.deployments.contains_key(name);
    prop_assert!(plan.slots.values().flat_map(|slots| slots.keys()).all(known));
    prop_assert!(plan.slots.keys().all(|id| inputs.devices.contains_key(id)));
    prop_assert!(plan.leaving.keys().all(|(name, id)| plan.slots[id].contains_key(name)));
    prop_assert_eq!(plan, &super::plan(inputs));
    Ok(())
}

proptest! {
    #[test]
    fn plans_are_sound(inputs in any_inputs()) {
        is_sound(&inputs, &plan(&inputs))?;
    }

    #[test]
    fn what_is_placed_stays_when_nothing_changed(inputs in any_inputs()) {
        let first = plan(&inputs);
        let again = plan(&Inputs { previous: first.slots.clone(), ..inputs });
        prop_assert_eq!(&again.slots, &first.slots);
        prop_assert_eq!(&again.waiting, &first.waiting);
        prop_assert!(again.choices.values().all(|choice| *choice == Choice::Kept));
    }

    #[test]
    fn another_fleet_is_planned_soundly_from_any_past(past in any_inputs(), now in any_inputs()) {
        let previous = plan(&past).slots;
        let inputs = Inputs { previous, ..now };
        is_sound(&inputs, &plan(&inputs))?;
    }
}

#[test]
fn what_no_publisher_stands_for_begins_nowhere_and_runs_on_where_it_is() {
    let bar = |inputs: &mut Inputs, number: u64, why: Barred| {
        let versions = inputs.bundles.get_mut(&model()).expect("the model");
        versions.get_mut(&version(number)).expect("the version").barred = Some(why);
    };
    let mut inputs = fleet(&two_devices(1024, 512), &[("a", wanted(1, 64))], &[1, 2]);
    obey(&mut inputs, "a@edge-1:v2");
    // The publisher was removed: it serves on, nothing takes it back to version 1, and no second one comes.
    bar(&mut inputs, 2, Barred::PublisherRemoved);
    let releases = inputs.deployments[&name("a")].releases.clone();
    want(&mut inputs, "a", Wanted { releases, ..wanted(2, 64) });
    check(
        &inputs,
        "a@edge-1:v2 | a waits: 1 of 2 replicas waits: nothing begins with version 2 of model digits: the root names \
         its publisher no more; sign it anew with a publisher's key that the root names, and push it again",
    );
    // Its key was stolen: what is not from that key comes in its place.
    bar(&mut inputs, 2, Barred::Compromised);
    want(&mut inputs, "a", wanted(2, 64));
    check(&inputs, "a@edge-1:v1 | a@edge-2:v1");
    // The floor rose over everything there is.
    let mut inputs = fleet(&two_devices(1024, 512), &[("a", wanted(1, 64))], &[1]);
    bar(&mut inputs, 1, Barred::BelowFloor(version(2)));
    inputs.deployments.clear();
    want(&mut inputs, "a", wanted(1, 64));
    check(
        &inputs,
        "a waits: nothing begins with version 1 of model digits: its publisher wants nothing below version 2 to run; \
         push version 2 or a later one",
    );
}
