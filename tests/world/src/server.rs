//! `muster-agent serve` as a test has it: a server of its own in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tempfile::TempDir;

use crate::{Process, Programs, Running, descendants};

/// How long models may take to be loaded.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// A running server. Dropping it stops it.
pub struct Server {
    running: Running,
    ready: Ready,
    folder: TempDir,
}

#[derive(Debug, Deserialize)]
struct Ready {
    door: String,
    #[serde(default)]
    grpc: Option<String>,
}

impl Server {
    /// Starts a server with these flags, `{}` in them standing for its folder, in which `prepare` has put
    /// what they name. Returns when every model answers, or failed to.
    pub fn start(
        programs: &Programs,
        flags: &[&str],
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-serve-").tempdir()?;
        prepare(folder.path())?;
        let ready_file = folder.path().join("ready.json");
        let mut command = Command::new(&programs.agent);
        command.arg("serve").arg("--ready-file").arg(&ready_file);
        let path = folder.path().to_str().context("a path of text")?;
        command.args(flags.iter().map(|flag| flag.replace("{}", path)));
        if !flags.iter().any(|flag| flag.starts_with("--listen")) {
            command.arg("--listen").arg("127.0.0.1:0");
        }
        let mut running = Running::start("muster-agent serve", &mut command, folder.path().join("serve.log"))?;
        let ready = running.ready(&ready_file, READY_DEADLINE)?;
        Ok(Self { running, ready, folder })
    }

    /// Where the HTTP doors are: `http://…`
    pub fn door(&self) -> &str {
        &self.ready.door
    }

    /// Where the gRPC door is: `host:port`
    pub fn grpc(&self) -> Option<&str> {
        self.ready.grpc.as_deref().map(|door| door.trim_start_matches("http://"))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it wrote.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }

    /// An error if it ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.running.check()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// The processes that hold its models.
    pub fn workers(&self) -> anyhow::Result<Vec<Process>> {
        descendants(self.running.id())
    }
}

/// Resident memory of a process and all that it started, in bytes.
pub fn resident_bytes(id: u32) -> anyhow::Result<u64> {
    let mut all = 0;
    for id in std::iter::once(id).chain(descendants(id)?.into_iter().map(|process| process.id)) {
        // A process may end while it is looked at.
        let Ok(status) = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status")) else {
            continue;
        };
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        all += line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024;
    }
    Ok(all)
}
