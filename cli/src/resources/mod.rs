//! The kinds of things that `get` and `describe` show, one file per kind: how they are asked for,
//! which columns they have, and how one of them is told in full.

mod bundles;
mod claims;
pub mod deployments;
pub mod devices;
mod events;

use serde::Serialize;
use serde_json::Value;

use crate::client::Client;
use crate::error::{Attempt as _, Failure, Result};

/// A kind, with the names that people give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// What operators want served.
    #[value(aliases = ["deployment", "deploy"])]
    Deployments,
    /// Machines with an agent.
    #[value(aliases = ["device", "dev"])]
    Devices,
    /// Models' versions in the catalog.
    #[value(aliases = ["bundle", "bdl"])]
    Bundles,
    /// What happened lately.
    #[value(aliases = ["event", "ev"])]
    Events,
    /// Tokens by which devices enrol.
    #[value(aliases = ["claim"])]
    Claims,
}

/// One thing, ready to be printed in any format.
#[derive(Debug, Clone)]
pub struct Item {
    /// Tells it from others of its kind.
    pub key: String,
    /// Its cells, under [`Kind::header`].
    pub row: Vec<String>,
    /// As the API gave it.
    pub value: Value,
    /// Fields of `value`, at any depth, that change all the time, and so are no news to one who watches.
    restless: &'static [&'static str],
}

impl Item {
    fn new(key: String, row: Vec<String>, view: &impl Serialize, restless: &'static [&'static str]) -> Result<Self> {
        let value = serde_json::to_value(view).attempt(|| "cannot print the answer")?;
        Ok(Self { key, row, value, restless })
    }

    /// What a watcher compares.
    pub fn news(&self) -> Value {
        let mut value = self.value.clone();
        calm(&mut value, self.restless);
        value
    }
}

fn calm(value: &mut Value, restless: &[&str]) {
    match value {
        Value::Object(fields) => {
            restless.iter().for_each(|name| drop(fields.remove(*name)));
            fields.values_mut().for_each(|value| calm(value, restless));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| calm(item, restless)),
        _ => {}
    }
}

impl Kind {
    /// The singular.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Deployments => "deployment",
            Self::Devices => "device",
            Self::Bundles => "bundle",
            Self::Events => "event",
            Self::Claims => "claim",
        }
    }

    /// The columns' titles.
    pub fn header(self, wide: bool) -> Vec<&'static str> {
        let (narrow, more) = match self {
            Self::Deployments => (deployments::HEADER, deployments::HEADER_WIDE),
            Self::Devices => (devices::HEADER, devices::HEADER_WIDE),
            Self::Bundles => (bundles::HEADER, bundles::HEADER_WIDE),
            Self::Events => (events::HEADER, events::HEADER_WIDE),
            Self::Claims => (claims::HEADER, claims::HEADER_WIDE),
        };
        narrow.iter().chain(more.iter().filter(|_| wide)).copied().collect()
    }

    /// Asks for all, or for those that `name` means.
    pub async fn fetch(self, client: &Client, name: Option<&str>, wide: bool) -> Result<Vec<Item>> {
        match self {
            Self::Deployments => deployments::fetch(client, name, wide).await,
            Self::Devices => devices::fetch(client, name, wide).await,
            Self::Bundles => bundles::fetch(client, name, wide).await,
            Self::Events => events::fetch(client, name).await,
            Self::Claims => claims::fetch(client, name, wide).await,
        }
    }

    /// Whether a name means exactly one thing, which then is printed alone and not in a list.
    pub fn is_one(self, name: Option<&str>) -> bool {
        name.is_some() && matches!(self, Self::Deployments | Self::Devices | Self::Claims)
    }

    /// One thing in full.
    pub async fn describe(self, client: &Client, name: &str) -> Result<String> {
        match self {
            Self::Deployments => deployments::describe(client, name).await,
            Self::Devices => devices::describe(client, name).await,
            Self::Bundles => bundles::describe(client, name).await,
            Self::Events | Self::Claims => Err(Failure::new(format!("a {} has nothing more to tell", self.noun()))
                .hint(format!("use `muster get {}s -o yaml`", self.noun()))),
        }
    }
}

/// An error for a name that nothing has.
fn unknown(kind: Kind, name: &str) -> Failure {
    Failure::new(format!("there is no {} {name:?}", kind.noun()))
        .hint(format!("`muster get {}s` lists those that there are", kind.noun()))
}

/// A name that stands in a URL, checked before.
fn name<N: std::str::FromStr>(kind: Kind, text: &str) -> Result<N>
where
    N::Err: std::error::Error + 'static,
{
    text.parse::<N>().attempt(|| format!("cannot ask for the {}", kind.noun()))
}

/// Turns "not found" into the error for an unknown name.
pub fn found<T>(kind: Kind, name: &str, answer: Result<T, crate::client::ClientError>) -> Result<T> {
    match answer {
        Err(error) if error.is_not_found() => Err(unknown(kind, name)),
        other => other.attempt(|| format!("cannot ask for the {} {name}", kind.noun())),
    }
}

/// Labels as `k=v,k=v`.
fn labels(labels: &muster_shared::id::Labels) -> String {
    if labels.is_empty() {
        return "-".to_owned();
    }
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
