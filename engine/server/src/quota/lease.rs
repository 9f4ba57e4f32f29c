//! Jobs inside leases: a lease's GPUs are an account of their own, and what runs on them ends with
//! it.

use placet_core::{AccountPath, Id, IsolationLevel, ReservationState, SubjectKind, Unit};

use super::{Booking, Ledger, Reservation, ReserveError};

/// First segment of the accounts of leases, all of them level accounts: `lease/<reservation>` in
/// thousandths of a GPU, `lease/<reservation>/fabric-gbps` in Gbit/s. Facts give no accounts of
/// these names: their limits are what the lease was granted.
pub const LEASE_ACCOUNTS: &str = "lease";

/// Why a job does not run inside a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No lease of this name is held for this tenant.
    #[error("there is no such lease of this tenant")]
    NotFound,
    /// It is not confirmed yet.
    #[error("the lease is not confirmed yet")]
    NotConfirmed,
    /// It is elsewhere.
    #[error("the lease is in another cluster")]
    OtherCluster,
    /// It has GPUs of another model.
    #[error("the lease has GPUs of another model")]
    OtherModel,
    /// It is kept apart less than the job asks for.
    #[error("the lease is only {least:?}")]
    LessIsolated {
        /// How far the lease is kept apart.
        least: IsolationLevel,
    },
    /// The job begins before it or ends after it.
    #[error("the lease is from {start} to {end}")]
    NotWithin {
        /// First second of the lease.
        start: u64,
        /// First second after it.
        end: u64,
    },
}

/// What jobs inside a lease may hold of it together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside<'a> {
    lease: &'a Reservation,
}

impl Inside<'_> {
    /// Unit and limit of one of the lease's accounts; `None` if the account is not the lease's.
    #[must_use]
    pub fn limit(&self, account: &AccountPath) -> Option<(Unit, u64)> {
        let own = account.as_str().strip_prefix(LEASE_ACCOUNTS)?.strip_prefix('/')?;
        let work = &self.lease.booking.work;
        match own.strip_prefix(self.lease.booking.id.as_str())? {
            "" => Some((Unit::MilliGpu, work.milli_gpus())),
            "/fabric-gbps" => Some((Unit::Gbps, work.grant.fabric_gbps.into())),
            _ => None,
        }
    }
}

impl Ledger {
    /// What jobs inside a lease may hold of it together, if this one may run there.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn check_inside(&self, lease: &Id, job: &Booking) -> Result<Inside<'_>, LeaseError> {
        let own = |held: &&Reservation| {
            held.booking.work.kind == SubjectKind::Lease && held.booking.tenant == job.tenant
        };
        let held = self.live.get(lease).filter(own).ok_or(LeaseError::NotFound)?;
        if held.state != ReservationState::Active {
            return Err(LeaseError::NotConfirmed);
        }
        let (own, asked) = (&held.booking.work.grant, &job.work.grant);
        if own.cluster_id != asked.cluster_id {
            return Err(LeaseError::OtherCluster);
        }
        if own.gpu_model != asked.gpu_model {
            return Err(LeaseError::OtherModel);
        }
        if own.isolation_level < asked.isolation_level {
            return Err(LeaseError::LessIsolated { least: own.isolation_level });
        }
        let (start, end) = (held.booking.start, held.until());
        if job.start < start || job.end > end {
            return Err(LeaseError::NotWithin { start, end });
        }
        Ok(Inside { lease: held })
    }

    /// Checks that what runs inside a lease runs there, and is charged to it.
    pub(super) fn check_lease(&self, booking: &Booking) -> Result<(), ReserveError> {
        let Some(lease) = &booking.work.lease_id else { return Ok(()) };
        let inside = self.check_inside(lease, booking);
        let inside =
            inside.map_err(|_outside| ReserveError::Malformed("runs outside its lease"))?;
        let limits = booking.charges.iter().filter_map(|charge| {
            let (unit, limit) = inside.limit(&charge.account)?;
            Some((unit, charge.unit == unit && charge.limit <= limit))
        });
        let limits: Vec<_> = limits.collect();
        if limits.iter().any(|(unit, _)| *unit == Unit::MilliGpu) && limits.iter().all(|it| it.1) {
            Ok(())
        } else {
            Err(ReserveError::Malformed("does not charge the lease inside which it runs"))
        }
    }

    /// Called when a reservation has ended: jobs inside are due now.
    pub(super) fn cut_jobs(&mut self, lease: &Id) {
        let Some(jobs) = self.inside.get(lease) else { return };
        for id in jobs.clone() {
            if let Some(mut job) = self.live.get(&id).cloned() {
                job.cut = Some(self.now);
                self.set_live(id, Some(job));
            }
        }
    }

    /// Puts a job into the list of those inside its lease, or takes it out.
    pub(super) fn index_inside(&mut self, job: &Reservation, there: bool) {
        let Some(lease) = &job.booking.work.lease_id else { return };
        let id = job.booking.id.clone();
        if there {
            self.inside.entry(lease.clone()).or_default().insert(id);
        } else if let Some(jobs) = self.inside.get_mut(lease) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.inside.remove(lease);
            }
        }
    }
}
