//! OPA's conformance cases: YAML or JSON with a list `cases`.
//!
//! The keys are those of OPA's own loader (its Go package `test/cases`, type `TestCase`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regorus::unstable::{Module, Ref};
use regorus::{Engine, QueryResults, Value};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::super::charge::Charged;
use super::super::{check, parse};
use super::{Loaded, Stop, TestOutcome, budgeted, check_module, load};
use crate::document;
use crate::error::{Fault, LoadError};

/// Largest file of cases in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Most files of cases below one directory: OPA's own are some 2,500.
const MAX_FILES: usize = 20_000;
/// Deepest directory of cases.
const MAX_DEPTH: usize = 16;
/// Longest text of what was not as expected, in bytes.
const MAX_SHOWN_BYTES: usize = 1_000;
/// From here on, 2^53, a binary fraction does not tell whole numbers apart.
const FRACTIONS_END: f64 = 9_007_199_254_740_992.0;
/// The name of the query's own text in messages.
const QUERY: &str = "query";

#[derive(Debug, Deserialize)]
struct CaseFile {
    // As YAML, which reads any number: one case must not hide the others.
    cases: Vec<yaml_serde::Value>,
}

/// One case. Keys that OPA does not have are looked for before it is read.
#[derive(Debug, Deserialize)]
struct Case {
    query: String,
    #[serde(default)]
    modules: Vec<String>,
    data: Option<Map<String, Json>>,
    #[serde(default, deserialize_with = "present")]
    input: Option<Json>,
    input_term: Option<String>,
    want_result: Option<Vec<BTreeMap<String, Json>>>,
    want_defined: Option<bool>,
    want_error: Option<String>,
    want_error_code: Option<String>,
    #[serde(default)]
    sort_bindings: bool,
    #[serde(default)]
    ignore_generated_vars: bool,
    #[serde(default)]
    strict_error: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

/// The keys of a case.
const KEYS: [&str; 14] = [
    "data",
    "env",
    "ignore_generated_vars",
    "input",
    "input_term",
    "modules",
    "note",
    "query",
    "sort_bindings",
    "strict_error",
    "want_defined",
    "want_error",
    "want_error_code",
    "want_result",
];

/// An input that is null is an input all the same.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(from).map(Some)
}

/// What became of one of OPA's cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaReport {
    /// Its note: what it is about.
    pub note: String,
    /// What became of it. Never [`TestOutcome::Error`].
    pub outcome: TestOutcome,
}

/// The files of cases that a path names: itself, or all `.yaml`, `.yml` and `.json` files below it,
/// sorted.
///
/// # Errors
/// [`LoadError`] if a directory cannot be read, or holds more than 20,000 files or 16 levels.
pub fn opa_case_files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut files = Vec::new();
    if path.is_dir() {
        collect(path, 0, &mut files)?;
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    Ok(files)
}

