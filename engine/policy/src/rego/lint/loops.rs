//! Loops that do more than their author sees. The budget ends them, and the policy denies then.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Literal, LiteralStmt, Query, Rule};

use super::super::check::refs;
use super::super::check::schema::Type;
use super::super::check::scope::{Scope, arguments, declared};
use super::Finding;
use super::context::{Bytes, Context, Seen, body_values, extent, own_parts, queried, variables};

const RULE: &str = "unbounded-iteration";
/// Longest body that is looked at: each statement is held against each.
const MAX_STATEMENTS: usize = 64;

pub(super) fn find(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    context.all(&mut |seen, scope| {
        let Seen::Expr(expr) = seen else { return };
        if let Some(query) = queried(expr) {
            let inside = Scope { around: Some(scope), variables: declared(query) };
            let values: Vec<&Expr> = own_parts(expr).collect();
            product(context, query, &values, &inside, found);
        }
        if let Expr::Call { fcn, params, .. } = expr
            && matches!(refs::path(fcn).as_deref(), Some("numbers.range" | "numbers.range_step"))
            && let Some(from) = params.iter().find(|param| of_request(context, param, scope))
        {
            let message = "a range whose length the request or a param sets";
            let hint = "look at its ends alone, or bound it: `min([most, ...])`";
            found.push(Finding::new(RULE, extent(from), message.to_owned(), hint));
        }
    });
    for rule in &context.module.policy {
        let Rule::Spec { head, bodies, .. } = rule.as_ref() else { continue };
        let around = arguments(head);
        for (at, body) in bodies.iter().enumerate() {
            let scope = Scope { around: Some(&around), variables: declared(&body.query) };
            let values: Vec<&Expr> = body_values(head, body, at).collect();
            product(context, &body.query, &values, &scope, found);
        }
    }
}

/// Whether a number comes out of the request or the params.
fn of_request<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    expr: &'m Expr,
    scope: &Scope<'_, 'm>,
) -> bool {
    match expr {
        Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
            matches!(context.types.type_of(expr, scope, 0), Type::Of(_))
        }
        Expr::ArithExpr { .. } => own_parts(expr).any(|part| of_request(context, part, scope)),
        _ => false,
    }
}

/// One `some ... in` of a body.
struct Loop {
    names: BTreeSet<String>,
    bytes: Bytes,
}

/// Two loops of one query over lists of the request or the params, of which nothing looks at both:
/// each pair is looked at for nothing.
fn product<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    query: &'m Query,
    values: &[&'m Expr],
    scope: &Scope<'_, 'm>,
    found: &mut Vec<Finding>,
) {
    if query.stmts.len() > MAX_STATEMENTS {
        return;
    }
    let own = |names: BTreeSet<String>| -> BTreeSet<String> {
        names.into_iter().filter(|name| scope.variables.contains_key(name.as_str())).collect()
    };
    let mut loops: Vec<Loop> = Vec::new();
    // Names that are looked at together, by each statement and by what comes out.
    let mut together = vec![own(values.iter().flat_map(|value| variables(value)).collect())];
    for statement in &query.stmts {
        together.push(own(names(statement)));
        let Literal::SomeIn { key, value, collection, .. } = &statement.literal else { continue };
        let list = matches!(context.types.type_of(collection, scope, 0), Type::Of(_));
        if list && refs::chain(collection).is_some() {
            let names = key.iter().chain([value]).flat_map(|it| variables(it)).collect();
            loops.push(Loop { names, bytes: extent(collection) });
        }
    }
    // What is worked out of a loop's variable stands for it.
    for _ in 0..query.stmts.len() {
        let before = together.clone();
        for set in &mut together {
            for other in &before {
                if !other.is_disjoint(set) {
                    set.extend(other.iter().cloned());
                }
            }
        }
        if together == before {
            break;
        }
    }
    for (at, inner) in loops.iter().enumerate().skip(1) {
        let apart = loops.iter().take(at).find(|outer| {
            let both = |set: &BTreeSet<String>| {
                !set.is_disjoint(&outer.names) && !set.is_disjoint(&inner.names)
            };
            !together.iter().any(both)
        });
        if apart.is_some() {
            let message = "a loop inside another one, of which nothing looks at both";
            let hint = "put one of the two into a rule of its own";
            found.push(Finding::new(RULE, inner.bytes, message.to_owned(), hint));
        }
    }
}

/// Local names that a statement reads or binds.
fn names(statement: &LiteralStmt) -> BTreeSet<String> {
    match &statement.literal {
        Literal::SomeVars { .. } => BTreeSet::new(),
        Literal::SomeIn { key, value, collection, .. } => {
            key.iter().chain([value, collection]).flat_map(|it| variables(it)).collect()
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => variables(expr),
        Literal::Every { domain, query, .. } => {
            let inside = query.stmts.iter().flat_map(names);
            variables(domain).into_iter().chain(inside).collect()
        }
    }
}
