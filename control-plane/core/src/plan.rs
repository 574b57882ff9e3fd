//! The whole plan: which slots each device is to have, and what each waiting replica waits for.
//!
//! First everything that may stay stays, in the order of the deployments' names; then what is
//! missing is placed, then what waits is explained. So a new deployment never drives out one that runs.

use std::collections::BTreeMap;

use muster_shared::desired::SlotSpec;
use muster_shared::{DeploymentName, DeviceId, Version};

use crate::explain::{Choice, Reason, Waiting};
use crate::fleet::{Inputs, Slots, Wanted};
use crate::place::{self, Request};

/// What is to be, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The slots of each device; a device without any is not named.
    pub slots: BTreeMap<DeviceId, Slots>,
    /// Why each replica is where it is.
    pub choices: BTreeMap<(DeploymentName, DeviceId), Choice>,
    /// Deployments that do not have all their replicas, and why.
    pub waiting: BTreeMap<DeploymentName, Waiting>,
    /// The version that each deployment's rule means today.
    pub versions: BTreeMap<DeploymentName, Version>,
}

/// Plans. Equal inputs give equal plans; a plan that is given back as `previous` is kept.
pub fn plan(inputs: &Inputs) -> Plan {
    let mut plan = Plan::default();
    for (name, wanted) in &inputs.deployments {
        keep_places(inputs, name, wanted, &mut plan);
    }
    for (name, wanted) in &inputs.deployments {
        place_missing(inputs, name, wanted, &mut plan);
    }
    for (name, wanted) in &inputs.deployments {
        explain_waiting(inputs, name, wanted, &mut plan);
    }
    plan
}

/// Keeps up to the wanted number of replicas where they are, in the version that is wanted now.
fn keep_places(inputs: &Inputs, name: &DeploymentName, wanted: &Wanted, plan: &mut Plan) {
    let request = request(inputs, name, wanted);
    if let Some(request) = request {
        plan.versions.insert(name.clone(), request.version);
    }
    let mut kept = 0;
    for (id, held) in held_places(inputs, name) {
        if kept == wanted.replicas {
            break;
        }
        let Some(device) = inputs.devices.get(id) else { continue };
        // Without a bundle for what is wanted now, what runs goes on as it is.
        let slot = match request {
            Some(request) => place::slot(request, device.machine.as_ref()),
            None => Some(held.clone()),
        };
        let Some(slot) = slot else { continue };
        let slots = plan.slots.get(id).cloned().unwrap_or_default();
        if place::keeps(device, &slots, &slot, wanted) {
            put(plan, id, slot, Choice::Kept);
            kept += 1;
        }
    }
}

/// Where a deployment was placed before; the devices that are fit for something new come first, so
/// that they stay when fewer replicas are wanted.
fn held_places<'a>(inputs: &'a Inputs, name: &DeploymentName) -> Vec<(&'a DeviceId, &'a SlotSpec)> {
    let held = |(id, slots): (&'a DeviceId, &'a Slots)| slots.get(name).map(|slot| (id, slot));
    let mut places: Vec<_> = inputs.previous.iter().filter_map(held).collect();
    places.sort_by_key(|(id, slot)| {
        let device = inputs.devices.get(*id);
        let healthy = device
            .is_some_and(|device| device.connected && !device.cordoned && !device.refused.contains_key(&slot.manifest));
        (!healthy, *id)
    });
    places
}

/// Places the replicas that have no place, as far as there is room.
fn place_missing(inputs: &Inputs, name: &DeploymentName, wanted: &Wanted, plan: &mut Plan) {
    let Some(request) = request(inputs, name, wanted) else { return };
    for _ in 0..missing(name, wanted, plan) {
        let Ok((id, slot, choice)) = place::best_device(inputs, &plan.slots, request) else { return };
        put(plan, &id, slot, choice);
    }
}

/// Says what the replicas without a place wait for, in view of the whole plan.
fn explain_waiting(inputs: &Inputs, name: &DeploymentName, wanted: &Wanted, plan: &mut Plan) {
    let missing = missing(name, wanted, plan);
    let waiting = match request(inputs, name, wanted) {
        // Said also when all replicas run something older: this is what the new version waits for.
        None if wanted.replicas > 0 => {
            let reason = Reason::NoBundle { model: wanted.model.clone(), version: wanted.version };
            Waiting { missing, wanted: wanted.replicas, reasons: vec![reason] }
        }
        Some(request) if missing > 0 => match place::best_device(inputs, &plan.slots, request) {
            Err(reasons) => Waiting { missing, wanted: wanted.replicas, reasons },
            Ok(_) => return,
        },
        _ => return,
    };
    plan.waiting.insert(name.clone(), waiting);
}

/// How many replicas have no place.
fn missing(name: &DeploymentName, wanted: &Wanted, plan: &Plan) -> u32 {
    let holders = plan.slots.values().filter(|slots| slots.contains_key(name)).count();
    wanted.replicas.saturating_sub(holders.try_into().unwrap_or(u32::MAX))
}

fn request<'a>(inputs: &'a Inputs, name: &'a DeploymentName, wanted: &'a Wanted) -> Option<Request<'a>> {
    inputs.bundle(wanted).map(|(version, bundle)| Request { name, wanted, version, bundle })
}

fn put(plan: &mut Plan, id: &DeviceId, slot: SlotSpec, choice: Choice) {
    let name = slot.deployment.clone();
    plan.choices.insert((name.clone(), id.clone()), choice);
    plan.slots.entry(id.clone()).or_default().insert(name, slot);
}

#[cfg(test)]
mod tests;
