//! The watermark beside the key: what a device keeps when it loses all else. A file, and where the owner
//! has one a monotonic counter, which even whoever can write the disk cannot turn back.
//!
//! A thread of its own writes it: a counter may be slow. What cannot be kept is not believed to be.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use muster_agent_core::reconcile::Event;
use muster_agent_core::verify::{Mark, Watermark};
use muster_shared::checks::{self, Check};
use muster_shared::id::Generation;

use crate::identity::{self, write_durably};

/// A counter's program answers within this time.
const COUNTER_WAIT: Duration = Duration::from_secs(5);
/// How often it is seen whether it ended.
const COUNTER_LOOK_EVERY: Duration = Duration::from_millis(10);
/// The longest answer of a counter's program.
const COUNTER_ANSWER_BYTES_MAX: u64 = 128;
/// What failed is tried again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Something that holds the highest generation and never goes back.
pub trait Counter: Send {
    /// The highest generation that it was raised to.
    fn read(&mut self) -> Result<Generation, String>;
    /// Raises it. Nothing is believed to be raised before it says so.
    fn raise(&mut self, to: Generation) -> Result<(), String>;
}

/// A program as a counter: run with `read`, or with `raise EPOCH NUMBER`, it prints the `EPOCH NUMBER` that it
/// holds then (`0 0` at first) and exits with 0.
pub struct Program(pub Vec<String>);

impl Program {
    fn run(&self, arguments: &[String]) -> Result<Generation, String> {
        let [program, given @ ..] = self.0.as_slice() else { return Err("trust.counter names no program".to_owned()) };
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("the counter {program} {what}: {error}");
        let mut child = Command::new(program)
            .args(given)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed("cannot be started", &error))?;
        let until = Instant::now() + COUNTER_WAIT;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < until => std::thread::sleep(COUNTER_LOOK_EVERY),
                Ok(None) => {
                    // It may have ended just now.
                    let _ = child.kill().and_then(|()| child.wait());
                    return Err(failed("did not answer", &format!("{COUNTER_WAIT:?} passed")));
                }
                Err(error) => return Err(failed("cannot be waited for", &error)),
            }
        };
        if !status.success() {
            return Err(failed("failed", &status));
        }
        let mut answer = String::new();
        let read = child.stdout.take().map(|stdout| stdout.take(COUNTER_ANSWER_BYTES_MAX).read_to_string(&mut answer));
        read.transpose().map_err(|error| failed("cannot be read", &error))?;
        parse(&answer).ok_or_else(|| failed("answered something else than `EPOCH NUMBER`", &format!("{answer:?}")))
    }
}

/// What a counter's program answered.
pub fn parse(answer: &str) -> Option<Generation> {
    let (epoch, number) = answer.trim().split_once(' ')?;
    Some(Generation { epoch: epoch.parse().ok()?, number: number.trim().parse().ok()? })
}

impl Counter for Program {
    fn read(&mut self) -> Result<Generation, String> {
        self.run(&["read".to_owned()])
    }

    fn raise(&mut self, to: Generation) -> Result<(), String> {
        let held = self.run(&["raise".to_owned(), to.epoch.to_string(), to.number.to_string()])?;
        if held == to { Ok(()) } else { Err(format!("the counter holds {held} after it was to be raised to {to}")) }
    }
}

/// The watermark of this device.
pub struct TrustStore {
    path: PathBuf,
    counter: Option<Box<dyn Counter>>,
    /// What is on disk.
    kept: Watermark,
    /// The file cannot be read: it is neither believed nor written over.
    damaged: Option<String>,
    /// The counter has yet to be read.
    counter_unread: Option<String>,
}

