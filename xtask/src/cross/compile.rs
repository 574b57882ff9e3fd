//! The agent as devices get it: one build for each target, in a folder of the cache.
//!
//! zig is the C compiler and the linker for all of them: it has each target's C library in every version, so
//! that what is built here runs on a system that is older than this one. cargo-zigbuild puts it in place.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
    /// How it was built, in words.
    pub way: String,
    /// How long that took; little, where nothing had changed.
    pub took: Duration,
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
    let builds = cache.join("target");
    // Held to the end: another clone would put its own binary where this one's lies.
    let all = Target::ALL.map(|target| ["--profile", PROFILE, "--target", target.triple()]);
    let _held =
        cache::hold(&shell::project(), &builds, &all.each_ref().map(|one| &one[..]), &|| build::command(&builds))?;
    let began = Instant::now();
    let way = build_for(target, &cache, &builds)?;
    let took = began.elapsed();
    let made = builds.join(target.triple()).join(PROFILE).join(AGENT);
    let place = shell::project().join("target/cross").join(target.triple());
    fs::create_dir_all(&place)?;
    let built = Built {
        agent: place.join(AGENT),
        with_symbols: place.join(format!("{AGENT}.symbols")),
        way,
        took,
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
    ensure!(
        elf::is_movable(&made)?,
        "the agent for {} is not position-independent: whoever breaks into one would know where all its code lies",
        target.triple()
    );
    Ok(built)
}

/// Builds by what this machine offers; how, in words.
fn build_for(target: Target, cache: &Path, builds: &Path) -> anyhow::Result<String> {
    let tools = Tools::get(target, cache);
    eprintln!("building the agent for {} (ten minutes of one core, the first time)", target.triple());
    match tools {
        Ok(tools) => {
            shell::run(&mut tools.command(target, cache, builds)?)?;
            Ok(format!("by zig; standard library: {}", tools.std.origin()))
        }
        Err(error) if has_containers() => {
            eprintln!("{error:#}; so it is built in a container");
            shell::run(&mut in_container(target, builds)).with_context(|| format!("{error:#}"))?;
            Ok("by cross, in a container".to_owned())
        }
        Err(error) => Err(error.context("and there is neither Docker nor `cross` here to build in a container")),
    }
}

/// What builds on this machine itself.
struct Tools {
    std: Std,
    /// A folder with zig and cargo-zigbuild.
    programs: PathBuf,
}

impl Tools {
    fn get(target: Target, cache: &Path) -> anyhow::Result<Self> {
        let python = setup::environment("cross", &shell::project().join("xtask/cross-requirements.txt"))?;
        let programs = python.parent().context("a folder of Python's programs")?.to_owned();
        Ok(Self { std: std_for::of(target, &Compiler::ask()?, cache)?, programs })
    }

    fn command(&self, target: Target, cache: &Path, builds: &Path) -> anyhow::Result<Command> {
        let mut command = build::command_of(self.programs.join("cargo-zigbuild"), builds);
        command.arg("rustc").args(SELECTED).args(FEATURES).args(["--target", &target.with_glibc()]).args(LINKED);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
        command.env("CARGO_ZIGBUILD_CACHE_DIR", cache.join("zigbuild"));
        command.env("ZIG_GLOBAL_CACHE_DIR", cache.join("zig"));
        forget_flags(&mut command, target);
        // For the target only: what runs while building is for this machine. One variable for everything
        // would take the place of this one.
        let flags: OsString = self.std.flags(target).join(" ").into();
        command.env(variable(target, "RUSTFLAGS"), flags);
        Ok(command)
    }
}

/// `cross` brings a container with a linker and an old C library; rustup brings it the standard library.
fn in_container(target: Target, builds: &Path) -> Command {
    let mut command = build::command_of("cross", builds);
    command.env("CROSS_CONFIG", shell::project().join("cross.toml"));
    command.arg("rustc").args(SELECTED).args(FEATURES).args(["--target", target.triple()]).args(LINKED);
    // Folders of this machine are not in there.
    forget_flags(&mut command, target);
    command
}

fn has_containers() -> bool {
    shell::exists("cross") && output(Command::new("docker").arg("info")).is_ok()
}

/// What is built, whatever builds it.
const SELECTED: [&str; 7] = ["--quiet", "--profile", PROFILE, "--package", AGENT, "--bin", AGENT];

/// What a device needs and no more.
pub const FEATURES: [&str; 3] = ["--no-default-features", "--features", "device"];

/// How everything is optimized once more when it is linked. At the profile's own level no loop would become
/// vectors, not even in the crates that ask for more, and inference takes a third longer. Code that is not
/// marked small is put in place of a call only where it is about as small as the call.
const LINKED: [&str; 3] = ["--", "-Copt-level=2", "-Cllvm-args=-inlinedefault-threshold=50"];

/// A linker that is set makes cargo-zigbuild pass over the version of glibc, without a word; flags for every
/// target take the place of those for one.
fn forget_flags(command: &mut Command, target: Target) {
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(name);
    }
    for what in ["LINKER", "RUSTFLAGS"] {
        command.env_remove(variable(target, what));
    }
}

/// As cargo calls what is set for one target.
fn variable(target: Target, what: &str) -> String {
    format!("CARGO_TARGET_{}_{what}", target.triple().to_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(command: &Command, name: &str) -> Option<String> {
        let (_, value) = command.get_envs().find(|(found, _)| *found == name)?;
        Some(value?.to_string_lossy().into_owned())
    }

    #[test]
    fn an_old_c_library_and_a_standard_library_of_our_own_are_asked_for() {
        let tools = Tools { std: Std::Built("/s".into()), programs: "/p".into() };
        let target = Target::Aarch64Musl;
        let command = tools.command(target, Path::new("/c"), Path::new("/b")).expect("a command");
        assert_eq!(command.get_program(), "/p/cargo-zigbuild");
        let flags = told(&command, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS");
        assert_eq!(flags.as_deref(), Some("--sysroot=/s -Clink-arg=-pie -Clink-self-contained=no"));
        assert!(told(&command, "PATH").is_some_and(|path| path.starts_with("/p:")));
        let command = tools.command(Target::Armv7Gnu, Path::new("/c"), Path::new("/b")).expect("a command");
        assert!(command.get_args().any(|argument| argument == "armv7-unknown-linux-gnueabihf.2.28"));
    }

    #[test]
    fn a_container_is_told_of_no_folder_of_this_machine() {
        let command = in_container(Target::Armv7Gnu, Path::new("/b"));
        assert!(told(&command, "CROSS_CONFIG").is_some_and(|path| path.ends_with("/cross.toml")));
        assert_eq!(told(&command, "CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUSTFLAGS"), None);
        assert!(command.get_args().any(|argument| argument == "armv7-unknown-linux-gnueabihf"));
    }
}
