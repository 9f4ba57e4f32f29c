//! The ledger against a model that is too simple to be wrong: it adds up every second again for
//! every question.

use std::collections::BTreeMap;

use placet_core::{IsolationLevel, MAX_AMOUNT, QuotaNode};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Reserve { name: u16, start: u64, length: u64, within: u64, charges: Vec<(u8, u64, u64)> },
    Confirm { name: u16, epoch: u64 },
    Release { name: u16, epoch: u64 },
    Advance(u64),
    Quotas(Shape),
}

/// A tree of quotas: nominal quota, borrowing and lending limit of its accounts in the order of
/// `TREE`, or none at all. A deep one has a root above the pool, and `level/e` hangs on that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shape {
    nodes: Vec<(u64, Option<u64>, Option<u64>)>,
    deep: bool,
}

/// Which charge, at which account there is no room, its use if that is the charged one, and how
/// much would fit.
type Refused = (usize, String, Option<u64>, u64);

/// When, which, why, and the refunds.
type PlainExpiry = (u64, String, ExpiryCause, Vec<(String, u64)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Reserved,
    Refused(Vec<Refused>, Fit),
    Malformed,
    Quotas,
    Settled(ReservationState, u64, Vec<(String, u64)>, u64, bool),
    Failed(SettleError),
    Expired(Vec<PlainExpiry>),
}

const ACCOUNTS: [(&str, AccountKind, Unit); 6] = [
    ("level/a", AccountKind::Level, Unit::MilliGpu),
    ("level/b", AccountKind::Level, Unit::MilliGpu),
    ("budget/c", AccountKind::Budget, Unit::GpuSecond),
    ("budget/d", AccountKind::Budget, Unit::GpuSecond),
    ("level/e", AccountKind::Level, Unit::MilliGpu),
    ("pool", AccountKind::Level, Unit::MilliGpu),
];
/// Accounts of the tree, by their numbers; the root is never charged itself.
const TREE: [usize; 5] = [0, 1, 4, POOL, ROOT];
const POOL: usize = 5;
const ROOT: usize = 6;
/// GPUs of every booking.
const GPUS: u64 = 4;
/// Seconds ahead that the model looks.
const AHEAD: u64 = 160;

/// A lease of that many thousandths of a GPU.
pub(super) fn work(milli_gpus: u64) -> Arc<Work> {
    let id = |text: &str| Id::new(text).unwrap();
    let grant = Grant {
        cluster_id: id("c-1"),
        fabric_gbps: 0,
        gpu_count: u32::try_from(milli_gpus).unwrap(),
        gpu_milli: 1,
        gpu_model: id("H100"),
        isolation_level: IsolationLevel::Dedicated,
    };
    Arc::new(Work { kind: SubjectKind::Lease, grant, lease_id: None })
}

fn path(number: usize) -> AccountPath {
    AccountPath::new(ACCOUNTS.get(number).map_or("root", |account| account.0)).unwrap()
}

impl Shape {
    fn parent(&self, number: usize) -> Option<usize> {
        match number {
            0 | 1 => Some(POOL),
            4 if self.deep => Some(ROOT),
            4 => Some(POOL),
            POOL if self.deep => Some(ROOT),
            _ => None,
        }
    }

    fn quotas(&self) -> Vec<QuotaNode> {
        let there = |(number, _): &(usize, _)| self.deep || *number != ROOT;
        let nodes = TREE.into_iter().zip(&self.nodes).filter(there);
        let node =
            |(number, (nominal, borrowing_limit, lending_limit)): (usize, &(_, _, _))| QuotaNode {
                account: path(number),
                borrowing_limit: *borrowing_limit,
                cohort: self.parent(number).map(path),
                lending_limit: *lending_limit,
                nominal: *nominal,
                unit: Unit::MilliGpu,
            };
        nodes.map(node).collect()
    }

