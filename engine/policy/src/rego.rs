//! Policies in Rego, by the reference interpreter.
//!
//! A policy is compiled once; each worker thread evaluates a clone of its own. The rules of the
//! contract, and what they lead to, are evaluated in one pass. Errors of built-ins are errors of
//! the policy. The budget is counted in ticks, the same in every run; there is no wall-clock
//! backstop here, since every built-in that could run long is refused or bounded.

mod annotations;
mod builtins;
mod charge;
mod check;
mod contradictions;
mod entry;
mod exact;
pub(crate) mod lint;
mod marks;
pub(crate) mod opa;
mod order;
mod read;
mod source;
mod stack;
mod ticks;
mod weigh;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use placet_core::{Cost, Id};
use regorus::unstable::{Module, Ref};
use regorus::utils::limits::PolicyLengthConfig;
use regorus::{Engine, LimitError, Value};

use crate::answer::{Answer, WrongParam};
use crate::coverage::Record;
use crate::error::Fault;
use crate::metadata::PolicyMetadata;
use charge::Charged;
use check::Declared;
use entry::Entry;
use source::Scan;

/// Ticks of a policy that sets none: some tens of milliseconds, hundreds of times what the shipped
/// policies need.
pub(crate) const DEFAULT_TICKS: u64 = 100_000;
/// Most ticks that a policy may set: some tenths of a second, on a thread that others wait for.
pub(crate) const MAX_TICKS: u64 = 2_000_000;
/// Largest text of a policy in bytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Most lines of a policy.
const MAX_LINES: usize = 20_000;
/// Longest line of a policy in characters: params and tables may be long.
const MAX_COLUMNS: u32 = 4_096;

/// How much longer a text may become by its charges.
const CHARGED: u32 = 16;

/// A policy, ready to be cloned for a thread.
#[derive(Debug, Clone)]
pub(crate) struct RegoPolicy {
    engine: Engine,
    entry: Entry,
    package: Vec<String>,
    declared: Declared,
    budget: u64,
    charged: Arc<Charged>,
    metadata: PolicyMetadata,
    /// What it says of its params, or why it says nothing.
    wrong_params: Result<Vec<WrongParam>, String>,
    /// The name of its file, and what is reached of it, if that is to be known.
    record: Option<(String, Arc<Record>)>,
}

impl RegoPolicy {
    /// Parses, checks and compiles a policy. `params` becomes `data.params`, and what the policy
    /// reads there is held against `params_schema`, or, without one, against the params themselves.
    ///
    /// # Errors
    /// [`Fault`] with line, column and remedy: it does not parse, calls what is not allowed or not
    /// there, reads a field that the input does not have, or has none of the contract's rules in
    /// their shape.
    pub(crate) fn compile(
        source: &str,
        file: &str,
        params: &Value,
        params_schema: Option<&serde_json::Value>,
        budget: u64,
    ) -> Result<Self, Fault> {
        Self::with_record(source, file, params, params_schema, budget, None)
    }

    /// The same, with what its evaluations reach in a record. It costs more ticks.
    pub(crate) fn with_record(
        source: &str,
        file: &str,
        params: &Value,
        params_schema: Option<&serde_json::Value>,
        budget: u64,
        record: Option<&Arc<Record>>,
    ) -> Result<Self, Fault> {
        let parsed = parse(file, source)?;
        let module = &parsed.module;
        let Some(package) = check::refs::names(&module.package.refr) else {
            return Err(Fault::new(file, "the package's name is not made of plain names"));
        };
        if package.first().is_some_and(|name| name == "params") {
            let place = &module.package.span;
            let fault = Fault::new(file, "package `params` would hide the parameters");
            return Err(fault.at(place.line, Some(place.col)).hint("name it `placet.<name>`"));
        }
        let declared = check::check(module, file, &check::Params::new(params, params_schema))?;
        let metadata = annotations::read(module, source, file)?;
        let judges_params = contradictions::declared(module, file)?;
        let mut engine = interpreter();
        let charged = match record {
            Some(record) => marks::add(&mut engine, file, source, &parsed, record)?,
            None => add(&mut engine, file, source, &parsed)?,
        };
        let told = |error: &dyn std::fmt::Display| fault(&error.to_string(), file, &charged);
        let data = [(Value::from("params"), params.clone())];
        let data = Value::from(data.into_iter().collect::<regorus::value::Object>());
        engine.add_data(data).map_err(|error| told(&error))?;
        engine.set_execution_timer_config(ticks::limit(budget));
        let entry = entry::add(&mut engine, &package, &declared).map_err(|error| told(&error))?;
        let charged = charged.into();
        let wrong_params = match judges_params {
            true => contradictions::wrong(engine.clone(), &package, budget),
            false => Ok(Vec::new()),
        };
        let record = record.map(|record| (file.to_owned(), Arc::clone(record)));
        let mut policy = Self {
            engine,
            entry,
            package,
            declared,
            budget,
            charged,
            metadata,
            wrong_params,
            record,
        };
        policy.prepare().map_err(|error| fault(&error, file, &policy.charged))?;
        Ok(policy)
    }

