//! Bundles on disk: what is loaded, what is refused, and which policies are asked.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use placet_core::{Digest, Effect, Id, Verdict};
use placet_policy::{
    Bundle, CaseRunner, Evaluation, Evaluator, Facts, Input, PolicySet, WasmRuntime,
};
use tempfile::TempDir;

const PERMIT: &str =
    "package placet.p\nwarn contains {\"code\": \"W\", \"message\": \"w\"} if false\n";
const DENY: &str = "package placet.d\n\
    deny contains {\"code\": \"NO\", \"message\": input.lease.gpu_model}\n";

fn directory(manifest: &str, files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("bundle.yaml"), manifest).expect("it is written");
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("it is made");
        fs::write(path, text).expect("it is written");
    }
    directory
}

fn manifest(rest: &str) -> String {
    format!("schema: placet.bundle/v1\nrevision: \"1\"\n{rest}")
}

fn refused(manifest: &str, files: &[(&str, &str)]) -> String {
    let directory = directory(manifest, files);
    Bundle::load(directory.path()).expect_err(manifest).to_string()
}

fn compile(directory: &Path) -> Result<PolicySet, String> {
    let bundle = Bundle::load(directory).map_err(|error| error.to_string())?;
    let runtime = WasmRuntime::new().expect("the engine starts");
    PolicySet::compile(&bundle, &runtime).map_err(|error| error.to_string())
}

fn input() -> Input {
    serde_json::from_str(include_str!("sample.json")).expect("it is an input")
}

fn evaluate(policies: &str, files: &[(&str, &str)]) -> Evaluation {
    let directory = directory(&manifest(policies), files);
    let set = compile(directory.path()).expect("it compiles");
    Evaluator::new(Arc::new(set)).evaluate(&input()).expect("no backstop")
}

const FILES: [(&str, &str); 2] = [("p.rego", PERMIT), ("d/d.rego", DENY)];

#[test]
fn the_digest_is_that_of_sha256sums_text() {
    let manifest = manifest("policies: [{name: p, source: p.rego}]\n");
    let directory = directory(&manifest, &FILES);
    let line = |path: &str, text: &str| format!("{}  {path}\n", Digest::of(text.as_bytes()).hex());
    let text = [line("bundle.yaml", &manifest), line("d/d.rego", DENY), line("p.rego", PERMIT)];
    let bundle = Bundle::load(directory.path()).expect("it loads");
    assert_eq!(bundle.digest(), Digest::of(text.concat().as_bytes()));
    assert_eq!(bundle.revision(), "1");
}

#[test]
fn a_wrong_manifest_is_refused_with_place_and_remedy() {
    for (policies, expected) in [
        ("polcies: []\n", "bundle.yaml:3:1: unknown field `polcies`"),
        ("policies: [{name: p, sorce: p.rego}]\n", "did you mean `source`?"),
        ("policies: []\n", "does not have 1 to"),
        ("policies: [{name: p, source: q.rego}]\n", "did you mean `p.rego`?"),
        ("policies: [{name: p, source: ../p.rego}]\n", "is not a file of the bundle"),
        ("policies: [{name: p, source: p.txt}]\n", "is neither a `.rego` nor a `.wasm` file"),
        ("policies: [{name: placet, source: p.rego}]\n", "is the name of the engine itself"),
        (
            "policies: [{name: p, source: p.rego}, {name: p, source: d/d.rego}]\n",
            "is the name of two policies",
        ),
        ("policies: [{name: p, source: p.rego, level: sometimes}]\n", "unknown variant"),
        ("policies: [{name: p, source: p.rego, budget: {ticks: 0}}]\n", "is not 1 to"),
        ("policies: [{name: p, source: p.rego, budget: {fuel: 9}}]\n", "does not fit its language"),
        ("required: {lease: [q]}\npolicies: [{name: p, source: p.rego}]\n", "which is no policy"),
        (
            "required: {lease: [p]}\npolicies: [{name: p, source: p.rego, mode: shadow}]\n",
            "which has no say",
        ),
        (
            "required: {job: [p]}\n\
             policies: [{name: p, source: p.rego, select: {kinds: [lease]}}]\n",
            "which does not select this kind",
        ),
    ] {
        let message = refused(&manifest(policies), &FILES);
        assert!(message.contains(expected), "{policies} gave: {message}");
        assert!(message.contains("\nhint: "), "{policies} gave no hint: {message}");
    }
    assert!(refused("schema: placet.bundle/v2\n", &[]).contains("placet.bundle/v1"));
}

