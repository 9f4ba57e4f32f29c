//! `placet test --opa-cases`: OPA's conformance cases on the interpreter of policies.

use std::collections::BTreeMap;
use std::path::Path;

use placet_policy::LoadError;
use placet_policy::opa::{OpaReport, TestOutcome, opa_case_files, run_opa_file};

use crate::exit::{Exit, Failure};
use crate::print::{Printer, Tone, plain, table};

#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: BTreeMap<&'static str, usize>,
    files: usize,
}

/// Runs every case below a path whose file or note contains `only`.
pub(super) fn run(path: &Path, only: &str, printer: &mut Printer) -> Result<Exit, Failure> {
    let files = opa_case_files(path).map_err(|error| Failure::from_error(&error))?;
    let mut counts = Counts::default();
    for file in files {
        counts.files += 1;
        let shown = file.strip_prefix(path).ok().filter(|rest| !rest.as_os_str().is_empty());
        let shown = shown.unwrap_or(&file).display().to_string();
        let reports = run_opa_file(&file).unwrap_or_else(|error| vec![unreadable(&error)]);
        let wanted = |report: &&OpaReport| report.note.contains(only) || shown.contains(only);
        for report in reports.iter().filter(wanted) {
            counts.add(&report.outcome);
            tell(report, &shown, printer)?;
        }
    }
    counts.tell(path, printer)
}

/// A file that is none of cases is not passed over.
fn unreadable(error: &LoadError) -> OpaReport {
    OpaReport {
        note: "the file as a whole".into(),
        outcome: TestOutcome::Failed(error.to_string()),
    }
}

fn tell(report: &OpaReport, file: &str, printer: &mut Printer) -> Result<(), Failure> {
    let OpaReport { note, outcome } = report;
    let failure = match outcome {
        TestOutcome::Failed(why) | TestOutcome::Error(why) => Some(why),
        TestOutcome::Passed | TestOutcome::Skipped { .. } => None,
    };
    if printer.json() {
        let mut json = serde_json::json!({
            "file": file,
            "case": note,
            "passed": *outcome == TestOutcome::Passed,
            "failures": failure.into_iter().collect::<Vec<_>>(),
        });
        if let TestOutcome::Skipped { reason, detail } = outcome {
            json["skipped"] = (*reason).into();
            json["detail"] = detail.as_str().into();
        }
        return printer.data(&json.to_string());
    }
    // Some thousand cases that pass would hide the one that fails.
    let Some(failure) = failure else { return Ok(()) };
    let word = printer.tone(Tone::Bad, "FAIL");
    printer.data(&format!("{word}  {}: {}", plain(file), plain(note)))?;
    for line in plain(failure).lines() {
        printer.data(&format!("      {line}"))?;
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, outcome: &TestOutcome) {
        match outcome {
            TestOutcome::Passed => self.passed += 1,
            TestOutcome::Failed(_) | TestOutcome::Error(_) => self.failed += 1,
            TestOutcome::Skipped { reason, .. } => *self.skipped.entry(reason).or_default() += 1,
        }
    }

    fn tell(&self, path: &Path, printer: &mut Printer) -> Result<Exit, Failure> {
        let Self { passed, failed, skipped, files } = self;
        let left_out: usize = skipped.values().sum();
        if passed + failed + left_out == 0 {
            let failure = Failure::new(format!("no case ran in `{}`", path.display()));
            return Err(failure.hint("name a file or a directory of OPA's cases"));
        }
        if printer.json() {
            let summary = serde_json::json!({
                "passed": passed,
                "failed": failed,
                "skipped": skipped,
            });
            printer.data(&summary.to_string())?;
        } else if left_out > 0 {
            let mut table = table(["SKIPPED", "CASES"]);
            for (reason, count) in skipped {
                table.add_row([(*reason).to_owned(), count.to_string()]);
            }
            printer.data(&table.trim_fmt())?;
        }
        printer.flush()?;
        printer.note(&format!(
            "{passed} passed, {failed} failed, {left_out} skipped in {files} files"
        ));
        Ok(if *failed == 0 { Exit::Done } else { Exit::Failed })
    }
}
