//! Bundles: which manifests were pushed, and whether their files are all there.

use muster_shared::desired::BlobRef;
use muster_shared::id::UnixMs;
use muster_shared::manifest::{FileRef, Manifest};
use muster_shared::{Digest, ModelName, Version};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, digest, execute, name, one, unsigned};

/// A bundle as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRecord {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the manifest's payload.
    pub manifest: Digest,
    /// The manifest in its envelope, as a blob.
    pub envelope: BlobRef,
    /// Whether all its files are there.
    pub complete: bool,
    /// When it was pushed.
    pub pushed_ms: UnixMs,
}

#[derive(FromQueryResult)]
struct Row {
    model: String,
    version: i64,
    manifest: Vec<u8>,
    envelope_sha256: Vec<u8>,
    envelope_bytes: i64,
    complete: i64,
    pushed_ms: i64,
}

#[derive(FromQueryResult)]
struct PayloadRow {
    payload: Vec<u8>,
}

#[derive(FromQueryResult)]
struct FileRow {
    manifest: Vec<u8>,
    sha256: Vec<u8>,
    bytes: i64,
    chunk_index: Vec<u8>,
}

const COLUMNS: &str =
    "SELECT model, version, manifest, envelope_sha256, envelope_bytes, complete, pushed_ms FROM bundles";

/// Every bundle, by model and version.
pub async fn list(db: &impl ConnectionTrait) -> Result<Vec<BundleRecord>, DbError> {
    let doing = "list the bundles";
    let rows: Vec<Row> = all(db, doing, &format!("{COLUMNS} ORDER BY model, version"), []).await?;
    rows.into_iter().map(|row| record(doing, row)).collect()
}

/// The bundle of this version.
pub async fn get(
    db: &impl ConnectionTrait,
    model: &ModelName,
    version: Version,
) -> Result<Option<BundleRecord>, DbError> {
    let doing = "look up a bundle";
    let sql = format!("{COLUMNS} WHERE model = $1 AND version = $2");
    let values = [model.as_str().into(), big(version.get()).into()];
    let row: Option<Row> = one(db, doing, &sql, values).await?;
    row.map(|row| record(doing, row)).transpose()
}

/// The bundles of a model from a version on, the newest first, complete or not.
pub async fn from_version(
    db: &impl ConnectionTrait,
    model: &ModelName,
    version: u64,
) -> Result<Vec<BundleRecord>, DbError> {
    let doing = "list the bundles of a model";
    let sql = format!("{COLUMNS} WHERE model = $1 AND version >= $2 ORDER BY version DESC");
    let rows: Vec<Row> = all(db, doing, &sql, [model.as_str().into(), big(version).into()]).await?;
    rows.into_iter().map(|row| record(doing, row)).collect()
}

/// The payload of a manifest.
pub async fn payload(db: &impl ConnectionTrait, manifest: Digest) -> Result<Option<Vec<u8>>, DbError> {
    let sql = "SELECT payload FROM bundles WHERE manifest = $1";
    let row: Option<PayloadRow> = one(db, "read a manifest", sql, [manifest.0.to_vec().into()]).await?;
    Ok(row.map(|row| row.payload))
}

/// Adds a bundle whose manifest was verified, and the files it names. In a transaction.
pub async fn insert(
    db: &impl ConnectionTrait,
    bundle: &BundleRecord,
    manifest: &Manifest,
    payload: &[u8],
) -> Result<(), DbError> {
    let doing = "store a manifest";
    let sql = "INSERT INTO bundles \
               (model, version, manifest, payload, envelope_sha256, envelope_bytes, complete, pushed_ms) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values = [
        bundle.model.as_str().into(),
        big(bundle.version.get()).into(),
        bundle.manifest.0.to_vec().into(),
        payload.to_vec().into(),
        bundle.envelope.sha256.0.to_vec().into(),
        big(bundle.envelope.bytes).into(),
        i64::from(bundle.complete).into(),
        big(bundle.pushed_ms).into(),
    ];
    execute(db, doing, sql, values).await?;
    let sql = "INSERT INTO bundle_files (manifest, sha256, bytes, chunk_index) VALUES ($1, $2, $3, $4) \
               ON CONFLICT DO NOTHING";
    for file in manifest.files() {
        let values = [
            bundle.manifest.0.to_vec().into(),
            file.sha256.0.to_vec().into(),
            big(file.bytes).into(),
            file.chunk_index.0.to_vec().into(),
        ];
        execute(db, doing, sql, values).await?;
    }
    Ok(())
}

/// Puts another envelope of the same manifest in the place of the first.
pub async fn set_envelope(db: &impl ConnectionTrait, manifest: Digest, envelope: BlobRef) -> Result<(), DbError> {
    let sql = "UPDATE bundles SET envelope_sha256 = $2, envelope_bytes = $3 WHERE manifest = $1";
    let values = [manifest.0.to_vec().into(), envelope.sha256.0.to_vec().into(), big(envelope.bytes).into()];
    execute(db, "store a manifest's new signatures", sql, values).await.map(drop)
}

/// Notes that all files of a bundle are there; says whether that is news.
pub async fn complete(db: &impl ConnectionTrait, manifest: Digest) -> Result<bool, DbError> {
    let sql = "UPDATE bundles SET complete = 1 WHERE manifest = $1 AND complete = 0";
    let changed = execute(db, "complete a bundle", sql, [manifest.0.to_vec().into()]).await?;
    Ok(changed > 0)
}

/// The files with this digest, each with the manifest that names it.
pub async fn files_named(db: &impl ConnectionTrait, sha256: Digest) -> Result<Vec<(Digest, FileRef)>, DbError> {
    let doing = "look up a file";
    let sql = "SELECT manifest, sha256, bytes, chunk_index FROM bundle_files WHERE sha256 = $1 ORDER BY manifest";
    let rows: Vec<FileRow> = all(db, doing, sql, [sha256.0.to_vec().into()]).await?;
    let file = |row: FileRow| {
        let file = FileRef {
            bytes: unsigned(row.bytes),
            sha256: digest(doing, &row.sha256)?,
            chunk_index: digest(doing, &row.chunk_index)?,
        };
        Ok((digest(doing, &row.manifest)?, file))
    };
    rows.into_iter().map(file).collect()
}

fn record(doing: &'static str, row: Row) -> Result<BundleRecord, DbError> {
    Ok(BundleRecord {
        model: name(doing, &row.model)?,
        version: Version::new(unsigned(row.version)).ok_or_else(|| DbError::corrupt(doing, "version 0"))?,
        manifest: digest(doing, &row.manifest)?,
        envelope: BlobRef { sha256: digest(doing, &row.envelope_sha256)?, bytes: unsigned(row.envelope_bytes) },
        complete: row.complete != 0,
        pushed_ms: unsigned(row.pushed_ms),
    })
}
