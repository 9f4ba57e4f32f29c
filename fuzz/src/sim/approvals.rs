//! What keeps a request from being tried at all: starts, freezes, and waivers that are not good; as
//! plain lists. And some waivers and freezes for a run.

use std::collections::{BTreeMap, BTreeSet};

use placet_core::{
    Digest, Effect, Event, FreezeClaims, FreezeScope, Id, Level, Lift, PriorityClass,
    ReservationGrant, SigningKey, SubjectKind, ThawClaims, Waived, WaiverClaims, WaiverScope,
    sign_approval,
};
use placet_policy::{FreezeGrant, Waiver};
use placet_server::sequencer::{
    Candidate, FreezeError, FreezeOrder, Freezing, Proposal, SequencerError, SettleError, Step,
};

use super::foretold::{Answer, Denial, Predicted};
use super::model::{LEAD, Model, Refused};
use super::reservation::Held;
use super::rng::Rng;
use super::workload::digested;
use super::world::{ISSUER, TENANTS, code, id, key_of};

/// Seconds by which an order may be older or younger than the ledger.
const FRESH: u64 = 300;
/// What the waivers of a run lift, by policy.
const LIFTED: [&str; 3] = ["compliance", "quota", "isolation"];
/// Waivers that are still talked about.
const RECENT: usize = 5;

/// What was approved, as the log tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Approvals {
    /// Each waiver that was ever used.
    used: BTreeMap<Id, Used>,
    standing: BTreeMap<Id, (FreezeClaims, Digest)>,
    /// Freezes that were lifted, and when they were signed.
    lifted: BTreeMap<Id, u64>,
}

#[derive(Debug, Clone)]
struct Used {
    digest: Digest,
    exp: u64,
    uses: u32,
    /// Requests that used it.
    by: Vec<Id>,
}

impl Model {
    /// The freeze that covers it, the first by name.
    fn frozen(
        &self,
        (tenant, cluster): (&Id, &Id),
        kind: SubjectKind,
        class: PriorityClass,
    ) -> Option<&FreezeClaims> {
        let fits = |scope: &FreezeScope| {
            (scope.clusters.is_empty() || scope.clusters.contains(cluster))
                && (scope.tenants.is_empty() || scope.tenants.contains(tenant))
                && (scope.kinds.is_empty() || scope.kinds.contains(&kind))
                && (scope.priority_classes.is_empty() || scope.priority_classes.contains(&class))
        };
        let mut all = self.approvals.standing.values().map(|(claims, _)| claims);
        all.find(|claims| fits(&claims.scope))
    }

    /// The denial of a request that a freeze covers.
    pub(super) fn refused_by_freeze(&self, proposal: &Proposal) -> Option<Denial> {
        let (request, kind) = (&proposal.request, proposal.request.subject.kind());
        let place = (&request.tenant_id, &request.subject.workload().cluster_id);
        let claims = self.frozen(place, kind, request.priority_class)?;
        let field = if claims.scope.clusters.is_empty() {
            if claims.scope.tenants.is_empty() { "priority_class" } else { "tenant_id" }.to_owned()
        } else {
            format!("{}.cluster_id", kind.as_str())
        };
        Some(Denial::own("FROZEN", &field, true))
    }

    /// Why a reservation cannot be confirmed now, if a freeze is why.
    pub(super) fn kept_by_freeze(&self, held: &Held) -> Option<SettleError> {
        let place = (&held.tenant, &held.work.grant.cluster_id);
        let claims = self.frozen(place, held.work.kind, held.class)?;
        let (name, reason) = (claims.jti.clone(), claims.reason.clone());
        Some(SettleError::Frozen { name, reason })
    }

