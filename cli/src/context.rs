//! Contexts: which control planes this person knows, and what is pinned of each.
//!
//! They live in `contexts.toml` in the home folder: `$MUSTER_HOME`, or `$XDG_CONFIG_HOME/muster`,
//! or `~/.config/muster`. The file holds tokens, so only its owner can read it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_shared::{Digest, FleetId};
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::{Attempt as _, Failure, Result};
use crate::files::{self, Readable};

/// The longest contexts.toml that is read.
const CONTEXTS_BYTES_MAX: u64 = 1024 * 1024;

/// The folder where the CLI keeps what it must remember.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// This folder.
    pub fn at(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The folder that the environment names.
    pub fn find() -> Result<Self> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        variable("MUSTER_HOME")
            .or_else(|| variable("XDG_CONFIG_HOME").map(|config| config.join("muster")))
            .or_else(|| variable("HOME").map(|home| home.join(".config/muster")))
            .map(Self)
            .ok_or_else(|| Failure::new("cannot find the home folder").hint("set MUSTER_HOME to a folder of yours"))
    }

    /// Where `muster keys init` keeps the keys of a fleet.
    pub fn keys(&self, fleet: &FleetId) -> PathBuf {
        self.all_keys().join(fleet.as_str())
    }

    /// The folder of all fleets' keys.
    pub fn all_keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Where the root document with this digest is kept.
    pub fn root(&self, digest: Digest) -> PathBuf {
        self.0.join("roots").join(format!("{digest}.json"))
    }

    fn contexts(&self) -> PathBuf {
        self.0.join("contexts.toml")
    }
}

/// Everything in contexts.toml.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one that is used where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// By name.
    #[serde(default)]
    pub contexts: BTreeMap<String, Context>,
}

/// One control plane as this person knows it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// `https://host:port`, or `http://` on loopback.
    pub url: String,
    /// SHA-256 of the CA's certificate, pinned at login.
    pub ca_fingerprint: Digest,
    /// The API token.
    pub token: String,
    /// The fleet, as the pinned root says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetId>,
    /// The root that everything else is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PinnedRoot>,
}

/// A root document by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedRoot {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its payload.
    pub digest: Digest,
}

impl Contexts {
    /// Reads contexts.toml; none yet is no error.
    pub fn load(home: &Home) -> Result<Self> {
        let path = home.contexts();
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).attempt(|| format!("cannot read {}", path.display())),
        };
        let bytes = files::read_bounded(file, CONTEXTS_BYTES_MAX);
        let bytes = bytes.attempt(|| format!("cannot read {}", path.display()))?;
        let unreadable = |failure: Failure| failure.hint("mend the file, or remove it and log in again");
        let text =
            String::from_utf8(bytes).attempt(|| format!("cannot read {}", path.display())).map_err(unreadable)?;
        toml::from_str(&text).attempt(|| format!("cannot read {}", path.display())).map_err(unreadable)
    }

    /// Writes contexts.toml in one step.
    pub fn save(&self, home: &Home) -> Result<()> {
        let path = home.contexts();
        let text = toml::to_string(self).attempt(|| "cannot write the contexts")?;
        files::private_folder(&home.0).attempt(|| format!("cannot make the folder {}", home.0.display()))?;
        files::replace(&path, text.as_bytes(), Readable::ByOwner).attempt(|| format!("cannot write {}", path.display()))
    }

    /// The context with this name, or the current one.
    pub fn choose(&self, name: Option<&str>) -> Result<(&str, &Context)> {
        let name = name.or(self.current.as_deref()).ok_or_else(no_context)?;
        let (name, context) = self.contexts.get_key_value(name).ok_or_else(|| self.unknown(name))?;
        Ok((name, context))
    }

    /// The error for a name that no context has.
    pub fn unknown(&self, name: &str) -> Failure {
        let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let hint = match known.as_slice() {
            [] => "log in first: `muster login URL --ca-fingerprint F`".to_owned(),
            known => format!("known are: {}; `muster login` makes another", known.join(", ")),
        };
        Failure::new(format!("there is no context {name:?}")).hint(hint)
    }
}

