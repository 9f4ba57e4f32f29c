//! Runs the binary to its end.

use std::io::Write;
use std::process::{Output, Stdio};

use crate::server::placet;

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// All of it as one text, with what differs from run to run replaced.
    pub(crate) fn shown(&self, replace: &[(&str, &str)]) -> String {
        let mut text =
            format!("exit {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr);
        for (from, to) in replace {
            text = text.replace(from, to);
        }
        text
    }
}

/// Runs to the end.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    Ran::of(placet().args(args).stdin(Stdio::null()).output().unwrap())
}

/// Runs to the end with a text on standard input.
pub(crate) fn run_with<S: AsRef<std::ffi::OsStr>>(
    args: impl IntoIterator<Item = S>,
    input: &str,
) -> Ran {
    let mut command = placet();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

/// A token with one bit of its part `at` flipped: 0 the header, 1 the claims, 2 the signature.
pub(crate) fn flipped(token: &str, at: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let middle = parts[at].len() / 2;
    let old = parts[at].as_bytes()[middle];
    let new = if old == b'A' { 'B' } else { 'A' };
    parts[at].replace_range(middle..=middle, &new.to_string());
    parts.join(".")
}
