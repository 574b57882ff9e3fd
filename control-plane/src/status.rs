//! A deployment's status: what the planner said, beside what the devices say.

use std::collections::BTreeMap;

use muster_control_plane_core::decide::{is_frozen, policy};
use muster_control_plane_core::fleet::Slots;
use muster_control_plane_core::liveness::Liveness;
use muster_control_plane_core::rollout::Rollout;
use muster_shared::api::deployment::{
    API_VERSION, Condition, Deployment, KIND, Metadata, Replica, RolloutStage, RolloutView, Status,
};
use muster_shared::desired::SlotSpec;
use muster_shared::figures::Figures;
use muster_shared::id::UnixMs;
use muster_shared::reported::{Phase, Reported};
use muster_shared::{DeploymentName, DeviceId};

use crate::db::deployments::DeploymentRecord;
use crate::db::plans::{Held, Notes, Verdict};
use crate::db::{self, DbError};
use crate::figures::Sum;
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;

/// Whether every replica has a place.
pub const PLACED: &str = "Placed";
/// Whether every replica answers with the version it is to have.
pub const AVAILABLE: &str = "Available";
/// Whether every device has, or is on its way to, the version that the rule means.
pub const PROGRESSING: &str = "Progressing";

/// Everything a status follows from.
pub struct Facts {
    /// What the planner wants of each device.
    pub placements: BTreeMap<DeviceId, Slots>,
    /// Why each replica is where it is.
    pub notes: BTreeMap<DeviceId, Notes>,
    /// What the planner said.
    pub verdicts: BTreeMap<DeploymentName, Verdict>,
    /// How versions change.
    pub rollouts: BTreeMap<DeploymentName, Rollout>,
    /// Who is silent.
    pub liveness: Liveness,
    /// Since when conditions hold.
    pub conditions: BTreeMap<(DeploymentName, String), Held>,
    /// What devices said.
    pub devices: BTreeMap<DeviceId, LiveDevice>,
    /// Why nothing changes because the database was put back, if so.
    pub restored: Option<String>,
    /// What models did lately.
    pub sums: BTreeMap<DeviceId, BTreeMap<DeploymentName, Sum>>,
    /// Now.
    pub now_ms: UnixMs,
}

impl Facts {
    /// Reads everything.
    pub async fn read(plane: &Plane) -> Result<Self, DbError> {
        let (db, now_ms) = (plane.db.read(), now_ms());
        Ok(Self {
            placements: db::plans::placements(db).await?,
            notes: db::plans::notes(db).await?,
            verdicts: db::plans::verdicts(db).await?,
            rollouts: db::rollouts::current(db).await?,
            liveness: db::documents::liveness(db).await?,
            conditions: db::plans::conditions(db).await?,
            devices: plane.live.read(Clone::clone),
            restored: crate::trust::members::waits(db).await?,
            sums: plane.figures.sums(now_ms),
            now_ms,
        })
    }

