//! The dashboard's page: built into `web/dist`, from where the control plane's build embeds it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{build, shell};

/// The oldest Node that the page's tools run on.
const NODE_MIN: u32 = 20;

/// What to do with the page.
#[derive(Debug, Args)]
pub struct Options {
    /// Write the OpenAPI document and the types that come from it anew
    #[arg(long)]
    types: bool,
}

/// Builds the page and checks its types.
pub fn run(options: &Options) -> anyhow::Result<()> {
    install()?;
    if options.types {
        let write = [("MUSTER_WRITE_OPENAPI", Path::new("1"))];
        build::cargo(&["test", "--quiet", "--workspace", "--test", "tidy", "openapi"], &write)?;
        npm(&["run", "--silent", "types"])?;
    }
    npm(&["run", "--silent", "check"])?;
    npm(&["run", "--silent", "build"])
}

/// The tier of `cargo xtask test`: the page's types hold, and it is built before anything embeds it.
pub fn check() -> anyhow::Result<()> {
    install()?;
    npm(&["run", "--silent", "check"])?;
    build_if_changed()
}

/// Builds the page where it is not what its sources say. A machine without Node gets the programs all
/// the same, with a page that says how to build the real one.
pub fn build_if_changed() -> anyhow::Result<()> {
    if !has_node() {
        eprintln!("there is no Node {NODE_MIN} or later here: the dashboard's page is left out");
        return Ok(());
    }
    let (stamp, wanted) = (folder().join("node_modules/.muster-page"), digest_of_sources()?.to_string());
    let built = folder().join("dist/index.html").exists();
    if built && std::fs::read_to_string(&stamp).is_ok_and(|held| held == wanted) {
        return Ok(());
    }
    eprintln!("building the dashboard's page");
    install()?;
    npm(&["run", "--silent", "build"])?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}

/// Installs the page's packages as the lock file names them, if they are not there.
pub fn install() -> anyhow::Result<()> {
    if !has_node() {
        bail!(
            "the dashboard's page needs Node {NODE_MIN} or later; install it, for example `apt-get install nodejs npm`"
        );
    }
    let (lock, stamp) = (folder().join("package-lock.json"), folder().join("node_modules/.muster-lock"));
    let wanted = std::fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!("installing the page's packages into web/node_modules");
    npm(&["ci", "--silent"])?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}

/// Runs npm in the page's folder.
pub fn npm(arguments: &[&str]) -> anyhow::Result<()> {
    let mut npm = Command::new("npm");
    // The tests use the system's browser.
    npm.args(arguments).current_dir(folder()).env("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1");
    shell::run(&mut npm)
}

/// The page's folder.
pub fn folder() -> PathBuf {
    shell::project().join("web")
}

fn has_node() -> bool {
    let version = muster_world::output(Command::new("node").arg("--version")).unwrap_or_default();
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= NODE_MIN) && shell::exists("npm")
}

/// Names the page's sources by their content.
fn digest_of_sources() -> anyhow::Result<u64> {
    let mut hasher = DefaultHasher::new();
    let mut waiting: Vec<PathBuf> = [
        "src",
        "public",
        "dev",
        "index.html",
        "package-lock.json",
        "package.json",
        "vite.config.ts",
        "svelte.config.js",
    ]
    .map(|name| folder().join(name))
    .into();
    waiting.sort();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path)?.collect::<std::io::Result<Vec<_>>>()?;
            let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
            paths.sort();
            waiting.extend(paths);
        } else if path.exists() {
            path.hash(&mut hasher);
            std::fs::read(&path)?.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}
