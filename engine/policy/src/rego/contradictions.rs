//! What a policy says of its own params, before it is asked about any request.
//!
//! A schema tells of each param what it may be; of params that contradict each other only the
//! policy can. Its function `params_wrong` is called once when the bundle is loaded, with the
//! params alone: it may not read the request, and costs nothing when requests are decided.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{Expr, Module, Rule, RuleHead, Span};
use regorus::{Engine, Value};

use super::check::refs;
use super::check::walk::{self, Visit};
use super::{builtins, path_of, ticks, told};
use crate::answer::{MAX_NAME_BYTES, MAX_TEXT_BYTES, MAX_WRONG_PARAMS, WrongParam};
use crate::error::Fault;

/// The function.
pub(super) const PARAMS_WRONG: &str = "params_wrong";
/// The rule by which it is called; no policy can have one of that name and be read by it.
const CALL: &str = "__params_wrong";

/// Checks the function, and tells whether there is one.
///
/// # Errors
/// [`Fault`] with the place: it is no function of one argument, or what it says could depend on the
/// request.
pub(super) fn declared(module: &Module, file: &str) -> Result<bool, Fault> {
    let mut any = false;
    for rule in &module.policy {
        if refs::root(refs::defined(rule)).as_deref() != Some(PARAMS_WRONG) {
            continue;
        }
        let arguments = match rule.as_ref() {
            Rule::Spec { head: RuleHead::Func { args, .. }, .. } => args.len(),
            Rule::Default { args, .. } => args.len(),
            Rule::Spec { .. } => 0,
        };
        if arguments != 1 || refs::path(refs::defined(rule)).as_deref() != Some(PARAMS_WRONG) {
            let message = format!("`{PARAMS_WRONG}` is not a function of the params");
            let hint = format!("write `{PARAMS_WRONG}(params) := {{wrong | ...}}`");
            return Err(at(rule.span(), file, message).hint(hint));
        }
        any = true;
    }
    if any {
        reads_no_request(module, file)?;
    }
    Ok(any)
}

fn at(span: &Span, file: &str, message: String) -> Fault {
    Fault::new(file, message).at(span.line, Some(span.col))
}

/// Follows what the function calls and reads within the policy.
fn reads_no_request(module: &Module, file: &str) -> Result<(), Fault> {
    let mut by_name: BTreeMap<String, Vec<&Rule>> = BTreeMap::new();
    for rule in &module.policy {
        let name = refs::root(refs::defined(rule)).unwrap_or_default();
        by_name.entry(name).or_default().push(rule);
    }
    let mut request: BTreeSet<String> = BTreeSet::from(["input".to_owned()]);
    for import in &module.imports {
        let path = refs::names(&import.refr).unwrap_or_default();
        if path.first().is_some_and(|root| root == "input") {
            let name = import.r#as.as_ref().map(|name| name.text().to_owned());
            request.extend(name.or_else(|| path.last().cloned()));
        }
    }
    let package = refs::names(&module.package.refr).unwrap_or_default();
    let (mut done, mut next) = (BTreeSet::new(), vec![PARAMS_WRONG.to_owned()]);
    while let Some(name) = next.pop() {
        let Some(rules) = by_name.get(&name) else { continue };
        if !done.insert(name.clone()) {
            continue;
        }
        for rule in rules {
            let mut reads = Reads { package: &package, names: Vec::new() };
            walk::rule(rule, &mut reads);
            for (read, span) in reads.names {
                if request.contains(&read) || read == "time.now_ns" {
                    let via =
                        if name == PARAMS_WRONG { String::new() } else { format!(", by `{name}`") };
                    let message = format!("`{PARAMS_WRONG}` reads `{read}`{via}");
                    let hint = "params are looked at when the bundle is loaded, without a request: \
                                what depends on one belongs into `deny`; a variable with the name \
                                of a rule counts as that rule";
                    return Err(at(span, file, message).hint(hint));
                }
                next.push(read);
            }
        }
    }
    Ok(())
}

/// Names that a rule reads: variables and functions, and of the package's own document what comes
/// next. A variable of the rule that has the name of a rule counts as that rule.
struct Reads<'m> {
    package: &'m [String],
    names: Vec<(String, &'m Span)>,
}

impl<'m> Visit<'m> for Reads<'m> {
    fn expr(&mut self, expr: &'m Expr) {
        let read = if let Expr::Call { fcn, .. } = expr { fcn } else { expr };
        let Some((root, segments)) = refs::chain(read) else { return };
        let own = segments.get(..self.package.len());
        let own = own.is_some_and(|own| own.iter().flatten().eq(self.package));
        let name = match (root.as_str(), segments.get(self.package.len())) {
            ("data", Some(Some(name))) if own => name.clone(),
            ("time", _) => refs::path(read).unwrap_or(root),
            _ => root,
        };
        self.names.push((name, expr.span()));
    }
}

/// Calls the function of a policy that has one. `engine` has the policy and its params, and nothing
/// evaluated yet; it is of no further use.
///
/// # Errors
/// Why it gives no answer: an error, the budget of an evaluation, or an answer that cannot be read.
pub(super) fn wrong(
    mut engine: Engine,
    package: &[String],
    budget: u64,
) -> Result<Vec<WrongParam>, String> {
    let path = path_of(package);
    let text = format!("package {path}\n\n{CALL} := {PARAMS_WRONG}(data.params)\n");
    let failed = |error: &dyn std::fmt::Display| told(&error.to_string(), &Default::default()).0;
    engine.add_policy(CALL.to_owned(), text).map_err(|error| failed(&error))?;
    builtins::set_time(0);
    engine.set_execution_timer_config(ticks::limit(budget));
    ticks::start(budget);
    let result = engine.eval_rule(format!("data.{path}.{CALL}"));
    if ticks::spent() > budget {
        return Err(format!("spent its budget of {budget} ticks"));
    }
    let value = result.map_err(|error| failed(&error))?;
    if value == Value::Undefined {
        return Err("is undefined for these params".to_owned());
    }
    let entries = value.as_set().map_err(|_error| "does not give a set")?;
    if entries.len() > MAX_WRONG_PARAMS {
        return Err(format!("gives more than {MAX_WRONG_PARAMS} entries"));
    }
    entries.iter().map(read).collect()
}

fn read(entry: &Value) -> Result<WrongParam, String> {
    let fields = entry.as_object().map_err(|_error| "gives an entry that is no object")?;
    let text = |name: &str, max: usize| match fields.get(&Value::from(name)) {
        Some(Value::String(text))
            if (1..=max).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(text.to_string())
        }
        _ => Err(format!("gives an entry whose `{name}` is no line of 1 to {max} bytes")),
    };
    if fields.len() > 2 {
        return Err("gives an entry with more than `path` and `message`".to_owned());
    }
    Ok(WrongParam {
        path: text("path", MAX_NAME_BYTES)?,
        message: text("message", MAX_TEXT_BYTES)?,
    })
}
