//! Connections that do not come by the listener: whoever carries their bytes has seen the proof of the
//! device's key. From there on they are connections like all others: the same admission, the same topics, the
//! same cut.
//!
//! `mqtt5` reads sockets and nothing else, so the bytes go through a pair of them on loopback.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mqtt5::broker::transport::BrokerTransport;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::session::{self, Peer};
use super::{EmbeddedBroker, SESSIONS_MAX};

/// Connections of other processes that may come in between; then the pair is given up.
const STRANGERS_MAX: usize = 64;

/// Whose bytes are carried: it has proven that it holds the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The device's name.
    pub name: String,
    /// Its key, as SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
}

/// The other end of a carried connection.
#[derive(Debug)]
pub struct Carried {
    /// The device's bytes go in here, the broker's come out.
    pub pipe: TcpStream,
    /// Cancelled when the broker ends the session: whatever comes from the device is dropped from then on.
    pub cut: CancellationToken,
}

/// Why a connection cannot be carried.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// No more room.
    #[error("all {SESSIONS_MAX} sessions are taken")]
    Full,
    /// No pair of sockets.
    #[error("cannot open a pair of sockets on loopback")]
    Pair(#[source] io::Error),
}

impl EmbeddedBroker {
    /// Takes up a device's connection that came from `from` by another way than the listener.
    pub async fn carry(&self, who: Proven, from: SocketAddr) -> Result<Carried, CarryError> {
        let room = Arc::clone(&self.hub.room).try_acquire_owned().map_err(|_| CarryError::Full)?;
        let (pipe, brokers) = pair().await.map_err(CarryError::Pair)?;
        let socket = session::second_handle(&brokers).map_err(CarryError::Pair)?;
        let cut = self.hub.stop.child_token();
        let fingerprint = Sha256::digest(&who.spki).into();
        let peer = Peer { name: who.name, fingerprint, spki: who.spki, socket, cut: cut.clone() };
        let hub = Arc::clone(&self.hub);
        self.hub.tasks.spawn(async move {
            session::run(hub, peer, BrokerTransport::tcp(brokers), from).await;
            drop(room);
        });
        Ok(Carried { pipe, cut })
    }
}

/// Two ends of one connection. Another process may be quicker to connect: only our own end is taken.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await?,
    };
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    ours.set_nodelay(true)?;
    let own = ours.local_addr()?;
    for _ in 0..STRANGERS_MAX {
        let (theirs, from) = listener.accept().await?;
        if from == own {
            theirs.set_nodelay(true)?;
            return Ok((ours, theirs));
        }
    }
    Err(io::Error::other("other processes connect to every port that is opened"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pair_is_two_ends_of_one_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut one, mut other) = pair().await.expect("a pair");
        one.write_all(b"there").await.expect("writes");
        other.write_all(b"back").await.expect("writes");
        let (mut there, mut back) = ([0; 5], [0; 4]);
        other.read_exact(&mut there).await.expect("reads");
        one.read_exact(&mut back).await.expect("reads");
        assert_eq!((&there, &back), (b"there", b"back"));
    }
}
