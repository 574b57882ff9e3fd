//! One replica may move from a crowded device to an empty one, for a gain that is worth it.
//!
//! Few moves and never back: one at a time, only while nothing else is under way, only to a device
//! that has been there for a while, and only where the fuller of the two devices gains at least
//! [`GAIN_PERMILLE`]. Each such move raises the least free room of its two devices, so moves end.

use muster_shared::{DeploymentName, DeviceId};

use crate::explain::{Choice, Reason};
use crate::fleet::{Device, Inputs, Presence, Slots};
use crate::place;
use crate::plan::{Plan, put, request};

/// How much more must be free on the fuller of the two devices, in thousandths.
pub const GAIN_PERMILLE: u32 = 250;
/// How long a device must have been there before replicas come to it for a gain: a device that comes
/// and goes gets none.
pub const SETTLED_MS: u64 = 120_000;

/// Moves at most one replica.
pub fn improve(inputs: &Inputs, plan: &mut Plan) {
    if !is_quiet(inputs, plan) {
        return;
    }
    let Some((name, from, to, before_permille, after_permille)) = best_move(inputs, plan) else { return };
    let Some(wanted) = inputs.deployments.get(&name) else { return };
    let Some(slot) = request(inputs, &name, wanted, &to)
        .and_then(|request| place::fits_new(inputs, &to, &plan.slots, request))
    else {
        return;
    };
    // Made before it is broken: the old one lingers until the new one serves.
    plan.leaving.insert((name, from.clone()), Reason::Crowded(from.clone()));
    put(plan, &to, slot, Choice::Relieves { from, before_permille, after_permille });
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

fn best_move(inputs: &Inputs, plan: &Plan) -> Option<(DeploymentName, DeviceId, DeviceId, u32, u32)> {
    let none = Slots::new();
    let mut best: Option<(u32, DeploymentName, DeviceId, DeviceId, u32, u32)> = None;
    for (from, slots) in &plan.slots {
        let Some(machine) = inputs.devices.get(from).and_then(|device| device.machine.as_ref()) else { continue };
        let before = place::free_permille(machine, slots, None);
        for (to, device) in inputs.devices.iter().filter(|(id, device)| *id != from && takes(id, device)) {
            let Some(other) = device.machine.as_ref() else { continue };
            let theirs = plan.slots.get(to).unwrap_or(&none);
            for name in slots.keys() {
                let Some(wanted) = inputs.deployments.get(name) else { continue };
                let Some(request) = request(inputs, name, wanted, to) else { continue };
                let Some(slot) = place::fits_new(inputs, to, &plan.slots, request) else { continue };
                let mut rest = slots.clone();
                rest.remove(name);
                let freer = place::free_permille(machine, &rest, None);
                let after = freer.min(place::free_permille(other, theirs, Some(&slot)));
                let gain = after.saturating_sub(before);
                let better = best.as_ref().is_none_or(|(most, ..)| gain > *most);
                if gain >= GAIN_PERMILLE && better && keeps_spread(inputs, plan, name, from, to) {
                    best = Some((gain, name.clone(), from.clone(), to.clone(), before, after));
                }
            }
        }
    }
    best.map(|(_, name, from, to, before, after)| (name, from, to, before, after))
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
