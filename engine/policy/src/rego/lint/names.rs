//! Names that hide others, that nothing needs, or that lead nowhere.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Import, Literal, LiteralStmt, Rule, RuleHead, Span};

use super::super::builtins;
use super::super::check::refs;
use super::super::check::scope::Scope;
use super::super::check::walk::{self, Visit};
use super::Finding;
use super::context::{Context, Seen, own_parts};

pub(super) fn find(context: &Context<'_, '_>, text: &str, found: &mut Vec<Finding>) {
    unused_imports(context, text, found);
    unreached(context, found);
    shadowed(context, found);
}

/// The name that an import gives.
fn alias(import: &Import) -> Option<String> {
    let path = refs::names(&import.refr)?;
    if matches!(path.first().map(String::as_str), Some("rego" | "future")) {
        return None;
    }
    import.r#as.as_ref().map(|name| name.text().to_owned()).or_else(|| path.last().cloned())
}

fn unused_imports(context: &Context<'_, '_>, text: &str, found: &mut Vec<Finding>) {
    #[derive(Default)]
    struct Used(BTreeSet<String>);
    impl<'m> Visit<'m> for Used {
        fn expr(&mut self, expr: &'m Expr) {
            match expr {
                Expr::Var { span, .. } => {
                    self.0.insert(span.text().to_owned());
                }
                Expr::Call { fcn, .. } => self.0.extend(refs::root(fcn)),
                _ => {}
            }
        }
    }
    let mut used = Used::default();
    walk::module(context.module, &mut used);
    for import in &context.module.imports {
        let Some(name) = alias(import).filter(|name| !used.0.contains(name)) else { continue };
        let bytes = (import.span.start, import.span.end);
        let message = format!("nothing reads the import `{name}`");
        let mut finding = Finding::new("unused-import", bytes, message, "remove it");
        finding.change = whole_line(text, bytes).map(|bytes| (bytes, String::new()));
        found.push(finding);
    }
}

/// The line on which something stands alone, its line break included.
fn whole_line(text: &str, (start, end): (u32, u32)) -> Option<(u32, u32)> {
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
    let before = text.get(..start)?;
    let after = text.get(end..)?;
    let first = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
    let rest = after.find('\n').map_or(after.len(), |at| at.saturating_add(1));
    let alone = text.get(first..start)?.trim().is_empty() && after.get(..rest)?.trim().is_empty();
    let last = end.saturating_add(rest);
    alone.then_some((u32::try_from(first).ok()?, u32::try_from(last).ok()?))
}

/// Rules and functions that nothing of the contract leads to.
fn unreached(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    let reached = context.reached();
    // Without any rule of the contract nothing is led to, which is an error of its own.
    if !reached.iter().any(|name| context.rules.contains_key(name)) {
        return;
    }
    for (name, rules) in &context.rules {
        let Some(rule) = rules.first().filter(|_| !reached.contains(name)) else { continue };
        let span = refs::defined(rule).span();
        let message = format!("nothing that is evaluated leads to `{name}`");
        let hint = "remove it, or read it from a rule of the contract";
        let bytes = (span.start, span.end);
        found.push(Finding::new("unreachable-rule", bytes, message, hint));
    }
}

/// Variables that are named as something else that is read by its name.
fn shadowed(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    for rule in &context.module.policy {
        let mut spans: Vec<&Span> = Vec::new();
        let mut called = BTreeSet::new();
        if let Rule::Spec { head: RuleHead::Func { args, .. }, .. } = rule.as_ref() {
            args.iter().for_each(|argument| bound(argument, &mut spans));
        }
        context.each(rule, &mut |seen, _: &Scope<'_, '_>| match seen {
            Seen::Statement(statement) => binds(statement, &mut spans),
            Seen::Expr(Expr::Call { fcn, .. }) => called.extend(refs::path(fcn)),
            Seen::Expr(_) => {}
        });
        for span in spans {
            let name = span.text();
            let Some(what) = hidden(context, name, &called) else { continue };
            let bytes = (span.start, span.end);
            let message = format!("the variable `{name}` hides {what}");
            found.push(Finding::new("shadowed-name", bytes, message, "give it another name"));
        }
    }
}

/// What a variable of that name hides. A function is only ever called, and so is never read for the
/// variable: it counts only where both are used.
fn hidden(
    context: &Context<'_, '_>,
    name: &str,
    called: &BTreeSet<String>,
) -> Option<&'static str> {
    let is_function = |rule: &Rule| matches!(rule, Rule::Spec { head: RuleHead::Func { .. }, .. });
    if name == "input" || name == "data" {
        return Some("the document of that name");
    }
    if context.rules_of(name).any(|rule| !is_function(rule)) {
        return Some("the rule of that name");
    }
    if context.module.imports.iter().filter_map(alias).any(|alias| alias == name) {
        return Some("the import of that name");
    }
    match context.rules.contains_key(name) {
        _ if !called.contains(name) => None,
        true => Some("the function of that name"),
        false => builtins::arguments(name).map(|_| "the built-in of that name"),
    }
}

fn binds<'m>(statement: &'m LiteralStmt, spans: &mut Vec<&'m Span>) {
    match &statement.literal {
        Literal::SomeVars { vars, .. } => spans.extend(vars),
        Literal::SomeIn { key, value, .. } => {
            key.iter().chain([value]).for_each(|it| bound(it, spans));
        }
        Literal::Every { key, value, .. } => spans.extend(key.iter().chain([value])),
        Literal::Expr { expr, .. } => {
            if let Expr::AssignExpr { op: regorus::unstable::AssignOp::ColEq, lhs, .. } =
                expr.as_ref()
            {
                bound(lhs, spans);
            }
        }
        Literal::NotExpr { .. } => {}
    }
}

fn bound<'m>(pattern: &'m Expr, spans: &mut Vec<&'m Span>) {
    match pattern {
        Expr::Var { span, .. } => spans.push(span),
        Expr::Array { .. } => own_parts(pattern).for_each(|part| bound(part, spans)),
        _ => {}
    }
}
