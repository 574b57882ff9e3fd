//! Bundles that are signed and still do not serve.

use anyhow::Result;
use muster_tests::world;
use muster_world::{Bundle, fixtures, post};
use serde_json::Value;

fn golden_of(other: u32) -> Bundle {
    // Version 2 with the answers of version 1: signed, whole, and wrong on this machine.
    let golden = Some(fixtures::folder("digits", other).join("golden.json"));
    Bundle { golden, ..Bundle::fixture("digits", 2) }
}

#[test]
fn a_model_whose_golden_vectors_do_not_match_is_refused_and_remembered() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "latest")?;
    world.until_serves("edge-1", "digits", 1)?;
    world.publish(&golden_of(1))?;
    let refusal = |device: &Value| device["refusals"].as_array().and_then(|refusals| refusals.first().cloned());
    let refused = world.until("version 2 to be refused", |world| Ok(refusal(&world.device("edge-1")?)))?;
    assert_eq!((&refused["kind"], &refused["bundle"]["version"]), (&"goldenMismatch".into(), &2.into()));
    assert!(refused["reason"].as_str().is_some_and(|reason| reason.contains("expected")), "{refused}");

    // The old version serves on, and the deployment says what is wrong.
    let slot = world.until("the slot to say so", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok((slot["phase"] == "refused").then_some(slot))
    })?;
    assert_eq!(slot["running"]["version"], 1, "{slot}");
    let body = serde_json::json!({ "instances": [fixtures::held_out("digits", 1)?.instances[0]] }).to_string();
    let ask = |world: &muster_world::World| post(&format!("{}/v1/models/digits:predict", world.door("edge-1")?), &body);
    assert_eq!(ask(&world)?.version, Some(1));
    let told = world.json(&["get", "deployment", "digits"])?["status"].to_string();
    assert!(told.contains("golden"), "{told}");

    // Remembered over a restart: the same refusal of the same moment, not a second check.
    world.stop_agent("edge-1")?;
    world.start_agent("edge-1")?;
    world.until("the restarted agent to report the refusal", |world| {
        let device = world.device("edge-1")?;
        let slot = world.slot("edge-1", "digits")?;
        let same = refusal(&device).as_ref() == Some(&refused);
        Ok((device["connected"] == true && same && slot["phase"] == "refused").then_some(()))
    })?;
    assert_eq!(ask(&world)?.version, Some(1));
    Ok(())
}

#[test]
fn a_file_that_the_engine_cannot_load_is_refused() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    // `pack` reads the graph's ends, not its operators: an unknown one is found on the device.
    let mut onnx = std::fs::read(fixtures::folder("digits", 1).join("model.onnx"))?;
    let at: Vec<usize> = (0..onnx.len() - 6).filter(|at| onnx[*at..].starts_with(b"MatMul")).collect();
    assert!(!at.is_empty(), "an operator to replace");
    at.iter().for_each(|at| onnx[*at..at + 6].copy_from_slice(b"MitMul"));
    let path = world.folder().join("unloadable.onnx");
    std::fs::write(&path, onnx)?;
    world.publish(&Bundle { onnx: path, ..Bundle::fixture("digits", 1) })?;
    world.deploy("digits", "1")?;
    let kind = world.until("the bundle to be refused", |world| {
        let device = world.device("edge-1")?;
        Ok(device["refusals"].as_array().and_then(|refusals| refusals.first()).map(|refusal| refusal["kind"].clone()))
    })?;
    assert_eq!(kind, "cannotLoad");
    Ok(())
}
