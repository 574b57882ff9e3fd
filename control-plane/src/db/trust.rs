//! Root documents, by version.

use muster_shared::id::UnixMs;
use muster_shared::signing::Envelope;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, to_json};

#[derive(FromQueryResult)]
struct Row {
    envelope: String,
}

/// Every root, by version.
pub async fn roots(db: &impl ConnectionTrait) -> Result<Vec<Envelope>, DbError> {
    let doing = "read the roots";
    let rows: Vec<Row> = all(db, doing, "SELECT envelope FROM roots ORDER BY version", []).await?;
    rows.iter().map(|row| json(doing, &row.envelope)).collect()
}

/// Adds a root that was verified.
pub async fn insert(
    db: &impl ConnectionTrait,
    version: u64,
    envelope: &Envelope,
    now_ms: UnixMs,
) -> Result<(), DbError> {
    let sql = "INSERT INTO roots (version, envelope, added_ms) VALUES ($1, $2, $3)";
    let values = [big(version).into(), to_json(envelope).into(), big(now_ms).into()];
    execute(db, "store a root", sql, values).await.map(drop)
}
