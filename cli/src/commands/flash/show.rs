//! How far the cards are, on the terminal; where there is none, a line for each stage.

use std::sync::Mutex;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use muster_provisioning::flash::Stage;
use muster_provisioning::flash::progress::{Meter, Pace};
use muster_provisioning::flash::target::Target;

use crate::output;

/// One line for each card.
pub struct Show {
    began: Instant,
    total: Option<u64>,
    all: MultiProgress,
    lines: Vec<Mutex<Line>>,
}

struct Line {
    name: String,
    bar: ProgressBar,
    meter: Meter,
    stage: Option<Stage>,
}

impl Show {
    /// Lines for these cards; `total`: the bytes that each gets, where that is known.
    pub fn new(targets: &[Target], total: Option<u64>) -> Self {
        let all = MultiProgress::new();
        let line = |target: &Target| {
            let bar = all.add(ProgressBar::new(total.unwrap_or(0)));
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(target.name());
            Mutex::new(Line { name: target.name(), bar, meter: Meter::default(), stage: None })
        };
        let lines = targets.iter().map(line).collect();
        Self { began: Instant::now(), total, all, lines }
    }

    /// A card is so far.
    pub fn tell(&self, card: usize, stage: Stage, done: u64) {
        let Some(Ok(mut line)) = self.lines.get(card).map(Mutex::lock) else { return };
        let total = self.total.filter(|_| matches!(stage, Stage::Writing | Stage::Verifying));
        let pace = line.meter.at(self.began.elapsed(), done, total);
        if line.stage != Some(stage) {
            line.stage = Some(stage);
            if line.bar.is_hidden() {
                anstream::eprintln!("{}: {}", line.name, word(stage));
            }
        }
        line.bar.set_position(if total.is_some() { done } else { 0 });
        line.bar.set_message(told(stage, done, total, pace));
    }

    /// Takes the lines away.
    pub fn end(&self) {
        // A terminal that cannot be cleared is no reason to fail.
        let _ = self.all.clear();
    }
}

/// While a packed image is read through.
pub fn looking() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("reading the image through: {binary_bytes}, {binary_bytes_per_sec}")
    {
        bar.set_style(style);
    }
    bar
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Checking => "looking whether it holds what it says",
        Stage::Writing => "writing",
        Stage::Verifying => "reading back",
        Stage::Finishing => "finishing",
    }
}

fn told(stage: Stage, done: u64, total: Option<u64>, pace: Pace) -> String {
    if !matches!(stage, Stage::Writing | Stage::Verifying) {
        return word(stage).to_owned();
    }
    let of = total.map(|total| format!(" of {}", output::bytes(total))).unwrap_or_default();
    let left = pace.left.map(|left| format!(", {} left", output::span(left.as_secs()))).unwrap_or_default();
    // Rates are no negative numbers.
    format!("{} {}{of}, {}/s{left}", word(stage), output::bytes(done), output::bytes(pace.rate as u64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_says_rate_and_time_left() {
        let pace = Pace { rate: 20_971_520.0, left: Some(Duration::from_secs(130)) };
        let line = told(Stage::Writing, 1 << 30, Some(4 << 30), pace);
        assert_eq!(line, "writing 1.00 GiB of 4.00 GiB, 20.00 MiB/s, 2m left");
        let line = told(Stage::Verifying, 1 << 30, None, Pace { rate: 0.0, left: None });
        assert_eq!(line, "reading back 1.00 GiB, 0 B/s");
        assert_eq!(told(Stage::Finishing, 5, Some(9), pace), "finishing");
    }
}
