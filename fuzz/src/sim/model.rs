//! What should happen: the ledger once more, as plain lists that are summed up each time.
//!
//! Nothing of the engine's rules is used here. Of its crates only the shapes of messages and
//! formats are, and hashing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use placet_core::{
    AccountKind, AccountPath, Charge, Code, Digest, Effect, Event, ExpiryCause, Id, LEAF_VERSION,
    Leaf, QuotaNode, Reason, Refund, ReservationGrant, ReservationState, Unit,
};
use placet_server::Clock;
use placet_server::sequencer::{
    Candidate, Proposal, SequencerError, Settle, SettleError, SettleKind, Settled, Step, Target,
};

use super::books::{Books, Fit, Obstacle, Trees, Wanted};
use super::world::{ISSUER, Revisions, Rules, activation};

/// Seconds by which the system's clock may go back.
pub(super) const BACKWARD: u64 = 60;
/// Seconds by which it may go ahead at once.
const FORWARD: u64 = 1_800;
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;
/// Most that can be claimed: what JSON keeps exact.
const MOST: u64 = (1 << 53) - 1;
/// A text that makes any decision longer than a leaf can be.
pub(super) const GIANT: usize = 70_000;

/// A reservation, from its beginning on for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) grant: ReservationGrant,
    pub(super) request: Id,
    pub(super) tenant: Id,
    pub(super) caller: Id,
    pub(super) state: ReservationState,
    since: u64,
    cause: Option<ExpiryCause>,
    refunded: u64,
}

impl Held {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, ReservationState::Reserved | ReservationState::Active)
    }

    /// When it ends by itself.
    fn due(&self) -> u64 {
        match self.state {
            ReservationState::Reserved => self.grant.confirm_by,
            _ => self.grant.end,
        }
    }

    fn charge(&self, account: &AccountPath) -> Option<&Charge> {
        self.grant.charges.iter().find(|charge| charge.account == *account)
    }
}

/// A reason of a denial, as far as it is foretold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denial {
    /// A policy's or the resolver's own, word for word.
    Given(Reason),
    /// There is no room: how much was asked of which account, which one has no room, and what would
    /// be admitted instead.
    Refused {
        code: Code,
        policy: Id,
        account: AccountPath,
        binding: AccountPath,
        asked: u64,
        free: u64,
        limit: Option<u64>,
        fit: Fit,
    },
    /// The facts do not know the account.
    Unknown { policy: Id, account: AccountPath },
    /// The account holds amounts of another kind or unit.
    Conflict { policy: Id, account: AccountPath },
}

/// What deciding should come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) denials: Vec<Denial>,
    pub(super) grant: Option<ReservationGrant>,
    pub(super) gpu_model: Id,
    /// Whether the decision is longer than a leaf can be.
    too_long: bool,
}

impl Verdict {
    pub(super) fn effect(&self) -> Effect {
        if self.grant.is_some() { Effect::Permit } else { Effect::Deny }
    }
}

/// A decided request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) proposal: Box<Proposal>,
    pub(super) verdict: Verdict,
    pub(super) time: u64,
    pub(super) position: u64,
}

/// A leaf of the log.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// Foretold to the byte.
    Leaf(Leaf),
    /// All but its signed bytes.
    Decision(Rc<Asked>),
}

/// What a command should be answered with.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Decided(Rc<Asked>),
    Probed(Effect, Vec<Denial>),
    Settled(Settled),
    Activated,
    Inspected,
    /// `Malformed` and `Unavailable` stand for all of their kind: their texts are for people.
    Failed(SequencerError),
}

/// An answer, and whether it holds even if the batch cannot be stored: because it says what is
/// stored already.
pub(super) type Predicted = (Answer, bool);

