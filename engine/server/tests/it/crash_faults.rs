//! Every step that can fail, failing: nothing is answered that is not durable, nothing is lost,
//! nothing is doubled.

use placet_core::Effect;
use placet_server::quota::Accounts;
use placet_server::sequencer::{
    Decided, SequencerError, SequencerHandle, SettleKind, Settled, Snapshot,
};
use placet_server::store::Fault;
use proptest::prelude::*;

use crate::world::{World, decide, id, proposal, run, settle, settled};

/// What a caller sees of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Done,
    Unavailable,
    Unknown,
    Stopped,
}

struct Case {
    faults: &'static [Fault],
    seen: Seen,
    /// Whether the batch is durable in spite of it.
    durable: bool,
}

const fn case(faults: &'static [Fault], seen: Seen, durable: bool) -> Case {
    Case { faults, seen, durable }
}

/// Each step by {failed, failed but persisted, died}, and whether that step took effect.
const CASES: [Case; 9] = [
    case(&[], Seen::Done, true),
    case(&[Fault::Sign], Seen::Unavailable, false),
    case(&[Fault::Commit], Seen::Unavailable, false),
    case(&[Fault::CommitUnknown], Seen::Unavailable, false),
    case(&[Fault::CommitPersisted], Seen::Done, true),
    case(&[Fault::CommitUnknown, Fault::Reopen], Seen::Unknown, false),
    case(&[Fault::CommitPersisted, Fault::Reopen], Seen::Unknown, true),
    case(&[Fault::CrashBeforeCommit], Seen::Stopped, false),
    case(&[Fault::CrashAfterCommit], Seen::Stopped, true),
];

fn seen<T>(result: &Result<T, SequencerError>) -> Seen {
    match result {
        Ok(_) => Seen::Done,
        Err(SequencerError::Unavailable { .. }) => Seen::Unavailable,
        Err(SequencerError::OutcomeUnknown) => Seen::Unknown,
        Err(SequencerError::Stopped) => Seen::Stopped,
        Err(other) => panic!("{other}"),
    }
}

/// Goes on as a server would: with the same sequencer if it lives, with the next one if it has
/// died.
async fn go_on(world: &World, sequencer: SequencerHandle) -> SequencerHandle {
    if sequencer.is_alive() {
        return sequencer;
    }
    sequencer.close().await;
    world.start()
}

/// The state, and that a fresh sequencer folds the log to the same.
async fn reopened(world: &World, sequencer: SequencerHandle) -> (SequencerHandle, Snapshot) {
    let live = sequencer.inspect().await.unwrap();
    let everything = Accounts::Under { prefix: None, after: None, most: usize::MAX };
    let told = sequencer.usage(everything, live.head.size.checked_sub(1)).await.unwrap();
    let told: Vec<_> = told.accounts.into_iter().map(|it| (it.account, it.kind, it.used)).collect();
    assert_eq!(told, live.usage, "what pages are cut from is what the ledger holds");
    sequencer.close().await;
    let sequencer = world.start();
    let folded = sequencer.inspect().await.unwrap();
    assert_eq!(folded, live, "the ledger is the fold of the log");
    (sequencer, folded)
}

#[test]
fn an_admission_survives_every_fault() {
    for Case { faults, seen: expected, durable } in CASES {
        let world = World::new();
        run(async {
            let sequencer = world.start();
            let first = decide(&sequencer, proposal("r-1", 10, 600, 1_000)).await.unwrap();
            let before = sequencer.inspect().await.unwrap();

            faults.iter().for_each(|fault| world.faults.push(*fault));
            let asked = decide(&sequencer, proposal("r-2", 20, 600, 1_001)).await;
            assert_eq!(seen(&asked), expected, "{faults:?}");
            let sequencer = go_on(&world, sequencer).await;
            assert_eq!(world.faults.pending(), 0, "{faults:?} have happened");

            let after = sequencer.inspect().await.unwrap();
            assert_eq!(after.head.size, before.head.size + u64::from(durable), "{faults:?}");
            assert_eq!(after.live, before.live + usize::from(durable), "{faults:?}");
            if !durable {
                assert_eq!((after.ledger, after.head), (before.ledger, before.head), "{faults:?}");
            }
            // Whoever asks again gets the one decision that there is.
            let again = decide(&sequencer, proposal("r-2", 20, 600, 1_001)).await.unwrap();
            assert_eq!(again.position, before.head.size, "{faults:?}");
            assert_eq!(again.effect, Effect::Permit, "{faults:?}: nothing was taken twice");
            if let Ok(asked) = asked {
                assert_eq!(asked, again, "{faults:?}");
            }
            let (sequencer, state) = reopened(&world, sequencer).await;
            assert_eq!((state.live, state.head.size), (2, before.head.size + 1), "{faults:?}");
            for decided in [first, again] {
                check_stored(&sequencer, &decided);
            }
            sequencer.close().await;
        });
    }
}

fn check_stored(sequencer: &SequencerHandle, decided: &Decided) {
    let leaves = sequencer.reader().leaves(decided.position, decided.position + 1).unwrap();
    let leaf = String::from_utf8(leaves[0].clone()).unwrap();
    assert!(leaf.contains(&decided.token), "what was answered is what is stored");
}

