//! What must survive a power cut: roots, the desired state, proven versions, refusals, telemetry
//! that is not acknowledged. One redb file; each commit is durable when it returns.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use muster_agent_core::verify::bundle::Proven;
use muster_shared::desired::{SignedDesired, SlotSpec};
use muster_shared::id::BootId;
use muster_shared::limits::{DESIRED_BYTES_MAX, REPORTED_BYTES_MAX, SLOTS_MAX};
use muster_shared::reported::Refusal;
use muster_shared::signing::Envelope;
use muster_shared::telemetry::{Ack, SignedBatch};
use muster_shared::wire::{self, Message, WireError, decode_as};
use muster_shared::{DeploymentName, v1, v2};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};

/// The journal's file, below the data.
pub const FILE: &str = "journal.redb";
/// Batches that wait for an acknowledgement; the oldest give way.
pub const TELEMETRY_BATCHES_MAX: u64 = 2_000;

const ROOTS: TableDefinition<u64, &str> = TableDefinition::new("roots");
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
const PROVEN: TableDefinition<&str, &[u8]> = TableDefinition::new("proven");
const TELEMETRY: TableDefinition<u64, &[u8]> = TableDefinition::new("telemetry");

const DESIRED_KEY: &str = "desired";
const REFUSALS_KEY: &str = "refusals";

/// Why the journal failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened.
    #[error("cannot open the journal {path}")]
    Open {
        /// Where it lies.
        path: PathBuf,
        /// Why.
        #[source]
        source: redb::DatabaseError,
    },
    /// Its pages are damaged.
    #[error("the journal {path} is damaged; move it away, and the agent learns again what it has to hold")]
    Damaged {
        /// Where it lies.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot use the journal")]
    Database(#[from] redb::Error),
    /// A record cannot be encoded or decoded.
    #[error("a record of the journal cannot be read")]
    Record(#[from] WireError),
    /// A root cannot be read.
    #[error("a root of the journal cannot be read")]
    Root(#[from] serde_json::Error),
}

macro_rules! database_errors {
    ($($error:ty),*) => { $(impl From<$error> for JournalError {
        fn from(error: $error) -> Self { Self::Database(error.into()) }
    })* };
}
database_errors!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// There until the journal is dropped.
    database: Option<Database>,
    /// The library panicked over what is in the file: it is not asked again.
    damaged: AtomicBool,
    /// The key of the next telemetry batch: it grows also while the table is empty, so that a key names
    /// one batch for as long as the agent runs.
    next_batch: AtomicU64,
}

/// A slot's proven version, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct ProvenRecord(pub Proven);

impl Message for ProvenRecord {
    const NAME: &'static str = "proven version";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = DESIRED_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        match version {
            1 => Some(decode_as::<ProvenRecordV1, _>(body)),
            2 => Some(decode_as::<ProvenRecordV2, _>(body)),
            _ => None,
        }
    }
}

/// What an older agent kept does not say who signed it: that is found out anew.
fn unsigned(spec: SlotSpec) -> ProvenRecord {
    ProvenRecord(Proven { spec, signers: vec![], files: BTreeMap::new() })
}

#[derive(Deserialize)]
struct ProvenRecordV1(v1::SlotSpec);

impl From<ProvenRecordV1> for ProvenRecord {
    fn from(old: ProvenRecordV1) -> Self {
        unsigned(old.0.into())
    }
}

#[derive(Deserialize)]
struct ProvenRecordV2(v2::SlotSpec);

impl From<ProvenRecordV2> for ProvenRecord {
    fn from(old: ProvenRecordV2) -> Self {
        unsigned(old.0.into())
    }
}

/// Bundles not to be tried again, as they are kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefusalsRecord(pub Vec<Refusal>);

impl Message for RefusalsRecord {
    const NAME: &'static str = "refusals";
    const VERSION: u8 = 2;
    const BYTES_MAX: usize = REPORTED_BYTES_MAX;

    fn decode_older(version: u8, body: &[u8]) -> Option<Result<Self, WireError>> {
        (version == 1).then(|| decode_as::<RefusalsRecordV1, _>(body))
    }
}

