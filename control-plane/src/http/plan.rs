//! What the planner is about to do, and why things are as they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_control_plane_core::decide::{Decision, State as Remembered, decide};
use muster_control_plane_core::fleet::Presence;
use muster_control_plane_core::liveness::{Freeze, Group, Liveness};
use muster_control_plane_core::place::{free, obstacle};
use muster_shared::api::Problem;
use muster_shared::api::deployment::Deployment;
use muster_shared::api::plan::{
    Change, ChangeView, Demand, DeploymentExplained, DeviceExplained, DeviceReplica, FreezeView, PlanRequest, PlanView,
    WaitingView,
};
use muster_shared::figures::{TARGET_USE, replicas_needed, short};
use muster_shared::quantity::Millis;
use muster_shared::{DeploymentName, DeviceId};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath};
use super::{deployments, devices};
use crate::db::{self, deployments::DeploymentRecord};
use crate::figures::together;
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;
use crate::status::{self, Facts};
use crate::tasks::planner;
use crate::trust::members;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .routes(routes!(preview))
        .routes(routes!(approve))
        .routes(routes!(explain_deployment))
        .routes(routes!(explain_device))
}

/// What would change, and why, without changing it.
#[utoipa::path(post, path = "/plan", tag = "plan", request_body = PlanRequest,
    responses((status = 200, body = PlanView), (status = 422, body = Problem)))]
async fn preview(
    State(plane): State<Arc<Plane>>,
    ApiJson(asked): ApiJson<PlanRequest>,
) -> Result<Json<PlanView>, ApiError> {
    for deployment in &asked.deployments {
        deployments::check(&deployment.metadata.name, deployment)?;
    }
    Ok(Json(planned(&plane, asked.deployments).await?))
}

/// Where the database was put back, the planner goes on with it. Else devices that are silent are taken for
/// lost, and those that hold more than this database remembers go back to it. These are two steps: by the
/// first, what the planner wants of such devices may become right again.
#[utoipa::path(post, path = "/plan/approve", tag = "plan", responses((status = 200, body = PlanView)))]
async fn approve(State(plane): State<Arc<Plane>>) -> Result<Json<PlanView>, ApiError> {
    let deciding = plane.deciding.lock().await;
    let was_put_back = db::members::restored(plane.db.read()).await?.is_some();
    if was_put_back {
        // Devices may not be back yet, so nobody is given up by this.
        members::approve_restored(&plane).await?;
    } else {
        let mut liveness = db::documents::liveness(plane.db.read()).await?;
        liveness.approve();
        db::documents::set_liveness(plane.db.write(), &liveness).await?;
    }
    drop(deciding);
    let held_back: Vec<DeviceId> = plane.live.read(|devices| {
        let is_held_back = |device: &LiveDevice| device.held_back.is_some() && !was_put_back;
        devices.iter().filter(|(_, device)| is_held_back(device)).map(|(id, _)| id.clone()).collect()
    });
    for id in held_back {
        plane.live.change(&id, |live| live.may_go_back = true);
    }
    let view = planned(&plane, vec![]).await?;
    plane.nudges.planner.notify_one();
    plane.nudges.publisher.notify_one();
    Ok(Json(view))
}

async fn planned(plane: &Plane, asked: Vec<Deployment>) -> Result<PlanView, ApiError> {
    let records = db::deployments::list(plane.db.read()).await?;
    let before = planner::read_state(plane).await?;
    let mut observed = planner::observe(plane, &before, &records).await?;
    observed.deployments.extend(asked.into_iter().map(|asked| (asked.metadata.name, asked.spec)));
    let decision = decide(before.clone(), &observed, now_ms());
    let restored = members::waits(plane.db.read()).await?;
    Ok(PlanView { restored, ..view(&before, &decision) })
}

fn view(before: &Remembered, decision: &Decision) -> PlanView {
    let waiting = decision.plan.waiting.iter();
    PlanView {
        frozen: freezes(&decision.state.liveness),
        changes: changes(before, decision),
        waiting: waiting
            .map(|(deployment, why)| WaitingView { deployment: deployment.clone(), why: why.to_string() })
            .collect(),
        restored: None,
    }
}

