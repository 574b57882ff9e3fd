//! The small messages: hello, trust, chunks, events, calls. Unsigned ones are hints.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{BootId, DeploymentName, DeviceId, Generation, InstanceId, Nonce, UnixMs, Version};
use crate::limits::{CALL_BYTES_MAX, FRAME_BYTES_MAX, SMALL_MESSAGE_BYTES_MAX, TRUST_BYTES_MAX, WINDOW_FRAMES_MAX};
use crate::signing::Envelope;
use crate::v1;
use crate::wire::{Message, WireError, decode_as};

/// Sent on each connect and from time to time: what the device holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which run of the agent.
    pub boot: BootId,
    /// Fresh; a desired state that names it was signed after this hello.
    pub nonce: Nonce,
    /// The root it believes in.
    pub root_version: u64,
    /// The desired state it holds; none after a loss of state.
    pub holds: Option<Held>,
    /// Whether no director has told this run of the agent the time yet: the plane answers with a
    /// [`TrustUpdate::Time`].
    pub wants_time: bool,
}

/// A desired state by number and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its place in the order.
    pub generation: Generation,
    /// SHA-256 of its signed payload.
    pub digest: Digest,
}

impl Message for Hello {
    const NAME: &'static str = "hello";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_as::<v1::Hello, _>(body))
    }
}

/// Something to believe in, each with its own signatures: nothing here counts because of who brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustUpdate {
    /// The next root document.
    Root(Envelope),
    /// A model's version floor ([`crate::floor::Floor`]).
    Floor {
        /// The floor.
        floor: Envelope,
        /// A manifest of that model, of the floor's version or a later one: a floor counts only up to
        /// the highest version that a device has seen signed.
        manifest: Option<Envelope>,
    },
    /// The time, by a director ([`crate::director_time::DirectorTime`]).
    Time(Envelope),
}

impl Message for TrustUpdate {
    const NAME: &'static str = "trust update";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = TRUST_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_as::<v1::TrustUpdate, _>(body))
    }
}

/// Asks for frames of one blob: a file, a manifest in its envelope, or a chunk index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkGet {
    /// The blob's digest.
    pub blob: Digest,
    /// The frame that bit 0 stands for.
    pub first_frame: u32,
    /// Bit i asks for frame `first_frame + i`; at most [`WINDOW_FRAMES_MAX`] bits count.
    pub frames: u64,
}

impl ChunkGet {
    /// The frames asked for, in order.
    pub fn wanted(&self) -> impl Iterator<Item = u32> + use<> {
        let (first, bits) = (self.first_frame, self.frames);
        (0..64u32)
            .filter(move |bit| bits >> bit & 1 == 1)
            .take(WINDOW_FRAMES_MAX)
            .filter_map(move |bit| first.checked_add(bit))
    }
}

impl Message for ChunkGet {
    const NAME: &'static str = "chunk request";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}

/// One frame of a blob, or word that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChunkData {
    /// Bytes, unverified until their chunk is whole.
    Frame {
        /// The blob's digest.
        blob: Digest,
        /// Which frame.
        number: u32,
        /// At most [`FRAME_BYTES_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// The plane does not serve this blob to this device now; worth asking again later.
    Unavailable {
        /// The blob's digest.
        blob: Digest,
    },
}

impl Message for ChunkData {
    const NAME: &'static str = "chunk data";
    const BYTES_MAX: usize = FRAME_BYTES_MAX + 128;
}

/// Something that happened on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Which run of the agent.
    pub boot: BootId,
    /// The device's clock.
    pub at_ms: UnixMs,
    /// What happened.
    pub kind: EventKind,
    /// Which deployment, if one.
    pub deployment: Option<DeploymentName>,
    /// The particulars, for a person.
    pub text: String,
}

/// What can happen on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// A desired state was not taken.
    DesiredRefused,
    /// A bundle was refused.
    BundleRefused,
    /// A chunk arrived that is not what its index names.
    ChunkDiscarded,
    /// A version began to serve.
    Serving,
    /// A version was taken back.
    RolledBack,
    /// A worker died.
    WorkerCrashed,
    /// The agent started.
    Started,
    /// A root, a floor or a command was not believed.
    TrustRefused,
    /// A root was followed, or a floor was raised.
    TrustChanged,
    /// A version that served is stopped: its publisher's key is compromised, or it is below its floor.
    Distrusted,
    /// The device's clock cannot be right, or is trusted again.
    Clock,
    /// Something began to slow the device down, or no longer does.
    Throttling,
}

impl Message for Event {
    const NAME: &'static str = "event";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}

/// A request to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Names the request; a repeated id is answered once.
    pub id: Nonce,
    /// Where the reply goes.
    pub reply_to: InstanceId,
    /// How long the asker waits, from arrival.
    pub deadline_ms: u32,
    /// What is asked.
    pub request: Request,
}

/// What can be asked of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A request to one of the device's doors.
    Door(DoorRequest),
    /// Anything else: a [`crate::command::Command`], signed by a director.
    Command(Envelope),
}

/// An HTTP request for a model, without what HTTP adds on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorRequest {
    /// Which door.
    pub door: Door,
    /// Whether it is a `POST`; else a `GET`.
    pub post: bool,
    /// The model as doors name it.
    pub served: DeploymentName,
    /// The path behind the model's name: `:predict`, `/versions/3/infer`.
    pub rest: String,
    /// How much of the body is JSON, where tensors follow it (`Inference-Header-Content-Length`).
    pub json_bytes: Option<u32>,
    /// The body.
    pub body: Vec<u8>,
}

/// The doors that speak HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Door {
    /// TF Serving's REST API: `/v1/models/M…`
    TfServing,
    /// The Open Inference Protocol: `/v2/models/M…`
    OpenInference,
}

impl DoorRequest {
    /// The path on the device's own door.
    pub fn path(&self) -> String {
        let Self { door, served, rest, .. } = self;
        match door {
            Door::TfServing => format!("/v1/models/{served}{rest}"),
            Door::OpenInference => format!("/v2/models/{served}{rest}"),
        }
    }
}

impl Message for Call {
    const NAME: &'static str = "call";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = CALL_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_as::<v1::Call, _>(body))
    }
}

/// A device's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's id.
    pub id: Nonce,
    /// An HTTP status.
    pub status: u16,
    /// The version that answered.
    pub version: Option<Version>,
    /// How much of the body is JSON, where tensors follow it.
    pub json_bytes: Option<u32>,
    /// The answer's body.
    pub body: Vec<u8>,
}

impl Message for Reply {
    const NAME: &'static str = "reply";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = CALL_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_as::<v1::Reply, _>(body))
    }
}

/// Asks for a new client certificate; signed by the enrolled key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// Whose certificate.
    pub device: DeviceId,
    /// A certificate request for the same key, DER.
    pub csr: Vec<u8>,
}

impl Message for Renewal {
    const NAME: &'static str = "renewal";
    const BYTES_MAX: usize = SMALL_MESSAGE_BYTES_MAX;
}
