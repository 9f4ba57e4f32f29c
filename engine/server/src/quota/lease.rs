//! Jobs inside leases: a lease's GPUs are an account of their own, and what runs on them ends with
//! it.

use placet_core::{AccountPath, Id, IsolationLevel, ReservationState, SubjectKind, Unit};

use super::{Booking, Defect, Ledger, Reservation, ReserveError};

/// First segment of the accounts of leases, all of them level accounts: `lease/<reservation>` in
/// thousandths of a GPU, `lease/<reservation>/fabric-gbps` in Gbit/s. Facts give no accounts of
/// these names: their limits are what the lease was granted.
pub const LEASE_ACCOUNTS: &str = "lease";

/// Most jobs inside one lease at a time: all of them end when it does, in one step of the writer.
pub const MAX_JOBS_INSIDE: usize = 1_024;

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
    /// It has smaller shares of GPUs: several of them need not be of one.
    #[error("the lease has shares of {most}/1000 of a GPU")]
    LargerShare {
        /// Thousandths of a GPU that the lease has of each.
        most: u32,
    },
    /// It is kept apart less than the job asks for.
    #[error("the lease is only {least:?}")]
    LessIsolated {
        /// How far the lease is kept apart.
        least: IsolationLevel,
    },
    /// As many run inside as may.
    #[error("the lease has {} jobs inside", MAX_JOBS_INSIDE)]
    Full,
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
        let is_open = self.breaks(Defect::JobOfOtherTenant);
        let own = |held: &&Reservation| {
            let is_own = held.booking.tenant == job.tenant;
            held.booking.work.kind == SubjectKind::Lease && (is_own || is_open)
        };
        let held = self.live.get(lease).filter(own).ok_or(LeaseError::NotFound)?;
        let is_confirmed = held.state == ReservationState::Active;
        if !is_confirmed && !self.breaks(Defect::JobInUnconfirmedLease) {
            return Err(LeaseError::NotConfirmed);
        }
        let (own, asked) = (&held.booking.work.grant, &job.work.grant);
        if own.cluster_id != asked.cluster_id {
            return Err(LeaseError::OtherCluster);
        }
        if own.gpu_model != asked.gpu_model && !self.breaks(Defect::JobOfOtherModel) {
            return Err(LeaseError::OtherModel);
        }
        if own.gpu_milli < asked.gpu_milli {
            return Err(LeaseError::LargerShare { most: own.gpu_milli });
        }
        if own.isolation_level < asked.isolation_level {
            return Err(LeaseError::LessIsolated { least: own.isolation_level });
        }
        let (start, end) = (held.booking.start, self.spoil_until(held));
        let is_outside = job.start < start || job.end > end;
        if is_outside && !self.breaks(Defect::JobOutsideLease) {
            return Err(LeaseError::NotWithin { start, end });
        }
        let jobs = self.inside.get(lease);
        let is_new = jobs.is_none_or(|jobs| !jobs.contains(&job.id));
        if is_new && jobs.is_some_and(|jobs| jobs.len() >= MAX_JOBS_INSIDE) {
            return Err(LeaseError::Full);
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
            let limit = self.spoil_lease_limit(unit, limit);
            Some((unit, charge.unit == unit && charge.limit <= limit))
        });
        let limits: Vec<_> = limits.collect();
        let is_charged = limits.iter().any(|(unit, _)| *unit == Unit::MilliGpu)
            || self.breaks(Defect::LeaseNotClaimed);
        if is_charged && limits.iter().all(|it| it.1) {
            Ok(())
        } else {
            Err(ReserveError::Malformed("does not charge the lease inside which it runs"))
        }
    }

    /// Called when a reservation has ended: jobs inside are due now.
    pub(super) fn cut_jobs(&mut self, lease: &Id) {
        let Some(jobs) = self.inside.get(lease) else { return };
        if self.breaks(Defect::JobsOutliveLease) {
            return;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use placet_core::{AccountKind, Charge, PriorityClass};

    use super::super::Work;
    use super::super::tests::work;
    use super::*;

    fn booking(name: &str, account: &str, amount: u64, limit: u64) -> Booking {
        let id = |text: &str| Id::new(text).unwrap();
        let charge = Charge {
            account: AccountPath::new(account).unwrap(),
            amount,
            kind: AccountKind::Level,
            limit,
            unit: Unit::MilliGpu,
        };
        Booking {
            id: id(name),
            tenant: id("acme"),
            caller: id("scheduler"),
            class: PriorityClass::ExternalCommercial,
            work: work(1_000_000),
            start: 100,
            end: 200,
            confirm_by: 200,
            charges: vec![charge],
            terms: None,
        }
    }

    #[test]
    fn so_many_jobs_run_inside_a_lease_and_all_end_in_its_second() {
        let mut ledger = Ledger::default();
        ledger.advance(100).unwrap();
        let lease = booking("lease", "cluster/gpu", 1_000_000, 1_000_000);
        ledger.reserve(lease.clone()).unwrap();
        let job = |number: usize| {
            let own = booking(&format!("job-{number}"), "lease/lease", 1, 1_000_000);
            let grant = work(1).grant.clone();
            let lease_id = Some(lease.id.clone());
            Booking { work: Arc::new(Work { kind: SubjectKind::Job, grant, lease_id }), ..own }
        };
        assert_eq!(ledger.check_inside(&lease.id, &job(0)), Err(LeaseError::NotConfirmed));
        ledger.confirm(&lease.id, 1).unwrap();
        for number in 0..MAX_JOBS_INSIDE {
            ledger.reserve(job(number)).unwrap();
        }
        assert_eq!(ledger.check_inside(&lease.id, &job(MAX_JOBS_INSIDE)), Err(LeaseError::Full));
        assert!(ledger.check_inside(&lease.id, &job(0)).is_ok(), "it is one of them");
        assert_eq!(ledger.audit(), Ok(()));
        ledger.keep();
        ledger.advance(150).unwrap();
        ledger.release(&lease.id, 1).unwrap();
        let ended = ledger.advance(150).unwrap();
        assert_eq!(ended.len(), MAX_JOBS_INSIDE);
        assert!(ended.iter().all(|one| one.at == 150), "and nothing later");
        assert_eq!((ledger.live(), ledger.audit()), (0, Ok(())));
        ledger.undo_all();
        assert_eq!((ledger.live(), ledger.audit()), (1 + MAX_JOBS_INSIDE, Ok(())));
    }
}
