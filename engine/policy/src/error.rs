//! What can go wrong outside of deciding: loading, and running out of wall-clock time.

use std::fmt;
use std::path::PathBuf;

/// Longest message, and longest hint, of a fault in bytes: it may repeat what somebody wrote into a
/// file, and is for a person to read.
const MAX_FAULT_BYTES: usize = 1_024;
/// What stands for the rest of a text that is too long.
const CUT: &str = " [...]";

/// A place in a file that an author has to change, and what to do about it. Data, so that a caller
/// can draw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, as the author knows it: relative to the bundle, or as it was named.
    pub file: String,
    /// Line from 1, where known.
    pub line: Option<u32>,
    /// Column from 1, where known.
    pub column: Option<u32>,
    /// What is wrong: lower case, without a full stop, at most 1,024 bytes.
    pub message: String,
    /// What would help, at most 1,024 bytes.
    pub hint: Option<String>,
    /// What only those ask for who look for all faults at once. Boxed: most faults have none.
    pub(crate) mark: Option<Box<Mark>>,
}

/// What is known of a fault beyond what is told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The rule of [`crate::lint::RULES`] that it breaks.
    pub(crate) rule: Option<&'static str>,
    /// First byte of the file's text that it is about, and the one after the last.
    pub(crate) bytes: Option<(u32, u32)>,
    /// What was meant in the place of these bytes, where only one known name is near.
    pub(crate) meant: Option<String>,
}

impl Fault {
    /// A fault of a file as a whole.
    #[must_use]
    pub fn new(file: impl Into<String>, message: impl Into<String>) -> Self {
        let message = bounded(message.into());
        Self { file: file.into(), line: None, column: None, message, hint: None, mark: None }
    }

    /// The same as breaking a rule, unless it is known to break another one.
    pub(crate) fn of_rule(mut self, rule: &'static str) -> Self {
        let mark = self.mark.get_or_insert_default();
        mark.rule = mark.rule.or(Some(rule));
        self
    }

    /// The same with what was meant at its place.
    pub(crate) fn meant(mut self, meant: String) -> Self {
        self.mark.get_or_insert_default().meant = Some(meant);
        self
    }

    /// The same about these bytes of the file's text.
    pub(crate) fn bytes(mut self, start: u32, end: u32, meant: Option<String>) -> Self {
        let mark = self.mark.get_or_insert_default();
        (mark.bytes, mark.meant) = (Some((start, end)), meant);
        self
    }

    /// The same at a line and a column, both from 1.
    #[must_use]
    pub fn at(mut self, line: u32, column: Option<u32>) -> Self {
        self.line = Some(line);
        self.column = column;
        self
    }

    /// The same with a remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(bounded(hint.into()));
        self
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > MAX_FAULT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_FAULT_BYTES - CUT.len()));
        text.push_str(CUT);
    }
    text
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a bundle, facts or a file of cases cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or directory cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Something in a file breaks a rule; the first such place.
    #[error("{0}")]
    Invalid(Box<Fault>),
    /// A bundle has no good signature.
    #[error("the bundle is not signed by a key that is trusted")]
    Signature(#[source] placet_core::SignatureError),
    /// An engine cannot be set up on this machine.
    #[error("cannot set up {engine}")]
    Engine {
        /// Which one.
        engine: &'static str,
        /// What it says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<Fault> for LoadError {
    fn from(fault: Fault) -> Self {
        Self::Invalid(Box::new(fault))
    }
}

/// Why there is no evaluation. Everything else that a policy can do wrong is a verdict,
/// `INDETERMINATE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The wall-clock backstop interrupted a policy: nothing is decided, and the request can be
    /// asked again.
    #[error("policy `{policy}` was interrupted by the wall-clock backstop")]
    Backstop {
        /// Which policy.
        policy: String,
    },
    /// No further Wasm instance fits the host: nothing is decided, and the request can be asked
    /// again.
    #[error("there is no room for another instance of policy `{policy}`")]
    NoRoom {
        /// Which policy.
        policy: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fault_repeats_is_cut_between_characters() {
        let long = "\u{e9}".repeat(MAX_FAULT_BYTES);
        let fault = Fault::new("f", long.clone()).hint(long.clone());
        for text in [Some(&fault.message), fault.hint.as_ref()].into_iter().flatten() {
            assert!(text.len() <= MAX_FAULT_BYTES && text.ends_with(CUT), "{text}");
            assert!(long.starts_with(text.trim_end_matches(CUT)));
        }
        let whole = "x".repeat(MAX_FAULT_BYTES);
        assert_eq!(Fault::new("f", whole.clone()).message, whole);
    }
}
