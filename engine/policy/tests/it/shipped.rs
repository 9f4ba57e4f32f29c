//! The shipped bundle, facts and cases.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use placet_core::canonical_json;
use placet_policy::{Bundle, CaseRunner, Evaluator, Facts, PolicySet, WasmRuntime};

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

#[test]
fn every_shipped_case_holds_for_policies_and_twins() {
    let bundle = Bundle::load(&policies().join("reference")).expect("the bundle loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = Arc::new(PolicySet::compile(&bundle, &runtime).expect("it compiles"));
    let twins = PolicySet::compile_twins(&bundle, &runtime).expect("the twins compile");
    assert!(twins.is_some(), "at least one policy has a twin");
    let mut runner = CaseRunner::new(set, twins.map(Arc::new));
    let files = bundle.case_files();
    assert!(files.len() >= 6, "every domain has cases: {files:?}");
    let mut failed = Vec::new();
    let mut reports = Vec::new();
    for file in &files {
        let run = runner.run(&bundle, file, crate::request::convert);
        reports.extend(run.unwrap_or_else(|error| panic!("{error}")));
    }
    for report in &reports {
        for failure in &report.failures {
            let file = &report.file;
            failed.push(format!("{file}: {}: {failure}", report.name));
        }
        if let Some(evaluation) = &report.evaluation {
            let bytes = canonical_json(evaluation).expect("it is canonical");
            let back = serde_json::from_slice(&bytes).expect("it reads back");
            assert_eq!(evaluation, &back);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(reports.len() >= 30, "{} cases", reports.len());
    let facts = Facts::load(&policies().join("reference/facts.yaml")).expect("the facts load");
    assert!(!facts.revision().is_empty());
}

/// Every param is described, and an unknown one refused, at every level of every schema.
#[test]
fn every_shipped_policy_has_a_schema_that_leaves_nothing_open() {
    fn closed(schema: &serde_json::Value, place: &str) {
        if schema["type"] == "object" {
            let open = schema.get("additionalProperties").is_none_or(|more| *more == true);
            assert!(!open, "{place} takes anything");
        }
        for (key, inner) in schema.as_object().into_iter().flatten() {
            match inner {
                serde_json::Value::Object(_) => closed(inner, &format!("{place}.{key}")),
                serde_json::Value::Array(items) => {
                    for (at, item) in items.iter().enumerate() {
                        closed(item, &format!("{place}.{key}[{at}]"));
                    }
                }
                _ => {}
            }
        }
    }
    let bundle = Bundle::load(&policies().join("reference")).expect("the bundle loads");
    for policy in bundle.policies() {
        let path = policy.params_schema.expect("each names its schema");
        let schema = bundle.params_schema(&path).expect("and the bundle has it");
        closed(schema, &path);
        for (name, param) in schema["properties"].as_object().expect("properties") {
            assert!(param["description"].is_string(), "{path}: `{name}` is not described");
        }
        let archived = Bundle::from_archive("reference", &bundle.to_archive());
        assert_eq!(archived.expect("it reads back").digest(), bundle.digest());
    }
}

/// A made-up input that no facts know.
fn sample() -> placet_policy::Input {
    let text = include_str!("sample.json");
    serde_json::from_str(text).expect("it is an input")
}

#[test]
fn an_evaluation_is_the_same_in_every_thread_and_order() {
    let bundle = Bundle::load(&policies().join("reference")).expect("the bundle loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = Arc::new(PolicySet::compile(&bundle, &runtime).expect("it compiles"));
    let input = sample();
    let first = Evaluator::new(Arc::clone(&set)).evaluate(&input).expect("no backstop");
    assert_eq!(first.candidates.len(), 2);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut evaluator = Evaluator::new(Arc::clone(&set));
                for _ in 0..10 {
                    assert_eq!(evaluator.evaluate(&input).expect("no backstop"), first);
                }
            });
        }
    });
}
