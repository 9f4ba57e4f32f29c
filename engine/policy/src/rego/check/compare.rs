//! Comparisons with a literal, of which the answer is always the same.

use regorus::Value;
use regorus::unstable::Expr;

use super::Wrong;
use super::refs::text;
use super::schema::{Form, Node, texts};
use crate::document::nearest;

/// A literal that something is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Constant<'m> {
    Null,
    Bool,
    Number,
    Text(&'m str),
}

impl<'m> Constant<'m> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other kinds of expression say nothing here"
    )]
    pub(super) fn of(expr: &'m Expr) -> Option<Self> {
        match expr {
            Expr::Null { .. } => Some(Self::Null),
            Expr::Bool { value: Value::Bool(_), .. } => Some(Self::Bool),
            Expr::Number { .. } => Some(Self::Number),
            _ => text(expr).map(Self::Text),
        }
    }

    fn is(self, form: Form<'_>) -> bool {
        match self {
            Self::Null => matches!(form, Form::Null),
            Self::Bool => matches!(form, Form::Bool),
            Self::Number => matches!(form, Form::Number),
            Self::Text(_) => matches!(form, Form::Text(_)),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text(_) => "a text",
        }
    }
}

/// Refuses a comparison of which the answer is always the same.
pub(super) fn never(nodes: &[Node<'_>], literal: Constant<'_>, equal: bool) -> Result<(), Wrong> {
    let all: Option<Vec<_>> = nodes.iter().map(Node::forms).collect();
    let Some(forms) = all.map(|all| all.concat()) else { return Ok(()) };
    let path = nodes.first().map_or("input", |node| node.path.as_str());
    if !forms.iter().any(|form| literal.is(*form)) {
        let word =
            forms.iter().find(|form| !matches!(form, Form::Null)).map_or("null", |f| f.word());
        let message = format!("`{path}` is {word}, and is compared with {}", literal.word());
        let hint = format!("compare it with {word}: as it stands, the answer is always the same");
        return Err(Wrong::new(message, hint));
    }
    let Constant::Text(text) = literal else { return Ok(()) };
    let Some(allowed) = texts(&forms).filter(|_| equal) else { return Ok(()) };
    if allowed.contains(text) {
        return Ok(());
    }
    let message = format!("`{path}` is never \"{text}\"");
    let hint = match nearest(text, allowed.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("it is one of {}", allowed.iter().copied().collect::<Vec<_>>().join(", ")),
    };
    Err(Wrong::new(message, hint).meant(text, allowed))
}
