//! Running other programs, and saying what failed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use muster_world::spelled;

/// The project's folder.
pub fn project() -> PathBuf {
    // `cargo xtask` says where `xtask/` lies today; where it lay when this was built may be another clone.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(xtask).parent().map_or_else(|| PathBuf::from("."), PathBuf::from)
}

/// This program, also where another clone's build has replaced its file in the folder that clones share.
pub fn this_program() -> anyhow::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Ok(running) } else { Ok(std::env::current_exe()?) }
}

/// Runs a command; its output goes where ours goes.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{}`", spelled(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", spelled(command));
    }
    Ok(())
}

/// Whether a program can be started.
pub fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