/// Groups of devices that fell silent together.
pub(super) fn freezes(liveness: &Liveness) -> Vec<FreezeView> {
    liveness.freezes.iter().map(|(group, freeze)| freeze_view(group, freeze)).collect()
}

fn freeze_view(group: &Group, freeze: &Freeze) -> FreezeView {
    FreezeView {
        group: group.to_string(),
        devices: freeze.devices.iter().cloned().collect(),
        of: freeze.of.try_into().unwrap_or(u32::MAX),
        since_ms: freeze.since_ms,
        message: freeze.to_string(),
    }
}

fn changes(before: &Remembered, decision: &Decision) -> Vec<ChangeView> {
    let after = &decision.state;
    let ids: BTreeSet<&DeviceId> = before.placements.keys().chain(after.placements.keys()).collect();
    let mut changes = Vec::new();
    for id in ids {
        let (old, new) = (before.placements.get(id), after.placements.get(id));
        let names: BTreeSet<&DeploymentName> = old.into_iter().chain(new).flat_map(|slots| slots.keys()).collect();
        for name in names {
            let (old, new) = (old.and_then(|slots| slots.get(name)), new.and_then(|slots| slots.get(name)));
            let note = |state: &Remembered| state.notes.get(id).and_then(|notes| notes.get(name)).cloned();
            let (was, is) = (note(before), note(after));
            let leaves = is.as_ref().and_then(|note| note.leaving.clone());
            let left = was.as_ref().and_then(|note| note.leaving.clone());
            let (change, why) = match (old, new) {
                (None, Some(_)) => (Change::Place, is.map_or_else(String::new, |note| note.why)),
                (Some(_), None) => {
                    (Change::Remove, left.unwrap_or_else(|| "it is not wanted there any more".to_owned()))
                }
                (Some(_), Some(_)) if leaves.is_some() && left.is_none() => (Change::Leave, leaves.unwrap_or_default()),
                (Some(old), Some(new)) if old != new => {
                    let why = match old.version == new.version {
                        true => "it is to run otherwise".to_owned(),
                        false => format!("version {} in place of {}", new.version, old.version),
                    };
                    (Change::Update, why)
                }
                _ => continue,
            };
            let version = new.map(|slot| slot.version);
            changes.push(ChangeView { deployment: name.clone(), device: id.clone(), change, version, why });
        }
    }
    changes
}

/// Why a deployment is as it is.
#[utoipa::path(get, path = "/deployments/{name}/explain", tag = "plan", params(("name" = String, Path)),
    responses((status = 200, body = DeploymentExplained), (status = 404, body = Problem)))]
async fn explain_deployment(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<DeploymentExplained>, ApiError> {
    let record = db::deployments::get(plane.db.read(), &name).await?;
    let record = record.ok_or_else(|| deployments::not_found(&name))?;
    let facts = Facts::read(&plane).await?;
    let status = status::status(&record, &facts);
    let waiting = facts.verdicts.get(&name).and_then(|verdict| verdict.waiting.clone());
    let freezes = facts.liveness.freezes.iter();
    let frozen: Vec<String> = freezes.map(|(group, freeze)| format!("{group}: {freeze}")).collect();
    let held_back = status.replicas.iter().filter(|replica| replica.reason.is_some() && !replica.leaving);
    let held_back =
        held_back.map(|replica| format!("{}: {}", replica.device, replica.reason.clone().unwrap_or_default()));
    Ok(Json(DeploymentExplained {
        waiting: facts.restored.iter().cloned().chain(waiting.map(|(_, sentence)| sentence)).chain(held_back).collect(),
        demand: demand(&record, &facts),
        frozen: (!frozen.is_empty()).then(|| frozen.join("; ")),
        name,
        wanted: status.wanted,
        ready: status.ready,
        version: status.version,
        replicas: status.replicas,
        rollout: status.rollout,
    }))
}

/// What is asked of all replicas together, and how many replicas that needs.
pub(super) fn demand(record: &DeploymentRecord, facts: &Facts) -> Option<Demand> {
    let figures = together(facts.sums.values().filter_map(|models| models.get(&record.name)))?;
    let granted = record.spec.resources.cpu;
    let needed = replicas_needed(figures.cores_demanded, granted.0);
    let (rate, cores) = (short(figures.requests_per_second), short(figures.cores_demanded));
    let each = short(figures.core_ms_per_prediction.unwrap_or(0.0));
    let core = if cores == "1" { "core" } else { "cores" };
    let replica = if needed == 1 { "replica" } else { "replicas" };
    let (milli, percent) = (granted.0, TARGET_USE * 100.0);
    let sentence =
        format!("{rate}/s × {each} core-ms = {cores} {core}; ÷ ({milli}m × {percent:.0} %) → {needed} {replica}");
    Some(Demand { figures, replicas_needed: needed, sentence })
}

/// Why a device is as it is.
#[utoipa::path(get, path = "/devices/{id}/explain", tag = "plan", params(("id" = String, Path)),
    responses((status = 200, body = DeviceExplained), (status = 404, body = Problem)))]
