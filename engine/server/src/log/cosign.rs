//! What a witness signed, held against what was published: before the writer is asked to add it.

use std::collections::BTreeSet;

use placet_core::merkle::TreeError;
use placet_core::{
    Checkpoint, CheckpointError, Cosignature, CosignatureError, MAX_CHECKPOINT_BYTES,
    MAX_WITNESSES, merkle,
};

use crate::sequencer::Cosigning;
use crate::store::{CheckpointOptions, ReadError, Reader};

/// Most signature lines of a note that is submitted: as many as a checkpoint can have, and as many
/// of strangers.
const MAX_LINES: usize = 2 * MAX_WITNESSES;
/// Most strangers that an error names: each has at most 64 characters.
const MAX_NAMED: usize = 8;
/// Seconds by which the clock of a witness may be ahead of ours: far above what clocks differ by
/// that are set at all. A later time would let an old checkpoint pass for a fresh one.
const MAX_AHEAD_SECONDS: u64 = 300;

/// What was submitted, found good.
#[derive(Debug)]
pub(crate) struct Checked {
    /// For the writer.
    pub(crate) cosigning: Cosigning,
    /// Names on lines of nobody known, cut to a printable length.
    pub(crate) passed_over: Vec<String>,
}

/// Why nothing of it is added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CosignError {
    /// No such note can be a checkpoint.
    #[error("has {0} bytes, at most {MAX_CHECKPOINT_BYTES}")]
    TooLarge(usize),
    /// There is too much to look at.
    #[error("has {0} signature lines, at most {MAX_LINES}")]
    Lines(usize),
    /// It is not of the form.
    #[error(transparent)]
    Note(CheckpointError),
    /// It is of another log.
    #[error("is a checkpoint of another log, not of `{0}`")]
    OtherLog(String),
    /// It was never published, and nothing says that somebody else was shown it.
    #[error("is no checkpoint that this log published: {0}")]
    NeverPublished(&'static str),
    /// A witness vouches for what no key of ours signed.
    #[error(
        "is a checkpoint of {size} leaves with the root {theirs}, which `{witness}` cosigned \
         although no key of this log signed it"
    )]
    Invented {
        /// Leaves.
        size: u64,
        /// The root that it names.
        theirs: String,
        /// Who vouches for it.
        witness: String,
    },
    /// A key of ours vouches for a log that is not ours.
    #[error(
        "is a checkpoint of {size} leaves with the root {theirs}, which {key} signed, but {ours}: \
         two histories of one log"
    )]
    Fork {
        /// Leaves.
        size: u64,
        /// The root that it names.
        theirs: String,
        /// Which key vouches for it.
        key: &'static str,
        /// What this log has there.
        ours: String,
    },
    /// A line of a known witness does not match.
    #[error(transparent)]
    Cosignature(CosignatureError),
    /// No line is of a witness that is known.
    #[error("has no cosignature of a witness that this server knows{}", listed(.0))]
    Unknown(Vec<String>),
    /// The witness signed in the future.
    #[error("was cosigned by `{witness}` at {time}, but it is {now} here")]
    Ahead {
        /// Which witness.
        witness: String,
        /// When by its clock, in seconds since 1970-01-01 UTC.
        time: u64,
        /// When by ours.
        now: u64,
    },
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[source] ReadError),
}

impl From<ReadError> for CosignError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => {
            let shown = names.get(..MAX_NAMED).unwrap_or(names).join("`, `");
            let more = if names.len() > MAX_NAMED { " and others" } else { "" };
            format!(": only of `{shown}`{more}")
        }
    }
}

