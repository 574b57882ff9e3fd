//! Holds golden vectors against a model's inputs and outputs, so that a mistake shows on the
//! publisher's laptop and not on a thousand devices.

use std::collections::BTreeMap;

use muster_shared::golden::{BadGolden, Golden};
use muster_shared::manifest::{Dtype, Port};
use serde_json::Value;

/// Why golden vectors do not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GoldenError {
    /// The file itself is wrong.
    #[error(transparent)]
    File(#[from] BadGolden),
    /// A case that the model cannot run or be compared with.
    #[error("case {case}: {side} {name:?} {why}")]
    Case {
        /// Counted from 1.
        case: usize,
        /// `input` or `output`.
        side: &'static str,
        /// Which.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// Checks golden vectors against a model's ports; gives the number of cases.
pub fn check(file: &[u8], inputs: &[Port], outputs: &[Port]) -> Result<usize, GoldenError> {
    let golden = Golden::parse(file)?;
    for (at, case) in golden.cases().iter().enumerate() {
        side(at + 1, "input", &case.inputs, inputs)?;
        side(at + 1, "output", &case.outputs, outputs)?;
    }
    Ok(golden.cases().len())
}

/// Every port has its values, and no values are for nothing.
fn side(case: usize, side: &'static str, values: &BTreeMap<String, Value>, ports: &[Port]) -> Result<(), GoldenError> {
    let bad = |name: &str, why: String| GoldenError::Case { case, side, name: name.to_owned(), why };
    if let Some(name) = values.keys().find(|name| !ports.iter().any(|port| port.name == **name)) {
        let known: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        return Err(bad(name, format!("is unknown; the model has {}", known.join(", "))));
    }
    for port in ports {
        let value = values.get(&port.name).ok_or_else(|| bad(&port.name, "is missing".to_owned()))?;
        let shape = shape(value, port.dtype).map_err(|why| bad(&port.name, why))?;
        let fits = shape.len() == port.shape.len()
            && shape
                .iter()
                .zip(&port.shape)
                .all(|(found, wanted)| wanted.is_none_or(|wanted| *found == wanted as usize));
        if !fits {
            let wanted = crate::onnx::describe(port);
            return Err(bad(&port.name, format!("has the shape {shape:?}; the model wants {wanted}")));
        }
    }
    Ok(())
}

/// The shape of nested lists whose elements all are of type `dtype`.
fn shape(value: &Value, dtype: Dtype) -> Result<Vec<usize>, String> {
    let Value::Array(rows) = value else {
        return if is_element(value, dtype) {
            Ok(Vec::new())
        } else {
            Err(format!("holds {}, which is no {dtype:?}", short(value)))
        };
    };
    let mut rows = rows.iter().map(|row| shape(row, dtype));
    let first = rows.next().ok_or("holds an empty list")??;
    let mut count = 1;
    for row in rows {
        if row? != first {
            return Err("has rows of different lengths".to_owned());
        }
        count += 1;
    }
    Ok(std::iter::once(count).chain(first).collect())
}

fn is_element(value: &Value, dtype: Dtype) -> bool {
    let within = |min: i64, max: i64| value.as_i64().is_some_and(|number| (min..=max).contains(&number));
    match dtype {
        Dtype::Bool => value.is_boolean(),
        Dtype::F16 | Dtype::F32 | Dtype::F64 => value.is_number(),
        Dtype::U8 => within(0, u8::MAX.into()),
        Dtype::U16 => within(0, u16::MAX.into()),
        Dtype::U32 => within(0, u32::MAX.into()),
        Dtype::U64 => value.is_u64(),
        Dtype::I8 => within(i8::MIN.into(), i8::MAX.into()),
        Dtype::I16 => within(i16::MIN.into(), i16::MAX.into()),
        Dtype::I32 => within(i32::MIN.into(), i32::MAX.into()),
        Dtype::I64 => value.is_i64(),
        Dtype::String => value.is_string(),
    }
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports() -> (Vec<Port>, Vec<Port>) {
        let port = |name: &str, dtype, shape: &[Option<u32>]| Port { name: name.into(), dtype, shape: shape.to_vec() };
        let outputs = vec![port("label", Dtype::I64, &[None]), port("p", Dtype::F32, &[None, Some(2)])];
        (vec![port("x", Dtype::F32, &[None, Some(3)])], outputs)
    }

    fn good() -> Value {
        json!({
            "cases": [{"inputs": {"x": [[1, 2.5, 3], [0, 0, 0]]}, "outputs": {"label": [1, 0], "p": [[0.5, 0.5], [1, 0]]}}],
            "tolerance": {"absolute": 1e-4, "relative": 0}
        })
    }

    fn check_json(golden: &Value) -> Result<usize, GoldenError> {
        let (inputs, outputs) = ports();
        check(golden.to_string().as_bytes(), &inputs, &outputs)
    }

    #[track_caller]
    fn refused(pointer: &str, value: Value, words: &str) {
        let mut golden = good();
        *golden.pointer_mut(pointer).expect("a place") = value;
        let error = check_json(&golden).expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn vectors_that_fit_are_counted() {
        assert_eq!(check_json(&good()), Ok(1));
    }

    #[test]
    fn each_misfit_is_named() {
        refused("/cases", json!([]), "\"cases\" is empty");
        refused("/tolerance/absolute", json!(-1), "tolerance");
        refused("/tolerance", json!({"absolute": 0}), "relative");
        refused("/cases/0/inputs", json!({}), "case 1: input \"x\" is missing");
        refused(
            "/cases/0/inputs",
            json!({"x": [[1, 2, 3]], "z": [1]}),
            "case 1: input \"z\" is unknown; the model has x",
        );
        refused("/cases/0/inputs/x", json!([[1, 2]]), "shape [1, 2]; the model wants x f32[?, 3]");
        refused("/cases/0/inputs/x", json!([[1, 2, 3], [1]]), "different lengths");
        refused("/cases/0/inputs/x", json!([[1, "a", 3]]), "holds \"a\"");
        refused("/cases/0/inputs/x", json!([]), "empty list");
        refused("/cases/0/outputs/label", json!([0.5, 1]), "output \"label\" holds 0.5");
        let (inputs, outputs) = ports();
        let broken = check(b"{\n  \"cases\": oops", &inputs, &outputs).expect_err("no JSON").to_string();
        assert!(broken.contains("line 2"), "{broken}");
    }

    #[test]
    fn the_fixtures_fit_their_models() {
        for model in ["linear_regression", "digits"] {
            let folder = format!("{}/../tests/models/{model}/v1", env!("CARGO_MANIFEST_DIR"));
            let file = |name: &str| std::fs::read(format!("{folder}/{name}")).expect("a fixture");
            let read = crate::onnx::Model::read(file("model.onnx")).expect("a model");
            assert_eq!(check(&file("golden.json"), &read.inputs, &read.outputs), Ok(3));
        }
    }
}
