//! The ten attacks that TUF names (The Update Framework, specification 1.0.34, §1.5.2 and its security
//! page), by an attacker who holds the control plane, its director's key, its broker and its files.

use anyhow::Result;
use muster_shared::checks::Check;
use muster_shared::chunk::ChunkIndex;
use muster_shared::desired::{BlobRef, SlotSpec};
use muster_shared::floor::Floor;
use muster_shared::id::Generation;
use muster_shared::manifest::{FileRef, Manifest};
use muster_shared::message::{EventKind, TrustUpdate};
use muster_shared::root::{Publisher, Role};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::{Digest, Version};
use muster_tests::hostile::slot;
use muster_world::{handmade, resident_bytes};

use crate::stage::{DEVICE, EVIL, Ending, MODEL, OTHER, Stage, sign_root};
use crate::{Attack, Play};

/// Memory beyond which a device has been made to hold more than any manifest may have.
const GROWN_BYTES: u64 = 48 << 20;
const DAY_MS: u64 = 86_400_000;

const fn device(name: &'static str, checks: &'static [Check], play: fn(&mut Stage<'_>) -> Result<Ending>) -> Attack {
    Attack { name, checks, play: Play::Device(play) }
}

/// All ten, some in several forms.
pub const ATTACKS: &[Attack] = &[
    device(
        "arbitrary installation: a model that no publisher signed, with the online key alone",
        &[Check::Signature],
        unsigned_model,
    ),
    device("endless data: a manifest declared larger than any", &[Check::DeclaredLength], endless_manifest),
    device("endless data: more sent than was declared", &[Check::SentLength], more_than_declared),
    device(
        "extraneous files: an index of other chunks",
        &[Check::ChunkDigest, Check::IndexDigest, Check::FileDigest],
        other_index,
    ),
    device("fast-forward: a number after which nothing comes", &[Check::Jump], fast_forward),
    device("freeze: a desired state that has expired", &[Check::Expiry], expired_desired),
    device("freeze: a root that has expired", &[Check::RootExpiry], expired_root),
    device("malicious mirror: a changed chunk", &[Check::ChunkDigest, Check::FileDigest], changed_chunk),
    device("mix-and-match: one version's name on another's files", &[Check::ManifestIdentity], other_versions_files),
    device(
        "mix-and-match: another signed manifest than the one that is named",
        &[Check::ManifestDigest, Check::ManifestIdentity],
        other_manifest,
    ),
    device(
        "mix-and-match: a state of the next root, while that root is held back",
        &[Check::RootKnown],
        state_of_the_next_root,
    ),
    device("rollback: an older state", &[Check::Order], older_state),
    device("rollback: an older state after a reboot", &[Check::Order], older_state_after_reboot),
    device("rollback: a replay to a device that lost its state", &[Check::Nonce, Check::Order], replay_after_loss),
    device("rollback: an older state after a loss, though it answers the hello", &[Check::Order], below_the_watermark),
    device("rollback: all of its memory deleted, beside a counter that is not", &[Check::Order], below_the_counter),
    device(
        "rollback: a loss of state, and a root that is held back since",
        &[Check::RootKept],
        root_lost_with_the_state,
    ),
    device("rollback: a version below its floor", &[Check::Floor], below_the_floor),
    device("rollback: a floor that is held back", &[Check::FloorKnown], floor_held_back),
    device("key compromise: one root key fewer than needed", &[Check::Signature], threshold_minus_one),
    device("key compromise: one root key twice", &[Check::DistinctKeys], one_key_twice),
    device("key compromise: a root that only vouches for itself", &[Check::RootChain], self_signed_root),
    device("key compromise: a root that leaves one out", &[Check::RootVersion], skipped_root),
    device("key compromise: an epoch that goes back", &[Check::RootEpoch], epoch_back),
    device("key compromise: a publisher's key that is known as stolen", &[Check::Compromised], stolen_publisher),
    device("key compromise: what a stolen key signed goes on", &[Check::Compromised], stolen_publishers_model_goes_on),
    device("key compromise: a publisher of another model", &[Check::PublisherModels], limited_publisher),
    device("wrong software: another device's state", &[Check::Device], other_devices_state),
    device("wrong software: another fleet's state", &[Check::Fleet], other_fleets_state),
    device("wrong software: a state of another epoch", &[Check::Epoch], other_epochs_state),
    device("wrong software: another model's files", &[Check::ManifestIdentity], other_models_files),
];

fn refused(stage: &Stage<'_>) -> Result<Option<String>> {
    Ok(stage.desired_refused().or_else(|| stage.slot_refused()))
}

/// Sends a desired state with this one slot and waits for what it multiplies by, or a refusal.
fn offer(stage: &mut Stage<'_>, slot: SlotSpec, factor: f64) -> Result<Ending> {
    let desired = stage.next(vec![slot])?;
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(factor), refused)
}

