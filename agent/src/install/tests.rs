use muster_shared::release::{Artifact, ArtifactKind, Release};
use muster_shared::root::{Role, Root};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};

use super::*;

const PACKAGE: &str = "a package";

fn root() -> TrustedRoot {
    let keys = |seed: u8| Role { threshold: 1, keys: vec![SecretKey::from_seed([seed; 32]).public()] };
    let root = Root {
        fleet: "home".parse().expect("a fleet id"),
        version: 1,
        epoch: 1,
        expires_ms: 1_000,
        root: keys(1),
        publishers: vec![],
        directors: vec![],
        release: keys(30),
        compromised: vec![],
    };
    let key = SecretKey::from_seed([1; 32]);
    TrustedRoot::self_signed(&Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key])).expect("a root")
}

fn release(version: &str, target: &str) -> VerifiedRelease {
    let package = Artifact {
        target: target.parse().expect("a target"),
        kind: ArtifactKind::Package,
        name: "agent.deb".parse().expect("a name"),
        bytes: PACKAGE.len() as u64,
        sha256: Digest::of(PACKAGE),
    };
    let release = Release { version: version.parse().expect("a version"), issued_ms: 1, artifacts: vec![package] };
    let key = SecretKey::from_seed([30; 32]);
    let envelope = Envelope::sign(payload_type::RELEASE, release.to_payload(), &[&key]);
    VerifiedRelease::verify(&envelope, &root()).expect("verifies")
}

#[test]
fn a_package_is_installed_only_where_its_release_allows_it() {
    let ours = this_target().expect("a target");
    let check = |version: &str, target: &str, installed: Option<&str>, package: &str, now_ms: UnixMs| {
        let installed = installed.map(|text| text.parse().expect("a version"));
        let file = FileFound { bytes: package.len() as u64, sha256: Digest::of(package) };
        let release = release(version, target);
        may_install((&release, &root()), &ours, installed.as_ref(), file, now_ms)
            .map_or_else(|error| error.to_string(), |version| format!("installs {version}"))
    };
    for (version, target, installed, package, now_ms, said) in [
        ("0.2.0", ours.as_str(), None, PACKAGE, 1, "installs 0.2.0"),
        ("0.2.0", ours.as_str(), Some("0.2.0"), PACKAGE, 1, "installs 0.2.0"),
        ("0.2.0", ours.as_str(), Some("0.1.9"), PACKAGE, 1, "installs 0.2.0"),
        ("0.2.0", ours.as_str(), Some("0.2.1"), PACKAGE, 1, "is older than the agent 0.2.1 that is installed"),
        ("0.2.0", ours.as_str(), None, "a packagE", 1, "the package is not agent.deb of release 0.2.0"),
        ("0.2.0", "riscv64gc-unknown-linux-gnu", None, PACKAGE, 1, "another processor"),
        ("0.2.0", ours.as_str(), None, PACKAGE, 1_000, "the root expired"),
    ] {
        let found = check(version, target, installed, package, now_ms);
        assert!(found.contains(said), "{version} {target} {installed:?}: {found}");
    }
}
