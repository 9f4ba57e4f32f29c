//! When a snapshot of the ledger is made, and by whom.
//!
//! The writer only looks at how long the log has become. A thread of its own takes up the snapshot
//! before, folds what the log has behind it, past the writer, and writes the next one. The writer
//! waits for nothing; what it wrote is folded by another while it runs, not only at the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::activation::chain;
use crate::log::{Folded, LogError, SnapshotError, WriteError, path_of};
use crate::signer::Signer;
use crate::store::{Faults, Reader, Store};
use crate::workers::stand_back;

/// Items of the last snapshot for each leaf behind it, at most, when the next one is made: making
/// one takes a few microseconds an item, folding some fifteen a leaf. So making them never takes
/// more than as much again.
const ITEMS_A_LEAF: u64 = 4;

/// The snapshots of a store.
#[derive(Debug)]
pub(super) struct Snapshots {
    path: PathBuf,
    /// Leaves behind the last one when the next one is made; 0 for none.
    every: u64,
    signer: Signer,
    /// Whether they are made on the caller's thread: for whoever wants to repeat a run exactly.
    is_inline: bool,
    /// Leaves at which the last one was made, or tried.
    last: u64,
    /// Items of the last one.
    items: u64,
    making: Option<Making>,
    /// Why the last one was not made.
    failed: Option<String>,
}

#[derive(Debug)]
struct Making {
    thread: JoinHandle<Result<Option<u64>, MakeError>>,
    is_over: Arc<AtomicBool>,
}

/// Why no snapshot was made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    /// The log does not fold: it is damaged, or the one who wrote it was wrong.
    #[error("the log does not fold")]
    Log(#[source] LogError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(WriteError),
}

impl Snapshots {
    pub(super) fn new(store: &Path, every: u64, signer: Signer, is_inline: bool) -> Self {
        let path = path_of(store);
        Self { path, every, signer, is_inline, last: 0, items: 0, making: None, failed: None }
    }

    /// Reads the log of a store, with the help of its snapshot.
    ///
    /// # Errors
    /// As without one.
    pub(super) fn fold(&mut self, store: &Store) -> Result<Folded, LogError> {
        let folded = match self.every {
            0 => Folded::read(store),
            _ => Folded::open(store, &self.path, &self.signer),
        }?;
        (self.last, self.items) = folded.begun.unwrap_or_default();
        Ok(folded)
    }

    /// Writes one down at a start that had to fold so much that the next start should not. Where
    /// that fails, it starts without.
    pub(super) fn begin(&mut self, folded: &Folded) {
        let size = folded.tree.size();
        if self.is_due(size) {
            self.last = size;
            let written = folded.write_snapshot(&self.path, &self.signer, &|| false);
            self.note(written.map(|claims| Some(claims.items)).map_err(MakeError::Write));
        }
    }

    fn is_due(&self, size: u64) -> bool {
        let items = self.items.checked_div(ITEMS_A_LEAF).unwrap_or_default();
        self.every > 0 && size.saturating_sub(self.last) >= self.every.max(items)
    }

    /// Looks, behind a batch that made the log as long as this, whether one is to be made.
    pub(super) fn consider(&mut self, size: u64, store: &Store) {
        if self.making.as_ref().is_some_and(|making| making.thread.is_finished()) {
            self.finish();
        }
        if self.making.is_some() || !self.is_due(size) {
            return;
        }
        self.last = size;
        let (path, signer, reader) = (self.path.clone(), self.signer.clone(), store.reader());
        let (faults, is_over) = (store.faults().clone(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&is_over);
        let make = move || {
            let is_over = || told.load(Ordering::Relaxed);
            make((&path, &signer), &reader, &faults, size, &is_over)
        };
        if self.is_inline {
            self.note(make());
            return;
        }
        let named = std::thread::Builder::new().name("snapshot".to_owned());
        let thread = named.spawn(move || {
            stand_back(false);
            make()
        });
        match thread {
            Ok(thread) => self.making = Some(Making { thread, is_over }),
            Err(error) => self.note(Err(MakeError::Write(error.into()))),
        }
    }

    /// Holds what the snapshot and the leaves behind it add up to against the fold of all leaves.
    ///
    /// # Errors
    /// What differs, why it cannot be used, or why the last one was not made.
    pub(super) fn check(&self, store: &Store) -> Result<Option<u64>, String> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let behind = Folded::go_on_from(store, &self.path, &self.signer);
        let Some(behind) = behind.map_err(|error| chain(&error))? else { return Ok(None) };
        let whole = Folded::read(store).map_err(|error| chain(&error))?;
        let differs = behind.difference(&whole).map_err(|error| chain(&error))?;
        match differs {
            Some(what) => Err(format!("behind the snapshot, {what} differs from the fold")),
            None => Ok(behind.begun.map(|(size, _)| size)),
        }
    }

