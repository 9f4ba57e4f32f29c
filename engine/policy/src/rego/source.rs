//! What a policy's text must keep to before anything parses it.
//!
//! The parser recurses with each bracket, tries each bracket as several things, and writes each
//! number out. A text that would take it, or whoever walks the tree that it gives, too deep is
//! refused here, in one pass that does neither.

use std::collections::BTreeMap;

use super::builtins::{ENGINES_OWN, numbers_are_short};
use crate::error::Fault;

/// Most brackets inside of each other.
const MAX_BRACKETS: usize = 32;
/// Deepest tree of one expression: its operators and brackets inside of each other.
const MAX_LEVELS: usize = 100;
/// Most tokens that the parser looks at, with those that it looks at again: some seconds.
const MAX_LOOKS: u64 = 1 << 25;
/// How often the parser tries what is in a list, set or object: as a comprehension, then as what
/// it is; and a statement as an assignment first.
const TRIES: u64 = 3;

/// What a text has.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Where each bracket that closes is, to where its other one is.
    pub(super) brackets: BTreeMap<usize, usize>,
    /// Whether it puts anything in the place of something else, by `with`.
    pub(super) replaces: bool,
}

/// One bracket that is open.
#[derive(Debug, Default)]
struct Open {
    start: usize,
    tries: u64,
    /// Operators of the expression under way.
    operators: usize,
    /// Levels of the deepest bracket in that expression.
    inside: usize,
    /// Levels of the deepest expression before it.
    deepest: usize,
}

impl Open {
    fn end_expression(&mut self) {
        self.deepest = self.levels();
        (self.operators, self.inside) = (0, 0);
    }

    fn levels(&self) -> usize {
        self.deepest.max(self.operators.saturating_add(self.inside))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operand,
    Operator,
    Separator,
}

/// Reads a text's tokens, only as far as its depth needs.
struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    at: usize,
    line: u32,
    line_start: usize,
    open: Vec<Open>,
    before: Kind,
    looks: u64,
    scan: Scan,
}

