//! Where a built-in of the interpreter would answer otherwise than OPA's, it is put right or
//! stopped: an error is better than another answer.

use std::str::Chars;

use regorus::Value;

use super::order;

/// What a built-in cannot do as OPA does it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Inexact(String);

/// Looks at the arguments of a call, and changes them where that makes the answer OPA's.
pub(super) fn adapt(name: &str, arguments: &mut [Value]) -> Result<(), Inexact> {
    match name {
        "sprintf" => match arguments {
            [Value::String(format), Value::Array(values)] => {
                let values: Vec<&Value> = values.iter().collect();
                formatted(format, &values)
            }
            _ => Ok(()),
        },
        "count" => match arguments {
            [Value::String(text)] if text.chars().any(|c| c > '\u{ffff}') => {
                let message = "a text with characters beyond U+FFFF is counted otherwise in OPA";
                Err(Inexact(message.to_owned()))
            }
            _ => Ok(()),
        },
        "max" | "min" | "sort" => arguments.first().map_or(Ok(()), sorted),
        "upper" | "lower" => arguments.iter().try_for_each(cased),
        "regex.replace" => arguments.get_mut(1).map_or(Ok(()), pattern),
        "regex.match"
        | "regex.is_valid"
        | "regex.split"
        | "regex.find_n"
        | "regex.find_all_string_submatch_n" => arguments.get_mut(0).map_or(Ok(()), pattern),
        "time.parse_ns" => arguments.first().map_or(Ok(()), layout),
        "time.format" => match arguments {
            [Value::Array(parts)] => parts.get(2).map_or(Ok(()), layout),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The interpreter cuts other letters of a layout in the middle, and panics.
fn layout(value: &Value) -> Result<(), Inexact> {
    let Value::String(text) = value else { return Ok(()) };
    match text.chars().find(|c| !c.is_ascii()) {
        Some(c) => Err(Inexact(format!("a layout of times has `{c}`: write it in ASCII"))),
        None => Ok(()),
    }
}

/// What is sorted is compared.
fn sorted(values: &Value) -> Result<(), Inexact> {
    let alike = match values {
        Value::Array(items) => order::alike(items.iter()),
        // A set was looked at when it was weighed.
        Value::Set(_)
        | Value::Object(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Undefined => Ok(()),
    };
    alike.map_err(|error| Inexact(error.to_string()))
}

/// Go maps each character to one; Unicode has some that become two, and a sigma that depends on its
/// place.
fn cased(value: &Value) -> Result<(), Inexact> {
    let Value::String(text) = value else { return Ok(()) };
    let special = |c: &char| {
        *c == '\u{3a3}' || c.to_uppercase().count() != 1 || c.to_lowercase().count() != 1
    };
    match text.chars().find(special) {
        Some(c) => Err(Inexact(format!("`{c}` has more than one letter in the other case"))),
        None => Ok(()),
    }
}

/// A directive of a format: what is between `%` and its letter, and the letter.
fn directives(format: &str) -> Vec<(String, Option<char>)> {
    let (mut found, mut chars) = (Vec::new(), format.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            continue;
        }
        let mut flags = String::new();
        let verb = loop {
            match chars.next() {
                Some(c) if c.is_ascii_digit() || " +-#.*[]".contains(c) => flags.push(c),
                verb => break verb,
            }
        };
        found.push((flags, verb));
    }
    found
}

/// The first directive of a format that the interpreter does not write as OPA does.
pub(super) fn unknown_directive(format: &str) -> Option<String> {
    let known = |(flags, verb): &(String, Option<char>)| match verb {
        Some('%' | 's' | 'v' | 'x' | 'X' | 'b') => flags.is_empty(),
        Some('d') => flags.bytes().all(|flag| flag.is_ascii_digit()),
        Some('f') => flags.strip_prefix('.').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
        }),
        _ => false,
    };
    let unknown = directives(format).into_iter().find(|directive| !known(directive))?;
    Some(format!("%{}{}", unknown.0, unknown.1.map(String::from).unwrap_or_default()))
}

fn formatted(format: &str, values: &[&Value]) -> Result<(), Inexact> {
    if let Some(directive) = unknown_directive(format) {
        return Err(Inexact(format!("`{directive}` is not written as OPA writes it")));
    }
    let verbs = directives(format).into_iter().filter_map(|(_, verb)| verb);
    for (verb, value) in verbs.filter(|verb| *verb != '%').zip(values) {
        let whole = matches!(value, Value::Number(number) if number.is_integer());
        let number = matches!(value, Value::Number(_));
        let fits = match verb {
            'd' | 'x' | 'X' | 'b' => whole,
            'f' => number && !whole,
            's' => !number && !has_empty_set(value),
            _ => !has_empty_set(value),
        };
        if !fits {
            let kind = kind(value);
            return Err(Inexact(format!("`%{verb}` does not fit {kind}: use another directive")));
        }
    }
    Ok(())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "this number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Set(_) | Value::Object(_) => "a value with an empty set",
        Value::Undefined => "what is undefined",
    }
}

