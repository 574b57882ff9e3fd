//! `muster drain`: what is on a device moves elsewhere, and nothing new comes to it. With `--wait` the
//! command ends when the device is empty.

use std::time::Duration;

use muster_shared::DeviceId;
use muster_shared::api::fleet::DeviceView;
use muster_shared::api::plan::{DeviceExplained, DeviceReplica};
use muster_shared::quantity::Millis;

use super::cordon;
use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::output::{self, TextOrJson, one_line};
use crate::wait;

/// Arguments of `muster drain`.
#[derive(clap::Args)]
pub struct Args {
    /// The device's name
    device: DeviceId,
    /// Wait until nothing is left on it, and print what still waits
    #[arg(short, long)]
    wait: bool,
    /// How long to wait
    #[arg(long, default_value = "5m", value_name = "D", requires = "wait")]
    timeout: Millis,
    /// text says what is wanted of it now; json prints the device, with --wait once it is empty
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let (client, id) = (session.client()?, &args.device);
    let device = cordon::schedule(&client, id, "drain").await?;
    if !args.wait {
        cordon::show(&device, args.output)?;
        if args.output == TextOrJson::Text {
            next_move(format_args!(
                "`muster drain {id} --wait` ends when it is empty; `muster explain {id}` says what is left"
            ));
        }
        return Ok(());
    }
    if args.output == TextOrJson::Text {
        cordon::show(&device, TextOrJson::Text)?;
    }
    until_empty(&args, &client).await?;
    match args.output {
        TextOrJson::Text => output::print_line(format_args!("device {id} is empty")),
        TextOrJson::Json => {
            let device: DeviceView =
                client.get(&format!("/devices/{id}")).await.attempt(|| format!("cannot ask for the device {id}"))?;
            output::print_json(&device)
        }
    }
}

async fn until_empty(args: &Args, client: &Client) -> Result<()> {
    let id = &args.device;
    let mut left: Vec<String> = Vec::new();
    let emptied = wait::until(Some(Duration::from_millis(args.timeout.0)), async || {
        let path = format!("/devices/{id}/explain");
        let device: DeviceExplained = client.get(&path).await.attempt(|| format!("cannot ask what is on {id}"))?;
        let now: Vec<String> = device.replicas.iter().map(waits).collect();
        for line in now.iter().filter(|line| args.output == TextOrJson::Text && !left.contains(line)) {
            output::print_line(format_args!("waits: {line}"))?;
        }
        left = now;
        Ok(left.is_empty().then_some(()))
    });
    match emptied.await? {
        Some(()) => Ok(()),
        None => Err(too_long(id, args.timeout, &left)),
    }
}

/// What is left, and why.
fn waits(left: &DeviceReplica) -> String {
    let DeviceReplica { deployment, replica } = left;
    let why = match &replica.reason {
        Some(reason) => reason,
        None if replica.leaving => "it goes as soon as another one serves",
        None if replica.why.is_empty() => "it has yet to be told to go",
        None => &replica.why,
    };
    one_line(&format!("{deployment}: {why}"))
}

fn too_long(id: &DeviceId, timeout: Millis, left: &[String]) -> Failure {
    let what = if left.is_empty() { "nobody said what is on it".to_owned() } else { left.join("; ") };
    Failure::new(format!("device {id} is not empty after {timeout}: {what}")).hint(format!(
        "`muster explain DEPLOYMENT` says what keeps its replicas from other devices; `muster uncordon {id}` calls the \
         draining off"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tell::replicas::tests::replica;

    fn left(fields: Value) -> String {
        let replica = json!({"deployment": "digits", "replica": replica(fields)});
        waits(&serde_json::from_value(replica).expect("a replica"))
    }

    #[test]
    fn what_is_left_has_a_reason() {
        assert_eq!(left(json!({"leaving": true})), "digits: it goes as soon as another one serves");
        assert_eq!(left(json!({"leaving": true, "reason": "no\nroom"})), "digits: no room");
        assert_eq!(left(json!({"why": "every device has it"})), "digits: every device has it");
        assert_eq!(left(json!({"why": ""})), "digits: it has yet to be told to go");
    }

    #[test]
    fn a_timeout_says_what_is_left_and_what_next() {
        let id = "edge-1".parse().expect("an id");
        let text = too_long(&id, Millis(300_000), &[left(json!({"leaving": true}))]).to_string();
        assert_eq!(
            text,
            "device edge-1 is not empty after 5m: digits: it goes as soon as another one serves (hint: `muster explain \
             DEPLOYMENT` says what keeps its replicas from other devices; `muster uncordon edge-1` calls the draining off)"
        );
        assert!(too_long(&id, Millis(0), &[]).to_string().contains("after 0ms: nobody said"));
    }
}
