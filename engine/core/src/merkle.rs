//! The Merkle tree of the log (RFC 6962 §2.1), its stored hashes and its proofs.
//!
//! A log of `n` leaves keeps every hash of a complete subtree, in one dense row: [`stored_count`]
//! of them. Appending a leaf adds one or more at the end of the row, two on average, and needs at
//! most [`MAX_DEPTH`] older ones. Whoever keeps the row gives a function that reads positions of
//! it; this module asks for all that it needs in one call.

use std::cell::RefCell;

use tlog_tiles::tlog;

use crate::Digest;

/// Most leaves of a tree: 2^48, nine years of a million decisions a second.
pub const MAX_TREE_SIZE: u64 = 1 << 48;
/// Most hashes of an inclusion proof, and most older hashes that appending needs.
pub const MAX_DEPTH: usize = 48;

/// Why a hash, a root or a proof was not computed. `E` is the error of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError<E> {
    /// The sizes or positions asked for do not exist.
    #[error("asks for {what}, which is not possible")]
    Range {
        /// What was asked.
        what: &'static str,
    },
    /// The store could not read stored hashes.
    #[error("the stored hashes could not be read")]
    Store(#[source] E),
    /// The store answered with another number of hashes than asked for.
    #[error("{asked} stored hashes were asked for and {got} came")]
    Answer {
        /// How many were asked for.
        asked: usize,
        /// How many came.
        got: usize,
    },
}

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The sizes or the position do not exist.
    #[error("names sizes or a position that are not possible")]
    Range,
    /// It does not lead to the root.
    #[error("does not lead to the root")]
    Mismatch,
}

/// Hash of a leaf: SHA-256 over 0x00 and its bytes (RFC 6962 §2.1).
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], leaf])
}

/// Root of the tree without leaves: SHA-256 of nothing (RFC 6962 §2.1).
#[must_use]
pub fn empty_root() -> Digest {
    Digest::of(b"")
}

/// Stored hashes of a tree of `size` leaves: the length of the row. 0..=2^49.
///
/// # Errors
/// [`TreeError::Range`] if `size` is above [`MAX_TREE_SIZE`].
pub fn stored_count(size: u64) -> Result<u64, TreeError<std::convert::Infallible>> {
    if size > MAX_TREE_SIZE {
        return Err(TreeError::Range { what: "a tree above 2^48 leaves" });
    }
    Ok(tlog::stored_hash_count(size))
}

/// The hashes to store when a leaf is appended to a tree of `size` leaves: 1 to 49, the leaf's own
/// first.
///
/// They go to the end of the row, from position [`stored_count`] of `size` on.
///
/// # Errors
/// [`TreeError`]: the tree is full, or `read` failed.
pub fn append<E>(
    size: u64,
    leaf: Digest,
    read: impl FnMut(&[u64]) -> Result<Vec<Digest>, E>,
) -> Result<Vec<Digest>, TreeError<E>> {
    if size >= MAX_TREE_SIZE {
        return Err(TreeError::Range { what: "a tree above 2^48 leaves" });
    }
    let hash = tlog::Hash(*leaf.as_bytes());
    Reader::run(read, |reader| tlog::stored_hashes_for_record_hash(size, hash, reader)).map(digests)
}

/// Root of the tree of the first `size` leaves. The row may be longer than that tree's.
///
/// # Errors
/// [`TreeError`]: `size` is not possible, or `read` failed.
pub fn root<E>(
    size: u64,
    read: impl FnMut(&[u64]) -> Result<Vec<Digest>, E>,
) -> Result<Digest, TreeError<E>> {
    if size > MAX_TREE_SIZE {
        return Err(TreeError::Range { what: "a tree above 2^48 leaves" });
    }
    Reader::run(read, |reader| tlog::tree_hash(size, reader)).map(|hash| Digest::from_bytes(hash.0))
}

/// Leaves and root of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Leaves: 0..=2^48.
    pub size: u64,
    /// Root of their tree (RFC 6962 §2.1).
    pub root: Digest,
}

/// A tree as far as appending and its root need it: the hashes of the largest complete subtrees. A
/// log of any length is walked with one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// Length of the row of stored hashes.
    row: u64,
    /// Number in the row and hash of each complete subtree, the largest first: one for each bit of
    /// `size`.
    peaks: Vec<(u64, Digest)>,
}

/// A peak was asked for that there is none of.
#[derive(Debug)]
struct NoPeak;

