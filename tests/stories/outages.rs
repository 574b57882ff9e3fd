//! Trouble of our own: a broker and a plane that lose their memory, a database from a backup, telemetry
//! over an outage. Nothing of it is taken for the loss of a device, and nothing goes backwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use muster_tests::{copy_state, world};
use muster_world::{Bundle, World, fixtures, post};
use serde_json::{Value, json};

const DEVICES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
const FAST: &str = "rollout: { waves: [1, 100%], probation: 1s }\n  deviceLossGrace: 2s";

fn applied(world: &World, device: &str) -> Result<u64> {
    world.device(device)?["applied"]["number"].as_u64().context("it applied something")
}

#[test]
fn a_broker_that_forgot_everything_is_told_again_and_nothing_moves() -> Result<()> {
    let mut world = world(&DEVICES)?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "1", 2, FAST)?;
    let before = world.until_whole("digits", 2)?;
    // What was asked for right before is not lost with what was in flight.
    world.muster(&["scale", "digits", "--replicas", "3"])?;
    world.kill_plane()?;
    world.start_plane()?;
    let after = world.until_whole("digits", 3)?;
    assert!(after.is_superset(&before), "{before:?} {after:?}");
    assert_eq!(world.events("replicaMoved")?, Vec::<Value>::new());
    assert_eq!(world.events("deviceLost")?, Vec::<Value>::new());
    Ok(())
}

#[test]
fn a_database_from_an_older_copy_takes_no_device_back() -> Result<()> {
    let mut world = world(&DEVICES)?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "latest", 3, FAST)?;
    world.until_whole("digits", 3)?;
    let backup = world.folder().join("backup");
    world.stop_plane();
    copy_state(&world.plane_folder(), &backup)?;
    world.start_plane()?;

    let version_2 = world.publish(&Bundle::fixture("digits", 2))?;
    for device in DEVICES {
        world.until_serves(device, "digits", 2)?;
    }
    let before: Vec<u64> = DEVICES.iter().map(|device| applied(&world, device)).collect::<Result<_>>()?;
    world.stop_plane();
    copy_state(&backup, &world.plane_folder())?;

    // From now on every answer of every device must be version 2's.
    let watch = Watch::start(&world, "digits", 2)?;
    world.start_plane()?;
    world.until("the plane to say that it is behind", |world| {
        let explained = world.json(&["explain", "digits"])?.to_string();
        Ok(explained.contains("this database is older than what the device holds").then_some(()))
    })?;
    // The version that the copy does not know is pushed again, and the plan approved: everything is as it was.
    world.muster(&["push", &version_2.to_string_lossy()])?;
    assert!(world.muster(&["plan"])?.contains("put back"));
    world.muster(&["plan", "approve"])?;
    world.until_whole("digits", 3)?;
    for (device, before) in DEVICES.iter().zip(before) {
        world.until_serves(device, "digits", 2)?;
        world.until("its desired state to be a later one", |world| {
            Ok((applied(world, device)? > before).then_some(()))
        })?;
    }
    watch.stop()?;
    // And it goes on: what is wanted from now on reaches the devices.
    world.muster(&["scale", "digits", "--replicas", "1"])?;
    world.until_whole("digits", 1)?;
    Ok(())
}

/// Asks every device's own door again and again which version answers.
struct Watch {
    stop: Arc<AtomicBool>,
    wrong: Arc<Mutex<Vec<String>>>,
    thread: std::thread::JoinHandle<u64>,
}

impl Watch {
    fn start(world: &World, model: &str, version: u64) -> Result<Self> {
        let (stop, wrong) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let doors: Vec<String> =
            DEVICES.iter().map(|device| Ok(world.door(device)?.to_owned())).collect::<Result<_>>()?;
        let body = json!({ "instances": [fixtures::held_out(model, version as u32)?.instances[0]] }).to_string();
        let (model, ours) = (model.to_owned(), (stop.clone(), wrong.clone()));
        let thread = std::thread::spawn(move || {
            let (stop, wrong) = ours;
            let mut asked = 0;
            while !stop.load(Ordering::SeqCst) {
                for door in &doors {
                    let answer = post(&format!("{door}/v1/models/{model}:predict"), &body);
                    asked += 1;
                    match answer {
                        Ok(answer) if answer.status == 200 && answer.version == Some(version) => {}
                        other => {
                            let mut wrong = wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                            wrong.push(format!("{door}: {other:?}"));
                        }
                    }
                }
            }
            asked
        });
        Ok(Self { stop, wrong, thread })
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let asked = self.thread.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        let wrong = self.wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        anyhow::ensure!(asked > 0 && wrong.is_empty(), "{} of {asked} answers: {:?}", wrong.len(), wrong.first());
        println!("restored database: {asked} answers while it converged, all by version 2");
        Ok(())
    }
}

#[test]
fn telemetry_over_an_outage_counts_exactly_what_clients_sent() -> Result<()> {
    let devices = ["edge-1", "edge-2"];
    let mut world = world(&devices)?;
    for model in ["digits", "linear_regression"] {
        world.publish(&Bundle::fixture(model, 1))?;
        world.deploy_fleet(model, "1", 2, FAST)?;
    }
    for model in ["digits", "linear_regression"] {
        world.until_whole(model, 2)?;
    }
    let mut sent = std::collections::BTreeMap::new();
    let mut ask = |world: &World, times: u64| -> Result<()> {
        for (at, device) in devices.iter().enumerate() {
            for model in ["digits", "linear_regression"] {
                let body = json!({ "instances": [fixtures::held_out(model, 1)?.instances[0]] }).to_string();
                for _ in 0..times + at as u64 {
                    let answer = post(&format!("{}/v1/models/{model}:predict", world.door(device)?), &body)?;
                    anyhow::ensure!(answer.status == 200, "{answer:?}");
                    *sent.entry((*device, model)).or_insert(0) += 1;
                }
            }
        }
        Ok(())
    };
    ask(&world, 7)?;
    // While the plane is away, devices close several batches of a second each.
    world.kill_plane()?;
    let began = std::time::Instant::now();
    while began.elapsed() < std::time::Duration::from_secs(4) {
        ask(&world, 5)?;
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    world.start_plane()?;
    ask(&world, 3)?;
    // And once more, in the middle of what is sent again.
    world.kill_plane()?;
    world.start_plane()?;
    ask(&world, 2)?;
    let counted = |world: &World, device: &str, model: &str| -> Result<u64> {
        let models = world.device(device)?["models"].as_array().cloned().unwrap_or_default();
        let of = models.iter().filter(|counted| counted["deployment"] == model);
        Ok(of.filter_map(|counted| counted["requests"].as_u64()).sum())
    };
    for ((device, model), sent) in &sent {
        world.until(&format!("{device} to have counted {sent} of {model}"), |world| {
            let counted = counted(world, device, model)?;
            assert!(counted <= *sent, "{device} {model}: {counted} counted, {sent} sent");
            Ok((counted == *sent).then_some(()))
        })?;
    }
    println!("telemetry over two outages: {:?} sent and counted", sent.values().collect::<Vec<_>>());
    Ok(())
}
