//! Built-ins of our own, and bounds around those of the interpreter.
//!
//! The interpreter looks at its budget between built-ins, never inside one. So every built-in that
//! does more than a constant amount of work is called through here: what it takes is weighed,
//! refused if it is too large, and paid for before it begins; what it gives is weighed too.

mod crypto;
mod graph;
mod jwt;
mod keys;
mod net;
mod table;
mod text;

use std::cell::Cell;

use regorus::unstable::{BUILTINS, BuiltinFcn, Expr, Ref, Span};
use regorus::{Engine, Source, Value};

use super::weigh::{MAX_UNITS, Refused, at_most, count, cross, pay, weigh, work};
use super::{exact, order, ticks};
pub(super) use table::REFUSED;
pub(super) use text::numbers_are_short;

/// Longest text that one built-in may take or give, in bytes.
const MAX_BYTES: u64 = 1 << 18;
/// Most elements of a range.
const MAX_RANGE: u64 = 10_000;
/// What compiling a pattern costs in ticks, whatever its length.
const PATTERN_TICKS: u64 = 256;
/// Largest pattern, in characters after its counted repetitions are written out.
const MAX_PATTERN: u64 = 10_000;
/// Longest text in bytes that a pattern is looked for in: finding all matches may look at each
/// rest of the text again.
const MAX_SEARCHED: u64 = 1 << 16;
/// Characters of a pattern times bytes of a text that count as one tick.
const SEARCH_PER_TICK: u64 = 4_096;
/// Widest field of `sprintf`, in digits of the width.
const MAX_WIDTH_DIGITS: u64 = 3;
/// Most bits that a number is shifted by.
const MAX_SHIFT: u64 = 256;
/// Longest text that becomes a number, and largest exponent in it: more than any double has.
const MAX_DIGITS: u64 = 400;
/// Longest indentation and prefix of printed JSON in bytes.
const MAX_INDENT: u64 = 16;
/// The name by which a policy's text, as it is evaluated, pays for what it compares and keeps.
pub(super) const CHARGE: &str = "__charge";
/// The same for what is searched: elements of a list or an object are looked at one by one.
pub(super) const SCAN: &str = "__scan";
/// The same as [`CHARGE`] for what is compared with others of a class, which its last argument
/// names.
pub(super) const JOIN: &str = "__join";
/// The same for the first of a class.
pub(super) const FIRST: &str = "__first";
/// The same for keys, its first argument; the value under them is only paid for.
pub(super) const KEYED: &str = "__keyed";
/// All of these.
pub(super) const ENGINES_OWN: [&str; 5] = [CHARGE, SCAN, JOIN, FIRST, KEYED];

/// Built-ins that do a constant amount of work, whatever they are given.
const FREE: [&str; 14] = [
    "abs",
    "bits.and",
    "bits.negate",
    "bits.or",
    "bits.xor",
    "ceil",
    "floor",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
];

/// What bounds a built-in, where weighing what it takes and gives is not enough.
const BOUNDED: [(&str, Bound); 39] = [
    ("bits.lsh", Bound::Shift),
    ("bits.rsh", Bound::Shift),
    ("concat", Bound::Concat),
    ("glob.match", Bound::Pattern),
    ("json.filter", Bound::Cross),
    ("json.marshal_with_options", Bound::Indent),
    ("json.is_valid", Bound::Json),
    ("json.patch", Bound::Patch),
    ("json.remove", Bound::Cross),
    ("json.unmarshal", Bound::Json),
    ("numbers.range", Bound::Range),
    ("numbers.range_step", Bound::Range),
    ("object.filter", Bound::Cross),
    ("object.get", Bound::Rest),
    ("object.remove", Bound::Cross),
    ("product", Bound::Product),
    ("regex.find_all_string_submatch_n", Bound::FindGroups),
    ("regex.find_n", Bound::Find),
    ("regex.is_valid", Bound::Pattern),
    ("regex.match", Bound::Pattern),
    ("regex.replace", Bound::PatternReplace),
    ("regex.split", Bound::Find),
    ("replace", Bound::Replace),
    ("semver.compare", Bound::Digits),
    ("semver.is_valid", Bound::Digits),
    ("sprintf", Bound::Format),
    ("strings.any_prefix_match", Bound::Cross),
    ("strings.any_suffix_match", Bound::Cross),
    ("time.add_date", Bound::Digits),
    ("time.format", Bound::Digits),
    ("time.parse_duration_ns", Bound::Digits),
    ("time.parse_ns", Bound::Digits),
    ("time.parse_rfc3339_ns", Bound::Digits),
    ("to_number", Bound::Digits),
    ("trim", Bound::Cross),
    ("trim_left", Bound::Cross),
    ("trim_right", Bound::Cross),
    ("units.parse", Bound::Digits),
    ("units.parse_bytes", Bound::Digits),
];