    fn node(&self, number: usize) -> Option<(u64, Option<u64>, Option<u64>)> {
        let place = TREE.iter().position(|own| *own == number)?;
        self.nodes.get(place).copied().filter(|_| self.deep || number != ROOT)
    }

    fn quota(&self, number: usize) -> u64 {
        let lent = TREE.into_iter().filter(|child| self.parent(*child) == Some(number));
        let lent = lent.map(|child| self.quota(child) - self.kept(child));
        self.node(number).map_or(0, |node| node.0) + lent.sum::<u64>()
    }

    fn kept(&self, number: usize) -> u64 {
        let lending = self.node(number).and_then(|node| node.2);
        lending.map_or(0, |lending| self.quota(number).saturating_sub(lending))
    }

    fn limit(&self, number: usize) -> Option<u64> {
        let (_, borrowing, _) = self.node(number)?;
        match self.parent(number) {
            None => Some(self.quota(number)),
            Some(_) => borrowing.map(|borrowing| self.quota(number) + borrowing),
        }
    }

    /// What an account holds at a second, with what flows up to it.
    fn level(&self, direct: &[u64; 7], number: usize) -> u64 {
        let own = direct[number];
        if self.node(number).is_none() {
            return own;
        }
        let children = TREE.into_iter().filter(|child| self.parent(*child) == Some(number));
        let flows =
            children.map(|child| self.level(direct, child).saturating_sub(self.kept(child)));
        own + flows.sum::<u64>()
    }
}

fn id(name: u16) -> Id {
    Id::new(format!("r{name:05}")).unwrap()
}

fn charge((account, amount, limit): (u8, u64, u64)) -> Charge {
    let (path, kind, unit) = ACCOUNTS[usize::from(account)];
    Charge { account: AccountPath::new(path).unwrap(), amount, kind, limit, unit }
}

fn plain(refunds: &[Refund]) -> Vec<(String, u64)> {
    refunds.iter().map(|refund| (refund.account.to_string(), refund.amount)).collect()
}

fn apply(ledger: &mut Ledger, op: &Op) -> Got {
    let settled = |outcome: Result<Outcome, SettleError>| match outcome {
        Ok(it) => {
            let refunds = plain(&it.refunds);
            Got::Settled(it.state, it.since, refunds, it.refunded_gpu_seconds, it.changed)
        }
        Err(error) => Got::Failed(error),
    };
    match op {
        Op::Reserve { name, start, length, within, charges } => {
            let start = ledger.now() + start;
            let booking = Booking {
                id: id(*name),
                tenant: Id::new("acme").unwrap(),
                caller: Id::new("scheduler").unwrap(),
                class: PriorityClass::ExternalCommercial,
                work: work(1_000),
                start,
                end: start + length,
                confirm_by: (ledger.now() + within).min(start + length),
                charges: charges.iter().copied().map(charge).collect(),
                terms: None,
            };
            match ledger.reserve(booking.clone()) {
                Ok(reservation) => {
                    assert_eq!(reservation.epoch, FIRST_EPOCH);
                    Got::Reserved
                }
                Err(ReserveError::Refused(all)) => {
                    let fit = ledger.fit(&booking, 4).unwrap();
                    let refused = |r: &Refusal| {
                        let own = (r.binding == r.account).then_some(r.peak_use);
                        (r.index, r.binding.to_string(), own, r.free)
                    };
                    Got::Refused(all.iter().map(refused).collect(), fit)
                }
                Err(ReserveError::Malformed(_)) => Got::Malformed,
                Err(other) => panic!("{other}"),
            }
        }
        Op::Quotas(shape) => {
            let quotas = shape.quotas();
            let gone = |own: &&QuotaNode| quotas.iter().all(|new| new.account != own.account);
            let gone = ledger.quotas().filter(gone).map(|own| own.account.clone());
            let gone: Vec<_> = gone.collect();
            ledger.set_quotas(&quotas, &gone).unwrap();
            Got::Quotas
        }
        Op::Confirm { name, epoch } => settled(ledger.confirm(&id(*name), *epoch)),
        Op::Release { name, epoch } => settled(ledger.release(&id(*name), *epoch)),
        Op::Advance(by) => {
            let expired = ledger.advance(ledger.now() + by).unwrap();
            let each = |e: Expired| (e.at, e.reservation.to_string(), e.cause, plain(&e.refunds));
            Got::Expired(expired.into_iter().map(each).collect())
        }
    }
}

