//! `muster claim factory`: keys that enrol without a claim, as the factory lists them.

use std::path::{Path, PathBuf};

use muster_shared::Digest;
use muster_shared::api::members::{FactoryKey, FactoryView};
use muster_shared::id::{LabelText, Labels};
use reqwest::Method;

use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::output::{self, Table, TextOrJson, date, or_dash};

/// A list of a hundred thousand keys is shorter.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Keys sent at a time.
const KEYS_AT_A_TIME: usize = 1_000;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Add the keys of a file to the factory list
    Add {
        /// JSON: [{"fingerprint": …, "name": …, "labels": {…}}], or CSV: fingerprint[,name[,k=v …]]
        file: PathBuf,
    },
    /// Show the factory list
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: TextOrJson,
    },
    /// Take a key off the factory list; a device that enrolled with it stays
    Remove {
        /// SHA-256 of the key, as the list shows it
        fingerprint: Digest,
    },
}

pub async fn run(command: Command, session: &Session) -> Result<()> {
    let client = session.client()?;
    match command {
        Command::Add { file } => {
            let keys = read(&file)?;
            for some in keys.chunks(KEYS_AT_A_TIME) {
                client
                    .command_json(Method::POST, "/factory", &some)
                    .await
                    .attempt(|| "cannot add to the factory list")?;
            }
            output::print_line(format_args!("{} keys are on the factory list", keys.len()))
        }
        Command::List { output } => {
            let keys: Vec<FactoryView> = client.get("/factory").await.attempt(|| "cannot read the factory list")?;
            if output == TextOrJson::Json {
                return output::print_json(&keys);
            }
            let mut table = Table::new(&["KEY", "NAME", "LABELS", "ENROLLED"]);
            for key in keys {
                let labels =
                    key.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
                let labels = if labels.is_empty() { "-".to_owned() } else { labels };
                table.row([key.fingerprint.to_string(), or_dash(key.name), labels, or_dash(key.spent_ms.map(date))]);
            }
            output::print(&table.render())
        }
        Command::Remove { fingerprint } => {
            let attempt = || "cannot take the key off the factory list";
            client.delete(&format!("/factory/{fingerprint}")).await.attempt(attempt)?;
            output::print_line(format_args!("{fingerprint} is off the factory list"))
        }
    }
}

fn read(path: &Path) -> Result<Vec<FactoryKey>> {
    let attempt = || format!("cannot read the list {}", path.display());
    if std::fs::metadata(path).attempt(attempt)?.len() > FILE_BYTES_MAX {
        return Err(
            Failure::new(format!("{}: more than {FILE_BYTES_MAX} bytes", path.display())).hint("split the list")
        );
    }
    parse(&std::fs::read_to_string(path).attempt(attempt)?, path)
}

/// The keys in the text of the file at `path`.
pub fn parse(text: &str, path: &Path) -> Result<Vec<FactoryKey>> {
    let attempt = || format!("cannot read the list {}", path.display());
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).attempt(attempt);
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .filter(|(number, line)| *number > 0 || !line.starts_with("fingerprint"))
        .map(|(number, line)| {
            self::line(line).map_err(|why| {
                Failure::new(format!("{}: line {}: {why}", path.display(), number + 1))
                    .hint("write lines as fingerprint,name,site=north rack=7; name and labels may be empty")
            })
        })
        .collect()
}

fn line(line: &str) -> Result<FactoryKey, String> {
    let mut fields = line.splitn(3, ',').map(str::trim);
    let fingerprint = fields.next().unwrap_or_default().parse::<Digest>().map_err(|error| error.to_string())?;
    let name = fields.next().filter(|name| !name.is_empty());
    let name = name.map(|name| name.parse().map_err(|error| format!("{error}"))).transpose()?;
    let mut labels = Labels::new();
    for label in fields.next().unwrap_or_default().split_whitespace() {
        let (key, value) = label.split_once('=').ok_or_else(|| format!("{label:?} is no label: write key=value"))?;
        let part = |part: &str| part.parse::<LabelText>().map_err(|error| error.to_string());
        labels.insert(part(key)?, part(value)?);
    }
    Ok(FactoryKey { fingerprint, name, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_json_and_as_csv() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys");
        let (one, two) = (Digest::of("1"), Digest::of("2"));
        let csv = format!("fingerprint,name,labels\n{one},edge-1,site=north rack=7\n\n# a word\n{two}\n");
        let json = format!(
            r#"[{{"fingerprint":"{one}","name":"edge-1","labels":{{"site":"north","rack":"7"}}}},{{"fingerprint":"{two}"}}]"#
        );
        for text in [csv, json] {
            std::fs::write(&path, text).expect("writes");
            let keys = read(&path).expect("reads");
            assert_eq!(keys.len(), 2);
            assert_eq!((keys[0].fingerprint, keys[0].labels.len(), keys[1].fingerprint), (one, 2, two));
            assert_eq!(
                (keys[0].name.as_ref().map(|name| name.as_str()), keys[1].name.as_ref()),
                (Some("edge-1"), None)
            );
        }
        std::fs::write(&path, format!("{one}\nnonsense\n")).expect("writes");
        assert!(read(&path).expect_err("a bad line").to_string().contains("line 2"));
    }
}
