//! A ledger that is written down and put together again behaves like the one that was not.

use placet_core::{Digest, Extends, PreemptionRule, ThawClaims};
use proptest::prelude::*;

use super::*;
use crate::quota::tests::work;
use crate::quota::{Expired, ExtendError, Outcome, ReserveError, SettleError};

const NOW: u64 = 1_000;
/// What the clusters have.
const CLUSTER: u64 = 60;

fn id(name: &str) -> Id {
    Id::new(name).unwrap()
}

fn path(text: &str) -> AccountPath {
    AccountPath::new(text).unwrap()
}

/// Not the same for all.
fn notice(confirm_by: u64) -> u32 {
    u32::try_from(confirm_by % 4).unwrap()
}

/// The items of a ledger, each by itself.
fn items(ledger: &Ledger) -> Vec<Vec<u8>> {
    let mut items = Vec::new();
    let visited = ledger.each_item(|item| {
        items.push(item.to_vec());
        Ok::<(), std::convert::Infallible>(())
    });
    visited.unwrap();
    items
}

fn restored(items: &[Vec<u8>], now: u64) -> Result<Ledger, ItemError> {
    let mut restoring = Restoring::new(Ledger::default());
    for item in items {
        restoring.put(item)?;
    }
    restoring.finish(now)
}

#[derive(Debug, Clone)]
enum Op {
    Book { tenant: u8, ahead: u64, length: u64, amount: u64, internal: bool },
    Preempt { grace: u64, length: u64, amount: u64, most: u32 },
    Extend { at: usize, length: u64 },
    Inside { at: usize, length: u64, amount: u64 },
    Confirm(usize),
    Release(usize),
    Advance(u64),
    Trees(u8),
    Waive(u8),
    Freeze(u8),
    Thaw(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u8, prop_oneof![Just(0), 1..40_u64], 1..60_u64, 1..20_u64, any::<bool>())
            .prop_map(|(tenant, ahead, length, amount, internal)| {
                Op::Book { tenant, ahead, length, amount, internal }
            }),
        4 => (1..8_u64, 1..60_u64, 10..=CLUSTER, 1..8_u32).prop_map(
            |(grace, length, amount, most)| Op::Preempt { grace, length, amount, most }
        ),
        3 => (0..8_usize, 1..60_u64).prop_map(|(at, length)| Op::Extend { at, length }),
        3 => (0..8_usize, 1..30_u64, 1..20_u64)
            .prop_map(|(at, length, amount)| Op::Inside { at, length, amount }),
        6 => (0..6_usize).prop_map(Op::Confirm),
        2 => (0..12_usize).prop_map(Op::Release),
        4 => (0..6_u64).prop_map(Op::Advance),
        1 => (0..3_u8).prop_map(Op::Trees),
        3 => (0..4_u8).prop_map(Op::Waive),
        1 => (0..3_u8).prop_map(Op::Freeze),
        1 => (0..3_u8).prop_map(Op::Thaw),
    ]
}

fn charges(tenant: u8, amount: u64, length: u64, limit: u64) -> Vec<Charge> {
    let level = |account: &str, limit| Charge {
        account: path(account),
        amount,
        kind: AccountKind::Level,
        limit,
        unit: Unit::MilliGpu,
    };
    vec![
        level("cluster/gpu", limit),
        level(&format!("tenant/{tenant}/gpu"), MAX_AMOUNT),
        Charge {
            account: path(&format!("tenant/{tenant}/gpu-seconds")),
            amount: amount * length,
            kind: AccountKind::Budget,
            limit: 100_000,
            unit: Unit::GpuSecond,
        },
    ]
}

fn trees(which: u8) -> (Vec<QuotaNode>, Vec<AccountPath>) {
    let node = |account: &str, cohort: Option<&str>, nominal, lending_limit| QuotaNode {
        account: path(account),
        borrowing_limit: Some(20),
        cohort: cohort.map(path),
        lending_limit,
        nominal,
        unit: Unit::MilliGpu,
    };
    let tenant = |at: u8, cohort, lent| node(&format!("tenant/{at}/gpu"), Some(cohort), 20, lent);
    match which {
        0 => {
            let members = (0..3).map(|at| tenant(at, "pool", Some(10)));
            (members.chain([node("pool", None, 5, None)]).collect(), vec![path("org")])
        }
        1 => {
            let members = [tenant(0, "pool", Some(5)), tenant(1, "org", None)];
            let inner = [node("pool", Some("org"), 0, None), node("org", None, 10, None)];
            (members.into_iter().chain(inner).collect(), vec![path("tenant/2/gpu")])
        }
        _ => {
            let tenants = (0..3).map(|at| path(&format!("tenant/{at}/gpu")));
            (Vec::new(), tenants.chain([path("pool"), path("org")]).collect())
        }
    }
}

