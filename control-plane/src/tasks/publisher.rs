//! Tells devices what is wanted of them: commits the next generation first, signs and sends only what
//! is committed.
//!
//! A `hello` is answered with what differs: the roots the device does not have yet, the time if it asks for
//! it, then the desired state if it holds another one, or none.

use std::sync::Arc;
use std::time::Duration;

use muster_control_plane_core::issue::{self, CannotIssue, Issued, LIFE_MS, Need};
use muster_shared::DeviceId;
use muster_shared::api::members::Standing;
use muster_shared::desired::{Desired, SignedDesired, SlotSpec};
use muster_shared::director_time::DirectorTime;
use muster_shared::message::{Hello, TrustUpdate};
use muster_shared::reported::Reported;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::payload_type;
use muster_shared::topic::Leaf;
use muster_shared::wire::{self, WireError};

use super::floors;
use crate::broker::QoS;
use crate::catalog::CatalogError;
use crate::db::desired::DesiredRecord;
use crate::db::{self, DbError};
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;
use crate::routes::Table;

const PAUSE: Duration = Duration::from_millis(10);
const PERIOD: Duration = Duration::from_secs(30);
/// How soon a device that is still being drained is looked at again.
const DRAIN_PERIOD: Duration = Duration::from_millis(20);

/// Publishes until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    let wake = &plane.nudges.publisher;
    super::repeat(&plane, "publisher", wake, (PAUSE, PERIOD), async |plane: &Plane| publish(plane).await).await;
}

