//! The model's end: loads, checks, predicts.
//!
//! One thread reads requests and computes, so that a request costs one wake-up. Another waits for the
//! agent to close the stream: that ends this process also while the model computes.

use std::io::{self, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use muster_shared::golden::Golden;
use muster_shared::limits::GOLDEN_BYTES_MAX;
use muster_shared::reported::Measured;
use rustix::event::{PollFd, PollFlags, poll};

use super::protocol::{
    AnswerHead, FromWorker, Load, Loaded, OUT_OF_MEMORY_CODE, RequestHead, TensorHead, ToWorker, frame, read, write,
};
use super::sandbox::{self, Accelerator, Confinement, Pace};
use super::{golden, together};
use crate::engine::{self, Model, Ports};
use crate::tensor::Tensor;

/// The watching thread's stack.
const WATCHING_STACK_BYTES: usize = 128 * 1024;
/// What that thread takes in all: it starts after the memory was limited, and is not the model's.
const WATCHING_BYTES: u64 = WATCHING_STACK_BYTES as u64 + 64 * 1024;
/// Predictions whose median is the measured latency.
const MEASURED_RUNS: usize = 11;
/// Answers of one frame wait for each other no longer than this.
const ANSWERS_WAIT_MAX: Duration = Duration::from_millis(1);

/// Runs until the agent closes the stream.
pub fn run() -> anyhow::Result<()> {
    // A panic of the engine becomes an answer; its text must not reach the protocol's stream.
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(io::stderr(), "worker: {info}");
    }));
    let mut input = BufReader::new(io::stdin().lock());
    let (load, together_max) = match read(&mut input)? {
        Some((ToWorker::Load { load, together_max }, _)) => (load, together_max),
        Some(_) => anyhow::bail!("the first request must be to load"),
        None => return Ok(()),
    };
    // Before there is another thread: Landlock takes this one and those that it starts.
    sandbox::close(&confinement(&load)).context("cannot close the sandbox")?;
    std::thread::Builder::new().stack_size(WATCHING_STACK_BYTES).spawn(end_with_the_agent)?;
    let mut out = io::stdout().lock();
    let loaded = guarded(|| {
        let ports = load.ports.as_ref().map(|(inputs, outputs)| Ports { inputs, outputs });
        engine::load(&load.file, ports).map_err(|error| error.to_string())
    });
    let model = match loaded {
        Ok(model) => model,
        Err(reason) => return Ok(write(&mut out, &FromWorker::CannotLoad(reason))?),
    };
    // The first runs are slower than the rest: they are made here, before anyone waits for them.
    let batches = guarded(|| Ok(together::may_batch(&*model))).unwrap_or(false);
    let (inputs, outputs) = (model.inputs().to_vec(), model.outputs().to_vec());
    write(&mut out, &FromWorker::Loaded(Loaded { inputs, outputs, batches }))?;
    let began = Instant::now();
    let pace = Pace::new(load.cpu_milli, began.elapsed());
    let mut worker = Worker { model, batches, together_max: together_max as usize, out: vec![], pace, began };
    while let Some((request, body)) = read(&mut input)? {
        match request {
            ToWorker::Load { .. } => anyhow::bail!("a model is loaded already"),
            ToWorker::Check { golden } => {
                // A file that cannot be read proves nothing of the model: it ends this process.
                let golden = golden.as_deref().map(read_golden).transpose()?;
                let answer = match check(&*worker.model, golden.as_deref()) {
                    Ok(measured) => FromWorker::Checked(measured),
                    Err(reason) => FromWorker::WrongAnswers(reason),
                };
                write(&mut out, &answer)?;
            }
            ToWorker::Predict(requests) => worker.predict(requests, body, &mut out)?,
        }
    }
    Ok(())
}

fn confinement(load: &Load) -> Confinement {
    Confinement {
        memory_bytes: load.memory_bytes.saturating_add(WATCHING_BYTES),
        cpu_milli: Some(load.cpu_milli),
        read_only: std::iter::once(&load.file).chain(&load.read_only).cloned().collect(),
        accelerator: Accelerator::None,
    }
}

