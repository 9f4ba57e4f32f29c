//! The sequencer's answers, and that what it recovers is what it had.

use std::sync::Arc;

use placet_core::{
    Claim, Code, Counterfactual, Decision, Effect, Expect, KeySet, MAX_LEAD_SECONDS, PolicyClaim,
    QuotaNode, Reason, ReservationState, Unit, Verifier,
};
use placet_server::sequencer::{
    Activation, Decided, Options, Proposal, SequencerError, SequencerHandle, SettleError,
    SettleKind, Target,
};
use placet_server::{Clock, MAX_FORWARD_SECONDS};
use proptest::prelude::*;

use crate::world::{
    BUDGET, ISSUER, LIMIT, World, activation, decide, id, options, path, proposal, run, settle,
    settled, starting,
};

pub(crate) fn verified(world: &World, decided: &Decided, now: u64) -> Decision {
    let keys = KeySet::from_json(world.signer.jwks().as_bytes()).unwrap();
    let expect = Expect { issuer: ISSUER, audience: "scheduler", now };
    Verifier::new(keys).verify(&decided.token, &expect).unwrap()
}

#[test]
fn a_permit_says_what_is_held() {
    let world = World::new();
    let sequencer = world.start();
    let decided = run(decide(&sequencer, proposal("r-1", 8, 3_600, 1_000))).unwrap();
    assert_eq!((decided.effect, decided.position), (Effect::Permit, 3));
    let decision = verified(&world, &decided, 1_000);
    let grant = decision.reservation.unwrap();
    assert_eq!((grant.start, grant.end, grant.confirm_by, grant.epoch), (1_000, 4_600, 1_300, 1));
    assert_eq!((decision.iat, decision.exp), (1_000, 4_600));
    assert_eq!(
        grant.charges.iter().map(|charge| charge.amount).collect::<Vec<_>>(),
        [8_000, 28_800]
    );
    assert_eq!(decision.sub, format!("lease/{}", decision.jti));
    assert!(decision.jti.as_str().starts_with("dec-") && decision.jti.as_str().len() == 36);
    assert_eq!(decision.jti.as_str().strip_prefix("dec-"), grant.id.as_str().strip_prefix("rsv-"));
    run(sequencer.close());
}

#[test]
fn a_denial_names_the_account_and_what_would_fit() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        decide(&sequencer, proposal("r-1", 30, 3_600, 1_000)).await.unwrap();
        let asked = proposal("r-2", 16, 3_600, 1_000);
        let probed = sequencer.probe(asked.clone()).await.unwrap();
        let denied = decide(&sequencer, asked).await.unwrap();
        assert_eq!(denied.codes, [Code::known("QUOTA_EXCEEDED")]);
        let decision = verified(&world, &denied, 1_000);
        assert_eq!(probed, (Effect::Deny, decision.reasons.clone()), "a probe says the same");
        assert_eq!((decision.exp, decision.reservation), (1_300, None));
        let [reason] = &*decision.reasons else { panic!("{:?}", decision.reasons) };
        assert_eq!(reason.policy, id("quota"));
        assert_eq!(reason.field.as_deref(), Some("lease.gpu_count"));
        let hint = "admitted with at most 10 GPUs, or as asked from 1970-01-01T01:16:40Z on";
        assert_eq!(reason.hint.as_deref(), Some(hint), "when the first lease has ended");
        let instead = Counterfactual {
            account: path("tenant/acme/gpu"),
            duration_seconds: None,
            gpu_count: Some(10),
            start: Some(4_600),
        };
        assert_eq!(reason.counterfactual, Some(instead));
        let says = "account `tenant/acme/gpu`: asked 16000, free 10000 of 40000";
        assert!(reason.message.starts_with(says) && reason.retry, "{}", reason.message);

        let probed = sequencer.probe(proposal("r-3", 10, 3_600, 1_000)).await.unwrap();
        assert_eq!(probed, (Effect::Permit, Vec::new()), "the hint is true");
        let huge = decide(&sequencer, proposal("r-4", 41, 3_600, 1_000)).await.unwrap();
        assert!(!verified(&world, &huge, 1_000).reasons[0].retry, "above the limit itself");
        sequencer.close().await;
    });
}

