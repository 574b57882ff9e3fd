//! How the files of a bundle come to this device: the manifest first, which must be a publisher's,
//! then each file behind its chunk index. One file moves at a time, so that what is in flight stays
//! bounded for the whole device.
//!
//! What is on disk already is looked at first: that is all there is to resuming.

use muster_shared::chunk::{ChunkIndex, index_bytes};
use muster_shared::desired::SlotSpec;
use muster_shared::id::UnixMs;
use muster_shared::manifest::{FileRef, VerifiedManifest};
use muster_shared::message::{ChunkData, ChunkGet};
use muster_shared::{DeploymentName, Digest};

use crate::backoff::delay_ms;
use crate::transfer::{Arrival, Transfer};
use crate::verify::bundle::{Beliefs, NotBegun, declared_length, may_begin, read_manifest};

/// Damaged pieces in a row after which a job pauses: a line or a plane that damages everything
/// must not keep the device busy.
const DISCARDS_MAX: u32 = 16;

/// Everything that is to be fetched, in order of asking.
#[derive(Debug, Default)]
pub struct Fetcher {
    jobs: Vec<Job>,
    online: bool,
}

/// The files of one slot.
#[derive(Debug)]
struct Job {
    deployment: DeploymentName,
    spec: SlotSpec,
    manifest: Option<VerifiedManifest>,
    /// The index of the file that comes next.
    index: Option<ChunkIndex>,
    /// Files of the manifest that are whole, in order.
    files_done: usize,
    stage: Stage,
    attempt: u32,
    /// Damaged pieces since the last good one.
    discards: u32,
}

#[derive(Debug)]
enum Stage {
    /// Its turn has not come.
    Queued,
    /// The store is asked what it has.
    Looking,
    /// Frames are under way. `content` gathers a small blob for reading.
    Moving { transfer: Box<Transfer>, content: Option<Vec<u8>> },
    /// All is stored; the store makes it final.
    Finishing { content: Option<Vec<u8>> },
    /// Nothing happens before this time.
    Paused { until_ms: UnixMs, for_trust: bool },
}

/// What a job needs next.
#[derive(Debug, Clone, PartialEq)]
enum Need {
    Manifest,
    Index(FileRef),
    File(FileRef),
    Nothing,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum FetchAction {
    /// Say what is on disk of a blob; with an index, chunk by chunk.
    Look {
        /// The blob.
        blob: Digest,
        /// Its length.
        bytes: u64,
        /// Given for a file; a small blob is read as a whole.
        index: Option<ChunkIndex>,
    },
    /// Write verified bytes of a blob.
    Store {
        /// The blob.
        blob: Digest,
        /// Its length.
        blob_bytes: u64,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// All pieces are written: make the blob durable and final.
    Finish {
        /// The blob.
        blob: Digest,
    },
    /// Ask the plane for frames.
    Ask(ChunkGet),
    /// Every file of the slot's bundle is on disk.
    Done {
        /// The slot.
        deployment: DeploymentName,
    },
    /// It does not go on now; it is tried again by itself.
    Waiting {
        /// The slot.
        deployment: DeploymentName,
        /// Why.
        reason: String,
    },
    /// What the desired state names is not what a publisher signed.
    Untrusted {
        /// The slot.
        deployment: DeploymentName,
        /// Why.
        reason: String,
    },
    /// A publisher signed this bundle, whether or not it may begin; with the digest of its envelope.
    Verified(Box<VerifiedManifest>, Digest),
    /// A chunk arrived that is not what its index names. It was dropped.
    Discarded {
        /// The slot.
        deployment: DeploymentName,
        /// The blob.
        blob: Digest,
        /// Which piece.
        piece: u32,
    },
}

/// What the store has of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// All of it. The content comes along for small blobs.
    Whole(Option<Vec<u8>>),
    /// These pieces, verified against the index.
    Pieces(Vec<u32>),
    /// The store failed.
    Failed(String),
}

impl Fetcher {
    /// Begins to fetch the bundle of a slot, or changes what is fetched for it.
    pub fn start(&mut self, deployment: DeploymentName, spec: SlotSpec) -> Vec<FetchAction> {
        let mut actions = self.stop(&deployment);
        if let Err(error) = declared_length(&spec) {
            actions.push(FetchAction::Untrusted { deployment, reason: error.to_string() });
            return actions;
        }
        let stage = Stage::Queued;
        let job = Job { deployment, spec, manifest: None, index: None, files_done: 0, stage, attempt: 0, discards: 0 };
        self.jobs.push(job);
        actions.extend(self.advance());
        actions
    }

