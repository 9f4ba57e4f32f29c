//! Erasing the personal values of one person: by a server, or in a store that nobody has open.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use placet_core::{Event, Id};
use placet_proto::FieldError;

use crate::error::AdmitError;
use crate::grpc::convert;
use crate::log::read_claims;
use crate::sequencer::{Erase, MAX_ERASED, SequencerHandle};
use crate::store::{CommitError, OpenError, ReadError, Reader, Store, StoreOptions};
use crate::workers::SUBJECT_PATH;

/// Positions of one search: as many rows are read before others may have the thread, and at most
/// as many are found.
const SEARCHED: u64 = 65_536;
/// How often, and after which pause each, is tried to empty the write-ahead log before whoever
/// asked is told that the server goes on trying: together 5 seconds, longer than reading a page of
/// the log takes.
const PURGE_TRIES: (usize, Duration) = (50, Duration::from_millis(100));

/// Whose values are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    subject: String,
    tenant: Option<Id>,
}

impl Person {
    /// Somebody as requests name them in `principal.subject`, 1..=256 bytes; of one tenant, or of
    /// all if that is empty.
    ///
    /// # Errors
    /// [`FieldError`] names the field: no request could have it.
    pub fn new(subject: &str, tenant: &str) -> Result<Self, FieldError> {
        convert::check_subject(subject)?;
        let tenant = match tenant {
            "" => None,
            tenant => Some(convert::id("tenant_id", tenant.to_owned())?),
        };
        Ok(Self { subject: subject.to_owned(), tenant })
    }

    /// Positions in a range of the log of the decisions whose values are kept.
    fn positions(&self, reader: &Reader, range: Range<u64>) -> Result<Vec<u64>, ReadError> {
        let named = reader.personal_of((SUBJECT_PATH, &self.subject), range)?;
        let Some(tenant) = &self.tenant else { return Ok(named) };
        let mut found = Vec::new();
        for position in named {
            if tenant_of(reader, position)? == *tenant {
                found.push(position);
            }
        }
        Ok(found)
    }
}

/// The tenant of the decision at a position.
fn tenant_of(reader: &Reader, position: u64) -> Result<Id, ReadError> {
    let Event::Decision { token, .. } = reader.leaf(position)?.event else {
        return Err(ReadError::Damaged("a personal value is that of no decision"));
    };
    let decision = read_claims(&token)
        .map_err(|_malformed| ReadError::Damaged("the claims of a decision cannot be read"))?;
    Ok(decision.tenant_id)
}

/// What was erased, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// Decisions whose values it was.
    pub decisions: u64,
    /// Leaves that were looked at.
    pub size: u64,
    /// Whether the write-ahead log beside the store still has them, because somebody reads by it.
    pub is_pending: bool,
}

/// Why values were not erased. Some may be: to erase them again changes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// The store cannot be opened, or somebody has it open.
    #[error(transparent)]
    Open(OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not erase them.
    #[error("the store did not erase everything\nhint: run it again")]
    Commit(#[source] CommitError),
}

/// Erases the values of a person in a store that no server has open, such as a backup. Its log
/// stays as it is, so that it goes on being a copy. Blocks.
///
/// # Errors
/// [`EraseError`].
pub fn erase_personal(path: &Path, person: &Person, dry_run: bool) -> Result<Erased, EraseError> {
    // It must be there: opening would make it.
    drop(Reader::open(path).map_err(EraseError::Open)?);
    let mut store = Store::open(path, StoreOptions::default()).map_err(EraseError::Open)?;
    let (reader, size) = (store.reader(), store.size()?);
    let mut decisions = 0_u64;
    for range in searches(size) {
        let found = person.positions(&reader, range)?;
        decisions = decisions.saturating_add(count(&found));
        if !dry_run {
            for some in found.chunks(MAX_ERASED) {
                store.erase(some).map_err(EraseError::Commit)?;
            }
        }
    }
    let is_pending = !dry_run && !store.purge()?;
    Ok(Erased { decisions, size, is_pending })
}

/// Erases the values of a person, through the writer, and logs that it was asked for by `caller`.
/// `time` is when.
///
/// # Errors
/// [`AdmitError`]: some may be erased.
pub(crate) async fn erase(
    sequencer: &SequencerHandle,
    (caller, time): (&Id, impl Fn() -> u64),
    person: &Person,
    dry_run: bool,
) -> Result<Erased, AdmitError> {
    let size = sequencer.size();
    // Found, and not yet erased: as many as may be of one leaf are.
    let (mut decisions, mut all) = (0_u64, Vec::new());
    for range in searches(size) {
        let end = range.end;
        let (reader, person) = (sequencer.reader(), person.clone());
        let found = tokio::task::spawn_blocking(move || person.positions(&reader, range)).await;
        let found = found.map_err(AdmitError::internal)?.map_err(AdmitError::log_not_read)?;
        if dry_run {
            decisions = decisions.saturating_add(count(&found));
            continue;
        }
        all.extend(found);
        let is_last = end == size;
        while all.len() >= MAX_ERASED || (is_last && !all.is_empty()) {
            let positions = all.drain(..all.len().min(MAX_ERASED)).collect();
            let erase = Erase { caller: caller.clone(), positions, time: time() };
            let erased = sequencer.erase(erase).await.map_err(AdmitError::not_erased)?;
            decisions = decisions.saturating_add(erased);
        }
    }
    let is_pending = !dry_run && !purge(sequencer).await?;
    Ok(Erased { decisions, size, is_pending })
}

/// Empties the write-ahead log: false if somebody reads by it all the time.
async fn purge(sequencer: &SequencerHandle) -> Result<bool, AdmitError> {
    let (tries, pause) = PURGE_TRIES;
    for _ in 0..tries {
        if sequencer.purge().await.map_err(AdmitError::not_erased)? {
            return Ok(true);
        }
        tokio::time::sleep(pause).await;
    }
    Ok(false)
}

fn searches(size: u64) -> impl Iterator<Item = Range<u64>> {
    let starts = std::iter::successors(Some(0), |start: &u64| start.checked_add(SEARCHED));
    let starts = starts.take_while(move |start| *start < size);
    starts.map(move |start| start..start.saturating_add(SEARCHED).min(size))
}

fn count(found: &[u64]) -> u64 {
    u64::try_from(found.len()).expect("a search finds far fewer than 2^64")
}
