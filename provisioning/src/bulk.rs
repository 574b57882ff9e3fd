//! Many devices at once: their names and labels out of a table, as a spreadsheet saves it.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord, Trim};
use muster_shared::DeviceId;
use muster_shared::id::{LabelText, Labels};

/// Devices in one table.
pub const ROWS_MAX: usize = 10_000;
/// A table of so many is far shorter.
pub const TABLE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Mistakes that are told.
const MISTAKES_MAX: usize = 20;
/// The column with the device's name.
const NAME: &str = "name";

/// One device to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The name that it will have.
    pub name: DeviceId,
    /// The labels that it will have.
    pub labels: Labels,
}

/// What is wrong with a table. Every mistake is told at once, up to a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(Vec<String>);

impl Mistakes {
    fn one(text: impl Into<String>) -> Self {
        Self(vec![text.into()])
    }
}

/// Reads a table: a first line with `name` and labels' keys, then a line for each device. Commas, semicolons or
/// tabs part the columns; an empty cell gives no label.
pub fn read(text: &str) -> Result<Vec<Row>, Mistakes> {
    if text.len() > TABLE_BYTES_MAX {
        return Err(Mistakes::one(format!("the table is longer than {TABLE_BYTES_MAX} bytes")));
    }
    // Spreadsheets of Windows begin with a mark of byte order.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().next().unwrap_or_default();
    let delimiter = [b',', b';', b'\t'].into_iter().max_by_key(|one| first.bytes().filter(|byte| byte == one).count());
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter.filter(|one| first.bytes().any(|byte| byte == *one)).unwrap_or(b','))
        .trim(Trim::All)
        .comment(Some(b'#'))
        .flexible(true)
        .from_reader(text.as_bytes());
    let head = reader.headers().map_err(|error| Mistakes::one(error.to_string()))?.clone();
    let columns = Columns::read(&head)?;
    let mut mistakes = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut lines: BTreeMap<DeviceId, u64> = BTreeMap::new();
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                mistakes.push(error.to_string());
                break;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        match columns.row(&record) {
            Ok(row) => match lines.insert(row.name.clone(), line) {
                None => rows.push(row),
                Some(before) => mistakes.push(format!("line {line}: {} stands in line {before}, too", row.name)),
            },
            Err(what) => mistakes.push(format!("line {line}: {what}")),
        }
        if rows.len() > ROWS_MAX {
            return Err(Mistakes::one(format!("more than {ROWS_MAX} devices: part the table")));
        }
        if mistakes.len() >= MISTAKES_MAX {
            mistakes.push("and maybe more".to_owned());
            break;
        }
    }
    if mistakes.is_empty() && rows.is_empty() {
        mistakes.push("the table names no device".to_owned());
    }
    if mistakes.is_empty() { Ok(rows) } else { Err(Mistakes(mistakes)) }
}

/// Names with a number: `edge-001` to `edge-500`.
pub fn numbered(prefix: &str, count: usize, labels: &Labels) -> Result<Vec<Row>, Mistakes> {
    if !(1..=ROWS_MAX).contains(&count) {
        return Err(Mistakes::one(format!("1 to {ROWS_MAX} devices can be made at once")));
    }
    let width = count.to_string().len();
    let row = |number: usize| {
        let name = format!("{prefix}{number:0width$}").parse();
        let name = name.map_err(|error: muster_shared::id::BadName| Mistakes::one(error.to_string()))?;
        Ok(Row { name, labels: labels.clone() })
    };
    (1..=count).map(row).collect()
}

/// What the columns are.
struct Columns {
    name: usize,
    labels: Vec<(usize, LabelText)>,
}

impl Columns {
    fn read(head: &StringRecord) -> Result<Self, Mistakes> {
        let mut name = None;
        let mut labels: Vec<(usize, LabelText)> = Vec::new();
        for (at, title) in head.iter().enumerate() {
            if title.eq_ignore_ascii_case(NAME) {
                if name.replace(at).is_some() {
                    return Err(Mistakes::one("line 1: two columns are called name"));
                }
            } else if !title.is_empty() {
                let key = title.parse::<LabelText>().map_err(|error| Mistakes::one(format!("line 1: {error}")))?;
                if labels.iter().any(|(_, other)| *other == key) {
                    return Err(Mistakes::one(format!("line 1: two columns are called {key}")));
                }
                labels.push((at, key));
            }
        }
        let none = || Mistakes::one("line 1 has no column called name: write for instance name,site,rack");
        Ok(Self { name: name.ok_or_else(none)?, labels })
    }