#[derive(Debug, Clone)]
struct Held {
    start: u64,
    end: u64,
    confirm_by: u64,
    charges: Vec<(u8, u64, u64)>,
    state: ReservationState,
    since: u64,
    cause: Option<ExpiryCause>,
    refunded: u64,
}

impl Held {
    fn is_live(&self) -> bool {
        matches!(self.state, ReservationState::Reserved | ReservationState::Active)
    }
}

#[derive(Debug, Default)]
struct Model {
    now: u64,
    held: BTreeMap<u16, Held>,
    used: [u64; 4],
    shape: Shape,
}

/// What is held at each of the seconds to come, and of the budgets.
#[derive(Debug, Clone)]
struct Books {
    direct: Vec<[u64; 7]>,
    budgets: [u64; 4],
}

impl Model {
    fn books(&self) -> Books {
        let live = || self.held.values().filter(|held| held.is_live());
        let at = |second: u64| {
            let mut direct = [0; 7];
            let here = live().filter(|held| held.start <= second && second < held.end);
            for (account, amount, _) in here.flat_map(|held| &held.charges) {
                direct[usize::from(*account)] += amount;
            }
            direct
        };
        let mut budgets = self.used;
        for (account, amount, _) in live().flat_map(|held| &held.charges) {
            if let Some(budget) = budgets.get_mut(usize::from(*account)) {
                *budget += amount;
            }
        }
        Books { direct: (self.now..self.now + AHEAD).map(at).collect(), budgets }
    }

    fn usage(&self, number: usize) -> u64 {
        if ACCOUNTS.get(number).is_some_and(|account| account.1 == AccountKind::Budget) {
            return self.books().budgets[number];
        }
        self.shape.level(&self.books().direct[0], number)
    }

    /// Where a charge has no room, and the use there.
    fn obstacle(
        &self,
        books: &Books,
        (account, amount, limit): (u8, u64, u64),
        (start, end): (u64, u64),
    ) -> Option<(usize, u64, u64)> {
        let number = usize::from(account);
        if ACCOUNTS[number].1 == AccountKind::Budget {
            let held = books.budgets[number];
            return (held + amount > limit).then_some((number, held, limit));
        }
        let window = &books.direct[usize::try_from(start - self.now).unwrap()..]
            [..usize::try_from(end - start).unwrap()];
        let limit = self.shape.limit(number).map_or(limit, |own| own.min(limit));
        let peak = window.iter().map(|direct| self.shape.level(direct, number)).max().unwrap();
        if peak + amount > limit {
            return Some((number, peak, limit));
        }
        let mut above = self.shape.node(number).and_then(|_| self.shape.parent(number));
        while let Some(cohort) = above {
            let passes = |direct: &[u64; 7]| {
                let mut with = *direct;
                with[number] += amount;
                let (before, after) =
                    (self.shape.level(direct, cohort), self.shape.level(&with, cohort));
                after > before && self.shape.limit(cohort).is_some_and(|limit| after > limit)
            };
            if window.iter().any(passes) {
                return Some((cohort, 0, 0));
            }
            above = self.shape.parent(cohort);
        }
        None
    }

