//! The wire codec over every message: arbitrary bytes decode without a panic, what is encoded
//! decodes to itself, and the bytes of every version in `golden/` still decode to what they were.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use muster_shared::command::{Command, Emptied, Order, SignedEmptied};
use muster_shared::desired::{BlobRef, Desired, Resources, SignedDesired, SlotSpec};
use muster_shared::director_time::DirectorTime;
use muster_shared::hardware::{
    Accelerator, AcceleratorKind, BatteryState, Board, CoreKind, Hardware, Health, Medium, PowerKind, PowerSource,
    Reserve, Storage, Strain, Temperature,
};
use muster_shared::id::Generation;
use muster_shared::message::{
    Call, ChunkData, ChunkGet, Door, DoorRequest, Event, EventKind, Held, Hello, Renewal, Reply, Request, TrustUpdate,
};
use muster_shared::reported::{
    BundleRef, DesiredRefused, Facts, Measured, ModelFloor, Phase, Refusal, RefusalKind, Reported, SignedReported,
    SlotReport,
};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::sketch::Sketch;
use muster_shared::telemetry::{Ack, Batch, HostSample, ModelSample, SignedBatch};
use muster_shared::tunnel::{SignedTunnelProof, TunnelChallenge, TunnelProof};
use muster_shared::wire::{Message, WireError, decode, encode};
use muster_shared::{BootId, Digest, Nonce, Version, limits};
use proptest::prelude::*;

/// Calls `$check!(name, value)` for a value of each message.
macro_rules! each_message {
    ($check:ident) => {
        $check!("hello", hello(Some(Generation { epoch: 1, number: 7 })));
        $check!("trust", TrustUpdate::Root(envelope(b"root")));
        $check!("trust-floor", floor());
        $check!("trust-time", TrustUpdate::Time(envelope(b"time")));
        $check!("time", director_time());
        $check!("command", command());
        $check!("command-decommission", Command { order: Order::Decommission, ..command() });
        $check!("emptied", emptied());
        $check!("emptied-signed", SignedEmptied(envelope(b"emptied")));
        $check!("call-command", Call { request: Request::Command(envelope(b"command")), ..call() });
        $check!("desired", desired(3));
        $check!("desired-signed", SignedDesired(envelope(b"desired")));
        $check!("reported", reported());
        $check!("reported-signed", SignedReported(envelope(b"reported")));
        $check!("telemetry", batch());
        $check!("telemetry-signed", SignedBatch(envelope(b"telemetry")));
        $check!("telemetry-ack", Ack { boot: BootId([3; 16]), sequence: 9 });
        $check!("chunk-get", ChunkGet { blob: Digest::of("blob"), first_frame: 300, frames: 0b1011 });
        $check!("chunk-data", ChunkData::Frame { blob: Digest::of("blob"), number: 301, bytes: vec![1, 2, 3] });
        $check!("chunk-unavailable", ChunkData::Unavailable { blob: Digest::of("blob") });
        $check!("event", event());
        $check!("call", call());
        $check!("reply", reply(Some(2)));
        $check!("renewal", Renewal { device: "edge-1".parse().unwrap(), csr: vec![0x30, 0x01] });
        $check!("tunnel-challenge", TunnelChallenge { nonce: Nonce([6; 16]) });
        $check!("tunnel-proof", tunnel_proof());
        $check!("tunnel-proof-signed", SignedTunnelProof(envelope(b"proof")));
    };
}

fn tunnel_proof() -> TunnelProof {
    TunnelProof { device: "edge-1".parse().unwrap(), nonce: Nonce([6; 16]), ca: Digest::of("ca") }
}

fn envelope(payload: &[u8]) -> Envelope {
    Envelope::sign(payload_type::DESIRED, payload.to_vec(), &[&SecretKey::from_seed([1; 32])])
}

fn floor() -> TrustUpdate {
    TrustUpdate::Floor { floor: envelope(b"floor"), manifest: Some(envelope(b"manifest")) }
}

fn director_time() -> DirectorTime {
    DirectorTime {
        fleet: "home".parse().unwrap(),
        device: "edge-1".parse().unwrap(),
        fingerprint: Digest::of("key"),
        nonce: Nonce([2; 16]),
        now_ms: 1_700_000_000_000,
    }
}

