//! The agents of a release, as devices get them.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::ValueEnum as _;
use muster_shared::id::Target;

use crate::cross;

/// How devices' agents are built, as far as it changes what is in them.
pub const FEATURES: &[&str] = &cross::FEATURES;

/// Every kind of device.
pub fn targets() -> anyhow::Result<Vec<Target>> {
    cross::Target::ALL.iter().map(|target| Ok(target.triple().parse()?)).collect()
}

/// Builds the agent for a kind of device.
pub fn built(target: &Target) -> anyhow::Result<PathBuf> {
    let known = cross::Target::from_str(target.as_str(), false)
        .map_err(|_| anyhow!("no agent for {target} can be built; give one that was built elsewhere by --agent"))?;
    cross::built(known)
}
