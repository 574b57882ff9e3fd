//! The one loop: waits for something to happen, lets the core decide, carries it out.
//!
//! [`start`] brings everything up, with what [`restore`] finds on the disk; [`calls`] answers what comes over MQTT;
//! [`leaving`] ends it for good.

mod calls;
mod leaving;
mod restore;
mod start;

use std::sync::Arc;
use std::time::Duration;

use muster_agent_core::clock::BOUND_STEP_MS;
use muster_agent_core::reconcile::{Action, Agent, Event};
use muster_agent_core::slot::SlotEvent;
use muster_shared::Nonce;
use muster_shared::checks::{self, Check};
use muster_shared::hardware::Strain;
use muster_shared::id::{BootId, UnixMs};
use muster_shared::limits::{NOTES_MAX, clip};
use muster_shared::message::{Call, ChunkData, EventKind, Hello, Request, TrustUpdate};
use muster_shared::reported::{Reported, SignedReported};
use muster_shared::signing::payload_type;
use muster_shared::telemetry::Ack;
use muster_shared::topic::Leaf;
use muster_shared::{desired::SignedDesired, wire};
use rumqttc::QoS;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::start::{Ended, Run, run};

use self::calls::Calls;
use self::leaving::Leaving;
use crate::config::Config;
use crate::doors::Doors;
use crate::effects::{Effects, Wanted};
use crate::facts::Machine;
use crate::facts::watch::Watch;
use crate::identity::{self, DeviceKey, Enrolment};
use crate::mqtt::Incoming;
use crate::outside::{Timekeeper, jitter, random};
use crate::renewal::Renewal;
use crate::status::StatusKeeper;
use crate::telemetry::Telemetry;

/// A hello says what this device holds; said again in case an answer was lost.
const HELLO_EVERY: Duration = Duration::from_secs(60);
/// A report is sent again in case it was lost.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Changes that come close together make one report.
const REPORT_DELAY: Duration = Duration::from_millis(50);
/// Writes that failed are tried again after this long.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

struct Driver {
    agent: Agent,
    time: Timekeeper,
    /// The time bound that is on disk.
    bound_kept_ms: UnixMs,
    /// Whether the present connection's server was judged at a time that may be wrong.
    unsure: bool,
    /// How the connection stands, for those beside this device.
    status: StatusKeeper,
    renewal: Renewal,
    effects: Effects,
    machine: Machine,
    /// What was told of what slows it down.
    strained: Watch,
    telemetry: Telemetry,
    doors: Arc<Doors>,
    config: Config,
    enrolment: Enrolment,
    key: Arc<DeviceKey>,
    boot: BootId,
    reports: u64,
    calls: Calls,
    /// Commands that were carried out.
    commands: Calls,
    /// On its way out since an earlier run: emptied, and not yet cut off.
    emptied_before: bool,
    /// How it leaves the fleet: the loop ends with it.
    leaving: Option<Leaving>,
    report_due: Option<Instant>,
    hello_due: Instant,
}

