//! Whether a drive holds what it says. Counterfeits say a large size and either write over their own beginning or
//! drop what comes after their end; both lose data weeks later.
//!
//! Marks that name their own place are written to a comb of close places and to places far apart, chosen so that
//! for every real size (a multiple of the step) a far mark would fall on a close one. Then all are read back.
//! Some 260 small writes at most, whatever the size. What a drive hides in a memory of its own is looked at a second
//! time, after the image went over it.

use super::medium::Medium;
use super::{Stop, aligned::Aligned};
use muster_shared::Digest;

/// What one mark takes.
pub const MARK_BYTES: u64 = 4096;
/// The finest step: real sizes are multiples of it.
const STEP_BYTES_MIN: u64 = 1024 * 1024;
/// More steps than this are made coarser: 128 close and 128 far marks.
const STEPS_MAX: u64 = 16_384;
/// A size at which nothing can be learnt.
const BYTES_MIN: u64 = 8 * STEP_BYTES_MIN;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Every mark was where it belongs.
    Whole,
    /// The drive holds about this much of what it says, or less.
    Less {
        /// A multiple of the step; what is known, not more.
        bytes: u64,
    },
}

/// Why a check did not end.
#[derive(Debug)]
pub enum NoAnswer {
    /// It was told to stop.
    Stopped,
    /// The drive failed.
    Write(u64, std::io::Error),
    /// The drive failed.
    Read(u64, std::io::Error),
}

/// The places of a check, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// A comb: neighbours are one step apart.
    close: Vec<u64>,
    /// As far apart as the comb is wide; the last one is the drive's end.
    far: Vec<u64>,
    step: u64,
}

impl Marks {
    /// The places for a drive of this size; nothing for very small ones.
    pub fn of(drive_bytes: u64) -> Option<Self> {
        if drive_bytes < BYTES_MIN {
            return None;
        }
        let room = drive_bytes / MARK_BYTES * MARK_BYTES - MARK_BYTES;
        let mut step = STEP_BYTES_MIN;
        while room / step > STEPS_MAX {
            step *= 2;
        }
        // Far marks stand where a multiple of the width does, and at the last step: between any of them and the
        // close ones lies each number of steps that there is.
        let steps = room / step;
        let width = steps.isqrt().max(1);
        let close: Vec<u64> = (0..width).map(|number| number * step).collect();
        let mut far: Vec<u64> = (1..).map(|number| number * width * step).take_while(|place| *place < room).collect();
        far.extend([steps * step, room]);
        far.sort_unstable();
        far.dedup();
        Some(Self { close, far, step })
    }

    /// All places, in the order in which they are written: what lies far comes last, and so would win.
    pub fn places(&self) -> impl Iterator<Item = u64> {
        self.close.iter().chain(&self.far).copied()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        (self.close.len() + self.far.len()) as u64
    }

    /// Writes the marks and reads them back. `seed` makes them unlike any that lie there from before.
    pub fn check(
        &self,
        medium: &mut dyn Medium,
        seed: &[u8; 16],
        stop: &Stop,
        mut did: impl FnMut(u64),
    ) -> Result<Found, NoAnswer> {
        for (number, place) in self.places().enumerate() {
            if stop.is_asked() {
                return Err(NoAnswer::Stopped);
            }
            medium.write_at(place, &mark(seed, place)).map_err(|error| NoAnswer::Write(place, error))?;
            did(number as u64 + 1);
        }
        medium.settle().map_err(|error| NoAnswer::Write(0, error))?;
        self.look(medium, seed, |_| true)
    }

