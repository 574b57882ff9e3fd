//! Keys, the fleet's root, and signed bundles, made as the programs make them.

use std::collections::BTreeMap;

use muster_control_plane_core::fleet::{Bundle, Bundles};
use muster_shared::chunk::ChunkIndex;
use muster_shared::desired::BlobRef;
use muster_shared::id::UnixMs;
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, Variant, weights_digest};
use muster_shared::root::{Publisher, Role, Root, TrustedRoot};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, ModelName, Version};

use crate::rng::Rng;

/// How a bundle turns out on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It serves.
    Good,
    /// Its outputs are not the golden ones.
    WrongGolden,
    /// It passes its check and dies while it is watched.
    Crashes,
    /// It passes its check, and needs more memory than any grant while it is watched.
    Grows,
}

/// Everything that was ever signed.
#[derive(Debug)]
pub struct Catalog {
    root_key: SecretKey,
    publisher: SecretKey,
    director: SecretKey,
    roots: Vec<Envelope>,
    newest: TrustedRoot,
    bundles: Bundles,
    /// What each manifest's bundle consists of.
    parts: BTreeMap<Digest, Vec<Digest>>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    natures: BTreeMap<Digest, Nature>,
}

impl Catalog {
    /// A catalog with a first root and no bundle.
    pub fn new(rng: &mut Rng) -> Self {
        let mut key = || {
            let mut seed = [0; 32];
            seed[..16].copy_from_slice(&rng.bytes());
            seed[16..].copy_from_slice(&rng.bytes());
            SecretKey::from_seed(seed)
        };
        let (root_key, publisher, director) = (key(), key(), key());
        let role = Role { threshold: 1, keys: vec![root_key.public()] };
        let root = Root {
            fleet: name("sim"),
            version: 1,
            epoch: 1,
            expires_ms: UnixMs::MAX,
            root: role.clone(),
            publishers: vec![Publisher { key: publisher.public(), models: None }],
            directors: vec![director.public()],
            release: role,
            compromised: vec![],
        };
        let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&root_key]);
        let newest = must(TrustedRoot::self_signed(&envelope));
        Self {
            root_key,
            publisher,
            director,
            roots: vec![envelope],
            newest,
            bundles: Bundles::new(),
            parts: BTreeMap::new(),
            blobs: BTreeMap::new(),
            natures: BTreeMap::new(),
        }
    }

    /// The owner signs the next root: another director, and with `epoch` a new epoch.
    pub fn rotate(&mut self, rng: &mut Rng, epoch: bool) {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(&rng.bytes());
        self.director = SecretKey::from_seed(seed);
        let held = self.newest.root();
        let root = Root {
            version: held.version + 1,
            epoch: held.epoch + u64::from(epoch),
            directors: vec![self.director.public()],
            ..held.clone()
        };
        let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&self.root_key]);
        self.newest = must(self.newest.follow(&envelope));
        self.roots.push(envelope);
    }

    /// A publisher pushes the next version of a model.
    pub fn push(&mut self, model: &ModelName, nature: Nature, rng: &mut Rng) -> Version {
        let next = self.bundles.get(model).and_then(|versions| versions.last_key_value());
        let version = must(Version::new(next.map_or(1, |(last, _)| last.get() + 1)).ok_or("positive"));
        // Files from less than a frame up to more than a chunk.
        let bytes = *rng.pick(&[700u64, 9_000, 33_000, 70_000, 140_000]);
        let mut file: Vec<u8> = format!("{model} {version} ").into_bytes();
        file.resize(bytes as usize, version.get() as u8);
        let golden = format!("golden vectors of {model} {version}").into_bytes();
        let port = Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None] };
        let manifest = Manifest {
            model: model.clone(),
            version,
            created_ms: 1,
            inputs: vec![port.clone()],
            outputs: vec![port],
            variants: vec![Variant {
                name: name("fp32"),
                format: Format::Onnx,
                file: FileRef::of(&file),
                graph: Digest::of("f"),
                weights: weights_digest(&[]),
                tensors: vec![],
            }],
            golden: Some(FileRef::of(&golden)),
        };
        let envelope = Envelope::sign(payload_type::MANIFEST, manifest.to_payload(), &[&self.publisher]);
        let digest = Digest::of(&envelope.payload);
        let envelope = envelope.to_json().into_bytes();
        let reference = BlobRef { sha256: Digest::of(&envelope), bytes: envelope.len() as u64 };
        let indexes = [ChunkIndex::of(&file).to_bytes(), ChunkIndex::of(&golden).to_bytes()];
        let mut parts = Vec::new();
        for blob in [file, golden, envelope].into_iter().chain(indexes) {
            parts.push(Digest::of(&blob));
            self.blobs.insert(Digest::of(&blob), blob);
        }
        self.parts.insert(digest, parts);
        self.natures.insert(digest, nature);
        let variants = vec![(name("fp32"), Format::Onnx)];
        let bundle = Bundle { manifest: digest, envelope: reference, variants, barred: None };
        self.bundles.entry(model.clone()).or_default().insert(version, bundle);
        version
    }

    /// The bundles, as the planner knows them.
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// The newest root.
    pub fn root(&self) -> &TrustedRoot {
        &self.newest
    }

    /// The roots after a version, in order.
    pub fn roots_after(&self, version: u64) -> &[Envelope] {
        self.roots.get(version as usize..).unwrap_or_default()
    }

    /// The first root, which every device pins.
    pub fn first_root(&self) -> &Envelope {
        &self.roots[0]
    }

    /// Who signs desired states now.
    pub fn director(&self) -> &SecretKey {
        &self.director
    }

    /// The bytes of a blob, if a bundle of one of these manifests has it.
    pub fn blob(&self, blob: Digest, mut manifests: impl Iterator<Item = Digest>) -> Option<&[u8]> {
        let has = |manifest| self.parts.get(&manifest).is_some_and(|parts| parts.contains(&blob));
        manifests.any(has).then(|| self.blobs.get(&blob).map(Vec::as_slice)).flatten()
    }

    /// How a bundle turns out.
    pub fn nature(&self, manifest: Digest) -> Nature {
        self.natures.get(&manifest).copied().unwrap_or(Nature::WrongGolden)
    }
}

/// A name that is known to be one.
pub fn name<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    must(text.parse())
}

/// What the simulator itself makes is well made; anything else is a mistake of the simulator.
#[track_caller]
pub fn must<T, E: std::fmt::Debug>(made: Result<T, E>) -> T {
    match made {
        Ok(made) => made,
        Err(error) => panic!("the simulator made something wrong: {error:?}"),
    }
}
