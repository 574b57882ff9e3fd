//! Carries out what the core decides, in its order. What must be durable first is written before
//! anything that follows from it; a write that fails is kept and tried again.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use muster_agent_core::fetch::FetchAction;
use muster_agent_core::reconcile::{Action, Agent, Event};
use muster_agent_core::slot::{Death, SlotEvent, WorkerId};
use muster_agent_core::verify::Watermark;
use muster_agent_core::verify::bundle::{read_manifest, recall_manifest};
use muster_shared::DeploymentName;
use muster_shared::desired::SlotSpec;
use muster_shared::id::BootId;
use muster_shared::manifest::Manifest;
use muster_shared::message::EventKind;
use muster_shared::topic::Leaf;
use muster_shared::wire;
use rumqttc::QoS;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::journal::{Journal, JournalError};
use crate::mqtt::Mqtt;
use crate::outside::Timekeeper;
use crate::store::{Command, Store};
use crate::table::{Served, Table};
use crate::worker::parent::{self, Bounds, Purpose, WorkerEvent, WorkerHandle};
use crate::worker::protocol::Load;

/// Everything the agent can do something with.
pub struct Effects {
    /// What survives a power cut.
    pub journal: Arc<Journal>,
    /// What survives the loss of all but the key.
    pub watermarks: std::sync::mpsc::Sender<Watermark>,
    /// Verified bytes.
    pub store: Store,
    /// The way to the plane.
    pub mqtt: Mqtt,
    /// Who answers.
    pub table: Arc<Table>,
    /// This program, to start workers with.
    pub program: PathBuf,
    /// This run of the agent.
    pub boot: BootId,
    /// The loop's inbox.
    pub inbox: mpsc::Sender<Event>,
    /// What events are dated by.
    pub time: Timekeeper,
    workers: BTreeMap<WorkerId, Worker>,
    /// Of each slot, how its workers are run.
    bounds: BTreeMap<DeploymentName, Bounds>,
    /// Of each slot, the workers that are to end and may not be gone yet.
    ending: BTreeMap<DeploymentName, Vec<CancellationToken>>,
    unsaved: VecDeque<Action>,
}

struct Worker {
    deployment: DeploymentName,
    handle: WorkerHandle,
    manifest: Manifest,
}

/// What the loop still has to do after some actions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Send the reported state.
    pub report: bool,
    /// Say hello.
    pub hello: bool,
}

impl Effects {
    /// Effects without any worker yet.
    pub fn new(
        (journal, watermarks): (Arc<Journal>, std::sync::mpsc::Sender<Watermark>),
        store: Store,
        mqtt: Mqtt,
        table: Arc<Table>,
        program: PathBuf,
        inbox: mpsc::Sender<Event>,
        (boot, time): (BootId, Timekeeper),
    ) -> Self {
        let (workers, bounds, ending) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let unsaved = VecDeque::new();
        Self { journal, watermarks, store, mqtt, table, program, boot, inbox, time, workers, bounds, ending, unsaved }
    }

    /// Carries out actions in their order.
    pub fn carry_out(&mut self, actions: Vec<Action>, agent: &Agent) -> Wanted {
        let mut wanted = Wanted::default();
        for action in actions {
            match action {
                Action::SaveRoot(..) | Action::SaveDesired(_) | Action::SaveProven(..) | Action::SaveRefusals(_) => {
                    let retain = matches!(action, Action::SaveDesired(_) | Action::SaveProven(..));
                    self.unsaved.retain(|earlier| !makes_up_for(&action, earlier));
                    self.unsaved.push_back(action);
                    self.save();
                    if retain {
                        self.store.send(Command::Retain(agent.specs_in_use()));
                    }
                }
                // The thread ends only with the last sender.
                Action::KeepWatermark(watermark) => drop(self.watermarks.send(watermark)),
                Action::Fetch(fetch) => self.fetch(fetch),
                Action::Check(worker, spec) => self.start(worker, &spec, agent, true),
                Action::Start(worker, spec) => self.start(worker, &spec, agent, false),
                Action::Route(worker, spec) => self.route(worker, &spec),
                Action::Unroute(deployment) => self.table.unroute(&deployment),
                Action::Stop(worker) => self.stop(worker),
                Action::Tell(kind, deployment, text) => self.tell(kind, deployment, text),
                Action::SayHello => wanted.hello = true,
                Action::Report => wanted.report = true,
            }
        }
        wanted
    }

