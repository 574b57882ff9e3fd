//! What time it is, as far as a device can know: a local clock that may be wrong, a bound that the time is
//! surely past, and a director's word.
//!
//! Everything here is counted in *steady* time: the local clock at the start of this run, and what never
//! jumps since. [`Clock::wall`] makes of it the time by which expiry is judged; deadlines (probation,
//! retries) are steady ones, so a wall clock that jumps neither ends nor prolongs them.
//!
//! The bound begins with the time at which the claim or the image was made, which comes from the people
//! who own the device. It rises by a director's time only, and by no more than the uptime since it last
//! rose: a stolen director cannot push it ahead of the world, which would brick the device. It never rises
//! by the local clock, for the same reason, and never by what a publisher signed: a stolen publisher's key
//! must not brick devices either.

use muster_shared::checks::{self, Check};
use muster_shared::director_time::DirectorTime;
use muster_shared::id::UnixMs;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, VerifyError, payload_type};
use muster_shared::wire::{self, WireError};
use muster_shared::{DeviceId, Nonce};

use crate::verify::Identity;

/// A local clock that agrees this well with a director's is kept: network time is finer than a message
/// that may have waited on its way. Certificates and desired states live far longer.
pub const TOLERANCE_MS: u64 = 5 * 60 * 1000;
/// A director is asked again after this long, so that the bound rises on a device that runs for years and
/// a clock that drifts is noticed.
pub const ASK_AGAIN_MS: u64 = 24 * 3600 * 1000;
/// A director's time by which no server's certificate is good for this long is doubted: a stolen director
/// must not cut a device off from the honest one that follows.
pub const DOUBT_AFTER_MS: u64 = 3600 * 1000;
/// The bound is written when it rose by this much: a file is not worn out by restarts.
pub const BOUND_STEP_MS: u64 = 60 * 1000;

/// The time, and how sure it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    bound_ms: UnixMs,
    /// When the bound last rose, or this run began; steady.
    raised_at_ms: UnixMs,
    told: Option<Told>,
    /// Since when no server's certificate was good by a director's time; steady.
    cut_off_since_ms: Option<UnixMs>,
}

/// What a director said in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    /// What is added to steady time.
    offset_ms: i64,
    /// When it was said; steady.
    at_ms: UnixMs,
}

/// What a director's time changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// The clock agrees with it and is kept.
    Kept,
    /// The clock was wrong: the director's time counts from now on.
    Replaced {
        /// What the clock said.
        was_ms: UnixMs,
        /// What the director said.
        now_ms: UnixMs,
    },
}

impl Clock {
    /// The clock at the start of a run, with the bound that was kept.
    pub fn new(bound_ms: UnixMs, steady_ms: UnixMs) -> Self {
        Self { bound_ms, raised_at_ms: steady_ms, told: None, cut_off_since_ms: None }
    }

    /// The time by which expiry is judged: never before the bound.
    pub fn wall(&self, steady_ms: UnixMs) -> UnixMs {
        let reading = self.reading(steady_ms);
        if checks::on(Check::TimeBound) { reading.max(self.bound_ms) } else { reading }
    }

    /// What the clock says, also where that is surely wrong.
    pub fn reading(&self, steady_ms: UnixMs) -> UnixMs {
        steady_ms.saturating_add_signed(self.told.map_or(0, |told| told.offset_ms))
    }

    /// A time that has surely passed.
    pub fn bound_ms(&self) -> UnixMs {
        self.bound_ms
    }

    /// Whether a director told this run the time.
    pub fn is_confirmed(&self) -> bool {
        self.told.is_some()
    }

    /// Whether a director should be asked.
    pub fn wants_time(&self, steady_ms: UnixMs) -> bool {
        self.told.is_none_or(|told| steady_ms.saturating_sub(told.at_ms) >= ASK_AGAIN_MS)
    }

    /// Whether the clock is surely wrong and nobody has said better: nothing new may begin by it, since what
    /// expired between the bound and now would be taken.
    pub fn is_known_wrong(&self, steady_ms: UnixMs) -> bool {
        let behind = self.told.is_none() && steady_ms.saturating_add(TOLERANCE_MS) < self.bound_ms;
        checks::on(Check::TimeBound) && behind
    }

