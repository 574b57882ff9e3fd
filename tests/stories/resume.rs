//! A download that is cut goes on where it was.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_shared::Digest;
use muster_shared::chunk::ChunkIndex;
use muster_shared::limits::{CHUNK_BYTES, FRAMES_PER_CHUNK};
use muster_tests::{models, world};

/// More than the 4 MiB that the story needs, so that there is a middle to cut it in.
const FILE_BYTES: usize = 24 * 1024 * 1024;

/// In which the kernel counts what a file takes.
const BLOCK_BYTES: u64 = 512;

#[test]
fn a_killed_agent_goes_on_and_fetches_no_verified_chunk_twice() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let bundle = models::padded_digits(world.folder(), 1, FILE_BYTES)?;
    let file = std::fs::read(&bundle.onnx)?;
    let (blob, index) = (Digest::of(&file), ChunkIndex::of(&file));
    world.publish(&bundle)?;
    world.deploy("digits", "1")?;

    let staged = world.device_folder("edge-1").join("staging").join(blob.to_string());
    // Looked for far more often than elsewhere: the download is to be cut in its middle. The file has its
    // whole length from the beginning; what was written has a place on the disk.
    let began = Instant::now();
    let stored = || std::fs::metadata(&staged).map_or(0, |file| file.blocks() * BLOCK_BYTES);
    while stored() < 2 * CHUNK_BYTES as u64 {
        assert!(began.elapsed() < muster_world::DEADLINE, "no chunk was stored");
        std::thread::sleep(Duration::from_millis(1));
    }
    world.kill_agent("edge-1")?;
    let verified =
        verified_chunks(&std::fs::read(&staged).context("the download was over before it could be cut")?, &index);
    assert!(!verified.is_empty() && verified.len() < index.len(), "{} of {}", verified.len(), index.len());

    world.start_agent("edge-1")?;
    world.until_serves("edge-1", "digits", 1)?;
    let served = world.api("devices/edge-1/chunks")?;
    let frames_of = |chunk: u32| {
        let entries = served.as_array().into_iter().flatten();
        let mut of_chunk = entries.filter(|entry| entry["blob"] == blob.to_string() && entry["chunk"] == chunk);
        of_chunk.next().and_then(|entry| entry["frames"].as_u64()).unwrap_or(0)
    };
    for chunk in &verified {
        assert_eq!(frames_of(*chunk), FRAMES_PER_CHUNK as u64, "chunk {chunk} was verified before the kill");
    }
    println!("{} of {} chunks were there before the kill and were not sent again", verified.len(), index.len());
    Ok(())
}

fn verified_chunks(file: &[u8], index: &ChunkIndex) -> Vec<u32> {
    let right = |(number, chunk): (usize, &[u8])| {
        (index.chunk(number as u32) == Some(Digest::of(chunk))).then_some(number as u32)
    };
    file.chunks(CHUNK_BYTES).enumerate().filter_map(right).collect()
}
