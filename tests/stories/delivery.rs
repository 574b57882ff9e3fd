//! A model travels from a laptop to a device and answers there.

use anyhow::Result;
use muster_tests::world;
use muster_world::fixtures::{agrees, held_out};
use muster_world::{Bundle, get, post};
use serde_json::json;

#[test]
fn two_signed_models_arrive_and_answer_as_scikit_learn_does() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    for model in ["linear_regression", "digits"] {
        world.publish(&Bundle::fixture(model, 1))?;
        world.deploy(model, "latest")?;
        world.until_serves("edge-1", model, 1)?;
    }
    let (gateway, door) = (world.plane().gateway.clone(), world.door("edge-1")?.to_owned());
    let mut asked = 0;
    for model in ["linear_regression", "digits"] {
        let rows = held_out(model, 1)?;
        let body = json!({ "instances": rows.instances }).to_string();
        for base in [&gateway, &door] {
            let answer = post(&format!("{base}/v1/models/{model}:predict"), &body)?;
            assert_eq!((answer.status, answer.device.as_deref(), answer.version), (200, Some("edge-1"), Some(1)));
            let got = answer.body["predictions"].as_array().expect("predictions");
            assert_eq!(got.len(), rows.predictions.len());
            for (expected, got) in rows.predictions.iter().zip(got) {
                assert!(agrees(expected, got), "{model} by {base}: {got} for {expected}");
            }
            asked += 1;
        }
    }

    // The command line asks through the plane's API and prints TF Serving's answer.
    let row = held_out("digits", 1)?.instances[0].to_string();
    let printed = world.muster(&["predict", "digits", "--data", &format!("[{row}]")])?;
    assert!(serde_json::from_str::<serde_json::Value>(&printed)?["predictions"].is_array(), "{printed}");
    asked += 1;

    let status = get(&format!("{gateway}/v1/models/digits"))?;
    assert_eq!(status.body["model_version_status"][0]["state"], "AVAILABLE");

    // What the device counted is what was asked, no more and no less.
    world.until("telemetry to count every prediction", |world| {
        let device = world.device("edge-1")?;
        let models = device["models"].as_array().cloned().unwrap_or_default();
        let counted: u64 = models.iter().filter_map(|model| model["requests"].as_u64()).sum();
        assert!(counted <= asked, "{counted} counted, {asked} asked");
        Ok((counted == asked).then_some(()))
    })?;
    let device = world.device("edge-1")?;
    assert!(device["host"]["memoryBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{device:#}");
    assert!(device["models"][0]["p99Us"].as_f64().is_some_and(|micros| micros > 0.0), "{device:#}");
    Ok(())
}

#[test]
fn mistakes_of_the_caller_get_tf_servings_errors() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    for base in [world.plane().gateway.clone(), world.door("edge-1")?.to_owned()] {
        for (path, body, status) in [
            ("nobody:predict", "{\"instances\": [1]}", 404),
            ("digits/versions/9:predict", "{\"instances\": [1]}", 404),
            ("digits:predict", "{not json", 400),
            ("digits:predict", "{\"instances\": [[1, 2]]}", 400),
            ("digits:explode", "{}", 400),
        ] {
            let answer = post(&format!("{base}/v1/models/{path}"), body)?;
            assert_eq!(answer.status, status, "{base} {path} {body}: {}", answer.body);
            assert!(answer.body["error"].is_string(), "{base} {path}: {}", answer.body);
        }
    }
    let large = format!("{{\"instances\": [[{}1]]}}", "1,".repeat(200_000));
    let answer = post(&format!("{}/v1/models/digits:predict", world.plane().gateway), &large)?;
    assert_eq!(answer.status, 413, "{}", answer.body);
    Ok(())
}

#[test]
fn a_new_version_takes_over_and_what_is_not_wanted_any_more_goes() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "latest")?;
    world.until_serves("edge-1", "digits", 1)?;
    world.publish(&Bundle::fixture("digits", 2))?;
    world.until_serves("edge-1", "digits", 2)?;
    let rows = held_out("digits", 2)?;
    let body = json!({ "instances": rows.instances }).to_string();
    let answer = post(&format!("{}/v1/models/digits:predict", world.plane().gateway), &body)?;
    assert_eq!((answer.status, answer.version), (200, Some(2)));
    for (expected, got) in rows.predictions.iter().zip(answer.body["predictions"].as_array().expect("predictions")) {
        assert!(agrees(expected, got), "{got} for {expected}");
    }
    // Version 1's files are gone: the device keeps what it needs.
    let blobs = world.device_folder("edge-1").join("blobs");
    world.until("version 1's files to be removed", |_| {
        // A manifest, the model, golden vectors, and the two files' chunk indexes.
        Ok((std::fs::read_dir(&blobs)?.count() == 5).then_some(()))
    })?;

    world.muster(&["delete", "deployment", "digits"])?;
    world.until("the slot to be empty", |world| Ok(world.slot("edge-1", "digits")?.is_null().then_some(())))?;
    let answer = post(&format!("{}/v1/models/digits:predict", world.door("edge-1")?), &body)?;
    assert_eq!(answer.status, 404);
    Ok(())
}

#[test]
fn a_deployment_that_fits_nowhere_waits_and_says_why() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    let yaml = "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: { name: digits }\nspec:\n  model: digits\n  \
                selector: { matchLabels: { site: moon } }\n";
    let file = world.folder().join("moon.yaml");
    std::fs::write(&file, yaml)?;
    world.muster(&["apply", "-f", &file.to_string_lossy()])?;
    world.until("the reason to be told", |world| {
        let deployment = world.json(&["get", "deployment", "digits"])?;
        let conditions = deployment["status"]["conditions"].to_string();
        Ok(conditions.contains("site=moon").then_some(()))
    })?;
    let answer = post(&format!("{}/v1/models/digits:predict", world.plane().gateway), "{\"instances\": [1]}")?;
    assert_eq!(answer.status, 503, "{}", answer.body);
    Ok(())
}
