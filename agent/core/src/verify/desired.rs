//! Whether to believe a desired state.
//!
//! Signature before parsing; then fleet, device and key, root, epoch; order against what is held and
//! against the watermark, jump; nonce where nothing is held; expiry; slots.

use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use muster_shared::desired::{Desired, Offer, compare};
use muster_shared::id::UnixMs;
use muster_shared::message::Held;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::key::KeyId;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::wire;

use super::{Holding, Mark, NotAccepted, addressed};

/// How far ahead of the held generation an offered one may be: room for every honest director,
/// none to jump to the end of the numbers, from which no recovery would be possible.
pub const GENERATION_JUMP_MAX: u64 = 1 << 32;

/// Proof that a director of this fleet meant this desired state for this device, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedDesired {
    desired: Desired,
    digest: Digest,
    directors: Vec<KeyId>,
}

impl AcceptedDesired {
    /// The desired state.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Number and content, as a hello names it.
    pub fn held(&self) -> Held {
        Held { generation: self.desired.generation, digest: self.digest }
    }

    /// Why nothing new may begin because of it, if so: what was believed when it came may be believed no
    /// more. What runs goes on.
    pub fn may_begin(&self, root: &TrustedRoot, now_ms: UnixMs) -> Result<(), NotAccepted> {
        let document = root.root();
        let directors = root.directors();
        let stands = |signer: &KeyId| directors.iter().any(|director| director.id() == *signer);
        if checks::on(Check::Signature) && !self.directors.iter().any(stands) {
            return Err(NotAccepted::DirectorGone);
        }
        if checks::on(Check::Epoch) && self.desired.generation.epoch != document.epoch {
            return Err(NotAccepted::OtherEpoch { root: document.epoch, found: self.desired.generation.epoch });
        }
        unexpired(&self.desired, root, now_ms)
    }
}

/// What an offered desired state turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    New(Box<AcceptedDesired>),
    /// Held already.
    Repeat,
}

/// Checks an offered desired state.
pub fn accept(envelope: &Envelope, holding: Holding<'_>, now_ms: UnixMs) -> Result<Verdict, NotAccepted> {
    let accepted = authentic(envelope, holding)?;
    let (desired, digest) = (&accepted.desired, accepted.digest);
    if let Some(held) = holding.held {
        match compare((held.generation, held.digest), (desired.generation, digest)) {
            Offer::New => {}
            Offer::Repeat => return Ok(Verdict::Repeat),
            Offer::Stale if checks::on(Check::Order) => {
                return Err(NotAccepted::Stale { held: held.generation, offered: desired.generation });
            }
            Offer::Conflict if checks::on(Check::Order) => return Err(NotAccepted::Conflict(desired.generation)),
            Offer::Stale | Offer::Conflict => {}
        }
    }
    if let Some(mark) = holding.watermark {
        above(mark, desired, digest)?;
    }
    let last = holding.held.map(|held| held.generation).max(holding.watermark.map(|mark| mark.generation));
    if let Some(held) = last {
        let jumps = desired.generation.epoch == held.epoch
            && desired.generation.number.saturating_sub(held.number) > GENERATION_JUMP_MAX;
        if checks::on(Check::Jump) && jumps {
            return Err(NotAccepted::Jump { held, offered: desired.generation });
        }
    }
    let answers = holding.nonce.is_some() && desired.nonce == holding.nonce;
    if checks::on(Check::Nonce) && holding.held.is_none() && !answers {
        return Err(NotAccepted::NotFresh);
    }
    unexpired(desired, holding.root, now_ms).map_err(|error| match error {
        NotAccepted::Expired if answers => NotAccepted::OutOfTime,
        other => other,
    })?;
    if checks::on(Check::Slots) && !desired.slots_are_sound() {
        return Err(NotAccepted::Slots);
    }
    Ok(Verdict::New(Box::new(accepted)))
}

