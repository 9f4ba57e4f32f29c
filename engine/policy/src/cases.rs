//! Cases: requests with what is expected of them, in files beside the policies.

mod codes;
mod schema;
mod variants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use placet_core::{
    AccountPath, AdmissionRequest, Code, Digest, Effect, Id, PolicyVerdict, SlaTerms, Verdict,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::bundle::Bundle;
use crate::bundle::place::{Step, locate};
use crate::document;
use crate::error::{Fault, LoadError};
use crate::evaluate::{Candidate, Evaluation, Evaluator, PolicySet};
use crate::facts::{Facts, MAX_FACTS_BYTES};
use variants::{Sets, Variants};

/// Largest file of cases in bytes.
const MAX_CASES_BYTES: usize = 4 << 20;
/// Most cases of a bundle: far beyond what people write, and a server that is to activate a bundle
/// runs all of them first, those of twins too, each of which may use up its budget.
const MAX_CASES: usize = 20_000;
/// Longest name of a case in bytes: it stands in one line of a report or a log.
const MAX_NAME_BYTES: usize = 256;
/// Longest failure of a case in bytes: it may repeat whatever a policy said, and is for a person to
/// read.
const MAX_FAILURE_BYTES: usize = 1_024;
/// What stands for the rest of a failure that is too long.
const CUT: &str = "...";
/// Most failures of a case: the first tell enough.
const MAX_FAILURES: usize = 64;
/// Most failed cases of a file whose line is told: to find one the file is read once more.
const MAX_PLACED: usize = 64;

/// Requests at a time, against facts, with what must come out of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "Cases")]
#[serde(deny_unknown_fields)]
struct CaseFile {
    /// Path of the facts from the directory of this file on; it stays inside the bundle.
    facts: String,
    /// What every case asks.
    #[serde(default)]
    #[schemars(with = "Option<schema::Request>")]
    request: Value,
    /// The cases, each name once.
    #[schemars(length(min = 1, max = MAX_CASES))]
    cases: Vec<Case>,
}

/// A request with what is expected of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Case {
    /// One line that tells it from the others, 1 to 256 bytes.
    #[schemars(length(min = 1, max = MAX_NAME_BYTES))]
    name: String,
    /// When it is asked, in seconds since 1970-01-01 UTC.
    time: u64,
    /// Laid over the request of the file, mapping by mapping; `null` removes.
    #[serde(default)]
    #[schemars(with = "Option<schema::Request>")]
    request: Value,
    /// By policy: laid over the params of the manifest, mapping by mapping; `null` removes.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Map<String, Value>>")]
    params: BTreeMap<Id, Value>,
    /// Whether the policies get them even if loading would refuse them.
    #[serde(default)]
    unchecked: bool,
    /// What must come out.
    expect: Expect,
}

/// What is expected; what is absent is not looked at.
#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// A part of what loading says of the case's params. Alone: nothing else is expected then.
    refused: Option<String>,
    /// The final word.
    effect: Option<Effect>,
    /// Exactly the codes of the denials, of all policies together.
    codes: Option<BTreeSet<Code>>,
    /// Exactly the codes of the warnings.
    warnings: Option<BTreeSet<Code>>,
    /// Exactly the ids of the obligations.
    obligations: Option<BTreeSet<Id>>,
    /// Exactly the claims.
    claims: Option<Vec<ExpectedClaim>>,
    /// What single policies say, by name.
    #[schemars(with = "Option<BTreeMap<String, Verdict>>")]
    verdicts: Option<BTreeMap<Id, Verdict>>,
    /// Whether the request may displace others.
    preemption: Option<bool>,
    /// Of what is promised nothing, zeros.
    terms: Option<SlaTerms>,
}

/// What is taken from the ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectedClaim {
    /// Path of the account.
    account: AccountPath,
    /// How much, in the unit of the account.
    amount: u64,
    /// The limit that the claim brings along; not looked at if absent.
    limit: Option<u64>,
}

