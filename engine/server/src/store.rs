//! What is durable: one SQLite file, one writer. The contract is by meaning: a batch is there whole
//! or not at all.

mod check;
mod copy;
mod faults;
mod open;
mod reader;
mod schema;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use placet_core::{Digest, Id, Witnesses};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::signer::CheckpointSigner;

pub use check::CheckError;
pub(crate) use check::is_of;
pub(crate) use copy::Copy;
pub use copy::CopyError;
pub use faults::{Fault, Faults};
pub use open::OpenError;
pub(crate) use open::{RESTORE, owner_only};
use reader::numbers;
pub use reader::{Evidence, MAX_LEAVES_READ, ReadError, Reader, StoredCheckpoint, StoredDecision};
use schema::{
    ERASE_PERSONAL, INSERT_CHECKPOINT, INSERT_DECISION, INSERT_EVIDENCE, INSERT_HASH, INSERT_LEAF,
    INSERT_PERSONAL, SELECT_NAME, UPDATE_CHECKPOINT, UPDATE_HIGH_WATER,
};

/// A personal value, kept apart from the log so that it can be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Personal {
    /// Path of the request's field, such as `principal.subject`.
    pub path: String,
    /// What the commitment in the log was salted with.
    pub salt: Vec<u8>,
    /// The value.
    pub value: String,
}

/// What is stored for a decided request beside its leaf.
#[derive(Debug)]
pub struct Record<'a> {
    /// Name of the decision.
    pub name: Id,
    /// Position of its leaf.
    pub position: u64,
    /// Who asked.
    pub caller: &'a Id,
    /// Which request.
    pub request_id: &'a Id,
    /// What it said.
    pub request_digest: Digest,
    /// Canonical input, if the request could be resolved to one.
    pub input: Option<&'a [u8]>,
    /// Canonical evaluation.
    pub evaluation: &'a [u8],
    /// Personal values, each path once, at most 16.
    pub personal: &'a [Personal],
}

/// What one commit makes durable.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Position of the first leaf: the size of the log before.
    pub first: u64,
    /// Leaves in order.
    pub leaves: Vec<Vec<u8>>,
    /// Number of the first hash in the tree's row.
    pub first_hash: u64,
    /// Hashes to append to the row.
    pub hashes: Vec<Digest>,
    /// Requests that were decided.
    pub records: Vec<Record<'a>>,
    /// Positions of earlier decisions whose personal values are to go.
    pub erased: Vec<u64>,
    /// The time up to which everything due has been done.
    pub high_water: u64,
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it is stored.
    #[error("the store did not take the batch")]
    Refused(#[source] rusqlite::Error),
    /// All of it is stored, or nothing: reopen the store and look.
    #[error("the store does not say whether it took the batch")]
    Unknown(#[source] rusqlite::Error),
}

/// Leaves behind a snapshot of the ledger when the next one is made, unless somebody says
/// otherwise: folding as many takes a start a second or two.
pub const SNAPSHOT_EVERY: u64 = 100_000;

/// Most threads that sign a batch: beyond it the commit is what takes time.
pub const SIGNING_THREADS: usize = 4;

/// Settings for special uses; the default is right for a server.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Most pages of 4,096 bytes that the file may have: a full disk, for tests. Absent means no
    /// bound.
    pub max_pages: Option<u32>,
    /// What goes wrong, for tests.
    pub faults: Faults,
    /// Leaves behind a snapshot of the ledger when the next one is made: 1 or more; 0 if none are
    /// made and none are used.
    pub snapshot_every: u64,
    /// How checkpoints of the log are made; absent if none are. Those that were made are held
    /// against the log all the same.
    pub checkpoints: Option<CheckpointOptions>,
    /// Most threads that sign a batch, the writer's included; with 1 it signs all itself, for
    /// benchmarks.
    pub signing_threads: usize,
    /// Seconds after which personal values are erased; absent if they are kept until somebody asks
    /// for it.
    pub personal_for_seconds: Option<u64>,
}

/// How checkpoints are made.
#[derive(Debug, Clone)]
pub struct CheckpointOptions {
    /// The key that signs them.
    pub signer: CheckpointSigner,
    /// Seconds between two of them: 1 or more. None is made while the log does not grow.
    pub every_seconds: u64,
    /// Whose cosignatures they are given.
    pub witnesses: Witnesses,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            max_pages: None,
            faults: Faults::default(),
            snapshot_every: SNAPSHOT_EVERY,
            checkpoints: None,
            signing_threads: SIGNING_THREADS,
            personal_for_seconds: None,
        }
    }
}

