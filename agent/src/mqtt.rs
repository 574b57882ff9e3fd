//! The connection to the broker: rumqttc over a line that [`crate::network`] opens, one client per connection, so
//! that nothing of a broken session lives on. The truth is on disk and in the database; what is lost here is sent
//! again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_agent_core::backoff::delay_ms;
use muster_shared::DeviceId;
use muster_shared::limits::MQTT_PACKET_BYTES_MAX;
use muster_shared::topic::{Leaf, Topic};
use rumqttc::{
    AsyncClient, Event as MqttEvent, EventLoop, LastWill, MqttOptions, Packet, QoS, SubscribeFilter, Transport,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::network::fault::{Cause, Fault};
use crate::network::line::{Line, Lines};
use crate::network::local::LocalEnd;
use crate::network::route::{Event, Mode, Reason, Route, Wait, Way};
use crate::status::{self, State, StatusKeeper};

/// How often the broker hears from an idle device, at least.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Messages that wait to be sent; more are dropped, and sent again by those who made them.
const OUTGOING_MAX: usize = 256;
/// Messages that wait to be dealt with; more wait at the broker.
pub const INCOMING_MAX: usize = 1024;
/// Bytes of messages that wait to be dealt with, whatever a broker sends.
const INCOMING_BYTES_MAX: usize = 4 * MQTT_PACKET_BYTES_MAX;
/// A connection that stood for so long was a good one.
const STEADY: Duration = Duration::from_secs(5);
/// How long a connection may take to stand, once there is a line.
const CONNECT_TIMEOUT_SECONDS: u64 = 15;
/// How long the line may take to say why it ended.
const LAST_WORD_TIME: Duration = Duration::from_secs(1);

/// What the connection brings.
#[derive(Debug)]
pub enum Incoming {
    /// It stands, and the device's topics are subscribed. Unsure: the server's certificate was judged at a
    /// time that may be wrong.
    Connected {
        /// Whether it was.
        unsure: bool,
    },
    /// The broker does not take this device's certificate.
    CertificateRefused,
    /// It knows this device's key, and does not let it in.
    NotLetIn,
    /// The broker's certificate is not good at this time.
    ServerOutOfTime,
    /// It is gone.
    Disconnected,
    /// A message came.
    Message {
        /// What it is about.
        leaf: Leaf,
        /// What it says.
        payload: Vec<u8>,
        /// Its share of [`INCOMING_BYTES_MAX`], until it was dealt with.
        share: OwnedSemaphorePermit,
    },
}

/// Where messages go out. While there is no connection they are dropped.
#[derive(Debug, Clone)]
pub struct Mqtt {
    device: DeviceId,
    client: Arc<Mutex<Option<AsyncClient>>>,
    /// A certificate is new: what waits before the next attempt waits no longer.
    renewed: Arc<Notify>,
    incoming_bytes: Arc<Semaphore>,
}

/// How to connect.
pub struct Connect {
    /// Opens lines to the broker; the certificate is read anew for each.
    pub lines: Arc<Lines>,
    /// Which ways may be taken.
    pub mode: Mode,
    /// How often the direct way is tried while the tunnel stands.
    pub try_direct_every: Duration,
    /// Where the local end lies.
    pub data: PathBuf,
    /// Shows how the connection stands.
    pub status: StatusKeeper,
}

/// How an attempt to be connected went.
#[derive(Default)]
struct Attempt {
    /// Whether it ever stood.
    stood: bool,
    /// Whether it stood for long enough to be a good one.
    steady: bool,
    /// Why it ended.
    fault: Option<Fault>,
    /// Whether it was ended since the direct way is open again.
    direct_is_open: bool,
}

impl Mqtt {
    /// Starts to connect, and goes on until `stop`. `incoming` hears what comes.
    pub fn start(
        connect: Connect,
        incoming: mpsc::Sender<Incoming>,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (client, renewed) = Default::default();
        let incoming_bytes = Arc::new(Semaphore::new(INCOMING_BYTES_MAX));
        let mqtt = Self { device: connect.lines.device.clone(), client, renewed, incoming_bytes };
        let connecting = tokio::spawn(mqtt.clone().keep_connected(connect, incoming, stop));
        (mqtt, connecting)
    }

    /// Sends, or drops where there is no connection or too much waits.
    pub fn send(&self, leaf: Leaf, qos: QoS, payload: Vec<u8>) {
        let topic = leaf.of(&self.device).to_string();
        let client = self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(client) = client
            && client.try_publish(&topic, qos, false, payload).is_err()
        {
            debug!(topic, "a message was dropped: too much waits to be sent");
        }
    }

    /// Ends the connection; a new one follows at once, with the newest certificate.
    pub fn reconnect(&self) {
        self.renewed.notify_one();
        let client = self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(client) = client {
            // Full or gone: the connection ends by itself soon enough.
            let _ = client.try_disconnect();
        }
    }

    async fn keep_connected(self, connect: Connect, incoming: mpsc::Sender<Incoming>, stop: CancellationToken) {
        let mut route = Route::new(connect.mode);
        // What failed on the way before, in the same round.
        let mut earlier: Option<Fault> = None;
        while !stop.is_cancelled() {
            let has_tunnel = connect.lines.tunnel().is_some();
            let (way, reason) = route.next(has_tunnel);
            let attempt = tokio::select! {
                () = stop.cancelled() => break,
                attempt = self.attempt(&connect, (&route, way, reason), &incoming, earlier.as_ref()) => attempt,
            };
            self.set_client(None);
            if attempt.stood && incoming.send(Incoming::Disconnected).await.is_err() {
                return;
            }
            let wait;
            (route, wait) = after(route, way, &attempt, has_tunnel);
            if let Some(fault) = attempt.fault {
                warn!(error = fault.text, "the connection is gone");
                let told = match fault.cause {
                    Cause::ServerTime => Some(Incoming::ServerOutOfTime),
                    Cause::Certificate => Some(Incoming::CertificateRefused),
                    Cause::NotLetIn => Some(Incoming::NotLetIn),
                    _ => None,
                };
                if let Some(told) = told {
                    // Where the loop is gone the next message finds that out.
                    let _ = incoming.send(told).await;
                }
                match wait {
                    Wait::No => earlier = Some(fault),
                    Wait::Attempt(_) => connect.shows(way, &fault, earlier.take()),
                }
            }
            let Wait::Attempt(number) = wait else { continue };
            let wait = Duration::from_millis(delay_ms(number, crate::outside::jitter()));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.renewed.notified() => route = route.afresh(),
            }
        }
        self.set_client(None);
        connect.change(|status| {
            status.state = State::Offline;
            status.error = Some("the agent does not run".to_owned());
            status.error_kind = None;
        });
    }

    async fn attempt(
        &self,
        connect: &Connect,
        (route, way, reason): (&Route, Way, Reason),
        incoming: &mpsc::Sender<Incoming>,
        earlier: Option<&Fault>,
    ) -> Attempt {
        connect.begins(way);
        let line = connect.lines.open(way, &|addresses| connect.tries(addresses)).await;
        let (line, local) = match line.and_then(|line| Ok((line, connect.local_end()?))) {
            Ok(opened) => opened,
            Err(fault) => return Attempt { fault: Some(fault), ..Attempt::default() },
        };
        let (unsure, via) = (line.unsure, line.via);
        let (client, mut events) = self.client_for(local.path());
        self.set_client(Some(client.clone()));
        let carried = Arc::new(AtomicBool::new(false));
        let mut carrying = carry(line, local, carried.clone());
        let (mut attempt, mut probe, mut began) = (Attempt::default(), None, None);
        let direct_is_open = Arc::new(AtomicBool::new(false));
        let error = loop {
            match events.poll().await {
                Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                    if !carried.load(Ordering::Acquire) {
                        // Whoever speaks there is not our line.
                        let text = "something else than this agent answers at the local end of the connection";
                        attempt.fault = Some(Fault::new(Cause::Refused, text));
                        return attempt;
                    }
                    let topics = Leaf::DOWN
                        .map(|leaf| SubscribeFilter::new(leaf.of(&self.device).to_string(), QoS::AtLeastOnce));
                    if client.try_subscribe_many(topics).is_err() {
                        return attempt;
                    }
                }
                Ok(MqttEvent::Incoming(Packet::SubAck(ack))) => {
                    if ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                        warn!("the broker does not let this device read its topics");
                    }
                    attempt.stood = true;
                    began = Some(tokio::time::Instant::now());
                    let (_, broker) = connect.lines.leads(way);
                    info!(
                        broker,
                        ?via,
                        reason = reason.text(),
                        blocked = earlier.map(|fault| &fault.text),
                        "connected"
                    );
                    if unsure {
                        warn!(
                            "the server's certificate is good at another time than this device's clock; until a \
                             director tells the time, nothing but signed documents is taken"
                        );
                    }
                    connect.stands(way, via, unsure);
                    probe = route
                        .try_direct_after(way, connect.try_direct_every)
                        .map(|every| look_for_direct(&connect.lines, every, client.clone(), direct_is_open.clone()));
                    if incoming.send(Incoming::Connected { unsure }).await.is_err() {
                        return attempt;
                    }
                }
                Ok(MqttEvent::Incoming(Packet::Publish(message))) => {
                    let topic = message.topic.parse::<Topic>().ok().filter(|topic| topic.device == self.device);
                    let Some(topic) = topic else { continue };
                    // No packet is longer than the whole, and the semaphore is never closed.
                    let bytes = message.payload.len().min(INCOMING_BYTES_MAX) as u32;
                    let Ok(share) = self.incoming_bytes.clone().acquire_many_owned(bytes).await else { return attempt };
                    let (leaf, payload) = (topic.leaf, message.payload.to_vec());
                    if incoming.send(Incoming::Message { leaf, payload, share }).await.is_err() {
                        return attempt;
                    }
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        drop((events, probe));
        attempt.steady = began.is_some_and(|began| began.elapsed() >= STEADY);
        attempt.direct_is_open = direct_is_open.load(Ordering::Acquire);
        // Why the client's end closed, the far end knows best.
        let ended = tokio::time::timeout(LAST_WORD_TIME, &mut carrying).await.ok().and_then(Result::ok);
        attempt.fault = Some(match (not_let_in(&error), ended) {
            (Some(fault), _) | (None, Some(Err(fault))) => fault,
            (None, _) => Fault::new(Cause::Refused, error.to_string()),
        });
        attempt
    }

    fn client_for(&self, local: &str) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(self.device.as_str(), local, 0);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(MQTT_PACKET_BYTES_MAX, MQTT_PACKET_BYTES_MAX);
        let gone = Leaf::Gone.of(&self.device).to_string();
        options.set_last_will(LastWill::new(gone, vec![], QoS::AtLeastOnce, false));
        options.set_transport(Transport::Unix);
        client(options, OUTGOING_MAX)
    }

    fn set_client(&self, client: Option<AsyncClient>) {
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = client;
    }
}

