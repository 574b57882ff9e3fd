//! The codec of MQTT payloads: a version byte, then postcard. Lengths are checked before parsing.
//!
//! Postcard does not grow: a new field is a new version, and each side reads the previous ones, whose
//! shapes [`crate::v1`] keeps. The bytes of every version are kept in `shared/golden/` and must decode
//! for ever.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message that travels behind a version byte.
pub trait Message: Serialize + DeserializeOwned {
    /// What it is, for errors.
    const NAME: &'static str;
    /// The version this code writes.
    const VERSION: u8 = 1;
    /// The longest encoding; longer ones are refused unparsed.
    const BYTES_MAX: usize;

    /// Reads the body of an earlier version, mostly with [`decode_as`]; none: that version is not known.
    fn decode_older(_version: u8, _body: &[u8]) -> Option<Result<Self, WireError>> {
        None
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Over the limit, so not parsed.
    #[error("{name}: {found} bytes, more than the limit of {limit}")]
    TooLong {
        /// What was read or written.
        name: &'static str,
        /// Its length.
        found: usize,
        /// Its bound.
        limit: usize,
    },
    /// Nothing at all.
    #[error("{name}: empty")]
    Empty {
        /// What was read.
        name: &'static str,
    },
    /// A version this code does not know.
    #[error("{name}: version {found}; this program reads versions up to {known}")]
    UnknownVersion {
        /// What was read.
        name: &'static str,
        /// The version byte.
        found: u8,
        /// The newest version that is known.
        known: u8,
    },
    /// Bytes that do not parse, or more of them than there should be.
    #[error("{name}: malformed")]
    Malformed {
        /// What was read.
        name: &'static str,
    },
}

/// Encodes a message; fails only where it is over its own limit.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_extend(message, vec![M::VERSION]).map_err(|_| WireError::Malformed { name: M::NAME })?;
    within_limit::<M>(bytes.len())?;
    Ok(bytes)
}

/// Decodes a message; every input returns.
pub fn decode<M: Message>(bytes: &[u8]) -> Result<M, WireError> {
    within_limit::<M>(bytes.len())?;
    let (version, body) = bytes.split_first().ok_or(WireError::Empty { name: M::NAME })?;
    if *version == M::VERSION {
        return parse(M::NAME, body);
    }
    let unknown = WireError::UnknownVersion { name: M::NAME, found: *version, known: M::VERSION };
    M::decode_older(*version, body).unwrap_or(Err(unknown))
}

/// Reads the body of a message in the shape `Old` that an earlier version had.
pub fn decode_as<Old: DeserializeOwned + Into<M>, M: Message>(body: &[u8]) -> Result<M, WireError> {
    parse::<Old>(M::NAME, body).map(Into::into)
}

fn parse<T: DeserializeOwned>(name: &'static str, body: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((parsed, [])) => Ok(parsed),
        _ => Err(WireError::Malformed { name }),
    }
}

fn within_limit<M: Message>(found: usize) -> Result<(), WireError> {
    if found > M::BYTES_MAX {
        return Err(WireError::TooLong { name: M::NAME, found, limit: M::BYTES_MAX });
    }
    Ok(())
}