/// What became of one case.
#[derive(Debug, Clone)]
pub struct CaseReport {
    /// The file of the bundle that holds it.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Line from 1 on which its name stands; only where it failed, for the first 64 of a file.
    pub line: Option<u32>,
    /// What was not as expected, one thing each, at most 1,024 bytes each and 64 in all, and how
    /// many more there are; empty if it passed.
    pub failures: Vec<String>,
    /// What the bundle said; absent if the request could not be resolved to an input.
    pub evaluation: Option<Evaluation>,
}

/// Runs files of cases against a set of policies and, where it has them, their twins.
#[derive(Debug)]
pub struct CaseRunner {
    base: Sets,
    variants: Variants,
    /// By the digest of the file: many files of cases share one.
    facts: BTreeMap<Digest, Arc<Facts>>,
    /// The bundle whose cases were counted and are few enough.
    counted: Option<Digest>,
}

impl CaseRunner {
    /// A runner for a compiled bundle; `twins` are those of the same bundle.
    #[must_use]
    pub fn new(policies: Arc<PolicySet>, twins: Option<Arc<PolicySet>>) -> Self {
        let (policies, twins) = (Evaluator::new(policies), twins.map(Evaluator::new));
        let base = Sets { policies, twins, recorded: None };
        Self { base, variants: Variants::default(), facts: BTreeMap::new(), counted: None }
    }

    /// The published JSON Schema (draft 2020-12) of a file of cases.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(CaseFile)
    }

    /// The same, that evaluates each case once more with policies that record what is reached, see
    /// [`PolicySet::compile_recorded`].
    #[must_use]
    pub fn recording(mut self, recorded: Arc<PolicySet>) -> Self {
        self.base.recorded = Some(Evaluator::new(recorded));
        self
    }

    /// Runs every case of a file of the bundle, see [`Bundle::case_files`]. `convert` reads a
    /// request from JSON, as the server does.
    ///
    /// # Errors
    /// [`LoadError`] if the file or its facts are not in the bundle or break a rule, or if all
    /// files of cases in the bundle hold more than 20,000. A case that fails is no error.
    pub fn run(
        &mut self,
        bundle: &Bundle,
        file: &str,
        convert: impl Fn(&Value) -> Result<AdmissionRequest, String>,
    ) -> Result<Vec<CaseReport>, LoadError> {
        let Some(bytes) = bundle.find(file) else {
            let hint = "name a file of cases by its path in the bundle";
            return Err(Fault::new(file, "is no file of the bundle").hint(hint).into());
        };
        if self.counted != Some(bundle.digest()) {
            count(bundle)?;
            (self.counted, self.variants) = (Some(bundle.digest()), Variants::default());
        }
        let text = document::text(bytes, file)?;
        let read = parse(file, text)?;
        let facts = self.facts(bundle, file, &read.facts);
        let facts = facts.map_err(|error| placed(error, file, text, &["facts".into()]))?;
        let mut reports = Vec::with_capacity(read.cases.len());
        let mut told = 0;
        for (position, case) in read.cases.iter().enumerate() {
            let sets = self.variants.of(&mut self.base, bundle, file, case);
            let place = [Step::from("cases"), position.into(), "params".into()];
            let sets = sets.map_err(|fault| at(fault, text, &place))?;
            let mut request = read.request.clone();
            merge(&mut request, &case.request);
            let (mut failures, evaluation) = match (sets, &case.expect.refused) {
                (Err(why), Some(expected)) if why.contains(expected) => (Vec::new(), None),
                (Err(why), _) => (vec![format!("the params are refused: {why}")], None),
                (Ok(_), Some(_)) => (vec!["the params are not refused".to_owned()], None),
                (Ok(sets), None) => match convert(&request) {
                    Ok(request) => sets.run(case, &facts, &request),
                    Err(error) => (vec![unreadable(&error)], None),
                },
            };
            if !failures.is_empty() {
                failures.extend(codes::unheard_of(bundle, &case.expect));
            }
            let (file, failures) = (file.to_owned(), bounded(failures));
            let mut line = None;
            if !failures.is_empty() && told < MAX_PLACED {
                told += 1;
                line = line_of(text, position);
            }
            reports.push(CaseReport { file, name: case.name.clone(), line, failures, evaluation });
        }
        Ok(reports)
    }

    fn facts(
        &mut self,
        bundle: &Bundle,
        cases: &str,
        relative: &str,
    ) -> Result<Arc<Facts>, LoadError> {
        let wrong = |message: &str, hint: String| {
            Err(Fault::new(cases, format!("facts `{relative}` {message}")).hint(hint).into())
        };
        let Some(path) = beside(cases, relative) else {
            let hint = "give a path from the directory of the cases on, inside the bundle";
            return wrong("leave the bundle", hint.into());
        };
        let Some(bytes) = bundle.find(&path) else {
            let known = bundle.files().map(|(path, _)| path);
            let hint = match document::nearest(&path, known) {
                Some(near) => format!("did you mean `{near}` in the bundle?"),
                None => "put the facts of the cases into the bundle".into(),
            };
            return wrong(&format!("are not in the bundle, as `{path}`"), hint);
        };
        let digest = Digest::of(bytes);
        if let Some(facts) = self.facts.get(&digest) {
            return Ok(Arc::clone(facts));
        }
        if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FACTS_BYTES) {
            return wrong(&format!("have more than {MAX_FACTS_BYTES} bytes"), "split them".into());
        }
        let facts = Arc::new(Facts::parse(document::text(bytes, &path)?, &path)?);
        self.facts.insert(digest, Arc::clone(&facts));
        Ok(facts)
    }
}

