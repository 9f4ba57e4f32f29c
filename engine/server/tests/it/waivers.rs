//! Waivers and freezes through the sequencer: counted once, logged before they are used, the same
//! after every restart; and nothing that begins work gets past a freeze.

use placet_core::{
    Code, Decision, Digest, Effect, Event, Extends, FreezeClaims, FreezeScope, GangPlace, Leaf,
    Lift, PreemptionRule, PriorityClass, Subject, ThawClaims, Waived, WaiverClaims, WaiverScope,
    sign_approval,
};
use placet_policy::{FreezeGrant, Waiver};
use placet_server::quota::FreezeError;
use placet_server::sequencer::{
    Decided, Freeze, FreezeOrder, Freezing, Proposal, SequencerError, SequencerHandle, SettleError,
    SettleKind, Snapshot,
};
use placet_server::store::Fault;

use crate::ledger::verified;
use crate::preemption::{burst, sold};
use crate::world::{ISSUER, World, decide, id, proposal, run, settle, settled};

fn waiver(world: &World, name: &str, uses: u32, exp: u64) -> Waiver {
    let lift = Lift { code: Code::new("LATE").unwrap(), policy: id("compliance") };
    let claims = WaiverClaims {
        approved_by: id("duty"),
        aud: ISSUER.to_owned(),
        exp,
        iat: 1_000,
        jti: id(name),
        lifts: [lift].into(),
        max_duration_seconds: None,
        max_gpu_count: None,
        nbf: 1_000,
        placet: 1,
        reason: "CHG-1".to_owned(),
        requested_by: id("ops"),
        scope: WaiverScope { tenants: [id("acme")].into(), ..WaiverScope::default() },
        uses,
    };
    let token = sign_approval(&world.approver, &claims).unwrap();
    Waiver { claims, digest: Digest::of(token.as_bytes()), token }
}

/// A request that its policies permit because of a waiver.
fn waived(mut asked: Box<Proposal>, waivers: &[Waiver]) -> Box<Proposal> {
    asked.request.waivers = waivers.iter().map(|waiver| waiver.token.clone()).collect();
    asked.waivers = waivers.to_vec();
    let lifted = waivers.iter().flat_map(|Waiver { claims, .. }| {
        claims.lifts.iter().map(|Lift { code, policy }| Waived {
            code: code.clone(),
            policy: policy.clone(),
            waiver: claims.jti.clone(),
        })
    });
    for candidate in &mut asked.candidates {
        candidate.outcome.waived = lifted.clone().collect();
    }
    let canonical = placet_core::canonical_json(&asked.request).unwrap();
    asked.request_digest = Digest::of(&canonical);
    asked
}

fn codes(decided: &Decided) -> Vec<String> {
    assert_eq!(decided.codes.is_empty(), decided.effect == Effect::Permit);
    decided.codes.iter().map(ToString::to_string).collect()
}

/// Kinds of leaves, with the names of waivers and freezes.
fn log(sequencer: &SequencerHandle) -> Vec<String> {
    let leaves = sequencer.reader().leaves(0, 1_000).unwrap();
    let leaves = leaves.iter().map(|leaf| serde_json::from_slice::<Leaf>(leaf).unwrap());
    let kind = |leaf: Leaf| match leaf.event {
        Event::Waiver { id, .. } | Event::Freeze { id, .. } => Some(id.to_string()),
        Event::Thaw { id, .. } => Some(format!("no {id}")),
        Event::Decision { .. } => Some("decision".to_owned()),
        Event::Confirmation { .. } => Some("confirmation".to_owned()),
        Event::Release { .. } => Some("release".to_owned()),
        _ => None,
    };
    leaves.filter_map(kind).collect()
}

/// Closes, starts again, and checks that the log folds to what there was.
async fn again(world: &World, sequencer: SequencerHandle) -> (SequencerHandle, Snapshot) {
    let before = sequencer.inspect().await.unwrap();
    let freezes = sequencer.freezes();
    sequencer.close().await;
    placet_server::verify(&world.store()).unwrap();
    let sequencer = world.start();
    assert_eq!(sequencer.inspect().await.unwrap(), before);
    assert_eq!(sequencer.freezes(), freezes);
    (sequencer, before)
}

