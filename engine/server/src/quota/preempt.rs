//! Making room: who has to go so that a booking fits, and when it takes effect.
//!
//! The preemptor's booking begins when its victims have to be gone. Until it is confirmed nothing
//! is taken from them: on an account that they charge too, the preemptor holds only what it needs
//! beyond the rest of their intervals. So use is at most the limit at every second, whether it is
//! confirmed or not, and nobody else gets the room in between. When it is confirmed, the victims'
//! intervals are cut and the preemptor holds all of its charges, in one step.
//!
//! Victims are of a class that may never displace anybody ([`PriorityClass::may_displace`]), so
//! that no chain of preemptions comes back to where it was.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use placet_core::{
    AccountKind, AccountPath, Charge, Id, PreemptionRule, PriorityClass, ReservationState,
};

use super::cohorts::Segment;
use super::reserve::check_booking;
use super::timeline::{Broken, Timeline};
use super::{Booking, Defect, FIRST_EPOCH, Ledger, Refusal, Reservation, ReserveError};

/// Most victims of one preemption, whatever a policy allows: each stands in the signed decision.
pub const MAX_VICTIMS: usize = 64;
/// Most reservations that are looked at as victims: those that began last, which have the least
/// work to lose.
const MAX_CANDIDATES: usize = 512;
/// Most of them that are of one tenant, where only so many of a tenant may go: they must not hide
/// those of others.
const MAX_CANDIDATES_OF_TENANT: usize = 64;
/// Most reservations that are looked at on one account for whether they may go at all.
pub(super) const MAX_LOOKED_AT: usize = 4_096;
/// Most work of one search, in what victims charge that is tried on the books, stretch by stretch:
/// a few milliseconds of the one writer.
const MAX_WORK: usize = 8_192;
/// What trying a set costs beside its victims.
const TRY: usize = 16;
/// Most work of trying all of them at once, in stretches of what they charge: the costliest are
/// left out where it would be more. Enough for 512 with 16 charges each.
const MAX_TRY: usize = 8_192;
/// Most work of sparing whom the first sets need not have: enough for 8 victims with as many
/// charges as there can be, so that of so few nobody goes for nothing.
const MAX_SPARING: usize = 20_480;

/// What a victim is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The reservation that it makes room for.
    pub preemptor: Id,
    /// First second at which it must be gone.
    pub at: u64,
    /// Whether the preemptor was confirmed: the victim has a new epoch and ends then.
    pub effective: bool,
}

/// What a preemptor holds until it is confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In the order of their names.
    pub(super) victims: BTreeSet<Id>,
    /// By account that a victim charges too: what is held beyond the rests of the victims.
    pub(super) parts: Parts,
}

/// For accounts that victims charge too.
pub(super) type Parts = BTreeMap<AccountPath, Vec<Part>>;

/// A part of the preemptor's interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: u64,
    pub(super) end: u64,
    /// What the preemptor charges beyond what the victims leave.
    pub(super) needed: u64,
    /// What they leave beyond that: 0 if anything is needed.
    pub(super) left: u64,
}

/// A reservation that may have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    id: Id,
    /// Number of its tenant among those of the candidates.
    tenant: usize,
    /// Work that would be lost: thousandths of a GPU times seconds since its start.
    lost: u128,
}

impl Ledger {
    /// Reservations that have to make room for this one when it is confirmed, or had to.
    pub(crate) fn victims(&self, id: &Id) -> Vec<Id> {
        let plan = self.live.get(id).and_then(|held| held.plan.as_ref());
        plan.map(|plan| plan.victims.iter().cloned().collect()).unwrap_or_default()
    }

    /// The reservation of that name, while it is held.
    #[must_use]
    pub fn held(&self, id: &Id) -> Option<&Reservation> {
        self.live.get(id)
    }

