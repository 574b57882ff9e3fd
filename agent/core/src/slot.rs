//! A slot's life: a desired bundle comes in, a serving model comes out.
//!
//! `Empty → Fetching → Checking → Probation → Serving`, or `Refused`. While a new version comes,
//! the old one (`previous`) stays loaded and answers; anything wrong leads back to it. Where the two do
//! not fit beside each other (`swap_in_place`), the old one is parked from the check on: stopped, kept
//! on disk, and started again if the new one fails.
//!
//! Versions and their workers are in [`running`], what others ask of a slot is in `view`, what happens to
//! versions that are believed no more is in `distrust`.
//!
//! Invariants: only a version that passed its probation is `proven` and survives a reboot unchecked.
//! A version is parked only while another one is at work: in a check, or in its probation.

use muster_shared::Digest;
use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::message::EventKind;
use muster_shared::reported::{Measured, RefusalKind};

use crate::backoff::delay_ms;

mod distrust;
mod running;
mod view;

pub use running::{Health, Running};

/// A worker that ended so often while it was watched, proving nothing each time, fails its probation.
const DEATHS_IN_PROBATION_MAX: u32 = 3;
/// A check that the old version was stopped for is tried again so much later: the old one is to serve
/// most of the time.
const PARKED_RETRY_FACTOR: u64 = 10;

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
        /// What brings it back.
        again: Again,
        /// What answers instead.
        previous: Option<Running>,
    },
}

/// When a bundle that was refused is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// As soon as it is wanted: `reconcile` wants only what no remembered refusal speaks against.
    WhenWanted,
    /// When another worker or a later attempt is wanted, or by another run of the agent. Nothing was
    /// proven and nothing is remembered, so only this keeps it from going round in a circle.
    WhenChanged,
}

/// The child of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        /// The cause.
        reason: String,
    },
}

