//! The whole agent as one pure machine: what it believes, what is wanted of it, what its slots do.
//! Events go in, actions come out; the driver carries them out in their order.
//!
//! Invariant: what must survive a power cut (`Save…`) stands before what depends on it.

use std::collections::BTreeMap;

use muster_shared::desired::{Desired, SlotSpec};
use muster_shared::id::{Generation, UnixMs};
use muster_shared::limits::{REFUSALS_MAX, clip};
use muster_shared::message::{ChunkData, EventKind, Held};
use muster_shared::reported::{BundleRef, DesiredRefused, Refusal, RefusalKind, SlotReport};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::{DeploymentName, Digest, Nonce};

use crate::clock::{self, Clock, Confirmed};
use crate::fetch::{FetchAction, Fetcher, Looked};
use crate::limits::{Allowed, OwnerLimits};
use crate::slot::{Outcome, Slot, SlotAction, SlotEvent, Step, WorkerId};
use crate::verify::bundle::{Beliefs, Known, Proven, Software};
use crate::verify::desired::{AcceptedDesired, Verdict, accept};
use crate::verify::floors::Floors;
use crate::verify::{Holding, Identity, Mark, NotAccepted, Watermark};

mod trust;

/// What an agent is and knows.
#[derive(Debug)]
pub struct Agent {
    identity: Identity,
    version: String,
    root: TrustedRoot,
    /// As it travelled, where it is known: what is kept beside the key.
    root_kept: Option<Envelope>,
    clock: Clock,
    floors: Floors,
    /// Bundles in use, with what is known of them since their manifests were verified.
    known: BTreeMap<Digest, Known>,
    software: Software,
    limits: OwnerLimits,
    allowed: Allowed,
    desired: Option<AcceptedDesired>,
    desired_refused: Option<DesiredRefused>,
    /// The highest desired state that was ever taken, as it is kept beside the key.
    mark: Option<Mark>,
    /// Why the mark is not known, if it is not: nothing new is taken meanwhile.
    mark_unknown: Option<String>,
    /// Accepted, and taken as soon as its mark is kept.
    pending: Option<(Envelope, AcceptedDesired)>,
    nonce: Option<Nonce>,
    earlier_nonce: Option<Nonce>,
    /// The root that was asked for because a desired state was signed under it.
    root_asked_for: Option<u64>,
    slots: BTreeMap<DeploymentName, Slot>,
    refusals: Vec<Refusal>,
    fetcher: Fetcher,
    next_worker: u64,
}

/// What a reboot brings back from the journal, each verified by its reader.
#[derive(Debug)]
pub struct Restored {
    /// Who this device is.
    pub identity: Identity,
    /// The agent's own version, which refusals are bound to.
    pub version: String,
    /// The newest root.
    pub root: TrustedRoot,
    /// The clock, with the bound that was kept.
    pub clock: Clock,
    /// What was kept beside the key.
    pub watermark: Watermark,
    /// Why that is not all that should be known, if so.
    pub watermark_unknown: Option<String>,
    /// What this device's engines take.
    pub software: Software,
    /// What this device's owner allows.
    pub limits: OwnerLimits,
    /// The newest desired state.
    pub desired: Option<AcceptedDesired>,
    /// Versions that passed their probation, by slot.
    pub proven: Vec<Proven>,
    /// Bundles not to be tried again.
    pub refusals: Vec<Refusal>,
}

