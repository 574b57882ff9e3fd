//! Releases of the agent, as this machine judges them: what it is, what ran here already, and whether a file
//! may be installed. [`check`] answers a person or a script, [`crate::install`] goes on from there.

pub mod check;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use muster_shared::Digest;
use muster_shared::digest::Hasher;
use muster_shared::id::Target;
use muster_shared::limits::{ARTIFACT_BYTES_MAX, RELEASE_BYTES_MAX};
use muster_shared::release::{
    Artifact, ArtifactKind, Asked, FileFound, NotInstalled, Release, ReleaseVersion, VerifiedRelease, judge,
};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use serde::{Deserialize, Serialize};

use crate::enrol::follow_later;
use crate::identity;

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// A memory of one version is far shorter.
const MEMORY_BYTES_MAX: u64 = 4096;
/// Every root so far; as many as an enrolment may bring.
pub const ROOTS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The kind of machine that this agent is built for.
pub fn this_target() -> anyhow::Result<Target> {
    env!("MUSTER_TARGET").parse().context("this agent does not know what it is built for")
}

/// This agent's version.
pub fn this_version() -> anyhow::Result<ReleaseVersion> {
    env!("CARGO_PKG_VERSION").parse().context("this agent does not know its version")
}

/// Reads a release and verifies it.
pub fn read(path: &Path, root: &TrustedRoot) -> anyhow::Result<VerifiedRelease> {
    let bytes = read_bounded(path, RELEASE_BYTES_MAX as u64)?;
    let envelope = Release::envelope(&bytes).with_context(|| format!("cannot read {}", path.display()))?;
    VerifiedRelease::verify(&envelope, root).map_err(|error| refusal(error.into()))
}

/// The decision, and what to do about a refusal, for a person.
pub fn decide<'a>(release: &'a VerifiedRelease, root: &TrustedRoot, asked: &Asked<'_>) -> anyhow::Result<&'a Artifact> {
    judge(release, root, asked).map_err(refusal)
}

fn refusal(why: NotInstalled) -> anyhow::Error {
    let next_move = why.next_move();
    anyhow!("{}; {next_move}", chain(&why))
}

/// An error and what is behind it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A file of roots, and where they begin.
#[derive(Debug, Clone, Copy)]
pub struct Roots<'a> {
    /// A root in its envelope, or several in order, as `GET /api/v1/trust/roots` gives them.
    pub file: Option<&'a Path>,
    /// The digest of the root to start from.
    pub digest: Option<Digest>,
    /// The folder of an enrolled device, which knows where it started.
    pub data: Option<&'a Path>,
}

impl Roots<'_> {
    /// The newest root that follows from the one to start from. Without a digest or a device's folder whoever
    /// names the file vouches for its first root.
    pub fn newest(&self) -> anyhow::Result<TrustedRoot> {
        let enrolment = self.data.map(identity::enrolment).transpose()?.flatten();
        let mut roots = enrolment.as_ref().map(|enrolment| enrolment.roots.clone()).unwrap_or_default();
        roots.extend(self.file.map(read_roots).transpose()?.unwrap_or_default());
        let started = enrolment.map(|enrolment| enrolment.root);
        let first = roots.first().map(|root| Digest::of(&root.payload));
        let from = self.digest.or(started).or(first).context("no root is there to start from: name a file of roots")?;
        let (newest, passed) = follow(&roots, from)?;
        // An enrolled device stays with its fleet: one of the two roots leads to the other.
        match started {
            Some(started) if !passed.contains(&started) && !follow(&roots, started)?.1.contains(&from) => {
                bail!("this device is enrolled under the root {started}, from which {from} does not follow")
            }
            _ => Ok(newest),
        }
    }
}

/// Follows roots from the one with a digest to the newest; the digests of those that were passed, too.
fn follow(roots: &[Envelope], from: Digest) -> anyhow::Result<(TrustedRoot, Vec<Digest>)> {
    let first = roots.iter().find(|root| Digest::of(&root.payload) == from).with_context(|| {
        format!("no root here has the digest {from}: they are of another fleet, or a file is missing")
    })?;
    let (mut newest, mut passed) = (TrustedRoot::pinned(first, from)?, vec![from]);
    for next in roots {
        newest = follow_later(newest, std::slice::from_ref(next)).context("the roots do not follow one another")?;
        passed.push(newest.digest());
    }
    Ok((newest, passed))
}

fn read_roots(path: &Path) -> anyhow::Result<Vec<Envelope>> {
    let bytes = read_bounded(path, ROOTS_BYTES_MAX)?;
    roots_of(&bytes).with_context(|| format!("{} holds no roots", path.display()))
}