impl Tree {
    /// The tree of the first `size` leaves, and its root. The row may be longer than that tree's.
    ///
    /// # Errors
    /// [`TreeError`]: `size` is not possible, or `read` failed.
    pub fn at<E>(
        size: u64,
        mut read: impl FnMut(&[u64]) -> Result<Vec<Digest>, E>,
    ) -> Result<(Self, Digest), TreeError<E>> {
        let mut peaks = Vec::new();
        let root = root(size, |numbers| {
            let found = read(numbers)?;
            peaks.extend(numbers.iter().copied().zip(found.iter().copied()));
            Ok(found)
        })?;
        Ok((Self { size, row: tlog::stored_hash_count(size), peaks }, root))
    }

    /// Leaves: 0..=2^48.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Length of the row of stored hashes: [`stored_count`] of the size.
    #[must_use]
    pub fn row(&self) -> u64 {
        self.row
    }

    /// Number in the row and hash of each of the largest complete subtrees, the largest first.
    #[must_use]
    pub fn peaks(&self) -> &[(u64, Digest)] {
        &self.peaks
    }

    /// Appends a leaf by its hash; gives the hashes to store, from the [`Tree::row`] as it was on.
    ///
    /// # Errors
    /// [`TreeError::Range`]: the tree is full. Then nothing has changed.
    ///
    /// # Panics
    /// Never: a tree has all that appending needs.
    pub fn append(
        &mut self,
        leaf: Digest,
    ) -> Result<Vec<Digest>, TreeError<std::convert::Infallible>> {
        if self.size >= MAX_TREE_SIZE {
            return Err(TreeError::Range { what: "a tree above 2^48 leaves" });
        }
        let hashes = append(self.size, leaf, |numbers| self.read(numbers))
            .expect("appending needs the peaks of a tree only");
        // Every hash after the leaf's own completes a subtree out of one peak and what was before
        // it.
        let kept = self.peaks.len().saturating_sub(hashes.len().saturating_sub(1));
        self.peaks.truncate(kept);
        self.size = self.size.saturating_add(1);
        self.row = tlog::stored_hash_count(self.size);
        if let Some(last) = hashes.last() {
            self.peaks.push((self.row.saturating_sub(1), *last));
        }
        Ok(hashes)
    }

    /// Leaves and root.
    ///
    /// # Panics
    /// Never: a tree has all that its root needs.
    #[must_use]
    pub fn head(&self) -> Head {
        let root = root(self.size, |numbers| self.read(numbers))
            .expect("the root of a tree needs its peaks only");
        Head { size: self.size, root }
    }

    fn read(&self, numbers: &[u64]) -> Result<Vec<Digest>, NoPeak> {
        let peak = |number: &u64| {
            let peak = self.peaks.iter().find(|(own, _)| own == number);
            peak.map(|(_, hash)| *hash).ok_or(NoPeak)
        };
        numbers.iter().map(peak).collect()
    }
}

/// Proof that a leaf is in a tree (RFC 6962 §2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The hashes beside the way from the leaf to the root, the lowest first: at most 48.
    pub hashes: Vec<Digest>,
}

impl InclusionProof {
    /// Proves the leaf at `position` (from 0) of the tree of `size` leaves.
    ///
    /// # Errors
    /// [`TreeError`]: the position is not in the tree, or `read` failed.
    pub fn new<E>(
        position: u64,
        size: u64,
        read: impl FnMut(&[u64]) -> Result<Vec<Digest>, E>,
    ) -> Result<Self, TreeError<E>> {
        if size > MAX_TREE_SIZE || position >= size {
            return Err(TreeError::Range { what: "a leaf that is not in the tree" });
        }
        let hashes = Reader::run(read, |reader| tlog::prove_record(size, position, reader))?;
        Ok(Self { hashes: digests(hashes) })
    }

    /// Checks that the tree of `size` leaves under `root` has, at `position` (from 0), the leaf
    /// with hash `leaf`.
    ///
    /// # Errors
    /// [`ProofError`] if it does not follow.
    pub fn verify(
        &self,
        position: u64,
        size: u64,
        root: Digest,
        leaf: Digest,
    ) -> Result<(), ProofError> {
        if size > MAX_TREE_SIZE || position >= size {
            return Err(ProofError::Range);
        }
        if self.hashes.len() > MAX_DEPTH {
            return Err(ProofError::Mismatch);
        }
        let (root, leaf) = (tlog::Hash(*root.as_bytes()), tlog::Hash(*leaf.as_bytes()));
        match tlog::check_record(&hashes(&self.hashes), size, root, position, leaf) {
            Ok(()) => Ok(()),
            Err(_) => Err(ProofError::Mismatch),
        }
    }
}

