//! What Uptane adds (Uptane Standard 2.1.0, §4): a director that is compromised, a publisher that is, what
//! is said again, and the way back. And what only Muster has: floors, commands, calls.

use anyhow::Result;
use muster_shared::Nonce;
use muster_shared::checks::Check;
use muster_shared::command::{Command, Order};
use muster_shared::message::{Call, Door, DoorRequest, EventKind, Request, TrustUpdate};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::topic::Leaf;
use muster_shared::wire;

use crate::stage::{Ending, MODEL, Stage};
use crate::tuf::floor;
use crate::{Attack, Play};

const fn device(name: &'static str, checks: &'static [Check], play: fn(&mut Stage<'_>) -> Result<Ending>) -> Attack {
    Attack { name, checks, play: Play::Device(play) }
}

/// All of these.
pub const ATTACKS: &[Attack] = &[
    device("compromised publisher: its key directs nothing", &[Check::Signature], publisher_as_director),
    device(
        "compromised publisher: a floor above everything stops the fleet",
        &[Check::FloorBound],
        floor_above_everything,
    ),
    device(
        "compromised publisher: a floor for a model that is not its own",
        &[Check::PublisherModels],
        floor_of_another_model,
    ),
    device("compromised director: a floor of its own making", &[Check::Signature], floor_by_the_director),
    device("recovery: the old director after the root has named another", &[Check::Signature], old_director),
    device("recovery: the old epoch after the root has begun another", &[Check::Epoch], old_epoch),
    device("replay: a call that was answered", &[Check::CallOnce], repeated_call),
    device("a command that no director signed", &[Check::Signature], unsigned_command),
    device("a command for another device", &[Check::Device], other_devices_command),
    device("a command of an earlier hello", &[Check::Nonce], stale_command),
];

fn publisher_as_director(stage: &mut Stage<'_>) -> Result<Ending> {
    let desired = stage.next(vec![stage.slot(2)?])?;
    let envelope = Envelope::sign(payload_type::DESIRED, wire::encode(&desired)?, &[&stage.template.keys.publisher]);
    stage.plane.send(envelope)?;
    stage.ending(|stage| stage.runs(2.0), |stage| Ok(stage.desired_refused()))
}

/// Harm if a floor stops what serves, without the fleet's owners having said so.
fn stopped(stage: &Stage<'_>) -> Result<Option<String>> {
    let answers = stage.answer()?.is_some();
    let told = stage.told(EventKind::Distrusted);
    // An old version that stops while its successor is on its way is the floor's right.
    let for_good = !answers && stage.slot_refused().is_some();
    Ok(told.filter(|_| for_good).map(|told| format!("version 1 answers no more: {told}")))
}

/// Sends a floor, then has version 2 run: the floor was looked at before.
fn offer_floor(stage: &mut Stage<'_>, floor: Envelope, with_manifest: bool) -> Result<Ending> {
    let manifest = with_manifest.then(|| stage.template.bundle(MODEL, 3).envelope.clone());
    stage.trust(TrustUpdate::Floor { floor, manifest })?;
    let desired = stage.next(vec![stage.slot(2)?])?;
    stage.send(&desired)?;
    stage.ending(stopped, |stage| Ok(stage.runs(2.0)?.map(|runs| format!("the floor does not count: {runs}"))))
}

fn floor_above_everything(stage: &mut Stage<'_>) -> Result<Ending> {
    let floor = floor(u64::MAX, &stage.template.keys.publisher)?;
    offer_floor(stage, floor, false)
}

fn floor_of_another_model(stage: &mut Stage<'_>) -> Result<Ending> {
    let floor = floor(3, &stage.template.keys.limited)?;
    offer_floor(stage, floor, true)
}

fn floor_by_the_director(stage: &mut Stage<'_>) -> Result<Ending> {
    let floor = floor(3, stage.plane.director())?;
    offer_floor(stage, floor, true)
}

/// The fleet's owners name another director, in a new epoch.
fn recover(stage: &mut Stage<'_>, director: Option<&SecretKey>) -> Result<()> {
    let root = stage.template.next_root(|root| {
        root.epoch = 2;
        root.directors.extend(director.map(SecretKey::public));
        if director.is_some() {
            root.directors.remove(0);
        }
    });
    let envelope = stage.template.sign_root(&root);
    stage.trust(TrustUpdate::Root(envelope))?;
    stage.until("the root to be followed", |stage| {
        Ok(stage.plane.reported().filter(|reported| reported.root_version == 3).map(drop))
    })
}

fn old_director(stage: &mut Stage<'_>) -> Result<Ending> {
    let new = SecretKey::from_seed([130; 32]);
    recover(stage, Some(&new))?;
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    (desired.generation.epoch, desired.root_version) = (2, 3);
    stage.send(&desired)?;
    let ending = stage.ending(|stage| stage.runs(2.0), |stage| Ok(stage.desired_refused()))?;
    if let Ending::Held(reason) = ending {
        // The way back is open: the new director is heard.
        let mut desired = stage.next(vec![stage.slot(3)?])?;
        (desired.generation.epoch, desired.root_version) = (2, 3);
        let envelope = Envelope::sign(payload_type::DESIRED, wire::encode(&desired)?, &[&new]);
        stage.plane.send(envelope)?;
        let runs = stage.until("what the new director wants", |stage| stage.runs(3.0))?;
        return Ok(Ending::Held(format!("{reason}; what the new director wants: {runs}")));
    }
    Ok(ending)
}

fn old_epoch(stage: &mut Stage<'_>) -> Result<Ending> {
    recover(stage, None)?;
    let mut desired = stage.next(vec![stage.slot(2)?])?;
    (desired.generation.epoch, desired.root_version) = (1, 3);
    desired.generation.number += 1 << 31;
    stage.send(&desired)?;
    stage.ending(|stage| stage.runs(2.0), |stage| Ok(stage.desired_refused()))
}

fn prediction(id: u8) -> Result<Call> {
    let request = Request::Door(DoorRequest {
        door: Door::TfServing,
        post: true,
        served: MODEL.parse()?,
        rest: ":predict".to_owned(),
        json_bytes: None,
        body: br#"{"instances": [[1, 1, 1, 1]]}"#.to_vec(),
    });
    Ok(Call { id: Nonce([id; 16]), reply_to: "cp-1".parse()?, deadline_ms: 5_000, request })
}

/// The answers to a call.
fn answers(stage: &Stage<'_>, id: u8) -> usize {
    stage.plane.replies().iter().filter(|reply| reply.id == Nonce([id; 16])).count()
}

fn repeated_call(stage: &mut Stage<'_>) -> Result<Ending> {
    // It is looked at before the calls that follow it.
    stage.trust(TrustUpdate::Time(stage.time()?))?;
    for _ in 0..2 {
        stage.plane.publish(Leaf::Call, &prediction(1)?)?;
        stage.until("the call to be answered", |stage| Ok((answers(stage, 1) > 0).then_some(())))?;
    }
    // One more, of another id: what came before it was looked at.
    stage.plane.publish(Leaf::Call, &prediction(2)?)?;
    stage.ending(
        |stage| Ok((answers(stage, 1) > 1).then(|| "the same call was answered twice".to_owned())),
        |stage| Ok((answers(stage, 2) > 0).then(|| "the later call was answered, the repeated one once".to_owned())),
    )
}

fn command(stage: &Stage<'_>, change: impl FnOnce(&mut Command)) -> Result<Command> {
    let desired = stage.next(vec![])?;
    let nonce = stage.plane.hello()?.nonce;
    let mut command = Command {
        fleet: desired.fleet,
        device: desired.device,
        fingerprint: desired.fingerprint,
        id: Nonce([9; 16]),
        nonce,
        issued_ms: desired.issued_ms,
        order: Order::Diagnose,
    };
    change(&mut command);
    Ok(command)
}

fn offer_command(stage: &mut Stage<'_>, command: &Command, key: &SecretKey) -> Result<Ending> {
    let envelope = Envelope::sign(payload_type::COMMAND, wire::encode(command)?, &[key]);
    let request = Request::Command(envelope);
    let call = Call { id: command.id, reply_to: "cp-1".parse()?, deadline_ms: 5_000, request };
    stage.plane.publish(Leaf::Call, &call)?;
    let reply = |stage: &Stage<'_>| stage.plane.replies().into_iter().find(|reply| reply.id == Nonce([9; 16]));
    stage.ending(
        |stage| Ok(reply(stage).filter(|reply| reply.status == 200).map(|_| "the command was carried out".to_owned())),
        |stage| {
            let refused = reply(stage).filter(|reply| reply.status == 403);
            Ok(refused.map(|reply| String::from_utf8_lossy(&reply.body).into_owned()))
        },
    )
}

fn unsigned_command(stage: &mut Stage<'_>) -> Result<Ending> {
    let command = command(stage, |_| {})?;
    let key = &stage.template.keys.mallory;
    offer_command(stage, &command, key)
}

fn other_devices_command(stage: &mut Stage<'_>) -> Result<Ending> {
    let other = "edge-2".parse()?;
    let command = command(stage, |command| command.device = other)?;
    let director = stage.stolen_director()?;
    offer_command(stage, &command, &director)
}

fn stale_command(stage: &mut Stage<'_>) -> Result<Ending> {
    let command = command(stage, |command| command.nonce = Nonce([77; 16]))?;
    let director = stage.stolen_director()?;
    offer_command(stage, &command, &director)
}
