//! Requests as `HttpRestApiHandlerTest` makes them, against a stand-in for its model: half of each
//! number, and two.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::doors::tfs::*;
use crate::worker::queue::{PredictError, queue};

fn version(number: u64) -> Version {
    Version::new(number).expect("a version")
}

/// A version of `half` whose process is a task. Numbers below zero stand for what can go wrong.
fn serve(table: &Table, number: u64) {
    let (worker, mut queue) = queue(CancellationToken::new());
    tokio::spawn(async move {
        while let Some(requests) = queue.next().await {
            for request in requests {
                let x = &request.inputs[0];
                let (floats, _) = x.data.as_chunks::<4>();
                let floats: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                let answer = match floats.first() {
                    Some(-1.0) => Err(PredictError::Busy),
                    Some(-2.0) => Err(PredictError::Gone),
                    Some(-3.0) => Err(PredictError::Killed),
                    Some(-4.0) => Err(PredictError::Died),
                    Some(-5.0) => Err(PredictError::Late),
                    Some(-6.0) => Err(PredictError::Model("it does not run on this".into())),
                    _ => {
                        let halves: Vec<u8> = floats.iter().flat_map(|x| (x / 2.0 + 2.0).to_le_bytes()).collect();
                        let y = Tensor { name: "y".into(), data: halves.into(), ..x.clone() };
                        let zero = Duration::ZERO;
                        Ok(Prediction { outputs: vec![y], cpu_us: 1, queue: zero, compute: zero, together: 1 })
                    }
                };
                let _ = request.reply.send(answer);
            }
        }
    });
    let name = "half_plus_two";
    let served = Served {
        deployment: name.parse().expect("a name"),
        model: name.parse().expect("a name"),
        version: version(number),
        inputs: ports("x:f32[?]"),
        outputs: ports("y:f32[?]"),
        worker,
        counters: Default::default(),
        metrics: Default::default(),
    };
    table.add(&name.parse().expect("a name"), served);
}

/// Versions 7, which is gone, and 123 and 124, which answer; labels for each.
fn table() -> Table {
    let table = Table::default();
    let name = "half_plus_two".parse().expect("a name");
    table.set_state(&name, version(7), VersionState::End, Some("no room".into()));
    serve(&table, 124);
    serve(&table, 123);
    let labels = [("gone", 7), ("stable", 123), ("canary", 124)];
    table.set_labels(&name, BTreeMap::from(labels.map(|(label, of)| (label.to_owned(), version(of)))));
    table
}

async fn ask(table: &Table, method: &str, path: &str, body: &str) -> Answer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let method = method.parse().expect("a method");
    answer(table, Ask { method: &method, path, headers: &HeaderMap::new(), body: &body }).await
}

