//! What a command that compares, measures or plays says last: one line of JSON, for programs.

use serde::Serialize;

/// One thing that was compared, measured or played.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Row {
    /// What it is; of a figure also the unit.
    pub name: String,
    /// It is as it shall be.
    pub ok: bool,
    /// What was measured of Muster.
    pub ours: Option<f64>,
    /// The same of whom it is compared with.
    pub peer: Option<f64>,
    /// Ours divided by the peer's.
    pub ratio: Option<f64>,
    /// What the figure, or the ratio, shall be; empty where it is only told.
    pub goal: String,
    /// What else there is to say.
    pub note: String,
}

impl Row {
    /// Something that goes as it should, or does not; nothing is measured.
    pub fn played(name: impl Into<String>, ok: bool, note: impl Into<String>) -> Self {
        Self { name: name.into(), ok, note: note.into(), ..Self::default() }
    }
}

/// Prints the line. Gives back how many rows are not as they shall be.
pub fn tell(command: &str, rows: &[Row]) -> usize {
    println!("{}", serde_json::json!({ "command": command, "rows": rows }));
    rows.iter().filter(|row| !row.ok).count()
}
