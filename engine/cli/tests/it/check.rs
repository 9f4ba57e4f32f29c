//! What `placet check` says, and what it mends.

use std::fs;
use std::path::Path;

use crate::running::{Ran, run};

const MANIFEST: &str = "schema: placet.bundle/v1
revision: \"1\"
policies:
  - name: p
    source: p.rego
    params: {max: 3}
";

const POLICY: &str = "# METADATA
# title: A policy
# description: For tests.
# custom:
#   owner: tests
package placet.p

import rego.v1
import data.params as unused

subject := input.lease

subject := input.job

# METADATA
# title: Too many
# custom:
#   code: TOO_MANY
deny contains {\"code\": \"TOO_MANY\", \"message\": \"there are too many of them\"} if {
\tinput.tenant.seat != \"US\"
\tsubject.gpu_cuont > data.params.max
\tinput.priority_class == \"INTERNAL_RESEACH\"
}
";

fn bundle(policy: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(directory.path().join(path), text).unwrap();
    write("bundle.yaml", MANIFEST);
    write("p.rego", policy);
    write("p_test.rego", "package placet.p_test\n\nimport rego.v1\n\ncode := \"TOO_MANY\"\n");
    directory
}

fn check(directory: &Path, more: &[&str]) -> Ran {
    run(["check".as_ref(), directory.as_os_str()].into_iter().chain(more.iter().map(AsRef::as_ref)))
}

