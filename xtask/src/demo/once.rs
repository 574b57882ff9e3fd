//! `demo --once`: asks both models with held-out rows drawn now and says whether all is as it
//! should be.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};

use muster_world::fixtures::{agrees, held_out};
use muster_world::{World, post};

use super::MODELS;

/// Rows asked of each model.
const ROWS: usize = 5;

/// The last line: the contract with scripts.
#[derive(Debug, Serialize)]
struct Summary {
    devices: usize,
    deployments: Vec<DeploymentSummary>,
    predictions: Vec<Prediction>,
    replicas_moved: u64,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct DeploymentSummary {
    name: String,
    wanted: u64,
    ready: u64,
}

#[derive(Debug, Serialize)]
struct Prediction {
    model: String,
    input: Value,
    expected: Value,
    got: Value,
    device: Option<String>,
    ok: bool,
}

/// Asks, prints, and fails if anything is not as it should be.
pub fn run(world: &World, began: Instant) -> anyhow::Result<()> {
    let deployments = world.deployments()?;
    let mut predictions = vec![];
    for model in MODELS {
        predictions.extend(ask(world, model)?);
    }
    let deployments: Vec<DeploymentSummary> = deployments
        .into_iter()
        .map(|deployment| DeploymentSummary {
            name: deployment.name,
            wanted: deployment.wanted,
            ready: deployment.ready,
        })
        .collect();
    let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let devices = world.devices()?.iter().filter(|device| device["connected"] == true).count();
    let summary = Summary { devices, deployments, predictions, replicas_moved: 0, seconds };
    println!("{}", serde_json::to_string(&summary)?);
    summary.verdict()
}

impl Summary {
    fn verdict(&self) -> anyhow::Result<()> {
        if self.devices != 1 {
            bail!("{} devices are connected, not 1", self.devices);
        }
        if let Some(short) = self.deployments.iter().find(|deployment| deployment.ready != deployment.wanted) {
            bail!("{} has {} of {} replicas", short.name, short.ready, short.wanted);
        }
        if let Some(wrong) = self.predictions.iter().find(|prediction| !prediction.ok) {
            bail!("{} answered {} where scikit-learn says {}", wrong.model, wrong.got, wrong.expected);
        }
        Ok(())
    }
}

fn ask(world: &World, model: &str) -> anyhow::Result<Vec<Prediction>> {
    let rows = held_out(model, 1)?;
    let mut drawn: Vec<usize> = (0..rows.instances.len()).collect();
    // Each run draws other rows: an answer that was written down beforehand would not fit them.
    let random = RandomState::new();
    drawn.sort_by_key(|row| random.hash_one(row));
    drawn.truncate(ROWS);

    let instances: Vec<&Value> = drawn.iter().map(|row| &rows.instances[*row]).collect();
    let url = format!("{}/v1/models/{model}:predict", world.plane().gateway);
    let answer = post(&url, &json!({ "instances": instances }).to_string())?;
    let device = answer.device;
    let got = answer.body["predictions"].as_array().with_context(|| format!("{url} answered {}", answer.body))?;
    if got.len() != drawn.len() {
        bail!("{model} answered {} rows of {}", got.len(), drawn.len());
    }
    let prediction = |(row, got): (&usize, &Value)| {
        let (input, expected) = (rows.instances[*row].clone(), rows.predictions[*row].clone());
        let ok = device.is_some() && agrees(&expected, got);
        Prediction { model: model.to_owned(), input, expected, got: got.clone(), device: device.clone(), ok }
    };
    Ok(drawn.iter().zip(got).map(prediction).collect())
}
