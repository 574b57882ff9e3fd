//! Which device takes one replica: filter with reasons, then score, then the name decides.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use muster_shared::api::fleet::Schedule;
use muster_shared::desired::{Resources, SlotSpec};
use muster_shared::id::VariantName;
use muster_shared::limits::SLOTS_MAX;
use muster_shared::reported::Phase;
use muster_shared::{DeploymentName, DeviceId};

use crate::explain::{Choice, Reason};
use crate::fleet::{Bundle, Device, Inputs, Machine, Measurements, Presence, Release, Slots, Wanted};
use crate::plan::Plan;

/// Devices whose room differs by less than this, in thousandths, have the same room.
const ROOM_STEP_PERMILLE: u32 = 100;

/// What a plan follows from, and what is worked out of it once.
#[derive(Debug, Clone)]
pub struct Scene<'a> {
    /// What it follows from.
    pub inputs: &'a Inputs,
    /// What bundles need.
    pub measured: Measurements<'a>,
}

/// One deployment, and one of its releases.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its name.
    pub name: &'a DeploymentName,
    /// What its operator wants.
    pub wanted: &'a Wanted,
    /// What the replica is to run.
    pub release: &'a Release,
    /// The release's bundle.
    pub bundle: &'a Bundle,
    /// What must be free for it at a new place: during a change also what it is on its way to, or it
    /// would soon have to leave again.
    pub room: Resources,
}

/// Finds the device that takes one more replica, or says why none does.
pub fn best_device(
    scene: &Scene<'_>,
    plan: &Plan,
    request: Request<'_>,
) -> Result<(DeviceId, SlotSpec, Choice), Vec<Reason>> {
    let matching = matching_devices(scene.inputs, request.wanted)?;
    let sites = Sites::of(scene.inputs, plan, request);
    let mut reasons = Vec::new();
    let mut fitting = Vec::new();
    for (id, device) in matching {
        match check_new(scene, id, device, plan.slots.get(id), request) {
            Ok(Some((slot, free_permille))) => {
                let measured = scene.measured.on(id, device.machine.as_ref(), request.release.manifest);
                let score = Score {
                    same_site: sites.replicas(device),
                    free_permille,
                    latency_us: measured.map(|measured| measured.latency_us),
                };
                fitting.push((score, id, slot));
            }
            Ok(None) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    let candidates = fitting.len();
    // The first of the best by name: an equal fleet gives an equal plan.
    fitting.sort_by_key(|(score, id, _)| (score.key(), *id));
    let second = fitting.get(1).map(|(score, ..)| *score);
    let fewest = fitting.first().map(|(score, ..)| score.same_site);
    let elsewhere = fitting.iter().map(|(score, ..)| score.same_site).find(|site| Some(*site) > fewest);
    match fitting.into_iter().next() {
        Some((score, id, slot)) => Ok((id.clone(), slot, score.choice(candidates, elsewhere, second))),
        None if reasons.is_empty() => Err(vec![Reason::OneEach]),
        None => Err(reasons),
    }
}

/// What speaks for a device: first that few replicas of the deployment are at its site, then its room,
/// then its measured speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Score {
    same_site: usize,
    free_permille: u32,
    latency_us: Option<u64>,
}

impl Score {
    /// Less is better.
    fn key(&self) -> (usize, Reverse<u32>, u64) {
        // Where nothing was measured anywhere, speed says nothing; where it was, `measured` estimates.
        (self.same_site, Reverse(self.free_permille / ROOM_STEP_PERMILLE), self.latency_us.unwrap_or(0))
    }

    /// `elsewhere`: the replicas at the next best site, if another one has more; `second`: the next best device.
    fn choice(&self, candidates: usize, elsewhere: Option<usize>, second: Option<Self>) -> Choice {
        let free_permille = self.free_permille;
        if let Some(elsewhere) = elsewhere {
            return Choice::Spread { candidates, same_site: self.same_site, elsewhere };
        }
        match second {
            Some(second) if second.key().1 == self.key().1 && second.latency_us > self.latency_us => {
                Choice::Fastest { candidates, latency_us: self.latency_us.unwrap_or(0), free_permille }
            }
            _ => Choice::MostRoom { candidates, free_permille },
        }
    }
}

/// How many replicas of a deployment stay at each site.
struct Sites<'a>(BTreeMap<Option<&'a str>, usize>);

impl<'a> Sites<'a> {
    fn of(inputs: &'a Inputs, plan: &Plan, request: Request<'_>) -> Self {
        let mut counts = BTreeMap::new();
        for (id, _) in plan.slots.iter().filter(|(_, slots)| slots.contains_key(request.name)) {
            // What replaces one that leaves may well come to the same site.
            if let Some(device) = inputs.devices.get(id).filter(|_| !plan.leaves(request.name, id)) {
                *counts.entry(device.site()).or_default() += 1;
            }
        }
        Self(counts)
    }

    fn replicas(&self, device: &Device) -> usize {
        self.0.get(&device.site()).copied().unwrap_or(0)
    }
}

