//! `muster push`: the signed manifest first, then the files that the control plane lacks. Pushing
//! again uploads nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_shared::api::catalog::PushStatus;
use muster_shared::manifest::{FileRef, VerifiedManifest};
use muster_shared::signing::Envelope;
use reqwest::Method;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::{InspectReader, ReaderStream};

use super::inspect;
use crate::bundle::Bundle;
use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::output::{self, TextOrJson};
use crate::trust;

/// An upload that stands still this long has failed.
const STALL_TIME: Duration = Duration::from_secs(60);
/// Bytes that are read from the bundle at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Arguments of `muster push`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle, as `muster pack` made it
    file: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    model: muster_shared::ModelName,
    version: muster_shared::Version,
    manifest: muster_shared::Digest,
    files_uploaded: usize,
    bytes_uploaded: u64,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let bundle = inspect::open(&args.file)?;
    let (model, version) = (bundle.manifest.model.clone(), bundle.manifest.version);
    let attempt = || format!("cannot push {model} {version}");
    let (_, context) = session.context()?;
    let client = context.client()?;
    // Said here already, since the control plane and every device would refuse it anyway.
    let root = trust::newest_root(&client, context.pinned_root()?).await?;
    VerifiedManifest::verify(&bundle.envelope, &root)
        .attempt(attempt)
        .map_err(|failure| failure.hint("pack it with the key of a publisher that `muster trust show` lists"))?;

    let status = offer(&client, &bundle.envelope).await.attempt(attempt)?;
    let bar = progress(status.missing.iter().map(|file| file.bytes).sum());
    for file in &status.missing {
        upload(&client, &args.file, &bundle, file, &bar).await.attempt(attempt)?;
    }
    bar.finish_and_clear();
    if !status.missing.is_empty() {
        let left = offer(&client, &bundle.envelope).await.attempt(attempt)?.missing;
        if let Some(file) = left.first() {
            return Err(Failure::new(format!("{}: {} did not arrive", attempt(), file.sha256)).hint("push it again"));
        }
    }

    if let Some(why) = &status.barred {
        warn(format_args!("it was taken, but nothing will begin with it: {why}"));
    }
    let view = View {
        manifest: bundle.digest,
        files_uploaded: status.missing.len(),
        bytes_uploaded: status.missing.iter().map(|file| file.bytes).sum(),
        model,
        version,
    };
    if args.output == TextOrJson::Json {
        return output::print_json(&view);
    }
    let what = match view.files_uploaded {
        0 => "was there already".to_owned(),
        1 => format!("pushed: 1 file, {}", output::bytes(view.bytes_uploaded)),
        files => format!("pushed: {files} files, {}", output::bytes(view.bytes_uploaded)),
    };
    output::print_line(format_args!("bundle {} {} {what}", view.model, view.version))?;
    next_move(format_args!(
        "deploy it with `muster apply`, or look at it with `muster describe bundle {}/{}`",
        view.model, view.version
    ));
    Ok(())
}

async fn offer(client: &Client, manifest: &Envelope) -> Result<PushStatus> {
    client.send_json(Method::POST, "/bundles", manifest).await.attempt(|| "the manifest was not taken")
}

/// Streams one file out of the bundle.
async fn upload(client: &Client, path: &Path, bundle: &Bundle, file: &FileRef, bar: &ProgressBar) -> Result<()> {
    let attempt = || format!("cannot upload {}", file.sha256);
    let named = bundle.files.get(&file.sha256);
    let (file, start) = named.ok_or_else(|| Failure::new(format!("{}: the bundle has no such file", attempt())))?;
    let mut source = tokio::fs::File::open(path).await.attempt(attempt)?;
    source.seek(std::io::SeekFrom::Start(*start)).await.attempt(attempt)?;
    let counted = bar.clone();
    let reader = InspectReader::new(source.take(file.bytes), move |piece| counted.inc(piece.len() as u64));
    let body = reqwest::Body::wrap_stream(ReaderStream::with_capacity(reader, PIECE_BYTES));
    tokio::select! {
        done = client.upload(file.sha256, file.bytes, body) => done.attempt(attempt),
        () = stalled(bar) => Err(Failure::new(format!("{}: nothing moves any more", attempt()))
            .hint("check the network, then push again: files that arrived are not sent twice")),
    }
}

/// Returns once a whole period passed without a byte.
pub(super) async fn stalled(bar: &ProgressBar) {
    loop {
        let before = bar.position();
        tokio::time::sleep(STALL_TIME).await;
        if bar.position() == before {
            return;
        }
    }
}

/// Visible only where stderr is a terminal.
pub(super) fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    let style = ProgressStyle::with_template(
        "uploading {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    if bytes > 0 {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    bar
}
