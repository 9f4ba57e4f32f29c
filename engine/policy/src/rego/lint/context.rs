//! A module as the lints see it: its rules by name, what leads to what, and every expression with
//! the variables around it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use placet_core::SubjectKind;
use regorus::unstable::{
    AssignOp, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleBody, RuleHead,
};

use super::super::check::refs::{self, text};
use super::super::check::scope::{Meaning, Scope, arguments, declared};
use super::super::check::types::Types;
use super::super::check::walk::{self, Part, Visit, parts};
use super::super::check::{APPLICABLE, PREEMPTION, SETS, TERMS};
use super::super::contradictions::PARAMS_WRONG;
use super::undefined::Absent;
use crate::metadata::PolicyMetadata;

/// First byte, and the one after the last.
pub(super) type Bytes = (u32, u32);

/// A module with what is known of it.
pub(super) struct Context<'m, 'a> {
    pub(super) module: &'m Module,
    pub(super) types: Types<'m, 'a>,
    /// By the name that they begin with, in the order of the text.
    pub(super) rules: BTreeMap<String, Vec<&'m Rule>>,
    pub(super) metadata: Option<&'a PolicyMetadata>,
    /// Kinds of subject that the policy is asked about, empty for all; none if that is not known.
    pub(super) kinds: Option<&'a [SubjectKind]>,
    /// What a rule needs to have a value, by its name; `None` while that is worked out.
    pub(super) needs: RefCell<BTreeMap<String, Option<Vec<Absent>>>>,
    package: Vec<String>,
}

/// A part of a rule, with the variables around it.
pub(super) enum Seen<'m> {
    Statement(&'m LiteralStmt),
    Expr(&'m Expr),
}

impl<'m, 'a: 'm> Context<'m, 'a> {
    pub(super) fn new(
        module: &'m Module,
        types: Types<'m, 'a>,
        metadata: Option<&'a PolicyMetadata>,
        kinds: Option<&'a [SubjectKind]>,
    ) -> Self {
        let mut rules: BTreeMap<String, Vec<&'m Rule>> = BTreeMap::new();
        for rule in &module.policy {
            let name = refs::root(refs::defined(rule)).unwrap_or_default();
            rules.entry(name).or_default().push(rule);
        }
        let package = refs::names(&module.package.refr).unwrap_or_default();
        let needs = RefCell::default();
        Self { module, types, rules, metadata, kinds, needs, package }
    }

    /// Rules of that name.
    pub(super) fn rules_of(&self, name: &str) -> impl Iterator<Item = &'m Rule> {
        self.rules.get(name).into_iter().flatten().copied()
    }

    /// The rules of the contract that are sets, with their names.
    pub(super) fn set_rules(&self) -> impl Iterator<Item = (&'static str, &'m Rule)> {
        let is_set = |rule: &&Rule| matches!(rule, Rule::Spec { head: RuleHead::Set { .. }, .. });
        SETS.into_iter()
            .flat_map(move |set| self.rules_of(set).filter(is_set).map(move |rule| (set, rule)))
    }

    /// The value of a rule that has one definition, and no condition.
    pub(super) fn value_of(&self, name: &str) -> Option<&'m Expr> {
        let [rule] = self.rules.get(name)?.as_slice() else { return None };
        let Rule::Spec { head: RuleHead::Compr { refr, assign, .. }, bodies, .. } = rule else {
            return None;
        };
        let whole = matches!(refr.as_ref(), Expr::Var { .. }) && bodies.is_empty();
        assign.as_ref().filter(|_| whole).map(|assign| assign.value.as_ref())
    }

    /// Names of the module's rules that a part of it reads or calls. A local variable of that name
    /// counts too.
    pub(super) fn read_by(&self, look: impl FnOnce(&mut Names<'_>)) -> BTreeSet<String> {
        let mut names = Names { package: &self.package, names: BTreeSet::new() };
        look(&mut names);
        names.names.retain(|name| self.rules.contains_key(name));
        names.names
    }

    /// Names of all rules that are evaluated, or asked when the bundle is loaded.
    pub(super) fn reached(&self) -> BTreeSet<String> {
        let roots = SETS.into_iter().chain([APPLICABLE, PREEMPTION, TERMS, PARAMS_WRONG]);
        let mut next: Vec<String> = roots.map(str::to_owned).collect();
        let mut done = BTreeSet::new();
        while let Some(name) = next.pop() {
            if !done.insert(name.clone()) {
                continue;
            }
            for rule in self.rules_of(&name) {
                next.extend(self.read_by(|names| walk::rule(rule, names)));
            }
        }
        done
    }

    /// Shows every statement and expression of a rule with the variables that it sees.
    pub(super) fn each(&self, rule: &'m Rule, look: &mut dyn FnMut(Seen<'m>, &Scope<'_, 'm>)) {
        match rule {
            Rule::Default { value, .. } => expr(value, &empty(), look),
            Rule::Spec { head, bodies, .. } => {
                let around = arguments(head);
                if bodies.is_empty() {
                    head_values(head).for_each(|value| expr(value, &around, look));
                }
                for (at, body) in bodies.iter().enumerate() {
                    let scope = Scope { around: Some(&around), variables: declared(&body.query) };
                    body_values(head, body, at).for_each(|value| expr(value, &scope, look));
                    query(&body.query, &scope, look);
                }
            }
        }
    }

    /// The same for all rules.
    pub(super) fn all(&self, look: &mut dyn FnMut(Seen<'m>, &Scope<'_, 'm>)) {
        self.module.policy.iter().for_each(|rule| self.each(rule, look));
    }
}

