//! What should happen: the ledger once more, as plain lists that are summed up each time.
//!
//! Nothing of the engine's rules is used here. Of its crates only the shapes of messages and
//! formats are, and hashing.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use placet_core::{
    AccountKind, AccountPath, Charge, Code, Digest, Effect, Event, ExpiryCause, Id, LEAF_VERSION,
    Leaf, QuotaNode, Refund, ReservationGrant, ReservationState, Unit,
};
use placet_server::Clock;
use placet_server::sequencer::{
    Candidate, Proposal, SequencerError, Settle, SettleError, SettleKind, Settled, Step, Target,
};

use super::approvals::Approvals;
use super::books::{Books, Holding, Obstacle, Trees, Wanted};
use super::eviction::promised;
use super::foretold::{Answer, Asked, Denial, Entry, Predicted, Verdict};
use super::leases::granted_of;
use super::reservation::{Held, Term, Work};
use super::world::{ISSUER, Revisions, Rules, activation};

/// Seconds by which the system's clock may go back.
pub(super) const BACKWARD: u64 = 60;
/// Seconds by which it may go ahead at once.
const FORWARD: u64 = 1_800;
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;
/// Seconds by which a start may lie ahead: 366 days.
pub(super) const LEAD: u64 = 366 * 24 * 3_600;
/// Most that can be claimed: what JSON keeps exact.
const MOST: u64 = (1 << 53) - 1;
/// A text that makes any decision longer than a leaf can be.
pub(super) const GIANT: usize = 70_000;

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) rules: Rc<Rules>,
    pub(super) now: u64,
    /// The latest time that a clock has shown since the process began, for all copies.
    seen: Rc<Cell<u64>>,
    pub(super) active: Revisions,
    pub(super) trees: Rc<Trees>,
    /// In the order of admission.
    pub(super) held: Vec<Rc<Held>>,
    /// What ended reservations used of each budget that was ever charged.
    pub(super) used: BTreeMap<AccountPath, (Unit, u64)>,
    /// Level accounts that the ledger knows: from the first charge on until one who charges it ends
    /// and nothing of it is held any more.
    pub(super) open: BTreeMap<AccountPath, Unit>,
    pub(super) asked: BTreeMap<(Id, Id), Rc<Asked>>,
    pub(super) log: Vec<Rc<Entry>>,
    /// Decisions whose personal values were erased, and how long the log was then, by position.
    pub(super) erased: BTreeMap<u64, u64>,
    /// Whose work was lost, and from when on.
    pub(super) lost: Vec<(Id, u64)>,
    /// Whom decisions name as victims, and from when on: where several sets are as good, the model
    /// takes that one.
    pub(super) named: Rc<Named>,
    /// Most candidates that one choice of victims ever had, for all copies.
    pub(super) widest: Rc<Cell<usize>>,
    /// Whether victims were chosen that nobody is told of and that might be others, for all copies.
    pub(super) is_open: Rc<Cell<bool>>,
    pub(super) approvals: Approvals,
}

/// Victims by the caller and the request of their preemptor.
pub(super) type Named = BTreeMap<(Id, Id), (u64, BTreeSet<Id>)>;

pub(super) type Refused<T> = Result<T, SequencerError>;

