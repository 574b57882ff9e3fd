//! `muster release sign`: a signature over what lies in the folder, which is looked at first.

use std::path::PathBuf;

use muster_shared::release::VerifiedRelease;

use crate::context::Session;
use crate::error::{Failure, Result, next_move, warn};
use crate::keys::passphrase::Unlock;
use crate::keys::{self, Signer, fingerprint};
use crate::output::{self, TextOrJson};
use crate::release::AtHand;
use crate::trust;

/// Arguments of `muster release sign`.
#[derive(clap::Args)]
pub struct Args {
    /// The release's folder, or its release.json
    release: PathBuf,
    /// A release key, a file or a PKCS#11 URI; may be repeated. By default the one in the fleet's folder of keys
    #[arg(long = "key")]
    keys: Vec<String>,
    #[command(flatten)]
    unlock: Unlock,
    /// Sign the document where its files are not at hand, trusting whoever checked them
    #[arg(long)]
    without_files: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub fn run(args: &Args, session: &Session) -> Result<()> {
    let mut release = AtHand::open(&args.release)?;
    if args.without_files {
        release.release.artifacts.iter().try_for_each(|artifact| release.check(artifact).map(drop))?;
    } else {
        release.check_all()?;
    }
    let root = session.context_if_any()?.and_then(|(_, context)| {
        let pin = context.root?;
        trust::newest_remembered(&session.home, pin)
    });
    let named = root.as_ref().map(|root| root.release().0);
    let keys = match (args.keys.is_empty(), &root, &named) {
        (false, ..) => args.keys.clone(),
        (true, Some(root), Some(named)) => {
            let here = keys::in_folder(&session.home.keys(&root.root().fleet));
            let found = here.into_iter().find(|(_, public)| named.contains(public));
            let (path, _) = found.ok_or_else(|| Failure::new("no release key is here").hint("name one with --key"))?;
            vec![path.display().to_string()]
        }
        _ => return Err(Failure::new("no key is named").hint("name a release key with --key")),
    };
    for key in keys {
        let signer = Signer::open(&key, &args.unlock)?;
        if named.as_ref().is_some_and(|named| !named.contains(&signer.public())) {
            let whose = fingerprint::of(&signer.public());
            warn(format_args!("the root that is known here names {key} ({whose}) for no releases: {}", super::SIGNERS));
        }
        signer.add_signature(&mut release.envelope)?;
    }
    release.save()?;
    let count = release.envelope.signatures.len();
    let believed = root.as_ref().map(|root| VerifiedRelease::verify(&release.envelope, root).is_ok());
    if args.output == TextOrJson::Json {
        let version = &release.release.version;
        return output::print_json(
            &serde_json::json!({ "version": version, "signatures": count, "believed": believed }),
        );
    }
    for artifact in &release.release.artifacts {
        output::print_line(format_args!("{}  {}", artifact.sha256, artifact.name))?;
    }
    let signatures = if count == 1 { "1 signature".to_owned() } else { format!("{count} signatures") };
    output::print_line(format_args!("release {} has {signatures}", release.release.version))?;
    if believed == Some(false) {
        let needed = root.as_ref().map_or(1, |root| root.release().1);
        next_move(format_args!("the root wants {needed} release keys to sign: hand the folder on to the next"));
    } else {
        next_move(format_args!("`muster release push {}`", args.release.display()));
    }
    Ok(())
}
