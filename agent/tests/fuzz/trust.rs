//! What a director or a publisher signed whose key was stolen: behind the signature, the parsers and the
//! checks. And what the device keeps of it on a disk that may be bad.

use std::sync::LazyLock;

use muster_agent::journal::{BatchRecord, ProvenRecord, RefusalsRecord};
use muster_agent::{identity, release, trust_store};
use muster_agent_core::clock;
use muster_agent_core::verify::bundle::{self, Proven, Software};
use muster_agent_core::verify::command::VerifiedCommand;
use muster_agent_core::verify::desired::{self, Verdict};
use muster_agent_core::verify::floors::Floors;
use muster_agent_core::verify::{Holding, Identity, Mark, Watermark, roots};
use muster_fuzz::{Alone, alone};
use muster_shared::command::{Command, Order};
use muster_shared::desired::{BlobRef, Desired, Resources, SignedDesired, SlotSpec};
use muster_shared::director_time::DirectorTime;
use muster_shared::floor::Floor;
use muster_shared::id::{BootId, Generation};
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, Variant, weights_digest};
use muster_shared::message::Held;
use muster_shared::reported::{BundleRef, Refusal, RefusalKind};
use muster_shared::root::{Publisher, Role, Root, TrustedRoot};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::telemetry::SignedBatch;
use muster_shared::wire::{self, Message};
use muster_shared::{Digest, Nonce, Version};

const ROOT: u8 = 1;
const DIRECTOR: u8 = 2;
const PUBLISHER: u8 = 9;
const NONCE: Nonce = Nonce([7; 16]);
/// Reading a list, serde takes room for at most so much at once on the word of its length.
const PROMISED_BYTES: usize = 2 * 1024 * 1024;
/// Each input is signed anew: of these the short form sees fewer.
const SIGNED_INPUTS: usize = 30_000;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn root() -> Root {
    let role = Role { threshold: 1, keys: vec![key(ROOT).public()] };
    Root {
        fleet: "home".parse().unwrap(),
        version: 1,
        epoch: 3,
        expires_ms: 1_000,
        root: role.clone(),
        publishers: vec![Publisher { key: key(PUBLISHER).public(), models: None }],
        directors: vec![key(DIRECTOR).public()],
        release: role,
        compromised: vec![],
    }
}

fn sign(payload_type: &str, payload: &[u8], seed: u8) -> Envelope {
    // To grow a key takes as long as to sign.
    static KEYS: LazyLock<[(u8, SecretKey); 3]> =
        LazyLock::new(|| [ROOT, DIRECTOR, PUBLISHER].map(|seed| (seed, key(seed))));
    let (_, key) = KEYS.iter().find(|(of, _)| *of == seed).unwrap();
    Envelope::sign(payload_type, payload.to_vec(), &[key])
}

fn trusted() -> TrustedRoot {
    TrustedRoot::self_signed(&sign(payload_type::ROOT, &root().to_payload(), ROOT)).unwrap()
}

fn us() -> Identity {
    Identity { device: "edge-1".parse().unwrap(), fingerprint: Digest::of("key") }
}

fn manifest() -> Manifest {
    let port = Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None] };
    Manifest {
        model: "digits".parse().unwrap(),
        version: Version::new(3).unwrap(),
        created_ms: 1,
        inputs: vec![port.clone()],
        outputs: vec![port],
        variants: vec![Variant {
            name: "fp32".parse().unwrap(),
            format: Format::Onnx,
            file: FileRef::of(b"the model"),
            graph: Digest::of("graph"),
            weights: weights_digest(&[]),
            tensors: vec![],
        }],
        golden: None,
    }
}

fn slot(deployment: &str) -> SlotSpec {
    SlotSpec {
        deployment: deployment.parse().unwrap(),
        served_as: None,
        model: "digits".parse().unwrap(),
        version: Version::new(3).unwrap(),
        manifest: Digest::of(manifest().to_payload()),
        envelope: BlobRef { sha256: Digest::of("envelope"), bytes: 1_000 },
        variant: "fp32".parse().unwrap(),
        resources: Resources { cpu_milli: 500, memory_bytes: 1 << 20 },
        probation_ms: 5,
        attempt: 1,
        swap_in_place: false,
        floor: Version::new(2),
    }
}

