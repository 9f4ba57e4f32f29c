//! How deep the interpreter may get into itself when it evaluates a policy.
//!
//! It evaluates by recursion: an expression inside of an expression, a loop inside of a loop, a
//! rule that another needs, a function that another calls. A stack that runs out ends the process,
//! so the deepest way through a policy is known before it is loaded, and a policy that goes through
//! one of its rules twice on one way is refused, as OPA refuses it.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{AssignOp, Expr, Literal, Module, Query, Rule, RuleHead, Span};

use super::check;
use crate::error::Fault;

/// Most levels on one way through a policy. A level takes about 1 KiB of stack where the code is
/// hardly optimised, a thread has 2 MiB.
const MAX_LEVELS: u32 = 600;
/// Levels that a rule or a function adds to those of its expressions.
const RULE_LEVELS: u32 = 4;
/// Levels of a loop: of a statement that looks at each element of something.
const LOOP_LEVELS: u32 = 2;

/// Most names and indexes of one reference: the interpreter goes through those before it again for
/// each, and none of that counts as work.
const MAX_SEGMENTS: u32 = 64;

/// A rule or function, all of its definitions together.
#[derive(Debug, Default)]
struct Node {
    span: Option<Span>,
    levels: u32,
    needs: BTreeSet<usize>,
    /// Functions that it puts in the place of others.
    puts: bool,
}

struct Graph<'a> {
    package: Vec<String>,
    names: Vec<Vec<String>>,
    nodes: Vec<Node>,
    file: &'a str,
    /// Variables of the definition under way, by the query that declares them.
    scopes: Vec<BTreeSet<String>>,
    at: usize,
}

/// Refuses recursion, and ways through a policy that are too deep.
pub(super) fn check_depth(module: &Module, file: &str) -> Result<(), Fault> {
    let package = check::refs::names(&module.package.refr).unwrap_or_default();
    let (names, nodes, scopes) = (Vec::new(), Vec::new(), Vec::new());
    let mut graph = Graph { package, names, nodes, file, scopes, at: 0 };
    let mut found: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    let mut which = Vec::with_capacity(module.policy.len());
    for rule in &module.policy {
        let refr = match rule.as_ref() {
            Rule::Spec { head: RuleHead::Compr { refr, .. }, .. }
            | Rule::Spec { head: RuleHead::Set { refr, .. }, .. }
            | Rule::Spec { head: RuleHead::Func { refr, .. }, .. }
            | Rule::Default { refr, .. } => refr,
        };
        let name = known(refr);
        let next = graph.nodes.len();
        let at = *found.entry(name.clone()).or_insert(next);
        if at == next {
            graph.names.push(name);
            graph.nodes.push(Node { span: Some(refr.span().clone()), ..Node::default() });
        }
        which.push(at);
    }
    for (rule, at) in module.policy.iter().zip(which) {
        graph.at = at;
        let levels = graph.rule(rule).saturating_add(RULE_LEVELS);
        if let Some(node) = graph.nodes.get_mut(at) {
            node.levels = node.levels.max(levels);
        }
    }
    graph.deepest()
}

/// The names that a reference begins with: all of them, up to the first that is not known.
fn known(expr: &Expr) -> Vec<String> {
    let (mut names, mut here) = (Vec::new(), expr);
    loop {
        if let Expr::RefDot { refr, field, .. } = here {
            names.push(field.0.text().to_owned());
            here = refr;
        } else if let Expr::RefBrack { refr, index, .. } = here {
            if let Expr::String { value: Value::String(name), .. } = index.as_ref() {
                names.push(name.to_string());
            } else {
                names.clear();
            }
            here = refr;
        } else if let Expr::Var { span, .. } = here {
            names.push(span.text().to_owned());
            names.reverse();
            return names;
        } else {
            return Vec::new();
        }
    }
}

