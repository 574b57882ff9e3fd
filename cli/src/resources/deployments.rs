//! Deployments: what is wanted, and how far it is.

use muster_shared::DeploymentName;
use muster_shared::api::deployment::{Deployment, OnDeviceLoss, Replica, RolloutStage, Spec, Status, VersionRule};

use super::{Item, Kind, found, labels, name};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{Facts, date, or_dash};
use crate::tell::{self, figures, replicas, rollout};

pub const HEADER: &[&str] = &["NAME", "MODEL", "VERSION", "READY", "ROLLOUT", "DEVICES", "STATUS"];
pub const HEADER_WIDE: &[&str] = &["RULE", "CPU", "MEMORY", "SELECTOR", "LABELS", "WAVES", "WAITS FOR"];

/// What is measured all the time.
const RESTLESS: &[&str] = &["figures"];

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
    let devices: Vec<_> = status.replicas.iter().map(|replica| &replica.device).collect();
    let mut row = vec![
        metadata.name.to_string(),
        spec.model.to_string(),
        or_dash(status.version),
        format!("{}/{}", status.ready, status.wanted),
        or_dash(status.rollout.as_ref().map(rollout::word)),
        or_dash((!devices.is_empty()).then(|| tell::names(&devices))),
        summary(&status),
    ];
    if wide {
        row.extend([
            rule(spec.version),
            spec.resources.cpu.to_string(),
            spec.resources.memory.to_string(),
            labels(&spec.selector.match_labels),
            labels(&metadata.labels),
            waves(spec),
            or_dash(waits_for(&status)),
        ]);
    }
    Item::new(metadata.name.to_string(), row, deployment, RESTLESS)
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
    match status.replicas.first() {
        Some(replica) => phase(replica),
        None if status.wanted == 0 => "Nothing wanted".to_owned(),
        None => "Waiting".to_owned(),
    }
}

/// What the rollout waits for, else what placement does.
fn waits_for(status: &Status) -> Option<&str> {
    let rollout = status.rollout.as_ref().filter(|rollout| rollout.stage != RolloutStage::Done);
    let condition = || status.conditions.iter().find(|condition| !condition.status);
    rollout.map(|rollout| rollout.message.as_str()).or_else(|| condition().map(|condition| condition.message.as_str()))
}

fn waves(spec: &Spec) -> String {
    spec.rollout.waves.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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
    Ok(text(&one(client, name).await?))
}

/// All that is known of a deployment, for people.
pub fn text(deployment: &Deployment) -> String {
    let Deployment { metadata, spec, .. } = deployment;
    let status = deployment.status.clone().unwrap_or_default();
    let mut facts = Facts::default();
    facts.add("name", &metadata.name);
    facts.add("labels", labels(&metadata.labels));
    facts.add("model", &spec.model);
    facts.add("version", format!("{} (now {})", rule(spec.version), or_dash(status.version)));
    facts.add("replicas", wanted(spec));
    facts.add("selector", labels(&spec.selector.match_labels));
    facts.add("resources", format!("{} cores, {} memory for each replica", spec.resources.cpu, spec.resources.memory));
    let rules = &spec.rollout;
    facts.add("waves", format!("{}; {} may fail, probation {}", waves(spec), rules.max_failed, rules.probation));
    facts.add("device loss", loss(spec));
    facts.add("served as", spec.served_as.as_ref().unwrap_or(&metadata.name));
    facts.add("generation", format!("{} (observed {})", or_dash(metadata.generation), status.observed_generation));
    facts.add("ready", format!("{} of {} replicas", status.ready, status.wanted));
    if let Some(view) = &status.rollout {
        facts.add("rollout", format!("{} since {}: {}", view.number, date(view.changed_ms), rollout::line(view)));
        rollout::failures(view).for_each(|failed| facts.add("failed", failed));
    }
    status.replicas.iter().for_each(|it| facts.add("replica", replica(it)));
    for condition in &status.conditions {
        let holds = if condition.status { "yes" } else { "no" };
        let since = date(condition.since_ms);
        facts.add(
            "condition",
            format!("{}: {holds}, {} since {since}: {}", condition.kind, condition.reason, condition.message),
        );
    }
    facts.render()
}

fn wanted(spec: &Spec) -> String {
    if spec.every_device { "on every device".to_owned() } else { spec.replicas.to_string() }
}

fn loss(spec: &Spec) -> String {
    match spec.on_device_loss {
        OnDeviceLoss::Move => format!("replicas move after {}", spec.device_loss_grace),
        OnDeviceLoss::Keep => "replicas wait for their device".to_owned(),
    }
}

