//! Runs golden vectors: a model that gives other outputs on this machine than its maker saw does not
//! serve.

use std::collections::BTreeMap;

use muster_shared::golden::{Golden, Tolerance};
use muster_shared::manifest::{Dtype, Port};
use serde_json::Value;

use super::protocol::BODY_BYTES_MAX;
use crate::engine::Model;
use crate::tensor::{self, Tensor};

/// Runs every case; an error says where the model differs first.
pub fn check(golden: &Golden, model: &dyn Model, inputs: &[Port], outputs: &[Port]) -> Result<(), String> {
    for (number, case) in golden.cases().iter().enumerate() {
        let in_case = |error: String| format!("golden case {number}: {error}");
        let given = tensors(inputs, &case.inputs).map_err(in_case)?;
        let got = model.run(&given).map_err(|error| in_case(error.to_string()))?;
        for expected in tensors_of(outputs, &case.outputs).map_err(in_case)? {
            let Some(got) = got.iter().find(|tensor| tensor.name == expected.name) else {
                return Err(in_case(format!("there is no output {:?}", expected.name)));
            };
            compare(golden.tolerance(), &expected, got).map_err(in_case)?;
        }
    }
    Ok(())
}

/// The first row of the first case, to measure with.
pub fn one_row(golden: &Golden, inputs: &[Port]) -> Option<Vec<Tensor>> {
    let case = golden.cases().first()?;
    let first_row = |port: &Port| {
        let value = case.inputs.get(&port.name)?;
        let free = matches!(port.shape.first(), Some(None));
        let value = if free { Value::Array(vec![value.as_array()?.first()?.clone()]) } else { value.clone() };
        Tensor::from_json(port, &value).ok()
    };
    inputs.iter().map(first_row).collect()
}

/// Whether an output is close enough to the one expected; an error says where it is not.
pub fn compare(tolerance: Tolerance, expected: &Tensor, got: &Tensor) -> Result<(), String> {
    if expected.shape != got.shape {
        return Err(format!("output {:?} has shape {:?}, expected {:?}", got.name, got.shape, expected.shape));
    }
    if expected.dtype == Dtype::String {
        let texts = tensor::strings(&expected.data).zip(tensor::strings(&got.data)).enumerate();
        let mut different = texts.filter(|(_, (expected, got))| expected != got);
        return different.next().map_or(Ok(()), |(at, (expected, found))| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Err(format!("output {:?}[{at}] is {:?}, expected {:?}", got.name, text(found), text(expected)))
        });
    }
    for (at, (expected_value, got_value)) in numbers(expected).zip(numbers(got)).enumerate() {
        let allowed = match expected.dtype {
            Dtype::F16 | Dtype::F32 | Dtype::F64 => tolerance.absolute + tolerance.relative * expected_value.abs(),
            _ => 0.0,
        };
        let same = expected_value == got_value || (expected_value.is_nan() && got_value.is_nan());
        // A NaN on one side only is never close.
        let close = (expected_value - got_value).abs() <= allowed;
        if !same && !close {
            return Err(format!("output {:?}[{at}] is {got_value}, expected {expected_value}", got.name));
        }
    }
    Ok(())
}

/// A row of zeros, to measure a model that came without golden vectors; an error where nobody could send
/// such a row.
pub fn zeros(inputs: &[Port]) -> Result<Vec<Tensor>, String> {
    let mut left = BODY_BYTES_MAX;
    let zeros = |port: &Port| {
        let shape: Vec<usize> = port.shape.iter().map(|size| size.map_or(1, |size| size as usize)).collect();
        // The empty string takes four bytes, its length.
        let bytes = tensor::elements(&shape).and_then(|count| count.checked_mul(port.dtype.size_bytes().unwrap_or(4)));
        let Some(bytes) = bytes.filter(|bytes| *bytes <= left) else {
            return Err(format!(
                "input {:?} is too large to measure: with the inputs before it one row is beyond {BODY_BYTES_MAX} \
                 bytes; give golden vectors, or a model that takes less",
                port.name
            ));
        };
        left -= bytes;
        Ok(Tensor { name: port.name.clone(), dtype: port.dtype, shape, data: vec![0; bytes].into() })
    };
    inputs.iter().map(zeros).collect()
}

fn tensors(ports: &[Port], values: &BTreeMap<String, Value>) -> Result<Vec<Tensor>, String> {
    let tensor = |port: &Port| {
        let value = values.get(&port.name).ok_or_else(|| format!("{:?} is missing", port.name))?;
        Tensor::from_json(port, value).map_err(|error| error.to_string())
    };
    ports.iter().map(tensor).collect()
}