fn command() -> Command {
    Command {
        fleet: "home".parse().unwrap(),
        device: "edge-1".parse().unwrap(),
        fingerprint: Digest::of("key"),
        id: Nonce([5; 16]),
        nonce: Nonce([2; 16]),
        issued_ms: 1_700_000_000_000,
        order: Order::Diagnose,
    }
}

fn emptied() -> Emptied {
    Emptied {
        fleet: "home".parse().unwrap(),
        device: "edge-1".parse().unwrap(),
        command: Nonce([5; 16]),
        at_ms: 1_700_000_000_000,
    }
}

fn hello(holds: Option<Generation>) -> Hello {
    let holds = holds.map(|generation| Held { generation, digest: Digest::of("held") });
    Hello { boot: BootId([1; 16]), nonce: Nonce([2; 16]), root_version: 1, holds, wants_time: true }
}

fn bundle() -> BundleRef {
    BundleRef { model: "digits".parse().unwrap(), version: Version::new(2).unwrap(), manifest: Digest::of("manifest") }
}

fn desired(slots: usize) -> Desired {
    let slot = |at: usize| SlotSpec {
        deployment: format!("digits-{at}").parse().unwrap(),
        served_as: (at == 1).then(|| "numbers".parse().unwrap()),
        model: "digits".parse().unwrap(),
        version: Version::new(2).unwrap(),
        manifest: Digest::of("manifest"),
        envelope: BlobRef { sha256: Digest::of("envelope"), bytes: 1234 },
        variant: "fp32".parse().unwrap(),
        resources: Resources { cpu_milli: 250, memory_bytes: 64 << 20 },
        probation_ms: 60_000,
        attempt: 1,
        swap_in_place: at == 2,
        floor: Version::new(at as u64),
    };
    Desired {
        fleet: "home".parse().unwrap(),
        device: "edge-1".parse().unwrap(),
        fingerprint: Digest::of("key"),
        generation: Generation { epoch: 1, number: 7 },
        issued_ms: 1_700_000_000_000,
        expires_ms: 1_700_086_400_000,
        nonce: Some(Nonce([2; 16])),
        root_version: 4,
        slots: (0..slots).map(slot).collect(),
    }
}

fn reported() -> Reported {
    Reported {
        device: "edge-1".parse().unwrap(),
        boot: BootId([1; 16]),
        sequence: 4,
        at_ms: 1_700_000_000_001,
        root_version: 1,
        applied: Some(Generation { epoch: 1, number: 7 }),
        desired_refused: Some(DesiredRefused {
            generation: Some(Generation { epoch: 1, number: 6 }),
            reason: "older than the one held".into(),
            at_ms: 1_700_000_000_000,
        }),
        facts: Facts {
            agent: "0.1.0".into(),
            arch: "aarch64".into(),
            os: "Debian 12".into(),
            cpu_model: None,
            cpu_milli: 4000,
            memory_bytes: 4 << 30,
            disk_free_bytes: Some(1 << 30),
            engines: vec!["tract".into()],
            isolation: vec!["rlimits".into()],
            hardware: hardware(),
            labels: [("site".parse().unwrap(), "north".parse().unwrap())].into(),
        },
        health: health(),
        slots: vec![SlotReport {
            deployment: "digits".parse().unwrap(),
            phase: Phase::Serving,
            wanted: Some(bundle()),
            running: Some(bundle()),
            waiting: Some("no room".into()),
            restarts: 1,
            measured: Some(Measured { memory_peak_bytes: 9 << 20, latency_us: 80 }),
        }],
        refusals: vec![Refusal {
            bundle: bundle(),
            agent: "0.1.0".into(),
            attempt: 2,
            memory_bytes: 64 << 20,
            kind: RefusalKind::GoldenMismatch,
            reason: "output 0 differs".into(),
            at_ms: 1_700_000_000_000,
        }],
        floors: vec![ModelFloor { model: "digits".parse().unwrap(), version: Version::new(2).unwrap() }],
        notes: vec!["the clock is not trusted yet".into()],
    }
}