fn node(account: &str, cohort: Option<&str>, nominal: u64, lending: Option<u64>) -> QuotaNode {
    QuotaNode {
        account: path(account),
        borrowing_limit: None,
        cohort: cohort.map(path),
        lending_limit: lending,
        nominal,
        unit: Unit::MilliGpu,
    }
}

#[test]
fn what_one_tenant_does_not_use_another_borrows_and_a_restart_finds_it_so() {
    let world = World::new();
    let pool = Some("pool");
    let quotas = |lending| Activation {
        quotas: Arc::from([
            node("pool", None, 0, None),
            node("tenant/acme/gpu", pool, 8_000, None),
            node("tenant/other/gpu", pool, 8_000, lending),
        ]),
        ..activation()
    };
    run(async {
        // The other lends 6 of its 8 GPUs: acme has 14.
        let sequencer = world.start_active(quotas(Some(6_000)));
        decide(&sequencer, proposal("r-1", 14, 600, 1_000)).await.unwrap();
        let denied = decide(&sequencer, proposal("r-2", 1, 600, 1_000)).await.unwrap();
        let decision = verified(&world, &denied, 1_000);
        let [reason] = &*decision.reasons else { panic!("{:?}", decision.reasons) };
        assert_eq!(
            reason.message,
            "account `tenant/acme/gpu`: asked 1000, free 0 thousandths of a GPU: `pool` has 14000 \
             of 14000 in use"
        );
        assert_eq!(reason.counterfactual.as_ref().unwrap().account, path("pool"));
        let before = sequencer.inspect().await.unwrap();
        let used: Vec<_> =
            before.usage.iter().map(|(path, _, used)| (path.as_str(), *used)).collect();
        assert_eq!(used[0], ("pool", 14_000), "without a lending limit all of acme's use flows up");
        sequencer.close().await;

        let sequencer = world.start_active(quotas(Some(6_000)));
        assert_eq!(sequencer.inspect().await.unwrap(), before);
        // It lends nothing any more: nobody is thrown out, and nothing new comes in.
        let time = 1_100;
        sequencer.activate(quotas(Some(0)), time).await.unwrap();
        let denied = decide(&sequencer, proposal("r-3", 1, 600, time)).await.unwrap();
        assert_eq!(denied.effect, Effect::Deny);
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;

        let sequencer = world.start_active(quotas(Some(0)));
        assert_eq!(sequencer.inspect().await.unwrap(), before);
        // Without any trees the facts' limit of 40 GPUs counts again.
        sequencer.activate(activation(), time).await.unwrap();
        let decided = decide(&sequencer, proposal("r-4", 26, 600, time)).await.unwrap();
        assert_eq!(decided.effect, Effect::Permit);
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;
        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before);
        sequencer.close().await;
    });
}

/// Training books 30 of the 40 GPUs from 10,000 to 14,000.
fn training() -> Box<Proposal> {
    starting(proposal("training", 30, 4_000, 1_000), 10_000)
}

