//! Floors, roots and directors as they change, and commands, each as a device hears of it.

use muster_shared::command::{Command, Order};
use muster_shared::desired::Desired;
use muster_shared::floor::VerifiedFloor;
use muster_shared::manifest::Manifest;
use muster_shared::root::Publisher;

use super::*;
use crate::trust::floors::tests::signed_floor;
use crate::trust::roles::tests::{key, root, sign_root};

impl World {
    async fn raise_floor(&self, version: u64) {
        let plane = self.plane.plane();
        let root = plane.trust.newest();
        plane.floors.raise(&plane.db, root.as_deref(), &signed_floor(version, &publisher())).await.expect("raised");
        plane.nudges.publisher.notify_one();
        plane.nudges.planner.notify_one();
    }

    async fn add_root(&self, root: &Envelope) {
        let plane = self.plane.plane();
        plane.trust.add(&plane.db, root).await.expect("a root");
        plane.nudges.publisher.notify_one();
        plane.nudges.planner.notify_one();
    }
}

/// The next floor that a device hears, with the version of the manifest beside it.
async fn floor(device: &mut Device, world: &World) -> (u64, Option<u64>) {
    let TrustUpdate::Floor { floor, manifest } = device.hear(Leaf::Trust).await else { panic!("a floor") };
    let root = world.plane.plane().trust.newest().expect("a root");
    let floor = VerifiedFloor::verify(&floor, &root).expect("the publisher set it");
    let version = |envelope: Envelope| Manifest::parse(&envelope.payload).expect("a manifest").version.get();
    (floor.floor().version.get(), manifest.map(version))
}

fn waits_for(status: &Status, part: &str) -> bool {
    status.conditions.iter().any(|condition| condition.message.contains(part))
}

#[tokio::test]
async fn a_floor_is_told_at_once_and_before_what_is_wanted() {
    let world = World::start().await;
    world.push(1, b"model").await;
    world.deploy().await;
    let (mut device, held) = world.device_that_serves("edge-1").await;
    world.raise_floor(2).await;
    assert_eq!(floor(&mut device, &world).await, (2, None));
    // It is said once, and nothing below it is placed anywhere.
    assert!(device.hears_nothing(Leaf::Trust).await);
    world.status_until(|status| waits_for(status, "nothing below version 2")).await;
    world.push(2, b"better").await;
    let (desired, newer) = device.desired(&world.plane).await;
    let slot = &desired.slots[0];
    assert_eq!((slot.version.get(), slot.floor.map(Version::get)), (2, Some(2)));
    // What got lost on the way is said again when the device says hello, now with a version that shows it.
    device.hello(2, 1, Some(held)).await;
    assert_eq!(floor(&mut device, &world).await, (2, Some(2)));
    assert_eq!(device.desired(&world.plane).await.1, newer);
    let world = world.restart().await;
    let mut device = device.start_again(&world.plane).await;
    device.hello(3, 1, Some(newer)).await;
    assert_eq!(floor(&mut device, &world).await, (2, Some(2)));
    world.stop().await;
}

#[tokio::test]
async fn a_removed_publishers_model_is_left_where_it_is_and_goes_nowhere_else() {
    let world = World::start().await;
    world.push(1, b"model").await;
    world.deploy().await;
    let (mut device, _) = world.device_that_serves("edge-1").await;
    let mut next = root(2, 1, world.plane.plane().director.public());
    next.publishers = vec![Publisher { key: key(11).public(), models: None }];
    world.add_root(&sign_root(&next)).await;
    assert!(matches!(device.hear::<TrustUpdate>(Leaf::Trust).await, TrustUpdate::Root(_)));
    let status = world.status_until(|status| waits_for(status, "names its publisher no more")).await;
    assert_eq!((status.ready, status.replicas.len()), (1, 1));
    assert!(device.hears_nothing(Leaf::Desired).await, "what serves is left alone");
    world.stop().await;
}

