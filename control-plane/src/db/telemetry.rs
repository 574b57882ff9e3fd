//! Telemetry: each batch counted once, however often it arrives.

use std::collections::BTreeMap;

use muster_shared::api::fleet::ModelView;
use muster_shared::id::UnixMs;
use muster_shared::sketch::Sketch;
use muster_shared::telemetry::{Batch, HostSample, ModelSample};
use muster_shared::{DeviceId, wire};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, name, one, to_json, unsigned};

#[derive(FromQueryResult)]
struct TotalRow {
    requests: i64,
    errors: i64,
    cpu_us: i64,
    latency: Vec<u8>,
}

#[derive(FromQueryResult)]
struct ModelRow {
    device: String,
    deployment: String,
    version: i64,
    requests: i64,
    errors: i64,
    cpu_us: i64,
    latency: Vec<u8>,
}

#[derive(FromQueryResult)]
struct HostRow {
    device: String,
    sample: String,
}

/// Stores a verified batch; says whether it is news. In a transaction.
pub async fn store(db: &impl ConnectionTrait, batch: &Batch, now_ms: UnixMs) -> Result<bool, DbError> {
    let doing = "store a telemetry batch";
    let bytes = wire::encode(batch).map_err(|error| DbError::corrupt(doing, error))?;
    let sql = "INSERT INTO batches (device, boot, sequence, received_ms, until_ms, batch) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let values = [
        batch.device.as_str().into(),
        batch.boot.0.to_vec().into(),
        big(batch.sequence).into(),
        big(now_ms).into(),
        big(batch.until_ms).into(),
        bytes.into(),
    ];
    if execute(db, doing, sql, values).await? == 0 {
        return Ok(false);
    }
    let sql = "INSERT INTO hosts (device, until_ms, sample) VALUES ($1, $2, $3) \
               ON CONFLICT (device) DO UPDATE SET until_ms = excluded.until_ms, sample = excluded.sample \
               WHERE excluded.until_ms >= hosts.until_ms";
    let values = [batch.device.as_str().into(), big(batch.until_ms).into(), to_json(&batch.host).into()];
    execute(db, doing, sql, values).await?;
    for sample in &batch.models {
        add(db, &batch.device, sample, now_ms).await?;
    }
    Ok(true)
}

/// Adds one model's sample to its sums.
async fn add(
    db: &impl ConnectionTrait,
    device: &DeviceId,
    sample: &ModelSample,
    now_ms: UnixMs,
) -> Result<(), DbError> {
    let doing = "sum up telemetry";
    let key = [device.as_str().into(), sample.deployment.as_str().into(), big(sample.version.get()).into()];
    let sql = "SELECT requests, errors, cpu_us, latency FROM models \
               WHERE device = $1 AND deployment = $2 AND version = $3";
    let held: Option<TotalRow> = one(db, doing, sql, key.clone()).await?;
    let mut latency = held.as_ref().map_or_else(Sketch::default, |row| sketch(&row.latency));
    latency.merge(&sample.latency);
    let sum = |part: fn(&TotalRow) -> i64, more: u64| held.as_ref().map_or(0, part).saturating_add(big(more));
    let sql = "INSERT INTO models (device, deployment, version, requests, errors, cpu_us, latency, received_ms) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (device, deployment, version) DO UPDATE SET \
               requests = excluded.requests, errors = excluded.errors, cpu_us = excluded.cpu_us, \
               latency = excluded.latency, received_ms = excluded.received_ms";
    let sums = [
        sum(|row| row.requests, sample.requests).into(),
        sum(|row| row.errors, sample.errors).into(),
        sum(|row| row.cpu_us, sample.cpu_us).into(),
        postcard::to_stdvec(&latency).unwrap_or_default().into(),
        big(now_ms).into(),
    ];
    execute(db, doing, sql, key.into_iter().chain(sums)).await.map(drop)
}

