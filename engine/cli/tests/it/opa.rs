//! OPA's `test_` rules and OPA's conformance cases, as a user runs them.

use crate::running::run;

#[test]
fn opas_cases_pass_or_are_skipped_by_reason() {
    let ran = run(["test", "--opa-cases", "engine/policy/tests/opa-cases"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("refused at load"), "{}", ran.stdout);
    insta::assert_snapshot!(ran.stderr, @"35 passed, 0 failed, 8 skipped in 2 files");
    let json = run(["test", "--format", "json", "--opa-cases", "engine/policy/tests/opa-cases"]);
    let last: serde_json::Value =
        serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["passed"], &last["failed"]), (&35.into(), &0.into()));
    assert_eq!(last["skipped"]["refused at load"], 3);
}

#[test]
fn a_case_that_opa_answers_otherwise_fails_the_run() {
    let ran = run(["test", "--opa-cases", "engine/policy/tests/opa-wrong", "--only", "another v"]);
    insta::assert_snapshot!(ran.shown(&[]), @r#"
    exit 1
    --- stdout
    FAIL  wrong.yaml: another value
          expected [{"x":2}], got [{x: 1}]
    --- stderr
    0 passed, 1 failed, 0 skipped in 1 files
    "#);
    let none = run(["test", "--opa-cases", "policies/guests"]);
    assert_eq!(none.code, 1, "{}", none.stderr);
    assert_eq!(run(["test"]).code, 64);
}

#[test]
fn test_rules_run_beside_the_cases_and_count() {
    let ran = run(["test", "policies/reference", "--only", "isolation_test.rego"]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 0
    --- stdout
    ok    isolation/isolation_test.rego: test_a_level_that_is_offered_is_not_denied
    ok    isolation/isolation_test.rego: test_a_level_that_is_not_offered_is_denied
    ok    isolation/isolation_test.rego: test_a_job_is_held_to_the_same
    ok    isolation/isolation_test.rego: test_the_contract_is_kept
    ok    isolation/isolation_test.rego: test_restricted_data_of_another_is_denied_twice
    ok    isolation/isolation_test.rego: test_a_share_needs_sharing
    ok    isolation/isolation_test.rego: test_the_network_is_apart_from_the_level_in_the_params
    ok    isolation/isolation_test.rego: test_the_network_is_cut_as_its_fabric_can_be
    ok    isolation/isolation_test.rego: test_gpus_are_cut_in_the_preferred_way
    ok    isolation/isolation_test.rego: test_shares_are_cut_where_there_is_a_way
    ok    isolation/isolation_test.rego: test_hosts_are_had_whole
    ok    isolation/isolation_test.rego: test_neighbours_are_those_who_may_see_everything
    ok    isolation/isolation_test.rego: test_neighbours_that_are_too_many_to_name_are_nobody
    ok    isolation/isolation_test.rego: test_internal_data_is_read_by_those_who_are_named
    ok    isolation/isolation_test.rego: test_confidential_data_has_no_readers
    ok    isolation/isolation_test.rego: test_a_class_of_tenants_has_a_least_level
    skip  isolation/isolation_test.rego: todo_test_half_a_host
    --- stderr
    16 passed, 0 failed, 1 skipped in 6 files, twins held equal
    ");
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "bundle.yaml",
        "schema: placet.bundle/v1\nrevision: \"1\"\npolicies: [{name: p, source: p.rego}]\n",
    );
    write("p.rego", "package placet.p\n\nwarn contains {\"code\": \"A\", \"message\": \"m\"}\n");
    write("p_test.rego", "package placet.p_test\n\ntest_it if count(data.placet.p.warn) == 2\n");
    let ran = run(["test", directory.path().to_str().unwrap()]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    FAIL  p_test.rego:3: test_it
          is undefined
    --- stderr
    0 passed, 1 failed in 0 files
    ");
}
