//! Variables that the interpreter binds otherwise than OPA does: it would stay silent where OPA
//! loops or refuses the module. They are refused when a module is loaded.

use std::collections::BTreeSet;

use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Rule, RuleHead, Span};

use super::refs;
use super::walk::{Part, parts};
use super::{Wrong, aliases};
use crate::error::Fault;

/// Most variables that one body binds: the interpreter copies all of them at each turn of a loop,
/// and looks at all pairs of them when a module is loaded.
const MAX_VARIABLES: usize = 256;
/// The variable without a name.
const ANY: &str = "_";

type Names<'m> = BTreeSet<&'m str>;

/// Refuses the first such variable of a module.
pub(super) fn check(module: &Module, file: &str) -> Result<(), Fault> {
    let roots = module.policy.iter().filter_map(|rule| refs::root(refs::defined(rule)));
    let aliases = aliases(module);
    let global: BTreeSet<String> = roots.chain(aliases.into_iter().map(|(name, _)| name)).collect();
    let bodies = Bodies { file, global };
    module.policy.iter().try_for_each(|rule| bodies.rule(rule))
}

struct Bodies<'a> {
    file: &'a str,
    /// Names of rules, functions and imports.
    global: BTreeSet<String>,
}

impl Bodies<'_> {
    fn wrong(&self, span: &Span, message: String, hint: &str) -> Fault {
        Wrong::new(message, hint).place(self.file, span)
    }

    fn rule(&self, rule: &Rule) -> Result<(), Fault> {
        let Rule::Spec { head, bodies, .. } = rule else { return Ok(()) };
        let mut bound = Names::new();
        if let RuleHead::Func { args, .. } = head {
            for argument in args {
                if let Expr::Var { span, .. } = argument.as_ref()
                    && span.text() != ANY
                    && bound.contains(span.text())
                {
                    let message = format!("two arguments are named `{}`", span.text());
                    let hint = "name them apart, and compare them in the body";
                    return Err(self.wrong(span, message, hint));
                }
                variables(argument, &mut bound);
            }
        }
        let around = bound.clone();
        for body in bodies {
            self.query(&body.query, &around)?;
            bound.extend(positive(&body.query));
            if let Some(assign) = &body.assign {
                self.inside(&assign.value, &bound)?;
            }
        }
        match head {
            RuleHead::Compr { assign, .. } | RuleHead::Func { assign, .. } => {
                assign.iter().try_for_each(|assign| self.inside(&assign.value, &bound))
            }
            RuleHead::Set { key, .. } => key.iter().try_for_each(|key| self.inside(key, &bound)),
        }
    }

    fn query(&self, query: &Query, around: &Names<'_>) -> Result<(), Fault> {
        let own = positive(query);
        let declared: usize = query.stmts.iter().map(|statement| binds(statement).len()).sum();
        if declared > MAX_VARIABLES {
            let message = format!("a body binds {declared} variables, at most {MAX_VARIABLES}");
            return Err(self.wrong(&query.span, message, "put some of it into rules or functions"));
        }
        let mut bound = around.clone();
        bound.extend(own);
        for (at, statement) in query.stmts.iter().enumerate() {
            self.statement(statement)?;
            let others = query.stmts.iter().enumerate().filter(|(other, _)| *other != at);
            let mut elsewhere = around.clone();
            elsewhere.extend(binds(statement));
            for (_, other) in others {
                elsewhere.extend(binds(other));
                indices(other, &mut elsewhere);
            }
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::NotExpr { expr, .. } => {
                    self.negated(expr, &bound)?;
                    self.inside(expr, &bound)?;
                }
                Literal::Expr { expr, .. } => {
                    self.given(expr, &elsewhere, &mut Names::new())?;
                    self.inside(expr, &bound)?;
                }
                Literal::SomeIn { collection, .. } => {
                    self.given(collection, &elsewhere, &mut Names::new())?;
                    self.inside(collection, &bound)?;
                }
                Literal::Every { key, value, domain, query, .. } => {
                    self.given(domain, &elsewhere, &mut Names::new())?;
                    self.inside(domain, &bound)?;
                    let mut around = bound.clone();
                    around.extend(key.iter().map(Span::text));
                    around.insert(value.text());
                    self.query(query, &around)?;
                }
            }
        }
        Ok(())
    }

    fn statement(&self, statement: &LiteralStmt) -> Result<(), Fault> {
        if let Literal::SomeVars { vars, .. } = &statement.literal
            && let Some(name) = vars.iter().find(|name| self.global.contains(name.text()))
        {
            // The interpreter takes the rule for the variable, and never loops.
            let message = format!("`some {0}` hides the rule or import `{0}`", name.text());
            return Err(self.wrong(name, message, "rename the variable"));
        }
        // A later `with` makes the interpreter forget that this value was undefined.
        let but_last = statement.with_mods.split_last().map_or(&[][..], |(_, before)| before);
        for modifier in but_last {
            let value = modifier.r#as.as_ref();
            let reference = matches!(value, Expr::RefDot { .. } | Expr::RefBrack { .. });
            let read = refs::root(value).is_some_and(|root| root == "input" || root == "data");
            if reference && read {
                let message = "what `with` puts in may be undefined here".to_owned();
                let hint = "bind it first, `value := ...`, or give it to the last `with`";
                return Err(self.wrong(modifier.r#as.span(), message, hint));
            }
        }
        Ok(())
    }

    /// `not` is evaluated once for each element here, and would hold if it held for any; OPA
    /// refuses it.
    fn negated(&self, expr: &Expr, bound: &Names<'_>) -> Result<(), Fault> {
        if let Expr::RefBrack { index, .. } = expr
            && let Expr::Var { span, .. } = index.as_ref()
        {
            let name = span.text();
            if name == ANY || !(bound.contains(name) || self.global.contains(name)) {
                let message = "`not` looks at each element by itself".to_owned();
                let hint = "put what is negated into a rule and negate that, or use `every`";
                return Err(self.wrong(span, message, hint));
            }
        }
        let parts = parts(expr).into_iter();
        parts.filter_map(expression).try_for_each(|part| self.negated(part, bound))
    }

    /// The last argument of a call binds its variables here, so that an index further on does not
    /// loop over them.
    fn given<'m>(
        &self,
        expr: &'m Expr,
        elsewhere: &Names<'_>,
        given: &mut Names<'m>,
    ) -> Result<(), Fault> {
        if let Expr::Membership { key: Some(key), .. } = expr {
            let message = "a key with `in` also holds for what is undefined here".to_owned();
            return Err(self.wrong(key.span(), message, "write `collection[key] == value`"));
        }
        for part in parts(expr).into_iter().filter_map(expression) {
            self.given(part, elsewhere, given)?;
        }
        if let Expr::RefBrack { index, .. } = expr
            && let Expr::Var { span, .. } = index.as_ref()
            && given.contains(span.text())
        {
            let name = span.text();
            let message = format!("`{name}` is not looped over: a call before takes it as given");
            return Err(self.wrong(span, message, "bind it first, `some name, _ in collection`"));
        }
        if let Expr::Call { params, .. } = expr
            && let Some(last) = params.last()
        {
            let mut names = Names::new();
            variables(last, &mut names);
            names.retain(|name| !elsewhere.contains(name) && !self.global.contains(*name));
            given.extend(names);
        }
        Ok(())
    }

    /// The queries of comprehensions, however deep.
    fn inside(&self, expr: &Expr, bound: &Names<'_>) -> Result<(), Fault> {
        for part in parts(expr) {
            match part {
                Part::Expr(part) => self.inside(part, bound)?,
                Part::Query(query) => self.query(query, bound)?,
            }
        }
        Ok(())
    }
}

