//! One machine around the real agent: what is durable on it, its workers, its line to the plane.
//!
//! The agent's actions are carried out in their order, as the driver does it. The power may go between
//! any two of them; then only what was saved before is there after the reboot.

use std::collections::BTreeMap;

use muster_agent_core::clock::Clock;
use muster_agent_core::fetch::{FetchAction, Looked};
use muster_agent_core::limits::OwnerLimits;
use muster_agent_core::reconcile::{Action, Agent, Event, Restored};
use muster_agent_core::slot::{Death, SlotEvent, WorkerId};
use muster_agent_core::verify::bundle::{Proven, Software};
use muster_agent_core::verify::desired::recall;
use muster_agent_core::verify::{Holding, Identity, Watermark};
use muster_shared::desired::SlotSpec;
use muster_shared::id::{BootId, Generation, UnixMs};
use muster_shared::limits::CHUNK_BYTES;
use muster_shared::manifest::{Dtype, Format};
use muster_shared::message::{ChunkGet, EventKind, Hello};
use muster_shared::reported::{Facts, Measured, Refusal, RefusalKind, Reported};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::{DeploymentName, DeviceId, Digest, Nonce};

use crate::catalog::{Catalog, Nature, must};
use crate::rng::Rng;

/// The agent's version, which refusals are bound to.
const AGENT: &str = "0.1.0";
/// Reports wait so long for what else changes.
const REPORT_DELAY_MS: u64 = 50;
/// As the agent's driver has them.
const REPORT_EVERY_MS: u64 = 30_000;
const HELLO_EVERY_MS: u64 = 60_000;

/// One machine.
#[derive(Debug)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// The fingerprint of its key.
    pub fingerprint: Digest,
    /// Where it stands.
    pub site: String,
    /// What it is.
    pub facts: Facts,
    /// How many times slower than others it and its line are.
    pub slowness: u64,
    /// It is broken and never comes back.
    pub dead: bool,
    /// Whether its line works.
    pub line: bool,
    journal: Journal,
    disk: Disk,
    run: Option<Run>,
    boots: u64,
    refused_count: u64,
    overloaded_count: u64,
    /// The highest attempt with each bundle that it said to be over.
    told_refused: BTreeMap<Digest, u32>,
}

/// What is durable beside the blobs.
#[derive(Debug, Default)]
struct Journal {
    roots: Vec<Envelope>,
    desired: Option<Envelope>,
    proven: BTreeMap<DeploymentName, Proven>,
    watermark: Watermark,
    refusals: Vec<Refusal>,
    /// The highest generation that was ever saved: kept by the simulator, not by the agent.
    highest: Option<Generation>,
}

/// What is on disk of bundles.
#[derive(Debug, Default)]
struct Disk {
    whole: BTreeMap<Digest, Vec<u8>>,
    pieces: BTreeMap<Digest, BTreeMap<u32, Vec<u8>>>,
}

/// One run of the agent, from power on to power off.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub boot: BootId,
    /// The real agent.
    pub agent: Agent,
    /// The connection it holds; none: it holds none.
    pub session: Option<u64>,
    reports: u64,
    workers: BTreeMap<WorkerId, Worker>,
    routed: BTreeMap<DeploymentName, WorkerId>,
    tick_ms: Option<UnixMs>,
    report_is_due: bool,
    /// The power goes after so many further actions.
    cut_in: Option<u64>,
}

#[derive(Debug)]
struct Worker {
    deployment: DeploymentName,
    spec: SlotSpec,
}

/// Something that comes to pass on a device by itself.
#[derive(Debug)]
pub enum Cue {
    /// The agent's deadline.
    Tick,
    /// A report is due because something changed.
    ReportDue,
    /// A report is due in any case.
    ReportEvery,
    /// A hello is due.
    HelloDue,
    /// It tries to connect.
    Connect,
    /// The store looked.
    Looked(Digest, Looked),
    /// The store made a blob final.
    Finished(Digest),
    /// A worker did something.
    Worker(WorkerId, SlotEvent),
}

/// What goes up.
#[derive(Debug, Clone)]
pub enum Up {
    /// What it holds.
    Hello(Hello),
    /// What it is and has.
    Reported(Box<Reported>),
    /// What it wants.
    ChunkGet(ChunkGet),
}

/// What the world is to do for a device.
#[derive(Debug)]
pub enum Effect {
    /// Bring this about after so many milliseconds.
    After(u64, Cue),
    /// Send this.
    Send(Up),
    /// The power went.
    Cut {
        /// Between two actions of one event.
        amid_actions: bool,
    },
    /// A rule was broken.
    Broken(String),
}

