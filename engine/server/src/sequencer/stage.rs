//! Applying a batch to the ledger: in memory only, in order, and so that all of it can be taken
//! back.

use std::collections::{BTreeSet, HashMap, HashSet};

use placet_core::{Decision, Digest, Effect, Event, EvictionOrder, Id, Leaf, Reason, Waived};

use super::decide::{self, JudgeError};
use super::{
    Activation, Command, Decided, Erase, Evidence, FreezeOrder, Freezing, MAX_BACKWARD_SECONDS,
    MAX_ERASED, Options, Personal, Proposal, Queued, Reply, SequencerError, Settle, SettleKind,
    Settled, Target,
};
use crate::clock::{Clock, MAX_TIME, Steady};
use crate::log;
use crate::name;
use crate::quota::{Defect, Expired, Ledger, Outcome, Reservation, SettleError};
use crate::store::{Record, Store};

/// A leaf to be.
#[derive(Debug)]
pub(super) enum Draft {
    /// Complete.
    Leaf(Leaf),
    /// A decision that is still to be signed.
    Decision(Box<DraftDecision>),
    /// An order of eviction that is still to be signed, and the command that asked for it, by its
    /// place in the batch.
    Order(usize, Box<EvictionOrder>),
}

#[derive(Debug)]
pub(super) struct DraftDecision {
    /// The command that asked, by its place in the batch.
    pub(super) command: usize,
    pub(super) caller: Id,
    pub(super) decision: Decision,
    pub(super) waived: Vec<Waived>,
}

/// An answer to be.
#[derive(Debug)]
pub(super) enum Answer {
    /// Holds whatever becomes of the batch: it says what is durable already, or that nothing was
    /// done.
    Firm(Result<Reply, SequencerError>),
    /// Holds once the batch is durable.
    OnCommit(Result<Reply, SequencerError>),
    /// Those drafts, once they are signed and durable.
    Decisions(Vec<usize>),
    /// The state once the batch is durable.
    Snapshot,
    /// A page of it.
    Report,
    /// Whether what was erased is gone for good.
    Purge,
}

/// A batch that was applied to the ledger and is neither signed nor durable.
#[derive(Debug, Default)]
pub(super) struct Staged<'a> {
    pub(super) drafts: Vec<Draft>,
    /// What is stored beside the decisions, with their drafts' numbers for positions.
    pub(super) records: Vec<Record<'a>>,
    /// One for each command.
    pub(super) answers: Vec<Answer>,
    /// Positions of decisions whose personal values go.
    pub(super) erased: BTreeSet<u64>,
    /// What is active from here on, if that has changed.
    pub(super) active: Option<Activation>,
    /// Drafts of the requests that are decided in this batch.
    decided: HashMap<(&'a Id, &'a Id), usize>,
}

/// The ledger contradicts itself, or the store cannot be read: the batch cannot be carried out.
#[derive(Debug)]
pub(super) struct Abort(pub(super) String);

/// What staging reads and changes.
pub(super) struct Stage<'w> {
    pub(super) ledger: &'w mut Ledger,
    pub(super) store: &'w Store,
    pub(super) options: &'w Options,
    pub(super) name: &'w str,
    pub(super) active: &'w Activation,
    pub(super) steady: &'w mut Steady,
}

/// A failure of one command, or of the batch.
enum Failure {
    Command(SequencerError),
    Batch(Abort),
}

impl From<SequencerError> for Failure {
    fn from(error: SequencerError) -> Self {
        Self::Command(error)
    }
}

impl From<JudgeError> for Failure {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Malformed(_) => Self::Command(error.into()),
            JudgeError::Broken => Self::Batch(Abort("the ledger's books are wrong".to_owned())),
        }
    }
}

impl From<SettleError> for Failure {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Broken => Self::Batch(Abort(error.to_string())),
            other => Self::Command(other.into()),
        }
    }
}

fn abort(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut reason = error.to_string();
    if let Some(cause) = error.source() {
        reason = format!("{reason}: {cause}");
    }
    Failure::Batch(Abort(reason))
}

