use proptest::prelude::*;
use quick_junit::{Report as Junit, TestCaseStatus};

use super::*;

fn results(tests: Vec<Test>) -> Results<'static> {
    Results { prefix: "policies/".to_owned(), tests, coverage: None }
}

fn some_test() -> impl Strategy<Value = Test> {
    let text = || prop_oneof![3 => "[ -~]{1,20}", 1 => any::<String>()];
    let outcome = prop_oneof![
        Just(Outcome::Passed),
        prop::collection::vec(text(), 1..4).prop_map(Outcome::Failed),
        text().prop_map(Outcome::Skipped),
    ];
    let line = prop::option::of(1..100_u32);
    let test = |(file, line, name, outcome)| Test { file, line, name, outcome, trace: None };
    ("[a-c]\\.yaml", line, text(), outcome).prop_map(test)
}

proptest! {
    /// Whatever the names and failures are: XML has every test in it, with what became of it.
    #[test]
    fn junit_reads_back(tests in prop::collection::vec(some_test(), 0..20)) {
        let results = results(tests);
        let read = Junit::deserialize_from_str(&junit::text(&results).unwrap()).unwrap();
        let (passed, failed, skipped) = results.counts();
        prop_assert_eq!((read.tests, read.failures), (passed + failed + skipped, failed));
        let cases: Vec<_> = read.test_suites.iter().flat_map(|suite| &suite.test_cases).collect();
        prop_assert_eq!(cases.len(), results.tests.len());
        for (case, test) in cases.iter().zip(&results.tests) {
            let is_same = matches!(
                (&case.status, &test.outcome),
                (TestCaseStatus::Success { .. }, Outcome::Passed)
                    | (TestCaseStatus::NonSuccess { .. }, Outcome::Failed(_))
                    | (TestCaseStatus::Skipped { .. }, Outcome::Skipped(_))
            );
            prop_assert!(is_same, "{case:?}");
        }
    }

    /// One line for each failure, and nothing in a name or a message begins another command.
    #[test]
    fn nothing_ends_an_annotation(tests in prop::collection::vec(some_test(), 0..20)) {
        let results = results(tests);
        let text = github::text(&results);
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        prop_assert_eq!(lines.len(), results.counts().1);
        for (line, (test, failures)) in lines.iter().zip(results.failed()) {
            let (head, said) = line.strip_prefix("::error ").unwrap().split_once("::").unwrap();
            let unescape = |text: &str| {
                let text = text.replace("%2C", ",").replace("%3A", ":");
                text.replace("%0A", "\n").replace("%0D", "\r").replace("%25", "%")
            };
            prop_assert_eq!(unescape(said), failures.join("\n"));
            let parts: Vec<&str> = head.split(',').collect();
            prop_assert_eq!(parts.len(), 2 + usize::from(test.line.is_some()));
            let title = parts.last().unwrap().strip_prefix("title=").unwrap();
            prop_assert_eq!(unescape(title), test.name.clone());
        }
    }

    /// A failure is one item of the list, whatever is in it.
    #[test]
    fn nothing_ends_an_item(tests in prop::collection::vec(some_test(), 0..20)) {
        let results = results(tests);
        let text = markdown::text(&results);
        let items: usize = results.failed().map(|(_, failures)| 1 + failures.len()).sum();
        let found = text.lines().filter(|line| line.trim_start().starts_with("- ")).count();
        prop_assert_eq!(found, items);
    }
}

#[test]
fn many_failures_are_cut_and_counted() {
    let test = |number: usize| Test {
        file: "cases.yaml".to_owned(),
        line: None,
        name: number.to_string(),
        outcome: Outcome::Failed(vec!["no".to_owned()]),
        trace: None,
    };
    let results = results((0..120).map(test).collect());
    assert!(github::text(&results).ends_with("::error::and 70 more failures\n"));
    assert!(markdown::text(&results).ends_with("- and 20 more\n"));
}

#[test]
fn what_is_no_report_is_refused() {
    for (text, expected) in [
        ("xml=x", "is none of junit=FILE"),
        ("junit", "names no file"),
        ("junit=", "names no file"),
        ("github=", "names no file"),
        ("", "is none of"),
    ] {
        let error = Report::from_str(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!(Report::from_str("github").unwrap().is_printed());
    assert!(!Report::from_str("markdown=a=b").unwrap().is_printed());
}
