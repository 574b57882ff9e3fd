//! The plane's keys and address are in an attacker's hands. What a device takes from it is bounded
//! by what a publisher signed and by what it took before.

use anyhow::{Context as _, Result};
use muster_shared::Digest;
use muster_shared::desired::Desired;
use muster_shared::reported::{Phase, Reported};
use muster_shared::signing::Envelope;
use muster_tests::hostile::{Contents, HostilePlane, open_bundle, slot};
use muster_tests::{models, world};
use muster_world::{Bundle, World, post};

/// A device that serves version 1, and the plane taken over. Version 2 is packed and signed by the
/// real publisher.
fn taken_over() -> Result<(World, HostilePlane, Contents)> {
    let mut world = world(&["edge-1"])?;
    let version_1 = world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    let version_2 = world.publish(&models::padded_digits(world.folder(), 2, 1 << 20)?)?;
    let device = world.device("edge-1")?;
    let fingerprint: Digest = device["fingerprint"].as_str().context("a fingerprint")?.parse()?;
    world.stop_plane();
    let hostile = HostilePlane::start(&world.plane_folder(), &world.plane().mqtt, "edge-1", fingerprint)?;
    hostile.serve(open_bundle(&version_1)?.blobs);
    let contents = open_bundle(&version_2)?;
    hostile.serve(contents.blobs.clone());
    Ok((world, hostile, contents))
}

fn serves(reported: &Reported, version: u64) -> Option<()> {
    let slot = reported.slots.first()?;
    (slot.phase == Phase::Serving && slot.running.as_ref()?.version.get() == version).then_some(())
}

fn version_1_answers(world: &World) -> Result<()> {
    let rows = muster_world::fixtures::held_out("digits", 1)?;
    let body = serde_json::json!({ "instances": [rows.instances[0]] }).to_string();
    let answer = post(&format!("{}/v1/models/digits:predict", world.door("edge-1")?), &body)?;
    assert_eq!((answer.status, answer.version), (200, Some(1)), "{}", answer.body);
    Ok(())
}

/// Sends `desired` and waits until the device has refused it for a reason that holds `part`.
fn is_refused(hostile: &HostilePlane, desired: Envelope, part: &str) -> Result<()> {
    hostile.send(desired)?;
    hostile.until_reported("the desired state to be refused", |reported| {
        let refused = reported.desired_refused.as_ref()?;
        refused.reason.contains(part).then_some(())
    })
}

#[test]
fn a_changed_byte_in_a_manifest_is_refused_and_the_old_version_serves_on() -> Result<()> {
    let (world, hostile, contents) = taken_over()?;
    // The attacker changes a digit of the signed manifest and names the result by its true digests.
    let mut forged = contents.envelope.clone();
    let at = forged.payload.iter().rposition(u8::is_ascii_digit).context("a digit")?;
    forged.payload[at] = if forged.payload[at] == b'1' { b'2' } else { b'1' };
    hostile.serve([forged.to_json().into_bytes()]);
    hostile.send(hostile.sign(&hostile.next_desired(vec![slot("digits", 2, &forged)?])?)?)?;
    let reason = hostile.until_reported("the manifest to be refused", |reported| {
        let slot = reported.slots.first().filter(|slot| slot.phase == Phase::Refused)?;
        assert_eq!(slot.running.as_ref().map(|running| running.version.get()), Some(1));
        slot.waiting.clone()
    })?;
    assert!(reason.contains("no publisher"), "{reason}");
    version_1_answers(&world)?;

    // Nothing was proven of the true bundle: it is taken as soon as it is offered.
    let mut desired = hostile.next_desired(vec![slot("digits", 2, &contents.envelope)?])?;
    desired.generation.number += 1;
    hostile.send(hostile.sign(&desired)?)?;
    hostile.until_reported("the true version 2 to serve", |reported| serves(reported, 2))
}

#[test]
fn a_changed_byte_in_a_desired_state_is_refused_and_the_old_version_serves_on() -> Result<()> {
    let (world, hostile, contents) = taken_over()?;
    let desired = hostile.next_desired(vec![slot("digits", 2, &contents.envelope)?])?;
    let mut changed = hostile.sign(&desired)?;
    let last = changed.payload.len() - 1;
    changed.payload[last] ^= 1;
    is_refused(&hostile, changed, "no director")?;

    // Bound to another device's key, it is refused though the director signed it.
    let other = Desired { fingerprint: Digest::of("another key"), ..desired };
    is_refused(&hostile, hostile.sign(&other)?, "is for device")?;
    version_1_answers(&world)?;
    hostile.until_reported("version 1 to serve on", |reported| serves(reported, 1))
}

#[test]
fn a_changed_byte_in_a_chunk_is_discarded_and_asked_for_again() -> Result<()> {
    let (world, hostile, contents) = taken_over()?;
    let model = contents.blobs.iter().max_by_key(|blob| blob.len()).context("a model")?;
    let blob = Digest::of(model);
    hostile.damage_once(blob, 3);
    hostile.send(hostile.sign(&hostile.next_desired(vec![slot("digits", 2, &contents.envelope)?])?)?)?;
    hostile.until_reported("version 2 to serve", |reported| serves(reported, 2))?;
    assert_eq!(hostile.asked(blob, 3), 2, "the damaged chunk is asked for once more");
    assert_eq!(hostile.asked(blob, 2), 1, "its neighbour is not");
    let stored = std::fs::read(world.device_folder("edge-1").join("blobs").join(blob.to_string()))?;
    assert!(&stored == model, "what is stored is what was signed");
    Ok(())
}

#[test]
fn an_older_desired_state_is_refused_also_after_a_restart() -> Result<()> {
    let (mut world, hostile, contents) = taken_over()?;
    let old = hostile.next_desired(vec![])?;
    let (old_envelope, mut new) = (hostile.sign(&old)?, old);
    new.generation.number += 1;
    new.slots = vec![slot("digits", 2, &contents.envelope)?];
    hostile.send(hostile.sign(&new)?)?;
    hostile.until_reported("version 2 to serve", |reported| serves(reported, 2))?;
    is_refused(&hostile, old_envelope.clone(), "older")?;
    hostile.until_reported("version 2 to serve on", |reported| serves(reported, 2))?;

    let before = hostile.hello()?.boot;
    world.kill_agent("edge-1")?;
    world.start_agent("edge-1")?;
    hostile.until_reported("version 2 to serve again", |reported| {
        (reported.boot != before && reported.desired_refused.is_none()).then_some(())?;
        serves(reported, 2)
    })?;
    is_refused(&hostile, old_envelope, "older")?;
    hostile.until_reported("version 2 to serve on", |reported| serves(reported, 2))
}

#[test]
fn a_device_that_lost_its_state_takes_no_replay() -> Result<()> {
    let (mut world, hostile, contents) = taken_over()?;
    let replay = hostile.sign(&hostile.next_desired(vec![slot("digits", 2, &contents.envelope)?])?)?;
    let before = hostile.hello()?.boot;
    world.kill_agent("edge-1")?;
    // The journal is gone, as after a disk that was cleaned too well; the key is kept.
    std::fs::remove_file(world.device_folder("edge-1").join("journal.redb"))?;
    world.start_agent("edge-1")?;
    let hello = muster_world::until("a hello of the new start", muster_world::DEADLINE, || {
        Ok(Some(hostile.hello()?).filter(|hello| hello.boot != before))
    })?;
    assert_eq!(hello.holds, None);
    is_refused(&hostile, replay, "does not answer its hello")
}
