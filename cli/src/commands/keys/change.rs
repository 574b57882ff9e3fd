//! Root n+1: a key in the place of another, one more, one less, a longer life. Always built from the
//! newest root that follows from the pinned one.

use std::path::{Path, PathBuf};

use muster_shared::ModelName;
use muster_shared::api::DirectorKey;
use muster_shared::quantity::Millis;
use muster_shared::root::{Publisher, Root, TrustedRoot};
use muster_shared::signing::key::PublicKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, root};

use super::{Which, init, pending};
use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::keys::passphrase::Unlock;
use crate::keys::{self, Signer, file, fingerprint};
use crate::output::now_ms;
use crate::trust;

/// What keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// Signs the next root.
    Root,
    /// Signs bundles and version floors.
    Publisher,
    /// Signs what devices are told.
    Director,
    /// Signs releases of the agent.
    Release,
}

/// What all changes of the root take.
#[derive(clap::Args)]
struct How {
    #[command(flatten)]
    which: Which,
    /// A root key to sign with, a file or a PKCS#11 URI; by default those in the folder of keys
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    #[command(flatten)]
    unlock: Unlock,
    /// Write the root to a file instead of uploading it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Sign without asking
    #[arg(long)]
    yes: bool,
    /// Begin a new epoch: every device is told anew what to do, whatever number an old order had
    #[arg(long)]
    new_epoch: bool,
    /// How many keys of the role must sign from now on (root and release)
    #[arg(long, value_name = "T")]
    threshold: Option<u32>,
}

/// Arguments of `muster keys rotate`.
#[derive(clap::Args)]
pub struct Rotate {
    /// Whose key
    #[arg(value_enum)]
    role: Role,
    /// The key that goes, by its fingerprint's first letters; needed where there are several
    #[arg(long, value_name = "FINGERPRINT")]
    old: Option<String>,
    /// The key that comes: a public key in hex, a file, or a PKCS#11 URI; by default one is made
    #[arg(long, value_name = "KEY")]
    new: Option<String>,
    /// The old key was stolen: what only it signed stops and never starts again
    #[arg(long)]
    compromised: bool,
    #[command(flatten)]
    how: How,
}

/// Arguments of `muster keys add`.
#[derive(clap::Args)]
pub struct Add {
    /// For what
    #[arg(value_enum)]
    role: Role,
    /// The key: a public key in hex, a file, or a PKCS#11 URI
    added: String,
    /// The models that a publisher may publish; by default every model
    #[arg(long, value_delimiter = ',', value_name = "MODEL,…")]
    models: Vec<ModelName>,
    #[command(flatten)]
    how: How,
}

/// Arguments of `muster keys remove`.
#[derive(clap::Args)]
pub struct Remove {
    /// From what
    #[arg(value_enum)]
    role: Role,
    /// The key, by its fingerprint's first letters, its public half in hex, or a file
    removed: String,
    /// It was stolen: what only it signed stops and never starts again
    #[arg(long)]
    compromised: bool,
    #[command(flatten)]
    how: How,
}

/// Arguments of `muster keys renew`.
#[derive(clap::Args)]
pub struct Renew {
    /// How long the root holds from now on
    #[arg(long = "for", default_value = "365d", value_name = "DURATION")]
    life: Millis,
    #[command(flatten)]
    how: How,
}

/// The newest root, and where everything is.
struct Scene {
    client: Client,
    dir: PathBuf,
    envelope: Envelope,
    held: TrustedRoot,
    next: Root,
}

impl Scene {
    async fn open(session: &Session, how: &How) -> Result<Self> {
        let (_, context) = session.context()?;
        let client = context.client()?;
        let held = trust::newest_root(&client, context.pinned_root()?).await?;
        let envelope = trust::roots(&client).await?.into_iter().find(|it| Digest::of(&it.payload) == held.digest());
        let envelope = envelope.ok_or_else(|| Failure::new("the roots changed meanwhile").hint("try again"))?;
        let mut next = held.root().clone();
        next.version += 1;
        if how.new_epoch {
            next.epoch += 1;
        }
        if next.expires_ms <= now_ms() {
            // One that has expired already would begin nothing.
            next.expires_ms = now_ms() + init::ROOT_LIFE_MS;
        }
        let dir = how.which.dir(session, &next.fleet);
        Ok(Self { client, dir, envelope, held, next })
    }

