//! What others ask of a slot: who answers, what it works towards, why it does not go on.

use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::reported::Phase;

use super::{Child, Health, Running, Slot, WorkerId};

impl Slot {
    /// When [`super::SlotEvent::Tick`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<UnixMs> {
        let of_state = match self {
            Self::Checking { child: Child::Waiting { retry_ms, .. }, .. } => Some(*retry_ms),
            Self::Probation { until_ms, running, .. } if running.is_up() => Some(*until_ms),
            _ => None,
        };
        let restart = |running: &Running| match running.health {
            Health::Down { retry_ms, .. } => Some(retry_ms),
            _ => None,
        };
        self.runnings().into_iter().filter_map(restart).chain(of_state).min()
    }

    /// The version whose worker answers, or would if it were up.
    pub fn answering(&self) -> Option<&Running> {
        match self {
            Self::Empty => None,
            Self::Fetching { previous, .. } | Self::Checking { previous, .. } | Self::Refused { previous, .. } => {
                previous.as_ref()
            }
            Self::Probation { running, .. } | Self::Serving { running } => Some(running),
        }
    }

    /// What the slot works towards.
    pub fn target(&self) -> Option<&SlotSpec> {
        match self {
            Self::Empty => None,
            Self::Fetching { target, .. } | Self::Checking { target, .. } | Self::Refused { target, .. } => {
                Some(target)
            }
            Self::Probation { running, .. } | Self::Serving { running } => Some(&running.spec),
        }
    }

    /// The slot's place in its life, as it is reported.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Empty => Phase::Empty,
            Self::Fetching { .. } => Phase::Fetching,
            Self::Checking { .. } => Phase::Checking,
            Self::Probation { .. } => Phase::Probation,
            Self::Serving { .. } => Phase::Serving,
            Self::Refused { .. } => Phase::Refused,
        }
    }

    /// Why it does not go on, for a person.
    pub fn waiting(&self) -> Option<String> {
        match self {
            Self::Fetching { waiting, .. } => waiting.clone(),
            Self::Checking { child: Child::Waiting { reason, .. }, .. } => {
                Some(format!("the check could not be made ({reason}); it is tried again"))
            }
            Self::Checking { target, previous: Some(previous), .. } if previous.is_parked() => {
                let (old, new) = (previous.spec.version, target.version);
                Some(format!("version {old} made room for version {new}, which is being checked"))
            }
            Self::Refused { reason, .. } => Some(reason.clone()),
            Self::Serving { running } | Self::Probation { running, .. } if !running.is_up() => {
                Some("its worker is being started again".to_owned())
            }
            _ => None,
        }
    }

    /// Every version with a worker, or to be started again: the one that answers and the one kept
    /// beside it. Their bundles stay on disk.
    pub fn runnings(&self) -> Vec<&Running> {
        match self {
            Self::Probation { running, previous, .. } => std::iter::once(running).chain(previous).collect(),
            other => other.answering().into_iter().collect(),
        }
    }

    pub(super) fn runnings_mut(&mut self) -> Vec<&mut Running> {
        match self {
            Self::Empty => vec![],
            Self::Fetching { previous, .. } | Self::Checking { previous, .. } | Self::Refused { previous, .. } => {
                previous.iter_mut().collect()
            }
            Self::Probation { running, previous, .. } => std::iter::once(running).chain(previous).collect(),
            Self::Serving { running } => vec![running],
        }
    }

    /// The version that has this worker now.
    pub(super) fn running_mut(&mut self, worker: WorkerId) -> Option<&mut Running> {
        self.runnings_mut().into_iter().find(|running| running.worker == worker && running.has_worker())
    }
}
