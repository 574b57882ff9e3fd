//! Looks at `/sys/class/block` and the kernel's tables. No udev, no other program: what is read here is the kernel's.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::mounts::{Mount, mounts, swaps};
use super::{Bus, Drive, Machine, Use};

/// A sector, in the units of `size`, whatever the drive's own is.
const SIZE_UNIT: u64 = 512;
/// Layers of block devices on each other.
const LAYERS_MAX: usize = 16;
/// Folders between a drive and its controller.
const FOLDERS_ABOVE_MAX: usize = 32;
/// Lines of drives that software makes.
const SOFTWARE: [&str; 8] = ["loop", "dm-", "md", "zram", "ram", "nbd", "drbd", "bcache"];

/// Where drives say which one of their model they are: cards, NVMe, virtual drives, SCSI.
const SERIALS: [&str; 6] = ["device/cid", "device/serial", "serial", "device/wwid", "wwid", "device/vpd_pg80"];

/// Why a drive could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The kernel's tables are missing.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing of this name.
    #[error("this machine has no drive {0}")]
    NoDrive(String),
    /// A part of a drive.
    #[error("{part} is a part of the drive {whole}")]
    Part {
        /// What was named.
        part: String,
        /// The drive that it belongs to.
        whole: String,
    },
}

/// All drives, by name, as the kernel has them now.
pub fn list(machine: &Machine) -> Result<Vec<Drive>, LookError> {
    let folder = machine.sys().join("block");
    let failed = |source| LookError::Read { path: folder.clone(), source };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        names.insert(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    let tables = Tables::read(machine)?;
    Ok(names.iter().filter_map(|name| drive(machine, name, &tables)).collect())
}

/// One drive, by its kernel name, as it is now.
pub fn look(machine: &Machine, name: &str) -> Result<Drive, LookError> {
    let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let folder = machine.sys().join("class/block").join(name);
    if !is_name || !folder.exists() {
        return Err(LookError::NoDrive(name.to_owned()));
    }
    if folder.join("partition").exists() {
        let whole = folder.canonicalize().ok();
        let whole = whole.as_deref().and_then(Path::parent).and_then(Path::file_name);
        let whole = whole.map_or_else(|| "it belongs to".to_owned(), |name| name.to_string_lossy().into_owned());
        return Err(LookError::Part { part: name.to_owned(), whole });
    }
    drive(machine, name, &Tables::read(machine)?).ok_or_else(|| LookError::NoDrive(name.to_owned()))
}

/// The drive with this number (`major`, `minor`), as it is now, whatever its device file is called.
pub fn look_by_number(machine: &Machine, major: u32, minor: u32) -> Result<Drive, LookError> {
    let number = format!("{major}:{minor}");
    let nothing = || LookError::NoDrive(number.clone());
    let real = machine.sys().join("dev/block").join(&number).canonicalize().map_err(|_| nothing())?;
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).ok_or_else(nothing)?;
    look(machine, &name)
}

/// What is mounted and what swaps.
struct Tables {
    mounts: Vec<Mount>,
    swaps: Vec<String>,
}

