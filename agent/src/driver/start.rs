//! Brings everything up, in the order in which one part needs another, and hands it to the loop.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use muster_agent_core::clock::Clock;
use muster_agent_core::reconcile::{Action, Agent, Event, Restored};
use muster_shared::id::{BootId, UnixMs};
use muster_shared::message::EventKind;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::leaving::Leaving;
use super::restore::{owner_limits, restore};
use super::{Calls, Driver, HELLO_EVERY};
use crate::config::Config;
use crate::departure;
use crate::doors::oip::OipDoor;
use crate::doors::{Doors, local_mqtt, server};
use crate::effects::Effects;
use crate::enrol::Reach;
use crate::facts::Machine;
use crate::facts::watch::Watch;
use crate::identity::{self, DeviceKey, Enrolment};
use crate::journal::Journal;
use crate::mqtt::{self, Connect, Mqtt};
use crate::network::line::Lines;
use crate::network::route::{Mode, Way};
use crate::outside::{Steady, Timekeeper, random};
use crate::release;
use crate::renewal::Renewal;
use crate::status::StatusKeeper;
use crate::store::Store;
use crate::table::Table;
use crate::telemetry::Telemetry;
use crate::trust_store::{Counter, Program, TrustStore};

/// Events that may wait for the loop.
const INBOX_MAX: usize = 1024;

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

/// Why it runs no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// It is in no fleet: it never was, or has left.
    InNoFleet,
}

/// Runs the agent until `stop`, or until it has left its fleet.
pub async fn run(options: Run, stop: CancellationToken) -> anyhow::Result<Ended> {
    let config = options.config;
    let emptied_before =
        departure::resume(&config.data).context("this device was leaving its fleet, and cannot go on with it")?;
    let Some(enrolment) = identity::enrolment(&config.data)? else {
        error!("this device is not enrolled; `muster-agent enrol --url … --claim … --data …` does it");
        return Ok(Ended::InNoFleet);
    };
    release::note_running(&config.data);
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
    let reach = Reach::new(enrolment.ca, config.network.clone(), &config.data)?;
    let lines = Arc::new(lines(&config, &enrolment, key.clone(), time.clone(), &reach)?);
    let status = start_status(&config, &lines, bound_ms);
    let mut machine = Machine::new(&config.data).context("cannot watch this machine")?;
    let counter = (!config.counter.is_empty()).then(|| Box::new(Program(config.counter.clone())) as Box<dyn Counter>);
    let trust = TrustStore::open(&config.data, counter);
    let restored = Restored {
        watermark_unknown: trust.unknown(),
        limits: owner_limits(&config, &mut machine),
        ..restore(&journal, &store, &key, &enrolment, (clock, trust.watermark().clone()))?
    };
    let to_loop = inbox.clone();
    let watermarks = trust
        // The loop is gone only when the whole process ends.
        .start(move |event| drop(to_loop.blocking_send(event)))
        .context("cannot start a thread that keeps the watermark")?;
    // Models start before networking: the connection is made only after the core has begun.
    let (agent, actions) = Agent::restored(restored, time.steady_ms());
    let connect = Connect {
        lines: lines.clone(),
        mode: config.network.tunnel,
        try_direct_every: config.network.try_direct_every,
        data: config.data.clone(),
        status: status.clone(),
    };
    let (mqtt, connecting) = Mqtt::start(connect, incoming_sender, stop.child_token());
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
    let identity = (key.clone(), config.data.clone());
    let renewal = Renewal::new(enrolment.clone(), identity, time.clone(), mqtt, (lines, reach));
    let mut driver = Driver {
        agent,
        time,
        bound_kept_ms: bound_ms,
        unsure: false,
        status,
        renewal,
        effects,
        machine,
        strained: Watch::default(),
        telemetry,
        doors,
        config,
        enrolment,
        key,
        boot,
        reports: 0,
        calls: Calls::default(),
        commands: Calls::default(),
        emptied_before,
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
    driver.pump(events, &mut incoming, stop.clone()).await;
    let leaves = driver.leaving.take();
    let ended = if leaves.is_some() { Ended::InNoFleet } else { Ended::Stopped };
    if let Some(Leaving::Told(told)) = leaves {
        driver.leave(told, &mut incoming).await?;
    }
    stop.cancel();
    // It notes that the agent does not run any more.
    let _ = timeout(Duration::from_secs(1), connecting).await;
    // Doors finish what they have, within a bound.
    let _ = timeout(Duration::from_secs(2), open).await;
    if ended == Ended::InNoFleet {
        let data = driver.config.data.clone();
        // Whatever writes there has ended by now, or has nothing more to write.
        drop((driver, incoming));
        departure::finish(&data).context("cannot remove this device's key")?;
        info!("this device has left its fleet; `muster-agent enrol` with a new claim takes it into one again");
    }
    Ok(ended)
}

fn open_store(data: &Path, inbox: mpsc::Sender<Event>) -> anyhow::Result<Store> {
    let tell = move |event| {
        // The loop is gone only when the whole process ends.
        let _ = inbox.blocking_send(event);
    };
    Store::open(data, tell).with_context(|| format!("cannot open the store below {}", data.display()))
}

fn lines(
    config: &Config,
    enrolment: &Enrolment,
    key: Arc<DeviceKey>,
    time: Timekeeper,
    reach: &Reach,
) -> anyhow::Result<Lines> {
    let broker = enrolment.mqtt.parse().context("the broker's address cannot be used; enrol again")?;
    let tunnel = enrolment.tunnel.as_deref().map(str::parse).transpose();
    let tunnel = tunnel.context("the address of the listener for devices cannot be used; enrol again")?;
    Ok(Lines {
        device: enrolment.device.clone(),
        broker,
        tunnel: Mutex::new(tunnel),
        connector: reach.connector.clone(),
        proxy: config.network.proxy.clone(),
        key,
        data: config.data.clone(),
        time,
    })
}

fn start_status(config: &Config, lines: &Lines, bound_ms: UnixMs) -> StatusKeeper {
    let first = if config.network.tunnel == Mode::Always { Way::Tunnel } else { Way::Direct };
    StatusKeeper::start(&config.data, config.led.clone(), lines.leads(first), lines.time.wall_ms(), bound_ms)
}