/// Only the outputs that the case gives.
fn tensors_of(ports: &[Port], values: &BTreeMap<String, Value>) -> Result<Vec<Tensor>, String> {
    if let Some(name) = values.keys().find(|name| !ports.iter().any(|port| &port.name == *name)) {
        return Err(format!("the model has no output {name:?}"));
    }
    let given: Vec<Port> = ports.iter().filter(|port| values.contains_key(&port.name)).cloned().collect();
    tensors(&given, values)
}

/// The elements as numbers; none of strings.
pub fn numbers(tensor: &Tensor) -> Box<dyn Iterator<Item = f64> + '_> {
    macro_rules! each {
        ($type:ty) => {
            Box::new(
                tensor
                    .data
                    .as_chunks::<{ size_of::<$type>() }>()
                    .0
                    .iter()
                    .map(|bytes| <$type>::from_le_bytes(*bytes) as f64),
            )
        };
    }
    match tensor.dtype {
        Dtype::Bool | Dtype::U8 => each!(u8),
        Dtype::U16 => each!(u16),
        Dtype::U32 => each!(u32),
        Dtype::U64 => each!(u64),
        Dtype::I8 => each!(i8),
        Dtype::I16 => each!(i16),
        Dtype::I32 => each!(i32),
        Dtype::I64 => each!(i64),
        Dtype::F32 => each!(f32),
        Dtype::F64 => each!(f64),
        Dtype::F16 => {
            Box::new(tensor.data.as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f64()))
        }
        // Compared as bytes before.
        Dtype::String => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineError;

    /// y = 2x, or something else.
    struct Times(f32);

    impl Model for Times {
        fn inputs(&self) -> &[Port] {
            &[]
        }

        fn outputs(&self) -> &[Port] {
            &[]
        }

        fn has_rows(&self) -> bool {
            true
        }

        fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
            let mut out = inputs[0].clone();
            out.name = "y".into();
            out.data =
                numbers(&inputs[0]).flat_map(|value| (value as f32 * self.0).to_le_bytes()).collect::<Vec<u8>>().into();
            Ok(vec![out])
        }
    }

    fn checked(text: &str, model: &Times) -> Result<(), String> {
        let port = |name: &str| vec![Port { name: name.into(), dtype: Dtype::F32, shape: vec![None] }];
        let golden = Golden::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        check(&golden, model, &port("x"), &port("y"))
    }

    #[test]
    fn right_answers_pass_and_wrong_ones_are_named() {
        let golden = r#"{"cases": [{"inputs": {"x": [1, 2]}, "outputs": {"y": [2, 4]}}]}"#;
        assert_eq!(checked(golden, &Times(2.0)), Ok(()));
        assert_eq!(checked(golden, &Times(2.00001)), Ok(()));
        assert_eq!(
            checked(golden, &Times(2.1)),
            Err("golden case 0: output \"y\"[0] is 2.0999999046325684, expected 2".into())
        );
        assert!(checked(golden, &Times(f32::NAN)).is_err());
    }

    #[test]
    fn a_row_of_zeros_that_nobody_could_send_is_refused_and_takes_no_memory() {
        let port = |shape: &[Option<u32>]| Port { name: "x".into(), dtype: Dtype::F32, shape: shape.to_vec() };
        let good = zeros(&[port(&[None, Some(2)]), port(&[])]).expect("small");
        assert_eq!(good.iter().map(|tensor| tensor.data.len()).collect::<Vec<_>>(), [8, 4]);
        assert!(good.iter().all(Tensor::is_sound));
        let huge = Some(u32::MAX);
        for shape in [&[huge, huge, huge][..], &[huge, huge, Some(4)], &[huge], &[Some(1 << 26), None]] {
            let refused = zeros(&[port(&[None]), port(shape)]).expect_err("too large");
            assert!(refused.contains("too large to measure"), "{refused}");
        }
    }

    #[test]
    fn golden_vectors_that_check_nothing_are_refused() {
        assert!(checked(r#"{"cases": []}"#, &Times(2.0)).is_err());
        assert!(checked(r#"{"cases": [{"inputs": {"x": [1]}, "outputs": {"z": [1]}}]}"#, &Times(2.0)).is_err());
        assert!(checked(r#"{"cases": [{"inputs": {}, "outputs": {"y": [1]}}]}"#, &Times(2.0)).is_err());
        assert!(checked("[]", &Times(2.0)).is_err());
    }
}
