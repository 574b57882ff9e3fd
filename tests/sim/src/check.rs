//! What must hold: at every look, and in the end.

use std::collections::BTreeMap;

use muster_control_plane_core::decide::{Decision, is_frozen};
use muster_control_plane_core::explain::Reason;
use muster_control_plane_core::fleet::Slots;
use muster_control_plane_core::rollout::{Rollout, Stage};
use muster_shared::reported::Phase;
use muster_shared::{DeploymentName, DeviceId};

use crate::catalog::{Catalog, Nature};
use crate::device::Device;
use crate::plane::Plane;

/// After every look: grants hold, and nothing of frozen devices moves.
pub fn decision(before: &BTreeMap<DeploymentName, Rollout>, decision: &Decision) -> Result<(), String> {
    let Decision { state, plan, inputs, .. } = decision;
    for (id, slots) in &state.placements {
        let Some(machine) = inputs.devices.get(id).and_then(|device| device.machine.as_ref()) else {
            return Err(format!("{id} has slots and is not known"));
        };
        let memory: u64 = slots.values().map(|slot| slot.resources.memory_bytes).sum();
        let cpu: u32 = slots.values().map(|slot| slot.resources.cpu_milli).sum();
        if memory > machine.memory_bytes || cpu > machine.cpu_milli {
            return Err(format!("{id} is over its grants: {memory} bytes, {cpu}m"));
        }
    }
    for (name, wanted) in &plan.wanted {
        let placed = state.placements.values().filter(|slots| slots.contains_key(name)).count();
        let leaving = plan.leaving.keys().filter(|(of, _)| of == name).count();
        let missing = plan.waiting.get(name).map_or(0, |waiting| waiting.missing) as usize;
        if placed - leaving + missing != *wanted as usize {
            return Err(format!(
                "{name}: {placed} placed, {leaving} of them leave, {missing} wait, {wanted} are wanted"
            ));
        }
    }
    made_before_broken(decision)?;
    let frozen = |id| state.liveness.freezes.values().any(|freeze| freeze.devices.contains(id));
    for ((name, id), reason) in &plan.leaving {
        if matches!(reason, Reason::Lost(_) | Reason::Crowded(_))
            && frozen(id)
            && !inputs.relieved.contains(&(name.clone(), id.clone()))
        {
            return Err(format!("{name} leaves {id}, which is frozen: {reason}"));
        }
    }
    if is_frozen(&state.liveness) {
        for (name, rollout) in &state.rollouts {
            let Some(held) = before.get(name).filter(|held| held.number == rollout.number) else { continue };
            if rollout.granted.keys().any(|id| !held.granted.contains_key(id)) || rollout.stage != held.stage {
                return Err(format!("the rollout of {name} goes on while moves are frozen"));
            }
        }
    }
    Ok(())
}

/// A replica that answers goes only when enough others answer.
fn made_before_broken(decision: &Decision) -> Result<(), String> {
    let Decision { state, plan, inputs, .. } = decision;
    for (id, slots) in &inputs.previous {
        let kept = state.placements.get(id);
        let Some(device) = inputs.devices.get(id) else { continue };
        for name in slots.keys().filter(|name| kept.is_none_or(|kept| !kept.contains_key(*name))) {
            let Some(wanted) = plan.wanted.get(name) else { continue };
            let answers = |(at, slots): &(&DeviceId, &Slots)| {
                slots.contains_key(name) && inputs.devices.get(*at).is_some_and(|device| device.answered(name))
            };
            let left = state.placements.iter().filter(answers).count();
            if device.serves(name) && left < *wanted as usize {
                return Err(format!("{name} goes from {id}, and {left} of {wanted} are left that answer"));
            }
        }
    }
    Ok(())
}

/// In the end, when all faults are over. An error says what has not converged yet.
pub fn converged(plane: &Plane, devices: &[Device], catalog: &Catalog) -> Result<(), String> {
    for device in devices.iter().filter(|device| !device.dead) {
        told(plane, device)?;
    }
    for (name, rollout) in &plane.database.state.rollouts {
        deployment(plane, devices, name, rollout)?;
    }
    for name in plane.database.deployments.keys() {
        let has_reason = plane.plan.waiting.contains_key(name);
        if !plane.database.state.rollouts.contains_key(name) && !has_reason {
            return Err(format!("{name} has no rollout and no reason"));
        }
    }
    for device in devices {
        let bad = |manifest| catalog.nature(manifest) != Nature::Good;
        if let Some(spec) = device.proven().find(|spec| bad(spec.manifest)) {
            return Err(format!("{} has proven the bad version {} of {}", device.id, spec.version, spec.deployment));
        }
        let mut answers = device.answering().filter_map(|name| device.answers(name));
        if let Some(spec) = answers.find(|spec| bad(spec.manifest)) {
            return Err(format!("{} serves the bad version {} of {}", device.id, spec.version, spec.deployment));
        }
    }
    Ok(())
}

