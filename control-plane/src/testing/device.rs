//! A device that speaks the protocol by hand: enrolled, connected over mutual TLS, and as honest as
//! the test that plays it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use muster_shared::api::{Enrol, Enrolled, NewClaim};
use muster_shared::desired::{Desired, SignedDesired};
use muster_shared::id::{BootId, Nonce};
use muster_shared::message::{ChunkData, ChunkGet, Held, Hello};
use muster_shared::reported::{BundleRef, Facts, Phase, Reported, SignedReported, SlotReport};
use muster_shared::signing::{Envelope, Signature, payload_type};
use muster_shared::topic::Leaf;
use muster_shared::wire::{self, Message};
use muster_shared::{DeviceId, Digest};
use muster_tls::ClientIdentity;
use rcgen::{CertificateParams, KeyPair, SigningKey};
use rumqttc::{AsyncClient, Event, LastWill, MqttOptions, Packet, QoS, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Running;
use crate::trust::ca::tests::device_key;
use crate::trust::enrol;

/// What takes longer is taken for broken.
const DEADLINE: Duration = Duration::from_secs(20);

/// The device.
pub(crate) struct Device {
    pub(crate) enrolled: Enrolled,
    key: KeyPair,
    client: AsyncClient,
    inbox: mpsc::Receiver<(Leaf, Vec<u8>)>,
    /// What came while something else was waited for.
    set_aside: VecDeque<(Leaf, Vec<u8>)>,
    connection: JoinHandle<()>,
    boot: BootId,
    sequence: u64,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Device {
    /// Makes a key, enrols with a fresh claim, and connects.
    pub(crate) async fn enrol(plane: &Running, name: &str) -> Self {
        let asked = NewClaim {
            uses: 1,
            ttl_seconds: 60,
            labels: Default::default(),
            may_label: vec![],
            may_label_anything: true,
            needs_approval: false,
        };
        let claim = enrol::new_claim(plane.plane(), &asked).await.expect("a claim");
        let (key, _) = device_key();
        let csr = CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
        let name = Some(name.parse().expect("an id"));
        let asked = Enrol { claim: Some(claim.id), secret: Some(claim.secret), csr, name, labels: Default::default() };
        let outcome = enrol::enrol(plane.plane(), &asked).await.expect("enrolled");
        let enrol::Outcome::Enrolled(enrolled) = outcome else { panic!("it waits") };
        let enrolled = *enrolled;
        Self::connect(plane, enrolled, key, 1).await
    }

    /// The same device as another run of its agent.
    pub(crate) async fn start_again(&self, plane: &Running) -> Self {
        let key = KeyPair::try_from(self.key.serialize_der()).expect("the same key");
        Self::connect(plane, self.enrolled.clone(), key, self.boot.0[0] + 1).await
    }

    async fn connect(plane: &Running, enrolled: Enrolled, key: KeyPair, run: u8) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(enrolled.certificate.as_bytes()).expect("PEM")];
        let identity =
            ClientIdentity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).expect("a private key") };
        let ca = CertificateDer::from_pem_slice(enrolled.ca.as_bytes()).expect("PEM");
        let tls = muster_tls::client(Digest::of(&ca), Some(identity)).expect("TLS");
        let mut options = MqttOptions::new(enrolled.device.as_str(), "127.0.0.1", plane.ready().mqtt.port());
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        options.set_max_packet_size(1 << 20, 1 << 20);
        let gone = Leaf::Gone.of(&enrolled.device).to_string();
        options.set_last_will(LastWill::new(gone, vec![], QoS::AtLeastOnce, false));
        let (client, mut events) = AsyncClient::new(options, 100);
        for leaf in Leaf::DOWN {
            client.subscribe(leaf.of(&enrolled.device).to_string(), QoS::AtLeastOnce).await.expect("subscribes");
        }
        let (sender, inbox) = mpsc::channel(1000);
        let connection = tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic: muster_shared::topic::Topic = publish.topic.parse().expect("a topic");
                    let _ = sender.send((topic.leaf, publish.payload.to_vec())).await;
                }
            }
        });
        let set_aside = VecDeque::new();
        Self { enrolled, key, client, inbox, set_aside, connection, boot: BootId([run; 16]), sequence: 0 }
    }

    pub(crate) fn id(&self) -> &DeviceId {
        &self.enrolled.device
    }

    /// Its public key, as a SubjectPublicKeyInfo.
    pub(crate) fn public_spki(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(&self.key)
    }

    pub(crate) fn boot(&self) -> BootId {
        self.boot
    }

    /// Says something.
    pub(crate) async fn say<M: Message>(&self, leaf: Leaf, message: &M) {
        let bytes = wire::encode(message).expect("encodes");
        self.client.publish(leaf.of(self.id()).to_string(), QoS::AtLeastOnce, false, bytes).await.expect("sent");
    }

    /// Says something on any topic, also on another device's.
    pub(crate) async fn say_on(&self, topic: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, vec![]).await.expect("sent");
    }

    /// The next message on this topic.
    pub(crate) async fn hear<M: Message>(&mut self, leaf: Leaf) -> M {
        let bytes = match self.set_aside.iter().position(|(other, _)| *other == leaf) {
            Some(at) => self.set_aside.remove(at).expect("it is there").1,
            None => timeout(DEADLINE, self.next(leaf)).await.expect("in time"),
        };
        wire::decode(&bytes).expect("decodes")
    }

    async fn next(&mut self, leaf: Leaf) -> Vec<u8> {
        loop {
            match self.inbox.recv().await.expect("connected") {
                (found, bytes) if found == leaf => return bytes,
                other => self.set_aside.push_back(other),
            }
        }
    }

    /// Whether nothing waits on this topic once the plane has answered another request.
    pub(crate) async fn hears_nothing(&mut self, leaf: Leaf) -> bool {
        let nothing = ChunkGet { blob: Digest::of("nothing"), first_frame: 0, frames: 1 };
        for _ in 0..3 {
            self.say(Leaf::ChunkGet, &nothing).await;
            self.hear::<ChunkData>(Leaf::ChunkData).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.set_aside.iter().all(|(other, _)| *other != leaf)
    }

    /// Says hello with a nonce of this byte.
    pub(crate) async fn hello(&self, nonce: u8, root_version: u64, holds: Option<Held>) {
        let hello = Hello { boot: self.boot, nonce: Nonce([nonce; 16]), root_version, holds, wants_time: false };
        self.say(Leaf::Hello, &hello).await;
    }

    /// The next desired state, verified.
    pub(crate) async fn desired(&mut self, plane: &Running) -> (Desired, Held) {
        let SignedDesired(envelope) = self.hear(Leaf::Desired).await;
        let directors = [plane.plane().director.public()];
        let payload = envelope.verify(payload_type::DESIRED, &directors, 1).expect("the director signed it");
        let desired: Desired = wire::decode(payload).expect("decodes");
        assert_eq!(desired.device, *self.id());
        let held = Held { generation: desired.generation, digest: Digest::of(payload) };
        (desired, held)
    }

    /// Signs a payload with the device's key.
    pub(crate) fn sign(&self, kind: &str, payload: Vec<u8>) -> Envelope {
        let sig = SigningKey::sign(&self.key, &Envelope::message_to_sign(kind, &payload)).expect("signs");
        let (_, stranger) = device_key();
        // The hint proves nothing, so any will do.
        Envelope::with_signature(kind, payload, Signature { keyid: stranger.id(), sig })
    }

    /// Reports what serves, on a machine with room.
    pub(crate) async fn report(&mut self, serving: &Desired) {
        self.sequence += 1;
        let slots = serving.slots.iter().map(|slot| {
            let bundle = BundleRef { model: slot.model.clone(), version: slot.version, manifest: slot.manifest };
            SlotReport {
                deployment: slot.deployment.clone(),
                phase: Phase::Serving,
                wanted: Some(bundle.clone()),
                running: Some(bundle),
                waiting: None,
                restarts: 0,
                measured: None,
            }
        });
        let reported = Reported {
            device: self.id().clone(),
            boot: self.boot,
            sequence: self.sequence,
            at_ms: 1,
            root_version: 1,
            applied: Some(serving.generation),
            desired_refused: None,
            facts: Facts {
                cpu_milli: 4000,
                memory_bytes: 1 << 30,
                engines: vec!["tract".to_owned()],
                ..Facts::default()
            },
            slots: slots.collect(),
            refusals: vec![],
            floors: vec![],
            health: Default::default(),
            notes: vec![],
        };
        let envelope = self.sign(payload_type::REPORTED, wire::encode(&reported).expect("encodes"));
        self.say(Leaf::Reported, &SignedReported(envelope)).await;
    }

    /// Fetches a whole small blob; nothing if the plane does not serve it to this device.
    pub(crate) async fn fetch(&mut self, blob: Digest, frames: u32) -> Option<Vec<u8>> {
        let bits = (1u64 << frames) - 1;
        self.say(Leaf::ChunkGet, &ChunkGet { blob, first_frame: 0, frames: bits }).await;
        let mut whole = Vec::new();
        for expected in 0..frames {
            match self.hear::<ChunkData>(Leaf::ChunkData).await {
                ChunkData::Frame { blob: found, number, bytes } => {
                    assert_eq!((found, number), (blob, expected));
                    whole.extend(bytes);
                }
                ChunkData::Unavailable { blob: found } => {
                    assert_eq!(found, blob);
                    return None;
                }
            }
        }
        Some(whole)
    }
}
