//! The rules of quota: what may be held, by whom, until when. Pure: no I/O and no clock; time
//! enters by [`Ledger::advance`] and never goes back.
//!
//! An account is of one of two kinds. A *level* account is held over an interval and free again
//! after it: its use is a step function of time. A *budget* account is used up: its use outlives
//! the reservation, and only an early release gives some of it back. Level accounts may stand in
//! trees, in which they borrow and lend ([`Ledger::set_quotas`]).
//!
//! Every change is journalled until it is kept, so that a batch which could not be made
//! durable, or a question that was only hypothetical, is taken back exactly.
//!
//! # Invariants
//! Checked when written, and once more from scratch by [`Ledger::audit`]:
//! - on a level account, at every second, the sum of the live reservations' charges is its use, and
//!   at most the highest limit that one of these charges was admitted under;
//! - an account with others below it in a tree holds, at every second, what is charged to it and
//!   what flows up from them;
//! - on a budget account, what live reservations charged and what ended ones used is its use, and
//!   at most the limit that the latest charge was admitted under;
//! - every live reservation is due exactly once, and nothing that is due lies in the past.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, clippy::indexing_slicing))]

mod approved;
mod audit;
mod cohorts;
mod defect;
mod extend;
mod fit;
mod journal;
mod lease;
mod preempt;
mod report;
mod reserve;
mod snapshot;
mod spared;
mod timeline;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use placet_core::{
    AccountKind, AccountPath, Charge, ExpiryCause, Grant, Id, PriorityClass, Refund,
    ReservationState, SlaTerms, SubjectKind, Unit,
};

use approved::WaiverUse;
pub use approved::{Freeze, FreezeError, Freezes, MAX_FREEZES, MAX_WAIVERS_IN_USE, WaiverError};
pub use audit::AuditError;
pub(crate) use cohorts::MAX_NODES_IN_LEAF;
use cohorts::Nodes;
pub use cohorts::{MAX_TREE_DEPTH, QuotasError};
pub use defect::Defect;
pub use extend::{ExtendError, MAX_TERMS};
pub use fit::Fit;
use journal::{Journal, Undo};
pub use lease::{LEASE_ACCOUNTS, LeaseError, MAX_JOBS_INSIDE};
use preempt::Plan;
pub use preempt::{MAX_VICTIMS, Order};
pub use report::{
    AccountNames, AccountUse, Accounts, Due, Filter, MAX_LOOKED_AT, MAX_PAGE_CHARGES,
    MAX_RESERVATIONS_PAGE, MAX_USAGE_PAGE,
};
pub(crate) use snapshot::{FORMAT, ItemError, MAX_ITEM_BYTES, Restoring, VisitError, subject};
use spared::LastEvictions;
pub use spared::MAX_STARTS_TRIED;
use timeline::{Broken, Timeline};

/// Ended reservations that are remembered, the latest to end: enough for every retry that is still
/// under way, at some 300 bytes each. Older ones are in the log alone, and settling them again
/// finds nothing.
pub const MAX_ENDED: usize = 131_072;
/// Most charges of one reservation: each is work for the one writer.
pub const MAX_CHARGES: usize = 256;
/// Epoch of a fresh reservation.
pub const FIRST_EPOCH: u64 = 1;

/// What is to be held, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// Name of the reservation, never used before.
    pub id: Id,
    /// Who pays.
    pub tenant: Id,
    /// Who asked, and may settle it.
    pub caller: Id,
    /// Whom it may displace, and who may displace it.
    pub class: PriorityClass,
    /// What runs.
    pub work: Arc<Work>,
    /// First second: now or later.
    pub start: u64,
    /// First second after it.
    pub end: u64,
    /// First second at which it is too late to confirm: after now, at most `end`.
    pub confirm_by: u64,
    /// What is held: 0..=256 charges, each account once. `limit` is what use may come up to.
    pub charges: Vec<Charge>,
    /// What it is promised should it be displaced; absent if nothing.
    pub terms: Option<SlaTerms>,
}

/// What runs on what is held: it stays the same when a reservation goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// A lease may have jobs inside.
    pub kind: SubjectKind,
    /// What is granted.
    pub grant: Grant,
    /// The reservation of the lease inside which a job runs.
    pub lease_id: Option<Id>,
}

