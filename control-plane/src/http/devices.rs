//! Devices: what they are, what they hold, how they fare.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use muster_shared::api::Problem;
use muster_shared::api::dashboard::History;
use muster_shared::api::fleet::{DeviceView, ModelView, Schedule};
use muster_shared::api::members::{Departure, Revoke, Standing};
use muster_shared::command::Order;
use muster_shared::id::Generation;
use muster_shared::limits::clip;
use muster_shared::telemetry::HostSample;
use muster_shared::{DeviceId, Digest, id};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson, ApiPath, ApiQuery};
use crate::chunk_server::ChunkCount;
use crate::db::devices::DeviceRecord;
use crate::db::{self, DbError};
use crate::gateway::commands;
use crate::live::{LiveDevice, Stranger};
use crate::now_ms;
use crate::plane::Plane;
use crate::status::Facts;
use crate::trust::members;

/// A history's length, where nothing is said.
const HISTORY_MINUTES: u64 = 60;
/// The longest history: telemetry is not kept for longer.
const HISTORY_MINUTES_MAX: u64 = 7 * 24 * 60;

/// Calls that need a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, forget))
        .routes(routes!(approve))
        .routes(routes!(decommission))
        .routes(routes!(revoke))
        .routes(routes!(chunks))
        .routes(routes!(history))
        .routes(routes!(diagnosis))
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(drain))
}

/// The devices, by id.
#[utoipa::path(get, path = "/devices", tag = "devices", responses((status = 200, body = Vec<DeviceView>)))]
async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<Vec<DeviceView>>, ApiError> {
    let records = db::devices::list(plane.db.read()).await?;
    let mut known = Known::read(&plane).await?;
    let mut views: Vec<DeviceView> = records.into_iter().map(|record| known.view(&plane, record)).collect();
    views.extend(plane.live.strangers().into_iter().map(stranger_view));
    Ok(Json(views))
}

/// One device.
#[utoipa::path(get, path = "/devices/{id}", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404, body = Problem)))]
async fn get(State(plane): State<Arc<Plane>>, ApiPath(id): ApiPath<DeviceId>) -> Result<Json<DeviceView>, ApiError> {
    let Some(record) = db::devices::get(plane.db.read(), &id).await? else {
        let stranger = plane.live.strangers().remove(&id).ok_or_else(|| not_found(&id))?;
        return Ok(Json(stranger_view((id, stranger))));
    };
    Ok(Json(Known::read(&plane).await?.view(&plane, record)))
}

/// A device that an operator has yet to take back: only its certificate is known.
fn stranger_view((id, stranger): (DeviceId, Stranger)) -> DeviceView {
    DeviceView {
        connected: false,
        silent_since_ms: None,
        schedule: Schedule::Open,
        standing: Standing::Held,
        standing_why: Some(
            "it has a certificate of this control plane, whose database does not know it; `muster approve` takes it back"
                .to_owned(),
        ),
        departure: None,
        last_seen_ms: Some(stranger.last_seen_ms),
        enrolled_ms: stranger.last_seen_ms,
        fingerprint: stranger.key.fingerprint(),
        labels: id::Labels::new(),
        desired: None,
        applied: None,
        facts: None,
        health: None,
        slots: vec![],
        refusals: vec![],
        desired_refused: None,
        notes: vec![],
        host: None,
        models: vec![],
        id,
    }
}

/// Lets a device in that waits, takes one back that is held, lets a cloned one go on.
#[utoipa::path(post, path = "/devices/{id}/approve", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn approve(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
) -> Result<Json<DeviceView>, ApiError> {
    members::approve(&plane, &id).await?;
    get(State(plane), ApiPath(id)).await
}

/// The device leaves the fleet: it gets nothing but the word to empty itself, and its key is revoked once it said
/// that it has. `departure` says so.
#[utoipa::path(post, path = "/devices/{id}/decommission", tag = "devices", params(("id" = String, Path)),
    request_body = Revoke,
    responses((status = 200, body = DeviceView), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn decommission(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
    ApiJson(asked): ApiJson<Revoke>,
) -> Result<Json<DeviceView>, ApiError> {
    members::decommission(&plane, &id, &asked.reason).await?;
    get(State(plane), ApiPath(id)).await
}

/// The device's key is revoked: it is cut off at once, and never comes back. It is shown until it is
/// deleted; one that was held is forgotten at once.
#[utoipa::path(post, path = "/devices/{id}/revoke", tag = "devices", params(("id" = String, Path)),
    request_body = Revoke, responses((status = 200, body = DeviceView), (status = 404, body = Problem)))]
