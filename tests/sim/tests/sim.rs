//! Seeds of the simulated fleet. A failure names its seed; `cargo xtask sim --seed S` repeats it.

use std::collections::BTreeMap;

use muster_sim::{DEVICES, run};

/// What must have happened somewhere, or the seeds prove little.
const HAPPENINGS: [&str; 11] = [
    "DesiredRefused",
    "DeviceLost",
    "DeviceReturned",
    "MovesFrozen",
    "MovesResumed",
    "PowerCutAmidActions",
    "ReplicaMoved",
    "RolloutDone",
    "RolloutStarted",
    "RolloutStopped",
    "RolloutWave",
];

fn check(seeds: std::ops::Range<u64>) {
    let mut happened: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds {
        match run(seed, DEVICES) {
            Ok(summary) => {
                summary.happened.into_iter().for_each(|(what, often)| *happened.entry(what).or_default() += often)
            }
            Err(error) => panic!("seed {seed}: {error}\nrepeat it with `cargo xtask sim --seed {seed}`"),
        }
    }
    for what in HAPPENINGS {
        assert!(happened.get(what).is_some_and(|often| *often > 0), "{what} never happened: {happened:?}");
    }
}

// Two halves, so that two cores share them.
#[test]
fn seeds_converge() {
    check(0..10);
}

#[test]
fn more_seeds_converge() {
    check(10..20);
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    let once = || run(7, 40).expect("converges").digest;
    assert_eq!(once(), once());
    assert_ne!(run(8, 40).expect("converges").digest, once());
}
