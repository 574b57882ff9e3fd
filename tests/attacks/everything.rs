//! A control plane, its database, its director's key and its broker in an attacker's hands, who says to the
//! real agent whatever a plane can say, by chance and from one seed: every message, in every order, with
//! every signature that is to be had short of a publisher's or of enough root keys.
//!
//! What that can do is what `docs/security.md` says: run other versions that a publisher signed, or none.

use std::time::{Duration, Instant};

use anyhow::Result;
use muster_control_plane::now_ms;
use muster_shared::checks::Check;
use muster_shared::command::{Command, Order};
use muster_shared::desired::{Desired, SlotSpec};
use muster_shared::director_time::DirectorTime;
use muster_shared::floor::Floor;
use muster_shared::id::Generation;
use muster_shared::message::{Call, ChunkData, Door, DoorRequest, Request, TrustUpdate};
use muster_shared::reported::{Phase, SlotReport};
use muster_shared::root::{Publisher, Role, Root};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::telemetry::Ack;
use muster_shared::topic::Leaf;
use muster_shared::{BootId, Digest, Nonce, Version, wire};
use muster_tests::hostile::slot;

use crate::stage::{DEVICE, EVIL, Ending, MODEL, OTHER, Stage, sign_root};
use crate::tuf;
use crate::{Attack, Play};

/// What is said in one play.
const MESSAGES: usize = 600;
/// How long a desired state may take to come into force before the next thing is said: most do in a tenth of
/// it, and some never do.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// How often it is seen whether it did.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The floor that the model's publisher has set before.
const FLOOR: u64 = 2;
/// From which everything follows; `MUSTER_ATTACKS_SEED` sets another.
const SEED: u64 = 1;

/// Both.
pub const ATTACKS: &[Attack] = &[
    Attack {
        name: "everything that a stolen plane can say: no payload that no publisher signed",
        checks: &[Check::Signature],
        play: Play::Device(no_unsigned_payload),
    },
    Attack {
        name: "everything that a stolen plane can say: nothing below a floor",
        checks: &[Check::Floor],
        play: Play::Device(nothing_below_the_floor),
    },
];

fn no_unsigned_payload(stage: &mut Stage<'_>) -> Result<Ending> {
    say_everything(stage, |factor| factor == EVIL)
}

fn nothing_below_the_floor(stage: &mut Stage<'_>) -> Result<Ending> {
    let manifest = Some(stage.template.bundle(MODEL, 3).envelope.clone());
    stage.trust(TrustUpdate::Floor { floor: tuf::floor(FLOOR, &stage.template.keys.publisher)?, manifest })?;
    stage.until("the floor to be held", |stage| {
        let reported = stage.plane.reported();
        Ok(reported.filter(|reported| !reported.floors.is_empty()))
    })?;
    // Version 1 ran before; what counts is what is begun from now on.
    let desired = stage.next(vec![stage.slot(3)?])?;
    stage.send(&desired)?;
    stage.until("a version above the floor to run", |stage| stage.runs(3.0))?;
    say_everything(stage, |factor| factor < FLOOR as f64 || factor == EVIL)
}

