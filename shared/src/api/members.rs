//! Who is in the fleet: standing, revocation, the factory list.

use serde::{Deserialize, Serialize};

use super::api_types;
use crate::Digest;
use crate::id::{DeviceId, Labels, UnixMs};

/// Whether a device is one of the fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Standing {
    /// It is.
    #[default]
    Member,
    /// It asked to enrol, and an operator has yet to let it in.
    Waiting,
    /// It has a certificate of this plane's authority, but the database does not know it: an operator has
    /// yet to take it back.
    Held,
    /// Two agents speak with its key: it serves on, and nothing about it changes.
    Cloned,
    /// An operator takes it out: it gets nothing but the word to empty itself, and is revoked once it has.
    Leaving,
    /// It is one of the fleet no more.
    Revoked,
}

api_types! {
    /// Asks for a device to be revoked.
    pub struct Revoke {
        /// Why, for whoever reads the list later.
        #[serde(default)]
        pub reason: String,
    }

    /// A device that was told to empty itself.
    pub struct Departure {
        /// When an operator asked for it.
        pub asked_ms: UnixMs,
        /// When the device said, by its key, that it is empty; none: it has yet to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub confirmed_ms: Option<UnixMs>,
    }

    /// A key that may enrol without a claim.
    pub struct FactoryKey {
        /// SHA-256 of the public key (SubjectPublicKeyInfo in DER).
        pub fingerprint: Digest,
        /// The name that its device gets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<DeviceId>,
        /// Labels that its device gets.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
    }

    /// A key on the factory list.
    pub struct FactoryView {
        /// SHA-256 of the public key.
        pub fingerprint: Digest,
        /// The name that its device gets.
        pub name: Option<DeviceId>,
        /// Labels that its device gets.
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
        /// When its device enrolled; none: it has yet to.
        pub spent_ms: Option<UnixMs>,
    }
}
