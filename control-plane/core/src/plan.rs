//! The whole plan: which slots each device is to have, and what each waiting replica waits for.
//!
//! First everything that may stay stays, in the order of the deployments' names; then what leaves
//! lingers where nothing serves in its place yet; then what is missing is placed; then one replica
//! may move for a gain; then what waits is explained. So a new deployment never drives out one that
//! runs, and nothing is broken before its replacement is made.
//!
//! Invariant: the slots of a device never have more memory together than it has.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::desired::SlotSpec;
use muster_shared::{DeploymentName, DeviceId, Version};

use crate::explain::{Choice, Reason, Waiting};
use crate::fleet::{Granted, Inputs, Measurements, Slots, Wanted};
use crate::place::{self, Request, Scene};
use crate::rebalance;

/// What is to be, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The slots of each device; a device without any is not named.
    pub slots: BTreeMap<DeviceId, Slots>,
    /// Why each replica is where it is.
    pub choices: BTreeMap<(DeploymentName, DeviceId), Choice>,
    /// Replicas that go as soon as others serve in their place, and why.
    pub leaving: BTreeMap<(DeploymentName, DeviceId), Reason>,
    /// Deployments that do not have all their replicas, and why.
    pub waiting: BTreeMap<DeploymentName, Waiting>,
    /// The version that each deployment is on or on its way to.
    pub versions: BTreeMap<DeploymentName, Version>,
    /// Replicas that each deployment is to have.
    pub wanted: BTreeMap<DeploymentName, u32>,
}

/// Plans. Equal inputs give equal plans; a plan that is given back as `previous` is kept.
pub fn plan(inputs: &Inputs) -> Plan {
    let scene = Scene { inputs, measured: Measurements::of(&inputs.devices) };
    let mut plan = Plan::default();
    let mut leaving = Vec::new();
    for (name, wanted) in &inputs.deployments {
        leaving.extend(keep_places(inputs, name, wanted, &mut plan));
    }
    for leaver in leaving {
        linger(inputs, leaver, &mut plan);
    }
    for (name, wanted) in &inputs.deployments {
        place_missing(&scene, name, wanted, &mut plan);
    }
    rebalance::improve(&scene, &mut plan);
    for (name, wanted) in &inputs.deployments {
        explain_waiting(&scene, name, wanted, &mut plan);
    }
    mark_swaps(inputs, &mut plan);
    plan
}

impl Plan {
    /// Whether a replica goes as soon as another one serves in its place.
    pub fn leaves(&self, name: &DeploymentName, device: &DeviceId) -> bool {
        !self.leaving.is_empty() && self.leaving.contains_key(&(name.clone(), device.clone()))
    }
}

/// A replica that may not stay where it is.
struct Leaver<'a> {
    name: &'a DeploymentName,
    device: &'a DeviceId,
    /// What it may have meanwhile, best first.
    slots: Vec<SlotSpec>,
    reason: Reason,
}

/// Keeps up to the wanted number of replicas where they are, each with the release that its device is
/// to have. Gives back those that may not stay.
fn keep_places<'a>(inputs: &'a Inputs, name: &'a DeploymentName, wanted: &Wanted, plan: &mut Plan) -> Vec<Leaver<'a>> {
    let replicas = inputs.replicas(wanted);
    plan.wanted.insert(name.clone(), replicas);
    if let Some(releases) = &wanted.releases {
        plan.versions.insert(name.clone(), releases.target.version);
    }
    let mut kept = 0;
    let mut leaving = Vec::new();
    for (id, held) in held_places(inputs, name, wanted) {
        let Some(device) = inputs.devices.get(id) else { continue };
        let none = Slots::new();
        let slots = plan.slots.get(id).unwrap_or(&none);
        let (slot, unfit) = match request(inputs, name, wanted, id) {
            Some(request) => {
                let slot = place::slot(request, device.machine.as_ref());
                // One that grows must leave room for those that are here, too.
                let grows = slot.as_ref().is_some_and(|slot| slot.resources != held.resources);
                let beside = if grows { beside(inputs, id, name, slots) } else { slots.clone() };
                let unfit = place::why_unfit(id, device, &beside, slot.as_ref(), request.release);
                (slot, unfit)
            }
            // Without a bundle for what is wanted now, what runs goes on as it is.
            None => (Some(held.clone()), place::why_no_room(id, device, slots, held)),
        };
        // What leaves for another cause than what it is to run keeps up with the others meanwhile.
        let fitting = slot.filter(|_| unfit.is_none());
        let mut meanwhile: Vec<SlotSpec> = fitting.clone().into_iter().collect();
        meanwhile.push(held.clone());
        let leaver = |reason| Leaver { name, device: id, slots: meanwhile, reason };
        let is_relieved = inputs.relieved.contains(&(name.clone(), id.clone()));
        let is_stuck = inputs.stuck.contains(&(name.clone(), id.clone()));
        let stuck = is_stuck.then(|| Reason::Stuck(id.clone()));
        match (place::why_leave(id, device, wanted).or(unfit).or(stuck), fitting) {
            (Some(reason), _) => leaving.push(leaver(reason)),
            (None, Some(slot)) if kept < replicas => {
                put(plan, id, slot, Choice::Kept);
                kept += 1;
            }
            (None, _) if is_relieved => leaving.push(leaver(Reason::Crowded(id.clone()))),
            // One too many, or nothing to run there.
            _ => {}
        }
    }
    leaving
}