#[test]
fn a_lease_is_admitted_into_the_trough_only_if_it_ends_in_time() {
    let world = World::new();
    let sequencer = world.start();
    let fits = (Effect::Permit, Vec::new());
    run(async {
        let booked = decide(&sequencer, training()).await.unwrap();
        let decision = verified(&world, &booked, 1_000);
        let grant = decision.reservation.unwrap();
        assert_eq!((grant.start, grant.end, grant.confirm_by), (10_000, 14_000, 10_300));
        assert_eq!((decision.iat, decision.exp), (1_000, 14_000));

        let over = proposal("over", 20, 9_000, 2_000);
        let denied = decide(&sequencer, over).await.unwrap();
        let decision = verified(&world, &denied, 2_000);
        let [reason] = &*decision.reasons else { panic!("{:?}", decision.reasons) };
        let instead = Counterfactual {
            account: path("tenant/acme/gpu"),
            duration_seconds: Some(8_000),
            gpu_count: Some(10),
            start: Some(14_000),
        };
        assert_eq!(reason.counterfactual, Some(instead), "until the training, and after it");
        let hint = "admitted with at most 10 GPUs, or for at most 8000 seconds, or as asked from \
                    1970-01-01T03:53:20Z on";
        assert_eq!(reason.hint.as_deref(), Some(hint));

        // What the denial says is so, and is all that there is.
        let probe = |gpus, seconds, start| {
            sequencer.probe(starting(proposal("probe", gpus, seconds, 2_000), start))
        };
        for (gpus, seconds, start) in [(11, 9_000, 2_000), (20, 8_001, 2_000), (20, 9_000, 13_999)]
        {
            let (effect, _) = probe(gpus, seconds, start).await.unwrap();
            assert_eq!(effect, Effect::Deny, "{gpus} GPUs for {seconds} s from {start}");
        }
        assert_eq!(probe(10, 9_000, 2_000).await.unwrap(), fits);
        let trough = decide(&sequencer, proposal("trough", 20, 8_000, 2_000)).await.unwrap();
        assert_eq!(trough.effect, Effect::Permit);
        let after = starting(proposal("after", 20, 9_000, 2_000), 14_000);
        let after = decide(&sequencer, after).await.unwrap();
        let grant = verified(&world, &after, 2_000).reservation.unwrap();
        assert_eq!((grant.start, grant.end, grant.confirm_by), (14_000, 23_000, 14_300));
        sequencer.close().await;
    });
}

#[test]
fn what_is_booked_ahead_is_confirmed_around_its_start_or_expires() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        decide(&sequencer, training()).await.unwrap();
        decide(&sequencer, starting(proposal("after", 20, 9_000, 2_000), 14_000)).await.unwrap();
        let confirmed = settled(&sequencer, settle(SettleKind::Confirm, "training", 3_000)).await;
        let confirmed = confirmed.unwrap();
        assert_eq!((confirmed.state, confirmed.time), (Some(ReservationState::Active), 3_000));
        let before = sequencer.inspect().await.unwrap();
        assert_eq!(before.usage[0].2, 0, "nothing is held before the start: {before:?}");
        sequencer.close().await;

        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before, "a restart folds to the same");
        // The training has ended; nobody confirms the other, and up to its deadline it is held.
        let full = decide(&sequencer, proposal("full", 30, 10, 14_299)).await.unwrap();
        assert_eq!(full.effect, Effect::Deny);
        let late = settled(&sequencer, settle(SettleKind::Confirm, "after", 14_300)).await;
        assert_eq!(late, Err(SequencerError::Settle(SettleError::ConfirmDeadlinePassed)));
        let free = decide(&sequencer, proposal("free", 30, 10, 14_300)).await.unwrap();
        assert_eq!(free.effect, Effect::Permit);
        let snapshot = sequencer.inspect().await.unwrap();
        let budget = snapshot.usage.iter().find(|one| one.0 == path("tenant/acme/gpu-seconds"));
        assert_eq!(budget.unwrap().2, 30 * 4_000 + 30 * 10, "its GPU-seconds are free too");
        sequencer.close().await;
    });
}

#[test]
fn released_before_its_start_a_booking_costs_nothing() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        decide(&sequencer, training()).await.unwrap();
        settled(&sequencer, settle(SettleKind::Confirm, "training", 3_000)).await.unwrap();
        let released = settled(&sequencer, settle(SettleKind::Release, "training", 9_999)).await;
        assert_eq!(released.unwrap().refunded_gpu_seconds, 30 * 4_000);
        let over = decide(&sequencer, proposal("over", 40, 4_000, 9_999)).await.unwrap();
        assert_eq!(over.effect, Effect::Permit);
        sequencer.close().await;
    });
}