/// Nobody wants an answer any more once the agent has closed the stream, or is gone.
fn end_with_the_agent() {
    let stdin = io::stdin();
    loop {
        // Asks for nothing: the end of the stream is told unasked.
        let mut watched = [PollFd::new(&stdin, PollFlags::empty())];
        let polled = poll(&mut watched, None);
        if polled.is_ok_and(|events| events > 0) {
            std::process::exit(0);
        }
    }
}

struct Worker {
    model: Box<dyn Model>,
    batches: bool,
    together_max: usize,
    /// Kept from one answer to the next, so that small ones allocate nothing.
    out: Vec<u8>,
    pace: Pace,
    began: Instant,
}

/// What came of one request: its outputs, or why there are none.
type Outcome = Result<Vec<Tensor>, String>;

impl Worker {
    fn predict(&mut self, heads: Vec<RequestHead>, mut body: Bytes, out: &mut impl io::Write) -> io::Result<()> {
        let mut ids = Vec::with_capacity(heads.len());
        let mut requests = Vec::with_capacity(heads.len());
        for head in heads {
            ids.push(head.id);
            let ports = self.model.inputs().iter();
            let inputs: io::Result<Vec<Tensor>> =
                head.inputs.into_iter().zip(ports).map(|(head, port)| head.take(&port.name, &mut body)).collect();
            requests.push(inputs?);
        }
        let mut answers: Vec<(AnswerHead, Vec<Tensor>)> = vec![];
        let (cpu, mut since) = (cpu_us(), Instant::now());
        for group in together::groups(&requests, self.batches, self.together_max) {
            let (ids, requests) = (&ids[group.clone()], &requests[group]);
            self.run(ids, requests, &mut answers);
            let waiting: usize = answers.iter().map(|(_, outputs)| size(outputs)).sum();
            if since.elapsed() >= ANSWERS_WAIT_MAX || waiting >= ANSWER_BYTES_MAX {
                self.send(&mut answers, Duration::ZERO, out)?;
                since = Instant::now();
            }
        }
        let used = Duration::from_micros(cpu_us().saturating_sub(cpu));
        let rest = self.pace.used(self.began.elapsed(), used);
        self.send(&mut answers, rest, out)?;
        // Who asks waits for the next answer, not for this one.
        std::thread::sleep(rest);
        Ok(())
    }

    /// Runs requests together; alone, where together does not work, so that each is told its own error.
    fn run(&mut self, ids: &[u64], requests: &[Vec<Tensor>], answers: &mut Vec<(AnswerHead, Vec<Tensor>)>) {
        if let [_, _, ..] = requests {
            let (ran, cost) = measured(|| together::run(&*self.model, requests));
            if let Ok(Some(outputs)) = ran {
                let cost = Cost { cpu_us: cost.cpu_us / requests.len() as u64, ..cost };
                let outcomes = outputs.into_iter().map(Ok);
                answers
                    .extend(ids.iter().zip(outcomes).map(|(id, outcome)| answer(*id, outcome, cost, requests.len())));
                return;
            }
            // Its rows do not come apart after all.
            self.batches &= !matches!(ran, Ok(None));
        }
        for (id, inputs) in ids.iter().zip(requests) {
            let (outcome, cost) = measured(|| self.run_one(inputs));
            answers.push(answer(*id, outcome, cost, 1));
        }
    }

    fn run_one(&self, inputs: &[Tensor]) -> Outcome {
        if self.batches && together::rows(inputs) == Some(0) {
            // Engines stumble over tensors without elements; no rows in are no rows out.
            if let Some(nothing) = nothing(self.model.outputs()) {
                return Ok(nothing);
            }
        }
        let outputs = self.model.run(inputs).map_err(|error| error.to_string())?;
        let bytes = size(&outputs);
        if bytes > ANSWER_BYTES_MAX {
            return Err(format!("the answer has {bytes} bytes, at most {ANSWER_BYTES_MAX} go; ask for fewer rows"));
        }
        Ok(outputs)
    }

