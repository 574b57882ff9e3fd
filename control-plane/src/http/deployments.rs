//! Deployments: what operators want, and how far it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use muster_shared::DeploymentName;
use muster_shared::api::Problem;
use muster_shared::api::deployment::{API_VERSION, Deployment, KIND};
use muster_shared::limits::LABELS_MAX;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath};
use crate::db::{self, deployments::DeploymentRecord};
use crate::now_ms;
use crate::plane::Plane;
use crate::status::{self, Facts};

/// Replicas of one deployment.
const REPLICAS_MAX: u32 = 100_000;
/// How long a version may be watched.
const PROBATION_MS_MAX: u64 = 7 * 86_400_000;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put, delete))
}

/// The deployments, by name.
#[utoipa::path(get, path = "/deployments", tag = "deployments", responses((status = 200, body = Vec<Deployment>)))]
async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<Deployment>>, ApiError> {
    let records = db::deployments::list(plane.db.read()).await?;
    let facts = Facts::read(&plane).await?;
    Ok(Json(records.iter().map(|record| status::resource(record, &facts)).collect()))
}

/// One deployment.
#[utoipa::path(get, path = "/deployments/{name}", tag = "deployments", params(("name" = String, Path)),
    responses((status = 200, body = Deployment), (status = 404, body = Problem)))]
async fn get(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<Json<Deployment>, ApiError> {
    let record = db::deployments::get(plane.db.read(), &name).await?;
    let record = record.ok_or_else(|| ApiError::not_found("deployment", &name).hint("see `muster get deployments`"))?;
    Ok(Json(status::resource(&record, &Facts::read(&plane).await?)))
}

/// Creates a deployment, or puts it in the place of the one with its name.
#[utoipa::path(put, path = "/deployments/{name}", tag = "deployments", params(("name" = String, Path)),
    request_body = Deployment,
    responses((status = 200, body = Deployment), (status = 201, body = Deployment), (status = 422, body = Problem)))]
async fn put(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
    ApiJson(asked): ApiJson<Deployment>,
) -> Result<(StatusCode, Json<Deployment>), ApiError> {
    check(&name, &asked)?;
    let transaction = plane.db.begin().await?;
    let held = db::deployments::get(&transaction, &name).await?;
    let is_new = held.is_none();
    let generation = match &held {
        Some(held) if held.spec == asked.spec => held.generation,
        Some(held) => held.generation + 1,
        None => 1,
    };
    let record = DeploymentRecord { name, generation, labels: asked.metadata.labels, spec: asked.spec };
    db::deployments::put(&transaction, &record, now_ms()).await?;
    db::commit(transaction).await?;
    plane.nudges.planner.notify_one();
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(status::resource(&record, &Facts::read(&plane).await?))))
}

/// Removes a deployment; devices let its model go.
#[utoipa::path(delete, path = "/deployments/{name}", tag = "deployments", params(("name" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
async fn delete(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
) -> Result<StatusCode, ApiError> {
    if !db::deployments::delete(plane.db.write(), &name).await? {
        return Err(ApiError::not_found("deployment", &name).hint("see `muster get deployments`"));
    }
    plane.nudges.planner.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// What the types cannot say.
fn check(name: &DeploymentName, asked: &Deployment) -> Result<(), ApiError> {
    let wrong = |text: String| Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    if asked.api_version != API_VERSION || asked.kind != KIND {
        let found = format!("{:?} {:?}", asked.api_version, asked.kind);
        return wrong(format!("apiVersion and kind: {found}; this control plane knows {API_VERSION:?} {KIND:?}"));
    }
    if asked.metadata.name != *name {
        return wrong(format!("metadata.name: {} is not the name in the address, {name}", asked.metadata.name));
    }
    if asked.metadata.labels.len() > LABELS_MAX || asked.spec.selector.match_labels.len() > LABELS_MAX {
        return wrong(format!("labels: more than {LABELS_MAX}"));
    }
    if asked.spec.replicas > REPLICAS_MAX {
        return wrong(format!("spec.replicas: more than {REPLICAS_MAX}"));
    }
    if asked.spec.resources.memory.0 == 0 || asked.spec.resources.cpu.0 == 0 {
        return wrong("spec.resources: a replica needs some CPU and some memory".to_owned());
    }
    if asked.spec.rollout.probation.0 > PROBATION_MS_MAX {
        return wrong("spec.rollout.probation: more than 7d".to_owned());
    }
    Ok(())
}