/// The interpreter writes an empty set as an object.
fn has_empty_set(value: &Value) -> bool {
    match value {
        Value::Set(items) => items.is_empty() || items.iter().any(has_empty_set),
        Value::Array(items) => items.iter().any(has_empty_set),
        Value::Object(fields) => {
            fields.iter_sorted().any(|(key, value)| has_empty_set(key) || has_empty_set(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Undefined => {
            false
        }
    }
}

/// In OPA's patterns (RE2) some characters mean something else than here: classes of letters,
/// digits and blanks are those of ASCII there, and nothing joins classes.
fn pattern(value: &mut Value) -> Result<(), Inexact> {
    if let Value::String(text) = &*value {
        *value = Value::from(rewritten(text)?);
    }
    Ok(())
}

/// Largest count of a repetition in RE2.
const MAX_REPEATED: u64 = 1_000;
/// Classes that have a name, such as `[:digit:]`: of ASCII, here and there.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// The pattern that means here what the one given means in RE2. What is invalid in both is left as
/// it is, for the interpreter to say so.
fn rewritten(pattern: &str) -> Result<String, Inexact> {
    let mut pattern = Pattern { rest: pattern.chars(), written: String::new() };
    let mut repeated = false;
    while let Some(c) = pattern.rest.next() {
        let repeats = match c {
            '\\' => pattern.escape().map(|()| false)?,
            '[' => pattern.class().map(|()| false)?,
            '(' => pattern.group().map(|()| false)?,
            '{' => pattern.counted()?,
            _ => {
                pattern.written.push(c);
                matches!(c, '*' | '+' | '?')
            }
        };
        if repeats && repeated {
            return Err(Inexact("a repetition of a repetition: put the first in `(?:...)`".into()));
        }
        // A question mark after a repetition belongs to it: as few as possible.
        if repeats && pattern.eat("?") {
            pattern.written.push('?');
        }
        repeated = repeats;
    }
    Ok(pattern.written)
}

/// A pattern that is read as RE2 reads it, and written as it is read here.
struct Pattern<'p> {
    rest: Chars<'p>,
    written: String,
}

impl Pattern<'_> {
    fn eat(&mut self, expected: &str) -> bool {
        match self.rest.as_str().strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest.chars();
                true
            }
            None => false,
        }
    }

    /// What follows, as long as it is wanted.
    fn copy(&mut self, wanted: impl Fn(char) -> bool) {
        while let Some(c) = self.rest.clone().next().filter(|c| wanted(*c)) {
            self.written.push(c);
            self.rest.next();
        }
    }

    /// After a backslash that is outside of a class.
    fn escape(&mut self) -> Result<(), Inexact> {
        let Some(c) = self.rest.next() else {
            self.written.push('\\');
            return Ok(());
        };
        let replaced = match c {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            's' => "[\\t\\n\\f\\r ]",
            'S' => "[^\\t\\n\\f\\r ]",
            'b' => "(?-u:\\b)",
            'B' => return Err(wide(c)),
            _ => return self.escaped(c),
        };
        self.written.push_str(replaced);
        Ok(())
    }

    /// After a backslash, what means the same inside of a class and outside.
    fn escaped(&mut self, c: char) -> Result<(), Inexact> {
        match c {
            // The ends of words here, and characters there.
            '<' | '>' => self.written.push(c),
            // These exist on one side only.
            'Q' | 'C' | 'u' | 'U' | '0'..='9' => {
                let message = format!("`\\{c}` is not the same in OPA: write the characters out");
                return Err(Inexact(message));
            }
            _ => self.written.extend(['\\', c]),
        }
        // What belongs to it is no count and no class.
        if matches!(c, 'p' | 'P' | 'x') && self.eat("{") {
            if self.rest.as_str().starts_with('^') {
                return Err(Inexact(format!("`\\{c}{{^` is not known here: negate the class")));
            }
            self.written.push('{');
            self.copy(|c| c != '}');
            if self.eat("}") {
                self.written.push('}');
            }
        } else if matches!(c, 'p' | 'P') {
            self.written.extend(self.rest.next());
        } else if c == 'x' {
            let digits = self.rest.clone().take(2).take_while(char::is_ascii_hexdigit).count();
            self.written.extend(self.rest.by_ref().take(digits));
        }
        Ok(())
    }

    /// After a parenthesis: its name, or its flags.
    fn group(&mut self) -> Result<(), Inexact> {
        self.written.push('(');
        if !self.eat("?") {
            return Ok(());
        }
        self.written.push('?');
        // What looks around is invalid in both.
        let rest = self.rest.as_str();
        if ["=", "!", "<=", "<!"].iter().any(|around| rest.starts_with(around)) {
            return Ok(());
        }
        if self.eat("P<") || self.eat("<") {
            self.written.push_str("P<");
            self.copy(|c| c.is_ascii_alphanumeric() || c == '_');
            if self.rest.clone().next().is_some_and(|c| c != '>') {
                let message = "the name of a group is of letters, digits and underscores in OPA";
                return Err(Inexact(message.to_owned()));
            }
            return Ok(());
        }
        self.copy(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-'));
        match self.rest.clone().next() {
            Some(c) if c != ':' && c != ')' => Err(Inexact(format!(
                "the flag `{c}` of a group is none of OPA's `i`, `m`, `s`, `U`"
            ))),
            _ => Ok(()),
        }
    }

    /// After a brace: whether it begins a count. RE2 takes any other for a character, where a
    /// blank or a leading zero is a count here.
    fn counted(&mut self) -> Result<bool, Inexact> {
        let number = |text: &str| match text.as_bytes() {
            [] => false,
            [b'0', _, ..] => false,
            digits => digits.iter().all(u8::is_ascii_digit),
        };
        let count = self.rest.as_str().split_once('}').filter(|(inside, _)| {
            let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
            number(least) && (most.is_empty() || number(most))
        });
        let Some((inside, rest)) = count else {
            self.written.push_str("\\{");
            return Ok(false);
        };
        let large = |text: &str| text.parse::<u64>().map_or(true, |count| count > MAX_REPEATED);
        if inside.split(',').any(|text| !text.is_empty() && large(text)) {
            return Err(Inexact(format!("a repetition counts to {MAX_REPEATED} at most in OPA")));
        }
        self.written.push('{');
        self.written.push_str(inside);
        self.written.push('}');
        self.rest = rest.chars();
        Ok(true)
    }

    /// After a bracket. A class of RE2 holds characters, ranges, and classes with a name, and
    /// nothing that joins classes.
    fn class(&mut self) -> Result<(), Inexact> {
        self.written.push('[');
        if self.eat("^") {
            self.written.push('^');
        }
        // A bracket right at the beginning of a class is one of its characters.
        let mut first = true;
        while let Some(c) = self.rest.next() {
            if c == ']' && !first {
                self.written.push(c);
                return Ok(());
            }
            first = false;
            if c == '[' && self.named()? {
                continue;
            }
            if c == '-' {
                self.no_difference()?;
            }
            let character = self.item(c)?;
            let mut after = self.rest.clone();
            if !character || after.next() != Some('-') {
                continue;
            }
            let Some(end) = after.next().filter(|end| *end != ']') else { continue };
            self.eat("-");
            self.no_difference()?;
            self.rest = after;
            self.written.push('-');
            if !self.item(end)? {
                return Err(Inexact("a range of characters ends with a class".to_owned()));
            }
        }
        Ok(())
    }

    /// After a hyphen: another one makes a difference here, and a range in RE2.
    fn no_difference(&self) -> Result<(), Inexact> {
        if self.rest.as_str().starts_with('-') {
            return Err(Inexact("`--` in a class: write `\\-` for the hyphen".to_owned()));
        }
        Ok(())
    }

    /// After a bracket in a class: whether a class with a name was there, which is then written.
    fn named(&mut self) -> Result<bool, Inexact> {
        let inside = self.rest.as_str().strip_prefix(':');
        let Some((name, rest)) = inside.and_then(|inside| inside.split_once(":]")) else {
            return Ok(false);
        };
        if !NAMED.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(Inexact(format!("there is no class `[:{name}:]`")));
        }
        for part in ["[:", name, ":]"] {
            self.written.push_str(part);
        }
        self.rest = rest.chars();
        Ok(true)
    }

    /// Writes one item of a class that begins with this: whether it is a character, which may
    /// begin or end a range.
    fn item(&mut self, c: char) -> Result<bool, Inexact> {
        if c != '\\' {
            // These join or nest classes here, or would come to stand where they mean something.
            if "[]&~-^".contains(c) {
                self.written.push('\\');
            }
            self.written.push(c);
            return Ok(true);
        }
        let Some(c) = self.rest.next() else {
            self.written.push('\\');
            return Ok(true);
        };
        match c {
            'd' => self.written.push_str("0-9"),
            'w' => self.written.push_str("0-9A-Za-z_"),
            's' => self.written.push_str("\\t\\n\\f\\r "),
            'D' | 'W' | 'S' => return Err(wide(c)),
            _ => self.escaped(c)?,
        }
        Ok(!matches!(c, 'd' | 'w' | 's' | 'p' | 'P'))
    }
}

