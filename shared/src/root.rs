//! The root document: who the publishers, the directors and the release signer are.
//!
//! Signed offline. A device holds one root as its anchor and follows the next ones, each signed by
//! its predecessor's threshold and its own (the rule of TUF, specification §5.3).

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::checks::{self, Check};
use crate::id::{FleetId, ModelName, UnixMs};
use crate::limits::{ROLE_KEYS_MAX, ROOT_BYTES_MAX};
use crate::signing::key::{KeyId, PublicKey};
use crate::signing::{Envelope, VerifyError, payload_type};

/// Who may say what in one fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Root {
    /// The fleet this root rules.
    pub fleet: FleetId,
    /// Grows by exactly one.
    pub version: u64,
    /// Orders desired states before their generation; never shrinks.
    pub epoch: u64,
    /// After this nothing new begins; what serves goes on serving.
    pub expires_ms: UnixMs,
    /// Who signs the next root.
    pub root: Role,
    /// Who may sign bundles.
    pub publishers: Vec<Publisher>,
    /// Who may sign desired states: one key for each control-plane instance.
    pub directors: Vec<PublicKey>,
    /// Who may sign agent releases.
    pub release: Role,
    /// Keys that must never be believed again; what they signed stops and never starts again.
    pub compromised: Vec<KeyId>,
}

/// Keys, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// Distinct keys needed; at least 1.
    pub threshold: u32,
    /// The keys of this role.
    pub keys: Vec<PublicKey>,
}

/// One publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publisher {
    /// The publisher's key.
    pub key: PublicKey,
    /// The models it may publish; absent: every model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<ModelName>>,
}

/// Why a root is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not the document that was pinned.
    #[error("the root's digest is {found}, pinned is {pinned}")]
    NotThePinned {
        /// The digest held beforehand.
        pinned: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Not signed as it must be.
    #[error("the root is not signed as it must be")]
    Signature(#[from] VerifyError),
    /// The payload is no root document.
    #[error("the signed root cannot be read: {0}")]
    Malformed(String),
    /// Not the version that follows.
    #[error("root version {found} does not follow version {held}")]
    NotTheNext {
        /// The version held.
        held: u64,
        /// The version offered.
        found: u64,
    },
    /// Of another fleet.
    #[error("the root is of fleet {found}, this is fleet {held}")]
    OtherFleet {
        /// The fleet held.
        held: FleetId,
        /// The fleet offered.
        found: FleetId,
    },
    /// The epoch went back.
    #[error("the root's epoch went back from {held} to {found}")]
    EpochWentBack {
        /// The epoch held.
        held: u64,
        /// The epoch offered.
        found: u64,
    },
}

/// Proof that a root is the pinned one or follows from it. Its constructors are the verifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedRoot {
    root: Root,
    digest: Digest,
}

impl TrustedRoot {
    /// The root whose payload has the digest that was pinned beforehand.
    pub fn pinned(envelope: &Envelope, pinned: Digest) -> Result<Self, RootError> {
        let found = Digest::of(&envelope.payload);
        if checks::on(Check::PinnedRoot) && found != pinned {
            return Err(RootError::NotThePinned { pinned, found });
        }
        Self::self_signed(envelope)
    }

    /// A root that only vouches for itself: for the place where it was made, and where a person
    /// compares its digest. Never for what a network brought.
    pub fn self_signed(envelope: &Envelope) -> Result<Self, RootError> {
        let root = Root::parse(&envelope.payload)?;
        envelope.verify(payload_type::ROOT, &root.root.keys, root.root.threshold as usize)?;
        Ok(Self { root, digest: Digest::of(&envelope.payload) })
    }

    /// The root that follows this one. An expired root can still be followed.
    pub fn follow(&self, next: &Envelope) -> Result<Self, RootError> {
        let held = &self.root;
        if checks::on(Check::RootChain) {
            next.verify(payload_type::ROOT, &held.root.keys, held.root.threshold as usize)?;
        }
        let next = Self::self_signed(next)?;
        let found = &next.root;
        if checks::on(Check::Fleet) && found.fleet != held.fleet {
            return Err(RootError::OtherFleet { held: held.fleet.clone(), found: found.fleet.clone() });
        }
        if checks::on(Check::RootVersion) && Some(found.version) != held.version.checked_add(1) {
            return Err(RootError::NotTheNext { held: held.version, found: found.version });
        }
        if checks::on(Check::RootEpoch) && found.epoch < held.epoch {
            return Err(RootError::EpochWentBack { held: held.epoch, found: found.epoch });
        }
        Ok(next)
    }

    /// The document.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// SHA-256 of the signed payload: what claims and images pin.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Publishers that may sign bundles of `model` today.
    pub fn publishers_of(&self, model: &ModelName) -> Vec<PublicKey> {
        self.root
            .publishers
            .iter()
            .filter(|publisher| {
                let any = !checks::on(Check::PublisherModels);
                any || publisher.models.as_ref().is_none_or(|models| models.contains(model))
            })
            .map(|publisher| publisher.key)
            .filter(|key| !self.is_compromised(key.id()))
            .collect()
    }

    /// Publishers that may sign bundles of any model.
    pub fn publishers(&self) -> Vec<PublicKey> {
        self.root
            .publishers
            .iter()
            .map(|publisher| publisher.key)
            .filter(|key| !self.is_compromised(key.id()))
            .collect()
    }

    /// Directors that may sign desired states today.
    pub fn directors(&self) -> Vec<PublicKey> {
        self.root.directors.iter().copied().filter(|key| !self.is_compromised(key.id())).collect()
    }