fn hardware() -> Hardware {
    Hardware {
        board: Some(Board {
            model: "Raspberry Pi 5 Model B Rev 1.0".into(),
            vendor: None,
            compatible: vec!["raspberrypi,5-model-b".into(), "brcm,bcm2712".into()],
        }),
        soc: Some("brcm,bcm2712".into()),
        cores: vec![CoreKind {
            count: 4,
            name: Some("Cortex-A76".into()),
            capacity: Some(1024),
            khz_max: Some(2_400_000),
        }],
        cpu_features: vec!["neon".into(), "dotprod".into()],
        memory_bytes: Some(8 << 30),
        swap_bytes: Some(0),
        kernel: Some("6.12.47+rpt-rpi-2712".into()),
        libc: Some("glibc".into()),
        accelerators: vec![Accelerator {
            kind: AcceleratorKind::Npu,
            name: "Hailo-8".into(),
            driver: Some("hailo".into()),
            node: Some("/dev/hailo0".into()),
            may_open: Some(false),
        }],
    }
}

fn health() -> Health {
    Health {
        temperatures: vec![Temperature {
            sensor: "cpu-thermal".into(),
            millicelsius: 51_500,
            critical_millicelsius: Some(110_000),
        }],
        strains: vec![Strain::UnderVoltage],
        strains_since_boot: vec![Strain::UnderVoltage, Strain::Throttled],
        khz_allowed: Some(1_500_000),
        power: vec![PowerSource {
            name: "BAT0".into(),
            kind: PowerKind::Battery,
            online: None,
            percent: Some(97),
            state: Some(BatteryState::Charging),
        }],
        storage: Some(Storage {
            device: Some("mmcblk0".into()),
            medium: Some(Medium::Emmc),
            filesystem: Some("ext4".into()),
            read_only: false,
            wear_percent: Some(20),
            reserve: Some(Reserve::Normal),
        }),
        read_only: vec!["/boot".into()],
    }
}

fn batch() -> Batch {
    let mut latency = Sketch::default();
    [80, 90, 1500].iter().for_each(|micros| latency.record(*micros));
    Batch {
        device: "edge-1".parse().unwrap(),
        boot: BootId([1; 16]),
        sequence: 9,
        from_ms: 1_700_000_000_000,
        until_ms: 1_700_000_010_000,
        host: HostSample {
            cpu_permille: 125,
            memory_used_bytes: 1 << 30,
            memory_bytes: 4 << 30,
            disk_free_bytes: Some(1 << 30),
            disk_bytes: Some(8 << 30),
            temperature_millicelsius: Some(51_500),
            strains: vec![Strain::UnderVoltage],
            on_mains: Some(true),
            battery_percent: Some(97),
        },
        models: vec![ModelSample {
            deployment: "digits".parse().unwrap(),
            model: "digits".parse().unwrap(),
            version: Version::new(2).unwrap(),
            requests: 3,
            errors: 0,
            cpu_us: 1600,
            latency,
        }],
    }
}

fn event() -> Event {
    Event {
        boot: BootId([1; 16]),
        at_ms: 1_700_000_000_000,
        kind: EventKind::ChunkDiscarded,
        deployment: Some("digits".parse().unwrap()),
        text: "chunk 3".into(),
    }
}

fn call() -> Call {
    Call {
        id: Nonce([5; 16]),
        reply_to: "cp-1".parse().unwrap(),
        deadline_ms: 5000,
        request: Request::Door(DoorRequest {
            door: Door::OpenInference,
            post: true,
            served: "digits".parse().unwrap(),
            rest: "/versions/2/infer".to_owned(),
            json_bytes: Some(2),
            body: b"{}1234".to_vec(),
        }),
    }
}

/// What version 1 could say of [`call`].
fn call_of_version_1() -> Call {
    let mut call = call();
    let Request::Door(door) = &mut call.request else { panic!("a door") };
    door.door = Door::TfServing;
    door.rest = "/versions/2:predict".to_owned();
    (door.json_bytes, door.body) = (None, b"{}".to_vec());
    call
}

fn reply(json_bytes: Option<u32>) -> Reply {
    Reply { id: Nonce([5; 16]), status: 200, version: Version::new(2), json_bytes, body: b"{}".to_vec() }
}

fn survives<M: Message + PartialEq + Debug>(message: M) {
    let bytes = encode(&message).expect("within its limit");
    assert_eq!(decode::<M>(&bytes), Ok(message));
    // One byte more, one byte less: neither is the message.
    assert!(decode::<M>(&bytes[..bytes.len() - 1]).is_err());
    let longer = [&bytes[..], &[0]].concat();
    assert!(decode::<M>(&longer).is_err());
    let mut other_version = bytes;
    other_version[0] = M::VERSION + 1;
    assert!(matches!(decode::<M>(&other_version), Err(WireError::UnknownVersion { .. })));
}