/// The line on which the name of a case stands.
fn line_of(text: &str, case: usize) -> Option<u32> {
    let path = [Step::from("cases"), case.into(), "name".into()];
    locate(text, &path).map(|(line, _)| line)
}

/// A fault at a place of a document, if that can be told.
fn at(fault: Fault, text: &str, path: &[Step]) -> Fault {
    match locate(text, path) {
        Some((line, column)) => fault.at(line, Some(column)),
        None => fault,
    }
}

/// An error at a place of a file, if it is about that file as a whole.
fn placed(error: LoadError, file: &str, text: &str, path: &[Step]) -> LoadError {
    let LoadError::Invalid(fault) = error else { return error };
    if fault.file == file { at(*fault, text, path).into() } else { LoadError::Invalid(fault) }
}

/// Why a request cannot be read. Of the names that an unknown one might have meant, the nearest.
fn unreadable(error: &str) -> String {
    /// How the conversion of requests tells which fields there are.
    const KNOWN: &str = "\nhint: known here are ";
    let told = |error| format!("the request cannot be read: {error}");
    let Some((what, known)) = error.split_once(KNOWN) else { return told(error) };
    let wrong = what.split('`').nth(1).and_then(|path| path.rsplit('.').next());
    match wrong.and_then(|wrong| document::nearest(wrong, known.split(", "))) {
        Some(near) => format!("{}\nhint: did you mean `{near}`?", told(what)),
        None => told(error),
    }
}

