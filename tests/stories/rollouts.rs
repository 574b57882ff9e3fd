//! A new version goes over three devices, wave by wave; a bad one comes no further than the first.

use anyhow::{Context as _, Result};
use muster_tests::load::Load;
use muster_tests::world;
use muster_world::{Bundle, World, fixtures, post};
use serde_json::Value;

const DEVICES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
const FAST: &str = "rollout: { waves: [1, 2, 100%], probation: 1s }";

fn serving_version_1(spec: &str) -> Result<World> {
    let mut world = world(&DEVICES)?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "latest", 3, spec)?;
    world.until_whole("digits", 3)?;
    until_stage(&mut world, "done")?;
    Ok(world)
}

fn rollout(world: &World) -> Result<Value> {
    world.json(&["rollout", "status", "digits"])
}

fn until_stage(world: &mut World, stage: &str) -> Result<Value> {
    world.until(&format!("the rollout to be {stage}"), |world| {
        let rollout = rollout(world)?;
        Ok((rollout["stage"] == stage).then_some(rollout))
    })
}

/// The versions that answer, by device.
fn running(world: &World) -> Result<Vec<u64>> {
    DEVICES.iter().map(|device| Ok(world.slot(device, "digits")?["running"]["version"].as_u64().unwrap_or(0))).collect()
}

fn until_running(world: &mut World, version: u64) -> Result<()> {
    world.until(&format!("all to run version {version}"), |world| {
        Ok(running(world)?.iter().all(|running| *running == version).then_some(()))
    })
}

/// Devices that remember having refused a bundle.
fn refusals(world: &World) -> Result<Vec<Value>> {
    let of = |device: &Value| device["refusals"].as_array().cloned().unwrap_or_default();
    Ok(world.devices()?.iter().flat_map(of).collect())
}

#[test]
fn a_version_changes_wave_by_wave_under_load_and_no_request_fails() -> Result<()> {
    let mut world = serving_version_1(FAST)?;
    let load = Load::start(&world, "digits", &[1, 2], 100)?;
    world.until("all to answer", |_| Ok((load.seen().devices.len() == 3).then_some(())))?;
    world.publish(&Bundle::fixture("digits", 2))?;
    // Never more devices than the wave allows: the waves follow each other.
    let mut waves = vec![];
    let done = world.until("version 2 on every device", |world| {
        let rollout = rollout(world)?;
        if rollout["version"] == 2 && rollout["stage"] == "running" {
            let (wave, granted) = (rollout["wave"].as_u64().unwrap_or(0), rollout["granted"].as_u64().unwrap_or(9));
            assert!(granted <= wave, "wave {wave} has {granted} devices: {rollout:#}");
            if waves.last() != Some(&wave) {
                waves.push(wave);
            }
        }
        Ok((rollout["version"] == 2 && rollout["stage"] == "done").then_some(rollout))
    })?;
    assert!(waves.is_sorted(), "{waves:?}");
    assert_eq!((&done["previous"], &done["healthy"]), (&1.into(), &3.into()), "{done:#}");
    until_running(&mut world, 2)?;
    // And back, at once and everywhere.
    world.muster(&["rollout", "undo", "digits"])?;
    until_running(&mut world, 1)?;
    world.until_whole("digits", 3)?;
    let seen = load.stop()?;
    assert_eq!(seen.failed, Vec::<String>::new());
    assert_eq!(seen.good(), seen.asked);
    assert!(seen.versions.contains_key(&1) && seen.versions.contains_key(&2), "{:?}", seen.versions);
    println!("version change and back under 100 requests/s: {} asked, 0 failed, {:?}", seen.asked, seen.versions);
    let undone = until_stage(&mut world, "undone")?;
    assert!(undone["message"].as_str().is_some_and(|text| text.contains("back on version 1")), "{undone:#}");
    Ok(())
}