/// Hashes of the proof that the leaf at `position` (from 0) is in a tree of `size` leaves: 0..=48,
/// and 0 where there is no such leaf.
///
/// Where the ways of this leaf and of the last one are apart, each level has a hash beside it;
/// above that only the levels that have something to the left of the way do (RFC 9162 §2.1.3).
#[must_use]
pub fn inclusion_hashes(position: u64, size: u64) -> usize {
    let Some(last) = size.checked_sub(1).filter(|last| position <= *last) else { return 0 };
    let apart = u64::BITS - (position ^ last).leading_zeros();
    let above = position.checked_shr(apart).unwrap_or_default().count_ones();
    usize::try_from(apart.saturating_add(above)).unwrap_or(usize::MAX)
}

/// Proof that a tree only grew (RFC 6962 §2.1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The hashes from which both roots follow: at most 49.
    pub hashes: Vec<Digest>,
}

impl ConsistencyProof {
    /// Proves that the tree of `new` leaves begins with that of `old` leaves, 1 or more.
    ///
    /// # Errors
    /// [`TreeError`]: the sizes are not possible, or `read` failed.
    pub fn new<E>(
        old: u64,
        new: u64,
        read: impl FnMut(&[u64]) -> Result<Vec<Digest>, E>,
    ) -> Result<Self, TreeError<E>> {
        if new > MAX_TREE_SIZE || old == 0 || old > new {
            return Err(TreeError::Range { what: "trees of which one does not begin the other" });
        }
        let hashes = Reader::run(read, |reader| tlog::prove_tree(new, old, reader))?;
        Ok(Self { hashes: digests(hashes) })
    }

    /// Checks that the tree `new` (leaves and root) begins with the tree `old`.
    ///
    /// # Errors
    /// [`ProofError`] if it does not follow.
    pub fn verify(&self, old: (u64, Digest), new: (u64, Digest)) -> Result<(), ProofError> {
        if new.0 > MAX_TREE_SIZE || old.0 == 0 || old.0 > new.0 {
            return Err(ProofError::Range);
        }
        if self.hashes.len() > MAX_DEPTH + 1 {
            return Err(ProofError::Mismatch);
        }
        let (old_root, new_root) = (tlog::Hash(*old.1.as_bytes()), tlog::Hash(*new.1.as_bytes()));
        match tlog::check_tree(&hashes(&self.hashes), new.0, new_root, old.0, old_root) {
            Ok(()) => Ok(()),
            Err(_) => Err(ProofError::Mismatch),
        }
    }
}

fn digests(hashes: Vec<tlog::Hash>) -> Vec<Digest> {
    hashes.into_iter().map(|hash| Digest::from_bytes(hash.0)).collect()
}

fn hashes(digests: &[Digest]) -> Vec<tlog::Hash> {
    digests.iter().map(|digest| tlog::Hash(*digest.as_bytes())).collect()
}

/// Carries the store's own error past the library, whose errors have no room for it.
struct Reader<F, E> {
    read: RefCell<F>,
    failure: RefCell<Option<TreeError<E>>>,
}

impl<F, E> Reader<F, E>
where
    F: FnMut(&[u64]) -> Result<Vec<Digest>, E>,
{
    fn run<T>(
        read: F,
        compute: impl FnOnce(&Self) -> Result<T, tlog::Error>,
    ) -> Result<T, TreeError<E>> {
        let reader = Self { read: RefCell::new(read), failure: RefCell::new(None) };
        match compute(&reader) {
            Ok(value) => Ok(value),
            Err(_) => Err(reader.failure.into_inner().unwrap_or(TreeError::Range {
                what: "what the checks before should have refused",
            })),
        }
    }
}

impl<F, E> tlog::HashReader for Reader<F, E>
where
    F: FnMut(&[u64]) -> Result<Vec<Digest>, E>,
{
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        if indexes.is_empty() {
            return Ok(Vec::new());
        }
        let failure = match (self.read.borrow_mut())(indexes) {
            Ok(found) if found.len() == indexes.len() => return Ok(hashes(&found)),
            Ok(found) => TreeError::Answer { asked: indexes.len(), got: found.len() },
            Err(error) => TreeError::Store(error),
        };
        *self.failure.borrow_mut() = Some(failure);
        Err(tlog::Error::IndexesNotInTree)
    }
}
