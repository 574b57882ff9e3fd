//! Why there is no answer, for every door.

use axum::http::StatusCode;
use muster_shared::door::oip::BadPath;

use crate::json::BadJson;
use crate::worker::queue::PredictError;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Whose fault it is, and whether to come again.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

/// Whose fault it is, and whether to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong.
    Bad,
    /// Nobody knows what it names.
    Unknown,
    /// The path takes another method.
    Method,
    /// It may not be asked for here.
    Forbidden,
    /// Triton has it, we do not.
    Absent,
    /// Too many requests: come again.
    Busy,
    /// Not now: come again.
    Unavailable,
    /// No answer in time.
    Late,
    /// The model's process broke over it, or we did.
    Failed,
}

impl Refusal {
    /// The request is wrong.
    pub fn bad(text: impl Into<String>) -> Self {
        Self { kind: Kind::Bad, text: text.into() }
    }

    /// Nobody knows what it names.
    pub fn unknown(text: impl Into<String>) -> Self {
        Self { kind: Kind::Unknown, text: text.into() }
    }

    /// It is our fault.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, text: text.into() }
    }

    /// What Triton has and we do not.
    pub fn absent(what: &str) -> Self {
        Self { kind: Kind::Absent, text: format!("this server has no {what}") }
    }

    /// For HTTP.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Bad => StatusCode::BAD_REQUEST,
            Kind::Unknown => StatusCode::NOT_FOUND,
            Kind::Method => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Absent => StatusCode::NOT_IMPLEMENTED,
            Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Late => StatusCode::GATEWAY_TIMEOUT,
            Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<BadJson> for Refusal {
    fn from(error: BadJson) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<jiter::JiterError> for Refusal {
    fn from(error: jiter::JiterError) -> Self {
        Self::bad(format!("the request cannot be read: {error}"))
    }
}

impl From<BadPath> for Refusal {
    fn from(error: BadPath) -> Self {
        let kind = match error {
            BadPath::Unknown(_) => Kind::Unknown,
            BadPath::Method { .. } => Kind::Method,
            BadPath::Version(_) => Kind::Bad,
        };
        Self { kind, text: error.to_string() }
    }
}

impl From<PredictError> for Refusal {
    fn from(error: PredictError) -> Self {
        let kind = match error {
            PredictError::Busy => Kind::Busy,
            PredictError::Gone | PredictError::Killed => Kind::Unavailable,
            PredictError::Died => Kind::Failed,
            PredictError::Late => Kind::Late,
            PredictError::Model(_) => Kind::Bad,
        };
        Self { kind, text: error.to_string() }
    }
}