impl Device {
    /// A new machine, switched off.
    pub fn new(id: DeviceId, site: &str, facts: Facts, slowness: u64, catalog: &Catalog) -> Self {
        let journal = Journal { roots: vec![catalog.first_root().clone()], ..Journal::default() };
        Self {
            fingerprint: Digest::of(id.as_str()),
            id,
            site: site.to_owned(),
            facts: Facts { agent: AGENT.into(), ..facts },
            slowness,
            dead: false,
            line: true,
            journal,
            disk: Disk::default(),
            run: None,
            boots: 0,
            refused_count: 0,
            overloaded_count: 0,
            told_refused: BTreeMap::new(),
        }
    }

    /// The run of the agent; none: it is off.
    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// How often it was switched on: what was brought about for an earlier run is void.
    pub fn boots(&self) -> u64 {
        self.boots
    }

    /// How often it did not take what it was sent.
    pub fn refused_count(&self) -> u64 {
        self.refused_count
    }

    /// How often a worker began with which all of them together were granted more memory than it has.
    pub fn overloaded_count(&self) -> u64 {
        self.overloaded_count
    }

    /// Versions that passed their probation here.
    pub fn proven(&self) -> impl Iterator<Item = &SlotSpec> {
        self.journal.proven.values().map(|proven| &proven.spec)
    }

    /// The bundle whose worker answers to a deployment's name.
    pub fn answers(&self, deployment: &DeploymentName) -> Option<&SlotSpec> {
        let run = self.run.as_ref()?;
        run.routed.get(deployment).and_then(|worker| run.workers.get(worker)).map(|worker| &worker.spec)
    }

    /// Deployments that somebody answers to.
    pub fn answering(&self) -> impl Iterator<Item = &DeploymentName> {
        self.run.iter().flat_map(|run| run.routed.keys())
    }

    /// The power comes.
    pub fn switch_on(&mut self, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs) -> Vec<Effect> {
        if self.run.is_some() || self.dead {
            return vec![];
        }
        self.boots += 1;
        let identity = Identity { device: self.id.clone(), fingerprint: self.fingerprint };
        let mut roots = self.journal.roots.iter();
        let first = must(roots.next().ok_or("a root")).clone();
        let first = must(TrustedRoot::self_signed(&first));
        let root = roots.fold(first, |held, next| must(held.follow(next)));
        let (held, watermark, nonce, earlier_nonce) = (None, None, None, None);
        let holding = Holding { identity: &identity, root: &root, held, watermark, nonce, earlier_nonce };
        // One that a root no longer believes is not recalled; the device then asks for a new one.
        let desired = self.journal.desired.as_ref().and_then(|desired| recall(desired, holding).ok());
        let restored = Restored {
            identity: identity.clone(),
            version: AGENT.into(),
            root: root.clone(),
            clock: Clock::new(0, now_ms),
            watermark: self.journal.watermark.clone(),
            watermark_unknown: None,
            software: Software { formats: vec![Format::Onnx], dtypes: vec![Dtype::F32] },
            limits: OwnerLimits {
                memory_bytes: Some(self.facts.memory_bytes),
                cpu_milli: Some(self.facts.cpu_milli),
                ..OwnerLimits::default()
            },
            desired,
            proven: self.journal.proven.values().cloned().collect(),
            refusals: self.journal.refusals.clone(),
        };
        let (agent, actions) = Agent::restored(restored, now_ms);
        self.run = Some(Run {
            boot: BootId(rng.bytes()),
            agent,
            session: None,
            reports: 0,
            workers: BTreeMap::new(),
            routed: BTreeMap::new(),
            tick_ms: None,
            report_is_due: false,
            cut_in: None,
        });
        let mut effects = vec![
            Effect::After(rng.range(50, 3_000), Cue::Connect),
            Effect::After(rng.range(1, REPORT_EVERY_MS), Cue::ReportEvery),
            Effect::After(rng.range(HELLO_EVERY_MS * 3 / 4, HELLO_EVERY_MS * 5 / 4), Cue::HelloDue),
        ];
        self.carry_out(actions, catalog, rng, now_ms, &mut effects);
        effects
    }

    /// The power goes, at once or after a few actions more.
    pub fn cut(&mut self, after_actions: Option<u64>) -> Vec<Effect> {
        match (&mut self.run, after_actions) {
            (Some(run), Some(actions)) => {
                run.cut_in = Some(actions);
                vec![]
            }
            (Some(_), None) => {
                self.run = None;
                vec![Effect::Cut { amid_actions: false }]
            }
            (None, _) => vec![],
        }
    }