    /// A director, whose word was checked by [`told`], says what time it is. A clock that agrees within
    /// [`TOLERANCE_MS`] is kept, else the director's time replaces it until this run ends. A stolen
    /// director can thereby make things expire, or keep them from it down to the bound; it could as well
    /// have stopped signing, or signed again.
    pub fn confirm(&mut self, director_ms: UnixMs, steady_ms: UnixMs) -> Confirmed {
        let was_ms = self.reading(steady_ms);
        let agrees = was_ms.abs_diff(director_ms) <= TOLERANCE_MS;
        let offset_ms = match self.told {
            Some(told) if agrees => told.offset_ms,
            None if agrees => 0,
            _ => difference(director_ms, steady_ms),
        };
        self.told = Some(Told { offset_ms, at_ms: steady_ms });
        let most = self.bound_ms.saturating_add(steady_ms.saturating_sub(self.raised_at_ms));
        let bound_ms = most.min(director_ms);
        if bound_ms > self.bound_ms {
            (self.bound_ms, self.raised_at_ms) = (bound_ms, steady_ms);
        }
        if agrees { Confirmed::Kept } else { Confirmed::Replaced { was_ms, now_ms: self.wall(steady_ms) } }
    }

    /// A connection stands: the time cannot be too wrong.
    pub fn connected(&mut self) {
        self.cut_off_since_ms = None;
    }

    /// The pinned authority's certificate is not good at this time. Whether a director's time is doubted for
    /// it, and the clock unconfirmed again: that gives whoever holds a certificate that ran out what a reboot
    /// would, the right to send signed documents.
    pub fn server_out_of_time(&mut self, steady_ms: UnixMs) -> bool {
        if self.told.is_none() {
            return false;
        }
        let since_ms = *self.cut_off_since_ms.get_or_insert(steady_ms);
        let doubted = steady_ms.saturating_sub(since_ms) >= DOUBT_AFTER_MS;
        if doubted {
            (self.told, self.cut_off_since_ms) = (None, None);
        }
        doubted
    }

    /// Something was made just now that by this clock is long over: what a director told is forgotten, and
    /// the local clock counts again until one tells the time anew. Says whether that changes anything.
    pub fn doubt(&mut self) -> bool {
        self.told.take().is_some()
    }

    /// What an operator should know: nothing where the clock is as it should be.
    pub fn note(&self, steady_ms: UnixMs) -> Option<String> {
        let wrong = self.told.is_some_and(|told| told.offset_ms != 0) || self.is_known_wrong(steady_ms);
        wrong.then(|| self.describe(steady_ms))
    }

    /// The clock's state, for people.
    pub fn describe(&self, steady_ms: UnixMs) -> String {
        let (local, wall) = (utc(steady_ms), utc(self.wall(steady_ms)));
        match self.told {
            Some(Told { offset_ms: 0, .. }) => format!("the clock says {local}, and a director agrees"),
            Some(_) => format!("the device's own clock would say {local}; by a director it is {wall}, which counts"),
            None if self.is_known_wrong(steady_ms) => format!(
                "the device's own clock says {local}, but it is {} at least; until a director tells the time, \
                 nothing new begins",
                utc(self.bound_ms)
            ),
            None => format!("the clock says {local}, and no director has told this run the time yet"),
        }
    }
}

