//! `muster-agent release check`: whether this machine may install a file, and if not, why not. Nothing is
//! installed, nothing is fetched, and nothing of the file is run.

use std::path::PathBuf;

use anyhow::Context as _;
use muster_shared::Digest;
use muster_shared::id::Target;
use muster_shared::release::{Asked, ReleaseVersion};

use super::{Roots, decide, highest_seen, look, read, this_target, this_version};
use crate::outside::now_ms;

/// Arguments of `muster-agent release`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say whether this machine may install a file of a release; exits with 0 only if it may
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// The agent or the package
    file: PathBuf,
    /// The release in its envelope
    #[arg(long, value_name = "FILE", default_value = "release.json")]
    release: PathBuf,
    /// A root, or roots in order as GET /api/v1/trust/roots gives them
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    root: Option<PathBuf>,
    /// The digest of the root to start from; without it the first root in the file is believed
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed)]
    root_digest: Option<Digest>,
    /// The folder of an enrolled device: start from the root that it started from, and let nothing in that is
    /// older than what ran there
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What is installed; by default this agent
    #[arg(long, value_name = "VERSION")]
    installed: Option<ReleaseVersion>,
    /// For which kind of machine; by default this one
    #[arg(long, value_name = "TARGET")]
    target: Option<Target>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let Command::Check(args) = &args.command;
    let roots = Roots { file: args.root.as_deref(), digest: args.root_digest, data: args.data.as_deref() };
    let root = roots.newest()?;
    let (file, kind) = look(&args.file)?;
    let refused = || format!("{} must not be installed", args.file.display());
    let release = read(&args.release, &root).with_context(refused)?;
    let seen = args.data.as_deref().map(highest_seen).transpose()?.flatten();
    let named = args.installed.clone().map_or_else(this_version, Ok)?;
    let installed = seen.map_or(named.clone(), |seen| seen.max(named));
    let target = args.target.clone().map_or_else(this_target, Ok)?;
    let asked = Asked { now_ms: now_ms(), installed: Some(&installed), target: &target, kind, file: Some(file) };
    let artifact = decide(&release, &root, &asked).with_context(refused)?;
    println!(
        "{} is {} of release {}, for {}, signed by the release keys of root {} ({})",
        args.file.display(),
        artifact.name,
        release.release().version,
        artifact.target,
        root.root().version,
        root.root().fleet
    );
    Ok(())
}
