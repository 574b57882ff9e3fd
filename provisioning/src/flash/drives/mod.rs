//! The drives of this machine: what each is, and whether it may be overwritten.
//!
//! [`read`] looks at sysfs and the kernel's tables of mounts; [`judge`] decides, and knows no file.
//! Where those tables lie is a parameter, so that tests have machines of their own.

pub mod judge;
mod mounts;
mod read;
#[cfg(test)]
pub(crate) mod testing;

use std::path::{Path, PathBuf};

pub use judge::{Objection, Wish, objections};
pub use read::{LookError, list, look, look_by_number};

/// Where the kernel tells of its drives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine that this runs on.
    pub fn this() -> Self {
        Self::under(Path::new("/"))
    }

    /// A machine whose `sys`, `proc` and `dev` lie in a folder.
    pub fn under(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The device file of a drive.
    pub fn device_file(&self, name: &str) -> PathBuf {
        self.root.join("dev").join(name)
    }

    fn sys(&self) -> PathBuf {
        self.root.join("sys")
    }

    fn proc(&self) -> PathBuf {
        self.root.join("proc")
    }
}

/// How a drive is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// A stick, a reader, a disk in a case.
    Usb,
    /// A card in a slot of the machine itself.
    Sd,
    /// Memory that is soldered on.
    Emmc,
    /// A solid-state drive on PCI Express.
    Nvme,
    /// SATA, SAS, IDE.
    Disk,
    /// A virtual machine's.
    Virtual,
    /// Made by software of this machine: loop, device mapper, RAID, RAM.
    Software,
}

impl std::fmt::Display for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Usb => "USB",
            Self::Sd => "SD",
            Self::Emmc => "eMMC",
            Self::Nvme => "NVMe",
            Self::Disk => "disk",
            Self::Virtual => "virtual",
            Self::Software => "software",
        })
    }
}

/// One whole drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// The kernel's name: `sdb`, `mmcblk0`.
    pub name: String,
    /// `major:minor`.
    pub number: String,
    /// Counts up whenever a medium is put in or a name is given anew; kernels before 5.15 do not tell.
    pub sequence: Option<u64>,
    /// Its size.
    pub bytes: u64,
    /// Its smallest unit.
    pub sector_bytes: u32,
    /// How it is attached.
    pub bus: Bus,
    /// Whether the kernel says that it can be taken out. Says no for cards behind SDHCI.
    pub removable: bool,
    /// Whether it can only be read.
    pub read_only: bool,
    /// Maker and model as the drive says them; empty where it says nothing.
    pub model: String,
    /// What tells it from others of its model, as it or its reader says; empty where nothing does.
    pub serial: String,
    /// What uses it, or a part of it.
    pub uses: Vec<Use>,
}

/// What uses a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Use {
    /// A file system on it is mounted, maybe through layers.
    Mounted {
        /// The drive, its partition, or what lies on top of it.
        by: String,
        /// Where.
        at: String,
    },
    /// It is swapped to.
    Swap {
        /// The drive, its partition, or what lies on top of it.
        by: String,
    },
    /// Another block device stands on it: RAID, LVM, encryption.
    Held {
        /// That device.
        by: String,
    },
}