fn desired() -> Desired {
    Desired {
        fleet: "home".parse().unwrap(),
        device: us().device,
        fingerprint: us().fingerprint,
        generation: Generation { epoch: 3, number: 5 },
        issued_ms: 1,
        expires_ms: 500,
        nonce: Some(NONCE),
        root_version: 1,
        slots: vec![slot("one"), slot("two")],
    }
}

#[test]
fn what_a_director_signs_whose_key_was_stolen_is_believed_in_bounds_or_refused() {
    let alone = alone();
    let (us, root) = (us(), trusted());
    let holding = |held, watermark| Holding {
        identity: &us,
        root: &root,
        held,
        watermark,
        nonce: Some(NONCE),
        earlier_nonce: Some(Nonce([6; 16])),
    };
    let at = |number| Generation { epoch: 3, number };
    let before = Held { generation: at(4), digest: Digest::of("before") };
    let mark = Mark { generation: at(3), digest: None };
    let good = wire::encode(&desired()).unwrap();
    let offers = alone.parser("desired states of a director", [good]).inputs(SIGNED_INPUTS);
    offers.memory(256, PROMISED_BYTES).run(|payload| {
        let envelope = sign(payload_type::DESIRED, payload, DIRECTOR);
        // To verify takes the time: each input is offered to one of these.
        let held = [(None, Some(mark)), (Some(before), Some(mark)), (Some(before), None)];
        let (held, watermark) = held[payload.iter().fold(0, |sum, byte| sum + usize::from(*byte)) % 3];
        match desired::accept(&envelope, holding(held, watermark), 400) {
            Ok(Verdict::New(accepted)) => {
                let desired = accepted.desired();
                assert!(desired.device == us.device && desired.fingerprint == us.fingerprint);
                assert!(desired.expires_ms > 400 && desired.slots_are_sound());
                assert!(watermark.is_none() || desired.generation > at(3));
                assert!(held.is_none() || desired.generation > at(4));
                let _ = accepted.may_begin(&root, 450);
                desired.slots.iter().for_each(|slot| drop(bundle::declared_length(slot)));
                assert!(desired::recall(&envelope, holding(None, None)).is_ok());
            }
            Ok(Verdict::Repeat) => assert!(held.is_some()),
            Err(error) => drop(error.to_string()),
        }
        wire::decode::<Desired>(payload).is_ok()
    });
    let id = Nonce([1; 16]);
    let command = Command {
        fleet: "home".parse().unwrap(),
        device: us.device.clone(),
        fingerprint: us.fingerprint,
        id,
        nonce: NONCE,
        issued_ms: 0,
        order: Order::Diagnose,
    };
    alone
        .parser("commands of a director", [wire::encode(&command).unwrap()])
        .inputs(SIGNED_INPUTS)
        .past_permille_min(1)
        .run(|payload| {
            let envelope = sign(payload_type::COMMAND, payload, DIRECTOR);
            VerifiedCommand::verify(&envelope, holding(None, None), id).is_ok_and(|command| {
                // Both are a director's to give, and there are no others.
                assert!(matches!(command.order(), Order::Diagnose | Order::Decommission));
                true
            })
        });
    let time = DirectorTime {
        fleet: "home".parse().unwrap(),
        device: us.device.clone(),
        fingerprint: us.fingerprint,
        nonce: NONCE,
        now_ms: 1_780_000_000_000,
    };
    alone.parser("times of a director", [wire::encode(&time).unwrap()]).inputs(SIGNED_INPUTS).run(|payload| {
        let envelope = sign(payload_type::TIME, payload, DIRECTOR);
        let Ok(now_ms) = clock::told(&envelope, &us, &root, Some(NONCE)) else { return false };
        let mut clock = clock::Clock::new(1_000, 5_000);
        let _ = clock.confirm(now_ms, 6_000);
        let _ = (clock.wall(u64::MAX), clock.describe(7_000), clock.note(u64::MAX), clock::utc(now_ms));
        true
    });
}

