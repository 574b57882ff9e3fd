//! `muster keys show`: which keys there are, where they lie, and their fingerprints to compare.

use std::path::{Path, PathBuf};

use muster_shared::root::{Root, TrustedRoot};
use muster_shared::signing::key::PublicKey;
use muster_shared::{Digest, FleetId};
use serde::Serialize;

use super::{Which, folder};
use crate::context::Session;
use crate::error::{Failure, Result};
use crate::keys::{self, fingerprint};
use crate::output::{self, Facts, TextOrJson, date};

pub fn run(which: &Which, session: &Session) -> Result<()> {
    let context = session.context_if_any()?.map(|(_, context)| context);
    let dir = match (&which.dir, &which.fleet) {
        (None, None) if context.as_ref().is_none_or(|context| context.fleet.is_none()) => only_folder(session)?,
        _ => which.dir(session, &which.fleet(context.as_ref())?),
    };
    if !dir.is_dir() {
        return Err(Failure::new(format!("there are no keys in {}", dir.display()))
            .hint("name another folder with --dir or another fleet with --fleet, or run `muster keys init`"));
    }
    let root = folder::newest_root(&dir)?;
    let fleet = root.as_ref().map(|root| &root.root().fleet);
    let of_this_fleet = context.filter(|context| fleet.is_some() && context.fleet.as_ref() == fleet);
    tell(which.output, &dir, root.as_ref(), of_this_fleet.map(|context| context.ca_fingerprint))
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
    ca_fingerprint: Option<Digest>,
    root_threshold: Option<u32>,
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

/// Shows the keys in a folder, and those that the root names.
pub fn tell(output: TextOrJson, dir: &Path, root: Option<&TrustedRoot>, ca: Option<Digest>) -> Result<()> {
    let document = root.map(TrustedRoot::root);
    let view = View {
        dir: dir.to_path_buf(),
        fleet: document.map(|root| root.fleet.clone()),
        root_digest: root.map(TrustedRoot::digest),
        root_version: document.map(|root| root.version),
        expires_ms: document.map(|root| root.expires_ms),
        ca_fingerprint: ca,
        root_threshold: document.map(|root| root.root.threshold),
        directors: document.map(|root| root.directors.clone()).unwrap_or_default(),
        keys: key_views(dir, document),
    };
    if output == TextOrJson::Json {
        return output::print_json(&view);
    }
    let mut facts = Facts::default();
    if let Some(fleet) = &view.fleet {
        facts.add("fleet", fleet);
    }
    if let (Some(version), Some(digest)) = (view.root_version, view.root_digest) {
        facts.add("root", format!("{}  version {version}", fingerprint::groups(digest)));
    }
    if let Some(expires) = view.expires_ms {
        facts.add("expires", date(expires));
    }
    if let Some(root) = document.filter(|root| root.root.keys.len() > 1) {
        facts.add("to sign a root", format!("{} of {} root keys", root.root.threshold, root.root.keys.len()));
    }
    if let Some(ca) = ca {
        facts.add("plane's CA", fingerprint::groups(ca));
    }
    view.directors.iter().for_each(|key| facts.add("director", fingerprint::of(key)));
    for key in &view.keys {
        let place = key.path.as_ref().map_or_else(|| "not here".to_owned(), |path| path.display().to_string());
        facts.add(&format!("{} key", key.role), format!("{}  {place}", fingerprint::of(&key.public)));
    }
    output::print(&facts.render())
}

/// The keys that the root names, here or moved away; then those that lie here without a role.
fn key_views(dir: &Path, root: Option<&Root>) -> Vec<KeyView> {
    let here = keys::in_folder(dir);
    let path_of = |public: &PublicKey| here.iter().find(|(_, key)| key == public).map(|(path, _)| path.clone());
    let mut views = Vec::new();
    if let Some(root) = root {
        let publishers = root.publishers.iter().map(|publisher| &publisher.key).collect::<Vec<_>>();
        let roles = [
            ("root", root.root.keys.iter().collect()),
            ("publisher", publishers),
            ("release", root.release.keys.iter().collect::<Vec<_>>()),
        ];
        for (role, keys) in roles {
            views.extend(keys.into_iter().map(|public| view(role, *public, path_of(public))));
        }
    }
    for (path, public) in &here {
        if !views.iter().any(|view| view.public == *public) {
            views.push(view("unused", *public, Some(path.clone())));
        }
    }
    views
}

fn view(role: &'static str, public: PublicKey, path: Option<PathBuf>) -> KeyView {
    KeyView { role, id: public.id().to_string(), public, path }
}
