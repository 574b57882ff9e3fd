//! A tunnel: the bytes of one device between a WebSocket and the broker. It knows whose they are and nothing
//! of what they say; the broker admits, bounds and cuts the device as it does any other.
//!
//! Bounds: so many tunnels, messages of [`MESSAGE_BYTES_MAX`], and no write may wait long for a peer that does
//! not read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_shared::Nonce;
use muster_shared::checks::{self, Check};
use muster_shared::signing::payload_type;
use muster_shared::tunnel::{MESSAGE_BYTES_MAX, SignedTunnelProof, TunnelChallenge, TunnelProof};
use muster_shared::wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::broker::{Access as _, Carried, CarryError, Proven};
use crate::plane::Plane;

/// Tunnels at a time; a newcomer gives way. Each takes five file descriptors.
const TUNNELS_MAX: usize = 8192;
/// Devices that have yet to prove their key. Anybody can be one, so they take no room from the others.
const UNPROVEN_MAX: usize = 256;
/// How long a proof may take.
const PROOF_TIME: Duration = Duration::from_secs(10);
/// How long a peer that does not read is waited for.
const WRITE_TIME: Duration = Duration::from_secs(20);

/// How long a device has to take what the broker said last.
const LAST_WORDS_TIME: Duration = Duration::from_millis(500);

/// Room for tunnels.
pub struct Tunnels {
    open: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { open: Arc::new(Semaphore::new(TUNNELS_MAX)), unproven: Arc::new(Semaphore::new(UNPROVEN_MAX)) }
    }
}

impl Tunnels {
    /// Room for a device that showed its certificate.
    pub fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.open.clone().try_acquire_owned().ok()
    }

    /// Room for one that has yet to prove its key.
    pub fn room_unproven(&self) -> Option<OwnedSemaphorePermit> {
        self.unproven.clone().try_acquire_owned().ok()
    }
}

/// Why a tunnel ended before it carried anything, or because of what its device did.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// No answer to the challenge.
    #[error("the device did not prove its key within {PROOF_TIME:?}")]
    NoProof,
    /// A wrong answer.
    #[error("the device's proof is not good: {0}")]
    BadProof(&'static str),
    /// A proven key that is not let in.
    #[error("the device {0} is not let in: it is revoked, held or not enrolled here")]
    NotLetIn(String),
    /// No more room.
    #[error("all {TUNNELS_MAX} tunnels are taken")]
    Full,
    /// There is no broker yet.
    #[error("the broker does not run")]
    NoBroker,
    /// The broker does not take it.
    #[error("the broker takes no more connections")]
    Carry(#[source] CarryError),
    /// It sent text.
    #[error("the device sent text where bytes are expected")]
    Text,
    /// It does not read.
    #[error("the device did not read for {WRITE_TIME:?}")]
    Slow,
    /// The WebSocket broke.
    #[error("the WebSocket failed")]
    Broken(#[source] axum::Error),
}

/// Carries the bytes of a device that showed its certificate, until either side ends.
pub async fn serve(plane: &Plane, socket: WebSocket, who: Proven, from: SocketAddr) -> Result<(), TunnelError> {
    let broker = plane.broker.get().ok_or(TunnelError::NoBroker)?;
    let device = who.name.clone();
    let carried = broker.carry(who, from).await.map_err(TunnelError::Carry)?;
    tracing::debug!(device, %from, "a tunnel is open");
    let ended = pump(socket, carried).await;
    tracing::debug!(device, %from, "a tunnel is closed");
    ended
}

/// The same for one that has to prove its key first.
pub async fn serve_proven(
    plane: &Plane,
    mut socket: WebSocket,
    from: SocketAddr,
    unproven: OwnedSemaphorePermit,
) -> Result<(), TunnelError> {
    let who = timeout(PROOF_TIME, prove(plane, &mut socket)).await.map_err(|_| TunnelError::NoProof)??;
    drop(unproven);
    let _room = plane.tunnels.room().ok_or(TunnelError::Full)?;
    if !is_let_in(plane, &who) {
        return Err(TunnelError::NotLetIn(who.name));
    }
    serve(plane, socket, who, from).await
}

/// Whether the broker would let the device in. It asks again; here the refusal still has words.
pub fn is_let_in(plane: &Plane, who: &Proven) -> bool {
    let fingerprint = muster_shared::Digest::of(&who.spki).0;
    let admitted = plane.live.admit(&who.name, fingerprint);
    if !admitted {
        plane.live.turned_away(&who.name, &who.spki);
    }
    admitted
}

async fn prove(plane: &Plane, socket: &mut WebSocket) -> Result<Proven, TunnelError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|_| TunnelError::BadProof("the system gives no random bytes"))?;
    let challenge = TunnelChallenge { nonce: Nonce(nonce) };
    let bytes = wire::encode(&challenge).map_err(|_| TunnelError::BadProof("the challenge cannot be written"))?;
    socket.send(Message::Binary(bytes.into())).await.map_err(TunnelError::Broken)?;
    loop {
        match socket.recv().await {
            Some(Ok(Message::Binary(bytes))) => return proven(plane, challenge, &bytes).map_err(TunnelError::BadProof),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_))) => return Err(TunnelError::Text),
            Some(Err(error)) => return Err(TunnelError::Broken(error)),
            Some(Ok(Message::Close(_))) | None => return Err(TunnelError::NoProof),
        }
    }
}

