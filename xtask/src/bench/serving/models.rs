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
    /// Logistic regression, 64 → 10: only there to be loaded.
    Logistic,
    /// SqueezeNet 1.1, 224²: what large tensors and the engine cost.
    Squeezenet,
}

impl Model {
    /// Two small ones, whose memory at rest is the server's own.
    pub const SMALL: [Self; 2] = [Self::Linreg, Self::Logistic];
    /// Those that are asked under load.
    pub const LOADED: [Self; 2] = [Self::Linreg, Self::Squeezenet];

    const ALL: [Self; 3] = [Self::Linreg, Self::Logistic, Self::Squeezenet];

    /// As the servers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linreg => "linreg",
            Self::Logistic => "logistic",
            Self::Squeezenet => "squeezenet",
        }
    }
}

/// The models on disk, with a question and its answer for each.
pub struct Models {
    folder: PathBuf,
    linreg: Sample,
    logistic: Sample,
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
        let (linreg, logistic, squeezenet) =
            (sample(Model::Linreg)?, sample(Model::Logistic)?, sample(Model::Squeezenet)?);
        Ok(Self { folder, linreg, logistic, squeezenet })
    }

    /// A model's file.
    pub fn path(&self, model: Model) -> PathBuf {
        self.folder.join(model.name()).with_extension("onnx")
    }

    /// A model's question and answer.
    pub fn sample(&self, model: Model) -> &Sample {
        match model {
            Model::Linreg => &self.linreg,
            Model::Logistic => &self.logistic,
            Model::Squeezenet => &self.squeezenet,
        }
    }
}

fn make(script: &Path, requirements: &Path, folder: &Path) -> anyhow::Result<()> {
    let python = setup::environment("serving-models", requirements)?;
    std::fs::create_dir_all(folder)?;
    shell::run(Command::new(python).arg(script).arg(folder))
}
