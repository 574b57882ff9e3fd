//! Resource limits of a process, no new privileges, and an end with the agent's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::profile::Accelerator;

/// `/proc/self/status` is about 1.5 kB.
const STATUS_BYTES_MAX: usize = 8192;

/// This process's status, open from before the sandbox was closed: afterwards no path leads there.
static STATUS: OnceLock<File> = OnceLock::new();

/// Makes [`status_bytes`] work for the rest of this process. Call before files are closed.
pub fn open_status() -> io::Result<()> {
    let file = File::open("/proc/self/status")?;
    // Opened before is as good.
    let _ = STATUS.set(file);
    Ok(())
}

/// Limits this process for good.
///
/// There is no limit on processes: `RLIMIT_NPROC` counts all of the user's, so that one worker's threads
/// would be refused because of what others run. The system calls that start a process are closed instead.
pub fn close(memory_bytes: u64, accelerator: Accelerator) -> io::Result<()> {
    // A worker that computes does not see its stream end. The signal comes when the thread ends that
    // started this process, which is one of the agent's runtime: they live as long as the agent.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    // RLIMIT_DATA counts private writable memory, mapped or on the heap (Linux 4.7 and later): what
    // a model takes, without the program's own text.
    let now = status_bytes("VmData").ok_or_else(|| io::Error::other("cannot tell what the empty worker takes"))?;
    let data = now.saturating_add(memory_bytes);
    let profile = accelerator.profile();
    let limits = [(Resource::Data, data), (Resource::Nofile, profile.files_max), (Resource::Core, 0)];
    // Nothing is written to files; streams do not count.
    let nothing_written = (!profile.loose).then_some((Resource::Fsize, 0));
    for (resource, most) in limits.into_iter().chain(nothing_written) {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// A figure of `/proc/self/status` in bytes: `VmData`, `VmHWM`. None before [`open_status`].
pub fn status_bytes(field: &str) -> Option<u64> {
    let file = STATUS.get()?;
    let mut bytes = [0; STATUS_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0).ok()?;
    status_figure(&String::from_utf8_lossy(&bytes[..length]), field)
}

/// A figure of the text in a process's `/proc/…/status`, in bytes.
pub fn status_figure(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_this_process_its_memory() {
        open_status().expect("it is there");
        assert!(status_bytes("VmHWM").is_some_and(|bytes| bytes > 100_000));
        assert_eq!(status_bytes("VmNothing"), None);
    }
}
