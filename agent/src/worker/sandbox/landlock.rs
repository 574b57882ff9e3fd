//! Files, sockets and signals: a worker reads what it was given and reaches nothing else.
//!
//! Landlock does not cover what a path's `stat` tells: a model can learn that a file exists, not what is
//! in it.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictSelf, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, Scope,
};

use super::profile::Accelerator;

/// The newest version that this build knows. Older kernels enforce the part that they know.
const NEWEST: ABI = ABI::V10;

/// What a kernel whose version is older than this one leaves open.
const OPEN_BEFORE: [(i32, &str); 6] = [
    (1, "landlock: every file that the agent's user may open is open to a model"),
    (3, "landlock before abi 3: files may be truncated"),
    (4, "landlock before abi 4: TCP is open to a model"),
    (5, "landlock before abi 5: devices take a model's commands"),
    (6, "landlock before abi 6: signals and abstract sockets of other processes are open to a model"),
    (9, "landlock before abi 9: sockets in the file system are open to a model"),
];
/// UDP has a line of its own, since only that one has no version before the newest.
const UDP_OPEN_BEFORE: (i32, &str) = (10, "landlock before abi 10: UDP is open to a model");

/// What a worker of this machine can still reach. A seccomp filter closes all of it but the files.
pub fn open_at(abi: i32, filtered: bool) -> impl Iterator<Item = &'static str> {
    let told = OPEN_BEFORE.into_iter().chain([UDP_OPEN_BEFORE]);
    told.filter(move |(since, _)| abi < *since && (*since == 1 || !filtered)).map(|(_, what)| what)
}

/// The version that this kernel and this build share; 0: no Landlock.
pub fn abi() -> i32 {
    // Asks for nothing, so it changes nothing: only the status is wanted.
    RestrictSelf::default().no_new_privs(false).apply().map_or(0, |status| version(status.landlock))
}

/// Confines this thread and those that it starts. Gives back the version that holds; 0: none.
pub fn close(read_only: &[PathBuf], accelerator: Accelerator) -> io::Result<i32> {
    let profile = accelerator.profile();
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    for path in read_only {
        ruleset = allow(ruleset, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    // Of the machine's own files there are fewer on some machines.
    for path in profile.reads.iter().map(Path::new).filter(|path| path.exists()) {
        ruleset = allow(ruleset, path, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    let devices = AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev;
    for path in profile.devices() {
        ruleset = allow(ruleset, &path, devices)?;
    }
    let status = ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(version(status.landlock))
}

fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> io::Result<RulesetCreated> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("cannot allow {}: {error}", path.display()));
    let handle = PathFd::new(path).map_err(|error| failed(&error))?;
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    ruleset.add_rule(PathBeneath::new(handle, access)).map_err(|error| failed(&error))
}

fn version(status: LandlockStatus) -> i32 {
    match status {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    }
}
