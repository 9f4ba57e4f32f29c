//! Holding what a booking charges: all of it or nothing.

use std::collections::BTreeSet;

use placet_core::{AccountKind, Charge, MAX_AMOUNT, ReservationState};

use super::cohorts::Segment;
use super::journal::Undo;
use super::timeline::{Broken, Timeline};
use super::{
    Account, Booking, Budget, FIRST_EPOCH, Ledger, MAX_CHARGES, Refusal, Reservation, ReserveError,
};

impl Ledger {
    /// Holds all charges of a booking or none.
    ///
    /// # Errors
    /// [`ReserveError`] says what is in the way; nothing has changed then.
    pub fn reserve(&mut self, booking: Booking) -> Result<Reservation, ReserveError> {
        check_booking(&booking, self.now)?;
        if self.knows(&booking.id) {
            return Err(ReserveError::Malformed("has a name that was used before"));
        }
        self.hold(&booking)?;
        let reservation = Reservation {
            booking,
            epoch: FIRST_EPOCH,
            state: ReservationState::Reserved,
            since: self.now,
        };
        self.set_live(reservation.booking.id.clone(), Some(reservation.clone()));
        Ok(reservation)
    }

    /// Books the charges of a booking that makes sense, or none of them.
    pub(super) fn hold(&mut self, booking: &Booking) -> Result<(), ReserveError> {
        let mark = self.mark();
        let mut refusals = Vec::new();
        for (index, charge) in booking.charges.iter().enumerate() {
            // Each is looked at after those before it are held: they may share a cohort.
            let held = match self.refusal(index, charge, booking) {
                Ok(None) => self.hold_one(charge, booking).map_err(|Broken| ReserveError::Broken),
                Ok(Some(refusal)) => {
                    refusals.push(refusal);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = held {
                self.undo(mark);
                return Err(error);
            }
        }
        if refusals.is_empty() {
            return Ok(());
        }
        self.undo(mark);
        Err(ReserveError::Refused(refusals))
    }

    /// Why a charge cannot be held, if it cannot.
    fn refusal(
        &self,
        index: usize,
        charge: &Charge,
        booking: &Booking,
    ) -> Result<Option<Refusal>, ReserveError> {
        let Charge { account, amount, kind, limit, unit } = charge;
        let own = self.accounts.get(account);
        if own.is_some_and(|own| !own.fits(*kind, *unit)) || !self.node_fits(account, *kind, *unit)
        {
            return Err(ReserveError::Mismatch { index, account: account.clone() });
        }
        let broken = |Broken| ReserveError::Broken;
        let refusal = |binding, limit, peak_use, free, until| Refusal {
            index,
            account: account.clone(),
            binding,
            requested: *amount,
            limit,
            peak_use,
            free,
            until,
        };
        // INVARIANT: use never passes the limit of the charge that brings it there.
        match (kind, own) {
            (AccountKind::Budget, own) => {
                let held = match own {
                    Some(Account::Budget(_, budget)) => {
                        budget.held.checked_add(budget.used).ok_or(ReserveError::Broken)?
                    }
                    Some(Account::Level(..)) | None => 0,
                };
                let free = limit.saturating_sub(held);
                let fits = *amount <= free;
                Ok((!fits).then(|| refusal(account.clone(), *limit, held, free, None)))
            }
            (AccountKind::Level, _) => {
                let part = |amount| Segment { start: booking.start, end: booking.end, amount };
                let Some(found) = self.obstacle(account, part(*amount), *limit).map_err(broken)?
                else {
                    return Ok(None);
                };
                let free = if found.binding == *account {
                    found.limit.saturating_sub(found.peak)
                } else {
                    let fits = |amount| match self.obstacle(account, part(amount), *limit) {
                        Ok(found) => Ok(found.is_none()),
                        Err(Broken) => Err(Broken),
                    };
                    super::fit::largest(amount.saturating_sub(1), fits).map_err(broken)?
                };
                Ok(Some(refusal(found.binding, found.limit, found.peak, free, found.until)))
            }
        }
    }

    fn hold_one(&mut self, charge: &Charge, booking: &Booking) -> Result<(), Broken> {
        if charge.kind == AccountKind::Level {
            let (start, end, amount) = (booking.start, booking.end, charge.amount);
            self.carry(&charge.account, Segment { start, end, amount }, true)?;
        }
        if !self.accounts.contains_key(&charge.account) {
            self.open_account(charge);
        }
        let account = self.accounts.get_mut(&charge.account).ok_or(Broken)?;
        match account {
            Account::Level(_, timeline) => {
                let undo = &mut self.journal.changes_of(&charge.account);
                timeline.advance(self.now, undo)?;
                timeline.add(booking.start, booking.end, charge.amount, undo)?;
            }
            Account::Budget(_, budget) => {
                self.journal.push(Undo::Budget(charge.account.clone(), *budget));
                budget.held = budget.held.checked_add(charge.amount).ok_or(Broken)?;
                budget.limit = charge.limit;
            }
        }
        Ok(())
    }

    fn open_account(&mut self, charge: &Charge) {
        let account = match charge.kind {
            AccountKind::Level => Account::Level(charge.unit, Timeline::default()),
            AccountKind::Budget => Account::Budget(charge.unit, Budget::default()),
        };
        self.journal.push(Undo::Account(charge.account.clone(), None));
        self.accounts.insert(charge.account.clone(), account);
    }
}

fn check_booking(booking: &Booking, now: u64) -> Result<(), ReserveError> {
    let malformed = |what| Err(ReserveError::Malformed(what));
    if booking.end <= booking.start {
        return malformed("ends before it begins");
    }
    if booking.start < now {
        return malformed("begins in the past");
    }
    if booking.confirm_by <= now || booking.confirm_by > booking.end {
        return malformed("has a confirm deadline that is not between now and its end");
    }
    if booking.charges.len() > MAX_CHARGES {
        return malformed("has more than 256 charges");
    }
    let mut seen = BTreeSet::new();
    for charge in &booking.charges {
        if charge.amount == 0 || charge.amount > MAX_AMOUNT || charge.limit > MAX_AMOUNT {
            return malformed("has an amount or a limit that is not within 1..=2^53-1");
        }
        if !seen.insert(&charge.account) {
            return malformed("charges an account twice");
        }
    }
    Ok(())
}
