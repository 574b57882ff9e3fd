//! The agent's end of a worker: starts the process, hands it requests, tells how it ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use muster_agent_core::slot::{Death, WorkerId};
use muster_shared::reported::{Measured, RefusalKind};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cgroup::{Group, confine};
use super::protocol::{FromWorker, Load, OUT_OF_MEMORY_CODE, ToWorker, checked_length, frame, parse};
use crate::tensor::Tensor;

/// Requests that one worker may have, waiting and at work; more are told to come again later.
pub const REQUESTS_MAX: usize = 64;
/// A worker that has not loaded or checked its model by then is ended.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);
/// A worker that owes an answer, and gave none, for longer is taken for stuck and ended.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a worker may take to finish what it has once it is to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Of what a worker writes to its standard error, a line is kept up to here.
const ERROR_LINE_BYTES_MAX: u64 = 4096;

/// What a worker is started for.
#[derive(Debug, Clone)]
pub enum Purpose {
    /// To check the golden vectors first.
    Check {
        /// Their file.
        golden: Option<PathBuf>,
    },
    /// To serve what was checked before.
    Serve,
}

/// What becomes of a worker, in order: one of the first four, then at most one of the last.
#[derive(Debug, Clone)]
pub enum WorkerEvent {
    /// It loaded a bundle that was checked before.
    Ready,
    /// The golden vectors are right.
    Checked(Measured),
    /// The bundle is bad, proven on verified bytes.
    Bad(RefusalKind, String),
    /// The check could not be made now.
    Stopped(String),
    /// It ended that should not have.
    Died(Death, String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// More requests than [`REQUESTS_MAX`].
    #[error("the model has more requests than it can take; try again")]
    Busy,
    /// The worker is not ready, or ended before it got the request.
    #[error("the model's process is being started again; try again")]
    Gone,
    /// The worker ended while it worked on the request: perhaps because of it, so nobody else should be
    /// asked the same.
    #[error("the model's process ended while it worked on this request")]
    Died,
    /// The model does not run on this input.
    #[error("{0}")]
    Model(String),
}

/// An answer, and what it cost.
#[derive(Debug)]
pub struct Answer {
    /// In the order of the ports.
    pub outputs: Vec<Tensor>,
    /// Processor time in microseconds.
    pub cpu_us: u64,
}

/// A running worker, to be asked and to be stopped. Dropping all handles stops it too.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    ended: CancellationToken,
}

#[derive(Debug)]
enum Request {
    Predict { inputs: Vec<Tensor>, reply: oneshot::Sender<Result<Answer, PredictError>>, _room: OwnedSemaphorePermit },
    Stop,
}

impl WorkerHandle {
    /// Asks the model.
    pub async fn predict(&self, inputs: Vec<Tensor>) -> Result<Answer, PredictError> {
        let room = self.room.clone().try_acquire_owned().map_err(|_| PredictError::Busy)?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Predict { inputs, reply, _room: room };
        self.requests.try_send(request).map_err(|_| PredictError::Gone)?;
        answer.await.unwrap_or(Err(PredictError::Gone))
    }

    /// Lets it finish what it has, then ends it.
    pub fn stop(&self) {
        // A closed channel means that it ended already; a full one empties into the same stop when
        // the last handle goes.
        let _ = self.requests.try_send(Request::Stop);
    }

