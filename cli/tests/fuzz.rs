//! Everything in the command line that reads bytes from outside, on inputs that are nearly good: files that
//! somebody sent, and the answers of a control plane that may be in an attacker's hands. See
//! [`muster_fuzz`].

#![allow(clippy::unwrap_used)]

use std::path::Path;

use muster_cli::commands::claim::factory;
use muster_cli::commands::{explain, plan};
use muster_cli::context::Contexts;
use muster_cli::keys::{file as key_file, passphrase::Unlock, uri::Uri};
use muster_cli::{bundle, golden, onnx, resources, trust, url, yaml};
use muster_fuzz::{PeakAlloc, alone};
use muster_shared::Digest;
use muster_shared::api::deployment::Deployment;
use muster_shared::api::fleet::DeviceView;
use muster_shared::api::members::FactoryView;
use muster_shared::api::plan::{DeploymentExplained, DeviceExplained, PlanView};
use muster_shared::api::{Claim, Info, Problem};
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, TensorDigest, Variant, weights_digest};
use muster_shared::root::{Role, Root};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use pkcs8::der::pem::PemLabel as _;
use serde::de::DeserializeOwned;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// A bundle's manifest may say that it is so long, and room is made for it at once; and for a chunk.
const BUNDLE_BYTES: usize = 2 * 1024 * 1024;
/// Of a model everything is decoded before anything is looked at.
const MODEL_PER_BYTE: usize = 1024;
/// Opening a key may take the memory that its bound says.
const OPEN_KEY_BYTES: usize = (1 << 30) + 256 * 1024;
/// Of YAML, too; its aliases and its depth have bounds of their reader's.
const YAML_PER_BYTE: usize = 4 * 1024;

fn manifest(model: &[u8], golden: &[u8]) -> Manifest {
    let tensors = vec![TensorDigest { name: "w".into(), sha256: Digest::of("w") }];
    let port = |name: &str| Port { name: name.into(), dtype: Dtype::F32, shape: vec![None] };
    Manifest {
        model: "digits".parse().unwrap(),
        version: "1".parse().unwrap(),
        created_ms: 1_700_000_000_000,
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        variants: vec![Variant {
            name: "fp32".parse().unwrap(),
            format: Format::Onnx,
            file: FileRef::of(model),
            graph: Digest::of("f"),
            weights: weights_digest(&tensors),
            tensors,
        }],
        golden: Some(FileRef::of(golden)),
    }
}

#[test]
fn bundles_are_read_or_refused() {
    let alone = alone();
    let key = SecretKey::from_seed([9; 32]);
    let (model, vectors) = (&b"a model"[..], &b"golden"[..]);
    let manifest = manifest(model, vectors);
    let sign = |payload: Vec<u8>| Envelope::sign(payload_type::MANIFEST, payload, &[&key]);
    let mut good = vec![];
    bundle::write(&mut good, &sign(manifest.to_payload()), &[model, vectors]).unwrap();
    // The envelope's key and signature are looked at elsewhere, so most changes to them pass here.
    alone
        .parser("bundles", [good])
        .past_permille_min(1)
        .memory(256, BUNDLE_BYTES)
        .run(|bytes| bundle::Bundle::read(bytes).is_ok());
    // The manifest behind a header that fits.
    alone.parser("manifests in bundles", [manifest.to_payload()]).inputs(10_000).memory(512, BUNDLE_BYTES).run(
        |payload| {
            let mut file = vec![];
            bundle::write(&mut file, &sign(payload.to_vec()), &[model, vectors]).unwrap();
            match bundle::Bundle::read(file.as_slice()) {
                Ok(read) => read.files.len() == 2,
                Err(error) => !matches!(error, bundle::BundleError::Manifest(_)),
            }
        },
    );
}

