//! Requests about what is held: that it goes on, and that a job runs inside of it.

use std::rc::Rc;

use placet_core::{
    AccountKind, AdmissionRequest, Claim, Extends, Id, IsolationLevel, PolicyClaim, PriorityClass,
    ReservationGrant, ReservationState, Subject, SubjectKind, Unit, Workload,
};
use placet_server::sequencer::{Candidate, Proposal, Step};

use super::super::leases::TERMS;
use super::super::model::Model;
use super::super::reservation::Held;
use super::super::world::{Account, CALLERS, MODELS, TENANTS, accounts, code, id, path};
use super::{Aim, Driver, LONGEST, RECENT, permit, workload_of};

impl Driver {
    /// A reservation goes on, second by second, more often than it may.
    pub(super) fn on_and_on(&mut self, model: &Model) -> Vec<Step> {
        let may = |held: &&Rc<Held>| {
            held.state == ReservationState::Active
                && held.told.is_none()
                && held.work.lease.is_none()
                && held.grant.end > self.clock.max(model.now) + 2
        };
        let all: Vec<_> = model.held.iter().filter(may).collect();
        let Some(held) = self.rng.recent(&all, RECENT).map(|held| Held::clone(held)) else {
            return Vec::new();
        };
        let more = |more: u64| {
            let mut one = held.clone();
            (one.grant.end, one.grant.epoch) = (held.grant.end + more, held.grant.epoch + more);
            one
        };
        let free = Candidate {
            gpu_model: held.work.grant.gpu_model.clone(),
            limits: Vec::new(),
            outcome: permit(),
        };
        let mut steps = Vec::new();
        for at in 0..=u64::try_from(TERMS).unwrap_or(0) {
            let Some(request) = self.more_of(model, &more(at), 1) else { return Vec::new() };
            let mut proposal = self.proposal(held.caller.as_str(), request, vec![free.clone()]);
            // Nothing but the ledger speaks against it.
            (proposal.candidates, proposal.rejected) = (vec![free.clone()], Vec::new());
            proposal.time = self.clock;
            steps.push(Step::Propose(proposal));
        }
        steps
    }

    /// The request for more seconds of a reservation, as it is when it is right.
    fn more_of(&mut self, model: &Model, held: &Held, seconds: u64) -> Option<AdmissionRequest> {
        self.names += 1;
        let first = model.asked.get(&(held.caller.clone(), held.request.clone()))?;
        let ReservationGrant { id: reservation_id, start, end, epoch, .. } = held.grant.clone();
        let mut request = AdmissionRequest {
            extends: Some(Extends { end, epoch, reservation_id, start }),
            gang: None,
            request_id: id(&format!("r-{}", self.names)),
            waivers: Vec::new(),
            ..first.proposal.request.clone()
        };
        let workload = workload_of(&mut request);
        (workload.start, workload.duration_seconds) = (Some(end), seconds);
        Some(request)
    }

