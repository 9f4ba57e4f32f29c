//! Rules that silently say nothing where a field is absent: a denial that somebody who leaves the
//! field out gets around.
//!
//! A field counts only if the schema lets it be absent. Where any part of the policy asks whether
//! it is there, by `not`, `object.get` or in `applicable`, the author knows of it, and nothing is
//! said.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::SubjectKind;
use regorus::unstable::{BoolOp, Expr, Literal, LiteralStmt, Rule, RuleBody, RuleHead};
use serde_json::Value as Json;

use super::super::check::refs::{self, text};
use super::super::check::schema::{Form, Type, texts};
use super::super::check::scope::{Scope, arguments, declared};
use super::super::check::walk;
use super::super::check::{APPLICABLE, SETS};
use super::Finding;
use super::context::{
    Bytes, Context, Seen, assigned, body_values, empty, extent, head_values, local, own_parts,
    queried, variables,
};

const RULE: &str = "undefined-deny";

/// What may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// A field of the input.
    Input,
    /// A param.
    Param,
    /// What a table of the policy's own has no entry for.
    Entry,
}

/// Something that a policy reads and that may be absent.
#[derive(Debug, Clone)]
pub(super) struct Absent {
    what: What,
    /// The same for the same thing, however it is written.
    key: String,
    /// How the author wrote it, or what the table lacks.
    shown: String,
    bytes: Bytes,
}

/// How a statement reads something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sense {
    /// It asks whether it is there, or what it is.
    Plain,
    /// It asks whether it is above or below something.
    Ordered,
    /// It asks whether it is something else.
    Other,
    /// It gives it a name, which is asked whether it is something else.
    Named,
    /// It gives it a name.
    Kept,
}

pub(super) fn find(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    one_kind(context, found);
    let known = Known::of(context);
    for (set, rule) in context.set_rules() {
        let params = matches!(set, "deny" | "claims");
        Look { context, known: &known, set, params }.rule(rule, found);
    }
    for (name, params) in conditions(context) {
        for rule in context.rules_of(&name) {
            Look { context, known: &known, set: "", params }.rule(rule, found);
        }
    }
}

/// Conditions by name that a denial or the like hangs on, and that nothing negates; and whether a
/// denial or a claim is among them.
fn conditions(context: &Context<'_, '_>) -> BTreeMap<String, bool> {
    let mut negated = BTreeSet::new();
    context.all(&mut |seen, _| {
        if let Seen::Statement(LiteralStmt { literal: Literal::NotExpr { expr, .. }, .. }) = seen {
            negated.extend(context.read_by(|names| walk::expr(expr, names)));
        }
    });
    let mut conditions: BTreeMap<String, bool> = BTreeMap::new();
    for (set, rule) in context.set_rules() {
        let Rule::Spec { bodies, .. } = rule else { continue };
        let stated = bodies.iter().flat_map(|body| &body.query.stmts).filter_map(stated);
        let names = stated.filter_map(|expr| match expr {
            Expr::Call { fcn, .. } => refs::path(fcn),
            _ => refs::path(expr),
        });
        for name in names.filter(|name| !negated.contains(name) && !SETS.contains(&name.as_str())) {
            *conditions.entry(name).or_default() |= matches!(set, "deny" | "claims");
        }
    }
    conditions.retain(|name, _| context.rules_of(name).all(is_condition));
    conditions
}

/// An expression that stands as a statement.
fn stated(statement: &LiteralStmt) -> Option<&Expr> {
    match &statement.literal {
        Literal::Expr { expr, .. } => Some(expr),
        _ => None,
    }
}

/// Whether a rule is true or undefined.
fn is_condition(rule: &Rule) -> bool {
    let Rule::Spec { head, bodies, .. } = rule else { return false };
    let is_true = |expr: &Expr| expr.span().text() == "true";
    let set = matches!(head, RuleHead::Set { .. });
    !set && head_values(head).all(is_true)
        && bodies.iter().all(|body| !body.is_else && body.assign.is_none())
}

/// What the policy knows may be absent.
struct Known {
    /// Asked for anywhere.
    anywhere: BTreeSet<String>,
    /// Negated in a denial: that one stands where others are undefined.
    denied: BTreeSet<String>,
    /// There whenever the policy has an opinion.
    applicable: BTreeSet<String>,
}