#[test]
fn a_missing_manifest_a_link_and_a_policy_that_does_not_compile_are_refused() {
    let empty = tempfile::tempdir().expect("a directory");
    let message = Bundle::load(empty.path()).expect_err("it is empty").to_string();
    assert!(message.contains("bundle.yaml: is missing"), "{message}");
    let missing = Bundle::load(&empty.path().join("no")).expect_err("it is not there").to_string();
    assert!(missing.starts_with("cannot read `"), "{missing}");
    let broken = "package placet.p\n\ndeny contains {\n";
    let policies = manifest("policies: [{name: p, source: p.rego}]\n");
    let directory = directory(&policies, &[("p.rego", broken)]);
    let message = compile(directory.path()).expect_err("it does not parse");
    assert!(message.starts_with("p.rego:"), "{message}");
    #[cfg(unix)]
    {
        let link = directory.path().join("link.rego");
        std::os::unix::fs::symlink("/etc/hostname", link).expect("a link");
        let message = Bundle::load(directory.path()).expect_err("it has a link").to_string();
        assert!(message.contains("link.rego: is a symbolic link"), "{message}");
    }
}

#[test]
fn params_beyond_what_json_keeps_exact_are_refused() {
    let policies = "policies: [{name: p, source: p.rego, params: {a: [9007199254740992]}}]\n";
    let directory = directory(&manifest(policies), &FILES);
    let message = compile(directory.path()).expect_err("the number is too large");
    assert!(message.contains("beyond 2^53 - 1"), "{message}");
}

#[test]
fn only_policies_that_select_the_input_are_asked() {
    let select = |select: &str| {
        let policies = format!(
            "policies:\n  - {{name: p, source: p.rego}}\n  \
             - {{name: d, source: d/d.rego, select: {select}}}\n"
        );
        evaluate(&policies, &FILES).candidates[0].verdicts.len()
    };
    for (selector, asked) in [
        ("{}", 2),
        ("{kinds: [lease]}", 2),
        ("{kinds: [job]}", 1),
        ("{tenants: [t-0, t-1]}", 2),
        ("{tenants: [t-0]}", 1),
        ("{tenants: [t-1, t-1], clusters: [c-1]}", 2),
        ("{tenants: [t-1], clusters: [c-0]}", 1),
        ("{clusters: [c-1], priority_classes: [EXTERNAL_COMMERCIAL]}", 2),
        ("{clusters: [c-1], priority_classes: [INTERNAL_RESEARCH]}", 1),
        ("{jurisdictions: [FR, JURISDICTION]}", 2),
        ("{jurisdictions: [FR]}", 1),
        ("{jurisdictions: [JURISDICTION], tenants: [t-0]}", 1),
    ] {
        let selector = selector.replace("JURISDICTION", input().cluster.jurisdiction.as_str());
        assert_eq!(select(&selector), asked, "{selector}");
    }
}

#[test]
fn each_gpu_model_is_evaluated_by_itself() {
    let evaluation = evaluate("policies: [{name: d, source: d/d.rego}]\n", &FILES);
    let told: Vec<_> = evaluation
        .candidates
        .iter()
        .map(|c| (c.gpu_model.as_str(), c.outcome.reasons[0].message.as_str()))
        .collect();
    assert_eq!(told, [("H100", "H100"), ("A100", "A100")]);
    assert!(evaluation.permitted().is_none());
}