/// Checks a signed note against the checkpoint that was published, and each of its lines against
/// the witnesses, when it is `now`, in seconds since 1970-01-01 UTC. Blocks.
///
/// # Errors
/// [`CosignError`].
pub(crate) fn check(
    reader: &Reader,
    options: &CheckpointOptions,
    note: &str,
    now: u64,
) -> Result<Checked, CosignError> {
    if note.len() > MAX_CHECKPOINT_BYTES {
        return Err(CosignError::TooLarge(note.len()));
    }
    let read = Checkpoint::read_unverified(note).map_err(CosignError::Note)?;
    let (text, lines) = parts(note);
    let count = lines.lines().count();
    if count > MAX_LINES {
        return Err(CosignError::Lines(count));
    }
    let stored = match reader.checkpoint_of(read.size)? {
        Some(stored) if parts(&stored.note).0 == text => stored,
        Some(_) | None => return Err(not_ours(reader, options, note, &read)?),
    };
    // As it will be, to find what is wrong before the writer is asked.
    let (mut grown, mut known, mut passed_over) = (stored.note.clone(), Vec::new(), Vec::new());
    let (mut added, mut had) = (Vec::new(), BTreeSet::new());
    for line in lines.lines() {
        match options.witnesses.add(&grown, line) {
            Ok(next) => {
                grown = next;
                // A line that can be added is `mark name signature`.
                added.push(line.split(' ').nth(1).unwrap_or_default());
                known.push(line.to_owned());
            }
            // Of a witness the first one stays: the writer need not look at it often.
            Err(CosignatureError::Twice { name }) => {
                if !added.contains(&name.as_str()) && had.insert(name) {
                    known.push(line.to_owned());
                }
            }
            // The log's own lines are no news.
            Err(CosignatureError::Unknown { name }) => {
                if !stored.note.lines().any(|own| own == line) && !passed_over.contains(&name) {
                    passed_over.push(name);
                }
            }
            Err(error) => return Err(CosignError::Cosignature(error)),
        }
    }
    if known.is_empty() {
        return Err(CosignError::Unknown(passed_over));
    }
    let latest = now.saturating_add(MAX_AHEAD_SECONDS);
    let signed = options.witnesses.cosignatures(&grown).map_err(CosignError::Cosignature)?;
    // What is stored was looked at when it came: clocks may have been set since.
    let is_ahead = |one: &Cosignature| one.time > latest && added.contains(&one.witness.as_str());
    if let Some(ahead) = signed.into_iter().find(is_ahead) {
        return Err(CosignError::Ahead { witness: ahead.witness, time: ahead.time, now });
    }
    let cosigning = Cosigning { number: stored.number, lines: known };
    Ok(Checked { cosigning, passed_over })
}

/// The text of a note, and its signature lines.
fn parts(note: &str) -> (&str, &str) {
    note.rsplit_once("\n\n").unwrap_or((note, ""))
}

/// Why a checkpoint is none that was published.
fn not_ours(
    reader: &Reader,
    options: &CheckpointOptions,
    note: &str,
    read: &Checkpoint,
) -> Result<CosignError, ReadError> {
    let Some(newest) = reader.checkpoint()? else {
        return Ok(CosignError::NeverPublished("it has published none"));
    };
    let origin = newest.note.lines().next().unwrap_or_default();
    if read.origin != origin {
        return Ok(CosignError::OtherLog(origin.to_owned()));
    }
    let size = read.size;
    let root = match size <= reader.size()? {
        true => match merkle::root(size, |numbers| reader.hashes(numbers)) {
            Ok(root) => Some(root),
            Err(TreeError::Store(error)) => return Err(error),
            Err(_other) => {
                return Err(ReadError::Damaged("the hashes of the tree have no root"));
            }
        },
        false => None,
    };
    if root == Some(read.root) {
        return Ok(CosignError::NeverPublished(
            "it has that root, but another text there, or made no checkpoint of as many leaves",
        ));
    }
    // What was changed on its way convinces nobody: the key has to have signed it, or a witness has
    // to have seen that it did.
    let theirs = read.root.to_string();
    let signer = &options.signer;
    let key = match (signer.signed(note, origin), signer.ever_signed(note, origin)) {
        (Ok(true), _) => "the key of this log",
        (_, Ok(true)) => "a revoked key of this log",
        _ => {
            let cosigned = options.witnesses.cosignatures(note).unwrap_or_default();
            let Some(first) = cosigned.into_iter().next() else {
                let what = "it has another root or no leaf there, and no key of this log signed it";
                return Ok(CosignError::NeverPublished(what));
            };
            let invented = CosignError::Invented { size, theirs, witness: first.witness };
            tracing::error!(error = %invented, "a checkpoint");
            return Ok(invented);
        }
    };
    let ours = match root {
        Some(root) => format!("this log has the root {root} there"),
        None => format!("this log has {} leaves", reader.size()?),
    };
    let fork = CosignError::Fork { size, theirs, key, ours };
    tracing::error!(error = %fork, "a checkpoint");
    Ok(fork)
}