/// What happens to a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotEvent {
    /// The desired state names this.
    Want(SlotSpec),
    /// The desired state names this, and it was refused before for this reason.
    WantRefused(SlotSpec, String),
    /// What began here must be judged anew before it goes on.
    FetchAgain,
    /// These bundles are believed no more, for this reason: none of them may answer from now on.
    Distrust(Vec<Digest>, String),
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
    /// It needed more memory than it was granted. Proves that this grant is too small.
    OutOfMemory,
    /// By another's hand: killed by a person or by the kernel, which had no memory left for anyone.
    /// Proves nothing.
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
        let running = Running::starting(spec.clone(), step.worker());
        let start = SlotAction::Start(running.worker, spec);
        (Self::Serving { running }, vec![start])
    }

    /// One event's consequences.
    pub fn step(self, event: SlotEvent, step: &mut Step<'_>) -> Outcome {
        match event {
            SlotEvent::Want(spec) => self.want(spec, step),
            SlotEvent::WantRefused(spec, reason) => self.want_refused(spec, reason, step),
            SlotEvent::FetchAgain => self.fetch_again(step),
            SlotEvent::Distrust(bundles, reason) => self.distrust(&bundles, &reason, step),
            SlotEvent::Unwant => self.unwant(),
            SlotEvent::FetchWaiting(reason) => self.fetch_waiting(reason),
            SlotEvent::Untrusted(reason) => self.untrusted(reason),
            SlotEvent::Fetched => self.fetched(step),
            SlotEvent::CheckPassed(worker, measured) => self.check_passed(worker, measured, step),
            SlotEvent::CheckFailed(worker, kind, reason) => self.check_failed(worker, kind, reason, step),
            SlotEvent::CheckStopped(worker, reason) => self.check_stopped(worker, reason, step),
            SlotEvent::Started(worker) => self.started(worker, step),
            SlotEvent::Died(worker, death, reason) => self.died(worker, death, reason, step),
            SlotEvent::Tick => self.tick(step),
        }
    }

    fn want(mut self, spec: SlotSpec, step: &mut Step<'_>) -> Outcome {
        let same = self.target().is_some_and(|target| target.same_worker(&spec));
        let goes_on = match &self {
            Self::Refused { again: Again::WhenWanted, .. } => false,
            Self::Refused { target, again: Again::WhenChanged, .. } => same && spec.attempt <= target.attempt,
            _ => same,
        };
        if goes_on {
            let actions = self.adopt(spec);
            return (self, actions);
        }
        let (previous, mut actions) = self.settle(step);
        match previous {
            Some(running) if running.spec.same_worker(&spec) => {
                let mut back = Self::Serving { running };
                actions.extend(back.adopt(spec));
                (back, actions)
            }
            previous => {
                actions.push(SlotAction::Fetch(spec.clone()));
                (Self::Fetching { target: spec, previous, waiting: None }, actions)
            }
        }
    }

    fn want_refused(mut self, target: SlotSpec, reason: String, step: &mut Step<'_>) -> Outcome {
        // What another slot found says nothing of a worker that answers here: it has its own watch.
        if let Self::Probation { running, .. } | Self::Serving { running } = &self
            && running.spec.same_worker(&target)
        {
            let actions = self.adopt(target);
            return (self, actions);
        }
        let (previous, mut actions) = self.settle(step);
        match previous {
            Some(running) if running.spec.same_worker(&target) => {
                let mut back = Self::Serving { running };
                actions.extend(back.adopt(target));
                (back, actions)
            }
            previous => (Self::Refused { target, reason, again: Again::WhenWanted, previous }, actions),
        }
    }

    /// Takes over a spec of the same worker: nothing but the name that doors use can change.
    fn adopt(&mut self, spec: SlotSpec) -> Vec<SlotAction> {
        match self {
            Self::Empty => vec![],
            Self::Fetching { target, .. } | Self::Checking { target, .. } | Self::Refused { target, .. } => {
                *target = spec;
                vec![]
            }
            Self::Probation { running, .. } | Self::Serving { running } => {
                let renamed = running.spec.served_name() != spec.served_name();
                running.spec = spec;
                if !renamed {
                    return vec![];
                }
                let route = running.has_worker().then(|| running.route());
                std::iter::once(SlotAction::Unroute).chain(route).collect()
            }
        }
    }

    /// Gives up what is under way and goes back to the version to build on: the proven one, or the
    /// one in probation where there is no other.
    fn settle(self, step: &mut Step<'_>) -> (Option<Running>, Vec<SlotAction>) {
        match self {
            Self::Empty => (None, vec![]),
            Self::Fetching { previous, .. } => (previous, vec![SlotAction::StopFetch]),
            Self::Checking { child, mut previous, .. } => {
                let stop = child.worker().map(SlotAction::Stop);
                let start = previous.as_mut().and_then(|previous| previous.unpark(step));
                (previous, stop.into_iter().chain(start).collect())
            }
            Self::Refused { previous, .. } => (previous, vec![]),
            Self::Probation { running, previous: Some(mut previous), .. } => {
                let actions = back_to(Some(&mut previous), Some(&running), step);
                (Some(previous), actions)
            }
            Self::Probation { running, previous: None, .. } | Self::Serving { running } => (Some(running), vec![]),
        }
    }

    fn unwant(self) -> Outcome {
        let mut actions = vec![];
        if let Self::Fetching { .. } = &self {
            actions.push(SlotAction::StopFetch);
        }
        let runnings = self.runnings();
        if !runnings.is_empty() {
            actions.push(SlotAction::Unroute);
        }
        let child = match &self {
            Self::Checking { child, .. } => child.worker(),
            _ => None,
        };
        let workers = runnings.iter().filter(|running| running.has_worker()).map(|running| running.worker);
        actions.extend(workers.chain(child).map(SlotAction::Stop));
        if !runnings.is_empty() {
            actions.push(SlotAction::Prove(None));
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
                let tell = tell(EventKind::BundleRefused, &target, &reason);
                (Self::Refused { target, reason, again: Again::WhenWanted, previous }, vec![tell])
            }
            other => (other, vec![]),
        }
    }

    fn fetched(self, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Fetching { target, previous, .. } => Self::check(target, 0, previous, step),
            other => (other, vec![]),
        }
    }

    /// Begins a check, for which the old version gives way where there is no room for both.
    fn check(target: SlotSpec, attempt: u32, mut previous: Option<Running>, step: &mut Step<'_>) -> Outcome {
        let mut actions = vec![];
        if let Some(previous) = previous.as_mut().filter(|_| target.swap_in_place) {
            actions.push(SlotAction::Unroute);
            actions.extend(previous.park());
        }
        let worker = step.worker();
        actions.push(SlotAction::Check(worker, target.clone()));
        (Self::Checking { target, child: Child::Running { worker, attempt }, previous }, actions)
    }

    fn check_passed(self, worker: WorkerId, measured: Measured, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Checking { target, child, previous } if child.worker() == Some(worker) => {
                let until_ms = step.now_ms + u64::from(target.probation_ms);
                let text = format!("{} version {}", target.model, target.version);
                let running = Running::checked(target, worker, measured, step.now_ms);
                let actions = vec![running.route(), SlotAction::Tell(EventKind::Serving, text)];
                (Self::Probation { running, previous, until_ms }, actions)
            }
            other => (other, vec![]),
        }
    }

    fn check_failed(self, worker: WorkerId, kind: RefusalKind, reason: String, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Checking { target, child, mut previous } if child.worker() == Some(worker) => {
                let tell = tell(EventKind::BundleRefused, &target, &reason);
                let mut actions = vec![SlotAction::Remember(target.clone(), kind, reason.clone()), tell];
                actions.extend(previous.as_mut().and_then(|previous| previous.unpark(step)));
                (Self::Refused { target, reason, again: Again::WhenWanted, previous }, actions)
            }
            other => (other, vec![]),
        }
    }

    fn check_stopped(self, worker: WorkerId, reason: String, step: &mut Step<'_>) -> Outcome {
        match self {
            Self::Checking { target, child: Child::Running { worker: child, attempt }, mut previous }
                if child == worker =>
            {
                let parked = previous.as_ref().is_some_and(Running::is_parked);
                let start = previous.as_mut().and_then(|previous| previous.unpark(step));
                let delay_ms = delay_ms(attempt, 1.0) * if parked { PARKED_RETRY_FACTOR } else { 1 };
                let (retry_ms, attempt) = (step.now_ms + delay_ms, attempt.saturating_add(1));
                let child = Child::Waiting { retry_ms, attempt, reason };
                (Self::Checking { target, child, previous }, start.into_iter().collect())
            }
            other => (other, vec![]),
        }
    }

    fn started(mut self, worker: WorkerId, step: &mut Step<'_>) -> Outcome {
        if let Some(running) = self.running_mut(worker)
            && let Health::Starting { attempt } = running.health
        {
            running.health = Health::Up { since_ms: step.now_ms, attempt };
            if let Self::Probation { running, until_ms, .. } = &mut self
                && running.worker == worker
            {
                // Time in which it did not answer was not watched.
                *until_ms = step.now_ms + u64::from(running.spec.probation_ms);
            }
            let answers = self.answering().filter(|answering| answering.worker == worker);
            let route = answers.map(Running::route);
            return (self, route.into_iter().collect());
        }
        (self, vec![])
    }

    fn died(mut self, worker: WorkerId, death: Death, reason: String, step: &mut Step<'_>) -> Outcome {
        if let Self::Checking { target, child, .. } = &self
            && child.worker() == Some(worker)
        {
            let told = tell(EventKind::WorkerCrashed, target, &reason);
            let (slot, mut actions) = self.check_stopped(worker, reason, step);
            actions.insert(0, told);
            return (slot, actions);
        }
        let Some(running) = self.running_mut(worker) else { return (self, vec![]) };
        let told = tell(EventKind::WorkerCrashed, &running.spec, &reason);
        match self {
            Self::Probation { running, previous, .. } if running.worker == worker => {
                Self::died_in_probation(running, previous, (death, reason), told, step)
            }
            mut other => {
                let now_ms = step.now_ms;
                other.running_mut(worker).into_iter().for_each(|running| running.bury(now_ms));
                (other, vec![told])
            }
        }
    }

    fn died_in_probation(
        mut running: Running,
        mut previous: Option<Running>,
        (death, reason): (Death, String),
        told: SlotAction,
        step: &mut Step<'_>,
    ) -> Outcome {
        // It was begun by its check and restarted only since.
        let deaths = running.restarts.saturating_add(1);
        let (proven, reason) = match death {
            Death::Crashed => (Some(RefusalKind::CrashedInProbation), reason),
            Death::OutOfMemory => (Some(RefusalKind::TooMuchMemoryInProbation), reason),
            Death::Killed if deaths >= DEATHS_IN_PROBATION_MAX => {
                (None, format!("its worker ended {deaths} times while it was watched, the last time: {reason}"))
            }
            Death::Killed => {
                running.bury(step.now_ms);
                // What was not watched does not count as probation.
                let until_ms = step.now_ms + u64::from(running.spec.probation_ms);
                return (Self::Probation { running, previous, until_ms }, vec![told]);
            }
        };
        let mut actions = vec![told];
        actions.extend(back_to(previous.as_mut(), None, step));
        let target = running.spec;
        actions.extend(proven.map(|kind| SlotAction::Remember(target.clone(), kind, reason.clone())));
        if let Some(previous) = &previous {
            let text = format!("{} version {} is back: {reason}", previous.spec.model, previous.spec.version);
            actions.push(SlotAction::Tell(EventKind::RolledBack, text));
        }
        let again = if proven.is_some() { Again::WhenWanted } else { Again::WhenChanged };
        (Self::Refused { target, reason, again, previous }, actions)
    }

    fn tick(self, step: &mut Step<'_>) -> Outcome {
        let now_ms = step.now_ms;
        let (mut slot, mut actions) = match self {
            Self::Checking { target, child: Child::Waiting { retry_ms, attempt, .. }, previous }
                if retry_ms <= now_ms =>
            {
                Self::check(target, attempt, previous, step)
            }
            Self::Probation { running, previous, until_ms } if until_ms <= now_ms && running.is_up() => {
                let previous = previous.filter(Running::has_worker);
                let stop = previous.map(|previous| SlotAction::Stop(previous.worker));
                let prove = SlotAction::Prove(Some(running.spec.clone()));
                (Self::Serving { running }, std::iter::once(prove).chain(stop).collect())
            }
            other => (other, vec![]),
        };
        actions.extend(slot.runnings_mut().into_iter().filter_map(|running| running.restart_if_due(step)));
        (slot, actions)
    }
}

/// Lets the old version answer again, ends the new one's worker if there is one, and starts the old
/// one's where it was stopped to make room.
fn back_to(previous: Option<&mut Running>, ended: Option<&Running>, step: &mut Step<'_>) -> Vec<SlotAction> {
    let stop = ended.filter(|ended| ended.has_worker()).map(|ended| SlotAction::Stop(ended.worker));
    let route = previous.as_ref().filter(|previous| previous.has_worker()).map(|previous| previous.route());
    let start = previous.and_then(|previous| previous.unpark(step));
    std::iter::once(route.unwrap_or(SlotAction::Unroute)).chain(stop).chain(start).collect()
}

fn tell(kind: EventKind, spec: &SlotSpec, reason: &str) -> SlotAction {
    SlotAction::Tell(kind, format!("{} version {}: {reason}", spec.model, spec.version))
}

impl Child {
    /// Its process, while there is one.
    fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::Running { worker, .. } => Some(*worker),
            Self::Waiting { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
