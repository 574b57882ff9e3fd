//! `cargo xtask cross [TARGET]`: the agent as devices get it, for each kind of device; how large it is, how
//! old a system may be, and that it runs there.
//!
//! [`std_for`] brings a standard library, from [`debian`] where nobody else has one; [`compile`] builds;
//! [`elf`] looks into what came out; [`emulate`] plays the processor for [`proof`].

mod anatomy;
mod compile;
mod debian;
mod elf;
mod emulate;
mod kernels;
mod proof;
mod std_for;
mod target;

use std::path::{Path, PathBuf};

use clap::Args;
use muster_world::{Programs, World};
use serde_json::Value;

use self::compile::Built;
pub use self::compile::FEATURES;
pub use self::debian::mirror;
pub use self::elf::needed_glibc;
use self::target::GLIBC_MAX;
pub use self::target::Target;
use crate::measure::pss_kib;
use crate::report::{Goal, Report};
use crate::{build, shell};

/// What to build.
#[derive(Debug, Args)]
pub struct Options {
    /// Only these; else all
    target: Vec<Target>,
    /// Build and look into what came out, but run nothing
    #[arg(long)]
    only_build: bool,
    /// Install missing system packages without asking
    #[arg(long)]
    yes: bool,
}

/// A stripped agent, in MiB.
const SIZE_MAX: f64 = 20.0;
/// Of an agent that is connected and has no model, in MB (PSS).
const IDLE_MAX: f64 = 15.0;
const DEVICE: &str = "edge-1";

/// Builds the agent for a target, if anything changed; where it lies.
pub fn built(target: Target) -> anyhow::Result<PathBuf> {
    compile::agent(target).map(|built| built.agent)
}

/// Builds, measures, runs; an error if a goal is missed.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // `--yes` is looked for where packages are installed.
    let _ = options.yes;
    let targets = if options.target.is_empty() { &Target::ALL[..] } else { &options.target };
    let mut report = Report::default();
    let built: Vec<(Target, Built)> = targets.iter().filter_map(|target| look(*target, &mut report)).collect();
    if !options.only_build {
        let programs = build::programs()?;
        let reference = proof::answers(&programs)?;
        for (target, built) in &built {
            play(*target, built, &programs, &reference, &mut report);
        }
    }
    report.print("cross")
}

/// Builds for one target and says what came out.
fn look(target: Target, report: &mut Report) -> Option<(Target, Built)> {
    let triple = target.triple();
    let built = report.try_to(&format!("{triple}: build"), || compile::agent(target))?;
    let size = report.try_to(&format!("{triple}: size"), || Ok(std::fs::metadata(&built.agent)?.len()))?;
    let note = format!("moonshot 12; built in {} s {}", built.took.as_secs(), built.way);
    report.figure(&format!("{triple}: size, MiB"), size as f64 / MIB, Goal::AtMost(SIZE_MAX), &note);
    let (major, minor) = GLIBC_MAX;
    let (needed, note) = match built.glibc {
        Some((major, minor)) => (f64::from(minor), format!("it needs glibc {major}.{minor}")),
        None => (0.0, "it needs no C library".to_owned()),
    };
    report.figure(&format!("{triple}: glibc {major}.x"), needed, Goal::AtMost(f64::from(minor)), &note);
    let anatomy = report.try_to(&format!("{triple}: what is in it"), || elf::anatomy(&built.with_symbols))?;
    println!("\nwhat is in the agent for {triple}, in KiB\n{}", anatomy::spelled(&anatomy));
    Some((target, built))
}

/// Runs what was built, on each processor that it is for.
fn play(target: Target, built: &Built, programs: &Programs, reference: &Value, report: &mut Report) {
    let triple = target.triple();
    let folder = shell::project().join("target/cross").join(triple);
    let mut as_agent = |name: &str, agent: anyhow::Result<PathBuf>| {
        let what = format!("{triple} on {name}: a whole agent");
        eprintln!("{what}: serve, enrol, run");
        let shown = report.try_to(&what, || proof::show(&Programs { agent: agent?, ..programs.clone() }, reference));
        let Some(shown) = shown else { return };
        report.shown(&what, &format!("its workers: {}", shown.isolation));
        let what = format!("{triple} on {name}: largest difference");
        report.figure(
            &what,
            shown.difference,
            Goal::AtMost(proof::DIFFERENCE_MAX),
            "to x86_64: 60 rows of digits, and of convolutions and products",
        );
    };
    if target.processors().is_empty() {
        as_agent("this machine", Ok(built.agent.clone()));
    }
    for processor in target.processors() {
        as_agent(processor.name, emulate::played(processor, &built.agent, &folder));
    }
    if target == Target::X86Gnu || target == Target::X86Musl {
        let what = format!("{triple}: idle memory, MB");
        let memory = report.try_to(&what, || idle_bytes(programs, &built.agent));
        if let Some(bytes) = memory {
            report.figure(&what, bytes as f64 / 1e6, Goal::AtMost(IDLE_MAX), "PSS, connected, no model");
        }
    }
}

/// Proportional set size of an agent that is enrolled and connected and has no model.
fn idle_bytes(programs: &Programs, agent: &Path) -> anyhow::Result<u64> {
    let mut world = World::start(Programs { agent: agent.to_owned(), ..programs.clone() }, &|_| {})?;
    world.add_device(DEVICE)?;
    world.until("the device to report", |world| {
        let facts = world.device(DEVICE)?["facts"].clone();
        Ok(facts["isolation"].is_array().then_some(()))
    })?;
    Ok(pss_kib(world.agent_id(DEVICE)?)? * 1024)
}

const MIB: f64 = 1024.0 * 1024.0;
