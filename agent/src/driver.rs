//! The one loop: waits for something to happen, lets the core decide, carries it out.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderMap, Method, StatusCode};
use muster_agent_core::clock::{BOUND_STEP_MS, Clock};
use muster_agent_core::limits::OwnerLimits;
use muster_agent_core::reconcile::{Action, Agent, Event, Restored};
use muster_agent_core::slot::SlotEvent;
use muster_agent_core::verify::bundle::{Proven, files, read_manifest};
use muster_agent_core::verify::desired::recall;
use muster_agent_core::verify::roots::not_older;
use muster_agent_core::verify::{Holding, Watermark};
use muster_shared::checks::{self, Check};
use muster_shared::command::{Emptied, Order, SignedEmptied};
use muster_shared::id::{BootId, InstanceId, UnixMs};
use muster_shared::limits::{NOTES_MAX, clip};
use muster_shared::message::{Call, ChunkData, DoorRequest, EventKind, Hello, Reply, Request, TrustUpdate};
use muster_shared::reported::{Reported, SignedReported};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::telemetry::Ack;
use muster_shared::topic::Leaf;
use muster_shared::{Digest, Nonce};
use muster_shared::{desired::SignedDesired, wire};
use rumqttc::QoS;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::departure::Told;
use crate::doors::http::{Answer, Ask, JSON_BYTES};
use crate::doors::oip::OipDoor;
use crate::doors::{Doors, local_mqtt, server};
use crate::effects::{Effects, Wanted};
use crate::enrol;
use crate::facts::Machine;
use crate::identity::{self, DeviceKey, Enrolment};
use crate::journal::Journal;
use crate::mqtt::{self, Connect, Incoming, Mqtt};
use crate::outside::{Steady, Timekeeper, jitter, random};
use crate::renewal::Renewal;
use crate::store::Store;
use crate::table::Table;
use crate::telemetry::Telemetry;
use crate::trust_store::{Counter, Program, TrustStore};
use crate::{departure, diagnosis, engine};

/// Events that may wait for the loop.
const INBOX_MAX: usize = 1024;
/// A hello says what this device holds; said again in case an answer was lost.
const HELLO_EVERY: Duration = Duration::from_secs(60);
/// A report is sent again in case it was lost.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Changes that come close together make one report.
const REPORT_DELAY: Duration = Duration::from_millis(50);
/// Writes that failed are tried again after this long.
const SAVE_AGAIN: Duration = Duration::from_secs(1);
/// Calls whose ids are remembered, so that a repeated one is answered once.
const CALLS_REMEMBERED_MAX: usize = 1024;
/// How soon a control plane cuts off a device that said that it is empty.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(10);
/// Calls under way; more are told to come again later.
const CALLS_MAX: usize = 256;

/// What a running agent tells scripts, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready<'a> {
    device: &'a str,
    door: String,
}

/// How to run.
pub struct Run {
    /// `agent.toml`, made ready.
    pub config: Config,
    /// Where to say that the door is open.
    pub ready_file: Option<PathBuf>,
}

