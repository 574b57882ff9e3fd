//! Devices: who they are, and what they last said under their signature.

use std::collections::BTreeMap;

use muster_shared::api::fleet::Schedule;
use muster_shared::id::{BootId, Labels, UnixMs};
use muster_shared::reported::Reported;
use muster_shared::signing::device::DevicePublicKey;
use muster_shared::{DeviceId, Digest, wire};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, name, one, unsigned};

/// Runs of an agent that are remembered as over; the oldest give way.
const PAST_BOOTS_MAX: usize = 32;

/// Whose labels: a claim's win over its owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The operator who made the claim.
    Claim,
    /// Whoever enrolled the device.
    Owner,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Owner => "owner",
        }
    }
}

/// A device as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceRecord {
    /// Its id.
    pub id: DeviceId,
    /// Its key.
    pub key: DevicePublicKey,
    /// When it was enrolled.
    pub enrolled_ms: UnixMs,
    /// When it last reported.
    pub last_seen_ms: Option<UnixMs>,
    /// What an operator wants of it.
    pub schedule: Schedule,
    /// What it last reported.
    pub reported: Option<Reported>,
    /// Labels of its claim and of its owner.
    pub labels: Labels,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    spki: Vec<u8>,
    enrolled_ms: i64,
    last_seen_ms: Option<i64>,
    cordoned: i64,
    reported: Option<Vec<u8>>,
}

#[derive(FromQueryResult)]
struct LabelRow {
    device: String,
    label: String,
    content: String,
}

#[derive(FromQueryResult)]
struct IdRow {
    id: String,
}

#[derive(FromQueryResult)]
struct BootsRow {
    reported: Option<Vec<u8>>,
    past_boots: Vec<u8>,
}

const COLUMNS: &str = "SELECT id, spki, enrolled_ms, last_seen_ms, cordoned, reported FROM devices";

/// Every device.
pub async fn list(db: &impl ConnectionTrait) -> Result<Vec<DeviceRecord>, DbError> {
    let doing = "list the devices";
    let rows: Vec<Row> = all(db, doing, &format!("{COLUMNS} ORDER BY id"), []).await?;
    let mut labels = labels(db, doing, None).await?;
    rows.into_iter().map(|row| record(doing, row, &mut labels)).collect()
}

/// One device.
pub async fn get(db: &impl ConnectionTrait, id: &DeviceId) -> Result<Option<DeviceRecord>, DbError> {
    let doing = "look up a device";
    let sql = format!("{COLUMNS} WHERE id = $1");
    let Some(row) = one::<Row>(db, doing, &sql, [id.as_str().into()]).await? else { return Ok(None) };
    let mut labels = labels(db, doing, Some(id)).await?;
    record(doing, row, &mut labels).map(Some)
}

/// The device with this key.
pub async fn by_key(db: &impl ConnectionTrait, fingerprint: Digest) -> Result<Option<DeviceId>, DbError> {
    let doing = "look up a key";
    let sql = "SELECT id FROM devices WHERE fingerprint = $1";
    let row: Option<IdRow> = one(db, doing, sql, [fingerprint.0.to_vec().into()]).await?;
    row.map(|row| name(doing, &row.id)).transpose()
}

/// Whether the name is taken.
pub async fn exists(db: &impl ConnectionTrait, id: &DeviceId) -> Result<bool, DbError> {
    let sql = "SELECT id FROM devices WHERE id = $1";
    let row: Option<IdRow> = one(db, "look up a device", sql, [id.as_str().into()]).await?;
    Ok(row.is_some())
}

/// Enrols a device.
pub async fn insert(
    db: &impl ConnectionTrait,
    id: &DeviceId,
    key: &DevicePublicKey,
    now_ms: UnixMs,
) -> Result<(), DbError> {
    let sql = "INSERT INTO devices (id, fingerprint, spki, enrolled_ms, cordoned, past_boots) \
               VALUES ($1, $2, $3, $4, 0, $5)";
    let values = [
        id.as_str().into(),
        key.fingerprint().0.to_vec().into(),
        key.spki().to_vec().into(),
        big(now_ms).into(),
        Vec::<u8>::new().into(),
    ];
    execute(db, "enrol a device", sql, values).await.map(drop)
}

