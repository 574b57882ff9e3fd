//! Clocks that are wrong, and certificates that ran out: a device serves on, comes back by itself, and
//! never begins what it must not. Agents are started with a faked wall clock (`faketime`); the world around
//! them has the true one.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use muster_shared::desired::Desired;
use muster_shared::reported::Phase;
use muster_shared::{Digest, Nonce};
use muster_tests::hostile::{HostilePlane, open_bundle, slot};
use muster_tests::{programs, world};
use muster_world::{Bundle, World, fixtures, output, post, until, wrong_clock};

use crate::network::{until_fault, until_led, until_via, with_led};

/// The device's own door answers with this version.
fn answers(world: &World, version: u32) -> Result<()> {
    let body = serde_json::json!({ "instances": [fixtures::held_out("digits", version)?.instances[0]] });
    let answer = post(&format!("{}/v1/models/digits:predict", world.door("edge-1")?), &body.to_string())?;
    anyhow::ensure!((answer.status, answer.version) == (200, Some(version.into())), "{answer:?}");
    Ok(())
}

fn until_answers(world: &mut World, version: u32) -> Result<()> {
    world.until(&format!("the door to answer with version {version}"), |world| Ok(answers(world, version).ok()))
}

/// A world in which `edge-1` serves version 1 and version 2 is there.
fn serving(mut world: World) -> Result<World> {
    world.publish(&Bundle::fixture("digits", 1))?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    world.publish(&Bundle::fixture("digits", 2))?;
    Ok(world)
}

/// The device forgets when its claim was made, as one that an older agent enrolled.
fn forget_when_enrolled(world: &World) -> Result<()> {
    let file = world.device_folder("edge-1").join("identity/enrolment.json");
    let mut enrolment: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    enrolment.as_object_mut().context("an object")?.remove("issued_ms").context("it was kept")?;
    Ok(std::fs::write(file, enrolment.to_string())?)
}

#[test]
fn a_device_with_a_wrong_clock_serves_comes_back_and_takes_what_is_new() -> Result<()> {
    let mut world = serving(world(&["edge-1"])?)?;
    let mut serves = 1;
    // Each time one more thing helps less: a bound, then none.
    for (clock, unsure) in [("-1y", false), ("@2099-06-01 12:00:00", true), ("@1970-01-01 00:01:00", true)] {
        if clock.starts_with("@1970") {
            forget_when_enrolled(&world)?;
        }
        world.stop_agent("edge-1")?;
        world.start_agent_at("edge-1", clock)?;
        // What served goes on, whatever the clock says, and what is new begins.
        until_answers(&mut world, serves)?;
        let next = 3 - serves;
        world.deploy("digits", &next.to_string())?;
        world.until_serves("edge-1", "digits", next.into())?;
        answers(&world, next)?;
        let log = world.log("edge-1")?;
        assert!(log.contains("which counts from now on"), "{clock}: {log}");
        assert_eq!(log.contains("nothing but signed documents"), unsure, "{clock}: {log}");
        serves = next;
    }
    Ok(())
}

#[test]
fn a_clock_that_jumps_back_a_year_while_the_agent_runs_changes_nothing() -> Result<()> {
    let mut world = serving(world(&["edge-1"])?)?;
    world.stop_agent("edge-1")?;
    let clock = world.folder().join("clock");
    std::fs::write(&clock, "+0")?;
    world.start_agent_at("edge-1", &clock.to_string_lossy())?;
    world.until_serves("edge-1", "digits", 1)?;
    // In the middle of a probation, which a jump must not prolong by a year.
    world.deploy_fleet("digits", "2", 1, "rollout: { probation: 3s }")?;
    world.until("the probation to begin", |world| {
        Ok((world.slot("edge-1", "digits")?["phase"] == "probation").then_some(()))
    })?;
    std::fs::write(&clock, "-1y")?;
    world.until_serves("edge-1", "digits", 2)?;
    answers(&world, 2)?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    let log = world.log("edge-1")?;
    let year = |line: &str| line.get(..4).and_then(|year| year.parse::<u32>().ok());
    let years: Vec<u32> = log.lines().filter_map(year).collect();
    let first = *years.first().context("the log is dated")?;
    assert!(years.iter().any(|year| *year < first), "its clock did not jump: {log}");
    assert!(!log.contains("which counts from now on"), "its time was never wrong: {log}");
    Ok(())
}

#[test]
fn a_device_enrols_whatever_its_clock_says() -> Result<()> {
    let world = world(&[])?;
    for (device, clock) in [("edge-1", "@1970-01-01 00:01:00"), ("edge-2", "@2099-06-01 12:00:00"), ("edge-3", "-1y")] {
        let claim = world.muster(&["claim", "new"])?;
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--name", device, "--url", &world.plane().http, "--claim", claim.trim(), "--data"]);
        output(enrol.arg(world.device_folder(device)).envs(wrong_clock(clock)?))?;
    }
    assert_eq!(world.devices()?.len(), 3);
    Ok(())
}

