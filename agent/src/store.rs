//! Verified bytes on disk, named by digest. A thread of its own does the work, so that a slow card
//! never holds up the loop.
//!
//! Invariant: only verified pieces are written, into `staging/`; a blob moves to `blobs/` when it is
//! whole and durable. What a power cut tears is found by hashing again: there is no other record.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use muster_agent_core::fetch::Looked;
use muster_agent_core::reconcile::Event;
use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use muster_shared::chunk::ChunkIndex;
use muster_shared::desired::SlotSpec;
use muster_shared::limits::{CHUNK_BYTES, MANIFEST_BYTES_MAX};
use muster_shared::manifest::Manifest;
use muster_shared::signing::Envelope;
use sha2::{Digest as _, Sha256};
use tracing::warn;

/// The folder of whole files, below the data.
pub const BLOBS: &str = "blobs";
/// The folder of files that are still on their way.
pub const STAGING: &str = "staging";
/// Bytes that may wait to be written before no more chunks are taken: what is not taken is asked for again.
const UNWRITTEN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where blobs lie.
#[derive(Debug, Clone)]
pub struct Folders {
    blobs: PathBuf,
    staging: PathBuf,
}

/// The store's end of the loop: commands go in, events come out.
#[derive(Debug, Clone)]
pub struct Store {
    folders: Folders,
    commands: Sender<Command>,
    unwritten_bytes: Arc<AtomicUsize>,
}

/// What the store is asked to do. Failures come back as events.
#[derive(Debug)]
pub enum Command {
    /// Say what is there of a blob.
    Look(Digest, u64, Option<ChunkIndex>),
    /// Write verified bytes.
    Write {
        /// The blob.
        blob: Digest,
        /// Its length.
        blob_bytes: u64,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Make a whole blob durable and final.
    Finish(Digest),
    /// Remove what none of these slots needs.
    Retain(Vec<SlotSpec>),
}

impl Store {
    /// Opens the folders below `data` and starts the thread. `tell` takes its events.
    pub fn open(data: &Path, tell: impl Fn(Event) + Send + 'static) -> io::Result<Self> {
        let folders = Folders { blobs: data.join(BLOBS), staging: data.join(STAGING) };
        fs::create_dir_all(&folders.blobs)?;
        fs::create_dir_all(&folders.staging)?;
        let (commands, inbox) = channel();
        let unwritten_bytes = Arc::<AtomicUsize>::default();
        let (worker, unwritten) = (folders.clone(), unwritten_bytes.clone());
        let work = move || work(&worker, &inbox, &unwritten, &tell);
        std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
        Ok(Self { folders, commands, unwritten_bytes })
    }

    /// Hands a command to the thread.
    pub fn send(&self, command: Command) {
        if let Command::Write { bytes, .. } = &command {
            self.unwritten_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        // The thread ends only with the last sender.
        let _ = self.commands.send(command);
    }

    /// Whether so much waits for a slow disk that no more should come.
    pub fn is_behind(&self) -> bool {
        self.unwritten_bytes.load(Ordering::Relaxed) > UNWRITTEN_BYTES_MAX
    }

    /// Where a whole blob lies.
    pub fn path(&self, blob: Digest) -> PathBuf {
        self.folders.blob(blob)
    }

    /// Reads a small whole blob, checking its digest.
    pub fn read(&self, blob: Digest) -> io::Result<Vec<u8>> {
        self.folders.read_whole(blob)
    }
}

fn work(folders: &Folders, inbox: &Receiver<Command>, unwritten_bytes: &AtomicUsize, tell: &impl Fn(Event)) {
    while let Ok(command) = inbox.recv() {
        match command {
            Command::Look(blob, bytes, index) => {
                let found = folders.look(blob, bytes, index.as_ref());
                let found = found.unwrap_or_else(|error| Looked::Failed(format!("cannot read the store: {error}")));
                tell(Event::Looked(blob, found));
            }
            Command::Write { blob, blob_bytes, offset, bytes } => {
                let written = folders.write(blob, blob_bytes, offset, &bytes);
                unwritten_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
                if let Err(error) = written {
                    tell(Event::StoreFailed(blob, explain(&error)));
                }
            }
            Command::Finish(blob) => tell(match folders.finish(blob) {
                Ok(()) => Event::BlobFinished(blob),
                Err(error) => Event::StoreFailed(blob, explain(&error)),
            }),
            Command::Retain(specs) => {
                if let Err(error) = folders.retain(&specs) {
                    warn!(%error, "cannot remove bundles that nobody needs");
                }
            }
        }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full; free space, and it goes on by itself".to_owned(),
        _ => format!("cannot write to the store: {error}"),
    }
}

impl Folders {
    fn blob(&self, blob: Digest) -> PathBuf {
        self.blobs.join(blob.to_string())
    }