    fn refused(&self, charges: &[(u8, u64, u64)], when: (u64, u64)) -> Vec<Refused> {
        let mut books = self.books();
        let mut refused = Vec::new();
        for (index, charge) in charges.iter().enumerate() {
            let (account, amount, limit) = *charge;
            let number = usize::from(account);
            if let Some((binding, peak, most)) = self.obstacle(&books, *charge, when) {
                let fits =
                    |amount: &u64| self.obstacle(&books, (account, *amount, limit), when).is_none();
                let own = binding == number;
                let largest = || (1..amount).rev().find(fits).unwrap_or(0);
                let free = if own { most.saturating_sub(peak) } else { largest() };
                refused.push((index, path(binding).to_string(), own.then_some(peak), free));
            } else if let Some(budget) = books.budgets.get_mut(number)
                && ACCOUNTS[number].1 == AccountKind::Budget
            {
                *budget += amount;
            } else {
                for second in when.0..when.1 {
                    books.direct[usize::try_from(second - self.now).unwrap()][number] += amount;
                }
            }
        }
        refused
    }

    fn fit(&self, charges: &[(u8, u64, u64)], (start, end): (u64, u64)) -> Fit {
        let scaled = |part: u64, whole: u64, time: bool| -> Vec<(u8, u64, u64)> {
            let one = |(account, amount, limit): &(u8, u64, u64)| {
                let unit = ACCOUNTS[usize::from(*account)].2;
                let grows = unit == Unit::GpuSecond || (!time && unit == Unit::MilliGpu);
                let amount = if grows { (amount * part).div_ceil(whole) } else { *amount };
                (*account, amount, *limit)
            };
            charges.iter().map(one).collect()
        };
        let length = end - start;
        let fewer =
            |count: &u64| self.refused(&scaled(*count, GPUS, false), (start, end)).is_empty();
        let shorter = |seconds: &u64| {
            self.refused(&scaled(*seconds, length, true), (start, start + seconds)).is_empty()
        };
        let later = |from: &u64| self.refused(charges, (*from, from + length)).is_empty();
        let count = (1..GPUS).rev().find(fewer);
        Fit {
            gpu_count: count.map(|count| u32::try_from(count).unwrap()),
            duration_seconds: (1..length).rev().find(shorter),
            start: (start + 1..self.now + AHEAD - length).find(later),
        }
    }

    fn end(&mut self, name: u16, state: ReservationState, part: (u64, u64)) -> Vec<(String, u64)> {
        let now = self.now;
        let held = self.held.get_mut(&name).unwrap();
        (held.state, held.since) = (state, now);
        let mut refunds = Vec::new();
        for (account, amount, _) in &held.charges {
            let (path, kind, _) = ACCOUNTS[usize::from(*account)];
            if kind == AccountKind::Budget {
                let back = amount * part.0 / part.1;
                self.used[usize::from(*account)] += amount - back;
                held.refunded = held.refunded.max(back);
                if back > 0 {
                    refunds.push((path.to_owned(), back));
                }
            }
        }
        refunds
    }

    fn apply(&mut self, op: &Op) -> Got {
        match op {
            Op::Reserve { name, start, length, within, charges } => {
                let start = self.now + start;
                let (end, confirm_by) = (start + length, (self.now + within).min(start + length));
                let accounts: BTreeSet<u8> = charges.iter().map(|charge| charge.0).collect();
                let zero = charges.iter().any(|charge| charge.1 == 0);
                if self.held.contains_key(name) || accounts.len() < charges.len() || zero {
                    return Got::Malformed;
                }
                let refused = self.refused(charges, (start, end));
                if !refused.is_empty() {
                    return Got::Refused(refused, self.fit(charges, (start, end)));
                }
                let (charges, since) = (charges.clone(), self.now);
                let (state, cause, refunded) = (ReservationState::Reserved, None, 0);
                let held = Held { start, end, confirm_by, charges, state, since, cause, refunded };
                self.held.insert(*name, held);
                Got::Reserved
            }
            Op::Quotas(shape) => {
                self.shape = shape.clone();
                Got::Quotas
            }
            Op::Confirm { name, epoch } => self.confirm(*name, *epoch),
            Op::Release { name, epoch } => self.release(*name, *epoch),
            Op::Advance(by) => {
                let mut expired = Vec::new();
                for second in self.now + 1..=self.now + by {
                    self.now = second;
                    for name in self.held.keys().copied().collect::<Vec<_>>() {
                        expired.extend(self.expire(name));
                    }
                }
                Got::Expired(expired)
            }
        }
    }

