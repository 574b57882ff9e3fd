//! An operator's hand on a rollout.

use muster_shared::id::UnixMs;

use super::{Rollout, Stage};
use crate::fleet::Release;

/// Why an operator's wish cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotChange {
    /// There is none.
    #[error("there was no rollout yet")]
    None,
    /// It is over.
    #[error("the rollout is over")]
    Over,
    /// It goes on already.
    #[error("the rollout is not held")]
    Running,
    /// It is held already.
    #[error("the rollout is held already")]
    Paused,
    /// It has nothing to go back to.
    #[error("there is no earlier version to go back to")]
    NoPrevious,
    /// It was taken back already.
    #[error("the rollout was taken back already")]
    Undone,
}

impl Rollout {
    /// An operator wants no further device to begin.
    pub fn pause(self, now_ms: UnixMs) -> Result<Self, CannotChange> {
        match self.stage {
            Stage::Running { wave } => Ok(self.to(Stage::Paused { wave }, now_ms)),
            Stage::Paused { .. } => Err(CannotChange::Paused),
            Stage::Stopped { .. } | Stage::Undone | Stage::Done => Err(CannotChange::Over),
        }
    }

    /// An operator wants it to go on; one that failed begins again, and devices try once more what
    /// they refused.
    pub fn resume(self, now_ms: UnixMs) -> Result<Self, CannotChange> {
        match self.stage {
            Stage::Running { .. } => Err(CannotChange::Running),
            Stage::Paused { wave } => Ok(self.to(Stage::Running { wave }, now_ms)),
            Stage::Stopped { .. } | Stage::Undone => {
                let attempt = self.target.attempt.saturating_add(1);
                let target = Release { attempt, ..self.target };
                Ok(Self { number: self.number + 1, ..Self::begin(self.number, target, self.previous, now_ms) })
            }
            Stage::Done => Err(CannotChange::Over),
        }
    }

    /// An operator wants the previous release back, everywhere and at once.
    pub fn undo(self, now_ms: UnixMs) -> Result<Self, CannotChange> {
        match self.stage {
            Stage::Undone => Err(CannotChange::Undone),
            _ if self.previous.is_none() => Err(CannotChange::NoPrevious),
            _ => Ok(self.to(Stage::Undone, now_ms)),
        }
    }
}
