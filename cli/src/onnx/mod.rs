//! Reads an ONNX model just far enough to pack it: what it takes and gives, its graph f, and its
//! weights θ. Nothing here runs a model; that happens on devices, in a sandbox.
//!
//! The digest of f is that of the model encoded again after θ's values and all that has no part in
//! y = f(x; θ) were taken out: producer, domain, model version, doc strings, metadata, the graph's
//! name (exporters make it up), shapes of inner values, training information. Exporting the same
//! network twice thus gives the same f, and training it further changes θ alone.

mod ports;
mod proto;
mod separate;
mod tensor;

use bytes::Bytes;
use muster_shared::Digest;
use muster_shared::limits::TENSORS_MAX;
use muster_shared::manifest::{Port, TensorDigest, weights_digest};
use prost::Message as _;

pub use ports::describe;

/// Bytes that a variant's list of tensors may take in the manifest, which with base64 and its
/// envelope must stay below 1 MiB.
const TENSORS_BYTES_MAX: usize = 640 * 1024;
/// What one entry of that list takes beside its name.
const TENSOR_ENTRY_BYTES: usize = 96;

/// What the manifest says about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// The digest of f.
    pub graph: Digest,
    /// The digest of θ.
    pub weights: Digest,
    /// θ, sorted by name.
    pub tensors: Vec<TensorDigest>,
}

/// Why a file cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// Not an ONNX model at all.
    #[error("this is no ONNX model: {0}")]
    NotOnnx(String),
    /// Weights in another file.
    #[error("tensor {tensor:?} keeps its data in another file")]
    ExternalData {
        /// Which.
        tensor: String,
    },
    /// A tensor that contradicts itself.
    #[error("tensor {tensor:?} cannot be read: {why}")]
    BadTensor {
        /// Which.
        tensor: String,
        /// What is wrong.
        why: &'static str,
    },
    /// An input or output that cannot be served.
    #[error("the {what} {name:?} {why}")]
    BadPort {
        /// Input or output.
        what: &'static str,
        /// Which.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// None, too many, or two of one name.
    #[error("the model has {found} {what}s; 1 to 64 with different names can be served")]
    BadPorts {
        /// Input or output.
        what: &'static str,
        /// How many.
        found: usize,
    },
}

impl OnnxError {
    /// The next move.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotOnnx(_) => "name a model in ONNX format; most frameworks export one",
            Self::ExternalData { .. } => {
                "save the model as one file: onnx.save(model, path, save_as_external_data=False)"
            }
            Self::BadTensor { .. } => "check the file with onnx.checker.check_model, and export it again",
            Self::BadPort { .. } | Self::BadPorts { .. } => {
                "export the model with tensors of numbers or booleans, of known rank, as inputs and outputs"
            }
        }
    }
}

impl Model {
    /// Reads a model. Every input returns.
    pub fn read(file: impl Into<Bytes>) -> Result<Self, OnnxError> {
        let not_onnx = |why: &str| OnnxError::NotOnnx(why.to_owned());
        let mut model =
            proto::ModelProto::decode(file.into()).map_err(|error| OnnxError::NotOnnx(error.to_string()))?;
        if model.ir_version.unwrap_or(0) <= 0 {
            return Err(not_onnx("it has no IR version"));
        }
        let graph = model.graph.as_ref().ok_or_else(|| not_onnx("it has no graph"))?;
        let (inputs, outputs) = ports::ports(graph)?;
        let tensors = fold(separate::separate(&mut model)?, TENSORS_MAX, TENSORS_BYTES_MAX);
        let graph = Digest::of(model.encode_to_vec());
        Ok(Self { inputs, outputs, graph, weights: weights_digest(&tensors), tensors })
    }
}

/// Folds what goes over the limits into one last entry, whose digest is that of the list of the
/// rest. It is named after the first of them, and so still sorts behind the others.
fn fold(mut tensors: Vec<TensorDigest>, count_max: usize, bytes_max: usize) -> Vec<TensorDigest> {
    let size = |tensor: &TensorDigest| TENSOR_ENTRY_BYTES + tensor.name.len();
    if tensors.len() <= count_max && tensors.iter().map(size).sum::<usize>() <= bytes_max {
        return tensors;
    }
    let mut bytes = 0;
    let fits = tensors.iter().take_while(|tensor| {
        bytes += size(tensor);
        bytes <= bytes_max
    });
    let kept = fits.count().min(count_max.saturating_sub(1));
    let rest = tensors.split_off(kept);
    if let Some(first) = rest.first() {
        let first_name: String = first.name.chars().take(200).collect();
        let name = format!("{first_name} and {} more", rest.len() - 1);
        tensors.push(TensorDigest { name, sha256: weights_digest(&rest) });
    }
    tensors
}

/// Element types of ONNX, by number: `TensorProto.DataType`.
#[allow(missing_docs)]
mod elem_type {
    pub const UNDEFINED: i32 = 0;
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT8: i32 = 3;
    pub const UINT16: i32 = 4;
    pub const INT16: i32 = 5;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const STRING: i32 = 8;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const UINT32: i32 = 12;
    pub const UINT64: i32 = 13;
    pub const COMPLEX64: i32 = 14;
    pub const COMPLEX128: i32 = 15;
    pub const BFLOAT16: i32 = 16;

    const NAMES: [&str; 29] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
        "FLOAT8E4M3FN",
        "FLOAT8E4M3FNUZ",
        "FLOAT8E5M2",
        "FLOAT8E5M2FNUZ",
        "UINT4",
        "INT4",
        "FLOAT4E2M1",
        "FLOAT8E8M0",
        "UINT2",
        "INT2",
        "FLOAT6E2M3",
        "FLOAT6E3M2",
    ];

    /// Whether the number stands for a type.
    pub fn is_known(number: i32) -> bool {
        number > UNDEFINED && usize::try_from(number).is_ok_and(|at| at < NAMES.len())
    }

    /// The type's name.
    pub fn name(number: i32) -> String {
        let name = usize::try_from(number).ok().and_then(|at| NAMES.get(at));
        name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
    }

    /// Bytes of one element; nothing where an element is smaller than a byte. A string counts as 1.
    pub fn bytes(number: i32) -> Option<u64> {
        match number {
            UINT8 | INT8 | BOOL | STRING | 17..=20 | 24 => Some(1),
            UINT16 | INT16 | FLOAT16 | BFLOAT16 => Some(2),
            FLOAT | INT32 | UINT32 => Some(4),
            INT64 | UINT64 | DOUBLE | COMPLEX64 => Some(8),
            COMPLEX128 => Some(16),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
