//! Golden vectors: inputs with the outputs that a right model gives for them. The CLI holds the file
//! against the model's ports when it packs; a device runs the cases before the model serves.
//!
//! ```json
//! {"cases": [{"inputs": {"x": [[1.0, 2.0]]}, "outputs": {"y": [[3.0]]}}],
//!  "tolerance": {"absolute": 1e-4, "relative": 1e-4}}
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::limits::GOLDEN_BYTES_MAX;

/// The file's content. Its one constructor is [`Golden::parse`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    cases: Vec<Case>,
    #[serde(default)]
    tolerance: Tolerance,
}

/// One run of the model: nested lists by port name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What goes in.
    pub inputs: BTreeMap<String, Value>,
    /// What a right model gives.
    pub outputs: BTreeMap<String, Value>,
}

/// How far a float may be off: `absolute + relative × |expected|`. Integers are compared exactly.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// In the output's unit.
    pub absolute: f64,
    /// As a share of the expected value.
    pub relative: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 1e-4, relative: 1e-4 }
    }
}

/// Why bytes are no golden vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGolden {
    /// Over the limit, so not parsed.
    #[error("{0} bytes, more than the limit of {GOLDEN_BYTES_MAX}")]
    TooLong(usize),
    /// Not the JSON it must be; serde says where.
    #[error("{0}")]
    Malformed(String),
    /// Nothing to check.
    #[error("\"cases\" is empty")]
    NoCases,
    /// Not a number that anything can be compared with.
    #[error("the tolerance must be two finite numbers that are not negative")]
    Tolerance,
}

impl Golden {
    /// Reads the file's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadGolden> {
        if bytes.len() as u64 > GOLDEN_BYTES_MAX {
            return Err(BadGolden::TooLong(bytes.len()));
        }
        let golden: Self = serde_json::from_slice(bytes).map_err(|error| BadGolden::Malformed(error.to_string()))?;
        if golden.cases.is_empty() {
            return Err(BadGolden::NoCases);
        }
        let Tolerance { absolute, relative } = golden.tolerance;
        if [absolute, relative].iter().any(|bound| !bound.is_finite() || *bound < 0.0) {
            return Err(BadGolden::Tolerance);
        }
        Ok(golden)
    }

    /// At least one.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// Finite and not negative.
    pub fn tolerance(&self) -> Tolerance {
        self.tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tolerance_may_be_left_out_but_not_be_nonsense() {
        let with = |tolerance: &str| {
            let text = format!(r#"{{"cases": [{{"inputs": {{}}, "outputs": {{}}}}]{tolerance}}}"#);
            Golden::parse(text.as_bytes()).map(|golden| golden.tolerance())
        };
        assert_eq!(with(""), Ok(Tolerance::default()));
        let given = Tolerance { absolute: 1.0, relative: 0.0 };
        assert_eq!(with(r#", "tolerance": {"absolute": 1, "relative": 0}"#), Ok(given));
        assert_eq!(with(r#", "tolerance": {"absolute": -1, "relative": 0}"#), Err(BadGolden::Tolerance));
        assert!(matches!(with(r#", "tolerance": {"absolute": 1}"#), Err(BadGolden::Malformed(_))));
    }

    #[test]
    fn vectors_that_check_nothing_and_files_without_end_are_refused() {
        assert_eq!(Golden::parse(br#"{"cases": []}"#).map(drop), Err(BadGolden::NoCases));
        let long = vec![b' '; GOLDEN_BYTES_MAX as usize + 1];
        assert_eq!(Golden::parse(&long).map(drop), Err(BadGolden::TooLong(long.len())));
    }
}
