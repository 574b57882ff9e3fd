//! How fast it goes and how long it will take. The time is passed in.

use std::collections::VecDeque;
use std::time::Duration;

/// The rate is that of the last seconds: cards become slower when their memory is full.
const WINDOW: Duration = Duration::from_secs(10);
/// Moments that are remembered.
const MOMENTS_MAX: usize = 64;

/// Counts what is done.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// When, and how much was done then; the oldest first.
    moments: VecDeque<(Duration, u64)>,
}

/// What a person wants to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Bytes in a second.
    pub rate: f64,
    /// How long until all is done; nothing where that cannot be said.
    pub left: Option<Duration>,
}

impl Meter {
    /// At `now` (since any beginning), `done` of `total` bytes are done.
    pub fn at(&mut self, now: Duration, done: u64, total: Option<u64>) -> Pace {
        let is_back = self.moments.back().is_some_and(|(last, before)| *before > done || *last > now);
        if is_back {
            // Another stage began.
            self.moments.clear();
        }
        let step = WINDOW / MOMENTS_MAX as u32;
        if self.moments.len() < 2 || self.moments.back().is_none_or(|(last, _)| now - *last >= step) {
            self.moments.push_back((now, done));
        }
        while self.moments.len() > MOMENTS_MAX
            || (self.moments.len() > 2 && self.moments.front().is_some_and(|(first, _)| now - *first > WINDOW))
        {
            self.moments.pop_front();
        }
        let (first, before) = self.moments.front().copied().unwrap_or((now, done));
        let seconds = (now - first).as_secs_f64();
        let rate = if seconds > 0.0 { (done - before) as f64 / seconds } else { 0.0 };
        let left = total.map(|total| total.saturating_sub(done) as f64);
        let left = left.filter(|_| rate > 0.0).map(|left| left / rate);
        Pace { rate, left: left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rate_and_time_left_follow_the_last_seconds() {
        let mut meter = Meter::default();
        let second = Duration::from_secs;
        assert_eq!(meter.at(second(0), 0, Some(1000)), Pace { rate: 0.0, left: None });
        let pace = (1..=5).map(|at| meter.at(second(at), at * 100, Some(1000))).last().expect("some");
        assert_eq!(pace, Pace { rate: 100.0, left: Some(second(5)) });
        // Ten times slower from then on: after the window nothing of the fast beginning counts.
        let pace = (6..=30).map(|at| meter.at(second(at), 500 + (at - 5) * 10, Some(1000))).last().expect("some");
        assert_eq!(pace, Pace { rate: 10.0, left: Some(second(25)) });
        assert_eq!(meter.at(second(31), 5, None), Pace { rate: 0.0, left: None });
    }

    proptest! {
        #[test]
        fn any_course_has_a_pace(steps in prop::collection::vec((0_u64..100_000, 0_u64..u64::MAX / 1000), 0..300)) {
            let mut meter = Meter::default();
            let mut now = Duration::ZERO;
            for (millis, done) in steps {
                now += Duration::from_millis(millis);
                let pace = meter.at(now, done, Some(u64::MAX / 1000));
                prop_assert!(pace.rate.is_finite() && pace.rate >= 0.0);
                prop_assert!(meter.moments.len() <= MOMENTS_MAX);
            }
        }
    }
}
