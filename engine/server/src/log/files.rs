//! The log as static files (C2SP tlog-tiles), as they are served beside the writer.

use std::sync::Arc;

use placet_core::tile::{TileKind, TilePath, write_entries, write_hashes};
use tokio::sync::{Semaphore, watch};

use crate::sequencer::{Published, Shown};
use crate::store::{ReadError, Reader};

/// Tiles that are read at a time. An entry bundle may have 16 MiB, if each of its leaves is as long
/// as can be, and whoever reads the log must not take the disk from the writer.
const MAX_TILES_AT_ONCE: usize = 4;

/// Reads files of the log; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    reader: Reader,
    pub(super) published: watch::Receiver<Shown>,
    room: Arc<Semaphore>,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The published log does not reach so far, or none is published.
    #[error("the published log has no such tile\nhint: read `checkpoint` first: it has the size")]
    Absent,
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[source] ReadError),
    /// The thread that read it died, or the server is stopping.
    #[error("the server is stopping")]
    Stopped,
}

impl Files {
    pub(crate) fn new(reader: Reader, published: watch::Receiver<Shown>) -> Self {
        Self { reader, published, room: Arc::new(Semaphore::new(MAX_TILES_AT_ONCE)) }
    }

    /// The newest checkpoint: none if none is made.
    pub(crate) fn checkpoint(&self) -> Option<Arc<Published>> {
        self.checkpoint_with(0)
    }

    /// The newest checkpoint that at least so many witnesses cosigned.
    pub(crate) fn checkpoint_with(&self, witnesses: usize) -> Option<Arc<Published>> {
        self.published.borrow().at_least(witnesses)
    }

    /// The bytes of a tile that the published log has.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) async fn tile(&self, path: TilePath) -> Result<Vec<u8>, FileError> {
        let size = self.checkpoint().map_or(0, |published| published.head.size);
        if !path.is_within(size) {
            return Err(FileError::Absent);
        }
        self.read(move |reader| read_tile(reader, path)).await
    }

    /// Reads on a thread that may block, as one of few at a time.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, FileError> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_closed| FileError::Stopped)?;
        let reader = self.reader.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // Held by who reads, not by who waits for it: the latter may go.
            let _room = room;
            read(&reader)
        });
        reading.await.map_err(|_died| FileError::Stopped)?.map_err(FileError::Read)
    }
}

/// Reads a tile that the log has.
///
/// # Errors
/// If the store cannot be read or does not have it.
pub(crate) fn read_tile(reader: &Reader, path: TilePath) -> Result<Vec<u8>, ReadError> {
    match path.kind() {
        TileKind::Hashes(_) => Ok(write_hashes(&reader.hashes(&path.stored())?)),
        TileKind::Entries => {
            let range = path.range();
            let leaves = reader.leaves(range.start, range.end)?;
            if leaves.len() != usize::from(path.width()) {
                return Err(ReadError::Damaged("a leaf is missing"));
            }
            write_entries(&leaves).map_err(|_length| ReadError::Damaged("a leaf has no length"))
        }
    }
}
