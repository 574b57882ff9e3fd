//! Which bundles nothing may begin with: what the newest root and the version floors say of each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use muster_control_plane_core::fleet::Barred;
use muster_shared::Digest;
use muster_shared::limits::MANIFEST_BYTES_MAX;
use muster_shared::manifest::VerifiedManifest;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;

use crate::catalog::CatalogError;
use crate::db;
use crate::db::bundles::BundleRecord;
use crate::now_ms;
use crate::plane::Plane;

/// What the signatures of bundles are worth under one root, so that each is verified once for it.
#[derive(Default)]
pub struct Judged(Mutex<Known>);

#[derive(Default)]
struct Known {
    root: Option<Digest>,
    /// By the envelope's digest.
    bundles: BTreeMap<Digest, Option<Barred>>,
}

/// Every bundle with which nothing may begin, by manifest.
pub async fn all(plane: &Plane) -> Result<BTreeMap<Digest, Barred>, CatalogError> {
    let mut barred = BTreeMap::new();
    let Some(root) = plane.trust.newest() else { return Ok(barred) };
    let floors = plane.floors.in_force(&root);
    for record in db::bundles::list(plane.db.read()).await? {
        let below = floors.get(&record.model).map(|held| held.floor.version).filter(|floor| record.version < *floor);
        let expired = root.root().expires_ms <= now_ms();
        let why = signed_by_nobody(plane, &root, &record).await?.or(below.map(Barred::BelowFloor));
        let why = why.or(expired.then_some(Barred::RootExpired));
        barred.extend(why.map(|why| (record.manifest, why)));
    }
    Ok(barred)
}

/// Whether nobody signed a bundle whom this root names.
async fn signed_by_nobody(
    plane: &Plane,
    root: &TrustedRoot,
    record: &BundleRecord,
) -> Result<Option<Barred>, CatalogError> {
    if let Some(known) = plane.judged.get(root.digest(), record.envelope.sha256) {
        return Ok(known);
    }
    let bytes = plane.blobs.read(record.envelope.sha256, MANIFEST_BYTES_MAX as u64).await?;
    // One that is not there is not for here to judge: devices will say that they cannot fetch it.
    let envelope = bytes.and_then(|bytes| serde_json::from_slice::<Envelope>(&bytes).ok());
    let why = envelope.and_then(|envelope| judge(&envelope, root));
    plane.judged.put(root.digest(), record.envelope.sha256, why);
    Ok(why)
}

fn judge(envelope: &Envelope, root: &TrustedRoot) -> Option<Barred> {
    if VerifiedManifest::verify(envelope, root).is_ok() {
        return None;
    }
    // The names beside the signatures prove nothing, but they were good when the bundle was pushed.
    let stolen = envelope.signatures.iter().all(|signature| root.is_compromised(signature.keyid));
    Some(if stolen { Barred::Compromised } else { Barred::PublisherRemoved })
}

impl Judged {
    fn get(&self, root: Digest, envelope: Digest) -> Option<Option<Barred>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.bundles.get(&envelope).copied().filter(|_| known.root == Some(root))
    }

    fn put(&self, root: Digest, envelope: Digest, why: Option<Barred>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.root != Some(root) {
            *known = Known { root: Some(root), bundles: BTreeMap::new() };
        }
        known.bundles.insert(envelope, why);
    }
}
