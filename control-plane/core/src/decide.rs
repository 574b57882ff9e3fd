//! One look at the fleet: who is there, how rollouts go on, which slots each device is to have.
//!
//! The control plane's planner task and the simulator call the same [`decide`]. What it remembers
//! ([`State`]) is made durable before anything follows from it.

mod news;
mod observe;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_shared::api::deployment::Spec;
use muster_shared::api::fleet::{Happening, Schedule};
use muster_shared::desired::{Resources, SlotSpec};
use muster_shared::id::{Labels, UnixMs};
use muster_shared::reported::Reported;
use muster_shared::{DeploymentName, DeviceId};
use serde::{Deserialize, Serialize};

use crate::explain::{Choice, Reason};
use crate::fleet::{Bundles, Device, Inputs, Release, Slots, resolve};
use crate::liveness::Liveness;
use crate::place;
use crate::plan::{self, Plan, plan};
use crate::rollout::{Policy, Rollout, View};

use news::{moves, rollout_news, silence_news};
use observe::{device, sight, wanted};

/// Devices that fall silent within this time do so together, where no deployment says otherwise.
const TOGETHER_MS: u64 = 60_000;

/// What is remembered from one look to the next; durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Who is silent.
    pub liveness: Liveness,
    /// How versions change, by deployment.
    pub rollouts: BTreeMap<DeploymentName, Rollout>,
    /// The slots that each device is to have.
    pub placements: BTreeMap<DeviceId, Slots>,
    /// Why each replica is there.
    pub notes: BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>>,
}

/// Why a replica is on its device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// Why, for a person.
    pub why: String,
    /// Since when.
    pub since_ms: UnixMs,
    /// Why it goes as soon as another one serves, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// Whether it goes only for a gain.
    #[serde(default)]
    pub relieved: bool,
    /// Since when its device is there and does not serve it; none: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unserved_since_ms: Option<UnixMs>,
}

/// What is seen of the fleet.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The enrolled devices.
    pub devices: BTreeMap<DeviceId, DeviceSeen>,
    /// What operators want.
    pub deployments: BTreeMap<DeploymentName, Spec>,
    /// The bundles whose files are all there.
    pub bundles: Bundles,
    /// Since when we hear devices without a gap; none: we do not.
    pub hearing_since_ms: Option<UnixMs>,
}

/// One device as it is seen.
#[derive(Debug, Clone, Default)]
pub struct DeviceSeen {
    /// Labels of its claim and of its owner.
    pub labels: Labels,
    /// Since when it holds a connection.
    pub connected_ms: Option<UnixMs>,
    /// What an operator wants of it.
    pub schedule: Schedule,
    /// What it last reported.
    pub reported: Option<Arc<Reported>>,
    /// Whether that report speaks of the placement that is remembered.
    pub is_current: bool,
}

/// What follows from one look.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What is to be remembered.
    pub state: State,
    /// The plan, with its reasons.
    pub plan: Plan,
    /// What the plan followed from.
    pub inputs: Inputs,
    /// What happened.
    pub happened: Vec<Event>,
    /// When the next look is due, if nothing else happens.
    pub next_look_ms: Option<UnixMs>,
}

/// Something that happened in the plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: Happening,
    /// To which deployment.
    pub deployment: Option<DeploymentName>,
    /// On which device.
    pub device: Option<DeviceId>,
    /// The particulars, for a person.
    pub text: String,
}

/// Looks at the fleet and decides. Equal states and sights give equal decisions.
pub fn decide(state: State, observed: &Observed, now_ms: UnixMs) -> Decision {
    let State { liveness, rollouts, placements, notes } = state;
    let mut happened = Vec::new();

    let sight = sight(observed);
    let before = liveness;
    let liveness = before.clone().step(&sight, now_ms);
    happened.extend(silence_news(&before, &liveness, observed));

    let mut inputs = Inputs {
        devices: observed
            .devices
            .iter()
            .map(|(id, seen)| (id.clone(), device(id, seen, &sight, &liveness, now_ms)))
            .collect(),
        deployments: observed.deployments.iter().map(|(name, spec)| (name.clone(), wanted(spec))).collect(),
        bundles: observed.bundles.clone(),
        previous: placements,
        relieved: relieved(&notes),
        stuck: BTreeSet::new(),
    };
    let look =
        Look { now_ms, frozen: is_frozen(&liveness), lapsed_ms: lapsed_ms(&before, &liveness, observed, now_ms) };
    let rollouts = step_rollouts(rollouts, observed, &mut inputs, look, &mut happened);
    inputs.stuck = stuck(&notes, observed, &rollouts, now_ms);
    let plan = plan(&inputs);
    happened.extend(moves(&inputs, &plan, &notes));
    let notes = note(&inputs, &plan, &notes, look);
    let next_look_ms = next_look(observed, &liveness, &rollouts, &notes, now_ms);
    let state = State { liveness, rollouts, placements: plan.slots.clone(), notes };
    Decision { state, plan, inputs, happened, next_look_ms }
}

