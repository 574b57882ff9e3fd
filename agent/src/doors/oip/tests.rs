//! The door over HTTP, before a model that gives back what it takes.

use std::time::Duration;

use axum::http::header::{HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use bytes::Bytes;
use muster_shared::Version;
use muster_shared::manifest::{Dtype, Port};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::doors::http::JSON_BYTES;
use crate::table::{Served, VersionState};
use crate::worker::queue::{Prediction, queue};

fn version(number: u64) -> Version {
    Version::new(number).expect("positive")
}

/// Adds a model whose outputs are its inputs, in its ports' order.
fn add_echo(door: &OipDoor, name: &str, number: u64, ports: &[Port]) {
    let (worker, mut queue) = queue(CancellationToken::new());
    tokio::spawn(async move {
        while let Some(requests) = queue.next().await {
            for request in requests {
                let (queue, compute) = (Duration::from_micros(1), Duration::from_micros(2));
                let answer = Prediction { outputs: request.inputs, cpu_us: 1, queue, compute, together: 1 };
                let _ = request.reply.send(Ok(answer));
            }
        }
    });
    let name = name.parse().expect("a name");
    door.table.add(
        &name,
        Served {
            deployment: name.clone(),
            model: "echo".parse().expect("a name"),
            version: version(number),
            inputs: ports.to_vec(),
            outputs: ports.to_vec(),
            worker,
            counters: Default::default(),
            metrics: Default::default(),
        },
    );
}

fn port(name: &str, dtype: Dtype, shape: &[Option<u32>]) -> Port {
    Port { name: name.into(), dtype, shape: shape.to_vec() }
}

fn door() -> OipDoor {
    let door = OipDoor::closed(Arc::default());
    add_echo(&door, "pair", 3, &[port("a", Dtype::F32, &[None, Some(2)]), port("b", Dtype::I64, &[None])]);
    add_echo(&door, "text", 1, &[port("t", Dtype::String, &[None])]);
    add_echo(&door, "bytes", 1, &[port("x", Dtype::U8, &[Some(2), None])]);
    let name = "later".parse().expect("a name");
    door.table.set_state(&name, version(1), VersionState::Loading, None);
    door
}

async fn send(door: &OipDoor, method: Method, path: &str, json_bytes: Option<&str>, body: &[u8]) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(bytes) = json_bytes {
        headers.insert(JSON_BYTES, HeaderValue::from_str(bytes).expect("a header"));
    }
    let body = Bytes::copy_from_slice(body);
    answer(door, Ask { method: &method, path, headers: &headers, body: &body }).await
}

async fn get(door: &OipDoor, path: &str) -> (u16, Value) {
    let answer = send(door, Method::GET, path, None, b"").await;
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// Prints what this layer costs beside the model: `cargo test --release -- --ignored --nocapture layer`.
#[tokio::test]
#[ignore = "measures"]
async fn what_the_layer_costs() {
    let door = door();
    let body = r#"{"inputs": [{"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.5]},
        {"name": "b", "shape": [1], "datatype": "INT64", "data": [7]}]}"#;
    let (headers, body) = (HeaderMap::new(), Bytes::from_static(body.as_bytes()));
    let ask = Ask { method: &Method::POST, path: "/v2/models/pair/infer", headers: &headers, body: &body };
    let rounds = 100_000;
    let began = std::time::Instant::now();
    for _ in 0..rounds {
        let Ok(oip::Request::Infer(model)) = oip::parse("POST", ask.path) else { panic!("no request") };
        let served = metadata::find(&door.table, &model).expect("a model");
        let asked = read::read(ask, &served).expect("a request");
        let given: Vec<_> = asked.inputs.into_iter().map(|tensor| infer::Given { tensor, binary: false }).collect();
        write::write("pair", &served, None, &given).expect("an answer");
    }
    println!("{:?} for each small JSON request", began.elapsed() / rounds);
}

