//! The files of cases of a bundle: what they name, held against what there is.

use std::collections::{BTreeMap, BTreeSet};

use super::place::{Position, Text};
use super::policies::Codes;
use super::{Found, Span};
use crate::bundle::place::{Step, locate};
use crate::bundle::{Bundle, PARAMS_CODES};
use crate::cases::{self, Outline};
use crate::document::{self, nearest};
use crate::error::Fault;
use crate::facts::{Facts, MAX_FACTS_BYTES};

/// Codes that the engine itself gives before or after it asks policies: those that a case can meet.
const ENGINES_OWN: [&str; 12] = [
    "CLAIM_CONFLICT",
    "NO_APPLICABLE_POLICY",
    "OBLIGATION_CONFLICT",
    "POLICY_INDETERMINATE",
    "PREEMPTION_CONFLICT",
    "REQUIRED_POLICY_MISSING",
    "START_IN_THE_PAST",
    "START_TOO_FAR_AHEAD",
    "UNKNOWN_CLUSTER",
    "UNKNOWN_DATASET",
    "UNKNOWN_GPU_MODEL",
    "UNKNOWN_TENANT",
];
/// The others, told apart from those of policies by how they begin.
const ENGINES_BEGIN: [&str; 3] = ["FREEZE_", "UNKNOWN_", "WAIVER_"];

pub(super) fn check(
    files: &BTreeMap<String, Vec<u8>>,
    bundle: Option<&Bundle>,
    codes: &Codes,
    found: &mut Found,
) {
    let Some(bundle) = bundle else { return };
    let mut expected: BTreeSet<String> = BTreeSet::new();
    let mut facts: BTreeSet<String> = BTreeSet::new();
    let mut readable = true;
    for file in bundle.case_files() {
        let Some(bytes) = files.get(&file) else { continue };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let outline = match cases::outline(&file, bytes) {
            Ok(outline) => outline,
            Err(fault) => {
                readable = false;
                found.fault(fault.of_rule("case-file"), text);
                continue;
            }
        };
        let look = Look { file: &file, text, bundle, codes };
        look.policies(&outline, found);
        look.codes(&outline, found);
        look.facts(&outline, files, &mut facts, found);
        expected.extend(outline.codes.into_iter().map(|(code, _)| code.to_string()));
    }
    // Where a file of cases cannot be read, nobody knows what is in it.
    if !readable {
        return;
    }
    let mut told = BTreeSet::new();
    for (file, span, code) in &codes.told {
        let tested = expected.contains(code) || codes.tested.contains(code);
        if tested || !told.insert(code) {
            continue;
        }
        let message = format!("no case and no `test_` rule expects `{code}`");
        let hint =
            "write one that the rule denies or warns of, in `cases/*.yaml` beside the policy";
        found.warn("code-without-case", file, Some(*span), message, hint);
    }
}

/// A file of cases.
struct Look<'l> {
    file: &'l str,
    text: &'l str,
    bundle: &'l Bundle,
    codes: &'l Codes,
}

impl Look<'_> {
    fn place(&self, way: &[Step]) -> Option<Position> {
        locate(self.text, way).map(|(line, column)| Position { line, column })
    }

    /// Where a word stands in a value, from the place of the value on.
    fn word(&self, way: &[Step], word: &str) -> Option<Span> {
        let start = self.place(way)?;
        let text = Text::of(self.text);
        let from = text.byte(start);
        let at = self.text.get(from..).and_then(|rest| rest.find(word));
        let at = from.saturating_add(at.unwrap_or(0));
        let end = text.position(at.saturating_add(word.len()));
        Some(Span { start: text.position(at), end })
    }

    fn policies(&self, outline: &Outline, found: &mut Found) {
        let names = || self.bundle.manifest().policies.iter().map(|entry| entry.name.as_str());
        for (id, way) in &outline.policies {
            if names().any(|name| name == id.as_str()) {
                continue;
            }
            let message = format!("`{id}` is no policy of the bundle");
            let hint = match nearest(id.as_str(), names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "name a policy of the manifest".to_owned(),
            };
            let fault = Fault::new(self.file, message).hint(hint).of_rule("case-file");
            let fault = match self.place(way) {
                Some(Position { line, column }) => fault.at(line, Some(column)),
                None => fault,
            };
            found.fault(fault, self.text);
        }
    }

    fn codes(&self, outline: &Outline, found: &mut Found) {
        for (code, way) in &outline.codes {
            let code = code.as_str();
            let own = ENGINES_OWN.contains(&code)
                || ENGINES_BEGIN.iter().any(|begin| code.starts_with(begin))
                || code.starts_with(PARAMS_CODES) && self.codes.open;
            if self.codes.open || own || self.codes.known.contains(code) {
                continue;
            }
            let known = self.codes.known.iter().map(String::as_str).chain(ENGINES_OWN);
            let hint = match nearest(code, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "expect a code that a policy of the bundle gives".to_owned(),
            };
            let message = format!("no rule of the bundle gives `{code}`");
            found.warn("unknown-code", self.file, self.word(way, code), message, hint);
        }
    }

    fn facts(
        &self,
        outline: &Outline,
        files: &BTreeMap<String, Vec<u8>>,
        seen: &mut BTreeSet<String>,
        found: &mut Found,
    ) {
        let missing = |message: String, hint: String| {
            let fault = Fault::new(self.file, message).hint(hint).of_rule("case-file");
            match self.place(&["facts".into()]) {
                Some(Position { line, column }) => fault.at(line, Some(column)),
                None => fault,
            }
        };
        let relative = &outline.relative;
        let Some(path) = &outline.facts else {
            let hint = "give a path from the directory of the cases on, inside the bundle";
            let fault = missing(format!("facts `{relative}` leave the bundle"), hint.to_owned());
            return found.fault(fault, self.text);
        };
        let Some(bytes) = files.get(path) else {
            let hint = match nearest(path, files.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}` in the bundle?"),
                None => "put the facts of the cases into the bundle".to_owned(),
            };
            let message = format!("facts `{relative}` are not in the bundle, as `{path}`");
            return found.fault(missing(message, hint), self.text);
        };
        if !seen.insert(path.clone()) {
            return;
        }
        let long = u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FACTS_BYTES);
        let read = match long {
            true => {
                Err(Fault::new(path.as_str(), format!("has more than {MAX_FACTS_BYTES} bytes")))
            }
            false => {
                document::text(bytes, path).and_then(|text| Facts::parse(text, path)).map(|_| ())
            }
        };
        if let Err(fault) = read {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            found.fault(fault.of_rule("facts"), text);
        }
    }
}
