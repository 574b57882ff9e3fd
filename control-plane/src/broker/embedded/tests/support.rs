//! A certificate authority, a broker under test, and devices.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rumqttc::{
    AsyncClient, ConnectionError, Event, LastWill, MqttOptions, Packet, Publish, SubAck, TlsConfiguration, Transport,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::embedded::{Access, BrokerEvent, EmbeddedBroker, PACKET_BYTES_MAX};

/// What takes longer is taken for broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for what has to happen.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("in time")
}

/// A topic of a device.
pub fn topic(device: &str, name: &str) -> String {
    format!("muster/v1/{device}/{name}")
}

/// A key with its certificate.
#[derive(Clone)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    fingerprint: [u8; 32],
}

impl Identity {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
            fingerprint: Sha256::digest(key.subject_public_key_info()).into(),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// Devices read and write below their own name: they read `desired`, `down` and `both`, they write
/// `both` and all else.
#[derive(Default)]
struct Fleet(Mutex<HashMap<String, HashSet<[u8; 32]>>>);

fn below<'t>(device: &str, topic: &'t str) -> Option<&'t str> {
    topic.strip_prefix("muster/v1/")?.strip_prefix(device)?.strip_prefix('/')
}

impl Access for Fleet {
    fn admit(&self, name: &str, fingerprint: [u8; 32]) -> bool {
        self.0.lock().unwrap().get(name).is_some_and(|keys| keys.contains(&fingerprint))
    }

    fn may_publish(&self, device: &str, topic: &str) -> bool {
        below(device, topic).is_some_and(|name| !matches!(name, "desired" | "down"))
    }

    fn may_subscribe(&self, device: &str, filter: &str) -> bool {
        // Wildcards pass here on purpose: refusing them is the broker's own rule.
        filter.contains(['#', '+', '$'])
            || below(device, filter).is_some_and(|name| matches!(name, "desired" | "down" | "both"))
    }
}

/// A broker, its certificate authority, and what it reports.
pub struct Bench {
    pub broker: Arc<EmbeddedBroker>,
    pub events: mpsc::Receiver<BrokerEvent>,
    pub stop: CancellationToken,
    authority: Authority,
    fleet: Arc<Fleet>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with_room_for(1024).await
    }

    /// A broker whose events wait from the given number on.
    pub async fn with_room_for(events: usize) -> Self {
        let authority = Authority::new();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), Arc::clone(&provider));
        let server = authority.issue("control plane");
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(server.chain.clone(), server.key())
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let fleet = Arc::new(Fleet::default());
        let stop = CancellationToken::new();
        let (sender, events) = mpsc::channel(events);
        let access = Arc::clone(&fleet) as Arc<dyn Access>;
        let broker = EmbeddedBroker::start(listener, Arc::new(tls), access, sender, stop.clone()).await;
        Self { broker: Arc::new(broker.unwrap()), events, stop, authority, fleet }
    }

    /// A key that the authority certified, enrolled or not.
    pub fn issue(&self, name: &str) -> Identity {
        self.authority.issue(name)
    }

    pub fn enroll(&self, name: &str) -> Identity {
        let identity = self.issue(name);
        let mut fleet = self.fleet.0.lock().unwrap();
        fleet.entry(name.to_owned()).or_default().insert(identity.fingerprint);
        identity
    }

    pub fn revoke(&self, name: &str) {
        self.fleet.0.lock().unwrap().remove(name);
    }

    /// What rumqttc needs to come with this client id and this certificate.
    pub fn options(&self, client_id: &str, identity: &Identity) -> MqttOptions {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.authority.roots())
            .with_client_auth_cert(identity.chain.clone(), identity.key())
            .unwrap();
        let mut options = MqttOptions::new(client_id, "127.0.0.1", self.broker.local_addr().port());
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(tls))))
            .set_keep_alive(Duration::from_secs(60))
            .set_clean_session(true)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
            .set_inflight(100);
        options
    }

    /// A device that has connected, and its `Connected` event.
    pub async fn connect(&mut self, name: &str, identity: &Identity) -> Device {
        let device = Device::start(self.options(name, identity)).await.unwrap();
        self.expect(connected(name)).await;
        device
    }

    /// A device with a last will on its topic `gone`.
    pub async fn connect_with_will(&mut self, name: &str, identity: &Identity) -> Device {
        let mut options = self.options(name, identity);
        options.set_last_will(LastWill::new(topic(name, "gone"), "lost", rumqttc::QoS::AtLeastOnce, false));
        let device = Device::start(options).await.unwrap();
        self.expect(connected(name)).await;
        device
    }

    /// The next event has to be this one.
    pub async fn expect(&mut self, wanted: BrokerEvent) {
        assert_eq!(soon(self.events.recv()).await.unwrap(), wanted);
    }
}

pub fn connected(device: &str) -> BrokerEvent {
    BrokerEvent::Connected { device: device.to_owned() }
}

pub fn disconnected(device: &str) -> BrokerEvent {
    BrokerEvent::Disconnected { device: device.to_owned() }
}

pub fn message(device: &str, name: &str, payload: impl Into<Bytes>) -> BrokerEvent {
    BrokerEvent::Message { device: device.to_owned(), topic: topic(device, name), payload: payload.into() }
}

/// A client whose event loop runs in a task; it does not reconnect.
pub struct Device {
    pub client: AsyncClient,
    packets: mpsc::UnboundedReceiver<Result<Packet, ConnectionError>>,
    polling: JoinHandle<()>,
}

impl Device {
    /// Connects; an error is the broker's refusal or a closed connection.
    pub async fn start(options: MqttOptions) -> Result<Self, ConnectionError> {
        let (client, mut event_loop) = AsyncClient::new(options, 128);
        let (sender, packets) = mpsc::unbounded_channel();
        let polling = tokio::spawn(async move {
            loop {
                let polled = event_loop.poll().await;
                let over = polled.is_err();
                if let Some(packet) = match polled {
                    Ok(Event::Incoming(packet)) => Some(Ok(packet)),
                    Ok(Event::Outgoing(_)) => None,
                    Err(error) => Some(Err(error)),
                } {
                    let _ = sender.send(packet);
                }
                if over {
                    break;
                }
            }
        });
        let mut device = Self { client, packets, polling };
        match device.packet().await? {
            Packet::ConnAck(_) => Ok(device),
            other => panic!("{other:?} instead of a CONNACK"),
        }
    }

    async fn packet(&mut self) -> Result<Packet, ConnectionError> {
        soon(self.packets.recv()).await.expect("the event loop ran on")
    }

    async fn wait_for<T: Debug>(&mut self, pick: impl Fn(Packet) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.packet().await.unwrap()) {
                return picked;
            }
        }
    }

    /// Subscribes to one filter, whatever the answer.
    pub async fn subscribe(&mut self, filter: &str, qos: rumqttc::QoS) -> SubAck {
        self.client.subscribe(filter, qos).await.unwrap();
        self.wait_for(|packet| if let Packet::SubAck(ack) = packet { Some(ack) } else { None }).await
    }

    pub async fn receive(&mut self) -> Publish {
        self.wait_for(|packet| if let Packet::Publish(publish) = packet { Some(publish) } else { None }).await
    }

    pub async fn puback(&mut self) {
        self.wait_for(|packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    }

    /// Waits until the connection is over.
    pub async fn lost(&mut self) -> ConnectionError {
        loop {
            if let Err(error) = self.packet().await {
                return error;
            }
        }
    }

    /// The socket dies without a DISCONNECT.
    pub async fn die(self) {
        self.polling.abort();
        let _ = self.polling.await;
    }
}
