//! Releases of the agent: pushed as a signed document first, then the files that are missing.

use serde::{Deserialize, Serialize};

use super::api_types;
use crate::id::UnixMs;
use crate::release::{Artifact, ReleaseVersion};

api_types! {
    /// What a pushed release still needs.
    pub struct ReleasePushed {
        /// The release.
        pub version: ReleaseVersion,
        /// Files whose bytes the plane does not have; empty: the release is whole.
        pub missing: Vec<Artifact>,
        /// The newer release that is offered instead of it, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub newer: Option<ReleaseVersion>,
    }

    /// One release.
    pub struct ReleaseView {
        /// Its version.
        pub version: ReleaseVersion,
        /// When it was made, by its maker's clock.
        pub issued_ms: UnixMs,
        /// When it was pushed.
        pub pushed_ms: UnixMs,
        /// Whether all its files are there.
        pub complete: bool,
        /// Whether it is the one to install: the newest that is whole and believed.
        pub offered: bool,
        /// Why it is not believed under the newest root, if it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub refused: Option<String>,
        /// Its files.
        pub artifacts: Vec<Artifact>,
    }
}
