//! Tells devices what is wanted of them: commits the next generation first, signs and sends only what
//! is committed.
//!
//! A `hello` is answered with what differs: the roots the device does not have yet, then the desired
//! state if it holds another one, or none.

use std::sync::Arc;
use std::time::Duration;

use muster_shared::desired::{Desired, SignedDesired};
use muster_shared::id::{Generation, UnixMs};
use muster_shared::message::{Hello, TrustUpdate};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::topic::Leaf;
use muster_shared::wire::{self, WireError};
use muster_shared::{DeviceId, Digest};
use sea_orm::ConnectionTrait;

use crate::broker::QoS;
use crate::db::desired::DesiredRecord;
use crate::db::{self, DbError};
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;

const PAUSE: Duration = Duration::from_millis(10);
const PERIOD: Duration = Duration::from_secs(30);
/// How long a desired state counts; a new one is signed at half of it.
const LIFE_MS: UnixMs = 7 * 86_400_000;
/// How far a device's claim may lie above the database. A database restored from a backup is behind
/// by what was signed since; a claim further off is a lie or a stolen director's jump, for which the
/// root's epoch is the way back.
const JUMP_MAX: u64 = 1 << 32;

/// Publishes until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    let wake = &plane.nudges.publisher;
    super::repeat(&plane, "publisher", wake, (PAUSE, PERIOD), async |plane: &Plane| publish(plane).await).await;
}

