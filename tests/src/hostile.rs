//! A control plane in an attacker's hands: it has the stolen CA and director keys and speaks to the
//! real agent at the real plane's address, saying whatever a story wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use muster_control_plane::broker::{Access, BrokerEvent, EmbeddedBroker, QoS};
use muster_control_plane::trust::ca::{self, Authority, ServerCertificate};
use muster_shared::chunk::{ChunkIndex, frame_range};
use muster_shared::desired::{BlobRef, Desired, Resources, SignedDesired, SlotSpec};
use muster_shared::director_time::DirectorTime;
use muster_shared::id::Generation;
use muster_shared::limits::{CHUNK_BYTES, FRAME_BYTES_MAX, FRAMES_PER_CHUNK};
use muster_shared::message::{Call, ChunkData, ChunkGet, Door, DoorRequest, Event, Hello, Reply, Request, TrustUpdate};
use muster_shared::reported::{Reported, SignedReported};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::topic::{Leaf, Topic};
use muster_shared::wire::{self, Message};
use muster_shared::{DeviceId, Digest, Nonce};
use muster_world::until;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long a story may wait for the agent to say something.
const DEADLINE: Duration = Duration::from_secs(90);
/// Messages that may wait for this plane's loop.
const EVENTS_MAX: usize = 256;

/// The stolen plane.
pub struct HostilePlane {
    runtime: tokio::runtime::Runtime,
    broker: Arc<EmbeddedBroker>,
    director: SecretKey,
    device: DeviceId,
    fingerprint: Digest,
    heard: Arc<Mutex<Heard>>,
    stop: CancellationToken,
}

/// What the agent said, and what it is served.
#[derive(Default)]
struct Heard {
    hello: Option<Hello>,
    reported: Option<Reported>,
    events: Vec<Event>,
    replies: Vec<Reply>,
    /// Blobs of which every frame is there and is full of zeros, however many are asked for.
    endless: Vec<Digest>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    /// Chunks of which one byte is changed the first time they are asked for.
    damage_once: Vec<(Digest, u32)>,
    /// How often each chunk's first frame was asked for.
    asked: BTreeMap<(Digest, u32), u32>,
}

/// Lets the one device do everything: this plane is the attacker's.
struct Anyone;

impl Access for Anyone {
    fn admit(&self, _name: &str, _fingerprint: [u8; 32]) -> bool {
        true
    }

    fn may_publish(&self, _device: &str, _topic: &str) -> bool {
        true
    }

    fn may_subscribe(&self, _device: &str, filter: &str) -> bool {
        // The broker asks that nobody subscribes to an up topic.
        filter.parse::<Topic>().is_ok_and(|topic| topic.leaf.way() == muster_shared::topic::Way::Down)
    }
}

