//! Looking things up while the one writer writes.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use placet_core::{Digest, Event, Id, Leaf, MAX_LEAF_BYTES};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::schema::{
    MIGRATIONS, SELECT_CHECKPOINT, SELECT_CHECKPOINT_SIZE, SELECT_DECISION, SELECT_EVIDENCE,
    SELECT_FIRST_PERSONAL, SELECT_HASH, SELECT_HIGH_WATER, SELECT_LAST, SELECT_LAST_CHECKPOINT,
    SELECT_LAST_HASH, SELECT_LEAF, SELECT_LEAVES, SELECT_PERSONAL, SELECT_PERSONAL_OF,
    SELECT_PERSONAL_UP_TO_2, SELECT_REQUEST, VALUES_A_DECISION,
};
use super::{Personal, open, to_sql};
use crate::name::decision_id;

/// Connections that are kept for the next look-up; more are opened when needed, and closed after.
const IDLE_READERS: usize = 8;
/// Most leaves of one look-up: 64 MiB, if each is as long as can be.
pub const MAX_LEAVES_READ: u64 = 1_024;

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store cannot be opened.
    #[error("the store cannot be opened for reading")]
    Open(#[source] open::OpenError),
    /// SQLite failed.
    #[error("SQLite failed to read")]
    Sqlite(#[source] rusqlite::Error),
    /// SQLite finds that what it reads is not what was written.
    #[error("the database file is damaged\n{}", open::RESTORE)]
    Corrupt(#[source] rusqlite::Error),
    /// What was read is not what was written.
    #[error("the store is damaged: {0}\n{restore}", restore = open::RESTORE)]
    Damaged(&'static str),
}

impl ReadError {
    pub(super) fn of(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(..) if !open::is_damage(&error) => Self::Sqlite(error),
            // The rest is about values: rows that must be there and are not, or hold other types.
            _ => Self::Corrupt(error),
        }
    }
}

/// A decision as it was first given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDecision {
    /// Who asked.
    pub caller: Id,
    /// Which request.
    pub request_id: Id,
    /// Of the request that it answers.
    pub request_digest: Digest,
    /// Its place in the log, from 0.
    pub position: u64,
    /// The signed decision.
    pub token: String,
    /// Personal values of the request, by path; erased ones are missing.
    pub personal: Vec<Personal>,
}

/// The evidence of a decision: its canonical input, if there was one, and its canonical evaluation.
pub type Evidence = (Option<Vec<u8>>, Vec<u8>);

/// A checkpoint as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// How many were made before it.
    pub number: u64,
    /// Leaves of the log: 1..=2^48.
    pub size: u64,
    /// The signed note, with the cosignatures that it has been given since.
    pub note: String,
}