/// Puts `labels` in the place of those of the same source.
pub async fn set_labels(
    db: &impl ConnectionTrait,
    id: &DeviceId,
    source: Source,
    labels: &Labels,
) -> Result<(), DbError> {
    let doing = "label a device";
    let sql = "DELETE FROM device_labels WHERE device = $1 AND source = $2";
    execute(db, doing, sql, [id.as_str().into(), source.as_str().into()]).await?;
    let sql = "INSERT INTO device_labels (device, source, label, content) VALUES ($1, $2, $3, $4)";
    for (label, content) in labels {
        let values = [id.as_str().into(), source.as_str().into(), label.as_str().into(), content.as_str().into()];
        execute(db, doing, sql, values).await?;
    }
    Ok(())
}

/// Forgets a device, and all that was meant for it.
pub async fn forget(db: &impl ConnectionTrait, id: &DeviceId) -> Result<(), DbError> {
    for sql in [
        "DELETE FROM devices WHERE id = $1",
        "DELETE FROM device_labels WHERE device = $1",
        "DELETE FROM placements WHERE device = $1",
        "DELETE FROM placement_notes WHERE device = $1",
        "DELETE FROM desired WHERE device = $1",
        "DELETE FROM standings WHERE device = $1",
        "DELETE FROM departures WHERE device = $1",
    ] {
        execute(db, "forget a device", sql, [id.as_str().into()]).await?;
    }
    Ok(())
}

/// Forgets what a device was to have: it is one of the fleet no more.
pub async fn forget_plans(db: &impl ConnectionTrait, id: &DeviceId) -> Result<(), DbError> {
    for sql in [
        "DELETE FROM placements WHERE device = $1",
        "DELETE FROM placement_notes WHERE device = $1",
        "DELETE FROM desired WHERE device = $1",
    ] {
        execute(db, "forget what a device was to have", sql, [id.as_str().into()]).await?;
    }
    Ok(())
}

/// Notes what an operator wants of a device; says whether there is such a device.
pub async fn set_schedule(db: &impl ConnectionTrait, id: &DeviceId, schedule: Schedule) -> Result<bool, DbError> {
    let number: i64 = match schedule {
        Schedule::Open => 0,
        Schedule::Cordoned => 1,
        Schedule::Draining => 2,
    };
    let sql = "UPDATE devices SET cordoned = $2 WHERE id = $1";
    let changed = execute(db, "note what is wanted of a device", sql, [id.as_str().into(), number.into()]).await?;
    Ok(changed > 0)
}

/// Cordoned was a yes or no once, so that is what the column is called.
fn schedule(number: i64) -> Schedule {
    match number {
        0 => Schedule::Open,
        2 => Schedule::Draining,
        _ => Schedule::Cordoned,
    }
}

/// What a report is to what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Later: stored.
    New,
    /// Of an earlier run of the agent, or not later than what is held: dropped.
    Old,
}

/// Stores a verified report, if it is later than what is held. In a transaction.
pub async fn store_report(
    db: &impl ConnectionTrait,
    reported: &Reported,
    bytes: &[u8],
    now_ms: UnixMs,
) -> Result<Order, DbError> {
    let doing = "store a report";
    let sql = "SELECT reported, past_boots FROM devices WHERE id = $1";
    let id = reported.device.as_str();
    let Some(row) = one::<BootsRow>(db, doing, sql, [id.into()]).await? else { return Ok(Order::Old) };
    let held = row.reported.as_deref().map(|bytes| decode(doing, bytes)).transpose()?;
    let held = held.map(|held| (held.boot, held.sequence));
    let Some(past_boots) = next_boots(held, (reported.boot, reported.sequence), &row.past_boots) else {
        return Ok(Order::Old);
    };
    let sql = "UPDATE devices SET reported = $2, past_boots = $3, last_seen_ms = $4 WHERE id = $1";
    let values = [id.into(), bytes.to_vec().into(), past_boots.into(), big(now_ms).into()];
    execute(db, doing, sql, values).await?;
    Ok(Order::New)
}

