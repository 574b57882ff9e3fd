//! The listener: from a TCP connection to a peer with a certificate.
//!
//! Every connection has its own task and little time, so a peer that stalls or sends garbage is
//! nobody else's trouble. A flood of connections from one address is the firewall's to stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

use super::session::{self, Peer};
use super::{Hub, SESSIONS_MAX};

/// Connections that have not finished their TLS handshake; a newcomer gives way.
const HANDSHAKES_MAX: usize = 4096;

/// Enough for a slow link far away.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Pause after a failed accept: most often file descriptors ran out, and some will come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why a connection never became a session.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the TLS handshake took longer than {HANDSHAKE_TIME:?}")]
    Stalled,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the certificate names no device: {0}")]
    Nameless(&'static str),
    #[error("cannot keep a handle of the socket")]
    Socket(#[source] io::Error),
    #[error("all {SESSIONS_MAX} sessions are taken")]
    Full,
}

/// Accepts devices until the broker stops.
pub(super) async fn accept_devices(listener: TcpListener, tls: Arc<rustls::ServerConfig>, hub: Arc<Hub>) {
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            () = hub.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&handshakes).try_acquire_owned()) {
            (Ok((tcp, address)), Ok(handshake)) => {
                let cut = hub.stop.child_token();
                let (acceptor, sessions) = (acceptor.clone(), Arc::clone(&hub.room));
                let task_hub = Arc::clone(&hub);
                hub.tasks.spawn(async move {
                    let greeted = tokio::select! {
                        () = task_hub.stop.cancelled() => return,
                        greeted = greet(tcp, acceptor, sessions, cut) => greeted,
                    };
                    drop(handshake);
                    match greeted {
                        Ok((peer, tls, _session)) => {
                            let transport = BrokerTransport::tls(TlsStreamWrapper::new(tls));
                            session::run(task_hub, peer, transport, address).await;
                        }
                        Err(refusal) => {
                            let cause = std::error::Error::source(&refusal).map(ToString::to_string);
                            tracing::debug!(%address, %refusal, cause, "connection refused");
                        }
                    }
                });
            }
            (Ok((_, address)), Err(_)) => {
                tracing::warn!(%address, max = HANDSHAKES_MAX, "too many TLS handshakes at a time");
            }
            (Err(error), _) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = hub.stop.cancelled() => return,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

/// Does the TLS handshake and reads who it is.
async fn greet(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    sessions: Arc<Semaphore>,
    cut: CancellationToken,
) -> Result<(Peer, TlsStream<TcpStream>, OwnedSemaphorePermit), Refusal> {
    tcp.set_nodelay(true).map_err(Refusal::Socket)?;
    let socket = session::second_handle(&tcp).map_err(Refusal::Socket)?;
    let tls =
        timeout(HANDSHAKE_TIME, acceptor.accept(tcp)).await.map_err(|_| Refusal::Stalled)?.map_err(Refusal::Tls)?;
    let certificate = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or(Refusal::Nameless("there is none"))?;
    let (name, spki) = identity(certificate).map_err(Refusal::Nameless)?;
    let session = sessions.try_acquire_owned().map_err(|_| Refusal::Full)?;
    Ok((Peer { name, fingerprint: Sha256::digest(&spki).into(), spki, socket, cut }, tls, session))
}

/// The common name in a certificate, and its key as SubjectPublicKeyInfo.
pub fn identity(certificate: &[u8]) -> Result<(String, Vec<u8>), &'static str> {
    let (_, certificate) = parse_x509_certificate(certificate).map_err(|_| "it is malformed")?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().ok_or("it has no common name")?;
    if names.next().is_some() {
        return Err("it has several common names");
    }
    let name = name.as_str().map_err(|_| "its common name is no text")?;
    Ok((name.to_owned(), certificate.public_key().raw.to_vec()))
}
