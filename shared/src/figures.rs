//! The resource figures that everyone sees, from one formula: telemetry, `muster explain`, the
//! dashboard and `/metrics` show the same numbers.
//!
//! R = C / G, computing resources used ÷ results generated; A = R / T, resources demanded over a time.

use serde::{Deserialize, Serialize};

/// The share of its grant that a replica is planned to use: the rest absorbs bursts.
pub const TARGET_USE: f64 = 0.7;

/// What one model on one device uses and gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Figures {
    /// The time they are taken over, in seconds.
    pub window_seconds: f64,
    /// The *share* of the device's processors that it was granted, 0 to 1; none: the device has yet to
    /// say what it is.
    pub share: Option<f64>,
    /// Predictions asked for in a second.
    pub requests_per_second: f64,
    /// R: core-milliseconds for one prediction; none: no prediction succeeded.
    pub core_ms_per_prediction: Option<f64>,
    /// A: cores demanded, requests per second × R ÷ 1000.
    pub cores_demanded: f64,
    /// Median latency in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile of latency in milliseconds.
    pub p99_ms: Option<f64>,
}

/// What was counted in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Predictions asked for.
    pub requests: u64,
    /// Those that failed by our fault or the model's.
    pub errors: u64,
    /// Processor time of the good ones, in microseconds.
    pub cpu_us: u64,
}

impl Counted {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.cpu_us = self.cpu_us.saturating_add(other.cpu_us);
    }

    /// R: core-milliseconds for one good prediction.
    pub fn core_ms_per_prediction(self) -> Option<f64> {
        let good = self.requests.saturating_sub(self.errors);
        (good > 0).then(|| self.cpu_us as f64 / 1000.0 / good as f64)
    }

    /// Predictions asked for in a second.
    pub fn requests_per_second(self, window_ms: u64) -> f64 {
        if window_ms == 0 { 0.0 } else { self.requests as f64 * 1000.0 / window_ms as f64 }
    }
}

/// A: the cores that so many requests demand.
pub fn cores_demanded(requests_per_second: f64, core_ms_per_prediction: Option<f64>) -> f64 {
    requests_per_second * core_ms_per_prediction.unwrap_or(0.0) / 1000.0
}

/// The replicas that a demand of so many cores needs, each granted so many thousandths of a core and
/// planned to use [`TARGET_USE`] of them. At least one.
pub fn replicas_needed(cores: f64, granted_milli: u32) -> u32 {
    let each = f64::from(granted_milli) / 1000.0 * TARGET_USE;
    if each <= 0.0 { 1 } else { (cores / each).ceil().clamp(1.0, f64::from(u32::MAX)) as u32 }
}

/// A number as a person writes it: three digits that count, no zeros at the end.
pub fn short(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return "0".to_owned();
    }
    let decimals = (2 - number.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_comes_out() {
        // 40/s × 25 core-ms = 1.0 core; ÷ (500m × 70 %) → 3 replicas.
        let counted = Counted { requests: 400, errors: 0, cpu_us: 400 * 25_000 };
        let (rate, each) = (counted.requests_per_second(10_000), counted.core_ms_per_prediction());
        assert_eq!((rate, each), (40.0, Some(25.0)));
        let cores = cores_demanded(rate, each);
        assert_eq!((cores, replicas_needed(cores, 500)), (1.0, 3));
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            (40.0, "40"),
            (1.0, "1"),
            (0.25, "0.25"),
            (0.123_456, "0.123"),
            (0.000_081_4, "0.0000814"),
            (1234.5, "1234"),
            (99.96, "100"),
            (0.0, "0"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn failures_are_demand_but_no_results() {
        let counted = Counted { requests: 3, errors: 1, cpu_us: 4_000 };
        assert_eq!(counted.core_ms_per_prediction(), Some(2.0));
        assert_eq!(Counted { requests: 1, errors: 1, cpu_us: 0 }.core_ms_per_prediction(), None);
        assert_eq!(Counted::default().requests_per_second(0), 0.0);
        assert_eq!((replicas_needed(0.0, 500), replicas_needed(1.0, 0)), (1, 1));
    }
}
