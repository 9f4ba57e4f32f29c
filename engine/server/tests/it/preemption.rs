//! Preemption through the sequencer: signed orders, restarts at each step, and what is too long.

use std::collections::BTreeSet;

use placet_core::{
    Effect, Event, EvictionOrder, Expect, KeySet, Leaf, PreemptionRule, PriorityClass, Subject,
    Verifier,
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
