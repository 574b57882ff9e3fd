//! What goes wrong, and what operators want, drawn from the seed.

use muster_shared::api::deployment::{OnDeviceLoss, Resources, Rollout, Selector, Spec};
use muster_shared::api::fleet::Schedule;
use muster_shared::quantity::{Bytes, CountOrPercent, MilliCpu, Millis};
use muster_shared::reported::Facts;

use crate::catalog::{Nature, name};
use crate::rng::Rng;

const MIB: u64 = 1 << 20;
/// Faults and wishes come within this time; then they stop.
pub const CHAOS_MS: u64 = 8 * 60_000;
/// The sites of the fleet.
pub const SITES: [&str; 4] = ["north", "east", "south", "west"];

/// Something that goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A device loses its power for so long; none: for good. Maybe only amid its next actions.
    Off { device: usize, for_ms: Option<u64>, after_actions: Option<u64> },
    /// A device loses its line for so long.
    Line { device: usize, for_ms: u64 },
    /// A site loses its line.
    Site { site: usize, for_ms: u64 },
    /// The plane stops and starts again.
    Plane { down_ms: u64 },
    /// The broker drops everybody and everything.
    Broker { down_ms: u64 },
    /// Somebody kills a worker.
    Kill { device: usize },
    /// An operator wants something.
    Wish(Wish),
}

/// Something that an operator wants. Deployments are numbered.
#[derive(Debug, Clone)]
pub enum Wish {
    /// So many replicas.
    Scale { deployment: usize, replicas: u32 },
    /// So much memory for each.
    Resize { deployment: usize, memory_mib: u64 },
    /// A publisher pushes the next version.
    Push { deployment: usize, nature: Nature },
    /// Something of a device.
    Schedule { device: usize, schedule: Schedule },
    /// It is not wanted any more.
    Delete { deployment: usize },
    /// It is wanted again.
    Create { deployment: usize },
    /// Its rollout is held.
    Pause { deployment: usize },
    /// Its rollout goes on, or begins again.
    Resume { deployment: usize },
    /// Its rollout is taken back.
    Undo { deployment: usize },
    /// Silent devices are lost.
    Approve,
    /// The owner signs another root, maybe with a new epoch.
    Rotate { epoch: bool },
}

/// The machine of a device.
pub fn machine(rng: &mut Rng) -> Facts {
    Facts {
        arch: (*rng.pick(&["aarch64", "aarch64", "arm", "x86_64"])).into(),
        cpu_model: Some((*rng.pick(&["A53", "A72"])).into()),
        cpu_milli: *rng.pick(&[2000, 4000]),
        memory_bytes: *rng.pick(&[256u64, 512, 512, 1024]) * MIB,
        engines: vec!["tract".into()],
        ..Facts::default()
    }
}

/// What an operator wants of deployment number `at`.
pub fn spec(at: usize, devices: usize, rng: &mut Rng) -> Spec {
    let site = (at == 1).then(|| (name("site"), name(SITES[0])));
    let matching = if site.is_some() { devices / SITES.len() } else { devices };
    let every_device = at == 3 && rng.permille(300);
    let (replicas, memory) = match every_device {
        true => (1, 16),
        false => (rng.range(1, (matching as u64 / 3).max(2)) as u32, *rng.pick(&[32u64, 64, 128, 200])),
    };
    let max_failed = if rng.permille(700) { CountOrPercent::Percent(10) } else { CountOrPercent::Count(0) };
    let on_device_loss = if at == 2 && rng.permille(500) { OnDeviceLoss::Keep } else { OnDeviceLoss::Move };
    Spec {
        model: name(&format!("m{at}")),
        version: Default::default(),
        replicas,
        every_device,
        selector: Selector { match_labels: site.into_iter().collect() },
        resources: Resources { cpu: MilliCpu(250), memory: Bytes(memory * MIB) },
        rollout: Rollout {
            probation: Millis(rng.range(1_000, 8_000)),
            progress_deadline: Millis(60_000),
            max_failed,
            ..Rollout::default()
        },
        on_device_loss,
        device_loss_grace: Millis(*rng.pick(&[10_000, 20_000, 40_000])),
        served_as: None,
    }
}

