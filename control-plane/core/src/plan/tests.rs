//! Tables of small fleets, and properties of random ones.

use muster_shared::Digest;
use muster_shared::api::deployment::{Selector, VersionRule};
use muster_shared::desired::{BlobRef, Resources};
use muster_shared::id::Labels;
use muster_shared::manifest::Format;
use proptest::prelude::*;

use super::*;
use crate::fleet::{Bundle, Device, Machine};

const MIB: u64 = 1 << 20;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (key.parse().expect("a label"), value.parse().expect("a label"))).collect()
}

fn device(memory_mib: u64, site: &str) -> Device {
    let engines = vec!["tract".to_owned()];
    let machine = Machine { cpu_milli: 4000, memory_bytes: memory_mib * MIB, engines };
    Device { labels: labels(&[("site", site)]), connected: true, machine: Some(machine), ..Device::default() }
}

fn wanted(replicas: u32, memory_mib: u64) -> Wanted {
    Wanted {
        model: "digits".parse().expect("a name"),
        version: VersionRule::Latest,
        replicas,
        selector: Selector::default(),
        resources: Resources { cpu_milli: 250, memory_bytes: memory_mib * MIB },
        probation_ms: 60_000,
        served_as: None,
    }
}

fn bundle(version: u64) -> Bundle {
    Bundle {
        manifest: Digest::of(format!("manifest {version}")),
        envelope: BlobRef { sha256: Digest::of(format!("envelope {version}")), bytes: 100 },
        variants: vec![("fp32".parse().expect("a name"), Format::Onnx)],
    }
}

fn fleet(devices: &[(&str, Device)], deployments: &[(&str, Wanted)], versions: &[u64]) -> Inputs {
    let version = |number: &u64| (Version::new(*number).expect("positive"), bundle(*number));
    let bundles = versions.iter().map(version).collect();
    Inputs {
        devices: devices.iter().map(|(id, device)| (id.parse().expect("an id"), device.clone())).collect(),
        deployments: deployments.iter().map(|(name, it)| (name.parse().expect("a name"), it.clone())).collect(),
        bundles: [("digits".parse().expect("a name"), bundles)].into(),
        previous: BTreeMap::new(),
    }
}

