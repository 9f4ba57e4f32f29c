//! Amounts that may come to fractions. What the ledger holds are whole numbers: a claim of half a
//! thing is an answer that cannot be read, and a comparison with a fraction is off by one
//! somewhere.

use std::collections::BTreeSet;

use regorus::Value;
use regorus::unstable::{ArithOp, Expr, LiteralStmt, Rule};

use super::super::check::refs::{self, text};
use super::super::check::schema::Type;
use super::super::check::scope::{Meaning, Scope};
use super::Finding;
use super::context::{Context, Seen, empty, extent, local, own_parts};

const RULE: &str = "float-money";
/// Built-ins that give whole numbers.
const WHOLE: [&str; 4] = ["ceil", "floor", "round", "numbers.floor"];

pub(super) fn find(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    fractions(context, found);
    for (set, rule) in context.set_rules() {
        if set == "claims" {
            claimed(context, rule, found);
        }
    }
}

/// Literals that are no whole numbers, where something is worked out or compared.
fn fractions(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    context.all(&mut |seen, scope| {
        let Seen::Expr(expr) = seen else { return };
        if !matches!(expr, Expr::ArithExpr { .. } | Expr::BoolExpr { .. })
            || !is_amount(context, expr, scope)
        {
            return;
        }
        for part in own_parts(expr) {
            if let Expr::Number { span, value: Value::Number(number), .. } = part
                && !number.is_integer()
            {
                let message = format!("`{}` is no whole number, and amounts are", span.text());
                let hint = "count in a smaller unit: percent, milli-GPU, seconds";
                found.push(Finding::new(RULE, extent(part), message, hint));
            }
        }
    });
}

/// Whether anything of the request or the params is in an expression: what a policy makes of other
/// things may be a ratio.
fn is_amount<'m, 'a: 'm>(context: &Context<'m, 'a>, expr: &'m Expr, scope: &Scope<'_, 'm>) -> bool {
    matches!(context.types.type_of(expr, scope, 0), Type::Of(_))
        || own_parts(expr).any(|part| is_amount(context, part, scope))
}

/// Divisions in what a rule claims.
fn claimed<'m, 'a: 'm>(context: &Context<'m, 'a>, rule: &'m Rule, found: &mut Vec<Finding>) {
    context.each(rule, &mut |seen, scope| match seen {
        Seen::Expr(Expr::Object { fields, .. }) => {
            let amounts =
                fields.iter().filter(|(_, key, _)| matches!(text(key), Some("amount" | "limit")));
            for (_, _, value) in amounts {
                if let Some(bytes) = division(context, value, scope, &mut BTreeSet::new()) {
                    let message = "`/` may leave a fraction, and what is claimed is a whole number";
                    let hint = "round it: `floor(a / b)`, or in integers `(a - (a % b)) / b`";
                    found.push(Finding::new(RULE, bytes, message.to_owned(), hint));
                }
            }
        }
        Seen::Expr(_) | Seen::Statement(LiteralStmt { .. }) => {}
    });
}

/// The first division that a value comes from, unless it is rounded.
fn division<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    expr: &'m Expr,
    scope: &Scope<'_, 'm>,
    followed: &mut BTreeSet<&'m str>,
) -> Option<(u32, u32)> {
    match expr {
        Expr::Call { fcn, .. } if refs::path(fcn).is_some_and(|it| WHOLE.contains(&&*it)) => None,
        Expr::ArithExpr { op: ArithOp::Div, lhs, rhs, .. } => {
            (!is_whole(lhs, rhs)).then(|| extent(expr))
        }
        Expr::Var { span, .. } if !followed.insert(span.text()) => None,
        Expr::Var { span, .. } => match local(span.text(), scope) {
            Some(Meaning::Is(value)) => division(context, value, scope, followed),
            Some(_) => None,
            None => {
                let value = context.value_of(span.text())?;
                division(context, value, &empty(), followed)
            }
        },
        _ => own_parts(expr).find_map(|part| division(context, part, scope, followed)),
    }
}

/// `(a - (a % b)) / b`: nothing is left over.
fn is_whole(lhs: &Expr, rhs: &Expr) -> bool {
    let same = |one: &Expr, other: &Expr| one.span().text() == other.span().text();
    if let Expr::ArithExpr { op: ArithOp::Sub, lhs: whole, rhs: rest, .. } = lhs
        && let Expr::ArithExpr { op: ArithOp::Mod, lhs: of, rhs: by, .. } = rest.as_ref()
    {
        return same(whole, of) && same(by, rhs);
    }
    false
}