impl Known {
    fn of(context: &Context<'_, '_>) -> Self {
        let mut known = Self {
            anywhere: BTreeSet::new(),
            denied: BTreeSet::new(),
            applicable: BTreeSet::new(),
        };
        for rule in &context.module.policy {
            let name = refs::root(refs::defined(rule)).unwrap_or_default();
            context.each(rule, &mut |seen, scope| match seen {
                Seen::Statement(LiteralStmt { literal: Literal::NotExpr { expr, .. }, .. }) => {
                    if matches!(expr.as_ref(), Expr::Membership { .. } | Expr::BoolExpr { .. }) {
                        return;
                    }
                    for absent in absents(context, expr, scope) {
                        if name == "deny" {
                            known.denied.insert(absent.key.clone());
                        }
                        known.anywhere.insert(absent.key);
                    }
                }
                Seen::Expr(Expr::Call { fcn, params, .. }) => {
                    if let ([of, key, ..], Some("object.get")) =
                        (params.as_slice(), refs::path(fcn).as_deref())
                    {
                        let mut into = Vec::new();
                        match text(key) {
                            Some(key) => step(context, of, key, of, scope, &mut into),
                            None => entry(context, of, key, scope, &mut into),
                        }
                        known.anywhere.extend(into.into_iter().map(|absent| absent.key));
                    }
                }
                _ => {}
            });
        }
        let applicable = context.rules_of(APPLICABLE).filter_map(|rule| match rule {
            Rule::Spec { bodies, .. } => bodies.first(),
            Rule::Default { .. } => None,
        });
        for body in applicable {
            let scope = Scope { around: None, variables: declared(&body.query) };
            let read = reads(context, body, &scope);
            let plain = read.into_iter().filter(|(_, sense)| *sense == Sense::Plain);
            known.applicable.extend(plain.map(|(absent, _)| absent.key));
        }
        known
    }
}

/// One rule, and what is known.
struct Look<'c, 'm, 'a> {
    context: &'c Context<'m, 'a>,
    known: &'c Known,
    /// The set that the rule adds to; empty for a condition.
    set: &'static str,
    /// Whether absent params count: without them a denial or a claim is silently off, where an
    /// obligation may be meant to be.
    params: bool,
}

impl<'m, 'a: 'm> Look<'_, 'm, 'a> {
    fn rule(&self, rule: &'m Rule, found: &mut Vec<Finding>) {
        let Rule::Spec { head, bodies, .. } = rule else { return };
        let around = arguments(head);
        if bodies.is_empty() {
            let values = head_values(head).flat_map(|it| absents(self.context, it, &around));
            self.head(values.collect(), &[], found);
        }
        for (at, body) in bodies.iter().enumerate() {
            let scope = Scope { around: Some(&around), variables: declared(&body.query) };
            let read = reads(self.context, body, &scope);
            self.body(&read, found);
            if !self.set.is_empty() {
                let values = body_values(head, body, at);
                let values = values.flat_map(|it| absents(self.context, it, &scope));
                self.head(values.collect(), &read, found);
            }
        }
    }

    /// Whether an absent one counts here.
    fn counts(&self, absent: &Absent) -> bool {
        (absent.what != What::Param || self.params) && !self.known.applicable.contains(&absent.key)
    }

    fn body(&self, read: &[(Absent, Sense)], found: &mut Vec<Finding>) {
        let there: BTreeSet<&str> = read
            .iter()
            .filter(|(absent, sense)| match sense {
                Sense::Plain => absent.what != What::Entry,
                // Whether a field of the request is above something asks for the field; whether
                // the request is above a param asks for the request.
                Sense::Ordered => absent.what == What::Input,
                Sense::Other | Sense::Named | Sense::Kept => false,
            })
            .map(|(absent, _)| absent.key.as_str())
            .collect();
        for (absent, sense) in read {
            let silent = match sense {
                Sense::Other | Sense::Named => true,
                Sense::Ordered => absent.what == What::Param,
                Sense::Plain | Sense::Kept => false,
            } || absent.what == What::Entry;
            let asked = self.known.anywhere.contains(&absent.key) || there.contains(&*absent.key);
            if silent && !asked && self.counts(absent) {
                self.push(absent, found);
            }
        }
    }

    fn head(&self, values: Vec<Absent>, read: &[(Absent, Sense)], found: &mut Vec<Finding>) {
        for absent in values {
            let asked = match absent.what {
                What::Entry => self.known.anywhere.contains(&absent.key),
                What::Input | What::Param => {
                    self.set == "deny" && self.known.denied.contains(&absent.key)
                }
            };
            let there = read.iter().any(|(other, _)| other.key == absent.key);
            if !asked && !there && self.counts(&absent) {
                self.push(&absent, found);
            }
        }
    }

