//! A version with its worker: when it answers, when it is started again, when it gives way.

use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::reported::Measured;

use super::{SlotAction, Step, WorkerId};
use crate::backoff::delay_ms;

/// A worker that ran this long without dying starts its restarts from the shortest wait again.
pub(super) const STABLE_MS: u64 = 60_000;

/// A version with its worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// What it serves.
    pub spec: SlotSpec,
    /// Its worker; the last one where it has none now.
    pub worker: WorkerId,
    /// Up, or when it is started again.
    pub health: Health,
    /// Measured while it was checked; unknown after a reboot.
    pub measured: Option<Measured>,
    /// How often it was started again.
    pub restarts: u32,
}

/// Whether a worker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is loading.
    Starting {
        /// Deaths in a row before this start.
        attempt: u32,
    },
    /// It answers.
    Up {
        /// Since when.
        since_ms: UnixMs,
        /// Deaths in a row before.
        attempt: u32,
    },
    /// It died and is started again at this time.
    Down {
        /// When.
        retry_ms: UnixMs,
        /// Deaths in a row.
        attempt: u32,
    },
    /// It was stopped to make room for another version, and is started again if that one fails.
    Parked,
}

impl Running {
    /// A version that passed its checks before and is started now.
    pub(super) fn starting(spec: SlotSpec, worker: WorkerId) -> Self {
        Self { spec, worker, health: Health::Starting { attempt: 0 }, measured: None, restarts: 0 }
    }

    /// A version whose checked child is its worker from now on.
    pub(super) fn checked(spec: SlotSpec, worker: WorkerId, measured: Measured, now_ms: UnixMs) -> Self {
        let health = Health::Up { since_ms: now_ms, attempt: 0 };
        Self { spec, worker, health, measured: Some(measured), restarts: 0 }
    }

    /// Whether its worker answers.
    pub fn is_up(&self) -> bool {
        matches!(self.health, Health::Up { .. })
    }

    /// Whether it was stopped to make room for another version.
    pub fn is_parked(&self) -> bool {
        self.health == Health::Parked
    }

    /// Whether there is a process, loading or answering.
    pub fn has_worker(&self) -> bool {
        matches!(self.health, Health::Up { .. } | Health::Starting { .. })
    }

    /// Sends requests to its worker.
    pub(super) fn route(&self) -> SlotAction {
        SlotAction::Route(self.worker, self.spec.clone())
    }

    /// Makes room for another version.
    pub(super) fn park(&mut self) -> Option<SlotAction> {
        let stop = self.has_worker().then_some(SlotAction::Stop(self.worker));
        self.health = Health::Parked;
        stop
    }

    /// Starts it again if it made room for another version.
    pub(super) fn unpark(&mut self, step: &mut Step<'_>) -> Option<SlotAction> {
        self.is_parked().then(|| self.start(0, step))
    }

    /// Its worker died: when is it started again?
    pub(super) fn bury(&mut self, now_ms: UnixMs) {
        let attempt = match self.health {
            Health::Up { since_ms, .. } if now_ms >= since_ms + STABLE_MS => 0,
            Health::Up { attempt, .. } | Health::Starting { attempt } | Health::Down { attempt, .. } => attempt,
            Health::Parked => return,
        };
        // The first restart is immediate: one crash should cost a model as little as can be.
        let delay = if attempt == 0 { 0 } else { delay_ms(attempt - 1, 1.0) };
        self.health = Health::Down { retry_ms: now_ms + delay, attempt: attempt.saturating_add(1) };
    }

    /// Starts it again if it died and its time has come.
    pub(super) fn restart_if_due(&mut self, step: &mut Step<'_>) -> Option<SlotAction> {
        match self.health {
            Health::Down { retry_ms, attempt } if retry_ms <= step.now_ms => {
                self.restarts = self.restarts.saturating_add(1);
                Some(self.start(attempt, step))
            }
            _ => None,
        }
    }

    fn start(&mut self, attempt: u32, step: &mut Step<'_>) -> SlotAction {
        self.worker = step.worker();
        self.health = Health::Starting { attempt };
        SlotAction::Start(self.worker, self.spec.clone())
    }
}
