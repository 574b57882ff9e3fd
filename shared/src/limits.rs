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
pub const CHUNK_INDEX_BYTES_MAX: usize = (FILE_BYTES_MAX / CHUNK_BYTES as u64 * 32) as usize;
// A file's length does not fit a `usize` of 32 bits, its index's does.
const _: () = assert!(CHUNK_INDEX_BYTES_MAX == 1024 * 1024);
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
/// A release in its envelope, as JSON.
pub const RELEASE_BYTES_MAX: usize = 64 * 1024;
/// Files that one release names.
pub const ARTIFACTS_MAX: usize = 64;
/// One file of a release: an agent, or a package with one.
pub const ARTIFACT_BYTES_MAX: u64 = 256 * 1024 * 1024;
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
/// A name that a machine's kernel gives to a part of it.
pub const HARDWARE_TEXT_BYTES_MAX: usize = 96;
/// Kinds of cores of one machine; the weakest give way.
pub const CORE_KINDS_MAX: usize = 4;
/// Features of a processor.
pub const CPU_FEATURES_MAX: usize = 32;
/// Names that a device tree has for a board.
pub const COMPATIBLE_MAX: usize = 8;
/// Accelerators of one machine; the last ones by node give way.
pub const ACCELERATORS_MAX: usize = 16;
/// Temperature sensors in a report; the coolest give way.
pub const SENSORS_MAX: usize = 16;
/// Power sources in a report.
pub const POWER_SOURCES_MAX: usize = 8;
/// Mount points in a report.
pub const MOUNTS_MAX: usize = 8;
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
