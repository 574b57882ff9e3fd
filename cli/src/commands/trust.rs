//! `muster trust show`: the newest root that follows from the pinned one, the version floors, and what
//! both keep from being placed.

use muster_shared::api::catalog::BundleView;
use muster_shared::floor::Floor;
use muster_shared::id::UnixMs;
use muster_shared::signing::key::{KeyId, PublicKey};
use muster_shared::{Digest, FleetId};
use serde::Serialize;

use super::floor;
use crate::context::{PinnedRoot, Session};
use crate::error::{Attempt as _, Result, warn};
use crate::keys::fingerprint;
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
    /// Set the lowest version of a model that may run anywhere, signed by its publisher
    Floor(floor::Args),
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
    compromised: &'a [KeyId],
    floors: &'a [Floor],
    /// Bundles with which nothing may begin.
    barred: Vec<String>,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let output = match args.command {
        Command::Show { output } => output,
        Command::Floor(args) => return floor::run(args, session).await,
    };
    let (_, context) = session.context()?;
    let pinned = context.pinned_root()?;
    let client = context.client()?;
    let trusted = trust::newest_root(&client, pinned).await?;
    let floors = trust::floors(&client, &trusted).await?;
    let barred: Vec<BundleView> = client.get("/bundles").await.attempt(|| "cannot list the bundles")?;
    let barred: Vec<BundleView> = barred.into_iter().filter(|bundle| bundle.barred.is_some()).collect();
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
            compromised: &root.compromised,
            floors: &floors,
            barred: barred.iter().map(|bundle| format!("{}/{}", bundle.model, bundle.version)).collect(),
        });
    }
    let mut facts = Facts::default();
    facts.add("fleet", &root.fleet);
    facts.add("root", format!("version {}, epoch {}, {}", root.version, root.epoch, trusted.digest()));
    facts.add("pinned", format!("version {}, {}", pinned.version, pinned.digest));
    facts.add("expires", date(root.expires_ms));
    for key in &root.root.keys {
        facts.add(
            "root key",
            format!("{} ({} of {} must sign)", fingerprint::of(key), root.root.threshold, root.root.keys.len()),
        );
    }
    for publisher in &root.publishers {
        let models = publisher
            .models
            .as_ref()
            .map(|models| models.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        facts.add(
            "publisher",
            format!("{} ({})", fingerprint::of(&publisher.key), models.as_deref().unwrap_or("every model")),
        );
    }
    root.directors.iter().for_each(|key| facts.add("director", fingerprint::of(key)));
    root.release.keys.iter().for_each(|key| facts.add("release key", fingerprint::of(key)));
    root.compromised.iter().for_each(|key| facts.add("compromised", fingerprint::groups(key.0)));
    for floor in &floors {
        let text =
            format!("{} below version {} never runs, since {}", floor.model, floor.version, date(floor.issued_ms));
        facts.add("floor", text);
    }
    for bundle in &barred {
        let why = bundle.barred.as_deref().unwrap_or_default();
        facts.add("not placed", format!("{} {}: {why}", bundle.model, bundle.version));
    }
    output::print(&facts.render())
}
