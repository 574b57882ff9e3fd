//! The disk that holds the agent's data: what it is, how worn it is, whether it can be written.

use std::path::{Path, PathBuf};

use muster_shared::hardware::{Medium, Reserve, Storage};
use muster_shared::limits::MOUNTS_MAX;

use super::roots::{Roots, clean, entries, name, number, table, text};

/// Mounts that are looked at.
const MOUNTS_LOOKED_AT_MAX: usize = 1024;
/// Volumes on top of one another, down to a disk.
const LAYERS_MAX: usize = 4;
/// File systems that people mean to write to.
const WRITABLE: [&str; 9] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "ubifs"];

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The device's numbers; a major of 0: not one of a disk.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether this mount may only be read.
    pub read_only: bool,
    /// Whether the file system itself may only be read, however it is mounted.
    pub all_read_only: bool,
    /// Which file system.
    pub filesystem: String,
    /// What is mounted, as it was named.
    pub source: String,
}

/// Reads `mountinfo`; what is no mount in it is passed over.
pub fn mounts(table: &str) -> Vec<Mount> {
    table.lines().take(MOUNTS_LOOKED_AT_MAX).filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (first, second) = line.split_once(" - ")?;
    let first: Vec<&str> = first.split(' ').collect();
    let [_, _, device, _, point, options, ..] = first[..] else { return None };
    let (major, minor) = device.split_once(':')?;
    let second: Vec<&str> = second.split(' ').collect();
    let [filesystem, source, super_options, ..] = second[..] else { return None };
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: PathBuf::from(unescape(point)),
        read_only: is_read_only(options),
        all_read_only: is_read_only(super_options),
        filesystem: clean(filesystem),
        source: unescape(source),
    })
}

/// `\040` is a space in these tables.
fn unescape(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The mounts of this process.
pub fn read_mounts(roots: &Roots) -> Vec<Mount> {
    mounts(&table(&roots.proc.join("self/mountinfo")).unwrap_or_default())
}

/// Where `path` lies: the mount with the longest point above it, of several the last.
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.as_os_str().len())
}

/// File systems that are meant to be written and may only be read: after an error a kernel stops writing.
pub fn read_only(mounts: &[Mount]) -> Vec<String> {
    let meant = |mount: &&Mount| WRITABLE.contains(&mount.filesystem.as_str()) && mount.all_read_only;
    let mut points: Vec<String> =
        mounts.iter().filter(meant).map(|mount| clean(&mount.point.display().to_string())).collect();
    points.sort();
    points.dedup();
    points.truncate(MOUNTS_MAX);
    points
}

/// What holds `path`, which has no links in it.
pub fn storage(roots: &Roots, mounts: &[Mount], path: &Path) -> Option<Storage> {
    let mount = mount_of(mounts, path)?;
    let disk = disk_of(roots, mount);
    let (wear_percent, reserve) = disk.as_ref().map_or((None, None), |disk| (wear(disk), reserve(disk)));
    let medium = match mount.filesystem.as_str() {
        "tmpfs" | "ramfs" => Some(Medium::Memory),
        "ubifs" | "jffs2" => Some(Medium::Flash),
        _ => disk.as_ref().and_then(|disk| medium(disk)),
    };
    Some(Storage {
        device: disk.map(|disk| name(&disk)),
        medium,
        filesystem: Some(mount.filesystem.clone()),
        read_only: mount.read_only || mount.all_read_only,
        wear_percent,
        reserve,
    })
}

/// The whole disk below a mount, as its folder in `/sys`.
fn disk_of(roots: &Roots, mount: &Mount) -> Option<PathBuf> {
    let (major, minor) = mount.device;
    let block = match mount.source.strip_prefix("/dev/") {
        _ if major != 0 => roots.sys.join(format!("dev/block/{major}:{minor}")),
        // File systems over several devices have numbers of their own.
        Some(source) => roots.sys.join("class/block").join(Path::new(source).file_name()?),
        None => return None,
    };
    let mut block = block.canonicalize().ok()?;
    for _ in 0..LAYERS_MAX {
        if block.join("partition").exists() {
            block = block.parent()?.to_owned();
        }
        match entries(&block.join("slaves"), "").first() {
            Some(below) => block = below.canonicalize().ok()?,
            None => return Some(block),
        }
    }
    None
}

fn medium(disk: &Path) -> Option<Medium> {
    let device = |file: &str| text(&disk.join("device").join(file));
    let is_virtual = || device("vendor").is_some_and(|maker| ["QEMU", "VMware", "Msft", "VBOX"].contains(&&*maker));
    let name = name(disk);
    let begins = |words: &[&str]| words.iter().any(|word| name.starts_with(word));
    match () {
        () if begins(&["mmcblk"]) => match device("type")?.as_str() {
            "MMC" => Some(Medium::Emmc),
            "SD" => Some(Medium::SdCard),
            _ => None,
        },
        () if begins(&["nvme"]) => Some(Medium::Nvme),
        () if begins(&["vd", "xvd"]) => Some(Medium::Virtual),
        () if begins(&["mtdblock", "ubiblock"]) => Some(Medium::Flash),
        () if begins(&["zram", "ram"]) => Some(Medium::Memory),
        () if begins(&["sd"])
            && disk.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb")) =>
        {
            Some(Medium::Usb)
        }
        () if begins(&["sd"]) && is_virtual() => Some(Medium::Virtual),
        () if begins(&["sd"]) => match number::<u8>(&disk.join("queue/rotational"))? {
            0 => Some(Medium::Ssd),
            _ => Some(Medium::HardDisk),
        },
        () => None,
    }
}

/// Used life of an eMMC: two numbers in tenths, of its two kinds of memory.
fn wear(disk: &Path) -> Option<u8> {
    parse_wear(&text(&disk.join("device/life_time"))?)
}

/// `0x01 0x03` is at most 30 %; a zero says nothing.
pub fn parse_wear(text: &str) -> Option<u8> {
    let tenths = text.split_whitespace().filter_map(|word| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let worst = tenths.filter(|tenths| (1..=11).contains(tenths)).max()?;
    Some(worst * 10)
}

fn reserve(disk: &Path) -> Option<Reserve> {
    match text(&disk.join("device/pre_eol_info"))?.as_str() {
        "0x01" | "0x1" => Some(Reserve::Normal),
        "0x02" | "0x2" => Some(Reserve::Warning),
        "0x03" | "0x3" => Some(Reserve::Urgent),
        _ => None,
    }
}