impl Work {
    /// Thousandths of a GPU at work: what a second of it is worth when it is displaced.
    #[must_use]
    pub fn milli_gpus(&self) -> u64 {
        u64::from(self.grant.gpu_count).saturating_mul(u64::from(self.grant.gpu_milli))
    }
}

/// A stretch of a reservation's time, and what it charges for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// First second.
    pub start: u64,
    /// First second after it.
    pub end: u64,
    /// What is held: each account once.
    pub charges: Vec<Charge>,
}

/// What is held for a booking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// What was asked for at first.
    pub booking: Booking,
    /// By what it was made longer, each from the end of the one before: 0..=63.
    pub extensions: Vec<Term>,
    /// Fencing epoch: a confirm or a release that names another is refused.
    pub epoch: u64,
    /// `Reserved` or `Active`: others are not held.
    pub state: ReservationState,
    /// When the state was reached, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// What it was told if it has to make room for another.
    pub order: Option<Order>,
    /// Who has to make room for it, until it is confirmed.
    plan: Option<Plan>,
    /// When the lease ended inside which it ran.
    cut: Option<u64>,
}

impl Reservation {
    /// First second after all of its time, as it was decided.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.extensions.last().map_or(self.booking.end, |term| term.end)
    }

    /// Its time in order: what was asked for at first, and by what it was made longer.
    fn terms(&self) -> impl Iterator<Item = (u64, u64, &[Charge])> {
        let Booking { start, end, charges, .. } = &self.booking;
        let more = self.extensions.iter().map(|term| (term.start, term.end, &*term.charges));
        std::iter::once((*start, *end, &**charges)).chain(more)
    }

    /// What it charges for the time that runs now, or runs first.
    #[must_use]
    pub fn charges_at(&self, now: u64) -> &[Charge] {
        let begun = self.extensions.iter().rev().find(|term| term.start <= now);
        begun.map_or(&self.booking.charges, |term| &term.charges)
    }

    /// When it ends by itself unless something happens before, whatever becomes of a lease.
    fn own_due(&self) -> u64 {
        match self.state {
            ReservationState::Reserved => self.booking.confirm_by,
            ReservationState::Active
            | ReservationState::Released
            | ReservationState::Expired
            | ReservationState::Revoked => self.until(),
        }
    }

    /// When it ends by itself unless something happens before.
    fn due(&self) -> u64 {
        self.cut.map_or(self.own_due(), |cut| cut.min(self.own_due()))
    }
}

/// Budget that is given back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Back {
    /// By account, in the order of the charges.
    refunds: Vec<Refund>,
    /// GPU-seconds: of each term the most that any one account of that unit gets, because a lease
    /// that is charged to a month's and a year's budget gives the same GPU-seconds back to both.
    gpu_seconds: u64,
}

/// What is remembered of a reservation that is no longer held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ended {
    /// Number in the order of ending.
    number: u64,
    tenant: Id,
    caller: Id,
    epoch: u64,
    state: ReservationState,
    since: u64,
    /// Why it expired, if it did.
    cause: Option<ExpiryCause>,
    refunded_gpu_seconds: u64,
}

/// A charge that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which of the booking's charges, from 0.
    pub index: usize,
    /// Its account.
    pub account: AccountPath,
    /// The account where it does not fit: its own, or one above it in its tree.
    pub binding: AccountPath,
    /// What was asked, in the account's unit.
    pub requested: u64,
    /// What use of the binding account may come up to.
    pub limit: u64,
    /// Highest use of the binding account within the interval.
    pub peak_use: u64,
    /// How much of it would fit over the whole interval.
    pub free: u64,
    /// No start before this second would help; `None` if none ever does, or none that the ledger
    /// can tell: a budget is not given back by time.
    pub until: Option<u64>,
}

/// Why nothing was held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// These charges do not fit, in the booking's order; at least one.
    #[error("{} charges do not fit", .0.len())]
    Refused(Vec<Refusal>),
    /// The account holds amounts of another kind or unit: the facts have changed their meaning
    /// meanwhile.
    #[error("the account `{account}` holds amounts of another kind or unit")]
    Mismatch {
        /// Which of the booking's charges, from 0.
        index: usize,
        /// Its account.
        account: AccountPath,
    },
    /// The booking makes no sense, whatever is held.
    #[error("the booking {0}")]
    Malformed(&'static str),
    /// The ledger contradicts itself: a bug, found before anything was changed for good.
    #[error("the ledger's books are wrong")]
    Broken,
}

