//! The gateway: a fleet asked by the names of its deployments, at both doors that a device has.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use muster_shared::limits::CALL_BODY_BYTES_MAX;
use muster_tests::both_models_serve;
use muster_world::{World, fixtures};
use serde_json::{Value, json};
use ureq::http::HeaderMap;

const JSON_BYTES: &str = "inference-header-content-length";
/// Predictions of 32-bit floats differ so much from those of 64-bit ones at most.
const DIFFERENCE_MAX: f64 = 1e-4;
const NAME_OF_TFS_ERRORS: &str = "Servable";

struct Told {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The gateway of a fleet that serves both models on one device.
struct Gateway {
    world: World,
    agent: ureq::Agent,
}

impl Gateway {
    fn start() -> Result<Self> {
        let world = both_models_serve()?;
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Ok(Self { world, agent })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.world.plane().gateway)
    }

    fn get(&self, path: &str) -> Result<Told> {
        told(self.agent.get(self.url(path)).call()?)
    }

    fn get_packed(&self, path: &str) -> Result<Told> {
        told(self.agent.get(self.url(path)).header("accept-encoding", "gzip").call()?)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Told> {
        self.send(path, &[], body.to_string().as_bytes())
    }

    fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Told> {
        let request = headers
            .iter()
            .fold(self.agent.post(self.url(path)), |request, (name, value)| request.header(*name, *value));
        told(request.send(body)?)
    }
}

fn told(response: ureq::http::Response<ureq::Body>) -> Result<Told> {
    let (head, mut body) = response.into_parts();
    Ok(Told { status: head.status.as_u16(), headers: head.headers, body: body.read_to_vec()? })
}

fn rows(model: &str, count: usize) -> Result<(Vec<Value>, Vec<Value>)> {
    let fixtures::HeldOut { mut instances, mut predictions } = fixtures::held_out(model, 1)?;
    instances.truncate(count);
    predictions.truncate(count);
    Ok((instances, predictions))
}

/// The elements of rows, one after the other.
fn flat(rows: &[Value]) -> Vec<f32> {
    let elements = rows.iter().flat_map(|row| row.as_array().into_iter().flatten());
    elements.map(|element| element.as_f64().unwrap_or_default() as f32).collect()
}

fn near(expected: &Value, got: &Value) -> bool {
    let pair = expected.as_f64().zip(got.as_f64());
    pair.is_some_and(|(expected, got)| (expected - got).abs() <= DIFFERENCE_MAX)
}

fn all_near(expected: &[Value], got: &Value) -> Result<()> {
    let got = got.as_array().context("no list")?;
    ensure!(got.len() == expected.len(), "{} for {}", got.len(), expected.len());
    ensure!(expected.iter().zip(got).all(|(expected, got)| near(expected, got)), "{expected:?} {got:?}");
    Ok(())
}

fn pack(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzEncoder::new(vec![], Compression::fast());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = vec![];
    GzDecoder::new(bytes).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

#[test]
fn open_inference_clients_find_deployments_and_run_them() -> Result<()> {
    let gateway = Gateway::start()?;
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready", "/v2/models/digits/versions/1/ready"]
    {
        assert_eq!(gateway.get(path)?.status, 200, "{path}");
    }
    assert_eq!(gateway.get("/v2")?.json()["name"], "muster-control-plane");
    let metadata = gateway.get("/v2/models/digits")?;
    assert_eq!(metadata.header("muster-device"), Some("edge-1"));
    let expected = json!([{ "name": "x", "datatype": "FP32", "shape": [-1, 64] }]);
    assert_eq!((&metadata.json()["name"], &metadata.json()["inputs"]), (&"digits".into(), &expected));
    assert_eq!(gateway.get("/v2/models/digits/versions/1")?.json(), metadata.json());
    assert_eq!(gateway.get("/v2/models/digits/config")?.json()["name"], "digits");

    let (instances, predictions) = rows("linear_regression", 6)?;
    let elements = flat(&instances);
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [6, 10], "data": elements });
    let asked = json!({ "id": "one", "inputs": [input] });
    for path in ["/v2/models/linear_regression/infer", "/v2/models/linear_regression/versions/1/infer"] {
        let answer = gateway.post(path, &asked)?;
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert_eq!((answer.header("muster-version"), &answer.json()["id"]), (Some("1"), &"one".into()));
        all_near(&predictions, &answer.json()["outputs"][0]["data"])?;
    }

