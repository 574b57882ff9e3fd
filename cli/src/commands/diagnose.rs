//! `muster diagnose`: what a device believes and why it does what it does, in its own words.

use muster_shared::DeviceId;
use serde_json::Value;

use crate::context::Session;
use crate::error::{Attempt as _, Result};
use crate::output::{self, Facts, TextOrJson};

/// Arguments of `muster diagnose`.
#[derive(clap::Args)]
pub struct Args {
    /// The device
    device: DeviceId,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let path = format!("/devices/{}/diagnosis", args.device);
    let said: Value = session.client()?.get(&path).await.attempt(|| format!("cannot ask {}", args.device))?;
    if args.output == TextOrJson::Json {
        return output::print_json(&said);
    }
    let mut facts = Facts::default();
    for (name, words) in lines("", &said) {
        facts.add(&name, words);
    }
    output::print(&facts.render())
}

/// Each thing that is said, under the names that lead to it.
fn lines(under: &str, said: &Value) -> Vec<(String, String)> {
    let below = |name: &str| if under.is_empty() { name.to_owned() } else { format!("{under}.{name}") };
    match said {
        Value::Object(fields) => fields.iter().flat_map(|(name, said)| lines(&below(name), said)).collect(),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let numbered = items.iter().enumerate();
            numbered.flat_map(|(at, item)| lines(&below(&(at + 1).to_string()), item)).collect()
        }
        Value::Array(items) if items.is_empty() => vec![(under.to_owned(), "-".to_owned())],
        Value::Array(items) => items.iter().map(|item| (under.to_owned(), words(item))).collect(),
        scalar => vec![(under.to_owned(), words(scalar))],
    }
}

fn words(scalar: &Value) -> String {
    match scalar {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_a_device_says_has_a_line() {
        let said = json!({ "root": { "version": 2 }, "notes": ["a", "b"], "slots": [{ "name": "x" }], "floors": [], "held": null });
        let lines: Vec<_> = lines("", &said).into_iter().map(|(name, words)| format!("{name}: {words}")).collect();
        assert_eq!(lines, ["floors: -", "held: -", "notes: a", "notes: b", "root.version: 2", "slots.1.name: x"]);
    }
}
