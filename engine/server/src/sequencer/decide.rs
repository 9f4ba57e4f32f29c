//! From an evaluated request and the ledger to a decision: pure, but for what the ledger takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use placet_core::{
    AccountKind, Charge, Code, Counterfactual, DECISION_VERSION, Decision, Effect, Event, Eviction,
    EvictionOrder, Extends, Grant, Id, Level, MAX_LEAD_SECONDS, Obligation, PreemptionRule, Reason,
    ReservationGrant, SlaTerms, Unit, Waived, Warning, utc,
};
use placet_policy::{Waiver, waiver};

use super::{Candidate, DENIAL_SECONDS, Evidence, Options, Proposal, SequencerError};
use crate::quota::{
    Booking, Defect, ExtendError, Fit, LEASE_ACCOUNTS, LeaseError, Ledger, MAX_STARTS_TRIED,
    Refusal, Reservation, ReserveError, WaiverError, Work,
};

/// Name under which the engine itself denies.
const ENGINE: &str = "placet";

/// Why a proposal was not judged.
#[derive(Debug)]
pub(super) enum JudgeError {
    /// It makes no sense: the fault of whoever made it.
    Malformed(&'static str),
    /// The ledger contradicts itself.
    Broken,
}

impl From<JudgeError> for SequencerError {
    fn from(error: JudgeError) -> Self {
        match error {
            JudgeError::Malformed(what) => Self::Malformed(what),
            JudgeError::Broken => {
                Self::Unavailable { reason: "the ledger's books are wrong".to_owned() }
            }
        }
    }
}

/// What deciding came to.
#[derive(Debug)]
pub(super) struct Judged {
    /// Who has to make room once the reservation is confirmed.
    victims: Vec<Reservation>,
    gpu_model: Id,
    obligations: Vec<Obligation>,
    preemption: Option<PreemptionRule>,
    pub(super) reasons: Vec<Reason>,
    reservation: Option<ReservationGrant>,
    /// What was lifted for it.
    pub(super) waived: Vec<Waived>,
    /// The waivers that are used for the first time, as they are to be logged.
    pub(super) first_uses: Vec<Event>,
    terms: Option<SlaTerms>,
    warnings: Vec<Warning>,
}

impl Judged {
    pub(super) fn effect(&self) -> Effect {
        if self.reservation.is_some() { Effect::Permit } else { Effect::Deny }
    }

