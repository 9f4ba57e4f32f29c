//! Faults at the store's seam, for tests: the store itself stays the real one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "defects")]
use crate::quota::Defect;

/// What goes wrong at the next step that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A key gives no signature.
    Sign,
    /// The commit fails before anything is written for good.
    Commit,
    /// The commit fails, and nobody knows whether it took effect: it did not.
    CommitUnknown,
    /// The commit fails, and nobody knows whether it took effect: it did.
    CommitPersisted,
    /// The store cannot be opened again.
    Reopen,
    /// The process dies before it commits.
    CrashBeforeCommit,
    /// The process dies after it committed and before it answers.
    CrashAfterCommit,
}

/// Faults still to come, in order. Each is used up by the first step that it fits; the others wait
/// behind it.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    coming: Arc<Mutex<VecDeque<Fault>>>,
    /// The rule of the ledger that is broken.
    #[cfg(feature = "defects")]
    defect: Option<Defect>,
}

impl Faults {
    /// None, but for one rule of the ledger that is broken all the time.
    #[cfg(feature = "defects")]
    #[must_use]
    pub fn breaking(defect: Defect) -> Self {
        Self { coming: Arc::default(), defect: Some(defect) }
    }

    #[cfg(feature = "defects")]
    pub(crate) fn defect(&self) -> Option<Defect> {
        self.defect
    }

    /// Adds a fault behind the others.
    pub fn push(&self, fault: Fault) {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).push_back(fault);
    }

    /// How many have not happened yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets those that have not happened yet.
    pub fn clear(&self) {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Uses up the next fault if it is one of these.
    pub(crate) fn take(&self, among: &[Fault]) -> Option<Fault> {
        let mut faults = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let next = faults.front().copied().filter(|fault| among.contains(fault))?;
        faults.pop_front();
        Some(next)
    }
}