/// What happens to an agent.
#[derive(Debug)]
pub enum Event {
    /// The connection stands.
    Connected,
    /// A hello is about to be said; this nonce was drawn for it.
    HelloSaid(Nonce),
    /// The connection is gone.
    Disconnected,
    /// The server's certificate comes from the pinned authority and is not good at this time.
    ServerOutOfTime,
    /// A root document came.
    TrustOffered(Envelope),
    /// A version floor came, with a manifest of its model.
    FloorOffered(Envelope, Option<Envelope>),
    /// The watermark is kept, and holds this of desired states.
    WatermarkKept(Option<Mark>),
    /// The watermark could not be kept; the text says why.
    WatermarkNotKept(String),
    /// The watermark that was not known is known now.
    WatermarkRead(Watermark),
    /// A director's time came.
    TimeTold(Envelope),
    /// A desired state came.
    DesiredOffered(Envelope),
    /// Something came in a desired state's place that cannot be read; the text says why.
    DesiredUnreadable(String),
    /// A frame came, or word that there is none.
    Chunk(ChunkData),
    /// The store looked.
    Looked(Digest, Looked),
    /// The store could not write a blob.
    StoreFailed(Digest, String),
    /// The store made a blob final.
    BlobFinished(Digest),
    /// Something happened to a slot.
    Slot(DeploymentName, SlotEvent),
    /// Time passed.
    Tick,
}

/// What the driver is to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make the root of this version durable.
    SaveRoot(u64, Envelope),
    /// Make the desired state durable.
    SaveDesired(Envelope),
    /// Make the proven version of a slot durable; none: forget it.
    SaveProven(DeploymentName, Option<Proven>),
    /// Keep this beside the key, then say so ([`Event::WatermarkKept`]).
    KeepWatermark(Watermark),
    /// Make the refusals durable.
    SaveRefusals(Vec<Refusal>),
    /// Something for the store or the plane.
    Fetch(FetchAction),
    /// Start a child that loads a model, and checks its golden vectors.
    Check(WorkerId, SlotSpec),
    /// Start a worker for a proven bundle.
    Start(WorkerId, SlotSpec),
    /// Doors ask this worker from now on.
    Route(WorkerId, SlotSpec),
    /// Doors find nobody for this slot from now on.
    Unroute(DeploymentName),
    /// Let a worker finish, then end it.
    Stop(WorkerId),
    /// Tell the control plane what happened.
    Tell(EventKind, Option<DeploymentName>, String),
    /// Say hello again, with a fresh nonce.
    SayHello,
    /// Send the reported state: it changed.
    Report,
}

impl Agent {
    /// An agent after its start: proven versions are started before any network. `now_ms` is steady time,
    /// here and in every step: deadlines are counted in it, and the [`Clock`] makes wall time of it.
    pub fn restored(restored: Restored, now_ms: UnixMs) -> (Self, Vec<Action>) {
        let mut agent = Self {
            identity: restored.identity,
            version: restored.version,
            floors: Floors::restored(&restored.watermark, &restored.root),
            root: restored.root,
            root_kept: restored.watermark.root,
            clock: restored.clock,
            known: BTreeMap::new(),
            software: restored.software,
            limits: restored.limits,
            allowed: Allowed::default(),
            desired: restored.desired,
            desired_refused: None,
            mark: restored.watermark.desired,
            mark_unknown: restored.watermark_unknown,
            pending: None,
            nonce: None,
            earlier_nonce: None,
            root_asked_for: None,
            slots: BTreeMap::new(),
            refusals: restored.refusals,
            fetcher: Fetcher::default(),
            next_worker: 0,
        };
        let mut actions = vec![];
        let proven = agent.trusted_still(restored.proven, &mut actions);
        for spec in proven {
            let mut step = Step { now_ms, next_worker: &mut agent.next_worker };
            let deployment = spec.deployment.clone();
            let (slot, started) = Slot::restored(spec, &mut step);
            agent.slots.insert(deployment.clone(), slot);
            actions.extend(agent.carry(&deployment, started, now_ms));
        }
        actions.extend(agent.reconcile(now_ms));
        (agent, actions)
    }