fn unsigned_model(stage: &mut Stage<'_>) -> Result<Ending> {
    let slot = stage.slot(9)?;
    offer(stage, slot, EVIL)
}

fn endless_manifest(stage: &mut Stage<'_>) -> Result<Ending> {
    let blob = Digest::of("endless");
    stage.plane.serve_endlessly(blob);
    let slot = SlotSpec { envelope: BlobRef { sha256: blob, bytes: 1 << 40 }, ..stage.slot(2)? };
    let (agent, desired) = (stage.agent_id()?, stage.next(vec![slot])?);
    let before = resident_bytes(agent)?;
    stage.send(&desired)?;
    stage.ending(
        |_| {
            let grown = resident_bytes(agent)?.saturating_sub(before);
            Ok((grown > GROWN_BYTES).then(|| format!("the agent has taken {} MiB more", grown >> 20)))
        },
        refused,
    )
}

fn more_than_declared(stage: &mut Stage<'_>) -> Result<Ending> {
    let sent = vec![0; muster_shared::limits::FRAME_BYTES_MAX];
    let blob = Digest::of(&sent);
    stage.plane.serve_endlessly(blob);
    let slot = SlotSpec { envelope: BlobRef { sha256: blob, bytes: 10 }, ..stage.slot(2)? };
    let desired = stage.next(vec![slot])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| {
            let stored = std::fs::metadata(stage.data().join("blobs").join(blob.to_string()));
            Ok(stored.ok().map(|file| format!("{} bytes are stored of a blob of 10", file.len())))
        },
        |stage| {
            let asked = stage.plane.asked(blob, 0);
            Ok((asked > 2).then(|| format!("what came was dropped, and it was asked for again ({asked} times)")))
        },
    )
}

/// The file of version 2 and the attacker's in its place, of the same length.
fn files(stage: &Stage<'_>) -> Result<(FileRef, Vec<u8>)> {
    let manifest = Manifest::parse(&stage.template.bundle(MODEL, 2).envelope.payload)?;
    let (file, evil) = (manifest.variants[0].file.clone(), handmade::times(EVIL as f32));
    anyhow::ensure!(file.bytes == evil.len() as u64, "the attacker's file has another length");
    Ok((file, evil))
}

fn other_index(stage: &mut Stage<'_>) -> Result<Ending> {
    let (file, evil) = files(stage)?;
    stage.plane.serve_as(file.chunk_index, ChunkIndex::of(&evil).to_bytes());
    stage.plane.serve_as(file.sha256, evil);
    send_damaged(stage)
}

fn changed_chunk(stage: &mut Stage<'_>) -> Result<Ending> {
    let (file, evil) = files(stage)?;
    stage.plane.serve_as(file.sha256, evil);
    send_damaged(stage)
}

fn send_damaged(stage: &mut Stage<'_>) -> Result<Ending> {
    let desired = stage.next(vec![stage.slot(2)?])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| stage.runs(EVIL),
        |stage| {
            let slots = stage.plane.reported().map(|reported| reported.slots).unwrap_or_default();
            let waiting =
                slots.into_iter().find_map(|slot| slot.waiting).filter(|text| text.contains("not what it is named"));
            Ok(stage.told(EventKind::ChunkDiscarded).or_else(|| stage.slot_refused()).or(waiting))
        },
    )
}

fn fast_forward(stage: &mut Stage<'_>) -> Result<Ending> {
    let mut desired = stage.next(vec![stage.slot(1)?])?;
    desired.generation.number = u64::MAX;
    stage.send(&desired)?;
    stage.ending(
        |stage| {
            let applied = stage.plane.reported().and_then(|reported| reported.applied);
            let last = applied.filter(|applied| applied.number == u64::MAX);
            Ok(last.map(|last| format!("it holds {last}, and no honest state comes after that")))
        },
        refused,
    )
}

