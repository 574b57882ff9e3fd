//! Who may say what, as it changes while models serve: every role's key replaced, two of three people
//! signing, floors, a key in a token, a key where it must not be.

use std::process::Command;

use anyhow::{Context as _, Result};
use muster_tests::hostile::{HostilePlane, open_bundle};
use muster_tests::world;
use muster_world::{Bundle, World, output};
use serde_json::Value;

/// Waits until a device believes a root of this version.
fn until_root(world: &mut World, version: u64) -> Result<()> {
    world.until(&format!("the newest root to be {version}"), |world| {
        let info = world.json(&["trust", "show"])?;
        Ok((info["version"] == version).then_some(()))
    })
}

fn desired_epoch(world: &World) -> Result<Option<u64>> {
    Ok(world.device("edge-1")?["applied"]["epoch"].as_u64())
}

#[test]
fn every_role_gets_a_new_key_while_a_model_serves_and_the_next_version_arrives() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "latest")?;
    world.until_serves("edge-1", "digits", 1)?;
    for change in [
        &["rotate", "publisher"][..],
        &["rotate", "release"],
        &["rotate", "root"],
        &["renew", "--for", "500d"],
        &["rotate", "director", "--compromised", "--new-epoch"],
    ] {
        world.muster(&[&["keys"][..], change, &["--yes"]].concat())?;
    }
    until_root(&mut world, 6)?;
    // The thief's key orders nothing any more: the device obeys the new one, in a new epoch.
    world.until("the device to obey the new director", |world| Ok((desired_epoch(world)? == Some(2)).then_some(())))?;
    assert!(!world.plane_folder().join("director-next.pem").exists());
    // What the removed publisher signed is placed nowhere new; what it signed before serves on.
    let shown = world.json(&["trust", "show"])?;
    assert_eq!(shown["barred"], serde_json::json!(["digits/1"]));
    world.until_serves("edge-1", "digits", 1)?;
    // The old key's next bundle is not even taken; the new key's is, and serves.
    let old = world.publish(&Bundle::fixture("digits", 2));
    assert!(old.is_err_and(|error| format!("{error:#}").contains("publisher")), "the old key publishes no more");
    let key = newest_publisher(&world)?;
    push(&world, 2, &key.display().to_string(), &[])?;
    world.until_serves("edge-1", "digits", 2)?;
    // Also after a restart of the plane, which now has only the new director.
    world.stop_plane();
    world.start_plane()?;
    world.until_serves("edge-1", "digits", 2)
}

/// The publisher's key that `muster keys show` says the root names.
fn newest_publisher(world: &World) -> Result<std::path::PathBuf> {
    let shown = world.json(&["keys", "show"])?;
    let keys = shown["keys"].as_array().context("keys")?;
    let publisher = keys.iter().find(|key| key["role"] == "publisher").context("a publisher")?;
    Ok(publisher["path"].as_str().context("it is here")?.into())
}

/// Packs and pushes a version of `digits` with this key.
fn push(world: &World, version: u32, key: &str, variables: &[(&str, &str)]) -> Result<()> {
    let from = Bundle::fixture("digits", version);
    let bundle = world.folder().join(format!("digits-{version}-again.bundle"));
    let (onnx, bundle) = (from.onnx.display().to_string(), bundle.display().to_string());
    let version = version.to_string();
    let mut args = vec!["pack", &onnx, "--name", "digits", "--version", &version, "--key", key, "-o", &bundle];
    let golden = from.golden.map(|path| path.display().to_string());
    args.extend(golden.iter().flat_map(|golden| ["--golden", golden]));
    muster_with(world, variables, &args)?;
    world.muster(&["push", &bundle]).map(drop)
}

/// Runs the command line with more in its environment.
fn muster_with(world: &World, variables: &[(&str, &str)], args: &[&str]) -> Result<String> {
    let mut command = Command::new(&world.programs().muster);
    output(command.args(args).env("MUSTER_HOME", world.home()).envs(variables.iter().copied()))
}

#[test]
fn a_thief_with_the_old_directors_key_orders_nothing_after_the_next_root() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let bundle = world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    let device = world.device("edge-1")?;
    let fingerprint: muster_shared::Digest = device["fingerprint"].as_str().context("a fingerprint")?.parse()?;
    let stolen = world.folder().join("stolen");
    std::fs::create_dir(&stolen)?;
    for name in ["ca.pem", "director.pem"] {
        std::fs::copy(world.plane_folder().join(name), stolen.join(name))?;
    }
    world.muster(&["keys", "rotate", "director", "--compromised", "--new-epoch", "--yes"])?;
    world.until("the device to obey the new director", |world| Ok((desired_epoch(world)? == Some(2)).then_some(())))?;

    // The thief speaks at the plane's address, in the new epoch, numbered far ahead.
    world.stop_plane();
    let hostile = HostilePlane::start(&stolen, &world.plane().mqtt, "edge-1", fingerprint)?;
    hostile.serve(open_bundle(&bundle)?.blobs);
    let mut forged = hostile.next_desired(vec![])?;
    forged.generation.number += 1 << 19;
    hostile.send(hostile.sign(&forged)?)?;
    hostile.until_reported("the stolen key's order to be refused", |reported| {
        let serves = reported.slots.iter().any(|slot| slot.running.is_some());
        (serves && reported.desired_refused.is_some()).then_some(())
    })?;
    drop(hostile);
    world.start_plane()?;
    world.until_serves("edge-1", "digits", 1)?;
    assert_eq!(desired_epoch(&world)?, Some(2));
    Ok(())
}

