//! Rules that can be broken on purpose: whoever says that an auditor finds every fault must show
//! the faults that it found.

use placet_core::{ExpiryCause, Id, ReservationState};

use super::{Back, Ended, Ledger, Outcome, Refusal, Reservation, all_of, back, unused};

/// A rule that a ledger does not keep. Only with the feature `defects`, which only the simulation
/// turns on, can one be asked for; without it nothing of them is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Use may come up to one more than the limit.
    LimitOffByOne,
    /// The second account of a booking is not looked at.
    SecondAccountNotChecked,
    /// What does not fit as a whole is held as far as it fits.
    RefusedBookingHalfHeld,
    /// An account may borrow without bound.
    BorrowingLimitIgnored,
    /// An account lends all of its quota.
    LendingLimitIgnored,
    /// What is borrowed is not looked for in the cohort.
    CohortNotAsked,
    /// A release leaves what has flown up to the cohort.
    ReleaseKeepsCohorts,
    /// Undoing leaves what has flown up to cohorts.
    UndoForgetsCohorts,
    /// A change of the trees is not logged.
    QuotasNotLogged,
    /// A confirmed reservation that is released gets no budget back.
    ReleaseRefundsNothing,
    /// A confirmed reservation that is released gets all of its budget back.
    ReleaseRefundsAll,
    /// A refund is rounded up.
    RefundRoundedUp,
    /// A reservation that was never confirmed is refunded like one that was.
    UnconfirmedReleaseInPart,
    /// A second release is logged like the first.
    ReleaseRepeated,
    /// What was released can be released again, and gets its budget back again.
    ReleasedAgain,
    /// A release leaves the levels as they are.
    ReleaseKeepsLevels,
    /// Nothing ends by itself.
    ExpiryIgnored,
    /// Everything ends by itself one second late.
    ExpiryLate,
    /// What was not confirmed in time gets no budget back.
    UnconfirmedKeepsBudget,
    /// A budget is free again at the end, like a level.
    BudgetFreedAtEnd,
    /// What was not confirmed in time is confirmed all the same.
    LateConfirmAccepted,
    /// A confirm may name any epoch.
    StaleEpochAccepted,
    /// Anybody may confirm and release.
    AnybodySettles,
    /// Undoing leaves one kind of accounts as it is.
    UndoForgetsBudgets,
    /// A request that was decided is decided anew.
    RepeatDecidedAnew,
    /// A clock that goes back is always believed to be a little late.
    ClockMayGoBack,
    /// What was evaluated with other policies or facts is taken.
    SupersededAccepted,
    /// The last leaf of a batch is without its hash in the tree.
    LeafWithoutHash,
    /// What the store refused is answered as if it were stored.
    RefusedCommitAnswered,
    /// A commit of unknown outcome is taken for one that failed.
    UnknownTakenForFailed,
    /// A batch that failed stays in the ledger.
    FailedBatchNotUndone,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::LimitOffByOne,
        Self::SecondAccountNotChecked,
        Self::RefusedBookingHalfHeld,
        Self::BorrowingLimitIgnored,
        Self::LendingLimitIgnored,
        Self::CohortNotAsked,
        Self::ReleaseKeepsCohorts,
        Self::UndoForgetsCohorts,
        Self::QuotasNotLogged,
        Self::ReleaseRefundsNothing,
        Self::ReleaseRefundsAll,
        Self::RefundRoundedUp,
        Self::UnconfirmedReleaseInPart,
        Self::ReleaseRepeated,
        Self::ReleasedAgain,
        Self::ReleaseKeepsLevels,
        Self::ExpiryIgnored,
        Self::ExpiryLate,
        Self::UnconfirmedKeepsBudget,
        Self::BudgetFreedAtEnd,
        Self::LateConfirmAccepted,
        Self::StaleEpochAccepted,
        Self::AnybodySettles,
        Self::UndoForgetsBudgets,
        Self::RepeatDecidedAnew,
        Self::ClockMayGoBack,
        Self::SupersededAccepted,
        Self::LeafWithoutHash,
        Self::RefusedCommitAnswered,
        Self::UnknownTakenForFailed,
        Self::FailedBatchNotUndone,
    ];
}

impl Ledger {
    /// Breaks a rule from here on.
    #[cfg(feature = "defects")]
    pub(crate) fn set_defect(&mut self, defect: Option<Defect>) {
        self.defect = defect;
    }

    /// Whether that rule is broken.
    #[cfg(feature = "defects")]
    pub(crate) fn breaks(&self, rule: Defect) -> bool {
        self.defect == Some(rule)
    }

    /// No rule is broken.
    #[cfg(not(feature = "defects"))]
    pub(crate) const fn breaks(&self, _rule: Defect) -> bool {
        false
    }
}

/// Each place where a rule is broken; all of them leave things as they are while none is.
impl Ledger {
    /// Up to when things end by themselves.
    pub(super) fn spoil_due(&self, to: u64) -> u64 {
        if self.breaks(Defect::ExpiryIgnored) {
            return 0;
        }
        to.saturating_sub(u64::from(self.breaks(Defect::ExpiryLate)))
    }

    /// What is given back to a reservation that expires.
    pub(super) fn spoil_expiry(
        &self,
        reservation: &Reservation,
        cause: ExpiryCause,
        right: Back,
    ) -> Back {
        match cause {
            ExpiryCause::Unconfirmed if self.breaks(Defect::UnconfirmedKeepsBudget) => {
                Back::default()
            }
            ExpiryCause::Ended if self.breaks(Defect::BudgetFreedAtEnd) => {
                all_of(reservation).unwrap_or(right)
            }
            ExpiryCause::Unconfirmed
            | ExpiryCause::Ended
            | ExpiryCause::Evicted
            | ExpiryCause::LeaseEnded => right,
        }
    }

    /// What is given back to a reservation that is released.
    pub(super) fn spoil_release(&self, held: &Reservation, right: Back) -> Back {
        let (is_confirmed, now) = (held.state == ReservationState::Active, self.now);
        let part = |term, charge: &placet_core::Charge| unused(term, charge.amount, now);
        let spoiled = if is_confirmed && self.breaks(Defect::ReleaseRefundsNothing) {
            Some(Back::default())
        } else if is_confirmed && self.breaks(Defect::ReleaseRefundsAll) {
            all_of(held)
        } else if is_confirmed && self.breaks(Defect::RefundRoundedUp) {
            back(held, |term, charge| {
                Some(part(term, charge)?.saturating_add(1).min(charge.amount))
            })
        } else if !is_confirmed && self.breaks(Defect::UnconfirmedReleaseInPart) {
            back(held, part)
        } else {
            None
        };
        spoiled.unwrap_or(right)
    }

    /// Whether a level stays as it is when a reservation ends.
    pub(super) fn spoil_levels(&self, is_released: bool) -> bool {
        is_released && self.breaks(Defect::ReleaseKeepsLevels)
    }

    /// Whether a charge that does not fit is let through.
    pub(super) fn spoil_check(&self, refusal: &Refusal) -> bool {
        let is_next = refusal.requested == refusal.free.saturating_add(1);
        (refusal.index == 1 && self.breaks(Defect::SecondAccountNotChecked))
            || (is_next && self.breaks(Defect::LimitOffByOne))
    }
}

/// The answer to a confirm that comes too late.
pub(super) fn confirmed(id: &Id, ended: &Ended) -> Outcome {
    Outcome {
        reservation: id.clone(),
        state: ReservationState::Active,
        epoch: ended.epoch,
        since: ended.since,
        refunds: Vec::new(),
        refunded_gpu_seconds: 0,
        changed: false,
    }
}
