use serde_json::json;

use super::super::{DEFAULT_TICKS, RegoPolicy, params};
use crate::error::Fault;

const DENY: &str = "deny contains {\"code\": \"A\", \"message\": \"m\"} if";

fn compile_with(rules: &str, schema: Option<&serde_json::Value>) -> Result<RegoPolicy, Fault> {
    let text = format!("package placet.test\n\nimport rego.v1\n\n{rules}\n");
    let values = params(r#"{"max":3,"nested":{"a":1},"names":["x"]}"#);
    RegoPolicy::compile(&text, "test.rego", &values, schema, DEFAULT_TICKS)
}

fn compile(rules: &str) -> Result<RegoPolicy, Fault> {
    compile_with(rules, None)
}

#[track_caller]
fn refused(rules: &str, expected: &str) {
    let fault = compile(rules).expect_err(rules);
    assert!(fault.line.is_some() && fault.column.is_some(), "{rules} gave: {fault}");
    assert!(fault.to_string().contains(expected), "{rules} gave: {fault}");
}

#[test]
fn a_wrong_field_is_found_behind_variables_rules_and_imports() {
    for body in [
        "{ lease := input.lease; lease.gpu_cout > 1 }",
        "{ input[\"lease\"][\"gpu_cout\"] > 1 }",
        "{ input.lease[`gpu_cout`] > 1 }",
        "{ object.get(input.lease, \"gpu_cout\", 0) > 1 }",
        "{ one := input; two := one.lease; three := two; three.gpu_cout > 1 }",
        "{ subject.gpu_cout > 1 }\nsubject := input.lease\nsubject := input.job",
        "{ subject.gpu_cout > 1 }\nsubject := input.lease if true else := input.job if true",
        "{ data.placet.test.subject.gpu_cout > 1 }\nsubject := input.lease",
        "{ not input.lease.gpu_cout }",
        "{ count([x | x := input.lease.gpu_cout]) > 1 }",
        "{ every m in input.models { m.idd == input.lease.gpu_cout } }",
        "{ f(1) }\nf(x) if x > input.lease.gpu_cout",
        "{ x := {\"a\": input.lease.gpu_cout}; x.a }",
    ] {
        let fault = compile(&format!("{DENY} {body}")).expect_err(body);
        let hint = fault.hint.as_deref();
        let right = [Some("did you mean `gpu_count`?"), Some("did you mean `id`?")];
        assert!(right.contains(&hint), "{body} gave: {fault}");
    }
    for (rules, expected) in [
        ("{ some d in input.datasets; d.clasification == 1 }", "did you mean `classification`?"),
        ("{ d := input.datasets[_]; d.clasification == 1 }", "did you mean `classification`?"),
        ("{ some i; input.datasets[i].clasification == 1 }", "did you mean `classification`?"),
        ("{ every d in input.datasets { d.clasification == 1 } }", "did you mean `classif"),
        ("{ own[_].clasification }\nown := [d | some d in input.datasets]", "did you mean `class"),
        (
            "{ some d in own; d.ownr }\nown := {d | some d in input.datasets}",
            "did you mean `owner`?",
        ),
        ("{ input.datasets.owner }", "`input.datasets` has no field `owner`"),
        ("{ input.time.seconds > 1 }", "`input.time` has no field `seconds`"),
    ] {
        refused(&format!("{DENY} {rules}"), expected);
    }
    refused(
        &format!("import input.lease as l\n{DENY} l.gpu_cout > 1"),
        "did you mean `gpu_count`?",
    );
    refused(&format!("import input.leese as l\n{DENY} l.x > 1"), "did you mean `lease`?");
    refused(&format!("import data.params as p\n{DENY} p.mx > 1"), "did you mean `max`?");
}

#[test]
fn a_comparison_that_is_always_the_same_is_refused() {
    for (body, expected) in [
        ("input.priority_class == \"INTERNAL_RESEACH\"", "did you mean \"INTERNAL_RESEARCH\"?"),
        ("\"INTERNAL_RESEACH\" == input.priority_class", "is never \"INTERNAL_RESEACH\""),
        ("input.priority_class != \"INTERNAL\"", "it is one of EXTERNAL_COMMERCIAL, INTERNAL_RE"),
        ("input.priority_class = \"X\"", "is never"),
        ("input.tenant.kind in {\"OWN\", \"CUSTMER\"}", "did you mean \"CUSTOMER\"?"),
        ("\"SHARD\" in input.cluster.isolation_levels", "did you mean \"SHARED\"?"),
        ("some \"SHARD\" in input.cluster.isolation_levels", "did you mean \"SHARED\"?"),
        ("class == \"X\"\nclass := input.priority_class", "is never \"X\""),
        ("input.lease.gpu_count > \"8\"", "is a number, and is compared with a text"),
        ("input.lease.gpu_count == \"8\"", "compare it with a number"),
        ("input.tenant.id == 8", "is a text, and is compared with a number"),
        ("input.lease.may_preempt == \"true\"", "is true or false, and is compared with a text"),
        ("input.datasets == \"\"", "is a list"),
        ("count([d | some d in input.datasets; d.classification == \"SECRET\"]) > 0", "is never"),
    ] {
        refused(&format!("{DENY} {body}"), expected);
    }
}

#[test]
fn what_is_not_certain_is_not_refused() {
    for body in [
        "input.priority_class == \"INTERNAL_RESEARCH\"",
        "input.tenant.id == \"acme\"",
        "input.lease == null",
        "input.lease.gpu_count == 8",
        "input[kind].gpu_count > 1\nkind := \"lease\" if input.lease",
        "input[kind].gpu_cout > 1\nkind := \"lease\" if input.lease",
        "subject.gpu_cout > 1\nsubject := input.lease\nsubject := {\"gpu_cout\": 1}",
        "subject.gpu_cout > 1\ndefault subject := {}\nsubject := input.lease",
        "subject.gpu_cout > 1\nsubject[k] := v if some k, v in {\"gpu_cout\": 1}",
        "{ lease := {\"gpu_cout\": 1}; lease.gpu_cout > 1 }\nlease := input.lease",
        "f(input.lease)\nf(lease) if lease.gpu_cout > 1\nlease := input.lease",
        "{ some one in [{\"gpu_cout\": 1}]; one.gpu_cout > 1 }\nlease := input.lease",
        "{ [lease, _] := [{\"gpu_cout\": 1}, 2]; lease.gpu_cout > 1 }\nlease := input.lease",
        "count([lease | lease := {\"gpu_cout\": 1}; lease.gpu_cout > 1]) > 0\nlease := input.lease",
        "{ every lease in [{\"g\": 1}] { lease.g > 1 } }\nlease := input.lease",
        "{ one > 1 with input as {\"lease\": {\"gpu_cout\": 1}} }\none := input.lease.gpu_count",
        "{ input.lease.gpu_cout > 1 with input.lease as {\"gpu_cout\": 1} }",
        "{ x := input.lease with input as {\"lease\": {\"a\": 1}}; x.a > 1 }",
        "{ walk(input, [path, value]); value.anything > 1 }",
        "a.x\na := b\nb := c\nc := {\"x\": 1}",
        "data.params.nested.anything",
        "data.params.nested[\"b\"] == 1",
        "not data.params.minimum",
        "object.get(data.params, \"minimum\", 0) > 1",
        "p.max > 1\np := data.params",
        "data.placet.test.x > 1\nx := 2",
        "data.placet[\"test\"].x > 1\nx := 2",
    ] {
        let rules = format!("{DENY} {body}");
        assert!(compile(&rules).is_ok(), "{rules} gave: {}", compile(&rules).expect_err("it is"));
    }
}

#[test]
fn params_are_held_against_their_schema_or_their_names() {
    refused(&format!("{DENY} input.time > data.params.mx"), "did you mean `max`?");
    refused(&format!("{DENY} input.time > data.params.other"), "set it in the manifest");
    let schema = json!({
        "type": "object",
        "properties": {
            "max": {"type": "integer"},
            "min": {"type": "integer"},
            "mode": {"enum": ["fast", "slow"]},
            "nested": {"$ref": "#/$defs/nested"},
            "by_name": {"type": "object", "additionalProperties": {"$ref": "#/$defs/nested"}},
        },
        "additionalProperties": false,
        "$defs": {"nested": {"type": "object", "properties": {"a": true}}},
    });
    for body in [
        "data.params.min > 1",
        "data.params.nested.whatever",
        "data.params.nested.a.b",
        "data.params.by_name.x.a",
        "data.params.mode == \"fast\"",
    ] {
        let rules = format!("{DENY} {body}");
        assert!(compile_with(&rules, Some(&schema)).is_ok(), "{rules}");
    }
    for (body, expected) in [
        ("data.params.maxx > 1", "did you mean `max`?"),
        ("not data.params.maxx", "did you mean `max`?"),
        ("object.get(data.params, \"maxx\", 1) > 2", "did you mean `max`?"),
        ("data.params.mode == \"fats\"", "did you mean \"fast\"?"),
        ("data.params.max == \"1\"", "is a number"),
        ("p.maxx\np := data.params", "did you mean `max`?"),
    ] {
        let fault = compile_with(&format!("{DENY} {body}"), Some(&schema)).expect_err(body);
        assert!(fault.to_string().contains(expected), "{body} gave: {fault}");
    }
    let looped = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}});
    assert!(compile_with(&format!("{DENY} data.params.x.y"), Some(&looped)).is_ok());
}

