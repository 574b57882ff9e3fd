//! What is seen of the fleet, in the planner's words.

use std::collections::BTreeSet;

use muster_shared::DeviceId;
use muster_shared::api::deployment::{OnDeviceLoss, Spec};
use muster_shared::desired::Resources;
use muster_shared::id::{Labels, UnixMs};
use muster_shared::reported::RefusalKind;

use super::{DeviceSeen, Observed, TOGETHER_MS};
use crate::fleet::{Device, Machine, Presence, Refused, Replicas, Report, Wanted};
use crate::liveness::{Liveness, Seen, Sight};

/// Who holds a connection, and how silence is to be counted.
pub(super) fn sight(observed: &Observed) -> Sight {
    let seen = |(id, seen): (&DeviceId, &DeviceSeen)| {
        // One that never reported holds nothing that could be lost.
        seen.reported.as_ref()?;
        let site = labels(seen)
            .iter()
            .find(|(key, _)| key.as_str() == crate::fleet::SITE_LABEL)
            .map(|(_, site)| site.to_string());
        Some((id.clone(), Seen { connected_ms: seen.connected_ms, site }))
    };
    let moves = |spec: &&Spec| spec.on_device_loss == OnDeviceLoss::Move;
    let graces: BTreeSet<u64> =
        observed.deployments.values().filter(moves).map(|spec| spec.device_loss_grace.0).collect();
    Sight {
        devices: observed.devices.iter().filter_map(seen).collect(),
        hearing_since_ms: observed.hearing_since_ms,
        together_ms: graces.last().copied().unwrap_or(TOGETHER_MS),
        first_ms: graces.first().copied().unwrap_or(TOGETHER_MS),
    }
}

/// What the agent says of itself counts least.
fn labels(seen: &DeviceSeen) -> Labels {
    let mut labels = seen.reported.as_ref().map(|reported| reported.facts.labels.clone()).unwrap_or_default();
    labels.extend(seen.labels.clone());
    labels
}

/// One device as the planner knows it.
pub(super) fn device(id: &DeviceId, seen: &DeviceSeen, sight: &Sight, liveness: &Liveness, now_ms: UnixMs) -> Device {
    let Some(reported) = &seen.reported else {
        let presence = seen
            .connected_ms
            .map_or(Presence::default(), |since| Presence::Up { for_ms: now_ms.saturating_sub(since) });
        return Device { labels: labels(seen), presence, schedule: seen.schedule, ..Device::default() };
    };
    let refused = reported.refusals.iter().map(|refusal| {
        let memory_bytes = (refusal.kind == RefusalKind::TooMuchMemoryInProbation).then_some(refusal.memory_bytes);
        (refusal.bundle.manifest, Refused { reason: refusal.reason.clone(), attempt: refusal.attempt, memory_bytes })
    });
    let slots = reported.slots.iter().map(|slot| {
        let report = Report {
            phase: slot.phase,
            wanted: slot.wanted.as_ref().map(|bundle| bundle.manifest),
            running: slot.running.as_ref().map(|bundle| bundle.manifest),
            waiting: slot.waiting.clone(),
            restarts: slot.restarts,
            measured: slot.measured,
        };
        (slot.deployment.clone(), report)
    });
    let facts = &reported.facts;
    Device {
        labels: labels(seen),
        presence: liveness.presence(id, sight.devices.get(id), now_ms),
        schedule: seen.schedule,
        machine: Some(Machine {
            arch: facts.arch.clone(),
            cpu_model: facts.cpu_model.clone(),
            cpu_milli: facts.cpu_milli,
            memory_bytes: facts.memory_bytes,
            engines: facts.engines.clone(),
        }),
        refused: refused.collect(),
        slots: slots.collect(),
        is_current: seen.is_current,
    }
}

/// One deployment as the planner knows it; what runs where is the rollout's to say.
pub(super) fn wanted(spec: &Spec) -> Wanted {
    Wanted {
        model: spec.model.clone(),
        version: spec.version,
        replicas: if spec.every_device { Replicas::EveryDevice } else { Replicas::Count(spec.replicas) },
        selector: spec.selector.clone(),
        resources: Resources { cpu_milli: spec.resources.cpu.0, memory_bytes: spec.resources.memory.0 },
        probation_ms: spec.rollout.probation.0.try_into().unwrap_or(u32::MAX),
        served_as: spec.served_as.clone(),
        on_device_loss: spec.on_device_loss,
        device_loss_grace_ms: spec.device_loss_grace.0,
        releases: None,
    }
}