#[tokio::test]
async fn nothing_begins_under_an_expired_root_until_the_next_one() {
    let world = World::start().await;
    world.push(1, b"model").await;
    world.deploy().await;
    let (mut device, _) = world.device_that_serves("edge-1").await;
    let director = world.plane.plane().director.public();
    world.add_root(&sign_root(&muster_shared::root::Root { expires_ms: 1, ..root(2, 1, director) })).await;
    world.push(2, b"better").await;
    let status = world.status_until(|status| waits_for(status, "the root has expired")).await;
    assert_eq!((status.ready, status.replicas.len()), (1, 1));
    assert!(device.hears_nothing(Leaf::Desired).await);
    world.add_root(&signed_root(3, 1, director)).await;
    let (desired, _) = device.desired(&world.plane).await;
    assert_eq!(desired.slots[0].version.get(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_stolen_directors_word_counts_no_more_once_a_root_names_the_next_one() {
    let world = World::start().await;
    let plane = world.plane.plane().clone();
    let mut device = Device::enrol(&world.plane, "edge-1").await;
    device.hello(1, 1, None).await;
    let (desired, held) = device.desired(&world.plane).await;
    // The thief has the key, and numbers far ahead.
    let stolen = plane.director.key();
    let next = plane.director.prepare_next().expect("made");
    let root_2 = sign_root(&muster_shared::root::Root { compromised: vec![stolen.public().id()], ..root(2, 2, next) });
    world.add_root(&root_2).await;
    assert_eq!(plane.director.public(), next);
    assert_eq!(device.hear::<TrustUpdate>(Leaf::Trust).await, TrustUpdate::Root(root_2));
    let (again, _) = device.desired(&world.plane).await;
    assert_eq!(again.generation, Generation { epoch: 2, number: 1 });
    assert!(again.generation > Generation { number: u64::MAX, ..held.generation }, "however far the thief went");
    let forged = Desired { generation: Generation { epoch: 2, number: 1 << 40 }, ..desired };
    let payload = wire::encode(&forged).expect("encodes");
    let forged = Envelope::sign(payload_type::DESIRED, payload, &[&stolen]);
    let trusted = plane.trust.newest().expect("a root");
    assert!(forged.verify(payload_type::DESIRED, &trusted.directors(), 1).is_err());
    let world = world.restart().await;
    assert_eq!(world.plane.plane().director.public(), next);
    world.stop().await;
}

#[tokio::test]
async fn a_command_is_signed_for_one_device_and_one_hello() {
    let world = World::start().await;
    let plane = world.plane.plane().clone();
    let mut device = Device::enrol(&world.plane, "edge-1").await;
    let ask = |plane: Arc<Plane>| {
        tokio::spawn(async move {
            gateway::commands::order(&plane, &"edge-1".parse().expect("an id"), Order::Diagnose).await
        })
    };
    let early = ask(plane.clone()).await.expect("no panic");
    assert!(matches!(early, Err(gateway::GatewayError::NotThere { .. })), "{early:?}");
    device.hello(7, 1, None).await;
    device.desired(&world.plane).await;
    let asked = ask(plane.clone());
    let call: Call = device.hear(Leaf::Call).await;
    let Asked::Command(envelope) = call.request else { panic!("a command") };
    let payload = envelope.verify(payload_type::COMMAND, &[plane.director.public()], 1).expect("the director's");
    let command: Command = wire::decode(payload).expect("decodes");
    let fingerprint = plane.live.get(device.id()).expect("a device").fingerprint;
    assert_eq!((command.device.as_str(), command.fingerprint, command.id), ("edge-1", fingerprint, call.id));
    assert_eq!((command.nonce.0, command.order), ([7; 16], Order::Diagnose));
    let reply = Reply { id: call.id, status: 200, version: None, json_bytes: None, body: b"{\"clock\": 1}".to_vec() };
    device.say(Leaf::Reply(call.reply_to), &reply).await;
    let answer = asked.await.expect("no panic").expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"clock\": 1}"[..]));
    // One that goes away is no hang.
    let asked = ask(plane.clone());
    device.hear::<Call>(Leaf::Call).await;
    drop(device);
    let gone = timeout(Duration::from_secs(5), asked).await.expect("no hang").expect("no panic");
    assert!(matches!(gone, Err(gateway::GatewayError::Gone(_))), "{gone:?}");
    world.stop().await;
}
