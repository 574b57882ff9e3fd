//! What the planner knows: devices, deployments, bundles, and where everything stood before.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::api::deployment::{OnDeviceLoss, Selector, VersionRule};
use muster_shared::api::fleet::Schedule;
use muster_shared::desired::{BlobRef, Resources, SlotSpec};
use muster_shared::id::{Labels, VariantName};
use muster_shared::manifest::Format;
use muster_shared::reported::{Measured, Phase};
use muster_shared::{DeploymentName, DeviceId, Digest, ModelName, Version};
use serde::{Deserialize, Serialize};

use crate::explain::Reason;

/// The slots of one device, by deployment.
pub type Slots = BTreeMap<DeploymentName, SlotSpec>;

/// The label that says at which site a device stands.
pub const SITE_LABEL: &str = "site";

/// Everything a plan follows from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// The enrolled devices.
    pub devices: BTreeMap<DeviceId, Device>,
    /// What operators want.
    pub deployments: BTreeMap<DeploymentName, Wanted>,
    /// The bundles whose files are all there.
    pub bundles: Bundles,
    /// The plan before this one.
    pub previous: BTreeMap<DeviceId, Slots>,
    /// Replicas of it that were to go for a gain as soon as others serve in their place.
    pub relieved: BTreeSet<(DeploymentName, DeviceId)>,
    /// Replicas of it that their devices have not got to serve for too long.
    pub stuck: BTreeSet<(DeploymentName, DeviceId)>,
}

/// Complete bundles, by model and version.
pub type Bundles = BTreeMap<ModelName, BTreeMap<Version, Bundle>>;

/// One device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Device {
    /// Labels of its claim, of its owner, of its agent.
    pub labels: Labels,
    /// Whether it is there.
    pub presence: Presence,
    /// What an operator wants of it.
    pub schedule: Schedule,
    /// What it last said of itself; none: it has yet to report.
    pub machine: Option<Machine>,
    /// Bundles, by manifest, that it has proven bad and will not try again.
    pub refused: BTreeMap<Digest, Refused>,
    /// Its slots as it last reported them.
    pub slots: BTreeMap<DeploymentName, Report>,
    /// Whether that report speaks of the slots that the plan before gave it, and not of earlier ones.
    pub is_current: bool,
}

/// Whether a device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It holds a connection, and has for so long.
    Up {
        /// Milliseconds.
        for_ms: u64,
    },
    /// It holds none. Only time in which we could have heard it counts.
    Silent {
        /// Milliseconds.
        for_ms: u64,
        /// It fell silent together with many others: an outage of ours is not the loss of the fleet.
        frozen: bool,
    },
}

impl Default for Presence {
    fn default() -> Self {
        Self::Silent { for_ms: 0, frozen: false }
    }
}

/// What models may use of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `x86_64`, `aarch64`, `arm`.
    pub arch: String,
    /// The processor's name.
    pub cpu_model: Option<String>,
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What executes models there.
    pub engines: Vec<String>,
}

impl Machine {
    /// Whether one of its engines reads this format.
    pub fn reads(&self, format: Format) -> bool {
        let readers: &[&str] = match format {
            Format::Onnx => &["tract", "onnxruntime"],
        };
        self.engines.iter().any(|engine| readers.contains(&engine.as_str()))
    }
}

/// A bundle that a device has proven bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it proved, for a person.
    pub reason: String,
    /// The attempt that failed.
    pub attempt: u32,
    /// The memory granted, where it needed more; with more it is tried again.
    pub memory_bytes: Option<u64>,
}

impl Refused {
    /// Whether it keeps this release from being tried.
    pub fn holds_against(&self, release: &Release) -> bool {
        let too_little = self.memory_bytes.is_none_or(|granted| release.resources.memory_bytes <= granted);
        self.attempt >= release.attempt && too_little
    }
}

/// One slot as its device last reported it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// How far it is with what it was told.
    pub phase: Phase,
    /// The manifest that it works towards.
    pub wanted: Option<Digest>,
    /// The manifest whose worker answers.
    pub running: Option<Digest>,
    /// Why it does not go on.
    pub waiting: Option<String>,
    /// How often its worker was started again.
    pub restarts: u32,
    /// What the bundle needs there.
    pub measured: Option<Measured>,
}

/// What runs: a change of it goes over the fleet in waves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the manifest's payload.
    pub manifest: Digest,
    /// What each replica is granted.
    pub resources: Resources,
    /// Grows when an operator wants a refused bundle tried again.
    #[serde(default)]
    pub attempt: u32,
}