async fn explain_device(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
) -> Result<Json<DeviceExplained>, ApiError> {
    let records = db::deployments::list(plane.db.read()).await?;
    let before = planner::read_state(&plane).await?;
    let observed = planner::observe(&plane, &before, &records).await?;
    let decision = decide(before, &observed, now_ms());
    let facts = Facts::read(&plane).await?;
    let live = facts.devices.get(&id).ok_or_else(|| devices::not_found(&id))?;
    let standing = (!live.standing_why.is_empty()).then(|| live.standing_why.clone());
    let Some(device) = decision.inputs.devices.get(&id) else {
        return Ok(Json(apart(id, live)));
    };
    let slots = facts.placements.get(&id).cloned().unwrap_or_default();
    let replicas = slots
        .iter()
        .map(|(name, slot)| DeviceReplica { deployment: name.clone(), replica: status::replica(&id, slot, &facts) });
    let held_back = facts.devices.get(&id).and_then(|live| live.held_back.clone());
    let refusals = device.refused.values().map(|refused| format!("it refused a bundle: {}", refused.reason));
    let machine = device.machine.as_ref();
    let granted = machine.map(|machine| {
        let (free_milli, free_bytes) = free(machine, &slots);
        (
            machine.cpu_milli - free_milli.min(machine.cpu_milli),
            machine.memory_bytes - free_bytes.min(machine.memory_bytes),
        )
    });
    let (cpu_milli_granted, memory_bytes_granted) = granted.unwrap_or_default();
    Ok(Json(DeviceExplained {
        schedule: device.schedule,
        presence: presence(device.presence),
        cpu_milli: machine.map(|machine| machine.cpu_milli),
        cpu_milli_granted,
        memory_bytes: machine.map(|machine| machine.memory_bytes),
        memory_bytes_granted,
        replicas: replicas.collect(),
        obstacles: obstacle(&id, device)
            .map(|reason| reason.to_string())
            .into_iter()
            .chain(facts.restored.clone())
            .chain(standing)
            .chain(held_back)
            .chain(refusals)
            .collect(),
        id,
    }))
}

/// A device that is no member: the planner does not count with it.
fn apart(id: DeviceId, live: &LiveDevice) -> DeviceExplained {
    let standing = format!("{:?}", live.standing).to_lowercase();
    DeviceExplained {
        id,
        schedule: Default::default(),
        presence: format!("{standing}: nothing is placed on it"),
        cpu_milli: None,
        cpu_milli_granted: 0,
        memory_bytes: None,
        memory_bytes_granted: 0,
        replicas: vec![],
        obstacles: std::iter::once(live.standing_why.clone()).filter(|why| !why.is_empty()).collect(),
    }
}

fn presence(presence: Presence) -> String {
    let rounded = |ms: u64| Millis(ms / 1000 * 1000);
    match presence {
        Presence::Up { for_ms } => format!("connected for {}", rounded(for_ms)),
        Presence::Silent { frozen: true, .. } => "silent, together with many others: nothing of it moves".to_owned(),
        Presence::Silent { for_ms: u64::MAX, .. } => "silent; an operator takes it for lost".to_owned(),
        Presence::Silent { for_ms, .. } => format!("silent for {}", rounded(for_ms)),
    }
}
