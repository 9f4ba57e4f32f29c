//! Preemption through the sequencer: signed orders, restarts at each step, and what is too long.

use std::collections::BTreeSet;

use placet_core::{
    Effect, Event, EvictionOrder, Expect, Id, KeySet, Leaf, PreemptionRule, PriorityClass,
    SlaTerms, Subject, Verifier,
};
use placet_server::sequencer::{
    Options, Proposal, SequencerError, SequencerHandle, SettleError, SettleKind,
};

use crate::ledger::verified;
use crate::world::{ISSUER, World, decide, options, proposal, run, settle, settled};

/// The orders of eviction in a world's log, in order.
fn orders(world: &World, sequencer: &SequencerHandle) -> Vec<EvictionOrder> {
    let keys = KeySet::from_json(world.signer.jwks().as_bytes()).unwrap();
    let verifier = Verifier::new(keys);
    let mut orders = Vec::new();
    for leaf in sequencer.reader().leaves(0, 1_000).unwrap() {
        let leaf: Leaf = serde_json::from_slice(&leaf).unwrap();
        if let Event::EvictionOrder { token, victim, .. } = leaf.event {
            let expect = Expect { issuer: ISSUER, audience: "scheduler", now: leaf.time };
            let order = verifier.verify_eviction(&token, &expect).unwrap();
            assert_eq!(order.reservation, victim);
            orders.push(order);
        }
    }
    orders
}

pub(crate) fn sold(name: &str, gpus: u32) -> Box<Proposal> {
    let mut asked = proposal(name, gpus, 3_600, 1_000);
    asked.request.priority_class = PriorityClass::ExternalCommercial;
    asked
}

/// Internal work that may displace others.
pub(crate) fn burst(name: &str, gpus: u32, time: u64) -> Box<Proposal> {
    let mut asked = proposal(name, gpus, 600, time);
    let Subject::Lease(workload) = &mut asked.request.subject else { panic!("a lease") };
    workload.may_preempt = true;
    asked.candidates[0].outcome.preemption = Some(PreemptionRule {
        grace_seconds: 60,
        max_victims: 4,
        min_runtime_seconds: 30,
        victim_classes: vec![PriorityClass::ExternalCommercial],
        ..PreemptionRule::default()
    });
    asked
}

#[test]
fn internal_work_makes_room_for_itself_with_signed_orders() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let mut reservations = Vec::new();
        for (name, gpus) in [("e-1", 20), ("e-2", 12), ("e-3", 8)] {
            let decided = decide(&sequencer, sold(name, gpus)).await.unwrap();
            let reservation = verified(&world, &decided, 1_000).reservation.unwrap().id;
            settled(&sequencer, settle(SettleKind::Confirm, name, 1_000)).await.unwrap();
            reservations.push(reservation);
        }
        // Both smaller ones together would lose as much: one victim is fewer than two.
        let decided = decide(&sequencer, burst("i-1", 18, 1_100)).await.unwrap();
        let decision = verified(&world, &decided, 1_100);
        let reservation = decision.reservation.clone().unwrap();
        assert_eq!(
            (reservation.start, reservation.end, reservation.confirm_by),
            (1_160, 1_760, 1_160)
        );
        let told: BTreeSet<_> =
            decision.evictions.iter().map(|one| one.reservation.clone()).collect();
        assert_eq!(told, BTreeSet::from([reservations[0].clone()]), "{decision:?}");
        assert!(decision.evictions.iter().all(|one| (one.epoch, one.evict_by) == (2, 1_160)));
        let order = orders(&world, &sequencer).pop().unwrap();
        assert_eq!((&order.preemptor, order.exp), (&reservation.id, 4_600));
        let again = decide(&sequencer, burst("i-1", 18, 1_100)).await.unwrap();
        assert_eq!(again, decided, "a retry gets the first answer");
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;

        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before, "announced");
        let confirm = settle(SettleKind::Confirm, "i-1", 1_120);
        settled(&sequencer, confirm).await.unwrap();
        let stale = settle(SettleKind::Release, "e-1", 1_130);
        let stale = settled(&sequencer, stale).await;
        let fenced = SequencerError::Settle(SettleError::StaleEpoch { current: 2 });
        assert_eq!(stale, Err(fenced));
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;

        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before, "in effect");
        // Whom it needs beside the others is internal itself.
        let denied = decide(&sequencer, burst("i-2", 40, 1_140)).await.unwrap();
        assert_eq!(denied.effect, Effect::Deny);
        let late = decide(&sequencer, proposal("n-1", 1, 60, 1_160)).await.unwrap();
        assert_eq!(late.effect, Effect::Permit, "two GPUs are left");
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;
        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before, "the victim has gone");
        sequencer.close().await;
    });
}

