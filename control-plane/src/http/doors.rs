//! The doors of devices, by deployment name: TensorFlow Serving's REST API below `/v1/models`, the Open
//! Inference Protocol below `/v2`. The paths are read by the same code as on a device, which answers.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http_body_util::LengthLimitError;
use muster_shared::door::oip::{self, BadPath, Model};
use muster_shared::door::tfs::{TfsError, TfsRequest, TfsVerb};
use muster_shared::door::{self, VersionChoice};
use muster_shared::limits::CALL_BODY_BYTES_MAX;
use muster_shared::message::Door;
use muster_shared::{DeploymentName, Version};
use serde_json::json;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate as _};
use tower_http::decompression::RequestDecompressionLayer;

use super::error::{door_error, door_error_of};
use crate::gateway::{self, Answer, Ask, GatewayError};
use crate::plane::Plane;

/// Which device answered.
const DEVICE: HeaderName = HeaderName::from_static(door::DEVICE_HEADER);
/// Which version answered.
const VERSION: HeaderName = HeaderName::from_static(door::VERSION_HEADER);
/// How long the asker waits, in milliseconds.
const DEADLINE_MS: HeaderName = HeaderName::from_static(door::DEADLINE_MS_HEADER);
/// How much of a body is JSON, where tensors follow it.
const JSON_BYTES: HeaderName = HeaderName::from_static(door::JSON_BYTES_HEADER);

/// The gateway's paths.
pub fn routes() -> Router<Arc<Plane>> {
    let tfs = Router::new().route("/v1/models", any(tfs_door)).route("/v1/models/{*rest}", any(tfs_door));
    let oip = ["/v2", "/v2/", "/v2/{*rest}"]
        .into_iter()
        .fold(Router::new(), |router, path| router.route(path, any(oip_door)));
    let packed = DefaultPredicate::new().and(is_prediction);
    let tfs = tfs.layer(CompressionLayer::new());
    let oip = oip.layer(CompressionLayer::new().compress_when(packed));
    tfs.merge(oip).layer(RequestDecompressionLayer::new())
}

/// tritonclient's asyncio client says with every request that it takes gzip, and unpacks the outputs of
/// models only.
fn is_prediction(_: StatusCode, _: axum::http::Version, headers: &HeaderMap, _: &Extensions) -> bool {
    headers.contains_key(VERSION)
}

async fn tfs_door(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let request = match TfsRequest::parse(parts.method.as_str(), parts.uri.path()) {
        Ok(request) => request,
        Err(error) => return refused(&error),
    };
    let version = match request.choice {
        VersionChoice::Latest => None,
        VersionChoice::Version(version) => Some(version),
        // Deployments have one version at a time, and no labels.
        VersionChoice::Label(_) => return refused(&request.not_served()),
    };
    // A name that no deployment can have is one that is not there.
    let Ok(deployment) = request.model.parse::<DeploymentName>() else { return refused(&request.not_served()) };
    let (post, verb) = match request.verb {
        TfsVerb::Status => (false, ""),
        TfsVerb::Metadata => (false, "/metadata"),
        TfsVerb::Predict => (true, ":predict"),
        TfsVerb::Classify => (true, ":classify"),
        TfsVerb::Regress => (true, ":regress"),
    };
    let ask = match ask(&parts, body, Door::TfServing, deployment, version, post, verb).await {
        Ok(ask) => ask,
        Err(response) => return response,
    };
    match gateway::ask(&plane, ask).await {
        Ok(answer) => respond(answer),
        Err(GatewayError::UnknownDeployment(_) | GatewayError::UnknownVersion(..)) => refused(&request.not_served()),
        Err(error) => door_error_of(&error),
    }
}

fn refused(error: &TfsError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
    (status, [(header::CONTENT_TYPE, "application/json")], error.body()).into_response()
}

async fn oip_door(State(plane): State<Arc<Plane>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let request = match oip::parse(parts.method.as_str(), parts.uri.path()) {
        Ok(request) => request,
        Err(error) => {
            let status = match error {
                BadPath::Unknown(_) => StatusCode::NOT_FOUND,
                BadPath::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
                BadPath::Version(_) => StatusCode::BAD_REQUEST,
            };
            return door_error(status, &error.to_string());
        }
    };
    use oip::Request as Asked;
    let (model, post, verb) = match request {
        Asked::Live => return axum::Json(json!({ "live": true })).into_response(),
        Asked::Ready => return axum::Json(json!({ "ready": true })).into_response(),
        Asked::ServerMetadata => return axum::Json(server_metadata()).into_response(),
        Asked::Index => return told_index(&plane, body).await,
        Asked::Load(_) | Asked::Unload(_) => {
            let text =
                "a fleet's models are deployed, not loaded: `muster apply` and `muster scale` say what shall serve";
            return door_error(StatusCode::FORBIDDEN, text);
        }
        Asked::SharedMemoryStatus => return axum::Json(json!([])).into_response(),
        Asked::Absent(what) => {
            return door_error(StatusCode::NOT_IMPLEMENTED, &format!("this server has no {what}"));
        }
        Asked::Statistics(None) => {
            let text = "the gateway counts for one deployment: ask for /v2/models/NAME/stats, or a device's own door";
            return door_error(StatusCode::NOT_FOUND, text);
        }
        Asked::ModelReady(model) => (model, false, "/ready"),
        Asked::ModelMetadata(model) => (model, false, ""),
        Asked::ModelConfig(model) => (model, false, "/config"),
        Asked::Statistics(Some(model)) => (model, false, "/stats"),
        Asked::Infer(model) => (model, true, "/infer"),
    };
    let Model { name, version } = model;
    let Ok(deployment) = name.parse::<DeploymentName>() else {
        return door_error(StatusCode::NOT_FOUND, &format!("there is no deployment {name}"));
    };
    let version = match version {
        VersionChoice::Version(version) => Some(version),
        _ => None,
    };
    let ask = match ask(&parts, body, Door::OpenInference, deployment, version, post, verb).await {
        Ok(ask) => ask,
        Err(response) => return response,
    };
    match gateway::ask(&plane, ask).await {
        Ok(answer) => respond(answer),
        Err(error) => door_error_of(&error),
    }
}

