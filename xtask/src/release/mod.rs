//! `cargo xtask release`: everything that a release is, in a folder: the agent for each kind of device, its
//! Debian package, what it was made of, checksums, and the release's document, which nobody has signed yet.
//!
//! Release signers sign it where their keys are, off line: `muster release sign FOLDER`.

mod agents;
mod sbom;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use muster_provisioning::deb::Package;
use muster_shared::Digest;
use muster_shared::id::Target;
use muster_shared::release::{Artifact, ArtifactKind, FILE_NAME, Release, ReleaseVersion};
use muster_shared::signing::{Envelope, payload_type};
use muster_world::output;
use muster_world::rows::{self, Row};

use crate::{cross, shell};

/// Checksums for `sha256sum --check`.
const SUMS: &str = "SHA256SUMS";

/// What to make.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Only for these kinds of device; else for all
    #[arg(long = "target", value_name = "TARGET")]
    targets: Vec<Target>,
    /// Take this agent, built elsewhere, instead of building it
    #[arg(long = "agent", value_name = "TARGET=FILE", value_parser = given)]
    agents: Vec<(Target, PathBuf)>,
    /// Where to put it; by default target/release-VERSION
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Install missing system packages without asking
    #[arg(long)]
    yes: bool,
}

fn given(text: &str) -> Result<(Target, PathBuf), String> {
    let (target, file) = text.split_once('=').ok_or("write it as TARGET=FILE")?;
    Ok((target.parse().map_err(|error| format!("{error}"))?, file.into()))
}

impl Options {
    /// For one kind of device, with an agent at hand or one that is built, into a folder.
    pub fn one(target: Target, agent: Option<PathBuf>, out: PathBuf) -> Self {
        let agents = agent.map(|agent| (target.clone(), agent)).into_iter().collect();
        Self { targets: vec![target], agents, out: Some(out), yes: false }
    }
}

/// Makes a release and prints what is in it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // `--yes` is looked for where packages are installed.
    let _ = options.yes;
    let (folder, release) = make(options)?;
    let width = release.artifacts.iter().map(|artifact| artifact.name.as_str().len()).max().unwrap_or(0);
    let mut rows = vec![];
    for Artifact { target, kind, name, bytes, sha256 } in &release.artifacts {
        let mib = *bytes as f64 / f64::from(1 << 20);
        println!("{name:<width$}  {mib:>6.2} MiB  {kind}, {target}", name = name.as_str());
        let note = format!("{target}, SHA-256 {sha256}");
        let ours = (mib * 100.0).round() / 100.0;
        rows.push(Row { ours: Some(ours), ..Row::played(format!("{name}, MiB"), true, note) });
    }
    println!("\nrelease {} lies in {}", release.version, folder.display());
    println!("nobody has signed it yet: muster release sign {}", folder.display());
    rows::tell("release", &rows);
    Ok(())
}

/// Makes a release. Gives back its folder and its document.
pub fn make(options: &Options) -> anyhow::Result<(PathBuf, Release)> {
    let version: ReleaseVersion = env!("CARGO_PKG_VERSION").parse()?;
    let made_s = made_s()?;
    let folder =
        options.out.clone().unwrap_or_else(|| shell::project().join("target").join(format!("release-{version}")));
    start_anew(&folder)?;
    let targets = match options.targets.as_slice() {
        [] => agents::targets()?,
        some => some.to_vec(),
    };
    let given: BTreeMap<&Target, &PathBuf> = options.agents.iter().map(|(target, file)| (target, file)).collect();
    if let Some(other) = given.keys().find(|target| !targets.contains(target)) {
        bail!("an agent for {other} is given, and no release for it is made; add --target {other}");
    }
    let mut artifacts = vec![];
    for target in &targets {
        let agent = match given.get(target) {
            Some(file) => (*file).clone(),
            None => agents::built(target)?,
        };
        let bytes = std::fs::read(&agent).with_context(|| format!("cannot read {}", agent.display()))?;
        let mut put = |kind, name: String, bytes: &[u8]| -> anyhow::Result<()> {
            let name = name.parse()?;
            std::fs::write(folder.join(format!("{name}")), bytes)
                .with_context(|| format!("cannot write {name} into {}", folder.display()))?;
            let (bytes, sha256) = (bytes.len() as u64, Digest::of(bytes));
            artifacts.push(Artifact { target: target.clone(), kind, name, bytes, sha256 });
            Ok(())
        };
        put(ArtifactKind::Agent, format!("muster-agent-{version}-{target}"), &bytes)?;
        if target.debian_architecture().is_some() && !target.is_static() {
            let glibc = cross::needed_glibc(&agent)?
                .with_context(|| format!("{} needs no glibc, and is for {target}", agent.display()))?;
            let package = Package { version: &version, target, agent: &bytes, glibc, made_s };
            put(ArtifactKind::Package, package.file_name()?.to_string(), &package.build()?)?;
        }
        let materials = sbom::of(target, &version, Digest::of(&bytes), made_s)?;
        put(ArtifactKind::Sbom, format!("muster-agent-{version}-{target}.cdx.json"), &materials)?;
    }
    let release = Release { version, issued_ms: made_s * 1000, artifacts };
    let payload = release.to_payload();
    // What devices would refuse is not offered for signing.
    ensure!(Release::parse(&payload)? == release, "the release does not read back as it was written");
    let envelope = Envelope { payload_type: payload_type::RELEASE.to_owned(), payload, signatures: vec![] };
    std::fs::write(folder.join(FILE_NAME), format!("{}\n", envelope.to_json()))?;
    let sums = release.artifacts.iter().map(|artifact| format!("{}  {}\n", artifact.sha256, artifact.name));
    std::fs::write(folder.join(SUMS), sums.collect::<String>())?;
    Ok((folder, release))
}

/// An empty folder; one that holds something else than a release stays as it is.
fn start_anew(folder: &Path) -> anyhow::Result<()> {
    if folder.join(FILE_NAME).exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let empty = std::fs::read_dir(folder)?.next().is_none();
    ensure!(empty, "{} holds something else than a release; name another folder with --out", folder.display());
    Ok(())
}

/// The time that everything in it bears, so that the same source gives the same bytes: the last commit's, or
/// what `SOURCE_DATE_EPOCH` says.
fn made_s() -> anyhow::Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let mut log = Command::new("git");
    log.args(["log", "-1", "--format=%ct"]).current_dir(shell::project());
    let text = output(&mut log).context("cannot ask git when this source was made; set SOURCE_DATE_EPOCH")?;
    text.trim().parse().context("git gave no time")
}
