//! A bundle's manifest: what a publisher signs. y = f(x; θ): each variant names its graph f and
//! its weights θ by separate digests, so two versions can be compared part by part.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::checks::{self, Check};
use crate::id::{ModelName, UnixMs, VariantName, Version};
use crate::limits::{
    FILE_BYTES_MAX, GOLDEN_BYTES_MAX, MANIFEST_BYTES_MAX, PORTS_MAX, RANK_MAX, TENSORS_MAX, VARIANTS_MAX,
};
use crate::root::TrustedRoot;
use crate::signing::key::KeyId;
use crate::signing::{Envelope, VerifyError, payload_type};

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The model's name.
    pub model: ModelName,
    /// The version; one version is one bundle.
    pub version: Version,
    /// When it was packed.
    pub created_ms: UnixMs,
    /// What the model takes, in the graph's order.
    pub inputs: Vec<Port>,
    /// What the model gives, in the graph's order.
    pub outputs: Vec<Port>,
    /// At least one; the first is the reference that the others derive from.
    pub variants: Vec<Variant>,
    /// Inputs with expected outputs, checked on the device before the model serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<FileRef>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Port {
    /// The name in the graph.
    pub name: String,
    /// The element type.
    pub dtype: Dtype,
    /// Sizes; `null` where any size goes (the batch, usually the first).
    pub shape: Vec<Option<u32>>,
}

/// Element types that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[allow(missing_docs)]
pub enum Dtype {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
    /// Texts, or any bytes.
    String,
}

impl Dtype {
    /// Bytes of one element; none where elements have sizes of their own.
    pub fn size_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::U16 | Self::I16 | Self::F16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String => None,
        }
    }

    /// Its name in manifests: `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::String => "string",
        }
    }
}

/// One form of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variant {
    /// `fp32`, `int8`, …
    pub name: VariantName,
    /// What the file is.
    pub format: Format,
    /// The file.
    pub file: FileRef,
    /// The digest of f: the graph with its weights taken out.
    pub graph: Digest,
    /// The digest of θ: over the list of `tensors`.
    pub weights: Digest,
    /// θ tensor by tensor, sorted by name.
    pub tensors: Vec<TensorDigest>,
}

/// File formats of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Open Neural Network Exchange.
    Onnx,
}

/// One tensor of θ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TensorDigest {
    /// Its name in the file.
    pub name: String,
    /// The digest of its type, shape and data.
    pub sha256: Digest,
}

/// A file, by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileRef {
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Digest,
    /// The digest of its chunk index ([`crate::chunk::ChunkIndex`]).
    pub chunk_index: Digest,
}

impl FileRef {
    /// The reference to a file at hand.
    pub fn of(file: &[u8]) -> Self {
        let chunk_index = crate::chunk::ChunkIndex::of(file).digest();
        Self { bytes: file.len() as u64, sha256: Digest::of(file), chunk_index }
    }
}

/// Why a manifest is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// No publisher of this model signed it.
    #[error("no publisher that the root names for this model signed the manifest")]
    Signature(#[from] VerifyError),
    /// The payload is no manifest.
    #[error("the manifest cannot be read: {0}")]
    Malformed(String),
    /// Not the manifest that was asked for.
    #[error("the manifest's digest is {found}, wanted {wanted}")]
    OtherManifest {
        /// What was asked for.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
}

/// Proof that a publisher, who may publish this model, signed this manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedManifest {
    manifest: Manifest,
    digest: Digest,
    signers: Vec<KeyId>,
}

impl VerifiedManifest {
    /// Signature first, parsing second, then whether the signer may publish this very model.
    pub fn verify(envelope: &Envelope, root: &TrustedRoot) -> Result<Self, ManifestError> {
        let payload = envelope.verify(payload_type::MANIFEST, &root.publishers(), 1)?;
        let manifest = Manifest::parse(payload)?;
        let publishers = root.publishers_of(&manifest.model);
        let (payload, signers) = envelope.verified_by(payload_type::MANIFEST, &publishers, 1)?;
        let digest = Digest::of(payload);
        Ok(Self { manifest, digest, signers })
    }

