//! Appliance images: a whole small system around the agent, from Debian's packages, written into a file that
//! boots by UEFI. [`apt`] fetches the packages; [`system`] puts what runs on the device together; [`build`]
//! lays it out on a disk.
//!
//! ```text
//! muster-esp   FAT    systemd-boot; loader/entries; muster/a, muster/b: a kernel and an initrd each;
//!                     muster/enrol and muster/network: what any computer may write
//! muster-data  ext4   made at the first boot, as large as the disk allows; the device's key and its models
//! ```
//!
//! The system itself is the initrd, in memory, read-only: power may go at any moment. Its scripts lie in
//! `provisioning/device/`, so that an image takes no compiler for the device (decision 26 says why scripts).

pub mod apt;
pub mod build;
mod elf;
pub mod entry;
mod modules;
pub mod package;
pub mod system;

use std::fmt;

/// What a device's processor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// 64-bit ARM.
    Arm64,
    /// A PC.
    Amd64,
}

impl Architecture {
    /// The number in its programs.
    pub(crate) fn machine(self) -> u16 {
        match self {
            Self::Arm64 => elf::ARM64,
            Self::Amd64 => elf::X86_64,
        }
    }

    /// The folder of its libraries.
    pub(crate) fn libraries(self) -> &'static str {
        match self {
            Self::Arm64 => "usr/lib/aarch64-linux-gnu",
            Self::Amd64 => "usr/lib/x86_64-linux-gnu",
        }
    }

    /// systemd-boot's file, and where the firmware looks for it.
    pub(crate) fn loader(self) -> (&'static str, &'static str) {
        match self {
            Self::Arm64 => ("usr/lib/systemd/boot/efi/systemd-bootaa64.efi", "EFI/BOOT/BOOTAA64.EFI"),
            Self::Amd64 => ("usr/lib/systemd/boot/efi/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"),
        }
    }

    /// Where its kernel speaks, the serial line last: there is what looks for the first word of a machine
    /// without a screen.
    pub(crate) fn consoles(self) -> &'static [&'static str] {
        match self {
            Self::Arm64 => &["console=tty0", "console=ttyS0,115200", "console=ttyAMA0,115200"],
            Self::Amd64 => &["console=tty0", "console=ttyS0,115200"],
        }
    }
}

/// The number of the processor that a program is for; none: it is no program.
pub fn machine(program: &[u8]) -> Option<u16> {
    elf::needs(program).map(|needs| needs.machine)
}

/// The processor that a program is for; none: another one, or it is no program.
pub fn architecture(program: &[u8]) -> Option<Architecture> {
    let machine = machine(program)?;
    [Architecture::Arm64, Architecture::Amd64].into_iter().find(|architecture| architecture.machine() == machine)
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arm64 => "arm64",
            Self::Amd64 => "amd64",
        })
    }
}

/// Which of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// For boards and PCs.
    Generic,
    /// For virtual machines: a third of the size.
    Cloud,
}