/// Where every deployment has a good version to go to, no rollout is stopped or taken back, but for want
/// of room.
pub fn nothing_stopped(plane: &Plane) -> Result<(), String> {
    let over = |rollout: &Rollout| match &rollout.stage {
        Stage::Stopped { reason } => !reason.contains(" wanted, "),
        stage => *stage == Stage::Undone,
    };
    let stopped = plane.database.state.rollouts.iter().find(|(_, rollout)| over(rollout));
    stopped.map_or(Ok(()), |(name, rollout)| Err(format!("the rollout of {name} is over: {:?}", rollout.stage)))
}

/// Whether a device holds the newest desired state, and that is the plan.
fn told(plane: &Plane, device: &Device) -> Result<(), String> {
    let id = &device.id;
    let Some(run) = device.run() else { return Err(format!("{id} is off")) };
    if run.session.is_none() {
        return Err(format!("{id} is not connected"));
    }
    let Some(record) = plane.database.desired.get(id) else { return Err(format!("{id} was never told anything")) };
    if plane.database.devices.get(id).map(|it| it.placed) != Some(record.issued.slots) {
        return Err(format!("{id} was not told of the plan"));
    }
    let held = run.agent.held();
    if held.map(|held| (held.generation, held.digest)) != Some((record.issued.generation, record.issued.digest)) {
        let (held, newest) = (held.map(|held| held.generation), record.issued.generation);
        return Err(format!("{id} holds {held:?}, the newest is {newest}"));
    }
    if !plane.is_current(id) {
        return Err(format!("{id} was not heard since"));
    }
    let placed = plane.database.state.placements.get(id);
    let unwanted = device.answering().find(|name| placed.is_none_or(|slots| !slots.contains_key(*name)));
    unwanted.map_or(Ok(()), |name| Err(format!("{id} serves {name} without being told to")))
}

/// Whether a deployment has what is wanted, or says why not.
fn deployment(plane: &Plane, devices: &[Device], name: &DeploymentName, rollout: &Rollout) -> Result<(), String> {
    let holds = |device: &&Device| {
        let slots = plane.database.state.placements.get(&device.id);
        slots.is_some_and(|slots| slots.contains_key(name)) && !plane.plan.leaves(name, &device.id)
    };
    let holders: Vec<&Device> = devices.iter().filter(holds).collect();
    // With nobody who could begin there is nothing that could go on.
    if rollout.is_under_way() && holders.iter().any(|device| !device.dead) {
        return Err(format!("the rollout of {name} is under way: {:?}", rollout.stage));
    }
    let wanted = plane.plan.wanted.get(name).copied().unwrap_or(0);
    if holders.len() < wanted as usize && !plane.plan.waiting.contains_key(name) {
        return Err(format!("{name} has {} of {wanted} replicas and no reason", holders.len()));
    }
    let settled = rollout.settled_on().manifest;
    for device in holders.into_iter().filter(|device| !device.dead) {
        let report =
            device.run().and_then(|run| run.agent.slot_reports().into_iter().find(|it| it.deployment == *name));
        let Some(report) = report else { return Err(format!("{} has no slot for {name}", device.id)) };
        let runs = report.running.map(|bundle| bundle.manifest);
        if report.phase != Phase::Serving || runs != Some(settled) {
            return Err(format!("{}: {name} is {:?} ({:?})", device.id, report.phase, report.waiting));
        }
        if device.answers(name).map(|spec| spec.manifest) != Some(settled) {
            return Err(format!("{}: requests for {name} do not reach what serves", device.id));
        }
    }
    let leavers = plane.plan.leaving.keys().filter(|(of, _)| of == name).count();
    if leavers > 0 && !plane.plan.waiting.contains_key(name) {
        return Err(format!("{leavers} replicas of {name} leave and do not go"));
    }
    Ok(())
}

/// How the plane sees its fleet, for whoever looks into a seed that failed.
pub fn describe(plane: &Plane) -> String {
    let mut lines = Vec::new();
    for (name, rollout) in &plane.database.state.rollouts {
        let (number, version, stage) = (rollout.number, rollout.target.version, &rollout.stage);
        let previous = rollout.previous.as_ref().map(|previous| previous.version.get());
        lines.push(format!("{name}: rollout {number} of version {version} after {previous:?}: {stage:?}"));
        lines.extend(rollout.failed.iter().map(|(id, failure)| format!("  {id} failed: {}", failure.reason)));
    }
    lines.extend(plane.plan.leaving.iter().map(|((name, id), why)| format!("{name} leaves {id}: {why}")));
    lines.extend(plane.plan.waiting.iter().map(|(name, waiting)| format!("{name} waits: {waiting}")));
    lines.join("\n")
}
