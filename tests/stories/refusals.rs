//! Bundles that are signed and still do not serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use muster_tests::hungry::{ROW_BYTES, hungry_digits};
use muster_tests::world;
use muster_world::{Bundle, World, descendants, fixtures, post};
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

    // The old version serves on, and the deployment says what is wrong: the rollout went back.
    let slot = world.until("the slot to be back on version 1", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok((slot["phase"] == "serving" && slot["wanted"]["version"] == 1).then_some(slot))
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
        Ok((device["connected"] == true && same && slot["phase"] == "serving").then_some(()))
    })?;
    assert_eq!(ask(&world)?.version, Some(1));
    Ok(())
}

#[test]
fn a_file_that_the_engine_cannot_load_is_refused() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let path = muster_tests::models::unloadable(&world.folder().join("unloadable.onnx"))?;
    world.publish(&Bundle { onnx: path, ..Bundle::fixture("digits", 1) })?;
    world.deploy("digits", "1")?;
    let kind = world.until("the bundle to be refused", |world| {
        let device = world.device("edge-1")?;
        Ok(device["refusals"].as_array().and_then(|refusals| refusals.first()).map(|refusal| refusal["kind"].clone()))
    })?;
    assert_eq!(kind, "cannotLoad");
    Ok(())
}

/// Applies the digits deployment of a story that watches new versions for as long as it says.
fn deploy_watched(world: &World, version: u32, probation: &str) -> Result<()> {
    deploy_granted(world, version, probation, "64Mi")
}

/// The same with a grant of the story's own.
fn deploy_granted(world: &World, version: u32, probation: &str, memory: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: {{ name: digits }}\nspec:\n  model: digits\n  \
         version: {version}\n  resources: {{ cpu: 250m, memory: {memory} }}\n  rollout: {{ probation: {probation} }}\n"
    );
    let file = world.folder().join("watched.yaml");
    std::fs::write(&file, yaml)?;
    world.muster(&["apply", "-f", &file.to_string_lossy()]).map(drop)
}

/// One request that the gateway takes too, with more rows than fit into what is granted.
fn too_many_rows() -> Result<Vec<Value>> {
    let rows = vec![Value::from(vec![7; 64]); 1_500];
    assert!(rows.len() * ROW_BYTES > 64 << 20);
    assert!(serde_json::to_string(&rows)?.len() < muster_shared::limits::CALL_BODY_BYTES_MAX);
    Ok(rows)
}

#[test]
fn a_model_that_runs_out_of_memory_while_it_is_watched_makes_way_for_the_old_one() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    deploy_watched(&world, 1, "1s")?;
    world.until_serves("edge-1", "digits", 1)?;
    // Its golden vectors are right, and it needs little for them.
    world.publish(&hungry_digits(world.folder(), 2)?)?;
    deploy_watched(&world, 2, "30s")?;
    world.until("version 2 to be watched", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok((slot["phase"] == "probation" && slot["running"]["version"] == 2).then_some(()))
    })?;
    let door = format!("{}/v1/models/digits:predict", world.door("edge-1")?);
    let ask = |instances: &[Value]| post(&door, &serde_json::json!({ "instances": instances }).to_string());
    let held_out = fixtures::held_out("digits", 2)?;
    let (rows, expected) = (&held_out.instances[..8], &held_out.predictions[..8]);
    let answer = ask(rows)?;
    assert_eq!((answer.status, answer.version), (200, Some(2)), "{answer:?}");
    let got = answer.body["predictions"].as_array().cloned().unwrap_or_default();
    assert!(got.len() == 8 && expected.iter().zip(&got).all(|(expected, got)| fixtures::agrees(expected, got)));

    let answer = ask(&too_many_rows()?)?;
    assert_eq!(answer.status, 500, "{answer:?}");
    let refusal = world.until("version 2 to be refused", |world| {
        let device = world.device("edge-1")?;
        Ok(device["refusals"].as_array().and_then(|refusals| refusals.first().cloned()))
    })?;
    assert_eq!((&refusal["kind"], &refusal["bundle"]["version"]), (&"tooMuchMemoryInProbation".into(), &2.into()));
    assert_eq!(refusal["reason"], "the model needs more than the 64Mi of memory that it was granted");
    assert_eq!(refusal["memoryBytes"], 64 << 20);

    let slot = world.until("version 1 to be back", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok((slot["running"]["version"] == 1).then_some(slot))
    })?;
    assert_ne!(slot["phase"], "probation", "{slot}");
    let answer = ask(&fixtures::held_out("digits", 1)?.instances[..1])?;
    assert_eq!((answer.status, answer.version), (200, Some(1)), "{answer:?}");
    Ok(())
}