/// Runs the agent until `stop`.
pub async fn run(options: Run, stop: CancellationToken) -> anyhow::Result<()> {
    let config = options.config;
    departure::resume(&config.data).context("this device was leaving its fleet, and cannot go on with it")?;
    let enrolment = identity::enrolment(&config.data)?
        .context("this device is not enrolled; `muster-agent enrol --url … --claim … --data …` does it")?;
    let key = Arc::new(DeviceKey::open_or_make(&config.data)?);
    let journal = Arc::new(Journal::open(&config.data).context("is another agent running on this data?")?);
    let (inbox, events) = mpsc::channel(INBOX_MAX);
    let table = Arc::new(Table::default());
    let boot = BootId(random());

    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot open the door on {}; change door.listen in agent.toml", config.listen))?;
    let door = listener.local_addr()?;
    let doors =
        Arc::new(Doors { table: table.clone(), oip: OipDoor::closed(table.clone()), device: enrolment.device.clone() });
    let open = server::serve(listener, doors.clone(), server::Options::default(), stop.child_token());
    let open = tokio::spawn(open);

    if let Some(settings) = config.local_mqtt.clone() {
        tokio::spawn(local_mqtt::serve(settings, doors.clone(), stop.child_token()));
    }

    let store = open_store(&config.data, inbox.clone())?;
    let (incoming_sender, mut incoming) = mpsc::channel(mqtt::INCOMING_MAX);
    let steady = Steady::start();
    let bound_ms = identity::time_bound(&config.data, &enrolment);
    let clock = Clock::new(bound_ms, steady.now_ms());
    let time = Timekeeper::new(steady, clock.clone());
    let connect = connect(&config.data, &enrolment, key.clone(), time.clone())?;
    let machine = Machine::new(&config.data).context("cannot watch this machine")?;
    let counter = (!config.counter.is_empty()).then(|| Box::new(Program(config.counter.clone())) as Box<dyn Counter>);
    let trust = TrustStore::open(&config.data, counter);
    let restored = Restored {
        watermark_unknown: trust.unknown(),
        limits: owner_limits(&config, &machine),
        ..restore(&journal, &store, &key, &enrolment, (clock, trust.watermark().clone()))?
    };
    let to_loop = inbox.clone();
    let watermarks = trust
        // The loop is gone only when the whole process ends.
        .start(move |event| drop(to_loop.blocking_send(event)))
        .context("cannot start a thread that keeps the watermark")?;
    // Models start before networking: the connection is made only after the core has begun.
    let (agent, actions) = Agent::restored(restored, time.steady_ms());
    let mqtt = Mqtt::start(connect, incoming_sender, stop.child_token());
    let program = std::env::current_exe().context("cannot find this program to start workers with")?;
    let effects = Effects::new(
        (journal.clone(), watermarks),
        store,
        mqtt.clone(),
        table.clone(),
        program,
        inbox,
        (boot, time.clone()),
    );
    let telemetry = Telemetry::new(enrolment.device.clone(), boot, key.clone(), table.meter.clone(), time.wall_ms());
    let renewal = Renewal::new(enrolment.clone(), key.clone(), config.data.clone(), time.clone(), mqtt);
    let mut driver = Driver {
        agent,
        time,
        bound_kept_ms: bound_ms,
        unsure: false,
        renewal,
        effects,
        machine,
        telemetry,
        doors,
        config,
        enrolment,
        key,
        boot,
        reports: 0,
        calls: Calls::default(),
        commands: Calls::default(),
        leaving: None,
        report_due: None,
        hello_due: Instant::now() + HELLO_EVERY,
    };
    driver.carry_out(actions);
    driver
        .effects
        .carry_out(vec![Action::Tell(EventKind::Started, None, "the agent started".to_owned())], &driver.agent);
    if let Some(path) = &options.ready_file {
        let ready = Ready { device: driver.enrolment.device.as_str(), door: format!("http://{door}") };
        identity::write_durably(path, &serde_json::to_vec(&ready)?, 0o644)?;
    }
    info!(device = %driver.enrolment.device, %door, "the agent runs");
    driver.pump(events, &mut incoming, stop).await;
    if let Some(told) = driver.leaving.take() {
        driver.leave(told, &mut incoming).await?;
    }
    // Doors finish what they have, within a bound.
    let _ = timeout(Duration::from_secs(2), open).await;
    Ok(())
}

fn open_store(data: &Path, inbox: mpsc::Sender<Event>) -> anyhow::Result<Store> {
    let tell = move |event| {
        // The loop is gone only when the whole process ends.
        let _ = inbox.blocking_send(event);
    };
    Store::open(data, tell).with_context(|| format!("cannot open the store below {}", data.display()))
}

fn connect(data: &Path, enrolment: &Enrolment, key: Arc<DeviceKey>, time: Timekeeper) -> anyhow::Result<Connect> {
    let (host, port) = mqtt::host_and_port(&enrolment.mqtt)
        .with_context(|| format!("the broker's address {:?} is no host:port; enrol again", enrolment.mqtt))?;
    let (data, ca) = (data.to_owned(), enrolment.ca);
    let tls = Box::new(move || Ok(muster_tls::device_client(ca, Some(key.client_identity(&data)?), time.known())?));
    Ok(Connect { device: enrolment.device.clone(), host, port, tls })
}

