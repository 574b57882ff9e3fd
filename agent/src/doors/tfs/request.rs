//! The body of a predict request becomes tensors: `instances`, one by one, or `inputs`, each whole.
//! What is taken, and the words for what is not, follow `FillPredictRequestFromJson` in TF Serving's
//! `util/json_tensor.cc`.
//!
//! TF Serving builds a tree and then looks into it. Here a body is read once, where it stands, straight
//! into elements ([`read_once`]). If anything is wrong, or its keys stand in an order that asks for
//! it, the body is gone through again as slowly and in the same order as TF Serving does
//! ([`read_in_order`]), so that it is this reading that says what is wrong.

use std::borrow::Cow;
use std::ops::Range;

use jiter::{Jiter, JiterResult, Peek};
use muster_shared::manifest::{Dtype, Port};

use crate::json::{self, BadJson};
use crate::tensor::Tensor;

/// The only signature that a model has here.
pub const SIGNATURE: &str = "serving_default";

/// How the tensors are laid out in the JSON, in the request and in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `instances`: a list of rows.
    Row,
    /// `inputs`: whole tensors.
    Column,
}

/// Reads the tensors that `ports` take, in their order. The error is the caller's mistake.
pub fn read(ports: &[Port], body: &[u8]) -> Result<(Form, Vec<Tensor>), String> {
    match read_once(ports, body) {
        Ok(read) => Ok(read),
        Err(_) => read_in_order(ports, body),
    }
}

/// What keeps [`read_once`] from going on; [`read_in_order`] finds the words for it.
struct AskAgain;

impl<E: ToString> From<E> for AskAgain {
    fn from(_: E) -> Self {
        Self
    }
}

enum Key {
    Signature,
    Form(Form),
    Other,
}

impl Key {
    fn of(name: &str) -> Self {
        match name {
            "signature_name" => Self::Signature,
            "instances" => Self::Form(Form::Row),
            "inputs" => Self::Form(Form::Column),
            _ => Self::Other,
        }
    }
}

fn read_once(ports: &[Port], body: &[u8]) -> Result<(Form, Vec<Tensor>), AskAgain> {
    let mut json = json::reader(body);
    let (mut signed, mut read): (bool, Option<(Form, Vec<Tensor>)>) = (false, None);
    let mut key = json.next_object()?.map(Key::of);
    while let Some(at) = key {
        let value = json.peek()?;
        match at {
            Key::Signature if !signed => {
                check_signature(json.next_str()?)?;
                signed = true;
            }
            Key::Form(form) if read.is_none() => {
                let tensors = match form {
                    Form::Row => rows(ports, &mut json, value, body.len())?,
                    Form::Column => columns(ports, &mut json, value, body.len())?,
                };
                read = Some((form, tensors));
            }
            Key::Form(form) if read.as_ref().is_some_and(|(first, _)| *first != form) => return Err(AskAgain),
            // The first of several alike counts.
            _ => json::skip(&mut json, value)?,
        }
        key = json.next_key()?.map(Key::of);
    }
    read.ok_or(AskAgain)
}

const NO_INPUTS: &str = "Failed to get input map for signature: DEFAULT";

fn read_in_order(ports: &[Port], body: &[u8]) -> Result<(Form, Vec<Tensor>), String> {
    let body = Body::read(body)?;
    if let Some(name) = body.signature()? {
        check_signature(&name)?;
    }
    if ports.is_empty() {
        return Err(NO_INPUTS.into());
    }
    let both = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ";
    match (body.member("instances"), body.member("inputs")) {
        (Some(_), Some(_)) => Err(body.error(both)),
        (Some(instances), None) => {
            let mut json = json::reader(instances);
            match json.peek().map_err(as_text)? {
                Peek::Array if instances[1..].trim_ascii_start() == b"]" => {
                    Err(body.error("No values in 'instances' array"))
                }
                Peek::Array => Ok((Form::Row, rows(ports, &mut json, Peek::Array, instances.len())?)),
                _ => Err(body.error("Expecting 'instances' to be an list/array")),
            }
        }
        (None, Some(inputs)) => {
            let mut json = json::reader(inputs);
            let first = json.peek().map_err(as_text)?;
            Ok((Form::Column, columns(ports, &mut json, first, inputs.len())?))
        }
        (None, None) => Err("Missing 'inputs' or 'instances' key".into()),
    }
}

fn as_text(error: impl Into<BadJson>) -> String {
    error.into().to_string()
}

fn check_signature(name: &str) -> Result<(), String> {
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    Err(format!("Serving signature name: \"{name}\" not found in signature def"))
}

/// A body whose syntax is right, and where the members of its object lie.
#[derive(Debug)]
pub struct Body<'a> {
    text: Cow<'a, [u8]>,
    members: Members,
}

