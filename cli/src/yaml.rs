//! Deployments as people write them, in YAML. All documents of a file are checked before the first is
//! used.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use muster_shared::api::deployment::{API_VERSION, Deployment, KIND};
use serde::Deserialize;

use crate::error::{Attempt as _, Failure, Result};
use crate::files;

/// The longest YAML that is read.
const YAML_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The deployments in a file, or on standard input where the path is `-`. `verb` is what is to be done
/// with them, for errors. What a file says about the status is the control plane's to say, so it is
/// left out.
pub fn deployments(path: &Path, verb: &str) -> Result<Vec<Deployment>> {
    let (name, text) = read(path)?;
    deployments_in(&text, &name, verb)
}

/// The deployments in the text of the file `name`.
pub fn deployments_in(text: &str, name: &str, verb: &str) -> Result<Vec<Deployment>> {
    let read = parse(text).map_err(|error| {
        let failure = Failure::new(format!("cannot {verb} {name}: {}", error.text));
        failure.hint(error.hint)
    })?;
    Ok(read.into_iter().map(|deployment| Deployment { status: None, ..deployment }).collect())
}

fn read(path: &Path) -> Result<(String, String)> {
    let name = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let attempt = || format!("cannot read {name}");
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).attempt(attempt)?)
    };
    let bytes = files::read_bounded(reader, YAML_BYTES_MAX).attempt(attempt)?;
    let text = String::from_utf8(bytes).attempt(attempt)?;
    Ok((name, text))
}

/// What is wrong with a YAML file, and what to do.
#[derive(Debug)]
struct BadYaml {
    text: String,
    hint: String,
}

/// The part of a document that says what it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

fn parse(text: &str) -> Result<Vec<Deployment>, BadYaml> {
    let bad = |text: String, hint: &str| BadYaml { text, hint: hint.to_owned() };
    let yaml = |error: serde_saphyr::Error| {
        bad(located(&error), "`muster get deployments -o yaml` prints deployments in the right form")
    };
    // What it is comes first, so that another kind is not told that its fields are unknown.
    let heads: Vec<Head> = serde_saphyr::from_multiple(text).map_err(yaml)?;
    for (at, head) in heads.iter().enumerate() {
        let (version, kind) = (head.api_version.as_deref(), head.kind.as_deref());
        if version != Some(API_VERSION) || kind != Some(KIND) {
            let found = format!("apiVersion {}, kind {}", version.unwrap_or("missing"), kind.unwrap_or("missing"));
            let hint = format!("write apiVersion: {API_VERSION} and kind: {KIND}");
            return Err(bad(format!("document {} is no deployment: {found}", at + 1), &hint));
        }
    }
    let deployments: Vec<Deployment> = serde_saphyr::from_multiple(text).map_err(yaml)?;
    if deployments.is_empty() {
        return Err(bad("it holds no document".to_owned(), "write at least one deployment"));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = deployments.iter().find(|deployment| !names.insert(&deployment.metadata.name)) {
        let name = &twice.metadata.name;
        return Err(bad(format!("deployment {name} stands twice"), "keep one of them"));
    }
    Ok(deployments)
}

/// The error in one line, with where it is.
fn located(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default().to_owned();
    match error.location() {
        Some(at) if !text.contains("line ") => format!("line {}, column {}: {text}", at.line(), at.column()),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: muster.dev/v1
kind: Deployment
metadata: { name: digits, labels: { team: vision } }
spec:
  model: digits
  version: 7
  resources: { cpu: 500m, memory: 64Mi }
  rollout: { probation: 5s }
";

    #[track_caller]
    fn refused(text: &str, words: &[&str]) {
        let error = parse(text).expect_err("refused");
        let all = format!("{} ({})", error.text, error.hint);
        words.iter().for_each(|word| assert!(all.contains(word), "{word:?} is not in: {all}"));
    }

    #[test]
    fn several_documents_are_several_deployments() {
        let two = format!("---\n{GOOD}---\n{}---\n", GOOD.replace("name: digits", "name: other"));
        let read = parse(&two).expect("two deployments");
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].spec.rollout.probation.0, 5_000);
    }

    #[test]
    fn errors_say_where_and_what_next() {
        refused(&GOOD.replace("  model:", "  modell:"), &["line 5", "modell", "right form"]);
        refused(&GOOD.replace("64Mi", "lots"), &["line 7", "amount of memory"]);
        refused(&GOOD.replace("version: 7", "version: newest"), &["line 6", "latest"]);
        refused("a: [1, 2\nb: }", &["line 2"]);
        refused(
            &GOOD.replace("kind: Deployment", "kind: Service"),
            &["document 1", "kind Service", "kind: Deployment"],
        );
        refused("kind: Deployment", &["apiVersion missing"]);
        refused("", &["no document"]);
        refused(&format!("{GOOD}---\n{GOOD}"), &["digits stands twice"]);
    }

    #[test]
    fn what_get_prints_can_be_applied() {
        let read = parse(GOOD).expect("a deployment");
        let yaml = serde_saphyr::to_string(&read[0]).expect("YAML");
        assert_eq!(parse(&yaml).expect("the same"), read);
    }
}
