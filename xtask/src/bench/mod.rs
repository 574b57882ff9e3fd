//! `cargo xtask bench NAME`: Muster beside its peers, in one run on one machine, since absolute figures
//! do not carry from machine to machine. A table for people, one JSON object for programs.

mod serving;

use clap::Subcommand;
use muster_world::rows::{self, Row};

/// What is compared.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// A plain inference server against FastAPI, MLServer, KServe and PyTriton
    Serving(serving::Options),
}

/// Measures; an error only if it could not.
pub fn run(bench: &Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Serving(options) => serving::run(options),
    }
}

/// What the ratio shall be.
#[derive(Debug, Clone, Copy)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Told, not judged.
    None,
}

impl Goal {
    fn met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
            Self::None => true,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(least) => write!(formatter, "≥ {least}×"),
            Self::AtMost(most) => write!(formatter, "≤ {most}×"),
            Self::None => Ok(()),
        }
    }
}

/// One comparison; it is as it shall be where both were measured, and the goal is met if there is one.
fn compared(name: String, ours: Option<f64>, peer: Option<f64>, goal: Goal, note: String) -> Row {
    let ratio = ours.zip(peer).filter(|(_, peer)| *peer > 0.0).map(|(ours, peer)| ours / peer);
    let ok = ratio.is_some_and(|ratio| goal.met(ratio));
    let [ours, peer, ratio] = [ours, peer, ratio].map(|figure| figure.map(four_digits));
    Row { name, ok, ours, peer, ratio, goal: goal.to_string(), note }
}

/// No measurement is better than four digits.
fn four_digits(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return figure;
    }
    let scale = 10_f64.powi(3 - figure.abs().log10().floor() as i32);
    (figure * scale).round() / scale
}

/// The rows for people, then the last line for programs.
fn tell(command: &str, rows: &[Row]) {
    let figure = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |figure| figure.to_string());
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    println!("\n{:<width$}  {:>9}  {:>9}  {:>8}  {:<8}", "comparison", "ours", "peer", "ratio", "goal");
    for row in rows {
        let verdict = match (row.ok, row.goal.is_empty()) {
            (true, false) => "met",
            (true, true) => "",
            (false, _) if row.ratio.is_none() => "not measured",
            (false, _) => "MISSED",
        };
        let ratio = figure(row.ratio);
        let (ours, peer) = (figure(row.ours), figure(row.peer));
        let line = format!("{:<width$}  {ours:>9}  {peer:>9}  {ratio:>8}  {:<8}  {verdict}", row.name, row.goal);
        println!("{}", line.trim_end());
        if !row.note.is_empty() {
            println!("    {}", row.note.replace('\n', "\n    "));
        }
    }
    rows::tell(command, rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_ok_when_its_ratio_meets_the_goal() {
        let row = |ours, peer, goal| compared("x".to_owned(), ours, peer, goal, String::new());
        assert!(row(Some(300.0), Some(100.0), Goal::AtLeast(3.0)).ok);
        assert!(!row(Some(299.0), Some(100.0), Goal::AtLeast(3.0)).ok);
        assert!(row(Some(1.0), Some(10.0), Goal::AtMost(0.1)).ok);
        assert!(!row(Some(1.1), Some(10.0), Goal::AtMost(0.1)).ok);
        assert!(row(Some(1.0), Some(100.0), Goal::None).ok);
        assert!(!row(None, Some(100.0), Goal::None).ok, "not measured");
        assert!(!row(Some(1.0), None, Goal::AtMost(0.1)).ok, "not measured");
    }

    #[test]
    fn figures_are_cut_to_what_is_known() {
        assert_eq!(four_digits(25_726.31), 25_730.0);
        assert_eq!(four_digits(0.137_449), 0.1374);
        assert_eq!(four_digits(0.0), 0.0);
    }
}