async fn permitted(world: &World, sequencer: &SequencerHandle, asked: Box<Proposal>) -> Decision {
    let time = asked.time;
    let decided = decide(sequencer, asked).await.unwrap();
    let decision = verified(world, &decided, time);
    assert_eq!(decision.effect, Effect::Permit, "{:?}", decision.reasons);
    decision
}

#[test]
fn a_waiver_is_logged_where_it_is_used_first_and_used_as_often_as_it_may_be() {
    let world = World::new();
    run(async {
        let mut sequencer = world.start();
        let two = [waiver(&world, "w-1", 2, 9_000)];
        let plain = permitted(&world, &sequencer, proposal("r-0", 1, 60, 1_000)).await;
        assert!(plain.waivers.is_empty());
        let first = waived(proposal("r-1", 1, 60, 1_000), &two);
        let decision = permitted(&world, &sequencer, first.clone()).await;
        assert_eq!(decision.waivers, [id("w-1")]);
        let first_answer = decide(&sequencer, first.clone()).await.unwrap();
        (sequencer, _) = again(&world, sequencer).await;

        // Retried, asked about and denied: none of it is a use.
        let repeated = decide(&sequencer, first).await.unwrap();
        assert_eq!(repeated.token, first_answer.token, "a retry gets the first answer");
        assert!(repeated.waived.is_empty(), "and uses nothing");
        for _ in 0..3 {
            let asked = waived(proposal("probe", 1, 60, 1_010), &two);
            assert_eq!(sequencer.probe(asked).await.unwrap().0, Effect::Permit);
        }
        let large = decide(&sequencer, waived(proposal("r-2", 41, 60, 1_010), &two)).await.unwrap();
        assert_eq!(codes(&large), ["QUOTA_EXCEEDED"], "the ledger's refusal is not lifted");

        let last = waived(proposal("r-3", 1, 60, 1_020), &two);
        let decided = decide(&sequencer, last).await.unwrap();
        let [lifted] = &decided.waived[..] else { panic!("one denial was lifted") };
        assert_eq!((lifted.waiver.as_str(), lifted.code.as_str()), ("w-1", "LATE"));
        (sequencer, _) = again(&world, sequencer).await;
        let used_up = decide(&sequencer, waived(proposal("r-4", 1, 60, 1_030), &two)).await;
        assert_eq!(codes(&used_up.unwrap()), ["WAIVER_USED_UP"]);
        let expected = ["decision", "w-1", "decision", "decision", "decision", "decision"];
        assert_eq!(log(&sequencer), expected);
        sequencer.close().await;
    });
}

#[test]
fn a_waiver_ends_with_its_time_and_has_its_name_to_itself() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let own = [waiver(&world, "w-1", 5, 1_100)];
        permitted(&world, &sequencer, waived(proposal("r-1", 1, 900, 1_000), &own)).await;
        let twin = [waiver(&world, "w-1", 6, 9_000)];
        let changed = decide(&sequencer, waived(proposal("r-2", 1, 60, 1_010), &twin)).await;
        assert_eq!(codes(&changed.unwrap()), ["WAIVER_CHANGED"]);
        // It was good when it was evaluated; while it waited, its time has passed.
        let mut late = waived(proposal("r-3", 1, 60, 1_100), &own);
        late.time = 1_100;
        assert_eq!(codes(&decide(&sequencer, late).await.unwrap()), ["WAIVER_EXPIRED"]);
        // A clock that goes back does not bring it back.
        let back = decide(&sequencer, waived(proposal("r-4", 1, 60, 1_050), &own)).await;
        assert!(matches!(back, Err(SequencerError::ClockWentBack { .. })));
        let both = [waiver(&world, "w-2", 1, 9_000), waiver(&world, "w-3", 1, 9_000)];
        let decision =
            permitted(&world, &sequencer, waived(proposal("r-5", 1, 60, 1_200), &both)).await;
        assert_eq!(decision.waivers, [id("w-2"), id("w-3")]);
        // Where one of two is used up, the other does not stand in for it.
        let decided = decide(&sequencer, waived(proposal("r-6", 1, 60, 1_210), &both[..1])).await;
        assert_eq!(codes(&decided.unwrap()), ["WAIVER_USED_UP"]);
        let (sequencer, _) = again(&world, sequencer).await;
        assert_eq!(log(&sequencer).iter().filter(|kind| kind.starts_with("w-")).count(), 3);
        sequencer.close().await;
    });
}