    fn push(&self, absent: &Absent, found: &mut Vec<Finding>) {
        let Absent { what, shown, bytes, .. } = absent;
        let silent = match self.set {
            "deny" => "nothing is denied then",
            "warn" => "nobody is warned then",
            "obligations" => "nobody is obliged then",
            "claims" => "nothing is claimed then",
            _ => "the condition does not hold then",
        };
        let (message, hint) = match what {
            What::Input => (
                format!("`{shown}` may be absent, and {silent}"),
                format!(
                    "say what its absence means: `object.get` with the strictest value, or a rule \
                     with `not {shown}`"
                ),
            ),
            What::Param => (
                format!("`{shown}` may be left out, and {silent}"),
                "list it under `required` of the params' schema, or give it the strictest default \
                 by `object.get`"
                    .to_owned(),
            ),
            What::Entry => (
                format!("the table has no entry for {shown}, and {silent}"),
                "add the entry, or give the strictest by `object.get`".to_owned(),
            ),
        };
        found.push(Finding::new(RULE, *bytes, message, hint));
    }
}

/// What a body reads that may be absent, outside of negations.
fn reads<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    body: &'m RuleBody,
    scope: &Scope<'_, 'm>,
) -> Vec<(Absent, Sense)> {
    let mut read = Vec::new();
    for statement in &body.query.stmts {
        if !statement.with_mods.is_empty() {
            continue;
        }
        let all = |expr: &'m Expr, sense: Sense| {
            absents(context, expr, scope).into_iter().map(move |absent| (absent, sense))
        };
        match &statement.literal {
            Literal::SomeVars { .. } | Literal::NotExpr { .. } => {}
            Literal::SomeIn { collection, .. } => read.extend(all(collection, Sense::Plain)),
            Literal::Every { domain, .. } => read.extend(all(domain, Sense::Plain)),
            Literal::Expr { expr, .. } => match assigned(statement) {
                Some((name, value)) => {
                    for (absent, _) in all(value, Sense::Kept) {
                        let sense = kept(body, name, absent.what);
                        read.push((absent, sense));
                    }
                }
                None => {
                    let sense = sense(expr);
                    read.extend(all(expr, sense));
                    if let Expr::Call { fcn, params, .. } = expr.as_ref() {
                        passed(context, fcn, params.iter().map(AsRef::as_ref), scope, &mut read);
                    }
                }
            },
        }
    }
    read
}

/// What an expression asks that stands as a statement.
fn sense(expr: &Expr) -> Sense {
    let Expr::BoolExpr { op, lhs, rhs, .. } = expr else { return Sense::Plain };
    let nothing = |side: &Expr| matches!(side, Expr::Null { .. }) || text(side) == Some("");
    match op {
        BoolOp::Ne if nothing(lhs) || nothing(rhs) => Sense::Plain,
        BoolOp::Ne => Sense::Other,
        BoolOp::Eq => Sense::Plain,
        BoolOp::Lt | BoolOp::Le | BoolOp::Ge | BoolOp::Gt => Sense::Ordered,
    }
}

/// What becomes of a value that got a name.
fn kept(body: &RuleBody, name: &str, what: What) -> Sense {
    let reads = |expr: &Expr| variables(expr).contains(name);
    let other = body.query.stmts.iter().any(|statement| match &statement.literal {
        Literal::NotExpr { expr, .. } => reads(expr),
        Literal::Expr { expr, .. } if reads(expr) => match sense(expr) {
            Sense::Other => true,
            Sense::Ordered => what == What::Param,
            Sense::Plain | Sense::Named | Sense::Kept => false,
        },
        _ => false,
    });
    if other { Sense::Named } else { Sense::Kept }
}

