//! `muster trust floor`: the lowest version of a model that may run, on the publisher's word.

use muster_shared::api::FloorView;
use muster_shared::api::fleet::DeviceView;
use muster_shared::floor::Floor;
use muster_shared::signing::payload_type;
use muster_shared::{ModelName, Version};
use reqwest::Method;

use super::agree;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, warn};
use crate::keys::passphrase::Unlock;
use crate::keys::{self, Signer};
use crate::output::{self, TextOrJson, now_ms};
use crate::trust;

/// Devices that are named; beyond that they are counted.
const DEVICES_NAMED_MAX: usize = 20;

/// Arguments of `muster trust floor`.
#[derive(clap::Args)]
pub struct Args {
    /// The model
    model: ModelName,
    /// The lowest version of it that may run; it can never be lowered with the same key
    version: Version,
    /// The publisher's key, a file or a PKCS#11 URI; by default the one in the fleet's folder of keys
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    unlock: Unlock,
    /// Go on without asking
    #[arg(long)]
    yes: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let (_, context) = session.context()?;
    let client = context.client()?;
    let root = trust::newest_root(&client, context.pinned_root()?).await?;
    let named = root.publishers_of(&args.model);
    let key = match &args.key {
        Some(key) => key.clone(),
        None => {
            let here = keys::in_folder(&session.home.keys(&root.root().fleet));
            let found = here.into_iter().find(|(_, public)| named.contains(public));
            let (path, _) = found.ok_or_else(|| {
                Failure::new(format!("no key here is of a publisher of {}", args.model)).hint("name one with --key")
            })?;
            path.display().to_string()
        }
    };
    let devices: Vec<DeviceView> = client.get("/devices").await.attempt(|| "cannot list the devices")?;
    let below = running_below(&devices, &args);
    for line in below.iter().take(DEVICES_NAMED_MAX) {
        warn(line);
    }
    if let Some(more) = below.len().checked_sub(DEVICES_NAMED_MAX).filter(|more| *more > 0) {
        warn(format_args!("and {more} more"));
    }
    let question = match below.len() {
        0 => format!("Nothing below version {} of {} is to run ever again?", args.version, args.model),
        count => format!(
            "{count} running models stop or are replaced, and no version below {} ever runs again?",
            args.version
        ),
    };
    agree(&question, args.yes)?;
    let signer = Signer::open(&key, &args.unlock)?;
    if !named.contains(&signer.public()) {
        return Err(Failure::new(format!("the key {key} is of no publisher of {}", args.model))
            .hint("see who is with `muster trust show`"));
    }
    let floor = Floor {
        fleet: root.root().fleet.clone(),
        model: args.model.clone(),
        version: args.version,
        issued_ms: now_ms(),
    };
    let envelope = signer.sign(payload_type::FLOOR, floor.to_payload())?;
    let view: FloorView =
        client.send_json(Method::POST, "/trust/floors", &envelope).await.attempt(|| "cannot set the version floor")?;
    if view.newest.is_none_or(|newest| newest < view.version) {
        warn(format_args!("the control plane has no bundle of version {} or later: push one", view.version));
    }
    if args.output == TextOrJson::Json {
        return output::print_json(&view);
    }
    output::print_line(format_args!("no version of {} below {} runs from now on", view.model, view.version))
}

/// Which devices run a version below the floor.
fn running_below(devices: &[DeviceView], args: &Args) -> Vec<String> {
    let mut lines = Vec::new();
    for device in devices {
        for running in device.slots.iter().filter_map(|slot| slot.running.as_ref()) {
            if running.model == args.model && running.version < args.version {
                let away = if device.connected { "" } else { ", and is not connected now" };
                lines.push(format!("{} runs version {} of {}{away}", device.id, running.version, running.model));
            }
        }
    }
    lines
}