    // Binary, in and out; the gateway takes part in neither.
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [6, 10], "parameters": { "binary_data_size": 240 } });
    let head =
        json!({ "inputs": [input], "outputs": [{ "name": "y", "parameters": { "binary_data": true } }] }).to_string();
    let body: Vec<u8> = head.bytes().chain(elements.iter().flat_map(|element| element.to_le_bytes())).collect();
    let json_bytes = head.len().to_string();
    let binary = gateway.send("/v2/models/linear_regression/infer", &[(JSON_BYTES, &json_bytes)], &body)?;
    assert_eq!(binary.status, 200, "{}", binary.error());
    assert_eq!(binary.header("content-type"), Some("application/octet-stream"));
    let json_bytes: usize = binary.header(JSON_BYTES).context("no length of JSON")?.parse()?;
    let (told, tensor) = binary.body.split_at(json_bytes);
    let told: Value = serde_json::from_slice(told)?;
    assert_eq!(told["outputs"][0]["parameters"]["binary_data_size"], 24);
    let got = tensor.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>();
    all_near(&predictions, &json!(got))?;

    // Both ways packed; what is no prediction comes as it is, whatever the client says that it takes.
    let headers = [(JSON_BYTES, head.len().to_string()), ("content-encoding", "gzip".into())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let again = gateway.send("/v2/models/linear_regression/infer", &headers, &pack(&body)?)?;
    assert_eq!(again.body, binary.body);
    let packed = gateway.send(
        "/v2/models/linear_regression/infer",
        &[("accept-encoding", "gzip")],
        asked.to_string().as_bytes(),
    )?;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    all_near(&predictions, &serde_json::from_slice::<Value>(&unpack(&packed.body)?)?["outputs"][0]["data"])?;
    let plain = gateway.get_packed("/v2/models/digits")?;
    assert_eq!((plain.header("content-encoding"), plain.json()), (None, metadata.json()));

    let stats = gateway.get("/v2/models/linear_regression/stats")?.json();
    assert_eq!(stats["model_stats"][0]["inference_count"], 5 * 6, "{stats}");
    let ready = gateway.post("/v2/repository/index", &json!({ "ready": true }))?.json();
    assert!(ready.as_array().is_some_and(|ready| ready.iter().all(|entry| entry["state"] == "READY")), "{ready}");
    assert_eq!(gateway.post("/v2/repository/index", &json!({ "ready": 1 }))?.status, 400);
    let index = gateway.post("/v2/repository/index", &json!({}))?.json();
    let named: Vec<_> =
        index.as_array().context("no list")?.iter().map(|model| (&model["name"], &model["state"])).collect();
    assert_eq!(named, [(&json!("digits"), &json!("READY")), (&json!("linear_regression"), &json!("READY"))]);
    Ok(())
}

