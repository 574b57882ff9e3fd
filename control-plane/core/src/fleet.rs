//! What the planner knows: devices, deployments, bundles, and where everything stood before.

use std::collections::BTreeMap;

use muster_shared::api::deployment::{Selector, VersionRule};
use muster_shared::desired::{BlobRef, Resources, SlotSpec};
use muster_shared::id::{Labels, VariantName};
use muster_shared::manifest::Format;
use muster_shared::{DeploymentName, DeviceId, Digest, ModelName, Version};

/// The slots of one device, by deployment.
pub type Slots = BTreeMap<DeploymentName, SlotSpec>;

/// Everything a plan follows from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inputs {
    /// The enrolled devices.
    pub devices: BTreeMap<DeviceId, Device>,
    /// What operators want.
    pub deployments: BTreeMap<DeploymentName, Wanted>,
    /// The bundles whose files are all there.
    pub bundles: BTreeMap<ModelName, BTreeMap<Version, Bundle>>,
    /// The plan before this one.
    pub previous: BTreeMap<DeviceId, Slots>,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Labels of its claim, of its owner, of its agent.
    pub labels: Labels,
    /// Whether it holds a connection. Keeps new replicas off it, never moves one that is there.
    pub connected: bool,
    /// Whether an operator wants nothing new on it.
    pub cordoned: bool,
    /// What it last said of itself; none: it has yet to report.
    pub machine: Option<Machine>,
    /// Bundles, by manifest, that it has proven bad and will not try again; and why.
    pub refused: BTreeMap<Digest, String>,
}

/// What models may use of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
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

/// One deployment: what an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The model.
    pub model: ModelName,
    /// Which version.
    pub version: VersionRule,
    /// On how many devices; at most one replica each.
    pub replicas: u32,
    /// Which devices may.
    pub selector: Selector,
    /// What each replica is granted.
    pub resources: Resources,
    /// How long a device watches a new version.
    pub probation_ms: u32,
    /// The name doors use instead of the deployment's.
    pub served_as: Option<DeploymentName>,
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
}

impl Inputs {
    /// The bundle that a deployment's version rule means today.
    pub fn bundle(&self, wanted: &Wanted) -> Option<(Version, &Bundle)> {
        let versions = self.bundles.get(&wanted.model)?;
        match wanted.version {
            VersionRule::Latest => versions.last_key_value().map(|(version, bundle)| (*version, bundle)),
            VersionRule::Exact(version) => versions.get(&version).map(|bundle| (version, bundle)),
        }
    }
}
