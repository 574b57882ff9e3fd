//! The whole plane, on free ports, with devices that speak the protocol by hand.

use std::path::Path;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use muster_shared::api::deployment::Status;
use muster_shared::chunk::ChunkIndex;
use muster_shared::director_time::DirectorTime;
use muster_shared::id::{Generation, Nonce};
use muster_shared::limits::CHUNK_BYTES;
use muster_shared::manifest::VerifiedManifest;
use muster_shared::message::{Call, Door, DoorRequest, Held, Hello, Reply, Request as Asked, TrustUpdate};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::telemetry::{Ack, Batch, SignedBatch};
use muster_shared::topic::Leaf;
use muster_shared::{Digest, Version, wire};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::db::deployments::DeploymentRecord;
use crate::testing::device::Device;
use crate::testing::{file, manifest, publisher, signed};
use crate::trust::roles::tests::signed_root;

mod members;

pub(crate) fn config(folder: &Path) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        data: folder.to_owned(),
        http: any,
        plain_http: None,
        mqtt: any,
        gateway: None,
        names: vec![],
        advertise_mqtt: None,
        devices: None,
        advertise_devices: None,
        device_certificate_life: crate::trust::ca::DEVICE_LIFE,
        ready_file: None,
        revocations: None,
        restored: false,
        new_admin_password: false,
        new_admin_code: false,
    }
}

mod trust;

/// A running plane; stopped and waited for by [`World::stop`].
struct World {
    plane: Running,
    folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let plane = start(config(folder.path()), CancellationToken::new()).await.expect("a plane");
        let root = signed_root(1, 1, plane.plane.director.public());
        plane.plane.trust.add(&plane.plane.db, &root).await.expect("a root");
        Self { plane, folder }
    }

    async fn restart(self) -> Self {
        self.restart_after(|| ()).await.0
    }

    /// Does something while the plane does not run.
    async fn restart_after<T>(self, work: impl FnOnce() -> T) -> (Self, T) {
        self.plane.plane.stop.cancel();
        self.plane.finished().await;
        let done = work();
        let plane = start(config(self.folder.path()), CancellationToken::new()).await.expect("a plane");
        (Self { plane, folder: self.folder }, done)
    }

    async fn stop(self) {
        self.plane.plane.stop.cancel();
        timeout(Duration::from_secs(5), self.plane.finished()).await.expect("stops in time");
    }

    /// Pushes a version of `digits` with this model.
    async fn push(&self, version: u64, model: &'static [u8]) -> Envelope {
        let plane = self.plane.plane();
        let envelope = signed(&manifest("digits", version, file(model), None), &publisher());
        let root = plane.trust.newest();
        plane.catalog.push(&plane.db, &plane.blobs, root.as_deref(), &envelope).await.expect("pushed");
        let body = Body::from(model).into_data_stream();
        plane.catalog.receive(&plane.db, &plane.blobs, file(model).sha256, body).await.expect("uploaded");
        plane.nudges.planner.notify_one();
        envelope
    }

    /// Deploys `digits` on one device.
    async fn deploy(&self) {
        let plane = self.plane.plane();
        let spec = serde_json::from_value(serde_json::json!({"model": "digits"})).expect("a spec");
        let name = "digits".parse().expect("a name");
        let record = DeploymentRecord { name, generation: 1, labels: Default::default(), spec };
        db::deployments::put(plane.db.write(), &record, 1).await.expect("stored");
        plane.nudges.planner.notify_one();
    }

    async fn status_until(&self, good: impl Fn(&Status) -> bool) -> Status {
        let name = "digits".parse().expect("a name");
        for _ in 0..200 {
            let status = status::of(self.plane.plane(), &name).await.expect("asks");
            if let Some(status) = status.filter(&good) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it never came to be: {:?}", status::of(self.plane.plane(), &name).await);
    }

    /// A device that serves what is deployed.
    async fn device_that_serves(&self, name: &str) -> (Device, Held) {
        let mut device = Device::enrol(&self.plane, name).await;
        device.hello(1, 1, None).await;
        let (empty, _) = device.desired(&self.plane).await;
        device.report(&empty).await;
        let (desired, held) = device.desired(&self.plane).await;
        assert_eq!(desired.slots.len(), 1);
        device.report(&desired).await;
        self.status_until(|status| status.ready == 1).await;
        (device, held)
    }
}

