//! Everything in the command line that reads bytes from outside, on inputs that are nearly good: files that
//! somebody sent, and the answers of a control plane that may be in an attacker's hands. See
//! [`muster_fuzz`].

#![allow(clippy::unwrap_used)]

use std::path::Path;

use muster_cli::context::{Contexts, Home};
use muster_cli::keys::{file as key_file, passphrase::Unlock};
use muster_cli::{bundle, golden, onnx, trust, url, yaml};
use muster_fuzz::{PeakAlloc, alone};
use muster_shared::Digest;
use muster_shared::api::deployment::Deployment;
use muster_shared::api::{Claim, Info, Problem};
use muster_shared::manifest::{Dtype, FileRef, Format, Manifest, Port, TensorDigest, Variant, weights_digest};
use muster_shared::root::{Role, Root};
use muster_shared::signing::key::SecretKey;
use muster_shared::signing::{Envelope, payload_type};
use serde::de::DeserializeOwned;

#[global_allocator]
static COUNTED: PeakAlloc = PeakAlloc;

/// A bundle's manifest may say that it is so long, and room is made for it at once; and for a chunk.
const BUNDLE_BYTES: usize = 2 * 1024 * 1024;
/// Of a model everything is decoded before anything is looked at.
const MODEL_PER_BYTE: usize = 1024;
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
    alone.parser("manifests in bundles", [manifest.to_payload()]).inputs(4_000).memory(512, BUNDLE_BYTES).run(
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
    alone.parser("ONNX models", files).inputs(10_000).memory(MODEL_PER_BYTE, 1 << 20).run(|bytes| {
        let Ok(model) = onnx::Model::read(bytes.to_vec()) else { return false };
        model.inputs.iter().chain(&model.outputs).for_each(|port| drop(onnx::describe(port)));
        true
    });
    let digits = [model_file("digits/v1/model.onnx")];
    alone
        .parser("larger ONNX models", digits)
        .inputs(1_500)
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
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deployment.yaml");
    let two = format!("---\n{DEPLOYMENT}---\n{}", DEPLOYMENT.replace("name: digits", "name: other"));
    alone.parser("YAML", [DEPLOYMENT.to_owned(), two]).inputs(4_000).memory(YAML_PER_BYTE, 4 << 20).run(|bytes| {
        std::fs::write(&file, bytes).unwrap();
        yaml::deployments(&file, "apply").is_ok()
    });
    let digest = Digest::of("ca");
    let contexts = format!(
        "current = \"home\"\n[contexts.home]\nurl = \"https://plane:8443\"\nca_fingerprint = \"{digest}\"\n\
         token = \"t\"\nfleet = \"home\"\nroot = {{ version = 1, digest = \"{digest}\" }}\n"
    );
    let home = Home::at(folder.path().to_owned());
    alone.parser("contexts.toml", [contexts]).inputs(3_000).memory(1024, 512 * 1024).run(|bytes| {
        std::fs::write(folder.path().join("contexts.toml"), bytes).unwrap();
        Contexts::load(&home).is_ok_and(|contexts| {
            let _ = contexts.choose(None);
            true
        })
    });
    alone.parser("addresses", ["https://plane:8443", "http://127.0.0.1:80", "http://[::1]:1/"]).run(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        url::parse(text).is_ok_and(|url| url::parse(&url::origin(&url)).is_ok())
    });
    let key = SecretKey::from_seed([1; 32]).to_pem().unwrap();
    let path = folder.path().join("root.pem");
    alone.parser("key files", [key.as_bytes()]).inputs(3_000).past_permille_min(0).run(|bytes| {
        std::fs::write(&path, bytes).unwrap();
        key_file::read(&path, &Unlock::default()).is_ok()
    });
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
    alone.parser("deployments", [deployment]).run(answers::<Vec<Deployment>>);
    let info = format!(r#"{{"version":"0.1.0","fleet":"home","rootVersion":1,"caFingerprint":"{digest}"}}"#);
    alone.parser("what a plane says of itself", [info]).run(answers::<Info>);
    let claim = r#"{"id":"0102030405060708","secret":"00112233445566778899aabbccddeeff","expiresMs":5}"#;
    alone.parser("claims", [claim]).run(answers::<Claim>);
}