fn say_everything(stage: &mut Stage<'_>, is_harm: impl Fn(f64) -> bool) -> Result<Ending> {
    let seed = std::env::var("MUSTER_ATTACKS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let mut chance = Chance(seed);
    let mut seen: Vec<(u64, f64)> = vec![];
    for number in 0..MESSAGES {
        if let Some(generation) = say(stage, &mut chance)? {
            settle(stage, generation);
        }
        // It answers, so the agent lives and has taken in what was said.
        for model in [MODEL, OTHER] {
            let Some(answer) = stage.answer_of(model)? else { continue };
            if is_harm(answer.1) {
                let (version, factor) = answer;
                return Ok(Ending::Harm(format!(
                    "after {number} messages of seed {seed}, version {version} of {model} answers, times {factor}"
                )));
            }
            if !seen.contains(&answer) {
                seen.push(answer);
            }
        }
    }
    // The agent is whole: it still takes what is in order.
    let mut desired = stage.next(vec![stage.slot(3)?])?;
    stage.until("an honest state to be taken after all that", |stage| {
        let hello = stage.plane.hello()?;
        if hello.wants_time {
            stage.trust(TrustUpdate::Time(stage.time()?))?;
        }
        let held = hello.holds.map_or(0, |held| held.generation.number);
        let applied = stage.plane.reported().and_then(|reported| reported.applied).map_or(0, |applied| applied.number);
        desired.generation.number = held.max(applied) + 1;
        (desired.nonce, desired.root_version) = (Some(hello.nonce), hello.root_version);
        stage.send(&desired)?;
        stage.runs(3.0)
    })?;
    seen.sort_by(|one, other| one.1.total_cmp(&other.1));
    let ran = seen.iter().map(|(version, factor)| format!("version {version}, times {factor}")).collect::<Vec<_>>();
    Ok(Ending::Held(format!("{MESSAGES} messages of seed {seed}; what ran: {}", ran.join("; "))))
}

/// Waits for a moment until a desired state is in force, or refused.
fn settle(stage: &Stage<'_>, generation: Generation) {
    let began = Instant::now();
    while began.elapsed() < SETTLE_TIME {
        std::thread::sleep(LOOK_EVERY);
        let Some(reported) = stage.plane.reported() else { continue };
        let moves =
            |slot: &SlotReport| !matches!(slot.phase, Phase::Serving | Phase::Refused) && slot.waiting.is_none();
        let in_force = reported.applied == Some(generation) && !reported.slots.iter().any(moves);
        if in_force || reported.desired_refused.is_some() {
            return;
        }
    }
}

/// Says one thing; if it is a desired state, of which generation.
fn say(stage: &Stage<'_>, chance: &mut Chance) -> Result<Option<Generation>> {
    let kind = chance.below(12);
    if kind <= 5 {
        let (generation, envelope) = desired(stage, chance)?;
        stage.plane.send(envelope)?;
        return Ok(Some(generation));
    }
    say_else(stage, chance, kind).map(|()| None)
}

fn say_else(stage: &Stage<'_>, chance: &mut Chance, kind: u64) -> Result<()> {
    match kind {
        6 => stage.trust(TrustUpdate::Root(root(stage, chance))),
        7 => {
            let floor = Floor {
                fleet: "demo".parse()?,
                model: if chance.once_in(3) { OTHER.parse()? } else { MODEL.parse()? },
                version: Version::new(chance.number().max(1)).unwrap_or(Version::new(1).expect("positive")),
                issued_ms: chance.number(),
            };
            let floor = Envelope::sign(payload_type::FLOOR, floor.to_payload(), &[key(stage, chance)]);
            let manifest = (!chance.once_in(3)).then(|| bundle(stage, chance).2.clone());
            stage.trust(TrustUpdate::Floor { floor, manifest })
        }
        8 => {
            let hello = stage.plane.hello()?;
            let next = stage.next(vec![])?;
            let nonce = if chance.once_in(3) { Nonce([3; 16]) } else { hello.nonce };
            let (fleet, device, fingerprint) = (next.fleet, next.device, next.fingerprint);
            let time = DirectorTime { fleet, device, fingerprint, nonce, now_ms: time(chance) };
            let envelope = Envelope::sign(payload_type::TIME, wire::encode(&time)?, &[key(stage, chance)]);
            stage.trust(TrustUpdate::Time(envelope))
        }
        9 => {
            let blob = match chance.once_in(2) {
                true => Digest::of(bundle(stage, chance).2.to_json()),
                false => Digest::of("nothing"),
            };
            let bytes = vec![chance.number() as u8; chance.below(32 * 1024) as usize];
            let data = match chance.once_in(3) {
                true => ChunkData::Unavailable { blob },
                false => ChunkData::Frame { blob, number: chance.number() as u32, bytes },
            };
            stage.plane.publish(Leaf::ChunkData, &data)
        }
        10 if chance.once_in(4) => stage
            .plane
            .publish(Leaf::TelemetryAck, &Ack { boot: BootId([chance.number() as u8; 16]), sequence: chance.number() }),
        10 => {
            let call = call(stage, chance)?;
            stage.plane.publish(Leaf::Call, &call)
        }
        _ => {
            let leaf = Leaf::DOWN[chance.below(5) as usize].clone();
            let bytes = (0..chance.below(600)).map(|_| chance.number() as u8).collect();
            stage.plane.publish_bytes(leaf, bytes)
        }
    }
}

/// A bundle that the attacker can get at: the model's name, the version, the manifest in its envelope.
fn bundle<'a>(stage: &Stage<'a>, chance: &mut Chance) -> (&'static str, u64, &'a Envelope) {
    let all = [(MODEL, 1), (MODEL, 2), (MODEL, 3), (MODEL, 8), (MODEL, 9), (OTHER, 1)];
    let (model, version) = all[chance.below(all.len() as u64) as usize];
    (model, version, &stage.template.bundle(model, version).envelope)
}

/// A key that the attacker has.
fn key<'a>(stage: &'a Stage<'_>, chance: &mut Chance) -> &'a SecretKey {
    match chance.below(6) {
        0 => &stage.template.keys.mallory,
        1 => &stage.template.keys.root[0],
        _ => stage.plane.director(),
    }
}

fn time(chance: &mut Chance) -> u64 {
    match chance.below(5) {
        0 => 0,
        1 => u64::MAX,
        2 => now_ms() + chance.below(1 << 40),
        3 => now_ms().saturating_sub(chance.below(1 << 40)),
        _ => now_ms(),
    }
}