/// `a@edge-1:v1 | b waits: …`
fn say(plan: &Plan) -> String {
    let mut parts = Vec::new();
    for (device, slots) in &plan.slots {
        parts.extend(slots.iter().map(|(name, slot)| format!("{name}@{device}:v{}", slot.version)));
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

#[test]
fn the_device_with_the_most_room_takes_it() {
    let devices = [("edge-1", device(256, "north")), ("edge-2", device(512, "north"))];
    check(&fleet(&devices, &[("a", wanted(1, 64))], &[1, 2]), "a@edge-2:v2");
    check(&fleet(&devices, &[("a", wanted(2, 64))], &[1]), "a@edge-1:v1 | a@edge-2:v1");
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
    let machine = base.machine.clone().expect("it reported");
    let refused = [(bundle(1).manifest, "golden vectors".to_owned())].into();
    for (unfit, text) in [
        (Device { cordoned: true, ..base.clone() }, "edge-1 is cordoned"),
        (Device { connected: false, ..base.clone() }, "edge-1 is not connected"),
        (Device { machine: None, ..base.clone() }, "edge-1 has yet to report"),
        (Device { refused, ..base.clone() }, "edge-1 refused version 1: golden vectors"),
        (
            Device { machine: Some(Machine { engines: vec![], ..machine }), ..base },
            "edge-1 has no engine for this model's format",
        ),
    ] {
        check(&fleet(&[("edge-1", unfit)], &[("a", wanted(1, 64))], &[1]), &format!("a waits: {text}"));
    }
}

#[test]
fn a_replica_stays_through_silence_cordon_and_refusal() {
    let mut inputs = fleet(&[("edge-1", device(256, "north"))], &[("a", wanted(1, 64))], &[1]);
    inputs.previous = check(&inputs, "a@edge-1:v1").slots;
    let edge = inputs.devices.values_mut().next().expect("one device");
    (edge.connected, edge.cordoned) = (false, true);
    edge.refused = [(bundle(1).manifest, "golden vectors".to_owned())].into();
    inputs.devices.insert("edge-2".parse().expect("an id"), device(4096, "north"));
    let plan = check(&inputs, "a@edge-1:v1");
    assert!(plan.choices.values().all(|choice| *choice == Choice::Kept));
}

#[test]
fn a_replica_moves_when_its_device_is_gone_or_no_longer_matches() {
    let north = Wanted { selector: Selector { match_labels: labels(&[("site", "north")]) }, ..wanted(1, 64) };
    let devices = [("edge-1", device(256, "north")), ("edge-2", device(128, "north"))];
    let mut inputs = fleet(&devices, &[("a", north)], &[1]);
    inputs.previous = check(&inputs, "a@edge-1:v1").slots;
    inputs.devices.insert("edge-1".parse().expect("an id"), device(256, "south"));
    check(&inputs, "a@edge-2:v1");
    inputs.devices.pop_first();
    check(&inputs, "a@edge-2:v1");
}

#[test]
fn a_new_deployment_never_drives_out_one_that_runs() {
    let mut inputs = fleet(&[("edge-1", device(128, "north"))], &[("b", wanted(1, 100))], &[1]);
    inputs.previous = check(&inputs, "b@edge-1:v1").slots;
    inputs.deployments.insert("a".parse().expect("a name"), wanted(1, 100));
    check(&inputs, "b@edge-1:v1 | a waits: edge-1: 100Mi wanted, 28Mi of 128Mi free");
}

#[test]
fn a_new_version_goes_where_the_old_one_is_and_a_missing_one_changes_nothing() {
    let devices = [("edge-1", device(128, "north")), ("edge-2", device(512, "north"))];
    let mut inputs = fleet(&devices, &[("a", wanted(1, 64))], &[1]);
    inputs.previous = check(&inputs, "a@edge-2:v1").slots;
    inputs.bundles = fleet(&devices, &[], &[1, 2]).bundles;
    check(&inputs, "a@edge-2:v2");
    let exact = Wanted { version: VersionRule::Exact(Version::new(7).expect("positive")), ..wanted(1, 64) };
    inputs.deployments.insert("a".parse().expect("a name"), exact);
    check(&inputs, "a@edge-2:v1 | a waits: model digits has no complete bundle of version 7");
}

#[test]
fn fewer_replicas_leave_the_unfit_first() {
    let devices = [("edge-1", device(256, "north")), ("edge-2", device(256, "north"))];
    let mut inputs = fleet(&devices, &[("a", wanted(2, 64))], &[1]);
    inputs.previous = check(&inputs, "a@edge-1:v1 | a@edge-2:v1").slots;
    inputs.devices.values_mut().next().expect("a device").connected = false;
    inputs.deployments.insert("a".parse().expect("a name"), wanted(1, 64));
    check(&inputs, "a@edge-2:v1");
    inputs.deployments.clear();
    check(&inputs, "");
}

#[test]
fn one_name_at_the_doors_is_one_deployment() {
    let alias = Wanted { served_as: Some("a".parse().expect("a name")), ..wanted(1, 64) };
    let inputs = fleet(&[("edge-1", device(512, "north"))], &[("a", wanted(1, 64)), ("b", alias)], &[1]);
    check(&inputs, "a@edge-1:v1 | b waits: edge-1: another deployment answers as a there");
}

fn any_device() -> impl Strategy<Value = Device> {
    let site = prop::sample::select(vec!["north", "south"]);
    (0u64..600, site, prop::bool::weighted(0.8), prop::bool::weighted(0.1), prop::bool::weighted(0.9)).prop_map(
        |(memory, site, connected, cordoned, reported)| {
            let machine = device(memory, site).machine.filter(|_| reported);
            Device { connected, cordoned, machine, ..device(memory, site) }
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

proptest! {
    #[test]
    fn plans_are_sound(inputs in any_inputs()) {
        let plan = plan(&inputs);
        prop_assert!(within_capacity(&inputs, &plan));
        for (name, wanted) in &inputs.deployments {
            // At most one replica a device holds by the shape of `slots`.
            let placed = plan.slots.values().filter(|slots| slots.contains_key(name)).count() as u32;
            let missing = plan.waiting.get(name).map_or(0, |waiting| waiting.missing);
            prop_assert_eq!(placed + missing, wanted.replicas);
            prop_assert!(plan.waiting.get(name).is_none_or(|waiting| !waiting.reasons.is_empty()));
        }
        prop_assert!(plan.slots.values().flat_map(|slots| slots.keys()).all(|name| inputs.deployments.contains_key(name)));
        prop_assert_eq!(&plan, &super::plan(&inputs));
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
        let plan = plan(&inputs);
        prop_assert!(within_capacity(&inputs, &plan));
        prop_assert!(plan.slots.keys().all(|id| inputs.devices.contains_key(id)));
    }
}
