//! What happens in a run: out of chance, but leaning to what is interesting. Requests that just
//! fit or just do not, names of late, deadlines met and missed by a second.

mod held;

use std::rc::Rc;

use placet_core::{
    AccountKind, AdmissionRequest, Charge, Claim, Digest, Effect, GangPlace, Id, IsolationLevel,
    Outcome, PolicyClaim, PreemptionRule, PriorityClass, Reason, ReservationState, SlaTerms,
    Subject, Warning, Workload, canonical_json,
};
use placet_server::Clock;
use placet_server::sequencer::{
    Candidate, Erase, Personal, Proposal, Settle, SettleKind, Step, Target,
};
use placet_server::store::Fault;

use super::approvals::Approver;
use super::model::{GIANT, LEAD, Model};
use super::reservation::Held;
use super::rng::Rng;
use super::world::{
    Account, BEGIN, CALLERS, MODELS, REVISIONS, Revisions, Rules, TENANTS, accounts, activation,
    code, id,
};

/// Commands of a batch, at most.
const BATCH: u64 = 8;
/// Requests that are still talked about.
const RECENT: usize = 6;
/// More than any account has.
const MUCH: u64 = 100_000;
/// Most seconds by which a start mostly lies ahead.
const AHEAD: u64 = 60;
/// Most seconds of a lease.
const LONGEST: u64 = 90;

/// What happens next.
#[derive(Debug)]
pub(super) enum Action {
    /// A batch.
    Serve(Vec<Step>),
    /// The process ends and another one starts.
    Restart {
        /// Without closing the store.
        kill: bool,
        /// What it starts with.
        active: Revisions,
        /// Pages that are left on the disk; `None` for any number.
        room: Option<u32>,
    },
}

/// What a request is after.
#[derive(Debug)]
struct Aim<'a> {
    gpus: u64,
    /// Thousandths of each.
    milli: u32,
    seconds: u64,
    /// When it would begin.
    start: u64,
    /// Whether others may displace it.
    is_sold: bool,
    /// Whom it would displace.
    victims: &'a [Held],
}

#[derive(Debug)]
pub(super) struct Driver {
    rng: Rng,
    pub(super) rules: Rules,
    /// What the system's clock says.
    pub(super) clock: u64,
    /// What requests are evaluated with.
    view: Revisions,
    /// Every request, or gang, as it was first made.
    asked: Vec<Vec<Proposal>>,
    names: u64,
    /// Percent of batches before which a fault is placed.
    faults: u64,
    /// Whether most of it is sold, and little time passes: so that there are many to displace.
    is_market: bool,
    /// Thousandths of a GPU that are sold at a time.
    sold_milli: u32,
    approver: Approver,
}