fn model_file(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn models_are_read_or_refused() {
    let alone = alone();
    let files = ["linear_regression/v1/model.onnx", "shapes/add_sub.onnx", "shapes/identity_fp32.onnx"];
    let files = files.map(model_file);
    alone.parser("ONNX models", files).memory(MODEL_PER_BYTE, 1 << 20).run(|bytes| {
        let Ok(model) = onnx::Model::read(bytes.to_vec()) else { return false };
        model.inputs.iter().chain(&model.outputs).for_each(|port| drop(onnx::describe(port)));
        true
    });
    // The same parser with a longer sample, of which each takes ten times as long: so of these there are fewer.
    let digits = [model_file("digits/v1/model.onnx")];
    alone
        .parser("larger ONNX models", digits)
        .inputs(5_000)
        .long_inputs(200_000)
        .memory(MODEL_PER_BYTE, 1 << 20)
        .run(|bytes| onnx::Model::read(bytes.to_vec()).is_ok());
    let ports = [Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None, Some(2)] }];
    let vectors = r#"{"cases": [{"inputs": {"x": [[1.0, 2.0]]}, "outputs": {"x": [[3, 4]]}}]}"#;
    alone.parser("golden vectors to be packed", [vectors]).run(|bytes| golden::check(bytes, &ports, &ports).is_ok());
}

const DEPLOYMENT: &str = "\
apiVersion: muster.dev/v1
kind: Deployment
metadata: { name: digits, labels: { team: vision } }
spec:
  model: digits
  version: 7
  resources: { cpu: 500m, memory: 64Mi }
  rollout: { probation: 5s }
";

#[test]
fn documents_of_people_are_read_or_refused() {
    let alone = alone();
    let two = format!("---\n{DEPLOYMENT}---\n{}", DEPLOYMENT.replace("name: digits", "name: other"));
    alone.parser("YAML", [DEPLOYMENT.to_owned(), two]).memory(YAML_PER_BYTE, 4 << 20).run(|bytes| {
        std::str::from_utf8(bytes).is_ok_and(|text| yaml::deployments_in(text, "deployment.yaml", "apply").is_ok())
    });
    let digest = Digest::of("ca");
    let contexts = format!(
        "current = \"home\"\n[contexts.home]\nurl = \"https://plane:8443\"\nca_fingerprint = \"{digest}\"\n\
         token = \"t\"\nfleet = \"home\"\nroot = {{ version = 1, digest = \"{digest}\" }}\n"
    );
    alone.parser("contexts.toml", [contexts]).memory(1024, 512 * 1024).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(contexts) = toml::from_str::<Contexts>(text) else { return false };
        let _ = contexts.choose(None);
        true
    });
    alone.parser("addresses", ["https://plane:8443", "http://127.0.0.1:80", "http://[::1]:1/"]).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        url::parse(text).is_ok_and(|url| url::parse(&url::origin(&url)).is_ok())
    });
    let uris = ["pkcs11:token=My%20token;object=publisher;id=%01%ff;type=private?module-path=/p.so&pin-source=/pin"];
    alone.parser("PKCS#11 URIs", uris).inputs(100_000).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(uri) = text.parse::<Uri>() else { return false };
        assert!(uri.object.is_some() || uri.id.is_some());
        true
    });
    let csv = format!("fingerprint,name,labels\n{digest},edge-1,site=north rack=7\n\n# a word\n{digest}\n");
    let json = format!(r#"[{{"fingerprint":"{digest}","name":"edge-1","labels":{{"site":"north"}}}}]"#);
    alone.parser("factory lists", [csv, json]).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        factory::parse(text, Path::new("list")).is_ok_and(|keys| !keys.is_empty())
    });
}

/// A key with a passphrase, which is quickly opened.
fn encrypted_key() -> String {
    use pkcs8::der::Decode as _;
    use pkcs8::pkcs5::{pbes2, scrypt};
    let plain = SecretKey::from_seed([1; 32]).to_pem().unwrap();
    let (_, plain) = pkcs8::SecretDocument::from_pem(&plain).unwrap();
    let plain = pkcs8::PrivateKeyInfoRef::from_der(plain.as_bytes()).unwrap();
    let small = scrypt::Params::new(1, 1, 1).unwrap();
    let parameters = pbes2::Parameters::generate_scrypt_aes256cbc(small, b"saltsalt", [7; 16]).unwrap();
    let encrypted = plain.encrypt_with_params(parameters, "horse").unwrap();
    let label = pkcs8::EncryptedPrivateKeyInfoRef::PEM_LABEL;
    encrypted.to_pem(label, pkcs8::LineEnding::LF).unwrap().to_string()
}