/// Why a device cannot have the slot that a replica on it is to have, if it cannot: it must not have
/// proven the release bad, and must have room beside what is kept there.
pub fn why_unfit(
    id: &DeviceId,
    device: &Device,
    kept: &Slots,
    slot: Option<&SlotSpec>,
    release: &Release,
) -> Option<Reason> {
    if let Some(reason) = proven_bad(id, device, release) {
        return Some(reason);
    }
    let Some(slot) = slot else { return Some(Reason::NoEngine(id.clone())) };
    why_no_room(id, device, kept, slot)
}

/// Why a device cannot hold a slot beside what is kept there, if it cannot.
pub fn why_no_room(id: &DeviceId, device: &Device, kept: &Slots, slot: &SlotSpec) -> Option<Reason> {
    if !is_free_name(kept, slot) {
        return Some(Reason::NameTaken { device: id.clone(), served: slot.served_name().clone() });
    }
    if kept.len() >= SLOTS_MAX {
        return Some(Reason::SlotsFull(id.clone()));
    }
    let machine = device.machine.as_ref()?;
    lacks(machine, kept, slot, (slot.resources.memory_bytes, 0)).map(|lack| lack.reason(id, slot, machine))
}

/// Why no replica of a deployment is to stay on a device, whatever it runs.
pub fn why_leave(id: &DeviceId, device: &Device, wanted: &Wanted) -> Option<Reason> {
    if !wanted.selector.matches(&device.labels) {
        return Some(Reason::NoLongerMatches(id.clone()));
    }
    if device.schedule == Schedule::Draining {
        return Some(Reason::Draining(id.clone()));
    }
    device.is_lost_for(wanted).then(|| Reason::Lost(id.clone()))
}

fn proven_bad(id: &DeviceId, device: &Device, release: &Release) -> Option<Reason> {
    let reason = device.why_refused(release)?.to_owned();
    Some(Reason::Refused { device: id.clone(), version: release.version, reason })
}

/// The slot that serves this request; nothing if the machine reads none of the variants. A machine
/// that has yet to report is taken to read them all.
pub fn slot(request: Request<'_>, machine: Option<&Machine>) -> Option<SlotSpec> {
    let variant = variant(request.bundle, machine)?;
    let release = request.release;
    Some(SlotSpec {
        deployment: request.name.clone(),
        served_as: request.wanted.served_as.clone(),
        model: release.model.clone(),
        version: release.version,
        manifest: release.manifest,
        envelope: request.bundle.envelope,
        variant: variant.clone(),
        resources: release.resources,
        probation_ms: request.wanted.probation_ms,
        attempt: release.attempt,
        swap_in_place: false,
        floor: None,
    })
}

/// The best variant that one of the machine's engines reads.
fn variant<'a>(bundle: &'a Bundle, machine: Option<&Machine>) -> Option<&'a VariantName> {
    let reads = |format| machine.is_none_or(|machine| machine.reads(format));
    bundle.variants.iter().find(|(_, format)| reads(*format)).map(|(name, _)| name)
}

fn matching_devices<'a>(inputs: &'a Inputs, wanted: &Wanted) -> Result<Vec<(&'a DeviceId, &'a Device)>, Vec<Reason>> {
    if inputs.devices.is_empty() {
        return Err(vec![Reason::NoDevices]);
    }
    let matches = |(_, device): &(&DeviceId, &Device)| wanted.selector.matches(&device.labels);
    let matching: Vec<_> = inputs.devices.iter().filter(matches).collect();
    if matching.is_empty() {
        return Err(vec![Reason::NoMatch { selector: wanted.selector.clone() }]);
    }
    Ok(matching)
}

/// Why nothing new may come to a device, whatever it is.
pub fn obstacle(id: &DeviceId, device: &Device) -> Option<Reason> {
    match device.schedule {
        Schedule::Cordoned => return Some(Reason::Cordoned(id.clone())),
        Schedule::Draining => return Some(Reason::Draining(id.clone())),
        Schedule::Open => {}
    }
    if device.machine.is_none() {
        return Some(Reason::NotReported(id.clone()));
    }
    (!device.is_up()).then(|| silent(id, device))
}

fn silent(id: &DeviceId, device: &Device) -> Reason {
    match device.presence {
        Presence::Silent { frozen: true, .. } => Reason::Frozen(id.clone()),
        _ => Reason::NotConnected(id.clone()),
    }
}

