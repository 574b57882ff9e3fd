//! The servers that are compared, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use super::models::{Model, Models};
use super::process::free_address;
use super::request::Form;
use crate::{build, setup, shell};

/// Files of the benchmark.
pub const FOLDER: &str = "bench/serving";

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Ours, as `muster-agent serve`
    Muster,
    /// FastAPI, uvicorn and ONNX Runtime, as one writes it
    Fastapi,
    /// The same with orjson called by hand
    FastapiOrjson,
    /// MLServer, its runtime over ONNX Runtime
    Mlserver,
    /// KServe's SDK, its model over ONNX Runtime
    Kserve,
    /// PyTriton: tritonserver with its Python backend, over ONNX Runtime
    Pytriton,
    /// The same with requests taken together
    PytritonBatching,
}

impl Kind {
    /// Who ours is compared with.
    pub const PEERS: [Self; 6] =
        [Self::Fastapi, Self::FastapiOrjson, Self::Mlserver, Self::Kserve, Self::Pytriton, Self::PytritonBatching];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Muster => "Muster",
            Self::Fastapi => "FastAPI + ONNX Runtime",
            Self::FastapiOrjson => "FastAPI, orjson by hand",
            Self::Mlserver => "MLServer",
            Self::Kserve => "KServe SDK",
            Self::Pytriton => "PyTriton",
            Self::PytritonBatching => "PyTriton, batching",
        }
    }

    /// Its folder of the benchmark, and its flag there.
    fn app(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Muster => ("", None),
            Self::Fastapi => ("fastapi", None),
            Self::FastapiOrjson => ("fastapi", Some("--orjson")),
            Self::Mlserver => ("mlserver", None),
            Self::Kserve => ("kserve", None),
            Self::Pytriton => ("pytriton", None),
            Self::PytritonBatching => ("pytriton", Some("--batching")),
        }
    }

    /// How it takes JSON; ours is compared with a peer in the first that the peer knows.
    pub fn json(self) -> &'static [Form] {
        match self {
            Self::Muster | Self::Kserve => &[Form::TensorFlow, Form::OipJson],
            Self::Fastapi | Self::FastapiOrjson => &[Form::TensorFlow],
            Self::Mlserver | Self::Pytriton | Self::PytritonBatching => &[Form::OipJson],
        }
    }

    /// All the forms that it takes.
    pub fn forms(self) -> impl Iterator<Item = Form> {
        let binary = matches!(self, Self::Muster | Self::Kserve | Self::Pytriton | Self::PytritonBatching);
        self.json().iter().copied().chain(binary.then_some(Form::OipBinary))
    }

    /// Whether memory and large tensors are as without its flag, so that only the small model says more.
    pub fn only_small(self) -> bool {
        self == Self::PytritonBatching
    }
}

/// A server that can be started.
pub struct Server {
    /// Which.
    pub kind: Kind,
    program: PathBuf,
}

impl Server {
    /// Builds or installs it, unless ours is given.
    pub fn prepare(kind: Kind, agent: Option<&Path>) -> anyhow::Result<Self> {
        let program = match (kind, agent) {
            (Kind::Muster, Some(agent)) => std::path::absolute(agent)?,
            (Kind::Muster, None) => build::release_agent()?,
            (peer, _) => {
                let (folder, _) = peer.app();
                let requirements = shell::project().join(FOLDER).join(folder).join("requirements.txt");
                setup::environment(&format!("serving-{folder}"), &requirements)?
            }
        };
        Ok(Self { kind, program })
    }

    /// The command of ours without any model.
    pub fn plain_command(&self, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--listen", &address.to_string()]);
        command
    }

    /// The command that serves these models. One worker on one thread everywhere; ours with
    /// validation, metrics and isolation, since it has no other way.
    pub fn command(&self, models: &Models, loaded: &[Model], address: SocketAddr) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.program);
        if self.kind == Kind::Muster {
            let mut command = self.plain_command(address);
            for model in loaded {
                command.arg("--model").arg(format!("{}={}", model.name(), models.path(*model).display()));
            }
            command.args(["--grpc", &free_address()?.to_string()]);
            return Ok(command);
        }
        let (folder, flag) = self.kind.app();
        command.arg(shell::project().join(FOLDER).join(folder).join("serve.py")).args(flag);
        command.args(["--port", &address.port().to_string()]);
        for model in loaded {
            command.arg("--model").arg(models.path(*model));
        }
        // One core: libraries that would start a thread for each core of the machine shall not.
        command.env("OMP_NUM_THREADS", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }
}