    /// Cancelled when the process is gone and what it took is free.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// Starts a worker once all of `after` have ended. `tell` hears what becomes of it.
pub fn start(
    program: &Path,
    id: WorkerId,
    load: Load,
    purpose: Purpose,
    after: Vec<CancellationToken>,
    tell: impl Fn(WorkerEvent) + Send + Sync + 'static,
) -> WorkerHandle {
    // One more than there is room for requests, so that a stop always fits.
    let (sender, requests) = mpsc::channel(REQUESTS_MAX + 1);
    let (program, ended) = (program.to_owned(), CancellationToken::new());
    let end = ended.clone().drop_guard();
    tokio::spawn(async move {
        let _end = end;
        for other in after {
            other.cancelled().await;
        }
        let checking = matches!(purpose, Purpose::Check { .. });
        match spawn(&program) {
            Ok(child) => {
                let process = child.id();
                // It waits for what to load, so it has done nothing yet.
                let group = process.and_then(|process| confine(id.0, process, load.memory_bytes, load.cpu_milli));
                Life::new(id, child, group, requests, checking).live(load, purpose, &tell).await;
            }
            Err(error) if checking => tell(WorkerEvent::Stopped(format!("cannot start a worker: {error}"))),
            Err(error) => tell(WorkerEvent::Died(Death::Killed, format!("cannot start a worker: {error}"))),
        }
    });
    WorkerHandle { requests: sender, room: Arc::new(Semaphore::new(REQUESTS_MAX)), ended }
}

fn spawn(program: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("worker")
        .env_clear()
        // One arena: a worker computes in one thread, and idle arenas cost memory.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// One worker's life as its parent sees it.
struct Life {
    id: WorkerId,
    child: Child,
    group: Option<Group>,
    stdin: Option<ChildStdin>,
    messages: mpsc::Receiver<FromWorker>,
    last_line: oneshot::Receiver<Option<String>>,
    requests: mpsc::Receiver<Request>,
    waiting: BTreeMap<u64, Waiting>,
    /// When the last answer came.
    heard: Instant,
    next_id: u64,
    /// The check's outcome was told already, so its end is none.
    concluded: bool,
    checking: bool,
    ready: bool,
    stopping: bool,
    /// The queue is empty and closed.
    no_more: bool,
}

struct Waiting {
    reply: oneshot::Sender<Result<Answer, PredictError>>,
    since: Instant,
    _room: OwnedSemaphorePermit,
}

enum Next {
    Message(Option<FromWorker>),
    Request(Option<Request>),
    Late,
}

impl Life {
    fn new(
        id: WorkerId,
        mut child: Child,
        group: Option<Group>,
        requests: mpsc::Receiver<Request>,
        checking: bool,
    ) -> Self {
        let (message_sender, messages) = mpsc::channel(REQUESTS_MAX);
        let (line_sender, last_line) = oneshot::channel();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(read_messages(stdout, message_sender));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(async move {
                // Nobody waits for it where the worker was stopped.
                let _ = line_sender.send(read_lines(id, stderr).await);
            });
        }
        let stdin = child.stdin.take();
        let waiting = BTreeMap::new();
        let (next_id, concluded, ready, stopping, no_more) = (0, false, false, false, false);
        Self {
            id,
            child,
            group,
            stdin,
            messages,
            last_line,
            requests,
            waiting,
            heard: Instant::now(),
            next_id,
            concluded,
            checking,
            ready,
            stopping,
            no_more,
        }
    }

    async fn live(mut self, load: Load, purpose: Purpose, tell: &(impl Fn(WorkerEvent) + Sync)) {
        let memory_bytes = load.memory_bytes;
        let mut sent = self.send(&ToWorker::Load(load)).await;
        if let Purpose::Check { golden } = purpose {
            sent = sent && self.send(&ToWorker::Check { golden }).await;
        }
        let load_deadline = Instant::now() + LOAD_DEADLINE;
        let mut stuck = false;
        while sent && !(self.stopping && self.no_more && self.waiting.is_empty()) {
            // A worker that rests between its answers because of its grant is not stuck.
            let oldest = self.waiting.values().map(|waiting| waiting.since.max(self.heard) + ANSWER_DEADLINE).min();
            let deadline = if self.ready { oldest } else { Some(load_deadline) };
            let next = tokio::select! {
                message = self.messages.recv() => Next::Message(message),
                request = self.requests.recv(), if !self.no_more => Next::Request(request),
                () = sleep_until(deadline.unwrap_or(load_deadline)), if deadline.is_some() => Next::Late,
            };
            match next {
                Next::Message(Some(message)) => self.take(message, tell),
                Next::Message(None) => break,
                Next::Request(Some(Request::Predict { inputs, reply, _room })) => {
                    sent = self.predict(inputs, reply, _room).await;
                }
                Next::Request(Some(Request::Stop)) => self.stop_taking(),
                Next::Request(None) => {
                    self.stop_taking();
                    self.no_more = true;
                }
                Next::Late => {
                    stuck = true;
                    break;
                }
            }
        }
        self.end(stuck, memory_bytes, tell).await;
    }

    fn take(&mut self, message: FromWorker, tell: &impl Fn(WorkerEvent)) {
        match message {
            FromWorker::Loaded if self.checking => {}
            FromWorker::Loaded => {
                self.ready = true;
                tell(WorkerEvent::Ready);
            }
            FromWorker::Checked(measured) => {
                self.ready = true;
                self.checking = false;
                tell(WorkerEvent::Checked(measured));
            }
            FromWorker::WrongAnswers(reason) => {
                self.conclude(WorkerEvent::Bad(RefusalKind::GoldenMismatch, reason), tell)
            }
            FromWorker::CannotLoad(reason) if self.checking => {
                self.conclude(WorkerEvent::Bad(RefusalKind::CannotLoad, reason), tell);
            }
            FromWorker::CannotLoad(reason) => self.conclude(WorkerEvent::Died(Death::Crashed, reason), tell),
            FromWorker::Answer { id, result, cpu_us } => {
                self.heard = Instant::now();
                if let Some(waiting) = self.waiting.remove(&id) {
                    let result = result.map(|outputs| Answer { outputs, cpu_us }).map_err(PredictError::Model);
                    // The asker may have left; the answer is of no use then.
                    let _ = waiting.reply.send(result);
                }
            }
        }
    }

    /// What is in the queue is still answered; nothing more gets in.
    fn stop_taking(&mut self) {
        self.stopping = true;
        self.requests.close();
    }

    fn conclude(&mut self, event: WorkerEvent, tell: &impl Fn(WorkerEvent)) {
        self.concluded = true;
        self.stop_taking();
        self.no_more = true;
        tell(event);
    }

    async fn predict(
        &mut self,
        inputs: Vec<Tensor>,
        reply: oneshot::Sender<Result<Answer, PredictError>>,
        room: OwnedSemaphorePermit,
    ) -> bool {
        // Who left while waiting costs the model nothing.
        if reply.is_closed() {
            return true;
        }
        self.next_id += 1;
        let id = self.next_id;
        self.waiting.insert(id, Waiting { reply, since: Instant::now(), _room: room });
        self.send(&ToWorker::Predict { id, inputs }).await
    }

    /// Whether the worker took the message.
    async fn send(&mut self, message: &ToWorker) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
        let Ok(bytes) = frame(message) else { return false };
        stdin.write_all(&bytes).await.is_ok() && stdin.flush().await.is_ok()
    }

