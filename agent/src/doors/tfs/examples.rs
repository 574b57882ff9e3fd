//! The body of a classify or regress request becomes tensors. In TF Serving each example is a
//! `tf.Example` that the model itself takes apart. A model here takes tensors, so:
//!
//! - A feature is for the input of its name. What is no input's name is passed over, as TensorFlow
//!   passes over features that a model does not ask for. Names must be right even where a model has
//!   one input only: nothing else tells which feature is meant.
//! - The examples make up the batch: the values of a feature, one or a list, fill what the input's shape
//!   has behind its first dimension, row by row. An open size there is as many as there are values; of
//!   several open sizes the last.
//! - A feature of the `context` is given to each example that has none of that name.
//! - Values are taken as `MakeExampleFromJsonObject` in TF Serving's `util/json_tensor.cc` takes them,
//!   with its words, except that the input's type decides, not the first value: `1` is a float where
//!   floats are wanted. `true` and `false` are integers, too.

use jiter::{Jiter, Peek};
use muster_shared::manifest::{Dtype, Port};

use super::request::{Body, SIGNATURE, list};
use crate::json::{self, BadJson};
use crate::tensor::Tensor;

/// Reads the tensors that `ports` take, in their order, and how many examples there are. The error is
/// the caller's mistake.
pub fn read(ports: &[Port], body: &[u8]) -> Result<(Vec<Tensor>, usize), String> {
    let body = Body::read(body)?;
    if let Some(name) = body.signature()?.filter(|name| !name.is_empty() && name != SIGNATURE) {
        return Err(format!("No signature was found with the name: {name}"));
    }
    let context = match body.member("context") {
        Some(context) => example(ports, &mut json::reader(context))?,
        None => ports.iter().map(|_| None).collect(),
    };
    let Some(examples) = body.member("examples") else {
        return Err(body.error("When method is classify, key 'examples' is expected and was not found"));
    };
    let mut json = json::reader(examples);
    if json.peek().map_err(as_text)? != Peek::Array {
        return Err(body.error("Expecting 'examples' value to be an list/array"));
    }
    let mut columns: Vec<Column<'_>> = ports.iter().map(Column::new).collect();
    let mut count = 0;
    let mut next = json.known_array().map_err(as_text)?;
    while next.is_some() {
        let features = example(ports, &mut json)?;
        for ((column, own), shared) in columns.iter_mut().zip(&features).zip(&context) {
            column.push(own.as_ref().or(shared.as_ref()), count)?;
        }
        count += 1;
        next = json.array_step().map_err(as_text)?;
    }
    if count == 0 {
        return Err(body.error("'examples' value is an empty array"));
    }
    let tensors = columns.into_iter().map(|column| column.finish(count)).collect::<Result<_, _>>()?;
    Ok((tensors, count))
}

fn as_text(error: impl Into<BadJson>) -> String {
    error.into().to_string()
}

/// What one example has for one input.
struct Feature {
    data: Vec<u8>,
    count: usize,
}

/// The features of one example, in the order of the ports.
fn example(ports: &[Port], json: &mut Jiter<'_>) -> Result<Vec<Option<Feature>>, String> {
    let first = json.peek().map_err(as_text)?;
    if first != Peek::Object {
        return Err(format!("Example must be JSON object but got JSON {}", json::kind(first)));
    }
    let mut features: Vec<Option<Feature>> = ports.iter().map(|_| None).collect();
    let known = |name: &str| ports.iter().position(|port| port.name == name);
    let mut key = json.next_object().map_err(as_text)?.map(known);
    while let Some(port) = key {
        let value = json.peek().map_err(as_text)?;
        match port {
            Some(at) => features[at] = Some(feature(&ports[at], json, value)?).filter(|feature| feature.count > 0),
            None => json::skip(json, value).map_err(as_text)?,
        }
        key = json.next_key().map_err(as_text)?.map(known);
    }
    Ok(features)
}

