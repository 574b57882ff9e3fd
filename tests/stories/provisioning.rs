//! Devices come in many at a time, by a table; and they go, empty.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use muster_provisioning::enrolment::{By, Enrolment};
use muster_tests::world;
use muster_world::{Bundle, World, output};

/// Claims of a batch that no card has yet, in the table's order.
fn cards(batch: &Path) -> Result<Vec<Enrolment>> {
    let mut files: Vec<_> =
        std::fs::read_dir(batch.join("cards"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| Ok(Enrolment::parse(&std::fs::read_to_string(file)?)?)).collect()
}

/// What first boot does with the file that it finds.
fn first_boot(world: &World, card: &Enrolment, data: &Path) -> Result<String> {
    let By::Claim(claim) = &card.by else { anyhow::bail!("the card has no claim") };
    let mut enrol = Command::new(&world.programs().agent);
    enrol.args(["enrol", "--url", card.url.as_str(), "--claim", &claim.to_string(), "--no-wait", "--data"]).arg(data);
    output(&mut enrol)
}

#[test]
fn a_table_becomes_cards_with_labels_and_each_card_one_device() -> Result<()> {
    let world = world(&[])?;
    let (table, batch) = (world.folder().join("devices.csv"), world.folder().join("batch"));
    std::fs::write(&table, "name,site,rack\nhall-1,north,1\nhall-2,south,2\nhall-3,north,\n")?;
    let (table, folder) = (table.display().to_string(), batch.display().to_string());
    let made =
        world.muster(&["claim", "new", "--labels-from", &table, "--ttl", "7d", "--label", "batch=a", "-o", &folder])?;
    ensure!(made.starts_with("3 claims lie in"), "{made}");
    ensure!(std::fs::read(batch.join("labels.pdf"))?.starts_with(b"%PDF"), "no labels");
    ensure!(std::fs::read_to_string(batch.join("labels/hall-2.svg"))?.contains("hall-2"), "no label of hall-2");
    let listed = std::fs::read_to_string(batch.join("devices.csv"))?;
    ensure!(listed.lines().count() == 4 && !listed.contains("muster1_"), "{listed}");

    // The names are taken: neither by another batch nor by a device that asks for one.
    let again = world.muster(&["claim", "new", "--labels-from", &table, "-o", &format!("{folder}-2")]);
    let again = again.err().context("the names were given twice")?.to_string();
    ensure!(again.contains("a claim for the name hall-1 is open") && again.contains("--replace"), "{again}");
    ensure!(!Path::new(&format!("{folder}-2")).exists(), "the folder is in the way of the next try");

    let cards = cards(&batch)?;
    for (card, name) in cards.iter().zip(["hall-1", "hall-2", "hall-3"]) {
        let said = first_boot(&world, card, &world.folder().join(name))?;
        ensure!(said.contains(&format!("enrolled as {name}")), "{said}");
        // Whoever copied the card is no second device.
        ensure!(first_boot(&world, card, &world.folder().join(format!("{name}-copy"))).is_err(), "{name} came twice");
    }
    let labels = |name: &str| Ok::<_, anyhow::Error>(world.device(name)?["labels"].to_string());
    ensure!(labels("hall-2")? == r#"{"batch":"a","rack":"2","site":"south"}"#, "{}", labels("hall-2")?);
    ensure!(labels("hall-3")? == r#"{"batch":"a","site":"north"}"#, "{}", labels("hall-3")?);
    Ok(())
}

/// Nothing that came from the fleet is left, and what is the owner's is.
fn is_empty(world: &World, device: &str) -> Result<()> {
    let folder = world.device_folder(device);
    for gone in ["identity", "blobs", "journal.redb", "leaving"] {
        ensure!(!folder.join(gone).exists(), "{device} still has {gone}");
    }
    ensure!(folder.join("agent.toml").exists(), "the owner's file is gone");
    Ok(())
}

#[test]
fn a_device_leaves_empty_says_so_by_its_key_and_is_revoked() -> Result<()> {
    let mut world = world(&["edge-1", "edge-2"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    let holders = world.until_whole("digits", 1)?;
    let leaves = holders.first().context("a holder")?.clone();
    let stays = if leaves == "edge-1" { "edge-2" } else { "edge-1" };
    let said = world.muster(&["decommission", &leaves, "--yes", "--wait", "--reason", "the lease ends"])?;
    ensure!(said.contains(&format!("device {leaves} left: it said at 20")), "{said}");
    let device = world.device(&leaves)?;
    ensure!(device["standing"] == "revoked" && device["departure"]["confirmedMs"].is_u64(), "{device}");
    // Its process ends by itself once it was cut off.
    let folder = world.device_folder(&leaves).join("identity");
    muster_world::until("it to forget who it was", muster_world::DEADLINE, || Ok((!folder.exists()).then_some(())))?;
    world.stop_agent(&leaves)?;
    is_empty(&world, &leaves)?;
    // A supervisor that starts it again is told that there is nothing to do.
    let mut again = Command::new(&world.programs().agent);
    let again = again.args(["run", "--config"]).arg(world.device_folder(&leaves).join("agent.toml")).output()?;
    ensure!(again.status.code() == Some(3), "{again:?}");
    is_empty(&world, &leaves)?;
    ensure!(world.until_whole("digits", 1)?.contains(stays), "its replica did not move");
    ensure!(world.events("deviceLeaving")?.len() == 1, "nobody was told");
    world.muster(&["delete", "device", &leaves])?;
    ensure!(world.device(&leaves).is_err(), "its name is not free");
    Ok(())
}

#[test]
fn a_device_that_was_off_leaves_when_it_comes_and_may_be_kept_until_then() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    let told = world.muster(&["decommission", "edge-1", "--yes"])?;
    ensure!(told.contains("as soon as it connects"), "{told}");
    ensure!(world.muster(&["get", "devices"])?.contains("leaving"), "it does not leave");
    // Kept after all: it comes back as if nothing had been said.
    world.muster(&["approve", "edge-1"])?;
    world.start_agent("edge-1")?;
    world.until("edge-1 to be back", |world| Ok((world.device("edge-1")?["connected"] == true).then_some(())))?;
    ensure!(world.device("edge-1")?["standing"] == "member", "it is no member");
    world.stop_agent("edge-1")?;
    world.muster(&["decommission", "edge-1", "--yes"])?;
    world.start_agent("edge-1")?;
    // Whoever asks again is told the same, whether it has left by then or not.
    for _ in 0..2 {
        let said = world.muster(&["decommission", "edge-1", "--yes", "--wait"])?;
        ensure!(said.contains("left: it said at 20"), "{said}");
    }
    let folder = world.device_folder("edge-1").join("identity");
    muster_world::until("it to forget who it was", muster_world::DEADLINE, || Ok((!folder.exists()).then_some(())))?;
    world.stop_agent("edge-1")?;
    is_empty(&world, "edge-1")
}

/// What a device that began to leave has on its disk, when its power was cut before anybody heard of it.
fn began_to_leave(world: &World, device: &str) -> Result<()> {
    let device_view = world.device(device)?;
    let fingerprint = device_view["fingerprint"].as_str().context("a device has a fingerprint")?;
    Ok(std::fs::write(world.device_folder(device).join("leaving"), fingerprint)?)
}

fn until_its_door_serves(world: &World) -> Result<()> {
    let door = format!("{}/v1/models/digits", world.door("edge-1")?);
    muster_world::until("its own door to serve", muster_world::DEADLINE, || {
        let told = muster_world::get(&door)?;
        Ok((told.status == 200 && told.body.to_string().contains("AVAILABLE")).then_some(()))
    })
}

#[test]
fn a_device_that_began_to_leave_and_is_kept_serves_over_restarts() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    world.stop_agent("edge-1")?;
    began_to_leave(&world, "edge-1")?;
    // The control plane has it among its devices, and sends it what to run.
    world.start_agent("edge-1")?;
    let note = world.device_folder("edge-1").join("leaving");
    world.until("it to stay", |_| Ok((!note.exists()).then_some(())))?;
    until_its_door_serves(&world)?;
    world.stop_plane();
    world.stop_agent("edge-1")?;
    world.start_agent("edge-1")?;
    until_its_door_serves(&world)
}

#[test]
fn a_device_whose_word_was_heard_while_it_was_off_forgets_its_key_when_it_is_not_let_in() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    began_to_leave(&world, "edge-1")?;
    world.muster(&["revoke", "edge-1"])?;
    // It may end before it was ready.
    let _ = world.start_agent("edge-1");
    let folder = world.device_folder("edge-1").join("identity");
    muster_world::until("it to forget who it was", muster_world::DEADLINE, || Ok((!folder.exists()).then_some(())))?;
    world.stop_agent("edge-1")?;
    is_empty(&world, "edge-1")
}

#[test]
fn an_owner_may_forbid_it_and_everybody_sees_why_it_does_not_leave() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    world.stop_agent("edge-1")?;
    world.configure("edge-1", |text| {
        let forbidden = "decommission-from-plane = false";
        text.replace("decommission-from-plane = true", forbidden)
    })?;
    world.start_agent("edge-1")?;
    world.until("edge-1 to be back", |world| Ok((world.device("edge-1")?["connected"] == true).then_some(())))?;
    world.muster(&["decommission", "edge-1", "--yes"])?;
    world.until("the device's word to be shown", |world| {
        let why = world.device("edge-1")?["standingWhy"].to_string();
        Ok(why.contains("limits.decommission-from-plane").then_some(()))
    })?;
    ensure!(world.device_folder("edge-1").join("identity/key.pem").exists(), "it left");
    world.muster(&["approve", "edge-1"])?;
    ensure!(world.device("edge-1")?["standing"] == "member", "it is no member again");
    Ok(())
}