    /// What the policy's annotations say of it.
    pub(crate) fn metadata(&self) -> &PolicyMetadata {
        &self.metadata
    }

    /// Which of its params the policy calls wrong, or why it cannot say.
    pub(crate) fn wrong_params(&self) -> Result<Vec<WrongParam>, String> {
        self.wrong_params.clone()
    }

    /// Whether the policy has the rule that says whom a request displaces.
    pub(crate) fn may_displace(&self) -> bool {
        self.declared.preemption
    }

    /// Has the interpreter analyse the rules now, and not at the first request.
    fn prepare(&mut self) -> Result<(), String> {
        let mut rule = format!("data.{}", path_of(&self.package));
        if let Some(name) = self.declared.rules().next() {
            rule.push_str(&format!(".{name}"));
        }
        match self.engine.compile_with_entrypoint(&rule.into()) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Evaluates the contract's rules over an input; `time` is its `time`.
    pub(crate) fn evaluate(&mut self, input: &Value, time: u64) -> Answer {
        self.answer(input, time, false)
    }

    /// Evaluates all rules, those too that nothing of the contract leads to.
    #[cfg(test)]
    fn evaluate_whole(&mut self, input: &Value, time: u64) -> Answer {
        self.answer(input, time, true)
    }

    fn answer(&mut self, input: &Value, time: u64, whole: bool) -> Answer {
        builtins::set_time(time);
        self.engine.set_input(input.clone());
        ticks::start(self.budget);
        let result = if whole {
            self.engine.eval_modules(false)
        } else {
            self.engine.eval_rule_in_module(&self.entry.module, &self.entry.rule, false)
        };
        let cost = Cost { fuel: 0, ticks: ticks::spent().min(self.budget.saturating_add(1)) };
        let over = ticks::spent() > self.budget;
        if let Some((file, record)) = &self.record {
            marks::end(&mut self.engine, file, record);
        }
        match result {
            Err(error) if over || error.downcast_ref::<LimitError>().is_some() => self.over(cost),
            // The interpreter looks now and then: what it finished meanwhile is past the budget all
            // the same.
            Ok(_) if over => self.over(cost),
            Ok(data) => read::answer(&self.package, &self.declared, &data, cost),
            Err(error) => {
                let (message, place) = told(&error.to_string(), &self.charged);
                let place = place.map(|(line, column)| format!("line {line}, column {column}: "));
                Answer::indeterminate(&format!("{}{message}", place.unwrap_or_default()), cost)
            }
        }
    }

    fn over(&self, cost: Cost) -> Answer {
        Answer::indeterminate(&format!("spent its budget of {} ticks", self.budget), cost)
    }
}

/// What a policy's annotations say of it and of its rules, without compiling it.
///
/// # Errors
/// [`Fault`] if it does not parse, or an annotation is wrong.
pub(crate) fn metadata(file: &str, source: &str) -> Result<PolicyMetadata, Fault> {
    annotations::read(&parse(file, source)?.module, source, file)
}

/// A module as its author wrote it, checked for its form.
struct Parsed {
    module: Ref<Module>,
    scan: Scan,
}

/// Parses a text, bounded in length and in depth.
fn parse(file: &str, source: &str) -> Result<Parsed, Fault> {
    ticks::install();
    let scan = source::check(source, file)?;
    let mut engine = Engine::new();
    engine.set_policy_length_config(lengths(1));
    engine
        .add_policy(file.to_owned(), source.to_owned())
        .map_err(|error| fault(&error.to_string(), file, &Charged::default()))?;
    let module = engine.get_modules().first().expect("the module was just added").clone();
    stack::check_depth(&module, file)?;
    Ok(Parsed { module, scan })
}

/// An interpreter without policies: with our built-ins and limits, strict, and counting.
fn interpreter() -> Engine {
    ticks::install();
    let mut engine = Engine::new();
    engine.set_policy_length_config(lengths(CHARGED));
    engine.set_strict_builtin_errors(true);
    builtins::install(&mut engine);
    engine
}

/// Adds a module to an interpreter, with its charges.
fn add(engine: &mut Engine, file: &str, source: &str, parsed: &Parsed) -> Result<Charged, Fault> {
    let charged = charge::charge(&parsed.module, source, &parsed.scan, file)?;
    let added = engine.add_policy(file.to_owned(), charged.text.clone());
    match added {
        Ok(_) => Ok(charged),
        Err(error) => Err(fault(&error.to_string(), file, &charged)),
    }
}

/// The lengths of a text that is so many times as long as an author may write.
fn lengths(times: u32) -> PolicyLengthConfig {
    let times_usize = usize::try_from(times).unwrap_or(usize::MAX);
    let columns = NonZeroU32::new(MAX_COLUMNS.saturating_mul(times));
    let bytes = NonZeroUsize::new(MAX_SOURCE_BYTES.saturating_mul(times_usize));
    let lines = NonZeroUsize::new(MAX_LINES);
    PolicyLengthConfig {
        max_col: columns.expect("the limit is not zero"),
        max_file_bytes: bytes.expect("the limit is not zero"),
        max_lines: lines.expect("the limit is not zero"),
    }
}

/// A package as Rego names it below `data`, whatever its names are made of.
fn path_of(package: &[String]) -> String {
    let (first, rest) = package.split_first().map_or(("", &[][..]), |(one, rest)| (one, rest));
    let quoted = |name: &String| format!("[{}]", serde_json::Value::from(name.as_str()));
    std::iter::once(first.to_owned()).chain(rest.iter().map(quoted)).collect()
}

/// An error of the interpreter at its place in the policy.
fn fault(text: &str, file: &str, charged: &Charged) -> Fault {
    let (message, place) = told(text, charged);
    let hint = if message.contains("expecting") || message.contains("expected") {
        Some("see the Rego v1 grammar; rules need `if`, sets need `contains`".to_owned())
    } else {
        None
    };
    let mut fault = Fault::new(file, message);
    fault.hint = hint;
    match place {
        Some((line, column)) => fault.at(line, Some(column)),
        None => fault,
    }
}

/// Takes message and place out of the interpreter's drawing: `--> file:line:column`, the line, a
/// caret and `error: message`. Where a built-in of ours failed inside, the first place and the last
/// message are the true ones.
fn told(text: &str, charged: &Charged) -> (String, Option<(u32, u32)>) {
    let place = text.split_once("--> ").and_then(|(_, rest)| {
        let mut parts = rest.lines().next()?.rsplitn(3, ':');
        let column = parts.next()?.trim().parse().ok()?;
        let line = parts.next()?.parse().ok()?;
        Some((line, charged.column(line, column)))
    });
    let message = text.rsplit_once("error: ").map_or(text, |(_, message)| message);
    // What follows is a drawing of the text as it is evaluated.
    let message = message.trim().lines().next().unwrap_or_default();
    (message.trim_end_matches('.').to_owned(), place)
}

/// Parameters as the document that policies read.
pub(crate) fn params(canonical: &str) -> Value {
    Value::from_json_str(canonical).expect("parameters were written as JSON by ourselves")
}

/// The same input with another GPU model under evaluation; all else is shared.
pub(crate) fn with_gpu_model(input: &Value, kind: &str, model: &Id) -> Value {
    let mut input = input.clone();
    let workload = input.as_object_mut().ok().and_then(|o| o.get_mut(&Value::from(kind)));
    if let Some(workload) = workload.and_then(|workload| workload.as_object_mut().ok()) {
        workload.insert(Value::from("gpu_model"), Value::from(model.as_str()));
    }
    input
}

#[cfg(test)]
mod tests;
