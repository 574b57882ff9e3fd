//! When it is worth telling that something slows the machine down. Pure: the time is passed in.

use std::collections::BTreeMap;

use muster_shared::hardware::Strain;
use muster_shared::id::UnixMs;

/// What has been gone for so long has ended; before that it may be a pause between two.
const ENDS_AFTER_MS: u64 = 60_000;

/// What was told.
#[derive(Debug, Default)]
pub struct Watch {
    /// Strains that were told of, and when each was last seen.
    told: BTreeMap<Strain, UnixMs>,
}

impl Watch {
    /// Looks at what slows the machine down now. Says what began or ended, as a sentence.
    pub fn look(&mut self, now: &[Strain], steady_ms: UnixMs) -> Option<String> {
        let began: Vec<Strain> = now.iter().copied().filter(|strain| !self.told.contains_key(strain)).collect();
        self.told.extend(now.iter().map(|strain| (*strain, steady_ms)));
        let is_over = |seen_ms: &UnixMs| steady_ms.saturating_sub(*seen_ms) >= ENDS_AFTER_MS;
        let ended: Vec<Strain> =
            self.told.iter().filter(|(_, seen_ms)| is_over(seen_ms)).map(|(strain, _)| *strain).collect();
        self.told.retain(|_, seen_ms| !is_over(seen_ms));
        let phrase = |before: &str, strains: &[Strain]| {
            let words: Vec<&str> = strains.iter().map(|strain| strain.words()).collect();
            (!words.is_empty()).then(|| format!("{before}: {}", words.join(", ")))
        };
        let phrases: Vec<String> =
            [phrase("what slows it down", &began), phrase("no longer", &ended)].into_iter().flatten().collect();
        (!phrases.is_empty()).then(|| phrases.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use Strain::{Throttled, UnderVoltage};

    use super::*;

    #[test]
    fn a_strain_is_told_once_and_its_end_after_a_minute() {
        let mut watch = Watch::default();
        let mut look = |now: &[Strain], at_ms| watch.look(now, at_ms);
        assert_eq!(look(&[], 0), None);
        assert_eq!(look(&[UnderVoltage], 10_000).as_deref(), Some("what slows it down: under-voltage"));
        assert_eq!(look(&[UnderVoltage], 20_000), None);
        // A pause is no end.
        assert_eq!(look(&[], 30_000), None);
        assert_eq!(look(&[UnderVoltage], 70_000), None);
        assert_eq!(look(&[], 129_999), None);
        assert_eq!(
            look(&[Throttled], 130_000).as_deref(),
            Some("what slows it down: throttled; no longer: under-voltage")
        );
        assert_eq!(look(&[], 190_000).as_deref(), Some("no longer: throttled"));
        assert_eq!(look(&[], 300_000), None);
    }
}