async fn infer(door: &OipDoor, model: &str, body: &str) -> (u16, Value) {
    let answer = send(door, Method::POST, &format!("/v2/models/{model}/infer"), None, body.as_bytes()).await;
    (answer.status.as_u16(), serde_json::from_slice(&answer.body).expect("JSON"))
}

#[tokio::test]
async fn json_goes_in_and_comes_out() {
    let door = door();
    let body = r#"{"id": "7", "parameters": {"priority": 1, "other": {"any": [1]}}, "inputs": [
        {"data": [5], "shape": [1], "name": "b", "datatype": "INT64"},
        {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [[1.5, NaN]]}],
        "outputs": [{"name": "b"}]}"#;
    let expected = json!({"id": "7", "model_name": "pair", "model_version": "3",
        "outputs": [{"name": "b", "datatype": "INT64", "shape": [1], "data": [5]}]});
    assert_eq!(infer(&door, "pair", body).await, (200, expected.clone()));
    assert_eq!(infer(&door, "pair/versions/3", body).await, (200, expected));
    let nothing = r#"{"id": null, "parameters": null, "outputs": null, "inputs": [
        {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": null}]}"#;
    assert_eq!(infer(&door, "text", nothing).await.0, 200);
    let texts = r#"{"inputs": [{"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "ü\n"]}]}"#;
    let (status, answer) = infer(&door, "text", texts).await;
    assert_eq!((status, &answer["outputs"][0]["data"]), (200, &json!(["a", "ü\n"])));
    let empty = r#"{"inputs": [{"name": "t", "shape": [0], "datatype": "BYTES", "data": []}]}"#;
    assert_eq!(infer(&door, "text", empty).await.1["outputs"][0]["data"], json!([]));
}

