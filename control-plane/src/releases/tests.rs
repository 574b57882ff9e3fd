use axum::body::Body;
use muster_shared::release::ArtifactKind;
use muster_shared::root::Role;
use muster_shared::signing::payload_type;

use super::*;
use crate::testing::plane;
use crate::trust::roles::tests::{key, root, sign_root};

fn release(version: &str, content: &str) -> Release {
    let artifact = Artifact {
        target: "x86_64-unknown-linux-gnu".parse().expect("a target"),
        kind: ArtifactKind::Package,
        name: "agent.deb".parse().expect("a name"),
        bytes: content.len() as u64,
        sha256: Digest::of(content),
    };
    Release { version: version.parse().expect("a version"), issued_ms: 1, artifacts: vec![artifact] }
}

fn sign(release: &Release, seed: u8) -> Envelope {
    Envelope::sign(payload_type::RELEASE, release.to_payload(), &[&key(seed)])
}

#[tokio::test]
async fn an_older_release_is_kept_and_not_offered_and_whose_signer_is_gone_is_not_either() {
    let (plane, _folder) = plane().await;
    let (releases, name) = (&plane.releases, "agent.deb".parse().expect("a name"));
    let push = async |version: &str, content: &str, seed: u8| {
        let root = plane.trust.newest();
        let envelope = sign(&release(version, content), seed);
        let pushed = releases.push(&plane.db, &plane.blobs, root.as_deref(), &envelope).await?;
        let version = &pushed.version;
        if !pushed.missing.is_empty() {
            let body = Body::from(content.to_owned()).into_data_stream();
            releases.receive(&plane.blobs, version, &name, body).await?;
        }
        Ok::<_, CannotRelease>(pushed.newer.map(|version| version.to_string()))
    };
    let offered = async || {
        let root = plane.trust.newest();
        let views = releases.list(&plane.blobs, root.as_deref()).await.expect("a list");
        let told = views.iter().map(|view| {
            let mark = if view.offered { "*" } else { "" };
            format!("{}{mark}", view.version)
        });
        told.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(offered().await, "");
    for seed in [10, 20, 1, 99] {
        assert!(matches!(push("0.9.0", "nine", seed).await, Err(CannotRelease::Release(_))), "{seed}");
    }
    assert_eq!(push("0.9.0", "nine", 30).await.expect("pushed"), None);
    assert_eq!(push("0.10.0", "ten", 30).await.expect("pushed"), None);
    assert_eq!(push("0.8.0", "eight", 30).await.expect("kept"), Some("0.10.0".to_owned()));
    assert_eq!(offered().await, "0.10.0* 0.9.0 0.8.0");
    assert!(matches!(push("0.10.0", "another", 30).await, Err(CannotRelease::Other(_))));
    // One whose files are not all here is not offered.
    let root_now = plane.trust.newest();
    let envelope = sign(&release("0.11.0", "eleven"), 30);
    releases.push(&plane.db, &plane.blobs, root_now.as_deref(), &envelope).await.expect("pushed");
    assert_eq!(offered().await, "0.11.0 0.10.0* 0.9.0 0.8.0");
    let other = Body::from("eleveN").into_data_stream();
    let version = "0.11.0".parse().expect("a version");
    assert!(releases.receive(&plane.blobs, &version, &name, other).await.is_err());
    assert_eq!(offered().await, "0.11.0 0.10.0* 0.9.0 0.8.0");

    let again = Releases::open(&plane.db).await.expect("reads them");
    assert_eq!(again.all().len(), 4);

    // Another release signer, and what the first one signed is not offered until it is signed anew.
    let mut next = root(2, 1, plane.director.public());
    next.release = Role { threshold: 1, keys: vec![key(31).public()] };
    plane.trust.add(&plane.db, &sign_root(&next)).await.expect("a root");
    assert_eq!(offered().await, "0.11.0 0.10.0 0.9.0 0.8.0");
    push("0.9.0", "nine", 31).await.expect("signed anew");
    assert_eq!(offered().await, "0.11.0 0.10.0 0.9.0* 0.8.0");
}
