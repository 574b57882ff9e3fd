//! What is counted of one version of a model since it was loaded, for as long as it answers. Its
//! telemetry is another matter: [`crate::meter`].

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_shared::id::UnixMs;
use serde::Serialize;

use crate::worker::queue::{PredictError, Prediction};

/// Sizes of runs that are counted apart; runs of further sizes are counted in the sums only.
const BATCH_SIZES_MAX: usize = 64;

/// Counts the requests to one version of a model.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Snapshot>);

/// What was counted so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// When the last request was answered.
    pub last_inference_ms: UnixMs,
    /// Rows of requests that were answered.
    pub inferences: u64,
    /// Runs of the model. Each of the requests that ran together adds its share.
    pub executions: f64,
    /// Requests that were answered, from their coming to their answer.
    pub success: Sum,
    /// Requests that were not.
    pub fail: Sum,
    /// Waiting for the model's process.
    pub queue: Sum,
    /// On the way to the model's process and back.
    pub transport: Sum,
    /// In runs of the model.
    pub compute: Sum,
    /// Runs, by their rows.
    pub batches: BTreeMap<u64, Batch>,
}

/// A number of times, and how long they took together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// How often.
    pub count: u64,
    /// How long together, in nanoseconds.
    pub ns: u64,
}

/// Runs of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Batch {
    /// Runs, as [`Snapshot::executions`].
    pub executions: f64,
    /// How long they took together, in nanoseconds.
    pub ns: f64,
}

impl Sum {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.ns += took.as_nanos() as u64;
    }
}

impl Counters {
    /// Counts one request of so many rows.
    pub fn count(&self, now: UnixMs, rows: u64, took: Duration, answer: &Result<Prediction, PredictError>) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.last_inference_ms = now;
        let Ok(prediction) = answer else { return counted.fail.add(took) };
        let share = 1.0 / f64::from(prediction.together.max(1));
        counted.inferences += rows;
        counted.executions += share;
        counted.success.add(took);
        counted.queue.add(prediction.queue);
        counted.compute.add(prediction.compute);
        counted.transport.add(took.saturating_sub(prediction.queue + prediction.compute));
        // What ran together was alike, but for its rows: they are taken for as many.
        let size = rows * u64::from(prediction.together.max(1));
        if counted.batches.len() < BATCH_SIZES_MAX || counted.batches.contains_key(&size) {
            let batch = counted.batches.entry(size).or_default();
            batch.executions += share;
            batch.ns += prediction.compute.as_nanos() as f64 * share;
        }
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(together: u32) -> Result<Prediction, PredictError> {
        let (queue, compute) = (Duration::from_nanos(10), Duration::from_nanos(60));
        Ok(Prediction { outputs: vec![], cpu_us: 1, queue, compute, together })
    }

    #[test]
    fn requests_that_ran_together_count_as_one_run() {
        let counters = Counters::default();
        let took = Duration::from_nanos(100);
        for _ in 0..3 {
            counters.count(7, 2, took, &answer(3));
        }
        counters.count(8, 1, took, &answer(1));
        counters.count(9, 1, took, &Err(PredictError::Busy));
        let counted = counters.snapshot();
        assert_eq!((counted.last_inference_ms, counted.inferences, counted.executions.round()), (9, 7, 2.0));
        assert_eq!(counted.success, Sum { count: 4, ns: 400 });
        assert_eq!(counted.fail, Sum { count: 1, ns: 100 });
        assert_eq!((counted.queue.ns, counted.compute.ns, counted.transport.ns), (40, 240, 120));
        let sizes: Vec<_> = counted.batches.iter().map(|(size, batch)| (*size, batch.ns.round())).collect();
        assert_eq!(sizes, [(1, 60.0), (6, 60.0)]);
    }
}
