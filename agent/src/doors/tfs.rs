//! TF Serving's REST API (tensorflow.org/tfx/serving/api_rest).

use axum::http::StatusCode;

use super::http::{Answer, Ask};
use crate::table::Table;

/// Answers one request, whoever brought it.
pub async fn answer(_table: &Table, _ask: Ask<'_>) -> Answer {
    Answer::json(StatusCode::NOT_FOUND, &serde_json::json!({ "error": "not yet" }))
}