fn collect(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let cannot = |source| LoadError::Read { path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(cannot)?);
        if depth >= MAX_DEPTH || files.len() >= MAX_FILES {
            let message = format!("there are more than {MAX_FILES} files or {MAX_DEPTH} levels");
            let fault = Fault::new(directory.display().to_string(), message);
            return Err(fault.hint("name a directory further down").into());
        }
        let ending = path.extension().and_then(|ending| ending.to_str());
        if kind.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() && matches!(ending, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    Ok(())
}

/// Runs the cases of one file.
///
/// # Errors
/// [`LoadError`] if the file cannot be read or holds no list of cases. A case that fails is no
/// error.
pub fn run_opa_file(path: &Path) -> Result<Vec<OpaReport>, LoadError> {
    let name = path.display().to_string();
    let bytes = document::read(path, &name, MAX_FILE_BYTES)?;
    let text = document::text(&bytes, &name)?;
    // JSON is YAML too, but for characters that it writes as two escapes.
    let json = path.extension().is_some_and(|ending| ending == "json");
    let file = match serde_json::from_str::<CaseFile>(text) {
        Ok(file) if json => file,
        _ => document::parse::<CaseFile>(text, &name)?,
    };
    Ok(file.cases.into_iter().map(report).collect())
}

fn report(case: yaml_serde::Value) -> OpaReport {
    let note = case.get("note").and_then(yaml_serde::Value::as_str).unwrap_or("without a note");
    let note = note.to_owned();
    let outcome = match yaml_serde::from_value(case) {
        Ok(case) => run(case),
        Err(error) => skipped("unsupported: a value that JSON does not have", error.to_string()),
    };
    OpaReport { note, outcome }
}

fn skipped(reason: &'static str, detail: impl Into<String>) -> TestOutcome {
    TestOutcome::Skipped { reason, detail: detail.into() }
}

fn run(case: Json) -> TestOutcome {
    let keys = case.as_object().into_iter().flat_map(Map::keys);
    if let Some(key) = keys.into_iter().find(|key| !KEYS.contains(&key.as_str())) {
        return skipped("unknown key", format!("`{key}`"));
    }
    if !numbers_fit(&case) {
        return skipped("unsupported: numbers beyond 64 bits", "in its documents");
    }
    let case: Case = match serde_json::from_value(case) {
        Ok(case) => case,
        Err(error) => return TestOutcome::Failed(format!("the case cannot be read: {error}")),
    };
    if !case.env.is_empty() {
        return skipped("unsupported: environment", "a policy does not see its surroundings");
    }
    let mut engine = match prepare(&case) {
        Ok(engine) => engine,
        Err(fault) => return skipped("refused at load", place(&fault)),
    };
    let first = budgeted(&mut engine.clone(), |engine| {
        engine.eval_query(case.query.clone(), false).map_err(Into::into)
    });
    let rows = match first {
        Ok(results) => case.rows(&results),
        Err(stop) => return case.stopped(stop),
    };
    // A policy's rules are evaluated all in one pass: the answer must be the same.
    let all = budgeted(&mut engine, |engine| {
        engine.eval_query_and_all_rules(case.query.clone(), false).map_err(Into::into)
    });
    match all {
        Ok(results) if case.rows(&results) != rows => {
            TestOutcome::Failed("gives another answer when all rules are evaluated".into())
        }
        Ok(_) | Err(_) => case.judge(&rows),
    }
}

fn place(fault: &Fault) -> String {
    let mut text = fault.message.lines().next().unwrap_or_default().to_owned();
    if let Some(line) = fault.line {
        text = format!("{}:{line}: {text}", fault.file);
    }
    shown(text)
}

fn shown(mut text: String) -> String {
    if text.len() > MAX_SHOWN_BYTES {
        let end = (0..=MAX_SHOWN_BYTES).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}

/// Whether each number of a document was read as it was written: a longer one is read as the
/// nearest fraction.
fn numbers_fit(value: &Json) -> bool {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Json::Number(number) => {
                let whole = number.is_u64() || number.is_i64();
                if !whole && number.as_f64().is_none_or(|number| number.abs() >= FRACTIONS_END) {
                    return false;
                }
            }
            Json::Array(items) => left.extend(items),
            Json::Object(fields) => left.extend(fields.values()),
            Json::Null | Json::Bool(_) | Json::String(_) => {}
        }
    }
    true
}

/// An interpreter with the case's modules, data and input. Everything is checked, the query too.
fn prepare(case: &Case) -> Result<Engine, Fault> {
    let names = (0..case.modules.len()).map(|at| format!("module {at}"));
    let modules: Vec<_> = names.zip(case.modules.iter().map(String::as_str)).collect();
    let Loaded { mut engine, modules } = load(&modules, None)?;
    let functions = modules.iter().flat_map(|module| check::functions(module)).collect();
    let query = as_module(&case.query)?;
    check_module(&query, QUERY, &functions)?;
    let told = |error: &dyn std::fmt::Display| {
        Fault::new("data", super::told(&error.to_string(), &Charged::default()).0)
    };
    if let Some(data) = &case.data {
        let text = Json::Object(data.clone()).to_string();
        engine.add_data_json(&text).map_err(|error| told(&error))?;
    }
    let input = match (&case.input_term, &case.input) {
        (Some(term), _) => input_term(term)?,
        (None, Some(input)) => {
            Value::from_json_str(&input.to_string()).map_err(|error| told(&error))?
        }
        (None, None) => Value::Undefined,
    };
    engine.set_input(input);
    Ok(engine)
}

/// A query as the body of a rule.
fn as_module(query: &str) -> Result<Ref<Module>, Fault> {
    let text = format!("package placet_query\n\nimport rego.v1\n\nasked if {{\n{query}\n}}\n");
    Ok(parse(QUERY, &text)?.module)
}

fn input_term(term: &str) -> Result<Value, Fault> {
    let Loaded { mut engine, .. } = load(&[], None)?;
    let module = as_module(term)?;
    check_module(&module, "input_term", &check::functions(&module))?;
    let result = budgeted(&mut engine, |engine| {
        engine.eval_query(term.to_owned(), false).map_err(Into::into)
    });
    let rows = result.ok().map(|results| results.result).unwrap_or_default();
    let last = rows.into_iter().next_back().and_then(|row| row.expressions.into_iter().next_back());
    last.map(|expression| expression.value).ok_or_else(|| Fault::new("input_term", "has no value"))
}

impl Case {
    /// The rows of an answer: what each variable is.
    fn rows(&self, results: &QueryResults) -> Vec<BTreeMap<String, Value>> {
        let mut rows = Vec::new();
        for row in &results.result {
            let undefined = |value: &Value| matches!(value, Value::Undefined | Value::Bool(false));
            let failed = row.expressions.iter().any(|expression| undefined(&expression.value));
            let mut bindings = BTreeMap::new();
            if let Value::Object(object) = &row.bindings {
                for (name, value) in object.iter_sorted() {
                    let Value::String(name) = name else { continue };
                    if !self.ignore_generated_vars || !name.starts_with(['_', '$']) {
                        bindings.insert(name.to_string(), value.clone());
                    }
                }
            }
            if !failed && !row.expressions.is_empty() {
                rows.push(bindings);
            }
        }
        rows
    }

