//! Codes that a case expects and that nothing can say.

use std::collections::BTreeSet;

use placet_core::Code;

use super::Expect;
use crate::bundle::Bundle;
use crate::document::nearest;

/// Codes of the engine itself that a case can bring about: what does not resolve, what is asked for
/// a time that has passed, and policies that do not fit together.
const ENGINE: [&str; 14] = [
    "CLAIM_CONFLICT",
    "NO_APPLICABLE_POLICY",
    "OBLIGATION_CONFLICT",
    "POLICY_INDETERMINATE",
    "PREEMPTION_CONFLICT",
    "REQUIRED_POLICY_MISSING",
    "RESERVATION_ENDED",
    "START_IN_THE_PAST",
    "START_TOO_FAR_AHEAD",
    "UNKNOWN_CLUSTER",
    "UNKNOWN_DATASET",
    "UNKNOWN_GPU_MODEL",
    "UNKNOWN_MODEL",
    "UNKNOWN_TENANT",
];

/// One line for each expected code that stands in no policy of the bundle and is none of the
/// engine's. A policy that puts a code together from pieces is taken for one that cannot say it, so
/// this is only told of cases that fail.
pub(super) fn unheard_of(bundle: &Bundle, expect: &Expect) -> Vec<String> {
    let expected: BTreeSet<&Code> =
        [&expect.codes, &expect.warnings].into_iter().flatten().flatten().collect();
    let entries = bundle.manifest().policies.iter();
    let sources: Vec<&[u8]> = entries.map(|entry| bundle.file(&entry.source)).collect();
    let said = |code: &Code| {
        let own = ENGINE.contains(&code.as_str());
        own || sources.iter().any(|source| names(source, code.as_str()))
    };
    let unsaid = expected.into_iter().filter(|code| !said(code));
    unsaid.map(|code| told(code, &sources)).collect()
}

/// Whether a source has a code in it: in Rego as a word, in a component wherever, since texts stand
/// there end to end.
fn names(source: &[u8], code: &str) -> bool {
    match std::str::from_utf8(source) {
        Ok(text) => text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|w| w == code),
        Err(_) => source.windows(code.len()).any(|part| part == code.as_bytes()),
    }
}

fn told(code: &Code, sources: &[&[u8]]) -> String {
    let texts = sources.iter().filter_map(|source| std::str::from_utf8(source).ok());
    // Every text in quotes, and what stands between them, which is no code.
    let quoted = texts.flat_map(|text| text.split('"')).filter(|text| Code::new(*text).is_ok());
    let hint = match nearest(code.as_str(), quoted.chain(ENGINE)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            "write one that a policy has; those of the ledger never come out of a case".to_owned()
        }
    };
    format!("no policy has the code `{code}` in it\nhint: {hint}")
}
