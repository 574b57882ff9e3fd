//! What the doors have in common wherever they stand, on a device or at the gateway: how a caller
//! names a model, and the headers beside HTTP's own.

pub mod oip;
pub mod tfs;

use crate::id::Version;

/// The header of an answer that says which device gave it.
pub const DEVICE_HEADER: &str = "muster-device";
/// The header of an answer that says which version gave it.
pub const VERSION_HEADER: &str = "muster-version";
/// The header of a request that says how long the asker waits, in milliseconds.
pub const DEADLINE_MS_HEADER: &str = "muster-deadline-ms";
/// The header that says how much of a body is JSON, where tensors follow it: the Open Inference Protocol's
/// binary extension.
pub const JSON_BYTES_HEADER: &str = "inference-header-content-length";

/// Which version of a model a caller means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VersionChoice {
    /// The highest that is available.
    Latest,
    /// This one.
    Version(Version),
    /// The one that carries this label.
    Label(String),
}