    /// Gives up on a slot's bundle and goes on with the next. What is on disk stays there.
    pub fn stop(&mut self, deployment: &DeploymentName) -> Vec<FetchAction> {
        let was_first = self.jobs.first().is_some_and(|job| &job.deployment == deployment);
        self.jobs.retain(|job| &job.deployment != deployment);
        if was_first { self.advance() } else { vec![] }
    }

    /// Brings the first job that does not wait for the time to the front, if none is at work.
    fn advance(&mut self) -> Vec<FetchAction> {
        let idle = |job: &Job| matches!(job.stage, Stage::Queued);
        let paused = |job: &Job| matches!(job.stage, Stage::Paused { .. });
        if self.jobs.first().is_some_and(|job| !idle(job) && !paused(job)) {
            return vec![];
        }
        let Some(at) = self.jobs.iter().position(idle) else { return vec![] };
        let job = self.jobs.remove(at);
        self.jobs.insert(0, job);
        self.look()
    }

    /// Bytes on their way: chunks that are here, and all, of the slot's current file.
    pub fn progress(&self, deployment: &DeploymentName) -> Option<(u32, u32)> {
        self.jobs.iter().find(|job| &job.deployment == deployment).and_then(|job| match &job.stage {
            Stage::Moving { transfer, .. } => Some(transfer.progress()),
            _ => None,
        })
    }

    /// The connection came or went.
    pub fn set_online(&mut self, online: bool, now_ms: UnixMs) -> Vec<FetchAction> {
        self.online = online;
        for job in &mut self.jobs {
            if let Stage::Moving { transfer, .. } = &mut job.stage {
                transfer.restart();
            }
        }
        self.ask(now_ms)
    }

    /// When [`Fetcher::tick`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<UnixMs> {
        let of = |job: &Job| match &job.stage {
            Stage::Moving { transfer, .. } if self.online => transfer.next_deadline_ms(),
            Stage::Paused { until_ms, .. } => Some(*until_ms),
            _ => None,
        };
        self.jobs.iter().filter_map(of).min()
    }

    /// Goes on with what waited for the time.
    pub fn tick(&mut self, now_ms: UnixMs) -> Vec<FetchAction> {
        for job in &mut self.jobs {
            if matches!(job.stage, Stage::Paused { until_ms, .. } if until_ms <= now_ms) {
                job.stage = Stage::Queued;
            }
        }
        let mut actions = self.advance();
        actions.extend(self.ask(now_ms));
        actions
    }

    /// The store answered [`FetchAction::Look`].
    pub fn looked(&mut self, blob: Digest, found: Looked, beliefs: Beliefs<'_>, now_ms: UnixMs) -> Vec<FetchAction> {
        let Some(job) = self.current(blob) else { return vec![] };
        if !matches!(job.stage, Stage::Looking) {
            return vec![];
        }
        match found {
            Looked::Whole(content) => self.blob_is_here(content, beliefs, now_ms),
            Looked::Pieces(done) => {
                let (bytes, index) = job.blob_shape();
                let mut transfer = match &index {
                    Some(index) => Transfer::chunked(blob, bytes, index),
                    None => Transfer::whole(blob, bytes),
                };
                done.into_iter().for_each(|piece| transfer.mark_done(piece));
                let complete = transfer.is_done();
                job.stage = Stage::Moving { transfer: Box::new(transfer), content: None };
                if complete { self.finish() } else { self.ask(now_ms) }
            }
            Looked::Failed(reason) => self.pause(reason, now_ms),
        }
    }

