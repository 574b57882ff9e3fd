//! What executes a model inside a worker. Only worker processes call this: neither the agent's main
//! process nor the control plane parses a model.

mod tract;

use std::path::Path;

use muster_agent_core::verify::bundle::Software;
use muster_shared::manifest::{Dtype, Format, Port};

use crate::tensor::Tensor;

pub use tract::{TractModel, is_out_of_memory};

/// The engines of this build, as facts name them.
pub const NAMES: [&str; 1] = ["tract"];

/// What the engines of this build take.
pub fn software() -> Software {
    use Dtype::{Bool, F16, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
    let dtypes = vec![Bool, U8, U16, U32, U64, I8, I16, I32, I64, F16, F32, F64, String];
    Software { formats: vec![Format::Onnx], dtypes }
}

/// A loaded model.
pub trait Model {
    /// What it takes.
    fn inputs(&self) -> &[Port];

    /// What it gives.
    fn outputs(&self) -> &[Port];

    /// Whether the graph has one free size that is the first of every input and of every output: rows,
    /// as far as the shapes tell.
    fn has_rows(&self) -> bool;

    /// Runs the model once. Inputs come in the order of [`Model::inputs`], outputs likewise.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError>;
}

/// What a model takes and gives, where somebody vouches for it. What it does not name is as the file says.
#[derive(Debug, Clone, Copy)]
pub struct Ports<'a> {
    /// What it takes.
    pub inputs: &'a [Port],
    /// What it gives.
    pub outputs: &'a [Port],
}

/// Why an engine did not do it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum EngineError {
    #[error("cannot load the model: {0}")]
    Load(String),
    #[error("the model does not run on this input: {0}")]
    Run(String),
    #[error("the manifest says {what}, the model has {found}")]
    Ports { what: String, found: String },
    #[error("cannot serve the model: {0}")]
    Unservable(String),
}

/// Loads a model file with the default engine. The ports are those of a manifest, or none: then the
/// file says them.
pub fn load(file: &Path, ports: Option<Ports<'_>>) -> Result<Box<dyn Model>, EngineError> {
    TractModel::load(file, ports).map(|model| Box::new(model) as Box<dyn Model>)
}