    /// A request that something goes on: mostly what is confirmed, and as it is.
    pub(super) fn longer(&mut self, model: &Model) -> Option<Box<Proposal>> {
        let is_active = |held: &&Rc<Held>| held.state == ReservationState::Active;
        let active: Vec<_> = model.held.iter().filter(is_active).collect();
        let live: Vec<_> = model.held.iter().filter(|held| held.is_live()).collect();
        let held = match self.rng.below(20) {
            0 => Held::clone(self.rng.recent(&model.held, RECENT)?),
            1 | 2 => Held::clone(self.rng.recent(&live, RECENT)?),
            _ => Held::clone(self.rng.recent(&active, RECENT)?),
        };
        let seconds = if self.rng.percent(1) { 0 } else { self.rng.within(1, LONGEST / 2) };
        let mut request = self.more_of(model, &held, seconds)?;
        let mut caller = held.caller.to_string();
        let wrong = self.rng.below(60);
        if let Some(extends) = &mut request.extends {
            match wrong {
                0 => extends.epoch += 1,
                1 => extends.epoch -= 1,
                2 => extends.start -= 1,
                3 | 4 => extends.end += 1,
                5 => extends.reservation_id = id("rsv-unknown"),
                6 => (extends.start, extends.end) = (extends.start + 1, extends.end - 1),
                _ => {}
            }
        }
        let said = request.extends.as_ref().map(|extends| extends.end);
        let is_job = matches!(request.subject, Subject::Job(_));
        let workload = workload_of(&mut request);
        match wrong {
            4 | 6 => workload.start = said,
            7 => workload.start = Some(held.grant.end + 1),
            8 => workload.gpu_count += 1,
            9 => workload.fabric_gbps += 1,
            10 => workload.isolation_level = IsolationLevel::Shared,
            11 => request.tenant_id = id(self.rng.name(&TENANTS)),
            12 => self.rng.name(&CALLERS).clone_into(&mut caller),
            13 => request.priority_class = PriorityClass::InternalResearch,
            14 => request.priority_class = PriorityClass::ExternalCommercial,
            15 if is_job => workload.lease_id = Some(held.grant.id.clone()),
            _ => {}
        }
        let own = held.work.grant.gpu_model.to_string();
        let models = if self.rng.percent(5) { vec![MODELS[1].to_owned(), own] } else { vec![own] };
        let candidates = models
            .iter()
            .map(|gpu_model| self.candidate_for(model, &request, gpu_model, held.grant.end));
        let candidates = candidates.collect();
        Some(self.proposal(&caller, request, candidates))
    }

    /// A candidate for what goes on or runs inside a lease.
    fn candidate_for(
        &mut self,
        model: &Model,
        request: &AdmissionRequest,
        gpu_model: &str,
        start: u64,
    ) -> Candidate {
        let workload = request.subject.workload();
        let (gpus, milli) = (u64::from(workload.gpu_count), workload.gpu_milli);
        let seconds = workload.duration_seconds;
        let Some(lease) = workload.lease_id.clone() else {
            let choice = accounts(self.view.1, request.tenant_id.as_str(), gpu_model, start);
            let is_sold = self.rng.percent(50);
            let aim = Aim { gpus, milli, seconds, start, is_sold, victims: &[] };
            return self.candidate(model, gpu_model, &choice, aim);
        };
        let held = model.held.iter().find(|held| held.grant.id == lease);
        let limits = held.map_or((0, 0), |held| {
            (held.work.milli_gpus(), u64::from(held.work.grant.fabric_gbps))
        });
        let mut outcome = permit();
        if self.rng.percent(20) {
            outcome.preemption = Some(self.rule());
        }
        outcome.terms = self.terms();
        let mut candidate = Candidate { gpu_model: id(gpu_model), limits: Vec::new(), outcome };
        let account = |ending: &str, unit, limit| Account {
            path: path(&format!("lease/{lease}{ending}")),
            kind: AccountKind::Level,
            unit,
            limit,
        };
        let mut claim = |driver: &mut Self, account: Account, limit| {
            let aim = Aim { gpus, milli, seconds, start, is_sold: false, victims: &[] };
            let amount = driver.amount(model, &account, &aim);
            let own = if driver.rng.percent(5) { Some(amount) } else { None };
            let code = driver.rng.percent(20).then(|| code("LEASE_LIMIT"));
            let claim = Claim { account: account.path, amount, code, limit: own };
            candidate.outcome.claims.push(PolicyClaim { claim, policy: id("quota") });
            candidate.limits.push(limit);
        };
        if self.rng.percent(96) {
            claim(self, account("", Unit::MilliGpu, limits.0), None);
        }
        if self.rng.percent(if workload.fabric_gbps > 0 { 70 } else { 5 }) {
            claim(self, account("/fabric-gbps", Unit::Gbps, limits.1), None);
        }
        if self.rng.percent(2) {
            claim(self, account("/disks", Unit::Gbps, limits.1), None);
        }
        let choice = accounts(self.view.1, request.tenant_id.as_str(), gpu_model, start);
        for (account, chance) in choice.iter().zip([3, 5, 25, 15, 5, 3, 15, 3]) {
            if self.rng.percent(chance) {
                let limit = Some((account.kind, account.unit, account.limit));
                claim(self, account.clone(), limit);
            }
        }
        self.spoil(&mut candidate);
        candidate
    }