fn expired_desired(stage: &mut Stage<'_>) -> Result<Ending> {
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    desired.issued_ms -= 9 * DAY_MS;
    desired.expires_ms = desired.issued_ms + 7 * DAY_MS;
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(2.0), refused)
}

/// Sends the next root and waits until it is followed.
fn follow(stage: &mut Stage<'_>, root: Envelope) -> Result<()> {
    stage.trust(TrustUpdate::Root(root))?;
    stage.until("the root to be followed", |stage| Ok(root_version(stage, 3)))
}

fn root_version(stage: &Stage<'_>, version: u64) -> Option<()> {
    stage.plane.reported().filter(|reported| reported.root_version == version).map(drop)
}

/// Sends a root and waits until it is followed, or not believed.
fn offer_root(stage: &mut Stage<'_>, root: Envelope, version: u64) -> Result<Ending> {
    stage.trust(TrustUpdate::Root(root))?;
    stage.ending(
        |stage| Ok(root_version(stage, version).map(|()| format!("root {version} is followed"))),
        |stage| Ok(stage.told(EventKind::TrustRefused)),
    )
}

fn expired_root(stage: &mut Stage<'_>) -> Result<Ending> {
    let expired = stage.template.next_root(|root| root.expires_ms = 1);
    let envelope = stage.template.sign_root(&expired);
    follow(stage, envelope)?;
    let slot = stage.slot(2)?;
    offer(stage, slot, 2.0)
}

fn other_versions_files(stage: &mut Stage<'_>) -> Result<Ending> {
    // The files of version 1, of which the attacker would like to have it thought that they are version 2.
    let slot = slot(MODEL, 2, &stage.template.bundle(MODEL, 1).envelope)?;
    let desired = stage.next(vec![slot])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| {
            let answer = stage.answer()?.filter(|(version, factor)| (*version, *factor) == (2, 1.0));
            Ok(answer.map(|_| "what answers as version 2 multiplies by 1".to_owned()))
        },
        refused,
    )
}

fn other_manifest(stage: &mut Stage<'_>) -> Result<Ending> {
    let (named, served) = (stage.slot(2)?, stage.slot(3)?);
    let desired = stage.next(vec![SlotSpec { envelope: served.envelope, ..named }])?;
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(3.0), refused)
}

fn state_of_the_next_root(stage: &mut Stage<'_>) -> Result<Ending> {
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    desired.root_version += 1;
    let told_by = stage.plane.hello()?.nonce;
    stage.send(&desired)?;
    stage.ending(
        |stage| stage.runs(2.0),
        |stage| {
            let again = stage.plane.hello()?.nonce != told_by;
            Ok(again.then(|| "it is not taken: a hello asks for the root first".to_owned()))
        },
    )
}

/// A state that wants version 1, and a later one that wants version 2 and is taken.
fn outdated(stage: &mut Stage<'_>) -> Result<Envelope> {
    let old = stage.next(vec![stage.slot(1)?])?;
    let mut new = stage.next(vec![stage.slot(2)?])?;
    new.generation.number += 1;
    let old = stage.plane.sign(&old)?;
    stage.send(&new)?;
    stage.until("version 2 to serve", |stage| {
        let serving = stage.plane.reported().is_some_and(|reported| crate::stage::serves(&reported, 2));
        Ok(stage.runs(2.0)?.filter(|_| serving))
    })?;
    Ok(old)
}

fn older_state(stage: &mut Stage<'_>) -> Result<Ending> {
    let old = outdated(stage)?;
    stage.plane.send(old)?;
    stage.ending(|stage| stage.runs(1.0), refused)
}

fn older_state_after_reboot(stage: &mut Stage<'_>) -> Result<Ending> {
    let old = outdated(stage)?;
    stage.restart(|_| Ok(()))?;
    stage.plane.send(old)?;
    stage.ending(|stage| stage.runs(1.0), refused)
}

fn without_journal(data: &std::path::Path) -> Result<()> {
    Ok(std::fs::remove_file(data.join("journal.redb"))?)
}

fn replay_after_loss(stage: &mut Stage<'_>) -> Result<Ending> {
    let old = outdated(stage)?;
    stage.restart(without_journal)?;
    // It may have lost the root with the rest; everybody has seen that.
    stage.trust(TrustUpdate::Root(stage.template.present_root()))?;
    stage.until("the root to be known", |stage| Ok((stage.plane.hello()?.root_version == 2).then_some(())))?;
    stage.plane.send(old)?;
    stage.ending(|stage| stage.runs(1.0), refused)
}

