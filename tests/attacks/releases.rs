//! An agent that its fleet's release signers did not mean for this machine: it would run with the device's key.

use std::process::Command;

use anyhow::Result;
use muster_shared::checks::Check;
use muster_shared::limits::TEXT_BYTES_MAX;
use muster_shared::release::ArtifactKind;
use muster_shared::signing::key::SecretKey;
use muster_tests::releases::{Made, OURS, THEIRS};
use tempfile::TempDir;

use crate::stage::{CHECKS_OUT, Ending, Template};
use crate::{Attack, Play};

const fn install(
    name: &'static str,
    checks: &'static [Check],
    play: fn(&Template, &[Check]) -> Result<Ending>,
) -> Attack {
    Attack { name, checks, play: Play::Plane(play) }
}

/// All of these.
pub const ATTACKS: &[Attack] = &[
    install("a release that a publisher signed", &[Check::ReleaseRole], wrong_role),
    install("a release that is older than the agent", &[Check::ReleaseOrder], older),
    install("a package of which a byte was changed", &[Check::ReleaseDigest], changed),
    install("a package for another processor", &[Check::ReleaseTarget], other_processor),
];

const PACKAGE: &[u8] = b"!<arch>\na package";
const THEIR_PACKAGE: &[u8] = b"!<arch>\nfor others";

/// Asks the agent whether a package may be installed, as the installer does; harm if it may.
fn judged(template: &Template, out: &[Check], (version, signer): (&str, &SecretKey), package: &[u8]) -> Result<Ending> {
    let folder = TempDir::new()?;
    let files: &[(&str, ArtifactKind, &[u8])] =
        &[(OURS, ArtifactKind::Package, PACKAGE), (THEIRS, ArtifactKind::Package, THEIR_PACKAGE)];
    let made = Made::write(folder.path(), version, files, &[signer])?;
    let (file, root) = (folder.path().join("file"), folder.path().join("root.json"));
    std::fs::write(&file, package)?;
    std::fs::write(&root, template.sign_root(&template.next_root(|_| {})).to_json())?;
    let out = out.iter().map(|check| check.name()).collect::<Vec<_>>().join(",");
    let mut check = Command::new(&template.programs().agent);
    check.env(CHECKS_OUT, out).env("RUST_BACKTRACE", "0").args(["release", "check"]).arg(&file);
    let done = check.arg("--release").arg(made.document()).arg("--root").arg(&root).output()?;
    let told = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace(&folder.path().display().to_string(), ".");
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        last.chars().take(TEXT_BYTES_MAX).collect::<String>()
    };
    Ok(match done.status.success() {
        true => Ending::Harm(format!("it may be installed: {}", told(&done.stdout))),
        false => Ending::Held(told(&done.stderr)),
    })
}

fn wrong_role(template: &Template, out: &[Check]) -> Result<Ending> {
    judged(template, out, ("9.0.0", &template.keys.publisher), PACKAGE)
}

fn older(template: &Template, out: &[Check]) -> Result<Ending> {
    judged(template, out, ("0.0.1", &template.keys.release), PACKAGE)
}

fn changed(template: &Template, out: &[Check]) -> Result<Ending> {
    judged(template, out, ("9.0.0", &template.keys.release), b"!<arch>\na packagE")
}

fn other_processor(template: &Template, out: &[Check]) -> Result<Ending> {
    judged(template, out, ("9.0.0", &template.keys.release), THEIR_PACKAGE)
}