#[test]
fn nothing_is_lifted_but_by_a_waiver_of_the_request() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let one = [waiver(&world, "w-1", 1, 9_000)];
        let mut none = waived(proposal("r-1", 1, 60, 1_000), &one);
        none.waivers.clear();
        assert!(matches!(decide(&sequencer, none).await, Err(SequencerError::Malformed(_))));
        let mut other = waived(proposal("r-2", 1, 60, 1_000), &one);
        other.candidates[0].outcome.waived[0].code = Code::new("OTHER").unwrap();
        assert!(matches!(decide(&sequencer, other).await, Err(SequencerError::Malformed(_))));
        assert!(log(&sequencer).is_empty());
        // The same request with another waiver is another request.
        permitted(&world, &sequencer, waived(proposal("r-3", 1, 60, 1_000), &one)).await;
        let swapped = [waiver(&world, "w-2", 1, 9_000)];
        let reused = decide(&sequencer, waived(proposal("r-3", 1, 60, 1_000), &swapped)).await;
        assert!(matches!(reused, Err(SequencerError::RequestIdReused { .. })));
        sequencer.close().await;
    });
}

fn member(name: &str, index: u32, size: u32, mut asked: Box<Proposal>) -> Proposal {
    asked.request.request_id = id(name);
    asked.request.gang = Some(GangPlace { id: id("g"), index, size });
    let canonical = placet_core::canonical_json(&asked.request).unwrap();
    asked.request_digest = Digest::of(&canonical);
    *asked
}

#[test]
fn the_members_of_a_gang_use_a_waiver_one_after_the_other() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let two = [waiver(&world, "w-1", 2, 9_000)];
        let gang = |prefix: &str, size: u32| {
            let member = |at: u32| {
                let name = format!("{prefix}-{at}");
                member(&name, at, size, waived(proposal(&name, 1, 60, 1_000), &two))
            };
            (0..size).map(member).collect::<Vec<_>>()
        };
        let three = sequencer.propose_gang(gang("a", 3)).await.unwrap().await.unwrap();
        let told: Vec<_> = three.iter().map(codes).collect();
        assert_eq!(told, [["GANG_INCOMPLETE"], ["GANG_INCOMPLETE"], ["WAIVER_USED_UP"]]);
        assert!(three.iter().all(|one| verified(&world, one, 1_000).waivers.is_empty()));
        assert_eq!(log(&sequencer), ["decision"; 3], "none was admitted, so none was used");
        let (sequencer, _) = again(&world, sequencer).await;
        let both = sequencer.propose_gang(gang("b", 2)).await.unwrap().await.unwrap();
        assert!(both.iter().all(|one| one.effect == Effect::Permit));
        assert_eq!(log(&sequencer)[3..], ["w-1", "decision", "decision"]);
        let (sequencer, _) = again(&world, sequencer).await;
        let more = decide(&sequencer, waived(proposal("r-9", 1, 60, 1_010), &two)).await.unwrap();
        assert_eq!(codes(&more), ["WAIVER_USED_UP"]);
        sequencer.close().await;
    });
}

#[test]
fn each_model_that_is_tried_uses_its_own_waivers() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let (one, two) = (waiver(&world, "w-1", 1, 9_000), waiver(&world, "w-2", 1, 9_000));
        let asked = |name: &str| {
            let mut asked = waived(proposal(name, 1, 60, 1_000), &[one.clone(), two.clone()]);
            let mut other = asked.candidates[0].clone();
            other.gpu_model = id("A100");
            asked.candidates[0].outcome.waived.retain(|waived| waived.waiver == id("w-1"));
            other.outcome.waived.retain(|waived| waived.waiver == id("w-2"));
            asked.candidates.push(other);
            asked
        };
        assert_eq!(permitted(&world, &sequencer, asked("r-1")).await.waivers, [id("w-1")]);
        let second = permitted(&world, &sequencer, asked("r-2")).await;
        assert_eq!((second.waivers, second.workload.gpu_model), (vec![id("w-2")], id("A100")));
        let third = decide(&sequencer, asked("r-3")).await.unwrap();
        assert_eq!(codes(&third), ["WAIVER_USED_UP", "WAIVER_USED_UP"]);
        again(&world, sequencer).await.0.close().await;
    });
}

