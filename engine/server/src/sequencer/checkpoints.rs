//! When a checkpoint of the log is made, and that it never goes back.
//!
//! The writer signs the head of what is durable, stores the note, and only then shows it to
//! anybody. So whatever was ever served is in the store, and is held against the log at each start.
//! Cosignatures that a checkpoint is given later are stored before they are shown, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use placet_core::merkle::{self, Tree};
use placet_core::{Checkpoint, CosignatureError};

use super::published::{Published, Shown};
use super::tried::Tried;
use super::{Cosigned, Cosigning, Head, SequencerError};
use crate::clock::Clock;
use crate::log::LogError;
use crate::store::{CheckpointOptions, CommitError, ReadError, Store, StoredCheckpoint, is_of};

/// Checkpoints among which a start looks for those that witnesses cosigned: a day of them at the
/// usual pace. A witness that has been silent for longer is not worth a longer start.
const LOOK_BACK: u64 = 8_640;

/// The checkpoints of a log.
#[derive(Debug)]
pub(super) struct Checkpoints {
    options: Option<CheckpointOptions>,
    /// Name of the log.
    origin: String,
    /// The newest one.
    last: Option<Arc<Published>>,
    /// What may be shown: the newest one among it, unless it is foreign.
    shown: Shown,
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
        let shown = Shown::default();
        let mut own =
            Self { options, origin, last: None, shown, next: 0, is_foreign: false, tried };
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
        let Some(stored) = stored else { return Ok(()) };
        if size > leaves {
            return Err(LogError::Behind { leaves, published: size });
        }
        let newest = Arc::new(self.held(store, stored)?);
        self.is_foreign = self.options.is_some() && !self.is_ours(&newest.note)?;
        if self.is_foreign {
            let what = "the newest checkpoint was signed with another key: the next is made now";
            tracing::warn!(size, "{what}");
        }
        self.next = newest.number.saturating_add(1);
        let mut shown = self.recall(store, &newest)?;
        // What was shown is not withdrawn for being older than a start looks back.
        let first = newest.number.saturating_sub(LOOK_BACK);
        for one in self.shown.all().iter().filter(|one| one.number < first) {
            if self.is_ours(&one.note)? {
                shown.put(Arc::clone(one));
            }
        }
        self.shown = shown;
        self.last = Some(newest);
        Ok(())
    }

    /// A stored checkpoint, held against the log, and its cosignatures verified.
    fn held(&self, store: &Store, stored: StoredCheckpoint) -> Result<Published, LogError> {
        let StoredCheckpoint { number, size, note } = stored;
        let root = merkle::root(size, |numbers| store.hashes(numbers));
        let root = root.map_err(|_no_root| LogError::Hashes)?;
        // INVARIANT: the log begins with every log that was ever published.
        let expected = Checkpoint { origin: self.origin.clone(), root, size };
        if !is_of(&note, &expected) {
            return Err(LogError::Forked { published: size });
        }
        let cosigned = self.cosigned(&note);
        let cosigned = cosigned.map_err(|source| LogError::Cosigned { size, source })?;
        Ok(Published { number, head: Head { size, root }, note, cosigned })
    }

    /// Whether one of our keys signed a note.
    fn is_ours(&self, note: &str) -> Result<bool, LogError> {
        let Some(options) = &self.options else { return Ok(false) };
        options.signer.signed(note, &self.origin).map_err(LogError::Checkpoint)
    }

    /// How many of the witnesses cosigned a note.
    fn cosigned(&self, note: &str) -> Result<usize, CosignatureError> {
        let Some(options) = &self.options else { return Ok(0) };
        // Without any, a note is not even read.
        match options.witnesses.as_slice() {
            [] => Ok(0),
            _ => Ok(options.witnesses.cosignatures(note)?.len()),
        }
    }

    /// What may be shown of a store with that newest checkpoint: going back from it, each that more
    /// witnesses cosigned than all after it.
    fn recall(&self, store: &Store, newest: &Arc<Published>) -> Result<Shown, LogError> {
        let mut shown = Shown::default();
        let Some(options) = &self.options else { return Ok(shown) };
        if !self.is_foreign {
            shown.put(Arc::clone(newest));
        }
        let known = options.witnesses.as_slice().len();
        let first = newest.number.saturating_sub(LOOK_BACK);
        for number in (first..newest.number).rev() {
            if shown.most() >= known {
                break;
            }
            let stored = store.checkpoint_at(number)?;
            // At least one line is the log's own: it is not read if the others are too few.
            let lines = stored.note.rsplit_once("\n\n").map_or(0, |(_, it)| it.lines().count());
            if lines.saturating_sub(1) <= shown.most() {
                continue;
            }
            let held = self.held(store, stored)?;
            if held.cosigned > shown.most() && self.is_ours(&held.note)? {
                shown.put(Arc::new(held));
            }
        }
        Ok(shown)
    }

    /// What may be shown: nothing, as long as nobody who knows our key would take the newest one.
    pub(super) fn shown(&self) -> Shown {
        if self.is_foreign { Shown::default() } else { self.shown.clone() }
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
        let StoredCheckpoint { number, note, .. } = stored;
        let made = Arc::new(Published { number, head, note, cosigned: 0 });
        self.next = self.next.saturating_add(1);
        // A key may have been revoked since: nobody who knows that would take what it signed.
        let mut shown = Shown::default();
        for one in self.shown.all().iter().filter(|one| self.is_ours(&one.note).unwrap_or(false)) {
            shown.put(Arc::clone(one));
        }
        shown.put(Arc::clone(&made));
        self.shown = shown;
        self.last = Some(Arc::clone(&made));
        self.is_foreign = false;
        Ok(Some(made))
    }

    /// Gives checkpoints the lines that witnesses signed, all of them in one commit; an answer for
    /// each command.
    ///
    /// # Errors
    /// [`CommitError`]: none of it is to be shown to anybody.
    pub(super) fn cosign(
        &mut self,
        store: &mut Store,
        asked: &[&Cosigning],
    ) -> Result<Vec<Result<Cosigned, SequencerError>>, CommitError> {
        // By number, and whether it was given anything.
        let mut named: BTreeMap<u64, (StoredCheckpoint, bool)> = BTreeMap::new();
        let mut answers = Vec::with_capacity(asked.len());
        for cosigning in asked {
            let before = match named.get(&cosigning.number) {
                Some((stored, _)) => Ok(stored.clone()),
                None => store.checkpoint_at(cosigning.number),
            };
            let added = self.add(before, &cosigning.lines);
            answers.push(added.map(|(stored, added)| {
                let (size, note) = (stored.size, stored.note.clone());
                let (kept, has_grown) =
                    named.entry(stored.number).or_insert_with(|| (stored.clone(), false));
                *has_grown |= !added.is_empty();
                *kept = stored;
                Cosigned { size, note, added }
            }));
        }
        let grown = named.values().filter(|(_, has_grown)| *has_grown);
        let grown: Vec<StoredCheckpoint> = grown.map(|(stored, _)| stored.clone()).collect();
        if !grown.is_empty() {
            store.cosign(&grown)?;
        }
        // What had everything before may be older than a start looks back: it is shown again.
        for (stored, _) in named.into_values() {
            self.show(store, stored);
        }
        Ok(answers)
    }

    /// A checkpoint with more lines, and whose they are. Of each witness the first one stays.
    fn add(
        &self,
        stored: Result<StoredCheckpoint, ReadError>,
        lines: &[String],
    ) -> Result<(StoredCheckpoint, Vec<String>), SequencerError> {
        let unavailable = |reason: String| SequencerError::Unavailable { reason };
        let Some(options) = &self.options else {
            return Err(unavailable("no checkpoints are made".to_owned()));
        };
        let mut stored = stored.map_err(|error| unavailable(error.to_string()))?;
        let mut added = Vec::new();
        for line in lines {
            match options.witnesses.add(&stored.note, line) {
                Ok(note) => {
                    stored.note = note;
                    // A line that was added is `mark name signature`.
                    added.push(line.split(' ').nth(1).unwrap_or_default().to_owned());
                }
                Err(CosignatureError::Twice { .. }) => {}
                Err(error) => return Err(SequencerError::Cosign(error)),
            }
        }
        Ok((stored, added))
    }

    /// Shows what is durable of a checkpoint that was given more lines. What cannot be held against
    /// the log is not shown: the next start tells why.
    fn show(&mut self, store: &Store, stored: StoredCheckpoint) {
        let number = stored.number;
        let held = self.held(store, stored).and_then(|held| Ok((self.is_ours(&held.note)?, held)));
        match held {
            Ok((is_ours, held)) => {
                let held = Arc::new(held);
                if is_ours {
                    self.shown.put(Arc::clone(&held));
                }
                if self.last.as_ref().is_some_and(|last| last.number == number) {
                    self.last = Some(held);
                }
            }
            Err(error) => tracing::error!(%error, number, "a checkpoint is not what it was"),
        }
    }
}
