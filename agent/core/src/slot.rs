//! A slot's life: a desired bundle comes in, a serving model comes out.
//!
//! `Empty → Fetching → Checking → Probation → Serving`, or `Refused`. While a new version comes,
//! the old one (`previous`) stays loaded and answers; anything wrong leads back to it.
//!
//! Invariant: only a version that passed its probation is `proven` and survives a reboot unchecked.

use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::message::EventKind;
use muster_shared::reported::{Measured, Phase, RefusalKind};

use crate::backoff::delay_ms;

/// A worker that ran this long without dying starts its restarts from the shortest wait again.
const STABLE_MS: u64 = 60_000;

/// Names one worker process of this agent's run; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// Where a slot stands, with exactly the data of that place.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// Nothing is wanted and nothing runs.
    Empty,
    /// The bundle's files are on their way.
    Fetching {
        /// What is wanted.
        target: SlotSpec,
        /// What answers meanwhile.
        previous: Option<Running>,
        /// Why it does not go on, if it does not.
        waiting: Option<String>,
    },
    /// A child process loads the model and runs its golden vectors.
    Checking {
        /// What is wanted.
        target: SlotSpec,
        /// The child, which becomes the worker if all is right.
        child: Child,
        /// What answers meanwhile.
        previous: Option<Running>,
    },
    /// The new version answers, under watch; the old one stays loaded.
    Probation {
        /// The new version.
        running: Running,
        /// The old version.
        previous: Option<Running>,
        /// When the watch ends.
        until_ms: UnixMs,
    },
    /// As wanted.
    Serving {
        /// The version that answers.
        running: Running,
    },
    /// What is wanted does not run here.
    Refused {
        /// What is wanted.
        target: SlotSpec,
        /// Why.
        reason: String,
        /// What answers instead.
        previous: Option<Running>,
    },
}

/// The child of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Child {
    /// At work.
    Running {
        /// The process.
        worker: WorkerId,
        /// How often it was tried before.
        attempt: u32,
    },
    /// Could not be started or finished for a passing cause; started again at this time.
    Waiting {
        /// When.
        retry_ms: UnixMs,
        /// How often it was tried.
        attempt: u32,
    },
}

/// A version with its worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Running {
    /// What it serves.
    pub spec: SlotSpec,
    /// Its worker.
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
}

/// What happens to a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotEvent {
    /// The desired state names this.
    Want(SlotSpec),
    /// The desired state names this, and it was refused before for this reason.
    WantRefused(SlotSpec, String),
    /// The desired state does not name this slot.
    Unwant,
    /// Fetching does not go on now.
    FetchWaiting(String),
    /// The manifest is not one that may run here. Nothing is remembered: nothing was proven.
    Untrusted(String),
    /// All files are on disk.
    Fetched,
    /// The golden vectors are right; the child is ready to serve.
    CheckPassed(WorkerId, Measured),
    /// The bundle is bad, proven on verified bytes.
    CheckFailed(WorkerId, RefusalKind, String),
    /// The check could not be made now.
    CheckStopped(WorkerId, String),
    /// A worker loaded its model.
    Started(WorkerId),
    /// A worker ended that should not have.
    Died(WorkerId, Death, String),
    /// Time passed.
    Tick,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// By its own doing: a crash, an abort, a failed load.
    Crashed,
    /// By another's hand: killed by a person or by the kernel for memory. Proves nothing.
    Killed,
}

/// What the driver is to do for a slot, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotAction {
    /// Bring the files of this bundle here.
    Fetch(SlotSpec),
    /// Stop bringing files.
    StopFetch,
    /// Start a child that loads the model and runs the golden vectors.
    Check(WorkerId, SlotSpec),
    /// Start a worker for a bundle that was checked before.
    Start(WorkerId, SlotSpec),
    /// Send requests to this worker from now on.
    Route(WorkerId, SlotSpec),
    /// Let a worker finish what it has, then end it.
    Stop(WorkerId),
    /// No version answers from now on.
    Unroute,
    /// The proven version changed: what a reboot brings back.
    Prove(Option<SlotSpec>),
    /// Do not try this bundle again.
    Remember(SlotSpec, RefusalKind, String),
    /// Tell the control plane.
    Tell(EventKind, String),
}

