//! Results as pipelines read them: JUnit XML, the annotations of GitHub's workflows, Markdown.

mod github;
mod junit;
mod markdown;

use std::path::PathBuf;
use std::str::FromStr;

use placet_policy::coverage::Coverage;

use crate::exit::Failure;
use crate::print::Printer;
use crate::replace::replace;

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// What was not as expected.
    Failed(Vec<String>),
    /// Why it was not run.
    Skipped(String),
}

/// One test: a case, or a rule `test_...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// Its file, as the bundle names it.
    pub(crate) file: String,
    /// Line from 1, where known.
    pub(crate) line: Option<u32>,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// What each policy said, where it failed: lines of text.
    pub(crate) trace: Option<String>,
}

/// All that is told of one run.
#[derive(Debug)]
pub(crate) struct Results<'a> {
    /// Where the files are, as the caller named it, with a slash at its end; empty for an archive.
    pub(crate) prefix: String,
    pub(crate) tests: Vec<Test>,
    pub(crate) coverage: Option<&'a Coverage>,
}

impl Results<'_> {
    fn failed(&self) -> impl Iterator<Item = (&Test, &[String])> {
        self.tests.iter().filter_map(|test| match &test.outcome {
            Outcome::Failed(failures) => Some((test, failures.as_slice())),
            Outcome::Passed | Outcome::Skipped(_) => None,
        })
    }

    /// How many passed, failed, and were skipped.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count =
            |of: fn(&Outcome) -> bool| self.tests.iter().filter(|test| of(&test.outcome)).count();
        let passed = count(|outcome| *outcome == Outcome::Passed);
        let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
        (passed, failed, self.tests.len().saturating_sub(passed).saturating_sub(failed))
    }
}

/// In which form a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Junit,
    Github,
    Markdown,
}

/// A report that is asked for: `KIND=FILE`, or `github`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    kind: Kind,
    file: Option<PathBuf>,
}

impl FromStr for Report {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, file) = match text.split_once('=') {
            Some((kind, file)) => (kind, Some(file)),
            None => (text, None),
        };
        let kind = match kind {
            "junit" => Kind::Junit,
            "github" => Kind::Github,
            "markdown" => Kind::Markdown,
            _ => return Err("is none of junit=FILE, markdown=FILE, github, github=FILE".to_owned()),
        };
        if file.is_none_or(str::is_empty) && (kind != Kind::Github || file.is_some()) {
            return Err("names no file: write it as KIND=FILE".to_owned());
        }
        Ok(Self { kind, file: file.map(PathBuf::from) })
    }
}

impl Report {
    /// Whether it goes where the data of the command goes.
    pub(crate) fn is_printed(&self) -> bool {
        self.file.is_none()
    }

    /// Writes it: a file whole or not at all, or lines of data.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(
        &self,
        results: &Results<'_>,
        printer: &mut Printer,
    ) -> Result<(), Failure> {
        let text = match self.kind {
            Kind::Junit => junit::text(results)?,
            Kind::Github => github::text(results),
            Kind::Markdown => markdown::text(results),
        };
        match &self.file {
            Some(file) => replace(file, text.as_bytes()),
            None if text.is_empty() => Ok(()),
            None => printer.data(text.trim_end_matches('\n')),
        }
    }
}

#[cfg(test)]
mod tests;
