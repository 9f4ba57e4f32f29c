//! What is held, a page at a time. The work of one page is bounded whatever the ledger holds, so
//! that looking never holds up deciding.

use std::collections::BTreeSet;
use std::ops::Bound;

use placet_core::{AccountKind, AccountPath, Charge, Id, ReservationState, Unit};

use super::{Account, LEASE_ACCOUNTS, Ledger, Reservation};

/// Most accounts of one page: a step in an ordered list and a look-up for each, together less than
/// a batch of decisions takes.
pub const MAX_USAGE_PAGE: usize = 1_000;
/// Most reservations of one page.
pub const MAX_RESERVATIONS_PAGE: usize = 500;
/// Most reservations that are looked at for one page: filters may fit few of them.
pub const MAX_LOOKED_AT: usize = 2_048;
/// Charges with which a page of reservations is full: a megabyte, if their paths are as long as can
/// be.
pub const MAX_PAGE_CHARGES: usize = 2_048;
/// Names that are looked at for each that is added: two, so that those that are no longer in use
/// are dropped faster than they are made.
const SWEPT_FOR_ONE: usize = 2;

/// Use of one account at the ledger's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountUse {
    /// Which account.
    pub account: AccountPath,
    /// How its use behaves over time.
    pub kind: AccountKind,
    /// What it counts.
    pub unit: Unit,
    /// What is held now of a level, or charged and used of a budget, in `unit`.
    pub used: u64,
}

/// Which accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    /// These.
    Named(Vec<AccountPath>),
    /// Those whose path is the prefix or begins with it, segment by segment, behind one of them.
    Under {
        /// Absent for all but those of leases, which are below `lease`.
        prefix: Option<AccountPath>,
        /// The last of the page before.
        after: Option<AccountPath>,
        /// Most of them: 1..=1,000.
        most: usize,
    },
}

/// Which reservations: those that all of it fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this tenant.
    pub tenant: Option<Id>,
    /// Charging this account.
    pub account: Option<AccountPath>,
    /// In this state.
    pub state: Option<ReservationState>,
}

/// A place in the order of ending: when, and the name of the reservation.
pub type Due = (u64, Id);

/// The names of a ledger's accounts, in order: what pages are cut from. Kept beside the ledger, and
/// told of every booking that is kept.
#[derive(Debug, Default)]
pub struct AccountNames {
    names: BTreeSet<AccountPath>,
    /// Up to where names have been looked at for whether they are still in use.
    swept: Option<AccountPath>,
}

impl Filter {
    fn fits(&self, reservation: &Reservation) -> bool {
        let charges = |account: &AccountPath| {
            let mut charges = reservation.terms().flat_map(|(_, _, charges)| charges);
            charges.any(|charge| charge.account == *account)
        };
        self.tenant.as_ref().is_none_or(|tenant| *tenant == reservation.booking.tenant)
            && self.state.is_none_or(|state| state == reservation.state)
            && self.account.as_ref().is_none_or(charges)
    }
}

impl AccountNames {
    /// Those of a ledger. Takes time in proportion to its accounts.
    #[must_use]
    pub fn of(ledger: &Ledger) -> Self {
        let names = ledger.accounts.keys().chain(ledger.nodes.keys()).cloned().collect();
        Self { names, swept: None }
    }

    /// Adds the accounts that some charges use.
    pub fn note(&mut self, ledger: &Ledger, charges: &[Charge]) {
        for charge in charges {
            if !self.names.contains(&charge.account) {
                self.names.insert(charge.account.clone());
                self.sweep(ledger);
            }
        }
    }

    /// Drops names whose accounts are gone: a few at a time, round and round.
    fn sweep(&mut self, ledger: &Ledger) {
        for _ in 0..SWEPT_FOR_ONE {
            let from = self.swept.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.names.range::<AccountPath, _>((from, Bound::Unbounded)).next().cloned();
            if let Some(name) = next.as_ref().filter(|name| !ledger.has_account(name)) {
                self.names.remove(name);
            }
            self.swept = next;
        }
    }

