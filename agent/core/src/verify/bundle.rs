//! Whether the bundle that a slot names may come here and run.
//!
//! The declared length first, before anything is asked for; then the manifest's digest and signature, the
//! model and the version that the slot says, and whether this device has the software for it. That proves
//! a bundle. Whether it may begin now is asked last: its floor, the floor that the director knows, the
//! desired state itself, and the room that the owner gives.

use std::collections::BTreeMap;

use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use muster_shared::desired::SlotSpec;
use muster_shared::id::{UnixMs, VariantName};
use muster_shared::limits::MANIFEST_BYTES_MAX;
use muster_shared::manifest::{Dtype, Format, Manifest, ManifestError, VerifiedManifest};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::signing::key::KeyId;
use serde::{Deserialize, Serialize};

use super::desired::AcceptedDesired;
use super::floors::Floors;

/// What the device's engines take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Software {
    /// File formats.
    pub formats: Vec<Format>,
    /// Element types of inputs and outputs.
    pub dtypes: Vec<Dtype>,
}

/// What decides whether a bundle may begin.
#[derive(Debug, Clone, Copy)]
pub struct Beliefs<'a> {
    /// The root.
    pub root: &'a TrustedRoot,
    /// Version floors.
    pub floors: &'a Floors,
    /// What can run here.
    pub software: &'a Software,
    /// The desired state that bundles come for.
    pub desired: Option<&'a AcceptedDesired>,
    /// Why nothing new begins here at present, if so: the device does not know what it must.
    pub not_now: Option<&'a str>,
    /// Bundles that are in use here.
    pub known: &'a BTreeMap<Digest, Known>,
    /// Bytes of files that the owner gives to all bundles together; none: any.
    pub disk_bytes: Option<u64>,
    /// The time by which expiry is judged.
    pub wall_ms: UnixMs,
}

/// Files by their digests, with their bytes.
pub type Files = BTreeMap<Digest, u64>;

/// What stays known of a bundle after its manifest was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whose signatures held then.
    pub signers: Vec<KeyId>,
    /// The envelope that carried them.
    pub envelope: Digest,
    /// Of each variant in use here, its files.
    pub files: BTreeMap<VariantName, Files>,
}

/// A version that passed its probation here, with what a reboot must know to judge it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The slot.
    pub spec: SlotSpec,
    /// Whose signatures held when its manifest was verified; none: kept by an agent that did not say.
    pub signers: Vec<KeyId>,
    /// Its files.
    pub files: Files,
}

/// Why a bundle does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// It must not run here.
    #[error("{0}")]
    Untrusted(String),
    /// Not now: it goes on by itself when what is missing has come.
    #[error("{0}")]
    Waits(String),
}

/// Whether the manifest's declared length is within its bound: it is gathered in memory before its digest
/// can be known.
pub fn declared_length(spec: &SlotSpec) -> Result<(), NotBegun> {
    let bytes = spec.envelope.bytes;
    if checks::on(Check::DeclaredLength) && bytes > MANIFEST_BYTES_MAX as u64 {
        return Err(NotBegun::Untrusted(format!(
            "the desired state declares a manifest of {bytes} bytes; {MANIFEST_BYTES_MAX} go"
        )));
    }
    Ok(())
}

/// The manifest that a slot names, if a publisher signed it, it is what the slot says, and this device can
/// run it.
pub fn read_manifest(
    bytes: &[u8],
    spec: &SlotSpec,
    root: &TrustedRoot,
    software: &Software,
) -> Result<VerifiedManifest, NotBegun> {
    let envelope = read_envelope(bytes).map_err(NotBegun::Untrusted)?;
    let verified = VerifiedManifest::verify_named(&envelope, root, spec.manifest).map_err(|error| {
        NotBegun::Untrusted(match error {
            ManifestError::Signature(ref source) => format!("{error}: {source}"),
            other => other.to_string(),
        })
    })?;
    let manifest = verified.manifest();
    let other = manifest.model != spec.model || manifest.version != spec.version;
    if checks::on(Check::ManifestIdentity) && other {
        return Err(NotBegun::Untrusted(format!(
            "the desired state says {} version {}, the manifest it names is {} version {}",
            spec.model, spec.version, manifest.model, manifest.version
        )));
    }
    if checks::on(Check::Software) {
        runs_here(manifest, spec, software).map_err(NotBegun::Untrusted)?;
    }
    Ok(verified)
}

fn runs_here(manifest: &Manifest, spec: &SlotSpec, software: &Software) -> Result<(), String> {
    let Some(variant) = manifest.variant(&spec.variant) else {
        return Err(format!("the bundle has no variant {}", spec.variant));
    };
    if !software.formats.contains(&variant.format) {
        return Err(format!("no engine of this device reads files of the format {:?}", variant.format));
    }
    let mut ports = manifest.inputs.iter().chain(&manifest.outputs);
    match ports.find(|port| !software.dtypes.contains(&port.dtype)) {
        Some(port) => Err(format!("no engine of this device takes {} as {:?} is", port.dtype.name(), port.name)),
        None => Ok(()),
    }
}

