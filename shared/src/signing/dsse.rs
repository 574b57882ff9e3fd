//! DSSE, the Dead Simple Signing Envelope (secure-systems-lab/dsse, protocol v1.0.2): what is
//! signed is `DSSEv1 <type length> <type> <payload length> <payload>`.

use serde::{Deserialize, Serialize};

use super::device::DevicePublicKey;
use super::key::{KeyId, PublicKey, SecretKey};
use crate::checks::{self, Check};
use crate::limits::SIGNATURES_MAX;

/// A payload, its type, and who signed both. JSON with base64, or plain bytes on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// One of [`super::payload_type`].
    pub payload_type: String,
    /// The bytes that were signed; not to be parsed before [`Envelope::verify`].
    #[serde(with = "bytes_or_base64")]
    pub payload: Vec<u8>,
    /// At most [`SIGNATURES_MAX`] are looked at.
    pub signatures: Vec<Signature>,
}

/// One signature over an envelope's type and payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// A hint which key to try; proves nothing.
    pub keyid: KeyId,
    /// 64 bytes of Ed25519, or an ASN.1 ECDSA signature from a device.
    #[serde(with = "bytes_or_base64")]
    pub sig: Vec<u8>,
}

/// Why an envelope proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The envelope holds another kind of document.
    #[error("the envelope holds {found:?}, wanted {wanted:?}")]
    WrongType {
        /// The kind that was asked for.
        wanted: String,
        /// The kind that the envelope names.
        found: String,
    },
    /// Fewer good signatures of the role's keys than its threshold.
    #[error("{good} of {threshold} needed signatures are good and by a key of this role")]
    TooFewSignatures {
        /// Distinct keys of the role whose signatures hold.
        good: usize,
        /// What the role asks for.
        threshold: usize,
    },
    /// More signatures than anyone needs.
    #[error("the envelope carries {0} signatures, more than {SIGNATURES_MAX}")]
    TooManySignatures(usize),
    /// The device's signature does not hold.
    #[error("the signature is not the device's")]
    NotTheDevice,
}

impl Envelope {
    /// Wraps `payload` and signs it with each of `keys`.
    pub fn sign(payload_type: &str, payload: Vec<u8>, keys: &[&SecretKey]) -> Self {
        let message = pre_authentication_encoding(payload_type, &payload);
        let signatures =
            keys.iter().map(|key| Signature { keyid: key.public().id(), sig: key.sign(&message).to_vec() }).collect();
        Self { payload_type: payload_type.to_owned(), payload, signatures }
    }

    /// Wraps `payload` with a signature made elsewhere over [`Envelope::message_to_sign`].
    pub fn with_signature(payload_type: &str, payload: Vec<u8>, signature: Signature) -> Self {
        Self { payload_type: payload_type.to_owned(), payload, signatures: vec![signature] }
    }

    /// The envelope as DSSE's JSON.
    pub fn to_json(&self) -> String {
        // A tree of strings always becomes JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads DSSE's JSON.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The bytes that a signature covers.
    pub fn message_to_sign(payload_type: &str, payload: &[u8]) -> Vec<u8> {
        pre_authentication_encoding(payload_type, payload)
    }

    /// The payload, once `threshold` distinct keys of `keys` have signed it as `payload_type`.
    pub fn verify(&self, payload_type: &str, keys: &[PublicKey], threshold: usize) -> Result<&[u8], VerifyError> {
        self.verified_by(payload_type, keys, threshold).map(|(payload, _)| payload)
    }

    /// Like [`Envelope::verify`], and says whose signatures held.
    pub fn verified_by(
        &self,
        payload_type: &str,
        keys: &[PublicKey],
        threshold: usize,
    ) -> Result<(&[u8], Vec<KeyId>), VerifyError> {
        self.expect_type(payload_type)?;
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        let mut good: Vec<KeyId> = Vec::new();
        for signature in &self.signatures {
            let known = keys.iter().find(|key| key.id() == signature.keyid);
            if let Some(key) = known
                && (!good.contains(&signature.keyid) || !checks::on(Check::DistinctKeys))
                && key.verify(&message, &signature.sig)
            {
                good.push(signature.keyid);
            }
        }
        // A threshold of 0 would accept anything; no caller may mean that.
        let threshold = threshold.max(1);
        if checks::on(Check::Signature) && good.len() < threshold {
            return Err(VerifyError::TooFewSignatures { good: good.len(), threshold });
        }
        Ok((&self.payload, good))
    }

    /// The payload, if `device` signed it as `payload_type`.
    pub fn verify_device(&self, payload_type: &str, device: &DevicePublicKey) -> Result<&[u8], VerifyError> {
        self.expect_type(payload_type)?;
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        match self.signatures.as_slice() {
            [only] if device.verify(&message, &only.sig) => Ok(&self.payload),
            _ if !checks::on(Check::DeviceSignature) => Ok(&self.payload),
            _ => Err(VerifyError::NotTheDevice),
        }
    }

    fn expect_type(&self, wanted: &str) -> Result<(), VerifyError> {
        if self.signatures.len() > SIGNATURES_MAX {
            return Err(VerifyError::TooManySignatures(self.signatures.len()));
        }
        if self.payload_type != wanted {
            let found = self.payload_type.chars().take(80).collect();
            return Err(VerifyError::WrongType { wanted: wanted.to_owned(), found });
        }
        Ok(())
    }
}

fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// Bytes as base64 text where people read, as they are on the wire.
mod bytes_or_base64 {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&STANDARD.encode(bytes))
        } else {
            bytes.serialize(serializer)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if deserializer.is_human_readable() {
            STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
        } else {
            Vec::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    #[test]
    fn the_encoding_is_the_one_the_dsse_protocol_shows() {
        // The example of DSSE's protocol.md.
        let message = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(message, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn a_changed_payload_type_signature_or_key_proves_nothing() {
        let good = Envelope::sign("t", b"payload".to_vec(), &[&key(1)]);
        let keys = [key(1).public()];
        assert_eq!(good.verify("t", &keys, 1), Ok(&b"payload"[..]));

        let mut payload = good.clone();
        payload.payload[0] ^= 1;
        assert!(payload.verify("t", &keys, 1).is_err());
        let mut kind = good.clone();
        kind.payload_type = "u".into();
        assert!(kind.verify("t", &keys, 1).is_err());
        assert!(kind.verify("u", &keys, 1).is_err());
        let mut signature = good.clone();
        signature.signatures[0].sig[10] ^= 1;
        assert!(signature.verify("t", &keys, 1).is_err());
        assert!(good.verify("t", &[key(2).public()], 1).is_err());
        assert!(good.verify("t", &[], 0).is_err());
    }

    #[test]
    fn one_key_counts_once_towards_a_threshold() {
        let twice = Envelope::sign("t", vec![], &[&key(1), &key(1)]);
        let keys = [key(1).public(), key(2).public()];
        assert_eq!(twice.verify("t", &keys, 2), Err(VerifyError::TooFewSignatures { good: 1, threshold: 2 }));
        assert!(Envelope::sign("t", vec![], &[&key(1), &key(2)]).verify("t", &keys, 2).is_ok());
    }

    #[test]
    fn json_is_dsse_json() {
        let envelope = Envelope::sign("t", b"hi".to_vec(), &[&key(1)]);
        let json = serde_json::to_value(&envelope).expect("an envelope is JSON");
        assert_eq!(json["payloadType"], "t");
        assert_eq!(json["payload"], "aGk=");
        assert_eq!(serde_json::from_value::<Envelope>(json).expect("reads back"), envelope);
    }
}
