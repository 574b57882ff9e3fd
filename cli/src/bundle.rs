//! The bundle file: a tar archive of the signed manifest, `manifest.dsse.json`, and then each file
//! that it names as `blobs/<sha256>`, in the manifest's order.
//!
//! There is one encoding of a bundle: owners, modes and times are fixed, and the reader accepts no
//! other header, padding or order than the writer's. So the same manifest gives the same bytes, and
//! a changed byte anywhere is noticed, though for the manifest itself only by its signature.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use muster_shared::Digest;
use muster_shared::chunk::ChunkIndex;
use muster_shared::digest::Hasher;
use muster_shared::limits::{CHUNK_BYTES, MANIFEST_BYTES_MAX};
use muster_shared::manifest::{FileRef, Manifest, ManifestError};
use muster_shared::signing::{Envelope, payload_type};

/// The first member.
const MANIFEST: &str = "manifest.dsse.json";
/// The unit of tar.
const BLOCK_BYTES: usize = 512;
/// Two empty blocks end an archive.
const TRAILER_BYTES: usize = 2 * BLOCK_BYTES;

/// A bundle file whose members all are what the manifest says. Who signed it is not checked yet.
#[derive(Debug)]
pub struct Bundle {
    /// The signed manifest.
    pub envelope: Envelope,
    /// What it says.
    pub manifest: Manifest,
    /// SHA-256 of its payload.
    pub digest: Digest,
    /// The files, by digest, and where their bytes start in the bundle file.
    pub files: BTreeMap<Digest, (FileRef, u64)>,
}

/// Why a file is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The disk or the pipe.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("this is no bundle: it does not begin with {MANIFEST}")]
    NotABundle,
    /// It ends too early.
    #[error("it ends in the middle of {member}")]
    Truncated {
        /// What was being read.
        member: String,
    },
    /// The envelope or the manifest in it.
    #[error("its manifest cannot be read: {0}")]
    Manifest(String),
    /// Bytes that are not what the manifest names.
    #[error("{member} is damaged: {what}")]
    Damaged {
        /// Which member.
        member: String,
        /// What differs.
        what: &'static str,
    },
    /// A file that the manifest does not name, or not in this place.
    #[error("{found:?} stands where {wanted} belongs")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What belongs there.
        wanted: String,
    },
}

impl From<ManifestError> for BundleError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error.to_string())
    }
}

/// Writes a bundle of a signed manifest and the files it names.
pub fn write(out: impl Write, envelope: &Envelope, files: &[&[u8]]) -> io::Result<()> {
    let mut archive = tar::Builder::new(out);
    let json = envelope.to_json();
    archive.append(&header(MANIFEST, json.len() as u64)?, json.as_bytes())?;
    let mut written = Vec::new();
    for file in files {
        let sha256 = Digest::of(file);
        // Two variants may name one file.
        if !written.contains(&sha256) {
            archive.append(&header(&blob(sha256), file.len() as u64)?, *file)?;
            written.push(sha256);
        }
    }
    archive.into_inner()?.flush()
}

impl Bundle {
    /// Reads a bundle and checks every member. Every input returns; files are not kept in memory.
    pub fn read(reader: impl Read) -> Result<Self, BundleError> {
        let mut archive = Archive { reader, offset: 0 };
        let envelope = archive.manifest()?;
        if envelope.payload_type != payload_type::MANIFEST {
            return Err(BundleError::Manifest("the envelope holds another kind of document".to_owned()));
        }
        let manifest = Manifest::parse(&envelope.payload)?;
        let mut files = BTreeMap::new();
        for file in manifest.files() {
            match files.get(&file.sha256) {
                Some((known, _)) if known == file => {}
                Some(_) => {
                    let why = format!("it names {} twice with different lengths or indexes", file.sha256);
                    return Err(BundleError::Manifest(why));
                }
                None => {
                    let offset = archive.blob(file)?;
                    files.insert(file.sha256, (file.clone(), offset));
                }
            }
        }
        archive.end()?;
        let digest = Digest::of(&envelope.payload);
        Ok(Self { envelope, manifest, digest, files })
    }
}

struct Archive<R> {
    reader: R,
    offset: u64,
}