#[tokio::test]
async fn a_model_travels_to_a_device_and_answers() {
    const MODEL: &[u8] = &[7; CHUNK_BYTES + 100];
    let world = World::start().await;
    let envelope = world.push(1, MODEL).await;
    world.deploy().await;
    let mut device = Device::enrol(&world.plane, "edge-1").await;
    device.hello(1, 1, None).await;
    // A device without state takes only an answer to its own hello.
    let (empty, _) = device.desired(&world.plane).await;
    assert_eq!((empty.slots.len(), empty.nonce.map(|nonce| nonce.0)), (0, Some([1; 16])));
    assert_eq!(device.fetch(file(MODEL).sha256, 5).await, None);
    device.report(&empty).await;

    let (desired, _) = device.desired(&world.plane).await;
    assert!(desired.generation > empty.generation);
    let slot = &desired.slots[0];
    let manifest = device.fetch(slot.envelope.sha256, 1).await.expect("served");
    assert_eq!(serde_json::from_slice::<Envelope>(&manifest).expect("JSON"), envelope);
    let root = world.plane.plane().trust.newest().expect("a root");
    VerifiedManifest::verify_named(&envelope, &root, slot.manifest).expect("the publisher signed it");
    let index = device.fetch(file(MODEL).chunk_index, 1).await.expect("served");
    ChunkIndex::verify(&index, file(MODEL).chunk_index, MODEL.len() as u64).expect("its index");
    assert_eq!(device.fetch(file(MODEL).sha256, 5).await.as_deref(), Some(MODEL));
    let chunks = world.plane.plane().chunks.chunks(device.id());
    let model: Vec<_> = chunks.iter().filter(|count| count.blob == file(MODEL).sha256).collect();
    assert_eq!(model.iter().map(|count| (count.chunk, count.frames)).collect::<Vec<_>>(), [(0, 4), (1, 1)]);

    device.report(&desired).await;
    world.status_until(|status| status.ready == 1).await;
    let router =
        http::gateway(world.plane.plane().clone(), Listener::Loopback("127.0.0.1:80".parse().expect("an address")));
    let request = Request::post("/v1/models/digits:predict").header("host", "localhost");
    let request = request.body(Body::from("{\"instances\": [[1]]}")).expect("a request");
    let asked = tokio::spawn(router.oneshot(request));
    let call: Call = device.hear(Leaf::Call).await;
    let Asked::Door(DoorRequest { served, body, .. }) = call.request else { panic!("a prediction") };
    assert_eq!((served.as_str(), body.as_slice()), ("digits", &b"{\"instances\": [[1]]}"[..]));
    let reply = Reply {
        id: call.id,
        status: 200,
        version: Version::new(1),
        json_bytes: None,
        body: b"{\"predictions\": [3]}".to_vec(),
    };
    device.say(Leaf::Reply(call.reply_to), &reply).await;
    let response = asked.await.expect("no panic").expect("infallible");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["muster-device"]),
        (200, &"edge-1".parse().expect("a value"))
    );
    assert_eq!(response.headers()["muster-version"], "1");
    assert_eq!(to_bytes(response.into_body(), 1000).await.expect("a body"), "{\"predictions\": [3]}");
    world.stop().await;
}

#[tokio::test]
async fn a_device_is_told_only_what_it_does_not_hold() {
    let world = World::start().await;
    world.push(1, b"model").await;
    world.deploy().await;
    let (mut device, held) = world.device_that_serves("edge-1").await;
    device.hello(2, 1, Some(held)).await;
    assert!(device.hears_nothing(Leaf::Desired).await);
    // It lost its state: only an answer that names this hello will do.
    device.hello(3, 1, None).await;
    let (desired, held) = device.desired(&world.plane).await;
    assert_eq!(desired.nonce.map(|nonce| nonce.0), Some([3; 16]));
    // It knows of a later one: the database came from a backup.
    let later = Generation { number: held.generation.number + 100, ..held.generation };
    device.hello(4, 1, Some(Held { generation: later, ..held })).await;
    let (desired, held) = device.desired(&world.plane).await;
    assert_eq!(desired.generation.number, later.number + 1);
    // The same number on other content.
    device.hello(5, 1, Some(Held { digest: file(b"other").sha256, ..held })).await;
    let (desired, held) = device.desired(&world.plane).await;
    assert_eq!(desired.generation.number, later.number + 2);
    // A jump that no backup explains.
    let far = Generation { number: u64::MAX - 1, ..held.generation };
    device.hello(6, 1, Some(Held { generation: far, ..held })).await;
    assert!(device.hears_nothing(Leaf::Desired).await);
    // A new epoch is the way back.
    let plane = world.plane.plane();
    let root = signed_root(2, 2, plane.director.public());
    plane.trust.add(&plane.db, &root).await.expect("a root");
    plane.nudges.publisher.notify_one();
    assert_eq!(device.hear::<TrustUpdate>(Leaf::Trust).await, TrustUpdate::Root(root.clone()));
    let (desired, held) = device.desired(&world.plane).await;
    assert_eq!(desired.generation, Generation { epoch: 2, number: 1 });
    // The root was lost on the way: the next hello says so, and it comes again.
    device.hello(7, 1, Some(held)).await;
    assert_eq!(device.hear::<TrustUpdate>(Leaf::Trust).await, TrustUpdate::Root(root.clone()));
    world.stop().await;
}

