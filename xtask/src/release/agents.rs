//! The agents of a release, as devices get them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use muster_shared::id::Target;

use crate::build;

/// How devices' agents are built, as far as it changes what is in them.
pub const FEATURES: &[&str] = &["--no-default-features"];

/// Every kind of device.
pub fn targets() -> anyhow::Result<Vec<Target>> {
    Ok(vec!["x86_64-unknown-linux-gnu".parse()?])
}

/// Builds the agent for a kind of device.
pub fn built(target: &Target) -> anyhow::Result<PathBuf> {
    match target.as_str() {
        "x86_64-unknown-linux-gnu" => build::release_agent(),
        other => bail!("no agent for {other} can be built here"),
    }
}

/// The newest version of glibc that a program asks for; none: it asks for no C library.
pub fn needed_glibc(program: &Path) -> anyhow::Result<Option<(u32, u32)>> {
    let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let version = |text: &str| {
        let mut parts = text.split(|other: char| !other.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    Ok(text.split("GLIBC_").skip(1).filter_map(version).max())
}