/// The first wave's device fails with this version, and nobody else ever gets it.
fn comes_no_further(world: &mut World, kind: &str, reason: &str) -> Result<()> {
    let stopped = until_stage(world, "stopped")?;
    let message = stopped["message"].as_str().unwrap_or_default();
    assert!(message.contains(reason) && message.contains("back on version 1"), "{message}");
    until_running(world, 1)?;
    world.until_whole("digits", 3)?;
    let refusals = refusals(world)?;
    assert_eq!(refusals.len(), 1, "only the first wave's device had it: {refusals:#?}");
    assert_eq!((&refusals[0]["kind"], &refusals[0]["bundle"]["version"]), (&kind.into(), &2.into()));
    // The reason is where people look.
    let status = world.status("digits")?;
    let progressing = &status["conditions"][2];
    assert_eq!((&progressing["type"], &progressing["reason"]), (&"Progressing".into(), &"RolloutStopped".into()));
    assert!(progressing["message"].as_str().is_some_and(|text| text.contains(reason)), "{progressing}");
    let told = world.muster(&["explain", "digits"])?;
    assert!(told.contains(reason), "{told}");
    let event = world.events("rolloutStopped")?;
    assert!(event[0]["text"].as_str().is_some_and(|text| text.contains(reason)), "{event:?}");
    Ok(())
}

#[test]
fn a_version_with_wrong_answers_comes_no_further_than_the_first_device() -> Result<()> {
    let mut world = serving_version_1(FAST)?;
    let load = Load::start(&world, "digits", &[1], 50)?;
    // Version 2 with the golden vectors of version 1: signed, whole, and wrong.
    let golden = Some(fixtures::folder("digits", 1).join("golden.json"));
    world.publish(&Bundle { golden, ..Bundle::fixture("digits", 2) })?;
    comes_no_further(&mut world, "goldenMismatch", "expected")?;
    assert_eq!(load.stop()?.failed, Vec::<String>::new());

    // An operator has it tried again: the same device refuses anew, and nobody else gets it.
    let number = rollout(&world)?["number"].clone();
    world.muster(&["rollout", "resume", "digits"])?;
    world.until("the second try to stop, too", |world| {
        let rollout = rollout(world)?;
        Ok((rollout["number"] != number && rollout["stage"] == "stopped").then_some(()))
    })?;
    assert_eq!(refusals(&world)?.len(), 1);

    // A better version takes over from the one that serves.
    world.publish(&Bundle { version: 3, ..Bundle::fixture("digits", 2) })?;
    world.until_whole("digits", 3)?;
    until_running(&mut world, 3)
}

#[test]
fn a_version_that_cannot_be_loaded_comes_no_further_than_the_first_device() -> Result<()> {
    let mut world = serving_version_1(FAST)?;
    let unloadable = muster_tests::models::unloadable(&world.folder().join("unloadable.onnx"))?;
    world.publish(&Bundle { onnx: unloadable, ..Bundle::fixture("digits", 2) })?;
    comes_no_further(&mut world, "cannotLoad", "refused version 2")
}