    /// Signs with the root keys at hand, and uploads or writes down what came of it.
    async fn finish(self, session: &Session, how: How, more: Vec<Signer>, role: Role) -> Result<()> {
        let Self { dir, envelope: after, held, mut next, .. } = self;
        if let Some(threshold) = how.threshold {
            match role {
                Role::Root => next.root.threshold = threshold,
                Role::Release => next.release.threshold = threshold,
                Role::Publisher | Role::Director => {
                    return Err(Failure::new("one publisher and one director are always enough")
                        .hint("--threshold is for root and release keys"));
                }
            }
        }
        check(&next)?;
        pending::confirm(&held, &next, how.yes)?;
        let mut envelope =
            Envelope { payload_type: payload_type::ROOT.to_owned(), payload: next.to_payload(), signatures: vec![] };
        let needed: Vec<PublicKey> = held.root().root.keys.iter().chain(&next.root.keys).copied().collect();
        let mut signers = more;
        for key in &how.key {
            let signer = Signer::open(key, &how.unlock)?;
            if !needed.contains(&signer.public()) {
                return Err(Failure::new(format!("the key {key} is no root key")).hint("see `muster keys show`"));
            }
            signers.push(signer);
        }
        for (path, public) in keys::in_folder(&dir) {
            let has = signers.iter().any(|signer| signer.public() == public);
            if needed.contains(&public) && !has && how.key.is_empty() {
                signers.push(Signer::File(file::read(&path, &how.unlock)?));
            }
        }
        signers
            .iter()
            .filter(|signer| needed.contains(&signer.public()))
            .try_for_each(|signer| signer.add_signature(&mut envelope))?;
        pending::finish(session, &dir, how.which.output, how.out, (&after, &held), envelope, &next).await
    }
}

/// A root that devices would refuse is not signed.
fn check(next: &Root) -> Result<()> {
    for (name, root::Role { threshold, keys }) in [("root", &next.root), ("release", &next.release)] {
        if *threshold == 0 || *threshold as usize > keys.len() {
            return Err(Failure::new(format!("{threshold} of {} {name} keys cannot be made to sign", keys.len()))
                .hint("choose another --threshold, or add a key first"));
        }
    }
    match next.directors.is_empty() {
        true => Err(Failure::new("without a director nobody could tell devices anything").hint("rotate it instead")),
        false => Ok(()),
    }
}

/// The keys of a role.
fn keys_of(root: &mut Root, role: Role) -> Vec<PublicKey> {
    match role {
        Role::Root => root.root.keys.clone(),
        Role::Publisher => root.publishers.iter().map(|publisher| publisher.key).collect(),
        Role::Director => root.directors.clone(),
        Role::Release => root.release.keys.clone(),
    }
}

fn remove_key(root: &mut Root, role: Role, key: PublicKey, compromised: bool) {
    match role {
        Role::Root => root.root.keys.retain(|held| *held != key),
        Role::Publisher => root.publishers.retain(|held| held.key != key),
        Role::Director => root.directors.retain(|held| *held != key),
        Role::Release => root.release.keys.retain(|held| *held != key),
    }
    if compromised && !root.compromised.contains(&key.id()) {
        root.compromised.push(key.id());
    }
}

fn add_key(root: &mut Root, role: Role, key: PublicKey, models: Option<Vec<ModelName>>) -> Result<()> {
    if root.compromised.contains(&key.id()) {
        return Err(Failure::new("this key counts as stolen").hint("make another one: `muster keys new FILE`"));
    }
    if [Role::Root, Role::Publisher, Role::Director, Role::Release]
        .into_iter()
        .any(|other| other != role && keys_of(root, other).contains(&key))
    {
        return Err(
            Failure::new("this key has another role already").hint("make one of its own: `muster keys new FILE`")
        );
    }
    if keys_of(root, role).contains(&key) && role != Role::Publisher {
        return Err(Failure::new("this key has that role already"));
    }
    match role {
        Role::Root => root.root.keys.push(key),
        Role::Publisher => {
            root.publishers.retain(|held| held.key != key);
            root.publishers.push(Publisher { key, models });
        }
        Role::Director => root.directors.push(key),
        Role::Release => root.release.keys.push(key),
    }
    Ok(())
}

/// The one key of a role that a text names.
fn find(all: &[PublicKey], role: Role, text: Option<&str>) -> Result<PublicKey> {
    let wanted = text.map(|text| text.replace(' ', ""));
    let by_file =
        text.and_then(|text| file::public_half(Path::new(text)).or_else(|| file::public_beside(Path::new(text))));
    let is_it = |key: &&PublicKey| match (&wanted, by_file) {
        (_, Some(public)) => **key == public,
        (Some(wanted), None) => key.id().to_string().starts_with(wanted) || key.to_string() == *wanted,
        (None, None) => true,
    };
    let found: Vec<&PublicKey> = all.iter().filter(is_it).collect();
    let list = all.iter().map(fingerprint::of).collect::<Vec<_>>().join("; ");
    let word = format!("{role:?}").to_lowercase();
    match found.as_slice() {
        [only] => Ok(**only),
        [] => Err(Failure::new(format!("the root names no such {word} key")).hint(format!("it names: {list}"))),
        _ => Err(Failure::new(format!("the root names several {word} keys"))
            .hint(format!("say which, by the first letters of its fingerprint: {list}"))),
    }
}

