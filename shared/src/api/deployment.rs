//! A deployment: what an operator wants, Kubernetes-shaped. `spec` is theirs, `status` is ours.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::figures::Figures;
use crate::id::{DeploymentName, DeviceId, Labels, ModelName, UnixMs, Version};
use crate::quantity::{Bytes, CountOrPercent, MilliCpu, Millis};
use crate::reported::Phase;

/// The only API version so far.
pub const API_VERSION: &str = "muster.dev/v1";
/// The kind of this resource.
pub const KIND: &str = "Deployment";

/// The resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deployment {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Its name and labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
    /// What is; absent in what a person writes, and ignored there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Name and labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metadata {
    /// The deployment's name, which doors use too.
    pub name: DeploymentName,
    /// Labels of the deployment itself.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub labels: Labels,
    /// Grows with each change of `spec`; ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spec {
    /// The model.
    pub model: ModelName,
    /// Which version.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub version: VersionRule,
    /// How many devices serve it.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Whether every matching device serves it; `replicas` is left out then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub every_device: bool,
    /// Which devices may.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
    /// What each replica is granted.
    #[serde(default)]
    pub resources: Resources,
    /// How a new version comes.
    #[serde(default)]
    pub rollout: Rollout,
    /// What becomes of the replica of a device that stays silent.
    #[serde(default)]
    pub on_device_loss: OnDeviceLoss,
    /// How long a device may be silent before its replica moves.
    #[serde(default = "default_grace")]
    pub device_loss_grace: Millis,
    /// The name doors use instead of the deployment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_as: Option<DeploymentName>,
}

fn one() -> u32 {
    1
}

fn default_grace() -> Millis {
    Millis(60_000)
}

/// What becomes of the replica of a device that stays silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnDeviceLoss {
    /// It moves to another device after the grace period.
    #[default]
    Move,
    /// It waits for its device.
    Keep,
}

/// `latest` (the highest complete bundle) or a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "VersionText", into = "VersionText")]
pub enum VersionRule {
    /// The highest complete bundle of the model.
    #[default]
    Latest,
    /// This one.
    Exact(Version),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum VersionText {
    Number(u64),
    Text(String),
}

impl TryFrom<VersionText> for VersionRule {
    type Error = String;

    fn try_from(text: VersionText) -> Result<Self, String> {
        let rule = match &text {
            VersionText::Text(word) if word == "latest" => Some(Self::Latest),
            VersionText::Text(word) => word.parse().ok().map(Self::Exact),
            VersionText::Number(number) => Version::new(*number).map(Self::Exact),
        };
        rule.ok_or_else(|| "version: write `latest` or a positive number".to_owned())
    }
}

impl From<VersionRule> for VersionText {
    fn from(rule: VersionRule) -> Self {
        match rule {
            VersionRule::Latest => Self::Text("latest".to_owned()),
            VersionRule::Exact(version) => Self::Number(version.get()),
        }
    }
}

/// Labels that a device must carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Selector {
    /// All of them, with these values.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
    pub match_labels: Labels,
}

impl Selector {
    /// Whether it asks for nothing, so that every device matches.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty()
    }

    /// Whether a device with `labels` matches.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What a replica is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: MilliCpu(250), memory: Bytes(128 << 20) }
    }
}

/// How a new version comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollout {
    /// The only strategy so far.
    pub strategy: Strategy,
    /// How many devices have the new version after each wave, in all; the last is `100%`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub waves: Vec<CountOrPercent>,
    /// How long a device watches a new version before it lets the old one go.
    pub probation: Millis,
    /// How long a device may be at it without any progress before it counts as failed; its probation
    /// comes on top.
    pub progress_deadline: Millis,
    /// Devices that may fail before the rollout stops. A wave in which none succeeds stops it anyway.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub max_failed: CountOrPercent,
}

impl Default for Rollout {
    fn default() -> Self {
        let (one, quarter, all) = (CountOrPercent::Count(1), CountOrPercent::Percent(25), CountOrPercent::Percent(100));
        Self {
            strategy: Strategy::Waves,
            waves: vec![one, quarter, all],
            probation: Millis(60_000),
            progress_deadline: Millis(600_000),
            max_failed: CountOrPercent::Count(0),
        }
    }
}

