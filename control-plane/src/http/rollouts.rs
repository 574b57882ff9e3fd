//! Rollouts: how a deployment's version changes, and an operator's hand on it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use muster_control_plane_core::decide::{is_frozen, policy};
use muster_control_plane_core::rollout::{CannotChange, Rollout};
use muster_shared::DeploymentName;
use muster_shared::api::Problem;
use muster_shared::api::deployment::RolloutView;
use muster_shared::api::fleet::{EventView, Happening};
use muster_shared::id::UnixMs;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deployments::not_found;
use super::error::{ApiError, ApiPath};
use crate::db::{self, deployments::DeploymentRecord};
use crate::now_ms;
use crate::plane::Plane;
use crate::status::{self, Facts};

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .routes(routes!(get))
        .routes(routes!(history))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(undo))
}

/// The rollout in force.
#[utoipa::path(get, path = "/deployments/{name}/rollout", tag = "rollouts", params(("name" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem)))]
async fn get(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<RolloutView>, ApiError> {
    view(&plane, &name).await
}

/// The rollouts that are remembered, the newest first.
#[utoipa::path(get, path = "/deployments/{name}/rollouts", tag = "rollouts", params(("name" = String, Path)),
    responses((status = 200, body = Vec<RolloutView>), (status = 404, body = Problem)))]
async fn history(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<Vec<RolloutView>>, ApiError> {
    let record = record(&plane, &name).await?;
    let facts = Facts::read(&plane).await?;
    let newest = status::rollout(&record, &facts);
    let devices = newest.as_ref().map_or(0, |newest| newest.devices);
    let policy = policy(&record.spec);
    let rollouts = db::rollouts::history(plane.db.read(), &name).await?;
    let frozen = is_frozen(&facts.liveness);
    Ok(Json(rollouts.iter().map(|rollout| rollout.view(&policy, devices, frozen)).collect()))
}

/// No further device gets the new version; those that have it go on.
#[utoipa::path(post, path = "/deployments/{name}/rollout/pause", tag = "rollouts", params(("name" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn pause(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<RolloutView>, ApiError> {
    change(&plane, &name, Rollout::pause, (Happening::RolloutPaused, "an operator holds it")).await
}

/// A rollout that is held goes on; one that stopped begins again, and devices try once more what they
/// refused.
#[utoipa::path(post, path = "/deployments/{name}/rollout/resume", tag = "rollouts", params(("name" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn resume(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<RolloutView>, ApiError> {
    change(&plane, &name, Rollout::resume, (Happening::RolloutStarted, "an operator lets it go on")).await
}

/// Every device goes back to the version before.
#[utoipa::path(post, path = "/deployments/{name}/rollout/undo", tag = "rollouts", params(("name" = String, Path)),
    responses((status = 200, body = RolloutView), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn undo(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<RolloutView>, ApiError> {
    change(&plane, &name, Rollout::undo, (Happening::RolloutUndone, "an operator took it back")).await
}

async fn change(
    plane: &Plane,
    name: &DeploymentName,
    change: fn(Rollout, UnixMs) -> Result<Rollout, CannotChange>,
    (kind, text): (Happening, &str),
) -> Result<Json<RolloutView>, ApiError> {
    let deciding = plane.deciding.lock().await;
    record(plane, name).await?;
    let held = db::rollouts::current(plane.db.read()).await?.remove(name);
    let held = held.ok_or_else(|| cannot(CannotChange::None))?;
    let at_ms = now_ms();
    let rollout = change(held, at_ms).map_err(cannot)?;
    let text = format!("{} version {}: {text}", rollout.target.model, rollout.target.version);
    let transaction = plane.db.begin().await?;
    db::rollouts::put(&transaction, name, &rollout).await?;
    let event = EventView { at_ms, device: None, kind, deployment: Some(name.clone()), text };
    db::events::insert(&transaction, &event).await?;
    db::commit(transaction).await?;
    drop(deciding);
    plane.nudges.planner.notify_one();
    view(plane, name).await
}

async fn view(plane: &Plane, name: &DeploymentName) -> Result<Json<RolloutView>, ApiError> {
    let record = record(plane, name).await?;
    let rollout = status::rollout(&record, &Facts::read(plane).await?);
    rollout.map(Json).ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, format!("{name} had no rollout yet: there is no version to run"))
            .hint("push a bundle of its model: `muster push`")
    })
}

async fn record(plane: &Plane, name: &DeploymentName) -> Result<DeploymentRecord, ApiError> {
    db::deployments::get(plane.db.read(), name).await?.ok_or_else(|| not_found(name))
}

fn cannot(error: CannotChange) -> ApiError {
    let hint = match error {
        CannotChange::None => "push a bundle of its model: `muster push`",
        CannotChange::Over => "`muster rollout history` shows how it ended",
        CannotChange::Running => "`muster rollout status` shows how far it is",
        CannotChange::Paused => "`muster rollout resume` lets it go on",
        CannotChange::NoPrevious => "apply the deployment with the version that you want",
        CannotChange::Undone => "`muster rollout resume` begins it again",
    };
    ApiError::new(StatusCode::CONFLICT, error.to_string()).hint(hint)
}