#[test]
fn of_data_a_policy_has_its_params_and_its_rules() {
    for (body, expected) in [
        ("data.other.x", "`data.other.x` is nothing that a policy has"),
        ("data[\"other\"]", "a policy sees `input`, `data.params` and its own rules"),
        ("data.placet.quota.x", "is nothing that a policy has"),
        ("data.placet.test.lvel\nlevel := 1", "did you mean `level`?"),
        ("count(data.placet.test) > 1", "`deny` is recursive"),
        ("count(data.placet) > 1", "`deny` is recursive"),
        ("count(data) > 1", "`deny` is recursive"),
        ("data[x]\nx := \"params\"", "`deny` is recursive"),
    ] {
        refused(&format!("{DENY} {body}"), expected);
    }
}

#[test]
fn numbers_that_opa_would_read_otherwise_are_refused() {
    refused(&format!("{DENY} input.time > 9007199254740992"), "is beyond 2^53 - 1");
    refused(&format!("{DENY} input.time > 100000000000000000000000"), "no number that a binary");
    refused(&format!("{DENY} input.lease.gpu_count * 0.1 > 1"), "count in whole numbers");
    assert!(compile(&format!("{DENY} input.lease.gpu_count * 0.5 > 1e3")).is_ok());
}

#[test]
fn variables_that_opa_would_bind_otherwise_are_refused() {
    let each = "looks at each element by itself";
    for (body, expected) in [
        ("not input.models[_].id == \"a\"", each),
        ("{ some i; not input.models[i].id == \"a\" }", each),
        ("not f(input.models[_].id)\nf(x) if x == \"a\"", each),
        ("{ every m in input.models { not m.id[_] == \"a\" } }", each),
        ("count([1 | not input.models[_].id == \"a\"]) > 0", each),
        ("{ some i; input.models[i].id == \"a\" }\ni := 5", "hides the rule or import `i`"),
        ("count([1 | some t; input.models[t]]) > 1\nt(x) := x", "hides the rule or import `t`"),
        ("{ some m; f(m) > data.params.max[m] }\nf(x) := x", "`m` is not looped over"),
        ("{ some k; count(k) > data.params.max[k] }", "`k` is not looped over"),
        ("f(1, 2)\nf(x, x) := true", "two arguments are named `x`"),
        ("\"k\", input.time in input.tenant", "holds for what is undefined"),
        (
            "f with input.time as input.tenant.id with input.month as \"1\"\nf if input.time",
            "may be undefined here",
        ),
    ] {
        refused(&format!("{DENY} {body}"), expected);
    }
    let many: String = (0..257).map(|at| format!("v{at} := {at}\n")).collect();
    refused(&format!("{DENY} {{\n{many}}}"), "binds 257 variables");
    for body in [
        "{ some m in input.models; not m.id == \"a\" }",
        "{ some i, m in input.models; not input.models[i].id == m.id }",
        "{ some i; m := input.models[i]; not input.models[i].id == m.owner }",
        "not bad\nbad if input.models[_].id == \"a\"",
        "count([m | some m in input.models; not m.id == input.tenant.id]) > 0",
        "{ every m in input.models { not m.id == \"a\" } }",
        "not f(1)\nf(x) if not input.models[x].id == \"a\"",
        "{ some m, limit in data.params; f(m) > data.params[m] }\nf(x) := count(x)",
        "{ m := \"max\"; f(m) > data.params[m] }\nf(x) := count(x)",
        "{ some m; data.params[m] > f(m) }\nf(x) := count(x)",
        "{ x := input.time; y := x; x == y }\nz := 1",
    ] {
        let compiled = compile(&format!("{DENY} {body}"));
        assert!(compiled.is_ok(), "{body}: {:?}", compiled.err());
    }
}

