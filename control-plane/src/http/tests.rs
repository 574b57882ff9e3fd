//! The API from outside, without a socket.

use axum::body::Body;
use axum::http::{Method, Request, Response};
use http_body_util::BodyExt;
use muster_shared::api::Problem;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::testing;

mod in_a_browser;

struct Client {
    router: Router,
    token: String,
    plane: Arc<Plane>,
    _folder: TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes().to_vec();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn problem(&self) -> Problem {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).expect("a problem");
        assert_eq!(problem.status, self.status);
        problem
    }
}

impl Client {
    /// Logs in with the one-time code.
    async fn start() -> Self {
        let (plane, folder) = testing::plane().await;
        let code = auth::draw_admin_code(&plane, false).await.expect("draws").expect("nobody has logged in");
        let router = api(plane.clone(), Listener::Tls);
        let mut client = Self { router, token: String::new(), plane, _folder: folder };
        let answer = client.send(Method::POST, "/api/v1/login", Some(json!({ "code": code }))).await;
        assert_eq!(answer.status, 200);
        client.token = answer.json()["token"].as_str().expect("a token").to_owned();
        client
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        let body = match body {
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        self.raw(request.body(body).expect("a request")).await
    }

    async fn raw(&self, request: Request<Body>) -> Answer {
        Answer::read(self.router.clone().oneshot(request).await.expect("infallible")).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "muster.dev/v1", "kind": "Deployment",
        "metadata": {"name": name}, "spec": {"model": "digits", "replicas": replicas}
    })
}

#[tokio::test]
async fn every_call_of_the_table_is_served_and_documented() {
    let document: Value = serde_json::from_str(&openapi().to_json().expect("JSON")).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let table = include_str!("../../../shared/src/api/mod.rs");
    let mut calls = 0;
    // A row: //! | `POST /claims`, `GET /claims` | …
    for cell in table.lines().filter_map(|line| line.strip_prefix("//! | `")).filter_map(|row| row.split(" | ").next())
    {
        let mut path = "";
        let mut methods = Vec::new();
        for call in
            cell.split(", ").map(|call| call.trim_matches('`').trim_end_matches(" (open)").trim_end_matches('`'))
        {
            let (method, rest) = call.split_once(' ').unwrap_or((call, ""));
            methods.push(method.to_lowercase());
            if !rest.is_empty() {
                path = rest;
                for method in methods.drain(..) {
                    let known = format!("/api/v1{}", path.split('?').next().unwrap_or(path));
                    assert!(paths.get(&known).is_some_and(|item| item.get(&method).is_some()), "{method} {known}");
                    calls += 1;
                }
            }
        }
        assert!(!path.is_empty(), "{cell}");
    }
    assert!(calls >= 25, "{calls}");
}

#[tokio::test]
async fn without_a_token_only_open_calls_are_answered() {
    let mut client = Client::start().await;
    assert_eq!(client.get("/api/v1/whoami").await.json(), json!({"user": "admin"}));
    for token in ["", "muster_0000", "x"] {
        client.token = token.to_owned();
        for path in ["/api/v1/whoami", "/api/v1/devices", "/metrics", "/v1/models/digits", "/api/v1/trust/director"] {
            let answer = client.get(path).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.problem().hint.is_some());
        }
        assert_eq!(client.get("/api/v1/info").await.status, 200);
        assert_eq!(client.get("/api/v1/trust/roots").await.json().as_array().map(Vec::len), Some(1));
    }
    let upload = client.send(Method::PUT, &format!("/api/v1/blobs/{}", "0".repeat(64)), None).await;
    assert_eq!(upload.status, 401);
    let again = client.send(Method::POST, "/api/v1/login", Some(json!({"code": "abcde"}))).await;
    assert_eq!(again.status, 401);
    assert!(auth::draw_admin_code(&client.plane, false).await.expect("asks").is_none());
    assert!(auth::draw_admin_code(&client.plane, true).await.expect("asks").is_some());
}

