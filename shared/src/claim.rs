//! The token that lets a device enrol: a public id and a secret, and what the device must believe
//! in, which the CLI adds from its own pinned knowledge, never the server.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::UnixMs;

const PREFIX: &str = "muster1_";
/// A token is far shorter.
const TOKEN_BYTES_MAX: usize = 1024;

/// What stands in a claim token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimToken {
    /// The claim's public id.
    pub id: [u8; 8],
    /// 128 bits that prove the right to enrol.
    pub secret: [u8; 16],
    /// The digest of a root document that the device will find at the server, and the only one it
    /// starts from.
    pub root: Digest,
    /// The digest of the certificate (DER) of the CA that the server must show.
    pub ca: Digest,
    /// When the token was made: the device's clock cannot be earlier.
    pub issued_ms: UnixMs,
}

impl ClaimToken {
    /// The public id, as the API has it.
    pub fn id_hex(&self) -> String {
        hex::encode(self.id)
    }

    /// The secret, as the API has it.
    pub fn secret_hex(&self) -> String {
        hex::encode(self.secret)
    }
}

/// A text that is no claim token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no claim token: it starts with {PREFIX} and comes from `muster claim new`")]
pub struct BadToken;

impl std::fmt::Display for ClaimToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Fixed-size fields always encode.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl std::fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClaimToken({})", self.id_hex())
    }
}

impl std::str::FromStr for ClaimToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let encoded = text.strip_prefix(PREFIX).filter(|rest| rest.len() <= TOKEN_BYTES_MAX).ok_or(BadToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| BadToken)?;
        match postcard::take_from_bytes(&bytes) {
            Ok((token, [])) => Ok(token),
            _ => Err(BadToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_hides_its_secret() {
        let token = ClaimToken {
            id: [1; 8],
            secret: [2; 16],
            root: Digest::of("root"),
            ca: Digest::of("ca"),
            issued_ms: 1_700_000_000_000,
        };
        assert_eq!(format!(" {token}\n").parse(), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "ClaimToken(0101010101010101)");
        for bad in ["", "muster1_", "muster1_%%%", "other_AAAA", &format!("{token}AA")] {
            assert_eq!(bad.parse::<ClaimToken>(), Err(BadToken), "{bad}");
        }
    }
}