    /// Why the waivers that a candidate needs cannot be used, if so.
    pub(super) fn not_waived(&self, proposal: &Proposal, candidate: &Candidate) -> Vec<Denial> {
        let mut denials = Vec::new();
        for (at, waiver) in needed(proposal, candidate) {
            let claims = &waiver.claims;
            let known = self.approvals.used.get(&claims.jti).filter(|known| known.exp > self.now);
            let code = match known {
                _ if claims.exp <= self.now => "WAIVER_EXPIRED",
                _ if claims.nbf > self.now => "WAIVER_NOT_YET_VALID",
                Some(known) if known.digest != waiver.digest => "WAIVER_CHANGED",
                Some(known) if known.by.len() >= usize::try_from(known.uses).unwrap_or(0) => {
                    "WAIVER_USED_UP"
                }
                Some(_) | None => continue,
            };
            let retry = code == "WAIVER_NOT_YET_VALID";
            denials.push(Denial::own(code, &format!("waivers[{at}]"), retry));
        }
        denials
    }

    /// Why nothing may begin at that second, if so.
    pub(super) fn refused_start(&self, proposal: &Proposal, start: u64) -> Option<Denial> {
        let field = format!("{}.start", proposal.request.subject.kind().as_str());
        if start < self.now {
            Some(match proposal.request.extends {
                Some(_) => Denial::own("RESERVATION_ENDED", "extends.end", false),
                None => Denial::own("START_IN_THE_PAST", &field, false),
            })
        } else if start > self.now + LEAD {
            Some(Denial::own("START_TOO_FAR_AHEAD", &field, true))
        } else {
            None
        }
    }

    /// Holds what a candidate charges, if the waivers that it needs can be used.
    pub(super) fn try_hold(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
        start: u64,
    ) -> Refused<Result<ReservationGrant, Vec<Denial>>> {
        match self.not_waived(proposal, candidate) {
            denials if denials.is_empty() => self.hold(proposal, candidate, start),
            denials => Ok(Err(denials)),
        }
    }

    /// A permit uses the waivers that its candidate needs: their names, and the leaves that come
    /// before it.
    pub(super) fn use_waivers(
        &mut self,
        proposal: &Proposal,
        candidate: &Candidate,
    ) -> (Vec<Id>, Vec<Event>) {
        let (mut names, mut leaves) = (Vec::new(), Vec::new());
        for (_, waiver) in needed(proposal, candidate) {
            let WaiverClaims { exp, jti, uses, .. } = &waiver.claims;
            let is_known = self.approvals.used.get(jti).is_some_and(|known| known.exp > self.now);
            if !is_known {
                let (digest, by) = (waiver.digest, Vec::new());
                let used = Used { digest, exp: *exp, uses: *uses, by };
                self.approvals.used.insert(jti.clone(), used);
                let (level, token) = (Level::Overridable, waiver.token.clone());
                leaves.push(Event::Waiver { id: jti.clone(), level, token });
            }
            let used = self.approvals.used.get_mut(jti).expect("it is there by now");
            used.by.push(proposal.request.request_id.clone());
            names.push(jti.clone());
        }
        (names, leaves)
    }

    /// Freezes or thaws.
    pub(super) fn freeze(&mut self, order: &FreezeOrder) -> Refused<Predicted> {
        self.go_to(order.time)?;
        let name = order.order.name().clone();
        let refused = |error| Err(SequencerError::Freeze(error));
        match &order.order {
            Freezing::Freeze(claims) => {
                let digest = Digest::of(order.token.as_bytes());
                let standing = self.approvals.standing.get(&name);
                if standing.is_some_and(|(_, own)| *own == digest) {
                    return Ok((Answer::Frozen(claims.clone()), false));
                }
                let is_there = standing.is_some();
                self.check_fresh(claims.iat)?;
                let just_now = self.approvals.lifted.get(&name).copied();
                if is_there || just_now.is_some_and(|iat| iat + FRESH >= self.now) {
                    return refused(FreezeError::Exists { name });
                }
                self.approvals.standing.insert(name.clone(), (claims.clone(), digest));
                self.append(self.now, Event::Freeze { id: name, token: order.token.clone() });
                Ok((Answer::Frozen(claims.clone()), false))
            }
            Freezing::Thaw(claims, grant) => {
                let standing = self.approvals.standing.get(&name).map(|(claims, _)| claims.clone());
                let may = |claims: &FreezeClaims| {
                    let all = grant.tenants.is_empty();
                    let asked = &claims.scope.tenants;
                    all || (!asked.is_empty() && asked.is_subset(&grant.tenants))
                };
                if standing.as_ref().is_some_and(|standing| !may(standing)) {
                    return Err(SequencerError::FreezeOverBroad { name });
                }
                self.check_fresh(claims.iat)?;
                let Some(lifted) = standing.filter(|standing| standing.iat <= claims.iat) else {
                    return refused(FreezeError::Unknown { name });
                };
                self.approvals.standing.remove(&name);
                self.approvals.lifted.insert(name.clone(), lifted.iat);
                self.append(self.now, Event::Thaw { id: name, token: order.token.clone() });
                Ok((Answer::Frozen(lifted), false))
            }
        }
    }