/// How a rollout goes through the devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Strategy {
    /// Some first, the next ones when those do well.
    #[default]
    Waves,
}

/// What is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// The `metadata.generation` that this status speaks of.
    pub observed_generation: u64,
    /// Replicas wanted.
    pub wanted: u32,
    /// Replicas that answer with the wanted version.
    pub ready: u32,
    /// The version the rule means today.
    pub version: Option<Version>,
    /// The version change under way, or the last one.
    pub rollout: Option<RolloutView>,
    /// Each replica.
    pub replicas: Vec<Replica>,
    /// Why something waits, for a person.
    pub conditions: Vec<Condition>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replica {
    /// Where.
    pub device: DeviceId,
    /// How far; none: the device has not reported yet.
    pub phase: Option<Phase>,
    /// The version that answers.
    pub running: Option<Version>,
    /// The version it is to run.
    pub version: Version,
    /// The bundle it is to run.
    pub manifest: Digest,
    /// Why it is on this device.
    pub why: String,
    /// Whether it goes as soon as another one serves.
    pub leaving: bool,
    /// Why it does not go on.
    pub reason: Option<String>,
    /// What it uses and what it gives; none: it was not asked lately.
    pub figures: Option<Figures>,
}

/// A version change over the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutView {
    /// Counts the rollouts of this deployment.
    pub number: u64,
    /// How far it is.
    pub stage: RolloutStage,
    /// The version it brings.
    pub version: Version,
    /// The version it goes back to; none: there was none before.
    pub previous: Option<Version>,
    /// The wave under way, from 1.
    pub wave: u32,
    /// How many waves there are.
    pub waves: u32,
    /// Devices that are to have the new version now.
    pub granted: u32,
    /// Those of them on which it passed its probation.
    pub healthy: u32,
    /// Devices that have the deployment.
    pub devices: u32,
    /// Devices on which it failed, and why.
    pub failed: Vec<DeviceFailure>,
    /// What it waits for, or how it ended, for a person.
    pub message: String,
    /// When it began.
    pub began_ms: UnixMs,
    /// When its stage or its wave last changed.
    pub changed_ms: UnixMs,
}

/// How far a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RolloutStage {
    /// Wave by wave.
    Running,
    /// An operator wants no further device to change.
    Paused,
    /// It failed; devices went back.
    Stopped,
    /// An operator took it back.
    Undone,
    /// Every device has the new version.
    Done,
}

/// A device on which a version failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceFailure {
    /// Which.
    pub device: DeviceId,
    /// Why.
    pub reason: String,
}

/// How many replicas an operator wants now: the body of `PUT /deployments/{name}/scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Scale {
    /// How many.
    pub replicas: u32,
}

/// A condition, as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// `Available`, `Placed`, `Progressing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When it last changed.
    pub since_ms: UnixMs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_deployment_gets_the_defaults() {
        let json = serde_json::json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": "digits"}, "spec": {"model": "digits"}
        });
        let deployment: Deployment = serde_json::from_value(json).expect("a deployment");
        assert_eq!(deployment.spec.version, VersionRule::Latest);
        assert_eq!((deployment.spec.replicas, deployment.spec.rollout.probation), (1, Millis(60_000)));
        let again = serde_json::to_value(&deployment).expect("JSON");
        assert_eq!(serde_json::from_value::<Deployment>(again).expect("reads back"), deployment);
    }

    #[test]
    fn a_misspelt_key_is_an_error_not_a_default() {
        let json = serde_json::json!({
            "apiVersion": API_VERSION, "kind": KIND,
            "metadata": {"name": "digits"}, "spec": {"model": "digits", "replica": 3}
        });
        assert!(serde_json::from_value::<Deployment>(json).is_err());
    }

    #[test]
    fn versions_are_latest_or_positive() {
        for (text, rule) in [
            ("\"latest\"", Some(VersionRule::Latest)),
            ("7", Version::new(7).map(VersionRule::Exact)),
            ("\"7\"", Version::new(7).map(VersionRule::Exact)),
            ("0", None),
            ("\"newest\"", None),
            ("-1", None),
        ] {
            assert_eq!(serde_json::from_str::<VersionRule>(text).ok(), rule, "{text}");
        }
    }
}
