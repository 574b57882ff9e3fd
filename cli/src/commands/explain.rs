//! `muster explain`: why a deployment or a device is as it is, with the figures behind it.

use std::str::FromStr;

use muster_shared::api::plan::{DeploymentExplained, DeviceExplained};
use muster_shared::quantity::MilliCpu;
use muster_shared::{DeploymentName, DeviceId};
use serde::de::DeserializeOwned;

use crate::client::{Client, ClientError};
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::output::{self, TextOrJson, bytes, one_line, or_dash};
use crate::resources::{self, Kind};
use crate::tell::{self, replicas, rollout};

/// Arguments of `muster explain`.
#[derive(clap::Args)]
pub struct Args {
    /// A deployment's name, else a device's; deployment/NAME and device/NAME say which is meant
    #[arg(value_name = "DEPLOYMENT|DEVICE")]
    subject: Subject,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Deployment(DeploymentName),
    Device(DeviceId),
    /// The deployment with this name, else the device.
    Either(DeploymentName),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None => text.parse().map(Self::Either).map_err(|error| error.to_string()),
            Some(("deployment", name)) => name.parse().map(Self::Deployment).map_err(|error| error.to_string()),
            Some(("device", id)) => id.parse().map(Self::Device).map_err(|error| error.to_string()),
            Some((kind, _)) => Err(format!("{kind:?} cannot be explained: write deployment/NAME or device/NAME")),
        }
    }
}

/// What the control plane says of it.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Explained {
    Deployment(Box<DeploymentExplained>),
    Device(DeviceExplained),
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let explained = explain(&session.client()?, &args.subject).await?;
    match (args.output, &explained) {
        (TextOrJson::Json, explained) => output::print_json(explained),
        (TextOrJson::Text, Explained::Deployment(deployment)) => output::print(&deployment_text(deployment)),
        (TextOrJson::Text, Explained::Device(device)) => output::print(&device_text(device)),
    }
}

async fn explain(client: &Client, subject: &Subject) -> Result<Explained> {
    match subject {
        Subject::Deployment(name) => {
            let answer = deployment(client, name).await;
            resources::found(Kind::Deployments, name.as_str(), answer).map(Box::new).map(Explained::Deployment)
        }
        Subject::Device(id) => {
            let answer = device(client, id).await;
            resources::found(Kind::Devices, id.as_str(), answer).map(Explained::Device)
        }
        Subject::Either(name) => either(client, name).await,
    }
}

async fn either(client: &Client, name: &DeploymentName) -> Result<Explained> {
    let attempt = || format!("cannot explain {name}");
    if let Some(deployment) = if_any(deployment(client, name).await).attempt(attempt)? {
        return Ok(Explained::Deployment(Box::new(deployment)));
    }
    // Not every deployment's name may be a device's.
    if let Ok(id) = name.as_str().parse::<DeviceId>()
        && let Some(device) = if_any(device(client, &id).await).attempt(attempt)?
    {
        return Ok(Explained::Device(device));
    }
    Err(Failure::new(format!("there is no deployment and no device {:?}", name.as_str()))
        .hint("`muster get deployments` and `muster get devices` list those that there are"))
}

async fn deployment(client: &Client, name: &DeploymentName) -> Result<DeploymentExplained, ClientError> {
    client.get(&format!("/deployments/{name}/explain")).await
}

async fn device(client: &Client, id: &DeviceId) -> Result<DeviceExplained, ClientError> {
    client.get(&format!("/devices/{id}/explain")).await
}

fn if_any<T: DeserializeOwned>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        answer => answer.map(Some),
    }
}

/// Why a deployment is as it is, for people.
pub fn deployment_text(it: &DeploymentExplained) -> String {
    let version =
        it.version.map_or_else(|| "no version to serve yet".to_owned(), |version| format!("version {version}"));
    let first = format!("{}: {version}, {} of {} ready", it.name, it.ready, tell::count(it.wanted, "replica"));
    let table = (!it.replicas.is_empty()).then(|| {
        let rows = it.replicas.iter().map(|replica| (replica.device.as_str(), replica));
        replicas::table("DEVICE", rows).render()
    });
    let waiting = it.waiting.iter().map(|why| format!("waits: {why}"));
    let rollout = it.rollout.as_ref().map(|it| format!("rollout: {}", rollout::line(it)));
    let failed = it.rollout.iter().flat_map(rollout::failures).map(|failed| format!("failed: {failed}"));
    let demand = it.demand.as_ref().map(|demand| format!("demand: {}", demand.sentence));
    let frozen = it.frozen.as_ref().map(|why| format!("frozen: {why}"));
    let rest = waiting.chain(rollout).chain(failed).chain(demand).chain(frozen);
    whole([first], table, rest)
}

