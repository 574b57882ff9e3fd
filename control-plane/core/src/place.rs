//! Which device takes one replica: filter with reasons, then score, then the name decides.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::desired::SlotSpec;
use muster_shared::id::VariantName;
use muster_shared::limits::SLOTS_MAX;
use muster_shared::{DeploymentName, DeviceId, Version};

use crate::explain::{Choice, Reason};
use crate::fleet::{Bundle, Device, Inputs, Machine, Slots, Wanted};

/// One deployment whose bundle is known.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its name.
    pub name: &'a DeploymentName,
    /// What its operator wants.
    pub wanted: &'a Wanted,
    /// The version that the rule means.
    pub version: Version,
    /// The bundle of that version.
    pub bundle: &'a Bundle,
}

/// Finds the device that takes one more replica, or says why none does.
pub fn best_device(
    inputs: &Inputs,
    taken: &BTreeMap<DeviceId, Slots>,
    request: Request<'_>,
) -> Result<(DeviceId, SlotSpec, Choice), Vec<Reason>> {
    let matching = matching_devices(inputs, request.wanted)?;
    let mut reasons = Vec::new();
    let mut fitting = Vec::new();
    for (id, device) in matching {
        match check_new(id, device, taken.get(id), request) {
            Ok(Some((slot, free_permille))) => fitting.push((free_permille, id, slot)),
            Ok(None) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    let candidates = fitting.len();
    // The first of the best by name: an equal fleet gives an equal plan.
    let best = fitting.into_iter().rev().max_by_key(|(free_permille, ..)| *free_permille);
    match best {
        Some((free_permille, id, slot)) => Ok((id.clone(), slot, Choice::MostRoom { candidates, free_permille })),
        None if reasons.is_empty() => Err(vec![Reason::OneEach]),
        None => Err(reasons),
    }
}

/// Whether a device that holds a replica may keep it: it must still match, and it must still have
/// room beside what is kept there. A lost connection, a cordon or a refusal moves nothing.
pub fn keeps(device: &Device, kept: &Slots, slot: &SlotSpec, wanted: &Wanted) -> bool {
    let room = match &device.machine {
        Some(machine) => lacks(machine, kept, slot).is_none(),
        None => true,
    };
    room && wanted.selector.matches(&device.labels) && is_free_name(kept, slot) && kept.len() < SLOTS_MAX
}

/// The slot that serves this request; nothing if the machine reads none of the variants. A machine
/// that has yet to report is taken to read them all.
pub fn slot(request: Request<'_>, machine: Option<&Machine>) -> Option<SlotSpec> {
    let variant = variant(request.bundle, machine)?;
    Some(SlotSpec {
        deployment: request.name.clone(),
        served_as: request.wanted.served_as.clone(),
        model: request.wanted.model.clone(),
        version: request.version,
        manifest: request.bundle.manifest,
        envelope: request.bundle.envelope,
        variant: variant.clone(),
        resources: request.wanted.resources,
        probation_ms: request.wanted.probation_ms,
    })
}

/// The best variant that one of the machine's engines reads.
fn variant<'a>(bundle: &'a Bundle, machine: Option<&Machine>) -> Option<&'a VariantName> {
    let reads = |format| machine.is_none_or(|machine| machine.reads(format));
    bundle.variants.iter().find(|(_, format)| reads(*format)).map(|(name, _)| name)
}

fn matching_devices<'a>(inputs: &'a Inputs, wanted: &Wanted) -> Result<Vec<(&'a DeviceId, &'a Device)>, Vec<Reason>> {
    if inputs.devices.is_empty() {
        return Err(vec![Reason::NoDevices]);
    }
    let matches = |(_, device): &(&DeviceId, &Device)| wanted.selector.matches(&device.labels);
    let matching: Vec<_> = inputs.devices.iter().filter(matches).collect();
    if matching.is_empty() {
        return Err(vec![Reason::NoMatch { selector: wanted.selector.clone() }]);
    }
    Ok(matching)
}

/// Whether a matching device can take a new replica: the slot and its score. Nothing where it holds
/// one already.
fn check_new(
    id: &DeviceId,
    device: &Device,
    taken: Option<&Slots>,
    request: Request<'_>,
) -> Result<Option<(SlotSpec, u32)>, Reason> {
    let none = Slots::new();
    let taken = taken.unwrap_or(&none);
    if taken.contains_key(request.name) {
        return Ok(None);
    }
    if device.cordoned {
        return Err(Reason::Cordoned(id.clone()));
    }
    let machine = device.machine.as_ref().ok_or_else(|| Reason::NotReported(id.clone()))?;
    if !device.connected {
        return Err(Reason::NotConnected(id.clone()));
    }
    if let Some(reason) = device.refused.get(&request.bundle.manifest) {
        return Err(Reason::Refused { device: id.clone(), version: request.version, reason: reason.clone() });
    }
    let slot = slot(request, Some(machine)).ok_or_else(|| Reason::NoEngine(id.clone()))?;
    if taken.len() >= SLOTS_MAX {
        return Err(Reason::SlotsFull(id.clone()));
    }
    if !is_free_name(taken, &slot) {
        return Err(Reason::NameTaken { device: id.clone(), served: slot.served_name().clone() });
    }
    match lacks(machine, taken, &slot) {
        Some(Lack::Memory { free_bytes }) => Err(Reason::Memory {
            device: id.clone(),
            wanted_bytes: slot.resources.memory_bytes,
            free_bytes,
            all_bytes: machine.memory_bytes,
        }),
        Some(Lack::Cpu { free_milli }) => Err(Reason::Cpu {
            device: id.clone(),
            wanted_milli: slot.resources.cpu_milli,
            free_milli,
            all_milli: machine.cpu_milli,
        }),
        None => {
            let score = free_permille(machine, taken, &slot);
            Ok(Some((slot, score)))
        }
    }
}

/// Doors find a model by name, so a device has each name once.
fn is_free_name(taken: &Slots, slot: &SlotSpec) -> bool {
    let names: BTreeSet<_> = taken.values().map(SlotSpec::served_name).collect();
    !names.contains(slot.served_name())
}

enum Lack {
    Memory { free_bytes: u64 },
    Cpu { free_milli: u32 },
}

/// What is too little for one more slot.
fn lacks(machine: &Machine, taken: &Slots, slot: &SlotSpec) -> Option<Lack> {
    let (free_milli, free_bytes) = free(machine, taken);
    if slot.resources.memory_bytes > free_bytes {
        return Some(Lack::Memory { free_bytes });
    }
    (slot.resources.cpu_milli > free_milli).then_some(Lack::Cpu { free_milli })
}

/// What no slot was granted.
fn free(machine: &Machine, taken: &Slots) -> (u32, u64) {
    taken.values().fold((machine.cpu_milli, machine.memory_bytes), |(cpu, memory), slot| {
        (cpu.saturating_sub(slot.resources.cpu_milli), memory.saturating_sub(slot.resources.memory_bytes))
    })
}

/// What stays free of the scarcer resource with one more slot, in thousandths.
fn free_permille(machine: &Machine, taken: &Slots, slot: &SlotSpec) -> u32 {
    let (free_milli, free_bytes) = free(machine, taken);
    let permille = |free: u128, all: u128| (free * 1000).checked_div(all).unwrap_or(0).try_into().unwrap_or(u32::MAX);
    let cpu = u128::from(free_milli.saturating_sub(slot.resources.cpu_milli));
    let memory = u128::from(free_bytes.saturating_sub(slot.resources.memory_bytes));
    permille(cpu, machine.cpu_milli.into()).min(permille(memory, machine.memory_bytes.into()))
}