/// What a step may draw on.
#[derive(Debug)]
pub struct Step<'a> {
    /// The device's clock.
    pub now_ms: UnixMs,
    /// The next worker's number.
    pub next_worker: &'a mut u64,
}

impl Step<'_> {
    fn worker(&mut self) -> WorkerId {
        *self.next_worker += 1;
        WorkerId(*self.next_worker)
    }
}

/// The next state, and what to do.
pub type Outcome = (Slot, Vec<SlotAction>);

impl Slot {
    /// A slot after a reboot: the proven version is started at once, before any network.
    pub fn restored(spec: SlotSpec, step: &mut Step<'_>) -> Outcome {
        let worker = step.worker();
        let health = Health::Starting { attempt: 0 };
        let running = Running { spec: spec.clone(), worker, health, measured: None, restarts: 0 };
        (Self::Serving { running }, vec![SlotAction::Start(worker, spec)])
    }

    /// One event's consequences.
    pub fn step(self, event: SlotEvent, step: &mut Step<'_>) -> Outcome {
        match event {
            SlotEvent::Want(spec) => self.want(spec),
            SlotEvent::WantRefused(spec, reason) => self.refuse_again(spec, reason),
            SlotEvent::Unwant => self.unwant(),
            SlotEvent::FetchWaiting(reason) => self.fetch_waiting(reason),
            SlotEvent::Untrusted(reason) => self.untrusted(reason),
            SlotEvent::Fetched => self.fetched(step),
            SlotEvent::CheckPassed(worker, measured) => self.check_passed(worker, measured, step),
            SlotEvent::CheckFailed(worker, kind, reason) => self.check_failed(worker, kind, reason),
            SlotEvent::CheckStopped(worker, reason) => self.check_stopped(worker, reason, step),
            SlotEvent::Started(worker) => self.started(worker, step),
            SlotEvent::Died(worker, death, reason) => self.died(worker, death, reason, step),
            SlotEvent::Tick => self.tick(step),
        }
    }

    fn want(self, spec: SlotSpec) -> Outcome {
        match self {
            Self::Serving { running } if running.spec == spec => (Self::Serving { running }, vec![]),
            Self::Fetching { target, previous, waiting } if target == spec => {
                (Self::Fetching { target, previous, waiting }, vec![])
            }
            Self::Checking { target, child, previous } if target == spec => {
                (Self::Checking { target, child, previous }, vec![])
            }
            Self::Probation { running, previous, until_ms } if running.spec == spec => {
                (Self::Probation { running, previous, until_ms }, vec![])
            }
            other => {
                let (previous, mut actions) = other.settle();
                if let Some(running) = previous.clone().filter(|running| running.spec == spec) {
                    return (Self::Serving { running }, actions);
                }
                actions.push(SlotAction::Fetch(spec.clone()));
                (Self::Fetching { target: spec, previous, waiting: None }, actions)
            }
        }
    }

    fn refuse_again(self, target: SlotSpec, reason: String) -> Outcome {
        let (previous, actions) = self.settle();
        (Self::Refused { target, reason, previous }, actions)
    }

    /// Gives up what is under way and goes back to the version to build on: the proven one, or the
    /// one in probation where there is no other.
    fn settle(self) -> (Option<Running>, Vec<SlotAction>) {
        match self {
            Self::Empty => (None, vec![]),
            Self::Fetching { previous, .. } => (previous, vec![SlotAction::StopFetch]),
            Self::Checking { child: Child::Running { worker, .. }, previous, .. } => {
                (previous, vec![SlotAction::Stop(worker)])
            }
            Self::Checking { previous, .. } | Self::Refused { previous, .. } => (previous, vec![]),
            Self::Probation { running, previous: Some(previous), .. } => {
                let route = SlotAction::Route(previous.worker, previous.spec.clone());
                (Some(previous), vec![route, SlotAction::Stop(running.worker)])
            }
            Self::Probation { running, previous: None, .. } | Self::Serving { running } => (Some(running), vec![]),
        }
    }

    fn unwant(self) -> Outcome {
        let (previous, mut actions) = self.settle();
        if let Some(running) = previous {
            actions.extend([SlotAction::Unroute, SlotAction::Stop(running.worker), SlotAction::Prove(None)]);
        }
        (Self::Empty, actions)
    }

