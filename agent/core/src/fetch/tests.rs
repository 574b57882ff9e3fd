//! Bundles on their way, with a plane and a disk in memory.

use std::collections::BTreeMap;

use muster_shared::Version;
use muster_shared::chunk::frame_range;
use muster_shared::desired::{BlobRef, Resources};
use muster_shared::limits::{CHUNK_BYTES, MANIFEST_BYTES_MAX};
use muster_shared::manifest::{Dtype, Format, Manifest, Port, Variant, weights_digest};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::{Envelope, payload_type};

use super::*;
use crate::testing::{self, PUBLISHER, key};
use crate::verify::floors::Floors;

/// The root in force.
fn root() -> TrustedRoot {
    testing::trusted(&testing::root())
}

/// A plane and a disk in memory, and a bundle whose manifest `publisher` signed.
struct World {
    plane: BTreeMap<Digest, Vec<u8>>,
    disk: BTreeMap<Digest, Vec<u8>>,
    spec: SlotSpec,
    floors: Floors,
    asked: Vec<ChunkGet>,
    seen: Vec<FetchAction>,
}

fn world(publisher: u8) -> World {
    let model: Vec<u8> = (0..2 * CHUNK_BYTES + 7).map(|at| (at / 999) as u8).collect();
    let golden = b"{\"cases\": []}".to_vec();
    let port = Port { name: "x".into(), dtype: Dtype::F32, shape: vec![None] };
    let manifest = Manifest {
        model: "digits".parse().unwrap(),
        version: Version::new(1).unwrap(),
        created_ms: 1,
        inputs: vec![port.clone()],
        outputs: vec![port],
        variants: vec![Variant {
            name: "fp32".parse().unwrap(),
            format: Format::Onnx,
            file: FileRef::of(&model),
            graph: Digest::of("f"),
            weights: weights_digest(&[]),
            tensors: vec![],
        }],
        golden: Some(FileRef::of(&golden)),
    };
    let envelope = Envelope::sign(payload_type::MANIFEST, manifest.to_payload(), &[&key(publisher)]);
    let envelope_bytes = envelope.to_json().into_bytes();
    let spec = SlotSpec {
        deployment: "digits".parse().unwrap(),
        served_as: None,
        model: manifest.model.clone(),
        version: manifest.version,
        manifest: Digest::of(&envelope.payload),
        envelope: BlobRef { sha256: Digest::of(&envelope_bytes), bytes: envelope_bytes.len() as u64 },
        variant: "fp32".parse().unwrap(),
        resources: Resources { cpu_milli: 1, memory_bytes: 1 },
        probation_ms: 0,
        attempt: 0,
        swap_in_place: false,
        floor: None,
    };
    let indexes = [ChunkIndex::of(&model).to_bytes(), ChunkIndex::of(&golden).to_bytes()];
    let blobs = [model, golden, envelope_bytes].into_iter().chain(indexes);
    let plane = blobs.map(|blob| (Digest::of(&blob), blob)).collect();
    World { plane, disk: BTreeMap::new(), spec, floors: Floors::default(), asked: vec![], seen: vec![] }
}

impl World {
    fn beliefs<T>(&self, f: impl FnOnce(Beliefs<'_>) -> T) -> T {
        let (root, software) = (root(), testing::software());
        f(Beliefs {
            root: &root,
            floors: &self.floors,
            software: &software,
            desired: None,
            not_now: None,
            known: &BTreeMap::new(),
            disk_bytes: None,
            wall_ms: 0,
        })
    }

    /// Carries out actions until none is left; requests wait in `asked` unless `serve`.
    fn run(&mut self, fetcher: &mut Fetcher, mut actions: Vec<FetchAction>, serve: bool) {
        while !actions.is_empty() {
            let action = actions.remove(0);
            self.seen.push(action.clone());
            actions.extend(match action {
                FetchAction::Look { blob, index, .. } => {
                    let found = match self.disk.get(&blob) {
                        Some(bytes) => Looked::Whole(index.is_none().then(|| bytes.clone())),
                        None => Looked::Pieces(vec![]),
                    };
                    self.beliefs(|beliefs| fetcher.looked(blob, found, beliefs, 0))
                }
                FetchAction::Store { blob, blob_bytes, offset, bytes } => {
                    let file = self.disk.entry(blob).or_insert_with(|| vec![0; blob_bytes as usize]);
                    file[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
                    vec![]
                }
                FetchAction::Finish { blob } => self.beliefs(|beliefs| fetcher.finished(blob, beliefs, 0)),
                FetchAction::Ask(get) if serve => self.answer(fetcher, get),
                FetchAction::Ask(get) => {
                    self.asked.push(get);
                    vec![]
                }
                _ => vec![],
            });
        }
    }

    fn answer(&self, fetcher: &mut Fetcher, get: ChunkGet) -> Vec<FetchAction> {
        let Some(bytes) = self.plane.get(&get.blob) else {
            return fetcher.arrived(ChunkData::Unavailable { blob: get.blob }, 0);
        };
        let frame = |number| {
            let (offset, length) = frame_range(bytes.len() as u64, number).unwrap();
            let bytes = bytes[offset as usize..offset as usize + length].to_vec();
            ChunkData::Frame { blob: get.blob, number, bytes }
        };
        get.wanted().map(frame).flat_map(|data| fetcher.arrived(data, 0)).collect()
    }

    fn outcomes(&self) -> Vec<&FetchAction> {
        let told = |action: &&FetchAction| {
            use FetchAction::{Discarded, Done, Untrusted, Waiting};
            matches!(action, Done { .. } | Waiting { .. } | Untrusted { .. } | Discarded { .. })
        };
        self.seen.iter().filter(told).collect()
    }
}

#[test]
fn a_bundle_arrives_and_the_second_time_nothing_is_asked_for() {
    let mut world = world(PUBLISHER);
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Done { .. }]), "{:?}", world.outcomes());
    assert_eq!(world.disk, world.plane);

    world.seen.clear();
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Done { .. }]));
    assert!(!world.seen.iter().any(|action| matches!(action, FetchAction::Ask(_))));
}

