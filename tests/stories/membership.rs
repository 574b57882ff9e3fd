//! Who is in the fleet, what one of it may do to another, and who is in it no more.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_shared::Digest;
use muster_shared::message::{ChunkData, ChunkGet};
use muster_shared::topic::Leaf;
use muster_shared::wire;
use muster_tests::hostile::open_bundle;
use muster_tests::impostor::Impostor;
use muster_tests::{copy_state, world};
use muster_world::{Bundle, World};

/// A revoked device is cut off within so long, as the issue has it; a test machine may be ten times as slow.
const CUT_MAX: Duration = Duration::from_secs(20);

#[test]
fn two_agents_with_one_identity_are_found_and_held() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let (folder, copy) = (world.folder().join("edge-1"), world.folder().join("copy"));
    ensure!(Command::new("cp").arg("-r").arg(&folder).arg(&copy).status()?.success(), "cannot copy the device");
    world.start_agent("copy")?;
    world.until("the copy to be found", |world| {
        Ok(world.muster(&["get", "devices"])?.contains("cloned").then_some(()))
    })?;
    ensure!(world.muster(&["get", "events"])?.contains("two agents"), "nobody was told");
    // The copy is found and stopped: from then on the device is a member like every other, also with new runs.
    world.stop_agent("copy")?;
    world.muster(&["approve", "edge-1"])?;
    world.stop_agent("edge-1")?;
    world.start_agent("edge-1")?;
    let held = |world: &World| Ok::<_, anyhow::Error>(world.device("edge-1")?["standing"] != "member");
    world.until("edge-1 to be back", |world| Ok((world.device("edge-1")?["connected"] == true).then_some(())))?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    ensure!(!held(&world)?, "it is held again");
    Ok(())
}

/// What one device's certificate opens of another's, with the first one's agent stopped.
pub(crate) fn only_its_own(
    world: &World,
    given: Digest,
    not_given: Digest,
    connect: impl Fn(&World, &str) -> Result<Impostor>,
) -> Result<()> {
    let mut impostor = connect(world, "edge-1")?;
    for leaf in Leaf::DOWN {
        let (own, others) = (leaf.clone().of(&"edge-1".parse()?), leaf.of(&"edge-2".parse()?));
        ensure!(impostor.subscribe(&own.to_string())?, "it may not read {own}");
        ensure!(!impostor.subscribe(&others.to_string())?, "it may read {others}");
    }
    for filter in ["#", "+/+/+/+", "muster/v1/+/desired", "muster/v1/edge-1/#", "muster/v1/edge-2/reported", "$SYS/#"] {
        ensure!(!impostor.subscribe(filter)?, "it may read {filter}");
    }
    let (ask, answer) = (Leaf::ChunkGet.of(&"edge-1".parse()?).to_string(), Leaf::ChunkData.of(&"edge-1".parse()?));
    for (blob, served) in [(given, true), (not_given, false)] {
        impostor.publish(&ask, wire::encode(&ChunkGet { blob, first_frame: 0, frames: 1 })?)?;
        let frame = matches!(wire::decode(&impostor.hear(&answer)?)?, ChunkData::Frame { .. });
        ensure!(frame == served, "{} is served: {frame}", blob.short());
    }
    // Speaking for another: the plane must not take edge-2 for gone.
    impostor.publish(&Leaf::Gone.of(&"edge-2".parse()?).to_string(), vec![])?;
    // What follows was heard after it, over this connection or, if that was cut for it, over a new one.
    let mut again = connect(world, "edge-1")?;
    again.publish(&ask, wire::encode(&ChunkGet { blob: not_given, first_frame: 0, frames: 1 })?)?;
    ensure!(again.subscribe(&answer.to_string())?, "it may not read {answer}");
    ensure!(world.device("edge-2")?["connected"] == true, "edge-2 was taken for gone");
    Ok(())
}

