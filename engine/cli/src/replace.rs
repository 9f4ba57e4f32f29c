//! Files that commands write: whole, or not at all.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::exit::Failure;

/// Writes a file whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    // The system's own words would name the draft.
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot write `{}`: {}", path.display(), error.kind()))
            .hint("name a file in a directory that you may write to")
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut draft = tempfile::Builder::new()
        .prefix(".placet-")
        // As any other file: what the process's mask leaves of it.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    draft.write_all(bytes).and_then(|()| draft.as_file().sync_all()).map_err(failed)?;
    draft.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