#[test]
fn what_opa_answers_otherwise_is_refused() {
    for (body, expected) in [
        ("{ some {\"id\": x} in input.models; x }", "an object as a pattern"),
        ("{ some [_, {\"id\": x}] in [input.models]; x }", "an object as a pattern"),
        ("{ {\"id\": x} := input.tenant; x }", "take its fields one by one"),
        ("{ {\"id\": x} = input.tenant; x }", "take its fields one by one"),
        ("{ input.tenant = {\"id\": \"a\"} }", "compare with `==`"),
        ("f(input.tenant)\nf({\"id\": x}) if x", "an object as a pattern"),
        ("{ walk(input, [_, {\"id\": x}]); x }", "an object as a pattern"),
        ("{ x := {\"a\": 1, \"a\": 2}; x.a }", "two fields `a`"),
        ("sprintf(\"%t\", [true]) == \"true\"", "`%t` is not written here"),
        ("sprintf(\"%-5d\", [1]) == \"1\"", "`%-5d` is not written here"),
        ("{ y := {1} < {\"a\": 1}; y }", "another order in OPA"),
        ("f(1)\nf(x) if f(x)", "`f` is recursive"),
        ("f(1)\nf(x) if g(x)\ng(x) if data.placet.test.f(x)", "is recursive"),
    ] {
        refused(&format!("{DENY} {body}"), expected);
    }
    for body in [
        "{ x = {\"id\": 1}; x.id == 1 }",
        "{ x := {\"id\": 1}; x == {\"id\": 1} }",
        "{ some [x, y] in [[1, 2]]; x < y }",
        "f([1, 2])\nf([x, y]) if x < y",
        "f(1)\nf(x) if g(x)\ng(x) if x",
    ] {
        let rules = format!("{DENY} {body}");
        assert!(compile(&rules).is_ok(), "{rules} gave: {}", compile(&rules).expect_err("it is"));
    }
}
