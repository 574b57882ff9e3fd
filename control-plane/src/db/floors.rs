//! Version floors, by model.

use muster_shared::floor::Floor;
use muster_shared::id::UnixMs;
use muster_shared::signing::Envelope;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, to_json};

#[derive(FromQueryResult)]
struct Row {
    envelope: String,
}

/// Every floor in its envelope, by model.
pub async fn list(db: &impl ConnectionTrait) -> Result<Vec<Envelope>, DbError> {
    let doing = "read the version floors";
    let rows: Vec<Row> = all(db, doing, "SELECT envelope FROM floors ORDER BY model", []).await?;
    rows.iter().map(|row| json(doing, &row.envelope)).collect()
}

/// Puts a floor that was verified in the place of the one before it.
pub async fn put(db: &impl ConnectionTrait, floor: &Floor, envelope: &Envelope, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO floors (model, version, envelope, added_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (model) DO UPDATE SET version = excluded.version, envelope = excluded.envelope, \
               added_ms = excluded.added_ms";
    let values =
        [floor.model.as_str().into(), big(floor.version.get()).into(), to_json(envelope).into(), big(now_ms).into()];
    execute(db, "store a version floor", sql, values).await.map(drop)
}