    /// The figures of one replica; none: it was not asked lately.
    pub fn figures(&self, device: &DeviceId, deployment: &DeploymentName) -> Option<Figures> {
        let sum = self.sums.get(device)?.get(deployment)?;
        let slot = self.placements.get(device).and_then(|slots| slots.get(deployment));
        let reported = self.devices.get(device).and_then(|device| device.reported.as_ref());
        let all_milli = reported.map(|reported| reported.facts.cpu_milli);
        Some(sum.figures(slot.map(|slot| slot.resources.cpu_milli), all_milli))
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
    let replicas: Vec<Replica> = places.map(|(id, slot)| replica(id, slot, facts)).collect();
    let planned = verdict.generation == record.generation;
    let wanted = if planned || record.spec.every_device { verdict.wanted } else { record.spec.replicas };
    let ready = replicas.iter().filter(|replica| is_ready(replica, facts)).count();
    // One that lingers until another one serves counts, but not beyond what is wanted.
    let ready = u32::try_from(ready).unwrap_or(u32::MAX).min(wanted);
    let rollout = rollout(record, facts);
    let placed = placed(&verdict, planned, &replicas, wanted);
    let available = available(&replicas, ready, wanted, &placed, facts);
    let progressing = progressing(rollout.as_ref());
    let conditions = [placed, available, progressing].map(|condition| since(condition, record, facts)).into();
    Status {
        observed_generation: verdict.generation,
        wanted,
        ready,
        version: verdict.version,
        rollout,
        replicas,
        conditions,
    }
}

/// The rollout of a deployment as people see it.
pub fn rollout(record: &DeploymentRecord, facts: &Facts) -> Option<RolloutView> {
    let rollout = facts.rollouts.get(&record.name)?;
    let holders = facts.placements.values().filter(|slots| slots.contains_key(&record.name)).count();
    let holders = holders.try_into().unwrap_or(u32::MAX);
    Some(rollout.view(&policy(&record.spec), holders, is_frozen(&facts.liveness)))
}

/// The sentence of the condition that says why a deployment is not available.
pub fn why_not_available(status: &Status) -> Option<String> {
    let unmet = |condition: &&Condition| condition.kind == AVAILABLE && !condition.message.is_empty();
    status.conditions.iter().find(unmet).map(|condition| condition.message.clone())
}

/// One replica as people see it.
pub fn replica(id: &DeviceId, slot: &SlotSpec, facts: &Facts) -> Replica {
    let device = facts.devices.get(id);
    let reported: Option<&Reported> = device.and_then(|device| device.reported.as_deref());
    let report =
        reported.and_then(|reported| reported.slots.iter().find(|report| report.deployment == slot.deployment));
    let current = report.filter(|report| report.wanted.as_ref().is_some_and(|bundle| bundle.manifest == slot.manifest));
    let refusal =
        reported.and_then(|it| it.refusals.iter().rev().find(|refusal| refusal.bundle.manifest == slot.manifest));
    let connected = device.is_some_and(|device| device.connected);
    let waiting = current.and_then(|report| report.waiting.clone());
    let held_back = device.and_then(|device| device.held_back.clone());
    let reason = match (connected, held_back, refusal, waiting) {
        (false, ..) => Some("the device is not connected".to_owned()),
        (true, Some(held_back), ..) => Some(held_back),
        (true, None, Some(refusal), _) if current.is_some_and(|report| report.phase == Phase::Refused) => {
            Some(format!("refused version {}: {}", slot.version, refusal.reason))
        }
        (true, None, _, Some(waiting)) => Some(waiting),
        (true, None, _, None) if current.is_none() => desired_refused(reported),
        _ => None,
    };
    let note = facts.notes.get(id).and_then(|notes| notes.get(&slot.deployment));
    Replica {
        device: id.clone(),
        phase: current.map(|report| report.phase),
        running: report.and_then(|report| report.running.as_ref()).map(|bundle| bundle.version),
        version: slot.version,
        manifest: slot.manifest,
        why: note.map_or_else(String::new, |note| note.leaving.as_ref().unwrap_or(&note.why).clone()),
        leaving: note.is_some_and(|note| note.leaving.is_some()),
        reason,
        figures: facts.figures(id, &slot.deployment),
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

fn placed(verdict: &Verdict, planned: bool, replicas: &[Replica], wanted: u32) -> Condition {
    let places = replicas.iter().filter(|replica| !replica.leaving).count();
    match &verdict.waiting {
        _ if !planned => condition(PLACED, false, "Planning", "the planner has yet to look at it".to_owned()),
        Some((word, sentence)) => condition(PLACED, false, word, sentence.clone()),
        None => condition(PLACED, true, "Placed", format!("{places} of {wanted} replicas have a device")),
    }
}

fn available(replicas: &[Replica], ready: u32, wanted: u32, placed: &Condition, facts: &Facts) -> Condition {
    if placed.reason != "Planning" && ready >= wanted {
        return condition(AVAILABLE, true, "Serving", format!("{ready} of {wanted} replicas answer"));
    }
    let unready = |replica: &&Replica| !is_ready(replica, facts) && !replica.leaving;
    let (reason, message) = match replicas.iter().find(unready) {
        Some(replica) => {
            let phase = replica.phase.map_or("not started", Phase::words);
            let why = replica.reason.as_ref().map_or_else(|| phase.to_owned(), Clone::clone);
            let word = if replica.phase == Some(Phase::Refused) { "Refused" } else { "Progressing" };
            (word, format!("{ready} of {wanted} replicas answer; {}: {why}", replica.device))
        }
        None => (placed.reason.as_str(), placed.message.clone()),
    };
    condition(AVAILABLE, false, reason, message)
}

fn progressing(rollout: Option<&RolloutView>) -> Condition {
    let Some(rollout) = rollout else {
        return condition(PROGRESSING, false, "NothingToRun", "there is no version to run yet".to_owned());
    };
    let (status, word) = match rollout.stage {
        RolloutStage::Running => (true, "RolloutRunning"),
        RolloutStage::Done => (true, "RolloutDone"),
        RolloutStage::Paused => (false, "RolloutPaused"),
        RolloutStage::Stopped => (false, "RolloutStopped"),
        RolloutStage::Undone => (false, "RolloutUndone"),
    };
    condition(PROGRESSING, status, word, format!("version {}: {}", rollout.version, rollout.message))
}

/// Dates a condition: from the planner's notes, or from now where it has just changed.
fn since(condition: Condition, record: &DeploymentRecord, facts: &Facts) -> Condition {
    let noted = facts.conditions.get(&(record.name.clone(), condition.kind.clone()));
    let since_ms = noted.filter(|held| held.holds == condition.status).map_or(facts.now_ms, |held| held.since_ms);
    Condition { since_ms, ..condition }
}

#[cfg(test)]
pub(crate) mod tests;
