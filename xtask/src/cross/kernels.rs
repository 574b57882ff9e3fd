//! A model that makes the engine use what it has for a processor: digits is one multiplication of matrices,
//! and an instruction that the processor lacks may be in a convolution. Its weights mean nothing.

use muster_world::onnx::Graph;
use serde_json::Value;

/// What it is called.
pub const NAME: &str = "kernels";
/// Colours, rows and columns of its input.
const SHAPE: [u64; 3] = [3, 32, 32];

/// The model: convolutions, each of the usual curves, products of matrices and of a matrix with a row.
pub fn file() -> Vec<u8> {
    Graph::default()
        .input("x", &[1, SHAPE[0], SHAPE[1], SHAPE[2]])
        .constant("w1", &[16, 3, 3, 3], &noise(1, 16 * 27))
        .node("Conv", &["x", "w1"], "c1")
        .node("Relu", &["c1"], "r1")
        .constant("w2", &[24, 16, 3, 3], &noise(2, 24 * 144))
        .node("Conv", &["r1", "w2"], "c2")
        .node("Sigmoid", &["c2"], "s2")
        .constant("w3", &[24, 24, 1, 1], &noise(3, 24 * 24))
        .node("Conv", &["s2", "w3"], "c3")
        .node("Tanh", &["c3"], "t3")
        .node("MatMul", &["t3", "t3"], "m3")
        .node("LeakyRelu", &["m3"], "l3")
        .node("GlobalAveragePool", &["l3"], "g3")
        .node("Flatten", &["g3"], "f3")
        .constant("w4", &[24, 64], &noise(4, 24 * 64))
        .node("MatMul", &["f3", "w4"], "m4")
        .node("Erf", &["m4"], "e4")
        .constant("w5", &[64, 10], &noise(5, 64 * 10))
        .node("MatMul", &["e4", "w5"], "m5")
        .node("Softmax", &["m5"], "y")
        .output("y", &[1, 10])
        .file()
}

/// A request.
pub fn request() -> Value {
    let [colours, rows, columns] = SHAPE.map(|size| size as usize);
    let pixels = noise(6, colours * rows * columns);
    let colours: Vec<Vec<&[f32]>> =
        pixels.chunks(rows * columns).map(|colour| colour.chunks(columns).collect()).collect();
    serde_json::json!({ "instances": [colours] })
}

/// Numbers between -0.25 and 0.25, the same each time.
fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / f32::from(u16::MAX) / 512.0 - 0.25
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_small_and_spread() {
        let all = noise(7, 4096);
        assert!(all.iter().all(|value| value.abs() <= 0.2501), "{all:?}");
        assert!(all.iter().sum::<f32>().abs() < 50.0);
        assert_eq!(request()["instances"][0][2][31].as_array().map(Vec::len), Some(32));
    }
}