    /// Mostly a lease that is confirmed.
    fn lease(&mut self, model: &Model) -> Option<Held> {
        let is_lease = |held: &&Rc<Held>| held.is_live() && held.work.kind == SubjectKind::Lease;
        let live: Vec<_> = model.held.iter().filter(is_lease).collect();
        let is_active = |held: &&Rc<Held>| held.state == ReservationState::Active;
        let active: Vec<_> = live.iter().copied().filter(is_active).collect();
        // Mostly one of the latest two, so that several jobs meet inside of one.
        Some(match self.rng.below(20) {
            0 => Held::clone(self.rng.recent(&model.held, RECENT)?),
            1 => Held::clone(self.rng.recent(&live, RECENT)?),
            2..8 => Held::clone(self.rng.recent(&active, RECENT)?),
            _ => Held::clone(self.rng.recent(&active, 2)?),
        })
    }

    /// A job inside a lease: mostly one that is confirmed, and within what it was granted.
    pub(super) fn inside(&mut self, model: &Model) -> Option<Box<Proposal>> {
        let lease = self.lease(model)?;
        self.names += 1;
        let now = self.clock.max(model.now);
        let start = match self.rng.below(20) {
            0 => Some(lease.grant.start.saturating_sub(1).max(1)),
            1..4 => Some(now.max(lease.grant.start) + self.rng.below(5)),
            _ if lease.grant.start > now => Some(lease.grant.start),
            _ => None,
        };
        let left = lease.until().saturating_sub(start.unwrap_or(now)).max(1);
        let seconds = match self.rng.below(20) {
            0..4 => left,
            4 => left + 1,
            5 => self.rng.within(1, LONGEST),
            _ => self.rng.within(1, left),
        };
        let granted = &lease.work.grant;
        let fabric = if self.rng.percent(60) { granted.fabric_gbps } else { 0 };
        let wrong = self.rng.below(40);
        let gpu_model = if wrong == 0 { id(MODELS[1]) } else { granted.gpu_model.clone() };
        let is_other = wrong == 1 && granted.gpu_model.as_str() != MODELS[2];
        let other = is_other.then(|| id(MODELS[2]));
        let gpu_models: Vec<Id> = other.into_iter().chain([gpu_model]).collect();
        let workload = Workload {
            checkpoint_jurisdictions: Vec::new(),
            cluster_id: if wrong == 2 { id("c-2") } else { granted.cluster_id.clone() },
            dataset_ids: Vec::new(),
            duration_seconds: seconds,
            egress_bytes: 0,
            egress_jurisdictions: Vec::new(),
            fabric_gbps: fabric,
            gpu_count: u32::try_from(self.rng.within(1, granted.gpu_count.into())).unwrap_or(1),
            gpu_milli: granted.gpu_milli,
            gpu_models: gpu_models.clone(),
            isolation_level: match wrong {
                3 => IsolationLevel::Confidential,
                4 => IsolationLevel::Shared,
                _ => granted.isolation_level,
            },
            lease_id: Some(if wrong == 5 { id("rsv-unknown") } else { lease.grant.id.clone() }),
            may_preempt: self.rng.percent(10),
            start,
            model_ids: Vec::new(),
            model_use: None,
            storage_io_bytes: 0,
        };
        let tenant = if wrong == 6 { id(self.rng.name(&TENANTS)) } else { lease.tenant.clone() };
        let request = AdmissionRequest {
            extends: None,
            gang: None,
            principal: None,
            priority_class: if self.rng.percent(70) {
                lease.class
            } else {
                PriorityClass::InternalResearch
            },
            request_id: id(&format!("r-{}", self.names)),
            subject: Subject::Job(workload),
            tenant_id: tenant,
            waivers: Vec::new(),
        };
        let at = start.unwrap_or(now);
        let candidate =
            |gpu_model: &Id| self.candidate_for(model, &request, gpu_model.as_str(), at);
        let candidates = gpu_models.iter().map(candidate).collect();
        let caller = self.rng.name(&CALLERS);
        Some(self.proposal(caller, request, candidates))
    }
}
