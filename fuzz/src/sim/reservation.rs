//! A reservation of the model: all that it ever held.

use placet_core::{
    AccountPath, Charge, ExpiryCause, Grant, Id, PriorityClass, ReservationGrant, ReservationState,
    SubjectKind,
};
use placet_server::sequencer::Proposal;

/// What runs on what is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) kind: SubjectKind,
    pub(super) grant: Grant,
    /// The lease inside which it runs.
    pub(super) lease: Option<Id>,
}

impl Work {
    pub(super) fn new(proposal: &Proposal, gpu_model: &Id) -> Self {
        let workload = proposal.request.subject.workload();
        let grant = Grant {
            cluster_id: workload.cluster_id.clone(),
            fabric_gbps: workload.fabric_gbps,
            gpu_count: workload.gpu_count,
            gpu_milli: workload.gpu_milli,
            gpu_model: gpu_model.clone(),
            isolation_level: workload.isolation_level,
        };
        let kind = proposal.request.subject.kind();
        Self { kind, grant, lease: workload.lease_id.clone() }
    }

    pub(super) fn milli_gpus(&self) -> u64 {
        u64::from(self.grant.gpu_count) * u64::from(self.grant.gpu_milli)
    }
}

/// A stretch of a reservation's time, with its own charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) charges: Vec<Charge>,
}

/// A reservation, from its beginning on for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// As it was granted at first, but for the end and the epoch, which are those of now.
    pub(super) grant: ReservationGrant,
    /// All of its time.
    pub(super) terms: Vec<Term>,
    pub(super) request: Id,
    pub(super) tenant: Id,
    pub(super) caller: Id,
    pub(super) state: ReservationState,
    pub(super) since: u64,
    pub(super) cause: Option<ExpiryCause>,
    pub(super) refunded: u64,
    pub(super) class: PriorityClass,
    pub(super) work: Work,
    /// When the lease ended inside which it ran.
    pub(super) cut: Option<u64>,
    /// If it was told to make room: from when on, and whether that is certain.
    pub(super) told: Option<(u64, bool)>,
    /// Who was told to make room for it, while it is not confirmed.
    pub(super) victims: Vec<Id>,
    /// What it was promised: run time and notice.
    pub(super) promised: Option<[u32; 2]>,
}

impl Held {
    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, ReservationState::Reserved | ReservationState::Active)
    }

    /// When it ends by itself.
    pub(super) fn due(&self) -> u64 {
        self.cut.unwrap_or(u64::MAX).min(self.own_due())
    }

    /// When it would, whatever becomes of its lease.
    pub(super) fn own_due(&self) -> u64 {
        match self.state {
            ReservationState::Reserved => self.grant.confirm_by,
            _ => self.until(),
        }
    }

    /// First second at which it holds nothing any more.
    pub(super) fn until(&self) -> u64 {
        match self.told {
            Some((at, true)) => at,
            Some((_, false)) | None => self.grant.end,
        }
    }

    /// What it charges to an account, in the order of time.
    pub(super) fn charges(&self, account: &AccountPath) -> impl Iterator<Item = (&Term, &Charge)> {
        self.terms.iter().filter_map(move |term| {
            let charge = term.charges.iter().find(|charge| charge.account == *account)?;
            Some((term, charge))
        })
    }
}