/// How the work of a built-in is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// It works in proportion to what it takes and gives.
    Size,
    /// It repeats a delimiter.
    Concat,
    /// It may look at all of one argument for each part of another.
    Cross,
    /// It reads a number: a short text may write a very long one.
    Digits,
    /// It looks for all places of a pattern.
    Find,
    /// It does, and gives each group of each place.
    FindGroups,
    /// Its format asks for widths, and may print arguments more than once.
    Format,
    /// It indents.
    Indent,
    /// It reads JSON.
    Json,
    /// It copies parts of a document into the document.
    Patch,
    /// It compiles a pattern, then works in proportion.
    Pattern,
    /// It does both, and repeats a replacement.
    PatternReplace,
    /// It multiplies.
    Product,
    /// It counts from one number to another.
    Range,
    /// It repeats a replacement.
    Replace,
    /// It looks into its first argument without reading it all.
    Rest,
    /// It makes a number longer.
    Shift,
    /// It gives each element with its path.
    Walk,
}

/// A built-in that the interpreter lacks, or has otherwise than OPA.
pub(super) type Own = fn(&[Value]) -> Result<Value, Refused>;

/// Built-ins of our own: name, number of arguments, function.
const OWN: [(&str, u8, Own); 44] = [
    ("crypto.hmac.equal", 2, crypto::equal),
    ("crypto.hmac.md5", 2, crypto::hmac_md5),
    ("crypto.hmac.sha1", 2, crypto::hmac_sha1),
    ("crypto.hmac.sha256", 2, crypto::hmac_sha256),
    ("crypto.hmac.sha512", 2, crypto::hmac_sha512),
    ("crypto.md5", 1, crypto::md5),
    ("crypto.sha1", 1, crypto::sha1),
    ("crypto.sha256", 1, crypto::sha256),
    ("graph.reachable_paths", 2, graph::reachable_paths),
    ("io.jwt.decode", 1, jwt::decode),
    ("io.jwt.decode_verify", 2, jwt::decode_verify),
    ("io.jwt.verify_eddsa", 2, |given| jwt::verify(given, "EdDSA")),
    ("io.jwt.verify_es256", 2, |given| jwt::verify(given, "ES256")),
    ("io.jwt.verify_es384", 2, |given| jwt::verify(given, "ES384")),
    ("io.jwt.verify_es512", 2, |given| jwt::verify(given, "ES512")),
    ("io.jwt.verify_hs256", 2, |given| jwt::verify(given, "HS256")),
    ("io.jwt.verify_hs384", 2, |given| jwt::verify(given, "HS384")),
    ("io.jwt.verify_hs512", 2, |given| jwt::verify(given, "HS512")),
    ("io.jwt.verify_ps256", 2, |given| jwt::verify(given, "PS256")),
    ("io.jwt.verify_ps384", 2, |given| jwt::verify(given, "PS384")),
    ("io.jwt.verify_ps512", 2, |given| jwt::verify(given, "PS512")),
    ("io.jwt.verify_rs256", 2, |given| jwt::verify(given, "RS256")),
    ("io.jwt.verify_rs384", 2, |given| jwt::verify(given, "RS384")),
    ("io.jwt.verify_rs512", 2, |given| jwt::verify(given, "RS512")),
    ("net.cidr_contains", 2, net::contains),
    ("net.cidr_contains_matches", 2, net::contains_matches),
    ("net.cidr_expand", 1, net::expand),
    ("net.cidr_intersects", 2, net::intersects),
    ("net.cidr_is_valid", 1, net::is_valid),
    ("net.cidr_merge", 1, net::merge),
    ("object.subset", 2, text::subset),
    ("strings.count", 2, text::occurrences),
    ("strings.replace_n", 2, text::replace_n),
    ("time.now_ns", 0, now_ns),
    ("type_name", 1, type_name),
    ("urlquery.decode", 1, text::query_decode),
    ("urlquery.decode_object", 1, text::query_decode_object),
    ("urlquery.encode", 1, text::query_encode),
    ("urlquery.encode_object", 1, text::query_encode_object),
    (CHARGE, 2, charged),
    (FIRST, 2, first),
    (JOIN, 2, joined),
    (KEYED, 3, keyed),
    (SCAN, 2, scanned),
];

