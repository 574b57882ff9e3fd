//! A device's first certificate, and its next ones. Open: the claim, or the key, is the proof.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_shared::api::{Enrol, Enrolled, Problem, Renew};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson};
use crate::plane::Plane;
use crate::trust::enrol;

/// Calls that need no token.
pub fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(first)).routes(routes!(next))
}

/// Enrols a device with a claim; the same key with the same claim gets its certificate again.
#[utoipa::path(post, path = "/enrol", tag = "devices", request_body = Enrol, security(()),
    responses((status = 200, body = Enrolled), (status = 403, body = Problem), (status = 409, body = Problem)))]
async fn first(State(plane): State<Arc<Plane>>, ApiJson(asked): ApiJson<Enrol>) -> Result<Json<Enrolled>, ApiError> {
    Ok(Json(enrol::enrol(&plane, &asked).await?))
}

/// The next certificate for an enrolled key.
#[utoipa::path(post, path = "/renew", tag = "devices", request_body = Renew, security(()),
    responses((status = 200, body = Enrolled), (status = 403, body = Problem)))]
async fn next(State(plane): State<Arc<Plane>>, ApiJson(asked): ApiJson<Renew>) -> Result<Json<Enrolled>, ApiError> {
    Ok(Json(enrol::renew(&plane, &asked.renewal).await?))
}