    /// How many there are; some of them may be out of use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The accounts asked for, in the order of their paths, and the last that was looked at if
    /// there may be more behind it. Accounts that are named come in the order of naming, and all at
    /// once; the caller bounds their number.
    #[must_use]
    pub fn page(
        &self,
        ledger: &Ledger,
        accounts: &Accounts,
    ) -> (Vec<AccountUse>, Option<AccountPath>) {
        let (prefix, after, most) = match accounts {
            Accounts::Named(named) => {
                let named = named.iter().filter_map(|account| ledger.account_use(account));
                return (named.collect(), None);
            }
            Accounts::Under { prefix, after, most } => (prefix, after, (*most).min(MAX_USAGE_PAGE)),
        };
        // The prefix itself comes before everything below it, but not next to it: `-` and `.` are
        // less than `/`.
        let below = prefix.as_ref().map(|prefix| format!("{prefix}/"));
        let own = prefix.as_ref().filter(|prefix| after.as_ref().is_none_or(|it| it < *prefix));
        let own = own.and_then(|prefix| self.names.get(prefix));
        let from = match (after.as_ref().map(AccountPath::as_str), below.as_deref()) {
            (Some(after), Some(below)) if after < below => Bound::Included(below),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(below)) => Bound::Included(below),
            (None, None) => Bound::Unbounded,
        };
        let fits = |name: &&AccountPath| {
            below.as_deref().is_none_or(|below| name.as_str().starts_with(below))
        };
        // The accounts of leases come and go with every lease: they are told where they are asked
        // for.
        let (leases, behind) = (format!("{LEASE_ACCOUNTS}/"), format!("{LEASE_ACCOUNTS}0"));
        let is_skipped = below.is_none();
        let until = if is_skipped { Bound::Excluded(&*leases) } else { Bound::Unbounded };
        let before = match from {
            Bound::Included(from) | Bound::Excluded(from) if is_skipped && from >= &*leases => None,
            _ => Some(self.names.range::<str, _>((from, until))),
        };
        let from = match from {
            Bound::Excluded(from) if from >= &*behind => Bound::Excluded(from),
            _ => Bound::Included(&*behind),
        };
        let rest = self.names.range::<str, _>((from, Bound::Unbounded));
        let rest = before
            .into_iter()
            .flatten()
            .chain(Some(rest).filter(|_| is_skipped).into_iter().flatten());
        let mut names = own.into_iter().chain(rest.take_while(fits));
        let (mut page, mut last) = (Vec::new(), None);
        for name in names.by_ref().take(most) {
            page.extend(ledger.account_use(name));
            last = Some(name);
        }
        let more = names.next().is_some();
        (page, last.filter(|_| more).cloned())
    }
}

impl Ledger {
    /// Use of an account now; `None` if nothing was ever charged to it or a level account is empty.
    #[must_use]
    pub fn account_use(&self, account: &AccountPath) -> Option<AccountUse> {
        let (kind, unit) = match (self.accounts.get(account), self.nodes.get(account)) {
            (Some(Account::Level(unit, _)), _) => (AccountKind::Level, *unit),
            (Some(Account::Budget(unit, _)), _) => (AccountKind::Budget, *unit),
            (None, Some(node)) => (AccountKind::Level, node.own.unit),
            (None, None) => return None,
        };
        let used = self.usage(account).unwrap_or(0);
        Some(AccountUse { account: account.clone(), kind, unit, used })
    }

    /// Accounts that have an entry: those of budgets that were ever charged, levels that hold
    /// something now or later, and those in trees of quotas.
    #[must_use]
    pub fn account_count(&self) -> usize {
        let idle = self.nodes.keys().filter(|path| !self.accounts.contains_key(*path)).count();
        self.accounts.len().saturating_add(idle)
    }

