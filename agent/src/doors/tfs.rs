//! TF Serving's REST API: `:predict` and status, with its errors (tensorflow.org/tfx/serving/api_rest).

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use muster_shared::manifest::Port;
use muster_shared::message::TfServingVerb;
use muster_shared::{DeploymentName, DeviceId, Version};
use serde_json::{Map, Value};

use super::{Served, Table};
use crate::tensor::Tensor;
use crate::worker::parent::PredictError;

/// An answer before it is HTTP: the gateway's calls get the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The version that answered.
    pub version: Option<Version>,
    /// JSON.
    pub body: Vec<u8>,
}

impl Answer {
    fn error(status: StatusCode, version: Option<Version>, text: &str) -> Self {
        let body = serde_json::json!({ "error": text }).to_string().into_bytes();
        Self { status: status.as_u16(), version, body }
    }
}

/// Answers one request, whoever brought it.
pub async fn answer(
    table: &Table,
    name: &DeploymentName,
    version: Option<Version>,
    verb: TfServingVerb,
    body: &[u8],
) -> Answer {
    let served = table.find(name).filter(|served| version.is_none_or(|version| version == served.version));
    let Some(served) = served else {
        let asked = version.map_or_else(|| format!("Latest({name})"), |version| format!("Specific({name}, {version})"));
        return Answer::error(StatusCode::NOT_FOUND, None, &format!("Servable not found for request: {asked}"));
    };
    match verb {
        TfServingVerb::Status => status(&served),
        TfServingVerb::Predict => predict(table, &served, body).await,
    }
}

fn status(served: &Served) -> Answer {
    let body = serde_json::json!({ "model_version_status": [{
        "version": served.version.to_string(),
        "state": "AVAILABLE",
        "status": { "error_code": "OK", "error_message": "" }
    }] });
    Answer { status: 200, version: Some(served.version), body: body.to_string().into_bytes() }
}

async fn predict(table: &Table, served: &Served, body: &[u8]) -> Answer {
    let version = Some(served.version);
    let (form, inputs) = match read_request(&served.inputs, body) {
        Ok(read) => read,
        Err(text) => return Answer::error(StatusCode::BAD_REQUEST, version, &text),
    };
    match table.predict(served, inputs).await {
        Ok(outputs) => Answer { status: 200, version, body: write_answer(form, &outputs).into_bytes() },
        Err(error @ PredictError::Busy) => Answer::error(StatusCode::TOO_MANY_REQUESTS, version, &error.to_string()),
        Err(error @ PredictError::Gone) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, version, &error.to_string()),
        Err(error @ PredictError::Died) => {
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, version, &error.to_string())
        }
        Err(PredictError::Model(text)) => Answer::error(StatusCode::BAD_REQUEST, version, &text),
    }
}

/// How the tensors are laid out in the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `instances`: a list of rows.
    Row,
    /// `inputs`: whole tensors.
    Column,
}

fn read_request(ports: &[Port], body: &[u8]) -> Result<(Form, Vec<Tensor>), String> {
    let request: Value = serde_json::from_slice(body).map_err(|error| format!("JSON Parse error: {error}"))?;
    let Value::Object(request) = request else {
        return Err("the request must be a JSON object with \"instances\" or \"inputs\"".to_owned());
    };
    if let Some(key) = request.keys().find(|key| !["instances", "inputs", "signature_name"].contains(&key.as_str())) {
        return Err(format!("unknown key {key:?}: a request has \"instances\" or \"inputs\""));
    }
    if let Some(name) = request.get("signature_name").filter(|name| *name != "serving_default") {
        return Err(format!("Serving signature name: {name} not found; the only one is \"serving_default\""));
    }
    let (form, values) = match (request.get("instances"), request.get("inputs")) {
        (Some(instances), None) => (Form::Row, columns_of(ports, instances)?),
        (None, Some(inputs)) => (Form::Column, named(ports, inputs)?),
        (Some(_), Some(_)) => return Err("\"instances\" and \"inputs\" exclude each other".to_owned()),
        (None, None) => return Err("Missing 'inputs' or 'instances' key".to_owned()),
    };
    let tensor = |port: &Port| {
        let value = values.get(&port.name).ok_or_else(|| format!("input {:?} is missing", port.name))?;
        Tensor::from_json(port, value).map_err(|error| error.to_string())
    };
    let tensors: Vec<Tensor> = ports.iter().map(tensor).collect::<Result<_, _>>()?;
    let mut batches = tensors.iter().filter_map(|tensor| tensor.shape.first());
    if let Some(first) = batches.next()
        && form == Form::Row
        && batches.any(|size| size != first)
    {
        return Err("the inputs have different numbers of rows".to_owned());
    }
    Ok((form, tensors))
}

