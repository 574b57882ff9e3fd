//! What confines a worker. Here: resource limits and no new privileges; files and system calls are
//! confined by Landlock and seccomp later, at this same place.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Files a worker may hold open: its streams, the model, a few more for the engine.
const FILES_MAX: u64 = 64;

/// What confines workers in this build, as facts name it.
pub const FACTS: [&str; 2] = ["no-new-privileges", "rlimits"];

/// Closes the sandbox around this process. Call before the first byte of a model is read.
pub fn close(memory_bytes: u64) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // RLIMIT_DATA counts private writable memory, mapped or on the heap (Linux 4.7 and later): what
    // a model takes, without the program's own text.
    let data = status_bytes("VmData").unwrap_or(0).saturating_add(memory_bytes);
    for (resource, most) in [(Resource::Data, data), (Resource::Nofile, FILES_MAX), (Resource::Core, 0)] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// A figure of `/proc/self/status` in bytes: `VmData`, `VmHWM`.
pub fn status_bytes(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_this_process_its_memory() {
        assert!(status_bytes("VmHWM").is_some_and(|bytes| bytes > 100_000));
        assert_eq!(status_bytes("VmNothing"), None);
    }
}