    /// Finds out who has to make room for a booking that begins when they are gone, and holds it.
    ///
    /// Of all sets of victims that the rule allows, the one with the least work lost (GPUs times
    /// seconds since the start, up to when they have to be gone), then the fewest victims. The
    /// search is cut short after a few milliseconds' work; what is found then may not be the best.
    /// Victims are confirmed reservations that the rule names: of its classes, of tenants that it
    /// does not protect and that did not lose work shortly before, that have had the minimum run
    /// time when they have to be gone, and their notice, both as they were promised at least.
    ///
    /// # Errors
    /// As [`Ledger::reserve`]: `Refused` if no set of victims makes room.
    pub fn preempt(
        &mut self,
        booking: &Booking,
        rule: &PreemptionRule,
    ) -> Result<Reservation, ReserveError> {
        let refusals = match self.displace(booking.clone(), &BTreeSet::new()) {
            Err(ReserveError::Refused(refusals)) => refusals,
            other => return other,
        };
        let candidates = self.candidates(booking, rule, &refusals);
        let most = (self.most(rule), self.most_of_tenant(rule));
        let Some(victims) = self.choose(booking, &candidates, most)? else {
            return Err(ReserveError::Refused(refusals));
        };
        self.displace(booking.clone(), &victims)
    }

    /// Holds a booking that takes effect at the expense of others, once it is confirmed.
    ///
    /// # Errors
    /// As [`Ledger::reserve`]; `Malformed` if one of the victims cannot be displaced by it.
    pub fn displace(
        &mut self,
        booking: Booking,
        victims: &BTreeSet<Id>,
    ) -> Result<Reservation, ReserveError> {
        check_booking(&booking, self.now)?;
        if self.knows(&booking.id) {
            return Err(ReserveError::Malformed("has a name that was used before"));
        }
        let wrong = |id: &Id| !self.live.get(id).is_some_and(|held| self.may_go(held, &booking));
        if victims.len() > MAX_VICTIMS || victims.iter().any(wrong) {
            return Err(ReserveError::Malformed("displaces what it cannot displace"));
        }
        self.check_lease(&booking)?;
        if !victims.is_empty() && booking.confirm_by > booking.start {
            return Err(ReserveError::Malformed("may be confirmed after its victims have to go"));
        }
        let parts = self.parts(&booking, victims).map_err(|Broken| ReserveError::Broken)?;
        self.hold(&booking, &parts, true)?;
        for id in victims {
            let Some(mut victim) = self.live.get(id).cloned() else { continue };
            if self.breaks(Defect::CoolDownFromOrder) {
                self.note_eviction(&victim.booking.tenant, booking.start);
            }
            let order =
                Order { preemptor: booking.id.clone(), at: booking.start, effective: false };
            victim.order = Some(order);
            self.set_live(id.clone(), Some(victim));
        }
        let plan = Plan { victims: victims.clone(), parts };
        let reservation = Reservation {
            booking,
            extensions: Vec::new(),
            epoch: FIRST_EPOCH,
            state: ReservationState::Reserved,
            since: self.now,
            order: None,
            cut: None,
            plan: (!plan.victims.is_empty()).then_some(plan),
        };
        self.set_live(reservation.booking.id.clone(), Some(reservation.clone()));
        if self.breaks(Defect::EvictionUnconfirmed) {
            let cut = victims.iter().try_for_each(|id| self.cut(id));
            cut.map_err(|Broken| ReserveError::Broken)?;
        }
        Ok(reservation)
    }

    /// Cuts the victims of a reservation that is confirmed, and gives it the room.
    pub(super) fn take_effect(&mut self, reservation: &mut Reservation) -> Result<(), Broken> {
        if reservation.plan.is_none() {
            return Ok(());
        }
        self.book_out(reservation)?;
        let Some(plan) = reservation.plan.take() else { return Err(Broken) };
        for id in &plan.victims {
            self.cut(id)?;
        }
        let (start, end) = (reservation.booking.start, reservation.booking.end);
        for charge in &reservation.booking.charges {
            if charge.kind == AccountKind::Level {
                self.shift(charge, Segment { start, end, amount: charge.amount }, true)?;
            }
        }
        Ok(())
    }

