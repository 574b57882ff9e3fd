//! What the agent and a worker say to each other, over pipes. A frame is the length of its head and
//! of its body, the head in postcard, and the body: the elements of the tensors that the head names,
//! one after the other, never copied into a message.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::{Buf as _, Bytes, BytesMut};
use muster_shared::manifest::{Dtype, Port};
use muster_shared::reported::Measured;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::tensor::{self, Tensor};

/// The head of one frame; a longer one ends the worker.
pub const HEAD_BYTES_MAX: usize = 1024 * 1024;
/// The body of one frame; a longer one ends the worker.
pub const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Memory that is made ready for a frame's rest at a time.
const RESERVED_BYTES_MAX: usize = 4 * PIPE_BYTES;
/// The two lengths in front.
const LENGTHS_BYTES: usize = 8;
/// How much each pipe holds: a tensor that fits in goes over with one wake-up of the other end. The
/// kernel's own bound for a pipe of who is not root.
pub const PIPE_BYTES: usize = 1024 * 1024;

/// What a worker exits with where an allocation failed: the engine's panic about it is no answer.
pub const OUT_OF_MEMORY_CODE: i32 = 75;

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// First and once: close the sandbox, then load.
    Load {
        /// What, and within which bounds.
        load: Load,
        /// Requests that may run as one at most; 1 where that has cost too much memory before.
        together_max: u32,
    },
    /// Run the golden vectors, measure.
    Check {
        /// The golden vectors' file; none: only measure.
        golden: Option<PathBuf>,
    },
    /// Run the model on each of these; the body has their inputs.
    Predict(Vec<RequestHead>),
}

/// What to load, and within which bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The model's file.
    pub file: PathBuf,
    /// What the manifest says it takes and gives; none where nobody vouches for more than the file says.
    pub ports: Option<(Vec<Port>, Vec<Port>)>,
    /// Bytes of memory it may take beyond what the empty worker has.
    pub memory_bytes: u64,
    /// Thousandths of a core it may use in the long run.
    pub cpu_milli: u32,
    /// Files beside the model's that it may read: golden vectors, weights of their own.
    pub read_only: Vec<PathBuf>,
}

/// One request; its tensors stand in the body, in the order of the ports.
#[derive(Debug, Serialize, Deserialize)]
pub struct RequestHead {
    /// Names the answer.
    pub id: u64,
    /// The inputs.
    pub inputs: Vec<TensorHead>,
}

/// A tensor without its elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorHead {
    /// The element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// How much of the body is its.
    pub bytes: usize,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// The model is loaded.
    Loaded(Loaded),
    /// The engine cannot load it: proven, the bytes were verified.
    CannotLoad(String),
    /// The golden vectors are right.
    Checked(Measured),
    /// The golden vectors are wrong, or the model does not run on them.
    WrongAnswers(String),
    /// Answers to `Predict`, in any order; the body has their outputs.
    Answers {
        /// At least one, or none before a rest.
        answers: Vec<AnswerHead>,
        /// How long the worker now rests, in microseconds, so as not to use more than it was granted.
        rest_us: u64,
    },
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Whether requests may run together as rows of one.
    pub batches: bool,
}

/// One answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The request's id.
    pub id: u64,
    /// What came of it: the outputs in the order of the ports.
    pub result: Result<Vec<TensorHead>, String>,
    /// Processor time of this request, in microseconds; requests that ran together share it.
    pub cpu_us: u64,
    /// How long the run took that it was part of, in microseconds.
    pub compute_us: u64,
    /// Requests in that run.
    pub together: u32,
}

impl TensorHead {
    /// Of a tensor at hand.
    pub fn of(tensor: &Tensor) -> Self {
        Self { dtype: tensor.dtype, shape: tensor.shape.clone(), bytes: tensor.data.len() }
    }

    /// Takes this tensor's elements from the body.
    pub fn take(self, name: &str, body: &mut Bytes) -> io::Result<Tensor> {
        if self.bytes > body.len() {
            return Err(io::Error::other("a tensor goes beyond its frame"));
        }
        let data = body.split_to(self.bytes);
        if !tensor::elements(&self.shape).is_some_and(|count| tensor::is_sound(self.dtype, count, &data)) {
            return Err(io::Error::other("a tensor whose bytes do not fill its shape"));
        }
        Ok(Tensor { name: name.to_owned(), dtype: self.dtype, shape: self.shape, data })
    }
}

/// Appends one frame: the head, and the elements of these tensors.
pub fn frame<'a, M: Serialize>(
    out: &mut Vec<u8>,
    head: &M,
    tensors: impl Iterator<Item = &'a Tensor> + Clone,
) -> io::Result<()> {
    let start = out.len();
    let body: usize = tensors.clone().map(|tensor| tensor.data.len()).sum();
    out.extend([0; LENGTHS_BYTES]);
    let mut out_owned = postcard::to_extend(head, std::mem::take(out)).map_err(io::Error::other)?;
    let head_bytes = out_owned.len() - start - LENGTHS_BYTES;
    if head_bytes > HEAD_BYTES_MAX || body > BODY_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {head_bytes} and {body} bytes")));
    }
    out_owned[start..start + 4].copy_from_slice(&(head_bytes as u32).to_le_bytes());
    out_owned[start + 4..start + LENGTHS_BYTES].copy_from_slice(&(body as u32).to_le_bytes());
    out_owned.reserve(body);
    tensors.for_each(|tensor| out_owned.extend_from_slice(&tensor.data));
    *out = out_owned;
    Ok(())
}