/// Why a reservation was not settled. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// No reservation of this name is held or remembered.
    #[error(
        "there is no such reservation\n\
         hint: it may have ended long ago; the log has it"
    )]
    NotFound,
    /// It belongs to another tenant or caller.
    #[error("the reservation belongs to another tenant or caller")]
    NotYours,
    /// Another epoch is current.
    #[error(
        "the epoch is stale: {current} is current\nhint: read the reservation's latest decision"
    )]
    StaleEpoch {
        /// The current one.
        current: u64,
    },
    /// It is no longer held.
    #[error("the reservation has ended: it is {state:?}")]
    AlreadyEnded {
        /// How.
        state: ReservationState,
    },
    /// It expired because it was not confirmed in time.
    #[error("the reservation was not confirmed in time\nhint: ask again with a new request id")]
    ConfirmDeadlinePassed,
    /// A freeze keeps it from beginning.
    #[error("the freeze `{name}` keeps it from beginning: {reason}")]
    Frozen {
        /// Name of the freeze.
        name: Id,
        /// Why it was ordered.
        reason: String,
    },
    /// The ledger contradicts itself: a bug, found before anything was changed for good.
    #[error("the ledger's books are wrong")]
    Broken,
}

/// What became of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which reservation.
    pub reservation: Id,
    /// Where it stands.
    pub state: ReservationState,
    /// Its current epoch.
    pub epoch: u64,
    /// When the state was reached.
    pub since: u64,
    /// Budget given back, in the order of the charges; empty if this only repeats an earlier
    /// outcome.
    pub refunds: Vec<Refund>,
    /// GPU-seconds given back: of each stretch of its time the most that any one account of that
    /// unit got, because a lease that is charged to a month's and a year's budget gives the same
    /// GPU-seconds back to both.
    pub refunded_gpu_seconds: u64,
    /// Whether anything changed; false if this repeats an earlier outcome.
    pub changed: bool,
}

/// A reservation that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// When: its confirm deadline or its end, at most the time to which the ledger advanced.
    pub at: u64,
    /// Which reservation.
    pub reservation: Id,
    /// Its epoch.
    pub epoch: u64,
    /// Why.
    pub cause: ExpiryCause,
    /// Budget given back.
    pub refunds: Vec<Refund>,
}

/// A budget account's use, apart by what may still change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Budget {
    /// Charged by reservations that are held.
    held: u64,
    /// Used by reservations that ended.
    used: u64,
    /// What the latest charge was admitted under.
    limit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Account {
    Level(Unit, Timeline),
    Budget(Unit, Budget),
}

impl Account {
    fn fits(&self, kind: AccountKind, unit: Unit) -> bool {
        match self {
            Self::Level(own, _) => kind == AccountKind::Level && unit == *own,
            Self::Budget(own, _) => kind == AccountKind::Budget && unit == *own,
        }
    }
}

/// Everything that is held. One owner: the sequencer's thread.
#[derive(Debug, Default)]
pub struct Ledger {
    now: u64,
    accounts: HashMap<AccountPath, Account>,
    live: HashMap<Id, Reservation>,
    /// When each live reservation ends by itself. Those due in the same second end in the order of
    /// their names.
    due: BTreeSet<(u64, Id)>,
    ended: HashMap<Id, Ended>,
    /// The ended ones in the order of ending.
    ended_order: BTreeMap<u64, Id>,
    journal: Journal,
    nodes: Nodes,
    /// Reservations that others may displace: by level account, in the order of their starts.
    displaceable: HashMap<AccountPath, BTreeSet<(u64, Id)>>,
    /// Jobs that run inside leases, by lease.
    inside: HashMap<Id, BTreeSet<Id>>,
    /// Waivers that were used and whose time is not over.
    waivers: BTreeMap<Id, WaiverUse>,
    /// When the time of each of them is over.
    waivers_due: BTreeSet<(u64, Id)>,
    freezes: Arc<Freezes>,
    evicted: LastEvictions,
    /// The rule that is broken on purpose.
    #[cfg(feature = "defects")]
    defect: Option<Defect>,
}