    fn wants_error(&self) -> bool {
        self.want_error.is_some() || self.want_error_code.is_some()
    }

    fn stopped(&self, stop: Stop) -> TestOutcome {
        let message = match stop {
            Stop::Budget => return skipped("spent its budget", "of ticks"),
            Stop::Error(message) => shown(message),
        };
        let conflict = ["multiple outputs", "multiple values", "conflict"]
            .iter()
            .any(|word| message.contains(word));
        match self.want_error_code.as_deref() {
            Some("eval_conflict_error") if !conflict => {
                TestOutcome::Failed(format!("another error than a conflict: {message}"))
            }
            _ if self.wants_error() => TestOutcome::Passed,
            _ if self.strict_error || conflict => TestOutcome::Failed(message),
            // OPA goes on as if the call had no value. A policy here is stopped, and denies.
            _ => skipped("stopped by an error, where OPA goes on", message),
        }
    }

    fn judge(&self, rows: &[BTreeMap<String, Value>]) -> TestOutcome {
        let got = || shown(format!("{:?}", rows.iter().map(Row).collect::<Vec<_>>()));
        if self.wants_error() {
            return TestOutcome::Failed(format!("no error, but {}", got()));
        }
        if let Some(wanted) = &self.want_result {
            let same = |row: &BTreeMap<String, Value>, want: &BTreeMap<String, Json>| {
                row.len() == want.len()
                    && row.iter().all(|(name, value)| {
                        want.get(name).is_some_and(|want| equal(value, want, self.sort_bindings))
                    })
            };
            let all = wanted.iter().all(|want| rows.iter().any(|row| same(row, want)))
                && rows.iter().all(|row| wanted.iter().any(|want| same(row, want)));
            if !all {
                let want = serde_json::to_string(wanted).unwrap_or_default();
                return TestOutcome::Failed(format!("expected {}, got {}", shown(want), got()));
            }
        }
        match self.want_defined {
            Some(defined) if defined == rows.is_empty() => {
                TestOutcome::Failed(format!("expected defined: {defined}, got {}", got()))
            }
            None if self.want_result.is_none() => {
                TestOutcome::Failed("the case expects nothing".into())
            }
            Some(_) | None => TestOutcome::Passed,
        }
    }
}

/// A row as it is shown.
struct Row<'a>(&'a BTreeMap<String, Value>);

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown =
            |value: &Value| serde_json::to_string(value).unwrap_or_else(|_error| "?".into());
        f.write_str("{")?;
        for (at, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}: {}", if at > 0 { ", " } else { "" }, shown(value))?;
        }
        f.write_str("}")
    }
}

/// Whether a value is what is expected, as OPA compares: in JSON, where a set is an array in any
/// order and a key that is no text is the text of its JSON.
fn equal(got: &Value, want: &Json, unordered: bool) -> bool {
    match (got, want) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(got), Json::Bool(want)) => got == want,
        (Value::String(got), Json::String(want)) => got.as_ref() == want,
        (Value::Number(got), Json::Number(want)) => match (want.as_u64(), want.as_i64()) {
            (Some(want), _) => got.as_u64() == Some(want),
            (None, Some(want)) => got.as_i64() == Some(want),
            (None, None) => got.as_f64() == want.as_f64(),
        },
        (Value::Array(got), Json::Array(want)) if unordered => matching(got.iter(), want),
        (Value::Array(got), Json::Array(want)) => {
            got.len() == want.len()
                && got.iter().zip(want).all(|(got, want)| equal(got, want, false))
        }
        (Value::Set(got), Json::Array(want)) => matching(got.iter(), want),
        (Value::Object(got), Json::Object(want)) => {
            got.len() == want.len()
                && got.iter_sorted().all(|(key, got)| {
                    let name = match key {
                        Value::String(name) => name.to_string(),
                        Value::Null
                        | Value::Bool(_)
                        | Value::Number(_)
                        | Value::Array(_)
                        | Value::Set(_)
                        | Value::Object(_)
                        | Value::Undefined => serde_json::to_string(key).unwrap_or_default(),
                    };
                    want.get(&name).is_some_and(|want| equal(got, want, false))
                })
        }
        _ => false,
    }
}

/// Whether each is matched by one of its own.
fn matching<'a>(got: impl ExactSizeIterator<Item = &'a Value>, want: &[Json]) -> bool {
    let mut left: Vec<&Json> = want.iter().collect();
    got.len() == left.len()
        && got.into_iter().all(|got| {
            let found = left.iter().position(|want| equal(got, want, false));
            found.map(|at| left.swap_remove(at)).is_some()
        })
}
