//! What the command says: a table for people, then one line of JSON for programs.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;

/// Everything that was shown.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

/// As `cargo xtask bench` has it; nothing here has a peer.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    ok: bool,
    ours: Option<f64>,
    peer: Option<f64>,
    ratio: Option<f64>,
    goal: &'static str,
    note: String,
}

impl Report {
    /// Does something; where it fails, that is a row.
    pub fn try_to<T>(&mut self, name: &str, what: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
        eprintln!("{name}");
        match what() {
            Ok(done) => Some(done),
            Err(error) => {
                eprintln!("{name}: {error:#}");
                self.row(name, false, None, &format!("{error:#}"));
                None
            }
        }
    }

    /// Something works; it took so long.
    pub fn shown(&mut self, name: &str, took: Duration, note: &str) {
        self.row(name, true, Some(took.as_secs_f64()), note);
    }

    /// Seconds, told and not judged.
    pub fn figure(&mut self, name: &str, seconds: f64, note: &str) {
        self.row(name, true, Some(seconds), note);
    }

    fn row(&mut self, name: &str, ok: bool, ours: Option<f64>, note: &str) {
        let ours = ours.map(|seconds| (seconds * 10.0).round() / 10.0);
        let (name, note) = (name.to_owned(), note.to_owned());
        self.rows.push(Row { name, ok, ours, peer: None, ratio: None, goal: "works", note });
    }

    /// Prints all of it; an error if something failed.
    pub fn print(&self) -> anyhow::Result<()> {
        println!();
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        for Row { name, ok, ours, note, .. } in &self.rows {
            let ours = ours.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default();
            let mark = if *ok { "ok" } else { "FAILED" };
            let note = note.lines().next().unwrap_or_default();
            println!("{name:<width$}  {mark:<6}  {ours:>9}  {note}");
        }
        println!("{}", serde_json::json!({ "command": "boot", "rows": self.rows }));
        let failed = self.rows.iter().filter(|row| !row.ok).count();
        if failed > 0 {
            bail!("{failed} of {} rows failed", self.rows.len());
        }
        Ok(())
    }
}