/// Whose proof it is, if it answers this challenge.
pub fn proven(plane: &Plane, challenge: TunnelChallenge, bytes: &[u8]) -> Result<Proven, &'static str> {
    let malformed = |_| "it is malformed";
    let SignedTunnelProof(envelope) = wire::decode(bytes).map_err(malformed)?;
    // Who it says it is decides only whose key must have signed.
    let claimed: TunnelProof = wire::decode(&envelope.payload).map_err(malformed)?;
    let live = plane.live.get(&claimed.device).ok_or("nobody has this name")?;
    let verified = envelope.verify_device(payload_type::TUNNEL_PROOF, &live.key);
    let payload = match verified {
        Ok(payload) => payload,
        Err(_) if checks::on(Check::DeviceSignature) => return Err("it is not signed by the device's enrolled key"),
        Err(_) => &envelope.payload,
    };
    let proof: TunnelProof = wire::decode(payload).map_err(malformed)?;
    if proof.nonce != challenge.nonce {
        return Err("it answers another challenge");
    }
    if proof.ca != plane.authority.fingerprint() {
        return Err("it is meant for another control plane");
    }
    Ok(Proven { name: proof.device.to_string(), spki: live.key.spki().to_vec() })
}

async fn pump(socket: WebSocket, Carried { pipe, cut }: Carried) -> Result<(), TunnelError> {
    let (mut to_device, mut from_device) = socket.split();
    let (mut from_broker, mut to_broker) = pipe.into_split();
    let mut down = std::pin::pin!(down(&mut from_broker, &mut to_device));
    let left = tokio::select! {
        () = cut.cancelled() => Left::Broker,
        left = up(&mut from_device, &mut to_broker) => left?,
        ended = &mut down => return ended,
    };
    match left {
        Left::Device => Ok(()),
        // What the broker said before it left still gets there, as it does on a socket: it may say why.
        Left::Broker => timeout(LAST_WORDS_TIME, down).await.unwrap_or(Ok(())),
    }
}

/// Who ended a tunnel.
enum Left {
    Device,
    Broker,
}

/// From the device to the broker. A broker that does not read holds up the device, as it does without a tunnel.
async fn up(
    from: &mut (impl futures_util::Stream<Item = Result<Message, axum::Error>> + Unpin),
    to: &mut OwnedWriteHalf,
) -> Result<Left, TunnelError> {
    while let Some(message) = from.next().await {
        let bytes = match message.map_err(TunnelError::Broken)? {
            Message::Binary(bytes) => bytes,
            Message::Text(_) => return Err(TunnelError::Text),
            Message::Close(_) => return Ok(Left::Device),
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        if to.write_all(&bytes).await.is_err() {
            return Ok(Left::Broker);
        }
    }
    Ok(Left::Device)
}

async fn down(
    from: &mut OwnedReadHalf,
    to: &mut (impl futures_util::Sink<Message, Error = axum::Error> + Unpin),
) -> Result<(), TunnelError> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX / 2];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        if length == 0 {
            // A goodbye; whoever does not take it is gone.
            let _ = timeout(WRITE_TIME, to.send(Message::Close(None))).await;
            return Ok(());
        }
        let message = Message::Binary(Bytes::copy_from_slice(&buffer[..length]));
        match timeout(WRITE_TIME, to.send(message)).await {
            Ok(sent) => sent.map_err(TunnelError::Broken)?,
            Err(_) => return Err(TunnelError::Slow),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::{DeviceId, Digest};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::stories::config;
    use crate::testing::device::Device;

    #[tokio::test]
    async fn a_proof_opens_one_tunnel_of_one_plane_for_one_enrolled_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let running = crate::start(config(folder.path()), CancellationToken::new()).await.expect("a plane");
        let plane = running.plane();
        let root = crate::trust::roles::tests::signed_root(1, 1, plane.director.public());
        plane.trust.add(&plane.db, &root).await.expect("a root");
        let (one, other) = (Device::enrol(&running, "edge-1").await, Device::enrol(&running, "edge-2").await);
        let challenge = TunnelChallenge { nonce: Nonce([6; 16]) };
        let ours = plane.authority.fingerprint();
        let proof = |device: &str, nonce, ca| {
            let device: DeviceId = device.parse().expect("a name");
            wire::encode(&TunnelProof { device, nonce: Nonce([nonce; 16]), ca }).expect("a proof")
        };
        let check = |signer: &Device, payload_type, payload| {
            let sent = wire::encode(&SignedTunnelProof(signer.sign(payload_type, payload))).expect("a message");
            proven(plane, challenge, &sent).map(|who| who.name)
        };
        let good = payload_type::TUNNEL_PROOF;
        assert_eq!(check(&one, good, proof("edge-1", 6, ours)), Ok("edge-1".to_owned()));
        for (why, refused) in [
            ("another challenge", check(&one, good, proof("edge-1", 7, ours))),
            ("another control plane", check(&one, good, proof("edge-1", 6, Digest::of("theirs")))),
            ("enrolled key", check(&other, good, proof("edge-1", 6, ours))),
            ("nobody", check(&one, good, proof("edge-3", 6, ours))),
            // What it signs for another purpose opens nothing.
            ("enrolled key", check(&one, payload_type::RENEWAL, proof("edge-1", 6, ours))),
            ("malformed", check(&one, good, b"no proof".to_vec())),
        ] {
            assert!(refused.clone().is_err_and(|told| told.contains(why)), "{why}: {refused:?}");
        }
        assert_eq!(proven(plane, challenge, b"").err(), Some("it is malformed"));
    }
}