#[test]
fn a_certificate_that_ran_out_in_an_outage_is_renewed_and_the_device_serves_meanwhile() -> Result<()> {
    const LIFE: Duration = Duration::from_secs(8);
    let mut world = World::start_with(programs()?, &["--device-certificate-life", "8s"], &|_| {})?;
    world.add_device("edge-1")?;
    let mut world = serving(world)?;
    let certificate = world.device_folder("edge-1").join("identity/certificate.pem");

    // The plane is away until the certificate has long ended. The device serves all the while.
    world.kill_plane()?;
    let (before, began) = (std::fs::read(&certificate)?, std::time::Instant::now());
    while began.elapsed() < LIFE + Duration::from_secs(1) {
        answers(&world, 1)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(std::fs::read(&certificate)? == before, "nobody was there to renew it");
    world.start_plane()?;
    world.deploy("digits", "2")?;
    world.until_serves("edge-1", "digits", 2)?;
    assert!(std::fs::read(&certificate)? != before, "it was renewed");

    // The device is off for as long, and then does not even know what time it is: by its clock the
    // certificate is good, and only the broker says that it is not.
    world.kill_agent("edge-1")?;
    world.stop_plane();
    let before = std::fs::read(&certificate)?;
    std::thread::sleep(LIFE + Duration::from_secs(1));
    world.set_plane_arguments(&[]);
    world.start_plane()?;
    world.start_agent_at("edge-1", "@1970-01-01 00:01:00")?;
    until_answers(&mut world, 2)?;
    world.deploy("digits", "1")?;
    world.until_serves("edge-1", "digits", 1)?;
    assert!(std::fs::read(&certificate)? != before, "it was renewed again");
    let log = world.log("edge-1")?;
    assert!(log.contains("CertificateExpired") && log.contains("certificate is renewed"), "{log}");
    Ok(())
}

/// The device serves version 1, is off, and its plane is in other hands.
fn taken_over(world: &mut World) -> Result<HostilePlane> {
    let device = world.device("edge-1")?;
    let fingerprint: Digest = device["fingerprint"].as_str().context("a fingerprint")?.parse()?;
    world.stop_plane();
    world.kill_agent("edge-1")?;
    HostilePlane::start(&world.plane_folder(), &world.plane().mqtt, "edge-1", fingerprint)
}

#[test]
fn a_server_that_may_show_an_old_certificate_gets_nothing_from_the_doors_until_a_director_told_the_time() -> Result<()>
{
    let mut world = serving(world(&["edge-1"])?)?;
    let hostile = taken_over(&mut world)?;
    with_led(&world)?;
    world.start_agent_at("edge-1", "@2099-06-01 12:00:00")?;
    hostile.hello()?;
    // Whoever stands beside it sees what it waits for.
    let status = until_fault(&mut world, "tlsTime", "time")?;
    assert_eq!(status["clockConfirmed"], false);
    until_led(&mut world, "tlsTime heartbeat")?;
    let (early, late) = (Nonce([1; 16]), Nonce([2; 16]));
    hostile.call(early, "digits")?;
    hostile.tell_time(muster_control_plane::now_ms())?;
    hostile.call(late, "digits")?;
    let status = until("the later call to be answered", muster_world::DEADLINE, || Ok(hostile.reply(late)))?;
    assert_eq!((status, hostile.reply(early)), (200, None));
    until_via(&mut world, "mqtt")?;
    until_led(&mut world, "connected on")
}

#[test]
fn an_expired_desired_state_is_refused_by_a_device_whose_clock_was_set_back() -> Result<()> {
    let mut world = serving(world(&["edge-1"])?)?;
    let hostile = taken_over(&mut world)?;
    let bundle = |version| open_bundle(&world.folder().join(format!("digits-{version}.bundle")));
    let (version_1, version_2) = (bundle(1)?, bundle(2)?);
    hostile.serve(version_1.blobs);
    hostile.serve(version_2.blobs);
    world.start_agent_at("edge-1", "-1y")?;

    let now_ms = muster_control_plane::now_ms();
    let refused = |desired: &Desired, part: &str| -> Result<()> {
        hostile.send(hostile.sign(desired)?)?;
        hostile.until_reported(&format!("a refusal with {part:?}"), |reported| {
            let slot = reported.slots.first().filter(|slot| slot.phase == Phase::Serving)?;
            assert_eq!(slot.running.as_ref().map(|running| running.version.get()), Some(1));
            reported.desired_refused.as_ref().filter(|refused| refused.reason.contains(part)).map(drop)
        })?;
        answers(&world, 1)
    };
    let mut replayed = hostile.next_desired(vec![slot("digits", 2, &version_2.envelope)?])?;
    // By the device's clock both have most of a year to live. One ended before the device's claim was made.
    (replayed.issued_ms, replayed.expires_ms) = (now_ms - 7_200_000, now_ms - 3_600_000);
    refused(&replayed, "expired")?;
    // The other ended after that, and the device cannot know: it waits for a director's time.
    replayed.expires_ms = now_ms - 1;
    let claimed_ms = kept_bound_ms(&world)?;
    assert!(claimed_ms < replayed.expires_ms, "the claim was made a while ago");
    refused(&replayed, "nothing new begins")?;
    hostile.tell_time(muster_control_plane::now_ms())?;
    refused(&replayed, "expired")?;

    // By then it takes what is meant now.
    let mut meant = hostile.next_desired(vec![slot("digits", 2, &version_2.envelope)?])?;
    meant.generation = replayed.generation;
    hostile.send(hostile.sign(&meant)?)?;
    hostile.until_reported("version 2 to serve", |reported| {
        let slot = reported.slots.first().filter(|slot| slot.phase == Phase::Serving)?;
        (slot.running.as_ref()?.version.get() == 2).then_some(())
    })?;
    until("the door to answer with version 2", muster_world::DEADLINE, || Ok(answers(&world, 2).ok()))
}

fn kept_bound_ms(world: &World) -> Result<u64> {
    let file = world.device_folder("edge-1").join("identity/enrolment.json");
    let enrolment: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    enrolment["issued_ms"].as_u64().context("a time")
}
