//! Victims against all sets of them, and long sequences in which internal work displaces what was
//! sold.

use placet_core::{ExpiryCause, Unit};
use proptest::prelude::*;

use super::*;
use crate::quota::SettleError;

/// What the cluster has, and what of it may be sold.
const CLUSTER: u64 = 100;
const SOLD: u64 = 80;
const NOW: u64 = 1_000;

fn id(name: &str) -> Id {
    Id::new(name).unwrap()
}

fn path(text: &str) -> AccountPath {
    AccountPath::new(text).unwrap()
}

fn level(account: &str, amount: u64, limit: u64) -> Charge {
    let (account, kind, unit) = (path(account), AccountKind::Level, Unit::MilliGpu);
    Charge { account, amount, kind, limit, unit }
}

fn budget(account: &str, amount: u64) -> Charge {
    let (account, kind, unit) = (path(account), AccountKind::Budget, Unit::GpuSecond);
    Charge { account, amount, kind, limit: 1_000_000, unit }
}

fn booking(name: &str, class: PriorityClass, start: u64, length: u64, amount: u64) -> Booking {
    let internal = class == PriorityClass::InternalResearch;
    let limit = if internal { CLUSTER } else { SOLD };
    let tenant = if internal { "lab" } else { "acme" };
    Booking {
        id: id(name),
        tenant: id(tenant),
        caller: id("scheduler"),
        class,
        work: crate::quota::tests::work(amount),
        start,
        end: start + length,
        confirm_by: start + length.min(5),
        charges: vec![
            level("cluster/gpu", amount, limit),
            level(&format!("tenant/{tenant}/gpu"), amount, CLUSTER),
            budget(&format!("tenant/{tenant}/gpu-seconds"), amount * length),
        ],
    }
}

fn internal(name: &str, now: u64, grace: u64, length: u64, amount: u64) -> Booking {
    let start = now + grace.max(1);
    let class = PriorityClass::InternalResearch;
    let own = booking(name, class, start, length, amount);
    Booking { confirm_by: start.min(now + 5), ..own }
}

fn rule(min_runtime_seconds: u32, max_victims: u32) -> PreemptionRule {
    let victim_classes = vec![PriorityClass::ExternalCommercial];
    PreemptionRule { grace_seconds: 0, max_victims, min_runtime_seconds, victim_classes }
}

/// A ledger with confirmed external reservations: start, length and amount of each.
fn sold(all: &[(u64, u64, u64)]) -> Ledger {
    let mut ledger = Ledger::default();
    let mut all: Vec<_> = all.iter().enumerate().collect();
    all.sort_by_key(|(_, one)| one.0);
    for (number, (start, length, amount)) in all {
        ledger.advance(NOW - 50 + start).unwrap();
        let (name, start) = (format!("e{number}"), ledger.now());
        let class = PriorityClass::ExternalCommercial;
        if ledger.reserve(booking(&name, class, start, 50 + length, *amount)).is_ok() {
            ledger.confirm(&id(&name), 1).unwrap();
        }
    }
    ledger.advance(NOW).unwrap();
    ledger.keep();
    ledger
}

