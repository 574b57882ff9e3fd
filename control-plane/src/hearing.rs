//! Whether we hear devices: their silence counts only while we do. An ingest that stood still, a
//! database that takes nothing, a laptop that slept: trouble of our own is never the loss of devices.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_shared::id::UnixMs;

/// How often ingest says that it runs.
pub const BEAT: Duration = Duration::from_secs(1);
/// After a longer gap between two beats we have missed something.
const GAP_MS: u64 = 5_000;

/// Since when we hear devices without a gap.
#[derive(Debug, Default)]
pub struct Hearing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    since_ms: Option<UnixMs>,
    beat_ms: UnixMs,
    /// What devices said last could not be written down.
    failing: bool,
}

impl Hearing {
    /// Ingest runs.
    pub fn beat(&self, now_ms: UnixMs) {
        let mut state = self.state();
        let gap = now_ms.abs_diff(state.beat_ms) > GAP_MS;
        state.beat_ms = now_ms;
        if state.failing {
            state.since_ms = None;
        } else if gap || state.since_ms.is_none() {
            state.since_ms = Some(now_ms);
        }
    }

    /// What a device said was written down, or could not be for a reason of ours.
    pub fn written(&self, ok: bool) {
        let mut state = self.state();
        state.failing = !ok;
        if !ok {
            state.since_ms = None;
        }
    }

    /// Since when we hear devices without a gap; none: we do not.
    pub fn since_ms(&self, now_ms: UnixMs) -> Option<UnixMs> {
        let state = self.state();
        let runs = now_ms.abs_diff(state.beat_ms) <= GAP_MS;
        state.since_ms.filter(|_| runs && !state.failing)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_failures_are_ours() {
        let hearing = Hearing::default();
        assert_eq!(hearing.since_ms(0), None);
        (10..15).for_each(|second| hearing.beat(second * 1_000));
        assert_eq!(hearing.since_ms(14_500), Some(10_000));
        // Ingest stands still, then goes on.
        assert_eq!(hearing.since_ms(60_000), None);
        hearing.beat(60_000);
        assert_eq!(hearing.since_ms(60_100), Some(60_000));
        // The database takes nothing.
        hearing.written(false);
        hearing.beat(61_000);
        assert_eq!(hearing.since_ms(61_000), None);
        hearing.written(true);
        hearing.beat(62_000);
        assert_eq!(hearing.since_ms(62_500), Some(62_000));
        // The clock is set back by an hour.
        hearing.beat(62_000 + 1_000);
        hearing.beat(10_000);
        assert_eq!(hearing.since_ms(10_000), Some(10_000));
    }
}
