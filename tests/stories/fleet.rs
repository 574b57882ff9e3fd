//! Replicas over three devices: placed, scaled, moved when a device is lost, and not moved when the
//! trouble is ours.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_tests::load::Load;
use muster_tests::world;
use muster_world::{Bundle, World, post};
use serde_json::Value;

const DEVICES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];
/// Short probations and short graces: a story should not take minutes.
const FAST: &str = "rollout: { probation: 1s }\n  deviceLossGrace: 2s";

/// Three devices with `digits` on two and `linear_regression` on three of them.
fn fleet() -> Result<World> {
    let mut world = world(&DEVICES)?;
    for (model, replicas) in [("digits", 2), ("linear_regression", 3)] {
        world.publish(&Bundle::fixture(model, 1))?;
        world.deploy_fleet(model, "latest", replicas, FAST)?;
    }
    world.until_whole("digits", 2)?;
    world.until_whole("linear_regression", 3)?;
    Ok(world)
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn until_connected(world: &mut World, device: &str, connected: bool) -> Result<()> {
    world.until(&format!("{device} to be connected: {connected}"), |world| {
        Ok((world.device(device)?["connected"] == connected).then_some(()))
    })
}

/// Frames of bundles that a device was ever sent.
fn frames(world: &World, device: &str) -> Result<String> {
    let label = format!("muster_device_chunk_frames_total{{device=\"{device}\"}}");
    Ok(world.metrics()?.into_iter().find(|line| line.starts_with(&label)).unwrap_or_default())
}

#[test]
fn replicas_spread_and_scale_up_and_down() -> Result<()> {
    let mut world = world(&DEVICES)?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "1", 2, FAST)?;
    let two = world.until_whole("digits", 2)?;

    world.muster(&["scale", "digits", "--replicas", "3"])?;
    assert_eq!(world.until_whole("digits", 3)?, set(&DEVICES));

    // One more than there are devices: it waits, and says why.
    world.muster(&["scale", "digits", "--replicas", "4"])?;
    let status = world.until("the fourth replica to say what it waits for", |world| {
        let status = world.status("digits")?;
        Ok((status["wanted"] == 4 && status["conditions"][0]["reason"] == "TooFewDevices").then_some(status))
    })?;
    let message = status["conditions"][0]["message"].as_str().unwrap_or_default();
    assert_eq!(message, "1 of 4 replicas waits: every matching device already holds one");
    assert_eq!(status["ready"], 3);

    world.muster(&["scale", "digits", "--replicas", "1"])?;
    let one = world.until_whole("digits", 1)?;
    let gone: Vec<&str> = DEVICES.into_iter().filter(|device| !one.contains(*device)).collect();
    for device in gone {
        world.until(&format!("{device} to let digits go"), |world| {
            Ok(world.slot(device, "digits")?.is_null().then_some(()))
        })?;
    }
    // Explained: why it is where it is.
    let explained = world.json(&["explain", "digits"])?;
    let why = explained["replicas"][0]["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("room"), "{why} (the first two were on {two:?})");
    Ok(())
}

#[test]
fn a_lost_device_gets_no_request_and_its_replica_moves_and_its_return_causes_no_storm() -> Result<()> {
    let mut world = fleet()?;
    let before = world.holders("digits")?;
    let lost = before.iter().next().context("a holder")?.clone();
    let third = DEVICES.into_iter().find(|device| !before.contains(*device)).context("a third device")?;
    let load = Load::start(&world, "digits", &[1], 50)?;
    world.until("every holder to answer", |_| Ok((load.seen().devices == before).then_some(())))?;

    world.kill_agent(&lost)?;
    until_connected(&mut world, &lost, false)?;
    let seen_gone = Instant::now();
    let after = world.until("the replica to move", |world| {
        let holders = world.holders("digits")?;
        Ok((holders.len() == 2 && !holders.contains(&lost)).then_some(holders))
    })?;
    assert!(after.contains(third), "{after:?}");
    world.until("the third device to answer", |_| Ok(load.seen().devices.contains(third).then_some(())))?;
    let seen = load.stop()?;
    // From the moment the broker saw it go, nobody was sent there.
    let last = seen.last.get(&lost).copied().context("it answered before")?;
    assert!(last <= seen_gone, "it was asked {:?} after it was gone", last.duration_since(seen_gone));
    // What was under way at that moment was asked elsewhere.
    assert_eq!(seen.failed, Vec::<String>::new());
    println!("device lost under 50 requests/s: {} asked, 0 failed", seen.asked);
    let moved = world.events("replicaMoved")?;
    assert_eq!(moved.len(), 1, "{moved:?}");
    assert!(moved[0]["text"].as_str().is_some_and(|text| text.contains(&lost) && text.contains("silent")), "{moved:?}");

    // The third replica of the other model has nowhere to go; it says so and waits for its device.
    let explained = world.json(&["explain", "linear_regression"])?;
    assert_eq!((&explained["wanted"], &explained["ready"]), (&3.into(), &2.into()), "{explained:#}");
    let waiting = explained["waiting"][0].as_str().unwrap_or_default();
    assert!(waiting.contains(&lost) && waiting.starts_with("1 of 3 replicas waits"), "{waiting}");

    // It comes back: its own replica serves at once, from what it has; nothing moves back.
    let sent = frames(&world, &lost)?;
    world.start_agent(&lost)?;
    world.until_whole("linear_regression", 3)?;
    world
        .until(&format!("{lost} to let digits go"), |world| Ok(world.slot(&lost, "digits")?.is_null().then_some(())))?;
    assert_eq!(world.until_whole("digits", 2)?, after);
    assert_eq!(frames(&world, &lost)?, sent, "a returned device is sent no bundle");
    assert_eq!(world.events("replicaMoved")?.len(), 1);
    Ok(())
}

#[test]
fn a_device_that_is_back_within_its_grace_keeps_its_replica() -> Result<()> {
    let mut world = world(&DEVICES)?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "1", 2, "rollout: { probation: 1s }\n  deviceLossGrace: 60s")?;
    let before = world.until_whole("digits", 2)?;
    let device = before.iter().next().context("a holder")?.clone();
    world.kill_agent(&device)?;
    until_connected(&mut world, &device, false)?;
    assert_eq!(world.status("digits")?["ready"], 1);
    world.start_agent(&device)?;
    assert_eq!(world.until_whole("digits", 2)?, before);
    assert_eq!(world.events("replicaMoved")?, Vec::<Value>::new());
    Ok(())
}

