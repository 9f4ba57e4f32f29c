//! Built-ins of our own, and bounds around those of the interpreter that could do too much at once.
//!
//! The interpreter looks at its budget between built-ins, never inside one. Those whose result can
//! be much larger than what they are given are refused before they begin; all that touch texts and
//! lists add their sizes to the budget.

use std::cell::Cell;

use regorus::unstable::{BUILTINS, BuiltinFcn, Expr, Ref, Span};
use regorus::{Engine, Source, Value};

use super::ticks;

/// Most bytes of text, and most elements, that one built-in may take and give.
const MAX_BYTES: u64 = 1 << 20;
/// Most elements of a range.
const MAX_RANGE: u64 = 10_000;
/// Bytes of text that count as one tick.
const BYTES_PER_TICK: u64 = 64;
/// What compiling a pattern costs in ticks.
const PATTERN_TICKS: u64 = 256;
/// Widest field of `sprintf`, in digits of the width.
const MAX_WIDTH_DIGITS: u64 = 3;
/// Most bits that a number is shifted by.
const MAX_SHIFT: u64 = 256;

/// Built-ins that are refused when a policy is loaded: name, and what to do instead.
pub(super) const REFUSED: [(&str, &str); 8] = [
    ("graph.reachable_paths", "its result can grow without bound: use `graph.reachable`"),
    ("http.send", "a policy cannot ask the world: put what it needs into the facts"),
    ("net.lookup_ip_addr", "a policy cannot ask the world: put what it needs into the facts"),
    ("opa.runtime", "a policy does not see its surroundings: use `data.params`"),
    ("rand.intn", "a decision must be repeatable: use what the input holds"),
    ("strings.replace_n", "its result can grow without bound: use `replace`"),
    ("time.now_local", "use `input.time`, in seconds UTC"),
    ("uuid.rfc4122", "a decision must be repeatable: use ids that the input holds"),
];

/// Built-ins that run within bounds, and what they do that needs one.
const BOUNDED: [(&str, Bound); 43] = [
    ("array.concat", Bound::Size),
    ("array.reverse", Bound::Size),
    ("array.slice", Bound::Size),
    ("base64.decode", Bound::Size),
    ("base64.encode", Bound::Size),
    ("base64url.decode", Bound::Size),
    ("base64url.encode", Bound::Size),
    ("base64url.encode_no_pad", Bound::Size),
    ("bits.lsh", Bound::Shift),
    ("concat", Bound::Concat),
    ("contains", Bound::Size),
    ("endswith", Bound::Size),
    ("format_int", Bound::Size),
    ("glob.match", Bound::Pattern),
    ("graph.reachable", Bound::Size),
    ("hex.decode", Bound::Size),
    ("hex.encode", Bound::Size),
    ("indexof", Bound::Size),
    ("indexof_n", Bound::Size),
    ("json.is_valid", Bound::Size),
    ("json.marshal", Bound::Size),
    ("json.unmarshal", Bound::Size),
    ("lower", Bound::Size),
    ("numbers.range", Bound::Range),
    ("numbers.range_step", Bound::Range),
    ("object.union", Bound::Size),
    ("object.union_n", Bound::Size),
    ("regex.find_all_string_submatch_n", Bound::Pattern),
    ("regex.find_n", Bound::Pattern),
    ("regex.globs_match", Bound::Pattern),
    ("regex.is_valid", Bound::Pattern),
    ("regex.match", Bound::Pattern),
    ("regex.replace", Bound::PatternReplace),
    ("regex.split", Bound::Pattern),
    ("regex.template_match", Bound::Pattern),
    ("replace", Bound::Replace),
    ("sort", Bound::Size),
    ("split", Bound::Size),
    ("sprintf", Bound::Format),
    ("startswith", Bound::Size),
    ("strings.count", Bound::Size),
    ("substring", Bound::Size),
    ("upper", Bound::Size),
];

/// How the work of a built-in is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// It works in proportion to what it takes and gives.
    Size,
    /// It repeats a delimiter.
    Concat,
    /// Its format asks for widths.
    Format,
    /// It compiles a pattern, then works in proportion.
    Pattern,
    /// It does both, and repeats a replacement.
    PatternReplace,
    /// It counts from one number to another.
    Range,
    /// It repeats a replacement.
    Replace,
    /// It makes a number longer.
    Shift,
}

