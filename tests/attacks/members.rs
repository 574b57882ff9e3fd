//! Who is not, or not any more, one of the fleet; and what one of it may not do to another.

use std::process::Command;

use anyhow::{Context as _, Result};
use muster_control_plane::now_ms;
use muster_shared::Digest;
use muster_shared::checks::Check;
use muster_shared::claim::ClaimToken;
use muster_shared::limits::TEXT_BYTES_MAX;
use muster_shared::message::{ChunkData, ChunkGet};
use muster_shared::reported::SignedReported;
use muster_shared::signing::{Envelope, Signature, payload_type};
use muster_shared::topic::Leaf;
use muster_shared::wire;
use muster_tests::impostor::Impostor;
use muster_world::{Bundle, World};

use crate::stage::{CHECKS_OUT, Ending, Template};
use crate::{Attack, Play};

const fn plane(
    name: &'static str,
    checks: &'static [Check],
    play: fn(&Template, &[Check]) -> Result<Ending>,
) -> Attack {
    Attack { name, checks, play: Play::Plane(play) }
}

/// All of these.
pub const ATTACKS: &[Attack] = &[
    plane("claim replay: a second key with a claim for one", &[Check::ClaimUses], claim_replay),
    plane("claim: a wrong secret", &[Check::ClaimSecret], wrong_secret),
    plane("claim: after its time", &[Check::ClaimExpiry], expired_claim),
    plane("claim: a label that it does not allow", &[Check::ClaimLabels], label_not_allowed),
    plane("revoked: its certificate still holds", &[Check::EnrolledKey], revoked),
    plane("another device's topics: reading", &[Check::Topics], read_anothers_topic),
    plane("another device's model: a digest that was not given", &[Check::ChunkRights], anothers_digest),
    plane("a report that the device did not sign", &[Check::DeviceSignature], forged_report),
];

/// A fleet of its own, whose plane makes every check but these.
fn fleet(template: &Template, out: &[Check]) -> Result<World> {
    let mut programs = template.programs().clone();
    let out = out.iter().map(|check| check.name()).collect::<Vec<_>>().join(",");
    programs.environment = vec![(CHECKS_OUT.to_owned(), out)];
    World::start(programs, &|_| {})
}

/// Enrols a device; harm if it gets in.
fn enrol(world: &World, device: &str, claim: &str, more: &[&str]) -> Result<Ending> {
    let mut enrol = Command::new(&world.programs().agent);
    // The last line is what a person reads.
    enrol.env("RUST_BACKTRACE", "0");
    enrol.args(["enrol", "--name", device, "--url", &world.plane().http, "--claim", claim.trim()]).args(more);
    let done = enrol.arg("--data").arg(world.device_folder(device)).output()?;
    if done.status.success() {
        let known = world.device(device)?;
        return Ok(Ending::Harm(format!("{device} is one of the fleet, with the key {}", known["fingerprint"])));
    }
    let told = String::from_utf8_lossy(&done.stderr);
    let last = told.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Ok(Ending::Held(last.chars().take(TEXT_BYTES_MAX).collect()))
}

fn claim_replay(template: &Template, out: &[Check]) -> Result<Ending> {
    let world = fleet(template, out)?;
    let claim = world.muster(&["claim", "new"])?;
    let first = enrol(&world, "edge-1", &claim, &[])?;
    anyhow::ensure!(matches!(first, Ending::Harm(_)), "the claim does not let its device in: {first:?}");
    enrol(&world, "edge-2", &claim, &[])
}

fn wrong_secret(template: &Template, out: &[Check]) -> Result<Ending> {
    let world = fleet(template, out)?;
    let mut token: ClaimToken = world.muster(&["claim", "new"])?.trim().parse()?;
    token.secret[0] ^= 1;
    enrol(&world, "edge-1", &token.to_string(), &[])
}

fn expired_claim(template: &Template, out: &[Check]) -> Result<Ending> {
    let mut world = fleet(template, out)?;
    let claim = world.muster(&["claim", "new", "--ttl", "1s"])?;
    let claims = world.api("claims")?;
    let expires = claims[0]["expiresMs"].as_u64().context("the claim's end")?;
    world.until("the claim to expire", |_| Ok((now_ms() > expires).then_some(())))?;
    enrol(&world, "edge-1", &claim, &[])
}

fn label_not_allowed(template: &Template, out: &[Check]) -> Result<Ending> {
    let world = fleet(template, out)?;
    let claim = world.muster(&["claim", "new"])?;
    enrol(&world, "edge-1", &claim, &["--label", "site=vault"])
}