#[test]
fn a_fleet_that_falls_silent_at_once_is_frozen_and_says_so() -> Result<()> {
    let mut world = fleet()?;
    let before = (world.holders("digits")?, world.holders("linear_regression")?);
    for device in DEVICES {
        world.kill_agent(device)?;
    }
    world.until("the freeze to be told", |world| Ok((!world.events("movesFrozen")?.is_empty()).then_some(())))?;
    let plan = world.json(&["plan"])?;
    assert_eq!(plan["frozen"][0]["devices"].as_array().map(Vec::len), Some(3), "{plan:#}");
    assert!(plan["frozen"][0]["message"].as_str().is_some_and(|text| text.contains("muster plan approve")));
    assert_eq!(plan["changes"], Value::Array(vec![]));
    let explained = world.json(&["explain", "digits"])?;
    assert!(explained["frozen"].as_str().is_some_and(|text| text.contains("3 of 3")), "{explained:#}");
    assert!(world.metrics()?.contains(&"muster_moves_frozen 2".to_owned()), "the fleet and its one site");
    let answer = post(&format!("{}/v1/models/digits:predict", world.plane().gateway), "{\"instances\": [1]}")?;
    assert_eq!(answer.status, 503, "{}", answer.body);

    for device in DEVICES {
        world.start_agent(device)?;
    }
    world.until("moves to go on", |world| Ok((!world.events("movesResumed")?.is_empty()).then_some(())))?;
    assert_eq!((world.until_whole("digits", 2)?, world.until_whole("linear_regression", 3)?), before);
    assert_eq!(world.events("replicaMoved")?, Vec::<Value>::new());
    Ok(())
}

#[test]
fn an_operator_may_approve_that_silent_devices_are_lost() -> Result<()> {
    let mut world = fleet()?;
    let holders = world.holders("digits")?;
    let third = DEVICES.into_iter().find(|device| !holders.contains(*device)).context("a third device")?;
    for device in &holders {
        world.kill_agent(device)?;
    }
    world.until("the freeze to be told", |world| Ok((!world.events("movesFrozen")?.is_empty()).then_some(())))?;
    assert_eq!(world.status("digits")?["ready"], 0);
    world.muster(&["plan", "approve"])?;
    world.until("a replica to serve on the device that is left", |world| {
        Ok(world.holders("digits")?.contains(third).then_some(()))
    })
}

