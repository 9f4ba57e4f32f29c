//! Laws that hold of a policy whatever its words: two twins that are wrong alike break them.

use std::collections::BTreeSet;

use placet_core::{Id, IsolationLevel, PolicyVerdict, Verdict};
use placet_policy::input::Workload;
use placet_policy::{Evaluator, Input};

use super::verdict;

/// The lattice, from the least to the most.
pub(super) const LEVELS: [IsolationLevel; 5] = [
    IsolationLevel::Shared,
    IsolationLevel::Partitioned,
    IsolationLevel::Passthrough,
    IsolationLevel::Dedicated,
    IsolationLevel::Confidential,
];

fn asked(input: &mut Input) -> &mut Workload {
    input.lease.as_mut().or(input.job.as_mut()).expect("either is there")
}

/// The codes that begin so.
fn codes<'a>(verdict: &'a PolicyVerdict, prefix: &str) -> BTreeSet<&'a str> {
    let codes = verdict.reasons.iter().map(|reason| reason.code.as_str());
    codes.filter(|code| code.starts_with(prefix)).collect()
}

/// What is said of another input, unless one of both answers is too long to be read: what makes
/// the other one shorter may be anything.
fn other(
    evaluator: &mut Evaluator,
    one: &PolicyVerdict,
    change: impl FnOnce(&mut Input),
    input: &Input,
) -> Option<PolicyVerdict> {
    let mut changed = input.clone();
    change(&mut changed);
    let other = verdict(evaluator, &changed);
    let told = |verdict: &PolicyVerdict| verdict.verdict != Verdict::Indeterminate;
    (told(one) && told(&other)).then_some(other)
}

fn broken(law: &str, one: &PolicyVerdict, other: &PolicyVerdict) -> Result<(), String> {
    Err(format!("{law}: {one:?}, but then {other:?}"))
}

/// The order of datasets and models changes no code.
fn order(evaluator: &mut Evaluator, input: &Input, one: &PolicyVerdict) -> Result<(), String> {
    let reversed = |input: &mut Input| {
        input.datasets.reverse();
        input.models.reverse();
    };
    match other(evaluator, one, reversed, input) {
        Some(other) if codes(&other, "") != codes(one, "") => broken("order", one, &other),
        Some(_) | None => Ok(()),
    }
}

/// Who they are changes nothing: tenants of other names, the same everywhere, get the same codes at
/// the same fields, and the same duties.
fn names(evaluator: &mut Evaluator, input: &Input, one: &PolicyVerdict) -> Result<(), String> {
    // Of the same length: a longer name could make a text too long.
    let renamed = |id: &Id| {
        let renamed = id.as_str().replace('a', "x").replace('b', "y").replace('c', "z");
        Id::new(&renamed).expect("still a name")
    };
    let rename = |input: &mut Input| {
        input.tenant.id = renamed(&input.tenant.id);
        let rename = |owner: &mut Id, readers: &mut Vec<Id>| {
            *owner = renamed(owner);
            readers.iter_mut().for_each(|reader| *reader = renamed(reader));
        };
        input.datasets.iter_mut().for_each(|one| rename(&mut one.owner, &mut one.readers));
        input.models.iter_mut().for_each(|one| rename(&mut one.owner, &mut one.readers));
    };
    let shape = |verdict: &PolicyVerdict| {
        let reasons = verdict.reasons.iter();
        let mut reasons: Vec<_> = reasons
            .map(|reason| (reason.code.to_string(), reason.field.clone(), reason.hint.clone()))
            .collect();
        reasons.sort();
        let duties: Vec<_> = verdict.obligations.iter().map(|duty| duty.id.to_string()).collect();
        (verdict.verdict, reasons, duties)
    };
    match other(evaluator, one, rename, input) {
        Some(other) if shape(&other) != shape(one) => broken("names", one, &other),
        Some(_) | None => Ok(()),
    }
}

/// Who asks for more isolation is told of nothing that it is below.
pub(super) fn of_isolation(evaluator: &mut Evaluator, input: &Input) -> Result<(), String> {
    let one = verdict(evaluator, input);
    order(evaluator, input, &one)?;
    names(evaluator, input, &one)?;
    let level = input.workload().expect("either is there").isolation_level;
    for more in LEVELS.into_iter().filter(|more| *more > level) {
        let raised = |input: &mut Input| asked(input).isolation_level = more;
        let Some(other) = other(evaluator, &one, raised, input) else { continue };
        if !codes(&other, "ISOLATION_BELOW_").is_subset(&codes(&one, "ISOLATION_BELOW_")) {
            return broken("more isolation", &one, &other);
        }
    }
    Ok(())
}

/// Whom every list allows one place more is not refused more.
pub(super) fn of_residency(evaluator: &mut Evaluator, input: &Input) -> Result<(), String> {
    let one = verdict(evaluator, input);
    order(evaluator, input, &one)?;
    names(evaluator, input, &one)?;
    for place in [input.cluster.jurisdiction.clone(), Id::new("FR").expect("a name")] {
        // An empty list allows every place already.
        let add = |list: &mut Vec<Id>| {
            if !list.is_empty() && !list.contains(&place) {
                list.push(place.clone());
            }
        };
        let widened = |input: &mut Input| {
            add(&mut input.tenant.allowed_jurisdictions);
            input.datasets.iter_mut().for_each(|dataset| add(&mut dataset.jurisdictions));
        };
        let Some(other) = other(evaluator, &one, widened, input) else { continue };
        if !codes(&other, "RESIDENCY_").is_subset(&codes(&one, "RESIDENCY_")) {
            return broken("one place more", &one, &other);
        }
    }
    Ok(())
}