    /// What was to be admitted is denied after all, and the ledger holds nothing of it: so it names
    /// the GPU model that was asked for first, as every denial does.
    fn denied(self, reason: Reason, gpu_model: Id) -> Self {
        Self {
            victims: Vec::new(),
            gpu_model,
            obligations: Vec::new(),
            preemption: None,
            reasons: vec![reason],
            reservation: None,
            waived: Vec::new(),
            first_uses: Vec::new(),
            terms: None,
            ..self
        }
    }
}

/// Where one member of a gang is denied, the others are too. What the ledger holds of them has to
/// be taken back before.
pub(super) fn deny_all(
    ledger: &Ledger,
    judged: Vec<Judged>,
    members: &[&Proposal],
) -> Result<Vec<Judged>, JudgeError> {
    let denied = |one: &Judged| one.effect() == Effect::Deny;
    let first = judged.iter().position(denied).unwrap_or(0);
    let retry = judged.iter().flat_map(|one| &one.reasons).all(|reason| reason.retry);
    let name = members.get(first).map_or("", |member| member.request.request_id.as_str());
    let reason = || Reason {
        code: Code::known("GANG_INCOMPLETE"),
        counterfactual: None,
        field: Some(format!("members[{first}]")),
        hint: Some("see the decisions on the members that are denied themselves".to_owned()),
        message: format!("member {first}, `{name}`, is denied, and none is admitted without it"),
        policy: known_id(ENGINE),
        retry,
    };
    let deny = |(one, member): (Judged, &&Proposal)| {
        let keeps = ledger.breaks(Defect::GangDenialKeepsModel);
        let gpu_model = if keeps { one.gpu_model.clone() } else { first_model(member)? };
        Ok(if denied(&one) { one } else { one.denied(reason(), gpu_model) })
    };
    judged.into_iter().zip(members).map(deny).collect()
}

/// Tries the candidates in order: the first that the policies permit and whose charges fit is held.
pub(super) fn judge(
    ledger: &mut Ledger,
    proposal: &Proposal,
    confirm_within_seconds: u64,
    reservation: &Id,
) -> Result<Judged, JudgeError> {
    let mut denial = Judged {
        victims: Vec::new(),
        gpu_model: first_model(proposal)?,
        obligations: Vec::new(),
        preemption: None,
        reasons: Vec::new(),
        reservation: None,
        waived: Vec::new(),
        first_uses: Vec::new(),
        terms: None,
        warnings: Vec::new(),
    };
    // Ahead of everything: what is frozen touches no quota and displaces nobody.
    denial.reasons.extend(frozen(ledger, proposal));
    extend_new(&mut denial.reasons, proposal.rejected.iter().cloned());
    let start = proposal.request.start_at(ledger.now()).unwrap_or_else(|reason| {
        // It may have lain ahead when the request was evaluated, and have passed while it waited.
        let is_taken = ledger.breaks(Defect::PastStartAccepted);
        if denial.reasons.is_empty() && !is_taken {
            denial.reasons.push(*reason);
        }
        ledger.now()
    });
    // What could not be resolved is not admitted, whatever a candidate says.
    let candidates = if denial.reasons.is_empty() { &*proposal.candidates } else { &[] };
    for candidate in candidates {
        let outcome = &candidate.outcome;
        let held = match (outcome.effect, outcome.reasons.is_empty()) {
            (Effect::Deny, false) => Err(outcome.reasons.clone()),
            (Effect::Permit, true) => match check_waived(ledger, proposal, candidate)? {
                Err(reasons) => Err(reasons),
                Ok(()) => {
                    hold(ledger, proposal, candidate, (start, confirm_within_seconds), reservation)?
                }
            },
            (Effect::Deny, true) | (Effect::Permit, false) => {
                return Err(JudgeError::Malformed("denies without a reason or permits with one"));
            }
        };
        match held {
            Ok(held) => return admitted(ledger, proposal, candidate, held),
            Err(reasons) => {
                extend_new(&mut denial.reasons, reasons);
                extend_new(&mut denial.warnings, outcome.warnings.iter().cloned());
            }
        }
    }
    // Only where none fits, others have to make room.
    if let Some((candidate, held)) =
        preempt(ledger, proposal, candidates, confirm_within_seconds, reservation)?
    {
        return admitted(ledger, proposal, candidate, held);
    }
    if denial.reasons.is_empty() {
        return Err(JudgeError::Malformed("has neither candidates nor reasons"));
    }
    Ok(denial)
}

fn admitted(
    ledger: &mut Ledger,
    proposal: &Proposal,
    candidate: &Candidate,
    held: ReservationGrant,
) -> Result<Judged, JudgeError> {
    let first_uses = use_waivers(ledger, proposal, candidate)?;
    let victims = ledger.victims(&held.id);
    Ok(Judged {
        victims: victims.iter().filter_map(|id| ledger.held(id).cloned()).collect(),
        gpu_model: candidate.gpu_model.clone(),
        obligations: candidate.outcome.obligations.clone(),
        preemption: candidate.outcome.preemption.clone(),
        reasons: Vec::new(),
        // Of what goes on, all that it was promised.
        terms: ledger.held(&held.id).and_then(|held| held.booking.terms),
        reservation: Some(held),
        waived: candidate.outcome.waived.clone(),
        first_uses,
        warnings: candidate.outcome.warnings.clone(),
    })
}

/// The denial of what a freeze covers, if one does.
fn frozen(ledger: &Ledger, proposal: &Proposal) -> Option<Reason> {
    let (request, kind) = (&proposal.request, proposal.request.subject.kind());
    let place = (&request.tenant_id, &request.subject.workload().cluster_id);
    let freeze = ledger.freezes().covering(place, kind, request.priority_class);
    let claims = &freeze.filter(|_| !ledger.breaks(Defect::FrozenAdmitted))?.claims;
    let scope = &claims.scope;
    let field = if !scope.clusters.is_empty() {
        Some(format!("{}.cluster_id", kind.as_str()))
    } else if !scope.tenants.is_empty() {
        Some("tenant_id".to_owned())
    } else if !scope.priority_classes.is_empty() {
        Some("priority_class".to_owned())
    } else if !scope.kinds.is_empty() {
        Some(kind.as_str().to_owned())
    } else {
        None
    };
    Some(Reason {
        code: Code::known("FROZEN"),
        counterfactual: None,
        field,
        hint: Some("ask again, under a new request id, once it is lifted".to_owned()),
        message: format!("the freeze `{}` stands: {}", claims.jti, claims.reason),
        policy: known_id(ENGINE),
        retry: true,
    })
}

/// The waivers that a candidate needs, each once, in the order of their names.
fn needed<'a>(
    proposal: &'a Proposal,
    candidate: &Candidate,
) -> Result<Vec<&'a Waiver>, JudgeError> {
    let mut needed: Vec<&Waiver> = Vec::new();
    for waived in &candidate.outcome.waived {
        let own = proposal.waivers.iter().find(|it| it.claims.jti == waived.waiver);
        // INVARIANT: nothing is lifted but by a waiver of the request that says so.
        let own = own.filter(|it| it.claims.lifts(&waived.policy, &waived.code));
        let own = own.ok_or(JudgeError::Malformed("lifts what no waiver of the request lifts"))?;
        if !needed.iter().any(|it| it.claims.jti == own.claims.jti) {
            needed.push(own);
        }
    }
    needed.sort_by(|one, other| one.claims.jti.cmp(&other.claims.jti));
    Ok(needed)
}