/// Reads from any thread; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Reader {
    /// Of the file of a store that a server may be writing to.
    ///
    /// # Errors
    /// [`open::OpenError`]: there is none, or it is one that this version does not read.
    pub fn open(path: &Path) -> Result<Self, open::OpenError> {
        let (_connection, version) = open::read_only(path)?;
        open::check_current(version)?;
        Ok(Self::new(path.to_owned()))
    }

    pub(super) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Pool { path, idle: Mutex::new(Vec::new()) }))
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let idle = || self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let connection = match kept {
            Some(connection) => connection,
            None => open::reader(&self.0.path).map_err(ReadError::Open)?,
        };
        let result = read(&connection);
        let mut idle = idle();
        // A connection that has failed is not trusted again.
        if result.is_ok() && idle.len() < IDLE_READERS {
            idle.push(connection);
        }
        result
    }

    /// The decision of a name, if there is one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn decision(&self, name: &Id) -> Result<Option<StoredDecision>, ReadError> {
        self.with(|connection| decision(connection, name))
    }

    /// The decision on a request, if it was decided.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn decision_on(
        &self,
        caller: &Id,
        request_id: &Id,
    ) -> Result<Option<StoredDecision>, ReadError> {
        self.with(|connection| {
            let Some((_origin, store)) = genesis(connection)? else { return Ok(None) };
            decision_on(connection, MIGRATIONS.len(), &store, caller, request_id)
        })
    }

    /// Leaves from position `start` up to, not including, `end`; fewer if the log or
    /// [`MAX_LEAVES_READ`] ends before.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn leaves(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, ReadError> {
        let end = end.min(start.saturating_add(MAX_LEAVES_READ));
        let mut leaves = Vec::new();
        self.with(|connection| {
            for_each_leaf(connection, start, end, |leaf| {
                leaves.push(leaf.to_vec());
                Ok(())
            })
        })?;
        Ok(leaves)
    }

    /// The first position, of a log of `size` leaves, whose time is no earlier than `time`, in
    /// seconds since 1970-01-01 UTC; `size` if there is none. Times never go back.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn first_since(&self, time: u64, size: u64) -> Result<u64, ReadError> {
        let (mut low, mut high) = (0, size);
        while low < high {
            let middle = low.midpoint(high);
            if self.leaf(middle)?.time < time {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The leaf of a position that the log has.
    ///
    /// # Errors
    /// If the store cannot be read, or has no such leaf.
    pub(crate) fn leaf(&self, position: u64) -> Result<Leaf, ReadError> {
        let leaf = self.leaves(position, position.saturating_add(1))?.pop();
        let leaf = leaf.ok_or(ReadError::Damaged("a leaf is missing"))?;
        serde_json::from_slice(&leaf).map_err(|_malformed| ReadError::Damaged("a leaf is no leaf"))
    }

    /// Positions of the decisions in a range of the log of whose requests a field has this value,
    /// in their order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn personal_of(
        &self,
        (path, value): (&str, &str),
        range: Range<u64>,
    ) -> Result<Vec<u64>, ReadError> {
        self.with(|connection| {
            let mut select = prepare(connection, SELECT_PERSONAL_OF)?;
            let (start, end) = numbers(&range);
            let found = select
                .query_map(params![start, end, path, value], |row| row.get(0))
                .and_then(Iterator::collect::<rusqlite::Result<Vec<i64>>>)
                .map_err(ReadError::of)?;
            found.into_iter().map(position_of).collect()
        })
    }

    /// Leaves in the log.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn size(&self) -> Result<u64, ReadError> {
        self.with(size)
    }

    /// What a decision was made from, by its position.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn evidence(&self, position: u64) -> Result<Option<Evidence>, ReadError> {
        self.with(|connection| evidence(connection, position))
    }

    /// The newest checkpoint, if there is any.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.with(last_checkpoint)
    }

    /// The newest checkpoint of that many leaves, if there is any.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn checkpoint_of(&self, size: u64) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.with(|connection| checkpoint_of(connection, size))
    }

    /// Stored hashes of the Merkle tree, by their numbers in its row.
    ///
    /// # Errors
    /// If the store cannot be read or has no such hash.
    pub fn hashes(&self, numbers: &[u64]) -> Result<Vec<Digest>, ReadError> {
        self.with(|connection| hashes(connection, numbers))
    }
}

fn prepare<'a>(
    connection: &'a Connection,
    query: &str,
) -> Result<rusqlite::CachedStatement<'a>, ReadError> {
    connection.prepare_cached(query).map_err(ReadError::of)
}

/// The name of the log and that of the store, as the first leaf has them.
pub(super) fn genesis(connection: &Connection) -> Result<Option<(String, String)>, ReadError> {
    let leaf: Option<Vec<u8>> = prepare(connection, SELECT_LEAF)?
        .query_row([0], |row| row.get(0))
        .optional()
        .map_err(ReadError::of)?;
    let Some(leaf) = leaf else { return Ok(None) };
    match serde_json::from_slice(&leaf) {
        Ok(Leaf { event: Event::Genesis { origin, store }, .. }) => Ok(Some((origin, store))),
        Ok(_) | Err(_) => Err(ReadError::Damaged("its first leaf is no genesis")),
    }
}

/// The first version of the schema in which decisions are found by their names.
const NAMED_SINCE: usize = 2;
/// The first one in which personal values are only appended and overwritten.
const APPENDED_SINCE: usize = 3;