#[tokio::test]
async fn requests_are_answered_as_tf_serving_answers_them() {
    const M: &str = "/v1/models/half_plus_two";
    const ONE: &str = r#"{"instances": [1.0]}"#;
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("H.UnsupportedApiCalls", "GET /v1/foo", "", "", 400, "Malformed request: GET /v1/foo"),
        ("H.UnsupportedApiCalls", "GET /v1/models", "", "", 400, "Missing model name in request."),
        ("H.UnsupportedApiCalls", "POST /v1/models/foo/versions/18446744073709551615:regress", "", "", 400, "Failed to convert version: 18446744073709551615 to numeric."),
        ("H.PredictModelNameVersionErrors", "POST /v1/models/foo:predict", "", ONE, 404, "Servable not found for request: Latest(foo)"),
        ("H.PredictModelNameVersionErrors", "POST /v1/models/foo/versions/50:predict", "", ONE, 404, "Servable not found for request: Specific(foo, 50)"),
        ("H.PredictModelNameVersionErrors", "POST", "99:predict", ONE, 404, "Servable not found for request: Latest(half_plus_two99)"),
        ("H.PredictRequestErrors", "POST", ":predict", "", 400, "JSON Parse error: The document is empty"),
        ("H.PredictRequestErrors", "POST", ":predict", "instances = [1, 2]", 400, "JSON Parse error: Invalid value. at offset: 0"),
        ("H.PredictRequestErrors", "POST", ":predict", r#"{"instances": ["x", "y"]}"#, 400, r#"Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: "x" Type: String is not of expected type: float"#),
        ("H.PredictRequestErrors", "POST", "/labels/nobody:predict", r#"{"instances": ["x", "y"]}"#, 400, "Unrecognized servable version label: nobody"),
        ("H.PredictRequestErrors", "POST", ":predict", r#"{"signature_name": 100}"#, 400, r#"JSON Value: {"signature_name": 100} not formatted correctly. 'signature_name' key must be a string value."#),
        ("H.Predict", "POST", ":predict", r#"{"instances": [1.0, 2.0]}"#, 124, r#"{"predictions":[2.5,3.0]}"#),
        ("H.Predict", "POST", "/versions/123:predict", r#"{"instances": [1.0, 2.0]}"#, 123, r#"{"predictions":[2.5,3.0]}"#),
        ("H.Predict", "POST", "/labels/stable:predict", r#"{"instances": [1.0, 2.0]}"#, 123, r#"{"predictions":[2.5,3.0]}"#),
        ("H.Predict", "POST", "/versions/123:predict", r#"{"signature_name": "serving_default", "instances": [3.0, 4.0]}"#, 123, r#"{"predictions":[3.5,4.0]}"#),
        ("H.Predict", "POST", "/versions/123:predict", r#"{"signature_name": "serving_default", "inputs": [3.0, 4.0]}"#, 123, r#"{"outputs":[3.5,4.0]}"#),
        ("H.Regress", "POST", ":regress", r#"{"examples": [{"x": 80.0}]}"#, 124, r#"{"results":[42.0]}"#),
        ("H.Regress", "POST", "/versions/123:regress", r#"{"examples": [{"x": 80.0}]}"#, 123, r#"{"results":[42.0]}"#),
        ("H.Regress", "POST", "/labels/stable:regress", r#"{"examples": [{"x": 80.0}]}"#, 123, r#"{"results":[42.0]}"#),
        ("H.Classify", "POST", ":classify", r#"{"examples": [{"x": 20.0}]}"#, 124, r#"{"results":[[["",12.0]]]}"#),
        ("H.Classify", "POST", "/labels/stable:classify", r#"{"examples": [{"x": 10.0}]}"#, 123, r#"{"results":[[["",7.0]]]}"#),
        // The body is read before the model is looked for.
        ("-", "POST /v1/models/foo:predict", "", "{", 400, "JSON Parse error: Missing a comma or } after an object member. at offset: 1"),
        ("-", "POST /v1/models/foo:classify", "", r#"{"signature_name": 1}"#, 400, r#"JSON Value: {"signature_name": 1} not formatted correctly. 'signature_name' key must be a string value."#),
        ("-", "POST /v1/models/a%2Fb:predict", "", ONE, 404, "Servable not found for request: Latest(a/b)"),
        ("-", "POST", "/versions/7:predict", ONE, 503, "the model cannot be served now: no room"),
        ("-", "POST", "/labels/gone:predict", ONE, 503, "the model cannot be served now: no room"),
        ("-", "POST", ":predict", r#"{"inputs": []}"#, 124, r#"{"outputs":[]}"#),
        ("-", "GET", "/versions/5", "", 404, "Could not find version 5 of model half_plus_two"),
        ("-", "GET /v1/models/foo", "", "", 404, "Could not find any versions of model foo"),
        ("-", "GET /v1/models/foo/metadata", "", "", 404, "Servable not found for request: Latest(foo)"),
        ("-", "GET", "/labels/nobody/metadata", "", 400, "Unrecognized servable version label: nobody"),
        ("-", "PUT", ":predict", ONE, 400, "Malformed request: PUT /v1/models/half_plus_two:predict"),
        // What becomes of a request that the model does not answer, as `ToHTTPStatusCode` in
        // `model_servers/http_server.cc` has it.
        ("-", "POST", ":predict", r#"{"instances": [-1]}"#, 429, "the model has more requests than it can take; try again"),
        ("-", "POST", ":predict", r#"{"instances": [-2]}"#, 503, "the model's process is being started again; try again"),
        ("-", "POST", ":regress", r#"{"examples": [{"x": -3}]}"#, 503, "the model's process was killed while it worked on this request; try again"),
        ("-", "POST", ":classify", r#"{"examples": [{"x": -4}]}"#, 500, "the model's process ended while it worked on this request"),
        ("-", "POST", ":predict", r#"{"inputs": [-5]}"#, 504, "the model did not answer in time"),
        ("-", "POST", ":predict", r#"{"inputs": [-6]}"#, 400, "it does not run on this"),
    ];
    let table = table();
    for (test, method, rest, body, outcome, expected) in cases {
        let (method, path) = method.split_once(' ').unwrap_or((method, M));
        let path = format!("{path}{rest}");
        let answer = ask(&table, method, &path, body).await;
        let (status, expected) = match outcome {
            123 | 124 => (200, (*expected).to_owned()),
            status => (*status, TfsError { status: 0, text: (*expected).to_owned() }.body()),
        };
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!((answer.status.as_u16(), &*text), (status, &*expected), "{test}: {method} {path} {body}");
        assert_eq!(answer.headers, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if status == 200 {
            assert_eq!(answer.version, Some(version(u64::from(*outcome))), "{test}: {method} {path} {body}");
        }
    }
}

#[tokio::test]
async fn an_error_after_the_version_was_found_names_it() {
    let table = table();
    for body in ["", r#"{"instances": [-1]}"#, r#"{"instances": [[1]]}"#] {
        assert_eq!(ask(&table, "POST", "/v1/models/half_plus_two:predict", body).await.version, Some(version(124)));
    }
    assert_eq!(ask(&table, "POST", "/v1/models/foo:predict", "{}").await.version, None);
}

/// `H.GetStatus`, and that a label is passed over there.
#[tokio::test]
async fn the_status_lists_versions_the_newest_first() {
    let table = table();
    for (path, versions, about) in [
        ("/v1/models/half_plus_two", &["124 AVAILABLE OK", "123 AVAILABLE OK", "7 END UNKNOWN no room"][..], 124),
        ("/v1/models/half_plus_two/versions/123", &["123 AVAILABLE OK"], 123),
        ("/v1/models/half_plus_two/versions/7", &["7 END UNKNOWN no room"], 7),
        (
            "/v1/models/half_plus_two/labels/stable",
            &["124 AVAILABLE OK", "123 AVAILABLE OK", "7 END UNKNOWN no room"],
            124,
        ),
    ] {
        let answer = ask(&table, "GET", path, "").await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let line = |entry: &serde_json::Value| {
            let (version, state, status) = (&entry["version"], &entry["state"], &entry["status"]);
            let words = [version, state, &status["error_code"], &status["error_message"]].map(text);
            words.join(" ").trim_end().to_owned()
        };
        let found: Vec<String> = body["model_version_status"].as_array().expect("a list").iter().map(line).collect();
        assert_eq!(found, versions, "{path}");
        assert_eq!(answer.version, Some(version(about)), "{path}");
    }
}

/// `H.GetModelMetadata`; the layout is tested where it is made.
#[tokio::test]
async fn metadata_is_of_the_version_that_was_asked_for() {
    let table = table();
    for (path, number) in [("", "124"), ("/versions/123", "123"), ("/labels/stable", "123")] {
        let answer = ask(&table, "GET", &format!("/v1/models/half_plus_two{path}/metadata"), "").await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["model_spec"]["version"], number);
        assert_eq!(body["model_spec"]["name"], "half_plus_two");
    }
}

#[tokio::test]
async fn a_page_may_ask_whether_it_may_ask() {
    for (origin, status) in [(Some("http://localhost:8501"), 200), (Some("null"), 400), (None, 400)] {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a header"));
        }
        let ask =
            Ask { method: &Method::OPTIONS, path: "/v1/models/m:predict", headers: &headers, body: &Bytes::new() };
        let answer = answer(&Table::default(), ask).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0));
    }
}
