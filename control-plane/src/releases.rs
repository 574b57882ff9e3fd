//! Releases of the agent: a signed document comes first, then the files it names, then the release is
//! whole and can be offered.
//!
//! Invariant: only bytes that a verified release names are stored, and only under the digest and the
//! length it gives. Nothing here is run, or believed by those who fetch it: machines verify for themselves.

pub mod downloads;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::body::BodyDataStream;
use futures_util::StreamExt;
use muster_shared::Digest;
use muster_shared::api::releases::{ReleasePushed, ReleaseView};
use muster_shared::id::{ArtifactName, UnixMs};
use muster_shared::release::{Artifact, Release, ReleaseError, ReleaseVersion, VerifiedRelease};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use tokio::sync::{Semaphore, TryAcquireError};

use crate::blobs::{BlobError, BlobStore};
use crate::db::{self, Db, DbError};
use crate::now_ms;

/// Releases that a plane keeps.
const RELEASES_MAX: usize = 256;
/// Files that may come in at a time.
const UPLOADS_MAX: usize = 4;
/// How long a sender may fall silent within one file.
const UPLOAD_SILENCE: Duration = Duration::from_secs(30);

/// What could not be done with a release.
#[derive(Debug, thiserror::Error)]
pub enum CannotRelease {
    /// There is no fleet yet.
    #[error("this control plane has no root yet, so it knows no release signer")]
    NoRoot,
    /// It is not believed.
    #[error("the release is not accepted")]
    Release(#[from] ReleaseError),
    /// A version is one release.
    #[error("version {0} is another release already")]
    Other(ReleaseVersion),
    /// None of this version.
    #[error("there is no release {0}")]
    Unknown(ReleaseVersion),
    /// It names no such file.
    #[error("release {0} names no file {1}")]
    NotNamed(ReleaseVersion, ArtifactName),
    /// The bytes are not there yet.
    #[error("{1} of release {0} was not uploaded yet")]
    NotHere(ReleaseVersion, ArtifactName),
    /// Too many.
    #[error("this control plane keeps {RELEASES_MAX} releases and takes no more")]
    TooMany,
    /// Too many at a time.
    #[error("{UPLOADS_MAX} files are coming in already")]
    Busy,
    /// The sender stopped.
    #[error("the sender broke off")]
    BrokenOff,
    /// The folder of blobs failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The releases, in memory as in the database.
pub struct Releases {
    held: RwLock<Arc<Vec<Held>>>,
    /// What people and machines are told, with the root under which it is so.
    told: Mutex<Option<Told>>,
    /// Makes comparing with what is there and storing one step.
    adding: tokio::sync::Mutex<()>,
    uploads: Semaphore,
}

/// The digest of a root, if there was one, and the releases as they were under it.
type Told = (Option<Digest>, Arc<Vec<ReleaseView>>);

#[derive(Clone)]
struct Held {
    release: Release,
    envelope: Envelope,
    pushed_ms: UnixMs,
}

impl Releases {
    /// Reads the releases.
    pub async fn open(db: &Db) -> Result<Self, DbError> {
        let held = RwLock::new(Arc::new(read(db).await?));
        let (told, adding) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { held, told, adding, uploads: Semaphore::new(UPLOADS_MAX) })
    }

    /// Takes a release: verified first, stored second. An older one than what is there is kept beside it,
    /// and not offered. Says which files are missing.
    pub async fn push(
        &self,
        db: &Db,
        blobs: &BlobStore,
        root: Option<&TrustedRoot>,
        envelope: &Envelope,
    ) -> Result<ReleasePushed, CannotRelease> {
        let root = root.ok_or(CannotRelease::NoRoot)?;
        let release = VerifiedRelease::verify(envelope, root)?.release().clone();
        let _adding = self.adding.lock().await;
        match self.find(&release.version) {
            Some(held) if held.envelope.payload != envelope.payload => {
                return Err(CannotRelease::Other(release.version));
            }
            // Signed anew: taken only where the signatures that are held count no more.
            Some(held) if VerifiedRelease::verify(&held.envelope, root).is_ok() => {}
            None if self.all().len() >= RELEASES_MAX => return Err(CannotRelease::TooMany),
            _ => {
                db::releases::put(db.write(), &release.version, envelope, now_ms()).await?;
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read(db).await?);
                tracing::info!(version = %release.version, "release pushed");
            }
        }
        self.forget_told();
        let missing = missing(blobs, &release).await?;
        let offered = self.list(blobs, Some(root)).await?.iter().find(|view| view.offered).cloned();
        let newer = offered.map(|view| view.version).filter(|version| *version > release.version);
        Ok(ReleasePushed { version: release.version, missing, newer })
    }

