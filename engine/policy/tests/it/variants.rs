//! Cases with params of their own.

use std::fs;
use std::path::Path;

use placet_policy::{Bundle, CaseReport, CaseRunner, PolicySet, WasmRuntime};

const MANIFEST: &str = "\
schema: placet.bundle/v1
revision: \"1\"
policies:
  - name: limit
    source: limit.rego
    params: {most: {EXTERNAL_COMMERCIAL: 8, INTERNAL_RESEARCH: 64}, least: 1}
    params_schema: limit.schema.json
";
const POLICY: &str = r#"package placet.limit

import rego.v1

default most := 0

most := data.params.most[input.priority_class]

deny contains {"code": "TOO_MANY", "message": "too many"} if input.lease.gpu_count > most

params_wrong(given) := {wrong |
	some class, number in given.most
	number < given.least
	wrong := {"path": sprintf("most.%s", [class]), "message": "is below least"}
}
"#;
const SCHEMA: &str = r#"{"type": "object", "properties": {
    "most": {"type": "object", "additionalProperties": {"type": "integer"}},
    "least": {"type": "integer"}}, "additionalProperties": false}"#;
const REQUEST: &str = "request: {request_id: r, tenant_id: polder-vision, \
    priority_class: EXTERNAL_COMMERCIAL, lease: {cluster_id: de-fra-1, gpu_count: 8, \
    duration_seconds: 3600, isolation_level: PARTITIONED, gpu_models: [H100]}}\n";

fn run(cases: &str) -> Result<Vec<CaseReport>, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference/facts.yaml");
    let facts = fs::read_to_string(shipped).expect("the facts");
    fs::create_dir(directory.path().join("cases")).expect("it is made");
    let cases = format!("facts: ../facts.yaml\n{REQUEST}cases:\n{cases}");
    for (path, text) in [
        ("bundle.yaml", MANIFEST),
        ("limit.rego", POLICY),
        ("limit.schema.json", SCHEMA),
        ("facts.yaml", &facts),
        ("cases/c.yaml", &cases),
    ] {
        fs::write(directory.path().join(path), text).expect("it is written");
    }
    let bundle = Bundle::load(directory.path()).expect("it loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
    let mut runner = CaseRunner::new(set.into(), None);
    let reports = runner.run(&bundle, "cases/c.yaml", crate::request::convert);
    reports.map_err(|error| error.to_string())
}

/// What is wrong with each case, in order.
fn failures(cases: &str) -> Vec<String> {
    let reports = run(cases).expect("the cases run");
    reports.into_iter().map(|report| report.failures.join("; ")).collect()
}

fn case(name: &str, rest: &str) -> String {
    format!("- {{name: {name}, time: 1795262400, {rest}}}\n")
}

#[test]
fn params_of_a_case_lie_over_those_of_the_manifest() {
    let permit = "expect: {effect: PERMIT}";
    let deny = "expect: {effect: DENY, codes: [TOO_MANY]}";
    let cases = [
        ("a", "", permit),
        ("b", "params: {limit: {most: {EXTERNAL_COMMERCIAL: 7}}}, ", deny),
        // What was laid over for one case is gone for the next.
        ("c", "", permit),
        ("d", "params: {limit: {most: {INTERNAL_RESEARCH: 1}}}, ", permit),
        ("e", "params: {limit: {most: {EXTERNAL_COMMERCIAL: null}}}, ", deny),
        ("f", "params: {limit: {most: null}}, ", deny),
        ("g", "params: {limit: {}}, ", permit),
        ("h", "params: {limit: {most: {EXTERNAL_COMMERCIAL: \"9\"}}}, unchecked: true, ", permit),
        ("i", "params: {limit: {least: 9, x: 1}}, unchecked: true, ", permit),
    ];
    let cases = cases.map(|(name, params, expect)| case(name, &format!("{params}{expect}")));
    assert_eq!(failures(&cases.concat()), [""; 9]);
}

