//! Looks at the fleet, decides, and stores what changed in one transaction; then lets the gateway and
//! the publisher act on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_control_plane_core::decide::{self, Decision, DeviceSeen, Observed, State, decide};
use muster_control_plane_core::fleet::{Bundle, Bundles};
use muster_control_plane_core::plan::Plan;
use muster_shared::api::fleet::{EventView, Schedule};
use muster_shared::api::members::Standing;
use muster_shared::limits::clip;
use muster_shared::{DeploymentName, DeviceId};
use sea_orm::ConnectionTrait;
use tokio::time::{sleep, timeout};

use crate::catalog::CatalogError;
use crate::db::deployments::DeploymentRecord;
use crate::db::plans::{Held, Verdict, slots_digest};
use crate::db::{self, DbError};
use crate::live::LiveDevice;
use crate::now_ms;
use crate::plane::Plane;
use crate::routes;
use crate::status::{self, Facts};
use crate::trust::barred;
use crate::trust::ledger::count_change;

/// Many nudges in a row are one.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest time without a look.
const PERIOD: Duration = Duration::from_secs(30);
/// Silence is counted at least up to this length.
const SILENCE_MS: u64 = 60_000;
/// While devices are silent, their silence is counted at least so often.
const SILENCE_PERIOD: Duration = Duration::from_secs(2);

/// Plans until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    loop {
        let rest = match look(&plane).await {
            Ok(rest) => rest,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot plan; will retry");
                SILENCE_PERIOD
            }
        };
        let rest = async {
            sleep(PAUSE).await;
            let _ = timeout(rest, plane.nudges.planner.notified()).await;
        };
        tokio::select! {
            () = plane.stop.cancelled() => return,
            () = rest => {}
        }
    }
}

/// One look. Gives back how long the next one may wait.
async fn look(plane: &Plane) -> Result<Duration, CatalogError> {
    // Operators change rollouts, too; nobody may do so between reading and storing.
    let _deciding = plane.deciding.lock().await;
    let deployments = db::deployments::list(plane.db.read()).await?;
    let before = read_state(plane).await?;
    let observed = observe(plane, &before, &deployments).await?;
    let now = now_ms();
    let mut decision = decide(before.clone(), &observed, now);
    let restored = db::members::restored(plane.db.read()).await?.is_some();
    hold(plane, &before, &mut decision, restored);
    let changed = store(plane, &deployments, &before, &decision, now).await?;
    set_routes(plane, &deployments, &decision);
    if changed {
        count_change(plane).await?;
    }
    if changed || plane.live.read(|devices| devices.values().any(|device| device.held_back.is_some())) {
        plane.nudges.publisher.notify_one();
    }
    note_conditions(plane, &deployments).await?;
    let due = decision.next_look_ms.map_or(PERIOD, |due| Duration::from_millis(due.saturating_sub(now)));
    let silence = if is_young(&deployments, &before, &decision.state) { SILENCE_PERIOD } else { PERIOD };
    Ok(due.min(silence))
}

/// What must not change stays as it is: everything while a database that was put back waits for approval,
/// and whatever a device has that two agents speak for.
fn hold(plane: &Plane, before: &State, decision: &mut Decision, restored: bool) {
    let state = &mut decision.state;
    if restored {
        state.placements = before.placements.clone();
        state.notes = before.notes.clone();
        state.rollouts = before.rollouts.clone();
        decision.happened.clear();
        return;
    }
    let is_cloned = |device: &LiveDevice| device.standing == Standing::Cloned;
    let cloned: Vec<DeviceId> = plane
        .live
        .read(|devices| devices.iter().filter(|(_, device)| is_cloned(device)).map(|(id, _)| id.clone()).collect());
    for id in cloned {
        match before.placements.get(&id) {
            Some(slots) => state.placements.insert(id, slots.clone()),
            None => state.placements.remove(&id),
        };
    }
}

/// What is remembered.
pub async fn read_state(plane: &Plane) -> Result<State, DbError> {
    let db = plane.db.read();
    Ok(State {
        liveness: db::documents::liveness(db).await?,
        rollouts: db::rollouts::current(db).await?,
        placements: db::plans::placements(db).await?,
        notes: db::plans::notes(db).await?,
    })
}

/// What is seen.
pub async fn observe(plane: &Plane, state: &State, deployments: &[DeploymentRecord]) -> Result<Observed, CatalogError> {
    let issued = db::desired::generations(plane.db.read()).await?;
    let live = plane.live.read(Clone::clone);
    let mut devices = BTreeMap::new();
    for record in db::devices::list(plane.db.read()).await? {
        let live = live.get(&record.id);
        let standing = live.map_or(Standing::Member, |live| live.standing);
        if !matches!(standing, Standing::Member | Standing::Cloned) {
            continue;
        }
        let reported = live.and_then(|live| live.reported.clone());
        let slots: Vec<_> =
            state.placements.get(&record.id).map(|slots| slots.values().cloned().collect()).unwrap_or_default();
        let is_current = issued.get(&record.id).is_some_and(|(generation, digest)| {
            let applied = reported.as_ref().and_then(|reported| reported.applied);
            applied == Some(*generation) && *digest == slots_digest(&slots)
        });
        let seen = DeviceSeen {
            labels: record.labels,
            connected_ms: live.and_then(|live| live.connected_ms),
            // Nothing new comes to a device that two agents speak for.
            schedule: if standing == Standing::Cloned { Schedule::Cordoned } else { record.schedule },
            reported,
            is_current,
        };
        devices.insert(record.id, seen);
    }
    Ok(Observed {
        devices,
        deployments: deployments.iter().map(|record| (record.name.clone(), record.spec.clone())).collect(),
        bundles: bundles(plane).await?,
        hearing_since_ms: plane.hearing.since_ms(now_ms()),
    })
}

