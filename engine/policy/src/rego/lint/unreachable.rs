//! Rules that never hold: their conditions contradict each other, or what the schema says.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::SubjectKind;
use regorus::Value;
use regorus::unstable::{BoolOp, Expr, Literal, LiteralStmt, Query, Rule, RuleBody};

use super::super::check::refs::{self, text};
use super::super::check::schema::{Node, Type};
use super::super::check::scope::{Scope, arguments, declared};
use super::Finding;
use super::context::{Bytes, Context, extent, own_parts, queried};

const RULE: &str = "unreachable-rule";

pub(super) fn find(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    for rule in &context.module.policy {
        let Rule::Spec { head, bodies, .. } = rule.as_ref() else { continue };
        let around = arguments(head);
        for (body, next) in bodies.iter().zip(bodies.iter().skip(1).map(Some).chain([None])) {
            let scope = Scope { around: Some(&around), variables: declared(&body.query) };
            let mut facts =
                Facts { context, scope: &scope, known: BTreeMap::new(), kinds: Vec::new() };
            if let Some((bytes, why)) = facts.contradiction(&body.query) {
                let hint = "remove the rule, or say what was meant";
                found.push(Finding::new(RULE, bytes, why, hint));
            }
            if let Some(next) = next.filter(|next| next.is_else && always(body)) {
                let bytes = (next.span.start, next.span.end);
                let message = "this `else` never has its turn: what is before it always holds";
                let hint = "remove it, or give what is before it a condition";
                found.push(Finding::new(RULE, bytes, message.to_owned(), hint));
            }
        }
    }
    selected(context, found);
}

/// Whether a body holds whatever the request is.
fn always(body: &RuleBody) -> bool {
    let is_true = |statement: &LiteralStmt| match &statement.literal {
        Literal::Expr { expr, .. } => bool_of(expr) == Some(true),
        _ => false,
    };
    body.query.stmts.iter().all(is_true)
}

fn bool_of(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Bool { value: Value::Bool(value), .. } => Some(*value),
        _ => None,
    }
}

/// What the statements of a body that were looked at demand.
struct Facts<'f, 'm, 'a> {
    context: &'f Context<'m, 'a>,
    scope: &'f Scope<'f, 'm>,
    /// By what is demanded of.
    known: BTreeMap<String, Demand>,
    /// Kinds of subject that something is read of.
    kinds: Vec<SubjectKind>,
}

/// What is demanded of one value.
#[derive(Debug, Clone, Default)]
struct Demand {
    equal: Option<String>,
    others: BTreeSet<String>,
    among: Option<BTreeSet<String>>,
    /// In halves, so that there is something between two whole numbers.
    least: Option<i64>,
    most: Option<i64>,
    there: bool,
    absent: bool,
}

type Wrong = (Bytes, String);