thread_local! {
    /// `input.time` of the input under evaluation.
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// Sets what `time.now_ns` says on this thread.
pub(super) fn set_time(time: u64) {
    TIME.set(time);
}

/// Nanoseconds UTC of the input under evaluation.
fn time_ns() -> u128 {
    u128::from(TIME.get()).saturating_mul(1_000_000_000)
}

/// Whether a policy may call it, and with how many arguments if that is fixed and it is one of
/// ours.
pub(super) fn arguments(name: &str) -> Option<Option<u8>> {
    // These may take a pattern for their result as the last argument, as OPA's users write `walk`.
    if name == "print" || name == "walk" || FREE.contains(&name) {
        return Some(None);
    }
    if let Some((_, count, _)) = OWN.iter().find(|(own, _, _)| *own == name) {
        return Some(Some(*count));
    }
    let (_, count) = BUILTINS.get(name)?;
    Some(Some(*count))
}

/// Every name that a policy may call.
pub(super) fn names<'a>() -> impl Iterator<Item = &'a str> {
    let refused =
        |name: &&str| REFUSED.iter().any(|(refused, _)| refused == name) || name.starts_with("__");
    let own = OWN.iter().map(|(name, _, _)| *name);
    own.chain(BUILTINS.keys().copied()).filter(move |name| !refused(name))
}

/// Puts ours before those of the interpreter.
pub(super) fn install(engine: &mut Engine) {
    let mut add = |name: &str, count, run| {
        engine
            .add_extension(name.to_owned(), count, run)
            .expect("an engine has each built-in once");
    };
    for (name, count, own) in OWN {
        add(
            name,
            count,
            Box::new(move |given: Vec<Value>| {
                let free = ENGINES_OWN.contains(&name) || name == "type_name";
                let run = || -> Result<Value, Refused> {
                    if free {
                        return own(&given);
                    }
                    texts(&given)?;
                    pay(&given)?;
                    let value = own(&given)?;
                    pay([&value])?;
                    Ok(value)
                };
                Ok(run()?)
            }),
        );
    }
    for (name, builtin) in BUILTINS.iter() {
        if FREE.contains(name) || OWN.iter().any(|(own, _, _)| own == name) {
            continue;
        }
        let bound = BOUNDED.iter().find(|(bounded, _)| bounded == name).map(|(_, bound)| *bound);
        let bound = if *name == "walk" { Bound::Walk } else { bound.unwrap_or(Bound::Size) };
        let call = Call::new(*builtin, bound);
        let fits = BUILTINS.get("regex.match").filter(|_| *name == "regex.split");
        let fits = fits.map(|fits| Call::new(*fits, Bound::Pattern));
        add(
            name,
            builtin.1,
            Box::new(move |mut given: Vec<Value>| {
                call.before(&given)?;
                exact::adapt(name, &mut given)?;
                if let (Some(fits), Some(pattern)) = (&fits, given.first()) {
                    let empty = [pattern.clone(), Value::from("")];
                    let (function, _) = fits.builtin;
                    if function(&fits.span, &fits.parameters, &empty, true)? == Value::Bool(true) {
                        let message = "a pattern that fits an empty text splits otherwise in OPA";
                        return Err(Refused::Wrong(message.to_owned()).into());
                    }
                }
                let (function, _) = call.builtin;
                let value = function(&call.span, &call.parameters, &given, true)?;
                if call.bound != Bound::Walk {
                    texts(std::slice::from_ref(&value))?;
                    pay([&value])?;
                }
                Ok(value)
            }),
        );
    }
}

fn now_ns(_given: &[Value]) -> Result<Value, Refused> {
    Ok(Value::from(time_ns()))
}

fn type_name(given: &[Value]) -> Result<Value, Refused> {
    let name = match given.first() {
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Number(_)) => "number",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "array",
        Some(Value::Set(_)) => "set",
        Some(Value::Object(_)) => "object",
        Some(Value::Undefined) | None => return Ok(Value::Undefined),
    };
    Ok(Value::from(name))
}

