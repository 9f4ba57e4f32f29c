//! What goes on, what runs inside a lease, and what is admitted together, through the sequencer:
//! signed decisions, denials with their codes, and restarts that must fold to the same state.

use placet_core::{
    Claim, Decision, Effect, Event, ExpiryCause, Extends, GangPlace, Leaf, PolicyClaim,
    PriorityClass, ReservationGrant, ReservationState, Subject,
};
use placet_server::sequencer::{
    Proposal, SequencerError, SequencerHandle, SettleError, SettleKind, Snapshot,
};

use crate::ledger::verified;
use crate::preemption::{burst, sold};
use crate::world::{World, decide, id, path, proposal, run, settle, settled};

fn digested(mut proposal: Box<Proposal>) -> Box<Proposal> {
    let canonical = placet_core::canonical_json(&proposal.request).unwrap();
    proposal.request_digest = placet_core::Digest::of(&canonical);
    proposal
}

/// A request for more time of what a decision granted.
fn longer(name: &str, seconds: u64, time: u64, gpus: u32, from: &Extends) -> Box<Proposal> {
    let mut asked = proposal(name, gpus, seconds, time);
    asked.request.extends = Some(from.clone());
    let Subject::Lease(workload) = &mut asked.request.subject else { panic!("a lease") };
    workload.start = Some(from.end);
    digested(asked)
}

fn extends(grant: &ReservationGrant) -> Extends {
    let ReservationGrant { epoch, id, start, end, .. } = grant.clone();
    Extends { end, epoch, reservation_id: id, start }
}

/// A job inside a lease that its policies charge to the lease.
fn inside(name: &str, lease: &str, gpus: u32, seconds: u64, time: u64) -> Box<Proposal> {
    let mut asked = proposal(name, gpus, seconds, time);
    let Subject::Lease(mut workload) = asked.request.subject else { panic!("a lease") };
    workload.lease_id = Some(id(lease));
    let milli = workload.milli_gpus();
    asked.request.subject = Subject::Job(workload);
    let account = path(&format!("lease/{lease}"));
    let claim = Claim { account, amount: milli, code: None, limit: None };
    asked.candidates[0].outcome.claims = vec![PolicyClaim { claim, policy: id("quota") }];
    asked.candidates[0].limits = vec![None];
    digested(asked)
}

async fn granted(
    world: &World,
    sequencer: &SequencerHandle,
    asked: Box<Proposal>,
) -> ReservationGrant {
    let time = asked.time;
    let decided = decide(sequencer, asked).await.unwrap();
    let decision = verified(world, &decided, time);
    assert_eq!(decision.effect, Effect::Permit, "{:?}", decision.reasons);
    decision.reservation.unwrap()
}

async fn denied(sequencer: &SequencerHandle, asked: Box<Proposal>) -> Vec<String> {
    let decided = decide(sequencer, asked).await.unwrap();
    assert_eq!(decided.effect, Effect::Deny);
    decided.codes.iter().map(ToString::to_string).collect()
}

/// Closes, starts again, and checks that the log folds to what there was.
async fn again(world: &World, sequencer: SequencerHandle) -> (SequencerHandle, Snapshot) {
    let before = sequencer.inspect().await.unwrap();
    sequencer.close().await;
    let sequencer = world.start();
    assert_eq!(sequencer.inspect().await.unwrap(), before);
    (sequencer, before)
}

fn used(snapshot: &Snapshot, account: &str) -> u64 {
    let found = snapshot.usage.iter().find(|(own, ..)| own.as_str() == account);
    found.map_or(0, |(.., used)| *used)
}

/// When, which and why of every expiry in the log.
fn expiries(sequencer: &SequencerHandle) -> Vec<(u64, String, ExpiryCause)> {
    let leaves = sequencer.reader().leaves(0, 1_000).unwrap();
    let leaves = leaves.iter().map(|leaf| serde_json::from_slice::<Leaf>(leaf).unwrap());
    let expiry = |leaf: Leaf| match leaf.event {
        Event::Expiry { cause, reservation, .. } => Some((leaf.time, reservation.into(), cause)),
        _ => None,
    };
    leaves.filter_map(expiry).collect()
}

