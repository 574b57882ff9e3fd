//! Models on disk: a folder for each version, by its number, with one model file in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use muster_agent_core::repository::Source;
use muster_shared::Version;

use super::args::Place;

/// The name that a model's file has where there are several; TF Serving's and Triton's folders have
/// theirs in this place.
const FILE: &str = "model.onnx";

/// Why there is nothing to serve at a place.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum FolderError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0} has no folder whose name is a version, like 1")]
    NoVersions(PathBuf),
    #[error("{0} has no {FILE}, and not one file that ends in .onnx")]
    NoFile(PathBuf),
}

/// The versions that are to be served from a place.
pub fn versions(place: &Place) -> Result<BTreeMap<Version, Source>, FolderError> {
    match place {
        Place::Files(files) => files.iter().map(|(version, file)| Ok((*version, source(file)?))).collect(),
        Place::Folder(folder) => {
            if let Ok(file) = file_in(folder) {
                // A folder with a model right in it: its first version.
                let version = Version::new(1).ok_or_else(|| FolderError::NoVersions(folder.clone()))?;
                return Ok(BTreeMap::from([(version, source(&file)?)]));
            }
            // As TF Serving does where nothing is said: the highest.
            let (version, path) =
                numbered(folder)?.pop_last().ok_or_else(|| FolderError::NoVersions(folder.clone()))?;
            Ok(BTreeMap::from([(version, source(&file_in(&path)?)?)]))
        }
    }
}

fn numbered(folder: &Path) -> Result<BTreeMap<Version, PathBuf>, FolderError> {
    let mut found = BTreeMap::new();
    for entry in read(folder)? {
        let version = entry.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Version>().ok());
        if let Some(version) = version.filter(|_| entry.is_dir()) {
            found.insert(version, entry);
        }
    }
    Ok(found)
}

fn file_in(folder: &Path) -> Result<PathBuf, FolderError> {
    let named = folder.join(FILE);
    if named.is_file() {
        return Ok(named);
    }
    let mut models = read(folder)?;
    models.retain(|path| path.extension().is_some_and(|extension| extension == "onnx") && path.is_file());
    match models.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(FolderError::NoFile(folder.to_owned())),
    }
}

fn read(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let failed = |source| FolderError::Read { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

fn source(file: &Path) -> Result<Source, FolderError> {
    let failed = |source| FolderError::Read { path: file.to_owned(), source };
    let metadata = std::fs::metadata(file).map_err(failed)?;
    let changed = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
    // The worker does not know this process's folder.
    let file = file.canonicalize().map_err(failed)?;
    Ok(Source { file, stamp: (metadata.len(), changed.as_nanos() as u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &Path) -> Result<Vec<(u64, PathBuf)>, String> {
        let versions = versions(&Place::Folder(folder.to_owned())).map_err(|error| error.to_string())?;
        let folder = folder.canonicalize().expect("a folder");
        let relative = |file: &Path| file.strip_prefix(&folder).expect("in the folder").to_owned();
        Ok(versions.iter().map(|(version, source)| (version.get(), relative(&source.file))).collect())
    }

    #[test]
    fn the_highest_version_of_a_folder_is_served() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        assert!(found(path).unwrap_err().contains("no folder whose name is a version"));
        for (version, file) in [("1", "model.onnx"), ("2", "other.onnx"), ("10", "model.onnx"), ("notes", "x.onnx")] {
            std::fs::create_dir(path.join(version)).expect("a folder");
            std::fs::write(path.join(version).join(file), b"x").expect("a file");
        }
        assert_eq!(found(path), Ok(vec![(10, "10/model.onnx".into())]));
        std::fs::remove_dir_all(path.join("10")).expect("it goes");
        assert_eq!(found(path), Ok(vec![(2, "2/other.onnx".into())]));
        std::fs::write(path.join("2/second.onnx"), b"x").expect("a file");
        assert!(found(path).unwrap_err().contains("not one file"));
        std::fs::write(path.join("model.onnx"), b"x").expect("a file");
        assert_eq!(found(path), Ok(vec![(1, "model.onnx".into())]));
    }

    #[test]
    fn another_content_has_another_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("model.onnx");
        std::fs::write(&file, b"one").expect("a file");
        let first = source(&file).expect("a file");
        std::fs::write(&file, b"three").expect("a file");
        assert_ne!(source(&file).expect("a file"), first);
    }
}
