//! The HTTP API: one file for each resource, and what holds for all of them.
//!
//! On the listener for devices there are `/api/v1/enrol`, `…/renew`, what anyone may know, and `/mqtt`. Elsewhere
//! `/api/v1/…` is the API, `/v1/models/…` and `/v2/…` the gateway, `/metrics` the counters, `/` the dashboard.
//! Everything but what is marked open needs a token or a session; every body and every request has a bound.

pub mod error;

pub mod auth;
pub mod bundles;
pub mod claims;
pub mod deployments;
pub mod devices;
mod doors;
mod doors_described;
pub mod enrol;
pub mod events;
pub mod feed;
pub mod metrics;
pub mod plan;
pub mod releases;
mod rollouts;
pub mod session;
pub mod trust;
mod tunnel;
mod web;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use muster_shared::limits::MANIFEST_BYTES_MAX;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use self::error::{ApiError, door_error};
use crate::plane::Plane;

/// A body of JSON: the largest is a manifest in its envelope.
const JSON_BYTES_MAX: usize = MANIFEST_BYTES_MAX;
/// How long a request may take; an upload is watched by the catalog instead.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// What a listener asks of those who call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// TLS.
    Tls,
    /// Plain HTTP on this loopback address: only under its own name.
    Loopback(SocketAddr),
}

/// The API, the gateway behind a token, and the counters.
pub fn api(plane: Arc<Plane>, listener: Listener) -> Router {
    let (router, document) = api_routes(&plane).split_for_parts();
    let document = Arc::new(document.to_json().unwrap_or_default());
    let openapi = get(move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], document.as_str().to_owned()) }
    });
    let token = from_fn_with_state(plane.clone(), auth::require_token);
    let behind_token = doors::routes().merge(metrics::routes()).layer(token).layer(from_fn(in_time));
    let router = router.merge(behind_token).merge(web::routes()).route("/api/v1/openapi.json", openapi);
    finish(router.fallback(unknown).method_not_allowed_fallback(wrong_method), plane, listener)
}

/// The gateway on a listener of its own.
pub fn gateway(plane: Arc<Plane>, listener: Listener) -> Router {
    let mut router = doors::routes();
    if listener == Listener::Tls {
        router = router.layer(from_fn_with_state(plane.clone(), auth::require_token));
    }
    finish(router.layer(from_fn(in_time)).fallback(unknown_model), plane, listener)
}

/// What devices need of the API, and the tunnel.
pub fn devices(plane: Arc<Plane>) -> Router {
    let limit = DefaultBodyLimit::max(JSON_BYTES_MAX);
    let open = trust::open_routes().merge(enrol::open_routes()).layer(limit).layer(from_fn(in_time));
    let (router, _) = OpenApiRouter::new().nest("/api/v1", open).split_for_parts();
    let router = router.merge(tunnel::routes());
    finish(router.fallback(unknown_to_devices).method_not_allowed_fallback(wrong_method), plane, Listener::Tls)
}

/// The API's document, without a plane that runs.
pub fn openapi() -> OpenApi {
    let (_, document) = documented().split_for_parts();
    document
}

fn api_routes(plane: &Arc<Plane>) -> OpenApiRouter<Arc<Plane>> {
    let token = from_fn_with_state(plane.clone(), auth::require_token);
    let limit = DefaultBodyLimit::max(JSON_BYTES_MAX);
    let uploads = upload_routes().layer(DefaultBodyLimit::disable()).layer(token.clone());
    let closed = closed_routes().layer(token).layer(limit).layer(from_fn(in_time));
    let open = open_routes().layer(limit).layer(from_fn(in_time));
    described().nest("/api/v1", open.merge(closed).merge(uploads))
}

fn documented() -> OpenApiRouter<Arc<Plane>> {
    described().nest("/api/v1", open_routes().merge(closed_routes()).merge(upload_routes()))
}

fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .merge(trust::open_routes())
        .merge(auth::open_routes())
        .merge(session::open_routes())
        .merge(enrol::open_routes())
        .merge(releases::open_routes())
}

fn closed_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .merge(trust::routes())
        .merge(auth::routes())
        .merge(session::routes())
        .merge(claims::routes())
        .merge(bundles::routes())
        .merge(releases::routes())
        .merge(deployments::routes())
        .merge(rollouts::routes())
        .merge(plan::routes())
        .merge(devices::routes())
        .merge(events::routes())
        .merge(feed::routes())
}

fn upload_routes() -> OpenApiRouter<Arc<Plane>> {
    bundles::upload_routes().merge(releases::upload_routes())
}

fn described() -> OpenApiRouter<Arc<Plane>> {
    let info = InfoBuilder::new()
        .title("Muster control plane")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Errors are problems (RFC 9457) with a `hint`: the next move."));
    let mut document: OpenApi = OpenApiBuilder::new().info(info).build();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    document.components.get_or_insert_default().add_security_scheme("token", bearer);
    let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(session::COOKIE)));
    document.components.get_or_insert_default().add_security_scheme("session", session);
    let ways = ["token", "session"].map(|way| SecurityRequirement::new::<_, [String; 0], String>(way, []));
    document.security = Some(ways.to_vec());
    document.paths = doors_described::paths();
    OpenApiRouter::with_openapi(document)
}

fn finish(router: Router<Arc<Plane>>, plane: Arc<Plane>, listener: Listener) -> Router {
    let mut router = router.with_state(plane).layer(Extension(listener));
    if let Listener::Loopback(own) = listener {
        router = router.layer(from_fn_with_state(own, auth::only_own_host));
    }
    router.layer(CatchPanicLayer::custom(panicked)).layer(map_response(no_sniffing))
}

/// Gives up on what takes too long: nobody waits for ever.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("this took longer than {REQUEST_TIME:?}"))
            .hint("try again in a moment")
            .into_response(),
    }
}

async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
        .hint("see GET /api/v1/openapi.json for what there is")
}

async fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this address")
        .hint("see GET /api/v1/openapi.json for what there is")
}

async fn unknown_to_devices() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this address on the listener for devices")
        .hint("people and programs use the API's own address, which the control plane prints at its start")
}

async fn unknown_model() -> Response {
    door_error(StatusCode::NOT_FOUND, "Not found")
}

/// Browsers must take answers for what they say they are, and keep none.
async fn no_sniffing(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A panic is our mistake; it costs one request, and the log has it.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a request panicked");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why").into_response()
}

#[cfg(test)]
mod tests;
