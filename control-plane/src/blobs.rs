//! Bytes by their digest, in a folder: model files, manifests in their envelopes, chunk indexes.
//!
//! A blob is written beside its place, synced, and renamed: what stands under a digest is whole, and
//! stays so through a power cut. Nothing here knows what a blob means.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use muster_shared::Digest;
use muster_shared::chunk::{ChunkIndex, frame_range};
use muster_shared::digest::Hasher;
use muster_shared::limits::CHUNK_BYTES;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;

use crate::files;

/// The folder of blobs.
#[derive(Debug, Clone)]
pub struct BlobStore {
    folder: PathBuf,
}

/// What could not be done with a blob.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The folder cannot be used.
    #[error("cannot use the blob folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed; nothing of it is kept.
    #[error("cannot write blob {blob:?}")]
    Write {
        /// Which.
        blob: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read blob {blob:?}")]
    Read {
        /// Which.
        blob: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came is not what was announced.
    #[error("blob {blob:?} arrived with {found}, wanted {wanted}")]
    Other {
        /// Which.
        blob: Digest,
        /// What came.
        found: String,
        /// What was announced.
        wanted: String,
    },
}

impl BlobError {
    /// Whether the disk is full, so that a person can help.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Folder { source, .. } | Self::Write { source, .. } | Self::Read { source, .. } => {
                files::is_disk_full(source)
            }
            Self::Other { .. } => false,
        }
    }
}

impl BlobStore {
    /// Opens or creates the folder, and clears away what a crash left half-written.
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        let store = Self { folder: folder.to_owned() };
        let failed = |source| BlobError::Folder { path: folder.to_owned(), source };
        let incoming = store.incoming();
        match fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        files::create_private_folder(&incoming).map_err(failed)?;
        Ok(store)
    }

    /// How long the blob is; nothing if it is not there.
    pub async fn bytes(&self, blob: Digest) -> Result<Option<u64>, BlobError> {
        match tokio::fs::metadata(self.path(blob)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Read { blob, source }),
        }
    }

    /// Stores bytes at hand; says their digest. They are on the disk when this returns.
    pub async fn put(&self, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        let blob = Digest::of(&bytes);
        if self.bytes(blob).await?.is_some() {
            return Ok(blob);
        }
        let (path, temporary) = (self.path(blob), self.temporary());
        run(blob, move || {
            let mut file = File::create_new(&temporary)?;
            file.write_all(&bytes)?;
            settle(&file, &temporary, &path)
        })
        .await
    }

    /// Begins to store a blob that arrives piece by piece. Dropped before its end, it leaves nothing.
    pub async fn receive(&self, blob: Digest, bytes_wanted: u64) -> Result<Incoming, BlobError> {
        let temporary = self.temporary();
        let failed = |source| BlobError::Write { blob, source };
        let file = tokio::fs::File::create_new(&temporary).await.map_err(failed)?;
        Ok(Incoming {
            blob,
            bytes_wanted,
            path: self.path(blob),
            temporary: Temporary(temporary),
            file,
            bytes_found: 0,
            whole: Hasher::new(),
            chunk: Hasher::new(),
            chunks: Vec::new(),
        })
    }

    /// Reads a whole small blob; nothing if it is not there or longer than `bytes_max`.
    pub async fn read(&self, blob: Digest, bytes_max: u64) -> Result<Option<Vec<u8>>, BlobError> {
        match self.bytes(blob).await? {
            Some(bytes) if bytes <= bytes_max => {
                let bytes = tokio::fs::read(self.path(blob)).await;
                bytes.map(Some).map_err(|source| BlobError::Read { blob, source })
            }
            _ => Ok(None),
        }
    }

    /// A blob to be read piece by piece; nothing if it is not there.
    pub async fn open_file(&self, blob: Digest) -> Result<Option<tokio::fs::File>, BlobError> {
        match tokio::fs::File::open(self.path(blob)).await {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Read { blob, source }),
        }
    }

    /// Reads frames of a blob of known length; those past its end are left out.
    pub async fn frames(
        &self,
        blob: Digest,
        blob_bytes: u64,
        numbers: Vec<u32>,
    ) -> Result<Vec<(u32, Vec<u8>)>, BlobError> {
        let path = self.path(blob);
        let read = move || {
            let file = File::open(path)?;
            let mut frames = Vec::with_capacity(numbers.len());
            for number in numbers {
                let Some((offset, length)) = frame_range(blob_bytes, number) else { continue };
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset)?;
                frames.push((number, bytes));
            }
            Ok(frames)
        };
        let failed = |source| BlobError::Read { blob, source };
        spawn_blocking(read).await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
    }

    fn path(&self, blob: Digest) -> PathBuf {
        let name = blob.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    fn temporary(&self) -> PathBuf {
        self.incoming().join(uuid::Uuid::new_v4().to_string())
    }
}

/// A blob on its way in.
pub struct Incoming {
    blob: Digest,
    bytes_wanted: u64,
    path: PathBuf,
    temporary: Temporary,
    file: tokio::fs::File,
    bytes_found: u64,
    whole: Hasher,
    /// The chunk that is not full yet.
    chunk: Hasher,
    chunks: Vec<Digest>,
}

