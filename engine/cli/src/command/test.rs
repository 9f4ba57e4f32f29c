//! `placet test`: runs a bundle's cases, its twins against them, and its `test_` rules; or OPA's
//! conformance cases.

mod coverage;
mod opa;
mod rules;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use placet_policy::coverage::Recorder;
use placet_policy::opa::record_rule_tests;
use placet_policy::{Bundle, CaseReport, CaseRunner, LoadError, PolicySet, WasmRuntime};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::print::{Printer, Tone, plain};
use crate::report::{Outcome, Report, Results, Test};

const EXAMPLES: &str = "\
Cases are the files <dir>/cases/*.yaml of the bundle. Where a policy has a twin,
both must give the same verdicts. Rules `test_...` of its files *_test.rego run
as OPA runs them. Exit code: 0 all passed, 1 one failed or --min is not reached,
3 the bundle is invalid.

With --coverage, all run once more over policies with marks in them. A rule is
reached if one of them has it give a value; each definition, each `else` and
each default counts for itself. A line is reached if something on it is
evaluated. Components are not measured.

Pipelines read reports: --report junit=FILE for the test views of Jenkins,
GitLab and others, --report markdown=FILE for a summary beside the change, and
--report github for annotations at the lines of failures.

Examples:
  placet test policies/reference
  placet test reference.tar.gz
  placet test --format json policies/reference
  placet test --coverage --min 95 policies/reference
  placet test --report junit=junit.xml --report github policies/reference
  placet test --opa-cases opa/v1/test/cases/testdata/v1";

/// Run the cases of a policy bundle
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TestArgs {
    /// The bundle: a directory, or an archive of one
    #[arg(value_name = "BUNDLE", required_unless_present = "opa_cases")]
    bundle: Option<PathBuf>,
    /// Run the cases that OPA publishes to test an interpreter, instead
    #[arg(long, value_name = "PATH", conflicts_with = "bundle")]
    opa_cases: Option<PathBuf>,
    /// Only cases whose file or name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Tell which rules and lines of the Rego policies the cases and tests reach
    #[arg(long, conflicts_with_all = ["opa_cases", "only"])]
    coverage: bool,
    /// Fail if fewer of the rules of a policy are reached: percent, 0 to 100
    #[arg(long, value_name = "PERCENT", requires = "coverage")]
    #[arg(value_parser = clap::value_parser!(u8).range(..=100))]
    min: Option<u8>,
    /// Write what became of each test for a pipeline; can be given several times
    #[arg(long = "report", value_name = "KIND=FILE", conflicts_with = "opa_cases")]
    reports: Vec<Report>,
}

pub(super) fn run(args: &TestArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    let only = args.only.as_deref().unwrap_or_default();
    if printer.json() && args.reports.iter().any(Report::is_printed) {
        let failure = Failure::usage("annotations among JSON would be read by nobody");
        return Err(failure.hint("give the report a file: --report github=FILE"));
    }
    let path = match (&args.opa_cases, &args.bundle) {
        (Some(path), _) => return opa::run(path, only, printer),
        (None, Some(path)) => path,
        (None, None) => return Err(Failure::usage("no bundle is named")),
    };
    let bundle = Bundle::load(path).map_err(|error| invalid(&error))?;
    let runtime = WasmRuntime::new().map_err(|error| invalid(&error))?;
    let policies = PolicySet::compile(&bundle, &runtime).map_err(|error| invalid(&error))?;
    let twins = PolicySet::compile_twins(&bundle, &runtime).map_err(|error| invalid(&error))?;
    let twinned = twins.is_some();
    let mut runner = CaseRunner::new(Arc::new(policies), twins.map(Arc::new));
    let recorder = args.coverage.then(|| Recorder::new(&bundle));
    if let Some(recorder) = &recorder {
        let recorded = PolicySet::compile_recorded(&bundle, &runtime, recorder);
        runner = runner.recording(Arc::new(recorded.map_err(|error| invalid(&error))?));
    }
    let mut tests = Vec::new();
    for file in bundle.case_files() {
        let reports = runner.run(&bundle, &file, request).map_err(|error| invalid(&error))?;
        for report in reports.into_iter().filter(|report| wanted(args, report)) {
            tell(&report, printer)?;
            tests.push(result(report));
        }
    }
    let files = bundle.case_files().len();
    tests.extend(rules::run(&bundle, only, invalid, printer)?);
    let mut reached = true;
    let mut coverage = None;
    if let Some(recorder) = &recorder {
        record_rule_tests(&bundle, recorder).map_err(|error| invalid(&error))?;
        let report = coverage.insert(recorder.report());
        reached = coverage::tell(report, args.min, printer)?;
    }
    let prefix = if path.is_dir() { prefix(path) } else { String::new() };
    let results = Results { prefix, tests, coverage: coverage.as_ref() };
    args.reports.iter().try_for_each(|report| report.write(&results, printer))?;
    printer.flush()?;
    let exit = summary(&results, (files, twinned), path, args, printer)?;
    Ok(if reached { exit } else { Exit::Failed })
}

