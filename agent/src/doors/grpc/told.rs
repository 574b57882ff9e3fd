//! What is told about the server and its models, as gRPC messages.

use std::collections::BTreeMap;

use muster_shared::manifest::Port;

use super::generated::model_metadata_response::TensorMetadata as TensorMessage;
use super::generated::model_repository_parameter::ParameterChoice;
use super::generated::model_version_policy::{All, PolicyChoice};
use super::generated::repository_index_response::ModelIndex;
use super::generated::*;
use crate::doors::oip::metadata::{self, TensorMetadata};
use crate::doors::oip::repository::{IndexEntry, Parameter, Parameters};
use crate::doors::oip::{datatypes, statistics as counted};
use crate::stats::Sum;
use crate::table::Served;

/// The server.
pub fn server() -> ServerMetadataResponse {
    let told = metadata::server();
    ServerMetadataResponse {
        name: told.name.to_owned(),
        version: told.version.to_owned(),
        extensions: told.extensions.map(str::to_owned).to_vec(),
    }
}

/// A model.
pub fn model(told: metadata::ModelMetadata) -> ModelMetadataResponse {
    let tensor = |tensor: TensorMetadata| TensorMessage {
        name: tensor.name,
        datatype: tensor.datatype.to_owned(),
        shape: tensor.shape,
    };
    ModelMetadataResponse {
        name: told.name,
        versions: told.versions,
        platform: told.platform.to_owned(),
        inputs: told.inputs.into_iter().map(tensor).collect(),
        outputs: told.outputs.into_iter().map(tensor).collect(),
    }
}

/// A model's configuration.
pub fn config(name: String, served: &Served) -> ModelConfig {
    let input = |port: &Port| ModelInput {
        name: port.name.clone(),
        data_type: datatypes::in_config(port.dtype).1,
        dims: metadata::dims(served, port),
        ..Default::default()
    };
    let output = |port: &Port| ModelOutput {
        name: port.name.clone(),
        data_type: datatypes::in_config(port.dtype).1,
        dims: metadata::dims(served, port),
        ..Default::default()
    };
    let one = ModelInstanceGroup { name: name.clone(), count: 1, kind: model_instance_group::Kind::Cpu.into() };
    ModelConfig {
        name,
        platform: metadata::PLATFORM.to_owned(),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) }),
        max_batch_size: metadata::batch_rows(served),
        input: served.inputs.iter().map(input).collect(),
        output: served.outputs.iter().map(output).collect(),
        instance_group: vec![one],
        backend: metadata::BACKEND.to_owned(),
    }
}

/// What was counted.
pub fn statistics(told: counted::Statistics) -> ModelStatisticsResponse {
    let sum = |sum: Sum| Some(StatisticDuration { count: sum.count, ns: sum.ns });
    let batch = |batch: counted::BatchStatistics| InferBatchStatistics {
        batch_size: batch.batch_size,
        compute_input: sum(batch.compute_input),
        compute_infer: sum(batch.compute_infer),
        compute_output: sum(batch.compute_output),
    };
    let model = |told: counted::ModelStatistics| {
        let times = told.inference_stats;
        ModelStatistics {
            name: told.name,
            version: told.version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            inference_stats: Some(InferStatistics {
                success: sum(times.success),
                fail: sum(times.fail),
                queue: sum(times.queue),
                compute_input: sum(times.compute_input),
                compute_infer: sum(times.compute_infer),
                compute_output: sum(times.compute_output),
                cache_hit: sum(times.cache_hit),
                cache_miss: sum(times.cache_miss),
            }),
            batch_stats: told.batch_stats.into_iter().map(batch).collect(),
            ..Default::default()
        }
    };
    ModelStatisticsResponse { model_stats: told.model_stats.into_iter().map(model).collect() }
}

/// The index of the repository.
pub fn index(told: Vec<IndexEntry>) -> RepositoryIndexResponse {
    let entry = |entry: IndexEntry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: entry.state.to_owned(),
        reason: entry.reason,
    };
    RepositoryIndexResponse { models: told.into_iter().map(entry).collect() }
}

/// What comes with a request to load or unload. A parameter without a value is none.
pub fn parameters(given: BTreeMap<String, ModelRepositoryParameter>) -> Parameters {
    let value = |(name, value): (String, ModelRepositoryParameter)| {
        let value = match value.parameter_choice? {
            ParameterChoice::BoolParam(value) => Parameter::Bool(value),
            ParameterChoice::Int64Param(value) => Parameter::Int(value),
            ParameterChoice::StringParam(value) => Parameter::Text(value),
            ParameterChoice::BytesParam(value) => Parameter::Bytes(value),
        };
        Some((name, value))
    };
    given.into_iter().filter_map(value).collect()
}