    /// The connection stands.
    pub fn connected(&mut self, session: u64, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs) -> Vec<Effect> {
        let Some(run) = &mut self.run else { return vec![] };
        run.session = Some(session);
        let mut effects = self.happen(Event::Connected, catalog, rng, now_ms);
        self.say_hello(catalog, rng, now_ms, &mut effects);
        effects
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs) -> Vec<Effect> {
        let Some(run) = self.run.as_mut().filter(|run| run.session.is_some()) else { return vec![] };
        run.session = None;
        let mut effects = self.happen(Event::Disconnected, catalog, rng, now_ms);
        effects.push(Effect::After(rng.range(200, 4_000), Cue::Connect));
        effects
    }

    /// Something comes to pass.
    pub fn cue(&mut self, cue: Cue, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs) -> Vec<Effect> {
        let Some(run) = &mut self.run else { return vec![] };
        let event = match cue {
            // Connecting is the world's doing.
            Cue::Connect => return vec![],
            Cue::Tick => {
                run.tick_ms = None;
                Event::Tick
            }
            Cue::ReportDue => return self.report(now_ms),
            Cue::ReportEvery => {
                let mut effects = vec![Effect::After(REPORT_EVERY_MS, Cue::ReportEvery)];
                effects.extend(self.report(now_ms));
                return effects;
            }
            Cue::HelloDue => {
                let again_ms = rng.range(HELLO_EVERY_MS * 3 / 4, HELLO_EVERY_MS * 5 / 4);
                let mut effects = vec![Effect::After(again_ms, Cue::HelloDue)];
                self.say_hello(catalog, rng, now_ms, &mut effects);
                return effects;
            }
            Cue::Looked(blob, found) => Event::Looked(blob, found),
            Cue::Finished(blob) => {
                self.disk.finish(blob);
                Event::BlobFinished(blob)
            }
            Cue::Worker(id, event) => {
                // One that was stopped meanwhile says nothing any more.
                let Some(worker) = run.workers.get(&id) else { return vec![] };
                let deployment = worker.deployment.clone();
                let ended =
                    matches!(event, SlotEvent::Died(..) | SlotEvent::CheckFailed(..) | SlotEvent::CheckStopped(..));
                if ended {
                    run.workers.remove(&id);
                }
                Event::Slot(deployment, event)
            }
        };
        self.happen(event, catalog, rng, now_ms)
    }

    /// An event's consequences.
    pub fn happen(&mut self, event: Event, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs) -> Vec<Effect> {
        let Some(run) = &mut self.run else { return vec![] };
        let actions = run.agent.step(event, now_ms);
        let mut effects = Vec::new();
        self.carry_out(actions, catalog, rng, now_ms, &mut effects);
        effects
    }

    /// A person or the kernel ends one of its workers.
    pub fn kill_worker(&mut self, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs) -> Vec<Effect> {
        let Some(run) = &self.run else { return vec![] };
        let ids: Vec<WorkerId> = run.workers.keys().copied().collect();
        if ids.is_empty() {
            return vec![];
        }
        let id = *rng.pick(&ids);
        self.cue(Cue::Worker(id, SlotEvent::Died(id, Death::Killed, "killed".into())), catalog, rng, now_ms)
    }

