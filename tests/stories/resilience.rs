//! What a device goes through: no network, killed processes, a plane that restarts.

use std::time::{Duration, Instant};

use anyhow::Result;
use muster_tests::{MODELS, both_models_serve};
use muster_world::{World, descendants, fixtures, post, signal};

fn status(world: &World, model: &str) -> Result<u16> {
    let body = serde_json::json!({ "instances": [fixtures::held_out(model, 1)?.instances[0]] }).to_string();
    Ok(post(&format!("{}/v1/models/{model}:predict", world.door("edge-1")?), &body)?.status)
}

#[test]
fn an_agent_restarted_without_a_plane_or_broker_answers() -> Result<()> {
    let mut world = both_models_serve()?;
    world.stop_plane();
    world.kill_agent("edge-1")?;
    world.start_agent("edge-1")?;
    for model in MODELS {
        world.until(&format!("{model} to answer offline"), |world| Ok((status(world, model)? == 200).then_some(())))?;
    }
    Ok(())
}

/// What each part of the sandbox refuses is tried in the agent's own tests; this says that a worker closes it.
#[test]
fn a_model_is_served_from_a_closed_sandbox_and_the_fleet_sees_what_holds() -> Result<()> {
    let world = both_models_serve()?;
    for worker in descendants(world.agent_id("edge-1")?)? {
        let said = std::fs::read_to_string(format!("/proc/{}/status", worker.id))?;
        for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t2"] {
            assert!(said.lines().any(|said| said == line), "{line:?}: {said}");
        }
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", worker.id))?;
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
        assert_eq!(files.split_whitespace().nth(3), Some("64"), "{limits}");
    }
    let device = world.device("edge-1")?.to_string();
    for holds in ["no-new-privileges", "paced cpu", "rlimits", "seccomp"] {
        assert!(device.contains(&format!("{holds:?}")), "{holds}: {device}");
    }
    Ok(())
}

#[test]
fn a_killed_worker_costs_only_its_model_and_only_for_seconds() -> Result<()> {
    let mut world = both_models_serve()?;
    let workers = descendants(world.agent_id("edge-1")?)?;
    assert_eq!(workers.len(), 2, "{workers:?}");
    let killed_at = Instant::now();
    signal(workers[0].id, "-KILL")?;
    // Until the model is back, each round asks both: the other one must never fail.
    let mut failed = [0; 2];
    let mut came_back = None;
    while came_back.is_none() {
        for (at, model) in MODELS.iter().enumerate() {
            match status(&world, model)? {
                200 => {}
                // 500: the process ended while it worked on this very request.
                500 | 503 => failed[at] += 1,
                other => panic!("{model} answered {other}"),
            }
        }
        let now = descendants(world.agent_id("edge-1")?)?;
        let replaced = now.len() == 2 && !now.contains(&workers[0]);
        let both = MODELS.iter().all(|model| status(&world, model).is_ok_and(|status| status == 200));
        came_back = (replaced && both).then(|| killed_at.elapsed());
        assert!(killed_at.elapsed() < Duration::from_secs(50), "the model is not back");
    }
    assert!(failed.contains(&0), "both models failed: {failed:?}");
    println!("a killed worker's model is back after {came_back:?}");
    // It is reported as one restart of one slot.
    world.until("the restart to be reported", |world| {
        let restarts: Vec<u64> = MODELS
            .iter()
            .map(|model| Ok(world.slot("edge-1", model)?["restarts"].as_u64().unwrap_or(0)))
            .collect::<Result<_>>()?;
        Ok((restarts.iter().sum::<u64>() == 1).then_some(()))
    })
}

#[test]
fn a_plane_that_restarts_finds_everything_as_it_was() -> Result<()> {
    let mut world = both_models_serve()?;
    let before = world.device("edge-1")?["desired"].clone();
    world.stop_plane();
    for model in MODELS {
        assert_eq!(status(&world, model)?, 200, "{model} while the plane is down");
    }
    world.start_plane()?;
    world.until("the device to be connected again", |world| {
        Ok((world.device("edge-1")?["connected"] == true).then_some(()))
    })?;
    for model in MODELS {
        world.until(&format!("the gateway to answer for {model}"), |world| {
            let body = serde_json::json!({ "instances": [fixtures::held_out(model, 1)?.instances[0]] }).to_string();
            let answer = post(&format!("{}/v1/models/{model}:predict", world.plane().gateway), &body)?;
            Ok((answer.status == 200).then_some(()))
        })?;
    }
    assert_eq!(world.device("edge-1")?["desired"], before, "a restart signs nothing new");
    Ok(())
}
