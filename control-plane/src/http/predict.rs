//! TensorFlow Serving's REST API by deployment name: `/v1/models/M`, `/v1/models/M/versions/V`,
//! `…:predict`. axum cannot split at the colon, so this does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use muster_shared::limits::CALL_BODY_BYTES_MAX;
use muster_shared::message::Door;
use muster_shared::{DeploymentName, Version};

use super::error::{tf_serving, tf_serving_error};
use crate::gateway::{self, Answer, Ask, GatewayError};
use crate::plane::Plane;

/// Which device answered.
const DEVICE: HeaderName = HeaderName::from_static("muster-device");
/// Which version answered.
const VERSION: HeaderName = HeaderName::from_static("muster-version");

/// How long the asker waits, in milliseconds.
const DEADLINE_MS: HeaderName = HeaderName::from_static("muster-deadline-ms");

/// The gateway's paths.
pub fn routes() -> Router<Arc<Plane>> {
    Router::new().route("/v1/models/{*rest}", any(model))
}

async fn model(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let Some(target) = path.strip_prefix("/v1/models/").and_then(|rest| Target::parse(&parts.method, rest)) else {
        return tf_serving(StatusCode::BAD_REQUEST, &format!("Malformed request: {} {path}", parts.method));
    };
    // A name that no deployment can have is one that is not there.
    let Ok(deployment) = target.name.parse::<DeploymentName>() else {
        return tf_serving(StatusCode::NOT_FOUND, &format!("Servable not found for request: Latest({})", target.name));
    };
    let Some(body) = read(body).await else {
        let text = format!("the request is larger than {CALL_BODY_BYTES_MAX} bytes: ask a device's own door");
        return tf_serving(StatusCode::PAYLOAD_TOO_LARGE, &text);
    };
    let (post, rest) = (target.predicts, target.rest.to_owned());
    let Some(deadline) = deadline(&parts.headers) else {
        let text = format!("{DEADLINE_MS}: write milliseconds, 1 to {}", gateway::DEADLINE_MAX.as_millis());
        return tf_serving(StatusCode::BAD_REQUEST, &text);
    };
    let (version, door, json_bytes) = (target.version, Door::TfServing, None);
    match gateway::ask(&plane, Ask { deployment, version, door, post, rest, json_bytes, body, deadline }).await {
        Ok(answer) => respond(answer),
        Err(error) => not_answered(post, &error),
    }
}

/// How long the asker waits; nothing if what it says is no time.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let Some(said) = headers.get(DEADLINE_MS) else { return Some(gateway::DEADLINE) };
    let deadline = Duration::from_millis(said.to_str().ok()?.parse().ok()?);
    (!deadline.is_zero() && deadline <= gateway::DEADLINE_MAX).then_some(deadline)
}

/// TensorFlow Serving says it differently where a status was asked for.
fn not_answered(predicts: bool, error: &GatewayError) -> Response {
    match (predicts, error) {
        (false, GatewayError::UnknownDeployment(name)) => {
            tf_serving(StatusCode::NOT_FOUND, &format!("Could not find any versions of model {name}"))
        }
        (false, GatewayError::UnknownVersion(name, version)) => {
            tf_serving(StatusCode::NOT_FOUND, &format!("Could not find version {version} of model {name}"))
        }
        _ => tf_serving_error(error),
    }
}

/// The whole body; nothing if it is too long, or broke off, which nobody is left to be told.
async fn read(body: Body) -> Option<Vec<u8>> {
    to_bytes(body, CALL_BODY_BYTES_MAX).await.ok().map(|bytes| bytes.to_vec())
}

/// What a device said, as it said it.
fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(device) = HeaderValue::from_str(answer.device.as_str()) {
        headers.insert(DEVICE, device);
    }
    if let Some(version) = answer.version {
        headers.insert(VERSION, HeaderValue::from(version.get()));
    }
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What a path below `/v1/models/` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target<'a> {
    name: &'a str,
    version: Option<Version>,
    predicts: bool,
    /// What stands behind the name.
    rest: &'a str,
}

impl<'a> Target<'a> {
    fn parse(method: &Method, rest: &'a str) -> Option<Self> {
        let (path, predicts) = match rest.split_once(':') {
            Some((path, "predict")) if method == Method::POST => (path, true),
            None if method == Method::GET || method == Method::HEAD => (rest, false),
            _ => return None,
        };
        let (name, version) = match path.split_once('/') {
            None => (path, None),
            Some((name, rest)) => (name, Some(rest.strip_prefix("versions/")?.parse().ok()?)),
        };
        (!name.is_empty()).then_some(Self { name, version, predicts, rest: &rest[name.len()..] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asker_may_say_how_long_it_waits() {
        for (said, expected) in [
            (None, Some(gateway::DEADLINE)),
            (Some("250"), Some(Duration::from_millis(250))),
            (Some("25000"), Some(gateway::DEADLINE_MAX)),
            (Some("25001"), None),
            (Some("0"), None),
            (Some("-1"), None),
            (Some("soon"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(DEADLINE_MS, said.parse().expect("a header"));
            }
            assert_eq!(deadline(&headers), expected, "{said:?}");
        }
    }

    #[test]
    fn paths_are_read_as_tensorflow_serving_reads_them() {
        let version = Version::new;
        for (method, path, expected) in [
            (Method::GET, "digits", Some(("digits", None, false, ""))),
            (Method::GET, "digits/versions/7", Some(("digits", version(7), false, "/versions/7"))),
            (Method::POST, "digits:predict", Some(("digits", None, true, ":predict"))),
            (Method::POST, "digits/versions/7:predict", Some(("digits", version(7), true, "/versions/7:predict"))),
            (Method::GET, "digits:predict", None),
            (Method::POST, "digits", None),
            (Method::POST, "digits:regress", None),
            (Method::POST, ":predict", None),
            (Method::POST, "digits/versions/0:predict", None),
            (Method::POST, "digits/versions/x:predict", None),
            (Method::POST, "digits/versions/7/8:predict", None),
            (Method::POST, "digits/labels/stable:predict", None),
            (Method::POST, "digits:predict:predict", None),
            (Method::GET, "", None),
        ] {
            let target = Target::parse(&method, path);
            let expected = expected.map(|(name, version, predicts, rest)| Target { name, version, predicts, rest });
            assert_eq!(target, expected, "{method} {path}");
        }
    }
}
