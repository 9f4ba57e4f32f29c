//! `placet test --coverage`, as a user runs it.

use std::fs;

use crate::running::run;

#[test]
fn the_shipped_policies_are_reached() {
    let args = ["test", "--coverage", "--min", "95", "policies/reference"];
    let ran = run(args);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let rows = ran.stdout.lines().filter(|line| line.contains(".rego") && line.contains(" of "));
    assert_eq!(rows.count(), 6, "{}", ran.stdout);
    // The same run without it: the same cases, and nothing of them is different.
    let plain = run(["test", "policies/reference"]);
    assert_eq!(plain.stderr, ran.stderr);
    assert!(ran.stdout.starts_with(&plain.stdout));
    let json = run(args.into_iter().chain(["--format", "json"]));
    let last: serde_json::Value =
        serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["coverage"]["files"].as_array().unwrap().len(), 6);
    assert_eq!(last["coverage"]["unmeasured"], serde_json::json!([]));
}

#[test]
fn what_is_not_reached_is_named_and_fails_below_the_least() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let policy = "\
package placet.limit

deny contains {\"code\": \"LARGE\", \"message\": \"large\"} if {
\tcount(input.groups) > limit
}

limit := 1 if {
\tinput.kind == \"a\"
} else := 2 if {
\tinput.kind == \"b\"
\tcount(input.groups) > 0
}

words(group) := upper(group)
";
    let policy = policy.replace("input.groups", "input.principal.groups");
    let policy = policy.replace("input.kind", "input.month");
    fs::write(at.join("limit.rego"), policy).unwrap();
    let tests = "package placet.limit_test\n\nimport data.placet.limit\n\n\
        test_it if count(limit.deny) == 0 with input as {\"month\": \"a\", \
        \"principal\": {\"groups\": []}}\n";
    fs::write(at.join("limit_test.rego"), tests).unwrap();
    let component = crate::server::root().join("policies/reference/isolation/isolation.wasm");
    fs::copy(component, at.join("apart.wasm")).unwrap();
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n\
        \x20 - {name: limit, source: limit.rego}\n\
        \x20 - {name: apart, source: apart.wasm, params: {network_obligation_from: SHARED}}\n";
    fs::write(at.join("bundle.yaml"), manifest).unwrap();
    let path = at.to_str().unwrap();
    let ran = run(["test", "--coverage", "--min", "26", path]);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    ok    limit_test.rego: test_it

     coverage    rules           lines
     limit.rego  1 of 4  25.0 %  3 of 7  42.8 %
    limit.rego:3: `deny` never gives a value
    limit.rego:9: `limit` never gives the value of this `else`
    limit.rego:14: `words` never gives a value
    limit.rego: nothing is evaluated on lines 3, 10-11, 14
    `apart` is WebAssembly: its coverage is not measured
    --- stderr
    limit.rego: 25.0 % of its rules are reached, not 26 %
    1 passed, 0 failed in 0 files
    ");
    assert_eq!(run(["test", "--coverage", "--min", "25", path]).code, 0);
    assert_eq!(run(["test", "--min", "25", path]).code, 64);
    assert_eq!(run(["test", "--coverage", "--min", "101", path]).code, 64);
    assert_eq!(run(["test", "--coverage", "--only", "x", path]).code, 64);
}
