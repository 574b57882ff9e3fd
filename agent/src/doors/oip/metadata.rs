//! What a caller can learn of the server and its models.

use std::sync::Arc;

use muster_shared::door::VersionChoice;
use muster_shared::door::oip::Model;
use muster_shared::manifest::Port;
use serde::Serialize;
use serde_json::{Value, json};

use super::datatypes;
use crate::doors::refusal::{Kind, Refusal};
use crate::table::{Served, Table, VersionState};

/// What this server calls itself.
pub const NAME: &str = "muster-agent";
/// What runs a model, in the protocol's form: project and format.
pub const PLATFORM: &str = "tract_onnx";
/// What runs a model, in Triton's form.
pub const BACKEND: &str = "tract";
/// Which of Triton's extensions this server knows.
pub const EXTENSIONS: [&str; 6] =
    ["binary_tensor_data", "classification", "model_configuration", "model_repository", "parameters", "statistics"];
/// What a model that takes rows is said to take of them in one request: no such bound is kept, and a
/// client that divides what it has is well served with this many.
pub const BATCH_ROWS_TOLD: i32 = 1024;

/// What the server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// [`NAME`].
    pub name: &'static str,
    /// The agent's version.
    pub version: &'static str,
    /// [`EXTENSIONS`].
    pub extensions: [&'static str; 6],
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelMetadata {
    /// As it was asked for.
    pub name: String,
    /// The versions that answer, the lowest first.
    pub versions: Vec<String>,
    /// [`PLATFORM`].
    pub platform: &'static str,
    /// In the model's order.
    pub inputs: Vec<TensorMetadata>,
    /// In the model's order.
    pub outputs: Vec<TensorMetadata>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Its type.
    pub datatype: &'static str,
    /// Its sizes; -1 where any goes.
    pub shape: Vec<i64>,
}

/// The server's metadata.
pub fn server() -> Server {
    Server { name: NAME, version: env!("CARGO_PKG_VERSION"), extensions: EXTENSIONS }
}

/// A model's metadata.
pub fn model(table: &Table, model: &Model<'_>) -> Result<ModelMetadata, Refusal> {
    let served = find(table, model)?;
    let known = table.versions(model.name).unwrap_or_default();
    let answering = known.iter().rev().filter(|known| known.served.is_some());
    Ok(ModelMetadata {
        name: model.name.to_owned(),
        versions: answering.map(|known| known.version.to_string()).collect(),
        platform: PLATFORM,
        inputs: served.inputs.iter().map(TensorMetadata::of).collect(),
        outputs: served.outputs.iter().map(TensorMetadata::of).collect(),
    })
}

impl TensorMetadata {
    fn of(port: &Port) -> Self {
        Self { name: port.name.clone(), datatype: datatypes::name(port.dtype), shape: sizes(&port.shape) }
    }
}

fn sizes(shape: &[Option<u32>]) -> Vec<i64> {
    shape.iter().map(|size| size.map_or(-1, i64::from)).collect()
}

/// The sizes of a port in a configuration: without the rows, where the model takes rows.
pub fn dims(served: &Served, port: &Port) -> Vec<i64> {
    sizes(if served.takes_rows() { &port.shape[1..] } else { &port.shape })
}

/// How many rows a model is said to take; 0 where it takes no rows.
pub fn batch_rows(served: &Served) -> i32 {
    if served.takes_rows() { BATCH_ROWS_TOLD } else { 0 }
}

/// A model's configuration as Triton tells one: its `ModelConfig`, as JSON.
pub fn config(table: &Table, model: &Model<'_>) -> Result<Value, Refusal> {
    let served = find(table, model)?;
    let input = |port: &Port| {
        json!({
            "name": port.name,
            "data_type": datatypes::in_config(port.dtype).0,
            "format": "FORMAT_NONE",
            "dims": dims(&served, port),
            "is_shape_tensor": false,
            "allow_ragged_batch": false,
            "optional": false,
        })
    };
    let output = |port: &Port| {
        json!({
            "name": port.name,
            "data_type": datatypes::in_config(port.dtype).0,
            "dims": dims(&served, port),
            "label_filename": "",
            "is_shape_tensor": false,
        })
    };
    Ok(json!({
        "name": model.name,
        "platform": PLATFORM,
        "backend": BACKEND,
        "version_policy": {"all": {}},
        "max_batch_size": batch_rows(&served),
        "input": served.inputs.iter().map(input).collect::<Vec<_>>(),
        "output": served.outputs.iter().map(output).collect::<Vec<_>>(),
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": 1}],
    }))
}

/// Whether every model has a version that answers.
pub fn all_ready(table: &Table) -> bool {
    table.waiting().is_empty()
}

/// Like [`find`], but waits for moments where the model is just being started.
pub async fn find_started(table: &Table, model: &Model<'_>) -> Result<Arc<Served>, Refusal> {
    table.find_started(model.name, &model.version).await.map_err(|_| nobody(table, model))
}

/// Who answers for a model.
pub fn find(table: &Table, model: &Model<'_>) -> Result<Arc<Served>, Refusal> {
    table.find(model.name, &model.version).map_err(|_| nobody(table, model))
}

/// Why nobody answers: it is not known, or it is and does not answer now.
fn nobody(table: &Table, model: &Model<'_>) -> Refusal {
    let name: String = model.name.chars().take(80).collect();
    let Some(known) = table.versions(model.name) else {
        return Refusal::unknown(format!("there is no model {name:?}"));
    };
    let one = match model.version {
        VersionChoice::Version(version) => match known.iter().find(|known| known.version == version) {
            Some(one) => Some(one),
            None => return Refusal::unknown(format!("model {name:?} has no version {version}")),
        },
        _ => known.first(),
    };
    let why = one.and_then(|one| one.error.clone()).unwrap_or_else(|| {
        one.map_or("it has no version", |one| match one.state {
            VersionState::Start | VersionState::Loading => "it is being loaded",
            VersionState::Unloading => "it is being unloaded",
            VersionState::Available | VersionState::End => "it is not loaded",
        })
        .to_owned()
    });
    Refusal { kind: Kind::Unavailable, text: format!("model {name:?} is not ready: {why}") }
}
