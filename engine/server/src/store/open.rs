//! Opening a store: whose file it is, who holds it, which version it has. Nothing foreign is
//! changed.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, ffi};

use super::schema::{APPLICATION_ID, MIGRATIONS, Migration};

/// Prepared statements that a connection keeps: all that there are.
const STATEMENTS: usize = 32;
/// How long a connection waits for another one of this process, which only ever holds a lock while
/// it works.
pub(super) const BUSY: Duration = Duration::from_secs(5);
/// Bytes of the lock file that are read: a process id.
const LOCK_TEXT_BYTES: u64 = 32;

/// What to do about a damaged store.
pub(crate) const RESTORE: &str = "hint: restore the store from a copy made by `placet ledger \
    backup`; `placet ledger verify` tells what is wrong with one";

/// Why a store was not opened. Nothing was changed, unless it is being made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A directory stands there.
    #[error("is a directory\nhint: name a file; it is created if absent")]
    Directory,
    /// It cannot be created, read or written.
    #[error(
        "cannot be created, read and written\n\
         hint: its directory must exist, and both must be writable by this user"
    )]
    Access(#[source] std::io::Error),
    /// Another process has it open.
    #[error(
        "is in use by {holder}\n\
         hint: stop that process, or name another store; two servers cannot share one"
    )]
    InUse {
        /// Who, as far as the lock file tells.
        holder: String,
    },
    /// There is nothing to read.
    #[error("cannot be read\nhint: name the file of a store")]
    Missing(#[source] std::io::Error),
    /// Its pages contradict one another.
    #[error("is damaged: nothing was changed\n{}", RESTORE)]
    Damaged(#[source] rusqlite::Error),
    /// It is no SQLite database, or one of another program.
    #[error(
        "is not a Placet store: {what}\n\
         hint: name another file, which is created if absent; if this was a store, it is damaged: \
         restore it from a copy"
    )]
    Foreign {
        /// What it is instead.
        what: String,
    },
    /// A later version of Placet wrote it.
    #[error(
        "has schema {found}, this program knows up to {known}\n\
         hint: use the version of Placet that last wrote it, or a later one"
    )]
    Newer {
        /// Its version.
        found: usize,
        /// The latest that is known.
        known: usize,
    },
    /// An earlier version of Placet wrote it, and no later one has opened it since.
    #[error(
        "has schema {found}, and what is asked for needs {known}\n\
         hint: start a server on it once, which brings it up to date, or on a copy of it"
    )]
    Older {
        /// Its version.
        found: usize,
        /// The one that is needed.
        known: usize,
    },
    /// SQLite failed.
    #[error("SQLite failed")]
    Sqlite(#[source] rusqlite::Error),
}

/// Holds the lock as long as it lives: the operating system lets go of it even if the process is
/// killed.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a file beside the store. SQLite's own exclusive mode would also lock out our own
    /// readers.
    pub(super) fn take(store: &Path) -> Result<Self, OpenError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        owner_only(&mut options);
        let mut file = options.open(lock_path(store)).map_err(OpenError::Access)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse { holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::Access(error)),
        }
        let mut note = || {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        note().map_err(OpenError::Access)?;
        Ok(Self { _file: file })
    }
}

fn lock_path(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // The name of the holder is a courtesy: without it the answer is the same.
    match file.take(LOCK_TEXT_BYTES).read_to_string(&mut text) {
        Ok(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("process {text}")
        }
        Ok(_) | Err(_) => "another process".to_owned(),
    }
}

#[cfg(unix)]
pub(crate) fn owner_only(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600);
}

#[cfg(not(unix))]
pub(crate) fn owner_only(_options: &mut OpenOptions) {}

/// Makes sure that the file exists, with mode 0600 if it is made here, and can be written.
pub(super) fn create(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Err(OpenError::Directory);
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    owner_only(&mut options);
    options.open(path).map(drop).map_err(OpenError::Access)
}

/// The connection that writes. Checks whose file it is before anything is changed.
pub(super) fn writer(path: &Path, max_pages: Option<u32>) -> Result<Connection, OpenError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let version = check_owner(&connection)?;
    configure(&connection, max_pages).map_err(failed)?;
    migrate(&mut connection, version, &MIGRATIONS).map_err(failed)?;
    Ok(connection)
}

/// A connection that reads a file without changing it, and its schema version. An older version is
/// read as it is: the tables of the log are the same in all of them, and of the others
/// [`super::reader::decision_on`] knows the older form.
pub(super) fn read_only(path: &Path) -> Result<(Connection, usize), OpenError> {
    if path.is_dir() {
        return Err(OpenError::Directory);
    }
    File::open(path).map(drop).map_err(OpenError::Missing)?;
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    match check_owner(&connection)? {
        0 => Err(OpenError::Foreign { what: "it is empty".to_owned() }),
        version => Ok((connection, version)),
    }
}