    fn expire(&mut self, name: u16) -> Option<PlainExpiry> {
        let held = &self.held[&name];
        let (cause, part) = match held.state {
            ReservationState::Reserved if held.confirm_by == self.now => {
                (ExpiryCause::Unconfirmed, (1, 1))
            }
            ReservationState::Active if held.end == self.now => (ExpiryCause::Ended, (0, 1)),
            _ => return None,
        };
        let refunds = self.end(name, ReservationState::Expired, part);
        self.held.get_mut(&name).unwrap().cause = Some(cause);
        Some((self.now, id(name).to_string(), cause, refunds))
    }

    fn confirm(&mut self, name: u16, epoch: u64) -> Got {
        let now = self.now;
        let Some(held) = self.held.get_mut(&name) else {
            return Got::Failed(SettleError::NotFound);
        };
        if epoch != 1 {
            return Got::Failed(SettleError::StaleEpoch { current: 1 });
        }
        let changed = held.state == ReservationState::Reserved;
        if changed {
            (held.state, held.since) = (ReservationState::Active, now);
        }
        match (held.state, held.cause) {
            (ReservationState::Active, _) => {
                Got::Settled(held.state, held.since, Vec::new(), 0, changed)
            }
            (_, Some(ExpiryCause::Unconfirmed)) => Got::Failed(SettleError::ConfirmDeadlinePassed),
            (state, _) => Got::Failed(SettleError::AlreadyEnded { state }),
        }
    }

    fn release(&mut self, name: u16, epoch: u64) -> Got {
        let Some(held) = self.held.get(&name).cloned() else {
            return Got::Failed(SettleError::NotFound);
        };
        if epoch != 1 {
            return Got::Failed(SettleError::StaleEpoch { current: 1 });
        }
        let part = match held.state {
            ReservationState::Reserved => (1, 1),
            ReservationState::Active => {
                (held.end - self.now.max(held.start), held.end - held.start)
            }
            ReservationState::Released => {
                return Got::Settled(held.state, held.since, Vec::new(), held.refunded, false);
            }
            state => return Got::Failed(SettleError::AlreadyEnded { state }),
        };
        let refunds = self.end(name, ReservationState::Released, part);
        let refunded = self.held[&name].refunded;
        Got::Settled(ReservationState::Released, self.now, refunds, refunded, true)
    }
}

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..240_u16;
    let epoch = || prop_oneof![7 => Just(1_u64), 1 => Just(2)];
    let charges = proptest::collection::vec((0..6_u8, 0..9_u64, 0..24_u64), 0..4);
    let limit = || proptest::option::of(0..12_u64);
    let nodes = proptest::collection::vec((0..12_u64, limit(), limit()), 5);
    let shape = (proptest::option::weighted(0.8, nodes), any::<bool>())
        .prop_map(|(nodes, deep)| Shape { nodes: nodes.unwrap_or_default(), deep });
    let start = prop_oneof![3 => Just(0_u64), 1 => 0..30_u64];
    prop_oneof![
        4 => (name(), start, 1..40_u64, 1..20_u64, charges).prop_map(
            |(name, start, length, within, charges)| {
                Op::Reserve { name, start, length, within, charges }
            }
        ),
        3 => (name(), epoch()).prop_map(|(name, epoch)| Op::Confirm { name, epoch }),
        2 => (name(), epoch()).prop_map(|(name, epoch)| Op::Release { name, epoch }),
        2 => (0..12_u64).prop_map(Op::Advance),
        1 => shape.prop_map(Op::Quotas),
    ]
}

