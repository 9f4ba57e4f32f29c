//! Texts: replacements, query strings, and how large what a short text writes would be.

use std::fmt::Write as _;
use std::str::Chars;

use regorus::Value;
use regorus::value::Object;

use super::{MAX_BYTES, MAX_DIGITS};
use crate::rego::weigh::{Refused, at_most, count, cross, weigh, work};

/// A text among the arguments.
pub(super) fn text<'a>(given: &'a [Value], at: usize, what: &str) -> Result<&'a str, Refused> {
    match given.get(at) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Refused::Wrong(format!("{what} is not a text"))),
    }
}

/// `strings.count`: places that do not overlap; an empty text is before and after each character,
/// as Go counts it.
pub(super) fn occurrences(given: &[Value]) -> Result<Value, Refused> {
    let (text, part) = (text(given, 0, "the text")?, text(given, 1, "what is counted")?);
    Ok(Value::from(count(text.matches(part).count())))
}

/// `strings.replace_n`: at each place the first pattern, in order, that is there.
pub(super) fn replace_n(given: &[Value]) -> Result<Value, Refused> {
    let Some(Value::Object(patterns)) = given.first() else {
        return Err(Refused::Wrong("the patterns are not an object".to_owned()));
    };
    let text = text(given, 1, "the text")?;
    let mut pairs = Vec::new();
    for (old, new) in patterns.iter_sorted() {
        let (Value::String(old), Value::String(new)) = (old, new) else {
            return Err(Refused::Wrong("a pattern or its replacement is not a text".to_owned()));
        };
        pairs.push((old.as_ref(), new.as_ref()));
    }
    let longest = pairs.iter().map(|(_, new)| new.len()).max().unwrap_or(0);
    let places = count(text.len()).saturating_add(1);
    let most = places.saturating_mul(count(longest)).saturating_add(places);
    at_most(most, MAX_BYTES, "bytes of the result")?;
    work(places.saturating_mul(count(pairs.len())))?;
    let (mut replaced, mut rest, mut after_empty) = (String::new(), text, false);
    loop {
        let found =
            pairs.iter().find(|(old, _)| rest.starts_with(old) && !(old.is_empty() && after_empty));
        if let Some((old, new)) = found {
            replaced.push_str(new);
            rest = rest.strip_prefix(old).unwrap_or_default();
            after_empty = old.is_empty();
            if !after_empty {
                continue;
            }
        }
        // What an empty pattern was put before, or what no pattern begins with, stays.
        let mut characters = rest.chars();
        match characters.next() {
            Some(character) if !starts(&pairs, rest) => {
                replaced.push(character);
                rest = characters.as_str();
                after_empty = false;
            }
            Some(_) => {}
            None => return Ok(Value::from(replaced)),
        }
    }
}

/// Whether a pattern that is not empty begins here.
fn starts(pairs: &[(&str, &str)], rest: &str) -> bool {
    pairs.iter().any(|(old, _)| !old.is_empty() && rest.starts_with(old))
}

/// `urlquery.encode`, as forms are encoded: a space is a plus.
pub(super) fn query_encode(given: &[Value]) -> Result<Value, Refused> {
    let mut encoded = String::new();
    encode(text(given, 0, "the text")?, &mut encoded);
    Ok(Value::from(encoded))
}

fn encode(text: &str, encoded: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string does not fail"),
        }
    }
}

/// `urlquery.decode`.
pub(super) fn query_decode(given: &[Value]) -> Result<Value, Refused> {
    Ok(Value::from(decoded(text(given, 0, "the text")?)?))
}

fn decoded(text: &str) -> Result<String, Refused> {
    let wrong = || Refused::Wrong("the text is not encoded as a query".to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    let digit = char::from(rest.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let high = digit().ok_or_else(wrong)?;
                let low = digit().ok_or_else(wrong)?;
                (high << 4) | low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_not_text| wrong())
}

/// `urlquery.encode_object`: names in order, values that are texts, lists or sets of texts.
pub(super) fn query_encode_object(given: &[Value]) -> Result<Value, Refused> {
    let Some(Value::Object(object)) = given.first() else {
        return Err(Refused::Wrong("the query is not an object".to_owned()));
    };
    let mut encoded = String::new();
    for (name, value) in object.iter_sorted() {
        let Value::String(name) = name else {
            return Err(Refused::Wrong("a name of the query is not a text".to_owned()));
        };
        let values: Vec<&Value> = if let Value::Array(items) = value {
            items.iter().collect()
        } else if let Value::Set(items) = value {
            items.iter().collect()
        } else {
            vec![value]
        };
        for value in values {
            let Value::String(value) = value else {
                return Err(Refused::Wrong("a value of the query is not a text".to_owned()));
            };
            if !encoded.is_empty() {
                encoded.push('&');
            }
            encode(name, &mut encoded);
            encoded.push('=');
            encode(value, &mut encoded);
        }
    }
    Ok(Value::from(encoded))
}

/// `urlquery.decode_object`: each name with the list of its values.
pub(super) fn query_decode_object(given: &[Value]) -> Result<Value, Refused> {
    let mut object = std::collections::BTreeMap::<String, Vec<Value>>::new();
    for pair in text(given, 0, "the text")?.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return Err(Refused::Wrong("a semicolon separates nothing in a query".to_owned()));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        object.entry(decoded(name)?).or_default().push(Value::from(decoded(value)?));
    }
    let object = object.into_iter().map(|(name, values)| (Value::from(name), Value::from(values)));
    Ok(Value::from(object.collect::<Object>()))
}

