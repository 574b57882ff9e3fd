//! The plane's own keys: a certificate authority for its server certificate and its devices', and
//! the director key that signs desired states. Both are files of 0600, made at the first run.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use muster_shared::signing::device::DevicePublicKey;
use muster_shared::signing::key::SecretKey;
use muster_shared::{DeviceId, Digest};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientCertVerifierBuilder, ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;

use crate::files;

/// The CA outlives every device; a new one means to enrol them all again.
const CA_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// A server certificate; a new one is made at half of its life.
const SERVER_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// A device's certificate; the device asks for the next at two thirds.
pub const DEVICE_LIFE: Duration = Duration::from_secs(14 * 86_400);
/// Certificates begin in the past by this, or by half of a shorter life: other clocks are not ours.
const CLOCK_SKEW: Duration = Duration::from_secs(86_400);
/// A key file is far shorter.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What is wrong with the plane's keys.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key file cannot be read or written.
    #[error("cannot keep keys in {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key file holds something else.
    #[error("{path} holds no usable key: {why}")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// There is no randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// TLS refuses what was made.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// The certificate authority.
pub struct Authority {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    device_life: Duration,
}

impl Authority {
    /// The same authority, with another life of the devices' certificates than [`DEVICE_LIFE`].
    pub fn with_device_life(self, device_life: Duration) -> Self {
        Self { device_life, ..self }
    }

    /// Reads the authority from a file, or makes it.
    pub fn open(path: &Path) -> Result<Self, CaError> {
        let file = |source| CaError::File { path: path.to_owned(), source };
        match files::read_text(path, KEY_FILE_BYTES_MAX).map_err(file)? {
            Some(pem) => Self::from_pem(&pem).map_err(|why| CaError::Unusable { path: path.to_owned(), why }),
            None => {
                let (certificate, key) = make_authority()?;
                // One file, so that there is never one without the other.
                let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
                files::write_private(path, pem.as_bytes()).map_err(file)?;
                Self::from_pem(&pem).map_err(|why| CaError::Unusable { path: path.to_owned(), why })
            }
        }
    }

    fn from_pem(pem: &str) -> Result<Self, String> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let key = KeyPair::try_from(&key).map_err(|error| error.to_string())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| error.to_string())?;
        let begin = pem.find("-----BEGIN CERTIFICATE-----").ok_or("no certificate")?;
        const END: &str = "-----END CERTIFICATE-----";
        let end = pem[begin..].find(END).ok_or("no certificate")? + begin + END.len();
        let certificate_pem = format!("{}\n", &pem[begin..end]);
        Ok(Self { certificate, certificate_pem, issuer, device_life: DEVICE_LIFE })
    }

    /// What clients pin: SHA-256 of the certificate in DER.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A client certificate for a device and its key, PEM.
    pub fn device_certificate(&self, device: &DeviceId, key: &DevicePublicKey) -> Result<String, CaError> {
        let mut params = leaf(device.as_str(), self.device_life, ExtendedKeyUsagePurpose::ClientAuth)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = SubjectPublicKeyInfo::from_der(key.spki()).map_err(CaError::Certificate)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Certificate)?;
        Ok(certificate.pem())
    }

    /// A fresh key and certificate for this server. The chain ends with the authority itself: clients
    /// hold only its digest.
    fn server_certificate(&self, names: &[String]) -> Result<CertifiedKey, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Certificate)?;
        let mut params = leaf("muster control plane", SERVER_LIFE, ExtendedKeyUsagePurpose::ServerAuth)?;
        for name in names {
            let san = match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(CaError::Certificate)?),
            };
            params.subject_alt_names.push(san);
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(CaError::Certificate)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|why| CaError::Tls(rustls::Error::General(why.to_owned())))?;
        CertifiedKey::from_der(chain, key, &muster_tls::provider()).map_err(CaError::Tls)
    }
}

