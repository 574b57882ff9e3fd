//! `cargo xtask measure`: what docs/figures.md records.

use std::path::Path;

use anyhow::Context as _;
use muster_world::{Bundle, Programs, World};

use crate::build;
use crate::demo::MODELS;

const DEVICE: &str = "edge-1";

/// Measures the release build.
pub fn run() -> anyhow::Result<()> {
    // The plane and the command line may be any build; what is measured is the agent.
    let programs = Programs { agent: build::release_agent()?, ..build::programs()? };
    let size = std::fs::metadata(&programs.agent)?.len();
    // One device: agents beside each other would share pages that each has for itself on its own.
    let mut world = World::start(programs, &|what| eprintln!("{what}"))?;
    world.add_device(DEVICE)?;
    for model in MODELS {
        world.publish(&Bundle::fixture(model, 1))?;
        world.deploy(model, "latest")?;
        world.until_serves(DEVICE, model, 1)?;
    }
    let agent = world.agent_id(DEVICE)?;
    let main = pss_kib(agent)?;
    let workers: Vec<u64> = children(agent)?.into_iter().map(pss_kib).collect::<Result<_, _>>()?;
    let all: u64 = main + workers.iter().sum::<u64>();
    println!("agent binary (release, stripped): {:.1} MB", size as f64 / 1e6);
    println!("agent, main process, idle, PSS: {:.1} MiB", main as f64 / 1024.0);
    for worker in workers {
        println!("a worker with its model, idle, PSS: {:.1} MiB", worker as f64 / 1024.0);
    }
    println!("all together, two models loaded, PSS: {:.1} MiB", all as f64 / 1024.0);
    Ok(())
}

/// Proportional set size: shared pages are divided among the processes that share them.
pub fn pss_kib(id: u32) -> anyhow::Result<u64> {
    let path = Path::new("/proc").join(id.to_string()).join("smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("the kernel tells no PSS")?;
    Ok(line.split_whitespace().next().context("no figure")?.parse()?)
}

fn children(of: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = vec![];
    for task in std::fs::read_dir(Path::new("/proc").join(of.to_string()).join("task"))? {
        let text = std::fs::read_to_string(task?.path().join("children"))?;
        found.extend(text.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
    }
    Ok(found)
}
