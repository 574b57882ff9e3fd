//! Whether to believe a desired state: every check, in order, in one place, without I/O.
//!
//! Signature before parsing; then fleet, device and key, epoch, order, jump, expiry, nonce, bounds.

use muster_shared::desired::{Desired, Offer, compare};
use muster_shared::id::{Generation, UnixMs};
use muster_shared::message::Held;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, VerifyError, payload_type};
use muster_shared::wire::{self, WireError};
use muster_shared::{DeviceId, Digest, Nonce};

/// How far ahead of the held generation an offered one may be: room for every honest director,
/// none to jump to the end of the numbers, from which no recovery would be possible.
pub const GENERATION_JUMP_MAX: u64 = 1 << 32;

/// Who this device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub device: DeviceId,
    /// The fingerprint of its key.
    pub fingerprint: Digest,
}

/// What the checks are made against.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// This device.
    pub identity: &'a Identity,
    /// The root it believes in.
    pub root: &'a TrustedRoot,
    /// The desired state it holds; none after enrolment or a loss of state.
    pub held: Option<Held>,
    /// The nonce of its last hello.
    pub nonce: Option<Nonce>,
}

/// Proof that a director of this fleet meant this desired state for this device, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedDesired {
    desired: Desired,
    digest: Digest,
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
}

/// Why a desired state is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotAccepted {
    #[error("no director that the root names signed it ({0})")]
    Signature(#[from] VerifyError),
    #[error("the signed bytes cannot be read ({0})")]
    Malformed(#[from] WireError),
    #[error("it is of fleet {found}, this device is of fleet {ours}")]
    OtherFleet { ours: String, found: String },
    #[error("it is for device {device} with key {}", .fingerprint.short())]
    OtherDevice { device: DeviceId, fingerprint: Digest },
    #[error("its epoch is {found}, the root's is {root}")]
    OtherEpoch { root: u64, found: u64 },
    #[error("generation {offered} is older than {held}, which this device holds")]
    Stale { held: Generation, offered: Generation },
    #[error("generation {0} is held already with other content")]
    Conflict(Generation),
    #[error("generation {offered} jumps too far ahead of {held}")]
    Jump { held: Generation, offered: Generation },
    #[error("it expired before it arrived")]
    Expired,
    #[error("this device holds no state and the offer does not answer its hello")]
    NotFresh,
    #[error("its slots break the bounds: at most 64, each name once")]
    Slots,
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
    let desired = authentic(envelope, holding)?;
    let digest = Digest::of(&envelope.payload);
    let offered = desired.generation;
    if let Some(held) = holding.held {
        match compare((held.generation, held.digest), (offered, digest)) {
            Offer::New => {}
            Offer::Repeat => return Ok(Verdict::Repeat),
            Offer::Stale => return Err(NotAccepted::Stale { held: held.generation, offered }),
            Offer::Conflict => return Err(NotAccepted::Conflict(offered)),
        }
        let same_epoch = offered.epoch == held.generation.epoch;
        if same_epoch && offered.number - held.generation.number > GENERATION_JUMP_MAX {
            return Err(NotAccepted::Jump { held: held.generation, offered });
        }
    } else if holding.nonce.is_none() || desired.nonce != holding.nonce {
        return Err(NotAccepted::NotFresh);
    }
    if desired.expires_ms <= now_ms || holding.root.root().expires_ms <= now_ms {
        return Err(NotAccepted::Expired);
    }
    if !desired.slots_are_sound() {
        return Err(NotAccepted::Slots);
    }
    Ok(Verdict::New(Box::new(AcceptedDesired { desired, digest })))
}

/// Reads back a desired state that was accepted before and kept on this device. Order and expiry
/// were judged then; what serves goes on serving, also after both ran out.
pub fn recall(envelope: &Envelope, holding: Holding<'_>) -> Result<AcceptedDesired, NotAccepted> {
    let desired = authentic(envelope, holding)?;
    Ok(AcceptedDesired { desired, digest: Digest::of(&envelope.payload) })
}

fn authentic(envelope: &Envelope, holding: Holding<'_>) -> Result<Desired, NotAccepted> {
    let root = holding.root.root();
    let payload = envelope.verify(payload_type::DESIRED, &holding.root.directors(), 1)?;
    let desired: Desired = wire::decode(payload)?;
    if desired.fleet != root.fleet {
        let (ours, found) = (root.fleet.to_string(), desired.fleet.to_string());
        return Err(NotAccepted::OtherFleet { ours, found });
    }
    if desired.device != holding.identity.device || desired.fingerprint != holding.identity.fingerprint {
        return Err(NotAccepted::OtherDevice { device: desired.device, fingerprint: desired.fingerprint });
    }
    if desired.generation.epoch != root.epoch {
        return Err(NotAccepted::OtherEpoch { root: root.epoch, found: desired.generation.epoch });
    }
    Ok(desired)
}

#[cfg(test)]
mod tests {
    use muster_shared::root::Root;

    use super::*;
    use crate::testing::{self, DIRECTOR, key};

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
        accept(envelope, Holding { identity: &identity, root: &root(), held, nonce: Some(Nonce([7; 16])) }, now_ms)
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
    fn nothing_new_begins_after_expiry() {
        assert_eq!(check(Some(4), &sign(&desired(5), DIRECTOR), 500), Err(NotAccepted::Expired));
        let long = Desired { expires_ms: 5_000, ..desired(5) };
        assert_eq!(check(Some(4), &sign(&long, DIRECTOR), 1_000), Err(NotAccepted::Expired));
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