#[test]
fn what_a_publisher_or_a_root_key_signs_that_was_stolen_is_believed_in_bounds_or_refused() {
    let alone = alone();
    let root_held = trusted();
    let next = Root { version: 2, ..root() }.to_payload();
    alone.parser("roots offered to a device", [next]).inputs(SIGNED_INPUTS).past_permille_min(1).run(|payload| {
        let envelope = sign(payload_type::ROOT, payload, ROOT);
        let newer = roots::not_older(root_held.clone(), Some(&envelope));
        assert!(newer.root().version >= 1);
        let Ok(roots::Offered::Next(next)) = roots::offered(&root_held, &envelope) else { return false };
        let _ = roots::standing(&next, &"digits".parse().unwrap(), &[key(PUBLISHER).public().id()]);
        true
    });
    let floor = |version| Floor {
        fleet: "home".parse().unwrap(),
        model: "digits".parse().unwrap(),
        version: Version::new(version).unwrap(),
        issued_ms: 5,
    };
    let mut floors = Floors::default();
    alone.parser("floors offered to a device", [floor(2).to_payload()]).inputs(SIGNED_INPUTS).run(|payload| {
        let envelope = sign(payload_type::FLOOR, payload, PUBLISHER);
        let taken = floors.offered(&envelope, &root_held).is_ok();
        // A stolen key may name models without end.
        assert!(floors.all().count() <= muster_shared::limits::FLOORS_MAX);
        let _ = floors.forbid(&"digits".parse().unwrap(), Version::new(3).unwrap());
        taken
    });
    let software = Software { formats: vec![Format::Onnx], dtypes: vec![Dtype::F32] };
    alone.parser("manifests of a bundle", [manifest().to_payload()]).inputs(SIGNED_INPUTS).run(|payload| {
        let envelope = sign(payload_type::MANIFEST, payload, PUBLISHER);
        // The director, too, is in the attacker's hands: it names what the publisher's key signed.
        let slot = SlotSpec { manifest: Digest::of(payload), ..slot("one") };
        let bytes = envelope.to_json();
        let _ = bundle::recall_manifest(bytes.as_bytes(), &slot);
        let Ok(verified) = bundle::read_manifest(bytes.as_bytes(), &slot, &root_held, &software) else { return false };
        let _ = bundle::files(verified.manifest(), &slot);
        true
    });
}

/// A record of the journal: the decoder behind the file.
fn record<M: Message>(alone: &Alone, name: &'static str, good: &M) {
    let records = alone.parser(name, [wire::encode(good).unwrap()]).inputs(100_000).memory(256, PROMISED_BYTES);
    records.run(|bytes| {
        let Ok(read) = wire::decode::<M>(bytes) else { return false };
        let _ = wire::encode(&read);
        true
    });
}

#[test]
fn records_of_a_journal_on_a_bad_disk_are_read_or_refused() {
    let alone = alone();
    let signers = vec![key(PUBLISHER).public().id()];
    record(
        &alone,
        "journal: proven version",
        &ProvenRecord(Proven { spec: slot("one"), signers, files: [(Digest::of("model"), 9)].into() }),
    );
    let bundle =
        BundleRef { model: "digits".parse().unwrap(), version: Version::new(3).unwrap(), manifest: Digest::of("m") };
    let refusal = Refusal {
        bundle,
        agent: "0.1.0".into(),
        attempt: 1,
        memory_bytes: 5,
        kind: RefusalKind::CannotLoad,
        reason: "no".into(),
        at_ms: 3,
    };
    record(&alone, "journal: refusals", &RefusalsRecord(vec![refusal.clone(), refusal]));
    let batch = SignedBatch(sign(payload_type::TELEMETRY, b"batch", ROOT));
    record(&alone, "journal: batch", &BatchRecord { boot: BootId([1; 16]), sequence: 4, batch });
    record(&alone, "journal: desired state", &SignedDesired(sign(payload_type::DESIRED, b"desired", DIRECTOR)));
    let root = sign(payload_type::ROOT, &root().to_payload(), ROOT).to_json();
    let list = format!("[{root},{root}]");
    let files = alone.parser("a file of roots", [root.clone(), list]).inputs(100_000);
    files.run(|bytes| release::roots_of(bytes).is_ok());
    alone
        .parser("journal: roots", [root])
        .inputs(100_000)
        .run(|bytes| std::str::from_utf8(bytes).is_ok_and(|text| Envelope::from_json(text).is_ok()));
}