/// Whether the waivers that a candidate needs can be used now.
fn check_waived(
    ledger: &Ledger,
    proposal: &Proposal,
    candidate: &Candidate,
) -> Result<Result<(), Vec<Reason>>, JudgeError> {
    let mut reasons = Vec::new();
    for needed in needed(proposal, candidate)? {
        let claims = &needed.claims;
        let checked = ledger.check_waiver(&claims.jti, needed.digest, (claims.nbf, claims.exp));
        if let Err(error) = checked {
            reasons.push(not_used(proposal, needed, error));
        }
    }
    Ok(if reasons.is_empty() { Ok(()) } else { Err(reasons) })
}

/// Counts a use of each waiver that a candidate needs: what has to be logged ahead of the decision.
fn use_waivers(
    ledger: &mut Ledger,
    proposal: &Proposal,
    candidate: &Candidate,
) -> Result<Vec<Event>, JudgeError> {
    let mut first_uses = Vec::new();
    for Waiver { claims, digest, token } in needed(proposal, candidate)? {
        let name = &claims.jti;
        let is_first = ledger.check_waiver(name, *digest, (claims.nbf, claims.exp));
        if is_first.map_err(|_counted| JudgeError::Broken)? {
            let begun = ledger.begin_waiver(name, (*digest, claims.exp, claims.uses));
            begun.map_err(|_counted| JudgeError::Broken)?;
            let (id, token) = (name.clone(), token.clone());
            first_uses.push(Event::Waiver { id, level: Level::Overridable, token });
        }
        if !ledger.breaks(Defect::WaiverNotCounted) {
            ledger.use_waiver(name).map_err(|_counted| JudgeError::Broken)?;
        }
    }
    Ok(first_uses)
}

/// The denial where a waiver that is needed cannot be used.
fn not_used(proposal: &Proposal, needed: &Waiver, error: WaiverError) -> Reason {
    let name = &needed.claims.jti;
    let at = proposal.request.waivers.iter().position(|token| *token == needed.token);
    let (code, message, hint) = match error {
        WaiverError::Expired => {
            let refusal = waiver::expired(name, needed.claims.exp);
            (refusal.code, refusal.message, refusal.hint)
        }
        WaiverError::NotYetValid => {
            let refusal = waiver::not_yet_valid(name, needed.claims.nbf);
            (refusal.code, refusal.message, refusal.hint)
        }
        WaiverError::Changed | WaiverError::Unknown => {
            let refusal = waiver::changed(name);
            (refusal.code, refusal.message, refusal.hint)
        }
        WaiverError::UsedUp => {
            let message = format!(
                "waiver `{name}` was used {} times, as often as it may be",
                needed.claims.uses
            );
            ("WAIVER_USED_UP", message, "ask for a new one")
        }
        WaiverError::Full => {
            let message = format!("waiver `{name}` cannot be used: {error}");
            ("WAIVER_LEDGER_FULL", message, "ask again when the time of others is over")
        }
    };
    Reason {
        code: Code::known(code),
        counterfactual: None,
        field: at.map(|at| format!("waivers[{at}]")),
        hint: Some(hint.to_owned()),
        message,
        policy: known_id(ENGINE),
        retry: matches!(error, WaiverError::Full | WaiverError::NotYetValid),
    }
}