impl Driver {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let name = Digest::of(format!("store {seed}").as_bytes()).hex();
        let rules = Rules {
            clock: if rng.percent(50) { Clock::System } else { Clock::Events },
            confirm_within: rng.within(2, 30),
            name: name.chars().take(32).collect(),
        };
        let faults = if rng.percent(25) { 0 } else { rng.within(5, 30) };
        let is_market = rng.percent(50);
        let sold_milli = if is_market && rng.percent(50) { 200 } else { 1_000 };
        let (clock, asked) = (BEGIN, Vec::new());
        let ((view, names), approver) = (((0, 0), 0), Approver::new(seed));
        Self { rng, rules, clock, view, asked, names, faults, is_market, sold_milli, approver }
    }

    /// What happens next, to a process that lives. Whoever sees a full disk makes room before long.
    pub(super) fn next(&mut self, model: &Model, is_full: bool) -> Action {
        self.tick(model);
        self.view = model.active;
        if self.rng.percent(if is_full { 30 } else { 4 }) {
            return self.restart(model);
        }
        // Now and then nothing is asked, and only time passes.
        let length = if self.rng.percent(4) { 0 } else { self.rng.within(1, BATCH) };
        let mut steps = Vec::new();
        if self.rng.below(2_000) == 0 {
            steps = self.on_and_on(model);
        }
        for _ in 0..length {
            let step = self.step(model, &steps);
            steps.push(step);
        }
        steps.extend(self.approver.order(model, self.clock.max(model.now)));
        steps.push(Step::Inspect);
        Action::Serve(steps)
    }

    /// Every request, or gang, as it was first made.
    pub(super) fn asked(&self) -> impl DoubleEndedIterator<Item = &[Proposal]> {
        self.asked.iter().map(Vec::as_slice)
    }

    /// Faults that strike from here on.
    pub(super) fn faults(&mut self) -> Vec<Fault> {
        if !self.rng.percent(self.faults) {
            return Vec::new();
        }
        let all = [
            &[Fault::Sign][..],
            &[Fault::Commit],
            &[Fault::CommitUnknown],
            &[Fault::CommitPersisted],
            &[Fault::CommitUnknown, Fault::Reopen],
            &[Fault::CommitPersisted, Fault::Reopen],
            &[Fault::CommitPersisted, Fault::Reopen, Fault::Reopen],
            &[Fault::CommitPersisted, Fault::CrashAfterCommit],
            &[Fault::CrashBeforeCommit],
            &[Fault::CrashAfterCommit],
            &[Fault::Sign, Fault::CommitUnknown],
        ];
        self.rng.pick(&all).to_vec()
    }

    /// What the next process starts with, after the last one died by itself.
    pub(super) fn restart_dead(&mut self, model: &Model) -> Action {
        let active = if self.rng.percent(80) { model.active } else { self.revisions() };
        Action::Restart { kill: true, active, room: None }
    }

    fn restart(&mut self, model: &Model) -> Action {
        let active = if self.rng.percent(70) { model.active } else { self.revisions() };
        let room = self.rng.percent(25).then(|| u32::try_from(self.rng.within(0, 6)).unwrap_or(0));
        Action::Restart { kill: self.rng.percent(60), active, room }
    }

    fn revisions(&mut self) -> Revisions {
        (self.rng.below(REVISIONS), self.rng.below(REVISIONS))
    }

    /// Time passes: mostly little, now and then exactly up to a deadline, or back.
    fn tick(&mut self, model: &Model) {
        let by = match self.rng.below(100) {
            0..70 if self.sold_milli < 1_000 => 0,
            0..40 => 0,
            40..68 => self.rng.within(1, 3),
            68..80 => self.rng.within(4, 20),
            80..92 => {
                let live: Vec<_> = model.held.iter().filter(|held| held.is_live()).collect();
                let Some(held) = self.rng.recent(&live, RECENT) else { return };
                let is_ahead = held.grant.start > model.now && self.rng.percent(30);
                let deadline = if is_ahead { held.grant.start } else { held.due() };
                // The second before it, its own, and the one after.
                (deadline + self.rng.below(3)).saturating_sub(1).saturating_sub(self.clock)
            }
            92..100 if self.is_market => self.rng.within(1, 5),
            92..97 => self.rng.within(20, 120),
            97 => self.rng.within(120, 900),
            _ => {
                self.clock -= self.rng.within(1, 100).min(self.clock - BEGIN);
                0
            }
        };
        self.clock += by;
        if self.rules.clock == Clock::Events && self.rng.percent(90) {
            self.clock = self.clock.max(model.now);
        }
    }

    /// The time of a command: threads overtake one another.
    fn time(&mut self) -> u64 {
        match self.rng.below(200) {
            0 => u64::MAX,
            1..8 => self.clock.saturating_sub(self.rng.within(1, 130)),
            8..16 => self.clock + self.rng.within(1, 3),
            16 if self.rules.clock == Clock::System => self.clock + 4_000,
            _ => self.clock,
        }
    }

    fn step(&mut self, model: &Model, batch: &[Step]) -> Step {
        match self.rng.below(100) {
            0..38 => Step::Propose(self.propose(model)),
            38..42 => Step::Gang(self.gang(model)),
            42..50 => match self.repeat() {
                Some(step) => step,
                None => Step::Propose(self.propose(model)),
            },
            50..88 if self.sold_milli < 1_000 => self.settle(model, batch, SettleKind::Confirm),
            50..80 if self.is_market => self.settle(model, batch, SettleKind::Confirm),
            50..76 => self.settle(model, batch, SettleKind::Confirm),
            76..90 => self.settle(model, batch, SettleKind::Release),
            90..95 => Step::Probe(self.propose(model)),
            95..98 => {
                let active = if self.rng.percent(20) { self.view } else { self.revisions() };
                // Some requests that follow are still evaluated with what was active before.
                if self.rng.percent(70) {
                    self.view = active;
                }
                Step::Activate(activation(active), self.time())
            }
            98 => self.erase(model),
            _ => Step::Inspect,
        }
    }

    /// Some leaves of late, decisions or not, now and then one twice.
    fn erase(&mut self, model: &Model) -> Step {
        let size = model.size();
        let positions = (0..self.rng.within(1, 6)).map(|_| {
            let back = self.rng.within(1, 40);
            size.saturating_sub(back)
        });
        let positions = positions.collect();
        Step::Erase(Erase { caller: id(self.rng.name(&CALLERS)), positions, time: self.time() })
    }

    /// An earlier request, or gang, once more: as it was, or changed; of a gang now and then one
    /// alone, or with another in the place of one.
    fn repeat(&mut self) -> Option<Step> {
        let depth = if self.rng.percent(70) { RECENT } else { 200 };
        let mut members = self.rng.recent(&self.asked, depth)?.clone();
        if members.len() > 1 {
            match self.rng.below(10) {
                0 => members.truncate(1),
                1 => members = vec![Self::alone(members.pop()?)],
                2 => drop(members.remove(0)),
                3 => members.reverse(),
                4 => {
                    let other = self.rng.recent(&self.asked, RECENT)?.first()?.clone();
                    let is_new =
                        |one: &Proposal| one.request.request_id != other.request.request_id;
                    if members.iter().all(is_new) {
                        members.push(other);
                    }
                }
                _ => {}
            }
        }
        for proposal in &mut members {
            if self.rng.percent(50) {
                proposal.time = self.time();
            }
            // The salt and the evaluation are new each time and do not make another request.
            for personal in &mut proposal.personal {
                personal.salt = vec![9; 32];
            }
            match self.rng.below(10) {
                0 => proposal.request_digest = Digest::of(b"another"),
                1 => {
                    for personal in &mut proposal.personal {
                        "eve@example.org".clone_into(&mut personal.value);
                    }
                }
                2 => proposal.caller = id(self.rng.name(&CALLERS)),
                3 => proposal.evaluation = b"{}".to_vec(),
                _ => {}
            }
        }
        let is_one = members.len() == 1;
        Some(match members.pop().filter(|_| is_one) {
            Some(alone) => Step::Propose(Box::new(alone)),
            None => Step::Gang(members),
        })
    }

    /// A member of a gang as if it had never been one.
    fn alone(mut member: Proposal) -> Proposal {
        member.request.gang = None;
        digested(&mut member);
        member
    }

    /// Several requests that are admitted together or not at all.
    fn gang(&mut self, model: &Model) -> Vec<Proposal> {
        self.names += 1;
        let gang = id(&format!("g-{}", self.names));
        let size = if self.rng.percent(60) { 2 } else { self.rng.within(3, 4) };
        let size = u32::try_from(size).unwrap_or(2);
        let mut members = Vec::new();
        for index in 0..size {
            let mut member = *self.request(model);
            member.request.gang = Some(GangPlace { id: gang.clone(), index, size });
            digested(&mut member);
            members.push(member);
        }
        self.asked.push(members.clone());
        members
    }

    fn settle(&mut self, model: &Model, batch: &[Step], kind: SettleKind) -> Step {
        let in_batch = batch.iter().rev().find_map(|step| match step {
            Step::Propose(proposal) => Some(&**proposal),
            Step::Gang(members) => members.last(),
            _ => None,
        });
        let time = self.time();
        let mut settle = match in_batch {
            // In the batch of the request itself, without waiting for its answer.
            Some(proposal) if self.rng.percent(30) => Settle {
                kind,
                caller: proposal.caller.clone(),
                tenant: proposal.request.tenant_id.clone(),
                target: Target::ByRequest(proposal.request.request_id.clone()),
                epoch: 1,
                time,
            },
            _ => match self.target(model, kind) {
                Some(held) => Settle {
                    kind,
                    caller: held.caller.clone(),
                    tenant: held.tenant.clone(),
                    target: if self.rng.percent(50) {
                        Target::ById(held.grant.id.clone())
                    } else {
                        Target::ByRequest(held.request.clone())
                    },
                    epoch: held.grant.epoch,
                    time,
                },
                None => self.settle_asked(kind, time),
            },
        };
        match self.rng.below(40) {
            0 => settle.epoch += 1,
            1 => settle.epoch = 0,
            2 => settle.tenant = id(self.rng.name(&TENANTS)),
            3 => settle.caller = id(self.rng.name(&CALLERS)),
            4 => settle.target = Target::ById(id("rsv-unknown")),
            5 => settle.target = Target::ByRequest(id("r-unknown")),
            _ => {}
        }
        Step::Settle(settle)
    }

    /// A reservation to settle: mostly one of late that is still held.
    fn target(&mut self, model: &Model, kind: SettleKind) -> Option<Held> {
        let live: Vec<_> = model.held.iter().filter(|held| held.is_live()).collect();
        // What waits for others to go, and those, more often: it is soon over.
        let told = |held: &&&Rc<Held>| held.told.is_some() || !held.victims.is_empty();
        let told: Vec<_> = live.iter().copied().filter(|held| told(&held)).collect();
        let is_open = |held: &&&Rc<Held>| held.state == ReservationState::Reserved;
        let open: Vec<_> = live.iter().copied().filter(|held| is_open(&held)).collect();
        let is_confirm = kind == SettleKind::Confirm;
        let chosen = match self.rng.below(10) {
            0..8 if is_confirm && !open.is_empty() && self.sold_milli < 1_000 => {
                Some(&***self.rng.pick(&open))
            }
            0..4 if is_confirm && !open.is_empty() => {
                self.rng.recent(&open, 2 * RECENT).map(|held| &***held)
            }
            4..7 if !told.is_empty() => self.rng.recent(&told, RECENT).map(|held| &***held),
            0..8 => self.rng.recent(&live, RECENT).map(|held| &***held),
            8 => self.rng.recent(&model.held, RECENT).map(|held| &**held),
            _ => return None,
        };
        chosen.cloned()
    }

    /// A confirm or a release by a request, which may have been denied or never decided.
    fn settle_asked(&mut self, kind: SettleKind, time: u64) -> Settle {
        let asked = self.rng.recent(&self.asked, 3 * RECENT).and_then(|asked| asked.first());
        let (caller, tenant, request) = asked.map_or_else(
            || (id(CALLERS[0]), id(TENANTS[0]), id("r-none")),
            |asked| {
                let request = &asked.request;
                (asked.caller.clone(), request.tenant_id.clone(), request.request_id.clone())
            },
        );
        Settle { kind, caller, tenant, target: Target::ByRequest(request), epoch: 1, time }
    }

    /// Those who may be displaced are small, so that it often takes more than one.
    fn gpus(&mut self, is_sold: bool) -> u64 {
        let most = match (is_sold, self.is_market) {
            (false, _) => 5,
            (true, false) => 3,
            (true, true) => 2,
        };
        self.rng.within(1, most)
    }

    fn propose(&mut self, model: &Model) -> Box<Proposal> {
        let proposal = self.request(model);
        self.asked.push(vec![Proposal::clone(&proposal)]);
        proposal
    }

    /// Something new, or more of what there is, or something inside of it.
    fn request(&mut self, model: &Model) -> Box<Proposal> {
        let proposal = match self.rng.below(100) {
            // Where there is much to choose from, it takes more that is sold.
            6..15 | 18..33 if self.sold_milli < 1_000 => None,
            0..15 => self.longer(model),
            15..33 => self.inside(model),
            _ => None,
        };
        proposal.unwrap_or_else(|| self.fresh(model))
    }

    fn fresh(&mut self, model: &Model) -> Box<Proposal> {
        self.names += 1;
        let is_sold = self.rng.percent(if self.is_market { 60 } else { 40 });
        let victims = if is_sold { Vec::new() } else { self.victims(model) };
        let tenant = match victims.first() {
            // Where little is sold at a time, all of it to one.
            None if is_sold && self.sold_milli < 1_000 => TENANTS[0].to_owned(),
            Some(victim) if self.rng.percent(60) => victim.tenant.to_string(),
            _ => self.rng.name(&TENANTS).to_owned(),
        };
        let caller = self.rng.name(&CALLERS);
        let seconds = match self.rng.below(100) {
            0 => 0,
            _ if is_sold && self.sold_milli < 1_000 => LONGEST,
            _ if is_sold && self.is_market => self.rng.within(30, LONGEST),
            1..20 => self.rng.within(1, 10),
            _ => self.rng.within(1, LONGEST),
        };
        let models = self.models(&victims);
        let gpus = self.gpus(is_sold);
        let milli = if is_sold { self.sold_milli } else { 1_000 };
        let may_preempt = self.rng.percent(if victims.is_empty() { 10 } else { 95 });
        let is_free = victims.is_empty() || self.rng.percent(5);
        let start = if is_free { self.start(model, seconds) } else { None };
        let workload = Workload {
            checkpoint_jurisdictions: Vec::new(),
            cluster_id: id("c-1"),
            dataset_ids: Vec::new(),
            duration_seconds: seconds,
            egress_bytes: 0,
            egress_jurisdictions: Vec::new(),
            fabric_gbps: if self.rng.percent(40) { 4 } else { 0 },
            gpu_count: u32::try_from(gpus).unwrap_or(1),
            gpu_milli: milli,
            gpu_models: models.iter().map(|model| id(model)).collect(),
            isolation_level: IsolationLevel::Dedicated,
            lease_id: None,
            may_preempt,
            start,
            model_ids: Vec::new(),
            model_use: None,
            storage_io_bytes: 0,
        };
        let is_job = self.rng.percent(20);
        let request = AdmissionRequest {
            extends: None,
            gang: None,
            principal: None,
            priority_class: if is_sold {
                PriorityClass::ExternalCommercial
            } else {
                PriorityClass::InternalResearch
            },
            request_id: id(&format!("r-{}", self.names)),
            subject: if is_job { Subject::Job(workload) } else { Subject::Lease(workload) },
            tenant_id: id(&tenant),
            waivers: Vec::new(),
        };
        let candidates: Vec<_> = models
            .iter()
            .map(|gpu_model| {
                let at = start.unwrap_or(self.clock);
                let choice = accounts(self.view.1, &tenant, gpu_model, at);
                let start = at.max(self.clock).max(model.now);
                let aim = Aim { gpus, milli, seconds, start, is_sold, victims: &victims };
                self.candidate(model, gpu_model, &choice, aim)
            })
            .collect();
        self.proposal(caller, request, candidates)
    }

    /// What is asked for: mostly what the victims have, if there are any.
    fn models(&mut self, victims: &[Held]) -> Vec<&'static str> {
        let one = self.rng.name(&MODELS);
        let used = |model: &&str| victims.iter().any(|victim| runs_on(victim, model));
        let used: Vec<_> = MODELS.into_iter().filter(used).collect();
        match self.rng.below(10) {
            0..6 if !used.is_empty() => used,
            0..8 if self.is_market => vec![MODELS[0]],
            0..6 => vec![one],
            6..9 => vec![MODELS[0], MODELS[1]],
            _ => MODELS.to_vec(),
        }
    }

    /// Whom to displace: up to three that were sold, on some account together.
    fn victims(&mut self, model: &Model) -> Vec<Held> {
        let may_go = |held: &&Rc<Held>| {
            held.class == PriorityClass::ExternalCommercial
                && held.state == ReservationState::Active
                && held.told.is_none()
        };
        let all: Vec<_> = model.held.iter().filter(may_go).collect();
        let Some(first) = self.rng.recent(&all, RECENT).filter(|_| self.rng.percent(80)) else {
            return Vec::new();
        };
        let mut victims = vec![Held::clone(first)];
        for other in all.iter().filter(|other| other.grant.id != first.grant.id) {
            let mut charges = other.terms.iter().flat_map(|term| &term.charges);
            let is_near = charges.any(|charge| first.charges(&charge.account).next().is_some());
            if victims.len() < 3 && is_near && self.rng.percent(30) {
                victims.push(Held::clone(other));
            }
        }
        victims
    }

    /// When it is to begin, if that is said: mostly soon, often right before or behind another, now
    /// and then too early or too late to be booked.
    fn start(&mut self, model: &Model, seconds: u64) -> Option<u64> {
        if !self.rng.percent(30) {
            return None;
        }
        let now = self.clock.max(model.now);
        let live: Vec<_> = model.held.iter().filter(|held| held.is_live()).collect();
        let other = self.rng.recent(&live, RECENT).map(|held| &held.grant);
        Some(match (self.rng.below(100), other) {
            (0..3, _) => now.saturating_sub(self.rng.within(1, 3)),
            (3, _) => now + LEAD - 1 + self.rng.below(3),
            (4..20, _) => now,
            // So that it ends when the other begins, or a second later.
            (20..40, Some(grant)) => {
                (grant.start + self.rng.below(2)).saturating_sub(seconds).max(now)
            }
            (40..60, Some(grant)) => (grant.end - self.rng.below(2)).max(now),
            _ => now + self.rng.within(1, AHEAD),
        })
    }

    fn proposal(
        &mut self,
        caller: &str,
        request: AdmissionRequest,
        mut candidates: Vec<Candidate>,
    ) -> Box<Proposal> {
        let mut rejected = Vec::new();
        match self.rng.below(100) {
            0..3 => rejected.push(reason("UNKNOWN_TENANT", "placet")),
            3 => candidates.clear(),
            4 => {
                candidates.clear();
                rejected.push(reason("UNKNOWN_CLUSTER", "placet"));
            }
            _ => {}
        }
        let active = activation(self.view);
        let canonical = canonical_json(&request).expect("a request holds strings and numbers");
        let evaluation = format!(r#"{{"evaluation of":"{}"}}"#, request.request_id);
        let personal = Personal {
            path: "principal.subject".to_owned(),
            salt: vec![7; 32],
            value: "ada@example.org".to_owned(),
        };
        let mut proposal = Box::new(Proposal {
            bundle: active.bundle.0,
            caller: id(caller),
            candidates,
            evaluation: evaluation.into_bytes(),
            facts: active.facts.0,
            input: rejected.is_empty().then(|| canonical.clone()),
            personal: if self.rng.percent(40) { vec![personal] } else { Vec::new() },
            rejected,
            request_digest: Digest::of(&canonical),
            request,
            time: self.time(),
            waivers: Vec::new(),
            approvers: Digest::of(b""),
        });
        self.approver.waive(&mut proposal, self.clock);
        proposal
    }

    fn candidate(
        &mut self,
        model: &Model,
        gpu_model: &str,
        choice: &[Account; 8],
        mut aim: Aim<'_>,
    ) -> Candidate {
        if self.rng.percent(8) {
            return denied(gpu_model, self.rng.percent(50));
        }
        let preemption = self.rng.percent(if aim.victims.is_empty() { 40 } else { 90 });
        let preemption = preemption.then(|| self.rule());
        if let Some(rule) = preemption.as_ref().filter(|_| !aim.victims.is_empty()) {
            aim.start += u64::from(rule.grace_seconds);
        }
        // Mostly the cluster, the tenant's GPUs and its GPU-seconds; the others now and then. What
        // is sold is seldom on a budget, and what displaces mostly asks for what its victims have.
        let mut chances = match (aim.is_sold, aim.victims) {
            (true, _) => [80, 70, 15, 10, 40, 30, 10, 12],
            (false, []) => [60, 80, 60, 40, 20, 20, 20, 8],
            (false, _) => [5, 5, 3, 3, 5, 5, 3, 3],
        };
        for (chance, account) in chances.iter_mut().zip(choice) {
            let has = |victim: &Held| victim.charges(&account.path).next().is_some();
            if account.kind == AccountKind::Level && aim.victims.iter().any(has) {
                *chance = 75;
            }
        }
        let chosen: Vec<_> =
            choice.iter().zip(chances).filter(|(_, chance)| self.rng.percent(*chance)).collect();
        let (mut claims, mut limits) = (Vec::new(), Vec::new());
        for (account, _) in chosen {
            let amount = self.amount(model, account, &aim);
            let own = match self.rng.below(20) {
                0 => Some(account.limit / 2),
                1 => Some(account.limit * 2),
                2 => Some(amount),
                _ => None,
            };
            let code = self.rng.percent(20).then(|| code("TENANT_LIMIT"));
            let claim = Claim { account: account.path.clone(), amount, code, limit: own };
            claims.push(PolicyClaim { claim, policy: id(self.rng.name(&["quota", "fabric"])) });
            limits.push(Some((account.kind, account.unit, account.limit)));
        }
        let outcome = Outcome { claims, preemption, terms: self.terms(), ..permit() };
        let mut candidate = Candidate { gpu_model: id(gpu_model), limits, outcome };
        self.spoil(&mut candidate);
        candidate
    }

    /// Whom a policy lets displace whom: mostly as it should be.
    fn rule(&mut self) -> PreemptionRule {
        use PriorityClass::{ExternalCommercial, InternalResearch};
        let victim_classes = match self.rng.below(20) {
            0 => Vec::new(),
            1 => vec![InternalResearch],
            2..5 => vec![InternalResearch, ExternalCommercial],
            _ => vec![ExternalCommercial],
        };
        let numbers = [
            if self.rng.percent(10) { 0 } else { self.rng.within(1, 12) },
            if self.rng.percent(10) { self.rng.below(2) * 100 } else { self.rng.within(1, 5) },
            if self.rng.percent(60) { 0 } else { self.rng.within(1, 15) },
        ];
        let [grace_seconds, max_victims, min_runtime_seconds] =
            numbers.map(|number| u32::try_from(number).unwrap_or(0));
        let cool_down = match self.rng.below(4) {
            0 => self.rng.within(1, 40),
            1 => self.rng.within(40, 400),
            _ => 0,
        };
        let protected = TENANTS.iter().filter(|_| self.rng.percent(8)).map(|name| id(name));
        let protected_tenants: std::collections::BTreeSet<Id> = protected.collect();
        PreemptionRule {
            cool_down_seconds: u32::try_from(cool_down).unwrap_or(0),
            grace_seconds,
            max_victims,
            max_victims_per_tenant: match self.rng.below(6) {
                0 => Some(1),
                1 => Some(2),
                _ => None,
            },
            min_runtime_seconds,
            protected_tenants: protected_tenants.into_iter().collect(),
            victim_classes,
        }
    }

    /// What is promised to one that may be displaced: mostly nothing, or less than rules do.
    fn terms(&mut self) -> Option<SlaTerms> {
        let number = |driver: &mut Self, most| {
            let number = if driver.rng.percent(40) { 0 } else { driver.rng.within(1, most) };
            u32::try_from(number).unwrap_or(0)
        };
        self.rng.percent(40).then(|| SlaTerms {
            min_runtime_seconds: number(self, 12),
            notice_seconds: number(self, 20),
        })
    }

    /// How much is claimed: often exactly what is left, or one more.
    fn amount(&mut self, model: &Model, account: &Account, aim: &Aim<'_>) -> u64 {
        let Aim { gpus, milli, seconds, start, victims, .. } = *aim;
        let usual = match account.unit {
            placet_core::Unit::MilliGpu => gpus * u64::from(milli),
            placet_core::Unit::GpuSecond => gpus * seconds.max(1),
            placet_core::Unit::Gbps => gpus * 2,
            placet_core::Unit::Byte | placet_core::Unit::Count => gpus,
        };
        let chance = match (aim.is_sold && milli < 1_000, victims) {
            (true, _) => 5,
            (false, []) => 30,
            (false, _) => 85,
        };
        if !self.rng.percent(chance) {
            return usual;
        }
        let Account { path, kind, unit, limit } = account.clone();
        let charge = Charge { account: path, amount: MUCH, kind, limit, unit };
        let mut free = model.books().free(&charge, [start, start + seconds.max(1)]);
        // What is left once they have made room.
        let made = victims.iter().filter_map(|victim| victim.charges(&charge.account).next());
        free += made.map(|(_, charge)| charge.amount).sum::<u64>();
        // Mostly all that is left, or one more than that.
        let most = if victims.is_empty() { 66 } else { 85 };
        if self.rng.percent(most) { free.max(1) } else { free + 1 }
    }

    /// Rarely a candidate makes no sense.
    fn spoil(&mut self, candidate: &mut Candidate) {
        let claims = &mut candidate.outcome.claims;
        match self.rng.below(300) {
            0..3 => {
                candidate.limits.pop();
            }
            3..9 => {
                if let Some(limit) = candidate.limits.last_mut() {
                    *limit = None;
                }
            }
            9 if !claims.is_empty() => claims[0].claim.amount = 0,
            10 if !claims.is_empty() => claims[0].claim.amount = 1 << 53,
            11 if !claims.is_empty() => {
                claims.push(claims[0].clone());
                candidate.limits.push(candidate.limits[0]);
            }
            12 => candidate.outcome.effect = Effect::Deny,
            13 => candidate.outcome.reasons.push(reason("CONTRADICTION", "quota")),
            14..16 => candidate.outcome.warnings.push(Warning {
                code: code("LONG"),
                message: "x".repeat(GIANT),
                policy: id("quota"),
            }),
            _ => {}
        }
    }
}