    async fn end(mut self, stuck: bool, memory_bytes: u64, tell: &(impl Fn(WorkerEvent) + Sync)) {
        self.requests.close();
        self.stdin = None;
        let wait = if stuck { Duration::ZERO } else { STOP_DEADLINE };
        let status = match timeout(wait, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                let killed = self.child.start_kill();
                if let Err(error) = killed {
                    warn!(worker = self.id.0, %error, "cannot kill a worker");
                }
                self.child.wait().await
            }
        };
        for waiting in std::mem::take(&mut self.waiting).into_values() {
            let _ = waiting.reply.send(Err(PredictError::Died));
        }
        if self.concluded || (self.stopping && !stuck) {
            return;
        }
        let last_line = self.last_line.await.ok().flatten();
        let (death, reason) = match (stuck, status) {
            (true, _) if !self.ready => (Death::Crashed, format!("did not load within {LOAD_DEADLINE:?}")),
            (true, _) => (Death::Crashed, format!("did not answer within {ANSWER_DEADLINE:?}")),
            (false, Ok(status)) => {
                let by_kernel = self.group.as_ref().is_some_and(Group::out_of_memory);
                cause(status, last_line, memory_bytes, by_kernel)
            }
            (false, Err(error)) => (Death::Killed, error.to_string()),
        };
        tell(match (self.checking, death) {
            (false, _) => WorkerEvent::Died(death, reason),
            (true, Death::Crashed) => WorkerEvent::Bad(RefusalKind::CannotLoad, reason),
            // Too little memory and another's hand prove nothing: the check is made again.
            (true, Death::Killed | Death::OutOfMemory) => WorkerEvent::Stopped(reason),
        });
    }
}

/// Whose doing an end was. A kill and a plain exit prove nothing of the model. The kernel's own kill for
/// memory is known where the worker had a control group; else it cannot be told from a person's and proves
/// nothing either.
fn cause(status: ExitStatus, last_line: Option<String>, memory_bytes: u64, by_kernel: bool) -> (Death, String) {
    let line = last_line.unwrap_or_default();
    if by_kernel || status.code() == Some(OUT_OF_MEMORY_CODE) || is_out_of_memory(&line) {
        let granted = muster_shared::quantity::Bytes(memory_bytes);
        return (Death::OutOfMemory, format!("the model needs more than the {granted} of memory that it was granted"));
    }
    match (status.signal(), status.code()) {
        (Some(9), _) => (Death::Killed, "killed (signal 9)".to_owned()),
        (Some(signal), _) => (Death::Crashed, format!("crashed with signal {signal}: {line}")),
        (None, code) => (Death::Killed, format!("exited with code {}: {line}", code.unwrap_or(-1))),
    }
}

