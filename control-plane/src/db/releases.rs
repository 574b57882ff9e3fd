//! Releases of the agent, in the envelopes that prove them.

use muster_shared::id::UnixMs;
use muster_shared::release::ReleaseVersion;
use muster_shared::signing::Envelope;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, to_json, unsigned};

/// A release as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRecord {
    /// The release in its envelope.
    pub envelope: Envelope,
    /// When it was pushed.
    pub pushed_ms: UnixMs,
}

#[derive(FromQueryResult)]
struct Row {
    envelope: String,
    pushed_ms: i64,
}

/// Every release, as it came.
pub async fn list(db: &impl ConnectionTrait) -> Result<Vec<ReleaseRecord>, DbError> {
    let doing = "list the releases";
    let rows: Vec<Row> = all(db, doing, "SELECT envelope, pushed_ms FROM releases ORDER BY pushed_ms", []).await?;
    let record =
        |row: Row| Ok(ReleaseRecord { envelope: json(doing, &row.envelope)?, pushed_ms: unsigned(row.pushed_ms) });
    rows.into_iter().map(record).collect()
}

/// Puts a release that was verified, or the same one signed anew.
pub async fn put(
    db: &impl ConnectionTrait,
    version: &ReleaseVersion,
    envelope: &Envelope,
    now_ms: UnixMs,
) -> Result<(), DbError> {
    let sql = "INSERT INTO releases (version, envelope, pushed_ms) VALUES ($1, $2, $3) \
               ON CONFLICT (version) DO UPDATE SET envelope = excluded.envelope";
    let values = [version.to_string().into(), to_json(envelope).into(), big(now_ms).into()];
    execute(db, "store a release", sql, values).await.map(drop)
}
