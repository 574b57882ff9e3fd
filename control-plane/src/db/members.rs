//! Who is in the fleet: standings, revoked keys, the factory list, and the count by which a database
//! that went back is told.

use std::collections::BTreeMap;

use muster_shared::api::members::{FactoryKey, FactoryView, Standing};
use muster_shared::id::{Labels, UnixMs};
use muster_shared::{DeviceId, Digest};
use sea_orm::{ConnectionTrait, FromQueryResult};
use serde::{Deserialize, Serialize};

use super::{DbError, all, big, digest, execute, json, name, one, to_json, unsigned};

/// A device's standing, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StandingRecord {
    /// The standing.
    pub standing: Standing,
    /// Why, for a person.
    pub why: String,
}

/// A key that never comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// The key.
    pub fingerprint: Digest,
    /// Whose it was.
    pub device: DeviceId,
    /// When it was revoked.
    pub at_ms: UnixMs,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// The database went back to an earlier state, and nobody has approved yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// When that was found.
    pub since_ms: UnixMs,
    /// By what.
    pub why: String,
}

#[derive(FromQueryResult)]
struct StandingRow {
    device: String,
    standing: String,
    reason: String,
}

#[derive(FromQueryResult)]
struct RevokedRow {
    fingerprint: Vec<u8>,
    device: String,
    reason: String,
    at_ms: i64,
}

#[derive(FromQueryResult)]
struct FactoryRow {
    fingerprint: Vec<u8>,
    device: Option<String>,
    labels: String,
    spent_ms: Option<i64>,
}

#[derive(FromQueryResult)]
struct DocumentRow {
    document: String,
}

const COUNT: &str = "count";
const RESTORED: &str = "restored";

/// Every device that is not simply a member.
pub async fn standings(db: &impl ConnectionTrait) -> Result<BTreeMap<DeviceId, StandingRecord>, DbError> {
    let doing = "read who is held";
    let rows: Vec<StandingRow> = all(db, doing, "SELECT device, standing, reason FROM standings", []).await?;
    let record = |row: StandingRow| {
        let record = StandingRecord { standing: json(doing, &row.standing)?, why: row.reason };
        Ok((name(doing, &row.device)?, record))
    };
    rows.into_iter().map(record).collect()
}

/// One device's standing.
pub async fn standing(db: &impl ConnectionTrait, id: &DeviceId) -> Result<StandingRecord, DbError> {
    let doing = "read whether a device is held";
    let sql = "SELECT device, standing, reason FROM standings WHERE device = $1";
    let row: Option<StandingRow> = one(db, doing, sql, [id.as_str().into()]).await?;
    row.map_or_else(
        || Ok(StandingRecord::default()),
        |row| Ok(StandingRecord { standing: json(doing, &row.standing)?, why: row.reason }),
    )
}

/// Notes a device's standing.
pub async fn set_standing(
    db: &impl ConnectionTrait,
    id: &DeviceId,
    (standing, why): (Standing, &str),
    now_ms: UnixMs,
) -> Result<(), DbError> {
    let doing = "note a device's standing";
    if standing == Standing::Member {
        return execute(db, doing, "DELETE FROM standings WHERE device = $1", [id.as_str().into()]).await.map(drop);
    }
    let sql = "INSERT INTO standings (device, standing, reason, since_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (device) DO UPDATE SET standing = excluded.standing, reason = excluded.reason, \
               since_ms = excluded.since_ms";
    let values = [id.as_str().into(), to_json(&standing).into(), why.into(), big(now_ms).into()];
    execute(db, doing, sql, values).await.map(drop)
}

/// Every revoked key.
pub async fn revocations(db: &impl ConnectionTrait) -> Result<Vec<Revoked>, DbError> {
    let doing = "read which keys are revoked";
    let sql = "SELECT fingerprint, device, reason, at_ms FROM revocations ORDER BY at_ms";
    let rows: Vec<RevokedRow> = all(db, doing, sql, []).await?;
    let revoked = |row: RevokedRow| {
        Ok(Revoked {
            fingerprint: digest(doing, &row.fingerprint)?,
            device: name(doing, &row.device)?,
            at_ms: unsigned(row.at_ms),
            reason: row.reason,
        })
    };
    rows.into_iter().map(revoked).collect()
}

/// Notes that a key is revoked.
pub async fn revoke(db: &impl ConnectionTrait, revoked: &Revoked) -> Result<(), DbError> {
    let sql = "INSERT INTO revocations (fingerprint, device, reason, at_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT DO NOTHING";
    let values = [
        revoked.fingerprint.0.to_vec().into(),
        revoked.device.as_str().into(),
        revoked.reason.as_str().into(),
        big(revoked.at_ms).into(),
    ];
    execute(db, "note that a key is revoked", sql, values).await.map(drop)
}

