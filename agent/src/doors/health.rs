//! `/healthz`: the agent runs. `/readyz`: every model that it shall serve answers. `/metrics`: what is
//! counted, also where TF Serving has it.

use axum::http::{HeaderValue, Method, StatusCode, header};

use super::http::{Answer, Ask};
use crate::metrics;
use crate::table::{Table, VersionState};

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
    let mut waiting = String::new();
    for (name, versions) in table.models() {
        let answers = versions.iter().any(|version| version.state == VersionState::Available);
        if !answers {
            let why = versions.iter().find_map(|version| version.error.clone());
            let why = why.unwrap_or_else(|| "is being loaded".to_owned());
            waiting.push_str(&format!("{name}: {why}\n"));
        }
    }
    if waiting.is_empty() { (StatusCode::OK, "ok\n".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, waiting) }
}