#[test]
fn a_confirmed_reservation_goes_on_under_the_next_epoch() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let first = granted(&world, &sequencer, proposal("r-1", 8, 100, 1_000)).await;
        let from = extends(&first);
        let early = longer("x-0", 50, 1_010, 8, &from);
        assert_eq!(denied(&sequencer, early).await, ["RESERVATION_NOT_CONFIRMED"]);
        settled(&sequencer, settle(SettleKind::Confirm, "r-1", 1_010)).await.unwrap();

        let more = granted(&world, &sequencer, longer("x-1", 50, 1_020, 8, &from)).await;
        assert_eq!((&more.id, more.epoch), (&first.id, 2));
        assert_eq!((more.start, more.end, more.confirm_by), (1_100, 1_150, 1_150));
        let (sequencer, state) = again(&world, sequencer).await;
        assert_eq!(used(&state, "tenant/acme/gpu-seconds"), 800 + 400);
        let repeated = granted(&world, &sequencer, longer("x-1", 50, 1_020, 8, &from)).await;
        assert_eq!(repeated, more, "a retry gets the first answer");
        let stale = longer("x-2", 50, 1_030, 8, &from);
        assert_eq!(denied(&sequencer, stale).await, ["STALE_EPOCH"]);
        let release = settled(&sequencer, settle(SettleKind::Release, "r-1", 1_030)).await;
        let fenced = SequencerError::Settle(SettleError::StaleEpoch { current: 2 });
        assert_eq!(release, Err(fenced), "whoever does not know of it cannot end it");

        // It is held over the seam, by nobody else, and ends once.
        let other = proposal("r-2", 33, 10, 1_120);
        assert_eq!(denied(&sequencer, other).await, ["QUOTA_EXCEEDED"]);
        let now = Extends { epoch: 2, end: 1_150, ..from.clone() };
        granted(&world, &sequencer, longer("x-3", 100, 1_120, 8, &now)).await;
        let (sequencer, _) = again(&world, sequencer).await;
        let mut release = settle(SettleKind::Release, "r-1", 1_160);
        release.epoch = 3;
        let released = settled(&sequencer, release).await.unwrap();
        // Of the third stretch, from 1,150 to 1,250, 90 seconds of 8 GPUs lie ahead.
        assert_eq!(
            (released.state, released.refunded_gpu_seconds),
            (Some(ReservationState::Released), 720,)
        );
        let (_, state) = again(&world, sequencer).await;
        assert_eq!((used(&state, "tenant/acme/gpu-seconds"), state.live), (1_280, 0));
    });
}

