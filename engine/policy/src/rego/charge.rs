//! A policy's text with its charges written into it.
//!
//! The interpreter counts its steps, and looks at no value: comparing two lists is one step, and so
//! is putting a list into two places of another, forty times over. The text that is evaluated
//! therefore has a call around what makes a value larger than its parts, around every product, and
//! around what is compared with something of unknown size. The call gives its argument, weighs it,
//! refuses it above the limits, and adds to the ticks. Where a set may meet an object in a
//! comparison, the calls name a class of values that are compared with one another. Lines stay;
//! columns are told as the author wrote them.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    ArithOp, AssignOp, BUILTINS, BinOp, BoolOp, Expr, Literal, LiteralStmt, Module, Query, Rule,
    RuleAssign, RuleHead, Span,
};

use super::builtins::{CHARGE, FIRST, JOIN, KEYED, SCAN};
use super::check::walk::Part;
use super::check::{self, walk};
use super::source::Scan;
use super::stack;
use crate::error::Fault;

/// Columns that a tab counts as for the interpreter.
const TAB_COLUMNS: u32 = 4;

/// Most definitions of rules in a policy that puts documents or functions in the place of others:
/// each `with` sets all of them aside.
const MAX_REPLACED: usize = 1_000;

/// Built-ins whose result is a number, a truth value or one text that is weighed where it is made.
const SCALARS: [&str; 44] = [
    "abs",
    "bits.and",
    "bits.lsh",
    "bits.negate",
    "bits.or",
    "bits.rsh",
    "bits.xor",
    "ceil",
    "concat",
    "contains",
    "count",
    "crypto.md5",
    "crypto.sha1",
    "crypto.sha256",
    "endswith",
    "floor",
    "format_int",
    "glob.match",
    "indexof",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "lower",
    "product",
    "regex.match",
    "replace",
    "round",
    "semver.compare",
    "sprintf",
    "startswith",
    "strings.count",
    "strings.reverse",
    "substring",
    "sum",
    "time.now_ns",
    "time.parse_rfc3339_ns",
    "to_number",
    "trim",
    "type_name",
    "upper",
];

/// What is put in where: an earlier kind goes before a later one at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Close,
    End,
    Statement,
    Call,
}

/// A text with charges, and where they are.
#[derive(Debug, Clone, Default)]
pub(super) struct Charged {
    /// What is evaluated.
    pub(super) text: String,
    /// By line: at which columns of the charged text something was put in, and how long it is.
    places: BTreeMap<u32, Vec<(u32, u32)>>,
}

impl Charged {
    /// The author's column for a column of the charged text.
    pub(super) fn column(&self, line: u32, column: u32) -> u32 {
        let added = self.places.get(&line).into_iter().flatten();
        let before = added.filter(|(at, _)| *at < column);
        let added = before.map(|(at, length)| (*length).min(column.saturating_sub(*at)));
        column.saturating_sub(added.fold(0, u32::saturating_add)).max(1)
    }
}

/// Writes the charges into the text of a policy that was parsed and checked.
pub(super) fn charge(
    module: &Module,
    text: &str,
    scan: &Scan,
    file: &str,
) -> Result<Charged, Fault> {
    let package = check::refs::path(&module.package.refr).unwrap_or_default();
    let (arity, keyed) = (BTreeMap::new(), BTreeSet::new());
    let mut writer = Writer { scan, text, file, package, added: Vec::new(), arity, keyed };
    for rule in &module.policy {
        if let Rule::Spec {
            head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. }, ..
        } = rule.as_ref()
            && check::refs::names(refr).is_none()
        {
            writer.keyed.extend(check::refs::root(refr));
        }
        if let Rule::Spec { head: RuleHead::Func { refr, args, .. }, .. } = rule.as_ref()
            && let Some(names) = check::refs::names(refr)
        {
            writer.arity.insert(names.join("."), args.len());
        }
    }
    if let (true, Some(rule)) = (scan.replaces, module.policy.get(MAX_REPLACED)) {
        let message = format!("a policy that uses `with` has more than {MAX_REPLACED} rules");
        return Err(writer.refuse(rule.span(), &message, "do without `with`"));
    }
    for rule in &module.policy {
        writer.rule(rule)?;
    }
    Ok(write(text, writer.added))
}

