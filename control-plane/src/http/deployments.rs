//! Deployments: what operators want, and how far it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use muster_shared::DeploymentName;
use muster_shared::api::Problem;
use muster_shared::api::deployment::{API_VERSION, Deployment, KIND, Rollout, Scale, Spec};
use muster_shared::limits::LABELS_MAX;
use muster_shared::quantity::CountOrPercent;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath};
use crate::db::{self, deployments::DeploymentRecord};
use crate::now_ms;
use crate::plane::Plane;
use crate::status::{self, Facts};

/// Replicas of one deployment.
const REPLICAS_MAX: u32 = 100_000;
/// The longest time that a deployment may give for anything.
const TIME_MS_MAX: u64 = 7 * 86_400_000;
/// The shortest time that a device may be silent before its replicas move.
const GRACE_MS_MIN: u64 = 1_000;
/// The shortest time that a device gets to make progress.
const DEADLINE_MS_MIN: u64 = 1_000;
/// Waves of one rollout.
const WAVES_MAX: usize = 100;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put, delete)).routes(routes!(scale))
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
    let record = record.ok_or_else(|| not_found(&name))?;
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
        return Err(not_found(&name));
    }
    plane.nudges.planner.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Changes how many replicas are wanted, and nothing else.
#[utoipa::path(put, path = "/deployments/{name}/scale", tag = "deployments", params(("name" = String, Path)),
    request_body = Scale,
    responses((status = 200, body = Deployment), (status = 404, body = Problem), (status = 422, body = Problem)))]
async fn scale(
    State(plane): State<Arc<Plane>>,
    ApiPath(name): ApiPath<DeploymentName>,
    ApiJson(asked): ApiJson<Scale>,
) -> Result<Json<Deployment>, ApiError> {
    let transaction = plane.db.begin().await?;
    let held = db::deployments::get(&transaction, &name).await?;
    let mut record = held.ok_or_else(|| not_found(&name))?;
    if record.spec.every_device {
        let text = format!("{name} runs on every matching device: it has no number of replicas");
        return Err(ApiError::new(StatusCode::CONFLICT, text).hint("apply it without `everyDevice` first"));
    }
    if record.spec.replicas != asked.replicas {
        record.spec.replicas = asked.replicas;
        record.generation += 1;
        check_spec(&record.spec)?;
        db::deployments::put(&transaction, &record, now_ms()).await?;
        db::commit(transaction).await?;
        plane.nudges.planner.notify_one();
    }
    Ok(Json(status::resource(&record, &Facts::read(&plane).await?)))
}

/// There is no such deployment.
pub fn not_found(name: &DeploymentName) -> ApiError {
    ApiError::not_found("deployment", name).hint("see `muster get deployments`")
}

/// What the types cannot say.
pub fn check(name: &DeploymentName, asked: &Deployment) -> Result<(), ApiError> {
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
    check_spec(&asked.spec)
}

fn check_spec(spec: &Spec) -> Result<(), ApiError> {
    let wrong = |text: String| Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    if spec.replicas > REPLICAS_MAX {
        return wrong(format!("spec.replicas: more than {REPLICAS_MAX}"));
    }
    if spec.every_device && spec.replicas != 1 {
        return wrong("spec: write either `replicas` or `everyDevice: true`".to_owned());
    }
    if spec.resources.memory.0 == 0 || spec.resources.cpu.0 == 0 {
        return wrong("spec.resources: a replica needs some CPU and some memory".to_owned());
    }
    for (key, time) in [
        ("spec.rollout.probation", spec.rollout.probation),
        ("spec.rollout.progressDeadline", spec.rollout.progress_deadline),
        ("spec.deviceLossGrace", spec.device_loss_grace),
    ] {
        if time.0 > TIME_MS_MAX {
            return wrong(format!("{key}: more than 7d"));
        }
    }
    if spec.rollout.progress_deadline.0 < DEADLINE_MS_MIN {
        return wrong("spec.rollout.progressDeadline: less than 1s".to_owned());
    }
    if spec.device_loss_grace.0 < GRACE_MS_MIN {
        return wrong(
            "spec.deviceLossGrace: less than 1s; a device that connects anew is silent for a moment".to_owned(),
        );
    }
    check_waves(&spec.rollout)
}

/// Each wave reaches more devices than the one before.
fn check_waves(rollout: &Rollout) -> Result<(), ApiError> {
    let wrong = |text: String| Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    if rollout.waves.len() > WAVES_MAX {
        return wrong(format!("spec.rollout.waves: more than {WAVES_MAX}"));
    }
    if rollout.waves.iter().any(|wave| wave.of(u32::MAX) == 0) {
        return wrong("spec.rollout.waves: a wave of no device".to_owned());
    }
    let grows = |pair: &[CountOrPercent]| match (pair[0], pair[1]) {
        (CountOrPercent::Count(before), CountOrPercent::Count(after)) => before < after,
        (CountOrPercent::Percent(before), CountOrPercent::Percent(after)) => before < after,
        // A number and a share can be compared only on a fleet; a wave that adds nothing is left out there.
        _ => true,
    };
    if !rollout.waves.windows(2).all(grows) {
        return wrong("spec.rollout.waves: each wave must be larger than the one before".to_owned());
    }
    Ok(())
}