    fn staged(&self, blob: Digest) -> PathBuf {
        self.staging.join(blob.to_string())
    }

    fn look(&self, blob: Digest, bytes: u64, index: Option<&ChunkIndex>) -> io::Result<Looked> {
        let Some(index) = index else {
            return Ok(self.read_whole(blob).map_or(Looked::Pieces(vec![]), |content| Looked::Whole(Some(content))));
        };
        let final_path = self.blob(blob);
        if final_path.exists() {
            let good = good_pieces(&final_path, bytes, index)?;
            if good.len() == index.len() {
                return Ok(Looked::Whole(None));
            }
            // Whole under its own name, it is another's, too: the index does not describe it.
            if digest_of(&final_path)? == blob {
                return Ok(Looked::Failed(format!("the chunk index does not describe the file {}", blob.short())));
            }
            // Damaged where it lay: keep what is right, fetch the rest again.
            fs::rename(&final_path, self.staged(blob))?;
            return Ok(Looked::Pieces(good));
        }
        match good_pieces(&self.staged(blob), bytes, index) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Looked::Pieces(vec![])),
            other => other.map(Looked::Pieces),
        }
    }

    fn read_whole(&self, blob: Digest) -> io::Result<Vec<u8>> {
        let mut content = vec![];
        File::open(self.blob(blob))?.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
        if Digest::of(&content) != blob {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged on disk", blob.short())));
        }
        Ok(content)
    }

    fn write(&self, blob: Digest, blob_bytes: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.staged(blob))?;
        if file.metadata()?.len() != blob_bytes {
            file.set_len(blob_bytes)?;
        }
        file.write_all_at(bytes, offset)
    }

    fn finish(&self, blob: Digest) -> io::Result<()> {
        let staged = self.staged(blob);
        // Shrunk to nothing there is no piece to write: an empty file is made here.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&staged)?;
        file.sync_all()?;
        // Each piece is what an index names; who signed that index may not be who signed for this file.
        if checks::on(Check::FileDigest) && digest_of(&staged)? != blob {
            fs::remove_file(&staged)?;
            let text = format!("what arrived as {} is not what it is named", blob.short());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        fs::rename(staged, self.blob(blob))?;
        File::open(&self.blobs)?.sync_all()
    }

    fn retain(&self, specs: &[SlotSpec]) -> io::Result<()> {
        let needed: BTreeSet<String> =
            specs.iter().flat_map(|spec| self.needed_by(spec)).map(|blob| blob.to_string()).collect();
        for folder in [&self.blobs, &self.staging] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if !needed.contains(&entry.file_name().to_string_lossy().into_owned()) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// The blobs of a slot's bundle. Read without verification: it only decides what stays on disk.
    fn needed_by(&self, spec: &SlotSpec) -> Vec<Digest> {
        let mut needed = vec![spec.envelope.sha256];
        let manifest = self.read_whole(spec.envelope.sha256).ok().and_then(|bytes| {
            let envelope = Envelope::from_json(std::str::from_utf8(&bytes).ok()?).ok()?;
            Manifest::parse(&envelope.payload).ok()
        });
        if let Some(manifest) = manifest {
            needed.extend(manifest.files().flat_map(|file| [file.sha256, file.chunk_index]));
        }
        needed
    }
}

/// The digest of a whole file, read piece by piece.
fn digest_of(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut piece = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(Digest(hash.finalize().into())),
            read => hash.update(&piece[..read]),
        }
    }
}

