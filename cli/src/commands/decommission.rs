//! `muster decommission`: a device leaves the fleet, empty. It is told to remove its models and its key, says so, and
//! is revoked then.

use std::time::Duration;

use muster_shared::DeviceId;
use muster_shared::api::fleet::DeviceView;
use muster_shared::api::members::{Revoke, Standing};
use muster_shared::quantity::Millis;
use reqwest::Method;

use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::output::{self, TextOrJson, date};
use crate::wait;

/// Arguments of `muster decommission`.
#[derive(clap::Args)]
pub struct Args {
    /// The device's name
    device: DeviceId,
    /// Why, for whoever reads the events later
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
    /// Go on without a question
    #[arg(short, long)]
    yes: bool,
    /// Wait until the device said that it is empty
    #[arg(long)]
    wait: bool,
    /// How long to wait; without it until the device has left
    #[arg(long, requires = "wait", value_name = "D")]
    timeout: Option<Millis>,
    /// text says what follows; json prints the device
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let client = session.client()?;
    let question =
        format!("{} forgets its models and its key, and must be enrolled anew to come back. Go on?", args.device);
    super::agree(&question, args.yes)?;
    let attempt = || format!("cannot decommission device {}", args.device);
    let path = format!("/devices/{}", args.device);
    let asked = Revoke { reason: args.reason };
    let told: Result<DeviceView> =
        client.send_json(Method::POST, &format!("{path}/decommission"), &asked).await.attempt(attempt);
    let mut device = told.map_err(|failure| failure.hint_if_none("`muster get devices` lists those that there are"))?;
    if args.wait {
        if !device.connected && device.standing == Standing::Leaving {
            next_move(format_args!("device {} is off; it is told as soon as it connects", device.id));
        }
        let timeout = args.timeout.map(|timeout| Duration::from_millis(timeout.0));
        let look = async || {
            let device: DeviceView = client.get(&path).await.attempt(attempt)?;
            Ok((device.standing != Standing::Leaving).then_some(device))
        };
        let why = device.standing_why.clone().unwrap_or_default();
        let late = || {
            Failure::new(format!("device {} has not left yet: {why}", args.device))
                .hint("it is told as soon as it connects; `muster revoke` cuts it off without that")
        };
        device = wait::until(timeout, look).await?.ok_or_else(late)?;
    }
    if args.output == TextOrJson::Json {
        return output::print_json(&device);
    }
    let confirmed_ms = device.departure.as_ref().and_then(|departure| departure.confirmed_ms);
    match (device.standing, confirmed_ms) {
        (Standing::Revoked, Some(at_ms)) => {
            output::print_line(format_args!("device {} left: it said at {} that it is empty", device.id, date(at_ms)))?;
            next_move(format_args!("`muster delete device {}` frees its name", device.id));
        }
        (Standing::Revoked, None) => {
            output::print_line(format_args!("device {} is revoked, and never said that it is empty", device.id))?;
        }
        _ if device.connected => {
            output::print_line(format_args!("device {} is told to empty itself", device.id))?;
            next_move(format_args!("`muster describe device {}` says when it has", device.id));
        }
        _ => {
            output::print_line(format_args!("device {} is told to empty itself as soon as it connects", device.id))?;
            next_move(format_args!(
                "if it is lost, cut it off with `muster revoke {}`; `muster approve {}` keeps it after all",
                device.id, device.id
            ));
        }
    }
    Ok(())
}
