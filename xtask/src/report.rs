//! What a command found: a table for people, then one line of JSON for programs.

use anyhow::bail;
use muster_world::rows::{self, Row};

/// What a figure shall be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// It is told, not judged.
    None,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Does something; where it fails, that is a row.
    pub fn try_to<T>(&mut self, name: &str, what: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        match what() {
            Ok(done) => Some(done),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.rows.push(Row { goal: WORKS.to_owned(), ..Row::played(name, false, format!("{error:#}")) });
                None
            }
        }
    }

    /// Something works.
    pub fn shown(&mut self, name: &str, note: &str) {
        self.rows.push(Row { goal: WORKS.to_owned(), ..Row::played(name, true, note) });
    }

    /// A figure, its unit in its name, and what it shall be.
    pub fn figure(&mut self, name: &str, ours: f64, goal: Goal, note: &str) {
        let (ok, goal) = match goal {
            Goal::AtMost(most) => (ours <= most, format!("≤ {most}")),
            Goal::None => (true, String::new()),
        };
        self.rows.push(Row { ours: Some(ours), goal, ..Row::played(name, ok, note) });
    }

    /// Prints all of it; an error if a row is not as it shall be.
    pub fn print(&self, command: &str) -> anyhow::Result<()> {
        println!();
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for Row { name, ok, ours, goal, note, .. } in &self.rows {
            let ours = ours.map(figure).unwrap_or_default();
            let mark = if *ok { "ok" } else { "MISSED" };
            // Of a failure that took many lines, the first says what was attempted.
            let note = note.lines().next().unwrap_or_default();
            println!("{name:<width$}  {mark:<6}  {ours:>9}  {goal:<8}  {note}");
        }
        match rows::tell(command, &self.rows) {
            0 => Ok(()),
            missed => bail!("{missed} of {} rows are not as they shall be", self.rows.len()),
        }
    }
}

const WORKS: &str = "works";

/// Sizes and times with two digits behind the point; differences are far smaller.
fn figure(figure: f64) -> String {
    if figure != 0.0 && figure.abs() < 0.01 { format!("{figure:.1e}") } else { format!("{figure:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_an_error() {
        let mut report = Report::default();
        report.figure("size", 19.5, Goal::AtMost(20.0), "");
        report.figure("time", 19.5, Goal::None, "");
        report.shown("it runs", "");
        report.print("test").expect("all is well");
        assert_eq!(report.try_to("it fails", || -> anyhow::Result<()> { bail!("no") }), None);
        assert!(report.print("test").is_err());
        let mut report = Report::default();
        report.figure("size", 20.5, Goal::AtMost(20.0), "");
        assert!(report.print("test").is_err());
    }
}
