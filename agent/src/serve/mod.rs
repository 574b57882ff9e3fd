//! `muster-agent serve`: a plain inference server, without a fleet. The same doors, workers and table
//! as an agent's; what shall answer comes from flags and folders.

pub mod args;
pub mod folder;
mod repository;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use muster_agent_core::repository::{Action, Event, Key, Repository};
use muster_agent_core::slot::WorkerId;
use muster_shared::door::VersionChoice;
use muster_shared::{DeploymentName, DeviceId, ModelName, Version};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::args::{Config, Control, Place};
use self::repository::OwnRepository;
use crate::doors::oip::OipDoor;
use crate::doors::{Doors, grpc, server};
use crate::outside::{Steady, jitter};
use crate::table::{NotServed, Served, Table, VersionState};
use crate::worker::parent::{self, Bounds, Purpose, WorkerEvent, WorkerHandle};
use crate::worker::protocol::{Load, Loaded};
use crate::{facts, identity};

/// Orders that may wait for the loop.
const ORDERS_MAX: usize = 64;
/// Processor time for each model, where nothing is said.
const ONE_CORE_MILLI: u32 = 1000;
/// How long workers may take to end when the server does.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// What a running server tells scripts, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    door: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    /// Why models do not answer, by name.
    failed: BTreeMap<ModelName, String>,
}

/// What can be asked of the server beside predictions.
#[derive(Debug)]
struct Order {
    model: ModelName,
    what: What,
    /// Answered once the model is as it was asked to be.
    reply: oneshot::Sender<Result<(), ControlError>>,
}

/// What shall become of a model.
#[derive(Debug, Clone, Copy)]
enum What {
    Load,
    Unload,
}

/// Why a model was not loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ControlError {
    #[error(
        "models are loaded and unloaded by this server's owner only; it was not started with --model-control explicit"
    )]
    NotAllowed,
    #[error("there is no model {0} here")]
    Unknown(String),
    #[error("failed to load {0}: {1}")]
    Failed(String, String),
    #[error("the server ends")]
    Ending,
}

/// Loads and unloads models of a running server.
#[derive(Debug, Clone)]
pub struct ControlHandle {
    orders: mpsc::Sender<Order>,
    allowed: bool,
}

impl ControlHandle {
    /// Loads a model, or what has changed of it; returns when it answers.
    pub async fn load(&self, model: &str) -> Result<(), ControlError> {
        self.order(model, What::Load).await
    }

    /// Unloads a model; returns when it does not answer any more.
    pub async fn unload(&self, model: &str) -> Result<(), ControlError> {
        self.order(model, What::Unload).await
    }

    async fn order(&self, model: &str, what: What) -> Result<(), ControlError> {
        if !self.allowed {
            return Err(ControlError::NotAllowed);
        }
        let model = model.parse().map_err(|_| ControlError::Unknown(model.to_owned()))?;
        let (reply, done) = oneshot::channel();
        self.orders.send(Order { model, what, reply }).await.map_err(|_| ControlError::Ending)?;
        done.await.unwrap_or(Err(ControlError::Ending))
    }
}

