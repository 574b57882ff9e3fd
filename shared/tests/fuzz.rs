//! Everything in this crate that reads bytes from outside, on inputs that are nearly good: see
//! [`muster_fuzz`]. Whether a message's first step was passed is whether it was read, or at least whether its
//! envelope was.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use muster_fuzz::{Alone, Parser, PeakAlloc, alone};
use muster_shared::chunk::{ChunkIndex, frame_count, frame_range};
use muster_shared::claim::ClaimToken;
use muster_shared::command::{Command, Emptied, SignedEmptied};
use muster_shared::desired::{Desired, SignedDesired};
use muster_shared::director_time::DirectorTime;
use muster_shared::door::{oip, tfs::TfsRequest};
use muster_shared::floor::{Floor, VerifiedFloor};
use muster_shared::golden::Golden;
use muster_shared::id::{DeploymentName, DeviceId, LabelText, ModelName, Target};
use muster_shared::limits::CHUNK_BYTES;
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, TensorDigest, Variant, VerifiedManifest};
use muster_shared::message::{Call, ChunkData, ChunkGet, Event, Hello, Renewal, Reply, TrustUpdate};
use muster_shared::quantity::{Bytes, CountOrPercent, MilliCpu, Millis};
use muster_shared::release::{
    Artifact, ArtifactKind, Asked, FileFound, Release, ReleaseVersion, VerifiedRelease, judge,
};
use muster_shared::reported::{Reported, SignedReported};
use muster_shared::root::{Publisher, Role, Root, TrustedRoot};
use muster_shared::signing::device::DevicePublicKey;
use muster_shared::signing::key::{PublicKey, SecretKey};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::telemetry::{Ack, Batch, SignedBatch};
use muster_shared::topic::Topic;
use muster_shared::tunnel::{SignedTunnelProof, TunnelChallenge, TunnelProof};
use muster_shared::wire::{Message, decode, encode};
use muster_shared::{Digest, Version};

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// Of cheap parsers the short form sees more.
const CHEAP_INPUTS: usize = 200_000;
/// Reading a list, serde takes room for at most so much at once on the word of its length.
const PROMISED_BYTES: usize = 2 * 1024 * 1024;

/// The bytes that every version had, for a message.
fn goldens(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let paths = ["v1", "v2", "v3", "v4"].iter().flat_map(|version| {
        names.iter().map(|name| folder.join(version).join(format!("{name}.bin"))).collect::<Vec<_>>()
    });
    let found: Vec<_> = paths.filter_map(|path| std::fs::read(path).ok()).collect();
    assert!(!found.is_empty(), "{names:?}");
    found
}

fn wire<M: Message + PartialEq + std::fmt::Debug>(alone: &Alone, name: &'static str, files: &[&str]) {
    alone.parser(name, goldens(files)).inputs(CHEAP_INPUTS).memory(256, PROMISED_BYTES).run(|bytes| {
        let Ok(message) = decode::<M>(bytes) else { return false };
        // What was read can be written, unless it is longer in today's version, and is the same again.
        if let Ok(written) = encode(&message) {
            let again = decode::<M>(&written).unwrap();
            assert!(again == message || encode(&again).unwrap() == written);
        }
        true
    });
}