/// Whether a bundle that is proven may begin now.
pub fn may_begin(verified: &VerifiedManifest, spec: &SlotSpec, beliefs: Beliefs<'_>) -> Result<(), NotBegun> {
    let manifest = verified.manifest();
    // What was wanted when its fetching began may be outdated.
    let slots = beliefs.desired.map(|desired| desired.desired().slots.as_slice()).unwrap_or_default();
    let wanted = slots.iter().find(|wanted| wanted.deployment == spec.deployment).unwrap_or(spec);
    if let Some(reason) = beliefs.floors.forbid(&manifest.model, manifest.version) {
        return Err(NotBegun::Untrusted(reason));
    }
    if !beliefs.floors.is_known(&wanted.model, wanted.floor) {
        return Err(NotBegun::Waits(format!(
            "waits for the publisher's word on the version floor of {}",
            wanted.model
        )));
    }
    if let Some(reason) = beliefs.not_now {
        return Err(NotBegun::Waits(format!("nothing new begins: {reason}")));
    }
    if let Some(Err(error)) = beliefs.desired.map(|desired| desired.may_begin(beliefs.root, beliefs.wall_ms)) {
        return Err(NotBegun::Waits(format!(
            "the desired state that this device holds lets nothing new begin: {error}"
        )));
    }
    // A file that several bundles have lies on the disk once.
    let files = files(manifest, spec);
    let known = beliefs.known.values().flat_map(|known| known.files.values()).flatten();
    let others: BTreeMap<_, _> = known.filter(|(digest, _)| !files.contains_key(digest)).collect();
    let bytes = files.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let taken = others.into_values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    if let Some(most) = beliefs.disk_bytes
        && checks::on(Check::OwnerLimits)
        && taken.saturating_add(bytes) > most
    {
        return Err(NotBegun::Untrusted(format!(
            "its files take {bytes} bytes beside {taken} of others; this device's owner gives {most} (limits.disk)"
        )));
    }
    Ok(())
}

/// The files that a slot brings here, with their bytes.
pub fn files(manifest: &Manifest, spec: &SlotSpec) -> Files {
    let variant = manifest.variant(&spec.variant).map(|variant| &variant.file);
    variant.into_iter().chain(&manifest.golden).map(|file| (file.sha256, file.bytes)).collect()
}

/// The manifest of a version that was proven here: the very one by its digest, whoever may sign today.
pub fn recall_manifest(bytes: &[u8], spec: &SlotSpec) -> Result<Manifest, String> {
    let envelope = read_envelope(bytes)?;
    let found = Digest::of(&envelope.payload);
    if checks::on(Check::ManifestDigest) && found != spec.manifest {
        return Err(ManifestError::OtherManifest { wanted: spec.manifest, found }.to_string());
    }
    let manifest = Manifest::parse(&envelope.payload).map_err(|error| error.to_string())?;
    match manifest.variant(&spec.variant) {
        Some(_) => Ok(manifest),
        None => Err(format!("the bundle has no variant {}", spec.variant)),
    }
}

