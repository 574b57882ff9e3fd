//! HTTP proxies: one that passes bytes on, and one that ends TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::runtime;

/// What a proxy was asked to connect to, with the login.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// An HTTP proxy.
pub struct Proxy {
    _runtime: Runtime,
    address: SocketAddr,
    asked: Asked,
    refuses: Arc<Mutex<bool>>,
    /// The CA of one that ends TLS, PEM.
    pub ca: String,
}

impl Proxy {
    /// One that passes bytes on.
    pub fn start() -> Result<Self> {
        Self::with(None)
    }

    /// One that ends TLS, and reads what is in it.
    pub fn that_ends_tls() -> Result<Self> {
        Self::with(Some(Authority::new()?))
    }

    fn with(authority: Option<Authority>) -> Result<Self> {
        let runtime = runtime()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let ca = authority.as_ref().map_or_else(String::new, |authority| authority.pem.clone());
        let (asked, refuses) = (Asked::default(), Arc::<Mutex<bool>>::default());
        let (noted, refusing, authority) = (asked.clone(), refuses.clone(), authority.map(Arc::new));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(proxied(stream, noted.clone(), refusing.clone(), authority.clone()));
            }
        });
        Ok(Self { _runtime: runtime, address, asked, refuses, ca })
    }

    /// As agents are told it.
    pub fn url(&self, login: &str) -> String {
        format!("http://{login}{}", self.address)
    }

    /// What it was asked for.
    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Refuses from now on, or not.
    pub fn refuse(&self, refuses: bool) {
        *self.refuses.lock().expect("no panic") = refuses;
    }
}

async fn proxied(
    mut stream: TcpStream,
    asked: Asked,
    refuses: Arc<Mutex<bool>>,
    authority: Option<Arc<Authority>>,
) -> Result<()> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(head.len() < 8192 && stream.read_buf(&mut head).await? > 0, "no request");
    }
    let head = String::from_utf8(head)?;
    let target = head.split(' ').nth(1).context("a target")?.to_owned();
    let login = head.lines().find_map(|line| line.strip_prefix("proxy-authorization: Basic ")).map(str::to_owned);
    asked.lock().expect("no panic").push((target.clone(), login));
    if *refuses.lock().expect("no panic") || !head.starts_with("CONNECT ") {
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await?;
        return Ok(());
    }
    let mut other = TcpStream::connect(&target).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let Some(authority) = authority else {
        copy_bidirectional(&mut stream, &mut other).await?;
        return Ok(());
    };
    let host = target.rsplit_once(':').map_or(target.as_str(), |(host, _)| host).to_owned();
    let mut near = TlsAcceptor::from(authority.server(&host)?).accept(stream).await?;
    // It has no certificate of a device to show, and looks at nothing itself.
    let far = TlsConnector::from(Arc::new(blind()?));
    let mut far = far.connect(ServerName::try_from(host)?, other).await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// A client that takes any server for good: the proxy's own business.
fn blind() -> Result<rustls::ClientConfig> {
    #[derive(Debug)]
    struct Blind;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    impl ServerCertVerifier for Blind {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            muster_tls::provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(muster_tls::provider());
    let builder = builder.with_safe_default_protocol_versions()?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(Blind)).with_no_client_auth())
}

/// A certificate authority that is nobody's.
struct Authority {
    pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        Ok(Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) })
    }

    fn server(&self, host: &str) -> Result<Arc<rustls::ServerConfig>> {
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new([host.to_owned()])?.signed_by(&key, &self.issuer)?;
        let chain = vec![leaf.der().clone(), self.der.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let builder = rustls::ServerConfig::builder_with_provider(muster_tls::provider());
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        Ok(Arc::new(builder.with_single_cert(chain, key)?))
    }
}