#[tokio::test]
async fn errors_are_problems() {
    let client = Client::start().await;
    for (method, path, body, status) in [
        (Method::GET, "/nowhere", None, 404),
        (Method::DELETE, "/api/v1/info", None, 405),
        (Method::GET, "/api/v1/devices/edge-1", None, 404),
        (Method::GET, "/api/v1/devices/NOT%20A%20NAME", None, 400),
        (Method::GET, "/api/v1/events?limit=many", None, 400),
        (Method::DELETE, "/api/v1/deployments/none", None, 404),
        (Method::POST, "/api/v1/claims", Some(json!({"uses": 1})), 422),
        (Method::POST, "/api/v1/claims", Some(json!({"uses": 0, "ttlSeconds": 1})), 422),
        (Method::PUT, "/api/v1/deployments/a", Some(deployment("b", 1)), 422),
        (Method::PUT, "/api/v1/deployments/a", Some(deployment("a", 1_000_000)), 422),
        (Method::PUT, "/api/v1/deployments/a", Some(json!({"spec": {}})), 422),
        (Method::POST, "/api/v1/trust/roots", Some(json!({"payloadType": "x", "payload": "", "signatures": []})), 422),
        (Method::PUT, "/api/v1/blobs/zz", None, 400),
    ] {
        let answer = client.send(method.clone(), path, body).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(!answer.problem().detail.is_empty());
    }
    let authorized =
        || Request::post("/api/v1/claims").header(header::AUTHORIZATION, format!("Bearer {}", client.token));
    let form = authorized().header(header::CONTENT_TYPE, "text/plain").body(Body::from("{}")).expect("a request");
    assert_eq!(client.raw(form).await.problem().status, 415);
    let broken =
        authorized().header(header::CONTENT_TYPE, "application/json").body(Body::from("{")).expect("a request");
    assert_eq!(client.raw(broken).await.problem().status, 400);
    let long = authorized().header(header::CONTENT_TYPE, "application/json");
    let long = long.body(Body::from(vec![b' '; JSON_BYTES_MAX + 1])).expect("a request");
    assert_eq!(client.raw(long).await.problem().status, 413);
}

#[tokio::test]
async fn a_deployment_is_created_replaced_and_removed() {
    let client = Client::start().await;
    let path = "/api/v1/deployments/a";
    for (replicas, status, generation) in [(1, 201, 1), (1, 200, 1), (2, 200, 2)] {
        let answer = client.send(Method::PUT, path, Some(deployment("a", replicas))).await;
        assert_eq!((answer.status, answer.json()["metadata"]["generation"].as_u64()), (status, Some(generation)));
    }
    let read = client.get(path).await.json();
    assert_eq!(read["status"]["wanted"], 2);
    assert_eq!(read["status"]["conditions"][0]["type"], "Placed");
    // What was read can be written.
    assert_eq!(client.send(Method::PUT, path, Some(read)).await.status, 200);
    assert_eq!(client.get("/api/v1/deployments").await.json().as_array().map(Vec::len), Some(1));
    assert_eq!(client.send(Method::DELETE, path, None).await.status, 204);
    assert_eq!(client.get(path).await.status, 404);
}

#[tokio::test]
async fn the_gateway_speaks_as_tensorflow_serving_does() {
    let client = Client::start().await;
    client.send(Method::PUT, "/api/v1/deployments/a", Some(deployment("a", 1))).await;
    let predict = |name: &str| format!("/v1/models/{name}:predict");
    let body = || Some(json!({"instances": [[1.0]]}));
    for (method, path, status, text) in [
        (Method::POST, predict("none"), 404, "Servable not found for request: Latest(none)"),
        (Method::GET, "/v1/models/none".into(), 404, "Could not find any versions of model none"),
        (Method::POST, "/v1/models/none:explode".into(), 400, "Malformed request: POST /v1/models/none:explode"),
        (Method::POST, predict("a"), 503, "no device serves a now: the planner has yet to look at it"),
    ] {
        let answer = client.send(method.clone(), &path, body()).await;
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(text)), "{method} {path}");
        assert_eq!(answer.headers.contains_key(header::RETRY_AFTER), status == 503);
    }
    let long = vec![b' '; muster_shared::limits::CALL_BODY_BYTES_MAX + 1];
    let long =
        Request::post(predict("a")).header(header::AUTHORIZATION, format!("Bearer {}", client.token)).body(long.into());
    assert_eq!(client.raw(long.expect("a request")).await.status, 413);
    let open = gateway(client.plane.clone(), Listener::Loopback("127.0.0.1:8501".parse().expect("an address")));
    for (host, origin, status) in [
        ("127.0.0.1:8501", None, 503),
        ("localhost:8501", Some("http://localhost:8501"), 503),
        ("localhost:8501", Some("http://example.org"), 421),
        ("localhost:8501", Some("null"), 421),
        ("example.org:8501", None, 421),
    ] {
        let mut request = Request::post(predict("a")).header(header::HOST, host);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let request = request.body(Body::from("{}")).expect("a request");
        let response = open.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status().as_u16(), status, "{host} {origin:?}");
    }
    let closed = gateway(client.plane.clone(), Listener::Tls);
    let request = Request::post(predict("a")).body(Body::from("{}")).expect("a request");
    assert_eq!(closed.oneshot(request).await.expect("infallible").status().as_u16(), 401);
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let router: Router<Arc<Plane>> = Router::new().route("/panic", get(|| async { panic!("a mistake of ours") as () }));
    let (plane, _folder) = testing::bare_plane().await;
    let router = finish(router, plane, Listener::Tls);
    let request = || Request::get("/panic").body(Body::empty()).expect("a request");
    for _ in 0..2 {
        let answer = Answer::read(router.clone().oneshot(request()).await.expect("infallible")).await;
        assert_eq!(answer.problem().status, 500);
    }
}