    fn has_account(&self, path: &AccountPath) -> bool {
        self.accounts.contains_key(path) || self.nodes.contains_key(path)
    }

    /// Up to `most` reservations that are held and fit, in the order in which they end by
    /// themselves, behind a place in that order; and the last place that was looked at if there
    /// may be more behind it.
    #[must_use]
    pub fn reservations(
        &self,
        filter: &Filter,
        after: Option<&Due>,
        most: usize,
    ) -> (Vec<Reservation>, Option<Due>) {
        let most = most.min(MAX_RESERVATIONS_PAGE);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut due = self.due.range::<Due, _>((from, Bound::Unbounded));
        let (mut page, mut charges, mut last) = (Vec::new(), 0_usize, None);
        for place in due.by_ref().take(MAX_LOOKED_AT) {
            last = Some(place);
            let Some(found) = self.live.get(&place.1).filter(|it| filter.fits(it)) else {
                continue;
            };
            let own = found.terms().map(|(_, _, charges)| charges.len());
            charges = own.fold(charges, usize::saturating_add);
            page.push(found.clone());
            if page.len() >= most || charges >= MAX_PAGE_CHARGES {
                break;
            }
        }
        let more = due.next().is_some();
        (page, last.filter(|_| more).cloned())
    }
}

#[cfg(test)]
mod tests {
    use placet_core::MAX_AMOUNT;

    use super::super::Booking;
    use super::*;

    fn path(text: &str) -> AccountPath {
        AccountPath::new(text).unwrap()
    }

    fn book(ledger: &mut Ledger, names: &mut AccountNames, number: usize, accounts: &[&str]) {
        let charge = |account: &&str| Charge {
            account: path(account),
            amount: 3,
            kind: AccountKind::Level,
            limit: MAX_AMOUNT,
            unit: Unit::MilliGpu,
        };
        let now = ledger.now();
        let booking = Booking {
            id: Id::new(format!("rsv-{number:05}")).unwrap(),
            tenant: Id::new(if number.is_multiple_of(2) { "even" } else { "odd" }).unwrap(),
            caller: Id::new("scheduler").unwrap(),
            class: placet_core::PriorityClass::ExternalCommercial,
            work: crate::quota::tests::work(1_000),
            start: now,
            end: now + 100,
            confirm_by: now + 10,
            charges: accounts.iter().map(charge).collect(),
            terms: None,
        };
        let charges = ledger.reserve(booking).unwrap().booking.charges;
        names.note(ledger, &charges);
    }

    fn under(prefix: &str, after: Option<AccountPath>, most: usize) -> Accounts {
        let prefix = (!prefix.is_empty()).then(|| path(prefix));
        Accounts::Under { prefix, after, most }
    }

    #[test]
    fn a_prefix_is_whole_segments_and_pages_join_without_a_seam() {
        let (mut ledger, mut names) = (Ledger::default(), AccountNames::default());
        let all = ["t/a", "t/a-b", "t/a-b/gpu", "t/a.b", "t/a/fabric", "t/a/gpu", "t/a0", "u"];
        book(&mut ledger, &mut names, 1, &all);
        for (prefix, expected) in [
            ("", &all[..]),
            ("t/a", &["t/a", "t/a/fabric", "t/a/gpu"]),
            ("t/a/gpu", &["t/a/gpu"]),
            ("t/a-b", &["t/a-b", "t/a-b/gpu"]),
            ("v", &[]),
        ] {
            for most in 1..=9 {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let (page, next) = names.page(&ledger, &under(prefix, after, most));
                    assert!(page.len() <= most);
                    found.extend(page.into_iter().map(|it| it.account.to_string()));
                    match next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
                assert_eq!(found, expected, "{prefix} by {most}");
            }
        }
        book(&mut ledger, &mut names, 2, &["lease", "lease/a", "lease/b", "lease0", "lease-a"]);
        let mut others = [&["lease", "lease-a", "lease0"], &all[..]].concat();
        others.sort_unstable();
        for (prefix, expected) in [("", &others[..]), ("lease", &["lease", "lease/a", "lease/b"])] {
            for most in 1..=12 {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let (page, next) = names.page(&ledger, &under(prefix, after, most));
                    found.extend(page.into_iter().map(|it| it.account.to_string()));
                    match next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
                assert_eq!(found, expected, "{prefix} by {most}");
            }
        }
        let named = Accounts::Named(vec![path("u"), path("nothing"), path("t/a")]);
        let (found, next) = names.page(&ledger, &named);
        let found: Vec<_> = found.iter().map(|it| (it.account.as_str(), it.used)).collect();
        assert_eq!((found, next), (vec![("u", 3), ("t/a", 3)], None));
    }