#[test]
fn a_start_that_passes_while_a_request_waits_is_a_signed_denial() {
    let world = World::new();
    let now = Clock::now();
    let system = Options { clock: Clock::System, ..options() };
    let sequencer = world.start_with(system, None).unwrap();
    run(async {
        decide(&sequencer, proposal("r-1", 1, 1_000, now + 50)).await.unwrap();
        // Evaluated ten seconds earlier than its turn comes.
        let asked = starting(proposal("r-2", 1, 1_000, now + 40), now + 49);
        let denied = decide(&sequencer, asked.clone()).await.unwrap();
        assert_eq!(denied.codes, [Code::known("START_IN_THE_PAST")]);
        let decision = verified(&world, &denied, now + 50);
        let [reason] = &*decision.reasons else { panic!("{:?}", decision.reasons) };
        assert_eq!((&reason.policy, reason.retry), (&id("placet"), false));
        assert_eq!(reason.field.as_deref(), Some("lease.start"));
        assert_eq!((decision.iat, decision.reservation), (now + 50, None));
        assert_eq!(decide(&sequencer, asked).await, Ok(denied), "a retry gets the first answer");
        let exact = starting(proposal("r-3", 1, 1_000, now + 40), now + 50);
        assert_eq!(decide(&sequencer, exact).await.unwrap().effect, Effect::Permit);
        sequencer.close().await;
    });
}

#[test]
fn a_start_that_may_not_be_booked_is_no_way_out() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        let last = 1_000 + MAX_LEAD_SECONDS;
        let held = starting(proposal("held", 40, 10, 1_000), last);
        assert_eq!(decide(&sequencer, held).await.unwrap().effect, Effect::Permit);
        let full = starting(proposal("full", 40, 10, 1_000), last);
        let denied = decide(&sequencer, full).await.unwrap();
        let decision = verified(&world, &denied, 1_000);
        let instead = decision.reasons[0].counterfactual.as_ref().unwrap();
        assert_eq!((instead.start, instead.duration_seconds), (None, None));
        let far = starting(proposal("far", 1, 10, 1_000), last + 1);
        let denied = decide(&sequencer, far).await.unwrap();
        assert_eq!(denied.codes, [Code::known("START_TOO_FAR_AHEAD")]);
        sequencer.close().await;
    });
}

#[test]
fn every_candidate_is_tried_in_order_and_every_reason_kept_once() {
    let world = World::new();
    let sequencer = world.start();
    let reason = |code: &'static str| Reason {
        counterfactual: None,
        code: Code::known(code),
        field: None,
        hint: None,
        message: "no".to_owned(),
        policy: id("isolation"),
        retry: false,
    };
    let mut asked = proposal("r-1", 4, 60, 1_000);
    let permitted = asked.candidates[0].clone();
    let mut denied = permitted.clone();
    denied.outcome.effect = Effect::Deny;
    denied.outcome.claims.clear();
    denied.limits.clear();
    denied.outcome.reasons = vec![reason("A"), reason("B")];
    let mut unknown = permitted.clone();
    unknown.gpu_model = id("A100");
    unknown.limits[1] = None;
    let mut last = permitted.clone();
    last.gpu_model = id("L40");
    asked.candidates = vec![denied.clone(), unknown.clone(), denied, last];
    run(async {
        let decided = decide(&sequencer, asked.clone()).await.unwrap();
        let decision = verified(&world, &decided, 1_000);
        assert_eq!((decision.effect, decision.workload.gpu_model), (Effect::Permit, id("L40")));

        asked.candidates.pop();
        asked.request.request_id = id("r-2");
        let decided = decide(&sequencer, asked.clone()).await.unwrap();
        let codes: Vec<_> = decided.codes.iter().map(Code::as_str).collect();
        assert_eq!(codes, ["A", "B", "UNKNOWN_ACCOUNT"]);
        let decision = verified(&world, &decided, 1_000);
        assert_eq!(decision.workload.gpu_model, id("H100"), "the first asked for");

        asked.rejected = vec![reason("UNKNOWN_TENANT")];
        asked.candidates = vec![permitted];
        asked.request.request_id = id("r-3");
        let decided = decide(&sequencer, asked.clone()).await.unwrap();
        assert_eq!(decided.effect, Effect::Deny, "what was not resolved is not admitted");

        (asked.rejected, asked.candidates) = (Vec::new(), Vec::new());
        asked.request.request_id = id("r-4");
        let none = decide(&sequencer, asked).await;
        assert!(matches!(none, Err(SequencerError::Malformed(_))), "{none:?}");
        sequencer.close().await;
    });
}

