//! `muster approve`: a device that waits is let in, one that is held is taken back.

use muster_shared::DeviceId;

use crate::context::Session;
use crate::error::Result;
use crate::output::{self, TextOrJson};

/// Arguments of `muster approve`.
#[derive(clap::Args)]
pub struct Args {
    /// The device's name; compare its key with `muster describe device` before
    device: DeviceId,
    /// text says what follows; json prints the device
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let device = super::cordon::schedule(&session.client()?, &args.device, "approve").await?;
    match args.output {
        TextOrJson::Text => output::print_line(format_args!("device {} is one of the fleet", device.id)),
        TextOrJson::Json => output::print_json(&device),
    }
}