/// Turns the number that stands for a name into one: mostly a fresh one to reserve, and mostly one
/// of the last few that were reserved to settle, so that sequences get somewhere.
fn named(mut op: Op, model: &Model) -> Op {
    let used: Vec<u16> = model.held.keys().copied().collect();
    let next = used.last().map_or(0, |last| last + 1);
    let recent: Vec<u16> = used.iter().rev().take(6).copied().collect();
    match &mut op {
        Op::Reserve { name, .. } if *name % 8 != 0 => *name = next,
        Op::Confirm { name, .. } | Op::Release { name, .. }
            if *name % 8 != 0 && !recent.is_empty() =>
        {
            *name = recent[usize::from(*name / 8) % recent.len()];
        }
        Op::Reserve { .. }
        | Op::Confirm { .. }
        | Op::Release { .. }
        | Op::Advance(_)
        | Op::Quotas(_) => {}
    }
    op
}

/// Runs a sequence on both. Every step is done, undone and done again first, to the same effect.
fn compare(ops: &[Op]) -> Result<(), TestCaseError> {
    let (mut ledger, mut model) = (Ledger::default(), Model::default());
    for op in ops {
        let op = &named(op.clone(), &model);
        let (before, then) = (ledger.state_digest(), ledger.now());
        let mark = ledger.mark();
        let first = apply(&mut ledger, op);
        ledger.undo(mark);
        prop_assert_eq!((ledger.state_digest(), ledger.now()), (before, then), "undo of {:?}", op);
        prop_assert_eq!(ledger.audit(), Ok(()), "after undo of {:?}", op);
        prop_assert_eq!(&apply(&mut ledger, op), &first);
        prop_assert_eq!(&model.apply(op), &first, "{:?}", op);
        prop_assert_eq!(ledger.audit(), Ok(()), "after {:?}", op);
        for number in 0..=ROOT {
            let used = ledger.usage(&path(number)).unwrap_or(0);
            prop_assert_eq!(used, model.usage(number), "{} after {:?}", path(number), op);
        }
    }
    ledger.undo_all();
    prop_assert_eq!(ledger.state_digest(), Ledger::default().state_digest(), "all of it undone");
    prop_assert_eq!(ledger.audit(), Ok(()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn short_sequences_are_as_the_model_says(ops in proptest::collection::vec(op(), 0..60)) {
        compare(&ops)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]
    #[test]
    fn long_sequences_are_as_the_model_says(
        ops in proptest::collection::vec(op(), 1_000..1_500),
    ) {
        compare(&ops)?;
    }
}

fn booking(name: u16, charges: Vec<Charge>) -> Booking {
    Booking {
        id: id(name),
        tenant: Id::new("acme").unwrap(),
        caller: Id::new("scheduler").unwrap(),
        class: PriorityClass::ExternalCommercial,
        work: work(1_000),
        start: 100,
        end: 200,
        confirm_by: 150,
        charges,
        terms: None,
    }
}

fn at_100() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.advance(100).unwrap();
    ledger
}

#[test]
fn bookings_that_make_no_sense_are_refused() {
    let good = || booking(1, vec![charge((0, 5, 10))]);
    let mut ledger = at_100();
    for bad in [
        Booking { end: 100, ..good() },
        Booking { start: 99, ..good() },
        Booking { confirm_by: 100, ..good() },
        Booking { confirm_by: 201, ..good() },
        booking(1, vec![charge((0, 0, 10))]),
        booking(1, vec![charge((0, MAX_AMOUNT + 1, u64::MAX))]),
        booking(1, vec![charge((0, 1, u64::MAX))]),
        booking(1, vec![charge((0, 1, 9)), charge((0, 2, 9))]),
        booking(1, vec![charge((0, 1, 9)); MAX_CHARGES + 1]),
    ] {
        assert!(matches!(ledger.reserve(bad), Err(ReserveError::Malformed(_))));
    }
    assert!(ledger.reserve(good()).is_ok());
    assert!(
        matches!(ledger.reserve(good()), Err(ReserveError::Malformed(_))),
        "a name is used once"
    );
}

#[test]
fn an_account_keeps_its_kind_and_unit_while_it_holds_something() {
    let mut ledger = at_100();
    ledger.reserve(booking(1, vec![charge((0, 5, 10))])).unwrap();
    let other = Charge { unit: Unit::Byte, ..charge((0, 1, 10)) };
    let refused = ledger.reserve(booking(2, vec![charge((2, 1, 9)), other.clone()]));
    assert!(matches!(refused, Err(ReserveError::Mismatch { index: 1, .. })), "{refused:?}");
    assert_eq!(ledger.usage(&charge((2, 1, 9)).account), None, "nothing of it was held");
    ledger.release(&id(1), 1).unwrap();
    assert!(ledger.reserve(booking(2, vec![other])).is_ok());
}

#[test]
fn the_largest_amounts_do_not_overflow() {
    let mut ledger = at_100();
    let most = |account| charge((account, MAX_AMOUNT, MAX_AMOUNT));
    ledger.reserve(booking(1, vec![most(0), most(2)])).unwrap();
    let more = ledger.reserve(booking(2, vec![charge((0, 1, MAX_AMOUNT)), most(2)]));
    let Err(ReserveError::Refused(refusals)) = more else { panic!("{more:?}") };
    let free: Vec<_> = refusals.iter().map(|refusal| (refusal.index, refusal.free)).collect();
    assert_eq!(free, [(0, 0), (1, 0)], "every charge that is in the way is named");
    ledger.confirm(&id(1), 1).unwrap();
    ledger.advance(133).unwrap();
    let refund = ledger.release(&id(1), 1).unwrap().refunds[0].amount;
    assert_eq!(u128::from(refund), u128::from(MAX_AMOUNT) * 67 / 100);
    assert_eq!(ledger.audit(), Ok(()));
}

#[test]
fn only_so_many_ended_reservations_are_remembered() {
    let mut ledger = at_100();
    let total = MAX_ENDED + 10;
    let name = |number: usize| Id::new(format!("r{number}")).unwrap();
    for number in 0..total {
        ledger
            .reserve(Booking { id: name(number), ..booking(0, vec![charge((0, 1, 1))]) })
            .unwrap();
        ledger.release(&name(number), 1).unwrap();
        ledger.keep();
    }
    assert_eq!((ledger.ended.len(), ledger.ended_order.len()), (MAX_ENDED, MAX_ENDED));
    assert!(!ledger.knows(&name(9)) && ledger.knows(&name(10)));
    assert!(ledger.accounts.is_empty(), "an account that holds nothing costs nothing");
    assert_eq!(ledger.audit(), Ok(()));
}

/// Found by the sequences: the first to end emptied the account, and the second found none.
#[test]
fn two_that_end_in_the_same_second_both_end() {
    let mut ledger = at_100();
    ledger.reserve(booking(2, vec![charge((0, 5, 10))])).unwrap();
    ledger.confirm(&id(2), 1).unwrap();
    let unconfirmed = Booking { confirm_by: 200, ..booking(1, vec![charge((0, 5, 10))]) };
    ledger.reserve(unconfirmed).unwrap();
    let expired = ledger.advance(200).unwrap();
    let causes: Vec<_> = expired.iter().map(|one| (&one.reservation, one.cause)).collect();
    let both = [(&id(1), ExpiryCause::Unconfirmed), (&id(2), ExpiryCause::Ended)];
    assert_eq!(causes, both, "in the order of their names");
    assert_eq!(ledger.audit(), Ok(()));
}