    /// Like [`VerifiedManifest::verify`], for the one manifest that a desired state names.
    pub fn verify_named(envelope: &Envelope, root: &TrustedRoot, wanted: Digest) -> Result<Self, ManifestError> {
        let found = Digest::of(&envelope.payload);
        if checks::on(Check::ManifestDigest) && found != wanted {
            return Err(ManifestError::OtherManifest { wanted, found });
        }
        Self::verify(envelope, root)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the signed payload: the bundle's name for machines.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose signatures held.
    pub fn signers(&self) -> &[KeyId] {
        &self.signers
    }
}

impl Manifest {
    /// The bytes that are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        // A tree of strings and numbers always becomes JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The variant with this name.
    pub fn variant(&self, name: &VariantName) -> Option<&Variant> {
        self.variants.iter().find(|variant| &variant.name == name)
    }

    /// Each file once: variants, golden vectors.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.variants.iter().map(|variant| &variant.file).chain(&self.golden)
    }

    /// Reads and checks a payload. Proves nothing about who wrote it: `muster inspect` and `muster
    /// pack` use it on files at hand; what came from elsewhere goes through [`VerifiedManifest`].
    pub fn parse(payload: &[u8]) -> Result<Self, ManifestError> {
        let malformed = |text: String| Err(ManifestError::Malformed(text));
        if payload.len() > MANIFEST_BYTES_MAX {
            return malformed(format!("{} bytes, more than {MANIFEST_BYTES_MAX}", payload.len()));
        }
        let manifest: Self =
            serde_json::from_slice(payload).map_err(|error| ManifestError::Malformed(error.to_string()))?;
        let Self { inputs, outputs, variants, golden, .. } = &manifest;
        if variants.is_empty() || variants.len() > VARIANTS_MAX {
            return malformed(format!("{} variants; 1 to {VARIANTS_MAX} go", variants.len()));
        }
        for (what, ports) in [("inputs", inputs), ("outputs", outputs)] {
            if ports.is_empty() || ports.len() > PORTS_MAX {
                return malformed(format!("{} {what}; 1 to {PORTS_MAX} go", ports.len()));
            }
            if let Some(port) = ports.iter().find(|port| port.shape.len() > RANK_MAX) {
                return malformed(format!("{:?} has more than {RANK_MAX} dimensions", port.name));
            }
        }
        for (at, variant) in variants.iter().enumerate() {
            if variants[..at].iter().any(|earlier| earlier.name == variant.name) {
                return malformed(format!("variant {} stands twice", variant.name));
            }
            if variant.tensors.len() > TENSORS_MAX {
                return malformed(format!("variant {} lists more than {TENSORS_MAX} tensors", variant.name));
            }
        }
        if let Some(file) = manifest.files().find(|file| file.bytes == 0 || file.bytes > FILE_BYTES_MAX) {
            return malformed(format!("a file of {} bytes; 1 to {FILE_BYTES_MAX} go", file.bytes));
        }
        if golden.as_ref().is_some_and(|file| file.bytes > GOLDEN_BYTES_MAX) {
            return malformed(format!("golden vectors of more than {GOLDEN_BYTES_MAX} bytes"));
        }
        Ok(manifest)
    }
}

/// The digest of θ over its tensors, which must be sorted by name.
pub fn weights_digest(tensors: &[TensorDigest]) -> Digest {
    let mut hasher = crate::digest::Hasher::new();
    for tensor in tensors {
        hasher.update((tensor.name.len() as u64).to_le_bytes());
        hasher.update(&tensor.name);
        hasher.update(tensor.sha256.0);
    }
    hasher.finish()
}

/// How θ changed between two variants, tensor by tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightsChange {
    /// Tensors that are not the same in both.
    pub changed: usize,
    /// Tensors in either.
    pub all: usize,
}