#[test]
fn every_encoding_decodes_to_itself() {
    macro_rules! check {
        ($name:literal, $value:expr) => {
            survives($value)
        };
    }
    each_message!(check);
}

/// What version 2 could say of [`desired`].
fn desired_of_version_2() -> Desired {
    let mut desired = Desired { root_version: 0, ..desired(3) };
    desired.slots.iter_mut().for_each(|slot| slot.floor = None);
    desired
}

/// What version 1 could say of [`desired`].
fn desired_of_version_1() -> Desired {
    let mut desired = desired_of_version_2();
    for slot in &mut desired.slots {
        (slot.attempt, slot.swap_in_place) = (0, false);
    }
    desired
}

/// What version 3 could say of [`reported`].
fn reported_of_version_3() -> Reported {
    let mut reported = Reported { health: Health::default(), ..reported() };
    reported.facts.hardware = Hardware::default();
    reported
}

/// What version 2 could say of [`reported`].
fn reported_of_version_2() -> Reported {
    Reported { floors: vec![], notes: vec![], ..reported_of_version_3() }
}

/// What version 1 could say of [`batch`].
fn batch_of_version_1() -> Batch {
    let mut batch = batch();
    (batch.host.strains, batch.host.on_mains, batch.host.battery_percent) = (vec![], None, None);
    batch
}

/// What version 1 could say of [`reported`].
fn reported_of_version_1() -> Reported {
    let mut reported = reported_of_version_2();
    for refusal in &mut reported.refusals {
        (refusal.attempt, refusal.memory_bytes) = (0, 0);
    }
    reported
}