    /// One event's consequences.
    pub fn step(&mut self, event: Event, now_ms: UnixMs) -> Vec<Action> {
        match event {
            Event::HelloSaid(nonce) => {
                self.earlier_nonce = self.nonce.replace(nonce);
                vec![]
            }
            Event::Connected => {
                self.clock.connected();
                let mut actions = self.fetched(|fetcher, _| fetcher.set_online(true, now_ms), now_ms);
                actions.push(Action::Report);
                actions
            }
            Event::Disconnected => self.fetched(|fetcher, _| fetcher.set_online(false, now_ms), now_ms),
            Event::ServerOutOfTime if self.clock.server_out_of_time(now_ms) => {
                let text = "by a director's time no server is to be trusted any more: the time is doubted";
                vec![Action::Tell(EventKind::Clock, None, text.to_owned())]
            }
            Event::ServerOutOfTime => vec![],
            Event::TrustOffered(root) => self.trust_offered(&root, now_ms),
            Event::FloorOffered(floor, manifest) => self.floor_offered(&floor, manifest.as_ref(), now_ms),
            Event::WatermarkKept(mark) => self.watermark_kept(mark, now_ms),
            Event::WatermarkNotKept(reason) => self.watermark_not_kept(reason, now_ms),
            Event::WatermarkRead(watermark) => self.watermark_read(&watermark, now_ms),
            Event::TimeTold(time) => self.time_told(&time, now_ms),
            Event::DesiredOffered(desired) => self.desired_offered(&desired, now_ms),
            Event::DesiredUnreadable(reason) => self.refuse_desired(None, reason, now_ms),
            Event::Chunk(data) => self.fetched(|fetcher, _| fetcher.arrived(data, now_ms), now_ms),
            Event::Looked(blob, found) => {
                self.fetched(|fetcher, beliefs| fetcher.looked(blob, found, beliefs, now_ms), now_ms)
            }
            Event::StoreFailed(blob, reason) => {
                self.fetched(|fetcher, _| fetcher.store_failed(blob, reason, now_ms), now_ms)
            }
            Event::BlobFinished(blob) => {
                self.fetched(|fetcher, beliefs| fetcher.finished(blob, beliefs, now_ms), now_ms)
            }
            Event::Slot(deployment, event) => self.slot_event(&deployment, event, now_ms),
            Event::Tick => self.tick(now_ms),
        }
    }

