//! Controls that policies name, held against the published numbering of their frameworks.

use super::place::Text;
use super::{Found, Span};
use crate::document::nearest;

const RULE: &str = "unknown-control";

/// A framework whose numbering is known, and whether it has a control.
type Framework = (&'static str, fn(&str) -> bool);

/// By the names that controls begin with.
const FRAMEWORKS: [Framework; 7] = [
    ("DORA", |it| article(it, 64)),
    ("GDPR", |it| article(it, 99)),
    ("HIPAA", hipaa),
    ("ISO27001", iso27001),
    ("NIST-800-53", nist_800_53),
    ("PCI-DSS", pci_dss),
    ("SOC2", soc2),
];

/// The criteria of the AICPA's Trust Services Criteria (2017): each group with its last number.
const SOC2: [(&str, u32); 20] = [
    ("CC1", 5),
    ("CC2", 3),
    ("CC3", 4),
    ("CC4", 2),
    ("CC5", 3),
    ("CC6", 8),
    ("CC7", 5),
    ("CC8", 1),
    ("CC9", 2),
    ("A1", 3),
    ("C1", 2),
    ("PI1", 5),
    ("P1", 1),
    ("P2", 1),
    ("P3", 2),
    ("P4", 3),
    ("P5", 2),
    ("P6", 7),
    ("P7", 1),
    ("P8", 1),
];

/// Annex A of ISO/IEC 27001:2022: each theme with its last number.
const ANNEX_A: [(&str, u32); 4] = [("A.5", 37), ("A.6", 8), ("A.7", 14), ("A.8", 34)];

/// The clauses of ISO/IEC 27001:2022 with their last subclause.
const CLAUSES: [(&str, u32); 7] =
    [("4", 4), ("5", 3), ("6", 3), ("7", 5), ("8", 3), ("9", 3), ("10", 2)];

/// The families of NIST SP 800-53 revision 5 with their last number.
const NIST: [(&str, u32); 20] = [
    ("AC", 25),
    ("AT", 6),
    ("AU", 16),
    ("CA", 9),
    ("CM", 14),
    ("CP", 13),
    ("IA", 12),
    ("IR", 10),
    ("MA", 7),
    ("MP", 8),
    ("PE", 23),
    ("PL", 11),
    ("PM", 32),
    ("PS", 9),
    ("PT", 8),
    ("RA", 10),
    ("SA", 23),
    ("SC", 51),
    ("SI", 23),
    ("SR", 12),
];

/// What is wrong with a control, with a remedy; `None` if nothing is known to be.
pub(super) fn wrong(control: &str) -> Option<(String, String)> {
    let (framework, number) = control.split_once(':')?;
    let Some((_, has)) = FRAMEWORKS.iter().find(|(name, _)| *name == framework) else {
        let message = format!("`{framework}` is no framework whose controls are known");
        let known = FRAMEWORKS.iter().map(|(name, _)| *name);
        let hint = match nearest(framework, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "a framework of your own is allowed by `# placet:allow unknown-control ...`".into()
            }
        };
        return Some((message, hint));
    };
    if has(number) {
        return None;
    }
    let hint = "see the framework's own numbering: SOC2:CC6.1, ISO27001:A.5.15, GDPR:32";
    Some((format!("`{framework}` has no control `{number}`"), hint.to_owned()))
}

/// Tells of controls wherever the annotations of a text name them.
pub(super) fn check(file: &str, text: &str, controls: &[String], found: &mut Found) {
    for control in controls {
        let Some((message, hint)) = wrong(control) else { continue };
        for span in annotated(text, control) {
            found.warn(RULE, file, Some(span), message.clone(), hint.clone());
        }
    }
}

/// A number without zeros before it, from 1 on.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|it: &u32| *it > 0 && it.to_string() == text)
}

/// Whether a group of a list has a number.
fn listed(list: &[(&str, u32)], group: &str, last: &str) -> bool {
    let most = list.iter().find(|(name, _)| *name == group).map(|(_, most)| *most);
    most.zip(number(last)).is_some_and(|(most, number)| number <= most)
}

fn soc2(control: &str) -> bool {
    control.split_once('.').is_some_and(|(group, last)| listed(&SOC2, group, last))
}