#[test]
fn a_claim_can_tighten_a_limit_and_never_widen_it() {
    let world = World::new();
    let sequencer = world.start();
    for (name, own, effect) in [
        ("r-1", Some(7_999), Effect::Deny),
        ("r-2", Some(u64::MAX), Effect::Permit),
        ("r-3", None, Effect::Permit),
    ] {
        let mut asked = proposal(name, 8, 60, 1_000);
        let PolicyClaim { claim, .. } = &mut asked.candidates[0].outcome.claims[0];
        *claim = Claim { limit: own, code: Some(Code::known("TENANT_GPUS")), ..claim.clone() };
        let decided = run(decide(&sequencer, asked)).unwrap();
        assert_eq!(decided.effect, effect, "{name}");
        let decision = verified(&world, &decided, 1_000);
        match decision.reservation {
            Some(grant) => assert_eq!(grant.charges[0].limit, LIMIT),
            None => assert_eq!(decided.codes, [Code::known("TENANT_GPUS")]),
        }
    }
    run(sequencer.close());
}

#[test]
fn a_retry_gets_the_first_answer_and_another_request_none() {
    let world = World::new();
    let first = proposal("r-1", 8, 3_600, 1_000);
    let sequencer = world.start();
    let decided = run(decide(&sequencer, first.clone())).unwrap();
    run(sequencer.close());

    let sequencer = world.start();
    run(async {
        decide(&sequencer, proposal("r-2", 8, 3_600, 5_000)).await.unwrap();
        let mut again = first.clone();
        again.personal[0].salt = vec![9; 32];
        again.evaluation = b"{}".to_vec();
        // Even though its time has long passed: the answer may have been lost.
        assert_eq!(decide(&sequencer, again).await, Ok(decided.clone()));

        let reused = Err(SequencerError::RequestIdReused { request_id: id("r-1") });
        assert_eq!(decide(&sequencer, proposal("r-1", 9, 3_600, 5_000)).await, reused);
        let mut other = first.clone();
        other.personal[0].value = "eve@example.org".to_owned();
        assert_eq!(decide(&sequencer, other).await, reused);
        let mut other = first;
        other.caller = id("another");
        let other = decide(&sequencer, other).await;
        assert!(matches!(other, Err(SequencerError::ClockWentBack { .. })), "not a retry");

        // Within one batch, too: nobody waits for an answer before the next is sent.
        let ask = |gpus| sequencer.propose(proposal("r-3", gpus, 60, 5_000));
        let (one, two, three) =
            (ask(1).await.unwrap(), ask(1).await.unwrap(), ask(2).await.unwrap());
        let (one, two, three) = (one.await, two.await, three.await);
        assert!(one.is_ok() && one == two, "{one:?} {two:?}");
        assert!(matches!(three, Err(SequencerError::RequestIdReused { .. })), "{three:?}");
        sequencer.close().await;
    });
}

