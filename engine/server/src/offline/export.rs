//! Writing the log as static files, in the layout of C2SP tlog-tiles: for mirrors, for auditors,
//! and to outlive the store.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

use placet_core::tile::{TileKind, TilePath, tiles};
use placet_core::{Checkpoint, merkle};

use super::source::{CHECKPOINT, LogSource, SourceError};
use crate::log::read_tile;
use crate::store::{ReadError, Reader, is_of};

/// What a file is called until it is whole: its name with this behind it.
const PARTIAL: &str = ".partial";
/// The file that whoever exports to a directory holds locked.
const LOCK: &str = ".lock";
/// Bytes of a hash.
const HASH_BYTES: u64 = 32;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What the directory holds now.
    pub checkpoint: Checkpoint,
    /// Leaves of what it held before: 0 if it was empty.
    pub before: u64,
    /// Files that were written, the checkpoint not counted.
    pub files: u64,
}

/// Why nothing was exported, or not all: the directory's checkpoint is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The same, at a file.
    #[error("the leaves and hashes of `{path}` cannot be read from the store")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: ReadError,
    },
    /// The store has no log yet, or a checkpoint of another one.
    #[error("the checkpoint in the store is not one of its log")]
    Checkpoint,
    /// Another export writes to the directory.
    #[error("another export writes to `{path}`\nhint: wait for it")]
    UnderWay {
        /// The directory.
        path: String,
    },
    /// The directory holds something else.
    #[error(
        "`{path}` has a checkpoint that this log does not continue: {what}\n\
         hint: export to another directory; nothing was changed"
    )]
    Other {
        /// The directory.
        path: String,
        /// What is there.
        what: &'static str,
    },
    /// A file cannot be written.
    #[error("`{path}` cannot be written\nhint: is there room, and may this user write there?")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Writes everything that the newest checkpoint of a store counts to a directory, while a server
/// may be writing to the store. What the directory has already of the same log is not written
/// again. The checkpoint comes last: whoever reads the directory meanwhile finds all that the old
/// one counts. `done` is told now and then how many files of how many are there.
///
/// # Errors
/// [`ExportError`].
pub fn export_log(
    from: &Path,
    to: &Path,
    mut done: impl FnMut(u64, u64),
) -> Result<Exported, ExportError> {
    let reader = Reader::open(from).map_err(SourceError::Open)?;
    let source = LogSource::store(from)?;
    let note = source.checkpoint()?;
    let checkpoint = Checkpoint::read_unverified(note);
    let checkpoint = checkpoint.map_err(|_malformed| ExportError::Checkpoint)?;
    if !is_head(&reader, &checkpoint)? || !is_of(note, &checkpoint) {
        return Err(ExportError::Checkpoint);
    }
    let _lock = lock(to)?;
    let before = held(&reader, to, &checkpoint)?;
    let size = checkpoint.size;
    // What is there already, as far as its length tells: `placet log verify` finds what is damaged.
    let has = |tile: &TilePath| tile.is_within(before) && is_there(to, *tile);
    let total = u64::try_from(tiles(size).count()).unwrap_or(u64::MAX);
    let (mut files, mut at) = (0_u64, 0_u64);
    for tile in tiles(size) {
        at = at.saturating_add(1);
        if !has(&tile) {
            let path = tile.to_string();
            let bytes = read_tile(&reader, tile);
            let bytes = bytes.map_err(|source| ExportError::Read { path: path.clone(), source })?;
            write(to, &path, &bytes)?;
            files = files.saturating_add(1);
        }
        done(at, total);
    }
    write(to, CHECKPOINT, note.as_bytes())?;
    // Full tiles took the place of some that were cut off. Who still reads by the old checkpoint
    // takes those (C2SP tlog-tiles, "Partial Tiles").
    for tile in tiles(before).filter(|tile| tile.is_partial() && tile.full().is_within(size)) {
        // With it, those of still earlier exports, which are in the same folder and nothing else.
        let path = to.join(tile.to_string());
        let Some(parts) = path.parent() else { continue };
        if let Err(error) = fs::remove_dir_all(parts) {
            tracing::warn!(%error, %tile, "partial tiles that are of no use any more stay");
        }
    }
    Ok(Exported { checkpoint, before, files })
}

/// Whether there is a file for a tile that may be it.
fn is_there(to: &Path, tile: TilePath) -> bool {
    let hashes = u64::from(tile.width()).saturating_mul(HASH_BYTES);
    fs::metadata(to.join(tile.to_string())).is_ok_and(|file| match tile.kind() {
        TileKind::Hashes(_) => file.is_file() && file.len() == hashes,
        TileKind::Entries => file.is_file() && file.len() > 0,
    })
}

/// Whether a store's log begins with what a checkpoint says.
fn is_head(reader: &Reader, checkpoint: &Checkpoint) -> Result<bool, ExportError> {
    let root = merkle::root(checkpoint.size, |numbers| reader.hashes(numbers));
    Ok(root.is_ok_and(|root| root == checkpoint.root))
}

/// Leaves of what the directory holds of this log.
fn held(reader: &Reader, to: &Path, newest: &Checkpoint) -> Result<u64, ExportError> {
    let other = |what| ExportError::Other { path: to.display().to_string(), what };
    let old = match LogSource::directory(to) {
        Ok(old) => old,
        Err(SourceError::NoCheckpoint { .. }) => return Ok(0),
        Err(SourceError::Size) => return Err(other("it has no size")),
        Err(error) => return Err(error.into()),
    };
    let old = Checkpoint::read_unverified(old.checkpoint()?);
    let old = old.map_err(|_malformed| other("it is damaged"))?;
    if old.origin != newest.origin {
        return Err(other("it is of a log of another name"));
    }
    if old.size > newest.size {
        return Err(other("it has more leaves than the store has published"));
    }
    if !is_head(reader, &old)? {
        return Err(other("the first leaves of the store are others"));
    }
    Ok(old.size)
}

/// Keeps others from exporting to the same directory, which is made if there is none, until it is
/// dropped.
fn lock(to: &Path) -> Result<File, ExportError> {
    let failed = |source| ExportError::Write { path: LOCK.to_owned(), source };
    fs::create_dir_all(to).map_err(failed)?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(to.join(LOCK));
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(ExportError::UnderWay { path: to.display().to_string() })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Writes a file, whole or not at all.
fn write(to: &Path, path: &str, bytes: &[u8]) -> Result<(), ExportError> {
    let failed = |source| ExportError::Write { path: path.to_owned(), source };
    let place = to.join(path);
    let folder = place.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(failed)?;
    let mut name = place.clone().into_os_string();
    name.push(PARTIAL);
    // What was left half-written is in the way of a new file, which never follows a link.
    match fs::remove_file(&name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let put = OpenOptions::new().write(true).create_new(true).open(&name).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&name, &place)?;
        File::open(folder)?.sync_all()
    });
    put.map_err(failed)
}