/// The least cost of all sets of victims that make room, each tried second by second.
fn least(ledger: &Ledger, booking: &Booking, rule: &PreemptionRule) -> Option<(u128, usize)> {
    let those: Vec<&Reservation> = ledger.live.values().collect();
    let may = |held: &Reservation| {
        let ran = booking.start.checked_sub(held.booking.start);
        ran.is_some_and(|ran| ran >= u64::from(rule.min_runtime_seconds))
            && held.until() > booking.start
    };
    let amount = booking.charges[0].amount;
    let fits = |set: u32| {
        let chosen = |at: usize| set & (1 << at) != 0;
        (booking.start..booking.end).all(|second| {
            let here = those.iter().enumerate().filter(|(at, held)| {
                !chosen(*at) && held.booking.start <= second && second < held.until()
            });
            here.map(|(_, held)| held.booking.charges[0].amount).sum::<u64>() + amount <= CLUSTER
        })
    };
    let sets = (0..1_u32 << those.len()).filter(|set| {
        let chosen = || those.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
        set.count_ones() <= rule.max_victims && chosen().all(|(_, held)| may(held)) && fits(*set)
    });
    let cost = |set: u32| {
        let chosen = those.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
        let lost = chosen.map(|(_, held)| {
            u128::from(held.booking.work.milli_gpus())
                * u128::from(booking.start - held.booking.start)
        });
        (lost.sum(), usize::try_from(set.count_ones()).unwrap())
    };
    sets.map(cost).min()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_victims_are_the_best(
        all in proptest::collection::vec((0..45_u64, 1..40_u64, 1..30_u64), 1..8),
        (grace, length, amount) in (0..10_u64, 1..50_u64, 1..=CLUSTER),
        (min_runtime, most) in (0..40_u32, 1..6_u32),
    ) {
        let mut ledger = sold(&all);
        let booking = internal("i", NOW, grace, length, amount);
        let rule = rule(min_runtime, most);
        let expected = least(&ledger, &booking, &rule);
        let before = ledger.state_digest();
        let held = ledger.preempt(&booking, &rule);
        prop_assert_eq!(ledger.audit(), Ok(()));
        match held {
            Ok(_) => {
                let victims = ledger.victims(&id("i"));
                let lost = victims.iter().map(|victim| {
                    let held = &ledger.live[victim].booking;
                    u128::from(held.work.milli_gpus()) * u128::from(booking.start - held.start)
                });
                prop_assert_eq!(Some((lost.sum(), victims.len())), expected);
            }
            Err(ReserveError::Refused(_)) => {
                prop_assert_eq!(expected, None);
                prop_assert_eq!(ledger.state_digest(), before);
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Sell { length: u64, amount: u64 },
    Preempt { grace: u64, length: u64, amount: u64, min_runtime: u32, most: u32 },
    Book { length: u64, amount: u64 },
    Confirm(usize),
    Release(usize),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..60_u64, 1..30_u64).prop_map(|(length, amount)| Op::Sell { length, amount }),
        3 => (0..8_u64, 1..60_u64, 1..=CLUSTER, 0..12_u32, 1..8_u32).prop_map(
            |(grace, length, amount, min_runtime, most)| {
                Op::Preempt { grace, length, amount, min_runtime, most }
            }
        ),
        1 => (1..60_u64, 1..30_u64).prop_map(|(length, amount)| Op::Book { length, amount }),
        6 => (0..6_usize).prop_map(Op::Confirm),
        2 => (0..12_usize).prop_map(Op::Release),
        4 => (0..6_u64).prop_map(Op::Advance),
    ]
}

/// Reservations that might be displaced: what every preemption makes fewer, and nothing but a sale
/// that is confirmed, or an announcement that is taken back, makes more.
fn potential(ledger: &Ledger) -> usize {
    ledger.live.values().filter(|held| ledger.displaceable(held)).count()
}

struct Run {
    ledger: Ledger,
    names: Vec<Id>,
    sold: usize,
    evicted: usize,
}

impl Run {
    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let now = self.ledger.now();
        let fresh = format!("r{}", self.names.len());
        let recent = |at: usize| {
            let at = self.names.len().checked_sub(at % self.names.len().max(1) + 1)?;
            self.names.get(at).cloned()
        };
        let ledger = &mut self.ledger;
        match op {
            Op::Sell { length, amount } => {
                let class = PriorityClass::ExternalCommercial;
                self.sold += 1;
                if ledger.reserve(booking(&fresh, class, now, *length, *amount)).is_ok() {
                    self.names.push(id(&fresh));
                }
            }
            Op::Book { length, amount } => {
                let class = PriorityClass::InternalResearch;
                if ledger.reserve(booking(&fresh, class, now, *length, *amount)).is_ok() {
                    self.names.push(id(&fresh));
                }
            }
            Op::Preempt { grace, length, amount, min_runtime, most } => {
                let booking = internal(&fresh, now, *grace, *length, *amount);
                let before = potential(ledger);
                match ledger.preempt(&booking, &rule(*min_runtime, *most)) {
                    Ok(_) => {
                        let victims = ledger.victims(&id(&fresh)).len();
                        prop_assert_eq!(potential(ledger), before - victims);
                        self.names.push(id(&fresh));
                    }
                    Err(ReserveError::Refused(_)) => prop_assert_eq!(potential(ledger), before),
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                }
            }
            Op::Confirm(at) => {
                if let Some(name) = recent(*at) {
                    let epoch = ledger.live.get(&name).map_or(1, |held| held.epoch);
                    let told = ledger.victims(&name);
                    let epochs: Vec<u64> = told.iter().map(|one| ledger.live[one].epoch).collect();
                    if ledger.confirm(&name, epoch).is_ok() {
                        for (victim, epoch) in told.iter().zip(epochs) {
                            prop_assert_eq!(ledger.live[victim].epoch, epoch + 1);
                            let stale = ledger.release(victim, epoch);
                            let stale = matches!(stale, Err(SettleError::StaleEpoch { .. }));
                            prop_assert!(stale, "the old epoch is fenced off");
                        }
                    }
                }
            }
            Op::Release(at) => {
                if let Some(name) = recent(*at) {
                    let epoch = ledger.live.get(&name).map_or(1, |held| held.epoch);
                    drop(ledger.release(&name, epoch));
                }
            }
            Op::Advance(by) => {
                let expired = ledger.advance(now + by).unwrap();
                let evicted = expired.iter().filter(|one| one.cause == ExpiryCause::Evicted);
                self.evicted += evicted.count();
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Use is within the limits at every second, confirmed or not, and there is no loop: what is
    /// evicted was sold, once each.
    #[test]
    fn no_sequence_goes_over_a_limit_or_in_a_circle(
        ops in proptest::collection::vec(op(), 200..400),
    ) {
        let mut run =
            Run { ledger: Ledger::default(), names: Vec::new(), sold: 0, evicted: 0 };
        run.ledger.advance(NOW).unwrap();
        for op in &ops {
            let (digest, then) = (run.ledger.state_digest(), run.ledger.now());
            let (mark, names) = (run.ledger.mark(), run.names.len());
            let (sold, evicted) = (run.sold, run.evicted);
            run.apply(op)?;
            run.ledger.undo(mark);
            run.names.truncate(names);
            (run.sold, run.evicted) = (sold, evicted);
            prop_assert_eq!((run.ledger.state_digest(), run.ledger.now()), (digest, then));
            prop_assert_eq!(run.ledger.audit(), Ok(()), "after undo of {:?}", op);
            run.apply(op)?;
            prop_assert_eq!(run.ledger.audit(), Ok(()), "after {:?}", op);
            let now = run.ledger.now();
            let peak = run.ledger.peak(&path("cluster/gpu"), now, now + 200).unwrap();
            prop_assert!(peak <= CLUSTER, "{} of the cluster after {:?}", peak, op);
            prop_assert!(run.evicted <= run.sold);
        }
        run.ledger.advance(NOW * 10).unwrap();
        prop_assert!(run.ledger.live.is_empty() && run.ledger.displaceable.is_empty());
        prop_assert_eq!(run.ledger.peak(&path("cluster/gpu"), NOW * 10, NOW * 11).unwrap(), 0);
    }
}

#[test]
fn a_victim_keeps_all_of_it_until_the_preemptor_is_confirmed() {
    let mut ledger = sold(&[(0, 100, 80)]);
    let booking = internal("i", NOW, 10, 20, 60);
    ledger.preempt(&booking, &rule(0, 1)).unwrap();
    let order = ledger.held(&id("e0")).unwrap().order.clone().unwrap();
    assert_eq!((order.at, order.effective), (NOW + 10, false));
    let used = |ledger: &Ledger, at| ledger.peak(&path("cluster/gpu"), at, at + 1).unwrap();
    assert_eq!((used(&ledger, NOW), used(&ledger, NOW + 10)), (80, 80), "the room is held once");
    let other = internal("j", NOW, 10, 20, 30);
    assert!(ledger.preempt(&other, &rule(0, 1)).is_err(), "nobody else gets it");

    ledger.confirm(&id("i"), 1).unwrap();
    assert_eq!((used(&ledger, NOW), used(&ledger, NOW + 10)), (80, 60));
    assert_eq!(ledger.held(&id("e0")).unwrap().epoch, 2);
    let gone = ledger.advance(NOW + 10).unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].cause, gone[0].epoch, gone[0].at), (ExpiryCause::Evicted, 2, NOW + 10));
    // It had 60 of its 150 seconds.
    assert_eq!(gone[0].refunds[0].amount, 80 * 90);
    let late = ledger.confirm(&id("e0"), 2);
    let revoked = SettleError::AlreadyEnded { state: ReservationState::Revoked };
    assert_eq!(late, Err(revoked));
}