/// Writes one frame without tensors.
pub fn write<M: Serialize>(out: &mut impl Write, head: &M) -> io::Result<()> {
    let mut bytes = vec![];
    frame(&mut bytes, head, std::iter::empty())?;
    out.write_all(&bytes)?;
    out.flush()
}

/// Reads one frame; none at the end of the stream.
pub fn read<M: DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<(M, Bytes)>> {
    let mut lengths = [0; LENGTHS_BYTES];
    match input.read_exact(&mut lengths) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (head, body) = checked_lengths(lengths)?;
    let mut bytes = vec![0; head + body];
    input.read_exact(&mut bytes)?;
    parse(bytes.into(), head).map(Some)
}

fn checked_lengths(bytes: [u8; LENGTHS_BYTES]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = bytes;
    let (head, body) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
    if head > HEAD_BYTES_MAX || body > BODY_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {head} and {body} bytes")));
    }
    Ok((head, body))
}

fn parse<M: DeserializeOwned>(mut bytes: Bytes, head_bytes: usize) -> io::Result<(M, Bytes)> {
    let head = postcard::from_bytes(&bytes[..head_bytes]).map_err(io::Error::other)?;
    bytes.advance(head_bytes);
    Ok((head, bytes))
}

/// Splits a stream into the worker's frames.
pub struct Frames;

impl tokio_util::codec::Decoder for Frames {
    type Item = (FromWorker, Bytes);
    type Error = io::Error;

    fn decode(&mut self, read: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let Some(lengths) = read.first_chunk::<LENGTHS_BYTES>() else { return Ok(None) };
        let (head, body) = checked_lengths(*lengths)?;
        let all = LENGTHS_BYTES + head + body;
        if read.len() < all {
            // Not all at once: a worker that says how much will come must first send it.
            read.reserve((all - read.len()).min(RESERVED_BYTES_MAX));
            return Ok(None);
        }
        let mut frame = read.split_to(all).freeze();
        frame.advance(LENGTHS_BYTES);
        parse(frame, head).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::codec::Decoder as _;

    use super::*;

    fn tensor(values: &[u8]) -> Tensor {
        Tensor { name: "x".into(), dtype: Dtype::U8, shape: vec![values.len()], data: values.to_vec().into() }
    }

    fn answers() -> Vec<u8> {
        let (one, two) = (tensor(&[1, 2, 3]), tensor(&[]));
        let answer = |id, tensor| AnswerHead {
            id,
            result: Ok(vec![TensorHead::of(tensor)]),
            cpu_us: 1,
            compute_us: 2,
            together: 2,
        };
        let mut bytes = vec![];
        let head = FromWorker::Answers { answers: vec![answer(7, &one), answer(8, &two)], rest_us: 0 };
        frame(&mut bytes, &head, [&one, &two].into_iter()).expect("a frame");
        bytes
    }

    #[test]
    fn a_frame_that_comes_in_pieces_is_put_together() {
        let bytes = answers();
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert!(Frames.decode(&mut buffer).expect("no error").is_none(), "{cut}");
            buffer.extend_from_slice(&bytes[cut..]);
            buffer.extend_from_slice(b"next");
            let (head, mut body) = Frames.decode(&mut buffer).expect("no error").expect("a frame");
            let FromWorker::Answers { answers: heads, .. } = head else { panic!("answers") };
            let tensors: Vec<Tensor> = heads
                .into_iter()
                .flat_map(|head| head.result.expect("outputs"))
                .map(|head| head.take("x", &mut body).expect("a tensor"))
                .collect();
            assert_eq!((tensors, &buffer[..]), (vec![tensor(&[1, 2, 3]), tensor(&[])], &b"next"[..]));
        }
    }

    #[test]
    fn a_worker_that_promises_much_gets_no_memory_for_it() {
        let mut promised = BytesMut::new();
        promised.extend_from_slice(&(HEAD_BYTES_MAX as u32).to_le_bytes());
        promised.extend_from_slice(&(BODY_BYTES_MAX as u32).to_le_bytes());
        assert!(Frames.decode(&mut promised).expect("no error").is_none());
        assert!(promised.capacity() <= 2 * RESERVED_BYTES_MAX, "{}", promised.capacity());
    }

    #[test]
    fn lengths_beyond_the_bounds_and_tensors_that_lie_are_errors() {
        assert!(Frames.decode(&mut BytesMut::from(&[255; 16][..])).is_err());
        assert!(read::<FromWorker>(&mut &[255; 16][..]).is_err());
        let head = TensorHead { dtype: Dtype::F32, shape: vec![2], bytes: 4 };
        assert!(head.clone().take("x", &mut Bytes::from_static(b"1234")).is_err());
        assert!(head.take("x", &mut Bytes::from_static(b"1")).is_err());
        let huge = TensorHead { dtype: Dtype::F32, shape: vec![usize::MAX, 2], bytes: 0 };
        assert!(huge.take("x", &mut Bytes::new()).is_err());
    }
}