fn golden(version: u8, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/v{version}/{name}.bin"))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is written is the bytes of the current version.
///
/// Run with `MUSTER_WRITE_GOLDEN=1` once for a new message or version; a file that exists is never
/// rewritten.
fn is_written_as<M: Message + PartialEq + Debug>(name: &str, message: M) {
    let path = golden(M::VERSION, name);
    if !path.exists() && std::env::var_os("MUSTER_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, encode(&message).unwrap()).unwrap();
    }
    let golden = read(&path);
    assert_eq!((golden[0], encode(&message).unwrap()), (M::VERSION, golden.clone()), "{name}");
    assert_eq!(decode(&golden), Ok(message), "{name}");
}

/// The bytes of an earlier version still say what they said.
fn was_written_as<M: Message + PartialEq + Debug>(version: u8, name: &str, message: M) {
    let golden = read(&golden(version, name));
    assert_eq!((golden[0], decode(&golden)), (version, Ok(message)), "{name}");
    for damaged in [&golden[..golden.len() - 1], &[&golden[..], &[0]].concat()] {
        assert_eq!(decode::<M>(damaged), Err(WireError::Malformed { name: M::NAME }), "{name}");
    }
}

#[test]
fn the_bytes_of_every_version_are_read_for_ever() {
    macro_rules! check {
        ($name:literal, $value:expr) => {
            is_written_as($name, $value)
        };
    }
    each_message!(check);
    was_written_as(1, "desired", desired_of_version_1());
    was_written_as(1, "reported", reported_of_version_1());
    was_written_as(1, "hello", Hello { wants_time: false, ..hello(Some(Generation { epoch: 1, number: 7 })) });
    was_written_as(2, "desired", desired_of_version_2());
    was_written_as(2, "reported", reported_of_version_2());
    was_written_as(3, "reported", reported_of_version_3());
    was_written_as(1, "telemetry", batch_of_version_1());
    was_written_as(1, "trust", TrustUpdate::Root(envelope(b"root")));
    was_written_as(1, "call", call_of_version_1());
    was_written_as(1, "reply", reply(None));
}

#[test]
fn no_golden_file_is_forgotten() {
    let mut known = std::collections::BTreeSet::new();
    macro_rules! check {
        ($name:literal, $value:expr) => {
            known.insert(golden(version_of(&$value), $name))
        };
    }
    each_message!(check);
    known.extend(["hello", "desired", "reported", "trust", "call", "reply", "telemetry"].map(|name| golden(1, name)));
    known.extend(["desired", "reported"].map(|name| golden(2, name)));
    known.insert(golden(3, "reported"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let files = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found: std::collections::BTreeSet<_> = files(&folder).flat_map(|version| files(&version)).collect();
    assert_eq!(found, known);
}

fn version_of<M: Message>(_: &M) -> u8 {
    M::VERSION
}

/// The desired state as a program sees it that was built before there was a version 2.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Version1Only;

impl Message for Version1Only {
    const NAME: &'static str = "desired state";
    const BYTES_MAX: usize = limits::DESIRED_BYTES_MAX;
}

#[test]
fn a_program_that_knows_only_version_1_says_so() {
    let error = decode::<Version1Only>(&read(&golden(2, "desired"))).unwrap_err();
    assert_eq!(error, WireError::UnknownVersion { name: "desired state", found: 2, known: 1 });
    assert_eq!(error.to_string(), "desired state: version 2; this program reads versions up to 1");
    // Version 0 was never written, also where older versions are read.
    assert!(matches!(decode::<Desired>(&[0, 1]), Err(WireError::UnknownVersion { found: 0, known: 3, .. })));
}

#[test]
fn a_full_desired_state_fits_its_limit() {
    let mut full = desired(limits::SLOTS_MAX);
    for (at, slot) in full.slots.iter_mut().enumerate() {
        slot.deployment = format!("{at:a>63}").parse().unwrap();
        slot.served_as = Some(format!("{at:b>63}").parse().unwrap());
        slot.model = "m".repeat(63).parse().unwrap();
        slot.floor = Version::new(u64::MAX);
    }
    let payload = encode(&full).expect("the payload fits");
    encode(&SignedDesired(envelope(&payload))).expect("the envelope fits");
}

#[test]
fn too_many_bytes_are_refused_unparsed() {
    let bytes = vec![1; limits::SMALL_MESSAGE_BYTES_MAX + 1];
    assert!(matches!(decode::<Hello>(&bytes), Err(WireError::TooLong { .. })));
    assert!(matches!(decode::<Hello>(&[]), Err(WireError::Empty { .. })));
}

proptest! {
    #[test]
    fn every_decode_of_arbitrary_bytes_returns(mut bytes in prop::collection::vec(any::<u8>(), 0..600), known in prop::option::of(1u8..=3)) {
        if let (Some(version), Some(first)) = (known, bytes.first_mut()) {
            *first = version;
        }
        macro_rules! check {
            ($name:literal, $value:expr) => {
                // Only the type matters; the call must return.
                let mut _typed = decode(&bytes);
                if false { _typed = Ok($value); }
            };
        }
        each_message!(check);
        let _ = Envelope::verify(&Envelope { payload_type: "t".into(), payload: bytes.clone(), signatures: vec![] }, "t", &[], 1);
        let _ = muster_shared::manifest::Manifest::parse(&bytes);
        let _ = std::str::from_utf8(&bytes).map(|text| text.parse::<muster_shared::topic::Topic>());
        let _ = std::str::from_utf8(&bytes).map(|text| text.parse::<muster_shared::claim::ClaimToken>());
    }

    #[test]
    fn a_changed_byte_decodes_to_something_or_nothing_but_returns(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        macro_rules! check {
            ($name:literal, $value:expr) => {
                let mut bytes = encode(&$value).unwrap();
                let at = at.index(bytes.len());
                bytes[at] = to;
                let mut _typed = decode(&bytes);
                if false { _typed = Ok($value); }
            };
        }
        each_message!(check);
    }

    #[test]
    fn any_hello_survives(boot in any::<[u8; 16]>(), nonce in any::<[u8; 16]>(), root_version in any::<u64>(), epoch in any::<u64>(), number in any::<u64>()) {
        let message = Hello { boot: BootId(boot), nonce: Nonce(nonce), root_version, ..hello(Some(Generation { epoch, number })) };
        prop_assert_eq!(decode(&encode(&message).unwrap()), Ok(message));
    }

    #[test]
    fn any_frame_survives(number in any::<u32>(), bytes in prop::collection::vec(any::<u8>(), 0..limits::FRAME_BYTES_MAX)) {
        let message = ChunkData::Frame { blob: Digest::of(&bytes), number, bytes };
        prop_assert_eq!(decode(&encode(&message).unwrap()), Ok(message));
    }

    #[test]
    fn a_window_never_asks_for_more_than_its_limit(first_frame in any::<u32>(), frames in any::<u64>()) {
        let get = ChunkGet { blob: Digest::of("blob"), first_frame, frames };
        prop_assert!(get.wanted().count() <= limits::WINDOW_FRAMES_MAX);
    }
}
