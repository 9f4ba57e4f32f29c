//! The tables, and every query as one text: a test holds each of them to an index.

/// SQLite's `application_id` of our files: "PLCT" in ASCII. Tells a store from any other database.
pub(super) const APPLICATION_ID: i32 = 0x504c_4354;

/// `MIGRATIONS[v]` brings a store of version `v` to `v + 1`; `user_version` counts them. A new
/// store runs them all.
pub(super) const MIGRATIONS: [&str; 2] = [
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
    "
CREATE TABLE checkpoints (
    number INTEGER PRIMARY KEY CHECK (number >= 0),
    size INTEGER NOT NULL CHECK (size BETWEEN 1 AND 281474976710656),
    note TEXT NOT NULL CHECK (length(note) BETWEEN 1 AND 65536)
) STRICT;
",
];

pub(super) const INSERT_LEAF: &str = "INSERT INTO leaves (position, leaf) VALUES (?1, ?2)";
pub(super) const INSERT_HASH: &str = "INSERT INTO tree (number, hash) VALUES (?1, ?2)";
pub(super) const INSERT_REQUEST: &str = "INSERT INTO requests \
    (caller, request_id, request_digest, position) VALUES (?1, ?2, ?3, ?4)";
pub(super) const INSERT_EVIDENCE: &str =
    "INSERT INTO evidence (position, input, evaluation) VALUES (?1, ?2, ?3)";
pub(super) const INSERT_PERSONAL: &str =
    "INSERT INTO personal (position, path, salt, value) VALUES (?1, ?2, ?3, ?4)";
pub(super) const UPDATE_HIGH_WATER: &str = "UPDATE meta SET high_water = ?1 WHERE one = 1";

pub(super) const SELECT_DECISION: &str = "SELECT r.request_digest, r.position, l.leaf \
    FROM requests r JOIN leaves l ON l.position = r.position \
    WHERE r.caller = ?1 AND r.request_id = ?2";
pub(super) const SELECT_PERSONAL: &str =
    "SELECT path, salt, value FROM personal WHERE position = ?1 ORDER BY path";
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
pub(super) const SELECT_CHECKPOINT: &str = "SELECT size, note FROM checkpoints WHERE number = ?1";
pub(super) const SELECT_LAST_CHECKPOINT: &str = "SELECT max(number) FROM checkpoints";
pub(super) const SELECT_NAME: &str = "SELECT lower(hex(randomblob(16)))";

#[cfg(test)]
pub(super) const ALL: [&str; 17] = [
    INSERT_LEAF,
    INSERT_HASH,
    INSERT_REQUEST,
    INSERT_EVIDENCE,
    INSERT_PERSONAL,
    UPDATE_HIGH_WATER,
    SELECT_DECISION,
    SELECT_PERSONAL,
    SELECT_EVIDENCE,
    SELECT_LEAVES,
    SELECT_HASH,
    SELECT_LAST,
    SELECT_LAST_HASH,
    SELECT_HIGH_WATER,
    INSERT_CHECKPOINT,
    SELECT_CHECKPOINT,
    SELECT_LAST_CHECKPOINT,
];
