//! What a policy's text must keep to, checked when it is loaded: what it calls, what it reads,
//! which rules it has.

mod compare;
pub(super) mod deviations;
pub(super) mod refs;
pub(super) mod schema;
pub(super) mod scope;
pub(super) mod types;
mod variables;
pub(super) mod walk;

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{Expr, Import, Module, Rule, RuleBody, RuleHead, Span};
use serde_json::Value as Json;

use super::builtins;
use crate::document::{certain, nearest};
use crate::error::Fault;
use crate::input::Input;
use refs::{function_name, path, root};
use types::Types;
use walk::Visit;

/// Rules that are sets of entries.
pub(super) const SETS: [&str; 4] = ["claims", "deny", "obligations", "warn"];
/// Says whether the policy has an opinion.
pub(super) const APPLICABLE: &str = "applicable";
/// Says whom the request may displace.
pub(super) const PREEMPTION: &str = "preemption";
/// Says what the request is promised should it be displaced.
pub(super) const TERMS: &str = "terms";

/// Which of the contract's rules a policy has.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    pub(super) sets: Vec<&'static str>,
    pub(super) preemption: bool,
    pub(super) terms: bool,
    pub(super) applicable: bool,
}

impl Declared {
    /// The names of all of them: what an evaluation asks for.
    pub(super) fn rules(&self) -> impl Iterator<Item = &'static str> {
        let single =
            [(self.applicable, APPLICABLE), (self.preemption, PREEMPTION), (self.terms, TERMS)];
        let single = single.into_iter().filter_map(|(is_there, rule)| is_there.then_some(rule));
        self.sets.iter().copied().chain(single)
    }
}

/// What a policy may read below `data.params`.
#[derive(Debug)]
pub(super) struct Params {
    schema: Json,
    /// Whether the schema is the author's, and not worked out from the params that are set.
    exact: bool,
}

impl Params {
    /// By the params' schema, else by their names: their values may be anything.
    pub(super) fn new(params: &Value, schema: Option<&Json>) -> Self {
        if let Some(schema) = schema {
            return Self { schema: schema.clone(), exact: true };
        }
        let mut names = serde_json::Map::new();
        if let Value::Object(params) = params {
            let texts = params.iter_sorted().filter_map(|(name, _)| name.as_string().ok());
            names.extend(texts.map(|name| (name.to_string(), Json::Bool(true))));
        }
        let schema = serde_json::json!({
            "type": "object",
            "required": names.keys().collect::<Vec<_>>(),
            "properties": names,
            "additionalProperties": false,
        });
        Self { schema, exact: false }
    }

    /// By nothing: what the params are is not known.
    pub(super) fn unknown() -> Self {
        Self { schema: Json::Bool(true), exact: false }
    }
}

/// Checks a parsed policy.
pub(super) fn check(module: &Module, file: &str, params: &Params) -> Result<Declared, Fault> {
    for import in &module.imports {
        check_import(import, file)?;
    }
    check_calls(module, file, &functions(module))?;
    deviations::check(module, file)?;
    let schema = Input::json_schema().to_value();
    Types::new(module, file, &schema, params).check()?;
    declared(module, file)
}

/// All faults of a parsed policy, the first one of [`check`] among them, and the rules that they
/// break.
pub(super) fn survey<'m, 'a: 'm>(
    module: &'m Module,
    file: &str,
    types: &mut Types<'m, 'a>,
) -> Vec<Fault> {
    let of = |rule| move |fault: Fault| fault.of_rule(rule);
    let imports = module.imports.iter().filter_map(|import| check_import(import, file).err());
    let mut faults: Vec<_> = imports.map(of("import")).collect();
    faults.extend(wrong_calls(module, file, &functions(module)).map(of("call")));
    faults.extend(deviations::check(module, file).err().map(of("deviation")));
    faults.extend(types.all().into_iter().map(of("unknown-path")));
    faults.extend(declared(module, file).err().map(of("contract")));
    faults
}

