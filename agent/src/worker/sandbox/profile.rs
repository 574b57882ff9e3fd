//! What a worker may reach beside its model, for each kind of accelerator, as data.

use std::path::PathBuf;

/// What an engine computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    None,
    /// An NVIDIA card with CUDA. No engine of this build uses it yet, so it was never tried on a card.
    Cuda,
}

/// One accelerator's needs.
#[derive(Debug)]
pub struct Profile {
    /// Files and folders that may be read where they exist.
    pub reads: &'static [&'static str],
    /// Of `/dev`, what begins with one of these may be read, written and commanded.
    device_prefixes: &'static [&'static str],
    /// System calls beyond those of computing.
    pub calls: &'static [libc::c_long],
    /// Files that may be open at once: streams, the model, a few more for the engine.
    pub files_max: u64,
    /// Files may be opened for writing and memory be made executable: for devices, and for kernels that
    /// are compiled while they are loaded. Landlock still says which files.
    pub loose: bool,
}

/// tract reads `/proc/cpuinfo` on ARM; the standard library counts processors.
const PROCESSOR: Profile = Profile {
    reads: &["/proc/cpuinfo", "/sys/devices/system/cpu"],
    device_prefixes: &[],
    calls: &[],
    files_max: 64,
    loose: false,
};

/// The driver's libraries are loaded late, its devices are commanded, its memory is shared by descriptor.
const CUDA: Profile = Profile {
    reads: &[
        "/etc/ld.so.cache",
        "/lib",
        "/lib64",
        "/proc/cpuinfo",
        "/proc/devices",
        "/proc/driver/nvidia",
        "/proc/meminfo",
        "/proc/modules",
        "/proc/self",
        "/proc/sys/vm/mmap_min_addr",
        "/sys/bus/pci/devices",
        "/sys/devices",
        "/sys/module",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/cuda",
    ],
    device_prefixes: &["nvidia"],
    calls: &[
        libc::SYS_eventfd2,
        libc::SYS_ftruncate,
        libc::SYS_get_mempolicy,
        libc::SYS_ioctl,
        libc::SYS_mbind,
        libc::SYS_memfd_create,
        libc::SYS_mincore,
        libc::SYS_mlock,
        libc::SYS_munlock,
        libc::SYS_pipe2,
        libc::SYS_sched_get_priority_max,
        libc::SYS_sched_get_priority_min,
        libc::SYS_sched_setaffinity,
        libc::SYS_set_mempolicy,
    ],
    files_max: 1024,
    loose: true,
};

impl Accelerator {
    /// What it needs.
    pub fn profile(self) -> &'static Profile {
        match self {
            Self::None => &PROCESSOR,
            Self::Cuda => &CUDA,
        }
    }
}

impl Profile {
    /// The devices of this machine that the accelerator needs.
    pub fn devices(&self) -> Vec<PathBuf> {
        if self.device_prefixes.is_empty() {
            return vec![];
        }
        let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        let wanted = |name: &str| self.device_prefixes.iter().any(|prefix| name.starts_with(prefix));
        entries.filter(|entry| entry.file_name().to_str().is_some_and(wanted)).map(|entry| entry.path()).collect()
    }
}
