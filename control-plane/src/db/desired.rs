//! The newest desired state of each device: committed here first, signed and sent afterwards.

use muster_control_plane_core::issue::Issued;
use muster_shared::id::{Generation, Nonce, UnixMs};
use muster_shared::{DeviceId, Digest};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, name, one, unsigned};

/// A desired state as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredRecord {
    /// Its place in the order.
    pub generation: Generation,
    /// What is signed.
    pub payload: Vec<u8>,
    /// Its slots by content.
    pub slots: Digest,
    /// The nonce it names.
    pub nonce: Option<Nonce>,
    /// When it was made.
    pub issued_ms: UnixMs,
    /// When it ends.
    pub expires_ms: UnixMs,
}

impl DesiredRecord {
    /// What the next one follows from.
    pub fn issued(&self) -> Issued {
        Issued {
            generation: self.generation,
            digest: Digest::of(&self.payload),
            slots: self.slots,
            nonce: self.nonce,
            issued_ms: self.issued_ms,
        }
    }
}

#[derive(FromQueryResult)]
struct Row {
    epoch: i64,
    number: i64,
    payload: Vec<u8>,
    slots_sha256: Vec<u8>,
    nonce: Option<Vec<u8>>,
    issued_ms: i64,
    expires_ms: i64,
}

#[derive(FromQueryResult)]
struct DeviceRow {
    device: String,
}

#[derive(FromQueryResult)]
struct GenerationRow {
    device: String,
    epoch: i64,
    number: i64,
    slots_sha256: Vec<u8>,
}

/// The newest desired state of a device.
pub async fn get(db: &impl ConnectionTrait, device: &DeviceId) -> Result<Option<DesiredRecord>, DbError> {
    let doing = "read a desired state";
    let sql = "SELECT epoch, number, payload, slots_sha256, nonce, issued_ms, expires_ms FROM desired \
               WHERE device = $1";
    let row: Option<Row> = one(db, doing, sql, [device.as_str().into()]).await?;
    row.map(|row| record(doing, row)).transpose()
}

/// The generation of every device's newest desired state, and the digest of its slots.
pub async fn generations(
    db: &impl ConnectionTrait,
) -> Result<std::collections::BTreeMap<DeviceId, (Generation, Digest)>, DbError> {
    let doing = "read the generations";
    let sql = "SELECT device, epoch, number, slots_sha256 FROM desired";
    let rows: Vec<GenerationRow> = all(db, doing, sql, []).await?;
    let generation = |row: GenerationRow| {
        let generation = Generation { epoch: unsigned(row.epoch), number: unsigned(row.number) };
        Ok((name(doing, &row.device)?, (generation, super::digest(doing, &row.slots_sha256)?)))
    };
    rows.into_iter().map(generation).collect()
}

/// Devices whose newest desired state is not what the plan wants, is of another epoch, or was made
/// before `made_before_ms`.
pub async fn outdated(db: &impl ConnectionTrait, epoch: u64, made_before_ms: UnixMs) -> Result<Vec<DeviceId>, DbError> {
    let doing = "find outdated desired states";
    let sql = "SELECT placements.device AS device FROM placements \
               LEFT JOIN desired ON desired.device = placements.device \
               WHERE (desired.device IS NULL AND placements.slots <> '[]') \
               OR desired.slots_sha256 <> placements.sha256 OR desired.epoch <> $1 OR desired.issued_ms < $2 \
               ORDER BY placements.device";
    let rows: Vec<DeviceRow> = all(db, doing, sql, [big(epoch).into(), big(made_before_ms).into()]).await?;
    rows.iter().map(|row| name(doing, &row.device)).collect()
}

/// Puts a desired state in the place of the one before it. In the transaction that read that one.
pub async fn put(db: &impl ConnectionTrait, device: &DeviceId, desired: &DesiredRecord) -> Result<(), DbError> {
    let sql = "INSERT INTO desired (device, epoch, number, payload, slots_sha256, nonce, issued_ms, expires_ms) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
               ON CONFLICT (device) DO UPDATE SET epoch = excluded.epoch, number = excluded.number, \
               payload = excluded.payload, slots_sha256 = excluded.slots_sha256, nonce = excluded.nonce, \
               issued_ms = excluded.issued_ms, expires_ms = excluded.expires_ms";
    let values = [
        device.as_str().into(),
        big(desired.generation.epoch).into(),
        big(desired.generation.number).into(),
        desired.payload.clone().into(),
        desired.slots.0.to_vec().into(),
        desired.nonce.map(|nonce| nonce.0.to_vec()).into(),
        big(desired.issued_ms).into(),
        big(desired.expires_ms).into(),
    ];
    execute(db, "store a desired state", sql, values).await.map(drop)
}

fn record(doing: &'static str, row: Row) -> Result<DesiredRecord, DbError> {
    Ok(DesiredRecord {
        generation: Generation { epoch: unsigned(row.epoch), number: unsigned(row.number) },
        payload: row.payload,
        slots: super::digest(doing, &row.slots_sha256)?,
        nonce: row.nonce.and_then(|bytes| bytes.try_into().ok()).map(Nonce),
        issued_ms: unsigned(row.issued_ms),
        expires_ms: unsigned(row.expires_ms),
    })
}
