//! The door to a tunnel: `GET /mqtt` on the listener for devices, a WebSocket for the holder of an enrolled
//! key.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use axum_server::tls::TlsInfo;
use muster_shared::tunnel::{MESSAGE_BYTES_MAX, PATH, SUBPROTOCOL, SUBPROTOCOL_WITH_PROOF};

use super::error::{ApiError, chain};
use crate::broker::{Proven, embedded};
use crate::plane::Plane;
use crate::tunnel::{self, TunnelError};

/// Read at a time; the library keeps so much for each tunnel.
const READ_BYTES: usize = 16 * 1024;
/// What a peer may leave unread in memory: a few messages.
const UNSENT_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;

pub(super) fn routes() -> Router<Arc<Plane>> {
    Router::new().route(PATH, get(open))
}

async fn open(
    State(plane): State<Arc<Plane>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    tls: Option<Extension<Arc<TlsInfo>>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    // Browsers name the page that asks. No page has business here, whatever certificate its reader has.
    if headers.contains_key(header::ORIGIN) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "a tunnel is for devices, not for pages in a browser"));
    }
    let upgrade = upgrade.map_err(|why| {
        ApiError::new(StatusCode::UPGRADE_REQUIRED, format!("this is the tunnel for devices: {}", why.body_text()))
            .hint("a device opens it by itself where it cannot reach the broker")
    })?;
    let upgrade = upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(UNSENT_BYTES_MAX);
    let shown = tls.as_ref().and_then(|tls| tls.peer_certificates.first());
    let Some(certificate) = shown else { return open_with_proof(plane, from, upgrade) };
    let (name, spki) = embedded::identity(certificate)
        .map_err(|why| ApiError::new(StatusCode::FORBIDDEN, format!("the certificate names no device: {why}")))?;
    let who = Proven { name, spki };
    if !tunnel::is_let_in(&plane, &who) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, TunnelError::NotLetIn(who.name).to_string())
            .hint("see `muster get devices`: `muster approve` lets a held device in"));
    }
    let room = plane.tunnels.room().ok_or_else(full)?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(wrong_protocol());
    }
    Ok(upgrade.on_upgrade(move |socket| async move {
        told(tunnel::serve(&plane, socket, who, from).await, from);
        drop(room);
    }))
}

/// Without a certificate: a device behind a proxy that ends TLS proves its key inside.
fn open_with_proof(plane: Arc<Plane>, from: SocketAddr, upgrade: WebSocketUpgrade) -> Result<Response, ApiError> {
    let upgrade = upgrade.protocols([SUBPROTOCOL_WITH_PROOF]);
    if upgrade.selected_protocol().is_none() {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "a tunnel opens for the certificate of an enrolled device",
        )
        .hint("behind a proxy that ends TLS, name its CA in agent.toml: `[network] proxy-ca`"));
    }
    let room = plane.tunnels.room_unproven().ok_or_else(full)?;
    Ok(upgrade.on_upgrade(move |socket| async move {
        told(tunnel::serve_proven(&plane, socket, from, room).await, from);
    }))
}

fn told(ended: Result<(), TunnelError>, from: SocketAddr) {
    if let Err(error) = ended {
        tracing::info!(%from, error = chain(&error), "a tunnel ended");
    }
}

fn full() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, TunnelError::Full.to_string()).hint("try again in a moment")
}

fn wrong_protocol() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, format!("a tunnel speaks the WebSocket subprotocol {SUBPROTOCOL:?}"))
}
