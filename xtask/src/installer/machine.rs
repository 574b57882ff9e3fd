//! A clean system, and a person at its shell: what is typed goes to a shell over a pipe, line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_world::{output, until};

/// How long one line may take: an agent starts within.
const LINE_DEADLINE: Duration = Duration::from_secs(180);

/// What a container's manager does before an init: a device folder with the usual few, files of the kernel, and
/// nobody at a console. `$1` is the system, `$2` its control group.
const BOOT: &str = r#"
set -eu
echo $$ >"$2/cgroup.procs"
exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -c '
    set -eu
    mount --make-rprivate /
    mount --bind "$1" "$1"
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/dev"
    for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
        mknod -m 666 "$1/dev/${node% *}" c 1 "${node#* }"
    done
    ln -s /proc/self/fd "$1/dev/fd"
    mount -t tmpfs tmpfs "$1/run"
    mount -t tmpfs tmpfs "$1/tmp"
    mount -t sysfs -o ro sysfs "$1/sys"
    mount -t cgroup2 cgroup2 "$1/sys/fs/cgroup"
    for unit in console-getty.service getty.target systemd-logind.service e2scrub_reap.service; do
        ln -sf /dev/null "$1/etc/systemd/system/$unit"
    done
    cd "$1"
    # Units with a file system of their own want a real root, not a chroot.
    pivot_root . .
    umount -l .
    cd /
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
' boot "$1"
"#;

/// A system that runs.
pub struct Machine {
    root: PathBuf,
    log: PathBuf,
    shell: Child,
    lines: usize,
    /// Ends after the shell: fields are dropped after what holds them.
    _init: Option<Init>,
}

/// An init that runs a system, and its control group.
struct Init {
    process: Child,
    group: PathBuf,
}

/// How a line ended.
#[derive(Debug)]
pub struct Done {
    /// Whether it ended well.
    pub good: bool,
    /// What it printed.
    pub told: String,
}

/// The files of a system: where, and how long, from when, whose and with which rights.
pub type Tree = BTreeMap<PathBuf, (u64, i64, u32, u32)>;

impl Machine {
    /// Unpacks a clean system.
    pub fn unpack(archive: &Path, root: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(root)?;
        let mut tar = Command::new("tar");
        output(
            tar.args(["--extract", "--numeric-owner", "--same-permissions", "--file"]).arg(archive).arg("-C").arg(root),
        )
        .map(drop)
    }

    /// Sits down at a shell of the system. What stands in `before` starts it: another kind of machine, or
    /// somebody who watches. All its processes end with it.
    pub fn enter(root: &Path, shell: &str, before: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", root.join("proc").display()));
        command.args(before).arg("chroot").arg(root).arg(shell);
        Self::sit_down(root, &mut command, None)
    }

    /// Starts the init of the system as a container would, and sits down at a shell.
    pub fn boot(root: &Path) -> anyhow::Result<Self> {
        let group = init_group()?;
        let mut command = Command::new("sh");
        command.args(["-c", BOOT, "boot"]).arg(root).arg(&group);
        let console = File::create(root.with_extension("console"))?;
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let process = command.spawn().context("cannot start the clean system")?;
        let mut init = Init { process, group };
        let children = format!("/proc/{0}/task/{0}/children", init.process.id());
        let first = until("the clean system's init", LINE_DEADLINE, || {
            if let Some(status) = init.process.try_wait()? {
                let told = std::fs::read_to_string(root.with_extension("console"))?;
                bail!("it ended ({status}): {told}");
            }
            let children = std::fs::read_to_string(&children).unwrap_or_default();
            let child = children.split_whitespace().next().map(str::to_owned);
            // It is the init once that has taken the place of the shell that prepared its files.
            Ok(child.filter(|child| {
                std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "systemd")
            }))
        })?;
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--target", &first]);
        command.arg("sh");
        let mut machine = Self::sit_down(root, &mut command, Some(init))?;
        machine.line("systemctl is-system-running --wait")?;
        Ok(machine)
    }

    fn sit_down(root: &Path, command: &mut Command, init: Option<Init>) -> anyhow::Result<Self> {
        let log = root.with_extension("log");
        let to = File::create(&log)?;
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(to.try_clone()?).stderr(to);
        let shell = command.spawn().context("cannot enter the clean system")?;
        Ok(Self { root: root.to_owned(), log, shell, lines: 0, _init: init })
    }

    /// Types a line and waits until it is done.
    pub fn line(&mut self, line: &str) -> anyhow::Result<Done> {
        self.lines += 1;
        let before = std::fs::read_to_string(&self.log)?.len();
        let mark = format!("line {} ended with ", self.lines);
        let input = self.shell.stdin.as_mut().context("the shell has no input")?;
        writeln!(input, "{line}\necho \"{mark}$?.\"")?;
        input.flush()?;
        let found = until("a line in the clean system", LINE_DEADLINE, || {
            let told = String::from_utf8_lossy(&std::fs::read(&self.log)?)[before..].to_owned();
            if let Some((told, code)) = told.split_once(&mark)
                && let Some((code, _)) = code.split_once('.')
            {
                return Ok(Some(Done { good: code == "0", told: told.to_owned() }));
            }
            match self.shell.try_wait()? {
                Some(status) => bail!("the shell ended ({status}): {told}"),
                None => Ok(None),
            }
        });
        found.with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// A path in the system, from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Every file of the system but what the kernel shows.
    pub fn tree(&self) -> anyhow::Result<Tree> {
        let mut tree = Tree::new();
        let mut folders = vec![self.root.clone()];
        let shown: BTreeSet<PathBuf> = ["proc", "sys", "dev"].iter().map(|name| self.root.join(name)).collect();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                let about = std::fs::symlink_metadata(&path)?;
                if shown.contains(&path) {
                    continue;
                }
                let is_folder = about.is_dir();
                // A folder's time changes with a file that comes and goes.
                let (bytes, time) = if is_folder { (0, 0) } else { (about.len(), about.mtime()) };
                tree.insert(path.clone(), (bytes, time, about.uid(), about.mode()));
                if is_folder {
                    folders.push(path);
                }
            }
        }
        Ok(tree)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The shell ends with its input, and everything in its system with it.
        drop(self.shell.stdin.take());
        let ended = until("a clean system to end", Duration::from_secs(10), || Ok(self.shell.try_wait()?));
        if ended.is_err() {
            let _ = self.shell.kill();
            let _ = self.shell.wait();
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // Everything in its system ends with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // It holds nothing once they are gone; below it lie the groups that init made.
        let _ = until("a control group to be empty", Duration::from_secs(10), || {
            Ok(remove_groups(&self.group).is_ok().then_some(()))
        });
    }
}

/// A control group of its own for an init.
fn init_group() -> anyhow::Result<PathBuf> {
    let unified = Path::new("/sys/fs/cgroup/unified");
    let above = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
    let group = above.join(format!("muster-installer-{}", std::process::id()));
    std::fs::create_dir_all(&group).with_context(|| format!("cannot make the control group {}", group.display()))?;
    Ok(group)
}

fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_groups(&path)?;
        }
    }
    std::fs::remove_dir(group)
}