#[test]
fn every_wire_message_of_every_version_is_read_or_refused() {
    let alone = alone();
    wire::<Hello>(&alone, "wire: hello", &["hello"]);
    wire::<TrustUpdate>(&alone, "wire: trust", &["trust", "trust-floor", "trust-time"]);
    wire::<DirectorTime>(&alone, "wire: time", &["time"]);
    wire::<Command>(&alone, "wire: command", &["command", "command-decommission"]);
    wire::<Emptied>(&alone, "wire: emptied", &["emptied"]);
    wire::<SignedEmptied>(&alone, "wire: signed emptied", &["emptied-signed"]);
    wire::<Desired>(&alone, "wire: desired", &["desired"]);
    wire::<SignedDesired>(&alone, "wire: signed desired", &["desired-signed"]);
    wire::<Reported>(&alone, "wire: reported", &["reported"]);
    wire::<SignedReported>(&alone, "wire: signed reported", &["reported-signed"]);
    wire::<Batch>(&alone, "wire: telemetry", &["telemetry"]);
    wire::<SignedBatch>(&alone, "wire: signed telemetry", &["telemetry-signed"]);
    wire::<Ack>(&alone, "wire: telemetry acknowledgement", &["telemetry-ack"]);
    wire::<ChunkGet>(&alone, "wire: chunk get", &["chunk-get"]);
    wire::<ChunkData>(&alone, "wire: chunk data", &["chunk-data", "chunk-unavailable"]);
    wire::<Event>(&alone, "wire: event", &["event"]);
    wire::<Call>(&alone, "wire: call", &["call", "call-command"]);
    wire::<Reply>(&alone, "wire: reply", &["reply"]);
    wire::<Renewal>(&alone, "wire: renewal", &["renewal"]);
    wire::<TunnelChallenge>(&alone, "wire: tunnel challenge", &["tunnel-challenge"]);
    wire::<TunnelProof>(&alone, "wire: tunnel proof", &["tunnel-proof"]);
    wire::<SignedTunnelProof>(&alone, "wire: signed tunnel proof", &["tunnel-proof-signed"]);
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn root() -> Root {
    let role = |seed: u8| Role { threshold: 1, keys: vec![key(seed).public()] };
    Root {
        fleet: "home".parse().unwrap(),
        version: 1,
        epoch: 1,
        expires_ms: 10,
        root: role(1),
        publishers: vec![
            Publisher { key: key(10).public(), models: None },
            Publisher { key: key(11).public(), models: Some(vec!["digits".parse().unwrap()]) },
        ],
        directors: vec![key(20).public()],
        release: role(30),
        compromised: vec![key(12).public().id()],
    }
}

fn trusted() -> TrustedRoot {
    TrustedRoot::self_signed(&Envelope::sign(payload_type::ROOT, root().to_payload(), &[&key(1)])).unwrap()
}

fn manifest() -> Manifest {
    let tensors = vec![TensorDigest { name: "w".into(), sha256: Digest::of("w") }];
    Manifest {
        model: "digits".parse().unwrap(),
        version: Version::new(1).unwrap(),
        created_ms: 1_700_000_000_000,
        inputs: vec![Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None, Some(64)] }],
        outputs: vec![Port { name: "y".into(), dtype: Dtype::F32, shape: vec![None, Some(10)] }],
        variants: vec![Variant {
            name: "fp32".parse().unwrap(),
            format: Format::Onnx,
            file: FileRef::of(b"model"),
            graph: Digest::of("graph"),
            weights: muster_shared::manifest::weights_digest(&tensors),
            tensors,
        }],
        golden: Some(FileRef::of(b"golden")),
    }
}

/// Payloads that a key signed whose owner is the attacker: the parser behind the signature.
fn signed(alone: &Alone, name: &'static str, payload: Vec<u8>) -> Parser {
    alone.parser(name, [payload]).inputs(20_000)
}

#[test]
fn what_an_attacker_signed_with_a_stolen_key_is_read_or_refused() {
    let alone = alone();
    let (held, root_key, publisher) = (trusted(), key(1), key(10));
    signed(&alone, "signed root", Root { version: 2, ..root() }.to_payload()).run(|payload| {
        let envelope = Envelope::sign(payload_type::ROOT, payload.to_vec(), &[&root_key]);
        let _ = TrustedRoot::pinned(&envelope, held.digest());
        let Ok(next) = TrustedRoot::self_signed(&envelope) else { return false };
        if let Ok(followed) = held.follow(&envelope) {
            assert_eq!((followed.root().version, &followed.root().fleet), (2, &held.root().fleet));
        }
        let _ = (next.publishers(), next.directors(), next.publishers_of(&"digits".parse().unwrap()));
        true
    });
    signed(&alone, "signed manifest", manifest().to_payload()).run(|payload| {
        let envelope = Envelope::sign(payload_type::MANIFEST, payload.to_vec(), &[&publisher]);
        let Ok(verified) = VerifiedManifest::verify(&envelope, &held) else { return false };
        let manifest = verified.manifest();
        assert!(manifest.files().all(|file| file.bytes > 0));
        muster_shared::manifest::weights_change(&manifest.variants[0], &manifest.variants[manifest.variants.len() - 1]);
        true
    });
    let floor = Floor {
        fleet: "home".parse().unwrap(),
        model: "digits".parse().unwrap(),
        version: Version::new(3).unwrap(),
        issued_ms: 5,
    };
    signed(&alone, "signed floor", floor.to_payload()).run(|payload| {
        let envelope = Envelope::sign(payload_type::FLOOR, payload.to_vec(), &[&publisher]);
        VerifiedFloor::verify(&envelope, &held).is_ok()
    });
    let signer = key(30);
    signed(&alone, "signed release", release().to_payload()).run(|payload| {
        let envelope = Envelope::sign(payload_type::RELEASE, payload.to_vec(), &[&signer]);
        let Ok(verified) = VerifiedRelease::verify(&envelope, &held) else { return false };
        let (older, target) = ("0.0.1".parse().unwrap(), "x86_64-unknown-linux-gnu".parse().unwrap());
        for artifact in &verified.release().artifacts {
            // It stands in paths and in a shell's line.
            assert!(!artifact.name.as_str().contains(['/', ' ', '\'', '"', '$', '`', '\\']));
            let file = Some(FileFound { bytes: artifact.bytes, sha256: artifact.sha256 });
            let kind = artifact.kind;
            let asked = Asked { now_ms: 5, installed: Some(&older), target: &target, kind, file };
            let _ = judge(&verified, &held, &asked).map_err(|error| error.to_string());
        }
        true
    });
}

