//! Where a built-in of the interpreter would answer otherwise than OPA's, it is put right or
//! stopped: an error is better than another answer.

use std::iter::Peekable;
use std::str::Chars;

use regorus::Value;

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
        "max" | "min" | "sort" if has(arguments, &is_set) && has(arguments, &is_object) => {
            Err(Inexact("sets and objects together are in another order in OPA".to_owned()))
        }
        "upper" | "lower" => arguments.iter().try_for_each(cased),
        "regex.replace" => arguments.get_mut(1).map_or(Ok(()), pattern),
        "regex.match"
        | "regex.is_valid"
        | "regex.split"
        | "regex.find_n"
        | "regex.find_all_string_submatch_n" => arguments.get_mut(0).map_or(Ok(()), pattern),
        _ => Ok(()),
    }
}

fn is_set(value: &Value) -> bool {
    matches!(value, Value::Set(_))
}

fn is_object(value: &Value) -> bool {
    matches!(value, Value::Object(_))
}

/// Whether one of these is inside of what is sorted, however deep.
fn has(values: &[Value], wanted: &dyn Fn(&Value) -> bool) -> bool {
    fn inside(value: &Value, wanted: &dyn Fn(&Value) -> bool) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|it| wanted(it) || inside(it, wanted)),
            Value::Set(items) => items.iter().any(|it| wanted(it) || inside(it, wanted)),
            Value::Object(fields) => fields.iter_sorted().any(|(key, value)| {
                [key, value].into_iter().any(|it| wanted(it) || inside(it, wanted))
            }),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Undefined => false,
        }
    }
    values.iter().any(|value| inside(value, wanted))
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

/// In OPA's patterns (RE2) the classes of letters, digits and blanks are those of ASCII; here they
/// would be Unicode's.
fn pattern(value: &mut Value) -> Result<(), Inexact> {
    let Value::String(text) = &*value else { return Ok(()) };
    if text.contains('\\') {
        *value = Value::from(ascii(text)?);
    }
    Ok(())
}

fn ascii(pattern: &str) -> Result<String, Inexact> {
    let (mut written, mut chars, mut class) = (String::new(), pattern.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => escaped(&mut chars, class, &mut written)?,
            '[' if class => {
                // `[:digit:]`, which is ASCII's already, or a bracket by itself.
                let named = chars.peek() == Some(&':');
                written.push_str(if named { "[" } else { "\\[" });
                if named {
                    for c in chars.by_ref() {
                        written.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
            }
            '[' => {
                class = true;
                written.push(c);
                // A bracket right at the beginning of a class is one of its characters.
                if let Some(caret) = chars.next_if_eq(&'^') {
                    written.push(caret);
                }
                if chars.next_if_eq(&']').is_some() {
                    written.push_str("\\]");
                }
            }
            ']' => {
                class = false;
                written.push(c);
            }
            // These join classes here, and are characters there.
            '&' | '~' if class => written.extend(['\\', c]),
            c => written.push(c),
        }
    }
    Ok(written)
}

fn escaped(
    chars: &mut Peekable<Chars<'_>>,
    class: bool,
    written: &mut String,
) -> Result<(), Inexact> {
    let Some(c) = chars.next() else {
        written.push('\\');
        return Ok(());
    };
    let replaced = match (c, class) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', false) => "[^0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', false) => "[^0-9A-Za-z_]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('S', false) => "[^\\t\\n\\f\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('D' | 'W' | 'S', true) | ('B', false) => {
            let message = format!("`\\{c}` here means more than OPA's: write the characters out");
            return Err(Inexact(message));
        }
        _ => {
            written.extend(['\\', c]);
            return Ok(());
        }
    };
    written.push_str(replaced);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_ascii() {
        for (pattern, expected) in [
            ("^\\d+$", "^[0-9]+$"),
            ("[\\w.-]+\\.\\s", "[0-9A-Za-z_.-]+\\.[\\t\\n\\f\\r ]"),
            ("[]a[]", "[\\]a\\[]"),
            ("[^]\\d]", "[^\\]0-9]"),
            ("[[:alpha:]\\d]", "[[:alpha:]0-9]"),
            ("a\\bb", "a(?-u:\\b)b"),
            ("\\\\d", "\\\\d"),
            ("\\pL\\x41", "\\pL\\x41"),
        ] {
            assert_eq!(ascii(pattern).as_deref(), Ok(expected), "{pattern}");
        }
        assert!(ascii("[\\D]").is_err() && ascii("\\B").is_err());
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
