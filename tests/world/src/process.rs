//! Programs of a world. A long-running one holds the other end of a pipe as its standard input and
//! stops when that closes, so nothing is left behind whatever ends us.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;

/// How long a program may take to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often a condition is looked at.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// A program that runs until it is dropped.
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Running {
    /// Starts a program that understands `--stop-with-stdin`. What it writes goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let output = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.arg("--stop-with-stdin").stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, log })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}):\n{}", self.name, last_lines(&self.log));
        }
        Ok(())
    }

    /// Waits for the file that says that it is ready.
    pub fn ready<T: DeserializeOwned>(&mut self, file: &Path, deadline: Duration) -> anyhow::Result<T> {
        let what = format!("{} to be ready", self.name);
        until(&what, deadline, || {
            self.check()?;
            match std::fs::read(file) {
                Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
                Err(_) => Ok(None),
            }
        })
    }
}

impl Running {
    /// Ends it at once, with no chance to tidy up.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stdin = None;
        let stopped = until("a program to stop", STOP_DEADLINE, || Ok(self.child.try_wait()?));
        if stopped.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until `look` finds something, or fails.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() > deadline {
            bail!("waited {deadline:?} for {what}");
        }
        std::thread::sleep(POLL_EVERY);
    }
}

/// How a command is typed.
pub fn spelled(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command quietly and gives back its standard output; a failure shows what it wrote.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", spelled(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status}):\n{}", spelled(command), String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The end of a log, for a person.
pub fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// A process, told apart from a later one with the same number by its start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub id: u32,
    parent: u32,
    started: String,
}

impl Process {
    /// The process with this number, if it runs.
    pub fn read(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat")).ok()?;
        // The name stands in brackets and may hold anything; the fields follow the last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, parent, started) = (fields.first()?, fields.get(1)?.parse().ok()?, fields.get(19)?);
        (*state != "Z").then(|| Self { id, parent, started: (*started).to_owned() })
    }

    /// Whether it still runs.
    pub fn lives(&self) -> bool {
        Self::read(self.id).is_some_and(|now| now.started == self.started)
    }
}

/// Everything that a process started, and what that started.
pub fn descendants(of: u32) -> anyhow::Result<Vec<Process>> {
    let numbers = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut others: Vec<Process> = numbers.filter_map(Process::read).collect();
    let (mut found, mut parents) = (vec![], vec![of]);
    while let Some(parent) = parents.pop() {
        let (children, rest) = others.into_iter().partition(|process| process.parent == parent);
        others = rest;
        parents.extend(children.iter().map(|child: &Process| child.id));
        found.extend(children);
    }
    Ok(found)
}
