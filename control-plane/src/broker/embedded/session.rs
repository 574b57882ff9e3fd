//! One connection of a device, from its CONNECT to its last event.
//!
//! `mqtt5` asks a [`Session`] whether to let the device in, publish and subscribe, and hands it what
//! the device publishes; nothing goes from device to device.
//!
//! A second connection of a device takes over. It first ends the one before and waits until that one
//! is gone from the router and has reported its end: left to `mqtt5`, the old client would get a
//! packet that MQTT 3.1.1 does not know, its last will would say that the device is gone, and an old
//! peer that does not read would leave the new session without QoS 1 for 30 s.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::events::{
    BrokerEventHandler, ClientConnectEvent, ClientDisconnectEvent, ClientPublishEvent, PublishAction,
};
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{BrokerEvent, Hub, settings};

/// The protocol level of MQTT 3.1.1. Devices speak nothing else, so version 5 is only attack surface.
const PROTOCOL_3_1_1: u8 = 4;

/// How long `mqtt5` may clean up after its socket was shut, before its task is aborted.
const CLEAN_UP_TIME: Duration = Duration::from_secs(5);

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who is at the other end, by certificate or by another proof of the key.
pub(super) struct Peer {
    pub name: String,
    pub fingerprint: [u8; 32],
    pub spki: Vec<u8>,
    pub socket: std::net::TcpStream,
    /// Cancelled when the session is cut, and with the broker.
    pub cut: CancellationToken,
}

/// A second handle of the socket, to shut it while `mqtt5` owns the first.
pub(super) fn second_handle(tcp: &TcpStream) -> io::Result<std::net::TcpStream> {
    Ok(tcp.as_fd().try_clone_to_owned()?.into())
}

/// What others can do with a session: see whether it is up, cut it, wait for its end.
pub(super) struct Link {
    socket: std::net::TcpStream,
    announced: AtomicBool,
    /// Whether the session is to end, set before its socket is shut: tells a cut from a loss.
    doomed: AtomicBool,
    cut: CancellationToken,
    ended: CancellationToken,
}

impl Link {
    /// Ends the session. The socket is shut before anyone sees the token, so that no acknowledgement
    /// can leave for a message that is not passed on any more.
    pub(super) fn cut(&self) {
        self.doomed.store(true, Ordering::Release);
        // It fails if the peer is gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.cut.cancel();
    }

    pub(super) fn is_up(&self) -> bool {
        self.announced.load(Ordering::Acquire) && !self.is_doomed()
    }

    /// Whether the session was cut, or the broker stops.
    fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire) || self.cut.is_cancelled()
    }
}

/// What `mqtt5` consults about one connection.
struct Session {
    hub: Arc<Hub>,
    device: String,
    fingerprint: [u8; 32],
    spki: Vec<u8>,
    link: Arc<Link>,
    /// Whether this session stands in the hub's map.
    claimed: AtomicBool,
    /// Whether the device said goodbye, which discards its last will.
    clean: AtomicBool,
    /// Topic and payload of the last will.
    will: OnceLock<(String, Bytes)>,
}

/// Serves one connection until it ends.
pub(super) async fn run(hub: Arc<Hub>, peer: Peer, transport: BrokerTransport, address: SocketAddr) {
    let session = Arc::new(Session {
        device: peer.name,
        fingerprint: peer.fingerprint,
        spki: peer.spki,
        link: Arc::new(Link {
            socket: peer.socket,
            announced: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            cut: peer.cut,
            ended: CancellationToken::new(),
        }),
        claimed: AtomicBool::new(false),
        clean: AtomicBool::new(false),
        will: OnceLock::new(),
        hub,
    });
    // Events name the client, not the connection: so each connection has its own receiver of them.
    let config = settings().with_event_handler(Arc::clone(&session) as Arc<dyn BrokerEventHandler>);
    let handler = ClientHandler::new(
        transport,
        address,
        Arc::new(config),
        Arc::clone(&session.hub.router),
        Arc::clone(&session) as Arc<dyn AuthProvider>,
        None,
        Arc::clone(&session.hub.stats),
        Arc::clone(&session.hub.monitor),
        session.hub.shutdown.subscribe(),
    );
    // Its own task, so that a panic in it still ends the session in order.
    let mut handler = tokio::spawn(handler.run());
    let outcome = tokio::select! {
        outcome = &mut handler => Some(outcome),
        () = session.link.cut.cancelled() => {
            // When the broker stops nobody has shut the socket yet.
            session.link.cut();
            timeout(CLEAN_UP_TIME, &mut handler).await.ok()
        }
    };
    let device = &session.device;
    match outcome {
        Some(Ok(Ok(()))) => {}
        Some(Ok(Err(error))) => tracing::debug!(device, %address, %error, "session failed"),
        Some(Err(error)) => tracing::error!(device, %address, %error, "session crashed"),
        None => {
            tracing::error!(device, %address, "session did not end within {CLEAN_UP_TIME:?}");
            handler.abort();
            // Only for it to be gone; what became of it is known.
            let _ = handler.await;
        }
    }
    session.finish().await;
}

