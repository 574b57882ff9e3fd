//! Names and numbers that identify things. Each is checked when it is made, so a value of these
//! types may stand in a topic, a path or a log line as it is.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest device, model and deployment name.
pub const NAME_BYTES_MAX: usize = 63;

/// A text that is not a name of the asked kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {rule}")]
pub struct BadName {
    what: &'static str,
    rule: &'static str,
    text: String,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                let ok: fn(u8) -> bool = $ok;
                if !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(ok) {
                    Ok(Self(text))
                } else {
                    Err(BadName { what: $what, rule: $rule, text: text.chars().take(80).collect() })
                }
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// One machine with one agent and one key.
    DeviceId, "device id", "use 1 to 63 of a-z, 0-9 and -",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}
name_type! {
    /// All devices of one control plane.
    FleetId, "fleet id", "use 1 to 63 of a-z, 0-9 and -",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}
name_type! {
    /// A model, whose versions are bundles.
    ModelName, "model name", "use 1 to 63 of A-Z, a-z, 0-9, _ and -",
    |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}
name_type! {
    /// What an operator wants served, and the name that doors use.
    DeploymentName, "deployment name", "use 1 to 63 of A-Z, a-z, 0-9, _ and -",
    |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}
/// A model that is served without a fleet is called by its own name: the rule is the same.
impl From<&ModelName> for DeploymentName {
    fn from(model: &ModelName) -> Self {
        Self(model.0.clone())
    }
}
name_type! {
    /// A variant of a model inside its bundle: `fp32`, `int8`.
    VariantName, "variant name", "use 1 to 63 of A-Z, a-z, 0-9, _ and -",
    |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}
name_type! {
    /// One running control-plane process, as the place where replies go.
    InstanceId, "instance id", "use 1 to 63 of a-z, 0-9 and -",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}
name_type! {
    /// A label's key or value, on devices and in selectors.
    LabelText, "label", "use 1 to 63 of A-Z, a-z, 0-9, _, -, . and /",
    |byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte)
}
name_type! {
    /// A kind of machine, as Rust's compiler names it: `aarch64-unknown-linux-gnu`.
    Target, "target", "use 1 to 63 of a-z, 0-9, _ and -, as in aarch64-unknown-linux-gnu",
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
}
name_type! {
    /// A file of a release. It may stand in a path, a URL and a shell's line as it is.
    ArtifactName, "name of a release's file", "use 1 to 63 of A-Z, a-z, 0-9, ., _ and -, and no leading dot or -",
    |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

/// Labels: what selectors match.
pub type Labels = std::collections::BTreeMap<LabelText, LabelText>;

/// A model's version: a positive 64-bit integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64))]
pub struct Version(pub NonZeroU64);

impl Version {
    /// The version `number`, or nothing for 0.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The version as a number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        text.parse().map(Self).map_err(|_| BadName {
            what: "version",
            rule: "use a positive 64-bit integer",
            text: text.chars().take(80).collect(),
        })
    }
}

/// Orders desired states: epoch first, then generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Generation {
    /// Set by the offline root; a new epoch is the way back from a stolen director's jump.
    pub epoch: u64,
    /// Grows by at least one with each signing.
    pub number: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

macro_rules! random_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
    };
}

random_type! {
    /// One run of an agent: drawn at its start, so sequence numbers may start again.
    BootId
}
random_type! {
    /// Drawn for one `hello`; an answer that names it was made after it.
    Nonce
}

/// Milliseconds since 1970, UTC.
pub type UnixMs = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_can_stand_in_a_topic() {
        for good in ["edge-1", "a", &"x".repeat(63)] {
            assert!(good.parse::<DeviceId>().is_ok(), "{good}");
        }
        for bad in ["", "Edge", "a/b", "+", "#", "a b", "ü", &"x".repeat(64), "a\0"] {
            assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_says_the_rule() {
        let error = "a/b".parse::<ModelName>().map_err(|error| error.to_string());
        assert_eq!(error, Err("\"a/b\" is no model name: use 1 to 63 of A-Z, a-z, 0-9, _ and -".into()));
        assert!("0".parse::<Version>().is_err());
        assert!("-1".parse::<Version>().is_err());
    }

    #[test]
    fn a_new_epoch_outranks_any_generation() {
        let old = Generation { epoch: 1, number: u64::MAX };
        assert!(Generation { epoch: 2, number: 0 } > old);
    }
}