/// Whether a desired state is not below the last that was ever taken. The same again may come: the power
/// may have gone after the mark was made and before the desired state was kept.
fn above(mark: Mark, desired: &Desired, digest: Digest) -> Result<(), NotAccepted> {
    let (watermark, offered) = (mark.generation, desired.generation);
    if checks::on(Check::Order) && offered < watermark {
        return Err(NotAccepted::BelowWatermark { watermark, offered });
    }
    let forks = offered == watermark && mark.digest.is_some_and(|marked| marked != digest);
    if checks::on(Check::Order) && forks {
        return Err(NotAccepted::Conflict(offered));
    }
    Ok(())
}

fn unexpired(desired: &Desired, root: &TrustedRoot, now_ms: UnixMs) -> Result<(), NotAccepted> {
    if checks::on(Check::Expiry) && desired.expires_ms <= now_ms {
        return Err(NotAccepted::Expired);
    }
    if checks::on(Check::RootExpiry) && root.root().expires_ms <= now_ms {
        return Err(NotAccepted::RootExpired(root.root().version));
    }
    Ok(())
}

/// Reads back a desired state that was accepted before and kept on this device. Order and expiry
/// were judged then; what serves goes on serving, also after both ran out.
pub fn recall(envelope: &Envelope, holding: Holding<'_>) -> Result<AcceptedDesired, NotAccepted> {
    authentic(envelope, holding)
}

fn authentic(envelope: &Envelope, holding: Holding<'_>) -> Result<AcceptedDesired, NotAccepted> {
    let root = holding.root.root();
    let (payload, directors) = envelope.verified_by(payload_type::DESIRED, &holding.root.directors(), 1)?;
    let desired: Desired = wire::decode(payload)?;
    addressed(holding, &desired.fleet, &desired.device, desired.fingerprint)?;
    if checks::on(Check::RootKnown) && desired.root_version > root.version {
        return Err(NotAccepted::RootToCome { known: root.version, found: desired.root_version });
    }
    if checks::on(Check::Epoch) && desired.generation.epoch != root.epoch {
        return Err(NotAccepted::OtherEpoch { root: root.epoch, found: desired.generation.epoch });
    }
    Ok(AcceptedDesired { desired, digest: Digest::of(payload), directors })
}

#[cfg(test)]
mod tests {
    use muster_shared::Nonce;
    use muster_shared::id::Generation;
    use muster_shared::root::Root;

    use super::*;
    use crate::testing::{self, DIRECTOR, key};
    use crate::verify::Identity;

    fn root() -> TrustedRoot {
        testing::trusted(&Root { epoch: 3, expires_ms: 1_000, ..testing::root() })
    }

    fn desired(number: u64) -> Desired {
        Desired {
            fleet: "home".parse().unwrap(),
            device: "edge-1".parse().unwrap(),
            fingerprint: Digest::of("key"),
            generation: Generation { epoch: 3, number },
            issued_ms: 0,
            expires_ms: 500,
            nonce: Some(Nonce([7; 16])),
            root_version: 1,
            slots: vec![],
        }
    }

    fn sign(desired: &Desired, seed: u8) -> Envelope {
        Envelope::sign(payload_type::DESIRED, wire::encode(desired).unwrap(), &[&key(seed)])
    }

    /// Offers `envelope` to a device that holds generation `held` (with the content that
    /// `desired(held)` has) and whose last hello had the nonce 7.
    fn check(held: Option<u64>, envelope: &Envelope, now_ms: UnixMs) -> Result<Verdict, NotAccepted> {
        let identity = Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") };
        let held = held.map(|number| Held {
            generation: Generation { epoch: 3, number },
            digest: Digest::of(wire::encode(&desired(number)).unwrap()),
        });
        let (nonce, earlier_nonce) = (Some(Nonce([7; 16])), Some(Nonce([6; 16])));
        let holding = Holding { identity: &identity, root: &root(), held, watermark: None, nonce, earlier_nonce };
        accept(envelope, holding, now_ms)
    }

