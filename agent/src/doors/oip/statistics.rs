//! Triton's statistics extension: what was counted, in its words.

use std::collections::BTreeMap;

use muster_shared::door::VersionChoice;
use muster_shared::door::oip::Model;
use serde::Serialize;

use super::metadata;
use crate::doors::refusal::Refusal;
use crate::stats::Sum;
use crate::table::{Served, Table, VersionEntry};

/// What was counted of several models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// One for each version.
    pub model_stats: Vec<ModelStatistics>,
}

/// What was counted of one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelStatistics {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// When the last request was answered, in milliseconds since 1970.
    pub last_inference: u64,
    /// Rows of requests that were answered.
    pub inference_count: u64,
    /// Runs.
    pub execution_count: u64,
    /// Times.
    pub inference_stats: InferStatistics,
    /// Of models that give several answers to one request: there are none.
    pub response_stats: BTreeMap<String, Sum>,
    /// By the rows of a run.
    pub batch_stats: Vec<BatchStatistics>,
    /// Never told.
    pub memory_usage: [(); 0],
}

/// Times of requests. The way to the model's process and back is told as `compute_input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct InferStatistics {
    pub success: Sum,
    pub fail: Sum,
    pub queue: Sum,
    pub compute_input: Sum,
    pub compute_infer: Sum,
    pub compute_output: Sum,
    pub cache_hit: Sum,
    pub cache_miss: Sum,
}

/// Times of runs of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct BatchStatistics {
    pub batch_size: u64,
    pub compute_input: Sum,
    pub compute_infer: Sum,
    pub compute_output: Sum,
}

/// What was counted of one version of a model, of all its versions, or of all models.
pub fn of(table: &Table, model: Option<&Model<'_>>) -> Result<Statistics, Refusal> {
    let model_stats = match model {
        Some(model) => {
            // Says why nobody answers, where nobody does.
            let served = metadata::find(table, model)?;
            match model.version {
                VersionChoice::Latest => all_of(model.name, &table.versions(model.name).unwrap_or_default()),
                _ => vec![told(model.name, &served)],
            }
        }
        None => table.models().iter().flat_map(|(name, known)| all_of(name.as_str(), known)).collect(),
    };
    Ok(Statistics { model_stats })
}

/// Of the versions that answer, the lowest first.
fn all_of(name: &str, known: &[VersionEntry]) -> Vec<ModelStatistics> {
    known.iter().rev().filter_map(|known| known.served.as_ref()).map(|served| told(name, served)).collect()
}

fn told(name: &str, served: &Served) -> ModelStatistics {
    let counted = served.counters.snapshot();
    let none = Sum::default();
    // What is not measured apart took no time, as often as it happened.
    let untimed = |count| Sum { count, ns: 0 };
    let batch = |(size, batch): (&u64, &crate::stats::Batch)| {
        let count = batch.executions.round() as u64;
        BatchStatistics {
            batch_size: *size,
            compute_input: untimed(count),
            compute_infer: Sum { count, ns: batch.ns.round() as u64 },
            compute_output: untimed(count),
        }
    };
    ModelStatistics {
        name: name.to_owned(),
        version: served.version.to_string(),
        last_inference: counted.last_inference_ms,
        inference_count: counted.inferences,
        execution_count: counted.executions.round() as u64,
        inference_stats: InferStatistics {
            success: counted.success,
            fail: counted.fail,
            queue: counted.queue,
            compute_input: counted.transport,
            compute_infer: counted.compute,
            compute_output: untimed(counted.success.count),
            cache_hit: none,
            cache_miss: none,
        },
        response_stats: BTreeMap::new(),
        batch_stats: counted.batches.iter().map(batch).collect(),
        memory_usage: [],
    }
}