/// What an operation came to.
#[derive(Debug, PartialEq)]
enum Came {
    Held(Result<Reservation, ReserveError>),
    Longer(Result<Reservation, ExtendError>),
    Settled(Result<Outcome, SettleError>),
    Expired(Result<Vec<Expired>, ReserveError>),
    Set(bool),
}

fn apply(ledger: &mut Ledger, names: &[Id], op: &Op) -> Came {
    let now = ledger.now();
    let recent = |at: usize| names.iter().rev().nth(at).cloned().unwrap_or_else(|| id("none"));
    let booking = |start: u64, confirm_by: u64, class, milli_gpus: u64, length, charges| Booking {
        id: id(&format!("r{}", names.len())),
        tenant: id("acme"),
        caller: id("scheduler"),
        class,
        work: work(milli_gpus),
        start,
        end: start + length,
        confirm_by: confirm_by.min(start + length),
        charges,
        terms: Some(SlaTerms { min_runtime_seconds: 1, notice_seconds: notice(confirm_by) }),
    };
    let came = match op {
        Op::Book { tenant, ahead, length, amount, internal } => {
            let (class, limit) = match internal {
                true => (PriorityClass::InternalResearch, CLUSTER),
                false => (PriorityClass::ExternalCommercial, CLUSTER - 10),
            };
            let start = now + ahead;
            let charges = charges(*tenant, *amount, *length, limit);
            Came::Held(ledger.reserve(booking(start, start + 5, class, *amount, *length, charges)))
        }
        Op::Preempt { grace, length, amount, most } => {
            let (class, start) = (PriorityClass::InternalResearch, now + grace);
            let mut charges = charges(0, *amount, *length, CLUSTER);
            // Room in a tree is not made by sending others away.
            charges.retain(|charge| charge.account != path("tenant/0/gpu"));
            let booking = booking(start, start.min(now + 5), class, *amount, *length, charges);
            let rule = PreemptionRule {
                grace_seconds: 0,
                max_victims: *most,
                cool_down_seconds: 6,
                min_runtime_seconds: 0,
                victim_classes: vec![PriorityClass::ExternalCommercial],
                ..PreemptionRule::default()
            };
            Came::Held(ledger.preempt(&booking, &rule))
        }
        Op::Extend { at, length } => extend(ledger, &recent(*at), *length),
        Op::Inside { at, length, amount } => {
            let job = booking(now, now + 3, PriorityClass::InternalResearch, 0, *length, vec![]);
            inside(ledger, &recent(*at), job, *amount)
        }
        Op::Confirm(at) => {
            let id = recent(*at);
            Came::Settled(ledger.confirm(&id, epoch_of(ledger, &id)))
        }
        Op::Release(at) => {
            let id = recent(*at);
            let released = ledger.release(&id, epoch_of(ledger, &id));
            // Jobs inside a lease end with it, before anything else happens.
            ledger.advance(now).unwrap();
            Came::Settled(released)
        }
        Op::Advance(by) => Came::Expired(ledger.advance(now + by)),
        Op::Trees(which) => {
            let (changed, removed) = trees(*which);
            Came::Set(ledger.set_quotas(&changed, &removed).is_ok())
        }
        Op::Waive(which) => Came::Set(waive(ledger, *which)),
        Op::Freeze(which) => Came::Set(freeze(ledger, *which)),
        Op::Thaw(which) => Came::Set(ledger.thaw(&thaw_of(*which, now)).is_ok()),
    };
    ledger.keep();
    came
}

fn epoch_of(ledger: &Ledger, id: &Id) -> u64 {
    ledger.held(id).map_or(1, |held| held.epoch)
}

/// A permit that uses a waiver, which is logged where it is used first.
fn waive(ledger: &mut Ledger, which: u8) -> bool {
    let name = id(&format!("w-{which}"));
    let (digest, exp) = (Digest::of(&[which]), NOW + 20 * u64::from(which + 1));
    match ledger.check_waiver(&name, digest, (0, exp)) {
        Ok(true) => ledger.begin_waiver(&name, (digest, exp, 3)).unwrap(),
        Ok(false) => {}
        Err(_) => return false,
    }
    ledger.use_waiver(&name).is_ok()
}