fn expression<'m>(part: Part<'m>) -> Option<&'m Expr> {
    match part {
        Part::Expr(expr) => Some(expr),
        Part::Query(_) => None,
    }
}

/// Variables of an expression, queries apart.
fn variables<'m>(expr: &'m Expr, names: &mut Names<'m>) {
    if let Expr::Var { span, .. } = expr {
        names.insert(span.text());
    }
    parts(expr).into_iter().filter_map(expression).for_each(|part| variables(part, names));
}

/// Variables of the statements that are not negated: OPA demands that what is negated has no
/// others.
fn positive(query: &Query) -> Names<'_> {
    let mut names = Names::new();
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { .. } | Literal::NotExpr { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                key.iter().chain([value, collection]).for_each(|it| variables(it, &mut names));
            }
            Literal::Expr { expr, .. } => variables(expr, &mut names),
            Literal::Every { domain, .. } => variables(domain, &mut names),
        }
    }
    names
}

/// Variables that a statement binds by its form.
fn binds(statement: &LiteralStmt) -> Names<'_> {
    let mut names = Names::new();
    match &statement.literal {
        Literal::SomeIn { key, value, .. } => {
            key.iter().chain([value]).for_each(|it| variables(it, &mut names));
        }
        Literal::Expr { expr, .. } => {
            if let Expr::AssignExpr { lhs, .. } = expr.as_ref() {
                variables(lhs, &mut names);
            }
        }
        Literal::SomeVars { .. } | Literal::NotExpr { .. } | Literal::Every { .. } => {}
    }
    names
}

/// Variables by which a statement looks something up.
fn indices<'m>(statement: &'m LiteralStmt, names: &mut Names<'m>) {
    fn inside<'m>(expr: &'m Expr, names: &mut Names<'m>) {
        if let Expr::RefBrack { index, .. } = expr
            && let Expr::Var { span, .. } = index.as_ref()
        {
            names.insert(span.text());
        }
        parts(expr).into_iter().filter_map(expression).for_each(|part| inside(part, names));
    }
    match &statement.literal {
        Literal::Expr { expr, .. } => inside(expr, names),
        Literal::SomeIn { collection, .. } => inside(collection, names),
        Literal::Every { domain, .. } => inside(domain, names),
        Literal::SomeVars { .. } | Literal::NotExpr { .. } => {}
    }
}
