//! A control group for each worker, where systemd (or a container) gave the agent a writable part of the
//! tree: the kernel then holds a worker to its memory and processor time, whatever it does.
//!
//! Only version 2 of the tree. Processes may be in its leaves alone, so the agent first moves itself into
//! one (`agent`), then gives each worker another (`worker-ID`).
//! Invariant: nothing is touched unless this agent is alone in its group.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tracing::warn;

/// Where version 2 is mounted, alone or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The agent's own leaf.
const AGENT: &str = "agent";
const WORKER_PREFIX: &str = "worker-";
/// As [`Pace`](super::sandbox::Pace) has it.
const PERIOD_US: u64 = 100_000;
/// The kernel takes no smaller quota.
const QUOTA_US_MIN: u64 = 1_000;
/// What an empty worker takes of the group's memory: the program's pages that it touched, page tables,
/// pipes. `RLIMIT_DATA` holds the model to its grant to the byte; the group holds what that does not count.
const EMPTY_WORKER_BYTES: u64 = 16 << 20;

/// The agent's part of the tree, once it is taken.
static TAKEN: OnceLock<Option<Delegated>> = OnceLock::new();

/// A part of the tree that is ours.
#[derive(Debug)]
pub struct Delegated {
    folder: PathBuf,
}

/// One worker's group. It goes when the last process in it is gone.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
}

/// Takes the agent's part of the tree, once, at start-up. Whether there is one.
pub fn take() -> bool {
    let taken = TAKEN.get_or_init(|| {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        MOUNTS.iter().find_map(|mount| Delegated::take(Path::new(mount), &own, std::process::id()))
    });
    taken.is_some()
}

/// Whether [`take`] found one.
pub fn taken() -> bool {
    TAKEN.get().is_some_and(Option::is_some)
}

/// Puts a worker that has not begun into a group of its own. Without one its other bounds hold.
pub fn confine(worker: u64, process: u32, memory_bytes: u64, cpu_milli: u32) -> Option<Group> {
    let delegated = TAKEN.get()?.as_ref()?;
    let group = delegated.group(worker, process, memory_bytes, cpu_milli);
    group.inspect_err(|error| warn!(worker, %error, "a worker has no control group; its other limits hold")).ok()
}

impl Delegated {
    /// `own` is what the kernel says of the agent's groups, `process` the agent.
    fn take(mount: &Path, own: &str, process: u32) -> Option<Self> {
        let here = mount.join(path_in(own)?);
        // An agent that was started again by itself, or by a systemd that was told to, is in its leaf.
        let in_leaf = here.file_name().is_some_and(|name| name == AGENT);
        let folder = if in_leaf { here.parent()?.to_owned() } else { here };
        let controllers = std::fs::read_to_string(folder.join("cgroup.controllers")).ok()?;
        let has = |name| controllers.split_whitespace().any(|controller| controller == name);
        if !has("memory") || !has("cpu") {
            return None;
        }
        let agent = folder.join(AGENT);
        let inside = std::fs::read_to_string(folder.join("cgroup.procs")).ok()?;
        let alone = if in_leaf { inside.trim().is_empty() } else { inside.trim() == process.to_string() };
        if !alone {
            return None;
        }
        let moved = Self::enter(&folder, &agent, process, in_leaf);
        if let Err(error) = moved {
            // As it was: the agent runs where it was started.
            let _ = std::fs::write(folder.join("cgroup.procs"), process.to_string());
            let _ = std::fs::remove_dir(&agent);
            // Not being allowed to is the usual case, and told with what is missing.
            tracing::debug!(%error, folder = %folder.display(), "no control groups");
            return None;
        }
        let delegated = Self { folder };
        delegated.clear();
        Some(delegated)
    }

    fn enter(folder: &Path, agent: &Path, process: u32, in_leaf: bool) -> io::Result<()> {
        if !in_leaf {
            make(agent)?;
            std::fs::write(agent.join("cgroup.procs"), process.to_string())?;
        }
        std::fs::write(folder.join("cgroup.subtree_control"), "+memory +cpu")
    }

    /// Groups of workers that an earlier agent left. Those with a process in them stay.
    fn clear(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(WORKER_PREFIX)) {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }

    fn group(&self, worker: u64, process: u32, memory_bytes: u64, cpu_milli: u32) -> io::Result<Group> {
        let group = Group { folder: self.folder.join(format!("{WORKER_PREFIX}{worker}")) };
        make(&group.folder)?;
        let put = |file: &str, text: String| std::fs::write(group.folder.join(file), text);
        put("memory.max", memory_bytes.saturating_add(EMPTY_WORKER_BYTES).to_string())?;
        // Only where the kernel has them: else memory would move to the swap, or one thread be killed alone.
        for (file, text) in [("memory.swap.max", "0"), ("memory.oom.group", "1")] {
            if group.folder.join(file).exists() {
                put(file, text.to_owned())?;
            }
        }
        let quota_us = (u64::from(cpu_milli) * (PERIOD_US / 1000)).max(QUOTA_US_MIN);
        put("cpu.max", format!("{quota_us} {PERIOD_US}"))?;
        // Last: it enters a group whose bounds hold.
        put("cgroup.procs", process.to_string())?;
        Ok(group)
    }
}

impl Group {
    /// Whether the kernel ended a process in it because there was no memory left.
    pub fn out_of_memory(&self) -> bool {
        let events = std::fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        tells_of_a_kill(&events)
    }
}

/// The agent's group below the mount, from what the kernel says of its groups.
pub fn path_in(own: &str) -> Option<&Path> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).map(Path::new)?;
    // A name that leads out of what is mounted here: the group is another's.
    path.components().all(|part| matches!(part, std::path::Component::Normal(_))).then_some(path)
}