    fn fetch_waiting(self, reason: String) -> Outcome {
        match self {
            Self::Fetching { target, previous, .. } => {
                (Self::Fetching { target, previous, waiting: Some(reason) }, vec![])
            }
            other => (other, vec![]),
        }
    }

    fn untrusted(self, reason: String) -> Outcome {
        match self {
            Self::Fetching { target, previous, .. } => {
                let text = format!("{} version {}: {reason}", target.model, target.version);
                let tell = SlotAction::Tell(EventKind::BundleRefused, text);
                (Self::Refused { target, reason, previous }, vec![tell])
            }
            other => (other, vec![]),
        }
    }

    fn fetched(self, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Fetching { target, previous, .. } => {
                let worker = step.worker();
                let check = SlotAction::Check(worker, target.clone());
                (Self::Checking { target, child: Child::Running { worker, attempt: 0 }, previous }, vec![check])
            }
            other => (other, vec![]),
        }
    }

    fn check_passed(self, worker: WorkerId, measured: Measured, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Checking { target, child: Child::Running { worker: child, .. }, previous } if child == worker => {
                let actions = vec![
                    SlotAction::Route(worker, target.clone()),
                    SlotAction::Tell(EventKind::Serving, format!("{} version {}", target.model, target.version)),
                ];
                let until_ms = step.now_ms + u64::from(target.probation_ms);
                let health = Health::Up { since_ms: step.now_ms, attempt: 0 };
                let running = Running { spec: target, worker, health, measured: Some(measured), restarts: 0 };
                (Self::Probation { running, previous, until_ms }, actions)
            }
            other => (other, vec![]),
        }
    }

    fn check_failed(self, worker: WorkerId, kind: RefusalKind, reason: String) -> Outcome {
        match self {
            Self::Checking { target, child: Child::Running { worker: child, .. }, previous } if child == worker => {
                let text = format!("{} version {}: {reason}", target.model, target.version);
                let actions = vec![
                    SlotAction::Remember(target.clone(), kind, reason.clone()),
                    SlotAction::Tell(EventKind::BundleRefused, text),
                ];
                (Self::Refused { target, reason, previous }, actions)
            }
            other => (other, vec![]),
        }
    }

    fn check_stopped(self, worker: WorkerId, _reason: String, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Checking { target, child: Child::Running { worker: child, attempt }, previous }
                if child == worker =>
            {
                (Self::Checking { target, child: Child::retry(attempt, step.now_ms), previous }, vec![])
            }
            other => (other, vec![]),
        }
    }

    fn started(mut self, worker: WorkerId, step: &mut Step<'_>) -> Outcome {
        if let Some(running) = self.running_mut(worker)
            && let Health::Starting { attempt } = running.health
        {
            running.health = Health::Up { since_ms: step.now_ms, attempt };
            let spec = running.spec.clone();
            let answers = self.answering().is_some_and(|answering| answering.worker == worker);
            let route = answers.then_some(SlotAction::Route(worker, spec));
            return (self, route.into_iter().collect());
        }
        (self, vec![])
    }

    fn died(mut self, worker: WorkerId, death: Death, reason: String, step: &mut Step<'_>) -> Outcome {
        let tell = |spec: &SlotSpec| {
            let text = format!("{} version {}: {reason}", spec.model, spec.version);
            SlotAction::Tell(EventKind::WorkerCrashed, text)
        };
        if let Self::Checking { target, child, .. } = &mut self
            && let Child::Running { worker: dead, attempt } = *child
            && dead == worker
        {
            let told = tell(target);
            *child = Child::retry(attempt, step.now_ms);
            return (self, vec![told]);
        }
        match self {
            Self::Probation { running, previous, .. } if running.worker == worker && death == Death::Crashed => {
                let told = tell(&running.spec);
                Self::fail_probation(running, previous, reason, told)
            }
            mut other => {
                let until = step.now_ms;
                let Some(running) = other.running_mut(worker) else { return (other, vec![]) };
                running.bury(until);
                let told = tell(&running.spec);
                if let Self::Probation { running, until_ms, .. } = &mut other
                    && running.worker == worker
                {
                    // What was not watched does not count as probation.
                    *until_ms = step.now_ms + u64::from(running.spec.probation_ms);
                }
                (other, vec![told])
            }
        }
    }

    fn fail_probation(running: Running, previous: Option<Running>, reason: String, told: SlotAction) -> Outcome {
        let target = running.spec;
        let mut actions = vec![told];
        actions.push(match &previous {
            Some(previous) => SlotAction::Route(previous.worker, previous.spec.clone()),
            None => SlotAction::Unroute,
        });
        actions.push(SlotAction::Remember(target.clone(), RefusalKind::CrashedInProbation, reason.clone()));
        if let Some(previous) = &previous {
            let text = format!("{} version {} is back: {reason}", previous.spec.model, previous.spec.version);
            actions.push(SlotAction::Tell(EventKind::RolledBack, text));
        }
        (Self::Refused { target, reason, previous }, actions)
    }

    fn tick(mut self, step: &mut Step<'_>) -> Outcome {
        let mut actions = vec![];
        for running in self.runnings_mut() {
            if let Health::Down { retry_ms, attempt } = running.health
                && retry_ms <= step.now_ms
            {
                running.worker = step.worker();
                running.health = Health::Starting { attempt };
                running.restarts = running.restarts.saturating_add(1);
                actions.push(SlotAction::Start(running.worker, running.spec.clone()));
            }
        }
        match self {
            Self::Checking { target, child: Child::Waiting { retry_ms, attempt }, previous }
                if retry_ms <= step.now_ms =>
            {
                let worker = step.worker();
                actions.push(SlotAction::Check(worker, target.clone()));
                (Self::Checking { target, child: Child::Running { worker, attempt }, previous }, actions)
            }
            Self::Probation { running, previous, until_ms } if until_ms <= step.now_ms && running.is_up() => {
                actions.push(SlotAction::Prove(Some(running.spec.clone())));
                actions.extend(previous.map(|previous| SlotAction::Stop(previous.worker)));
                (Self::Serving { running }, actions)
            }
            other => (other, actions),
        }
    }

    /// When [`SlotEvent::Tick`] has something to do.
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
            Self::Checking { child: Child::Waiting { .. }, .. } => {
                Some("the check could not be made; it is tried again".to_owned())
            }
            Self::Refused { reason, .. } => Some(reason.clone()),
            Self::Serving { running } | Self::Probation { running, .. } if !running.is_up() => {
                Some("its worker is being started again".to_owned())
            }
            _ => None,
        }
    }

    /// Every version with a worker: the one that answers and the one kept loaded beside it.
    pub fn runnings(&self) -> Vec<&Running> {
        match self {
            Self::Probation { running, previous, .. } => std::iter::once(running).chain(previous).collect(),
            other => other.answering().into_iter().collect(),
        }
    }

    fn runnings_mut(&mut self) -> Vec<&mut Running> {
        match self {
            Self::Empty => vec![],
            Self::Fetching { previous, .. } | Self::Checking { previous, .. } | Self::Refused { previous, .. } => {
                previous.iter_mut().collect()
            }
            Self::Probation { running, previous, .. } => std::iter::once(running).chain(previous).collect(),
            Self::Serving { running } => vec![running],
        }
    }

    fn running_mut(&mut self, worker: WorkerId) -> Option<&mut Running> {
        self.runnings_mut().into_iter().find(|running| running.worker == worker)
    }
}

impl Child {
    fn retry(attempt: u32, now_ms: UnixMs) -> Self {
        Self::Waiting { retry_ms: now_ms + delay_ms(attempt, 1.0), attempt: attempt.saturating_add(1) }
    }
}

impl Running {
    /// Whether its worker answers.
    pub fn is_up(&self) -> bool {
        matches!(self.health, Health::Up { .. })
    }

    /// Its worker died: when is it started again?
    fn bury(&mut self, now_ms: UnixMs) {
        let attempt = match self.health {
            Health::Up { since_ms, .. } if now_ms >= since_ms + STABLE_MS => 0,
            Health::Up { attempt, .. } | Health::Starting { attempt } | Health::Down { attempt, .. } => attempt,
        };
        // The first restart is immediate: one crash should cost a model as little as can be.
        let delay = if attempt == 0 { 0 } else { delay_ms(attempt - 1, 1.0) };
        self.health = Health::Down { retry_ms: now_ms + delay, attempt: attempt.saturating_add(1) };
    }
}

#[cfg(test)]
mod tests;
