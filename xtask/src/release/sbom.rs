//! What an agent is made of: every crate that is linked into it, as CycloneDX 1.5.
//!
//! cargo says which crates those are, for this target and these features; what it only builds with is no part
//! of the agent and stands nowhere. Cargo.lock has their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, ensure};
use muster_shared::Digest;
use muster_shared::id::Target;
use muster_shared::release::ReleaseVersion;
use muster_world::output;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::agents;
use crate::{build, shell};

const AGENT: &str = "muster-agent";

/// A crate of some version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    name: String,
    version: String,
}

impl Id {
    /// Its package URL.
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// What cargo tells of a crate.
#[derive(Debug, Default, PartialEq, Eq)]
struct About {
    license: Option<String>,
    repository: Option<String>,
    needs: BTreeSet<Id>,
}

/// The bill of materials of the agent for a target, as JSON.
pub fn of(target: &Target, version: &ReleaseVersion, agent: Digest, made_s: u64) -> anyhow::Result<Vec<u8>> {
    let mut tree = build::command(&build::target()?);
    tree.args(["tree", "--locked", "--package", AGENT, "--target", target.as_str()]).args(agents::FEATURES);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "{p}\t{l}\t{r}"]);
    let crates = read_tree(&output(&mut tree)?)?;
    let lock = std::fs::read_to_string(shell::project().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let made = OffsetDateTime::from_unix_timestamp(i64::try_from(made_s)?)?.format(&Rfc3339)?;
    let document = document(&crates, &digests(&lock)?, (target, version, agent), &made, &compiler()?)?;
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Lines of `cargo tree`: the depth, the crate, and what was asked of it.
fn read_tree(text: &str) -> anyhow::Result<BTreeMap<Id, About>> {
    let (mut crates, mut above) = (BTreeMap::<Id, About>::new(), Vec::<Id>::new());
    for line in text.lines() {
        let malformed = || format!("cargo tree printed {line:?}");
        let at = line.find(|other: char| !other.is_ascii_digit()).with_context(malformed)?;
        let depth: usize = line[..at].parse().with_context(malformed)?;
        let mut parts = line[at..].split('\t');
        let mut words = parts.next().with_context(malformed)?.split_whitespace();
        let name = words.next().with_context(malformed)?.to_owned();
        let version = words.next().and_then(|word| word.strip_prefix('v')).with_context(malformed)?.to_owned();
        let id = Id { name, version };
        // What was told once already is marked.
        let clean = |text: &str| Some(text.trim_end_matches("(*)").trim().to_owned()).filter(|text| !text.is_empty());
        let [license, repository] = [parts.next(), parts.next()].map(|part| part.and_then(clean));
        let about = crates.entry(id.clone()).or_default();
        (about.license, about.repository) = (license.or(about.license.take()), repository.or(about.repository.take()));
        above.truncate(depth);
        ensure!(above.len() == depth, "{}: its depth skips one", malformed());
        if let Some(parent) = above.last() {
            crates.entry(parent.clone()).or_default().needs.insert(id.clone());
        }
        above.push(id);
    }
    ensure!(crates.keys().any(|id| id.name == AGENT), "cargo tree printed no {AGENT}");
    Ok(crates)
}

/// The digests that Cargo.lock has: those of the archives that crates came in.
fn digests(lock: &str) -> anyhow::Result<BTreeMap<Id, String>> {
    let lock: toml::Table = lock.parse().context("cannot read Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock lists no packages")?;
    let text = |package: &toml::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    let digest = |package: &toml::Value| {
        let id = Id { name: text(package, "name")?, version: text(package, "version")? };
        Some((id, text(package, "checksum")?))
    };
    Ok(packages.iter().filter_map(digest).collect())
}

/// The compiler, which brings the standard library.
fn compiler() -> anyhow::Result<String> {
    let text = output(Command::new("rustc").arg("--version").current_dir(shell::project()))?;
    Ok(text.split_whitespace().nth(1).context("rustc tells no version")?.to_owned())
}

fn document(
    crates: &BTreeMap<Id, About>,
    digests: &BTreeMap<Id, String>,
    (target, version, agent): (&Target, &ReleaseVersion, Digest),
    made: &str,
    compiler: &str,
) -> anyhow::Result<Value> {
    let itself = crates.keys().find(|id| id.name == AGENT).context("no agent")?;
    let parts = crates.iter().filter(|(id, _)| *id != itself).map(|(id, about)| {
        let mut part = json!({
            "type": "library", "bom-ref": id.purl(), "name": id.name, "version": id.version, "purl": id.purl(),
        });
        if let Some(digest) = digests.get(id) {
            part["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        }
        if let Some(license) = &about.license {
            // Old crates write a slash for "or".
            part["licenses"] = json!([{ "expression": license.replace('/', " OR ").replace("  OR  ", " OR ") }]);
        }
        if let Some(repository) = &about.repository {
            part["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
        }
        part
    });
    let library = json!({
        "type": "library", "bom-ref": "std", "name": "std", "version": compiler, "description": "Rust's standard library",
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    });
    let needs = crates.iter().map(|(id, about)| {
        let mut needs: Vec<String> = about.needs.iter().map(Id::purl).collect();
        if id == itself {
            needs.push("std".to_owned());
        }
        json!({ "ref": id.purl(), "dependsOn": needs })
    });
    // A number that follows from the agent: the same agent has the same bill.
    let serial = agent.to_string();
    let [a, b, c, d, e] = [0..8, 8..12, 13..16, 17..20, 20..32].map(|range| &serial[range]);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": format!("urn:uuid:{a}-{b}-4{c}-8{d}-{e}"),
        "version": 1,
        "metadata": {
            "timestamp": made,
            "tools": { "components": [{ "type": "application", "name": "cargo xtask release", "version": version }] },
            "component": {
                "type": "application", "bom-ref": itself.purl(), "name": AGENT, "version": version,
                "hashes": [{ "alg": "SHA-256", "content": agent }],
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
                "properties": [{ "name": "muster:target", "value": target }],
            },
        },
        "components": parts.chain([library]).collect::<Vec<_>>(),
        "dependencies": needs.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0muster-agent v0.1.0 (/somewhere/agent)\tMIT OR Apache-2.0\t\n\
                        1anyhow v1.0.1\tMIT/Apache-2.0\thttps://example.org/anyhow\n\
                        1axum v0.8.9\tMIT\t\n\
                        2bytes v1.2.3\tMIT\t\n\
                        1bytes v1.2.3\tMIT\t (*)\n";

    fn id(name: &str, version: &str) -> Id {
        Id { name: name.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn cargo_s_tree_becomes_parts_and_who_needs_whom() {
        let crates = read_tree(TREE).expect("reads");
        let needs = |name: &str, version: &str| -> Vec<String> {
            crates[&id(name, version)].needs.iter().map(|id| id.name.clone()).collect()
        };
        assert_eq!(needs("muster-agent", "0.1.0"), ["anyhow", "axum", "bytes"]);
        assert_eq!(needs("axum", "0.8.9"), ["bytes"]);
        assert!(needs("bytes", "1.2.3").is_empty());
        for bad in ["", "x v1", "0muster-agent", "0muster-agent v1\n2deep v1", "0other v1"] {
            assert!(read_tree(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_bill_names_each_crate_once_with_its_digest_and_its_license() {
        let lock = "version = 4\n[[package]]\nname = \"anyhow\"\nversion = \"1.0.1\"\nchecksum = \"ab\"\n\
                    [[package]]\nname = \"muster-agent\"\nversion = \"0.1.0\"\n";
        let (target, version) = ("x86_64-unknown-linux-gnu".parse().expect("a target"), "0.1.0".parse().expect("one"));
        let made = |agent: &str| {
            let crates = read_tree(TREE).expect("reads");
            let about = (&target, &version, Digest::of(agent));
            document(&crates, &digests(lock).expect("reads"), about, "2026-01-01T00:00:00Z", "1.95.0").expect("a bill")
        };
        let bill = made("agent");
        let named: Vec<&str> =
            bill["components"].as_array().expect("parts").iter().filter_map(|part| part["name"].as_str()).collect();
        assert_eq!(named, ["anyhow", "axum", "bytes", "std"]);
        let anyhow = &bill["components"][0];
        assert_eq!(anyhow["purl"], "pkg:cargo/anyhow@1.0.1");
        assert_eq!(anyhow["hashes"][0]["content"], "ab");
        assert_eq!(anyhow["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["component"]["hashes"][0]["content"], Digest::of("agent").to_string());
        // Every reference leads to something that is there.
        let there: Vec<&Value> =
            bill["components"].as_array().expect("parts").iter().map(|part| &part["bom-ref"]).collect();
        for needs in bill["dependencies"].as_array().expect("them") {
            for needed in needs["dependsOn"].as_array().expect("a list") {
                assert!(there.contains(&needed), "{needed}");
            }
        }
        let serial = bill["serialNumber"].as_str().expect("a number");
        assert_eq!(serial.len(), "urn:uuid:".len() + 36, "{serial}");
        assert_eq!(serial, made("agent")["serialNumber"].as_str().expect("a number"));
        assert_ne!(serial, made("another")["serialNumber"].as_str().expect("a number"));
    }
}
