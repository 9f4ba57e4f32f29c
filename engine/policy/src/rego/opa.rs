//! The interpreter by itself, without the contract of policies: for OPA's conformance cases and
//! OPA's `test_` rules. The built-ins, the refusals and the ticks are those of policies.

mod cases;
mod rule_tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use regorus::unstable::{Module, Ref};
use regorus::{Engine, LimitError};

pub use cases::{OpaReport, opa_case_files, run_opa_file};
pub use rule_tests::{RuleTestReport, record_rule_tests, run_rule_tests};

use super::charge::Charged;
use super::check::{self, deviations};
use super::{MAX_TICKS, Parsed, add, builtins, interpreter, marks, parse, ticks, told};
use crate::coverage::Record;
use crate::error::Fault;

/// What became of a case or of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TestOutcome {
    /// As expected.
    Passed,
    /// Not as expected: what was.
    Failed(String),
    /// No answer: what went wrong.
    Error(String),
    /// Not run, or without an answer that could be held against OPA's.
    Skipped {
        /// Why, in the same words for all of a kind.
        reason: &'static str,
        /// What it was in this one.
        detail: String,
    },
}

/// An interpreter with modules that were checked.
struct Loaded {
    engine: Engine,
    /// The modules as their authors wrote them.
    modules: Vec<Ref<Module>>,
}

/// Loads modules; what is reached of the first goes into a record, if there is one.
fn load(modules: &[(String, &str)], record: Option<&Arc<Record>>) -> Result<Loaded, Fault> {
    let mut engine = interpreter();
    let parsed = modules.iter().map(|(file, source)| parse(file, source));
    let parsed: Vec<Parsed> = parsed.collect::<Result<_, _>>()?;
    let functions: BTreeSet<String> =
        parsed.iter().flat_map(|parsed| check::functions(&parsed.module)).collect();
    for (at, (parsed, (file, source))) in parsed.iter().zip(modules).enumerate() {
        check_module(&parsed.module, file, &functions)?;
        match record.filter(|_| at == 0) {
            Some(record) => marks::add(&mut engine, file, source, parsed, record)?,
            None => add(&mut engine, file, source, parsed)?,
        };
    }
    engine.set_execution_timer_config(ticks::limit(MAX_TICKS));
    Ok(Loaded { engine, modules: parsed.into_iter().map(|parsed| parsed.module).collect() })
}

fn check_module(module: &Module, file: &str, functions: &BTreeSet<String>) -> Result<(), Fault> {
    check::check_calls(module, file, functions)?;
    deviations::check(module, file)
}

/// Why there is no answer.
enum Stop {
    Budget,
    Error(String),
}

/// Evaluates with a budget of [`MAX_TICKS`]. `time.now_ns` is 0: there is no input yet.
fn budgeted<T>(
    engine: &mut Engine,
    evaluate: impl FnOnce(&mut Engine) -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<T, Stop> {
    builtins::set_time(0);
    ticks::start(MAX_TICKS);
    let result = evaluate(engine);
    if ticks::spent() > MAX_TICKS {
        return Err(Stop::Budget);
    }
    result.map_err(|error| {
        if error.downcast_ref::<LimitError>().is_some() {
            return Stop::Budget;
        }
        let (message, place) = told(&error.to_string(), &Charged::default());
        let place = place.map(|(line, column)| format!("line {line}, column {column}: "));
        Stop::Error(format!("{}{message}", place.unwrap_or_default()))
    })
}