fn read_envelope(bytes: &[u8]) -> Result<Envelope, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the manifest's envelope is not text".to_owned())?;
    Envelope::from_json(text).map_err(|error| format!("the manifest's envelope cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use muster_shared::Version;

    use super::*;
    use crate::testing::{self, PUBLISHER, floor, manifest, software};

    fn read(envelope: &Envelope, spec: &SlotSpec, software: &Software) -> Result<VerifiedManifest, NotBegun> {
        read_manifest(envelope.to_json().as_bytes(), spec, &testing::trusted(&testing::root()), software)
    }

    #[test]
    fn only_what_a_publisher_signed_and_the_slot_says_is_read() {
        let (envelope, spec) = manifest("digits", 2, PUBLISHER);
        assert!(read(&envelope, &spec, &software()).is_ok());
        for (case, bad) in [
            ("version", SlotSpec { version: Version::new(3).unwrap(), ..spec.clone() }),
            ("model", SlotSpec { model: "other".parse().unwrap(), ..spec.clone() }),
            ("digest", SlotSpec { manifest: Digest::of("other"), ..spec.clone() }),
            ("variant", SlotSpec { variant: "int8".parse().unwrap(), ..spec.clone() }),
        ] {
            assert!(matches!(read(&envelope, &bad, &software()), Err(NotBegun::Untrusted(_))), "{case}");
        }
        let (forged, spec) = manifest("digits", 2, 33);
        assert!(matches!(read(&forged, &spec, &software()), Err(NotBegun::Untrusted(_))));
        assert!(read_manifest(&[0xff], &spec, &testing::trusted(&testing::root()), &software()).is_err());
    }

    #[test]
    fn what_no_engine_here_can_run_is_refused_before_anything_starts() {
        let (envelope, spec) = manifest("digits", 2, PUBLISHER);
        let formats = Software { formats: vec![], ..software() };
        assert!(read(&envelope, &spec, &formats).unwrap_err().to_string().contains("Onnx"));
        let dtypes = Software { dtypes: vec![Dtype::F64], ..software() };
        assert!(read(&envelope, &spec, &dtypes).unwrap_err().to_string().contains("f32"));
    }

    #[test]
    fn a_declared_manifest_length_beyond_its_bound_is_refused_before_it_is_asked_for() {
        let (_, mut spec) = manifest("digits", 2, PUBLISHER);
        spec.envelope.bytes = MANIFEST_BYTES_MAX as u64;
        assert_eq!(declared_length(&spec), Ok(()));
        spec.envelope.bytes += 1;
        assert!(matches!(declared_length(&spec), Err(NotBegun::Untrusted(_))));
    }

    #[test]
    fn a_bundle_waits_for_the_floor_that_the_director_knows_and_none_begins_below_it() {
        let root = testing::trusted(&testing::root());
        let begin = |floors: &Floors, number: u64, known: Option<u64>| {
            let (envelope, spec) = manifest("digits", number, PUBLISHER);
            let spec = SlotSpec { floor: known.and_then(Version::new), ..spec };
            let verified = read(&envelope, &spec, &software()).unwrap();
            let software = software();
            let beliefs = Beliefs {
                root: &root,
                floors,
                software: &software,
                desired: None,
                not_now: None,
                known: &BTreeMap::new(),
                disk_bytes: Some(9),
                wall_ms: 0,
            };
            may_begin(&verified, &spec, beliefs)
        };
        let mut floors = Floors::default();
        assert_eq!(begin(&floors, 2, None), Ok(()));
        assert!(matches!(begin(&floors, 2, Some(1)), Err(NotBegun::Waits(_))));
        floors.offered(&floor("digits", 3, PUBLISHER), &root).unwrap();
        floors
            .saw(&read(&manifest("digits", 5, PUBLISHER).0, &manifest("digits", 5, PUBLISHER).1, &software()).unwrap());
        assert!(matches!(begin(&floors, 2, Some(3)), Err(NotBegun::Untrusted(_))));
        assert_eq!(begin(&floors, 3, Some(3)), Ok(()));
        assert!(matches!(begin(&floors, 3, Some(4)), Err(NotBegun::Waits(_))));
    }

    #[test]
    fn the_owners_disk_bounds_what_comes() {
        let root = testing::trusted(&testing::root());
        let (envelope, spec) = manifest("digits", 2, PUBLISHER);
        let (software, floors) = (software(), Floors::default());
        let verified = read(&envelope, &spec, &software).unwrap();
        let taken = |files| {
            let files = BTreeMap::from([("other".parse().unwrap(), files)]);
            BTreeMap::from([(spec.manifest, Known { signers: vec![], envelope: Digest::of("envelope"), files })])
        };
        let begin = |known: &BTreeMap<Digest, Known>, disk_bytes| {
            let (root, floors, software) = (&root, &floors, &software);
            let (desired, not_now) = Default::default();
            let beliefs = Beliefs { root, floors, software, desired, not_now, known, disk_bytes, wall_ms: 0 };
            may_begin(&verified, &spec, beliefs)
        };
        let own = files(verified.manifest(), &spec);
        let bytes = own.values().sum::<u64>();
        // What it takes itself does not stand in its way; what others take does, also of the same manifest.
        assert_eq!(begin(&taken(own), Some(bytes)), Ok(()));
        let others = taken(BTreeMap::from([(Digest::of("another variant"), 7)]));
        let begin = |disk_bytes| begin(&others, disk_bytes);
        let bytes = bytes + 7;
        assert_eq!((begin(None), begin(Some(bytes))), (Ok(()), Ok(())));
        assert!(matches!(begin(Some(bytes - 1)), Err(NotBegun::Untrusted(_))));
    }

    #[test]
    fn a_proven_manifest_is_recalled_by_its_digest_whoever_may_sign() {
        let (envelope, spec) = manifest("digits", 2, 33);
        assert!(recall_manifest(envelope.to_json().as_bytes(), &spec).is_ok());
        let other = SlotSpec { manifest: Digest::of("other"), ..spec };
        assert!(recall_manifest(envelope.to_json().as_bytes(), &other).is_err());
    }
}
