//! A deployment's status: what the planner said, beside what the devices say.

use std::collections::BTreeMap;

use muster_control_plane_core::fleet::Slots;
use muster_shared::api::deployment::{API_VERSION, Condition, Deployment, KIND, Metadata, Replica, Status};
use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::reported::{Phase, Reported};
use muster_shared::{DeploymentName, DeviceId};

use crate::db::deployments::DeploymentRecord;
use crate::db::plans::{Held, Verdict};
use crate::db::{self, DbError};
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;

/// Whether every replica has a place.
pub const PLACED: &str = "Placed";
/// Whether every replica answers with the wanted version.
pub const AVAILABLE: &str = "Available";

/// Everything a status follows from.
pub struct Facts {
    /// What the planner wants of each device.
    pub placements: BTreeMap<DeviceId, Slots>,
    /// What the planner said.
    pub verdicts: BTreeMap<DeploymentName, Verdict>,
    /// Since when conditions hold.
    pub conditions: BTreeMap<(DeploymentName, String), Held>,
    /// What devices said.
    pub devices: BTreeMap<DeviceId, LiveDevice>,
    /// Now.
    pub now_ms: UnixMs,
}

impl Facts {
    /// Reads everything.
    pub async fn read(plane: &Plane) -> Result<Self, DbError> {
        Ok(Self {
            placements: db::plans::placements(plane.db.read()).await?,
            verdicts: db::plans::verdicts(plane.db.read()).await?,
            conditions: db::plans::conditions(plane.db.read()).await?,
            devices: plane.live.read(Clone::clone),
            now_ms: now_ms(),
        })
    }
}

/// The status of one deployment; nothing if there is no such deployment.
pub async fn of(plane: &Plane, name: &DeploymentName) -> Result<Option<Status>, DbError> {
    let Some(record) = db::deployments::get(plane.db.read(), name).await? else { return Ok(None) };
    Ok(Some(status(&record, &Facts::read(plane).await?)))
}

/// The resource as people see it.
pub fn resource(record: &DeploymentRecord, facts: &Facts) -> Deployment {
    Deployment {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata: Metadata {
            name: record.name.clone(),
            labels: record.labels.clone(),
            generation: Some(record.generation),
        },
        spec: record.spec.clone(),
        status: Some(status(record, facts)),
    }
}

/// The status that follows from these facts.
pub fn status(record: &DeploymentRecord, facts: &Facts) -> Status {
    let verdict = facts.verdicts.get(&record.name).cloned().unwrap_or_default();
    let places = facts.placements.iter().filter_map(|(id, slots)| slots.get(&record.name).map(|slot| (id, slot)));
    let replicas: Vec<Replica> = places.map(|(id, slot)| replica(id, slot, facts.devices.get(id))).collect();
    let ready = replicas.iter().filter(|replica| is_ready(replica, facts)).count();
    let wanted = record.spec.replicas;
    let ready = ready.try_into().unwrap_or(u32::MAX);
    let planned = verdict.generation == record.generation;
    let placed = placed(&verdict, planned, replicas.len(), wanted);
    let available = available(&replicas, ready, wanted, &placed, facts);
    let conditions = [placed, available].map(|condition| since(condition, record, facts)).into();
    Status { observed_generation: verdict.generation, wanted, ready, version: verdict.version, replicas, conditions }
}

/// The sentence of the condition that says why a deployment is not available.
pub fn why_not_available(status: &Status) -> Option<String> {
    let unmet = |condition: &&Condition| condition.kind == AVAILABLE && !condition.message.is_empty();
    status.conditions.iter().find(unmet).map(|condition| condition.message.clone())
}

fn replica(id: &DeviceId, slot: &SlotSpec, device: Option<&LiveDevice>) -> Replica {
    let reported: Option<&Reported> = device.and_then(|device| device.reported.as_deref());
    let report =
        reported.and_then(|reported| reported.slots.iter().find(|report| report.deployment == slot.deployment));
    let current = report.filter(|report| report.wanted.as_ref().is_some_and(|bundle| bundle.manifest == slot.manifest));
    let refusal =
        reported.and_then(|it| it.refusals.iter().rev().find(|refusal| refusal.bundle.manifest == slot.manifest));
    let connected = device.is_some_and(|device| device.connected);
    let waiting = current.and_then(|report| report.waiting.clone());
    let reason = match (connected, refusal, waiting) {
        (false, ..) => Some("the device is not connected".to_owned()),
        (true, Some(refusal), _) => Some(format!("refused version {}: {}", slot.version, refusal.reason)),
        (true, None, Some(waiting)) => Some(waiting),
        (true, None, None) if current.is_none() => desired_refused(reported),
        _ => None,
    };
    Replica {
        device: id.clone(),
        phase: current.map(|report| report.phase),
        running: report.and_then(|report| report.running.as_ref()).map(|bundle| bundle.version),
        manifest: slot.manifest,
        reason,
    }
}

/// Why a device does not even work towards what is wanted.
fn desired_refused(reported: Option<&Reported>) -> Option<String> {
    let refused = reported?.desired_refused.as_ref()?;
    Some(format!("the device did not take its desired state: {}", refused.reason))
}

/// Whether the device answers with the very bundle that is wanted.
fn is_ready(replica: &Replica, facts: &Facts) -> bool {
    let connected = facts.devices.get(&replica.device).is_some_and(|device| device.connected);
    // In these phases what runs is what is wanted.
    connected && matches!(replica.phase, Some(Phase::Serving | Phase::Probation)) && replica.running.is_some()
}

fn condition(kind: &str, status: bool, reason: &str, message: String) -> Condition {
    Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message, since_ms: 0 }
}

fn placed(verdict: &Verdict, planned: bool, places: usize, wanted: u32) -> Condition {
    match &verdict.waiting {
        _ if !planned => condition(PLACED, false, "Planning", "the planner has yet to look at it".to_owned()),
        Some((word, sentence)) => condition(PLACED, false, word, sentence.clone()),
        None => condition(PLACED, true, "Placed", format!("{places} of {wanted} replicas have a device")),
    }
}

fn available(replicas: &[Replica], ready: u32, wanted: u32, placed: &Condition, facts: &Facts) -> Condition {
    if placed.status && ready >= wanted {
        return condition(AVAILABLE, true, "Serving", format!("{ready} of {wanted} replicas answer"));
    }
    let unready = |replica: &&Replica| !is_ready(replica, facts);
    let (reason, message) = match replicas.iter().find(unready) {
        Some(replica) => {
            let phase = replica.phase.map_or("not started", phase_word);
            let why = replica.reason.as_ref().map_or_else(|| phase.to_owned(), Clone::clone);
            let word = if replica.phase == Some(Phase::Refused) { "Refused" } else { "Progressing" };
            (word, format!("{ready} of {wanted} replicas answer; {}: {why}", replica.device))
        }
        None => (placed.reason.as_str(), placed.message.clone()),
    };
    condition(AVAILABLE, false, reason, message)
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Empty => "empty",
        Phase::Fetching => "fetching",
        Phase::Checking => "checking",
        Phase::Probation => "in probation",
        Phase::Serving => "serving",
        Phase::Refused => "refused",
    }
}

/// Dates a condition: from the planner's notes, or from now where it has just changed.
fn since(condition: Condition, record: &DeploymentRecord, facts: &Facts) -> Condition {
    let noted = facts.conditions.get(&(record.name.clone(), condition.kind.clone()));
    let since_ms = noted.filter(|held| held.holds == condition.status).map_or(facts.now_ms, |held| held.since_ms);
    Condition { since_ms, ..condition }
}

#[cfg(test)]
mod tests;
