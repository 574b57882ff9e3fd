//! `cargo xtask test`: everything a change must pass, fastest first, with each tier's time.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use crate::{attacks, build, clients, dashboard, demo, setup, web};

/// What to run.
#[derive(Debug, Args)]
pub struct Options {
    /// The long forms too
    #[arg(long)]
    long: bool,
    /// Install missing system packages without asking
    #[arg(long)]
    yes: bool,
}

/// Runs every tier; the first failure ends it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // `--yes` is looked for where packages are installed.
    let _ = options.yes;
    LONG.store(options.long, Ordering::Relaxed);
    let began = Instant::now();
    let mut times: Vec<(&str, Duration)> = vec![];
    for (name, tier) in TIERS {
        println!("\n=== {name}");
        let tier_began = Instant::now();
        let done = tier();
        times.push((name, tier_began.elapsed()));
        if let Err(error) = done {
            print_times(&times, began);
            return Err(error.context(format!("the tier `{name}` failed")));
        }
    }
    print_times(&times, began);
    Ok(())
}

/// Whether the long forms run.
static LONG: AtomicBool = AtomicBool::new(false);

type Tier = fn() -> anyhow::Result<()>;

/// Every tier selects the whole workspace, so that what it depends on is built once.
const TIERS: [(&str, Tier); 13] = [
    ("format", || build::cargo(&["fmt", "--all", "--check"], &[])),
    // Before anything that embeds it.
    ("page", web::check),
    ("lints", || {
        // The second time with the agent as devices get it; what it depends on has the same features.
        let for_devices = ["--no-default-features", "--features", "muster-agent/device"];
        for features in [&[][..], &for_devices] {
            let clippy =
                [&["clippy", "--quiet", "--workspace", "--all-targets"], features, &["--", "--deny", "warnings"]];
            build::cargo(&clippy.concat(), &[])?;
        }
        Ok(())
    }),
    ("units and properties", || {
        // A token to sign with.
        setup::program("softhsm2-util", "softhsm2")?;
        // Everything but the simulation, and the stories, which need the programs.
        let names = ["wire", "ed25519", "cli", "flash", "fleet", "keys", "story", "sandbox", "scripts"];
        let tests: Vec<&str> = names.iter().flat_map(|name| ["--test", name]).collect();
        for selected in [&["--lib", "--bins"][..], &tests[..], &["--doc"]] {
            build::cargo(&[&["test", "--quiet", "--workspace"], selected].concat(), &[])?;
        }
        Ok(())
    }),
    ("fuzz", || {
        let mut variables = vec![];
        if LONG.load(Ordering::Relaxed) {
            variables.push(("MUSTER_LONG", Path::new("1")));
        }
        // What was shown, and the seed that shows it again.
        build::cargo(&["test", "--workspace", "--test", "fuzz", "--", "--nocapture"], &variables)
    }),
    ("simulation", || build::cargo(&["test", "--quiet", "--workspace", "--test", "sim"], &[])),
    ("models", || setup::train_models(&setup::python()?, false)),
    ("stories", || {
        let programs = build::programs()?;
        let folder = programs.muster.parent().unwrap_or(Path::new("."));
        // Some start an agent with a wrong clock.
        setup::program("faketime", "faketime")?;
        let stories = ["test", "--workspace", "--test", "stories", "--test", "tidy"];
        build::cargo(&stories, &[("MUSTER_PROGRAMS", folder)])
    }),
    ("serving", || {
        let programs = build::programs()?;
        let folder = programs.muster.parent().unwrap_or(Path::new("."));
        let mut variables = vec![("MUSTER_PROGRAMS", folder)];
        if LONG.load(Ordering::Relaxed) {
            variables.push(("MUSTER_LONG", Path::new("1")));
        }
        // One after the other: they measure what the machine gives. What they measured is shown.
        let one_by_one = ["--", "--test-threads", "1", "--nocapture"];
        build::cargo(&[&["test", "--workspace", "--test", "serving"], &one_by_one[..]].concat(), &variables)
    }),
    ("attacks", || attacks::run(None)),
    ("clients", clients::check),
    ("demo", demo::check),
    ("dashboard", dashboard::check),
];

fn print_times(times: &[(&str, Duration)], began: Instant) {
    println!();
    for (name, time) in times {
        println!("{:>8.1} s  {name}", time.as_secs_f64());
    }
    println!("{:>8.1} s  all", began.elapsed().as_secs_f64());
}
