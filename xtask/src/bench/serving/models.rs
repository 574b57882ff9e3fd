//! The models that every server loads, made once into the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::request::Sample;
use super::servers::FOLDER;
use crate::{setup, shell};

/// A model of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// Linear regression, 4 → 1: what HTTP costs.
    Linreg,
    /// SqueezeNet 1.1, 224²: what large tensors and the engine cost.
    Squeezenet,
}

impl Model {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Linreg, Self::Squeezenet];

    /// As the servers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linreg => "linreg",
            Self::Squeezenet => "squeezenet",
        }
    }
}

/// The models on disk, with a question and its answer for each.
pub struct Models {
    /// Where they lie, as NAME.onnx.
    pub folder: PathBuf,
    linreg: Sample,
    squeezenet: Sample,
}

impl Models {
    /// Makes what is missing.
    pub fn prepare() -> anyhow::Result<Self> {
        let source = shell::project().join(FOLDER).join("models");
        let (script, requirements) = (source.join("make.py"), source.join("requirements.txt"));
        let folder = setup::cached("models", "serving", &[&script, &requirements])?;
        let sample = |model: Model| Sample::read(&folder.join(model.name()).with_extension("json"));
        if Model::ALL.iter().any(|model| sample(*model).is_err()) {
            make(&script, &requirements, &folder)?;
        }
        let (linreg, squeezenet) = (sample(Model::Linreg)?, sample(Model::Squeezenet)?);
        Ok(Self { folder, linreg, squeezenet })
    }

    /// A model's question and answer.
    pub fn sample(&self, model: Model) -> &Sample {
        match model {
            Model::Linreg => &self.linreg,
            Model::Squeezenet => &self.squeezenet,
        }
    }
}

fn make(script: &Path, requirements: &Path, folder: &Path) -> anyhow::Result<()> {
    let python = setup::environment("serving-models", requirements)?;
    std::fs::create_dir_all(folder)?;
    shell::run(Command::new(python).arg(script).arg(folder))
}