impl TrustStore {
    /// Reads what was kept below `data`.
    pub fn open(data: &Path, counter: Option<Box<dyn Counter>>) -> Self {
        let path = identity::folder(data).join("watermark.json");
        let (kept, damaged) = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(kept) => (kept, None),
                Err(error) => (Watermark::default(), Some(error.to_string())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Watermark::default(), None),
            Err(error) => (Watermark::default(), Some(error.to_string())),
        };
        let damaged = damaged.map(|error| {
            format!("{} cannot be read ({error}); put it back from a backup, or enrol this device anew", path.display())
        });
        let mut store = Self { path, counter, kept, damaged, counter_unread: None };
        store.read_counter();
        store
    }

    fn read_counter(&mut self) {
        self.counter_unread = None;
        match self.counter.as_mut().map(|counter| counter.read()) {
            Some(Ok(generation)) if self.kept.desired.is_none_or(|mark| mark.generation < generation) => {
                let at_all = generation > Generation::default();
                self.kept.desired = at_all.then_some(Mark { generation, digest: None }).or(self.kept.desired);
            }
            Some(Err(error)) => self.counter_unread = Some(error),
            Some(Ok(_)) | None => {}
        }
    }

    /// What is kept.
    pub fn watermark(&self) -> &Watermark {
        &self.kept
    }

    /// Why that is not all that should be known, if so.
    pub fn unknown(&self) -> Option<String> {
        self.damaged.clone().or(self.counter_unread.clone())
    }

    /// Begins to keep what is sent, and tells what became of it.
    pub fn start(self, tell: impl Fn(Event) + Send + 'static) -> io::Result<Sender<Watermark>> {
        let (sender, receiver) = channel();
        std::thread::Builder::new().name("watermark".to_owned()).spawn(move || self.serve(&receiver, tell))?;
        Ok(sender)
    }

    fn serve(mut self, receiver: &Receiver<Watermark>, tell: impl Fn(Event)) {
        // Floors and seen versions that could not be kept yet.
        let mut unkept = None;
        loop {
            match receiver.recv_timeout(AGAIN_AFTER) {
                Ok(mut wanted) => {
                    // Of what came while the last one was written only the newest counts.
                    while let Ok(newer) = receiver.try_recv() {
                        wanted = newer;
                    }
                    let rest = Watermark { desired: self.kept.desired, ..wanted.clone() };
                    match self.keep(wanted) {
                        Ok(()) => {
                            unkept = None;
                            tell(Event::WatermarkKept(self.kept.desired));
                        }
                        Err(error) => {
                            tracing::error!(error, "cannot keep the watermark; nothing new is taken meanwhile");
                            unkept = Some(rest);
                            tell(Event::WatermarkNotKept(error));
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.counter_unread.is_some() {
                        self.read_counter();
                        if self.unknown().is_none() {
                            tell(Event::WatermarkRead(self.kept.clone()));
                        }
                    }
                    if let Some(rest) = unkept.take()
                        && self.keep(rest.clone()).is_err()
                    {
                        unkept = Some(rest);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Makes a watermark durable, never below what is kept.
    fn keep(&mut self, wanted: Watermark) -> Result<(), String> {
        if let Some(reason) = &self.damaged {
            return Err(reason.clone());
        }
        let mut next = wanted;
        let sinks = self.kept.desired.map(|mark| mark.generation) > next.desired.map(|mark| mark.generation);
        if checks::on(Check::Order) && sinks {
            next.desired = self.kept.desired;
        }
        for (model, version) in &self.kept.seen {
            let seen = next.seen.entry(model.clone()).or_insert(*version);
            *seen = (*seen).max(*version);
        }
        next.root = next.root.or_else(|| self.kept.root.clone());
        if next == self.kept {
            return Ok(());
        }
        let rises = next.desired.map(|mark| mark.generation) > self.kept.desired.map(|mark| mark.generation);
        if let (true, Some(counter), Some(mark)) = (rises, &mut self.counter, next.desired) {
            counter.raise(mark.generation)?;
        }
        let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", self.path.display());
        let bytes = serde_json::to_vec(&next).map_err(|error| failed(&error))?;
        write_durably(&self.path, &bytes, 0o600).map_err(|error| failed(&error))?;
        self.kept = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use muster_shared::{Digest, Version};

    use super::*;

    fn mark(number: u64) -> Option<Mark> {
        Some(Mark { generation: Generation { epoch: 1, number }, digest: Some(Digest::of(number.to_le_bytes())) })
    }

    fn watermark(number: u64, seen: u64) -> Watermark {
        let seen = [("digits".parse().expect("a name"), Version::new(seen).expect("a version"))].into();
        Watermark { desired: mark(number), seen, ..Watermark::default() }
    }

    #[test]
    fn a_watermark_only_rises_and_survives_a_restart() {
        let data = tempfile::tempdir().expect("a folder");
        let mut store = TrustStore::open(data.path(), None);
        assert_eq!((store.watermark(), store.unknown()), (&Watermark::default(), None));
        store.keep(watermark(5, 3)).expect("kept");
        store.keep(watermark(4, 2)).expect("kept as it is");
        let store = TrustStore::open(data.path(), None);
        assert_eq!(store.watermark(), &watermark(5, 3));
    }

    #[test]
    fn a_damaged_watermark_is_neither_believed_nor_written_over() {
        let data = tempfile::tempdir().expect("a folder");
        let path = data.path().join("identity/watermark.json");
        write_durably(&path, b"damaged", 0o600).expect("writes");
        let mut store = TrustStore::open(data.path(), None);
        assert!(store.unknown().is_some_and(|reason| reason.contains("watermark.json")));
        assert!(store.keep(watermark(5, 3)).is_err());
        assert_eq!(fs::read(&path).expect("reads"), b"damaged");
    }

    fn program(folder: &Path, script: &str) -> Option<Box<dyn Counter>> {
        let path = folder.join("counter");
        let staged = folder.join("counter.new");
        fs::write(&staged, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)).expect("may run");
        fs::rename(&staged, &path).expect("in its place");
        Some(Box::new(Program(vec![path.display().to_string(), folder.join("held").display().to_string()])))
    }

    const HONEST: &str = r#"[ "$2" = raise ] && echo "$3 $4" > "$1"; cat "$1" 2>/dev/null || echo 0 0"#;

    #[test]
    fn a_counter_outlives_the_file_and_is_raised_before_anything_is_kept() {
        let data = tempfile::tempdir().expect("a folder");
        let mut store = TrustStore::open(data.path(), program(data.path(), HONEST));
        assert_eq!(store.watermark().desired, None);
        store.keep(watermark(5, 3)).expect("kept");
        fs::remove_file(data.path().join("identity/watermark.json")).expect("lost");
        let store = TrustStore::open(data.path(), program(data.path(), HONEST));
        let generation = Generation { epoch: 1, number: 5 };
        assert_eq!(store.watermark().desired, Some(Mark { generation, digest: None }));
    }

    #[test]
    fn a_counter_that_fails_is_a_wait_and_never_a_pass() {
        let data = tempfile::tempdir().expect("a folder");
        for script in ["exit 1", "echo nonsense", "echo 1", "[ $2 = read ] && echo 0 0 || echo 0 0"] {
            let mut store = TrustStore::open(data.path(), program(data.path(), script));
            assert!(store.unknown().is_some() || store.watermark().desired.is_none(), "{script}");
            assert!(store.keep(watermark(5, 3)).is_err(), "{script}");
            assert!(!data.path().join("identity/watermark.json").exists(), "{script}");
        }
        let missing: Option<Box<dyn Counter>> = Some(Box::new(Program(vec!["/nowhere/counter".to_owned()])));
        assert!(TrustStore::open(data.path(), missing).unknown().is_some_and(|it| it.contains("/nowhere/counter")));
    }

    #[test]
    fn a_counter_that_comes_back_is_read_and_what_waited_is_told() {
        let data = tempfile::tempdir().expect("a folder");
        let store = TrustStore::open(data.path(), program(data.path(), "exit 1"));
        assert!(store.unknown().is_some());
        let (told, events) = channel();
        program(data.path(), HONEST);
        let sender = store.start(move |event| drop(told.send(event))).expect("a thread");
        let event = events.recv_timeout(Duration::from_secs(60)).expect("an event");
        assert!(matches!(event, Event::WatermarkRead(_)), "{event:?}");
        sender.send(watermark(6, 3)).expect("sent");
        let event = events.recv_timeout(Duration::from_secs(60)).expect("an event");
        let Event::WatermarkKept(kept) = event else { panic!("{event:?}") };
        assert_eq!(kept, mark(6));
    }
}
