//! The project's own rules, held against its files: prose promises, tests keep.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What a pure crate may depend on: vocabulary, arithmetic, encodings. No runtime, socket, file,
/// clock or source of chance.
const PURE: [&str; 13] = [
    "base64",
    "ed25519-dalek",
    "hex",
    "muster-agent-core",
    "muster-control-plane-core",
    "muster-shared",
    "postcard",
    "ring",
    "semver",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
];
/// Only behind a feature that core crates do not ask for.
const PURE_OPTIONAL: [&str; 1] = ["utoipa"];
/// Names in a core crate's source that mean the world outside.
const IMPURE_NAMES: [&str; 9] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant::now",
    "HashMap",
    "tokio",
];
/// Lines of one source file: past this it holds a second idea.
const LINES_MAX: usize = 700;
/// Written by a generator, whose ideas are its own (agent/src/doors/grpc/README.md).
const GENERATED: [&str; 1] = ["agent/src/doors/grpc/generated.rs"];

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files that git tracks, by the end of their name.
fn files(ending: &str) -> Result<Vec<PathBuf>> {
    let listed = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(project()).output()?;
    let names = String::from_utf8(listed.stdout)?;
    let found: Vec<PathBuf> =
        names.split('\0').filter(|name| name.ends_with(ending)).map(|name| project().join(name)).collect();
    anyhow::ensure!(!found.is_empty(), "git lists no file that ends in {ending}");
    Ok(found.into_iter().filter(|path| path.exists()).collect())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

// The simulator too: whatever it draws on beside its seed would make a failure unrepeatable.
#[test]
fn core_crates_are_pure_by_their_cargo_toml() -> Result<()> {
    for folder in ["shared", "agent/core", "control-plane/core", "tests/sim"] {
        let manifest: toml::Table = read(&project().join(folder).join("Cargo.toml"))?.parse()?;
        let dependencies = manifest["dependencies"].as_table().context("dependencies")?;
        for (name, value) in dependencies {
            let optional = value.get("optional").and_then(toml::Value::as_bool) == Some(true);
            let pure = PURE.contains(&name.as_str()) || (optional && PURE_OPTIONAL.contains(&name.as_str()));
            assert!(pure, "{folder}/Cargo.toml: {name} is not known to be pure");
        }
    }
    Ok(())
}

#[test]
fn core_crates_ask_the_world_nothing() -> Result<()> {
    for path in files(".rs")? {
        let text = path.to_string_lossy().into_owned();
        let folders = ["/shared/src/", "/agent/core/src/", "/control-plane/core/src/", "/tests/sim/src/"];
        let core = folders.iter().any(|folder| text.contains(folder));
        if !core {
            continue;
        }
        for (number, line) in read(&path)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let named = IMPURE_NAMES.iter().find(|name| code.contains(**name));
            assert!(named.is_none(), "{}:{}: {named:?} in a pure crate", path.display(), number + 1);
        }
    }
    Ok(())
}

/// Checks can be taken out of a build with the feature `attacks`: nothing but `cargo xtask attacks` asks for it.
#[test]
fn no_default_build_lets_checks_be_taken_out() -> Result<()> {
    for path in files("Cargo.toml")? {
        let manifest: toml::Table = read(&path)?.parse()?;
        for (section, content) in &manifest {
            // A feature of the same name may pass it on; nothing else may name it.
            let lines = match (section.as_str(), content) {
                ("features", toml::Value::Table(features)) => {
                    let others = features.iter().filter(|(name, _)| *name != "attacks");
                    others.map(|(_, value)| value.to_string()).collect()
                }
                ("package" | "test", _) => String::new(),
                (_, content) => content.to_string(),
            };
            let asks = lines.contains("\"attacks\"") || lines.contains("/attacks\"");
            assert!(!asks, "{}: [{section}] asks for the feature `attacks`", path.display());
        }
    }
    Ok(())
}

#[test]
fn links_in_documents_lead_somewhere() -> Result<()> {
    for path in files(".md")? {
        let text = read(&path)?;
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let found = path.parent().context("a folder")?.join(target);
            assert!(found.exists(), "{}: the link to {target} leads nowhere", path.display());
        }
    }
    Ok(())
}

#[test]
fn no_file_grows_without_end() -> Result<()> {
    for path in files(".rs")? {
        if GENERATED.iter().any(|generated| path.ends_with(generated)) {
            continue;
        }
        let lines = read(&path)?.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines: which second idea does it hold?", path.display());
    }
    Ok(())
}

#[test]
fn every_story_file_is_told() -> Result<()> {
    let folder = project().join("tests/stories");
    let main = read(&folder.join("main.rs"))?;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let module = name.strip_suffix(".rs").context("a Rust file")?;
        assert!(module == "main" || main.contains(&format!("mod {module};")), "stories/{name} is never run");
    }
    Ok(())
}

#[test]
fn every_test_file_is_run_by_a_tier() -> Result<()> {
    let tiers = read(&project().join("xtask/src/test.rs"))?;
    for path in files(".rs")? {
        let is_test = path.parent().is_some_and(|folder| folder.ends_with("tests"));
        let crate_folder = path.ancestors().nth(2).context("a folder")?;
        if is_test && crate_folder.join("Cargo.toml").exists() && !path.to_string_lossy().contains("/src/") {
            let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
            assert!(
                tiers.contains(&format!("\"{name}\"")),
                "{} is run by no tier of xtask/src/test.rs",
                path.display()
            );
        }
    }
    Ok(())
}

#[test]
fn what_a_fresh_machine_needs_is_pinned() -> Result<()> {
    for name in [
        "Cargo.lock",
        "rust-toolchain.toml",
        "deny.toml",
        "tests/models/requirements.txt",
        "LICENSE-MIT",
        "LICENSE-APACHE",
    ] {
        assert!(project().join(name).exists(), "{name} is missing");
    }
    for path in files("requirements.txt")? {
        let requirements = read(&path)?;
        let loose = requirements
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty() && !line.starts_with('#') && !line.contains("=="));
        assert_eq!(loose, None, "{}: every Python package is pinned", path.display());
    }
    Ok(())
}

#[test]
fn the_asyncapi_document_has_every_topic() -> Result<()> {
    use muster_shared::topic::Leaf;
    let document = read(&project().join("docs/asyncapi.yaml"))?;
    let (device, instance) = ("d".parse()?, "i".parse()?);
    let up =
        [Leaf::Hello, Leaf::Reported, Leaf::ChunkGet, Leaf::Telemetry, Leaf::Event, Leaf::Gone, Leaf::Reply(instance)];
    for leaf in up.into_iter().chain(Leaf::DOWN) {
        let topic = leaf.of(&device).to_string();
        let address = topic.replacen("/d/", "/{device}/", 1).replace("reply/i", "reply/{instance}");
        assert!(document.contains(&format!("address: {address}\n")), "{address}");
    }
    Ok(())
}

/// The page's types are generated from `web/openapi.json`; `cargo xtask web --types` writes both.
#[test]
fn the_openapi_document_of_the_page_is_current() -> Result<()> {
    let path = project().join("web/openapi.json");
    let document = muster_control_plane::http::openapi().to_pretty_json()? + "\n";
    if std::env::var_os("MUSTER_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &document)?;
    }
    assert!(read(&path)? == document, "web/openapi.json is old: `cargo xtask web --types` writes it anew");
    Ok(())
}
