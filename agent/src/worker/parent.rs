//! The agent's end of a worker: starts the process, hands it requests, tells how it ended.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use muster_agent_core::slot::{Death, WorkerId};
use muster_shared::reported::{Measured, RefusalKind};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, setpriority_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::cgroup::{Group, confine};
use super::protocol::{
    AnswerHead, Frames, FromWorker, Load, Loaded, OUT_OF_MEMORY_CODE, PIPE_BYTES, RequestHead, TensorHead, ToWorker,
    frame,
};
pub use super::queue::{PredictError, Prediction, WorkerHandle};
use super::queue::{Queue, Request, queue};
use crate::tensor::Tensor;

/// A worker that has not loaded or checked its model by then is ended, where nothing else is said.
const LOAD_DEADLINE: Duration = Duration::from_secs(120);
/// A worker that owes an answer for longer is taken for stuck and ended, where nothing else is said.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// How long a worker may take to finish what it has once it is to stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// No worker rests for longer, whatever it says.
const REST_MAX: Duration = Duration::from_secs(60);
/// A worker that computes for longer lets others go first: those whose runs are short take no more than
/// their grant from it, and would wait for a whole run otherwise.
const LONG_RUN: Duration = Duration::from_millis(20);
/// The priority of who lets others go first, as `nice` counts it.
const YIELDING: i32 = 10;
/// Of what a worker writes to its standard error, a line is kept up to here.
const ERROR_LINE_BYTES_MAX: u64 = 4096;
/// What a worker may run as one, where that has cost no memory yet.
const TOGETHER_MAX: u32 = 128;

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
    Ready(Loaded),
    /// The golden vectors are right.
    Checked(Measured),
    /// The bundle is bad, proven on verified bytes.
    Bad(RefusalKind, String),
    /// The check could not be made now.
    Stopped(String),
    /// It ended that should not have.
    Died(Death, String),
}

/// How a worker is run.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// A worker that has not loaded or checked its model by then is ended.
    pub load_deadline: Duration,
    /// A worker that owes an answer for longer is taken for stuck and ended; who waits for longer in
    /// the queue is told so.
    pub answer_deadline: Duration,
    /// Requests that may run as one. Halved for the next worker of this model when it cost too much
    /// memory.
    pub together_max: Arc<AtomicU32>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            load_deadline: LOAD_DEADLINE,
            answer_deadline: ANSWER_DEADLINE,
            together_max: Arc::new(AtomicU32::new(TOGETHER_MAX)),
        }
    }
}

/// Starts a worker once all of `after` have ended. `tell` hears what becomes of it.
pub fn start(
    program: &Path,
    id: WorkerId,
    load: Load,
    purpose: Purpose,
    bounds: Bounds,
    after: Vec<CancellationToken>,
    tell: impl Fn(WorkerEvent) + Send + Sync + 'static,
) -> WorkerHandle {
    let (program, ended) = (program.to_owned(), CancellationToken::new());
    let end = ended.clone().drop_guard();
    let (handle, queue) = queue(ended);
    tokio::spawn(async move {
        let _end = end;
        for other in after {
            other.cancelled().await;
        }
        let checking = matches!(purpose, Purpose::Check { .. });
        match spawn(&program) {
            Ok(child) => {
                let process = child.id();
                queue.runs_in(process);
                // It waits for what to load, so it has done nothing yet.
                let group = process.and_then(|process| confine(id.0, process, load.memory_bytes, load.cpu_milli));
                // Its streams are pipes: `spawn` says so.
                let Some(life) = Life::new(id, child, group, queue, bounds, checking) else { return };
                life.live(load, purpose, &tell).await;
            }
            Err(error) if checking => tell(WorkerEvent::Stopped(format!("cannot start a worker: {error}"))),
            Err(error) => tell(WorkerEvent::Died(Death::Killed, format!("cannot start a worker: {error}"))),
        }
    });
    handle
}

