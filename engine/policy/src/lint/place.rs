//! Places in a text, as people and editors count them.

use serde::Serialize;

/// A place between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line from 1.
    pub line: u32,
    /// Column from 1, in characters (Unicode scalar values); a tab is one.
    pub column: u32,
}

/// A stretch of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// The first character.
    pub start: Position,
    /// After the last character.
    pub end: Position,
}

/// How many columns a tab has for the interpreter of Rego.
const TAB: u32 = 4;

/// A text with its lines.
pub(super) struct Text<'a> {
    text: &'a str,
    /// Where each line begins.
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at.saturating_add(1));
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// A line without its break, and where it begins; the last one if there are fewer.
    fn line(&self, line: u32) -> (&'a str, usize) {
        let last = self.starts.len().saturating_sub(1);
        let at = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1).min(last);
        let start = self.starts.get(at).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        (rest.split('\n').next().unwrap_or_default().trim_end_matches('\r'), start)
    }

    /// Where a byte is.
    pub(super) fn position(&self, byte: usize) -> Position {
        let byte = self.text.floor_char_boundary(byte);
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..byte).unwrap_or_default().chars().count();
        let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        Position { line: number(line), column: number(before).saturating_add(1) }
    }

    /// Which byte is there; the end of the line if it is shorter.
    pub(super) fn byte(&self, position: Position) -> usize {
        let (line, start) = self.line(position.line);
        let before = usize::try_from(position.column).unwrap_or(usize::MAX).saturating_sub(1);
        let inside = line.char_indices().nth(before).map_or(line.len(), |(at, _)| at);
        start.saturating_add(inside)
    }

    pub(super) fn span(&self, (start, end): (u32, u32)) -> Span {
        let at = |byte: u32| self.position(usize::try_from(byte).unwrap_or(usize::MAX));
        Span { start: at(start), end: at(end.max(start)) }
    }

    /// The bytes of a text without the quotes around it.
    pub(super) fn unquoted(&self, (start, end): (u32, u32)) -> (u32, u32) {
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let text = range.and_then(|(start, end)| self.text.get(start..end)).unwrap_or_default();
        let quoted =
            text.len() > 2 && ["\"", "`"].iter().any(|q| text.starts_with(q) && text.ends_with(q));
        if quoted { (start.saturating_add(1), end.saturating_sub(1)) } else { (start, end) }
    }

    /// The word at a place that a fault names; the whole line if it names no column. The
    /// interpreter of Rego counts several columns for a tab.
    pub(super) fn word(&self, line: u32, column: Option<u32>, tabs: bool) -> (u32, u32) {
        let (text, start) = self.line(line);
        let number = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        let Some(column) = column else {
            let indent = text.len().saturating_sub(text.trim_start().len());
            let end = text.trim_end().len().max(indent);
            return (number(start.saturating_add(indent)), number(start.saturating_add(end)));
        };
        let mut here = 1_u32;
        let inside = text.char_indices().find(|(_, c)| {
            let before = here;
            here = here.saturating_add(if tabs && *c == '\t' { TAB } else { 1 });
            before >= column
        });
        let at = inside.map_or(text.len(), |(at, _)| at);
        let rest = text.get(at..).unwrap_or_default();
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match rest.chars().next() {
            Some(first) if word(first) => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            Some(first) => first.len_utf8(),
            None => 0,
        };
        let at = start.saturating_add(at);
        (number(at), number(at.saturating_add(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_and_found_again() {
        let text = Text::of("a\u{e9}b\n\tx == y\r\n");
        for byte in [0, 1, 3, 4, 5, 6, 9] {
            assert_eq!(text.byte(text.position(byte)), byte, "{byte}");
        }
        assert_eq!(text.position(6), Position { line: 2, column: 2 });
        // The interpreter says column 5 for what a tab stands before.
        assert_eq!(text.span(text.word(2, Some(5), true)).start, Position { line: 2, column: 2 });
        assert_eq!(text.span(text.word(2, None, true)).end, Position { line: 2, column: 8 });
        assert_eq!(text.span(text.word(99, Some(99), true)).start.line, 3);
    }
}