#[test]
fn a_manifest_that_no_publisher_signed_brings_no_file_here() {
    let mut world = world(8);
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Untrusted { .. }]), "{:?}", world.outcomes());
    assert_eq!(world.disk.len(), 1, "the manifest itself and nothing it names");
}

#[test]
fn a_plane_without_the_files_is_asked_again_later() {
    let mut world = world(PUBLISHER);
    let plane = std::mem::take(&mut world.plane);
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Waiting { .. }]));
    let due = fetcher.next_deadline_ms().expect("a retry");
    assert!(fetcher.tick(due - 1).is_empty());
    world.plane = plane;
    let actions = fetcher.tick(due);
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [_, FetchAction::Done { .. }]));
}

#[test]
fn a_full_disk_waits_and_loses_nothing() {
    let mut world = world(PUBLISHER);
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, false);
    let blob = world.spec.envelope.sha256;
    let actions = fetcher.store_failed(blob, "no space left".into(), 0);
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Waiting { .. }]));
    let actions = fetcher.tick(fetcher.next_deadline_ms().expect("a retry"));
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [_, FetchAction::Done { .. }]));
}

#[test]
fn nothing_is_asked_while_offline_and_all_again_when_back() {
    let mut world = world(PUBLISHER);
    let mut fetcher = Fetcher::default();
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    assert!(world.outcomes().is_empty());
    let actions = fetcher.set_online(true, 5);
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Done { .. }]));
}

#[test]
fn a_waiting_slot_does_not_hold_up_another() {
    let mut world = world(PUBLISHER);
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let mut missing = world.spec.clone();
    missing.deployment = "missing".parse().unwrap();
    missing.envelope.sha256 = Digest::of("nowhere");
    let mut actions = fetcher.start(missing.deployment.clone(), missing);
    actions.extend(fetcher.start(world.spec.deployment.clone(), world.spec.clone()));
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [FetchAction::Waiting { .. }, FetchAction::Done { .. }]));
}

#[test]
fn a_manifest_declared_too_long_is_not_asked_for() {
    let mut world = world(PUBLISHER);
    world.spec.envelope.bytes = MANIFEST_BYTES_MAX as u64 + 1;
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.seen[..], [FetchAction::Untrusted { .. }]), "{:?}", world.seen);
}

#[test]
fn no_file_comes_before_the_publishers_word_on_the_floor_and_then_it_goes_on_by_itself() {
    let mut world = world(PUBLISHER);
    world.spec.floor = Version::new(1);
    let mut fetcher = Fetcher::default();
    fetcher.set_online(true, 0);
    let actions = fetcher.start(world.spec.deployment.clone(), world.spec.clone());
    world.run(&mut fetcher, actions, true);
    let [FetchAction::Waiting { reason, .. }] = &world.outcomes()[..] else { panic!("{:?}", world.outcomes()) };
    assert!(reason.contains("waits for the publisher's word on the version floor"), "{reason}");
    assert_eq!(world.disk.len(), 1, "the manifest itself and nothing it names");
    world.floors.offered(&testing::floor("digits", 1, PUBLISHER), &root()).unwrap();
    let actions = fetcher.trust_changed();
    world.run(&mut fetcher, actions, true);
    assert!(matches!(world.outcomes()[..], [_, FetchAction::Done { .. }]), "{:?}", world.outcomes());
}