impl<'a> Body<'a> {
    /// Checks the syntax first, as TF Serving does. Whatever follows the object does not count.
    pub fn read(text: &'a [u8]) -> Result<Self, String> {
        if text.is_empty() {
            return Err("JSON Parse error: The document is empty".into());
        }
        let (text, found) = match (members(text), json::with_infinity_spelled_out(text)) {
            (Err(BadJson::Syntax { .. }), Some(text)) => (Cow::Owned(text.clone()), members(&text)),
            (members, _) => (Cow::Borrowed(text), members),
        };
        match found.map_err(as_text)? {
            Some(members) => Ok(Self { text, members }),
            None => Err(format!("JSON Value: {} Is not object", json::shortened(&text))),
        }
    }

    /// The first member of this name.
    pub fn member(&self, name: &str) -> Option<&[u8]> {
        let (_, range) = self.members.iter().find(|(known, _)| known == name)?;
        self.text.get(range.clone())
    }

    /// The signature, where one is named.
    pub fn signature(&self) -> Result<Option<String>, String> {
        let Some(value) = self.member("signature_name") else { return Ok(None) };
        let name = json::reader(value).next_str().map(str::to_owned);
        name.map(Some).map_err(|_| self.error("not formatted correctly. 'signature_name' key must be a string value."))
    }

    /// What is wrong with the whole.
    pub fn error(&self, what: &str) -> String {
        format!("JSON Value: {} {what}", json::shortened(&self.text))
    }
}

/// The members of an object, each with the place of its value.
type Members = Vec<(String, Range<usize>)>;

/// None where the text is something else than an object.
fn members(text: &[u8]) -> Result<Option<Members>, BadJson> {
    let mut json = json::reader(text);
    let Ok(first) = json.peek() else {
        return Err(BadJson::Syntax { what: "The document is empty.", offset: text.len() });
    };
    if first != Peek::Object {
        json::skip(&mut json, first)?;
        return Ok(None);
    }
    let mut members = vec![];
    let mut key = json.next_object()?.map(str::to_owned);
    while let Some(name) = key {
        members.push((name, json::skip_range(&mut json)?));
        key = json.next_key()?.map(str::to_owned);
    }
    Ok(Some(members))
}

/// One input while its rows come in.
struct Column<'a> {
    port: &'a Port,
    rows: usize,
    /// Of the first row, then of each that follows.
    shape: Vec<usize>,
    row_shape: Vec<usize>,
    size: usize,
    data: Vec<u8>,
}

impl<'a> Column<'a> {
    fn new(port: &'a Port, text_bytes: usize) -> Self {
        let data = Vec::with_capacity(room(port.dtype, port.shape.get(1..).unwrap_or_default(), text_bytes));
        Self { port, rows: 0, shape: vec![], row_shape: vec![], size: 0, data }
    }

