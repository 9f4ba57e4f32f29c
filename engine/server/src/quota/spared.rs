//! Who is spared, and when others may go: what the policy's rule says beyond classes, what victims
//! were promised at their own admission, and what tenants lost before.
//!
//! None of it can make a loop of preemptions. Who may displace whom follows from the classes alone,
//! and every eviction that takes effect takes one away of those that may be displaced; promises,
//! protected tenants and the cool-down only make fewer sets of victims allowed.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::{AccountKind, Id, MAX_DURATION_SECONDS, PreemptionRule};

use super::preempt::MAX_LOOKED_AT;
use super::{Booking, Defect, Ledger, Reservation};

/// Most seconds at which a preemptor may begin that are tried, one of them after the rule's grace:
/// each is a search for victims. The others are longer notices, of which there are as many as
/// service levels that were sold.
pub const MAX_STARTS_TRIED: usize = 8;
/// Most tenants whose last eviction is remembered, at some 100 bytes each: more than facts can
/// name. Of more, those evicted longest ago are forgotten.
pub(super) const MAX_TENANTS_EVICTED: usize = 131_072;

/// When each tenant last lost work by an eviction that took effect.
#[derive(Debug, Default)]
pub(super) struct LastEvictions {
    by_tenant: BTreeMap<Id, u64>,
    /// The same, the longest ago first.
    by_time: BTreeSet<(u64, Id)>,
}

impl LastEvictions {
    /// In the order of the tenants.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Id, u64)> {
        self.by_tenant.iter().map(|(tenant, at)| (tenant, *at))
    }

    pub(super) fn len(&self) -> usize {
        self.by_tenant.len()
    }

    pub(super) fn of(&self, tenant: &Id) -> Option<u64> {
        self.by_tenant.get(tenant).copied()
    }

    // INVARIANT: both say the same: they change here and nowhere else.
    pub(super) fn replace(&mut self, tenant: Id, at: Option<u64>) -> Option<u64> {
        let old = match at {
            Some(at) => self.by_tenant.insert(tenant.clone(), at),
            None => self.by_tenant.remove(&tenant),
        };
        if let Some(old) = old {
            self.by_time.remove(&(old, tenant.clone()));
        }
        if let Some(at) = at {
            self.by_time.insert((at, tenant));
        }
        old
    }

    /// The first to be forgotten: what was so long ago that no cool-down reaches it, or too many.
    fn forgettable(&self, now: u64) -> Option<Id> {
        let (at, tenant) = self.by_time.first()?;
        let is_over = at.saturating_add(MAX_DURATION_SECONDS) <= now;
        (is_over || self.len() > MAX_TENANTS_EVICTED).then(|| tenant.clone())
    }
}

impl Ledger {
    /// Remembers that a tenant loses work at a second, now that it is settled.
    pub(super) fn note_eviction(&mut self, tenant: &Id, at: u64) {
        let last = self.evicted.of(tenant).map_or(at, |last| last.max(at));
        self.set_evicted(tenant.clone(), Some(last));
        while let Some(tenant) = self.evicted.forgettable(self.now) {
            self.set_evicted(tenant, None);
        }
    }

    /// Whether a rule allows to displace a reservation at all, at whatever second.
    pub(super) fn names(&self, rule: &PreemptionRule, held: &Reservation) -> bool {
        let class = rule.victim_classes.contains(&held.booking.class)
            || self.breaks(Defect::VictimClassesIgnored);
        let is_protected = rule.protected_tenants.contains(&held.booking.tenant)
            && !self.breaks(Defect::ProtectedDisplaced);
        class && !is_protected
    }

    /// Whether a tenant lost work so shortly before a second that it is spared.
    pub(super) fn is_spared(&self, rule: &PreemptionRule, tenant: &Id, at: u64) -> bool {
        let cool_down = u64::from(rule.cool_down_seconds);
        let is_recent = |last: u64| at.saturating_sub(last) < cool_down;
        self.evicted.of(tenant).is_some_and(is_recent) && !self.breaks(Defect::CoolDownIgnored)
    }

    /// Whether a reservation gets what it was promised if it makes room for a booking.
    pub(super) fn keeps_promise(&self, held: &Reservation, booking: &Booking) -> bool {
        let terms = held.booking.terms.unwrap_or_default();
        let ran = booking.start.saturating_sub(held.booking.start);
        let notice = booking.start.saturating_sub(self.now);
        (ran >= terms.min_runtime_seconds.into() || self.breaks(Defect::PromisedRuntimeIgnored))
            && (notice >= terms.notice_seconds.into() || self.breaks(Defect::NoticeIgnored))
    }

    /// Whether a rule allows that all of these make room for a booking. What was decided once is
    /// held against this when the log is folded.
    pub(crate) fn allows(
        &self,
        rule: &PreemptionRule,
        booking: &Booking,
        victims: &BTreeSet<Id>,
    ) -> bool {
        let mut by_tenant: BTreeMap<&Id, usize> = BTreeMap::new();
        let latest = self.latest_start(rule, booking);
        let may_go = |id: &Id| {
            let held = self.live.get(id)?;
            let count = by_tenant.entry(&held.booking.tenant).or_default();
            *count = count.saturating_add(1);
            let is_named = self.names(rule, held) && held.booking.start <= latest;
            let at = booking.start;
            (is_named && !self.is_spared(rule, &held.booking.tenant, at)).then_some(())
        };
        victims.iter().map(may_go).all(|it| it.is_some())
            && victims.len() <= self.most(rule)
            && by_tenant.values().all(|count| *count <= self.most_of_tenant(rule))
    }

    /// The later starts that help where nobody can make room after the rule's grace: the
    /// longer notices of whom the rule names on the accounts that a booking charges, added to now,
    /// the soonest first.
    pub(crate) fn later_starts(&self, rule: &PreemptionRule, booking: &Booking) -> BTreeSet<u64> {
        let mut starts = BTreeSet::new();
        let levels = booking.charges.iter().filter(|charge| charge.kind == AccountKind::Level);
        for those in levels.filter_map(|charge| self.displaceable.get(&charge.account)) {
            for (_, id) in those.iter().rev().take(MAX_LOOKED_AT) {
                let may_go = |held: &&Reservation| {
                    self.names(rule, held) && self.may_displace(booking.class, held)
                };
                let held = self.live.get(id).filter(may_go);
                let terms = held.and_then(|held| held.booking.terms);
                let notice = terms.map_or(0, |terms| u64::from(terms.notice_seconds));
                starts.insert(self.now.saturating_add(notice));
            }
        }
        let is_later =
            |start: &u64| *start > booking.start && !self.breaks(Defect::LongerNoticeNotTried);
        starts.into_iter().filter(is_later).collect()
    }
}