    fn row(&self, record: &StringRecord) -> Result<Row, String> {
        let name = record.get(self.name).unwrap_or_default();
        let name = name.parse::<DeviceId>().map_err(|error| error.to_string())?;
        let mut labels = Labels::new();
        for (at, key) in &self.labels {
            let value = record.get(*at).unwrap_or_default();
            if !value.is_empty() {
                labels.insert(key.clone(), value.parse().map_err(|error| format!("{key}: {error}"))?);
            }
        }
        Ok(Row { name, labels })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> String {
        match read(text) {
            Ok(rows) => {
                let labels =
                    |row: &Row| row.labels.iter().map(|(key, value)| format!(" {key}={value}")).collect::<String>();
                rows.iter().map(|row| format!("{}{};", row.name, labels(row))).collect()
            }
            Err(mistakes) => mistakes.to_string(),
        }
    }

    #[test]
    fn tables_are_read_as_spreadsheets_write_them() {
        let cases = [
            ("name,site,rack\nedge-1,north,7\nedge-2,south,\n", "edge-1 rack=7 site=north;edge-2 site=south;"),
            ("\u{feff}Name;site\r\nedge-1;north\r\n\r\n# a word\r\nedge-2\r\n", "edge-1 site=north;edge-2;"),
            ("site\tname\nnorth\tedge-1\n", "edge-1 site=north;"),
            ("name\nedge-1", "edge-1;"),
            ("name,\n\"edge-1\" ,x\n", "edge-1;"),
            (
                "name,site\nedge-1,\"no\"\"rth\"\n",
                "line 2: site: \"no\\\"rth\" is no label: use 1 to 63 of A-Z, a-z, 0-9, _, -, . and /",
            ),
            ("", "line 1 has no column called name: write for instance name,site,rack"),
            ("device,site\na,b\n", "line 1 has no column called name: write for instance name,site,rack"),
            ("name,a b\n", "line 1: \"a b\" is no label: use 1 to 63 of A-Z, a-z, 0-9, _, -, . and /"),
            ("name,a,a\n", "line 1: two columns are called a"),
            ("name,NAME\n", "line 1: two columns are called name"),
            ("name\n", "the table names no device"),
            (
                "name\nedge-1\nEdge-2\nedge-1\n\n",
                "line 3: \"Edge-2\" is no device id: use 1 to 63 of a-z, 0-9 and -\nline 4: edge-1 stands in line 2, too",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(told(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_as_wide_as_the_last_one() {
        let names = |prefix: &str, count: usize| {
            let rows = numbered(prefix, count, &Labels::new()).map_err(|mistakes| mistakes.to_string())?;
            Ok::<_, String>(format!("{} {}", rows[0].name, rows[count - 1].name))
        };
        assert_eq!(names("edge-", 1000), Ok("edge-0001 edge-1000".to_owned()));
        assert_eq!(names("", 9), Ok("1 9".to_owned()));
        assert!(names("Edge", 2).is_err() && names("edge-", 0).is_err() && names("edge-", ROWS_MAX + 1).is_err());
    }

    #[test]
    fn a_table_has_bounds() {
        let rows: String = (0..=ROWS_MAX).map(|number| format!("edge-{number}\n")).collect();
        assert_eq!(told(&format!("name\n{rows}")), "more than 10000 devices: part the table");
        let wrong = "X\n".repeat(100);
        assert_eq!(told(&format!("name\n{wrong}")).lines().count(), MISTAKES_MAX + 1);
        assert!(told(&"x".repeat(TABLE_BYTES_MAX + 1)).contains("longer than"));
    }

    proptest! {
        #[test]
        fn no_table_ends_the_program(text in "(name|site|,|;|\n|\"|[a-z]|\\PC){0,60}") {
            let _ = read(&text);
        }
    }
}
