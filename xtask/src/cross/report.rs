//! What the command says: a table for people, then one line of JSON for programs.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Serialize;

use super::elf::Anatomy;

/// Crates with less code than this are told together, in bytes.
const SMALL: u64 = 100 * 1024;

/// What a figure shall be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    anatomies: BTreeMap<String, String>,
}

/// As `cargo xtask bench` has it; nothing here has a peer.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    ok: bool,
    ours: Option<f64>,
    peer: Option<f64>,
    ratio: Option<f64>,
    goal: String,
    note: String,
}

impl Report {
    /// Does something; where it fails, that is a row.
    pub fn try_to<T>(&mut self, name: &str, what: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        match what() {
            Ok(done) => Some(done),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.row(name, false, None, "works".to_owned(), &format!("{error:#}"));
                None
            }
        }
    }

    /// Something works.
    pub fn shown(&mut self, name: &str, note: &str) {
        self.row(name, true, None, "works".to_owned(), note);
    }

    /// A figure and what it shall be.
    pub fn figure(&mut self, name: &str, ours: f64, goal: Goal, note: &str) {
        let Goal::AtMost(most) = goal;
        self.row(name, ours <= most, Some(ours), format!("≤ {most}"), note);
    }

    /// What takes the room in a binary.
    pub fn anatomy(&mut self, name: &str, anatomy: &Anatomy) {
        self.anatomies.insert(name.to_owned(), spelled(anatomy));
    }

    fn row(&mut self, name: &str, ok: bool, ours: Option<f64>, goal: String, note: &str) {
        let (name, note) = (name.to_owned(), note.to_owned());
        self.rows.push(Row { name, ok, ours, peer: None, ratio: None, goal, note });
    }

    /// Prints all of it; an error if a row is not as it shall be.
    pub fn print(&self) -> anyhow::Result<()> {
        for (name, text) in &self.anatomies {
            println!("\nwhat is in the agent for {name}, in KiB\n{text}");
        }
        println!();
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for Row { name, ok, ours, goal, note, .. } in &self.rows {
            let ours = ours.map(figure).unwrap_or_default();
            let mark = if *ok { "ok" } else { "MISSED" };
            // Of a failure that took many lines, the first says what was attempted.
            let note = note.lines().next().unwrap_or_default();
            println!("{name:<width$}  {mark:<6}  {ours:>9}  {goal:<8}  {note}");
        }
        println!("{}", serde_json::json!({ "command": "cross", "rows": self.rows }));
        let missed = self.rows.iter().filter(|row| !row.ok).count();
        if missed > 0 {
            bail!("{missed} of {} rows are not as they shall be", self.rows.len());
        }
        Ok(())
    }
}

/// Sizes with two digits behind the point; differences are far smaller.
fn figure(figure: f64) -> String {
    if figure != 0.0 && figure.abs() < 0.01 { format!("{figure:.1e}") } else { format!("{figure:.2}") }
}

fn by_size(mut all: Vec<(&str, u64)>) -> Vec<(&str, u64)> {
    all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    all
}

fn spelled(anatomy: &Anatomy) -> String {
    let line = |(name, bytes): (&str, u64)| format!("{:>8}  {name}\n", bytes / 1024);
    let sections = by_size(anatomy.sections.iter().map(|(name, bytes)| (*name, *bytes)).collect());
    let (large, small): (Vec<_>, Vec<_>) =
        anatomy.crates.iter().map(|(name, bytes)| (name.as_str(), *bytes)).partition(|(_, bytes)| *bytes >= SMALL);
    let rest = format!("{} others", small.len());
    let rest = (rest.as_str(), small.iter().map(|(_, bytes)| bytes).sum());
    let sections: String = sections.into_iter().map(line).collect();
    let crates: String = by_size(large).into_iter().chain([rest]).map(line).collect();
    format!("{sections}of the code:\n{crates}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_an_error() {
        let mut report = Report::default();
        report.figure("size", 19.5, Goal::AtMost(20.0), "");
        report.shown("it runs", "");
        report.print().expect("all is well");
        assert_eq!(report.try_to("it fails", || -> anyhow::Result<()> { bail!("no") }), None);
        assert!(report.print().is_err());
        let mut report = Report::default();
        report.figure("size", 20.5, Goal::AtMost(20.0), "");
        assert!(report.print().is_err());
    }
}