/// Whether a matching device can take a new replica: the slot and what stays free. Nothing where it
/// holds one already.
fn check_new(
    scene: &Scene<'_>,
    id: &DeviceId,
    device: &Device,
    taken: Option<&Slots>,
    request: Request<'_>,
) -> Result<Option<(SlotSpec, u32)>, Reason> {
    let none = Slots::new();
    let taken = taken.unwrap_or(&none);
    if let Some(reason) = obstacle(id, device) {
        return Err(reason);
    }
    if taken.contains_key(request.name) {
        return Ok(None);
    }
    let Some(machine) = &device.machine else { return Err(Reason::NotReported(id.clone())) };
    let release = request.release;
    if let Some(reason) = proven_bad(id, device, release) {
        return Err(reason);
    }
    let slot = slot(request, Some(machine)).ok_or_else(|| Reason::NoEngine(id.clone()))?;
    if taken.len() >= SLOTS_MAX {
        return Err(Reason::SlotsFull(id.clone()));
    }
    if !is_free_name(taken, &slot) {
        return Err(Reason::NameTaken { device: id.clone(), served: slot.served_name().clone() });
    }
    // A model takes what it was measured to take, also where that is more than its grant.
    let measured =
        scene.measured.on(id, Some(machine), release.manifest).map_or(0, |measured| measured.memory_peak_bytes);
    let roomy = SlotSpec { resources: request.room, ..slot.clone() };
    let needed_bytes = request.room.memory_bytes.max(measured);
    // Old versions are still loaded beside new ones that are under way.
    match lacks(machine, taken, &roomy, (needed_bytes, old_bytes(device, taken))) {
        Some(lack) => Err(lack.reason(id, &roomy, machine)),
        None => {
            let free = free_permille(machine, taken, Some(&slot));
            Ok(Some((slot, free)))
        }
    }
}

/// What old versions take beside new ones that are on their way.
fn old_bytes(device: &Device, slots: &Slots) -> u64 {
    let is_under_way = |slot: &&SlotSpec| {
        let report = device.slots.get(&slot.deployment).filter(|report| report.phase != Phase::Refused);
        let running = report.and_then(|report| report.running);
        !slot.swap_in_place && running.is_some_and(|running| running != slot.manifest)
    };
    slots.values().filter(is_under_way).map(|slot| slot.resources.memory_bytes).sum()
}

/// Doors find a model by name, so a device has each name once.
fn is_free_name(taken: &Slots, slot: &SlotSpec) -> bool {
    taken.values().all(|other| other.served_name() != slot.served_name())
}

enum Lack {
    Memory { wanted_bytes: u64, free_bytes: u64 },
    Cpu { free_milli: u32 },
}

impl Lack {
    fn reason(self, id: &DeviceId, slot: &SlotSpec, machine: &Machine) -> Reason {
        match self {
            Self::Memory { wanted_bytes, free_bytes } => {
                Reason::Memory { device: id.clone(), wanted_bytes, free_bytes, all_bytes: machine.memory_bytes }
            }
            Self::Cpu { free_milli } => Reason::Cpu {
                device: id.clone(),
                wanted_milli: slot.resources.cpu_milli,
                free_milli,
                all_milli: machine.cpu_milli,
            },
        }
    }
}

/// What is too little for one more slot: bytes that it wants, and bytes in use beside the grants.
fn lacks(machine: &Machine, taken: &Slots, slot: &SlotSpec, (wanted_bytes, in_use_bytes): (u64, u64)) -> Option<Lack> {
    let (free_milli, free_bytes) = free(machine, taken);
    let free_bytes = free_bytes.saturating_sub(in_use_bytes);
    if wanted_bytes > free_bytes {
        return Some(Lack::Memory { wanted_bytes, free_bytes });
    }
    (slot.resources.cpu_milli > free_milli).then_some(Lack::Cpu { free_milli })
}

/// What no slot was granted: thousandths of a core, bytes of memory.
pub fn free(machine: &Machine, taken: &Slots) -> (u32, u64) {
    taken.values().fold((machine.cpu_milli, machine.memory_bytes), |(cpu, memory), slot| {
        (cpu.saturating_sub(slot.resources.cpu_milli), memory.saturating_sub(slot.resources.memory_bytes))
    })
}

/// What stays free of the scarcer resource, with one more slot, in thousandths.
pub fn free_permille(machine: &Machine, taken: &Slots, more: Option<&SlotSpec>) -> u32 {
    let (free_milli, free_bytes) = free(machine, taken);
    let (cpu_milli, memory_bytes) = more.map_or((0, 0), |slot| (slot.resources.cpu_milli, slot.resources.memory_bytes));
    let permille = |free: u128, all: u128| (free * 1000).checked_div(all).unwrap_or(0).try_into().unwrap_or(u32::MAX);
    let cpu = u128::from(free_milli.saturating_sub(cpu_milli));
    let memory = u128::from(free_bytes.saturating_sub(memory_bytes));
    permille(cpu, machine.cpu_milli.into()).min(permille(memory, machine.memory_bytes.into()))
}

/// The slot of one replica more on a device, if it may have one: for a move.
pub fn fits_new(scene: &Scene<'_>, id: &DeviceId, plan: &Plan, request: Request<'_>) -> Option<SlotSpec> {
    let device = scene.inputs.devices.get(id).filter(|device| request.wanted.selector.matches(&device.labels))?;
    check_new(scene, id, device, plan.slots.get(id), request).ok().flatten().map(|(slot, _)| slot)
}
