//! What the agent is built for, and what each of them needs.

use clap::ValueEnum;
use clap::builder::PossibleValue;

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A Raspberry Pi 3 and later with a 64-bit system, a Jetson, most gateways of today.
    Aarch64Gnu,
    /// A Raspberry Pi 2 and later with a 32-bit system, older gateways.
    Armv7Gnu,
    /// 64-bit ARM with any C library or none.
    Aarch64Musl,
    /// A small PC with any C library or none.
    X86Musl,
    /// A small PC with glibc.
    X86Gnu,
}

/// The C library that a binary for glibc is linked against: that of Debian 10. Debian 11 has 2.31.
pub const GLIBC: (u32, u32) = (2, 28);
/// The newest C library that a binary may need: Debian 11's.
pub const GLIBC_MAX: (u32, u32) = (2, 31);

impl Target {
    /// Every target; the last is what this project is developed on, as devices get it.
    pub const ALL: [Self; 5] = [Self::Aarch64Gnu, Self::Armv7Gnu, Self::Aarch64Musl, Self::X86Musl, Self::X86Gnu];

    /// As the compiler spells it.
    pub fn triple(self) -> &'static str {
        match self {
            Self::Aarch64Gnu => "aarch64-unknown-linux-gnu",
            Self::Armv7Gnu => "armv7-unknown-linux-gnueabihf",
            Self::Aarch64Musl => "aarch64-unknown-linux-musl",
            Self::X86Musl => "x86_64-unknown-linux-musl",
            Self::X86Gnu => "x86_64-unknown-linux-gnu",
        }
    }

    /// As cargo-zigbuild spells it: with the version of glibc behind it, where there is one.
    pub fn with_glibc(self) -> String {
        let (major, minor) = GLIBC;
        if self.is_musl() { self.triple().to_owned() } else { format!("{}.{major}.{minor}", self.triple()) }
    }

    /// Whether the C library is inside the binary.
    pub fn is_musl(self) -> bool {
        matches!(self, Self::Aarch64Musl | Self::X86Musl)
    }

    /// The binutils of its processor: the command's prefix, and Debian's package.
    pub fn binutils(self) -> (&'static str, &'static str) {
        match self {
            Self::Aarch64Gnu | Self::Aarch64Musl => ("aarch64-linux-gnu-", "binutils-aarch64-linux-gnu"),
            Self::Armv7Gnu => ("arm-linux-gnueabihf-", "binutils-arm-linux-gnueabihf"),
            Self::X86Musl | Self::X86Gnu => ("", "binutils"),
        }
    }

    /// The processors that it is run on here, the oldest that it is for among them.
    pub fn processors(self) -> &'static [Processor] {
        match self {
            Self::Aarch64Gnu | Self::Aarch64Musl => &[CORTEX_A53],
            Self::Armv7Gnu => &[CORTEX_A7, CORTEX_A7_WITHOUT_NEON],
            Self::X86Musl | Self::X86Gnu => &[],
        }
    }
}

impl ValueEnum for Target {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.triple()))
    }
}

/// A processor that QEMU plays, an instruction that it lacks being an error.
#[derive(Debug)]
pub struct Processor {
    /// What to call it.
    pub name: &'static str,
    /// QEMU's program for it, of the package `qemu-user`.
    pub emulator: &'static str,
    /// QEMU's `-cpu`.
    pub model: &'static str,
    /// The architecture's number in an ELF file (`e_machine`).
    pub machine: u16,
    /// Whether its programs have pointers of 64 bits.
    pub wide: bool,
    /// Where Debian's cross packages put its C library, and which package brings that.
    pub library: (&'static str, &'static str),
    /// What a kernel on it says in `/proc/cpuinfo`. QEMU shows this machine's own, and the engine chooses
    /// its kernels by this file.
    pub cpuinfo: &'static str,
}

const CORTEX_A53: Processor = Processor {
    name: "cortex-a53",
    emulator: "qemu-aarch64",
    model: "cortex-a53",
    machine: 183,
    wide: true,
    library: ("/usr/aarch64-linux-gnu", "libc6-arm64-cross"),
    cpuinfo: "processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\
              CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\n\
              CPU revision\t: 4\n",
};

const CORTEX_A7: Processor = Processor {
    name: "cortex-a7",
    emulator: "qemu-arm",
    model: "cortex-a7",
    machine: 40,
    wide: false,
    library: ("/usr/arm-linux-gnueabihf", "libc6-armhf-cross"),
    cpuinfo: "processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nBogoMIPS\t: 38.40\n\
              Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm\n\
              CPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xc07\n\
              CPU revision\t: 5\n",
};

/// As the Cortex-A9 of some old gateways: 16 registers of the floating point unit, no NEON.
const CORTEX_A7_WITHOUT_NEON: Processor = Processor {
    name: "cortex-a7 without NEON",
    model: "cortex-a7,neon=off",
    cpuinfo: "processor\t: 0\nmodel name\t: ARMv7 Processor rev 1 (v7l)\nBogoMIPS\t: 38.40\n\
              Features\t: half thumb fastmult vfp edsp vfpv3 vfpv3d16 tls\nCPU implementer\t: 0x41\n\
              CPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xc07\nCPU revision\t: 5\n",
    ..CORTEX_A7
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn targets_are_named_as_the_compiler_names_them() {
        for target in Target::ALL {
            assert_eq!(Target::from_str(target.triple(), false), Ok(target));
            assert_eq!(target.is_musl(), target.triple().ends_with("musl"));
        }
        assert_eq!(Target::ALL.map(Target::triple).into_iter().collect::<BTreeSet<_>>().len(), Target::ALL.len());
        assert!(Target::from_str("aarch64", false).is_err());
    }

    #[test]
    fn an_old_c_library_is_asked_for() {
        assert_eq!(Target::Armv7Gnu.with_glibc(), "armv7-unknown-linux-gnueabihf.2.28");
        assert_eq!(Target::Aarch64Musl.with_glibc(), "aarch64-unknown-linux-musl");
        assert!(GLIBC <= GLIBC_MAX);
    }
}