#[test]
fn a_shadow_is_recorded_and_a_required_policy_must_apply() {
    let policies = "required: {lease: [p]}\npolicies:\n  - {name: p, source: p.rego}\n  \
        - {name: d, source: d/d.rego, mode: shadow}\n";
    let evaluation = evaluate(policies, &FILES);
    let first = &evaluation.candidates[0];
    assert_eq!(first.outcome.effect, Effect::Permit);
    let shadow = &first.verdicts[0];
    assert_eq!((shadow.policy.clone(), shadow.verdict), (Id::new("d").expect("id"), Verdict::Deny));
    let elsewhere = policies.replace("p.rego}", "p.rego, select: {tenants: [t-9]}}");
    let evaluation = evaluate(&elsewhere, &FILES);
    let codes = evaluation.candidates[0].outcome.reasons.iter().map(|r| r.code.as_str());
    assert_eq!(codes.collect::<Vec<_>>(), ["NO_APPLICABLE_POLICY", "REQUIRED_POLICY_MISSING"]);
}

#[test]
fn parameters_reach_the_policy() {
    let reads =
        "package placet.q\ndeny contains {\"code\": \"NO\", \"message\": data.params.text}\n";
    let policies = "policies: [{name: q, source: q.rego, params: {text: hello}}]\n";
    let evaluation = evaluate(policies, &[("q.rego", reads)]);
    assert_eq!(evaluation.candidates[0].outcome.reasons[0].message, "hello");
}

#[test]
fn cases_and_their_facts_come_from_the_bundle_alone() {
    let manifest = manifest("policies: [{name: p, source: p.rego}]\n");
    let run = |cases: &str, file: &str| {
        let files = [("p.rego", PERMIT), ("a/cases/c.yaml", cases), ("facts.yaml", "schema: x\n")];
        let directory = directory(&manifest, &files);
        // What lies beside the bundle is no part of it.
        let outside = directory.path().parent().expect("a parent").join("outside.yaml");
        let bundle = Bundle::load(directory.path()).expect("it loads");
        assert_eq!(bundle.case_files(), ["a/cases/c.yaml"]);
        let runtime = WasmRuntime::new().expect("the engine starts");
        let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
        let mut runner = CaseRunner::new(Arc::new(set), None);
        assert!(!outside.exists());
        runner.run(&bundle, file, crate::request::convert).expect_err(cases).to_string()
    };
    let case = "cases: [{name: a, time: 0, expect: {}}]\n";
    for (cases, expected) in [
        (format!("facts: ../../../outside.yaml\n{case}"), "leave the bundle\nhint: "),
        (format!("facts: /etc/hostname\n{case}"), "leave the bundle\nhint: "),
        (format!("facts: ../facts.yml\n{case}"), "are not in the bundle, as `a/facts.yml`"),
        (format!("facts: ../../fact.yaml\n{case}"), "did you mean `facts.yaml` in the bundle?"),
        // The facts are read, and their own faults have their own file.
        (format!("facts: ../../facts.yaml\n{case}"), "facts.yaml:1:"),
        (format!("fcts: ../../facts.yaml\n{case}"), "did you mean `facts`?"),
        (format!("facts: ../fact.yaml\n{case}"), "a/cases/c.yaml:1:8: facts `../fact.yaml` are"),
        ("facts: f\ncases: []\n".to_owned(), "a/cases/c.yaml:2:8: has no cases"),
        (
            "facts: f\ncases: [{name: a, time: 0, expcet: {}}]\n".to_owned(),
            "did you mean `expect`?",
        ),
        (
            "facts: f\ncases:\n- {name: a, time: 0, expect: {}}\n- {name: a, time: 1, expect: {}}\n"
                .to_owned(),
            "a/cases/c.yaml:4:10: two cases are named `a`",
        ),
    ] {
        let message = run(&cases, "a/cases/c.yaml");
        assert!(message.contains(expected), "{cases} gave: {message}");
    }
    let message = run(case, "a/cases/d.yaml");
    assert!(message.starts_with("a/cases/d.yaml: is no file of the bundle"), "{message}");
}