    /// When [`Event::Tick`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<UnixMs> {
        self.slots.values().filter_map(Slot::next_deadline_ms).chain(self.fetcher.next_deadline_ms()).min()
    }

    fn time_told(&mut self, offered: &Envelope, now_ms: UnixMs) -> Vec<Action> {
        let director_ms = match clock::told(offered, &self.identity, &self.root, self.nonce) {
            Ok(director_ms) => director_ms,
            // The answer to an earlier hello: that to the last one is on its way.
            Err(clock::NotTold::NotFresh) => return vec![],
            Err(error) => {
                let text = clip(format!("a director's time was not believed: {error}"));
                return vec![Action::Tell(EventKind::Clock, None, text)];
            }
        };
        let was_wrong = self.clock.is_known_wrong(now_ms);
        let confirmed = self.clock.confirm(director_ms, now_ms);
        // What waited for the time goes on.
        let mut actions = if was_wrong { self.reconcile(now_ms) } else { vec![] };
        actions.extend(match confirmed {
            Confirmed::Kept if self.desired_refused.is_none() => vec![],
            // What was refused by a clock that nobody had confirmed is offered again.
            Confirmed::Kept => vec![Action::SayHello],
            Confirmed::Replaced { was_ms, now_ms } => {
                let (was, now) = (clock::utc(was_ms), clock::utc(now_ms));
                let text = format!("the clock said {was}; by a director it is {now}, which counts from now on");
                vec![Action::Tell(EventKind::Clock, None, text), Action::SayHello, Action::Report]
            }
        });
        actions
    }

    fn desired_offered(&mut self, offered: &Envelope, now_ms: UnixMs) -> Vec<Action> {
        match accept(offered, self.holding(), self.clock.wall(now_ms)) {
            Ok(Verdict::Repeat) => vec![Action::Report],
            Ok(Verdict::New(_)) if self.clock.is_known_wrong(now_ms) => {
                self.refuse_desired(None, self.clock.describe(now_ms), now_ms)
            }
            Ok(Verdict::New(accepted)) => self.mark_then_take(offered, *accepted, now_ms),
            // Roots are sent in answer to a hello, before the desired state. Asked for once: it may not be there.
            Err(NotAccepted::RootToCome { found, .. }) if self.root_asked_for != Some(found) => {
                self.root_asked_for = Some(found);
                vec![Action::SayHello]
            }
            Err(error) => {
                let doubted = matches!(error, NotAccepted::OutOfTime) && self.clock.doubt();
                let generation = match &error {
                    NotAccepted::Stale { offered, .. }
                    | NotAccepted::BelowWatermark { offered, .. }
                    | NotAccepted::Jump { offered, .. }
                    | NotAccepted::Conflict(offered) => Some(*offered),
                    _ => None,
                };
                let mut actions = self.refuse_desired(generation, error.to_string(), now_ms);
                // It asks for the time, and what is wanted is told again.
                actions.extend(doubted.then_some(Action::SayHello));
                actions
            }
        }
    }

    fn refuse_desired(&mut self, generation: Option<Generation>, reason: String, now_ms: UnixMs) -> Vec<Action> {
        let reason = clip(reason);
        let at_ms = self.clock.wall(now_ms);
        self.desired_refused = Some(DesiredRefused { generation, reason: reason.clone(), at_ms });
        vec![Action::Tell(EventKind::DesiredRefused, None, reason), Action::Report]
    }

    /// Holds the desired state against the slots.
    fn reconcile(&mut self, now_ms: UnixMs) -> Vec<Action> {
        let Some(desired) = self.desired.clone() else { return vec![] };
        let Desired { slots: wanted, .. } = desired.desired();
        let mut actions = vec![];
        self.allowed = self.limits.allow(wanted, |spec| self.running_for(spec));
        let gone = |deployment: &&DeploymentName| !wanted.iter().any(|spec| &spec.deployment == *deployment);
        let unwanted: Vec<_> = self.slots.keys().filter(gone).cloned().collect();
        for deployment in unwanted {
            actions.extend(self.slot_event(&deployment, SlotEvent::Unwant, now_ms));
        }
        for spec in wanted {
            let swap_in_place = spec.swap_in_place || self.allowed.swapped.contains(&spec.deployment);
            let spec = SlotSpec { swap_in_place, ..spec.clone() };
            let deployment = spec.deployment.clone();
            let event = match self.speaks_against(&spec) {
                Some(reason) => SlotEvent::WantRefused(spec, reason),
                None => SlotEvent::Want(spec),
            };
            actions.extend(self.slot_event(&deployment, event, now_ms));
        }
        self.forget_unused();
        actions.extend(self.fetched(|fetcher, _| fetcher.trust_changed(), now_ms));
        actions
    }

    fn refusal_of(&self, spec: &SlotSpec) -> Option<&Refusal> {
        self.refusals.iter().find(|refusal| self.counts(refusal, spec))
    }

    /// Whether what was proven then speaks against what is wanted now: not of another agent, not of a
    /// later attempt, and too little memory not where more is granted.
    fn counts(&self, refusal: &Refusal, spec: &SlotSpec) -> bool {
        let enough = match refusal.kind {
            RefusalKind::TooMuchMemoryInProbation => spec.resources.memory_bytes > refusal.memory_bytes,
            RefusalKind::GoldenMismatch | RefusalKind::CannotLoad | RefusalKind::CrashedInProbation => false,
        };
        refusal.bundle.manifest == spec.manifest
            && refusal.agent == self.version
            && spec.attempt <= refusal.attempt
            && !enough
    }

    fn slot_event(&mut self, deployment: &DeploymentName, event: SlotEvent, now_ms: UnixMs) -> Vec<Action> {
        let slot = self.slots.remove(deployment).unwrap_or(Slot::Empty);
        let before = slot.clone();
        let mut step = Step { now_ms, next_worker: &mut self.next_worker };
        let (slot, slot_actions): Outcome = slot.step(event, &mut step);
        let changed = slot != before;
        if slot != Slot::Empty {
            self.slots.insert(deployment.clone(), slot);
        }
        let mut actions = self.carry(deployment, slot_actions, now_ms);
        if changed {
            actions.push(Action::Report);
        }
        actions
    }

    fn carry(&mut self, deployment: &DeploymentName, slot_actions: Vec<SlotAction>, now_ms: UnixMs) -> Vec<Action> {
        let mut actions = vec![];
        for action in slot_actions {
            match action {
                SlotAction::Fetch(spec) => {
                    let fetch = self.fetcher.start(deployment.clone(), spec);
                    actions.extend(self.carry_fetch(fetch, now_ms));
                }
                SlotAction::StopFetch => {
                    let fetch = self.fetcher.stop(deployment);
                    actions.extend(self.carry_fetch(fetch, now_ms));
                }
                SlotAction::Check(worker, spec) => actions.push(Action::Check(worker, spec)),
                SlotAction::Start(worker, spec) => actions.push(Action::Start(worker, spec)),
                SlotAction::Route(worker, spec) => actions.push(Action::Route(worker, spec)),
                SlotAction::Unroute => actions.push(Action::Unroute(deployment.clone())),
                SlotAction::Stop(worker) => actions.push(Action::Stop(worker)),
                SlotAction::Prove(spec) => {
                    let proven = spec.map(|spec| self.proven(spec));
                    actions.push(Action::SaveProven(deployment.clone(), proven));
                }
                SlotAction::Remember(spec, kind, reason) => {
                    self.remember(&spec, kind, &reason, now_ms);
                    actions.push(Action::SaveRefusals(self.refusals.clone()));
                }
                SlotAction::Tell(kind, text) => actions.push(Action::Tell(kind, Some(deployment.clone()), clip(text))),
            }
        }
        actions
    }

    fn remember(&mut self, spec: &SlotSpec, kind: RefusalKind, reason: &str, now_ms: UnixMs) {
        self.refusals.retain(|refusal| refusal.bundle.manifest != spec.manifest);
        if self.refusals.len() >= REFUSALS_MAX {
            self.refusals.remove(0);
        }
        self.refusals.push(Refusal {
            bundle: bundle_of(spec),
            agent: self.version.clone(),
            attempt: spec.attempt,
            memory_bytes: spec.resources.memory_bytes,
            kind,
            reason: clip(reason),
            at_ms: self.clock.wall(now_ms),
        });
    }

    fn fetched(
        &mut self,
        f: impl FnOnce(&mut Fetcher, Beliefs<'_>) -> Vec<FetchAction>,
        now_ms: UnixMs,
    ) -> Vec<Action> {
        let not_now = self.not_now(now_ms);
        let beliefs = Beliefs {
            root: &self.root,
            floors: &self.floors,
            software: &self.software,
            desired: self.desired.as_ref(),
            not_now: not_now.as_deref(),
            known: &self.known,
            disk_bytes: self.limits.disk_bytes,
            wall_ms: self.clock.wall(now_ms),
        };
        let fetch = f(&mut self.fetcher, beliefs);
        self.carry_fetch(fetch, now_ms)
    }

    fn carry_fetch(&mut self, fetch: Vec<FetchAction>, now_ms: UnixMs) -> Vec<Action> {
        let mut actions = vec![];
        for action in fetch {
            match action {
                FetchAction::Done { deployment } => {
                    actions.extend(self.slot_event(&deployment, SlotEvent::Fetched, now_ms));
                }
                FetchAction::Waiting { deployment, reason } => {
                    actions.extend(self.slot_event(&deployment, SlotEvent::FetchWaiting(clip(reason)), now_ms));
                }
                FetchAction::Untrusted { deployment, reason } => {
                    actions.extend(self.slot_event(&deployment, SlotEvent::Untrusted(clip(reason)), now_ms));
                }
                FetchAction::Verified(manifest, envelope) => actions.extend(self.verified(&manifest, envelope, now_ms)),
                FetchAction::Discarded { deployment, blob, piece } => {
                    let text = format!("piece {piece} of {} arrived damaged and is asked for again", blob.short());
                    actions.push(Action::Tell(EventKind::ChunkDiscarded, Some(deployment), text));
                }
                other => actions.push(Action::Fetch(other)),
            }
        }
        actions
    }

    fn tick(&mut self, now_ms: UnixMs) -> Vec<Action> {
        let due = |slot: &Slot| slot.next_deadline_ms().is_some_and(|deadline| deadline <= now_ms);
        let due: Vec<_> =
            self.slots.iter().filter(|(_, slot)| due(slot)).map(|(deployment, _)| deployment.clone()).collect();
        let mut actions = vec![];
        for deployment in due {
            let event = if self.may_check_again(&deployment, now_ms) { SlotEvent::Tick } else { SlotEvent::FetchAgain };
            actions.extend(self.slot_event(&deployment, event, now_ms));
        }
        if !self.allowed.kept_out.is_empty() {
            // A version that ended leaves room.
            actions.extend(self.reconcile(now_ms));
        }
        actions.extend(self.fetched(|fetcher, _| fetcher.tick(now_ms), now_ms));
        actions
    }

    fn holding(&self) -> Holding<'_> {
        Holding {
            identity: &self.identity,
            root: &self.root,
            held: self.held(),
            watermark: self.mark,
            nonce: self.nonce,
            earlier_nonce: self.earlier_nonce,
        }
    }

    /// Who this device is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The root it believes in.
    pub fn root(&self) -> &TrustedRoot {
        &self.root
    }

    /// What it knows of the time.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The desired state it holds.
    pub fn held(&self) -> Option<Held> {
        self.desired.as_ref().map(AcceptedDesired::held)
    }

    /// The last desired state it did not take since the last one it took.
    pub fn desired_refused(&self) -> Option<&DesiredRefused> {
        self.desired_refused.as_ref()
    }

    /// Bundles it will not try again.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// The slot of a deployment.
    pub fn slot(&self, deployment: &DeploymentName) -> Option<&Slot> {
        self.slots.get(deployment)
    }

    /// Every bundle that this device works with or towards: what must stay on disk.
    pub fn specs_in_use(&self) -> Vec<SlotSpec> {
        let of = |slot: &Slot| -> Vec<SlotSpec> {
            let running = slot.runnings().into_iter().map(|running| running.spec.clone());
            running.chain(slot.target().cloned()).collect()
        };
        self.slots.values().flat_map(of).collect()
    }

    /// The slots as they are reported.
    pub fn slot_reports(&self) -> Vec<SlotReport> {
        let report = |(deployment, slot): (&DeploymentName, &Slot)| {
            let answering = slot.answering();
            SlotReport {
                deployment: deployment.clone(),
                phase: slot.phase(),
                wanted: slot.target().map(bundle_of),
                running: answering.filter(|running| running.is_up()).map(|running| bundle_of(&running.spec)),
                waiting: slot.waiting().map(clip).or_else(|| self.progress_text(deployment)),
                restarts: answering.map_or(0, |running| running.restarts),
                measured: answering.and_then(|running| running.measured),
            }
        };
        self.slots.iter().map(report).collect()
    }

    fn progress_text(&self, deployment: &DeploymentName) -> Option<String> {
        self.fetcher.progress(deployment).map(|(done, all)| format!("{done} of {all} chunks are here"))
    }
}

/// The bundle that a slot spec names.
pub fn bundle_of(spec: &SlotSpec) -> BundleRef {
    BundleRef { model: spec.model.clone(), version: spec.version, manifest: spec.manifest }
}

#[cfg(test)]
mod time_tests;
#[cfg(test)]
mod trust_tests;

#[cfg(test)]
mod tests;