    /// Offers `envelope` to a device that lost all but its watermark.
    fn after_loss(mark: Mark, envelope: &Envelope) -> Result<Verdict, NotAccepted> {
        let identity = Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") };
        let (nonce, watermark) = (Some(Nonce([7; 16])), Some(mark));
        let holding = Holding { identity: &identity, root: &root(), held: None, watermark, nonce, earlier_nonce: None };
        accept(envelope, holding, 10)
    }

    fn refused(held: Option<u64>, envelope: &Envelope) -> NotAccepted {
        check(held, envelope, 10).expect_err("must not be accepted")
    }

    #[test]
    fn a_directors_next_generation_is_taken_and_a_repeat_changes_nothing() {
        assert!(matches!(check(Some(4), &sign(&desired(5), DIRECTOR), 10), Ok(Verdict::New(_))));
        assert_eq!(check(Some(5), &sign(&desired(5), DIRECTOR), 10), Ok(Verdict::Repeat));
        assert!(matches!(check(None, &sign(&desired(5), DIRECTOR), 10), Ok(Verdict::New(_))));
    }

    #[test]
    fn replays_forks_and_jumps_are_refused() {
        assert!(matches!(refused(Some(6), &sign(&desired(5), DIRECTOR)), NotAccepted::Stale { .. }));
        let fork = Desired { issued_ms: 1, ..desired(5) };
        assert!(matches!(refused(Some(5), &sign(&fork, DIRECTOR)), NotAccepted::Conflict(_)));
        let jump = desired(5 + GENERATION_JUMP_MAX + 1);
        assert!(matches!(refused(Some(5), &sign(&jump, DIRECTOR)), NotAccepted::Jump { .. }));
    }

    #[test]
    fn only_a_director_of_this_fleet_for_this_device_and_epoch_is_heard() {
        assert!(matches!(refused(None, &sign(&desired(5), 9)), NotAccepted::Signature(_)));
        let other = Desired { fleet: "away".parse().unwrap(), ..desired(5) };
        assert!(matches!(refused(None, &sign(&other, DIRECTOR)), NotAccepted::OtherFleet { .. }));
        let other = Desired { device: "edge-2".parse().unwrap(), ..desired(5) };
        assert!(matches!(refused(None, &sign(&other, DIRECTOR)), NotAccepted::OtherDevice { .. }));
        let other = Desired { fingerprint: Digest::of("another key"), ..desired(5) };
        assert!(matches!(refused(None, &sign(&other, DIRECTOR)), NotAccepted::OtherDevice { .. }));
        let other = Desired { generation: Generation { epoch: 4, number: 5 }, ..desired(5) };
        assert!(matches!(refused(None, &sign(&other, DIRECTOR)), NotAccepted::OtherEpoch { .. }));
    }

    #[test]
    fn a_device_that_lost_its_state_takes_only_an_answer_to_its_hello() {
        let replay = Desired { nonce: Some(Nonce([8; 16])), ..desired(5) };
        assert_eq!(refused(None, &sign(&replay, DIRECTOR)), NotAccepted::NotFresh);
        let replay = Desired { nonce: None, ..desired(5) };
        assert_eq!(refused(None, &sign(&replay, DIRECTOR)), NotAccepted::NotFresh);
        // A device that holds a state has the generation to tell a replay by.
        assert!(check(Some(4), &sign(&replay, DIRECTOR), 10).is_ok());
    }

