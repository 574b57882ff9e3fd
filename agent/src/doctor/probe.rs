//! Connects to one place as the agent would, by the same pieces ([`crate::network`]), and says how far it came.
//! Nothing that is heard is believed, and nothing is written: not even the address that was good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_shared::Digest;
use muster_shared::id::UnixMs;
use muster_tls::{ClientIdentity, TimeKnown};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::heard::{date_of, page_of};
use crate::network::dial::dial;
use crate::network::fault::{Cause, Fault};
use crate::network::proxy::Proxy;
use crate::network::resolve::Resolver;
use crate::network::target::Target;

/// How long TLS may take.
const TLS_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take, of a control plane or of a login page.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a server is waited for that may say no to the certificate it was shown.
const REFUSAL_TIME: Duration = Duration::from_millis(1500);
/// An answer's head.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What to try.
pub struct Attempt<'a> {
    /// Where to.
    pub target: &'a Target,
    /// Through this proxy.
    pub proxy: Option<&'a Proxy>,
    /// The digest of the CA that must be shown.
    pub ca: Digest,
    /// The CAs of the owner's proxy, where it may end TLS on this way.
    pub proxy_ca: Option<Arc<RootCertStore>>,
    /// By which time it is judged.
    pub known: TimeKnown,
    /// What to do there.
    pub then: Then,
}

/// What to do on a connection that stands.
pub enum Then {
    /// Ask for the time, as an HTTP server has it.
    AskTheTime,
    /// Show who this device is, and hear whether it is taken.
    Show(Option<ClientIdentity>),
}

/// How far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Where to.
    pub target: Target,
    /// Whether it was through a proxy.
    pub by_proxy: bool,
    /// The addresses of the next hop.
    pub addresses: Vec<SocketAddr>,
    /// Why the resolver gave none; the last good one was tried then.
    pub unresolved: Option<String>,
    /// Where it ended.
    pub reached: Result<Reached, Fault>,
    /// What answered in the control plane's place, as a browser would see it.
    pub page: Option<String>,
}

/// A place that was reached, and showed the pinned CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The next hop.
    pub address: SocketAddr,
    /// What time it is there.
    pub server_ms: Option<UnixMs>,
}

/// Tries.
pub async fn probe(resolver: &Resolver, attempt: Attempt<'_>) -> Probed {
    let next = attempt.proxy.map_or(attempt.target, |proxy| &proxy.at);
    let mut probed = Probed {
        target: attempt.target.clone(),
        by_proxy: attempt.proxy.is_some(),
        addresses: vec![],
        unresolved: None,
        reached: Err(Fault::new(Cause::Dns, "not tried")),
        page: None,
    };
    match resolver.find(next).await {
        Ok(found) => {
            probed.addresses = found.addresses;
            probed.unresolved = found.unresolved;
        }
        Err(fault) => {
            probed.unresolved = Some(fault.text.clone());
            probed.reached = Err(of_proxy(&attempt, fault));
            return probed;
        }
    }
    let (target, proxy) = (attempt.target.clone(), attempt.proxy.cloned());
    probed.reached = connect(attempt, &probed.addresses).await;
    if matches!(&probed.reached, Err(fault) if fault.cause == Cause::Captive) {
        probed.page = page(&target, proxy.as_ref(), &probed.addresses).await;
    }
    probed
}

/// Whatever is wrong on the way to a proxy is wrong with the proxy.
fn of_proxy(attempt: &Attempt<'_>, fault: Fault) -> Fault {
    match attempt.proxy {
        Some(proxy) => Fault::new(Cause::Proxy, fault.text).at(&format!("the proxy {proxy}")),
        None => fault,
    }
}

async fn connect(attempt: Attempt<'_>, addresses: &[SocketAddr]) -> Result<Reached, Fault> {
    let (mut tcp, address) = dial(addresses).await.map_err(|fault| of_proxy(&attempt, fault))?;
    let Attempt { target, proxy, ca, proxy_ca, known, then } = attempt;
    if let Some(proxy) = proxy {
        proxy.connect(&mut tcp, target).await?;
    }
    let (identity, asks) = match then {
        Then::AskTheTime => (None, true),
        Then::Show(identity) => (identity, false),
    };
    let made = muster_tls::device_client_behind(ca, proxy_ca, identity, known);
    let (config, ..) = made.map_err(|error| Fault::of_tls(&error))?;
    let mut stream = secure(tcp, target, config).await?;
    let server_ms = match asks {
        true => ask_the_time(&mut stream, target).await,
        false => {
            hear_a_refusal(&mut stream).await?;
            None
        }
    };
    Ok(Reached { address, server_ms })
}

async fn secure(tcp: TcpStream, target: &Target, config: ClientConfig) -> Result<TlsStream<TcpStream>, Fault> {
    let name = ServerName::try_from(target.host.clone());
    let name = name.map_err(|error| Fault::new(Cause::Dns, format!("{}: {error}", target.host)))?;
    match timeout(TLS_TIME, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await {
        Ok(secured) => secured.map_err(|error| Fault::of_io(&error)),
        Err(_) => Err(Fault::new(Cause::Timeout, format!("it says nothing within {TLS_TIME:?}"))),
    }
}

/// The time at an HTTP server; none: it does not say.
async fn ask_the_time(stream: &mut TlsStream<TcpStream>, target: &Target) -> Option<UnixMs> {
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
    let asked = async {
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = vec![];
        while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            if stream.read_buf(&mut head).await.ok()? == 0 {
                break;
            }
        }
        date_of(&head)
    };
    timeout(ANSWER_TIME, asked).await.ok().flatten()
}

/// A server looks at a certificate after the handshake looks done from here, and then says no or nothing.
async fn hear_a_refusal(stream: &mut TlsStream<TcpStream>) -> Result<(), Fault> {
    match timeout(REFUSAL_TIME, stream.read_u8()).await {
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(Fault::of_io(&error)),
        _ => Ok(()),
    }
}

/// What answers there in plain HTTP.
async fn page(target: &Target, proxy: Option<&Proxy>, addresses: &[SocketAddr]) -> Option<String> {
    let asked = async {
        let (mut tcp, _) = dial(addresses).await.ok()?;
        if let Some(proxy) = proxy {
            proxy.connect(&mut tcp, target).await.ok()?;
        }
        let request = format!("GET / HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.ok()?;
        let mut head = vec![];
        while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            if tcp.read_buf(&mut head).await.ok()? == 0 {
                break;
            }
        }
        page_of(&head)
    };
    timeout(ANSWER_TIME, asked).await.ok().flatten()
}
