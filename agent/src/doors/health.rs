//! `/healthz`: the agent runs. `/readyz`: every model that it shall serve answers.

use axum::http::{Method, StatusCode};

use super::http::{Answer, Ask};
use crate::table::{Table, VersionState};

/// Answers where it is asked for one of these.
pub fn answer(table: &Table, ask: Ask<'_>) -> Option<Answer> {
    let text = match ask.path {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => ready(table),
        _ => return None,
    };
    let (status, text) = if matches!(*ask.method, Method::GET | Method::HEAD) {
        text
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, "GET\n".into())
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
