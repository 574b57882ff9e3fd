//! The way out of a fleet, once a director's command to leave has ended the loop.

use std::time::Duration;

use anyhow::Context as _;
use axum::http::StatusCode;
use muster_shared::command::{Emptied, Order, SignedEmptied};
use muster_shared::message::{Call, Request};
use muster_shared::signing::payload_type;
use muster_shared::topic::Leaf;
use muster_shared::wire;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::Driver;
use crate::departure::{self, Told};
use crate::doors::http::Answer;
use crate::mqtt::Incoming;

/// How soon a control plane cuts off a device that said that it is empty, over lost connections and new ones.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(60);

/// How this device leaves.
pub(super) enum Leaving {
    /// A director told it to.
    Told(Told),
    /// It had said that it is empty before, and is not let in any more.
    CutOff,
}

impl Driver {
    /// Empties this device and says so, as often as it takes, until the control plane does not let it in any more.
    pub(super) async fn leave(&mut self, told: Told, incoming: &mut mpsc::Receiver<Incoming>) -> anyhow::Result<()> {
        let data = &self.config.data;
        departure::begin(data, self.key.fingerprint()).context("cannot note that this device leaves its fleet")?;
        departure::empty(data).context("cannot empty this device")?;
        self.say_empty(told)?;
        info!("this device is empty, and says so");
        timeout(CUT_OFF_WITHIN, self.until_cut_off(incoming)).await.map_err(|_| {
            anyhow::anyhow!(
                "the control plane did not take this device's word that it is empty; it says it again when it starts"
            )
        })?
    }

    /// A connection is lost for many reasons; only who refuses this key has heard that it is given up.
    async fn until_cut_off(&mut self, incoming: &mut mpsc::Receiver<Incoming>) -> anyhow::Result<()> {
        while let Some(message) = incoming.recv().await {
            match message {
                Incoming::NotLetIn | Incoming::CertificateRefused => return Ok(()),
                // A control plane that has not heard it tells it once more, and needs a hello for that.
                Incoming::Connected { .. } => self.say_hello(),
                Incoming::Message { leaf: Leaf::Call, payload, .. } => {
                    if let Some(told) = self.told_again(&payload) {
                        self.say_empty(told)?;
                    }
                }
                _ => {}
            }
        }
        anyhow::bail!("the connection ended for good before the control plane took this device's word")
    }

    fn told_again(&mut self, payload: &[u8]) -> Option<Told> {
        let Call { id, reply_to, request: Request::Command(envelope), .. } = wire::decode(payload).ok()? else {
            return None;
        };
        let is_order = matches!(self.agent.command(&envelope, id), Ok(Order::Decommission));
        (is_order && self.commands.is_new(id)).then_some(Told { command: id, reply_to })
    }

    fn say_empty(&self, told: Told) -> anyhow::Result<()> {
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
        Ok(())
    }

    /// The control plane keeps it after all: what it sends is run, over starts, too.
    pub(super) fn stays(&mut self) {
        match departure::stay(&self.config.data) {
            Ok(()) => self.emptied_before = false,
            Err(error) => {
                warn!(%error, "cannot remove the note that this device leaves; the next start empties it again")
            }
        }
    }
}
