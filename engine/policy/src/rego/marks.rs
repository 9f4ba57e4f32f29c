//! A policy's text with a mark at what each definition gives, for coverage.
//!
//! A mark is a call that gives its argument and notes which definition it stands in: it is reached
//! where the body holds and the value is defined. Lines stay; columns do not.

use std::sync::Arc;

use regorus::unstable::{Expr, Module, Rule, RuleAssign, RuleBody, RuleHead, Span};
use regorus::{Engine, Value};

use super::charge::{self, Charged};
use super::check::refs;
use super::{Parsed, parse};
use crate::coverage::{Definition, Part, Record};
use crate::error::Fault;

/// The name of the call. It takes the value, and the position of the definition.
const SEEN: &str = "__seen";

/// Adds a module to an interpreter, with marks and charges, and has the interpreter keep the lines
/// that it comes by.
pub(super) fn add(
    engine: &mut Engine,
    file: &str,
    source: &str,
    parsed: &Parsed,
    record: &Arc<Record>,
) -> Result<Charged, Fault> {
    let mut writer = Writer { parsed, source, file, added: Vec::new(), definitions: Vec::new() };
    writer.module(&parsed.module)?;
    let Writer { added, definitions, .. } = writer;
    let marked = write(source, added);
    record.define(definitions);
    let charged = super::add(engine, file, &marked, &parse(file, &marked)?)?;
    let record = Arc::clone(record);
    let seen = move |mut given: Vec<Value>| {
        let position = given.pop().and_then(|position| position.as_u64().ok());
        record.mark(position.and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX));
        Ok(given.pop().unwrap_or(Value::Undefined))
    };
    engine
        .add_extension(SEEN.to_owned(), 2, Box::new(seen))
        .expect("no other built-in has the name");
    engine.set_enable_coverage(true);
    Ok(charged)
}

/// Hands what the interpreter came by in one evaluation to the record, and forgets it.
pub(super) fn end(engine: &mut Engine, file: &str, record: &Record) {
    let report = engine.get_coverage_report().unwrap_or_default();
    let of_file = report.files.iter().find(|other| other.path == file);
    let none = Default::default();
    let (covered, missed) = of_file.map_or((&none, &none), |it| (&it.covered, &it.not_covered));
    record.end(covered, missed);
    engine.clear_coverage_data();
}

fn write(source: &str, mut added: Vec<(usize, String)>) -> String {
    added.sort_by_key(|(at, _)| *at);
    let mut text = String::with_capacity(source.len().saturating_mul(2));
    let mut from = 0_usize;
    for (at, what) in added {
        text.push_str(source.get(from..at).unwrap_or_default());
        text.push_str(&what);
        from = at;
    }
    text.push_str(source.get(from..).unwrap_or_default());
    text
}

struct Writer<'a> {
    parsed: &'a Parsed,
    source: &'a str,
    file: &'a str,
    added: Vec<(usize, String)>,
    definitions: Vec<Definition>,
}

impl Writer<'_> {
    fn module(&mut self, module: &Module) -> Result<(), Fault> {
        module.policy.iter().try_for_each(|rule| self.rule(rule))
    }

    fn rule(&mut self, rule: &Rule) -> Result<(), Fault> {
        let (name, span) = (refs::defined(rule), rule.span());
        let rule_name = refs::path(name).or_else(|| refs::root(name)).unwrap_or_default();
        let Rule::Spec { head, bodies, .. } = rule else {
            self.define(&rule_name, span, Part::Default);
            return Ok(());
        };
        let position = self.define(&rule_name, span, Part::Body);
        match head {
            RuleHead::Compr { assign: Some(RuleAssign { value, .. }), .. }
            | RuleHead::Func { assign: Some(RuleAssign { value, .. }), .. }
            | RuleHead::Set { key: Some(value), .. } => self.around(value, position),
            RuleHead::Compr { assign: None, refr, .. } => {
                let end = charge::name_end(self.source, refr);
                let end = end.ok_or_else(|| self.unclear(refr.span()))?;
                self.value(end, position);
            }
            RuleHead::Func { assign: None, span, .. } => {
                self.value(charge::offset(span.end), position);
            }
            RuleHead::Set { key: None, .. } => {}
        }
        for RuleBody { span, assign, .. } in bodies.iter().filter(|body| body.is_else) {
            let position = self.define(&rule_name, span, Part::Else);
            match assign {
                Some(RuleAssign { value, .. }) => self.around(value, position),
                None => {
                    let end = charge::offset(span.start).saturating_add("else".len());
                    self.value(end, position);
                }
            }
        }
        Ok(())
    }

    fn define(&mut self, rule: &str, span: &Span, part: Part) -> usize {
        self.definitions.push(Definition { rule: rule.to_owned(), line: span.line, part });
        self.definitions.len().saturating_sub(1)
    }

    /// Marks a value that is written down.
    fn around(&mut self, value: &Expr, position: usize) {
        let (start, end) = charge::bounds(&self.parsed.scan, value);
        // The interpreter's place of a text is without its quotes.
        let quotes = usize::from(matches!(value, Expr::String { .. } | Expr::RawString { .. }));
        let (start, end) = (start.saturating_sub(quotes), end.saturating_add(quotes));
        self.added.push((start, format!("{SEEN}(")));
        self.added.push((end, format!(", {position})")));
    }

    /// Marks the value that a definition has without one written down.
    fn value(&mut self, at: usize, position: usize) {
        self.added.push((at, format!(" := {SEEN}(true, {position})")));
    }

    fn unclear(&self, span: &Span) -> Fault {
        let fault = Fault::new(self.file, "something stands between the key of a rule and its end");
        fault.at(span.line, Some(span.col)).hint("write `name[key]`")
    }
}
