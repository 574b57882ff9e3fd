//! The planner's output: the slots wanted of each device, and what it says of each deployment.

use std::collections::BTreeMap;

use muster_control_plane_core::decide::Note;
use muster_control_plane_core::fleet::Slots;
use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::{DeploymentName, DeviceId, Digest, Version};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, name, one, to_json, unsigned};

/// What the planner says of one deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The `metadata.generation` that was planned.
    pub generation: u64,
    /// The version that the rule means.
    pub version: Option<Version>,
    /// Replicas wanted, counted out where every device is to have one.
    pub wanted: u32,
    /// Why replicas wait: a word and a sentence.
    pub waiting: Option<(String, String)>,
}

/// Since when a condition holds, or does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Whether it holds.
    pub holds: bool,
    /// Since when.
    pub since_ms: UnixMs,
}

#[derive(FromQueryResult)]
struct PlacementRow {
    device: String,
    slots: String,
}

#[derive(FromQueryResult)]
struct NotesRow {
    device: String,
    notes: String,
}

#[derive(FromQueryResult)]
struct VerdictRow {
    deployment: String,
    generation: i64,
    version: Option<i64>,
    wanted: i64,
    waiting_word: Option<String>,
    waiting: Option<String>,
}

#[derive(FromQueryResult)]
struct ConditionRow {
    deployment: String,
    kind: String,
    holds: i64,
    since_ms: i64,
}

/// The name of a device's slots by content: equal slots, equal digests.
pub fn slots_digest(slots: &[SlotSpec]) -> Digest {
    Digest::of(to_json(&slots))
}

/// The slots wanted of every device.
pub async fn placements(db: &impl ConnectionTrait) -> Result<BTreeMap<DeviceId, Slots>, DbError> {
    let doing = "read the plan";
    let rows: Vec<PlacementRow> = all(db, doing, "SELECT device, slots FROM placements", []).await?;
    rows.iter().map(|row| Ok((name(doing, &row.device)?, slots(doing, &row.slots)?))).collect()
}

/// The slots wanted of one device.
pub async fn placement(db: &impl ConnectionTrait, device: &DeviceId) -> Result<Slots, DbError> {
    let doing = "read a device's plan";
    let sql = "SELECT device, slots FROM placements WHERE device = $1";
    let row: Option<PlacementRow> = one(db, doing, sql, [device.as_str().into()]).await?;
    row.map_or(Ok(Slots::new()), |row| slots(doing, &row.slots))
}

/// Stores the slots wanted of one device.
pub async fn set_placement(db: &impl ConnectionTrait, device: &DeviceId, slots: &Slots) -> Result<(), DbError> {
    let slots: Vec<SlotSpec> = slots.values().cloned().collect();
    let sql = "INSERT INTO placements (device, slots, sha256) VALUES ($1, $2, $3) \
               ON CONFLICT (device) DO UPDATE SET slots = excluded.slots, sha256 = excluded.sha256";
    let values = [device.as_str().into(), to_json(&slots).into(), slots_digest(&slots).0.to_vec().into()];
    execute(db, "store a device's plan", sql, values).await.map(drop)
}

/// Why each replica is on its device.
pub type Notes = BTreeMap<DeploymentName, Note>;

/// Why every replica is on its device.
pub async fn notes(db: &impl ConnectionTrait) -> Result<BTreeMap<DeviceId, Notes>, DbError> {
    let doing = "read why replicas are where they are";
    let rows: Vec<NotesRow> = all(db, doing, "SELECT device, notes FROM placement_notes", []).await?;
    rows.iter().map(|row| Ok((name(doing, &row.device)?, json(doing, &row.notes)?))).collect()
}

/// Stores why the replicas of one device are there.
pub async fn set_notes(db: &impl ConnectionTrait, device: &DeviceId, notes: &Notes) -> Result<(), DbError> {
    let sql = "INSERT INTO placement_notes (device, notes) VALUES ($1, $2) \
               ON CONFLICT (device) DO UPDATE SET notes = excluded.notes";
    execute(db, "store why replicas are where they are", sql, [device.as_str().into(), to_json(notes).into()])
        .await
        .map(drop)
}