/// Whether a group's `memory.events` tell that the kernel ended a process in it.
pub fn tells_of_a_kill(events: &str) -> bool {
    let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    killed.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.folder) {
            warn!(%error, folder = %self.folder.display(), "cannot remove a control group");
        }
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT_ID: u32 = 41;

    /// A folder with the files that the kernel makes for the agent's unit.
    fn unit(controllers: &str, inside: &str) -> tempfile::TempDir {
        let mount = tempfile::tempdir().expect("a folder");
        let unit = mount.path().join("system.slice/muster.service");
        std::fs::create_dir_all(&unit).expect("a folder");
        std::fs::write(unit.join("cgroup.controllers"), controllers).expect("a file");
        std::fs::write(unit.join("cgroup.procs"), inside).expect("a file");
        mount
    }

    fn take(mount: &tempfile::TempDir, own: &str) -> Option<Delegated> {
        Delegated::take(mount.path(), own, AGENT_ID)
    }

    const OWN: &str = "4:memory:/old\n0::/system.slice/muster.service\n";

    fn read(delegated: &Delegated, path: &str) -> String {
        std::fs::read_to_string(delegated.folder.join(path)).expect("a file")
    }

    #[test]
    fn the_agent_moves_into_a_leaf_and_each_worker_gets_another() {
        let mount = unit("cpuset cpu io memory pids\n", "41\n");
        let delegated = take(&mount, OWN).expect("it is ours");
        assert_eq!(read(&delegated, "agent/cgroup.procs"), "41");
        assert_eq!(read(&delegated, "cgroup.subtree_control"), "+memory +cpu");
        let group = delegated.group(7, 99, 64 << 20, 250).expect("a group");
        assert_eq!(read(&delegated, "worker-7/memory.max"), (80 << 20).to_string());
        assert_eq!(read(&delegated, "worker-7/cpu.max"), "25000 100000");
        assert_eq!(read(&delegated, "worker-7/cgroup.procs"), "99");
        // The kernel's own files: absent here, so nothing was made of that name.
        assert!(!group.folder.join("memory.swap.max").exists());
        assert!(!group.out_of_memory());
        for (events, out_of_memory) in [("low 0\nmax 3\noom 1\noom_kill 0\n", false), ("oom_kill 2\n", true)] {
            std::fs::write(group.folder.join("memory.events"), events).expect("a file");
            assert_eq!(group.out_of_memory(), out_of_memory, "{events}");
        }
    }

    #[test]
    fn memory_does_not_move_to_the_swap_where_the_kernel_can_say_so() {
        let mount = unit("cpu memory", "41\n");
        let delegated = take(&mount, OWN).expect("it is ours");
        let folder = delegated.folder.join("worker-1");
        std::fs::create_dir(&folder).expect("a folder");
        for file in ["memory.swap.max", "memory.oom.group"] {
            std::fs::write(folder.join(file), "max").expect("a file");
        }
        let _group = delegated.group(1, 99, u64::MAX, 1).expect("a group");
        assert_eq!(read(&delegated, "worker-1/memory.swap.max"), "0");
        assert_eq!(read(&delegated, "worker-1/memory.oom.group"), "1");
        assert_eq!(read(&delegated, "worker-1/memory.max"), u64::MAX.to_string());
        assert_eq!(read(&delegated, "worker-1/cpu.max"), "1000 100000");
    }

    #[test]
    fn groups_that_an_earlier_agent_left_go() {
        let mount = unit("cpu memory", "41\n");
        let left = mount.path().join("system.slice/muster.service/worker-3");
        std::fs::create_dir(&left).expect("a folder");
        let _delegated = take(&mount, OWN).expect("it is ours");
        assert!(!left.exists());
    }

    #[test]
    fn an_agent_that_is_in_its_leaf_already_stays_there() {
        let mount = unit("cpu memory", "");
        let leaf = "0::/system.slice/muster.service/agent\n";
        let delegated = take(&mount, leaf).expect("it is ours");
        assert!(delegated.folder.ends_with("muster.service"));
        assert!(!delegated.folder.join("agent").exists(), "nothing was moved");
    }

    #[test]
    fn what_is_not_ours_alone_is_left_as_it_is() {
        let untouched = |mount: &tempfile::TempDir, own: &str| {
            assert!(take(mount, own).is_none(), "{own}");
            assert!(!mount.path().join("system.slice/muster.service/agent").exists(), "{own}");
        };
        untouched(&unit("cpu memory", "41\n42\n"), OWN);
        untouched(&unit("cpu memory", "42\n"), OWN);
        untouched(&unit("cpu pids", "41\n"), OWN);
        untouched(&unit("memory", "41\n"), OWN);
        untouched(&unit("cpu memory", "41\n"), "4:memory:/system.slice/muster.service\n");
        untouched(&unit("cpu memory", "41\n"), "0::/../system.slice/muster.service\n");
        untouched(&unit("cpu memory", "41\n"), "0::/elsewhere\n");
        untouched(&unit("cpu memory", "42\n"), "0::/system.slice/muster.service/agent\n");
    }

    #[test]
    fn where_the_controllers_are_refused_everything_is_as_before() {
        let mount = unit("cpu memory", "41\n");
        let folder = mount.path().join("system.slice/muster.service");
        // Writing to a folder fails, as the kernel's refusal does.
        std::fs::create_dir(folder.join("cgroup.subtree_control")).expect("a folder");
        assert!(take(&mount, OWN).is_none());
        assert_eq!(std::fs::read_to_string(folder.join("cgroup.procs")).expect("a file"), "41");
    }
}
