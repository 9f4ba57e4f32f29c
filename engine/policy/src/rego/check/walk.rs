//! Every part of a module once, in the order of the text.

use regorus::unstable::{Expr, Literal, LiteralStmt, Module, Query, Rule, RuleHead};

/// What looks at the parts of a module. What is inside a part is walked after it.
pub(in crate::rego) trait Visit<'m> {
    /// A rule.
    fn rule(&mut self, _rule: &'m Rule) {}
    /// A statement of a body or of a comprehension.
    fn statement(&mut self, _statement: &'m LiteralStmt) {}
    /// A body, or what follows the bar of a comprehension.
    fn query(&mut self, _query: &'m Query) {}
    /// An expression, however deep.
    fn expr(&mut self, _expr: &'m Expr) {}
}

/// Shows a module to a visitor.
pub(in crate::rego) fn module<'m>(module: &'m Module, visitor: &mut impl Visit<'m>) {
    for rule in &module.policy {
        self::rule(rule, visitor);
    }
}

/// Shows one rule to a visitor.
pub(in crate::rego) fn rule<'m>(rule: &'m Rule, visitor: &mut impl Visit<'m>) {
    visitor.rule(rule);
    match rule {
        Rule::Spec { head, bodies, .. } => {
            match head {
                RuleHead::Compr { refr, assign, .. } => {
                    expr(refr, visitor);
                    exprs(assign.iter().map(|assign| assign.value.as_ref()), visitor);
                }
                RuleHead::Set { refr, key, .. } => {
                    expr(refr, visitor);
                    exprs(key.iter().map(AsRef::as_ref), visitor);
                }
                RuleHead::Func { args, assign, .. } => {
                    exprs(args.iter().map(AsRef::as_ref), visitor);
                    exprs(assign.iter().map(|assign| assign.value.as_ref()), visitor);
                }
            }
            for body in bodies {
                exprs(body.assign.iter().map(|assign| assign.value.as_ref()), visitor);
                query(&body.query, visitor);
            }
        }
        Rule::Default { args, value, .. } => {
            exprs(args.iter().map(AsRef::as_ref), visitor);
            expr(value, visitor);
        }
    }
}

fn query<'m>(query: &'m Query, visitor: &mut impl Visit<'m>) {
    visitor.query(query);
    for statement in &query.stmts {
        visitor.statement(statement);
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                exprs(key.iter().map(AsRef::as_ref), visitor);
                exprs([value.as_ref(), collection.as_ref()], visitor);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => {
                self::expr(expr, visitor);
            }
            Literal::Every { domain, query, .. } => {
                expr(domain, visitor);
                self::query(query, visitor);
            }
        }
        for modifier in &statement.with_mods {
            exprs([modifier.refr.as_ref(), modifier.r#as.as_ref()], visitor);
        }
    }
}

fn exprs<'m>(exprs: impl IntoIterator<Item = &'m Expr>, visitor: &mut impl Visit<'m>) {
    for expr in exprs {
        self::expr(expr, visitor);
    }
}

/// Shows an expression and all that is in it to a visitor. The depth is bounded by the parser's.
pub(in crate::rego) fn expr<'m>(expr: &'m Expr, visitor: &mut impl Visit<'m>) {
    visitor.expr(expr);
    for part in parts(expr) {
        match part {
            Part::Expr(expr) => self::expr(expr, visitor),
            Part::Query(query) => self::query(query, visitor),
        }
    }
}

/// What an expression consists of.
pub(in crate::rego) enum Part<'m> {
    /// An expression.
    Expr(&'m Expr),
    /// The query of a comprehension.
    Query(&'m Query),
}

/// The parts directly in an expression. The name of a called function is not one.
pub(in crate::rego) fn parts(expr: &Expr) -> Vec<Part<'_>> {
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => Vec::new(),
        Expr::Array { items, .. } | Expr::Set { items, .. } => {
            items.iter().map(|item| Part::Expr(item)).collect()
        }
        Expr::Object { fields, .. } => {
            fields.iter().flat_map(|(_, key, value)| [Part::Expr(key), Part::Expr(value)]).collect()
        }
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
            vec![Part::Expr(term), Part::Query(query)]
        }
        Expr::ObjectCompr { key, value, query, .. } => {
            vec![Part::Expr(key), Part::Expr(value), Part::Query(query)]
        }
        Expr::Call { params, .. } => params.iter().map(|param| Part::Expr(param)).collect(),
        Expr::UnaryExpr { expr, .. } => vec![Part::Expr(expr)],
        Expr::RefDot { refr, .. } => vec![Part::Expr(refr)],
        Expr::RefBrack { refr, index, .. } => vec![Part::Expr(refr), Part::Expr(index)],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![Part::Expr(lhs), Part::Expr(rhs)],
        Expr::Membership { key, value, collection, .. } => {
            let key = key.iter().map(|key| Part::Expr(key));
            key.chain([Part::Expr(value), Part::Expr(collection)]).collect()
        }
    }
}
