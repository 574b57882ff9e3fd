//! Tensors between processes, and their JSON: nested lists in, nested lists out.

use bytes::Bytes;
use half::f16;
use muster_shared::manifest::{Dtype, Port};
use serde_json::Value;

use crate::json::{self, BadJson};

/// A named tensor. Cheap to clone: its elements are shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The port it belongs to.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// Sizes, outermost first; none for a scalar.
    pub shape: Vec<usize>,
    /// Row-major elements as little-endian bytes, a bool as 0 or 1, a string as its length in 32 bits
    /// and its bytes (as the binary extension of the Open Inference Protocol lays them out).
    pub data: Bytes,
}

/// Why something is not the tensor that a port takes. Always the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadTensor {
    #[error("input {name:?}: {reason}")]
    Json { name: String, reason: BadJson },
    #[error("input {name:?}: shape {found:?} does not fit {wanted}")]
    Shape { name: String, found: Vec<usize>, wanted: String },
    #[error("input {name:?}: {found} bytes are not what shape {shape:?} of {} takes", dtype.name())]
    Bytes { name: String, found: usize, shape: Vec<usize>, dtype: Dtype },
}

/// Appends one string to the data of a tensor of strings.
pub fn push_string(data: &mut Vec<u8>, text: &[u8]) {
    // No message is as long as 4 GiB, so no text in one is.
    data.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    data.extend(text);
}

/// The strings of a tensor of strings; ends early where the bytes are not sound.
pub fn strings(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(text)
    })
}

/// Whether `data` holds `elements` elements of a type, neither more nor less.
pub fn is_sound(dtype: Dtype, elements: usize, data: &[u8]) -> bool {
    match dtype.size_bytes() {
        Some(size) => elements.checked_mul(size) == Some(data.len()),
        None => {
            let bytes: usize = strings(data).map(|text| text.len() + 4).sum();
            strings(data).count() == elements && bytes == data.len()
        }
    }
}

/// The number of elements; none where it is beyond any memory.
pub fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
}

/// Whether a shape is one that the port takes.
pub fn fits(shape: &[usize], wanted: &[Option<u32>]) -> bool {
    shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted as usize == *size))
}

/// A port's shape as people write it: `[?, 64]`.
pub fn shape_text(shape: &[Option<u32>]) -> String {
    let sizes: Vec<String> = shape.iter().map(|size| size.map_or("?".to_owned(), |size| size.to_string())).collect();
    format!("[{}]", sizes.join(", "))
}

impl Tensor {
    /// A tensor for a port, if shape and length fit.
    pub fn for_port(port: &Port, shape: Vec<usize>, data: Bytes) -> Result<Self, BadTensor> {
        if !fits(&shape, &port.shape) {
            let wanted = shape_text(&port.shape);
            return Err(BadTensor::Shape { name: port.name.clone(), found: shape, wanted });
        }
        if !elements(&shape).is_some_and(|count| is_sound(port.dtype, count, &data)) {
            return Err(BadTensor::Bytes { name: port.name.clone(), found: data.len(), shape, dtype: port.dtype });
        }
        Ok(Self { name: port.name.clone(), dtype: port.dtype, shape, data })
    }

    /// Reads nested lists as the tensor that `port` takes.
    pub fn from_json(port: &Port, value: &Value) -> Result<Self, BadTensor> {
        let text = value.to_string();
        let mut reader = json::reader(text.as_bytes());
        let read = reader.peek().map_err(BadJson::from);
        let read = read.and_then(|first| json::read_elements(&mut reader, first, port.dtype));
        let read = read.map_err(|reason| BadTensor::Json { name: port.name.clone(), reason })?;
        Self::for_port(port, read.shape, read.data.into())
    }

    /// How many elements.
    pub fn elements(&self) -> usize {
        elements(&self.shape).unwrap_or(usize::MAX)
    }

    /// Whether `data` has the length that type and shape ask for.
    pub fn is_sound(&self) -> bool {
        elements(&self.shape).is_some_and(|count| is_sound(self.dtype, count, &self.data))
    }

    /// Writes the tensor as nested lists. Floats are written shortest, not-a-number and infinity as
    /// `NaN` and `Infinity`, as TF Serving does; strings as JSON strings, lossy where they are no text.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        Writer::new(self).block(&self.shape, out);
    }
}

/// Writes a tensor's elements one after the other.
pub struct Writer<'a> {
    dtype: Dtype,
    rest: &'a [u8],
}

impl<'a> Writer<'a> {
    /// Begins at the first element.
    pub fn new(tensor: &'a Tensor) -> Self {
        Self { dtype: tensor.dtype, rest: &tensor.data }
    }

    /// Writes the next elements as nested lists of this shape; one element where there is no shape.
    pub fn block(&mut self, shape: &[usize], out: &mut Vec<u8>) {
        let [size, inner @ ..] = shape else { return self.element(out) };
        out.push(b'[');
        for at in 0..*size {
            if at > 0 {
                out.push(b',');
            }
            self.block(inner, out);
        }
        out.push(b']');
    }

