//! What confines a worker, closed before the first byte of a model is read and never opened again.
//!
//! [`landlock`] leaves it the files of its model to read, [`seccomp`] the system calls of computing,
//! [`limits`] the memory that it was granted; [`cpu`] counts its processor time. What an accelerator
//! needs beside is in [`profile`]. The parent adds a [`cgroup`](super::cgroup) where it has one.
//! Invariant: what the kernel cannot give is said ([`Closed::missing`]); what it can give and fails to is
//! an error, and no model is loaded.

pub mod cpu;
pub mod landlock;
pub mod limits;
pub mod profile;
pub mod seccomp;

use std::io;
use std::path::PathBuf;

pub use cpu::Pace;
pub use limits::{status_bytes, status_figure};
pub use profile::Accelerator;

/// What a worker may have.
#[derive(Debug, Clone)]
pub struct Confinement {
    /// Bytes of memory beyond what the process takes now.
    pub memory_bytes: u64,
    /// Thousandths of a core; none: as many as the machine has.
    pub cpu_milli: Option<u32>,
    /// Files, or folders with all that is in them, that may be read afterwards. Each must exist.
    pub read_only: Vec<PathBuf>,
    /// The accelerator that its engine computes on.
    pub accelerator: Accelerator,
}

/// Which measures hold, as facts name them, and which the kernel or this build cannot give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// For instance `landlock abi 7`.
    pub holds: Vec<String>,
    /// What stays open, as a sentence for the agent's log.
    pub missing: Vec<String>,
}

/// Closes the sandbox around this process. It must have one thread: Landlock takes the calling thread and
/// those that it starts afterwards.
pub fn close(confinement: &Confinement) -> io::Result<Closed> {
    limits::open_status()?;
    // The clocks are looked for once, with what is refused afterwards.
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // What is made for closing is no memory of the model's, so it is made before memory is limited.
    let filter = seccomp::Filter::compile(confinement.accelerator)?;
    let abi = landlock::close(&confinement.read_only, confinement.accelerator)?;
    limits::close(confinement.memory_bytes, confinement.accelerator)?;
    // Last: it refuses what the others use.
    let filtered = filter.close()?;
    Ok(closed(abi, filtered, confinement.cpu_milli.is_some()))
}

/// What [`close`] will hold on this machine, and what it will not.
pub fn available() -> Closed {
    closed(landlock::abi(), seccomp::available(), true)
}

fn closed(abi: i32, filtered: bool, paced: bool) -> Closed {
    let mut holds = vec!["no-new-privileges".to_owned(), "rlimits".to_owned()];
    let mut missing = vec![];
    if abi > 0 {
        holds.push(format!("landlock abi {abi}"));
    }
    if filtered {
        holds.push("seccomp".to_owned());
    } else {
        missing.push("seccomp: every system call is open to a model".to_owned());
    }
    if paced {
        holds.push("paced cpu".to_owned());
    }
    missing.extend(landlock::open_at(abi, filtered).map(str::to_owned));
    holds.sort();
    Closed { holds, missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_and_what_is_missing_is_said() {
        let check = |abi, filtered, holds: &str, missing: usize| {
            let closed = closed(abi, filtered, true);
            assert_eq!((closed.holds.join(", ").as_str(), closed.missing.len()), (holds, missing), "{closed:?}");
        };
        check(7, true, "landlock abi 7, no-new-privileges, paced cpu, rlimits, seccomp", 0);
        check(1, true, "landlock abi 1, no-new-privileges, paced cpu, rlimits, seccomp", 0);
        check(0, true, "no-new-privileges, paced cpu, rlimits, seccomp", 1);
        // seccomp closes what old versions of Landlock leave open; without it that is told one by one.
        check(10, false, "landlock abi 10, no-new-privileges, paced cpu, rlimits", 1);
        check(4, false, "landlock abi 4, no-new-privileges, paced cpu, rlimits", 5);
    }
}
