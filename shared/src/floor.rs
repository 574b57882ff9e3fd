//! Version floors: a publisher says which versions of a model must never run again.
//!
//! A floor only rises. It counts while its signer is in the root and may publish the model, so root n+1
//! is the way back from a floor that was set by mistake or by a stolen key.

use serde::{Deserialize, Serialize};

use crate::checks::{self, Check};
use crate::id::{FleetId, ModelName, UnixMs, Version};
use crate::limits::FLOOR_BYTES_MAX;
use crate::root::TrustedRoot;
use crate::signing::{Envelope, VerifyError, payload_type};

/// A floor, JSON inside a publisher's envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Floor {
    /// The fleet it holds for.
    pub fleet: FleetId,
    /// The model.
    pub model: ModelName,
    /// The lowest version that may run.
    pub version: Version,
    /// When it was signed, by the publisher's clock; for people.
    pub issued_ms: UnixMs,
}

/// Why a floor does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FloorError {
    /// No publisher of this model signed it.
    #[error("no publisher that the root names for this model signed the floor")]
    Signature(#[from] VerifyError),
    /// The payload is no floor.
    #[error("the signed floor cannot be read: {0}")]
    Malformed(String),
    /// Of another fleet.
    #[error("the floor is of fleet {found}, this is fleet {ours}")]
    OtherFleet {
        /// This fleet.
        ours: FleetId,
        /// The floor's.
        found: FleetId,
    },
}

/// Proof that a publisher, who may publish this model, set this floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedFloor(Floor);

impl VerifiedFloor {
    /// Signature first, parsing second, then whether the signer may publish this very model.
    pub fn verify(envelope: &Envelope, root: &TrustedRoot) -> Result<Self, FloorError> {
        let payload = envelope.verify(payload_type::FLOOR, &root.publishers(), 1)?;
        let floor = Floor::parse(payload)?;
        envelope.verify(payload_type::FLOOR, &root.publishers_of(&floor.model), 1)?;
        if checks::on(Check::Fleet) && floor.fleet != root.root().fleet {
            return Err(FloorError::OtherFleet { ours: root.root().fleet.clone(), found: floor.fleet });
        }
        Ok(Self(floor))
    }

    /// The floor.
    pub fn floor(&self) -> &Floor {
        &self.0
    }
}

impl Floor {
    /// The bytes that are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        // Strings and numbers always become JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn parse(payload: &[u8]) -> Result<Self, FloorError> {
        if payload.len() > FLOOR_BYTES_MAX {
            return Err(FloorError::Malformed(format!("{} bytes, more than {FLOOR_BYTES_MAX}", payload.len())));
        }
        serde_json::from_slice(payload).map_err(|error| FloorError::Malformed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::{Publisher, Role, Root};
    use crate::signing::key::SecretKey;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn root(publishers: Vec<Publisher>, compromised: &[u8]) -> TrustedRoot {
        let role = Role { threshold: 1, keys: vec![key(1).public()] };
        let root = Root {
            fleet: "home".parse().expect("a fleet id"),
            version: 1,
            epoch: 1,
            expires_ms: 10,
            root: role.clone(),
            publishers,
            directors: vec![],
            release: role,
            compromised: compromised.iter().map(|seed| key(*seed).public().id()).collect(),
        };
        let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key(1)]);
        TrustedRoot::self_signed(&envelope).expect("a root")
    }

    fn floor(fleet: &str, seed: u8) -> Envelope {
        let floor = Floor {
            fleet: fleet.parse().expect("a fleet id"),
            model: "digits".parse().expect("a name"),
            version: Version::new(3).expect("positive"),
            issued_ms: 5,
        };
        Envelope::sign(payload_type::FLOOR, floor.to_payload(), &[&key(seed)])
    }

    #[test]
    fn a_floor_counts_while_its_signer_may_publish_the_model() {
        let any = |seed: u8| Publisher { key: key(seed).public(), models: None };
        let only =
            |seed: u8, model: &str| Publisher { models: Some(vec![model.parse().expect("a name")]), ..any(seed) };
        let good = VerifiedFloor::verify(&floor("home", 10), &root(vec![any(10)], &[])).expect("counts");
        assert_eq!(good.floor().version.get(), 3);
        assert!(VerifiedFloor::verify(&floor("home", 10), &root(vec![only(10, "digits")], &[])).is_ok());
        for root in [
            root(vec![], &[]),
            root(vec![any(11)], &[]),
            root(vec![only(10, "other")], &[]),
            root(vec![any(10)], &[10]),
        ] {
            assert!(matches!(VerifiedFloor::verify(&floor("home", 10), &root), Err(FloorError::Signature(_))));
        }
        let other = VerifiedFloor::verify(&floor("away", 10), &root(vec![any(10)], &[]));
        assert!(matches!(other, Err(FloorError::OtherFleet { .. })));
    }
}
