//! Commands of GitHub's workflows: each failure becomes an annotation at its line.
//!
//! Their form is GitHub's ("Workflow commands for GitHub Actions"): properties and message escape
//! what would end them.

use super::Results;

/// Most annotations: GitHub shows ten of a step, and keeps no more than fifty of a job.
const MAX_ANNOTATIONS: usize = 50;

pub(super) fn text(results: &Results<'_>) -> String {
    let mut text = String::new();
    for (test, failures) in results.failed().take(MAX_ANNOTATIONS) {
        let file = property(&format!("{}{}", results.prefix, test.file));
        let line = test.line.map_or_else(String::new, |line| format!(",line={line}"));
        let (title, message) = (property(&test.name), message(&failures.join("\n")));
        text.push_str(&format!("::error file={file}{line},title={title}::{message}\n"));
    }
    let more = results.failed().count().saturating_sub(MAX_ANNOTATIONS);
    if more > 0 {
        text.push_str(&format!("::error::and {more} more failures\n"));
    }
    text
}

fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}
