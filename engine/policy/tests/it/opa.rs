//! OPA's conformance cases and OPA's `test_` rules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use placet_policy::opa::{
    OpaReport, RuleTestReport, TestOutcome, opa_case_files, run_opa_file, run_rule_tests,
};
use placet_policy::{Bundle, PolicySet, WasmRuntime};

fn run(directory: &str) -> Vec<(PathBuf, OpaReport)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let files = opa_case_files(&root).expect("the files are there");
    let of = |file: PathBuf| {
        let reports = run_opa_file(&file).expect("it is a file of cases");
        reports.into_iter().map(move |report| (file.clone(), report))
    };
    files.into_iter().flat_map(of).collect()
}

#[test]
fn the_sample_passes_and_what_is_not_supported_is_skipped_by_reason() {
    let (mut passed, mut skipped) = (0, BTreeMap::new());
    for (file, report) in run("opa-cases") {
        match report.outcome {
            TestOutcome::Passed => passed += 1,
            TestOutcome::Skipped { reason, .. } => *skipped.entry(reason).or_insert(0) += 1,
            other => panic!("{}: {}: {other:?}", file.display(), report.note),
        }
    }
    assert_eq!(passed, 35);
    let expected = [
        ("refused at load", 3),
        ("spent its budget", 1),
        ("stopped by an error, where OPA goes on", 1),
        ("unknown key", 1),
        ("unsupported: environment", 1),
        ("unsupported: numbers beyond 64 bits", 1),
    ];
    assert_eq!(skipped, BTreeMap::from(expected));
}

#[test]
fn a_wrong_answer_is_caught() {
    let reports = run("opa-wrong");
    assert!(reports.len() >= 13);
    for (_, report) in reports {
        assert!(matches!(report.outcome, TestOutcome::Failed(_)), "{report:?}");
    }
}

#[test]
fn what_is_no_file_of_cases_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("a.yaml");
    for text in ["nothing: here\n", "cases: 7\n", "cases: [", "\u{0}"] {
        std::fs::write(&file, text).expect("it is written");
        assert!(run_opa_file(&file).is_err(), "{text}");
    }
    std::fs::write(directory.path().join("b.txt"), "not looked at").expect("it is written");
    assert_eq!(opa_case_files(directory.path()).expect("they are listed"), [file]);
}

const POLICY: &str = "# METADATA\n# title: T\n# custom:\n#   owner: team\npackage placet.p\n\n\
                      deny contains {\"code\": \"A\", \"message\": \"m\"} if {\n\
                      input.time > data.params.max\n}\n";

fn bundle(test: &str) -> (tempfile::TempDir, Bundle) {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("it is written");
    };
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n\
                    - {name: p, source: p.rego, params: {max: 3}}\n";
    write("bundle.yaml", manifest);
    write("p.rego", POLICY);
    write("p_test.rego", test);
    let bundle = Bundle::load(directory.path()).expect("it loads");
    (directory, bundle)
}

fn tests(text: &str) -> Vec<RuleTestReport> {
    run_rule_tests(&bundle(text).1).expect("they run")
}

#[test]
fn test_rules_run_as_opa_runs_them() {
    let reports = tests(
        "package placet.p_test\n\nimport data.placet.p\n\n\
         test_denied if count(p.deny) == 1 with input as {\"time\": 4}\n\
         test_params if count(p.deny) == 0 with input as {\"time\": 4} with data.params.max as 9\n\
         test_false := false\n\
         test_undefined if p.deny[_].code == \"A\" with input as {\"time\": 1}\n\
         test_seven := 7\n\
         test_conflict := 1\ntest_conflict := true\n\
         test_error if to_number(\"x\") > 1\n\
         test_endless if count([1 | some a in numbers.range(1, 9999); some b in \
         numbers.range(1, 9999); a == b]) > 0\n\
         test_keys[x] if some x in [1]\n\
         todo_test_later if false\n\
         untested if false\n",
    );
    let word = |outcome: &TestOutcome| match outcome {
        TestOutcome::Passed => "ok".to_owned(),
        TestOutcome::Failed(why) => format!("FAIL {why}"),
        TestOutcome::Error(why) => format!("ERROR {why}"),
        TestOutcome::Skipped { reason, .. } => format!("skip {reason}"),
    };
    let shown: Vec<_> =
        reports.iter().map(|it| format!("{} {} {}", it.line, it.rule, word(&it.outcome))).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    5 test_denied ok
    6 test_params ok
    7 test_false FAIL is false
    8 test_undefined FAIL is undefined
    9 test_seven FAIL is 7
    10 test_conflict ERROR line 11, column 1: rule conflicts with rule at p_test.rego:10:1
    12 test_error ERROR line 12, column 24: could not parse string as number
    13 test_endless ERROR spent its budget of ticks
    14 test_keys ERROR a test is a rule without keys or arguments
    15 todo_test_later skip todo
    ");
}

#[test]
fn a_file_of_tests_keeps_to_what_policies_may_call() {
    for (text, expected) in [
        ("package placet.q_test\n\ntest_x if true\n", "tests no policy of the bundle"),
        ("package placet.p\n\ntest_x if http.send({}).a\n", "`http.send` is not allowed"),
        ("package placet.p\n\ntest_x if {\n", "p_test.rego:4"),
        ("package placet.p_test\n\ntest_x if 1 == 0.1\n", "p_test.rego:3"),
    ] {
        let error = run_rule_tests(&bundle(text).1).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert_eq!(tests("package placet.p\n\ntest_own if data.params.max == 3\n").len(), 1);
}

#[test]
fn the_shipped_tests_pass() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    let reports = run_rule_tests(&Bundle::load(&reference).expect("it loads")).expect("they run");
    let passed = reports.iter().filter(|report| report.outcome == TestOutcome::Passed).count();
    let failed: Vec<_> = reports
        .iter()
        .filter(|it| matches!(it.outcome, TestOutcome::Failed(_) | TestOutcome::Error(_)))
        .collect();
    assert!(passed >= 5 && failed.is_empty(), "{failed:?}");
}

#[test]
fn a_compiled_bundle_says_what_its_policies_are() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    let bundle = Bundle::load(&reference).expect("it loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
    for name in set.names() {
        let metadata = set.metadata(name.as_str()).expect("it is a policy");
        assert!(metadata.policy.title.is_some() && metadata.policy.owner.is_some(), "{name}");
        assert!(!metadata.policy.controls.is_empty() && !metadata.rules.is_empty(), "{name}");
    }
    let isolation = set.metadata("isolation").expect("it is a policy");
    assert!(isolation.policy.controls.contains(&"SOC2:CC6.1".to_owned()));
    let rule =
        isolation.rules.iter().find(|rule| rule.code.as_deref() == Some("DATASET_NOT_YOURS"));
    assert_eq!(rule.map(|rule| rule.rule.as_str()), Some("deny"));
    assert_eq!(set.metadata("nobody"), None);
}