/// Holds the charges of a candidate at the expense of others, if it asks for that, policies allow
/// it, and somebody can make room: of the first one where that is so after the grace of its rule,
/// else of the one where those who were promised a longer notice can make room the soonest.
fn preempt<'a>(
    ledger: &mut Ledger,
    proposal: &Proposal,
    candidates: &'a [Candidate],
    confirm_within_seconds: u64,
    reservation: &Id,
) -> Result<Option<(&'a Candidate, ReservationGrant)>, JudgeError> {
    let workload = proposal.request.subject.workload();
    // What is booked in advance waits for its turn, and what goes on begins at its own end.
    if !workload.may_preempt || workload.start.is_some() || proposal.request.extends.is_some() {
        return Ok(None);
    }
    let within = confirm_within_seconds;
    let mut later = BTreeSet::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let Some(rule) = rule_of(candidate) else { continue };
        // Victims have a second at least: nobody is gone before they are told.
        let grace = ledger.spoil_grace(rule.grace_seconds).max(1);
        let start = ledger.now().saturating_add(u64::from(grace));
        match preempt_at(ledger, proposal, candidate, (start, within), reservation)? {
            Ok(held) => return Ok(Some((candidate, held))),
            Err(Some(refused)) => {
                let starts = ledger.later_starts(rule, &refused);
                later.extend(starts.into_iter().map(|start| (start, index)));
            }
            Err(None) => {}
        }
    }
    for (start, index) in later.into_iter().take(MAX_STARTS_TRIED - 1) {
        let Some(candidate) = candidates.get(index) else { continue };
        if let Ok(held) = preempt_at(ledger, proposal, candidate, (start, within), reservation)? {
            return Ok(Some((candidate, held)));
        }
    }
    Ok(None)
}

/// Whom a candidate may displace.
fn rule_of(candidate: &Candidate) -> Option<&PreemptionRule> {
    let outcome = &candidate.outcome;
    outcome.preemption.as_ref().filter(|_| outcome.effect == Effect::Permit)
}

/// Holds the charges of one candidate from `start` on at the expense of others: they have to be
/// gone by then. Otherwise what was refused, if another start may help.
fn preempt_at(
    ledger: &mut Ledger,
    proposal: &Proposal,
    candidate: &Candidate,
    (start, confirm_within_seconds): (u64, u64),
    reservation: &Id,
) -> Result<Result<ReservationGrant, Option<Booking>>, JudgeError> {
    let Some(rule) = rule_of(candidate) else { return Ok(Err(None)) };
    if check_waived(ledger, proposal, candidate)?.is_err() {
        return Ok(Err(None));
    }
    let booking = booking(proposal, candidate, reservation, start, 0);
    let Ok(charges) = charges(ledger, candidate, &booking)? else { return Ok(Err(None)) };
    let confirm_by = ledger.now().saturating_add(confirm_within_seconds).min(start);
    let booking = Booking { confirm_by, charges, ..booking };
    match ledger.preempt(&booking, rule) {
        Ok(held) => Ok(Ok(granted(held))),
        Err(ReserveError::Refused(_)) => Ok(Err(Some(booking))),
        Err(ReserveError::Mismatch { .. }) => Ok(Err(None)),
        Err(ReserveError::Malformed(what)) => Err(JudgeError::Malformed(what)),
        Err(ReserveError::Broken) => Err(JudgeError::Broken),
    }
}

/// What is to be held for a candidate, but for its charges.
fn booking(
    proposal: &Proposal,
    candidate: &Candidate,
    reservation: &Id,
    start: u64,
    confirm_within_seconds: u64,
) -> Booking {
    let subject = &proposal.request.subject;
    let workload = subject.workload();
    let end = start.saturating_add(workload.duration_seconds);
    Booking {
        id: reservation.clone(),
        tenant: proposal.request.tenant_id.clone(),
        caller: proposal.caller.clone(),
        class: proposal.request.priority_class,
        work: Arc::new(Work {
            kind: subject.kind(),
            grant: grant(proposal, candidate.gpu_model.clone()),
            lease_id: workload.lease_id.clone(),
        }),
        start,
        end,
        confirm_by: start.saturating_add(confirm_within_seconds).min(end),
        charges: Vec::new(),
        terms: candidate.outcome.terms,
    }
}

