//! `muster keys`: the keys that rule a fleet are made here, on a person's machine, and never leave
//! it. `init` can be repeated after any interruption: what was made is kept and used again.

use std::path::{Path, PathBuf};

use muster_shared::api::{DirectorKey, TrustView};
use muster_shared::limits::ROOT_BYTES_MAX;
use muster_shared::root::{Publisher, Role, Root, TrustedRoot};
use muster_shared::signing::key::{BadSecretKey, PublicKey, SecretKey};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, FleetId};
use reqwest::Method;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::context::{Context, Session};
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::files::{self, Readable};
use crate::output::{self, Facts, TextOrJson, date, now_ms};
use crate::trust;

/// How long the first root holds.
const ROOT_LIFE_MS: u64 = 365 * 24 * 3600 * 1000;
/// A PEM file is far shorter.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// The first root, in the folder of the keys that it names.
const ROOT_FILE: &str = "root-1.json";
/// Whose keys are made.
const ROLES: [&str; 3] = ["root", "publisher", "release"];

/// Arguments of `muster keys`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make root, publisher and release keys, sign the first root, and upload it
    Init(Which),
    /// Show the keys that are kept here
    Show(Which),
}

#[derive(clap::Args)]
struct Which {
    /// The fleet's id; by default the context's, or "home"
    #[arg(long)]
    fleet: Option<FleetId>,
    /// The folder of the keys; by default keys/FLEET in the home folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    match args.command {
        Command::Init(which) => init(which, session).await,
        Command::Show(which) => show(&which, session),
    }
}

async fn init(which: Which, session: &Session) -> Result<()> {
    let (name, context) = session.context()?;
    let fleet = which.fleet(Some(&context))?;
    let dir = which.dir(session, &fleet);
    let client = context.client()?;
    let (envelope, trusted) = match stored_root(&dir)? {
        Some(stored) => stored,
        None => {
            // Nothing is made before it is sure that it is needed.
            if context.root.is_some() || !trust::roots(&client).await?.is_empty() {
                return Err(has_a_root(&dir));
            }
            sign_root(&dir, &fleet, &client).await?
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
    tell(which.output, &dir, Some(&trusted))?;
    next_move(format_args!(
        "move {} to a place that is not on line, and keep a copy: it is needed only to change who may sign; \
         then `muster claim new` lets the first device in",
        key_path(&dir, "root").display()
    ));
    Ok(())
}

fn has_a_root(dir: &Path) -> Failure {
    Failure::new(format!("this control plane has a root already, and its keys are not in {}", dir.display()))
        .hint("if the fleet is yours, name the folder of its keys with --dir; if not, log in with --root-digest")
}

/// The root that an earlier run signed. It was made here, so it vouches for itself.
fn stored_root(dir: &Path) -> Result<Option<(Envelope, TrustedRoot)>> {
    let path = dir.join(ROOT_FILE);
    let attempt = || format!("cannot read {}", path.display());
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).attempt(attempt),
    };
    let bytes = files::read_bounded(file, ROOT_BYTES_MAX as u64).attempt(attempt)?;
    let envelope: Envelope = serde_json::from_slice(&bytes).attempt(attempt)?;
    let trusted = TrustedRoot::self_signed(&envelope).attempt(attempt)?;
    Ok(Some((envelope, trusted)))
}

/// Makes the keys (those that an earlier run made are kept), signs root 1 and stores it.
async fn sign_root(dir: &Path, fleet: &FleetId, client: &Client) -> Result<(Envelope, TrustedRoot)> {
    let director: DirectorKey = client.get("/trust/director").await.attempt(|| "cannot ask for the director's key")?;
    files::private_folder(dir).attempt(|| format!("cannot make the folder {}", dir.display()))?;
    let root_key = key(dir, "root")?;
    let publisher = key(dir, "publisher")?;
    let release = key(dir, "release")?;
    let only = |key: &SecretKey| Role { threshold: 1, keys: vec![key.public()] };
    let root = Root {
        fleet: fleet.clone(),
        version: 1,
        epoch: 1,
        expires_ms: now_ms() + ROOT_LIFE_MS,
        root: only(&root_key),
        publishers: vec![Publisher { key: publisher.public(), models: None }],
        directors: vec![director.key],
        release: only(&release),
        compromised: vec![],
    };
    let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&root_key]);
    let trusted = TrustedRoot::self_signed(&envelope).attempt(|| "cannot sign the root")?;
    let path = dir.join(ROOT_FILE);
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
    let view: TrustView =
        client.send_json(Method::POST, "/trust/roots", envelope).await.attempt(|| "cannot upload the root")?;
    if view.digest != trusted.digest() {
        return Err(Failure::new(format!("the control plane took the root as {}, which it is not", view.digest)));
    }
    Ok(())
}