    fn carry_out(
        &mut self,
        actions: Vec<Action>,
        catalog: &Catalog,
        rng: &mut Rng,
        now_ms: UnixMs,
        effects: &mut Vec<Effect>,
    ) {
        let mut hello = false;
        for action in actions {
            let Some(run) = &mut self.run else { return };
            if let Some(left) = &mut run.cut_in {
                if *left == 0 {
                    self.run = None;
                    effects.push(Effect::Cut { amid_actions: true });
                    return;
                }
                *left -= 1;
            }
            match action {
                Action::SayHello => hello = true,
                Action::Report if !run.report_is_due => {
                    run.report_is_due = true;
                    effects.push(Effect::After(REPORT_DELAY_MS, Cue::ReportDue));
                }
                Action::Tell(EventKind::DesiredRefused, ..) => self.refused_count += 1,
                Action::Report | Action::Tell(..) => {}
                Action::KeepWatermark(watermark) => {
                    // Kept at once, as the agent's driver keeps it before it says so.
                    let mark = watermark.desired;
                    self.journal.watermark = watermark;
                    effects.extend(self.happen(Event::WatermarkKept(mark), catalog, rng, now_ms));
                }
                Action::Fetch(fetch) => self.fetch(fetch, rng, effects),
                Action::Check(..) | Action::Start(..) | Action::Route(..) | Action::Unroute(_) | Action::Stop(_) => {
                    if let Action::Check(_, spec) = &action
                        && self.told_refused.get(&spec.manifest).is_some_and(|attempt| *attempt >= spec.attempt)
                    {
                        let text = format!("{} tries version {} again, which it refused", self.id, spec.version);
                        effects.push(Effect::Broken(text));
                    }
                    run.work(action, catalog, self.slowness, rng, effects);
                    let loaded: u64 = run.workers.values().map(|worker| worker.spec.resources.memory_bytes).sum();
                    self.overloaded_count += u64::from(loaded > self.facts.memory_bytes);
                }
                save => self.save(save, catalog, effects),
            }
        }
        if hello {
            self.say_hello(catalog, rng, now_ms, effects);
        }
        let Some(run) = &mut self.run else { return };
        if let Some(due_ms) = run.agent.next_deadline_ms()
            && run.tick_ms.is_none_or(|planned| due_ms < planned)
        {
            run.tick_ms = Some(due_ms);
            effects.push(Effect::After(due_ms.saturating_sub(now_ms), Cue::Tick));
        }
    }

    fn save(&mut self, action: Action, catalog: &Catalog, effects: &mut Vec<Effect>) {
        match action {
            Action::SaveRoot(version, root) => {
                self.journal.roots.truncate(version as usize - 1);
                self.journal.roots.push(root);
            }
            Action::SaveDesired(desired) => {
                let generation = self.run.as_ref().and_then(|run| run.agent.held()).map(|held| held.generation);
                if generation <= self.journal.highest {
                    let (id, highest) = (&self.id, self.journal.highest);
                    effects.push(Effect::Broken(format!("{id} went from {highest:?} back to {generation:?}")));
                }
                self.journal.highest = generation;
                self.journal.desired = Some(desired);
            }
            Action::SaveProven(deployment, Some(proven)) => {
                if catalog.nature(proven.spec.manifest) != Nature::Good {
                    let version = proven.spec.version;
                    let text = format!("{} takes the bad version {version} of {deployment} for proven", self.id);
                    effects.push(Effect::Broken(text));
                }
                self.journal.proven.insert(deployment, proven);
            }
            Action::SaveProven(deployment, None) => {
                self.journal.proven.remove(&deployment);
            }
            Action::SaveRefusals(refusals) => self.journal.refusals = refusals,
            _ => {}
        }
    }

    fn fetch(&mut self, action: FetchAction, rng: &mut Rng, effects: &mut Vec<Effect>) {
        let disk_ms = rng.range(1, 20) * self.slowness;
        match action {
            FetchAction::Look { blob, index, .. } => {
                let found = match self.disk.whole.get(&blob) {
                    Some(bytes) => Looked::Whole(index.is_none().then(|| bytes.clone())),
                    None => Looked::Pieces(
                        self.disk.pieces.get(&blob).into_iter().flat_map(BTreeMap::keys).copied().collect(),
                    ),
                };
                // Without an index a small blob is fetched as a whole.
                let found = match (index, found) {
                    (None, Looked::Pieces(_)) => Looked::Pieces(vec![]),
                    (_, found) => found,
                };
                effects.push(Effect::After(disk_ms, Cue::Looked(blob, found)));
            }
            FetchAction::Store { blob, offset, bytes, .. } => {
                let piece = (offset / CHUNK_BYTES as u64) as u32;
                self.disk.pieces.entry(blob).or_default().insert(piece, bytes);
            }
            FetchAction::Finish { blob } => effects.push(Effect::After(disk_ms, Cue::Finished(blob))),
            FetchAction::Ask(get) => effects.push(Effect::Send(Up::ChunkGet(get))),
            // The agent itself takes the others.
            _ => {}
        }
    }

    fn say_hello(&mut self, catalog: &Catalog, rng: &mut Rng, now_ms: UnixMs, effects: &mut Vec<Effect>) {
        let nonce = Nonce(rng.bytes());
        effects.extend(self.happen(Event::HelloSaid(nonce), catalog, rng, now_ms));
        let Some(run) = &self.run else { return };
        let root_version = run.agent.root().root().version;
        effects.push(Effect::Send(Up::Hello(Hello {
            boot: run.boot,
            nonce,
            root_version,
            holds: run.agent.held(),
            wants_time: false,
        })));
    }