/// The pieces of a file that are what its index names.
fn good_pieces(path: &Path, bytes: u64, index: &ChunkIndex) -> io::Result<Vec<u32>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() != bytes {
        return Ok(vec![]);
    }
    let mut good = vec![];
    for number in 0..index.len() as u32 {
        let mut chunk = vec![];
        (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        if index.chunk(number) == Some(Digest::of(&chunk)) {
            good.push(number);
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, Folders) {
        let data = tempfile::tempdir().expect("a folder");
        let folders = Folders { blobs: data.path().join("blobs"), staging: data.path().join("staging") };
        fs::create_dir_all(&folders.blobs).expect("a folder");
        fs::create_dir_all(&folders.staging).expect("a folder");
        (data, folders)
    }

    #[test]
    fn a_half_written_file_goes_on_where_it_was_and_torn_pieces_do_not_count() {
        let (_data, folders) = folders();
        let file: Vec<u8> = (0..3 * CHUNK_BYTES + 5).map(|at| (at / 777) as u8).collect();
        let (blob, bytes, index) = (Digest::of(&file), file.len() as u64, ChunkIndex::of(&file));
        assert_eq!(folders.look(blob, bytes, Some(&index)).expect("looks"), Looked::Pieces(vec![]));
        let piece = |number: usize| &file[number * CHUNK_BYTES..((number + 1) * CHUNK_BYTES).min(file.len())];
        for number in [0, 2] {
            folders.write(blob, bytes, (number * CHUNK_BYTES) as u64, piece(number)).expect("writes");
        }
        // A piece that the power cut tore.
        folders.write(blob, bytes, CHUNK_BYTES as u64, &piece(1)[..CHUNK_BYTES / 2]).expect("writes");
        assert_eq!(folders.look(blob, bytes, Some(&index)).expect("looks"), Looked::Pieces(vec![0, 2]));
        for number in [1, 3] {
            folders.write(blob, bytes, (number * CHUNK_BYTES) as u64, piece(number)).expect("writes");
        }
        folders.finish(blob).expect("finishes");
        assert_eq!(folders.look(blob, bytes, Some(&index)).expect("looks"), Looked::Whole(None));
        assert_eq!(fs::read(folders.blob(blob)).expect("reads"), file);

        // Damaged where it lies, it is found out, and only the damaged piece is wanted again.
        let mut damaged = file.clone();
        damaged[CHUNK_BYTES] ^= 1;
        fs::write(folders.blob(blob), damaged).expect("writes");
        assert_eq!(folders.look(blob, bytes, Some(&index)).expect("looks"), Looked::Pieces(vec![0, 2, 3]));
    }

    /// A publisher's manifest may name any digest beside an index of its own.
    #[test]
    fn an_index_of_other_chunks_neither_takes_a_file_away_nor_gets_one_its_name() {
        let (_data, folders) = folders();
        let (theirs, ours) = (vec![1; CHUNK_BYTES + 5], vec![2; CHUNK_BYTES + 5]);
        let (blob, bytes) = (Digest::of(&theirs), theirs.len() as u64);
        let put = |file: &[u8]| {
            for (number, piece) in file.chunks(CHUNK_BYTES).enumerate() {
                folders.write(blob, bytes, (number * CHUNK_BYTES) as u64, piece).expect("writes");
            }
            folders.finish(blob)
        };
        assert!(put(&ours).is_err(), "it took another's name");
        put(&theirs).expect("is what it is named");
        let looked = folders.look(blob, bytes, Some(&ChunkIndex::of(&ours))).expect("looks");
        assert!(matches!(looked, Looked::Failed(_)), "{looked:?}");
        assert_eq!(fs::read(folders.blob(blob)).expect("still there"), theirs);
    }

    #[test]
    fn a_small_blob_comes_back_with_its_content_or_not_at_all() {
        let (_data, folders) = folders();
        let blob = Digest::of("manifest");
        folders.write(blob, 8, 0, b"manifest").expect("writes");
        assert_eq!(folders.look(blob, 8, None).expect("looks"), Looked::Pieces(vec![]));
        folders.finish(blob).expect("finishes");
        assert_eq!(folders.look(blob, 8, None).expect("looks"), Looked::Whole(Some(b"manifest".to_vec())));
        fs::write(folders.blob(blob), b"manifesT").expect("writes");
        assert_eq!(folders.look(blob, 8, None).expect("looks"), Looked::Pieces(vec![]));
    }

    #[test]
    fn what_nobody_needs_is_removed() {
        let (_data, folders) = folders();
        for name in ["a", "b"] {
            folders.write(Digest::of(name), 1, 0, name.as_bytes()).expect("writes");
            folders.finish(Digest::of(name)).expect("finishes");
        }
        folders.retain(&[]).expect("removes");
        assert_eq!(fs::read_dir(&folders.blobs).expect("lists").count(), 0);
    }

    #[test]
    fn no_more_chunks_are_taken_than_a_slow_disk_can_write() {
        let data = tempfile::tempdir().expect("a folder");
        let (go_on, held) = channel::<()>();
        // A disk that is slow: the thread stands where it tells of the first look.
        let tell = move |_| {
            let _ = held.recv();
        };
        let store = Store::open(data.path(), tell).expect("opens");
        let blob = Digest::of("blob");
        store.send(Command::Look(blob, 1, None));
        let pieces = UNWRITTEN_BYTES_MAX / CHUNK_BYTES + 1;
        for piece in 0..pieces as u64 {
            assert!(!store.is_behind());
            let (blob_bytes, offset) = ((pieces * CHUNK_BYTES) as u64, piece * CHUNK_BYTES as u64);
            store.send(Command::Write { blob, blob_bytes, offset, bytes: vec![7; CHUNK_BYTES] });
        }
        assert!(store.is_behind());
        drop(go_on);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while store.is_behind() {
            assert!(std::time::Instant::now() < deadline, "it never catches up");
            std::thread::yield_now();
        }
    }
}