fn show(which: &Which, session: &Session) -> Result<()> {
    let context = session.context_if_any()?.map(|(_, context)| context);
    let dir = match (&which.dir, &which.fleet) {
        (None, None) if context.as_ref().is_none_or(|context| context.fleet.is_none()) => only_folder(session)?,
        _ => which.dir(session, &which.fleet(context.as_ref())?),
    };
    if !dir.is_dir() {
        return Err(Failure::new(format!("there are no keys in {}", dir.display()))
            .hint("name another folder with --dir or another fleet with --fleet, or run `muster keys init`"));
    }
    let root = stored_root(&dir)?.map(|(_, trusted)| trusted);
    tell(which.output, &dir, root.as_ref())
}

/// The one fleet whose keys are kept here.
fn only_folder(session: &Session) -> Result<PathBuf> {
    let all = session.home.all_keys();
    let folders = std::fs::read_dir(&all).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    match folders.collect::<Vec<_>>().as_slice() {
        [] => Err(Failure::new(format!("there are no keys in {}", all.display())).hint("run `muster keys init`")),
        [only] => Ok(only.clone()),
        several => Err(Failure::new(format!("there are keys of {} fleets", several.len()))
            .hint(format!("name one of those in {} with --fleet", all.display()))),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    dir: PathBuf,
    fleet: Option<FleetId>,
    root_digest: Option<Digest>,
    root_version: Option<u64>,
    expires_ms: Option<u64>,
    directors: Vec<PublicKey>,
    keys: Vec<KeyView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView {
    role: &'static str,
    id: String,
    public: PublicKey,
    /// Nothing once the secret key was moved away.
    path: Option<PathBuf>,
}

fn tell(output: TextOrJson, dir: &Path, root: Option<&TrustedRoot>) -> Result<()> {
    let document = root.map(TrustedRoot::root);
    let view = View {
        dir: dir.to_path_buf(),
        fleet: document.map(|root| root.fleet.clone()),
        root_digest: root.map(TrustedRoot::digest),
        root_version: document.map(|root| root.version),
        expires_ms: document.map(|root| root.expires_ms),
        directors: document.map(|root| root.directors.clone()).unwrap_or_default(),
        keys: ROLES.iter().filter_map(|role| key_view(dir, role, document).transpose()).collect::<Result<_>>()?,
    };
    if output == TextOrJson::Json {
        return output::print_json(&view);
    }
    let mut facts = Facts::default();
    if let Some(fleet) = &view.fleet {
        facts.add("fleet", fleet);
    }
    if let (Some(version), Some(digest)) = (view.root_version, view.root_digest) {
        facts.add("root", format!("version {version}, {digest}"));
    }
    if let Some(expires) = view.expires_ms {
        facts.add("expires", date(expires));
    }
    view.directors.iter().for_each(|key| facts.add("director", key.id()));
    for key in &view.keys {
        let place = key.path.as_ref().map_or_else(|| "not here".to_owned(), |path| path.display().to_string());
        facts.add(&format!("{} key", key.role), format!("{}  {place}", key.id));
    }
    output::print(&facts.render())
}

/// A key that is kept here, or that the root names although it was moved away.
fn key_view(dir: &Path, role: &'static str, root: Option<&Root>) -> Result<Option<KeyView>> {
    let path = key_path(dir, role);
    if path.exists() {
        let public = read_key(&path)?.public();
        return Ok(Some(KeyView { role, id: public.id().to_string(), public, path: Some(path) }));
    }
    let named = root.and_then(|root| match role {
        "root" => root.root.keys.first().copied(),
        "publisher" => root.publishers.first().map(|publisher| publisher.key),
        _ => root.release.keys.first().copied(),
    });
    Ok(named.map(|public| KeyView { role, id: public.id().to_string(), public, path: None }))
}

/// Reads a secret key.
pub fn read_key(path: &Path) -> Result<SecretKey> {
    let attempt = || format!("cannot read the key {}", path.display());
    let bytes = std::fs::File::open(path).and_then(|file| files::read_bounded(file, KEY_BYTES_MAX)).attempt(attempt)?;
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| BadSecretKey).attempt(attempt)?;
    SecretKey::from_pem(text).attempt(attempt)
}

/// The key of a role: the one that is there, or a new one.
fn key(dir: &Path, role: &str) -> Result<SecretKey> {
    let path = key_path(dir, role);
    if path.exists() {
        return read_key(&path);
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).attempt(|| "cannot get random numbers for a key")?;
    let key = SecretKey::from_seed(*seed);
    let attempt = || format!("cannot write the key {}", path.display());
    let pem = Zeroizing::new(key.to_pem().attempt(attempt)?);
    files::create(&path, pem.as_bytes(), Readable::ByOwner).attempt(attempt)?;
    Ok(key)
}

fn key_path(dir: &Path, role: &str) -> PathBuf {
    dir.join(format!("{role}.pem"))
}

impl Which {
    fn fleet(&self, context: Option<&Context>) -> Result<FleetId> {
        match self.fleet.clone().or_else(|| context.and_then(|context| context.fleet.clone())) {
            Some(fleet) => Ok(fleet),
            None => "home".parse::<FleetId>().attempt(|| "cannot name the fleet"),
        }
    }

    fn dir(&self, session: &Session, fleet: &FleetId) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| session.home.keys(fleet))
    }
}
