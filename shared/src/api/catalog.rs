//! Bundles: pushed as a signed manifest first, then the blobs that are missing.

use serde::{Deserialize, Serialize};

use super::api_types;
use crate::Digest;
use crate::id::{ModelName, UnixMs, Version};
use crate::manifest::{FileRef, Port};

api_types! {
    /// What a pushed manifest still needs.
    pub struct PushStatus {
        /// The bundle.
        pub manifest: Digest,
        /// Files whose bytes the plane does not have; empty: the bundle is whole.
        pub missing: Vec<FileRef>,
        /// Why it will not be placed although it was taken, if it will not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub barred: Option<String>,
    }

    /// One bundle.
    pub struct BundleView {
        /// The model.
        pub model: ModelName,
        /// Its version.
        pub version: Version,
        /// SHA-256 of the manifest's payload.
        pub manifest: Digest,
        /// Whether all its files are there.
        pub complete: bool,
        /// Why nothing begins with it, if nothing may: it is below its model's version floor, or nobody
        /// whom the root names signed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub barred: Option<String>,
        /// Bytes of all its files.
        pub bytes: u64,
        /// The variants' names.
        pub variants: Vec<String>,
        /// The digest of f, of the first variant.
        pub graph: Digest,
        /// The digest of θ, of the first variant.
        pub weights: Digest,
        /// What it takes.
        pub inputs: Vec<Port>,
        /// What it gives.
        pub outputs: Vec<Port>,
        /// When it was pushed.
        pub pushed_ms: UnixMs,
    }
}
