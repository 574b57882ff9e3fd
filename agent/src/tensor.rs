//! Tensors between processes, and their JSON: nested lists in, nested lists out.

use muster_shared::limits::RANK_MAX;
use muster_shared::manifest::{Dtype, Port};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A named tensor: row-major elements as little-endian bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// The port it belongs to.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// `shape`'s product × the element's size.
    pub data: Vec<u8>,
}

/// Why JSON is not the tensor that a port takes. Always the caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadTensor {
    #[error("input {name:?}: lists of different lengths or depths where a {rank}-dimensional tensor is wanted")]
    Ragged { name: String, rank: usize },
    #[error("input {name:?}: shape {found:?} does not fit {wanted}")]
    Shape { name: String, found: Vec<usize>, wanted: String },
    #[error("input {name:?}: {found} is no {wanted:?}")]
    Element { name: String, found: String, wanted: Dtype },
}

impl Tensor {
    /// Reads nested lists as the tensor that `port` takes.
    pub fn from_json(port: &Port, value: &Value) -> Result<Self, BadTensor> {
        let mut shape = vec![];
        let mut outermost = value;
        while let Value::Array(items) = outermost {
            shape.push(items.len());
            match items.first() {
                Some(first) if shape.len() <= RANK_MAX => outermost = first,
                _ => break,
            }
        }
        if !fits(&shape, &port.shape) {
            let wanted = shape_text(&port.shape);
            return Err(BadTensor::Shape { name: port.name.clone(), found: shape, wanted });
        }
        let elements: usize = shape.iter().product();
        let mut data = Vec::with_capacity(elements.min(1 << 24) * port.dtype.size_bytes());
        read_elements(port, value, &shape, &mut data)?;
        Ok(Self { name: port.name.clone(), dtype: port.dtype, shape, data })
    }

    /// How many elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether `data` has the length that type and shape ask for.
    pub fn is_sound(&self) -> bool {
        let elements = self.shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        elements.and_then(|count| count.checked_mul(self.dtype.size_bytes())) == Some(self.data.len())
    }

    /// Writes the tensor as nested lists. Floats are written shortest, not-a-number and infinity as
    /// `NaN` and `Infinity`, as TF Serving does.
    pub fn write_json(&self, out: &mut String) {
        self.write_block(0, 0, out);
    }

    /// Writes row `row` of the outermost dimension.
    pub fn write_row_json(&self, row: usize, out: &mut String) {
        let elements_per_row: usize = self.shape.iter().skip(1).product();
        self.write_block(1, row * elements_per_row, out);
    }

    fn write_block(&self, dimension: usize, first: usize, out: &mut String) {
        let Some(size) = self.shape.get(dimension) else {
            return self.write_element(first, out);
        };
        let step: usize = self.shape[dimension + 1..].iter().product();
        out.push('[');
        for at in 0..*size {
            if at > 0 {
                out.push(',');
            }
            self.write_block(dimension + 1, first + at * step, out);
        }
        out.push(']');
    }

    fn write_element(&self, at: usize, out: &mut String) {
        use std::fmt::Write as _;
        let size = self.dtype.size_bytes();
        let bytes = self.data.get(at * size..(at + 1) * size).unwrap_or_default();
        macro_rules! number {
            ($type:ty) => {
                bytes.try_into().map(<$type>::from_le_bytes)
            };
        }
        // A write into a String cannot fail; bytes of another length are not sound and print null.
        let _ = match self.dtype {
            Dtype::Bool => bytes.first().map_or(Ok(()), |byte| write!(out, "{}", *byte != 0)),
            Dtype::U8 => number!(u8).map_or(Ok(()), |value| write!(out, "{value}")),
            Dtype::I8 => number!(i8).map_or(Ok(()), |value| write!(out, "{value}")),
            Dtype::I16 => number!(i16).map_or(Ok(()), |value| write!(out, "{value}")),
            Dtype::I32 => number!(i32).map_or(Ok(()), |value| write!(out, "{value}")),
            Dtype::I64 => number!(i64).map_or(Ok(()), |value| write!(out, "{value}")),
            Dtype::F32 => number!(f32).map_or(Ok(()), |value| write_float(value, value.is_finite(), out)),
            Dtype::F64 => number!(f64).map_or(Ok(()), |value| write_float(value, value.is_finite(), out)),
        };
    }
}

