//! In place of the gRPC door, in builds for devices: what asks for it is told that it is not there.

use std::net::SocketAddr;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Doors;

/// Opens nothing.
pub async fn open(
    address: SocketAddr,
    _: &Doors,
    _: CancellationToken,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    anyhow::bail!("--grpc {address}: this build is for devices and has no gRPC door; the HTTP doors answer the same")
}
