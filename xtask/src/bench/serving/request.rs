//! What is asked, in which form, and whether the answer is the right one.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use muster_load::Answer;
use serde::Deserialize;
use serde_json::{Value, json};

/// How far engines may differ, as a part of the largest value.
const TOLERANCE: f32 = 1e-3;

/// How a tensor travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// TensorFlow Serving's REST: nested lists.
    TensorFlow,
    /// The Open Inference Protocol's JSON: one flat list.
    OipJson,
    /// The Open Inference Protocol's binary tensor extension.
    OipBinary,
}

impl std::fmt::Display for Form {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::TensorFlow => "TFS JSON",
            Self::OipJson => "OIP JSON",
            Self::OipBinary => "OIP binary",
        })
    }
}

/// A model, one input for it and the answer to that.
#[derive(Debug, Deserialize)]
pub struct Sample {
    name: String,
    input: Tensor,
    output: Tensor,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Sample {
    /// Reads what `make.py` wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is no sample", path.display()))
    }

    /// The whole HTTP request.
    pub fn request(&self, form: Form, address: SocketAddr) -> anyhow::Result<Vec<u8>> {
        let Self { name, input, output } = self;
        let (path, mut headers, body) = match form {
            Form::TensorFlow => {
                let body = format!("{{\"instances\":{}}}", nested(&input.shape, &input.data));
                (format!("/v1/models/{name}:predict"), String::new(), body.into_bytes())
            }
            Form::OipJson => {
                let data = nested(&[input.data.len()], &input.data);
                let (tensor, shape) = (json!(input.name), json!(input.shape));
                let body = format!(
                    "{{\"inputs\":[{{\"name\":{tensor},\"shape\":{shape},\"datatype\":\"FP32\",\"data\":{data}}}]}}"
                );
                (format!("/v2/models/{name}/infer"), String::new(), body.into_bytes())
            }
            Form::OipBinary => {
                let tensor: Vec<u8> = input.data.iter().flat_map(|value| value.to_le_bytes()).collect();
                let head = json!({
                    "inputs": [{ "name": input.name, "shape": input.shape, "datatype": "FP32",
                                 "parameters": { "binary_data_size": tensor.len() } }],
                    "outputs": [{ "name": output.name, "parameters": { "binary_data": true } }],
                });
                let head = serde_json::to_vec(&head)?;
                let header = format!("Inference-Header-Content-Length: {}\r\n", head.len());
                (format!("/v2/models/{name}/infer"), header, [head, tensor].concat())
            }
        };
        let content = if form == Form::OipBinary { "application/octet-stream" } else { "application/json" };
        write!(headers, "Content-Type: {content}\r\nContent-Length: {}\r\n", body.len())?;
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
        Ok([head.into_bytes(), body].concat())
    }

    /// An error unless the answer is right.
    pub fn check(&self, form: Form, answer: &Answer) -> anyhow::Result<()> {
        if answer.status != 200 {
            bail!("answered {}: {}", answer.status, beginning(&answer.body));
        }
        let got = values(form, answer).with_context(|| format!("no {form} answer: {}", beginning(&answer.body)))?;
        let expected = &self.output.data;
        if got.len() != expected.len() {
            bail!("answered {} values, not {}", got.len(), expected.len());
        }
        let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        let wrong = expected.iter().zip(&got).find(|(expected, got)| {
            // Written so that what is no number is wrong as well.
            let close = (*expected - *got).abs() <= TOLERANCE * largest;
            !close
        });
        match wrong {
            Some((expected, got)) => bail!("answered {got} where {expected} is right"),
            None => Ok(()),
        }
    }
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

/// JSON lists as deep as the shape is long.
fn nested(shape: &[usize], data: &[f32]) -> String {
    let Some((length, rest)) = shape.split_first() else {
        return data.first().map(f32::to_string).unwrap_or_default();
    };
    let each = (data.len() / length.max(&1)).max(1);
    let parts: Vec<String> = data.chunks(each).map(|part| nested(rest, part)).collect();
    format!("[{}]", parts.join(","))
}

fn values(form: Form, answer: &Answer) -> anyhow::Result<Vec<f32>> {
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body).context("no JSON");
    match form {
        Form::TensorFlow => flat(&json(&answer.body)?["predictions"]),
        Form::OipJson => flat(&json(&answer.body)?["outputs"][0]["data"]),
        Form::OipBinary => {
            let length: usize = answer.header("inference-header-content-length").context("no length")?.parse()?;
            let (head, tensors) = answer.body.split_at_checked(length).context("cut off")?;
            let size = json(head)?["outputs"][0]["parameters"]["binary_data_size"].as_u64().context("no size")?;
            let tensor = tensors.get(..usize::try_from(size)?).context("cut off")?;
            let (values, rest) = tensor.as_chunks::<4>();
            anyhow::ensure!(rest.is_empty(), "no whole number of values");
            Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
        }
    }
}