/// Reads the journal, verifying everything anew.
fn restore(
    journal: &Journal,
    store: &Store,
    key: &DeviceKey,
    enrolment: &Enrolment,
    (clock, mut watermark): (Clock, Watermark),
) -> anyhow::Result<Restored> {
    let followed = journal.roots()?;
    let root = enrol::follow_roots(&enrolment.roots, enrolment.root)
        .map(|root| not_older(root, watermark.root.as_ref()))
        .and_then(|root| enrol::follow_later(root, &followed))
        .context("the kept roots are not to be trusted")?;
    let newest = followed.into_iter().find(|envelope| Digest::of(&envelope.payload) == root.digest());
    watermark.root = newest.or(watermark.root);
    let identity = key.identity(enrolment);
    let (held, nonce, earlier_nonce) = (None, None, None);
    let holding = Holding { identity: &identity, root: &root, held, watermark: None, nonce, earlier_nonce };
    let desired = match journal.desired()?.map(|envelope| recall(&envelope, holding)) {
        Some(Ok(desired)) => Some(desired),
        Some(Err(error)) => {
            warn!(%error, "the kept desired state is not believed any more; waiting for a new one");
            None
        }
        None => None,
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let software = engine::software();
    // What an older agent kept does not say who signed it.
    let who_signed = |proven: Proven| {
        if !proven.signers.is_empty() {
            return proven;
        }
        let bytes = store.read(proven.spec.envelope.sha256).map_err(|error| error.to_string());
        let read =
            |bytes: Vec<u8>| read_manifest(&bytes, &proven.spec, &root, &software).map_err(|error| error.to_string());
        match bytes.and_then(read) {
            Ok(manifest) => Proven {
                signers: manifest.signers().to_vec(),
                files: files(manifest.manifest(), &proven.spec),
                ..proven
            },
            Err(error) => {
                warn!(deployment = %proven.spec.deployment, error, "a proven version is to be verified again first");
                proven
            }
        }
    };
    let proven = journal.proven()?.into_iter().map(who_signed).collect();
    let refusals = journal.refusals()?;
    let (watermark_unknown, limits) = Default::default();
    Ok(Restored {
        identity,
        version,
        root,
        clock,
        watermark,
        watermark_unknown,
        software,
        limits,
        desired,
        proven,
        refusals,
    })
}

/// What the owner allows: of memory and cores, what the facts report.
fn owner_limits(config: &Config, machine: &Machine) -> OwnerLimits {
    let facts = machine.facts(config);
    OwnerLimits {
        memory_bytes: Some(facts.memory_bytes),
        cpu_milli: Some(facts.cpu_milli),
        disk_bytes: config.disk_bytes,
        slots: config.slots,
        models: config.models.clone(),
    }
}

struct Driver {
    agent: Agent,
    time: Timekeeper,
    /// The time bound that is on disk.
    bound_kept_ms: UnixMs,
    /// Whether the present connection's server was judged at a time that may be wrong.
    unsure: bool,
    renewal: Renewal,
    effects: Effects,
    machine: Machine,
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
    /// The command to leave the fleet: the loop ends with it.
    leaving: Option<Told>,
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
                    self.telemetry.batch(sample, &self.effects.journal, &self.effects.mqtt, self.time.wall_ms());
                }
                () = sleep_until(renewal_at.unwrap_or_else(Instant::now)), if renewal_at.is_some() => self.renewal.look(),
                renewed = self.renewal.ended() => self.renewal.end(renewed),
            }
        }
        info!("the agent stops");
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
    }

    /// A director said what time it is, or is not believed any more.
    fn clock_changed(&mut self) {
        let was_ms = self.time.wall_ms();
        self.time.set(self.agent.clock());
        self.telemetry.corrected(was_ms, self.time.wall_ms());
        self.renewal.clock_changed();
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

    /// A call that asks for something else than a prediction: only a director's word counts.
    fn commanded(&mut self, id: Nonce, reply_to: &InstanceId, envelope: &Envelope) -> Option<Answer> {
        match self.agent.command(envelope, id) {
            // Counted apart from other calls, which anybody on the broker can make until this id is forgotten.
            Ok(_) if !self.commands.is_new(id) => None,
            Ok(Order::Diagnose) => {
                Some(Answer::json(StatusCode::OK, &diagnosis::of(&self.agent, self.time.steady_ms())))
            }
            Ok(Order::Decommission) if checks::on(Check::OwnerLimits) && !self.config.decommission_from_plane => {
                let text = "this device's owner does not let the control plane take it out of its fleet \
                            (limits.decommission-from-plane)";
                Some(Answer::error(StatusCode::FORBIDDEN, text))
            }
            // Answered once it is done.
            Ok(Order::Decommission) => {
                self.leaving = Some(Told { command: id, reply_to: reply_to.clone() });
                None
            }
            Err(error) => {
                let text = format!("a command was not believed: {error}");
                self.carry_out(vec![Action::Tell(EventKind::TrustRefused, None, clip(text.clone()))]);
                Some(Answer::error(StatusCode::FORBIDDEN, &text))
            }
        }
    }

    /// Leaves the fleet: empties this device, says so, and forgets who it was once the control plane has cut it off.
    async fn leave(self, told: Told, incoming: &mut mpsc::Receiver<Incoming>) -> anyhow::Result<()> {
        let data = self.config.data.clone();
        let fingerprint = self.key.fingerprint();
        departure::begin(&data, fingerprint).context("cannot note that this device leaves its fleet")?;
        departure::empty(&data).context("cannot empty this device")?;
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
        departure::finish(&data).context("cannot remove this device's key")?;
        info!("this device has left its fleet; `muster-agent enrol` with a new claim takes it into one again");
        Ok(())
    }

    fn answer(&self, id: Nonce, reply_to: InstanceId, answer: Answer) {
        if let Ok(bytes) = encoded(id, answer) {
            self.effects.mqtt.send(Leaf::Reply(reply_to), QoS::AtLeastOnce, bytes);
        }
    }

    fn called(&mut self, call: Call) {
        let request = match call.request {
            Request::Command(envelope) => {
                if let Some(answer) = self.commanded(call.id, &call.reply_to, &envelope) {
                    self.answer(call.id, call.reply_to, answer);
                }
                return;
            }
            Request::Door(request) => request,
        };
        if !self.calls.is_new(call.id) {
            return;
        }
        if checks::on(Check::OwnerLimits) && !self.config.predictions_from_plane {
            let text = "this device's owner does not let the control plane ask for predictions \
                        (limits.predictions-from-plane); ask the device's own door";
            self.answer(call.id, call.reply_to, Answer::error(StatusCode::FORBIDDEN, text));
            return;
        }
        let (doors, mqtt, room) = (self.doors.clone(), self.effects.mqtt.clone(), self.calls.room.clone());
        tokio::spawn(async move {
            let (id, deadline) = (call.id, Duration::from_millis(call.deadline_ms.into()));
            let answer = match room.try_acquire() {
                Ok(_room) => timeout(deadline, answer_call(&doors, request)).await.ok(),
                Err(_) => {
                    Some(Answer::error(StatusCode::TOO_MANY_REQUESTS, "the device has more requests than it can take"))
                }
            };
            // Past its deadline nobody waits for it.
            let Some(answer) = answer else { return };
            if let Ok(bytes) = encoded(id, answer) {
                mqtt.send(Leaf::Reply(call.reply_to), QoS::AtLeastOnce, bytes);
            }
        });
    }
}