/// Paths of a module's functions: by their own names, and from `data` on.
pub(super) fn functions(module: &Module) -> BTreeSet<String> {
    let package = path(&module.package.refr).unwrap_or_default();
    let names = module.policy.iter().filter_map(|rule| function_name(rule));
    names.flat_map(|name| [format!("data.{package}.{name}"), name]).collect()
}

/// Checks that each function that is called is there and may be called.
pub(super) fn check_calls(
    module: &Module,
    file: &str,
    functions: &BTreeSet<String>,
) -> Result<(), Fault> {
    wrong_calls(module, file, functions).next().map_or(Ok(()), Err)
}

/// Every call of what is not there or may not be called.
fn wrong_calls(
    module: &Module,
    file: &str,
    functions: &BTreeSet<String>,
) -> impl Iterator<Item = Fault> {
    let mut calls = Calls::default();
    walk::module(module, &mut calls);
    let aliases = aliases(module);
    calls.calls.into_iter().filter_map(move |(name, span, arguments)| {
        let (first, rest) = name.split_once('.').unwrap_or((&name, ""));
        let full = aliases
            .iter()
            .find(|(alias, _)| alias == first)
            .map(|(_, path)| if rest.is_empty() { path.clone() } else { format!("{path}.{rest}") });
        if functions.contains(full.as_ref().unwrap_or(&name)) {
            return None;
        }
        let wrong = check_call(&name, arguments, functions).err()?;
        let Wrong { ref meant, .. } = wrong;
        let (meant, length) = (meant.clone(), u32::try_from(name.len()).unwrap_or(u32::MAX));
        let end = span.start.saturating_add(length);
        Some(wrong.place(file, &span).bytes(span.start, end, meant))
    })
}

/// Names under which imports are known, with what they stand for.
fn aliases(module: &Module) -> Vec<(String, String)> {
    let alias = |import: &Import| {
        let full = path(&import.refr)?;
        let last = full.rsplit('.').next().map(str::to_owned);
        let name = import.r#as.as_ref().map(|name| name.text().to_owned()).or(last)?;
        Some((name, full))
    };
    module.imports.iter().filter_map(alias).collect()
}

/// A fault without its place.
#[derive(Debug)]
struct Wrong {
    message: String,
    hint: String,
    /// What was meant, where only one known name is near.
    meant: Option<String>,
}

impl Wrong {
    fn new(message: String, hint: impl Into<String>) -> Self {
        Self { message, hint: hint.into(), meant: None }
    }

    /// The same, which could be mended by a known name in the place of a wrong one.
    fn meant<'n>(mut self, wrong: &str, known: impl IntoIterator<Item = &'n str>) -> Self {
        self.meant = certain(wrong, known).map(str::to_owned);
        self
    }

    fn place(self, file: &str, span: &Span) -> Fault {
        let fault = Fault::new(file, self.message).at(span.line, Some(span.col)).hint(self.hint);
        fault.bytes(span.start, span.end, self.meant)
    }
}