/// Whether a store has all the tables that this version reads.
pub(super) fn check_current(version: usize) -> Result<(), OpenError> {
    let known = MIGRATIONS.len();
    if version < known { Err(OpenError::Older { found: version, known }) } else { Ok(()) }
}

/// Copies the write-ahead log into the database, syncs it, and empties the log: false if somebody
/// still reads by it.
pub(super) fn empty_write_ahead_log(connection: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// A connection that reads.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true).map_err(OpenError::Sqlite)?;
    Ok(connection)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, OpenError> {
    // A connection is used by one thread at a time, and a path is a path, not a URI with options.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(OpenError::Sqlite)?;
    connection.busy_timeout(BUSY).map_err(OpenError::Sqlite)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Whether an error says that what is read is not what was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, _)
            if matches!(extended_code & 0xff, ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB)
    )
}

fn failed(error: rusqlite::Error) -> OpenError {
    if is_damage(&error) { OpenError::Damaged(error) } else { OpenError::Sqlite(error) }
}

/// Whether the file is ours or empty; its schema version.
fn check_owner(connection: &Connection) -> Result<usize, OpenError> {
    let number = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let foreign = |what: &str| OpenError::Foreign { what: what.to_owned() };
    let tables = match number("SELECT count(*) FROM sqlite_schema") {
        Ok(tables) => tables,
        Err(rusqlite::Error::SqliteFailure(ffi::Error { extended_code, .. }, _))
            if extended_code & 0xff == ffi::SQLITE_NOTADB =>
        {
            return Err(foreign("it is no SQLite database"));
        }
        Err(error) => return Err(failed(error)),
    };
    let id = number("PRAGMA application_id").map_err(failed)?;
    let version = number("PRAGMA user_version").map_err(failed)?;
    match (id, version, tables) {
        (0, 0, 0) => return Ok(0),
        (id, _, _) if id != i64::from(APPLICATION_ID) => {
            return Err(foreign("it is a database of another program"));
        }
        _ => {}
    }
    let known = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(found) if (1..=known).contains(&found) => Ok(found),
        Ok(found) if found > known => Err(OpenError::Newer { found, known }),
        Ok(_) | Err(_) => Err(foreign("its schema has no version")),
    }
}

fn configure(connection: &Connection, max_pages: Option<u32>) -> rusqlite::Result<()> {
    // A commit is one append to the write-ahead log and one sync of it; readers never wait for the
    // writer.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // The write-ahead log reaches the disk before a commit returns: an answer is never ahead of
    // what is durable.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Erased personal values are overwritten, not just unlinked.
    connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
    if let Some(pages) = max_pages {
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(())
}

/// Brings a file of some version to the last one: each step whole, or not at all.
fn migrate(
    connection: &mut Connection,
    version: usize,
    migrations: &[Migration],
) -> rusqlite::Result<()> {
    for (from, migration) in migrations.iter().enumerate().skip(version) {
        let migrating = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        migrating.execute_batch(migration.sql)?;
        if let Some(then) = migration.then {
            then(&migrating)?;
        }
        migrating.pragma_update(None, "application_id", APPLICATION_ID)?;
        let to = i64::try_from(from).unwrap_or(i64::MAX).saturating_add(1);
        migrating.pragma_update(None, "user_version", to)?;
        migrating.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    fn tables(connection: &Connection) -> Vec<String> {
        let mut all = connection.prepare("SELECT name FROM sqlite_schema ORDER BY name").unwrap();
        all.query_map([], |row| row.get(0)).and_then(Iterator::collect).unwrap()
    }

    #[test]
    fn a_migration_is_there_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        create(&path).unwrap();
        let mut connection = writer(&path, None).unwrap();
        let (known, before) = (MIGRATIONS.len(), tables(&connection));
        let first = "CREATE TABLE first (a INTEGER) STRICT; INSERT INTO first VALUES (7);";
        let wrong = "CREATE TABLE second (a INTEGER) STRICT; INSERT INTO nowhere VALUES (1);";
        let mut migrations = MIGRATIONS.to_vec();
        migrations.extend([Migration::of(first), Migration::of(wrong)]);
        migrate(&mut connection, known, &migrations).unwrap_err();
        assert_eq!(version(&connection), i64::try_from(known).unwrap() + 1, "the first one holds");
        let after = tables(&connection);
        assert!(after.contains(&"first".to_owned()) && !after.contains(&"second".to_owned()));
        assert_eq!(after.len(), before.len() + 1);

        drop(connection);
        let error = writer(&path, None).unwrap_err();
        assert!(matches!(error, OpenError::Newer { .. }), "this version knows it not: {error}");
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        *migrations.last_mut().unwrap() = Migration::of("ALTER TABLE first ADD COLUMN b INTEGER;");
        migrate(&mut connection, known + 1, &migrations).unwrap();
        assert_eq!(version(&connection), i64::try_from(known).unwrap() + 2);
        let row = connection.query_row("SELECT a, b FROM first", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        assert_eq!(row.unwrap(), (7, None));
    }
}