    #[test]
    fn names_of_accounts_that_are_gone_are_dropped() {
        let (mut ledger, mut names) = (Ledger::default(), AccountNames::default());
        for number in 0..10_000 {
            // Each holds an account of its own for ten seconds: a hundred are in use at a time.
            book(&mut ledger, &mut names, number, &["kept", &format!("held/{number}")]);
            if number.is_multiple_of(10) {
                let now = ledger.now();
                ledger.advance(now + 1).unwrap();
            }
        }
        assert!(ledger.account_count() <= 102, "{}", ledger.account_count());
        assert!(names.len() <= 4 * ledger.account_count(), "{}", names.len());
        let (page, _) = names.page(&ledger, &under("", None, MAX_USAGE_PAGE));
        assert_eq!(page.len(), ledger.account_count(), "and none that is in use");
        assert_eq!(AccountNames::of(&ledger).len(), ledger.account_count());
    }

    #[test]
    fn a_page_of_reservations_is_bounded_by_every_measure() {
        let (mut ledger, mut names) = (Ledger::default(), AccountNames::default());
        for number in 0..3_000 {
            let rare = if number == 2_999 { &["a", "rare"][..] } else { &["a"] };
            book(&mut ledger, &mut names, number, rare);
        }
        let all = Filter::default();
        let (page, next) = ledger.reservations(&all, None, usize::MAX);
        assert_eq!(page.len(), MAX_RESERVATIONS_PAGE);
        let (second, _) = ledger.reservations(&all, next.as_ref(), 1);
        assert_eq!(second[0].booking.id.as_str(), "rsv-00500", "in order, and without a seam");

        let rare = Filter { account: Some(path("rare")), ..Filter::default() };
        let (page, next) = ledger.reservations(&rare, None, 1);
        assert!(page.is_empty() && next.is_some(), "not everything is looked at for one page");
        let (page, next) = ledger.reservations(&rare, next.as_ref(), 1);
        assert_eq!((page.len(), next), (1, None));
        let odd = Filter { tenant: Id::new("odd").ok(), ..Filter::default() };
        let (page, _) = ledger.reservations(&odd, None, 100);
        assert!(page.iter().all(|it| it.booking.tenant.as_str() == "odd"));
        let active = Filter { state: Some(ReservationState::Active), ..Filter::default() };
        assert!(ledger.reservations(&active, None, 100).0.is_empty());
        ledger.confirm(&page[0].booking.id, 1).unwrap();
        let (page, next) = ledger.reservations(&active, None, 100);
        assert!(page.is_empty() && next.is_some(), "it ends behind those that wait");
        let (page, next) = ledger.reservations(&active, next.as_ref(), 100);
        assert_eq!((page.len(), next), (1, None));

        let (mut ledger, mut names) = (Ledger::default(), AccountNames::default());
        let many: Vec<String> = (0..200).map(|number| format!("a/{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for number in 0..20 {
            book(&mut ledger, &mut names, number, &many);
        }
        let (page, next) = ledger.reservations(&all, None, 100);
        assert_eq!((page.len(), next.is_some()), (11, true), "2,200 charges fill a page");
    }
}