impl<'m, 'a: 'm> Facts<'_, 'm, 'a> {
    /// The first statement that cannot hold together with those before it.
    fn contradiction(&mut self, query: &'m Query) -> Option<Wrong> {
        let plain = query.stmts.iter().filter(|statement| statement.with_mods.is_empty());
        plain.into_iter().find_map(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'m LiteralStmt) -> Option<Wrong> {
        match &statement.literal {
            Literal::SomeVars { .. } | Literal::Every { .. } => None,
            Literal::SomeIn { collection, .. } => self.kind(collection),
            Literal::NotExpr { expr, .. } => self.negated(expr),
            Literal::Expr { expr, .. } => self.kind(expr).or_else(|| self.stated(expr)),
        }
    }

    fn negated(&mut self, expr: &'m Expr) -> Option<Wrong> {
        let bytes = extent(expr);
        if bool_of(expr) == Some(true) {
            return Some((bytes, "this condition never holds".to_owned()));
        }
        let path = refs::path(expr)?;
        if self.known.get(&path).is_some_and(|demand| demand.there) {
            return Some((bytes, format!("`{path}` is demanded above, and refused here")));
        }
        self.known.entry(path).or_default().absent = true;
        let absent = |kind: &str| {
            self.known.get(&format!("input.{kind}")).is_some_and(|demand| demand.absent)
        };
        let none = absent("lease") && absent("job");
        none.then(|| (bytes, "a request is for a lease or for a job, never for neither".to_owned()))
    }

    /// Which kind of subject an expression needs.
    fn kind(&mut self, expr: &'m Expr) -> Option<Wrong> {
        if queried(expr).is_some() {
            return None;
        }
        if let Type::Of(nodes) = self.context.types.type_of(expr, self.scope, 0)
            && refs::chain(expr).is_some()
        {
            for kind in [SubjectKind::Lease, SubjectKind::Job] {
                let path = format!("input.{}", kind.as_str());
                let of_kind = |it: &str| {
                    it.strip_prefix(&path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                };
                if nodes.is_empty() || !nodes.iter().all(|node| of_kind(&node.path)) {
                    continue;
                }
                if !self.kinds.contains(&kind) {
                    self.kinds.push(kind);
                }
                if self.known.get(&path).is_some_and(|demand| demand.absent) {
                    let message = format!("`{path}` is refused above, and read here");
                    return Some((extent(expr), message));
                }
                if self.kinds.len() > 1 {
                    let message = "a request is for a lease or for a job, never for both";
                    return Some((extent(expr), message.to_owned()));
                }
            }
            return None;
        }
        own_parts(expr).find_map(|part| self.kind(part))
    }

    fn stated(&mut self, expr: &'m Expr) -> Option<Wrong> {
        let bytes = extent(expr);
        if bool_of(expr) == Some(false) {
            return Some((bytes, "this condition never holds".to_owned()));
        }
        match expr {
            Expr::BoolExpr { op, lhs, rhs, .. } => self.compared(op, lhs, rhs, bytes),
            Expr::Membership { key: None, value, collection, .. } => {
                let (Expr::Array { items, .. } | Expr::Set { items, .. }) = collection.as_ref()
                else {
                    return None;
                };
                let path = stable(value)?;
                let items: Option<BTreeSet<_>> = items.iter().map(|item| literal(item)).collect();
                let items = items?;
                let demand = self.known.entry(path.clone()).or_default();
                let among = match &demand.among {
                    Some(before) => before.intersection(&items).cloned().collect(),
                    None => items,
                };
                demand.among = Some(among);
                self.possible(&path, bytes)
            }
            _ => {
                let path = refs::path(expr)?;
                let demand = self.known.entry(path.clone()).or_default();
                demand.there = true;
                let absent = demand.absent;
                absent.then(|| (bytes, format!("`{path}` is refused above, and demanded here")))
            }
        }
    }

    fn compared(
        &mut self,
        op: &BoolOp,
        lhs: &'m Expr,
        rhs: &'m Expr,
        bytes: Bytes,
    ) -> Option<Wrong> {
        if let (Some(one), Some(other)) = (constant(lhs), constant(rhs)) {
            let never = !holds(op, &one, &other);
            return never.then(|| (bytes, "this condition never holds".to_owned()));
        }
        if let (Some(one), Some(other)) = (stable(lhs), stable(rhs)) {
            let never = one == other && matches!(op, BoolOp::Ne | BoolOp::Lt | BoolOp::Gt);
            return never.then(|| (bytes, "a value is compared with itself".to_owned()));
        }
        let (expr, path, constant, op) = match (stable(lhs), literal(rhs)) {
            (Some(path), Some(constant)) => (lhs, path, constant, op.clone()),
            _ => (rhs, stable(rhs)?, literal(lhs)?, turned(op)),
        };
        let (integer, least, most) = self.bounds(expr);
        let demand = self.known.entry(path.clone()).or_default();
        demand.least = demand.least.max(least);
        demand.below(most);
        let halves = constant.parse::<i64>().ok().map(|whole| whole.saturating_mul(2));
        // Next to a whole number is another one, or any fraction.
        let next: i64 = if integer { 2 } else { 1 };
        match op {
            BoolOp::Eq => {
                if demand.equal.as_ref().is_some_and(|equal| *equal != constant) {
                    return Some((
                        bytes,
                        format!("`{path}` is demanded to be something else above"),
                    ));
                }
                demand.equal = Some(constant);
            }
            BoolOp::Ne => {
                demand.others.insert(constant);
            }
            BoolOp::Ge => demand.least = demand.least.max(halves),
            BoolOp::Gt => {
                demand.least = demand.least.max(halves.map(|it| it.saturating_add(next)));
            }
            BoolOp::Le => demand.below(halves),
            BoolOp::Lt => demand.below(halves.map(|it| it.saturating_sub(next))),
        }
        self.possible(&path, bytes)
    }

    /// Whether a number is a whole one, and its least and most in halves, as the schema has it.
    fn bounds(&self, expr: &'m Expr) -> (bool, Option<i64>, Option<i64>) {
        let Type::Of(nodes) = self.context.types.type_of(expr, self.scope, 0) else {
            return (false, None, None);
        };
        let whole = |node: &Node<'_>| node.schema.get("type").is_some_and(|it| it == "integer");
        if nodes.is_empty() || !nodes.iter().all(whole) {
            return (false, None, None);
        }
        let all = |key: &str| -> Option<Vec<i64>> {
            let halves = |node: &Node<'_>| node.schema.get(key)?.as_i64()?.checked_mul(2);
            nodes.iter().map(halves).collect()
        };
        let least = all("minimum").and_then(|all| all.into_iter().min());
        (true, least, all("maximum").and_then(|all| all.into_iter().max()))
    }

    /// Whether any value has all that is demanded.
    fn possible(&self, path: &str, bytes: Bytes) -> Option<Wrong> {
        let Demand { equal, others, among, least, most, .. } = self.known.get(path)?;
        let bound = |it: &String| match it.parse::<i64>().map(|it| it.saturating_mul(2)) {
            Ok(it) => least.is_none_or(|least| it >= least) && most.is_none_or(|most| it <= most),
            Err(_) => true,
        };
        let fits = |it: &&String| {
            !others.contains(*it) && bound(it) && equal.as_ref().is_none_or(|equal| equal == *it)
        };
        let some = match (among, equal) {
            (Some(among), _) => among.iter().any(|it| fits(&it)),
            (None, Some(equal)) => fits(&equal),
            (None, None) => least.zip(*most).is_none_or(|(least, most)| least <= most),
        };
        (!some).then(|| (bytes, format!("no value of `{path}` meets this and what is known of it")))
    }
}

impl Demand {
    fn below(&mut self, most: Option<i64>) {
        self.most = match (self.most, most) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}

/// A reference that is the same value wherever it stands in a body.
fn stable(expr: &Expr) -> Option<String> {
    refs::path(expr).filter(|path| path != "_")
}

/// A literal, so that equal ones are the same text: whole numbers in digits, others as written.
fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Number { value, .. } => Some(value.to_string()),
        Expr::Bool { .. } | Expr::Null { .. } => Some(expr.span().text().to_owned()),
        _ => text(expr).map(|text| format!("\"{text}\"")),
    }
}

fn constant(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::Number { value, .. }
        | Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Bool { value, .. }
        | Expr::Null { value, .. } => Some(value.clone()),
        _ => None,
    }
}

