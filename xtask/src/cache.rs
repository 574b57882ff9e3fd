//! The build cache that clones share. Cargo tells a workspace's own artifacts apart by their place
//! inside the workspace and by times, not by the clone: in one target directory a clone would run
//! the code of another wherever that is the newer. So one clone builds at a time, and what another
//! one built of its own is removed first; what all depend on stays.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

/// Holds the cache for one clone until it is dropped.
pub struct Held {
    _lock: File,
}

/// Says in the cache whose artifacts lie there.
const OWNER_FILE: &str = "muster-clone";

/// Takes the cache at `target` for the clone at `project`, waiting for another clone to finish.
/// `cargo` makes a cargo command that builds there; `built` is what is built there, each as `cargo clean`
/// selects it.
pub fn hold(project: &Path, target: &Path, built: &[&[&str]], cargo: &dyn Fn() -> Command) -> anyhow::Result<Held> {
    fs::create_dir_all(target).with_context(|| format!("cannot make the build folder {}", target.display()))?;
    let lock = File::create(target.join("muster-clone.lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("another clone is building in {}; waiting", target.display());
        lock.lock()?;
    }
    let (owner, ours) = (target.join(OWNER_FILE), project.canonicalize()?.to_string_lossy().into_owned());
    if fs::read_to_string(&owner).ok().as_deref() != Some(ours.as_str()) {
        // The owner changes last: if this is cut off, it is done again.
        let _ = fs::remove_file(&owner);
        forget_members(built, cargo)?;
        fs::write(&owner, &ours)?;
    }
    Ok(Held { _lock: lock })
}

fn forget_members(built: &[&[&str]], cargo: &dyn Fn() -> Command) -> anyhow::Result<()> {
    let mut metadata = cargo();
    let listed = muster_world::output(metadata.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let listed: Value = serde_json::from_str(&listed)?;
    let members = listed["packages"].as_array().context("cargo lists no packages")?;
    let names: Vec<&str> = members.iter().filter_map(|package| package["name"].as_str()).collect();
    for selected in built {
        let mut clean = cargo();
        clean.args(["clean", "--quiet"]).args(*selected);
        muster_world::output(clean.args(names.iter().flat_map(|name| ["--package", name])))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A clone whose one program prints its name, with files older than anything built.
    fn clone(folder: &Path, name: &str) -> PathBuf {
        let clone = folder.join(name);
        fs::create_dir_all(clone.join("one/src")).expect("a folder");
        let main = format!("fn main() {{ print!(\"{name}\"); }}\n");
        let package = "[package]\nname = \"one\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";
        let files =
            [("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"one\"]\n"), ("one/Cargo.toml", package)];
        for (file, text) in files.into_iter().chain([("one/src/main.rs", main.as_str())]) {
            fs::write(clone.join(file), text).expect("a file");
            let file = File::options().write(true).open(clone.join(file)).expect("a file");
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).expect("a time");
        }
        clone
    }

    #[test]
    fn a_clone_never_runs_the_code_of_another_clone() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("target");
        let (one, other) = (clone(folder.path(), "one-clone"), clone(folder.path(), "other-clone"));
        let run = |clone: &Path| {
            let cargo = || {
                let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                cargo.current_dir(clone).env("CARGO_TARGET_DIR", &target);
                cargo
            };
            let _held = hold(clone, &target, &[&["--profile", "dev"]], &cargo).expect("the cache");
            muster_world::output(cargo().args(["run", "--quiet", "--offline"])).expect("runs")
        };
        assert_eq!(
            [run(&one), run(&other), run(&other), run(&one)],
            ["one-clone", "other-clone", "other-clone", "one-clone"]
        );
    }
}