#[test]
fn confirm_and_release_are_fenced_and_idempotent() {
    let world = World::new();
    let sequencer = world.start();
    let confirm = |time| settle(SettleKind::Confirm, "r-1", time);
    let release = |time| settle(SettleKind::Release, "r-1", time);
    run(async {
        let missing = settled(&sequencer, confirm(1_000)).await;
        assert_eq!(missing, Err(SequencerError::Settle(SettleError::NotFound)));
        // One after the other without waiting, as on a stream.
        let asked = sequencer.propose(proposal("r-1", 8, 1_000, 1_000)).await.unwrap();
        let confirmed = sequencer.settle(confirm(1_010)).await.unwrap();
        let decided = asked.await.unwrap();
        let confirmed = confirmed.await.unwrap();
        let grant = verified(&world, &decided, 1_000).reservation.unwrap();
        assert_eq!(confirmed.reservation, Some(grant.id.clone()));
        assert_eq!((confirmed.state, confirmed.time), (Some(ReservationState::Active), 1_010));
        assert_eq!(settled(&sequencer, confirm(1_020)).await, Ok(confirmed.clone()));
        assert_eq!(settled(&sequencer, confirm(0)).await, Ok(confirmed), "a late retry");

        let mut stale = release(1_030);
        stale.epoch = 2;
        let stale = settled(&sequencer, stale).await;
        assert_eq!(stale, Err(SequencerError::Settle(SettleError::StaleEpoch { current: 1 })));
        let mut other = release(1_030);
        other.tenant = id("globex");
        let other = settled(&sequencer, other).await;
        assert_eq!(other, Err(SequencerError::Settle(SettleError::NotYours)));
        let mut other = release(1_030);
        (other.caller, other.target) = (id("another"), Target::ById(grant.id.clone()));
        let other = settled(&sequencer, other).await;
        assert_eq!(other, Err(SequencerError::Settle(SettleError::NotYours)));

        let released = settled(&sequencer, release(1_250)).await.unwrap();
        assert_eq!(released.refunded_gpu_seconds, 8_000 * 750 / 1_000);
        let usage = sequencer.inspect().await.unwrap().usage;
        assert_eq!(usage.len(), 1, "the level account is empty: {usage:?}");
        assert_eq!((&usage[0].0, usage[0].2), (&path("tenant/acme/gpu-seconds"), 2_000));
        sequencer.close().await;

        let sequencer = world.start();
        assert_eq!(settled(&sequencer, release(0)).await, Ok(released), "after a restart");
        let ended = settled(&sequencer, confirm(2_000)).await;
        let state = ReservationState::Released;
        assert_eq!(ended, Err(SequencerError::Settle(SettleError::AlreadyEnded { state })));
        sequencer.close().await;
    });
}

#[test]
fn settling_what_was_denied_is_answered_not_refused() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        let asked = sequencer.propose(proposal("r-1", 41, 1_000, 1_000)).await.unwrap();
        let same_batch = sequencer.settle(settle(SettleKind::Confirm, "r-1", 1_000)).await.unwrap();
        assert_eq!(asked.await.unwrap().effect, Effect::Deny);
        let first = same_batch.await.unwrap();
        assert_eq!((&first.reservation, first.state, first.time), (&None, None, 1_000));
        let again = settled(&sequencer, settle(SettleKind::Release, "r-1", 1_500)).await;
        assert_eq!(again, Ok(first));
        sequencer.close().await;
    });
}

#[test]
fn what_is_due_expires_before_what_comes_after_it() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        decide(&sequencer, proposal("r-1", 40, 1_000, 1_000)).await.unwrap();
        let full = decide(&sequencer, proposal("r-3", 40, 10, 1_299)).await.unwrap();
        assert_eq!(full.effect, Effect::Deny);
        let late = settled(&sequencer, settle(SettleKind::Confirm, "r-1", 1_300)).await;
        assert_eq!(late, Err(SequencerError::Settle(SettleError::ConfirmDeadlinePassed)));
        let free = decide(&sequencer, proposal("r-4", 40, 10, 1_300)).await.unwrap();
        assert_eq!(free.effect, Effect::Permit, "not confirmed, so free, budget and all");
        let confirmed = settled(&sequencer, settle(SettleKind::Confirm, "r-4", 1_300)).await;
        assert!(confirmed.is_ok());
        let next = decide(&sequencer, proposal("r-5", 40, 10, 1_310)).await.unwrap();
        assert_eq!(next.effect, Effect::Permit, "the end is not part of the interval");
        let snapshot = sequencer.inspect().await.unwrap();
        assert_eq!(snapshot.live, 1);
        let budget = path("tenant/acme/gpu-seconds");
        let used = snapshot.usage.iter().find(|usage| usage.0 == budget).unwrap();
        assert_eq!(used.2, 400 + 400, "what ended by itself is used up");
        assert!(used.2 <= BUDGET);
        sequencer.close().await;
    });
}

