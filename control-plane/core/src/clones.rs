//! Two agents with one identity, told from their signed reports.
//!
//! An agent's run never comes back once the next one has begun. A run that does, with a report that is
//! both further on and later than what the other run last said, and this twice in a row, means that two
//! agents live. Old reports that a broker plays again or in another order have the numbers and the times
//! that they were signed with, so they prove nothing.

use std::collections::VecDeque;

use muster_shared::id::{BootId, UnixMs};

/// Returns that prove a second agent; one could be a device whose clock was set back and forth.
const RETURNS_MIN: u32 = 2;
/// Runs of one device that are compared; the oldest give way.
const RUNS_MAX: usize = 8;

/// One run of an agent, as far as it was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    boot: BootId,
    sequence: u64,
    at_ms: UnixMs,
}

/// What was heard of one device's runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// The one heard last is the last.
    runs: VecDeque<Run>,
    returns: u32,
}

impl Runs {
    /// Takes a verified report in; true: there are two agents.
    pub fn hear(&mut self, boot: BootId, sequence: u64, at_ms: UnixMs) -> bool {
        let run = Run { boot, sequence, at_ms };
        let current = self.runs.back().cloned();
        if current.as_ref().is_some_and(|current| at_ms <= current.at_ms) {
            // It may have been under way for long: only what was signed later than all before tells who lives.
            return false;
        }
        let known = self.runs.iter().position(|known| known.boot == boot);
        if known.and_then(|at| self.runs.get(at)).is_some_and(|known| known.sequence >= sequence) {
            return false;
        }
        match known {
            Some(at) => drop(self.runs.remove(at)),
            None if self.runs.len() >= RUNS_MAX => drop(self.runs.pop_front()),
            None => {}
        }
        self.runs.push_back(run);
        if known.is_some() && current.is_some_and(|current| current.boot != boot) {
            self.returns = self.returns.saturating_add(1);
        }
        self.returns >= RETURNS_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(reports: &[(u8, u64, UnixMs)]) -> bool {
        let mut runs = Runs::default();
        reports
            .iter()
            .fold(false, |cloned, (boot, sequence, at_ms)| runs.hear(BootId([*boot; 16]), *sequence, *at_ms) || cloned)
    }

    #[test]
    fn two_agents_that_take_turns_are_found() {
        assert!(heard(&[(1, 5, 100), (2, 1, 110), (1, 6, 120), (2, 2, 130)]));
        assert!(heard(&[(1, 5, 100), (2, 1, 110), (1, 6, 120), (1, 7, 125), (2, 2, 130), (1, 8, 140)]));
    }

    #[test]
    fn one_return_is_not_enough() {
        assert!(!heard(&[(1, 5, 100), (2, 1, 110), (1, 6, 120), (1, 7, 130)]));
    }

    #[test]
    fn a_device_that_starts_again_and_again_is_one_device() {
        let reports: Vec<_> = (0..100u8).map(|boot| (boot, 1, u64::from(boot) * 10)).collect();
        assert!(!heard(&reports));
        // Its clock starts in 1970 each time.
        assert!(!heard(&(0..100u8).map(|boot| (boot, 1, 5)).collect::<Vec<_>>()));
    }

    #[test]
    fn a_broker_that_holds_back_repeats_and_mixes_reports_marks_nobody() {
        // Every report that an honest device ever signed: four runs of five reports.
        let signed: Vec<(u8, u64, UnixMs)> = (0..4u8)
            .flat_map(|boot| (1..6u64).map(move |sequence| (boot, sequence, u64::from(boot) * 100 + sequence)))
            .collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..20_000 {
            let mut played = Vec::new();
            for _ in 0..30 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                played.push(signed[(random % signed.len() as u64) as usize]);
            }
            assert!(!heard(&played), "{played:?}");
        }
    }
}
