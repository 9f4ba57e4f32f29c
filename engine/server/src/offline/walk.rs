//! Checking a whole log with public keys alone, on all cores.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use placet_core::{
    CheckedLeaf, Checkpoint, CheckpointError, KeySet, LeafChecker, LeafError, LogWalk, Verifier,
    VerifyingKey, WalkError, Walked,
};

use super::source::{LogSource, SourceError, StoredTree, TreeFault};

/// Batches of leaves that wait for their turn, for each thread: enough that none stands still while
/// the one ahead is slower.
const WAITING_PER_THREAD: usize = 4;
/// Most threads that check leaves: more than a disk can feed.
const MAX_THREADS: usize = 64;

/// Why a log is not what its issuer published, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogVerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its newest checkpoint is none, or of another log or key.
    #[error("its newest checkpoint cannot be trusted")]
    Checkpoint(#[source] CheckpointError),
    /// It is not what was published.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// What is stored of the tree is not the hash of a leaf.
    #[error(
        "leaf {position} is not what was logged: its hash is not the one that is stored for it"
    )]
    Changed {
        /// Its place, from 0.
        position: u64,
    },
    /// What is stored of the tree is not that of its leaves.
    #[error(
        "the stored hash of the leaves from {} up to {} is not theirs", .leaves.start, .leaves.end
    )]
    Hash {
        /// Their places, from 0.
        leaves: Range<u64>,
    },
    /// A thread that checked leaves ended before its work did.
    #[error("a thread that checked leaves has died")]
    Died,
    /// No thread could be started.
    #[error("no thread can be started")]
    Threads(#[source] std::io::Error),
}

/// Whose log it should be, and what is known of it from elsewhere.
#[derive(Debug)]
pub struct LogExpect {
    /// Name of the log, in its genesis and its checkpoints.
    pub origin: String,
    /// The keys of its checkpoints: more than one if it has been replaced.
    pub keys: Vec<VerifyingKey>,
    /// The keys of its decisions.
    pub decisions: Verifier,
    /// Issuer of its decisions.
    pub issuer: String,
    /// The keys of all who ever approved waivers and freezes; without, their signatures are not
    /// checked.
    pub approvers: Option<KeySet>,
    /// Checkpoints that were seen before, signed notes: the log must continue each of them.
    pub seen: Vec<Checkpoint>,
}

/// Threads that check leaves if nothing else is asked for: one for each core.
#[must_use]
pub fn default_threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS)
}

/// Checks a log from its first leaf to its last: that each leaf is well-formed, what is signed in
/// it, the hashes that are stored, the newest checkpoint, and that the log continues every
/// checkpoint that was seen. `done` is told now and then how many leaves have been checked.
///
/// Needs memory for some thousand leaves, however long the log is.
///
/// # Errors
/// [`LogVerifyError`] names the first thing that is wrong, and where.
pub fn verify_log(
    source: &LogSource,
    expect: LogExpect,
    threads: usize,
    mut done: impl FnMut(u64),
) -> Result<Walked, LogVerifyError> {
    let LogExpect { origin, keys, decisions, issuer, approvers, seen } = expect;
    let newest = Checkpoint::verify_any(source.checkpoint()?, &origin, &keys);
    let newest = newest.map_err(LogVerifyError::Checkpoint)?;
    let checker = LeafChecker::new(decisions, issuer);
    let checker = match approvers {
        Some(keys) => checker.with_approvers(keys),
        None => checker,
    };
    let mut walk = LogWalk::new(origin, seen.into_iter().chain([newest]))?;
    let mut stored = StoredTree::of(source);
    let threads = threads.clamp(1, MAX_THREADS);
    let walked = thread::scope(|scope| {
        // A thread has every so manieth batch, and a channel of its own: so they come in order, and
        // none is far ahead of the others.
        let mut receivers = Vec::with_capacity(threads);
        for (number, first) in (0..threads).zip(0..) {
            let (send, receive) = sync_channel(WAITING_PER_THREAD);
            let checker = &checker;
            thread::Builder::new()
                .name(format!("placet-check-{number}"))
                .spawn_scoped(scope, move || {
                    check_batches(source, checker, (first, threads), &send)
                })
                .map_err(LogVerifyError::Threads)?;
            receivers.push(receive);
        }
        // Dropped at the first error, which ends the threads.
        let batches = usize::try_from(source.batches()).unwrap_or(usize::MAX);
        for receive in receivers.iter().cycle().take(batches) {
            let batch = receive.recv().map_err(|_died| LogVerifyError::Died)?;
            for leaf in batch? {
                let position = walk.size();
                let leaf = leaf.map_err(|source| WalkError::Leaf { position, source })?;
                let hashes = walk.push(leaf)?;
                stored.push(position, &hashes).map_err(LogVerifyError::of)?;
            }
            done(walk.size());
        }
        Ok::<(), LogVerifyError>(())
    });
    walked?;
    Ok(walk.finish()?)
}

impl LogVerifyError {
    fn of(fault: TreeFault) -> Self {
        match fault {
            TreeFault::Leaf(position) => Self::Changed { position },
            TreeFault::Subtree(leaves) => Self::Hash { leaves },
            TreeFault::Source(source) => Self::Source(source),
        }
    }
}

/// Leaves that were checked, in their order, or why they could not be read.
type Batch = Result<Vec<Result<CheckedLeaf, LeafError>>, SourceError>;

/// Reads and checks batches, each `step` after the one before, until there are no more or nobody
/// wants them.
fn check_batches(
    source: &LogSource,
    checker: &LeafChecker,
    (first, step): (u64, usize),
    to: &SyncSender<Batch>,
) {
    for batch in (first..source.batches()).step_by(step) {
        let checked: Batch = source
            .batch(batch)
            .map(|leaves| leaves.iter().map(|leaf| checker.check(leaf)).collect());
        let is_last = checked.is_err();
        if to.send(checked).is_err() || is_last {
            return;
        }
    }
}
