//! Who this device is: one key, made here and durable before it is first used, and a client
//! certificate for it that comes and goes.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use muster_agent_core::verify::Identity;
use muster_shared::id::UnixMs;
use muster_shared::signing::device::DevicePublicKey;
use muster_shared::signing::{Envelope, Signature};
use muster_shared::{DeviceId, Digest};
use muster_tls::ClientIdentity;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// The key of this device.
pub struct DeviceKey {
    pair: KeyPair,
    signer: EcdsaKeyPair,
    random: SystemRandom,
    public: DevicePublicKey,
}

/// What enrolment brought, kept beside the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The device's id.
    pub device: DeviceId,
    /// The control plane's API.
    pub url: String,
    /// The broker, `host:port`.
    pub mqtt: String,
    /// The listener for devices, `host:port`: MQTT through a WebSocket. An older control plane named none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// The digest of the CA that all of them must show.
    pub ca: Digest,
    /// The digest of the root that this device started from.
    pub root: Digest,
    /// That root and those that followed it up to the day of enrolment: with the key they are what a
    /// device keeps when it loses all else.
    pub roots: Vec<Envelope>,
    /// When the claim or the image was made: the time has surely passed it. An enrolment by an older agent
    /// says nothing.
    #[serde(default)]
    pub issued_ms: UnixMs,
}

/// Where this device keeps who it is, below the data: key, certificate, enrolment, watermark.
pub fn folder(data: &Path) -> PathBuf {
    data.join("identity")
}

/// What makes this device one of a fleet.
pub fn enrolment_file(data: &Path) -> PathBuf {
    folder(data).join("enrolment.json")
}

impl DeviceKey {
    /// Reads the key below `data`, or makes one and makes it durable.
    pub fn open_or_make(data: &Path) -> anyhow::Result<Self> {
        if let Some(key) = Self::open(data)? {
            return Ok(key);
        }
        let path = folder(data).join("key.pem");
        let pem = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem();
        write_durably(&path, pem.as_bytes(), 0o600)
            .with_context(|| format!("cannot keep the device's key in {}", path.display()))?;
        Self::from_pem(&pem)
    }

    /// The key below `data`, if there is one.
    pub fn open(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder(data).join("key.pem");
        match fs::read_to_string(&path) {
            Ok(pem) => {
                let key = Self::from_pem(&pem);
                key.with_context(|| format!("{} is not this device's key", path.display())).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read the device's key {}", path.display())),
        }
    }

    /// From a key file's text.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let pair = KeyPair::from_pem(pem)?;
        let random = SystemRandom::new();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pair.serialize_der(), &random)
            .map_err(|error| anyhow!("no ECDSA P-256 key: {error}"))?;
        let public = DevicePublicKey::from_spki(&pair.subject_public_key_info())?;
        Ok(Self { pair, signer, random, public })
    }

    /// SHA-256 of the public key.
    pub fn fingerprint(&self) -> Digest {
        self.public.fingerprint()
    }

    /// A certificate request for this key.
    pub fn request(&self, name: Option<&DeviceId>) -> anyhow::Result<rcgen::CertificateSigningRequest> {
        let mut params = CertificateParams::default();
        if let Some(name) = name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        Ok(params.serialize_request(&self.pair)?)
    }

    /// Signs what this device says.
    pub fn sign(&self, payload_type: &str, payload: Vec<u8>) -> anyhow::Result<Envelope> {
        let message = Envelope::message_to_sign(payload_type, &payload);
        let sig = self.signer.sign(&self.random, &message).map_err(|error| anyhow!("cannot sign: {error}"))?;
        let signature = Signature { keyid: self.public.id(), sig: sig.as_ref().to_vec() };
        Ok(Envelope::with_signature(payload_type, payload, signature))
    }

    /// The key and its certificate, for TLS.
    pub fn client_identity(&self, data: &Path) -> anyhow::Result<ClientIdentity> {
        let chain = vec![certificate(data)?];
        let key = PrivateKeyDer::try_from(self.pair.serialize_der()).map_err(|error| anyhow!("{error}"))?;
        Ok(ClientIdentity { chain, key })
    }

    /// Who this device is, for the checks of what is sent to it.
    pub fn identity(&self, enrolment: &Enrolment) -> Identity {
        Identity { device: enrolment.device.clone(), fingerprint: self.fingerprint() }
    }
}

/// The client certificate below `data`.
pub fn certificate(data: &Path) -> anyhow::Result<CertificateDer<'static>> {
    let path = folder(data).join("certificate.pem");
    let read = || certificate_of(&fs::read(&path)?);
    read().with_context(|| format!("cannot read the client certificate {}", path.display()))
}

/// The certificate in the text of `certificate.pem`.
pub fn certificate_of(pem: &[u8]) -> anyhow::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem).map_err(|error| anyhow!("{error}"))
}

/// The life of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Good from here on.
    pub from_ms: UnixMs,
    /// Good until here.
    pub until_ms: UnixMs,
}

