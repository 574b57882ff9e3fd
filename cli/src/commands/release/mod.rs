//! `muster release`: agents that the fleet's release signers stand for. A release is made by
//! `cargo xtask release`, signed here, off line, by as many people as the root says, then pushed.

mod push;
pub mod root;
mod show;
mod sign;
mod verify;

use muster_shared::api::releases::ReleaseView;
use muster_shared::release::{FILE_NAME, ReleaseVersion, VerifiedRelease};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;

use crate::client::Client;
use crate::context::{PinnedRoot, Session};
use crate::error::{Attempt as _, Failure, Result};
use crate::output::now_ms;
use crate::trust;

/// What to do where a release is not believed.
pub const SIGNERS: &str = "`muster trust show` lists the release keys; `muster release sign` signs with one";

/// Arguments of `muster release`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Add a signature to a release, off line
    Sign(sign::Args),
    /// Check a release and its files against the root, off line
    Verify(verify::Args),
    /// Upload a signed release
    Push(push::Args),
    /// List the releases that the control plane keeps
    List(show::ListArgs),
    /// Show one of them, checked here
    Show(show::Args),
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    match args.command {
        Command::Sign(args) => sign::run(&args, session),
        Command::Verify(args) => verify::run(&args, session),
        Command::Push(args) => push::run(&args, session).await,
        Command::List(args) => show::list(&args, session).await,
        Command::Show(args) => show::run(&args, session).await,
    }
}

/// The releases that a control plane keeps: its word only.
pub(super) async fn kept(client: &Client) -> Result<Vec<ReleaseView>> {
    client.get("/releases").await.attempt(|| "cannot list the releases")
}

/// The release that a machine is to install, verified here under the newest root: the one that is named, or the
/// one that the control plane offers.
pub async fn to_install(client: &Client, pin: PinnedRoot, named: Option<&ReleaseVersion>) -> Result<VerifiedRelease> {
    let root = trust::newest_root(client, pin).await?;
    if root.root().expires_ms <= now_ms() {
        return Err(
            Failure::new("the root has expired, so no machine installs anything new").hint("`muster keys renew`")
        );
    }
    let version = match named {
        Some(version) => version.clone(),
        None => {
            kept(client).await?.into_iter().find(|release| release.offered).map(|release| release.version).ok_or_else(
                || {
                    Failure::new("the control plane has no release to install").hint(
                        "make one with `cargo xtask release`, then `muster release sign` and `muster release push`",
                    )
                },
            )?
        }
    };
    fetch(client, &root, &version).await
}

/// Fetches a release and verifies it against a root that follows from the pinned one.
pub(super) async fn fetch(client: &Client, root: &TrustedRoot, version: &ReleaseVersion) -> Result<VerifiedRelease> {
    let attempt = || format!("cannot use release {version}");
    let envelope: Envelope = client.get(&format!("/releases/{version}/{FILE_NAME}")).await.attempt(attempt)?;
    let verified = VerifiedRelease::verify(&envelope, root);
    let release = verified
        .attempt(attempt)
        .map_err(|failure| failure.hint(format!("do not install it before you know who signed it: {SIGNERS}")))?;
    if release.release().version != *version {
        let found = &release.release().version;
        return Err(Failure::new(format!("{}: the control plane gave release {found} in its place", attempt()))
            .hint("do not install it: somebody tampers with the control plane"));
    }
    Ok(release)
}
