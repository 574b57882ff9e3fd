//! One replica may move from a crowded device to an empty one, for a gain that is worth it.
//!
//! Few moves and never back: one at a time, only while nothing else is under way, only to a device
//! that has been there for a while, and only where the fuller of the two devices gains at least
//! [`GAIN_PERMILLE`]. Each such move raises the least free room of its two devices, so moves end.

use std::cmp::Reverse;

use muster_shared::{DeploymentName, DeviceId};

use crate::explain::{Choice, Reason};
use crate::fleet::{Device, Inputs, Machine, Presence, Slots};
use crate::place::{self, Scene};
use crate::plan::{Plan, put, request};

/// How much more must be free on the fuller of the two devices, in thousandths.
pub const GAIN_PERMILLE: u32 = 250;
/// How long a device must have been there before replicas come to it for a gain: a device that comes
/// and goes gets none.
pub const SETTLED_MS: u64 = 120_000;

/// Moves at most one replica.
pub fn improve(scene: &Scene<'_>, plan: &mut Plan) {
    if !is_quiet(scene.inputs, plan) {
        return;
    }
    let Some(Move { name, from, to, before_permille, after_permille }) = best_move(scene, plan) else { return };
    let Some(wanted) = scene.inputs.deployments.get(&name) else { return };
    let request = request(scene.inputs, &name, wanted, &to);
    let Some(slot) = request.and_then(|request| place::fits_new(scene, &to, plan, request)) else { return };
    // Made before it is broken: the old one lingers until the new one serves.
    plan.leaving.insert((name, from.clone()), Reason::Crowded(from.clone()));
    put(plan, &to, slot, Choice::Relieves { from, before_permille, after_permille });
}

struct Move {
    name: DeploymentName,
    from: DeviceId,
    to: DeviceId,
    before_permille: u32,
    after_permille: u32,
}

/// A device that replicas may come to for a gain.
struct Candidate<'a> {
    id: &'a DeviceId,
    machine: &'a Machine,
    slots: &'a Slots,
    free_permille: u32,
}

/// Whether every replica is in its place and serves what it should, on devices that are all known.
fn is_quiet(inputs: &Inputs, plan: &Plan) -> bool {
    let settled = |(id, slots): (&DeviceId, &Slots)| {
        inputs.devices.get(id).is_some_and(|device| {
            slots.values().all(|slot| {
                let running = device.slots.get(&slot.deployment).and_then(|report| report.running);
                device.is_up() && running == Some(slot.manifest)
            })
        })
    };
    let held: usize = plan.slots.values().map(Slots::len).sum();
    let wanted: u32 = plan.wanted.values().sum();
    let unchanged = plan.choices.values().all(|choice| *choice == Choice::Kept);
    plan.leaving.is_empty() && unchanged && held as u64 >= u64::from(wanted) && plan.slots.iter().all(settled)
}

fn best_move(scene: &Scene<'_>, plan: &Plan) -> Option<Move> {
    let none = Slots::new();
    let mut candidates = Vec::new();
    for (id, device) in scene.inputs.devices.iter().filter(|(id, device)| takes(id, device)) {
        let Some(machine) = &device.machine else { continue };
        let slots = plan.slots.get(id).unwrap_or(&none);
        candidates.push(Candidate { id, machine, slots, free_permille: place::free_permille(machine, slots, None) });
    }
    // The emptiest first: as soon as one is too full for a gain, so are all the others.
    candidates.sort_by_key(|candidate| (Reverse(candidate.free_permille), candidate.id));

    let mut best: Option<Move> = None;
    for (from, slots) in &plan.slots {
        let machine = scene.inputs.devices.get(from).and_then(|device| device.machine.as_ref());
        let Some(machine) = machine else { continue };
        let before_permille = place::free_permille(machine, slots, None);
        for to in &candidates {
            let at_best = to.free_permille.saturating_sub(before_permille);
            let to_beat = best.as_ref().map_or(GAIN_PERMILLE - 1, Move::gain_permille);
            if at_best <= to_beat {
                break;
            }
            if to.id == from {
                continue;
            }
            for (name, slot) in slots {
                let mut rest = slots.clone();
                rest.remove(name);
                let freer = place::free_permille(machine, &rest, None);
                let after_permille = freer.min(place::free_permille(to.machine, to.slots, Some(slot)));
                let found =
                    Move { name: name.clone(), from: from.clone(), to: to.id.clone(), before_permille, after_permille };
                let to_beat = best.as_ref().map_or(GAIN_PERMILLE - 1, Move::gain_permille);
                if found.gain_permille() > to_beat && is_allowed(scene, plan, &found) {
                    best = Some(found);
                }
            }
        }
    }
    best
}

impl Move {
    fn gain_permille(&self) -> u32 {
        self.after_permille.saturating_sub(self.before_permille)
    }
}

/// Whether the other device may have the replica, as it is here.
fn is_allowed(scene: &Scene<'_>, plan: &Plan, found: &Move) -> bool {
    let Move { name, from, to, .. } = found;
    let fits = |wanted| {
        let request = request(scene.inputs, name, wanted, to)?;
        place::fits_new(scene, to, plan, request)
    };
    let slot = scene.inputs.deployments.get(name).and_then(fits);
    let here = plan.slots.get(from).and_then(|slots| slots.get(name));
    let same = slot.zip(here).is_some_and(|(slot, here)| slot.resources == here.resources);
    same && keeps_spread(scene.inputs, plan, name, from, to)
}

/// Whether replicas may come to a device for a gain.
fn takes(id: &DeviceId, device: &Device) -> bool {
    let settled = matches!(device.presence, Presence::Up { for_ms } if for_ms >= SETTLED_MS);
    settled && place::obstacle(id, device).is_none()
}

/// Whether a move crowds no site with replicas of one deployment.
fn keeps_spread(inputs: &Inputs, plan: &Plan, name: &DeploymentName, from: &DeviceId, to: &DeviceId) -> bool {
    let site = |id: &DeviceId| inputs.devices.get(id).and_then(Device::site);
    let at = |wanted: Option<&str>| {
        plan.slots.iter().filter(|(id, slots)| slots.contains_key(name) && site(id) == wanted).count()
    };
    site(from) == site(to) || at(site(to)) < at(site(from))
}
