//! The connection to the broker: rumqttc over TLS, one client per connection, so that nothing of a
//! broken session lives on. The truth is on disk and in the database; what is lost here is sent again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_agent_core::backoff::delay_ms;
use muster_shared::DeviceId;
use muster_shared::limits::MQTT_PACKET_BYTES_MAX;
use muster_shared::topic::{Leaf, Topic};
use muster_tls::Unsure;
use rumqttc::{
    AsyncClient, Event as MqttEvent, EventLoop, LastWill, MqttOptions, Packet, QoS, SubscribeFilter, TlsConfiguration,
    Transport,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

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
/// How long a connection may take to stand.
const CONNECT_TIMEOUT_SECONDS: u64 = 15;

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

/// How to connect; read anew for each connection, since the certificate changes.
pub struct Connect {
    /// The device.
    pub device: DeviceId,
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Makes the TLS side of a connection, and what tells how sure it was of the server.
    pub tls: Box<dyn Fn() -> anyhow::Result<(rustls::ClientConfig, Unsure)> + Send + Sync>,
}

impl Mqtt {
    /// Starts to connect, and goes on until `stop`. `incoming` hears what comes.
    pub fn start(connect: Connect, incoming: mpsc::Sender<Incoming>, stop: CancellationToken) -> Self {
        let (client, renewed) = Default::default();
        let incoming_bytes = Arc::new(Semaphore::new(INCOMING_BYTES_MAX));
        let mqtt = Self { device: connect.device.clone(), client, renewed, incoming_bytes };
        tokio::spawn(mqtt.clone().keep_connected(connect, incoming, stop));
        mqtt
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
        let mut attempt: u32 = 0;
        while !stop.is_cancelled() {
            let began = tokio::time::Instant::now();
            let stood = tokio::select! {
                () = stop.cancelled() => break,
                stood = self.one_connection(&connect, &incoming) => stood,
            };
            self.set_client(None);
            if stood && incoming.send(Incoming::Disconnected).await.is_err() {
                return;
            }
            // One that was cut at once, as by another agent with the same identity, is no reason to hurry.
            attempt = if stood && began.elapsed() >= STEADY { 0 } else { attempt.saturating_add(1) };
            let wait = Duration::from_millis(delay_ms(attempt, crate::outside::jitter()));
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.renewed.notified() => attempt = 0,
            }
        }
        self.set_client(None);
    }

    /// Whether it ever stood.
    async fn one_connection(&self, connect: &Connect, incoming: &mpsc::Sender<Incoming>) -> bool {
        let (tls, unsure) = match (connect.tls)() {
            Ok(made) => made,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot prepare the connection");
                return false;
            }
        };
        let (client, mut events) = self.client_for(connect, tls);
        self.set_client(Some(client.clone()));
        let mut stood = false;
        loop {
            match events.poll().await {
                Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                    let topics = Leaf::DOWN
                        .map(|leaf| SubscribeFilter::new(leaf.of(&connect.device).to_string(), QoS::AtLeastOnce));
                    if client.try_subscribe_many(topics).is_err() {
                        return stood;
                    }
                }
                Ok(MqttEvent::Incoming(Packet::SubAck(ack))) => {
                    if ack.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                        warn!("the broker does not let this device read its topics");
                    }
                    info!(broker = connect.host, port = connect.port, "connected");
                    stood = true;
                    let unsure = unsure.is_set();
                    if unsure {
                        warn!(
                            "the server's certificate is good at another time than this device's clock; until a \
                               director tells the time, nothing but signed documents is taken"
                        );
                    }
                    if incoming.send(Incoming::Connected { unsure }).await.is_err() {
                        return stood;
                    }
                }
                Ok(MqttEvent::Incoming(Packet::Publish(message))) => {
                    let topic = message.topic.parse::<Topic>().ok().filter(|topic| topic.device == connect.device);
                    let Some(topic) = topic else { continue };
                    // No packet is longer than the whole, and the semaphore is never closed.
                    let bytes = message.payload.len().min(INCOMING_BYTES_MAX) as u32;
                    let Ok(share) = self.incoming_bytes.clone().acquire_many_owned(bytes).await else { return stood };
                    let (leaf, payload) = (topic.leaf, message.payload.to_vec());
                    if incoming.send(Incoming::Message { leaf, payload, share }).await.is_err() {
                        return stood;
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    // The causes stand in each other's texts: the outermost one is enough.
                    warn!(%error, "the connection is gone");
                    if is_not_let_in(&error) {
                        warn!("the broker does not let this device in: it may be revoked or held; ask the operator");
                    }
                    let about_time = match tls_cause(&error) {
                        Some(rustls::Error::InvalidCertificate(why)) if is_of_time(why) => Incoming::ServerOutOfTime,
                        _ if refuses_certificate(&error) => Incoming::CertificateRefused,
                        _ => return stood,
                    };
                    // Where the loop is gone the next message finds that out.
                    let _ = incoming.send(about_time).await;
                    return stood;
                }
            }
        }
    }

    fn client_for(&self, connect: &Connect, tls: rustls::ClientConfig) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(connect.device.as_str(), &connect.host, connect.port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(MQTT_PACKET_BYTES_MAX, MQTT_PACKET_BYTES_MAX);
        let gone = Leaf::Gone.of(&connect.device).to_string();
        options.set_last_will(LastWill::new(gone, vec![], QoS::AtLeastOnce, false));
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        client(options, OUTGOING_MAX)
    }

    fn set_client(&self, client: Option<AsyncClient>) {
        *self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = client;
    }
}

/// Whether the broker knows who this is, and wants nothing of it.
fn is_not_let_in(error: &rumqttc::ConnectionError) -> bool {
    matches!(error, rumqttc::ConnectionError::ConnectionRefused(rumqttc::ConnectReturnCode::NotAuthorized))
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

/// Whether a connection ended because the other side does not take our certificate: expired, or not (or no
/// longer) one that it knows. A renewal may help.
fn refuses_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let ours =
        [BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA, UnsupportedCertificate];
    matches!(tls_cause(error), Some(rustls::Error::AlertReceived(alert)) if ours.contains(alert))
}

fn is_of_time(why: &rustls::CertificateError) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// The TLS error behind an error, if there is one.
pub fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        cause = match error.downcast_ref::<std::io::Error>() {
            // An I/O error hides the error that it is made of: its source is that one's source.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
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
    fn an_alert_about_our_certificate_is_told_from_other_ends() {
        use rustls::AlertDescription;
        let io = |error: rustls::Error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let alert = |alert| rustls::Error::AlertReceived(alert);
        for (error, expected) in [
            (io(alert(AlertDescription::CertificateExpired)), true),
            (io(alert(AlertDescription::UnknownCA)), true),
            (io(alert(AlertDescription::BadCertificate)), true),
            (io(alert(AlertDescription::InternalError)), false),
            (io(rustls::Error::DecryptError), false),
            (std::io::ErrorKind::ConnectionReset.into(), false),
        ] {
            let text = error.to_string();
            assert_eq!(refuses_certificate(&error), expected, "{text}");
            let nested = std::io::Error::other(error);
            assert_eq!(refuses_certificate(&rumqttc::ConnectionError::Io(nested)), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_split() {
        assert_eq!(host_and_port("plane:8883"), Some(("plane".into(), 8883)));
        assert_eq!(host_and_port("[::1]:8883"), Some(("::1".into(), 8883)));
        for bad in ["plane", ":8883", "plane:x", "plane:99999"] {
            assert_eq!(host_and_port(bad), None, "{bad}");
        }
    }
}