/// Refuses a text that would be too deep to parse or to evaluate; tells what it has.
pub(super) fn check(text: &str, file: &str) -> Result<Scan, Fault> {
    let open = vec![Open { tries: 1, ..Open::default() }];
    let before = Kind::Separator;
    let scan = Scan::default();
    let mut reader =
        Reader { file, text, at: 0, line: 1, line_start: 0, open, before, looks: 0, scan };
    while let Some(character) = reader.rest().chars().next() {
        reader.token(character)?;
    }
    Ok(reader.scan)
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn fault(&self, message: String, hint: &str) -> Fault {
        let column = self.at.saturating_sub(self.line_start).saturating_add(1);
        let fault = Fault::new(self.file, message);
        fault.at(self.line, u32::try_from(column).ok()).hint(hint)
    }

    /// Passes over what fits, and gives it.
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        let length = self.rest().find(|next| !fits(next)).unwrap_or(self.rest().len());
        self.at = self.at.saturating_add(length);
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn token(&mut self, character: char) -> Result<(), Fault> {
        match character {
            '\n' => {
                self.at = self.at.saturating_add(1);
                self.line = self.line.saturating_add(1);
                self.line_start = self.at;
                return Ok(());
            }
            '#' => {
                self.take(|next| next != '\n');
                return Ok(());
            }
            _ if character.is_whitespace() => {
                self.at = self.at.saturating_add(character.len_utf8());
                return Ok(());
            }
            _ => {}
        }
        self.look()?;
        match character {
            '(' | '[' | '{' => self.begin(character)?,
            ')' | ']' | '}' => self.end()?,
            '"' => self.text_token(),
            '`' => self.raw_text(),
            '0'..='9' => self.number()?,
            _ if character.is_ascii_alphabetic() || character == '_' => self.word()?,
            ';' | ',' => self.separate(1),
            ':' if self.rest().starts_with(":=") => self.separate(2),
            '=' if !self.rest().starts_with("==") => self.separate(1),
            '+' | '-' | '*' | '/' | '%' | '|' | '&' | '<' | '>' | '=' | '!' => self.operator()?,
            _ => self.at = self.at.saturating_add(character.len_utf8()),
        }
        Ok(())
    }

    /// Counts how often the parser will look at this token.
    fn look(&mut self) -> Result<(), Fault> {
        let tries = self.open.last().map_or(1, |open| open.tries);
        self.looks = self.looks.saturating_add(tries);
        if self.looks <= MAX_LOOKS {
            return Ok(());
        }
        let message = "the text's brackets are too deep for their number".to_owned();
        Err(self.fault(message, "give what is deep inside a name of its own"))
    }

    fn expression(&mut self) -> &mut Open {
        if self.open.is_empty() {
            self.open.push(Open { tries: 1, ..Open::default() });
        }
        self.open.last_mut().expect("one is there always")
    }

    /// A value: where another stands right before it, that one ended an expression.
    fn operand(&mut self) {
        if self.before == Kind::Operand {
            self.expression().end_expression();
        }
        self.before = Kind::Operand;
    }

    fn separate(&mut self, length: usize) {
        self.at = self.at.saturating_add(length);
        self.expression().end_expression();
        self.before = Kind::Separator;
    }

    fn operator(&mut self) -> Result<(), Fault> {
        let two = ["==", "!=", "<=", ">="].iter().any(|two| self.rest().starts_with(two));
        self.at = self.at.saturating_add(if two { 2 } else { 1 });
        let open = self.expression();
        open.operators = open.operators.saturating_add(1);
        self.before = Kind::Operator;
        self.deep_enough()
    }

    fn deep_enough(&self) -> Result<(), Fault> {
        let operators = self.open.iter().map(|open| open.operators);
        let levels = operators.fold(self.open.len(), usize::saturating_add);
        let inside = self.open.last().map_or(0, Open::levels);
        if levels <= MAX_LEVELS && inside <= MAX_LEVELS {
            return Ok(());
        }
        let message = format!("an expression of more than {MAX_LEVELS} levels");
        Err(self.fault(message, "give parts of it names of their own"))
    }

    fn begin(&mut self, bracket: char) -> Result<(), Fault> {
        if self.open.len() > MAX_BRACKETS {
            let message = format!("more than {MAX_BRACKETS} brackets inside of each other");
            return Err(self.fault(message, "give what is deep inside a name of its own"));
        }
        let tries = self.open.last().map_or(1, |open| open.tries);
        let tries = if bracket == '(' { tries } else { tries.saturating_mul(TRIES) };
        self.open.push(Open { start: self.at, tries, ..Open::default() });
        self.at = self.at.saturating_add(1);
        self.before = Kind::Separator;
        self.deep_enough()
    }

    fn end(&mut self) -> Result<(), Fault> {
        // One that closes nothing is the parser's to refuse.
        if self.open.len() > 1
            && let Some(open) = self.open.pop()
        {
            self.scan.brackets.insert(self.at, open.start);
            let levels = open.levels().saturating_add(1);
            let outer = self.expression();
            outer.inside = outer.inside.max(levels);
        }
        self.at = self.at.saturating_add(1);
        self.before = Kind::Operand;
        self.deep_enough()
    }

    fn text_token(&mut self) {
        self.operand();
        let mut escaped = false;
        self.at = self.at.saturating_add(1);
        while let Some(character) = self.rest().chars().next() {
            if character == '\n' {
                // The parser refuses it; here it only must not hide what follows.
                return;
            }
            self.at = self.at.saturating_add(character.len_utf8());
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return,
                _ => {}
            }
        }
    }

    fn raw_text(&mut self) {
        self.operand();
        self.at = self.at.saturating_add(1);
        while let Some(character) = self.rest().chars().next() {
            self.at = self.at.saturating_add(character.len_utf8());
            if character == '\n' {
                self.line = self.line.saturating_add(1);
                self.line_start = self.at;
            } else if character == '`' {
                return;
            }
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        self.operand();
        let start = self.at;
        self.take(|next| next.is_ascii_alphanumeric() || next == '.' || next == '_');
        if self.text.get(start..self.at).is_some_and(|number| number.ends_with(['e', 'E'])) {
            self.take(|next| next == '+' || next == '-');
            self.take(|next| next.is_ascii_alphanumeric());
        }
        let number = self.text.get(start..self.at).unwrap_or_default();
        match numbers_are_short(number) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fault(error.to_string(), "no amount is that long")),
        }
    }

    fn word(&mut self) -> Result<(), Fault> {
        let word = self.take(|next| next.is_ascii_alphanumeric() || next == '_').to_owned();
        if ENGINES_OWN.contains(&word.as_str()) {
            let message = format!("`{word}` is a name of the engine's own");
            return Err(self.fault(message, "use another"));
        }
        if word == "in" {
            let open = self.expression();
            open.operators = open.operators.saturating_add(1);
            self.before = Kind::Operator;
            return self.deep_enough();
        }
        self.scan.replaces |= word == "with";
        self.operand();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        check(text, "a.rego").expect_err("it is too deep").to_string()
    }

    #[test]
    fn what_is_deep_is_refused_before_it_is_parsed() {
        for (text, expected) in [
            (format!("x := {}", "[".repeat(100_000)), "too deep for their number"),
            (format!("x := {}", "f(".repeat(100_000)), "more than 32 brackets"),
            (format!("x := 1{}", "\n+ 1".repeat(100_000)), "a.rego:101:2: an expression of more"),
            (format!("x := {}1", "- ".repeat(100_000)), "an expression of more than 100 levels"),
            (format!("x := {}", "[1 | ".repeat(20)), "too deep for their number"),
            ("x := 1\ny := 1e2000000000".to_owned(), "a.rego:2:18: a number's exponent"),
            (format!("x := {}", "9".repeat(401)), "digits of a number"),
            ("x := [__charge(1)]".to_owned(), "a name of the engine's own"),
        ] {
            let message = fault(&text);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn what_is_long_is_not_deep() {
        let rows = "  {\"a\": 1, \"b\": [1, 2]},\n".repeat(9_000);
        let lines = "a == b\n    x in ys\n    c + 1 < f(d)\n".repeat(5_000);
        let sums = format!("y := a{}", " + b".repeat(60));
        let text =
            format!("# ((((\nx := [\n{rows}]\n`(((`\np if {{\n{lines}}}\n{sums}\n\"(((\\\"(\"");
        let brackets = check(&text, "a.rego").expect("it is fine").brackets;
        let (close, open) = brackets.iter().next_back().expect("there are some");
        assert!(close > open);
        assert_eq!(text.as_bytes()[*open], b'{');
    }
}
