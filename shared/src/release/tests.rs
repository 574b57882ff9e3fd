use proptest::prelude::*;

use super::*;
use crate::root::{Publisher, Role, Root};
use crate::signing::key::SecretKey;

const X86: &str = "x86_64-unknown-linux-gnu";
const ARM: &str = "aarch64-unknown-linux-gnu";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn root(change: impl FnOnce(&mut Root)) -> TrustedRoot {
    let role =
        |seeds: &[u8], threshold| Role { threshold, keys: seeds.iter().map(|seed| key(*seed).public()).collect() };
    let mut root = Root {
        fleet: "home".parse().expect("a fleet id"),
        version: 1,
        epoch: 1,
        expires_ms: 1_000,
        root: role(&[1], 1),
        publishers: vec![Publisher { key: key(10).public(), models: None }],
        directors: vec![key(20).public()],
        release: role(&[30, 31, 32], 2),
        compromised: vec![],
    };
    change(&mut root);
    let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key(1)]);
    TrustedRoot::self_signed(&envelope).expect("a root")
}

fn artifact(target: &str, kind: ArtifactKind, content: &str) -> Artifact {
    Artifact {
        target: target.parse().expect("a target"),
        kind,
        name: format!("{kind}-{target}").parse().expect("a name"),
        bytes: content.len() as u64,
        sha256: Digest::of(content),
    }
}

fn release(version: &str) -> Release {
    Release {
        version: version.parse().expect("a version"),
        issued_ms: 500,
        artifacts: vec![
            artifact(X86, ArtifactKind::Package, "for x86"),
            artifact(X86, ArtifactKind::Agent, "program"),
            artifact(ARM, ArtifactKind::Package, "for arm"),
            artifact("x86_64-unknown-linux-musl", ArtifactKind::Package, "static"),
        ],
    }
}

fn sign(release: &Release, seeds: &[u8]) -> Envelope {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    Envelope::sign(payload_type::RELEASE, release.to_payload(), &keys.iter().collect::<Vec<_>>())
}

fn verify(envelope: &Envelope) -> Result<VerifiedRelease, ReleaseError> {
    VerifiedRelease::verify(envelope, &root(|_| {}))
}

