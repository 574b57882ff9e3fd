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

use crate::accept::{AcceptedDesired, Holding, Identity, NotAccepted, Verdict, accept};
use crate::clock::{self, Clock, Confirmed};
use crate::fetch::{FetchAction, Fetcher, Looked};
use crate::slot::{Outcome, Slot, SlotAction, SlotEvent, Step, WorkerId};

/// What an agent is and knows.
#[derive(Debug)]
pub struct Agent {
    identity: Identity,
    version: String,
    root: TrustedRoot,
    clock: Clock,
    desired: Option<AcceptedDesired>,
    desired_refused: Option<DesiredRefused>,
    nonce: Option<Nonce>,
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
    /// The newest desired state.
    pub desired: Option<AcceptedDesired>,
    /// Versions that passed their probation, by slot.
    pub proven: Vec<SlotSpec>,
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
    SaveProven(DeploymentName, Option<SlotSpec>),
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
            root: restored.root,
            clock: restored.clock,
            desired: restored.desired,
            desired_refused: None,
            nonce: None,
            slots: BTreeMap::new(),
            refusals: restored.refusals,
            fetcher: Fetcher::default(),
            next_worker: 0,
        };
        let mut actions = vec![];
        for spec in restored.proven {
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
                self.nonce = Some(nonce);
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
            Event::TimeTold(time) => self.time_told(&time, now_ms),
            Event::DesiredOffered(desired) => self.desired_offered(&desired, now_ms),
            Event::DesiredUnreadable(reason) => self.refuse_desired(None, reason, now_ms),
            Event::Chunk(data) => self.fetched(|fetcher, _| fetcher.arrived(data, now_ms), now_ms),
            Event::Looked(blob, found) => {
                self.fetched(|fetcher, root| fetcher.looked(blob, found, root, now_ms), now_ms)
            }
            Event::StoreFailed(blob, reason) => {
                self.fetched(|fetcher, _| fetcher.store_failed(blob, reason, now_ms), now_ms)
            }
            Event::BlobFinished(blob) => self.fetched(|fetcher, root| fetcher.finished(blob, root), now_ms),
            Event::Slot(deployment, event) => self.slot_event(&deployment, event, now_ms),
            Event::Tick => self.tick(now_ms),
        }
    }

    /// When [`Event::Tick`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<UnixMs> {
        self.slots.values().filter_map(Slot::next_deadline_ms).chain(self.fetcher.next_deadline_ms()).min()
    }

    fn trust_offered(&mut self, offered: &Envelope, now_ms: UnixMs) -> Vec<Action> {
        match self.root.follow(offered) {
            Ok(next) => {
                self.root = next;
                // Who may publish or direct may have changed: look at everything again.
                let mut actions = vec![Action::SaveRoot(self.root.root().version, offered.clone())];
                actions.extend(self.reconcile(now_ms));
                actions.extend([Action::SayHello, Action::Report]);
                actions
            }
            // The plane sends what a hello asked for, and may send it twice.
            Err(_) if Digest::of(&offered.payload) == self.root.digest() => vec![],
            Err(error) => {
                vec![Action::Tell(EventKind::DesiredRefused, None, format!("a root was not followed: {error}"))]
            }
        }
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
        match self.clock.confirm(director_ms, now_ms) {
            Confirmed::Kept if self.desired_refused.is_none() => vec![],
            // What was refused by a clock that nobody had confirmed is offered again.
            Confirmed::Kept => vec![Action::SayHello],
            Confirmed::Replaced { was_ms, now_ms } => {
                let (was, now) = (clock::utc(was_ms), clock::utc(now_ms));
                let text = format!("the clock said {was}; by a director it is {now}, which counts from now on");
                vec![Action::Tell(EventKind::Clock, None, text), Action::SayHello, Action::Report]
            }
        }
    }

    fn desired_offered(&mut self, offered: &Envelope, now_ms: UnixMs) -> Vec<Action> {
        match accept(offered, self.holding(), self.clock.wall(now_ms)) {
            Ok(Verdict::Repeat) => vec![Action::Report],
            Ok(Verdict::New(_)) if self.clock.is_known_wrong(now_ms) => {
                self.refuse_desired(None, self.clock.describe(now_ms), now_ms)
            }
            Ok(Verdict::New(accepted)) => {
                self.desired = Some(*accepted);
                self.desired_refused = None;
                let mut actions = vec![Action::SaveDesired(offered.clone())];
                actions.extend(self.reconcile(now_ms));
                actions.push(Action::Report);
                actions
            }
            Err(error) => {
                let generation = match &error {
                    NotAccepted::Stale { offered, .. } | NotAccepted::Jump { offered, .. } => Some(*offered),
                    NotAccepted::Conflict(offered) => Some(*offered),
                    _ => None,
                };
                self.refuse_desired(generation, error.to_string(), now_ms)
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
        let gone = |deployment: &&DeploymentName| !wanted.iter().any(|spec| &spec.deployment == *deployment);
        let unwanted: Vec<_> = self.slots.keys().filter(gone).cloned().collect();
        for deployment in unwanted {
            actions.extend(self.slot_event(&deployment, SlotEvent::Unwant, now_ms));
        }
        for spec in wanted {
            let event = match self.refusal_of(spec) {
                Some(refusal) => SlotEvent::WantRefused(spec.clone(), refusal.reason.clone()),
                None => SlotEvent::Want(spec.clone()),
            };
            actions.extend(self.slot_event(&spec.deployment, event, now_ms));
        }
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
                SlotAction::Prove(spec) => actions.push(Action::SaveProven(deployment.clone(), spec)),
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
        f: impl FnOnce(&mut Fetcher, &TrustedRoot) -> Vec<FetchAction>,
        now_ms: UnixMs,
    ) -> Vec<Action> {
        let fetch = f(&mut self.fetcher, &self.root);
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
            actions.extend(self.slot_event(&deployment, SlotEvent::Tick, now_ms));
        }
        actions.extend(self.fetched(|fetcher, _| fetcher.tick(now_ms), now_ms));
        actions
    }

    fn holding(&self) -> Holding<'_> {
        Holding { identity: &self.identity, root: &self.root, held: self.held(), nonce: self.nonce }
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
mod tests {
    use muster_shared::reported::{Measured, Phase};
    use muster_shared::root::Root;
    use muster_shared::signing::payload_type;
    use muster_shared::wire::encode;

    use super::*;
    use crate::slot::Death;
    use crate::testing::{self, DIRECTOR, key, spec};

    pub(super) const NONCE: Nonce = Nonce([7; 16]);

    fn root_envelope(version: u64, epoch: u64) -> Envelope {
        testing::signed(&Root { version, epoch, ..testing::root() })
    }

    pub(super) fn desired(epoch: u64, number: u64, slots: &[SlotSpec]) -> Envelope {
        let desired = Desired {
            fleet: "home".parse().unwrap(),
            device: "edge-1".parse().unwrap(),
            fingerprint: Digest::of("key"),
            generation: Generation { epoch, number },
            issued_ms: 0,
            expires_ms: 1_000_000,
            nonce: Some(NONCE),
            root_version: 1,
            slots: slots.to_vec(),
        };
        Envelope::sign(payload_type::DESIRED, encode(&desired).unwrap(), &[&key(DIRECTOR)])
    }

    pub(super) fn agent(proven: Vec<SlotSpec>, refusals: Vec<Refusal>) -> (Agent, Vec<Action>) {
        let restored = Restored {
            identity: Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") },
            version: "0.1.0".into(),
            root: testing::trusted(&testing::root()),
            clock: Clock::new(0, 0),
            desired: None,
            proven,
            refusals,
        };
        let (mut agent, actions) = Agent::restored(restored, 0);
        agent.step(Event::HelloSaid(NONCE), 0);
        agent.step(Event::Connected, 0);
        (agent, actions)
    }

    pub(super) fn phase(agent: &Agent, deployment: &str) -> Option<Phase> {
        agent.slot(&deployment.parse().unwrap()).map(Slot::phase)
    }

    #[test]
    fn a_desired_state_is_durable_before_anything_follows_from_it() {
        let (mut agent, _) = agent(vec![], vec![]);
        let offered = desired(1, 1, &[spec("digits", 1)]);
        let actions = agent.step(Event::DesiredOffered(offered.clone()), 0);
        assert_eq!(actions[0], Action::SaveDesired(offered));
        assert!(actions.iter().any(|action| matches!(action, Action::Fetch(FetchAction::Look { .. }))));
        assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
    }

    #[test]
    fn a_replayed_desired_state_changes_nothing_and_is_reported() {
        let (mut agent, _) = agent(vec![], vec![]);
        agent.step(Event::DesiredOffered(desired(1, 5, &[spec("digits", 1)])), 0);
        let actions = agent.step(Event::DesiredOffered(desired(1, 4, &[])), 0);
        assert!(matches!(actions[..], [Action::Tell(EventKind::DesiredRefused, ..), Action::Report]));
        assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
        let refused = agent.desired_refused().expect("reported");
        assert_eq!(refused.generation, Some(Generation { epoch: 1, number: 4 }));
        // The next good one clears it.
        agent.step(Event::DesiredOffered(desired(1, 6, &[])), 0);
        assert_eq!((agent.desired_refused(), phase(&agent, "digits")), (None, None));
    }

    #[test]
    fn a_proven_version_starts_before_any_network_and_survives_an_unchanged_desired_state() {
        let (mut agent, actions) = agent(vec![spec("digits", 1)], vec![]);
        assert_eq!(actions, [Action::Start(WorkerId(1), spec("digits", 1))]);
        agent.step(Event::Slot("digits".parse().unwrap(), SlotEvent::Started(WorkerId(1))), 1);
        let actions = agent.step(Event::DesiredOffered(desired(1, 1, &[spec("digits", 1)])), 2);
        assert!(!actions.iter().any(|action| matches!(action, Action::Stop(_) | Action::Check(..) | Action::Fetch(_))));
        assert_eq!(phase(&agent, "digits"), Some(Phase::Serving));
    }

    #[test]
    fn a_refused_bundle_is_not_fetched_again_also_after_a_restart() {
        let (mut first, _) = agent(vec![], vec![]);
        first.step(Event::DesiredOffered(desired(1, 1, &[spec("digits", 1)])), 0);
        let digits: DeploymentName = "digits".parse().unwrap();
        first.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
        let failed = SlotEvent::CheckFailed(WorkerId(1), RefusalKind::GoldenMismatch, "y differs".into());
        let actions = first.step(Event::Slot(digits, failed), 0);
        let Some(Action::SaveRefusals(saved)) = actions.first() else { panic!("{actions:?}") };

        let (mut second, _) = agent(vec![], saved.clone());
        let actions = second.step(Event::DesiredOffered(desired(1, 2, &[spec("digits", 1)])), 0);
        assert!(!actions.iter().any(|action| matches!(action, Action::Fetch(_))));
        assert_eq!(phase(&second, "digits"), Some(Phase::Refused));
        // Another agent version may manage.
        let mut older = saved.clone();
        older[0].agent = "0.0.9".into();
        let (mut third, _) = agent(vec![], older);
        third.step(Event::DesiredOffered(desired(1, 2, &[spec("digits", 1)])), 0);
        assert_eq!(phase(&third, "digits"), Some(Phase::Fetching));
    }

    #[test]
    fn a_refusal_counts_until_something_it_was_proven_with_changes() {
        let wanted = |attempt, memory_bytes| {
            let mut spec = SlotSpec { attempt, ..spec("digits", 1) };
            spec.resources.memory_bytes = memory_bytes;
            spec
        };
        // Each is refused in its second attempt, with 64 bytes, by this agent.
        let check = |kind, agent: &str, wanted: SlotSpec, phase_then| {
            let refusal = Refusal {
                bundle: bundle_of(&wanted),
                agent: agent.into(),
                attempt: 1,
                memory_bytes: 64,
                kind,
                reason: "it was proven".into(),
                at_ms: 0,
            };
            let (mut agent, _) = self::agent(vec![], vec![refusal]);
            let actions = agent.step(Event::DesiredOffered(desired(1, 1, std::slice::from_ref(&wanted))), 0);
            assert_eq!(phase(&agent, "digits"), Some(phase_then), "{kind:?} {wanted:?}");
            let fetches = actions.iter().any(|action| matches!(action, Action::Fetch(_)));
            assert_eq!(fetches, phase_then == Phase::Fetching);
        };
        let (counts, does_not) = (Phase::Refused, Phase::Fetching);
        use RefusalKind::*;
        for kind in [GoldenMismatch, CannotLoad, CrashedInProbation, TooMuchMemoryInProbation] {
            check(kind, "0.1.0", wanted(1, 64), counts);
            check(kind, "0.1.0", wanted(0, 64), counts);
            check(kind, "0.1.0", wanted(2, 64), does_not);
            check(kind, "0.0.9", wanted(1, 64), does_not);
            check(kind, "0.1.0", wanted(1, 63), counts);
        }
        check(TooMuchMemoryInProbation, "0.1.0", wanted(1, 65), does_not);
        check(CrashedInProbation, "0.1.0", wanted(1, 65), counts);
    }

    #[test]
    fn what_ran_out_of_memory_in_probation_is_remembered_with_its_attempt_and_its_grant() {
        let mut wanted = SlotSpec { attempt: 3, probation_ms: 1_000, ..spec("digits", 1) };
        wanted.resources.memory_bytes = 64;
        let (mut agent, _) = agent(vec![], vec![]);
        let digits: DeploymentName = "digits".parse().unwrap();
        agent.step(Event::DesiredOffered(desired(1, 1, std::slice::from_ref(&wanted))), 0);
        agent.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
        let measured = Measured { memory_peak_bytes: 1, latency_us: 2 };
        agent.step(Event::Slot(digits.clone(), SlotEvent::CheckPassed(WorkerId(1), measured)), 0);
        let died = SlotEvent::Died(WorkerId(1), Death::OutOfMemory, "more than 64 bytes".into());
        let actions = agent.step(Event::Slot(digits, died), 5);
        let [refusal] = agent.refusals() else { panic!("{:?}", agent.refusals()) };
        assert!(actions.contains(&Action::SaveRefusals(vec![refusal.clone()])));
        assert_eq!((refusal.kind, refusal.attempt), (RefusalKind::TooMuchMemoryInProbation, 3));
        assert_eq!((refusal.memory_bytes, refusal.at_ms), (64, 5));
        // The operator wants it tried again: `rollout resume`.
        agent.step(Event::DesiredOffered(desired(1, 2, &[SlotSpec { attempt: 4, ..wanted }])), 6);
        assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
    }

    #[test]
    fn the_next_root_is_saved_and_a_new_epoch_outranks_the_old_generations() {
        let (mut agent, _) = agent(vec![], vec![]);
        agent.step(Event::DesiredOffered(desired(1, 900, &[])), 0);
        let next = root_envelope(2, 2);
        let actions = agent.step(Event::TrustOffered(next.clone()), 0);
        assert_eq!(actions[0], Action::SaveRoot(2, next.clone()));
        assert!(actions.contains(&Action::SayHello));
        assert!(agent.step(Event::TrustOffered(next), 0).is_empty());
        agent.step(Event::DesiredOffered(desired(1, 901, &[])), 0);
        assert!(agent.desired_refused().is_some());
        agent.step(Event::DesiredOffered(desired(2, 1, &[])), 0);
        assert_eq!(agent.held().map(|held| held.generation), Some(Generation { epoch: 2, number: 1 }));
    }

    #[test]
    fn what_answers_is_reported_only_while_its_worker_is_up() {
        let (mut agent, _) = agent(vec![], vec![]);
        let digits: DeploymentName = "digits".parse().unwrap();
        agent.step(Event::DesiredOffered(desired(1, 1, &[spec("digits", 1)])), 0);
        agent.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
        let measured = Measured { memory_peak_bytes: 1, latency_us: 2 };
        agent.step(Event::Slot(digits.clone(), SlotEvent::CheckPassed(WorkerId(1), measured)), 0);
        let report = &agent.slot_reports()[0];
        assert_eq!((report.phase, report.running.is_some(), report.measured), (Phase::Probation, true, Some(measured)));
        let died = SlotEvent::Died(WorkerId(1), Death::Killed, "killed".into());
        agent.step(Event::Slot(digits, died), 5);
        let report = &agent.slot_reports()[0];
        assert!(report.running.is_none() && report.waiting.is_some());
    }
}