/// How many keys are on the factory list.
pub async fn factory_count(db: &impl ConnectionTrait) -> Result<u64, DbError> {
    #[derive(FromQueryResult)]
    struct Row {
        keys: i64,
    }
    let sql = "SELECT COUNT(*) AS keys FROM factory_keys";
    Ok(one::<Row>(db, "count the factory list", sql, []).await?.map_or(0, |row| unsigned(row.keys)))
}

/// Puts a key on the factory list; one that is there and unspent takes the new words.
pub async fn factory_add(db: &impl ConnectionTrait, key: &FactoryKey, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO factory_keys (fingerprint, device, labels, added_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (fingerprint) DO UPDATE SET device = excluded.device, labels = excluded.labels \
               WHERE factory_keys.spent_ms IS NULL";
    let values = [
        key.fingerprint.0.to_vec().into(),
        key.name.as_ref().map(ToString::to_string).into(),
        to_json(&key.labels).into(),
        big(now_ms).into(),
    ];
    execute(db, "put a key on the factory list", sql, values).await.map(drop)
}

/// One key on the factory list.
pub async fn factory_get(db: &impl ConnectionTrait, fingerprint: Digest) -> Result<Option<FactoryView>, DbError> {
    let doing = "look up the factory list";
    let sql = "SELECT fingerprint, device, labels, spent_ms FROM factory_keys WHERE fingerprint = $1";
    let row: Option<FactoryRow> = one(db, doing, sql, [fingerprint.0.to_vec().into()]).await?;
    row.map(|row| factory_view(doing, row)).transpose()
}

/// The factory list.
pub async fn factory_list(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<FactoryView>, DbError> {
    let doing = "read the factory list";
    let sql = "SELECT fingerprint, device, labels, spent_ms FROM factory_keys ORDER BY added_ms, fingerprint LIMIT $1";
    let rows: Vec<FactoryRow> = all(db, doing, sql, [big(limit).into()]).await?;
    rows.into_iter().map(|row| factory_view(doing, row)).collect()
}

fn factory_view(doing: &'static str, row: FactoryRow) -> Result<FactoryView, DbError> {
    let labels: Labels = json(doing, &row.labels)?;
    Ok(FactoryView {
        fingerprint: digest(doing, &row.fingerprint)?,
        name: row.device.map(|text| name(doing, &text)).transpose()?,
        labels,
        spent_ms: row.spent_ms.map(unsigned),
    })
}

/// Notes that a key on the factory list enrolled.
pub async fn factory_spend(db: &impl ConnectionTrait, fingerprint: Digest, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "UPDATE factory_keys SET spent_ms = $2 WHERE fingerprint = $1 AND spent_ms IS NULL";
    let values = [fingerprint.0.to_vec().into(), big(now_ms).into()];
    execute(db, "spend a key of the factory list", sql, values).await.map(drop)
}

/// Takes a key off the factory list; says whether it was there.
pub async fn factory_remove(db: &impl ConnectionTrait, fingerprint: Digest) -> Result<bool, DbError> {
    let sql = "DELETE FROM factory_keys WHERE fingerprint = $1";
    let gone = execute(db, "take a key off the factory list", sql, [fingerprint.0.to_vec().into()]).await?;
    Ok(gone > 0)
}

/// Whether the database went back to an earlier state, and nobody has approved yet.
pub async fn restored(db: &impl ConnectionTrait) -> Result<Option<Restored>, DbError> {
    document(db, RESTORED).await
}

/// Notes that the database went back, or with none that an operator approved.
pub async fn set_restored(db: &impl ConnectionTrait, restored: Option<&Restored>) -> Result<(), DbError> {
    match restored {
        Some(restored) => set_document(db, RESTORED, restored).await,
        None => {
            let sql = "DELETE FROM documents WHERE name = $1";
            execute(db, "note an approval", sql, [RESTORED.into()]).await.map(drop)
        }
    }
}

/// How often something changed that must not be forgotten.
pub async fn count(db: &impl ConnectionTrait) -> Result<u64, DbError> {
    Ok(document(db, COUNT).await?.unwrap_or(0))
}

/// Sets that count.
pub async fn set_count(db: &impl ConnectionTrait, count: u64) -> Result<(), DbError> {
    set_document(db, COUNT, &count).await
}

async fn document<T: serde::de::DeserializeOwned>(
    db: &impl ConnectionTrait,
    called: &'static str,
) -> Result<Option<T>, DbError> {
    let doing = "read a document";
    let sql = "SELECT document FROM documents WHERE name = $1";
    let row: Option<DocumentRow> = one(db, doing, sql, [called.into()]).await?;
    row.map(|row| json(doing, &row.document)).transpose()
}

async fn set_document(
    db: &impl ConnectionTrait,
    called: &'static str,
    content: &impl Serialize,
) -> Result<(), DbError> {
    let sql = "INSERT INTO documents (name, document) VALUES ($1, $2) \
               ON CONFLICT (name) DO UPDATE SET document = excluded.document";
    execute(db, "store a document", sql, [called.into(), to_json(content).into()]).await.map(drop)
}