fn server_metadata() -> serde_json::Value {
    // What its devices' doors know, but for what is loaded and unloaded.
    let extensions = ["binary_tensor_data", "classification", "model_configuration", "parameters", "statistics"];
    json!({
        "name": "muster-control-plane",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": extensions,
    })
}

async fn told_index(plane: &Plane, body: Body) -> Response {
    #[derive(Default, serde::Deserialize)]
    struct Asked {
        #[serde(default)]
        ready: bool,
    }
    let Ok(body) = to_bytes(body, CALL_BODY_BYTES_MAX).await else {
        return door_error(StatusCode::PAYLOAD_TOO_LARGE, "this takes {\"ready\": true}, and no more");
    };
    let asked = if body.is_empty() { Ok(Asked::default()) } else { serde_json::from_slice::<Asked>(&body) };
    match asked {
        Ok(asked) => axum::Json(index(plane, asked.ready)).into_response(),
        Err(error) => door_error(StatusCode::BAD_REQUEST, &format!("this takes {{\"ready\": true}}: {error}")),
    }
}

fn index(plane: &Plane, ready_only: bool) -> serde_json::Value {
    let routes = plane.routes.now();
    let entry = |(name, route): (&DeploymentName, &crate::routes::Route)| {
        let served = !route.devices.is_empty();
        json!({
            "name": name.as_str(),
            "version": "",
            "state": if served { "READY" } else { "UNAVAILABLE" },
            "reason": if served { "" } else { "no device serves it now" },
        })
    };
    let told = routes.iter().filter(|(_, route)| !ready_only || !route.devices.is_empty());
    told.map(entry).collect::<Vec<_>>().into()
}

/// What is asked of a device; or what is wrong before any is asked.
async fn ask(
    parts: &Parts,
    body: Body,
    door: Door,
    deployment: DeploymentName,
    version: Option<Version>,
    post: bool,
    verb: &str,
) -> Result<Ask, Response> {
    let Some(deadline) = deadline(&parts.headers) else {
        let text = format!("{DEADLINE_MS}: write milliseconds, 1 to {}", gateway::DEADLINE_MAX.as_millis());
        return Err(door_error(StatusCode::BAD_REQUEST, &text));
    };
    let json_bytes = match parts.headers.get(JSON_BYTES).map(|value| value.to_str().ok().and_then(|v| v.parse().ok())) {
        None => None,
        Some(Some(bytes)) => Some(bytes),
        Some(None) => return Err(door_error(StatusCode::BAD_REQUEST, "Inference-Header-Content-Length is no number")),
    };
    let body = to_bytes(body, CALL_BODY_BYTES_MAX).await.map_err(|error| {
        if error.source().is_some_and(|source| source.is::<LengthLimitError>()) {
            let text = format!("the request is larger than {CALL_BODY_BYTES_MAX} bytes: ask a device's own door");
            return door_error(StatusCode::PAYLOAD_TOO_LARGE, &text);
        }
        door_error(StatusCode::BAD_REQUEST, &format!("the request's body cannot be read: {error}"))
    })?;
    let rest = version.map_or_else(|| verb.to_owned(), |version| format!("/versions/{version}{verb}"));
    Ok(Ask { deployment, version, door, post, rest, json_bytes, body: body.to_vec(), deadline })
}

/// How long the asker waits; nothing if what it says is no time.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let Some(said) = headers.get(DEADLINE_MS) else { return Some(gateway::DEADLINE) };
    let deadline = Duration::from_millis(said.to_str().ok()?.parse().ok()?);
    (!deadline.is_zero() && deadline <= gateway::DEADLINE_MAX).then_some(deadline)
}

/// What a device said, as it said it.
fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    let kind = if answer.json_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(bytes) = answer.json_bytes {
        headers.insert(JSON_BYTES, HeaderValue::from(bytes));
    }
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
}
