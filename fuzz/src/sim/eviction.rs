//! Who has to make room for whom: every set of those that may go is tried, and what each would
//! leave is added up.

use std::collections::BTreeSet;
use std::rc::Rc;

use placet_core::{
    AccountKind, AccountPath, Charge, Effect, Event, Eviction, EvictionOrder, Id, PreemptionRule,
    PriorityClass, ReservationGrant, ReservationState,
};
use placet_server::sequencer::{Candidate, Proposal};

use super::books::{Books, Wanted};
use super::foretold::{Asked, Verdict};
use super::model::{Model, Refused, is_giant};
use super::reservation::Held;
use super::world::{AUDIENCE, ISSUER};

/// Up to so many candidates, the set that is chosen must be the best there is.
pub(super) const BEST_OF: usize = 8;
/// Up to so many candidates, every set is tried for whether there is one at all.
const ALL_OF: usize = 12;

/// Most longer notices that are tried.
const LATER: usize = 7;

/// What became of a try.
enum Tried {
    /// There is room, with these out of the way.
    Room(ReservationGrant, Vec<Eviction>),
    /// There is none for these charges.
    NoRoom(Vec<Charge>),
    /// There cannot be any.
    Never,
}

/// Whom a candidate may displace.
fn rule_of(candidate: &Candidate) -> Option<&PreemptionRule> {
    let outcome = &candidate.outcome;
    outcome.preemption.as_ref().filter(|_| outcome.effect == Effect::Permit)
}

/// What is lost, in thousandths of a GPU times seconds, and how many lose it.
type Cost = (u64, usize);

/// A question of who goes.
struct Search<'a> {
    books: Books<'a>,
    grant: &'a ReservationGrant,
    candidates: Vec<&'a Held>,
    /// Most that may go.
    most: usize,
    /// Most of one tenant.
    most_of_tenant: usize,
}

impl<'a> Search<'a> {
    fn is_room(&self, victims: &[&Held]) -> bool {
        let (charges, when) = (self.grant.charges.clone(), [self.grant.start, self.grant.end]);
        self.books.is_room(&Wanted { charges, when, victims: victims.to_vec() })
    }

    fn cost(&self, victims: &[&Held]) -> Cost {
        let lost = |held: &&Held| held.work.milli_gpus() * (self.grant.start - held.grant.start);
        (victims.iter().map(lost).sum(), victims.len())
    }

    /// The set with the least lost, of all sets.
    fn best(&self) -> Option<Vec<&'a Held>> {
        let mut sets = vec![Vec::new()];
        for held in &self.candidates {
            let smaller = sets.iter().filter(|set: &&Vec<_>| {
                set.len() < self.most && self.of_tenant(set, held) < self.most_of_tenant
            });
            let with: Vec<_> = smaller.map(|set| [&**set, &[*held]].concat()).collect();
            sets.extend(with);
        }
        sets.sort_by_key(|set| self.cost(set));
        sets.into_iter().find(|set| self.is_room(set))
    }

    /// A set from which nobody can be spared: those with the least to lose until there is room, and
    /// of each tenant not more than may go.
    fn thinned(&self) -> Option<Vec<&'a Held>> {
        let mut all = self.candidates.clone();
        all.sort_by_key(|held| (self.cost(&[held]), &held.grant.id));
        let mut set: Vec<&'a Held> = Vec::new();
        for held in all {
            if self.of_tenant(&set, held) < self.most_of_tenant {
                set.push(held);
            }
        }
        if !self.is_room(&set) {
            return None;
        }
        while let Some(spared) = self.spared(&set) {
            set.remove(spared);
        }
        Some(set).filter(|set| set.len() <= self.most)
    }

    /// The last of a set without whom there is room all the same.
    fn spared(&self, set: &[&Held]) -> Option<usize> {
        (0..set.len()).rev().find(|at| {
            let mut rest = set.to_vec();
            rest.remove(*at);
            self.is_room(&rest)
        })
    }

    /// Who goes. `named` is who is said to go, and from when on: taken if nothing speaks against
    /// it. With that, whether it could as well be others.
    fn choose(&self, named: Option<&(u64, BTreeSet<Id>)>) -> (Option<Vec<&'a Held>>, bool) {
        // One more that goes takes no room away.
        if self.candidates.is_empty() || !self.is_room(&self.candidates) {
            return (None, false);
        }
        let own_start =
            |named: &&(u64, BTreeSet<Id>)| named.0 == self.grant.start && !named.1.is_empty();
        let here = named.filter(own_start).map(|named| &named.1);
        // With many to choose from the search is cut short: where the cheapest that make room are
        // more than may go, a smaller set need not be found.
        let is_elsewhere = named.is_some() && here.is_none();
        if is_elsewhere && self.candidates.len() > BEST_OF && self.thinned().is_none() {
            return (None, false);
        }
        let own = if self.candidates.len() <= ALL_OF { self.best() } else { self.thinned() };
        let Some(named) = here else {
            let is_open = own.is_some() && self.candidates.len() > 1;
            return (own, is_open);
        };
        let set: Vec<&'a Held> =
            self.candidates.iter().copied().filter(|it| named.contains(&it.grant.id)).collect();
        let is_right = set.len() == named.len()
            && set.len() <= self.most
            && set.iter().all(|held| self.of_tenant(&set, held) <= self.most_of_tenant)
            && self.is_room(&set);
        let is_good = if self.candidates.len() <= BEST_OF {
            own.as_ref().is_some_and(|own| self.cost(own) == self.cost(&set))
        } else {
            self.spared(&set).is_none()
        };
        (if is_right && is_good { Some(set) } else { own }, false)
    }

    /// How many of a set are of the tenant of one.
    fn of_tenant(&self, set: &[&Held], one: &Held) -> usize {
        set.iter().filter(|held| held.tenant == one.tenant).count()
    }
}

