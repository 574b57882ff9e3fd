//! The key that signs desired states here, and the one that is to follow it.
//!
//! The next key is made here and waits in a file of its own until a root names it; then it takes the
//! place of the present one. A crash between the two is made good at the next start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::signing::key::{PublicKey, SecretKey};

use super::ca::{CaError, open_director};
use crate::files;

/// The present key's file in the data folder.
pub const FILE: &str = "director.pem";
/// The next key's.
pub const NEXT_FILE: &str = "director-next.pem";

/// The director of this control plane.
pub struct Director {
    folder: PathBuf,
    held: RwLock<Arc<SecretKey>>,
    /// Held while files change.
    changing: Mutex<()>,
}

impl Director {
    /// Reads the present key, or makes it.
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        let held = RwLock::new(Arc::new(open_director(&folder.join(FILE))?));
        Ok(Self { folder: folder.to_owned(), held, changing: Mutex::default() })
    }

    /// Where the keys lie: the data folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The present key.
    pub fn key(&self) -> Arc<SecretKey> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.key().public()
    }

    /// Signs a document with the present key.
    pub fn sign(&self, payload_type: &str, payload: Vec<u8>) -> Envelope {
        Envelope::sign(payload_type, payload, &[&self.key()])
    }

    /// The next key, if one was made.
    pub fn next(&self) -> Result<Option<PublicKey>, CaError> {
        let path = self.folder.join(NEXT_FILE);
        if !path.exists() { Ok(None) } else { open_director(&path).map(|key| Some(key.public())) }
    }

    /// Makes the next key, unless it waits already.
    pub fn prepare_next(&self) -> Result<PublicKey, CaError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(open_director(&self.folder.join(NEXT_FILE))?.public())
    }

    /// Whether this plane could sign under a root: with its present key, or with the next one.
    pub fn could_sign_under(&self, root: &TrustedRoot) -> Result<bool, CaError> {
        let named = root.directors();
        Ok(named.contains(&self.public()) || self.next()?.is_some_and(|next| named.contains(&next)))
    }

    /// Puts the next key in the place of the present one, where the root names only that.
    pub fn obey(&self, root: &TrustedRoot) -> Result<(), CaError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let named = root.directors();
        if named.contains(&self.public()) || !self.next()?.is_some_and(|next| named.contains(&next)) {
            return Ok(());
        }
        let (path, next) = (self.folder.join(FILE), self.folder.join(NEXT_FILE));
        let file = |source| CaError::File { path: path.clone(), source };
        std::fs::rename(&next, &path).and_then(|()| files::sync_folder_of(&path)).map_err(file)?;
        let key = open_director(&path)?;
        tracing::info!(key = %key.public(), "a new director key is in force; the one before it is gone");
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(())
    }
}