    fn push(&mut self, json: &mut Jiter<'_>, value: Peek) -> Result<(), String> {
        let shape = if self.rows == 0 { &mut self.shape } else { &mut self.row_shape };
        let size = json::append_elements(json, value, self.port.dtype, shape, &mut self.data).map_err(as_text)?;
        if self.rows == 0 {
            self.size = size;
        } else if self.size != size {
            return Err(format!("Expecting tensor size: {} but got: {size}", self.size));
        } else if self.shape != self.row_shape {
            return Err(format!("Expecting shape {} but got: {}", list(&self.shape), list(&self.row_shape)));
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Tensor, String> {
        self.shape.insert(0, self.rows);
        Tensor::for_port(self.port, self.shape, self.data.into()).map_err(|error| error.to_string())
    }
}

/// The bytes that elements of a shape take, each unknown size taken for 1; never more than a text of
/// this length can hold.
fn room(dtype: Dtype, shape: &[Option<u32>], text_bytes: usize) -> usize {
    let elements = shape.iter().fold(1usize, |product, size| product.saturating_mul(size.unwrap_or(1) as usize));
    elements.min(text_bytes / 2 + 1).saturating_mul(dtype.size_bytes().unwrap_or(0))
}

/// A shape as TF Serving writes it.
pub fn list(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", sizes.join(","))
}

/// `instances`. Each must yield one tensor of the same shape for each input; together they are a batch.
fn rows(ports: &[Port], json: &mut Jiter<'_>, first: Peek, text_bytes: usize) -> Result<Vec<Tensor>, String> {
    if first != Peek::Array {
        return Err("Expecting 'instances' to be an list/array".into());
    }
    let mut next = json.known_array().map_err(as_text)?;
    let by_name = next.is_some_and(|row| is_by_name(json, row));
    if ports.len() > 1 && !by_name {
        return Err("instances is a plain list, but expecting list of objects as multiple input tensors required as \
                    per tensorinfo_map"
            .into());
    }
    let mut columns: Vec<Column<'_>> = ports.iter().map(|port| Column::new(port, text_bytes)).collect();
    let mut at = 0;
    while let Some(row) = next {
        match (by_name, is_by_name(json, row)) {
            (true, true) => row_by_name(&mut columns, json, at)?,
            (true, false) => return Err(format!("Expecting object but got list at item {at} of input list")),
            (false, true) => return Err(format!("Expecting value/list but got object at item {at} of input list")),
            (false, false) => {
                let Some(column) = columns.first_mut() else { return Err(NO_INPUTS.into()) };
                column.push(json, row).map_err(|error| {
                    format!("Failed to process element: {at} of 'instances' list. Error: INVALID_ARGUMENT: {error}")
                })?;
            }
        }
        at += 1;
        next = json.array_step().map_err(as_text)?;
    }
    columns.into_iter().map(Column::finish).collect()
}

fn is_by_name(json: &Jiter<'_>, row: Peek) -> bool {
    row == Peek::Object && !json::is_base64(json)
}

fn row_by_name(columns: &mut [Column<'_>], json: &mut Jiter<'_>, at: usize) -> Result<(), String> {
    let mut ahead = json.clone();
    let mut twice = false;
    let mut key = column_of(json.next_object(), columns, at)?;
    while let Some(column) = key {
        let value = json.peek().map_err(as_text)?;
        let column = &mut columns[column];
        twice |= column.rows > at;
        column.push(json, value).map_err(|error| {
            let name = &column.port.name;
            format!("Failed to process element: {at} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: {error}")
        })?;
        key = column_of(json.next_key(), columns, at)?;
    }
    if twice || columns.iter().any(|column| column.rows != at + 1) {
        let row = json::found(&mut ahead, Peek::Object).map_err(as_text)?;
        let mut names: Vec<&str> = columns.iter().map(|column| column.port.name.as_str()).collect();
        names.sort_unstable();
        let names = names.join(",");
        return Err(format!(
            "Failed to process element: {at} of 'instances' list. JSON object: {row} keys must be equal to: {names}"
        ));
    }
    Ok(())
}

/// The input that a key names.
fn column_of(key: JiterResult<Option<&str>>, columns: &[Column<'_>], at: usize) -> Result<Option<usize>, String> {
    let Some(key) = key.map_err(as_text)? else { return Ok(None) };
    let column = columns.iter().position(|column| column.port.name == key);
    let unknown = || {
        format!(
            "Failed to process element: {at} key: {key} of 'instances' list. Error: INVALID_ARGUMENT: JSON object: \
             does not have named input: {key}"
        )
    };
    column.map(Some).ok_or_else(unknown)
}

/// `inputs`: each tensor whole.
fn columns(ports: &[Port], json: &mut Jiter<'_>, first: Peek, text_bytes: usize) -> Result<Vec<Tensor>, String> {
    let tensors = if is_by_name(json, first) {
        columns_by_name(ports, json, text_bytes)?
    } else if let [port] = ports {
        vec![column(port, json, first, text_bytes)?]
    } else {
        return Err("inputs is a plain value/list, but expecting an object as multiple input tensors required as per \
                    tensorinfo_map"
            .into());
    };
    same_batch(ports, &tensors)?;
    Ok(tensors)
}

fn columns_by_name(ports: &[Port], json: &mut Jiter<'_>, text_bytes: usize) -> Result<Vec<Tensor>, String> {
    let mut tensors: Vec<Option<Tensor>> = ports.iter().map(|_| None).collect();
    let known = |key: &str| ports.iter().position(|port| port.name == key);
    let mut key = json.next_object().map_err(as_text)?.map(known);
    while let Some(port) = key {
        let value = json.peek().map_err(as_text)?;
        match port {
            Some(port) if tensors[port].is_none() => {
                tensors[port] = Some(column(&ports[port], json, value, text_bytes)?)
            }
            // What is no input of the model does not count, nor does an input's second time.
            _ => json::skip(json, value).map_err(as_text)?,
        }
        key = json.next_key().map_err(as_text)?.map(known);
    }
    let missing = |port: &Port| format!("Missing named input: {} in 'inputs' object.", port.name);
    ports.iter().zip(tensors).map(|(port, tensor)| tensor.ok_or_else(|| missing(port))).collect()
}

fn column(port: &Port, json: &mut Jiter<'_>, first: Peek, text_bytes: usize) -> Result<Tensor, String> {
    let mut data = Vec::with_capacity(room(port.dtype, &port.shape, text_bytes));
    let mut shape = vec![];
    json::append_elements(json, first, port.dtype, &mut shape, &mut data).map_err(as_text)?;
    Tensor::for_port(port, shape, data.into()).map_err(|error| error.to_string())
}

/// Where the first dimension of several inputs is open, it is the batch: the same for all of them. TF
/// Serving holds to that, in these words, where it batches (`batching/batching_util.h`).
fn same_batch(ports: &[Port], tensors: &[Tensor]) -> Result<(), String> {
    let batched = ports.iter().zip(tensors).filter(|(port, _)| matches!(port.shape.first(), Some(None)));
    let mut sizes = batched.filter_map(|(_, tensor)| tensor.shape.first());
    match sizes.next() {
        Some(first) if sizes.any(|size| size != first) => {
            Err("Batching Run() input tensors must have equal 0th-dimension size".into())
        }
        _ => Ok(()),
    }
}