fn spawn(program: &Path) -> std::io::Result<Child> {
    let child = Command::new(program)
        .arg("worker")
        .env_clear()
        // One arena: a worker computes in one thread, and idle arenas cost memory.
        .env("MALLOC_ARENA_MAX", "1")
        // Left to itself, glibc raises both as large tensors come and go, and then keeps many times what a
        // run needs in pieces between them (mallopt(3)). Fixed here, a run costs as much time as before.
        .env("MALLOC_MMAP_THRESHOLD_", (4 << 20).to_string())
        .env("MALLOC_TRIM_THRESHOLD_", (16 << 20).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let widened = [
        child.stdin.as_ref().map(|pipe| fcntl_setpipe_size(pipe, PIPE_BYTES)),
        child.stdout.as_ref().map(|pipe| fcntl_setpipe_size(pipe, PIPE_BYTES)),
    ];
    // A user who has many pipes is given no more large ones: the small ones work, with more wake-ups.
    if widened.into_iter().flatten().any(|size| size.is_err()) {
        debug!("the kernel gives no large pipes to a worker");
    }
    Ok(child)
}

/// One worker's life as its parent sees it.
struct Life {
    id: WorkerId,
    child: Child,
    group: Option<Group>,
    stdin: Option<ChildStdin>,
    messages: FramedRead<ChildStdout, Frames>,
    last_line: oneshot::Receiver<Option<String>>,
    queue: Queue,
    bounds: Bounds,
    /// The names of the outputs, once it has loaded.
    outputs: Vec<String>,
    /// What it works on, by request.
    at_work: BTreeMap<u64, Waiting>,
    /// When it last took or answered something.
    progress: Instant,
    next_id: u64,
    /// Kept from one frame to the next.
    out: Vec<u8>,
    /// The check's outcome was told already, so its end is none.
    concluded: bool,
    checking: bool,
    ready: bool,
    stopping: bool,
    /// The queue is empty and closed.
    no_more: bool,
    /// It lets others go first.
    yields: bool,
    /// It used more processor time than it was granted, and sleeps.
    rests_until: Instant,
}

struct Waiting {
    request: Request,
    queued: Duration,
}

enum Next {
    Message(Option<std::io::Result<(FromWorker, Bytes)>>),
    Requests(Option<Vec<Request>>),
    Stop,
    Long,
    Late,
}

impl Life {
    fn new(
        id: WorkerId,
        mut child: Child,
        group: Option<Group>,
        queue: Queue,
        bounds: Bounds,
        checking: bool,
    ) -> Option<Self> {
        let (line_sender, last_line) = oneshot::channel();
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(async move {
                // Nobody waits for it where the worker was stopped.
                let _ = line_sender.send(read_lines(id, stderr).await);
            });
        }
        let (stdin, messages) = (child.stdin.take(), FramedRead::new(child.stdout.take()?, Frames));
        Some(Self {
            id,
            child,
            group,
            stdin,
            messages,
            last_line,
            queue,
            bounds,
            outputs: vec![],
            at_work: BTreeMap::new(),
            progress: Instant::now(),
            next_id: 0,
            out: vec![],
            concluded: false,
            checking,
            ready: false,
            stopping: false,
            no_more: false,
            yields: false,
            rests_until: Instant::now(),
        })
    }

    async fn live(mut self, load: Load, purpose: Purpose, tell: &(impl Fn(WorkerEvent) + Sync)) {
        let memory_bytes = load.memory_bytes;
        let together_max = self.bounds.together_max.load(Ordering::Relaxed);
        let mut sent = self.send(&ToWorker::Load { load, together_max }, &[]).await;
        if let Purpose::Check { golden } = purpose {
            sent = sent && self.send(&ToWorker::Check { golden }, &[]).await;
        }
        let load_deadline = Instant::now() + self.bounds.load_deadline;
        let mut stuck = false;
        let stop = self.queue.stop.clone();
        while sent && !(self.stopping && self.at_work.is_empty() && (self.no_more || !self.ready)) {
            let idle = self.ready && self.at_work.is_empty();
            let rests = self.rests_until > Instant::now();
            let deadline = if self.ready { self.progress + self.bounds.answer_deadline } else { load_deadline };
            let next = tokio::select! {
                message = self.messages.next() => Next::Message(message),
                requests = self.queue.next(), if idle && !rests && !self.no_more => Next::Requests(requests),
                () = sleep_until(self.rests_until), if idle && rests => continue,
                () = stop.cancelled(), if !self.stopping => Next::Stop,
                () = sleep_until(self.progress + LONG_RUN), if self.ready && !idle && !self.yields => Next::Long,
                () = sleep_until(deadline), if !idle => Next::Late,
            };
            match next {
                Next::Message(Some(Ok((message, body)))) => sent = self.take(message, body, tell),
                Next::Message(Some(Err(error))) => {
                    warn!(worker = self.id.0, %error, "a worker says what cannot be read");
                    sent = false;
                }
                Next::Message(None) => break,
                Next::Requests(Some(requests)) => sent = self.hand_over(requests).await,
                Next::Requests(None) => {
                    self.stop_taking();
                    self.no_more = true;
                }
                Next::Stop => self.stop_taking(),
                Next::Long => self.let_go_first(true),
                Next::Late => {
                    stuck = true;
                    break;
                }
            }
        }
        self.end(stuck, memory_bytes, tell).await;
    }

    /// Whether what it said can be.
    fn take(&mut self, message: FromWorker, body: Bytes, tell: &impl Fn(WorkerEvent)) -> bool {
        match message {
            FromWorker::Loaded(loaded) => {
                self.queue.batches(loaded.batches);
                self.outputs = loaded.outputs.iter().map(|port| port.name.clone()).collect();
                if !self.checking {
                    self.ready = true;
                    tell(WorkerEvent::Ready(loaded));
                }
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
            FromWorker::Answers { answers, rest_us } => return self.answered(answers, rest_us, body),
        }
        true
    }

    fn answered(&mut self, answers: Vec<AnswerHead>, rest_us: u64, mut body: Bytes) -> bool {
        self.progress = Instant::now();
        // Nothing is handed to a worker that rests because of its grant: it would seem stuck.
        self.rests_until = self.progress + Duration::from_micros(rest_us).min(REST_MAX);
        if self.yields && self.at_work.len() == answers.len() {
            self.let_go_first(false);
        }
        for head in answers {
            let Some(Waiting { request, queued }) = self.at_work.remove(&head.id) else { return false };
            let compute = Duration::from_micros(head.compute_us);
            self.queue.took(compute, head.together);
            let result = match head.result {
                Ok(outputs) => {
                    let names = self.outputs.iter();
                    let outputs: std::io::Result<Vec<Tensor>> =
                        outputs.into_iter().zip(names).map(|(head, name)| head.take(name, &mut body)).collect();
                    let Ok(outputs) = outputs else { return false };
                    Ok(Prediction { outputs, cpu_us: head.cpu_us, queue: queued, compute, together: head.together })
                }
                Err(reason) => Err(PredictError::Model(reason)),
            };
            // The asker may have left; the answer is of no use then.
            let _ = request.reply.send(result);
        }
        true
    }

    /// Lets others go first, or no longer. A user who is not root may only do the former: then it stays so
    /// for as long as the process lives, which has shown that its runs are long.
    fn let_go_first(&mut self, yields: bool) {
        let process = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let priority = if yields { YIELDING } else { 0 };
        // Nothing depends on it but how long others wait.
        let set = setpriority_process(process, priority).is_ok();
        self.yields = if set { yields } else { true };
    }

    /// What is in the queue is still answered; nothing more gets in.
    fn stop_taking(&mut self) {
        self.stopping = true;
        self.queue.close();
    }

    fn conclude(&mut self, event: WorkerEvent, tell: &impl Fn(WorkerEvent)) {
        self.concluded = true;
        self.stop_taking();
        self.no_more = true;
        tell(event);
    }

    async fn hand_over(&mut self, requests: Vec<Request>) -> bool {
        let now = Instant::now();
        let mut heads = Vec::with_capacity(requests.len());
        let mut tensors = Vec::with_capacity(requests.len());
        for request in requests {
            // Who left while waiting costs the model nothing.
            if request.reply.is_closed() {
                continue;
            }
            let queued = now - request.since;
            if queued > self.bounds.answer_deadline {
                let _ = request.reply.send(Err(PredictError::Late));
                continue;
            }
            self.next_id += 1;
            heads.push(RequestHead { id: self.next_id, inputs: request.inputs.iter().map(TensorHead::of).collect() });
            // Cheap: the elements are shared.
            tensors.extend(request.inputs.iter().cloned());
            self.at_work.insert(self.next_id, Waiting { request, queued });
        }
        self.progress = now;
        heads.is_empty() || self.send(&ToWorker::Predict(heads), &tensors).await
    }

    /// Whether the worker took the message.
    async fn send(&mut self, message: &ToWorker, tensors: &[Tensor]) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
        self.out.clear();
        let Ok(()) = frame(&mut self.out, message, tensors.iter()) else { return false };
        // A worker that does not even read is stuck; it is ended as one that went away.
        let wrote = timeout(self.bounds.answer_deadline, stdin.write_all(&self.out)).await;
        self.out.shrink_to(OUT_BYTES_KEPT);
        matches!(wrote, Ok(Ok(())))
    }

    async fn end(mut self, stuck: bool, memory_bytes: u64, tell: &(impl Fn(WorkerEvent) + Sync)) {
        self.queue.close();
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
        self.queue.runs_in(None);
        let last_line = self.last_line.await.ok().flatten();
        let (death, reason) = match (stuck, status) {
            (true, _) if !self.ready => {
                (Death::Crashed, format!("did not load within {:?}", self.bounds.load_deadline))
            }
            (true, _) => (Death::Crashed, format!("did not answer within {:?}", self.bounds.answer_deadline)),
            (false, Ok(status)) => {
                let by_kernel = self.group.as_ref().is_some_and(Group::out_of_memory);
                cause(status, last_line, memory_bytes, by_kernel)
            }
            (false, Err(error)) => (Death::Killed, error.to_string()),
        };
        if death == Death::OutOfMemory && self.at_work.len() > 1 {
            // Perhaps none of them was too large alone.
            let half = |together: u32| Some((together / 2).max(1));
            let _ = self.bounds.together_max.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
        }
        let error = match (stuck, death) {
            (true, _) => PredictError::Late,
            (false, Death::Killed) => PredictError::Killed,
            (false, Death::Crashed | Death::OutOfMemory) => PredictError::Died,
        };
        for waiting in std::mem::take(&mut self.at_work).into_values() {
            let _ = waiting.request.reply.send(Err(error.clone()));
        }
        if self.concluded || (self.stopping && !stuck) {
            return;
        }
        tell(match (self.checking, death) {
            (false, _) => WorkerEvent::Died(death, reason),
            (true, Death::Crashed) => WorkerEvent::Bad(RefusalKind::CannotLoad, reason),
            // Too little memory and another's hand prove nothing: the check is made again.
            (true, Death::Killed | Death::OutOfMemory) => WorkerEvent::Stopped(reason),
        });
    }
}

/// Of the buffer for frames, so much is kept.
const OUT_BYTES_KEPT: usize = 1024 * 1024;

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
        // What people and supervisors send; no program does this to itself.
        (Some(signal @ (1 | 2 | 9 | 15)), _) => (Death::Killed, format!("killed (signal {signal})")),
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
        check(signal(15), "", Death::Killed, "killed (signal 15)");
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
        let load = Load { file: PathBuf::new(), ports: None, memory_bytes: 1, cpu_milli: 1, read_only: vec![] };
        start(Path::new("/bin/cat"), WorkerId(id), load, Purpose::Serve, Bounds::default(), after, |_| {})
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