fn wide(c: char) -> Inexact {
    Inexact(format!("`\\{c}` here means more than OPA's: write the characters out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        for (pattern, expected) in [
            ("^\\d+$", "^[0-9]+$"),
            ("[\\w.-]+\\.\\s", "[0-9A-Za-z_.\\-]+\\.[\\t\\n\\f\\r ]"),
            ("[]a[]", "[\\]a\\[]"),
            ("[^]\\d]", "[^\\]0-9]"),
            ("[[:alpha:]\\d]", "[[:alpha:]0-9]"),
            ("[[:^word:]-z]", "[[:^word:]\\-z]"),
            ("a\\bb", "a(?-u:\\b)b"),
            ("\\\\d", "\\\\d"),
            ("\\pL\\x41", "\\pL\\x41"),
            // Nothing joins or nests classes.
            ("^[[a]]$", "^[\\[a]]$"),
            ("[[:a]", "[\\[:a]"),
            ("^[a&&b]$", "^[a\\&\\&b]$"),
            ("[a~~b]", "[a\\~\\~b]"),
            ("[]-a]", "[\\]-a]"),
            ("[-a]|[a-]|[-]|[^-a]", "[\\-a]|[a\\-]|[\\-]|[^\\-a]"),
            ("[a-z-9][+-\\-]", "[a-z\\-9][+-\\-]"),
            // A hyphen after a class with a letter for a name is a character.
            ("[\\w-z\\d-]", "[0-9A-Za-z_\\-z0-9\\-]"),
            ("[\\x41-\\x{5a}\\pL-a]", "[\\x41-\\x{5a}\\pL\\-a]"),
            // Words do not begin nor end, braces are characters.
            ("\\<a\\>[\\<-\\>]", "<a>[<->]"),
            ("a\\b{start}", "a(?-u:\\b)\\{start}"),
            ("a{2}b{2,}?c{0,3}", "a{2}b{2,}?c{0,3}"),
            ("a{ 2 }b{,2}c{02}{", "a\\{ 2 }b\\{,2}c\\{02}\\{"),
            ("\\p{Greek}\\P{Lu}", "\\p{Greek}\\P{Lu}"),
            ("(?i)(?s-m:a)(?U)(?:b)", "(?i)(?s-m:a)(?U)(?:b)"),
            ("(?P<n>a)(?<m_1>b)", "(?P<n>a)(?P<m_1>b)"),
            ("\\Aa\\z\\Z", "\\Aa\\z\\Z"),
            ("(?=a)(?<!b)", "(?=a)(?<!b)"),
            ("a\\", "a\\"),
            ("[a", "[a"),
            ("[a-", "[a\\-"),
        ] {
            assert_eq!(rewritten(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        let refused = "^[+--]$ [--a] [a--b] [\\d--3] (?x)a (?u)a (?R)$ (?i-x:a) (?i-u)a \\Qa\\E \
            [\\Q] \\C \\u0041 \\U00000041 \\012 a++ a** a{2}{3} a*?? a{1001} \
            a{1,99999999999999999999} [a-\\d] [[:foo:]] (?P<n[>a) (?P=n) \\p{^Greek} [\\D] \\B";
        for pattern in refused.split_whitespace() {
            assert!(rewritten(pattern).is_err(), "{pattern}");
        }
        let message = rewritten("[+--]").map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.contains("write `\\-`")));
    }

    #[test]
    fn formats_are_those_that_both_write_alike() {
        for format in ["", "%%", "%s of %d", "%03d", "%v", "%x", "%.2f"] {
            assert_eq!(unknown_directive(format), None, "{format}");
        }
        for format in ["%t", "%5s", "%-5d", "%+d", "%q", "%e", "%f", "%", "%o", "%T", "%[1]d"] {
            assert!(unknown_directive(format).is_some(), "{format}");
        }
        let check = |format: &str, value: Value| formatted(format, &[&value]).is_ok();
        assert!(check("%d", Value::from(1_u64)) && check("%v", Value::from(1_u64)));
        assert!(!check("%d", Value::from("a")) && !check("%s", Value::from(1_u64)));
        assert!(!check("%v", Value::new_set()) && check("%s", Value::Null));
    }

    #[test]
    fn letters_that_become_two_are_refused() {
        for text in ["stra\u{df}e", "\u{130}", "\u{3a3}"] {
            assert!(cased(&Value::from(text)).is_err(), "{text}");
        }
        let mixed = Value::from(vec![Value::new_set(), Value::new_object()]);
        for name in ["max", "min", "sort"] {
            assert!(adapt(name, &mut [mixed.clone()]).is_err(), "{name}");
        }
        assert!(adapt("sort", &mut [Value::from(vec![Value::new_object()])]).is_ok());
        let count = |text: &str| adapt("count", &mut [Value::from(text)]).is_ok();
        assert!(count("caf\u{e9}") && !count("\u{1f600}"));
        assert!(cased(&Value::from("caf\u{e9} \u{1f600}")).is_ok());
    }
}