impl Driver {
    async fn pump(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        incoming: &mut mpsc::Receiver<Incoming>,
        stop: CancellationToken,
    ) {
        let mut batch = interval(self.config.telemetry_every);
        batch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        batch.reset();
        let mut report = interval(REPORT_EVERY);
        report.reset();
        let mut save = interval(SAVE_AGAIN);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.leaving.is_none() {
            let tick_at = self
                .agent
                .next_deadline_ms()
                .map(|deadline| Instant::now() + Duration::from_millis(deadline.saturating_sub(self.time.steady_ms())));
            let renewal_at = self.renewal.due();
            let report_at = self.report_due;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = events.recv() => self.happen(event),
                Some(message) = incoming.recv() => self.hear(message),
                () = sleep_until(tick_at.unwrap_or_else(Instant::now)), if tick_at.is_some() => self.happen(Event::Tick),
                () = sleep_until(report_at.unwrap_or_else(Instant::now)), if report_at.is_some() => self.report(),
                () = sleep_until(self.hello_due) => self.say_hello(),
                _ = report.tick() => self.report(),
                _ = save.tick(), if self.effects.has_unsaved() => self.effects.save(),
                _ = batch.tick() => {
                    let sample = self.machine.sample();
                    self.watch(&sample.strains);
                    self.telemetry.batch(sample, &self.effects.journal, &self.effects.mqtt, self.time.wall_ms());
                }
                () = sleep_until(renewal_at.unwrap_or_else(Instant::now)), if renewal_at.is_some() => self.renewal.look(),
                renewed = self.renewal.ended() => self.renewal.end(renewed),
            }
        }
        info!("the agent stops");
    }

    /// Tells of what began or ceased to slow this machine down; the report that follows says the same.
    fn watch(&mut self, strains: &[Strain]) {
        if let Some(text) = self.strained.look(strains, self.time.steady_ms()) {
            info!(text, "this machine's speed changed");
            self.carry_out(vec![Action::Tell(EventKind::Throttling, None, clip(text))]);
            self.report_due = self.report_due.or(Some(Instant::now() + REPORT_DELAY));
        }
    }

    fn happen(&mut self, event: Event) {
        if let Event::Slot(
            _,
            SlotEvent::Died(worker, ..) | SlotEvent::CheckFailed(worker, ..) | SlotEvent::CheckStopped(worker, _),
        ) = &event
        {
            self.effects.forget(*worker);
        }
        let actions = self.agent.step(event, self.time.steady_ms());
        if *self.agent.clock() != self.time.clock() {
            self.clock_changed();
        }
        self.carry_out(actions);
        // What it held went with its journal, so this came since.
        if self.emptied_before && self.agent.held().is_some() {
            self.stays();
        }
    }

    /// A director said what time it is, or is not believed any more.
    fn clock_changed(&mut self) {
        let was_ms = self.time.wall_ms();
        self.time.set(self.agent.clock());
        self.telemetry.corrected(was_ms, self.time.wall_ms());
        self.renewal.clock_changed();
        let clock = self.agent.clock();
        let (confirmed, bound_ms) = (clock.is_confirmed(), clock.bound_ms());
        self.status.change(self.time.wall_ms(), |status| status.clock_changed(confirmed, bound_ms));
        self.keep_bound();
    }

    /// Keeps the bound where it rose enough. Where that fails the device only knows less after a reboot.
    fn keep_bound(&mut self) {
        let bound_ms = self.agent.clock().bound_ms();
        if bound_ms < self.bound_kept_ms.saturating_add(BOUND_STEP_MS) {
            return;
        }
        match identity::save_time_bound(&self.config.data, bound_ms) {
            Ok(()) => self.bound_kept_ms = bound_ms,
            Err(error) => warn!(%error, "cannot keep the time that has surely passed; trying again with the next"),
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        let Wanted { report, hello } = self.effects.carry_out(actions, &self.agent);
        if report && self.report_due.is_none() {
            self.report_due = Some(Instant::now() + REPORT_DELAY);
        }
        if hello {
            self.say_hello();
        }
    }

    fn hear(&mut self, message: Incoming) {
        match message {
            Incoming::Connected { unsure } => {
                self.unsure = unsure;
                self.renewal.connected();
                self.happen(Event::Connected);
                self.say_hello();
                self.telemetry.connected(&self.effects.journal, &self.effects.mqtt);
            }
            Incoming::Disconnected => self.happen(Event::Disconnected),
            Incoming::CertificateRefused => self.renewal.refused(),
            // What it said before the last start was heard.
            Incoming::NotLetIn if self.emptied_before => self.leaving = Some(Leaving::CutOff),
            Incoming::NotLetIn => {}
            Incoming::ServerOutOfTime => self.happen(Event::ServerOutOfTime),
            Incoming::Message { leaf, payload, .. } => {
                if let Err(error) = self.message(&leaf, &payload) {
                    debug!(?leaf, %error, "a message cannot be read");
                }
            }
        }
    }

    /// Whether only what proves itself is taken: signed documents, and chunks of what they name.
    fn is_unsure(&self) -> bool {
        checks::on(Check::TimeBound) && self.unsure && !self.agent.clock().is_confirmed()
    }

    fn message(&mut self, leaf: &Leaf, payload: &[u8]) -> Result<(), wire::WireError> {
        match leaf {
            Leaf::TelemetryAck if self.is_unsure() => {
                debug!("an acknowledgement is left alone: no director has told the time yet");
            }
            Leaf::Trust => match wire::decode::<TrustUpdate>(payload)? {
                TrustUpdate::Root(root) => self.happen(Event::TrustOffered(root)),
                TrustUpdate::Time(time) => self.happen(Event::TimeTold(time)),
                TrustUpdate::Floor { floor, manifest } => self.happen(Event::FloorOffered(floor, manifest)),
            },
            Leaf::Desired => match wire::decode::<SignedDesired>(payload) {
                Ok(desired) => self.happen(Event::DesiredOffered(desired.0)),
                Err(error) => self.happen(Event::DesiredUnreadable(error.to_string())),
            },
            Leaf::ChunkData if self.effects.store.is_behind() => debug!("a chunk is left alone: the disk is behind"),
            Leaf::ChunkData => self.happen(Event::Chunk(wire::decode::<ChunkData>(payload)?)),
            Leaf::TelemetryAck => {
                let ack = wire::decode::<Ack>(payload)?;
                self.telemetry.acknowledged(ack, &self.effects.journal, &self.effects.mqtt);
            }
            Leaf::Call => {
                let call = wire::decode::<Call>(payload)?;
                if self.is_unsure() && matches!(call.request, Request::Door(_)) {
                    debug!("a call to a door is left alone: no director has told the time yet");
                } else {
                    self.called(call);
                }
            }
            // The other topics go up; the subscription never brings them.
            _ => {}
        }
        Ok(())
    }

    fn say_hello(&mut self) {
        self.hello_due = Instant::now() + HELLO_EVERY.mul_f64(0.75 + jitter() / 2.0);
        let nonce = Nonce(random());
        // The nonce must be known before an answer to it can come.
        self.happen(Event::HelloSaid(nonce));
        let root_version = self.agent.root().root().version;
        let wants_time = self.agent.clock().wants_time(self.time.steady_ms());
        let hello = Hello { boot: self.boot, nonce, root_version, holds: self.agent.held(), wants_time };
        if let Ok(bytes) = wire::encode(&hello) {
            self.effects.mqtt.send(Leaf::Hello, QoS::AtLeastOnce, bytes);
        }
    }

    fn report(&mut self) {
        self.report_due = None;
        self.reports += 1;
        let reported = Reported {
            device: self.enrolment.device.clone(),
            boot: self.boot,
            sequence: self.reports,
            at_ms: self.time.wall_ms(),
            root_version: self.agent.root().root().version,
            applied: self.agent.applied(),
            desired_refused: self.agent.desired_refused().cloned(),
            facts: self.machine.facts(&self.config),
            health: self.machine.health(),
            slots: self.agent.slot_reports(),
            refusals: self.agent.refusals().to_vec(),
            floors: self.agent.reported_floors(),
            notes: self.notes(),
        };
        let signed = wire::encode(&reported)
            .map_err(anyhow::Error::from)
            .and_then(|payload| self.key.sign(payload_type::REPORTED, payload))
            .and_then(|envelope| Ok(wire::encode(&SignedReported(envelope))?));
        match signed {
            Ok(bytes) => self.effects.mqtt.send(Leaf::Reported, QoS::AtLeastOnce, bytes),
            Err(error) => warn!(error = format!("{error:#}"), "cannot report"),
        }
    }

    /// What a person should know.
    fn notes(&self) -> Vec<String> {
        let clock = self.agent.clock().note(self.time.steady_ms());
        clock.into_iter().chain(self.agent.notes()).take(NOTES_MAX).collect()
    }
}
