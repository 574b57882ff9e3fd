//! `muster release list` and `show`: what the control plane keeps, and what it is worth.

use muster_shared::api::releases::ReleaseView;
use muster_shared::release::ReleaseVersion;

use super::{fetch, kept};
use crate::context::Session;
use crate::error::Result;
use crate::output::{self, Facts, Table, TextOrJson, date};
use crate::trust;

/// Arguments of `muster release list`.
#[derive(clap::Args)]
pub struct ListArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

/// Arguments of `muster release show`.
#[derive(clap::Args)]
pub struct Args {
    /// The release's version
    version: ReleaseVersion,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn list(args: &ListArgs, session: &Session) -> Result<()> {
    let releases = kept(&session.client()?).await?;
    if args.output == TextOrJson::Json {
        return output::print_json(&releases);
    }
    let mut table = Table::new(&["VERSION", "STATE", "PUSHED", "FOR"]);
    for release in &releases {
        let mut targets: Vec<&str> = release.artifacts.iter().map(|artifact| artifact.target.as_str()).collect();
        targets.dedup();
        table.row([
            release.version.to_string(),
            state(release).to_owned(),
            date(release.pushed_ms),
            targets.join(", "),
        ]);
    }
    output::print(&table.render())
}

fn state(release: &ReleaseView) -> &'static str {
    match release {
        ReleaseView { refused: Some(_), .. } => "not believed",
        ReleaseView { complete: false, .. } => "incomplete",
        ReleaseView { offered: true, .. } => "offered",
        _ => "kept",
    }
}

pub async fn run(args: &Args, session: &Session) -> Result<()> {
    let (_, context) = session.context()?;
    let client = context.client()?;
    let root = trust::newest_root(&client, context.pinned_root()?).await?;
    let verified = fetch(&client, &root, &args.version).await?;
    let release = verified.release();
    if args.output == TextOrJson::Json {
        return output::print_json(&serde_json::json!({ "digest": verified.digest(), "release": release }));
    }
    let mut facts = Facts::default();
    facts.add("release", &release.version);
    facts.add("digest", verified.digest());
    facts.add("made", date(release.issued_ms));
    facts.add("signed by", format!("the release keys of root {}", root.root().version));
    for artifact in &release.artifacts {
        facts.add(
            &artifact.kind.to_string(),
            format!(
                "{} ({}, {}, SHA-256 {})",
                artifact.name,
                artifact.target,
                output::bytes(artifact.bytes),
                artifact.sha256
            ),
        );
    }
    output::print(&facts.render())
}