    /// Writes what is not durable yet, in order; stops at the first failure.
    pub fn save(&mut self) {
        while let Some(action) = self.unsaved.front() {
            if let Err(failure) = save_one(&self.journal, action) {
                let waiting = self.unsaved.len();
                error!(error = %failure, waiting, "cannot write the journal; what runs goes on, and it is tried again");
                return;
            }
            self.unsaved.pop_front();
        }
    }

    /// Whether something still waits to become durable.
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// A worker ends by itself: nothing of it is to be stopped any more.
    pub fn forget(&mut self, worker: WorkerId) {
        self.end(worker);
    }

    fn stop(&mut self, worker: WorkerId) {
        if let Some(handle) = self.end(worker) {
            handle.retire();
        }
    }

    /// The slot's next worker waits until this one is gone.
    fn end(&mut self, worker: WorkerId) -> Option<WorkerHandle> {
        let Worker { deployment, handle, .. } = self.workers.remove(&worker)?;
        self.ending.retain(|_, ending| {
            ending.retain(|ended| !ended.is_cancelled());
            !ending.is_empty()
        });
        self.ending.entry(deployment).or_default().push(handle.ended());
        Some(handle)
    }

    fn fetch(&self, action: FetchAction) {
        match action {
            FetchAction::Look { blob, bytes, index } => self.store.send(Command::Look(blob, bytes, index)),
            FetchAction::Store { blob, blob_bytes, offset, bytes } => {
                self.store.send(Command::Write { blob, blob_bytes, offset, bytes });
            }
            FetchAction::Finish { blob } => self.store.send(Command::Finish(blob)),
            FetchAction::Ask(get) => match wire::encode(&get) {
                Ok(bytes) => self.mqtt.send(Leaf::ChunkGet, QoS::AtMostOnce, bytes),
                Err(failure) => error!(%failure, "cannot ask for chunks"),
            },
            // The core turns these into slot events and told events itself.
            FetchAction::Done { .. }
            | FetchAction::Waiting { .. }
            | FetchAction::Untrusted { .. }
            | FetchAction::Verified(..)
            | FetchAction::Discarded { .. } => {}
        }
    }