impl<R: Read> Archive<R> {
    fn manifest(&mut self) -> Result<Envelope, BundleError> {
        let found = self.block(MANIFEST).map_err(|error| match error {
            BundleError::Truncated { .. } => BundleError::NotABundle,
            other => other,
        })?;
        let size = tar::Header::from_byte_slice(&found).entry_size().map_err(|_| BundleError::NotABundle)?;
        if header(MANIFEST, size)?.as_bytes() != &found {
            return Err(BundleError::NotABundle);
        }
        if size > MANIFEST_BYTES_MAX as u64 {
            return Err(BundleError::Manifest(format!("{size} bytes, more than {MANIFEST_BYTES_MAX}")));
        }
        let mut json = vec![0; size as usize];
        self.fill(&mut json, MANIFEST)?;
        self.padding(size, MANIFEST)?;
        serde_json::from_slice(&json).map_err(|error| BundleError::Manifest(error.to_string()))
    }

    /// Checks the next member, which must be `file`; where its bytes start.
    fn blob(&mut self, file: &FileRef) -> Result<u64, BundleError> {
        let member = blob(file.sha256);
        let damaged = |what: &'static str| BundleError::Damaged { member: member.clone(), what };
        let found = self.block(&member)?;
        if header(&member, file.bytes)?.as_bytes() != &found {
            return Err(match name_in(&found) {
                Some(name) if name == member => damaged("its length or another part of its header is wrong"),
                Some(found) => BundleError::Unexpected { found, wanted: member },
                None => BundleError::Unexpected { found: String::new(), wanted: member },
            });
        }
        let start = self.offset;
        let mut whole = Hasher::new();
        let mut chunks = Vec::new();
        let mut left = file.bytes;
        let mut buffer = vec![0; CHUNK_BYTES];
        while left > 0 {
            let chunk = &mut buffer[..left.min(CHUNK_BYTES as u64) as usize];
            self.fill(chunk, &member)?;
            whole.update(&chunk);
            chunks.push(Digest::of(&chunk));
            left -= chunk.len() as u64;
        }
        self.padding(file.bytes, &member)?;
        if whole.finish() != file.sha256 {
            return Err(damaged("its bytes have another digest"));
        }
        if ChunkIndex::from_digests(chunks).digest() != file.chunk_index {
            return Err(damaged("its chunk index is not the one that the manifest names"));
        }
        Ok(start)
    }

    fn end(&mut self) -> Result<(), BundleError> {
        const END: &str = "the end";
        let first = self.block(END)?;
        if first.iter().any(|byte| *byte != 0) {
            let found = name_in(&first).unwrap_or_default();
            return Err(BundleError::Unexpected { found, wanted: END.to_owned() });
        }
        let mut rest = Vec::new();
        self.reader.by_ref().take(TRAILER_BYTES as u64).read_to_end(&mut rest)?;
        if rest != [0; BLOCK_BYTES] {
            return Err(BundleError::Damaged { member: END.to_owned(), what: "something follows the last member" });
        }
        Ok(())
    }

    fn block(&mut self, member: &str) -> Result<[u8; BLOCK_BYTES], BundleError> {
        let mut block = [0; BLOCK_BYTES];
        self.fill(&mut block, member)?;
        Ok(block)
    }

    fn padding(&mut self, size: u64, member: &str) -> Result<(), BundleError> {
        let mut padding = [0; BLOCK_BYTES];
        let length = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        let padding = &mut padding[..length as usize];
        self.fill(padding, member)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(BundleError::Damaged { member: member.to_owned(), what: "something hides behind it" });
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8], member: &str) -> Result<(), BundleError> {
        self.reader.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BundleError::Truncated { member: member.to_owned() },
            _ => BundleError::Io(error),
        })?;
        self.offset += buffer.len() as u64;
        Ok(())
    }
}

fn blob(sha256: Digest) -> String {
    format!("blobs/{sha256}")
}

/// The only header that a member of this name and size has.
fn header(name: &str, bytes: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

/// The name in a header that someone else wrote, if it has one.
fn name_in(block: &[u8; BLOCK_BYTES]) -> Option<String> {
    let header = tar::Header::from_byte_slice(block);
    let name = String::from_utf8_lossy(&header.path_bytes()).into_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