    fn send(
        &mut self,
        answers: &mut Vec<(AnswerHead, Vec<Tensor>)>,
        rest: Duration,
        out: &mut impl io::Write,
    ) -> io::Result<()> {
        if answers.is_empty() && rest.is_zero() {
            return Ok(());
        }
        let (heads, tensors): (Vec<AnswerHead>, Vec<Vec<Tensor>>) = answers.drain(..).unzip();
        self.out.clear();
        let message = FromWorker::Answers { answers: heads, rest_us: rest.as_micros() as u64 };
        frame(&mut self.out, &message, tensors.iter().flatten())?;
        out.write_all(&self.out)?;
        out.flush()?;
        // One large answer must not keep its memory for ever.
        self.out.shrink_to(OUT_BYTES_KEPT);
        Ok(())
    }
}

fn size(outputs: &[Tensor]) -> usize {
    outputs.iter().map(|output| output.data.len()).sum()
}

/// Elements' bytes of one answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of the buffer for answers, so much is kept.
const OUT_BYTES_KEPT: usize = 1024 * 1024;

fn answer(id: u64, outcome: Outcome, cost: Cost, together: usize) -> (AnswerHead, Vec<Tensor>) {
    let (result, outputs) = match outcome {
        Ok(outputs) => (Ok(outputs.iter().map(TensorHead::of).collect()), outputs),
        Err(reason) => (Err(muster_shared::limits::clip(reason)), vec![]),
    };
    let head = AnswerHead { id, result, cpu_us: cost.cpu_us, compute_us: cost.compute_us, together: together as u32 };
    (head, outputs)
}

/// Outputs without rows; none where a size beyond the first is not known.
fn nothing(ports: &[muster_shared::manifest::Port]) -> Option<Vec<Tensor>> {
    let empty = |port: &muster_shared::manifest::Port| {
        let inner: Option<Vec<usize>> = port.shape[1..].iter().map(|size| Some((*size)? as usize)).collect();
        let shape = [vec![0], inner?].concat();
        Some(Tensor { name: port.name.clone(), dtype: port.dtype, shape, data: Bytes::new() })
    };
    ports.iter().map(empty).collect()
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_us: u64,
    compute_us: u64,
}

fn measured<T>(run: impl FnOnce() -> Result<T, String>) -> (Result<T, String>, Cost) {
    let (cpu, began) = (cpu_us(), Instant::now());
    let outcome = guarded(run);
    (outcome, Cost { cpu_us: cpu_us().saturating_sub(cpu), compute_us: began.elapsed().as_micros() as u64 })
}

/// Turns a panic of the engine into an error. One because an allocation failed ends this process, as
/// an allocation of the standard library does: it says how much memory is granted, not what the model
/// answers, and nothing may be computed with what is half made.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        if engine::is_out_of_memory(text) {
            std::process::exit(OUT_OF_MEMORY_CODE);
        }
        Err(format!("the engine panicked: {text}"))
    })
}

fn check(model: &dyn Model, golden: Option<&[u8]>) -> Result<Measured, String> {
    guarded(|| {
        let golden = golden.map(Golden::parse).transpose().map_err(|error| format!("golden vectors: {error}"))?;
        if let Some(golden) = &golden {
            golden::check(golden, model, model.inputs(), model.outputs())?;
        }
        let row = match golden.and_then(|golden| golden::one_row(&golden, model.inputs())) {
            Some(row) => row,
            None => golden::zeros(model.inputs())?,
        };
        measure(model, &row)
    })
}

fn read_golden(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read golden vectors from {}", path.display()))?;
    anyhow::ensure!(bytes.len() as u64 <= GOLDEN_BYTES_MAX, "golden vectors of {} bytes", bytes.len());
    Ok(bytes)
}

fn measure(model: &dyn Model, row: &[Tensor]) -> Result<Measured, String> {
    let mut micros = vec![];
    for _ in 0..MEASURED_RUNS {
        let began = Instant::now();
        model.run(row).map_err(|error| error.to_string())?;
        micros.push(began.elapsed().as_micros() as u64);
    }
    micros.sort_unstable();
    let memory_peak_bytes = sandbox::status_bytes("VmHWM").unwrap_or(0);
    Ok(Measured { memory_peak_bytes, latency_us: micros[MEASURED_RUNS / 2] })
}

fn cpu_us() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (used.tv_sec as u64) * 1_000_000 + (used.tv_nsec as u64) / 1_000
}