/// The scope of what has no variables.
pub(super) fn empty<'s, 'm>() -> Scope<'s, 'm> {
    Scope { around: None, variables: BTreeMap::new() }
}

/// What a variable of a scope stands for; none if it is none.
pub(super) fn local<'m>(name: &str, scope: &Scope<'_, 'm>) -> Option<Meaning<'m>> {
    let mut here = Some(scope);
    while let Some(scope) = here {
        if let Some(meaning) = scope.variables.get(name) {
            return Some(*meaning);
        }
        here = scope.around;
    }
    None
}

/// What a rule's head gives.
pub(super) fn head_values(head: &RuleHead) -> impl Iterator<Item = &Expr> {
    let value = match head {
        RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
            assign.as_ref().map(|assign| &assign.value)
        }
        RuleHead::Set { key, .. } => key.as_ref(),
    };
    value.into_iter().map(AsRef::as_ref)
}

/// What a rule gives where one of its bodies holds.
pub(super) fn body_values<'m>(
    head: &'m RuleHead,
    body: &'m RuleBody,
    at: usize,
) -> impl Iterator<Item = &'m Expr> {
    let own = body.assign.iter().map(|assign| assign.value.as_ref());
    own.chain(head_values(head).filter(move |_| at == 0 || !body.is_else))
}

fn query<'m>(
    query: &'m Query,
    scope: &Scope<'_, 'm>,
    look: &mut dyn FnMut(Seen<'m>, &Scope<'_, 'm>),
) {
    for statement in &query.stmts {
        look(Seen::Statement(statement), scope);
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().chain([value, collection]).for_each(|it| expr(it, scope, look));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                self::expr(expr, scope, look);
            }
            Literal::Every { key, value, domain, query, .. } => {
                expr(domain, scope, look);
                let mut variables = declared(query);
                variables.extend(key.as_ref().map(|key| (key.text(), Meaning::Unknown)));
                variables.insert(value.text(), Meaning::ElementOf(domain));
                self::query(query, &Scope { around: Some(scope), variables }, look);
            }
        }
        for with in &statement.with_mods {
            expr(&with.r#as, scope, look);
        }
    }
}