/// The one writer of a store, and the lock on it. Dropping it lets others open the file.
#[derive(Debug)]
pub struct Store {
    /// `None` only while it could not be reopened.
    connection: Option<Connection>,
    path: PathBuf,
    options: StoreOptions,
    reader: Reader,
    /// Of the schema.
    version: usize,
    /// Held until the connections are closed: fields are dropped in this order. `None` for a file
    /// that nobody else knows of, or beside which nothing can be written.
    _lock: Option<open::Lock>,
}

impl Store {
    /// Opens a store, or makes one with mode 0600 where there is no file.
    ///
    /// # Errors
    /// [`OpenError`] says what stands there instead, or who holds it, and what to do.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        if path.is_dir() {
            return Err(OpenError::Directory);
        }
        let lock = open::Lock::take(path)?;
        open::create(path)?;
        let connection = open::writer(path, options.max_pages)?;
        let reader = Reader::new(path.to_owned());
        let (path, version) = (path.to_owned(), schema::MIGRATIONS.len());
        let connection = Some(connection);
        Ok(Self { connection, path, options, reader, version, _lock: Some(lock) })
    }

    /// Opens a store to look at it: nothing in it can be changed. Nobody else may have it open
    /// meanwhile.
    ///
    /// # Errors
    /// [`OpenError`] says what stands there instead, or who holds it, and what to do.
    pub fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        if !path.is_dir() {
            std::fs::File::open(path).map(drop).map_err(OpenError::Missing)?;
        }
        let lock = match open::Lock::take(path) {
            Ok(lock) => Some(lock),
            // Where no lock can be made, no server can have one either.
            Err(OpenError::Access(error))
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                None
            }
            Err(error) => return Err(error),
        };
        Self::look_at(path, lock)
    }

    /// The same for a file that nobody else knows of.
    pub(crate) fn open_own_copy(path: &Path) -> Result<Self, OpenError> {
        Self::look_at(path, None)
    }

    fn look_at(path: &Path, lock: Option<open::Lock>) -> Result<Self, OpenError> {
        let (connection, version) = open::read_only(path)?;
        let (path, options) = (path.to_owned(), StoreOptions::default());
        let reader = Reader::new(path.clone());
        let connection = Some(connection);
        Ok(Self { connection, path, options, reader, version, _lock: lock })
    }

    /// Opens the file again after a commit of unknown outcome, and brings what it holds to the disk
    /// for certain.
    ///
    /// After a failed sync the system may take pages for written that are not. Copying the
    /// write-ahead log into the database writes and syncs all of them anew, so that what is read
    /// afterwards is durable.
    ///
    /// # Errors
    /// As [`Store::open`]; the store is unusable until this succeeds.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        self.connection = None;
        if self.options.faults.take(&[Fault::Reopen]).is_some() {
            let error = std::io::Error::other("a fault of the test");
            return Err(OpenError::Access(error));
        }
        let connection = open::writer(&self.path, self.options.max_pages)?;
        if !open::empty_write_ahead_log(&connection).map_err(OpenError::Sqlite)? {
            return Err(OpenError::InUse { holder: "a reader that does not end".to_owned() });
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Makes a batch durable, whole or not at all.
    ///
    /// # Errors
    /// [`CommitError`] tells whether it is certain that nothing is stored.
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), CommitError> {
        self.commit_what(|writing| write(writing, batch))
    }

    /// Makes a checkpoint durable, whole or not at all: before anybody is shown it.
    ///
    /// # Errors
    /// [`CommitError`] tells whether it is certain that nothing is stored.
    pub fn publish(&mut self, checkpoint: &StoredCheckpoint) -> Result<(), CommitError> {
        let StoredCheckpoint { number, size, note } = checkpoint;
        self.commit_what(|writing| {
            let mut insert = writing.prepare_cached(INSERT_CHECKPOINT)?;
            insert.execute(params![to_sql(*number), to_sql(*size), note]).map(drop)
        })
    }

    /// Erases the personal values of decisions, whole or not at all; nothing of it is in the log.
    ///
    /// # Errors
    /// [`CommitError`] tells whether it is certain that nothing is erased.
    pub fn erase(&mut self, positions: &[u64]) -> Result<(), CommitError> {
        self.commit_what(|writing| erase(writing, positions))
    }

    /// The same for all decisions of a range of positions.
    ///
    /// # Errors
    /// [`CommitError`] tells whether it is certain that nothing is erased.
    pub fn erase_range(&mut self, range: Range<u64>) -> Result<(), CommitError> {
        self.commit_what(|writing| erase_range(writing, &range))
    }

    /// Brings all of the write-ahead log into the database and empties it, so that no page of it
    /// has what was erased: false if somebody reads by it, so that it has to stay for now. Waits
    /// for nobody.
    ///
    /// # Errors
    /// If SQLite fails: then it may not be empty.
    pub fn purge(&self) -> Result<bool, ReadError> {
        let connection = self.connection()?;
        connection.busy_timeout(Duration::ZERO).map_err(ReadError::of)?;
        let emptied = open::empty_write_ahead_log(connection).map_err(ReadError::of);
        connection.busy_timeout(open::BUSY).map_err(ReadError::of)?;
        emptied
    }

    /// Position of the first decision in a range of which a personal value is kept.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn first_personal(&self, range: &Range<u64>) -> Result<Option<u64>, ReadError> {
        reader::first_personal(self.connection()?, range)
    }

    /// Makes durable what checkpoints were given since they were published, for all of them or for
    /// none.
    ///
    /// # Errors
    /// [`CommitError`] tells whether it is certain that nothing is stored.
    pub fn cosign(&mut self, grown: &[StoredCheckpoint]) -> Result<(), CommitError> {
        self.commit_what(|writing| {
            let mut update = writing.prepare_cached(UPDATE_CHECKPOINT)?;
            for StoredCheckpoint { number, note, .. } in grown {
                // INVARIANT: only what is there is given more.
                if update.execute(params![to_sql(*number), note])? != 1 {
                    return Err(rusqlite::Error::QueryReturnedNoRows);
                }
            }
            Ok(())
        })
    }

    fn commit_what(
        &mut self,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), CommitError> {
        let fault = self.options.faults.take(&[
            Fault::Commit,
            Fault::CommitUnknown,
            Fault::CommitPersisted,
        ]);
        let connection = self.connection.as_mut().ok_or_else(|| CommitError::Refused(full()))?;
        let writing = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(CommitError::Refused)?;
        // A crash up to here, or anywhere before the commit below, costs the batch: none of it was
        // answered.
        write(&writing).map_err(CommitError::Refused)?;
        match fault {
            Some(Fault::Commit) => return Err(CommitError::Refused(full())),
            Some(Fault::CommitUnknown) => return Err(CommitError::Unknown(full())),
            _ => {}
        }
        // A crash within leaves either all of it or nothing. What SQLite reports as failed here may
        // yet be found after reopening, so that every failure counts as unknown.
        writing.commit().map_err(CommitError::Unknown)?;
        match fault {
            Some(Fault::CommitPersisted) => Err(CommitError::Unknown(full())),
            _ => Ok(()),
        }
    }

    /// The decision on a request, if it was decided; `name` is that of the store.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn decision(
        &self,
        name: &str,
        caller: &Id,
        request_id: &Id,
    ) -> Result<Option<StoredDecision>, ReadError> {
        reader::decision_on(self.connection()?, self.version, name, caller, request_id)
    }

    /// Calls `each` for every leaf from position `start` on, in order.
    ///
    /// # Errors
    /// The first error of `each`, or one of reading; a missing leaf is one.
    pub fn for_each_leaf<E: From<ReadError>>(
        &self,
        start: u64,
        each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
        reader::for_each_leaf(self.connection()?, start, end, each)
    }

    /// Name of the log, as its first leaf has it; absent if there is none yet.
    ///
    /// # Errors
    /// If the store cannot be read, or its first leaf is no genesis.
    pub fn origin(&self) -> Result<Option<String>, ReadError> {
        Ok(reader::genesis(self.connection()?)?.map(|(origin, _store)| origin))
    }

    /// Random name of the store, as its first leaf has it; absent if there is none yet.
    ///
    /// # Errors
    /// If the store cannot be read, or its first leaf is no genesis.
    pub fn name(&self) -> Result<Option<String>, ReadError> {
        Ok(reader::genesis(self.connection()?)?.map(|(_origin, store)| store))
    }

    /// The newest checkpoint, if there is any.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        reader::last_checkpoint(self.connection()?)
    }

    /// The checkpoint of that number, from 0.
    ///
    /// # Errors
    /// If the store cannot be read, or has no such checkpoint.
    pub fn checkpoint_at(&self, number: u64) -> Result<StoredCheckpoint, ReadError> {
        reader::checkpoint(self.connection()?, number)
    }

    /// Leaves in the log.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn size(&self) -> Result<u64, ReadError> {
        reader::size(self.connection()?)
    }

    /// Stored hashes of the Merkle tree.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn hash_count(&self) -> Result<u64, ReadError> {
        reader::hash_count(self.connection()?)
    }

    /// The time up to which everything due has been done, as far as it is durable.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn high_water(&self) -> Result<u64, ReadError> {
        reader::high_water(self.connection()?)
    }

    /// Stored hashes of the Merkle tree, by their numbers in its row.
    ///
    /// # Errors
    /// If the store cannot be read or has no such hash.
    pub fn hashes(&self, numbers: &[u64]) -> Result<Vec<Digest>, ReadError> {
        reader::hashes(self.connection()?, numbers)
    }

    /// A random name for a new store: 32 hexadecimal digits.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn random_name(&self) -> Result<String, ReadError> {
        let connection = self.connection()?;
        connection.query_row(SELECT_NAME, [], |row| row.get(0)).map_err(ReadError::of)
    }

    /// For look-ups from other threads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The faults of the test, for the steps around the store.
    pub(crate) fn faults(&self) -> &Faults {
        &self.options.faults
    }

    fn connection(&self) -> Result<&Connection, ReadError> {
        self.connection.as_ref().ok_or(ReadError::Damaged("it could not be reopened"))
    }
}