#[test]
fn an_extension_that_is_not_of_what_runs_is_denied_with_the_place() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let first = granted(&world, &sequencer, proposal("r-1", 8, 100, 1_000)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "r-1", 1_000)).await.unwrap();
        let from = extends(&first);
        let mut others = Vec::new();
        let unknown = Extends { reservation_id: id("rsv-none"), ..from.clone() };
        others.push((
            longer("x-1", 50, 1_010, 8, &unknown),
            "UNKNOWN_RESERVATION",
            "reservation_id",
        ));
        let mut foreign = longer("x-2", 50, 1_010, 8, &from);
        foreign.request.tenant_id = id("other");
        others.push((digested(foreign), "UNKNOWN_RESERVATION", "reservation_id"));
        let mut caller = longer("x-3", 50, 1_010, 8, &from);
        caller.caller = id("other");
        others.push((caller, "UNKNOWN_RESERVATION", "reservation_id"));
        let other_end = Extends { end: 1_099, ..from.clone() };
        others.push((longer("x-4", 50, 1_010, 8, &other_end), "EXTENSION_MISMATCH", "end"));
        let other_start = Extends { start: 999, ..from.clone() };
        others.push((longer("x-5", 50, 1_010, 8, &other_start), "EXTENSION_MISMATCH", "start"));
        let wider = longer("x-6", 50, 1_010, 9, &from);
        others.push((wider, "EXTENSION_MISMATCH", "reservation_id"));
        let mut class = longer("x-7", 50, 1_010, 8, &from);
        class.request.priority_class = PriorityClass::ExternalCommercial;
        others.push((digested(class), "EXTENSION_MISMATCH", "reservation_id"));
        for (asked, code, field) in others {
            let decided = decide(&sequencer, asked).await.unwrap();
            let decision: Decision = verified(&world, &decided, 1_010);
            let reason = &decision.reasons[0];
            assert_eq!(
                (reason.code.as_str(), reason.field.as_deref()),
                (code, Some(&*format!("extends.{field}")))
            );
            assert!(reason.hint.is_some() && decision.reservation.is_none());
        }
        // What does not fit tells how long it could go on, and nothing that would not be going on.
        granted(&world, &sequencer, crate::world::starting(proposal("r-2", 40, 50, 1_010), 1_140))
            .await;
        let decided = decide(&sequencer, longer("x-8", 100, 1_010, 8, &from)).await.unwrap();
        let decision = verified(&world, &decided, 1_010);
        let found = decision.reasons[0].counterfactual.clone().unwrap();
        assert_eq!((found.duration_seconds, found.gpu_count, found.start), (Some(40), None, None));
        let late = longer("x-9", 50, 1_100, 8, &from);
        assert_eq!(denied(&sequencer, late).await, ["UNKNOWN_RESERVATION"], "it ended just now");
        let late = longer("x-10", 50, 1_101, 8, &from);
        assert_eq!(denied(&sequencer, late).await, ["RESERVATION_ENDED"]);
        again(&world, sequencer).await;
    });
}

#[test]
fn what_was_made_longer_is_displaced_with_all_of_its_time() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let first = granted(&world, &sequencer, sold("e-1", 30)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "e-1", 1_000)).await.unwrap();
        let mut more = longer("x-1", 3_600, 1_010, 30, &extends(&first));
        more.request.priority_class = PriorityClass::ExternalCommercial;
        granted(&world, &sequencer, digested(more)).await;
        let decided = decide(&sequencer, burst("i-1", 20, 1_100)).await.unwrap();
        let decision = verified(&world, &decided, 1_100);
        assert_eq!(decision.evictions.len(), 1, "{:?}", decision.reasons);
        assert_eq!(decision.evictions[0].epoch, 3);
        let last = Extends { epoch: 2, end: 8_200, ..extends(&first) };
        let mut told = longer("x-2", 60, 1_110, 30, &last);
        told.request.priority_class = PriorityClass::ExternalCommercial;
        assert_eq!(denied(&sequencer, digested(told)).await, ["RESERVATION_MAKES_ROOM"]);
        let (sequencer, _) = again(&world, sequencer).await;
        settled(&sequencer, settle(SettleKind::Confirm, "i-1", 1_120)).await.unwrap();
        let (sequencer, _) = again(&world, sequencer).await;
        // At 1,160 the lease is over: 160 of its 7,200 seconds were used.
        granted(&world, &sequencer, proposal("r-9", 1, 10, 1_160)).await;
        let (sequencer, state) = again(&world, sequencer).await;
        assert_eq!(expiries(&sequencer), [(1_160, first.id.to_string(), ExpiryCause::Evicted)]);
        let budget = used(&state, "tenant/acme/gpu-seconds");
        assert_eq!(budget, 160 * 30 + 600 * 20 + 10);
    });
}

