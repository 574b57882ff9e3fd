//! The embedded MQTT 3.1.1 broker: what a control plane uses unless its owner runs Mosquitto.
//!
//! Devices talk only with the control plane, never with each other. So the parts of `mqtt5` in use
//! are its packet handling, its subscriptions and its delivery; who connects, what becomes of a
//! publish, and when a session ends are decided here:
//! - `accept`: the listener, TLS, and whose certificate it is;
//! - `carry`: a connection that came another way, and whose it was proven to be;
//! - `session`: one connection from CONNECT to its last event.
//!
//! Nothing is stored: no session, no retained message, no queue for a device that is away.

mod accept;
mod carry;
mod session;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mqtt5::broker::BrokerConfig;
use mqtt5::broker::resource_monitor::{ResourceLimits, ResourceMonitor};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::QueueLimits;
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::packet::publish::PublishPacket;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use accept::identity;
pub use carry::{Carried, CarryError, Proven};
use session::Link;

/// Largest packet either way. The largest payload of the protocol is a prediction of 256 KiB.
pub const PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Messages on their way to one device, for each quality of service. At QoS 0 the newest gives way,
/// silently: whoever sends chunks keeps its window below this.
pub const CHANNEL_MESSAGES_MAX: usize = 128;

/// QoS 1 messages that a device may leave unacknowledged before the rest waits.
const UNACKNOWLEDGED_MAX: u16 = 64;

/// QoS 1 messages behind a full channel. The oldest gives way, since each exchange is repeated with
/// newer content.
const OVERFLOW: QueueLimits = QueueLimits { max_messages: 64, max_bytes: 4 * PACKET_BYTES_MAX };

/// Topics one device may be subscribed to; it has six, and one for each instance that answers calls.
const SUBSCRIPTIONS_MAX: usize = 128;

/// No retained message is ever stored, but to `mqtt5` zero would mean "without limit".
const RETAINED_MAX: usize = 1;

/// Connections past TLS; a newcomer gives way. Each takes two file descriptors and about 40 KiB.
const SESSIONS_MAX: usize = 16_384;

/// Room for a PUBLISH packet's fixed header, the length of its topic and its packet id.
const PUBLISH_HEADER_BYTES: usize = 9;

/// Who may do what; the answers come from the database's in-memory view.
pub trait Access: Send + Sync + 'static {
    /// Whether `name` is a device whose enrolled, unrevoked key has this fingerprint: the SHA-256 of
    /// the certificate's SubjectPublicKeyInfo in DER.
    fn admit(&self, name: &str, fingerprint: [u8; 32]) -> bool;

    /// A holder of a certificate of ours was not admitted: its name, and the SubjectPublicKeyInfo.
    fn turned_away(&self, _name: &str, _spki: &[u8]) {}

    /// Whether the device may publish to this topic, also as its last will.
    fn may_publish(&self, device: &str, topic: &str) -> bool;

    /// Whether the device may subscribe to this topic. Filters with wildcards are refused unasked.
    /// Let nobody subscribe to a topic that a device publishes to: `mqtt5` routes last wills.
    fn may_subscribe(&self, device: &str, filter: &str) -> bool;
}

/// What devices do. Of one device the events are in order: a session's `Connected`, its messages,
/// its `Disconnected`, and only then the next session's `Connected`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerEvent {
    /// A session began: the device was admitted and told so.
    Connected {
        /// The device's name.
        device: String,
    },
    /// That session is over, however it ended.
    Disconnected {
        /// The device's name.
        device: String,
    },
    /// The device published, or its last will came due because its session ended by itself.
    Message {
        /// Who published it, by certificate.
        device: String,
        /// Where to; the device may publish there.
        topic: String,
        /// What, at most [`PACKET_BYTES_MAX`].
        payload: Bytes,
    },
}

/// How hard the broker tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QoS {
    /// Sent once, dropped where there is no room: for what is asked for again.
    AtMostOnce,
    /// Repeated until acknowledged, as long as the session lasts.
    AtLeastOnce,
}

/// What the broker could not do.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The listener has no address.
    #[error("cannot read the address the broker listens on")]
    Listener(#[source] io::Error),
    /// Not a topic that a message can be published to.
    #[error("cannot publish to {topic:?}, which is no topic name")]
    Topic {
        /// What was given as the topic.
        topic: String,
    },
    /// Too much for one packet.
    #[error("cannot publish {bytes} bytes to {topic}, more than a packet of {PACKET_BYTES_MAX} bytes holds")]
    TooLarge {
        /// Where it was to go.
        topic: String,
        /// How much it was.
        bytes: usize,
    },
}

/// The running broker. It runs until the `stop` token given to [`EmbeddedBroker::start`] is
/// cancelled, not until this handle is dropped.
pub struct EmbeddedBroker {
    hub: Arc<Hub>,
    address: SocketAddr,
}