/// Why a device is as it is, for people.
pub fn device_text(it: &DeviceExplained) -> String {
    let first = format!("{}: {}, {}", it.id, it.presence, tell::device::schedule(it.schedule));
    let table = (!it.replicas.is_empty()).then(|| {
        let rows = it.replicas.iter().map(|it| (it.deployment.as_str(), &it.replica));
        replicas::table("DEPLOYMENT", rows).render()
    });
    let granted = format!(
        "granted: {} of {} cores, {} of {} memory",
        MilliCpu(it.cpu_milli_granted),
        or_dash(it.cpu_milli.map(MilliCpu)),
        bytes(it.memory_bytes_granted),
        or_dash(it.memory_bytes.map(bytes)),
    );
    let obstacles = it.obstacles.iter().map(|why| format!("nothing new: {why}"));
    whole([first, granted], table, obstacles)
}

/// Lines, a table, more lines.
fn whole<const N: usize>(first: [String; N], table: Option<String>, rest: impl Iterator<Item = String>) -> String {
    let line = |text: String| format!("{}\n", one_line(&text));
    let first: String = first.into_iter().map(line).collect();
    first + &table.unwrap_or_default() + &rest.map(line).collect::<String>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tell::replicas::tests::{replica, worked_example};

    #[test]
    fn a_subject_is_a_name_or_says_its_kind() {
        let name = |text: &str| text.parse().expect("a name");
        for (text, subject) in [
            ("digits", Ok(Subject::Either(name("digits")))),
            ("deployment/edge-1", Ok(Subject::Deployment(name("edge-1")))),
            ("device/edge-1", Ok(Subject::Device("edge-1".parse().expect("an id")))),
        ] {
            assert_eq!(text.parse::<Subject>(), subject);
        }
        for (text, words) in [
            ("bundle/digits", "\"bundle\" cannot be explained: write deployment/NAME or device/NAME"),
            ("device/Edge", "\"Edge\" is no device id"),
            ("deployment/", "is no deployment name"),
            ("a b", "is no deployment name"),
        ] {
            let error = text.parse::<Subject>().expect_err("refused");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_deployment_is_explained_from_summary_to_freeze() {
        let rollout =
            crate::tell::rollout::tests::rollout(json!({"failed": [{"device": "edge-3", "reason": "refused"}]}));
        let sentence = "40/s × 25 core-ms = 1.0 core; ÷ (500m × 70 %) → 3 replicas";
        let explained = json!({
            "name": "digits", "wanted": 3, "ready": 1, "version": 2, "frozen": "2 of 3 devices fell silent together",
            "replicas": [replica(json!({"figures": worked_example()})),
                         replica(json!({"device": "edge-2", "phase": "probation", "leaving": true}))],
            "waiting": ["1 of 3 replicas waits: edge-3 is cordoned"], "rollout": rollout,
            "demand": {"figures": worked_example(), "replicasNeeded": 3, "sentence": sentence},
        });
        let text = deployment_text(&serde_json::from_value(explained).expect("an explanation"));
        assert_eq!(
            text,
            "\
digits: version 2, 1 of 3 replicas ready
DEVICE   VERSION   PHASE                  SHARE   REQ/S   R CORE-MS   A CORES   P50       P99       WHY
edge-1   1         serving                12.5%   40.0    25.0        1.00      24.0 ms   31.5 ms   it is there already
edge-2   1         in probation, leaves   -       -       -           -         -         -         it is there already
waits: 1 of 3 replicas waits: edge-3 is cordoned
rollout: version 2 (from 1), wave 2 of 3: 1 of 3 devices healthy; it waits for edge-2 (in probation)
failed: edge-3: refused
demand: 40/s × 25 core-ms = 1.0 core; ÷ (500m × 70 %) → 3 replicas
frozen: 2 of 3 devices fell silent together
"
        );
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let explained = json!({
            "name": "digits", "wanted": 1, "ready": 0, "version": null, "replicas": [], "waiting": ["no bundle"],
            "rollout": null, "demand": null, "frozen": null,
        });
        let text = deployment_text(&serde_json::from_value(explained).expect("an explanation"));
        assert_eq!(text, "digits: no version to serve yet, 0 of 1 replica ready\nwaits: no bundle\n");
    }

    #[test]
    fn a_device_is_explained_with_what_keeps_replicas_away() {
        let explained = json!({
            "id": "edge-1", "schedule": "cordoned", "presence": "connected for 5m", "cpuMilli": 4000,
            "cpuMilliGranted": 500, "memoryBytes": 1 << 30, "memoryBytesGranted": 64 << 20,
            "replicas": [{"deployment": "digits", "replica": replica(json!({}))}],
            "obstacles": ["edge-1 is cordoned"],
        });
        let text = device_text(&serde_json::from_value(explained).expect("an explanation"));
        assert_eq!(
            text,
            "\
edge-1: connected for 5m, cordoned: nothing new comes to it, and what is there stays
granted: 500m of 4 cores, 64.00 MiB of 1.00 GiB memory
DEPLOYMENT   VERSION   PHASE     SHARE   REQ/S   R CORE-MS   A CORES   P50   P99   WHY
digits       1         serving   -       -       -           -         -     -     it is there already
nothing new: edge-1 is cordoned
"
        );
    }
}