#[test]
fn key_files_are_read_or_refused() {
    let alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let key = SecretKey::from_seed([1; 32]).to_pem().unwrap();
    // The parser of plain keys is shown its million in `shared/tests/fuzz.rs`.
    let (path, locked) = (folder.path().join("root.pem"), folder.path().join("locked.pem"));
    let files = alone.parser("key files", [key.as_bytes()]).inputs(3_000).long_inputs(50_000);
    files.past_permille_min(0).run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        key_file::read(&path, &Unlock::default()).is_ok()
    });
    let encrypted = encrypted_key();
    alone
        .parser("keys with a passphrase", [encrypted.clone()])
        .past_permille_min(0)
        .run(|bytes| std::str::from_utf8(bytes).is_ok_and(|text| key_file::encrypted_document(text).is_ok()));
    // Its base64 changes as a whole: the numbers in it are changed before.
    let (_, der) = pkcs8::SecretDocument::from_pem(&encrypted).unwrap();
    alone.parser("keys with a passphrase, DER", [der.as_bytes()]).past_permille_min(0).run(|bytes| {
        let pem = pem_of(bytes);
        key_file::encrypted_document(&pem).is_ok()
    });
    // To open one takes as much time and memory as it says, within the bounds: so of these there are fewer.
    let passphrase = folder.path().join("passphrase");
    std::fs::write(&passphrase, "horse\n").unwrap();
    let unlock = Unlock::from_file(passphrase);
    let opened = alone.parser("keys opened with their passphrase", [der.as_bytes()]).inputs(500).long_inputs(20_000);
    opened.past_permille_min(0).memory(256, OPEN_KEY_BYTES).run(|bytes| {
        std::fs::write(&locked, pem_of(bytes)).unwrap();
        key_file::read(&locked, &unlock).is_ok()
    });
}

fn pem_of(der: &[u8]) -> String {
    let label = pkcs8::EncryptedPrivateKeyInfoRef::PEM_LABEL;
    pkcs8::der::pem::encode_string(label, pkcs8::LineEnding::LF, der).unwrap()
}

fn answers<T: DeserializeOwned>(bytes: &[u8]) -> bool {
    serde_json::from_slice::<T>(bytes).is_ok()
}

#[test]
fn answers_of_a_control_plane_are_read_or_refused() {
    let alone = alone();
    let digest = Digest::of("x");
    let key = SecretKey::from_seed([1; 32]);
    let role = Role { threshold: 1, keys: vec![key.public()] };
    let root = Root {
        fleet: "home".parse().unwrap(),
        version: 1,
        epoch: 1,
        expires_ms: 10,
        root: role.clone(),
        publishers: vec![],
        directors: vec![],
        release: role,
        compromised: vec![],
    };
    let envelope = Envelope::sign(payload_type::ROOT, root.to_payload(), &[&key]);
    let pin = muster_cli::context::PinnedRoot { version: 1, digest: Digest::of(&envelope.payload) };
    alone.parser("roots", [format!("[{}]", envelope.to_json())]).run(|bytes| {
        let Ok(roots) = serde_json::from_slice::<Vec<Envelope>>(bytes) else { return false };
        if let Ok(trusted) = trust::follow(&roots, pin) {
            assert_eq!(trusted.digest(), pin.digest);
        }
        let _ = trust::newest_unverified(&roots);
        true
    });
    let problem = r#"{"title":"no","status":409,"detail":"no","hint":"try"}"#;
    alone.parser("problems", [problem]).run(answers::<Problem>);
    let deployment = r#"[{"apiVersion":"muster.dev/v1","kind":"Deployment","metadata":{"name":"digits"},
        "spec":{"model":"digits","version":7,"resources":{"cpu":"500m","memory":"64Mi"},"replicas":3}}]"#;
    alone.parser("deployments", [deployment]).run(|bytes| {
        let Ok(read) = serde_json::from_slice::<Vec<Deployment>>(bytes) else { return false };
        read.iter().for_each(|deployment| drop(resources::deployments::text(deployment)));
        true
    });
    let info = format!(r#"{{"version":"0.1.0","fleet":"home","rootVersion":1,"caFingerprint":"{digest}"}}"#);
    alone.parser("what a plane says of itself", [info]).run(answers::<Info>);
    let claim = r#"{"id":"0102030405060708","secret":"00112233445566778899aabbccddeeff","expiresMs":5}"#;
    alone.parser("claims", [claim]).run(answers::<Claim>);
}

