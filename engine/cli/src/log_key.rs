//! The key of a log, as `placet keys log` prints it and as auditors are given it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use placet_core::{VerifyingKey, read_note_verifier_key};

use crate::exit::Failure;
use crate::print::plain;

/// Longest file of keys in bytes: a hundred keys of long names.
const MAX_KEYS_BYTES: usize = 32 * 1024;

/// The name and the keys of a log, from the text of one or a file that holds one in each line.
///
/// # Errors
/// It is neither, or the keys are of several logs.
pub(crate) fn read(text: &str) -> Result<(String, Vec<VerifyingKey>), Failure> {
    let refused = |error| Failure::from_error(&error).subject("the key of the log");
    let text = match read_note_verifier_key(text.trim()) {
        Ok((origin, key)) => return Ok((origin, vec![key])),
        // A key has two plus signs, which the names of few files have.
        Err(error) if text.matches('+').count() >= 2 && !Path::new(text).exists() => {
            return Err(refused(error));
        }
        Err(_) => read_file(Path::new(text), MAX_KEYS_BYTES)?,
    };
    let mut read: Vec<(String, VerifyingKey)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        read.push(read_note_verifier_key(line.trim()).map_err(refused)?);
    }
    let (names, keys): (Vec<String>, Vec<VerifyingKey>) = read.into_iter().unzip();
    match names.split_first() {
        Some((name, others)) if others.iter().all(|other| other == name) => {
            Ok((name.clone(), keys))
        }
        Some(_) => Err(Failure::new("the keys of the log are of logs of several names")
            .hint("give the lines that `placet keys log` printed for one of them")),
        None => Err(Failure::new("there is no key of the log in the file")
            .hint("give what `placet keys log` printed")),
    }
}

/// Reads a text; of a longer one, as much as shows that it is too long.
///
/// # Errors
/// It cannot be read, or is no text.
pub(crate) fn read_file(path: &Path, most: usize) -> Result<String, Failure> {
    let shown = plain(&path.display().to_string());
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .map_err(|error| Failure::new(format!("cannot read `{shown}`: {error}")))?;
    Ok(text)
}