fn release() -> Release {
    let artifact = |target: &str, kind, name: &str| Artifact {
        target: target.parse().unwrap(),
        kind,
        name: name.parse().unwrap(),
        bytes: 7,
        sha256: Digest::of(name),
    };
    let artifacts = vec![
        artifact("x86_64-unknown-linux-gnu", ArtifactKind::Package, "muster-agent_0.2.0_amd64.deb"),
        artifact("aarch64-unknown-linux-gnu", ArtifactKind::Agent, "muster-agent-aarch64"),
    ];
    Release { version: "0.2.0".parse().unwrap(), issued_ms: 5, artifacts }
}

#[test]
fn releases_as_files_are_read_or_refused_and_prove_nothing_once_changed() {
    let alone = alone();
    let (held, good) = (trusted(), Envelope::sign(payload_type::RELEASE, release().to_payload(), &[&key(30)]));
    alone.parser("release file", [good.to_json()]).run(|bytes| {
        let Ok(envelope) = Release::envelope(bytes) else { return false };
        if let Ok(verified) = VerifiedRelease::verify(&envelope, &held) {
            assert_eq!(verified.release(), &release(), "another release was taken for the signed one");
        }
        true
    });
    text::<ReleaseVersion>(&alone, "release version", &["0.2.0", "1.10.3-rc.1"]);
    text::<Target>(&alone, "target", &["aarch64-unknown-linux-gnu"]);
}

#[test]
fn envelopes_as_json_are_read_or_refused_and_prove_nothing_once_changed() {
    let alone = alone();
    let held = trusted();
    let good = Envelope::sign(payload_type::MANIFEST, manifest().to_payload(), &[&key(10)]);
    alone.parser("envelope JSON", [good.to_json()]).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(envelope) = Envelope::from_json(text) else { return false };
        if let Ok(verified) = VerifiedManifest::verify(&envelope, &held) {
            assert_eq!(verified.manifest(), &manifest(), "another manifest was taken for the signed one");
        }
        true
    });
}

#[test]
fn manifests_at_hand_and_golden_vectors_are_read_or_refused() {
    let alone = alone();
    alone.parser("manifest", [manifest().to_payload()]).run(|bytes| Manifest::parse(bytes).is_ok());
    let golden = br#"{"cases": [{"inputs": {"x": [[1.0, 2.0]]}, "outputs": {"y": [[3.0]]}}],
        "tolerance": {"absolute": 1e-4, "relative": 1e-4}}"#;
    alone.parser("golden vectors", [&golden[..]]).run(|bytes| Golden::parse(bytes).is_ok());
}

#[test]
fn chunk_indexes_of_any_length_are_read_or_refused() {
    let alone = alone();
    let file = vec![7; 5 * CHUNK_BYTES / 2];
    let good = ChunkIndex::of(&file).to_bytes();
    alone.parser("chunk index", [good]).inputs(CHEAP_INPUTS).run(|bytes| {
        // Its digest may stand in a manifest that a stolen publisher's key signed.
        let lengths = [0, 1, CHUNK_BYTES as u64 * (bytes.len() as u64 / 32), u64::MAX];
        let mut read = false;
        for length in lengths {
            let _ = (frame_count(length), frame_range(length, u32::MAX));
            if let Ok(index) = ChunkIndex::verify(bytes, Digest::of(bytes), length) {
                assert_eq!(index.to_bytes(), bytes);
                read |= !index.is_empty();
            }
        }
        read
    });
}

