//! What the agent and a worker say to each other: postcard behind a 32-bit length, over pipes.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use muster_shared::manifest::Port;
use muster_shared::reported::Measured;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::tensor::Tensor;

/// One message either way; what is larger ends the worker.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// What a worker exits with where an allocation failed: the engine's panic about it is no answer.
pub const OUT_OF_MEMORY_CODE: i32 = 75;

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First and once: close the sandbox, then load.
    Load(Load),
    /// Run the golden vectors, measure.
    Check {
        /// The golden vectors' file; none: only measure.
        golden: Option<PathBuf>,
    },
    /// Run the model.
    Predict {
        /// Names the answer.
        id: u64,
        /// In the order of the ports.
        inputs: Vec<Tensor>,
    },
}

/// What to load, and within which bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The model's file.
    pub file: PathBuf,
    /// What the manifest says it takes.
    pub inputs: Vec<Port>,
    /// What the manifest says it gives.
    pub outputs: Vec<Port>,
    /// Bytes of memory it may take beyond what the empty worker has.
    pub memory_bytes: u64,
    /// Thousandths of a core it may use in the long run.
    pub cpu_milli: u32,
    /// Files beside the model's that it may read: golden vectors, weights of their own.
    pub read_only: Vec<PathBuf>,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// The model is loaded.
    Loaded,
    /// The engine cannot load it: proven, the bytes were verified.
    CannotLoad(String),
    /// The golden vectors are right.
    Checked(Measured),
    /// The golden vectors are wrong, or the model does not run on them.
    WrongAnswers(String),
    /// An answer to `Predict`.
    Answer {
        /// The request's id.
        id: u64,
        /// What came of it.
        result: Result<Vec<Tensor>, String>,
        /// Processor time of this request, in microseconds.
        cpu_us: u64,
    },
}

/// Writes one message.
pub fn write<M: Serialize>(out: &mut impl Write, message: &M) -> io::Result<()> {
    out.write_all(&frame(message)?)?;
    out.flush()
}

/// One message with its length in front.
pub fn frame<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// Reads one message; none at the end of the stream.
pub fn read<M: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = checked_length(length)?;
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    parse(&bytes).map(Some)
}

/// The length that a message's first four bytes give, if it is within the bound.
pub fn checked_length(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(bytes) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes, more than {MESSAGE_BYTES_MAX}")));
    }
    Ok(length)
}

/// Reads one message's bytes.
pub fn parse<M: DeserializeOwned>(bytes: &[u8]) -> io::Result<M> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}
