//! What each model did in the last minute, from telemetry as it arrives: the figures that `explain`,
//! `get device` and `/metrics` show. In memory; after a restart a minute fills it again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_shared::figures::{Counted, Figures, cores_demanded};
use muster_shared::id::UnixMs;
use muster_shared::sketch::Sketch;
use muster_shared::telemetry::Batch;
use muster_shared::{DeploymentName, DeviceId};

/// The time that figures are taken over, by the device's clock.
const WINDOW_MS: u64 = 60_000;
/// Figures of a device that sent nothing for so long are old; by our clock.
const STALE_MS: u64 = 30_000;
/// Batches that one device's window holds; the oldest give way.
const BATCHES_MAX: usize = 128;

/// What every device's models did lately.
#[derive(Debug, Default)]
pub struct Windows(Mutex<BTreeMap<DeviceId, Window>>);

#[derive(Debug, Default)]
struct Window {
    heard_ms: UnixMs,
    batches: VecDeque<Taken>,
}

#[derive(Debug)]
struct Taken {
    from_ms: UnixMs,
    until_ms: UnixMs,
    models: BTreeMap<DeploymentName, (Counted, Sketch)>,
}

/// What one model did in its window.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// The window.
    pub window_ms: u64,
    /// What was counted in it.
    pub counted: Counted,
    /// How long predictions took.
    pub latency: Sketch,
}

impl Windows {
    /// Takes a batch that is news. What a device held back over an outage is history, not now.
    pub fn add(&self, batch: &Batch, now_ms: UnixMs) {
        let mut windows = self.windows();
        let window = windows.entry(batch.device.clone()).or_default();
        let newest_ms = window.batches.back().map_or(0, |taken| taken.until_ms);
        if batch.until_ms.saturating_add(WINDOW_MS) < newest_ms {
            return;
        }
        window.heard_ms = now_ms;
        let mut models: BTreeMap<DeploymentName, (Counted, Sketch)> = BTreeMap::new();
        for sample in &batch.models {
            let (counted, latency) = models.entry(sample.deployment.clone()).or_default();
            counted.add(Counted { requests: sample.requests, errors: sample.errors, cpu_us: sample.cpu_us });
            latency.merge(&sample.latency);
        }
        let taken = Taken { from_ms: batch.from_ms, until_ms: batch.until_ms, models };
        let at = window.batches.partition_point(|held| held.until_ms <= taken.until_ms);
        window.batches.insert(at, taken);
        let newest_ms = window.batches.back().map_or(0, |taken| taken.until_ms);
        while window.batches.len() > BATCHES_MAX
            || window.batches.front().is_some_and(|oldest| oldest.from_ms.saturating_add(WINDOW_MS) < newest_ms)
        {
            window.batches.pop_front();
        }
    }

    /// What each model of each device did lately.
    pub fn sums(&self, now_ms: UnixMs) -> BTreeMap<DeviceId, BTreeMap<DeploymentName, Sum>> {
        let windows = self.windows();
        let fresh = windows.iter().filter(|(_, window)| now_ms.saturating_sub(window.heard_ms) <= STALE_MS);
        fresh.map(|(id, window)| (id.clone(), window.sums())).collect()
    }

