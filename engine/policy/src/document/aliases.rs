//! Refuses aliases of YAML. A few bytes of `*name` stand for all that stands at `&name`, so a small
//! file with aliases becomes any size in memory; the reader of YAML bounds how many it follows, and
//! not what that comes to.

use std::collections::BTreeSet;

use crate::error::Fault;

/// Refuses a text in which an alias may stand: a `*name` where some `&name` stands too. That also
/// finds a pair in a comment or in quotes, and misses none: before a YAML reader takes either for
/// what it is, it reads the very bytes that are looked for here.
pub(super) fn refuse(text: &str, name: &str) -> Result<(), Fault> {
    let anchors: BTreeSet<&str> = marked(text, '&').map(|(_, anchor)| anchor).collect();
    if anchors.is_empty() {
        return Ok(());
    }
    let Some((at, alias)) = marked(text, '*').find(|(_, alias)| anchors.contains(alias)) else {
        return Ok(());
    };
    let before = text.get(..at).unwrap_or_default();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    let line = number(before.matches('\n').count());
    let last = before.rsplit('\n').next().unwrap_or_default();
    let shown: String = alias.chars().take(64).collect();
    let fault = Fault::new(name, format!("`*{shown}` is an alias of `&{shown}`"));
    let hint = "write it out instead of `*alias`: what aliases stand for may have any size";
    Err(fault.at(line, Some(number(last.chars().count()))).hint(hint))
}

/// Names after a mark wherever a YAML reader could take it for an anchor or an alias, with the
/// place of the mark. As in libyaml's `yaml_parser_scan_anchor`: letters, digits, `_` and `-`, then
/// a blank or one of some signs. No mark after a letter or a digit: that is inside of a word.
fn marked(text: &str, mark: char) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices(mark).filter_map(move |(at, _)| {
        let within = |byte: &u8| byte.is_ascii_alphanumeric();
        if text.get(..at)?.as_bytes().last().is_some_and(within) {
            return None;
        }
        let rest = text.get(at.saturating_add(mark.len_utf8())..)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = (rest.get(..end)?, rest.get(end..)?);
        let ends = after.chars().next().is_none_or(|c| {
            let blank = c.is_ascii_whitespace() || c == '\0' || !c.is_ascii();
            blank || matches!(c, '?' | ':' | ',' | ']' | '}' | '%' | '@' | '`')
        });
        (ends && !name.is_empty()).then_some((at, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_refused_wherever_it_stands() {
        for text in [
            "a: &a 1\nb: *a\n",
            "a: &a [1]\nb: [x,*a]",
            "[&a-_9 x,*a-_9]",
            "{&a : 1, b: *a}",
            "- &a 1\n- *a : 2",
            "? &a x\n: *a",
            "a: !!str &a x\nb: *a",
            "a: &a !!str x\nb: *a\u{85}",
            "a: &a x\r\nb: *a\r\n",
            "a: &a x\u{2028}b: *a\u{2028}",
            "&a [*a]",
            "--- &a\n- 1\n- *a\n...",
            "a:\t&a\t1\nb: \"\"\nc: *a",
        ] {
            let fault = refuse(text, "f").expect_err(text);
            assert!(fault.line.is_some() && fault.hint.is_some(), "{fault}");
        }
        let fault = refuse("a: &x 1\nb: [\u{e9}, *x]\n", "f").expect_err("an alias");
        assert_eq!((fault.line, fault.column), (Some(2), Some(8)));
    }

    #[test]
    fn words_and_anchors_alone_are_left_alone() {
        for text in [
            "a: &a 1\n",
            "a: R&D and 2*3\n",
            "a: \"Q & A\"\nb: \"x * y\"\n",
            "a: \"**bold** &x *y\"\n",
            "a: \"https://example.com/?x=1&a=2\"\nb: 3 *a\n",
            "a: \"*.example.com\"\nb: \"&.\"\n",
        ] {
            refuse(text, "f").expect(text);
        }
    }

    proptest::proptest! {
        /// What is let through has no alias for the YAML reader either: without anchors it would
        /// be an unknown one, so each mark is followed by a name that is anchored before it.
        #[test]
        fn none_gets_past(text in "(&a|\\*a|&b|\\*b|[ \\n\\[\\]{},:?\"'|>!#%a-]){0,24}") {
            if refuse(&text, "f").is_ok() {
                let read: Result<yaml_serde::Value, _> = yaml_serde::from_str(&text);
                let plain = text.replace("*a", "*zz").replace("*b", "*zz");
                let again: Result<yaml_serde::Value, _> = yaml_serde::from_str(&plain);
                // Were one an alias, it would be an unknown one now.
                proptest::prop_assert_eq!(read.is_ok(), again.is_ok(), "{:?}", text);
            }
        }
    }
}