    /// Cuts one victim.
    fn cut(&mut self, id: &Id) -> Result<(), Broken> {
        let mut victim = self.live.get(id).cloned().ok_or(Broken)?;
        let order = victim.order.as_mut().ok_or(Broken)?;
        if self.breaks(Defect::EvictionOrderIgnored) {
            victim.order = None;
            self.set_live(id.clone(), Some(victim));
            return Ok(());
        }
        order.effective = true;
        victim.epoch = victim.epoch.checked_add(1).ok_or(Broken)?;
        let at = order.at;
        self.note_eviction(&victim.booking.tenant, at);
        let is_short = self.breaks(Defect::EvictionOfFirstTerm);
        let first = victim.booking.start;
        for (start, end, charges) in victim.terms().filter(|term| term.0 == first || !is_short) {
            for charge in charges.iter().filter(|one| one.kind == AccountKind::Level) {
                let part = Segment { start: start.max(at), end, amount: charge.amount };
                self.shift(charge, part, false)?;
            }
        }
        let victim = self.spoil_victim(victim);
        self.set_live(id.clone(), Some(victim));
        Ok(())
    }

    /// Called before a reservation ends: an announcement that it made is taken back, and of one
    /// that was made to it the preemptor takes over the room.
    pub(super) fn before_end(&mut self, reservation: &Reservation) -> Result<(), Broken> {
        if let Some(plan) = &reservation.plan {
            for id in &plan.victims {
                if self.breaks(Defect::LostPlanEvicts) {
                    self.cut(id)?;
                    continue;
                }
                let mut victim = self.live.get(id).cloned().ok_or(Broken)?;
                victim.order = None;
                self.set_live(id.clone(), Some(victim));
            }
        }
        self.spoil_victims_of(reservation);
        Ok(())
    }

    /// Called after a reservation has left the accounts: a preemptor that waits for it to go holds
    /// the room now.
    pub(super) fn after_end(&mut self, reservation: &Reservation) -> Result<(), Broken> {
        let Some(order) = reservation.order.as_ref().filter(|order| !order.effective) else {
            return Ok(());
        };
        let mut preemptor = self.live.get(&order.preemptor).cloned().ok_or(Broken)?;
        let mut plan = preemptor.plan.clone().ok_or(Broken)?;
        plan.victims.remove(&reservation.booking.id);
        if self.breaks(Defect::VictimRoomNotTaken) || self.breaks(Defect::PlanHoldsNothing) {
            preemptor.plan = Some(plan);
            self.set_live(order.preemptor.clone(), Some(preemptor));
            return Ok(());
        }
        let before = plan.parts.clone();
        plan.parts = self.parts(&preemptor.booking, &plan.victims)?;
        for charge in &preemptor.booking.charges {
            let term = (preemptor.booking.start, preemptor.booking.end);
            let old = footprint(term, charge, before.get(&charge.account));
            let new = footprint(term, charge, plan.parts.get(&charge.account));
            if charge.kind == AccountKind::Level && old != new {
                for part in old {
                    self.shift(charge, part, false)?;
                }
                for part in new {
                    self.shift(charge, part, true)?;
                }
            }
        }
        preemptor.plan = (!plan.victims.is_empty()).then_some(plan);
        self.set_live(order.preemptor.clone(), Some(preemptor));
        Ok(())
    }

    /// What a booking needs beyond what victims leave, on the accounts that both charge.
    fn parts(&self, booking: &Booking, victims: &BTreeSet<Id>) -> Result<Parts, Broken> {
        let places = places(booking);
        let rests = |id: &Id| Ok(rests_of(booking, &places, self.live.get(id).ok_or(Broken)?));
        let rests: Vec<Rests> = victims.iter().map(rests).collect::<Result<_, Broken>>()?;
        parts_of(booking, &rests.iter().collect::<Vec<_>>())
    }

