//! The ledger checked from scratch: everything is worked out again from the reservations and
//! compared.

use std::collections::BTreeMap;

use placet_core::{AccountKind, AccountPath, Charge, Digest, Id};

use super::cohorts::{Segment, forest};
use super::timeline::Timeline;
use super::{Account, Defect, Ledger, Reservation};

/// What is wrong with the books.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger's books are wrong: {0}")]
pub struct AuditError(String);

fn wrong<T>(what: String) -> Result<T, AuditError> {
    Err(AuditError(what))
}

/// A charge, and what it holds of a level account.
type Held<'a> = (&'a Charge, Vec<Segment>);

impl Ledger {
    /// Works every account out again from the reservations, and checks every invariant.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn audit(&self) -> Result<(), AuditError> {
        self.audit_due()?;
        self.audit_trees()?;
        self.audit_jobs()?;
        if let Some(what) = self.audit_approved() {
            return wrong(what);
        }
        let mut held: BTreeMap<&AccountPath, Vec<Held<'_>>> = BTreeMap::new();
        // In no order: each account's are summed up, and a million need not be sorted for that.
        self.live.values().for_each(|reservation| {
            for (charge, parts) in reservation.holdings() {
                // What was displaced before it began holds nothing, though it is still there.
                let ahead = |part: &Segment| part.start.max(self.now) < part.end;
                if parts.iter().any(ahead) || reservation.waits(charge) {
                    held.entry(&charge.account).or_default().push((charge, parts));
                }
            }
            for charge in reservation.terms().flat_map(|(_, _, charges)| charges) {
                if charge.kind == AccountKind::Budget {
                    held.entry(&charge.account).or_default().push((charge, Vec::new()));
                }
            }
        });
        let accounts: BTreeMap<_, _> = self.accounts.iter().collect();
        for account in held.keys() {
            if !accounts.contains_key(account) {
                return wrong(format!("`{account}` is charged but has no entry"));
            }
        }
        for (path, account) in accounts {
            let charges = held.get(path).map(Vec::as_slice).unwrap_or_default();
            if charges.iter().any(|(charge, _)| !account.fits(charge.kind, charge.unit)) {
                return wrong(format!("`{path}` holds amounts of another kind or unit"));
            }
            match account {
                Account::Level(_, timeline) => self.audit_level(path, timeline, charges)?,
                Account::Budget(_, budget) => {
                    let sum = charges.iter().map(|(charge, _)| u128::from(charge.amount)).sum();
                    if u128::from(budget.held) != sum {
                        return wrong(format!("`{path}` holds {} of {sum}", budget.held));
                    }
                    // INVARIANT: what is charged and used of a budget is at most the limit it was
                    // admitted under.
                    if budget.held.saturating_add(budget.used) > budget.limit {
                        return wrong(format!("`{path}` is above its limit {}", budget.limit));
                    }
                }
            }
        }
        Ok(())
    }

    fn audit_jobs(&self) -> Result<(), AuditError> {
        let inside = self.live.iter().filter_map(|(id, held)| {
            let lease = held.booking.work.lease_id.as_ref()?;
            Some((lease, id, held))
        });
        let mut count = 0_usize;
        for (lease, id, job) in inside {
            count = count.saturating_add(1);
            if !self.inside.get(lease).is_some_and(|jobs| jobs.contains(id)) {
                return wrong(format!("`{id}` is not in the list of its lease"));
            }
            // INVARIANT: a job inside a lease runs while the lease is held, and no longer.
            let within = self.live.get(lease).is_some_and(|lease| {
                lease.booking.start <= job.booking.start
                    && (lease.until() >= job.until() || lease.order.is_some())
            });
            if !within {
                return wrong(format!("`{id}` runs outside its lease"));
            }
        }
        if count != self.inside.values().map(std::collections::BTreeSet::len).sum::<usize>() {
            return wrong("a job that is not held is in the list of a lease".to_owned());
        }
        Ok(())
    }

    fn audit_trees(&self) -> Result<(), AuditError> {
        let broken = |_| AuditError("a tree of quotas has a negative level".to_owned());
        let own = self.nodes.values().map(|node| node.own.clone());
        let lends_all = self.breaks(Defect::LendingLimitIgnored);
        let mut fresh = forest(own, lends_all).map_err(|error| AuditError(error.to_string()))?;
        self.fill(&mut fresh).map_err(broken)?;
        for ((path, own), fresh) in self.nodes.iter().zip(fresh.into_values()) {
            let mut own = own.clone();
            own.total.advance(self.now, &mut |_| {}).map_err(broken)?;
            let mut fresh = fresh;
            fresh.total.advance(self.now, &mut |_| {}).map_err(broken)?;
            // INVARIANT: an account with children holds what is charged to it and what flows up.
            if own != fresh {
                return wrong(format!("`{path}` does not hold what flows up to it"));
            }
        }
        Ok(())
    }

    fn audit_due(&self) -> Result<(), AuditError> {
        // INVARIANT: every live reservation is due exactly once, and nothing that is due lies in
        // the past.
        let due: Vec<_> = self.due.iter().map(|(at, id)| (*at, id)).collect();
        let mut expected: Vec<_> =
            self.live.iter().map(|(id, reservation)| (reservation.due(), id)).collect();
        expected.sort_unstable();
        if due != expected {
            return wrong("what is due is not what is held".to_owned());
        }
        if due.first().is_some_and(|(at, _)| *at <= self.now) {
            return wrong("something that is due lies in the past".to_owned());
        }
        // INVARIANT: an announcement stands with both, the preemptor and its victim.
        let orders = self.live.iter().filter_map(|(id, held)| {
            let order = held.order.as_ref().filter(|order| !order.effective)?;
            Some((&order.preemptor, id))
        });
        let mut orders: Vec<_> = orders.collect();
        orders.sort_unstable();
        let planning = self.live.iter().filter(|(_, held)| held.plan.is_some());
        let mut plans: Vec<(&Id, Id)> = planning
            .flat_map(|(id, _)| self.victims(id).into_iter().map(move |victim| (id, victim)))
            .collect();
        plans.sort_unstable();
        if orders != plans.iter().map(|(id, victim)| (*id, victim)).collect::<Vec<_>>() {
            return wrong("an announcement does not stand with both".to_owned());
        }
        if self.ended.len() != self.ended_order.len() {
            return wrong("an ended reservation has no place in their order".to_owned());
        }
        Ok(())
    }

    fn audit_level(
        &self,
        path: &AccountPath,
        timeline: &Timeline,
        charges: &[Held<'_>],
    ) -> Result<(), AuditError> {
        let broken = |_| AuditError(format!("`{path}` has a negative level"));
        let mut own = timeline.clone();
        let mut fresh = Timeline::default();
        let ignore = &mut |_| {};
        own.advance(self.now, ignore).map_err(broken)?;
        fresh.advance(self.now, ignore).map_err(broken)?;
        for (_, parts) in charges {
            for part in parts {
                let start = part.start.max(self.now);
                if start < part.end {
                    fresh.add(start, part.end, part.amount, ignore).map_err(broken)?;
                }
            }
        }
        // INVARIANT: the sum of what live reservations charge is the use, at every second.
        if own != fresh {
            return wrong(format!("`{path}` does not hold what its reservations charge"));
        }
        // When the limits of charges begin and end to count.
        let mut turns: Vec<(u64, bool, u64)> = Vec::new();
        for (charge, parts) in charges {
            for part in parts {
                let (start, end) = (part.start.max(self.now), part.end);
                if start < end {
                    turns.extend([(start, true, charge.limit), (end, false, charge.limit)]);
                }
            }
        }
        turns.sort_unstable_by_key(|(at, begins, limit)| (*at, !*begins, *limit));
        let (mut turns, mut limits) = (turns.into_iter().peekable(), BTreeMap::new());
        for (at, level) in own.levels().map_err(broken)? {
            while let Some((_, begins, limit)) = turns.next_if(|(turn, ..)| *turn <= at) {
                let count: &mut usize = limits.entry(limit).or_default();
                *count = if begins { count.saturating_add(1) } else { count.saturating_sub(1) };
                if *count == 0 {
                    limits.remove(&limit);
                }
            }
            // INVARIANT: use at any second is at most the highest limit that one of its charges was
            // admitted under.
            let limit = limits.last_key_value().map_or(0, |(limit, _)| *limit);
            if level > limit {
                return wrong(format!("`{path}` holds {level} of {limit} at {at}"));
            }
        }
        Ok(())
    }

    /// A digest over everything that settling and deciding depend on: equal for ledgers that behave
    /// alike.
    ///
    /// The time is left out: it may run ahead of what the store knows while nothing happens.
    #[must_use]
    pub fn state_digest(&self) -> Digest {
        let mut lines = Vec::new();
        for (id, held) in self.live_by_name() {
            lines.push(format!("live {id} {held:?}"));
        }
        for (number, id) in &self.ended_order {
            lines.push(format!("ended {number} {id} {:?}", self.ended.get(id)));
        }
        for (tenant, at) in self.evicted.iter() {
            lines.push(format!("evicted {tenant} {at}"));
        }
        for (path, node) in &self.nodes {
            lines.push(format!("node {path} {:?}", node.own));
        }
        let accounts: BTreeMap<_, _> = self.accounts.iter().collect();
        for (path, account) in accounts {
            lines.push(match account {
                // A level follows from the reservations; how much of its past is folded in does not
                // matter.
                Account::Level(unit, _) => format!("level {path} {unit:?}"),
                Account::Budget(unit, budget) => format!("budget {path} {unit:?} {budget:?}"),
            });
        }
        for (name, waiver) in &self.waivers {
            lines.push(format!("waiver {name} {waiver:?}"));
        }
        lines.push(format!("freezes {:?}", self.freezes));
        Digest::of(lines.join("\n").as_bytes())
    }

    /// Use of every account now, in the order of their paths.
    #[must_use]
    pub fn usages(&self) -> Vec<(AccountPath, AccountKind, u64)> {
        let kind = |account: &Account| match account {
            Account::Level(..) => AccountKind::Level,
            Account::Budget(..) => AccountKind::Budget,
        };
        let mut kinds: BTreeMap<&AccountPath, AccountKind> =
            self.nodes.keys().map(|path| (path, AccountKind::Level)).collect();
        kinds.extend(self.accounts.iter().map(|(path, account)| (path, kind(account))));
        let usage = |(path, kind): (&AccountPath, AccountKind)| {
            (path.clone(), kind, self.usage(path).unwrap_or(0))
        };
        kinds.into_iter().map(usage).collect()
    }

    fn live_by_name(&self) -> BTreeMap<&Id, &Reservation> {
        self.live.iter().collect()
    }
}