/// What follows from an attempt.
fn after(route: Route, way: Way, attempt: &Attempt, has_tunnel: bool) -> (Route, Wait) {
    if !attempt.stood {
        let cause = attempt.fault.as_ref().map_or(Cause::Refused, |fault| fault.cause);
        return route.step(way, Event::Failed(cause), has_tunnel);
    }
    let (route, _) = route.step(way, Event::Stood, has_tunnel);
    match attempt.direct_is_open {
        true => route.step(way, Event::DirectIsOpen, has_tunnel),
        false => route.step(way, Event::Ended { steady: attempt.steady }, has_tunnel),
    }
}

/// Carries the line's bytes beside the client. `carried`: our own client has connected to the local end.
fn carry(line: Line, local: LocalEnd, carried: Arc<AtomicBool>) -> AbortOnDropHandle<Result<(), Fault>> {
    AbortOnDropHandle::new(tokio::spawn(line.carry(local, move || carried.store(true, Ordering::Release))))
}

/// Tries the direct way now and then while the tunnel stands; where it is open, the session ends for it.
fn look_for_direct(
    lines: &Arc<Lines>,
    every: Duration,
    client: AsyncClient,
    open: Arc<AtomicBool>,
) -> AbortOnDropHandle<()> {
    let lines = lines.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(every.mul_f64(0.75 + crate::outside::jitter() / 2.0)).await;
            match lines.open(Way::Direct, &|_| {}).await {
                Ok(_) => break,
                Err(fault) => debug!(error = fault.text, "the direct way is still blocked"),
            }
        }
        open.store(true, Ordering::Release);
        // Full or gone: the session ends by itself soon enough.
        let _ = client.try_disconnect();
    }))
}

