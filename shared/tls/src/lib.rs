//! TLS against one pinned certificate authority. The CLI pins it at login, a device by its claim;
//! both hold only the digest of the CA's certificate, so the server must send that certificate in
//! its chain.
//!
//! A device may not know the time by which a certificate is to be judged: [`device_client`] and [`judge`].
//!
//! The crypto provider is chosen here and nowhere else: *ring*, for every process of Muster.

mod time;

use std::sync::Arc;

use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

pub use time::{ByProxy, Judged, TimeKnown, Unsure, Validity, device_client, device_client_behind, judge};

/// The one crypto provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes [`provider`] the process's default, for libraries that ask for one. Call first in `main`;
/// calling it again changes nothing.
pub fn install_provider() {
    // Fails only where a default is installed already, and only this function installs one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client certificate (leaf first) and its key.
pub struct ClientIdentity {
    /// The chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

/// A client that trusts only servers whose chain ends in the CA with the digest `ca`.
pub fn client(ca: Digest, identity: Option<ClientIdentity>) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedCa { ca, provider: provider.clone() });
    client_with(provider, verifier, identity)
}

fn client_with(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<ClientIdentity>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// A client that trusts the CAs of a PEM text, as ordinary programs do: for servers that are not Muster's.
pub fn client_of_pem(pem: &[u8]) -> Result<ClientConfig, Error> {
    let roots = authorities_of_pem(pem)?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The CAs of a PEM text, at least one.
pub fn authorities_of_pem(pem: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| Error::General(format!("no PEM: {error}")))?)?;
    }
    if roots.is_empty() {
        return Err(Error::General("no certificate in it".to_owned()));
    }
    Ok(roots)
}

/// Ordinary verification (names, validity, signatures by webpki) with one trust anchor: the
/// certificate in the presented chain whose digest is pinned.
#[derive(Debug)]
struct PinnedCa {
    ca: Digest,
    provider: Arc<CryptoProvider>,
}

impl PinnedCa {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned =
            |certificate: &&CertificateDer<'_>| !checks::on(Check::PinnedCa) || Digest::of(certificate) == self.ca;
        let anchor = intermediates.iter().find(is_pinned);
        let anchor = anchor.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(anchor.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    pub(crate) struct Authority {
        pub(crate) certificate: CertificateDer<'static>,
        pub(crate) issuer: Issuer<'static, KeyPair>,
    }

    pub(crate) fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    fn leaf(authority: &Authority, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("params");
        params.signed_by(&key, &authority.issuer).expect("a certificate").der().clone()
    }

    #[test]
    fn a_pem_file_without_a_certificate_is_told() {
        let pem = KeyPair::generate().expect("a key").serialize_pem();
        assert!(client_of_pem(pem.as_bytes()).is_err() && client_of_pem(b"").is_err());
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
        assert!(client_of_pem(certificate.pem().as_bytes()).is_ok());
    }

    #[test]
    fn only_the_pinned_authority_vouches_and_only_for_its_names() {
        let (ours, theirs) = (authority(), authority());
        let verifier = PinnedCa { ca: Digest::of(&ours.certificate), provider: provider() };
        let check = |leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], name: &str| {
            let name = ServerName::try_from(name.to_owned()).expect("a name");
            verifier.verify_server_cert(leaf, chain, &name, &[], UnixTime::now()).is_ok()
        };
        let good = leaf(&ours, "localhost");
        assert!(check(&good, std::slice::from_ref(&ours.certificate), "localhost"));
        assert!(!check(&good, std::slice::from_ref(&ours.certificate), "elsewhere"));
        assert!(!check(&good, &[], "localhost"));
        assert!(!check(&good, std::slice::from_ref(&theirs.certificate), "localhost"));
        // Our CA shown beside a certificate that it did not sign.
        let forged = leaf(&theirs, "localhost");
        assert!(!check(&forged, &[ours.certificate.clone(), theirs.certificate.clone()], "localhost"));
    }
}
