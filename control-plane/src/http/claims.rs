//! Claims: the right to enrol devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use muster_shared::api::{Claim, ClaimView, NewClaim, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson};
use crate::db;
use crate::plane::Plane;
use crate::trust::enrol;

/// Claims in one list; older ones are not shown.
const LISTED_CLAIMS_MAX: u64 = 10_000;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(list, create))
}

/// Makes a claim; its secret is shown once.
#[utoipa::path(post, path = "/claims", tag = "devices", request_body = NewClaim,
    responses((status = 201, body = Claim), (status = 422, body = Problem)))]
async fn create(
    State(plane): State<Arc<Plane>>,
    ApiJson(asked): ApiJson<NewClaim>,
) -> Result<(StatusCode, Json<Claim>), ApiError> {
    let claim = enrol::new_claim(&plane, &asked).await?;
    Ok((StatusCode::CREATED, Json(claim)))
}

/// The claims, the newest first.
#[utoipa::path(get, path = "/claims", tag = "devices", responses((status = 200, body = Vec<ClaimView>)))]
async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<ClaimView>>, ApiError> {
    Ok(Json(db::claims::list(plane.db.read(), LISTED_CLAIMS_MAX).await?))
}
