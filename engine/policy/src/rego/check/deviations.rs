//! Constructs that the interpreter answers otherwise than OPA does. They are refused when a module
//! is loaded, so that nobody gets a wrong answer and does not know.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    AssignOp, BoolOp, Expr, Literal, LiteralStmt, Module, Rule, RuleHead, Span,
};

use super::super::exact;
use super::Wrong;
use super::refs::{self, text};
use super::variables;
use super::walk::{self, Part, Visit, parts};
use crate::error::Fault;

/// Refuses the first such construct of a module.
pub(in crate::rego) fn check(module: &Module, file: &str) -> Result<(), Fault> {
    let mut search = Search { file, found: None };
    walk::module(module, &mut search);
    match search.found {
        Some(fault) => Err(fault),
        None => {
            variables::check(module, file)?;
            recursion(module, file)
        }
    }
}

struct Search<'m> {
    file: &'m str,
    found: Option<Fault>,
}

impl<'m> Search<'m> {
    fn found(&mut self, wrong: Option<Wrong>, span: &Span) {
        if let Some(wrong) = wrong.filter(|_| self.found.is_none()) {
            self.found = Some(wrong.place(self.file, span));
        }
    }
}

impl<'m> Visit<'m> for Search<'m> {
    fn rule(&mut self, rule: &'m Rule) {
        if let Rule::Spec { head: RuleHead::Func { args, .. }, .. } = rule {
            for argument in args {
                self.found(pattern(argument), argument.span());
            }
        }
    }

    fn statement(&mut self, statement: &'m LiteralStmt) {
        if let Literal::SomeIn { key, value, .. } = &statement.literal {
            for part in key.iter().chain([value]) {
                self.found(pattern(part), part.span());
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other kinds of expression say nothing here"
    )]
    fn expr(&mut self, expr: &'m Expr) {
        self.found(number(expr), expr.span());
        match expr {
            Expr::AssignExpr { op, lhs, rhs, .. } => {
                let plain = |side: &Expr| matches!(side, Expr::Var { .. });
                self.found(pattern(lhs).filter(|_| !plain(rhs)), lhs.span());
                if *op == AssignOp::Eq {
                    self.found(pattern(rhs).filter(|_| !plain(lhs)), rhs.span());
                }
            }
            Expr::Call { fcn, params, .. } => match refs::path(fcn).as_deref() {
                Some("walk") => {
                    if let Some(out) = params.get(1) {
                        self.found(pattern(out), out.span());
                    }
                }
                Some("sprintf") => {
                    let format = params.first();
                    let wrong = format.and_then(|format| text(format)).and_then(directive);
                    self.found(wrong, expr.span());
                }
                _ => {}
            },
            Expr::BoolExpr { op, lhs, rhs, .. } if !matches!(op, BoolOp::Eq | BoolOp::Ne) => {
                let is_set = |it: &Expr| matches!(it, Expr::Set { .. } | Expr::SetCompr { .. });
                let is_object =
                    |it: &Expr| matches!(it, Expr::Object { .. } | Expr::ObjectCompr { .. });
                if is_set(lhs) && is_object(rhs) || is_object(lhs) && is_set(rhs) {
                    let message = "sets and objects have another order in OPA".to_owned();
                    let wrong = Wrong::new(message, "compare what is in them");
                    self.found(Some(wrong), expr.span());
                }
            }
            Expr::Object { fields, .. } => {
                let mut keys = BTreeSet::new();
                let twice = fields.iter().filter_map(|(_, key, _)| text(key));
                if let Some(key) = twice.into_iter().find(|key| !keys.insert(*key)) {
                    let message = format!("the object has two fields `{key}`");
                    self.found(Some(Wrong::new(message, "remove one")), expr.span());
                }
            }
            _ => {}
        }
    }
}

/// OPA's object pattern fits an object with just these fields, the interpreter's also one with
/// more.
fn pattern(expr: &Expr) -> Option<Wrong> {
    if matches!(expr, Expr::Object { .. }) {
        return Some(Wrong::new(
            "an object as a pattern fits other objects here than in OPA".into(),
            "take its fields one by one, `x := it.field`, or compare with `==`",
        ));
    }
    if !matches!(expr, Expr::Array { .. } | Expr::Set { .. }) {
        return None;
    }
    let inner = parts(expr).into_iter().filter_map(|part| match part {
        Part::Expr(part) => pattern(part),
        Part::Query(_) => None,
    });
    inner.into_iter().next()
}

