//! How a command ends: its exit code, and why it failed.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Every exit code of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done; for a single request: permitted.
    Done,
    /// 1: it could not be done, or not all of it.
    Failed,
    /// 2: the single request that was asked about is denied.
    Denied,
    /// 3: the policies are no valid bundle.
    PolicyInvalid,
    /// 64: the command line is wrong (`EX_USAGE` of sysexits.h); clap's own 2 would read as denied.
    Usage,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Denied => 2,
            Self::PolicyInvalid => 3,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command stopped: one message for a person, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    /// A mistake on the command line or in the settings: exit code 64.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    /// Nobody reads our output any more: nothing is left to say.
    pub(crate) fn reader_gone() -> Self {
        Self { exit: Exit::Failed, message: String::new() }
    }

    /// What an error and its causes say, with every hint at the end.
    pub(crate) fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self::new(chain(error))
    }

    /// The same failure with what was being done in front.
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same failure, a predicate, with its subject in front.
    pub(crate) fn subject(mut self, subject: &str) -> Self {
        self.message = format!("{subject} {}", self.message);
        self
    }

    /// The same failure with the remedy on a line of its own.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.message = format!("{}\nhint: {hint}", self.message);
        self
    }

    /// The same failure with another exit code.
    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What to print; empty if nothing.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// An error and its causes in one text: what was said already is left out, hints come last.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut hints = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let whole = error.to_string();
        let mut own = String::new();
        for line in whole.lines() {
            if let Some(hint) = line.trim_start().strip_prefix("hint: ") {
                hints.push(hint.to_owned());
            } else {
                if !own.is_empty() {
                    own.push('\n');
                }
                own.push_str(line);
            }
        }
        if text.is_empty() {
            text = own;
        } else if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        next = error.source();
    }
    hints.dedup();
    for hint in hints {
        text.push_str("\nhint: ");
        text.push_str(&hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `x`\nhint: make it")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_and_hints_come_last() {
        let failure = Failure::from_error(&Outer(std::io::Error::other("disk is full")));
        assert_eq!(failure.message(), "cannot open `x`: disk is full\nhint: make it");
        assert_eq!(failure.context("a").hint("b").message().lines().count(), 3);
    }

    #[test]
    fn usage_never_reads_as_denied() {
        assert_eq!(Failure::usage("x").exit().code(), 64);
        assert_eq!(Exit::Denied.code(), 2);
        assert_eq!(Exit::PolicyInvalid.code(), 3);
    }
}
