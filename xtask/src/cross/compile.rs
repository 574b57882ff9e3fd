//! The agent as devices get it: one build for each target, in a folder of the cache.
//!
//! zig is the C compiler and the linker for all of them: it has each target's C library in every version, so
//! that what is built here runs on a system that is older than this one. cargo-zigbuild puts it in place.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use muster_world::output;

use super::elf;
use super::std_for::{self, Compiler, Std};
use super::target::{GLIBC_MAX, Target};
use crate::{build, cache, setup, shell};

const AGENT: &str = "muster-agent";
/// Cargo.toml has it.
const PROFILE: &str = "device";

/// An agent for a target.
#[derive(Debug)]
pub struct Built {
    /// What devices get.
    pub agent: PathBuf,
    /// The same with its symbols: for a person who looks into a crash, and for [`elf::anatomy`].
    pub with_symbols: PathBuf,
    /// Where the standard library came from.
    pub std: Std,
    /// The version of glibc that it needs; none: none.
    pub glibc: Option<(u32, u32)>,
}

/// Where everything of this command is kept: beside the folder that builds are kept in.
pub fn folder() -> anyhow::Result<PathBuf> {
    let target = build::target()?;
    if std::env::var_os("MUSTER_TARGET_DIR").is_some() {
        return Ok(target.join("cross"));
    }
    Ok(target.parent().unwrap_or(&target).join("cross"))
}

/// Builds the agent for a target. What it gives lies in this clone's `target/cross/TARGET/`.
pub fn agent(target: Target) -> anyhow::Result<Built> {
    let cache = folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let (strip, package) = target.binutils();
    let strip = format!("{strip}strip");
    setup::program(&strip, package)?;
    let requirements = shell::project().join("xtask/cross-requirements.txt");
    let python = setup::environment("cross", &requirements)?;
    let builds = cache.join("target");
    // Held to the end: another clone would put its own binary where this one's lies.
    let all = Target::ALL.map(|target| ["--profile", PROFILE, "--target", target.triple()]);
    let _held =
        cache::hold(&shell::project(), &builds, &all.each_ref().map(|one| &one[..]), &|| build::command(&builds))?;
    let compiler = Compiler::ask()?;
    let std = std_for::of(target, &compiler, &cache)?;
    eprintln!("building the agent for {} (ten minutes of one core, the first time)", target.triple());
    shell::run(&mut zigbuild(target, &std, &python, &cache, &builds)?)?;
    let made = builds.join(target.triple()).join(PROFILE).join(AGENT);
    let place = shell::project().join("target/cross").join(target.triple());
    fs::create_dir_all(&place)?;
    let built = Built {
        agent: place.join(AGENT),
        with_symbols: place.join(format!("{AGENT}.symbols")),
        std,
        glibc: elf::needed_glibc(&made)?,
    };
    // New files under the old names: a program that runs keeps its own.
    let part = place.join("part");
    fs::copy(&made, &part)?;
    fs::rename(&part, &built.with_symbols)?;
    output(Command::new(&strip).args(["--strip-all", "-o"]).arg(&part).arg(&built.with_symbols))?;
    fs::rename(&part, &built.agent)?;
    ensure!(
        target.is_musl() == built.glibc.is_none() && built.glibc.is_none_or(|needed| needed <= GLIBC_MAX),
        "the agent for {} needs glibc {:?}; Debian 11 has {GLIBC_MAX:?}. A linker that is set for the target, by a \
         configuration of cargo or by CARGO_TARGET_…_LINKER, makes zig's be passed over",
        target.triple(),
        built.glibc
    );
    Ok(built)
}

fn zigbuild(target: Target, std: &Std, python: &Path, cache: &Path, builds: &Path) -> anyhow::Result<Command> {
    let tools = python.parent().context("a folder of Python's programs")?;
    let mut command = build::command_of(tools.join("cargo-zigbuild"), builds);
    command.args(["zigbuild", "--quiet", "--profile", PROFILE, "--package", AGENT]);
    command.args(["--no-default-features", "--features", "device", "--target", &target.with_glibc()]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders)?);
    command.env("CARGO_ZIGBUILD_CACHE_DIR", cache.join("zigbuild"));
    command.env("ZIG_GLOBAL_CACHE_DIR", cache.join("zig"));
    // A linker that is set makes it pass over the version of glibc, without a word.
    let name = target.triple().to_uppercase().replace('-', "_");
    command.env_remove(format!("CARGO_TARGET_{name}_LINKER"));
    // For the target only: what runs while building is for this machine. One variable for everything
    // would take the place of this one.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_RUSTFLAGS");
    let flags: OsString = std.flags(target).join(" ").into();
    command.env(format!("CARGO_TARGET_{name}_RUSTFLAGS"), flags);
    Ok(command)
}