thread_local! {
    /// `input.time` of the input under evaluation.
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// Sets what `time.now_ns` says on this thread.
pub(super) fn set_time(time: u64) {
    TIME.set(time);
}

/// Whether a policy may call it, and with how many arguments if that is fixed and it is one of
/// ours.
pub(super) fn arguments(name: &str) -> Option<Option<u8>> {
    if name == "print" {
        return Some(None);
    }
    let (_, count) = BUILTINS.get(name)?;
    let ours = name == "time.now_ns" || BOUNDED.iter().any(|(bounded, _)| *bounded == name);
    Some(ours.then_some(*count))
}

/// Every name that a policy may call.
pub(super) fn names<'a>() -> impl Iterator<Item = &'a str> {
    let refused = |name: &&str| REFUSED.iter().any(|(refused, _)| refused == name);
    BUILTINS.keys().map(|name| -> &'a str { name }).filter(move |name| !refused(name))
}

/// Puts ours before those of the interpreter.
pub(super) fn install(engine: &mut Engine) {
    let now = |_arguments: Vec<Value>| {
        Ok(Value::from(u128::from(TIME.get()).saturating_mul(1_000_000_000)))
    };
    engine
        .add_extension("time.now_ns".to_owned(), 0, Box::new(now))
        .expect("an engine has each built-in once");
    for (name, bound) in BOUNDED {
        let Some(builtin) = BUILTINS.get(name) else { continue };
        let call = Call::new(*builtin, bound);
        let run = move |arguments: Vec<Value>| {
            if let Err(error) = call.before(&arguments) {
                return Err(error.into());
            }
            let (function, _) = call.builtin;
            match function(&call.span, &call.parameters, &arguments, true) {
                Ok(value) => match settle(std::slice::from_ref(&value)) {
                    Ok(()) => Ok(value),
                    Err(error) => Err(error.into()),
                },
                Err(error) => Err(error),
            }
        };
        engine
            .add_extension(name.to_owned(), builtin.1, Box::new(run))
            .expect("an engine has each built-in once");
    }
}

/// A built-in was asked for too much.
#[derive(Debug, thiserror::Error)]
#[error("{what} would be above {max}")]
struct TooMuch {
    what: &'static str,
    max: u64,
}

fn at_most(count: u64, max: u64, what: &'static str) -> Result<(), TooMuch> {
    if count > max { Err(TooMuch { what, max }) } else { Ok(()) }
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
    fn before(&self, arguments: &[Value]) -> Result<(), TooMuch> {
        settle(arguments)?;
        let text = |at: usize| match arguments.get(at) {
            Some(Value::String(text)) => text.as_ref(),
            _ => "",
        };
        let length = |at: usize| length(text(at));
        match self.bound {
            Bound::Size => Ok(()),
            Bound::Concat => {
                let pieces = arguments.get(1).map_or(0, size).saturating_add(1);
                at_most(length(0).saturating_mul(pieces), MAX_BYTES, "bytes of the result")
            }
            Bound::Format => {
                let after = text(0).split('%').skip(1);
                let widths = after.map(|verb| {
                    let digits = verb.trim_start_matches(['.', '+', '-', ' ', '#']).bytes();
                    length_of(digits.take_while(u8::is_ascii_digit).count())
                });
                at_most(widths.max().unwrap_or(0), MAX_WIDTH_DIGITS, "digits of a width")
            }
            Bound::Pattern => {
                ticks::charge(PATTERN_TICKS);
                Ok(())
            }
            Bound::PatternReplace => {
                ticks::charge(PATTERN_TICKS);
                let groups = length_of(text(2).bytes().filter(|byte| *byte == b'$').count());
                let one = length(2).saturating_add(groups.saturating_mul(length(0)));
                let all = length(0).saturating_add(1).saturating_mul(one);
                at_most(all, MAX_BYTES, "bytes of the result")
            }
            Bound::Range => {
                let end = |at: usize| arguments.get(at).and_then(|end| end.as_i64().ok());
                let span = match (end(0), end(1)) {
                    (Some(from), Some(to)) => from.abs_diff(to),
                    // Fractions are refused by the built-in itself; what does not fit is far too
                    // much.
                    _ => u64::MAX,
                };
                ticks::charge(span.min(MAX_RANGE));
                at_most(span, MAX_RANGE, "elements of the range")
            }
            Bound::Replace => {
                let places = length(0) / length(1).max(1) + 1;
                at_most(places.saturating_mul(length(2)), MAX_BYTES, "bytes of the result")
            }
            Bound::Shift => {
                let bits = arguments.get(1).and_then(|bits| bits.as_u64().ok());
                at_most(bits.unwrap_or(u64::MAX), MAX_SHIFT, "bits of the shift")
            }
        }
    }
}

fn length(text: &str) -> u64 {
    length_of(text.len())
}

fn length_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Bytes of a text, elements of a list with the bytes of its texts.
fn size(value: &Value) -> u64 {
    let one = |value: &Value| match value {
        Value::String(text) => length(text).saturating_add(1),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::Array(_)
        | Value::Set(_)
        | Value::Object(_)
        | Value::Undefined => 1,
    };
    match value {
        Value::Array(items) => items.iter().map(one).fold(0, u64::saturating_add),
        Value::Set(items) => items.iter().map(one).fold(0, u64::saturating_add),
        Value::Object(items) => length_of(items.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Undefined => {
            one(value)
        }
    }
}

/// Charges for values that go in or come out, and refuses them if they are too large.
fn settle(values: &[Value]) -> Result<(), TooMuch> {
    let sizes = values.iter().map(size).fold(0, u64::saturating_add);
    ticks::charge(sizes / BYTES_PER_TICK);
    at_most(sizes, MAX_BYTES, "bytes or elements of a built-in's values")
}