/// How a deployment's versions are to change.
pub fn policy(spec: &Spec) -> Policy {
    Policy {
        waves: spec.rollout.waves.clone(),
        max_failed: spec.rollout.max_failed,
        deadline_ms: spec.rollout.progress_deadline.0.saturating_add(spec.rollout.probation.0),
    }
}

fn relieved(notes: &BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>>) -> BTreeSet<(DeploymentName, DeviceId)> {
    let of = |(id, notes): (&DeviceId, &BTreeMap<DeploymentName, Note>)| -> Vec<_> {
        notes.iter().filter(|(_, note)| note.relieved).map(|(name, _)| (name.clone(), id.clone())).collect()
    };
    notes.iter().flat_map(of).collect()
}

/// When rollouts look, and what of the time since the last look counts.
#[derive(Clone, Copy)]
struct Look {
    now_ms: UnixMs,
    frozen: bool,
    lapsed_ms: u64,
}

/// How much of the time since the last look counts for no device: all of it while something is frozen,
/// else that in which we heard nobody.
fn lapsed_ms(before: &Liveness, after: &Liveness, observed: &Observed, now_ms: UnixMs) -> u64 {
    let since_ms = match observed.hearing_since_ms {
        _ if is_frozen(before) || is_frozen(after) => now_ms,
        Some(since_ms) => since_ms.min(now_ms),
        None => now_ms,
    };
    since_ms.saturating_sub(before.looked_ms)
}

/// Lets every deployment's rollout look at its devices, and notes in the inputs what each is to have.
fn step_rollouts(
    mut held: BTreeMap<DeploymentName, Rollout>,
    observed: &Observed,
    inputs: &mut Inputs,
    look: Look,
    happened: &mut Vec<Event>,
) -> BTreeMap<DeploymentName, Rollout> {
    let Look { now_ms, frozen, lapsed_ms } = look;
    let mut rollouts = BTreeMap::new();
    for (name, spec) in &observed.deployments {
        let Some(wanted) = inputs.deployments.get(name) else { continue };
        let resolved = resolve(&inputs.bundles, &spec.model, spec.version).map(|(version, manifest)| Release {
            model: spec.model.clone(),
            version,
            manifest,
            resources: wanted.resources,
            attempt: 0,
        });
        let holder = |(id, slots): (&DeviceId, &Slots)| slots.contains_key(name).then(|| id.clone());
        let holders: Vec<DeviceId> = inputs.previous.iter().filter_map(holder).collect();
        let room = |id| Some((id, why_no_room(inputs, name, id, resolved.as_ref()?.resources)?));
        let without_room = holders.iter().filter_map(room).collect();
        let holders = holders.iter().filter_map(|id| {
            let device = inputs.devices.get(id)?;
            Some((id, (device, device.is_lost_for(wanted))))
        });
        let (policy, holders) = (policy(spec), holders.collect());
        let view = View { name, resolved, policy: &policy, holders, without_room, frozen, lapsed_ms };
        let (rollout, news) = Rollout::step(held.remove(name), &view, now_ms);
        happened.extend(news.into_iter().map(|news| rollout_news(name, news)));
        let releases = rollout.as_ref().map(Rollout::releases);
        if let Some(wanted) = inputs.deployments.get_mut(name) {
            wanted.releases = releases;
        }
        rollouts.extend(rollout.map(|rollout| (name.clone(), rollout)));
    }
    rollouts
}

