//! Those who were not let in: how many from where, so that guessing is slow and is seen, and costs
//! neither memory without end nor a write to the database each.
//!
//! Only failures count. A device with a good claim is let in whatever else comes from its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures from one address in [`WINDOW`] that are answered with the reason.
const FAILURES_MAX: u32 = 20;
/// Failures from all addresses in [`WINDOW`] that are answered with the reason.
const FAILURES_TOGETHER_MAX: u32 = 2_000;
/// The time that failures count in, and how often an address is written of.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are told apart; the rest count together.
const ADDRESSES_MAX: usize = 4096;
/// Addresses written of at a time; the rest in one line.
const WRITTEN_MAX: usize = 32;

/// How many were refused lately, by address.
#[derive(Default)]
pub struct Refusals(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    by_address: HashMap<IpAddr, Count>,
    /// Of addresses for which there was no room, and all together.
    others: Count,
    together: Count,
}

#[derive(Default)]
struct Count {
    /// Since when [`Count::failures`] are counted.
    since: Option<Instant>,
    failures: u32,
    unwritten: u64,
    written: Option<Instant>,
    why: String,
}

impl Count {
    fn add(&mut self, now: Instant) -> u32 {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    fn is_due(&self, now: Instant) -> bool {
        self.unwritten > 0 && self.written.is_none_or(|written| now.duration_since(written) >= WINDOW)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.unwritten == 0 && self.since.is_none_or(|since| now.duration_since(since) >= WINDOW)
    }
}

impl Refusals {
    /// Counts a failure; false: there were too many, and it is not worth an answer.
    pub fn count(&self, address: IpAddr, why: &str, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        if counts.by_address.len() >= ADDRESSES_MAX && !counts.by_address.contains_key(&address) {
            counts.by_address.retain(|_, count| !count.is_over(now));
        }
        let room = counts.by_address.len() < ADDRESSES_MAX || counts.by_address.contains_key(&address);
        let count = if room { counts.by_address.entry(address).or_default() } else { &mut counts.others };
        count.unwritten = count.unwritten.saturating_add(1);
        if count.why != why {
            why.clone_into(&mut count.why);
        }
        let own = count.add(now);
        counts.together.add(now) <= FAILURES_TOGETHER_MAX && own <= FAILURES_MAX
    }

    /// What is to be written down now: one line for each address, at most once a minute.
    pub fn due(&self, now: Instant) -> Vec<String> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut lines, mut more, mut more_addresses) = (Vec::new(), 0u64, 0u64);
        for (address, count) in counts.by_address.iter_mut().filter(|(_, count)| count.is_due(now)) {
            if lines.len() < WRITTEN_MAX {
                lines.push(format!("{} refused from {address}: {}", tries(count.unwritten), count.why));
            } else {
                more = more.saturating_add(count.unwritten);
                more_addresses += 1;
            }
            count.unwritten = 0;
            count.written = Some(now);
        }
        if counts.others.is_due(now) {
            more = more.saturating_add(counts.others.unwritten);
            counts.others.unwritten = 0;
            counts.others.written = Some(now);
        }
        if more > 0 {
            lines.push(format!("{} refused from {more_addresses} or more other addresses", tries(more)));
        }
        counts.by_address.retain(|_, count| !count.is_over(now));
        lines
    }
}

fn tries(number: u64) -> String {
    if number == 1 { "1 try to enrol was".to_owned() } else { format!("{number} tries to enrol were") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_throttled_by_address_and_written_once_a_minute() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let (one, other) = ("192.0.2.1".parse().expect("an address"), "192.0.2.2".parse().expect("an address"));
        let answered = (0..1_000).filter(|_| refusals.count(one, "no claim", now)).count();
        assert_eq!(answered, FAILURES_MAX as usize);
        assert!(refusals.count(other, "expired", now));
        let mut lines = refusals.due(now);
        lines.sort();
        assert_eq!(
            lines,
            [
                "1 try to enrol was refused from 192.0.2.2: expired",
                "1000 tries to enrol were refused from 192.0.2.1: no claim"
            ]
        );
        refusals.count(one, "no claim", now);
        assert!(refusals.due(now + WINDOW / 2).is_empty());
        assert_eq!(refusals.due(now + WINDOW).len(), 1);
        assert!(refusals.count(one, "no claim", now + WINDOW));
    }

    #[test]
    fn many_addresses_take_bounded_memory_and_few_lines() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        let address = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        let answered =
            (0..3 * ADDRESSES_MAX as u32).filter(|number| refusals.count(address(*number), "no", now)).count();
        assert!(answered <= FAILURES_TOGETHER_MAX as usize);
        assert_eq!(refusals.0.lock().expect("held by nobody").by_address.len(), ADDRESSES_MAX);
        assert_eq!(refusals.due(now).len(), WRITTEN_MAX + 1);
        assert!(refusals.due(now + WINDOW).is_empty());
        assert!(refusals.0.lock().expect("held by nobody").by_address.is_empty());
    }
}
