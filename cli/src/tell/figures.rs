//! The resource figures as text: the share, R and A, rates and latencies.

use muster_shared::figures::Figures;

use crate::output::or_dash;

/// The titles of [`cells`].
pub const HEADER: [&str; 6] = ["SHARE", "REQ/S", "R CORE-MS", "A CORES", "P50", "P99"];

/// One cell under each title of [`HEADER`].
pub fn cells(figures: Option<&Figures>) -> [String; 6] {
    let cell = |value: Option<f64>| or_dash(value.map(number));
    let latency = |value: Option<f64>| or_dash(value.map(milliseconds));
    [
        or_dash(figures.and_then(|figures| figures.share).map(percent)),
        cell(figures.map(|figures| figures.requests_per_second)),
        cell(figures.and_then(|figures| figures.core_ms_per_prediction)),
        cell(figures.map(|figures| figures.cores_demanded)),
        latency(figures.and_then(|figures| figures.p50_ms)),
        latency(figures.and_then(|figures| figures.p99_ms)),
    ]
}

/// In one phrase: `share 12.5%, 40.0 req/s, R 25.0 core-ms, A 1.00 cores`. What is not known is left
/// out.
pub fn phrase(figures: &Figures) -> String {
    let parts = [
        figures.share.map(|share| format!("share {}", percent(share))),
        Some(format!("{} req/s", number(figures.requests_per_second))),
        figures.core_ms_per_prediction.map(|each| format!("R {} core-ms", number(each))),
        Some(format!("A {} cores", number(figures.cores_demanded))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A latency: `1.50 ms`.
fn milliseconds(value: f64) -> String {
    format!("{} ms", number(value))
}

fn percent(share: f64) -> String {
    format!("{}%", number(share * 100.0))
}

/// The last digits that a small figure is given.
const DECIMALS_MAX: i32 = 9;

/// At least three significant digits: everywhere a figure is shown, it is the same within 1 %.
fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = 2_i32.saturating_sub(magnitude).clamp(0, DECIMALS_MAX) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_three_significant_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.004_2, "0.00420"),
            (1.0, "1.00"),
            (25.04, "25.0"),
            (999.96, "1000"),
            (12_345.6, "12346"),
            (1e-12, "0.000000000"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash_or_left_out() {
        let figures = Figures {
            window_seconds: 60.0,
            share: Some(0.125),
            requests_per_second: 40.0,
            core_ms_per_prediction: Some(25.0),
            cores_demanded: 1.0,
            p50_ms: Some(1.5),
            p99_ms: None,
        };
        assert_eq!(cells(Some(&figures)), ["12.5%", "40.0", "25.0", "1.00", "1.50 ms", "-"]);
        assert_eq!(cells(None), ["-"; 6]);
        assert_eq!(phrase(&figures), "share 12.5%, 40.0 req/s, R 25.0 core-ms, A 1.00 cores");
        let unasked = Figures {
            share: None,
            requests_per_second: 0.0,
            core_ms_per_prediction: None,
            cores_demanded: 0.0,
            p50_ms: None,
            ..figures
        };
        assert_eq!(phrase(&unasked), "0 req/s, A 0 cores");
    }
}