#[test]
fn jobs_inside_a_lease_share_its_gpus_and_end_with_it() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let lease = granted(&world, &sequencer, proposal("l-1", 8, 1_000, 1_000)).await;
        let (name, early) = (lease.id.to_string(), inside("j-0", lease.id.as_str(), 4, 100, 1_000));
        assert_eq!(denied(&sequencer, early).await, ["LEASE_NOT_CONFIRMED"]);
        settled(&sequencer, settle(SettleKind::Confirm, "l-1", 1_000)).await.unwrap();
        let job = granted(&world, &sequencer, inside("j-1", &name, 5, 900, 1_100)).await;
        assert_eq!(job.charges[0].limit, 8_000);
        assert_eq!(
            denied(&sequencer, inside("j-2", &name, 4, 100, 1_100)).await,
            ["QUOTA_EXCEEDED"],
            "together they hold at most what the lease does"
        );
        granted(&world, &sequencer, inside("j-3", &name, 3, 100, 1_100)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "j-1", 1_110)).await.unwrap();
        let (sequencer, state) = again(&world, sequencer).await;
        assert_eq!(used(&state, &format!("lease/{name}")), 8_000);
        assert_eq!(used(&state, "tenant/acme/gpu"), 8_000, "the tenant holds the lease alone");

        // From 2,000 on there would be room, but no lease.
        let decided = decide(&sequencer, inside("j-a", &name, 4, 100, 1_115)).await.unwrap();
        let reasons = verified(&world, &decided, 1_115).reasons;
        assert_eq!(reasons[0].counterfactual.as_ref().unwrap().start, None);
        let too_long = inside("j-4", &name, 1, 901, 1_150);
        assert_eq!(denied(&sequencer, too_long).await, ["OUTSIDE_LEASE"]);
        let mut foreign = inside("j-5", &name, 1, 10, 1_150);
        foreign.request.tenant_id = id("other");
        assert_eq!(denied(&sequencer, digested(foreign)).await, ["UNKNOWN_LEASE"]);
        let mut elsewhere = inside("j-6", &name, 1, 10, 1_150);
        elsewhere.candidates[0].gpu_model = id("A100");
        assert_eq!(denied(&sequencer, elsewhere).await, ["OUTSIDE_LEASE"]);
        let mut unclaimed = inside("j-7", &name, 1, 10, 1_150);
        unclaimed.candidates[0].outcome.claims.clear();
        unclaimed.candidates[0].limits.clear();
        assert_eq!(denied(&sequencer, unclaimed).await, ["LEASE_NOT_CLAIMED"]);
        let mut sneaking = proposal("j-8", 1, 10, 1_150);
        sneaking.candidates[0].outcome.claims[0].claim.account = path(&format!("lease/{name}"));
        sneaking.candidates[0].limits[0] = None;
        assert_eq!(denied(&sequencer, sneaking).await, ["UNKNOWN_ACCOUNT"], "it names no lease");
        let nested = inside("j-9", job.id.as_str(), 1, 10, 1_150);
        assert_eq!(denied(&sequencer, nested).await, ["UNKNOWN_LEASE"], "a job is no lease");

        // `j-3` was never confirmed in time but for the lease's end before it.
        let released =
            settled(&sequencer, settle(SettleKind::Release, "l-1", 1_190)).await.unwrap();
        assert_eq!(released.state, Some(ReservationState::Released));
        let (sequencer, state) = again(&world, sequencer).await;
        assert_eq!((state.live, used(&state, &format!("lease/{name}"))), (0, 0));
        let ended = expiries(&sequencer);
        assert_eq!(ended.len(), 2);
        assert!(
            ended.iter().all(|(at, _, cause)| (*at, *cause) == (1_190, ExpiryCause::LeaseEnded))
        );
        let late = settled(&sequencer, settle(SettleKind::Confirm, "j-3", 1_191)).await;
        let revoked = SettleError::AlreadyEnded { state: ReservationState::Revoked };
        assert_eq!(late, Err(SequencerError::Settle(revoked)));
    });
}