#[tokio::test]
async fn bytes_follow_the_json() {
    let door = door();
    let head = br#"{"inputs": [{"name": "b", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}},
        {"name": "a", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}],
        "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": false}}],
        "parameters": {"binary_data_output": true}}"#;
    let tail = [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64];
    let length = head.len().to_string();
    let body = [&head[..], &tail].concat();
    let path = "/v2/models/pair/infer";
    let got = send(&door, Method::POST, path, Some(&length), &body).await;
    assert_eq!((got.status, got.version), (StatusCode::OK, Some(version(3))));
    let json_bytes = got.headers.iter().find(|(name, _)| name == JSON_BYTES).expect("a length");
    let json_bytes: usize = json_bytes.1.to_str().expect("a number").parse().expect("a number");
    let told: Value = serde_json::from_slice(&got.body[..json_bytes]).expect("JSON");
    assert_eq!(told["outputs"][0]["parameters"], json!({"binary_data_size": 8}));
    assert_eq!(told["outputs"][1]["data"], json!([5]));
    assert_eq!(&got.body[json_bytes..], &tail[8..]);
    // Without JSON: one input, all of whose sizes follow from the bytes.
    let got = send(&door, Method::POST, "/v2/models/bytes/infer", Some("0"), &[1, 2, 3, 4, 5, 6]).await;
    assert_eq!(got.status, StatusCode::OK);
    assert!(got.body.ends_with(&[1, 2, 3, 4, 5, 6]));
    let got = send(&door, Method::POST, "/v2/models/text/infer", Some("0"), b"hello").await;
    assert!(got.body.ends_with(b"\x05\0\0\0hello"));
    for (length, body) in [
        ("x", &body[..]),
        ("-1", &body),
        ("99999", &body),
        ("0", &body),
        (&length, &body[..body.len() - 1]),
        (&length, &[&body[..], &[0]].concat()),
    ] {
        assert_eq!(
            send(&door, Method::POST, path, Some(length), body).await.status,
            StatusCode::BAD_REQUEST,
            "{length}"
        );
    }
    assert_eq!(send(&door, Method::POST, path, None, &body).await.status, StatusCode::BAD_REQUEST);
    // Bytes that are no text have no JSON.
    let json =
        r#"{"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}}]}"#;
    let body = [json.as_bytes(), b"\x01\0\0\0\xff"].concat();
    let got = send(&door, Method::POST, "/v2/models/text/infer", Some(&json.len().to_string()), &body).await;
    assert_eq!(got.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_malformed_is_refused_with_words() {
    let door = door();
    let one = |input: &str| format!("{{\"inputs\": [{input}]}}");
    let good = r#""name": "t", "shape": [1], "datatype": "BYTES""#;
    let cases = [
        (String::new(), "cannot be read"),
        ("{".into(), "cannot be read"),
        ("[]".into(), "cannot be read"),
        ("{}".into(), "no \"inputs\""),
        ("{} x".into(), "cannot be read"),
        (r#"{"inputs": 1}"#.into(), "cannot be read"),
        (r#"{"id": 1, "inputs": []}"#.into(), "cannot be read"),
        (r#"{"inputs": []}"#.into(), "input \"t\" is missing"),
        (one(r#"{"name": "t", "shape": [1], "data": ["a"]}"#), "no \"datatype\""),
        (one(r#"{"name": "t", "datatype": "BYTES", "data": ["a"]}"#), "no \"shape\""),
        (one(r#"{"shape": [1], "datatype": "BYTES", "data": ["a"]}"#), "no \"name\""),
        (one(&format!("{{{good}}}")), "no \"data\""),
        (one(&format!("{{{good}, \"data\": [1]}}")), "not of expected type: string"),
        (one(&format!("{{{good}, \"data\": [\"a\", \"b\"]}}")), "bytes are not what shape [1] of BYTES takes"),
        (one(&format!("{{{good}, \"data\": [[\"a\"], \"b\"]}}")), "incorrect level"),
        (
            one(&format!("{{{good}, \"data\": [\"a\"], \"parameters\": {{\"binary_data_size\": 1}}}}")),
            "and \"binary_data_size\"",
        ),
        (one(&format!("{{{good}, \"parameters\": {{\"shared_memory_region\": \"r\"}}}}")), "shares no memory"),
        (one(r#"{"name": "t", "shape": [-1], "datatype": "BYTES", "data": []}"#), "whole number from 0"),
        (one(r#"{"name": "t", "shape": [1.5], "datatype": "BYTES", "data": []}"#), "whole number from 0"),
        (one(r#"{"name": "t", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}"#), "shape [1, 1] does not fit [?]"),
        (
            one(r#"{"name": "t", "shape": [1], "datatype": "FP32", "data": [1]}"#),
            "datatype FP32, where the model takes BYTES",
        ),
        (one(r#"{"name": "t", "shape": [1], "datatype": "BF16", "data": [1]}"#), "BF16 is not supported"),
        (one(r#"{"name": "t", "shape": [1], "datatype": "FP99", "data": [1]}"#), "no datatype"),
        (one(r#"{"name": "u", "shape": [1], "datatype": "BYTES", "data": ["a"]}"#), "input \"t\" is missing"),
        (format!(r#"{{"inputs": [{{{good}, "data": ["a"]}}], "outputs": [{{"name": "u"}}]}}"#), "no output \"u\""),
        (format!(r#"{{"inputs": [{{{good}, "data": ["a"]}}], "outputs": [{{}}]}}"#), "no \"name\""),
        (
            format!(r#"{{"inputs": [{{{good}, "data": ["a"]}}], "parameters": {{"timeout": "1"}}}}"#),
            "\"timeout\" is a whole",
        ),
        (
            format!(
                r#"{{"inputs": [{{{good}, "data": ["a"]}}], "outputs": [{{"name": "t", "parameters": {{"classification": 1}}}}]}}"#
            ),
            "no classes of datatype BYTES",
        ),
    ];
    for (body, words) in cases {
        let (status, answer) = infer(&door, "text", &body).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(status == 400 && error.contains(words), "{body}: {status} {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes is answered or refused; nothing of it is the server's fault.
    #[test]
    fn any_change_of_a_request_is_answered_or_refused(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        json_bytes in prop::option::of(0..400usize),
    ) {
        let mut body = br#"{"id": "7", "parameters": {"timeout": 1000000}, "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
            {"name": "b", "datatype": "INT64", "shape": [1], "data": [5]}], "outputs": [{"name": "b"}]}12345678"#.to_vec();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let json_bytes = json_bytes.map(|bytes| bytes.min(body.len()).to_string());
        let status = runtime.block_on(async {
            send(&door(), Method::POST, "/v2/models/pair/infer", json_bytes.as_deref(), &body).await.status.as_u16()
        });
        prop_assert!(matches!(status, 200 | 400), "{}", status);
    }
}

#[tokio::test]
async fn models_are_told_of() {
    let door = door();
    assert_eq!(get(&door, "/v2/health/live").await, (200, json!({"live": true})));
    assert_eq!(get(&door, "/v2/health/ready").await, (503, json!({"ready": false})));
    assert_eq!(get(&door, "/v2/models/pair/ready").await.1, json!({"name": "pair", "ready": true}));
    assert_eq!(get(&door, "/v2").await.1["name"], metadata::NAME);
    let (status, told) = get(&door, "/v2/models/pair").await;
    let tensors =
        json!([{"name": "a", "datatype": "FP32", "shape": [-1, 2]}, {"name": "b", "datatype": "INT64", "shape": [-1]}]);
    let expected =
        json!({"name": "pair", "versions": ["3"], "platform": "tract_onnx", "inputs": tensors, "outputs": tensors});
    assert_eq!((status, told), (200, expected));
    let (_, config) = get(&door, "/v2/models/pair/config").await;
    assert_eq!((&config["input"][0]["dims"], &config["input"][0]["data_type"]), (&json!([2]), &json!("TYPE_FP32")));
    assert_eq!(get(&door, "/v2/models/bytes/config").await.1["max_batch_size"], 0);
    for (path, status) in [
        ("/v2/models/pair/ready", 200),
        ("/v2/models/pair/versions/3/ready", 200),
        ("/v2/models/pair/versions/4/ready", 404),
        ("/v2/models/pair/versions/x/ready", 400),
        ("/v2/models/nobody/ready", 404),
        ("/v2/models/nobody", 404),
        ("/v2/models/later/ready", 503),
        ("/v2/models/later/stats", 503),
        ("/v2/models/pair/infer", 405),
        ("/v2/other", 404),
        ("/v2/logging", 501),
        ("/v2/cudasharedmemory/status", 200),
    ] {
        assert_eq!(get(&door, path).await.0, status, "{path}");
    }
    assert_eq!(infer(&door, "nobody", "{}").await.0, 404);
    let index = |body: &'static [u8]| send(&door, Method::POST, "/v2/repository/index", None, body);
    let all: Value = serde_json::from_slice(&index(b"").await.body).expect("JSON");
    assert_eq!(all[1], json!({"name": "later", "version": "1", "state": "LOADING"}));
    let ready: Value = serde_json::from_slice(&index(b"{\"ready\": true}").await.body).expect("JSON");
    assert_eq!((all.as_array().map(Vec::len), ready.as_array().map(Vec::len)), (Some(4), Some(3)));
    let load = send(&door, Method::POST, "/v2/repository/models/pair/load", None, b"").await;
    assert_eq!(load.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_was_asked_is_counted() {
    let door = door();
    let body = r#"{"inputs": [{"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}"#;
    infer(&door, "text", body).await;
    infer(&door, "text", body).await;
    infer(&door, "text", "{}").await;
    let (_, told) = get(&door, "/v2/models/text/stats").await;
    let stats = &told["model_stats"][0];
    assert_eq!((&stats["name"], &stats["version"]), (&json!("text"), &json!("1")));
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(4), &json!(2)));
    assert_eq!(stats["inference_stats"]["compute_infer"], json!({"count": 2, "ns": 4000}));
    assert_eq!(stats["batch_stats"][0]["batch_size"], 2);
    assert_eq!(get(&door, "/v2/models/stats").await.1["model_stats"].as_array().map(Vec::len), Some(3));
}
