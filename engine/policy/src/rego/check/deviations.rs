//! Constructs that the interpreter answers otherwise than OPA does. They are refused when a module
//! is loaded, so that nobody gets a wrong answer and does not know.

use regorus::unstable::{Expr, Module};

use super::Wrong;
use super::walk::{self, Visit};
use crate::error::Fault;

/// Refuses the first such construct of a module.
pub(in crate::rego) fn check(module: &Module, file: &str) -> Result<(), Fault> {
    let mut search = Search { file, found: None };
    walk::module(module, &mut search);
    search.found.map_or(Ok(()), Err)
}

struct Search<'m> {
    file: &'m str,
    found: Option<Fault>,
}

impl<'m> Visit<'m> for Search<'m> {
    fn expr(&mut self, expr: &'m Expr) {
        if self.found.is_none()
            && let Some(wrong) = number(expr)
        {
            self.found = Some(wrong.place(self.file, expr.span()));
        }
    }
}

/// Largest whole number that every reader of JSON keeps exact (RFC 8785 section 3.2.2.3).
const MAX_WHOLE: u64 = placet_core::MAX_AMOUNT;

/// OPA counts in decimals of any length, the interpreter in whole numbers and binary fractions.
fn number(expr: &Expr) -> Option<Wrong> {
    let Expr::Number { span, .. } = expr else { return None };
    let text = span.text().trim_start_matches('-');
    if let Ok(whole) = text.parse::<u64>() {
        return (whole > MAX_WHOLE).then(|| Wrong {
            message: format!("`{text}` is beyond 2^53 - 1"),
            hint: "count in a larger unit".into(),
        });
    }
    (!is_exact(text)).then(|| Wrong {
        message: format!("`{text}` is no number that a binary fraction holds exactly"),
        hint: "count in whole numbers of a smaller unit, such as percent or milli-GPU".into(),
    })
}

/// Whether a decimal is a whole number below 2^53 over a power of two: `0.5` is, `0.1` is not.
fn is_exact(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()),
        None => (text, Some(0)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let places = i32::try_from(fraction.len()).ok().zip(exponent);
    let Some(places) = places.and_then(|(places, exponent)| places.checked_sub(exponent)) else {
        return false;
    };
    let Some(mut digits) = digits.parse::<u64>().ok().filter(|digits| *digits <= MAX_WHOLE) else {
        return false;
    };
    if places <= 0 {
        // 2^53 has 16 digits.
        let factor = u32::try_from(-places).ok().filter(|power| *power <= 16);
        let value = factor.and_then(|power| 10_u64.checked_pow(power)?.checked_mul(digits));
        return digits == 0 || value.is_some_and(|value| value <= MAX_WHOLE);
    }
    // A tenth is a half of a fifth: each place must give up one factor of five.
    for _ in 0..places {
        if digits == 0 {
            return true;
        }
        if !digits.is_multiple_of(5) {
            return false;
        }
        digits /= 5;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_exact;

    #[test]
    fn exact_are_whole_numbers_over_powers_of_two() {
        for text in ["0.5", "1.25", "3.0", "1e3", "2.5e1", "125e-3", "0.0", "9007199254740991.0"] {
            assert!(is_exact(text), "{text}");
        }
        for text in ["0.1", "1.2", "1e16", "1e400", "9007199254740993", "1e-1", "0.3e0", "1e-400"] {
            assert!(!is_exact(text), "{text}");
        }
    }
}
