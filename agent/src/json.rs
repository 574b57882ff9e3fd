//! Tensors as JSON: nested lists read into elements without a tree between, elements written as
//! nested lists. Like TF Serving, beyond JSON's grammar: `NaN`, `Infinity` and `-Infinity`.

use half::f16;
use jiter::{Jiter, JiterError, NumberInt, Peek};
use muster_shared::limits::RANK_MAX;
use muster_shared::manifest::Dtype;

use crate::tensor::push_string;

/// Why JSON is no tensor. Always the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadJson {
    /// Not JSON at all.
    #[error("JSON Parse error: {0}")]
    Syntax(String),
    /// Lists of different lengths or depths.
    #[error("lists of different lengths or depths do not make a tensor")]
    Ragged,
    /// Deeper than any tensor.
    #[error("more than {RANK_MAX} dimensions")]
    TooDeep,
    /// Something else than the type wanted.
    #[error("{found} is no {}", wanted.name())]
    Element {
        /// The text, shortened.
        found: String,
        /// The type wanted.
        wanted: Dtype,
    },
}

impl From<JiterError> for BadJson {
    fn from(error: JiterError) -> Self {
        Self::Syntax(error.to_string())
    }
}

/// A reader for one text.
pub fn reader(text: &[u8]) -> Jiter<'_> {
    Jiter::new(text).with_allow_inf_nan()
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
    let mut nested = Nested { dtype, shape: vec![], leaf_depth: None, data: vec![] };
    nested.read(json, first, 0)?;
    Ok(Elements { shape: nested.shape.iter().map(|size| size.unwrap_or(0)).collect(), data: nested.data })
}

struct Nested {
    dtype: Dtype,
    /// The sizes known so far.
    shape: Vec<Option<usize>>,
    /// At which depth the elements lie.
    leaf_depth: Option<usize>,
    data: Vec<u8>,
}

impl Nested {
    fn read(&mut self, json: &mut Jiter<'_>, peek: Peek, depth: usize) -> Result<(), BadJson> {
        if peek != Peek::Array {
            if self.leaf_depth.is_none() && self.shape.len() == depth {
                self.leaf_depth = Some(depth);
            }
            if self.leaf_depth != Some(depth) {
                return Err(BadJson::Ragged);
            }
            return push_element(json, peek, self.dtype, &mut self.data);
        }
        if depth == RANK_MAX {
            return Err(BadJson::TooDeep);
        }
        if self.leaf_depth.is_some_and(|leaf| depth >= leaf) {
            return Err(BadJson::Ragged);
        }
        if self.shape.len() == depth {
            self.shape.push(None);
        }
        let mut count = 0;
        let mut next = json.known_array()?;
        while let Some(peek) = next {
            self.read(json, peek, depth + 1)?;
            count += 1;
            next = json.array_step()?;
        }
        match self.shape[depth] {
            None => {
                self.shape[depth] = Some(count);
                Ok(())
            }
            Some(known) if known == count => Ok(()),
            Some(_) => Err(BadJson::Ragged),
        }
    }
}

/// Reads one element.
pub fn push_element(json: &mut Jiter<'_>, peek: Peek, dtype: Dtype, data: &mut Vec<u8>) -> Result<(), BadJson> {
    macro_rules! integer {
        ($type:ty) => {{
            let start = json.current_index();
            let wide = match json.known_int(peek) {
                Ok(NumberInt::Int(value)) => <$type>::try_from(value).ok(),
                Ok(NumberInt::BigInt(value)) => <$type>::try_from(value).ok(),
                Err(_) => None,
            };
            let Some(value) = wide else { return Err(not_a(json, start, dtype)) };
            data.extend(value.to_le_bytes());
        }};
    }
    match dtype {
        Dtype::F32 | Dtype::F64 | Dtype::F16 if peek.is_num() => {
            let value = json.known_float(peek)?;
            match dtype {
                Dtype::F32 => data.extend((value as f32).to_le_bytes()),
                Dtype::F64 => data.extend(value.to_le_bytes()),
                _ => data.extend(f16::from_f64(value).to_le_bytes()),
            }
        }
        Dtype::Bool if matches!(peek, Peek::True | Peek::False) => data.push(json.known_bool(peek)?.into()),
        Dtype::String if peek == Peek::String => push_string(data, json.known_str()?.as_bytes()),
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
            json.known_skip(peek)?;
            return Err(not_a(json, start, dtype));
        }
    }
    Ok(())
}

/// Of what is not the element wanted, so much is told.
const FOUND_CHARS_MAX: usize = 40;

fn not_a(json: &Jiter<'_>, start: usize, wanted: Dtype) -> BadJson {
    let text = String::from_utf8_lossy(json.slice_to_current(start)).trim().chars().take(FOUND_CHARS_MAX).collect();
    BadJson::Element { found: text, wanted }
}
