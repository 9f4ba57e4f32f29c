//! All that is wrong or doubtful in a bundle, with places, remedies and stable names: what
//! `placet check` prints, and what an editor can show.
//!
//! A load stops at the first fault. Here each file is looked at for itself, so that an author sees
//! the faults of all of them, and beside them what lints say: what loads, and hardly says what its
//! author means. [`check`] takes texts by path, so that what an editor holds unsaved can be checked
//! as what lies on a disk ([`read`]).
//!
//! A finding of a lint is allowed by a comment on its line, or in the comments directly above:
//! `# placet:allow <rule> <reason>`.

mod allow;
mod cases;
mod controls;
mod fix;
mod place;
mod policies;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use crate::bundle::{self, Bundle};
use crate::error::{Fault, LoadError};
use crate::wasm::WasmRuntime;
pub use fix::fixed;
use place::Text;
pub use place::{Position, Span};
pub use rules::{RULES, Rule};

/// Most diagnostics that are told: nobody reads more at a time, and each repeats a part of what
/// somebody wrote.
pub const MAX_DIAGNOSTICS: usize = 1_000;
/// Most findings that are kept of one file while it is looked at.
const MAX_OF_A_FILE: usize = 4 * MAX_DIAGNOSTICS;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The bundle is refused, or its own cases fail.
    Error,
    /// The bundle loads, and hardly does what its author means.
    Warning,
}

/// One thing that is wrong or doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Name of the rule, one of [`RULES`].
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Path in the bundle.
    pub file: String,
    /// Where; absent if it is the file as a whole, or a file that is not there.
    pub span: Option<Span>,
    /// What is wrong: lower case, without a full stop, at most 1,024 bytes.
    pub message: String,
    /// What would help, at most 1,024 bytes.
    pub hint: Option<String>,
    /// What mends it, if nothing but what was meant can come of it.
    pub fix: Option<Fix>,
}

/// A change of a file that mends something: it cannot change what a policy decides, or makes of
/// what did not load what was obviously meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What is replaced.
    pub span: Span,
    /// By what; empty if it is removed.
    pub replacement: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// At most [`MAX_DIAGNOSTICS`], by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub cut: usize,
    /// How many files were looked at.
    pub files: usize,
}

impl Report {
    /// What a fault says that stopped a check before it began.
    #[must_use]
    pub fn refused(fault: &Fault) -> Self {
        let mut found = Found::default();
        found.fault(fault.clone().of_rule("file"), "");
        found.report(0)
    }
}

/// The files of a directory, or of an archive of one, by path.
///
/// # Errors
/// [`LoadError`] if they cannot be read, or are more than a bundle may have.
pub fn read(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, LoadError> {
    bundle::read_files(path)
}

/// Checks the files of a bundle. Never fails: what cannot be read is a diagnostic.
#[must_use]
pub fn check(files: &BTreeMap<String, Vec<u8>>, runtime: &WasmRuntime) -> Report {
    let (bundle, faults) = Bundle::survey(files);
    let mut found = Found::default();
    let text = |path: &str| {
        let bytes = files.get(path).map(Vec::as_slice).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    };
    for fault in faults {
        let text = text(&fault.file);
        found.fault(fault.of_rule("manifest"), text);
    }
    let codes = policies::check(files, bundle.as_ref(), runtime, &mut found);
    cases::check(files, bundle.as_ref(), &codes, &mut found);
    allow::apply(files, &mut found);
    found.report(files.len())
}

/// What was found up to now.
#[derive(Debug, Default)]
struct Found {
    all: Vec<Diagnostic>,
    /// How many there are of each file.
    of_files: BTreeMap<String, usize>,
    /// What is there already: a text that is two policies is looked at twice.
    seen: BTreeSet<(String, Option<Span>, &'static str, String)>,
    cut: usize,
}

impl Found {
    fn push(&mut self, diagnostic: Diagnostic) {
        let Diagnostic { rule, file, span, message, .. } = &diagnostic;
        let of_file = self.of_files.entry(file.clone()).or_default();
        *of_file = of_file.saturating_add(1);
        if *of_file > MAX_OF_A_FILE {
            self.cut = self.cut.saturating_add(1);
        } else if self.seen.insert((file.clone(), *span, rule, message.clone())) {
            self.all.push(diagnostic);
        }
    }

    /// What a load refuses. The text is that of the fault's file.
    fn fault(&mut self, fault: Fault, text: &str) {
        let Fault { file, line, column, message, hint, mark } = fault;
        let mark = mark.unwrap_or_default();
        let rule = mark.rule.unwrap_or("file");
        let text = Text::of(text);
        let span = match (mark.bytes, line) {
            (Some(bytes), _) => Some(text.span(text.unquoted(bytes))),
            (None, Some(line)) => Some(text.span(text.word(line, column, file.ends_with(".rego")))),
            (None, None) => None,
        };
        let fix = span.zip(mark.meant).map(|(span, replacement)| Fix { span, replacement });
        let severity = Severity::Error;
        self.push(Diagnostic { rule, severity, file, span, message, hint, fix });
    }

    /// What a lint says of bytes of a file.
    fn warn(
        &mut self,
        rule: &'static str,
        file: &str,
        span: Option<Span>,
        message: String,
        hint: impl Into<String>,
    ) {
        let severity = rules::severity(rule);
        let fault = Fault::new(file, message).hint(hint);
        let Fault { file, message, hint, .. } = fault;
        self.push(Diagnostic { rule, severity, file, span, message, hint, fix: None });
    }

    fn report(mut self, files: usize) -> Report {
        let place = |it: &Diagnostic| it.span.map(|span| (span.start, span.end));
        self.all.sort_by(|one, other| {
            (&one.file, place(one), one.rule).cmp(&(&other.file, place(other), other.rule))
        });
        let more = self.all.len().saturating_sub(MAX_DIAGNOSTICS);
        self.all.truncate(MAX_DIAGNOSTICS);
        Report { diagnostics: self.all, cut: self.cut.saturating_add(more), files }
    }
}
