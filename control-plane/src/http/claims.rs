//! Claims: the right to enrol devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use muster_shared::Digest;
use muster_shared::api::members::{FactoryKey, FactoryView};
use muster_shared::api::{Claim, ClaimView, NewClaim, NewClaims, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath};
use crate::db;
use crate::now_ms;
use crate::plane::Plane;
use crate::trust::enrol;
use crate::trust::ledger::count_change;

/// Claims in one list; older ones are not shown.
const LISTED_CLAIMS_MAX: u64 = 10_000;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(create_named))
        .routes(routes!(revoke))
        .routes(routes!(factory_list, factory_add))
        .routes(routes!(factory_remove))
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

/// Makes a claim for each of many devices, all or none; their secrets are shown once.
#[utoipa::path(post, path = "/claims/named", tag = "devices", request_body = NewClaims,
    responses((status = 201, body = Vec<Claim>), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn create_named(
    State(plane): State<Arc<Plane>>,
    ApiJson(asked): ApiJson<NewClaims>,
) -> Result<(StatusCode, Json<Vec<Claim>>), ApiError> {
    let claims = enrol::new_claims(&plane, &asked).await?;
    Ok((StatusCode::CREATED, Json(claims)))
}

/// The claims, the newest first.
#[utoipa::path(get, path = "/claims", tag = "devices", responses((status = 200, body = Vec<ClaimView>)))]
async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<ClaimView>>, ApiError> {
    Ok(Json(db::claims::list(plane.db.read(), LISTED_CLAIMS_MAX).await?))
}

/// The claim counts no more; devices that it enrolled stay.
#[utoipa::path(post, path = "/claims/{id}/revoke", tag = "devices", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn revoke(State(plane): State<Arc<Plane>>, ApiPath(id): ApiPath<String>) -> Result<StatusCode, ApiError> {
    let mut bytes = [0; 8];
    let known =
        hex::decode_to_slice(&id, &mut bytes).is_ok() && db::claims::end(plane.db.write(), bytes, now_ms()).await?;
    match known {
        true => {
            count_change(&plane).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        false => Err(ApiError::not_found("claim", &id).hint("see `muster get claims`")),
    }
}

/// Puts keys on the factory list: their devices enrol without a claim, each once.
#[utoipa::path(post, path = "/factory", tag = "devices", request_body = Vec<FactoryKey>,
    responses((status = 204), (status = 422, body = Problem), (status = 507, body = Problem)))]
async fn factory_add(
    State(plane): State<Arc<Plane>>,
    ApiJson(keys): ApiJson<Vec<FactoryKey>>,
) -> Result<StatusCode, ApiError> {
    enrol::add_to_factory_list(&plane, &keys).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The factory list, the oldest entries first.
#[utoipa::path(get, path = "/factory", tag = "devices", responses((status = 200, body = Vec<FactoryView>)))]
async fn factory_list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<FactoryView>>, ApiError> {
    Ok(Json(db::members::factory_list(plane.db.read(), LISTED_CLAIMS_MAX).await?))
}

/// Takes a key off the factory list; a device that enrolled with it stays.
#[utoipa::path(delete, path = "/factory/{fingerprint}", tag = "devices", params(("fingerprint" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn factory_remove(
    State(plane): State<Arc<Plane>>,
    ApiPath(fingerprint): ApiPath<Digest>,
) -> Result<StatusCode, ApiError> {
    match db::members::factory_remove(plane.db.write(), fingerprint).await? {
        true => {
            count_change(&plane).await?;
            Ok(StatusCode::NO_CONTENT)
        }
        false => Err(ApiError::not_found("key on the factory list", &fingerprint)),
    }
}