/// The runs that are over once a report of `offered` (run and sequence number) is taken; nothing if
/// it must not be taken. An earlier run's reports are replays: a run never comes back.
fn next_boots(held: Option<(BootId, u64)>, offered: (BootId, u64), past: &[u8]) -> Option<Vec<u8>> {
    let past_runs = past.as_chunks::<16>().0;
    match held {
        _ if past_runs.contains(&offered.0.0) => None,
        Some((boot, sequence)) if boot == offered.0 => (offered.1 > sequence).then(|| past.to_vec()),
        Some((boot, _)) => {
            let oldest = (past_runs.len() + 1).saturating_sub(PAST_BOOTS_MAX);
            Some(past_runs.iter().skip(oldest).flatten().chain(&boot.0).copied().collect())
        }
        None => Some(past.to_vec()),
    }
}

fn record(doing: &'static str, row: Row, labels: &mut BTreeMap<DeviceId, Labels>) -> Result<DeviceRecord, DbError> {
    let id: DeviceId = name(doing, &row.id)?;
    Ok(DeviceRecord {
        labels: labels.remove(&id).unwrap_or_default(),
        key: DevicePublicKey::from_spki(&row.spki).map_err(|error| DbError::corrupt(doing, error))?,
        enrolled_ms: unsigned(row.enrolled_ms),
        last_seen_ms: row.last_seen_ms.map(unsigned),
        schedule: schedule(row.cordoned),
        reported: row.reported.as_deref().map(|bytes| decode(doing, bytes)).transpose()?,
        id,
    })
}

fn decode(doing: &'static str, bytes: &[u8]) -> Result<Reported, DbError> {
    wire::decode(bytes).map_err(|error| DbError::corrupt(doing, error))
}

/// Labels of one device or of all; a claim's win.
async fn labels(
    db: &impl ConnectionTrait,
    doing: &'static str,
    of: Option<&DeviceId>,
) -> Result<BTreeMap<DeviceId, Labels>, DbError> {
    let (filter, values) = match of {
        Some(id) => ("WHERE device = $1", vec![id.as_str().into()]),
        None => ("", vec![]),
    };
    // `owner` comes before `claim` in this order, so the claim's label is the last one inserted.
    let sql = format!("SELECT device, label, content FROM device_labels {filter} ORDER BY device, source DESC");
    let rows: Vec<LabelRow> = all(db, doing, &sql, values).await?;
    let mut labels: BTreeMap<DeviceId, Labels> = BTreeMap::new();
    for row in rows {
        let device = labels.entry(name(doing, &row.device)?).or_default();
        device.insert(name(doing, &row.label)?, name(doing, &row.content)?);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_the_past_are_not_taken() {
        let boot = |number: u8| BootId([number; 16]);
        let first = next_boots(None, (boot(1), 5), &[]).expect("the first report");
        assert!(first.is_empty());
        let held = Some((boot(1), 5));
        assert!(next_boots(held, (boot(1), 6), &first).is_some());
        assert_eq!(next_boots(held, (boot(1), 5), &first), None);
        assert_eq!(next_boots(held, (boot(1), 4), &first), None);
        let second = next_boots(held, (boot(2), 1), &first).expect("a new run");
        assert_eq!(second, [1; 16]);
        assert_eq!(next_boots(Some((boot(2), 1)), (boot(1), 99), &second), None);
    }

    #[test]
    fn only_so_many_runs_are_remembered() {
        let mut past = Vec::new();
        for number in 0..100u8 {
            let held = Some((BootId([number; 16]), 1));
            past = next_boots(held, (BootId([number + 1; 16]), 1), &past).expect("a new run");
        }
        assert_eq!(past.len(), PAST_BOOTS_MAX * 16);
        assert!(past.ends_with(&[99; 16]));
    }
}