/// Compares θ of two variants: "θ changed in 2 of 14 tensors".
pub fn weights_change(old: &Variant, new: &Variant) -> WeightsChange {
    let map = |variant: &Variant| -> std::collections::BTreeMap<String, Digest> {
        variant.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.sha256)).collect()
    };
    let (old, new) = (map(old), map(new));
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.iter().filter(|name| old.get(**name) != new.get(**name)).count();
    WeightsChange { changed, all: names.len() }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::root::{Publisher, Role, Root};
    use crate::signing::key::SecretKey;

    pub(crate) fn manifest() -> Manifest {
        let tensors = vec![TensorDigest { name: "w".into(), sha256: Digest::of("w") }];
        Manifest {
            model: "digits".parse().expect("a name"),
            version: Version::new(1).expect("positive"),
            created_ms: 1_700_000_000_000,
            inputs: vec![Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None, Some(64)] }],
            outputs: vec![Port { name: "y".into(), dtype: Dtype::F32, shape: vec![None, Some(10)] }],
            variants: vec![Variant {
                name: "fp32".parse().expect("a name"),
                format: Format::Onnx,
                file: FileRef::of(b"model"),
                graph: Digest::of("graph"),
                weights: weights_digest(&tensors),
                tensors,
            }],
            golden: None,
        }
    }

    fn root(publisher: u8, models: Option<Vec<ModelName>>) -> TrustedRoot {
        let key = |seed: u8| SecretKey::from_seed([seed; 32]);
        let role = Role { threshold: 1, keys: vec![key(1).public()] };
        let root = Root {
            fleet: "home".parse().expect("a fleet id"),
            version: 1,
            epoch: 1,
            expires_ms: 1,
            root: role.clone(),
            publishers: vec![Publisher { key: key(publisher).public(), models }],
            directors: vec![],
            release: role,
            compromised: vec![],
        };
        let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key(1)]);
        TrustedRoot::self_signed(&envelope).expect("a root")
    }

    #[test]
    fn only_a_publisher_of_this_model_makes_it_verified() {
        let key = SecretKey::from_seed([9; 32]);
        let envelope = Envelope::sign(payload_type::MANIFEST, manifest().to_payload(), &[&key]);
        let verified = VerifiedManifest::verify(&envelope, &root(9, None)).expect("signed by a publisher");
        assert_eq!(verified.manifest(), &manifest());
        assert!(VerifiedManifest::verify(&envelope, &root(8, None)).is_err());
        let others = vec!["other".parse().expect("a name")];
        assert!(VerifiedManifest::verify(&envelope, &root(9, Some(others))).is_err());
        let wanted = Digest::of("another");
        assert!(VerifiedManifest::verify_named(&envelope, &root(9, None), wanted).is_err());
    }

    #[test]
    fn every_changed_byte_of_a_signed_manifest_is_noticed() {
        let key = SecretKey::from_seed([9; 32]);
        let good = Envelope::sign(payload_type::MANIFEST, manifest().to_payload(), &[&key]);
        for at in 0..good.payload.len() {
            let mut bad = good.clone();
            bad.payload[at] ^= 1;
            assert!(VerifiedManifest::verify(&bad, &root(9, None)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn unknown_fields_and_broken_bounds_are_malformed() {
        let mut json: serde_json::Value = serde_json::from_slice(&manifest().to_payload()).expect("JSON");
        assert!(Manifest::parse(json.to_string().as_bytes()).is_ok());
        json["recipe"] = 1.into();
        assert!(Manifest::parse(json.to_string().as_bytes()).is_err());
        let none = Manifest { variants: vec![], ..manifest() };
        assert!(Manifest::parse(&none.to_payload()).is_err());
        let mut twice = manifest();
        twice.variants.push(twice.variants[0].clone());
        assert!(Manifest::parse(&twice.to_payload()).is_err());
        let mut empty = manifest();
        empty.variants[0].file.bytes = 0;
        assert!(Manifest::parse(&empty.to_payload()).is_err());
    }

    #[test]
    fn two_versions_are_told_apart_tensor_by_tensor() {
        let old = manifest().variants.remove(0);
        let mut new = old.clone();
        new.tensors.push(TensorDigest { name: "b".into(), sha256: Digest::of("b") });
        assert_eq!(weights_change(&old, &new), WeightsChange { changed: 1, all: 2 });
        assert_eq!(weights_change(&old, &old), WeightsChange { changed: 0, all: 1 });
    }
}