#[test]
fn what_is_wrong_is_drawn_with_its_place_and_a_remedy() {
    let directory = bundle(POLICY);
    let ran = check(directory.path(), &[]);
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    insta::assert_snapshot!(ran.shown(&[]), @r#"
    exit 3
    --- stdout
    warning[unused-import]: nothing reads the import `unused`
      --> p.rego:9:1
      |
    9 | import data.params as unused
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = hint: remove it

    warning[undefined-deny]: `input.tenant.seat` may be absent, and nothing is
      denied then
      --> p.rego:20:2
       |
    20 |  input.tenant.seat != "US"
       |  ^^^^^^^^^^^^^^^^^
      = hint: say what its absence means: `object.get` with the strictest value, or
              a rule with `not input.tenant.seat`

    error[unknown-path]: `input.lease` has no field `gpu_cuont`
      --> p.rego:21:10
       |
    21 |  subject.gpu_cuont > data.params.max
       |          ^^^^^^^^^
      = hint: did you mean `gpu_count`?

    error[type]: `input.priority_class` is never "INTERNAL_RESEACH"
      --> p.rego:22:27
       |
    22 |  input.priority_class == "INTERNAL_RESEACH"
       |                           ^^^^^^^^^^^^^^^^
      = hint: did you mean "INTERNAL_RESEARCH"?

    --- stderr
    2 errors, 2 warnings in 3 files
    "#);
}

#[test]
fn tools_get_one_object_a_line() {
    let directory = bundle(POLICY);
    let ran =
        check(directory.path(), &["--format", "json", "--only", "unknown-path,unused-import"]);
    insta::assert_snapshot!(ran.shown(&[]), @r#"
    exit 3
    --- stdout
    {"file":"p.rego","fix":{"replacement":"","span":{"end":{"column":1,"line":10},"start":{"column":1,"line":9}}},"hint":"remove it","message":"nothing reads the import `unused`","rule":"unused-import","severity":"warning","span":{"end":{"column":29,"line":9},"start":{"column":1,"line":9}}}
    {"file":"p.rego","fix":{"replacement":"gpu_count","span":{"end":{"column":19,"line":21},"start":{"column":10,"line":21}}},"hint":"did you mean `gpu_count`?","message":"`input.lease` has no field `gpu_cuont`","rule":"unknown-path","severity":"error","span":{"end":{"column":19,"line":21},"start":{"column":10,"line":21}}}
    --- stderr
    1 error, 1 warning in 3 files
    "#);
}

#[test]
fn warnings_alone_have_an_exit_code_of_their_own_and_nothing_is_none() {
    let mended = POLICY.replace("cuont", "count").replace("RESEACH", "RESEARCH");
    let mended = mended.replace("import data.params as unused\n", "");
    let directory = bundle(&mended);
    insta::assert_snapshot!(check(directory.path(), &[]).shown(&[]), @r#"
    exit 1
    --- stdout
    warning[undefined-deny]: `input.tenant.seat` may be absent, and nothing is
      denied then
      --> p.rego:19:2
       |
    19 |  input.tenant.seat != "US"
       |  ^^^^^^^^^^^^^^^^^
      = hint: say what its absence means: `object.get` with the strictest value, or
              a rule with `not input.tenant.seat`

    --- stderr
    0 errors, 1 warning in 3 files
    "#);
    let ran = check(directory.path(), &["--only", "unused-import"]);
    insta::assert_snapshot!(ran.shown(&[]), @r#"
    exit 0
    --- stdout
    --- stderr
    0 errors, 0 warnings in 3 files
    "#);
    let shipped = run(["check", "policies/reference"]);
    assert_eq!((shipped.code, shipped.stdout.as_str()), (0, ""), "{}", shipped.stderr);
}

#[test]
fn what_is_mended_is_told_and_again_there_is_nothing_to_mend() {
    let directory = bundle(POLICY);
    let ran = check(directory.path(), &["--fix"]);
    insta::assert_snapshot!(ran.shown(&[]), @r#"
    exit 1
    --- stdout
    fixed p.rego:9: unused-import: removed `import data.params as unused`
    fixed p.rego:21: unknown-path: `gpu_cuont` is `gpu_count` now
    fixed p.rego:22: type: `INTERNAL_RESEACH` is `INTERNAL_RESEARCH` now
    warning[undefined-deny]: `input.tenant.seat` may be absent, and nothing is
      denied then
      --> p.rego:19:2
       |
    19 |  input.tenant.seat != "US"
       |  ^^^^^^^^^^^^^^^^^
      = hint: say what its absence means: `object.get` with the strictest value, or
              a rule with `not input.tenant.seat`

    --- stderr
    0 errors, 1 warning in 3 files
    "#);
    let mended = fs::read_to_string(directory.path().join("p.rego")).unwrap();
    let expected = POLICY.replace("cuont", "count").replace("RESEACH", "RESEARCH");
    assert_eq!(mended, expected.replace("import data.params as unused\n", ""));
    let again = check(directory.path(), &["--fix"]);
    assert_eq!(again.stdout, check(directory.path(), &[]).stdout);
    assert_eq!(fs::read_to_string(directory.path().join("p.rego")).unwrap(), mended);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "nothing is left behind");
}

#[test]
fn what_cannot_be_checked_says_so() {
    let directory = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(check(directory.path(), &[]).shown(&[]), @r#"
    exit 3
    --- stdout
    error[manifest]: `bundle.yaml` is missing in `the bundle`
      --> bundle.yaml
      = hint: name the directory that holds the bundle's manifest

    --- stderr
    1 error, 0 warnings in 0 files
    "#);
    insta::assert_snapshot!(run(["check", "nowhere"]).shown(&[]), @r#"
    exit 1
    --- stdout
    --- stderr
    error: cannot read `nowhere`: No such file or directory (os error 2)
    "#);
    insta::assert_snapshot!(run(["check", "--only", "typo", "policies"]).shown(&[]), @r#"
    exit 64
    --- stdout
    --- stderr
    error: `typo` is no rule
     hint: `placet check --rules` lists all of them
    "#);
}

#[test]
fn all_rules_are_listed_in_eighty_columns() {
    let ran = run(["check", "--rules"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.lines().all(|line| line.chars().count() <= 80), "{}", ran.stdout);
    let json = run(["check", "--rules", "--format", "json"]);
    assert!(json.stdout.lines().count() > 20);
    let first: serde_json::Value =
        serde_json::from_str(json.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["id"], "annotation");
}