fn no_context() -> Failure {
    Failure::new("no control plane is known yet")
        .hint("log in first: `muster login URL --ca-fingerprint F`; the control plane printed both at its first start")
}

/// What every command starts from.
pub struct Session {
    /// The home folder.
    pub home: Home,
    /// `--context` or `MUSTER_CONTEXT`.
    pub chosen: Option<String>,
}

impl Session {
    /// The context to use, by name.
    pub fn context(&self) -> Result<(String, Context)> {
        let contexts = Contexts::load(&self.home)?;
        let (name, context) = contexts.choose(self.chosen.as_deref())?;
        Ok((name.to_owned(), context.clone()))
    }

    /// The context to use, if there is one at all: for commands that work without.
    pub fn context_if_any(&self) -> Result<Option<(String, Context)>> {
        let contexts = Contexts::load(&self.home)?;
        if self.chosen.is_none() && contexts.current.is_none() {
            return Ok(None);
        }
        let (name, context) = contexts.choose(self.chosen.as_deref())?;
        Ok(Some((name.to_owned(), context.clone())))
    }

    /// A client of the context's control plane.
    pub fn client(&self) -> Result<Client> {
        self.context()?.1.client()
    }

    /// Changes one context and saves.
    pub fn update(&self, name: &str, change: impl FnOnce(&mut Context)) -> Result<()> {
        let mut contexts = Contexts::load(&self.home)?;
        match contexts.contexts.get_mut(name) {
            Some(context) => change(context),
            None => return Err(contexts.unknown(name)),
        }
        contexts.save(&self.home)
    }
}

impl Context {
    /// A client of this control plane.
    pub fn client(&self) -> Result<Client> {
        Client::open(&self.url, Some(self.ca_fingerprint), Some(self.token.clone()))
            .attempt(|| format!("cannot use {}", self.url))
    }

    /// The pinned root, or what to do about there being none.
    pub fn pinned_root(&self) -> Result<PinnedRoot> {
        self.root.ok_or_else(|| {
            Failure::new("no root is pinned in this context").hint(
                "run `muster keys init` for a new fleet; if it has a root already, log in again with `--root-digest`",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn context() -> Context {
        Context {
            url: "https://plane:8443".into(),
            ca_fingerprint: Digest::of("ca"),
            token: "secret".into(),
            fleet: Some("home".parse().expect("a fleet id")),
            root: Some(PinnedRoot { version: 1, digest: Digest::of("root") }),
        }
    }

    #[test]
    fn contexts_survive_their_file_which_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home(folder.path().join("muster"));
        assert!(Contexts::load(&home).expect("none yet").contexts.is_empty());
        let contexts =
            BTreeMap::from([("a".to_owned(), context()), ("b".to_owned(), Context { root: None, ..context() })]);
        Contexts { current: Some("a".into()), contexts }.save(&home).expect("saves");
        let again = Contexts::load(&home).expect("loads");
        assert_eq!(again.choose(None).expect("current").1.root, context().root);
        assert!(again.choose(Some("b")).expect("b").1.root.is_none());
        let mode = std::fs::metadata(home.contexts()).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_unknown_context_names_the_known_ones() {
        let contexts = Contexts { current: None, contexts: BTreeMap::from([("a".to_owned(), context())]) };
        let text = contexts.choose(Some("x")).err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(text.contains("\"x\"") && text.contains("known are: a"), "{text}");
        assert!(contexts.choose(None).is_err());
    }

    #[test]
    fn a_broken_file_is_an_error_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home(folder.path().to_path_buf());
        std::fs::write(home.contexts(), "current = 1\n").expect("writes");
        let text = Contexts::load(&home).err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(text.contains("line 1") && text.contains("log in again"), "{text}");
    }
}
