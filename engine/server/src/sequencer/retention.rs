//! Personal values that have been kept long enough, and what is left of erased ones.
//!
//! The writer erases them between batches, some at a time, so that nobody waits long for it.

use super::tried::Tried;
use crate::store::{CommitError, ReadError, Store};

/// Seconds between two looks for values past their age, and from a start to the first: so much
/// later a value goes, and so long there is to mend a clock that was wrong at the start.
const LOOK_EVERY_SECONDS: u64 = 900;
/// Positions that are looked through before others may have the thread: some ten milliseconds.
const POSITIONS_A_LOOK: u64 = 65_536;
/// Positions whose values are erased in one commit: as long.
const POSITIONS_A_COMMIT: u64 = 2_048;
/// Seconds until the write-ahead log is tried again, which somebody may be reading by.
const PURGE_EVERY_SECONDS: u64 = 1;

/// What is to be erased, and when.
#[derive(Debug)]
pub(super) struct Retention {
    /// Seconds for which values are kept; none if until somebody asks.
    keep_seconds: Option<u64>,
    looked: Tried,
    /// Values of decisions before this position are being erased.
    before: Option<u64>,
    /// Of decisions before this position no value is kept.
    reached: u64,
    /// Whether the write-ahead log may have what was erased. It may at a start: its process may
    /// have been killed.
    is_pending: bool,
    purged: Tried,
    is_told: bool,
}

/// Why nothing was erased.
#[derive(Debug)]
pub(super) enum RetainError {
    /// The store cannot be read.
    Read(ReadError),
    /// Nothing is erased, or nobody knows.
    Commit(CommitError),
    /// The write-ahead log is not emptied.
    Purge(ReadError),
}

impl Retention {
    /// `told` is the time, where the caller tells it.
    pub(super) fn new(keep_seconds: Option<u64>, told: Option<u64>) -> Self {
        let (looked, is_told) = (Tried::at(told), told.is_some());
        let purged = Tried::never(is_told);
        Self { keep_seconds, looked, before: None, reached: 0, is_pending: true, purged, is_told }
    }

    /// Says that values were erased: what the write-ahead log has of them is to go.
    pub(super) fn erased(&mut self) {
        self.is_pending = true;
    }

    /// Erases some of what is due, and says whether there is more. `size` is that of the log, `now`
    /// the time by which ages count.
    ///
    /// # Errors
    /// [`RetainError`]: it is tried again, at the next look or in a second.
    pub(super) fn consider(
        &mut self,
        store: &mut Store,
        size: u64,
        now: u64,
    ) -> Result<bool, RetainError> {
        let told = self.is_told.then_some(now);
        if let Some(keep) = self.keep_seconds
            && self.before.is_none()
            && self.looked.is_due(LOOK_EVERY_SECONDS, told)
        {
            self.looked = Tried::at(told);
            let oldest = now.saturating_sub(keep);
            let before = store.reader().first_since(oldest, size);
            self.before = Some(before.map_err(RetainError::Read)?);
        }
        // Whatever fails below is tried at the next look, not at once.
        if let Some(before) = self.before.take()
            && self.reached < before
        {
            let end = before.min(self.reached.saturating_add(POSITIONS_A_LOOK));
            let first = store.first_personal(&(self.reached..end)).map_err(RetainError::Read)?;
            self.reached = match first {
                None => end,
                Some(first) => {
                    let end = end.min(first.saturating_add(POSITIONS_A_COMMIT));
                    store.erase_range(first..end).map_err(RetainError::Commit)?;
                    tracing::debug!(first, end, "personal values past their age were erased");
                    self.is_pending = true;
                    end
                }
            };
            self.before = Some(before);
            return Ok(true);
        }
        if self.is_pending && self.purged.is_due(PURGE_EVERY_SECONDS, told) {
            self.purged = Tried::at(told);
            self.is_pending = !store.purge().map_err(RetainError::Purge)?;
        }
        Ok(false)
    }
}