    fn candidates(
        &self,
        booking: &Booking,
        rule: &PreemptionRule,
        refusals: &[Refusal],
    ) -> Vec<Candidate> {
        let mut found: BTreeMap<&Id, Candidate> = BTreeMap::new();
        // Room in a cohort, or in a budget, is not made by sending others away.
        let direct = refusals.iter().all(|refusal| {
            let level = booking.charges.get(refusal.index);
            refusal.binding == refusal.account
                && level.is_some_and(|charge| charge.kind == AccountKind::Level)
        });
        if !direct {
            return Vec::new();
        }
        let latest = self.latest_start(rule, booking);
        let mut tenants: BTreeMap<&Id, (usize, usize)> = BTreeMap::new();
        for refusal in refusals {
            let Some(those) = self.displaceable.get(&refusal.account) else { continue };
            // The first name that there can be, so that none of the next second is among them.
            let first = Id::new("0").expect("a digit is an id");
            let began = those.range(..(latest.saturating_add(1), first));
            for (start, id) in began.rev().take(MAX_LOOKED_AT) {
                if found.len() == MAX_CANDIDATES {
                    break;
                }
                let Some(held) = self.live.get(id) else { continue };
                let own = &held.booking.tenant;
                let is_named = self.names(rule, held) && !self.is_spared(rule, own, booking.start);
                if !is_named || !self.may_go(held, booking) || found.contains_key(id) {
                    continue;
                }
                let next = tenants.len();
                let (tenant, count) = tenants.entry(own).or_insert((next, 0));
                if rule.max_victims_per_tenant.is_some() && *count == MAX_CANDIDATES_OF_TENANT {
                    continue;
                }
                *count = count.saturating_add(1);
                let seconds = booking.start.saturating_sub(*start);
                let lost =
                    u128::from(held.booking.work.milli_gpus()).saturating_mul(u128::from(seconds));
                found.insert(id, Candidate { id: id.clone(), tenant: *tenant, lost });
            }
        }
        let mut all: Vec<Candidate> = found.into_values().collect();
        all.sort_by(|one, other| (one.lost, &one.id).cmp(&(other.lost, &other.id)));
        all
    }

    /// The latest start of a reservation that has had the rule's minimum run time when it has to
    /// make room for a booking.
    pub(super) fn latest_start(&self, rule: &PreemptionRule, booking: &Booking) -> u64 {
        let latest = booking.start.saturating_sub(u64::from(rule.min_runtime_seconds));
        self.spoil_began(booking, latest)
    }

    /// Most victims of one preemption.
    pub(super) fn most(&self, rule: &PreemptionRule) -> usize {
        let most = usize::try_from(rule.max_victims).unwrap_or(MAX_VICTIMS).min(MAX_VICTIMS);
        if self.breaks(Defect::MaxVictimsIgnored) { MAX_VICTIMS } else { most }
    }

    /// Most victims of one tenant.
    pub(super) fn most_of_tenant(&self, rule: &PreemptionRule) -> usize {
        let is_ignored = self.breaks(Defect::TenantVictimsIgnored);
        let most = rule.max_victims_per_tenant.filter(|_| !is_ignored);
        most.map_or(MAX_VICTIMS, |most| usize::try_from(most).unwrap_or(MAX_VICTIMS))
    }

    /// The best set of at most so many candidates, and of so many of one tenant, that makes room.
    fn choose(
        &mut self,
        booking: &Booking,
        candidates: &[Candidate],
        (most, of_tenant): (usize, usize),
    ) -> Result<Option<BTreeSet<Id>>, ReserveError> {
        let places = places(booking);
        let (mut rests, mut work) = (Vec::with_capacity(candidates.len()), 0_usize);
        for one in candidates {
            let own = self.live.get(&one.id).map(|held| rests_of(booking, &places, held));
            let own = own.unwrap_or_default();
            work = work.saturating_add(stretches(&own));
            if work > MAX_TRY {
                break;
            }
            rests.push(own);
        }
        let candidates = candidates.get(..rests.len()).unwrap_or_default();
        let all: Vec<usize> = (0..candidates.len()).collect();
        let mut search =
            Search { booking, candidates, rests, most, of_tenant, work: 0, best: None };
        if candidates.is_empty() || most == 0 || !search.fits(self, &all)? {
            return Ok(None);
        }
        // The cheapest first; then those that leave the most room, which takes fewer of them.
        let mut by_room = all.clone();
        by_room.sort_by_key(|at| {
            let held = search.candidates.get(*at).and_then(|one| self.live.get(&one.id));
            Reverse(held.map_or(0, |held| held.booking.work.milli_gpus()))
        });
        if self.breaks(Defect::BiggestVictims) {
            search.greedy(self, &by_room)?;
        } else {
            for order in [&all, &by_room] {
                search.greedy(self, order)?;
            }
            search.descend(self, &mut Vec::new(), 0)?;
            search.spare_best(self)?;
        }
        let best = search.best.map(|(_, chosen)| chosen);
        let name = |at: usize| candidates.get(at).map(|one| one.id.clone());
        Ok(best.map(|chosen| chosen.into_iter().filter_map(name).collect()))
    }

