//! Devices that were told to empty themselves, and when they said that they had.

use std::collections::BTreeMap;

use muster_shared::DeviceId;
use muster_shared::api::members::Departure;
use muster_shared::id::UnixMs;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, name, unsigned};

#[derive(FromQueryResult)]
struct Row {
    device: String,
    asked_ms: i64,
    confirmed_ms: Option<i64>,
}

/// Notes that an operator wants a device out, and why.
pub async fn ask(db: &impl ConnectionTrait, id: &DeviceId, reason: &str, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO departures (device, reason, asked_ms) VALUES ($1, $2, $3) \
               ON CONFLICT (device) DO UPDATE SET reason = excluded.reason, asked_ms = excluded.asked_ms, \
               confirmed_ms = NULL";
    let values = [id.as_str().into(), reason.into(), big(now_ms).into()];
    execute(db, "note that a device is to leave", sql, values).await.map(drop)
}

/// Notes that a device said that it is empty.
pub async fn confirm(db: &impl ConnectionTrait, id: &DeviceId, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "UPDATE departures SET confirmed_ms = $2 WHERE device = $1 AND confirmed_ms IS NULL";
    execute(db, "note that a device is empty", sql, [id.as_str().into(), big(now_ms).into()]).await.map(drop)
}

/// Whether a device said that it is empty.
pub async fn is_confirmed(db: &impl ConnectionTrait, id: &DeviceId) -> Result<bool, DbError> {
    Ok(list(db).await?.get(id).is_some_and(|departure| departure.confirmed_ms.is_some()))
}

/// A device stays after all.
pub async fn forget(db: &impl ConnectionTrait, id: &DeviceId) -> Result<(), DbError> {
    let sql = "DELETE FROM departures WHERE device = $1";
    execute(db, "note that a device stays", sql, [id.as_str().into()]).await.map(drop)
}

/// All that were told to.
pub async fn list(db: &impl ConnectionTrait) -> Result<BTreeMap<DeviceId, Departure>, DbError> {
    let doing = "read which devices leave";
    let rows: Vec<Row> = all(db, doing, "SELECT device, asked_ms, confirmed_ms FROM departures", []).await?;
    let departure = |row: Row| {
        let departure = Departure { asked_ms: unsigned(row.asked_ms), confirmed_ms: row.confirmed_ms.map(unsigned) };
        Ok((name(doing, &row.device)?, departure))
    };
    rows.into_iter().map(departure).collect()
}