/// Reads a file of cases.
fn parse(file: &str, text: &str) -> Result<CaseFile, Fault> {
    if text.len() > MAX_CASES_BYTES {
        let fault = Fault::new(file, format!("has more than {MAX_CASES_BYTES} bytes"));
        return Err(fault.hint("split it"));
    }
    let read: CaseFile = document::parse(text, file)?;
    if read.cases.is_empty() {
        let fault = Fault::new(file, "has no cases").hint("add one under `cases`");
        return Err(at(fault, text, &["cases".into()]));
    }
    let mut names = BTreeSet::new();
    for (position, case) in (1_usize..).zip(&read.cases) {
        let name = &case.name;
        let place = [Step::from("cases"), position.saturating_sub(1).into(), "name".into()];
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(char::is_control) {
            let message = format!(
                "the name of case {position} is not one line of 1 to {MAX_NAME_BYTES} bytes"
            );
            let hint = "shorten it, and explain the case in a comment";
            return Err(at(Fault::new(file, message).hint(hint), text, &place));
        }
        let Expect { refused, .. } = &case.expect;
        let alone = Expect { refused: refused.clone(), ..Expect::default() };
        let refusable = !case.params.is_empty() && !case.unchecked && case.expect == alone;
        if refused.is_some() && !refusable {
            let message = format!("case `{name}` expects more than that its params are refused");
            let hint = "give it `params`, and nothing else to expect; what is `unchecked` is never \
                        refused";
            return Err(at(Fault::new(file, message).hint(hint), text, &place));
        }
        if !names.insert(name) {
            let fault = Fault::new(file, format!("two cases are named `{name}`"));
            let fault = fault.hint("give each case a name of its own").of_rule("duplicate-case");
            return Err(at(fault, text, &place));
        }
    }
    Ok(read)
}

/// What a file of cases names, for those who check a bundle without running it.
#[derive(Debug)]
pub(crate) struct Outline {
    /// Path in the bundle of the facts; none if it leads out of it.
    pub(crate) facts: Option<String>,
    /// As it is written.
    pub(crate) relative: String,
    /// Codes that cases expect, with the way to the list that each is in.
    pub(crate) codes: Vec<(Code, Vec<Step>)>,
    /// Policies whose params or verdicts cases name, with the way there.
    pub(crate) policies: Vec<(Id, Vec<Step>)>,
}

/// Reads a file of cases without its facts.
///
/// # Errors
/// [`Fault`] if the file breaks a rule.
pub(crate) fn outline(file: &str, bytes: &[u8]) -> Result<Outline, Fault> {
    let read = parse(file, document::text(bytes, file)?)?;
    let (mut codes, mut policies) = (Vec::new(), Vec::new());
    for (at, case) in read.cases.iter().enumerate() {
        let way = |steps: &[&str]| -> Vec<Step> {
            let start = [Step::from("cases"), at.into()];
            start.into_iter().chain(steps.iter().map(|step| Step::from(*step))).collect()
        };
        for (list, key) in [(&case.expect.codes, "codes"), (&case.expect.warnings, "warnings")] {
            let list = list.iter().flatten();
            codes.extend(list.map(|code| (code.clone(), way(&["expect", key]))));
        }
        policies.extend(case.params.keys().map(|id| (id.clone(), way(&["params", id.as_str()]))));
        let verdicts = case.expect.verdicts.iter().flat_map(BTreeMap::keys);
        let way = |id: &Id| way(&["expect", "verdicts", id.as_str()]);
        policies.extend(verdicts.map(|id| (id.clone(), way(id))));
    }
    let facts = beside(file, &read.facts);
    Ok(Outline { facts, relative: read.facts, codes, policies })
}

/// Checks that a bundle has no more cases than may be run.
fn count(bundle: &Bundle) -> Result<(), Fault> {
    /// A file of cases as far as it is counted.
    #[derive(Deserialize)]
    struct Counted {
        cases: Vec<IgnoredAny>,
    }
    let mut all = 0_usize;
    for file in bundle.case_files() {
        let bytes = bundle.file(&file);
        if bytes.len() > MAX_CASES_BYTES {
            continue;
        }
        // Whoever runs a file that cannot be read is told so then; none of its cases run.
        let read = document::text(bytes, &file)
            .and_then(|text| document::parse::<Counted>(text, &file))
            .map_or(0, |counted| counted.cases.len());
        all = all.saturating_add(read);
        if all > MAX_CASES {
            let message = format!("the bundle has more than {MAX_CASES} cases, counted up to here");
            let hint = "drop cases that test the same, or split the bundle";
            return Err(Fault::new(file, message).hint(hint));
        }
    }
    Ok(())
}

