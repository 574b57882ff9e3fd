//! Releases of the agent: which files there are for which machines, on the release signers' word.
//!
//! The plane keeps them, the command line and the agent judge them for themselves: [`judge`] says whether
//! a machine may take a file, and why not. A release is of no fleet: the root says whose releases count.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::checks::{self, Check};
use crate::id::{ArtifactName, Target, UnixMs};
use crate::limits::{ARTIFACT_BYTES_MAX, ARTIFACTS_MAX, RELEASE_BYTES_MAX};
use crate::root::TrustedRoot;
use crate::signing::{Envelope, VerifyError, payload_type};

/// The name under which a release's envelope lies beside its files, on a disk and at a plane.
pub const FILE_NAME: &str = "release.json";
/// The longest version.
const VERSION_BYTES_MAX: usize = 48;

/// A release, JSON inside the release signers' envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// Which one it is; releases are ordered by it.
    pub version: ReleaseVersion,
    /// When it was made, by the clock of whoever made it; for people.
    pub issued_ms: UnixMs,
    /// Its files: one of each kind for a target.
    pub artifacts: Vec<Artifact>,
}

/// One file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// The machines that it is for.
    pub target: Target,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its name in the release's folder.
    pub name: ArtifactName,
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// What a file of a release is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ArtifactKind {
    /// The agent's program.
    Agent,
    /// A Debian package that brings the agent.
    Package,
    /// What the agent was made of: a software bill of materials, CycloneDX as JSON.
    Sbom,
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Package => "package",
            Self::Sbom => "bill of materials",
        })
    }
}

/// A release's version: SemVer without build metadata, which would not count in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct ReleaseVersion(semver::Version);

/// A text that is no release's version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of a release: write it as 1.2.3 or 1.2.3-rc.1")]
pub struct BadVersion(String);

impl FromStr for ReleaseVersion {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.chars().take(80).collect());
        if text.len() > VERSION_BYTES_MAX {
            return Err(bad());
        }
        let version = semver::Version::parse(text).map_err(|_| bad())?;
        if version.build.is_empty() { Ok(Self(version)) } else { Err(bad()) }
    }
}

impl TryFrom<String> for ReleaseVersion {
    type Error = BadVersion;

    fn try_from(text: String) -> Result<Self, BadVersion> {
        text.parse()
    }
}

impl From<ReleaseVersion> for String {
    fn from(version: ReleaseVersion) -> String {
        version.to_string()
    }
}

impl fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ReleaseVersion {
    /// The version as Debian's packages have it: there a tilde, not a hyphen, sorts before the release.
    pub fn debian(&self) -> String {
        self.to_string().replacen('-', "~", 1)
    }

    /// The version that Debian's packages have as this text.
    pub fn of_debian(text: &str) -> Result<Self, BadVersion> {
        text.replacen('~', "-", 1).parse()
    }
}

impl Target {
    /// Debian's name of the processor, if Debian has machines of this kind.
    pub fn debian_architecture(&self) -> Option<&'static str> {
        let (processor, rest) = self.as_str().split_once('-')?;
        match (processor, rest) {
            ("x86_64", "unknown-linux-gnu" | "unknown-linux-musl") => Some("amd64"),
            ("aarch64", "unknown-linux-gnu" | "unknown-linux-musl") => Some("arm64"),
            ("armv7", "unknown-linux-gnueabihf" | "unknown-linux-musleabihf") => Some("armhf"),
            _ => None,
        }
    }

    /// Whether programs for it bring their C library along, and so run whatever the machine has.
    pub fn is_static(&self) -> bool {
        self.as_str().contains("-musl")
    }
}

/// Why a release is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Signed by somebody whom the root names, for something else.
    #[error("the release is signed by a {0}'s key, which may not sign releases")]
    WrongRole(&'static str),
    /// Not signed by enough release keys.
    #[error("the release is not signed by the release keys that the root names")]
    Signature(#[from] VerifyError),
    /// No release document.
    #[error("the release cannot be read: {0}")]
    Malformed(String),
}

/// Why a machine does not take a release, or a file of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInstalled {
    /// The release is not believed.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Under an expired root nothing new begins.
    #[error("the root expired, so nothing new is installed until the next root is here")]
    RootExpired,
    /// Something newer is installed.
    #[error("release {offered} is older than the agent {installed} that is installed")]
    Older {
        /// What is installed.
        installed: ReleaseVersion,
        /// What came.
        offered: ReleaseVersion,
    },
    /// It has nothing for this machine.
    #[error("release {version} has no {kind} for {ours}, only for {offered}")]
    NoTarget {
        /// Which release.
        version: ReleaseVersion,
        /// What was looked for.
        kind: ArtifactKind,
        /// This machine.
        ours: Target,
        /// What there is, in words.
        offered: String,
    },
    /// The file is for another machine.
    #[error("the {kind} is for {found}, and this machine is {ours}: another {what}")]
    OtherTarget {
        /// What it is.
        kind: ArtifactKind,
        /// This machine.
        ours: Target,
        /// The file's.
        found: Target,
        /// What differs.
        what: &'static str,
    },
    /// The file is not the one that was signed.
    #[error("the {kind} is not {name} of release {version}: it has {found}, wanted {wanted}")]
    Changed {
        /// What it is.
        kind: ArtifactKind,
        /// Which it should be.
        name: ArtifactName,
        /// Of which release.
        version: ReleaseVersion,
        /// What came.
        found: String,
        /// What was signed.
        wanted: String,
    },
}

