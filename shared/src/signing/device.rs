//! A device's one key, ECDSA P-256: it makes the TLS connection and signs what the device says.

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::key::KeyId;
use crate::Digest;

/// DER before the point in the SubjectPublicKeyInfo of an uncompressed P-256 key (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The public half of a device's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePublicKey {
    spki: Vec<u8>,
}

/// Bytes that are no P-256 SubjectPublicKeyInfo.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a device key is an ECDSA P-256 key as an uncompressed SubjectPublicKeyInfo")]
pub struct NotADeviceKey;

impl DevicePublicKey {
    /// Reads DER, as it stands in a certificate or a certificate request.
    pub fn from_spki(spki: &[u8]) -> Result<Self, NotADeviceKey> {
        match spki.strip_prefix(&SPKI_PREFIX) {
            Some([0x04, point @ ..]) if point.len() == 64 => Ok(Self { spki: spki.to_vec() }),
            _ => Err(NotADeviceKey),
        }
    }

    /// The DER it was read from.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what desired states and client certificates are bound to.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.spki)
    }

    /// The fingerprint as a key's name.
    pub fn id(&self) -> KeyId {
        KeyId(self.fingerprint())
    }

    /// Whether this key made the ASN.1 `signature` over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = &self.spki[SPKI_PREFIX.len()..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    #[test]
    fn a_device_signature_holds_for_its_key_and_text_only() {
        let random = SystemRandom::new();
        let make = || {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random);
            let pair = pair.expect("a key pair");
            let spki = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
            (pair, DevicePublicKey::from_spki(&spki).expect("P-256"))
        };
        let ((pair, public), (_, other)) = (make(), make());
        let signature = pair.sign(&random, b"text").expect("signs");
        assert!(public.verify(b"text", signature.as_ref()));
        assert!(!public.verify(b"other", signature.as_ref()));
        assert!(!other.verify(b"text", signature.as_ref()));
        assert!(!public.verify(b"text", b""));
    }

    #[test]
    fn other_keys_are_refused() {
        assert_eq!(DevicePublicKey::from_spki(b""), Err(NotADeviceKey));
        assert_eq!(DevicePublicKey::from_spki(&SPKI_PREFIX), Err(NotADeviceKey));
        let compressed = [&SPKI_PREFIX[..], &[0x02; 65]].concat();
        assert_eq!(DevicePublicKey::from_spki(&compressed), Err(NotADeviceKey));
    }
}
