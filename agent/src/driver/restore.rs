//! What the core begins with: all that this device kept, verified anew, and what its owner allows.

use anyhow::Context as _;
use muster_agent_core::clock::Clock;
use muster_agent_core::limits::OwnerLimits;
use muster_agent_core::reconcile::Restored;
use muster_agent_core::verify::bundle::{Proven, files, read_manifest};
use muster_agent_core::verify::desired::recall;
use muster_agent_core::verify::roots::not_older;
use muster_agent_core::verify::{Holding, Watermark};
use muster_shared::Digest;
use tracing::warn;

use crate::config::Config;
use crate::engine;
use crate::enrol;
use crate::facts::Machine;
use crate::identity::{DeviceKey, Enrolment};
use crate::journal::Journal;
use crate::store::Store;

/// Reads the journal, verifying everything anew.
pub(super) fn restore(
    journal: &Journal,
    store: &Store,
    key: &DeviceKey,
    enrolment: &Enrolment,
    (clock, mut watermark): (Clock, Watermark),
) -> anyhow::Result<Restored> {
    let followed = journal.roots()?;
    let root = enrol::follow_roots(&enrolment.roots, enrolment.root)
        .map(|root| not_older(root, watermark.root.as_ref()))
        .and_then(|root| enrol::follow_later(root, &followed))
        .context("the kept roots are not to be trusted")?;
    let newest = followed.into_iter().find(|envelope| Digest::of(&envelope.payload) == root.digest());
    watermark.root = newest.or(watermark.root);
    let identity = key.identity(enrolment);
    let (held, nonce, earlier_nonce) = (None, None, None);
    let holding = Holding { identity: &identity, root: &root, held, watermark: None, nonce, earlier_nonce };
    let desired = match journal.desired()?.map(|envelope| recall(&envelope, holding)) {
        Some(Ok(desired)) => Some(desired),
        Some(Err(error)) => {
            warn!(%error, "the kept desired state is not believed any more; waiting for a new one");
            None
        }
        None => None,
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let software = engine::software();
    // What an older agent kept does not say who signed it.
    let who_signed = |proven: Proven| {
        if !proven.signers.is_empty() {
            return proven;
        }
        let bytes = store.read(proven.spec.envelope.sha256).map_err(|error| error.to_string());
        let read =
            |bytes: Vec<u8>| read_manifest(&bytes, &proven.spec, &root, &software).map_err(|error| error.to_string());
        match bytes.and_then(read) {
            Ok(manifest) => Proven {
                signers: manifest.signers().to_vec(),
                files: files(manifest.manifest(), &proven.spec),
                ..proven
            },
            Err(error) => {
                warn!(deployment = %proven.spec.deployment, error, "a proven version is to be verified again first");
                proven
            }
        }
    };
    let proven = journal.proven()?.into_iter().map(who_signed).collect();
    let refusals = journal.refusals()?;
    let (watermark_unknown, limits) = Default::default();
    Ok(Restored {
        identity,
        version,
        root,
        clock,
        watermark,
        watermark_unknown,
        software,
        limits,
        desired,
        proven,
        refusals,
    })
}

/// What the owner allows: of memory and cores, what the facts report.
pub(super) fn owner_limits(config: &Config, machine: &mut Machine) -> OwnerLimits {
    let facts = machine.facts(config);
    OwnerLimits {
        memory_bytes: Some(facts.memory_bytes),
        cpu_milli: Some(facts.cpu_milli),
        disk_bytes: config.disk_bytes,
        slots: config.slots,
        models: config.models.clone(),
    }
}
