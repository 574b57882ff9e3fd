//! `muster release verify`: whether a release at hand is the release signers', without a network.

use std::path::PathBuf;

use muster_shared::release::VerifiedRelease;

use super::SIGNERS;
use super::root::RootFrom;
use crate::context::Session;
use crate::error::{Attempt as _, Result, warn};
use crate::output::{self, TextOrJson, now_ms};
use crate::release::{AtHand, Beside};

/// Arguments of `muster release verify`.
#[derive(clap::Args)]
pub struct Args {
    /// The release's folder, or its release.json
    release: PathBuf,
    #[command(flatten)]
    root: RootFrom,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    let at_hand = AtHand::open(&args.release)?;
    let root = args.root.read(session)?;
    let verified = VerifiedRelease::verify(&at_hand.envelope, &root);
    let verified = verified
        .attempt(|| format!("cannot believe the release {}", at_hand.path.display()))
        .map_err(|failure| failure.hint(SIGNERS))?;
    if root.root().expires_ms <= now_ms() {
        warn("this root has expired: no device installs anything new before the next root");
    }
    let release = verified.release();
    let mut missing = vec![];
    for artifact in &release.artifacts {
        if at_hand.check(artifact)? == Beside::Missing {
            missing.push(artifact.name.as_str());
        }
    }
    if args.output == TextOrJson::Json {
        return output::print_json(&serde_json::json!({
            "version": release.version, "digest": verified.digest(), "root": root.digest(),
            "rootVersion": root.root().version, "artifacts": release.artifacts, "missing": missing,
        }));
    }
    output::print_line(format_args!(
        "release {} is signed by the release keys of root {} ({})",
        release.version,
        root.root().version,
        root.root().fleet
    ))?;
    for artifact in &release.artifacts {
        let state = if missing.contains(&artifact.name.as_str()) { "not here" } else { "unchanged" };
        output::print_line(format_args!("{}  {}  {state}", artifact.sha256, artifact.name))?;
    }
    Ok(())
}
