//! A device's first certificate, and its next ones. Open: the claim, or the key, is the proof.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use muster_shared::api::{Enrol, EnrolWaiting, Enrolled, Problem, Renew};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, chain};
use super::session::network;
use crate::plane::Plane;
use crate::trust::enrol::{self, EnrolError, Outcome};

/// Calls that need no token.
pub fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(first)).routes(routes!(next))
}

type Peer = Option<Extension<ConnectInfo<SocketAddr>>>;

/// Enrols a device with a claim, or by its place on the factory list; the same key gets its certificate
/// again. Status 202: an operator has yet to let it in.
#[utoipa::path(post, path = "/enrol", tag = "devices", request_body = Enrol, security(()),
    responses((status = 200, body = Enrolled), (status = 202, body = EnrolWaiting), (status = 403, body = Problem),
        (status = 409, body = Problem), (status = 429, body = Problem)))]
async fn first(
    State(plane): State<Arc<Plane>>,
    peer: Peer,
    ApiJson(asked): ApiJson<Enrol>,
) -> Result<Response, ApiError> {
    match enrol::enrol(&plane, &asked).await {
        Ok(Outcome::Enrolled(enrolled)) => Ok(Json(*enrolled).into_response()),
        Ok(Outcome::Waiting(waiting)) => Ok((StatusCode::ACCEPTED, Json(waiting)).into_response()),
        Err(error) => Err(refused(&plane, peer, error)),
    }
}

/// The next certificate for an enrolled key.
#[utoipa::path(post, path = "/renew", tag = "devices", request_body = Renew, security(()),
    responses((status = 200, body = Enrolled), (status = 403, body = Problem), (status = 429, body = Problem)))]
async fn next(
    State(plane): State<Arc<Plane>>,
    peer: Peer,
    ApiJson(asked): ApiJson<Renew>,
) -> Result<Json<Enrolled>, ApiError> {
    enrol::renew(&plane, &asked.renewal).await.map(Json).map_err(|error| refused(&plane, peer, error))
}

/// Counts a failure. Beyond some of them from one address there is no reason any more, only the advice to
/// wait; who has a right gets through all the same, for it is looked at first.
fn refused(plane: &Plane, peer: Peer, error: EnrolError) -> ApiError {
    if matches!(error, EnrolError::Db(_) | EnrolError::Ca(_) | EnrolError::NoRoot | EnrolError::Waiting(_)) {
        return error.into();
    }
    let address = network(peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip()));
    if plane.refusals.count(address, &chain(&error), Instant::now()) {
        return error.into();
    }
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many tries to enrol from this address were refused")
        .hint("wait a minute, and ask for a new claim: `muster claim new`")
}