impl EmbeddedBroker {
    /// Starts to accept devices on `listener`. `tls` has to demand client certificates. `events` is
    /// waited for when full, and with it the devices that have something to say.
    pub async fn start(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        access: Arc<dyn Access>,
        events: mpsc::Sender<BrokerEvent>,
        stop: CancellationToken,
    ) -> Result<Self, BrokerError> {
        let address = listener.local_addr().map_err(BrokerError::Listener)?;
        let hub = Arc::new(Hub::new(access, events, stop));
        hub.tasks.spawn(accept::accept_devices(listener, tls, Arc::clone(&hub)));
        hub.tasks.close();
        Ok(Self { hub, address })
    }

    /// Sends a message to the devices subscribed to `topic`, if any: nothing waits for a device that
    /// is away. Returns once it is queued; a slow device holds nobody up.
    pub async fn publish(&self, topic: &str, payload: Bytes, qos: QoS) -> Result<(), BrokerError> {
        if mqtt5::validate_topic_name(topic).is_err() {
            return Err(BrokerError::Topic { topic: topic.to_owned() });
        }
        if PUBLISH_HEADER_BYTES + topic.len() + payload.len() > PACKET_BYTES_MAX {
            return Err(BrokerError::TooLarge { topic: topic.to_owned(), bytes: payload.len() });
        }
        let qos = match qos {
            QoS::AtMostOnce => mqtt5::QoS::AtMostOnce,
            QoS::AtLeastOnce => mqtt5::QoS::AtLeastOnce,
        };
        let packet = PublishPacket::new(topic, payload, qos);
        // A deadline that is now: what finds its channel full goes to that device's overflow.
        self.hub.router.route_message_with_deadline(&packet, None, Instant::now()).await;
        Ok(())
    }

    /// Ends the device's session at once: when this returns its socket is shut, and at most one message
    /// that was on its way through is still reported. [`BrokerEvent::Disconnected`] follows. The device
    /// may connect again if [`Access::admit`] lets it: so first revoke, then call this.
    pub fn disconnect(&self, device: &str) {
        if let Some(link) = self.hub.sessions().get(device) {
            link.cut();
        }
    }

    /// Whether the device has a session: `Connected` was reported, and nothing has ended it.
    pub fn is_connected(&self, device: &str) -> bool {
        self.hub.sessions().get(device).is_some_and(|link| link.is_up())
    }

    /// Where the broker listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the listener is closed and the last session has ended, after `stop` was cancelled.
    pub async fn closed(&self) {
        self.hub.tasks.wait().await;
    }
}

/// What all sessions share.
struct Hub {
    access: Arc<dyn Access>,
    events: mpsc::Sender<BrokerEvent>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// What is left of [`SESSIONS_MAX`].
    room: Arc<Semaphore>,
    /// The session of each device. Only the session that put an entry here removes it, at its end;
    /// until then a successor waits. So `mqtt5` never sees two sessions of one device.
    sessions: Mutex<HashMap<String, Arc<Link>>>,
    router: Arc<MessageRouter>,
    stats: Arc<BrokerStats>,
    monitor: Arc<ResourceMonitor>,
    /// Handlers take a dropped sender for a shutdown.
    shutdown: broadcast::Sender<()>,
}

impl Hub {
    fn new(access: Arc<dyn Access>, events: mpsc::Sender<BrokerEvent>, stop: CancellationToken) -> Self {
        let router =
            MessageRouter::new().with_fallback_queue_limits(OVERFLOW).with_retained_limits(RETAINED_MAX, RETAINED_MAX);
        // Devices are slowed down by waiting for `events`; `mqtt5` would drop their messages.
        let limits =
            ResourceLimits { max_message_rate_per_client: 0, max_bandwidth_per_client: 0, ..ResourceLimits::default() };
        Self {
            access,
            events,
            stop,
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(SESSIONS_MAX)),
            sessions: Mutex::default(),
            router: Arc::new(router),
            stats: Arc::new(BrokerStats::new()),
            monitor: Arc::new(ResourceMonitor::new(limits)),
            shutdown: broadcast::channel(1).0,
        }
    }

    /// The map is whole after every statement, so a panic elsewhere does not spoil it.
    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Arc<Link>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the end of a session, with patience while the broker runs; when it stops, the reader
    /// of the events may be gone, and what does not fit is dropped.
    async fn report(&self, event: BrokerEvent) {
        tokio::select! {
            biased;
            permit = self.events.reserve() => if let Ok(permit) = permit { permit.send(event) },
            () = self.stop.cancelled() => tracing::debug!("dropped an event while stopping"),
        }
    }
}

/// The settings of `mqtt5` for every session.
fn settings() -> BrokerConfig {
    BrokerConfig {
        bind_addresses: Vec::new(),
        max_packet_size: PACKET_BYTES_MAX,
        maximum_qos: 1,
        retain_available: false,
        wildcard_subscription_available: false,
        subscription_identifier_available: false,
        shared_subscription_available: false,
        topic_alias_maximum: 0,
        max_subscriptions_per_client: SUBSCRIPTIONS_MAX,
        max_retained_messages: RETAINED_MAX,
        max_retained_message_size: RETAINED_MAX,
        client_channel_capacity: CHANNEL_MESSAGES_MAX,
        max_outbound_inflight: UNACKNOWLEDGED_MAX,
        sys_topics_enabled: false,
        ..BrokerConfig::default()
    }
}

#[cfg(test)]
mod tests;
