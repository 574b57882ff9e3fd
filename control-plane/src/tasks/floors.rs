//! Sends devices the version floors of the models that they hold, before what is wanted of them.

use std::collections::{BTreeMap, BTreeSet};

use muster_control_plane_core::fleet::Slots;
use muster_shared::limits::MANIFEST_BYTES_MAX;
use muster_shared::manifest::VerifiedManifest;
use muster_shared::message::TrustUpdate;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use muster_shared::topic::Leaf;
use muster_shared::{DeviceId, ModelName, Version};

use crate::broker::QoS;
use crate::catalog::CatalogError;
use crate::db;
use crate::live::LiveDevice;
use crate::plane::Plane;
use crate::trust::floors::{ByModel, InForce};

/// The floors that a device lacks of these models: it neither reported them nor was it sent them since
/// its last `hello`.
pub fn lacking<'a>(live: &LiveDevice, models: &BTreeSet<ModelName>, floors: &'a ByModel) -> Vec<&'a InForce> {
    // What a device without state held is lost with it.
    let remembers = live.hello.as_ref().is_none_or(|hello| hello.holds.is_some());
    let reported: BTreeMap<&ModelName, Version> = match live.reported.as_ref().filter(|_| remembers) {
        Some(reported) => reported.floors.iter().map(|floor| (&floor.model, floor.version)).collect(),
        None => BTreeMap::new(),
    };
    let has = |held: &InForce| {
        let known = reported.get(&held.floor.model).max(live.floors_sent.get(&held.floor.model));
        known.is_some_and(|known| *known >= held.floor.version)
    };
    models.iter().filter_map(|model| floors.get(model)).filter(|held| !has(held)).collect()
}

/// The models that a device last said it runs or works towards.
pub fn models_reported(live: &LiveDevice) -> BTreeSet<ModelName> {
    let slots = live.reported.iter().flat_map(|reported| &reported.slots);
    slots.flat_map(|slot| slot.wanted.iter().chain(&slot.running)).map(|bundle| bundle.model.clone()).collect()
}

/// Sends a device the floors that it lacks of the models in these slots and in its report.
pub async fn send(
    plane: &Plane,
    root: &TrustedRoot,
    id: &DeviceId,
    live: &LiveDevice,
    slots: &Slots,
) -> Result<(), CatalogError> {
    if !live.connected || live.hello.is_none() {
        return Ok(());
    }
    let floors = plane.floors.in_force(root);
    let mut models = models_reported(live);
    models.extend(slots.values().map(|slot| slot.model.clone()));
    for held in lacking(live, &models, &floors) {
        let manifest = witness(plane, root, held).await?;
        let update = TrustUpdate::Floor { floor: held.envelope.clone(), manifest };
        plane.send(id, Leaf::Trust, &update, QoS::AtLeastOnce).await;
        let (model, version) = (held.floor.model.clone(), held.floor.version);
        tracing::info!(device = %id, %model, %version, "version floor sent");
        plane.live.change(id, |live| live.floors_sent.insert(model, version));
    }
    Ok(())
}

/// A manifest that shows that there is such a version: a floor counts on a device only up to the highest
/// version that it has seen signed.
async fn witness(plane: &Plane, root: &TrustedRoot, held: &InForce) -> Result<Option<Envelope>, CatalogError> {
    for record in db::bundles::from_version(plane.db.read(), &held.floor.model, held.floor.version.get()).await? {
        let Some(bytes) = plane.blobs.read(record.envelope.sha256, MANIFEST_BYTES_MAX as u64).await? else { continue };
        let envelope = serde_json::from_slice::<Envelope>(&bytes).ok();
        let verified = envelope.filter(|envelope| VerifiedManifest::verify(envelope, root).is_ok());
        if verified.is_some() {
            return Ok(verified);
        }
    }
    Ok(None)
}