/// Why a replica cannot grow to a grant on its device, beside what else is there.
fn why_no_room(inputs: &Inputs, name: &DeploymentName, id: &DeviceId, resources: Resources) -> Option<String> {
    let (device, slots) = (inputs.devices.get(id)?, inputs.previous.get(id)?);
    let held = slots.get(name).filter(|held| held.resources != resources)?;
    let beside = plan::beside(inputs, id, name, &Slots::new());
    let grown = SlotSpec { resources, ..held.clone() };
    place::why_no_room(id, device, &beside, &grown).map(|reason| reason.to_string())
}

/// Whether silence of many holds anything back.
pub fn is_frozen(liveness: &Liveness) -> bool {
    !liveness.freezes.is_empty()
}

/// Replicas that their devices have not got to serve for so long that others should have them. While a
/// version changes, the rollout has deadlines of its own.
fn stuck(
    notes: &BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>>,
    observed: &Observed,
    rollouts: &BTreeMap<DeploymentName, Rollout>,
    now_ms: UnixMs,
) -> BTreeSet<(DeploymentName, DeviceId)> {
    let mut stuck = BTreeSet::new();
    for (id, notes) in notes {
        for (name, note) in notes {
            let settled = rollouts.get(name).is_some_and(|rollout| !rollout.is_under_way());
            let end = unserved_end_ms(name, note, observed).filter(|_| settled);
            if end.is_some_and(|end| end <= now_ms) {
                stuck.insert((name.clone(), id.clone()));
            }
        }
    }
    stuck
}

/// When a replica that is not served counts as stuck, if nothing changes.
fn unserved_end_ms(name: &DeploymentName, note: &Note, observed: &Observed) -> Option<UnixMs> {
    let spec = observed.deployments.get(name)?;
    Some(note.unserved_since_ms?.saturating_add(policy(spec).deadline_ms))
}

/// Why each replica is where it is: what was said when it came, as long as it stays.
fn note(
    inputs: &Inputs,
    plan: &Plan,
    before: &BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>>,
    look: Look,
) -> BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>> {
    let mut notes: BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>> = BTreeMap::new();
    for ((name, id), choice) in &plan.choices {
        let leaving = plan.leaving.get(&(name.clone(), id.clone()));
        let held = before.get(id).and_then(|notes| notes.get(name)).filter(|_| *choice == Choice::Kept);
        let running = |device: &Device| device.slots.get(name).and_then(|report| report.running);
        let wanted = plan.slots.get(id).and_then(|slots| slots.get(name)).map(|slot| slot.manifest);
        let unserved = inputs.devices.get(id).is_some_and(|device| device.is_up() && running(device) != wanted);
        let since_ms = held.and_then(|held| held.unserved_since_ms);
        let since_ms = since_ms.map_or(look.now_ms, |since| since.saturating_add(look.lapsed_ms).min(look.now_ms));
        let note = Note {
            why: held.map_or_else(|| choice.to_string(), |held| held.why.clone()),
            since_ms: held.map_or(look.now_ms, |held| held.since_ms),
            leaving: leaving.map(ToString::to_string),
            relieved: matches!(leaving, Some(Reason::Crowded(_))),
            unserved_since_ms: unserved.then_some(since_ms),
        };
        notes.entry(id.clone()).or_default().insert(name.clone(), note);
    }
    notes
}

/// When something is due though nothing happens: a grace period or a rollout's deadline ends.
fn next_look(
    observed: &Observed,
    liveness: &Liveness,
    rollouts: &BTreeMap<DeploymentName, Rollout>,
    notes: &BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>>,
    now_ms: UnixMs,
) -> Option<UnixMs> {
    let graces: BTreeSet<u64> = observed.deployments.values().map(|spec| spec.device_loss_grace.0).collect();
    let deadline = |(name, rollout): (&DeploymentName, &Rollout)| {
        observed.deployments.get(name).and_then(|spec| rollout.next_deadline_ms(&policy(spec)))
    };
    let unserved = notes.values().flatten().filter_map(|(name, note)| unserved_end_ms(name, note, observed));
    // Silence counts only while we hear: otherwise there is nothing to wait for.
    let silence = observed.hearing_since_ms.and_then(|_| liveness.next_deadline_ms(&graces));
    let due = rollouts.iter().filter_map(deadline).chain(silence);
    due.chain(unserved.filter(|end| *end > now_ms)).min()
}

#[cfg(test)]
mod tests;
