//! Who may ask a model, and how. Every door looks a model up in the same [`crate::table::Table`] and
//! reaches the same worker: [`tfs`] is TF Serving's REST API, [`health`] says how the agent fares.
//! [`http`] is a request and its answer, whoever brought it; [`server`] brings them over sockets.

pub mod health;
pub mod http;
pub mod server;
pub mod tfs;

use std::sync::Arc;

use muster_shared::DeviceId;

use self::http::{Answer, Ask};
use crate::serve::ControlHandle;
use crate::table::Table;

/// All doors of an agent.
#[derive(Debug)]
pub struct Doors {
    /// Who answers.
    pub table: Arc<Table>,
    /// Which device this is, for the header `Muster-Device`.
    pub device: DeviceId,
    /// Loads and unloads models, where there is no fleet that decides what is loaded.
    pub control: Option<ControlHandle>,
}

impl Doors {
    /// Answers one request, whoever brought it.
    pub async fn answer(&self, ask: Ask<'_>) -> Answer {
        if let Some(answer) = health::answer(&self.table, ask) {
            return answer;
        }
        tfs::answer(&self.table, ask).await
    }
}
