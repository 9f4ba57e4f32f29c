//! A summary in Markdown, as GitHub and GitLab draw it beside a change.

use super::Results;

/// Most failures that are written out: GitHub cuts a summary at 1 MiB.
const MAX_FAILURES: usize = 100;

pub(super) fn text(results: &Results<'_>) -> String {
    let (passed, failed, skipped) = results.counts();
    let verdict = if failed == 0 { "Policies pass" } else { "Policies fail" };
    let mut text = format!(
        "## {verdict}\n\n| passed | failed | skipped |\n|---:|---:|---:|\n\
         | {passed} | {failed} | {skipped} |\n"
    );
    if failed > 0 {
        text.push_str("\n### Failures\n\n");
    }
    for (test, failures) in results.failed().take(MAX_FAILURES) {
        let line = test.line.map_or_else(String::new, |line| format!(":{line}"));
        let (place, name) = (code(&format!("{}{line}", test.file)), code(&test.name));
        text.push_str(&format!("- {place} {name}\n"));
        for failure in failures {
            text.push_str(&format!("  - {}\n", code(failure)));
        }
    }
    if failed > MAX_FAILURES {
        text.push_str(&format!("- and {} more\n", failed - MAX_FAILURES));
    }
    if let Some(coverage) = results.coverage {
        text.push_str("\n### Coverage of rules\n\n| policy | reached | of |\n|---|---:|---:|\n");
        for file in &coverage.files {
            let (reached, all) = file.rules_covered();
            // A bar would end the cell, in code too.
            let name = code(&file.file).replace('|', "\\|");
            text.push_str(&format!("| {name} | {reached} | {all} |\n"));
        }
    }
    text
}

/// Text that stands for itself, on one line: fenced by one backtick more than it has in a row.
fn code(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.saturating_add(1));
    let gap = if longest > 0 { " " } else { "" };
    format!("{fence}{gap}{text}{gap}{fence}")
}
