//! Who is in the fleet, after enrolment: devices that wait, are held, are let in, are revoked; and what
//! follows when the database was put back from a backup.

use muster_shared::api::fleet::{EventView, Happening};
use muster_shared::api::members::Standing;
use muster_shared::id::UnixMs;
use muster_shared::limits::clip;
use muster_shared::{DeviceId, Digest};

use super::ledger::{Ledger, count_change};
use super::revocations::Revocations;
use crate::db::members::{Restored, Revoked};
use crate::db::{self, Db, DbError};
use crate::now_ms;
use crate::plane::Plane;

/// Why an operator's word on a device is not followed.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// No such device.
    #[error("there is no device {0}")]
    Unknown(DeviceId),
    /// Nothing to approve.
    #[error("device {0} waits for nothing")]
    NothingToApprove(DeviceId),
    /// It is gone for good.
    #[error("the key of device {0} is revoked, which cannot be taken back")]
    IsRevoked(DeviceId),
    /// It cannot be told, or another one would be told, too.
    #[error("device {0} is not let in, or is held, so it cannot be told to empty itself")]
    CannotBeTold(DeviceId),
    /// Only what is revoked is forgotten.
    #[error("it is one of the fleet, and not revoked")]
    NotRevoked(DeviceId),
    /// The list beside the database cannot be written.
    #[error("cannot write the list of revoked keys")]
    List(#[source] std::io::Error),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What is done when a plane starts, before any door opens.
pub async fn start(db: &Db, revocations: &Revocations, ledger: &Ledger, told: bool) -> anyhow::Result<()> {
    let now = now_ms();
    let (held, filed) = (db::members::count(db.read()).await?, ledger.count());
    let why = match (told, held < filed) {
        (true, _) => Some("the operator said so with --restored".to_owned()),
        (false, true) => Some(format!("the database is {} changes older than the ledger beside it", filed - held)),
        (false, false) => None,
    };
    // Each list completes the other: neither is lost with the other's file.
    revocations.add(&db::members::revocations(db.read()).await?)?;
    let transaction = db.begin().await?;
    for revoked in revocations.all() {
        db::members::revoke(&transaction, &revoked).await?;
        if let Some(id) = db::devices::by_key(&transaction, revoked.fingerprint).await?
            && db::members::standing(&transaction, &id).await?.standing != Standing::Revoked
        {
            stands_revoked(&transaction, &id, &revoked).await?;
        }
    }
    if let Some(why) = why {
        restored(&transaction, why, now).await?;
        db::members::set_count(&transaction, held.max(filed)).await?;
    }
    Ok(db::commit(transaction).await?)
}

/// Why nothing changes because the database was put back, for a person; none: it was not, or an operator
/// has approved.
pub async fn waits(db: &impl sea_orm::ConnectionTrait) -> Result<Option<String>, DbError> {
    let restored = db::members::restored(db).await?;
    Ok(restored
        .map(|restored| format!("the database was put back ({}): nothing changes until you approve", restored.why)))
}

/// The database went back: claims that it holds were perhaps spent, so none counts; nothing changes until
/// an operator approves.
async fn restored(db: &impl sea_orm::ConnectionTrait, why: String, now: UnixMs) -> Result<(), DbError> {
    let ended = db::claims::end_all(db, now).await?;
    let text = format!("{why}: {ended} claims count no more, and nothing changes until `muster plan approve`");
    tracing::warn!(text, "the database was put back");
    db::members::set_restored(db, Some(&Restored { since_ms: now, why })).await?;
    db::events::insert(db, &event(None, Happening::DatabaseRestored, text)).await
}

async fn stands_revoked(db: &impl sea_orm::ConnectionTrait, id: &DeviceId, revoked: &Revoked) -> Result<(), DbError> {
    db::members::set_standing(db, id, (Standing::Revoked, &revoked.reason), revoked.at_ms).await?;
    db::devices::forget_plans(db, id).await
}

/// Lets a device in that waits, takes one back that is held, lets a clone go on.
pub async fn approve(plane: &Plane, id: &DeviceId) -> Result<(), MemberError> {
    let now = now_ms();
    let stranger = plane.live.strangers().remove(id);
    let transaction = plane.db.begin().await?;
    let (kind, text) = match (db::devices::get(&transaction, id).await?, stranger) {
        (Some(_), _) => {
            let text = match db::members::standing(&transaction, id).await?.standing {
                Standing::Revoked => return Err(MemberError::IsRevoked(id.clone())),
                Standing::Member => return Err(MemberError::NothingToApprove(id.clone())),
                Standing::Waiting => (Happening::DeviceEnrolled, "an operator let it in"),
                Standing::Held => (Happening::DeviceEnrolled, "an operator took it back"),
                Standing::Cloned => (Happening::DeviceReturned, "an operator lets it go on"),
                Standing::Leaving => (Happening::DeviceReturned, "an operator keeps it"),
            };
            db::departures::forget(&transaction, id).await?;
            db::members::set_standing(&transaction, id, (Standing::Member, ""), now).await?;
            text
        }
        (None, Some(stranger)) => {
            if plane.revocations.has(&stranger.key.fingerprint()) {
                return Err(MemberError::IsRevoked(id.clone()));
            }
            db::devices::insert(&transaction, id, &stranger.key, now).await?;
            plane.live.enrolled(id, &stranger.key);
            (Happening::DeviceEnrolled, "an operator took it back; the database did not know it")
        }
        (None, None) => return Err(MemberError::Unknown(id.clone())),
    };
    db::events::insert(&transaction, &event(Some(id), kind, text.to_owned())).await?;
    db::commit(transaction).await?;
    plane.live.stands(id, Standing::Member, "");
    count_change(plane).await?;
    plane.nudges.planner.notify_one();
    plane.nudges.publisher.notify_one();
    Ok(())
}

/// Takes a device out of the fleet: from now on it gets nothing but the word to empty itself, as soon as it can be
/// told. Once it said that it is empty, its key is revoked ([`crate::tasks::departures`]).
pub async fn decommission(plane: &Plane, id: &DeviceId, reason: &str) -> Result<(), MemberError> {
    const WHY: &str = "an operator takes it out of the fleet; it has yet to say that it is empty";
    let reason = clip(reason.to_owned());
    let now = now_ms();
    // The planner may be about to store a plan with it.
    let deciding = plane.deciding.lock().await;
    let transaction = plane.db.begin().await?;
    if !db::devices::exists(&transaction, id).await? {
        return Err(MemberError::Unknown(id.clone()));
    }
    match db::members::standing(&transaction, id).await?.standing {
        // It has left since it was asked.
        Standing::Revoked if db::departures::is_confirmed(&transaction, id).await? => return Ok(()),
        Standing::Revoked => return Err(MemberError::IsRevoked(id.clone())),
        Standing::Leaving => return Ok(()),
        Standing::Waiting | Standing::Held | Standing::Cloned => return Err(MemberError::CannotBeTold(id.clone())),
        Standing::Member => {}
    }
    db::members::set_standing(&transaction, id, (Standing::Leaving, WHY), now).await?;
    db::departures::ask(&transaction, id, &reason, now).await?;
    db::devices::forget_plans(&transaction, id).await?;
    let text =
        if reason.is_empty() { "told to empty itself".to_owned() } else { format!("told to empty itself: {reason}") };
    db::events::insert(&transaction, &event(Some(id), Happening::DeviceLeaving, text)).await?;
    db::commit(transaction).await?;
    drop(deciding);
    plane.live.stands(id, Standing::Leaving, WHY);
    plane.gateway.device_is_gone(id);
    plane.chunks.forget_rights(id);
    count_change(plane).await?;
    plane.nudges.planner.notify_one();
    plane.nudges.departures.notify_one();
    Ok(())
}

/// A device proved that it is empty: that is written down, then its key is revoked.
pub async fn emptied(plane: &Plane, id: &DeviceId) -> Result<(), MemberError> {
    db::departures::confirm(plane.db.write(), id, now_ms()).await?;
    let_go(plane, id).await
}

/// Revokes the key of a device that is empty.
pub async fn let_go(plane: &Plane, id: &DeviceId) -> Result<(), MemberError> {
    revoke(plane, id, "decommissioned: it said that it is empty").await
}

/// Revokes a device's key: it is cut off at once, and never comes back.
pub async fn revoke(plane: &Plane, id: &DeviceId, reason: &str) -> Result<(), MemberError> {
    let known = db::devices::get(plane.db.read(), id).await?.map(|device| device.key.fingerprint());
    let stranger = plane.live.strangers().remove(id).map(|stranger| stranger.key.fingerprint());
    let fingerprint = known.or(stranger).ok_or_else(|| MemberError::Unknown(id.clone()))?;
    let revoked = Revoked { fingerprint, device: id.clone(), at_ms: now_ms(), reason: clip(reason.to_owned()) };
    // First who is connected, also where nothing can be written down; then what outlives the database.
    plane.live.stands(id, Standing::Revoked, &revoked.reason);
    if let Some(broker) = plane.broker.get() {
        broker.disconnect(id.as_str());
    }
    plane.revocations.add(std::slice::from_ref(&revoked)).map_err(MemberError::List)?;
    plane.gateway.device_is_gone(id);
    plane.chunks.forget_rights(id);
    // An operator may be changing a rollout, and the planner may be about to store a plan with it.
    let deciding = plane.deciding.lock().await;
    let transaction = plane.db.begin().await?;
    db::members::revoke(&transaction, &revoked).await?;
    if known.is_some() {
        stands_revoked(&transaction, id, &revoked).await?;
    }
    let text = if revoked.reason.is_empty() { "revoked".to_owned() } else { format!("revoked: {}", revoked.reason) };
    db::events::insert(&transaction, &event(Some(id), Happening::DeviceRevoked, text)).await?;
    db::commit(transaction).await?;
    drop(deciding);
    if known.is_none() {
        plane.live.forget(id);
    }
    count_change(plane).await?;
    plane.nudges.planner.notify_one();
    Ok(())
}

/// Forgets a revoked device, so that its name is free; its key stays revoked.
pub async fn forget(plane: &Plane, id: &DeviceId) -> Result<(), MemberError> {
    let deciding = plane.deciding.lock().await;
    let transaction = plane.db.begin().await?;
    if !db::devices::exists(&transaction, id).await? {
        return Err(MemberError::Unknown(id.clone()));
    }
    if db::members::standing(&transaction, id).await?.standing != Standing::Revoked {
        return Err(MemberError::NotRevoked(id.clone()));
    }
    db::devices::forget(&transaction, id).await?;
    db::commit(transaction).await?;
    drop(deciding);
    plane.live.forget(id);
    count_change(plane).await?;
    plane.nudges.planner.notify_one();
    Ok(())
}

/// Two agents speak with one key: the device serves on, and nothing about it changes.
pub async fn hold_clone(plane: &Plane, id: &DeviceId) -> Result<(), DbError> {
    const WHY: &str = "two agents speak with its key: it serves on, and nothing about it changes; \
                       stop the copy, then `muster approve` it, or revoke it and enrol it anew";
    let transaction = plane.db.begin().await?;
    if db::members::standing(&transaction, id).await?.standing != Standing::Member {
        return Ok(());
    }
    db::members::set_standing(&transaction, id, (Standing::Cloned, WHY), now_ms()).await?;
    db::events::insert(&transaction, &event(Some(id), Happening::DeviceHeld, WHY.to_owned())).await?;
    db::commit(transaction).await?;
    plane.live.stands(id, Standing::Cloned, WHY);
    tracing::warn!(device = %id, "two agents speak with one key");
    plane.nudges.planner.notify_one();
    Ok(())
}

/// An operator approves what follows from a database that was put back.
pub async fn approve_restored(plane: &Plane) -> Result<(), DbError> {
    db::members::set_restored(plane.db.write(), None).await
}

/// Whether a key may enrol or get another certificate.
pub fn may_come(plane: &Plane, fingerprint: &Digest) -> bool {
    !muster_shared::checks::on(muster_shared::checks::Check::EnrolledKey) || !plane.revocations.has(fingerprint)
}

/// An event that the plane writes.
pub fn event(device: Option<&DeviceId>, kind: Happening, text: String) -> EventView {
    EventView { at_ms: now_ms(), device: device.cloned(), kind, deployment: None, text: clip(text) }
}
