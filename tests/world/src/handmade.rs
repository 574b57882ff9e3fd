//! Models of one purpose, made by hand.

use crate::onnx::{Graph, STRING};

/// Numbers in a row of [`times`].
pub const COLUMNS: usize = 4;

/// y = x × factor, over rows of [`COLUMNS`].
pub fn times(factor: f32) -> Vec<u8> {
    let (rows, ports) = ([0, COLUMNS as u64], ("x", "y"));
    Graph::default()
        .constant("factor", &[1], &[factor])
        .node("Mul", &[ports.0, "factor"], ports.1)
        .input(ports.0, &rows)
        .output(ports.1, &rows)
        .file()
}

/// y = x × 2, and on its way each row takes `row_bytes` for a moment.
pub fn hungry(row_bytes: usize) -> Vec<u8> {
    let columns = row_bytes / 4;
    // Multiplied by ones and zeros: only the first of the many columns counts.
    let (spread, mut gather) = (vec![1.0; COLUMNS * columns], vec![0.0; columns * COLUMNS]);
    gather[..COLUMNS].fill(1.0);
    Graph::default()
        .constant("spread", &[COLUMNS as u64, columns as u64], &spread)
        .constant("gather", &[columns as u64, COLUMNS as u64], &gather)
        .node("MatMul", &["x", "spread"], "wide")
        .node("MatMul", &["wide", "gather"], "y")
        .input("x", &[0, COLUMNS as u64])
        .output("y", &[0, COLUMNS as u64])
        .file()
}

/// A model that computes for long where it is given many rows: so many multiplications by a matrix of
/// this size, one after the other.
pub fn endless(size: usize, times: usize) -> Vec<u8> {
    let matrix = vec![1.0 / size as f32; size * size];
    let mut graph = Graph::default().constant("matrix", &[size as u64, size as u64], &matrix);
    let mut from = "x".to_owned();
    for step in 0..times {
        let to = if step + 1 == times { "y".to_owned() } else { format!("t{step}") };
        // The rounding between keeps the engine from multiplying the matrices beforehand.
        graph = graph.node("MatMul", &[&from, "matrix"], &format!("m{step}")).node("Tanh", &[&format!("m{step}")], &to);
        from = to;
    }
    graph.input("x", &[0, size as u64]).output("y", &[0, size as u64]).file()
}

/// y = x, over texts.
pub fn identity_of_texts() -> Vec<u8> {
    let graph = Graph::default().node("Identity", &["x"], "y");
    graph.input_of(STRING, "x", &[0]).output_of(STRING, "y", &[0]).file()
}
