//! A plane without listeners, for tests of its parts.

pub(crate) mod device;

use std::sync::Arc;

use muster_shared::chunk::ChunkIndex;
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, TensorDigest, Variant, weights_digest};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, Version};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;
use crate::trust::roles::tests::signed_root;

/// A plane in a folder that lives as long as the handle, without a root.
pub(crate) async fn bare_plane() -> (Arc<Plane>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = crate::Settings { device_life: crate::trust::ca::DEVICE_LIFE, revocations: None, restored: false };
    let plane = crate::open_plane(folder.path(), settings, CancellationToken::new()).await.expect("a plane");
    (Arc::new(plane), folder)
}

/// A plane that has a root.
pub(crate) async fn plane() -> (Arc<Plane>, TempDir) {
    let (plane, folder) = bare_plane().await;
    let root = signed_root(1, 1, plane.director.public());
    plane.trust.add(&plane.db, &root).await.expect("a root");
    (plane, folder)
}

/// The publisher that the root of [`plane`] names.
pub(crate) fn publisher() -> SecretKey {
    SecretKey::from_seed([10; 32])
}

/// A file as a manifest names it.
pub(crate) fn file(bytes: &[u8]) -> FileRef {
    FileRef { bytes: bytes.len() as u64, sha256: Digest::of(bytes), chunk_index: ChunkIndex::of(bytes).digest() }
}

/// A manifest of one variant.
pub(crate) fn manifest(model: &str, version: u64, variant: FileRef, golden: Option<FileRef>) -> Manifest {
    let tensors = vec![TensorDigest { name: "w".into(), sha256: Digest::of("w") }];
    let port = |name: &str| Port { name: name.into(), dtype: Dtype::F32, shape: vec![None, Some(4)] };
    Manifest {
        model: model.parse().expect("a name"),
        version: Version::new(version).expect("positive"),
        created_ms: 1,
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        variants: vec![Variant {
            name: "fp32".parse().expect("a name"),
            format: Format::Onnx,
            file: variant,
            graph: Digest::of("graph"),
            weights: weights_digest(&tensors),
            tensors,
        }],
        golden,
    }
}

/// A manifest signed by `key`.
pub(crate) fn signed(manifest: &Manifest, key: &SecretKey) -> Envelope {
    Envelope::sign(payload_type::MANIFEST, manifest.to_payload(), &[key])
}
