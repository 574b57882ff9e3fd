//! The system calls that computing needs; every other one is refused, for all threads at once.
//!
//! The list is what the standard library, tract and either C library use once a process runs. It has no
//! socket, no new process, no file but to read it, no signal but to itself, no other process's memory.
//! Refused means `EPERM`, not an end: libraries try things and go on without them.
//!
//! With musl an `abort` ends by a fault instead of a signal, since its `tkill` reaches any process.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod filter;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub use filter::Filter;

/// Whether this kernel and this build have it. The file tells what the machine's kernel can; asking tells
/// whether that is who answers: an emulator of another processor or a kernel in user space may not know it.
pub fn available() -> bool {
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"))
        && std::fs::exists("/proc/sys/kernel/seccomp/actions_avail").unwrap_or(false)
        && rustix::thread::secure_computing_mode().is_ok()
}

/// The compiler of filters does not know this processor.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[derive(Debug)]
pub struct Filter;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl Filter {
    /// Nothing.
    pub fn compile(_: super::Accelerator) -> std::io::Result<Self> {
        Ok(Self)
    }

    /// Says that it closed nothing.
    pub fn close(&self) -> std::io::Result<bool> {
        Ok(false)
    }
}