pub async fn rotate(args: Rotate, session: &Session) -> Result<()> {
    let Rotate { role, old, new, compromised, how } = args;
    let mut scene = Scene::open(session, &how).await?;
    let all = keys_of(&mut scene.next, role);
    let mut more = Vec::new();
    let mut made_path = None;
    let (gone, comes) = if role == Role::Director {
        if new.is_some() || old.is_some() {
            return Err(Failure::new("the director's key is made on its control plane, and goes nowhere else")
                .hint("leave --old and --new away: the control plane of this context changes its key"));
        }
        if compromised && !how.new_epoch {
            warn("without --new-epoch a thief's orders may outrank those of the new key for a long time");
        }
        next_director(&scene.client, &all).await?
    } else {
        let gone = find(&all, role, old.as_deref())?;
        match &new {
            Some(text) => match keys::public_key(text, &how.unlock) {
                Ok(public) if role != Role::Root => (gone, public),
                // The new root must sign itself.
                Ok(public) if text.parse::<PublicKey>().is_ok() => (gone, public),
                _ => {
                    more.push(Signer::open(text, &how.unlock)?);
                    (gone, more[0].public())
                }
            },
            None => {
                let word = format!("{role:?}").to_lowercase();
                let path = scene.dir.join(format!("{word}-v{}.pem", scene.next.version));
                crate::files::private_folder(&scene.dir)
                    .attempt(|| format!("cannot make the folder {}", scene.dir.display()))?;
                let made = if path.exists() { file::read(&path, &how.unlock) } else { file::make(&path, &how.unlock) };
                more.push(Signer::File(made?));
                made_path = Some(path);
                (gone, more[0].public())
            }
        }
    };
    let models = scene.next.publishers.iter().find(|it| it.key == gone).and_then(|it| it.models.clone());
    remove_key(&mut scene.next, role, gone, compromised);
    add_key(&mut scene.next, role, comes, models.filter(|_| role == Role::Publisher))?;
    scene.finish(session, how, more, role).await?;
    if let Some(path) = made_path {
        next_move(format_args!("the new key is {}", path.display()));
    }
    Ok(())
}

/// The control plane's present director, and the key that it made to follow.
async fn next_director(client: &Client, named: &[PublicKey]) -> Result<(PublicKey, PublicKey)> {
    let made: DirectorKey =
        client.post("/trust/director/next").await.attempt(|| "cannot have the control plane make its next key")?;
    let next = made.next.ok_or_else(|| Failure::new("this control plane makes no next key").hint("update it"))?;
    if !named.contains(&made.key) {
        return Err(Failure::new("the root does not name this control plane's present key")
            .hint("add the next one instead: `muster keys add director KEY`"));
    }
    Ok((made.key, next))
}

pub async fn add(args: Add, session: &Session) -> Result<()> {
    let Add { role, added, models, how } = args;
    let mut scene = Scene::open(session, &how).await?;
    if !models.is_empty() && role != Role::Publisher {
        return Err(Failure::new("only publishers are limited to models").hint("leave --models away"));
    }
    let public = keys::public_key(&added, &how.unlock)?;
    add_key(&mut scene.next, role, public, (!models.is_empty()).then_some(models))?;
    let signs_itself = role == Role::Root && added.parse::<PublicKey>().is_err() && !added.ends_with(".pub");
    let more = if signs_itself { vec![Signer::open(&added, &how.unlock)?] } else { vec![] };
    scene.finish(session, how, more, role).await
}

pub async fn remove(args: Remove, session: &Session) -> Result<()> {
    let Remove { role, removed, compromised, how } = args;
    let mut scene = Scene::open(session, &how).await?;
    let gone = find(&keys_of(&mut scene.next, role), role, Some(&removed))?;
    remove_key(&mut scene.next, role, gone, compromised);
    scene.finish(session, how, vec![], role).await
}

pub async fn renew(args: Renew, session: &Session) -> Result<()> {
    let mut scene = Scene::open(session, &args.how).await?;
    scene.next.expires_ms = now_ms().saturating_add(args.life.0);
    scene.finish(session, args.how, vec![], Role::Root).await
}
