//! Serves chunks: a device asks for frames of a blob, and gets them at the lowest priority there is.
//!
//! A device is served only what its current desired state names, and what that names in turn. Frames
//! travel at QoS 0: what is lost is asked for again. Each device has a short queue of its own, so
//! that one that asks for too much waits for itself alone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_shared::checks::{self, Check};
use muster_shared::desired::Desired;
use muster_shared::limits::FRAMES_PER_CHUNK;
use muster_shared::message::{ChunkData, ChunkGet};
use muster_shared::topic::Leaf;
use muster_shared::{DeviceId, Digest, chunk, wire};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::broker::QoS;
use crate::catalog::CatalogError;
use crate::db;
use crate::plane::Plane;

/// Requests of one device that wait; a newer one gives way and is asked again.
const QUEUED_REQUESTS_MAX: usize = 16;
/// Requests being read from the disk at a time, over all devices.
const READS_MAX: usize = 32;
/// How long a device's server lives without a request.
const IDLE: Duration = Duration::from_secs(30);
/// Chunks of one device whose frames are counted; the oldest give way.
const COUNTED_CHUNKS_MAX: usize = 4096;
/// Devices whose frames are counted; the rest are counted only together.
const COUNTED_DEVICES_MAX: usize = 4096;

/// The blobs a device may have, with their lengths.
type Rights = BTreeMap<Digest, u64>;

/// The chunk server's memory.
pub struct ChunkServer {
    queues: Mutex<HashMap<DeviceId, mpsc::Sender<ChunkGet>>>,
    /// Forgotten when the device's desired state changes.
    rights: Mutex<HashMap<DeviceId, Arc<Rights>>>,
    /// How often rights were forgotten: what was read before that is not remembered after it.
    forgotten: AtomicU64,
    counts: Mutex<Counts>,
    reads: Semaphore,
}

/// What was served.
#[derive(Default)]
struct Counts {
    devices: BTreeMap<DeviceId, DeviceCounts>,
    frames: u64,
    bytes: u64,
}

/// What one device was served.
#[derive(Default)]
struct DeviceCounts {
    frames: u64,
    bytes: u64,
    chunks: BTreeMap<(Digest, u32), u64>,
    order: VecDeque<(Digest, u32)>,
}

/// How often frames of one chunk were sent to a device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChunkCount {
    /// The blob.
    pub blob: Digest,
    /// The chunk's number in it.
    pub chunk: u32,
    /// Frames sent, repeated ones included.
    pub frames: u64,
}

/// What a device was served, in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Frames.
    pub frames: u64,
    /// Their payload.
    pub bytes: u64,
}

impl Default for ChunkServer {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            rights: Mutex::default(),
            forgotten: AtomicU64::default(),
            counts: Mutex::default(),
            reads: Semaphore::new(READS_MAX),
        }
    }
}

impl ChunkServer {
    /// Queues a request. One too many is dropped: the device asks again.
    pub fn ask(&self, plane: &Arc<Plane>, device: &DeviceId, request: ChunkGet) {
        let mut queues = lock(&self.queues);
        let queue = queues.get(device).filter(|queue| !queue.is_closed());
        let queue = match queue {
            Some(queue) => queue.clone(),
            None => {
                let (sender, receiver) = mpsc::channel(QUEUED_REQUESTS_MAX);
                queues.insert(device.clone(), sender.clone());
                plane.tasks.spawn(serve_device(plane.clone(), device.clone(), receiver));
                sender
            }
        };
        if queue.try_send(request).is_err() {
            tracing::debug!(%device, "dropped a chunk request");
        }
    }

    /// Forgets what a device may have, because its desired state changed.
    pub fn forget_rights(&self, device: &DeviceId) {
        let mut rights = lock(&self.rights);
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        rights.remove(device);
    }

    /// What a device was served, by chunk.
    pub fn chunks(&self, device: &DeviceId) -> Vec<ChunkCount> {
        let counts = lock(&self.counts);
        let chunks = counts.devices.get(device).map(|counts| &counts.chunks);
        let count = |(key, frames): (&(Digest, u32), &u64)| ChunkCount { blob: key.0, chunk: key.1, frames: *frames };
        chunks.into_iter().flatten().map(count).collect()
    }

    /// What every counted device was served, and all together.
    pub fn served(&self) -> (Served, Vec<(DeviceId, Served)>) {
        let counts = lock(&self.counts);
        let device = |(id, counts): (&DeviceId, &DeviceCounts)| {
            (id.clone(), Served { frames: counts.frames, bytes: counts.bytes })
        };
        let all = Served { frames: counts.frames, bytes: counts.bytes };
        (all, counts.devices.iter().map(device).collect())
    }

    fn count(&self, device: &DeviceId, blob: Digest, frame: u32, bytes: usize) {
        lock(&self.counts).add(device, blob, frame, bytes as u64);
    }