/// What is granted or refused.
fn grant(proposal: &Proposal, gpu_model: Id) -> Grant {
    let workload = proposal.request.subject.workload();
    Grant {
        cluster_id: workload.cluster_id.clone(),
        fabric_gbps: workload.fabric_gbps,
        gpu_count: workload.gpu_count,
        gpu_milli: workload.gpu_milli,
        gpu_model,
        isolation_level: workload.isolation_level,
    }
}

/// A new reservation, as its decision tells it.
fn granted(held: Reservation) -> ReservationGrant {
    let Reservation { booking, epoch, .. } = held;
    let Booking { id, start, end, confirm_by, charges, .. } = booking;
    ReservationGrant { charges, confirm_by, end, epoch, id, start }
}

fn first_model(proposal: &Proposal) -> Result<Id, JudgeError> {
    let models = &proposal.request.subject.workload().gpu_models;
    models.first().cloned().ok_or(JudgeError::Malformed("is of a request without GPU models"))
}

fn extend_new<T: PartialEq>(list: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// Holds the charges of one candidate from `start` on, or says why not. It has to be confirmed
/// within so many seconds of its start: work that lies ahead may be confirmed from now on.
fn hold(
    ledger: &mut Ledger,
    proposal: &Proposal,
    candidate: &Candidate,
    (start, confirm_within_seconds): (u64, u64),
    reservation: &Id,
) -> Result<Result<ReservationGrant, Vec<Reason>>, JudgeError> {
    let extends = proposal.request.extends.as_ref();
    let name = extends.map_or(reservation, |extends| &extends.reservation_id);
    let mut booking = booking(proposal, candidate, name, start, confirm_within_seconds);
    if let Some(extends) = extends {
        // Nothing of it has to be confirmed.
        booking.confirm_by = booking.end;
        if let Err(error) = ledger.check_extension(&booking, extends) {
            return Ok(Err(vec![not_extended(&error, extends)]));
        }
    }
    booking.charges = match charges(ledger, candidate, &booking)? {
        Ok(charges) => charges,
        Err(unknown) => return Ok(Err(unknown)),
    };
    let held = match extends {
        None => {
            booking = ledger.spoil_deadline(booking, confirm_within_seconds);
            ledger.reserve(booking.clone()).map(granted)
        }
        Some(extends) => match ledger.extend(booking.clone(), extends) {
            Ok(held) => {
                let Reservation { epoch, .. } = held;
                let Booking { id, start, end, confirm_by, charges, .. } = booking;
                return Ok(Ok(ReservationGrant { charges, confirm_by, end, epoch, id, start }));
            }
            Err(ExtendError::Reserve(error)) => Err(error),
            Err(error) => return Ok(Err(vec![not_extended(&error, extends)])),
        },
    };
    match held {
        Ok(reservation) => Ok(Ok(reservation)),
        Err(ReserveError::Refused(refusals)) => {
            let fit = fit(ledger, proposal, &booking)?;
            Ok(Err(refused(proposal, candidate, &refusals, fit)))
        }
        Err(ReserveError::Mismatch { index, account }) => Ok(Err(vec![Reason {
            code: Code::known("CLAIM_CONFLICT"),
            counterfactual: None,
            field: None,
            hint: Some(
                "try again when the reservations made before have ended; a budget that was ever \
                 charged stays one: give the account another path"
                    .to_owned(),
            ),
            message: format!("account `{account}` still holds amounts of another kind or unit"),
            policy: claimant(candidate, index),
            retry: true,
        }])),
        Err(ReserveError::Malformed(what)) => Err(JudgeError::Malformed(what)),
        Err(ReserveError::Broken) => Err(JudgeError::Broken),
    }
}

/// What would be admitted instead of a booking that is refused.
fn fit(ledger: &mut Ledger, proposal: &Proposal, booking: &Booking) -> Result<Fit, JudgeError> {
    let gpus = proposal.request.subject.workload().gpu_count;
    let fit = ledger.fit(booking, gpus).map_err(|_broken| JudgeError::Broken)?;
    if proposal.request.extends.is_some() {
        // What goes on does so at once, on all of its GPUs.
        let is_blind = ledger.breaks(Defect::ExtensionFitAsNew);
        return Ok(if is_blind { fit } else { Fit { gpu_count: None, start: None, ..fit } });
    }
    // What may not be booked yet, or would outlast the lease inside which it is to run, is no way
    // out.
    let latest = ledger.now().saturating_add(MAX_LEAD_SECONDS);
    let fits = |start: &u64| *start <= latest && is_inside(ledger, booking, *start);
    Ok(Fit { start: fit.start.filter(fits), ..fit })
}

/// Whether a booking would be within its lease from another start on; so is what names none.
fn is_inside(ledger: &Ledger, booking: &Booking, start: u64) -> bool {
    let is_blind = ledger.breaks(Defect::JobFitsBehindLease);
    let Some(lease) = booking.work.lease_id.as_ref().filter(|_| !is_blind) else { return true };
    let end = start.saturating_add(booking.end.saturating_sub(booking.start));
    ledger.check_inside(lease, &Booking { start, end, ..booking.clone() }).is_ok()
}

/// The denial of an extension that cannot be.
fn not_extended(error: &ExtendError, extends: &Extends) -> Reason {
    let (code, field, hint) = match error {
        ExtendError::NotFound => ("UNKNOWN_RESERVATION", "reservation_id", "ask for a new one"),
        ExtendError::StaleEpoch { .. } => {
            ("STALE_EPOCH", "epoch", "read the reservation's latest decision")
        }
        ExtendError::NotConfirmed => {
            ("RESERVATION_NOT_CONFIRMED", "reservation_id", "confirm it before")
        }
        ExtendError::MakesRoom => {
            ("RESERVATION_MAKES_ROOM", "reservation_id", "ask for a new one, after its end")
        }
        ExtendError::OtherTimes { start, .. } if *start != extends.start => {
            ("EXTENSION_MISMATCH", "start", "give the start of its first decision")
        }
        ExtendError::OtherTimes { .. } => {
            ("EXTENSION_MISMATCH", "end", "give the end of its latest decision")
        }
        ExtendError::OtherWork => {
            let hint = "ask for the same work, of the same class, on the same GPUs";
            ("EXTENSION_MISMATCH", "reservation_id", hint)
        }
        ExtendError::TooOften | ExtendError::Reserve(_) => {
            ("EXTENDED_TOO_OFTEN", "reservation_id", "book a new one from its end on")
        }
    };
    Reason {
        code: Code::known(code),
        counterfactual: None,
        field: Some(format!("extends.{field}")),
        hint: Some(hint.to_owned()),
        message: error.to_string(),
        policy: known_id(ENGINE),
        retry: *error == ExtendError::NotConfirmed,
    }
}

/// The denial of a job that cannot run inside the lease that it names.
fn not_inside(error: LeaseError, lease: &Id) -> Reason {
    let (code, field, hint) = match error {
        LeaseError::NotFound => ("UNKNOWN_LEASE", "lease_id", "name a lease that is held"),
        LeaseError::NotConfirmed => ("LEASE_NOT_CONFIRMED", "lease_id", "confirm the lease before"),
        LeaseError::Full => ("LEASE_FULL", "lease_id", "try again when one of them has ended"),
        LeaseError::OtherCluster => ("OUTSIDE_LEASE", "cluster_id", "ask for the lease's cluster"),
        LeaseError::OtherModel => ("OUTSIDE_LEASE", "gpu_models", "accept the lease's model"),
        LeaseError::LargerShare { .. } => {
            ("OUTSIDE_LEASE", "gpu_milli", "ask for shares no larger than the lease's")
        }
        LeaseError::LessIsolated { .. } => {
            ("OUTSIDE_LEASE", "isolation_level", "ask for at most the lease's level")
        }
        LeaseError::NotWithin { .. } => {
            ("OUTSIDE_LEASE", "duration_seconds", "end with the lease, or make the lease longer")
        }
    };
    Reason {
        code: Code::known(code),
        counterfactual: None,
        field: Some(format!("job.{field}")),
        hint: Some(hint.to_owned()),
        message: format!("lease `{lease}`: {error}"),
        policy: known_id(ENGINE),
        retry: matches!(error, LeaseError::NotConfirmed | LeaseError::Full),
    }
}

/// The claims of a candidate with the facts' limits, or a reason for each account that the facts do
/// not know. What a job may hold of the lease inside which it runs, the ledger knows.
fn charges(
    ledger: &Ledger,
    candidate: &Candidate,
    booking: &Booking,
) -> Result<Result<Vec<Charge>, Vec<Reason>>, JudgeError> {
    let claims = &candidate.outcome.claims;
    if claims.len() != candidate.limits.len() {
        return Err(JudgeError::Malformed("does not give a limit for every claim"));
    }
    let inside = match &booking.work.lease_id {
        None => None,
        Some(lease) => match ledger.check_inside(lease, booking) {
            Ok(inside) => Some((inside, lease)),
            Err(error) => return Ok(Err(vec![not_inside(error, lease)])),
        },
    };
    let (mut charges, mut unknown) = (Vec::with_capacity(claims.len()), Vec::new());
    let mut is_charged = inside.is_none() || ledger.breaks(Defect::LeaseNotClaimed);
    for (claimed, limit) in claims.iter().zip(&candidate.limits) {
        let claim = &claimed.claim;
        let of_lease = inside.as_ref().and_then(|(inside, _)| inside.limit(&claim.account));
        is_charged |= of_lease.is_some_and(|(unit, _)| unit == Unit::MilliGpu);
        let of_lease = of_lease
            .map(|(unit, limit)| (AccountKind::Level, unit, ledger.spoil_lease_limit(unit, limit)));
        match &of_lease.or(*limit) {
            Some((kind, unit, limit)) => charges.push(Charge {
                account: claim.account.clone(),
                amount: claim.amount,
                kind: *kind,
                // A claim can only tighten what the facts allow, and an account's tree.
                limit: [claim.limit, ledger.tree_limit(&claim.account)]
                    .into_iter()
                    .flatten()
                    .fold(*limit, u64::min),
                unit: *unit,
            }),
            None => unknown.push(Reason {
                code: Code::known("UNKNOWN_ACCOUNT"),
                counterfactual: None,
                field: None,
                hint: Some("give the account a limit in the facts".to_owned()),
                message: format!("account `{}` is not in the facts", claim.account),
                policy: claimed.policy.clone(),
                retry: false,
            }),
        }
    }
    if let Some((_, lease)) = inside.filter(|_| !is_charged) {
        unknown.push(Reason {
            code: Code::known("LEASE_NOT_CLAIMED"),
            counterfactual: None,
            field: Some("job.lease_id".to_owned()),
            hint: Some(format!("have a policy claim `{LEASE_ACCOUNTS}/{lease}` in milli-GPUs")),
            message: format!("no policy claims what the job holds of lease `{lease}`"),
            policy: known_id(ENGINE),
            retry: false,
        });
    }
    Ok(if unknown.is_empty() { Ok(charges) } else { Err(unknown) })
}

fn claimant(candidate: &Candidate, index: usize) -> Id {
    let claimed = candidate.outcome.claims.get(index);
    claimed.map_or_else(|| known_id(ENGINE), |claimed| claimed.policy.clone())
}

fn known_id(text: &str) -> Id {
    Id::new(text).expect("a name in our own source follows the rule of names")
}

/// Reasons for charges that do not fit, in the order of the accounts.
fn refused(
    proposal: &Proposal,
    candidate: &Candidate,
    refusals: &[Refusal],
    fit: Fit,
) -> Vec<Reason> {
    let kind = proposal.request.subject.kind().as_str();
    let reason = |refusal: &Refusal| {
        let claimed = candidate.outcome.claims.get(refusal.index);
        let code = claimed.and_then(|claimed| claimed.claim.code.clone());
        let unit =
            candidate.limits.get(refusal.index).and_then(|limit| limit.map(|(_, unit, _)| unit));
        let field = match unit {
            Some(Unit::MilliGpu | Unit::GpuSecond) => Some("gpu_count"),
            Some(Unit::Gbps) => Some("fabric_gbps"),
            Some(Unit::Byte | Unit::Count) | None => None,
        };
        let words = unit.map_or("", unit_words);
        let own = refusal.binding == refusal.account;
        let (limit, in_use) = (refusal.limit, refusal.peak_use);
        let bound = if own && in_use > limit {
            // Of others who may hold more, or because the limit was lowered.
            format!(" of {limit}{words}: {in_use} in use, above this limit")
        } else if own {
            format!(" of {limit}{words}")
        } else {
            format!("{words}: `{}` has {in_use} of {limit} in use", refusal.binding)
        };
        let (asked, free) = (refusal.requested, refusal.free);
        Reason {
            code: code.unwrap_or_else(|| Code::known("QUOTA_EXCEEDED")),
            counterfactual: Some(Counterfactual {
                account: refusal.binding.clone(),
                duration_seconds: fit.duration_seconds,
                gpu_count: fit.gpu_count,
                start: fit.start,
            }),
            field: field.map(|field| format!("{kind}.{field}")),
            hint: hint(fit),
            message: format!("account `{}`: asked {asked}, free {free}{bound}", refusal.account),
            policy: claimant(candidate, refusal.index),
            // An amount above the limit itself will never fit.
            retry: !own || asked <= limit,
        }
    };
    refusals.iter().map(reason).collect()
}

/// What would have been admitted, in words.
fn hint(fit: Fit) -> Option<String> {
    let gpus = fit.gpu_count.map(|gpus| format!("with at most {gpus} GPUs"));
    let seconds = fit.duration_seconds.map(|seconds| format!("for at most {seconds} seconds"));
    let start = fit.start.map(|start| format!("as asked from {} on", utc(start)));
    let ways: Vec<String> = [gpus, seconds, start].into_iter().flatten().collect();
    (!ways.is_empty()).then(|| format!("admitted {}", ways.join(", or ")))
}

fn unit_words(unit: Unit) -> &'static str {
    match unit {
        Unit::MilliGpu => " thousandths of a GPU",
        Unit::GpuSecond => " GPU-seconds",
        Unit::Gbps => " Gbit/s",
        Unit::Byte => " bytes",
        Unit::Count => "",
    }
}

