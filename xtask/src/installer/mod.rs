//! `cargo xtask installer`: the line that `muster claim new --install` prints, pasted into a shell of a clean
//! Debian system: installed, enrolled, serving; and what is refused there, with nothing run.
//!
//! The system is a folder that `mmdebstrap` filled, entered by chroot with processes of its own. A network of
//! its own holds nothing but loopback, with the control plane on it: whatever else the line would need, it
//! could not reach. [`machine`] is that system, [`play`] what happens in it.

mod machine;
mod play;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use muster_world::output;

use crate::release::{self, Options as Release};
use crate::{build, setup, shell};

/// What to play with.
#[derive(Debug, Args)]
pub struct Options {
    /// An agent that is built already, instead of building the one that devices get
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Play here; for this command itself, in the network that it made
    #[arg(long, value_name = "FOLDER", hide = true)]
    inside: Option<PathBuf>,
    /// Install missing system packages without asking
    #[arg(long)]
    yes: bool,
}

/// Debian's release of the clean system.
const SUITE: &str = "bookworm";
/// The clean systems, and what they have beside what every Debian has: a way to fetch, one or the other; and
/// one with an init of its own.
pub const SYSTEMS: [(&str, &str); 3] = [(CURL, "curl"), (WGET, "wget"), (SYSTEMD, "curl,systemd,dbus")];
/// Of those.
pub const CURL: &str = "curl";
/// Of those.
pub const WGET: &str = "wget";
/// Of those.
pub const SYSTEMD: &str = "systemd";

/// Makes everything that is needed, then plays.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // `--yes` is looked for where packages are installed.
    let _ = options.yes;
    if let Some(folder) = &options.inside {
        return play::run(folder);
    }
    ensure!(rustix::process::geteuid().is_root(), "this needs root: it enters another system; run it with sudo");
    for (program, package) in [
        ("mmdebstrap", "mmdebstrap"),
        ("unshare", "util-linux"),
        ("ip", "iproute2"),
        ("strace", "strace"),
        ("tar", "tar"),
    ] {
        setup::program(program, package)?;
    }
    let place = build::target()?.join("installer");
    std::fs::create_dir_all(&place)?;
    let folder = tempfile::Builder::new().prefix("play-").tempdir_in(&place)?;
    for (name, packages) in SYSTEMS {
        let system = clean_system(&place, name, packages)?;
        std::fs::hard_link(&system, folder.path().join(format!("{name}.tar")))?;
    }
    let programs = build::programs()?;
    let from = programs.muster.parent().context("a folder of programs")?;
    std::os::unix::fs::symlink(from, folder.path().join("programs"))?;
    let target = "x86_64-unknown-linux-gnu".parse()?;
    release::make(&Release::one(target, options.agent.clone(), folder.path().join("release")))?;
    // A copy: this program's own file may be replaced by a build meanwhile.
    let this = folder.path().join("xtask");
    std::fs::copy(shell::this_program()?, &this)?;
    let mut inside = Command::new("unshare");
    inside.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    shell::run(inside.arg(this).args(["installer", "--inside"]).arg(folder.path()))
}

/// An archive of a clean system; made once.
fn clean_system(place: &Path, name: &str, packages: &str) -> anyhow::Result<PathBuf> {
    let archive = place.join(format!("{SUITE}-{name}.tar"));
    if !archive.exists() {
        eprintln!("making a clean Debian system with {packages} (a minute, once)");
        let part = place.join("part.tar");
        let mut make = Command::new("mmdebstrap");
        make.args(["--quiet", "--variant=minbase", &format!("--include={packages}"), SUITE]).arg(&part);
        output(&mut make)?;
        std::fs::rename(&part, &archive)?;
    }
    if std::fs::metadata(&archive)?.len() == 0 {
        bail!("{} is empty; remove it", archive.display());
    }
    Ok(archive)
}