fn replica(replica: &Replica) -> String {
    let running = replica.running.map_or_else(|| "nothing answers".to_owned(), |it| format!("version {it} answers"));
    let figures = replica.figures.as_ref().map(|it| format!("; {}", figures::phrase(it))).unwrap_or_default();
    format!("{} {} ({running}): {}{figures}", replica.device, replicas::phase(replica), replicas::why(replica))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tell::replicas::tests::{replica, worked_example};
    use crate::tell::rollout::tests::rollout;

    fn deployment(spec: Value, status: Value) -> Deployment {
        let mut whole = json!({
            "apiVersion": "muster.dev/v1", "kind": "Deployment",
            "metadata": {"name": "digits", "labels": {"team": "vision"}, "generation": 4},
            "spec": {"model": "digits"},
            "status": {"observedGeneration": 4, "wanted": 2, "ready": 1, "version": 2, "conditions": [
                {"type": "Placed", "status": false, "reason": "Cordoned", "message": "edge-3 is cordoned", "sinceMs": 0}
            ]},
        });
        for (part, fields) in [("spec", spec), ("status", status)] {
            for (name, value) in fields.as_object().expect("an object") {
                whole[part][name] = value.clone();
            }
        }
        serde_json::from_value(whole).expect("a deployment")
    }

    #[track_caller]
    fn row(deployment: &Deployment, wide: bool) -> String {
        let header: Vec<&str> = HEADER.iter().chain(HEADER_WIDE.iter().filter(|_| wide)).copied().collect();
        let row = item(deployment, wide).expect("an item").row;
        assert_eq!(header.len(), row.len());
        row.join(" | ")
    }

    #[test]
    fn a_row_says_how_far_the_rollout_is_and_what_it_waits_for() {
        let during = deployment(json!({}), json!({"rollout": rollout(json!({})), "replicas": [replica(json!({}))]}));
        assert_eq!(row(&during, false), "digits | digits | 2 | 1/2 | wave 2/3 | edge-1 | edge-3 is cordoned");
        assert_eq!(
            row(&during, true),
            "digits | digits | 2 | 1/2 | wave 2/3 | edge-1 | edge-3 is cordoned | latest | 250m | 128Mi | - | \
             team=vision | 1,25%,100% | it waits for edge-2 (in probation)"
        );
        let done = json!({"rollout": rollout(json!({"stage": "done"})), "ready": 2});
        assert_eq!(row(&deployment(json!({}), done), false), "digits | digits | 2 | 2/2 | done | - | Serving");
        let waiting = row(&deployment(json!({}), json!({})), true);
        assert!(waiting.ends_with("1,25%,100% | edge-3 is cordoned"), "{waiting}");
        let stopped = json!({"wanted": 0, "ready": 0, "conditions": []});
        assert!(row(&deployment(json!({}), stopped), false).ends_with("0/0 | - | - | Nothing wanted"));
    }

    #[test]
    fn many_devices_are_counted() {
        let replicas: Vec<Value> = (1..=7).map(|it| replica(json!({"device": format!("edge-{it}")}))).collect();
        let many = row(&deployment(json!({}), json!({"replicas": replicas})), false);
        assert!(many.contains("edge-1, edge-2, edge-3, edge-4, edge-5 and 2 more"), "{many}");
    }

    #[test]
    fn figures_alone_are_no_news_to_a_watcher() {
        let with = |figures: Value| {
            let status = json!({"replicas": [replica(json!({"figures": figures}))]});
            item(&deployment(json!({}), status), false).expect("an item").news()
        };
        assert_eq!(with(worked_example()), with(Value::Null));
    }

    #[test]
    fn a_description_has_rules_rollout_and_replicas() {
        let spec =
            json!({"everyDevice": true, "onDeviceLoss": "keep", "rollout": {"waves": [1, "100%"], "maxFailed": 1}});
        let failed = json!([{"device": "edge-3", "reason": "refused version 2"}]);
        let leaver = json!({"device": "edge-2", "running": null, "phase": "fetching", "leaving": true,
                            "reason": "the disk is full"});
        let status = json!({
            "rollout": rollout(json!({"failed": failed})),
            "replicas": [replica(json!({"figures": worked_example()})), replica(leaver)],
        });
        assert_eq!(
            text(&deployment(spec, status)),
            "\
name          digits
labels        team=vision
model         digits
version       latest (now 2)
replicas      on every device
selector      -
resources     250m cores, 128Mi memory for each replica
waves         1,100%; 1 may fail, probation 1m
device loss   replicas wait for their device
served as     digits
generation    4 (observed 4)
ready         1 of 2 replicas
rollout       2 since 2023-11-14T22:14:20Z: version 2 (from 1), wave 2 of 3: 1 of 3 devices healthy; it waits for edge-2 (in probation)
failed        edge-3: refused version 2
replica       edge-1 serving (version 1 answers): it is there already; share 12.5%, 40.0 req/s, R 25.0 core-ms, A 1.00 cores
replica       edge-2 fetching, leaves (nothing answers): it is there already; the disk is full
condition     Placed: no, Cordoned since 1970-01-01T00:00:00Z: edge-3 is cordoned
"
        );
        let moves = text(&deployment(json!({"replicas": 2}), json!({})));
        assert!(moves.contains("\nreplicas      2\n"), "{moves}");
        assert!(moves.contains("\ndevice loss   replicas move after 1m\n"), "{moves}");
    }
}