/// What a plane says of its fleet is read, and told to people.
#[test]
fn views_of_a_control_plane_are_read_and_told_or_refused() {
    let alone = alone();
    let digest = Digest::of("x");
    let figures = r#"{"windowSeconds":60.0,"share":0.125,"requestsPerSecond":40.0,"coreMsPerPrediction":25.0,
        "coresDemanded":1.0,"p50Ms":24.0,"p99Ms":31.5}"#;
    let bundle = format!(r#"{{"model":"digits","version":2,"manifest":"{digest}"}}"#);
    let device = format!(
        r#"{{"id":"edge-1","connected":false,"silentSinceMs":1000,"schedule":"draining","standing":"held",
        "standingWhy":"it came back","lastSeenMs":1000,"enrolledMs":1000,"fingerprint":"{digest}",
        "labels":{{"site":"north"}},"desired":{{"epoch":1,"number":2}},"applied":null,"facts":null,
        "slots":[{{"deployment":"digits","phase":"serving","wanted":{bundle},"running":{bundle},"waiting":"a",
        "restarts":2,"measured":{{"memoryPeakBytes":5,"latencyUs":7}}}}],"refusals":[],"desiredRefused":null,
        "host":{{"cpuPermille":5,"memoryUsedBytes":6,"memoryBytes":7,"diskFreeBytes":8,"diskBytes":9,
        "temperatureMillicelsius":-5}},"models":[{{"deployment":"digits","version":2,"requests":400,"errors":1,
        "cpuUs":1,"figures":{figures},"p50Us":24.0,"p99Us":null}}]}}"#
    );
    alone.parser("devices", [device]).run(|bytes| {
        let Ok(device) = serde_json::from_slice::<DeviceView>(bytes) else { return false };
        let _ = resources::devices::text(&device, 13_000);
        true
    });
    let plan = r#"{"frozen":[{"group":"site north","devices":["edge-1"],"of":3,"sinceMs":5,"message":"look"}],
        "changes":[{"deployment":"digits","device":"edge-1","change":"place","version":3,"why":"spread"}],
        "waiting":[{"deployment":"digits","why":"no device"}],"restored":"the database went back"}"#;
    alone.parser("plans", [plan]).run(|bytes| {
        let Ok(plan) = serde_json::from_slice::<PlanView>(bytes) else { return false };
        let _ = plan::text(&plan);
        true
    });
    let explained = format!(
        r#"{{"name":"digits","wanted":3,"ready":1,"version":2,"frozen":"2 of 3","replicas":[],"waiting":["a"],
        "rollout":null,"demand":{{"figures":{figures},"replicasNeeded":3,"sentence":"40/s"}}}}"#
    );
    alone.parser("explained deployments", [explained]).run(|bytes| {
        let Ok(explained) = serde_json::from_slice::<DeploymentExplained>(bytes) else { return false };
        let _ = explain::deployment_text(&explained);
        true
    });
    let explained = r#"{"id":"edge-1","schedule":"cordoned","presence":"connected","cpuMilli":4000,
        "cpuMilliGranted":500,"memoryBytes":1073741824,"memoryBytesGranted":67108864,"replicas":[],
        "obstacles":["edge-1 is cordoned"]}"#;
    alone.parser("explained devices", [explained]).run(|bytes| {
        let Ok(explained) = serde_json::from_slice::<DeviceExplained>(bytes) else { return false };
        let _ = explain::device_text(&explained);
        true
    });
    let factory = format!(r#"[{{"fingerprint":"{digest}","name":"edge-1","labels":{{"a":"b"}},"spentMs":5}}]"#);
    alone.parser("views of the factory list", [factory]).run(answers::<Vec<FactoryView>>);
}
