//! The variables of a body, and what they stand for.

use std::collections::BTreeMap;

use regorus::unstable::{AssignOp, Expr, Literal, Query, RuleHead};

use super::walk::{Part, parts};

/// What a variable stands for.
#[derive(Debug, Clone, Copy)]
pub(in crate::rego) enum Meaning<'m> {
    Unknown,
    Is(&'m Expr),
    ElementOf(&'m Expr),
}

/// The variables of a body, and those around it.
#[derive(Debug)]
pub(in crate::rego) struct Scope<'s, 'm> {
    pub(in crate::rego) around: Option<&'s Scope<'s, 'm>>,
    pub(in crate::rego) variables: BTreeMap<&'m str, Meaning<'m>>,
}

/// The arguments of a function, of which nothing is known.
pub(in crate::rego) fn arguments<'s, 'm>(head: &'m RuleHead) -> Scope<'s, 'm> {
    let mut variables = BTreeMap::new();
    if let RuleHead::Func { args, .. } = head {
        args.iter().for_each(|argument| pattern(argument, &mut variables));
    }
    Scope { around: None, variables }
}

/// The variables that a body declares. Those that stand for an expression have its type.
pub(in crate::rego) fn declared<'m>(query: &'m Query) -> BTreeMap<&'m str, Meaning<'m>> {
    let mut variables = BTreeMap::new();
    for statement in &query.stmts {
        let mut own = BTreeMap::new();
        match &statement.literal {
            Literal::SomeVars { vars, .. } => {
                own.extend(vars.iter().map(|name| (name.text(), Meaning::Unknown)));
            }
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().for_each(|key| pattern(key, &mut own));
                pattern(value, &mut own);
                if let Expr::Var { span, .. } = value.as_ref() {
                    own.insert(span.text(), Meaning::ElementOf(collection));
                }
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } = expr.as_ref() {
                    pattern(lhs, &mut own);
                    if let Expr::Var { span, .. } = lhs.as_ref() {
                        own.insert(span.text(), Meaning::Is(rhs));
                    }
                }
            }
            Literal::Every { .. } => {}
        }
        for (name, meaning) in own {
            // Under `with`, or declared twice: nothing is certain.
            let certain = statement.with_mods.is_empty() && !variables.contains_key(name);
            variables.insert(name, if certain { meaning } else { Meaning::Unknown });
        }
    }
    variables
}

fn pattern<'m>(expr: &'m Expr, variables: &mut BTreeMap<&'m str, Meaning<'m>>) {
    if let Expr::Var { span, .. } = expr {
        variables.insert(span.text(), Meaning::Unknown);
    }
    for part in parts(expr) {
        if let Part::Expr(part) = part {
            pattern(part, variables);
        }
    }
}
