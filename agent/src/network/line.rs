//! A line to the broker: opened on one of the ways, it carries MQTT's bytes between the local end and the
//! control plane.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use muster_shared::signing::payload_type;
use muster_shared::tunnel::{SignedTunnelProof, TunnelChallenge, TunnelProof};
use muster_shared::{DeviceId, Digest, wire};
use tokio::io::{AsyncWriteExt as _, copy, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::ProxySetting;
use super::connector::{Ask, Connector, Secured};
use super::fault::{Cause, Fault};
use super::local::LocalEnd;
use super::route::Way;
use super::target::Target;
use super::tunnel::{self, Tunnel};
use crate::identity::DeviceKey;
use crate::outside::Timekeeper;
use crate::status::Via;

/// After a write failed, how long the other side's last word is waited for: it may say why.
const LAST_WORD_TIME: Duration = Duration::from_millis(500);

/// Opens lines.
pub struct Lines {
    /// The device.
    pub device: DeviceId,
    /// The broker.
    pub broker: Target,
    /// The listener for devices, if the control plane named one; a renewal may bring another.
    pub tunnel: Mutex<Option<Target>>,
    /// Connects.
    pub connector: Connector,
    /// For the tunnel.
    pub proxy: ProxySetting,
    /// Signs where a proxy ends TLS, and makes the TLS side of others.
    pub key: Arc<DeviceKey>,
    /// Where the certificate and the local end lie.
    pub data: std::path::PathBuf,
    /// What certificates are judged by.
    pub time: Timekeeper,
}

/// A line that is open.
pub struct Line {
    carrier: Carrier,
    /// Which way it goes.
    pub via: Via,
    /// Whether the server was judged at a time that may be wrong.
    pub unsure: bool,
}

enum Carrier {
    Tls(Box<TlsStream<TcpStream>>),
    Tunnel(Box<Tunnel<TlsStream<TcpStream>>>),
}

impl Lines {
    /// The tunnel's address, if there is one.
    pub fn tunnel(&self) -> Option<Target> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The control plane named another.
    pub fn set_tunnel(&self, target: Target) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(target);
    }

    /// Where a way leads, and how it is called.
    pub fn leads(&self, way: Way) -> (Via, String) {
        match (way, self.tunnel()) {
            (Way::Tunnel, Some(target)) => {
                let proxied = !matches!(self.proxy.for_target(&target), Ok(None));
                (if proxied { Via::Proxy } else { Via::Tunnel }, target.to_string())
            }
            (Way::Tunnel, None) => (Via::Tunnel, String::new()),
            (Way::Direct, _) => (Via::Mqtt, self.broker.to_string()),
        }
    }

    /// Opens a line. `tell` hears the addresses that are tried.
    pub async fn open(&self, way: Way, tell: &(dyn Fn(&[SocketAddr]) + Sync)) -> Result<Line, Fault> {
        match way {
            Way::Direct => {
                let Secured { stream, unsure, .. } = self.connect(&self.broker, None, false, tell).await?;
                Ok(Line { carrier: Carrier::Tls(Box::new(stream)), via: Via::Mqtt, unsure })
            }
            Way::Tunnel => {
                let none = "the control plane named no tunnel; start it with --devices, and this device learns it with \
                            its next certificate";
                let target = self.tunnel().ok_or_else(|| Fault::new(Cause::Refused, none))?;
                let bad_proxy = |error: super::proxy::BadProxy| Fault::new(Cause::Proxy, error.to_string());
                let proxy = self.proxy.for_target(&target).map_err(bad_proxy)?;
                let Secured { stream, unsure, by_proxy } = self.connect(&target, proxy.as_ref(), true, tell).await?;
                let via = if proxy.is_some() || by_proxy { Via::Proxy } else { Via::Tunnel };
                let tunnel = tunnel::open(stream, by_proxy, &target, &|challenge| self.prove(challenge)).await?;
                Ok(Line { carrier: Carrier::Tunnel(Box::new(tunnel)), via, unsure })
            }
        }
    }

    async fn connect(
        &self,
        target: &Target,
        proxy: Option<&super::proxy::Proxy>,
        may_be_ended: bool,
        tell: &(dyn Fn(&[SocketAddr]) + Sync),
    ) -> Result<Secured, Fault> {
        let identity = self
            .key
            .client_identity(&self.data)
            .map_err(|error| Fault::new(Cause::Certificate, format!("{error:#}")))?;
        let ask = Ask { target, proxy, may_be_ended, identity: Some(identity), known: self.time.known() };
        self.connector.connect(ask, tell).await
    }

    /// The proof of this device's key for one challenge.
    fn prove(&self, challenge: &[u8]) -> anyhow::Result<Vec<u8>> {
        proof(challenge, &self.device, self.connector.ca, &self.key)
    }
}

/// Answers a challenge.
pub fn proof(challenge: &[u8], device: &DeviceId, ca: Digest, key: &DeviceKey) -> anyhow::Result<Vec<u8>> {
    let TunnelChallenge { nonce } = wire::decode(challenge).context("the challenge cannot be read")?;
    let proof = wire::encode(&TunnelProof { device: device.clone(), nonce, ca })?;
    Ok(wire::encode(&SignedTunnelProof(key.sign(payload_type::TUNNEL_PROOF, proof)?))?)
}

impl Line {
    /// Carries the bytes of the one client that connects to the local end; `connected` hears when it has. Ends when
    /// either side does; an error is what the far side said.
    pub async fn carry(self, local: LocalEnd, connected: impl FnOnce()) -> Result<(), Fault> {
        let local = local.accept().await;
        let local = local.map_err(|error| Fault::new(Cause::Refused, format!("the local end: {error}")))?;
        connected();
        match self.carrier {
            Carrier::Tls(stream) => both_ways(*stream, local).await,
            Carrier::Tunnel(tunnel) => tunnel::pump(*tunnel, local).await,
        }
    }
}

async fn both_ways(stream: TlsStream<TcpStream>, local: UnixStream) -> Result<(), Fault> {
    let (mut from_far, mut to_far) = split(stream);
    let (mut from_local, mut to_local) = local.into_split();
    let down = async {
        copy(&mut from_far, &mut to_local).await.map_err(|error| Fault::of_io(&error))?;
        Err(Fault::new(Cause::Refused, "the broker closed the connection"))
    };
    let up = async {
        let sent = copy(&mut from_local, &mut to_far).await;
        let _ = to_far.shutdown().await;
        sent
    };
    tokio::pin!(down);
    tokio::select! {
        biased;
        ended = &mut down => ended,
        sent = up => match sent {
            Ok(_) => Ok(()),
            // The reason often waits on the other half: an alert about our certificate.
            Err(error) => timeout(LAST_WORD_TIME, down).await.unwrap_or_else(|_| Err(Fault::of_io(&error))),
        },
    }
}
