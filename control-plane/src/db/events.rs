//! Things that happened on devices; the oldest give way.

use muster_shared::api::fleet::EventView;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, name, to_json, unsigned};

#[derive(FromQueryResult)]
struct Row {
    at_ms: i64,
    device: Option<String>,
    kind: String,
    deployment: Option<String>,
    particulars: String,
}

/// Adds an event.
pub async fn insert(db: &impl ConnectionTrait, event: &EventView) -> Result<(), DbError> {
    let sql = "INSERT INTO events (id, at_ms, device, kind, deployment, particulars) VALUES ($1, $2, $3, $4, $5, $6)";
    let values = [
        // Ordered by time, also within a millisecond.
        uuid::Uuid::now_v7().to_string().into(),
        big(event.at_ms).into(),
        event.device.as_ref().map(ToString::to_string).into(),
        to_json(&event.kind).into(),
        event.deployment.as_ref().map(ToString::to_string).into(),
        event.text.as_str().into(),
    ];
    execute(db, "store an event", sql, values).await.map(drop)
}

/// The newest events.
pub async fn newest(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<EventView>, DbError> {
    let doing = "list the events";
    let sql = "SELECT at_ms, device, kind, deployment, particulars FROM events ORDER BY at_ms DESC, id DESC LIMIT $1";
    let rows: Vec<Row> = all(db, doing, sql, [big(limit).into()]).await?;
    let event = |row: Row| {
        Ok(EventView {
            at_ms: unsigned(row.at_ms),
            device: row.device.map(|text| name(doing, &text)).transpose()?,
            kind: json(doing, &row.kind)?,
            deployment: row.deployment.map(|text| name(doing, &text)).transpose()?,
            text: row.particulars,
        })
    };
    rows.into_iter().map(event).collect()
}

/// Keeps the newest `keep` events.
pub async fn trim(db: &impl ConnectionTrait, keep: u64) -> Result<u64, DbError> {
    let sql = "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY at_ms DESC, id DESC LIMIT $1 OFFSET $2)";
    // PostgreSQL knows no OFFSET without end in SQLite's spelling; so many rows are without end.
    const ALL: u64 = i64::MAX as u64;
    execute(db, "forget old events", sql, [big(ALL).into(), big(keep).into()]).await
}