#[test]
fn what_makes_others_go_and_what_goes_on_use_waivers_too() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        decide(&sequencer, sold("e-1", 40)).await.unwrap();
        settled(&sequencer, settle(SettleKind::Confirm, "e-1", 1_000)).await.unwrap();
        let one = [waiver(&world, "w-1", 1, 9_000)];
        let first = permitted(&world, &sequencer, waived(burst("i-1", 8, 1_100), &one)).await;
        assert_eq!((first.evictions.len(), first.waivers), (1, vec![id("w-1")]));
        let second = decide(&sequencer, waived(burst("i-2", 8, 1_100), &one)).await.unwrap();
        assert_eq!(codes(&second), ["WAIVER_USED_UP"], "and displaces nobody");
        settled(&sequencer, settle(SettleKind::Confirm, "i-1", 1_120)).await.unwrap();
        let (sequencer, _) = again(&world, sequencer).await;

        let held = first.reservation.unwrap();
        let mut longer = proposal("x-1", 8, 60, 1_130);
        longer.request.extends = Some(Extends {
            end: held.end,
            epoch: held.epoch,
            reservation_id: held.id,
            start: held.start,
        });
        let Subject::Lease(workload) = &mut longer.request.subject else { panic!("a lease") };
        workload.start = Some(held.end);
        let spent = decide(&sequencer, waived(longer.clone(), &one)).await.unwrap();
        assert_eq!(codes(&spent), ["WAIVER_USED_UP"]);
        longer.request.request_id = id("x-2");
        let two = [waiver(&world, "w-2", 1, 9_000)];
        let more = permitted(&world, &sequencer, waived(longer, &two)).await;
        assert_eq!(more.waivers, [id("w-2")]);
        again(&world, sequencer).await.0.close().await;
    });
}

#[test]
fn a_use_is_durable_with_its_decision_or_not_at_all() {
    for fault in [
        Fault::Sign,
        Fault::Commit,
        Fault::CommitUnknown,
        Fault::CommitPersisted,
        Fault::CrashBeforeCommit,
        Fault::CrashAfterCommit,
    ] {
        let world = World::new();
        run(async {
            let sequencer = world.start();
            let one = [waiver(&world, "w-1", 1, 9_000)];
            world.faults.push(fault);
            let first = decide(&sequencer, waived(proposal("r-1", 1, 60, 1_000), &one)).await;
            assert_eq!(world.faults.pending(), 0, "{fault:?} happened: {first:?}");
            sequencer.close().await;
            // Whatever became of it: asked again, it is admitted, and the waiver is used once.
            let sequencer = world.start();
            let retried = decide(&sequencer, waived(proposal("r-1", 1, 60, 1_000), &one)).await;
            assert_eq!(retried.unwrap().effect, Effect::Permit, "{fault:?}");
            assert_eq!(log(&sequencer), ["w-1", "decision"], "{fault:?}");
            let next = decide(&sequencer, waived(proposal("r-2", 1, 60, 1_000), &one)).await;
            assert_eq!(codes(&next.unwrap()), ["WAIVER_USED_UP"], "{fault:?}");
            again(&world, sequencer).await.0.close().await;
        });
    }
}

fn freeze(world: &World, name: &str, iat: u64, scope: FreezeScope) -> FreezeOrder {
    let claims = FreezeClaims {
        aud: ISSUER.to_owned(),
        by: id("duty"),
        iat,
        jti: id(name),
        placet: 1,
        reason: "INC-7".to_owned(),
        scope,
    };
    let token = sign_approval(&world.approver, &claims).unwrap();
    FreezeOrder { order: Freezing::Freeze(claims), token, time: iat }
}

fn thaw(world: &World, name: &str, iat: u64, grant: FreezeGrant) -> FreezeOrder {
    let claims = ThawClaims {
        aud: ISSUER.to_owned(),
        by: id("duty"),
        iat,
        jti: id(name),
        placet: 1,
        reason: "cleared".to_owned(),
    };
    let token = sign_approval(&world.approver, &claims).unwrap();
    FreezeOrder { order: Freezing::Thaw(claims, grant), token, time: iat }
}

fn here() -> FreezeScope {
    FreezeScope { clusters: [id("c-1")].into(), ..FreezeScope::default() }
}

async fn frozen(sequencer: &SequencerHandle, asked: Box<Proposal>) {
    let decided = decide(sequencer, asked).await.unwrap();
    assert_eq!(codes(&decided), ["FROZEN"]);
}

