//! OPA's `test_` rules: the files `*_test.rego` of a bundle.

use std::collections::BTreeMap;

use regorus::unstable::{Expr, Module, Rule, RuleHead};
use regorus::{Engine, Value};

use super::super::check::refs;
use super::super::{marks, params, parse};
use super::{Loaded, Stop, TestOutcome, budgeted, load};
use crate::bundle::{Bundle, Language};
use crate::coverage::Recorder;
use crate::document;
use crate::error::{Fault, LoadError};
use crate::evaluate;

/// How the file of tests is known.
const ENDING: &str = "_test.rego";
/// How a test is known.
const TEST: &str = "test_";
/// How a test is known that does not count yet.
const LATER: &str = "todo_test_";

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleTestReport {
    /// Path of its file in the bundle.
    pub file: String,
    /// Name of the rule.
    pub rule: String,
    /// Line from 1 on which it begins.
    pub line: u32,
    /// What became of it. A test passes if its rule is true, and only then.
    pub outcome: TestOutcome,
}

/// A file of tests with the policy that it tests.
struct TestFile<'a> {
    path: &'a str,
    text: &'a str,
    policy: usize,
}

/// Runs every test of a bundle. Each runs on an interpreter of its own, with the module of the
/// policy that it tests, that policy's params as `data.params`, and all files of tests of the same
/// policy. A file tests the policy of its own package, of its package without the ending `_test`,
/// or else the one that it imports.
///
/// # Errors
/// [`LoadError`] if a file does not parse, calls what a policy may not, or tests no policy of the
/// bundle. A test that fails is no error.
pub fn run_rule_tests(bundle: &Bundle) -> Result<Vec<RuleTestReport>, LoadError> {
    run(bundle, None)
}

/// Runs every test once more, with what they reach of the policies in a record. What comes out of
/// them is not looked at.
///
/// # Errors
/// As [`run_rule_tests`].
pub fn record_rule_tests(bundle: &Bundle, recorder: &Recorder) -> Result<(), LoadError> {
    run(bundle, Some(recorder)).map(|_| ())
}

fn run(bundle: &Bundle, recorder: Option<&Recorder>) -> Result<Vec<RuleTestReport>, LoadError> {
    let mut policies = Vec::new();
    for entry in &bundle.manifest().policies {
        let sources = [Some(&entry.source), entry.twin.as_ref()].into_iter().flatten();
        for source in sources.filter(|source| Language::of(source) == Some(Language::Rego)) {
            let text = document::text(bundle.file(source), source)?;
            let module = parse(source, text)?.module;
            policies.push((entry, source.as_str(), text, package(&module)));
        }
    }
    let mut files = Vec::new();
    for path in bundle.paths().filter(|path| path.ends_with(ENDING)) {
        let text = document::text(bundle.file(path), path)?;
        let module = parse(path, text)?.module;
        let names = tested(&module);
        let policy = names
            .iter()
            .find_map(|name| policies.iter().position(|(_, _, _, package)| package == name));
        let Some(policy) = policy else {
            let fault = Fault::new(path, "tests no policy of the bundle");
            let hint = "name its package as the policy's, or that with the ending `_test`";
            return Err(fault.at(module.package.span.line, None).hint(hint).into());
        };
        files.push(TestFile { path, text, policy });
    }
    let mut by_policy: BTreeMap<usize, Vec<&TestFile<'_>>> = BTreeMap::new();
    for file in &files {
        by_policy.entry(file.policy).or_default().push(file);
    }
    let mut reports = Vec::new();
    for (policy, files) in by_policy {
        let Some((entry, source, text, _)) = policies.get(policy) else { continue };
        let mut modules = vec![((*source).to_owned(), *text)];
        modules.extend(files.iter().map(|file| (file.path.to_owned(), file.text)));
        let record = recorder.and_then(|recorder| recorder.of(source));
        let Loaded { mut engine, modules } = load(&modules, record)?;
        let params = params(&evaluate::params(entry)?);
        let data = [(Value::from("params"), params)];
        let data = Value::from(data.into_iter().collect::<regorus::value::Object>());
        engine.add_data(data).map_err(|error| Fault::new(*source, error.to_string()))?;
        for (module, file) in modules.iter().skip(1).zip(files) {
            let after = |engine: &mut Engine| {
                if let Some(record) = record {
                    marks::end(engine, source, record);
                }
            };
            reports.extend(tests(module, file.path, &engine, after));
        }
    }
    reports.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
    Ok(reports)
}

fn package(module: &Module) -> String {
    refs::path(&module.package.refr).unwrap_or_default()
}

/// The packages that a file may test, the likeliest first.
fn tested(module: &Module) -> Vec<String> {
    let package = package(module);
    let mut names = vec![package.clone()];
    names.extend(package.strip_suffix("_test").map(str::to_owned));
    for import in &module.imports {
        let path = refs::path(&import.refr).unwrap_or_default();
        if let Some(path) = path.strip_prefix("data.") {
            names.push(path.to_owned());
            // A rule of the policy may be imported too.
            names.extend(path.rsplit_once('.').map(|(package, _)| package.to_owned()));
        }
    }
    names
}

fn tests(
    module: &Module,
    file: &str,
    engine: &Engine,
    after: impl Fn(&mut Engine),
) -> Vec<RuleTestReport> {
    let package = refs::names(&module.package.refr).unwrap_or_default();
    let mut reports: Vec<RuleTestReport> = Vec::new();
    for rule in &module.policy {
        let name = refs::root(refs::defined(rule)).unwrap_or_default();
        let todo = name.starts_with(LATER);
        let known = reports.iter().any(|report| report.rule == name);
        if !(todo || name.starts_with(TEST)) || known {
            continue;
        }
        let outcome = if todo {
            TestOutcome::Skipped { reason: "todo", detail: "its name begins with `todo_`".into() }
        } else if is_plain(rule) {
            let mut engine = engine.clone();
            let outcome = test(&package, &name, &mut engine);
            after(&mut engine);
            outcome
        } else {
            TestOutcome::Error("a test is a rule without keys or arguments".into())
        };
        let line = rule.span().line;
        reports.push(RuleTestReport { file: file.to_owned(), rule: name, line, outcome });
    }
    reports
}

fn is_plain(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. } => matches!(refr.as_ref(), Expr::Var { .. }),
            RuleHead::Set { .. } | RuleHead::Func { .. } => false,
        },
        Rule::Default { args, .. } => args.is_empty(),
    }
}

fn test(package: &[String], name: &str, engine: &mut Engine) -> TestOutcome {
    let mut path = "data".to_owned();
    for segment in package {
        path.push_str(&format!("[{}]", serde_json::Value::from(segment.as_str())));
    }
    path.push_str(&format!(".{name}"));
    let result = budgeted(engine, |engine| engine.eval_rule(path).map_err(Into::into));
    match result {
        Ok(Value::Bool(true)) => TestOutcome::Passed,
        Ok(Value::Undefined) => TestOutcome::Failed("is undefined".into()),
        Ok(value) => {
            let value = serde_json::to_string(&value).unwrap_or_else(|_error| "no JSON".into());
            TestOutcome::Failed(format!("is {}", value.chars().take(200).collect::<String>()))
        }
        Err(Stop::Budget) => TestOutcome::Error("spent its budget of ticks".into()),
        Err(Stop::Error(message)) => TestOutcome::Error(message),
    }
}