impl<'w> Stage<'w> {
    /// Applies a batch. `tick` is the time by the system's clock, where it counts: what is due by
    /// then expires even if no command says so. `too_long` are the commands whose decisions turned
    /// out to be longer than a leaf can be.
    pub(super) fn apply<'a>(
        &mut self,
        batch: &'a [Queued],
        tick: Option<u64>,
        too_long: &[usize],
    ) -> Result<Staged<'a>, Abort> {
        let mut staged = Staged::default();
        for (number, queued) in batch.iter().enumerate() {
            let answer = if too_long.contains(&number) {
                Ok(Answer::Firm(Err(SequencerError::TooLong)))
            } else {
                self.command(number, &queued.command, &mut staged)
            };
            staged.answers.push(match answer {
                Ok(answer) => answer,
                Err(Failure::Command(error)) => Answer::OnCommit(Err(error)),
                Err(Failure::Batch(abort)) => return Err(abort),
            });
        }
        let looks = batch.iter().any(|queued| queued.command.looks());
        // A clock that has jumped ends nothing.
        if let Some(now) = tick.filter(|now| self.steady.take(*now).is_ok())
            && (looks || self.ledger.next_due().is_some_and(|due| due <= now))
        {
            let expired = self.ledger.advance(now);
            staged.expire(expired.map_err(|error| Abort(error.to_string()))?);
        }
        Ok(staged)
    }

    fn command<'a>(
        &mut self,
        number: usize,
        command: &'a Command,
        staged: &mut Staged<'a>,
    ) -> Result<Answer, Failure> {
        match command {
            Command::Propose(members) => self.propose(number, members, staged),
            Command::Probe(proposal) => self.probe(proposal, staged),
            Command::Settle(settle) => self.settle(settle, staged),
            Command::Activate(activation, time) => {
                let now = self.advance(*time, staged)?;
                staged.activate(self.ledger, self.active, activation, now)?;
                Ok(Answer::OnCommit(Ok(Reply::Activated)))
            }
            Command::Freeze(order) => self.freeze(order, staged),
            Command::Erase(erase) => self.erase(erase, staged),
            Command::Purge => Ok(Answer::Purge),
            Command::Inspect => Ok(Answer::Snapshot),
            Command::Usage(..) | Command::Reservations(..) => Ok(Answer::Report),
            // Cosignatures are added beside the batch.
            Command::Cosign(_) | Command::Close => Ok(Answer::Firm(Err(SequencerError::Stopped))),
        }
    }

    /// Moves on to the time of a command, and ends what is due before it.
    fn advance(&mut self, time: u64, staged: &mut Staged<'_>) -> Result<u64, Failure> {
        self.check_jump(time)?;
        let high_water = self.ledger.now();
        let back = high_water.saturating_sub(time);
        let bound = match self.options.clock {
            _ if self.ledger.breaks(Defect::ClockMayGoBack) => u64::MAX,
            Clock::Events => 0,
            Clock::System => MAX_BACKWARD_SECONDS,
        };
        if back > bound {
            return Err(SequencerError::ClockWentBack { time, high_water }.into());
        }
        // Only forward: a leaf is never older than the one before.
        let expired = self.ledger.advance(time.max(high_water));
        staged.expire(expired.map_err(|error| abort(&error))?);
        Ok(self.ledger.now())
    }

    /// Refuses a time that no clock shows which only runs.
    fn check_jump(&mut self, time: u64) -> Result<(), SequencerError> {
        if time > MAX_TIME {
            return Err(SequencerError::TimeOutOfRange { time });
        }
        match self.options.clock {
            Clock::Events => Ok(()),
            Clock::System => self
                .steady
                .take(time)
                .map_err(|expected| SequencerError::ClockJumped { time, expected }),
        }
    }

    /// Decides what is asked together: one request, or a gang.
    fn propose<'a>(
        &mut self,
        command: usize,
        members: &'a [(Proposal, Evidence)],
        staged: &mut Staged<'a>,
    ) -> Result<Answer, Failure> {
        // A repeat is answered before its time is looked at: whoever lost an answer sends the same
        // event again.
        if let Some(answer) = self.repeated(members, staged)? {
            return Ok(answer);
        }
        let mut time = 0;
        for (proposal, _) in members {
            self.check_active(proposal, staged)?;
            time = proposal.time.max(time);
        }
        let now = self.advance(time, staged)?;
        let mut drafts = Vec::with_capacity(members.len());
        for ((proposal, evidence), mut judged) in members.iter().zip(self.judge(members)?) {
            let place = (now, self.name);
            // A waiver is in the log before what is decided by it.
            let first_uses = std::mem::take(&mut judged.first_uses);
            if !self.ledger.breaks(Defect::WaiverNotLogged) {
                let leaves = first_uses.into_iter().map(|event| log::leaf(now, event));
                staged.drafts.extend(leaves.map(Draft::Leaf));
            }
            let waived = judged.waived.clone();
            let decision = decide::decision(proposal, *evidence, judged, self.options, place);
            drafts.push(self.draft(command, proposal, (decision, waived), staged));
        }
        Ok(Answer::Decisions(drafts))
    }

    /// The answer to what was decided before: all of it, in this batch or an earlier one.
    fn repeated(
        &self,
        members: &[(Proposal, Evidence)],
        staged: &Staged<'_>,
    ) -> Result<Option<Answer>, Failure> {
        let (mut drafts, mut stored, mut last) = (Vec::new(), Vec::new(), None);
        let mut names = HashSet::with_capacity(members.len());
        for (proposal, _) in members {
            let request_id = &proposal.request.request_id;
            if !names.insert((&proposal.caller, request_id)) {
                return Err(reused(proposal).into());
            }
            if let Some(draft) = staged.decided.get(&(&proposal.caller, request_id)) {
                if !staged.repeats(proposal, *draft) {
                    return Err(reused(proposal).into());
                }
                drafts.push(*draft);
                last = Some(proposal);
                continue;
            }
            let found = self.store.decision(self.name, &proposal.caller, request_id);
            let found = found.map_err(|error| abort(&error))?;
            let found = found.filter(|_| !self.ledger.breaks(Defect::RepeatDecidedAnew));
            let Some(found) = found else { continue };
            if !same(proposal, found.request_digest, &found.personal) {
                return Ok(Some(Answer::Firm(Err(reused(proposal)))));
            }
            let decision = log::read_claims(&found.token);
            let decision = decision.map_err(|what| Failure::Batch(Abort(what)))?;
            stored.push(decided(&decision, found.token, found.position, Vec::new()));
            last = Some(proposal);
        }
        // INVARIANT: a gang is decided as a whole, and its place in it is part of each request.
        match last {
            None => Ok(None),
            Some(_) if drafts.len() == members.len() => Ok(Some(Answer::Decisions(drafts))),
            Some(_) if stored.len() == members.len() => {
                Ok(Some(Answer::Firm(Ok(Reply::Decided(stored)))))
            }
            Some(_) if self.ledger.breaks(Defect::GangAnew) => Ok(None),
            Some(proposal) => Err(reused(proposal).into()),
        }
    }

    /// Holds what is admitted: everything that is asked together, or nothing of it.
    fn judge(&mut self, members: &[(Proposal, Evidence)]) -> Result<Vec<decide::Judged>, Failure> {
        let within = self.options.confirm_within_seconds;
        let mark = self.ledger.mark();
        let mut all = Vec::with_capacity(members.len());
        for (proposal, _) in members {
            let (caller, request_id) = (&proposal.caller, &proposal.request.request_id);
            let id = name::reservation_id(self.name, caller, request_id);
            match decide::judge(self.ledger, proposal, within, &id) {
                Ok(judged) => all.push(judged),
                Err(error) => {
                    self.ledger.undo(mark);
                    return Err(error.into());
                }
            }
        }
        let is_denied = all.iter().any(|judged| judged.effect() == Effect::Deny);
        if members.len() > 1 && is_denied && !self.ledger.breaks(Defect::GangInPart) {
            if !self.ledger.breaks(Defect::GangLeavesHold) {
                self.ledger.undo(mark);
            }
            let members: Vec<&Proposal> = members.iter().map(|(member, _)| member).collect();
            all = decide::deny_all(self.ledger, all, &members)?;
        }
        Ok(all)
    }

    /// Drafts a decision, the orders that go with it, and what is stored beside it.
    fn draft<'a>(
        &self,
        command: usize,
        proposal: &'a Proposal,
        (decision, waived): (Decision, Vec<Waived>),
        staged: &mut Staged<'a>,
    ) -> usize {
        let draft = staged.drafts.len();
        let request_id = &proposal.request.request_id;
        staged.decided.insert((&proposal.caller, request_id), draft);
        staged.records.push(Record {
            name: decision.jti.clone(),
            position: u64::try_from(draft).expect("a batch is far smaller than 2^64"),
            caller: &proposal.caller,
            request_id,
            request_digest: proposal.request_digest,
            input: proposal.input.as_deref(),
            evaluation: &proposal.evaluation,
            personal: &proposal.personal,
        });
        let caller = proposal.caller.clone();
        let end = |id: &Id| self.ledger.held(id).map(Reservation::end);
        let orders = decide::orders(&decision, end);
        let decision = DraftDecision { command, caller, decision, waived };
        staged.drafts.push(Draft::Decision(Box::new(decision)));
        let order = |order| Draft::Order(command, Box::new(order));
        if !self.ledger.breaks(Defect::OrderNotLogged) {
            staged.drafts.extend(orders.into_iter().map(order));
        }
        draft
    }

    /// Everything that proposing does to the ledger, and all of it taken back.
    fn probe(&mut self, proposal: &Proposal, staged: &Staged<'_>) -> Result<Answer, Failure> {
        self.check_active(proposal, staged)?;
        self.check_jump(proposal.time)?;
        let mark = self.ledger.mark();
        let time = proposal.time.max(self.ledger.now());
        let expired = self.ledger.advance(time).map_err(|error| abort(&error));
        let id = name::probe_id(self.name, &proposal.caller, &proposal.request.request_id);
        let within = self.options.confirm_within_seconds;
        let judged = expired.and_then(|_expired| {
            decide::judge(self.ledger, proposal, within, &id).map_err(Failure::from)
        });
        self.ledger.undo(mark);
        let judged = judged?;
        let (effect, reasons): (Effect, Vec<Reason>) = (judged.effect(), judged.reasons);
        Ok(Answer::OnCommit(Ok(Reply::Probed(effect, reasons))))
    }

    fn check_active(&self, proposal: &Proposal, staged: &Staged<'_>) -> Result<(), Failure> {
        let active = staged.active.as_ref().unwrap_or(self.active);
        let is_open = self.ledger.breaks(Defect::SupersededAccepted);
        if (proposal.bundle, proposal.facts) == (active.bundle.0, active.facts.0) || is_open {
            Ok(())
        } else {
            Err(SequencerError::Superseded.into())
        }
    }

    fn settle(&mut self, settle: &Settle, staged: &mut Staged<'_>) -> Result<Answer, Failure> {
        let id = match &settle.target {
            Target::ById(id) => id.clone(),
            Target::ByRequest(request_id) => {
                let id = name::reservation_id(self.name, &settle.caller, request_id);
                if !self.ledger.knows(&id) {
                    return self.settle_denied(settle, request_id, staged);
                }
                id
            }
        };
        self.ledger.check_holder(&id, &settle.tenant, &settle.caller)?;
        let confirm = settle.kind == SettleKind::Confirm;
        // What only repeats an earlier answer, or fails anyway, does not depend on the time.
        if self.ledger.would_change(&id, settle.epoch, confirm) {
            self.advance(settle.time, staged)?;
        }
        let outcome = if confirm {
            self.ledger.confirm(&id, settle.epoch)?
        } else {
            self.ledger.release(&id, settle.epoch)?
        };
        let settled = settled(&outcome);
        if outcome.changed {
            let (caller, epoch) = (settle.caller.clone(), outcome.epoch);
            let event = if confirm {
                Event::Confirmation { caller, epoch, reservation: id }
            } else {
                Event::Release { caller, epoch, refunds: outcome.refunds, reservation: id }
            };
            staged.drafts.push(Draft::Leaf(log::leaf(outcome.since, event)));
            // Jobs inside a lease end with it.
            if self.ledger.breaks(Defect::JobsEndLater) {
                return Ok(Answer::OnCommit(Ok(Reply::Settled(settled))));
            }
            let expired = self.ledger.advance(self.ledger.now());
            staged.expire(expired.map_err(|error| abort(&error))?);
        }
        Ok(Answer::OnCommit(Ok(Reply::Settled(settled))))
    }

    /// Freezes or thaws what an approver may, and logs the order.
    fn freeze(&mut self, order: &FreezeOrder, staged: &mut Staged<'_>) -> Result<Answer, Failure> {
        let now = self.advance(order.time, staged)?;
        let (id, token) = (order.order.name().clone(), order.token.clone());
        let (freeze, event) = match &order.order {
            Freezing::Freeze(claims) => {
                let digest = Digest::of(token.as_bytes());
                let changed = self.ledger.freeze(claims.clone(), digest);
                let changed = changed.map_err(SequencerError::Freeze)?;
                let standing = self.ledger.freezes().standing.get(&id).cloned();
                (standing, changed.then(|| Event::Freeze { id: id.clone(), token }))
            }
            Freezing::Thaw(claims, grant) => {
                let standing = self.ledger.freezes().standing.get(&id);
                if standing.is_some_and(|freeze| !grant.covers(&freeze.claims.scope)) {
                    return Err(SequencerError::FreezeOverBroad { name: id }.into());
                }
                let lifted = self.ledger.thaw(claims).map_err(SequencerError::Freeze)?;
                (Some(lifted), Some(Event::Thaw { id: id.clone(), token }))
            }
        };
        let freeze = freeze.ok_or_else(|| Abort("a freeze is not there".to_owned()));
        let freeze = freeze.map_err(Failure::Batch)?;
        let is_logged = !self.ledger.breaks(Defect::FreezeNotLogged);
        let leaf = event.filter(|_| is_logged).map(|event| Draft::Leaf(log::leaf(now, event)));
        staged.drafts.extend(leaf);
        Ok(Answer::OnCommit(Ok(Reply::Frozen(Box::new(freeze)))))
    }

    /// Erases what is kept, and says so in the log.
    fn erase(&mut self, erase: &Erase, staged: &mut Staged<'_>) -> Result<Answer, Failure> {
        if erase.positions.len() > MAX_ERASED {
            return Err(SequencerError::Malformed("names more decisions than one may").into());
        }
        // What somebody has a right to does not fail for a clock.
        let time = erase.time.max(self.ledger.now());
        if self.check_jump(time).is_ok() {
            self.advance(time, staged)?;
        }
        let now = self.ledger.now();
        let mut decisions = 0_u64;
        for position in &erase.positions {
            let own = *position..position.saturating_add(1);
            let kept = self.store.first_personal(&own).map_err(|error| abort(&error))?;
            if kept.is_some() && staged.erased.insert(*position) {
                decisions = decisions.saturating_add(1);
            }
        }
        if decisions > 0 {
            let event = Event::Erasure { caller: erase.caller.clone(), decisions };
            staged.drafts.push(Draft::Leaf(log::leaf(now, event)));
        }
        Ok(Answer::OnCommit(Ok(Reply::Erased(decisions))))
    }

    /// Settling a reservation that is not there: for a request that was denied that is an answer,
    /// not an error.
    fn settle_denied(
        &self,
        settle: &Settle,
        request_id: &Id,
        staged: &Staged<'_>,
    ) -> Result<Answer, Failure> {
        let none = |time| {
            Reply::Settled(Settled {
                reservation: None,
                state: None,
                epoch: 0,
                time,
                refunded_gpu_seconds: 0,
            })
        };
        if let Some(draft) = staged.decision_of(&settle.caller, request_id) {
            return match draft.decision.effect {
                Effect::Deny => Ok(Answer::OnCommit(Ok(none(draft.decision.iat)))),
                Effect::Permit => Err(SettleError::NotFound.into()),
            };
        }
        let stored = self.store.decision(self.name, &settle.caller, request_id);
        let stored = stored.map_err(|error| abort(&error))?.ok_or(SettleError::NotFound)?;
        let decision =
            log::read_claims(&stored.token).map_err(|what| Failure::Batch(Abort(what)))?;
        match decision.effect {
            Effect::Deny => Ok(Answer::Firm(Ok(none(decision.iat)))),
            // It was admitted and ended longer ago than the ledger remembers.
            Effect::Permit => Err(SettleError::NotFound.into()),
        }
    }
}