#[derive(Deserialize)]
struct RefusalsRecordV1(Vec<v1::Refusal>);

impl From<RefusalsRecordV1> for RefusalsRecord {
    fn from(old: RefusalsRecordV1) -> Self {
        Self(old.0.into_iter().map(Into::into).collect())
    }
}

/// A batch that waits for an acknowledgement, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct BatchRecord {
    /// Which run of the agent.
    pub boot: BootId,
    /// Its number within the run.
    pub sequence: u64,
    /// The batch as it travels.
    pub batch: SignedBatch,
}

impl Message for BatchRecord {
    const NAME: &'static str = "kept telemetry batch";
    const BYTES_MAX: usize = SignedBatch::BYTES_MAX + 64;
}

impl Journal {
    /// Opens or makes the journal below `data`. All of it is read once: where pages are damaged, that should
    /// show at once.
    pub fn open(data: &Path) -> Result<Self, JournalError> {
        let path = data.join(FILE);
        let open_and_read = || {
            let journal = Self::open_file(path.clone())?;
            // Errors come again, and are told, when what they are about is needed.
            let _ = (journal.roots(), journal.desired(), journal.refusals(), journal.proven());
            let mut after = 0;
            while let Some((key, _)) = journal.batches(after, 1).ok().and_then(|mut batches| batches.pop()) {
                after = key;
            }
            Ok(journal)
        };
        catch_unwind(open_and_read).unwrap_or(Err(JournalError::Damaged { path }))
    }

    /// Uses the database. Where pages are damaged the library may panic, also when it writes: that becomes an
    /// error that says what to do, then and from then on.
    fn with<T>(&self, using: impl FnOnce(&Database) -> Result<T, JournalError>) -> Result<T, JournalError> {
        let damaged = || JournalError::Damaged { path: self.path.clone() };
        let whole = self.database.as_ref().filter(|_| !self.damaged.load(Ordering::Acquire));
        let database = whole.ok_or_else(damaged)?;
        catch_unwind(AssertUnwindSafe(|| using(database))).unwrap_or_else(|_| {
            self.damaged.store(true, Ordering::Release);
            Err(damaged())
        })
    }

    fn open_file(path: PathBuf) -> Result<Self, JournalError> {
        let database = Database::create(&path).map_err(|source| JournalError::Open { path: path.clone(), source })?;
        // From here on a panic while it is closed is caught, too.
        let mut journal =
            Self { path, database: Some(database), damaged: AtomicBool::new(false), next_batch: AtomicU64::new(0) };
        let next_batch = journal.with(|database| {
            let write = database.begin_write()?;
            write.open_table(ROOTS)?;
            write.open_table(STATE)?;
            write.open_table(PROVEN)?;
            let last = write.open_table(TELEMETRY)?.last()?.map_or(0, |(key, _)| key.value());
            write.commit()?;
            Ok(last.saturating_add(1))
        })?;
        journal.next_batch = AtomicU64::new(next_batch);
        Ok(journal)
    }