impl HostilePlane {
    /// Takes the place of the plane whose data lies in `stolen`, at its broker's `address`.
    pub fn start(stolen: &Path, address: &str, device: &str, fingerprint: Digest) -> anyhow::Result<Self> {
        muster_tls::install_provider();
        let authority = Arc::new(Authority::open(&stolen.join("ca.pem"))?);
        let director = ca::open_director(&stolen.join("director.pem"))?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = Arc::new(ServerCertificate::new(authority.clone(), &names)?);
        let tls = Arc::new(ca::broker_tls(&authority, certificate)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let stop = CancellationToken::new();
        let address: SocketAddr = address.parse()?;
        let broker = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(address).await?;
            anyhow::Ok(EmbeddedBroker::start(listener, tls, Arc::new(Anyone), sender, stop.clone()).await?)
        })?;
        let (broker, heard) = (Arc::new(broker), Arc::new(Mutex::new(Heard::default())));
        runtime.spawn(listen(events, broker.clone(), heard.clone()));
        Ok(Self { runtime, broker, director, device: device.parse()?, fingerprint, heard, stop })
    }

    /// What the agent said when it connected.
    pub fn hello(&self) -> anyhow::Result<Hello> {
        until("the agent to say hello", DEADLINE, || Ok(lock(&self.heard).hello.clone()))
    }

    /// A desired state that follows the one the agent holds.
    pub fn next_desired(&self, slots: Vec<SlotSpec>) -> anyhow::Result<Desired> {
        let hello = self.hello()?;
        let held = hello.holds.context("the agent holds no desired state")?.generation;
        Ok(Desired {
            fleet: "demo".parse()?,
            device: self.device.clone(),
            fingerprint: self.fingerprint,
            generation: Generation { epoch: held.epoch, number: held.number + 1 },
            issued_ms: muster_control_plane::now_ms(),
            expires_ms: muster_control_plane::now_ms() + 3_600_000,
            nonce: Some(hello.nonce),
            root_version: hello.root_version,
            slots,
        })
    }

    /// Signs with the stolen director's key.
    pub fn sign(&self, desired: &Desired) -> anyhow::Result<Envelope> {
        Ok(Envelope::sign(payload_type::DESIRED, wire::encode(desired)?, &[&self.director]))
    }

    /// Sends a desired state.
    pub fn send(&self, desired: Envelope) -> anyhow::Result<()> {
        let topic = Leaf::Desired.of(&self.device).to_string();
        let bytes = Bytes::from(wire::encode(&SignedDesired(desired))?);
        Ok(self.runtime.block_on(self.broker.publish(&topic, bytes, QoS::AtLeastOnce))?)
    }

    /// Where its broker is.
    pub fn address(&self) -> SocketAddr {
        self.broker.local_addr()
    }

    /// Sends anything on a topic that the agent reads.
    pub fn publish(&self, leaf: Leaf, message: &impl Message) -> anyhow::Result<()> {
        self.publish_bytes(leaf, wire::encode(message)?)
    }

    /// The same of any bytes.
    pub fn publish_bytes(&self, leaf: Leaf, bytes: Vec<u8>) -> anyhow::Result<()> {
        let topic = leaf.of(&self.device).to_string();
        Ok(self.runtime.block_on(self.broker.publish(&topic, Bytes::from(bytes), QoS::AtLeastOnce))?)
    }

    /// The stolen director's key.
    pub fn director(&self) -> &SecretKey {
        &self.director
    }

    /// What the agent last reported, if anything.
    pub fn reported(&self) -> Option<Reported> {
        lock(&self.heard).reported.clone()
    }

    /// What the agent said that happened, oldest first.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.heard).events.clone()
    }

    /// What it answered to calls, oldest first.
    pub fn replies(&self) -> Vec<Reply> {
        lock(&self.heard).replies.clone()
    }

    /// Serves full frames of zeros of this blob, whatever its length.
    pub fn serve_endlessly(&self, blob: Digest) {
        lock(&self.heard).endless.push(blob);
    }

    /// Serves these bytes as a blob that they are not.
    pub fn serve_as(&self, blob: Digest, bytes: Vec<u8>) {
        lock(&self.heard).blobs.insert(blob, bytes);
    }

    /// Tells the agent the time in answer to its hellos, until it believes it.
    pub fn tell_time(&self, now_ms: u64) -> anyhow::Result<()> {
        until("the agent to believe the time", DEADLINE, || {
            let hello = self.hello()?;
            if !hello.wants_time {
                return Ok(Some(()));
            }
            let time = DirectorTime {
                fleet: "demo".parse()?,
                device: self.device.clone(),
                fingerprint: self.fingerprint,
                nonce: hello.nonce,
                now_ms,
            };
            let envelope = Envelope::sign(payload_type::TIME, wire::encode(&time)?, &[&self.director]);
            self.publish(Leaf::Trust, &TrustUpdate::Time(envelope))?;
            Ok(None)
        })
    }

    /// Calls the device's door with a question about a model, and does not wait for the reply.
    pub fn call(&self, id: Nonce, served: &str) -> anyhow::Result<()> {
        let call = Call {
            id,
            reply_to: "cp-stolen".parse()?,
            deadline_ms: 10_000,
            request: Request::Door(DoorRequest {
                door: Door::TfServing,
                post: false,
                served: served.parse()?,
                rest: String::new(),
                json_bytes: None,
                body: vec![],
            }),
        };
        self.publish(Leaf::Call, &call)
    }

    /// The status of the reply to a call, once it has come.
    pub fn reply(&self, id: Nonce) -> Option<u16> {
        self.replies().into_iter().find(|reply| reply.id == id).map(|reply| reply.status)
    }

    /// From now on these blobs are served to whoever asks.
    pub fn serve(&self, blobs: impl IntoIterator<Item = Vec<u8>>) {
        lock(&self.heard).blobs.extend(blobs.into_iter().map(|blob| (Digest::of(&blob), blob)));
    }

    /// Changes one byte of a chunk, the first time it is asked for.
    pub fn damage_once(&self, blob: Digest, chunk: u32) {
        lock(&self.heard).damage_once.push((blob, chunk));
    }

    /// How often a chunk was asked for.
    pub fn asked(&self, blob: Digest, chunk: u32) -> u32 {
        lock(&self.heard).asked.get(&(blob, chunk)).copied().unwrap_or(0)
    }

    /// Waits until the agent reports what is looked for.
    pub fn until_reported<T>(&self, what: &str, look: impl Fn(&Reported) -> Option<T>) -> anyhow::Result<T> {
        let found = until(what, DEADLINE, || Ok(lock(&self.heard).reported.as_ref().and_then(&look)));
        found.with_context(|| format!("last reported: {:#?}", lock(&self.heard).reported))
    }
}