    /// What a device may have, from its newest desired state.
    async fn rights(&self, plane: &Plane, device: &DeviceId) -> Result<Arc<Rights>, CatalogError> {
        if let Some(rights) = lock(&self.rights).get(device) {
            return Ok(rights.clone());
        }
        let forgotten = self.forgotten.load(Ordering::Relaxed);
        let desired = db::desired::get(plane.db.read(), device).await?;
        let desired: Option<Desired> = desired.and_then(|desired| wire::decode(&desired.payload).ok());
        let mut rights = Rights::new();
        for slot in desired.iter().flat_map(|desired| &desired.slots) {
            rights.insert(slot.envelope.sha256, slot.envelope.bytes);
            let Some(manifest) = plane.catalog.manifest(&plane.db, slot.manifest).await? else { continue };
            let variant = manifest.variant(&slot.variant).map(|variant| &variant.file);
            for file in variant.into_iter().chain(&manifest.golden) {
                rights.insert(file.sha256, file.bytes);
                rights.insert(file.chunk_index, chunk::index_bytes(file.bytes));
            }
        }
        let rights = Arc::new(rights);
        let mut known = lock(&self.rights);
        if self.forgotten.load(Ordering::Relaxed) == forgotten {
            known.insert(device.clone(), rights.clone());
        }
        drop(known);
        Ok(rights)
    }
}

impl Counts {
    fn add(&mut self, device: &DeviceId, blob: Digest, frame: u32, bytes: u64) {
        self.frames += 1;
        self.bytes += bytes;
        if self.devices.len() >= COUNTED_DEVICES_MAX && !self.devices.contains_key(device) {
            return;
        }
        let counts = self.devices.entry(device.clone()).or_default();
        counts.frames += 1;
        counts.bytes += bytes;
        let key = (blob, frame / FRAMES_PER_CHUNK as u32);
        if let Some(frames) = counts.chunks.get_mut(&key) {
            *frames += 1;
            return;
        }
        if counts.order.len() >= COUNTED_CHUNKS_MAX
            && let Some(oldest) = counts.order.pop_front()
        {
            counts.chunks.remove(&oldest);
        }
        counts.chunks.insert(key, 1);
        counts.order.push_back(key);
    }
}

/// Serves one device, one request after the other, until it has been silent for a while.
async fn serve_device(plane: Arc<Plane>, device: DeviceId, mut requests: mpsc::Receiver<ChunkGet>) {
    loop {
        let request = tokio::select! {
            () = plane.stop.cancelled() => return,
            request = timeout(IDLE, requests.recv()) => request,
        };
        let Ok(Some(request)) = request else { break };
        if let Err(error) = serve(&plane, &device, request).await {
            tracing::warn!(%device, blob = ?request.blob, error = &error as &dyn std::error::Error, "cannot serve a chunk");
        }
    }
    // Under the lock nobody can ask; what came a moment ago is dropped with the queue, and asked again.
    let mut queues = lock(&plane.chunks.queues);
    requests.close();
    queues.remove(&device);
}

async fn serve(plane: &Plane, device: &DeviceId, request: ChunkGet) -> Result<(), CatalogError> {
    let rights = plane.chunks.rights(plane, device).await?;
    // A device that was revoked while its request waited gets nothing more.
    if !plane.live.is_heard(device) {
        return Ok(());
    }
    let mut bytes = rights.get(&request.blob).copied();
    if !checks::on(Check::ChunkRights) {
        bytes = plane.blobs.bytes(request.blob).await?;
    }
    let Some(bytes) = bytes else {
        let none = ChunkData::Unavailable { blob: request.blob };
        plane.send(device, Leaf::ChunkData, &none, QoS::AtLeastOnce).await;
        return Ok(());
    };
    let numbers = request.wanted().collect();
    let frames = {
        // The semaphore is never closed.
        let _read = plane.chunks.reads.acquire().await;
        plane.blobs.frames(request.blob, bytes, numbers).await?
    };
    for (number, bytes) in frames {
        plane.chunks.count(device, request.blob, number, bytes.len());
        let frame = ChunkData::Frame { blob: request.blob, number, bytes };
        plane.send(device, Leaf::ChunkData, &frame, QoS::AtMostOnce).await;
    }
    Ok(())
}

/// Each of these maps is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_chunk_and_the_oldest_chunks_give_way() {
        let mut counts = Counts::default();
        let device: DeviceId = "edge-1".parse().expect("an id");
        let blob = Digest::of("blob");
        for frame in [0, 1, 3, 4, 0] {
            counts.add(&device, blob, frame, 10);
        }
        let chunks = &counts.devices[&device].chunks;
        assert_eq!(chunks.iter().map(|(key, frames)| (key.1, *frames)).collect::<Vec<_>>(), [(0, 4), (1, 1)]);
        assert_eq!((counts.frames, counts.bytes), (5, 50));
        for chunk in 0..COUNTED_CHUNKS_MAX as u32 + 5 {
            counts.add(&device, Digest::of("other"), chunk * FRAMES_PER_CHUNK as u32, 1);
        }
        let counts = &counts.devices[&device];
        assert_eq!((counts.chunks.len(), counts.order.len()), (COUNTED_CHUNKS_MAX, COUNTED_CHUNKS_MAX));
        assert!(!counts.chunks.contains_key(&(blob, 0)));
    }
}
