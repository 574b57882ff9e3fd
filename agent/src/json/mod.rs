//! Tensors as JSON: nested lists read into elements without a tree between. Which JSON makes which
//! elements, and the words where it makes none, are TF Serving's (`util/json_tensor.cc`); so are the
//! words for what is no JSON at all, which it has from RapidJSON. Beyond JSON's grammar there are `NaN`,
//! `Infinity` and `-Infinity`; texts in base64 are written `{"b64": "…"}`.

mod words;

use std::ops::Range;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use half::f16;
use jiter::{Jiter, NumberInt, Peek};
use muster_shared::limits::RANK_MAX;
use muster_shared::manifest::Dtype;

pub use self::words::{BadJson, found, kind, shortened};
use self::words::{TOO_BIG, not_a};
use crate::tensor::push_string;

/// A reader for one text.
pub fn reader(text: &[u8]) -> Jiter<'_> {
    Jiter::new(text).with_allow_inf_nan()
}

/// Passes over a value of any depth; only its syntax counts.
pub fn skip(json: &mut Jiter<'_>, first: Peek) -> Result<(), BadJson> {
    // Whether each list or object that is open is an object.
    let mut open: Vec<bool> = vec![];
    let mut value = first;
    loop {
        let mut next = match value {
            Peek::Array => {
                open.push(false);
                json.known_array()?
            }
            Peek::Object => {
                open.push(true);
                let more = json.next_object_bytes()?.is_some();
                if more { Some(json.peek()?) } else { None }
            }
            scalar => {
                json.known_skip(scalar)?;
                let Some(object) = open.last() else { return Ok(()) };
                step(json, *object)?
            }
        };
        while next.is_none() {
            open.pop();
            let Some(object) = open.last() else { return Ok(()) };
            next = step(json, *object)?;
        }
        let Some(following) = next else { return Ok(()) };
        value = following;
    }
}

fn step(json: &mut Jiter<'_>, object: bool) -> Result<Option<Peek>, BadJson> {
    if !object {
        return Ok(json.array_step()?);
    }
    let more = json.next_key_bytes()?.is_some();
    Ok(if more { Some(json.peek()?) } else { None })
}

/// Passes over a value, and tells where it lies.
pub fn skip_range(json: &mut Jiter<'_>) -> Result<Range<usize>, BadJson> {
    let first = json.peek()?;
    let start = json.current_index();
    skip(json, first)?;
    Ok(start..json.current_index())
}

/// Elements in row-major order with the shape that they lay in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    /// Sizes, outermost first; none for a bare element.
    pub shape: Vec<usize>,
    /// As [`crate::tensor::Tensor::data`].
    pub data: Vec<u8>,
}

/// Reads nested lists of elements, or one bare element.
pub fn read_elements(json: &mut Jiter<'_>, first: Peek, dtype: Dtype) -> Result<Elements, BadJson> {
    let mut read = Elements { shape: vec![], data: vec![] };
    append_elements(json, first, dtype, &mut read.shape, &mut read.data)?;
    Ok(read)
}

/// Reads nested lists behind what `data` holds already; `shape` becomes theirs. Tells how many
/// elements there are.
pub fn append_elements(
    json: &mut Jiter<'_>,
    first: Peek,
    dtype: Dtype,
    shape: &mut Vec<usize>,
    data: &mut Vec<u8>,
) -> Result<usize, BadJson> {
    shape.clear();
    let mut nested = Nested { dtype, shape, rank: None, count: 0, data };
    nested.value(json, first, 0)?;
    Ok(nested.count)
}

struct Nested<'a> {
    dtype: Dtype,
    /// Sizes as the first element of each list has them: what follows must be alike.
    shape: &'a mut Vec<usize>,
    /// How deep the elements lie, once the first was reached, or the empty list in its place.
    rank: Option<usize>,
    count: usize,
    data: &'a mut Vec<u8>,
}

impl Nested<'_> {
    fn value(&mut self, json: &mut Jiter<'_>, peek: Peek, level: usize) -> Result<(), BadJson> {
        if peek == Peek::Array {
            return self.list(json, level);
        }
        let rank = *self.rank.get_or_insert(level);
        if rank != level {
            let found = found(json, peek)?;
            let level = level + 1;
            return Err(BadJson::Ragged(format!(
                "JSON Value: {found} found at incorrect level: {level} in the JSON DOM. Expected at level: {rank}"
            )));
        }
        self.count += 1;
        push_element(json, peek, self.dtype, self.data)
    }

    fn list(&mut self, json: &mut Jiter<'_>, level: usize) -> Result<(), BadJson> {
        let first_of_its_level = self.rank.is_none();
        match self.rank {
            Some(rank) if level >= rank => {
                return Err(BadJson::Ragged(format!(
                    "Encountered list at unexpected level: {level} expected < {rank}"
                )));
            }
            None if level == RANK_MAX => return Err(BadJson::TooDeep),
            None => self.shape.push(0),
            Some(_) => {}
        }
        let dtype = self.dtype;
        let mut size = 0;
        let mut next = json.known_array()?;
        while let Some(peek) = next {
            let (read, following) = match dtype {
                Dtype::F32 if peek.is_num() && self.leaves_under(level) => {
                    let read = floats(json, peek, |value| self.data.extend_from_slice(&(value as f32).to_le_bytes()))?;
                    self.count += read.0;
                    read
                }
                Dtype::F64 if peek.is_num() && self.leaves_under(level) => {
                    let read = floats(json, peek, |value| self.data.extend_from_slice(&value.to_le_bytes()))?;
                    self.count += read.0;
                    read
                }
                _ => {
                    self.value(json, peek, level + 1)?;
                    (1, json.array_step()?)
                }
            };
            size += read;
            next = following;
        }
        if first_of_its_level {
            self.shape[level] = size;
            self.rank.get_or_insert(level + 1);
        } else if self.shape[level] != size {
            let expected = self.shape[level];
            return Err(BadJson::Ragged(format!(
                "Encountered list at unexpected size: {size} at level: {level} expected size: {expected}"
            )));
        }
        Ok(())
    }

    /// Whether the elements lie right in a list of this level.
    fn leaves_under(&mut self, level: usize) -> bool {
        *self.rank.get_or_insert(level + 1) == level + 1
    }
}

