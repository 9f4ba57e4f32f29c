//! Rules that can be broken on purpose: whoever says that an auditor finds every fault must show
//! the faults that it found.

use placet_core::{AccountKind, ExpiryCause, Id, MAX_AMOUNT, ReservationState, Unit};

use super::cohorts::Segment;
use super::{Back, Booking, Ended, Ledger, Outcome, Refusal, Reservation, all_of, back, unused};

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
    /// What is booked in advance keeps nobody out who begins before it.
    AheadKeepsNobodyOut,
    /// What is booked in advance is held from now on.
    AheadHeldFromNow,
    /// A start that has passed is taken for now.
    PastStartAccepted,
    /// What is booked in advance must be confirmed soon after it is decided.
    AheadConfirmedAtOnce,
    /// What waits for others to go holds nothing on their accounts.
    PlanHoldsNothing,
    /// Victims are displaced before the preemptor is confirmed.
    EvictionUnconfirmed,
    /// A preemptor that is confirmed displaces nobody, and holds all of its charges.
    EvictionOrderIgnored,
    /// A victim gives its room to the preemptor, and does not end.
    EvictedStaysActive,
    /// Victims are displaced also if the preemptor is not confirmed.
    LostPlanEvicts,
    /// Victims stay after all if the preemptor ends after it was confirmed.
    ReleaseRevivesVictims,
    /// The room of a victim that ends early is anybody's.
    VictimRoomNotTaken,
    /// A victim keeps its epoch.
    VictimKeepsEpoch,
    /// A victim gets no budget back.
    EvictionRefundsNothing,
    /// Victims need not have had the minimum run time.
    MinRuntimeIgnored,
    /// Victims have one second.
    GraceIgnored,
    /// Classes are displaced that the policy does not name.
    VictimClassesIgnored,
    /// Any class displaces any other that the policy names.
    AnyClassDisplaced,
    /// Who was told to make room may be told again, by another.
    ToldTwice,
    /// As many make room as it takes.
    MaxVictimsIgnored,
    /// As many of one tenant make room as it takes.
    TenantVictimsIgnored,
    /// Victims need not have had the run time that they were promised.
    PromisedRuntimeIgnored,
    /// Victims go before the notice that they were promised is over.
    NoticeIgnored,
    /// Who is promised a longer notice than the rule's makes no room at all.
    LongerNoticeNotTried,
    /// What goes on is promised what the latest decision says, whatever it was promised before.
    ExtensionForgetsTerms,
    /// Tenants are displaced that the rule protects.
    ProtectedDisplaced,
    /// Tenants are displaced again however shortly ago they lost work.
    CoolDownIgnored,
    /// The eviction of a tenant counts from when it is told, whether or not it takes effect.
    CoolDownFromOrder,
    /// Undoing leaves what tenants lost.
    UndoForgetsEvictions,
    /// Those with the most GPUs go, whatever is lost.
    BiggestVictims,
    /// The limit of a claim is not looked at where victims leave all that is needed.
    LowerLimitIgnored,
    /// Orders of eviction are not logged.
    OrderNotLogged,
    /// What goes on keeps its epoch.
    ExtensionKeepsEpoch,
    /// What goes on holds what is added from now on, not from its end on.
    ExtensionHeldFromNow,
    /// What is not confirmed goes on.
    ExtensionUnconfirmed,
    /// What was told to make room goes on.
    ExtensionMakesRoom,
    /// What goes on may be named by any epoch.
    ExtensionStaleEpoch,
    /// Anybody may make a reservation longer.
    ExtensionByAnybody,
    /// What goes on may be other work.
    ExtensionOfOtherWork,
    /// What goes on is charged to no budget.
    ExtensionChargesNoBudget,
    /// Of a reservation that was made longer, only the first stretch gets budget back.
    RefundOfFirstTerm,
    /// Of a victim that was made longer, only the first stretch gives its room.
    EvictionOfFirstTerm,
    /// What runs inside a lease goes on when the lease is over.
    JobsOutliveLease,
    /// What runs inside a lease ends with the next command after its release.
    JobsEndLater,
    /// What ends with its lease gets no budget back.
    CutJobKeepsBudget,
    /// Jobs inside a lease may hold more of it than it was granted.
    LeaseNotLimited,
    /// A job inside a lease may begin before it and end after it.
    JobOutsideLease,
    /// A job may run inside the lease of another tenant.
    JobOfOtherTenant,
    /// A job may run inside a lease that is not confirmed.
    JobInUnconfirmedLease,
    /// Of a gang, those that fit are admitted.
    GangInPart,
    /// A gang that is denied leaves what its members held.
    GangLeavesHold,
    /// A gang of which some were decided before is decided anew.
    GangAnew,
    /// What goes on may be said to begin and end at other times.
    ExtensionFromElsewhere,
    /// What goes on does so as often as it likes.
    ExtensionWithoutEnd,
    /// The denial of an extension tells of fewer GPUs and later starts too.
    ExtensionFitAsNew,
    /// Jobs inside a lease may hold more fabric than it was granted.
    FabricOfLeaseNotLimited,
    /// A job may run on inside a lease that has to be gone before.
    JobOutlastsEviction,
    /// A job may run inside a lease of another model.
    JobOfOtherModel,
    /// The denial of a job tells of starts that its lease would not outlast.
    JobFitsBehindLease,
    /// What runs inside a lease need not be charged to it.
    LeaseNotClaimed,
    /// What runs inside a lease is displaced like anything else.
    JobMakesRoom,
    /// A member that is denied with its gang keeps the model it would have had.
    GangDenialKeepsModel,
    /// A waiver is used once more than it may be.
    WaiverUsedOnceMore,
    /// A waiver is used after its time.
    WaiverOutlivesItself,
    /// A waiver that is used for the first time is not logged.
    WaiverNotLogged,
    /// A permit does not count as a use of its waivers.
    WaiverNotCounted,
    /// What a freeze covers is admitted.
    FrozenAdmitted,
    /// What a freeze covers is confirmed.
    FrozenConfirmed,
    /// A freeze is not logged.
    FreezeNotLogged,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 99] = [
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
        Self::AheadKeepsNobodyOut,
        Self::AheadHeldFromNow,
        Self::PastStartAccepted,
        Self::AheadConfirmedAtOnce,
        Self::PlanHoldsNothing,
        Self::EvictionUnconfirmed,
        Self::EvictionOrderIgnored,
        Self::EvictedStaysActive,
        Self::LostPlanEvicts,
        Self::ReleaseRevivesVictims,
        Self::VictimRoomNotTaken,
        Self::VictimKeepsEpoch,
        Self::EvictionRefundsNothing,
        Self::MinRuntimeIgnored,
        Self::GraceIgnored,
        Self::VictimClassesIgnored,
        Self::AnyClassDisplaced,
        Self::ToldTwice,
        Self::MaxVictimsIgnored,
        Self::TenantVictimsIgnored,
        Self::PromisedRuntimeIgnored,
        Self::NoticeIgnored,
        Self::LongerNoticeNotTried,
        Self::ExtensionForgetsTerms,
        Self::ProtectedDisplaced,
        Self::CoolDownIgnored,
        Self::CoolDownFromOrder,
        Self::UndoForgetsEvictions,
        Self::BiggestVictims,
        Self::LowerLimitIgnored,
        Self::OrderNotLogged,
        Self::ExtensionKeepsEpoch,
        Self::ExtensionHeldFromNow,
        Self::ExtensionUnconfirmed,
        Self::ExtensionMakesRoom,
        Self::ExtensionStaleEpoch,
        Self::ExtensionByAnybody,
        Self::ExtensionOfOtherWork,
        Self::ExtensionChargesNoBudget,
        Self::RefundOfFirstTerm,
        Self::EvictionOfFirstTerm,
        Self::JobsOutliveLease,
        Self::JobsEndLater,
        Self::CutJobKeepsBudget,
        Self::LeaseNotLimited,
        Self::JobOutsideLease,
        Self::JobOfOtherTenant,
        Self::JobInUnconfirmedLease,
        Self::GangInPart,
        Self::GangLeavesHold,
        Self::GangAnew,
        Self::ExtensionFromElsewhere,
        Self::ExtensionWithoutEnd,
        Self::ExtensionFitAsNew,
        Self::FabricOfLeaseNotLimited,
        Self::JobOutlastsEviction,
        Self::JobOfOtherModel,
        Self::JobFitsBehindLease,
        Self::LeaseNotClaimed,
        Self::JobMakesRoom,
        Self::GangDenialKeepsModel,
        Self::WaiverUsedOnceMore,
        Self::WaiverOutlivesItself,
        Self::WaiverNotLogged,
        Self::WaiverNotCounted,
        Self::FrozenAdmitted,
        Self::FrozenConfirmed,
        Self::FreezeNotLogged,
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
            ExpiryCause::Evicted if self.breaks(Defect::EvictionRefundsNothing) => Back::default(),
            ExpiryCause::LeaseEnded if self.breaks(Defect::CutJobKeepsBudget) => Back::default(),
            _ if self.breaks(Defect::RefundOfFirstTerm) => {
                self.back_of_first(reservation).unwrap_or(right)
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
        } else if self.breaks(Defect::RefundOfFirstTerm) {
            self.back_of_first(held)
        } else {
            None
        };
        spoiled.unwrap_or(right)
    }

    /// What is given back of what was asked for at first.
    fn back_of_first(&self, held: &Reservation) -> Option<Back> {
        let (is_new, now) = (held.state == ReservationState::Reserved, self.now);
        back(held, |term: (u64, u64), charge| match term.0 == held.booking.start {
            true if is_new => Some(charge.amount),
            true => unused(term, charge.amount, now),
            false => Some(0),
        })
    }

    /// What is added to what goes on.
    pub(super) fn spoil_extension(&self, mut booking: Booking) -> Booking {
        if self.breaks(Defect::ExtensionHeldFromNow) {
            booking.start = self.now;
        }
        if self.breaks(Defect::ExtensionChargesNoBudget) {
            booking.charges.retain(|charge| charge.kind == AccountKind::Level);
        }
        booking
    }

    /// What jobs may hold of an account of their lease.
    pub(crate) fn spoil_lease_limit(&self, unit: Unit, right: u64) -> u64 {
        let is_open = match unit {
            Unit::Gbps => self.breaks(Defect::FabricOfLeaseNotLimited),
            _ => self.breaks(Defect::LeaseNotLimited),
        };
        if is_open { MAX_AMOUNT } else { right }
    }

    /// Up to when jobs may run inside a lease.
    pub(super) fn spoil_until(&self, lease: &Reservation) -> u64 {
        if self.breaks(Defect::JobOutlastsEviction) { lease.end() } else { lease.until() }
    }

    /// Whether a level stays as it is when a reservation ends.
    pub(super) fn spoil_levels(&self, is_released: bool) -> bool {
        is_released && self.breaks(Defect::ReleaseKeepsLevels)
    }

    /// From when on a part of an interval is held.
    pub(super) fn spoil_start(&self, start: u64) -> u64 {
        if self.breaks(Defect::AheadHeldFromNow) { self.now } else { start.max(self.now) }
    }

    /// For how much of an interval room is looked for.
    pub(super) fn spoil_look(&self, segment: Segment) -> Segment {
        let is_short = self.breaks(Defect::AheadKeepsNobodyOut);
        let end = if is_short { segment.start.saturating_add(1) } else { segment.end };
        Segment { end, ..segment }
    }

    /// Up to when a booking must be confirmed.
    pub(crate) fn spoil_deadline(&self, booking: Booking, within: u64) -> Booking {
        if !self.breaks(Defect::AheadConfirmedAtOnce) {
            return booking;
        }
        let confirm_by = self.now.saturating_add(within).min(booking.end);
        Booking { confirm_by, ..booking }
    }

    /// The latest start of a victim.
    pub(super) fn spoil_began(&self, booking: &Booking, right: u64) -> u64 {
        if self.breaks(Defect::MinRuntimeIgnored) { booking.start } else { right }
    }

    /// The seconds that a victim keeps running.
    pub(crate) fn spoil_grace(&self, right: u32) -> u32 {
        if self.breaks(Defect::GraceIgnored) { 1 } else { right }
    }

    /// A victim whose room the preemptor has.
    pub(super) fn spoil_victim(&self, mut right: Reservation) -> Reservation {
        if self.breaks(Defect::VictimKeepsEpoch) {
            right.epoch = right.epoch.saturating_sub(1);
        }
        if self.breaks(Defect::EvictedStaysActive) {
            right.order = None;
        }
        right
    }

    /// Called before a reservation ends: victims of one that was confirmed may stay after all.
    pub(super) fn spoil_victims_of(&mut self, ending: &Reservation) {
        if !self.breaks(Defect::ReleaseRevivesVictims) {
            return;
        }
        let id = &ending.booking.id;
        let is_told = |held: &&Reservation| {
            held.order.as_ref().is_some_and(|order| order.effective && order.preemptor == *id)
        };
        let told: Vec<Reservation> = self.live.values().filter(is_told).cloned().collect();
        for mut victim in told {
            victim.order = None;
            self.set_live(victim.booking.id.clone(), Some(victim));
        }
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
