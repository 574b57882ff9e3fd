//! What executes a model inside a worker. Only worker processes call this: neither the agent's main
//! process nor the control plane parses a model.

mod tract;

use std::path::Path;

use muster_shared::manifest::Port;

use crate::tensor::Tensor;

pub use tract::{TractModel, is_out_of_memory};

/// The engines of this build, as facts name them.
pub const NAMES: [&str; 1] = ["tract"];

/// A loaded model.
pub trait Model {
    /// Runs the model once. Inputs come in the order of the manifest's ports, outputs likewise.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError>;
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
}

/// Loads a model file with the default engine.
pub fn load(file: &Path, inputs: &[Port], outputs: &[Port]) -> Result<Box<dyn Model>, EngineError> {
    TractModel::load(file, inputs, outputs).map(|model| Box::new(model) as Box<dyn Model>)
}