fn revoked(template: &Template, out: &[Check]) -> Result<Ending> {
    let mut world = fleet(template, out)?;
    world.add_device("edge-1")?;
    world.stop_agent("edge-1")?;
    world.muster(&["revoke", "edge-1"])?;
    Ok(match Impostor::connect(&world, "edge-1") {
        Ok(_) => Ending::Harm("the broker lets it in".to_owned()),
        Err(error) => Ending::Held(format!("{error:#}")),
    })
}

fn read_anothers_topic(template: &Template, out: &[Check]) -> Result<Ending> {
    let mut world = fleet(template, out)?;
    for device in ["edge-1", "edge-2"] {
        world.add_device(device)?;
    }
    world.stop_agent("edge-1")?;
    let mut impostor = Impostor::connect(&world, "edge-1")?;
    let topic = Leaf::Desired.of(&"edge-2".parse()?);
    if !impostor.subscribe(&topic.to_string())? {
        return Ok(Ending::Held(format!("the broker does not let it read {topic}")));
    }
    world.publish(&Bundle::fixture("linear_regression", 1))?;
    // One for each device that seems to be there.
    world.deploy_fleet("linear_regression", "1", 2, "")?;
    let bytes = impostor.hear(&topic)?;
    Ok(Ending::Harm(format!("it reads edge-2's desired state, {} bytes", bytes.len())))
}

fn anothers_digest(template: &Template, out: &[Check]) -> Result<Ending> {
    let mut world = fleet(template, out)?;
    world.add_device("edge-1")?;
    let bundle = world.publish(&Bundle::fixture("linear_regression", 1))?;
    world.stop_agent("edge-1")?;
    let contents = muster_tests::hostile::open_bundle(&bundle)?;
    let file = contents.blobs.last().context("the bundle's file")?;
    let mut impostor = Impostor::connect(&world, "edge-1")?;
    let down = Leaf::ChunkData.of(&"edge-1".parse()?);
    anyhow::ensure!(impostor.subscribe(&down.to_string())?, "it may read its own topics");
    let get = ChunkGet { blob: Digest::of(file), first_frame: 0, frames: 1 };
    impostor.publish(&Leaf::ChunkGet.of(&"edge-1".parse()?).to_string(), wire::encode(&get)?)?;
    Ok(match wire::decode(&impostor.hear(&down)?)? {
        ChunkData::Frame { bytes, .. } => {
            Ending::Harm(format!("it gets {} bytes of a model that was not given", bytes.len()))
        }
        ChunkData::Unavailable { blob } => Ending::Held(format!("{} is not served to it", blob.short())),
    })
}

fn forged_report(template: &Template, out: &[Check]) -> Result<Ending> {
    let mut world = fleet(template, out)?;
    world.add_device("edge-1")?;
    world.until("edge-1 to report", |world| Ok((!world.device("edge-1")?["facts"].is_null()).then_some(())))?;
    world.stop_agent("edge-1")?;
    let impostor = Impostor::connect(&world, "edge-1")?;
    // What a broker's owner can send in the device's name: anything but its signature.
    let mut reported = muster_shared::reported::Reported {
        device: "edge-1".parse()?,
        boot: muster_shared::BootId([7; 16]),
        sequence: 1,
        at_ms: now_ms(),
        root_version: 1,
        applied: None,
        desired_refused: None,
        facts: Default::default(),
        slots: vec![],
        refusals: vec![],
        floors: vec![],
        health: Default::default(),
        notes: vec![],
    };
    reported.facts.agent = "forged".to_owned();
    let signature = Signature { keyid: muster_shared::signing::key::KeyId(Digest::of("nobody")), sig: vec![0; 70] };
    let envelope = Envelope::with_signature(payload_type::REPORTED, wire::encode(&reported)?, signature);
    impostor.publish(&Leaf::Reported.of(&"edge-1".parse()?).to_string(), wire::encode(&SignedReported(envelope))?)?;
    world.until("the report to be looked at", |world| {
        if world.device("edge-1")?["facts"]["agent"] == "forged" {
            return Ok(Some(Ending::Harm("the plane shows what was forged".to_owned())));
        }
        let log = std::fs::read_to_string(world.folder().join("plane.log"))?;
        Ok(log
            .contains("not written down")
            .then(|| Ending::Held("it is not written down: its signature does not hold".to_owned())))
    })
}
