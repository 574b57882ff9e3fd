//! Which models answer on this device: every door looks a model up here and reaches the same worker.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use muster_shared::door::VersionChoice;
use muster_shared::manifest::Port;
use muster_shared::{DeploymentName, ModelName, Version};
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};

use crate::meter::Meter;
use crate::metrics::{Metrics, OfVersion};
use crate::outside::now_ms;
use crate::stats::Counters;
use crate::tensor::Tensor;
use crate::worker::parent::{PredictError, Prediction, WorkerHandle};

/// How long a request waits for a model that is being started.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// The models of this device, by the name doors use.
#[derive(Debug, Default)]
pub struct Table {
    models: RwLock<BTreeMap<DeploymentName, Versions>>,
    /// Something began to answer.
    changed: Notify,
    /// What telemetry tells of them.
    pub meter: Arc<Meter>,
    /// What `/metrics` tells of them.
    pub metrics: Metrics,
}

#[derive(Debug, Default)]
struct Versions {
    known: BTreeMap<Version, Known>,
    labels: BTreeMap<String, Version>,
}

#[derive(Debug, Default)]
struct Known {
    state: VersionState,
    error: Option<String>,
    served: Option<Arc<Served>>,
}

/// One version of a model that answers.
#[derive(Debug)]
pub struct Served {
    /// Its slot.
    pub deployment: DeploymentName,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Its process.
    pub worker: WorkerHandle,
    /// What is counted of it.
    pub counters: Counters,
    /// What `/metrics` tells of it, once it is in the table.
    pub metrics: OnceLock<Arc<OfVersion>>,
}

impl Served {
    /// Whether a first size that may be any is the number of rows in a request, as far as shapes tell.
    pub fn takes_rows(&self) -> bool {
        let has_rows = |port: &Port| port.shape.first() == Some(&None);
        !self.inputs.is_empty() && self.inputs.iter().chain(&self.outputs).all(has_rows)
    }

    /// How many rows a request has; 1 where that means nothing.
    fn rows(&self, inputs: &[Tensor]) -> u64 {
        let rows = inputs.first().and_then(|input| input.shape.first()).filter(|_| self.takes_rows());
        rows.map_or(1, |rows| *rows as u64)
    }
}

/// Where a version is in its life; the names are TF Serving's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionState {
    /// It is to be loaded.
    #[default]
    Start,
    /// It is being loaded.
    Loading,
    /// It answers.
    Available,
    /// It ends what it has.
    Unloading,
    /// It is gone, or could not be loaded.
    End,
}

/// What is known of one version.
#[derive(Debug, Clone)]
pub struct VersionEntry {
    /// Which.
    pub version: Version,
    /// Where it is in its life.
    pub state: VersionState,
    /// Why it is where it is, if it should not be there.
    pub error: Option<String>,
    /// The labels that it carries, sorted.
    pub labels: Vec<String>,
    /// What to ask, where it answers.
    pub served: Option<Arc<Served>>,
}

/// Why nobody answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// No version of this model answers, or none is known.
    #[error("no version of the model answers")]
    Model,
    /// This version does not answer.
    #[error("version {0} of the model does not answer")]
    Version(Version),
    /// It is being loaded, or started again after its process ended.
    #[error("the model is being started; try again")]
    Starting,
    /// It could not be loaded, for this reason.
    #[error("the model cannot be served now: {0}")]
    Failed(String),
    /// No version carries this label.
    #[error("no version of the model carries the label {0:?}")]
    Label(String),
}

impl Table {
    /// From now on `name` means this version and no other. Requests under way end on what they began
    /// with.
    pub fn route(&self, name: DeploymentName, served: Served) {
        self.count(&name, &served);
        let known = Known { state: VersionState::Available, error: None, served: Some(Arc::new(served)) };
        let version = known.served.as_ref().map(|served| served.version);
        let known = version.map(|version| (version, known)).into_iter().collect();
        self.write().insert(name, Versions { known, labels: BTreeMap::new() });
        self.changed.notify_waiters();
        self.prune_metrics();
    }

