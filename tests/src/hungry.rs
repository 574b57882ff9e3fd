//! A model that is right and small, until it is asked for many rows at once.

use std::path::Path;

use anyhow::Context as _;
use muster_world::{Bundle, fixtures};

use crate::onnx::{FLOAT, INT, INT64, INTS, attribute, field, field_number, node, tensor};

/// Bytes of memory that one row takes for a moment. Golden vectors have 8 rows at most: less than
/// 1 MiB; a thousand rows take more than the 64 MiB that stories grant.
pub const ROW_BYTES: usize = 4 * COLUMNS;
const COLUMNS: usize = 20_000;

/// Names of the graph: its output, and what the output is called before the detour.
const OUTPUT: &[u8] = b"probabilities";
const BEFORE: &[u8] = b"probabilitiez";

/// The digits model of this version with a detour: each row's first pixel is spread over
/// [`ROW_BYTES`], brought together again, and the difference, which is none, is added to the
/// probabilities. The answers are those of the model without it.
pub fn hungry_digits(folder: &Path, version: u32) -> anyhow::Result<Bundle> {
    let from = fixtures::folder("digits", version);
    let onnx = std::fs::read(from.join("model.onnx"))?;
    let path = folder.join(format!("hungry-{version}.onnx"));
    std::fs::write(&path, with_detour(onnx).context("the digits model is not what it was")?)?;
    Ok(Bundle { model: "digits".to_owned(), version, onnx: path, golden: Some(from.join("golden.json")) })
}

fn with_detour(mut onnx: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    // Made by one node, read by another, named as the graph's output: only the last keeps its name. The
    // new one is as long, so that no length in the file changes.
    let at: Vec<usize> = (0..onnx.len() - OUTPUT.len()).filter(|at| onnx[*at..].starts_with(OUTPUT)).collect();
    let [made, read, _output] = at[..] else { anyhow::bail!("{OUTPUT:?} stands at {at:?}") };
    for at in [made, read] {
        onnx[at..at + BEFORE.len()].copy_from_slice(BEFORE);
    }
    // A protobuf message with a message field put behind it is the message with both merged: here the
    // graph (field 7) with more nodes (field 1) and constants (field 5).
    let ramp: Vec<u8> = (1..=COLUMNS).flat_map(|column| (column as f32 / COLUMNS as f32).to_le_bytes()).collect();
    let axis_1 = attribute("axis", &[field_number(3, 1), field_number(20, INT)].concat());
    let axes_1 = attribute("axes", &[field_number(8, 1), field_number(20, INTS)].concat());
    let before = std::str::from_utf8(BEFORE)?;
    let graph = [
        field(5, &tensor("detour_first", INT64, &[1], &0i64.to_le_bytes())),
        field(5, &tensor("detour_ramp", FLOAT, &[1, COLUMNS as u64], &ramp)),
        field(1, &node("Gather", &["x", "detour_first"], "detour_pixel", &axis_1)),
        field(1, &node("Mul", &["detour_pixel", "detour_ramp"], "detour_wide", &[])),
        // Pixels are not negative and the ramp ends with one, so the greatest is the pixel itself.
        field(1, &node("ReduceMax", &["detour_wide"], "detour_narrow", &axes_1)),
        field(1, &node("Sub", &["detour_narrow", "detour_pixel"], "detour_nothing", &[])),
        field(1, &node("Add", &[before, "detour_nothing"], std::str::from_utf8(OUTPUT)?, &[])),
    ];
    onnx.extend(field(7, &graph.concat()));
    Ok(onnx)
}