/// The decision on a request, in a store of that name and that version of the schema.
pub(super) fn decision_on(
    connection: &Connection,
    version: usize,
    store: &str,
    caller: &Id,
    request_id: &Id,
) -> Result<Option<StoredDecision>, ReadError> {
    let found = if version < NAMED_SINCE {
        find(connection, version, SELECT_REQUEST, params![caller.as_str(), request_id.as_str()])?
    } else {
        let name = decision_id(store, caller, request_id);
        find(connection, version, SELECT_DECISION, params![name.as_str()])?
    };
    match found {
        // INVARIANT: a name is that of one request.
        Some(found) if found.caller != *caller || found.request_id != *request_id => {
            Err(ReadError::Damaged("what is stored of a request is of another one"))
        }
        found => Ok(found),
    }
}

/// The decision of a name.
pub(super) fn decision(
    connection: &Connection,
    name: &Id,
) -> Result<Option<StoredDecision>, ReadError> {
    find(connection, MIGRATIONS.len(), SELECT_DECISION, params![name.as_str()])
}

/// What a row of stored decisions holds: caller, request id and digest, position, leaf.
type Row = (String, String, [u8; 32], i64, Vec<u8>);

fn find(
    connection: &Connection,
    version: usize,
    select: &str,
    by: impl rusqlite::Params,
) -> Result<Option<StoredDecision>, ReadError> {
    let found: Option<Row> = prepare(connection, select)?
        .query_row(by, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()
        .map_err(ReadError::of)?;
    let Some((caller, request_id, digest, at, leaf)) = found else { return Ok(None) };
    let id = |text: String| {
        Id::new(text).map_err(|_no_id| ReadError::Damaged("a name in it is no name"))
    };
    let (caller, request_id) = (id(caller)?, id(request_id)?);
    let position = from_sql(at)?;
    let leaf: Leaf = serde_json::from_slice(&leaf)
        .map_err(|_malformed| ReadError::Damaged("a leaf is no leaf"))?;
    let Event::Decision { token, caller: of } = leaf.event else {
        return Err(ReadError::Damaged("the leaf of a request is no decision"));
    };
    if of != caller {
        return Err(ReadError::Damaged("the leaf of a request answers another caller"));
    }
    let personal = personal(connection, version, position)?;
    let request_digest = Digest::from_bytes(digest);
    Ok(Some(StoredDecision { caller, request_id, request_digest, position, token, personal }))
}

/// The personal values that are kept of a decision, in a store of that version of the schema.
fn personal(
    connection: &Connection,
    version: usize,
    position: u64,
) -> Result<Vec<Personal>, ReadError> {
    let query = if version < APPENDED_SINCE { SELECT_PERSONAL_UP_TO_2 } else { SELECT_PERSONAL };
    let mut select = prepare(connection, query)?;
    let (start, end) = numbers(&(position..position.saturating_add(1)));
    select
        .query_map([start, end], |row| {
            Ok(Personal { path: row.get(0)?, salt: row.get(1)?, value: row.get(2)? })
        })
        .and_then(Iterator::collect)
        .map_err(ReadError::of)
}

/// Position of the first decision in a range of which a personal value is kept.
pub(super) fn first_personal(
    connection: &Connection,
    range: &Range<u64>,
) -> Result<Option<u64>, ReadError> {
    let (start, end) = numbers(range);
    let first: Option<i64> = prepare(connection, SELECT_FIRST_PERSONAL)?
        .query_row([start, end], |row| row.get(0))
        .optional()
        .map_err(ReadError::of)?;
    first.map(position_of).transpose()
}

/// The numbers that the personal values of a range of positions have.
pub(super) fn numbers(range: &Range<u64>) -> (i64, i64) {
    let number = |position: u64| to_sql(position.saturating_mul(VALUES_A_DECISION));
    (number(range.start), number(range.end))
}

fn position_of(number: i64) -> Result<u64, ReadError> {
    let position = from_sql(number)?.checked_div(VALUES_A_DECISION);
    Ok(position.expect("a decision has more than no values"))
}

pub(super) fn evidence(
    connection: &Connection,
    position: u64,
) -> Result<Option<Evidence>, ReadError> {
    let mut select = prepare(connection, SELECT_EVIDENCE)?;
    select
        .query_row([to_sql(position)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(ReadError::of)
}

/// Calls `each` for every leaf of a range in order, and fails if one is missing.
pub(super) fn for_each_leaf<E: From<ReadError>>(
    connection: &Connection,
    start: u64,
    end: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut select = prepare(connection, SELECT_LEAVES)?;
    let mut rows =
        select.query([to_sql(start), to_sql(end)]).map_err(ReadError::of).map_err(E::from)?;
    let mut expected = start;
    while let Some(row) = rows.next().map_err(ReadError::of).map_err(E::from)? {
        let position = row.get(0).map_err(ReadError::of).and_then(from_sql)?;
        if position != expected {
            return Err(ReadError::Damaged("a leaf is missing").into());
        }
        expected = expected.saturating_add(1);
        let leaf = row.get_ref(1).map_err(ReadError::of)?;
        let leaf = leaf.as_blob().map_err(|_other| ReadError::Damaged("a leaf is no blob"))?;
        // A file that others wrote need not keep the bounds of its tables.
        if leaf.len() > MAX_LEAF_BYTES {
            return Err(ReadError::Damaged("a leaf is longer than any").into());
        }
        each(leaf)?;
    }
    Ok(())
}

pub(super) fn size(connection: &Connection) -> Result<u64, ReadError> {
    count(connection, SELECT_LAST)
}

/// Checkpoints that were made.
pub(super) fn checkpoint_count(connection: &Connection) -> Result<u64, ReadError> {
    count(connection, SELECT_LAST_CHECKPOINT)
}

pub(super) fn last_checkpoint(
    connection: &Connection,
) -> Result<Option<StoredCheckpoint>, ReadError> {
    let Some(number) = checkpoint_count(connection)?.checked_sub(1) else { return Ok(None) };
    checkpoint(connection, number).map(Some)
}

pub(super) fn checkpoint(
    connection: &Connection,
    number: u64,
) -> Result<StoredCheckpoint, ReadError> {
    let (size, note) = prepare(connection, SELECT_CHECKPOINT)?
        .query_row([to_sql(number)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(ReadError::of)?
        .ok_or(ReadError::Damaged("a checkpoint is missing"))?;
    Ok(StoredCheckpoint { number, size: from_sql(size)?, note })
}

/// The newest checkpoint of that many leaves, found by halving: none has fewer than one before it.
fn checkpoint_of(
    connection: &Connection,
    size: u64,
) -> Result<Option<StoredCheckpoint>, ReadError> {
    // All before `first` have as many leaves or fewer, all from `end` on have more.
    let (mut first, mut end) = (0, checkpoint_count(connection)?);
    let mut select = prepare(connection, SELECT_CHECKPOINT_SIZE)?;
    while first < end {
        let middle = first.midpoint(end);
        let found = select
            .query_row([to_sql(middle)], |row| row.get(0))
            .optional()
            .map_err(ReadError::of)?
            .ok_or(ReadError::Damaged("a checkpoint is missing"))?;
        if from_sql(found)? <= size {
            first = middle.saturating_add(1);
        } else {
            end = middle;
        }
    }
    let Some(number) = first.checked_sub(1) else { return Ok(None) };
    Ok(Some(checkpoint(connection, number)?).filter(|found| found.size == size))
}

pub(super) fn hash_count(connection: &Connection) -> Result<u64, ReadError> {
    count(connection, SELECT_LAST_HASH)
}

fn count(connection: &Connection, last: &str) -> Result<u64, ReadError> {
    let last: Option<i64> =
        prepare(connection, last)?.query_row([], |row| row.get(0)).map_err(ReadError::of)?;
    last.map_or(Ok(0), |last| Ok(from_sql(last)?.saturating_add(1)))
}

pub(super) fn high_water(connection: &Connection) -> Result<u64, ReadError> {
    let value = prepare(connection, SELECT_HIGH_WATER)?
        .query_row([], |row| row.get(0))
        .map_err(ReadError::of)?;
    from_sql(value)
}

pub(super) fn hashes(connection: &Connection, numbers: &[u64]) -> Result<Vec<Digest>, ReadError> {
    let mut select = prepare(connection, SELECT_HASH)?;
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let hash = select
            .query_row([to_sql(*number)], |row| row.get::<_, [u8; 32]>(0))
            .optional()
            .map_err(ReadError::of)?
            .ok_or(ReadError::Damaged("a hash of the tree is missing"))?;
        found.push(Digest::from_bytes(hash));
    }
    Ok(found)
}

pub(super) fn from_sql(value: i64) -> Result<u64, ReadError> {
    u64::try_from(value).map_err(|_negative| ReadError::Damaged("a number is negative"))
}