impl<'a> Staged<'a> {
    fn expire(&mut self, expired: Vec<Expired>) {
        self.drafts.extend(expired.into_iter().map(log::leaf_of_expiry).map(Draft::Leaf));
    }

    pub(super) fn activate(
        &mut self,
        ledger: &mut Ledger,
        before: &Activation,
        activation: &Activation,
        now: u64,
    ) -> Result<(), SequencerError> {
        let quotas = log::quota_events(ledger, &activation.quotas);
        if !quotas.is_empty() {
            let (mut changed, mut removed) = (Vec::new(), Vec::new());
            for event in &quotas {
                if let Event::Quotas { changed: more, removed: gone, .. } = event {
                    changed.extend(more.iter().cloned());
                    removed.extend(gone.iter().cloned());
                }
            }
            let set = ledger.set_quotas(&changed, &removed);
            set.map_err(|_no_forest| SequencerError::Malformed("brings quotas that are no trees"))?;
            let is_logged = |_: &Event| !ledger.breaks(Defect::QuotasNotLogged);
            let leaves = quotas.into_iter().filter(is_logged).map(|event| log::leaf(now, event));
            self.drafts.extend(leaves.map(Draft::Leaf));
        }
        let before = self.active.as_ref().unwrap_or(before).clone();
        if before.bundle != activation.bundle {
            let (digest, revision) = activation.bundle.clone();
            let event = Event::BundleActivation { digest, revision };
            self.drafts.push(Draft::Leaf(log::leaf(now, event)));
        }
        if before.facts != activation.facts {
            let (digest, revision) = activation.facts.clone();
            let event = Event::FactsActivation { digest, revision };
            self.drafts.push(Draft::Leaf(log::leaf(now, event)));
        }
        self.active = Some(activation.clone());
        Ok(())
    }