/// What is kept on a device, and what else was there before and is still wanted.
pub(crate) fn beside(inputs: &Inputs, id: &DeviceId, name: &DeploymentName, kept: &Slots) -> Slots {
    let mut slots = inputs.previous.get(id).cloned().unwrap_or_default();
    slots.retain(|of, _| of != name && inputs.deployments.contains_key(of));
    slots.extend(kept.clone());
    slots
}

/// Where a deployment was placed before. Those that serve come first, then those that are fit for
/// something new, so that they stay when fewer replicas are wanted. Those that were to go for a gain
/// come last: they stay only where the other end of their move is gone.
fn held_places<'a>(inputs: &'a Inputs, name: &DeploymentName, wanted: &Wanted) -> Vec<(&'a DeviceId, &'a SlotSpec)> {
    let held = |(id, slots): (&'a DeviceId, &'a Slots)| slots.get(name).map(|slot| (id, slot));
    let mut places: Vec<_> = inputs.previous.iter().filter_map(held).collect();
    places.sort_by_cached_key(|(id, _)| {
        let device = inputs.devices.get(*id);
        let open = device.is_some_and(|device| place::obstacle(id, device).is_none());
        let as_wanted = device.zip(wanted.releases.as_ref());
        let as_wanted = as_wanted.is_some_and(|(device, releases)| device.serves_release(name, releases.of(id)));
        let serves = device.is_some_and(|device| device.serves(name));
        let relieved = inputs.relieved.contains(&(name.clone(), (*id).clone()));
        (relieved, !(open && serves), !serves, !open, !as_wanted, (*id).clone())
    });
    places
}

/// Keeps a leaving replica as long as fewer answer elsewhere than are wanted: what replaces it is made
/// before it is broken.
fn linger(inputs: &Inputs, leaver: Leaver<'_>, plan: &mut Plan) {
    let Leaver { name, device: id, slots, reason } = leaver;
    let Some(wanted) = inputs.deployments.get(name) else { return };
    let (Some(device), Some(replicas)) = (inputs.devices.get(id), plan.wanted.get(name).copied()) else { return };
    let answering = plan.slots.iter().filter(|(at, slots)| {
        let answered = inputs.devices.get(*at).is_some_and(|device| device.answered(name));
        slots.contains_key(name) && (answered || plan.leaves(name, at))
    });
    let needed = answering.count() < replicas as usize;
    if !needed || !wanted.selector.matches(&device.labels) {
        return;
    }
    let none = Slots::new();
    let kept = plan.slots.get(id).unwrap_or(&none);
    if let Some(slot) = slots.into_iter().find(|slot| place::why_no_room(id, device, kept, slot).is_none()) {
        plan.leaving.insert((name.clone(), id.clone()), reason);
        put(plan, id, slot, Choice::Kept);
    }
}

/// Places the replicas that have no place, as far as there is room.
fn place_missing(scene: &Scene<'_>, name: &DeploymentName, wanted: &Wanted, plan: &mut Plan) {
    for _ in 0..missing(name, plan) {
        let Ok((id, slot, choice)) = best_place(scene, name, wanted, plan) else { return };
        put(plan, &id, slot, choice);
    }
}

/// The best device for one more replica. During a rollout it begins with what the others have.
fn best_place(
    scene: &Scene<'_>,
    name: &DeploymentName,
    wanted: &Wanted,
    plan: &Plan,
) -> Result<(DeviceId, SlotSpec, Choice), Vec<Reason>> {
    let no_bundle = || vec![scene.inputs.why_nothing(&wanted.model, wanted.version)];
    let releases = wanted.releases.as_ref().ok_or_else(no_bundle)?;
    if let Some(reason) = &releases.closed {
        return Err(vec![Reason::Closed { version: releases.target.version, reason: reason.clone() }]);
    }
    let release = match (&releases.granted, &releases.previous) {
        (Granted::Only(_), Some(previous)) => previous,
        _ => &releases.target,
    };
    let bundle = scene.inputs.bundle(release).ok_or_else(no_bundle)?;
    place::best_device(scene, plan, Request { name, wanted, release, bundle, room: releases.room() })
}

