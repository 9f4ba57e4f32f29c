//! The log as static files (C2SP tlog-tiles): which file holds what, and its bytes.
//!
//! A hash tile has up to 256 hashes of one level of the tree, of which every 8th counts: level 0
//! has the leaves' hashes, level 1 those of the subtrees of 256 leaves, and so on. An entry bundle
//! has the leaves themselves. The last of a row may be partial, and is then named by its width.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use tlog_tiles::tlog;

use crate::merkle::MAX_TREE_SIZE;
use crate::{Digest, MAX_LEAF_BYTES};

/// Hashes or leaves of a full tile (C2SP tlog-tiles, "Merkle Tree").
pub const TILE_WIDTH: u16 = 256;
/// Highest level that a tree can have: 256^6 leaves are the most there can be.
pub const MAX_TILE_LEVEL: u8 = 6;
/// Longest path of a tile in bytes; longer ones are not looked at. The longest that is possible,
/// `tile/entries/x001/x099/x511/x627/775.p/255`, has 42.
pub const MAX_TILE_PATH_BYTES: usize = 64;

/// Highest level that the grammar of paths has (C2SP tlog-tiles, "Merkle Tree").
const MAX_WRITTEN_LEVEL: u8 = 63;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;
/// An index is written in groups of three digits.
const GROUP: u64 = 1_000;
/// Binary digits of a level: a full tile has 2^8 hashes.
const LEVEL_BITS: u32 = 8;

/// Why a path names no tile, or bytes are not those of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// It is not the path of a tile.
    #[error(
        "is no path of a tile: {problem}\n\
         hint: paths are `tile/<level>/<index>` and `tile/entries/<index>`, the index as \
         `x001/234`, partial ones followed by `.p/<width>`"
    )]
    Path {
        /// What is wrong.
        problem: &'static str,
    },
    /// A hash tile has another length than its path says.
    #[error("has {found} bytes, but {expected} by its path")]
    Length {
        /// Bytes that it has.
        found: usize,
        /// Bytes that it should have.
        expected: usize,
    },
    /// An entry bundle ends within an entry.
    #[error("ends within its entry {entry}, counted from 0")]
    CutShort {
        /// Which entry of the bundle, from 0.
        entry: u16,
    },
    /// An entry bundle goes on behind its last entry.
    #[error("has {bytes} bytes behind its last entry")]
    Behind {
        /// Bytes that are too many.
        bytes: usize,
    },
    /// An entry has no length that a leaf can have.
    #[error("would have an entry of {bytes} bytes, 1 to {MAX_LEAF_BYTES} are possible")]
    Entry {
        /// Its length.
        bytes: usize,
    },
}

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TileKind {
    /// Hashes of a level: 0..=63, of which a tree has at most [`MAX_TILE_LEVEL`].
    Hashes(u8),
    /// Leaves.
    Entries,
}

/// The name of a tile: which it is, and how much of it. Its text is its path in the log.
///
/// # Example
/// ```
/// use placet_core::tile::{TileKind, TilePath};
/// let path: TilePath = "tile/0/x001/x234/067.p/8".parse()?;
/// assert_eq!((path.kind(), path.index(), path.width()), (TileKind::Hashes(0), 1_234_067, 8));
/// assert!("tile/0/x000/001".parse::<TilePath>().is_err(), "each tile has one path");
/// # Ok::<(), placet_core::tile::TileError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    kind: TileKind,
    index: u64,
    width: u16,
}

impl TilePath {
    /// The tile number `index` (from 0) of a row, `width` wide: 1..=256.
    ///
    /// # Errors
    /// [`TileError::Path`] if no tree has such a tile.
    pub fn new(kind: TileKind, index: u64, width: u16) -> Result<Self, TileError> {
        let problem = match kind {
            TileKind::Hashes(level) if level > MAX_WRITTEN_LEVEL => "its level is above 63",
            TileKind::Hashes(_) | TileKind::Entries if !(1..=TILE_WIDTH).contains(&width) => {
                "its width is not 1 to 256"
            }
            TileKind::Hashes(_) | TileKind::Entries if index >= MAX_TREE_SIZE => {
                "its index is beyond that of any log"
            }
            TileKind::Hashes(_) | TileKind::Entries => return Ok(Self { kind, index, width }),
        };
        Err(TileError::Path { problem })
    }

