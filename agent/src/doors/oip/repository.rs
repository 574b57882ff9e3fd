//! Triton's model repository: which models there are, and loading and unloading them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use muster_shared::Version;
use serde::Serialize;
use serde_json::Value;

use crate::doors::refusal::{Kind, Refusal};
use crate::table::{Table, VersionState};

/// Where models come from.
pub trait Repository: Debug + Send + Sync {
    /// Every model that could answer here, loaded or not.
    fn index(&self) -> Vec<Entry>;

    /// Loads a model or loads it again; returns once it answers.
    fn load<'a>(&'a self, name: &'a str, parameters: Parameters) -> BoxFuture<'a, Result<(), RepositoryError>>;

    /// Unloads a model; returns once nobody can ask it any more.
    fn unload<'a>(&'a self, name: &'a str, parameters: Parameters) -> BoxFuture<'a, Result<(), RepositoryError>>;
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The model.
    pub name: String,
    /// The version; none where it is not known before it is loaded.
    pub version: Option<Version>,
    /// Where it is in its life; none where it is not loaded and shall not be.
    pub state: Option<VersionState>,
    /// Why it is where it is.
    pub reason: String,
}

/// What comes with a request to load or unload, by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// A yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
}

/// Why a model was not loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// Nobody may, and why.
    #[error("{0}")]
    Closed(String),
    /// There is no such model.
    #[error("there is no model {0:?}")]
    Unknown(String),
    /// What is asked with it cannot be done.
    #[error("{0}")]
    Bad(String),
    /// It was tried, in vain.
    #[error("{0}")]
    Failed(String),
    /// The server ends.
    #[error("the server ends")]
    Ending,
}

impl RepositoryError {
    fn decided_elsewhere() -> Self {
        Self::Closed("models are not loaded and unloaded here: the fleet decides what runs on this device".to_owned())
    }
}

impl From<RepositoryError> for Refusal {
    fn from(error: RepositoryError) -> Self {
        let kind = match error {
            RepositoryError::Closed(_) => Kind::Forbidden,
            RepositoryError::Ending => Kind::Unavailable,
            RepositoryError::Unknown(_) => Kind::Unknown,
            // Triton answers so, too: most often the model's file is at fault.
            RepositoryError::Bad(_) | RepositoryError::Failed(_) => Kind::Bad,
        };
        Self { kind, text: error.to_string() }
    }
}

/// A repository that tells what is there and changes nothing.
#[derive(Debug)]
pub struct Closed(pub Arc<Table>);

impl Repository for Closed {
    fn index(&self) -> Vec<Entry> {
        of_table(&self.0)
    }

    fn load<'a>(&'a self, _: &'a str, _: Parameters) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async { Err(RepositoryError::decided_elsewhere()) })
    }

    fn unload<'a>(&'a self, _: &'a str, _: Parameters) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async { Err(RepositoryError::decided_elsewhere()) })
    }
}

/// What the table knows, the newest version of each model first.
pub fn of_table(table: &Table) -> Vec<Entry> {
    let mut entries = vec![];
    for (name, versions) in table.models() {
        for known in versions {
            entries.push(Entry {
                name: name.to_string(),
                version: Some(known.version),
                state: Some(known.state),
                reason: known.error.unwrap_or_default(),
            });
        }
    }
    entries
}

/// An entry in Triton's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// The version; empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// `READY`, `LOADING`, …; empty where it is not loaded and shall not be.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub state: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The index in Triton's words.
pub fn index(repository: &dyn Repository, ready_only: bool) -> Vec<IndexEntry> {
    let shown = |entry: &Entry| !ready_only || entry.state == Some(VersionState::Available);
    let told = |entry: Entry| IndexEntry {
        name: entry.name,
        version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
        state: entry.state.map_or("", |state| match state {
            VersionState::Start | VersionState::Loading => "LOADING",
            VersionState::Available => "READY",
            VersionState::Unloading => "UNLOADING",
            VersionState::End => "UNAVAILABLE",
        }),
        reason: entry.reason,
    };
    repository.index().into_iter().filter(shown).map(told).collect()
}

/// Reads `{"ready": true}`; an empty body asks for all.
pub fn wants_ready_only(body: &[u8]) -> Result<bool, Refusal> {
    match object(body)?.get("ready") {
        None => Ok(false),
        Some(Value::Bool(ready)) => Ok(*ready),
        Some(_) => Err(Refusal::bad("\"ready\" is true or false")),
    }
}

/// Reads `{"parameters": {…}}`; an empty body has none.
pub fn parameters(body: &[u8]) -> Result<Parameters, Refusal> {
    let mut body = object(body)?;
    let parameters = match body.remove("parameters") {
        None | Some(Value::Null) => return Ok(Parameters::new()),
        Some(Value::Object(parameters)) => parameters,
        Some(_) => return Err(Refusal::bad("\"parameters\" is an object")),
    };
    let value = |(name, value): (String, Value)| {
        let value = match value {
            Value::Bool(value) => Parameter::Bool(value),
            Value::String(text) => Parameter::Text(text),
            Value::Number(number) if number.is_i64() => Parameter::Int(number.as_i64().unwrap_or_default()),
            _ => return Err(Refusal::bad(format!("parameter {name:?}: use a text, a whole number, true or false"))),
        };
        Ok((name, value))
    };
    parameters.into_iter().map(value).collect()
}

fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(serde_json::Map::new());
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("the request cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_or_refused() {
        assert_eq!(wants_ready_only(b""), Ok(false));
        assert_eq!(wants_ready_only(b"{\"ready\": true}"), Ok(true));
        for bad in ["[]", "{", "{\"ready\": 1}", "null"] {
            assert!(wants_ready_only(bad.as_bytes()).is_err(), "{bad}");
        }
        let read = parameters(br#"{"parameters": {"config": "{}", "n": 3, "unload_dependents": true}}"#);
        let read = read.expect("parameters");
        assert_eq!(read["config"], Parameter::Text("{}".into()));
        assert_eq!((read["n"].clone(), read["unload_dependents"].clone()), (Parameter::Int(3), Parameter::Bool(true)));
        assert!(parameters(br#"{"parameters": {"n": [1]}}"#).is_err());
        assert!(parameters(br#"{"parameters": 1}"#).is_err());
    }

    #[tokio::test]
    async fn a_closed_repository_refuses() {
        let closed = Closed(Arc::default());
        assert_eq!(closed.load("m", Parameters::new()).await, Err(RepositoryError::decided_elsewhere()));
        assert_eq!(closed.unload("m", Parameters::new()).await, Err(RepositoryError::decided_elsewhere()));
        assert_eq!(index(&closed, false), []);
    }
}
