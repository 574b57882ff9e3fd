//! The models of this server, as the Open Inference Protocol lists, loads and unloads them.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use muster_shared::DeploymentName;

use super::{ControlError, ControlHandle};
use crate::doors::oip::repository::{Entry, Parameters, Repository, RepositoryError, of_table};
use crate::table::Table;

/// Lists what is loaded and what lies in the folder of models; passes orders on.
#[derive(Debug)]
pub struct OwnRepository {
    table: Arc<Table>,
    control: ControlHandle,
    folder: Option<PathBuf>,
}

impl OwnRepository {
    /// `folder`: of models to load on demand.
    pub fn new(table: Arc<Table>, control: ControlHandle, folder: Option<PathBuf>) -> Self {
        Self { table, control, folder }
    }
}

impl Repository for OwnRepository {
    fn index(&self) -> Vec<Entry> {
        let mut entries = of_table(&self.table);
        // A folder that cannot be read has nothing to load.
        let folder = self.folder.as_ref().and_then(|folder| std::fs::read_dir(folder).ok());
        for found in folder.into_iter().flatten().flatten() {
            let name = found.file_name().into_string().ok().filter(|name| name.parse::<DeploymentName>().is_ok());
            let Some(name) = name.filter(|_| found.path().is_dir()) else { continue };
            if !entries.iter().any(|entry| entry.name == name) {
                entries.push(Entry { name, version: None, state: None, reason: String::new() });
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name).then(one.version.cmp(&other.version)));
        entries
    }

    fn load<'a>(&'a self, name: &'a str, parameters: Parameters) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async move {
            let overriding = parameters.keys().find(|key| *key == "config" || key.starts_with("file:"));
            if let Some(key) = overriding {
                let text =
                    format!("parameter {key:?}: models and their configuration come from this server's files only");
                return Err(RepositoryError::Bad(text));
            }
            Ok(self.control.load(name).await?)
        })
    }

    fn unload<'a>(&'a self, name: &'a str, _: Parameters) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async move { Ok(self.control.unload(name).await?) })
    }
}

impl From<ControlError> for RepositoryError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::NotAllowed => Self::Closed(error.to_string()),
            ControlError::Unknown(name) => Self::Unknown(name),
            ControlError::Failed(..) => Self::Failed(error.to_string()),
            ControlError::Ending => Self::Ending,
        }
    }
}
