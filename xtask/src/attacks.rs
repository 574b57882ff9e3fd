//! `cargo xtask attacks`: every attack that Muster is to withstand, each with its twin: the same attack
//! where the check that holds it is taken out.

use std::path::Path;

use anyhow::ensure;

use crate::{build, setup};

/// What a build in which checks can be taken out reads them from; in no other build may it stand.
const SWITCH: &[u8] = b"MUSTER_CHECKS_OUT";

/// Plays the attacks whose names contain `filter`, or all.
pub fn run(filter: Option<&str>) -> anyhow::Result<()> {
    setup::program("chromium", "chromium")?;
    let plain = build::programs()?;
    let switched = build::programs_for_attacks()?;
    // Both ways, so that this test can fail.
    for program in [&plain.agent, &plain.control_plane, &plain.muster] {
        ensure!(!holds_switch(program)?, "checks could be taken out of {}", program.display());
    }
    for program in [&switched.agent, &switched.control_plane] {
        ensure!(holds_switch(program)?, "checks cannot be taken out of {}", program.display());
    }
    println!("checks can be taken out of the build for attacks, and of no other");
    let folder = switched.muster.parent().unwrap_or(Path::new("."));
    let mut arguments = vec!["test", "--quiet", "--workspace", "--test", "attacks"];
    arguments.extend(filter.iter().flat_map(|filter| ["--", *filter]));
    build::cargo(&arguments, &[("MUSTER_PROGRAMS", folder)])
}

fn holds_switch(program: &Path) -> anyhow::Result<bool> {
    let bytes = std::fs::read(program)?;
    Ok(bytes.windows(SWITCH.len()).any(|window| window == SWITCH))
}