impl Tables {
    /// Without them nothing can be said to be free, so that they cannot be read is an error.
    fn read(machine: &Machine) -> Result<Self, LookError> {
        let text = |name: &str| {
            let path = machine.proc().join(name);
            std::fs::read_to_string(&path).map_err(|source| LookError::Read { path, source })
        };
        // A kernel without swap has no table of it.
        let swap_text = match text("swaps") {
            Err(LookError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(Self { mounts: mounts(&text("self/mountinfo")?), swaps: swaps(&swap_text) })
    }
}

fn drive(machine: &Machine, name: &str, tables: &Tables) -> Option<Drive> {
    let folder = machine.sys().join("block").join(name);
    let real = folder.canonicalize().ok()?;
    let number = attribute(&real, "dev")?;
    let sectors: u64 = attribute(&real, "size")?.parse().ok()?;
    let sector = attribute(&real, "queue/logical_block_size").and_then(|text| text.parse().ok());
    let model = ["device/vendor", "device/model", "device/name"].map(|name| attribute(&real, name).unwrap_or_default());
    let [vendor, model, card] = model;
    // "ATA" and numbers of PCI are no makers.
    let vendor = if vendor == "ATA" || vendor.starts_with("0x") { "" } else { vendor.as_str() };
    let words = [vendor, &model, &card].into_iter().filter(|word| !word.is_empty());
    Some(Drive {
        name: name.to_owned(),
        sequence: attribute(&real, "diskseq").and_then(|text| text.parse().ok()),
        bytes: sectors.saturating_mul(SIZE_UNIT),
        sector_bytes: sector.filter(|sector: &u32| sector.is_power_of_two() && *sector >= 512).unwrap_or(512),
        bus: bus(name, &real),
        removable: attribute(&real, "removable").as_deref() == Some("1"),
        read_only: attribute(&real, "ro").as_deref() != Some("0"),
        model: words.collect::<Vec<_>>().join(" "),
        serial: serial(&real),
        uses: uses(machine, &real, &number, tables),
        number,
    })
}

/// The text of an attribute, trimmed; nothing where there is none.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    let text = std::fs::read(folder.join(name)).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

/// All that tells it from others of its model; for what is on USB that stands in a folder above.
fn serial(real: &Path) -> String {
    let own = SERIALS.iter().filter_map(|name| attribute(real, name));
    let above = real.ancestors().skip(1).take_while(|folder| !folder.ends_with("devices"));
    let above = above.take(FOLDERS_ABOVE_MAX).find_map(|folder| attribute(folder, "serial"));
    own.chain(above).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// How it is attached: the way to it through the machine's buses stands in its real path.
fn bus(name: &str, real: &Path) -> Bus {
    if SOFTWARE.iter().any(|line| name.starts_with(line)) {
        return Bus::Software;
    }
    let way = |part: &str| real.components().any(|step| step.as_os_str().to_string_lossy().starts_with(part));
    if way("usb") {
        return Bus::Usb;
    }
    match attribute(real, "device/type").as_deref() {
        Some("SD") => return Bus::Sd,
        Some("MMC") => return Bus::Emmc,
        _ => {}
    }
    match () {
        () if name.starts_with("mmcblk") => Bus::Emmc,
        () if name.starts_with("nvme") => Bus::Nvme,
        () if name.starts_with("vd") || name.starts_with("xvd") || way("virtio") => Bus::Virtual,
        () => Bus::Disk,
    }
}

/// What uses the drive, its partitions, and what stands on them.
fn uses(machine: &Machine, real: &Path, number: &str, tables: &Tables) -> Vec<Use> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<(PathBuf, String, usize)> = vec![(real.to_owned(), number.to_owned(), 0)];
    while let Some((folder, number, depth)) = open.pop() {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !seen.insert(name.clone()) || depth > LAYERS_MAX {
            continue;
        }
        let is_this = |path: &str| is_device(machine, path, &name);
        for mount in tables.mounts.iter().filter(|mount| mount.number == number || is_this(&mount.source)) {
            found.push(Use::Mounted { by: name.clone(), at: mount.at.clone() });
        }
        if tables.swaps.iter().any(|path| is_this(path)) {
            found.push(Use::Swap { by: name.clone() });
        }
        for holder in names(&folder.join("holders")) {
            found.push(Use::Held { by: holder.clone() });
            let holder = machine.sys().join("class/block").join(&holder);
            if let Ok(real) = holder.canonicalize() {
                let number = attribute(&real, "dev").unwrap_or_default();
                open.push((real, number, depth + 1));
            }
        }
        for part in names(&folder) {
            let part = folder.join(part);
            if part.join("partition").exists() {
                let number = attribute(&part, "dev").unwrap_or_default();
                open.push((part, number, depth + 1));
            }
        }
    }
    found
}

/// Whether a path of the tables means the block device of this name; links (`/dev/mapper/…`) are followed.
fn is_device(machine: &Machine, path: &str, name: &str) -> bool {
    let Some(below) = path.strip_prefix("/dev/") else { return false };
    let file = machine.device_file(below);
    below == name || file.canonicalize().ok().and_then(|real| real.file_name().map(|last| last == name)) == Some(true)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Block, Made};
    use super::super::{Wish, objections};
    use super::*;

    #[test]
    fn drives_are_read_as_the_kernel_tells_of_them() {
        let made = Made::new();
        made.add(
            &Block::new("sda", "8:0", "pci0000:00/ata1").size(1_000).attribute("device/vendor", "ATA").part("sda1"),
        );
        made.add(
            &Block::new("sdb", "8:16", "pci0000:00/usb1/1-2")
                .size(2_000)
                .removable()
                .attribute("device/vendor", "Acme"),
        );
        made.add(
            &Block::new("mmcblk0", "179:0", "platform/mmc0")
                .attribute("device/type", "SD")
                .attribute("device/name", "SC32G"),
        );
        made.add(&Block::new("mmcblk1", "179:8", "platform/mmc1").attribute("device/type", "MMC"));
        made.add(&Block::new("mmcblk1boot0", "179:16", "platform/mmc1").attribute("device/type", "MMC"));
        made.add(&Block::new("nvme0n1", "259:0", "pci0000:00/nvme0"));
        made.add(&Block::new("vda", "254:0", "pci0000:00/virtio0").attribute("device/vendor", "0x1af4"));
        made.add(&Block::new("loop0", "7:0", "virtual/block"));
        let drives = list(&made.machine()).expect("reads");
        let told: Vec<_> = drives
            .iter()
            .map(|drive| format!("{} {} {} {}", drive.name, drive.bus, drive.bytes, drive.model))
            .collect();
        let expected = [
            "loop0 software 0 ",
            "mmcblk0 SD 0 SC32G",
            "mmcblk1 eMMC 0 ",
            "mmcblk1boot0 eMMC 0 ",
            "nvme0n1 NVMe 0 ",
            "sda disk 512000 ",
            "sdb USB 1024000 Acme",
            "vda virtual 0 ",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn serials_are_read_from_the_drive_or_from_what_it_hangs_on() {
        let made = Made::new();
        let cases = [
            ("mmcblk0", "platform/mmc0", Some(("device/cid", "0353\n")), None, "0353"),
            ("nvme0n1", "pci/nvme0", Some(("wwid", "eui.1")), None, "eui.1"),
            ("sda", "pci/ata1", Some(("device/wwid", "naa.5")), None, "naa.5"),
            ("sdb", "pci/usb1/1-2/1-2:1.0/host0", None, Some("pci/usb1/1-2"), "A7"),
            ("sdc", "pci/usb2/2-1", None, None, ""),
        ];
        for (name, way, attribute, above, expected) in cases {
            let block = Block::new(name, "8:0", way);
            made.add(&attribute.iter().fold(block, |block, (name, value)| block.attribute(name, value)));
            if let Some(above) = above {
                made.write(&made.path().join("sys/devices").join(above).join("serial"), "A7\n");
            }
            assert_eq!(look(&made.machine(), name).expect("is there").serial, expected, "{name}");
        }
    }

    #[test]
    fn uses_are_found_through_layers_and_by_either_name() {
        let made = Made::new();
        made.add(&Block::new("sda", "8:0", "pci/ata1").size(9).part("sda1").part("sda2").holder("sda2", "dm-0"));
        made.add(&Block::new("dm-0", "253:0", "virtual").size(9).holder("dm-0", "dm-1"));
        made.add(&Block::new("dm-1", "253:1", "virtual").size(9));
        made.add(&Block::new("sdb", "8:16", "pci/usb1").size(9).part("sdb1"));
        made.add(&Block::new("sdc", "8:32", "pci/usb2").size(9).part("sdc1"));
        made.add(&Block::new("sdd", "8:48", "pci/usb3").size(9).part("sdd1"));
        // A file system over several devices has a number of its own; a mapped one is named by a link.
        made.link("dev/mapper/root", "../dm-1");
        made.mounts(&["253:1 /dev/mapper/root /", "0:40 /dev/sdb1 /data"]);
        made.swaps(&["/dev/sdc1"]);
        let all = |name: &str| look(&made.machine(), name).expect("is there").uses;
        let mounted = |by: &str, at: &str| Use::Mounted { by: by.to_owned(), at: at.to_owned() };
        assert!(all("sda").contains(&mounted("dm-1", "/")));
        assert!(all("sda").contains(&Use::Held { by: "dm-0".to_owned() }));
        assert_eq!(all("sdb"), [mounted("sdb1", "/data")]);
        assert_eq!(all("sdc"), [Use::Swap { by: "sdc1".to_owned() }]);
        assert_eq!(all("sdd"), []);
        let drive = look(&made.machine(), "sda").expect("is there");
        let against = objections(&drive, Wish { named: true, built_in: true, bytes: 0 });
        assert_eq!(against[0].to_string(), "this machine runs from it (mounted at /)");
    }

    #[test]
    fn what_is_no_drive_is_told_apart() {
        let made = Made::new();
        made.add(&Block::new("sdb", "8:16", "pci/usb1").size(9).part("sdb1"));
        let look = |name: &str| look(&made.machine(), name).map(|drive| drive.name).map_err(|error| error.to_string());
        assert_eq!(look("sdb"), Ok("sdb".to_owned()));
        assert_eq!(look("sdb1"), Err("sdb1 is a part of the drive sdb".to_owned()));
        for name in ["sdz", "", ".", "..", "../sdb"] {
            assert_eq!(look(name), Err(format!("this machine has no drive {name}")));
        }
        let nowhere = Machine::under(Path::new("/no/such/folder"));
        assert!(matches!(list(&nowhere), Err(LookError::Read { .. })));
    }
}
