//! Which desired state a device is to have now: the one it has, or one with the next number.
//!
//! Numbers come from the one database, whichever director signs, and go beyond whatever the device
//! claims to hold: a database restored from a backup does not strand the fleet.

use muster_shared::Digest;
use muster_shared::id::{Generation, Nonce, UnixMs};
use muster_shared::message::Hello;

/// How long a desired state counts; a new one is signed at half of it.
pub const LIFE_MS: UnixMs = 7 * 86_400_000;
/// How far a device's claim may lie above the database. A database restored from a backup is behind
/// by what was signed since; a claim further off is a lie or a stolen director's jump, for which the
/// root's epoch is the way back.
pub const JUMP_MAX: u64 = 1 << 32;

/// The newest desired state of a device, as it was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Issued {
    /// Its place in the order.
    pub generation: Generation,
    /// The digest that devices name it by.
    pub digest: Digest,
    /// Its slots by content.
    pub slots: Digest,
    /// The nonce it names.
    pub nonce: Option<Nonce>,
    /// When it was made.
    pub issued_ms: UnixMs,
}

/// What a device is to be told.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    /// The slots it is to have, by content.
    pub slots: Digest,
    /// The epoch in force.
    pub epoch: u64,
    /// What it last said in this session.
    pub hello: Option<&'a Hello>,
    /// The generation that its last report claims.
    pub applied: Option<Generation>,
    /// Now.
    pub now_ms: UnixMs,
}

/// Why a device cannot be told anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotIssue {
    /// The claim is beyond what an honest history explains.
    #[error("the device claims generation {claimed}, too far above {known}")]
    Jump {
        /// What it claims.
        claimed: Generation,
        /// The highest number that is known.
        known: u64,
    },
    /// The numbers are used up.
    #[error("there is no generation after {0}")]
    NoNext(Generation),
}

/// The number of the next desired state; none: the newest one is still the right one.
pub fn next(held: Option<&Issued>, need: Need<'_>) -> Result<Option<Generation>, CannotIssue> {
    if held.is_some_and(|held| stands(held, need)) {
        return Ok(None);
    }
    let holds = need.hello.and_then(|hello| hello.holds).map(|held| held.generation);
    let claims: Vec<Generation> = need.applied.into_iter().chain(holds).collect();
    next_generation(need.epoch, held.map(|held| held.generation), &claims).map(Some)
}

/// Whether the newest desired state is still the right one for the device.
fn stands(held: &Issued, need: Need<'_>) -> bool {
    let fresh = held.issued_ms + LIFE_MS / 2 > need.now_ms;
    let acceptable = match need.hello.map(|hello| (hello.holds, hello.nonce)) {
        // A device without state takes only an answer to this very hello.
        Some((None, nonce)) => held.nonce == Some(nonce),
        // What it holds must be older, or the same.
        Some((Some(theirs), _)) => {
            theirs.generation < held.generation || theirs.generation == held.generation && theirs.digest == held.digest
        }
        None => true,
    };
    held.slots == need.slots && held.generation.epoch == need.epoch && fresh && acceptable
}

/// Whether the device has yet to get this desired state.
pub fn lacks(hello: &Hello, issued: &Issued) -> bool {
    hello.holds.is_none_or(|theirs| theirs.generation != issued.generation || theirs.digest != issued.digest)
}

/// Whether the device holds a later desired state than we remember: our memory is older than the fleet.
pub fn is_ahead(hello: &Hello, held: Option<&Issued>) -> bool {
    hello.holds.is_some_and(|theirs| held.is_none_or(|held| theirs.generation > held.generation))
}

/// The number after everything that is known of this epoch: to the database, to the device.
fn next_generation(epoch: u64, known: Option<Generation>, claims: &[Generation]) -> Result<Generation, CannotIssue> {
    let this_epoch = |generation: &Generation| generation.epoch == epoch;
    let known = known.filter(this_epoch).map_or(0, |generation| generation.number);
    let claimed = claims.iter().copied().filter(this_epoch).max();
    if let Some(claimed) = claimed
        && claimed.number.saturating_sub(known) > JUMP_MAX
    {
        return Err(CannotIssue::Jump { claimed, known });
    }
    let highest = claimed.map_or(known, |claimed| claimed.number.max(known));
    let next = highest.checked_add(1).filter(|number| i64::try_from(*number).is_ok());
    let number = next.ok_or(CannotIssue::NoNext(Generation { epoch, number: highest }))?;
    Ok(Generation { epoch, number })
}

#[cfg(test)]
mod tests {
    use muster_shared::id::BootId;
    use muster_shared::message::Held;

    use super::*;

    fn at(epoch: u64, number: u64) -> Generation {
        Generation { epoch, number }
    }

    #[test]
    fn a_generation_is_above_all_that_is_known_in_its_epoch() {
        for (epoch, known, claims, expected) in [
            (1, None, vec![], Some(1)),
            (1, Some(at(1, 5)), vec![], Some(6)),
            // A database from a backup does not strand the fleet.
            (1, Some(at(1, 5)), vec![at(1, 9), at(1, 7)], Some(10)),
            // Another epoch's numbers mean nothing here: the way back from a stolen director's jump.
            (2, Some(at(1, 5)), vec![at(1, u64::MAX)], Some(1)),
            // A claim too far off is not believed.
            (1, Some(at(1, 5)), vec![at(1, 6 + JUMP_MAX)], None),
            (1, Some(at(1, i64::MAX as u64)), vec![], None),
        ] {
            let next = next_generation(epoch, known, &claims).ok();
            assert_eq!(next, expected.map(|number| at(epoch, number)), "{known:?} {claims:?}");
        }
    }

    #[test]
    fn a_desired_state_stands_until_something_speaks_against_it() {
        let slots = Digest::of("slots");
        let digest = Digest::of("payload");
        let held = Issued { generation: at(1, 5), digest, slots, nonce: Some(Nonce([1; 16])), issued_ms: 1000 };
        let hello = |holds: Option<(Generation, Digest)>, nonce: u8| Hello {
            boot: BootId([0; 16]),
            nonce: Nonce([nonce; 16]),
            root_version: 1,
            holds: holds.map(|(generation, digest)| Held { generation, digest }),
            wants_time: false,
        };
        let need = |slots, epoch, now_ms| Need { slots, epoch, hello: None, applied: None, now_ms };
        let now = 2000;
        assert!(stands(&held, need(slots, 1, now)));
        assert!(!stands(&held, need(Digest::of("others"), 1, now)));
        assert!(!stands(&held, need(slots, 2, now)));
        assert!(!stands(&held, need(slots, 1, 1000 + LIFE_MS / 2)));
        let answers = |hello: &Hello| stands(&held, Need { hello: Some(hello), ..need(slots, 1, now) });
        // A device without state needs its own nonce.
        assert!(answers(&hello(None, 1)));
        assert!(!answers(&hello(None, 2)));
        // One with state: the same or an older one.
        for (generation, digest, expected) in [
            (at(1, 5), held.digest, true),
            (at(1, 5), Digest::of("conflict"), false),
            (at(1, 4), Digest::of("older"), true),
            (at(1, 6), Digest::of("newer"), false),
        ] {
            let hello = hello(Some((generation, digest)), 2);
            assert_eq!(answers(&hello), expected, "{generation}");
            assert_eq!(lacks(&hello, &held), generation != held.generation || digest != held.digest);
            assert_eq!(is_ahead(&hello, Some(&held)), generation > held.generation);
        }
    }
}