impl NotInstalled {
    /// What to do about it, for whoever reads it on the machine.
    pub fn next_move(&self) -> &'static str {
        match self {
            Self::Release(_) => {
                "do not install it before you know where it came from: `muster trust show` lists who may sign releases"
            }
            Self::RootExpired => "the owner of the fleet signs the next one: `muster keys renew`",
            Self::Older { .. } => "take the newest release: `muster release list` shows it",
            Self::NoTarget { .. } => "have a release made for it: `cargo xtask release --target TARGET`",
            Self::OtherTarget { .. } => "take the file of the release that is for this machine",
            Self::Changed { .. } => {
                "fetch it again; if it differs again somebody changes it on its way, or the disk is bad"
            }
        }
    }
}

/// Proof that the release signers stand for a release. Its constructor is the verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRelease {
    release: Release,
    digest: Digest,
}

impl VerifiedRelease {
    /// Signatures first, parsing second.
    pub fn verify(envelope: &Envelope, root: &TrustedRoot) -> Result<Self, ReleaseError> {
        let (keys, threshold) = root.release();
        let payload = envelope.verify(payload_type::RELEASE, &keys, threshold).map_err(|error| {
            let role = wrong_role(envelope, root).filter(|_| matches!(error, VerifyError::TooFewSignatures { .. }));
            role.map_or(ReleaseError::Signature(error), ReleaseError::WrongRole)
        })?;
        Ok(Self { release: Release::parse(payload)?, digest: Digest::of(payload) })
    }

    /// The document.
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// SHA-256 of the signed payload.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Whose signature it is, if it is of somebody whom the root names for something else.
fn wrong_role(envelope: &Envelope, root: &TrustedRoot) -> Option<&'static str> {
    let document = root.root();
    let publishers: Vec<_> = document.publishers.iter().map(|publisher| publisher.key).collect();
    let roles = [("publisher", &publishers), ("director", &document.directors), ("root signer", &document.root.keys)];
    let signed = |keys: &[_]| envelope.verify(payload_type::RELEASE, keys, 1).is_ok();
    let released = signed(&document.release.keys);
    roles.into_iter().find(|(_, keys)| !released && signed(keys)).map(|(role, _)| role)
}

impl Release {
    /// The bytes that are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        // Strings and numbers always become JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a release's file: an envelope that proves nothing yet.
    pub fn envelope(bytes: &[u8]) -> Result<Envelope, ReleaseError> {
        if bytes.len() > RELEASE_BYTES_MAX {
            return Err(ReleaseError::Malformed(format!("{} bytes, more than {RELEASE_BYTES_MAX}", bytes.len())));
        }
        serde_json::from_slice(bytes).map_err(|error| ReleaseError::Malformed(error.to_string()))
    }

    /// Reads and checks a payload. Proves nothing about who wrote it: it is for those who made it and are
    /// about to sign it; what came from elsewhere goes through [`VerifiedRelease`].
    pub fn parse(payload: &[u8]) -> Result<Self, ReleaseError> {
        let malformed = |text: String| Err(ReleaseError::Malformed(text));
        if payload.len() > RELEASE_BYTES_MAX {
            return malformed(format!("{} bytes, more than {RELEASE_BYTES_MAX}", payload.len()));
        }
        let release: Self =
            serde_json::from_slice(payload).map_err(|error| ReleaseError::Malformed(error.to_string()))?;
        let artifacts = &release.artifacts;
        if artifacts.is_empty() || artifacts.len() > ARTIFACTS_MAX {
            return malformed(format!("{} files; 1 to {ARTIFACTS_MAX} go", artifacts.len()));
        }
        for (at, artifact) in artifacts.iter().enumerate() {
            let Artifact { target, kind, name, bytes, .. } = artifact;
            if *bytes == 0 || *bytes > ARTIFACT_BYTES_MAX {
                return malformed(format!("{name} has {bytes} bytes; 1 to {ARTIFACT_BYTES_MAX} go"));
            }
            // It stands in paths and in options' places.
            if name.as_str().starts_with(['.', '-']) || name.as_str() == FILE_NAME {
                return malformed(format!("a file cannot be called {name}"));
            }
            let earlier = &artifacts[..at];
            if earlier.iter().any(|other| other.name == *name) {
                return malformed(format!("{name} stands twice"));
            }
            if earlier.iter().any(|other| other.target == *target && other.kind == *kind) {
                return malformed(format!("the {kind} for {target} stands twice"));
            }
        }
        Ok(release)
    }