/// The decision of what was judged.
pub(super) fn decision(
    proposal: &Proposal,
    evidence: Evidence,
    judged: Judged,
    options: &Options,
    (now, name): (u64, &str),
) -> Decision {
    let effect = judged.effect();
    let request = &proposal.request;
    let workload = request.subject.workload();
    let jti = crate::name::decision_id(name, &proposal.caller, &request.request_id);
    let kind = request.subject.kind();
    let exp = judged.reservation.as_ref().map(|held| held.end);
    let start = judged.reservation.as_ref().map_or(now, |held| held.start);
    let eviction = |victim: Reservation| Eviction {
        epoch: victim.epoch.saturating_add(1),
        evict_by: start,
        reservation: victim.booking.id,
        tenant_id: victim.booking.tenant,
    };
    let evictions = judged.victims.into_iter().map(eviction).collect();
    let waivers: BTreeSet<Id> = judged.waived.into_iter().map(|waived| waived.waiver).collect();
    Decision {
        aud: options.audience.clone(),
        bundle_digest: proposal.bundle,
        effect,
        evictions,
        evaluation_digest: evidence.evaluation,
        exp: exp.unwrap_or_else(|| now.saturating_add(DENIAL_SECONDS)),
        extends: request.extends.clone(),
        gang: request.gang.clone(),
        lease_id: workload.lease_id.clone(),
        facts_digest: proposal.facts,
        iat: now,
        input_digest: evidence.input,
        iss: options.issuer.clone(),
        kind,
        obligations: judged.obligations,
        placet: DECISION_VERSION,
        preemption: judged.preemption,
        priority_class: request.priority_class,
        reasons: judged.reasons,
        request_digest: proposal.request_digest,
        request_id: request.request_id.clone(),
        reservation: judged.reservation,
        sub: format!("{}/{jti}", kind.as_str()),
        tenant_id: request.tenant_id.clone(),
        terms: judged.terms,
        waivers: waivers.into_iter().collect(),
        warnings: judged.warnings,
        workload: grant(proposal, judged.gpu_model),
        jti,
    }
}

/// The orders that go with a decision, one for each victim. `exp` tells when a reservation would
/// end by itself.
pub(super) fn orders(decision: &Decision, exp: impl Fn(&Id) -> Option<u64>) -> Vec<EvictionOrder> {
    let Some(preemptor) = &decision.reservation else { return Vec::new() };
    let order = |eviction: &Eviction| EvictionOrder {
        aud: decision.aud.clone(),
        epoch: eviction.epoch,
        evict_by: eviction.evict_by,
        exp: exp(&eviction.reservation).unwrap_or(eviction.evict_by),
        iat: decision.iat,
        iss: decision.iss.clone(),
        jti: decision.jti.clone(),
        placet: DECISION_VERSION,
        preemptor: preemptor.id.clone(),
        reservation: eviction.reservation.clone(),
        tenant_id: eviction.tenant_id.clone(),
    };
    decision.evictions.iter().map(order).collect()
}
