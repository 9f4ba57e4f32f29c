//! When a checkpoint of the log is made, and that it never goes back.
//!
//! The writer signs the head of what is durable, stores the note, and only then shows it to
//! anybody. So whatever was ever served is in the store, and is held against the log at each start.

use std::sync::Arc;

use placet_core::Checkpoint;
use placet_core::merkle::{self, Tree};

use super::tried::Tried;
use super::{Head, Published};
use crate::clock::Clock;
use crate::log::LogError;
use crate::store::{CheckpointOptions, CommitError, Store, StoredCheckpoint, is_of};

/// The checkpoints of a log.
#[derive(Debug)]
pub(super) struct Checkpoints {
    options: Option<CheckpointOptions>,
    /// Name of the log.
    origin: String,
    /// The newest one.
    last: Option<Arc<Published>>,
    /// Number of the next one.
    next: u64,
    /// Whether the newest one was signed with another key than ours, so that nobody who knows ours
    /// would take it.
    is_foreign: bool,
    tried: Tried,
}

impl Checkpoints {
    /// Takes up the newest checkpoint of a store, and holds it against its log.
    ///
    /// # Errors
    /// [`LogError`]: the log is not the one that was published, or cannot have checkpoints.
    pub(super) fn open(
        store: &Store,
        options: Option<CheckpointOptions>,
        issuer: &str,
        is_told: bool,
    ) -> Result<Self, LogError> {
        let origin = store.origin()?.unwrap_or_else(|| issuer.to_owned());
        // INVARIANT: all decisions of a log are of one issuer, by whose name they are verified.
        if origin != issuer {
            return Err(LogError::Issuer { origin, issuer: issuer.to_owned() });
        }
        if let Some(options) = &options {
            let verifier = options.signer.verifier(&origin).map_err(LogError::Origin)?;
            tracing::info!(%verifier, "checkpoints of the log are verified with this key");
        }
        let tried = Tried::never(is_told);
        let mut own = Self { options, origin, last: None, next: 0, is_foreign: false, tried };
        own.take_up(store)?;
        Ok(own)
    }

    /// Takes up the newest checkpoint of a store, which may be one whose commit was not known to
    /// have succeeded.
    ///
    /// # Errors
    /// [`LogError`]: the log is not the one that was published.
    pub(super) fn take_up(&mut self, store: &Store) -> Result<(), LogError> {
        let (stored, leaves) = (store.checkpoint()?, store.size()?);
        // INVARIANT: what was published once stays published.
        let known = self.last.as_ref().map_or(0, |last| last.head.size);
        let size = stored.as_ref().map_or(0, |stored| stored.size);
        if size < known {
            return Err(LogError::Behind { leaves: size, published: known });
        }
        let Some(StoredCheckpoint { number, note, .. }) = stored else { return Ok(()) };
        if size > leaves {
            return Err(LogError::Behind { leaves, published: size });
        }
        let root = merkle::root(size, |numbers| store.hashes(numbers));
        let root = root.map_err(|_no_root| LogError::Hashes)?;
        // INVARIANT: the log begins with every log that was ever published.
        let expected = Checkpoint { origin: self.origin.clone(), root, size };
        if !is_of(&note, &expected) {
            return Err(LogError::Forked { published: size });
        }
        if let Some(options) = &self.options {
            let is_ours = options.signer.signed(&note, &self.origin);
            self.is_foreign = !is_ours.map_err(LogError::Checkpoint)?;
            if self.is_foreign {
                let what =
                    "the newest checkpoint was signed with another key: the next is made now";
                tracing::warn!(size, "{what}");
            }
        }
        self.next = number.saturating_add(1);
        self.last = Some(Arc::new(Published { head: Head { size, root }, note }));
        Ok(())
    }

    /// The newest one, if whoever knows our key would take it.
    pub(super) fn newest(&self) -> Option<Arc<Published>> {
        self.last.clone().filter(|_| self.options.is_some() && !self.is_foreign)
    }

    /// Makes one if it is time for it, and the log has grown: `now` is what the caller takes for
    /// the time, and `is_last` says that there will be no later occasion.
    ///
    /// # Errors
    /// [`CommitError`]: it is not to be shown to anybody.
    pub(super) fn consider(
        &mut self,
        tree: &Tree,
        store: &mut Store,
        now: Option<u64>,
        is_last: bool,
    ) -> Result<Option<Arc<Published>>, CommitError> {
        let Some(options) = &self.options else { return Ok(None) };
        let published = self.last.as_ref().map_or(0, |last| last.head.size);
        let is_new = tree.size() > published || (self.is_foreign && tree.size() == published);
        if !is_new || !(is_last || self.tried.is_due(options.every_seconds, now)) {
            return Ok(None);
        }
        self.tried = Tried::at(now);
        let head = tree.head();
        let Head { size, root } = head;
        let checkpoint = Checkpoint { origin: self.origin.clone(), root, size };
        let note = match options.signer.sign(&checkpoint, now.unwrap_or_else(Clock::now)) {
            Ok(note) => note,
            Err(error) => {
                tracing::error!(%error, size, "no checkpoint of the log was made");
                return Ok(None);
            }
        };
        let stored = StoredCheckpoint { number: self.next, size, note };
        store.publish(&stored)?;
        let made = Arc::new(Published { head, note: stored.note });
        self.next = self.next.saturating_add(1);
        self.last = Some(Arc::clone(&made));
        self.is_foreign = false;
        Ok(Some(made))
    }
}