    /// Whether a held reservation may have to make room for a booking.
    fn may_go(&self, held: &Reservation, booking: &Booking) -> bool {
        self.may_displace(booking.class, held)
            && held.booking.start <= booking.start
            && held.end() > booking.start
            && self.keeps_promise(held, booking)
    }

    /// Whether a reservation is of a class that anybody may displace, and could be now.
    pub(super) fn displaceable(&self, held: &Reservation) -> bool {
        self.may_displace(PriorityClass::InternalResearch, held)
    }

    /// What runs inside a lease holds nothing but the lease: it makes no room.
    pub(super) fn may_displace(&self, class: PriorityClass, held: &Reservation) -> bool {
        (class.may_displace(held.booking.class) || self.breaks(Defect::AnyClassDisplaced))
            && held.state == ReservationState::Active
            && (held.order.is_none() || self.breaks(Defect::ToldTwice))
            && (held.booking.work.lease_id.is_none() || self.breaks(Defect::JobMakesRoom))
    }
}

/// Where a booking charges which level account.
type Places<'a> = BTreeMap<&'a AccountPath, usize>;

fn places(booking: &Booking) -> Places<'_> {
    let all = booking.charges.iter().enumerate();
    let levels = all.filter(|(_, charge)| charge.kind == AccountKind::Level);
    levels.map(|(at, charge)| (&charge.account, at)).collect()
}

/// What a victim would still charge the accounts of a booking from the booking's start on, by the
/// place of the booking's charge.
type Rests = BTreeMap<usize, Vec<Segment>>;

fn rests_of(booking: &Booking, places: &Places<'_>, victim: &Reservation) -> Rests {
    let mut rests = Rests::new();
    for (start, end, charges) in victim.terms().filter(|(_, end, _)| booking.start < *end) {
        for own in charges {
            let Some(at) = places.get(&own.account) else { continue };
            let rests = rests.entry(*at).or_default();
            match rests.last_mut() {
                // Stretches that go on alike are one.
                Some(last) if last.end == start && last.amount == own.amount => last.end = end,
                _ => {
                    let start = start.max(booking.start);
                    rests.push(Segment { start, end, amount: own.amount });
                }
            }
        }
    }
    rests
}

/// How many stretches there are to try.
fn stretches(rests: &Rests) -> usize {
    rests.values().map(Vec::len).sum()
}

/// What a booking needs beyond what victims leave, on the accounts that both charge.
fn parts_of(booking: &Booking, victims: &[&Rests]) -> Result<Parts, Broken> {
    let mut parts = Parts::new();
    for (place, charge) in booking.charges.iter().enumerate() {
        let mut rests = Timeline::default();
        for rest in victims.iter().filter_map(|victim| victim.get(&place)).flatten() {
            rests.add(rest.start, rest.end, rest.amount, &mut |_| {})?;
        }
        if rests.is_empty() {
            continue;
        }
        let mut at = booking.start;
        let mut list = Vec::new();
        while at < booking.end {
            let end = rests.next_change(at).unwrap_or(u64::MAX).min(booking.end);
            let rest = rests.level(at)?;
            list.push(Part {
                start: at,
                end,
                needed: charge.amount.saturating_sub(rest),
                left: rest.saturating_sub(charge.amount),
            });
            at = end;
        }
        parts.insert(charge.account.clone(), list);
    }
    Ok(parts)
}

