//! What a log is read from to be checked: the file of a store, or a directory of static files.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use placet_core::tile::{
    MAX_TILE_LEVEL, TILE_WIDTH, TileError, TileKind, TilePath, read_entries, read_hashes,
};
use placet_core::{Digest, MAX_CHECKPOINT_BYTES, MAX_LEAF_BYTES};

use crate::store::{OpenError, ReadError, Reader};

/// Name of the checkpoint's file, as its path under the log's prefix (C2SP tlog-tiles).
pub(super) const CHECKPOINT: &str = "checkpoint";
/// Leaves of one read: four entry bundles, so that some megabytes are in memory at a time.
const LEAVES_AT_ONCE: u64 = 4 * TILE_WIDTH as u64;
/// Longest file of a log: an entry bundle whose leaves are as long as can be, each with its length.
const MAX_FILE_BYTES: u64 = TILE_WIDTH as u64 * (MAX_LEAF_BYTES as u64 + 2);

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The store cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// The store cannot be read, or what is in it is not what was written.
    #[error("the leaves from {position} on cannot be read")]
    Read {
        /// The first of them, from 0.
        position: u64,
        /// Why.
        source: ReadError,
    },
    /// There are fewer leaves than the last has before it.
    #[error("a leaf is missing: there are {after} from the first on without a gap, or fewer")]
    Missing {
        /// How many there are before the gap, or more.
        after: u64,
    },
    /// A file cannot be read.
    #[error("`{path}` cannot be read")]
    File {
        /// The file, under the directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("`{path}` is not what its name says")]
    Tile {
        /// The file, under the directory.
        path: String,
        /// What is wrong with it.
        #[source]
        source: TileError,
    },
    /// A file is too long for what it should be.
    #[error("`{path}` is longer than any such file: at most {most} bytes")]
    TooLong {
        /// The file, under the directory.
        path: String,
        /// Most bytes that it can have.
        most: u64,
    },
    /// It has no checkpoint.
    #[error("it has no checkpoint\nhint: {hint}")]
    NoCheckpoint {
        /// What to do.
        hint: &'static str,
    },
    /// Its checkpoint is not even of the form.
    #[error("its checkpoint names no size in its second line")]
    Size,
}

/// Where a log is read from.
#[derive(Debug)]
pub struct LogSource {
    from: From,
    /// Leaves that are looked at.
    size: u64,
    /// The newest checkpoint.
    note: Option<String>,
}

#[derive(Debug)]
enum From {
    Store(Reader),
    Directory(PathBuf),
}

impl LogSource {
    /// The file of a store, as it is now; a server may go on writing to it.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn store(path: &Path) -> Result<Self, SourceError> {
        let reader = Reader::open(path).map_err(SourceError::Open)?;
        let failed = |source| SourceError::Read { position: 0, source };
        // The checkpoint first: the leaves that it counts are there, whatever comes in between.
        let note = reader.checkpoint().map_err(failed)?.map(|stored| stored.note);
        let size = reader.size().map_err(failed)?;
        Ok(Self { from: From::Store(reader), size, note })
    }

    /// A directory of static files in the layout of C2SP tlog-tiles: as large as its checkpoint
    /// says.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn directory(path: &Path) -> Result<Self, SourceError> {
        let note = match read_file(path, CHECKPOINT, MAX_CHECKPOINT_BYTES as u64) {
            Ok(note) => String::from_utf8_lossy(&note).into_owned(),
            Err(SourceError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                let hint = "name the directory of an export, which has a file `checkpoint`";
                return Err(SourceError::NoCheckpoint { hint });
            }
            Err(error) => return Err(error),
        };
        let size = note.lines().nth(1).and_then(|size| size.parse().ok());
        let size = size.ok_or(SourceError::Size)?;
        Ok(Self { from: From::Directory(path.to_owned()), size, note: Some(note) })
    }

    /// Leaves: of a store those that it has, of a directory those that its checkpoint counts.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The newest checkpoint, a signed note that nobody has verified yet.
    ///
    /// # Errors
    /// [`SourceError::NoCheckpoint`].
    pub fn checkpoint(&self) -> Result<&str, SourceError> {
        self.note.as_deref().ok_or(SourceError::NoCheckpoint {
            hint: "a server makes one when it starts, unless `checkpoint-every` is 0",
        })
    }

    /// Batches that its leaves are read in.
    pub(super) fn batches(&self) -> u64 {
        self.size.div_ceil(LEAVES_AT_ONCE)
    }

    /// All the leaves of a batch, counted from 0.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(super) fn batch(&self, batch: u64) -> Result<Vec<Vec<u8>>, SourceError> {
        let start = batch.saturating_mul(LEAVES_AT_ONCE);
        let end = self.size.min(start.saturating_add(LEAVES_AT_ONCE));
        match &self.from {
            From::Store(reader) => {
                let leaves = reader.leaves(start, end);
                let leaves =
                    leaves.map_err(|source| SourceError::Read { position: start, source })?;
                let found = start.saturating_add(u64::try_from(leaves.len()).unwrap_or(0));
                if found < end {
                    return Err(SourceError::Missing { after: found });
                }
                Ok(leaves)
            }
            From::Directory(path) => {
                let mut leaves = Vec::new();
                let width = u64::from(TILE_WIDTH);
                for index in (start / width)..end.div_ceil(width) {
                    let tile = self.tile(TileKind::Entries, index)?;
                    leaves.extend(read_tile(path, tile, |bytes, width| {
                        let entries = read_entries(bytes, width)?;
                        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
                    })?);
                }
                Ok(leaves)
            }
        }
    }

    /// The tile of that index as far as this log has it.
    fn tile(&self, kind: TileKind, index: u64) -> Result<TilePath, SourceError> {
        let height = match kind {
            TileKind::Hashes(level) => u32::from(level).saturating_mul(8),
            TileKind::Entries => 0,
        };
        let there = self.size.checked_shr(height).unwrap_or(0);
        let width = u64::from(TILE_WIDTH);
        let left = there.saturating_sub(index.saturating_mul(width)).min(width);
        let width = u16::try_from(left).unwrap_or(TILE_WIDTH);
        TilePath::new(kind, index, width).map_err(|source| SourceError::Tile {
            path: format!("tile {index} of {there} hashes"),
            source,
        })
    }
}

