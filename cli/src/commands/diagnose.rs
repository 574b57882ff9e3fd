//! `muster diagnose`: what a device believes and why it does what it does, in its own words.

use muster_shared::DeviceId;

use crate::context::Session;
use crate::error::{Attempt as _, Result};
use crate::output;

/// Arguments of `muster diagnose`.
#[derive(clap::Args)]
pub struct Args {
    /// The device
    device: DeviceId,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let path = format!("/devices/{}/diagnosis", args.device);
    let said: serde_json::Value =
        session.client()?.get(&path).await.attempt(|| format!("cannot ask {}", args.device))?;
    output::print_json(&said)
}