/// What a charge holds, and when.
pub(super) fn footprint(
    (start, end): (u64, u64),
    charge: &Charge,
    parts: Option<&Vec<Part>>,
) -> Vec<Segment> {
    match parts {
        None => vec![Segment { start, end, amount: charge.amount }],
        Some(parts) => {
            let needed = parts.iter().filter(|part| part.needed > 0);
            let part =
                |part: &Part| Segment { start: part.start, end: part.end, amount: part.needed };
            needed.map(part).collect()
        }
    }
}

impl Reservation {
    /// When it is over: cut short if it has to make room.
    pub(crate) fn until(&self) -> u64 {
        let order = self.order.as_ref().filter(|order| order.effective);
        order.map_or(self.end(), |order| order.at)
    }

    /// Whether it waits for the room that one of its charges needs: victims hold it still.
    pub(super) fn waits(&self, charge: &Charge) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.parts.contains_key(&charge.account))
    }

    /// What each of its charges of level accounts holds, and when.
    pub(super) fn holdings(&self) -> impl Iterator<Item = (&Charge, Vec<Segment>)> {
        // INVARIANT: what waits for room is not confirmed, and so was never made longer.
        let parts = self.plan.as_ref().map(|plan| &plan.parts);
        let until = self.until();
        self.terms().flat_map(move |(start, end, charges)| {
            let levels = charges.iter().filter(|charge| charge.kind == AccountKind::Level);
            levels.map(move |charge| {
                let parts = parts.and_then(|parts| parts.get(&charge.account));
                let mut segments = footprint((start, end), charge, parts);
                for segment in &mut segments {
                    segment.end = segment.end.min(until);
                }
                (charge, segments)
            })
        })
    }
}

/// Looks for the best set of victims.
struct Search<'a> {
    booking: &'a Booking,
    candidates: &'a [Candidate],
    /// What each of them would leave, worked out once: they may have many stretches of time.
    rests: Vec<Rests>,
    most: usize,
    /// Most of one tenant.
    of_tenant: usize,
    work: usize,
    /// Work lost and number of victims, and who they are, in the order of the candidates.
    best: Option<((u128, usize), Vec<usize>)>,
}

