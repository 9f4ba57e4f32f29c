use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::*;
use crate::answer::{Decided, Finding};
use crate::input::Input;

fn compile(rules: &str) -> Result<RegoPolicy, Fault> {
    compile_text(&format!("package placet.test\n\nimport rego.v1\n\n{rules}\n"))
}

pub(super) fn compile_text(text: &str) -> Result<RegoPolicy, Fault> {
    RegoPolicy::compile(text, "test.rego", &params(r#"{"max":3}"#), None, DEFAULT_TICKS)
}

fn input() -> Input {
    let tree = crate::input::tests::input().new_tree(&mut TestRunner::deterministic());
    let mut input = tree.expect("an input").current();
    if let Some(job) = input.job.take() {
        input.lease = Some(job);
    }
    input.time = 1_795_000_000;
    // Something to look at, whatever the generator comes to make.
    input.cluster.isolation_levels = vec![placet_core::IsolationLevel::Shared];
    input
}

fn evaluate(rules: &str) -> Answer {
    let input = input();
    compile(rules).expect("it compiles").evaluate(&input.to_value(), input.time)
}

fn decided(rules: &str) -> Decided {
    let finding = evaluate(rules).finding;
    let Finding::Decided(decided) = finding else { panic!("{finding:?}") };
    decided
}

fn indeterminate(rules: &str) -> String {
    let finding = evaluate(rules).finding;
    let Finding::Indeterminate(error) = finding else { panic!("{rules} gave: {finding:?}") };
    error
}

#[test]
fn every_rule_of_the_contract_is_read() {
    let decided = decided(
        r#"
deny contains {"code": "B", "message": "b", "field": "lease.gpu_count", "hint": "h", "retry": true}
deny contains {"code": "A", "message": sprintf("%d/1000 of %03d", [data.params.max, 7])}
warn contains {"code": "W", "message": "w"}
obligations contains {"id": "net", "params": {"k": "v"}}
claims contains {"account": "tenant/a", "amount": 5, "limit": 6, "code": "C"}
preemption := {"victim_classes": ["EXTERNAL_COMMERCIAL"], "grace_seconds": 1,
    "min_runtime_seconds": 2, "max_victims": 3}
"#,
    );
    let codes: Vec<_> = decided.denials.iter().map(|denial| denial.code.as_str()).collect();
    assert_eq!(codes, ["A", "B"]);
    assert_eq!(decided.denials[0].message, "3/1000 of 007");
    assert!(decided.denials[1].retry);
    assert_eq!(decided.warnings.len() + decided.obligations.len(), 2);
    assert_eq!((decided.claims[0].amount, decided.claims[0].limit), (5, Some(6)));
    let rule = decided.preemption.expect("a rule");
    assert_eq!((rule.max_victims, rule.cool_down_seconds), (3, 0));
    assert_eq!((rule.max_victims_per_tenant, rule.protected_tenants), (None, vec![]));
    assert_eq!(decided.terms, None);
}

/// A rule with more in it, and nothing but terms.
fn rule_with(more: &str) -> String {
    format!(
        r#"preemption := {{"victim_classes": ["EXTERNAL_COMMERCIAL"], "grace_seconds": 1,
    "min_runtime_seconds": 2, "max_victims": 3, {more}}}"#
    )
}