/// Arguments that a function of the policy's own asks whether they are something else.
fn passed<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    function: &Expr,
    given: impl Iterator<Item = &'m Expr>,
    scope: &Scope<'_, 'm>,
    read: &mut Vec<(Absent, Sense)>,
) {
    let Some(name) = refs::path(function) else { return };
    for (at, argument) in given.enumerate() {
        let asked = context.rules_of(&name).any(|rule| {
            let Rule::Spec { head: RuleHead::Func { args, .. }, bodies, .. } = rule else {
                return false;
            };
            let Some(Expr::Var { span, .. }) = args.get(at).map(AsRef::as_ref) else {
                return false;
            };
            bodies.iter().any(|body| kept(body, span.text(), What::Input) == Sense::Named)
        });
        if asked {
            let all = absents(context, argument, scope).into_iter();
            // What the statement reads was taken for asked about; it is not.
            let keys: Vec<Absent> = all.collect();
            read.retain(|(other, _)| !keys.iter().any(|absent| absent.bytes == other.bytes));
            read.extend(keys.into_iter().map(|absent| (absent, Sense::Other)));
        }
    }
}

/// All that may be absent in an expression and makes it undefined: what is inside of a
/// comprehension does not.
fn absents<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    expr: &'m Expr,
    scope: &Scope<'_, 'm>,
) -> Vec<Absent> {
    let mut into = Vec::new();
    collect(context, expr, scope, &mut into);
    into
}

fn collect<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    expr: &'m Expr,
    scope: &Scope<'_, 'm>,
    into: &mut Vec<Absent>,
) {
    if queried(expr).is_some() {
        return;
    }
    match expr {
        Expr::RefDot { refr, field, .. } => {
            collect(context, refr, scope, into);
            step(context, refr, field.0.text(), expr, scope, into);
        }
        Expr::RefBrack { refr, index, .. } => {
            collect(context, refr, scope, into);
            collect(context, index, scope, into);
            match text(index) {
                Some(name) => step(context, refr, name, expr, scope, into),
                None => entry(context, refr, index, scope, into),
            }
        }
        Expr::Var { span, .. } => {
            if local(span.text(), scope).is_none() {
                let needs = needs(context, span.text()).into_iter();
                into.extend(needs.map(|absent| Absent { bytes: extent(expr), ..absent }));
            }
        }
        _ => own_parts(expr).for_each(|part| collect(context, part, scope, into)),
    }
}

/// What a rule needs to have a value: what every one of its definitions reads. Worked out once a
/// rule, as a text of a few lines may lead to one in a million ways.
fn needs<'m, 'a: 'm>(context: &Context<'m, 'a>, name: &str) -> Vec<Absent> {
    if let Some(known) = context.needs.borrow().get(name) {
        return known.clone().unwrap_or_default();
    }
    context.needs.borrow_mut().insert(name.to_owned(), None);
    let mut common: Option<Vec<Absent>> = None;
    for rule in context.rules_of(name) {
        for read in definitions(context, rule) {
            let both = |one: &Absent| read.iter().any(|other| other.key == one.key);
            common = Some(match common {
                Some(before) => before.into_iter().filter(|one| both(one)).collect(),
                None => read,
            });
        }
    }
    let mut common = common.unwrap_or_default();
    common.sort_by(|one, other| one.key.cmp(&other.key));
    common.dedup_by(|one, other| one.key == other.key);
    context.needs.borrow_mut().insert(name.to_owned(), Some(common.clone()));
    common
}

/// What each definition of a rule reads outside of negations; nothing for what is never undefined.
fn definitions<'m, 'a: 'm>(context: &Context<'m, 'a>, rule: &'m Rule) -> Vec<Vec<Absent>> {
    let Rule::Spec { head, bodies, .. } = rule else { return vec![Vec::new()] };
    let complete = matches!(head, RuleHead::Compr { refr, .. } if refs::names(refr).is_some());
    if !complete {
        return vec![Vec::new()];
    }
    if bodies.is_empty() {
        return vec![head_values(head).flat_map(|it| absents(context, it, &empty())).collect()];
    }
    let of_body = |(at, body): (usize, &'m RuleBody)| {
        let scope = Scope { around: None, variables: declared(&body.query) };
        let values = body_values(head, body, at).flat_map(|it| absents(context, it, &scope));
        let mut all: Vec<Absent> = values.collect();
        all.extend(reads(context, body, &scope).into_iter().map(|(absent, _)| absent));
        all
    };
    bodies.iter().enumerate().map(of_body).collect()
}

