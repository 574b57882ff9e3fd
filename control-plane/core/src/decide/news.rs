//! What changed from one look to the next, for people.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::api::fleet::Happening;
use muster_shared::{DeploymentName, DeviceId};

use super::{Event, Note, Observed};
use crate::fleet::Inputs;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::rollout::Happened;

/// What happened to a deployment's rollout.
pub(super) fn rollout_news(name: &DeploymentName, (kind, device, text): Happened) -> Event {
    Event { kind, deployment: Some(name.clone()), device, text }
}

/// What changed in who is silent.
pub(super) fn silence_news(before: &Liveness, after: &Liveness, observed: &Observed) -> Vec<Event> {
    let fleet = |kind, text| Event { kind, deployment: None, device: None, text };
    let begun = after.freezes.iter().filter(|(group, _)| !before.freezes.contains_key(*group));
    let ended = before.freezes.keys().filter(|group| !after.freezes.contains_key(*group));
    let mut news: Vec<Event> =
        begun.map(|(group, freeze)| fleet(Happening::MovesFrozen, format!("{group}: {freeze}"))).collect();
    news.extend(ended.map(|group| fleet(Happening::MovesResumed, format!("{group}: moves go on"))));
    let graces: BTreeSet<u64> = observed.deployments.values().map(|spec| spec.device_loss_grace.0).collect();
    let Some(grace_ms) = graces.first().copied() else { return news };
    let lost = |liveness: &Liveness, id: &DeviceId| {
        liveness.silent.get(id).is_some_and(|silence| silence.approved || silence.counted_ms >= grace_ms)
    };
    for id in after.silent.keys().filter(|id| lost(after, id) && !lost(before, id)) {
        let text = format!("{id} has been silent for longer than its replicas wait");
        news.push(Event { kind: Happening::DeviceLost, deployment: None, device: Some(id.clone()), text });
    }
    for id in before.silent.keys().filter(|id| lost(before, id) && !after.silent.contains_key(*id)) {
        let text = format!("{id} is back");
        news.push(Event { kind: Happening::DeviceReturned, deployment: None, device: Some(id.clone()), text });
    }
    news
}

/// Replicas that left a device for another.
pub(super) fn moves(
    inputs: &Inputs,
    plan: &Plan,
    notes: &BTreeMap<DeviceId, BTreeMap<DeploymentName, Note>>,
) -> Vec<Event> {
    let mut moved = Vec::new();
    for (id, notes) in notes {
        for (name, note) in notes {
            let gone = plan.slots.get(id).is_none_or(|slots| !slots.contains_key(name));
            let Some(reason) = note.leaving.as_ref().filter(|_| gone && inputs.deployments.contains_key(name)) else {
                continue;
            };
            let text = format!("a replica of {name} left {id}: {reason}");
            let (deployment, device) = (Some(name.clone()), Some(id.clone()));
            moved.push(Event { kind: Happening::ReplicaMoved, deployment, device, text });
        }
    }
    moved
}
