//! `muster release verify`: whether a release at hand is the release signers', without a network.

use std::path::{Path, PathBuf};

use muster_shared::Digest;
use muster_shared::limits::ROOT_BYTES_MAX;
use muster_shared::release::VerifiedRelease;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;

use super::SIGNERS;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, warn};
use crate::files;
use crate::output::{self, TextOrJson, now_ms};
use crate::release::{AtHand, Beside};
use crate::trust;

/// Roots in one file.
const ROOTS_BYTES_MAX: u64 = 64 * 2 * ROOT_BYTES_MAX as u64;

/// Arguments of `muster release verify`.
#[derive(clap::Args)]
pub struct Args {
    /// The release's folder, or its release.json
    release: PathBuf,
    /// A file with the fleet's root, or with its roots in order as GET /api/v1/trust/roots gives them; by default
    /// the newest that this machine knows
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The digest of a root in that file, from which the rest must follow
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed, requires = "root")]
    root_digest: Option<Digest>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    let at_hand = AtHand::open(&args.release)?;
    let root = match &args.root {
        Some(path) => read_root(path, args.root_digest)?,
        None => {
            let (_, context) = session.context()?;
            trust::newest_remembered(&session.home, context.pinned_root()?)
                .ok_or_else(|| Failure::new("no root is kept here").hint("name a file with --root"))?
        }
    };
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

/// The newest of the roots in a file. Without a digest the first one is believed: whoever names the file
/// vouches for it.
fn read_root(path: &Path, digest: Option<Digest>) -> Result<TrustedRoot> {
    let attempt = || format!("cannot read the root {}", path.display());
    let file = std::fs::File::open(path).attempt(attempt)?;
    let bytes = files::read_bounded(file, ROOTS_BYTES_MAX).attempt(attempt)?;
    let roots: Vec<Envelope> = match serde_json::from_slice::<Envelope>(&bytes) {
        Ok(one) => vec![one],
        Err(_) => serde_json::from_slice(&bytes).attempt(attempt)?,
    };
    let first = roots.iter().position(|root| digest.is_none_or(|digest| Digest::of(&root.payload) == digest));
    let first = first.ok_or_else(|| {
        Failure::new(format!("{}: it holds no root with this digest", attempt()))
            .hint("compare with `muster trust show`")
    })?;
    let anchor = TrustedRoot::self_signed(&roots[first]).attempt(attempt)?;
    roots[first + 1..].iter().try_fold(anchor, |held, next| held.follow(next)).attempt(attempt)
}
