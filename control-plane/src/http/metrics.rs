//! Counters as text, in the exposition format of Prometheus.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::plane::Plane;

/// Devices that get a line of their own; the rest are in the sums only.
const LABELLED_DEVICES_MAX: usize = 1000;

/// `GET /metrics`.
pub fn routes() -> Router<Arc<Plane>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(plane): State<Arc<Plane>>) -> Response {
    let mut response = text(&plane).into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(plane: &Plane) -> String {
    let (enrolled, connected) =
        plane.live.read(|devices| (devices.len(), devices.values().filter(|device| device.connected).count()));
    let (all, devices) = plane.chunks.served();
    let mut text = String::new();
    let mut line = |text_line: std::fmt::Arguments<'_>| {
        // A String takes everything.
        let _ = writeln!(text, "{text_line}");
    };
    line(format_args!("# TYPE muster_devices gauge"));
    line(format_args!("muster_devices{{state=\"enrolled\"}} {enrolled}"));
    line(format_args!("muster_devices{{state=\"connected\"}} {connected}"));
    line(format_args!("# TYPE muster_chunk_frames_total counter"));
    line(format_args!("muster_chunk_frames_total {}", all.frames));
    line(format_args!("# TYPE muster_chunk_bytes_total counter"));
    line(format_args!("muster_chunk_bytes_total {}", all.bytes));
    line(format_args!("# TYPE muster_device_chunk_frames_total counter"));
    for (id, served) in devices.iter().take(LABELLED_DEVICES_MAX) {
        line(format_args!("muster_device_chunk_frames_total{{device=\"{id}\"}} {}", served.frames));
    }
    line(format_args!("# TYPE muster_device_chunk_bytes_total counter"));
    for (id, served) in devices.iter().take(LABELLED_DEVICES_MAX) {
        line(format_args!("muster_device_chunk_bytes_total{{device=\"{id}\"}} {}", served.bytes));
    }
    text
}