    /// What it holds.
    #[must_use]
    pub fn kind(self) -> TileKind {
        self.kind
    }

    /// Its number in its row, from 0: below 2^48.
    #[must_use]
    pub fn index(self) -> u64 {
        self.index
    }

    /// Hashes or leaves in it: 1..=256.
    #[must_use]
    pub fn width(self) -> u16 {
        self.width
    }

    /// Whether it is cut off by the end of a tree.
    #[must_use]
    pub fn is_partial(self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The full tile that begins like this one.
    #[must_use]
    pub fn full(self) -> Self {
        Self { width: TILE_WIDTH, ..self }
    }

    /// Whether a tree of `size` leaves has all that is in it.
    #[must_use]
    pub fn is_within(self, size: u64) -> bool {
        self.range().end <= complete(self.level(), size)
    }

    /// Positions of its hashes in their level, or of its leaves in the log.
    #[must_use]
    pub fn range(self) -> Range<u64> {
        let first = self.index.saturating_mul(u64::from(TILE_WIDTH));
        first..first.saturating_add(u64::from(self.width))
    }

    /// Where its hashes are in the row of stored hashes ([`crate::merkle`]), in order; none if it
    /// holds leaves, or if its level is above [`MAX_TILE_LEVEL`], since no tree has it.
    #[must_use]
    pub fn stored(self) -> Vec<u64> {
        match self.kind {
            TileKind::Hashes(level) if self.is_within(MAX_TREE_SIZE) => {
                let height = level.saturating_mul(8);
                self.range().map(|at| tlog::stored_hash_index(height, at)).collect()
            }
            TileKind::Hashes(_) | TileKind::Entries => Vec::new(),
        }
    }

    fn level(self) -> u8 {
        match self.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        }
    }
}

/// Complete subtrees of 256^`level` leaves in a tree of `size` leaves.
fn complete(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level).saturating_mul(LEVEL_BITS)).unwrap_or(0)
}

/// All tiles of a tree of `size` leaves: rows of hashes from level 0 up, then the entry bundles.
/// Of each row all full ones and, at its end, the partial one if there is one.
pub fn tiles(size: u64) -> impl Iterator<Item = TilePath> {
    let kinds = (0..=MAX_TILE_LEVEL).map(TileKind::Hashes).chain([TileKind::Entries]);
    kinds.flat_map(move |kind| {
        let level = TilePath { kind, index: 0, width: 1 }.level();
        let hashes = complete(level, size);
        let width = u64::from(TILE_WIDTH);
        (0..hashes.div_ceil(width)).map(move |index| {
            let left = hashes.saturating_sub(index.saturating_mul(width)).min(width);
            let width = u16::try_from(left).unwrap_or(TILE_WIDTH);
            TilePath { kind, index, width }
        })
    })
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
            TileKind::Entries => f.write_str("tile/entries/")?,
        }
        let (mut above, mut groups) = (self.index / GROUP, Vec::new());
        while above > 0 {
            groups.push(above % GROUP);
            above /= GROUP;
        }
        for group in groups.into_iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", self.index % GROUP)?;
        if self.is_partial() { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

impl FromStr for TilePath {
    type Err = TileError;

    /// Reads a path of a log, without a slash ahead. Every tile has exactly one path.
    fn from_str(path: &str) -> Result<Self, TileError> {
        let wrong = |problem| TileError::Path { problem };
        if path.len() > MAX_TILE_PATH_BYTES {
            return Err(wrong("it is too long"));
        }
        let rest = path.strip_prefix("tile/").ok_or(wrong("it does not begin with `tile/`"))?;
        let (kind, rest) = rest.split_once('/').ok_or(wrong("it has no index"))?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => {
                let level = number(level, 2).and_then(|level| u8::try_from(level).ok());
                TileKind::Hashes(level.ok_or(wrong("its level is not a number of 0 to 63"))?)
            }
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => {
                let width = number(width, 3).and_then(|width| u16::try_from(width).ok());
                let width = width.filter(|width| *width < TILE_WIDTH);
                (index, width.ok_or(wrong("its width is not a number of 1 to 255"))?)
            }
            None => (rest, TILE_WIDTH),
        };
        let mut groups = index.rsplit('/');
        let last = groups.next().and_then(group);
        let mut number = last.ok_or(wrong("its index does not end with three digits"))?;
        let mut weight = GROUP;
        for above in groups {
            let above = above.strip_prefix('x').and_then(group);
            let above = above.ok_or(wrong("a part of its index is not `x` and three digits"))?;
            let above = above.checked_mul(weight).and_then(|above| above.checked_add(number));
            number = above.ok_or(wrong("its index is beyond that of any log"))?;
            weight = weight.saturating_mul(GROUP);
        }
        let tile = Self::new(kind, number, width)?;
        // What is left are zeros ahead of the index.
        if tile.to_string() == path { Ok(tile) } else { Err(wrong("its index has zeros ahead")) }
    }
}