fn feature(port: &Port, json: &mut Jiter<'_>, first: Peek) -> Result<Feature, String> {
    let mut feature = Feature { data: vec![], count: 0 };
    if first != Peek::Array {
        feature.push(port, json, first)?;
        return Ok(feature);
    }
    let mut next = json.known_array().map_err(as_text)?;
    while let Some(peek) = next {
        feature.push(port, json, peek)?;
        next = json.array_step().map_err(as_text)?;
    }
    Ok(feature)
}

impl Feature {
    fn push(&mut self, port: &Port, json: &mut Jiter<'_>, peek: Peek) -> Result<(), String> {
        let Port { name, dtype, .. } = port;
        let wanted = kind(*dtype);
        let is_value = match peek {
            Peek::Null | Peek::Array => false,
            Peek::Object => json::is_base64(json),
            _ => true,
        };
        if !is_value {
            return Err(format!("Feature: {name} has element with unexpected JSON type: {}", json::kind(peek)));
        }
        self.count += 1;
        if matches!(peek, Peek::True | Peek::False) && wanted == "int64" {
            let one = json.known_bool(peek).map_err(as_text)?;
            self.data.push(one.into());
            self.data.resize(self.data.len() + dtype.size_bytes().unwrap_or(1) - 1, 0);
            return Ok(());
        }
        json::push_element(json, peek, *dtype, &mut self.data).map_err(|error| match error {
            BadJson::Element { found, .. } if *dtype == Dtype::I64 && found.parse::<u64>().is_ok() => {
                format!("Feature: {name} has uint64_t element. Only int64_t is supported.")
            }
            BadJson::Element { .. } => format!("Unexpected element type in feature: {name} expecting type: {wanted}"),
            error => error.to_string(),
        })
    }
}

/// The kind of list that a feature of this type is in a `tf.Example`.
fn kind(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::String => "bytes",
        Dtype::F16 | Dtype::F32 | Dtype::F64 => "float",
        _ => "int64",
    }
}

/// One input while the examples come in.
struct Column<'a> {
    port: &'a Port,
    /// Sizes behind the first dimension, as the first example has them.
    shape: Option<Vec<usize>>,
    data: Vec<u8>,
}

impl<'a> Column<'a> {
    fn new(port: &'a Port) -> Self {
        Self { port, shape: None, data: vec![] }
    }

    fn push(&mut self, feature: Option<&Feature>, at: usize) -> Result<(), String> {
        let Port { name, dtype, shape } = self.port;
        let kind = kind(*dtype);
        let Some(Feature { data, count }) = feature else {
            return Err(format!(
                "Name: <unknown>, Feature: {name} (data type: {kind}) is required but could not be found."
            ));
        };
        let shape = self.shape.get_or_insert_with(|| filled(shape.get(1..).unwrap_or_default(), *count));
        if crate::tensor::elements(shape) != Some(*count) {
            let shape = list(shape);
            return Err(format!(
                "Name: <unknown>, Key: {name}, Index: {at}.  Number of {kind} values != expected.  values size: \
                 {count} but output shape: {shape}"
            ));
        }
        self.data.extend_from_slice(data);
        Ok(())
    }

    fn finish(self, examples: usize) -> Result<Tensor, String> {
        let mut shape = self.shape.unwrap_or_default();
        shape.insert(0, examples);
        Tensor::for_port(self.port, shape, self.data.into()).map_err(|error| error.to_string())
    }
}

/// The shape with its open sizes filled so that it holds `count` values, if it can.
fn filled(shape: &[Option<u32>], count: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = shape.iter().map(|size| size.unwrap_or(1) as usize).collect();
    let known = sizes.iter().fold(1usize, |product, size| product.saturating_mul(*size));
    if let Some(last) = shape.iter().rposition(Option::is_none) {
        sizes[last] = count.checked_div(known).unwrap_or(0);
    }
    sizes
}
