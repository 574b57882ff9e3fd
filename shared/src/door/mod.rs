//! What the doors have in common wherever they stand, on a device or at the gateway: how a caller
//! names a model.

pub mod oip;
pub mod tfs;

use crate::id::Version;

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