async fn bundles(plane: &Plane) -> Result<Bundles, CatalogError> {
    let mut bundles = Bundles::new();
    let barred = barred::all(plane).await?;
    for record in db::bundles::list(plane.db.read()).await?.into_iter().filter(|record| record.complete) {
        let Some(manifest) = plane.catalog.manifest(&plane.db, record.manifest).await? else { continue };
        let variants = manifest.variants.iter().map(|variant| (variant.name.clone(), variant.format)).collect();
        let barred = barred.get(&record.manifest).copied();
        let bundle = Bundle { manifest: record.manifest, envelope: record.envelope, variants, barred };
        bundles.entry(record.model).or_default().insert(record.version, bundle);
    }
    Ok(bundles)
}

/// Stores what differs from before; says whether any device is to change.
async fn store(
    plane: &Plane,
    deployments: &[DeploymentRecord],
    before: &State,
    decision: &Decision,
    now_ms: u64,
) -> Result<bool, DbError> {
    let after = &decision.state;
    let verdicts = verdicts(deployments, &decision.plan);
    let said = db::plans::verdicts(plane.db.read()).await?;
    let placements = changed_placements(decision, before);
    // Where only the clock went on, there is nothing to write: the time since is counted at the next look.
    let counts = is_young(deployments, before, after) || !says_the_same(before, after);
    let liveness = if counts { &after.liveness } else { &before.liveness };
    let same = placements.is_empty()
        && verdicts == said
        && *liveness == before.liveness
        && after.rollouts == before.rollouts
        && after.notes == before.notes
        && decision.happened.is_empty();
    if same {
        return Ok(false);
    }
    let transaction = plane.db.begin().await?;
    for id in &placements {
        let slots = after.placements.get(*id).cloned().unwrap_or_default();
        db::plans::set_placement(&transaction, id, &slots).await?;
        for (name, slot) in &slots {
            let choice = decision.plan.choices.get(&(name.clone(), (*id).clone())).map(ToString::to_string);
            tracing::info!(device = %id, deployment = %name, version = %slot.version, choice, "placed");
        }
    }
    let noted: BTreeSet<&DeviceId> = before.notes.keys().chain(after.notes.keys()).collect();
    for id in noted.into_iter().filter(|id| before.notes.get(*id) != after.notes.get(*id)) {
        db::plans::set_notes(&transaction, id, &after.notes.get(id).cloned().unwrap_or_default()).await?;
    }
    for (name, rollout) in after.rollouts.iter().filter(|(name, it)| before.rollouts.get(*name) != Some(*it)) {
        db::rollouts::put(&transaction, name, rollout).await?;
    }
    for name in before.rollouts.keys().filter(|name| !after.rollouts.contains_key(*name)) {
        db::rollouts::forget(&transaction, name).await?;
    }
    if *liveness != before.liveness {
        db::documents::set_liveness(&transaction, liveness).await?;
    }
    store_verdicts(&transaction, &verdicts, &said).await?;
    for event in &decision.happened {
        let decide::Event { kind, deployment, device, text } = event.clone();
        tracing::info!(?kind, deployment = deployment.as_ref().map(|it| it.as_str()), text, "decided");
        let event = EventView { at_ms: now_ms, device, kind, deployment, text: clip(text) };
        db::events::insert(&transaction, &event).await?;
    }
    db::commit(transaction).await?;
    Ok(!placements.is_empty())
}

/// Whether somebody's silence is still being counted: it is written down, so that a restart does not
/// forget it.
fn is_young(deployments: &[DeploymentRecord], before: &State, after: &State) -> bool {
    let longest_ms = deployments.iter().map(|record| record.spec.device_loss_grace.0).fold(SILENCE_MS, u64::max);
    let counted = |id: &DeviceId| before.liveness.silent.get(id).map_or(0, |silence| silence.counted_ms);
    after.liveness.silent.keys().any(|id| counted(id) <= longest_ms)
}

/// Whether the same devices are silent, and the same ones frozen or taken for lost.
fn says_the_same(before: &State, after: &State) -> bool {
    let said = |state: &State| -> BTreeMap<DeviceId, bool> {
        state.liveness.silent.iter().map(|(id, silence)| (id.clone(), silence.approved)).collect()
    };
    said(before) == said(after) && before.liveness.freezes == after.liveness.freezes
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
            wanted: plan.wanted.get(&record.name).copied().unwrap_or(0),
            waiting: waiting.map(|waiting| (waiting.word().to_owned(), waiting.to_string())),
        };
        (record.name.clone(), verdict)
    };
    deployments.iter().map(verdict).collect()
}

/// Devices whose slots are to be others than before, those with no row yet included.
fn changed_placements<'a>(decision: &'a Decision, before: &State) -> Vec<&'a DeviceId> {
    let differs = |id: &&DeviceId| match before.placements.get(*id) {
        Some(before) => *before != decision.state.placements.get(*id).cloned().unwrap_or_default(),
        None => true,
    };
    decision.inputs.devices.keys().filter(differs).collect()
}

/// Tells the gateway whom it may ask, now that it is durable.
fn set_routes(plane: &Plane, deployments: &[DeploymentRecord], decision: &Decision) {
    let names = deployments.iter().map(|record| (&record.name, record.spec.served_as.as_ref()));
    let running = |id: &DeviceId, name: &DeploymentName| decision.inputs.devices.get(id)?.slots.get(name)?.running;
    plane.routes.set(routes::table(names, &decision.state.placements, running));
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