impl Search<'_> {
    fn cost(&self, chosen: &[usize]) -> (u128, usize) {
        let lost = chosen.iter().filter_map(|at| self.candidates.get(*at)).map(|one| one.lost);
        (lost.fold(0, u128::saturating_add), chosen.len())
    }

    /// Whether the booking fits when these are gone. Nothing changes.
    fn fits(&mut self, ledger: &mut Ledger, chosen: &[usize]) -> Result<bool, ReserveError> {
        let victims: Vec<&Rests> = chosen.iter().filter_map(|at| self.rests.get(*at)).collect();
        let tried: usize = victims.iter().map(|rests| stretches(rests)).sum();
        let charges = self.booking.charges.len();
        self.work = self.work.saturating_add(TRY.max(charges)).saturating_add(tried);
        let parts = parts_of(self.booking, &victims).map_err(|Broken| ReserveError::Broken)?;
        let mark = ledger.mark();
        let held = ledger.hold(self.booking, &parts, false);
        ledger.undo(mark);
        match held {
            Ok(()) => Ok(true),
            Err(ReserveError::Refused(_) | ReserveError::Mismatch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, chosen: &[usize]) {
        let mut chosen = chosen.to_vec();
        chosen.sort_unstable();
        let cost = self.cost(&chosen);
        let better = self.best.as_ref().is_none_or(|(best, own)| (cost, &chosen) < (*best, own));
        if chosen.len() <= self.most && better && self.first_of_tenants(&chosen) == chosen {
            self.best = Some((cost, chosen));
        }
    }

    /// How many of these are of the tenant of another.
    fn of_tenant_of(&self, chosen: &[usize], one: usize) -> usize {
        let tenant = |at: usize| self.candidates.get(at).map(|one| one.tenant);
        chosen.iter().filter(|at| tenant(**at) == tenant(one)).count()
    }

    /// Of an order, those that may go together: the first so many of each tenant.
    fn first_of_tenants(&self, order: &[usize]) -> Vec<usize> {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        let mut first = order.to_vec();
        first.retain(|at| {
            let Some(one) = self.candidates.get(*at) else { return false };
            let count = counts.entry(one.tenant).or_default();
            *count = count.saturating_add(1);
            *count <= self.of_tenant
        });
        first
    }

    /// Takes them in an order until there is room, then spares whom it can.
    fn greedy(&mut self, ledger: &mut Ledger, order: &[usize]) -> Result<(), ReserveError> {
        let all = order.len();
        let order = &*self.first_of_tenants(order);
        // That all together make room says nothing of the first of each tenant.
        if order.len() < all && !self.fits(ledger, order)? {
            return Ok(());
        }
        // The shortest start of the order that makes room: adding one never takes room away.
        let (mut none, mut enough) = (0, order.len());
        while enough.saturating_sub(none) > 1 {
            let middle = none.midpoint(enough);
            if self.fits(ledger, order.get(..middle).unwrap_or_default())? {
                enough = middle;
            } else {
                none = middle;
            }
        }
        let mut chosen: Vec<usize> = order.get(..enough).unwrap_or_default().to_vec();
        chosen.sort_unstable();
        self.spare(ledger, chosen)
    }

    /// The best so far may be of a search that was cut short before it came to a part of it.
    fn spare_best(&mut self, ledger: &mut Ledger) -> Result<(), ReserveError> {
        match self.best.clone() {
            Some((_, chosen)) => self.spare(ledger, chosen),
            None => Ok(()),
        }
    }

    /// Spares whom it can of a set that makes room, the costliest first.
    fn spare(&mut self, ledger: &mut Ledger, mut chosen: Vec<usize>) -> Result<(), ReserveError> {
        // On a bound of its own: nobody is to go for nothing.
        let before = self.work;
        for spared in chosen.clone().into_iter().rev() {
            if self.work.saturating_sub(before) >= MAX_SPARING {
                break;
            }
            let without: Vec<usize> = chosen.iter().copied().filter(|one| *one != spared).collect();
            if self.fits(ledger, &without)? {
                chosen = without;
            }
        }
        self.work = before;
        self.note(&chosen);
        Ok(())
    }

    /// Tries all sets that may be better than the best so far: with and without each candidate from
    /// `next` on.
    fn descend(
        &mut self,
        ledger: &mut Ledger,
        chosen: &mut Vec<usize>,
        next: usize,
    ) -> Result<(), ReserveError> {
        let cost = self.cost(chosen);
        // One more victim costs at least as much as the next candidate.
        let cheapest = self.candidates.get(next).map_or(u128::MAX, |one| one.lost);
        let least = (cost.0.saturating_add(cheapest), cost.1.saturating_add(1));
        // Of sets that cost the same the first counts: with this candidate, if that is enough.
        let hopeless = self.best.as_ref().is_some_and(|(best, own)| {
            least > *best || (least == *best && [&**chosen, &[next]].concat() >= *own)
        });
        if next == self.candidates.len() || chosen.len() >= self.most || hopeless {
            return Ok(());
        }
        if self.work >= MAX_WORK {
            return Ok(());
        }
        let mut rest = chosen.clone();
        let more = next..self.candidates.len();
        rest.extend(more.filter(|one| self.of_tenant_of(chosen, *one) < self.of_tenant));
        if !self.fits(ledger, &rest)? {
            return Ok(());
        }
        if self.of_tenant_of(chosen, next) >= self.of_tenant {
            return self.descend(ledger, chosen, next.saturating_add(1));
        }
        chosen.push(next);
        if self.fits(ledger, chosen)? {
            self.note(chosen);
        } else {
            self.descend(ledger, chosen, next.saturating_add(1))?;
        }
        chosen.pop();
        self.descend(ledger, chosen, next.saturating_add(1))
    }
}

#[cfg(test)]
mod tests;
