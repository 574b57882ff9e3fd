//! Tensors become the body of an answer, as `MakeJsonFromTensors`, `MakeJsonFromClassificationResult`
//! and `MakeJsonFromRegressionResult` in TF Serving's `util/json_tensor.cc` lay it out, less the white
//! space. Which output holds a classification's scores or a regression's values follows
//! `servables/tensorflow/classifier.cc` and `regressor.cc` as far as a model without a signature of
//! that kind allows; see [`classification`] and [`regression`].

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_shared::manifest::Dtype;

use super::metadata::dtype_name;
use super::request::{Form, list};
use crate::tensor::{Tensor, Writer};

/// Text that an element takes, roughly.
const ELEMENT_BYTES: usize = 12;

/// One output stands bare, several stand under their names.
pub fn prediction(form: Form, outputs: &[Tensor]) -> Result<Vec<u8>, String> {
    if outputs.is_empty() {
        return Err("Cannot convert empty tensor map to JSON".into());
    }
    let elements: usize = outputs.iter().map(|output| output.data.len() / output.dtype.size_bytes().unwrap_or(4)).sum();
    let mut out = Vec::with_capacity(64 + elements.saturating_mul(ELEMENT_BYTES));
    match form {
        Form::Column => {
            out.extend(b"{\"outputs\":");
            let mut writers: Vec<_> = outputs.iter().map(|output| Output::new(output, &output.shape)).collect();
            object(&mut writers, &mut out);
        }
        Form::Row => {
            let rows = batch(outputs)?;
            let mut writers: Vec<_> = outputs.iter().map(|output| Output::new(output, &output.shape[1..])).collect();
            out.extend(b"{\"predictions\":[");
            for row in 0..rows {
                if row > 0 {
                    out.push(b',');
                }
                object(&mut writers, &mut out);
            }
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(out)
}

/// The size of the first dimension, which all outputs must have in common.
fn batch(outputs: &[Tensor]) -> Result<usize, String> {
    let mut batch = None;
    for Tensor { name, shape, .. } in outputs {
        let Some(size) = shape.first() else {
            return Err(format!("Tensor name: {name} has no shape information "));
        };
        let expected = *batch.get_or_insert(*size);
        if expected != *size {
            return Err(format!("Tensor name: {name} has inconsistent batch size: {size} expecting: {expected}"));
        }
    }
    Ok(batch.unwrap_or(0))
}

/// An output while it is written, a block of this shape at a time.
struct Output<'a> {
    name: &'a str,
    shape: &'a [usize],
    writer: Writer<'a>,
    as_base64: bool,
}

impl<'a> Output<'a> {
    fn new(tensor: &'a Tensor, shape: &'a [usize]) -> Self {
        let as_base64 = tensor.dtype == Dtype::String && tensor.name.ends_with("_bytes");
        Self { name: &tensor.name, shape, writer: Writer::new(tensor), as_base64 }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if self.as_base64 { base64(&mut self.writer, self.shape, out) } else { self.writer.block(self.shape, out) }
    }
}

fn object(outputs: &mut [Output<'_>], out: &mut Vec<u8>) {
    if let [only] = outputs {
        return only.write(out);
    }
    for (at, output) in outputs.iter_mut().enumerate() {
        out.push(if at == 0 { b'{' } else { b',' });
        text(output.name, out);
        out.push(b':');
        output.write(out);
    }
    out.push(b'}');
}

fn base64(writer: &mut Writer<'_>, shape: &[usize], out: &mut Vec<u8>) {
    let [size, inner @ ..] = shape else {
        out.extend(b"{\"b64\":\"");
        out.extend(STANDARD.encode(writer.string().unwrap_or_default()).as_bytes());
        return out.extend(b"\"}");
    };
    out.push(b'[');
    for at in 0..*size {
        if at > 0 {
            out.push(b',');
        }
        base64(writer, inner, out);
    }
    out.push(b']');
}

fn text(text: &str, out: &mut Vec<u8>) {
    // A text always becomes JSON.
    let _ = serde_json::to_writer(out, text);
}

fn is_float(tensor: &&Tensor) -> bool {
    matches!(tensor.dtype, Dtype::F16 | Dtype::F32 | Dtype::F64)
}

fn named<'a>(outputs: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    outputs.iter().find(|output| output.name == name)
}

/// A label and a score for each class of each example.
///
/// The scores are the output `scores`, else the first of floats with two dimensions, else the first of
/// floats. The labels are the output `classes`, else the first of texts that is shaped like the scores;
/// without one, each label is empty, as TF Serving leaves it, and a class is known by its place. So the
/// `probabilities` of a classifier from scikit-learn are given, in the order of its classes. Without
/// scores, the labels are the first output of texts, and the scores are 0.
pub fn classification(outputs: &[Tensor], examples: usize) -> Result<Vec<u8>, String> {
    let floats = || outputs.iter().filter(is_float);
    let scores = named(outputs, "scores");
    let scores = scores.or_else(|| floats().find(|output| output.shape.len() == 2)).or_else(|| floats().next());
    let mut texts = outputs.iter().filter(|output| output.dtype == Dtype::String);
    let classes = named(outputs, "classes");
    let classes = classes.or_else(|| texts.find(|output| scores.is_none_or(|scores| output.shape == scores.shape)));
    if let Some(classes) = classes.filter(|classes| classes.dtype != Dtype::String) {
        return Err(format!("Expected classes Tensor of DT_STRING. Got: {}", dtype_name(classes.dtype)));
    }
    if let Some(scores) = scores.filter(|scores| !is_float(scores)) {
        return Err(format!("Expected scores Tensor of DT_FLOAT. Got: {}", dtype_name(scores.dtype)));
    }
    let classes_count = |tensor: &Tensor, what: &str| match tensor.shape[..] {
        [batch] | [batch, _] if batch != examples => {
            Err(format!("Expected {what} output batch size of {examples}. Got: {batch}"))
        }
        [_] => Ok(1),
        [_, count] => Ok(count),
        _ => Err(format!("Expected Tensor shape: [batch_size num_classes] but got {}", list(&tensor.shape))),
    };
    let label_count = classes.map(|classes| classes_count(classes, "classes")).transpose()?;
    let score_count = scores.map(|scores| classes_count(scores, "scores")).transpose()?;
    let count = match (label_count, score_count) {
        (Some(labels), Some(scores)) if labels != scores => {
            return Err(format!("Tensors class and score should match in dim_size(1). Got {labels} vs. {scores}"));
        }
        (Some(count), _) | (None, Some(count)) => count,
        (None, None) => {
            let names: BTreeSet<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            let names: Vec<&str> = names.into_iter().collect();
            return Err(format!(
                "Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". \
                 Signature was: {}",
                names.join(",")
            ));
        }
    };
    let (mut labels, mut scores) = (classes.map(Writer::new), scores.map(Writer::new));
    let mut out = Vec::with_capacity(16 + examples.saturating_mul(count).saturating_mul(ELEMENT_BYTES + 6));
    out.extend(b"{\"results\":[");
    for example in 0..examples {
        out.extend(if example > 0 { &b",["[..] } else { b"[" });
        for class in 0..count {
            out.extend(if class > 0 { &b",["[..] } else { b"[" });
            match &mut labels {
                Some(labels) => labels.block(&[], &mut out),
                None => out.extend(b"\"\""),
            }
            out.push(b',');
            match &mut scores {
                Some(scores) => scores.block(&[], &mut out),
                None => out.extend(b"0.0"),
            }
            out.push(b']');
        }
        out.push(b']');
    }
    out.extend(b"]}");
    Ok(out)
}

/// A number for each example: the output `outputs`, else the first of floats with one value for each,
/// else, to say what is wrong, the first of floats or of any.
pub fn regression(outputs: &[Tensor], examples: usize) -> Result<Vec<u8>, String> {
    let one_each = |output: &&Tensor| is_float(output) && matches!(output.shape[..], [_] | [_, 1]);
    let output = named(outputs, "outputs").or_else(|| outputs.iter().find(one_each));
    let output = output.or_else(|| outputs.iter().find(is_float)).or_else(|| outputs.first());
    let Some(output) = output else { return Err("Expected one output Tensor.".into()) };
    let batch = match output.shape[..] {
        [batch] | [batch, 1] => batch,
        _ => {
            let found = list(&output.shape);
            return Err(format!(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {found}"
            ));
        }
    };
    if batch != examples {
        return Err(format!("Input batch size did not match output batch size: {examples} vs. {batch}"));
    }
    if !is_float(&output) {
        return Err(format!("Expected output Tensor of DT_FLOAT.  Got: {}", dtype_name(output.dtype)));
    }
    let mut out = b"{\"results\":".to_vec();
    Writer::new(output).block(&[batch], &mut out);
    out.push(b'}');
    Ok(out)
}