    #[test]
    fn a_device_that_lost_its_state_takes_nothing_below_its_watermark_also_in_answer_to_its_hello() {
        let mark = |number, digest| Mark { generation: Generation { epoch: 3, number }, digest };
        let good = sign(&desired(5), DIRECTOR);
        let refused = after_loss(mark(6, None), &good);
        assert!(matches!(refused, Err(NotAccepted::BelowWatermark { .. })), "{refused:?}");
        assert!(matches!(after_loss(mark(4, None), &good), Ok(Verdict::New(_))));
        // The power went between the mark and the desired state: the same again is taken, another is not.
        assert!(matches!(after_loss(mark(5, Some(Digest::of(&good.payload))), &good), Ok(Verdict::New(_))));
        assert!(matches!(after_loss(mark(5, Some(Digest::of("other"))), &good), Err(NotAccepted::Conflict(_))));
        let jump = sign(&desired(5 + GENERATION_JUMP_MAX + 1), DIRECTOR);
        assert!(matches!(after_loss(mark(5, None), &jump), Err(NotAccepted::Jump { .. })));
        // An epoch of the offline root goes before every number.
        let old = Mark { generation: Generation { epoch: 2, number: 900 }, digest: None };
        assert!(matches!(after_loss(old, &good), Ok(Verdict::New(_))));
        let later = Mark { generation: Generation { epoch: 4, number: 1 }, digest: None };
        assert!(matches!(after_loss(later, &good), Err(NotAccepted::BelowWatermark { .. })));
    }

    #[test]
    fn what_was_signed_under_a_root_that_has_yet_to_come_is_not_taken() {
        let early = Desired { root_version: 2, ..desired(5) };
        assert_eq!(refused(Some(4), &sign(&early, DIRECTOR)), NotAccepted::RootToCome { known: 1, found: 2 });
        let older = Desired { root_version: 0, ..desired(5) };
        assert!(check(Some(4), &sign(&older, DIRECTOR), 10).is_ok());
    }

    #[test]
    fn slots_keep_their_bounds() {
        let twice = Desired { slots: vec![testing::spec("digits", 1), testing::spec("digits", 2)], ..desired(5) };
        assert_eq!(refused(Some(4), &sign(&twice, DIRECTOR)), NotAccepted::Slots);
    }

    #[test]
    fn nothing_new_begins_by_a_state_that_is_believed_no_more() {
        let Ok(Verdict::New(accepted)) = check(Some(4), &sign(&desired(5), DIRECTOR), 10) else { panic!("taken") };
        let document = Root { epoch: 3, expires_ms: 1_000, ..testing::root() };
        let begin = |document: &Root, now_ms| accepted.may_begin(&testing::trusted(document), now_ms);
        assert_eq!(begin(&document, 10), Ok(()));
        assert_eq!(begin(&document, 500), Err(NotAccepted::Expired));
        assert_eq!(begin(&Root { expires_ms: 5, ..document.clone() }, 10), Err(NotAccepted::RootExpired(1)));
        assert_eq!(begin(&Root { directors: vec![], ..document.clone() }, 10), Err(NotAccepted::DirectorGone));
        let compromised = vec![key(DIRECTOR).public().id()];
        assert_eq!(begin(&Root { compromised, ..document.clone() }, 10), Err(NotAccepted::DirectorGone));
        let next = Root { epoch: 4, ..document };
        assert!(matches!(begin(&next, 10), Err(NotAccepted::OtherEpoch { .. })));
    }

    #[test]
    fn nothing_new_begins_after_expiry() {
        let held_back = Desired { nonce: Some(Nonce([8; 16])), ..desired(5) };
        assert_eq!(check(Some(4), &sign(&held_back, DIRECTOR), 500), Err(NotAccepted::Expired));
        // What was made just now cannot have expired: it is the clock that is wrong.
        assert_eq!(check(Some(4), &sign(&desired(5), DIRECTOR), 500), Err(NotAccepted::OutOfTime));
        let long = Desired { expires_ms: 5_000, ..desired(5) };
        assert_eq!(check(Some(4), &sign(&long, DIRECTOR), 1_000), Err(NotAccepted::RootExpired(1)));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = sign(&desired(5), DIRECTOR);
        for at in 0..good.payload.len() {
            let mut bad = good.clone();
            bad.payload[at] ^= 1;
            assert!(matches!(refused(Some(4), &bad), NotAccepted::Signature(_)), "byte {at}");
        }
    }
}
