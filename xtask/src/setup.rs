//! What a fresh machine lacks: system packages through its package client, Python packages in a
//! folder of the project.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use muster_world::output;
use sha2::{Digest as _, Sha256};

use crate::{build, shell};

/// Makes sure that a program is there, installing the system package that brings it.
pub fn program(name: &str, package: &str) -> anyhow::Result<()> {
    if shell::exists(name) { Ok(()) } else { install(&format!("`{name}`"), &[package]) }
}

/// Makes sure that a folder is there, installing the system package that brings it.
pub fn folder(path: &Path, package: &str) -> anyhow::Result<()> {
    if path.is_dir() { Ok(()) } else { install(&path.display().to_string(), &[package]) }
}

fn install(what: &str, packages: &[&str]) -> anyhow::Result<()> {
    let list = packages.join(" ");
    let sudo = if user_is_root() { "" } else { "sudo " };
    let by_hand = format!("{sudo}apt-get install {list}");
    if !shell::exists("apt-get") {
        bail!("{what} is missing and this machine has no apt-get; install the equivalent of `{by_hand}`");
    }
    if !agreed(&format!("{what} is missing. Install {list} now?"))? {
        bail!("{what} is missing; `{by_hand}` installs it");
    }
    let apt = |arguments: &[&str]| {
        let mut command = if user_is_root() { Command::new("apt-get") } else { Command::new("sudo") };
        if !user_is_root() {
            command.arg("apt-get");
        }
        shell::run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let installed = apt(&["update", "-q"]).and_then(|()| apt(&[&["install", "-q", "-y"], packages].concat()));
    installed.with_context(|| format!("{what} could not be installed; type `{by_hand}`"))
}

fn user_is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Asks once on a terminal; elsewhere, and with `--yes`, the answer is yes.
fn agreed(question: &str) -> anyhow::Result<bool> {
    let yes = std::env::args().any(|argument| argument == "--yes");
    if yes || !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("{question} [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(!answer.trim().to_lowercase().starts_with('n'))
}

/// A Python with the packages that the models are made with, in the project's `.venv`.
pub fn python() -> anyhow::Result<PathBuf> {
    install_python(&shell::project().join(".venv"), &shell::project().join("tests/models/requirements.txt"))
}

/// A Python with the packages of a requirements file, in the cache: clones share it, and another list
/// of packages gets another folder.
pub fn environment(name: &str, requirements: &Path) -> anyhow::Result<PathBuf> {
    let venv = cached("python", name, &[requirements])?;
    std::fs::create_dir_all(&venv)?;
    // One clone installs at a time.
    let lock = std::fs::File::create(venv.with_added_extension("lock"))?;
    lock.lock()?;
    install_python(&venv, requirements)
}

/// The folder of the cache for what is made from these files, whether it is there or not.
pub fn cached(kind: &str, name: &str, made_from: &[&Path]) -> anyhow::Result<PathBuf> {
    let mut hash = Sha256::new();
    for path in made_from {
        hash.update(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let digits: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(build::target()?.join(kind).join(format!("{name}-{digits}")))
}

fn install_python(venv: &Path, requirements: &Path) -> anyhow::Result<PathBuf> {
    program("python3", "python3")?;
    let (python, stamp) = (venv.join("bin/python"), venv.join("requirements.txt"));
    let wanted = std::fs::read(requirements)?;
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    if make_venv(venv).is_err() {
        install("Python's venv", &["python3-venv"])?;
        make_venv(venv)?;
    }
    eprintln!("installing Python packages into {}", venv.display());
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    shell::run(&mut pip)?;
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

fn make_venv(venv: &Path) -> anyhow::Result<()> {
    output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv)).map(drop)
}

/// Trains the models again, to compare or to replace.
pub fn train_models(python: &Path, write: bool) -> anyhow::Result<()> {
    let mut train = Command::new(python);
    train.arg(shell::project().join("tests/models/train.py"));
    if !write {
        train.arg("--check");
    }
    shell::run(&mut train)
}
