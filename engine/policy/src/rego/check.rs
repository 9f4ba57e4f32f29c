//! What a policy's text must keep to, checked when it is loaded: what it calls, what it reads,
//! which rules it has.

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{Expr, Import, Literal, Module, Query, Rule, RuleBody, RuleHead, Span};

use super::builtins;
use crate::document::nearest;
use crate::error::Fault;
use crate::input::Input;

/// Rules that are sets of entries.
pub(super) const SETS: [&str; 4] = ["claims", "deny", "obligations", "warn"];
/// Says whether the policy has an opinion.
pub(super) const APPLICABLE: &str = "applicable";
/// Says whom the request may displace.
pub(super) const PREEMPTION: &str = "preemption";

/// Which of the contract's rules a policy has.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    pub(super) sets: Vec<&'static str>,
    pub(super) preemption: bool,
    pub(super) applicable: bool,
}

/// Checks a parsed policy.
pub(super) fn check(module: &Module, file: &str) -> Result<Declared, Fault> {
    let mut reader = Reader::default();
    for import in &module.imports {
        check_import(import, file)?;
    }
    for rule in &module.policy {
        reader.rule(rule);
    }
    let functions: BTreeSet<String> =
        module.policy.iter().filter_map(|rule| function_name(rule)).collect();
    let package = path(&module.package.refr).unwrap_or_default();
    for (name, span, arguments) in &reader.calls {
        let own = name.strip_prefix("data.").and_then(|name| name.strip_prefix(package.as_str()));
        let own = own.and_then(|name| name.strip_prefix('.')).unwrap_or(name);
        if !functions.contains(own) {
            check_call(name, *arguments, &functions).map_err(|fault| fault.place(file, span))?;
        }
    }
    let schema = Input::json_schema().to_value();
    for (path, span) in &reader.reads {
        check_read(path, &schema).map_err(|fault| fault.place(file, span))?;
    }
    declared(module, file)
}

/// A fault without its place.
struct Wrong {
    message: String,
    hint: String,
}

impl Wrong {
    fn place(self, file: &str, span: &Span) -> Fault {
        Fault::new(file, self.message).at(span.line, Some(span.col)).hint(self.hint)
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
    Err(Wrong { message, hint: hint.into() }.place(file, &import.span))
}

fn check_call(name: &str, given: usize, functions: &BTreeSet<String>) -> Result<(), Wrong> {
    if let Some((_, hint)) = builtins::REFUSED.iter().find(|(refused, _)| *refused == name) {
        let message = format!("built-in `{name}` is not allowed");
        return Err(Wrong { message, hint: (*hint).into() });
    }
    match builtins::arguments(name) {
        Some(Some(count)) if usize::from(count) != given => {
            let message = format!("built-in `{name}` takes {count} arguments, {given} are given");
            Err(Wrong { message, hint: "assign its result with `:=`".into() })
        }
        Some(_) => Ok(()),
        None => {
            let known = builtins::names().chain(functions.iter().map(String::as_str));
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "define it in the policy, or use another".into(),
            };
            Err(Wrong { message: format!("function `{name}` does not exist"), hint })
        }
    }
}

/// A field that the input cannot have would be undefined for ever, and a rule that reads it would
/// never hold.
fn check_read(path: &[Option<String>], schema: &serde_json::Value) -> Result<(), Wrong> {
    let mut node = Some(schema);
    let mut walked = "input".to_owned();
    for segment in path {
        let Some(here) = node.and_then(|node| follow(node, schema)) else { return Ok(()) };
        let fields = here.get("properties").and_then(serde_json::Value::as_object);
        match (segment, fields) {
            (Some(name), Some(fields)) => {
                let Some(next) = fields.get(name) else {
                    let message = format!("`{walked}` has no field `{name}`");
                    let hint = match nearest(name, fields.keys().map(String::as_str)) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "see the input's schema for its fields".into(),
                    };
                    return Err(Wrong { message, hint });
                };
                walked = format!("{walked}.{name}");
                node = Some(next);
            }
            (None, Some(_)) => return Ok(()),
            (_, None) => {
                walked.push_str("[_]");
                node = here.get("items");
            }
        }
    }
    Ok(())
}