#[test]
fn a_freeze_stands_until_it_is_lifted_whatever_happens() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let order = freeze(&world, "f-1", 1_000, here());
        let Freeze { since, .. } = sequencer.freeze(order.clone()).await.unwrap();
        assert_eq!(since, 1_000);
        sequencer.freeze(order).await.unwrap();
        assert_eq!(log(&sequencer), ["f-1"], "sent again, it changes nothing");
        frozen(&sequencer, proposal("r-1", 1, 60, 1_010)).await;
        let elsewhere = |name: &str, time| {
            let mut asked = proposal(name, 1, 60, time);
            let Subject::Lease(workload) = &mut asked.request.subject else { panic!("a lease") };
            workload.cluster_id = id("c-2");
            asked
        };
        permitted(&world, &sequencer, elsewhere("r-2", 1_010)).await;
        let (sequencer, state) = again(&world, sequencer).await;
        let used = |state: &Snapshot| state.usage.clone();
        frozen(&sequencer, proposal("r-3", 1, 60, 5_000)).await;
        let (sequencer, later) = again(&world, sequencer).await;
        assert_ne!(used(&later), used(&state), "what ran has ended");

        let narrow = FreezeGrant { tenants: [id("acme")].into(), ..FreezeGrant::default() };
        let refused = sequencer.freeze(thaw(&world, "f-1", 5_000, narrow)).await;
        assert_eq!(refused, Err(SequencerError::FreezeOverBroad { name: id("f-1") }));
        let unknown = sequencer.freeze(thaw(&world, "f-2", 5_000, FreezeGrant::default())).await;
        let none = FreezeError::Unknown { name: id("f-2") };
        assert_eq!(unknown, Err(SequencerError::Freeze(none)));
        let mut kept = thaw(&world, "f-1", 4_699, FreezeGrant::default());
        kept.time = 5_000;
        let stale = FreezeError::Stale { iat: 4_699, now: 5_000 };
        assert_eq!(sequencer.freeze(kept).await, Err(SequencerError::Freeze(stale)));
        let again_late = FreezeOrder { time: 5_000, ..freeze(&world, "f-3", 4_000, here()) };
        assert!(sequencer.freeze(again_late).await.is_err(), "found later, it is of no use");

        sequencer.freeze(thaw(&world, "f-1", 5_010, FreezeGrant::default())).await.unwrap();
        assert!(sequencer.freezes().standing.is_empty());
        permitted(&world, &sequencer, proposal("r-4", 1, 60, 5_010)).await;
        let (sequencer, _) = again(&world, sequencer).await;
        let repeated = decide(&sequencer, proposal("r-1", 1, 60, 1_010)).await.unwrap();
        assert_eq!(codes(&repeated), ["FROZEN"], "what was decided stays decided");
        sequencer.close().await;
    });
}