fn spec(stage: &Stage<'_>, chance: &mut Chance) -> Result<SlotSpec> {
    let (model, version, envelope) = bundle(stage, chance);
    let mut spec = slot(model, version, envelope)?;
    match chance.below(14) {
        0 => spec.version = Version::new(chance.number().max(1)).unwrap_or(spec.version),
        1 => spec.manifest = Digest::of(&bundle(stage, chance).2.payload),
        2 => spec.envelope = slot(model, version, bundle(stage, chance).2)?.envelope,
        3 => spec.envelope.bytes = chance.number(),
        4 => spec.variant = "int8".parse()?,
        5 => spec.resources.memory_bytes = chance.number(),
        6 => spec.resources.cpu_milli = chance.number() as u32,
        7 => spec.model = OTHER.parse()?,
        8 => spec.served_as = Some(MODEL.parse()?),
        9 => spec.floor = Version::new(chance.below(5)),
        10 => spec.swap_in_place = true,
        _ => {}
    }
    // Not to wait for it.
    spec.probation_ms = if chance.once_in(8) { chance.number() as u32 } else { 0 };
    Ok(spec)
}

fn desired(stage: &Stage<'_>, chance: &mut Chance) -> Result<(Generation, Envelope)> {
    let slots = (0..chance.below(3)).map(|_| spec(stage, chance)).collect::<Result<Vec<_>>>()?;
    let mut desired: Desired = stage.next(slots)?;
    // The hello that it was told by may be older than what was said since.
    let applied = stage.plane.reported().and_then(|reported| reported.applied);
    desired.generation.number = applied.map_or(0, |applied| applied.number) + 1;
    match chance.below(24) {
        0 => desired.generation.number = chance.number(),
        1 => desired.generation = Generation { epoch: chance.below(3), number: 1 },
        2 => desired.expires_ms = time(chance),
        3 => desired.issued_ms = time(chance),
        4 => desired.nonce = None,
        5 => desired.root_version = chance.below(5),
        6 => desired.fleet = "another".parse()?,
        7 => desired.device = "edge-2".parse()?,
        8 => desired.fingerprint = Digest::of("another key"),
        _ => {}
    }
    let kind = if chance.once_in(20) { payload_type::COMMAND } else { payload_type::DESIRED };
    let mut envelope = Envelope::sign(kind, wire::encode(&desired)?, &[key(stage, chance)]);
    if chance.once_in(10) {
        let at = chance.below(envelope.payload.len() as u64) as usize;
        envelope.payload[at] ^= 1 << chance.below(8);
    }
    Ok((desired.generation, envelope))
}

fn root(stage: &Stage<'_>, chance: &mut Chance) -> Envelope {
    let mallory = &stage.template.keys.mallory;
    let root: Root = stage.template.next_root(|root| match chance.below(7) {
        0 => root.publishers.push(Publisher { key: mallory.public(), models: None }),
        1 => root.root = Role { threshold: 1, keys: vec![mallory.public()] },
        2 => root.directors.push(mallory.public()),
        3 => root.version = chance.below(6).max(1),
        4 => root.epoch = chance.below(4),
        5 => root.publishers.clear(),
        _ => root.expires_ms = time(chance),
    });
    let first = &stage.template.keys.root[0];
    match chance.below(4) {
        0 => sign_root(&root, &[first]),
        1 => sign_root(&root, &[first, first]),
        2 => sign_root(&root, &[mallory, first]),
        _ => sign_root(&root, &[mallory, stage.plane.director()]),
    }
}

fn call(stage: &Stage<'_>, chance: &mut Chance) -> Result<Call> {
    let id = Nonce([chance.number() as u8; 16]);
    let request = if chance.once_in(2) {
        let rest = [":predict", "", "/metadata", "/../../metrics", ":predict?x", "/versions/9:predict"];
        Request::Door(DoorRequest {
            door: if chance.once_in(2) { Door::TfServing } else { Door::OpenInference },
            post: chance.once_in(2),
            served: MODEL.parse()?,
            rest: rest[chance.below(rest.len() as u64) as usize].to_owned(),
            json_bytes: chance.once_in(3).then(|| chance.number() as u32),
            body: br#"{"instances": [[1, 1, 1, 1]]}"#[chance.below(20) as usize..].to_vec(),
        })
    } else {
        let next = stage.next(vec![])?;
        let (fleet, fingerprint, issued_ms) = (next.fleet, next.fingerprint, time(chance));
        let nonce = if chance.once_in(2) { Nonce([4; 16]) } else { stage.plane.hello()?.nonce };
        let device = DEVICE.parse()?;
        let command = Command { fleet, device, fingerprint, id, nonce, issued_ms, order: Order::Diagnose };
        Request::Command(Envelope::sign(payload_type::COMMAND, wire::encode(&command)?, &[key(stage, chance)]))
    };
    Ok(Call { id, reply_to: "cp-1".parse()?, deadline_ms: chance.below(2_000) as u32, request })
}

/// Chance from a seed (SplitMix64, by Sebastiano Vigna).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Small numbers are more often what something depends on.
        let mixed = mixed ^ (mixed >> 31);
        if mixed & 3 == 0 { mixed >> 56 } else { mixed }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