impl Ledger {
    /// The time up to which everything due has been done, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// When something ends by itself next.
    #[must_use]
    pub fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Reservations that are held.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Whether the name was used, as far as the ledger remembers.
    #[must_use]
    pub fn knows(&self, id: &Id) -> bool {
        self.live.contains_key(id) || self.ended.contains_key(id)
    }

    /// Use of an account now: `None` if nothing was ever charged to it or a level account is empty.
    #[must_use]
    pub fn usage(&self, account: &AccountPath) -> Option<u64> {
        if let Some(node) = self.nodes.get(account)
            && let Some(level) = self.level_of(node)
        {
            return level.level(self.now).ok();
        }
        match self.accounts.get(account)? {
            Account::Level(_, timeline) => timeline.level(self.now).ok(),
            Account::Budget(_, budget) => budget.held.checked_add(budget.used),
        }
    }

    /// Ends what is due up to `to`, then moves on to it. Earlier times change nothing.
    ///
    /// The order is that of the due times, and of the names within one second.
    ///
    /// # Errors
    /// If the books are wrong.
    pub fn advance(&mut self, to: u64) -> Result<Vec<Expired>, ReserveError> {
        let mut expired = Vec::new();
        while let Some(one) = self.expire_next(to)? {
            expired.push(one);
        }
        self.set_now(self.now.max(to));
        Ok(expired)
    }

    /// Ends the first that is due up to `to`, if any, and moves on to its time only.
    ///
    /// # Errors
    /// If the books are wrong.
    pub(crate) fn expire_next(&mut self, to: u64) -> Result<Option<Expired>, ReserveError> {
        let to = self.spoil_due(to);
        let Some((at, id)) = self.due.first().filter(|(at, _)| *at <= to).cloned() else {
            return Ok(None);
        };
        self.set_now(self.now.max(at));
        let reservation = self.live.get(&id).cloned().ok_or(ReserveError::Broken)?;
        let evicted = reservation.order.as_ref().is_some_and(|order| order.effective);
        let is_confirmed = reservation.state != ReservationState::Reserved;
        let (cause, state) = if at < reservation.own_due() {
            (ExpiryCause::LeaseEnded, ReservationState::Revoked)
        } else if !is_confirmed {
            (ExpiryCause::Unconfirmed, ReservationState::Expired)
        } else if evicted {
            (ExpiryCause::Evicted, ReservationState::Revoked)
        } else {
            (ExpiryCause::Ended, ReservationState::Expired)
        };
        // At its own end nothing lies ahead.
        let back = if is_confirmed { rest_of(&reservation, at) } else { all_of(&reservation) };
        let back = back.ok_or(ReserveError::Broken)?;
        let back = self.spoil_expiry(&reservation, cause, back);
        let end = (state, Some(cause));
        self.end(&reservation, end, &back).map_err(|Broken| ReserveError::Broken)?;
        let epoch = reservation.epoch;
        Ok(Some(Expired { at, reservation: id, epoch, cause, refunds: back.refunds }))
    }

    /// Makes a reservation active.
    ///
    /// # Errors
    /// [`SettleError`]; nothing has changed then.
    pub fn confirm(&mut self, id: &Id, epoch: u64) -> Result<Outcome, SettleError> {
        let Some(reservation) = self.live.get(id) else {
            let ended = self.ended.get(id).ok_or(SettleError::NotFound)?;
            check_epoch(ended.epoch, epoch)?;
            if self.breaks(Defect::LateConfirmAccepted) {
                return Ok(defect::confirmed(id, ended));
            }
            return Err(match ended.cause {
                Some(ExpiryCause::Unconfirmed) => SettleError::ConfirmDeadlinePassed,
                Some(ExpiryCause::Ended | ExpiryCause::Evicted | ExpiryCause::LeaseEnded)
                | None => SettleError::AlreadyEnded { state: ended.state },
            });
        };
        if !self.breaks(Defect::StaleEpochAccepted) {
            check_epoch(reservation.epoch, epoch)?;
        }
        let changed = reservation.state == ReservationState::Reserved;
        let mut reservation = reservation.clone();
        if changed {
            let frozen = self.frozen(&reservation.booking);
            if let Some(freeze) = frozen.filter(|_| !self.breaks(Defect::FrozenConfirmed)) {
                let (name, reason) = (freeze.claims.jti.clone(), freeze.claims.reason.clone());
                return Err(SettleError::Frozen { name, reason });
            }
            reservation.state = ReservationState::Active;
            reservation.since = self.now;
            let mark = self.mark();
            // Whom it displaces goes now, or nothing changes at all.
            self.take_effect(&mut reservation).map_err(|Broken| {
                self.undo(mark);
                SettleError::Broken
            })?;
            self.set_live(id.clone(), Some(reservation.clone()));
        }
        Ok(Outcome {
            reservation: id.clone(),
            state: reservation.state,
            epoch,
            since: reservation.since,
            refunds: Vec::new(),
            refunded_gpu_seconds: 0,
            changed,
        })
    }

