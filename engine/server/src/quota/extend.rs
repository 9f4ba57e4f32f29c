//! A reservation that goes on: what it is to hold from its end on is held like anything new, under
//! its own name and without a break.

use placet_core::{Extends, ReservationState, SlaTerms};

use super::preempt::Parts;
use super::reserve::check_booking;
use super::{Booking, Defect, Ledger, Reservation, ReserveError, Term};

/// Most stretches of one reservation's time, each with charges of its own: the first, and those by
/// which it was made longer. Each is work for whoever ends or displaces it.
pub const MAX_TERMS: usize = 64;

/// Why a reservation does not go on. It stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtendError {
    /// No reservation of this name is held for this tenant and caller.
    #[error("there is no such reservation of this tenant and caller")]
    NotFound,
    /// Another epoch is current.
    #[error("the epoch is stale: {current} is current")]
    StaleEpoch {
        /// The current one.
        current: u64,
    },
    /// It is not confirmed yet.
    #[error("the reservation is not confirmed yet")]
    NotConfirmed,
    /// It was told to make room for another.
    #[error("the reservation has to make room for another")]
    MakesRoom,
    /// It begins or ends at other times than said.
    #[error("the reservation is from {start} to {end}")]
    OtherTimes {
        /// Its first second.
        start: u64,
        /// First second after it.
        end: u64,
    },
    /// What is to go on is not what runs.
    #[error("the reservation was made for other work")]
    OtherWork,
    /// It was made longer too often.
    #[error("the reservation was made longer {} times", MAX_TERMS - 1)]
    TooOften,
    /// What is added does not fit.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

impl Ledger {
    /// Checks that a reservation is what its holder says, and may go on. `booking` is what is to be
    /// added, under the name of the reservation.
    ///
    /// # Errors
    /// All of [`ExtendError`] but `Reserve`.
    pub fn check_extension(
        &self,
        booking: &Booking,
        extends: &Extends,
    ) -> Result<&Reservation, ExtendError> {
        let is_open = self.breaks(Defect::ExtensionByAnybody);
        let own = |held: &&Reservation| {
            is_open
                || (&held.booking.tenant, &held.booking.caller)
                    == (&booking.tenant, &booking.caller)
        };
        let held = self.live.get(&extends.reservation_id).filter(own);
        let held = held.ok_or(ExtendError::NotFound)?;
        if held.epoch != extends.epoch && !self.breaks(Defect::ExtensionStaleEpoch) {
            return Err(ExtendError::StaleEpoch { current: held.epoch });
        }
        let is_confirmed = held.state == ReservationState::Active;
        if !is_confirmed && !self.breaks(Defect::ExtensionUnconfirmed) {
            return Err(ExtendError::NotConfirmed);
        }
        if held.order.is_some() && !self.breaks(Defect::ExtensionMakesRoom) {
            return Err(ExtendError::MakesRoom);
        }
        let (start, end) = (held.booking.start, held.end());
        let is_other = (start, end) != (extends.start, extends.end) || booking.start != end;
        if is_other && !self.breaks(Defect::ExtensionFromElsewhere) {
            return Err(ExtendError::OtherTimes { start, end });
        }
        let is_same = (&held.booking.work, held.booking.class) == (&booking.work, booking.class);
        if !is_same && !self.breaks(Defect::ExtensionOfOtherWork) {
            return Err(ExtendError::OtherWork);
        }
        let is_last = held.extensions.len().saturating_add(1) >= MAX_TERMS;
        if is_last && !self.breaks(Defect::ExtensionWithoutEnd) {
            return Err(ExtendError::TooOften);
        }
        Ok(held)
    }

    /// Makes a confirmed reservation longer: from its end on it holds the charges of `booking`, all
    /// of them or none. It has the next epoch from now on, and nothing of it has to be confirmed.
    /// It is promised what it was and what is promised now, the better of each number.
    ///
    /// # Errors
    /// [`ExtendError`]; nothing has changed then.
    pub fn extend(
        &mut self,
        booking: Booking,
        extends: &Extends,
    ) -> Result<Reservation, ExtendError> {
        let mut held = self.check_extension(&booking, extends)?.clone();
        check_booking(&booking, self.now)?;
        self.check_lease(&booking)?;
        if !self.breaks(Defect::ExtensionKeepsEpoch) {
            held.epoch = held.epoch.checked_add(1).ok_or(ReserveError::Broken)?;
        }
        let booking = self.spoil_extension(booking);
        self.hold(&booking, &Parts::new(), true)?;
        let Booking { start, end, charges, terms, .. } = booking;
        held.booking.terms = match held.booking.terms {
            _ if self.breaks(Defect::ExtensionForgetsTerms) => terms,
            first => SlaTerms::strictest([first, terms]),
        };
        held.extensions.push(Term { start, end, charges });
        self.set_live(held.booking.id.clone(), Some(held.clone()));
        Ok(held)
    }
}
