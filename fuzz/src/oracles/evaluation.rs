//! What must hold of any evaluation by a single policy.

use std::sync::Arc;

use placet_core::{
    Effect, MAX_AMOUNT, MAX_DURATION_SECONDS, PolicyVerdict, Verdict, canonical_json,
};
use placet_policy::{Evaluation, Evaluator, Input, PolicySet};

/// Evaluates on an evaluator, on the same again and on a fresh one: the same bytes each time, the
/// cost among them. Nothing is held of a machine so busy that the backstop interrupts: that is no
/// decision.
pub(super) fn thrice(set: PolicySet, input: &Input) {
    let set = Arc::new(set);
    let mut evaluator = Evaluator::new(Arc::clone(&set));
    let (first, second) = (evaluator.evaluate(input), evaluator.evaluate(input));
    let third = Evaluator::new(set).evaluate(input);
    let (Ok(first), Ok(second), Ok(third)) = (first, second, third) else { return };
    check(&first);
    let bytes = |one| canonical_json(one).expect("an evaluation has a canonical form");
    let written = bytes(&first);
    assert_eq!(bytes(&second), written, "the same evaluator says something else");
    assert_eq!(bytes(&third), written, "a fresh evaluator says something else");
    let read: Evaluation = serde_json::from_slice(&written).expect("what we wrote can be read");
    assert_eq!(read, first);
}

/// An evaluation by one mandatory, enforced policy.
pub(super) fn check(evaluation: &Evaluation) {
    assert!(!evaluation.candidates.is_empty(), "the input names a GPU model");
    for candidate in &evaluation.candidates {
        let [verdict] = candidate.verdicts.as_slice() else {
            unreachable_state(&format!("one policy gave {} verdicts", candidate.verdicts.len()))
        };
        check_verdict(verdict);
        let permitted = candidate.outcome.effect == Effect::Permit;
        assert_eq!(permitted, verdict.verdict == Verdict::Permit, "{candidate:?}");
        assert_eq!(permitted, candidate.outcome.reasons.is_empty(), "a denial has reasons");
        let taken = candidate.outcome.claims.len();
        assert!(permitted || taken == 0, "a denial takes nothing: {candidate:?}");
    }
}

/// Ends the case as a finding.
#[expect(clippy::panic, reason = "a panic is how an oracle tells of a bug")]
fn unreachable_state(what: &str) -> ! {
    panic!("{what}")
}

fn check_verdict(verdict: &PolicyVerdict) {
    let empty = verdict.warnings.is_empty()
        && verdict.obligations.is_empty()
        && verdict.claims.is_empty()
        && verdict.preemption.is_none()
        && verdict.terms.is_none();
    let (reasons, failed) = (verdict.reasons.len(), verdict.error.is_some());
    let fits = match verdict.verdict {
        Verdict::Permit => reasons == 0 && !failed,
        Verdict::Deny => (1..=32).contains(&reasons) && !failed,
        Verdict::NotApplicable => reasons == 0 && !failed && empty,
        Verdict::Indeterminate => reasons == 0 && failed && empty,
    };
    assert!(fits, "what it says does not fit its verdict: {verdict:?}");
    assert!(verdict.warnings.len() <= 32 && verdict.obligations.len() <= 32, "{verdict:?}");
    assert!(verdict.claims.len() <= 32, "{verdict:?}");
    for claim in &verdict.claims {
        assert!((1..=MAX_AMOUNT).contains(&claim.amount), "{claim:?}");
        assert!(claim.limit.is_none_or(|limit| limit <= MAX_AMOUNT), "{claim:?}");
    }
    if let Some(rule) = &verdict.preemption {
        assert!((1..=1_000).contains(&rule.max_victims), "{rule:?}");
        assert!((1..=2).contains(&rule.victim_classes.len()), "{rule:?}");
        assert!(rule.max_victims_per_tenant.is_none_or(|most| most >= 1), "{rule:?}");
        assert!(rule.protected_tenants.is_sorted_by(|one, next| one < next), "{rule:?}");
        assert!(rule.protected_tenants.len() <= 256, "{rule:?}");
    }
    if let Some(terms) = &verdict.terms {
        let longest = terms.min_runtime_seconds.max(terms.notice_seconds);
        assert!(u64::from(longest) <= MAX_DURATION_SECONDS, "{terms:?}");
    }
    let reasons = verdict.reasons.iter().flat_map(|reason| {
        [Some(&reason.message), reason.hint.as_ref(), reason.field.as_ref()].into_iter().flatten()
    });
    let warnings = verdict.warnings.iter().map(|warning| &warning.message);
    let params = verdict.obligations.iter().flat_map(|one| &one.params);
    let params = params.flat_map(|(name, value)| [name, value]);
    let mut bytes = 0;
    for text in reasons.chain(warnings).chain(params).chain(&verdict.error) {
        bytes += text.len();
        assert!((1..=1_024).contains(&text.len()), "{text:?}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    assert!(bytes <= 8_192, "{bytes} bytes of text");
}
