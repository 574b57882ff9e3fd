//! One device's telemetry over a time, for charts: batches are read page by page and summed up into
//! as many points as a chart can show.

use std::collections::BTreeMap;

use muster_shared::api::dashboard::{History, HistoryModel, HistoryPoint};
use muster_shared::figures::Counted;
use muster_shared::id::UnixMs;
use muster_shared::sketch::Sketch;
use muster_shared::telemetry::Batch;
use muster_shared::{DeploymentName, DeviceId, wire};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big};

/// Points of one history: about as many as a chart has pixels for.
const POINTS_MAX: u64 = 300;
/// The shortest time that a point may stand for.
const BUCKET_MS_MIN: u64 = 1_000;
/// Batches in one page, so that others get at the database in between.
const PAGE: u64 = 500;
/// Batches that are summed up at most; the oldest are left out.
const BATCHES_MAX: u64 = 20_000;
/// Models that one point holds; a device has fewer slots.
const MODELS_MAX: usize = 256;

#[derive(FromQueryResult)]
struct Row {
    batch: Vec<u8>,
}

/// What a device sent between two moments of its own clock.
pub async fn of(
    db: &impl ConnectionTrait,
    device: &DeviceId,
    (from_ms, until_ms): (UnixMs, UnixMs),
) -> Result<History, DbError> {
    let bucket_ms = until_ms.saturating_sub(from_ms).div_ceil(POINTS_MAX).max(BUCKET_MS_MIN);
    // Buckets begin at multiples of their length: a point's value does not depend on when it is asked for.
    let mut buckets: BTreeMap<UnixMs, Bucket> = BTreeMap::new();
    let mut read = 0;
    let mut cut = false;
    let sql = "SELECT batch FROM batches WHERE device = $1 AND until_ms > $2 AND until_ms <= $3 \
               ORDER BY until_ms DESC, boot, sequence LIMIT $4 OFFSET $5";
    loop {
        let values =
            [device.as_str().into(), big(from_ms).into(), big(until_ms).into(), big(PAGE).into(), big(read).into()];
        let rows: Vec<Row> = all(db, "read a device's telemetry", sql, values).await?;
        let found = rows.len() as u64;
        // A batch that an older version wrote otherwise is no reason to show nothing.
        for batch in rows.iter().filter_map(|row| wire::decode::<Batch>(&row.batch).ok()) {
            buckets.entry(batch.until_ms / bucket_ms * bucket_ms).or_default().add(&batch);
        }
        read += found;
        if found < PAGE {
            break;
        }
        if read >= BATCHES_MAX {
            cut = true;
            break;
        }
    }
    let points = buckets.into_iter().map(|(at_ms, bucket)| bucket.point(at_ms)).collect();
    Ok(History { device: device.clone(), bucket_ms, from_ms, until_ms, points, cut })
}

/// What came in one point's time.
#[derive(Default)]
struct Bucket {
    batches: u64,
    cpu_permille: u64,
    memory_used_bytes: u64,
    memory_bytes: u64,
    span_ms: u64,
    models: BTreeMap<DeploymentName, (u64, Counted, Sketch)>,
}

impl Bucket {
    fn add(&mut self, batch: &Batch) {
        self.batches += 1;
        self.cpu_permille += u64::from(batch.host.cpu_permille);
        self.memory_used_bytes = self.memory_used_bytes.max(batch.host.memory_used_bytes);
        self.memory_bytes = self.memory_bytes.max(batch.host.memory_bytes);
        self.span_ms = self.span_ms.saturating_add(batch.until_ms.saturating_sub(batch.from_ms));
        for sample in &batch.models {
            if self.models.len() >= MODELS_MAX && !self.models.contains_key(&sample.deployment) {
                continue;
            }
            let (version, counted, latency) = self.models.entry(sample.deployment.clone()).or_default();
            *version = sample.version.get().max(*version);
            counted.add(Counted { requests: sample.requests, errors: sample.errors, cpu_us: sample.cpu_us });
            latency.merge(&sample.latency);
        }
    }

    fn point(self, at_ms: UnixMs) -> HistoryPoint {
        let span_ms = self.span_ms;
        let in_ms = |micros: Option<f64>| micros.map(|micros| micros / 1000.0);
        let model =
            |(deployment, (version, counted, latency)): (DeploymentName, (u64, Counted, Sketch))| HistoryModel {
                deployment,
                version,
                requests_per_second: counted.requests_per_second(span_ms),
                p50_ms: in_ms(latency.quantile(0.5)),
                p99_ms: in_ms(latency.quantile(0.99)),
            };
        HistoryPoint {
            at_ms,
            cpu_permille: (self.cpu_permille / self.batches.max(1)).try_into().unwrap_or(u32::MAX),
            memory_used_bytes: self.memory_used_bytes,
            memory_bytes: self.memory_bytes,
            models: self.models.into_iter().map(model).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::Version;
    use muster_shared::id::BootId;
    use muster_shared::telemetry::{HostSample, ModelSample};

    use super::*;
    use crate::db::{TelemetryDb, telemetry};

    /// A second of a device that was asked twice.
    fn second(number: u64) -> Batch {
        let mut latency = Sketch::default();
        (0..2).for_each(|_| latency.record(1_500));
        Batch {
            device: "edge-1".parse().expect("an id"),
            boot: BootId([1; 16]),
            sequence: number,
            from_ms: number * 1_000,
            until_ms: number * 1_000 + 1_000,
            host: HostSample { cpu_permille: 100 + (number % 2) as u32 * 100, ..HostSample::default() },
            models: vec![ModelSample {
                deployment: "digits".parse().expect("a name"),
                model: "digits".parse().expect("a name"),
                version: Version::new(1 + number / 600).expect("positive"),
                requests: 2,
                errors: 0,
                cpu_us: 5,
                latency,
            }],
        }
    }

    #[tokio::test]
    async fn a_long_time_becomes_few_points_and_silence_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = TelemetryDb::open(&folder.path().join("telemetry.db")).await.expect("a database");
        // Twenty minutes, of which the ninth was silent.
        for number in (0..1_200).filter(|number| !(480..540).contains(number)) {
            telemetry::store(db.connection(), &second(number), 1).await.expect("stores");
        }
        let device = "edge-1".parse().expect("an id");
        let history = of(db.connection(), &device, (0, 1_200_000)).await.expect("reads");
        assert_eq!((history.bucket_ms, history.cut), (4_000, false));
        assert!((280..=300).contains(&history.points.len()), "{}", history.points.len());
        assert!(history.points.is_sorted_by_key(|point| point.at_ms));
        assert!(!history.points.iter().any(|point| (484_000..536_000).contains(&point.at_ms)));
        let point = &history.points[10];
        assert_eq!((point.cpu_permille, point.models[0].requests_per_second), (150, 2.0));
        assert!(point.models[0].p99_ms.is_some_and(|ms| (ms - 1.5).abs() < 0.05), "{point:?}");
        assert_eq!((history.points[0].models[0].version, history.points[250].models[0].version), (1, 2));
        let other = "edge-2".parse().expect("an id");
        assert!(of(db.connection(), &other, (0, 1_200_000)).await.expect("reads").points.is_empty());
    }
}