#[tokio::test]
async fn a_restart_is_no_storm_and_forgets_nothing() {
    let world = World::start().await;
    world.push(1, b"model").await;
    world.deploy().await;
    let (device, held) = world.device_that_serves("edge-1").await;
    let fingerprint = world.plane.ready().ca_fingerprint;
    let world = world.restart().await;
    assert_eq!(world.plane.ready().ca_fingerprint, fingerprint);
    let status = world.status_until(|status| status.replicas.len() == 1).await;
    assert_eq!((status.ready, status.replicas[0].reason.as_deref()), (0, Some("the device is not connected")));
    let mut device = device.start_again(&world.plane).await;
    device.hello(2, 1, Some(held)).await;
    assert!(device.hears_nothing(Leaf::Desired).await);
    world.status_until(|status| status.ready == 1).await;

    world.push(2, b"better").await;
    let (desired, held) = device.desired(&world.plane).await;
    assert_eq!(desired.slots[0].version, Version::new(2).expect("positive"));
    // Old news: the chunk server serves what is wanted now, and nothing else.
    assert_eq!(device.fetch(file(b"model").sha256, 1).await, None);
    assert_eq!(device.fetch(file(b"better").sha256, 1).await.as_deref(), Some(&b"better"[..]));
    let plane = world.plane.plane();
    db::deployments::delete(plane.db.write(), &"digits".parse().expect("a name")).await.expect("removed");
    plane.nudges.planner.notify_one();
    let (desired, newer) = device.desired(&world.plane).await;
    assert!(desired.slots.is_empty() && newer.generation > held.generation);
    world.stop().await;
}

#[tokio::test]
async fn telemetry_is_acknowledged_when_it_is_durable_and_counted_once() {
    let world = World::start().await;
    let mut device = Device::enrol(&world.plane, "edge-1").await;
    let boot = device.boot();
    let batch = |sequence| Batch {
        device: "edge-1".parse().expect("an id"),
        boot,
        sequence,
        from_ms: 1,
        until_ms: 2,
        host: Default::default(),
        models: vec![],
    };
    let encode = |sequence| wire::encode(&batch(sequence)).expect("encodes");
    let mut forged = device.sign(payload_type::TELEMETRY, encode(1));
    forged.payload[20] ^= 1;
    device.say(Leaf::Telemetry, &SignedBatch(forged)).await;
    for sequence in [1, 2, 2, 1] {
        let envelope = device.sign(payload_type::TELEMETRY, encode(sequence));
        device.say(Leaf::Telemetry, &SignedBatch(envelope)).await;
        assert_eq!(device.hear::<Ack>(Leaf::TelemetryAck).await, Ack { boot, sequence });
    }
    assert!(device.hears_nothing(Leaf::TelemetryAck).await);
    world.stop().await;
}

#[tokio::test]
async fn a_lost_device_fails_its_requests_at_once_and_keeps_its_place() {
    let world = World::start().await;
    world.push(1, b"model").await;
    world.deploy().await;
    let (mut device, _) = world.device_that_serves("edge-1").await;
    let plane = world.plane.plane().clone();
    let ask = gateway::Ask {
        deployment: "digits".parse().expect("a name"),
        version: None,
        door: Door::TfServing,
        post: true,
        rest: ":predict".to_owned(),
        json_bytes: None,
        body: vec![],
        deadline: gateway::DEADLINE,
    };
    let asked = tokio::spawn(async move { gateway::ask(&plane, ask).await });
    device.hear::<Call>(Leaf::Call).await;
    drop(device);
    let answer = timeout(Duration::from_secs(5), asked).await.expect("no hang").expect("no panic");
    assert!(matches!(answer, Err(gateway::GatewayError::Gone(_))));
    let status = world.status_until(|status| status.ready == 0).await;
    assert_eq!(status.replicas.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn one_folder_has_one_plane() {
    let world = World::start().await;
    let second = start(config(world.folder.path()), CancellationToken::new()).await;
    assert!(second.is_err_and(|error| error.to_string().contains("another control plane")));
    world.stop().await;
}

#[tokio::test]
async fn a_hello_that_asks_for_the_time_is_told_it_once_by_the_director_before_the_desired_state() {
    let world = World::start().await;
    let mut device = Device::enrol(&world.plane, "edge-1").await;
    let nonce = Nonce([5; 16]);
    let hello = Hello { boot: device.boot(), nonce, root_version: 1, holds: None, wants_time: true };
    let before = crate::now_ms();
    device.say(Leaf::Hello, &hello).await;
    let TrustUpdate::Time(envelope) = device.hear(Leaf::Trust).await else { panic!("a time") };
    let director = world.plane.plane().director.public();
    let payload = envelope.verify(payload_type::TIME, &[director], 1).expect("the director signed it");
    let time: DirectorTime = wire::decode(payload).expect("decodes");
    assert_eq!((time.device.as_str(), time.fleet.as_str(), time.nonce), ("edge-1", "home", nonce));
    assert_eq!(time.fingerprint, Digest::of(device.public_spki()));
    assert!((before..=crate::now_ms()).contains(&time.now_ms));
    device.desired(&world.plane).await;
    // The same hello is not told again, nor is one that does not ask.
    device.say(Leaf::Hello, &hello).await;
    device.hello(6, 1, None).await;
    assert!(device.hears_nothing(Leaf::Trust).await);
    world.stop().await;
}