/// A text is read or refused, and reads as it prints.
fn text<T: std::str::FromStr + std::fmt::Display>(alone: &Alone, name: &'static str, good: &[&str]) {
    alone.parser(name, good.iter().map(|text| text.as_bytes())).inputs(CHEAP_INPUTS).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(read) = text.parse::<T>() else { return false };
        assert!(read.to_string().parse::<T>().is_ok(), "{read} does not read as it prints");
        true
    });
}

#[test]
fn ids_topics_amounts_keys_and_tokens_are_read_or_refused() {
    let alone = alone();
    text::<DeviceId>(&alone, "device id", &["edge-1"]);
    text::<ModelName>(&alone, "model name", &["digits_V2"]);
    text::<DeploymentName>(&alone, "deployment name", &["digits"]);
    text::<LabelText>(&alone, "label", &["site/a.b_c"]);
    text::<Version>(&alone, "version", &["1", "18446744073709551615"]);
    text::<Digest>(&alone, "digest", &[&Digest::of("x").to_string()]);
    text::<PublicKey>(&alone, "public key", &[&key(1).public().to_string()]);
    text::<Topic>(
        &alone,
        "topic",
        &["muster/v1/edge-1/desired", "muster/v1/edge-1/reply/cp-1", "muster/v1/e/chunk/get"],
    );
    text::<MilliCpu>(&alone, "amount of CPU", &["500m", "2"]);
    text::<Bytes>(&alone, "amount of memory", &["64Mi", "1Gi", "500M", "4096"]);
    text::<Millis>(&alone, "duration", &["250ms", "60s", "7d"]);
    text::<CountOrPercent>(&alone, "number or share", &["3", "25%"]);
    let token = ClaimToken {
        id: [1; 8],
        secret: [2; 16],
        root: Digest::of("root"),
        ca: Digest::of("ca"),
        issued_ms: 1_700_000_000_000,
    };
    text::<ClaimToken>(&alone, "claim token", &[&token.to_string()]);
    alone.parser("secret key PEM", [key(1).to_pem().unwrap().as_bytes()]).past_permille_min(0).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        SecretKey::from_pem(&text).is_ok()
    });
}

#[test]
fn public_keys_and_signatures_of_any_bytes_are_read_or_refused() {
    let alone = alone();
    let signed = key(1).sign(b"text");
    let both: Vec<u8> = [&hex::decode(key(1).public().to_string()).unwrap()[..], &signed].concat();
    alone.parser("Ed25519 key and signature", [both.clone()]).run(|bytes| {
        let Some((first, signature)) = bytes.split_first_chunk::<32>() else { return false };
        let good = PublicKey::from_bytes(*first).verify(b"text", signature);
        assert!(!good || bytes == both, "another signature was taken");
        true
    });
    let point = hex::decode(concat!(
        "3059301306072a8648ce3d020106082a8648ce3d030107034200",
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e16",
        "2bce33576b315ececbb6406837bf51f5"
    ));
    alone.parser("device key", [point.unwrap()]).past_permille_min(100).run(|bytes| {
        let Ok(key) = DevicePublicKey::from_spki(bytes) else { return false };
        assert!(!key.verify(b"text", bytes));
        true
    });
}

#[test]
fn paths_of_the_doors_are_read_or_refused() {
    let alone = alone();
    let tfs = ["/v1/models/m:predict", "/v1/models/m/versions/3:classify", "/v1/models/m%20x/labels/stable/metadata"];
    alone.parser("TF Serving path", tfs).inputs(CHEAP_INPUTS).run(|bytes| {
        let Ok(path) = std::str::from_utf8(bytes) else { return false };
        let read = ["GET", "POST", "HEAD"].map(|method| TfsRequest::parse(method, path));
        for request in read.iter().flatten() {
            let _ = request.not_served().body();
        }
        read.iter().any(Result::is_ok)
    });
    let oip = ["/v2/models/m/versions/3/infer", "/v2/repository/index", "/v2/models/m/stats", "/v2/health/ready"];
    alone.parser("Open Inference path", oip).inputs(CHEAP_INPUTS).run(|bytes| {
        let Ok(path) = std::str::from_utf8(bytes) else { return false };
        let _ = oip::is_ours(path);
        ["GET", "POST"].iter().any(|method| oip::parse(method, path).is_ok())
    });
}