/// Which devices have which release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Releases {
    /// The one that is wanted.
    pub target: Release,
    /// The one that devices have which are not to have the target yet, or any more.
    pub previous: Option<Release>,
    /// Who has the target.
    pub granted: Granted,
    /// Why no further device begins with the target, where none does.
    pub closed: Option<String>,
}

/// Who has the target of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// Every device.
    All,
    /// These.
    Only(BTreeSet<DeviceId>),
}

impl Releases {
    /// What this device is to have.
    pub fn of(&self, device: &DeviceId) -> &Release {
        let granted = match &self.granted {
            Granted::All => true,
            Granted::Only(devices) => devices.contains(device),
        };
        match &self.previous {
            Some(previous) if !granted => previous,
            _ => &self.target,
        }
    }

    /// What a replica may come to need: the most that one of its releases is granted.
    pub fn room(&self) -> Resources {
        let target = self.target.resources;
        let previous = match (&self.granted, &self.previous) {
            (Granted::Only(_), Some(previous)) => previous.resources,
            _ => target,
        };
        Resources {
            cpu_milli: target.cpu_milli.max(previous.cpu_milli),
            memory_bytes: target.memory_bytes.max(previous.memory_bytes),
        }
    }
}

/// One deployment: what an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The model.
    pub model: ModelName,
    /// Which version.
    pub version: VersionRule,
    /// On how many devices; at most one replica each.
    pub replicas: Replicas,
    /// Which devices may.
    pub selector: Selector,
    /// What each replica is granted.
    pub resources: Resources,
    /// How long a device watches a new version.
    pub probation_ms: u32,
    /// The name doors use instead of the deployment's.
    pub served_as: Option<DeploymentName>,
    /// What becomes of the replica of a silent device.
    pub on_device_loss: OnDeviceLoss,
    /// How long a device may be silent before its replica moves.
    pub device_loss_grace_ms: u64,
    /// What runs where; none: there is nothing to run yet.
    pub releases: Option<Releases>,
}

/// On how many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replicas {
    /// So many.
    Count(u32),
    /// On each that matches.
    EveryDevice,
}

/// One complete bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// SHA-256 of the manifest's payload.
    pub manifest: Digest,
    /// The manifest in its envelope, as a blob.
    pub envelope: BlobRef,
    /// Its variants, best first.
    pub variants: Vec<(VariantName, Format)>,
    /// Why it must not come to any device where it is not already, if it must not.
    pub barred: Option<Barred>,
}

/// Why nothing begins with a bundle, whoever asks for it. Devices judge for themselves; this only keeps
/// them from being told what they would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// Its publisher wants nothing below this version to run.
    BelowFloor(Version),
    /// The root names nobody any more who signed it. What runs of it runs on.
    PublisherRemoved,
    /// Only keys that the root names as compromised signed it.
    Compromised,
    /// The root has expired: what runs runs on, and nothing begins.
    RootExpired,
}

impl std::fmt::Display for Barred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BelowFloor(floor) => write!(f, "its publisher wants nothing below version {floor} to run"),
            Self::PublisherRemoved => f.write_str("the root names its publisher no more"),
            Self::Compromised => f.write_str("only compromised keys signed it"),
            Self::RootExpired => f.write_str("the root has expired"),
        }
    }
}

/// The bundle that a version rule means today, if anything may begin with it.
pub fn resolve(bundles: &Bundles, model: &ModelName, rule: VersionRule) -> Option<(Version, Digest)> {
    let (version, bundle) = meant(bundles, model, rule)?;
    bundle.barred.is_none().then_some((version, bundle.manifest))
}

/// The bundle that a version rule means, barred or not. "Latest" passes over what a thief may have
/// signed, but not over what a removed publisher did: that would take back what serves well.
pub fn meant<'a>(bundles: &'a Bundles, model: &ModelName, rule: VersionRule) -> Option<(Version, &'a Bundle)> {
    let versions = bundles.get(model)?;
    let (version, bundle) = match rule {
        VersionRule::Latest => {
            let believed = versions.iter().rfind(|(_, bundle)| bundle.barred != Some(Barred::Compromised));
            believed.or_else(|| versions.last_key_value())?
        }
        VersionRule::Exact(version) => versions.get_key_value(&version)?,
    };
    Some((*version, bundle))
}

impl Inputs {
    /// The bundle of a release, if it is still there and something may begin with it.
    pub fn bundle(&self, release: &Release) -> Option<&Bundle> {
        let bundle = self.bundles.get(&release.model)?.get(&release.version)?;
        (bundle.manifest == release.manifest && bundle.barred.is_none()).then_some(bundle)
    }