fn freeze_of(which: u8, iat: u64) -> FreezeClaims {
    let scope = FreezeScope {
        kinds: if which == 0 { [SubjectKind::Job].into() } else { BTreeSet::new() },
        priority_classes: [PriorityClass::ExternalCommercial].into(),
        ..FreezeScope::default()
    };
    let (jti, reason) = (id(&format!("f-{which}")), "INC-7".to_owned());
    FreezeClaims { aud: "placet".to_owned(), by: id("duty"), iat, jti, placet: 1, reason, scope }
}

fn freeze(ledger: &mut Ledger, which: u8) -> bool {
    ledger.freeze(freeze_of(which, ledger.now()), Digest::of(&[which])).is_ok()
}

fn thaw_of(which: u8, iat: u64) -> ThawClaims {
    let FreezeClaims { aud, by, jti, placet, reason, .. } = freeze_of(which, iat);
    ThawClaims { aud, by, iat, jti, placet, reason }
}

fn extend(ledger: &mut Ledger, id: &Id, length: u64) -> Came {
    let Some(held) = ledger.held(id).cloned() else { return Came::Set(false) };
    let (start, epoch) = (held.end(), held.epoch);
    let own = held.booking;
    let extends = Extends { end: start, epoch, reservation_id: own.id.clone(), start: own.start };
    let end = start + length;
    let charges = charges(1, own.work.milli_gpus(), length, CLUSTER);
    Came::Longer(ledger.extend(Booking { start, end, confirm_by: end, charges, ..own }, &extends))
}

fn inside(ledger: &mut Ledger, lease: &Id, job: Booking, amount: u64) -> Came {
    let Some(lease) = ledger.held(lease).cloned() else { return Came::Set(false) };
    let own = lease.booking;
    let mut charges = charges(2, amount, job.end - job.start, own.work.milli_gpus());
    charges[0].account = path(&format!("lease/{}", own.id));
    charges.remove(1);
    let work = Work {
        kind: SubjectKind::Job,
        grant: own.work.grant.clone(),
        lease_id: Some(own.id.clone()),
    };
    Came::Held(ledger.reserve(Booking { work: Arc::new(work), charges, ..job }))
}

/// A ledger after some operations, and the names that were used.
fn after(ops: &[Op]) -> (Ledger, Vec<Id>) {
    let (mut ledger, mut names) = (Ledger::default(), Vec::new());
    ledger.advance(NOW).unwrap();
    for op in ops {
        note(&apply(&mut ledger, &names, op), &mut names);
    }
    (ledger, names)
}

fn note(came: &Came, names: &mut Vec<Id>) {
    if let Came::Held(Ok(held)) = came {
        names.push(held.booking.id.clone());
    }
}

/// Everything of a ledger, what is left out of its items included.
fn all(ledger: &Ledger) -> String {
    let displaceable: BTreeMap<_, _> = ledger.displaceable.iter().collect();
    let levels = ledger.usages();
    let digest = ledger.state_digest();
    let inside: BTreeMap<_, _> = ledger.inside.iter().collect();
    let evicted = &ledger.evicted;
    format!(
        "{} {digest} {evicted:?} {levels:?} {:?} {displaceable:?} {inside:?}",
        ledger.now, ledger.due
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_restored_ledger_goes_on_like_the_other(
        before in proptest::collection::vec(op(), 0..80),
        behind in proptest::collection::vec(op(), 0..60),
    ) {
        let (mut ledger, mut names) = after(&before);
        let rows = items(&ledger);
        let mut other = restored(&rows, ledger.now()).unwrap();
        prop_assert_eq!(items(&other), rows, "the same items again");
        prop_assert_eq!(all(&other), all(&ledger));
        for op in &behind {
            let came = apply(&mut ledger, &names, op);
            prop_assert_eq!(&apply(&mut other, &names, op), &came);
            note(&came, &mut names);
            prop_assert_eq!(other.audit(), Ok(()));
        }
        prop_assert_eq!(items(&other), items(&ledger));
        prop_assert_eq!(all(&other), all(&ledger));
    }

    #[test]
    fn any_bytes_are_a_ledger_or_refused(
        before in proptest::collection::vec(op(), 0..40),
        changes in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 0..6),
        cut in proptest::option::of(any::<u16>()),
        swapped in proptest::option::of((any::<u16>(), any::<u16>())),
    ) {
        let (ledger, _) = after(&before);
        let mut rows = items(&ledger);
        let count = rows.len().max(1);
        for (row, at, bits) in changes {
            if let Some(row) = rows.get_mut(usize::from(row) % count) {
                let length = row.len();
                row[usize::from(at) % length] ^= bits;
            }
        }
        if let Some(at) = cut && let Some(row) = rows.get_mut(usize::from(at) % count) {
            row.truncate(usize::from(at) % row.len());
        }
        if let Some((one, other)) = swapped && !rows.is_empty() {
            rows.swap(usize::from(one) % count, usize::from(other) % count);
        }
        // Whatever it is: no panic, and what passes the audit can be gone on with.
        if let Ok(mut ledger) = restored(&rows, NOW)
            && ledger.audit().is_ok()
        {
            let _expired = ledger.advance(NOW + 100);
            let _items = items(&ledger);
        }
    }
}