#[test]
fn whom_a_rule_spares_is_read() {
    let more = r#""cool_down_seconds": 31622400, "max_victims_per_tenant": 1000,
        "protected_tenants": {"b", "a"}"#;
    let rule = decided(&rule_with(more)).preemption.expect("a rule");
    assert_eq!((rule.cool_down_seconds, rule.max_victims_per_tenant), (31_622_400, Some(1_000)));
    let names: Vec<_> = rule.protected_tenants.iter().map(placet_core::Id::as_str).collect();
    assert_eq!(names, ["a", "b"], "in their order");
    let many =
        r#""protected_tenants": [x | some n in numbers.range(1, 257); x := sprintf("t%d", [n])]"#;
    for (more, expected) in [
        (
            r#""cool_down_seconds": 31622401"#,
            "cool_down_seconds of preemption is not 0 to 31622400",
        ),
        (r#""max_victims_per_tenant": 0"#, "max_victims_per_tenant of preemption is not 1 to 1000"),
        (r#""max_victims_per_tenant": 1001"#, "max_victims_per_tenant of preemption is not"),
        (r#""protected_tenants": "a""#, "not a list of texts"),
        (r#""protected_tenants": [1]"#, "not a list of texts"),
        (
            r#""protected_tenants": ["a", "b", "a"]"#,
            "protected_tenants of preemption has `a` twice",
        ),
        (r#""protected_tenants": ["a b"]"#, "one of protected_tenants of preemption"),
        (many, "257 protected_tenants of preemption, at most 256 are allowed"),
    ] {
        let error = indeterminate(&rule_with(more));
        assert!(error.contains(expected), "{more} gave: {error}");
    }
}

#[test]
fn what_is_promised_is_read() {
    let terms = decided(r#"terms := {"min_runtime_seconds": 31622400, "notice_seconds": 0}"#).terms;
    assert_eq!(terms.map(|it| (it.min_runtime_seconds, it.notice_seconds)), Some((31_622_400, 0)));
    let absent = r#"terms := {"min_runtime_seconds": 1, "notice_seconds": 1} if input.x == 1"#;
    let absent = absent.replace("input.x == 1", "input.time < 0");
    assert_eq!(decided(&absent).terms, None);
    for (rules, expected) in [
        (
            r#"terms := {"min_runtime_seconds": 1}"#,
            "`notice_seconds` in an entry of `terms` is missing",
        ),
        (
            r#"terms := {"min_runtime_seconds": 31622401, "notice_seconds": 1}"#,
            "min_runtime_seconds of terms is not 0 to 31622400",
        ),
        (
            r#"terms := {"min_runtime_seconds": 1, "notice_seconds": 31622401}"#,
            "notice_seconds of terms is not 0 to 31622400",
        ),
        (
            r#"terms := {"min_runtime_seconds": 1, "notice": 1, "notice_seconds": 1}"#,
            "`terms` has no field `notice`",
        ),
        (r#"terms := {"min_runtime_seconds": -1, "notice_seconds": 1}"#, "out of range"),
        ("terms := 1", "is not an object"),
    ] {
        let error = indeterminate(rules);
        assert!(error.contains(expected), "{rules} gave: {error}");
    }
}

#[test]
fn not_applicable_is_said_by_false_alone() {
    let idle = "default applicable := false\ndeny contains {\"code\": \"A\", \"message\": \"a\"}";
    assert_eq!(evaluate(idle).finding, Finding::NotApplicable);
    let busy =
        "applicable := false if input.job\nwarn contains {\"code\": \"A\", \"message\": \"a\"}";
    assert!(matches!(evaluate(busy).finding, Finding::Decided(_)));
    let error = compile("applicable if input.job\ndeny contains {} if false").expect_err("unclear");
    assert_eq!(error.hint.as_deref(), Some("add `default applicable := false`"));
}

#[test]
fn what_cannot_be_read_is_indeterminate() {
    for (rules, expected) in [
        (r#"deny contains "no""#, "an entry of `deny` is not an object"),
        (r#"deny contains {"code": "A"}"#, "`message` in an entry of `deny` is missing"),
        (r#"deny contains {"code": "a", "message": "m"}"#, "code of a denial has a character"),
        (r#"deny contains {"code": "A", "message": ""}"#, "message of denial `A` is empty"),
        (r#"deny contains {"code": "A", "mesage": "m"}"#, "did you mean `message`?"),
        (r#"deny contains {"code": "A", "message": "m", "retry": 1}"#, "neither true nor false"),
        (r#"warn contains {"code": "A", "message": 1}"#, "not a text"),
        (r#"obligations contains {"id": "a", "params": {"k": 1}}"#, "not an object of strings"),
        (r#"claims contains {"account": "a", "amount": 1.5}"#, "not a whole number"),
        (r#"claims contains {"account": "a", "amount": 0}"#, "not 1 to 2^53 - 1"),
        (r#"claims contains {"account": "a", "amount": -1}"#, "out of range"),
        (
            r#"claims contains {"account": "a", "amount": 9007199254740991 * 1000000}"#,
            "out of range",
        ),
        (r#"claims contains {"account": "a//b", "amount": 1}"#, "account of a claim is empty"),
        (
            "claims contains {\"account\": \"a\", \"amount\": 1}\n\
             claims contains {\"account\": \"a\", \"amount\": 2}",
            "account `a` is claimed twice",
        ),
        (r#"preemption := {"victim_classes": [], "grace_seconds": 1}"#, "is missing"),
        ("applicable := 1\npreemption := 1", "neither true nor false"),
        ("deny contains {\"code\": \"A\", \"message\": \"m\"} if to_number(\"x\") > 1", "line 5"),
        ("x := 1\nx := 2\ndeny contains {} if x == 3", "line"),
    ] {
        let rules = rules.replace("applicable := 1", "default applicable := 1");
        let error = indeterminate(&rules);
        assert!(error.contains(expected), "{rules} gave: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn the_world_is_out_of_reach() {
    for (call, hint) in [
        ("http.send({\"url\": \"x\"})", "put what it needs into the facts"),
        ("rand.intn(\"x\", 3)", "use what the input holds"),
        ("opa.runtime()", "use `data.params`"),
        ("uuid.rfc4122(\"x\")", "use ids that the input holds"),
        ("io.jwt.encode_sign({}, {}, {})", "holds no private keys"),
        ("yaml.unmarshal(\"a\")", "use `json.unmarshal`"),
        ("__charge(1)", ""),
        ("counnt([1])", "did you mean `count`?"),
    ] {
        let rules =
            format!("deny contains {{\"code\": \"A\", \"message\": \"m\"}} if {{\n\t{call}\n}}");
        let fault = compile(&rules).expect_err(call);
        assert_eq!((fault.file.as_str(), fault.line), ("test.rego", Some(6)), "{fault}");
        assert!(fault.hint.as_deref().unwrap_or("").contains(hint), "{fault}");
    }
}

#[test]
fn faults_of_the_text_have_a_place() {
    for (rules, expected) in [
        ("deny contains {", "test.rego:"),
        ("deny := {1}", "write `deny contains {...} if {...}`"),
        ("deny[x] := 1 if x := 2", "write `deny contains {...} if {...}`"),
        ("x := 1", "no rule of the contract is defined"),
        ("deny contains {} if input.lease.isolaton_level", "did you mean `isolation_level`?"),
        ("deny contains {} if input.lease[\"x\"]", "has no field `x`"),
        ("deny contains {} if input.cluster.gpus[_].modell == 1", "did you mean `model`?"),
        ("deny contains {} if some g in input.cluster.gpu", "did you mean `gpus`?"),
        ("deny contains {} if y > 1", "test.rego:5"),
        ("deny contains {} if { [p, v] = walk(input); v == p }", "write `walk(x, [path, value])`"),
        ("import data.other\ndeny contains {} if other", "import of `data.other`"),
    ] {
        let fault = compile(rules).expect_err(rules).to_string();
        assert!(fault.contains(expected), "{rules} gave: {fault}");
    }
}

#[test]
fn the_clock_is_the_inputs() {
    let decided =
        decided(r#"warn contains {"code": "T", "message": sprintf("%d", [time.now_ns()])}"#);
    assert_eq!(decided.warnings[0].message, "1795000000000000000");
}

mod hostile;

const ENDLESS: &str = r#"
deny contains {"code": "A", "message": "m"} if {
    count([1 | some a in numbers.range(1, 5000); some b in numbers.range(1, 5000); a == b]) > 9
}
"#;

#[test]
fn an_endless_comprehension_spends_its_budget_and_denies() {
    let answer = evaluate(ENDLESS);
    let expected = Finding::Indeterminate("spent its budget of 100000 ticks".into());
    assert_eq!(answer.finding, expected);
    assert!(answer.cost.ticks > DEFAULT_TICKS);
}

#[test]
fn built_ins_are_bounded_from_within() {
    let big = "s := concat(\"\", [x | some _ in numbers.range(1, 1000); x := \"0123456789\"])\n";
    for (what, expected) in [
        ("count(numbers.range(1, 100000000))", "elements of the range"),
        ("count(numbers.range_step(1, 100000000, 1))", "elements of the range"),
        ("count(sprintf(\"%999999999d\", [1]))", "digits of a width"),
        ("count(replace(s, \"0\", s))", "bytes of the result"),
        ("count(concat(s, split(s, \"\")))", "bytes of the result"),
        ("count(regex.replace(s, \"\", \"$0$0\"))", "bytes of the result"),
        ("bits.lsh(1, 100000000)", "bits of the shift"),
    ] {
        let deny = "deny contains {\"code\": \"A\", \"message\": \"m\"} if";
        let error = indeterminate(&format!("{big}{deny} {what} > 1"));
        assert!(error.contains(expected), "{what} gave: {error}");
    }
}

const WORK: &str = r#"
deny contains {"code": "A", "message": m} if {
    some level in input.cluster.isolation_levels
    m := concat("-", [x | some i in numbers.range(1, 100); x := sprintf("%d", [i])])
    startswith(level, "NONE")
}
warn contains {"code": "W", "message": sprintf("%d", [count(input.tenant.licensed_models)])}
"#;

#[test]
fn the_cost_is_the_same_in_every_run_and_thread() {
    let (value, policy) = (input().to_value(), compile(WORK).expect("it compiles"));
    let endless = compile(ENDLESS).expect("it compiles");
    let run = |policy: &RegoPolicy| policy.clone().evaluate(&value, 7);
    let (first, first_endless) = (run(&policy), run(&endless));
    assert!(first.cost.ticks > 100, "{first:?}");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reused = policy.clone();
                for _ in 0..20 {
                    assert_eq!(reused.evaluate(&value, 7), first);
                    assert_eq!(run(&policy), first);
                }
                assert_eq!(run(&endless), first_endless);
                assert_eq!(reused.evaluate(&value, 7), first, "an aborted one leaves nothing");
            });
        }
    });
}

#[test]
fn ticks_grow_with_the_work() {
    let cost = |n: u32| {
        let rules = format!(
            "deny contains {{\"code\": \"A\", \"message\": \"m\"}} if \
             count([x | some x in numbers.range(1, {n}); x > 0]) == 0"
        );
        evaluate(&rules).cost.ticks
    };
    assert!(cost(1_000) > cost(100) + 900, "{} {}", cost(1_000), cost(100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_input_changes_what_an_engine_says_of_the_next(
        one in crate::input::tests::input(),
        other in crate::input::tests::input(),
    ) {
        let policy = compile(WORK).expect("it compiles");
        let fresh = policy.clone().evaluate(&other.to_value(), other.time);
        let mut used = policy;
        let _ = used.evaluate(&one.to_value(), one.time);
        prop_assert_eq!(used.evaluate(&other.to_value(), other.time), fresh);
    }
}

#[test]
fn errors_are_told_where_the_author_wrote_them() {
    let line = "deny contains {\"code\": \"A\", \"message\": \"m\"} if \
                [{\"a\": [input.time * 2]}, input.lease.gpu_count, to_number(\"x\")] == [1]";
    let column = line.find("to_number(").expect("it is there") + "to_number(".len();
    let error = indeterminate(line);
    assert!(error.starts_with(&format!("line 5, column {column}: ")), "{error}");
    let line = "deny contains {\"code\": 1 * 2, \"message\": input.lease.hint}";
    let column = line.find(".hint").expect("it is there") + 1;
    let fault = compile(line).expect_err("there is no such field");
    assert_eq!(fault.line, Some(5));
    assert!(
        fault.column.is_some_and(|at| usize::try_from(at).expect("small").abs_diff(column) < 20)
    );
}

/// Policies that share nothing, some of which spend their budget or fail.
const POLICIES: [&str; 5] = [
    WORK,
    ENDLESS,
    "deny contains {\"code\": \"A\", \"message\": \"m\"} if to_number(\"x\") > input.time",
    "x := {[g, h] | some g in input.cluster.gpus; some h in input.cluster.gpus}\n\
     warn contains {\"code\": \"A\", \"message\": sprintf(\"%d %v\", [count(x), time.now_ns()])}",
    "claims contains {\"account\": sprintf(\"a/%d\", [n]), \"amount\": n * n} if {\n\
     some n in numbers.range(1, 20)\nnot n in [x | some x in [2, 3, 5]]\n}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// One policy and one input have one answer at one cost: in a used engine, after others on the
    /// same thread, in a fresh engine, on any thread.
    #[test]
    fn an_answer_depends_on_policy_and_input_alone(
        inputs in prop::collection::vec(crate::input::tests::input(), 3),
        order in prop::collection::vec((0..POLICIES.len(), 0..3_usize), 1..12),
    ) {
        let mut used = POLICIES.map(|rules| compile(rules).expect("it compiles"));
        let answers: Vec<Answer> = order
            .iter()
            .map(|(policy, input)| {
                used[*policy].evaluate(&inputs[*input].to_value(), inputs[*input].time)
            })
            .collect();
        let fresh = |(policy, input): &(usize, usize)| {
            let mut policy = compile(POLICIES[*policy]).expect("it compiles");
            policy.evaluate(&inputs[*input].to_value(), inputs[*input].time)
        };
        let elsewhere = std::thread::scope(|scope| {
            let halves = order.chunks(order.len().div_ceil(2));
            let threads: Vec<_> = halves
                .map(|half| scope.spawn(|| half.iter().map(fresh).collect::<Vec<_>>()))
                .collect();
            let ended = threads.into_iter().flat_map(|thread| thread.join().expect("it ends"));
            ended.collect::<Vec<_>>()
        });
        prop_assert_eq!(elsewhere, answers);
    }
}

#[test]
fn charges_change_no_meaning() {
    let decided = decided(
        r#"
pairs[k] := [v, v] if some k, v in {"a": 1, "b": 2}
first := x if { [x, _] = pairs.a }
deep contains p if { walk({"a": {"b": 7}}, [p, v]); v == 7 }
deeper contains p if { walk({"a": {"b": 7}}, [p, 7]) }
both := {x | some x in {1, 2, 3}} & {y | some y in [2, 3, 4]}
less := {1, 2, 3} - both
same if { x = y; y = 3; x == 3 }
nested := [[i, j] | some i in [1, 2]; some j in [i, 3]; not [i, j] in [[2, 3]]]
every_one if { every x in both { x in {2, 3} } }
mocked := x if { x := count([1, 2]) with count as 7 }
swapped := x if { x := twice(2) with twice as thrice }
twice(x) := x * 2
thrice(x) := [x, x, x]
kind := "big" if { first > 5 } else := "small"
warn contains {"code": "W", "message": json.marshal([pairs, first, deep, deeper, both, less, same,
    nested, every_one, mocked, swapped, kind])}
"#,
    );
    let expected = concat!(
        r#"[{"a":[1,1],"b":[2,2]},1,[["a","b"]],[["a","b"]],[2,3],[1],true,"#,
        r#"[[1,1],[1,3],[2,2]],true,7,[2,2,2],"small"]"#
    );
    assert_eq!(decided.warnings[0].message, expected);
}

#[test]
fn what_nothing_of_the_contract_leads_to_is_not_evaluated() {
    let warn = "warn contains {\"code\": \"A\", \"message\": \"m\"}\n";
    for dead in ["x := 1\n\nx := 2\n", "x := to_number(\"a\")\n", "f(y) := to_number(y)\n"] {
        assert_eq!(decided(&format!("{dead}\n{warn}")).warnings.len(), 1, "{dead}");
    }
    // Whatever the contract's rules lead to is, in whatever way.
    for alive in [
        "warn contains {\"code\": \"A\", \"message\": \"m\"} if data.placet.test.x",
        "obligations contains x",
        "preemption := x",
        "default applicable := false\n\napplicable if x\n\nwarn contains y if y := {}",
        "deny contains y if { some y in {z | z := x} }",
    ] {
        let error = indeterminate(&format!("x := to_number(\"a\")\n\n{alive}"));
        assert!(error.contains("line 5"), "{alive}: {error}");
    }
}

/// The shipped policies answer the same whether all of their rules are evaluated or only what the
/// contract's lead to, and for less.
#[test]
fn the_contracts_rules_say_all_that_a_policy_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/reference");
    let bundle = crate::Bundle::load(&path).expect("the bundle loads");
    let mut runner = TestRunner::deterministic();
    let inputs: Vec<Input> = (0..100)
        .map(|_| crate::input::tests::input().new_tree(&mut runner).expect("an input").current())
        .collect();
    for entry in &bundle.manifest().policies {
        let text = std::str::from_utf8(bundle.file(&entry.source)).expect("text");
        let given = params(&crate::evaluate::params(entry).expect("params"));
        let schema = entry.params_schema.as_deref().and_then(|path| bundle.params_schema(path));
        let compiled = RegoPolicy::compile(text, &entry.source, &given, schema, DEFAULT_TICKS);
        let compiled = compiled.expect("it compiles");
        let (mut less, mut all) = (0, 0);
        for input in &inputs {
            let (value, time) = (input.to_value(), input.time);
            let one = compiled.clone().evaluate(&value, time);
            let other = compiled.clone().evaluate_whole(&value, time);
            assert_eq!(one.finding, other.finding, "{}: {input:?}", entry.name);
            (less, all) = (less + one.cost.ticks, all + other.cost.ticks);
        }
        assert!(less < all, "{}: {less} of {all} ticks", entry.name);
    }
}
