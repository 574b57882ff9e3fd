//! Who may ask a model, and how: every door looks a model up in the same [`Table`] and reaches the
//! same worker.

pub mod tfs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use muster_shared::manifest::Port;
use muster_shared::{DeploymentName, DeviceId, ModelName, Version};
use tokio_util::sync::CancellationToken;

use crate::meter::Meter;
use crate::tensor::Tensor;
use crate::worker::parent::{PredictError, WorkerHandle};

/// The body of one request.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The models that answer on this device, by the name doors use.
#[derive(Debug, Default)]
pub struct Table {
    served: RwLock<BTreeMap<DeploymentName, Arc<Served>>>,
    /// What is counted of them.
    pub meter: Arc<Meter>,
}

/// One model that answers.
#[derive(Debug)]
pub struct Served {
    /// Its slot.
    pub deployment: DeploymentName,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Its process.
    pub worker: WorkerHandle,
}

impl Table {
    /// From now on `name` means this. Requests under way end on what they began with.
    pub fn route(&self, name: DeploymentName, served: Served) {
        self.write().insert(name, Arc::new(served));
    }

    /// From now on nobody answers for this slot.
    pub fn unroute(&self, deployment: &DeploymentName) {
        self.write().retain(|_, served| &served.deployment != deployment);
    }

    /// Who answers to `name`.
    pub fn find(&self, name: &DeploymentName) -> Option<Arc<Served>> {
        self.served.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(name).cloned()
    }

    /// Runs the model once and counts it.
    pub async fn predict(&self, served: &Served, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, PredictError> {
        let began = Instant::now();
        let answer = served.worker.predict(inputs).await;
        let cost = match &answer {
            Ok(answer) => Some(answer.cpu_us),
            Err(_) => None,
        };
        self.meter.count(&served.deployment, &served.model, served.version, began.elapsed(), cost);
        answer.map(|answer| answer.outputs)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<DeploymentName, Arc<Served>>> {
        self.served.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Opens the door on `listener` until `stop`.
pub async fn serve(
    listener: tokio::net::TcpListener,
    table: Arc<Table>,
    device: DeviceId,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let own = listener.local_addr()?;
    let router = tfs::router(table, device)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn(move |request, next| only_from_here(own, request, next)));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// A page in a browser must not reach this door by a name of its own: Host and Origin are ours or
/// there are none.
async fn only_from_here(own: SocketAddr, request: Request, next: Next) -> Response {
    match stranger(own, request.headers()) {
        None => next.run(request).await,
        Some(name) => {
            let text = format!("{{\"error\": \"this door answers to loopback names only, not to {name}\"}}");
            (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
    }
}

fn stranger(own: SocketAddr, headers: &HeaderMap) -> Option<&'static str> {
    let port = own.port();
    let ours = |authority: &str| {
        let (host, given) = authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let host_ok = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        host_ok && given.is_none_or(|given| given.parse() == Ok(port))
    };
    let value = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if value(header::HOST).is_some_and(|host| !ours(host)) {
        return Some("this Host");
    }
    let origin = value(header::ORIGIN).map(|origin| origin.strip_prefix("http://").unwrap_or("?"));
    if origin.is_some_and(|origin| !ours(origin)) { Some("this Origin") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_open_the_door() {
        let own = SocketAddr::from(([127, 0, 0, 1], 8501));
        let check = |host: Option<&str>, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().expect("a header"));
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            stranger(own, &headers).is_none()
        };
        for host in ["127.0.0.1:8501", "localhost:8501", "[::1]:8501", "localhost"] {
            assert!(check(Some(host), None), "{host}");
        }
        assert!(check(Some("localhost:8501"), Some("http://localhost:8501")));
        for (host, origin) in [
            ("evil.example:8501", None),
            ("localhost:9999", None),
            ("localhost:8501", Some("http://evil.example")),
            ("localhost:8501", Some("null")),
        ] {
            assert!(!check(Some(host), origin), "{host} {origin:?}");
        }
    }
}
