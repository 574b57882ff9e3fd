//! Who is in the fleet.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use muster_tests::world;

#[test]
fn two_agents_with_one_identity_are_found_and_held() -> Result<()> {
    let mut world = world(&["edge-1"])?;
    let (folder, copy) = (world.folder().join("edge-1"), world.folder().join("copy"));
    ensure!(Command::new("cp").arg("-r").arg(&folder).arg(&copy).status()?.success(), "cannot copy the device");
    world.start_agent("copy")?;
    let begun = Instant::now();
    while !world.muster(&["get", "devices"])?.contains("cloned") {
        ensure!(begun.elapsed() < Duration::from_secs(30), "the copy was not found");
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(world.muster(&["get", "events"])?.contains("two agents"), "nobody was told");
    Ok(())
}