async fn revoke(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
    ApiJson(asked): ApiJson<Revoke>,
) -> Result<Json<DeviceView>, ApiError> {
    let stranger = plane.live.strangers().remove(&id);
    members::revoke(&plane, &id, &asked.reason).await?;
    match (db::devices::get(plane.db.read(), &id).await?, stranger) {
        (None, Some(stranger)) => {
            let view = stranger_view((id, stranger));
            Ok(Json(DeviceView { standing: Standing::Revoked, standing_why: Some(asked.reason), ..view }))
        }
        _ => get(State(plane), ApiPath(id)).await,
    }
}

/// Forgets a revoked device: its name is free, its key stays revoked.
#[utoipa::path(delete, path = "/devices/{id}", tag = "devices", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn forget(State(plane): State<Arc<Plane>>, ApiPath(id): ApiPath<DeviceId>) -> Result<StatusCode, ApiError> {
    members::forget(&plane, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Nothing new comes to the device; what is there stays.
#[utoipa::path(post, path = "/devices/{id}/cordon", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404, body = Problem)))]
async fn cordon(State(plane): State<Arc<Plane>>, ApiPath(id): ApiPath<DeviceId>) -> Result<Json<DeviceView>, ApiError> {
    schedule(&plane, &id, Schedule::Cordoned).await
}

/// Replicas may come to the device again.
#[utoipa::path(post, path = "/devices/{id}/uncordon", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404, body = Problem)))]
async fn uncordon(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
) -> Result<Json<DeviceView>, ApiError> {
    schedule(&plane, &id, Schedule::Open).await
}

/// Nothing new comes to the device, and what is there moves elsewhere; each replica serves until
/// another one serves in its place.
#[utoipa::path(post, path = "/devices/{id}/drain", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = DeviceView), (status = 404, body = Problem)))]
async fn drain(State(plane): State<Arc<Plane>>, ApiPath(id): ApiPath<DeviceId>) -> Result<Json<DeviceView>, ApiError> {
    schedule(&plane, &id, Schedule::Draining).await
}

async fn schedule(plane: &Plane, id: &DeviceId, schedule: Schedule) -> Result<Json<DeviceView>, ApiError> {
    db::devices::set_schedule(plane.db.write(), id, schedule).await?;
    plane.nudges.planner.notify_one();
    let record = db::devices::get(plane.db.read(), id).await?.ok_or_else(|| not_found(id))?;
    Ok(Json(Known::read(plane).await?.view(plane, record)))
}

/// There is no such device.
pub fn not_found(id: &DeviceId) -> ApiError {
    ApiError::not_found("device", id).hint("see `muster get devices`")
}

/// How much of a history to show.
#[derive(Debug, Deserialize)]
struct Span {
    minutes: Option<u64>,
}

/// A device's telemetry of the last minutes, summed up into at most 300 points.
#[utoipa::path(get, path = "/devices/{id}/history", tag = "devices",
    params(("id" = String, Path), ("minutes" = Option<u64>, Query, description = "60, where nothing is said; at most 7 days")),
    responses((status = 200, body = History), (status = 404, body = Problem)))]
async fn history(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
    ApiQuery(span): ApiQuery<Span>,
) -> Result<Json<History>, ApiError> {
    if !db::devices::exists(plane.db.read(), &id).await? {
        return Err(not_found(&id));
    }
    let minutes = span.minutes.unwrap_or(HISTORY_MINUTES).clamp(1, HISTORY_MINUTES_MAX);
    let until_ms = now_ms();
    let from_ms = until_ms.saturating_sub(minutes * 60_000);
    Ok(Json(db::history::of(plane.telemetry.connection(), &id, (from_ms, until_ms)).await?))
}

/// What a device believes and why it does what it does, in its own words: asked of it by a signed command.
#[utoipa::path(get, path = "/devices/{id}/diagnosis", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = Object, description = "JSON of the device's own making"),
        (status = 404, body = Problem), (status = 502, body = Problem), (status = 503, body = Problem)))]
