//! Stock Debian for 64-bit ARM, as a person would have downloaded it: built once from Debian's packages, whose
//! scripts an emulated processor runs inside namespaces of their own, and kept in the cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use muster_provisioning::disk::cpio::Tree;
use muster_provisioning::image::package::Package;
use muster_world::output;

use crate::cross::mirror;
use crate::{build, setup, shell};

/// The emulator has to be one that needs no library: it runs inside the foreign system.
const EMULATOR: &str = "usr/bin/qemu-aarch64-static";

/// A system's root, as an ext4 file system with the label `rootfs`.
pub fn root(cloud_init: bool) -> anyhow::Result<PathBuf> {
    let kind = if cloud_init { "cloud" } else { "plain" };
    let scripts = shell::project().join("xtask/boot");
    let script = scripts.join("debian-root.sh");
    // Another script makes another root.
    let folder = setup::cached("boot", "debian", &[&script])?;
    let root = folder.join(format!("{kind}.ext4"));
    if root.exists() {
        return Ok(root);
    }
    setup::program("mmdebstrap", "mmdebstrap")?;
    setup::program("python3", "python3")?;
    std::fs::create_dir_all(&folder)?;
    let emulator = emulator(&folder)?;
    eprintln!("building Debian for 64-bit ARM, {kind} (minutes, once): {}", root.display());
    let part = root.with_added_extension("part");
    let log = std::fs::File::create(folder.join(format!("{kind}.log")))?;
    let mut command = Command::new("python3");
    command.arg(scripts.join("inside.py")).arg("sh").arg(&script).args([kind, &mirror()?]).arg(&part).arg(&emulator);
    let status = command.env("TMPDIR", &folder).stdout(log.try_clone()?).stderr(log).status()?;
    ensure!(status.success(), "cannot build Debian's root: {}", folder.join(format!("{kind}.log")).display());
    std::fs::rename(part, &root)?;
    Ok(root)
}

/// The emulator, from its package; nothing is installed.
fn emulator(folder: &std::path::Path) -> anyhow::Result<PathBuf> {
    let place = folder.join("qemu-aarch64-static");
    if place.exists() {
        return Ok(place);
    }
    output(Command::new("apt-get").args(["--quiet", "download", "qemu-user-static"]).current_dir(folder))?;
    let is_it = |path: &PathBuf| path.to_string_lossy().contains("qemu-user-static_");
    let file = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).find(is_it);
    let package = Package::read(&file.context("apt-get brought no package")?)?;
    let mut tree = Tree::new();
    package.unpack(&mut tree, &|path| path == EMULATOR)?;
    let (_, bytes) = tree.file(EMULATOR).context("the package has no emulator")?;
    let part = place.with_added_extension("part");
    std::fs::write(&part, bytes)?;
    output(Command::new("chmod").arg("0755").arg(&part))?;
    std::fs::rename(part, &place)?;
    Ok(place)
}

/// Where packages are kept between runs.
pub fn packages() -> anyhow::Result<PathBuf> {
    Ok(build::target()?.join("boot/packages"))
}
