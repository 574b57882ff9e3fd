//! What both commands take: the agent, and what lets the device in.

use std::path::{Path, PathBuf};

use muster_provisioning::disk::cpio::Tree;
use muster_provisioning::enrolment::{By, Enrolment, Url};
use muster_provisioning::image::package::Package;
use muster_shared::DeviceId;
use muster_shared::claim::ClaimToken;
use muster_shared::id::LabelText;

use crate::commands::claim::label;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::files;
use crate::output::now_ms;

/// The largest program or package that is read.
const AGENT_BYTES_MAX: u64 = 256 << 20;
/// The largest file that a person writes.
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// Where a package has the agent.
const PLACE: &str = "usr/bin/muster-agent";

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

/// The agent's program, from a program or from its Debian package.
pub fn agent(path: &Path) -> Result<Vec<u8>> {
    let attempt = || format!("cannot read the agent in {}", path.display());
    let file = std::fs::File::open(path).attempt(attempt)?;
    let bytes = files::read_bounded(file, AGENT_BYTES_MAX).attempt(attempt)?;
    if !bytes.starts_with(b"!<arch>\n") {
        return Ok(bytes);
    }
    let package = Package::from_bytes(&path.display().to_string(), bytes).attempt(attempt)?;
    let mut tree = Tree::new();
    package.unpack(&mut tree, &|path| path == PLACE).attempt(attempt)?;
    let (_, agent) = tree.file(PLACE).ok_or_else(|| {
        Failure::new(format!("the package {} has no {PLACE}", package.name))
            .hint("name the package muster-agent of a release, or the program itself")
    })?;
    Ok(agent.to_vec())
}
