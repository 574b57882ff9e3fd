//! `demo --once`: asks both models with held-out rows drawn now, stops a device for good, and says
//! whether all is as it should be.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Instant;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};

use muster_world::fixtures::{agrees, held_out};
use muster_world::{World, post};

use super::{DEVICES, MODELS, go_on};

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

/// Asks, stops a device for good, sees its replica move, prints, and fails if anything is not as it
/// should be.
pub fn run(world: &mut World, began: Instant) -> anyhow::Result<()> {
    let deployments = world.deployments()?;
    let devices = world.devices()?.iter().filter(|device| device["connected"] == true).count();
    let mut predictions = ask_all(world)?;
    let replicas_moved = lose_a_device(world, &mut predictions)?;
    let deployments: Vec<DeploymentSummary> = deployments
        .into_iter()
        .map(|deployment| DeploymentSummary {
            name: deployment.name,
            wanted: deployment.wanted,
            ready: deployment.ready,
        })
        .collect();
    let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let summary = Summary { devices, deployments, predictions, replicas_moved, seconds };
    println!("{}", serde_json::to_string(&summary)?);
    summary.verdict()
}

/// Stops the agent of a device with a replica of digits for good, asks at once, and waits until that
/// replica serves on the third device. Gives back how many replicas moved.
fn lose_a_device(world: &mut World, predictions: &mut Vec<Prediction>) -> anyhow::Result<u64> {
    let before = world.holders("digits")?;
    let lost = before.iter().next_back().context("digits has no replica")?.clone();
    eprintln!("stopping {lost} for good");
    world.kill_agent(&lost)?;
    // The broker sees it go; from then on nobody is sent there.
    world.until("the plane to see it go", |world| Ok((world.device(&lost)?["connected"] == false).then_some(())))?;
    predictions.extend(ask_all(world)?);
    eprintln!("waiting until its replica of digits serves elsewhere");
    let after = world.until("the replica of digits to move", |world| {
        go_on()?;
        let holders = world.holders("digits")?;
        Ok((holders.len() == before.len() && !holders.contains(&lost)).then_some(holders))
    })?;
    predictions.extend(ask_all(world)?);
    let short = world.until("linear_regression to say what its third replica waits for", |world| {
        let explained = world.json(&["explain", "linear_regression"])?;
        let waits = explained["waiting"][0].as_str().is_some_and(|waiting| waiting.contains(&lost));
        Ok((explained["ready"] == 2 && explained["wanted"] == 3 && waits).then_some(explained))
    })?;
    eprintln!("linear_regression is 2 of 3: {}", short["waiting"][0].as_str().unwrap_or_default());
    Ok(after.difference(&before).count() as u64)
}

impl Summary {
    fn verdict(&self) -> anyhow::Result<()> {
        if self.devices != DEVICES.len() {
            bail!("{} devices are connected, not {}", self.devices, DEVICES.len());
        }
        if let Some(short) = self.deployments.iter().find(|deployment| deployment.ready != deployment.wanted) {
            bail!("{} has {} of {} replicas", short.name, short.ready, short.wanted);
        }
        if let Some(wrong) = self.predictions.iter().find(|prediction| !prediction.ok) {
            bail!("{} answered {} where scikit-learn says {}", wrong.model, wrong.got, wrong.expected);
        }
        if self.replicas_moved == 0 {
            bail!("no replica moved");
        }
        Ok(())
    }
}

fn ask_all(world: &World) -> anyhow::Result<Vec<Prediction>> {
    let mut predictions = vec![];
    for model in MODELS {
        predictions.extend(ask(world, model)?);
    }
    Ok(predictions)
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
