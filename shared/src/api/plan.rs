//! What the planner is about to do, and why things are as they are.

use serde::{Deserialize, Serialize};

use super::api_types;
use super::deployment::{Deployment, Replica, RolloutView};
use super::fleet::Schedule;
use crate::figures::Figures;
use crate::id::{DeploymentName, DeviceId, UnixMs, Version};

api_types! {
    /// What to plan: the body of `POST /plan`.
    pub struct PlanRequest {
        /// Deployments as they would be applied; those that are not named stay as they are.
        #[serde(default)]
        pub deployments: Vec<Deployment>,
    }

    /// What would change, and what waits.
    pub struct PlanView {
        /// Groups of devices that fell silent together, so that nothing of theirs moves.
        pub frozen: Vec<FreezeView>,
        /// What would change, by deployment and device.
        pub changes: Vec<ChangeView>,
        /// What waits, by deployment.
        pub waiting: Vec<WaitingView>,
        /// Why nothing changes until an operator approves, where that is so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub restored: Option<String>,
    }

    /// Many devices that fell silent together.
    pub struct FreezeView {
        /// The whole fleet, or the site's name.
        pub group: String,
        /// Those that are silent.
        pub devices: Vec<DeviceId>,
        /// Devices of the group that were there before.
        pub of: u32,
        /// Since when.
        pub since_ms: UnixMs,
        /// What to do about it.
        pub message: String,
    }

    /// One change on one device.
    pub struct ChangeView {
        /// The deployment.
        pub deployment: DeploymentName,
        /// The device.
        pub device: DeviceId,
        /// What changes.
        pub change: Change,
        /// The version that the device is to have; none where it has none any more.
        pub version: Option<Version>,
        /// Why.
        pub why: String,
    }

    /// Something that waits.
    pub struct WaitingView {
        /// The deployment.
        pub deployment: DeploymentName,
        /// What for.
        pub why: String,
    }

    /// Why a deployment is as it is.
    pub struct DeploymentExplained {
        /// The deployment.
        pub name: DeploymentName,
        /// Replicas wanted.
        pub wanted: u32,
        /// Replicas that answer with the version they should.
        pub ready: u32,
        /// The version the rule means today.
        pub version: Option<Version>,
        /// Each replica, with the reason why it is there.
        pub replicas: Vec<Replica>,
        /// What waits, for a person; empty: nothing does.
        pub waiting: Vec<String>,
        /// The version change under way, or the last one.
        pub rollout: Option<RolloutView>,
        /// What is asked of all replicas together; none: nothing was asked lately.
        pub demand: Option<Demand>,
        /// Whether silence of many devices holds moves back, for a person.
        pub frozen: Option<String>,
    }

    /// What is asked of a deployment, in cores.
    pub struct Demand {
        /// Requests per second, R and A over all replicas.
        pub figures: Figures,
        /// Replicas that this demand needs.
        pub replicas_needed: u32,
        /// The sum as a person would write it: `40/s × 25 core-ms = 1.0 core; ÷ (500m × 70 %) → 3 replicas`.
        pub sentence: String,
    }

    /// Why a device is as it is.
    pub struct DeviceExplained {
        /// The device.
        pub id: DeviceId,
        /// What an operator wants of it.
        pub schedule: Schedule,
        /// Whether it is there, for a person.
        pub presence: String,
        /// Thousandths of a core that models may use, and that replicas were granted.
        pub cpu_milli: Option<u32>,
        /// Thousandths of a core that its replicas were granted.
        pub cpu_milli_granted: u32,
        /// Bytes of memory that models may use.
        pub memory_bytes: Option<u64>,
        /// Bytes of memory that its replicas were granted.
        pub memory_bytes_granted: u64,
        /// Its replicas, with the reason why each is there.
        pub replicas: Vec<DeviceReplica>,
        /// What keeps new replicas away, for a person.
        pub obstacles: Vec<String>,
    }

    /// One replica on a device.
    pub struct DeviceReplica {
        /// Of which deployment.
        pub deployment: DeploymentName,
        /// The replica.
        pub replica: Replica,
    }
}

/// What changes on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Change {
    /// It gets a replica.
    Place,
    /// Its replica changes: another version, other resources.
    Update,
    /// Its replica goes as soon as another one serves.
    Leave,
    /// Its replica goes.
    Remove,
}
