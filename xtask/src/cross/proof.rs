//! What an agent for a target must show: it answers as this machine's does, and it is a whole agent. It runs
//! against a control plane of this machine.

use anyhow::{Context as _, ensure};
use muster_world::{Bundle, DEADLINE, Programs, Server, World, fixtures, post, until};
use serde_json::Value;

use super::kernels;

/// Outputs of one model for the same input may differ by so much between processors.
pub const DIFFERENCE_MAX: f64 = 1e-5;
const MODEL: &str = "digits";
const DEVICE: &str = "edge-1";

/// What a run showed.
#[derive(Debug)]
pub struct Shown {
    /// The largest difference to this machine's answers.
    pub difference: f64,
    /// What confines its workers, as its own facts say.
    pub isolation: String,
}

/// Answers of `muster-agent serve`: to all held-out rows of digits, and of a model that uses more of the engine.
pub fn answers(programs: &Programs) -> anyhow::Result<Value> {
    let digits = format!("--model={MODEL}={}", fixtures::folder(MODEL, 1).join("model.onnx").display());
    let kernels = format!("--model={0}={{}}/{0}.onnx", kernels::NAME);
    let server = Server::start(programs, &[&digits, &kernels], |folder| {
        Ok(std::fs::write(folder.join(kernels::NAME).with_extension("onnx"), kernels::file())?)
    })?;
    let digits = ask(server.door());
    let kernels = predictions(server.door(), kernels::NAME, &kernels::request());
    let log = || std::fs::read_to_string(server.log()).unwrap_or_default();
    Ok(Value::Array(vec![digits.with_context(log)?, kernels.with_context(log)?]))
}

/// Asks for digits, and compares with what scikit-learn said.
fn ask(door: &str) -> anyhow::Result<Value> {
    let rows = fixtures::held_out(MODEL, 1)?;
    let told = predictions(door, MODEL, &serde_json::json!({ "instances": rows.instances }))?;
    let count = told.as_array().map_or(0, Vec::len);
    ensure!(count == rows.predictions.len(), "{} rows, {count} answers", rows.predictions.len());
    for (expected, got) in rows.predictions.iter().zip(told.as_array().into_iter().flatten()) {
        ensure!(fixtures::agrees(expected, got), "expected {expected}, got {got}");
    }
    Ok(told)
}

fn predictions(door: &str, model: &str, request: &Value) -> anyhow::Result<Value> {
    let answer = post(&format!("{door}/v1/models/{model}:predict"), &request.to_string())?;
    ensure!(answer.status == 200, "{model}: the door answered {}: {}", answer.status, answer.body);
    Ok(answer.body["predictions"].clone())
}

/// Shows that `programs.agent` answers as `reference` does, and that it is a whole agent: it makes a key and is
/// enrolled with it, connects over TLS, verifies what it is told, stores what it fetched, and signs what it
/// reports; after the likes of a power cut it serves from its disk, with nobody to ask.
pub fn show(programs: &Programs, reference: &Value) -> anyhow::Result<Shown> {
    let difference = difference(reference, &answers(programs)?)?;
    ensure!(difference <= DIFFERENCE_MAX, "its answers differ by {difference:e}, at most {DIFFERENCE_MAX:e} will do");
    let mut world = World::start(programs.clone(), &|_| {})?;
    world.publish(&Bundle::fixture(MODEL, 1))?;
    world.add_device(DEVICE)?;
    world.deploy(MODEL, "latest")?;
    // The plane believes only what the device's key signed.
    world.until_serves(DEVICE, MODEL, 1)?;
    ask(world.door(DEVICE)?).context("its own door")?;
    let facts = world.device(DEVICE)?["facts"].clone();
    let holds = facts["isolation"].as_array().context("a device without facts")?.iter().filter_map(Value::as_str);
    let isolation = holds.collect::<Vec<_>>().join(", ");
    world.kill_agent(DEVICE)?;
    world.stop_plane();
    world.start_agent(DEVICE)?;
    let door = world.door(DEVICE)?.to_owned();
    let ready = format!("{door}/v1/models/{MODEL}");
    until("the model to be served from the disk", DEADLINE, || {
        let status = muster_world::get(&ready)?;
        Ok((status.body["model_version_status"][0]["state"] == "AVAILABLE").then_some(()))
    })
    .with_context(|| world.log(DEVICE).unwrap_or_default())?;
    ask(&door).context("its own door, from its disk")?;
    Ok(Shown { difference, isolation })
}

/// The largest difference between numbers at the same place; anything else must be the same.
fn difference(one: &Value, other: &Value) -> anyhow::Result<f64> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let [one, other] = [one, other].map(|number| number.as_f64().unwrap_or(f64::NAN));
            let difference = (one - other).abs();
            ensure!(!difference.is_nan(), "{one} and {other} cannot be compared");
            Ok(difference)
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => largest(one.iter().zip(other)),
        (Value::Object(one), Value::Object(other)) if one.keys().eq(other.keys()) => {
            largest(one.values().zip(other.values()))
        }
        (one, other) => {
            ensure!(one == other, "{one} is not {other}");
            Ok(0.0)
        }
    }
}

fn largest<'a>(pairs: impl Iterator<Item = (&'a Value, &'a Value)>) -> anyhow::Result<f64> {
    let mut largest: f64 = 0.0;
    for (one, other) in pairs {
        largest = largest.max(difference(one, other)?);
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_compared_number_by_number() {
        let check = |one: Value, other: Value, expected: Option<f64>| match (difference(&one, &other), expected) {
            (Ok(got), Some(expected)) => assert!((got - expected).abs() < 1e-12, "{one} {other}: {got}"),
            (Err(_), None) => {}
            (got, expected) => panic!("{one} {other}: {got:?}, expected {expected:?}"),
        };
        check(json!([{"label": 3, "p": [0.5, 0.25]}]), json!([{"label": 3, "p": [0.5, 0.125]}]), Some(0.125));
        check(json!([1, 2]), json!([1, 2]), Some(0.0));
        check(json!([1, 2]), json!([1]), None);
        check(json!({"a": 1}), json!({"b": 1}), None);
        check(json!("a"), json!("b"), None);
        check(json!(1.0), json!("1.0"), None);
    }
}