    /// Why there is nothing to begin with for this model and rule.
    pub fn why_nothing(&self, model: &ModelName, rule: VersionRule) -> Reason {
        let barred = meant(&self.bundles, model, rule).and_then(|(version, bundle)| Some((version, bundle.barred?)));
        match barred {
            Some((version, why)) => Reason::Barred { model: model.clone(), version, why },
            None => Reason::NoBundle { model: model.clone(), version: rule },
        }
    }

    /// How many replicas a deployment is to have.
    pub fn replicas(&self, wanted: &Wanted) -> u32 {
        match wanted.replicas {
            Replicas::Count(count) => count,
            Replicas::EveryDevice => {
                // One that is being emptied is not to have one: it would never become empty.
                let takes =
                    |device: &&Device| wanted.selector.matches(&device.labels) && device.schedule != Schedule::Draining;
                self.devices.values().filter(takes).count().try_into().unwrap_or(u32::MAX)
            }
        }
    }
}

/// What bundles were measured to need, gathered once for a whole plan.
#[derive(Debug, Clone, Default)]
pub struct Measurements<'a> {
    on_device: BTreeMap<(Digest, &'a DeviceId), Measured>,
    on_like: BTreeMap<(Digest, &'a str, Option<&'a str>), Measured>,
    anywhere: BTreeMap<Digest, Measured>,
}

impl<'a> Measurements<'a> {
    /// What the devices report.
    pub fn of(devices: &'a BTreeMap<DeviceId, Device>) -> Self {
        let mut all = Self::default();
        for (id, device) in devices {
            for report in device.slots.values() {
                let (Some(manifest), Some(measured)) = (report.running, report.measured) else { continue };
                all.on_device.entry((manifest, id)).or_insert(measured);
                all.anywhere.entry(manifest).or_insert(measured);
                if let Some(machine) = &device.machine {
                    all.on_like.entry((manifest, &machine.arch, machine.cpu_model.as_deref())).or_insert(measured);
                }
            }
        }
        all
    }

    /// What a bundle needs on a device: as measured there, else on the like of it, else anywhere.
    pub fn on(&self, id: &DeviceId, machine: Option<&Machine>, manifest: Digest) -> Option<Measured> {
        let like = |machine: &Machine| {
            self.on_like.get(&(manifest, machine.arch.as_str(), machine.cpu_model.as_deref())).copied()
        };
        let own = self.on_device.get(&(manifest, id)).copied();
        own.or_else(|| machine.and_then(like)).or_else(|| self.anywhere.get(&manifest).copied())
    }
}

impl Device {
    /// Whether it holds a connection.
    pub fn is_up(&self) -> bool {
        matches!(self.presence, Presence::Up { .. })
    }

    /// Whether an operator takes it for lost.
    pub fn is_taken_for_lost(&self) -> bool {
        matches!(self.presence, Presence::Silent { for_ms: u64::MAX, .. })
    }

    /// Whether its replicas of this deployment are to be given to others.
    pub fn is_lost_for(&self, wanted: &Wanted) -> bool {
        match self.presence {
            Presence::Silent { for_ms, frozen: false } => {
                wanted.on_device_loss == OnDeviceLoss::Move && for_ms >= wanted.device_loss_grace_ms
            }
            _ => false,
        }
    }

    /// Why it will not try a release, if it has proven it bad.
    pub fn why_refused(&self, release: &Release) -> Option<&str> {
        let refused = self.refused.get(&release.manifest).filter(|refused| refused.holds_against(release))?;
        Some(&refused.reason)
    }

    /// Whether its worker of this deployment answers, with whatever version.
    pub fn serves(&self, deployment: &DeploymentName) -> bool {
        self.is_up() && self.slots.get(deployment).is_some_and(|report| report.running.is_some())
    }

    /// Whether its worker answered when it last reported. A device that is silent for a moment still
    /// counts; one that is lost does not keep its replica.
    pub fn answered(&self, deployment: &DeploymentName) -> bool {
        self.slots.get(deployment).is_some_and(|report| report.running.is_some())
    }

    /// Whether it answers with this very bundle.
    pub fn serves_release(&self, deployment: &DeploymentName, release: &Release) -> bool {
        let report = self.slots.get(deployment);
        self.is_up() && report.is_some_and(|report| report.running == Some(release.manifest))
    }

    /// The site's name; none: it says none.
    pub fn site(&self) -> Option<&str> {
        self.labels.iter().find(|(key, _)| key.as_str() == SITE_LABEL).map(|(_, site)| site.as_str())
    }
}