/// A counter as a device's owner may plug one in: here a program over a file that is not the device's.
const COUNTER: &str = r#"case $1 in
  read) cat "$0.held" 2>/dev/null || echo 0 0 ;;
  raise) echo "$2 $3" > "$0.held"; echo "$2 $3" ;;
esac
"#;

fn below_the_counter(stage: &mut Stage<'_>) -> Result<Ending> {
    stage.restart(|data| {
        let program = data.with_file_name("counter");
        std::fs::write(&program, COUNTER)?;
        let file = data.join("agent.toml");
        let mut config: toml::Table = std::fs::read_to_string(&file)?.parse()?;
        let command = vec!["/bin/sh".to_owned(), program.display().to_string()];
        let trust = toml::Table::from_iter([("counter".to_owned(), command.into())]);
        config.insert("trust".to_owned(), trust.into());
        Ok(std::fs::write(&file, config.to_string())?)
    })?;
    outdated(stage)?;
    stage.restart(|data| {
        without_journal(data)?;
        Ok(std::fs::remove_file(data.join("identity/watermark.json"))?)
    })?;
    let mut desired = stage.next(vec![stage.slot(1)?])?;
    desired.generation = Generation { epoch: 1, number: 1 };
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(1.0), refused)
}

fn root_lost_with_the_state(stage: &mut Stage<'_>) -> Result<Ending> {
    let envelope = found_stolen(stage);
    follow(stage, envelope)?;
    stage.restart(without_journal)?;
    stage.trust(TrustUpdate::Root(stage.template.present_root()))?;
    let mut sent = None;
    stage.until("a state to be sent", |stage| {
        // A hello may come in between: what is sent must answer the last one.
        let hello = stage.plane.hello()?;
        let due = hello.root_version >= 2 && sent != Some(hello.nonce);
        if due {
            let mut desired = stage.next(vec![stage.slot(7)?])?;
            desired.generation.number += 100;
            stage.send(&desired)?;
            sent = Some(hello.nonce);
        }
        Ok((due || sent.is_some()).then_some(()))
    })?;
    stage.ending(|stage| stage.runs(7.0), refused)
}

fn below_the_watermark(stage: &mut Stage<'_>) -> Result<Ending> {
    outdated(stage)?;
    stage.restart(without_journal)?;
    // The stolen director answers the hello, with a number that has been.
    let mut desired = stage.next(vec![stage.slot(1)?])?;
    desired.generation = Generation { epoch: 1, number: 1 };
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(1.0), refused)
}

/// A floor of the model, signed by `key`.
pub fn floor(version: u64, key: &SecretKey) -> Result<Envelope> {
    let version = Version::new(version).ok_or_else(|| anyhow::anyhow!("versions are positive"))?;
    let floor = Floor { fleet: "demo".parse()?, model: MODEL.parse()?, version, issued_ms: 1 };
    Ok(Envelope::sign(payload_type::FLOOR, floor.to_payload(), &[key]))
}

fn below_the_floor(stage: &mut Stage<'_>) -> Result<Ending> {
    let manifest = Some(stage.template.bundle(MODEL, 3).envelope.clone());
    stage.trust(TrustUpdate::Floor { floor: floor(3, &stage.template.keys.publisher)?, manifest })?;
    stage.until("the floor to be held", |stage| {
        let reported = stage.plane.reported();
        Ok(reported.filter(|reported| reported.floors.iter().any(|floor| floor.version.get() == 3)))
    })?;
    let desired = stage.next(vec![SlotSpec { floor: Version::new(3), ..stage.slot(2)? }])?;
    stage.send(&desired)?;
    let wanted = |stage: &Stage<'_>| {
        let slots = stage.plane.reported().map(|reported| reported.slots).unwrap_or_default();
        slots.into_iter().find(|slot| slot.wanted.as_ref().is_some_and(|wanted| wanted.version.get() == 2))
    };
    stage.ending(
        |stage| stage.runs(2.0),
        |stage| {
            Ok(wanted(stage)
                .filter(|slot| slot.phase == muster_shared::reported::Phase::Refused)
                .and_then(|slot| slot.waiting))
        },
    )
}