    fn start(&mut self, id: WorkerId, spec: &SlotSpec, agent: &Agent, check: bool) {
        let manifest = self.manifest_of(spec, agent);
        let (deployment, inbox) = (spec.deployment.clone(), self.inbox.clone());
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(reason) => {
                warn!(%deployment, reason, "a bundle cannot be started");
                let event = if check {
                    SlotEvent::CheckStopped(id, reason)
                } else {
                    SlotEvent::Died(id, Death::Killed, reason)
                };
                tokio::spawn(async move { inbox.send(Event::Slot(deployment, event)).await });
                return;
            }
        };
        // `manifest_of` saw that the variant is there.
        let Some(variant) = manifest.variant(&spec.variant) else { return };
        let golden = manifest.golden.as_ref().map(|golden| self.store.path(golden.sha256));
        let load = Load {
            file: self.store.path(variant.file.sha256),
            ports: Some((manifest.inputs.clone(), manifest.outputs.clone())),
            memory_bytes: spec.resources.memory_bytes,
            cpu_milli: spec.resources.cpu_milli,
            read_only: golden.iter().filter(|_| check).cloned().collect(),
        };
        let bounds = self.bounds.entry(deployment.clone()).or_default().clone();
        let purpose = if check { Purpose::Check { golden } } else { Purpose::Serve };
        let (event_sender, mut events) = mpsc::unbounded_channel();
        // What the slot's ended workers took must be free: a device may have no room for one more.
        let after = self.ending.remove(&deployment).unwrap_or_default();
        let handle = parent::start(&self.program, id, load, purpose, bounds, after, move |event| {
            // At most two events for each worker; the loop outlives its workers.
            let _ = event_sender.send(event);
        });
        let counted = self.table.metrics.of(spec.served_name(), spec.version);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if matches!(event, WorkerEvent::Died(..)) {
                    counted.ended();
                }
                let event = match event {
                    WorkerEvent::Ready(_) => SlotEvent::Started(id),
                    WorkerEvent::Checked(measured) => SlotEvent::CheckPassed(id, measured),
                    WorkerEvent::Bad(kind, reason) => SlotEvent::CheckFailed(id, kind, reason),
                    WorkerEvent::Stopped(reason) => SlotEvent::CheckStopped(id, reason),
                    WorkerEvent::Died(death, reason) => SlotEvent::Died(id, death, reason),
                };
                if inbox.send(Event::Slot(deployment.clone(), event)).await.is_err() {
                    return;
                }
            }
        });
        self.workers.insert(id, Worker { deployment: spec.deployment.clone(), handle, manifest });
    }

    /// The manifest of a bundle on disk. What was verified before, by this run or by the one that proved it, is
    /// the very same by its digest, also where a root names its publisher no more: the core judged that.
    /// All else is verified now.
    fn manifest_of(&self, spec: &SlotSpec, agent: &Agent) -> Result<Manifest, String> {
        let bytes =
            self.store.read(spec.envelope.sha256).map_err(|failure| format!("the bundle cannot be read: {failure}"))?;
        if agent.has_verified(spec.manifest) {
            return recall_manifest(&bytes, spec);
        }
        let verified =
            read_manifest(&bytes, spec, agent.root(), agent.software()).map_err(|error| error.to_string())?;
        Ok(verified.manifest().clone())
    }

    fn route(&self, id: WorkerId, spec: &SlotSpec) {
        let Some(worker) = self.workers.get(&id) else { return };
        let served = Served {
            deployment: spec.deployment.clone(),
            model: spec.model.clone(),
            version: spec.version,
            inputs: worker.manifest.inputs.clone(),
            outputs: worker.manifest.outputs.clone(),
            worker: worker.handle.clone(),
            counters: Default::default(),
            metrics: Default::default(),
        };
        info!(deployment = %spec.deployment, version = %spec.version, worker = id.0, "a version answers");
        self.table.route(spec.served_name().clone(), served);
    }

    fn tell(&self, kind: EventKind, deployment: Option<DeploymentName>, text: String) {
        info!(?kind, deployment = deployment.as_ref().map(tracing::field::display), text, "event");
        let at_ms = self.time.wall_ms();
        let event = muster_shared::message::Event { boot: self.boot, at_ms, kind, deployment, text };
        if let Ok(bytes) = wire::encode(&event) {
            self.mqtt.send(Leaf::Event, QoS::AtLeastOnce, bytes);
        }
    }
}

/// Whether what is to be written now says all that an earlier action, which still waits for the disk, says.
fn makes_up_for(action: &Action, earlier: &Action) -> bool {
    match (action, earlier) {
        (Action::SaveDesired(_), Action::SaveDesired(_)) | (Action::SaveRefusals(_), Action::SaveRefusals(_)) => true,
        (Action::SaveProven(deployment, _), Action::SaveProven(earlier, _)) => deployment == earlier,
        _ => false,
    }
}

fn save_one(journal: &Journal, action: &Action) -> Result<(), JournalError> {
    match action {
        Action::SaveRoot(version, root) => journal.save_root(*version, root),
        Action::SaveDesired(desired) => journal.save_desired(desired),
        Action::SaveProven(deployment, proven) => journal.save_proven(deployment, proven.as_ref()),
        Action::SaveRefusals(refusals) => journal.save_refusals(refusals),
        _ => Ok(()),
    }
}