    /// Takes the bytes of a file that a release names.
    pub async fn receive(
        &self,
        blobs: &BlobStore,
        version: &ReleaseVersion,
        name: &ArtifactName,
        mut body: BodyDataStream,
    ) -> Result<(), CannotRelease> {
        let artifact = self.artifact(version, name)?;
        if blobs.bytes(artifact.sha256).await?.is_none() {
            let _place = self.uploads.try_acquire().map_err(|_: TryAcquireError| CannotRelease::Busy)?;
            let mut incoming = blobs.receive(artifact.sha256, artifact.bytes).await?;
            loop {
                match tokio::time::timeout(UPLOAD_SILENCE, body.next()).await {
                    Ok(Some(Ok(piece))) => incoming.write(piece).await?,
                    Ok(None) => break,
                    Ok(Some(Err(_))) | Err(_) => return Err(CannotRelease::BrokenOff),
                }
            }
            incoming.check()?;
            incoming.settle().await?;
        }
        self.forget_told();
        Ok(())
    }

    /// Every release, the newest first.
    pub async fn list(
        &self,
        blobs: &BlobStore,
        root: Option<&TrustedRoot>,
    ) -> Result<Arc<Vec<ReleaseView>>, CannotRelease> {
        let under = root.map(TrustedRoot::digest);
        if let Some((of, views)) = &*self.told()
            && *of == under
        {
            return Ok(views.clone());
        }
        let mut views = Vec::new();
        for Held { release, envelope, pushed_ms } in self.all().iter().cloned() {
            let verified = root.map(|root| VerifiedRelease::verify(&envelope, root));
            views.push(ReleaseView {
                complete: missing(blobs, &release).await?.is_empty(),
                offered: false,
                refused: verified.and_then(Result::err).map(|error| error.to_string()),
                version: release.version,
                issued_ms: release.issued_ms,
                pushed_ms,
                artifacts: release.artifacts,
            });
        }
        views.sort_by(|one, other| other.version.cmp(&one.version));
        if let Some(newest) = views.iter_mut().find(|view| view.complete && view.refused.is_none()) {
            newest.offered = true;
        }
        let views = Arc::new(views);
        *self.told() = Some((under, views.clone()));
        Ok(views)
    }

    /// A release in its envelope.
    pub fn envelope(&self, version: &ReleaseVersion) -> Result<Envelope, CannotRelease> {
        self.find(version).map(|held| held.envelope).ok_or_else(|| CannotRelease::Unknown(version.clone()))
    }

    /// A file of a release.
    pub fn artifact(&self, version: &ReleaseVersion, name: &ArtifactName) -> Result<Artifact, CannotRelease> {
        let held = self.find(version).ok_or_else(|| CannotRelease::Unknown(version.clone()))?;
        let artifact = held.release.artifact(name).cloned();
        artifact.ok_or_else(|| CannotRelease::NotNamed(version.clone(), name.clone()))
    }

    fn find(&self, version: &ReleaseVersion) -> Option<Held> {
        self.all().iter().find(|held| held.release.version == *version).cloned()
    }

    fn all(&self) -> Arc<Vec<Held>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_told(&self) {
        *self.told() = None;
    }
}

async fn read(db: &Db) -> Result<Vec<Held>, DbError> {
    let records = db::releases::list(db.read()).await?;
    let held = |record: db::releases::ReleaseRecord| match Release::parse(&record.envelope.payload) {
        Ok(release) => Some(Held { release, envelope: record.envelope, pushed_ms: record.pushed_ms }),
        Err(error) => {
            // A later control plane took it, whose rules are wider.
            tracing::warn!(%error, "a release that is kept cannot be read; it is left out");
            None
        }
    };
    Ok(records.into_iter().filter_map(held).collect())
}

/// The files of a release whose bytes are not here.
async fn missing(blobs: &BlobStore, release: &Release) -> Result<Vec<Artifact>, BlobError> {
    let (mut missing, mut seen) = (Vec::new(), BTreeSet::new());
    for artifact in &release.artifacts {
        let here = blobs.bytes(artifact.sha256).await? == Some(artifact.bytes);
        if !here && seen.insert(artifact.sha256) {
            missing.push(artifact.clone());
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests;