/// The newest sample of each machine.
pub async fn hosts(db: &impl ConnectionTrait) -> Result<BTreeMap<DeviceId, HostSample>, DbError> {
    let doing = "read the machines' samples";
    let rows: Vec<HostRow> = all(db, doing, "SELECT device, sample FROM hosts", []).await?;
    rows.iter().map(|row| Ok((name(doing, &row.device)?, json(doing, &row.sample)?))).collect()
}

/// The sums of each model on each device.
pub async fn models(db: &impl ConnectionTrait) -> Result<BTreeMap<DeviceId, Vec<ModelView>>, DbError> {
    let doing = "read the models' sums";
    let sql = "SELECT device, deployment, version, requests, errors, cpu_us, latency FROM models \
               ORDER BY device, deployment, version";
    let rows: Vec<ModelRow> = all(db, doing, sql, []).await?;
    let mut models: BTreeMap<DeviceId, Vec<ModelView>> = BTreeMap::new();
    for row in rows {
        let latency = sketch(&row.latency);
        models.entry(name(doing, &row.device)?).or_default().push(ModelView {
            deployment: name(doing, &row.deployment)?,
            version: unsigned(row.version),
            requests: unsigned(row.requests),
            errors: unsigned(row.errors),
            cpu_us: unsigned(row.cpu_us),
            figures: None,
            p50_us: latency.quantile(0.5),
            p99_us: latency.quantile(0.99),
        });
    }
    Ok(models)
}

/// Forgets batches received before `before_ms`, and sums of models that have said nothing since.
pub async fn forget(db: &impl ConnectionTrait, before_ms: UnixMs) -> Result<u64, DbError> {
    let mut forgotten = 0;
    for sql in ["DELETE FROM batches WHERE received_ms < $1", "DELETE FROM models WHERE received_ms < $1"] {
        forgotten += execute(db, "forget old telemetry", sql, [big(before_ms).into()]).await?;
    }
    Ok(forgotten)
}

/// A sketch that is no longer readable starts again, empty.
fn sketch(bytes: &[u8]) -> Sketch {
    postcard::from_bytes(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use muster_shared::Version;
    use muster_shared::id::BootId;

    use super::*;
    use crate::db::{TelemetryDb, commit};

    fn batch(sequence: u64, micros: u64) -> Batch {
        let mut latency = Sketch::default();
        latency.record(micros);
        Batch {
            device: "edge-1".parse().expect("an id"),
            boot: BootId([1; 16]),
            sequence,
            from_ms: sequence * 10,
            until_ms: sequence * 10 + 10,
            host: HostSample { cpu_permille: sequence as u32, ..HostSample::default() },
            models: vec![ModelSample {
                deployment: "digits".parse().expect("a name"),
                model: "digits".parse().expect("a name"),
                version: Version::new(1).expect("positive"),
                requests: 1,
                errors: 0,
                cpu_us: 5,
                latency,
            }],
        }
    }

    #[tokio::test]
    async fn a_batch_that_comes_twice_counts_once_and_late_ones_do_not_rewind() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = TelemetryDb::open(&folder.path().join("telemetry.db")).await.expect("a database");
        for (sequence, news) in [(1, true), (3, true), (2, true), (3, false), (1, false)] {
            let transaction = db.begin().await.expect("begins");
            let stored = store(&transaction, &batch(sequence, 100 * sequence), 1).await.expect("stores");
            commit(transaction).await.expect("commits");
            assert_eq!(stored, news, "{sequence}");
        }
        let models = models(db.connection()).await.expect("reads");
        let [(_, models)] = models.into_iter().collect::<Vec<_>>().try_into().expect("one device");
        assert_eq!((models[0].requests, models[0].errors), (3, 0));
        assert!((models[0].p50_us.expect("some") - 200.0).abs() < 5.0);
        let hosts = hosts(db.connection()).await.expect("reads");
        assert_eq!(hosts.values().next().expect("one").cpu_permille, 3);
        assert!(forget(db.connection(), 2).await.expect("forgets") > 0);
    }
}