#[test]
fn a_check_without_enough_memory_waits_says_why_and_is_made_again_with_more() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&hungry_digits(world.folder(), 1)?)?;
    deploy_granted(&world, 1, "1s", "64Ki")?;
    let slot = world.until("the check to wait", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok(slot["waiting"].as_str().is_some_and(|waiting| waiting.contains("memory")).then_some(slot))
    })?;
    let waiting = "the check could not be made (the model needs more than the 64Ki of memory that it was granted); it \
                   is tried again";
    assert_eq!((&slot["phase"], &slot["waiting"]), (&"checking".into(), &waiting.into()));
    assert_eq!(world.device("edge-1")?["refusals"], serde_json::json!([]));
    deploy_granted(&world, 1, "1s", "64Mi")?;
    world.until_serves("edge-1", "digits", 1)
}

/// Looks every millisecond how many workers an agent has, until it is asked for the most there were.
struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Watch {
    fn begin(agent: u32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let thread = std::thread::spawn(move || {
            let mut most = 0;
            while !told.load(Ordering::Relaxed) {
                most = most.max(descendants(agent)?.len());
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(most)
        });
        Self { done, thread }
    }

    fn most(self) -> Result<usize> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?
    }
}

#[test]
fn where_two_versions_do_not_fit_the_old_one_makes_room_and_comes_back() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    let config = world.device_folder("edge-1").join("agent.toml");
    let text = std::fs::read_to_string(&config)?;
    assert!(text.contains("[limits]\n"), "{text}");
    // One version takes 64Mi: there is no room for another one beside it.
    std::fs::write(&config, text.replace("[limits]\n", "[limits]\nmemory = \"100Mi\"\n"))?;
    world.start_agent("edge-1")?;
    world.publish(&Bundle::fixture("digits", 1))?;
    deploy_watched(&world, 1, "1s")?;
    world.until_serves("edge-1", "digits", 1)?;

    let watch = Watch::begin(world.agent_id("edge-1")?);
    world.publish(&hungry_digits(world.folder(), 2)?)?;
    deploy_watched(&world, 2, "30s")?;
    world.until("version 2 to be watched", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok((slot["phase"] == "probation" && slot["running"]["version"] == 2).then_some(()))
    })?;
    let door = format!("{}/v1/models/digits:predict", world.door("edge-1")?);
    let ask = |instances: &[Value]| post(&door, &serde_json::json!({ "instances": instances }).to_string());
    let row = &fixtures::held_out("digits", 1)?.instances[..1];
    assert_eq!(ask(row)?.version, Some(2));
    assert_eq!(ask(&too_many_rows()?)?.status, 500);
    let slot = world.until("version 1 to be back", |world| {
        let slot = world.slot("edge-1", "digits")?;
        Ok((slot["running"]["version"] == 1).then_some(slot))
    })?;
    assert_eq!(slot["restarts"], 0, "{slot}");
    let answer = ask(row)?;
    assert_eq!((answer.status, answer.version), (200, Some(1)), "{answer:?}");
    assert_eq!(watch.most()?, 1);
    Ok(())
}
