//! Broken model files and broken requests, by the thousand.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use muster_tests::mutate::{Rng, mutate, mutate_model};
use muster_tests::serving::{COLUMNS, Client, is_times, request, row, times};
use muster_tests::{programs, tenth_or_whole};
use muster_world::{Server, fixtures, resident_bytes};
use serde_json::{Value, json};

const MODELS: usize = 10_000;
const REQUESTS: usize = 100_000;
/// Must show: of the broken models, at least so many per cent still parse and reach inference.
const REACH_INFERENCE_PERCENT: usize = 30;
/// Valid requests are asked in between, one after so many broken ones.
const VALID_EVERY: usize = 50;
/// How much the memory of all processes may grow meanwhile.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
const SEED: u64 = 20_261_127;

fn check_valid(client: &mut Client, number: usize) -> Result<()> {
    let row = row(number);
    let answer = client.post("/v1/models/steady:predict", request(&row).as_bytes())?;
    ensure!(answer.status == 200 && is_times(3.0, &row, &answer.json()), "{}: {}", answer.status, answer.json());
    Ok(())
}

#[test]
fn broken_models_harm_nobody_but_themselves() -> Result<()> {
    let models = tenth_or_whole(MODELS);
    let flags = [
        "--model-repository={}/models",
        "--model-control=explicit",
        "--model=steady={}/steady.onnx",
        "--memory=256Mi",
        "--rest_api_timeout_in_ms=2000",
        "--load-timeout-ms=5000",
    ];
    let mut server = Server::start(&programs()?, &flags, |folder| {
        std::fs::create_dir_all(folder.join("models/broken/1"))?;
        Ok(std::fs::write(folder.join("steady.onnx"), times(3.0))?)
    })?;
    let whole = [
        times(2.0),
        std::fs::read(fixtures::folder("linear_regression", 1).join("model.onnx"))?,
        std::fs::read(fixtures::folder("digits", 1).join("model.onnx"))?,
        std::fs::read(fixtures::folder("digits", 2).join("model.onnx"))?,
    ];
    let (mut rng, mut client) = (Rng::new(SEED), Client::new(server.door()));
    let (mut outcomes, mut before): (BTreeMap<String, usize>, u64) = (BTreeMap::new(), 0);
    for number in 0..models {
        let file = mutate_model(rng.pick(&whole).as_slice(), &mut rng);
        let outcome = try_model(&mut client, &server.folder().join("models/broken/1"), &file)
            .with_context(|| format!("mutant {number} of seed {SEED}"))?;
        *outcomes.entry(outcome).or_default() += 1;
        if number % VALID_EVERY == 0 {
            server.check()?;
            check_valid(&mut client, number)?;
            if number == VALID_EVERY {
                before = resident_bytes(server.id())?;
            }
        }
    }
    client.post("/v2/repository/models/broken/unload", b"{}")?;
    check_valid(&mut client, 0)?;
    server.check()?;
    let reached: usize =
        outcomes.iter().filter(|(outcome, _)| outcome.starts_with("asked")).map(|(_, count)| count).sum();
    println!("{models} broken models (seed {SEED}): {outcomes:?}");
    assert!(reached * 100 >= models * REACH_INFERENCE_PERCENT, "only {reached} of {models} reached inference");
    let after = resident_bytes(server.id())?;
    assert!(after <= before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
    Ok(())
}

/// Loads a file as the next content of the one broken model, and asks it.
fn try_model(client: &mut Client, folder: &Path, file: &[u8]) -> Result<String> {
    std::fs::write(folder.join("coming"), file)?;
    std::fs::rename(folder.join("coming"), folder.join("model.onnx"))?;
    let loaded = client.post("/v2/repository/models/broken/load", b"{}")?;
    if loaded.status != 200 {
        return Ok(format!("not loaded ({})", loaded.status));
    }
    let metadata = client.get("/v2/models/broken")?.json();
    let mut inputs = vec![];
    for input in metadata["inputs"].as_array().context("a model without inputs")? {
        let sizes = input["shape"].as_array().map(|shape| shape.iter().map(|size| size.as_i64().unwrap_or(1)));
        let shape: Vec<i64> =
            sizes.map(|sizes| sizes.map(|size| if size < 0 { 2 } else { size }).collect()).unwrap_or_default();
        let elements: i64 = shape.iter().try_fold(1i64, |product, size| product.checked_mul(*size)).unwrap_or(i64::MAX);
        if elements > 1 << 20 {
            return Ok("asked: too large to ask".to_owned());
        }
        let value = if input["datatype"] == "BOOL" { json!(true) } else { json!(1) };
        let data = vec![value; elements as usize];
        inputs.push(json!({ "name": input["name"], "datatype": input["datatype"], "shape": shape, "data": data }));
    }
    let answer = client.post("/v2/models/broken/infer", json!({ "inputs": inputs }).to_string().as_bytes())?;
    Ok(format!("asked ({})", answer.status))
}

/// Requests of every door, right before they are broken.
fn whole_requests() -> Vec<(&'static str, Vec<u8>, Option<usize>)> {
    let row = row(3);
    let tensor =
        |parameters: Value| json!({ "name": "x", "datatype": "FP32", "shape": [1, COLUMNS], "parameters": parameters });
    let mut inline = tensor(json!({}));
    inline["data"] = json!(row);
    let json_head = json!({
        "id": "one",
        "inputs": [tensor(json!({ "binary_data_size": 4 * COLUMNS }))],
        "outputs": [{ "name": "y", "parameters": { "binary_data": true } }]
    })
    .to_string();
    let elements: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
    let binary = [json_head.as_bytes(), &elements].concat();
    let examples = json!({ "context": { "x": row }, "examples": [{}, { "x": row }] });
    vec![
        ("/v1/models/steady:predict", request(&row).into_bytes(), None),
        (
            "/v1/models/steady:predict",
            json!({ "instances": [{ "x": row }, { "x": row }] }).to_string().into_bytes(),
            None,
        ),
        (
            "/v1/models/steady/versions/1:predict",
            json!({ "signature_name": "serving_default", "inputs": { "x": [row] } }).to_string().into_bytes(),
            None,
        ),
        ("/v1/models/steady:classify", examples.to_string().into_bytes(), None),
        ("/v1/models/steady:regress", examples.to_string().into_bytes(), None),
        (
            "/v1/models/text:predict",
            json!({ "instances": ["a", { "b64": "aGVsbG8=" }] }).to_string().into_bytes(),
            None,
        ),
        ("/v2/models/steady/infer", json!({ "inputs": [inline] }).to_string().into_bytes(), None),
        ("/v2/models/steady/infer", binary, Some(json_head.len())),
    ]
}

#[test]
fn broken_requests_are_the_callers_fault_and_cost_nobody_else_anything() -> Result<()> {
    let requests = tenth_or_whole(REQUESTS);
    let flags = ["--model=steady={}/steady.onnx", "--model=text={}/text.onnx"];
    let mut server = Server::start(&programs()?, &flags, |folder| {
        std::fs::write(folder.join("steady.onnx"), times(3.0))?;
        Ok(std::fs::write(folder.join("text.onnx"), muster_tests::serving::identity_of_texts())?)
    })?;
    let whole = whole_requests();
    let address = server.door().trim_start_matches("http://").to_owned();
    let send = |client: &mut Client, path: &[u8], body: &[u8], json_bytes: Option<usize>| {
        let head = json_bytes.map(|bytes| format!("Inference-Header-Content-Length: {bytes}\r\n")).unwrap_or_default();
        let rest = format!(" HTTP/1.1\r\nHost: {address}\r\n{head}Content-Length: {}\r\n\r\n", body.len());
        client.send(&[b"POST ", path, rest.as_bytes(), body].concat())
    };
    let (mut rng, mut client) = (Rng::new(SEED), Client::new(server.door()));
    for (path, body, json_bytes) in &whole {
        let answer = send(&mut client, path.as_bytes(), body, *json_bytes)?;
        ensure!(
            answer.status == 200 || path.contains("regress"),
            "{path} is right, but {}: {}",
            answer.status,
            answer.json()
        );
    }
    let (mut statuses, mut silent, mut before): (BTreeMap<u16, usize>, usize, u64) = (BTreeMap::new(), 0, 0);
    for number in 0..requests {
        let (path, body, json_bytes) = rng.pick(&whole).clone();
        let (mut path, mut body) = (path.as_bytes().to_vec(), body);
        match rng.range(0, 10) {
            0 => path = mutate(&path, &mut rng),
            _ => body = mutate(&body, &mut rng),
        }
        let json_bytes = json_bytes.map(|bytes| if rng.permille(200) { rng.range(0, 400) as usize } else { bytes });
        match send(&mut client, &path, &body, json_bytes) {
            Ok(answer) => {
                *statuses.entry(answer.status).or_default() += 1;
                let text = String::from_utf8_lossy(&answer.body);
                ensure!(
                    answer.status < 500,
                    "request {number} of seed {SEED}, {:?} {:?}: {} {text}",
                    String::from_utf8_lossy(&path),
                    String::from_utf8_lossy(&body),
                    answer.status
                );
            }
            // A broken request line is no HTTP: such a connection may end without an answer.
            Err(_) => silent += 1,
        }
        if number % VALID_EVERY == 0 {
            check_valid(&mut client, number)?;
            if number == requests / 2 {
                before = resident_bytes(server.id())?;
            }
        }
    }
    server.check()?;
    println!("{requests} broken requests (seed {SEED}): {statuses:?}, {silent} without an answer");
    assert!(statuses.get(&400).copied().unwrap_or(0) > requests / 3, "{statuses:?}");
    assert!(silent < requests / 10, "{silent}");
    let after = resident_bytes(server.id())?;
    assert!(after <= before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
    Ok(())
}