/// Gives what it takes, and pays for it.
fn charged(given: &[Value]) -> Result<Value, Refused> {
    pay(given.first())?;
    Ok(given.first().cloned().unwrap_or(Value::Undefined))
}

/// Gives what it takes, pays for it, and refuses it beside others of the class that have sets where
/// it has objects, or the other way round.
fn joined(given: &[Value]) -> Result<Value, Refused> {
    if let [value, Value::String(class)] = given {
        pay([value])?;
        order::join(class, value)?;
    }
    Ok(given.first().cloned().unwrap_or(Value::Undefined))
}

/// The same, and there are no others so far.
fn first(given: &[Value]) -> Result<Value, Refused> {
    if let Some(Value::String(class)) = given.last() {
        order::forget(class);
    }
    joined(given)
}

/// The same for each key of a list, and gives the value beside it, which is paid for.
fn keyed(given: &[Value]) -> Result<Value, Refused> {
    let [Value::Array(keys), value, Value::String(class)] = given else {
        return Ok(Value::Undefined);
    };
    pay(keys.iter())?;
    let class = format!("{class}[]");
    keys.iter().try_for_each(|key| order::join(&class, key))?;
    pay([value])?;
    Ok(value.clone())
}

/// Gives what it takes, and pays for looking at each of its elements, where that is how it is
/// searched.
fn scanned(given: &[Value]) -> Result<Value, Refused> {
    match given.first() {
        Some(Value::Array(_) | Value::Object(_)) => charged(given),
        Some(other) => Ok(other.clone()),
        None => Ok(Value::Undefined),
    }
}

/// Refuses texts that are too long.
fn texts(values: &[Value]) -> Result<(), Refused> {
    values.iter().try_for_each(|value| match value {
        Value::String(text) => at_most(count(text.len()), MAX_BYTES, "bytes of a text"),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Set(_)
        | Value::Object(_)
        | Value::Undefined => Ok(()),
    })
}

/// A built-in with what it needs to be called from outside of a policy's text.
#[derive(Clone)]
struct Call {
    builtin: BuiltinFcn,
    bound: Bound,
    parameters: Vec<Ref<Expr>>,
    span: Span,
}

impl Call {
    fn new(builtin: BuiltinFcn, bound: Bound) -> Self {
        let source = Source::from_contents("built-in".to_owned(), String::new())
            .expect("an empty text is within every limit");
        let span = Span { source, line: 1, col: 1, start: 0, end: 0 };
        let blank = || Expr::Null { span: span.clone(), value: Value::Null, eidx: 0 };
        let parameters = (0..builtin.1).map(|_| Ref::new(blank())).collect();
        Self { builtin, bound, parameters, span }
    }