#[test]
fn time_does_not_go_back() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        decide(&sequencer, proposal("r-1", 1, 1_000, 1_000)).await.unwrap();
        let back = decide(&sequencer, proposal("r-2", 1, 1_000, 999)).await;
        assert_eq!(back, Err(SequencerError::ClockWentBack { time: 999, high_water: 1_000 }));
        let far = decide(&sequencer, proposal("r-3", 1, 1_000, u64::MAX)).await;
        assert_eq!(far, Err(SequencerError::TimeOutOfRange { time: u64::MAX }));
        assert_eq!(sequencer.high_water(), 1_000);
        sequencer.close().await;
    });

    let world = World::new();
    let now = Clock::now();
    let system = Options { clock: Clock::System, ..options() };
    let sequencer = world.start_with(system, None).unwrap();
    run(async {
        decide(&sequencer, proposal("r-1", 1, 1_000, now + 100)).await.unwrap();
        let decided = decide(&sequencer, proposal("r-2", 1, 1_000, now + 40)).await.unwrap();
        assert_eq!(verified(&world, &decided, now + 100).iat, now + 100, "small steps are held");
        let back = decide(&sequencer, proposal("r-3", 1, 1_000, now + 39)).await;
        assert!(matches!(back, Err(SequencerError::ClockWentBack { .. })), "{back:?}");
        sequencer.close().await;
    });
}

#[test]
fn a_clock_that_jumps_ahead_stops_admission_and_ends_nothing() {
    const YEAR: u64 = 31_536_000;
    let world = World::new();
    let system = || Options { clock: Clock::System, ..options() };
    // A store that was last used long ago: the clock of a start is taken as it is.
    let sequencer = world.start();
    run(decide(&sequencer, proposal("r-0", 1, 1_000, 1_000))).unwrap();
    run(sequencer.close());
    let sequencer = world.start_with(system(), None).unwrap();
    let now = Clock::now();
    run(async {
        assert_eq!(sequencer.inspect().await.unwrap().live, 0, "it ended long ago");
        decide(&sequencer, proposal("r-1", 10, 1_000, now)).await.unwrap();
        let before = sequencer.inspect().await.unwrap();
        let asked = proposal("r-2", 10, 1_000, now + YEAR);
        let jumped = |error: &SequencerError| {
            assert!(matches!(error, SequencerError::ClockJumped { .. }), "{error}");
            assert!(error.to_string().contains("hint: set the clock"), "{error}");
        };
        jumped(&decide(&sequencer, asked.clone()).await.unwrap_err());
        jumped(&sequencer.probe(asked.clone()).await.unwrap_err());
        let release = settle(SettleKind::Release, "r-1", now + YEAR);
        jumped(&settled(&sequencer, release).await.unwrap_err());
        let far = now + MAX_FORWARD_SECONDS + 60;
        jumped(&decide(&sequencer, proposal("r-3", 10, 1_000, far)).await.unwrap_err());
        let after = sequencer.inspect().await.unwrap();
        assert_eq!((after.ledger, after.head), (before.ledger, before.head), "nothing happened");

        // Set right again, the same request is decided.
        let right = Proposal { time: now + 1, ..*asked };
        assert_eq!(decide(&sequencer, Box::new(right)).await.unwrap().effect, Effect::Permit);
        sequencer.close().await;
    });
}

#[test]
fn reservations_expire_while_nothing_is_asked() {
    let world = World::new();
    let system = Options { clock: Clock::System, confirm_within_seconds: 1, ..options() };
    let sequencer = world.start_with(system, None).unwrap();
    run(decide(&sequencer, proposal("r-1", 1, 1_000, Clock::now()))).unwrap();
    let reader = sequencer.reader();
    // The log grows by itself; the test's own time limit is that of its runner.
    while reader.size().unwrap() < 5 {
        std::thread::yield_now();
    }
    assert_eq!(run(sequencer.inspect()).unwrap().live, 0);
    run(sequencer.close());
}