#[test]
fn a_device_has_its_own_topics_and_models_and_nothing_of_anothers_also_after_a_restart() -> Result<()> {
    let mut world = world(&["edge-1", "edge-2"])?;
    let mut digests = vec![];
    for (model, device) in [("digits", "edge-1"), ("linear_regression", "edge-2")] {
        let other = if device == "edge-1" { "edge-2" } else { "edge-1" };
        let bundle = world.publish(&Bundle::fixture(model, 1))?;
        world.muster(&["cordon", other])?;
        world.deploy(model, "1")?;
        world.until_serves(device, model, 1)?;
        world.muster(&["uncordon", other])?;
        digests.push(Digest::of(open_bundle(&bundle)?.blobs.last().context("the model's file")?));
    }
    world.stop_agent("edge-1")?;
    only_its_own(&world, digests[0], digests[1], Impostor::connect)?;
    world.stop_plane();
    world.start_plane()?;
    world.until("edge-2 to be back", |world| Ok((world.device("edge-2")?["connected"] == true).then_some(())))?;
    only_its_own(&world, digests[0], digests[1], Impostor::connect)
}

#[test]
fn a_revoked_device_is_cut_off_and_stays_away_also_after_a_restart() -> Result<()> {
    let mut world = world(&["edge-1", "edge-2"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    let holders = world.until_whole("digits", 1)?;
    let (gone, stays) = if holders.contains("edge-1") { ("edge-1", "edge-2") } else { ("edge-2", "edge-1") };
    world.stop_agent(gone)?;
    let mut impostor = Impostor::connect(&world, gone)?;
    let began = Instant::now();
    world.muster(&["revoke", gone, "--reason", "left in a train"])?;
    impostor.until_cut()?;
    println!("cut off {:?} after `muster revoke` was begun", began.elapsed());
    ensure!(began.elapsed() < CUT_MAX, "it was cut off after {:?}", began.elapsed());
    // Its replica moves, and nothing lets it in again: not the broker, not the enrolment.
    let holders = world.until_whole("digits", 1)?;
    ensure!(holders.contains(stays), "{holders:?}");
    for _ in 0..2 {
        ensure!(Impostor::connect(&world, gone).is_err(), "the broker lets it in");
        let claim = world.muster(&["claim", "new"])?;
        std::fs::remove_file(world.device_folder(gone).join("identity/enrolment.json")).ok();
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--no-wait", "--name", gone, "--url", &world.plane().http, "--claim", claim.trim()]);
        let done = enrol.arg("--data").arg(world.device_folder(gone)).output()?;
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(!done.status.success() && told.contains("revoked"), "{told}");
        world.stop_plane();
        world.start_plane()?;
    }
    ensure!(world.muster(&["explain", gone])?.contains("left in a train"), "nobody is told why");
    Ok(())
}

#[test]
fn a_database_put_back_voids_claims_keeps_revocations_holds_strangers_and_changes_nothing() -> Result<()> {
    let mut world = world(&["edge-1", "edge-2"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    let open = world.muster(&["claim", "new", "--uses", "3"])?;
    let backup = world.folder().join("backup");
    world.stop_plane();
    copy_state(&world.plane_folder(), &backup)?;
    world.start_plane()?;

    // What the backup does not know: a device that came, a device that went.
    world.add_device("edge-3")?;
    world.muster(&["revoke", "edge-2"])?;
    world.stop_plane();
    copy_state(&backup, &world.plane_folder())?;
    world.start_plane()?;

    world.until("the newcomer to be held", |world| {
        let devices = world.muster(&["get", "devices"])?;
        let held = devices.lines().any(|line| line.contains("edge-3") && line.contains("held"));
        let revoked = devices.lines().any(|line| line.contains("edge-2") && line.contains("revoked"));
        Ok((held && revoked).then_some(()))
    })?;
    let mut enrol = Command::new(&world.programs().agent);
    enrol.args(["enrol", "--no-wait", "--url", &world.plane().http, "--claim", open.trim(), "--data"]);
    let done = enrol.arg(world.folder().join("edge-4")).output()?;
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(!done.status.success() && told.contains("counts no more"), "{told}");

    // The planner waits, and says so.
    world.deploy("digits", "1")?;
    world.until("the deployment to say what it waits for", |world| {
        Ok(world.json(&["explain", "digits"])?.to_string().contains("put back").then_some(()))
    })?;
    ensure!(world.holders("digits")?.is_empty(), "something was placed before anybody approved");
    ensure!(world.muster(&["plan"])?.contains("put back"), "the plan does not say so");

    world.muster(&["approve", "edge-3"])?;
    world.muster(&["plan", "approve"])?;
    world.until_whole("digits", 1)?;
    world.until("the newcomer to be back", |world| Ok((world.device("edge-3")?["connected"] == true).then_some(())))?;
    let devices = world.muster(&["get", "devices"])?;
    ensure!(devices.lines().any(|line| line.contains("edge-2") && line.contains("revoked")), "{devices}");
    Ok(())
}

#[test]
fn a_key_on_the_factory_list_enrols_without_a_claim_and_no_other_does() -> Result<()> {
    let mut world = world(&[])?;
    let trust = world.json(&["trust", "show"])?;
    let root = trust["pinned"]["digest"].as_str().context("the pinned root")?.to_owned();
    let enrol = |world: &World, device: &str| -> Result<(bool, String)> {
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--no-wait", "--url", &world.plane().http, "--root-digest", &root, "--ca-digest"]);
        enrol.arg(&world.plane().ca_fingerprint).arg("--data").arg(world.device_folder(device));
        let done = enrol.env("RUST_BACKTRACE", "0").output()?;
        Ok((done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned()))
    };
    // The factory makes the key; what the agent says is what it puts on its list.
    let (enrolled, told) = enrol(&world, "edge-1")?;
    ensure!(!enrolled && told.contains("factory list"), "{told}");
    let key = told.split_whitespace().last().context("the key's fingerprint")?;
    let list = world.folder().join("made.csv");
    std::fs::write(&list, format!("{key},edge-1,site=north\n"))?;
    world.muster(&["claim", "factory", "add", &list.to_string_lossy()])?;
    let (enrolled, told) = enrol(&world, "edge-1")?;
    ensure!(enrolled, "{told}");
    ensure!(world.device("edge-1")?["labels"]["site"] == "north", "its labels are not those of the list");
    let (enrolled, _) = enrol(&world, "edge-2")?;
    ensure!(!enrolled, "a key that is not on the list got in");
    world.start_agent("edge-1")?;
    world.until("edge-1 to be there", |world| Ok((world.device("edge-1")?["connected"] == true).then_some(())))
}

#[test]
fn an_operator_may_let_devices_in_by_hand_and_ask_one_what_it_believes() -> Result<()> {
    let mut world = world(&[])?;
    let claim = world.muster(&["claim", "new", "--needs-approval", "--may-label", "site"])?;
    let enrol = |world: &World| {
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--no-wait", "--name", "edge-1", "--label", "site=demo", "--url", &world.plane().http]);
        enrol.args(["--claim", claim.trim(), "--data"]).arg(world.device_folder("edge-1")).output()
    };
    let waits = enrol(&world)?;
    let told = String::from_utf8_lossy(&waits.stderr).into_owned();
    ensure!(!waits.status.success() && told.contains("waits for an operator"), "{told}");
    ensure!(world.muster(&["get", "devices"])?.contains("waiting"), "nobody sees that it waits");
    world.muster(&["approve", "edge-1"])?;
    ensure!(enrol(&world)?.status.success(), "it is not let in");
    world.start_agent("edge-1")?;
    world.until("edge-1 to be there", |world| Ok((!world.device("edge-1")?["facts"].is_null()).then_some(())))?;

    let told =
        world.until("edge-1 to answer a signed command", |world| Ok(world.json(&["diagnose", "edge-1"]).ok()))?;
    ensure!(told.to_string().contains("rootVersion") || told.to_string().contains("root"), "{told}");
    Ok(())
}
