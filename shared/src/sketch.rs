//! Latencies as a mergeable sketch with a bounded relative error: DDSketch (Masson, Rim, Lee,
//! VLDB 2019) with the logarithmic mapping. Ours rather than a library's because its bytes are
//! part of the protocol and must be checked when they come from a network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Quantiles are right within 1 %.
pub const RELATIVE_ERROR: f64 = 0.01;
/// Buckets of one sketch; beyond that the lowest ones are folded together.
pub const BUCKETS_MAX: usize = 2048;
/// Values are microseconds: 1 µs to about 11 days lie within this index.
const INDEX_MAX: i32 = 1400;

/// A distribution of microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(i32, u64)>", into = "Vec<(i32, u64)>")]
pub struct Sketch {
    buckets: BTreeMap<i32, u64>,
}

/// Bytes that are no sketch: out of range, out of order, too many, or empty buckets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a latency sketch")]
pub struct BadSketch;

impl Sketch {
    /// Adds one value.
    pub fn record(&mut self, micros: u64) {
        *self.buckets.entry(index_of(micros)).or_default() += 1;
        self.fold();
    }

    /// Adds all of another sketch.
    pub fn merge(&mut self, other: &Self) {
        for (index, count) in &other.buckets {
            let bucket = self.buckets.entry(*index).or_default();
            *bucket = bucket.saturating_add(*count);
        }
        self.fold();
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The value below which the share `q` (0 to 1) of all values lies, in microseconds.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = q.clamp(0.0, 1.0) * self.count().checked_sub(1)? as f64;
        let mut seen = 0.0;
        for (index, count) in &self.buckets {
            seen += *count as f64;
            if seen > rank {
                return Some(value_of(*index));
            }
        }
        self.buckets.keys().next_back().map(|index| value_of(*index))
    }

    fn fold(&mut self) {
        while self.buckets.len() > BUCKETS_MAX {
            if let Some((_, lowest)) = self.buckets.pop_first()
                && let Some(mut next) = self.buckets.first_entry()
            {
                *next.get_mut() = next.get().saturating_add(lowest);
            }
        }
    }
}

fn gamma() -> f64 {
    (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR)
}

fn index_of(micros: u64) -> i32 {
    let index = (micros.max(1) as f64).ln() / gamma().ln();
    (index.ceil() as i32).min(INDEX_MAX)
}

fn value_of(index: i32) -> f64 {
    2.0 * gamma().powi(index) / (gamma() + 1.0)
}

impl TryFrom<Vec<(i32, u64)>> for Sketch {
    type Error = BadSketch;

    fn try_from(pairs: Vec<(i32, u64)>) -> Result<Self, BadSketch> {
        let in_order = pairs.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let in_range = pairs.iter().all(|(index, count)| (0..=INDEX_MAX).contains(index) && *count > 0);
        if !in_order || !in_range || pairs.len() > BUCKETS_MAX {
            return Err(BadSketch);
        }
        Ok(Self { buckets: pairs.into_iter().collect() })
    }
}

impl From<Sketch> for Vec<(i32, u64)> {
    fn from(sketch: Sketch) -> Self {
        sketch.buckets.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_within_the_error(mut values in prop::collection::vec(1u64..10_000_000, 1..300), q in 0.0f64..=1.0) {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.record(*value));
            values.sort_unstable();
            let exact = values[(q * (values.len() - 1) as f64) as usize] as f64;
            let got = sketch.quantile(q).expect("not empty");
            prop_assert!((got - exact).abs() <= exact * RELATIVE_ERROR * 1.001 + 1e-9, "{got} for {exact}");
        }

        #[test]
        fn merging_is_the_same_as_recording_together(a in prop::collection::vec(0u64..1_000_000, 0..50), b in prop::collection::vec(0u64..1_000_000, 0..50)) {
            let sketch = |values: &[u64]| {
                let mut sketch = Sketch::default();
                values.iter().for_each(|value| sketch.record(*value));
                sketch
            };
            let mut merged = sketch(&a);
            merged.merge(&sketch(&b));
            prop_assert_eq!(merged, sketch(&[a, b].concat()));
        }
    }

    #[test]
    fn an_empty_sketch_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
    }

    #[test]
    fn forged_buckets_are_refused() {
        for bad in [vec![(-1, 1)], vec![(0, 0)], vec![(5, 1), (5, 1)], vec![(6, 1), (5, 1)], vec![(INDEX_MAX + 1, 1)]] {
            assert_eq!(Sketch::try_from(bad), Err(BadSketch));
        }
    }
}