#[test]
fn jobs_inside_a_lease_that_is_displaced_or_never_confirmed_end_when_it_does() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let lease = granted(&world, &sequencer, sold("e-1", 30)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "e-1", 1_000)).await.unwrap();
        let mut job = inside("j-1", lease.id.as_str(), 30, 3_000, 1_010);
        job.request.priority_class = PriorityClass::ExternalCommercial;
        let job = granted(&world, &sequencer, digested(job)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "j-1", 1_010)).await.unwrap();
        let decided = decide(&sequencer, burst("i-1", 20, 1_100)).await.unwrap();
        let decision = verified(&world, &decided, 1_100);
        let victims: Vec<_> = decision.evictions.iter().map(|one| &one.reservation).collect();
        assert_eq!(victims, [&lease.id], "the job holds nothing but its lease");
        settled(&sequencer, settle(SettleKind::Confirm, "i-1", 1_100)).await.unwrap();
        let (sequencer, _) = again(&world, sequencer).await;
        let after = inside("j-2", lease.id.as_str(), 1, 100, 1_110);
        assert_eq!(denied(&sequencer, after).await, ["OUTSIDE_LEASE"], "it is over at 1,160");
        granted(&world, &sequencer, proposal("r-9", 1, 10, 1_200)).await;
        let (sequencer, _) = again(&world, sequencer).await;
        assert_eq!(
            expiries(&sequencer),
            [
                (1_160, lease.id.to_string(), ExpiryCause::Evicted),
                (1_160, job.id.to_string(), ExpiryCause::LeaseEnded),
            ]
        );
    });
}

fn gang<const N: usize>(mut members: [Box<Proposal>; N]) -> Vec<Proposal> {
    let size = u32::try_from(N).unwrap();
    for (index, member) in (0..).zip(&mut members) {
        member.request.gang = Some(GangPlace { id: id("g-1"), index, size });
    }
    members.into_iter().map(|member| *digested(member)).collect()
}

#[test]
fn a_gang_is_admitted_as_a_whole_or_not_at_all() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let fits = || gang([proposal("m-1", 20, 100, 1_000), proposal("m-2", 20, 100, 1_000)]);
        let decided = sequencer.propose_gang(fits()).await.unwrap().await.unwrap();
        let decisions: Vec<_> = decided.iter().map(|one| verified(&world, one, 1_000)).collect();
        assert!(decisions.iter().all(|one| one.effect == Effect::Permit));
        let places: Vec<_> = decisions.iter().map(|one| one.gang.clone().unwrap().index).collect();
        assert_eq!(places, [0, 1]);
        let repeated = sequencer.propose_gang(fits()).await.unwrap().await.unwrap();
        assert_eq!(repeated, decided, "a retry gets the first answers");
        let (sequencer, _) = again(&world, sequencer).await;
        let repeated = sequencer.propose_gang(fits()).await.unwrap().await.unwrap();
        assert_eq!(repeated, decided, "also after a restart");

        // One of them alone, or in other company, is another request.
        let alone = decide(&sequencer, proposal("m-1", 20, 100, 1_000)).await;
        assert!(matches!(alone, Err(SequencerError::RequestIdReused { .. })));
        let mut company = fits();
        company[1] =
            gang([proposal("m-1", 1, 1, 1_000), proposal("m-9", 20, 100, 1_000)]).pop().unwrap();
        let mixed = sequencer.propose_gang(company).await.unwrap().await;
        assert!(matches!(mixed, Err(SequencerError::RequestIdReused { .. })));

        let twice = gang([proposal("t-1", 1, 1, 1_000), proposal("t-1", 1, 1, 1_000)]);
        let twice = sequencer.propose_gang(twice).await.unwrap().await;
        assert!(matches!(twice, Err(SequencerError::RequestIdReused { .. })));

        let before = sequencer.inspect().await.unwrap();
        let too_much = gang([
            proposal("n-1", 30, 100, 1_100),
            proposal("n-2", 11, 100, 1_100),
            proposal("n-3", 1, 100, 1_100),
        ]);
        let denied = sequencer.propose_gang(too_much).await.unwrap().await.unwrap();
        let codes: Vec<Vec<_>> =
            denied.iter().map(|one| one.codes.iter().map(|code| code.as_str()).collect()).collect();
        assert_eq!(codes, [["GANG_INCOMPLETE"], ["QUOTA_EXCEEDED"], ["GANG_INCOMPLETE"]]);
        let reason = &verified(&world, &denied[0], 1_100).reasons[0];
        assert_eq!(reason.field.as_deref(), Some("members[1]"));
        let (sequencer, state) = again(&world, sequencer).await;
        assert_eq!(state.live, 0, "the first gang has ended, the second holds nothing");
        assert_eq!(
            used(&state, "tenant/acme/gpu-seconds"),
            used(&before, "tenant/acme/gpu-seconds") - 4_000
        );
        drop(sequencer);
    });
}