/// Few bytes that an alias makes many values of: n squared.
fn bomb(n: usize) -> String {
    let list = |item: &str| format!("[{}]", vec![item; n].join(","));
    format!("{{a: &a {}, b: {}}}", list("1"), list("*a"))
}

#[test]
fn aliases_are_refused_wherever_yaml_is_read() {
    let bomb = bomb(20_000);
    let policy = |rest: &str| manifest(&format!("policies: [{{name: p, source: p.rego{rest}}}]\n"));
    let files = |path, text| [("p.rego", PERMIT), (path, text)];
    let run = |path: &str, cases: &str, facts: &str| {
        let files = [("p.rego", PERMIT), (path, cases), ("facts.yaml", facts)];
        let directory = directory(&policy(""), &files);
        let bundle = Bundle::load(directory.path()).expect("it loads");
        let runtime = WasmRuntime::new().expect("the engine starts");
        let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
        let mut runner = CaseRunner::new(Arc::new(set), None);
        runner.run(&bundle, path, crate::request::convert).expect_err("a bomb").to_string()
    };
    let case = "{name: a, time: 0, expect: {}}";
    let cases = format!("facts: ../facts.yaml\nrequest: {bomb}\ncases: [{case}]\n");
    let plain = format!("facts: ../facts.yaml\ncases: [{case}]\n");
    let facts = format!("schema: placet.facts/v1\nrevision: {bomb}\n");
    for message in [
        refused(&policy(&format!(", params: {bomb}")), &files("x", "")),
        refused(&policy(", params_schema: s.yaml"), &files("s.yaml", &bomb)),
        run("cases/c.yaml", &cases, ""),
        run("cases/c.yaml", &plain, &facts),
        Facts::from_bytes("f", facts.as_bytes()).expect_err("a bomb").to_string(),
    ] {
        assert!(message.contains("`*a` is an alias of `&a`\nhint: write it out"), "{message}");
    }
}

#[test]
fn names_of_cases_and_their_number_are_bounded() {
    let manifest = manifest("policies: [{name: p, source: p.rego}]\n");
    let run = |files: &[(&str, &str)]| {
        let directory = directory(&manifest, &[&[("p.rego", PERMIT)], files].concat());
        let bundle = Bundle::load(directory.path()).expect("it loads");
        let runtime = WasmRuntime::new().expect("the engine starts");
        let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
        let mut runner = CaseRunner::new(Arc::new(set), None);
        let first = runner.run(&bundle, "a/cases/a.yaml", crate::request::convert);
        first.expect_err("not one can run").to_string()
    };
    for name in ["x".repeat(257), "a\\nb".to_owned(), String::new()] {
        let cases = format!("facts: f\ncases: [{{name: \"{name}\", time: 0, expect: {{}}}}]\n");
        let message = run(&[("a/cases/a.yaml", &cases)]);
        assert!(message.contains("the name of case 1 is not one line of 1 to 256"), "{message}");
    }
    let cases = |count: usize| {
        let case = |at| format!("- {{name: c{at}, time: 0, expect: {{}}}}\n");
        format!("facts: f\ncases:\n{}", (0..count).map(case).collect::<String>())
    };
    let (first, second) = (cases(10_000), cases(10_001));
    let message = run(&[("a/cases/a.yaml", &first), ("b/cases/b.yaml", &second)]);
    let expected = "b/cases/b.yaml: the bundle has more than 20000 cases";
    assert!(message.starts_with(expected) && message.contains("\nhint: "), "{message}");
    // One less is few enough, and the first fault is that of the file itself.
    let message = run(&[("a/cases/a.yaml", &first), ("b/cases/b.yaml", &first)]);
    assert!(message.contains("facts `f` are not in the bundle"), "{message}");
}