/// A bit of everything.
fn varied() -> Ledger {
    let book =
        |tenant, ahead, amount, internal| Op::Book { tenant, ahead, length: 50, amount, internal };
    let ops = [
        Op::Trees(1),
        book(0, 0, 15, false),
        Op::Confirm(0),
        Op::Extend { at: 0, length: 20 },
        book(1, 0, 18, false),
        Op::Confirm(0),
        Op::Inside { at: 0, length: 40, amount: 7 },
        Op::Confirm(0),
        book(1, 30, 5, true),
        book(2, 0, 3, false),
        Op::Advance(3),
        Op::Release(0),
        Op::Preempt { grace: 4, length: 30, amount: 40, most: 4 },
        Op::Waive(1),
        Op::Waive(2),
        Op::Waive(1),
        Op::Freeze(0),
        Op::Freeze(1),
        Op::Thaw(0),
    ];
    let mut ledger = after(&ops).0;
    ledger.note_eviction(&id("lost"), NOW + 3);
    ledger.keep();
    ledger
}

#[test]
fn the_form_changes_only_with_its_number() {
    let ledger = varied();
    assert_eq!(ledger.audit(), Ok(()));
    let plans = ledger.live.values().filter(|held| held.plan.is_some()).count();
    let orders = ledger.live.values().filter(|held| held.order.is_some()).count();
    let told = (ledger.nodes.len(), ledger.live.len(), ledger.ended.len(), plans, orders);
    assert_eq!(told, (4, 5, 1, 1, 1), "a bit of everything");
    let longer = ledger.live.values().filter(|held| !held.extensions.is_empty()).count();
    assert_eq!((longer, ledger.inside.len()), (1, 1), "and of what goes on, and runs inside");
    let Freezes { standing, lifted } = &*ledger.freezes;
    assert_eq!((ledger.waivers.len(), standing.len(), lifted.len()), (2, 1, 1));
    let bytes = items(&ledger).concat();
    assert_eq!(
        (FORMAT, Digest::of(&bytes).to_string().as_str()),
        (2, "sha256:84af886278a5dc5742dbb2d469dce7918ffbb034986afe8765b748b06ec1c4a5"),
        "whoever changes the form raises FORMAT: an old snapshot must not be read as a new one"
    );
}

#[test]
fn items_come_once_and_in_their_order() {
    let ledger = varied();
    let rows = items(&ledger);
    assert!(restored(&rows, ledger.now()).is_ok());
    for at in 0..rows.len() {
        let mut twice = rows.clone();
        twice.insert(at, rows[at].clone());
        assert!(restored(&twice, ledger.now()).is_err(), "{}", subject(&rows[at]));
        let mut longer = rows.clone();
        longer[at].push(0);
        assert!(restored(&longer, ledger.now()).is_err(), "{}", subject(&rows[at]));
        if at > 0 {
            let mut swapped = rows.clone();
            swapped.swap(at - 1, at);
            // A change may come to stand behind another account: its level is wrong then.
            let swapped = restored(&swapped, ledger.now());
            let is_found = swapped.map_or(true, |swapped| swapped.audit().is_err());
            assert!(is_found, "{}", subject(&rows[at]));
        }
        let mut fewer = rows.clone();
        fewer.remove(at);
        let fewer = restored(&fewer, ledger.now());
        let is_found = fewer.map_or(true, |fewer| fewer.audit().is_err());
        let item: Item<'_> = postcard::from_bytes(&rows[at]).unwrap();
        let is_kept = match item {
            Item::Ended(_) | Item::Node(_) | Item::Evicted { .. } => true,
            Item::Waiver(_) | Item::Freeze(_) | Item::Lifted { .. } => true,
            Item::Budget(budget) => budget.held == 0,
            Item::Level { .. } | Item::Change { .. } | Item::Live(_) => false,
        };
        assert!(is_found || is_kept, "{}: nothing else would miss it", subject(&rows[at]));
    }
}