fn write(text: &str, mut added: Vec<(usize, Kind, String)>) -> Charged {
    // Of two calls around the same end, the one that was put in first is the outer.
    added.reverse();
    added.sort_by_key(|(at, kind, _)| (*at, *kind));
    for same in added.chunk_by_mut(|(at, kind, _), (next, other, _)| at == next && kind == other) {
        if same.first().is_some_and(|(_, kind, _)| *kind != Kind::Close) {
            same.reverse();
        }
    }
    let mut charged = Charged::default();
    let (mut line, mut column) = (1_u32, 1_u32);
    let mut added = added.into_iter().peekable();
    for (at, character) in text.char_indices() {
        while let Some((_, _, what)) = added.next_if(|(place, _, _)| *place <= at) {
            let length = u32::try_from(what.len()).unwrap_or(u32::MAX);
            charged.places.entry(line).or_default().push((column, length));
            charged.text.push_str(&what);
            column = column.saturating_add(length);
        }
        charged.text.push(character);
        match character {
            '\n' => (line, column) = (line.saturating_add(1), 1),
            '\t' => column = column.saturating_add(TAB_COLUMNS),
            _ => {
                let width = u32::try_from(character.len_utf8()).unwrap_or(1);
                column = column.saturating_add(width);
            }
        }
    }
    for (_, _, what) in added {
        charged.text.push_str(&what);
    }
    charged
}

struct Writer<'a> {
    scan: &'a Scan,
    text: &'a str,
    file: &'a str,
    package: String,
    added: Vec<(usize, Kind, String)>,
    /// How many arguments the policy's functions take.
    arity: BTreeMap<String, usize>,
    /// Names of rules with keys that a body gives.
    keyed: BTreeSet<String>,
}

/// What a rule's name says of the values that it collects.
struct Head {
    /// The keys that its body gives, as they are written.
    keys: Vec<String>,
    /// All rules that add to the same collection have the same.
    class: String,
}

/// What an expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Its value is used.
    Value,
    /// Its value becomes part of one that is charged as a whole.
    Part,
    /// It binds variables to the parts of another value.
    Pattern,
}

