//! OPA's `test_` rules of a bundle, beside its cases.

use placet_policy::opa::{RuleTestReport, TestOutcome, run_rule_tests};
use placet_policy::{Bundle, LoadError};

use crate::exit::Failure;
use crate::print::{Printer, Tone, plain};
use crate::report::{Outcome, Test};

/// Runs and reports those whose file or name contains `only`.
pub(super) fn run(
    bundle: &Bundle,
    only: &str,
    invalid: impl Fn(&LoadError) -> Failure,
    printer: &mut Printer,
) -> Result<Vec<Test>, Failure> {
    let mut tests = Vec::new();
    let reports = run_rule_tests(bundle).map_err(|error| invalid(&error))?;
    for report in reports.iter().filter(|it| it.rule.contains(only) || it.file.contains(only)) {
        tell(report, printer)?;
        let outcome = match &report.outcome {
            TestOutcome::Passed => Outcome::Passed,
            TestOutcome::Failed(why) | TestOutcome::Error(why) => {
                Outcome::Failed(vec![why.clone()])
            }
            TestOutcome::Skipped { detail, .. } => Outcome::Skipped(detail.clone()),
        };
        let (file, name, line) = (report.file.clone(), report.rule.clone(), Some(report.line));
        tests.push(Test { file, line, name, outcome, trace: None });
    }
    Ok(tests)
}

fn tell(report: &RuleTestReport, printer: &mut Printer) -> Result<(), Failure> {
    let RuleTestReport { file, rule, line, outcome } = report;
    let (tone, word, why) = match outcome {
        TestOutcome::Passed => (Tone::Good, "ok", None),
        TestOutcome::Failed(why) => (Tone::Bad, "FAIL", Some(why)),
        TestOutcome::Error(why) => (Tone::Bad, "ERROR", Some(why)),
        TestOutcome::Skipped { detail, .. } => (Tone::Warn, "skip", Some(detail)),
    };
    let failed = matches!(outcome, TestOutcome::Failed(_) | TestOutcome::Error(_));
    if printer.json() {
        let mut json = serde_json::json!({
            "file": file,
            "case": rule,
            "line": line,
            "passed": *outcome == TestOutcome::Passed,
            "failures": why.filter(|_| failed).into_iter().collect::<Vec<_>>(),
        });
        if let TestOutcome::Skipped { reason, .. } = outcome {
            json["skipped"] = (*reason).into();
        }
        return printer.data(&json.to_string());
    }
    let gap = " ".repeat(6_usize.saturating_sub(word.len()));
    let word = printer.tone(tone, word);
    let (file, rule) = (plain(file), plain(rule));
    if !failed {
        return printer.data(&format!("{word}{gap}{file}: {rule}"));
    }
    printer.data(&format!("{word}{gap}{file}:{line}: {rule}"))?;
    for line in why.map(|why| plain(why)).unwrap_or_default().lines() {
        printer.data(&format!("      {line}"))?;
    }
    Ok(())
}