/// What stands before the names of a bundle's files where the caller is.
fn prefix(directory: &Path) -> String {
    let name = directory.to_string_lossy();
    let name = name.strip_prefix("./").unwrap_or(&name).trim_end_matches('/');
    if name.is_empty() || name == "." { String::new() } else { format!("{name}/") }
}

fn result(report: CaseReport) -> Test {
    let trace = trace(&report);
    let CaseReport { file, name, line, failures, evaluation: _ } = report;
    let outcome = if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures) };
    Test { file, line, name, outcome, trace }
}

fn summary(
    results: &Results<'_>,
    (files, twinned): (usize, bool),
    path: &Path,
    args: &TestArgs,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let (passed, failed, skipped) = results.counts();
    if passed + failed == 0 {
        let failure = Failure::new(format!("no case ran in `{}`", path.display()));
        return Err(match args.only {
            Some(_) => failure.hint("no case has the text of --only in its file or name"),
            None => failure.hint("write cases in files <dir>/cases/<name>.yaml of the bundle"),
        });
    }
    let twins = if twinned { ", twins held equal" } else { "" };
    let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    printer.note(&format!("{passed} passed, {failed} failed{skipped} in {files} files{twins}"));
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn wanted(args: &TestArgs, report: &CaseReport) -> bool {
    let text = args.only.as_deref().unwrap_or_default();
    report.name.contains(text) || report.file.contains(text)
}

/// Reads a case's request as the server reads one.
pub(super) fn request(json: &Value) -> Result<placet_core::AdmissionRequest, String> {
    placet_server::convert::parse_admit(&json.to_string()).map_err(|error| error.to_string())
}

fn tell(report: &CaseReport, printer: &mut Printer) -> Result<(), Failure> {
    let file = plain(&report.file);
    let failed = !report.failures.is_empty();
    if printer.json() {
        let mut line = serde_json::json!({
            "file": file,
            "case": report.name,
            "line": report.line,
            "passed": !failed,
            "failures": report.failures,
        });
        if let Some(evaluation) = report.evaluation.as_ref().filter(|_| failed) {
            line["candidates"] = serde_json::json!(evaluation.candidates);
        }
        return printer.data(&line.to_string());
    }
    let name = plain(&report.name);
    if !failed {
        let word = printer.tone(Tone::Good, "ok");
        return printer.data(&format!("{word}    {file}: {name}"));
    }
    let word = printer.tone(Tone::Bad, "FAIL");
    let line = report.line.map_or_else(String::new, |line| format!(":{line}"));
    printer.data(&format!("{word}  {file}{line}: {name}"))?;
    let failures = report.failures.iter().map(|failure| plain(failure));
    for text in failures.chain(trace(report)) {
        for line in text.lines() {
            printer.data(&format!("      {line}"))?;
        }
    }
    Ok(())
}

/// What each policy said where a case failed: of each GPU model that was tried.
fn trace(report: &CaseReport) -> Option<String> {
    let evaluation = report.evaluation.as_ref().filter(|_| !report.failures.is_empty())?;
    let tried = evaluation.candidates.iter();
    let tried = tried.map(|one| super::explain::policies(one.gpu_model.as_str(), &one.verdicts));
    Some(tried.collect::<Vec<_>>().join("\n"))
}

/// Why a bundle cannot be used; policies that are wrong have their own exit code.
pub(super) fn invalid(error: &LoadError) -> Failure {
    let exit = match error {
        LoadError::Invalid(_) => Exit::PolicyInvalid,
        _ => Exit::Failed,
    };
    Failure::from_error(error).with_exit(exit)
}
