//! A fleet's folder of keys: key files, and the roots that were made with them.

use std::path::{Path, PathBuf};

use muster_shared::limits::ROOT_BYTES_MAX;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;

use crate::error::{Attempt as _, Result};
use crate::files::{self, Readable};

/// Where a root of this version is kept.
pub fn root_path(dir: &Path, version: u64) -> PathBuf {
    dir.join(format!("root-{version}.json"))
}

/// The first root, as an earlier run signed it. It was made here, so it vouches for itself.
pub fn first_root(dir: &Path) -> Result<Option<(Envelope, TrustedRoot)>> {
    let path = root_path(dir, 1);
    let Some(envelope) = read(&path)? else { return Ok(None) };
    let trusted = TrustedRoot::self_signed(&envelope).attempt(|| format!("cannot read {}", path.display()))?;
    Ok(Some((envelope, trusted)))
}

/// The newest root that follows here from the first.
pub fn newest_root(dir: &Path) -> Result<Option<TrustedRoot>> {
    let Some((_, mut newest)) = first_root(dir)? else { return Ok(None) };
    while let Some(envelope) = read(&root_path(dir, newest.root().version + 1))? {
        match newest.follow(&envelope) {
            Ok(next) => newest = next,
            Err(_) => break,
        }
    }
    Ok(Some(newest))
}

/// Keeps a root that is in force, where there is a folder of keys.
pub fn keep_root(dir: &Path, envelope: &Envelope, version: u64) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    let path = root_path(dir, version);
    files::replace(&path, envelope.to_json().as_bytes(), Readable::ByAll)
        .attempt(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Option<Envelope>> {
    let attempt = || format!("cannot read {}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).attempt(attempt),
    };
    // Base64 and JSON make the payload longer by less than half, signatures add little.
    let bytes = files::read_bounded(file, 2 * ROOT_BYTES_MAX as u64).attempt(attempt)?;
    serde_json::from_slice(&bytes).attempt(attempt).map(Some)
}