impl Session {
    /// Makes this the device's session, after the one before has ended.
    async fn claim(&self) -> Result<(), ReasonCode> {
        loop {
            let predecessor = {
                let mut sessions = self.hub.sessions();
                match sessions.get(&self.device) {
                    Some(link) => Arc::clone(link),
                    None => {
                        sessions.insert(self.device.clone(), Arc::clone(&self.link));
                        self.claimed.store(true, Ordering::Release);
                        return Ok(());
                    }
                }
            };
            tracing::info!(device = self.device, "a new connection takes over");
            predecessor.cut();
            tokio::select! {
                () = predecessor.ended.cancelled() => {}
                () = self.link.cut.cancelled() => return Err(ReasonCode::ServerUnavailable),
            }
        }
    }

    /// Whether to let the device in, and if so, as what.
    async fn admit(&self, connect: &ConnectPacket) -> Result<(), ReasonCode> {
        if connect.protocol_version != PROTOCOL_3_1_1 {
            return Err(ReasonCode::UnsupportedProtocolVersion);
        }
        let access = &self.hub.access;
        if connect.client_id != self.device {
            return Err(ReasonCode::NotAuthorized);
        }
        if !access.admit(&self.device, self.fingerprint) {
            access.turned_away(&self.device, &self.spki);
            return Err(ReasonCode::NotAuthorized);
        }
        if let Some(will) = &connect.will {
            if !access.may_publish(&self.device, &will.topic) {
                return Err(ReasonCode::NotAuthorized);
            }
            let will = (will.topic.clone(), Bytes::copy_from_slice(&will.payload));
            self.will.set(will).map_err(|_| ReasonCode::ProtocolError)?;
        }
        self.claim().await?;
        // Again: whoever was revoked while it waited was not in the map to be disconnected.
        if !access.admit(&self.device, self.fingerprint) {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(())
    }

    /// Waits until there is room for an event. There is none any more once the session is cut.
    async fn room(&self) -> Option<mpsc::Permit<'_, BrokerEvent>> {
        let room = tokio::select! {
            biased;
            () = self.link.cut.cancelled() => None,
            room = self.hub.events.reserve() => room.ok(),
        };
        if room.is_none() {
            // If the broker stops or nobody reads events any more, the socket is still open: shut it
            // before `mqtt5` can acknowledge what is not passed on.
            self.link.cut();
        }
        room
    }

    /// Reports the end, and makes way for the device's next session.
    async fn finish(&self) {
        // The will is for the plane to learn that a device is lost. If the session was cut it knows,
        // or the device is back already.
        let lost = !self.link.is_doomed() && !self.clean.load(Ordering::Acquire);
        self.link.cut();
        if self.link.announced.load(Ordering::Acquire) {
            let device = self.device.clone();
            if let Some((topic, payload)) = self.will.get().filter(|_| lost)
                && self.hub.access.may_publish(&device, topic)
            {
                let (topic, payload) = (topic.clone(), payload.clone());
                let device = device.clone();
                self.hub.report(BrokerEvent::Message { device, topic, payload }).await;
            }
            self.hub.report(BrokerEvent::Disconnected { device }).await;
        }
        if self.claimed.load(Ordering::Acquire) {
            // It did so itself, unless it was aborted or crashed.
            self.hub.router.unregister_client(&self.device).await;
            self.hub.sessions().remove(&self.device);
        }
        self.link.ended.cancel();
    }
}

impl AuthProvider for Session {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        address: SocketAddr,
    ) -> Answer<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move {
            Ok(match self.admit(connect).await {
                Ok(()) => AuthResult::success(),
                Err(reason) => {
                    let (device, id) = (&self.device, &connect.client_id);
                    tracing::warn!(device, %address, client_id = id, ?reason, "device not admitted");
                    AuthResult::fail(reason)
                }
            })
        })
    }

    fn authorize_publish<'a>(
        &'a self,
        _client_id: &str,
        _user_id: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        Box::pin(async move { self.hub.access.may_publish(&self.device, topic) })
    }

    /// Wildcards are refused for the cost they put on every message; a device knows its topics.
    fn authorize_subscribe<'a>(
        &'a self,
        _client_id: &str,
        _user_id: Option<&'a str>,
        filter: &'a str,
    ) -> Answer<'a, bool> {
        let exact = !filter.contains(['+', '#']) && !filter.starts_with('$');
        Box::pin(async move { exact && self.hub.access.may_subscribe(&self.device, filter) })
    }
}

impl BrokerEventHandler for Session {
    fn on_client_connect<'a>(&'a self, _: ClientConnectEvent) -> Answer<'a, ()> {
        Box::pin(async move {
            if let Some(room) = self.room().await {
                self.link.announced.store(true, Ordering::Release);
                room.send(BrokerEvent::Connected { device: self.device.clone() });
            }
        })
    }

    /// Comes after [`AuthProvider::authorize_publish`] said yes, and before the acknowledgement.
    fn on_client_publish<'a>(&'a self, publish: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            if let Some(room) = self.room().await {
                let (device, topic) = (self.device.clone(), publish.topic.as_ref().to_owned());
                room.send(BrokerEvent::Message { device, topic, payload: publish.payload });
            }
            PublishAction::Handled
        })
    }

    fn on_client_disconnect<'a>(&'a self, event: ClientDisconnectEvent) -> Answer<'a, ()> {
        self.clean.store(!event.unexpected, Ordering::Release);
        Box::pin(std::future::ready(()))
    }
}