/// The roots in a file's bytes: one envelope, or a list of them.
pub fn roots_of(bytes: &[u8]) -> serde_json::Result<Vec<Envelope>> {
    match serde_json::from_slice::<Envelope>(bytes) {
        Ok(one) => Ok(vec![one]),
        Err(_) => serde_json::from_slice(bytes),
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let attempt = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    File::open(path).with_context(attempt)?.take(bytes_max + 1).read_to_end(&mut bytes).with_context(attempt)?;
    if bytes.len() as u64 > bytes_max {
        bail!("{}: it is longer than {bytes_max} bytes", attempt());
    }
    Ok(bytes)
}

/// Looks at a file: how long it is, what its digest is, and what kind of file it begins like.
pub fn look(path: &Path) -> anyhow::Result<(FileFound, ArtifactKind)> {
    let attempt = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(attempt)?;
    look_at(file.take(ARTIFACT_BYTES_MAX + 1)).with_context(attempt)
}

fn look_at(mut file: impl Read) -> io::Result<(FileFound, ArtifactKind)> {
    let (mut hasher, mut piece, mut bytes, mut kind) = (Hasher::new(), vec![0; PIECE_BYTES], 0, None);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        kind = kind.or(Some(if piece.starts_with(b"!<arch>\n") { ArtifactKind::Package } else { ArtifactKind::Agent }));
        hasher.update(&piece[..read]);
        bytes += read as u64;
    }
    Ok((FileFound { bytes, sha256: hasher.finish() }, kind.unwrap_or(ArtifactKind::Agent)))
}

/// The highest version that ever ran on this device.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    version: ReleaseVersion,
}

fn memory(data: &Path) -> PathBuf {
    identity::folder(data).join("agent.json")
}

/// The highest version that ever ran here, as far as the device remembers.
pub fn highest_seen(data: &Path) -> anyhow::Result<Option<ReleaseVersion>> {
    let path = memory(data);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_bounded(&path, MEMORY_BYTES_MAX)?;
    highest_in(&bytes)
        .map(Some)
        .with_context(|| format!("{} is damaged; remove it if you know what was installed here", path.display()))
}

/// The version in the bytes of `agent.json`.
pub fn highest_in(bytes: &[u8]) -> serde_json::Result<ReleaseVersion> {
    serde_json::from_slice::<Memory>(bytes).map(|memory| memory.version)
}

/// Remembers that this version runs here, if it is the highest so far. Gives back a higher one that ran before.
pub fn remember(data: &Path, running: &ReleaseVersion) -> anyhow::Result<Option<ReleaseVersion>> {
    match highest_seen(data)? {
        Some(seen) if seen > *running => Ok(Some(seen)),
        Some(seen) if seen == *running => Ok(None),
        _ => {
            let bytes = serde_json::to_vec(&Memory { version: running.clone() })?;
            identity::write_durably(&memory(data), &bytes, 0o644)?;
            Ok(None)
        }
    }
}

/// [`remember`] for an agent that starts. A memory that fails keeps nothing from running: it is for whoever
/// installs the next agent.
pub fn note_running(data: &Path) {
    match this_version().and_then(|running| remember(data, &running)) {
        Ok(None) => {}
        Ok(Some(newer)) => tracing::warn!(%newer, "a newer agent ran here before; somebody installed an older one"),
        Err(error) => tracing::warn!(?error, "cannot remember which agent runs here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_is_remembered_and_never_forgotten_for_a_lower_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let version = |text: &str| text.parse::<ReleaseVersion>().expect("a version");
        assert_eq!(highest_seen(folder.path()).expect("reads"), None);
        for (runs, before) in [("0.2.0", None), ("0.10.0", None), ("0.9.0", Some("0.10.0")), ("0.10.0", None)] {
            assert_eq!(remember(folder.path(), &version(runs)).expect("keeps"), before.map(version), "{runs}");
        }
        assert_eq!(highest_seen(folder.path()).expect("reads"), Some(version("0.10.0")));
        std::fs::write(memory(folder.path()), "{").expect("writes");
        assert!(remember(folder.path(), &version("0.11.0")).is_err(), "what cannot be read is not written over");
    }

    #[test]
    fn a_file_is_known_by_its_beginning() {
        let kind = |bytes: &[u8]| look_at(bytes).expect("reads");
        assert_eq!(kind(b"!<arch>\ndebian-binary").1, ArtifactKind::Package);
        assert_eq!(kind(b"\x7fELF").1, ArtifactKind::Agent);
        assert_eq!(kind(b"").0, FileFound { bytes: 0, sha256: Digest::of("") });
        let long = vec![7; 3 * PIECE_BYTES + 1];
        assert_eq!(kind(&long).0, FileFound { bytes: long.len() as u64, sha256: Digest::of(&long) });
    }

    #[test]
    fn this_agent_knows_what_it_is() {
        let target = this_target().expect("a target");
        assert!(target.as_str().starts_with(std::env::consts::ARCH.trim_end_matches("86")), "{target}");
        this_version().expect("a version");
    }
}
