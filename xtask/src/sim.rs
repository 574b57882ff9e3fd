//! `cargo xtask sim`: seeds of the simulated fleet, a table for people, one JSON object for programs.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use muster_world::rows::{self, Row};

/// Which seeds.
#[derive(Debug, Args)]
pub struct Options {
    /// So many seeds, from 0 on
    #[arg(long, default_value_t = 20, conflicts_with = "seed")]
    seeds: u64,
    /// This one seed again
    #[arg(long)]
    seed: Option<u64>,
    /// Devices of the fleet
    #[arg(long, default_value_t = muster_sim::DEVICES)]
    devices: usize,
}

/// Runs the seeds; an error unless every one converges.
pub fn run(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(options.devices > 0, "a fleet has at least one device");
    let seeds = match options.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..options.seeds,
    };
    let rows: Vec<Row> = on_every_core(seeds, options).into_values().collect();
    println!("\n{} seeds, {} failed", rows.len(), rows.iter().filter(|row| !row.ok).count());
    let failed = rows::tell("sim", &rows);
    anyhow::ensure!(failed == 0, "{failed} seeds did not converge");
    Ok(())
}

/// One seed is one thread's work; several run side by side.
fn on_every_core(seeds: std::ops::Range<u64>, options: &Options) -> BTreeMap<u64, Row> {
    let (next, rows) = (Mutex::new(seeds), Mutex::new(BTreeMap::new()));
    let take = || next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    let work = || {
        while let Some(seed) = take() {
            let began = Instant::now();
            let run = muster_sim::run(seed, options.devices);
            let row = row(seed, run, options.devices);
            tell(&row, began.elapsed());
            rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(seed, row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn row(seed: u64, run: Result<muster_sim::Summary, String>, devices: usize) -> Row {
    let name = format!("seed {seed}");
    match run {
        Ok(summary) => {
            let happened: Vec<String> =
                summary.happened.iter().map(|(what, often)| format!("{what} {often}")).collect();
            let (settled_s, digest) = (summary.settled_ms / 1000, summary.digest);
            let note = format!(
                "settled after {settled_s} s; {} events, {} looks, {} desired states; {}; trace {digest:016x}",
                summary.events,
                summary.decisions,
                summary.signed,
                happened.join(", ")
            );
            Row::played(name, true, note)
        }
        Err(error) => {
            let repeat = format!("cargo xtask sim --seed {seed} --devices {devices}");
            Row::played(name, false, format!("{error}\nrepeat it with `{repeat}`"))
        }
    }
}

fn tell(row: &Row, took: Duration) {
    let verdict = if row.ok { "ok" } else { "FAILED" };
    println!("{:>9}  {verdict:<6} {:>5.1} s  {}", row.name, took.as_secs_f64(), row.note);
}