#[test]
fn a_settlement_survives_every_fault() {
    for kind in [SettleKind::Confirm, SettleKind::Release] {
        for Case { faults, seen: expected, durable } in CASES {
            // A settlement is not signed, but its batch is: the step fails all the same.
            let world = World::new();
            run(async {
                let sequencer = world.start();
                decide(&sequencer, proposal("r-1", 10, 600, 1_000)).await.unwrap();
                let before = sequencer.inspect().await.unwrap();
                faults.iter().for_each(|fault| world.faults.push(*fault));
                let ask = |time| settle(kind, "r-1", time);
                let asked = settled(&sequencer, ask(1_100)).await;
                assert_eq!(seen(&asked), expected, "{kind:?} {faults:?}");
                let sequencer = go_on(&world, sequencer).await;
                let after = sequencer.inspect().await.unwrap();
                assert_eq!(after.head.size, before.head.size + u64::from(durable), "{faults:?}");

                let again: Settled = settled(&sequencer, ask(1_200)).await.unwrap();
                let time = if durable { 1_100 } else { 1_200 };
                assert_eq!(again.time, time, "{faults:?}: it happened once");
                if let Ok(asked) = asked {
                    assert_eq!(asked, again, "{faults:?}");
                }
                let (sequencer, state) = reopened(&world, sequencer).await;
                assert_eq!(state.head.size, before.head.size + 1, "{faults:?}");
                sequencer.close().await;
            });
        }
    }
}

#[test]
fn an_expiry_survives_every_fault() {
    for Case { faults, durable, .. } in CASES {
        let world = World::new();
        run(async {
            let sequencer = world.start();
            decide(&sequencer, proposal("r-1", 30, 600, 1_000)).await.unwrap();
            faults.iter().for_each(|fault| world.faults.push(*fault));
            // The expiry of the first and the decision on the second are one batch: both or none.
            let asked = decide(&sequencer, proposal("r-2", 30, 600, 1_300)).await;
            let sequencer = go_on(&world, sequencer).await;
            let after = sequencer.inspect().await.unwrap();
            assert_eq!(after.head.size, if durable { 6 } else { 4 }, "{faults:?}");
            assert_eq!(after.live, 1);
            let again = decide(&sequencer, proposal("r-2", 30, 600, 1_300)).await.unwrap();
            assert_eq!((again.effect, again.position), (Effect::Permit, 5), "{faults:?}");
            assert!(asked.is_err() || asked == Ok(again), "{faults:?}");
            let (sequencer, state) = reopened(&world, sequencer).await;
            assert_eq!((state.live, state.head.size), (1, 6), "{faults:?}");
            sequencer.close().await;
        });
    }
}

#[test]
fn a_store_that_stays_away_stops_everything_until_it_is_back() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        for fault in [Fault::CommitPersisted, Fault::Reopen, Fault::Reopen, Fault::Reopen] {
            world.faults.push(fault);
        }
        let asked = || decide(&sequencer, proposal("r-1", 10, 600, 1_000));
        assert_eq!(asked().await, Err(SequencerError::OutcomeUnknown));
        for _ in 0..2 {
            assert_eq!(seen(&asked().await), Seen::Unavailable, "it does not guess");
        }
        let decided = asked().await.unwrap();
        assert_eq!(decided.position, 3, "it was there all the time");
        assert_eq!(sequencer.inspect().await.unwrap().live, 1);
        let (sequencer, _) = reopened(&world, go_on(&world, sequencer).await).await;
        sequencer.close().await;
    });
}

#[derive(Debug, Clone)]
enum Op {
    Ask(u8, u32),
    Confirm(u8),
    Release(u8),
    Wait(u64),
    Fail(Fault),
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..16_u8;
    let fault = prop_oneof![
        Just(Fault::Sign),
        Just(Fault::Commit),
        Just(Fault::CommitUnknown),
        Just(Fault::CommitPersisted),
        Just(Fault::Reopen),
        Just(Fault::CrashBeforeCommit),
        Just(Fault::CrashAfterCommit),
    ];
    prop_oneof![
        5 => (name(), 1..30_u32).prop_map(|(name, gpus)| Op::Ask(name, gpus)),
        3 => name().prop_map(Op::Confirm),
        2 => name().prop_map(Op::Release),
        2 => (0..400_u64).prop_map(Op::Wait),
        3 => fault.prop_map(Op::Fail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn no_answer_is_ahead_of_the_store(ops in proptest::collection::vec(op(), 0..60)) {
        let world = World::new();
        run(async {
            let (mut sequencer, mut time) = (world.start(), 1_000);
            let mut answered = Vec::new();
            for op in &ops {
                match op {
                    Op::Ask(name, gpus) => {
                        let name = format!("r-{name}");
                        let asked = decide(&sequencer, proposal(&name, *gpus, 500, time)).await;
                        answered.extend(asked.ok().map(|decided| (name, decided)));
                    }
                    Op::Confirm(name) | Op::Release(name) => {
                        let confirm = matches!(op, Op::Confirm(_));
                        let kind = if confirm { SettleKind::Confirm } else { SettleKind::Release };
                        let ask = settle(kind, &format!("r-{name}"), time);
                        drop(settled(&sequencer, ask).await);
                    }
                    Op::Wait(by) => time += by,
                    Op::Fail(fault) => world.faults.push(*fault),
                }
                if !sequencer.is_alive() {
                    sequencer.close().await;
                    // What waits would hit the start; it is another test that starts fail.
                    world.faults.clear();
                    sequencer = world.start();
                }
            }
            world.faults.clear();
            // A store that is still away comes back with the next command.
            let (sequencer, state) = reopened(&world, sequencer).await;
            for (name, decided) in answered {
                check_stored(&sequencer, &decided);
                let stored = sequencer.reader().decision_on(&id("scheduler"), &id(&name)).unwrap();
                let stored = stored.unwrap();
                prop_assert_eq!((stored.token, stored.position), (decided.token, decided.position));
            }
            for (account, _, used) in state.usage {
                let limit = if account.as_str().ends_with("gpu") {
                    crate::world::LIMIT
                } else {
                    crate::world::BUDGET
                };
                prop_assert!(used <= limit, "{} is at {} of {}", account, used, limit);
            }
            sequencer.close().await;
            Ok(())
        })?;
    }
}