/// What a machine with this agent says to a file; nothing: whether it would fetch one.
fn check(version: &str, target: &str, installed: Option<&str>, now_ms: UnixMs, file: Option<&str>) -> String {
    let release = verify(&sign(&release(version), &[30, 31])).expect("signed");
    let installed = installed.map(|text| text.parse::<ReleaseVersion>().expect("a version"));
    let asked = Asked {
        now_ms,
        installed: installed.as_ref(),
        target: &target.parse().expect("a target"),
        kind: ArtifactKind::Package,
        file: file.map(|text| FileFound { bytes: text.len() as u64, sha256: Digest::of(text) }),
    };
    match judge(&release, &root(|_| {}), &asked) {
        Ok(artifact) => format!("takes {}", artifact.name),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_machine_takes_what_was_signed_for_it_and_says_why_not_otherwise() {
    for (version, target, installed, now_ms, file, said) in [
        ("0.2.0", X86, Some("0.1.0"), 999, Some("for x86"), "takes package-x86_64-unknown-linux-gnu"),
        ("0.2.0", X86, None, 999, None, "takes package-x86_64-unknown-linux-gnu"),
        ("0.2.0", X86, Some("0.2.0"), 999, Some("for x86"), "takes package-x86_64-unknown-linux-gnu"),
        ("0.2.0", X86, Some("0.2.0-rc.1"), 999, Some("for x86"), "takes package-x86_64-unknown-linux-gnu"),
        ("0.2.0", X86, Some("0.2.1"), 999, None, "release 0.2.0 is older than the agent 0.2.1 that is installed"),
        ("0.2.0-rc.1", X86, Some("0.2.0"), 999, None, "release 0.2.0-rc.1 is older than the agent 0.2.0"),
        ("0.9.0", X86, Some("0.10.0"), 999, None, "release 0.9.0 is older than the agent 0.10.0"),
        ("0.2.0", X86, None, 999, Some("for y86"), "the package is not package-x86_64-unknown-linux-gnu of release"),
        ("0.2.0", X86, None, 999, Some("short"), "it has 5 bytes, wanted 7"),
        ("0.2.0", X86, None, 999, Some("for arm"), "this machine is x86_64-unknown-linux-gnu: another processor"),
        ("0.2.0", X86, None, 999, Some("static"), "is for x86_64-unknown-linux-musl, and this machine"),
        ("0.2.0", X86, None, 999, Some("static"), "another C library"),
        ("0.2.0", "riscv64gc-unknown-linux-gnu", None, 999, None, "has no package for riscv64gc-unknown-linux-gnu"),
        ("0.2.0", X86, None, 1_000, Some("for x86"), "the root expired"),
        // The agent is no package.
        ("0.2.0", X86, None, 999, Some("program"), "the package is not"),
    ] {
        let found = check(version, target, installed, now_ms, file);
        assert!(found.contains(said), "{version} {target} {installed:?} {file:?}: {found}");
    }
}

#[test]
fn only_release_keys_sign_releases_as_many_as_the_threshold_says() {
    let good = release("0.2.0");
    assert!(verify(&sign(&good, &[30, 31])).is_ok());
    assert!(verify(&sign(&good, &[99, 32, 10, 30])).is_ok(), "others do no harm");
    for (seeds, said) in [
        (&[30][..], "not signed by the release keys"),
        (&[30, 30], "not signed by the release keys"),
        (&[10, 10], "signed by a publisher's key"),
        (&[20], "signed by a director's key"),
        (&[1], "signed by a root signer's key"),
        (&[30, 10], "not signed by the release keys"),
        (&[99, 98], "not signed by the release keys"),
        (&[], "not signed by the release keys"),
    ] {
        let error = verify(&sign(&good, seeds)).expect_err("refused").to_string();
        assert!(error.contains(said), "{seeds:?}: {error}");
    }
    let compromised = root(|root| root.compromised = vec![key(30).public().id()]);
    assert!(VerifiedRelease::verify(&sign(&good, &[30, 31]), &compromised).is_err());
    assert!(VerifiedRelease::verify(&sign(&good, &[32, 31]), &compromised).is_ok());
    // A document of another kind with the same signers.
    let mut other = sign(&good, &[30, 31]);
    other.payload_type = payload_type::MANIFEST.to_owned();
    assert!(matches!(verify(&other), Err(ReleaseError::Signature(VerifyError::WrongType { .. }))));
}

#[test]
fn what_goes_beyond_its_bounds_is_malformed() {
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changed = |change: Change<'_>| {
        let mut value = serde_json::to_value(release("0.2.0")).expect("JSON");
        change(&mut value);
        Release::parse(value.to_string().as_bytes()).expect_err("refused").to_string()
    };
    let cases: &[(&str, Change<'_>)] = &[
        ("unknown field `extra`", &|value| value["extra"] = 1.into()),
        ("unknown field `mode`", &|value| value["artifacts"][0]["mode"] = "0755".into()),
        ("0 files", &|value| value["artifacts"] = serde_json::json!([])),
        ("65 files", &|value| value["artifacts"] = vec![value["artifacts"][0].clone(); 65].into()),
        ("has 0 bytes", &|value| value["artifacts"][0]["bytes"] = 0.into()),
        ("has 268435457 bytes", &|value| value["artifacts"][0]["bytes"] = ((256u64 << 20) + 1).into()),
        ("stands twice", &|value| value["artifacts"][0]["name"] = value["artifacts"][1]["name"].clone()),
        ("stands twice", &|value| value["artifacts"][0]["kind"] = "agent".into()),
        ("unknown variant", &|value| value["artifacts"][0]["kind"] = "script".into()),
        ("cannot be called -rf", &|value| value["artifacts"][0]["name"] = "-rf".into()),
        ("cannot be called ..", &|value| value["artifacts"][0]["name"] = "..".into()),
        ("cannot be called release.json", &|value| value["artifacts"][0]["name"] = "release.json".into()),
        ("is no name of a release's file", &|value| value["artifacts"][0]["name"] = "a/b".into()),
        ("is no name of a release's file", &|value| value["artifacts"][0]["name"] = "a;reboot".into()),
        ("is no target", &|value| value["artifacts"][0]["target"] = "X86 64".into()),
        ("is no version", &|value| value["version"] = "0.2".into()),
        ("is no version", &|value| value["version"] = "0.2.0+build".into()),
        ("is no version", &|value| value["version"] = format!("0.2.0-{}", "a".repeat(60)).into()),
    ];
    for (said, change) in cases {
        let found = changed(change);
        assert!(found.contains(said), "{said}: {found}");
    }
    let long = vec![b' '; RELEASE_BYTES_MAX + 1];
    assert!(Release::parse(&long).is_err() && Release::envelope(&long).is_err());
}

#[test]
fn debian_has_names_of_its_own() {
    let version = |text: &str| text.parse::<ReleaseVersion>().expect("a version").debian();
    assert_eq!((version("1.2.3"), version("1.2.3-rc.1-x")), ("1.2.3".to_owned(), "1.2.3~rc.1-x".to_owned()));
    for text in ["1.2.3", "1.2.3-rc.1-x"] {
        let version: ReleaseVersion = text.parse().expect("a version");
        assert_eq!(ReleaseVersion::of_debian(&version.debian()), Ok(version));
    }
    for (target, architecture, is_static) in [
        (X86, Some("amd64"), false),
        (ARM, Some("arm64"), false),
        ("armv7-unknown-linux-gnueabihf", Some("armhf"), false),
        ("aarch64-unknown-linux-musl", Some("arm64"), true),
        ("arm-unknown-linux-gnueabihf", None, false),
        ("x86_64-pc-windows-msvc", None, false),
    ] {
        let target: Target = target.parse().expect("a target");
        assert_eq!((target.debian_architecture(), target.is_static()), (architecture, is_static), "{target}");
    }
}

proptest! {
    /// An older release is never taken, and what is not older always.
    #[test]
    fn the_order_is_semvers(a in (0u64..4, 0u64..12, 0u64..12, 0u8..3), b in (0u64..4, 0u64..12, 0u64..12, 0u8..3)) {
        let text = |(major, minor, patch, pre): (u64, u64, u64, u8)| match pre {
            0 => format!("{major}.{minor}.{patch}"),
            pre => format!("{major}.{minor}.{patch}-rc.{pre}"),
        };
        // A release comes after its candidates.
        let rank = |(major, minor, patch, pre): (u64, u64, u64, u8)| (major, minor, patch, pre == 0, pre);
        let found = check(&text(a), X86, Some(&text(b)), 1, Some("for x86"));
        prop_assert_eq!(found.starts_with("takes"), rank(a) >= rank(b), "{}", found);
    }

    /// Whatever bit is changed, it is refused or the same.
    #[test]
    fn a_changed_bit_is_never_another_release(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let good = sign(&release("0.2.0"), &[30, 31]);
        let mut bytes = good.to_json().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(envelope) = Release::envelope(&bytes)
            && let Ok(verified) = verify(&envelope)
        {
            prop_assert_eq!(verified.release(), &release("0.2.0"));
        }
    }

    /// A changed file is refused, wherever and however.
    #[test]
    fn a_changed_byte_of_the_file_is_refused(at in 0usize..7, byte in any::<u8>()) {
        let mut file = b"for x86".to_vec();
        file[at] = byte;
        let same = file == b"for x86";
        let text = String::from_utf8_lossy(&file).into_owned();
        prop_assert_eq!(check("0.2.0", X86, None, 1, Some(&text)).starts_with("takes"), same || text == "for arm");
    }
}