    /// Frames arrived, or word that there are none.
    pub fn arrived(&mut self, data: ChunkData, now_ms: UnixMs) -> Vec<FetchAction> {
        let (blob, frame) = match data {
            ChunkData::Frame { blob, number, bytes } => (blob, Some((number, bytes))),
            ChunkData::Unavailable { blob } => (blob, None),
        };
        let Some(job) = self.current(blob) else { return vec![] };
        let deployment = job.deployment.clone();
        let (blob_bytes, index) = job.blob_shape();
        let Stage::Moving { transfer, content } = &mut job.stage else { return vec![] };
        let Some((number, bytes)) = frame else {
            return self.pause("the control plane does not have the files yet".to_owned(), now_ms);
        };
        match transfer.arrive(number, bytes, now_ms) {
            Arrival::Nothing => self.ask(now_ms),
            Arrival::Discarded { number } => {
                job.discards += 1;
                let too_many = job.discards >= DISCARDS_MAX;
                let mut actions = vec![FetchAction::Discarded { deployment, blob, piece: number }];
                actions.extend(match too_many {
                    true => self.pause("chunks keep arriving damaged".to_owned(), now_ms),
                    false => self.ask(now_ms),
                });
                actions
            }
            Arrival::Piece { number, bytes } => {
                let complete = transfer.is_done();
                if index.is_none() {
                    *content = Some(bytes.clone());
                }
                job.attempt = 0;
                job.discards = 0;
                let offset = u64::from(number) * muster_shared::limits::CHUNK_BYTES as u64;
                let mut actions = vec![FetchAction::Store { blob, blob_bytes, offset, bytes }];
                actions.extend(if complete { self.finish() } else { self.ask(now_ms) });
                actions
            }
        }
    }

    /// The store could not write or finish a blob.
    pub fn store_failed(&mut self, blob: Digest, reason: String, now_ms: UnixMs) -> Vec<FetchAction> {
        if self.current(blob).is_none() { vec![] } else { self.pause(reason, now_ms) }
    }

    /// The store made a blob final.
    pub fn finished(&mut self, blob: Digest, beliefs: Beliefs<'_>, now_ms: UnixMs) -> Vec<FetchAction> {
        match self.current(blob).map(|job| &mut job.stage) {
            Some(Stage::Finishing { content }) => {
                let content = content.take();
                self.blob_is_here(content, beliefs, now_ms)
            }
            _ => vec![],
        }
    }

    /// The first job, if it is about `blob` now: an answer that comes late finds none.
    fn current(&mut self, blob: Digest) -> Option<&mut Job> {
        self.jobs.first_mut().filter(|job| job.blob() == Some(blob))
    }

    fn look(&mut self) -> Vec<FetchAction> {
        let Some(job) = self.jobs.first_mut() else { return vec![] };
        let Some(blob) = job.blob() else { return vec![] };
        job.stage = Stage::Looking;
        let (bytes, index) = job.blob_shape();
        vec![FetchAction::Look { blob, bytes, index }]
    }

    fn ask(&mut self, now_ms: UnixMs) -> Vec<FetchAction> {
        let mut actions = vec![];
        if let (true, Some(Job { stage: Stage::Moving { transfer, .. }, .. })) = (self.online, self.jobs.first_mut()) {
            while let Some(get) = transfer.ask(now_ms) {
                actions.push(FetchAction::Ask(get));
            }
        }
        actions
    }

    fn finish(&mut self) -> Vec<FetchAction> {
        let Some(job) = self.jobs.first_mut() else { return vec![] };
        let Some(blob) = job.blob() else { return vec![] };
        if let Stage::Moving { content, .. } = &mut job.stage {
            job.stage = Stage::Finishing { content: content.take() };
        }
        vec![FetchAction::Finish { blob }]
    }

    /// Puts the first job aside and goes on with the next.
    fn pause(&mut self, reason: String, now_ms: UnixMs) -> Vec<FetchAction> {
        self.put_aside(reason, false, now_ms)
    }

    fn put_aside(&mut self, reason: String, for_trust: bool, now_ms: UnixMs) -> Vec<FetchAction> {
        let mut job = self.jobs.remove(0);
        job.stage = Stage::Paused { until_ms: now_ms + delay_ms(job.attempt, 1.0), for_trust };
        job.discards = 0;
        job.attempt = job.attempt.saturating_add(1);
        let deployment = job.deployment.clone();
        self.jobs.push(job);
        let mut actions = vec![FetchAction::Waiting { deployment, reason }];
        actions.extend(self.advance());
        actions
    }

