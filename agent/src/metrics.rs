//! `/metrics` in the OpenMetrics format (github.com/prometheus/OpenMetrics): what is counted of each
//! version that is known, for as long as it is known. So there are no more series than models.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_shared::{DeploymentName, Version};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::worker::queue::{PredictError, Prediction};
use crate::worker::sandbox::status_figure;

/// The media type of the answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The shortest time that a histogram tells apart, in seconds; each further bucket doubles it, up to
/// about 26 seconds.
const SHORTEST_SECONDS: f64 = 0.000_05;
const BUCKETS: u16 = 20;
/// Buckets of the number of requests in one run: 1, 2, 4, … 128.
const TOGETHER_BUCKETS: u16 = 8;

/// Why a request failed, as the label `reason` says it.
const REASONS: [&str; 6] = ["busy", "gone", "killed", "died", "late", "model"];
/// Where a request's time goes, as the label `stage` says it: before the model's process takes it, in
/// that process beside others, in the run itself.
const STAGES: [&str; 3] = ["queue", "batch", "compute"];

/// What is counted of every version.
#[derive(Debug, Default, Clone)]
pub struct Metrics {
    versions: Arc<Mutex<Versions>>,
}

type Versions = BTreeMap<(DeploymentName, Version), Arc<OfVersion>>;

/// What is counted of one version.
#[derive(Debug)]
pub struct OfVersion {
    requests: Counter,
    errors: [Counter; REASONS.len()],
    seconds: Histogram,
    stages: [Histogram; STAGES.len()],
    together: Histogram,
    ended: Counter,
    /// The process that holds it now; 0: none.
    process: AtomicU32,
}

impl Default for OfVersion {
    fn default() -> Self {
        let times = || Histogram::new(exponential_buckets(SHORTEST_SECONDS, 2.0, BUCKETS));
        Self {
            requests: Counter::default(),
            errors: Default::default(),
            seconds: times(),
            stages: [times(), times(), times()],
            together: Histogram::new(exponential_buckets(1.0, 2.0, TOGETHER_BUCKETS)),
            ended: Counter::default(),
            process: AtomicU32::new(0),
        }
    }
}

impl OfVersion {
    /// Counts one request.
    pub fn count(&self, took: Duration, answer: &Result<Prediction, PredictError>) {
        self.requests.inc();
        match answer {
            Ok(prediction) => {
                self.seconds.observe(took.as_secs_f64());
                let rest = took.saturating_sub(prediction.queue + prediction.compute);
                for (stage, took) in self.stages.iter().zip([prediction.queue, rest, prediction.compute]) {
                    stage.observe(took.as_secs_f64());
                }
                self.together.observe(f64::from(prediction.together));
            }
            Err(error) => {
                let reason = match error {
                    PredictError::Busy => 0,
                    PredictError::Gone => 1,
                    PredictError::Killed => 2,
                    PredictError::Died => 3,
                    PredictError::Late => 4,
                    PredictError::Model(_) => 5,
                };
                self.errors[reason].inc();
            }
        }
    }

    /// The process that holds it from now on.
    pub fn runs_in(&self, process: Option<u32>) {
        self.process.store(process.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts an end of its process that nobody ordered.
    pub fn ended(&self) {
        self.ended.inc();
        self.runs_in(None);
    }
}

impl Metrics {
    /// What is counted of a version, from now on if not before.
    pub fn of(&self, name: &DeploymentName, version: Version) -> Arc<OfVersion> {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.entry((name.clone(), version)).or_default().clone()
    }

    /// Forgets the versions that are not to be kept.
    pub fn retain(&self, keep: impl Fn(&DeploymentName, Version) -> bool) {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|(name, version), _| keep(name, *version));
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing into memory fails only where a metric contradicts itself.
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            text.clear();
        }
        text
    }
}