    /// From now on nobody answers for this slot.
    pub fn unroute(&self, deployment: &DeploymentName) {
        let of_it = |known: &Known| known.served.as_ref().is_some_and(|served| &served.deployment == deployment);
        self.write().retain(|_, versions| !versions.known.values().any(of_it));
        self.prune_metrics();
    }

    /// From now on this version answers, beside the others of its name.
    pub fn add(&self, name: &DeploymentName, served: Served) {
        self.count(name, &served);
        let version = served.version;
        let known = Known { state: VersionState::Available, error: None, served: Some(Arc::new(served)) };
        self.write().entry(name.clone()).or_default().known.insert(version, known);
        self.changed.notify_waiters();
    }

    /// This version does not answer, and why. Requests under way end on it.
    pub fn set_state(&self, name: &DeploymentName, version: Version, state: VersionState, error: Option<String>) {
        self.write().entry(name.clone()).or_default().known.insert(version, Known { state, error, served: None });
    }

    /// Nothing is known of this version any more.
    pub fn forget(&self, name: &DeploymentName, version: Version) {
        let mut models = self.write();
        if let Some(versions) = models.get_mut(name) {
            versions.known.remove(&version);
            // Labels stay: they mean the version when it comes back.
            if versions.known.is_empty() && versions.labels.is_empty() {
                models.remove(name);
            }
        }
        drop(models);
        self.prune_metrics();
    }

    /// From now on the label means this version.
    pub fn set_labels(&self, name: &DeploymentName, labels: BTreeMap<String, Version>) {
        self.write().entry(name.clone()).or_default().labels = labels;
    }

    /// Who answers to `name`. What can be no name is not served either.
    pub fn find(&self, name: &str, choice: &VersionChoice) -> Result<Arc<Served>, NotServed> {
        let models = self.read();
        let versions = name.parse::<DeploymentName>().ok().and_then(|name| models.get(&name));
        let Some(versions) = versions else { return Err(not_served(choice)) };
        let of = |version: &Version| versions.known.get(version);
        let known = match choice {
            // Where none answers, the newest says why.
            VersionChoice::Latest => {
                let newest_first = || versions.known.values().rev();
                newest_first().find(|known| known.served.is_some()).or_else(|| newest_first().next())
            }
            VersionChoice::Version(version) => of(version),
            VersionChoice::Label(label) => versions.labels.get(label).and_then(of),
        };
        match known {
            Some(Known { served: Some(served), .. }) => Ok(served.clone()),
            Some(Known { state: VersionState::Loading, .. }) => Err(NotServed::Starting),
            Some(Known { error: Some(reason), .. }) => Err(NotServed::Failed(reason.clone())),
            _ => Err(not_served(choice)),
        }
    }

    /// What is known of a model's versions, the newest first; none where the model is not known.
    pub fn versions(&self, name: &str) -> Option<Vec<VersionEntry>> {
        let name = name.parse::<DeploymentName>().ok()?;
        self.read().get(&name).filter(|versions| !versions.known.is_empty()).map(entries)
    }

    /// Every model with its versions, the newest first.
    pub fn models(&self) -> Vec<(DeploymentName, Vec<VersionEntry>)> {
        let models = self.read();
        let known = models.iter().filter(|(_, versions)| !versions.known.is_empty());
        known.map(|(name, versions)| (name.clone(), entries(versions))).collect()
    }

    /// The models of which no version answers, and why.
    pub fn waiting(&self) -> Vec<(DeploymentName, String)> {
        let why = |versions: Vec<VersionEntry>| {
            let why = versions.into_iter().find_map(|version| version.error);
            why.unwrap_or_else(|| "is being loaded".to_owned())
        };
        let mut models = self.models();
        models.retain(|(_, versions)| versions.iter().all(|version| version.state != VersionState::Available));
        models.into_iter().map(|(name, versions)| (name, why(versions))).collect()
    }

