//! `cargo xtask boot`: an image is built, written onto a disk that is a file, and started by UEFI from that disk
//! alone, in a machine that QEMU plays. Its agent enrols with a control plane on loopback, pulls a signed model and
//! answers through the gateway. `--long` also cuts the power, breaks a system and puts the agent into two stock
//! systems.

mod cuts;
mod debian;
mod fleet;
mod machine;
mod slots;
mod stock;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use muster_world::Bundle;
use muster_world::fixtures::{agrees, held_out};
use muster_world::post;

pub use self::debian::packages;
use self::fleet::Fleet;
use self::machine::Machine;
use crate::cross::{self, Target};
use crate::report::{Goal, Report};
use crate::{build, setup};

/// What to show.
#[derive(Debug, Args)]
pub struct Options {
    /// One boot, from an empty disk to a prediction (as without a flag)
    #[arg(long, conflicts_with = "long")]
    short: bool,
    /// Power cuts, a system that does not boot, and stock systems, too: an hour and a half
    #[arg(long)]
    long: bool,
    /// Only what has this in its name, of the long forms
    #[arg(long, requires = "long", value_name = "TEXT")]
    only: Option<String>,
    /// An agent that is built already, instead of building the one that devices get
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Install missing system packages without asking
    #[arg(long)]
    yes: bool,
}

/// The model that the device serves.
const MODEL: &str = "digits";
/// Emulation is slow, and CI's machines are busy: twenty times what it takes on a quiet one.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    // `--yes` is looked for where packages are installed; no flag means the short form.
    let _ = (options.yes, options.short);
    let mut report = Report::default();
    let fleet = try_to(&mut report, "an image is built, twice the same", || Fleet::start(&agent(options)?));
    let Some(mut fleet) = fleet else { return report.print("boot") };
    for (name, row) in fleet.told() {
        report.figure(&format!("{name}, s"), row, Goal::None, "");
    }
    let answers = "an empty disk becomes a device that answers";
    for (name, seconds) in try_to(&mut report, answers, || first_boot(&mut fleet)).unwrap_or_default() {
        report.figure(&format!("{name}, s"), seconds, Goal::None, "since power-on, emulated");
    }
    if options.long {
        let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        for (name, show) in LONG {
            if wanted(name) {
                let began = Instant::now();
                if let Some(note) = try_to(&mut report, name, || show(&mut fleet)) {
                    report.figure(&format!("{name}, s"), began.elapsed().as_secs_f64(), Goal::None, &note);
                }
            }
        }
    }
    report.print("boot")
}

/// Says what is begun: each takes minutes.
fn try_to<T>(report: &mut Report, name: &str, what: impl FnOnce() -> anyhow::Result<T>) -> Option<T> {
    eprintln!("{name}");
    report.try_to(name, what)
}

type Show = fn(&mut Fleet) -> anyhow::Result<String>;

/// The long forms; each says what it saw.
const LONG: [(&str, Show); 7] = [
    ("a system that does not boot: the old one returns", slots::broken),
    ("a system that hangs: the old one returns", slots::hung),
    ("a system that does not reach the control plane: the old one returns", slots::silent),
    ("power cuts during the first boot", cuts::first_boot),
    ("power cuts while a model is fetched", cuts::fetch),
    ("stock Debian without cloud-init: patched, enrolled", stock::without_cloud_init),
    ("stock Debian with cloud-init: patched, enrolled", stock::with_cloud_init),
];

/// The agent that goes onto the device.
fn agent(options: &Options) -> anyhow::Result<PathBuf> {
    setup::program("qemu-system-aarch64", "qemu-system-arm")?;
    setup::folder(Path::new(machine::FIRMWARE).parent().unwrap_or(Path::new("/")), "qemu-efi-aarch64")?;
    match &options.agent {
        Some(agent) => Ok(agent.clone()),
        // The build is kept: where nothing changed this takes a moment.
        None => cross::built(Target::Aarch64Gnu),
    }
}

/// The programs of this machine's side.
pub fn programs() -> anyhow::Result<muster_world::Programs> {
    match std::env::var_os("MUSTER_PROGRAMS") {
        Some(folder) => Ok(muster_world::Programs::in_folder(&PathBuf::from(folder))),
        None => build::programs(),
    }
}

/// From an empty disk to a right prediction; when each step was reached, in seconds since power-on.
fn first_boot(fleet: &mut Fleet) -> anyhow::Result<Vec<(String, f64)>> {
    let device = "edge-1";
    let disk = fleet.new_disk(device)?;
    let mut machine = Machine::start(&disk, &fleet.log(device))?;
    let mut steps = vec![];
    machine.until("the system to be ready", |console| console.contains("muster: ready"))?;
    steps.push(("first boot: disk prepared".to_owned(), machine.seconds()));
    fleet.until_connected(device, &mut machine)?;
    steps.push(("first boot: enrolled, connected".to_owned(), machine.seconds()));
    machine.until("the system to be proven", |console| console.contains("slot a is proven"))?;
    fleet.world.publish(&Bundle::fixture(MODEL, 1))?;
    fleet.world.deploy(MODEL, "1")?;
    fleet.until_serves(device, MODEL, 1, &mut machine)?;
    steps.push(("first boot: model served".to_owned(), machine.seconds()));
    let gateway = fleet.world.plane().gateway.clone();
    let rows = held_out(MODEL, 1)?;
    let body = serde_json::json!({ "instances": [rows.instances[0]] }).to_string();
    let answer = post(&format!("{gateway}/v1/models/{MODEL}:predict"), &body)?;
    let got = &answer.body["predictions"][0];
    ensure!(agrees(&rows.predictions[0], got), "the gateway answered {} {}", answer.status, answer.body);
    ensure!(answer.device.as_deref() == Some(device), "another device answered: {:?}", answer.device);
    steps.push(("first boot: right prediction".to_owned(), machine.seconds()));
    machine.cut()?;
    fleet.check_disk(&disk).context("after the machine was switched off")?;
    Ok(steps)
}
