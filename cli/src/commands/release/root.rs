//! The root under which a release at hand is verified, without a network.

use std::path::{Path, PathBuf};

use muster_shared::Digest;
use muster_shared::limits::ROOT_BYTES_MAX;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;

use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::{files, trust};

/// Roots in one file.
const ROOTS_BYTES_MAX: u64 = 64 * 2 * ROOT_BYTES_MAX as u64;

/// Where the root comes from.
#[derive(clap::Args)]
pub struct RootFrom {
    /// A file with the fleet's root, or with its roots in order as GET /api/v1/trust/roots gives them; by default
    /// the newest that this machine knows
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The digest of a root in that file, from which the rest must follow
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed, requires = "root")]
    root_digest: Option<Digest>,
}

impl RootFrom {
    /// The newest root that is believed here.
    pub fn read(&self, session: &Session) -> Result<TrustedRoot> {
        if let Some(path) = &self.root {
            return read(path, self.root_digest);
        }
        let (_, context) = session.context()?;
        trust::newest_remembered(&session.home, context.pinned_root()?)
            .ok_or_else(|| Failure::new("no root is kept here").hint("name a file with --root"))
    }
}

/// The newest of the roots in a file. Without a digest the first one is believed: whoever names the file
/// vouches for it.
fn read(path: &Path, digest: Option<Digest>) -> Result<TrustedRoot> {
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