fn check_import(import: &Import, file: &str) -> Result<(), Fault> {
    let path = path(&import.refr).unwrap_or_default();
    let inside = |root: &str| {
        path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if ["rego.v1", "future.keywords", "input", "data.params"].into_iter().any(inside) {
        return Ok(());
    }
    let message = format!("import of `{path}`, which no policy has");
    let hint = "a policy is one file, and sees `input` and `data.params`";
    Err(Wrong::new(message, hint).place(file, &import.span))
}

fn check_call(name: &str, given: usize, functions: &BTreeSet<String>) -> Result<(), Wrong> {
    if let Some((_, hint)) = builtins::REFUSED.iter().find(|(refused, _)| *refused == name) {
        let message = format!("built-in `{name}` is not allowed");
        return Err(Wrong::new(message, *hint));
    }
    match builtins::arguments(name) {
        Some(Some(count)) if usize::from(count) != given => {
            let message = format!("built-in `{name}` takes {count} arguments, {given} are given");
            Err(Wrong::new(message, "assign its result with `:=`"))
        }
        Some(_) => Ok(()),
        None => {
            let known = || builtins::names().chain(functions.iter().map(String::as_str));
            let hint = match nearest(name, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "define it in the policy, or use another".into(),
            };
            let wrong = Wrong::new(format!("function `{name}` does not exist"), hint);
            Err(wrong.meant(name, known()))
        }
    }
}

fn declared(module: &Module, file: &str) -> Result<Declared, Fault> {
    let mut declared = Declared::default();
    let (mut says_true, mut default) = (None, false);
    for rule in &module.policy {
        match rule.as_ref() {
            Rule::Spec { span, head, bodies } => {
                let Some((name, is_set)) = head_name(head) else { continue };
                let root = name.split('.').next().unwrap_or_default();
                if let Some(set) = SETS.into_iter().find(|set| *set == root) {
                    if !is_set || root != name {
                        let message = format!("`{set}` is not a set of entries");
                        let hint = format!("write `{set} contains {{...}} if {{...}}`");
                        return Err(Wrong::new(message, hint).place(file, span));
                    }
                    if !declared.sets.contains(&set) {
                        declared.sets.push(set);
                    }
                } else if name == PREEMPTION {
                    declared.preemption = true;
                } else if name == TERMS {
                    declared.terms = true;
                } else if name == APPLICABLE {
                    declared.applicable = true;
                    if !always_false(head, bodies) {
                        says_true = Some(span);
                    }
                }
            }
            Rule::Default { refr, span, .. } => match path(refr).as_deref() {
                Some(APPLICABLE) => (default, declared.applicable) = (true, true),
                Some(PREEMPTION) => declared.preemption = true,
                Some(TERMS) => declared.terms = true,
                Some(set) if SETS.contains(&set) => {
                    let message = format!("`{set}` has a default");
                    let hint = "a set without entries is empty: remove the default";
                    return Err(Wrong::new(message, hint).place(file, span));
                }
                Some(_) | None => {}
            },
        }
    }
    if let (Some(span), false) = (says_true, default) {
        let message = format!("`{APPLICABLE}` is undefined where its condition does not hold");
        let hint = "add `default applicable := false`";
        return Err(Wrong::new(message, hint).place(file, span));
    }
    if declared.sets.is_empty() && !declared.preemption && !declared.terms {
        let hint =
            "a policy has at least one of deny, warn, obligations, claims, preemption, terms";
        return Err(Fault::new(file, "no rule of the contract is defined").hint(hint));
    }
    Ok(declared)
}

fn head_name(head: &RuleHead) -> Option<(String, bool)> {
    match head {
        RuleHead::Compr { refr, .. } => {
            // `deny[x]` and `deny.x` define an object; its name is its root.
            let name = path(refr).or_else(|| root(refr))?;
            Some((name, false))
        }
        RuleHead::Set { refr, .. } => Some((path(refr).or_else(|| root(refr))?, true)),
        RuleHead::Func { refr, .. } => Some((path(refr)?, false)),
    }
}

/// Whether a rule can give nothing but `false`.
fn always_false(head: &RuleHead, bodies: &[RuleBody]) -> bool {
    let is_false = |expr: &Expr| matches!(expr, Expr::Bool { value: Value::Bool(false), .. });
    let head = match head {
        RuleHead::Compr { assign, .. } => assign.as_ref().is_some_and(|a| is_false(&a.value)),
        RuleHead::Set { .. } | RuleHead::Func { .. } => false,
    };
    head && bodies.iter().all(|body| body.assign.as_ref().is_none_or(|a| is_false(&a.value)))
}

/// Collects what a policy calls.
#[derive(Default)]
struct Calls {
    calls: Vec<(String, Span, usize)>,
}

impl<'m> Visit<'m> for Calls {
    fn expr(&mut self, expr: &'m Expr) {
        if let Expr::Call { span, fcn, params, .. } = expr {
            let name = path(fcn).unwrap_or_else(|| span.text().to_owned());
            self.calls.push((name, span.clone(), params.len()));
        }
    }
}

#[cfg(test)]
mod tests;
