//! What the stories share: a world around the programs that `cargo xtask test` built, and a plane in
//! an attacker's hands, clients that never rest, servers without a fleet, a broker beside a device, networks that
//! are in the way.

pub mod hostile;
pub mod hungry;
pub mod impostor;
pub mod load;
pub mod local_broker;
pub mod models;
pub mod mutate;
pub mod network;
pub mod releases;
pub mod serving;

use std::path::{Path, PathBuf};

pub use muster_world::onnx;
use muster_world::{Bundle, Programs, World};

/// A world with a control plane and these devices.
pub fn world(devices: &[&str]) -> anyhow::Result<World> {
    let mut world = World::start(programs()?, &|_| {})?;
    for device in devices {
        world.add_device(device)?;
    }
    Ok(world)
}

/// The models of the demo, and of most stories.
pub const MODELS: [&str; 2] = ["linear_regression", "digits"];

/// A world with one device, `edge-1`, on which version 1 of both models serves.
pub fn both_models_serve() -> anyhow::Result<World> {
    let mut world = world(&["edge-1"])?;
    for model in MODELS {
        world.publish(&Bundle::fixture(model, 1))?;
        world.deploy(model, "1")?;
    }
    for model in MODELS {
        world.until_serves("edge-1", model, 1)?;
    }
    Ok(world)
}

/// The programs under test: where `MUSTER_PROGRAMS` says, or where cargo puts them.
pub fn programs() -> anyhow::Result<Programs> {
    let folder = match std::env::var_os("MUSTER_PROGRAMS") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?.ancestors().nth(2).map(PathBuf::from).unwrap_or_default(),
    };
    let missing = Programs::NAMES.iter().find(|name| !folder.join(name).exists());
    if let Some(name) = missing {
        let folder = folder.display();
        anyhow::bail!("{name} is not in {folder}; run `cargo xtask test`, or `cargo build --workspace` first");
    }
    Ok(Programs::in_folder(&folder))
}

/// A large number as `cargo xtask test` has it, a tenth, or whole as `cargo xtask test --long` has it.
pub fn tenth_or_whole(whole: usize) -> usize {
    if std::env::var_os("MUSTER_LONG").is_some() { whole } else { whole / 10 }
}

/// Copies the plane's state, as a backup would while it does not run.
pub fn copy_state(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let (from, to) = (from.join(name), to.join(name));
        match from.exists() {
            true => drop(std::fs::copy(from, to)?),
            false => drop(std::fs::remove_file(to)),
        }
    }
    Ok(())
}
