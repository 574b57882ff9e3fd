//! Deployments: what is wanted, and how far it is.

use muster_shared::DeploymentName;
use muster_shared::api::deployment::{Deployment, Replica, Status, VersionRule};

use super::{Item, Kind, found, labels, name};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{Facts, date, or_dash};

pub const HEADER: &[&str] = &["NAME", "MODEL", "VERSION", "READY", "DEVICES", "STATUS"];
pub const HEADER_WIDE: &[&str] = &["RULE", "CPU", "MEMORY", "SELECTOR", "LABELS"];

pub async fn fetch(client: &Client, only: Option<&str>, wide: bool) -> Result<Vec<Item>> {
    let all = match only {
        Some(only) => vec![one(client, only).await?],
        None => client.get("/deployments").await.attempt(|| "cannot list the deployments")?,
    };
    all.iter().map(|deployment| item(deployment, wide)).collect()
}

async fn one(client: &Client, text: &str) -> Result<Deployment> {
    let name: DeploymentName = name(Kind::Deployments, text)?;
    found(Kind::Deployments, text, client.get(&format!("/deployments/{name}")).await)
}

fn item(deployment: &Deployment, wide: bool) -> Result<Item> {
    let Deployment { metadata, spec, .. } = deployment;
    let status = deployment.status.clone().unwrap_or_default();
    let devices: Vec<&str> = status.replicas.iter().map(|replica| replica.device.as_str()).collect();
    let mut row = vec![
        metadata.name.to_string(),
        spec.model.to_string(),
        or_dash(status.version),
        format!("{}/{}", status.ready, status.wanted),
        if devices.is_empty() { "-".to_owned() } else { devices.join(",") },
        summary(&status),
    ];
    if wide {
        row.extend([
            rule(spec.version),
            spec.resources.cpu.to_string(),
            spec.resources.memory.to_string(),
            labels(&spec.selector.match_labels),
            labels(&metadata.labels),
        ]);
    }
    Item::new(metadata.name.to_string(), row, deployment, &[])
}

/// One phrase: that all is well, or why not.
fn summary(status: &Status) -> String {
    if status.wanted > 0 && status.ready >= status.wanted {
        return "Serving".to_owned();
    }
    if let Some(reason) = status.replicas.iter().find_map(|replica| replica.reason.clone()) {
        return reason;
    }
    if let Some(condition) = status.conditions.iter().find(|condition| !condition.status) {
        return condition.message.clone();
    }
    status.replicas.first().map_or_else(|| "Waiting".to_owned(), phase)
}

fn phase(replica: &Replica) -> String {
    replica.phase.map_or_else(|| "Waiting".to_owned(), |phase| format!("{phase:?}"))
}

fn rule(version: VersionRule) -> String {
    match version {
        VersionRule::Latest => "latest".to_owned(),
        VersionRule::Exact(version) => version.to_string(),
    }
}

pub async fn describe(client: &Client, name: &str) -> Result<String> {
    let deployment = one(client, name).await?;
    let Deployment { metadata, spec, .. } = &deployment;
    let status = deployment.status.clone().unwrap_or_default();
    let mut facts = Facts::default();
    facts.add("name", &metadata.name);
    facts.add("labels", labels(&metadata.labels));
    facts.add("model", &spec.model);
    facts.add("version", format!("{} (now {})", rule(spec.version), or_dash(status.version)));
    facts.add("selector", labels(&spec.selector.match_labels));
    facts.add("resources", format!("{} cores, {} memory for each replica", spec.resources.cpu, spec.resources.memory));
    facts.add("probation", spec.rollout.probation);
    facts.add("served as", spec.served_as.as_ref().unwrap_or(&metadata.name));
    facts.add("generation", format!("{} (observed {})", or_dash(metadata.generation), status.observed_generation));
    facts.add("ready", format!("{} of {} replicas", status.ready, status.wanted));
    for replica in &status.replicas {
        let reason = replica.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let running =
            replica.running.map_or_else(|| "nothing answers".to_owned(), |it| format!("version {it} answers"));
        facts.add("replica", format!("{} {} ({running}){reason}", replica.device, phase(replica)));
    }
    for condition in &status.conditions {
        let holds = if condition.status { "yes" } else { "no" };
        let since = date(condition.since_ms);
        facts.add(
            "condition",
            format!("{}: {holds}, {} since {since}: {}", condition.kind, condition.reason, condition.message),
        );
    }
    Ok(facts.render())
}
