//! The models that the demo and the tests serve: `tests/models/NAME/vN/`, made by
//! `tests/models/train.py`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// Held-out rows with scikit-learn's own predictions.
#[derive(Debug, Deserialize)]
pub struct HeldOut {
    /// The rows.
    pub instances: Vec<Value>,
    /// A number, or an object with `label`, for each row.
    pub predictions: Vec<Value>,
}

/// A version's folder.
pub fn folder(model: &str, version: u32) -> PathBuf {
    // `tests/world/` lies beside `tests/models/`.
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(model).join(format!("v{version}"))
}

/// The held-out rows of a version.
pub fn held_out(model: &str, version: u32) -> anyhow::Result<HeldOut> {
    let path = folder(model, version).join("heldout.json");
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be read", path.display()))
}

/// Whether an answer is scikit-learn's: a number within 1e-4, or the same class.
pub fn agrees(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Object(expected), got) => expected.get("label").is_some_and(|label| got.get("label") == Some(label)),
        (expected, Value::Array(row)) => row.len() == 1 && agrees(expected, &row[0]),
        (expected, got) => match (expected.as_f64(), got.as_f64()) {
            (Some(expected), Some(got)) => (expected - got).abs() <= 1e-4,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_held_against_scikit_learns() {
        assert!(agrees(&json!(150.00001), &json!([150.00003])));
        assert!(!agrees(&json!(150.0), &json!([150.001])));
        assert!(!agrees(&json!(150.0), &json!([150.0, 1.0])));
        assert!(!agrees(&json!(150.0), &json!("150")));
        assert!(agrees(&json!({"label": 3, "probabilities": []}), &json!({"label": 3})));
        assert!(!agrees(&json!({"label": 3}), &json!({"label": 4})));
        assert!(!agrees(&json!({"probabilities": []}), &json!({"label": 4})));
    }
}