#[test]
fn a_version_that_crashes_under_load_comes_no_further_than_the_first_device() -> Result<()> {
    let mut world = serving_version_1(FAST)?;
    world.deploy_fleet("digits", "latest", 3, "rollout: { waves: [1, 2, 100%], probation: 60s }")?;
    world.publish(&muster_tests::hungry::hungry_digits(world.folder(), 2)?)?;
    let first = world.until("version 2 to be watched on the first device", |world| {
        let in_probation = |device: &&&str| world.slot(device, "digits").is_ok_and(|slot| slot["phase"] == "probation");
        Ok(DEVICES.iter().find(in_probation).copied())
    })?;
    // It answers small requests rightly, as version 2.
    let rows = fixtures::held_out("digits", 2)?;
    let small = serde_json::json!({ "instances": [rows.instances[0]] }).to_string();
    let url = |base: &str| format!("{base}/v1/models/digits/versions/2:predict");
    let answer = post(&url(&world.plane().gateway), &small)?;
    assert_eq!((answer.status, answer.device.as_deref(), answer.version), (200, Some(first), Some(2)));
    assert!(fixtures::agrees(&rows.predictions[0], &answer.body["predictions"][0]), "{}", answer.body);
    // A large one ends its process. Nobody else is asked the same.
    let row = vec![1; 64];
    let large = serde_json::json!({ "instances": vec![row; 1500] }).to_string();
    let answer = post(&url(&world.plane().gateway), &large)?;
    assert_eq!((answer.status, answer.device.as_deref()), (500, Some(first)), "{}", answer.body);
    comes_no_further(&mut world, "tooMuchMemoryInProbation", "more than the 64Mi of memory")?;
    let restarts: u64 = DEVICES
        .iter()
        .map(|device| Ok(world.slot(device, "digits")?["restarts"].as_u64().unwrap_or(0)))
        .sum::<Result<u64>>()?;
    assert_eq!(restarts, 0, "the old version's workers never died");
    Ok(())
}

#[test]
fn a_plane_killed_in_the_middle_of_a_rollout_goes_on_where_it_was() -> Result<()> {
    let mut world = serving_version_1("rollout: { waves: [1, 2, 100%], probation: 3s }")?;
    world.publish(&Bundle::fixture("digits", 2))?;
    let before = world.until("the second wave to be under way", |world| {
        let rollout = rollout(world)?;
        Ok((rollout["version"] == 2 && rollout["wave"] == 2 && rollout["granted"] == 2).then_some(rollout))
    })?;
    let first = world.until("the first device to have it", |world| {
        let on_2 = |device: &&&str| {
            world.slot(device, "digits").is_ok_and(|slot| slot["phase"] == "serving" && slot["running"]["version"] == 2)
        };
        Ok(DEVICES.iter().find(on_2).copied())
    })?;
    world.kill_plane()?;
    world.start_plane()?;
    let done = world.until("version 2 on every device", |world| {
        // What was done is not done again: the first device never goes back.
        let slot = world.slot(first, "digits")?;
        assert_ne!(slot["running"]["version"], 1, "{slot:#}");
        let rollout = rollout(world)?;
        assert_eq!((&rollout["number"], &rollout["beganMs"]), (&before["number"], &before["beganMs"]));
        assert!(rollout["wave"].as_u64() >= Some(2), "{rollout:#}");
        Ok((rollout["stage"] == "done").then_some(rollout))
    })?;
    assert_eq!(done["healthy"], 3, "{done:#}");
    until_running(&mut world, 2)
}

#[test]
fn a_rollout_is_paused_and_goes_on() -> Result<()> {
    let mut world = serving_version_1(FAST)?;
    let refused = world.muster(&["rollout", "pause", "digits"]).expect_err("it is over");
    assert!(format!("{refused:#}").contains("the rollout is over"), "{refused:#}");
    world.publish(&Bundle::fixture("digits", 2))?;
    world.until("the rollout to begin", |world| Ok((rollout(world)?["version"] == 2).then_some(())))?;
    world.muster(&["rollout", "pause", "digits"])?;
    // The devices that began go on; no other one begins.
    let granted = rollout(&world)?["granted"].as_u64().context("a number")?;
    assert!(granted < 3, "paused too late to see anything");
    world.until("those that began to have it", |world| {
        let rollout = rollout(world)?;
        assert_eq!((&rollout["stage"], rollout["granted"].as_u64()), (&"paused".into(), Some(granted)));
        Ok((running(world)?.iter().filter(|version| **version == 2).count() as u64 == granted).then_some(()))
    })?;
    world.muster(&["rollout", "resume", "digits"])?;
    until_stage(&mut world, "done")?;
    until_running(&mut world, 2)?;
    let history = world.json(&["rollout", "history", "digits"])?;
    assert_eq!(history.as_array().map(Vec::len), Some(2), "{history:#}");
    Ok(())
}