fn directive(format: &str) -> Option<Wrong> {
    let directive = exact::unknown_directive(format)?;
    let message = format!("`{directive}` is not written here as OPA writes it");
    Some(Wrong::new(message, "use %s, %d, %v, %x or %.2f; `%d` may have a width"))
}

/// What one rule refers to.
#[derive(Default)]
struct Uses {
    names: BTreeSet<String>,
}

impl<'m> Visit<'m> for Uses {
    fn expr(&mut self, expr: &'m Expr) {
        if let Expr::Call { fcn, .. } = expr {
            self.names.extend(refs::path(fcn));
        }
    }
}

/// OPA refuses functions that call themselves; the interpreter would exhaust its stack.
fn recursion(module: &Module, file: &str) -> Result<(), Fault> {
    let package = refs::path(&module.package.refr).unwrap_or_default();
    let prefix = format!("data.{package}.");
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in &module.policy {
        let Some(name) = refs::function_name(rule) else { continue };
        let mut uses = Uses::default();
        walk::rule(rule, &mut uses);
        let own = |name: &String| name.strip_prefix(&prefix).unwrap_or(name).to_owned();
        calls.entry(name).or_default().extend(uses.names.iter().map(own));
    }
    for rule in &module.policy {
        let Some(name) = refs::function_name(rule) else { continue };
        let (mut seen, mut left) = (BTreeSet::new(), vec![name.as_str()]);
        while let Some(here) = left.pop() {
            for next in calls.get(here).into_iter().flatten() {
                if *next == name {
                    let message = format!("function `{name}` calls itself");
                    let hint = "use a comprehension, `walk` or `graph.reachable`";
                    return Err(Wrong::new(message, hint).place(file, rule.span()));
                }
                if seen.insert(next.as_str()) {
                    left.push(next);
                }
            }
        }
    }
    Ok(())
}

/// Largest whole number that every reader of JSON keeps exact (RFC 8785 section 3.2.2.3).
const MAX_WHOLE: u64 = placet_core::MAX_AMOUNT;

/// OPA counts in decimals of any length, the interpreter in whole numbers and binary fractions.
fn number(expr: &Expr) -> Option<Wrong> {
    let Expr::Number { span, .. } = expr else { return None };
    let text = span.text().trim_start_matches('-');
    if let Ok(whole) = text.parse::<u64>() {
        let message = || format!("`{text}` is beyond 2^53 - 1");
        return (whole > MAX_WHOLE).then(|| Wrong::new(message(), "count in a larger unit"));
    }
    (!is_exact(text)).then(|| {
        let message = format!("`{text}` is no number that a binary fraction holds exactly");
        Wrong::new(
            message,
            "count in whole numbers of a smaller unit, such as percent or milli-GPU",
        )
    })
}

/// Whether a decimal is a whole number below 2^53 over a power of two: `0.5` is, `0.1` is not.
fn is_exact(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()),
        None => (text, Some(0)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let places = i32::try_from(fraction.len()).ok().zip(exponent);
    let Some(places) = places.and_then(|(places, exponent)| places.checked_sub(exponent)) else {
        return false;
    };
    let Some(mut digits) = digits.parse::<u64>().ok().filter(|digits| *digits <= MAX_WHOLE) else {
        return false;
    };
    if places <= 0 {
        // 2^53 has 16 digits.
        let factor = u32::try_from(-places).ok().filter(|power| *power <= 16);
        let value = factor.and_then(|power| 10_u64.checked_pow(power)?.checked_mul(digits));
        return digits == 0 || value.is_some_and(|value| value <= MAX_WHOLE);
    }
    // A tenth is a half of a fifth: each place must give up one factor of five.
    for _ in 0..places {
        if digits == 0 {
            return true;
        }
        if !digits.is_multiple_of(5) {
            return false;
        }
        digits /= 5;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_exact;

    #[test]
    fn exact_are_whole_numbers_over_powers_of_two() {
        for text in ["0.5", "1.25", "3.0", "1e3", "2.5e1", "125e-3", "0.0", "9007199254740991.0"] {
            assert!(is_exact(text), "{text}");
        }
        for text in ["0.1", "1.2", "1e16", "1e400", "9007199254740993", "1e-1", "0.3e0", "1e-400"] {
            assert!(!is_exact(text), "{text}");
        }
    }
}