#[test]
fn cordon_keeps_new_replicas_away_and_drain_moves_what_is_there() -> Result<()> {
    let mut world = world(&DEVICES)?;
    world.muster(&["cordon", "edge-3"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "1", 3, FAST)?;
    world.until("two replicas to serve and the third to say why not", |world| {
        let status = world.status("digits")?;
        let waiting = status["conditions"][0]["message"].as_str().unwrap_or_default();
        Ok((status["ready"] == 2 && waiting.contains("edge-3 is cordoned")).then_some(()))
    })?;
    world.muster(&["scale", "digits", "--replicas", "2"])?;
    assert_eq!(world.until_whole("digits", 2)?, set(&["edge-1", "edge-2"]));
    world.muster(&["uncordon", "edge-3"])?;

    let load = Load::start(&world, "digits", &[1], 100)?;
    world.until("both to answer", |_| Ok((load.seen().devices.len() == 2).then_some(())))?;
    world.muster(&["drain", "edge-1", "--wait", "--timeout", "60s"])?;
    assert_eq!(world.until_whole("digits", 2)?, set(&["edge-2", "edge-3"]));
    world.until("the new place to answer", |_| Ok(load.seen().devices.contains("edge-3").then_some(())))?;
    let seen = load.stop()?;
    assert_eq!(seen.failed, Vec::<String>::new());
    assert_eq!(seen.good(), seen.asked);
    println!("drain under 100 requests/s: {} asked, 0 failed", seen.asked);

    // With nowhere to go, a replica stays and serves, and the drain says what it waits for.
    world.muster(&["cordon", "edge-1"])?;
    world.muster(&["drain", "edge-2"])?;
    world.until("the drain to say what it waits for", |world| {
        let explained = world.json(&["explain", "deployment/digits"])?;
        let waiting = explained["waiting"][0].as_str().unwrap_or_default();
        Ok((explained["ready"] == 2 && waiting.contains("edge-2 is being drained")).then_some(()))
    })
}

#[test]
fn the_figures_agree_wherever_they_are_shown() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy_fleet("digits", "1", 1, FAST)?;
    world.until_whole("digits", 1)?;
    let load = Load::start(&world, "digits", &[1], 100)?;
    std::thread::sleep(Duration::from_secs(3));
    let seen = load.stop()?;
    assert_eq!(seen.failed, Vec::<String>::new());

    let names = [
        ("share", "muster_model_share"),
        ("requestsPerSecond", "muster_model_requests_per_second"),
        ("coreMsPerPrediction", "muster_model_core_ms_per_prediction"),
        ("coresDemanded", "muster_model_cores_demanded"),
    ];
    // Figures follow each batch: between two batches all places must say the same.
    world.until("a moment between two batches", |world| {
        let device = |world: &World| -> Result<Value> { Ok(world.device("edge-1")?["models"][0].clone()) };
        let before = device(world)?;
        let explained = world.json(&["explain", "digits"])?;
        let metrics = world.metrics()?;
        let after = device(world)?;
        if before["requests"] != seen.asked || before["figures"] != after["figures"] {
            return Ok(None);
        }
        for (field, metric) in names {
            let shown = before["figures"][field].as_f64().with_context(|| format!("no {field}: {before:#}"))?;
            let line = format!("{metric}{{device=\"edge-1\",deployment=\"digits\"}} ");
            let exposed = metrics.iter().find_map(|text| text.strip_prefix(&line)?.parse::<f64>().ok());
            let explained = explained["replicas"][0]["figures"][field].as_f64();
            for (place, figure) in [("metrics", exposed), ("explain", explained)] {
                let figure = figure.with_context(|| format!("no {field} in {place}"))?;
                assert!((figure - shown).abs() <= 0.01 * shown, "{field}: {place} says {figure}, the device {shown}");
            }
        }
        // R × rate ÷ 1000 = A, and R is what the batches counted.
        let number = |field: &str| before["figures"][field].as_f64().unwrap_or_default();
        let cores = number("requestsPerSecond") * number("coreMsPerPrediction") / 1000.0;
        assert!((cores - number("coresDemanded")).abs() <= 0.01 * cores, "{before:#}");
        let counted = before["cpuUs"].as_f64().unwrap_or_default() / 1000.0 / seen.asked as f64;
        let r = number("coreMsPerPrediction");
        assert!((r - counted).abs() <= 0.01 * counted, "R {r}, counted {counted}");
        let demand = &explained["demand"];
        assert_eq!(demand["replicasNeeded"], 1, "{demand:#}");
        println!("{}", demand["sentence"].as_str().unwrap_or_default());
        Ok(Some(()))
    })
}
