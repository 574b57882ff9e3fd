//! Bundles written, read, and tampered with.

use muster_shared::limits::CHUNK_BYTES;
use muster_shared::manifest::{Dtype, Format, Port, TensorDigest, Variant, weights_digest};
use muster_shared::signing::key::SecretKey;
use proptest::prelude::*;

use super::*;

fn key() -> SecretKey {
    SecretKey::from_seed([9; 32])
}

fn sign(manifest: &Manifest) -> Envelope {
    Envelope::sign(payload_type::MANIFEST, manifest.to_payload(), &[&key()])
}

fn manifest(model: &[u8], golden: &[u8]) -> Manifest {
    let tensors = vec![TensorDigest { name: "w".into(), sha256: Digest::of("w") }];
    let port = |name: &str| Port { name: name.into(), dtype: Dtype::F32, shape: vec![None] };
    Manifest {
        model: "digits".parse().expect("a name"),
        version: "1".parse().expect("a version"),
        created_ms: 1_700_000_000_000,
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        variants: vec![Variant {
            name: "fp32".parse().expect("a name"),
            format: Format::Onnx,
            file: FileRef::of(model),
            graph: Digest::of("f"),
            weights: weights_digest(&tensors),
            tensors,
        }],
        golden: Some(FileRef::of(golden)),
    }
}

fn bundle(model: &[u8], golden: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes, &sign(&manifest(model, golden)), &[model, golden]).expect("writes");
    bytes
}

#[test]
fn a_bundle_survives_its_file() {
    let model = vec![7; CHUNK_BYTES + 1];
    let bytes = bundle(&model, b"golden");
    let read = Bundle::read(bytes.as_slice()).expect("a bundle");
    assert_eq!(read.manifest, manifest(&model, b"golden"));
    for (file, start) in read.files.values() {
        let start = usize::try_from(*start).expect("fits");
        let content = &bytes[start..start + usize::try_from(file.bytes).expect("fits")];
        assert_eq!(Digest::of(content), file.sha256);
    }
    assert_eq!(bytes, bundle(&model, b"golden"), "the same content has the same bytes");
}

#[test]
fn ordinary_tar_reads_it() {
    let bytes = bundle(b"model", b"golden");
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().expect("entries");
    let names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect();
    assert_eq!(names, [MANIFEST.to_owned(), blob(Digest::of("model")), blob(Digest::of("golden"))]);
}

#[test]
fn each_changed_byte_is_noticed() {
    let good = bundle(b"model", b"golden");
    let keys = [key().public()];
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let noticed = Bundle::read(bad.as_slice())
            .is_ok_and(|read| read.envelope.verify(payload_type::MANIFEST, &keys, 1).is_ok());
        assert!(!noticed, "byte {at}");
    }
}

#[test]
fn each_missing_end_is_noticed() {
    let good = bundle(b"model", b"golden");
    for length in 0..good.len() {
        assert!(Bundle::read(&good[..length]).is_err(), "{length} bytes");
    }
    let mut longer = good;
    longer.push(0);
    assert!(Bundle::read(longer.as_slice()).is_err());
}

#[track_caller]
fn refused(members: &[(&str, &[u8])], words: &str) {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        archive.append(&header(name, content.len() as u64).expect("a header"), *content).expect("appends");
    }
    let bytes = archive.into_inner().expect("an archive");
    let error = Bundle::read(bytes.as_slice()).expect_err("refused").to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn only_what_the_manifest_names_may_be_inside() {
    let json = serde_json::to_vec(&sign(&manifest(b"model", b"golden"))).expect("JSON");
    let (first, second) = (blob(Digest::of("model")), blob(Digest::of("golden")));
    let (first, second) = (first.as_str(), second.as_str());
    refused(&[(first, b"model")], "no bundle");
    refused(&[(MANIFEST, b"{}")], "manifest cannot be read");
    refused(&[(MANIFEST, &json)], "stands where blobs/");
    refused(&[(MANIFEST, &json), (first, b"model")], "stands where blobs/");
    refused(&[(MANIFEST, &json), (second, b"golden"), (first, b"model")], "stands where blobs/");
    refused(&[(MANIFEST, &json), (first, b"model!")], "its length");
    refused(&[(MANIFEST, &json), (first, b"modem")], "another digest");
    refused(
        &[(MANIFEST, &json), (first, b"model"), (second, b"golden"), ("run.sh", b"#!")],
        "\"run.sh\" stands where the end belongs",
    );
    refused(&[(MANIFEST, &json), ("blobs/other", b"model")], "\"blobs/other\" stands where");
}

#[test]
fn a_wrong_chunk_index_is_noticed() {
    let mut wrong = manifest(b"model", b"golden");
    wrong.variants[0].file.chunk_index = Digest::of("another");
    let mut bytes = Vec::new();
    write(&mut bytes, &sign(&wrong), &[b"model", b"golden"]).expect("writes");
    let error = Bundle::read(bytes.as_slice()).expect_err("refused").to_string();
    assert!(error.contains("chunk index"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_return(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = Bundle::read(bytes.as_slice());
    }

    #[test]
    fn arbitrary_manifests_return(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header(MANIFEST, bytes.len() as u64).expect("a header"), bytes.as_slice()).expect("appends");
        let bytes = archive.into_inner().expect("an archive");
        prop_assert!(Bundle::read(bytes.as_slice()).is_err());
    }
}