/// Everything that goes wrong in a run, with when.
pub fn script(devices: usize, deployments: usize, rng: &mut Rng) -> Vec<(u64, Fault)> {
    let mut script = Vec::new();
    // Some fleets are hit before anything serves.
    let calm_ms = if rng.permille(250) { 0 } else { 60_000 };
    let count = devices as u64;
    let often =
        |rng: &mut Rng, times: u64, fault: &mut dyn FnMut(&mut Rng) -> Fault, script: &mut Vec<(u64, Fault)>| {
            for _ in 0..times {
                let at_ms = rng.range(calm_ms, CHAOS_MS);
                script.push((at_ms, fault(rng)));
            }
        };
    let some = |rng: &mut Rng| rng.range(0, count) as usize;
    let reboots = rng.range(count / 4, count);
    often(
        rng,
        reboots,
        &mut |rng| {
            let after_actions = rng.permille(500).then(|| rng.range(0, 6));
            Fault::Off { device: some(rng), for_ms: Some(rng.range(1_000, 90_000)), after_actions }
        },
        &mut script,
    );
    let losses = rng.range(1, (count / 40).max(2));
    often(rng, losses, &mut |rng| Fault::Off { device: some(rng), for_ms: None, after_actions: None }, &mut script);
    let lines = rng.range(count / 4, count);
    often(rng, lines, &mut |rng| Fault::Line { device: some(rng), for_ms: rng.range(100, 90_000) }, &mut script);
    let kills = count / 5;
    often(rng, kills, &mut |rng| Fault::Kill { device: some(rng) }, &mut script);
    let outages = rng.range(0, 3);
    often(
        rng,
        outages,
        &mut |rng| Fault::Site { site: rng.range(0, SITES.len() as u64) as usize, for_ms: rng.range(5_000, 150_000) },
        &mut script,
    );
    let restarts = rng.range(0, 4);
    often(rng, restarts, &mut |rng| Fault::Plane { down_ms: rng.range(100, 60_000) }, &mut script);
    let amnesias = rng.range(0, 3);
    often(rng, amnesias, &mut |rng| Fault::Broker { down_ms: rng.range(10, 20_000) }, &mut script);
    let wishes = rng.range(6, 24);
    often(rng, wishes, &mut |rng| Fault::Wish(wish(devices, deployments, rng)), &mut script);
    script
}

fn wish(devices: usize, deployments: usize, rng: &mut Rng) -> Wish {
    let device = rng.range(0, devices as u64) as usize;
    let deployment = rng.range(0, deployments as u64) as usize;
    match rng.range(0, 20) {
        0..=2 => Wish::Scale { deployment, replicas: rng.range(0, (devices as u64 / 3).max(2)) as u32 },
        3 => Wish::Resize { deployment, memory_mib: *rng.pick(&[32, 64, 100, 150]) },
        4..=6 => Wish::Push { deployment, nature: Nature::Good },
        7 | 8 => Wish::Push { deployment, nature: Nature::WrongGolden },
        9 => Wish::Push { deployment, nature: Nature::Crashes },
        10 => Wish::Push { deployment, nature: Nature::Grows },
        11..=13 => {
            let schedule = *rng.pick(&[Schedule::Open, Schedule::Cordoned, Schedule::Draining]);
            Wish::Schedule { device, schedule }
        }
        14 => Wish::Delete { deployment },
        15 => Wish::Create { deployment },
        16 => Wish::Pause { deployment },
        17 => Wish::Resume { deployment },
        18 => Wish::Undo { deployment },
        _ if rng.permille(700) => Wish::Rotate { epoch: rng.permille(500) },
        _ => Wish::Approve,
    }
}