    /// The file of this name.
    pub fn artifact(&self, name: &ArtifactName) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == *name)
    }

    /// The files of a kind.
    pub fn of_kind(&self, kind: ArtifactKind) -> impl Iterator<Item = &Artifact> {
        self.artifacts.iter().filter(move |artifact| artifact.kind == kind)
    }
}

/// What a machine asks before it takes a release.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The time, never before the machine's lower bound.
    pub now_ms: UnixMs,
    /// What is installed; nothing yet where there is none.
    pub installed: Option<&'a ReleaseVersion>,
    /// What the machine is.
    pub target: &'a Target,
    /// What it is to take.
    pub kind: ArtifactKind,
    /// The file at hand; without one the question is whether to fetch one.
    pub file: Option<FileFound>,
}

/// A file as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFound {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// Whether a machine may take a release: under a root that holds, not older than what it has, the very
/// file that was signed, for its kind of machine. Gives back the file's entry.
pub fn judge<'a>(
    release: &'a VerifiedRelease,
    root: &TrustedRoot,
    asked: &Asked<'_>,
) -> Result<&'a Artifact, NotInstalled> {
    let release = release.release();
    if checks::on(Check::RootExpiry) && root.root().expires_ms <= asked.now_ms {
        return Err(NotInstalled::RootExpired);
    }
    if let Some(installed) = asked.installed
        && checks::on(Check::ReleaseOrder)
        && release.version.cmp(installed) == Ordering::Less
    {
        return Err(NotInstalled::Older { installed: installed.clone(), offered: release.version.clone() });
    }
    let ours = release.of_kind(asked.kind).find(|artifact| artifact.target == *asked.target);
    match asked.file {
        None => ours.ok_or_else(|| no_target(release, asked)),
        Some(file) => judge_file(release, ours, asked, file),
    }
}

fn judge_file<'a>(
    release: &'a Release,
    ours: Option<&'a Artifact>,
    asked: &Asked<'_>,
    file: FileFound,
) -> Result<&'a Artifact, NotInstalled> {
    let is_file = |artifact: &&Artifact| artifact.sha256 == file.sha256 && artifact.bytes == file.bytes;
    if let Some(named) = release.of_kind(asked.kind).find(is_file) {
        let right = named.target == *asked.target || !checks::on(Check::ReleaseTarget);
        return if right { Ok(named) } else { Err(other_target(named, asked)) };
    }
    let ours = ours.ok_or_else(|| no_target(release, asked))?;
    if !checks::on(Check::ReleaseDigest) {
        return Ok(ours);
    }
    let (found, wanted) = match file.bytes == ours.bytes {
        true => (format!("the SHA-256 {}", file.sha256), ours.sha256.to_string()),
        false => (format!("{} bytes", file.bytes), ours.bytes.to_string()),
    };
    let (kind, name, version) = (ours.kind, ours.name.clone(), release.version.clone());
    Err(NotInstalled::Changed { kind, name, version, found, wanted })
}

fn no_target(release: &Release, asked: &Asked<'_>) -> NotInstalled {
    let offered: Vec<&str> = release.of_kind(asked.kind).map(|artifact| artifact.target.as_str()).collect();
    NotInstalled::NoTarget {
        version: release.version.clone(),
        kind: asked.kind,
        ours: asked.target.clone(),
        offered: if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") },
    }
}

fn other_target(named: &Artifact, asked: &Asked<'_>) -> NotInstalled {
    let processor = |target: &Target| target.as_str().split('-').next().map(str::to_owned);
    let same = processor(&named.target) == processor(asked.target);
    NotInstalled::OtherTarget {
        kind: named.kind,
        ours: asked.target.clone(),
        found: named.target.clone(),
        what: if same { "C library" } else { "processor" },
    }
}

#[cfg(test)]
mod tests;
