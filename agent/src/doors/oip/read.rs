//! A body becomes tensors. Elements as JSON go straight into bytes; elements as bytes lie behind the
//! JSON, as Triton's binary tensor data extension says, and are not copied.

use std::time::Duration;

use axum::http::header::HeaderMap;
use bytes::Bytes;
use jiter::{Jiter, Peek};
use muster_shared::limits::{PORTS_MAX, RANK_MAX};
use muster_shared::manifest::{Dtype, Port};

use super::datatypes;
use super::infer::{Asked, Wanted};
use crate::doors::http::{Ask, JSON_BYTES};
use crate::doors::refusal::Refusal;
use crate::json;
use crate::table::Served;
use crate::tensor::{Tensor, push_string};

/// Inputs, and outputs, that one request may name: more than a model can have are a mistake.
const NAMED_MAX: usize = 2 * PORTS_MAX;

/// Reads the body of a request for a run of `served`.
pub fn read(ask: Ask<'_>, served: &Served) -> Result<Asked, Refusal> {
    let body = ask.body;
    match json_bytes(ask.headers)? {
        Some(0) => raw(body, served),
        Some(bytes) if bytes > body.len() => {
            Err(Refusal::bad(format!("{JSON_BYTES}: {bytes} bytes of JSON in a body of {}", body.len())))
        }
        Some(bytes) => parse(body, bytes),
        None => parse(body, body.len()),
    }
}

fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(JSON_BYTES) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Refusal::bad(format!("{JSON_BYTES}: {value:?} is no number of bytes")))
}

/// The members that are read, of any object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Id,
    Inputs,
    Outputs,
    Parameters,
    Name,
    Datatype,
    Shape,
    Data,
    Other,
}

impl Key {
    fn of(key: &str) -> Self {
        match key {
            "id" => Self::Id,
            "inputs" => Self::Inputs,
            "outputs" => Self::Outputs,
            "parameters" => Self::Parameters,
            "name" => Self::Name,
            "datatype" => Self::Datatype,
            "shape" => Self::Shape,
            "data" => Self::Data,
            _ => Self::Other,
        }
    }
}

/// The parameters that mean something here; others are passed over, as the protocol allows.
#[derive(Debug, Default)]
struct Parameters {
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
    binary_data_size: Option<usize>,
    classification: Option<usize>,
    timeout_us: Option<u64>,
    shared_memory: bool,
}

/// Where an input's elements are.
enum Data<'j> {
    Nowhere,
    /// Read already.
    Read(Vec<u8>),
    /// They came before their type.
    Later(&'j [u8]),
}

fn parse(body: &Bytes, json_bytes: usize) -> Result<Asked, Refusal> {
    let mut json = json::reader(&body[..json_bytes]);
    let mut binary = Binary { body, at: json_bytes };
    let mut asked = Asked::default();
    let mut inputs_given = false;
    let mut key = json.next_object()?.map(Key::of);
    while let Some(known) = key {
        match known {
            // Some clients write what they leave out.
            Key::Id | Key::Outputs | Key::Parameters if is_null(&mut json)? => {}
            Key::Id => asked.id = Some(json.next_str()?.to_owned()),
            Key::Inputs => {
                inputs_given = true;
                asked.inputs.clear();
                let mut next = json.next_array()?;
                while next.is_some() {
                    bounded(asked.inputs.len(), "inputs")?;
                    asked.inputs.push(input(&mut json, &mut binary)?);
                    next = json.array_step()?;
                }
            }
            Key::Outputs => {
                asked.outputs.clear();
                let mut next = json.next_array()?;
                while next.is_some() {
                    bounded(asked.outputs.len(), "outputs")?;
                    asked.outputs.push(output(&mut json)?);
                    next = json.array_step()?;
                }
            }
            Key::Parameters => {
                let parameters = parameters(&mut json)?;
                asked.binary = parameters.binary_data_output.unwrap_or(false);
                // 0 means Triton's default, which is none.
                asked.timeout = parameters.timeout_us.filter(|us| *us > 0).map(Duration::from_micros);
            }
            _ => json.next_skip()?,
        }
        key = json.next_key()?.map(Key::of);
    }
    json.finish()?;
    if !inputs_given {
        return Err(Refusal::bad("the request has no \"inputs\""));
    }
    match body.len() - binary.at {
        0 => Ok(asked),
        more if binary.at == json_bytes => {
            Err(Refusal::bad(format!("{more} bytes follow the JSON, but no input has a \"binary_data_size\"")))
        }
        more => Err(Refusal::bad(format!("{more} bytes follow that belong to no input"))),
    }
}