    /// Every root, by version.
    pub fn roots(&self) -> Result<Vec<Envelope>, JournalError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(ROOTS)?;
            table.iter()?.map(|entry| Ok(Envelope::from_json(entry?.1.value())?)).collect()
        })
    }

    /// Keeps a root.
    pub fn save_root(&self, version: u64, root: &Envelope) -> Result<(), JournalError> {
        self.with(|database| {
            let write = database.begin_write()?;
            write.open_table(ROOTS)?.insert(version, root.to_json().as_str())?;
            Ok(write.commit()?)
        })
    }

    /// The newest desired state.
    pub fn desired(&self) -> Result<Option<Envelope>, JournalError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(STATE)?;
            let bytes = table.get(DESIRED_KEY)?;
            bytes.map(|bytes| Ok(wire::decode::<SignedDesired>(bytes.value())?.0)).transpose()
        })
    }

    /// Keeps the newest desired state.
    pub fn save_desired(&self, desired: &Envelope) -> Result<(), JournalError> {
        self.save_state(DESIRED_KEY, &SignedDesired(desired.clone()))
    }

    /// Bundles not to be tried again.
    pub fn refusals(&self) -> Result<Vec<Refusal>, JournalError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(STATE)?;
            let bytes = table.get(REFUSALS_KEY)?;
            let record = bytes.map(|bytes| wire::decode::<RefusalsRecord>(bytes.value())).transpose()?;
            Ok(record.map_or_else(Vec::new, |record| record.0))
        })
    }

    /// Keeps the bundles not to be tried again.
    pub fn save_refusals(&self, refusals: &[Refusal]) -> Result<(), JournalError> {
        self.save_state(REFUSALS_KEY, &RefusalsRecord(refusals.to_vec()))
    }

    fn save_state(&self, key: &str, record: &impl Message) -> Result<(), JournalError> {
        self.with(|database| {
            let bytes = wire::encode(record)?;
            let write = database.begin_write()?;
            write.open_table(STATE)?.insert(key, bytes.as_slice())?;
            Ok(write.commit()?)
        })
    }

    /// The proven version of each slot.
    pub fn proven(&self) -> Result<Vec<Proven>, JournalError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(PROVEN)?;
            let read = |entry: Result<(redb::AccessGuard<'_, &str>, redb::AccessGuard<'_, &[u8]>), _>| {
                let (_, bytes) = entry?;
                Ok(wire::decode::<ProvenRecord>(bytes.value())?.0)
            };
            table.iter()?.take(SLOTS_MAX).map(read).collect()
        })
    }

    /// Keeps the proven version of a slot; none: forgets it.
    pub fn save_proven(&self, deployment: &DeploymentName, proven: Option<&Proven>) -> Result<(), JournalError> {
        self.with(|database| {
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(PROVEN)?;
                match proven {
                    Some(proven) => {
                        table.insert(deployment.as_str(), wire::encode(&ProvenRecord(proven.clone()))?.as_slice())?;
                    }
                    None => {
                        table.remove(deployment.as_str())?;
                    }
                }
            }
            Ok(write.commit()?)
        })
    }

    /// Keeps a telemetry batch until it is acknowledged. Returns how many old ones gave way.
    pub fn keep_batch(&self, boot: BootId, sequence: u64, batch: &SignedBatch) -> Result<u64, JournalError> {
        self.with(|database| {
            let bytes = wire::encode(&BatchRecord { boot, sequence, batch: batch.clone() })?;
            let write = database.begin_write()?;
            let mut dropped = 0;
            {
                let mut table = write.open_table(TELEMETRY)?;
                let next = self.next_batch.fetch_add(1, Ordering::Relaxed);
                table.insert(next, bytes.as_slice())?;
                let oldest = table.first()?.map_or(next, |(key, _)| key.value());
                for key in oldest..=next.saturating_sub(TELEMETRY_BATCHES_MAX) {
                    table.remove(key)?;
                    dropped += 1;
                }
            }
            write.commit()?;
            Ok(dropped)
        })
    }

    /// The oldest batches after the one under `after`, each with the key it is kept under.
    pub fn batches(&self, after: u64, most: usize) -> Result<Vec<(u64, SignedBatch)>, JournalError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(TELEMETRY)?;
            let entries = table.range(after.saturating_add(1)..)?.take(most);
            let batch =
                |entry: Result<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>), redb::StorageError>| {
                    let (key, bytes) = entry?;
                    Ok((key.value(), wire::decode::<BatchRecord>(bytes.value())?.batch))
                };
            entries.map(batch).collect()
        })
    }

    /// Forgets batches that the plane has. Returns how many.
    pub fn acknowledge(&self, ack: Ack) -> Result<usize, JournalError> {
        self.with(|database| {
            let keys: Vec<u64> = {
                let table = database.begin_read()?.open_table(TELEMETRY)?;
                let mut keys = vec![];
                for entry in table.iter()? {
                    let (key, bytes) = entry?;
                    match wire::decode::<BatchRecord>(bytes.value()) {
                        Ok(record) if record.boot != ack.boot => {}
                        Ok(record) if record.sequence <= ack.sequence => keys.push(key.value()),
                        // Batches of one boot stand in their order: what follows is later.
                        Ok(_) => break,
                        Err(error) => tracing::warn!(%error, "a kept telemetry batch cannot be read"),
                    }
                }
                keys
            };
            if keys.is_empty() {
                return Ok(0);
            }
            let write = database.begin_write()?;
            {
                let mut table = write.open_table(TELEMETRY)?;
                for key in &keys {
                    table.remove(key)?;
                }
            }
            write.commit()?;
            Ok(keys.len())
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let database = self.database.take();
        // To close it is to write once more.
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!(path = %self.path.display(), "the journal is damaged and could not be closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_shared::desired::{BlobRef, Resources};
    use muster_shared::reported::{BundleRef, RefusalKind};
    use muster_shared::signing::key::SecretKey;
    use muster_shared::{Digest, Version};

    use super::*;

    fn envelope(text: &str) -> Envelope {
        Envelope::sign("t", text.as_bytes().to_vec(), &[&SecretKey::from_seed([1; 32])])
    }

    #[test]
    fn a_journal_whose_free_pages_are_damaged_refuses_writes_and_is_closed_without_a_panic() {
        let good = tempfile::tempdir().expect("a folder");
        Journal::open(good.path()).expect("opens").save_root(1, &envelope("root")).expect("saves");
        let file = std::fs::read(good.path().join("journal.redb")).expect("reads");
        let bad = tempfile::tempdir().expect("a folder");
        // What is not zero is what is read; where the library keeps its free pages is its own matter.
        let mut places = (0..file.len()).filter(|at| file[*at] != 0).step_by(16);
        let found = places.find(|at| {
            let mut bytes = file.clone();
            bytes[*at] = 9;
            std::fs::write(bad.path().join("journal.redb"), bytes).expect("writes");
            let Ok(journal) = Journal::open(bad.path()) else { return false };
            let refused = journal.save_desired(&envelope("desired"));
            matches!(refused, Err(JournalError::Damaged { .. })) && {
                assert!(matches!(journal.roots(), Err(JournalError::Damaged { .. })), "it is asked again");
                true
            }
        });
        assert!(found.is_some(), "no damage was found that shows only when the journal is written");
    }

    #[test]
    fn what_was_saved_is_there_after_a_restart() {
        let data = tempfile::tempdir().expect("a folder");
        {
            let journal = Journal::open(data.path()).expect("opens");
            assert_eq!(journal.desired().expect("reads"), None);
            journal.save_root(1, &envelope("root 1")).expect("saves");
            journal.save_root(2, &envelope("root 2")).expect("saves");
            journal.save_desired(&envelope("desired")).expect("saves");
        }
        let journal = Journal::open(data.path()).expect("opens");
        assert_eq!(journal.roots().expect("reads"), [envelope("root 1"), envelope("root 2")]);
        assert_eq!(journal.desired().expect("reads"), Some(envelope("desired")));
    }

    #[test]
    fn what_an_agent_of_version_1_kept_is_not_lost_by_its_update() {
        let data = tempfile::tempdir().expect("a folder");
        let digits: DeploymentName = "digits".parse().expect("a name");
        let proven = SlotSpec {
            deployment: digits.clone(),
            served_as: Some("numbers".parse().expect("a name")),
            model: "digits".parse().expect("a name"),
            version: Version::new(2).expect("a version"),
            manifest: Digest::of("manifest"),
            envelope: BlobRef { sha256: Digest::of("envelope"), bytes: 1234 },
            variant: "fp32".parse().expect("a name"),
            resources: Resources { cpu_milli: 250, memory_bytes: 64 << 20 },
            probation_ms: 60_000,
            attempt: 0,
            swap_in_place: false,
            floor: None,
        };
        let refusal = Refusal {
            bundle: BundleRef { model: proven.model.clone(), version: proven.version, manifest: proven.manifest },
            agent: "0.1.0".into(),
            attempt: 0,
            memory_bytes: 0,
            kind: RefusalKind::CrashedInProbation,
            reason: "signal 11".into(),
            at_ms: 5,
        };
        // In postcard a struct is its fields in order, as a tuple is.
        let old_proven = (
            (&proven.deployment, &proven.served_as, &proven.model, proven.version, proven.manifest),
            (proven.envelope, &proven.variant, proven.resources, proven.probation_ms),
        );
        let old_refusals = [(&refusal.bundle, &refusal.agent, refusal.kind, &refusal.reason, refusal.at_ms)];
        let bytes = |body: Result<Vec<u8>, postcard::Error>| [vec![1], body.expect("encodes")].concat();
        {
            let journal = Journal::open(data.path()).expect("opens");
            let write = journal.database.as_ref().expect("open").begin_write().expect("begins");
            let proven = bytes(postcard::to_allocvec(&old_proven));
            write.open_table(PROVEN).expect("opens").insert("digits", proven.as_slice()).expect("inserts");
            let refusals = bytes(postcard::to_allocvec(&old_refusals[..]));
            write.open_table(STATE).expect("opens").insert(REFUSALS_KEY, refusals.as_slice()).expect("inserts");
            write.commit().expect("commits");
        }
        let journal = Journal::open(data.path()).expect("opens");
        let unsigned = Proven { spec: proven.clone(), signers: vec![], files: BTreeMap::new() };
        assert_eq!(journal.proven().expect("reads"), std::slice::from_ref(&unsigned));
        assert_eq!(journal.refusals().expect("reads"), std::slice::from_ref(&refusal));

        // Version 2 said how a version came, too.
        let old_proven = (old_proven, 3_u32, true);
        let bytes = [vec![2], postcard::to_allocvec(&old_proven).expect("encodes")].concat();
        {
            let write = journal.database.as_ref().expect("open").begin_write().expect("begins");
            write.open_table(PROVEN).expect("opens").insert("digits", bytes.as_slice()).expect("inserts");
            write.commit().expect("commits");
        }
        let spec = SlotSpec { attempt: 3, swap_in_place: true, ..proven.clone() };
        assert_eq!(journal.proven().expect("reads"), [Proven { spec, ..unsigned }]);

        // What is kept from now on says more.
        let spec = SlotSpec { attempt: 1, floor: Version::new(2), ..proven };
        let signers = vec![SecretKey::from_seed([9; 32]).public().id()];
        let (proven, refusal) = (
            Proven { spec, signers, files: BTreeMap::from([(Digest::of("model"), 77)]) },
            Refusal { attempt: 1, ..refusal },
        );
        journal.save_proven(&digits, Some(&proven)).expect("saves");
        journal.save_refusals(std::slice::from_ref(&refusal)).expect("saves");
        assert_eq!(journal.proven().expect("reads"), [proven]);
        assert_eq!(journal.refusals().expect("reads"), [refusal]);
    }

    #[test]
    fn batches_wait_until_acknowledged_and_the_oldest_give_way() {
        let data = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(data.path()).expect("opens");
        let (old, new) = (BootId([1; 16]), BootId([2; 16]));
        for (boot, sequence) in [(old, 1), (old, 2), (new, 1), (new, 2)] {
            journal.keep_batch(boot, sequence, &SignedBatch(envelope("batch"))).expect("keeps");
        }
        assert_eq!(journal.acknowledge(Ack { boot: new, sequence: 1 }).expect("forgets"), 1);
        assert_eq!(journal.batches(0, 10).expect("reads").len(), 3);
        assert_eq!(journal.acknowledge(Ack { boot: old, sequence: 2 }).expect("forgets"), 2);
        assert_eq!(journal.batches(0, 10).expect("reads").len(), 1);
    }

    #[test]
    fn a_key_names_one_batch_also_after_all_were_acknowledged() {
        let data = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(data.path()).expect("opens");
        let boot = BootId([1; 16]);
        let keep = |sequence| journal.keep_batch(boot, sequence, &SignedBatch(envelope("batch"))).expect("keeps");
        let keys =
            |after| journal.batches(after, 10).expect("reads").into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        keep(1);
        let sent = keys(0);
        journal.acknowledge(Ack { boot, sequence: 1 }).expect("forgets");
        keep(2);
        assert_eq!(keys(sent[0]).len(), 1, "what comes after what was sent is sent, too");
    }
}