    /// Refuses what would be too much, and charges for what is taken.
    fn before(&self, given: &[Value]) -> Result<(), Refused> {
        texts(given)?;
        let read = if self.bound == Bound::Rest { given.get(1..) } else { Some(given) };
        let weight = pay(read.unwrap_or_default())?;
        let text = |at: usize| match given.get(at) {
            Some(Value::String(text)) => text.as_ref(),
            _ => "",
        };
        let length = |at: usize| count(text(at).len());
        match self.bound {
            Bound::Size | Bound::Rest => Ok(()),
            Bound::Concat => {
                let pieces = weight.units.saturating_add(1);
                at_most(length(0).saturating_mul(pieces), MAX_BYTES, "bytes of the result")
            }
            Bound::Cross => {
                let mut product: u64 = 1;
                for value in given {
                    product = product.saturating_mul(weigh([value])?.units);
                }
                Ok(cross(product)?)
            }
            Bound::Digits => given.iter().try_for_each(short_numbers),
            Bound::Find | Bound::FindGroups => {
                // What is found is weighed too late: it was all made by then.
                let groups = if self.bound == Bound::Find { 0 } else { parentheses(text(0)) };
                let found = groups.saturating_add(1).saturating_mul(length(1).saturating_add(1));
                at_most(found, MAX_UNITS, "groups of all matches")?;
                self.search(text(0), text(1), true)
            }
            Bound::Format => format(text(0), weight.units),
            Bound::Indent => indent(given, weight.units),
            Bound::Json => text::json_numbers_are_short(text(0)),
            Bound::Patch => patch(given),
            Bound::Pattern => {
                let (pattern, searched) =
                    if self.builtin.1 == 1 { (0, 0) } else { (0, self.text_at()) };
                self.search(text(pattern), text(searched), false)
            }
            Bound::PatternReplace => {
                self.search(text(1), text(0), true)?;
                let groups = count(text(2).bytes().filter(|byte| *byte == b'$').count());
                let one = length(2).saturating_add(groups.saturating_mul(length(0)));
                let all = length(0).saturating_add(1).saturating_mul(one);
                at_most(all, MAX_BYTES, "bytes of the result")
            }
            Bound::Product => product(given),
            Bound::Range => range(given),
            Bound::Replace => {
                let places = (length(0) / length(1).max(1)).saturating_add(1);
                at_most(places.saturating_mul(length(2)), MAX_BYTES, "bytes of the result")
            }
            Bound::Shift => {
                let bits = given.get(1).and_then(|bits| bits.as_u64().ok());
                at_most(bits.unwrap_or(u64::MAX), MAX_SHIFT, "bits of the shift")
            }
            Bound::Walk => {
                at_most(weight.paths, MAX_UNITS, "steps of all paths")?;
                Ok(work(weight.paths)?)
            }
        }
    }

    /// Which argument a pattern is matched against: the last of `glob.match`, else the second.
    fn text_at(&self) -> usize {
        if self.builtin.1 == 3 { 2 } else { 1 }
    }

    /// Pays for compiling a pattern and looking for it, once or at every place of a text.
    fn search(&self, pattern: &str, text: &str, all: bool) -> Result<(), Refused> {
        let written = text::written_out(pattern);
        at_most(written, MAX_PATTERN, "characters of a pattern, written out,")?;
        let length = count(text.len());
        at_most(length, MAX_SEARCHED, "bytes of a searched text")?;
        let each = written.max(1).saturating_mul(length);
        let again = if all { length.saturating_mul(length) } else { 0 };
        let looked = each.saturating_add(again) / SEARCH_PER_TICK;
        Ok(ticks::charge(looked.saturating_add(written / 4).saturating_add(PATTERN_TICKS))?)
    }
}

/// Groups of a pattern, and what looks like one.
fn parentheses(pattern: &str) -> u64 {
    count(pattern.bytes().filter(|byte| *byte == b'(').count())
}

