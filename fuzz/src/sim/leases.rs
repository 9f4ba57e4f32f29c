//! What goes on and what runs inside a lease, and why it does not.

use std::rc::Rc;

use placet_core::{
    AccountKind, AccountPath, Extends, Id, ReservationGrant, ReservationState, SubjectKind, Unit,
};
use placet_server::sequencer::{Candidate, Proposal};

use super::books::Fit;
use super::foretold::Denial;
use super::model::Model;
use super::reservation::{Held, Term, Work};

/// Most stretches of one reservation's time.
pub(super) const TERMS: usize = 64;

/// What of a lease was granted on one of its accounts.
pub(super) fn granted_of(lease: &Held, account: &AccountPath) -> Option<(AccountKind, Unit, u64)> {
    let own = format!("lease/{}", lease.grant.id);
    let fabric = format!("{own}/fabric-gbps");
    let granted = if account.as_str() == own {
        (Unit::MilliGpu, lease.work.milli_gpus())
    } else if account.as_str() == fabric {
        (Unit::Gbps, lease.work.grant.fabric_gbps.into())
    } else {
        return None;
    };
    Some((AccountKind::Level, granted.0, granted.1))
}

impl Model {
    /// The reservation that is to go on, if one is, or what speaks against it.
    pub(super) fn goes_on(
        &self,
        proposal: &Proposal,
        candidate: &Candidate,
        start: u64,
    ) -> Result<Option<usize>, Box<Denial>> {
        let request = &proposal.request;
        let Some(extends) = &request.extends else { return Ok(None) };
        let own = |held: &Rc<Held>| {
            held.is_live()
                && held.grant.id == extends.reservation_id
                && (&held.tenant, &held.caller) == (&request.tenant_id, &proposal.caller)
        };
        let no = |code, field: &str| {
            Err(Box::new(Denial::own(code, &format!("extends.{field}"), false)))
        };
        let Some(number) = self.held.iter().position(own) else {
            return no("UNKNOWN_RESERVATION", "reservation_id");
        };
        let held = &self.held[number];
        let Extends { end, epoch, start: began, .. } = extends;
        if held.grant.epoch != *epoch {
            no("STALE_EPOCH", "epoch")
        } else if held.state == ReservationState::Reserved {
            Err(Box::new(Denial::own("RESERVATION_NOT_CONFIRMED", "extends.reservation_id", true)))
        } else if held.told.is_some() {
            no("RESERVATION_MAKES_ROOM", "reservation_id")
        } else if held.grant.start != *began {
            no("EXTENSION_MISMATCH", "start")
        } else if held.grant.end != *end || start != *end {
            no("EXTENSION_MISMATCH", "end")
        } else if held.work != Work::new(proposal, &candidate.gpu_model)
            || held.class != request.priority_class
        {
            no("EXTENSION_MISMATCH", "reservation_id")
        } else if held.terms.len() >= TERMS {
            no("EXTENDED_TOO_OFTEN", "reservation_id")
        } else {
            Ok(Some(number))
        }
    }

    /// Makes a reservation longer.
    pub(super) fn go_on(
        &mut self,
        number: usize,
        grant: &ReservationGrant,
        promised: Option<[u32; 2]>,
    ) {
        self.know(&grant.charges);
        let held = Rc::make_mut(&mut self.held[number]);
        let (start, end, charges) = (grant.start, grant.end, grant.charges.clone());
        held.terms.push(Term { start, end, charges });
        (held.grant.end, held.grant.epoch) = (end, grant.epoch);
        // What was promised once stays so, and can only get better.
        held.promised = match (held.promised, promised) {
            (Some(old), Some(new)) => Some([old[0].max(new[0]), old[1].max(new[1])]),
            (old, new) => old.or(new),
        };
    }

    /// The lease inside which a job is to run, if it names one, or what speaks against it.
    pub(super) fn lease_of(
        &self,
        proposal: &Proposal,
        candidate: &Candidate,
        [start, end]: [u64; 2],
    ) -> Result<Option<&Held>, Box<Denial>> {
        let job = Work::new(proposal, &candidate.gpu_model);
        let Some(id) = &job.lease else { return Ok(None) };
        let no =
            |code, field: &str| Err(Box::new(Denial::own(code, &format!("job.{field}"), false)));
        let Some(lease) = self.lease(id).filter(|it| it.tenant == proposal.request.tenant_id)
        else {
            return no("UNKNOWN_LEASE", "lease_id");
        };
        let (own, asked) = (&lease.work.grant, &job.grant);
        if lease.state == ReservationState::Reserved {
            Err(Box::new(Denial::own("LEASE_NOT_CONFIRMED", "job.lease_id", true)))
        } else if own.cluster_id != asked.cluster_id {
            no("OUTSIDE_LEASE", "cluster_id")
        } else if own.gpu_model != asked.gpu_model {
            no("OUTSIDE_LEASE", "gpu_models")
        } else if own.gpu_milli < asked.gpu_milli {
            no("OUTSIDE_LEASE", "gpu_milli")
        } else if own.isolation_level < asked.isolation_level {
            no("OUTSIDE_LEASE", "isolation_level")
        } else if start < lease.grant.start || lease.until() < end {
            no("OUTSIDE_LEASE", "duration_seconds")
        } else {
            Ok(Some(lease))
        }
    }

    /// A lease that is held.
    fn lease(&self, id: &Id) -> Option<&Held> {
        let is_it = |held: &&Held| {
            held.is_live() && held.grant.id == *id && held.work.kind == SubjectKind::Lease
        };
        self.held.iter().map(|held| &**held).find(is_it)
    }

    /// What would be admitted instead, of what the levels leave room for: what goes on does so at
    /// once and on all of its GPUs, and a job ends with its lease.
    pub(super) fn way_out(
        &self,
        proposal: &Proposal,
        candidate: &Candidate,
        grant: &ReservationGrant,
        (gpus, seconds, start): Fit,
    ) -> Fit {
        if proposal.request.extends.is_some() {
            return (None, seconds, None);
        }
        let length = grant.end - grant.start;
        let inside = |at: &u64| self.lease_of(proposal, candidate, [*at, at + length]).is_ok();
        (gpus, seconds, start.filter(inside))
    }
}