type Labels = [(&'static str, String); 2];

impl Metrics {
    fn each(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit, kind): (&str, &str, Option<&Unit>, MetricType),
        write: impl Fn(&OfVersion, &Labels, &mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
        let versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        for ((model, version), counted) in &*versions {
            write(counted, &[("model", model.to_string()), ("version", version.to_string())], &mut family)?;
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let seconds = Some(&Unit::Seconds);
        let about = ("muster_requests", "Requests to a model", None, MetricType::Counter);
        self.each(&mut encoder, about, |counted, labels, family| {
            counted.requests.encode(family.encode_family(labels)?)
        })?;
        let about = ("muster_errors", "Requests that failed, by reason", None, MetricType::Counter);
        self.each(&mut encoder, about, |counted, [model, version], family| {
            REASONS.iter().zip(&counted.errors).try_for_each(|(reason, counter)| {
                let labels = [model.clone(), version.clone(), ("reason", (*reason).to_owned())];
                counter.encode(family.encode_family(&labels)?)
            })
        })?;
        let about = ("muster_request", "Time from a request's coming to its answer", seconds, MetricType::Histogram);
        self.each(&mut encoder, about, |counted, labels, family| {
            counted.seconds.encode(family.encode_family(labels)?)
        })?;
        let about = ("muster_stage", "Where a request's time goes", seconds, MetricType::Histogram);
        self.each(&mut encoder, about, |counted, [model, version], family| {
            STAGES.iter().zip(&counted.stages).try_for_each(|(stage, histogram)| {
                let labels = [model.clone(), version.clone(), ("stage", (*stage).to_owned())];
                histogram.encode(family.encode_family(&labels)?)
            })
        })?;
        let about = ("muster_batch_requests", "Requests that ran as one", None, MetricType::Histogram);
        self.each(&mut encoder, about, |counted, labels, family| {
            counted.together.encode(family.encode_family(labels)?)
        })?;
        let about =
            ("muster_worker_restarts", "Ends of a model's process that nobody ordered", None, MetricType::Counter);
        self.each(&mut encoder, about, |counted, labels, family| counted.ended.encode(family.encode_family(labels)?))?;
        let about = ("muster_worker_memory", "Memory of a model's process", Some(&Unit::Bytes), MetricType::Gauge);
        self.each(&mut encoder, about, |counted, labels, family| {
            match resident_bytes(counted.process.load(Ordering::Relaxed)) {
                Some(bytes) => ConstGauge::new(bytes as i64).encode(family.encode_family(labels)?),
                None => Ok(()),
            }
        })
    }
}

/// The resident memory of a process, as the kernel tells it.
fn resident_bytes(process: u32) -> Option<u64> {
    status_figure(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?, "VmRSS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DeploymentName {
        text.parse().expect("a name")
    }

    #[test]
    fn what_is_counted_is_told_and_what_is_gone_is_not() {
        let metrics = Metrics::default();
        let (one, two) = (Version::new(1).expect("positive"), Version::new(2).expect("positive"));
        let counted = metrics.of(&name("digits"), one);
        let (queue, compute) = (Duration::from_micros(10), Duration::from_micros(60));
        let answer = Prediction { outputs: vec![], cpu_us: 1, queue, compute, together: 3 };
        counted.count(Duration::from_micros(100), &Ok(answer));
        counted.count(Duration::from_micros(100), &Err(PredictError::Busy));
        counted.runs_in(Some(std::process::id()));
        metrics.of(&name("digits"), two).ended();
        let text = metrics.text();
        for line in [
            "muster_requests_total{model=\"digits\",version=\"1\"} 2",
            "muster_errors_total{model=\"digits\",version=\"1\",reason=\"busy\"} 1",
            "muster_errors_total{model=\"digits\",version=\"1\",reason=\"late\"} 0",
            "muster_request_seconds_count{model=\"digits\",version=\"1\"} 1",
            "muster_stage_seconds_bucket{le=\"0.0001\",model=\"digits\",version=\"1\",stage=\"compute\"} 1",
            "muster_batch_requests_bucket{le=\"4.0\",model=\"digits\",version=\"1\"} 1",
            "muster_batch_requests_bucket{le=\"2.0\",model=\"digits\",version=\"1\"} 0",
            "muster_worker_restarts_total{model=\"digits\",version=\"2\"} 1",
            "muster_worker_memory_bytes{model=\"digits\",version=\"1\"} ",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        metrics.retain(|_, version| version == two);
        let text = metrics.text();
        assert!(!text.contains("version=\"1\"") && text.contains("version=\"2\""), "{text}");
    }
}