impl Model {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules: Rc::new(rules),
            now: 0,
            seen: Rc::default(),
            active: (0, 0),
            trees: Rc::default(),
            held: Vec::new(),
            used: BTreeMap::new(),
            open: BTreeMap::new(),
            asked: BTreeMap::new(),
            log: Vec::new(),
            erased: BTreeMap::new(),
            lost: Vec::new(),
            named: Rc::default(),
            widest: Rc::default(),
            is_open: Rc::default(),
            approvals: Approvals::default(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.log.len()).expect("a log is far smaller than 2^64")
    }

    pub(super) fn append(&mut self, time: u64, event: Event) {
        let leaf = Leaf { event, time, v: LEAF_VERSION };
        self.log.push(Rc::new(Entry::Leaf(leaf)));
    }

    /// What a start does to the log.
    pub(super) fn begin(&mut self, active: Revisions, clock: u64) {
        let is_new = self.log.is_empty();
        self.seen.set(clock.max(self.now));
        let now = if self.rules.clock == Clock::System { clock.max(self.now) } else { self.now };
        if is_new {
            let store = self.rules.name.clone();
            self.append(now, Event::Genesis { origin: ISSUER.to_owned(), store });
        }
        self.advance(now);
        self.activate(active, is_new);
    }

    fn activate(&mut self, active: Revisions, is_new: bool) {
        let (before, after) = (activation(self.active), activation(active));
        let old = if is_new { &[][..] } else { &*before.quotas };
        let changed: Vec<_> =
            after.quotas.iter().filter(|node| !old.contains(node)).cloned().collect();
        let is_gone =
            |node: &&QuotaNode| after.quotas.iter().all(|other| other.account != node.account);
        let removed: Vec<_> = old.iter().filter(is_gone).map(|node| node.account.clone()).collect();
        if !changed.is_empty() || !removed.is_empty() {
            self.append(self.now, Event::Quotas { changed, more: false, removed });
            self.trees = Rc::new(Trees::new(&after.quotas));
        }
        if is_new || before.bundle != after.bundle {
            let (digest, revision) = after.bundle;
            self.append(self.now, Event::BundleActivation { digest, revision });
        }
        if is_new || before.facts != after.facts {
            let (digest, revision) = after.facts;
            self.append(self.now, Event::FactsActivation { digest, revision });
        }
        self.active = active;
    }

    /// One batch. A command whose decision would be too long is as if it had not been there, which
    /// is found out by signing; `is_broken` tells each time whether that fails altogether.
    pub(super) fn batch(
        &mut self,
        steps: &[Step],
        clock: u64,
        mut is_broken: impl FnMut() -> bool,
    ) -> Vec<Predicted> {
        let before = self.clone();
        let mut too_long = Vec::new();
        loop {
            let tried = self.try_batch(steps, clock, &too_long);
            if is_broken() {
                return vec![(Answer::Activated, false); steps.len()];
            }
            match tried {
                Ok(answers) => return answers,
                Err(command) => {
                    too_long.push(command);
                    *self = before.clone();
                }
            }
        }
    }

    fn try_batch(
        &mut self,
        steps: &[Step],
        clock: u64,
        too_long: &[usize],
    ) -> Result<Vec<Predicted>, usize> {
        let first = self.size();
        let (mut answers, mut longest) = (Vec::new(), None);
        for (number, step) in steps.iter().enumerate() {
            if too_long.contains(&number) {
                answers.push((Answer::Failed(SequencerError::TooLong), true));
                continue;
            }
            let size = self.log.len();
            let answer = self.step(step, first);
            let is_long = |entry: &Rc<Entry>| match &**entry {
                Entry::Decision(asked) => asked.verdict.too_long,
                Entry::Leaf(_) | Entry::Order(_) => false,
            };
            if self.log[size..].iter().any(is_long) {
                longest = longest.or(Some(number));
            }
            answers.push(answer.unwrap_or_else(|error| (Answer::Failed(error), false)));
        }
        let is_system = self.rules.clock == Clock::System;
        let is_due = self.due().is_some_and(|(at, _)| at <= clock);
        if is_system && self.see(clock).is_ok() && is_due {
            self.advance(clock);
        }
        longest.map_or(Ok(answers), Err)
    }

    fn step(&mut self, step: &Step, first: u64) -> Refused<Predicted> {
        match step {
            Step::Propose(proposal) => self.propose(&[&**proposal], first),
            Step::Gang(members) => self.propose(&members.iter().collect::<Vec<_>>(), first),
            Step::Probe(proposal) => {
                self.check_active(proposal)?;
                self.see(proposal.time)?;
                let mut then = self.clone();
                then.advance(proposal.time);
                let verdict = then.decide(proposal)?;
                Ok((Answer::Probed(verdict.effect(), verdict.denials), false))
            }
            Step::Settle(settle) => self.settle(settle, first),
            Step::Activate(active, time) => {
                self.go_to(*time)?;
                let revision = |text: &str| text.parse().expect("revisions are numbers");
                self.activate((revision(&active.bundle.1), revision(&active.facts.1)), false);
                Ok((Answer::Activated, false))
            }
            Step::Erase(erase) => {
                let time = erase.time.max(self.now);
                if self.see(time).is_ok() {
                    self.advance(time);
                }
                let decisions = self.erase(&erase.positions, first);
                if decisions > 0 {
                    let event = Event::Erasure { caller: erase.caller.clone(), decisions };
                    self.append(self.now, event);
                }
                Ok((Answer::Erased(decisions), false))
            }
            Step::Freeze(order) => self.freeze(order),
            Step::Inspect => Ok((Answer::Inspected, false)),
        }
    }

    /// Erases what is kept of decisions that were stored before this batch: of how many that is.
    fn erase(&mut self, positions: &[u64], first: u64) -> u64 {
        let mut decisions = 0;
        for position in positions.iter().filter(|position| **position < first) {
            let at = usize::try_from(*position).expect("a log is far smaller than 2^64");
            let Entry::Decision(asked) = &*self.log[at] else { continue };
            let is_new = !self.erased.contains_key(position);
            if is_new && !asked.proposal.personal.is_empty() {
                self.erased.insert(*position, self.size());
                decisions += 1;
            }
        }
        decisions
    }

    /// Refuses a time to which no clock jumps. What was seen stays seen, whatever becomes of the
    /// batch.
    fn see(&self, time: u64) -> Refused<()> {
        if time > LAST_SECOND {
            return Err(SequencerError::TimeOutOfRange { time });
        }
        if self.rules.clock == Clock::Events {
            return Ok(());
        }
        let expected = self.seen.get();
        if time > expected + FORWARD {
            return Err(SequencerError::ClockJumped { time, expected });
        }
        self.seen.set(expected.max(time));
        Ok(())
    }

    /// The time of a command.
    pub(super) fn go_to(&mut self, time: u64) -> Refused<()> {
        self.see(time)?;
        let bound = if self.rules.clock == Clock::System { BACKWARD } else { 0 };
        if time + bound < self.now {
            return Err(SequencerError::ClockWentBack { time, high_water: self.now });
        }
        self.advance(time);
        Ok(())
    }

    /// The live reservation that ends by itself next, by time and then by name.
    fn due(&self) -> Option<(u64, usize)> {
        let live = (0..).zip(&self.held).filter(|(_, held)| held.is_live());
        let next = live.min_by_key(|(_, held)| (held.due(), &held.grant.id))?;
        Some((next.1.due(), next.0))
    }

    fn advance(&mut self, to: u64) {
        while let Some((at, number)) = self.due().filter(|(at, _)| *at <= to) {
            self.now = self.now.max(at);
            let held = &self.held[number];
            let (reservation, epoch) = (held.grant.id.clone(), held.grant.epoch);
            let is_new = held.state == ReservationState::Reserved;
            let (state, cause) = match held.told {
                _ if at < held.own_due() => (ReservationState::Revoked, ExpiryCause::LeaseEnded),
                _ if is_new => (ReservationState::Expired, ExpiryCause::Unconfirmed),
                Some((_, true)) => (ReservationState::Revoked, ExpiryCause::Evicted),
                _ => (ReservationState::Expired, ExpiryCause::Ended),
            };
            let refunds = self.end(number, state, Some(cause));
            self.append(at, Event::Expiry { cause, epoch, refunds, reservation });
        }
        self.now = self.now.max(to);
    }

    /// Ends a reservation now. Budgets get back what lies ahead of each stretch of its time, and
    /// all of it if it was not confirmed.
    fn end(
        &mut self,
        number: usize,
        state: ReservationState,
        cause: Option<ExpiryCause>,
    ) -> Vec<Refund> {
        let now = self.now;
        let held = Rc::make_mut(&mut self.held[number]);
        let is_new = held.state == ReservationState::Reserved;
        (held.state, held.cause, held.since) = (state, cause, now);
        let mut refunds: Vec<Refund> = Vec::new();
        for term in &held.terms {
            let ahead = if is_new { term.start } else { now.max(term.start).min(term.end) };
            let (part, of) = (term.end - ahead, term.end - term.start);
            let mut gpu_seconds = 0;
            for charge in term.charges.iter().filter(|one| one.kind == AccountKind::Budget) {
                let Charge { account, amount, unit, .. } = charge;
                let back = amount * part / of;
                self.used.get_mut(account).expect("a budget that was charged stays").1 +=
                    amount - back;
                if *unit == Unit::GpuSecond {
                    gpu_seconds = back.max(gpu_seconds);
                }
                match refunds.iter_mut().find(|refund| refund.account == *account) {
                    Some(refund) => refund.amount += back,
                    None if back > 0 => {
                        refunds.push(Refund { account: account.clone(), amount: back });
                    }
                    None => {}
                }
            }
            held.refunded += gpu_seconds;
        }
        let (id, spared) = (held.grant.id.clone(), std::mem::take(&mut held.victims));
        self.tell(&spared, None);
        for other in &mut self.held {
            // Whoever waits for it to go has its room now.
            if other.victims.contains(&id) {
                Rc::make_mut(other).victims.retain(|victim| *victim != id);
            }
            // What runs inside of it is over too.
            if other.is_live() && other.work.lease.as_ref() == Some(&id) {
                Rc::make_mut(other).cut = Some(now);
            }
        }
        self.close(number);
        refunds
    }

    /// Forgets the level accounts of one that has ended of which nothing is held any more.
    fn close(&mut self, number: usize) {
        let ended = Rc::clone(&self.held[number]);
        let charges = ended.terms.iter().flat_map(|term| &term.charges);
        let books = self.books();
        let is_over =
            |account: &&AccountPath| !books.live.iter().any(|one| one.holds(account, self.now));
        let over: Vec<AccountPath> =
            charges.map(|charge| &charge.account).filter(is_over).cloned().collect();
        drop(books);
        for account in over {
            self.open.remove(&account);
        }
    }

    /// Tells reservations to make room, or that they need not.
    pub(super) fn tell(&mut self, ids: &[Id], told: Option<(u64, bool)>) {
        for held in self.held.iter_mut().filter(|held| ids.contains(&held.grant.id)) {
            Rc::make_mut(held).told = told;
        }
    }

    /// What is held, to be asked.
    pub(super) fn books(&self) -> Books<'_> {
        let live: Vec<&Held> =
            self.held.iter().map(|held| &**held).filter(|it| it.is_live()).collect();
        let victims = |held: &Held| {
            let named = live.iter().filter(|other| held.victims.contains(&other.grant.id));
            named.copied().collect()
        };
        let live = live.iter().map(|held| Holding { held, victims: victims(held) }).collect();
        Books { trees: &self.trees, now: self.now, live, used: &self.used }
    }

    /// Kind and unit of an account that holds something, or did, if it is a budget.
    pub(super) fn meaning(&self, account: &AccountPath) -> Option<(AccountKind, Unit)> {
        let budget = self.used.get(account).map(|(unit, _)| (AccountKind::Budget, *unit));
        budget.or_else(|| self.open.get(account).map(|unit| (AccountKind::Level, *unit)))
    }

    fn check_active(&self, proposal: &Proposal) -> Refused<()> {
        let active = activation(self.active);
        if (proposal.bundle, proposal.facts) == (active.bundle.0, active.facts.0) {
            Ok(())
        } else {
            Err(SequencerError::Superseded)
        }
    }

    /// One request, or a gang: all of it or nothing.
    fn propose(&mut self, members: &[&Proposal], first: u64) -> Refused<Predicted> {
        if let Some(predicted) = self.repeated(members, first) {
            return Ok(predicted);
        }
        for proposal in members {
            self.check_active(proposal)?;
        }
        self.go_to(members.iter().map(|proposal| proposal.time).max().unwrap_or(0))?;
        let mut asked = Vec::new();
        for (proposal, verdict) in members.iter().zip(self.judge(members)?) {
            for leaf in &verdict.waivers.1 {
                self.append(self.now, leaf.clone());
            }
            let (time, position) = (self.now, self.size());
            let proposal = Box::new(Proposal::clone(proposal));
            let key = (proposal.caller.clone(), proposal.request.request_id.clone());
            let one = Rc::new(Asked { proposal, verdict, time, position });
            self.asked.insert(key, Rc::clone(&one));
            self.log.push(Rc::new(Entry::Decision(Rc::clone(&one))));
            let orders = self.orders(&one);
            self.log.extend(orders.into_iter().map(Entry::Order).map(Rc::new));
            asked.push(one);
        }
        Ok((Answer::Decided(asked), false))
    }

    /// The first candidate that is permitted and fits.
    pub(super) fn decide(&mut self, proposal: &Proposal) -> Refused<Verdict> {
        let gpu_model = first_model(proposal)?;
        let mut denials: Vec<Denial> = self.refused_by_freeze(proposal).into_iter().collect();
        denials.extend(proposal.rejected.iter().cloned().map(Denial::Given));
        let start = proposal.request.subject.workload().start.unwrap_or(self.now);
        if denials.is_empty() {
            denials.extend(self.refused_start(proposal, start));
        }
        let candidates = if denials.is_empty() { &*proposal.candidates } else { &[] };
        let mut too_long = false;
        for candidate in candidates {
            let outcome = &candidate.outcome;
            let refused = match (outcome.effect, outcome.reasons.is_empty()) {
                (Effect::Deny, false) => {
                    outcome.reasons.iter().cloned().map(Denial::Given).collect()
                }
                (Effect::Permit, true) => match self.try_hold(proposal, candidate, start)? {
                    Ok(grant) => {
                        let waivers = self.use_waivers(proposal, candidate);
                        return Ok(self.admitted(candidate, grant, Vec::new(), waivers));
                    }
                    Err(refused) => refused,
                },
                _ => return Err(SequencerError::Malformed("contradicts itself")),
            };
            too_long |= is_giant(candidate);
            for denial in refused {
                if !denials.contains(&denial) {
                    denials.push(denial);
                }
            }
        }
        if let Some((candidate, grant, victims)) = self.displace(proposal, candidates)? {
            let waivers = self.use_waivers(proposal, candidate);
            return Ok(self.admitted(candidate, grant, victims, waivers));
        }
        if denials.is_empty() {
            return Err(SequencerError::Malformed("says nothing"));
        }
        let (grant, evictions, preemption, promised) = (None, Vec::new(), None, None);
        let (is_open, waivers) = (false, (Vec::new(), Vec::new()));
        Ok(Verdict {
            denials,
            grant,
            gpu_model,
            evictions,
            waivers,
            preemption,
            promised,
            too_long,
            is_open,
        })
    }

    pub(super) fn hold(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
        start: u64,
    ) -> Refused<Result<ReservationGrant, Vec<Denial>>> {
        let goes_on = match self.goes_on(proposal, candidate, start) {
            Ok(goes_on) => goes_on,
            Err(denial) => return Ok(Err(vec![*denial])),
        };
        let when = [start, start + proposal.request.subject.workload().duration_seconds];
        let charges = match self.charges(proposal, candidate, when)? {
            Ok(charges) => charges,
            Err(denials) => return Ok(Err(denials)),
        };
        let mut grant = self.grant(proposal, charges, start)?;
        if let Some(held) = goes_on.map(|number| &self.held[number].grant) {
            (grant.id, grant.epoch) = (held.id.clone(), held.epoch + 1);
            grant.confirm_by = grant.end;
        }
        let refused = self.refused(proposal, candidate, &grant);
        if !refused.is_empty() {
            return Ok(Err(refused));
        }
        match goes_on {
            Some(number) => self.go_on(number, &grant, promised(candidate)),
            None => self.book(proposal, candidate, grant.clone(), Vec::new()),
        }
        Ok(Ok(grant))
    }

    /// What is charged for a candidate, or why nothing can be.
    pub(super) fn charges(
        &self,
        proposal: &Proposal,
        candidate: &Candidate,
        when: [u64; 2],
    ) -> Refused<Result<Vec<Charge>, Vec<Denial>>> {
        let claims = &candidate.outcome.claims;
        if claims.len() != candidate.limits.len() {
            return Err(SequencerError::Malformed("limits"));
        }
        let lease = match self.lease_of(proposal, candidate, when) {
            Ok(lease) => lease,
            Err(denial) => return Ok(Err(vec![*denial])),
        };
        let (mut charges, mut denials, mut is_inside) = (Vec::new(), Vec::new(), false);
        for (claimed, limit) in claims.iter().zip(&candidate.limits) {
            let (policy, account) = (claimed.policy.clone(), claimed.claim.account.clone());
            let of_lease = lease.and_then(|lease| granted_of(lease, &account));
            is_inside |= of_lease.is_some_and(|(_, unit, _)| unit == Unit::MilliGpu);
            let Some((kind, unit, limit)) = of_lease.or(*limit) else {
                denials.push(Denial::Unknown { policy, account });
                continue;
            };
            let bounds = [claimed.claim.limit, self.trees.limit(&account)];
            let limit = bounds.into_iter().flatten().fold(limit, u64::min);
            charges.push(Charge { account, amount: claimed.claim.amount, kind, limit, unit });
        }
        if lease.is_some() && !is_inside {
            denials.push(Denial::own("LEASE_NOT_CLAIMED", "job.lease_id", false));
        }
        Ok(if denials.is_empty() { Ok(charges) } else { Err(denials) })
    }

    /// What would be granted from a start on.
    pub(super) fn grant(
        &self,
        proposal: &Proposal,
        charges: Vec<Charge>,
        start: u64,
    ) -> Refused<ReservationGrant> {
        let malformed = |what| Err(SequencerError::Malformed(what));
        let end = start + proposal.request.subject.workload().duration_seconds;
        let twice = |charge: &Charge| {
            charges.iter().filter(|other| other.account == charge.account).count() > 1
        };
        if end == start || charges.iter().any(|charge| charge.amount == 0 || twice(charge)) {
            return malformed("booking");
        }
        if charges.iter().any(|charge| charge.amount > MOST || charge.limit > MOST) {
            return malformed("amount");
        }
        let confirm_by = (start + self.rules.confirm_within).min(end);
        let id = self.reservation_of(&proposal.caller, &proposal.request.request_id);
        Ok(ReservationGrant { charges, confirm_by, end, epoch: 1, id, start })
    }

    /// The first charge whose account holds amounts of another kind or unit.
    pub(super) fn conflict(&self, charges: &[Charge]) -> Option<usize> {
        charges.iter().position(|charge| {
            let tree = self.trees.unit(&charge.account).map(|unit| (AccountKind::Level, unit));
            let mut meanings = [self.meaning(&charge.account), tree].into_iter().flatten();
            meanings.any(|other| other != (charge.kind, charge.unit))
        })
    }

    /// What is in the way, account by account; an account of another meaning alone counts.
    fn refused(
        &self,
        proposal: &Proposal,
        candidate: &Candidate,
        grant: &ReservationGrant,
    ) -> Vec<Denial> {
        let claims = &candidate.outcome.claims;
        if let Some(at) = self.conflict(&grant.charges) {
            let (policy, account) = (claims[at].policy.clone(), grant.charges[at].account.clone());
            return vec![Denial::Conflict { policy, account }];
        }
        let (charges, when) = (grant.charges.clone(), [grant.start, grant.end]);
        let wanted = Wanted { charges, when, victims: Vec::new() };
        let books = self.books();
        let obstacles = books.obstacles(&wanted);
        if obstacles.is_empty() {
            return Vec::new();
        }
        let gpus = u64::from(proposal.request.subject.workload().gpu_count);
        let fit = self.way_out(proposal, candidate, grant, books.fit(&wanted, gpus));
        let denial = |obstacle: Obstacle| {
            let Obstacle { index, binding, free, limit } = obstacle;
            let (charge, claimed) = (&grant.charges[index], &claims[index]);
            let code = claimed.claim.code.clone();
            Denial::Refused {
                code: code.unwrap_or_else(|| Code::known("QUOTA_EXCEEDED")),
                policy: claimed.policy.clone(),
                account: charge.account.clone(),
                binding,
                asked: charge.amount,
                free,
                limit,
                fit,
            }
        };
        obstacles.into_iter().map(denial).collect()
    }

    pub(super) fn book(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
        grant: ReservationGrant,
        victims: Vec<Id>,
    ) {
        self.know(&grant.charges);
        let (start, end, charges) = (grant.start, grant.end, grant.charges.clone());
        self.held.push(Rc::new(Held {
            grant,
            terms: vec![Term { start, end, charges }],
            request: proposal.request.request_id.clone(),
            tenant: proposal.request.tenant_id.clone(),
            caller: proposal.caller.clone(),
            state: ReservationState::Reserved,
            since: self.now,
            cause: None,
            refunded: 0,
            class: proposal.request.priority_class,
            work: Work::new(proposal, &candidate.gpu_model),
            cut: None,
            told: None,
            victims,
            promised: promised(candidate),
        }));
    }

    /// From here on the ledger knows these accounts.
    pub(super) fn know(&mut self, charges: &[Charge]) {
        for Charge { account, kind, unit, .. } in charges {
            match kind {
                AccountKind::Budget => {
                    self.used.entry(account.clone()).or_insert((*unit, 0));
                }
                AccountKind::Level => {
                    self.open.insert(account.clone(), *unit);
                }
            }
        }
    }

    /// The name of the reservation that a request may get.
    pub(super) fn reservation_of(&self, caller: &Id, request: &Id) -> Id {
        let digits = self.digits_of(caller, request);
        Id::new(format!("rsv-{digits}")).expect("hexadecimal digits make a name")
    }

    pub(super) fn digits_of(&self, caller: &Id, request: &Id) -> String {
        let parts = ["placet decision", &*self.rules.name, caller.as_str(), request.as_str()];
        Digest::of(parts.join("\0").as_bytes()).hex().chars().take(32).collect()
    }

    fn settle(&mut self, settle: &Settle, first: u64) -> Refused<Predicted> {
        let missing = || SequencerError::Settle(SettleError::NotFound);
        let id = match &settle.target {
            Target::ById(id) => id.clone(),
            Target::ByRequest(request) => {
                let key = (settle.caller.clone(), request.clone());
                let asked = self.asked.get(&key).ok_or_else(missing)?;
                let Some(grant) = &asked.verdict.grant else {
                    let none = Settled {
                        reservation: None,
                        state: None,
                        epoch: 0,
                        time: asked.time,
                        refunded_gpu_seconds: 0,
                    };
                    return Ok((Answer::Settled(none), asked.position < first));
                };
                // A request that something goes on has no reservation of its own.
                if asked.proposal.request.extends.is_some() {
                    return Err(missing());
                }
                grant.id.clone()
            }
        };
        let number = self.held.iter().position(|held| held.grant.id == id).ok_or_else(missing)?;
        let held = &self.held[number];
        if (&held.tenant, &held.caller) != (&settle.tenant, &settle.caller) {
            return Err(SettleError::NotYours.into());
        }
        let is_confirm = settle.kind == SettleKind::Confirm;
        let is_done = is_confirm && held.state == ReservationState::Active;
        if held.is_live() && held.grant.epoch == settle.epoch && !is_done {
            self.go_to(settle.time)?;
        }
        let held = &self.held[number];
        if held.grant.epoch != settle.epoch {
            return Err(SettleError::StaleEpoch { current: held.grant.epoch }.into());
        }
        if is_confirm { self.confirm(number, settle) } else { self.release(number, settle) }
            .map(|()| (Answer::Settled(self.settled(number)), false))
    }

    fn settled(&self, number: usize) -> Settled {
        let held = &self.held[number];
        Settled {
            reservation: Some(held.grant.id.clone()),
            state: Some(held.state),
            epoch: held.grant.epoch,
            time: held.since,
            refunded_gpu_seconds: held.refunded,
        }
    }

    fn confirm(&mut self, number: usize, settle: &Settle) -> Refused<()> {
        let now = self.now;
        let held = &self.held[number];
        match (held.state, held.cause) {
            (ReservationState::Active, _) => return Ok(()),
            (ReservationState::Reserved, _) => {
                if let Some(error) = self.kept_by_freeze(&self.held[number]) {
                    return Err(error.into());
                }
            }
            (_, Some(ExpiryCause::Unconfirmed)) => {
                return Err(SettleError::ConfirmDeadlinePassed.into());
            }
            (state, _) => return Err(SettleError::AlreadyEnded { state }.into()),
        }
        let held = Rc::make_mut(&mut self.held[number]);
        (held.state, held.since) = (ReservationState::Active, now);
        let (start, victims) = (held.grant.start, std::mem::take(&mut held.victims));
        let (reservation, epoch) = (held.grant.id.clone(), held.grant.epoch);
        let caller = settle.caller.clone();
        self.append(now, Event::Confirmation { caller, epoch, reservation });
        self.tell(&victims, Some((start, true)));
        for held in self.held.iter_mut().filter(|held| victims.contains(&held.grant.id)) {
            Rc::make_mut(held).grant.epoch += 1;
            self.lost.push((held.tenant.clone(), start));
        }
        Ok(())
    }

    fn release(&mut self, number: usize, settle: &Settle) -> Refused<()> {
        let held = &self.held[number];
        let (reservation, epoch) = (held.grant.id.clone(), held.grant.epoch);
        match held.state {
            ReservationState::Released => return Ok(()),
            ReservationState::Reserved | ReservationState::Active => {}
            state => return Err(SettleError::AlreadyEnded { state }.into()),
        }
        let refunds = self.end(number, ReservationState::Released, None);
        let caller = settle.caller.clone();
        self.append(self.now, Event::Release { caller, epoch, refunds, reservation });
        // What ran inside is over in the same second.
        self.advance(self.now);
        Ok(())
    }

    /// Every account that is known, with its use now: those in a tree, levels that hold something,
    /// and budgets that were ever charged.
    pub(super) fn usage(&self) -> Vec<(AccountPath, AccountKind, u64)> {
        let books = self.books();
        let mut kinds: BTreeMap<_, _> =
            self.trees.paths().map(|account| (account, AccountKind::Level)).collect();
        kinds.extend(self.open.keys().map(|account| (account, AccountKind::Level)));
        kinds.extend(self.used.keys().map(|account| (account, AccountKind::Budget)));
        let usage = |(account, kind): (&AccountPath, AccountKind)| {
            (account.clone(), kind, books.usage(account))
        };
        kinds.into_iter().map(usage).collect()
    }
}

pub(super) fn first_model(proposal: &Proposal) -> Refused<Id> {
    let models = &proposal.request.subject.workload().gpu_models;
    models.first().cloned().ok_or(SequencerError::Malformed("no model"))
}

/// Whether what is said of a candidate is longer than a leaf can be.
pub(super) fn is_giant(candidate: &Candidate) -> bool {
    candidate.outcome.warnings.iter().any(|warning| warning.message.len() >= GIANT)
}