/// A reply on the wire, or word that it is too large for it.
fn encoded(id: Nonce, answer: Answer) -> Result<Vec<u8>, wire::WireError> {
    wire::encode(&reply(id, answer)).or_else(|_| {
        let text = "the answer is too large for the gateway; ask the device's own door";
        wire::encode(&reply(id, Answer::error(StatusCode::INSUFFICIENT_STORAGE, text)))
    })
}

async fn answer_call(doors: &Doors, request: DoorRequest) -> Answer {
    let method = if request.post { Method::POST } else { Method::GET };
    let mut headers = HeaderMap::new();
    if let Some(bytes) = request.json_bytes {
        headers.insert(JSON_BYTES, bytes.into());
    }
    let (path, body) = (request.path(), request.body.into());
    doors.answer(Ask { method: &method, path: &path, headers: &headers, body: &body }).await
}

fn reply(id: Nonce, answer: Answer) -> Reply {
    let json_bytes = answer.headers.iter().find(|(name, _)| name == JSON_BYTES);
    let json_bytes = json_bytes.and_then(|(_, value)| value.to_str().ok()?.parse().ok());
    Reply { id, status: answer.status.as_u16(), version: answer.version, json_bytes, body: answer.body.to_vec() }
}

/// Calls that came before.
struct Calls {
    seen: VecDeque<Nonce>,
    room: Arc<tokio::sync::Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { seen: VecDeque::new(), room: Arc::new(tokio::sync::Semaphore::new(CALLS_MAX)) }
    }
}

impl Calls {
    fn is_new(&mut self, id: Nonce) -> bool {
        if checks::on(Check::CallOnce) && self.seen.contains(&id) {
            return false;
        }
        if self.seen.len() == CALLS_REMEMBERED_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_call_is_answered_once() {
        let mut calls = Calls::default();
        assert!(calls.is_new(Nonce([1; 16])));
        assert!(!calls.is_new(Nonce([1; 16])));
        for number in 0..CALLS_REMEMBERED_MAX as u64 + 5 {
            let mut id = [9; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            calls.is_new(Nonce(id));
        }
        assert_eq!(calls.seen.len(), CALLS_REMEMBERED_MAX);
    }
}