/// Failures as they are reported: a bounded number, each of bounded length.
fn bounded(mut failures: Vec<String>) -> Vec<String> {
    let more = failures.len().saturating_sub(MAX_FAILURES);
    failures.truncate(MAX_FAILURES);
    for failure in &mut failures {
        if failure.len() > MAX_FAILURE_BYTES {
            let end = MAX_FAILURE_BYTES.saturating_sub(CUT.len());
            failure.truncate(failure.floor_char_boundary(end));
            failure.push_str(CUT);
        }
    }
    if more > 0 {
        failures.push(format!("and {more} more"));
    }
    failures
}

/// The path in the bundle of what is named from a file of it on; none if that is outside.
fn beside(file: &str, relative: &str) -> Option<String> {
    if relative.starts_with('/') {
        return None;
    }
    let mut path: Vec<&str> = file.split('/').collect();
    path.pop();
    for segment in relative.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                path.pop()?;
            }
            segment => path.push(segment),
        }
    }
    Some(path.join("/"))
}

/// What was said of a case's request.
struct Told<'a> {
    effect: Effect,
    codes: BTreeSet<Code>,
    candidate: Option<&'a Candidate>,
}

impl Expect {
    fn compare(&self, told: &Told<'_>) -> Vec<String> {
        let mut failures = Vec::new();
        same("effect", self.effect.as_ref(), &told.effect, &mut failures);
        same("codes", self.codes.as_ref(), &told.codes, &mut failures);
        let outcome = told.candidate.map(|candidate| &candidate.outcome);
        let warnings = outcome.iter().flat_map(|outcome| &outcome.warnings);
        let warnings = warnings.map(|warning| warning.code.clone()).collect();
        same("warnings", self.warnings.as_ref(), &warnings, &mut failures);
        let obligations = outcome.iter().flat_map(|outcome| &outcome.obligations);
        let obligations = obligations.map(|obligation| obligation.id.clone()).collect();
        same("obligations", self.obligations.as_ref(), &obligations, &mut failures);
        let preemption = outcome.is_some_and(|outcome| outcome.preemption.is_some());
        same("preemption", self.preemption.as_ref(), &preemption, &mut failures);
        let terms = outcome.and_then(|outcome| outcome.terms).unwrap_or_default();
        same("terms", self.terms.as_ref(), &terms, &mut failures);
        self.compare_claims(told, &mut failures);
        for (policy, expected) in self.verdicts.iter().flatten() {
            let verdicts = told.candidate.iter().flat_map(|candidate| &candidate.verdicts);
            match verdicts.into_iter().find(|verdict| verdict.policy == *policy) {
                Some(found) if found.verdict == *expected => {}
                Some(found) => {
                    let why = found.error.as_ref().map(|error| format!(": {error}"));
                    let why = why.unwrap_or_default();
                    let found = found.verdict;
                    failures.push(format!("`{policy}` said {found:?}{why}, not {expected:?}"));
                }
                None => failures.push(format!("`{policy}` was not asked, expected {expected:?}")),
            }
        }
        failures
    }

    /// Claims are an exact set; a limit that is not written down is not looked at.
    fn compare_claims(&self, told: &Told<'_>, failures: &mut Vec<String>) {
        let Some(expected) = &self.claims else { return };
        let claims = told.candidate.iter().flat_map(|candidate| &candidate.outcome.claims);
        let mut expected: Vec<_> = expected.iter().collect();
        expected.sort();
        let found: Vec<_> = claims
            .map(|claim| {
                let claim = &claim.claim;
                let same = expected.iter().find(|expected| expected.account == claim.account);
                let limit = same.is_none_or(|expected| expected.limit.is_some());
                ExpectedClaim {
                    account: claim.account.clone(),
                    amount: claim.amount,
                    limit: claim.limit.filter(|_| limit),
                }
            })
            .collect();
        if found.iter().ne(expected.iter().copied()) {
            failures.push(format!("claims are {}, not {}", show(&found), show(expected)));
        }
    }
}

