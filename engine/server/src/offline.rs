//! Looking at a store without a server: checking all of it, and making copies.

mod export;
mod source;
mod walk;

use std::path::Path;

use crate::log::{self, Comparison, Folded, Head, LogError, SnapshotError, path_of};
use crate::quota::{AccountNames, AccountUse, Accounts};
use crate::store::{CheckError, Copy, CopyError, OpenError, Store};

pub use export::{ExportError, Exported, export_log};
pub use source::{LogSource, SourceError};
pub use walk::{LogExpect, LogVerifyError, default_threads, verify_log};

/// What a store holds, all of it checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Random name of the store: 32 hexadecimal digits. A copy has the same.
    pub name: String,
    /// Its log.
    pub head: Head,
    /// The time up to which everything due has been done, in seconds since 1970-01-01 UTC.
    pub high_water: u64,
    /// Decisions among the leaves.
    pub decisions: u64,
    /// Reservations that are held.
    pub live: usize,
    /// Every account's use at `high_water`, in the order of their paths.
    pub accounts: Vec<AccountUse>,
    /// Bytes of the file.
    pub bytes: u64,
    /// The snapshot beside it.
    pub snapshot: SnapshotFound,
}

/// What stands beside a store for its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotFound {
    /// Nothing.
    Absent,
    /// What so many leaves of the log fold to, to the last byte.
    Equal {
        /// Leaves: 1 or more.
        size: u64,
    },
    /// One of another version of Placet. A start does not use it, and it was not looked into.
    Foreign {
        /// Version of its content.
        format: u32,
    },
}

/// Why a store is not what it should be, or cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It cannot be opened, or somebody has it open.
    #[error(transparent)]
    Open(OpenError),
    /// Its log does not fold.
    #[error(transparent)]
    Log(LogError),
    /// What is beside the log is damaged.
    #[error(transparent)]
    Check(CheckError),
    /// The store is whole, but the snapshot beside it is not what its log folds to.
    #[error(
        "the snapshot `{path}` cannot be used\n\
         hint: delete it: a start without it folds the whole log, and is right"
    )]
    Snapshot {
        /// The file.
        path: String,
        /// Why.
        source: SnapshotError,
    },
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It could not be made.
    #[error(transparent)]
    Copy(CopyError),
    /// It was made, and is not whole, as the store itself may not be: it was deleted.
    #[error("the copy is not whole, and was deleted")]
    Verify(#[source] VerifyError),
}

/// Checks a store that no server has open: folds its log from the first leaf on, with every
/// invariant, reads the rest of the file, and compares the snapshot beside it with the fold.
/// Changes nothing.
///
/// # Errors
/// [`VerifyError`] says what is wrong, where, and what to do.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let store = Store::open_read_only(path).map_err(VerifyError::Open)?;
    let beside = path_of(path);
    let (verified, compared) = look(&store, path, Comparison::open(&beside))?;
    let snapshot = match compared {
        Ok(snapshot) => snapshot,
        Err(SnapshotError::Format { found, .. }) => SnapshotFound::Foreign { format: found },
        Err(source) => {
            return Err(VerifyError::Snapshot { path: beside.display().to_string(), source });
        }
    };
    Ok(Verified { snapshot, ..verified })
}

/// Copies a store to a file that does not exist yet, while a server may be writing to it, and
/// checks the copy as [`verify`] does before it gets its name.
///
/// # Errors
/// [`BackupError`]: then there is no copy.
pub fn backup(from: &Path, to: &Path) -> Result<Verified, BackupError> {
    let copy = Copy::make(from, to).map_err(BackupError::Copy)?;
    // A copy has no snapshot: it is a cache, and a start on the copy makes one.
    let (verified, _) = Store::open_own_copy(copy.path())
        .map_err(VerifyError::Open)
        .and_then(|store| look(&store, copy.path(), Ok(None)))
        .map_err(BackupError::Verify)?;
    copy.finish().map_err(BackupError::Copy)?;
    Ok(verified)
}

/// What a store holds, and what the snapshot beside it is.
type Looked = (Verified, Result<SnapshotFound, SnapshotError>);

fn look(
    store: &Store,
    path: &Path,
    beside: Result<Option<Comparison>, SnapshotError>,
) -> Result<Looked, VerifyError> {
    let bytes = std::fs::metadata(path)
        .map_err(|error| VerifyError::Open(OpenError::Missing(error)))?
        .len();
    let (mut compared, mut waiting) = match beside {
        Ok(None) => (Ok(SnapshotFound::Absent), None),
        Ok(Some(comparison)) => (Err(SnapshotError::AHEAD), Some(comparison)),
        Err(error) => (Err(error), None),
    };
    let folded = Folded::read_with(store, |folded| {
        let size = folded.tree.size();
        if let Some(comparison) = waiting.take_if(|waiting| waiting.size() == size) {
            compared = comparison.with(folded).map(|()| SnapshotFound::Equal { size });
        }
        Ok(())
    });
    let folded = folded.map_err(VerifyError::Log)?;
    log::check_hashes(store).map_err(VerifyError::Log)?;
    let decisions = store.check().map_err(VerifyError::Check)?;
    let (ledger, names) = (&folded.ledger, AccountNames::of(&folded.ledger));
    let (mut accounts, mut after) = (Vec::new(), None);
    loop {
        let all = Accounts::Under { prefix: None, after, most: usize::MAX };
        let (page, next) = names.page(ledger, &all);
        accounts.extend(page);
        after = next;
        if after.is_none() {
            break;
        }
    }
    let verified = Verified {
        name: folded.name,
        head: folded.tree.head(),
        high_water: ledger.now(),
        decisions,
        live: ledger.live(),
        accounts,
        bytes,
        snapshot: SnapshotFound::Absent,
    };
    Ok((verified, compared))
}
