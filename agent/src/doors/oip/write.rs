//! What a model gave, as a body: JSON, and behind it the bytes of the outputs that were asked for so.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use muster_shared::manifest::Dtype;

use super::datatypes;
use super::infer::Given;
use crate::doors::http::{Answer, JSON_BYTES};
use crate::doors::refusal::Refusal;
use crate::table::Served;
use crate::tensor::{Tensor, Writer, strings};

/// What JSON takes beside the elements of outputs, about.
const FRAME_BYTES: usize = 256;
/// What an element takes as JSON, about.
const ELEMENT_BYTES: usize = 12;

/// The answer to a run. `name`: the model's, as it was asked for.
pub fn write(name: &str, served: &Served, id: Option<&str>, outputs: &[Given]) -> Result<Answer, Refusal> {
    let mut out = Vec::with_capacity(outputs.iter().map(room).sum::<usize>() + FRAME_BYTES);
    out.push(b'{');
    if let Some(id) = id {
        out.extend(b"\"id\":");
        text(id, &mut out);
        out.push(b',');
    }
    out.extend(b"\"model_name\":");
    text(name, &mut out);
    out.extend(b",\"model_version\":\"");
    out.extend(itoa::Buffer::new().format(served.version.get()).as_bytes());
    out.extend(b"\",\"outputs\":[");
    for (at, output) in outputs.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_output(output, &mut out)?;
    }
    out.extend(b"]}");
    let json_bytes = out.len();
    let mut binary = false;
    for output in outputs.iter().filter(|output| output.binary) {
        out.extend(&output.tensor.data);
        binary = true;
    }
    let headers: Vec<(HeaderName, HeaderValue)> = if binary {
        vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")), (JSON_BYTES, json_bytes.into())]
    } else {
        vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))]
    };
    Ok(Answer { status: StatusCode::OK, version: Some(served.version), headers, body: out.into() })
}

fn room(output: &Given) -> usize {
    let bytes = output.tensor.data.len();
    match output.tensor.dtype.size_bytes() {
        Some(size) if !output.binary => bytes / size * ELEMENT_BYTES + FRAME_BYTES,
        _ => bytes + FRAME_BYTES,
    }
}

fn write_output(output: &Given, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let tensor = &output.tensor;
    out.extend(b"{\"name\":");
    text(&tensor.name, out);
    out.extend(b",\"datatype\":\"");
    out.extend(datatypes::name(tensor.dtype).as_bytes());
    out.extend(b"\",\"shape\":[");
    for (at, size) in tensor.shape.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend(itoa::Buffer::new().format(*size).as_bytes());
    }
    if output.binary {
        out.extend(b"],\"parameters\":{\"binary_data_size\":");
        out.extend(itoa::Buffer::new().format(tensor.data.len()).as_bytes());
        out.extend(b"}}");
    } else {
        check_text(tensor)?;
        out.extend(b"],\"data\":");
        // One list, whatever the shape, as Triton does.
        Writer::new(tensor).block(&[tensor.elements()], out);
        out.push(b'}');
    }
    Ok(())
}

/// JSON has no bytes but those of texts.
fn check_text(tensor: &Tensor) -> Result<(), Refusal> {
    let texts = || strings(&tensor.data).all(|text| std::str::from_utf8(text).is_ok());
    if tensor.dtype != Dtype::String || texts() {
        return Ok(());
    }
    let name = &tensor.name;
    Err(Refusal::bad(format!("output {name:?} holds bytes that are no text in UTF-8: ask for it with \"binary_data\"")))
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Writing a text into memory does not fail.
    let _ = serde_json::to_writer(out, text);
}