impl Writer<'_> {
    fn wrap(&mut self, expr: &Expr, name: &str, last: &str) {
        let (start, end) = self.bounds(expr);
        self.added.push((start, Kind::Call, format!("{name}(")));
        // The interpreter takes the variables of a call's last argument for bound, and would not
        // loop over them further on: the last one here has none.
        self.added.push((end, Kind::Close, format!(", {last})")));
    }

    fn around(&mut self, expr: &Expr, name: &str) {
        self.wrap(expr, name, "0");
    }

    /// Of two values that are compared by their order, or become one set.
    fn pair(&mut self, lhs: &Expr, rhs: &Expr) -> Result<(), Fault> {
        let (start, _) = self.bounds(lhs);
        let class = quoted(&format!("{}:{start}", self.file));
        self.wrap(lhs, FIRST, &class);
        self.expr(lhs, Role::Part)?;
        self.wrap(rhs, JOIN, &class);
        self.expr(rhs, Role::Part)
    }

    fn bounds(&self, expr: &Expr) -> (usize, usize) {
        bounds(self.scan, expr)
    }

    fn refuse(&self, span: &Span, message: &str, hint: &str) -> Fault {
        Fault::new(self.file, message).at(span.line, Some(span.col)).hint(hint)
    }

    fn rule(&mut self, rule: &Rule) -> Result<(), Fault> {
        let (head, bodies) = match rule {
            Rule::Spec { head, bodies, .. } => (head, bodies),
            Rule::Default { value, .. } if self.plain(value) => return Ok(()),
            Rule::Default { value, .. } => {
                let message = "a default is put together, or has sets or objects in a set";
                return Err(self.refuse(value.span(), message, "use a rule with `else`"));
            }
        };
        let looped = bodies.iter().any(|body| stack::loops(&body.query) > 0);
        let mut keys = None;
        match head {
            RuleHead::Compr { refr, assign, .. } => {
                let head = self.head(refr)?;
                if let (None, Some(call)) = (assign, head.call()) {
                    let value = format!(" := {call}true, {})", head.class);
                    self.added.push((self.end(refr)?, Kind::Close, value));
                }
                self.output(assign.as_ref(), Some(&head), looped)?;
                keys = Some(head);
            }
            RuleHead::Set { refr, key, .. } => {
                let head = self.head(refr)?;
                if let Some(key) = key {
                    self.collected(key, &head)?;
                }
            }
            RuleHead::Func { args, assign, .. } => {
                for argument in args {
                    self.expr(argument, Role::Pattern)?;
                }
                self.output(assign.as_ref(), None, looped)?;
            }
        }
        for body in bodies {
            // Where a body loops, each value is compared with the one before.
            self.output(body.assign.as_ref(), keys.as_ref(), looped)?;
            self.query(&body.query)?;
        }
        Ok(())
    }

    /// A rule's name: which of its keys its body gives.
    fn head(&mut self, name: &Expr) -> Result<Head, Fault> {
        let (mut keys, mut refr) = (Vec::new(), name);
        loop {
            if let Expr::RefDot { refr: inner, .. } = refr {
                refr = inner;
            } else if let Expr::RefBrack { refr: inner, index, .. } = refr {
                if literal(index) && !self.plain(index) || loops(index) {
                    let message = "the key of a rule is put together in its head";
                    let hint = "bind it in the body: `key := [x, y]`, and `name[key]`";
                    return Err(self.refuse(index.span(), message, hint));
                }
                if !self.scalar(index) || !simple(index) {
                    let (start, end) = self.bounds(index);
                    keys.push(self.text.get(start..end).unwrap_or_default().to_owned());
                }
                refr = inner;
            } else {
                break;
            }
        }
        let root = check::refs::root(name).unwrap_or_default();
        let names = check::refs::path(name).filter(|_| !self.keyed.contains(&root));
        let class = format!("{}.{}", self.package, names.unwrap_or(root));
        Ok(Head { keys, class: quoted(&class) })
    }

    fn end(&self, name: &Expr) -> Result<usize, Fault> {
        name_end(self.text, name).ok_or_else(|| {
            let message = "something stands between the key of a rule and its bracket";
            self.refuse(name.span(), message, "write `name[key]`")
        })
    }

    /// What a rule puts into a set.
    fn collected(&mut self, key: &Expr, head: &Head) -> Result<(), Fault> {
        let call = head.call();
        if self.scalar(key) && simple(key) && call.is_none() {
            return self.expr(key, Role::Value);
        }
        self.wrap(key, JOIN, &head.class);
        if let Some(call) = call {
            let (start, end) = self.bounds(key);
            self.added.push((start, Kind::Call, call));
            self.added.push((end, Kind::Close, format!(", {})", head.class)));
        }
        self.expr(key, Role::Part)
    }

    /// What a rule gives. One value under many keys is as much as all of them.
    fn output(
        &mut self,
        assign: Option<&RuleAssign>,
        head: Option<&Head>,
        looped: bool,
    ) -> Result<(), Fault> {
        let Some(assign) = assign else { return Ok(()) };
        if let Some((call, head)) = head.and_then(|head| head.call().zip(Some(head))) {
            let (start, end) = self.bounds(&assign.value);
            self.added.push((start, Kind::Call, call));
            self.added.push((end, Kind::Close, format!(", {})", head.class)));
            return self.expr(&assign.value, Role::Part);
        }
        if looped && self.unknown(&assign.value) {
            self.around(&assign.value, CHARGE);
        }
        self.expr(&assign.value, Role::Value)
    }

    fn query(&mut self, query: &Query) -> Result<(), Fault> {
        let first = query.stmts.first().map(|statement| statement.span.start);
        let braced = first.is_some_and(|first| query.span.start < first);
        query.stmts.iter().try_for_each(|statement| self.statement(statement, braced))
    }

    fn statement(&mut self, statement: &LiteralStmt, braced: bool) -> Result<(), Fault> {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                if let Some(key) = key {
                    self.expr(key, Role::Pattern)?;
                }
                self.expr(value, Role::Pattern)?;
                self.expr(collection, Role::Value)?;
            }
            Literal::Every { domain, query, .. } => {
                self.expr(domain, Role::Value)?;
                self.query(query)?;
            }
            Literal::Expr { expr, .. } => {
                if let Expr::AssignExpr { op: AssignOp::Eq, lhs, rhs, .. } = expr.as_ref() {
                    self.unified(statement, lhs, rhs, braced)?;
                }
                self.expr(expr, Role::Value)?;
            }
            Literal::NotExpr { expr, .. } => {
                // All variables are bound there.
                if let Expr::AssignExpr { lhs, rhs, .. } = expr.as_ref()
                    && !self.scalar(lhs)
                    && !self.scalar(rhs)
                    && self.unknown(lhs)
                {
                    self.around(lhs, CHARGE);
                }
                self.expr(expr, Role::Value)?;
            }
        }
        for modifier in &statement.with_mods {
            let root = check::refs::names(&modifier.refr).and_then(|names| names.first().cloned());
            let document = root.is_some_and(|root| root == "input" || root == "data");
            let name = check::refs::names(&modifier.r#as).map(|names| names.join("."));
            // The name of a function stands for the function there, and is no value.
            let function = name.is_some_and(|name| {
                self.arity.contains_key(own(&name)) || BUILTINS.contains_key(name.as_str())
            });
            if document && !function && self.unknown(&modifier.r#as) {
                self.around(&modifier.r#as, CHARGE);
            }
            self.expr(&modifier.r#as, Role::Value)?;
        }
        Ok(())
    }

    /// `=` may put a value together on either side, or compare two. Variables are charged beside
    /// it, when they are bound.
    fn unified(
        &mut self,
        statement: &LiteralStmt,
        lhs: &Expr,
        rhs: &Expr,
        braced: bool,
    ) -> Result<(), Fault> {
        let may_bind = |expr: &Expr| matches!(expr, Expr::Var { .. }) || literal(expr);
        if self.scalar(lhs) || self.scalar(rhs) {
            return Ok(());
        }
        if !may_bind(lhs) || !may_bind(rhs) {
            // Of a variable and another expression, that one is known.
            let known = if may_bind(lhs) { rhs } else { lhs };
            if self.unknown(known) {
                self.around(known, CHARGE);
            }
            return Ok(());
        }
        if !statement.with_mods.is_empty() {
            let message = "`=` puts values together or compares them under `with`";
            return Err(self.refuse(&statement.span, message, "use `:=` or `==`"));
        }
        let mut names = Vec::new();
        variables(lhs, &mut names);
        variables(rhs, &mut names);
        let brace = if braced { "" } else { "{ " };
        let call = format!("{brace}{CHARGE}([{}], 0); ", names.join(", "));
        self.added.push((offset(statement.span.start), Kind::Statement, call));
        if !braced {
            self.added.push((offset(statement.span.end), Kind::End, " }".to_owned()));
        }
        Ok(())
    }

    fn each<'b>(
        &mut self,
        exprs: impl IntoIterator<Item = &'b Expr>,
        role: Role,
    ) -> Result<(), Fault> {
        exprs.into_iter().try_for_each(|expr| self.expr(expr, role))
    }

    fn expr(&mut self, expr: &Expr, role: Role) -> Result<(), Fault> {
        if role == Role::Value && literal(expr) && !self.plain(expr) {
            self.around(expr, CHARGE);
        }
        let part = if role == Role::Pattern { Role::Pattern } else { Role::Part };
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }
            | Expr::Var { .. }
            | Expr::UnaryExpr { .. } => Ok(()),
            Expr::Array { items, .. } => self.each(items.iter().map(AsRef::as_ref), part),
            Expr::Set { items, .. } => items.iter().try_for_each(|item| match role {
                Role::Pattern => self.expr(item, Role::Pattern),
                Role::Value | Role::Part => self.kept(item),
            }),
            Expr::Object { fields, .. } => fields.iter().try_for_each(|(_, key, value)| {
                match role {
                    Role::Pattern => self.expr(key, Role::Pattern)?,
                    Role::Value | Role::Part => self.kept(key)?,
                }
                self.expr(value, part)
            }),
            Expr::ArrayCompr { term, query, .. } => {
                self.expr(term, Role::Part)?;
                self.query(query)
            }
            Expr::SetCompr { term, query, .. } => {
                self.kept(term)?;
                self.query(query)
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.kept(key)?;
                self.kept(value)?;
                self.query(query)
            }
            Expr::Call { fcn, params, .. } => self.call(fcn, params.iter().map(AsRef::as_ref)),
            Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::BinExpr { op: BinOp::Union, lhs, rhs, .. } => {
                // `[a | b]` would else become a comprehension, with calls on both sides.
                self.around(expr, CHARGE);
                self.pair(lhs, rhs)
            }
            Expr::BinExpr { op: BinOp::Intersection, lhs, rhs, .. } => {
                self.kept(lhs)?;
                self.kept(rhs)
            }
            Expr::BoolExpr { op, lhs, rhs, .. } => self.condition(op, lhs, rhs),
            // It may be the difference of two sets.
            Expr::ArithExpr { op: ArithOp::Sub, lhs, rhs, .. } => self.compared(lhs, rhs),
            Expr::ArithExpr { op, lhs, rhs, .. } => {
                if *op == ArithOp::Mul {
                    self.around(expr, CHARGE);
                }
                self.each([lhs.as_ref(), rhs.as_ref()], Role::Value)
            }
            Expr::AssignExpr { op, lhs, rhs, .. } => self.assigned(op, lhs, rhs),
            Expr::Membership { key, value, collection, .. } => {
                key.iter().try_for_each(|key| self.kept(key))?;
                self.kept(value)?;
                if self.unknown(collection) {
                    self.around(collection, SCAN);
                }
                self.expr(collection, Role::Value)
            }
        }
    }

    /// What goes into a set or becomes a key is compared before the whole is charged.
    fn kept(&mut self, expr: &Expr) -> Result<(), Fault> {
        if self.unknown(expr) {
            self.around(expr, CHARGE);
        }
        self.expr(expr, Role::Value)
    }

    /// Two values of which neither is known to be small are compared in full.
    fn compared(&mut self, lhs: &Expr, rhs: &Expr) -> Result<(), Fault> {
        if !self.scalar(lhs) && !self.scalar(rhs) && (self.unknown(lhs) || self.unknown(rhs)) {
            self.around(if self.unknown(lhs) { lhs } else { rhs }, CHARGE);
        }
        self.each([lhs, rhs], Role::Value)
    }

    fn assigned(&mut self, op: &AssignOp, lhs: &Expr, rhs: &Expr) -> Result<(), Fault> {
        self.expr(lhs, Role::Pattern)?;
        let binds = *op == AssignOp::Eq && literal(rhs) && !self.plain(rhs);
        self.expr(rhs, if binds { Role::Pattern } else { Role::Value })
    }

    /// By their order unless it is for equality: a text or a number meets no set there.
    fn condition(&mut self, op: &BoolOp, lhs: &Expr, rhs: &Expr) -> Result<(), Fault> {
        let equality = matches!(op, BoolOp::Eq | BoolOp::Ne);
        let one = [lhs, rhs].into_iter().any(|side| self.scalar(side) && simple(side));
        if equality || one { self.compared(lhs, rhs) } else { self.pair(lhs, rhs) }
    }

    fn call<'b>(
        &mut self,
        function: &Expr,
        params: impl ExactSizeIterator<Item = &'b Expr>,
    ) -> Result<(), Fault> {
        let name = check::refs::names(function).map(|names| names.join(".")).unwrap_or_default();
        let arity = self.arity.get(own(&name)).copied();
        if arity.is_none() && name == "walk" && params.len() != 2 {
            // The interpreter would find nothing, where OPA finds everything.
            let message = "`walk` without a pattern for what it finds";
            return Err(self.refuse(function.span(), message, "write `walk(x, [path, value])`"));
        }
        let arity = arity.or_else(|| BUILTINS.get(name.as_str()).map(|(_, n)| usize::from(*n)));
        for (at, param) in params.enumerate() {
            // One more argument than a function takes is a pattern for what it gives.
            let role = if Some(at) == arity { Role::Pattern } else { Role::Value };
            self.expr(param, role)?;
        }
        Ok(())
    }

    fn reference(&mut self, expr: &Expr) -> Result<(), Fault> {
        let mut here = expr;
        loop {
            if let Expr::RefDot { refr, .. } = here {
                here = refr;
            } else if let Expr::RefBrack { refr, index, .. } = here {
                self.expr(index, Role::Pattern)?;
                here = refr;
            } else {
                return self.expr(here, Role::Part);
            }
        }
    }

    /// A variable, a reference or a call: a value of unknown size.
    fn unknown(&self, expr: &Expr) -> bool {
        // It is a loop, and gives one element at a time where it stands.
        if let Expr::Call { fcn, .. } = expr
            && check::refs::names(fcn).is_some_and(|names| names == ["walk"])
        {
            return false;
        }
        matches!(
            expr,
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } | Expr::Call { .. }
        ) && !self.scalar(expr)
    }

    /// Known to be a number, a text or the like.
    fn scalar(&self, expr: &Expr) -> bool {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. }
            | Expr::BoolExpr { .. }
            | Expr::UnaryExpr { .. }
            | Expr::Membership { .. } => true,
            Expr::ArithExpr { op, .. } => *op != ArithOp::Sub,
            Expr::Call { fcn, .. } => check::refs::names(fcn).is_some_and(|names| {
                let name = names.join(".");
                // Where a policy has a function of that name, or puts one in its place, it may give
                // anything.
                let built_in = !self.scan.replaces && !self.arity.contains_key(&name);
                built_in && SCALARS.binary_search(&name.as_str()).is_ok()
            }),
            Expr::Array { items, .. } | Expr::Set { items, .. } => items.is_empty(),
            Expr::Object { fields, .. } => fields.is_empty(),
            Expr::Var { .. }
            | Expr::ArrayCompr { .. }
            | Expr::SetCompr { .. }
            | Expr::ObjectCompr { .. }
            | Expr::RefDot { .. }
            | Expr::RefBrack { .. }
            | Expr::BinExpr { .. }
            | Expr::AssignExpr { .. } => false,
        }
    }

    /// Known to hold nothing but what is written there, and to compare no lists, sets or objects.
    fn plain(&self, expr: &Expr) -> bool {
        if let Expr::Array { items, .. } = expr {
            items.iter().all(|item| self.plain(item))
        } else if let Expr::Set { items, .. } = expr {
            items.iter().all(|item| self.scalar(item) && simple(item))
        } else if let Expr::Object { fields, .. } = expr {
            let key = |key: &Expr| self.scalar(key) && simple(key);
            fields.iter().all(|(_, name, value)| key(name) && self.plain(value))
        } else {
            self.scalar(expr)
        }
    }
}

