//! `muster apply`: deployments from YAML. All documents are checked before the first is sent.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use muster_shared::api::deployment::{API_VERSION, Deployment, KIND};
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::files;
use crate::output::{self, TextOrJson};

/// The longest YAML that is read.
const YAML_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Arguments of `muster apply`.
#[derive(clap::Args)]
pub struct Args {
    /// YAML with one or more documents, or - for standard input
    #[arg(short, long, value_name = "FILE.yaml")]
    file: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(Serialize)]
struct Applied {
    name: muster_shared::DeploymentName,
    action: &'static str,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let (name, text) = read(&args.file)?;
    let deployments = parse(&text).map_err(|error| {
        let failure = Failure::new(format!("cannot apply {name}: {}", error.text));
        failure.hint(error.hint)
    })?;
    let client = session.client()?;
    let mut applied = Vec::new();
    for deployment in &deployments {
        let action = put(&client, deployment).await?;
        let name = deployment.metadata.name.clone();
        if args.output == TextOrJson::Text {
            output::print_line(format_args!("deployment {name} {action}"))?;
        }
        applied.push(Applied { name, action });
    }
    if args.output == TextOrJson::Json { output::print_json(&applied) } else { Ok(()) }
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

async fn put(client: &Client, deployment: &Deployment) -> Result<&'static str> {
    let name = &deployment.metadata.name;
    let attempt = || format!("cannot apply deployment {name}");
    let path = format!("/deployments/{name}");
    let before: Option<Deployment> = match client.get(&path).await {
        Ok(before) => Some(before),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error).attempt(attempt),
    };
    // What a person's file says about the status is the control plane's to say.
    let asked = Deployment { status: None, ..deployment.clone() };
    let after: Deployment = client.send_json(Method::PUT, &path, &asked).await.attempt(attempt)?;
    Ok(match before {
        None => "created",
        Some(before) if before.spec == after.spec && before.metadata.labels == after.metadata.labels => "unchanged",
        Some(_) => "configured",
    })
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
