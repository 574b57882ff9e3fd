//! Models made for one story.

use std::path::{Path, PathBuf};

use muster_world::{Bundle, fixtures};

use crate::onnx::field;

/// A digits model whose file is padded to at least `bytes`: the model itself does not change.
pub fn padded_digits(folder: &Path, version: u32, bytes: usize) -> anyhow::Result<Bundle> {
    let mut onnx = std::fs::read(fixtures::folder("digits", version).join("model.onnx"))?;
    // A protobuf message with a field put behind it is the message with that field: here an entry of
    // `metadata_props` (field 14), which engines pass over. Its text must not compress to nothing.
    let value: String =
        (0..bytes.div_ceil(8)).map(|at| format!("{:08x}", (at as u32).wrapping_mul(2_654_435_761))).collect();
    let entry = [field(1, b"padding"), field(2, value.as_bytes())].concat();
    onnx.extend(field(14, &entry));
    let path: PathBuf = folder.join(format!("padded-{version}.onnx"));
    std::fs::write(&path, onnx)?;
    let golden = Some(fixtures::folder("digits", version).join("golden.json"));
    Ok(Bundle { model: "digits".to_owned(), version, onnx: path, golden })
}

/// A digits model with an operator that no engine knows, at `path`. `pack` reads the graph's ends, not
/// its operators: it is found on the device.
pub fn unloadable(path: &Path) -> anyhow::Result<PathBuf> {
    let mut onnx = std::fs::read(fixtures::folder("digits", 1).join("model.onnx"))?;
    let at: Vec<usize> = (0..onnx.len() - 6).filter(|at| onnx[*at..].starts_with(b"MatMul")).collect();
    anyhow::ensure!(!at.is_empty(), "there is no operator to replace");
    at.iter().for_each(|at| onnx[*at..at + 6].copy_from_slice(b"MitMul"));
    std::fs::write(path, onnx)?;
    Ok(path.to_owned())
}