/// A decimal number without zeros ahead, of at most so many digits.
fn number(text: &str, most: usize) -> Option<u64> {
    let is_plain = (1..=most).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// Three digits.
fn group(text: &str) -> Option<u64> {
    let is_group = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_group)
}

/// The bytes of a hash tile: its hashes, one behind the other.
#[must_use]
pub fn write_hashes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Reads a hash tile of `width` hashes.
///
/// # Errors
/// [`TileError::Length`].
pub fn read_hashes(bytes: &[u8], width: u16) -> Result<Vec<Digest>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if hashes.len() != usize::from(width) || !rest.is_empty() {
        let expected = usize::from(width).saturating_mul(HASH_BYTES);
        return Err(TileError::Length { found: bytes.len(), expected });
    }
    Ok(hashes.iter().copied().map(Digest::from_bytes).collect())
}

/// The bytes of an entry bundle: before each leaf its length, 16 bits, the highest byte first.
///
/// # Errors
/// [`TileError::Entry`]: a leaf is empty or too long.
pub fn write_entries<L: AsRef<[u8]>>(leaves: &[L]) -> Result<Vec<u8>, TileError> {
    let bytes = leaves.iter().map(|leaf| leaf.as_ref().len().saturating_add(2)).sum();
    let mut bundle = Vec::with_capacity(bytes);
    for leaf in leaves {
        let leaf = leaf.as_ref();
        let length = u16::try_from(leaf.len()).ok().filter(|length| *length > 0);
        let length = length.ok_or(TileError::Entry { bytes: leaf.len() })?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(leaf);
    }
    Ok(bundle)
}

/// Reads an entry bundle of `width` leaves.
///
/// # Errors
/// [`TileError`]: it ends too early or too late, or a leaf is empty.
pub fn read_entries(mut bytes: &[u8], width: u16) -> Result<Vec<&[u8]>, TileError> {
    let mut leaves = Vec::new();
    for entry in 0..width {
        let cut = TileError::CutShort { entry };
        let (length, rest) = bytes.split_first_chunk::<2>().ok_or(cut.clone())?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(TileError::Entry { bytes: 0 });
        }
        let (leaf, rest) = rest.split_at_checked(length).ok_or(cut)?;
        leaves.push(leaf);
        bytes = rest;
    }
    if bytes.is_empty() { Ok(leaves) } else { Err(TileError::Behind { bytes: bytes.len() }) }
}