fn write_float(value: impl std::fmt::Display + Into<f64> + Copy, finite: bool, out: &mut String) -> std::fmt::Result {
    use std::fmt::Write as _;
    let wide: f64 = value.into();
    match (finite, wide.is_nan(), wide > 0.0) {
        (true, ..) if wide.fract() == 0.0 && wide.abs() < 1e15 => write!(out, "{value}.0"),
        (true, ..) if wide != 0.0 && !(1e-5..1e15).contains(&wide.abs()) => {
            // Display writes every digit; far from 1 the exponent form is shorter and as exact.
            let short: f64 = value.to_string().parse().unwrap_or(wide);
            write!(out, "{short:e}")
        }
        (true, ..) => write!(out, "{value}"),
        (false, true, _) => out.write_str("NaN"),
        (false, false, true) => out.write_str("Infinity"),
        (false, false, false) => out.write_str("-Infinity"),
    }
}

fn fits(shape: &[usize], wanted: &[Option<u32>]) -> bool {
    shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted as usize == *size))
}

fn shape_text(shape: &[Option<u32>]) -> String {
    let sizes: Vec<String> = shape.iter().map(|size| size.map_or("?".to_owned(), |size| size.to_string())).collect();
    format!("[{}]", sizes.join(", "))
}

fn read_elements(port: &Port, value: &Value, shape: &[usize], data: &mut Vec<u8>) -> Result<(), BadTensor> {
    match (value, shape) {
        (Value::Array(items), [size, inner @ ..]) if items.len() == *size => {
            items.iter().try_for_each(|item| read_elements(port, item, inner, data))
        }
        (Value::Array(_), _) | (_, [_, ..]) => {
            Err(BadTensor::Ragged { name: port.name.clone(), rank: port.shape.len() })
        }
        (element, []) => push_element(port, element, data),
    }
}

fn push_element(port: &Port, element: &Value, data: &mut Vec<u8>) -> Result<(), BadTensor> {
    let bad = || {
        let found: String = element.to_string().chars().take(40).collect();
        BadTensor::Element { name: port.name.clone(), found, wanted: port.dtype }
    };
    macro_rules! integer {
        ($type:ty) => {{
            let value = element.as_i64().and_then(|value| <$type>::try_from(value).ok()).ok_or_else(bad)?;
            data.extend(value.to_le_bytes());
        }};
    }
    match port.dtype {
        Dtype::Bool => data.push(element.as_bool().ok_or_else(bad)?.into()),
        Dtype::U8 => integer!(u8),
        Dtype::I8 => integer!(i8),
        Dtype::I16 => integer!(i16),
        Dtype::I32 => integer!(i32),
        Dtype::I64 => integer!(i64),
        Dtype::F32 => data.extend((element.as_f64().ok_or_else(bad)? as f32).to_le_bytes()),
        Dtype::F64 => data.extend(element.as_f64().ok_or_else(bad)?.to_le_bytes()),
    }
    Ok(())
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
            let mut out = String::new();
            tensor.write_json(&mut out);
            out
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
        assert!(matches!(through(&floats, &json!([[1, 2], [3]])), Err(BadTensor::Ragged { .. })));
        assert!(matches!(through(&floats, &json!([[1, 2], 3])), Err(BadTensor::Ragged { .. })));
        assert!(matches!(through(&floats, &json!([[1, [2]]])), Err(BadTensor::Ragged { .. })));
        let error = through(&floats, &json!([[1, 2, 3]])).map_err(|error| error.to_string());
        assert_eq!(error, Err("input \"x\": shape [1, 3] does not fit [?, 2]".into()));
        assert!(matches!(through(&floats, &json!([["a", 2]])), Err(BadTensor::Element { .. })));
        assert!(matches!(through(&port(Dtype::U8, &[None]), &json!([256])), Err(BadTensor::Element { .. })));
        assert!(matches!(through(&floats, &json!({"a": 1})), Err(BadTensor::Shape { .. })));
    }

    #[test]
    fn numbers_that_json_lacks_are_written_as_tf_serving_does() {
        let data = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut out = String::new();
        Tensor { name: "y".into(), dtype: Dtype::F32, shape: vec![3], data }.write_json(&mut out);
        assert_eq!(out, "[NaN,Infinity,-Infinity]");
    }

    proptest! {
        #[test]
        fn every_finite_float_reads_back_exactly(value in any::<f32>().prop_filter("finite", |value| value.is_finite())) {
            let mut out = String::new();
            let data = value.to_le_bytes().to_vec();
            Tensor { name: "y".into(), dtype: Dtype::F32, shape: vec![], data }.write_json(&mut out);
            let read: Value = serde_json::from_str(&out).expect("JSON");
            prop_assert_eq!(read.as_f64().map(|wide| wide as f32), Some(value));
        }
    }
}