fn iso27001(control: &str) -> bool {
    if let Some((group, last)) = control.rsplit_once('.')
        && group.starts_with('A')
    {
        return listed(&ANNEX_A, group, last);
    }
    // A clause, with or without its subclauses.
    let mut parts = control.split('.');
    let clause = parts.next().unwrap_or_default();
    let known = CLAUSES.iter().any(|(name, _)| *name == clause);
    let second = parts.next().is_none_or(|second| listed(&CLAUSES, clause, second));
    known && second && parts.all(|part| number(part).is_some())
}

/// An article of a regulation, with or without `Art.`, and whatever of it is meant.
fn article(control: &str, most: u32) -> bool {
    let number_on = control.trim_start_matches("Article").trim_start_matches("Art");
    let number_on = number_on.trim_start_matches('.');
    let end = number_on.find(|c: char| !c.is_ascii_digit()).unwrap_or(number_on.len());
    let (article, rest) = number_on.split_at_checked(end).unwrap_or((number_on, ""));
    let inside = rest.is_empty() || rest.starts_with(['(', '.', '/', '-']);
    inside && number(article).is_some_and(|article| article <= most)
}

/// 45 CFR parts 160, 162 and 164: a section, and whatever of it is meant.
fn hipaa(control: &str) -> bool {
    let Some((part, section)) = control.split_once('.') else { return false };
    let end = section.find(|c: char| !c.is_ascii_digit()).unwrap_or(section.len());
    let section = section.get(..end).and_then(number);
    matches!((part, section), ("160" | "162" | "164", Some(100..=1902)))
}

fn pci_dss(control: &str) -> bool {
    let mut parts = control.split('.');
    let requirement = parts.next().and_then(number);
    requirement.is_some_and(|it| it <= 12) && parts.all(|part| number(part).is_some())
}

/// A control, with or without an enhancement in brackets.
fn nist_800_53(control: &str) -> bool {
    let (control, enhancement) = match control.split_once('(') {
        Some((control, rest)) => (control, rest.strip_suffix(')').and_then(number).is_some()),
        None => (control, true),
    };
    enhancement && control.split_once('-').is_some_and(|(family, last)| listed(&NIST, family, last))
}

/// The places of a text in the annotations of a source: lines of comments that have it as a word.
fn annotated(source: &str, word: &str) -> Vec<Span> {
    let mut places = Vec::new();
    let mut offset = 0_usize;
    for line in source.split_inclusive('\n') {
        let comment = line.starts_with('#');
        let found = line.match_indices(word).filter(|(at, _)| {
            let inside = |next: Option<char>| {
                next.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-'))
            };
            let before = line.get(..*at).and_then(|before| before.chars().next_back());
            let after = line.get(at.saturating_add(word.len())..).and_then(|it| it.chars().next());
            comment && !inside(before) && !inside(after)
        });
        for (at, _) in found {
            let start = offset.saturating_add(at);
            let end = start.saturating_add(word.len());
            places.extend(u32::try_from(start).ok().zip(u32::try_from(end).ok()));
        }
        offset = offset.saturating_add(line.len());
    }
    let text = Text::of(source);
    places.into_iter().map(|bytes| text.span(bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::wrong;

    #[test]
    fn published_numbers_are_known_and_others_are_not() {
        for known in [
            "SOC2:CC1.1",
            "SOC2:CC9.2",
            "SOC2:A1.3",
            "SOC2:PI1.5",
            "SOC2:P6.7",
            "ISO27001:A.5.37",
            "ISO27001:A.8.34",
            "ISO27001:6.1.2",
            "ISO27001:10",
            "GDPR:99",
            "GDPR:Art.6(1)(f)",
            "DORA:28",
            "HIPAA:164.312(a)(1)",
            "PCI-DSS:12.10.1",
            "NIST-800-53:AC-2(1)",
        ] {
            assert_eq!(wrong(known), None, "{known}");
        }
        for unknown in [
            "SOC2:CC6.9",
            "SOC2:CC10.1",
            "SOC2:CC6",
            "SOC2:CC6.01",
            "ISO27001:A.5.38",
            "ISO27001:A.9.1",
            "ISO27001:11",
            "ISO27001:A.6.0",
            "GDPR:100",
            "GDPR:0",
            "DORA:65",
            "HIPAA:99.1",
            "PCI-DSS:13.1",
            "NIST-800-53:AC-26",
            "NIST-800-53:ZZ-1",
            "GDPR:six",
        ] {
            assert!(wrong(unknown).is_some(), "{unknown}");
        }
        let (_, hint) = wrong("SOC:CC6.1").expect("it is unknown");
        assert_eq!(hint, "did you mean `SOC2`?");
    }
}