/// Why a device cannot be told anything.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("the device claims generation {claimed}, too far above {known}")]
    Jump { claimed: Generation, known: u64 },
    #[error("there is no generation after {0}")]
    NoNext(Generation),
    #[error("the desired state does not fit")]
    Wire(#[from] WireError),
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
    let due: Vec<DeviceId> = plane.live.read(|devices| {
        let lacks_root = |device: &LiveDevice, hello: &Hello| hello.root_version.max(device.root_sent) < newest;
        let is_due = |device: &LiveDevice| {
            let hello = device.hello.as_ref().filter(|_| device.connected);
            hello.is_some_and(|hello| device.hello_is_due || lacks_root(device, hello))
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
        (due, live.clone())
    });
    let Some((hello_is_due, live)) = taken else { return Ok(()) };
    send_roots(plane, root, id, &live).await;
    let hello = live.hello.as_ref();
    let outcome = current_desired(plane, root, id, &live).await;
    if outcome.is_err() && hello_is_due {
        // Not answered after all.
        plane.live.change(id, |live| live.hello_is_due |= live.hello == hello.cloned());
    }
    let (desired, is_new) = outcome?;
    let lacks = hello_is_due && hello.is_some_and(|hello| lacks(hello, &desired));
    if live.connected && (is_new || lacks) {
        let envelope = Envelope::sign(payload_type::DESIRED, desired.payload, &[&plane.director]);
        plane.send(id, Leaf::Desired, &SignedDesired(envelope), QoS::AtLeastOnce).await;
        tracing::info!(device = %id, generation = %desired.generation, "desired state sent");
    }
    Ok(())
}

/// Sends the roots that the device does not have yet, one by one.
async fn send_roots(plane: &Plane, root: &TrustedRoot, id: &DeviceId, live: &LiveDevice) {
    let Some(hello) = &live.hello else { return };
    let known = hello.root_version.max(live.root_sent);
    if !live.connected || known >= root.root().version {
        return;
    }
    for root in plane.trust.after(known) {
        plane.send(id, Leaf::Trust, &TrustUpdate { root }, QoS::AtLeastOnce).await;
    }
    plane.live.change(id, |live| live.root_sent = root.root().version);
}

/// The desired state that the device is to have now: the newest one, or a new one where that is
/// outdated. Says whether it is new; it is committed when this returns.
async fn current_desired(
    plane: &Plane,
    root: &TrustedRoot,
    id: &DeviceId,
    live: &LiveDevice,
) -> Result<(DesiredRecord, bool), PublishError> {
    let transaction = plane.db.begin().await?;
    let held = db::desired::get(&transaction, id).await?;
    let next = next_desired(&transaction, root, id, live, held.as_ref()).await?;
    let Some(next) = next else {
        // `next_desired` makes one where there is none.
        return held.map(|held| (held, false)).ok_or(PublishError::NoNext(Generation::default()));
    };
    db::desired::put(&transaction, id, &next).await?;
    db::commit(transaction).await?;
    plane.chunks.forget_rights(id);
    Ok((next, true))
}

/// The next desired state, where the newest one is not what the device needs.
async fn next_desired(
    db: &impl ConnectionTrait,
    root: &TrustedRoot,
    id: &DeviceId,
    live: &LiveDevice,
    held: Option<&DesiredRecord>,
) -> Result<Option<DesiredRecord>, PublishError> {
    let slots: Vec<_> = db::plans::placement(db, id).await?.into_values().collect();
    let digest = db::plans::slots_digest(&slots);
    let (epoch, now) = (root.root().epoch, now_ms());
    if held.is_some_and(|held| stands(held, digest, epoch, now, live.hello.as_ref())) {
        return Ok(None);
    }
    let applied = live.reported.as_ref().and_then(|reported| reported.applied);
    let holds = live.hello.as_ref().and_then(|hello| hello.holds).map(|held| held.generation);
    let claims: Vec<Generation> = applied.into_iter().chain(holds).collect();
    let desired = Desired {
        fleet: root.root().fleet.clone(),
        device: id.clone(),
        fingerprint: live.fingerprint,
        generation: next_generation(epoch, held.map(|held| held.generation), &claims)?,
        issued_ms: now,
        expires_ms: now + LIFE_MS,
        nonce: live.hello.as_ref().map(|hello| hello.nonce),
        slots,
    };
    Ok(Some(DesiredRecord {
        generation: desired.generation,
        payload: wire::encode(&desired)?,
        slots: digest,
        nonce: desired.nonce,
        issued_ms: desired.issued_ms,
        expires_ms: desired.expires_ms,
    }))
}

/// Whether the newest desired state is still the right one for the device.
fn stands(held: &DesiredRecord, slots: Digest, epoch: u64, now: UnixMs, hello: Option<&Hello>) -> bool {
    let fresh = held.issued_ms + LIFE_MS / 2 > now;
    let acceptable = match hello.map(|hello| (hello.holds, hello.nonce)) {
        // A device without state takes only an answer to this very hello.
        Some((None, nonce)) => held.nonce == Some(nonce),
        // What it holds must be older, or the same.
        Some((Some(theirs), _)) => {
            theirs.generation < held.generation
                || theirs.generation == held.generation && theirs.digest == held.digest()
        }
        None => true,
    };
    held.slots == slots && held.generation.epoch == epoch && fresh && acceptable
}

/// Whether the device has yet to get this desired state.
fn lacks(hello: &Hello, desired: &DesiredRecord) -> bool {
    hello.holds.is_none_or(|theirs| theirs.generation != desired.generation || theirs.digest != desired.digest())
}

/// The number after everything that is known of this epoch: to the database, to the device.
fn next_generation(epoch: u64, known: Option<Generation>, claims: &[Generation]) -> Result<Generation, PublishError> {
    let this_epoch = |generation: &Generation| generation.epoch == epoch;
    let known = known.filter(this_epoch).map_or(0, |generation| generation.number);
    let claimed = claims.iter().copied().filter(this_epoch).max();
    if let Some(claimed) = claimed
        && claimed.number.saturating_sub(known) > JUMP_MAX
    {
        return Err(PublishError::Jump { claimed, known });
    }
    let highest = claimed.map_or(known, |claimed| claimed.number.max(known));
    let next = highest.checked_add(1).filter(|number| i64::try_from(*number).is_ok());
    let number = next.ok_or(PublishError::NoNext(Generation { epoch, number: highest }))?;
    Ok(Generation { epoch, number })
}

#[cfg(test)]
mod tests {
    use muster_shared::id::{BootId, Nonce};
    use muster_shared::message::Held;

    use super::*;

    fn at(epoch: u64, number: u64) -> Generation {
        Generation { epoch, number }
    }

    #[test]
    fn a_generation_is_above_all_that_is_known_in_its_epoch() {
        for (epoch, known, claims, expected) in [
            (1, None, vec![], Some(1)),
            (1, Some(at(1, 5)), vec![], Some(6)),
            // A database from a backup does not strand the fleet.
            (1, Some(at(1, 5)), vec![at(1, 9), at(1, 7)], Some(10)),
            // Another epoch's numbers mean nothing here: the way back from a stolen director's jump.
            (2, Some(at(1, 5)), vec![at(1, u64::MAX)], Some(1)),
            // A claim too far off is not believed.
            (1, Some(at(1, 5)), vec![at(1, 6 + JUMP_MAX)], None),
            (1, Some(at(1, i64::MAX as u64)), vec![], None),
        ] {
            let next = next_generation(epoch, known, &claims).ok();
            assert_eq!(next, expected.map(|number| at(epoch, number)), "{known:?} {claims:?}");
        }
    }

    #[test]
    fn a_desired_state_stands_until_something_speaks_against_it() {
        let slots = Digest::of("slots");
        let held = DesiredRecord {
            generation: at(1, 5),
            payload: b"payload".to_vec(),
            slots,
            nonce: Some(Nonce([1; 16])),
            issued_ms: 1000,
            expires_ms: 1000 + LIFE_MS,
        };
        let hello = |holds: Option<(Generation, Digest)>, nonce: u8| Hello {
            boot: BootId([0; 16]),
            nonce: Nonce([nonce; 16]),
            root_version: 1,
            holds: holds.map(|(generation, digest)| Held { generation, digest }),
        };
        let now = 2000;
        assert!(stands(&held, slots, 1, now, None));
        assert!(!stands(&held, Digest::of("others"), 1, now, None));
        assert!(!stands(&held, slots, 2, now, None));
        assert!(!stands(&held, slots, 1, 1000 + LIFE_MS / 2, None));
        // A device without state needs its own nonce.
        assert!(stands(&held, slots, 1, now, Some(&hello(None, 1))));
        assert!(!stands(&held, slots, 1, now, Some(&hello(None, 2))));
        // One with state: the same or an older one.
        for (generation, digest, expected) in [
            (at(1, 5), held.digest(), true),
            (at(1, 5), Digest::of("conflict"), false),
            (at(1, 4), Digest::of("older"), true),
            (at(1, 6), Digest::of("newer"), false),
        ] {
            let hello = hello(Some((generation, digest)), 2);
            assert_eq!(stands(&held, slots, 1, now, Some(&hello)), expected, "{generation}");
            assert_eq!(lacks(&hello, &held), generation != held.generation || digest != held.digest());
        }
    }
}