/// Gathers rows into one list for each input: `[{"a": 1, "b": 2}, …]` or, for one input, bare rows.
fn columns_of(ports: &[Port], instances: &Value) -> Result<Map<String, Value>, String> {
    let Value::Array(rows) = instances else { return Err("\"instances\" must be a list".to_owned()) };
    if rows.is_empty() {
        return Err("\"instances\" is empty".to_owned());
    }
    let by_name = rows.iter().all(Value::is_object);
    if !by_name {
        let [port] = ports else {
            return Err("this model has several inputs: write each instance as an object with their names".to_owned());
        };
        return Ok(Map::from_iter([(port.name.clone(), instances.clone())]));
    }
    let mut columns = Map::new();
    for port in ports {
        let column: Option<Vec<Value>> = rows.iter().map(|row| row.get(&port.name).cloned()).collect();
        let column = column.ok_or_else(|| format!("input {:?} is missing in an instance", port.name))?;
        columns.insert(port.name.clone(), Value::Array(column));
    }
    let known = |name: &String| ports.iter().any(|port| &port.name == name);
    let strange = rows.iter().filter_map(Value::as_object).flat_map(Map::keys).find(|name| !known(name));
    strange.map_or(Ok(columns), |name| Err(format!("the model has no input {name:?}")))
}

fn named(ports: &[Port], inputs: &Value) -> Result<Map<String, Value>, String> {
    match (inputs, ports) {
        (Value::Object(inputs), _) => {
            let known = |name: &String| ports.iter().any(|port| &port.name == name);
            match inputs.keys().find(|name| !known(name)) {
                Some(name) => Err(format!("the model has no input {name:?}")),
                None => Ok(inputs.clone()),
            }
        }
        (bare, [port]) => Ok(Map::from_iter([(port.name.clone(), bare.clone())])),
        _ => Err("this model has several inputs: write \"inputs\" as an object with their names".to_owned()),
    }
}

/// One output stands bare, several stand under their names. Streams text: answers can be large.
fn write_answer(form: Form, outputs: &[Tensor]) -> String {
    let mut out = String::new();
    match (form, outputs) {
        (Form::Column, [only]) => {
            out.push_str("{\"outputs\":");
            only.write_json(&mut out);
        }
        (Form::Column, several) => {
            out.push_str("{\"outputs\":");
            write_object(several, &mut out, Tensor::write_json);
        }
        (Form::Row, outputs) => {
            out.push_str("{\"predictions\":[");
            let rows = outputs.iter().filter_map(|output| output.shape.first()).min().copied().unwrap_or(0);
            for row in 0..rows {
                if row > 0 {
                    out.push(',');
                }
                match outputs {
                    [only] => only.write_row_json(row, &mut out),
                    several => write_object(several, &mut out, |output, out| output.write_row_json(row, out)),
                }
            }
            out.push(']');
        }
    }
    out.push('}');
    out
}

fn write_object(outputs: &[Tensor], out: &mut String, write: impl Fn(&Tensor, &mut String)) {
    out.push('{');
    for (at, output) in outputs.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(output.name.as_str()).to_string());
        out.push(':');
        write(output, out);
    }
    out.push('}');
}

#[derive(Clone)]
struct Door {
    table: Arc<Table>,
    device: DeviceId,
}

/// The routes of this door.
pub fn router(table: Arc<Table>, device: DeviceId) -> Router {
    Router::new()
        .route("/v1/models/{model}", any(without_version))
        .route("/v1/models/{model}/versions/{version}", any(with_version))
        .fallback(|| async {
            to_http(Answer::error(StatusCode::NOT_FOUND, None, "Malformed request: unknown path"), None)
        })
        .with_state(Door { table, device })
}

async fn without_version(State(door): State<Door>, Path(model): Path<String>, method: Method, body: Bytes) -> Response {
    door.handle(&model, None, &method, &body).await
}

async fn with_version(
    State(door): State<Door>,
    Path((model, version)): Path<(String, String)>,
    method: Method,
    body: Bytes,
) -> Response {
    // `/versions/3:predict`: the verb stands behind the version.
    let (version, verb) = version.split_once(':').map_or((version.as_str(), ""), |(version, verb)| (version, verb));
    let model = if verb.is_empty() { model } else { format!("{model}:{verb}") };
    door.handle(&model, Some(version), &method, &body).await
}

impl Door {
    async fn handle(&self, model: &str, version: Option<&str>, method: &Method, body: &[u8]) -> Response {
        let (name, verb) = model.split_once(':').map_or((model, None), |(name, verb)| (name, Some(verb)));
        let verb = match (method, verb) {
            (&Method::GET, None) => TfServingVerb::Status,
            (&Method::POST, Some("predict")) => TfServingVerb::Predict,
            (_, verb) => {
                let text = format!("Malformed request: {method} {}", verb.unwrap_or(model));
                return to_http(Answer::error(StatusCode::BAD_REQUEST, None, &text), None);
            }
        };
        let version = match version.map(str::parse::<Version>).transpose() {
            Ok(version) => version,
            Err(error) => return to_http(Answer::error(StatusCode::BAD_REQUEST, None, &error.to_string()), None),
        };
        let answer = match name.parse() {
            Ok(name) => answer(&self.table, &name, version, verb, body).await,
            // What is no name cannot be a model's.
            Err(_) => {
                let text = format!("Servable not found for request: Latest({name})");
                Answer::error(StatusCode::NOT_FOUND, None, &text)
            }
        };
        to_http(answer, Some(&self.device))
    }
}