/// Serves until `stop`.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    if !config.ignored.is_empty() {
        warn!("these flags are TF Serving's and change nothing here: {}", config.ignored.join(", "));
    }
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot open the doors on {}; choose another address by --listen", config.listen))?;
    let door = listener.local_addr()?;
    let table = Arc::new(Table::default());
    let (orders, incoming) = mpsc::channel(ORDERS_MAX);
    let control = ControlHandle { orders, allowed: config.control == Control::Explicit };
    let repository = OwnRepository::new(table.clone(), control, config.repository.clone());
    let oip = OipDoor { table: table.clone(), repository: Arc::new(repository) };
    let doors = Arc::new(Doors { table: table.clone(), oip, device: device()? });
    let options = server::Options { access_log: config.access_log };
    let grpc = match config.grpc {
        Some(address) => Some(grpc::open(address, &doors, stop.child_token()).await?),
        None => None,
    };
    let open = tokio::spawn(server::serve(listener, doors, options, stop.child_token()));
    // At most two events of each worker: bounded by the workers.
    let (inbox, events) = mpsc::unbounded_channel();
    let mut server = Server {
        repository: Repository::default(),
        places: config.models.clone(),
        unloaded: BTreeSet::new(),
        waiting: vec![],
        not_found: BTreeMap::new(),
        table,
        program: std::env::current_exe().context("cannot find this program to start workers with")?,
        workers: BTreeMap::new(),
        bounds: BTreeMap::new(),
        memory_bytes: config.memory_bytes.unwrap_or_else(default_memory_bytes),
        inbox,
        config,
        steady: Steady::start(),
    };
    for (name, labels) in &server.config.labels {
        server.table.set_labels(&name.into(), labels.clone());
    }
    server.scan();
    info!(%door, "the doors are open");
    let ready = server.config.ready_file.clone().map(|path| {
        let address = format!("http://{door}");
        let grpc = grpc.as_ref().map(|(address, _)| address.to_string());
        (path, Ready { door: address, grpc, failed: BTreeMap::new() })
    });
    server.pump(events, incoming, ready, stop).await?;
    let _ = open.await;
    if let Some((_, open)) = grpc {
        let _ = open.await;
    }
    info!("the server stops");
    server.end().await;
    Ok(())
}

/// What this machine is called, as the header `Muster-Device` says it.
fn device() -> anyhow::Result<DeviceId> {
    let name = sysinfo::System::host_name().unwrap_or_default().to_lowercase();
    let letters = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' });
    let name: String = letters.take(63).collect();
    // Where it has no name, or one that no device can have.
    name.parse().or_else(|_| "local".parse()).context("a device's name")
}

struct Worker {
    key: Key,
    handle: WorkerHandle,
    loaded: Option<Loaded>,
}

struct Server {
    repository: Repository,
    /// What is to be served, by name.
    places: BTreeMap<ModelName, Place>,
    /// Unloaded by order: known, and not to be served.
    unloaded: BTreeSet<ModelName>,
    /// Orders that are carried out and not yet done.
    waiting: Vec<Order>,
    /// Why there is nothing at a place.
    not_found: BTreeMap<ModelName, String>,
    table: Arc<Table>,
    program: PathBuf,
    workers: BTreeMap<WorkerId, Worker>,
    bounds: BTreeMap<ModelName, Bounds>,
    /// For each model.
    memory_bytes: u64,
    inbox: mpsc::UnboundedSender<(WorkerId, WorkerEvent)>,
    config: Config,
    /// What deadlines are counted in: a wall clock that jumps moves none.
    steady: Steady,
}

