//! What the tests of several modules begin with: small fleets in few words.

use std::collections::BTreeMap;

use muster_shared::api::deployment::{OnDeviceLoss, Selector, VersionRule};
use muster_shared::desired::{BlobRef, Resources};
use muster_shared::id::Labels;
use muster_shared::manifest::Format;
use muster_shared::reported::Phase;
use muster_shared::{DeploymentName, DeviceId, Digest, ModelName, Version};

use crate::fleet::{
    Bundle, Bundles, Device, Granted, Inputs, Machine, Presence, Release, Releases, Replicas, Report, Wanted, resolve,
};

pub const MIB: u64 = 1 << 20;
/// How long a replica waits for its silent device.
pub const GRACE_MS: u64 = 5_000;

pub fn id(text: &str) -> DeviceId {
    text.parse().expect("a device's id")
}

pub fn name(text: &str) -> DeploymentName {
    text.parse().expect("a deployment's name")
}

pub fn model() -> ModelName {
    "digits".parse().expect("a model's name")
}

pub fn version(number: u64) -> Version {
    Version::new(number).expect("positive")
}

pub fn manifest(number: u64) -> Digest {
    Digest::of(format!("manifest {number}"))
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (key.parse().expect("a label"), value.parse().expect("a label"))).collect()
}

pub fn machine(memory_mib: u64) -> Machine {
    let engines = vec!["tract".to_owned()];
    Machine { arch: "arm".into(), cpu_model: None, cpu_milli: 4000, memory_bytes: memory_mib * MIB, engines }
}

/// A device that has been up for a while.
pub fn device(memory_mib: u64, site: &str) -> Device {
    Device {
        labels: labels(&[("site", site)]),
        presence: Presence::Up { for_ms: 3_600_000 },
        machine: Some(machine(memory_mib)),
        is_current: true,
        ..Device::default()
    }
}

pub fn silent(for_ms: u64, frozen: bool) -> Presence {
    Presence::Silent { for_ms, frozen }
}

pub fn resources(memory_mib: u64) -> Resources {
    Resources { cpu_milli: 250, memory_bytes: memory_mib * MIB }
}

pub fn release(number: u64, memory_mib: u64) -> Release {
    Release {
        model: model(),
        version: version(number),
        manifest: manifest(number),
        resources: resources(memory_mib),
        attempt: 0,
    }
}

pub fn wanted(replicas: u32, memory_mib: u64) -> Wanted {
    Wanted {
        model: model(),
        version: VersionRule::Latest,
        replicas: Replicas::Count(replicas),
        selector: Selector::default(),
        resources: resources(memory_mib),
        probation_ms: 60_000,
        served_as: None,
        on_device_loss: OnDeviceLoss::Move,
        device_loss_grace_ms: GRACE_MS,
        releases: None,
    }
}

pub fn bundle(number: u64) -> Bundle {
    Bundle {
        manifest: manifest(number),
        envelope: BlobRef { sha256: Digest::of(format!("envelope {number}")), bytes: 100 },
        variants: vec![("fp32".parse().expect("a name"), Format::Onnx)],
        barred: None,
    }
}

pub fn bundles(versions: &[u64]) -> Bundles {
    [(model(), versions.iter().map(|number| (version(*number), bundle(*number))).collect())].into()
}

/// A fleet in which every deployment is on what its rule means, unless its releases say otherwise.
pub fn fleet(devices: &[(&str, Device)], deployments: &[(&str, Wanted)], versions: &[u64]) -> Inputs {
    let mut inputs = Inputs {
        devices: devices.iter().map(|(text, device)| (id(text), device.clone())).collect(),
        bundles: bundles(versions),
        ..Inputs::default()
    };
    for (text, wanted) in deployments {
        want(&mut inputs, text, wanted.clone());
    }
    inputs
}

/// An operator applies a deployment.
pub fn want(inputs: &mut Inputs, text: &str, mut wanted: Wanted) {
    let resolved = resolve(&inputs.bundles, &wanted.model, wanted.version);
    let release = resolved.map(|(version, manifest)| Release {
        model: wanted.model.clone(),
        version,
        manifest,
        resources: wanted.resources,
        attempt: 0,
    });
    let all = |target| Releases { target, previous: None, granted: Granted::All, closed: None };
    wanted.releases = wanted.releases.or(release.map(all));
    inputs.deployments.insert(name(text), wanted);
}

/// A slot that answers with a version.
pub fn serving(number: u64) -> Report {
    Report {
        phase: Phase::Serving,
        wanted: Some(manifest(number)),
        running: Some(manifest(number)),
        waiting: None,
        restarts: 0,
        measured: None,
    }
}

/// Slots as they are reported, by deployment.
pub fn reports(pairs: &[(&str, Report)]) -> BTreeMap<DeploymentName, Report> {
    pairs.iter().map(|(text, report)| (name(text), report.clone())).collect()
}