/// What the planner said of every deployment.
pub async fn verdicts(db: &impl ConnectionTrait) -> Result<BTreeMap<DeploymentName, Verdict>, DbError> {
    let doing = "read the planner's verdicts";
    let sql = "SELECT deployment, generation, version, wanted, waiting_word, waiting FROM verdicts";
    let rows: Vec<VerdictRow> = all(db, doing, sql, []).await?;
    let verdict = |row: VerdictRow| {
        let verdict = Verdict {
            generation: unsigned(row.generation),
            version: row.version.and_then(|version| Version::new(unsigned(version))),
            wanted: unsigned(row.wanted).try_into().unwrap_or(u32::MAX),
            waiting: row.waiting_word.zip(row.waiting),
        };
        Ok((name(doing, &row.deployment)?, verdict))
    };
    rows.into_iter().map(verdict).collect()
}

/// Stores what the planner says of one deployment.
pub async fn set_verdict(db: &impl ConnectionTrait, of: &DeploymentName, verdict: &Verdict) -> Result<(), DbError> {
    let sql = "INSERT INTO verdicts (deployment, generation, version, wanted, waiting_word, waiting) \
               VALUES ($1, $2, $3, $4, $5, $6) \
               ON CONFLICT (deployment) DO UPDATE SET generation = excluded.generation, version = excluded.version, \
               wanted = excluded.wanted, waiting_word = excluded.waiting_word, waiting = excluded.waiting";
    let (word, sentence) = verdict.waiting.clone().unzip();
    let values = [
        of.as_str().into(),
        big(verdict.generation).into(),
        verdict.version.map(|version| big(version.get())).into(),
        i64::from(verdict.wanted).into(),
        word.into(),
        sentence.into(),
    ];
    execute(db, "store the planner's verdict", sql, values).await.map(drop)
}

/// Every condition that was noted, by deployment and kind.
pub async fn conditions(db: &impl ConnectionTrait) -> Result<BTreeMap<(DeploymentName, String), Held>, DbError> {
    let doing = "read the conditions";
    let sql = "SELECT deployment, kind, holds, since_ms FROM conditions";
    let rows: Vec<ConditionRow> = all(db, doing, sql, []).await?;
    let held = |row: ConditionRow| {
        let held = Held { holds: row.holds != 0, since_ms: unsigned(row.since_ms) };
        Ok(((name(doing, &row.deployment)?, row.kind), held))
    };
    rows.into_iter().map(held).collect()
}

/// Notes since when a condition holds, or does not.
pub async fn set_condition(
    db: &impl ConnectionTrait,
    of: &DeploymentName,
    kind: &str,
    held: Held,
) -> Result<(), DbError> {
    let sql = "INSERT INTO conditions (deployment, kind, holds, since_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (deployment, kind) DO UPDATE SET holds = excluded.holds, since_ms = excluded.since_ms";
    let values = [of.as_str().into(), kind.into(), i64::from(held.holds).into(), big(held.since_ms).into()];
    execute(db, "note a condition", sql, values).await.map(drop)
}

/// Forgets what was said of a deployment that is gone. In a transaction.
pub async fn forget(db: &impl ConnectionTrait, of: &DeploymentName) -> Result<(), DbError> {
    for sql in ["DELETE FROM verdicts WHERE deployment = $1", "DELETE FROM conditions WHERE deployment = $1"] {
        execute(db, "forget a deployment's verdict", sql, [of.as_str().into()]).await?;
    }
    super::rollouts::forget(db, of).await
}

fn slots(doing: &'static str, text: &str) -> Result<Slots, DbError> {
    let slots: Vec<SlotSpec> = json(doing, text)?;
    Ok(slots.into_iter().map(|slot| (slot.deployment.clone(), slot)).collect())
}
