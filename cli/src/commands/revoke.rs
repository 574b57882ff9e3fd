//! `muster revoke`: a device's key is cut off at once, and never comes back.

use muster_shared::DeviceId;
use muster_shared::api::fleet::DeviceView;
use muster_shared::api::members::Revoke;
use reqwest::Method;

use crate::context::Session;
use crate::error::{Attempt as _, Result, next_move};
use crate::output::{self, TextOrJson};

/// Arguments of `muster revoke`.
#[derive(clap::Args)]
pub struct Args {
    /// The device's name
    device: DeviceId,
    /// Why, for whoever reads the list later
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    /// text says what follows; json prints the device
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let asked = Revoke { reason: args.reason };
    let device: DeviceView = session
        .client()?
        .send_json(Method::POST, &format!("/devices/{}/revoke", args.device), &asked)
        .await
        .attempt(|| format!("cannot revoke device {}", args.device))
        .map_err(|failure| failure.hint_if_none("`muster get devices` lists those that there are"))?;
    if args.output == TextOrJson::Json {
        return output::print_json(&device);
    }
    output::print_line(format_args!("device {} is revoked: key {} never comes back", device.id, device.fingerprint))?;
    next_move(format_args!("`muster delete device {}` frees its name for another key", device.id));
    Ok(())
}
