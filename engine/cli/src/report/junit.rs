//! JUnit XML, in the form that Jenkins' schema describes: a suite for each file.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Outcome, Results, Test};
use crate::exit::Failure;

pub(super) fn text(results: &Results<'_>) -> Result<String, Failure> {
    let mut report = Report::new("placet");
    for tests in results.tests.chunk_by(|one, next| one.file == next.file) {
        let Some(first) = tests.first() else { continue };
        let mut suite = TestSuite::new(first.file.as_str());
        suite.add_test_cases(tests.iter().map(case));
        report.add_test_suite(suite);
    }
    let failed = |error| Failure::new(format!("cannot write JUnit XML: {error}"));
    report.to_string().map_err(failed)
}

fn case(test: &Test) -> TestCase {
    let status = match &test.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed(failures) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(failures.first().map_or("failed", String::as_str));
            let place = test.line.map_or_else(String::new, |line| format!(":{line}"));
            let all = failures.join("\n");
            status.set_description(format!("{}{place}: {}\n{all}", test.file, test.name));
            status
        }
        Outcome::Skipped(why) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(why.as_str());
            status
        }
    };
    let mut case = TestCase::new(test.name.as_str(), status);
    case.set_classname(test.file.as_str());
    if let Some(trace) = &test.trace {
        case.set_system_out(trace.as_str());
    }
    case
}