impl Head {
    /// What comes before a value that stands under keys of the body.
    fn call(&self) -> Option<String> {
        let keys = !self.keys.is_empty();
        keys.then(|| format!("{KEYED}([{}], ", self.keys.join(", ")))
    }
}

/// Where an expression begins and ends.
pub(super) fn bounds(scan: &Scan, expr: &Expr) -> (usize, usize) {
    let (start, end) = (offset(expr.span().start), offset(expr.span().end));
    let open = scan.brackets.get(&end.saturating_sub(1)).filter(|_| literal(expr));
    (open.copied().unwrap_or(start), end)
}

/// Where a rule's name ends: the interpreter leaves the last bracket out, and a text's quote.
pub(super) fn name_end(text: &str, name: &Expr) -> Option<usize> {
    let end = offset(name.span().end);
    if !matches!(name, Expr::RefBrack { .. }) {
        return Some(end);
    }
    let rest = text.get(end..).unwrap_or_default();
    let length = ["]", "\"]", "`]"].into_iter().find(|close| rest.starts_with(close));
    length.map(|close| end.saturating_add(close.len()))
}

/// A text as Rego writes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether it goes through values that have no name.
fn loops(expr: &Expr) -> bool {
    let named = !matches!(expr, Expr::Var { span, .. } if span.text() == "_");
    !named
        || walk::parts(expr).into_iter().any(|part| match part {
            Part::Expr(part) => loops(part),
            Part::Query(_) => false,
        })
}

/// Whether it is not written as a list, set or object, be it an empty one.
fn simple(expr: &Expr) -> bool {
    !literal(expr)
}

pub(super) fn offset(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// A function's name without the path of the package: the last segment is enough here, as a name
/// that is too wide only moves a pattern.
fn own(name: &str) -> &str {
    match name.strip_prefix("data.") {
        Some(path) => path.rsplit_once('.').map_or(path, |(_, last)| last),
        None => name,
    }
}

/// A list, set, object or comprehension.
fn literal(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Array { .. }
            | Expr::Set { .. }
            | Expr::Object { .. }
            | Expr::ArrayCompr { .. }
            | Expr::SetCompr { .. }
            | Expr::ObjectCompr { .. }
    )
}

/// The names of the variables in a pattern.
fn variables(expr: &Expr, names: &mut Vec<String>) {
    if let Expr::Var { span, .. } = expr {
        if span.text() != "_" {
            names.push(span.text().to_owned());
        }
    } else if let Expr::Array { items, .. } | Expr::Set { items, .. } = expr {
        items.iter().for_each(|item| variables(item, names));
    } else if let Expr::Object { fields, .. } = expr {
        for (_, key, value) in fields {
            variables(key, names);
            variables(value, names);
        }
    }
}
