//! `muster trust show`: the newest root that follows from the pinned one.

use muster_shared::id::UnixMs;
use muster_shared::signing::key::PublicKey;
use muster_shared::{Digest, FleetId};
use serde::Serialize;

use crate::context::{PinnedRoot, Session};
use crate::error::{Result, warn};
use crate::output::{self, Facts, TextOrJson, date, now_ms};
use crate::trust;

/// Arguments of `muster trust`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show the root in force: who may publish, direct and release
    Show {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: TextOrJson,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    fleet: &'a FleetId,
    version: u64,
    epoch: u64,
    expires_ms: UnixMs,
    digest: Digest,
    pinned: PinnedRoot,
    root: &'a muster_shared::root::Role,
    publishers: &'a [muster_shared::root::Publisher],
    directors: &'a [PublicKey],
    release: &'a muster_shared::root::Role,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let Command::Show { output } = args.command;
    let (_, context) = session.context()?;
    let pinned = context.pinned_root()?;
    let trusted = trust::newest_root(&context.client()?, pinned).await?;
    let root = trusted.root();
    if root.expires_ms <= now_ms() {
        warn("this root has expired: what serves goes on, but nothing new begins until a new root is signed");
    }
    if output == TextOrJson::Json {
        return output::print_json(&View {
            fleet: &root.fleet,
            version: root.version,
            epoch: root.epoch,
            expires_ms: root.expires_ms,
            digest: trusted.digest(),
            pinned,
            root: &root.root,
            publishers: &root.publishers,
            directors: &root.directors,
            release: &root.release,
        });
    }
    let mut facts = Facts::default();
    facts.add("fleet", &root.fleet);
    facts.add("root", format!("version {}, epoch {}, {}", root.version, root.epoch, trusted.digest()));
    facts.add("pinned", format!("version {}, {}", pinned.version, pinned.digest));
    facts.add("expires", date(root.expires_ms));
    for key in &root.root.keys {
        facts.add("root key", format!("{} ({} of {} must sign)", key.id(), root.root.threshold, root.root.keys.len()));
    }
    for publisher in &root.publishers {
        let models = publisher
            .models
            .as_ref()
            .map(|models| models.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        facts.add("publisher", format!("{} ({})", publisher.key.id(), models.as_deref().unwrap_or("every model")));
    }
    root.directors.iter().for_each(|key| facts.add("director", key.id()));
    root.release.keys.iter().for_each(|key| facts.add("release key", key.id()));
    root.compromised.iter().for_each(|key| facts.add("compromised", key));
    output::print(&facts.render())
}