#[test]
fn a_gang_whose_members_displace_others_takes_back_every_plan() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        for name in ["e-1", "e-2"] {
            granted(&world, &sequencer, sold(name, 20)).await;
            settled(&sequencer, settle(SettleKind::Confirm, name, 1_000)).await.unwrap();
        }
        let (sequencer, before) = again(&world, sequencer).await;
        let members = gang([burst("i-1", 20, 1_100), burst("i-2", 21, 1_100)]);
        let denied = sequencer.propose_gang(members).await.unwrap().await.unwrap();
        assert!(denied.iter().all(|one| one.effect == Effect::Deny));
        let state = sequencer.inspect().await.unwrap();
        assert_eq!((state.ledger, state.live), (before.ledger, 2), "nobody was told to go");
        let members = gang([burst("i-3", 20, 1_100), burst("i-4", 20, 1_100)]);
        let decided = sequencer.propose_gang(members).await.unwrap().await.unwrap();
        let evictions: Vec<usize> =
            decided.iter().map(|one| verified(&world, one, 1_100).evictions.len()).collect();
        assert_eq!(evictions, [1, 1]);
        let (sequencer, _) = again(&world, sequencer).await;
        for name in ["i-3", "i-4"] {
            settled(&sequencer, settle(SettleKind::Confirm, name, 1_110)).await.unwrap();
        }
        again(&world, sequencer).await;
    });
}

#[test]
fn a_job_is_not_told_to_begin_when_it_would_outlast_its_lease() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let lease = granted(&world, &sequencer, proposal("l-1", 8, 1_000, 1_000)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "l-1", 1_000)).await.unwrap();
        granted(&world, &sequencer, inside("j-1", lease.id.as_str(), 5, 700, 1_100)).await;
        // The GPUs are free from 1,800 on, the lease is over at 2,000.
        for (name, seconds, start) in [("j-2", 200, Some(1_800)), ("j-3", 201, None)] {
            let asked = inside(name, lease.id.as_str(), 4, seconds, 1_100);
            let decided = decide(&sequencer, asked).await.unwrap();
            let reason = &verified(&world, &decided, 1_100).reasons[0];
            let found = reason.counterfactual.clone().unwrap();
            assert_eq!((found.gpu_count, found.start), (Some(3), start), "{seconds} seconds");
        }
    });
}

#[test]
fn what_goes_on_displaces_nobody_whatever_it_asks_for() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let first = granted(&world, &sequencer, proposal("r-1", 8, 100, 1_000)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "r-1", 1_000)).await.unwrap();
        let mut asked = longer("x-1", 50, 1_010, 8, &extends(&first));
        asked.candidates[0].outcome.preemption =
            burst("i-1", 1, 1_010).candidates[0].outcome.preemption.clone();
        let Subject::Lease(workload) = &mut asked.request.subject else { panic!("a lease") };
        (workload.start, workload.may_preempt) = (None, true);
        assert_eq!(denied(&sequencer, digested(asked)).await, ["EXTENSION_MISMATCH"]);
        again(&world, sequencer).await;
    });
}

#[test]
fn whole_gpus_do_not_run_inside_a_lease_of_halves() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        let mut halves = proposal("l-1", 16, 1_000, 1_000);
        let Subject::Lease(workload) = &mut halves.request.subject else { panic!("a lease") };
        workload.gpu_milli = 500;
        let lease = granted(&world, &sequencer, digested(halves)).await;
        settled(&sequencer, settle(SettleKind::Confirm, "l-1", 1_000)).await.unwrap();
        let decided = decide(&sequencer, inside("j-1", lease.id.as_str(), 4, 10, 1_000)).await;
        let reason = &verified(&world, &decided.unwrap(), 1_000).reasons[0];
        let told = (reason.code.as_str(), reason.field.as_deref());
        assert_eq!(told, ("OUTSIDE_LEASE", Some("job.gpu_milli")));
    });
}