    fn report(&mut self, now_ms: UnixMs) -> Vec<Effect> {
        let Some(run) = self.run.as_mut() else { return vec![] };
        run.report_is_due = false;
        run.reports += 1;
        let reported = Reported {
            device: self.id.clone(),
            boot: run.boot,
            sequence: run.reports,
            at_ms: now_ms,
            root_version: run.agent.root().root().version,
            applied: run.agent.applied(),
            desired_refused: run.agent.desired_refused().cloned(),
            facts: self.facts.clone(),
            slots: run.agent.slot_reports(),
            refusals: run.agent.refusals().to_vec(),
            floors: run.agent.reported_floors(),
            health: Default::default(),
            notes: run.agent.notes(),
        };
        let mut effects = Vec::new();
        // What is said must be durable: the desired state itself, or its mark where none is held.
        let marked = self.journal.watermark.desired.map(|mark| mark.generation);
        if reported.applied > self.journal.highest.max(marked) {
            effects.push(Effect::Broken(format!("{} reports {:?}, which it has not saved", self.id, reported.applied)));
        }
        for refusal in reported.refusals.iter().filter(|it| it.kind != RefusalKind::TooMuchMemoryInProbation) {
            let attempt = self.told_refused.entry(refusal.bundle.manifest).or_default();
            *attempt = refusal.attempt.max(*attempt);
        }
        effects.push(Effect::Send(Up::Reported(Box::new(reported))));
        effects
    }
}

impl Disk {
    fn finish(&mut self, blob: Digest) {
        if let Some(pieces) = self.pieces.remove(&blob) {
            self.whole.insert(blob, pieces.into_values().flatten().collect());
        }
    }
}

/// How a worker of such a bundle ends by itself, if it does.
fn death_of(nature: Nature) -> Option<Death> {
    match nature {
        Nature::Crashes => Some(Death::Crashed),
        Nature::Grows => Some(Death::OutOfMemory),
        Nature::Good | Nature::WrongGolden => None,
    }
}

impl Run {
    /// Workers begin, are asked, and end.
    fn work(&mut self, action: Action, catalog: &Catalog, slowness: u64, rng: &mut Rng, effects: &mut Vec<Effect>) {
        match action {
            Action::Check(id, spec) => {
                let after_ms = rng.range(100, 1_500) * slowness;
                let measured = Measured {
                    memory_peak_bytes: spec.resources.memory_bytes / 2,
                    latency_us: 100 * slowness + rng.range(0, 50),
                };
                let passed = SlotEvent::CheckPassed(id, measured);
                let nature = catalog.nature(spec.manifest);
                let outcome = match nature {
                    Nature::WrongGolden => SlotEvent::CheckFailed(id, RefusalKind::GoldenMismatch, "y differs".into()),
                    _ if rng.permille(20) => SlotEvent::CheckStopped(id, "no process could be started".into()),
                    _ => passed,
                };
                effects.push(Effect::After(after_ms, Cue::Worker(id, outcome)));
                if let Some(death) = death_of(nature) {
                    let within_ms = u64::from(spec.probation_ms).max(2);
                    let death = SlotEvent::Died(id, death, "it ended while it was watched".into());
                    effects.push(Effect::After(after_ms + rng.range(1, within_ms), Cue::Worker(id, death)));
                }
                self.workers.insert(id, Worker { deployment: spec.deployment.clone(), spec });
            }
            Action::Start(id, spec) => {
                let event = match death_of(catalog.nature(spec.manifest)) {
                    // It was killed while it was watched; now it dies of its own.
                    Some(death) => SlotEvent::Died(id, death, "it ended as it loaded".into()),
                    None => SlotEvent::Started(id),
                };
                effects.push(Effect::After(rng.range(50, 500) * slowness, Cue::Worker(id, event)));
                self.workers.insert(id, Worker { deployment: spec.deployment.clone(), spec });
            }
            Action::Route(id, spec) => {
                // One that just died is there again soon; one of another version must never be asked.
                if self.workers.get(&id).is_some_and(|worker| worker.spec.manifest != spec.manifest) {
                    let text = format!("{} is routed to {id:?}, which serves something else", spec.deployment);
                    effects.push(Effect::Broken(text));
                }
                self.routed.insert(spec.deployment, id);
            }
            Action::Unroute(deployment) => {
                self.routed.remove(&deployment);
            }
            Action::Stop(id) => {
                if self.routed.values().any(|routed| *routed == id) {
                    effects.push(Effect::Broken(format!("{id:?} is stopped while requests go there")));
                }
                self.workers.remove(&id);
            }
            _ => {}
        }
    }
}
