//! What happened on devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_shared::api::fleet::EventView;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiQuery};
use crate::db;
use crate::plane::Plane;

/// Events in one answer.
const LISTED_EVENTS_MAX: u64 = 10_000;
/// Events in one answer, where nothing is said.
const LISTED_EVENTS: u64 = 100;

/// How much to show.
#[derive(Debug, Deserialize)]
struct Page {
    limit: Option<u64>,
}

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// The events, the newest first.
#[utoipa::path(get, path = "/events", tag = "devices", params(("limit" = Option<u64>, Query)),
    responses((status = 200, body = Vec<EventView>)))]
async fn list(
    State(plane): State<Arc<Plane>>,
    ApiQuery(page): ApiQuery<Page>,
) -> Result<Json<Vec<EventView>>, ApiError> {
    let limit = page.limit.unwrap_or(LISTED_EVENTS).min(LISTED_EVENTS_MAX);
    Ok(Json(db::events::newest(plane.db.read(), limit).await?))
}
