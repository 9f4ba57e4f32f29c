//! Reading files that people write: bounded, strict, with the place and a remedy in every error.

mod aliases;

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;

use crate::error::{Fault, LoadError};

/// Reads a file that may have at most `max` bytes.
pub(crate) fn read(path: &Path, name: &str, max: u64) -> Result<Vec<u8>, LoadError> {
    let cannot = |source| LoadError::Read { path: path.to_owned(), source };
    // Opening a pipe would wait, perhaps forever, for somebody to write; regular files do not care.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        let fault = Fault::new(name, "is not a regular file");
        return Err(fault.hint("name a file, not a directory or a device").into());
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(cannot)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= max) {
        return Ok(bytes);
    }
    let fault = Fault::new(name, format!("has more than {max} bytes"));
    Err(fault.hint("split it, or leave out what is not needed").into())
}

/// The text of a file.
pub(crate) fn text<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let newlines = before.iter().filter(|byte| **byte == b'\n').count();
        let line = u32::try_from(newlines).unwrap_or(u32::MAX).saturating_add(1);
        Fault::new(name, "is not UTF-8 text").at(line, None).hint("save the file as UTF-8")
    })
}

/// Reads a YAML document, or JSON, which is YAML too. Unknown keys are refused by the type, with
/// the nearest known one, and so are aliases: what they stand for may be any size.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T, Fault> {
    aliases::refuse(text, name)?;
    yaml_serde::from_str(text).map_err(|error| {
        let location = error.location();
        let full = error.to_string();
        // The place is data of the fault, so it is cut from the text.
        let message = match (location.as_ref(), full.rfind(" at line ")) {
            (Some(_), Some(at)) => full.get(..at).unwrap_or(&full).to_owned(),
            _ => full,
        };
        let message = worded(message);
        let mut fault = Fault::new(name, message);
        fault.hint = remedy(&fault.message);
        match location {
            Some(place) => {
                let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                fault.at(number(place.line()), Some(number(place.column())))
            }
            None => fault,
        }
    })
}

/// What serde says of a wrong type, without the names of Rust's own.
fn worded(message: String) -> String {
    let Some((what, expected)) = message.rsplit_once(", expected ") else { return message };
    let plain = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "a list",
        "a map" => "a mapping",
        _ if expected.starts_with("struct ") => "a mapping",
        _ => return message,
    };
    format!("{what}, expected {plain}")
}

/// What would help, from the words that serde derives: `unknown field `x`, expected one of `a`,
/// `b``.
fn remedy(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.contains("unknown field") || message.contains("unknown variant") {
        let wrong = quoted.next()?;
        return Some(match nearest(wrong, quoted) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "remove it".to_owned(),
        });
    }
    if message.contains("stands there twice") {
        return Some("keep one of the two".to_owned());
    }
    if message.contains("is not finite") {
        return Some("write a number that JSON can hold".to_owned());
    }
    if message.contains("missing field") {
        return Some(format!("add `{}`", quoted.next()?));
    }
    None
}

/// The known name nearest to a wrong one, if it is near enough to be meant.
pub(crate) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let far = wrong.chars().count().max(3).div_ceil(3);
    let measured = known.into_iter().map(|name| (distance(wrong, name), name));
    measured.filter(|(distance, _)| *distance <= far).min().map(|(_, name)| name)
}

/// The known name nearest to a wrong one, if it is near enough and no other is as near.
pub(crate) fn certain<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let far = wrong.chars().count().max(3).div_ceil(3);
    let measured = known.into_iter().map(|name| (distance(wrong, name), name));
    let mut near: Vec<_> = measured.filter(|(distance, _)| *distance <= far).collect();
    near.sort_unstable();
    near.dedup();
    match near.as_slice() {
        [(_, only)] => Some(*only),
        [(first, only), (second, _), ..] if first < second => Some(*only),
        _ => None,
    }
}

/// Longest name that is compared: names are hostile, and the cost is quadratic.
const MAX_COMPARED: usize = 128;

/// Edits of one character, swaps of neighbours among them, between two names, whatever the case
/// (Damerau, restricted).
fn distance(one: &str, other: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars().take(MAX_COMPARED).map(|c| c.to_ascii_lowercase()).collect()
    };
    let (one, other) = (fold(one), fold(other));
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = at(&last, j) + usize::from(a != b);
            let mut best = changed.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped =
                i > 0 && j > 0 && one.get(i - 1) == Some(b) && other.get(j - 1) == Some(a);
            if swapped {
                best = best.min(at(&before_last, j - 1) + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    at(&last, other.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Sample {
        revision: String,
        policies: Vec<u32>,
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
        let fault = parse::<Sample>("revision: \"1\"\npolices: []\n", "bundle.yaml");
        let fault = fault.expect_err("the key is wrong");
        assert_eq!(
            (fault.line, fault.hint.as_deref()),
            (Some(2), Some("did you mean `policies`?"))
        );
        assert!(fault.to_string().starts_with("bundle.yaml:2:1: "), "{fault}");
    }

    #[test]
    fn a_syntax_error_and_a_missing_key_have_a_place_or_a_remedy() {
        let fault = parse::<Sample>("revision: [", "x.yaml").expect_err("it is no YAML");
        assert!(fault.line.is_some(), "{fault}");
        let fault = parse::<Sample>("revision: a", "x.yaml").expect_err("a key is missing");
        assert_eq!(fault.hint.as_deref(), Some("add `policies`"));
    }

    #[test]
    fn a_wrong_type_is_told_without_the_names_of_rust() {
        for (text, expected) in [
            ("revision: a\npolicies: [x]", "string \"x\", expected a whole number"),
            ("revision: a\npolicies: 7", "integer `7`, expected a list"),
            ("[]", "sequence, expected a mapping"),
        ] {
            let message = parse::<Sample>(text, "x.yaml").expect_err("a type is wrong").message;
            assert!(message.ends_with(expected), "{message}");
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["isolation", "residency", "quota"];
        assert_eq!(nearest("isolatoin", known), Some("isolation"));
        assert_eq!(nearest("QUOTA", known), Some("quota"));
        assert_eq!(nearest("zzzzz", known), None);
    }

    #[test]
    fn text_that_is_not_utf8_has_its_line() {
        assert_eq!(text(b"a\nb\xff", "x").expect_err("it is not UTF-8").line, Some(2));
    }
}
