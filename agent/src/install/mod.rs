//! `muster-agent install`: from a package at hand to an agent that runs in a fleet. The line that `muster claim
//! new --install` prints fetches the package, compares its digest with its own, and starts the agent that is in
//! it with this command; people need not type it.
//!
//! Each step looks first whether it is done already, so that the same line goes on where it was cut off, and
//! does nothing on a machine where all is done. Nothing is installed before the release verifies.

mod service;
mod system;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use muster_shared::claim::ClaimToken;
use muster_shared::id::{Target, UnixMs};
use muster_shared::release::{ArtifactKind, Asked, FileFound, ReleaseVersion, VerifiedRelease};
use muster_shared::root::TrustedRoot;
use muster_shared::{DeviceId, Digest};

use self::system::Installed;
use crate::config::Config;
use crate::identity;
use crate::outside::now_ms;
use crate::release::{Roots, decide, highest_seen, look, read, this_target};

/// Arguments of `muster-agent install`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The package
    #[arg(long, value_name = "FILE")]
    package: PathBuf,
    /// The release in its envelope
    #[arg(long, value_name = "FILE")]
    release: PathBuf,
    /// The fleet's roots, as GET /api/v1/trust/roots gives them
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// The digest of the root to start from: the claim's
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed)]
    root_digest: Digest,
    /// The control plane's API, https://HOST:PORT
    #[arg(long)]
    url: String,
    /// The claim token; better in the environment, where other users cannot see it
    #[arg(long, env = "MUSTER_CLAIM", hide_env_values = true)]
    claim: ClaimToken,
    /// The id that this device would like; else one is made from its key
    #[arg(long)]
    name: Option<DeviceId>,
    /// Install and enrol, and leave starting to somebody else
    #[arg(long)]
    no_start: bool,
}

/// The configuration that the package brings.
pub const CONFIG: &str = "/etc/muster/agent.toml";
/// Where the package keeps the agent's data, if its owner changed nothing.
pub const DATA: &str = "/var/lib/muster";

/// Runs the command. `tell` hears of each step.
pub fn run(args: &Args, tell: &dyn Fn(&str)) -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "only root can install a package; run this line with sudo");
    ensure!(
        args.claim.root == args.root_digest,
        "the claim is for the root {}, and this line for {}; have a new line printed: `muster claim new --install`",
        args.claim.root,
        args.root_digest
    );
    let refused = || "nothing was installed";
    let data = data_folder();
    let held = data.is_dir().then_some(data.as_path());
    let roots = Roots { file: Some(&args.roots), digest: Some(args.root_digest), data: held };
    let root = roots.newest().with_context(refused)?;
    let release = read(&args.release, &root).with_context(refused)?;
    let (file, _) = look(&args.package)?;
    let installed = Installed::ask()?;
    let seen = held.map(highest_seen).transpose()?.flatten();
    let newest = installed.version().cloned().max(seen);
    let known_ms = now_ms().max(args.claim.issued_ms);
    let version =
        may_install((&release, &root), &this_target()?, newest.as_ref(), file, known_ms).with_context(refused)?;
    if installed == Installed::Whole(version.clone()) {
        tell(&format!("muster-agent {version} is installed already"));
    } else {
        tell(&format!("installing muster-agent {version}"));
        system::install(&args.package)?;
    }
    enrol(args, tell)?;
    if args.no_start {
        return Ok(());
    }
    let config = Config::read(Path::new(CONFIG))?;
    service::start(tell)?;
    service::until_healthy(config.listen)?;
    tell(&format!("it runs, and serves on http://{}", config.listen));
    Ok(())
}

/// The decision: which version this machine gets.
fn may_install(
    (release, root): (&VerifiedRelease, &TrustedRoot),
    target: &Target,
    installed: Option<&ReleaseVersion>,
    file: FileFound,
    now_ms: UnixMs,
) -> anyhow::Result<ReleaseVersion> {
    let kind = ArtifactKind::Package;
    let asked = Asked { now_ms, installed, target, kind, file: Some(file) };
    decide(release, root, &asked)?;
    Ok(release.release().version.clone())
}

/// Where an agent's data lies here, or will.
fn data_folder() -> PathBuf {
    Config::read(Path::new(CONFIG)).map_or_else(|_| PathBuf::from(DATA), |config| config.data)
}

/// Enrols, as the user that the agent runs as: what it makes is that user's.
fn enrol(args: &Args, tell: &dyn Fn(&str)) -> anyhow::Result<()> {
    let data = data_folder();
    if let Some(enrolment) = identity::enrolment(&data)? {
        if enrolment.ca != args.claim.ca {
            bail!(
                "this device is enrolled already, as {} at {}, another control plane than this line's; \
                 `apt-get purge muster-agent` makes it forget that",
                enrolment.device,
                enrolment.url
            );
        }
        tell(&format!("enrolled already, as {}", enrolment.device));
        return Ok(());
    }
    tell(&format!("enrolling at {}", args.url));
    let mut enrol = system::agent_as_owner_of(&data)?;
    enrol.args(["enrol", "--config", CONFIG, "--url", &args.url]);
    if let Some(name) = &args.name {
        enrol.args(["--name", name.as_str()]);
    }
    // Not among the arguments: everybody on the machine sees those.
    enrol.env("MUSTER_CLAIM", args.claim.to_string());
    let done = enrol.status().context("cannot start the installed agent")?;
    ensure!(done.success(), "it is installed, and not enrolled; the same line tries again");
    Ok(())
}

#[cfg(test)]
mod tests;
