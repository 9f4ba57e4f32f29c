//! `placet test --report`, as a pipeline reads it.

use std::fs;
use std::path::Path;

use crate::running::run;
use crate::server::root;

/// A bundle with a case that passes, one that fails, and tests of all three kinds.
fn bundle(at: &Path) {
    let policy = "\
package placet.limit

deny contains {\"code\": \"LARGE\", \"message\": \"large\"} if input.lease.gpu_count > 8
";
    fs::write(at.join("limit.rego"), policy).unwrap();
    let tests = "\
package placet.limit_test

import data.placet.limit

test_small if count(limit.deny) == 0 with input as {\"lease\": {\"gpu_count\": 1}}

test_large if count(limit.deny) == 0 with input as {\"lease\": {\"gpu_count\": 9}}

todo_test_later if false
";
    fs::write(at.join("limit_test.rego"), tests).unwrap();
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\npolicies:\n\
        \x20 - {name: limit, source: limit.rego}\n";
    fs::write(at.join("bundle.yaml"), manifest).unwrap();
    fs::copy(root().join("policies/reference/facts.yaml"), at.join("facts.yaml")).unwrap();
    fs::create_dir(at.join("cases")).unwrap();
    let cases = "\
facts: ../facts.yaml
request:
  request_id: case
  tenant_id: polder-vision
  priority_class: EXTERNAL_COMMERCIAL
  lease:
    cluster_id: de-fra-1
    gpu_count: 8
    duration_seconds: 3600
    isolation_level: PARTITIONED
    gpu_models: [H100]
cases:
  - name: eight are few
    time: 1795262400
    expect: {effect: PERMIT}
  - name: \"50 % more, or: nine | `are` few\"
    time: 1795262400
    request: {lease: {gpu_count: 9}}
    expect: {effect: PERMIT, codes: []}
";
    fs::write(at.join("cases/limit.yaml"), cases).unwrap();
}

#[test]
fn a_pipeline_is_told_what_failed_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    bundle(at);
    let path = at.to_str().unwrap();
    let junit = format!("junit={path}/junit.xml");
    let reports = ["--report", &junit, "--report", "github"];
    let ran = run(["test", "--coverage", path].into_iter().chain(reports));
    insta::assert_snapshot!(ran.shown(&[(path.trim_start_matches('/'), "DIR")]), @r#"
    exit 1
    --- stdout
    ok    cases/limit.yaml: eight are few
    FAIL  cases/limit.yaml:16: 50 % more, or: nine | `are` few
          effect: Deny, not Permit
          codes: {"LARGE"}, not {}
          with H100:
           POLICY  VERDICT  CLAIMS, REASONS, DUTIES
           limit   deny     LARGE: large
    ok    limit_test.rego: test_small
    FAIL  limit_test.rego:7: test_large
          is undefined
    skip  limit_test.rego: todo_test_later

     coverage    rules            lines
     limit.rego  1 of 1  100.0 %  1 of 1  100.0 %
    ::error file=/DIR/cases/limit.yaml,line=16,title=50 %25 more%2C or%3A nine | `are` few::effect: Deny, not Permit%0Acodes: {"LARGE"}, not {}
    ::error file=/DIR/limit_test.rego,line=7,title=test_large::is undefined
    --- stderr
    2 passed, 2 failed, 1 skipped in 1 files
    "#);
    let junit = fs::read_to_string(at.join("junit.xml")).unwrap();
    insta::assert_snapshot!(junit, @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="placet" tests="5" skipped="1" failures="2" errors="0">
        <testsuite name="cases/limit.yaml" tests="2" skipped="0" errors="0" failures="1">
            <testcase name="eight are few" classname="cases/limit.yaml"/>
            <testcase name="50 % more, or: nine | `are` few" classname="cases/limit.yaml">
                <failure message="effect: Deny, not Permit">cases/limit.yaml:16: 50 % more, or: nine | `are` few
    effect: Deny, not Permit
    codes: {&quot;LARGE&quot;}, not {}</failure>
                <system-out>with H100:
     POLICY  VERDICT  CLAIMS, REASONS, DUTIES
     limit   deny     LARGE: large</system-out>
            </testcase>
        </testsuite>
        <testsuite name="limit_test.rego" tests="3" skipped="1" errors="0" failures="1">
            <testcase name="test_small" classname="limit_test.rego"/>
            <testcase name="test_large" classname="limit_test.rego">
                <failure message="is undefined">limit_test.rego:7: test_large
    is undefined</failure>
            </testcase>
            <testcase name="todo_test_later" classname="limit_test.rego">
                <skipped message="its name begins with `todo_`"/>
            </testcase>
        </testsuite>
    </testsuites>
    "#);
}

#[test]
fn a_reviewer_reads_a_summary() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    bundle(at);
    let path = at.to_str().unwrap();
    let ran = run(["test", "--coverage", path, "--report", &format!("markdown={path}/summary.md")]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let summary = fs::read_to_string(at.join("summary.md")).unwrap();
    insta::assert_snapshot!(summary, @r#"
    ## Policies fail

    | passed | failed | skipped |
    |---:|---:|---:|
    | 2 | 2 | 1 |

    ### Failures

    - `cases/limit.yaml:16` `` 50 % more, or: nine | `are` few ``
      - `effect: Deny, not Permit`
      - `codes: {"LARGE"}, not {}`
    - `limit_test.rego:7` `test_large`
      - `is undefined`

    ### Coverage of rules

    | policy | reached | of |
    |---|---:|---:|
    | `limit.rego` | 1 | 1 |
    "#);
}

#[test]
fn what_passes_is_no_annotation() {
    let args = ["test", "--only", "quota/", "--report", "github", "policies/reference"];
    let ran = run(args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stdout.contains("::"), "{}", ran.stdout);
}

#[test]
fn a_report_that_cannot_be_written_says_so() {
    let directory = tempfile::tempdir().unwrap();
    bundle(directory.path());
    let path = directory.path().to_str().unwrap();
    let missing = format!("junit={path}/missing/junit.xml");
    let ran = run(["test", "--only", "eight", "--report", &missing, path]);
    insta::assert_snapshot!(ran.shown(&[(path, "DIR")]), @r"
    exit 1
    --- stdout
    ok    cases/limit.yaml: eight are few
    --- stderr
    error: cannot write `DIR/missing/junit.xml`: entity not found
     hint: name a file in a directory that you may write to
    ");
    let ran = run(["test", "--report", "xml=x", path]);
    insta::assert_snapshot!(ran.shown(&[(path, "DIR")]), @r"
    exit 64
    --- stdout
    --- stderr
    error: invalid value 'xml=x' for '--report <KIND=FILE>': is none of junit=FILE, markdown=FILE, github, github=FILE

    For more information, try '--help'.
    ");
    let ran = run(["test", "--format", "json", "--report", "github", path]);
    insta::assert_snapshot!(ran.shown(&[(path, "DIR")]), @r"
    exit 64
    --- stdout
    --- stderr
    error: annotations among JSON would be read by nobody
     hint: give the report a file: --report github=FILE
    ");
}