#[test]
fn open_inference_clients_are_refused_in_words_of_that_protocol() -> Result<()> {
    let gateway = Gateway::start()?;
    let empty = json!({ "inputs": [] });
    let large = json!({ "inputs": [{ "name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0] }],
        "id": "x".repeat(CALL_BODY_BYTES_MAX) });
    for (path, body, status, words) in [
        ("/v2/models/nobody/infer", &empty, 404, "there is no deployment nobody"),
        ("/v2/models/No%20Name/infer", &empty, 404, "there is no deployment No%20Name"),
        ("/v2/models/digits/versions/9/infer", &empty, 404, "no device serves version 9 of digits"),
        ("/v2/models/digits/versions/x/infer", &empty, 400, "\"x\" is no version"),
        ("/v2/models/digits/infer", &empty, 400, "input"),
        ("/v2/models/digits/infer", &large, 413, "larger than 262144 bytes"),
        ("/v2/models/digits/explain", &empty, 404, "no path /v2/models/digits/explain"),
        ("/v2/models/digits", &empty, 405, "GET"),
        ("/v2/models/digits/generate", &empty, 501, "text generation"),
        ("/v2/repository/models/digits/load", &json!({}), 403, "muster apply"),
        ("/v2/repository/models/digits/unload", &json!({}), 403, "muster apply"),
    ] {
        let answer = gateway.post(path, body)?;
        assert_eq!(answer.status, status, "{path}: {}", answer.json());
        assert!(answer.error().contains(words) && !answer.error().contains(NAME_OF_TFS_ERRORS), "{}", answer.error());
    }
    for (path, words) in [
        ("/v2/models/nobody", "there is no deployment nobody"),
        ("/v2/models/nobody/ready", "there is no deployment nobody"),
        ("/v2/models/digits/versions/9", "no device serves version 9 of digits"),
    ] {
        let answer = gateway.get(path)?;
        assert_eq!((answer.status, answer.error().as_str()), (404, words), "{path}");
    }
    let broken = gateway.send("/v2/models/digits/infer", &[("content-encoding", "gzip")], b"no gzip")?;
    assert_eq!(broken.status, 400, "{}", broken.error());
    let wrong = gateway.send("/v2/models/digits/infer", &[(JSON_BYTES, "many")], b"{}")?;
    assert_eq!(wrong.status, 400, "{}", wrong.error());
    let beyond = gateway.send("/v2/models/digits/infer", &[(JSON_BYTES, "9")], b"{}")?;
    assert_eq!(beyond.status, 400, "{}", beyond.error());
    Ok(())
}

#[test]
fn tf_servings_clients_classify_regress_and_pack_by_deployment() -> Result<()> {
    let gateway = Gateway::start()?;
    let examples =
        |rows: &[Value]| json!({ "examples": rows.iter().map(|row| json!({ "x": row })).collect::<Vec<_>>() });
    let (digits, expected) = rows("digits", 4)?;
    let answer = gateway.post("/v1/models/digits:classify", &examples(&digits))?;
    assert_eq!(answer.status, 200, "{}", answer.json());
    for (expected, got) in expected.iter().zip(answer.json()["results"].as_array().context("no results")?) {
        let scores: Vec<Value> = got.as_array().into_iter().flatten().map(|class| class[1].clone()).collect();
        all_near(expected["probabilities"].as_array().context("probabilities")?, &scores.into())?;
    }
    let (people, progress) = rows("linear_regression", 4)?;
    for path in ["/v1/models/linear_regression:regress", "/v1/models/linear_regression/versions/1:regress"] {
        let answer = gateway.post(path, &examples(&people))?;
        assert_eq!((answer.status, answer.header("muster-version")), (200, Some("1")), "{}", answer.json());
        all_near(&progress, &answer.json()["results"])?;
    }
    let metadata = gateway.get("/v1/models/digits/metadata")?.json();
    assert_eq!(metadata["model_spec"], json!({ "name": "digits", "signature_name": "", "version": "1" }));
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(signature["inputs"]["x"]["dtype"], "DT_FLOAT", "{metadata:#}");
    let status = gateway.get("/v1/models/digits")?.json();
    assert_eq!(status["model_version_status"][0]["state"], "AVAILABLE", "{status:#}");

    let body = pack(json!({ "instances": people }).to_string().as_bytes())?;
    let headers = [("content-encoding", "gzip"), ("accept-encoding", "gzip")];
    let answer = gateway.send("/v1/models/linear_regression:predict", &headers, &body)?;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    let answer: Value = serde_json::from_slice(&unpack(&answer.body)?)?;
    let got = answer["predictions"].as_array().context("no predictions")?;
    assert!(got.len() == 4 && progress.iter().zip(got).all(|(one, other)| fixtures::agrees(one, other)), "{got:?}");
    Ok(())
}

#[test]
fn tf_servings_clients_are_refused_in_its_words() -> Result<()> {
    let gateway = Gateway::start()?;
    let row = json!({ "instances": [] });
    let large = json!({ "instances": ["x".repeat(CALL_BODY_BYTES_MAX)] });
    for (path, body, status, words) in [
        ("/v1/models/nobody:predict", &row, 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/digits/versions/9:classify", &row, 404, "Servable not found for request: Specific(digits, 9)"),
        ("/v1/models/digits/labels/stable:predict", &row, 400, "Unrecognized servable version label: stable"),
        ("/v1/models/digits:explode", &row, 400, "Malformed request: POST /v1/models/digits:explode"),
        ("/v1/models/digits:predict", &large, 413, "the request is larger than 262144 bytes: ask a device's own door"),
    ] {
        let answer = gateway.post(path, body)?;
        assert_eq!((answer.status, answer.error().as_str()), (status, words), "{path}");
    }
    // A body is as large as it is unpacked.
    let packed = pack(large.to_string().as_bytes())?;
    assert!(packed.len() < CALL_BODY_BYTES_MAX / 100);
    let answer = gateway.send("/v1/models/digits:predict", &[("content-encoding", "gzip")], &packed)?;
    assert_eq!(answer.status, 413, "{}", answer.error());
    assert_eq!(gateway.get("/v1/models/digits/versions/9/metadata")?.status, 404);
    Ok(())
}