fn make_authority() -> Result<(rcgen::Certificate, KeyPair), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Certificate)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Muster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial()?);
    set_life(&mut params, CA_LIFE);
    let certificate = params.self_signed(&key).map_err(CaError::Certificate)?;
    Ok((certificate, key))
}

fn leaf(name: &str, life: Duration, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    set_life(&mut params, life);
    Ok(params)
}

fn set_life(params: &mut CertificateParams, life: Duration) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CLOCK_SKEW.min(life / 2);
    params.not_after = now + life;
}

/// Random, so that two certificates of one key are two; positive, as X.509 asks.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| CaError::Random)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

/// The server's certificate, made anew before it ends: a plane may run for years.
pub struct ServerCertificate {
    authority: Arc<Authority>,
    names: Vec<String>,
    current: Mutex<(Arc<CertifiedKey>, OffsetDateTime)>,
}

impl ServerCertificate {
    /// A certificate for this machine's loopback names and `names`.
    pub fn new(authority: Arc<Authority>, names: &[String]) -> Result<Self, CaError> {
        let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut all: Vec<String> = own.to_vec();
        all.extend(names.iter().filter(|name| !own.contains(name)).cloned());
        let current = authority.server_certificate(&all)?;
        Ok(Self { authority, names: all, current: Mutex::new((Arc::new(current), OffsetDateTime::now_utc())) })
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerCertificate({:?})", self.names)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = OffsetDateTime::now_utc();
        if now > current.1 + SERVER_LIFE / 2 {
            match self.authority.server_certificate(&self.names) {
                Ok(fresh) => *current = (Arc::new(fresh), now),
                Err(error) => tracing::error!(%error, "cannot renew the server certificate"),
            }
        }
        Some(current.0.clone())
    }
}

/// TLS for the API and the gateway: anyone may connect.
pub fn api_tls(certificate: Arc<ServerCertificate>) -> Result<ServerConfig, CaError> {
    let mut config = ServerConfig::builder_with_provider(muster_tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(CaError::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS for the listener for devices: who shows a certificate of this authority is known by it, and who has
/// none yet enrols.
pub fn devices_tls(authority: &Authority, certificate: Arc<ServerCertificate>) -> Result<ServerConfig, CaError> {
    let verifier = device_verifier(authority)?.allow_unauthenticated();
    let mut config = client_tls(verifier, certificate)?;
    // A WebSocket begins as HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS for the broker: only who shows a certificate of this authority gets in.
pub fn broker_tls(authority: &Authority, certificate: Arc<ServerCertificate>) -> Result<ServerConfig, CaError> {
    client_tls(device_verifier(authority)?, certificate)
}

fn device_verifier(authority: &Authority) -> Result<ClientCertVerifierBuilder, CaError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).map_err(CaError::Tls)?;
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), muster_tls::provider()))
}