    /// Who may sign releases today, and how many of them must.
    pub fn release(&self) -> (Vec<PublicKey>, usize) {
        let Root { root, release, .. } = &self.root;
        let believed = |key: &PublicKey| !self.is_compromised(key.id());
        if checks::on(Check::ReleaseRole) {
            return (release.keys.iter().copied().filter(believed).collect(), release.threshold as usize);
        }
        let others = [self.publishers(), self.directors(), root.keys.clone(), release.keys.clone()].concat();
        (others.into_iter().filter(believed).collect(), 1)
    }

    /// Whether what a key signed must never run again.
    pub fn is_compromised(&self, key: KeyId) -> bool {
        checks::on(Check::Compromised) && self.root.compromised.contains(&key)
    }
}

impl Root {
    /// The bytes that are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        // A tree of strings and numbers always becomes JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn parse(payload: &[u8]) -> Result<Self, RootError> {
        if payload.len() > ROOT_BYTES_MAX {
            return Err(RootError::Malformed(format!("{} bytes, more than {ROOT_BYTES_MAX}", payload.len())));
        }
        let root: Self = serde_json::from_slice(payload).map_err(|error| RootError::Malformed(error.to_string()))?;
        let malformed = |text: &str| Err(RootError::Malformed(text.to_owned()));
        for role in [&root.root, &root.release] {
            if role.threshold == 0 || role.threshold as usize > role.keys.len() {
                return malformed("a role's threshold must be between 1 and the number of its keys");
            }
        }
        let longest = [root.root.keys.len(), root.release.keys.len(), root.publishers.len(), root.directors.len()];
        if longest.into_iter().max().unwrap_or(0) > ROLE_KEYS_MAX {
            return malformed("a role names more keys than the limit of 64");
        }
        if root.version == 0 {
            return malformed("root versions start at 1");
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signing::key::SecretKey;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn root(version: u64, root_key: u8) -> Root {
        Root {
            fleet: "home".parse().expect("a fleet id"),
            version,
            epoch: 1,
            expires_ms: 10,
            root: Role { threshold: 1, keys: vec![key(root_key).public()] },
            publishers: vec![Publisher { key: key(10).public(), models: None }],
            directors: vec![key(20).public()],
            release: Role { threshold: 1, keys: vec![key(30).public()] },
            compromised: vec![],
        }
    }

    fn sign(root: &Root, keys: &[u8]) -> Envelope {
        let keys: Vec<_> = keys.iter().map(|seed| key(*seed)).collect();
        Envelope::sign(payload_type::ROOT, root.to_payload(), &keys.iter().collect::<Vec<_>>())
    }

    #[test]
    fn only_the_pinned_root_is_an_anchor() {
        let envelope = sign(&root(1, 1), &[1]);
        let pin = Digest::of(&envelope.payload);
        assert_eq!(TrustedRoot::pinned(&envelope, pin).map(|root| root.digest()), Ok(pin));
        let other = sign(&root(1, 2), &[2]);
        assert!(matches!(TrustedRoot::pinned(&other, pin), Err(RootError::NotThePinned { .. })));
        let unsigned = sign(&root(1, 1), &[2]);
        assert!(matches!(TrustedRoot::pinned(&unsigned, pin), Err(RootError::Signature(_))));
    }

    #[test]
    fn the_next_root_needs_the_old_keys_and_its_own() {
        let held = TrustedRoot::self_signed(&sign(&root(1, 1), &[1])).expect("root 1");
        assert!(held.follow(&sign(&root(2, 2), &[1, 2])).is_ok());
        assert!(held.follow(&sign(&root(2, 2), &[1])).is_err());
        assert!(held.follow(&sign(&root(2, 2), &[2])).is_err());
        assert!(matches!(held.follow(&sign(&root(3, 1), &[1])), Err(RootError::NotTheNext { .. })));
        assert!(matches!(held.follow(&sign(&root(1, 1), &[1])), Err(RootError::NotTheNext { .. })));
        let back = Root { epoch: 0, ..root(2, 1) };
        assert!(matches!(held.follow(&sign(&back, &[1])), Err(RootError::EpochWentBack { .. })));
        let other = Root { fleet: "away".parse().expect("a fleet id"), ..root(2, 1) };
        assert!(matches!(held.follow(&sign(&other, &[1])), Err(RootError::OtherFleet { .. })));
    }

    #[test]
    fn a_compromised_or_limited_publisher_publishes_less() {
        let digits: ModelName = "digits".parse().expect("a name");
        let mut document = root(1, 1);
        document.publishers.push(Publisher { key: key(11).public(), models: Some(vec![digits.clone()]) });
        document.compromised = vec![key(10).public().id()];
        let trusted = TrustedRoot::self_signed(&sign(&document, &[1])).expect("root 1");
        assert_eq!(trusted.publishers_of(&digits), [key(11).public()]);
        assert!(trusted.publishers_of(&"other".parse().expect("a name")).is_empty());
    }

    #[test]
    fn a_threshold_of_nothing_is_malformed() {
        let mut document = root(1, 1);
        document.root.threshold = 0;
        assert!(matches!(TrustedRoot::self_signed(&sign(&document, &[1])), Err(RootError::Malformed(_))));
        document.root.threshold = 2;
        assert!(matches!(TrustedRoot::self_signed(&sign(&document, &[1])), Err(RootError::Malformed(_))));
    }
}