fn floor_held_back(stage: &mut Stage<'_>) -> Result<Ending> {
    let desired = stage.next(vec![SlotSpec { floor: Version::new(3), ..stage.slot(2)? }])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| stage.runs(2.0),
        |stage| {
            let slots = stage.plane.reported().map(|reported| reported.slots).unwrap_or_default();
            let waiting = slots.into_iter().find_map(|slot| slot.waiting);
            Ok(waiting.filter(|waiting| waiting.contains("floor")))
        },
    )
}

fn threshold_minus_one(stage: &mut Stage<'_>) -> Result<Ending> {
    let mallory = stage.template.keys.mallory.public();
    let root = stage.template.next_root(|root| root.publishers.push(Publisher { key: mallory, models: None }));
    let envelope = sign_root(&root, &[&stage.template.keys.root[0]]);
    offer_root(stage, envelope, 3)
}

fn one_key_twice(stage: &mut Stage<'_>) -> Result<Ending> {
    let root = stage.template.next_root(|_| {});
    let key = &stage.template.keys.root[0];
    let envelope = sign_root(&root, &[key, key]);
    offer_root(stage, envelope, 3)
}

fn self_signed_root(stage: &mut Stage<'_>) -> Result<Ending> {
    let mallory = &stage.template.keys.mallory;
    let root = stage.template.next_root(|root| root.root = Role { threshold: 1, keys: vec![mallory.public()] });
    let envelope = sign_root(&root, &[mallory]);
    offer_root(stage, envelope, 3)
}

fn skipped_root(stage: &mut Stage<'_>) -> Result<Ending> {
    let root = stage.template.next_root(|root| root.version += 1);
    let envelope = stage.template.sign_root(&root);
    offer_root(stage, envelope, 4)
}

fn epoch_back(stage: &mut Stage<'_>) -> Result<Ending> {
    let root = stage.template.next_root(|root| root.epoch = 0);
    let envelope = stage.template.sign_root(&root);
    offer_root(stage, envelope, 3)
}

fn found_stolen(stage: &Stage<'_>) -> Envelope {
    let stolen = stage.template.keys.stolen.public().id();
    stage.template.sign_root(&stage.template.next_root(|root| root.compromised.push(stolen)))
}

fn stolen_publisher(stage: &mut Stage<'_>) -> Result<Ending> {
    let envelope = found_stolen(stage);
    follow(stage, envelope)?;
    let slot = stage.slot(7)?;
    offer(stage, slot, 7.0)
}

fn stolen_publishers_model_goes_on(stage: &mut Stage<'_>) -> Result<Ending> {
    let desired = stage.next(vec![stage.slot(7)?])?;
    stage.send(&desired)?;
    stage.until("what the stolen key signed to serve", |stage| {
        Ok(stage.plane.reported().filter(|reported| crate::stage::serves(reported, 7)))
    })?;
    let envelope = found_stolen(stage);
    follow(stage, envelope)?;
    stage.restart(|_| Ok(()))?;
    stage.ending(
        |stage| stage.runs(7.0),
        |stage| {
            let reported = stage.plane.reported().filter(|reported| reported.root_version == 3);
            let refused = reported.is_some_and(|reported| reported.slots.iter().all(|slot| slot.running.is_none()));
            Ok(stage.slot_refused().filter(|_| refused))
        },
    )
}

fn limited_publisher(stage: &mut Stage<'_>) -> Result<Ending> {
    let slot = stage.slot(8)?;
    offer(stage, slot, EVIL)
}

fn other_devices_state(stage: &mut Stage<'_>) -> Result<Ending> {
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    (desired.device, desired.fingerprint) = ("edge-2".parse()?, Digest::of("another key"));
    assert_ne!(desired.device.as_str(), DEVICE);
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(2.0), refused)
}

fn other_fleets_state(stage: &mut Stage<'_>) -> Result<Ending> {
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    desired.fleet = "another".parse()?;
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(2.0), refused)
}

fn other_epochs_state(stage: &mut Stage<'_>) -> Result<Ending> {
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    desired.generation = Generation { epoch: 2, number: 1 };
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(2.0), refused)
}

fn other_models_files(stage: &mut Stage<'_>) -> Result<Ending> {
    let slot = slot(MODEL, 2, &stage.template.bundle(OTHER, 1).envelope)?;
    offer(stage, slot, 10.0)
}
