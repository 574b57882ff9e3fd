//! A root that lacks signatures travels as a file, from one holder of a root key to the next, together
//! with the root before it, so that each sees off line what changes.

use std::path::{Path, PathBuf};

use muster_shared::limits::ROOT_BYTES_MAX;
use muster_shared::root::{Root, TrustedRoot};
use muster_shared::signing::{Envelope, payload_type};
use serde::{Deserialize, Serialize};

use super::{Which, folder, init, words};
use crate::commands::agree;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::files::{self, Readable};
use crate::keys::passphrase::Unlock;
use crate::keys::{Signer, fingerprint};
use crate::output::{self, TextOrJson};
use crate::trust;

/// Arguments of `muster keys sign`.
#[derive(clap::Args)]
pub struct Sign {
    /// The root that waits, as `muster keys rotate` and the others wrote it
    file: PathBuf,
    /// The root key to sign with: a file or a PKCS#11 URI
    #[arg(long, required = true, value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    unlock: Unlock,
    /// Sign without asking
    #[arg(long)]
    yes: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

/// Arguments of `muster keys push`.
#[derive(clap::Args)]
pub struct Push {
    /// The root with all its signatures
    file: PathBuf,
    #[command(flatten)]
    which: Which,
}

/// A root that waits for signatures.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pending {
    /// The root that it follows.
    pub after: Envelope,
    /// The root.
    pub root: Envelope,
}

/// What became of a root, for scripts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    version: u64,
    digest: muster_shared::Digest,
    changes: Vec<String>,
    uploaded: bool,
    /// Where it waits, if it does.
    file: Option<PathBuf>,
    missing: Vec<String>,
}

impl Pending {
    /// Reads one, and both documents in it. It proves nothing: whoever signs compares.
    fn read(path: &Path) -> Result<(Self, TrustedRoot, Root)> {
        let attempt = || format!("cannot read the root in {}", path.display());
        // Two roots in base64.
        let bytes = std::fs::File::open(path).and_then(|file| files::read_bounded(file, 4 * ROOT_BYTES_MAX as u64));
        let pending: Self = serde_json::from_slice(&bytes.attempt(attempt)?).attempt(attempt)?;
        let after = TrustedRoot::self_signed(&pending.after).attempt(attempt)?;
        if pending.root.payload.len() > ROOT_BYTES_MAX || pending.root.payload_type != payload_type::ROOT {
            return Err(Failure::new(format!("{} holds no root", path.display())));
        }
        let root: Root = serde_json::from_slice(&pending.root.payload).attempt(attempt)?;
        Ok((pending, after, root))
    }

    /// Writes it for the next who signs.
    pub fn write(&self, path: &Path) -> Result<()> {
        let attempt = || format!("cannot write {}", path.display());
        let json = serde_json::to_vec_pretty(self).attempt(attempt)?;
        files::replace(path, &json, Readable::ByAll).attempt(attempt)
    }
}

/// Shows what a root changes, and asks.
pub fn confirm(old: &TrustedRoot, new: &Root, yes: bool) -> Result<()> {
    anstream::eprintln!("root {} of fleet {} changes root {}:", new.version, new.fleet, old.root().version);
    for line in words::changes(old.root(), new) {
        anstream::eprintln!("  {line}");
    }
    agree("Sign it?", yes)
}

pub fn sign(args: Sign, session: &Session) -> Result<()> {
    let (mut pending, after, root) = Pending::read(&args.file)?;
    // What this person pinned, or saw in force, was compared then.
    if trust::remembered(&session.home, trust::pin_of(&after)).is_none() {
        warn(format_args!(
            "compare the root that it follows with `muster trust show` of somebody you trust: version {}, {}",
            after.root().version,
            fingerprint::groups(after.digest())
        ));
    }
    confirm(&after, &root, args.yes)?;
    for key in &args.key {
        let signer = Signer::open(key, &args.unlock)?;
        let public = signer.public();
        if !after.root().root.keys.contains(&public) && !root.root.keys.contains(&public) {
            return Err(Failure::new(format!("the key {key} is no root key, neither of the old root nor of the new"))
                .hint("see which keys must sign: `muster keys push FILE` names them"));
        }
        signer.add_signature(&mut pending.root)?;
    }
    pending.write(&args.file)?;
    let missing = words::missing(&pending.root, after.root(), &root);
    let view = View {
        version: root.version,
        digest: muster_shared::Digest::of(&pending.root.payload),
        changes: words::changes(after.root(), &root),
        uploaded: false,
        file: Some(args.file.clone()),
        missing,
    };
    tell(args.output, &view)
}

