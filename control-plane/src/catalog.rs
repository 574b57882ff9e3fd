//! The catalog of bundles: a signed manifest comes first, then the files it names, then the bundle is
//! whole and can be planned with.
//!
//! Invariant: only bytes that a verified manifest names are stored, and only under the digest, the
//! length and the chunk index it gives. Models are never parsed here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::BodyDataStream;
use futures_util::StreamExt;
use muster_shared::api::catalog::{BundleView, PushStatus};
use muster_shared::desired::BlobRef;
use muster_shared::limits::MANIFEST_BYTES_MAX;
use muster_shared::manifest::{FileRef, Manifest, ManifestError, VerifiedManifest};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::{Digest, ModelName, Version};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::blobs::{BlobError, BlobStore};
use crate::db::bundles::BundleRecord;
use crate::db::{self, Db, DbError};
use crate::now_ms;

/// Manifests that are kept parsed; then the cache starts again.
const PARSED_MANIFESTS_MAX: usize = 1024;
/// Files that may come in at a time.
const UPLOADS_MAX: usize = 16;
/// How long a sender may fall silent within one file.
const UPLOAD_SILENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// What could not be done with a bundle.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is no fleet yet.
    #[error("this control plane has no root yet, so it knows no publisher")]
    NoRoot,
    /// The manifest is not believed.
    #[error("the manifest is not accepted")]
    Manifest(#[source] ManifestError),
    /// The envelope is too long to travel.
    #[error("the manifest's envelope has {0} bytes, more than {MANIFEST_BYTES_MAX}")]
    TooLong(usize),
    /// A version is one bundle.
    #[error("{model} version {version} is another bundle already, {held:?}")]
    OtherBundle {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
        /// The bundle that has it.
        held: Digest,
    },
    /// No manifest names these bytes.
    #[error("no pushed manifest names a file {0}")]
    NotNamed(Digest),
    /// The bytes have another chunk index than the manifest says.
    #[error("file {file:?} has the chunk index {found:?}, which is not the one its manifest names")]
    OtherIndex {
        /// The file.
        file: Digest,
        /// Its true index.
        found: Digest,
    },
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

/// Manifests by digest, parsed once; and the places for uploads.
pub struct Catalog {
    parsed: Mutex<BTreeMap<Digest, Arc<Manifest>>>,
    uploads: Semaphore,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { parsed: Mutex::default(), uploads: Semaphore::new(UPLOADS_MAX) }
    }
}

impl Catalog {
    /// The manifest of a bundle that is stored; it was verified when it came.
    pub async fn manifest(&self, db: &Db, digest: Digest) -> Result<Option<Arc<Manifest>>, CatalogError> {
        if let Some(manifest) = self.parsed().get(&digest) {
            return Ok(Some(manifest.clone()));
        }
        let Some(payload) = db::bundles::payload(db.read(), digest).await? else { return Ok(None) };
        let manifest = Arc::new(Manifest::parse(&payload).map_err(CatalogError::Manifest)?);
        let mut parsed = self.parsed();
        if parsed.len() >= PARSED_MANIFESTS_MAX {
            parsed.clear();
        }
        parsed.insert(digest, manifest.clone());
        Ok(Some(manifest))
    }

    /// Takes a manifest: verified first, stored second. Says which files are missing; pushing again
    /// after a break goes on where it stopped.
    pub async fn push(
        &self,
        db: &Db,
        blobs: &BlobStore,
        root: Option<&TrustedRoot>,
        envelope: &Envelope,
    ) -> Result<PushStatus, CatalogError> {
        let root = root.ok_or(CatalogError::NoRoot)?;
        let verified = VerifiedManifest::verify(envelope, root).map_err(CatalogError::Manifest)?;
        let manifest = verified.manifest();
        match db::bundles::get(db.read(), &manifest.model, manifest.version).await? {
            Some(held) if held.manifest == verified.digest() => {
                self.renew_envelope(db, blobs, root, &held, envelope).await?;
            }
            Some(held) => return Err(other_bundle(held)),
            None => self.insert(db, blobs, &verified, envelope).await?,
        }
        let missing = missing(blobs, manifest).await?;
        if missing.is_empty() {
            db::bundles::complete(db.write(), verified.digest()).await?;
        }
        Ok(PushStatus { manifest: verified.digest(), missing, barred: None })
    }

    async fn insert(
        &self,
        db: &Db,
        blobs: &BlobStore,
        verified: &VerifiedManifest,
        envelope: &Envelope,
    ) -> Result<(), CatalogError> {
        let manifest = verified.manifest();
        let bundle = BundleRecord {
            model: manifest.model.clone(),
            version: manifest.version,
            manifest: verified.digest(),
            envelope: put_envelope(blobs, envelope).await?,
            complete: false,
            pushed_ms: now_ms(),
        };
        let transaction = db.begin().await?;
        // Another push of this version may have come first.
        if let Some(held) = db::bundles::get(&transaction, &manifest.model, manifest.version).await? {
            return if held.manifest == bundle.manifest { Ok(()) } else { Err(other_bundle(held)) };
        }
        db::bundles::insert(&transaction, &bundle, manifest, &envelope.payload).await?;
        db::commit(transaction).await?;
        tracing::info!(model = %manifest.model, version = %manifest.version, "bundle pushed");
        Ok(())
    }