/// A field that the schema lets be absent.
fn step<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    of: &'m Expr,
    name: &str,
    whole: &'m Expr,
    scope: &Scope<'_, 'm>,
    into: &mut Vec<Absent>,
) {
    let Type::Of(nodes) = context.types.type_of(of, scope, 0) else { return };
    for node in nodes {
        let optional = node.forms().into_iter().flatten().any(|form| {
            let Form::Fields(schema) = form else { return false };
            let there = schema.get("properties").is_some_and(|all| all.get(name).is_some());
            let required = schema.get("required").and_then(Json::as_array);
            let required = required.into_iter().flatten().any(|one| one == name);
            there && !required
        });
        // A request is for a lease or for a job: which of them is looked at elsewhere.
        if !optional || node.path == "input" && matches!(name, "lease" | "job") {
            continue;
        }
        let path = node.path.replacen("input.job", "input.lease", 1);
        let what = if path.starts_with("input") { What::Input } else { What::Param };
        let key = format!("{path}.{name}");
        let shown = written(context, whole);
        into.push(Absent { what, key, shown, bytes: extent(whole) });
        return;
    }
}

/// A value of an enumeration that a table of the policy's own does not have.
fn entry<'m, 'a: 'm>(
    context: &Context<'m, 'a>,
    of: &'m Expr,
    index: &'m Expr,
    scope: &Scope<'_, 'm>,
    into: &mut Vec<Absent>,
) {
    let (table, key) = match of {
        Expr::Var { span, .. } if local(span.text(), scope).is_none() => {
            (context.value_of(span.text()), span.text().to_owned())
        }
        _ => (Some(of), format!("at {}", extent(of).0)),
    };
    let Some(Expr::Object { fields, .. }) = table else { return };
    let keys: Option<BTreeSet<&str>> = fields.iter().map(|(_, key, _)| text(key)).collect();
    let Type::Of(nodes) = context.types.type_of(index, scope, 0) else { return };
    let forms: Option<Vec<_>> = nodes.iter().map(|node| node.forms()).collect();
    let forms = forms.map(|forms| forms.concat()).unwrap_or_default();
    let (Some(keys), Some(allowed)) = (keys, texts(&forms)) else { return };
    let missing: Vec<_> = allowed.difference(&keys).map(|name| format!("`{name}`")).collect();
    if missing.is_empty() {
        return;
    }
    let bytes = (extent(of).0, extent(index).1.saturating_add(1));
    into.push(Absent { what: What::Entry, key, shown: missing.join(", "), bytes });
}

/// An expression as its author wrote it.
fn written(context: &Context<'_, '_>, expr: &Expr) -> String {
    let (start, end) = extent(expr);
    let text = context.module.package.span.source.contents();
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let text = range.and_then(|(start, end)| text.get(start..end)).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A policy that looks at leases alone lets jobs pass, or the other way round, unless it says that
/// it means to.
fn one_kind(context: &Context<'_, '_>, found: &mut Vec<Finding>) {
    let Some(kinds) = context.kinds else { return };
    let (mut first, mut guarded) = (None, false);
    let mut named: BTreeSet<String> = super::context::texts(context.module).into_iter().collect();
    let mut read = |expr: &Expr| {
        let (root, segments) = refs::chain(expr)?;
        let kind = segments.first().cloned().flatten().filter(|_| root == "input")?;
        named.insert(kind.clone());
        Some((kind, segments.len()))
    };
    for import in &context.module.imports {
        read(&import.refr);
    }
    context.all(&mut |seen, _| match seen {
        Seen::Expr(expr) => {
            let kind = read(expr).filter(|(kind, _)| matches!(kind.as_str(), "lease" | "job"));
            if let (Some((kind, _)), None) = (kind, &first) {
                first = Some((kind, extent(expr)));
            }
        }
        Seen::Statement(statement) => {
            let (Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. }) = &statement.literal
            else {
                return;
            };
            guarded |= read(expr).is_some_and(|(kind, length)| {
                length == 1 && matches!(kind.as_str(), "lease" | "job")
            });
        }
    });
    let Some((kind, bytes)) = first.filter(|_| !guarded) else { return };
    let other = if kind == "lease" { SubjectKind::Job } else { SubjectKind::Lease };
    let asked = kinds.is_empty() || kinds.contains(&other);
    let silent =
        ["deny", "claims", "obligations"].iter().any(|set| context.rules.contains_key(*set));
    if !asked || !silent || named.contains(other.as_str()) {
        return;
    }
    let other = other.as_str();
    let message = format!("`input.{kind}` is absent for a {other}, which the policy lets pass");
    let hint = format!(
        "read `input.{other}` too (`subject := input.{kind}` and `subject := input.{other}`), or \
         select `kinds: [{kind}]` in the manifest"
    );
    found.push(Finding::new(RULE, bytes, message, hint));
}
