//! `muster keys init`: the first root. It can be repeated after any interruption: what was made is kept
//! and used again.

use std::path::{Path, PathBuf};

use muster_shared::api::{DirectorKey, TrustView};
use muster_shared::root::{Publisher, Role, Root, TrustedRoot};
use muster_shared::signing::key::PublicKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, FleetId};
use reqwest::Method;

use super::{Which, folder, show};
use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::files::{self, Readable};
use crate::keys::passphrase::Unlock;
use crate::keys::{Signer, file, place};
use crate::output::now_ms;
use crate::trust;

/// How long a root holds, unless something else is said.
pub const ROOT_LIFE_MS: u64 = 365 * 24 * 3600 * 1000;
/// Root keys that may be made: the next root carries the signatures of the old ones and the new ones.
const ROOT_KEYS_MAX: u32 = 8;

/// Arguments of `muster keys init`.
#[derive(clap::Args)]
pub struct Init {
    #[command(flatten)]
    which: Which,
    /// How many root keys there are, for instance one for each of several people
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(ROOT_KEYS_MAX)))]
    root_keys: u32,
    /// How many of them must sign a root
    #[arg(long, default_value_t = 1, value_name = "T")]
    threshold: u32,
    #[command(flatten)]
    unlock: Unlock,
}

pub async fn run(args: Init, session: &Session) -> Result<()> {
    let which = &args.which;
    if args.threshold == 0 || args.threshold > args.root_keys {
        let text = format!("{} of {} root keys cannot be made to sign", args.threshold, args.root_keys);
        return Err(Failure::new(text).hint("choose a --threshold between 1 and --root-keys"));
    }
    let (name, context) = session.context()?;
    let fleet = which.fleet(Some(&context))?;
    let dir = which.dir(session, &fleet);
    let client = context.client()?;
    let (envelope, trusted) = match folder::first_root(&dir)? {
        Some(stored) => stored,
        None => {
            // Nothing is made before it is sure that it is needed.
            if context.root.is_some() || !trust::roots(&client).await?.is_empty() {
                return Err(has_a_root(&dir));
            }
            sign_root(&dir, &fleet, &client, &args).await?
        }
    };
    if context.root.is_some_and(|pinned| pinned.digest != trusted.digest()) {
        return Err(has_a_root(&dir));
    }
    upload(&client, &envelope, &trusted, &dir).await.map_err(|failure| match failure.is_passing() {
        true => failure.hint(format!("run `muster keys init` again: it goes on with the keys in {}", dir.display())),
        false => failure,
    })?;
    trust::remember(&session.home, &envelope, &trusted)?;
    session.update(&name, |context| {
        context.fleet = Some(trusted.root().fleet.clone());
        context.root = Some(trust::pin_of(&trusted));
    })?;
    show::tell(which.output, &dir, folder::newest_root(&dir)?.as_ref(), Some(context.ca_fingerprint))?;
    let first = root_key_paths(&dir, args.root_keys).into_iter().next().unwrap_or_default();
    let keys = if args.root_keys == 1 {
        format!("move {} to a place that is not on line, and keep a copy", first.display())
    } else {
        format!("give each of the {} root keys in {} to who is to keep it, off line", args.root_keys, dir.display())
    };
    next_move(format_args!(
        "{keys}: it is needed only to change who may sign; then `muster claim new` lets the first device in"
    ));
    Ok(())
}

fn has_a_root(dir: &Path) -> Failure {
    Failure::new(format!("this control plane has a root already, and its keys are not in {}", dir.display()))
        .hint("if the fleet is yours, name the folder of its keys with --dir; if not, log in with --root-digest")
}

/// Where the root keys lie: `root.pem`, or `root-key-1.pem` and so on where there are several.
fn root_key_paths(dir: &Path, count: u32) -> Vec<PathBuf> {
    if count == 1 {
        return vec![dir.join("root.pem")];
    }
    (1..=count).map(|number| dir.join(format!("root-key-{number}.pem"))).collect()
}

/// Makes the keys (those that an earlier run made are kept), signs root 1 and stores it.
async fn sign_root(dir: &Path, fleet: &FleetId, client: &Client, args: &Init) -> Result<(Envelope, TrustedRoot)> {
    let director: DirectorKey = client.get("/trust/director").await.attempt(|| "cannot ask for the director's key")?;
    place::refuse_server(&dir.join("root.pem"))?;
    files::private_folder(dir).attempt(|| format!("cannot make the folder {}", dir.display()))?;
    let key = |path: &Path| -> Result<Signer> {
        let key = if path.exists() { file::read(path, &args.unlock) } else { file::make(path, &args.unlock) };
        key.map(Signer::File)
    };
    let root_keys = root_key_paths(dir, args.root_keys);
    let root_keys = root_keys.iter().map(|path| key(path)).collect::<Result<Vec<_>>>()?;
    let publisher = key(&dir.join("publisher.pem"))?;
    let release = key(&dir.join("release.pem"))?;
    let publics: Vec<PublicKey> = root_keys.iter().map(Signer::public).collect();
    let root = Root {
        fleet: fleet.clone(),
        version: 1,
        epoch: 1,
        expires_ms: now_ms() + ROOT_LIFE_MS,
        root: Role { threshold: args.threshold, keys: publics },
        publishers: vec![Publisher { key: publisher.public(), models: None }],
        directors: vec![director.key],
        release: Role { threshold: 1, keys: vec![release.public()] },
        compromised: vec![],
    };
    let mut envelope =
        Envelope { payload_type: payload_type::ROOT.to_owned(), payload: root.to_payload(), signatures: vec![] };
    root_keys.iter().try_for_each(|key| key.add_signature(&mut envelope))?;
    let trusted = TrustedRoot::self_signed(&envelope).attempt(|| "cannot sign the root")?;
    let path = folder::root_path(dir, 1);
    let attempt = || format!("cannot write {}", path.display());
    files::create(&path, envelope.to_json().as_bytes(), Readable::ByAll).attempt(attempt)?;
    Ok((envelope, trusted))
}

/// Uploads the first root, unless the control plane has it already.
async fn upload(client: &Client, envelope: &Envelope, trusted: &TrustedRoot, dir: &Path) -> Result<()> {
    let held = trust::roots(client).await?;
    if held.iter().any(|root| Digest::of(&root.payload) == trusted.digest()) {
        return Ok(());
    }
    if !held.is_empty() {
        return Err(has_a_root(dir));
    }
    let director: DirectorKey = client.get("/trust/director").await.attempt(|| "cannot ask for the director's key")?;
    if !trusted.directors().contains(&director.key) {
        let text = format!("the root in {} names another director than this control plane has", dir.display());
        return Err(Failure::new(text).hint("choose another --dir or --fleet for this control plane"));
    }
    send(client, envelope, trusted).await.map(drop)
}

/// Uploads a root that has all its signatures.
pub async fn send(client: &Client, envelope: &Envelope, trusted: &TrustedRoot) -> Result<TrustView> {
    let view: TrustView =
        client.send_json(Method::POST, "/trust/roots", envelope).await.attempt(|| "cannot upload the root")?;
    if view.digest != trusted.digest() {
        return Err(Failure::new(format!("the control plane took the root as {}, which it is not", view.digest)));
    }
    Ok(view)
}
