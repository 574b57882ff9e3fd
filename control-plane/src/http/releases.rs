//! Releases of the agent: pushed by people, fetched by whoever wants to install one. Fetching is open: a
//! machine that is to become a device has no right yet, and believes nothing of what it fetches.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use muster_shared::api::Problem;
use muster_shared::api::releases::{ReleasePushed, ReleaseView};
use muster_shared::id::ArtifactName;
use muster_shared::release::{FILE_NAME, ReleaseVersion};
use muster_shared::signing::Envelope;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath};
use super::session::network;
use crate::plane::Plane;
use crate::releases::{CannotRelease, downloads};
use crate::trust::ledger::count_change;

/// Calls that need no token.
pub fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Calls that need one.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(push))
}

/// Calls that need a token and take as long as they take: the releases watch the sender.
pub fn upload_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(upload))
}

/// The releases of the agent, the newest first.
#[utoipa::path(get, path = "/releases", tag = "releases", security(()),
    responses((status = 200, body = Vec<ReleaseView>)))]
async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<ReleaseView>>, ApiError> {
    let root = plane.trust.newest();
    Ok(Json(plane.releases.list(&plane.blobs, root.as_deref()).await?.to_vec()))
}

/// Takes a release; says which files are missing.
#[utoipa::path(post, path = "/releases", tag = "releases",
    request_body(content = Object, description = "a release in its DSSE envelope"),
    responses((status = 200, body = ReleasePushed), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn push(
    State(plane): State<Arc<Plane>>,
    ApiJson(envelope): ApiJson<Envelope>,
) -> Result<Json<ReleasePushed>, ApiError> {
    let root = plane.trust.newest();
    let pushed = plane.releases.push(&plane.db, &plane.blobs, root.as_deref(), &envelope).await?;
    count_change(&plane).await?;
    Ok(Json(pushed))
}

/// A file of a release; `release.json` is the release itself in its DSSE envelope.
#[utoipa::path(get, path = "/releases/{version}/{name}", tag = "releases", security(()),
    params(("version" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem), (status = 429, body = Problem)))]
async fn fetch(
    State(plane): State<Arc<Plane>>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    ApiPath((version, name)): ApiPath<(ReleaseVersion, ArtifactName)>,
) -> Result<Response, ApiError> {
    let address = network(peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip()));
    let place = plane.downloads.begin(address, Instant::now()).ok_or_else(|| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many files are on their way, or went to this address lately")
            .hint("wait a minute and try again")
    })?;
    if name.as_str() == FILE_NAME {
        return Ok(Json(plane.releases.envelope(&version)?).into_response());
    }
    let artifact = plane.releases.artifact(&version, &name)?;
    let file = plane.blobs.open_file(artifact.sha256).await?.ok_or(CannotRelease::NotHere(version, name))?;
    let mut response = Response::new(downloads::body(file, place));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CONTENT_LENGTH, artifact.bytes.into());
    Ok(response)
}

/// Takes the bytes of a file that a pushed release names.
#[utoipa::path(put, path = "/releases/{version}/{name}", tag = "releases",
    params(("version" = String, Path), ("name" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem), (status = 507, body = Problem)))]
async fn upload(
    State(plane): State<Arc<Plane>>,
    ApiPath((version, name)): ApiPath<(ReleaseVersion, ArtifactName)>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    plane.releases.receive(&plane.blobs, &version, &name, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}