impl Incoming {
    /// Takes the next piece. Fails as soon as there is more than was announced.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), BlobError> {
        if self.bytes_found + piece.len() as u64 > self.bytes_wanted {
            return Err(self.other("more".to_owned(), format!("{} bytes", self.bytes_wanted)));
        }
        self.whole.update(&piece);
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let room = CHUNK_BYTES - (self.bytes_found % CHUNK_BYTES as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(room));
            self.chunk.update(now);
            self.bytes_found += now.len() as u64;
            if now.len() == room {
                self.chunks.push(std::mem::take(&mut self.chunk).finish());
            }
            rest = later;
        }
        self.file.write_all(&piece).await.map_err(|source| BlobError::Write { blob: self.blob, source })
    }

    /// The chunk index, once everything came and is what was announced.
    pub fn check(&mut self) -> Result<ChunkIndex, BlobError> {
        if self.bytes_found != self.bytes_wanted {
            return Err(self.other(format!("{} bytes", self.bytes_found), format!("{} bytes", self.bytes_wanted)));
        }
        if !self.bytes_found.is_multiple_of(CHUNK_BYTES as u64) {
            self.chunks.push(std::mem::take(&mut self.chunk).finish());
        }
        let found = std::mem::take(&mut self.whole).finish();
        if found != self.blob {
            return Err(self.other(format!("digest {found:?}"), format!("digest {:?}", self.blob)));
        }
        Ok(ChunkIndex::from_digests(std::mem::take(&mut self.chunks)))
    }

    /// Puts the checked blob in its place; it is on the disk when this returns.
    pub async fn settle(mut self) -> Result<(), BlobError> {
        let blob = self.blob;
        self.file.flush().await.map_err(|source| BlobError::Write { blob, source })?;
        let file = self.file.into_std().await;
        let (temporary, path) = (self.temporary, self.path);
        run(blob, move || settle(&file, &temporary.0, &path)).await.map(drop)
    }

    fn other(&self, found: String, wanted: String) -> BlobError {
        BlobError::Other { blob: self.blob, found, wanted }
    }
}

/// A file that is removed unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed already, or never made; what stays in spite of this goes at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

/// Syncs a written file and gives it its name.
fn settle(file: &File, temporary: &Path, path: &Path) -> io::Result<()> {
    let settled = file.sync_all().and_then(|()| {
        if let Some(folder) = path.parent()
            && !folder.is_dir()
        {
            files::create_private_folder(folder)?;
            files::sync_folder_of(folder)?;
        }
        fs::rename(temporary, path)?;
        files::sync_folder_of(path)
    });
    if settled.is_err() {
        // What cannot be finished must not fill the disk.
        let _ = fs::remove_file(temporary);
    }
    settled
}

async fn run(blob: Digest, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Digest, BlobError> {
    let failed = |source| BlobError::Write { blob, source };
    spawn_blocking(work).await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (BlobStore, tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("a folder");
        (BlobStore::open(&folder.path().join("blobs")).expect("a store"), folder)
    }

    async fn receive(
        store: &BlobStore,
        bytes: &[u8],
        blob: Digest,
        piece_bytes: usize,
    ) -> Result<ChunkIndex, BlobError> {
        let mut incoming = store.receive(blob, bytes.len() as u64).await?;
        for piece in bytes.chunks(piece_bytes) {
            incoming.write(Bytes::copy_from_slice(piece)).await?;
        }
        let index = incoming.check()?;
        incoming.settle().await?;
        Ok(index)
    }

    #[tokio::test]
    async fn pieces_of_any_size_give_the_file_and_its_index() {
        let (store, _folder) = store();
        for (length, piece) in [(1, 1), (CHUNK_BYTES, 1000), (2 * CHUNK_BYTES + 7, CHUNK_BYTES), (300_000, 262_144)] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let blob = Digest::of(&bytes);
            let index = receive(&store, &bytes, blob, piece).await.expect("arrives");
            assert_eq!(index, ChunkIndex::of(&bytes));
            assert_eq!(store.read(blob, 1 << 20).await.expect("reads"), Some(bytes.clone()));
            let frames = store.frames(blob, length as u64, vec![0, 1, 10_000]).await.expect("reads");
            assert_eq!(frames[0].1, bytes[..bytes.len().min(32 * 1024)]);
            assert!(frames.len() <= 2);
        }
    }

    #[tokio::test]
    async fn what_is_not_as_announced_leaves_nothing() {
        let (store, folder) = store();
        let wrong = Digest::of("another");
        assert!(matches!(receive(&store, b"bytes", wrong, 2).await, Err(BlobError::Other { .. })));
        let mut long = store.receive(wrong, 3).await.expect("begins");
        assert!(long.write(Bytes::from_static(b"bytes")).await.is_err());
        drop(long);
        let mut short = store.receive(wrong, 9).await.expect("begins");
        short.write(Bytes::from_static(b"bytes")).await.expect("writes");
        assert!(short.check().is_err());
        drop(short);
        assert_eq!(store.bytes(wrong).await.expect("asks"), None);
        let left = fs::read_dir(folder.path().join("blobs/incoming")).expect("a folder").count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_blob_put_twice_is_one() {
        let (store, _folder) = store();
        let blob = store.put(b"manifest".to_vec()).await.expect("stores");
        assert_eq!(store.put(b"manifest".to_vec()).await.expect("stores"), blob);
        assert_eq!(store.bytes(blob).await.expect("asks"), Some(8));
        assert_eq!(store.read(blob, 7).await.expect("asks"), None);
    }
}