fn show<'a>(claims: impl IntoIterator<Item = &'a ExpectedClaim>) -> String {
    let claims = claims.into_iter().map(|claim| {
        let limit = claim.limit.map(|limit| format!(" of {limit}")).unwrap_or_default();
        format!("{} {}{limit}", claim.account, claim.amount)
    });
    format!("[{}]", claims.collect::<Vec<_>>().join(", "))
}

fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: Option<&T>,
    found: &T,
    failures: &mut Vec<String>,
) {
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        failures.push(format!("{what}: {found:?}, not {expected:?}"));
    }
}

/// Where a policy and its twin differ in anything but cost and the words of an error.
fn differences(one: &Evaluation, other: &Evaluation) -> Vec<String> {
    let mut differences = Vec::new();
    for (one, other) in one.candidates.iter().zip(&other.candidates) {
        for (policy, twin) in one.verdicts.iter().zip(&other.verdicts) {
            let plain = |verdict: &PolicyVerdict| PolicyVerdict {
                cost: placet_core::Cost::default(),
                error: None,
                ..verdict.clone()
            };
            if plain(policy) != plain(twin) {
                let show = |verdict: &PolicyVerdict| {
                    serde_json::to_string(verdict).unwrap_or_else(|error| error.to_string())
                };
                let (name, policy, twin) = (&policy.policy, show(policy), show(twin));
                differences.push(format!("`{name}` and its twin differ: {policy} and {twin}"));
            }
        }
    }
    differences
}

/// Lays `over` on `base`: objects field by field, `null` removes, all else replaces.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(key);
                } else {
                    merge(base.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (base @ Value::Null, Value::Object(over)) => {
            *base = Value::Object(serde_json::Map::new());
            merge(base, &Value::Object(over.clone()));
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_beside_a_file_never_leaves_the_bundle() {
        let beside = |relative| beside("quota/cases/a.yaml", relative);
        assert_eq!(beside("../../facts.yaml").as_deref(), Some("facts.yaml"));
        assert_eq!(beside("./f.yaml").as_deref(), Some("quota/cases/f.yaml"));
        for outside in ["../../../facts.yaml", "/facts.yaml", "../../../quota/cases/f.yaml"] {
            assert_eq!(beside(outside), None, "{outside}");
        }
    }

    #[test]
    fn requests_merge_deeply_and_null_removes() {
        let mut base = json!({"a": {"b": 1, "c": [1, 2]}, "d": 4});
        merge(&mut base, &json!({"a": {"c": [3], "e": {"f": null, "g": 5}}, "d": null}));
        assert_eq!(base, json!({"a": {"b": 1, "c": [3], "e": {"g": 5}}}));
        merge(&mut base, &Value::Null);
        assert_eq!(base["a"]["b"], 1);
    }

    #[test]
    fn failures_are_cut_between_characters_and_counted() {
        let long = "\u{e9}".repeat(MAX_FAILURE_BYTES);
        let whole = "x".repeat(MAX_FAILURE_BYTES);
        let cut = bounded(vec![long.clone(), whole.clone()]);
        assert_eq!(cut[1], whole);
        assert!(cut[0].len() <= MAX_FAILURE_BYTES && cut[0].ends_with(CUT), "{}", cut[0]);
        assert!(long.starts_with(cut[0].trim_end_matches(CUT)));
        let many = bounded(vec![String::new(); MAX_FAILURES + 3]);
        assert_eq!((many.len(), many[MAX_FAILURES].as_str()), (MAX_FAILURES + 1, "and 3 more"));
    }
}