impl Connect {
    fn local_end(&self) -> Result<LocalEnd, Fault> {
        let doing = |error: std::io::Error| {
            let folder = self.data.display();
            Fault::new(Cause::Refused, format!("cannot make the local end of the connection below {folder}: {error}"))
        };
        LocalEnd::open(&self.data).map_err(doing)
    }

    fn change(&self, change: impl FnOnce(&mut status::Status)) {
        self.status.change(self.lines.time.wall_ms(), change);
    }

    /// An attempt begins. One that follows a failure is shown only by what comes of it.
    fn begins(&self, way: Way) {
        let (via, broker) = self.lines.leads(way);
        self.change(|status| {
            if matches!(status.state, State::Starting | State::Resolving | State::Connecting) {
                (status.state, status.via, status.broker) = (State::Resolving, via, broker);
            }
        });
    }

    fn tries(&self, addresses: &[SocketAddr]) {
        self.change(|status| {
            status.addresses = addresses.iter().map(ToString::to_string).collect();
            if status.state == State::Resolving {
                status.state = State::Connecting;
            }
        });
    }

    fn stands(&self, way: Way, via: status::Via, unsure: bool) {
        let (_, broker) = self.lines.leads(way);
        let known = self.lines.time.known();
        self.change(|status| {
            let state = if unsure && !known.confirmed { State::TlsTime } else { State::Connected };
            (status.state, status.via, status.broker) = (state, via, broker);
            (status.error, status.error_kind) = (None, None);
            if state == State::TlsTime {
                let text = "the server's certificate is not good by this device's clock; a director will tell the time";
                status::note(status, status::ErrorKind::Time, text);
            }
        });
    }

