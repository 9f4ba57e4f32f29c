//! `# placet:allow <rule> <reason>`: what an author knows of and means.
//!
//! It speaks of its own line, and of the first line below the comments that it stands in. An error
//! cannot be allowed: the bundle would not load.

use std::collections::BTreeMap;

use super::place::Text;
use super::rules::{RULES, severity};
use super::{Diagnostic, Found, Severity, Span};
use crate::document::nearest;

const MARK: &str = "# placet:allow";
const RULE: &str = "allow";

/// One comment.
struct Allowed<'t> {
    rule: &'t str,
    reason: &'t str,
    span: Span,
    /// Its own line, and that below the comments, from 1.
    lines: [u32; 2],
    used: bool,
}

/// Takes out what is allowed, and tells of comments that allow nothing.
pub(super) fn apply(files: &BTreeMap<String, Vec<u8>>, found: &mut Found) {
    for (file, bytes) in files {
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        if !text.contains(MARK) {
            continue;
        }
        let mut comments = comments(text);
        found.all.retain(|diagnostic| {
            diagnostic.file != *file || !comments.iter_mut().any(|it| it.allows(diagnostic))
        });
        for comment in comments.iter().filter(|comment| !comment.used) {
            tell(file, comment, found);
        }
    }
}

impl Allowed<'_> {
    fn allows(&mut self, diagnostic: &Diagnostic) -> bool {
        let here = diagnostic.span.is_some_and(|span| self.lines.contains(&span.start.line));
        let same = diagnostic.rule == self.rule && diagnostic.severity == Severity::Warning;
        let allows = here && same && !self.reason.is_empty();
        self.used |= allows;
        allows
    }
}

fn comments(text: &str) -> Vec<Allowed<'_>> {
    let places = Text::of(text);
    let lines: Vec<&str> = text.lines().collect();
    let comment = |line: &&str| line.trim_start().starts_with('#');
    let mut all = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(column) = line.rfind(MARK) else { continue };
        let rest = line.get(column.saturating_add(MARK.len())..).unwrap_or_default();
        if !rest.is_empty() && !rest.starts_with(char::is_whitespace) {
            continue;
        }
        let rest = rest.trim();
        let (rule, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let below = lines.iter().skip(at).take_while(|line| comment(line)).count();
        let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        let own = number(at.saturating_add(1));
        let below = number(at.saturating_add(below).saturating_add(1));
        let start = places.byte(super::Position { line: own, column: 1 }).saturating_add(column);
        let end = start.saturating_add(line.len().saturating_sub(column));
        let span = Span { start: places.position(start), end: places.position(end) };
        let rule = rule.trim_end_matches(':');
        all.push(Allowed { rule, reason: reason.trim(), span, lines: [own, below], used: false });
    }
    all
}

/// Why a comment allowed nothing.
fn tell(file: &str, comment: &Allowed<'_>, found: &mut Found) {
    let Allowed { rule, reason, span, .. } = comment;
    let known = RULES.iter().map(|rule| rule.id);
    let (message, hint) = if !known.clone().any(|id| id == *rule) {
        let hint = match nearest(rule, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "write `# placet:allow <rule> <reason>`".to_owned(),
        };
        (format!("`{rule}` is no rule"), hint)
    } else if severity(rule) == Severity::Error {
        let hint = "mend it: a bundle with an error does not load".to_owned();
        (format!("`{rule}` is an error, which cannot be allowed"), hint)
    } else if reason.is_empty() {
        let hint = "write why after the rule's name, for those who read it later".to_owned();
        (format!("no reason is given to allow `{rule}`"), hint)
    } else {
        (format!("nothing here is told as `{rule}`"), "remove the comment".to_owned())
    };
    found.warn(RULE, file, Some(*span), message, hint);
}
