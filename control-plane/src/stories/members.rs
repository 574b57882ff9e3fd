//! Who is in the fleet: cut off, put back, there twice.

use std::time::Instant;

use muster_shared::api::fleet::Happening;
use muster_shared::api::members::Standing;

use super::*;
use crate::trust::members;

async fn happened(world: &World, kind: Happening) -> bool {
    let events = db::events::newest(world.plane.plane.db.read(), 1000).await.expect("reads");
    events.iter().any(|event| event.kind == kind)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_cut_off_at_once_and_stays_out_over_restarts_and_backups() {
    let world = World::start().await;
    let device = Device::enrol(&world.plane, "edge-1").await;
    let id = device.id().clone();
    device.hello(1, 1, None).await;
    let live = world.plane.plane.live.clone();
    until("connected", async || live.is_connected(&id)).await;
    let fingerprint = live.get(&id).expect("known").fingerprint;
    let begun = Instant::now();
    members::revoke(&world.plane.plane, &id, "stolen").await.expect("revoked");
    until("cut off", async || !live.is_connected(&id)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(happened(&world, Happening::DeviceRevoked).await);

    let world = world.restart().await;
    let live = world.plane.plane.live.clone();
    let admits = |live: &crate::live::Live| crate::broker::Access::admit(live, "edge-1", fingerprint.0);
    assert_eq!(live.get(&id).map(|live| live.standing), Some(Standing::Revoked));
    assert!(!admits(&live) && !live.is_heard(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_put_back_voids_claims_and_brings_no_revoked_key_back() {
    let world = World::start().await;
    let plane = &world.plane.plane;
    let first = Device::enrol(&world.plane, "edge-1").await;
    let asked = muster_shared::api::NewClaim {
        uses: 5,
        ttl_seconds: 3600,
        labels: Default::default(),
        may_label: vec![],
        may_label_anything: false,
        needs_approval: false,
    };
    crate::trust::enrol::new_claim(plane, &asked).await.expect("a claim");
    let fingerprint = plane.live.get(first.id()).expect("known").fingerprint;

    // The backup.
    let (world, backup) = {
        let folder = world.folder.path().to_owned();
        let world = world.restart_after(|| std::fs::read(folder.join("state.db")).expect("the database")).await;
        (world.0, world.1)
    };
    // Life goes on: one is revoked, another one joins.
    members::revoke(&world.plane.plane, first.id(), "stolen").await.expect("revoked");
    let late = Device::enrol(&world.plane, "edge-2").await;
    let folder = world.folder.path().to_owned();
    let (world, ()) = world
        .restart_after(|| {
            for left_over in ["state.db-wal", "state.db-shm"] {
                let _ = std::fs::remove_file(folder.join(left_over));
            }
            std::fs::write(folder.join("state.db"), &backup).expect("put back");
        })
        .await;
    let plane = &world.plane.plane;
    assert!(happened(&world, Happening::DatabaseRestored).await);
    assert!(db::claims::list(plane.db.read(), 10).await.expect("lists").iter().all(|claim| claim.void));
    assert_eq!(plane.live.get(first.id()).map(|live| live.standing), Some(Standing::Revoked));
    assert!(plane.revocations.has(&fingerprint));
    assert!(db::members::restored(plane.db.read()).await.expect("reads").is_some());

    // The one that joined later is not let in, but is seen, and taken back.
    let again = late.start_again(&world.plane).await;
    until("seen", async || plane.live.strangers().contains_key(late.id())).await;
    assert!(!plane.live.is_heard(late.id()));
    drop(again);
    members::approve(plane, late.id()).await.expect("taken back");
    let again = late.start_again(&world.plane).await;
    again.hello(2, 1, None).await;
    until("connected", async || plane.live.is_connected(late.id())).await;
    members::approve_restored(plane).await.expect("approved");
    assert!(db::members::restored(plane.db.read()).await.expect("reads").is_none());
    // A restart after that finds nothing.
    let world = world.restart().await;
    assert!(db::members::restored(world.plane.plane.db.read()).await.expect("reads").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_reads_and_writes_nothing_of_another_one() {
    let world = World::start().await;
    let (one, other) = (Device::enrol(&world.plane, "edge-1").await, Device::enrol(&world.plane, "edge-2").await);
    let live = world.plane.plane.live.clone();
    one.hello(1, 1, None).await;
    until("heard", async || live.get(one.id()).is_some_and(|live| live.hello.is_some())).await;
    until("connected", async || live.is_connected(other.id())).await;
    // On another's topic: not passed on, though the broker takes the packet or ends the session.
    one.say_on(&Leaf::Gone.of(other.id()).to_string()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(live.is_connected(other.id()), "another's word was believed");
    // A digest that no desired state of its names.
    let mut one = one.start_again(&world.plane).await;
    let blob = world.plane.plane.blobs.put(b"somebody else's weights".to_vec()).await.expect("stored");
    assert_eq!(one.fetch(blob, 1).await, None);
}