    /// The same manifest, signed anew: taken only where the signatures that are held count no more.
    async fn renew_envelope(
        &self,
        db: &Db,
        blobs: &BlobStore,
        root: &TrustedRoot,
        held: &BundleRecord,
        envelope: &Envelope,
    ) -> Result<(), CatalogError> {
        let bytes = blobs.read(held.envelope.sha256, MANIFEST_BYTES_MAX as u64).await?;
        let stands = bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .is_some_and(|held: Envelope| VerifiedManifest::verify(&held, root).is_ok());
        if !stands {
            let envelope = put_envelope(blobs, envelope).await?;
            db::bundles::set_envelope(db.write(), held.manifest, envelope).await?;
        }
        Ok(())
    }

    /// Takes the bytes of a file that some manifest names. Says whether a bundle became whole.
    pub async fn receive(
        &self,
        db: &Db,
        blobs: &BlobStore,
        file: Digest,
        body: BodyDataStream,
    ) -> Result<bool, CatalogError> {
        let named = db::bundles::files_named(db.read(), file).await?;
        let (_, first) = named.first().ok_or(CatalogError::NotNamed(file))?;
        if blobs.bytes(file).await?.is_none() {
            let _place = self.uploads.try_acquire().map_err(|_: TryAcquireError| CatalogError::Busy)?;
            receive_file(blobs, &named, first, body).await?;
        }
        complete_bundles(db, blobs, self, &named).await
    }

    /// Every bundle, for people.
    pub async fn views(&self, db: &Db) -> Result<Vec<BundleView>, CatalogError> {
        let mut views = Vec::new();
        for record in db::bundles::list(db.read()).await? {
            if let Some(manifest) = self.manifest(db, record.manifest).await? {
                views.extend(view(&record, &manifest));
            }
        }
        Ok(views)
    }

    fn parsed(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Arc<Manifest>>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn other_bundle(held: BundleRecord) -> CatalogError {
    CatalogError::OtherBundle { model: held.model, version: held.version, held: held.manifest }
}

/// Stores a manifest in its envelope as the blob that devices fetch.
async fn put_envelope(blobs: &BlobStore, envelope: &Envelope) -> Result<BlobRef, CatalogError> {
    let bytes = envelope.to_json().into_bytes();
    if bytes.len() > MANIFEST_BYTES_MAX {
        return Err(CatalogError::TooLong(bytes.len()));
    }
    let length = bytes.len() as u64;
    Ok(BlobRef { sha256: blobs.put(bytes).await?, bytes: length })
}

/// The files of a manifest whose bytes or whose chunk index are not here, each once.
async fn missing(blobs: &BlobStore, manifest: &Manifest) -> Result<Vec<FileRef>, BlobError> {
    let mut missing: Vec<FileRef> = Vec::new();
    for file in manifest.files() {
        let there =
            blobs.bytes(file.sha256).await? == Some(file.bytes) && blobs.bytes(file.chunk_index).await?.is_some();
        if !there && !missing.contains(file) {
            missing.push(file.clone());
        }
    }
    Ok(missing)
}

async fn receive_file(
    blobs: &BlobStore,
    named: &[(Digest, FileRef)],
    first: &FileRef,
    mut body: BodyDataStream,
) -> Result<(), CatalogError> {
    let mut incoming = blobs.receive(first.sha256, first.bytes).await?;
    loop {
        match tokio::time::timeout(UPLOAD_SILENCE, body.next()).await {
            Ok(Some(Ok(piece))) => incoming.write(piece).await?,
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => return Err(CatalogError::BrokenOff),
        }
    }
    let index = incoming.check()?;
    let found = index.digest();
    if !named.iter().any(|(_, file)| file.chunk_index == found) {
        return Err(CatalogError::OtherIndex { file: first.sha256, found });
    }
    // The index first: a file without its index would count as there.
    blobs.put(index.to_bytes()).await?;
    incoming.settle().await?;
    Ok(())
}

async fn complete_bundles(
    db: &Db,
    blobs: &BlobStore,
    catalog: &Catalog,
    named: &[(Digest, FileRef)],
) -> Result<bool, CatalogError> {
    let mut news = false;
    for (digest, _) in named {
        let Some(manifest) = catalog.manifest(db, *digest).await? else { continue };
        if missing(blobs, &manifest).await?.is_empty() {
            news |= db::bundles::complete(db.write(), *digest).await?;
        }
    }
    Ok(news)
}

/// A manifest always has a variant, so there is always a view.
fn view(record: &BundleRecord, manifest: &Manifest) -> Option<BundleView> {
    let first = manifest.variants.first()?;
    let mut files: BTreeMap<Digest, u64> = BTreeMap::new();
    files.extend(manifest.files().map(|file| (file.sha256, file.bytes)));
    Some(BundleView {
        model: record.model.clone(),
        version: record.version,
        manifest: record.manifest,
        complete: record.complete,
        barred: None,
        bytes: files.values().sum(),
        variants: manifest.variants.iter().map(|variant| variant.name.to_string()).collect(),
        graph: first.graph,
        weights: first.weights,
        inputs: manifest.inputs.clone(),
        outputs: manifest.outputs.clone(),
        pushed_ms: record.pushed_ms,
    })
}

#[cfg(test)]
pub(crate) mod tests;