#[test]
fn a_decision_that_is_too_long_harms_no_other() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        let mut long = proposal("r-2", 1, 60, 1_000);
        long.candidates[0].outcome.warnings = vec![placet_core::Warning {
            code: Code::known("LONG"),
            message: "x".repeat(60_000),
            policy: id("quota"),
        }];
        let ask = |proposed| sequencer.propose(proposed);
        let one = ask(proposal("r-1", 20, 60, 1_000)).await.unwrap();
        let two = ask(long).await.unwrap();
        let three = ask(proposal("r-3", 20, 60, 1_000)).await.unwrap();
        assert_eq!(one.await.unwrap().effect, Effect::Permit);
        assert_eq!(two.await, Err(SequencerError::TooLong));
        assert_eq!(three.await.unwrap().effect, Effect::Permit, "its GPUs were never taken");
        sequencer.close().await;
    });
}

#[test]
fn closing_answers_what_waits() {
    let world = World::new();
    let sequencer = world.start();
    run(async {
        let mut pending = Vec::new();
        for number in 0..500 {
            let proposed = proposal(&format!("r-{number}"), 1, 60, 1_000);
            pending.push(sequencer.propose(proposed).await.unwrap());
        }
        sequencer.close().await;
        assert!(!sequencer.is_alive());
        for answer in pending {
            assert!(answer.await.is_ok(), "it was in the order before the end");
        }
        let late = sequencer.propose(proposal("late", 1, 60, 1_000)).await.map(drop);
        assert_eq!(late, Err(SequencerError::Stopped));
        assert!(world.start_with(options(), None).is_ok(), "the store is free");
    });
}

#[derive(Debug, Clone)]
enum Op {
    Ask { name: u8, gpus: u32, seconds: u64, ahead: Option<u64> },
    Confirm(u8),
    Release(u8),
    Wait(u64),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..24_u8;
    prop_oneof![
        6 => (name(), 1..30_u32, 1..900_u64, prop::option::of(0..2_000_u64))
            .prop_map(|(name, gpus, seconds, ahead)| Op::Ask { name, gpus, seconds, ahead }),
        4 => name().prop_map(Op::Confirm),
        3 => name().prop_map(Op::Release),
        3 => (0..400_u64).prop_map(Op::Wait),
        1 => Just(Op::Reopen),
    ]
}

async fn step(sequencer: &SequencerHandle, op: &Op, time: u64) {
    let request = |name: &u8| format!("r-{name}");
    match op {
        Op::Ask { name, gpus, seconds, ahead } => {
            let mut asked = proposal(&request(name), *gpus, *seconds, time);
            if let Some(ahead) = ahead {
                asked = starting(asked, time + ahead);
            }
            let asked = decide(sequencer, asked).await;
            let reused = matches!(asked, Err(SequencerError::RequestIdReused { .. }));
            assert!(asked.is_ok() || reused, "{asked:?}");
        }
        Op::Confirm(name) | Op::Release(name) => {
            let confirm = matches!(op, Op::Confirm(_));
            let kind = if confirm { SettleKind::Confirm } else { SettleKind::Release };
            let settled = settled(sequencer, settle(kind, &request(name), time)).await;
            assert!(matches!(settled, Ok(_) | Err(SequencerError::Settle(_))), "{settled:?}");
        }
        Op::Wait(_) | Op::Reopen => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn what_is_recovered_is_what_was_there(ops in proptest::collection::vec(op(), 0..50)) {
        let world = World::new();
        run(async {
            let (mut sequencer, mut time) = (world.start(), 1_000);
            for op in ops.iter().chain([&Op::Reopen]) {
                if let Op::Wait(by) = op {
                    time += by;
                }
                step(&sequencer, op, time).await;
                if let Op::Reopen = op {
                    let before = sequencer.inspect().await.unwrap();
                    sequencer.close().await;
                    sequencer = world.start();
                    let after = sequencer.inspect().await.unwrap();
                    prop_assert_eq!(after, before);
                }
            }
            sequencer.close().await;
            Ok(())
        })?;
    }
}
