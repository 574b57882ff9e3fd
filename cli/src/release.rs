//! A release in a folder: `release.json`, and beside it the files that it names.

use std::path::{Path, PathBuf};

use muster_shared::digest::Hasher;
use muster_shared::limits::RELEASE_BYTES_MAX;
use muster_shared::release::{Artifact, FILE_NAME, Release};
use muster_shared::signing::{Envelope, payload_type};

use crate::error::{Attempt as _, Failure, Result};
use crate::files::{self, Readable};

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// A release at hand, believed by nobody yet.
pub struct AtHand {
    /// Its `release.json`.
    pub path: PathBuf,
    /// What that holds.
    pub envelope: Envelope,
    /// What is signed, or is to be.
    pub release: Release,
}

/// Whether a file of a release lies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// It does, as it was named.
    Here,
    /// It does not.
    Missing,
}

impl AtHand {
    /// Reads a release: its file, or the folder in which that lies.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let attempt = || format!("cannot read the release {}", path.display());
        let file = std::fs::File::open(&path).attempt(attempt)?;
        let bytes = files::read_bounded(file, RELEASE_BYTES_MAX as u64).attempt(attempt)?;
        let envelope = Release::envelope(&bytes).attempt(attempt)?;
        if envelope.payload_type != payload_type::RELEASE {
            return Err(Failure::new(format!("{}: it holds something else", attempt()))
                .hint("name the release.json that `cargo xtask release` made"));
        }
        let release = Release::parse(&envelope.payload).attempt(attempt)?;
        Ok(Self { path, envelope, release })
    }

    /// Writes it back, with other signatures.
    pub fn save(&self) -> Result<()> {
        let json = format!("{}\n", self.envelope.to_json());
        files::replace(&self.path, json.as_bytes(), Readable::ByAll)
            .attempt(|| format!("cannot write {}", self.path.display()))
    }

    /// Where a file of it lies.
    pub fn file(&self, artifact: &Artifact) -> PathBuf {
        self.path.with_file_name(artifact.name.as_str())
    }

    /// Whether a file lies beside it; an error where that is not the one that the release names.
    pub fn check(&self, artifact: &Artifact) -> Result<Beside> {
        let path = self.file(artifact);
        let attempt = || format!("cannot read {}", path.display());
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Beside::Missing),
            Err(error) => return Err(error).attempt(attempt),
        };
        let differs = |what: String| {
            Err(Failure::new(format!(
                "{} is not the file that release {} names: {what}",
                path.display(),
                self.release.version
            ))
            .hint("make the release again, or fetch it again: somebody or a bad disk changed it"))
        };
        let bytes = file.metadata().attempt(attempt)?.len();
        if bytes != artifact.bytes {
            return differs(format!("it has {bytes} bytes, wanted {}", artifact.bytes));
        }
        let (mut hasher, mut piece) = (Hasher::new(), vec![0; PIECE_BYTES]);
        loop {
            let read = std::io::Read::read(&mut file, &mut piece).attempt(attempt)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
        }
        let found = hasher.finish();
        if found != artifact.sha256 {
            return differs(format!("its SHA-256 is {found}, wanted {}", artifact.sha256));
        }
        Ok(Beside::Here)
    }

    /// Every file must lie beside it.
    pub fn check_all(&self) -> Result<()> {
        for artifact in &self.release.artifacts {
            if self.check(artifact)? == Beside::Missing {
                return Err(Failure::new(format!("{} is missing", self.file(artifact).display()))
                    .hint("a release's files lie beside its release.json"));
            }
        }
        Ok(())
    }
}
