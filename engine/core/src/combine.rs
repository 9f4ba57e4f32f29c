//! The rule that combines the policies' verdicts into one outcome: deny-overrides, and stricter
//! (XACML 3.0 appendix C.2).

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    AccountPath, Code, Effect, Id, Level, Mode, Obligation, Outcome, PolicyClaim, PolicyVerdict,
    PreemptionRule, Reason, SlaTerms, Verdict, Waived, Warning,
};

/// Combines the verdicts of one input; `required` names the policies that must permit. The order of
/// either is free.
///
/// - Any `Deny` denies, with its reasons. Any `Indeterminate` denies with `POLICY_INDETERMINATE`.
/// - No counting policy that applies denies with `NO_APPLICABLE_POLICY`; a required policy that is
///   absent, does not count or does not apply denies with `REQUIRED_POLICY_MISSING`.
/// - Claims on one account become one: different amounts deny with `CLAIM_CONFLICT`, the lowest
///   limit wins and brings its code and its policy. Obligations are united; one id with different
///   params denies with `OBLIGATION_CONFLICT`. Two policies that give a preemption rule deny with
///   `PREEMPTION_CONFLICT`.
/// - Of what policies promise a victim, the best of each number counts.
/// - Advisory and shadow verdicts never change the effect. Their warnings are kept, and the denials
///   of an enforced advisory policy become warnings.
#[must_use]
pub fn combine(verdicts: &[PolicyVerdict], required: &[Id]) -> Outcome {
    combine_waived(verdicts, required, &[])
}

/// The same under waivers: `lifts` are the denials that they lift, in the order of the waivers.
///
/// Of a counting `Deny` of an overridable policy, the reasons that are lifted go. With none left,
/// it counts as a permit, its claims and obligations with it. Nothing else is ever lifted: no
/// mandatory policy's denial, no `Indeterminate`, nothing that this rule itself denies for. A
/// permit names what was lifted for it, each denial once, by the first waiver that lifts it.
#[must_use]
pub fn combine_waived(verdicts: &[PolicyVerdict], required: &[Id], lifts: &[Waived]) -> Outcome {
    let counting: Vec<_> = verdicts.iter().filter(|verdict| verdict.counts()).collect();
    let (mut reasons, mut waived, mut permits) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for verdict in &counting {
        match verdict.verdict {
            Verdict::Deny => {
                let mut stands = false;
                for reason in &verdict.reasons {
                    match lift(verdict, reason, lifts) {
                        Some(lift) => {
                            waived.insert(lift.clone());
                        }
                        None => {
                            stands = true;
                            reasons.insert(reason.clone());
                        }
                    }
                }
                // INVARIANT: a denial has reasons. One without is not lifted by having none left.
                if verdict.reasons.is_empty() {
                    reasons.insert(indeterminate(&verdict.policy));
                } else if !stands {
                    permits.push(*verdict);
                }
            }
            Verdict::Indeterminate => {
                reasons.insert(indeterminate(&verdict.policy));
            }
            Verdict::Permit => permits.push(*verdict),
            Verdict::NotApplicable => {}
        }
    }
    if counting.iter().all(|verdict| verdict.verdict == Verdict::NotApplicable) {
        let hint = "have a bundle activated whose policies select this request";
        reasons.insert(own(
            "NO_APPLICABLE_POLICY",
            "no policy applies to the request".into(),
            hint,
        ));
    }
    for name in required {
        let applies = |verdict: &&&PolicyVerdict| {
            verdict.policy == *name && verdict.verdict != Verdict::NotApplicable
        };
        if !counting.iter().any(|verdict| applies(&verdict)) {
            let message = format!("required policy `{name}` does not apply to the request");
            let hint = "have the policy's selector widened, or the bundle's list of required ones";
            reasons.insert(own("REQUIRED_POLICY_MISSING", message, hint));
        }
    }
    let claims = merge_claims(&permits, &mut reasons);
    let obligations = unite_obligations(&permits, &mut reasons);
    let preemption = only_rule(&permits, &mut reasons);
    let terms = SlaTerms::strictest(permits.iter().map(|verdict| verdict.terms));
    let warnings = warnings(verdicts);
    let reasons: Vec<_> = reasons.into_iter().collect();
    if reasons.is_empty() {
        let effect = Effect::Permit;
        let waived = waived.into_iter().collect();
        Outcome { claims, effect, obligations, preemption, reasons, terms, waived, warnings }
    } else {
        let (claims, obligations, effect) = (Vec::new(), Vec::new(), Effect::Deny);
        let (preemption, terms, waived) = (None, None, Vec::new());
        Outcome { claims, effect, obligations, preemption, reasons, terms, waived, warnings }
    }
}

