//! Processor time as granted: how long a worker rests. It computes in one thread.
//!
//! Affinity is left alone: two workers that are pinned to the same core are slow while another is idle,
//! and the scheduler knows better which one is.

use std::time::Duration;

/// As the kernel does it for `cpu.max`: what is not used within a period is lost.
pub const PERIOD: Duration = Duration::from_millis(100);

/// A bucket of processor time that fills at the granted rate and holds one period's worth. A run may take
/// more than there is; what it owes is slept off before the next one.
#[derive(Debug, Clone)]
pub struct Pace {
    cpu_milli: u32,
    /// In nanoseconds of processor time, times 1000, so that filling it rounds nothing.
    level: i128,
    filled_at: Duration,
}

impl Pace {
    /// Begins with a full bucket. `now` is the time since any fixed moment. A grant of nothing is taken for
    /// a thousandth of a core.
    pub fn new(cpu_milli: u32, now: Duration) -> Self {
        let cpu_milli = cpu_milli.max(1);
        Self { cpu_milli, level: Self::most(cpu_milli), filled_at: now }
    }

    /// Takes what a run used, all its threads together, and says how long to sleep before the next.
    pub fn used(&mut self, now: Duration, processor_time: Duration) -> Duration {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let filled = self.level + passed.as_nanos() as i128 * i128::from(self.cpu_milli);
        self.level = filled.min(Self::most(self.cpu_milli)) - processor_time.as_nanos() as i128 * 1000;
        let owed = (-self.level).max(0) as u128;
        Duration::from_nanos(u64::try_from(owed.div_ceil(u128::from(self.cpu_milli))).unwrap_or(u64::MAX))
    }

    fn most(cpu_milli: u32) -> i128 {
        PERIOD.as_nanos() as i128 * i128::from(cpu_milli)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_of_one_period_is_free_and_more_is_slept_off() {
        // A quarter of a core: 25 ms in each 100.
        let mut pace = Pace::new(250, ms(5000));
        assert_eq!(pace.used(ms(5010), ms(10)), ms(0));
        // The bucket had 17.5 ms after ten that filled it by 2.5.
        assert_eq!(pace.used(ms(5020), ms(20)), ms(10));
        // Slept as told: it is empty, and what a run takes is owed.
        assert_eq!(pace.used(ms(5030), ms(0)), ms(0));
        assert_eq!(pace.used(ms(5080), ms(50)), ms(150));
        // What was not used for long is worth one period.
        assert_eq!(pace.used(ms(60_000), ms(25)), ms(0));
        assert_eq!(pace.used(ms(60_000), ms(1)), ms(4));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut pace = Pace::new(1000, ms(1000));
        assert_eq!(pace.used(ms(1000), ms(100)), ms(0));
        assert_eq!(pace.used(ms(500), ms(1)), ms(1));
        assert_eq!(pace.used(ms(1000), ms(0)), ms(1));
    }

    proptest! {
        /// Who sleeps as told uses, up to the end of each sleep, no more than its share and one burst.
        #[test]
        fn the_share_holds_over_any_runs(
            cpu_milli in 1u32..8000,
            runs in prop::collection::vec((0u64..3_000_000_000, 0u64..3_000_000_000, 1u64..9), 1..60),
        ) {
            let (mut now, mut used) = (Duration::ZERO, Duration::ZERO);
            let mut pace = Pace::new(cpu_milli, now);
            for (idle_ns, run_ns, cores) in runs {
                now += Duration::from_nanos(idle_ns) + Duration::from_nanos(run_ns);
                let took = Duration::from_nanos(run_ns * cores);
                used += took;
                now += pace.used(now, took);
                let share = (now + PERIOD).as_nanos() * u128::from(cpu_milli);
                prop_assert!(used.as_nanos() * 1000 <= share, "{used:?} by {now:?}");
            }
        }

        /// Who stays below its share is never held up.
        #[test]
        fn who_keeps_below_its_share_never_sleeps(cpu_milli in 1u32..8000, runs in prop::collection::vec(1u64..100, 1..60)) {
            let mut now = Duration::ZERO;
            let mut pace = Pace::new(cpu_milli, now);
            for run in runs {
                now += Duration::from_millis(run);
                let took = Duration::from_nanos(run * 1000 * u64::from(cpu_milli));
                prop_assert_eq!(pace.used(now, took), Duration::ZERO);
            }
        }
    }
}
