//! References as an author writes them: `input.lease.gpu_count`, `a["b"][_]`.

use regorus::Value;
use regorus::unstable::{Expr, Rule, RuleHead};

/// A reference made of names only.
pub(in crate::rego) fn names(expr: &Expr) -> Option<Vec<String>> {
    let (root, segments) = chain(expr)?;
    std::iter::once(Some(root)).chain(segments).collect()
}

/// The same, joined by dots.
pub(in crate::rego) fn path(expr: &Expr) -> Option<String> {
    names(expr).map(|names| names.join("."))
}

/// The name that a reference begins with.
pub(in crate::rego) fn root(expr: &Expr) -> Option<String> {
    chain(expr).map(|(root, _)| root)
}

/// A reference: the variable that it begins with, and its segments, where they are known.
pub(in crate::rego) fn chain(expr: &Expr) -> Option<(String, Vec<Option<String>>)> {
    let mut segments = Vec::new();
    let mut here = expr;
    loop {
        if let Expr::RefDot { refr, field, .. } = here {
            segments.push(Some(field.0.text().to_owned()));
            here = refr;
        } else if let Expr::RefBrack { refr, index, .. } = here {
            segments.push(text(index).map(str::to_owned));
            here = refr;
        } else if let Expr::Var { span, .. } = here {
            segments.reverse();
            return Some((span.text().to_owned(), segments));
        } else {
            return None;
        }
    }
}

/// The text of a literal.
pub(in crate::rego) fn text(expr: &Expr) -> Option<&str> {
    let (Expr::String { value, .. } | Expr::RawString { value, .. }) = expr else { return None };
    if let Value::String(text) = value { Some(text) } else { None }
}

/// The reference that a rule defines.
pub(in crate::rego) fn defined(rule: &Rule) -> &Expr {
    match rule {
        Rule::Spec { head, .. } => match head {
            RuleHead::Compr { refr, .. }
            | RuleHead::Set { refr, .. }
            | RuleHead::Func { refr, .. } => refr,
        },
        Rule::Default { refr, .. } => refr,
    }
}

/// The path of a function, if the rule is one.
pub(in crate::rego) fn function_name(rule: &Rule) -> Option<String> {
    match rule {
        Rule::Spec { head: RuleHead::Func { refr, .. }, .. } => path(refr),
        Rule::Default { refr, args, .. } if !args.is_empty() => path(refr),
        Rule::Spec { .. } | Rule::Default { .. } => None,
    }
}