/// Refuses a text that writes a number with very many digits, or with an exponent that would.
pub(in crate::rego) fn numbers_are_short(text: &str) -> Result<(), Refused> {
    short(text.chars())
}

/// The key by which a reader of JSON takes an object for a number, which its text then writes: the
/// interpreter does so whatever else the object holds.
const NUMBER_KEY: &str = "$serde_json::private::Number";

/// The same for JSON: what is quoted writes no number.
pub(super) fn json_numbers_are_short(text: &str) -> Result<(), Refused> {
    let (mut bare, mut rest) = (String::with_capacity(text.len()), text.chars());
    while let Some(character) = rest.next() {
        bare.push(character);
        if character == '"' && quoted(&mut rest) == NUMBER_KEY {
            return Err(Refused::Wrong(format!("`{NUMBER_KEY}` is no key")));
        }
    }
    short(bare.chars())
}

/// Reads on to behind the next quotation mark: the text before it, without escapes.
fn quoted(rest: &mut Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(character) = rest.next().filter(|character| *character != '"') {
        let escaped = if character == '\\' { rest.next() } else { None };
        if escaped == Some('u') {
            let digits = rest.clone().take(4).take_while(char::is_ascii_hexdigit).count();
            let digits = rest.by_ref().take(digits).filter_map(|digit| digit.to_digit(16));
            let code = digits.fold(0, |code, digit| (code << 4) | digit);
            text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        } else {
            text.push(escaped.unwrap_or(character));
        }
    }
    text
}

fn short(text: impl Iterator<Item = char>) -> Result<(), Refused> {
    let (mut digits, mut exponent) = (0_u64, None::<u64>);
    for character in text.chain([' ']) {
        match (character, exponent) {
            ('0'..='9', None) => digits = digits.saturating_add(1),
            ('0'..='9', Some(value)) => {
                let digit = character.to_digit(10).map_or(0, u64::from);
                exponent = Some(value.saturating_mul(10).saturating_add(digit));
            }
            ('.' | '_', _) => {}
            ('e' | 'E', None) if digits > 0 => exponent = Some(0),
            ('+' | '-', Some(0)) => {}
            _ => {
                at_most(digits, MAX_DIGITS, "digits of a number")?;
                at_most(exponent.unwrap_or(0), MAX_DIGITS, "a number's exponent")?;
                (digits, exponent) = (0, None);
            }
        }
    }
    Ok(())
}

/// Characters of a pattern when each counted repetition is written out as often as it counts.
pub(super) fn written_out(pattern: &str) -> u64 {
    // What the group under way holds so far, and its last item, which a count would repeat.
    let mut groups: Vec<u64> = vec![0];
    let mut last: u64 = 0;
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        let one: u64 = match character {
            '(' => {
                add(&mut groups, last);
                last = 0;
                groups.push(0);
                continue;
            }
            ')' => {
                add(&mut groups, last);
                let group = if groups.len() > 1 { groups.pop().unwrap_or(0) } else { 0 };
                last = group.saturating_add(1);
                continue;
            }
            '{' => {
                let mut inside = String::new();
                while let Some(next) = rest.next_if(|next| next.is_ascii_digit() || *next == ',') {
                    inside.push(next);
                }
                rest.next_if_eq(&'}');
                let times = inside.split(',').map(|times| times.parse::<u64>().unwrap_or(1)).max();
                last = last.max(1).saturating_mul(times.unwrap_or(1).max(1));
                continue;
            }
            // Classes of Unicode are some hundred ranges.
            '\\' => match rest.next() {
                Some('w' | 'W' | 'd' | 'D' | 's' | 'S' | 'p' | 'P' | 'b' | 'B') => 32,
                _ => 1,
            },
            '.' | '[' => 4,
            _ => 1,
        };
        add(&mut groups, last);
        last = one;
    }
    groups.into_iter().fold(last, u64::saturating_add)
}

fn add(groups: &mut [u64], item: u64) {
    if let Some(group) = groups.last_mut() {
        *group = group.saturating_add(item);
    }
}

/// `object.subset`: whether the first holds the second: fields with what they hold, elements of a
/// set, or a run of elements of a list. The interpreter's own does not survive an empty list.
pub(super) fn subset(given: &[Value]) -> Result<Value, Refused> {
    let (Some(whole), Some(part)) = (given.first(), given.get(1)) else {
        return Ok(Value::Undefined);
    };
    match (whole, part) {
        (Value::Object(_), Value::Object(_))
        | (Value::Set(_), Value::Set(_))
        | (Value::Array(_), Value::Array(_) | Value::Set(_)) => {}
        _ => return Err(Refused::Wrong("the operands are not two of a kind".to_owned())),
    }
    let (left, right) = (weigh([whole])?.units, weigh([part])?.units);
    cross(left.saturating_mul(right))?;
    Ok(Value::from(holds(whole, part)))
}

fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
        }
        (Value::Set(whole), Value::Set(part)) => part.is_subset(whole),
        (Value::Array(whole), Value::Array(part)) => {
            let (whole, part): (Vec<_>, Vec<_>) = (whole.iter().collect(), part.iter().collect());
            part.is_empty() || whole.windows(part.len()).any(|run| run == part)
        }
        (Value::Array(whole), Value::Set(part)) => part.iter().all(|item| whole.contains(item)),
        (whole, part) => whole == part,
    }
}
