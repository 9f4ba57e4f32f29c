//! The shipped bundle, facts and cases.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use placet_core::{PolicyVerdict, canonical_json};
use placet_policy::{Bundle, CaseRunner, Evaluator, Facts, PolicySet, RuleMetadata, WasmRuntime};

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

/// What no case brings about, with the reason; a rule `test_` has each.
const BY_TEST_RULES: &[(&str, &str)] = &[
    // The engine passes over models that a cluster lacks, before it asks policies.
    ("capacity", "denial GPU_MODEL_NOT_IN_CLUSTER"),
];

/// Codes, obligations and accounts of a policy, as its annotations and its verdicts name them.
type Said = BTreeSet<(String, String)>;

fn announced(policy: &str, rule: &RuleMetadata, said: &mut Said) {
    let kind = if rule.rule == "warn" { "warning" } else { "denial" };
    let kind = if rule.rule == "claims" { "claim" } else { kind };
    let all = [
        rule.code.as_ref().map(|code| format!("{kind} {code}")),
        rule.obligation.as_ref().map(|id| format!("obligation {id}")),
        rule.account.as_ref().map(|account| format!("account {account}")),
    ];
    said.extend(all.into_iter().flatten().map(|what| (policy.to_owned(), what)));
}

/// What a verdict says; an account by the one pattern of the policy that it fits.
fn heard(verdict: &PolicyVerdict, announced: &Said, said: &mut Said) {
    let fits = |pattern: &str, account: &str| {
        let (pattern, account): (Vec<_>, Vec<_>) =
            (pattern.split('/').collect(), account.split('/').collect());
        let varies = |it: &str| it.starts_with('<');
        let same = |(one, other): (&&str, &&str)| varies(one) || one == other;
        pattern.len() == account.len() && pattern.iter().zip(&account).all(same)
    };
    let policy = verdict.policy.as_str();
    let pattern = |account: &str| {
        let patterns = announced.iter().filter(|(of, _)| of == policy);
        let mut patterns = patterns.filter_map(|(_, what)| what.strip_prefix("account "));
        patterns.find(|pattern| fits(pattern, account)).unwrap_or(account).to_owned()
    };
    let mut say = |what: String| said.insert((policy.to_owned(), what));
    for reason in &verdict.reasons {
        say(format!("denial {}", reason.code));
    }
    for warning in &verdict.warnings {
        say(format!("warning {}", warning.code));
    }
    for obligation in &verdict.obligations {
        say(format!("obligation {}", obligation.id));
    }
    for claim in &verdict.claims {
        say(format!("account {}", pattern(claim.account.as_str())));
        if let Some(code) = &claim.code {
            say(format!("claim {code}"));
        }
    }
}

/// The catalogue is whole, and nothing in it is left untested.
#[test]
fn what_policies_say_is_what_their_annotations_announce() {
    let bundle = Bundle::load(&policies().join("reference")).expect("the bundle loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = Arc::new(PolicySet::compile(&bundle, &runtime).expect("it compiles"));
    let mut written = Said::new();
    for name in set.names() {
        let metadata = set.metadata(name.as_str()).expect("it is there");
        assert!(metadata.policy.owner.is_some(), "`{name}` has no owner");
        for rule in &metadata.rules {
            announced(name.as_str(), rule, &mut written);
        }
    }
    let mut runner = CaseRunner::new(Arc::clone(&set), None);
    let mut said = Said::new();
    for file in bundle.case_files() {
        let reports = runner.run(&bundle, &file, crate::request::convert).expect("they run");
        let evaluations = reports.iter().filter_map(|report| report.evaluation.as_ref());
        for candidate in evaluations.flat_map(|evaluation| &evaluation.candidates) {
            candidate.verdicts.iter().for_each(|verdict| heard(verdict, &written, &mut said));
        }
    }
    let unannounced: Vec<_> = said.difference(&written).collect();
    assert!(unannounced.is_empty(), "no annotation announces {unannounced:?}");
    let tested: Said =
        BY_TEST_RULES.iter().map(|(policy, what)| ((*policy).into(), (*what).into())).collect();
    let silent: Said = written.difference(&said).cloned().collect();
    assert_eq!(silent, tested, "these are what no case brings about");
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
