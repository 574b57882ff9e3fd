//! `muster release push`: the signed document first, then the files that the control plane lacks.

use std::path::PathBuf;

use muster_shared::api::releases::ReleasePushed;
use muster_shared::release::{Artifact, VerifiedRelease};
use reqwest::Method;
use tokio_util::io::{InspectReader, ReaderStream};

use super::SIGNERS;
use crate::client::Client;
use crate::commands::push::{PIECE_BYTES, progress, stalled};
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::output::{self, TextOrJson};
use crate::release::AtHand;
use crate::trust;

/// Arguments of `muster release push`.
#[derive(clap::Args)]
pub struct Args {
    /// The release's folder
    folder: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: &Args, session: &Session) -> Result<()> {
    let at_hand = AtHand::open(&args.folder)?;
    let version = at_hand.release.version.clone();
    let attempt = || format!("cannot push release {version}");
    let (_, context) = session.context()?;
    let client = context.client()?;
    // Said here already, since the control plane and every device would refuse it anyway.
    let root = trust::newest_root(&client, context.pinned_root()?).await?;
    VerifiedRelease::verify(&at_hand.envelope, &root).attempt(attempt).map_err(|failure| failure.hint(SIGNERS))?;
    at_hand.check_all().attempt(attempt)?;
    let pushed = offer(&client, &at_hand).await.attempt(attempt)?;
    let bar = progress(pushed.missing.iter().map(|artifact| artifact.bytes).sum());
    for artifact in &pushed.missing {
        upload(&client, &at_hand, artifact, &bar).await.attempt(attempt)?;
    }
    bar.finish_and_clear();
    let after =
        if pushed.missing.is_empty() { pushed.clone() } else { offer(&client, &at_hand).await.attempt(attempt)? };
    if let Some(artifact) = after.missing.first() {
        return Err(Failure::new(format!("{}: {} did not arrive", attempt(), artifact.name)).hint("push it again"));
    }
    if args.output == TextOrJson::Json {
        let uploaded = pushed.missing.len();
        return output::print_json(
            &serde_json::json!({ "version": version, "filesUploaded": uploaded, "newer": after.newer }),
        );
    }
    let what = match pushed.missing.len() {
        0 => "was there already".to_owned(),
        1 => "pushed: 1 file".to_owned(),
        files => format!("pushed: {files} files"),
    };
    output::print_line(format_args!("release {version} {what}"))?;
    match after.newer {
        Some(newer) => warn(format_args!("it is kept, but release {newer} is newer and stays the one that is offered")),
        None => next_move("`muster claim new --install` prints the line that installs it and enrols a machine"),
    }
    Ok(())
}

async fn offer(client: &Client, at_hand: &AtHand) -> Result<ReleasePushed> {
    client.send_json(Method::POST, "/releases", &at_hand.envelope).await.attempt(|| "the release was not taken")
}

async fn upload(client: &Client, at_hand: &AtHand, artifact: &Artifact, bar: &indicatif::ProgressBar) -> Result<()> {
    let path = at_hand.file(artifact);
    let attempt = || format!("cannot upload {}", artifact.name);
    let file = tokio::fs::File::open(&path).await.attempt(attempt)?;
    let counted = bar.clone();
    let reader = InspectReader::new(file, move |piece| counted.inc(piece.len() as u64));
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(reader, PIECE_BYTES));
    let to = format!("/releases/{}/{}", at_hand.release.version, artifact.name);
    tokio::select! {
        done = client.upload_to(&to, artifact.bytes, body) => done.attempt(attempt),
        () = stalled(bar) => Err(Failure::new(format!("{}: nothing moves any more", attempt()))
            .hint("check the network, then push again: files that arrived are not sent twice")),
    }
}