#[tokio::test]
async fn floors_and_the_next_director_come_and_go_by_the_api() {
    let client = Client::start().await;
    let envelope = |version: u64, seed: u8| {
        let signer = crate::trust::roles::tests::key(seed);
        serde_json::to_value(crate::trust::floors::tests::signed_floor(version, &signer)).expect("JSON")
    };
    let raise =
        async |version, seed| client.send(Method::POST, "/api/v1/trust/floors", Some(envelope(version, seed))).await;
    assert_eq!(raise(3, 11).await.problem().status, 422);
    assert_eq!(raise(3, 10).await.json(), json!({"model": "digits", "version": 3, "newest": null}));
    assert_eq!(raise(2, 10).await.problem().status, 409);
    let open = client.raw(Request::get("/api/v1/trust/floors").body(Body::empty()).expect("a request")).await;
    assert_eq!((open.status, open.json().as_array().map(Vec::len)), (200, Some(1)));
    let made = client.send(Method::POST, "/api/v1/trust/director/next", None).await.json();
    assert_eq!(client.get("/api/v1/trust/director").await.json(), made);
    assert_ne!(made["key"], made["next"]);
    let nobody = client.raw(Request::post("/api/v1/trust/director/next").body(Body::empty()).expect("a request"));
    assert_eq!(nobody.await.status, 401);
    assert_eq!(client.get("/api/v1/devices/edge-9/diagnosis").await.problem().status, 404);
}

#[tokio::test]
async fn ten_thousand_wrong_claims_hold_up_no_honest_device_and_are_few_events() {
    let client = Client::start().await;
    let asked = json!({ "uses": 5, "ttlSeconds": 60 });
    let claim = client.send(Method::POST, "/api/v1/claims", Some(asked)).await.json();
    let key = crate::trust::ca::tests::device_key().0;
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    let wrong = json!({ "claim": claim["id"], "secret": "00".repeat(16), "csr": request.pem().expect("PEM") });
    let right = json!({ "claim": claim["id"], "secret": claim["secret"], "csr": request.pem().expect("PEM") });
    let mut answers = std::collections::BTreeMap::new();
    for number in 0..10_000 {
        let answer = client.send(Method::POST, "/api/v1/enrol", Some(wrong.clone())).await;
        *answers.entry(answer.status).or_insert(0) += 1;
        if answer.status == 429 {
            assert!(answer.headers.contains_key(header::RETRY_AFTER));
            assert!(answer.problem().hint.is_some());
        }
        if number % 2_000 == 1_999 {
            let begun = std::time::Instant::now();
            assert_eq!(client.send(Method::POST, "/api/v1/enrol", Some(right.clone())).await.status, 200);
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), [(403, 20), (429, 9_980)]);
    let lines = client.plane.refusals.due(std::time::Instant::now());
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("10000 tries"), "{}", lines[0]);
}

#[tokio::test]
async fn a_device_without_a_token_has_its_enrolment_and_nothing_else() {
    let client = Client { token: String::new(), ..Client::start().await };
    for (method, path) in [
        (Method::GET, "/api/v1/devices"),
        (Method::POST, "/api/v1/claims"),
        (Method::GET, "/api/v1/factory"),
        (Method::POST, "/api/v1/factory"),
        (Method::POST, "/api/v1/devices/edge-1/approve"),
        (Method::POST, "/api/v1/devices/edge-1/revoke"),
        (Method::DELETE, "/api/v1/devices/edge-1"),
        (Method::GET, "/api/v1/devices/edge-1"),
        (Method::POST, "/api/v1/plan/approve"),
    ] {
        assert_eq!(client.send(method.clone(), path, Some(json!({}))).await.status, 401, "{method} {path}");
    }
}