/// What is stored of the tree, to be held against what it should be.
#[derive(Debug)]
pub(super) struct StoredTree<'a> {
    source: &'a LogSource,
    /// Of each level of tiles: hashes that were compared, and the tile that the next one is in.
    levels: Vec<(u64, Vec<Digest>)>,
    /// Length of the row of stored hashes.
    row: u64,
}

/// A stored hash that is not that of its leaves.
#[derive(Debug)]
pub(super) enum TreeFault {
    /// Of one leaf, by its position.
    Leaf(u64),
    /// Of the leaves in a range.
    Subtree(std::ops::Range<u64>),
    Source(SourceError),
}

impl<'a> StoredTree<'a> {
    pub(super) fn of(source: &'a LogSource) -> Self {
        let levels = (0..=MAX_TILE_LEVEL).map(|_| (0, Vec::new())).collect();
        Self { source, levels, row: 0 }
    }

    /// Goes on by the hashes that a leaf adds, its own first.
    ///
    /// # Errors
    /// [`TreeFault`].
    pub(super) fn push(&mut self, position: u64, hashes: &[Digest]) -> Result<(), TreeFault> {
        match &self.source.from {
            From::Store(reader) => {
                let count = u64::try_from(hashes.len()).unwrap_or(u64::MAX);
                let end = self.row.saturating_add(count);
                let numbers: Vec<u64> = (self.row..end).collect();
                self.row = end;
                let stored = reader
                    .hashes(&numbers)
                    .map_err(|source| TreeFault::Source(SourceError::Read { position, source }))?;
                let differs = stored.iter().zip(hashes).position(|(stored, hash)| stored != hash);
                differs.map_or(Ok(()), |height| Err(fault(position, height)))
            }
            From::Directory(path) => {
                // Of the hashes that complete a subtree, every 8th level is kept in tiles.
                let levels = self.levels.iter_mut().enumerate();
                for ((level, (count, tile)), hash) in levels.zip(hashes.iter().step_by(8)) {
                    let width = u64::from(TILE_WIDTH);
                    let (index, at) = (*count / width, *count % width);
                    if at == 0 {
                        *tile = read_level(self.source, path, level, index)?;
                    }
                    let stored = usize::try_from(at).ok().and_then(|at| tile.get(at));
                    if stored != Some(hash) {
                        return Err(fault(position, level.saturating_mul(8)));
                    }
                    *count = count.saturating_add(1);
                }
                Ok(())
            }
        }
    }
}

/// The hashes of a tile of a level, as far as this log has it.
fn read_level(
    source: &LogSource,
    path: &Path,
    level: usize,
    index: u64,
) -> Result<Vec<Digest>, TreeFault> {
    let kind = TileKind::Hashes(u8::try_from(level).unwrap_or(MAX_TILE_LEVEL));
    let read = || {
        let tile = source.tile(kind, index)?;
        read_tile(path, tile, read_hashes)
    };
    read().map_err(TreeFault::Source)
}

/// A wrong hash that the leaf at `position` completes, of a subtree so high.
fn fault(position: u64, height: usize) -> TreeFault {
    if height == 0 {
        return TreeFault::Leaf(position);
    }
    let end = position.saturating_add(1);
    let leaves = u32::try_from(height).ok().and_then(|height| 1_u64.checked_shl(height));
    TreeFault::Subtree(end.saturating_sub(leaves.unwrap_or(end))..end)
}

/// Reads a tile. Where there is none that is cut off so, the full one that begins like it took its
/// place (C2SP tlog-tiles, "Partial Tiles").
fn read_tile<T>(
    directory: &Path,
    tile: TilePath,
    read: impl FnOnce(&[u8], u16) -> Result<Vec<T>, TileError>,
) -> Result<Vec<T>, SourceError> {
    let (found, bytes) = match read_file(directory, &tile.to_string(), MAX_FILE_BYTES) {
        Err(SourceError::File { path, source }) if source.kind() == ErrorKind::NotFound => {
            let full = read_file(directory, &tile.full().to_string(), MAX_FILE_BYTES);
            (tile.full(), full.map_err(|_absent| SourceError::File { path, source })?)
        }
        bytes => (tile, bytes?),
    };
    let mut all = read(&bytes, found.width())
        .map_err(|source| SourceError::Tile { path: found.to_string(), source })?;
    all.truncate(usize::from(tile.width()));
    Ok(all)
}

fn read_file(directory: &Path, path: &str, most: u64) -> Result<Vec<u8>, SourceError> {
    let failed = |source| SourceError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let place = directory.join(path);
    // To open a pipe would be to wait for whoever writes to it.
    if !std::fs::metadata(&place).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no file")));
    }
    let file = std::fs::File::open(place).map_err(failed)?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > most) {
        return Err(SourceError::TooLong { path: path.to_owned(), most });
    }
    Ok(bytes)
}