impl Model {
    /// Admits a candidate at the expense of others, if that is asked for and allowed, and they make
    /// room: each after its grace, and then after longer notices, the shortest first.
    pub(super) fn displace<'a>(
        &mut self,
        proposal: &Proposal,
        candidates: &'a [Candidate],
    ) -> Refused<Option<(&'a Candidate, ReservationGrant, Vec<Eviction>)>> {
        let workload = proposal.request.subject.workload();
        if !workload.may_preempt || workload.start.is_some() || proposal.request.extends.is_some() {
            return Ok(None);
        }
        let mut later = Vec::new();
        for (number, candidate) in candidates.iter().enumerate() {
            let Some(rule) = rule_of(candidate) else { continue };
            let start = self.now + u64::from(rule.grace_seconds.max(1));
            match self.displace_at(proposal, candidate, start)? {
                Tried::Room(grant, evictions) => return Ok(Some((candidate, grant, evictions))),
                Tried::NoRoom(charges) => {
                    let notices = self.notices(proposal, rule, &charges);
                    let starts = notices.into_iter().map(|notice| self.now + notice);
                    later.extend(starts.filter(|at| *at > start).map(|at| (at, number)));
                }
                Tried::Never => {}
            }
        }
        later.sort_unstable();
        later.dedup();
        for (start, number) in later.into_iter().take(LATER) {
            let tried = self.displace_at(proposal, &candidates[number], start)?;
            if let Tried::Room(grant, evictions) = tried {
                return Ok(Some((&candidates[number], grant, evictions)));
            }
        }
        Ok(None)
    }

    /// Admits a candidate from a second on at the expense of others.
    fn displace_at(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
        start: u64,
    ) -> Refused<Tried> {
        let Some(rule) = rule_of(candidate) else { return Ok(Tried::Never) };
        if !self.not_waived(proposal, candidate).is_empty() {
            return Ok(Tried::Never);
        }
        let when = [start, start + proposal.request.subject.workload().duration_seconds];
        let Ok(charges) = self.charges(proposal, candidate, when)? else {
            return Ok(Tried::Never);
        };
        let mut grant = self.grant(proposal, charges, start)?;
        grant.confirm_by = (self.now + self.rules.confirm_within).min(start);
        if self.conflict(&grant.charges).is_some() {
            return Ok(Tried::Never);
        }
        let Some(victims) = self.victims(proposal, rule, &grant) else {
            return Ok(Tried::NoRoom(grant.charges));
        };
        let mut evictions: Vec<Eviction> =
            victims.into_iter().map(|held| eviction(held, start)).collect();
        evictions.sort_by(|one, other| one.reservation.cmp(&other.reservation));
        let ids: Vec<Id> = evictions.iter().map(|one| one.reservation.clone()).collect();
        self.tell(&ids, Some((start, false)));
        self.book(proposal, candidate, grant.clone(), ids);
        Ok(Tried::Room(grant, evictions))
    }

    /// What is said of a candidate that is admitted.
    pub(super) fn admitted(
        &self,
        candidate: &Candidate,
        grant: ReservationGrant,
        evictions: Vec<Eviction>,
        waivers: (Vec<Id>, Vec<Event>),
    ) -> Verdict {
        let held = self.held.iter().find(|held| held.grant.id == grant.id);
        Verdict {
            waivers,
            denials: Vec::new(),
            gpu_model: candidate.gpu_model.clone(),
            evictions,
            preemption: candidate.outcome.preemption.clone(),
            // Of what goes on, all that it was ever promised.
            promised: held.and_then(|held| held.promised),
            grant: Some(grant),
            too_long: is_giant(candidate),
            is_open: false,
        }
    }

    /// Whether a rule lets a reservation make room, whenever.
    fn may_ever_go(&self, proposal: &Proposal, rule: &PreemptionRule, held: &Held) -> bool {
        proposal.request.priority_class == PriorityClass::InternalResearch
            && held.class == PriorityClass::ExternalCommercial
            && rule.victim_classes.contains(&held.class)
            && !rule.protected_tenants.contains(&held.tenant)
            && held.state == ReservationState::Active
            && held.told.is_none()
            // It holds nothing but the lease.
            && held.work.lease.is_none()
    }

    /// What those who may make room on these accounts were promised of notice.
    fn notices(
        &self,
        proposal: &Proposal,
        rule: &PreemptionRule,
        charges: &[Charge],
    ) -> BTreeSet<u64> {
        let levels = || charges.iter().filter(|charge| charge.kind == AccountKind::Level);
        let is_there =
            |held: &&Rc<Held>| levels().any(|own| held.charges(&own.account).next().is_some());
        let may_go = |held: &&Rc<Held>| self.may_ever_go(proposal, rule, held);
        let those = self.held.iter().filter(may_go).filter(is_there);
        those.filter_map(|held| held.promised).map(|[_, notice]| u64::from(notice)).collect()
    }

    /// Whether a tenant lost work too shortly before a second to lose more.
    fn is_cooling(&self, rule: &PreemptionRule, tenant: &Id, second: u64) -> bool {
        let cool_down = u64::from(rule.cool_down_seconds);
        let is_recent = |at: u64| second < at + cool_down;
        cool_down > 0 && self.lost.iter().any(|(other, at)| other == tenant && is_recent(*at))
    }

    /// Who goes for what is to be granted: nobody if there is room by then.
    fn victims<'a>(
        &'a self,
        proposal: &Proposal,
        rule: &PreemptionRule,
        grant: &'a ReservationGrant,
    ) -> Option<Vec<&'a Held>> {
        let (charges, when) = (grant.charges.clone(), [grant.start, grant.end]);
        let books = self.books();
        let obstacles = books.obstacles(&Wanted { charges, when, victims: Vec::new() });
        if obstacles.is_empty() {
            return Some(Vec::new());
        }
        let mut full: Vec<&AccountPath> = Vec::new();
        for obstacle in &obstacles {
            let charge = &grant.charges[obstacle.index];
            // Room in a cohort or in a budget is not made.
            if obstacle.binding != charge.account || charge.kind == AccountKind::Budget {
                return None;
            }
            full.push(&charge.account);
        }
        let may_go = |held: &&Held| {
            let [own_runtime, notice] = held.promised.unwrap_or_default();
            let runtime = u64::from(rule.min_runtime_seconds.max(own_runtime));
            self.may_ever_go(proposal, rule, held)
                && held.grant.start + runtime <= grant.start
                && self.now + u64::from(notice) <= grant.start
                && !self.is_cooling(rule, &held.tenant, grant.start)
                && grant.start < held.grant.end
                && full.iter().any(|account| held.charges(account).next().is_some())
        };
        let candidates: Vec<_> = self.held.iter().map(|held| &**held).filter(may_go).collect();
        self.widest.set(self.widest.get().max(candidates.len()));
        let most = usize::try_from(rule.max_victims.min(64)).expect("64 is a small number");
        let most_of_tenant = rule.max_victims_per_tenant.unwrap_or(64);
        let most_of_tenant = usize::try_from(most_of_tenant).expect("so is this");
        let search = Search { books, grant, candidates, most, most_of_tenant };
        let key = (proposal.caller.clone(), proposal.request.request_id.clone());
        let (chosen, is_open) = search.choose(self.named.get(&key));
        if is_open {
            self.is_open.set(true);
        }
        chosen
    }

    /// The orders that follow a decision.
    pub(super) fn orders(&self, asked: &Asked) -> Vec<EvictionOrder> {
        let request = &asked.proposal.request.request_id;
        let digits = self.digits_of(&asked.proposal.caller, request);
        let jti = Id::new(format!("dec-{digits}")).expect("hexadecimal digits make a name");
        let Some(preemptor) = &asked.verdict.grant else { return Vec::new() };
        let order = |eviction: &Eviction| {
            let id = &eviction.reservation;
            let held = self.held.iter().find(|held| held.grant.id == *id);
            EvictionOrder {
                aud: AUDIENCE.map(str::to_owned).to_vec(),
                epoch: eviction.epoch,
                evict_by: preemptor.start,
                exp: held.map_or(0, |held| held.grant.end),
                iat: asked.time,
                iss: ISSUER.to_owned(),
                jti: jti.clone(),
                placet: 1,
                preemptor: preemptor.id.clone(),
                reservation: id.clone(),
                tenant_id: eviction.tenant_id.clone(),
            }
        };
        asked.verdict.evictions.iter().map(order).collect()
    }
}

fn eviction(held: &Held, evict_by: u64) -> Eviction {
    Eviction {
        epoch: held.grant.epoch + 1,
        evict_by,
        reservation: held.grant.id.clone(),
        tenant_id: held.tenant.clone(),
    }
}

/// What a candidate is promised.
pub(super) fn promised(candidate: &Candidate) -> Option<[u32; 2]> {
    let terms = candidate.outcome.terms?;
    Some([terms.min_runtime_seconds, terms.notice_seconds])
}
