//! Mending what can be mended without asking.

use super::place::Text;
use super::{Diagnostic, Fix};

/// A text with the fixes of diagnostics of its file put in. Of two that overlap only the first is,
/// so that what comes out is to be checked again. `None` if there is nothing to put in.
#[must_use]
pub fn fixed(text: &str, diagnostics: &[Diagnostic]) -> Option<String> {
    let places = Text::of(text);
    let mut changes: Vec<(usize, usize, &str)> = diagnostics
        .iter()
        .filter_map(|diagnostic| diagnostic.fix.as_ref())
        .map(|Fix { span, replacement }| {
            (places.byte(span.start), places.byte(span.end), replacement.as_str())
        })
        .collect();
    changes.sort_unstable();
    changes.dedup();
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for (start, end, replacement) in changes {
        let Some(between) = text.get(done..start).filter(|_| start >= done && end >= start) else {
            continue;
        };
        out.push_str(between);
        out.push_str(replacement);
        done = end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    (out != text).then_some(out)
}
