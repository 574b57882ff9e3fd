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

/// A system that runs.
pub struct Machine {
    root: PathBuf,
    log: PathBuf,
    shell: Child,
    lines: usize,
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
        let log = root.with_extension("log");
        let to = File::create(&log)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        command.arg(format!("--mount-proc={}", root.join("proc").display()));
        command.args(before).arg("chroot").arg(root).arg(shell);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(to.try_clone()?).stderr(to);
        let shell = command.spawn().context("cannot enter the clean system")?;
        Ok(Self { root: root.to_owned(), log, shell, lines: 0 })
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