    /// Reads those marks back that are still to be there.
    pub fn look(
        &self,
        medium: &mut dyn Medium,
        seed: &[u8; 16],
        is_there: impl Fn(u64) -> bool,
    ) -> Result<Found, NoAnswer> {
        let all: std::collections::BTreeMap<Digest, u64> =
            self.places().map(|place| (Digest::of(&*mark(seed, place)), place)).collect();
        // A far mark on a close one: their distance is a multiple of the real size, and so is what all share.
        let mut wraps_at = 0;
        // Dropped: what it really holds ends before.
        let mut ends_before = u64::MAX;
        let mut back = Aligned::zeros(usize::try_from(MARK_BYTES).unwrap_or(0));
        for place in self.places().filter(|place| is_there(*place)) {
            medium.read_at(place, &mut back).map_err(|error| NoAnswer::Read(place, error))?;
            match all.get(&Digest::of(&*back)) {
                Some(other) => wraps_at = common(wraps_at, other.abs_diff(place)),
                None => ends_before = ends_before.min(place / self.step * self.step),
            }
        }
        let bytes = if wraps_at == 0 { ends_before } else { ends_before.min(wraps_at) };
        Ok(if bytes == u64::MAX { Found::Whole } else { Found::Less { bytes } })
    }
}

/// The greatest number that divides both; 0 is divided by all.
fn common(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// A mark that says where it belongs.
fn mark(seed: &[u8; 16], place: u64) -> Aligned {
    let mut bytes = Aligned::zeros(usize::try_from(MARK_BYTES).unwrap_or(0));
    for (number, part) in bytes.chunks_exact_mut(32).enumerate() {
        let words = [&seed[..], &place.to_le_bytes(), &(number as u64).to_le_bytes()].concat();
        part.copy_from_slice(&Digest::of(words).0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fake, Lie};
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn found(says: u64, lie: Lie) -> Found {
        let mut drive = Fake::new(says, lie);
        let marks = Marks::of(says).expect("large enough");
        marks.check(&mut drive, &[7; 16], &Stop::default(), |_| {}).expect("an answer")
    }

    #[test]
    fn an_honest_drive_is_whole_and_a_liar_is_not() {
        let says = 64 * MIB;
        assert_eq!(found(says, Lie::None), Found::Whole);
        for real in [8 * MIB, 16 * MIB, 17 * MIB, 31 * MIB, 63 * MIB] {
            assert_eq!(found(says, Lie::Wraps(real)), Found::Less { bytes: real }, "wraps at {real}");
            let Found::Less { bytes } = found(says, Lie::Drops(real)) else { panic!("drops after {real}") };
            assert!(bytes >= real && bytes <= real + 9 * MIB, "drops after {real}: {bytes}");
        }
    }

    #[test]
    fn few_marks_whatever_the_size() {
        assert_eq!(Marks::of(4 * MIB), None);
        for size in [8 * MIB, 31_914_983_424, 64 << 30, 2 << 40, 8 << 40] {
            let marks = Marks::of(size).expect("large enough");
            assert!(marks.count() <= 300, "{size}: {}", marks.count());
            assert!(marks.places().all(|place| place + MARK_BYTES <= size));
            assert!(marks.places().any(|place| place + 2 * MARK_BYTES > size), "the end is looked at");
        }
    }

    #[test]
    fn a_check_can_be_stopped() {
        let stop = Stop::default();
        stop.ask();
        let marks = Marks::of(64 * MIB).expect("large enough");
        let answer = marks.check(&mut Fake::new(64 * MIB, Lie::None), &[0; 16], &stop, |_| {});
        assert!(matches!(answer, Err(NoAnswer::Stopped)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_real_size_escapes(says in 9_u64..200, real in 2_u64..200) {
            prop_assume!(real < says);
            let bytes = real * MIB;
            prop_assert_eq!(found(says * MIB, Lie::Wraps(bytes)), Found::Less { bytes });
            prop_assert_ne!(found(says * MIB, Lie::Drops(bytes)), Found::Whole);
        }

        #[test]
        fn on_large_drives_too_each_distance_is_between_two_marks(says in 9_u64..60_000, real in 2_u64..60_000) {
            prop_assume!(real < says);
            let marks = Marks::of(says * MIB).expect("large enough");
            let real = real.next_multiple_of(marks.step / MIB);
            prop_assume!(real < says);
            let places: std::collections::BTreeSet<u64> = marks.places().collect();
            let collides = places.iter().any(|place| *place >= real * MIB && places.contains(&(place % (real * MIB))));
            prop_assert!(collides);
        }
    }
}
