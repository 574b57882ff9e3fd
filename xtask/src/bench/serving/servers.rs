//! The servers that are compared, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

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
    /// FastAPI, uvicorn and ONNX Runtime
    Fastapi,
    /// MLServer, its runtime over ONNX Runtime
    Mlserver,
    /// KServe's SDK, its model over ONNX Runtime
    Kserve,
    /// PyTriton: tritonserver with its Python backend, over ONNX Runtime
    Pytriton,
}

impl Kind {
    /// Who ours is compared with.
    pub const PEERS: [Self; 4] = [Self::Fastapi, Self::Mlserver, Self::Kserve, Self::Pytriton];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Muster => "Muster",
            Self::Fastapi => "FastAPI + ONNX Runtime",
            Self::Mlserver => "MLServer",
            Self::Kserve => "KServe SDK",
            Self::Pytriton => "PyTriton",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Muster => "",
            Self::Fastapi => "fastapi",
            Self::Mlserver => "mlserver",
            Self::Kserve => "kserve",
            Self::Pytriton => "pytriton",
        }
    }

    /// How it takes JSON; ours is compared with a peer in the first that the peer knows.
    pub fn json(self) -> &'static [Form] {
        match self {
            Self::Muster | Self::Kserve => &[Form::TensorFlow, Form::OipJson],
            Self::Fastapi => &[Form::TensorFlow],
            Self::Mlserver | Self::Pytriton => &[Form::OipJson],
        }
    }

    /// All the forms that it takes.
    pub fn forms(self) -> impl Iterator<Item = Form> {
        let binary = matches!(self, Self::Muster | Self::Kserve | Self::Pytriton);
        self.json().iter().copied().chain(binary.then_some(Form::OipBinary))
    }
}

/// A server that can be started.
pub struct Server {
    /// Which.
    pub kind: Kind,
    program: PathBuf,
}

impl Server {
    /// Builds or installs it.
    pub fn prepare(kind: Kind) -> anyhow::Result<Self> {
        let program = match kind {
            Kind::Muster => build::release_agent()?,
            peer => {
                let requirements = shell::project().join(FOLDER).join(peer.folder()).join("requirements.txt");
                setup::environment(&format!("serving-{}", peer.folder()), &requirements)?
            }
        };
        Ok(Self { kind, program })
    }

    /// The command that serves the models in a folder. One worker on one thread everywhere; ours with
    /// validation, metrics and isolation, since it has no other way.
    pub fn command(&self, models: &Path, names: &[&str], address: SocketAddr) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.program);
        if self.kind == Kind::Muster {
            command.arg("serve");
            for name in names {
                command.arg("--model").arg(format!("{name}={}", models.join(name).with_extension("onnx").display()));
            }
            command.args(["--listen", &address.to_string(), "--grpc", &free_address()?.to_string()]);
            return Ok(command);
        }
        command.arg(shell::project().join(FOLDER).join(self.kind.folder()).join("serve.py"));
        command.args(["--port", &address.port().to_string()]).arg("--models").arg(models);
        // One core: libraries that would start a thread for each core of the machine shall not.
        command.env("OMP_NUM_THREADS", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(command)
    }
}