fn holds(op: &BoolOp, one: &Value, other: &Value) -> bool {
    match op {
        BoolOp::Lt => one < other,
        BoolOp::Le => one <= other,
        BoolOp::Eq => one == other,
        BoolOp::Ge => one >= other,
        BoolOp::Gt => one > other,
        BoolOp::Ne => one != other,
    }
}

/// The same with its sides exchanged.
fn turned(op: &BoolOp) -> BoolOp {
    match op {
        BoolOp::Lt => BoolOp::Gt,
        BoolOp::Le => BoolOp::Ge,
        BoolOp::Ge => BoolOp::Le,
        BoolOp::Gt => BoolOp::Lt,
        BoolOp::Eq | BoolOp::Ne => op.clone(),
    }
}

/// A rule for a kind of subject that the policy is never asked about.
fn selected(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    let Some([only]) = context.kinds else { return };
    for (_, rule) in context.set_rules() {
        let Rule::Spec { head, bodies, .. } = rule else { continue };
        let around = arguments(head);
        for body in bodies {
            let scope = Scope { around: Some(&around), variables: declared(&body.query) };
            let mut facts =
                Facts { context, scope: &scope, known: BTreeMap::new(), kinds: Vec::new() };
            if facts.contradiction(&body.query).is_none()
                && facts.kinds.iter().any(|kind| kind != only)
            {
                let bytes = (body.query.span.start, body.query.span.end);
                let message = format!(
                    "the policy is only asked about a {}, and this needs another",
                    only.as_str()
                );
                let hint = "remove the rule, or add the kind to `select.kinds` in the manifest";
                found.push(Finding::new(RULE, bytes, message, hint));
            }
        }
    }
}
