//! Who may ask a model, and how. Every door looks a model up in the same [`crate::table::Table`] and
//! reaches the same worker: [`tfs`] is TF Serving's REST API, [`oip`] the Open Inference Protocol, which
//! [`grpc`] speaks, too; [`local_mqtt`] asks for what speaks MQTT beside this device; [`health`] says how
//! the agent fares.
//! [`http`] is a request and its answer, whoever brought it, and [`refusal`] why there is none; [`server`]
//! brings them over sockets.

#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(not(feature = "grpc"))]
#[path = "without_grpc.rs"]
pub mod grpc;
pub mod health;
pub mod http;
pub mod local_mqtt;
pub mod oip;
pub mod refusal;
pub mod server;
pub mod tfs;

use std::sync::Arc;

use muster_shared::DeviceId;

use self::http::{Answer, Ask};
use self::oip::OipDoor;
use crate::table::Table;

/// All doors of an agent.
#[derive(Debug)]
pub struct Doors {
    /// Who answers.
    pub table: Arc<Table>,
    /// The Open Inference Protocol.
    pub oip: OipDoor,
    /// Which device this is, for the header `Muster-Device`.
    pub device: DeviceId,
}

impl Doors {
    /// Answers one request, whoever brought it.
    pub async fn answer(&self, ask: Ask<'_>) -> Answer {
        if let Some(answer) = health::answer(&self.table, ask) {
            return answer;
        }
        if oip::is_ours(ask.path) {
            return oip::answer(&self.oip, ask).await;
        }
        tfs::answer(&self.table, ask).await
    }
}
