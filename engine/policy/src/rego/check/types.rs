//! What a policy reads, held against the schemas of the input and of the params.
//!
//! A field that can never be there is undefined for ever, and the rule that reads it never holds:
//! a typing error would open a door. Types follow variables, rules and imports. What is not known
//! for certain is never an error.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    AssignOp, BoolOp, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleBody, RuleHead, Span,
};
use serde_json::Value as Json;

use super::compare::{Constant, never};
use super::refs::{self, text};
use super::schema::{Node, Type, elements, step};
use super::scope::{Meaning, Scope, arguments, declared};
use super::walk::{Part, parts};
use super::{Params, Wrong};
use crate::document::nearest;
use crate::error::Fault;

/// Deepest chain of variables and rules that is followed.
const MAX_FOLLOWED: usize = 24;

/// A type that was worked out, or is being.
#[derive(Debug, Clone)]
enum Known<'a> {
    InWork,
    Done(Type<'a>),
}

/// The types of one module.
pub(in crate::rego) struct Types<'m, 'a> {
    module: &'m Module,
    file: &'m str,
    package: Vec<String>,
    input: &'a Json,
    params: &'a Params,
    rules: RefCell<BTreeMap<String, Known<'a>>>,
    negated: bool,
}

impl<'m, 'a: 'm> Types<'m, 'a> {
    pub(in crate::rego) fn new(
        module: &'m Module,
        file: &'m str,
        input: &'a Json,
        params: &'a Params,
    ) -> Self {
        Self {
            module,
            file,
            package: refs::names(&module.package.refr).unwrap_or_default(),
            input,
            params,
            rules: RefCell::default(),
            negated: false,
        }
    }

    /// Checks every import and rule.
    pub(super) fn check(&mut self) -> Result<(), Fault> {
        self.all().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that is wrong with imports and rules, at most one fault of each statement.
    pub(super) fn all(&mut self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for import in &self.module.imports {
            let imported = refs::names(&import.refr).map(|path| self.imported(&path));
            if let Some(Err(wrong)) = imported {
                faults.push(self.place(wrong, &import.span));
            }
        }
        for rule in &self.module.policy {
            match rule.as_ref() {
                Rule::Spec { head, bodies, .. } => self.rule(head, bodies, &mut faults),
                Rule::Default { value, .. } => {
                    let scope = Scope { around: None, variables: BTreeMap::new() };
                    faults.extend(self.expr(value, &scope).err());
                }
            }
        }
        faults
    }

    fn rule(&mut self, head: &'m RuleHead, bodies: &'m [RuleBody], faults: &mut Vec<Fault>) {
        let arguments = arguments(head);
        if bodies.is_empty() {
            faults.extend(self.head(head, &arguments).err());
        }
        for body in bodies {
            let scope = Scope { around: Some(&arguments), variables: declared(&body.query) };
            let value = match &body.assign {
                Some(assign) => self.expr(&assign.value, &scope),
                None => self.head(head, &scope),
            };
            faults.extend(value.err());
            for statement in &body.query.stmts {
                faults.extend(self.statement(statement, &scope).err());
            }
        }
    }

    fn head(&mut self, head: &'m RuleHead, scope: &Scope<'_, 'm>) -> Result<(), Fault> {
        let value = match head {
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                assign.as_ref().map(|assign| &assign.value)
            }
            RuleHead::Set { key, .. } => key.as_ref(),
        };
        value.map_or(Ok(()), |value| self.expr(value, scope))
    }

    fn statements(&mut self, query: &'m Query, scope: &Scope<'_, 'm>) -> Result<(), Fault> {
        query.stmts.iter().try_for_each(|statement| self.statement(statement, scope))
    }

    fn statement(&mut self, it: &'m LiteralStmt, scope: &Scope<'_, 'm>) -> Result<(), Fault> {
        if !it.with_mods.is_empty() {
            // What it reads is what the modifiers put there.
            return it.with_mods.iter().try_for_each(|with| self.expr(&with.r#as, scope));
        }
        match &it.literal {
            Literal::SomeVars { .. } => Ok(()),
            Literal::SomeIn { value, collection, .. } => {
                self.expr(collection, scope)?;
                self.member(value, collection, scope)
            }
            Literal::Expr { expr, .. } => self.expr(expr, scope),
            Literal::NotExpr { expr, .. } => {
                let before = std::mem::replace(&mut self.negated, true);
                let result = self.expr(expr, scope);
                self.negated = before;
                result
            }
            Literal::Every { key, value, domain, query, .. } => {
                self.expr(domain, scope)?;
                let mut variables = declared(query);
                variables.extend(key.as_ref().map(|key| (key.text(), Meaning::Unknown)));
                variables.insert(value.text(), Meaning::ElementOf(domain));
                self.statements(query, &Scope { around: Some(scope), variables })
            }
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other kinds of expression say nothing here"
    )]
    fn expr(&mut self, expr: &'m Expr, scope: &Scope<'_, 'm>) -> Result<(), Fault> {
        if let Expr::ArrayCompr { query, .. }
        | Expr::SetCompr { query, .. }
        | Expr::ObjectCompr { query, .. } = expr
        {
            let inner = Scope { around: Some(scope), variables: declared(query) };
            self.statements(query, &inner)?;
            return self.parts(expr, &inner);
        }
        if matches!(expr, Expr::RefDot { .. } | Expr::RefBrack { .. }) {
            self.data(expr).map_err(|wrong| self.place(wrong, expr.span()))?;
            return self.steps(expr, scope);
        }
        self.parts(expr, scope)?;
        match expr {
            Expr::Call { fcn, params, .. } => {
                let [of, key, _default] = params.as_slice() else { return Ok(()) };
                if refs::path(fcn).as_deref() != Some("object.get") {
                    return Ok(());
                }
                let Some(name) = text(key) else { return Ok(()) };
                let before = std::mem::replace(&mut self.negated, true);
                let result = self.read(of, name, key.span(), scope);
                self.negated = before;
                result
            }
            Expr::BoolExpr { op, lhs, rhs, .. } => {
                let equal = matches!(op, BoolOp::Eq | BoolOp::Ne);
                self.compared(lhs, rhs, equal, scope)
            }
            Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } => {
                self.compared(lhs, rhs, true, scope)
            }
            Expr::Membership { value, collection, .. } => self.member(value, collection, scope),
            _ if is_data(expr) => Err(self.place(whole_data(), expr.span())),
            _ => Ok(()),
        }
    }

    /// Everything directly in an expression, but for the queries of comprehensions.
    fn parts(&mut self, expr: &'m Expr, scope: &Scope<'_, 'm>) -> Result<(), Fault> {
        for part in parts(expr) {
            if let Part::Expr(part) = part {
                self.expr(part, scope)?;
            }
        }
        Ok(())
    }

    /// The steps of a reference, the first one first.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other kinds of expression say nothing here"
    )]
    fn steps(&mut self, expr: &'m Expr, scope: &Scope<'_, 'm>) -> Result<(), Fault> {
        match expr {
            Expr::RefDot { refr, field, .. } => {
                self.steps(refr, scope)?;
                self.read(refr, field.0.text(), &field.0, scope)
            }
            Expr::RefBrack { refr, index, .. } => {
                self.steps(refr, scope)?;
                self.expr(index, scope)?;
                text(index).map_or(Ok(()), |name| self.read(refr, name, index.span(), scope))
            }
            _ if is_data(expr) => Ok(()),
            _ => self.expr(expr, scope),
        }
    }

    fn read(
        &self,
        of: &'m Expr,
        name: &str,
        span: &Span,
        scope: &Scope<'_, 'm>,
    ) -> Result<(), Fault> {
        let Type::Of(nodes) = self.type_of(of, scope, 0) else { return Ok(()) };
        match step(&nodes, name) {
            Ok(_) => Ok(()),
            Err(_) if self.excused(&nodes) => Ok(()),
            Err(wrong) => Err(self.place(wrong, span)),
        }
    }

    /// Whether an absent field is what the policy asks about.
    fn excused(&self, nodes: &[Node<'a>]) -> bool {
        let of_params = nodes.iter().any(|node| node.path.starts_with("data.params"));
        self.negated && of_params && !self.params.exact
    }

    /// A policy sees its own rules and its params of `data`, and nothing else.
    fn data(&self, expr: &Expr) -> Result<(), Wrong> {
        let Some((root, segments)) = refs::chain(expr) else { return Ok(()) };
        if root != "data" {
            return Ok(());
        }
        let Some(Some(first)) = segments.first() else { return Err(whole_data()) };
        if first == "params" {
            return Ok(());
        }
        let known: Vec<&str> = segments.iter().map_while(Option::as_deref).collect();
        let written = format!("data.{}", known.join("."));
        let mut pairs = segments.iter().zip(&self.package);
        if !pairs.all(|(one, other)| one.as_ref() == Some(other)) {
            let message = format!("`{written}` is nothing that a policy has");
            let hint = "a policy sees `input`, `data.params` and its own rules";
            return Err(Wrong::new(message, hint));
        }
        let Some(Some(rule)) = segments.get(self.package.len()) else {
            let message = format!("`{written}` is the policy as a whole");
            return Err(Wrong::new(message, "name the rule that is meant"));
        };
        let rules = self.module.policy.iter();
        let known: BTreeSet<_> = rules.filter_map(|rule| refs::root(refs::defined(rule))).collect();
        if known.contains(rule) {
            return Ok(());
        }
        let hint = match nearest(rule, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "define it in the policy".into(),
        };
        Err(Wrong::new(format!("`{written}` is no rule of this policy"), hint))
    }

    fn place(&self, wrong: Wrong, span: &Span) -> Fault {
        wrong.place(self.file, span)
    }

    /// Holds what is compared against what each side can be.
    fn compared(
        &self,
        lhs: &'m Expr,
        rhs: &'m Expr,
        equal: bool,
        scope: &Scope<'_, 'm>,
    ) -> Result<(), Fault> {
        for (one, other) in [(lhs, rhs), (rhs, lhs)] {
            let Some(literal) = Constant::of(other) else { continue };
            let Type::Of(nodes) = self.type_of(one, scope, 0) else { continue };
            let never = never(&nodes, literal, equal);
            never.map_err(|wrong| self.place(wrong, other.span()).of_rule("type"))?;
        }
        Ok(())
    }

    /// The same for `value in collection`.
    fn member(
        &self,
        value: &'m Expr,
        collection: &'m Expr,
        scope: &Scope<'_, 'm>,
    ) -> Result<(), Fault> {
        if let Some(literal) = Constant::of(value)
            && let Type::Of(nodes) = elements(&self.type_of(collection, scope, 0))
        {
            let never = never(&nodes, literal, true);
            never.map_err(|wrong| self.place(wrong, value.span()).of_rule("type"))?;
        }
        let (Expr::Array { items, .. } | Expr::Set { items, .. }) = collection else {
            return Ok(());
        };
        let Type::Of(nodes) = self.type_of(value, scope, 0) else { return Ok(()) };
        for item in items {
            if let Some(literal) = Constant::of(item) {
                let never = never(&nodes, literal, true);
                never.map_err(|wrong| self.place(wrong, item.span()).of_rule("type"))?;
            }
        }
        Ok(())
    }

    /// What is known of an expression's value.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other kinds of expression say nothing here"
    )]
    pub(in crate::rego) fn type_of(
        &self,
        expr: &'m Expr,
        scope: &Scope<'_, 'm>,
        followed: usize,
    ) -> Type<'a> {
        if followed > MAX_FOLLOWED {
            return Type::Unknown;
        }
        let followed = followed + 1;
        match expr {
            Expr::Var { span, .. } => self.variable(span.text(), scope, followed),
            Expr::RefDot { refr, field, .. } => self
                .own_rule(expr)
                .unwrap_or_else(|| self.field(refr, Some(field.0.text()), scope, followed)),
            Expr::RefBrack { refr, index, .. } => self
                .own_rule(expr)
                .unwrap_or_else(|| self.field(refr, text(index), scope, followed)),
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                let inner = Scope { around: Some(scope), variables: declared(query) };
                Type::Made(Box::new(self.type_of(term, &inner, followed)))
            }
            _ => Type::Unknown,
        }
    }

    /// A rule by its full name, or the params.
    fn own_rule(&self, expr: &'m Expr) -> Option<Type<'a>> {
        let names = refs::names(expr)?;
        let (root, rest) = names.split_first()?;
        if root != "data" {
            return None;
        }
        if rest == ["params"] {
            return Some(Type::Of(vec![Node::root(&self.params.schema, "data.params")]));
        }
        let rule = rest.strip_prefix(self.package.as_slice())?;
        if let [rule] = rule { Some(self.rule_type(rule)) } else { None }
    }

    fn field(
        &self,
        of: &'m Expr,
        name: Option<&str>,
        scope: &Scope<'_, 'm>,
        followed: usize,
    ) -> Type<'a> {
        let of = self.type_of(of, scope, followed);
        match (name, &of) {
            (Some(name), Type::Of(nodes)) => step(nodes, name).unwrap_or(Type::Unknown),
            (None, _) => elements(&of),
            (Some(_), Type::Unknown | Type::Made(_)) => Type::Unknown,
        }
    }

    fn variable(&self, name: &str, scope: &Scope<'_, 'm>, followed: usize) -> Type<'a> {
        let mut here = Some(scope);
        while let Some(scope) = here {
            match scope.variables.get(name) {
                None => here = scope.around,
                Some(Meaning::Unknown) => return Type::Unknown,
                Some(Meaning::Is(expr)) => return self.type_of(expr, scope, followed),
                Some(Meaning::ElementOf(expr)) => {
                    return elements(&self.type_of(expr, scope, followed));
                }
            }
        }
        if name == "input" {
            return Type::Of(vec![Node::root(self.input, "input")]);
        }
        for import in &self.module.imports {
            let Some(path) = refs::names(&import.refr) else { continue };
            let known_as = import
                .r#as
                .as_ref()
                .map_or(path.last().map(String::as_str), |name| Some(name.text()));
            if known_as == Some(name) {
                return self.imported(&path).unwrap_or(Type::Unknown);
            }
        }
        self.rule_type(name)
    }

    fn imported(&self, path: &[String]) -> Result<Type<'a>, Wrong> {
        let (root, rest) = match path {
            [root, rest @ ..] if root == "input" => (Node::root(self.input, "input"), rest),
            [root, params, rest @ ..] if root == "data" && params == "params" => {
                (Node::root(&self.params.schema, "data.params"), rest)
            }
            _ => return Ok(Type::Unknown),
        };
        let mut here = Type::Of(vec![root]);
        for name in rest {
            let Type::Of(nodes) = &here else { return Ok(Type::Unknown) };
            here = step(nodes, name)?;
        }
        Ok(here)
    }

    /// What a rule can be, by all its definitions together.
    fn rule_type(&self, name: &str) -> Type<'a> {
        if let Some(known) = self.rules.borrow().get(name) {
            return match known {
                // It depends on itself: an error of its own.
                Known::InWork => Type::Unknown,
                Known::Done(done) => done.clone(),
            };
        }
        self.rules.borrow_mut().insert(name.to_owned(), Known::InWork);
        let mut nodes: Vec<Node<'a>> = Vec::new();
        let (mut made, mut unknown) = (None, false);
        for rule in &self.module.policy {
            if refs::root(refs::defined(rule)).as_deref() != Some(name) {
                continue;
            }
            for one in self.definitions(rule) {
                match one {
                    Type::Of(more) => nodes.extend(more),
                    Type::Made(of) if made.is_none() => made = Some(of),
                    Type::Unknown | Type::Made(_) => unknown = true,
                }
            }
        }
        let result = match (made, nodes.is_empty(), unknown) {
            (None, false, false) => Type::Of(nodes),
            (Some(of), true, false) => Type::Made(of),
            _ => Type::Unknown,
        };
        self.rules.borrow_mut().insert(name.to_owned(), Known::Done(result.clone()));
        result
    }

    fn definitions(&self, rule: &'m Rule) -> Vec<Type<'a>> {
        let Rule::Spec { head, bodies, .. } = rule else { return vec![Type::Unknown] };
        let RuleHead::Compr { refr, assign, .. } = head else { return vec![Type::Unknown] };
        if !matches!(refr.as_ref(), Expr::Var { .. }) {
            return vec![Type::Unknown];
        }
        let empty = Scope { around: None, variables: BTreeMap::new() };
        let of = |value: Option<&'m Expr>, scope: &Scope<'_, 'm>| {
            value.map_or(Type::Unknown, |value| self.type_of(value, scope, 0))
        };
        let value = assign.as_ref().map(|assign| assign.value.as_ref());
        if bodies.is_empty() {
            return vec![of(value, &empty)];
        }
        let of_body = |body: &'m RuleBody| {
            let scope = Scope { around: None, variables: declared(&body.query) };
            let own = body.assign.as_ref().map(|assign| assign.value.as_ref());
            of(if body.is_else { own } else { own.or(value) }, &scope)
        };
        bodies.iter().map(of_body).collect()
    }
}

fn is_data(expr: &Expr) -> bool {
    matches!(expr, Expr::Var { span, .. } if span.text() == "data")
}

fn whole_data() -> Wrong {
    let message = "`data` as a whole holds what a policy does not have".to_owned();
    Wrong::new(message, "read `data.params.<name>`")
}
