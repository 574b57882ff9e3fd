//! Ed25519 keys of people and of the control plane: root, publishers, directors, release signer.

use std::fmt;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::Digest;

/// Names a key: SHA-256 of the Ed25519 public key, or of a device's SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct KeyId(pub Digest);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An Ed25519 public key: 32 bytes, hex in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct PublicKey(Digest);

impl PublicKey {
    /// A key from its 32 bytes. Whether they are a point of the curve shows when they verify.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Digest(bytes))
    }

    /// The key's name.
    pub fn id(&self) -> KeyId {
        KeyId(Digest::of(self.0.0))
    }

    /// Whether the bytes can be anyone's key: a point of the curve, in its one spelling, not of small order.
    pub fn is_strict(&self) -> bool {
        self.strict().is_some()
    }

    fn strict(&self) -> Option<VerifyingKey> {
        let key = VerifyingKey::from_bytes(&self.0.0).ok()?;
        // Reading a point reduces its coordinate: what is written again shows whether it was reduced.
        let canonical = key.to_edwards().compress().to_bytes() == self.0.0;
        (canonical && !key.is_weak()).then_some(key)
    }

    /// Strict verification: RFC 8032 without a cofactor, with points of small order, and points and numbers
    /// in another spelling than their one, refused.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some(key) = self.strict() else { return false };
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        key.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for PublicKey {
    type Err = crate::digest::NotADigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// An Ed25519 secret key; wiped from memory when dropped, never printed.
pub struct SecretKey(SigningKey);

/// A text that holds no usable secret key.
#[derive(Debug, thiserror::Error)]
#[error("this is no Ed25519 private key in PKCS#8 PEM")]
pub struct BadSecretKey;

impl SecretKey {
    /// The key that grows from 32 random bytes.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads PKCS#8 PEM, as OpenSSL writes it for Ed25519.
    pub fn from_pem(pem: &str) -> Result<Self, BadSecretKey> {
        SigningKey::from_pkcs8_pem(pem).map(Self).map_err(|_| BadSecretKey)
    }

    /// Writes PKCS#8 PEM.
    pub fn to_pem(&self) -> Result<String, BadSecretKey> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| BadSecretKey)?;
        Ok(pem.to_string())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(for {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_8032_test_1() {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let key = SecretKey::from_seed(seed.expect("hex").try_into().expect("32 bytes"));
        assert_eq!(key.public().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(hex::encode(key.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a"));
        assert!(key.public().verify(b"", &key.sign(b"")));
        assert!(!key.public().verify(b"x", &key.sign(b"")));
    }

    #[test]
    fn a_key_survives_its_pem() {
        let key = SecretKey::from_seed([7; 32]);
        let again = SecretKey::from_pem(&key.to_pem().expect("writes")).expect("reads");
        assert_eq!(again.public(), key.public());
        assert!(SecretKey::from_pem("-----BEGIN PRIVATE KEY-----\n").is_err());
    }
}