/// Logs what a worker writes to its standard error and gives back its last words.
async fn read_lines(id: WorkerId, stderr: impl AsyncRead + Unpin) -> Option<String> {
    let mut reader = BufReader::new(stderr);
    let mut last: Option<String> = None;
    loop {
        let mut line = vec![];
        match (&mut reader).take(ERROR_LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(length) if length > 0 => {}
            _ => return last,
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        info!(worker = id.0, line, "worker says");
        // The standard library adds a note on backtraces to these words.
        if !last.as_deref().is_some_and(is_out_of_memory) {
            last = Some(line);
        }
    }
}

/// The words with which the standard library aborts where an allocation fails.
fn is_out_of_memory(line: &str) -> bool {
    line.starts_with("memory allocation of ")
}

async fn read_messages(mut stdout: ChildStdout, messages: mpsc::Sender<FromWorker>) {
    while let Ok(message) = read_message(&mut stdout).await {
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

async fn read_message<M: DeserializeOwned>(stream: &mut ChildStdout) -> std::io::Result<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut bytes = vec![0; checked_length(length)?];
    stream.read_exact(&mut bytes).await?;
    parse(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_by_whose_doing_it_was() {
        let (code, signal) = (|code: i32| code << 8, |signal: i32| signal);
        let memory = "the model needs more than the 64Mi of memory that it was granted";
        let check = |status, line: &str, death, reason: &str| {
            let (found, said) = cause(ExitStatus::from_raw(status), Some(line.to_owned()), 64 << 20, false);
            assert_eq!((found, said.as_str()), (death, reason), "{status} {line}");
        };
        let by_kernel = cause(ExitStatus::from_raw(signal(9)), None, 64 << 20, true);
        assert_eq!((by_kernel.0, by_kernel.1.as_str()), (Death::OutOfMemory, memory));
        check(signal(6), "memory allocation of 99 bytes failed", Death::OutOfMemory, memory);
        check(code(OUT_OF_MEMORY_CODE), "worker: panicked", Death::OutOfMemory, memory);
        check(signal(6), "double free", Death::Crashed, "crashed with signal 6: double free");
        check(signal(11), "", Death::Crashed, "crashed with signal 11: ");
        check(signal(9), "", Death::Killed, "killed (signal 9)");
        check(code(1), "no sandbox", Death::Killed, "exited with code 1: no sandbox");
    }

    #[tokio::test]
    async fn the_last_words_are_those_that_say_why() {
        let last = async |text: &'static str| read_lines(WorkerId(1), text.as_bytes()).await;
        assert_eq!(last("").await, None);
        assert_eq!(last("one\ntwo\n").await.as_deref(), Some("two"));
        let abort = "memory allocation of 80000 bytes failed";
        let note = "memory allocation of 80000 bytes failed\nnote: run with `RUST_BACKTRACE=1` …\n";
        assert_eq!(last(note).await.as_deref(), Some(abort));
    }

    /// A worker of a program that reads what it is told and ends when it is told no more.
    fn reader(id: u64, after: Vec<CancellationToken>) -> WorkerHandle {
        let load = Load {
            file: PathBuf::new(),
            inputs: vec![],
            outputs: vec![],
            memory_bytes: 1,
            cpu_milli: 1,
            read_only: vec![],
        };
        start(Path::new("/bin/cat"), WorkerId(id), load, Purpose::Serve, after, |_| {})
    }

    #[tokio::test]
    async fn a_worker_that_waits_for_another_starts_when_that_one_is_gone() {
        // `cat worker` ends by itself: there is no such file.
        let (first, gate) = (reader(1, vec![]), CancellationToken::new());
        timeout(STOP_DEADLINE, first.ended().cancelled()).await.expect("it ends");
        let second = reader(2, vec![first.ended(), gate.clone()]);
        let soon = Duration::from_millis(50);
        assert!(timeout(soon, second.ended().cancelled()).await.is_err(), "it waits for the gate");
        gate.cancel();
        timeout(STOP_DEADLINE, second.ended().cancelled()).await.expect("it started, and ended");
    }
}