/// Whether a reservation holds GPUs of a model.
fn runs_on(held: &Held, model: &str) -> bool {
    let charges = held.terms.iter().flat_map(|term| &term.charges);
    let mut accounts = charges.map(|charge| charge.account.as_str());
    accounts.any(|account| account.strip_suffix(model).is_some_and(|rest| rest.ends_with('/')))
}

fn workload_of(request: &mut AdmissionRequest) -> &mut Workload {
    match &mut request.subject {
        Subject::Lease(workload) | Subject::Job(workload) => workload,
    }
}

/// Once the request was changed.
pub(super) fn digested(proposal: &mut Proposal) {
    let canonical = canonical_json(&proposal.request).expect("a request holds strings and numbers");
    proposal.request_digest = Digest::of(&canonical);
    proposal.input = proposal.input.is_some().then_some(canonical);
}

fn permit() -> Outcome {
    Outcome {
        claims: Vec::new(),
        effect: Effect::Permit,
        obligations: Vec::new(),
        preemption: None,
        reasons: Vec::new(),
        terms: None,
        waived: Vec::new(),
        warnings: Vec::new(),
    }
}

fn denied(gpu_model: &str, twice: bool) -> Candidate {
    let mut reasons = vec![reason("ISOLATION_TOO_LOW", "isolation")];
    if twice {
        reasons.push(reason("REGION_NOT_ALLOWED", "residency"));
    }
    let outcome = Outcome { effect: Effect::Deny, reasons, ..permit() };
    Candidate { gpu_model: id(gpu_model), limits: Vec::new(), outcome }
}

fn reason(name: &'static str, policy: &str) -> Reason {
    Reason {
        code: code(name),
        counterfactual: None,
        field: None,
        hint: None,
        message: "it is not allowed".to_owned(),
        policy: Id::new(policy).expect("a name"),
        retry: false,
    }
}
