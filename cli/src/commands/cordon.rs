//! `muster cordon`: nothing new comes to a device; what is there stays.

use muster_shared::DeviceId;
use muster_shared::api::fleet::DeviceView;

use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Result};
use crate::output::{self, TextOrJson};
use crate::tell;

/// Arguments of `muster cordon`.
#[derive(clap::Args)]
pub struct Args {
    /// The device's name
    device: DeviceId,
    /// text says what is wanted of it now; json prints the device
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    show(&schedule(&session.client()?, &args.device, "cordon").await?, args.output)
}

/// Asks the control plane to `verb` a device: cordon, uncordon or drain it.
pub(super) async fn schedule(client: &Client, id: &DeviceId, verb: &str) -> Result<DeviceView> {
    client
        .post(&format!("/devices/{id}/{verb}"))
        .await
        .attempt(|| format!("cannot {verb} device {id}"))
        .map_err(|failure| failure.hint_if_none("`muster get devices` lists those that there are"))
}

/// Says what is wanted of a device now.
pub(super) fn show(device: &DeviceView, format: TextOrJson) -> Result<()> {
    match format {
        TextOrJson::Text => output::print_line(said(device)),
        TextOrJson::Json => output::print_json(device),
    }
}

fn said(device: &DeviceView) -> String {
    format!("device {} is {}", device.id, tell::device::schedule(device.schedule))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tell::device::tests::device;

    #[test]
    fn it_says_what_is_wanted_and_what_that_means() {
        for (schedule, text) in [
            ("open", "device edge-1 is open: replicas may be placed on it"),
            ("cordoned", "device edge-1 is cordoned: nothing new comes to it, and what is there stays"),
            ("draining", "device edge-1 is draining: nothing new comes to it, and what is there moves elsewhere"),
        ] {
            assert_eq!(said(&device(json!({"schedule": schedule}))), text);
        }
    }
}