#[test]
fn nothing_becomes_of_an_announcement_that_is_not_confirmed() {
    let mut ledger = sold(&[(0, 100, 80)]);
    let before = ledger.state_digest();
    for ends in ["release", "expire"] {
        let name = format!("i-{ends}");
        ledger.preempt(&internal(&name, ledger.now(), 10, 20, 60), &rule(0, 1)).unwrap();
        if ends == "release" {
            ledger.release(&id(&name), 1).unwrap();
        } else {
            assert_eq!(ledger.advance(NOW + 5).unwrap().len(), 1);
        }
        assert_eq!(ledger.held(&id("e0")).unwrap().order, None);
        assert_eq!(ledger.audit(), Ok(()));
    }
    let live = |ledger: &Ledger| ledger.live.keys().cloned().collect::<Vec<_>>();
    assert_eq!(live(&ledger), [id("e0")]);
    assert_ne!(ledger.state_digest(), before, "both are remembered");
}

#[test]
fn nobody_displaces_internal_work() {
    let mut ledger = Ledger::default();
    ledger.advance(NOW).unwrap();
    let class = PriorityClass::InternalResearch;
    ledger.reserve(booking("a", class, NOW, 50, 90)).unwrap();
    ledger.confirm(&id("a"), 1).unwrap();
    let all = vec![class, PriorityClass::ExternalCommercial];
    let rule = PreemptionRule { victim_classes: all, ..rule(0, 9) };
    let refused = ledger.preempt(&internal("b", NOW, 5, 10, 20), &rule);
    assert!(matches!(refused, Err(ReserveError::Refused(_))), "{refused:?}");
    let outside = booking("c", PriorityClass::ExternalCommercial, NOW + 5, 10, 20);
    assert!(matches!(ledger.preempt(&outside, &rule), Err(ReserveError::Refused(_))));
    let forged = ledger.displace(internal("d", NOW, 5, 10, 20), &BTreeSet::from([id("a")]));
    assert!(matches!(forged, Err(ReserveError::Malformed(_))), "{forged:?}");
}

