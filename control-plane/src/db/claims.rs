//! Claims: the right to enrol a number of devices, each spent by a key.

use muster_shared::Digest;
use muster_shared::api::ClaimView;
use muster_shared::id::{Labels, UnixMs};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, digest, execute, json, one, to_json, unsigned};

/// A claim as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRecord {
    /// Its public id.
    pub id: [u8; 8],
    /// The digest of its secret.
    pub secret: Digest,
    /// How many keys may spend it.
    pub uses: u64,
    /// Labels of every device enrolled with it.
    pub labels: Labels,
    /// When it ends.
    pub expires_ms: UnixMs,
}

#[derive(FromQueryResult)]
struct Row {
    secret_sha256: Vec<u8>,
    uses: i64,
    labels: String,
    expires_ms: i64,
}

#[derive(FromQueryResult)]
struct ViewRow {
    id: Vec<u8>,
    uses: i64,
    used: i64,
    expires_ms: i64,
}

#[derive(FromQueryResult)]
struct KeyRow {
    fingerprint: Vec<u8>,
}

/// Adds a claim.
pub async fn insert(db: &impl ConnectionTrait, claim: &ClaimRecord, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO claims (id, secret_sha256, uses, labels, created_ms, expires_ms) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let values = [
        claim.id.to_vec().into(),
        claim.secret.0.to_vec().into(),
        big(claim.uses).into(),
        to_json(&claim.labels).into(),
        big(now_ms).into(),
        big(claim.expires_ms).into(),
    ];
    execute(db, "store a claim", sql, values).await.map(drop)
}

/// The claim with this id.
pub async fn get(db: &impl ConnectionTrait, id: [u8; 8]) -> Result<Option<ClaimRecord>, DbError> {
    let doing = "look up a claim";
    let sql = "SELECT secret_sha256, uses, labels, expires_ms FROM claims WHERE id = $1";
    let Some(row) = one::<Row>(db, doing, sql, [id.to_vec().into()]).await? else { return Ok(None) };
    Ok(Some(ClaimRecord {
        id,
        secret: digest(doing, &row.secret_sha256)?,
        uses: unsigned(row.uses),
        labels: json(doing, &row.labels)?,
        expires_ms: unsigned(row.expires_ms),
    }))
}

/// Claims, the newest first, without their secrets.
pub async fn list(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<ClaimView>, DbError> {
    let sql = "SELECT id, uses, expires_ms, \
               (SELECT COUNT(*) FROM claim_keys WHERE claim_keys.claim = claims.id) AS used \
               FROM claims ORDER BY created_ms DESC, id LIMIT $1";
    let rows: Vec<ViewRow> = all(db, "list the claims", sql, [big(limit).into()]).await?;
    let count = |number: i64| number.try_into().unwrap_or(u32::MAX);
    let view = |row: ViewRow| ClaimView {
        id: hex::encode(&row.id),
        uses: count(row.uses),
        used: count(row.used),
        expires_ms: unsigned(row.expires_ms),
        labels: Labels::default(),
        may_label: vec![],
        may_label_anything: true,
        needs_approval: false,
        void: false,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// The fingerprints of the keys that spent a claim.
pub async fn keys(db: &impl ConnectionTrait, claim: [u8; 8]) -> Result<Vec<Digest>, DbError> {
    let doing = "read who spent a claim";
    let sql = "SELECT fingerprint FROM claim_keys WHERE claim = $1";
    let rows: Vec<KeyRow> = all(db, doing, sql, [claim.to_vec().into()]).await?;
    rows.iter().map(|row| digest(doing, &row.fingerprint)).collect()
}

/// Notes that a key spent a claim.
pub async fn spend(db: &impl ConnectionTrait, claim: [u8; 8], key: Digest, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO claim_keys (claim, fingerprint, spent_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let values = [claim.to_vec().into(), key.0.to_vec().into(), big(now_ms).into()];
    execute(db, "spend a claim", sql, values).await.map(drop)
}

/// Forgets claims that ended before `before_ms`; the devices they enrolled stay.
pub async fn forget(db: &impl ConnectionTrait, before_ms: UnixMs) -> Result<u64, DbError> {
    let ended = "SELECT id FROM claims WHERE expires_ms < $1";
    let keys = format!("DELETE FROM claim_keys WHERE claim IN ({ended})");
    execute(db, "forget who spent old claims", &keys, [big(before_ms).into()]).await?;
    let sql = "DELETE FROM claims WHERE expires_ms < $1";
    execute(db, "forget old claims", sql, [big(before_ms).into()]).await
}