/// What lifts a reason, if anything does.
fn lift<'a>(verdict: &PolicyVerdict, reason: &Reason, lifts: &'a [Waived]) -> Option<&'a Waived> {
    if verdict.level != Level::Overridable {
        return None;
    }
    lifts.iter().find(|lift| lift.policy == verdict.policy && lift.code == reason.code)
}

/// A reason of the engine itself. None of them goes away by asking again.
fn own(code: &'static str, message: String, hint: &str) -> Reason {
    let policy = Id::new("placet").expect("the engine's name follows the rule of names");
    let code = Code::known(code);
    let counterfactual = None;
    Reason {
        code,
        counterfactual,
        field: None,
        hint: Some(hint.into()),
        message,
        policy,
        retry: false,
    }
}

/// What went wrong stays in the verdict: an error's text may tell more than a caller should know.
fn indeterminate(policy: &Id) -> Reason {
    let message = format!("policy `{policy}` could not decide");
    let hint = "the logged evaluation tells why";
    Reason { policy: policy.clone(), ..own("POLICY_INDETERMINATE", message, hint) }
}

fn merge_claims(permits: &[&PolicyVerdict], reasons: &mut BTreeSet<Reason>) -> Vec<PolicyClaim> {
    let mut merged: BTreeMap<AccountPath, PolicyClaim> = BTreeMap::new();
    for verdict in permits {
        for claim in &verdict.claims {
            let claim = PolicyClaim { claim: claim.clone(), policy: verdict.policy.clone() };
            let kept = merged.entry(claim.claim.account.clone()).or_insert_with(|| claim.clone());
            if kept.claim.amount != claim.claim.amount {
                let message =
                    format!("policies claim different amounts on `{}`", claim.claim.account);
                let hint = "let one policy claim the account, or all the same amount";
                reasons.insert(own("CLAIM_CONFLICT", message, hint));
            }
            if strictness(&claim) < strictness(kept) {
                *kept = claim;
            }
        }
    }
    merged.into_values().collect()
}

/// Orders claims on one account: the lowest limit first, none last; then by name, so that the order
/// of policies is free.
fn strictness(claim: &PolicyClaim) -> (bool, Option<u64>, &Id, Option<&Code>) {
    let limit = claim.claim.limit;
    (limit.is_none(), limit, &claim.policy, claim.claim.code.as_ref())
}

fn unite_obligations(
    permits: &[&PolicyVerdict],
    reasons: &mut BTreeSet<Reason>,
) -> Vec<Obligation> {
    let all: BTreeSet<&Obligation> =
        permits.iter().flat_map(|verdict| &verdict.obligations).collect();
    for (one, other) in all.iter().zip(all.iter().skip(1)) {
        if one.id == other.id {
            let message = format!("policies give different params to obligation `{}`", one.id);
            let hint = "let one policy give the obligation, or all the same params";
            reasons.insert(own("OBLIGATION_CONFLICT", message, hint));
        }
    }
    all.into_iter().cloned().collect()
}

fn only_rule(permits: &[&PolicyVerdict], reasons: &mut BTreeSet<Reason>) -> Option<PreemptionRule> {
    let mut rules = permits.iter().filter_map(|verdict| verdict.preemption.as_ref());
    let first = rules.next();
    if rules.next().is_some() {
        let message = "several policies say whom the request may displace".into();
        let hint = "let one policy give the preemption rule";
        reasons.insert(own("PREEMPTION_CONFLICT", message, hint));
    }
    first.cloned()
}