/// The numbers of nested lists, in order.
fn flat(value: &Value) -> anyhow::Result<Vec<f32>> {
    match value {
        Value::Array(values) => {
            Ok(values.iter().map(flat).collect::<anyhow::Result<Vec<Vec<f32>>>>()?.into_iter().flatten().collect())
        }
        Value::Number(number) => Ok(vec![number.as_f64().context("no number")? as f32]),
        other => bail!("{other} is no number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let text = r#"{"name": "m", "input": {"name": "x", "shape": [2, 1, 2], "data": [1, -2.5, 0.125, 4]},
                       "output": {"name": "y", "shape": [2], "data": [0.5, 8]}}"#;
        serde_json::from_str(text).expect("a sample")
    }

    fn check_request(form: Form, expect: &str) {
        let address = SocketAddr::from(([127, 0, 0, 1], 8501));
        let request = sample().request(form, address).expect("a request");
        assert_eq!(String::from_utf8_lossy(&request).replace("\r\n", "\n"), expect);
    }

    #[test]
    fn requests_are_spelled_as_the_protocols_say() {
        check_request(
            Form::TensorFlow,
            "POST /v1/models/m:predict HTTP/1.1\nHost: 127.0.0.1:8501\nContent-Type: application/json\n\
             Content-Length: 38\n\n{\"instances\":[[[1,-2.5]],[[0.125,4]]]}",
        );
        check_request(
            Form::OipJson,
            "POST /v2/models/m/infer HTTP/1.1\nHost: 127.0.0.1:8501\nContent-Type: application/json\n\
             Content-Length: 83\n\n\
             {\"inputs\":[{\"name\":\"x\",\"shape\":[2,1,2],\"datatype\":\"FP32\",\"data\":[1,-2.5,0.125,4]}]}",
        );
    }

    #[test]
    fn a_binary_request_ends_with_the_tensor() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8501));
        let request = sample().request(Form::OipBinary, address).expect("a request");
        let (_, body) = request.split_at(request.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4);
        let (head, tensor) = body.split_at(body.len() - 16);
        assert_eq!(tensor, [1.0_f32, -2.5, 0.125, 4.0].map(f32::to_le_bytes).concat());
        let length = format!("Inference-Header-Content-Length: {}\r\n", head.len());
        assert!(String::from_utf8_lossy(&request).contains(&length), "{length}");
    }

    /// Whether an answer with this body counts as right.
    fn check_answer(form: Form, headers: &str, body: &[u8]) -> anyhow::Result<()> {
        let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        sample().check(form, &Answer::parse(&[head.as_bytes(), body].concat())?)
    }

    #[test]
    fn only_right_answers_count() {
        check_answer(Form::TensorFlow, "", br#"{"predictions": [[0.5], [8.001]]}"#).expect("as good as right");
        check_answer(Form::OipJson, "", br#"{"outputs": [{"data": [0.5, 8]}]}"#).expect("right");
        let head = br#"{"outputs": [{"parameters": {"binary_data_size": 8}}]}"#;
        let binary = [head.as_slice(), &0.5_f32.to_le_bytes(), &8_f32.to_le_bytes()].concat();
        let length = format!("inference-header-content-length: {}\r\n", head.len());
        check_answer(Form::OipBinary, &length, &binary).expect("right");

        for wrong in [r#"{"predictions": [0.5, 8.1]}"#, r#"{"predictions": [0.5]}"#, r#"{"error": "no"}"#, "no"] {
            check_answer(Form::TensorFlow, "", wrong.as_bytes()).expect_err(wrong);
        }
        check_answer(Form::OipBinary, &length, &binary[..binary.len() - 1]).expect_err("cut off");
    }

    #[test]
    fn nested_lists_follow_the_shape() {
        assert_eq!(nested(&[2, 1, 2], &[1.0, -2.5, 0.125, 4.0]), "[[[1,-2.5]],[[0.125,4]]]");
        assert_eq!(nested(&[4], &[1.0, 2.0, 3.0, 0.1]), "[1,2,3,0.1]");
    }
}