async fn diagnosis(
    State(plane): State<Arc<Plane>>,
    ApiPath(id): ApiPath<DeviceId>,
) -> Result<Json<serde_json::Value>, ApiError> {
    if !db::devices::exists(plane.db.read(), &id).await? {
        return Err(not_found(&id));
    }
    let answer = commands::order(&plane, &id, Order::Diagnose).await?;
    let bad = |text: String| ApiError::new(StatusCode::BAD_GATEWAY, format!("{id} did not do it: {}", clip(text)));
    if answer.status != 200 {
        return Err(bad(String::from_utf8_lossy(&answer.body).into_owned()));
    }
    serde_json::from_slice(&answer.body).map(Json).map_err(|_| bad("what it said is no JSON".to_owned()))
}

/// What a device was sent of each chunk, since this plane started.
#[utoipa::path(get, path = "/devices/{id}/chunks", tag = "devices", params(("id" = String, Path)),
    responses((status = 200, body = Vec<ChunkCount>)))]
async fn chunks(State(plane): State<Arc<Plane>>, ApiPath(id): ApiPath<DeviceId>) -> Json<Vec<ChunkCount>> {
    Json(plane.chunks.chunks(&id))
}

/// What is known of devices beside their own rows.
pub(super) struct Known {
    hosts: BTreeMap<DeviceId, HostSample>,
    models: BTreeMap<DeviceId, Vec<ModelView>>,
    desired: BTreeMap<DeviceId, (Generation, Digest)>,
    standings: BTreeMap<DeviceId, (Standing, String)>,
    departures: BTreeMap<DeviceId, Departure>,
    /// What statuses follow from.
    pub(super) facts: Facts,
}

impl Known {
    pub(super) async fn read(plane: &Plane) -> Result<Self, DbError> {
        // Before the departures: who is revoked by then because it is empty has said so.
        let stands = |live: &LiveDevice| (live.standing, live.standing_why.clone());
        let standings =
            plane.live.read(|devices| devices.iter().map(|(id, live)| (id.clone(), stands(live))).collect());
        Ok(Self {
            standings,
            departures: db::departures::list(plane.db.read()).await?,
            hosts: db::telemetry::hosts(plane.telemetry.connection()).await?,
            models: db::telemetry::models(plane.telemetry.connection()).await?,
            desired: db::desired::generations(plane.db.read()).await?,
            facts: Facts::read(plane).await?,
        })
    }

    /// One device as people see it; each is asked for once.
    pub(super) fn view(&mut self, plane: &Plane, record: DeviceRecord) -> DeviceView {
        let live = plane.live.get(&record.id);
        let (standing, standing_why) = self.standings.remove(&record.id).unwrap_or((Standing::Member, String::new()));
        let reported = record.reported;
        let mut labels: id::Labels = reported.as_ref().map(|it| it.facts.labels.clone()).unwrap_or_default();
        labels.extend(record.labels);
        let mut models = self.models.remove(&record.id).unwrap_or_default();
        for model in &mut models {
            // Of the version that answers now: the figures are of the last minute.
            let running =
                reported.as_ref().and_then(|it| it.slots.iter().find(|slot| slot.deployment == model.deployment));
            let running = running.and_then(|slot| slot.running.as_ref()).map(|bundle| bundle.version.get());
            if running == Some(model.version) {
                model.figures = self.facts.figures(&record.id, &model.deployment);
            }
        }
        let silence = self.facts.liveness.silent.get(&record.id);
        DeviceView {
            silent_since_ms: silence.map(|silence| silence.since_ms),
            schedule: record.schedule,
            standing,
            standing_why: Some(standing_why).filter(|why| !why.is_empty()),
            connected: live.as_ref().is_some_and(|live| live.connected),
            departure: self.departures.remove(&record.id),
            last_seen_ms: live.and_then(|live| live.last_seen_ms).max(record.last_seen_ms),
            enrolled_ms: record.enrolled_ms,
            fingerprint: record.key.fingerprint(),
            labels,
            desired: self.desired.get(&record.id).map(|(generation, _)| *generation),
            applied: reported.as_ref().and_then(|reported| reported.applied),
            facts: reported.as_ref().map(|reported| reported.facts.clone()),
            health: reported.as_ref().map(|reported| reported.health.clone()),
            slots: reported.as_ref().map(|reported| reported.slots.clone()).unwrap_or_default(),
            refusals: reported.as_ref().map(|reported| reported.refusals.clone()).unwrap_or_default(),
            notes: reported.as_ref().map(|reported| reported.notes.clone()).unwrap_or_default(),
            desired_refused: reported.and_then(|reported| reported.desired_refused),
            host: self.hosts.remove(&record.id),
            models,
            id: record.id,
        }
    }
}