#[test]
fn an_order_that_is_too_long_fails_its_own_request_only() {
    let world = World::new();
    // The decision has room for such an audience, an order has not.
    let audience = (0..60).map(|number| format!("{number:0>128}")).collect();
    let options = Options { audience, ..options() };
    run(async {
        let sequencer = world.start_with(options, None).unwrap();
        decide(&sequencer, sold("e-1", 40)).await.unwrap();
        settled(&sequencer, settle(SettleKind::Confirm, "e-1", 1_000)).await.unwrap();
        let before = sequencer.inspect().await.unwrap();
        let refused = sequencer.propose(burst("i-1", 18, 1_100)).await.unwrap();
        let beside = sequencer.propose(proposal("n-1", 41, 60, 1_100)).await.unwrap();
        assert_eq!(refused.await, Err(SequencerError::TooLong));
        assert_eq!(sequencer.inspect().await.unwrap().usage, before.usage, "nothing is held");
        assert_eq!(beside.await.unwrap().effect, Effect::Deny, "another is decided");
        sequencer.close().await;
    });
}

fn on_terms(
    mut asked: Box<Proposal>,
    min_runtime_seconds: u32,
    notice_seconds: u32,
) -> Box<Proposal> {
    asked.candidates[0].outcome.terms = Some(SlaTerms { min_runtime_seconds, notice_seconds });
    asked
}

fn with_rule(mut asked: Box<Proposal>, change: impl Fn(&mut PreemptionRule)) -> Box<Proposal> {
    change(asked.candidates[0].outcome.preemption.as_mut().unwrap());
    asked
}

#[test]
fn a_promise_is_signed_and_the_preemptor_waits_for_it() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        // Both fill the account; who was promised little would do for a small one.
        for (name, gpus, notice) in [("e-1", 30, 400), ("e-2", 10, 60)] {
            let decided =
                decide(&sequencer, on_terms(sold(name, gpus), 400, notice)).await.unwrap();
            let terms = SlaTerms { min_runtime_seconds: 400, notice_seconds: notice };
            assert_eq!(verified(&world, &decided, 1_000).terms, Some(terms));
            settled(&sequencer, settle(SettleKind::Confirm, name, 1_000)).await.unwrap();
        }
        let decided = decide(&sequencer, burst("i-0", 8, 1_030)).await.unwrap();
        let decision = verified(&world, &decided, 1_030);
        assert_eq!(decision.reservation.map(|held| held.start), Some(1_430), "and no sooner");
        let release = settle(SettleKind::Release, "i-0", 1_030);
        settled(&sequencer, release).await.unwrap();
        let decided = decide(&sequencer, burst("i-1", 8, 1_450)).await.unwrap();
        let decision = verified(&world, &decided, 1_450);
        assert_eq!((decision.evictions.len(), decision.terms), (1, None));
        assert_eq!(decision.reservation.map(|held| held.start), Some(1_510));
        let large = decide(&sequencer, burst("i-2", 20, 1_450)).await.unwrap();
        let decision = verified(&world, &large, 1_450);
        assert_eq!(decision.reservation.map(|held| held.start), Some(1_850));
        assert_eq!(decision.evictions.len(), 1, "the other was told to go before");
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;
        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before, "and so the log says");
        sequencer.close().await;
    });
}

#[test]
fn who_lost_work_is_spared_after_a_restart_too() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        for (name, gpus) in [("e-1", 20), ("e-2", 20)] {
            decide(&sequencer, sold(name, gpus)).await.unwrap();
            settled(&sequencer, settle(SettleKind::Confirm, name, 1_000)).await.unwrap();
        }
        let spare = |protected: &str, seconds: u32| {
            let protected = Id::new(protected).unwrap();
            move |rule: &mut PreemptionRule| {
                rule.protected_tenants = vec![protected.clone()];
                rule.cool_down_seconds = seconds;
            }
        };
        let asked = with_rule(burst("i-0", 18, 1_100), spare("acme", 0));
        assert_eq!(decide(&sequencer, asked).await.unwrap().effect, Effect::Deny);
        let asked = with_rule(burst("i-1", 18, 1_100), spare("other", 600));
        assert_eq!(decide(&sequencer, asked).await.unwrap().effect, Effect::Permit);
        settled(&sequencer, settle(SettleKind::Confirm, "i-1", 1_100)).await.unwrap();
        let before = sequencer.inspect().await.unwrap();
        sequencer.close().await;

        let sequencer = world.start();
        assert_eq!(sequencer.inspect().await.unwrap(), before);
        // It has to be gone at 1,160: until 1,760 nobody else of it goes.
        for (name, time, effect) in [
            ("i-2", 1_600, Effect::Deny),
            ("i-3", 1_699, Effect::Deny),
            ("i-4", 1_700, Effect::Permit),
        ] {
            let asked = with_rule(burst(name, 22, time), spare("other", 600));
            assert_eq!(decide(&sequencer, asked).await.unwrap().effect, effect, "at {time}");
        }
        sequencer.close().await;
    });
}