impl Drop for HostilePlane {
    fn drop(&mut self) {
        self.stop.cancel();
        self.runtime.block_on(self.broker.closed());
    }
}

fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(mut events: mpsc::Receiver<BrokerEvent>, broker: Arc<EmbeddedBroker>, heard: Arc<Mutex<Heard>>) {
    while let Some(event) = events.recv().await {
        let BrokerEvent::Message { topic, payload, .. } = event else { continue };
        let Ok(topic) = topic.parse::<Topic>() else { continue };
        match topic.leaf {
            Leaf::Hello => lock(&heard).hello = wire::decode(&payload).ok(),
            Leaf::Reported => {
                // The signature is the real plane's concern; this one only wants to know.
                let reported = wire::decode::<SignedReported>(&payload).ok();
                lock(&heard).reported = reported.and_then(|signed| wire::decode(&signed.0.payload).ok());
            }
            Leaf::Reply(_) => lock(&heard).replies.extend(wire::decode::<Reply>(&payload)),
            Leaf::Event => lock(&heard).events.extend(wire::decode::<Event>(&payload)),
            Leaf::ChunkGet => {
                let Ok(get) = wire::decode::<ChunkGet>(&payload) else { continue };
                let answers = answers(&mut lock(&heard), get);
                let down = Leaf::ChunkData.of(&topic.device).to_string();
                for bytes in answers.iter().filter_map(|data| wire::encode(data).ok()) {
                    // What is lost is asked for again.
                    let _ = broker.publish(&down, Bytes::from(bytes), QoS::AtMostOnce).await;
                }
            }
            _ => {}
        }
    }
}

fn answers(heard: &mut Heard, get: ChunkGet) -> Vec<ChunkData> {
    if heard.endless.contains(&get.blob) {
        let first = get.wanted().filter(|number| number.is_multiple_of(FRAMES_PER_CHUNK as u32));
        for number in first {
            *heard.asked.entry((get.blob, number / FRAMES_PER_CHUNK as u32)).or_default() += 1;
        }
        let frame = |number| ChunkData::Frame { blob: get.blob, number, bytes: vec![0; FRAME_BYTES_MAX] };
        return get.wanted().map(frame).collect();
    }
    let Some(blob) = heard.blobs.get(&get.blob).cloned() else {
        return vec![ChunkData::Unavailable { blob: get.blob }];
    };
    let mut frames = vec![];
    for number in get.wanted() {
        let Some((offset, length)) = frame_range(blob.len() as u64, number) else { continue };
        let mut bytes = blob[offset as usize..offset as usize + length].to_vec();
        let (chunk, first) = ((offset / CHUNK_BYTES as u64) as u32, offset.is_multiple_of(CHUNK_BYTES as u64));
        if first {
            *heard.asked.entry((get.blob, chunk)).or_default() += 1;
            if let Some(at) = heard.damage_once.iter().position(|damage| *damage == (get.blob, chunk)) {
                heard.damage_once.remove(at);
                bytes[0] ^= 1;
            }
        }
        frames.push(ChunkData::Frame { blob: get.blob, number, bytes });
    }
    frames
}

/// A bundle's contents, as a plane serves them.
pub struct Contents {
    /// The manifest in its envelope.
    pub envelope: Envelope,
    /// Every blob: the envelope's bytes, each file, each chunk index.
    pub blobs: Vec<Vec<u8>>,
}

/// Opens a bundle file.
pub fn open_bundle(file: &Path) -> anyhow::Result<Contents> {
    let mut archive = tar::Archive::new(std::fs::File::open(file)?);
    let (mut envelope, mut blobs) = (None, vec![]);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut entry, &mut bytes)?;
        if entry.path()?.to_string_lossy().ends_with(".json") {
            envelope = Some(Envelope::from_json(std::str::from_utf8(&bytes)?)?);
        } else {
            blobs.push(ChunkIndex::of(&bytes).to_bytes());
        }
        blobs.push(bytes);
    }
    Ok(Contents { envelope: envelope.context("the bundle has no manifest")?, blobs })
}

/// A slot that names a manifest in this envelope.
pub fn slot(model: &str, version: u64, envelope: &Envelope) -> anyhow::Result<SlotSpec> {
    let bytes = envelope.to_json();
    Ok(SlotSpec {
        deployment: model.parse()?,
        served_as: None,
        model: model.parse()?,
        version: muster_shared::Version::new(version).context("versions are positive")?,
        manifest: Digest::of(&envelope.payload),
        envelope: BlobRef { sha256: Digest::of(&bytes), bytes: bytes.len() as u64 },
        variant: "fp32".parse()?,
        resources: Resources { cpu_milli: 250, memory_bytes: 64 << 20 },
        probation_ms: 500,
        attempt: 0,
        swap_in_place: false,
        floor: None,
    })
}