/// Whether the next value is `null`, which it then passes.
fn is_null(json: &mut Jiter<'_>) -> Result<bool, Refusal> {
    let null = json.peek()? == Peek::Null;
    if null {
        json.known_null()?;
    }
    Ok(null)
}

fn bounded(count: usize, what: &str) -> Result<(), Refusal> {
    if count < NAMED_MAX { Ok(()) } else { Err(Refusal::bad(format!("more than {NAMED_MAX} {what}"))) }
}

/// The bytes behind the JSON, taken from the front.
struct Binary<'b> {
    body: &'b Bytes,
    at: usize,
}

impl Binary<'_> {
    fn take(&mut self, name: &str, bytes: usize) -> Result<Bytes, Refusal> {
        let left = self.body.len() - self.at;
        if bytes > left {
            return Err(Refusal::bad(format!(
                "input {name:?}: {bytes} bytes announced, but {left} are left in the body"
            )));
        }
        let start = self.at;
        self.at += bytes;
        Ok(self.body.slice(start..self.at))
    }
}

fn input(json: &mut Jiter<'_>, binary: &mut Binary<'_>) -> Result<Tensor, Refusal> {
    let (mut name, mut datatype, mut shape) = (None, None, None);
    let mut data = Data::Nowhere;
    let mut given = Parameters::default();
    let mut key = json.next_object()?.map(Key::of);
    while let Some(known) = key {
        match known {
            Key::Name => name = Some(json.next_str()?.to_owned()),
            Key::Datatype if matches!(data, Data::Read(_)) => {
                return Err(Refusal::bad("an input has two \"datatype\"s"));
            }
            Key::Datatype => datatype = Some(datatypes::dtype(json.next_str()?)?),
            Key::Shape => shape = Some(sizes(json)?),
            Key::Parameters if is_null(json)? => {}
            Key::Parameters => given = parameters(json)?,
            Key::Data => {
                let peek = json.peek()?;
                data = match datatype {
                    Some(dtype) => Data::Read(elements(json, peek, dtype, name.as_deref())?),
                    None => {
                        let start = json.current_index();
                        json.known_skip(peek)?;
                        Data::Later(json.slice_to_current(start))
                    }
                };
            }
            _ => json.next_skip()?,
        }
        key = json.next_key()?.map(Key::of);
    }
    let name = name.ok_or_else(|| Refusal::bad("an input has no \"name\""))?;
    let missing = |what: &str| Refusal::bad(format!("input {name:?} has no {what:?}"));
    let dtype = datatype.ok_or_else(|| missing("datatype"))?;
    let shape = shape.ok_or_else(|| missing("shape"))?;
    if given.shared_memory {
        return Err(Refusal::bad(format!("input {name:?}: this server shares no memory with its callers")));
    }
    let data = match (data, given.binary_data_size) {
        (Data::Nowhere, None) => return Err(missing("data")),
        (Data::Nowhere, Some(bytes)) => binary.take(&name, bytes)?,
        (_, Some(_)) => return Err(Refusal::bad(format!("input {name:?} has \"data\" and \"binary_data_size\""))),
        (Data::Read(data), None) => data.into(),
        (Data::Later(text), None) => {
            let mut json = json::reader(text);
            let peek = json.peek()?;
            elements(&mut json, peek, dtype, Some(&name))?.into()
        }
    };
    Ok(Tensor { name, dtype, shape, data })
}

fn elements(json: &mut Jiter<'_>, peek: Peek, dtype: Dtype, name: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let read = json::read_elements(json, peek, dtype);
    read.map(|elements| elements.data).map_err(|reason| match name {
        Some(name) => Refusal::bad(format!("input {name:?}: {reason}")),
        None => reason.into(),
    })
}

fn sizes(json: &mut Jiter<'_>) -> Result<Vec<usize>, Refusal> {
    let mut sizes = vec![];
    let mut next = json.next_array()?;
    while let Some(peek) = next {
        if sizes.len() == RANK_MAX {
            return Err(Refusal::bad(format!("a shape of more than {RANK_MAX} sizes")));
        }
        sizes.push(whole(json, peek, "a size in a shape")?);
        next = json.array_step()?;
    }
    Ok(sizes)
}

fn whole<T: TryFrom<i64>>(json: &mut Jiter<'_>, peek: Peek, what: &str) -> Result<T, Refusal> {
    let number = if peek.is_num() { json.known_int(peek).ok() } else { None };
    let number = match number {
        Some(jiter::NumberInt::Int(number)) => T::try_from(number).ok(),
        _ => None,
    };
    number.ok_or_else(|| Refusal::bad(format!("{what} is a whole number from 0")))
}

