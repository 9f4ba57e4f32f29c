//! What cases and `test_` rules reach of the shipped policies, and how reaching is counted.

use std::path::Path;
use std::sync::Arc;

use placet_policy::coverage::{Coverage, Part, Recorder};
use placet_policy::opa::record_rule_tests;
use placet_policy::{Bundle, CaseRunner, PolicySet, WasmRuntime};

/// Percent of the rules of every shipped policy that cases and tests have to reach.
const LEAST: u8 = 95;

fn covered(bundle: &Bundle) -> Coverage {
    let runtime = WasmRuntime::new().expect("the engine starts");
    let recorder = Recorder::new(bundle);
    let set = Arc::new(PolicySet::compile(bundle, &runtime).expect("it compiles"));
    let recorded = PolicySet::compile_recorded(bundle, &runtime, &recorder).expect("so it does");
    let mut runner = CaseRunner::new(set, None).recording(Arc::new(recorded));
    for file in bundle.case_files() {
        let reports = runner.run(bundle, &file, crate::request::convert).expect("they run");
        assert!(!reports.is_empty());
    }
    record_rule_tests(bundle, &recorder).expect("they run");
    recorder.report()
}

#[test]
fn the_shipped_rules_are_reached() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    let coverage = covered(&Bundle::load(&path).expect("the bundle loads"));
    assert_eq!(coverage.files.len(), 6, "every domain has Rego");
    assert!(coverage.unmeasured.is_empty());
    for file in &coverage.files {
        let missed: Vec<_> = file.rules.iter().filter(|rule| !rule.covered).collect();
        assert!(file.reaches(LEAST), "{}: {missed:#?}", file.file);
        assert!(file.lines_covered.len() > 10 * file.lines_missed.len(), "{file:?}");
    }
}

/// Each definition that the tests below make give a value is named so, by its value or its key.
const POLICY: &str = r#"package placet.parts

import rego.v1

always := "a text"

listed := ["yes", input.tenant.id]

listed_raw := `raw`

never_there := input.lease.start if input.tenant.id == "nobody"

chosen := "first" if {
	input.tenant.id == "nobody"
} else := "second" if {
	input.tenant.id == "lab"
} else := "third"

branch if {
	input.tenant.id == "nobody"
} else if {
	input.tenant.id == "lab"
}

default preset := {"a": 1}

preset := {"b": 2} if input.tenant.id == "nobody"

default unused := 1

unused := 2 if input.tenant.id == "lab"

holds if input.tenant.id == "lab"

by_key[name] := 1 if some name in ["x", "y"]

by_name.inner if holds

called(x) := x + 1

called_plain(x) if x > 3

uncalled(x) := x

deny contains {"code": "NEVER", "message": "never"} if input.tenant.id == "nobody"

warn contains {"code": "SEEN", "message": "seen"} if {
	called(1) == 2
	not called_plain(3)
	called_plain(4)
	some word in listed
	word == "yes"
}
"#;

const TEST: &str = r#"package placet.parts_test

import rego.v1

import data.placet.parts

test_all if {
	warned := parts.warn with input as {"tenant": {"id": "lab"}}
	count(warned) == 1
	parts.chosen == "second" with input as {"tenant": {"id": "lab"}}
	parts.branch with input as {"tenant": {"id": "lab"}}
	parts.preset.a == 1 with input as {"tenant": {"id": "lab"}}
	parts.unused == 2 with input as {"tenant": {"id": "lab"}}
	parts.by_key.x == 1 with input as {"tenant": {"id": "lab"}}
	parts.by_name.inner with input as {"tenant": {"id": "lab"}}
	parts.listed_raw == "raw" with input as {"tenant": {"id": "lab"}}
	parts.always == "a text" with input as {"tenant": {"id": "lab"}}
}
"#;

#[test]
fn each_definition_counts_that_gave_a_value() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("it is written");
    };
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\n\
        policies: [{name: parts, source: parts.rego}]\n";
    write("bundle.yaml", manifest);
    write("parts.rego", POLICY);
    write("parts_test.rego", TEST);
    let bundle = Bundle::load(directory.path()).expect("it loads");
    let nothing = Recorder::new(&bundle).report();
    assert_eq!(nothing.files[0].rules_covered(), (0, 0));
    let coverage = covered(&bundle);
    let [file] = coverage.files.as_slice() else { panic!("{coverage:?}") };
    let missed = file.rules.iter().filter(|rule| !rule.covered);
    let missed: Vec<_> = missed.map(|it| (it.rule.as_str(), it.line, it.part)).collect();
    let expected = [
        ("never_there", 11, Part::Body),
        ("chosen", 13, Part::Body),
        ("chosen", 17, Part::Else),
        ("branch", 19, Part::Body),
        ("preset", 27, Part::Body),
        ("unused", 29, Part::Default),
        ("uncalled", 43, Part::Body),
        ("deny", 45, Part::Body),
    ];
    assert_eq!(missed, expected);
    assert_eq!(file.rules_covered(), (13, 21));
    assert!(file.reaches(61) && !file.reaches(62));
    // The body of `uncalled` is all that nobody came by.
    assert!(file.lines_missed.contains(&43), "{:?}", file.lines_missed);
}
