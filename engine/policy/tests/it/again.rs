//! What an evaluator says does not depend on what it was asked before, and how that ended.

use std::fs;
use std::sync::Arc;

use placet_core::{Effect, Verdict};
use placet_policy::{Bundle, Evaluation, Evaluator, Input, PolicySet, WasmRuntime};

fn set(rules: &str) -> Arc<PolicySet> {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = "schema: placet.bundle/v1\nrevision: \"1\"\n\
        policies: [{name: p, source: p.rego, params: {limit: 4}}]\n";
    fs::write(directory.path().join("bundle.yaml"), manifest).expect("it is written");
    let text = format!("package placet.p\n\nimport rego.v1\n\n{rules}\n");
    fs::write(directory.path().join("p.rego"), text).expect("it is written");
    let bundle = Bundle::load(directory.path()).expect("it loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    Arc::new(PolicySet::compile(&bundle, &runtime).expect("it compiles"))
}

fn input(time: u64) -> Input {
    let mut input: Input = serde_json::from_str(include_str!("sample.json")).expect("an input");
    input.time = time;
    input
}

/// Evaluates at time 0, which fails, then at time 1 as if nothing had been; says what that gives.
#[track_caller]
fn after_a_failure(rules: &str) -> Evaluation {
    let set = set(rules);
    let mut evaluator = Evaluator::new(Arc::clone(&set));
    let failed = evaluator.evaluate(&input(0)).expect("no backstop");
    assert_eq!(failed.candidates[0].verdicts[0].verdict, Verdict::Indeterminate, "{failed:?}");
    assert_eq!(evaluator.evaluate(&input(0)).expect("no backstop"), failed, "a second time");
    let after = evaluator.evaluate(&input(1)).expect("no backstop");
    assert_eq!(after, Evaluator::new(set).evaluate(&input(1)).expect("no backstop"));
    after
}

#[test]
fn a_failure_in_a_loop_leaves_no_values_behind() {
    // Found by the fuzz target `rego` with `walk` as a term, which is refused by now: the second
    // evaluation read the first one's loop variable.
    after_a_failure(
        r#"deny contains {"code": "NO", "message": sprintf("%d", [sum(tried)])} if {
            input.time == 0
            tried := [abs(found) | some found in [1, input.tenant.id, 2]]
        }"#,
    );
}

#[test]
fn a_failure_inside_with_leaves_nothing_replaced() {
    let evaluation = after_a_failure(
        r#"deny contains {"code": "ABOVE", "message": "above"} if {
            input.lease.gpu_count > data.params.limit
        }

        failing if abs(input.tenant.id) > 0

        warn contains {"code": "W", "message": "w"} if {
            input.time == 0
            failing with data.params.limit as 1000000
        }"#,
    );
    assert_eq!(evaluation.candidates[0].outcome.effect, Effect::Deny, "{evaluation:?}");
}
