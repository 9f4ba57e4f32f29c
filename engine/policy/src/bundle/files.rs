//! The files of a bundle as they come in, from a directory or an archive, and their bounds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use placet_core::{Digest, MAX_BUNDLE_SIGNATURE_BYTES};

use super::archive;
use super::{MANIFEST, SIGNATURE};
use crate::document;
use crate::error::{Fault, LoadError};

/// Most files of a bundle: each policy has a few, and some have many cases.
pub(super) const MAX_FILES: usize = 4_096;
/// Deepest directory of a bundle: far beyond what people nest.
pub(super) const MAX_DEPTH: usize = 16;
/// Largest file of a bundle in bytes: that of the largest component.
pub(super) const MAX_FILE_BYTES: u64 = 32 << 20;
/// Most bytes of a bundle: all of it is held in memory while it is compiled.
pub(super) const MAX_BUNDLE_BYTES: u64 = 256 << 20;
/// Longest path in bytes: what the header of an archive holds (POSIX.1-1988 ustar, 155 + 1 + 100).
pub(super) const MAX_PATH_BYTES: usize = 256;

/// Files by path, and the signature that came with them.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) by_path: BTreeMap<String, Vec<u8>>,
    pub(super) signature: Option<String>,
    left: u64,
}

impl Files {
    pub(super) fn new() -> Self {
        Self { by_path: BTreeMap::new(), signature: None, left: MAX_BUNDLE_BYTES }
    }

    /// Reads every file of a directory once.
    pub(super) fn of_directory(directory: &Path) -> Result<Self, LoadError> {
        let mut files = Self::new();
        files.collect(directory, "")?;
        Ok(files)
    }

    fn collect(&mut self, directory: &Path, prefix: &str) -> Result<(), LoadError> {
        let cannot = |path: &Path| {
            let path = path.to_owned();
            move |source| LoadError::Read { path, source }
        };
        for entry in std::fs::read_dir(directory).map_err(cannot(directory))? {
            let entry = entry.map_err(cannot(directory))?;
            let path = entry.path();
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let fault = Fault::new(path.display().to_string(), "has a name that is not UTF-8");
                return Err(fault.hint("rename it").into());
            };
            let relative = format!("{prefix}{name}");
            check_path(&relative)?;
            let kind = entry.file_type().map_err(cannot(&path))?;
            if kind.is_symlink() {
                let fault = Fault::new(relative, "is a symbolic link");
                return Err(fault.hint("put the file itself there").into());
            }
            if kind.is_dir() {
                self.collect(&path, &format!("{relative}/"))?;
                continue;
            }
            if !kind.is_file() {
                // Opening it, were it a pipe, could wait forever.
                let fault = Fault::new(relative, "is not a regular file");
                return Err(fault.hint("keep only policies and their cases in it").into());
            }
            let bytes = document::read(&path, &relative, limit(&relative))?;
            self.add(relative, bytes)?;
        }
        Ok(())
    }

    /// Takes a file whose path was checked.
    pub(super) fn add(&mut self, path: String, bytes: Vec<u8>) -> Result<(), Fault> {
        if path == SIGNATURE {
            let text = document::text(&bytes, &path)?.trim_end_matches('\n').to_owned();
            if text.len() > MAX_BUNDLE_SIGNATURE_BYTES {
                let message = format!("has more than {MAX_BUNDLE_SIGNATURE_BYTES} bytes");
                return Err(Fault::new(path, message).hint("sign with `placet bundle sign`"));
            }
            return match self.signature.replace(text) {
                Some(_) => Err(twice(path)),
                None => Ok(()),
            };
        }
        let rest = u64::try_from(bytes.len()).ok().and_then(|len| self.left.checked_sub(len));
        let Some(rest) = rest.filter(|_| self.by_path.len() < MAX_FILES) else {
            let message =
                format!("the bundle has more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes");
            return Err(Fault::new(path, message).hint("keep only policies and their cases in it"));
        };
        if self.by_path.contains_key(&path) {
            return Err(twice(path));
        }
        self.left = rest;
        self.by_path.insert(path, bytes);
        Ok(())
    }

    /// Checks what only all of the files together can show.
    pub(super) fn check(&self, name: &str) -> Result<(), Fault> {
        if !self.by_path.contains_key(MANIFEST) {
            let fault = Fault::new(MANIFEST, format!("is missing in `{name}`"));
            return Err(fault.hint("name the directory that holds the bundle's manifest"));
        }
        for path in self.by_path.keys() {
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                if self.by_path.contains_key(parent) {
                    let message = format!("lies under `{parent}`, which is a file");
                    return Err(Fault::new(path, message).hint("rename one of the two"));
                }
                above = parent;
            }
        }
        Ok(())
    }
}

fn twice(path: String) -> Fault {
    Fault::new(path, "is there twice").hint("keep one of the two")
}

/// Most bytes of the file with that path.
pub(super) fn limit(path: &str) -> u64 {
    if path == SIGNATURE {
        // With the line break that ends the text.
        u64::try_from(MAX_BUNDLE_SIGNATURE_BYTES).unwrap_or(u64::MAX).saturating_add(1)
    } else {
        MAX_FILE_BYTES
    }
}

/// Checks what a path inside a bundle must keep to, wherever it comes from, so that every directory
/// has an archive and every archive unpacks to the directory that it was made of.
pub(super) fn check_path(path: &str) -> Result<(), Fault> {
    let wrong = |message: &str, hint: &str| {
        let shown: String = path.chars().flat_map(char::escape_default).take(300).collect();
        Err(Fault::new(shown, message).hint(hint))
    };
    if path.len() > MAX_PATH_BYTES {
        let message = format!("has a path of more than {MAX_PATH_BYTES} bytes");
        return wrong(&message, "shorten its name or those of its directories");
    }
    if path.contains(|c: char| c.is_control() || c == '\\') {
        return wrong("has a control character or a backslash in its path", "rename it");
    }
    if path.starts_with('/') {
        return wrong("has an absolute path", "give paths from the bundle's root on");
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return wrong(
            "has an empty segment, `.` or `..` in its path",
            "give paths from the bundle's root on, without detours",
        );
    }
    if path.split('/').count() > MAX_DEPTH.saturating_add(1) {
        let message = format!("is deeper than {MAX_DEPTH} directories");
        return wrong(&message, "make the bundle flatter");
    }
    if path.split_once('/').is_some_and(|(first, _)| first == SIGNATURE) {
        let message = format!("lies under `{SIGNATURE}`, which is the file of the signature");
        return wrong(&message, "rename the directory");
    }
    if archive::split(path).is_none() {
        return wrong(
            "has a path that no archive can hold: at most 100 bytes after one of its slashes, and \
             155 before it",
            "shorten its name or those of its directories",
        );
    }
    Ok(())
}

/// SHA-256 of the text with one line `<64 hexadecimal digits>  <path>` per file, sorted by path.
pub(super) fn digest(files: &BTreeMap<String, Vec<u8>>) -> Digest {
    let mut text = String::new();
    for (path, bytes) in files {
        writeln!(text, "{}  {path}", Digest::of(bytes).hex()).expect("writing to a String works");
    }
    Digest::of(text.as_bytes())
}
