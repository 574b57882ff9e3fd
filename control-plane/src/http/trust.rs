//! What anyone may know of this plane, and the roots.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_shared::api::{DirectorKey, FloorView, Info, Problem, TrustView};
use muster_shared::signing::Envelope;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson};
use crate::db;
use crate::plane::Plane;
use crate::trust::ledger::count_change;
use crate::trust::roles;

/// Calls that need no token.
pub fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(info)).routes(routes!(roots)).routes(routes!(floors))
}

/// Calls that need one.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .routes(routes!(director))
        .routes(routes!(next_director))
        .routes(routes!(add_root))
        .routes(routes!(raise_floor))
}

/// What anyone may know of this control plane.
#[utoipa::path(get, path = "/info", tag = "trust", security(()), responses((status = 200, body = Info)))]
async fn info(State(plane): State<Arc<Plane>>) -> Json<Info> {
    let root = plane.trust.newest();
    Json(Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: root.as_ref().map(|root| root.root().fleet.clone()),
        root_version: root.as_ref().map(|root| root.root().version),
        ca_fingerprint: plane.authority.fingerprint(),
    })
}

/// Every root in its envelope, by version.
#[utoipa::path(get, path = "/trust/roots", tag = "trust", security(()),
    responses((status = 200, body = Vec<Object>, description = "DSSE envelopes")))]
async fn roots(State(plane): State<Arc<Plane>>) -> Json<Vec<Envelope>> {
    Json(plane.trust.all())
}

/// The key that signs desired states here, to be named by the root.
#[utoipa::path(get, path = "/trust/director", tag = "trust", responses((status = 200, body = DirectorKey)))]
async fn director(State(plane): State<Arc<Plane>>) -> Result<Json<DirectorKey>, ApiError> {
    Ok(Json(DirectorKey { key: plane.director.public(), next: plane.director.next()? }))
}

/// Makes the director's next key, or says which one waits: it takes the place of the present one as soon
/// as a root names it and not the present one.
#[utoipa::path(post, path = "/trust/director/next", tag = "trust", responses((status = 200, body = DirectorKey)))]
async fn next_director(State(plane): State<Arc<Plane>>) -> Result<Json<DirectorKey>, ApiError> {
    let next = plane.director.prepare_next()?;
    Ok(Json(DirectorKey { key: plane.director.public(), next: Some(next) }))
}

/// Every version floor in its envelope, by model, also those whose signers the root names no more.
#[utoipa::path(get, path = "/trust/floors", tag = "trust", security(()),
    responses((status = 200, body = Vec<Object>, description = "DSSE envelopes")))]
async fn floors(State(plane): State<Arc<Plane>>) -> Json<Vec<Envelope>> {
    Json(plane.floors.all().to_vec())
}

/// Takes a version floor. Floors only rise.
#[utoipa::path(post, path = "/trust/floors", tag = "trust",
    request_body(content = Object, description = "a version floor in its DSSE envelope"),
    responses((status = 200, body = FloorView), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn raise_floor(
    State(plane): State<Arc<Plane>>,
    ApiJson(envelope): ApiJson<Envelope>,
) -> Result<Json<FloorView>, ApiError> {
    let root = plane.trust.newest();
    let floor = plane.floors.raise(&plane.db, root.as_deref(), &envelope).await?;
    count_change(&plane).await?;
    tracing::info!(model = %floor.model, version = %floor.version, "version floor accepted");
    plane.nudges.publisher.notify_one();
    plane.nudges.planner.notify_one();
    let bundles = db::bundles::from_version(plane.db.read(), &floor.model, 1).await?;
    let newest = bundles.first().map(|bundle| bundle.version);
    Ok(Json(FloorView { model: floor.model, version: floor.version, newest }))
}

/// Takes the first or the next root.
#[utoipa::path(post, path = "/trust/roots", tag = "trust",
    request_body(content = Object, description = "a root document in its DSSE envelope"),
    responses((status = 200, body = TrustView), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn add_root(
    State(plane): State<Arc<Plane>>,
    ApiJson(envelope): ApiJson<Envelope>,
) -> Result<Json<TrustView>, ApiError> {
    let root = plane.trust.add(&plane.db, &envelope).await?;
    count_change(&plane).await?;
    tracing::info!(version = root.root().version, "root accepted");
    plane.nudges.publisher.notify_one();
    // Bundles whose publishers it names no more are not placed any more.
    plane.nudges.planner.notify_one();
    Ok(Json(roles::view(&root)))
}
