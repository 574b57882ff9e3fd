//! Releases of an agent that is a few bytes long, signed by whoever a test says.

use std::path::{Path, PathBuf};

use muster_shared::Digest;
use muster_shared::id::Target;
use muster_shared::release::{Artifact, ArtifactKind, FILE_NAME, Release};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};

/// What the programs under test are built for, as far as tests run anywhere.
pub const OURS: &str = "x86_64-unknown-linux-gnu";
/// Other machines.
pub const THEIRS: &str = "aarch64-unknown-linux-gnu";

/// A release with one file of a kind for each target, in a folder.
#[derive(Debug)]
pub struct Made {
    /// Where it lies.
    pub folder: PathBuf,
    /// Its document.
    pub release: Release,
}

impl Made {
    /// Writes a release. `files`: for which machines, what it is, and its bytes.
    pub fn write(
        folder: &Path,
        version: &str,
        files: &[(&str, ArtifactKind, &[u8])],
        signers: &[&SecretKey],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut artifacts = vec![];
        for (target, kind, bytes) in files {
            let target: Target = target.parse()?;
            let name = format!("{kind}-{target}").replace(' ', "-").parse()?;
            std::fs::write(folder.join(format!("{name}")), bytes)?;
            let (bytes, sha256) = (bytes.len() as u64, Digest::of(bytes));
            artifacts.push(Artifact { target, kind: *kind, name, bytes, sha256 });
        }
        let release = Release { version: version.parse()?, issued_ms: 1, artifacts };
        let envelope = Envelope::sign(payload_type::RELEASE, release.to_payload(), signers);
        std::fs::write(folder.join(FILE_NAME), envelope.to_json())?;
        Ok(Self { folder: folder.to_owned(), release })
    }

    /// Its document in its envelope.
    pub fn document(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }

    /// Its file for these machines.
    pub fn file(&self, target: &str, kind: ArtifactKind) -> PathBuf {
        let artifact = self.release.of_kind(kind).find(|artifact| artifact.target.as_str() == target);
        self.folder.join(artifact.map_or("none", |artifact| artifact.name.as_str()))
    }
}
