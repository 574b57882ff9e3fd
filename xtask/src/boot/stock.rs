//! The agent put into systems as people have them: `muster image patch`, then a first boot without a hand on it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use muster_provisioning::disk::table::{END_SECTORS, FIRST_SECTOR, Kind, Planned};
use muster_provisioning::disk::{SECTOR, Window, fat, table};
use muster_provisioning::image::apt::{self, Wanted};
use muster_provisioning::image::package::Package;
use muster_provisioning::image::{Architecture, Kernel, system};
use muster_world::output;
use serde_json::Value;

use super::debian;
use super::fleet::Fleet;
use super::machine::Machine;

/// The partition that the firmware reads, in MiB; cards have more.
const BOOT_MIB: u64 = 288;
/// systemd and cloud-init in a machine that has no graphics.
const MEMORY_MIB: u32 = 1024;

/// A Debian that cloud-init does not set up: the agent goes into its root.
pub fn without_cloud_init(fleet: &mut Fleet) -> anyhow::Result<String> {
    patch(fleet, false, "inject")
}

/// A Debian with cloud-init, which reads its boot partition as Ubuntu's for the Raspberry Pi does.
pub fn with_cloud_init(fleet: &mut Fleet) -> anyhow::Result<String> {
    patch(fleet, true, "nocloud")
}

fn patch(fleet: &mut Fleet, cloud_init: bool, way: &str) -> anyhow::Result<String> {
    let device = if cloud_init { "stock-cloud" } else { "stock-plain" };
    let folder = fleet.world.folder().to_owned();
    let stock = folder.join("stock.img");
    image(&stock, &debian::root(cloud_init)?)?;
    let (patched, enrol) = (folder.join("patched.img"), folder.join("stock.enrol"));
    std::fs::write(&enrol, fleet.enrolment(device)?)?;
    let mut command = fleet.muster(&["image", "patch", "--yes", "--json"]);
    command.arg(&stock).arg("--release").arg(&fleet.release).arg("--enrol").arg(&enrol).arg("--output").arg(&patched);
    let told: Value = serde_json::from_str(&output(&mut command)?)?;
    ensure!(told["way"] == way, "it went another way in: {told}");
    let mut machine = Machine::start_with(&patched, &fleet.log(device), MEMORY_MIB)?;
    fleet.until_connected(device, &mut machine)?;
    let seconds = machine.seconds();
    machine.cut()?;
    for file in [stock, patched] {
        std::fs::remove_file(file)?;
    }
    Ok(format!("{way}: connected {seconds:.0} s after power-on"))
}

/// A system's image as one would have downloaded it: a root, and a boot partition with a kernel.
fn image(to: &Path, root: &Path) -> anyhow::Result<()> {
    let (boot, root_sectors) = ((BOOT_MIB << 20) / SECTOR, std::fs::metadata(root)?.len().div_ceil(SECTOR));
    let sectors = (FIRST_SECTOR + boot + root_sectors + END_SECTORS).next_multiple_of(FIRST_SECTOR);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(to)?;
    file.set_len(sectors * SECTOR)?;
    let planned =
        |name, kind, first, sectors, id| Planned { name, kind, first, sectors, id: uuid::Uuid::from_u128(id) };
    let partitions = [
        planned("boot", Kind::Efi, FIRST_SECTOR, boot, 1),
        planned("rootfs", Kind::Linux, FIRST_SECTOR + boot, root_sectors, 2),
    ];
    table::write(&mut file, sectors, uuid::Uuid::from_u128(3), &partitions)?;
    let files = boot_files()?;
    let mut window = Window::new(&file, FIRST_SECTOR * SECTOR, boot * SECTOR)?;
    fat::format(&mut window, "system-boot", 7)?;
    fat::change(&mut window, |system| files.iter().try_for_each(|(path, bytes)| fat::put(system, path, bytes)))?;
    drop(file);
    let seek = format!("seek={}", (FIRST_SECTOR + boot) * SECTOR);
    let mut copy = std::process::Command::new("dd");
    copy.arg(format!("if={}", root.display())).arg(format!("of={}", to.display()));
    output(copy.args(["bs=1M", "oflag=seek_bytes", &seek, "conv=notrunc,sparse", "status=none"])).map(drop)
}

/// systemd-boot, a kernel, and an initrd that mounts the root and hands over.
fn boot_files() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let wanted = Wanted { architecture: Architecture::Arm64, kernel: Kernel::Cloud, mirror: None };
    let packages: Vec<PathBuf> = apt::fetch(&wanted, &debian::packages()?, &|text| eprintln!("  {text}"))?;
    let packages = packages.iter().map(|file| Package::read(file)).collect::<Result<Vec<_>, _>>()?;
    let boot = system::boot_only(&packages, Architecture::Arm64, INIT)?;
    let entry = "title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions root=LABEL=rootfs rw console=ttyAMA0\n";
    Ok(vec![
        ("EFI/BOOT/BOOTAA64.EFI".to_owned(), boot.loader.to_vec()),
        ("loader/entries/debian.conf".to_owned(), entry.as_bytes().to_vec()),
        ("vmlinuz".to_owned(), boot.linux.to_vec()),
        ("initrd.img".to_owned(), boot.initrd),
    ])
}

/// What the initrd does.
const INIT: &str = include_str!("../../boot/stock-init");
