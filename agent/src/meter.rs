//! What each model did since the last telemetry batch.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use muster_shared::sketch::Sketch;
use muster_shared::telemetry::ModelSample;
use muster_shared::{DeploymentName, ModelName, Version};

/// Counts predictions, by slot and version.
#[derive(Debug, Default)]
pub struct Meter {
    counts: Mutex<BTreeMap<(DeploymentName, Version), Counts>>,
}

#[derive(Debug)]
struct Counts {
    model: ModelName,
    requests: u64,
    errors: u64,
    cpu_us: u64,
    latency: Sketch,
}

impl Meter {
    /// Counts one prediction. `good`: its processor time in microseconds; none where it failed by
    /// our fault or the model's.
    pub fn count(&self, slot: &DeploymentName, model: &ModelName, version: Version, took: Duration, good: Option<u64>) {
        let mut counts = self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let counts = counts.entry((slot.clone(), version)).or_insert_with(|| Counts {
            model: model.clone(),
            requests: 0,
            errors: 0,
            cpu_us: 0,
            latency: Sketch::default(),
        });
        counts.requests += 1;
        match good {
            Some(cpu_us) => {
                counts.cpu_us += cpu_us;
                counts.latency.record(took.as_micros() as u64);
            }
            None => counts.errors += 1,
        }
    }

    /// Takes what was counted since the last time.
    pub fn take(&self) -> Vec<ModelSample> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let sample = |((deployment, version), counts): ((DeploymentName, Version), Counts)| ModelSample {
            deployment,
            model: counts.model,
            version,
            requests: counts.requests,
            errors: counts.errors,
            cpu_us: counts.cpu_us,
            latency: counts.latency,
        };
        counts.into_iter().map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_taken_once() {
        let meter = Meter::default();
        let (slot, model) = ("a".parse().expect("a name"), "m".parse().expect("a name"));
        let version = Version::new(1).expect("positive");
        meter.count(&slot, &model, version, Duration::from_micros(100), Some(90));
        meter.count(&slot, &model, version, Duration::from_micros(5), None);
        let samples = meter.take();
        assert_eq!(
            (samples[0].requests, samples[0].errors, samples[0].cpu_us, samples[0].latency.count()),
            (2, 1, 90, 1)
        );
        assert_eq!(meter.take(), []);
    }
}