fn to_http(answer: Answer, device: Option<&DeviceId>) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], answer.body).into_response();
    let headers = response.headers_mut();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(header::RETRY_AFTER, 1.into());
    }
    if let Some(device) = device.and_then(|device| device.as_str().parse().ok()) {
        headers.insert("muster-device", device);
    }
    if let Some(version) = answer.version {
        headers.insert("muster-version", version.get().into());
    }
    response
}

#[cfg(test)]
mod tests {
    use muster_shared::manifest::Dtype;

    use super::*;

    fn ports(names: &[&str]) -> Vec<Port> {
        names
            .iter()
            .map(|name| Port { name: (*name).to_owned(), dtype: Dtype::F32, shape: vec![None, Some(2)] })
            .collect()
    }

    fn read(names: &[&str], body: &str) -> Result<(Form, Vec<Vec<usize>>), String> {
        let (form, tensors) = read_request(&ports(names), body.as_bytes())?;
        Ok((form, tensors.into_iter().map(|tensor| tensor.shape).collect()))
    }

    #[test]
    fn rows_and_columns_are_read() {
        assert_eq!(read(&["x"], r#"{"instances": [[1, 2], [3, 4], [5, 6]]}"#), Ok((Form::Row, vec![vec![3, 2]])));
        assert_eq!(read(&["x"], r#"{"instances": [{"x": [1, 2]}]}"#), Ok((Form::Row, vec![vec![1, 2]])));
        assert_eq!(read(&["x"], r#"{"inputs": [[1, 2]]}"#), Ok((Form::Column, vec![vec![1, 2]])));
        assert_eq!(read(&["x"], r#"{"inputs": {"x": [[1, 2]]}}"#), Ok((Form::Column, vec![vec![1, 2]])));
        let two = r#"{"instances": [{"a": [1, 2], "b": [3, 4]}], "signature_name": "serving_default"}"#;
        assert_eq!(read(&["a", "b"], two), Ok((Form::Row, vec![vec![1, 2], vec![1, 2]])));
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        for (names, body, part) in [
            (&["x"][..], "{", "JSON Parse error"),
            (&["x"], "[]", "object"),
            (&["x"], "{}", "Missing 'inputs' or 'instances' key"),
            (&["x"], r#"{"instances": [], "inputs": []}"#, "exclude"),
            (&["x"], r#"{"instances": []}"#, "empty"),
            (&["x"], r#"{"instances": 3}"#, "list"),
            (&["x"], r#"{"instances": [[1]]}"#, "shape [1, 1]"),
            (&["x"], r#"{"instances": [[1, 2]], "instanses": 1}"#, "instanses"),
            (&["x"], r#"{"instances": [[1, 2]], "signature_name": "other"}"#, "other"),
            (&["x"], r#"{"inputs": {"y": [[1, 2]]}}"#, "no input \"y\""),
            (&["a", "b"], r#"{"instances": [[1, 2]]}"#, "several inputs"),
            (&["a", "b"], r#"{"instances": [{"a": [1, 2]}]}"#, "\"b\" is missing"),
            (&["a", "b"], r#"{"inputs": {"a": [[1, 2]]}}"#, "\"b\" is missing"),
        ] {
            let error = read(names, body).expect_err(body);
            assert!(error.contains(part), "{body}: {error}");
        }
    }

    #[test]
    fn answers_are_laid_out_as_tf_serving_does() {
        let tensor = |name: &str, values: &[f32]| Tensor {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: vec![2, values.len() / 2],
            data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let (y, z) = (tensor("y", &[1.0, 2.0, 3.0, 4.0]), tensor("z", &[5.0, 6.0]));
        assert_eq!(write_answer(Form::Row, std::slice::from_ref(&y)), r#"{"predictions":[[1.0,2.0],[3.0,4.0]]}"#);
        assert_eq!(write_answer(Form::Column, std::slice::from_ref(&y)), r#"{"outputs":[[1.0,2.0],[3.0,4.0]]}"#);
        let both = [y, z];
        let rows = r#"{"predictions":[{"y":[1.0,2.0],"z":[5.0]},{"y":[3.0,4.0],"z":[6.0]}]}"#;
        assert_eq!(write_answer(Form::Row, &both), rows);
        assert_eq!(write_answer(Form::Column, &both), r#"{"outputs":{"y":[[1.0,2.0],[3.0,4.0]],"z":[[5.0],[6.0]]}}"#);
    }

    #[tokio::test]
    async fn an_unknown_model_is_404_with_tf_servings_words() {
        let name = "nobody".parse().expect("a name");
        let got = answer(&Table::default(), &name, None, TfServingVerb::Predict, b"{").await;
        assert_eq!(
            (got.status, &got.body[..]),
            (404, &br#"{"error":"Servable not found for request: Latest(nobody)"}"#[..])
        );
        let got = answer(&Table::default(), &name, Version::new(3), TfServingVerb::Status, b"").await;
        assert_eq!(
            (got.status, &got.body[..]),
            (404, &br#"{"error":"Servable not found for request: Specific(nobody, 3)"}"#[..])
        );
    }
}