    /// Ends a reservation from now on.
    ///
    /// What it held of level accounts is free from now on, and jobs inside a lease are due now. Of
    /// a budget charge of `amount` over `[start, end)`, `amount * remaining / (end - start)` is
    /// given back, rounded down, where `remaining` is what lies ahead of now: so the charge less
    /// the refund is never below the part that was used. A reservation that was never confirmed did
    /// no work and gets all of it back, as it would by expiring.
    ///
    /// # Errors
    /// [`SettleError`]; nothing has changed then.
    pub fn release(&mut self, id: &Id, epoch: u64) -> Result<Outcome, SettleError> {
        let Some(reservation) = self.live.get(id).cloned() else {
            return self.released_before(id, epoch);
        };
        check_epoch(reservation.epoch, epoch)?;
        let now = self.now;
        let is_confirmed = reservation.state != ReservationState::Reserved;
        let back = if is_confirmed { rest_of(&reservation, now) } else { all_of(&reservation) };
        let back = self.spoil_release(&reservation, back.ok_or(SettleError::Broken)?);
        let mark = self.mark();
        let end = (ReservationState::Released, None);
        self.end(&reservation, end, &back).map_err(|Broken| {
            self.undo(mark);
            SettleError::Broken
        })?;
        Ok(Outcome {
            reservation: id.clone(),
            state: ReservationState::Released,
            epoch,
            since: now,
            refunded_gpu_seconds: back.gpu_seconds,
            refunds: back.refunds,
            changed: true,
        })
    }

    fn released_before(&self, id: &Id, epoch: u64) -> Result<Outcome, SettleError> {
        let ended = self.ended.get(id).ok_or(SettleError::NotFound)?;
        check_epoch(ended.epoch, epoch)?;
        if ended.state != ReservationState::Released {
            return Err(SettleError::AlreadyEnded { state: ended.state });
        }
        Ok(Outcome {
            reservation: id.clone(),
            state: ended.state,
            epoch,
            since: ended.since,
            refunds: Vec::new(),
            refunded_gpu_seconds: ended.refunded_gpu_seconds,
            changed: self.breaks(Defect::ReleaseRepeated),
        })
    }

    /// Whether confirming (or releasing) would change anything; errors are left to the call itself.
    pub(crate) fn would_change(&self, id: &Id, epoch: u64, confirm: bool) -> bool {
        self.live.get(id).is_some_and(|reservation| {
            let done = confirm && reservation.state == ReservationState::Active;
            reservation.epoch == epoch && !done
        })
    }

    /// Checks that a reservation belongs to a tenant and a caller.
    ///
    /// # Errors
    /// `NotFound` or `NotYours`.
    pub fn check_holder(&self, id: &Id, tenant: &Id, caller: &Id) -> Result<(), SettleError> {
        let live = self.live.get(id).map(|held| (&held.booking.tenant, &held.booking.caller));
        let ended = || self.ended.get(id).map(|ended| (&ended.tenant, &ended.caller));
        let holder = live.or_else(ended).ok_or(SettleError::NotFound)?;
        let is_open = self.breaks(Defect::AnybodySettles);
        if holder == (tenant, caller) || is_open { Ok(()) } else { Err(SettleError::NotYours) }
    }

