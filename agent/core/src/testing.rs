//! What the tests of several modules begin with: keys, a fleet's root, a slot.

use muster_shared::desired::{BlobRef, Resources, SlotSpec};
use muster_shared::floor::Floor;
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, Variant, weights_digest};
use muster_shared::root::{Publisher, Role, Root, TrustedRoot};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, Version};

/// The seed of the root's own key.
pub const ROOT: u8 = 1;
/// The seed of the director's key.
pub const DIRECTOR: u8 = 2;
/// The seed of the publisher's key.
pub const PUBLISHER: u8 = 9;

/// The key that grows from a seed.
pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

/// A root of the fleet `home` that lasts as long as any test.
pub fn root() -> Root {
    let role = Role { threshold: 1, keys: vec![key(ROOT).public()] };
    Root {
        fleet: "home".parse().unwrap(),
        version: 1,
        epoch: 1,
        expires_ms: 1_000_000,
        root: role.clone(),
        publishers: vec![Publisher { key: key(PUBLISHER).public(), models: None }],
        directors: vec![key(DIRECTOR).public()],
        release: role,
        compromised: vec![],
    }
}

/// A root as it travels.
pub fn signed(root: &Root) -> Envelope {
    Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key(ROOT)])
}

/// A root that is believed.
pub fn trusted(root: &Root) -> TrustedRoot {
    TrustedRoot::self_signed(&signed(root)).unwrap()
}

/// A slot of the model `digits`.
pub fn spec(deployment: &str, version: u64) -> SlotSpec {
    SlotSpec {
        deployment: deployment.parse().unwrap(),
        served_as: None,
        model: "digits".parse().unwrap(),
        version: Version::new(version).unwrap(),
        manifest: Digest::of(version.to_le_bytes()),
        envelope: BlobRef { sha256: Digest::of("envelope"), bytes: 1 },
        variant: "fp32".parse().unwrap(),
        resources: Resources { cpu_milli: 1, memory_bytes: 1 },
        probation_ms: 0,
        attempt: 0,
        swap_in_place: false,
        floor: None,
    }
}

/// The manifest of a version of a model, and its slot in the deployment of the model's name; signed by the
/// key that grows from `publisher`.
pub fn manifest(model: &str, version: u64, publisher: u8) -> (Envelope, SlotSpec) {
    let port = Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None] };
    let manifest = Manifest {
        model: model.parse().unwrap(),
        version: Version::new(version).unwrap(),
        created_ms: u64::from(publisher),
        inputs: vec![port.clone()],
        outputs: vec![port],
        variants: vec![Variant {
            name: "fp32".parse().unwrap(),
            format: Format::Onnx,
            file: FileRef::of(b"the model"),
            graph: Digest::of("f"),
            weights: weights_digest(&[]),
            tensors: vec![],
        }],
        golden: None,
    };
    let envelope = Envelope::sign(payload_type::MANIFEST, manifest.to_payload(), &[&key(publisher)]);
    let bytes = envelope.to_json().into_bytes();
    let spec = SlotSpec {
        model: manifest.model,
        manifest: Digest::of(&envelope.payload),
        envelope: BlobRef { sha256: Digest::of(&bytes), bytes: bytes.len() as u64 },
        ..spec(model, version)
    };
    (envelope, spec)
}

/// A version floor, signed by the key that grows from `publisher`.
pub fn floor(model: &str, version: u64, publisher: u8) -> Envelope {
    let floor = Floor {
        fleet: "home".parse().unwrap(),
        model: model.parse().unwrap(),
        version: Version::new(version).unwrap(),
        issued_ms: 5,
    };
    Envelope::sign(payload_type::FLOOR, floor.to_payload(), &[&key(publisher)])
}

/// Engines that take what the tests' manifests say.
pub fn software() -> crate::verify::bundle::Software {
    crate::verify::bundle::Software { formats: vec![Format::Onnx], dtypes: vec![Dtype::F32] }
}
