//! Writes what is made: whole or not at all, and never over anything.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::exit::Failure;

/// Files by their path from the new directory on.
pub(super) type Files = std::collections::BTreeMap<String, String>;

/// Fails if something has the path already.
pub(super) fn check_absent(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot(path, &error)),
        Ok(_) => Err(Failure::new(format!("`{}` exists already", path.display()))
            .hint("choose another name: nothing is ever written over")),
    }
}

/// Writes a new directory with its files, which has its name only when all of it is there.
pub(super) fn directory(path: &Path, files: &Files) -> Result<(), Failure> {
    check_absent(path)?;
    let failed = |error: io::Error| cannot(path, &error);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let draft = tempfile::Builder::new()
        .prefix(".placet-")
        // As any other directory: what the process's mask leaves of it.
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(parent.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    for (relative, text) in files {
        let file = draft.path().join(relative);
        let parent = file.parent().unwrap_or(draft.path());
        fs::create_dir_all(parent).and_then(|()| fs::write(&file, text)).map_err(failed)?;
    }
    // Whatever came there meanwhile stays: only an empty directory can be replaced so.
    fs::rename(draft.path(), path).map_err(failed)?;
    // It has gone from where it was made, so there is nothing left to take away.
    drop(draft.keep());
    Ok(())
}

/// Replaces a file in one step, if it is still as it was read.
pub(super) fn replace(path: &Path, before: &[u8], text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| cannot(path, &error);
    let mut draft = tempfile::Builder::new()
        .prefix(".placet-")
        .permissions(fs::metadata(path).map_err(failed)?.permissions())
        .tempfile_in(path.parent().unwrap_or(Path::new(".")))
        .map_err(failed)?;
    draft.write_all(text.as_bytes()).map_err(failed)?;
    draft.as_file().sync_all().map_err(failed)?;
    if fs::read(path).map_err(failed)? != before {
        return Err(
            Failure::new(format!("`{}` was changed meanwhile", path.display())).hint("try again")
        );
    }
    draft.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write `{}`: {error}", path.display()))
        .hint("name a place that you may write to")
}