impl Graph<'_> {
    /// Notes that the definition under way needs what a reference names.
    fn needs(&mut self, names: &[String]) {
        let Some(root) = names.first() else { return };
        if root == "input" || self.scopes.iter().any(|scope| scope.contains(root)) {
            return;
        }
        let names = if root == "data" {
            let path = names.get(1..).unwrap_or_default();
            match path.strip_prefix(self.package.as_slice()) {
                Some(rest) => rest,
                // A document around the package holds all of its rules; another holds none.
                None if self.package.starts_with(path) => &[],
                None => return,
            }
        } else {
            names
        };
        let meant = |name: &Vec<String>| name.starts_with(names) || names.starts_with(name);
        let found: Vec<usize> =
            (0..).zip(&self.names).filter(|(_, name)| meant(name)).map(|(at, _)| at).collect();
        if let Some(node) = self.nodes.get_mut(self.at) {
            node.needs.extend(found);
        }
    }

    fn rule(&mut self, rule: &Rule) -> u32 {
        self.scopes = vec![BTreeSet::new()];
        match rule {
            Rule::Spec { head, bodies, .. } => {
                // A body's variables are known in the head too.
                for body in bodies {
                    self.declare(&body.query);
                }
                let mut levels = match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        let value = assign.as_ref().map_or(0, |assign| self.expr(&assign.value));
                        value.max(self.keys(refr))
                    }
                    RuleHead::Set { refr, key, .. } => {
                        let key = key.as_ref().map_or(0, |key| self.expr(key));
                        key.max(self.keys(refr))
                    }
                    RuleHead::Func { args, assign, .. } => {
                        args.iter().for_each(|argument| self.bind(argument));
                        assign.as_ref().map_or(0, |assign| self.expr(&assign.value))
                    }
                };
                for body in bodies {
                    let value = body.assign.as_ref().map_or(0, |assign| self.expr(&assign.value));
                    levels = levels.max(value).max(self.query(&body.query));
                }
                // The head is evaluated inside of all loops of the body.
                let loops = bodies.iter().map(|body| loops(&body.query)).max().unwrap_or(0);
                levels.saturating_add(loops)
            }
            Rule::Default { value, .. } => self.expr(value),
        }
    }

    /// What the keys in a rule's own name need.
    fn keys(&mut self, mut refr: &Expr) -> u32 {
        let (mut levels, mut segments) = (0, 0);
        loop {
            if let Expr::RefDot { refr: inner, .. } = refr {
                refr = inner;
            } else if let Expr::RefBrack { refr: inner, index, .. } = refr {
                levels = levels.max(self.expr(index));
                refr = inner;
            } else {
                return bounded(levels, segments);
            }
            segments += 1;
        }
    }

    /// A pattern's variables hide rules of their names.
    fn bind(&mut self, pattern: &Expr) {
        if let Expr::Var { span, .. } = pattern {
            if let Some(scope) = self.scopes.last_mut() {
                scope.insert(span.text().to_owned());
            }
        } else if let Expr::Array { items, .. } | Expr::Set { items, .. } = pattern {
            items.iter().for_each(|item| self.bind(item));
        } else if let Expr::Object { fields, .. } = pattern {
            fields.iter().for_each(|(_, _, value)| self.bind(value));
        }
    }

    fn declare(&mut self, query: &Query) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { vars, .. } => {
                    if let Some(scope) = self.scopes.last_mut() {
                        scope.extend(vars.iter().map(|name| name.text().to_owned()));
                    }
                }
                Literal::SomeIn { key, value, .. } => {
                    key.iter().for_each(|key| self.bind(key));
                    self.bind(value);
                }
                Literal::Expr { expr, .. } => {
                    if let Expr::AssignExpr { op: AssignOp::ColEq, lhs, .. } = expr.as_ref() {
                        self.bind(lhs);
                    }
                }
                Literal::NotExpr { .. } | Literal::Every { .. } => {}
            }
        }
    }

    fn inner(&mut self, query: &Query, terms: &[&Expr]) -> u32 {
        self.scopes.push(BTreeSet::new());
        self.declare(query);
        let terms = terms.iter().map(|term| self.expr(term)).max().unwrap_or(0);
        let levels = terms.saturating_add(loops(query)).max(self.query(query));
        self.scopes.pop();
        levels.saturating_add(LOOP_LEVELS)
    }

    fn query(&mut self, query: &Query) -> u32 {
        let mut deepest = 0_u32;
        for statement in &query.stmts {
            let mut levels = match &statement.literal {
                Literal::SomeVars { .. } => 0,
                Literal::SomeIn { key, value, collection, .. } => {
                    let key = key.as_ref().map_or(0, |key| self.expr(key));
                    key.max(self.expr(value)).max(self.expr(collection))
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expr(expr),
                Literal::Every { key, value, domain, query, .. } => {
                    let levels = self.expr(domain);
                    let names = key.iter().chain([value]).map(|name| name.text().to_owned());
                    self.scopes.push(names.collect());
                    let inside = self.inner(query, &[]);
                    self.scopes.pop();
                    levels.max(inside)
                }
            };
            for modifier in &statement.with_mods {
                levels = levels.max(self.expr(&modifier.r#as));
                let root = known(&modifier.refr).first().cloned();
                let document = root.is_some_and(|root| root == "input" || root == "data");
                if let (false, Some(node)) = (document, self.nodes.get_mut(self.at)) {
                    node.puts = true;
                }
            }
            deepest = deepest.max(levels);
        }
        deepest.saturating_add(loops(query))
    }

    fn most<'b>(&mut self, exprs: impl IntoIterator<Item = &'b Expr>) -> u32 {
        exprs.into_iter().map(|expr| self.expr(expr)).max().unwrap_or(0)
    }

    /// Levels of an expression, 1 for one without parts.
    fn expr(&mut self, expr: &Expr) -> u32 {
        let inside = match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => 0,
            Expr::Var { .. } => {
                self.needs(&known(expr));
                0
            }
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                self.most(items.iter().map(AsRef::as_ref))
            }
            Expr::Object { fields, .. } => {
                self.most(fields.iter().flat_map(|(_, key, value)| [key.as_ref(), value.as_ref()]))
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.inner(query, &[term])
            }
            Expr::ObjectCompr { key, value, query, .. } => self.inner(query, &[key, value]),
            Expr::Call { fcn, params, .. } => {
                self.needs(&known(fcn));
                self.most(params.iter().map(AsRef::as_ref)).saturating_add(1)
            }
            Expr::UnaryExpr { expr, .. } => self.expr(expr),
            Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => self.most([lhs.as_ref(), rhs.as_ref()]),
            Expr::Membership { key, value, collection, .. } => {
                let key = key.as_ref().map_or(0, |key| self.expr(key));
                key.max(self.most([value.as_ref(), collection.as_ref()]))
            }
        };
        inside.saturating_add(1)
    }

    fn reference(&mut self, expr: &Expr) -> u32 {
        let (mut levels, mut segments, mut here) = (0, 0, expr);
        self.needs(&known(expr));
        loop {
            if let Expr::RefDot { refr, .. } = here {
                here = refr;
            } else if let Expr::RefBrack { refr, index, .. } = here {
                levels = levels.max(self.expr(index));
                here = refr;
            } else if let Expr::Var { .. } = here {
                return bounded(levels, segments);
            } else {
                return bounded(levels.max(self.expr(here)), segments);
            }
            segments += 1;
        }
    }

    /// Finds the deepest way, visiting each rule once. The graph may be as deep as it has rules, so
    /// this does not recurse.
    fn deepest(&self) -> Result<(), Fault> {
        let mut levels: Vec<Option<(u32, u32)>> = vec![None; self.nodes.len()];
        let mut on_way = vec![false; self.nodes.len()];
        for first in 0..self.nodes.len() {
            let mut way = vec![(first, false)];
            while let Some((at, left)) = way.pop() {
                let Some(node) = self.nodes.get(at) else { continue };
                if left {
                    let below = node.needs.iter().filter_map(|next| *levels.get(*next)?);
                    let (deep, puts) = below.fold((0_u32, 0_u32), |most, next| {
                        (most.0.max(next.0), most.1.max(next.1))
                    });
                    let deep = deep.saturating_add(node.levels);
                    let puts = puts.saturating_add(u32::from(node.puts));
                    // Each function put in the place of another may be as deep as all else.
                    if deep.saturating_mul(puts.saturating_add(1)) > MAX_LEVELS {
                        return Err(self.fault(node, "is too deep", "let it need fewer others"));
                    }
                    set(&mut levels, at, Some((deep, puts)));
                    set(&mut on_way, at, false);
                } else if levels.get(at).is_some_and(Option::is_none) {
                    set(&mut on_way, at, true);
                    way.push((at, true));
                    for next in &node.needs {
                        if on_way.get(*next) == Some(&true) {
                            let hint =
                                "a rule or function never needs itself, directly or through others";
                            return Err(self.fault(node, "is recursive", hint));
                        }
                        way.push((*next, false));
                    }
                }
            }
        }
        Ok(())
    }

    fn fault(&self, node: &Node, what: &str, hint: &str) -> Fault {
        let name = node.span.as_ref().map_or("a rule", Span::text);
        let fault = Fault::new(self.file, format!("`{name}` {what}")).hint(hint);
        match &node.span {
            Some(span) => fault.at(span.line, Some(span.col)),
            None => fault,
        }
    }
}