#[test]
fn what_loading_refuses_can_be_expected_and_fails_a_case_else() {
    let wrong = "params: {limit: {least: 9}}";
    let unknown = "params: {limit: {mots: {}}}";
    let told = failures(
        &[
            case(
                "a",
                &format!("{wrong}, expect: {{refused: \"of policy `limit` is below least\"}}"),
            ),
            case("b", &format!("{unknown}, expect: {{refused: \"is not in its schema\"}}")),
            case("c", &format!("{wrong}, expect: {{effect: PERMIT}}")),
            case("d", &format!("{unknown}, expect: {{refused: \"is below least\"}}")),
            case("e", "params: {limit: {least: 2}}, expect: {refused: least}"),
        ]
        .concat(),
    );
    assert_eq!((told[0].as_str(), told[1].as_str()), ("", ""));
    insta::assert_snapshot!(told[2], @r"
    the params are refused: bundle.yaml:6:42: `params.most.EXTERNAL_COMMERCIAL` of policy `limit` is below least
    hint: mend one of the params that contradict each other
    ");
    insta::assert_snapshot!(told[3], @r"
    the params are refused: bundle.yaml:6:13: `params.mots` of policy `limit` is not in its schema
    hint: did you mean `most`?
    ");
    assert_eq!(told[4], "the params are not refused");
}

#[test]
fn a_code_that_nothing_can_say_is_told_where_a_case_fails() {
    let told = failures(
        &[
            case("a", "expect: {effect: DENY, codes: [TOO_MNY]}"),
            case("b", "expect: {codes: [UNKNOWN_TENANT, TOO_MANY, QUOTA_EXCEEDED]}"),
            case("c", "expect: {warnings: [UNKNOWN_TENNANT]}"),
        ]
        .concat(),
    );
    insta::assert_snapshot!(told.join("\n\n"), @r#"
    effect: Permit, not Deny; codes: {}, not {"TOO_MNY"}; no policy has the code `TOO_MNY` in it
    hint: did you mean `TOO_MANY`?

    codes: {}, not {"QUOTA_EXCEEDED", "TOO_MANY", "UNKNOWN_TENANT"}; no policy has the code `QUOTA_EXCEEDED` in it
    hint: write one that a policy has; those of the ledger never come out of a case

    warnings: {}, not {"UNKNOWN_TENNANT"}; no policy has the code `UNKNOWN_TENNANT` in it
    hint: did you mean `UNKNOWN_TENANT`?
    "#);
}

#[test]
fn what_makes_no_sense_in_a_case_is_refused_with_a_remedy() {
    let refused = |rest: &str| {
        let message = run(&case("a", rest)).expect_err(rest);
        assert!(
            message.starts_with("cases/c.yaml:4:") && message.contains("\nhint: "),
            "{message}"
        );
        message
    };
    for (rest, expected) in [
        ("params: {limti: {least: 2}}, expect: {}", "`limti`, which is no policy\nhint: did you"),
        ("params: {limit: 7}, expect: {}", "params of `limit` that are no mapping"),
        ("params: {limit: null}, expect: {}", "params of `limit` that are no mapping"),
        ("expect: {refused: x}", "expects more than that its params are refused"),
        ("params: {limit: {}}, expect: {refused: x, codes: []}", "expects more than"),
        ("params: {limit: {}}, unchecked: true, expect: {refused: x}", "is never refused"),
    ] {
        let message = refused(rest);
        assert!(message.contains(expected), "{rest}: {message}");
    }
    let many = |count: u32| {
        let least = |at| {
            case(
                &format!("c{at}"),
                &format!(
                    "params: {{limit: {{least: {at}}}}}, \
            unchecked: true, expect: {{effect: PERMIT}}"
                ),
            )
        };
        // Each of them twice: the same params count once.
        let again = case("z", "params: {limit: {least: 1}}, unchecked: true, expect: {}");
        run(&((1..=count).map(least).collect::<String>() + &again))
    };
    assert_eq!(many(64).map(|reports| reports.len()), Ok(65));
    let message = many(65).expect_err("one too many");
    assert!(message.contains("case `c65` is the one after 64 different params"), "{message}");
}