/// Says what the replicas without a place wait for, in view of the whole plan.
fn explain_waiting(scene: &Scene<'_>, name: &DeploymentName, wanted: &Wanted, plan: &mut Plan) {
    let (missing, replicas) = (missing(name, plan), plan.wanted.get(name).copied().unwrap_or(0));
    let unresolved = crate::fleet::resolve(&scene.inputs.bundles, &wanted.model, wanted.version).is_none();
    let reasons = if unresolved && replicas > 0 {
        // Said also when all replicas run something older: this is what the new version waits for.
        vec![scene.inputs.why_nothing(&wanted.model, wanted.version)]
    } else if missing > 0 {
        match best_place(scene, name, wanted, plan) {
            Err(reasons) => self::with_leaving(name, plan, reasons),
            // It is placed in the next plan.
            Ok(_) => return,
        }
    } else {
        return;
    };
    plan.waiting.insert(name.clone(), Waiting { missing, wanted: replicas, reasons });
}

/// Why replicas must leave comes before why no other device takes them.
fn with_leaving(name: &DeploymentName, plan: &Plan, reasons: Vec<Reason>) -> Vec<Reason> {
    let leaving = plan.leaving.iter().filter(|((of, _), _)| of == name).map(|(_, reason)| reason.clone());
    let mut all: Vec<Reason> = leaving.collect();
    let told: BTreeSet<DeviceId> = all.iter().filter_map(|reason| reason.device().cloned()).collect();
    let rest: Vec<Reason> =
        reasons.into_iter().filter(|reason| reason.device().is_none_or(|device| !told.contains(device))).collect();
    // Where only those that must leave speak against it, all others hold one already.
    all.extend(if rest.is_empty() && !all.is_empty() { vec![Reason::OthersHoldOne] } else { rest });
    all
}

/// How many replicas have no place that they may keep.
fn missing(name: &DeploymentName, plan: &Plan) -> u32 {
    let wanted = plan.wanted.get(name).copied().unwrap_or(0);
    let stays = |(id, slots): &(&DeviceId, &Slots)| slots.contains_key(name) && !plan.leaves(name, id);
    wanted.saturating_sub(plan.slots.iter().filter(stays).count().try_into().unwrap_or(u32::MAX))
}

/// Where two versions of a model do not fit beside each other, the old one stops before the new one is
/// loaded. Decided once for each change, so that it does not flap while the change is under way.
fn mark_swaps(inputs: &Inputs, plan: &mut Plan) {
    for (id, slots) in &mut plan.slots {
        let (Some(device), Some(before)) = (inputs.devices.get(id), inputs.previous.get(id)) else { continue };
        let Some(machine) = &device.machine else { continue };
        let (_, mut free_bytes) = place::free(machine, slots);
        let mut changed = Vec::new();
        for (name, slot) in slots.iter_mut() {
            let Some(before) = before.get(name) else { continue };
            let swap_in_place = before.swap_in_place;
            if *before != (SlotSpec { swap_in_place, ..slot.clone() }) {
                changed.push((name.clone(), before.resources.memory_bytes));
                continue;
            }
            slot.swap_in_place = swap_in_place;
            // A change that is under way has the old version beside the new one.
            let runs = device.slots.get(name).and_then(|report| report.running);
            if !swap_in_place && runs.is_some_and(|runs| runs != slot.manifest) {
                free_bytes = free_bytes.saturating_sub(slot.resources.memory_bytes);
            }
        }
        for (name, old_bytes) in changed {
            match (free_bytes.checked_sub(old_bytes), slots.get_mut(&name)) {
                (Some(rest), _) => free_bytes = rest,
                (None, Some(slot)) => slot.swap_in_place = true,
                (None, None) => {}
            }
        }
    }
}

/// The release that a device is to have, with its bundle.
pub(crate) fn request<'a>(
    inputs: &'a Inputs,
    name: &'a DeploymentName,
    wanted: &'a Wanted,
    device: &DeviceId,
) -> Option<Request<'a>> {
    let releases = wanted.releases.as_ref()?;
    let release = releases.of(device);
    inputs.bundle(release).map(|bundle| Request { name, wanted, release, bundle, room: releases.room() })
}

pub(crate) fn put(plan: &mut Plan, id: &DeviceId, slot: SlotSpec, choice: Choice) {
    let name = slot.deployment.clone();
    plan.choices.insert((name.clone(), id.clone()), choice);
    plan.slots.entry(id.clone()).or_default().insert(name, slot);
}

#[cfg(test)]
mod tests;