    /// Like [`Table::find`], but waits for moments where the model is just being started, so that a process
    /// that ended costs no more than the requests it had.
    pub async fn find_started(&self, name: &str, choice: &VersionChoice) -> Result<Arc<Served>, NotServed> {
        let found = self.find(name, choice);
        if !matches!(found, Err(NotServed::Starting)) {
            return found;
        }
        let started = self.wait_for(|| match self.find(name, choice) {
            Err(NotServed::Starting) => None,
            found => Some(found),
        });
        started.await.unwrap_or(found)
    }

    /// Looks again whenever something begins to answer, for [`RESTART_WAIT`].
    async fn wait_for<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        let until = tokio::time::Instant::now() + RESTART_WAIT;
        loop {
            let mut changed = pin!(self.changed.notified());
            // What changes from here on is not missed.
            changed.as_mut().enable();
            if let Some(found) = look() {
                return Some(found);
            }
            timeout_at(until, changed).await.ok()?;
        }
    }

    /// Asks the model; where its process ended before it took the request, the one that follows.
    async fn ask(&self, served: &Served, inputs: Vec<Tensor>) -> Result<Prediction, PredictError> {
        // Cheap: the elements are shared.
        let answer = served.worker.predict(inputs.clone()).await;
        if answer.as_ref().err() != Some(&PredictError::Gone) {
            return answer;
        }
        let follows = |other: &Arc<Served>| {
            other.deployment == served.deployment
                && other.version == served.version
                && !other.worker.is_same(&served.worker)
        };
        let next = self.wait_for(|| {
            let models = self.read();
            let mut known = models.values().flat_map(|versions| versions.known.values());
            known.find_map(|known| known.served.clone().filter(follows))
        });
        match next.await {
            Some(next) => next.worker.predict(inputs).await,
            None => answer,
        }
    }

    /// Runs the model once and counts it.
    pub async fn predict(&self, served: &Served, inputs: Vec<Tensor>) -> Result<Prediction, PredictError> {
        self.predict_within(served, inputs, None).await
    }

    /// The same, for somebody who waits only so long.
    pub async fn predict_within(
        &self,
        served: &Served,
        inputs: Vec<Tensor>,
        wait: Option<Duration>,
    ) -> Result<Prediction, PredictError> {
        let (began, rows) = (Instant::now(), served.rows(&inputs));
        let running = self.ask(served, inputs);
        let answer = match wait {
            None => running.await,
            Some(wait) => timeout(wait, running).await.unwrap_or(Err(PredictError::Late)),
        };
        let took = began.elapsed();
        let cost = answer.as_ref().ok().map(|prediction| prediction.cpu_us);
        self.meter.count(&served.deployment, &served.model, served.version, took, cost);
        served.counters.count(now_ms(), rows, took, &answer);
        if let Some(metrics) = served.metrics.get() {
            metrics.count(took, &answer);
        }
        answer
    }

    fn count(&self, name: &DeploymentName, served: &Served) {
        let metrics = served.metrics.get_or_init(|| self.metrics.of(name, served.version));
        metrics.runs_in(served.worker.process());
    }

    fn prune_metrics(&self) {
        let models = self.read();
        self.metrics.retain(|name, version| models.get(name).is_some_and(|of| of.known.contains_key(&version)));
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<DeploymentName, Versions>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<DeploymentName, Versions>> {
        self.models.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_served(choice: &VersionChoice) -> NotServed {
    match choice {
        VersionChoice::Latest => NotServed::Model,
        VersionChoice::Version(version) => NotServed::Version(*version),
        VersionChoice::Label(label) => NotServed::Label(label.clone()),
    }
}

fn entries(versions: &Versions) -> Vec<VersionEntry> {
    let labels_of = |version: Version| {
        versions.labels.iter().filter(|(_, of)| **of == version).map(|(label, _)| label.clone()).collect()
    };
    let entry = |(version, known): (&Version, &Known)| VersionEntry {
        version: *version,
        state: known.state,
        error: known.error.clone(),
        labels: labels_of(*version),
        served: known.served.clone(),
    };
    versions.known.iter().rev().map(entry).collect()
}
