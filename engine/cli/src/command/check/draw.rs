//! A diagnostic as a person reads it: what, where, the line with the place marked, and a remedy.
//!
//! Drawn here and not by a crate: it is one line with carets, clipped to 80 columns, with control
//! characters shown, which those that draw diagnostics do not do.

use placet_policy::lint::{Diagnostic, Severity, Span};

use super::word;
use crate::exit::Failure;
use crate::print::{Printer, Tone, plain};

/// Width in columns that everything fits in.
const WIDTH: usize = 80;
/// What stands for what is cut off a long line.
const CUT: &str = "...";

/// Writes one diagnostic.
pub(super) fn draw(it: &Diagnostic, text: &str, printer: &mut Printer) -> Result<(), Failure> {
    let tone = match it.severity {
        Severity::Error => Tone::Bad,
        Severity::Warning => Tone::Warn,
    };
    let label = format!("{}[{}]", word(it.severity), it.rule);
    // What is said of a file as a whole may be a predicate: its subject is the file.
    let predicate = ["has ", "is ", "lies "].iter().any(|begin| it.message.starts_with(begin));
    let subject = match it.span {
        None if predicate => format!("`{}` ", plain(&it.file)),
        _ => String::new(),
    };
    let said = format!("{label}: {subject}{}", plain(&it.message));
    let mut lines = wrapped(&said, "  ").into_iter();
    let first = lines.next().unwrap_or_default();
    let painted = printer.tone(tone, &label);
    printer.data(&first.replacen(&label, &painted, 1))?;
    lines.try_for_each(|line| printer.data(&line))?;
    let place = it.span.map(|span| format!(":{}:{}", span.start.line, span.start.column));
    printer.data(&format!("  --> {}{}", plain(&it.file), place.unwrap_or_default()))?;
    if let Some(span) = it.span
        && let Some((shown, marks)) = marked(text, span)
    {
        let number = span.start.line.to_string();
        let margin = " ".repeat(number.len());
        printer.data(&format!("{margin} |"))?;
        printer.data(&format!("{number} | {shown}"))?;
        printer.data(&format!("{margin} | {}", printer.tone(tone, &marks)))?;
    }
    if let Some(hint) = &it.hint {
        for line in wrapped(&format!("  = hint: {}", plain(hint)), "          ") {
            printer.data(&line)?;
        }
    }
    printer.data("")
}

/// What a fix does, in a few words.
pub(super) fn change(text: &str, it: &Diagnostic) -> String {
    let Some(fix) = &it.fix else { return String::new() };
    let line = text.lines().nth(index(fix.span.start.line)).unwrap_or_default();
    let one_line = fix.span.start.line == fix.span.end.line;
    let taken = index(fix.span.end.column).saturating_sub(index(fix.span.start.column));
    let old: String = match one_line {
        true => line.chars().skip(index(fix.span.start.column)).take(taken).collect(),
        false => line.to_owned(),
    };
    match fix.replacement.as_str() {
        "" => format!("removed `{}`", old.trim()),
        new => format!("`{old}` is `{new}` now"),
    }
}

fn index(from_one: u32) -> usize {
    usize::try_from(from_one).unwrap_or(usize::MAX).saturating_sub(1)
}

/// The line of a place, at most so wide that it fits, and what marks the place below it.
fn marked(text: &str, span: Span) -> Option<(String, String)> {
    let line = text.split('\n').nth(index(span.start.line))?.trim_end();
    let (start, length) = (index(span.start.column), line.chars().count());
    let end = match span.end.line == span.start.line {
        true => index(span.end.column),
        false => length,
    };
    let room = WIDTH.saturating_sub(span.start.line.to_string().len() + 3);
    // Where the line is too long, what is marked stands near its begin.
    let indent = line.chars().take_while(|c| c.is_whitespace()).count();
    let fits = length.saturating_sub(indent) + indent.min(4) <= room;
    let skipped = if fits { indent.saturating_sub(4) } else { start.saturating_sub(room / 4) };
    let skipped = skipped.min(start);
    let mut shown = String::new();
    let (mut before, mut under) = (0, 0);
    if !fits && skipped > 0 {
        shown.push_str(CUT);
        before = CUT.len();
    }
    let most = room.saturating_sub(if fits { 0 } else { CUT.len() });
    for (at, c) in line.chars().enumerate().skip(skipped) {
        let one = if c == '\t' { " ".to_owned() } else { plain(&c.to_string()) };
        let wide = one.chars().count();
        if shown.chars().count() + wide > most {
            shown.push_str(CUT);
            break;
        }
        if at < start {
            before += wide;
        } else if at < end {
            under += wide;
        }
        shown.push_str(&one);
    }
    Some((shown, format!("{}{}", " ".repeat(before), "^".repeat(under.max(1)))))
}

/// A text in lines that fit, those after the first indented.
fn wrapped(text: &str, indent: &str) -> Vec<String> {
    let lead: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut lines = Vec::new();
    let mut line = lead;
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use placet_policy::lint::Position;

    fn span(start: u32, end: u32) -> Span {
        let at = |column| Position { line: 1, column };
        Span { start: at(start), end: at(end) }
    }

    #[test]
    fn a_place_is_marked_below_its_line() {
        let (shown, marks) = marked("\tx == yy", span(7, 9)).expect("a line");
        assert_eq!((shown.as_str(), marks.as_str()), (" x == yy", "      ^^"));
        let (shown, marks) = marked("a\u{1b}b", span(3, 4)).expect("a line");
        assert_eq!((shown.as_str(), marks.as_str()), ("a\\u{1b}b", "       ^"));
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let line = format!("{}MARK{}", "x ".repeat(200), " y".repeat(200));
        let (shown, marks) = marked(&line, span(401, 405)).expect("a line");
        assert!(shown.chars().count() + 4 <= WIDTH, "{shown}");
        let at = marks.find('^').expect("it is marked");
        assert_eq!(shown.get(at..at + 4), Some("MARK"), "{shown}\n{marks}");
        assert!(shown.starts_with(CUT) && shown.ends_with(CUT));
        assert!(wrapped(&"word ".repeat(100), "  ").iter().all(|line| line.len() <= WIDTH));
    }
}
