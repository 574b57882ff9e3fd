//! `/healthz`: the agent runs. `/readyz`: every model that it shall serve answers. `/metrics`: what is
//! counted, also where TF Serving has it.

use axum::http::{HeaderValue, Method, StatusCode, header};

use super::http::{Answer, Ask};
use crate::metrics;
use crate::table::Table;

/// Answers where it is asked for one of these.
pub fn answer(table: &Table, ask: Ask<'_>) -> Option<Answer> {
    let reads = matches!(*ask.method, Method::GET | Method::HEAD);
    let (status, text) = match ask.path {
        "/metrics" | "/monitoring/prometheus/metrics" if reads => {
            let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE))];
            let body = table.metrics.text().into();
            return Some(Answer { status: StatusCode::OK, version: None, headers, body });
        }
        "/metrics" | "/monitoring/prometheus/metrics" | "/healthz" | "/readyz" if !reads => {
            (StatusCode::METHOD_NOT_ALLOWED, "GET\n".to_owned())
        }
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(table),
        _ => return None,
    };
    Some(Answer::text(status, text))
}

fn ready(table: &Table) -> (StatusCode, String) {
    let waiting: String = table.waiting().iter().map(|(name, why)| format!("{name}: {why}\n")).collect();
    if waiting.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, waiting) }
}