impl Life {
    /// As the certificate says.
    pub fn of(certificate: &CertificateDer<'_>) -> anyhow::Result<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate)?;
        let ms = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000);
        Ok(Self { from_ms: ms(parsed.validity().not_before), until_ms: ms(parsed.validity().not_after) })
    }

    /// When to ask for the next one: at two thirds.
    pub fn renew_at_ms(self) -> UnixMs {
        self.from_ms + self.until_ms.saturating_sub(self.from_ms) / 3 * 2
    }
}

/// Whether a certificate is for this key.
pub fn is_for(certificate: &CertificateDer<'_>, key: &DeviceKey) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| Digest::of(parsed.public_key().raw) == key.fingerprint())
}

/// What the clock's file holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptBound {
    /// A time that has surely passed.
    pub bound_ms: UnixMs,
}

/// The time that has surely passed, as it was kept by an earlier run and by enrolment. A clock file that is
/// lost or damaged costs what it rose since enrolment, not the device.
pub fn time_bound(data: &Path, enrolment: &Enrolment) -> UnixMs {
    let path = folder(data).join("clock.json");
    let kept = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<KeptBound>(&bytes).map(|kept| kept.bound_ms).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "the time that was kept cannot be read; the enrolment's counts");
            0
        }),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "the time that was kept cannot be read; the enrolment's counts");
            }
            0
        }
    };
    kept.max(enrolment.issued_ms)
}

/// Keeps the time that has surely passed.
pub fn save_time_bound(data: &Path, bound_ms: UnixMs) -> io::Result<()> {
    let bytes = serde_json::to_vec(&KeptBound { bound_ms })?;
    write_durably(&folder(data).join("clock.json"), &bytes, 0o644)
}

/// Keeps a client certificate.
pub fn save_certificate(data: &Path, pem: &str) -> io::Result<()> {
    write_durably(&folder(data).join("certificate.pem"), pem.as_bytes(), 0o644)
}

/// What enrolment brought, if there was one.
pub fn enrolment(data: &Path) -> anyhow::Result<Option<Enrolment>> {
    let path = enrolment_file(data);
    match fs::read(&path) {
        Ok(bytes) => {
            let read = serde_json::from_slice(&bytes);
            Ok(Some(read.with_context(|| format!("{} is damaged; enrol this device again", path.display()))?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Keeps what enrolment brought. Written last: with it the device is enrolled.
pub fn save_enrolment(data: &Path, enrolment: &Enrolment) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec_pretty(enrolment)?;
    Ok(write_durably(&enrolment_file(data), &bytes, 0o644)?)
}

/// Writes a whole file or nothing, and makes it durable.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // A bare name has an empty parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).create(folder)?;
    let mut file = atomic_write_file::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, mode);
    let mut file = atomic_write_file::unix::OpenOptionsExt::preserve_mode(&mut file, false).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    file.commit()?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_shared::signing::payload_type;

    use super::*;

    #[test]
    fn the_key_is_made_once_kept_private_and_signs() {
        let data = tempfile::tempdir().expect("a folder");
        let first = DeviceKey::open_or_make(data.path()).expect("makes a key");
        let again = DeviceKey::open_or_make(data.path()).expect("reads the key");
        assert_eq!(first.fingerprint(), again.fingerprint());
        let mode = fs::metadata(data.path().join("identity/key.pem")).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let signed = first.sign(payload_type::REPORTED, b"text".to_vec()).expect("signs");
        assert_eq!(signed.verify_device(payload_type::REPORTED, &again.public), Ok(&b"text"[..]));
        assert!(signed.verify_device(payload_type::TELEMETRY, &again.public).is_err());
    }

    #[test]
    fn the_time_bound_survives_and_a_lost_file_falls_back_to_the_enrolments() {
        let data = tempfile::tempdir().expect("a folder");
        let text = format!(
            r#"{{"device":"edge-1","url":"u","mqtt":"m","ca":"{0}","root":"{0}","roots":[]}}"#,
            Digest::of("it")
        );
        let older: Enrolment = serde_json::from_str(&text).expect("an older agent's enrolment");
        assert_eq!((time_bound(data.path(), &older), older.tunnel.as_deref()), (0, None));
        let enrolment = Enrolment { issued_ms: 700, ..older };
        assert_eq!(time_bound(data.path(), &enrolment), 700);
        save_time_bound(data.path(), 900).expect("kept");
        assert_eq!(time_bound(data.path(), &enrolment), 900);
        fs::write(data.path().join("identity/clock.json"), "damaged").expect("writes");
        assert_eq!(time_bound(data.path(), &enrolment), 700);
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        assert_eq!(Life { from_ms: 300, until_ms: 600 }.renew_at_ms(), 500);
        assert_eq!(Life { from_ms: 600, until_ms: 300 }.renew_at_ms(), 600);
    }

    #[test]
    fn a_damaged_key_is_not_replaced_by_another() {
        let data = tempfile::tempdir().expect("a folder");
        DeviceKey::open_or_make(data.path()).expect("makes a key");
        fs::write(data.path().join("identity/key.pem"), "damaged").expect("writes");
        assert!(DeviceKey::open_or_make(data.path()).is_err());
    }
}
