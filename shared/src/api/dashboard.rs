//! What the dashboard asks besides: a session instead of a token, one live stream, and history.

use serde::{Deserialize, Serialize};

use super::api_types;
use super::deployment::Deployment;
use super::fleet::{DeviceView, EventView};
use super::plan::{Demand, FreezeView};
use crate::id::{DeploymentName, DeviceId, FleetId, UnixMs};

api_types! {
    /// A person logs in: the body of `POST /session`.
    pub struct Credentials {
        /// The user's name.
        pub user: String,
        /// The user's password.
        pub password: String,
    }

    /// Whose session it is.
    pub struct SessionView {
        /// The user.
        pub user: String,
    }

    /// Changes one's own password: the body of `PUT /password`.
    pub struct NewPassword {
        /// The one in force.
        pub current: String,
        /// The one to come.
        pub next: String,
    }

    /// A deployment as the live stream tells it.
    pub struct DeploymentLive {
        /// What is wanted, and what is.
        pub resource: Deployment,
        /// What is asked of all replicas together; none: nothing was asked lately.
        pub demand: Option<Demand>,
    }

    /// The whole picture: the first message of `GET /feed`, with the event name `snapshot`.
    pub struct FeedSnapshot {
        /// When it was taken.
        pub at_ms: UnixMs,
        /// The fleet, once a root is there.
        pub fleet: Option<FleetId>,
        /// The control plane's version.
        pub version: String,
        /// The devices, by id.
        pub devices: Vec<DeviceView>,
        /// Devices beyond the bound of this stream; those in trouble are never among them before others.
        pub devices_left_out: u32,
        /// The deployments, by name.
        pub deployments: Vec<DeploymentLive>,
        /// What happened last, the newest first.
        pub events: Vec<EventView>,
        /// Groups of devices that fell silent together, so that nothing of theirs moves.
        pub frozen: Vec<FreezeView>,
        /// Why nothing changes because the database was put back; none: it was not.
        #[serde(default)]
        pub restored: Option<String>,
    }

    /// What changed since the message before: event name `change`.
    pub struct FeedChange {
        /// When it was seen.
        pub at_ms: UnixMs,
        /// The fleet, once a root is there.
        pub fleet: Option<FleetId>,
        /// Devices that changed, as they are now.
        pub devices: Vec<DeviceView>,
        /// Devices that are no longer there.
        pub devices_gone: Vec<DeviceId>,
        /// Devices beyond the bound of this stream.
        pub devices_left_out: u32,
        /// Deployments that changed, as they are now.
        pub deployments: Vec<DeploymentLive>,
        /// Deployments that are no longer there.
        pub deployments_gone: Vec<DeploymentName>,
        /// What happened since, the newest first.
        pub events: Vec<EventView>,
        /// Groups of devices that are silent together now.
        pub frozen: Vec<FreezeView>,
        /// Why nothing changes because the database was put back; none: it was not, or is approved.
        #[serde(default)]
        pub restored: Option<String>,
    }

    /// A device's telemetry over a time, summed up into buckets.
    pub struct History {
        /// The device.
        pub device: DeviceId,
        /// How long one point's time is.
        pub bucket_ms: u64,
        /// When the time begins, by the device's clock.
        pub from_ms: UnixMs,
        /// When it ends.
        pub until_ms: UnixMs,
        /// The oldest first; a time in which nothing came has no point.
        pub points: Vec<HistoryPoint>,
        /// Whether there was more than is summed up at once, so that the oldest is left out.
        pub cut: bool,
    }

    /// One point of a history.
    pub struct HistoryPoint {
        /// The beginning of its time.
        pub at_ms: UnixMs,
        /// Share of all cores in use on average, in thousandths.
        pub cpu_permille: u32,
        /// The most memory in use.
        pub memory_used_bytes: u64,
        /// Memory there is.
        pub memory_bytes: u64,
        /// Each model that was there.
        pub models: Vec<HistoryModel>,
    }

    /// One model in one point's time.
    pub struct HistoryModel {
        /// Its slot.
        pub deployment: DeploymentName,
        /// The newest version that answered.
        pub version: u64,
        /// Predictions asked for in a second.
        pub requests_per_second: f64,
        /// Median latency in milliseconds; none: it was not asked.
        pub p50_ms: Option<f64>,
        /// 99th percentile in milliseconds.
        pub p99_ms: Option<f64>,
    }
}

/// The data of one message of `GET /feed`; its event name says which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FeedMessage {
    /// Event name `snapshot`.
    Snapshot(FeedSnapshot),
    /// Event name `change`.
    Change(FeedChange),
}