/// Texts that are read as numbers, and numbers that are read as dates.
fn short_numbers(value: &Value) -> Result<(), Refused> {
    match value {
        Value::String(text) => {
            at_most(count(text.len()), MAX_DIGITS, "characters of a number or a time")?;
            text::numbers_are_short(text)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Set(_)
        | Value::Object(_)
        | Value::Undefined => Ok(()),
    }
}

fn format(format: &str, units: u64) -> Result<(), Refused> {
    let verbs = count(format.bytes().filter(|byte| *byte == b'%').count());
    let after = format.split('%').skip(1);
    // A width may be digits anywhere between the percent sign and the verb.
    let widths = after.map(|verb| {
        let flags = verb.bytes().take_while(|byte| !byte.is_ascii_alphabetic());
        count(flags.filter(u8::is_ascii_digit).count())
    });
    at_most(widths.max().unwrap_or(0), MAX_WIDTH_DIGITS, "digits of a width")?;
    let printed = verbs.saturating_mul(units);
    at_most(printed, MAX_UNITS, "elements that are printed")?;
    Ok(work(printed)?)
}

fn indent(given: &[Value], units: u64) -> Result<(), Refused> {
    if let Some(Value::Object(options)) = given.get(1) {
        for name in ["indent", "prefix"] {
            if let Some(Value::String(text)) = options.get(&Value::from(name)) {
                at_most(count(text.len()), MAX_INDENT, "bytes of an indentation")?;
            }
        }
    }
    let levels = count(weigh(given.first())?.levels).saturating_add(2);
    let bytes = units.saturating_mul(levels).saturating_mul(MAX_INDENT);
    at_most(bytes, MAX_BYTES.saturating_mul(16), "bytes of indentation")
}

/// Each copy may double the document.
fn patch(given: &[Value]) -> Result<(), Refused> {
    let (document, operations) = (weigh(given.first())?.units, weigh(given.get(1))?.units);
    let mut copies = 0_u32;
    if let Some(Value::Array(patches)) = given.get(1) {
        for patch in patches.iter() {
            let kind = patch.as_object().ok().and_then(|patch| patch.get(&Value::from("op")));
            if kind == Some(&Value::from("copy")) {
                copies = copies.saturating_add(1);
            }
        }
    }
    let grown = document.saturating_add(operations);
    let factor = 1_u64.checked_shl(copies).unwrap_or(u64::MAX);
    let grown = if copies >= u64::BITS { u64::MAX } else { grown.saturating_mul(factor) };
    at_most(grown, MAX_UNITS, "elements of the patched document")?;
    Ok(cross(grown.saturating_mul(operations))?)
}

/// A product is as long as its factors together.
fn product(given: &[Value]) -> Result<(), Refused> {
    let bits = |value: &Value| match value {
        Value::Number(number) => number.as_big().map_or(64, |big| big.bits()),
        Value::Null
        | Value::Bool(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Set(_)
        | Value::Object(_)
        | Value::Undefined => 0,
    };
    let all: u64 = match given.first() {
        Some(Value::Array(items)) => items.iter().map(bits).fold(0, u64::saturating_add),
        Some(Value::Set(items)) => items.iter().map(bits).fold(0, u64::saturating_add),
        _ => 0,
    };
    at_most(all, super::weigh::MAX_BITS, "bits of a product")
}

fn range(given: &[Value]) -> Result<(), Refused> {
    let end = |at: usize| given.get(at).and_then(|end| end.as_i64().ok());
    let span = match (end(0), end(1)) {
        (Some(from), Some(to)) => from.abs_diff(to),
        // Fractions are refused by the built-in itself; what does not fit is far too much.
        _ => u64::MAX,
    };
    at_most(span, MAX_RANGE, "elements of the range")?;
    Ok(ticks::charge(span)?)
}

#[cfg(test)]
mod tests;