/// Why a device cannot be told anything.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Number(#[from] CannotIssue),
    #[error("the desired state does not fit")]
    Wire(#[from] WireError),
    #[error("its models' version floors cannot be sent")]
    Floors(#[from] CatalogError),
    #[error(transparent)]
    Db(#[from] DbError),
}

async fn publish(plane: &Plane) -> Result<(), DbError> {
    let Some(root) = plane.trust.newest() else { return Ok(()) };
    let epoch = root.root().epoch;
    for id in db::desired::outdated(plane.db.read(), epoch, now_ms().saturating_sub(LIFE_MS / 2)).await? {
        tell(plane, &root, &id).await;
    }
    let newest = root.root().version;
    let in_force = plane.floors.in_force(&root);
    let due: Vec<DeviceId> = plane.live.read(|devices| {
        let lacks_root = |device: &LiveDevice, hello: &Hello| hello.root_version.max(device.root_sent) < newest;
        let lacks_floor = |device: &LiveDevice| {
            !in_force.is_empty() && !floors::lacking(device, &floors::models_reported(device), &in_force).is_empty()
        };
        let is_due = |device: &LiveDevice| {
            let hello = device.hello.as_ref().filter(|_| device.connected);
            hello.is_some_and(|hello| device.hello_is_due || lacks_root(device, hello) || lacks_floor(device))
        };
        devices.iter().filter(|(_, device)| is_due(device)).map(|(id, _)| id.clone()).collect()
    });
    for id in due {
        tell(plane, &root, &id).await;
    }
    Ok(())
}

/// One device's trouble must not keep the others from being told.
async fn tell(plane: &Plane, root: &TrustedRoot, id: &DeviceId) {
    if let Err(error) = tell_device(plane, root, id).await {
        tracing::warn!(device = %id, error = &error as &dyn std::error::Error, "cannot tell a device what is wanted");
    }
}

async fn tell_device(plane: &Plane, root: &TrustedRoot, id: &DeviceId) -> Result<(), PublishError> {
    // Taken before anything is read: a `hello` that comes meanwhile makes it due again.
    let taken = plane.live.change(id, |live| {
        let due = std::mem::replace(&mut live.hello_is_due, false);
        if due {
            // What it was sent before may have been lost on the way.
            live.floors_sent.clear();
        }
        (due, live.clone())
    });
    let Some((hello_is_due, live)) = taken else { return Ok(()) };
    if plane.gateway.is_draining(id, &plane.routes) {
        // What it still answers comes first. It is due again, a moment later.
        plane.live.change(id, |live| live.hello_is_due |= hello_is_due);
        tell_soon(plane);
        return Ok(());
    }
    send_roots(plane, root, id, &live).await;
    // After the roots: the device must know this director. Before all else: by the time it judges the rest.
    send_time(plane, root, id, &live).await?;
    if live.standing == Standing::Leaving {
        // It gets nothing but the word to leave, which is a command.
        plane.nudges.departures.notify_one();
        return Ok(());
    }
    let hello = live.hello.as_ref();
    let outcome = async {
        let slots = db::plans::placement(plane.db.read(), id).await?;
        floors::send(plane, root, id, &live, &slots).await?;
        current_desired(plane, root, id, &live).await
    };
    let outcome = outcome.await;
    if !matches!(outcome, Ok(Told::Desired { .. })) && hello_is_due {
        // Not answered after all.
        plane.live.change(id, |live| live.hello_is_due |= live.hello == hello.cloned());
    }
    match outcome? {
        Told::Desired { desired, is_new } => {
            plane.live.change(id, |live| live.held_back = None);
            let lacks = hello_is_due && hello.is_some_and(|hello| issue::lacks(hello, &desired.issued()));
            if live.connected && (is_new || lacks) {
                let envelope = plane.director.sign(payload_type::DESIRED, desired.payload);
                plane.send(id, Leaf::Desired, &SignedDesired(envelope), QoS::AtLeastOnce).await;
                tracing::info!(device = %id, generation = %desired.generation, "desired state sent");
            }
        }
        Told::HeldBack(why) => {
            if live.held_back.as_ref() != Some(&why) {
                tracing::warn!(device = %id, why, "a device is told nothing");
            }
            plane.live.change(id, |live| live.held_back = Some(why));
        }
    }
    Ok(())
}

/// What is to be said to a device.
enum Told {
    /// This; it is committed.
    Desired { desired: DesiredRecord, is_new: bool },
    /// Nothing for now, and why.
    HeldBack(String),
}

/// Wakes the publisher a moment later.
fn tell_soon(plane: &Plane) {
    let wake = plane.nudges.publisher.clone();
    plane.tasks.spawn(async move {
        tokio::time::sleep(DRAIN_PERIOD).await;
        wake.notify_one();
    });
}

/// Sends the roots that the device does not have yet, one by one.
async fn send_roots(plane: &Plane, root: &TrustedRoot, id: &DeviceId, live: &LiveDevice) {
    let Some(hello) = &live.hello else { return };
    let known = hello.root_version.max(live.root_sent);
    if !live.connected || known >= root.root().version {
        return;
    }
    for root in plane.trust.after(known) {
        plane.send(id, Leaf::Trust, &TrustUpdate::Root(root), QoS::AtLeastOnce).await;
    }
    plane.live.change(id, |live| live.root_sent = root.root().version);
}

/// Answers a `hello` that asks for the time, once.
async fn send_time(plane: &Plane, root: &TrustedRoot, id: &DeviceId, live: &LiveDevice) -> Result<(), PublishError> {
    let asked = live.hello.as_ref().filter(|hello| hello.wants_time && live.time_told != Some(hello.nonce));
    let Some(hello) = asked.filter(|_| live.connected) else { return Ok(()) };
    let time = DirectorTime {
        fleet: root.root().fleet.clone(),
        device: id.clone(),
        fingerprint: live.fingerprint,
        nonce: hello.nonce,
        now_ms: now_ms(),
    };
    let envelope = plane.director.sign(payload_type::TIME, wire::encode(&time)?);
    plane.send(id, Leaf::Trust, &TrustUpdate::Time(envelope), QoS::AtLeastOnce).await;
    plane.live.change(id, |live| live.time_told = Some(hello.nonce));
    Ok(())
}

/// The desired state that the device is to have now: the newest one, or a new one where that is
/// outdated. It is committed when this returns.
async fn current_desired(
    plane: &Plane,
    root: &TrustedRoot,
    id: &DeviceId,
    live: &LiveDevice,
) -> Result<Told, PublishError> {
    let transaction = plane.db.begin().await?;
    let held = db::desired::get(&transaction, id).await?;
    let mut slots: Vec<_> = db::plans::placement(&transaction, id).await?.into_values().collect();
    let now_ms = now_ms();
    let need = Need {
        slots: db::plans::slots_digest(&slots),
        epoch: root.root().epoch,
        hello: live.hello.as_ref(),
        applied: live.reported.as_ref().and_then(|reported| reported.applied),
        now_ms,
    };
    let issued = held.as_ref().map(DesiredRecord::issued);
    let generation = match (held, issue::next(issued.as_ref(), need)?) {
        (Some(desired), None) => return Ok(Told::Desired { desired, is_new: false }),
        // `next` gives a number where there is none yet.
        (None, None) => return Err(CannotIssue::NoNext(need.applied.unwrap_or_default()).into()),
        (_, Some(generation)) => generation,
    };
    if let Some(why) = would_go_back(live, &slots, issued.as_ref(), &plane.routes.now()) {
        return Ok(Told::HeldBack(why));
    }
    let in_force = plane.floors.in_force(root);
    for slot in &mut slots {
        slot.floor = in_force.get(&slot.model).map(|held| held.floor.version);
    }
    let desired = Desired {
        fleet: root.root().fleet.clone(),
        device: id.clone(),
        fingerprint: live.fingerprint,
        generation,
        issued_ms: now_ms,
        expires_ms: now_ms + LIFE_MS,
        nonce: live.hello.as_ref().map(|hello| hello.nonce),
        root_version: root.root().version,
        slots,
    };
    let next = DesiredRecord {
        generation,
        payload: wire::encode(&desired)?,
        slots: need.slots,
        nonce: desired.nonce,
        issued_ms: desired.issued_ms,
        expires_ms: desired.expires_ms,
    };
    db::desired::put(&transaction, id, &next).await?;
    db::commit(transaction).await?;
    plane.chunks.forget_rights(id);
    Ok(Told::Desired { desired: next, is_new: true })
}

/// Why telling this device what we remember would take something from it only because our memory is
/// older than the fleet: a database restored from a backup. It keeps what it has until the catalog and
/// the deployments are up to date again, or an operator approves the way back.
fn would_go_back(live: &LiveDevice, slots: &[SlotSpec], issued: Option<&Issued>, known: &Table) -> Option<String> {
    let ahead = live.hello.as_ref().is_some_and(|hello| issue::is_ahead(hello, issued));
    if !ahead || live.may_go_back {
        return None;
    }
    let older = "this database is older than what the device holds";
    let Some(reported) = live.reported.as_ref().filter(|_| live.has_reported) else {
        return Some(format!("{older}, and it has yet to report what it runs"));
    };
    let lost = lost_with(reported, slots, known)?;
    Some(format!("{older}: {lost}; push and apply it again, or approve the way back with `muster plan approve`"))
}

/// What a device would lose with these slots that nobody remembers having wanted.
fn lost_with(reported: &Reported, slots: &[SlotSpec], known: &Table) -> Option<String> {
    reported.slots.iter().find_map(|report| {
        let running = report.running.as_ref()?;
        let slot = slots.iter().find(|slot| slot.deployment == report.deployment);
        match slot.filter(|slot| slot.model == running.model) {
            Some(slot) if running.version > slot.version => Some(format!(
                "it runs {} version {}, and only {} is known",
                running.model, running.version, slot.version
            )),
            None if !known.contains_key(&report.deployment) => {
                Some(format!("it serves {}, which is not known", report.deployment))
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use muster_shared::id::{BootId, Generation, Nonce};
    use muster_shared::message::Held;
    use muster_shared::reported::{BundleRef, Facts, Phase, SlotReport};
    use muster_shared::{Digest, Version};

    use super::*;
    use crate::routes::Route;
    use crate::trust::ca::tests::device_key;

    fn reported(version: u64) -> Reported {
        let bundle = BundleRef {
            model: "digits".parse().expect("a name"),
            version: Version::new(version).expect("positive"),
            manifest: Digest::of("manifest"),
        };
        Reported {
            device: "edge-1".parse().expect("an id"),
            boot: BootId([1; 16]),
            sequence: 1,
            at_ms: 1,
            root_version: 1,
            applied: None,
            desired_refused: None,
            facts: Facts::default(),
            slots: vec![SlotReport {
                deployment: "digits".parse().expect("a name"),
                phase: Phase::Serving,
                wanted: Some(bundle.clone()),
                running: Some(bundle),
                waiting: None,
                restarts: 0,
                measured: None,
            }],
            refusals: vec![],
            floors: vec![],
            health: Default::default(),
            notes: vec![],
        }
    }

    #[test]
    fn a_database_that_is_older_than_the_fleet_takes_nothing_back() {
        let generation = |number| Generation { epoch: 1, number };
        let mut live = crate::live::LiveDevice::of_key(&device_key().1);
        live.hello = Some(Hello {
            boot: BootId([1; 16]),
            nonce: Nonce([1; 16]),
            root_version: 1,
            holds: Some(Held { generation: generation(9), digest: Digest::of("payload") }),
            wants_time: false,
        });
        let issued = |number| Issued {
            generation: generation(number),
            digest: Digest::of("older"),
            slots: Digest::of("slots"),
            nonce: None,
            issued_ms: 0,
        };
        let slot =
            |version| SlotSpec { deployment: "digits".parse().expect("a name"), ..crate::status::tests::slot(version) };
        let route = Route { served: "digits".parse().expect("a name"), devices: [].into() };
        let known: Table = [("digits".parse().expect("a name"), route)].into();
        let check = |live: &LiveDevice, slots: &[SlotSpec], held, known: &Table, expected: Option<&str>| {
            let why = would_go_back(live, slots, Some(&issued(held)), known);
            match expected {
                None => assert_eq!(why, None),
                Some(part) => assert!(why.as_ref().is_some_and(|why| why.contains(part)), "{why:?}"),
            }
        };
        // It has yet to say what it runs.
        check(&live, &[slot(1)], 5, &known, Some("yet to report"));
        (live.has_reported, live.reported) = (true, Some(Arc::new(reported(2))));
        check(&live, &[slot(1)], 5, &known, Some("version 2, and only 1 is known"));
        check(&live, &[slot(2)], 5, &known, None);
        check(&live, &[slot(3)], 5, &known, None);
        // A memory that is not older may take anything back: that is what somebody wants.
        check(&live, &[slot(1)], 9, &known, None);
        // A replica that was elsewhere then goes there again; a deployment that nobody knows stays.
        check(&live, &[], 5, &known, None);
        check(&live, &[], 5, &Table::new(), Some("serves digits, which is not known"));
        live.may_go_back = true;
        check(&live, &[slot(1)], 5, &known, None);
    }
}