fn difference(a: UnixMs, b: UnixMs) -> i64 {
    let difference = i128::from(a) - i128::from(b);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

/// A time as people write it: `2026-11-27 06:28 UTC`.
pub fn utc(ms: UnixMs) -> String {
    let (minutes, days) = (ms / 60_000 % 1440, ms / 86_400_000);
    // Civil date from days, years beginning in March (H. Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Why a director's time is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum NotTold {
    #[error("no director that the root names signed it ({0})")]
    Signature(#[from] VerifyError),
    #[error("the signed bytes cannot be read ({0})")]
    Malformed(#[from] WireError),
    #[error("it is of fleet {found}, this device is of fleet {ours}")]
    OtherFleet { ours: String, found: String },
    #[error("it is for device {0}, or another key")]
    OtherDevice(DeviceId),
    #[error("it does not answer this device's last hello")]
    NotFresh,
}

/// The time that a director told this device in answer to its last hello. Without the nonce an old answer
/// would turn the clock back.
pub fn told(
    envelope: &Envelope,
    identity: &Identity,
    root: &TrustedRoot,
    nonce: Option<Nonce>,
) -> Result<UnixMs, NotTold> {
    let payload = envelope.verify(payload_type::TIME, &root.directors(), 1)?;
    let time: DirectorTime = wire::decode(payload)?;
    if checks::on(Check::Fleet) && time.fleet != root.root().fleet {
        let (ours, found) = (root.root().fleet.to_string(), time.fleet.to_string());
        return Err(NotTold::OtherFleet { ours, found });
    }
    let ours = time.device == identity.device && time.fingerprint == identity.fingerprint;
    if checks::on(Check::Device) && !ours {
        return Err(NotTold::OtherDevice(time.device));
    }
    if checks::on(Check::Nonce) && nonce != Some(time.nonce) {
        return Err(NotTold::NotFresh);
    }
    Ok(time.now_ms)
}

#[cfg(test)]
mod tests {
    use muster_shared::Digest;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{self, DIRECTOR, key};

    const DAY_MS: u64 = 86_400_000;
    const YEAR_MS: u64 = 365 * DAY_MS;
    /// Some day in 2026.
    const NOW_MS: u64 = 1_780_000_000_000;

    /// A clock with this bound that says `local`, after a director said `director`; then a minute passes.
    fn check(bound_ms: u64, local_ms: u64, director_ms: Option<u64>, wall_ms: u64) {
        let mut clock = Clock::new(bound_ms, local_ms);
        if let Some(director_ms) = director_ms {
            clock.confirm(director_ms, local_ms);
        }
        assert_eq!(clock.wall(local_ms + 60_000), wall_ms, "{bound_ms} {local_ms} {director_ms:?}");
    }

    #[test]
    fn the_wall_clock_is_the_directors_where_the_local_one_disagrees_and_never_before_the_bound() {
        // Unconfirmed: 1970, 2099, right, a year back.
        check(NOW_MS, 0, None, NOW_MS);
        check(NOW_MS, 4_070_908_800_000, None, 4_070_908_860_000);
        check(NOW_MS - DAY_MS, NOW_MS, None, NOW_MS + 60_000);
        check(NOW_MS, NOW_MS - YEAR_MS, None, NOW_MS);
        // Confirmed.
        check(NOW_MS - DAY_MS, 0, Some(NOW_MS), NOW_MS + 60_000);
        check(NOW_MS - DAY_MS, 4_070_908_800_000, Some(NOW_MS), NOW_MS + 60_000);
        check(NOW_MS - DAY_MS, NOW_MS - YEAR_MS, Some(NOW_MS), NOW_MS + 60_000);
        // Near enough: kept as it is.
        check(0, NOW_MS, Some(NOW_MS + TOLERANCE_MS), NOW_MS + 60_000);
        check(0, NOW_MS, Some(NOW_MS + TOLERANCE_MS + 1), NOW_MS + TOLERANCE_MS + 60_001);
        // A director that turns the clock back comes as far as the bound.
        check(NOW_MS, NOW_MS + DAY_MS, Some(0), NOW_MS);
    }

    #[test]
    fn a_director_is_asked_until_it_answers_and_again_after_a_day() {
        let mut clock = Clock::new(0, 1_000);
        assert!(clock.wants_time(1_000) && !clock.is_confirmed());
        clock.confirm(NOW_MS, 2_000);
        assert!(!clock.wants_time(2_000 + ASK_AGAIN_MS - 1) && clock.is_confirmed());
        assert!(clock.wants_time(2_000 + ASK_AGAIN_MS));
        // By then the bound rises by that day, and no further.
        clock.confirm(NOW_MS + ASK_AGAIN_MS, 2_000 + ASK_AGAIN_MS);
        assert_eq!(clock.bound_ms(), 1_000 + ASK_AGAIN_MS);
    }

    #[test]
    fn a_clock_behind_its_bound_is_known_to_be_wrong_until_a_director_says_better() {
        let mut clock = Clock::new(NOW_MS, 0);
        assert!(clock.is_known_wrong(0));
        assert!(
            clock.note(0).is_some_and(|note| note.contains("1970-01-01 00:00 UTC") && note.contains("nothing new"))
        );
        assert_eq!(clock.confirm(NOW_MS, 5), Confirmed::Replaced { was_ms: 5, now_ms: NOW_MS });
        assert!(!clock.is_known_wrong(5));
        assert!(clock.note(5).is_some_and(|note| note.contains("by a director")));
        let clock = Clock::new(NOW_MS, NOW_MS - TOLERANCE_MS);
        assert!(!clock.is_known_wrong(NOW_MS - TOLERANCE_MS) && clock.note(NOW_MS).is_none());
    }

    #[test]
    fn a_directors_time_that_cuts_the_device_off_is_doubted_after_an_hour_and_the_bound_stays() {
        let (mut clock, in_2099) = (Clock::new(NOW_MS, NOW_MS), 4_070_908_800_000);
        assert!(!clock.server_out_of_time(NOW_MS), "nobody told it anything");
        clock.confirm(in_2099, NOW_MS + 5_000);
        let began = NOW_MS + 10_000;
        assert!(!clock.server_out_of_time(began) && !clock.server_out_of_time(began + DOUBT_AFTER_MS - 1));
        // A connection in between begins the hour anew.
        clock.connected();
        assert!(!clock.server_out_of_time(began + DOUBT_AFTER_MS));
        assert!(clock.server_out_of_time(began + 2 * DOUBT_AFTER_MS));
        assert!(!clock.is_confirmed() && clock.wants_time(began + 2 * DOUBT_AFTER_MS));
        assert_eq!(clock.bound_ms(), NOW_MS + 5_000);
        assert_eq!(clock.wall(began), began);
    }

    #[test]
    fn times_are_written_as_people_write_them() {
        for (ms, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399_000, "2000-02-28 23:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00 UTC"),
            (1_795_761_300_000, "2026-11-27 06:35 UTC"),
            (4_102_444_799_999, "2099-12-31 23:59 UTC"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    fn time() -> DirectorTime {
        DirectorTime {
            fleet: "home".parse().unwrap(),
            device: "edge-1".parse().unwrap(),
            fingerprint: Digest::of("key"),
            nonce: Nonce([7; 16]),
            now_ms: NOW_MS,
        }
    }

    #[test]
    fn only_a_directors_answer_to_this_devices_last_hello_is_believed() {
        let identity = Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") };
        let root = testing::trusted(&testing::root());
        let check = |time: &DirectorTime, seed: u8, kind: &str, nonce: Option<Nonce>| {
            let envelope = Envelope::sign(kind, wire::encode(time).unwrap(), &[&key(seed)]);
            told(&envelope, &identity, &root, nonce)
        };
        let nonce = Some(Nonce([7; 16]));
        assert_eq!(check(&time(), DIRECTOR, payload_type::TIME, nonce), Ok(NOW_MS));
        assert!(matches!(check(&time(), testing::PUBLISHER, payload_type::TIME, nonce), Err(NotTold::Signature(_))));
        assert!(matches!(check(&time(), DIRECTOR, payload_type::DESIRED, nonce), Err(NotTold::Signature(_))));
        let other = DirectorTime { fleet: "away".parse().unwrap(), ..time() };
        assert!(matches!(check(&other, DIRECTOR, payload_type::TIME, nonce), Err(NotTold::OtherFleet { .. })));
        let other = DirectorTime { device: "edge-2".parse().unwrap(), ..time() };
        assert!(matches!(check(&other, DIRECTOR, payload_type::TIME, nonce), Err(NotTold::OtherDevice(_))));
        let other = DirectorTime { fingerprint: Digest::of("another"), ..time() };
        assert!(matches!(check(&other, DIRECTOR, payload_type::TIME, nonce), Err(NotTold::OtherDevice(_))));
        for nonce in [None, Some(Nonce([8; 16]))] {
            assert_eq!(check(&time(), DIRECTOR, payload_type::TIME, nonce), Err(NotTold::NotFresh));
        }
    }

    proptest! {
        #[test]
        fn the_bound_never_falls_nor_outruns_the_uptime_whatever_a_director_says(
            bound: u64,
            start in 0..u64::MAX / 2,
            said in proptest::collection::vec((any::<u64>(), 0..YEAR_MS), 1..40),
        ) {
            let (mut clock, mut steady) = (Clock::new(bound, start), start);
            for (director, later) in said {
                steady += later;
                let before = clock.bound_ms();
                clock.confirm(director, steady);
                prop_assert!(clock.bound_ms() >= before);
                prop_assert!(clock.bound_ms() <= bound.saturating_add(steady - start));
                prop_assert!(clock.bound_ms() == before || clock.bound_ms() <= director);
                prop_assert!(clock.wall(steady) >= clock.bound_ms());
                prop_assert!(clock.wall(u64::MAX) >= clock.bound_ms());
            }
        }

        #[test]
        fn after_a_directors_time_the_clock_is_right_within_the_tolerance(
            bound in 0..NOW_MS, start in 0..2 * NOW_MS, director in NOW_MS..2 * NOW_MS, later in 0..YEAR_MS,
        ) {
            let mut clock = Clock::new(bound, start);
            clock.confirm(director, start);
            prop_assert!(clock.wall(start + later).abs_diff(director + later) <= TOLERANCE_MS);
        }

        #[test]
        fn the_local_clock_never_moves_the_bound(bound: u64, start: u64, later: u64) {
            let clock = Clock::new(bound, start);
            let _ = clock.wall(later);
            prop_assert_eq!(clock.bound_ms(), bound);
            prop_assert!(clock.wall(later) >= bound);
        }
    }
}
