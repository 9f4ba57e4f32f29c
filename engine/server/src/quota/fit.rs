//! What would be admitted instead of what was refused. Everything is tried on the books and taken
//! back, so that it is exactly what the ledger would do.

use placet_core::{Charge, Unit};

use super::preempt::Parts;
use super::{Booking, Ledger, ReserveError};

/// Most starts that are tried to find the earliest: each is at least one change of a level later
/// than the one before, and costs as much as a reservation.
const MAX_STARTS: usize = 64;

/// What would be admitted instead of a booking that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fit {
    /// Largest number of GPUs with the same interval; `None` if not even one.
    pub gpu_count: Option<u32>,
    /// Longest duration in seconds with the same GPUs and start; `None` if not even one second.
    pub duration_seconds: Option<u64>,
    /// Earliest second at which all of it would fit, as things stand; `None` if there is none, or
    /// none that is found within 64 changes of the levels in its way.
    pub start: Option<u64>,
}

impl Ledger {
    /// What would be admitted instead of a booking of `gpus` GPUs that [`Ledger::reserve`] refuses.
    ///
    /// Amounts in thousandths of a GPU and in GPU-seconds are taken to grow with the GPUs, amounts
    /// in GPU-seconds with the duration too, rounded up; others stay what they are. Nothing
    /// changes.
    ///
    /// # Errors
    /// If the books are wrong.
    pub fn fit(&mut self, booking: &Booking, gpus: u32) -> Result<Fit, ReserveError> {
        let length = booking.end.saturating_sub(booking.start);
        let by_gpus = |charge: &Charge| matches!(charge.unit, Unit::MilliGpu | Unit::GpuSecond);
        let by_time = |charge: &Charge| charge.unit == Unit::GpuSecond;
        let fewer = largest(u64::from(gpus).saturating_sub(1), |count| {
            self.would_fit(&scaled(booking, by_gpus, (count, u64::from(gpus)), length))
        })?;
        let shorter = largest(length.saturating_sub(1), |seconds| {
            self.would_fit(&scaled(booking, by_time, (seconds, length), seconds))
        })?;
        Ok(Fit {
            gpu_count: u32::try_from(fewer).ok().filter(|count| *count > 0),
            duration_seconds: Some(shorter).filter(|seconds| *seconds > 0),
            start: self.earliest(booking)?,
        })
    }

    fn would_fit(&mut self, booking: &Booking) -> Result<bool, ReserveError> {
        let mark = self.mark();
        let held = self.hold(booking, &Parts::new(), false);
        self.undo(mark);
        match held {
            Ok(()) => Ok(true),
            Err(ReserveError::Refused(_) | ReserveError::Mismatch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn earliest(&mut self, booking: &Booking) -> Result<Option<u64>, ReserveError> {
        let length = booking.end.saturating_sub(booking.start);
        let mut start = booking.start;
        for _ in 0..MAX_STARTS {
            let Some(end) = start.checked_add(length) else { return Ok(None) };
            let mark = self.mark();
            let held = self.hold(&Booking { start, end, ..booking.clone() }, &Parts::new(), false);
            self.undo(mark);
            let refusals = match held {
                Ok(()) => return Ok(Some(start).filter(|start| *start > booking.start)),
                Err(ReserveError::Refused(refusals)) => refusals,
                Err(ReserveError::Mismatch { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let Some(untils) = refusals.iter().map(|one| one.until).collect::<Option<Vec<_>>>()
            else {
                return Ok(None);
            };
            // What the booking itself holds of accounts above changes with every start: only where
            // others end is there more room.
            let changes = booking
                .charges
                .iter()
                .filter_map(|charge| self.next_change(&charge.account, start));
            let next = changes.min().zip(untils.into_iter().max());
            match next.map(|(change, until)| until.max(change)).filter(|next| *next > start) {
                Some(next) => start = next,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The largest number from 0 to `most` that is fine, where 0 is and every smaller one of a fine one
/// is too.
pub(super) fn largest<E>(
    most: u64,
    mut fine: impl FnMut(u64) -> Result<bool, E>,
) -> Result<u64, E> {
    let (mut fits, mut beyond) = (0, most.saturating_add(1));
    while beyond.saturating_sub(fits) > 1 {
        let middle = fits.midpoint(beyond);
        if fine(middle)? {
            fits = middle;
        } else {
            beyond = middle;
        }
    }
    Ok(fits)
}

/// A booking with part of the amounts, for so many seconds.
fn scaled(
    booking: &Booking,
    grows: impl Fn(&Charge) -> bool,
    (part, whole): (u64, u64),
    seconds: u64,
) -> Booking {
    let scale = |amount: u64| {
        let product = u128::from(amount).saturating_mul(u128::from(part));
        u64::try_from(product.div_ceil(u128::from(whole.max(1)))).unwrap_or(u64::MAX)
    };
    let charge = |charge: &Charge| Charge {
        amount: if grows(charge) { scale(charge.amount) } else { charge.amount },
        ..charge.clone()
    };
    Booking {
        end: booking.start.saturating_add(seconds),
        charges: booking.charges.iter().map(charge).collect(),
        ..booking.clone()
    }
}

#[cfg(test)]
mod tests {
    use placet_core::{AccountKind, AccountPath, Id, MAX_AMOUNT, PriorityClass, QuotaNode};

    use super::*;

    fn path(text: &str) -> AccountPath {
        AccountPath::new(text).unwrap()
    }

    fn booking(name: &str, end: u64, charges: &[(&str, u64)]) -> Booking {
        let charge = |(account, amount): &(&str, u64)| Charge {
            account: path(account),
            amount: *amount,
            kind: AccountKind::Level,
            limit: MAX_AMOUNT,
            unit: Unit::MilliGpu,
        };
        Booking {
            id: Id::new(name).unwrap(),
            tenant: Id::new("acme").unwrap(),
            caller: Id::new("scheduler").unwrap(),
            class: PriorityClass::InternalResearch,
            work: crate::quota::tests::work(1),
            start: 100,
            end,
            confirm_by: end,
            charges: charges.iter().map(charge).collect(),
            terms: None,
        }
    }

    /// Found by the simulation: each try met what the booking itself held of the pool, and got one
    /// second further.
    #[test]
    fn a_short_booking_of_a_member_and_its_cohort_has_an_earliest_start() {
        let mut ledger = Ledger::default();
        ledger.advance(100).unwrap();
        let node = |account: &str, cohort: Option<&str>, nominal| QuotaNode {
            account: path(account),
            borrowing_limit: None,
            cohort: cohort.map(path),
            lending_limit: None,
            nominal,
            unit: Unit::MilliGpu,
        };
        ledger.set_quotas(&[node("pool", None, 0), node("leaf", Some("pool"), 4)], &[]).unwrap();
        ledger.reserve(booking("one", 300, &[("leaf", 2)])).unwrap();
        let asked = booking("two", 101, &[("leaf", 1), ("pool", 2)]);
        assert!(matches!(ledger.reserve(asked.clone()), Err(ReserveError::Refused(_))));
        assert_eq!(ledger.fit(&asked, 1).unwrap().start, Some(300));
    }
}
