//! The model's end: loads, checks, predicts, one request after the other.
//!
//! A thread of its own reads the requests, so that the end of the stream (the agent is gone) ends
//! this process also while the model computes.

use std::io::{self, BufReader, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_shared::golden::Golden;
use muster_shared::limits::GOLDEN_BYTES_MAX;
use muster_shared::reported::Measured;

use super::golden;
use super::protocol::{FromWorker, Load, OUT_OF_MEMORY_CODE, ToWorker, read, write};
use super::sandbox::{self, Accelerator, Confinement, Pace};
use crate::engine::{self, Model};
use crate::tensor::Tensor;

/// Requests that may wait between the reading and the computing thread.
const REQUESTS_WAITING_MAX: usize = 4;
/// The reading thread's stack. What it reads is on the heap.
const READING_STACK_BYTES: usize = 256 * 1024;
/// What the reading thread takes in all: it starts after the memory was limited, and is not the model's.
const READING_BYTES: u64 = READING_STACK_BYTES as u64 + 64 * 1024;
/// Predictions whose median is the measured latency.
const MEASURED_RUNS: usize = 11;

/// Runs until the agent closes the stream.
pub fn run() -> anyhow::Result<()> {
    // A panic of the engine becomes an answer; its text must not reach the protocol's stream.
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(io::stderr(), "worker: {info}");
    }));
    let mut input = BufReader::new(io::stdin());
    let load = match read::<ToWorker>(&mut input)? {
        Some(ToWorker::Load(load)) => load,
        Some(_) => anyhow::bail!("the first request must be to load"),
        None => return Ok(()),
    };
    // Before there is another thread: Landlock takes this one and those that it starts.
    sandbox::close(&confinement(&load)).context("cannot close the sandbox")?;
    let (sender, requests) = sync_channel(REQUESTS_WAITING_MAX);
    let reading = std::thread::Builder::new().stack_size(READING_STACK_BYTES);
    reading.spawn(move || {
        loop {
            let request = read::<ToWorker>(&mut input).ok().flatten();
            // The agent closed the stream, or is gone: nobody wants an answer any more.
            if request.is_none_or(|request| sender.send(request).is_err()) {
                std::process::exit(0);
            }
        }
    })?;
    work(&load, &requests)
}

fn confinement(load: &Load) -> Confinement {
    Confinement {
        memory_bytes: load.memory_bytes.saturating_add(READING_BYTES),
        cpu_milli: Some(load.cpu_milli),
        read_only: std::iter::once(&load.file).chain(&load.read_only).cloned().collect(),
        accelerator: Accelerator::None,
    }
}

fn work(load: &Load, requests: &Receiver<ToWorker>) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let loaded = guarded(|| engine::load(&load.file, &load.inputs, &load.outputs).map_err(|error| error.to_string()));
    let model = match loaded {
        Ok(model) => model,
        Err(reason) => return Ok(write(&mut out, &FromWorker::CannotLoad(reason))?),
    };
    write(&mut out, &FromWorker::Loaded)?;
    let began = Instant::now();
    let mut pace = Pace::new(load.cpu_milli, began.elapsed());
    while let Ok(request) = requests.recv() {
        let answer = match request {
            ToWorker::Load(_) => anyhow::bail!("a model is loaded already"),
            ToWorker::Check { golden } => {
                // A file that cannot be read proves nothing of the model: it ends this process.
                let golden = golden.as_deref().map(read_golden).transpose()?;
                match check(&*model, golden.as_deref(), load) {
                    Ok(measured) => FromWorker::Checked(measured),
                    Err(reason) => FromWorker::WrongAnswers(reason),
                }
            }
            ToWorker::Predict { id, inputs } => {
                let before = cpu_us();
                let result = guarded(|| model.run(&inputs).map_err(|error| error.to_string()));
                FromWorker::Answer { id, result, cpu_us: cpu_us().saturating_sub(before) }
            }
        };
        write(&mut out, &answer)?;
        // Who asks waits for the next answer, not for this one.
        if let FromWorker::Answer { cpu_us, .. } = answer {
            std::thread::sleep(pace.used(began.elapsed(), Duration::from_micros(cpu_us)));
        }
    }
    Ok(())
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

fn check(model: &dyn Model, golden: Option<&[u8]>, load: &Load) -> Result<Measured, String> {
    guarded(|| {
        let golden = golden.map(Golden::parse).transpose().map_err(|error| format!("golden vectors: {error}"))?;
        if let Some(golden) = &golden {
            golden::check(golden, model, &load.inputs, &load.outputs)?;
        }
        let row = golden
            .and_then(|golden| golden::one_row(&golden, &load.inputs))
            .unwrap_or_else(|| golden::zeros(&load.inputs));
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