#[derive(Debug, Clone)]
pub(super) struct Model {
    rules: Rc<Rules>,
    pub(super) now: u64,
    /// The latest time that a clock has shown since the process began, for all copies.
    seen: Rc<Cell<u64>>,
    pub(super) active: Revisions,
    pub(super) trees: Rc<Trees>,
    /// In the order of admission.
    pub(super) held: Vec<Rc<Held>>,
    /// What ended reservations used of each budget that was ever charged.
    pub(super) used: BTreeMap<AccountPath, (Unit, u64)>,
    asked: BTreeMap<(Id, Id), Rc<Asked>>,
    pub(super) log: Vec<Rc<Entry>>,
}

type Refused<T> = Result<T, SequencerError>;

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
            asked: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.log.len()).expect("a log is far smaller than 2^64")
    }

    fn append(&mut self, time: u64, event: Event) {
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
            let new = self.log[size..].last();
            if let Some(Entry::Decision(asked)) = new.map(|entry| &**entry)
                && asked.verdict.too_long
            {
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
            Step::Propose(proposal) => self.propose(proposal, first),
            // No gang is asked for yet.
            Step::Gang(_) => Err(SequencerError::Stopped),
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
            Step::Inspect => Ok((Answer::Inspected, false)),
        }
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
    fn go_to(&mut self, time: u64) -> Refused<()> {
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
            let cause = match held.state {
                ReservationState::Reserved => ExpiryCause::Unconfirmed,
                _ => ExpiryCause::Ended,
            };
            let part = if cause == ExpiryCause::Unconfirmed { (1, 1) } else { (0, 1) };
            let refunds = self.end(number, ReservationState::Expired, Some(cause), part);
            self.append(at, Event::Expiry { cause, epoch, refunds, reservation });
        }
        self.now = self.now.max(to);
    }

    /// Ends a reservation now and gives back that part of its budgets.
    fn end(
        &mut self,
        number: usize,
        state: ReservationState,
        cause: Option<ExpiryCause>,
        (part, of): (u64, u64),
    ) -> Vec<Refund> {
        let now = self.now;
        let held = Rc::make_mut(&mut self.held[number]);
        (held.state, held.cause, held.since) = (state, cause, now);
        let mut refunds = Vec::new();
        for charge in &held.grant.charges {
            if charge.kind == AccountKind::Level {
                continue;
            }
            let back = charge.amount * part / of;
            self.used.get_mut(&charge.account).expect("a budget that was charged stays").1 +=
                charge.amount - back;
            if charge.unit == Unit::GpuSecond {
                held.refunded = held.refunded.max(back);
            }
            if back > 0 {
                refunds.push(Refund { account: charge.account.clone(), amount: back });
            }
        }
        refunds
    }

    /// What is held, to be asked.
    pub(super) fn books(&self) -> Books<'_> {
        let live = self.held.iter().filter(|held| held.is_live());
        let live = live.map(|held| &held.grant).collect();
        Books { trees: &self.trees, now: self.now, live, used: &self.used }
    }

    /// Kind and unit of an account that holds something, or did, if it is a budget.
    pub(super) fn meaning(&self, account: &AccountPath) -> Option<(AccountKind, Unit)> {
        if let Some((unit, _)) = self.used.get(account) {
            return Some((AccountKind::Budget, *unit));
        }
        let live = self.held.iter().filter(|held| held.is_live());
        let charge = live.filter_map(|held| held.charge(account)).next()?;
        Some((charge.kind, charge.unit))
    }

    fn check_active(&self, proposal: &Proposal) -> Refused<()> {
        let active = activation(self.active);
        if (proposal.bundle, proposal.facts) == (active.bundle.0, active.facts.0) {
            Ok(())
        } else {
            Err(SequencerError::Superseded)
        }
    }

    fn propose(&mut self, proposal: &Proposal, first: u64) -> Refused<Predicted> {
        let key = (proposal.caller.clone(), proposal.request.request_id.clone());
        if let Some(asked) = self.asked.get(&key) {
            let is_stored = asked.position < first;
            let kept = |value: &placet_server::sequencer::Personal| {
                proposal.personal.iter().any(|own| own.value == value.value)
            };
            let same = asked.proposal.request_digest == proposal.request_digest
                && asked.proposal.personal.iter().all(kept);
            let answer = if same {
                Answer::Decided(Rc::clone(asked))
            } else {
                Answer::Failed(SequencerError::RequestIdReused { request_id: key.1 })
            };
            return Ok((answer, is_stored));
        }
        self.check_active(proposal)?;
        self.go_to(proposal.time)?;
        let verdict = self.decide(proposal)?;
        let (time, position) = (self.now, self.size());
        let proposal = Box::new(proposal.clone());
        let asked = Rc::new(Asked { proposal, verdict, time, position });
        self.asked.insert(key, Rc::clone(&asked));
        self.log.push(Rc::new(Entry::Decision(Rc::clone(&asked))));
        Ok((Answer::Decided(asked), false))
    }

    /// The first candidate that is permitted and fits.
    fn decide(&mut self, proposal: &Proposal) -> Refused<Verdict> {
        let models = &proposal.request.subject.workload().gpu_models;
        let gpu_model = models.first().cloned().ok_or(SequencerError::Malformed("no model"))?;
        let mut denials: Vec<Denial> =
            proposal.rejected.iter().cloned().map(Denial::Given).collect();
        let candidates = if denials.is_empty() { &*proposal.candidates } else { &[] };
        let mut too_long = false;
        for candidate in candidates {
            let outcome = &candidate.outcome;
            let giant = outcome.warnings.iter().any(|warning| warning.message.len() >= GIANT);
            let refused = match (outcome.effect, outcome.reasons.is_empty()) {
                (Effect::Deny, false) => {
                    outcome.reasons.iter().cloned().map(Denial::Given).collect()
                }
                (Effect::Permit, true) => match self.hold(proposal, candidate)? {
                    Ok(grant) => {
                        let (grant, gpu_model) = (Some(grant), candidate.gpu_model.clone());
                        let denials = Vec::new();
                        return Ok(Verdict { denials, grant, gpu_model, too_long: giant });
                    }
                    Err(refused) => refused,
                },
                _ => return Err(SequencerError::Malformed("contradicts itself")),
            };
            too_long |= giant;
            for denial in refused {
                if !denials.contains(&denial) {
                    denials.push(denial);
                }
            }
        }
        if denials.is_empty() {
            return Err(SequencerError::Malformed("says nothing"));
        }
        Ok(Verdict { denials, grant: None, gpu_model, too_long })
    }

    fn hold(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
    ) -> Refused<Result<ReservationGrant, Vec<Denial>>> {
        let malformed = |what| Err(SequencerError::Malformed(what));
        let claims = &candidate.outcome.claims;
        if claims.len() != candidate.limits.len() {
            return malformed("limits");
        }
        let (mut charges, mut unknown) = (Vec::new(), Vec::new());
        for (claimed, limit) in claims.iter().zip(&candidate.limits) {
            let (policy, account) = (claimed.policy.clone(), claimed.claim.account.clone());
            let Some((kind, unit, limit)) = *limit else {
                unknown.push(Denial::Unknown { policy, account });
                continue;
            };
            let bounds = [claimed.claim.limit, self.trees.limit(&account)];
            let limit = bounds.into_iter().flatten().fold(limit, u64::min);
            charges.push(Charge { account, amount: claimed.claim.amount, kind, limit, unit });
        }
        if !unknown.is_empty() {
            return Ok(Err(unknown));
        }
        let start = self.now;
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
        let grant = ReservationGrant { charges, confirm_by, end, epoch: 1, id, start };
        let gpus = u64::from(proposal.request.subject.workload().gpu_count);
        let refused = self.refused(candidate, &grant, gpus);
        if refused.is_empty() {
            self.book(proposal, grant.clone());
            return Ok(Ok(grant));
        }
        Ok(Err(refused))
    }

    /// What is in the way, account by account; an account of another meaning alone counts.
    fn refused(&self, candidate: &Candidate, grant: &ReservationGrant, gpus: u64) -> Vec<Denial> {
        let claims = &candidate.outcome.claims;
        for (charge, claimed) in grant.charges.iter().zip(claims) {
            let tree = self.trees.unit(&charge.account).map(|unit| (AccountKind::Level, unit));
            let meanings = [self.meaning(&charge.account), tree];
            if meanings.into_iter().flatten().any(|other| other != (charge.kind, charge.unit)) {
                let (policy, account) = (claimed.policy.clone(), charge.account.clone());
                return vec![Denial::Conflict { policy, account }];
            }
        }
        let wanted = Wanted { charges: grant.charges.clone(), when: [grant.start, grant.end] };
        let books = self.books();
        let obstacles = books.obstacles(&wanted);
        if obstacles.is_empty() {
            return Vec::new();
        }
        let fit = books.fit(&wanted, gpus);
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

    fn book(&mut self, proposal: &Proposal, grant: ReservationGrant) {
        for charge in &grant.charges {
            if charge.kind == AccountKind::Budget {
                self.used.entry(charge.account.clone()).or_insert((charge.unit, 0));
            }
        }
        self.held.push(Rc::new(Held {
            grant,
            request: proposal.request.request_id.clone(),
            tenant: proposal.request.tenant_id.clone(),
            caller: proposal.caller.clone(),
            state: ReservationState::Reserved,
            since: self.now,
            cause: None,
            refunded: 0,
        }));
    }

    /// The name of the reservation that a request may get.
    fn reservation_of(&self, caller: &Id, request: &Id) -> Id {
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
        let held = Rc::make_mut(&mut self.held[number]);
        match (held.state, held.cause) {
            (ReservationState::Active, _) => return Ok(()),
            (ReservationState::Reserved, _) => {}
            (_, Some(ExpiryCause::Unconfirmed)) => {
                return Err(SettleError::ConfirmDeadlinePassed.into());
            }
            (state, _) => return Err(SettleError::AlreadyEnded { state }.into()),
        }
        (held.state, held.since) = (ReservationState::Active, now);
        let (reservation, epoch) = (held.grant.id.clone(), held.grant.epoch);
        let caller = settle.caller.clone();
        self.append(now, Event::Confirmation { caller, epoch, reservation });
        Ok(())
    }

    fn release(&mut self, number: usize, settle: &Settle) -> Refused<()> {
        let held = &self.held[number];
        let (reservation, epoch) = (held.grant.id.clone(), held.grant.epoch);
        let part = match held.state {
            ReservationState::Released => return Ok(()),
            ReservationState::Reserved => (1, 1),
            ReservationState::Active => {
                let ahead = held.grant.end - self.now.max(held.grant.start);
                (ahead, held.grant.end - held.grant.start)
            }
            state => return Err(SettleError::AlreadyEnded { state }.into()),
        };
        let refunds = self.end(number, ReservationState::Released, None, part);
        let caller = settle.caller.clone();
        self.append(self.now, Event::Release { caller, epoch, refunds, reservation });
        Ok(())
    }

    /// Every account that is known, with its use now: those in a tree, levels that hold something,
    /// and budgets that were ever charged.
    pub(super) fn usage(&self) -> Vec<(AccountPath, AccountKind, u64)> {
        let books = self.books();
        let mut kinds: BTreeMap<_, _> =
            self.trees.paths().map(|account| (account, AccountKind::Level)).collect();
        for charge in books.live.iter().flat_map(|grant| &grant.charges) {
            kinds.insert(&charge.account, charge.kind);
        }
        kinds.extend(self.used.keys().map(|account| (account, AccountKind::Budget)));
        let usage = |(account, kind): (&AccountPath, AccountKind)| {
            (account.clone(), kind, books.usage(account))
        };
        kinds.into_iter().map(usage).collect()
    }
}