    /// A budget, whose use is journalled as it is now.
    fn budget_mut(&mut self, account: &AccountPath) -> Result<&mut Budget, Broken> {
        let Some(Account::Budget(_, budget)) = self.accounts.get_mut(account) else {
            return Err(Broken);
        };
        self.journal.push(Undo::Budget(account.clone(), *budget));
        Ok(budget)
    }

    /// Takes a live reservation's charges off the accounts and remembers how it ended. Now is when
    /// it ends.
    fn end(
        &mut self,
        reservation: &Reservation,
        (state, cause): (ReservationState, Option<ExpiryCause>),
        back: &Back,
    ) -> Result<(), Broken> {
        let booking = &reservation.booking;
        self.before_end(reservation)?;
        let is_released = state == ReservationState::Released;
        if !self.spoil_levels(is_released) {
            self.book_out(reservation)?;
        }
        let charges = reservation.terms().flat_map(|(_, _, charges)| charges);
        for charge in charges.filter(|one| one.kind == AccountKind::Budget) {
            let budget = self.budget_mut(&charge.account)?;
            budget.held = budget.held.checked_sub(charge.amount).ok_or(Broken)?;
            budget.used = budget.used.checked_add(charge.amount).ok_or(Broken)?;
        }
        for refund in &back.refunds {
            let budget = self.budget_mut(&refund.account)?;
            budget.used = budget.used.checked_sub(refund.amount).ok_or(Broken)?;
        }
        if !(is_released && self.breaks(Defect::ReleasedAgain)) {
            self.set_live(booking.id.clone(), None);
        }
        self.after_end(reservation)?;
        self.cut_jobs(&booking.id);
        let number = self.ended_order.last_key_value().map_or(0, |(number, _)| *number);
        let number = number.checked_add(1).ok_or(Broken)?;
        let ended = Ended {
            number,
            tenant: booking.tenant.clone(),
            caller: booking.caller.clone(),
            epoch: reservation.epoch,
            state,
            since: self.now,
            cause,
            refunded_gpu_seconds: back.gpu_seconds,
        };
        self.set_ended(booking.id.clone(), Some(ended));
        if self.ended.len() > MAX_ENDED
            && let Some((_, oldest)) = self.ended_order.first_key_value()
        {
            let oldest = oldest.clone();
            self.set_ended(oldest, None);
        }
        Ok(())
    }
}

fn check_epoch(current: u64, named: u64) -> Result<(), SettleError> {
    if current == named { Ok(()) } else { Err(SettleError::StaleEpoch { current }) }
}

/// What is given back of a reservation's budget charges; amounts of 0 are left out.
fn back(
    reservation: &Reservation,
    amount: impl Fn((u64, u64), &Charge) -> Option<u64>,
) -> Option<Back> {
    let mut back = Back::default();
    for (start, end, charges) in reservation.terms() {
        let mut gpu_seconds = 0;
        for charge in charges.iter().filter(|charge| charge.kind == AccountKind::Budget) {
            let amount = amount((start, end), charge)?;
            if charge.unit == Unit::GpuSecond {
                gpu_seconds = amount.max(gpu_seconds);
            }
            let before = back.refunds.iter_mut().find(|refund| refund.account == charge.account);
            match before {
                _ if amount == 0 => {}
                Some(refund) => refund.amount = refund.amount.checked_add(amount)?,
                None => back.refunds.push(Refund { account: charge.account.clone(), amount }),
            }
        }
        back.gpu_seconds = back.gpu_seconds.checked_add(gpu_seconds)?;
    }
    Some(back)
}

/// What no second of was used.
fn all_of(reservation: &Reservation) -> Option<Back> {
    back(reservation, |_, charge| Some(charge.amount))
}

/// What lies ahead of `now`.
fn rest_of(reservation: &Reservation, now: u64) -> Option<Back> {
    back(reservation, |term, charge| unused(term, charge.amount, now))
}

/// The part of an amount over an interval that lies ahead of `now`, rounded down.
fn unused((start, end): (u64, u64), amount: u64, now: u64) -> Option<u64> {
    let length = end.checked_sub(start)?;
    let remaining = end.saturating_sub(now.max(start));
    let product = u128::from(amount).checked_mul(u128::from(remaining))?;
    u64::try_from(product.checked_div(u128::from(length))?).ok()
}
