//! A rollout as people see it.

use muster_shared::DeviceId;
use muster_shared::api::deployment::{DeviceFailure, RolloutStage, RolloutView};

use super::{Failure, Policy, Rollout, Stage};

/// Failed devices that a view lists.
const FAILED_LISTED_MAX: usize = 20;

impl Rollout {
    /// As people see it.
    pub fn view(&self, policy: &Policy, devices: u32, frozen: bool) -> RolloutView {
        let sizes = self.sizes(policy, devices);
        let (stage, wave) = match &self.stage {
            Stage::Running { wave } => (RolloutStage::Running, *wave),
            Stage::Paused { wave } => (RolloutStage::Paused, *wave),
            Stage::Stopped { .. } => (RolloutStage::Stopped, self.failed.values().map(|it| it.wave).max().unwrap_or(0)),
            Stage::Undone => (RolloutStage::Undone, 0),
            Stage::Done => (RolloutStage::Done, sizes.len().saturating_sub(1)),
        };
        let waves: u32 = sizes.len().max(wave + 1).try_into().unwrap_or(u32::MAX);
        let (granted, healthy) = match stage {
            RolloutStage::Done => (devices, devices.saturating_sub(count(self.failed.len()))),
            RolloutStage::Undone => (0, 0),
            _ => (
                count(self.granted.len()),
                count(self.granted.values().filter(|grant| grant.healthy.is_some()).count()),
            ),
        };
        let failure = |(device, failure): (&DeviceId, &Failure)| DeviceFailure {
            device: device.clone(),
            reason: failure.reason.clone(),
        };
        RolloutView {
            number: self.number,
            stage,
            version: self.target.version,
            previous: self.previous.as_ref().map(|previous| previous.version),
            wave: count(wave + 1),
            waves,
            granted,
            healthy,
            devices,
            failed: self.failed.iter().take(FAILED_LISTED_MAX).map(failure).collect(),
            message: self.message(frozen),
            began_ms: self.began_ms,
            changed_ms: self.changed_ms,
        }
    }

    fn message(&self, frozen: bool) -> String {
        let back = |what: &str| match &self.previous {
            Some(previous) => format!("{what}; devices are back on version {}", previous.version),
            None => what.to_owned(),
        };
        match &self.stage {
            Stage::Running { .. } if frozen => {
                "it waits until the devices that fell silent together are back".to_owned()
            }
            Stage::Running { .. } => {
                let mut waiting = self.granted.iter().filter(|(_, grant)| grant.healthy.is_none());
                match waiting.next() {
                    None if self.granted.is_empty() => "it waits for a device that can begin".to_owned(),
                    None => "it is about to go on".to_owned(),
                    Some((id, grant)) => {
                        let said = grant.said.as_deref().unwrap_or("it has yet to take it");
                        let more = waiting.count();
                        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
                        format!("it waits for {id} ({said}){more}")
                    }
                }
            }
            Stage::Paused { .. } => "an operator holds it; `muster rollout resume` lets it go on".to_owned(),
            Stage::Stopped { reason } => back(reason),
            Stage::Undone => back("an operator took it back"),
            Stage::Done => match self.failed.len() {
                0 => "every device has it".to_owned(),
                failed => format!("every device has it but {failed} on which it failed"),
            },
        }
    }
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
