//! The programs under test. They are built once into a cache folder outside the clone, since tract
//! takes long; every clone on this machine shares what it depends on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use muster_world::Programs;

use crate::{cache, shell, web};

/// Where builds are kept: `MUSTER_TARGET_DIR`, or a folder of the user's cache.
pub fn target() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MUSTER_TARGET_DIR") {
        return Ok(folder.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(cache.context("neither HOME nor MUSTER_TARGET_DIR is set: there is no place to build in")?.join("muster/target"))
}

/// Runs cargo on this project, building into the cache, which is this clone's alone meanwhile.
pub fn cargo(arguments: &[&str], environment: &[(&str, &Path)]) -> anyhow::Result<()> {
    let _held = hold()?;
    shell::run(command(&target()?).args(arguments).envs(environment.iter().copied()))
}

fn hold() -> anyhow::Result<cache::Held> {
    let target = target()?;
    cache::hold(&shell::project(), &target, &PROFILES, &|| command(&target))
}

/// What is built in the folder that clones share, as `cargo clean` selects it.
const PROFILES: [&[&str]; 2] = [&["--profile", "dev"], &["--profile", "release"]];

/// cargo on this project, building into `target`, not among the variables that it gave this program.
pub fn command(target: &Path) -> Command {
    command_of(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), target)
}

/// The same by a program that takes cargo's place.
pub fn command_of(program: impl AsRef<OsStr>, target: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(shell::project()).env("CARGO_TARGET_DIR", target);
    // `cargo xtask` runs this program with these set to its own values. Build scripts that look at
    // them would run again each time cargo is called the other way.
    let ours = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|ours| name.starts_with(ours))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}

/// Builds the programs as tests and the demo use them.
pub fn programs() -> anyhow::Result<Programs> {
    web::build_if_changed()?;
    // The whole workspace, as the tests build it: another selection means other features of what it
    // depends on, and the inference engine would be built twice.
    let folder = built(&["--workspace"], "debug", "programs", &Programs::NAMES)?;
    Ok(Programs::in_folder(&folder))
}

/// Builds the programs so that checks can be taken out of them at run time.
pub fn programs_for_attacks() -> anyhow::Result<Programs> {
    let selection = ["--workspace", "--features", "muster-agent/attacks,muster-control-plane/attacks"];
    Ok(Programs::in_folder(&built(&selection, "debug", "programs-for-attacks", &Programs::NAMES)?))
}

/// Builds the agent as users get it.
pub fn release_agent() -> anyhow::Result<PathBuf> {
    let agent = "muster-agent";
    Ok(built(&["--release", "--package", agent], "release", "release-programs", &[agent])?.join(agent))
}

fn built(selection: &[&str], output: &str, folder: &str, names: &[&str]) -> anyhow::Result<PathBuf> {
    eprintln!("building (the first time takes minutes: the inference engine is large)");
    let target = target()?;
    // Held until the programs lie in a folder of this clone's own, where no other build replaces them.
    let _held = hold()?;
    shell::run(command(&target).args(["build", "--quiet"]).args(selection))?;
    let (built, folder) = (target.join(output), shell::project().join("target").join(folder));
    std::fs::create_dir_all(&folder)?;
    for name in names {
        let (from, to) = (built.join(name), folder.join(name));
        // A running program's file cannot be written, but its name can be given to another.
        let _ = std::fs::remove_file(&to);
        std::fs::hard_link(&from, &to)
            .or_else(|_| std::fs::copy(&from, &to).map(drop))
            .with_context(|| format!("cannot put {} to {}", from.display(), to.display()))?;
    }
    Ok(folder)
}
