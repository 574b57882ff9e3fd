//! What goes to stdout: tables for people, JSON and YAML for scripts.

use std::io::{self, Write as _};

use comfy_table::{ColumnConstraint, Table as Comfy, Width, presets};
use muster_shared::id::UnixMs;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Attempt as _, Failure, Result};

/// How `get` and `describe` print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// More columns for people.
    Wide,
    /// JSON: a list, or one object where a name is given.
    Json,
    /// YAML: one document for each object.
    Yaml,
}

/// How commands print that have one thing to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TextOrJson {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
}

/// Writes a text to stdout as it is.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::quiet()),
        written => written.attempt(|| "cannot write the output"),
    }
}

/// Writes a line to stdout.
pub fn print_line(line: impl std::fmt::Display) -> Result<()> {
    print(&format!("{line}\n"))
}

/// Writes a value to stdout as indented JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).attempt(|| "cannot write JSON")?;
    print_line(json)
}

/// Writes values to stdout as YAML documents, separated by `---`.
pub fn print_yaml<T: Serialize>(values: &[T]) -> Result<()> {
    let documents = values.iter().map(|value| serde_saphyr::to_string(value).attempt(|| "cannot write YAML"));
    print(&documents.collect::<Result<Vec<_>>>()?.join("---\n"))
}

/// Rows under a header, the first column being the row's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    header: Vec<&'static str>,
    /// In the order in which they are printed.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// Header and rows as lines.
    pub fn render(&self) -> String {
        let mut table = bare();
        table.set_header(&self.header);
        table.add_rows(&self.rows);
        lines(table)
    }

    /// The widest cell of each column, the title included.
    pub fn widths(&self) -> Vec<usize> {
        let width = |at: usize, title: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).fold(title.len(), usize::max)
        };
        self.header.iter().enumerate().map(|(at, title)| width(at, title)).collect()
    }

    /// Rows without the header, in columns of at least these widths.
    pub fn render_rows(&self, widths: &[usize]) -> String {
        let mut table = bare();
        table.add_rows(&self.rows);
        for (column, width) in table.column_iter_mut().zip(widths) {
            let width = u16::try_from(width + usize::from(GAP)).unwrap_or(u16::MAX);
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        lines(table)
    }

    /// Header and rows as lines, in columns of at least these widths.
    pub fn render_within(&self, widths: &[usize]) -> String {
        let header = self.header.iter().map(|title| (*title).to_owned()).collect();
        let headed =
            Self { header: self.header.clone(), rows: std::iter::once(header).chain(self.rows.clone()).collect() };
        headed.render_rows(widths)
    }
}

/// Spaces between columns.
const GAP: u16 = 3;

fn bare() -> Comfy {
    let mut table = Comfy::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table
}

fn lines(mut table: Comfy) -> String {
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, GAP));
    });
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Lines of "key   value", aligned, for one thing.
#[derive(Debug, Default)]
pub struct Facts(Vec<Vec<String>>);

impl Facts {
    /// Adds a line.
    pub fn add(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push(vec![key.to_owned(), one_line(&value.to_string())]);
    }

    /// The lines.
    pub fn render(&self) -> String {
        let mut table = bare();
        table.add_rows(&self.0);
        lines(table)
    }
}

/// What a device or a server wrote must not move the cursor or start a new row.
pub fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A value that may be missing.
pub fn or_dash(value: Option<impl std::fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The current time.
pub fn now_ms() -> UnixMs {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).unwrap_or(0)
}

/// `2026-01-31T12:00:00Z`.
pub fn date(at_ms: UnixMs) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|time| time.format(&Rfc3339).ok());
    date.unwrap_or_else(|| format!("{at_ms} ms"))
}

/// How long ago, in one unit: `5s`, `3m`, `2h`, `9d`.
pub fn age(at_ms: UnixMs, now_ms: UnixMs) -> String {
    span(now_ms.saturating_sub(at_ms) / 1000)
}

/// A number of seconds in its largest whole unit.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// `10.4 KiB`.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_columns_without_trailing_spaces() {
        let mut table = Table::new(&["NAME", "READY"]);
        table.row(["digits".to_owned(), "1/1".to_owned()]);
        table.row(["a\u{1b}[2J\nb".to_owned(), "-".to_owned()]);
        assert_eq!(table.render(), "NAME      READY\ndigits    1/1\na [2J b   -\n");
        assert_eq!(table.widths(), [7, 5]);
        table.rows.truncate(1);
        assert_eq!(table.render_rows(&[7, 5]), "digits    1/1\n");
        assert_eq!(table.render_within(&[8, 5]), "NAME       READY\ndigits     1/1\n");
    }

    #[test]
    fn times_and_sizes_are_short() {
        assert_eq!(date(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!([0, 59, 60, 3_600, 90_000].map(span), ["0s", "59s", "1m", "1h", "1d"]);
        assert_eq!(age(5_000, 1_000), "0s");
        assert_eq!(bytes(10_692), "10.44 KiB");
    }
}