    /// Waits for the one that is being made.
    fn finish(&mut self) {
        let Some(making) = self.making.take() else { return };
        match making.thread.join() {
            Ok(made) => self.note(made),
            Err(_panic) => tracing::error!("the thread that makes snapshots died"),
        }
    }

    /// What became of one: how many items it has, or that it was not to be finished.
    fn note(&mut self, made: Result<Option<u64>, MakeError>) {
        let (snapshot, size) = (self.path.display(), self.last);
        self.failed = made.as_ref().err().map(|error| chain(error));
        match made {
            Ok(Some(items)) => {
                self.items = items;
                tracing::info!(%snapshot, size, items, "a snapshot of the ledger was made");
            }
            Ok(None) | Err(MakeError::Write(WriteError::Stopped)) => {}
            Err(error @ MakeError::Log(_)) => {
                let reason = chain(&error).replace('\n', "; ");
                let what = "the log of this store contradicts itself";
                tracing::error!(%snapshot, size, reason, "{what}");
            }
            Err(error) => {
                let reason = chain(&error).replace('\n', "; ");
                tracing::warn!(%snapshot, size, reason, "no snapshot of the ledger was made");
            }
        }
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        // One that is being made is given up: the next start folds a little more.
        if let Some(making) = &self.making {
            making.is_over.store(true, Ordering::Relaxed);
        }
        self.finish();
    }
}

/// Makes a snapshot of the first `size` leaves of a log: `None` if it is not to be finished.
fn make(
    (path, signer): (&Path, &Signer),
    reader: &Reader,
    faults: &Faults,
    size: u64,
    is_over: &dyn Fn() -> bool,
) -> Result<Option<u64>, MakeError> {
    let hashes = |numbers: &[u64]| reader.hashes(numbers);
    let taken = Folded::take_up((path, signer), faults, (size, hashes), is_over);
    let unfit = |error: SnapshotError| {
        let reason = chain(&error).replace('\n', "; ");
        tracing::warn!(snapshot = %path.display(), reason, "the snapshot before is not used");
    };
    let mut before = match taken {
        Ok(before) => before,
        Err(SnapshotError::Stopped) => return Ok(None),
        Err(error) => {
            unfit(error);
            None
        }
    };
    let mut is_whole = None;
    if let Some(folded) = &mut before {
        match folded.follow(reader, size, is_over) {
            Ok(followed) => is_whole = Some(followed),
            Err(error) => unfit(SnapshotError::Log(Box::new(error))),
        }
    }
    let (folded, is_whole) = match (before, is_whole) {
        (Some(folded), Some(is_whole)) => (folded, is_whole),
        // There was none, or it is no good: from the first leaf on.
        _ => {
            let mut folded = Folded::new(faults);
            let is_whole = folded.follow(reader, size, is_over).map_err(MakeError::Log)?;
            (folded, is_whole)
        }
    };
    if !is_whole {
        return Ok(None);
    }
    let claims = folded.write_snapshot(path, signer, is_over).map_err(MakeError::Write)?;
    Ok(Some(claims.items))
}