fn set<T>(items: &mut [T], at: usize, value: T) {
    if let Some(item) = items.get_mut(at) {
        *item = value;
    }
}

/// Levels of a reference with so many segments: no way may go through one that is too long.
fn bounded(levels: u32, segments: u32) -> u32 {
    if segments > MAX_SEGMENTS { u32::MAX } else { levels }
}

/// Levels of a query's loops, each inside of the one before.
pub(super) fn loops(query: &Query) -> u32 {
    let each = query.stmts.iter().map(|statement| match &statement.literal {
        Literal::SomeVars { .. } => 0,
        Literal::SomeIn { key, value, collection, .. } => {
            let key = key.as_ref().map_or(0, |key| walks(key));
            key.saturating_add(walks(value)).saturating_add(walks(collection)).saturating_add(1)
        }
        Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => walks(expr),
        Literal::Every { domain, .. } => walks(domain),
    });
    each.fold(0, u32::saturating_add).saturating_mul(LOOP_LEVELS)
}

/// References in an expression that may look at each element of something.
fn walks(expr: &Expr) -> u32 {
    let all =
        |exprs: &mut dyn Iterator<Item = &Expr>| exprs.map(walks).fold(0, u32::saturating_add);
    match expr {
        Expr::RefDot { refr, .. } => walks(refr),
        Expr::RefBrack { refr, index, .. } => {
            let fixed = matches!(index.as_ref(), Expr::String { .. } | Expr::Number { .. });
            walks(refr).saturating_add(walks(index)).saturating_add(u32::from(!fixed))
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            all(&mut items.iter().map(AsRef::as_ref))
        }
        Expr::Object { fields, .. } => {
            all(&mut fields.iter().flat_map(|(_, key, value)| [key.as_ref(), value.as_ref()]))
        }
        Expr::Call { fcn, params, .. } => {
            // With a pattern for its result it is a loop too.
            let walk = known(fcn).iter().eq(["walk"]);
            all(&mut params.iter().map(AsRef::as_ref)).saturating_add(u32::from(walk))
        }
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => walks(lhs).saturating_add(walks(rhs)),
        Expr::Membership { value, collection, .. } => {
            walks(value).saturating_add(walks(collection))
        }
        Expr::UnaryExpr { expr, .. } => walks(expr),
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. }
        | Expr::ArrayCompr { .. }
        | Expr::SetCompr { .. }
        | Expr::ObjectCompr { .. } => 0,
    }
}
