//! Counters and figures as text, in the exposition format of Prometheus. Label values come from names
//! that are checked when they are made, so none needs escaping.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use muster_shared::api::deployment::RolloutStage;
use muster_shared::api::fleet::ModelView;
use muster_shared::figures::Figures;
use muster_shared::{DeploymentName, DeviceId};

use super::error::ApiError;
use crate::db;
use crate::plane::Plane;
use crate::status::{self, Facts};

/// Devices that get a line of their own; the rest are in the sums only.
const LABELLED_DEVICES_MAX: usize = 1000;
/// Models on devices that get a line of their own.
const LABELLED_MODELS_MAX: usize = 4000;

/// `GET /metrics`.
pub fn routes() -> Router<Arc<Plane>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(plane): State<Arc<Plane>>) -> Result<Response, ApiError> {
    let mut text = Text::default();
    devices(&plane, &mut text);
    chunks(&plane, &mut text);
    let facts = Facts::read(&plane).await?;
    deployments(&plane, &facts, &mut text).await?;
    models(&plane, &facts, &mut text).await?;
    let mut response = text.0.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn devices(plane: &Plane, text: &mut Text) {
    let (enrolled, connected) =
        plane.live.read(|devices| (devices.len(), devices.values().filter(|device| device.connected).count()));
    text.family("muster_devices", "gauge", "Devices, by state.");
    text.line("muster_devices", &[("state", &"enrolled")], enrolled);
    text.line("muster_devices", &[("state", &"connected")], connected);
}

fn chunks(plane: &Plane, text: &mut Text) {
    let (all, devices) = plane.chunks.served();
    text.family("muster_chunk_frames_total", "counter", "Frames of bundles sent.");
    text.line("muster_chunk_frames_total", &[], all.frames);
    text.family("muster_chunk_bytes_total", "counter", "Bytes of bundles sent.");
    text.line("muster_chunk_bytes_total", &[], all.bytes);
    text.family("muster_device_chunk_frames_total", "counter", "Frames of bundles sent to a device.");
    for (id, served) in devices.iter().take(LABELLED_DEVICES_MAX) {
        text.line("muster_device_chunk_frames_total", &[("device", id)], served.frames);
    }
    text.family("muster_device_chunk_bytes_total", "counter", "Bytes of bundles sent to a device.");
    for (id, served) in devices.iter().take(LABELLED_DEVICES_MAX) {
        text.line("muster_device_chunk_bytes_total", &[("device", id)], served.bytes);
    }
}

async fn deployments(plane: &Plane, facts: &Facts, text: &mut Text) -> Result<(), ApiError> {
    let records = db::deployments::list(plane.db.read()).await?;
    let statuses: Vec<_> =
        records.iter().take(LABELLED_MODELS_MAX).map(|record| (&record.name, status::status(record, facts))).collect();
    text.family("muster_replicas", "gauge", "Replicas of a deployment, wanted and ready.");
    for (name, status) in &statuses {
        text.line("muster_replicas", &[("deployment", name), ("state", &"wanted")], status.wanted);
        text.line("muster_replicas", &[("deployment", name), ("state", &"ready")], status.ready);
    }
    text.family("muster_rollout", "gauge", "1 for the stage that a deployment's rollout is in.");
    for (name, status) in &statuses {
        let Some(rollout) = &status.rollout else { continue };
        let stage = match rollout.stage {
            RolloutStage::Running => "running",
            RolloutStage::Paused => "paused",
            RolloutStage::Stopped => "stopped",
            RolloutStage::Undone => "undone",
            RolloutStage::Done => "done",
        };
        text.line("muster_rollout", &[("deployment", name), ("stage", &stage)], 1);
    }
    text.family("muster_moves_frozen", "gauge", "Groups of devices that fell silent together, so that nothing moves.");
    text.line("muster_moves_frozen", &[], facts.liveness.freezes.len());
    Ok(())
}

type Figure = (&'static str, &'static str, fn(&Figures) -> Option<f64>);

/// The figures of the last minute; R and A as everywhere else.
const FIGURES: [Figure; 6] = [
    ("muster_model_share", "Share of the device's processors that a model was granted.", |it| it.share),
    ("muster_model_requests_per_second", "Predictions asked for in a second.", |it| Some(it.requests_per_second)),
    ("muster_model_core_ms_per_prediction", "R: core-milliseconds for one prediction.", |it| it.core_ms_per_prediction),
    ("muster_model_cores_demanded", "A: cores demanded.", |it| Some(it.cores_demanded)),
    ("muster_model_latency_p50_ms", "Median latency in milliseconds.", |it| it.p50_ms),
    ("muster_model_latency_p99_ms", "99th percentile of latency in milliseconds.", |it| it.p99_ms),
];

type Total = (&'static str, &'static str, fn(&ModelView) -> u64);

/// What was counted as long as telemetry is kept.
const TOTALS: [Total; 3] = [
    ("muster_model_requests_total", "Predictions asked for.", |it| it.requests),
    ("muster_model_errors_total", "Predictions that failed by our fault or the model's.", |it| it.errors),
    ("muster_model_cpu_us_total", "Processor time of predictions, in microseconds.", |it| it.cpu_us),
];

async fn models(plane: &Plane, facts: &Facts, text: &mut Text) -> Result<(), ApiError> {
    let answering: Vec<(&DeviceId, &DeploymentName, Figures)> = facts
        .sums
        .iter()
        .flat_map(|(id, models)| models.keys().filter_map(move |name| Some((id, name, facts.figures(id, name)?))))
        .take(LABELLED_MODELS_MAX)
        .collect();
    for (name, help, figure) in FIGURES {
        text.family(name, "gauge", help);
        for (device, deployment, figures) in &answering {
            if let Some(value) = figure(figures) {
                text.line(name, &[("device", device), ("deployment", deployment)], value);
            }
        }
    }
    let totals = db::telemetry::models(plane.telemetry.connection()).await?;
    let totals: Vec<(&DeviceId, &ModelView)> = totals
        .iter()
        .flat_map(|(id, models)| models.iter().map(move |model| (id, model)))
        .take(LABELLED_MODELS_MAX)
        .collect();
    for (name, help, total) in TOTALS {
        text.family(name, "counter", help);
        for (device, model) in &totals {
            let labels: [(&str, &dyn Display); 3] =
                [("device", device), ("deployment", &model.deployment), ("version", &model.version)];
            text.line(name, &labels, total(model));
        }
    }
    Ok(())
}

/// The page as it grows.
#[derive(Default)]
struct Text(String);

impl Text {
    /// Begins a family of lines.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // A String takes everything.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_reads_as_prometheus_wants_it() {
        let mut text = Text::default();
        text.family("muster_devices", "gauge", "Devices, by state.");
        text.line("muster_devices", &[("state", &"connected")], 3);
        text.line("muster_moves_frozen", &[], 0.5);
        let expected = "# HELP muster_devices Devices, by state.\n# TYPE muster_devices gauge\n\
                        muster_devices{state=\"connected\"} 3\nmuster_moves_frozen 0.5\n";
        assert_eq!(text.0, expected);
    }
}
