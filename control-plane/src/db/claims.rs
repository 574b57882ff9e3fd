//! Claims: the right to enrol a number of devices, each spent by a key.

use muster_shared::api::ClaimView;
use muster_shared::id::{LabelText, Labels, UnixMs};
use muster_shared::{DeviceId, Digest};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, digest, execute, json, name, one, to_json, unsigned};

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
    /// What it allows.
    pub terms: Terms,
    /// The name that its device gets.
    pub name: Option<DeviceId>,
    /// Whether it counts no more.
    pub void: bool,
}

/// What a claim allows beside enrolling.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Labels that a device may set itself.
    pub may_label: Vec<LabelText>,
    /// Whether it may set any.
    pub anything: bool,
    /// Whether an operator lets each device in by hand.
    pub needs_approval: bool,
}

#[derive(FromQueryResult)]
struct Row {
    id: Vec<u8>,
    secret_sha256: Vec<u8>,
    uses: i64,
    used: i64,
    labels: String,
    expires_ms: i64,
    may_label: Option<String>,
    anything: Option<i64>,
    needs_approval: Option<i64>,
    device: Option<String>,
    ended_ms: Option<i64>,
}

/// The count is asked for where it is shown; whoever enrols reads the keys themselves.
const COLUMNS: &str = "SELECT claims.id AS id, secret_sha256, uses, labels, expires_ms, may_label, anything, \
                       needs_approval, claim_names.device AS device, claim_ends.at_ms AS ended_ms";
const TABLES: &str = "FROM claims LEFT JOIN claim_terms ON claim_terms.claim = claims.id \
                      LEFT JOIN claim_names ON claim_names.claim = claims.id \
                      LEFT JOIN claim_ends ON claim_ends.claim = claims.id";

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
    execute(db, "store a claim", sql, values).await?;
    let sql = "INSERT INTO claim_terms (claim, may_label, anything, needs_approval) VALUES ($1, $2, $3, $4)";
    let values = [
        claim.id.to_vec().into(),
        to_json(&claim.terms.may_label).into(),
        i64::from(claim.terms.anything).into(),
        i64::from(claim.terms.needs_approval).into(),
    ];
    execute(db, "store what a claim allows", sql, values).await?;
    let Some(device) = &claim.name else { return Ok(()) };
    let sql = "INSERT INTO claim_names (claim, device) VALUES ($1, $2)";
    let values = [claim.id.to_vec().into(), device.as_str().into()];
    execute(db, "store the name of a device to come", sql, values).await.map(drop)
}

/// The claims by which a device of this name may still come.
pub async fn open_for(db: &impl ConnectionTrait, device: &DeviceId, now_ms: UnixMs) -> Result<Vec<[u8; 8]>, DbError> {
    #[derive(FromQueryResult)]
    struct Open {
        id: Vec<u8>,
    }
    let doing = "look up who is to have a name";
    let sql = "SELECT claims.id AS id FROM claim_names JOIN claims ON claims.id = claim_names.claim \
               WHERE claim_names.device = $1 AND claims.expires_ms > $2 \
               AND NOT EXISTS (SELECT 1 FROM claim_ends WHERE claim_ends.claim = claims.id) \
               AND NOT EXISTS (SELECT 1 FROM claim_keys WHERE claim_keys.claim = claims.id)";
    let rows: Vec<Open> = all(db, doing, sql, [device.as_str().into(), big(now_ms).into()]).await?;
    let id = |row: Open| row.id.try_into().map_err(|_| DbError::corrupt(doing, "an id of the wrong length"));
    rows.into_iter().map(id).collect()
}

/// The claim with this id.
pub async fn get(db: &impl ConnectionTrait, id: [u8; 8]) -> Result<Option<ClaimRecord>, DbError> {
    let doing = "look up a claim";
    let sql = format!("{COLUMNS}, 0 AS used {TABLES} WHERE claims.id = $1");
    let row: Option<Row> = one(db, doing, &sql, [id.to_vec().into()]).await?;
    row.map(|row| record(doing, row)).transpose()
}

fn record(doing: &'static str, row: Row) -> Result<ClaimRecord, DbError> {
    let may_label = row.may_label.as_deref().map(|text| json(doing, text)).transpose()?;
    Ok(ClaimRecord {
        id: row.id.try_into().map_err(|_| DbError::corrupt(doing, "an id of the wrong length"))?,
        secret: digest(doing, &row.secret_sha256)?,
        uses: unsigned(row.uses),
        labels: json(doing, &row.labels)?,
        expires_ms: unsigned(row.expires_ms),
        terms: Terms {
            may_label: may_label.unwrap_or_default(),
            anything: row.anything.is_none_or(|anything| anything != 0),
            needs_approval: row.needs_approval.is_some_and(|needs| needs != 0),
        },
        name: row.device.map(|text| name(doing, &text)).transpose()?,
        void: row.ended_ms.is_some(),
    })
}

/// Claims, the newest first, without their secrets.
pub async fn list(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<ClaimView>, DbError> {
    let doing = "list the claims";
    let sql = format!(
        "{COLUMNS}, (SELECT COUNT(*) FROM claim_keys WHERE claim_keys.claim = claims.id) AS used \
         {TABLES} ORDER BY claims.created_ms DESC, claims.id LIMIT $1"
    );
    let rows: Vec<Row> = all(db, doing, &sql, [big(limit).into()]).await?;
    let view = |row: Row| {
        let used = unsigned(row.used).try_into().unwrap_or(u32::MAX);
        let claim = record(doing, row)?;
        Ok(ClaimView {
            id: hex::encode(claim.id),
            uses: claim.uses.try_into().unwrap_or(u32::MAX),
            used,
            name: claim.name,
            expires_ms: claim.expires_ms,
            labels: claim.labels,
            may_label: claim.terms.may_label,
            may_label_anything: claim.terms.anything,
            needs_approval: claim.terms.needs_approval,
            void: claim.void,
        })
    };
    rows.into_iter().map(view).collect()
}

/// Makes a claim count no more; says whether there is one.
pub async fn end(db: &impl ConnectionTrait, id: [u8; 8], now_ms: UnixMs) -> Result<bool, DbError> {
    if get(db, id).await?.is_none() {
        return Ok(false);
    }
    let sql = "INSERT INTO claim_ends (claim, at_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    execute(db, "end a claim", sql, [id.to_vec().into(), big(now_ms).into()]).await?;
    Ok(true)
}

/// Makes every claim count no more.
pub async fn end_all(db: &impl ConnectionTrait, now_ms: UnixMs) -> Result<u64, DbError> {
    // Without the WHERE, SQLite takes ON CONFLICT for a join.
    let sql = "INSERT INTO claim_ends (claim, at_ms) SELECT id, $1 FROM claims WHERE true ON CONFLICT DO NOTHING";
    execute(db, "end all claims", sql, [big(now_ms).into()]).await
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
    for table in ["claim_keys", "claim_terms", "claim_names", "claim_ends"] {
        let sql = format!("DELETE FROM {table} WHERE claim IN ({ended})");
        execute(db, "forget what belongs to old claims", &sql, [big(before_ms).into()]).await?;
    }
    let sql = "DELETE FROM claims WHERE expires_ms < $1";
    execute(db, "forget old claims", sql, [big(before_ms).into()]).await
}