    fn check_fresh(&self, iat: u64) -> Refused<()> {
        if iat.abs_diff(self.now) <= FRESH {
            return Ok(());
        }
        Err(SequencerError::Freeze(FreezeError::Stale { iat, now: self.now }))
    }
}

/// The waivers that a candidate needs, by name, with their places in the request.
fn needed<'a>(proposal: &'a Proposal, candidate: &Candidate) -> Vec<(usize, &'a Waiver)> {
    let names: BTreeSet<&Id> = candidate.outcome.waived.iter().map(|it| &it.waiver).collect();
    let mut needed: Vec<(usize, &Waiver)> = (0..)
        .zip(&proposal.waivers)
        .filter(|(_, waiver)| names.contains(&waiver.claims.jti))
        .collect();
    needed.sort_by(|one, other| one.1.claims.jti.cmp(&other.1.claims.jti));
    needed
}

/// Who approves in a run: out of a chance of its own, so that nothing else of the run depends on
/// it.
#[derive(Debug)]
pub(super) struct Approver {
    rng: Rng,
    key: SigningKey,
    /// Whether anything is approved at all.
    is_busy: bool,
    waivers: Vec<Waiver>,
    orders: Vec<FreezeOrder>,
    names: u64,
}

impl Approver {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5157_4169_7665_7273);
        let is_busy = rng.percent(60);
        let (waivers, orders) = (Vec::new(), Vec::new());
        Self { rng, key: key_of(b"approver"), is_busy, waivers, orders, names: 0 }
    }

    /// Has a request bring waivers, each good as of now, some of which it needs.
    pub(super) fn waive(&mut self, proposal: &mut Proposal, now: u64) {
        if !self.is_busy || !self.rng.percent(35) {
            return;
        }
        let count = self.rng.within(1, 2);
        for _ in 0..count {
            let waiver = self.waiver(now);
            let is_new = |other: &Waiver| other.claims.jti != waiver.claims.jti && other != &waiver;
            if proposal.waivers.iter().all(is_new) {
                proposal.request.waivers.push(waiver.token.clone());
                proposal.waivers.push(waiver);
            }
        }
        for candidate in &mut proposal.candidates {
            if candidate.outcome.effect != Effect::Permit {
                continue;
            }
            for waiver in &proposal.waivers {
                if self.rng.percent(70) {
                    let lifts = waiver.claims.lifts.iter().map(|lift| Waived {
                        code: lift.code.clone(),
                        policy: lift.policy.clone(),
                        waiver: waiver.claims.jti.clone(),
                    });
                    candidate.outcome.waived.extend(lifts);
                }
            }
            candidate.outcome.waived.sort();
        }
        digested(proposal);
    }

    /// One of late, or a new one; now and then another under the name of an old one.
    fn waiver(&mut self, now: u64) -> Waiver {
        let old = self.rng.recent(&self.waivers, RECENT).cloned();
        let reused = match old {
            Some(old) if self.rng.percent(60) => return old,
            Some(old) if self.rng.percent(15) => Some(old.claims.jti),
            _ => None,
        };
        self.names += 1;
        let lift =
            Lift { code: code("LATE"), policy: id(LIFTED[usize::from(self.rng.percent(50))]) };
        let nbf = now.saturating_sub(self.rng.below(3));
        let claims = WaiverClaims {
            approved_by: id("duty"),
            aud: ISSUER.to_owned(),
            exp: now + self.rng.within(1, 120),
            iat: nbf,
            jti: reused.unwrap_or_else(|| id(&format!("w-{}", self.names))),
            lifts: [lift].into(),
            max_duration_seconds: None,
            max_gpu_count: None,
            nbf,
            placet: 1,
            reason: "CHG-1".to_owned(),
            requested_by: id("ops"),
            scope: WaiverScope { tenants: [id(TENANTS[0])].into(), ..WaiverScope::default() },
            uses: u32::try_from(self.rng.within(1, 3)).unwrap_or(1),
        };
        let token = sign_approval(&self.key, &claims).expect("a waiver of the world is sound");
        let waiver = Waiver { claims, digest: Digest::of(token.as_bytes()), token };
        self.waivers.push(waiver.clone());
        waiver
    }

    /// A freeze or a thaw, now and then, or one that was sent before.
    pub(super) fn order(&mut self, model: &Model, now: u64) -> Option<Step> {
        if !self.is_busy {
            return None;
        }
        let standing: Vec<FreezeClaims> =
            model.approvals.standing.values().map(|(claims, _)| claims.clone()).collect();
        // Nothing else happens while too much is frozen.
        let percent = if standing.is_empty() { 3 } else { 25 };
        if !self.rng.percent(percent) {
            return None;
        }
        let iat = match self.rng.below(20) {
            0 => now.saturating_sub(self.rng.within(290, 310)),
            1 => now + self.rng.within(1, 5),
            _ => now,
        };
        let again = self.rng.recent(&self.orders, 4).cloned();
        let order = match (again, self.rng.recent(&standing, 4).cloned()) {
            (Some(order), _) if self.rng.percent(20) => FreezeOrder { time: now, ..order },
            (_, Some(standing)) if self.rng.percent(80) => self.thaw(standing.jti, iat, now),
            _ => self.freeze(iat, now),
        };
        self.orders.push(order.clone());
        Some(Step::Freeze(Box::new(order)))
    }

    fn freeze(&mut self, iat: u64, time: u64) -> FreezeOrder {
        let mut scope = FreezeScope::default();
        match self.rng.below(6) {
            0 => drop(scope.clusters.insert(id("c-1"))),
            1 => drop(scope.clusters.insert(id("c-2"))),
            2 | 3 => drop(scope.tenants.insert(id(self.rng.name(&TENANTS)))),
            4 => drop(scope.priority_classes.insert(PriorityClass::ExternalCommercial)),
            _ => {
                scope.priority_classes.insert(PriorityClass::InternalResearch);
                scope.kinds.insert(SubjectKind::Job);
            }
        }
        let name = id(&format!("f-{}", self.rng.below(3)));
        let (aud, reason) = (ISSUER.to_owned(), "INC-7".to_owned());
        let claims = FreezeClaims { aud, by: id("duty"), iat, jti: name, placet: 1, reason, scope };
        let token = sign_approval(&self.key, &claims).expect("a freeze of the world is sound");
        FreezeOrder { order: Freezing::Freeze(claims), token, time }
    }

    fn thaw(&mut self, name: Id, iat: u64, time: u64) -> FreezeOrder {
        let mut grant = FreezeGrant::default();
        if self.rng.percent(10) {
            grant.tenants.insert(id(TENANTS[0]));
        }
        let (aud, reason) = (ISSUER.to_owned(), "cleared".to_owned());
        let claims = ThawClaims { aud, by: id("duty"), iat, jti: name, placet: 1, reason };
        let token = sign_approval(&self.key, &claims).expect("a thaw of the world is sound");
        FreezeOrder { order: Freezing::Thaw(claims, grant), token, time }
    }
}