#[test]
fn what_is_kept_beside_the_key_is_read_or_refused() {
    let alone = alone();
    let root = trusted();
    let floor = Floor {
        fleet: "home".parse().unwrap(),
        model: "digits".parse().unwrap(),
        version: Version::new(2).unwrap(),
        issued_ms: 5,
    };
    let good = Watermark {
        desired: Some(Mark { generation: Generation { epoch: 3, number: 5 }, digest: Some(Digest::of("d")) }),
        root: Some(sign(payload_type::ROOT, &Root { version: 2, ..self::root() }.to_payload(), ROOT)),
        floors: vec![sign(payload_type::FLOOR, &floor.to_payload(), PUBLISHER)],
        seen: [("digits".parse().unwrap(), Version::new(3).unwrap())].into(),
    };
    alone.parser("watermark.json", [serde_json::to_vec(&good).unwrap()]).inputs(SIGNED_INPUTS).run(|bytes| {
        let Ok(kept) = serde_json::from_slice::<Watermark>(bytes) else { return false };
        let newest = roots::not_older(root.clone(), kept.root.as_ref());
        let floors = Floors::restored(&kept, &newest);
        // Only what a publisher signed is a floor; a bad disk makes none.
        assert!(floors.all().all(|known| known.model == floor.model && known.version == floor.version));
        true
    });
    alone.parser("agent.json", [r#"{"version":"0.10.0-rc.1"}"#]).inputs(100_000).run(|bytes| {
        let Ok(version) = release::highest_in(bytes) else { return false };
        assert_eq!(version.to_string().parse(), Ok(version));
        true
    });
    alone.parser("clock.json", [r#"{"bound_ms":1780000000000}"#]).inputs(100_000).run(|bytes| {
        let Ok(kept) = serde_json::from_slice::<identity::KeptBound>(bytes) else { return false };
        let clock = clock::Clock::new(kept.bound_ms, 5_000);
        let _ = (clock.wall(u64::MAX), clock.describe(6_000), clock.note(6_000));
        true
    });
    alone.parser("answers of a counter", ["3 5\n", "0 0"]).inputs(100_000).run(|bytes| {
        let Some(held) = std::str::from_utf8(bytes).ok().and_then(trust_store::parse) else { return false };
        trust_store::parse(&format!("{} {}", held.epoch, held.number)) == Some(held)
    });
}

/// The kernel is believed, but its words must not end the agent.
#[test]
fn what_the_kernel_tells_is_read_or_passed_over() {
    use muster_agent::worker::cgroup::{path_in, tells_of_a_kill};
    use muster_agent::worker::sandbox::status_figure;
    let alone = alone();
    let own = ["4:memory:/old\n0::/system.slice/muster.service\n", "0::/user.slice/agent\n"];
    alone.parser("own control group", own).inputs(100_000).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some(path) = path_in(&text) else { return false };
        let mount = std::path::Path::new("/sys/fs/cgroup");
        assert!(mount.join(path).starts_with(mount) && !path.components().any(|part| part.as_os_str() == ".."));
        true
    });
    let events = ["low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n"];
    alone
        .parser("events of a control group", events)
        .inputs(100_000)
        .run(|bytes| tells_of_a_kill(&String::from_utf8_lossy(bytes)));
    let status = ["Name:\tmuster-agent\nVmHWM:\t   12345 kB\nVmData:\t     678 kB\nThreads:\t1\n"];
    alone.parser("status of a process", status).inputs(100_000).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        status_figure(&text, "VmHWM").is_some() && status_figure(&text, "VmData").is_some()
    });
}

/// Real folders, since the names come from one: so of these there are fewer.
#[test]
fn names_in_a_folder_of_models_are_versions_or_passed_over() {
    use muster_agent::serve::args::Place;
    use muster_agent::serve::folder;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let alone = alone();
    let names = alone.parser("names of a model's folders", ["1", "12", "18446744073709551615"]).inputs(2_000);
    names.long_inputs(50_000).run(|bytes| {
        let usable = !bytes.is_empty() && bytes.len() < 200 && !bytes.contains(&0) && !bytes.contains(&b'/');
        if !usable || bytes == b"." || bytes == b".." {
            return false;
        }
        let folder = tempfile::tempdir().unwrap();
        let version = folder.path().join(OsStr::from_bytes(bytes));
        std::fs::create_dir(&version).unwrap();
        std::fs::write(version.join("model.onnx"), b"x").unwrap();
        let found = folder::versions(&Place::Folder(folder.path().to_owned()));
        found.is_ok_and(|versions| {
            versions.values().all(|source| source.file.starts_with(folder.path().canonicalize().unwrap()))
        })
    });
}