pub async fn push(args: Push, session: &Session) -> Result<()> {
    let (pending, after, root) = Pending::read(&args.file)?;
    let missing = words::missing(&pending.root, after.root(), &root);
    if !missing.is_empty() {
        return Err(Failure::new(format!("this root needs {}", missing.join("; and ")))
            .hint(format!("have it signed: `muster keys sign {} --key KEY`", args.file.display())));
    }
    let (_, context) = session.context()?;
    let client = context.client()?;
    let held = trust::newest_root(&client, context.pinned_root()?).await?;
    if held.digest() == muster_shared::Digest::of(&pending.root.payload) {
        return Err(Failure::new("the control plane has this root already"));
    }
    let trusted = held.follow(&pending.root).attempt(|| "this root does not follow the newest one")?;
    let dir = args.which.dir(session, &root.fleet);
    upload(session, &dir, &pending.root, &trusted).await?;
    let view = View {
        version: root.version,
        digest: trusted.digest(),
        changes: words::changes(held.root(), &root),
        uploaded: true,
        file: None,
        missing: vec![],
    };
    tell(args.which.output, &view)
}

/// Uploads a root that follows, and keeps it. The pin stays: the next root is believed since it follows.
async fn upload(session: &Session, dir: &Path, envelope: &Envelope, trusted: &TrustedRoot) -> Result<()> {
    let client = session.client()?;
    init::send(&client, envelope, trusted).await?;
    trust::remember(&session.home, envelope, trusted)?;
    folder::keep_root(dir, envelope, trusted.root().version)
}

/// Uploads a new root, or writes it down for those who must sign it too.
pub async fn finish(
    session: &Session,
    dir: &Path,
    output: TextOrJson,
    out: Option<PathBuf>,
    held: (&Envelope, &TrustedRoot),
    envelope: Envelope,
    root: &Root,
) -> Result<()> {
    let (after, old) = held;
    let mut view = View {
        version: root.version,
        digest: muster_shared::Digest::of(&envelope.payload),
        changes: words::changes(old.root(), root),
        uploaded: false,
        file: None,
        missing: words::missing(&envelope, old.root(), root),
    };
    if view.missing.is_empty() && out.is_none() {
        let trusted = old.follow(&envelope).attempt(|| "cannot sign the root")?;
        upload(session, dir, &envelope, &trusted).await?;
        view.uploaded = true;
    } else {
        let path = out.unwrap_or_else(|| PathBuf::from(format!("root-{}.pending.json", root.version)));
        Pending { after: after.clone(), root: envelope }.write(&path)?;
        view.file = Some(path);
    }
    tell(output, &view)
}

fn tell(output: TextOrJson, view: &View) -> Result<()> {
    if output == TextOrJson::Json {
        output::print_json(view)?;
    } else if view.uploaded {
        output::print_line(format_args!("root {} is in force, {}", view.version, fingerprint::groups(view.digest)))?;
    } else if let Some(file) = &view.file {
        output::print_line(format_args!("root {} waits in {}", view.version, file.display()))?;
    }
    if let Some(file) = &view.file {
        match view.missing.is_empty() {
            true => next_move(format_args!("it has all its signatures: muster keys push {}", file.display())),
            false => {
                view.missing.iter().for_each(|line| warn(format_args!("it needs {line}")));
                next_move(format_args!("hand it on; each signs it: muster keys sign {} --key KEY", file.display()));
            }
        }
    }
    Ok(())
}