    /// An attempt failed, after another way did, or a connection ended.
    fn shows(&self, way: Way, fault: &Fault, earlier: Option<Fault>) {
        let (via, broker) = self.lines.leads(way);
        self.change(|status| {
            status.state = match fault.cause {
                Cause::NotLetIn => State::Held,
                Cause::ServerTime => State::TlsTime,
                _ => State::Offline,
            };
            (status.via, status.broker) = (via, broker);
            let text = match earlier {
                Some(earlier) => format!("directly: {earlier}; through the tunnel: {fault}"),
                None => fault.text.clone(),
            };
            status::note(status, fault.cause.kind(), &text);
        });
    }
}

/// Whether the broker knows who this is, and wants nothing of it.
fn not_let_in(error: &rumqttc::ConnectionError) -> Option<Fault> {
    let refused = rumqttc::ConnectReturnCode::NotAuthorized;
    matches!(error, rumqttc::ConnectionError::ConnectionRefused(code) if *code == refused).then(|| {
        let text = "the broker does not let this device in: it may be revoked or held; ask the operator";
        Fault::new(Cause::NotLetIn, text)
    })
}

/// A client for one connection, with its end of it, that so many messages may wait in.
pub fn client(options: MqttOptions, outgoing_max: usize) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, outgoing_max);
    let mut network = events.network_options();
    network.set_connection_timeout(CONNECT_TIMEOUT_SECONDS);
    // A prediction is a small message each way: held back for an acknowledgement it takes 40 ms.
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

/// Splits `host:port`, brackets of an IPv6 address removed.
pub fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        assert_eq!(host_and_port("plane:8883"), Some(("plane".into(), 8883)));
        assert_eq!(host_and_port("[::1]:8883"), Some(("::1".into(), 8883)));
        for bad in ["plane", ":8883", "plane:x", "plane:99999"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
