//! The tables, and every query as one text: a test holds each of them to an index.

use placet_core::{Event, Id, Leaf};
use rusqlite::types::Type;
use rusqlite::{Connection, params};

use crate::name::decision_id;

/// SQLite's `application_id` of our files: "PLCT" in ASCII. Tells a store from any other database.
pub(super) const APPLICATION_ID: i32 = 0x504c_4354;

/// `MIGRATIONS[v]` brings a store of version `v` to `v + 1`; `user_version` counts them. A new
/// store runs them all.
pub(super) const MIGRATIONS: [Migration; 3] = [
    Migration::of(
        "
CREATE TABLE leaves (
    position INTEGER PRIMARY KEY CHECK (position >= 0),
    leaf BLOB NOT NULL CHECK (length(leaf) BETWEEN 1 AND 65535)
) STRICT;
CREATE TABLE tree (
    number INTEGER PRIMARY KEY CHECK (number >= 0),
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TABLE requests (
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    request_digest BLOB NOT NULL CHECK (length(request_digest) = 32),
    position INTEGER NOT NULL,
    PRIMARY KEY (caller, request_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
    position INTEGER PRIMARY KEY,
    input BLOB,
    evaluation BLOB NOT NULL
) STRICT;
CREATE TABLE personal (
    position INTEGER NOT NULL,
    path TEXT NOT NULL,
    salt BLOB NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (position, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    high_water INTEGER NOT NULL
) STRICT;
INSERT INTO meta (one, high_water) VALUES (1, 0);
",
    ),
    Migration {
        sql: "
CREATE TABLE checkpoints (
    number INTEGER PRIMARY KEY CHECK (number >= 0),
    size INTEGER NOT NULL CHECK (size BETWEEN 1 AND 281474976710656),
    note TEXT NOT NULL CHECK (length(note) BETWEEN 1 AND 65536)
) STRICT;
CREATE TABLE decisions (
    name TEXT PRIMARY KEY,
    caller TEXT NOT NULL,
    request_id TEXT NOT NULL,
    request_digest BLOB NOT NULL CHECK (length(request_digest) = 32),
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
",
        then: Some(name_decisions),
    },
    // Personal values are only ever appended, and overwritten where they stand: a row that SQLite
    // moves to another place of a page, because a row beside it comes or goes, may leave a copy of
    // itself behind, which no deletion finds. Whoever changes this table must keep that so.
    Migration::of(
        "
CREATE TABLE personal_values (
    number INTEGER PRIMARY KEY CHECK (number >= 0),
    kept INTEGER NOT NULL CHECK (kept IN (0, 1)),
    path TEXT NOT NULL,
    salt BLOB NOT NULL,
    value TEXT NOT NULL
) STRICT;
INSERT INTO personal_values (number, kept, path, salt, value)
    SELECT position * 16, 1, path, salt, value FROM personal ORDER BY position;
DROP TABLE personal;
",
    ),
];

/// Most personal values of one decision: how many numbers of `personal_values` each position has.
pub(super) const VALUES_A_DECISION: u64 = 16;

/// One step from a version to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    /// Statements.
    pub(super) sql: &'static str,
    /// What SQL alone cannot do, after them.
    pub(super) then: Option<fn(&Connection) -> rusqlite::Result<()>>,
}

impl Migration {
    pub(super) const fn of(sql: &'static str) -> Self {
        Self { sql, then: None }
    }
}

/// Puts the rows of `requests` under the names of their decisions, by which they are found from
/// now on.
fn name_decisions(migrating: &Connection) -> rusqlite::Result<()> {
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Text, error)
    };
    let mut select = migrating.prepare(SELECT_REQUESTS)?;
    let mut insert = migrating.prepare(INSERT_DECISION)?;
    let mut rows = select.query([])?;
    let mut store = None;
    while let Some(row) = rows.next()? {
        let store = match &store {
            Some(store) => store,
            None => {
                let leaf: Vec<u8> = migrating.query_row(SELECT_LEAF, [0], |row| row.get(0))?;
                let leaf: Leaf =
                    serde_json::from_slice(&leaf).map_err(|error| wrong(error.into()))?;
                let Event::Genesis { store: name, .. } = leaf.event else {
                    return Err(wrong("the first leaf is no genesis".into()));
                };
                store.insert(name)
            }
        };
        let id = |at| {
            let text: String = row.get(at)?;
            Id::new(text).map_err(|error| wrong(error.into()))
        };
        let (caller, request_id) = (id(0)?, id(1)?);
        let (digest, position): (Vec<u8>, i64) = (row.get(2)?, row.get(3)?);
        let name = decision_id(store, &caller, &request_id);
        let (caller, request_id) = (caller.as_str(), request_id.as_str());
        insert.execute(params![name.as_str(), caller, request_id, digest, position])?;
    }
    migrating.execute_batch("DROP TABLE requests")
}

pub(super) const INSERT_LEAF: &str = "INSERT INTO leaves (position, leaf) VALUES (?1, ?2)";
pub(super) const INSERT_HASH: &str = "INSERT INTO tree (number, hash) VALUES (?1, ?2)";
pub(super) const INSERT_DECISION: &str = "INSERT INTO decisions \
    (name, caller, request_id, request_digest, position) VALUES (?1, ?2, ?3, ?4, ?5)";
pub(super) const INSERT_EVIDENCE: &str =
    "INSERT INTO evidence (position, input, evaluation) VALUES (?1, ?2, ?3)";
pub(super) const INSERT_PERSONAL: &str = "INSERT INTO personal_values \
    (number, kept, path, salt, value) VALUES (?1, 1, ?2, ?3, ?4)";
pub(super) const UPDATE_HIGH_WATER: &str = "UPDATE meta SET high_water = ?1 WHERE one = 1";

/// Of the same length byte by byte, so that the row is overwritten where it stands.
pub(super) const ERASE_PERSONAL: &str = "UPDATE personal_values SET kept = 0, \
    salt = zeroblob(length(salt)), value = CAST(zeroblob(octet_length(value)) AS TEXT) \
    WHERE number >= ?1 AND number < ?2 AND kept = 1";

pub(super) const SELECT_DECISION: &str = "SELECT \
    d.caller, d.request_id, d.request_digest, d.position, l.leaf \
    FROM decisions d JOIN leaves l ON l.position = d.position WHERE d.name = ?1";
/// The same in a store of version 1, which is read as it is.
pub(super) const SELECT_REQUEST: &str = "SELECT \
    r.caller, r.request_id, r.request_digest, r.position, l.leaf \
    FROM requests r JOIN leaves l ON l.position = r.position \
    WHERE r.caller = ?1 AND r.request_id = ?2";
/// The rows that a migration names.
pub(super) const SELECT_REQUESTS: &str =
    "SELECT caller, request_id, request_digest, position FROM requests";
pub(super) const SELECT_LEAF: &str = "SELECT leaf FROM leaves WHERE position = ?1";
pub(super) const SELECT_PERSONAL: &str = "SELECT path, salt, value FROM personal_values \
    WHERE number >= ?1 AND number < ?2 AND kept = 1 ORDER BY number";
/// The same in a store of an earlier version, which is read as it is.
pub(super) const SELECT_PERSONAL_UP_TO_2: &str = "SELECT path, salt, value FROM personal \
    WHERE position * 16 >= ?1 AND position * 16 < ?2 ORDER BY path";
/// Where a value is kept, in a range that bounds what is read.
pub(super) const SELECT_PERSONAL_OF: &str = "SELECT number FROM personal_values \
    WHERE number >= ?1 AND number < ?2 AND kept = 1 AND path = ?3 AND value = ?4 ORDER BY number";
pub(super) const SELECT_FIRST_PERSONAL: &str = "SELECT number FROM personal_values \
    WHERE number >= ?1 AND number < ?2 AND kept = 1 ORDER BY number LIMIT 1";
pub(super) const SELECT_EVIDENCE: &str =
    "SELECT input, evaluation FROM evidence WHERE position = ?1";
pub(super) const SELECT_LEAVES: &str =
    "SELECT position, leaf FROM leaves WHERE position >= ?1 AND position < ?2 ORDER BY position";
pub(super) const SELECT_HASH: &str = "SELECT hash FROM tree WHERE number = ?1";
pub(super) const SELECT_LAST: &str = "SELECT max(position) FROM leaves";
pub(super) const SELECT_LAST_HASH: &str = "SELECT max(number) FROM tree";
pub(super) const SELECT_HIGH_WATER: &str = "SELECT high_water FROM meta WHERE one = 1";
pub(super) const INSERT_CHECKPOINT: &str =
    "INSERT INTO checkpoints (number, size, note) VALUES (?1, ?2, ?3)";
pub(super) const UPDATE_CHECKPOINT: &str = "UPDATE checkpoints SET note = ?2 WHERE number = ?1";
pub(super) const SELECT_CHECKPOINT_SIZE: &str = "SELECT size FROM checkpoints WHERE number = ?1";
pub(super) const SELECT_CHECKPOINT: &str = "SELECT size, note FROM checkpoints WHERE number = ?1";
pub(super) const SELECT_LAST_CHECKPOINT: &str = "SELECT max(number) FROM checkpoints";
pub(super) const SELECT_NAME: &str = "SELECT lower(hex(randomblob(16)))";

#[cfg(test)]
pub(super) const ALL: [&str; 23] = [
    INSERT_LEAF,
    INSERT_HASH,
    INSERT_DECISION,
    INSERT_EVIDENCE,
    INSERT_PERSONAL,
    UPDATE_HIGH_WATER,
    ERASE_PERSONAL,
    SELECT_DECISION,
    SELECT_PERSONAL,
    SELECT_PERSONAL_OF,
    SELECT_FIRST_PERSONAL,
    SELECT_EVIDENCE,
    SELECT_LEAF,
    SELECT_LEAVES,
    SELECT_HASH,
    SELECT_LAST,
    SELECT_LAST_HASH,
    SELECT_HIGH_WATER,
    INSERT_CHECKPOINT,
    UPDATE_CHECKPOINT,
    SELECT_CHECKPOINT_SIZE,
    SELECT_CHECKPOINT,
    SELECT_LAST_CHECKPOINT,
];