/// The schema itself, where another is referred to or one is optional.
fn follow<'a>(
    node: &'a serde_json::Value,
    root: &'a serde_json::Value,
) -> Option<&'a serde_json::Value> {
    if let Some(reference) = node.get("$ref").and_then(serde_json::Value::as_str) {
        return root.pointer(reference.strip_prefix('#')?);
    }
    let options = node.get("anyOf").and_then(serde_json::Value::as_array);
    match options.and_then(|options| options.iter().find(|option| option.get("$ref").is_some())) {
        Some(option) => follow(option, root),
        None => Some(node),
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
                        return Err(Wrong { message, hint }.place(file, span));
                    }
                    if !declared.sets.contains(&set) {
                        declared.sets.push(set);
                    }
                } else if name == PREEMPTION {
                    declared.preemption = true;
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
                Some(set) if SETS.contains(&set) => {
                    let message = format!("`{set}` has a default");
                    let hint = "a set without entries is empty: remove the default";
                    return Err(Wrong { message, hint: hint.into() }.place(file, span));
                }
                Some(_) | None => {}
            },
        }
    }
    if let (Some(span), false) = (says_true, default) {
        let message = format!("`{APPLICABLE}` is undefined where its condition does not hold");
        let hint = "add `default applicable := false`";
        return Err(Wrong { message, hint: hint.into() }.place(file, span));
    }
    if declared.sets.is_empty() && !declared.preemption {
        let hint = "a policy has at least one of deny, warn, obligations, claims, preemption";
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

fn function_name(rule: &Rule) -> Option<String> {
    match rule {
        Rule::Spec { head: RuleHead::Func { refr, .. }, .. } => path(refr),
        Rule::Default { refr, args, .. } if !args.is_empty() => path(refr),
        Rule::Spec { .. } | Rule::Default { .. } => None,
    }
}

/// A reference made of names only.
pub(super) fn names(expr: &Expr) -> Option<Vec<String>> {
    let (root, segments) = chain(expr)?;
    std::iter::once(Some(root)).chain(segments).collect()
}

/// The same, joined by dots.
fn path(expr: &Expr) -> Option<String> {
    names(expr).map(|names| names.join("."))
}

fn root(expr: &Expr) -> Option<String> {
    chain(expr).map(|(root, _)| root)
}

/// A reference: the variable that it begins with, and its segments, where they are known.
fn chain(expr: &Expr) -> Option<(String, Vec<Option<String>>)> {
    let mut segments = Vec::new();
    let mut here = expr;
    loop {
        if let Expr::RefDot { refr, field, .. } = here {
            segments.push(Some(field.0.text().to_owned()));
            here = refr;
        } else if let Expr::RefBrack { refr, index, .. } = here {
            let name = if let Expr::String { value: Value::String(name), .. } = index.as_ref() {
                Some(name.to_string())
            } else {
                None
            };
            segments.push(name);
            here = refr;
        } else if let Expr::Var { span, .. } = here {
            segments.reverse();
            return Some((span.text().to_owned(), segments));
        } else {
            return None;
        }
    }
}

/// Collects what a policy calls, and what it reads of the input.
#[derive(Default)]
struct Reader {
    calls: Vec<(String, Span, usize)>,
    reads: Vec<(Vec<Option<String>>, Span)>,
}

impl Reader {
    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        self.expr(refr);
                        self.exprs(assign.iter().map(|assign| assign.value.as_ref()));
                    }
                    RuleHead::Set { refr, key, .. } => {
                        self.expr(refr);
                        self.exprs(key.iter().map(AsRef::as_ref));
                    }
                    RuleHead::Func { args, assign, .. } => {
                        self.exprs(args.iter().map(AsRef::as_ref));
                        self.exprs(assign.iter().map(|assign| assign.value.as_ref()));
                    }
                }
                for body in bodies {
                    self.exprs(body.assign.iter().map(|assign| assign.value.as_ref()));
                    self.query(&body.query);
                }
            }
            Rule::Default { args, value, .. } => {
                self.exprs(args.iter().map(AsRef::as_ref));
                self.expr(value);
            }
        }
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    self.exprs(key.iter().map(AsRef::as_ref));
                    self.exprs([value.as_ref(), collection.as_ref()]);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { domain, query, .. } => {
                    self.expr(domain);
                    self.query(query);
                }
            }
            for modifier in &statement.with_mods {
                self.exprs([modifier.refr.as_ref(), modifier.r#as.as_ref()]);
            }
        }
    }

    fn exprs<'a>(&mut self, exprs: impl IntoIterator<Item = &'a Expr>) {
        for expr in exprs {
            self.expr(expr);
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }
            | Expr::Var { .. } => {}
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                self.exprs(items.iter().map(AsRef::as_ref));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.exprs([key.as_ref(), value.as_ref()]);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expr(term);
                self.query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.exprs([key.as_ref(), value.as_ref()]);
                self.query(query);
            }
            Expr::Call { span, fcn, params, .. } => {
                let name = path(fcn).unwrap_or_else(|| span.text().to_owned());
                self.calls.push((name, span.clone(), params.len()));
                self.exprs(params.iter().map(AsRef::as_ref));
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::RefDot { span, .. } | Expr::RefBrack { span, .. } => self.reference(expr, span),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => self.exprs([lhs.as_ref(), rhs.as_ref()]),
            Expr::Membership { key, value, collection, .. } => {
                self.exprs(key.iter().map(AsRef::as_ref));
                self.exprs([value.as_ref(), collection.as_ref()]);
            }
        }
    }

    fn reference(&mut self, expr: &Expr, span: &Span) {
        match chain(expr) {
            Some((root, segments)) if root == "input" => self.reads.push((segments, span.clone())),
            Some(_) | None => {}
        }
        let mut here = expr;
        loop {
            if let Expr::RefDot { refr, .. } = here {
                here = refr;
            } else if let Expr::RefBrack { refr, index, .. } = here {
                self.expr(index);
                here = refr;
            } else {
                return self.expr(here);
            }
        }
    }
}
