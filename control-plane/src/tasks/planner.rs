//! Reads everything, plans, and stores what changed in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_control_plane_core::fleet::{Bundle, Device, Inputs, Machine, Wanted};
use muster_control_plane_core::plan::{Plan, plan};
use muster_shared::api::deployment::Spec;
use muster_shared::desired::Resources;
use muster_shared::id::Labels;
use muster_shared::{DeploymentName, DeviceId};
use sea_orm::ConnectionTrait;

use crate::catalog::CatalogError;
use crate::db::deployments::DeploymentRecord;
use crate::db::devices::DeviceRecord;
use crate::db::plans::{Held, Verdict};
use crate::db::{self, DbError};
use crate::plane::Plane;
use crate::status::{self, Facts};

const PAUSE: Duration = Duration::from_millis(50);
const PERIOD: Duration = Duration::from_secs(30);

/// Plans until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    let wake = &plane.nudges.planner;
    super::repeat(&plane, "planner", wake, (PAUSE, PERIOD), async |plane: &Plane| replan(plane).await).await;
}

async fn replan(plane: &Plane) -> Result<(), CatalogError> {
    let deployments = db::deployments::list(plane.db.read()).await?;
    let inputs = read_inputs(plane, &deployments).await?;
    let plan = plan(&inputs);
    let changed = store(plane, &deployments, &inputs, &plan).await?;
    if changed {
        plane.nudges.publisher.notify_one();
    }
    note_conditions(plane, &deployments).await?;
    Ok(())
}

async fn read_inputs(plane: &Plane, deployments: &[DeploymentRecord]) -> Result<Inputs, CatalogError> {
    let mut inputs = Inputs { previous: db::plans::placements(plane.db.read()).await?, ..Inputs::default() };
    for record in db::devices::list(plane.db.read()).await? {
        let connected = plane.live.is_connected(&record.id);
        inputs.devices.insert(record.id.clone(), device(record, connected));
    }
    inputs.deployments = deployments.iter().map(|record| (record.name.clone(), wanted(&record.spec))).collect();
    for record in db::bundles::list(plane.db.read()).await?.into_iter().filter(|record| record.complete) {
        let Some(manifest) = plane.catalog.manifest(&plane.db, record.manifest).await? else { continue };
        let variants = manifest.variants.iter().map(|variant| (variant.name.clone(), variant.format)).collect();
        let bundle = Bundle { manifest: record.manifest, envelope: record.envelope, variants };
        inputs.bundles.entry(record.model).or_default().insert(record.version, bundle);
    }
    Ok(inputs)
}

fn device(record: DeviceRecord, connected: bool) -> Device {
    let reported = record.reported;
    let refusals = reported.iter().flat_map(|reported| &reported.refusals);
    let refused = refusals.map(|refusal| (refusal.bundle.manifest, refusal.reason.clone())).collect();
    // What the agent says of itself counts least.
    let mut labels: Labels = reported.as_ref().map(|reported| reported.facts.labels.clone()).unwrap_or_default();
    labels.extend(record.labels);
    let machine = reported.map(|reported| Machine {
        cpu_milli: reported.facts.cpu_milli,
        memory_bytes: reported.facts.memory_bytes,
        engines: reported.facts.engines,
    });
    Device { labels, connected, cordoned: record.cordoned, machine, refused }
}

fn wanted(spec: &Spec) -> Wanted {
    Wanted {
        model: spec.model.clone(),
        version: spec.version,
        replicas: spec.replicas,
        selector: spec.selector.clone(),
        resources: Resources { cpu_milli: spec.resources.cpu.0, memory_bytes: spec.resources.memory.0 },
        probation_ms: spec.rollout.probation.0.try_into().unwrap_or(u32::MAX),
        served_as: spec.served_as.clone(),
    }
}

/// Stores what differs from before; says whether any device is to change.
async fn store(plane: &Plane, deployments: &[DeploymentRecord], inputs: &Inputs, plan: &Plan) -> Result<bool, DbError> {
    let verdicts = verdicts(deployments, plan);
    let said = db::plans::verdicts(plane.db.read()).await?;
    let placements = changed_placements(inputs, plan);
    if placements.is_empty() && verdicts == said {
        return Ok(false);
    }
    let transaction = plane.db.begin().await?;
    for id in &placements {
        let slots = plan.slots.get(*id).cloned().unwrap_or_default();
        db::plans::set_placement(&transaction, id, &slots).await?;
        for (name, slot) in &slots {
            let choice = plan.choices.get(&(name.clone(), (*id).clone())).map(ToString::to_string);
            tracing::info!(device = %id, deployment = %name, version = %slot.version, choice, "placed");
        }
    }
    store_verdicts(&transaction, &verdicts, &said).await?;
    db::commit(transaction).await?;
    Ok(!placements.is_empty())
}

async fn store_verdicts(
    db: &impl ConnectionTrait,
    verdicts: &BTreeMap<DeploymentName, Verdict>,
    said: &BTreeMap<DeploymentName, Verdict>,
) -> Result<(), DbError> {
    for (name, verdict) in verdicts.iter().filter(|(name, verdict)| said.get(*name) != Some(*verdict)) {
        if let Some((_, waiting)) = &verdict.waiting {
            tracing::info!(deployment = %name, waiting, "a deployment waits");
        }
        db::plans::set_verdict(db, name, verdict).await?;
    }
    for name in said.keys().filter(|name| !verdicts.contains_key(*name)) {
        db::plans::forget(db, name).await?;
    }
    Ok(())
}

fn verdicts(deployments: &[DeploymentRecord], plan: &Plan) -> BTreeMap<DeploymentName, Verdict> {
    let verdict = |record: &DeploymentRecord| {
        let waiting = plan.waiting.get(&record.name);
        let verdict = Verdict {
            generation: record.generation,
            version: plan.versions.get(&record.name).copied(),
            waiting: waiting.map(|waiting| (waiting.word().to_owned(), waiting.to_string())),
        };
        (record.name.clone(), verdict)
    };
    deployments.iter().map(verdict).collect()
}

/// Devices whose slots are to be others than before, those with no row yet included.
fn changed_placements<'a>(inputs: &'a Inputs, plan: &Plan) -> Vec<&'a DeviceId> {
    let differs = |id: &&DeviceId| match inputs.previous.get(*id) {
        Some(before) => *before != plan.slots.get(*id).cloned().unwrap_or_default(),
        None => true,
    };
    inputs.devices.keys().filter(differs).collect()
}

/// Notes since when conditions hold, so that a status can date them.
async fn note_conditions(plane: &Plane, deployments: &[DeploymentRecord]) -> Result<(), DbError> {
    let facts = Facts::read(plane).await?;
    let mut news = Vec::new();
    for record in deployments {
        for condition in status::status(record, &facts).conditions {
            let noted = facts.conditions.get(&(record.name.clone(), condition.kind.clone()));
            if noted.is_none_or(|held| held.holds != condition.status) {
                let held = Held { holds: condition.status, since_ms: facts.now_ms };
                news.push((&record.name, condition.kind, held));
            }
        }
    }
    if news.is_empty() {
        return Ok(());
    }
    let transaction = plane.db.begin().await?;
    for (name, kind, held) in news {
        db::plans::set_condition(&transaction, name, &kind, held).await?;
    }
    db::commit(transaction).await
}