fn client_tls(
    verifier: ClientCertVerifierBuilder,
    certificate: Arc<ServerCertificate>,
) -> Result<ServerConfig, CaError> {
    let verifier = verifier.build().map_err(|error| CaError::Tls(rustls::Error::General(error.to_string())))?;
    let config = ServerConfig::builder_with_provider(muster_tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(CaError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    Ok(config)
}

/// Reads the director key from a file, or makes it.
pub fn open_director(path: &Path) -> Result<SecretKey, CaError> {
    let file = |source| CaError::File { path: path.to_owned(), source };
    let unusable = |why: String| CaError::Unusable { path: path.to_owned(), why };
    if let Some(pem) = files::read_text(path, KEY_FILE_BYTES_MAX).map_err(file)? {
        return SecretKey::from_pem(&pem).map_err(|error| unusable(error.to_string()));
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| CaError::Random)?;
    let key = SecretKey::from_seed(seed);
    let pem = key.to_pem().map_err(|error| unusable(error.to_string()))?;
    files::write_private(path, pem.as_bytes()).map_err(file)?;
    Ok(key)
}

#[cfg(test)]
pub(crate) mod tests {
    use x509_parser::prelude::FromDer;

    use super::*;

    /// A device's key and its public half.
    pub(crate) fn device_key() -> (KeyPair, DevicePublicKey) {
        use rcgen::PublicKeyData;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let public = DevicePublicKey::from_spki(&pair.subject_public_key_info()).expect("P-256");
        (pair, public)
    }

    #[test]
    fn an_authority_and_a_director_are_the_same_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let (first, again) = (Authority::open(&path).expect("made"), Authority::open(&path).expect("read"));
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert!(!first.certificate_pem().contains("PRIVATE"));
        let path = folder.path().join("director.pem");
        let (first, again) = (open_director(&path).expect("made"), open_director(&path).expect("read"));
        assert_eq!(first.public(), again.public());
        std::fs::write(&path, "no key").expect("a file");
        assert!(matches!(open_director(&path), Err(CaError::Unusable { .. })));
    }

    #[test]
    fn a_device_certificate_is_of_its_name_and_key_and_for_clients_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(&folder.path().join("ca.pem")).expect("made");
        let (_, key) = device_key();
        let pem = authority.device_certificate(&"edge-1".parse().expect("an id"), &key).expect("made");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der).expect("DER");
        let names: Vec<_> = certificate.subject().iter_common_name().map(|name| name.as_str()).collect();
        assert_eq!(names, [Ok("edge-1")]);
        assert_eq!(Digest::of(certificate.public_key().raw), key.fingerprint());
        let usage = certificate.extended_key_usage().expect("parses").expect("there").value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert!(!certificate.is_ca());
        let days = |certificate: &x509_parser::certificate::X509Certificate<'_>| {
            let validity = certificate.validity();
            (validity.not_after.timestamp() - validity.not_before.timestamp()) as f64 / 86_400.0
        };
        assert_eq!(days(&certificate), 15.0);

        // A shorter life keeps its proportions: two thirds of it lie in the future.
        let authority = authority.with_device_life(Duration::from_secs(43_200));
        let pem = authority.device_certificate(&"edge-1".parse().expect("an id"), &key).expect("made");
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der).expect("DER");
        assert_eq!(days(&certificate), 0.75);
    }

    #[test]
    fn a_client_that_pins_the_authority_accepts_the_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Arc::new(Authority::open(&folder.path().join("ca.pem")).expect("made"));
        let names = ["plane.example.org".to_owned(), "10.0.0.7".to_owned()];
        let certificate = Arc::new(ServerCertificate::new(authority.clone(), &names).expect("made"));
        let server = Arc::new(api_tls(certificate.clone()).expect("TLS"));
        assert!(broker_tls(&authority, certificate).is_ok());
        for (pin, name, good) in [
            (authority.fingerprint(), "localhost", true),
            (authority.fingerprint(), "127.0.0.1", true),
            (authority.fingerprint(), "plane.example.org", true),
            (authority.fingerprint(), "10.0.0.7", true),
            (authority.fingerprint(), "elsewhere.example.org", false),
            (Digest::of("another"), "localhost", false),
        ] {
            assert_eq!(handshake(pin, name, &server), good, "{name}");
        }
    }

    fn handshake(pin: Digest, name: &str, server: &Arc<ServerConfig>) -> bool {
        let client = muster_tls::client(pin, None).expect("a client");
        let name = name.to_owned().try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).expect("a client");
        let mut server = rustls::ServerConnection::new(server.clone()).expect("a server");
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("writes");
            let fed = server.read_tls(&mut bytes.as_slice()).map(|_| server.process_new_packets().is_ok());
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).expect("writes");
            let _ = client.read_tls(&mut bytes.as_slice());
            if client.process_new_packets().is_err() || fed.is_ok_and(|good| !good) {
                return false;
            }
        }
        true
    }
}