/// The error that SQLite gives for a full disk, where a test asks for an error.
fn full() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
}

fn write(writing: &Transaction<'_>, batch: &Batch<'_>) -> rusqlite::Result<()> {
    let mut insert = writing.prepare_cached(INSERT_LEAF)?;
    for (position, leaf) in (batch.first..).zip(&batch.leaves) {
        insert.execute(params![to_sql(position), leaf])?;
    }
    let mut insert = writing.prepare_cached(INSERT_HASH)?;
    for (number, hash) in (batch.first_hash..).zip(&batch.hashes) {
        insert.execute(params![to_sql(number), hash.as_bytes()])?;
    }
    let mut decision = writing.prepare_cached(INSERT_DECISION)?;
    let mut evidence = writing.prepare_cached(INSERT_EVIDENCE)?;
    let mut personal = writing.prepare_cached(INSERT_PERSONAL)?;
    for record in &batch.records {
        let (position, digest) = (to_sql(record.position), record.request_digest);
        let (caller, id) = (record.caller.as_str(), record.request_id.as_str());
        let name = record.name.as_str();
        decision.execute(params![name, caller, id, digest.as_bytes(), position])?;
        evidence.execute(params![position, record.input, record.evaluation])?;
        let (start, end) = numbers(&(record.position..record.position.saturating_add(1)));
        for (number, value) in (start..end).zip(record.personal) {
            personal.execute(params![number, value.path, value.salt, value.value])?;
        }
    }
    erase(writing, &batch.erased)?;
    writing.prepare_cached(UPDATE_HIGH_WATER)?.execute([to_sql(batch.high_water)])?;
    Ok(())
}