    /// The next string's bytes; none where the elements are no strings, or there are no more.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let (length, after) = self.rest.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = after;
        (self.dtype == Dtype::String).then_some(text)
    }

    fn element(&mut self, out: &mut Vec<u8>) {
        macro_rules! next {
            ($type:ty) => {
                match self.rest.split_first_chunk::<{ size_of::<$type>() }>() {
                    Some((bytes, rest)) => {
                        self.rest = rest;
                        <$type>::from_le_bytes(*bytes)
                    }
                    // Not sound: there is no element.
                    None => return out.extend(b"null"),
                }
            };
        }
        macro_rules! integer {
            ($type:ty) => {
                out.extend(itoa::Buffer::new().format(next!($type)).as_bytes())
            };
        }
        match self.dtype {
            Dtype::Bool => out.extend(if next!(u8) == 0 { &b"false"[..] } else { &b"true"[..] }),
            Dtype::U8 => integer!(u8),
            Dtype::U16 => integer!(u16),
            Dtype::U32 => integer!(u32),
            Dtype::U64 => integer!(u64),
            Dtype::I8 => integer!(i8),
            Dtype::I16 => integer!(i16),
            Dtype::I32 => integer!(i32),
            Dtype::I64 => integer!(i64),
            Dtype::F16 => {
                let value = next!(f16).to_f32();
                write_float(value, value.into(), out);
            }
            Dtype::F32 => {
                let value = next!(f32);
                write_float(value, value.into(), out);
            }
            Dtype::F64 => {
                let value = next!(f64);
                write_float(value, value, out);
            }
            Dtype::String => {
                let text = String::from_utf8_lossy(self.string().unwrap_or_default());
                // A text always becomes JSON.
                let _ = serde_json::to_writer(out, &text);
            }
        }
    }
}

/// The shortest text that reads back as the same number.
fn write_float(value: impl ryu::Float, wide: f64, out: &mut Vec<u8>) {
    if wide.is_finite() {
        out.extend(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if wide.is_nan() {
        out.extend(b"NaN");
    } else {
        out.extend(if wide > 0.0 { &b"Infinity"[..] } else { &b"-Infinity"[..] });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn port(dtype: Dtype, shape: &[Option<u32>]) -> Port {
        Port { name: "x".into(), dtype, shape: shape.to_vec() }
    }

    fn through(port: &Port, value: &Value) -> Result<String, BadTensor> {
        Tensor::from_json(port, value).map(|tensor| {
            assert!(tensor.is_sound());
            let mut out = vec![];
            tensor.write_json(&mut out);
            String::from_utf8(out).expect("a text")
        })
    }

    #[test]
    fn nested_lists_come_back_as_they_went_in() {
        let floats = port(Dtype::F32, &[None, Some(2)]);
        assert_eq!(through(&floats, &json!([[1, 2.5], [0.1, -3e-9]])), Ok("[[1.0,2.5],[0.1,-3e-9]]".into()));
        assert_eq!(through(&port(Dtype::I64, &[None]), &json!([1, -2])), Ok("[1,-2]".into()));
        assert_eq!(through(&port(Dtype::Bool, &[]), &json!(true)), Ok("true".into()));
        assert_eq!(through(&port(Dtype::F64, &[None]), &json!([0.1])), Ok("[0.1]".into()));
        assert_eq!(through(&port(Dtype::F32, &[None]), &json!([])), Ok("[]".into()));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let floats = port(Dtype::F32, &[None, Some(2)]);
        assert!(matches!(
            through(&floats, &json!([[1, 2], [3]])),
            Err(BadTensor::Json { reason: BadJson::Ragged(_), .. })
        ));
        assert!(matches!(
            through(&floats, &json!([[1, 2], 3])),
            Err(BadTensor::Json { reason: BadJson::Ragged(_), .. })
        ));
        assert!(matches!(
            through(&floats, &json!([[1, [2]]])),
            Err(BadTensor::Json { reason: BadJson::Ragged(_), .. })
        ));
        let error = through(&floats, &json!([[1, 2, 3]])).map_err(|error| error.to_string());
        assert_eq!(error, Err("input \"x\": shape [1, 3] does not fit [?, 2]".into()));
        assert!(matches!(
            through(&floats, &json!([["a", 2]])),
            Err(BadTensor::Json { reason: BadJson::Element { .. }, .. })
        ));
        assert!(matches!(
            through(&port(Dtype::U8, &[None]), &json!([256])),
            Err(BadTensor::Json { reason: BadJson::Element { .. }, .. })
        ));
        assert!(matches!(through(&floats, &json!({"a": 1})), Err(BadTensor::Json { .. })));
    }

    #[test]
    fn numbers_that_json_lacks_are_written_as_tf_serving_does() {
        let data = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect::<Vec<u8>>()
            .into();
        let mut out = vec![];
        Tensor { name: "y".into(), dtype: Dtype::F32, shape: vec![3], data }.write_json(&mut out);
        assert_eq!(out, b"[NaN,Infinity,-Infinity]");
    }

    proptest! {
        #[test]
        fn every_finite_float_reads_back_exactly(value in any::<f32>().prop_filter("finite", |value| value.is_finite())) {
            let mut out = vec![];
            let data = value.to_le_bytes().to_vec().into();
            Tensor { name: "y".into(), dtype: Dtype::F32, shape: vec![], data }.write_json(&mut out);
            let read: Value = serde_json::from_slice(&out).expect("JSON");
            prop_assert_eq!(read.as_f64().map(|wide| wide as f32), Some(value));
        }
    }
}
