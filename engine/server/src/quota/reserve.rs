//! Holding what a booking charges: all of it or nothing.

use std::collections::BTreeSet;

use placet_core::{AccountKind, Charge, MAX_AMOUNT};

use super::cohorts::Segment;
use super::fit::largest;
use super::journal::Undo;
use super::preempt::{Part, Parts, footprint};
use super::timeline::{Broken, Timeline};
use super::{
    Account, Booking, Budget, Defect, Ledger, MAX_CHARGES, Refusal, Reservation, ReserveError,
};

impl Ledger {
    /// Holds all charges of a booking or none.
    ///
    /// # Errors
    /// [`ReserveError`] says what is in the way; nothing has changed then.
    pub fn reserve(&mut self, booking: Booking) -> Result<Reservation, ReserveError> {
        self.displace(booking, &BTreeSet::new())
    }

    /// Books the charges of a booking that makes sense, or none of them. On accounts that have
    /// parts, only what is needed of them. Refusals tell what is free only if that is wanted: in a
    /// tree it has to be found by trying.
    pub(super) fn hold(
        &mut self,
        booking: &Booking,
        parts: &Parts,
        detail: bool,
    ) -> Result<(), ReserveError> {
        let mark = self.mark();
        let mut refusals = Vec::new();
        for (index, charge) in booking.charges.iter().enumerate() {
            let parts = parts.get(&charge.account);
            // Each is looked at after those before it are held: they may share a cohort.
            let held = match self.refusal((index, detail), charge, booking, parts) {
                Ok(Some(refusal)) if !self.spoil_check(&refusal) => {
                    refusals.push(refusal);
                    Ok(())
                }
                Ok(_) => {
                    let held = self.hold_one(charge, booking, parts);
                    held.map_err(|Broken| ReserveError::Broken)
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
        if !self.breaks(Defect::RefusedBookingHalfHeld) {
            self.undo(mark);
        }
        Err(ReserveError::Refused(refusals))
    }

    /// Why a charge cannot be held, if it cannot.
    fn refusal(
        &self,
        (index, detail): (usize, bool),
        charge: &Charge,
        booking: &Booking,
        parts: Option<&Vec<Part>>,
    ) -> Result<Option<Refusal>, ReserveError> {
        let Charge { account, kind, unit, .. } = charge;
        let own = self.accounts.get(account);
        if own.is_some_and(|own| !own.fits(*kind, *unit)) || !self.node_fits(account, *kind, *unit)
        {
            return Err(ReserveError::Mismatch { index, account: account.clone() });
        }
        // INVARIANT: use never passes the limit of the charge that brings it there.
        let refused = match kind {
            AccountKind::Budget => {
                let held = match own {
                    Some(Account::Budget(_, budget)) => budget.held.checked_add(budget.used),
                    Some(Account::Level(..)) | None => Some(0),
                };
                held.ok_or(Broken).map(|held| over_budget(charge, held))
            }
            AccountKind::Level => self.over_level(charge, booking, parts, detail),
        };
        let refused = refused.map_err(|Broken| ReserveError::Broken)?;
        Ok(refused.map(|refusal| Refusal { index, ..refusal }))
    }

    fn over_level(
        &self,
        charge: &Charge,
        booking: &Booking,
        parts: Option<&Vec<Part>>,
        detail: bool,
    ) -> Result<Option<Refusal>, Broken> {
        let Charge { account, amount, limit, .. } = charge;
        let refusal = |binding, limit, peak_use, free, until| Refusal {
            index: 0,
            account: account.clone(),
            binding,
            requested: *amount,
            limit,
            peak_use,
            free,
            until,
        };
        for segment in footprint((booking.start, booking.end), charge, parts) {
            let segment = self.spoil_look(segment);
            let Some(found) = self.obstacle(account, segment, *limit)? else { continue };
            let free = if parts.is_some() || !detail {
                0
            } else if found.binding == *account {
                found.limit.saturating_sub(found.peak)
            } else {
                let fits = |amount| {
                    let part = Segment { amount, ..segment };
                    self.obstacle(account, part, *limit).map(|found| found.is_none())
                };
                largest(amount.saturating_sub(1), fits)?
            };
            return Ok(Some(refusal(found.binding, found.limit, found.peak, free, found.until)));
        }
        // Where nothing more is needed than victims leave, use may yet be above a lower limit.
        let looks = !self.breaks(Defect::LowerLimitIgnored);
        for part in parts.into_iter().flatten().filter(|part| looks && part.needed == 0) {
            let peak = self.peak(account, part.start, part.end)?;
            if peak.saturating_sub(part.left) > *limit {
                return Ok(Some(refusal(account.clone(), *limit, peak, 0, None)));
            }
        }
        Ok(None)
    }

    fn hold_one(
        &mut self,
        charge: &Charge,
        booking: &Booking,
        parts: Option<&Vec<Part>>,
    ) -> Result<(), Broken> {
        if parts.is_some() && self.breaks(Defect::PlanHoldsNothing) {
            return Ok(());
        }
        if charge.kind == AccountKind::Level {
            let segments = footprint((booking.start, booking.end), charge, parts);
            return segments.into_iter().try_for_each(|part| self.shift(charge, part, true));
        }
        self.open_account(charge);
        let Some(Account::Budget(_, budget)) = self.accounts.get_mut(&charge.account) else {
            return Err(Broken);
        };
        self.journal.push(Undo::Budget(charge.account.clone(), *budget));
        budget.held = budget.held.checked_add(charge.amount).ok_or(Broken)?;
        budget.limit = charge.limit;
        Ok(())
    }

    /// Takes what a reservation holds off its level accounts, from now on.
    pub(super) fn book_out(&mut self, reservation: &Reservation) -> Result<(), Broken> {
        for (charge, parts) in reservation.holdings() {
            if reservation.waits(charge) && self.breaks(Defect::PlanHoldsNothing) {
                continue;
            }
            for part in parts {
                self.shift(charge, part, false)?;
            }
            self.close_account(charge)?;
        }
        Ok(())
    }

    /// Changes what is held of a level account, and what flows up from it, from now on. What lies
    /// in the past stays as it is.
    pub(super) fn shift(
        &mut self,
        charge: &Charge,
        part: Segment,
        more: bool,
    ) -> Result<(), Broken> {
        let part = Segment { start: self.spoil_start(part.start), ..part };
        if part.start >= part.end {
            return Ok(());
        }
        if more {
            self.carry(&charge.account, part, true)?;
            self.open_account(charge);
        }
        let Some(Account::Level(_, timeline)) = self.accounts.get_mut(&charge.account) else {
            return Err(Broken);
        };
        let mut undo = self.journal.changes_of(&charge.account);
        timeline.advance(self.now, &mut undo)?;
        let amount = i64::try_from(part.amount).map_err(|_beyond| Broken)?;
        let change = if more { amount } else { amount.checked_neg().ok_or(Broken)? };
        timeline.shift(part.start, part.end, change, &mut undo)?;
        drop(undo);
        if !more && !self.breaks(Defect::ReleaseKeepsCohorts) {
            self.carry(&charge.account, part, false)?;
        }
        Ok(())
    }

    /// A level account that holds nothing costs nothing, and may change its unit.
    fn close_account(&mut self, charge: &Charge) -> Result<(), Broken> {
        let path = &charge.account;
        // Another one that ended in the same second may have been the first to leave it.
        let Some(Account::Level(_, timeline)) = self.accounts.get_mut(path) else { return Ok(()) };
        timeline.advance(self.now, &mut self.journal.changes_of(path))?;
        if timeline.is_empty() {
            let old = self.accounts.remove(path);
            self.journal.push(Undo::Account(path.clone(), old));
        }
        Ok(())
    }

    fn open_account(&mut self, charge: &Charge) {
        if self.accounts.contains_key(&charge.account) {
            return;
        }
        let account = match charge.kind {
            AccountKind::Level => Account::Level(charge.unit, Timeline::default()),
            AccountKind::Budget => Account::Budget(charge.unit, Budget::default()),
        };
        self.journal.push(Undo::Account(charge.account.clone(), None));
        self.accounts.insert(charge.account.clone(), account);
    }
}

fn over_budget(charge: &Charge, held: u64) -> Option<Refusal> {
    let Charge { account, amount, limit, .. } = charge;
    let free = limit.saturating_sub(held);
    (*amount > free).then(|| Refusal {
        index: 0,
        account: account.clone(),
        binding: account.clone(),
        requested: *amount,
        limit: *limit,
        peak_use: held,
        free,
        until: None,
    })
}

pub(super) fn check_booking(booking: &Booking, now: u64) -> Result<(), ReserveError> {
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