/// Reads numbers up to the end of the list or to what is no number: how many there were, and what
/// follows. Large requests spend their time here.
fn floats(json: &mut Jiter<'_>, first: Peek, mut push: impl FnMut(f64)) -> Result<(usize, Option<Peek>), BadJson> {
    let (mut count, mut next) = (0, Some(first));
    while let Some(peek) = next.filter(|peek| peek.is_num()) {
        push(float(json, peek)?);
        count += 1;
        next = json.array_step()?;
    }
    Ok((count, next))
}

fn float(json: &mut Jiter<'_>, peek: Peek) -> Result<f64, BadJson> {
    let start = json.current_index();
    let value = json.known_float(peek)?;
    if value.is_infinite() && !json.slice_to_current(start).ends_with(b"y") {
        return Err(BadJson::Syntax { what: TOO_BIG, offset: start });
    }
    Ok(value)
}

/// Reads one element.
pub fn push_element(json: &mut Jiter<'_>, peek: Peek, dtype: Dtype, data: &mut Vec<u8>) -> Result<(), BadJson> {
    macro_rules! integer {
        ($type:ty) => {{
            let start = json.current_index();
            // A number with a fraction or an exponent is no integer, be it 1.0.
            let value = match json.known_int(peek) {
                Ok(NumberInt::Int(value)) => <$type>::try_from(value).ok(),
                Ok(NumberInt::BigInt(value)) => <$type>::try_from(value).ok(),
                Err(_) => {
                    skip(json, peek)?;
                    None
                }
            };
            let Some(value) = value else { return Err(not_a(json, peek, start, dtype)) };
            data.extend_from_slice(&value.to_le_bytes());
        }};
    }
    match dtype {
        Dtype::F32 if peek.is_num() => data.extend_from_slice(&(float(json, peek)? as f32).to_le_bytes()),
        Dtype::F64 if peek.is_num() => data.extend_from_slice(&float(json, peek)?.to_le_bytes()),
        Dtype::F16 if peek.is_num() => data.extend_from_slice(&f16::from_f64(float(json, peek)?).to_le_bytes()),
        Dtype::Bool if matches!(peek, Peek::True | Peek::False) => data.push(json.known_bool(peek)?.into()),
        Dtype::String if peek == Peek::String => push_string(data, json.known_str()?.as_bytes()),
        Dtype::String if peek == Peek::Object => push_base64(json, data)?,
        Dtype::U8 if peek.is_num() => integer!(u8),
        Dtype::U16 if peek.is_num() => integer!(u16),
        Dtype::U32 if peek.is_num() => integer!(u32),
        Dtype::U64 if peek.is_num() => integer!(u64),
        Dtype::I8 if peek.is_num() => integer!(i8),
        Dtype::I16 if peek.is_num() => integer!(i16),
        Dtype::I32 if peek.is_num() => integer!(i32),
        Dtype::I64 if peek.is_num() => integer!(i64),
        _ => {
            let start = json.current_index();
            skip(json, peek)?;
            return Err(not_a(json, peek, start, dtype));
        }
    }
    Ok(())
}

/// Whether the object that comes next holds one text under `b64`, and nothing else. Does not move on.
pub fn is_base64(json: &Jiter<'_>) -> bool {
    let mut ahead = json.clone();
    matches!(ahead.next_object(), Ok(Some("b64")))
        && matches!(ahead.peek(), Ok(Peek::String))
        && ahead.next_bytes().is_ok()
        && matches!(ahead.next_key_bytes(), Ok(None))
}

/// Standard base64 as `absl::Base64Unescape` takes it: padding may be missing.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

fn push_base64(json: &mut Jiter<'_>, data: &mut Vec<u8>) -> Result<(), BadJson> {
    if !is_base64(json) {
        return Err(BadJson::NoBase64(found(json, Peek::Object)?));
    }
    json.next_object_bytes()?;
    let mut text = json.next_str()?.as_bytes();
    let packed: Vec<u8>;
    if text.iter().any(u8::is_ascii_whitespace) {
        packed = text.iter().copied().filter(|letter| !letter.is_ascii_whitespace()).collect();
        text = &packed;
    }
    push_string(data, &BASE64.decode(text).map_err(|_| BadJson::Base64)?);
    json.next_key_bytes()?;
    Ok(())
}

/// RapidJSON takes `Inf` and `-NaN`, too, which jiter does not: the text with each spelled as both
/// take it, where there is one.
pub fn with_infinity_spelled_out(text: &[u8]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = vec![];
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while let Some(letter) = text.get(at) {
        match letter {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'I' if !in_string && text[at..].starts_with(b"Infinity") => at += 7,
            b'I' if !in_string && text[at..].starts_with(b"Inf") => {
                out.extend_from_slice(&text[copied..at]);
                out.extend_from_slice(b"Infinity");
                at += 2;
                copied = at + 1;
            }
            b'-' if !in_string && text[at..].starts_with(b"-NaN") => {
                out.extend_from_slice(&text[copied..at]);
                copied = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    (copied > 0).then(|| {
        out.extend_from_slice(&text[copied..]);
        out
    })
}

#[cfg(test)]
mod tests;
