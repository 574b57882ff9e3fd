//! How a file is cut: chunks of 128 KiB, verified and stored one by one, named in order by the
//! chunk index; and frames of 32 KiB, which travel.

use crate::Digest;
use crate::checks::{self, Check};
use crate::limits::{CHUNK_BYTES, CHUNK_INDEX_BYTES_MAX, FRAME_BYTES_MAX};

/// The digests of a file's chunks in order. Its bytes are those digests one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkIndex(Vec<Digest>);

/// Bytes that are no chunk index of the file at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Its length does not fit the file's.
    #[error("a chunk index of {found} bytes cannot describe a file of {file_bytes} bytes")]
    Length {
        /// The index's length.
        found: usize,
        /// The file's length.
        file_bytes: u64,
    },
    /// Not the index that the manifest names.
    #[error("the chunk index's digest is {found}, wanted {wanted}")]
    OtherIndex {
        /// What the manifest names.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
}

impl ChunkIndex {
    /// The index of a whole file at hand.
    pub fn of(file: &[u8]) -> Self {
        Self(file.chunks(CHUNK_BYTES).map(Digest::of).collect())
    }

    /// An index from digests computed while reading a file piece by piece.
    pub fn from_digests(digests: Vec<Digest>) -> Self {
        Self(digests)
    }

    /// Reads an index that must have the digest `wanted` and fit a file of `file_bytes`.
    pub fn verify(bytes: &[u8], wanted: Digest, file_bytes: u64) -> Result<Self, IndexError> {
        let wrong = bytes.len() as u64 != index_bytes(file_bytes) || bytes.len() > CHUNK_INDEX_BYTES_MAX;
        if checks::on(Check::DeclaredLength) && wrong {
            return Err(IndexError::Length { found: bytes.len(), file_bytes });
        }
        let found = Digest::of(bytes);
        if checks::on(Check::IndexDigest) && found != wanted {
            return Err(IndexError::OtherIndex { wanted, found });
        }
        let digests = bytes.as_chunks::<32>().0.iter().copied().map(Digest).collect();
        Ok(Self(digests))
    }

    /// The bytes that travel and are stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|digest| digest.0).collect()
    }

    /// The digest that the manifest names.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_bytes())
    }

    /// The digest of chunk `number`.
    pub fn chunk(&self, number: u32) -> Option<Digest> {
        self.0.get(number as usize).copied()
    }

    /// How many chunks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The length of the chunk index of a file of `file_bytes`.
pub fn index_bytes(file_bytes: u64) -> u64 {
    file_bytes.div_ceil(CHUNK_BYTES as u64) * 32
}

/// Where frame `number` of a blob of `blob_bytes` lies: offset and length; nothing past the end.
pub fn frame_range(blob_bytes: u64, number: u32) -> Option<(u64, usize)> {
    let offset = u64::from(number) * FRAME_BYTES_MAX as u64;
    let length = blob_bytes.checked_sub(offset)?.min(FRAME_BYTES_MAX as u64);
    (length > 0).then_some((offset, length as usize))
}

/// How many frames a blob of `blob_bytes` travels in.
pub fn frame_count(blob_bytes: u64) -> u32 {
    blob_bytes.div_ceil(FRAME_BYTES_MAX as u64).try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_survives_its_bytes_and_nothing_else_passes_for_it() {
        let file = vec![7; 2 * CHUNK_BYTES + 1];
        let index = ChunkIndex::of(&file);
        let (bytes, digest) = (index.to_bytes(), index.digest());
        assert_eq!((index.len(), bytes.len() as u64), (3, index_bytes(file.len() as u64)));
        assert_eq!(ChunkIndex::verify(&bytes, digest, file.len() as u64), Ok(index));
        assert!(ChunkIndex::verify(&bytes, digest, CHUNK_BYTES as u64).is_err());
        assert!(ChunkIndex::verify(&bytes[1..], digest, file.len() as u64).is_err());
        let mut changed = bytes.clone();
        changed[40] ^= 1;
        assert!(ChunkIndex::verify(&changed, digest, file.len() as u64).is_err());
    }

    #[test]
    fn frames_cover_a_blob_exactly() {
        for bytes in [0, 1, FRAME_BYTES_MAX as u64, FRAME_BYTES_MAX as u64 + 1, 1_000_000] {
            let mut covered = 0;
            for number in 0..frame_count(bytes) {
                let (offset, length) = frame_range(bytes, number).expect("a frame");
                assert_eq!(offset, covered);
                covered += length as u64;
            }
            assert_eq!(covered, bytes);
            assert_eq!(frame_range(bytes, frame_count(bytes)), None);
        }
    }
}