#[test]
fn nothing_that_begins_work_gets_past_a_freeze() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        // Before: one that waits to be confirmed, one that runs, a lease, and one sold.
        permitted(&world, &sequencer, proposal("waits", 1, 600, 1_000)).await;
        let runs = permitted(&world, &sequencer, proposal("runs", 2, 600, 1_000)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "runs", 1_000)).await.unwrap();
        decide(&sequencer, sold("e-1", 30)).await.unwrap();
        settled(&sequencer, settle(SettleKind::Confirm, "e-1", 1_000)).await.unwrap();
        let booked = crate::world::starting(proposal("ahead", 1, 60, 1_000), 2_000);
        permitted(&world, &sequencer, booked).await;
        permitted(&world, &sequencer, waived(burst("i-1", 10, 1_040), &[])).await;
        let usage = sequencer.inspect().await.unwrap().usage;
        sequencer.freeze(freeze(&world, "f-1", 1_050, here())).await.unwrap();

        for name in ["waits", "ahead", "i-1"] {
            let confirm = settle(SettleKind::Confirm, name, 1_060);
            let error = settled(&sequencer, confirm).await.unwrap_err();
            let (name, reason) = (id("f-1"), "INC-7".to_owned());
            assert_eq!(error, SequencerError::Settle(SettleError::Frozen { name, reason }));
        }
        // A confirm that was done is only told again.
        settled(&sequencer, settle(SettleKind::Confirm, "runs", 1_060)).await.unwrap();

        frozen(&sequencer, proposal("new", 1, 60, 1_060)).await;
        frozen(&sequencer, crate::world::starting(proposal("later", 1, 60, 1_060), 3_000)).await;
        frozen(&sequencer, burst("i-2", 20, 1_060)).await;
        let one = [waiver(&world, "w-1", 1, 9_000)];
        frozen(&sequencer, waived(proposal("lifted", 1, 60, 1_060), &one)).await;
        let held = runs.reservation.unwrap();
        let mut longer = proposal("longer", 2, 60, 1_060);
        let (end, epoch, start) = (held.end, held.epoch, held.start);
        longer.request.extends =
            Some(Extends { end, epoch, reservation_id: held.id.clone(), start });
        let Subject::Lease(workload) = &mut longer.request.subject else { panic!("a lease") };
        workload.start = Some(end);
        frozen(&sequencer, longer).await;
        let mut job = proposal("job", 1, 60, 1_060);
        let Subject::Lease(mut workload) = job.request.subject.clone() else { panic!("a lease") };
        workload.lease_id = Some(held.id);
        job.request.subject = Subject::Job(workload);
        frozen(&sequencer, job).await;
        let gang = (0..2).map(|at| {
            let name = format!("g-{at}");
            member(&name, at, 2, proposal(&name, 1, 60, 1_060))
        });
        let gang = sequencer.propose_gang(gang.collect()).await.unwrap().await.unwrap();
        assert!(gang.iter().all(|one| codes(one) == ["FROZEN"]));
        let asked = sequencer.probe(proposal("probe", 1, 60, 1_060)).await.unwrap();
        assert_eq!(asked.1[0].code.as_str(), "FROZEN");
        assert!(asked.1[0].retry && asked.1[0].field.as_deref() == Some("lease.cluster_id"));
        assert_eq!(sequencer.inspect().await.unwrap().usage, usage, "no quota was touched");
        assert!(!log(&sequencer).contains(&"w-1".to_owned()), "nor a waiver used");

        // What runs may end, and what waits may be given up.
        for name in ["waits", "runs"] {
            settled(&sequencer, settle(SettleKind::Release, name, 1_070)).await.unwrap();
        }
        let (sequencer, _) = again(&world, sequencer).await;
        sequencer.freeze(thaw(&world, "f-1", 1_080, FreezeGrant::default())).await.unwrap();
        settled(&sequencer, settle(SettleKind::Confirm, "ahead", 1_090)).await.unwrap();
        again(&world, sequencer).await.0.close().await;
    });
}

#[test]
fn a_freeze_of_some_is_none_of_others() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let sold_only = FreezeScope {
            priority_classes: [PriorityClass::ExternalCommercial].into(),
            ..FreezeScope::default()
        };
        sequencer.freeze(freeze(&world, "f-1", 1_000, sold_only)).await.unwrap();
        frozen(&sequencer, sold("e-1", 1)).await;
        permitted(&world, &sequencer, proposal("r-1", 1, 60, 1_000)).await;
        let everything = FreezeScope { everything: true, ..FreezeScope::default() };
        sequencer.freeze(freeze(&world, "f-0", 1_010, everything)).await.unwrap();
        frozen(&sequencer, proposal("r-2", 1, 60, 1_010)).await;
        sequencer.freeze(thaw(&world, "f-0", 1_020, FreezeGrant::default())).await.unwrap();
        let again_soon = sequencer.freeze(freeze(&world, "f-0", 1_010, here())).await;
        assert!(matches!(again_soon, Err(SequencerError::ClockWentBack { .. })));
        let order = FreezeOrder { time: 1_030, ..freeze(&world, "f-0", 1_010, here()) };
        let exists = FreezeError::Exists { name: id("f-0") };
        assert_eq!(sequencer.freeze(order).await, Err(SequencerError::Freeze(exists)));
        permitted(&world, &sequencer, proposal("r-3", 1, 60, 1_030)).await;
        again(&world, sequencer).await.0.close().await;
    });
}

#[test]
fn a_rule_of_who_may_displace_is_not_asked_under_a_freeze() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        sequencer.freeze(freeze(&world, "f-1", 1_000, here())).await.unwrap();
        let mut asked = burst("i-1", 1, 1_000);
        asked.candidates[0].outcome.preemption = Some(PreemptionRule {
            grace_seconds: 0,
            max_victims: 1,
            min_runtime_seconds: 0,
            victim_classes: vec![PriorityClass::ExternalCommercial],
            ..PreemptionRule::default()
        });
        frozen(&sequencer, asked).await;
        sequencer.close().await;
    });
}
