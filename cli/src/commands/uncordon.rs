//! `muster uncordon`: replicas may be placed on a device again, whether it was cordoned or drained.

use muster_shared::DeviceId;

use super::cordon;
use crate::context::Session;
use crate::error::Result;
use crate::output::TextOrJson;

/// Arguments of `muster uncordon`.
#[derive(clap::Args)]
pub struct Args {
    /// The device's name
    device: DeviceId,
    /// text says what is wanted of it now; json prints the device
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    cordon::show(&cordon::schedule(&session.client()?, &args.device, "uncordon").await?, args.output)
}
