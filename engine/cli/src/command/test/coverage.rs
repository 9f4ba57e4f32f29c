//! What of the Rego of a bundle its cases and tests reach, as a person or a pipeline reads it.

use std::collections::BTreeSet;

use placet_policy::coverage::{Coverage, FileCoverage, Part, RuleCoverage};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::print::{self, Printer, Tone, plain};

/// Prints it, and tells whether every file reaches `least` percent of its rules.
pub(super) fn tell(
    coverage: &Coverage,
    least: Option<u8>,
    printer: &mut Printer,
) -> Result<bool, Failure> {
    let least = least.unwrap_or(0);
    let below: Vec<_> = coverage.files.iter().filter(|file| !file.reaches(least)).collect();
    if printer.json() {
        printer.data(&line(coverage).to_string())?;
    } else {
        page(coverage, least, printer)?;
    }
    printer.flush()?;
    for file in &below {
        let (covered, all) = file.rules_covered();
        let (name, reached) = (plain(&file.file), percent(covered, all));
        printer.note(&format!("{name}: {reached} of its rules are reached, not {least} %"));
    }
    Ok(below.is_empty())
}

fn page(coverage: &Coverage, least: u8, printer: &mut Printer) -> Result<(), Failure> {
    printer.data("")?;
    let mut table = print::table(["coverage", "rules", "", "lines", ""]);
    for file in &coverage.files {
        let ((rules, all_rules), (lines, all_lines)) = (file.rules_covered(), lines(file));
        let tone = if file.reaches(least) { Tone::Good } else { Tone::Bad };
        table.add_row([
            plain(&file.file),
            format!("{rules} of {all_rules}"),
            printer.tone(tone, &percent(rules, all_rules)),
            format!("{lines} of {all_lines}"),
            percent(lines, all_lines),
        ]);
    }
    printer.data(&table.trim_fmt())?;
    for file in &coverage.files {
        let name = plain(&file.file);
        for RuleCoverage { rule, line, part, covered } in &file.rules {
            let what = match part {
                Part::Body => "never gives a value",
                Part::Else => "never gives the value of this `else`",
                Part::Default => "never takes its default",
            };
            if !covered {
                printer.data(&format!("{name}:{line}: `{}` {what}", plain(rule)))?;
            }
        }
        if !file.lines_missed.is_empty() {
            let ranges = ranges(&file.lines_missed);
            printer.data(&format!("{name}: nothing is evaluated on lines {ranges}"))?;
        }
    }
    for policy in &coverage.unmeasured {
        printer.data(&format!("`{policy}` is WebAssembly: its coverage is not measured"))?;
    }
    Ok(())
}

fn line(coverage: &Coverage) -> Value {
    let files = coverage.files.iter().map(|file| {
        let ((rules, all_rules), (lines, all_lines)) = (file.rules_covered(), lines(file));
        let missed = file.rules.iter().filter(|rule| !rule.covered);
        let missed: Vec<_> =
            missed.map(|it| json!({"rule": it.rule, "line": it.line, "part": it.part})).collect();
        json!({
            "file": plain(&file.file),
            "policies": file.policies,
            "rules": {"covered": rules, "all": all_rules, "missed": missed},
            "lines": {"covered": lines, "all": all_lines, "missed": file.lines_missed},
        })
    });
    let files: Vec<_> = files.collect();
    json!({"coverage": {"files": files, "unmeasured": coverage.unmeasured}})
}

fn lines(file: &FileCoverage) -> (usize, usize) {
    let covered = file.lines_covered.len();
    (covered, covered + file.lines_missed.len())
}

/// With one digit, rounded down: nothing incomplete is 100.
fn percent(covered: usize, all: usize) -> String {
    let permille = covered.saturating_mul(1_000).checked_div(all).unwrap_or(1_000);
    format!("{}.{} %", permille / 10, permille % 10)
}

/// `3-5, 9`
fn ranges(lines: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) == *line => *last = *line,
            _ => ranges.push((*line, *line)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}