/// Found by a review: the books had no entry for a victim that was cut before it began.
#[test]
fn what_is_displaced_before_it_begins_leaves_the_books_in_order() {
    let mut ledger = Ledger::default();
    ledger.advance(NOW).unwrap();
    let class = PriorityClass::ExternalCommercial;
    ledger.reserve(booking("e", class, NOW + 100, 100, 80)).unwrap();
    ledger.confirm(&id("e"), 1).unwrap();
    ledger.advance(NOW + 40).unwrap();
    ledger.preempt(&internal("i", NOW + 40, 60, 50, 90), &rule(0, 1)).unwrap();
    assert_eq!(ledger.victims(&id("i")), [id("e")]);
    ledger.confirm(&id("i"), 1).unwrap();
    ledger.advance(NOW + 41).unwrap();
    ledger.release(&id("i"), 1).unwrap();
    assert_eq!(ledger.audit(), Ok(()));
    let gone = ledger.advance(NOW + 100).unwrap();
    assert_eq!(gone[0].cause, ExpiryCause::Evicted);
    assert_eq!(gone[0].refunds[0].amount, 80 * 100, "it had nothing of it");
    assert_eq!(ledger.audit(), Ok(()));
}

/// Found by a review: small reservations that began later hid the one that had to go.
#[test]
fn who_may_not_go_hides_nobody() {
    let mut ledger = sold(&[(0, 100, 70)]);
    let class = PriorityClass::ExternalCommercial;
    for number in 0..600 {
        let name = format!("s{number}");
        let charges = vec![level("cluster/gpu", 1, CLUSTER * 10)];
        ledger.reserve(Booking { charges, ..booking(&name, class, NOW, 2, 1) }).unwrap();
        ledger.confirm(&id(&name), 1).unwrap();
    }
    ledger.preempt(&internal("i", NOW, 10, 20, 60), &rule(0, 1)).unwrap();
    assert_eq!(ledger.victims(&id("i")), [id("e0")]);
}