impl Server {
    async fn pump(
        &mut self,
        mut events: mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
        mut orders: mpsc::Receiver<Order>,
        mut ready: Option<(PathBuf, Ready)>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut poll = interval(self.config.poll.unwrap_or(Duration::MAX / 4));
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.reset();
        loop {
            self.answer_waiting();
            if ready.is_some()
                && let Some(failed) = self.tried()
                && let Some((path, words)) = ready.take()
            {
                let words = Ready { failed, ..words };
                identity::write_durably(&path, &serde_json::to_vec(&words)?, 0o644)?;
            }
            let due = self.repository.next_deadline_ms();
            let due = due.map(|due| Instant::now() + Duration::from_millis(due.saturating_sub(self.steady.now_ms())));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some((worker, event)) = events.recv() => self.happen(worker, event),
                Some(order) = orders.recv() => self.order(order),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.step(Event::Tick),
                _ = poll.tick() => self.scan(),
            }
        }
    }

    /// Looks what there is to serve.
    fn scan(&mut self) {
        for name in self.places.keys().cloned().collect::<Vec<_>>() {
            if !self.unloaded.contains(&name) {
                // A folder that cannot be read now takes nothing away from who answers.
                if let Err(reason) = self.look(&name) {
                    self.not_found(&name, &reason);
                }
            }
        }
    }

    fn look(&mut self, name: &ModelName) -> Result<(), String> {
        let Some(place) = self.places.get(name) else { return Err("it has no place".to_owned()) };
        let wanted = folder::versions(place).map_err(|error| error.to_string())?;
        if self.not_found.remove(name).is_some() {
            self.forget_failed(name);
        }
        self.step(Event::Wanted(name.clone(), wanted));
        Ok(())
    }

    /// What was said where there was nothing to serve is said no more.
    fn forget_failed(&self, name: &ModelName) {
        let name = DeploymentName::from(name);
        for version in self.table.versions(name.as_str()).unwrap_or_default() {
            if version.state == VersionState::End {
                self.table.forget(&name, version.version);
            }
        }
    }

    /// A place where there is nothing to serve takes nothing away from what answers already.
    fn not_found(&mut self, name: &ModelName, reason: &str) {
        if self.not_found.get(name).is_some_and(|told| told == reason) {
            return;
        }
        warn!(model = %name, reason, "there is nothing to serve, or nothing newer");
        self.not_found.insert(name.clone(), reason.to_owned());
        let (served, Some(first)) = (DeploymentName::from(name), Version::new(1)) else { return };
        if self.table.versions(served.as_str()).is_none() {
            self.table.set_state(&served, first, VersionState::End, Some(reason.to_owned()));
        }
    }

    fn order(&mut self, order: Order) {
        match self.begin(&order.model, order.what) {
            Ok(()) => self.waiting.push(order),
            // Who gave the order may have left.
            Err(error) => drop(order.reply.send(Err(error))),
        }
    }

    fn begin(&mut self, model: &ModelName, what: What) -> Result<(), ControlError> {
        if let (What::Load, Some(repository)) = (what, &self.config.repository)
            && !self.places.contains_key(model)
        {
            let folder = repository.join(model.as_str());
            if folder.is_dir() {
                self.places.insert(model.clone(), Place::Folder(folder));
            }
        }
        if !self.places.contains_key(model) {
            return Err(ControlError::Unknown(model.to_string()));
        }
        match what {
            What::Load => {
                self.unloaded.remove(model);
                self.step(Event::Again(model.clone()));
                self.look(model).map_err(|reason| ControlError::Failed(model.to_string(), reason))
            }
            What::Unload => {
                self.unloaded.insert(model.clone());
                self.step(Event::Wanted(model.clone(), BTreeMap::new()));
                Ok(())
            }
        }
    }

    fn answer_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.waiting) {
            match self.repository.settled(&waiting.model) {
                None => self.waiting.push(waiting),
                Some(settled) => {
                    let name = waiting.model.to_string();
                    // Who gave the order may have left.
                    let _ = waiting.reply.send(settled.map_err(|reason| ControlError::Failed(name, reason)));
                }
            }
        }
    }

    /// What failed, once everything was tried.
    fn tried(&self) -> Option<BTreeMap<ModelName, String>> {
        let mut failed = self.not_found.clone();
        for name in self.places.keys() {
            if let Err(reason) = self.repository.settled(name)? {
                failed.insert(name.clone(), reason);
            }
        }
        Some(failed)
    }

    fn happen(&mut self, worker: WorkerId, event: WorkerEvent) {
        match event {
            WorkerEvent::Ready(loaded) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.loaded = Some(loaded);
                }
                self.step(Event::Started(worker));
            }
            // Nobody checks golden vectors here.
            WorkerEvent::Checked(_) => {}
            WorkerEvent::Bad(_, reason) | WorkerEvent::Stopped(reason) | WorkerEvent::Died(_, reason) => {
                let ended = self.workers.remove(&worker).filter(|ended| ended.loaded.is_some());
                if let Some(Worker { key: (model, version), .. }) = ended {
                    self.table.metrics.of(&DeploymentName::from(&model), version).ended();
                }
                self.step(Event::Ended(worker, reason));
            }
        }
    }

    fn step(&mut self, event: Event) {
        for action in self.repository.step(event, self.steady.now_ms(), jitter()) {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Start(worker, key, file) => self.start(worker, key, file),
            Action::Route(worker, key) => {
                let Some(worker) = self.workers.get(&worker) else { return };
                let Some(loaded) = worker.loaded.clone() else { return };
                info!(model = %key.0, version = %key.1, process = worker.handle.process(), "a version answers");
                let Loaded { inputs, outputs, .. } = loaded;
                let (name, handle) = (DeploymentName::from(&key.0), worker.handle.clone());
                let (deployment, (model, version)) = (name.clone(), key);
                let (counters, metrics) = Default::default();
                self.table.add(
                    &name,
                    Served { deployment, model, version, inputs, outputs, worker: handle, counters, metrics },
                );
            }
            Action::Unroute((model, version), reason) => {
                warn!(%model, %version, reason, "a version does not answer");
                self.table.set_state(&(&model).into(), version, VersionState::Loading, Some(reason));
            }
            Action::Fail((model, version), reason) => {
                warn!(%model, %version, reason, "a version cannot be loaded; it is tried again");
                self.table.set_state(&(&model).into(), version, VersionState::End, Some(reason));
            }
            Action::Forget((model, version)) => self.table.forget(&(&model).into(), version),
            Action::Stop(worker) => {
                if let Some(worker) = self.workers.remove(&worker) {
                    info!(model = %worker.key.0, version = %worker.key.1, "a version ends what it has");
                    worker.handle.retire();
                }
            }
        }
    }

    fn start(&mut self, id: WorkerId, key: Key, file: PathBuf) {
        let name = DeploymentName::from(&key.0);
        // One that failed before is told so until it is known better.
        if self.table.find(name.as_str(), &VersionChoice::Version(key.1)).err() == Some(NotServed::Version(key.1)) {
            self.table.set_state(&name, key.1, VersionState::Loading, None);
        }
        let memory_bytes = self.memory_bytes;
        let cpu_milli = self.config.cpu_milli.unwrap_or(ONE_CORE_MILLI);
        let load = Load { file, ports: None, memory_bytes, cpu_milli, read_only: vec![] };
        let deadline = self.config.deadline.unwrap_or(parent::ANSWER_DEADLINE);
        let bounds = self.bounds.entry(key.0.clone()).or_default();
        if !self.config.batching {
            bounds.together_max.store(1, std::sync::atomic::Ordering::Relaxed);
        }
        (bounds.answer_deadline, bounds.load_deadline) = (deadline, self.config.load_deadline);
        let inbox = self.inbox.clone();
        let tell = move |event| {
            // The loop is gone only when the server ends.
            let _ = inbox.send((id, event));
        };
        let handle = parent::start(&self.program, id, load, Purpose::Serve, bounds.clone(), vec![], tell);
        self.workers.insert(id, Worker { key, handle, loaded: None });
    }

    /// Ends every worker.
    async fn end(self) {
        let handles: Vec<WorkerHandle> = self.workers.into_values().map(|worker| worker.handle).collect();
        handles.iter().for_each(WorkerHandle::stop);
        let ended = async {
            for handle in &handles {
                handle.ended().cancelled().await;
            }
        };
        if timeout(END_DEADLINE, ended).await.is_err() {
            warn!("workers did not end within {END_DEADLINE:?}; they are killed with this process");
        }
    }
}

/// As an agent grants all models together, where its owner says nothing.
fn default_memory_bytes() -> u64 {
    let kinds = sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
    let total = sysinfo::System::new_with_specifics(kinds).map(|system| system.total_memory());
    facts::for_models(total.unwrap_or(u64::MAX / 2))
}
