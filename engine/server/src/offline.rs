//! Looking at a store without a server: checking all of it, and making copies.

use std::path::Path;

use crate::log::{self, Folded, Head, LogError};
use crate::quota::{AccountNames, AccountUse, Accounts};
use crate::store::{CheckError, Copy, CopyError, OpenError, Store};

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

/// Checks a store that no server has open: folds its log as a start does, with every invariant, and
/// reads the rest of the file. Changes nothing.
///
/// # Errors
/// [`VerifyError`] says what is wrong, where, and what to do.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    look(&Store::open_read_only(path).map_err(VerifyError::Open)?, path)
}

/// Copies a store to a file that does not exist yet, while a server may be writing to it, and
/// checks the copy as [`verify`] does before it gets its name.
///
/// # Errors
/// [`BackupError`]: then there is no copy.
pub fn backup(from: &Path, to: &Path) -> Result<Verified, BackupError> {
    let copy = Copy::make(from, to).map_err(BackupError::Copy)?;
    let verified = Store::open_own_copy(copy.path())
        .map_err(VerifyError::Open)
        .and_then(|store| look(&store, copy.path()))
        .map_err(BackupError::Verify)?;
    copy.finish().map_err(BackupError::Copy)?;
    Ok(verified)
}

fn look(store: &Store, path: &Path) -> Result<Verified, VerifyError> {
    let bytes = std::fs::metadata(path)
        .map_err(|error| VerifyError::Open(OpenError::Missing(error)))?
        .len();
    let folded = Folded::read(store).map_err(VerifyError::Log)?;
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
    Ok(Verified {
        name: folded.name,
        head: folded.tree.head(),
        high_water: ledger.now(),
        decisions,
        live: ledger.live(),
        accounts,
        bytes,
    })
}
