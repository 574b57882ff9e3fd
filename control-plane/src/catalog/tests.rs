//! Bundles from the first byte of a manifest to the last of a file.

use axum::body::Body;
use muster_shared::signing::key::SecretKey;
use tempfile::TempDir;

use super::*;
use crate::plane::Plane;
use crate::testing::{self, file, manifest, publisher, signed};

async fn push(plane: &Plane, envelope: &Envelope) -> Result<PushStatus, CatalogError> {
    let root = plane.trust.newest();
    plane.catalog.push(&plane.db, &plane.blobs, root.as_deref(), envelope).await
}

async fn upload(plane: &Plane, file: Digest, bytes: &'static [u8]) -> Result<bool, CatalogError> {
    plane.catalog.receive(&plane.db, &plane.blobs, file, Body::from(bytes).into_data_stream()).await
}

async fn complete(plane: &Plane) -> Vec<bool> {
    let views = plane.catalog.views(&plane.db).await.expect("lists");
    views.iter().map(|view| view.complete).collect()
}

async fn plane() -> (Arc<Plane>, TempDir) {
    testing::plane().await
}

#[tokio::test]
async fn a_bundle_is_whole_once_its_last_file_came() {
    let (plane, _folder) = plane().await;
    let bundle = manifest("digits", 1, file(b"model"), Some(file(b"golden")));
    let envelope = signed(&bundle, &publisher());
    let status = push(&plane, &envelope).await.expect("accepted");
    assert_eq!(status.missing, [file(b"model"), file(b"golden")]);
    assert!(!upload(&plane, file(b"model").sha256, b"model").await.expect("arrives"));
    assert_eq!(complete(&plane).await, [false]);
    // Pushed again after a break, it goes on where it stopped.
    assert_eq!(push(&plane, &envelope).await.expect("accepted").missing, [file(b"golden")]);
    assert!(upload(&plane, file(b"golden").sha256, b"golden").await.expect("arrives"));
    assert!(!upload(&plane, file(b"golden").sha256, b"golden").await.expect("again"));
    assert_eq!(complete(&plane).await, [true]);
    assert!(push(&plane, &envelope).await.expect("accepted").missing.is_empty());
    // The chunk indexes and the envelope are blobs, as devices fetch them.
    let records = db::bundles::list(plane.db.read()).await.expect("lists");
    for blob in [file(b"model").chunk_index, file(b"golden").chunk_index, records[0].envelope.sha256] {
        assert!(plane.blobs.bytes(blob).await.expect("asks").is_some());
    }
    let bytes = plane.blobs.read(records[0].envelope.sha256, 1 << 20).await.expect("reads").expect("there");
    assert_eq!(serde_json::from_slice::<Envelope>(&bytes).expect("JSON"), envelope);
}

#[tokio::test]
async fn a_version_is_one_bundle_and_a_stranger_signs_none() {
    let (plane, _folder) = plane().await;
    push(&plane, &signed(&manifest("digits", 1, file(b"model"), None), &publisher())).await.expect("accepted");
    let other = signed(&manifest("digits", 1, file(b"other"), None), &publisher());
    assert!(matches!(push(&plane, &other).await, Err(CatalogError::OtherBundle { .. })));
    let stranger = SecretKey::from_seed([99; 32]);
    let forged = signed(&manifest("digits", 2, file(b"model"), None), &stranger);
    assert!(matches!(push(&plane, &forged).await, Err(CatalogError::Manifest(_))));
    let mut changed = signed(&manifest("digits", 2, file(b"model"), None), &publisher());
    changed.payload[10] ^= 1;
    assert!(matches!(push(&plane, &changed).await, Err(CatalogError::Manifest(_))));
    let (bare, _folder) = testing::bare_plane().await;
    assert!(matches!(push(&bare, &other).await, Err(CatalogError::NoRoot)));
}

#[tokio::test]
async fn only_the_announced_bytes_are_stored() {
    let (plane, _folder) = plane().await;
    let unnamed = Digest::of("model");
    assert!(matches!(upload(&plane, unnamed, b"model").await, Err(CatalogError::NotNamed(_))));
    push(&plane, &signed(&manifest("digits", 1, file(b"model"), None), &publisher())).await.expect("accepted");
    for bytes in [&b"mode"[..], b"modem", b"models"] {
        assert!(matches!(upload(&plane, unnamed, bytes).await, Err(CatalogError::Blob(BlobError::Other { .. }))));
    }
    let wrong_index = FileRef { chunk_index: Digest::of("index"), ..file(b"weights") };
    let bundle = manifest("digits", 2, wrong_index, None);
    push(&plane, &signed(&bundle, &publisher())).await.expect("accepted");
    let uploaded = upload(&plane, file(b"weights").sha256, b"weights").await;
    assert!(matches!(uploaded, Err(CatalogError::OtherIndex { .. })));
    assert_eq!(complete(&plane).await, [false, false]);
    assert!(upload(&plane, unnamed, b"model").await.expect("arrives"));
    assert_eq!(complete(&plane).await, [true, false]);
}

#[tokio::test]
async fn a_file_of_two_bundles_is_sent_once() {
    let (plane, _folder) = plane().await;
    for version in [1, 2] {
        push(&plane, &signed(&manifest("digits", version, file(b"model"), None), &publisher()))
            .await
            .expect("accepted");
    }
    assert!(upload(&plane, file(b"model").sha256, b"model").await.expect("arrives"));
    assert_eq!(complete(&plane).await, [true, true]);
    let third = signed(&manifest("digits", 3, file(b"model"), None), &publisher());
    assert!(push(&plane, &third).await.expect("accepted").missing.is_empty());
    assert_eq!(complete(&plane).await, [true, true, true]);
}
