//! What both commands take: the agent of a release that verifies, and what lets the device in.

use std::path::{Path, PathBuf};

use muster_provisioning::enrolment::{By, Enrolment, Url};
use muster_shared::claim::ClaimToken;
use muster_shared::id::{LabelText, Target};
use muster_shared::release::{self, ArtifactKind, Asked, FileFound, Release, ReleaseVersion, VerifiedRelease};
use muster_shared::{DeviceId, Digest};

use crate::commands::claim::label;
use crate::commands::release::SIGNERS;
use crate::commands::release::root::RootFrom;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, warn};
use crate::files;
use crate::output::now_ms;
use crate::release::AtHand;

/// The largest program that is read.
const AGENT_BYTES_MAX: u64 = 256 << 20;
/// The largest file that a person writes.
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// For which devices, where a release has agents for several and nobody says: most boards of today.
const USUAL: &str = "aarch64-unknown-linux-gnu";

/// Whose agent goes onto the device.
#[derive(clap::Args)]
pub struct Source {
    /// The release that the agent is taken from, signed by the fleet's release signers: its folder
    #[arg(long, value_name = "FOLDER")]
    release: PathBuf,
    /// For which kind of device, where the release has agents for several [default: aarch64-unknown-linux-gnu]
    #[arg(long, value_name = "TARGET")]
    target: Option<Target>,
    #[command(flatten)]
    root: RootFrom,
}

/// An agent that the release signers stand for.
pub struct Agent {
    /// Its program.
    pub bytes: Vec<u8>,
    /// Of which release.
    pub release: ReleaseVersion,
    /// For which devices.
    pub target: Target,
}

impl Source {
    /// Reads the agent, once its release verifies and names these very bytes for this kind of device.
    pub fn agent(&self, session: &Session) -> Result<Agent> {
        let at_hand = AtHand::open(&self.release)?;
        let root = self.root.read(session)?;
        let attempt = || format!("cannot take the agent of the release {}", at_hand.path.display());
        let verified = VerifiedRelease::verify(&at_hand.envelope, &root).attempt(attempt);
        let verified = verified.map_err(|failure| failure.hint(SIGNERS))?;
        let target = self.target(verified.release())?;
        let judge = |file| {
            let asked = Asked { now_ms: now_ms(), installed: None, target: &target, kind: ArtifactKind::Agent, file };
            release::judge(&verified, &root, &asked).map_err(|why| {
                let next = why.next_move();
                Failure::new(format!("{}: {why}", attempt())).hint(next)
            })
        };
        let path = at_hand.file(judge(None)?);
        let attempt = || format!("cannot read the agent {}", path.display());
        let file = std::fs::File::open(&path).attempt(attempt)?;
        let bytes = files::read_bounded(file, AGENT_BYTES_MAX).attempt(attempt)?;
        judge(Some(FileFound { bytes: bytes.len() as u64, sha256: Digest::of(&bytes) }))?;
        Ok(Agent { bytes, release: verified.release().version.clone(), target })
    }

    /// For which devices: what was said, or the only ones there are, or the usual ones.
    fn target(&self, release: &Release) -> Result<Target> {
        if let Some(target) = &self.target {
            return Ok(target.clone());
        }
        let mut offered = release.of_kind(ArtifactKind::Agent);
        match (offered.next(), offered.next()) {
            (Some(only), None) => Ok(only.target.clone()),
            _ => USUAL.parse::<Target>().attempt(|| "cannot choose a kind of device"),
        }
    }
}

/// How the device gets in.
#[derive(clap::Args)]
pub struct Entry {
    /// An enrolment file, as docs/guides/image.md shows it, in place of the flags below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["claim", "factory", "url", "name", "labels"])]
    enrol: Option<PathBuf>,
    /// A claim from `muster claim new`, or @FILE
    #[arg(long, value_name = "TOKEN", env = "MUSTER_CLAIM", hide_env_values = true)]
    claim: Option<String>,
    /// No claim: the device's key will be on the factory list; what it is to believe is taken from your context
    #[arg(long, conflicts_with = "claim")]
    factory: bool,
    /// The control plane as the device reaches it; else your context's address
    #[arg(long)]
    url: Option<Url>,
    /// The id the device would like
    #[arg(long)]
    name: Option<DeviceId>,
    /// A label that the device sets itself; may be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(LabelText, LabelText)>,
}

impl Entry {
    /// What was said; none: nothing was, and the file may come later.
    pub fn read(&self, session: &Session) -> Result<Option<Enrolment>> {
        if let Some(path) = &self.enrol {
            let text = text(path)?;
            return Enrolment::parse(&text).attempt(|| format!("cannot use {}", path.display())).map(Some);
        }
        let by = match (&self.claim, self.factory) {
            (Some(claim), _) => By::Claim(token(claim)?),
            (None, true) => {
                let (_, context) = session.context()?;
                By::Factory { root: context.pinned_root()?.digest, ca: context.ca_fingerprint, not_before_ms: now_ms() }
            }
            (None, false) if self.url.is_none() && self.name.is_none() && self.labels.is_empty() => return Ok(None),
            (None, false) => {
                return Err(Failure::new("nothing would let the device in")
                    .hint("add --claim TOKEN from `muster claim new`, or --factory"));
            }
        };
        let url = match &self.url {
            Some(url) => url.clone(),
            None => {
                session.context()?.1.url.parse::<Url>().attempt(|| "cannot give your context's address to a device")?
            }
        };
        if ["://127.", "://localhost", "://[::1]"].iter().any(|own| url.as_str().contains(own)) {
            warn(format_args!(
                "{} leads a device to itself; give --url with an address that it can reach",
                url.as_str()
            ));
        }
        Ok(Some(Enrolment { url, by, name: self.name.clone(), labels: self.labels.iter().cloned().collect() }))
    }
}

fn token(text: &str) -> Result<ClaimToken> {
    let text = match text.strip_prefix('@') {
        Some(path) => self::text(Path::new(path))?,
        None => text.to_owned(),
    };
    text.parse::<ClaimToken>().attempt(|| "cannot use the claim")
}

/// A text that a person wrote.
pub fn text(path: &Path) -> Result<String> {
    let attempt = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).attempt(attempt)?;
    let bytes = files::read_bounded(file, TEXT_BYTES_MAX).attempt(attempt)?;
    String::from_utf8(bytes).attempt(attempt)
}
