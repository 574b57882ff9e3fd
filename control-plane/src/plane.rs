//! What all parts of the plane share.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use muster_shared::DeviceId;
use muster_shared::id::InstanceId;
use muster_shared::topic::Leaf;
use muster_shared::wire::{self, Message};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::BlobStore;
use crate::broker::{EmbeddedBroker, QoS};
use crate::catalog::Catalog;
use crate::chunk_server::ChunkServer;
use crate::db::{Db, TelemetryDb};
use crate::figures::Windows;
use crate::gateway::Gateway;
use crate::hearing::Hearing;
use crate::http::feed::Feed;
use crate::http::session::Tries;
use crate::live::Live;
use crate::releases::Releases;
use crate::releases::downloads::Downloads;
use crate::routes::Routes;
use crate::trust::barred::Judged;
use crate::trust::ca::Authority;
use crate::trust::director::Director;
use crate::trust::floors::Floors;
use crate::trust::ledger::Ledger;
use crate::trust::refusals::Refusals;
use crate::trust::revocations::Revocations;
use crate::trust::roles::Trust;
use crate::tunnel::Tunnels;

/// The plane.
pub struct Plane {
    /// The state.
    pub db: Db,
    /// The telemetry.
    pub telemetry: TelemetryDb,
    /// The blobs.
    pub blobs: BlobStore,
    /// The bundles.
    pub catalog: Catalog,
    /// The releases of the agent.
    pub releases: Releases,
    /// Who fetches their files.
    pub downloads: Downloads,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// The key that signs desired states.
    pub director: Arc<Director>,
    /// The roots.
    pub trust: Trust,
    /// The version floors.
    pub floors: Floors,
    /// What the signatures of bundles are worth.
    pub judged: Judged,
    /// The keys that never come back.
    pub revocations: Revocations,
    /// By what a database that went back is told.
    pub ledger: Ledger,
    /// Who was not let in lately.
    pub refusals: Refusals,
    /// The devices, as they are now.
    pub live: Arc<Live>,
    /// What serves chunks.
    pub chunks: ChunkServer,
    /// What passes predictions on.
    pub gateway: Gateway,
    /// Which devices may be asked for a deployment.
    pub routes: Routes,
    /// Whether we hear devices.
    pub hearing: Hearing,
    /// What models did lately.
    pub figures: Windows,
    /// Held by whoever changes what was decided: the planner, and operators.
    pub deciding: Mutex<()>,
    /// Who tried to log in lately.
    pub tries: Tries,
    /// What those who watch share.
    pub feed: Feed,
    /// What devices come through that cannot reach the broker.
    pub tunnels: Tunnels,
    /// What wakes background tasks.
    pub nudges: Nudges,
    /// This process, as the place where replies go.
    pub instance: InstanceId,
    /// Cancelled when the plane is to stop.
    pub stop: CancellationToken,
    /// Everything that is to end before the plane does.
    pub tasks: TaskTracker,
    pub(crate) broker: OnceLock<EmbeddedBroker>,
    pub(crate) mqtt_address: OnceLock<String>,
    pub(crate) tunnel_address: OnceLock<String>,
}

/// What wakes background tasks. A nudge carries no data, so a missed one costs only delay.
#[derive(Default)]
pub struct Nudges {
    /// Something that a plan follows from has changed.
    pub planner: Notify,
    /// Something that devices should be told has changed.
    pub publisher: Arc<Notify>,
    /// A device is to leave.
    pub departures: Notify,
}

impl Plane {
    /// The broker's `host:port` as devices are told it.
    pub fn mqtt_address(&self) -> String {
        self.mqtt_address.get().cloned().unwrap_or_default()
    }

    /// The `host:port` of the listener for devices, as they are told it.
    pub fn tunnel_address(&self) -> Option<String> {
        self.tunnel_address.get().cloned()
    }

    /// Sends a message to a device, if it is connected. What gets lost is asked for again.
    pub async fn send<M: Message>(&self, device: &DeviceId, leaf: Leaf, message: &M, qos: QoS) {
        let Some(broker) = self.broker.get() else { return };
        let bytes = match wire::encode(message) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => {
                tracing::error!(%device, %error, "cannot encode a message");
                return;
            }
        };
        if let Err(error) = broker.publish(&leaf.of(device).to_string(), bytes, qos).await {
            tracing::warn!(%device, %error, "cannot send a message");
        }
    }
}
