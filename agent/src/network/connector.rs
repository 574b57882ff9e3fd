//! From a name to a connection on which the right server was shown: resolve, dial, ask the proxy, TLS. Every
//! step has its deadline, and every fault says where it happened.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_shared::Digest;
use muster_tls::{ClientIdentity, TimeKnown};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::dial;
use super::fault::{Cause, Fault};
use super::proxy::Proxy;
use super::resolve::{Found, Resolver};
use super::target::Target;

/// How long TLS may take.
const TLS_TIME: Duration = Duration::from_secs(10);

/// Connects to one control plane.
#[derive(Debug, Clone)]
pub struct Connector {
    /// The digest of the CA that it must show.
    pub ca: Digest,
    /// The CAs of the owner's proxy that ends TLS.
    pub proxy_ca: Option<Arc<RootCertStore>>,
    /// Asked for names.
    pub resolver: Resolver,
}

/// A connection on which the right server was shown.
pub struct Secured {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Whether the server was judged at a time that may be wrong.
    pub unsure: bool,
    /// Whether the owner's proxy answered in the server's place.
    pub by_proxy: bool,
}

/// What a connection is for.
pub struct Ask<'a> {
    /// Where to.
    pub target: &'a Target,
    /// Through this proxy.
    pub proxy: Option<&'a Proxy>,
    /// Whether the owner's proxy that ends TLS may answer in the server's place.
    pub may_be_ended: bool,
    /// What this device shows, where it is asked to.
    pub identity: Option<ClientIdentity>,
    /// What it knows of the time.
    pub known: TimeKnown,
}

impl Connector {
    /// As `agent.toml` says; `proxy_ca` is a PEM file.
    pub fn new(ca: Digest, proxy_ca: Option<&Path>, resolver: Resolver) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let read = |path: &Path| {
            let doing = || format!("network.proxy-ca: cannot use {}", path.display());
            let roots =
                muster_tls::authorities_of_pem(&std::fs::read(path).with_context(doing)?).with_context(doing)?;
            anyhow::Ok(Arc::new(roots))
        };
        Ok(Self { ca, proxy_ca: proxy_ca.map(read).transpose()?, resolver })
    }

    /// Connects. `tell` hears the addresses that are tried.
    pub async fn connect(&self, mut ask: Ask<'_>, tell: &(dyn Fn(&[SocketAddr]) + Sync)) -> Result<Secured, Fault> {
        let next = ask.proxy.map_or(ask.target, |proxy| &proxy.at);
        let named = |fault: Fault| match ask.proxy {
            // Whatever is wrong on the way to a proxy is wrong with the proxy.
            Some(proxy) => Fault::new(Cause::Proxy, fault.text).at(&format!("the proxy {proxy}")),
            None => fault,
        };
        let Found { addresses, remembered, unresolved } = self.resolver.find(next).await.map_err(named)?;
        let all: Vec<SocketAddr> = addresses.iter().copied().chain(remembered).collect();
        tell(&all);
        let with_reason = |fault: Fault| match &unresolved {
            Some(why) => Fault::new(
                Cause::Dns,
                format!("the resolver gives no address ({why}), and the last good one fails: {}", fault.text),
            ),
            None => fault,
        };
        let (config, unsure, by_proxy) = {
            let proxy_ca = self.proxy_ca.clone().filter(|_| ask.may_be_ended);
            let made = muster_tls::device_client_behind(self.ca, proxy_ca, ask.identity.take(), ask.known);
            made.map_err(|error| Fault::of_tls(&error))?
        };
        let config = Arc::new(config);
        let first = self.one(next, &ask, &addresses, config.clone()).await;
        let stream = match (first, remembered) {
            // What the resolver says leads nowhere, or to somebody else.
            (Err(fault), Some(last)) if fault.cause.is_of_the_way() => {
                self.one(next, &ask, &[last], config).await.map_err(|_| fault)
            }
            (first, _) => first,
        };
        let stream = stream.map_err(with_reason)?;
        Ok(Secured { stream, unsure: unsure.is_set(), by_proxy: by_proxy.is_set() })
    }

    async fn one(
        &self,
        next: &Target,
        ask: &Ask<'_>,
        addresses: &[SocketAddr],
        config: Arc<rustls::ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let dialled = dial(addresses).await.map_err(|fault| match ask.proxy {
            Some(proxy) => Fault::new(Cause::Proxy, fault.text).at(&format!("the proxy {proxy}")),
            None => fault.at(&format!("cannot reach {next}")),
        });
        let (mut tcp, address) = dialled?;
        if let Some(proxy) = ask.proxy {
            proxy.connect(&mut tcp, ask.target).await?;
        }
        let name = ServerName::try_from(ask.target.host.clone());
        let name = name.map_err(|error| Fault::new(Cause::Dns, format!("{}: {error}", ask.target.host)))?;
        let secured = timeout(TLS_TIME, TlsConnector::from(config).connect(name, tcp)).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no TLS within {TLS_TIME:?}"));
        let stream = secured.unwrap_or_else(|_| Err(late()));
        let stream = stream.map_err(|error| Fault::of_io(&error).at(&ask.target.to_string()))?;
        self.resolver.proven(next, address);
        Ok(stream)
    }
}
