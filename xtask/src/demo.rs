//! `cargo xtask demo`: the whole product in a temporary folder, through the same commands that a
//! user types.

mod check;
mod once;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;

use crate::{build, shell};

use muster_world::{Bundle, Programs, World, fixtures};

pub use check::check;

/// How to show it.
#[derive(Debug, Args)]
pub struct Options {
    /// Check it and end: the last line is one JSON object, the exit code says whether all is well
    #[arg(long)]
    once: bool,
    /// Install missing system packages without asking
    #[arg(long)]
    yes: bool,
}

/// Set by Ctrl-C and by a request to terminate.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// The models that the demo serves.
pub const MODELS: [&str; 2] = ["linear_regression", "digits"];
/// The devices that serve them.
const DEVICES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

/// How often it is seen whether everything still runs.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Runs the demo.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let began = Instant::now();
    // `--yes` is looked for where packages are installed.
    let _ = options.yes;
    ctrlc::set_handler(|| STOPPED.store(true, Ordering::SeqCst)).context("cannot listen for Ctrl-C")?;
    let programs = build::programs()?;
    let mut world = bring_up(programs)?;
    if options.once {
        return once::run(&mut world, began);
    }
    tell(&world)?;
    while !STOPPED.load(Ordering::SeqCst) {
        world.check_plane()?;
        std::thread::sleep(WATCH_EVERY);
    }
    eprintln!("\nstopping");
    Ok(())
}

/// Brings the demo up. A step that fails says which and why.
pub fn bring_up(programs: Programs) -> anyhow::Result<World> {
    let step = |what: &str| eprintln!("{what}");
    let mut world = World::start(programs, &step)?;
    go_on()?;
    for device in DEVICES {
        go_on()?;
        step(&format!("enrolling {device}"));
        world.add_device(device)?;
    }
    for model in MODELS {
        go_on()?;
        step(&format!("packing, signing, pushing and deploying {model}"));
        world.publish(&Bundle::fixture(model, 1))?;
        let yaml = shell::project().join("xtask/demo").join(format!("{model}.yaml"));
        world.muster(&["apply", "-f", &yaml.to_string_lossy()])?;
    }
    step("waiting until the models serve on the devices");
    let whole = world.until("the models to serve", |world| {
        go_on()?;
        let deployments = world.deployments()?;
        let whole = deployments.iter().all(|deployment| deployment.ready >= deployment.wanted);
        Ok((whole && deployments.len() == MODELS.len()).then_some(()))
    });
    whole.with_context(|| world.muster(&["get", "deployments", "-o", "yaml"]).unwrap_or_default())?;
    Ok(world)
}

fn password(world: &World) -> &str {
    world.plane().admin_password.as_deref().unwrap_or("with the password that the control plane printed")
}

/// A device with a replica of digits, and the number of its agent's process.
fn a_holder_of_digits(world: &World) -> anyhow::Result<(String, u32)> {
    let holder = world.holders("digits")?.into_iter().next().context("digits has no replica")?;
    let process = world.agent_id(&holder)?;
    Ok((holder, process))
}

/// Version 2 of digits, packed and signed, to be pushed by hand.
fn next_digits(world: &World) -> anyhow::Result<std::path::PathBuf> {
    world.pack(&Bundle::fixture("digits", 2))
}

/// An error once the user asked to stop: long waits look here.
fn go_on() -> anyhow::Result<()> {
    anyhow::ensure!(!STOPPED.load(Ordering::SeqCst), "stopped");
    Ok(())
}

fn tell(world: &World) -> anyhow::Result<()> {
    let gateway = &world.plane().gateway;
    let rows = fixtures::held_out("linear_regression", 1)?;
    let digit = world.folder().join("digit.json");
    let digits = fixtures::held_out("digits", 1)?;
    std::fs::write(&digit, serde_json::json!({ "instances": [digits.instances[0]] }).to_string())?;
    let muster = world.programs().muster.display();
    let body = serde_json::json!({ "instances": [rows.instances[0]] });
    println!("\nTwo models serve on three devices. Ask one:\n");
    println!("  curl -d '{body}' {gateway}/v1/models/linear_regression:predict\n");
    println!("scikit-learn's own prediction for this row is {}.\n", rows.predictions[0]);
    let (holder, process) = a_holder_of_digits(world)?;
    println!("Watch it: {}   (log in as admin, {})\n", world.plane().plain_http, password(world));
    println!("What to try next:\n");
    println!("  export MUSTER_HOME={}", world.home().display());
    println!("  alias muster={muster}");
    println!("  muster get deployments; muster get devices");
    println!("  muster explain digits                 # where its replicas are, and why there");
    println!("  kill -9 {process}                         # {holder} dies; its replica of digits moves within seconds");
    println!("  muster get events                     # what happened since");
    println!("  muster push {}   # version 2 of digits rolls out, device by device", next_digits(world)?.display());
    println!("  muster rollout status digits --wait");
    println!("  muster rollout undo digits");
    println!("  muster scale linear_regression --replicas 1");
    println!("  muster predict digits --data @{}", digit.display());
    println!("  curl {}/v1/models/digits   # the model, asked on a device itself", world.door(&holder)?);
    println!("\nThe gateway is open on loopback for this demo only. Logs are in {}.", world.folder().display());
    println!("Ctrl-C stops all of it.");
    Ok(())
}
