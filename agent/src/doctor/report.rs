//! Findings for a person, as a table with next moves, and for a program, as one line. Pure.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, Level};

/// The table.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|it| it.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, level, text: found, next, .. } in findings {
        // What a parser says may have several lines.
        let (level, found) = (level.word(), found.trim_end().replace('\n', &format!("\n{:8} {:width$}  ", "", "")));
        // A `String` takes whatever is written.
        let _ = writeln!(text, "{level:<8} {check:<width$}  {found}");
        if let Some(next) = next {
            let _ = writeln!(text, "{:8} {:width$}  → {next}", "", "");
        }
    }
    let count = |level| findings.iter().filter(|it| it.level == level).count();
    let verdict = match (count(Level::Fault), count(Level::Warning)) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, warnings) => format!("nothing keeps this device from its work; {}", number(warnings, "warning")),
        (faults, 0) => number(faults, "fault"),
        (faults, warnings) => format!("{}, {}", number(faults, "fault"), number(warnings, "warning")),
    };
    let _ = writeln!(text, "{verdict}");
    text
}

fn number(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The line, as other commands that print tables end with it.
pub fn line(findings: &[Finding]) -> Value {
    let row = |it: &Finding| {
        json!({
            "name": it.check,
            "ok": it.level < Level::Warning,
            "level": level(it.level),
            "fault": it.fault,
            "note": it.text,
            "next": it.next,
        })
    };
    json!({ "command": "doctor", "rows": findings.iter().map(row).collect::<Vec<_>>() })
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Good => "good",
        Level::Skipped => "skipped",
        Level::Warning => "warning",
        Level::Fault => "fault",
    }
}

/// Whether something keeps the device from its work.
pub fn is_ill(findings: &[Finding]) -> bool {
    findings.iter().any(|it| it.level == Level::Fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Ill;

    #[test]
    fn a_table_is_aligned_and_ends_with_a_verdict() {
        let findings = [
            Finding::good("key", "there"),
            Finding::skipped("release", "none"),
            Finding::warning("broker", Ill::PortClosed, "port 8883 is closed", "open it"),
        ];
        let expected = "ok       key      there\n\
                        -        release  none\n\
                        warning  broker   port 8883 is closed\n                  → open it\n\
                        nothing keeps this device from its work; 1 warning\n";
        assert_eq!(table(&findings), expected);
        assert!(!is_ill(&findings));
        let ill = [Finding::fault("key", Ill::KeyLost, "gone", "put it back")];
        assert!(is_ill(&ill) && table(&ill).ends_with("1 fault\n"));
        assert!(table(&findings[..1]).ends_with("nothing is wrong\n"));
        let row = &line(&ill)["rows"][0];
        let expected = json!({"name": "key", "ok": false, "level": "fault", "fault": "keyLost", "note": "gone", "next": "put it back"});
        assert_eq!(*row, expected);
    }
}