#[test]
fn from_one_root_key_to_two_of_three() -> Result<()> {
    let world = world(&[])?;
    let (second, third) = (world.folder().join("second.pem"), world.folder().join("third.pem"));
    let (second, third) = (second.display().to_string(), third.display().to_string());
    world.muster(&["keys", "new", &second])?;
    world.muster(&["keys", "new", &third])?;
    world.muster(&["keys", "add", "root", &second, "--yes"])?;
    world.muster(&["keys", "add", "root", &third, "--threshold", "2", "--yes"])?;
    // One person alone gets no further: the root waits in a file.
    let file = world.folder().join("waits.json").display().to_string();
    let made = world.json(&["keys", "rotate", "publisher", "--yes", "--out", &file])?;
    assert_eq!((&made["uploaded"], made["missing"].as_array().map(Vec::len)), (&Value::Bool(false), Some(2)));
    let alone = world.muster(&["keys", "push", &file]);
    assert!(alone.is_err_and(|error| format!("{error:#}").contains("1 more of the keys")), "one of two is too few");
    world.muster(&["keys", "sign", &file, "--key", &third, "--yes"])?;
    world.muster(&["keys", "push", &file])?;
    let shown = world.json(&["trust", "show"])?;
    assert_eq!((&shown["version"], &shown["root"]["threshold"]), (&4.into(), &2.into()));
    Ok(())
}

#[test]
fn a_floor_keeps_old_versions_from_being_placed() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.publish(&Bundle::fixture("digits", 2))?;
    world.deploy("digits", "2")?;
    world.until_serves("edge-1", "digits", 2)?;
    world.muster(&["trust", "floor", "digits", "2", "--yes"])?;
    let lower = world.muster(&["trust", "floor", "digits", "1", "--yes"]);
    assert!(lower.is_err_and(|error| format!("{error:#}").contains("only rises")), "a floor was lowered");
    let shown = world.json(&["trust", "show"])?;
    assert_eq!((&shown["floors"][0]["version"], &shown["barred"]), (&2.into(), &serde_json::json!(["digits/1"])));
    // Back to version 1 is no way any more, and the deployment says why.
    world.deploy("digits", "1")?;
    world.until("the deployment to say why", |world| {
        let status = world.status("digits")?;
        let conditions = status["conditions"].as_array().context("conditions")?;
        let says = |it: &Value| it["message"].as_str().is_some_and(|text| text.contains("nothing below version 2"));
        Ok(conditions.iter().any(says).then_some(()))
    })?;
    world.until_serves("edge-1", "digits", 2)
}

#[test]
fn a_bundle_that_a_token_signed_serves() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let tokens = world.folder().join("tokens");
    std::fs::create_dir(&tokens)?;
    let config = world.folder().join("softhsm2.conf").display().to_string();
    std::fs::write(&config, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()))?;
    let token = ["--init-token", "--free", "--label", "desk", "--so-pin", "12345678", "--pin", "1234"];
    output(Command::new("softhsm2-util").args(token).env("SOFTHSM2_CONF", &config))
        .context("SoftHSM: install it, for example `apt-get install softhsm2`")?;
    let key = "pkcs11:token=desk;object=publisher?module-path=/usr/lib/softhsm/libsofthsm2.so";
    let variables = [("SOFTHSM2_CONF", config.as_str()), ("MUSTER_PIN", "1234")];
    muster_with(&world, &variables, &["keys", "new", key])?;
    muster_with(&world, &variables, &["keys", "rotate", "publisher", "--new", key, "--yes"])?;
    push(&world, 1, key, &variables)?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)
}

#[test]
fn a_plane_does_not_start_where_a_publishers_key_lies() -> Result<()> {
    let mut world = world(&[])?;
    world.stop_plane();
    let copy = world.plane_folder().join("publisher.pem");
    std::fs::copy(world.publisher_key(), &copy)?;
    let refused = world.start_plane();
    assert!(refused.is_err(), "it started");
    let log = std::fs::read_to_string(world.folder().join("plane.log")).unwrap_or_default();
    assert!(log.is_empty() || log.contains("must never be on a server"), "{log}");
    std::fs::remove_file(copy)?;
    world.start_plane()
}
