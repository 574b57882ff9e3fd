//! Bundles: a signed manifest, then the files it names.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use muster_shared::Digest;
use muster_shared::api::Problem;
use muster_shared::api::catalog::{BundleView, PushStatus};
use muster_shared::signing::Envelope;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath};
use crate::plane::Plane;
use crate::trust::barred;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(list, push))
}

/// Calls that need a token and take as long as they take: the catalog watches the sender.
pub fn upload_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(upload))
}

/// Takes a manifest; says which files are missing.
#[utoipa::path(post, path = "/bundles", tag = "bundles",
    request_body(content = Object, description = "a manifest in its DSSE envelope"),
    responses((status = 200, body = PushStatus), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn push(
    State(plane): State<Arc<Plane>>,
    ApiJson(envelope): ApiJson<Envelope>,
) -> Result<Json<PushStatus>, ApiError> {
    let root = plane.trust.newest();
    let mut status = plane.catalog.push(&plane.db, &plane.blobs, root.as_deref(), &envelope).await?;
    // Taken all the same: a floor is taken back by a root, and then it is there.
    status.barred = barred::all(&plane).await?.get(&status.manifest).map(ToString::to_string);
    if status.missing.is_empty() {
        plane.nudges.planner.notify_one();
    }
    Ok(Json(status))
}

/// The bundles, by model and version.
#[utoipa::path(get, path = "/bundles", tag = "bundles", responses((status = 200, body = Vec<BundleView>)))]
async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<BundleView>>, ApiError> {
    let barred = barred::all(&plane).await?;
    let mut views = plane.catalog.views(&plane.db).await?;
    for view in &mut views {
        view.barred = barred.get(&view.manifest).map(ToString::to_string);
    }
    Ok(Json(views))
}

/// Takes the bytes of a file that a pushed manifest names.
#[utoipa::path(put, path = "/blobs/{sha256}", tag = "bundles",
    params(("sha256" = String, Path, description = "the file's digest")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = 404, body = Problem), (status = 422, body = Problem), (status = 507, body = Problem)))]
async fn upload(
    State(plane): State<Arc<Plane>>,
    ApiPath(sha256): ApiPath<Digest>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    if plane.catalog.receive(&plane.db, &plane.blobs, sha256, body.into_data_stream()).await? {
        plane.nudges.planner.notify_one();
    }
    Ok(StatusCode::NO_CONTENT)
}
