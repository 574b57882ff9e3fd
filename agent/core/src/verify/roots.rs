//! Whether to follow a root: the threshold of the one before and its own, then fleet, version, epoch
//! (`TrustedRoot::follow` has the checks, since enrolment and the control plane make them too).

use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use muster_shared::root::{RootError, TrustedRoot};
use muster_shared::signing::Envelope;
use muster_shared::signing::key::KeyId;

/// The newest root that this device ever followed: `root`, as its state has it, or the one that was kept
/// beside its key, where that is newer because the state was lost. It was verified when it was followed.
pub fn not_older(root: TrustedRoot, kept: Option<&Envelope>) -> TrustedRoot {
    let kept = kept.filter(|_| checks::on(Check::RootKept)).and_then(|kept| TrustedRoot::self_signed(kept).ok());
    let newer = kept.filter(|kept| kept.root().fleet == root.root().fleet && kept.root().version > root.root().version);
    newer.unwrap_or(root)
}

/// What an offered root turns out to be.
#[derive(Debug)]
pub enum Offered {
    /// The one that follows.
    Next(Box<TrustedRoot>),
    /// The one that is held: the plane sends what a hello asked for, and may send it twice.
    Repeat,
}

/// Checks an offered root.
pub fn offered(held: &TrustedRoot, envelope: &Envelope) -> Result<Offered, RootError> {
    match held.follow(envelope) {
        Ok(next) => Ok(Offered::Next(Box::new(next))),
        Err(_) if Digest::of(&envelope.payload) == held.digest() => Ok(Offered::Repeat),
        Err(error) => Err(error),
    }
}

/// What today's root says of those who signed what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// At least one of them may publish.
    Publishes,
    /// None may publish any more, and not all are compromised: what runs serves on.
    Removed,
    /// All of them are compromised: what they signed stops and never starts again.
    Compromised,
}

/// Where the signers of a bundle stand with a root.
pub fn standing(root: &TrustedRoot, model: &muster_shared::id::ModelName, signers: &[KeyId]) -> Standing {
    let publishers = root.publishers_of(model);
    if signers.iter().any(|signer| publishers.iter().any(|publisher| publisher.id() == *signer)) {
        Standing::Publishes
    } else if !signers.is_empty() && signers.iter().all(|signer| root.is_compromised(*signer)) {
        Standing::Compromised
    } else {
        Standing::Removed
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::root::{Publisher, Root};

    use super::*;
    use crate::testing::{self, key};

    #[test]
    fn a_loss_of_state_brings_no_older_root_back() {
        let root = |version: u64| Root { version, ..testing::root() };
        let (first, third) = (testing::trusted(&root(1)), testing::signed(&root(3)));
        assert_eq!(not_older(first.clone(), None), first);
        assert_eq!(not_older(first.clone(), Some(&third)).root().version, 3);
        assert_eq!(not_older(testing::trusted(&root(4)), Some(&third)).root().version, 4);
        let others = testing::signed(&Root { fleet: "away".parse().unwrap(), ..root(9) });
        assert_eq!(not_older(first.clone(), Some(&others)), first);
    }

    #[test]
    fn a_bundle_stands_with_its_best_signer() {
        let digits = "digits".parse().unwrap();
        let [good, gone, bad, other] = [9, 11, 12, 13].map(|seed| key(seed).public().id());
        let only = Publisher { key: key(13).public(), models: Some(vec!["other".parse().unwrap()]) };
        let mut document = Root { compromised: vec![bad], ..testing::root() };
        document.publishers.push(only);
        let root = testing::trusted(&document);
        for (signers, wanted) in [
            (vec![good], Standing::Publishes),
            (vec![bad, good], Standing::Publishes),
            (vec![gone], Standing::Removed),
            (vec![gone, bad], Standing::Removed),
            (vec![other], Standing::Removed),
            (vec![bad], Standing::Compromised),
        ] {
            assert_eq!(standing(&root, &digits, &signers), wanted, "{signers:?}");
        }
    }

    #[test]
    fn a_root_is_followed_once_and_its_repeat_is_no_error() {
        let held = testing::trusted(&testing::root());
        let next = testing::signed(&Root { version: 2, ..testing::root() });
        let Ok(Offered::Next(next_held)) = offered(&held, &next) else { panic!("follows") };
        assert!(matches!(offered(&next_held, &next), Ok(Offered::Repeat)));
        let first = testing::signed(&testing::root());
        assert!(matches!(offered(&next_held, &first), Err(RootError::NotTheNext { .. })));
    }
}
