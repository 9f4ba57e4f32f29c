//! Who has to make room for whom: every set of those that may go is tried, and what each would
//! leave is added up.

use std::collections::BTreeSet;

use placet_core::{
    AccountKind, AccountPath, Effect, Eviction, EvictionOrder, Id, PreemptionRule, PriorityClass,
    ReservationGrant, ReservationState,
};
use placet_server::sequencer::{Candidate, Proposal};

use super::books::{Books, Wanted};
use super::model::{Asked, Held, Model, Refused};
use super::world::{AUDIENCE, ISSUER};

/// Up to so many candidates, the set that is chosen must be the best there is.
pub(super) const BEST_OF: usize = 8;
/// Up to so many candidates, every set is tried for whether there is one at all.
const ALL_OF: usize = 12;

/// What is lost, in thousandths of a GPU times seconds, and how many lose it.
type Cost = (u64, usize);

/// A question of who goes.
struct Search<'a> {
    books: Books<'a>,
    grant: &'a ReservationGrant,
    candidates: Vec<&'a Held>,
    /// Most that may go.
    most: usize,
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
            let smaller = sets.iter().filter(|set: &&Vec<_>| set.len() < self.most);
            let with: Vec<_> = smaller.map(|set| [&**set, &[*held]].concat()).collect();
            sets.extend(with);
        }
        sets.sort_by_key(|set| self.cost(set));
        sets.into_iter().find(|set| self.is_room(set))
    }

    /// A set from which nobody can be spared: those with the least to lose until there is room.
    fn thinned(&self) -> Option<Vec<&'a Held>> {
        let mut set = self.candidates.clone();
        set.sort_by_key(|held| (self.cost(&[held]), &held.grant.id));
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

    /// Who goes. `named` is who is said to go: taken if nothing speaks against it.
    /// With that, whether it could as well be others.
    fn choose(&self, named: Option<&BTreeSet<Id>>) -> (Option<Vec<&'a Held>>, bool) {
        // One more that goes takes no room away.
        if self.candidates.is_empty() || !self.is_room(&self.candidates) {
            return (None, false);
        }
        // With many to choose from the search is cut short: where the cheapest that make room are
        // more than may go, a smaller set need not be found.
        let is_told = named.is_some_and(BTreeSet::is_empty);
        if is_told && self.candidates.len() > BEST_OF && self.thinned().is_none() {
            return (None, false);
        }
        let own = if self.candidates.len() <= ALL_OF { self.best() } else { self.thinned() };
        let Some(named) = named.filter(|named| !named.is_empty()) else {
            let is_open = own.is_some() && self.candidates.len() > 1;
            return (own, is_open);
        };
        let set: Vec<&'a Held> =
            self.candidates.iter().copied().filter(|it| named.contains(&it.grant.id)).collect();
        let is_right = set.len() == named.len() && set.len() <= self.most && self.is_room(&set);
        let is_good = if self.candidates.len() <= BEST_OF {
            own.as_ref().is_some_and(|own| self.cost(own) == self.cost(&set))
        } else {
            self.spared(&set).is_none()
        };
        (if is_right && is_good { Some(set) } else { own }, false)
    }
}

impl Model {
    /// Admits a candidate at the expense of others, if that is asked for and allowed, and they make
    /// room.
    pub(super) fn displace(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
    ) -> Refused<Option<(ReservationGrant, Vec<Eviction>)>> {
        let workload = proposal.request.subject.workload();
        let is_asked = workload.may_preempt && workload.start.is_none();
        let rule = candidate.outcome.preemption.as_ref().filter(|_| is_asked);
        let Some(rule) = rule.filter(|_| candidate.outcome.effect == Effect::Permit) else {
            return Ok(None);
        };
        if !self.not_waived(proposal, candidate).is_empty() {
            return Ok(None);
        }
        let start = self.now + u64::from(rule.grace_seconds.max(1));
        let when = [start, start + workload.duration_seconds];
        let Ok(charges) = self.charges(proposal, candidate, when)? else { return Ok(None) };
        let mut grant = self.grant(proposal, charges, start)?;
        grant.confirm_by = (self.now + self.rules.confirm_within).min(start);
        if self.conflict(&grant.charges).is_some() {
            return Ok(None);
        }
        let Some(victims) = self.victims(proposal, rule, &grant) else { return Ok(None) };
        let mut evictions: Vec<Eviction> =
            victims.into_iter().map(|held| eviction(held, start)).collect();
        evictions.sort_by(|one, other| one.reservation.cmp(&other.reservation));
        let ids: Vec<Id> = evictions.iter().map(|one| one.reservation.clone()).collect();
        self.tell(&ids, Some((start, false)));
        self.book(proposal, candidate, grant.clone(), ids);
        Ok(Some((grant, evictions)))
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
        let displaces = proposal.request.priority_class == PriorityClass::InternalResearch;
        let runtime = u64::from(rule.min_runtime_seconds);
        let may_go = |held: &&Held| {
            displaces
                && held.class == PriorityClass::ExternalCommercial
                && rule.victim_classes.contains(&held.class)
                && held.state == ReservationState::Active
                && held.told.is_none()
                // It holds nothing but the lease.
                && held.work.lease.is_none()
                && held.grant.start + runtime <= grant.start
                && grant.start < held.grant.end
                && full.iter().any(|account| held.charges(account).next().is_some())
        };
        let candidates: Vec<_> = self.held.iter().map(|held| &**held).filter(may_go).collect();
        self.widest.set(self.widest.get().max(candidates.len()));
        let most = usize::try_from(rule.max_victims.min(64)).expect("64 is a small number");
        let search = Search { books, grant, candidates, most };
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