    /// A root, a floor or a desired state came: what waited for one is looked at again.
    pub fn trust_changed(&mut self) -> Vec<FetchAction> {
        for job in &mut self.jobs {
            if matches!(job.stage, Stage::Paused { for_trust: true, .. }) {
                (job.stage, job.attempt) = (Stage::Queued, 0);
            }
        }
        self.advance()
    }

    /// The first job's current blob is whole and on disk.
    fn blob_is_here(&mut self, content: Option<Vec<u8>>, beliefs: Beliefs<'_>, now_ms: UnixMs) -> Vec<FetchAction> {
        let Some(job) = self.jobs.first_mut() else { return vec![] };
        let mut actions = vec![];
        let outcome = job.take_in(content, beliefs, &mut actions);
        match outcome {
            Ok(()) if job.need() != Need::Nothing => {
                actions.extend(self.look());
                return actions;
            }
            Ok(()) => {
                let job = self.jobs.remove(0);
                actions.push(FetchAction::Done { deployment: job.deployment });
            }
            Err(NotBegun::Untrusted(reason)) => {
                let job = self.jobs.remove(0);
                actions.push(FetchAction::Untrusted { deployment: job.deployment, reason });
            }
            Err(NotBegun::Waits(reason)) => {
                // What is on disk is found there again; the manifest is judged again then.
                (job.manifest, job.index, job.files_done) = (None, None, 0);
                actions.extend(self.put_aside(reason, true, now_ms));
                return actions;
            }
        }
        actions.extend(self.advance());
        actions
    }
}

impl Job {
    fn need(&self) -> Need {
        let Some(manifest) = &self.manifest else { return Need::Manifest };
        let manifest = manifest.manifest();
        let variant = manifest.variant(&self.spec.variant).map(|variant| &variant.file);
        match variant.into_iter().chain(&manifest.golden).nth(self.files_done) {
            Some(file) if self.index.is_some() => Need::File(file.clone()),
            Some(file) => Need::Index(file.clone()),
            None => Need::Nothing,
        }
    }

    fn blob(&self) -> Option<Digest> {
        match self.need() {
            Need::Manifest => Some(self.spec.envelope.sha256),
            Need::Index(file) => Some(file.chunk_index),
            Need::File(file) => Some(file.sha256),
            Need::Nothing => None,
        }
    }

    fn blob_shape(&self) -> (u64, Option<ChunkIndex>) {
        match self.need() {
            Need::Manifest => (self.spec.envelope.bytes, None),
            Need::Index(file) => (index_bytes(file.bytes), None),
            Need::File(file) => (file.bytes, self.index.clone()),
            Need::Nothing => (0, None),
        }
    }

    /// Reads the blob that arrived and moves on to the next need; an error is why it does not.
    fn take_in(
        &mut self,
        content: Option<Vec<u8>>,
        beliefs: Beliefs<'_>,
        actions: &mut Vec<FetchAction>,
    ) -> Result<(), NotBegun> {
        let content = content.unwrap_or_default();
        match self.need() {
            Need::Manifest => {
                let verified = read_manifest(&content, &self.spec, beliefs.root, beliefs.software)?;
                actions.push(FetchAction::Verified(Box::new(verified.clone()), self.spec.envelope.sha256));
                may_begin(&verified, &self.spec, beliefs)?;
                self.manifest = Some(verified);
            }
            Need::Index(file) => {
                let index = ChunkIndex::verify(&content, file.chunk_index, file.bytes);
                self.index = Some(index.map_err(|error| NotBegun::Untrusted(error.to_string()))?);
            }
            Need::File(_) => {
                self.index = None;
                self.files_done += 1;
            }
            Need::Nothing => {}
        }
        match &self.manifest {
            // While its files came, what is believed may have changed.
            Some(manifest) if self.need() == Need::Nothing => may_begin(manifest, &self.spec, beliefs),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
