//! The shapes of version 3 that have grown since, read for ever. Nothing writes them any more.

use serde::Deserialize;

use crate::hardware::{Hardware, Health};
use crate::id::{BootId, DeviceId, Generation, Labels, UnixMs};
use crate::reported::{self, DesiredRefused, ModelFloor, Refusal, SlotReport};

/// A [`reported::Reported`] of version 3: it tells nothing of the hardware.
#[derive(Debug, Deserialize)]
pub struct Reported {
    device: DeviceId,
    boot: BootId,
    sequence: u64,
    at_ms: UnixMs,
    root_version: u64,
    applied: Option<Generation>,
    desired_refused: Option<DesiredRefused>,
    facts: Facts,
    slots: Vec<SlotReport>,
    refusals: Vec<Refusal>,
    floors: Vec<ModelFloor>,
    notes: Vec<String>,
}

impl From<Reported> for reported::Reported {
    fn from(old: Reported) -> Self {
        Self {
            device: old.device,
            boot: old.boot,
            sequence: old.sequence,
            at_ms: old.at_ms,
            root_version: old.root_version,
            applied: old.applied,
            desired_refused: old.desired_refused,
            facts: old.facts.into(),
            health: Health::default(),
            slots: old.slots,
            refusals: old.refusals,
            floors: old.floors,
            notes: old.notes,
        }
    }
}

/// [`reported::Facts`] as versions 1 to 3 have them.
#[derive(Debug, Deserialize)]
pub struct Facts {
    agent: String,
    arch: String,
    os: String,
    cpu_model: Option<String>,
    cpu_milli: u32,
    memory_bytes: u64,
    disk_free_bytes: Option<u64>,
    engines: Vec<String>,
    isolation: Vec<String>,
    labels: Labels,
}

impl From<Facts> for reported::Facts {
    fn from(old: Facts) -> Self {
        Self {
            agent: old.agent,
            arch: old.arch,
            os: old.os,
            cpu_model: old.cpu_model,
            cpu_milli: old.cpu_milli,
            memory_bytes: old.memory_bytes,
            disk_free_bytes: old.disk_free_bytes,
            engines: old.engines,
            isolation: old.isolation,
            hardware: Hardware::default(),
            labels: old.labels,
        }
    }
}
