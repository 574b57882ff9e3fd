//! Requests on their way to a worker: a bounded queue before it. What waits is handed over together as
//! soon as the worker is free; a lone request never waits for others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::tensor::Tensor;

/// Requests that one worker may have, waiting and at work; more are told to come again later.
pub const REQUESTS_MAX: usize = 256;
/// Bytes of elements that one worker's requests may have together; more are told to come again later.
pub const REQUESTS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Requests that are handed over at once, at most.
const HANDED_REQUESTS_MAX: usize = 128;
/// Elements' bytes that are handed over at once: beyond, waiting for the others costs more than the
/// wake-ups that it saves.
const HANDED_BYTES_MAX: usize = 1024 * 1024;
/// How long what is handed over at once should take: the next ones wait so long, and so many are lost
/// with the process.
const HANDED_TIME_US: u64 = 20_000;
/// Of a model whose requests run together, so many are handed over however long one takes: whether
/// together they take less is only known by trying.
const HANDED_TOGETHER_MIN: usize = 8;

/// A worker that was replaced is not asked any more after so long.
const RETIRE_DEADLINE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// More than [`REQUESTS_MAX`] requests or [`REQUESTS_BYTES_MAX`] bytes.
    #[error("the model has more requests than it can take; try again")]
    Busy,
    /// The worker is not ready, or ended before it got the request.
    #[error("the model's process is being started again; try again")]
    Gone,
    /// The worker was killed by another's hand while it worked on the request.
    #[error("the model's process was killed while it worked on this request; try again")]
    Killed,
    /// The worker ended while it worked on the request: perhaps because of it, so nobody else should be
    /// asked the same.
    #[error("the model's process ended while it worked on this request")]
    Died,
    /// There was no answer in time.
    #[error("the model did not answer in time")]
    Late,
    /// The model does not run on this input.
    #[error("{0}")]
    Model(String),
}

/// An answer, and what it cost.
#[derive(Debug)]
pub struct Prediction {
    /// In the order of the ports.
    pub outputs: Vec<Tensor>,
    /// Processor time in microseconds; requests that ran together share it.
    pub cpu_us: u64,
    /// How long the request waited for the worker.
    pub queue: Duration,
    /// How long the run took that it was part of.
    pub compute: Duration,
    /// Requests in that run.
    pub together: u32,
}

/// A running worker, to be asked and to be stopped. Dropping all handles stops it too.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    room_bytes: Arc<Semaphore>,
    stop: CancellationToken,
    ended: CancellationToken,
    process: Arc<AtomicU32>,
    _stop_with_the_last: Arc<DropGuard>,
}

/// One request in the queue.
#[derive(Debug)]
pub struct Request {
    /// In the order of the ports.
    pub inputs: Vec<Tensor>,
    /// Who waits for the answer.
    pub reply: oneshot::Sender<Result<Prediction, PredictError>>,
    /// When it came.
    pub since: Instant,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Request {
    fn bytes(&self) -> usize {
        self.inputs.iter().map(|input| input.data.len()).sum()
    }
}

/// The worker's end of the queue.
#[derive(Debug)]
pub struct Queue {
    requests: mpsc::Receiver<Request>,
    /// Taken out and not yet handed over.
    taken: Vec<Request>,
    /// Cancelled when the worker shall finish what it has and end.
    pub stop: CancellationToken,
    process: Arc<AtomicU32>,
    /// Handed over at once at most, as the time of the last runs suggests.
    handed_max: usize,
    /// Time of one request, in microseconds: a moving average.
    request_us: u64,
    /// Requests run together.
    batches: bool,
}

/// A queue and the handle that fills it. `ended` is cancelled by whoever ends the worker.
pub fn queue(ended: CancellationToken) -> (WorkerHandle, Queue) {
    let (sender, requests) = mpsc::channel(REQUESTS_MAX);
    let (stop, process) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let handle = WorkerHandle {
        requests: sender,
        room: Arc::new(Semaphore::new(REQUESTS_MAX)),
        room_bytes: Arc::new(Semaphore::new(REQUESTS_BYTES_MAX)),
        stop: stop.clone(),
        ended,
        process: process.clone(),
        _stop_with_the_last: Arc::new(stop.clone().drop_guard()),
    };
    (
        handle,
        Queue {
            requests,
            taken: vec![],
            stop,
            process,
            handed_max: HANDED_REQUESTS_MAX,
            request_us: 0,
            batches: false,
        },
    )
}

impl WorkerHandle {
    /// Asks the model.
    pub async fn predict(&self, inputs: Vec<Tensor>) -> Result<Prediction, PredictError> {
        let bytes: usize = inputs.iter().map(|input| input.data.len()).sum();
        if bytes > REQUESTS_BYTES_MAX {
            let text = format!("the request has {bytes} bytes of elements; at most {REQUESTS_BYTES_MAX} go");
            return Err(PredictError::Model(text));
        }
        let busy = |_| PredictError::Busy;
        let room = self.room.clone().try_acquire_owned().map_err(busy)?;
        let bytes = u32::try_from(bytes).map_err(|_| PredictError::Busy)?;
        let room_bytes = self.room_bytes.clone().try_acquire_many_owned(bytes).map_err(busy)?;
        let (reply, answer) = oneshot::channel();
        let request = Request { inputs, reply, since: Instant::now(), _room: (room, room_bytes) };
        self.requests.try_send(request).map_err(|_| PredictError::Gone)?;
        answer.await.unwrap_or(Err(PredictError::Gone))
    }

