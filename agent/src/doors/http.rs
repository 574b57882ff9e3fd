//! A request to a door and its answer, whoever brought it: a socket, or a call of the gateway's.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use muster_shared::{Version, door};

/// How much of a body is JSON, where tensors follow it: the Open Inference Protocol's binary extension.
pub const JSON_BYTES: HeaderName = HeaderName::from_static(door::JSON_BYTES_HEADER);

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// `GET` or `POST`, mostly.
    pub method: &'a Method,
    /// The path, as it was written.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, whole and unpacked.
    pub body: &'a Bytes,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The version that answered, for the header `Muster-Version`.
    pub version: Option<Version>,
    /// What the body is, and headers of the door's own. With `Content-Encoding: identity` the body is
    /// never packed on its way.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// JSON that is no prediction.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Self { status, version: None, headers, body: body.to_string().into() }
    }

    /// An error as JSON, in the form that both HTTP doors have.
    pub fn error(status: StatusCode, text: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": text }))
    }

    /// A text for people.
    pub fn text(status: StatusCode, text: String) -> Self {
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))];
        Self { status, version: None, headers, body: text.into() }
    }
}