fn expr<'m>(it: &'m Expr, scope: &Scope<'_, 'm>, look: &mut dyn FnMut(Seen<'m>, &Scope<'_, 'm>)) {
    look(Seen::Expr(it), scope);
    if let Some(inner) = queried(it) {
        let inside = Scope { around: Some(scope), variables: declared(inner) };
        query(inner, &inside, look);
        own_parts(it).for_each(|part| expr(part, &inside, look));
    } else {
        own_parts(it).for_each(|part| expr(part, scope, look));
    }
}

/// The query of a comprehension.
pub(super) fn queried(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::ArrayCompr { query, .. }
        | Expr::SetCompr { query, .. }
        | Expr::ObjectCompr { query, .. } => Some(query),
        _ => None,
    }
}

/// Everything directly in an expression but a query.
pub(super) fn own_parts(expr: &Expr) -> impl Iterator<Item = &Expr> {
    parts(expr).into_iter().filter_map(|part| match part {
        Part::Expr(expr) => Some(expr),
        Part::Query(_) => None,
    })
}

/// From the first byte of an expression to its last, whatever it consists of.
pub(super) fn extent(expr: &Expr) -> Bytes {
    struct Widest(Bytes);
    impl Widest {
        fn take(&mut self, (start, end): Bytes) {
            self.0 = (self.0.0.min(start), self.0.1.max(end));
        }
    }
    impl<'m> Visit<'m> for Widest {
        fn expr(&mut self, expr: &'m Expr) {
            self.take((expr.span().start, expr.span().end));
            match expr {
                Expr::RefDot { field, .. } => self.take((field.0.start, field.0.end)),
                Expr::Call { fcn, .. } => walk::expr(fcn, self),
                _ => {}
            }
        }
    }
    let mut widest = Widest((expr.span().start, expr.span().end));
    walk::expr(expr, &mut widest);
    widest.0
}

/// The variable that a statement assigns, and to what.
pub(super) fn assigned(statement: &LiteralStmt) -> Option<(&str, &Expr)> {
    let Literal::Expr { expr, .. } = &statement.literal else { return None };
    let Expr::AssignExpr { op: AssignOp::ColEq, lhs, rhs, .. } = expr.as_ref() else { return None };
    let Expr::Var { span, .. } = lhs.as_ref() else { return None };
    Some((span.text(), rhs))
}

/// Names of variables of an expression, those of its queries too.
pub(super) fn variables(expr: &Expr) -> BTreeSet<String> {
    #[derive(Default)]
    struct Variables(BTreeSet<String>);
    impl<'m> Visit<'m> for Variables {
        fn expr(&mut self, expr: &'m Expr) {
            if let Expr::Var { span, .. } = expr {
                self.0.insert(span.text().to_owned());
            }
        }
    }
    let mut variables = Variables::default();
    walk::expr(expr, &mut variables);
    variables.0
}

/// All texts that stand in a module.
pub(super) fn texts(module: &Module) -> Vec<String> {
    #[derive(Default)]
    struct Texts(Vec<String>);
    impl<'m> Visit<'m> for Texts {
        fn expr(&mut self, expr: &'m Expr) {
            self.0.extend(text(expr).map(str::to_owned));
        }
    }
    let mut texts = Texts::default();
    walk::module(module, &mut texts);
    texts.0
}

/// Collects names of rules that are read or called.
pub(super) struct Names<'p> {
    package: &'p [String],
    names: BTreeSet<String>,
}

impl Names<'_> {
    fn reference(&mut self, expr: &Expr) {
        let Some((root, segments)) = refs::chain(expr) else { return };
        if root != "data" {
            self.names.insert(root);
            return;
        }
        let mut segments = segments.into_iter().flatten();
        if self.package.iter().all(|name| segments.next().as_ref() == Some(name)) {
            self.names.extend(segments.next());
        }
    }
}

impl<'m> Visit<'m> for Names<'_> {
    fn expr(&mut self, expr: &'m Expr) {
        match expr {
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::Call { fcn, .. } => self.reference(fcn),
            _ => {}
        }
    }
}
