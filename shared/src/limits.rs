//! Every bound that both sides must agree on, in one place. Units stand last in each name.

/// The unit that is verified and stored.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// The unit that travels: payload bytes of one `chunk/data` message.
pub const FRAME_BYTES_MAX: usize = 32 * 1024;
/// Frames in a whole chunk.
pub const FRAMES_PER_CHUNK: usize = CHUNK_BYTES / FRAME_BYTES_MAX;
/// Frames one `chunk/get` may ask for; stays below a broker's channel capacity.
pub const WINDOW_FRAMES_MAX: usize = 48;
/// One file of a bundle; its chunk index (32 bytes a chunk) then stays below [`CHUNK_INDEX_BYTES_MAX`].
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// One chunk index: 32 bytes for each chunk of the largest file.
pub const CHUNK_INDEX_BYTES_MAX: usize = FILE_BYTES_MAX as usize / CHUNK_BYTES * 32;
/// A manifest in its envelope, as JSON.
pub const MANIFEST_BYTES_MAX: usize = 1024 * 1024;
/// A root document in its envelope, as JSON.
pub const ROOT_BYTES_MAX: usize = 64 * 1024;
/// Golden vectors of one bundle, as JSON.
pub const GOLDEN_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Variants in one manifest.
pub const VARIANTS_MAX: usize = 16;
/// Tensors whose digests one variant lists; a model with more folds the rest into the last entry.
pub const TENSORS_MAX: usize = 4096;
/// Inputs, and outputs, of one model.
pub const PORTS_MAX: usize = 64;
/// Dimensions of one tensor.
pub const RANK_MAX: usize = 16;

/// Signatures that one envelope may carry.
pub const SIGNATURES_MAX: usize = 16;
/// Keys that one role of the root may name.
pub const ROLE_KEYS_MAX: usize = 64;

/// A root, or a floor with a manifest, on the wire; below [`MQTT_PACKET_BYTES_MAX`].
pub const TRUST_BYTES_MAX: usize = 896 * 1024;
/// A version floor in its envelope, as JSON.
pub const FLOOR_BYTES_MAX: usize = 8 * 1024;
/// Models whose floors, and whose highest seen versions, a device remembers; a newcomer gives way.
pub const FLOORS_MAX: usize = 256;
/// A command to a device.
pub const COMMAND_BYTES_MAX: usize = 16 * 1024;

/// A signed desired state on the wire.
pub const DESIRED_BYTES_MAX: usize = 64 * 1024;
/// Slots of one device.
pub const SLOTS_MAX: usize = 64;
/// A signed reported state on the wire.
pub const REPORTED_BYTES_MAX: usize = 128 * 1024;
/// A signed telemetry batch on the wire.
pub const TELEMETRY_BYTES_MAX: usize = 128 * 1024;
/// A hello, an event, an acknowledgement.
pub const SMALL_MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// The body of a prediction that travels through MQTT, either way.
pub const CALL_BODY_BYTES_MAX: usize = 256 * 1024;
/// A call or a reply on the wire: body and addressing.
pub const CALL_BYTES_MAX: usize = CALL_BODY_BYTES_MAX + 4 * 1024;
/// Any MQTT packet; what is larger is refused before it is parsed.
pub const MQTT_PACKET_BYTES_MAX: usize = 1024 * 1024;

/// A label's key or value.
pub const LABEL_BYTES_MAX: usize = 63;
/// Labels of one device.
pub const LABELS_MAX: usize = 64;
/// A reason, a fact, an error text that travels.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Notes of one report; the rest gives way.
pub const NOTES_MAX: usize = 16;
/// Refusals that a device remembers and reports; the oldest give way.
pub const REFUSALS_MAX: usize = 64;

/// Keeps the first [`TEXT_BYTES_MAX`] bytes of a text, whole characters only.
pub fn clip(text: impl Into<String>) -> String {
    let mut text = text.into();
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
/// Claims of named devices that are made at once.
pub const CLAIMS_AT_A_TIME_MAX: usize = 1_000;
