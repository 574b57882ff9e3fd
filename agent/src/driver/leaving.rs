//! The way out of a fleet, once a director's command to leave has ended the loop.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::StatusCode;
use muster_shared::command::{Emptied, SignedEmptied};
use muster_shared::signing::payload_type;
use muster_shared::wire;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::info;

use super::Driver;
use crate::departure::{self, Told};
use crate::doors::http::Answer;
use crate::mqtt::Incoming;

/// How soon a control plane cuts off a device that said that it is empty.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(10);

impl Driver {
    /// Empties this device, says so, and forgets who it was once the control plane has cut it off.
    pub(super) async fn leave(&self, told: Told, incoming: &mut mpsc::Receiver<Incoming>) -> anyhow::Result<()> {
        let data = &self.config.data;
        departure::begin(data, self.key.fingerprint()).context("cannot note that this device leaves its fleet")?;
        departure::empty(data).context("cannot empty this device")?;
        let emptied = Emptied {
            fleet: self.agent.root().root().fleet.clone(),
            device: self.enrolment.device.clone(),
            command: told.command,
            at_ms: self.time.wall_ms(),
        };
        let signed = self.key.sign(payload_type::EMPTIED, wire::encode(&emptied)?)?;
        let (version, headers) = Default::default();
        let body = wire::encode(&SignedEmptied(signed))?.into();
        self.answer(told.command, told.reply_to, Answer { status: StatusCode::OK, version, headers, body });
        info!("this device is empty, and says so");
        let cut_off = async {
            while let Some(message) = incoming.recv().await {
                if matches!(message, Incoming::Disconnected) {
                    break;
                }
            }
        };
        timeout(CUT_OFF_WITHIN, cut_off).await.map_err(|_| {
            anyhow::anyhow!(
                "the control plane did not take this device's word that it is empty; it tries again when it starts"
            )
        })?;
        departure::finish(data).context("cannot remove this device's key")?;
        info!("this device has left its fleet; `muster-agent enrol` with a new claim takes it into one again");
        Ok(())
    }
}