    /// Lets it finish what it has, and what those ask who found it before it was replaced; then ends it.
    pub fn retire(self) {
        let stop = self.stop.clone();
        // The last of its handles stops it. Who still has one is about to ask.
        drop(self);
        tokio::spawn(async move {
            tokio::time::sleep(RETIRE_DEADLINE).await;
            stop.cancel();
        });
    }

    /// Lets it finish what it has, then ends it.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether both mean the same worker.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.process, &other.process)
    }

    /// The number of its process, while there is one.
    pub fn process(&self) -> Option<u32> {
        Some(self.process.load(Ordering::Relaxed)).filter(|process| *process != 0)
    }

    /// Cancelled when the process is gone and what it took is free.
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

impl Queue {
    /// The worker has this process from now on, or none any more.
    pub fn runs_in(&self, process: Option<u32>) {
        self.process.store(process.unwrap_or(0), Ordering::Relaxed);
    }

    /// Nothing more gets in; what is in can still be taken.
    pub fn close(&mut self) {
        self.requests.close();
    }

    /// What is to be handed over next: waits for a request, then takes what else is there. None when
    /// the queue is closed and empty. Who stops waiting for this loses nothing.
    pub async fn next(&mut self) -> Option<Vec<Request>> {
        if self.taken.is_empty() {
            self.taken.push(self.requests.recv().await?);
        }
        // Whoever else can run now may put a request in, too: many connections become readable at once.
        tokio::task::yield_now().await;
        let mut bytes: usize = self.taken.iter().map(Request::bytes).sum();
        while self.taken.len() < self.handed_max && bytes < HANDED_BYTES_MAX {
            let Ok(request) = self.requests.try_recv() else { break };
            bytes += request.bytes();
            self.taken.push(request);
        }
        Some(std::mem::take(&mut self.taken))
    }

    /// Learns whether requests run together.
    pub fn batches(&mut self, batches: bool) {
        self.batches = batches;
    }

    /// Learns how long a request takes.
    pub fn took(&mut self, compute: Duration, together: u32) {
        let one = compute.as_micros() as u64 / u64::from(together.max(1));
        self.request_us = if self.request_us == 0 { one } else { self.request_us / 8 * 7 + one / 8 + 1 };
        let fitting = HANDED_TIME_US / self.request_us.max(1);
        let least = if self.batches { HANDED_TOGETHER_MIN } else { 1 };
        self.handed_max = (fitting as usize).clamp(least, HANDED_REQUESTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::manifest::Dtype;

    use super::*;

    fn inputs(bytes: usize) -> Vec<Tensor> {
        vec![Tensor { name: "x".into(), dtype: Dtype::U8, shape: vec![bytes], data: vec![0; bytes].into() }]
    }

    /// Starts so many requests and lets them get into the queue.
    async fn ask(handle: &WorkerHandle, count: usize, bytes: usize) -> Vec<tokio::task::JoinHandle<PredictError>> {
        let ask = |handle: WorkerHandle| async move {
            handle.predict(inputs(bytes)).await.err().unwrap_or(PredictError::Model("answered".into()))
        };
        let asked = (0..count).map(|_| tokio::spawn(ask(handle.clone()))).collect();
        tokio::task::yield_now().await;
        asked
    }

    #[tokio::test]
    async fn what_waits_is_handed_over_together_within_bounds() {
        let (handle, mut queue) = queue(CancellationToken::new());
        let _asked = ask(&handle, 3, 10).await;
        assert_eq!(queue.next().await.map(|taken| taken.len()), Some(3));
        let _asked = ask(&handle, 3, HANDED_BYTES_MAX).await;
        assert_eq!(queue.next().await.map(|taken| taken.len()), Some(1), "large ones go alone");
        queue.took(Duration::from_millis(10), 1);
        let _asked = ask(&handle, 3, 1).await;
        queue.next().await;
        queue.next().await;
        assert_eq!(queue.next().await.map(|taken| taken.len()), Some(2), "slow ones by few");
    }

    #[tokio::test]
    async fn a_full_queue_says_so_at_once() {
        let (handle, mut queue) = queue(CancellationToken::new());
        let asked = ask(&handle, REQUESTS_MAX + 1, 1).await;
        let last = asked.into_iter().next_back().expect("the last").await.expect("it ends");
        assert_eq!(last, PredictError::Busy);
        drop(queue.next().await);
        assert_eq!(
            handle.predict(inputs(REQUESTS_BYTES_MAX)).await.err(),
            Some(PredictError::Busy),
            "one request may not take all the memory that others have some of"
        );
        let never = handle.predict(inputs(REQUESTS_BYTES_MAX + 1)).await.err();
        assert!(matches!(never, Some(PredictError::Model(_))), "trying again would not help: {never:?}");
    }

    #[tokio::test]
    async fn who_asks_a_worker_that_has_ended_is_told() {
        let (handle, queue) = queue(CancellationToken::new());
        drop(queue);
        assert_eq!(handle.predict(inputs(1)).await.err(), Some(PredictError::Gone));
    }

    #[tokio::test]
    async fn the_last_handle_that_goes_stops_the_worker() {
        let (handle, queue) = queue(CancellationToken::new());
        let other = handle.clone();
        drop(handle);
        assert!(!queue.stop.is_cancelled());
        drop(other);
        assert!(queue.stop.is_cancelled());
    }
}