    fn decision_of(&self, caller: &Id, request_id: &Id) -> Option<&DraftDecision> {
        match self.drafts.get(*self.decided.get(&(caller, request_id))?) {
            Some(Draft::Decision(draft)) => Some(draft),
            Some(Draft::Leaf(_) | Draft::Order(..)) | None => None,
        }
    }

    /// Whether the request that a draft decides is this one.
    fn repeats(&self, proposal: &Proposal, draft: usize) -> bool {
        let position = u64::try_from(draft).expect("a batch is far smaller than 2^64");
        let first = self.records.iter().find(|record| record.position == position);
        first.is_some_and(|first| same(proposal, first.request_digest, first.personal))
    }
}

/// Whether a request is the one that was decided. Salts are fresh each time, and erased values
/// cannot be compared.
fn same(proposal: &Proposal, digest: Digest, personal: &[Personal]) -> bool {
    let kept = |first: &Personal| {
        proposal.personal.iter().any(|own| (&own.path, &own.value) == (&first.path, &first.value))
    };
    proposal.request_digest == digest && personal.iter().all(kept)
}

fn reused(proposal: &Proposal) -> SequencerError {
    SequencerError::RequestIdReused { request_id: proposal.request.request_id.clone() }
}

pub(super) fn decided(
    decision: &Decision,
    token: String,
    position: u64,
    waived: Vec<Waived>,
) -> Decided {
    let codes = decision.reasons.iter().map(|reason| reason.code.clone()).collect();
    Decided { token, effect: decision.effect, position, codes, waived }
}

fn settled(outcome: &Outcome) -> Settled {
    Settled {
        reservation: Some(outcome.reservation.clone()),
        state: Some(outcome.state),
        epoch: outcome.epoch,
        time: outcome.since,
        refunded_gpu_seconds: outcome.refunded_gpu_seconds,
    }
}