fn erase(writing: &Transaction<'_>, positions: &[u64]) -> rusqlite::Result<()> {
    positions
        .iter()
        .try_for_each(|position| erase_range(writing, &(*position..position.saturating_add(1))))
}

fn erase_range(writing: &Transaction<'_>, range: &Range<u64>) -> rusqlite::Result<()> {
    let (start, end) = numbers(range);
    writing.prepare_cached(ERASE_PERSONAL)?.execute([start, end]).map(drop)
}

/// SQLite's integers end at 2^63 - 1; positions and times stay far below, and what is beyond finds
/// nothing.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_uses_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("s"), StoreOptions::default()).unwrap();
        let connection = store.connection.as_ref().unwrap();
        for query in schema::ALL {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
            let plan: Vec<String> = explain
                .query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))
                .and_then(Iterator::collect)
                .unwrap();
            // An insert has no plan; whatever has one must search, never scan or sort.
            assert_eq!(plan.is_empty(), query.starts_with("INSERT"), "{query}: {plan:?}");
            assert!(plan.iter().all(|step| step.starts_with("SEARCH ")), "{query}: {plan:?}");
        }
    }

    #[test]
    fn a_store_waits_for_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("s"), StoreOptions::default()).unwrap();
        let connection = store.connection.as_ref().unwrap();
        let pragma = |name: &str| -> String {
            connection
                .query_row(&format!("PRAGMA {name}"), [], |row| {
                    row.get_ref(0).map(|value| match value {
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        other => other.as_str().unwrap_or("").to_owned(),
                    })
                })
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal");
        assert_eq!(pragma("synchronous"), "2", "FULL");
        assert_eq!(pragma("application_id"), schema::APPLICATION_ID.to_string());
        assert_eq!(pragma("user_version"), schema::MIGRATIONS.len().to_string());
    }
}