    fn windows(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn sums(&self) -> BTreeMap<DeploymentName, Sum> {
        let from_ms = self.batches.front().map_or(0, |taken| taken.from_ms);
        let until_ms = self.batches.back().map_or(0, |taken| taken.until_ms);
        let window_ms = until_ms.saturating_sub(from_ms);
        let mut sums: BTreeMap<DeploymentName, Sum> = BTreeMap::new();
        for (deployment, (counted, latency)) in self.batches.iter().flat_map(|taken| &taken.models) {
            let empty = || Sum { window_ms, counted: Counted::default(), latency: Sketch::default() };
            let sum = sums.entry(deployment.clone()).or_insert_with(empty);
            sum.counted.add(*counted);
            sum.latency.merge(latency);
        }
        sums
    }
}

impl Sum {
    /// The figures of one replica. `granted_milli` of `all_milli` thousandths of a core are its own.
    pub fn figures(&self, granted_milli: Option<u32>, all_milli: Option<u32>) -> Figures {
        let share = granted_milli
            .zip(all_milli.filter(|all| *all > 0))
            .map(|(granted, all)| f64::from(granted) / f64::from(all));
        let requests_per_second = self.counted.requests_per_second(self.window_ms);
        let core_ms_per_prediction = self.counted.core_ms_per_prediction();
        let in_ms = |micros: Option<f64>| micros.map(|micros| micros / 1000.0);
        Figures {
            window_seconds: self.window_ms as f64 / 1000.0,
            share,
            requests_per_second,
            core_ms_per_prediction,
            cores_demanded: cores_demanded(requests_per_second, core_ms_per_prediction),
            p50_ms: in_ms(self.latency.quantile(0.5)),
            p99_ms: in_ms(self.latency.quantile(0.99)),
        }
    }
}

/// The figures of all replicas of a deployment together: requests and demand add up, R is over all
/// predictions.
pub fn together<'a>(sums: impl Iterator<Item = &'a Sum>) -> Option<Figures> {
    let mut counted = Counted::default();
    let mut latency = Sketch::default();
    let (mut rate, mut longest_ms) = (0.0, 0);
    for sum in sums {
        rate += sum.counted.requests_per_second(sum.window_ms);
        counted.add(sum.counted);
        latency.merge(&sum.latency);
        longest_ms = longest_ms.max(sum.window_ms);
    }
    let all = Sum { window_ms: longest_ms, counted, latency };
    let figures = all.figures(None, None);
    let cores_demanded = cores_demanded(rate, figures.core_ms_per_prediction);
    (counted.requests > 0).then_some(Figures { requests_per_second: rate, cores_demanded, ..figures })
}

#[cfg(test)]
mod tests {
    use muster_shared::Version;
    use muster_shared::id::BootId;
    use muster_shared::telemetry::{HostSample, ModelSample};

    use super::*;

    fn batch(device: &str, from_ms: UnixMs, until_ms: UnixMs, requests: u64, cpu_us: u64) -> Batch {
        let mut latency = Sketch::default();
        (0..requests).for_each(|_| latency.record(2_000));
        Batch {
            device: device.parse().expect("an id"),
            boot: BootId([1; 16]),
            sequence: until_ms,
            from_ms,
            until_ms,
            host: HostSample::default(),
            models: vec![ModelSample {
                deployment: "digits".parse().expect("a name"),
                model: "digits".parse().expect("a name"),
                version: Version::new(1).expect("positive"),
                requests,
                errors: 0,
                cpu_us,
                latency,
            }],
        }
    }

    #[test]
    fn figures_are_of_the_last_minute_of_a_device_that_still_speaks() {
        let windows = Windows::default();
        let (device, digits) = ("edge-1".parse().expect("an id"), "digits".parse().expect("a name"));
        windows.add(&batch("edge-1", 0, 10_000, 1_000, 1_000_000), 10_000);
        for second in (10..100).step_by(10) {
            let (from_ms, until_ms) = (second * 1_000, second * 1_000 + 10_000);
            windows.add(&batch("edge-1", from_ms, until_ms, 400, 400 * 25_000), until_ms);
        }
        // What was held back over an outage is not now.
        windows.add(&batch("edge-1", 1_000, 2_000, 9_999, 9), 100_000);
        let sums = windows.sums(100_500);
        let sum: &Sum = &sums[&device][&digits];
        let figures = sum.figures(Some(500), Some(4_000));
        assert_eq!((figures.window_seconds, figures.requests_per_second), (60.0, 40.0));
        assert_eq!((figures.core_ms_per_prediction, figures.cores_demanded), (Some(25.0), 1.0));
        assert_eq!(figures.share, Some(0.125));
        assert!(figures.p99_ms.is_some_and(|ms| (ms - 2.0).abs() < 0.05), "{figures:?}");
        assert!(windows.sums(100_000 + STALE_MS + 1).is_empty());
    }

    #[test]
    fn replicas_add_up() {
        let windows = Windows::default();
        windows.add(&batch("edge-1", 0, 10_000, 100, 100 * 10_000), 10_000);
        windows.add(&batch("edge-2", 0, 10_000, 300, 300 * 30_000), 10_000);
        let sums = windows.sums(10_000);
        let all = together(sums.values().flat_map(BTreeMap::values)).expect("figures");
        assert_eq!((all.requests_per_second, all.core_ms_per_prediction), (40.0, Some(25.0)));
        assert_eq!(all.cores_demanded, 1.0);
        assert_eq!(together(std::iter::empty()), None);
    }
}
