//! Verifies a release of the agent against this device's roots, as an installer would before it looks at a file of it.

use std::path::Path;

use muster_shared::release::{ArtifactKind, Asked};

use super::identity::Times;
use crate::release::{Roots, decide, highest_seen, read, this_target, this_version};

/// What release a document holds, or why nothing of it may be installed here.
pub fn verify(document: &Path, data: &Path, times: Times) -> Result<String, String> {
    judged(document, data, times).map_err(|error| format!("{}: {error:#}", document.display()))
}

fn judged(document: &Path, data: &Path, times: Times) -> anyhow::Result<String> {
    let root = Roots { file: None, digest: None, data: Some(data) }.newest()?;
    let release = read(document, &root)?;
    let (ours, target) = (this_version()?, this_target()?);
    let installed = highest_seen(data)?.map_or(ours.clone(), |seen| seen.max(ours));
    let may = |kind| {
        let asked = Asked { now_ms: times.best_ms(), installed: Some(&installed), target: &target, kind, file: None };
        decide(&release, &root, &asked)
    };
    // Either will do. Where neither does, the reason is of the kind that the release has.
    let artifact = match release.release().of_kind(ArtifactKind::Package).next() {
        Some(_) => may(ArtifactKind::Package).or_else(|why| may(ArtifactKind::Agent).map_err(|_| why))?,
        None => may(ArtifactKind::Agent)?,
    };
    let version = &release.release().version;
    Ok(format!(
        "release {version} may be installed: {}, signed by the release keys of root {}",
        artifact.name,
        root.root().version
    ))
}
