//! A request to a door and its answer, whoever brought it: a socket, or a call of the gateway's.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use muster_shared::Version;

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
    /// What the body is, and headers of the door's own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}