fn output(json: &mut Jiter<'_>) -> Result<Wanted, Refusal> {
    let mut name = None;
    let mut given = Parameters::default();
    let mut key = json.next_object()?.map(Key::of);
    while let Some(known) = key {
        match known {
            Key::Name => name = Some(json.next_str()?.to_owned()),
            Key::Parameters if is_null(json)? => {}
            Key::Parameters => given = parameters(json)?,
            _ => json.next_skip()?,
        }
        key = json.next_key()?.map(Key::of);
    }
    let name = name.ok_or_else(|| Refusal::bad("an output has no \"name\""))?;
    if given.shared_memory {
        return Err(Refusal::bad(format!("output {name:?}: this server shares no memory with its callers")));
    }
    Ok(Wanted { name, binary: given.binary_data, classes: given.classification.unwrap_or(0) })
}

fn parameters(json: &mut Jiter<'_>) -> Result<Parameters, Refusal> {
    /// A parameter's name without its value.
    enum Name {
        BinaryData,
        BinaryDataOutput,
        BinaryDataSize,
        Classification,
        Timeout,
        SharedMemory,
        Other,
    }
    let name = |key: &str| match key {
        "binary_data" => Name::BinaryData,
        "binary_data_output" => Name::BinaryDataOutput,
        "binary_data_size" => Name::BinaryDataSize,
        "classification" => Name::Classification,
        "timeout" => Name::Timeout,
        "shared_memory_region" => Name::SharedMemory,
        _ => Name::Other,
    };
    let mut given = Parameters::default();
    let mut key = json.next_object()?.map(name);
    while let Some(known) = key {
        let peek = json.peek()?;
        match known {
            Name::BinaryData => given.binary_data = Some(yes_or_no(json, peek, "binary_data")?),
            Name::BinaryDataOutput => given.binary_data_output = Some(yes_or_no(json, peek, "binary_data_output")?),
            Name::BinaryDataSize => given.binary_data_size = Some(whole(json, peek, "\"binary_data_size\"")?),
            Name::Classification => given.classification = Some(whole(json, peek, "\"classification\"")?),
            Name::Timeout => given.timeout_us = Some(whole(json, peek, "\"timeout\"")?),
            Name::SharedMemory => {
                given.shared_memory = true;
                json.known_skip(peek)?;
            }
            Name::Other => json.known_skip(peek)?,
        }
        key = json.next_key()?.map(name);
    }
    Ok(given)
}

fn yes_or_no(json: &mut Jiter<'_>, peek: Peek, what: &str) -> Result<bool, Refusal> {
    if matches!(peek, Peek::True | Peek::False) {
        Ok(json.known_bool(peek)?)
    } else {
        Err(Refusal::bad(format!("{what:?} is true or false")))
    }
}

/// A body without JSON: the elements of the one input that the model has, for one row where it takes
/// rows. All outputs come back as bytes.
fn raw(body: &Bytes, served: &Served) -> Result<Asked, Refusal> {
    let [port] = served.inputs.as_slice() else {
        let count = served.inputs.len();
        return Err(Refusal::bad(format!("a body without JSON is for models with one input; this one has {count}")));
    };
    let (shape, data) = raw_tensor(port, served.takes_rows(), body)?;
    let input = Tensor { name: port.name.clone(), dtype: port.dtype, shape, data };
    Ok(Asked { inputs: vec![input], binary: true, ..Asked::default() })
}

fn raw_tensor(port: &Port, rows: bool, body: &Bytes) -> Result<(Vec<usize>, Bytes), Refusal> {
    let mut shape: Vec<Option<usize>> = port.shape.iter().map(|size| size.map(|size| size as usize)).collect();
    if rows && let Some(first) = shape.first_mut() {
        *first = Some(1);
    }
    let unclear = || Refusal::bad("the input's shape does not follow from the number of bytes: send JSON with it");
    let free = shape.iter().filter(|size| size.is_none()).count();
    let Some(element) = port.dtype.size_bytes() else {
        // One text, which is the whole body.
        if free > 1 || shape.iter().any(|size| size.is_some_and(|size| size != 1)) {
            return Err(unclear());
        }
        let mut data = Vec::with_capacity(body.len() + 4);
        push_string(&mut data, body);
        return Ok((vec![1; shape.len()], data.into()));
    };
    if free > 1 {
        return Err(unclear());
    }
    let known = shape.iter().flatten().try_fold(element, |bytes, size| bytes.checked_mul(*size));
    let rest = known.filter(|known| *known > 0).map_or(0, |known| body.len() / known);
    Ok((shape.into_iter().map(|size| size.unwrap_or(rest)).collect(), body.clone()))
}
