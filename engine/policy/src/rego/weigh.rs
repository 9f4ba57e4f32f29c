//! How large a value is, as whoever compares, copies or prints it would find it.
//!
//! Values share their parts: forty rules that each hold the one before twice are forty small lists
//! in memory, and a million million elements to whoever compares two of them. So what counts is the
//! size written out.

use regorus::Value;

use super::order::{self, Kinds};
use super::ticks::{self, Spent};

/// Largest value written out, in units of one element or [`TEXT_UNIT`] bytes of text: one
/// megabyte of text, or what a large input holds ten times over.
pub(super) const MAX_UNITS: u64 = 1 << 18;
/// Bytes of text, and of a number, that weigh as much as an element.
pub(super) const TEXT_UNIT: u64 = 4;
/// Deepest nesting of a value: comparing, printing and dropping one recurse.
pub(super) const MAX_DEPTH: usize = 100;
/// Longest number in bits, as of the largest that fits a double three times over: multiplying long
/// numbers is more than one unit of work.
pub(super) const MAX_BITS: u64 = 4_096;
/// Units that count as one tick: 64 bytes of text, so that memory is bounded by ticks.
const UNITS_PER_TICK: u64 = 16;

/// Why a built-in does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It was asked for too much.
    #[error("{what} would be above {max}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much there may be.
        max: u64,
    },
    /// It was given what it does not take.
    #[error("{0}")]
    Wrong(String),
    /// The budget cannot pay it.
    #[error(transparent)]
    Spent(#[from] Spent),
}

/// Refuses a count above its limit.
pub(super) fn at_most(count: u64, max: u64, what: &'static str) -> Result<(), Refused> {
    if count > max { Err(Refused::TooMuch { what, max }) } else { Ok(()) }
}

/// A count that `usize` may hold, in the type of budgets.
pub(super) fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Units and levels of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Elements and text, in units.
    pub(super) units: u64,
    /// Levels of nesting: 0 for a scalar.
    pub(super) levels: usize,
    /// Elements times the level that each is on: what all their paths hold.
    pub(super) paths: u64,
}

impl Weight {
    /// Adds a value, and tells where in it there are sets and objects. What is compared with its
    /// neighbours is looked at once for all that is in it: `inside` says that it will be.
    fn add(&mut self, value: &Value, level: usize, inside: bool) -> Result<Kinds, Refused> {
        self.levels = self.levels.max(level);
        self.paths = self.paths.saturating_add(count(level).saturating_add(3));
        let one = match value {
            Value::String(text) => 1 + count(text.len()) / TEXT_UNIT,
            Value::Number(number) => {
                // Doubles and what fits 64 bits are short; only what does not is looked into.
                let short = number.as_u64().is_some() || number.as_i64().is_some();
                let bits = if short { None } else { number.as_big().map(|big| big.bits()) };
                at_most(bits.unwrap_or(0), MAX_BITS, "bits of a number")?;
                1 + bits.unwrap_or(0) / (8 * TEXT_UNIT)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Array(_)
            | Value::Set(_)
            | Value::Object(_)
            | Value::Undefined => 1,
        };
        self.units = self.units.saturating_add(one);
        at_most(self.units, MAX_UNITS, "elements of a value, written out,")?;
        let below = level.saturating_add(1);
        at_most(count(level), count(MAX_DEPTH), "levels of a value")?;
        let kinds = Kinds::of(value, level);
        match value {
            Value::Array(items) => items
                .iter()
                .try_fold(kinds, |kinds, item| Ok(kinds.and(self.add(item, below, inside)?))),
            Value::Set(items) => {
                let mut all = Kinds::default();
                for item in items.iter() {
                    all = all.and(self.add(item, below, true)?);
                }
                if all.mixed() && !inside {
                    order::alike(items.iter())?;
                }
                Ok(kinds.and(all))
            }
            Value::Object(fields) => {
                let (mut keys, mut all) = (Kinds::default(), kinds);
                for (key, value) in fields.iter_sorted() {
                    keys = keys.and(self.add(key, below, true)?);
                    all = all.and(self.add(value, below, inside)?);
                }
                if keys.mixed() && !inside {
                    order::alike(fields.iter_sorted().map(|(key, _)| key))?;
                }
                Ok(all.and(keys))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Undefined => Ok(kinds),
        }
    }
}

/// What values weigh together; refused above the limits.
pub(super) fn weigh<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Weight, Refused> {
    let mut weight = Weight::default();
    for value in values {
        weight.add(value, 0, false)?;
    }
    Ok(weight)
}

/// The same, and its price is paid.
pub(super) fn pay<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Weight, Refused> {
    let weight = weigh(values)?;
    ticks::charge(weight.units / UNITS_PER_TICK)?;
    Ok(weight)
}

/// Pays for looking at all of one value for each part of another.
pub(super) fn cross(product: u64) -> Result<(), Spent> {
    work(product / 64)
}

/// Pays for so many units that are worked through.
pub(super) fn work(units: u64) -> Result<(), Spent> {
    ticks::charge(units / UNITS_PER_TICK)
}