fn warnings(verdicts: &[PolicyVerdict]) -> Vec<Warning> {
    let advisory =
        verdicts.iter().filter(|v| v.level == Level::Advisory && v.mode == Mode::Enforce);
    let denials = advisory.flat_map(|verdict| &verdict.reasons).map(|reason| Warning {
        code: reason.code.clone(),
        message: reason.message.clone(),
        policy: reason.policy.clone(),
    });
    let warnings = verdicts.iter().flat_map(|verdict| verdict.warnings.iter().cloned());
    let sorted: BTreeSet<_> = warnings.chain(denials).collect();
    sorted.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Claim, Cost, PriorityClass};
    use proptest::prelude::*;

    fn id(text: &str) -> Id {
        Id::new(text).expect("an id")
    }

    fn permit(policy: &str) -> PolicyVerdict {
        PolicyVerdict {
            claims: vec![],
            cost: Cost::default(),
            error: None,
            level: Level::Mandatory,
            mode: Mode::Enforce,
            obligations: vec![],
            policy: id(policy),
            preemption: None,
            reasons: vec![],
            terms: None,
            verdict: Verdict::Permit,
            warnings: vec![],
        }
    }

    fn denial(policy: &str, code: &'static str) -> Reason {
        Reason { policy: id(policy), hint: None, ..own(code, "no".into(), "") }
    }

    fn claim(account: &str, amount: u64, limit: Option<u64>, code: Option<&'static str>) -> Claim {
        let account = AccountPath::new(account).expect("an account");
        Claim { account, amount, code: code.map(Code::known), limit }
    }

    fn codes(outcome: &Outcome) -> Vec<&str> {
        outcome.reasons.iter().map(|reason| reason.code.as_str()).collect()
    }

    #[test]
    fn nothing_applicable_denies() {
        assert_eq!(codes(&combine(&[], &[])), ["NO_APPLICABLE_POLICY"]);
        let idle = PolicyVerdict { verdict: Verdict::NotApplicable, ..permit("a") };
        assert_eq!(codes(&combine(&[idle], &[])), ["NO_APPLICABLE_POLICY"]);
        let shadow = PolicyVerdict { mode: Mode::Shadow, ..permit("a") };
        assert_eq!(codes(&combine(&[shadow], &[])), ["NO_APPLICABLE_POLICY"]);
        assert_eq!(combine(&[permit("a")], &[]).effect, Effect::Permit);
    }

    #[test]
    fn a_required_policy_must_apply() {
        let required = [id("quota")];
        assert_eq!(codes(&combine(&[permit("a")], &required)), ["REQUIRED_POLICY_MISSING"]);
        let idle = PolicyVerdict { verdict: Verdict::NotApplicable, ..permit("quota") };
        assert_eq!(codes(&combine(&[permit("a"), idle], &required)), ["REQUIRED_POLICY_MISSING"]);
        assert_eq!(combine(&[permit("quota")], &required).effect, Effect::Permit);
    }

    #[test]
    fn indeterminate_denies_in_its_own_name_and_keeps_its_error_inside() {
        let error = Some("secret".to_owned());
        let broken = PolicyVerdict { verdict: Verdict::Indeterminate, error, ..permit("b") };
        let outcome = combine(&[permit("a"), broken], &[]);
        assert_eq!(codes(&outcome), ["POLICY_INDETERMINATE"]);
        assert_eq!(outcome.reasons[0].policy, id("b"));
        assert!(!outcome.reasons[0].message.contains("secret"));
    }

    #[test]
    fn the_lowest_limit_wins_and_brings_its_code_and_policy() {
        let mut wide = permit("a");
        wide.claims = vec![claim("x", 5, Some(10), Some("WIDE"))];
        let mut tight = permit("b");
        tight.claims = vec![claim("x", 5, Some(7), Some("TIGHT"))];
        let mut free = permit("c");
        free.claims = vec![claim("x", 5, None, Some("FREE"))];
        let outcome = combine(&[free, wide.clone(), tight.clone()], &[]);
        let expected = PolicyClaim { claim: tight.claims[0].clone(), policy: id("b") };
        assert_eq!(outcome.claims, [expected]);
        tight.claims[0].amount = 6;
        assert_eq!(codes(&combine(&[wide, tight], &[])), ["CLAIM_CONFLICT"]);
    }

    #[test]
    fn obligations_unite_and_conflicts_deny() {
        let duty = |value: &str| Obligation {
            id: id("net"),
            params: [("p".to_owned(), value.to_owned())].into(),
        };
        let one = PolicyVerdict { obligations: vec![duty("1")], ..permit("a") };
        let same = PolicyVerdict { obligations: vec![duty("1")], ..permit("b") };
        let other = PolicyVerdict { obligations: vec![duty("2")], ..permit("c") };
        assert_eq!(combine(&[one.clone(), same], &[]).obligations, [duty("1")]);
        assert_eq!(codes(&combine(&[one, other], &[])), ["OBLIGATION_CONFLICT"]);
    }

    #[test]
    fn only_one_policy_gives_a_preemption_rule() {
        let rule = PreemptionRule {
            cool_down_seconds: 0,
            grace_seconds: 1,
            max_victims: 1,
            max_victims_per_tenant: None,
            min_runtime_seconds: 1,
            protected_tenants: vec![],
            victim_classes: vec![PriorityClass::ExternalCommercial],
        };
        let one = PolicyVerdict { preemption: Some(rule.clone()), ..permit("a") };
        let two = PolicyVerdict { preemption: Some(rule.clone()), ..permit("b") };
        assert_eq!(combine(std::slice::from_ref(&one), &[]).preemption, Some(rule));
        assert_eq!(codes(&combine(&[one, two], &[])), ["PREEMPTION_CONFLICT"]);
    }

    fn lift(policy: &str, code: &'static str, waiver: &str) -> Waived {
        Waived { code: Code::known(code), policy: id(policy), waiver: id(waiver) }
    }

    fn denies(policy: &str, codes: &[&'static str]) -> PolicyVerdict {
        let reasons = codes.iter().map(|code| denial(policy, code)).collect();
        let verdict = Verdict::Deny;
        PolicyVerdict { level: Level::Overridable, reasons, verdict, ..permit(policy) }
    }

    #[test]
    fn what_is_lifted_goes_and_the_rest_stands() {
        let mut lifted = denies("b", &["LATE", "LONG"]);
        lifted.claims = vec![claim("x", 5, None, None)];
        let both = [lift("b", "LONG", "w-2"), lift("b", "LATE", "w-1"), lift("b", "LATE", "w-0")];
        let verdicts = [permit("a"), lifted];
        let outcome = combine_waived(&verdicts, &[id("b")], &both);
        assert_eq!(outcome.effect, Effect::Permit);
        assert_eq!(outcome.claims.len(), 1, "its claims count");
        let named = [lift("b", "LATE", "w-1"), lift("b", "LONG", "w-2")];
        assert_eq!(outcome.waived, named, "each once, by the first waiver");
        let outcome = combine_waived(&verdicts, &[], &both[..1]);
        assert_eq!(codes(&outcome), ["LATE"]);
        assert!(outcome.waived.is_empty() && outcome.claims.is_empty(), "it denies");
        let others = [lift("a", "LATE", "w"), lift("a", "LONG", "w"), lift("c", "LATE", "w")];
        assert_eq!(codes(&combine_waived(&verdicts, &[], &others)), ["LATE", "LONG"]);
        assert!(combine_waived(&[permit("a")], &[], &both).waived.is_empty(), "nothing to lift");
    }

    #[test]
    fn nothing_else_is_ever_lifted() {
        let mandatory = PolicyVerdict { level: Level::Mandatory, ..denies("b", &["LATE"]) };
        let lifts = [lift("b", "LATE", "w"), lift("b", "POLICY_INDETERMINATE", "w")];
        assert_eq!(codes(&combine_waived(&[mandatory], &[], &lifts)), ["LATE"]);
        let verdict = Verdict::Indeterminate;
        let broken = PolicyVerdict { verdict, reasons: vec![], ..denies("b", &[]) };
        assert_eq!(codes(&combine_waived(&[broken], &[], &lifts)), ["POLICY_INDETERMINATE"]);
        let none = PolicyVerdict { verdict: Verdict::Deny, ..denies("b", &[]) };
        assert_eq!(combine_waived(&[none], &[], &lifts).effect, Effect::Deny, "it gives no reason");
        let lifts = [lift("placet", "REQUIRED_POLICY_MISSING", "w")];
        let outcome = combine_waived(&[permit("a")], &[id("b")], &lifts);
        assert_eq!(codes(&outcome), ["REQUIRED_POLICY_MISSING"]);
        let shadow = PolicyVerdict { mode: Mode::Shadow, ..denies("b", &["LATE"]) };
        let outcome = combine_waived(&[permit("a"), shadow], &[], &[lift("b", "LATE", "w")]);
        assert!(outcome.waived.is_empty(), "a shadow denies nothing");
    }

    #[test]
    fn of_each_promise_the_best_counts() {
        let terms = |min_runtime_seconds, notice_seconds| {
            Some(SlaTerms { min_runtime_seconds, notice_seconds })
        };
        let one = PolicyVerdict { terms: terms(60, 5), ..permit("a") };
        let two = PolicyVerdict { terms: terms(30, 10), ..permit("b") };
        assert_eq!(combine(&[permit("c"), one.clone()], &[]).terms, terms(60, 5));
        assert_eq!(combine(&[one.clone(), two.clone()], &[]).terms, terms(60, 10));
        let shadow = PolicyVerdict { mode: Mode::Shadow, ..two.clone() };
        let advice = PolicyVerdict { level: Level::Advisory, ..two.clone() };
        let idle = PolicyVerdict { verdict: Verdict::NotApplicable, ..two };
        assert_eq!(combine(&[one.clone(), shadow, advice, idle], &[]).terms, terms(60, 5));
        let denies =
            PolicyVerdict { verdict: Verdict::Deny, reasons: vec![denial("d", "NO")], ..one };
        assert_eq!(combine(&[denies], &[]).terms, None, "what is denied is promised nothing");
    }

    #[test]
    fn what_is_absent_or_has_its_default_is_left_out() {
        let numbers = r#""grace_seconds":1,"max_victims":2,"min_runtime_seconds":3"#;
        let rule = &*format!(r#"{{{numbers},"victim_classes":["EXTERNAL_COMMERCIAL"]}}"#);
        let read: PreemptionRule = serde_json::from_str(rule).expect("a rule of an older engine");
        assert_eq!(serde_json::to_string(&read).expect("a rule"), rule);
        let whole = PreemptionRule {
            cool_down_seconds: 4,
            max_victims_per_tenant: Some(1),
            protected_tenants: vec![id("acme")],
            ..read
        };
        let text = serde_json::to_string(&whole).expect("a rule");
        assert_eq!(serde_json::from_str::<PreemptionRule>(&text).expect("a rule"), whole);
    }

    #[test]
    fn advisory_denials_warn() {
        let mut advisory = PolicyVerdict { level: Level::Advisory, ..permit("b") };
        advisory.verdict = Verdict::Deny;
        advisory.reasons = vec![denial("b", "ADVICE")];
        let outcome = combine(&[permit("a"), advisory.clone()], &[]);
        assert_eq!(outcome.effect, Effect::Permit);
        assert_eq!(outcome.warnings[0].code.as_str(), "ADVICE");
        advisory.mode = Mode::Shadow;
        assert!(combine(&[permit("a"), advisory], &[]).warnings.is_empty());
    }

    fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
        let one = (prop::sample::select(vec!["x", "y"]), 1_u64..3, prop::option::of(0_u64..3));
        prop::collection::vec(one.prop_map(|(a, n, limit)| claim(a, n, limit, None)), 0..3)
    }

    fn any_verdict() -> impl Strategy<Value = PolicyVerdict> {
        let kinds = prop::sample::select(vec![
            Verdict::Permit,
            Verdict::Permit,
            Verdict::Deny,
            Verdict::NotApplicable,
            Verdict::Indeterminate,
        ]);
        let levels =
            prop::sample::select(vec![Level::Mandatory, Level::Overridable, Level::Advisory]);
        let modes = prop::sample::select(vec![Mode::Enforce, Mode::Enforce, Mode::Shadow]);
        (0_u8..8, kinds, levels, modes, any_claims(), any::<bool>()).prop_map(
            |(name, kind, level, mode, claims, duty)| {
                let name = format!("p{name}");
                let reasons =
                    if kind == Verdict::Deny { vec![denial(&name, "NO")] } else { vec![] };
                let obligation = Obligation { id: id("duty"), params: BTreeMap::new() };
                let obligations = if duty { vec![obligation] } else { vec![] };
                let verdict = permit(&name);
                PolicyVerdict {
                    claims,
                    level,
                    mode,
                    obligations,
                    reasons,
                    verdict: kind,
                    ..verdict
                }
            },
        )
    }

    proptest! {
        #[test]
        fn the_order_is_free(
            verdicts in prop::collection::vec(any_verdict(), 0..6),
            seed in any::<prop::sample::Index>(),
        ) {
            let mut other = verdicts.clone();
            other.reverse();
            let middle = seed.index(other.len() + 1).min(other.len());
            other.rotate_left(middle);
            let required = [id("p0"), id("p1")];
            let back = [id("p1"), id("p0")];
            prop_assert_eq!(combine(&verdicts, &required), combine(&other, &back));
        }

        #[test]
        fn a_denial_or_a_failure_more_never_permits(
            verdicts in prop::collection::vec(any_verdict(), 0..6),
            mut more in any_verdict(),
            deny in any::<bool>(),
        ) {
            more.level = Level::Overridable;
            more.mode = Mode::Enforce;
            more.verdict = if deny { Verdict::Deny } else { Verdict::Indeterminate };
            more.reasons = if deny { vec![denial("p9", "NO")] } else { vec![] };
            let with = combine(&[verdicts, vec![more]].concat(), &[]);
            prop_assert_eq!(with.effect, Effect::Deny);
        }

        #[test]
        fn advice_and_shadows_never_change_the_effect(
            verdicts in prop::collection::vec(any_verdict(), 0..6),
            mut more in any_verdict(),
            shadow in any::<bool>(),
        ) {
            if shadow { more.mode = Mode::Shadow } else { more.level = Level::Advisory }
            let without = combine(&verdicts, &[]);
            let mut with = combine(&[verdicts, vec![more]].concat(), &[]);
            with.warnings.clone_from(&without.warnings);
            prop_assert_eq!(with, without);
        }

        #[test]
        fn waivers_lift_what_they_name_of_overridable_policies_and_nothing_else(
            verdicts in prop::collection::vec(any_verdict(), 0..6),
            lifted in prop::collection::vec((0_u8..9, any::<bool>()), 0..6),
            required in prop::option::of(0_u8..8),
        ) {
            let required: Vec<_> =
                required.map(|name| id(&format!("p{name}"))).into_iter().collect();
            let lifts: Vec<_> = lifted
                .iter()
                .map(|(name, same)| {
                    lift(&format!("p{name}"), if *same { "NO" } else { "OTHER" }, "w")
                })
                .collect();
            let is_lifted = |verdict: &PolicyVerdict| {
                verdict.level == Level::Overridable
                    && verdict.mode == Mode::Enforce
                    && verdict.verdict == Verdict::Deny
                    && lifts.contains(&lift(verdict.policy.as_str(), "NO", "w"))
            };
            // The oracle: what is lifted is taken for a permit, and nothing else is touched.
            let mut expected = verdicts.clone();
            for verdict in &mut expected {
                if is_lifted(verdict) {
                    verdict.verdict = Verdict::Permit;
                    verdict.reasons.clear();
                }
            }
            let mut outcome = combine_waived(&verdicts, &required, &lifts);
            let waived = std::mem::take(&mut outcome.waived);
            prop_assert_eq!(&outcome, &combine(&expected, &required));
            let denies = outcome.effect == Effect::Deny;
            prop_assert_eq!(waived.is_empty(), denies || !verdicts.iter().any(is_lifted));
            let stays = |verdict: &&PolicyVerdict| {
                verdict.counts()
                    && (verdict.verdict == Verdict::Indeterminate
                        || (verdict.verdict == Verdict::Deny
                            && verdict.level == Level::Mandatory))
            };
            prop_assert!(denies || !verdicts.iter().any(|verdict| stays(&verdict)));
        }

        #[test]
        fn a_permit_has_no_reasons_and_a_denial_has_nothing_else(
            verdicts in prop::collection::vec(any_verdict(), 0..6),
        ) {
            let outcome = combine(&verdicts, &[]);
            prop_assert_eq!(outcome.effect == Effect::Permit, outcome.reasons.is_empty());
            if outcome.effect == Effect::Deny {
                prop_assert!(outcome.claims.is_empty() && outcome.obligations.is_empty());
            }
        }
    }
}
