//! Which replica will answer soonest: what it has to do, times how long it takes.

use muster_shared::DeviceId;

/// Devices whose answers are expected within this much of the soonest one are equals, and take turns.
const EQUAL: f64 = 1.25;

/// A device that could be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which.
    pub device: DeviceId,
    /// Calls that it has already.
    pub in_flight: usize,
    /// How long it takes for one; none: it was not asked lately.
    pub seconds: Option<f64>,
}

/// The device that will answer soonest; equals take turns. One that was not asked lately is taken to
/// be as fast as the fastest, or it would never be known.
pub fn soonest(mut candidates: Vec<Candidate>, turn: u64) -> Option<DeviceId> {
    let known = candidates.iter().filter_map(|candidate| candidate.seconds);
    let fastest = known.min_by(f64::total_cmp).unwrap_or(0.0);
    let wait = |candidate: &Candidate| {
        // Even an instant answer takes longer behind others.
        let seconds = candidate.seconds.unwrap_or(fastest).max(1e-6);
        (candidate.in_flight + 1) as f64 * seconds
    };
    let least = candidates.iter().map(wait).min_by(f64::total_cmp)?;
    candidates.retain(|candidate| wait(candidate) <= least * EQUAL);
    let at = turn.checked_rem(candidates.len() as u64)?;
    Some(candidates.swap_remove(at as usize).device)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name in_flight milliseconds`, the last one `-` where it is not known.
    fn check(candidates: &[&str], turn: u64, expected: Option<&str>) {
        let candidate = |text: &&str| {
            let mut words = text.split(' ');
            let mut word = || words.next().expect("a word");
            Candidate {
                device: word().parse().expect("an id"),
                in_flight: word().parse().expect("a number"),
                seconds: word().parse::<f64>().ok().map(|ms| ms / 1000.0),
            }
        };
        let found = soonest(candidates.iter().map(candidate).collect(), turn);
        assert_eq!(found.as_ref().map(DeviceId::as_str), expected, "{candidates:?}");
    }

    #[test]
    fn the_one_that_answers_soonest_is_asked_and_equals_take_turns() {
        check(&["a 2 -", "b 1 -", "c 0 -"], 0, Some("c"));
        check(&["a 0 -", "b 0 -", "c 0 -"], 0, Some("a"));
        check(&["a 0 -", "b 0 -", "c 0 -"], 4, Some("b"));
        // Three calls on a fast device end before one on a slow one.
        check(&["slow 0 40", "fast 2 10"], 0, Some("fast"));
        check(&["slow 0 40", "fast 4 10"], 0, Some("slow"));
        // A stranger gets a chance.
        check(&["known 1 10", "stranger 0 -"], 0, Some("stranger"));
        check(&["a 0 10", "b 0 11"], 1, Some("b"));
        check(&[], 0, None);
    }
}
