//! A copy of a store, made while a server writes to it.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use super::open::{self, OpenError};

/// What a copy is called until it is whole: its name with this behind it.
const PARTIAL: &str = ".partial";

/// Why no copy was made. The store is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Open(#[source] OpenError),
    /// Something stands where the copy should.
    #[error("`{path}` exists\nhint: name another file; a copy never replaces one")]
    Exists {
        /// Where.
        path: String,
    },
    /// Another copy is being made there, or one was cut short.
    #[error(
        "`{path}` exists: a copy is being made there, or was cut short\n\
         hint: wait for it, or delete that file if nothing makes it"
    )]
    UnderWay {
        /// Where.
        path: String,
    },
    /// The copy's name is not UTF-8.
    #[error("the name of the copy is not UTF-8\nhint: give it another name")]
    Name,
    /// The copy cannot be written.
    #[error("the copy cannot be written\nhint: is there room, and may this user write there?")]
    Write(#[source] std::io::Error),
    /// SQLite failed to write it.
    #[error("SQLite cannot make the copy\nhint: is there room for it?")]
    Sqlite(#[source] rusqlite::Error),
}

/// A copy that is not yet called by its name; dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Copy {
    partial: PathBuf,
    to: PathBuf,
    finished: bool,
}

impl Copy {
    /// Copies what is committed now, in one reading: whoever writes meanwhile is not held up, and
    /// what is erased or free in the store is not in the copy. With mode 0600.
    ///
    /// # Errors
    /// [`CopyError`].
    pub(crate) fn make(from: &Path, to: &Path) -> Result<Self, CopyError> {
        let shown = |path: &Path| path.display().to_string();
        let (source, _version) = open::read_only(from).map_err(CopyError::Open)?;
        if to.symlink_metadata().is_ok() {
            return Err(CopyError::Exists { path: shown(to) });
        }
        let mut partial = to.as_os_str().to_owned();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        open::owner_only(&mut options);
        options.open(&partial).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => CopyError::UnderWay { path: shown(&partial) },
            _ => CopyError::Write(error),
        })?;
        let copy = Self { partial, to: to.to_owned(), finished: false };
        let name = copy.partial.to_str().ok_or(CopyError::Name)?;
        source.execute("VACUUM INTO ?1", [name]).map_err(CopyError::Sqlite)?;
        Ok(copy)
    }

    /// Where it is for the time being.
    pub(crate) fn path(&self) -> &Path {
        &self.partial
    }

    /// Brings it to the disk and gives it its name, which nothing else may have got meanwhile.
    ///
    /// # Errors
    /// [`CopyError`]: then there is none.
    pub(crate) fn finish(mut self) -> Result<(), CopyError> {
        // SQLite leaves it to us to wait for the disk after this kind of copy.
        File::open(&self.partial).and_then(|file| file.sync_all()).map_err(CopyError::Write)?;
        // A second name, unlike a new one, never takes the place of another file.
        std::fs::hard_link(&self.partial, &self.to).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                CopyError::Exists { path: self.to.display().to_string() }
            }
            _ => CopyError::Write(error),
        })?;
        self.finished = true;
        std::fs::remove_file(&self.partial).map_err(CopyError::Write)?;
        let directory = self.to.parent().filter(|it| !it.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory).and_then(|it| it.sync_all()).map_err(CopyError::Write)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.finished {
            // It was no copy yet: whoever comes next is told of it if it cannot be deleted.
            drop(std::fs::remove_file(&self.partial));
            let mut journal = self.partial.as_os_str().to_owned();
            journal.push("-journal");
            drop(std::fs::remove_file(journal));
        }
    }
}
