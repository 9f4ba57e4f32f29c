//! Waivers and freezes held against what their keys may approve: pure, like deciding.
//!
//! A waiver that is not good for a request denies it. A request is never decided as if it had not
//! been sent: whoever sends one counts on it, and an attacker who tries many must leave a trace.

use placet_core::{
    AdmissionRequest, Approval, ApprovalError, Code, Digest, FreezeClaims, Id, Reason, ThawClaims,
    Waived, WaiverClaims, utc, verify_approval,
};

use crate::approvers::{Approver, Approvers, FreezeGrant, WaiveGrant, within};

/// Name under which the engine itself denies.
const ENGINE: &str = "placet";

/// A waiver that a request brought, found good for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// What it says.
    pub claims: WaiverClaims,
    /// SHA-256 of its text: tells two waivers of one name apart.
    pub digest: Digest,
    /// Its text, as it was sent.
    pub token: String,
}

/// Why a waiver, a freeze or a thaw is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}\nhint: {hint}")]
pub struct Refusal {
    /// Stable code.
    pub code: &'static str,
    /// For a person to read.
    pub message: String,
    /// What would help.
    pub hint: &'static str,
    /// Whether the same may be good later.
    pub retry: bool,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>, hint: &'static str) -> Self {
        Self { code, message: message.into(), hint, retry: false }
    }

    /// The denial of a request that brought it, in place `at` of its waivers.
    fn reason(self, at: usize) -> Reason {
        let Self { code, message, hint, retry } = self;
        Reason {
            code: Code::known(code),
            counterfactual: None,
            field: Some(format!("waivers[{at}]")),
            hint: Some(hint.to_owned()),
            message,
            policy: Id::new(ENGINE).expect("the engine's name follows the rule of names"),
            retry,
        }
    }
}

/// The denials that waivers lift, in the order of the waivers.
#[must_use]
pub fn lifts(waivers: &[Waiver]) -> Vec<Waived> {
    let lifts = waivers.iter().flat_map(|Waiver { claims, .. }| {
        claims.lifts.iter().map(|lift| Waived {
            code: lift.code.clone(),
            policy: lift.policy.clone(),
            waiver: claims.jti.clone(),
        })
    });
    lifts.collect()
}

impl Approvers {
    /// Checks the waivers that a request of a caller brings, as of a time in seconds since
    /// 1970-01-01 UTC. How often each was used, the ledger knows.
    ///
    /// # Errors
    /// A reason to deny the request for each waiver that is not good for it.
    pub fn check_waivers(
        &self,
        request: &AdmissionRequest,
        caller: &Id,
        time: u64,
    ) -> Result<Vec<Waiver>, Vec<Reason>> {
        let (mut waivers, mut reasons) = (Vec::<Waiver>::new(), Vec::new());
        for (at, token) in request.waivers.iter().enumerate() {
            let checked = self.good_waiver(token, time).and_then(|(claims, approver)| {
                check_use(&claims, approver, request, caller)?;
                if waivers.iter().any(|before| before.claims.jti == claims.jti) {
                    return Err(changed(&claims.jti));
                }
                Ok(claims)
            });
            match checked {
                Ok(claims) => {
                    let digest = Digest::of(token.as_bytes());
                    waivers.push(Waiver { claims, digest, token: token.clone() });
                }
                Err(refusal) => reasons.push(refusal.reason(at)),
            }
        }
        if reasons.is_empty() { Ok(waivers) } else { Err(reasons) }
    }

    /// Checks a waiver by itself, as of a time: who signed it, whether they may, for this
    /// deployment, and whether its time is now.
    ///
    /// # Errors
    /// [`Refusal`] names the first thing that is wrong.
    pub fn check_waiver(&self, token: &str, time: u64) -> Result<WaiverClaims, Refusal> {
        self.good_waiver(token, time).map(|(claims, _)| claims)
    }

    fn good_waiver(&self, token: &str, time: u64) -> Result<(WaiverClaims, &Approver), Refusal> {
        let (claims, approver) = self.signed::<WaiverClaims>(token, &WAIVER_CODES)?;
        let name = &claims.jti;
        if claims.approved_by != approver.name {
            let message =
                format!("says that `{}` approved it, but its key is another's", claims.approved_by);
            let hint = "have it signed by who approves it, under the name of that approver";
            return Err(Refusal::new("WAIVER_UNKNOWN_KEY", message, hint));
        }
        if self.has_withdrawn(name) {
            let message = format!("waiver `{name}` was withdrawn");
            return Err(Refusal::new("WAIVER_REVOKED", message, "ask for a new one"));
        }
        self.check_audience(&claims.aud, WAIVER_CODES.foreign)?;
        let Some(grant) = &approver.waive else {
            let message = format!("`{}` may not waive", approver.name);
            return Err(Refusal::new("WAIVER_OVER_BROAD", message, WIDER));
        };
        check_grant(&claims, approver, grant)?;
        if claims.requested_by == claims.approved_by || approver.is_named(&claims.requested_by) {
            let message = format!("waiver `{name}` was asked for by who approved it");
            return Err(Refusal::new("WAIVER_SELF_APPROVED", message, OTHER_EYES));
        }
        if time < claims.nbf {
            return Err(not_yet_valid(name, claims.nbf));
        }
        if time >= claims.exp {
            return Err(expired(name, claims.exp));
        }
        Ok((claims, approver))
    }

    /// Checks a freeze: who signed it, whether they may, and for this deployment. When it was
    /// signed, the ledger looks at.
    ///
    /// # Errors
    /// [`Refusal`] names the first thing that is wrong.
    pub fn check_freeze(&self, token: &str) -> Result<FreezeClaims, Refusal> {
        let (claims, approver) = self.signed::<FreezeClaims>(token, &FREEZE_CODES)?;
        self.check_audience(&claims.aud, FREEZE_CODES.foreign)?;
        let grant = may_freeze(approver, &claims.by)?;
        if !grant.covers(&claims.scope) {
            let message = format!("`{}` may not freeze all of this", approver.name);
            let hint = "freeze less, or have who may freeze it sign";
            return Err(Refusal::new("FREEZE_OVER_BROAD", message, hint));
        }
        Ok(claims)
    }

    /// Checks a thaw as [`Approvers::check_freeze`] does; gives what its key may thaw too.
    ///
    /// # Errors
    /// [`Refusal`] names the first thing that is wrong.
    pub fn check_thaw(&self, token: &str) -> Result<(ThawClaims, FreezeGrant), Refusal> {
        let (claims, approver) = self.signed::<ThawClaims>(token, &FREEZE_CODES)?;
        self.check_audience(&claims.aud, FREEZE_CODES.foreign)?;
        let grant = may_freeze(approver, &claims.by)?.clone();
        Ok((claims, grant))
    }

    /// What an approver signed, and who it is.
    fn signed<T: Approval>(&self, token: &str, codes: &Codes) -> Result<(T, &Approver), Refusal> {
        let unknown = |error: &ApprovalError| {
            let hint = "have its approver added to the server's list, or ask one who is on it";
            Refusal::new(codes.unknown_key, first_line(error), hint)
        };
        let Some(keys) = self.keys() else {
            let hint = "start the server with `--approvers` and the file of who may approve";
            return Err(Refusal::new(codes.unknown_key, "this server has no approvers", hint));
        };
        let (claims, kid) = verify_approval::<T>(keys, token).map_err(|error| {
            if matches!(error, ApprovalError::UnknownKey { .. }) {
                return unknown(&error);
            }
            let (code, hint) = if matches!(error, ApprovalError::Lapsed { .. }) {
                (codes.revoked, "ask for one by a key that counts")
            } else {
                (codes.unreadable, "send it as it was signed")
            };
            Refusal::new(code, first_line(&error), hint)
        })?;
        match self.of_key(kid.as_str()) {
            Some(approver) => Ok((claims, approver)),
            None => Err(unknown(&ApprovalError::UnknownKey { kid: kid.to_string() })),
        }
    }

    fn check_audience(&self, aud: &str, code: &'static str) -> Result<(), Refusal> {
        if aud == self.issuer() {
            return Ok(());
        }
        let message = format!("is for `{aud}`, not for `{}`", self.issuer());
        Err(Refusal::new(code, message, "use it where it is for, or ask for one for this server"))
    }
}

/// The codes of what is signed, by kind.
struct Codes {
    foreign: &'static str,
    revoked: &'static str,
    unknown_key: &'static str,
    unreadable: &'static str,
}

const WAIVER_CODES: Codes = Codes {
    foreign: "WAIVER_FOREIGN",
    revoked: "WAIVER_REVOKED",
    unknown_key: "WAIVER_UNKNOWN_KEY",
    unreadable: "WAIVER_UNREADABLE",
};

const FREEZE_CODES: Codes = Codes {
    foreign: "FREEZE_FOREIGN",
    revoked: "FREEZE_REVOKED",
    unknown_key: "FREEZE_UNKNOWN_KEY",
    unreadable: "FREEZE_UNREADABLE",
};

const WIDER: &str = "ask for a narrower one, or an approver who may waive as much";
const OTHER_EYES: &str = "have it approved by somebody else";

/// Whether a waiver stays within what its approver was granted.
fn check_grant(
    claims: &WaiverClaims,
    approver: &Approver,
    grant: &WaiveGrant,
) -> Result<(), Refusal> {
    let beyond = |what: String| {
        let message = format!("`{}` may not waive {what}", approver.name);
        Err(Refusal::new("WAIVER_OVER_BROAD", message, WIDER))
    };
    for lift in &claims.lifts {
        if !grant.lifts.get(&lift.policy).is_some_and(|codes| codes.contains(&lift.code)) {
            return beyond(format!("`{}` of `{}`", lift.code, lift.policy));
        }
    }
    if !within(&claims.scope.tenants, &grant.tenants) {
        return beyond("for all of these tenants".to_owned());
    }
    // Without clusters of its own, a waiver is for those of the grant.
    if !claims.scope.clusters.is_empty() && !within(&claims.scope.clusters, &grant.clusters) {
        return beyond("on all of these clusters".to_owned());
    }
    if claims.exp.saturating_sub(claims.nbf) > grant.max_seconds {
        return beyond(format!("for longer than {} seconds", grant.max_seconds));
    }
    if claims.uses > grant.max_uses {
        return beyond(format!("for more than {} permits", grant.max_uses));
    }
    if let Some(most) = grant.max_gpu_count
        && claims.max_gpu_count.is_none_or(|asked| asked > most)
    {
        return beyond(format!("for more than {most} GPUs"));
    }
    if let Some(most) = grant.max_duration_seconds
        && claims.max_duration_seconds.is_none_or(|asked| asked > most)
    {
        return beyond(format!("for requests of more than {most} seconds"));
    }
    Ok(())
}

/// Whether a waiver that is good is good for this request.
fn check_use(
    claims: &WaiverClaims,
    approver: &Approver,
    request: &AdmissionRequest,
    caller: &Id,
) -> Result<(), Refusal> {
    let name = &claims.jti;
    let principal = request.principal.as_ref();
    let is_own = principal.is_some_and(|it| approver.is_principal(&it.issuer, &it.subject));
    if approver.is_named(caller) || is_own {
        let message = format!("waiver `{name}` is used by who approved it");
        return Err(Refusal::new("WAIVER_SELF_APPROVED", message, OTHER_EYES));
    }
    let (workload, kind) = (request.subject.workload(), request.subject.kind());
    let scope = &claims.scope;
    let granted = approver.waive.as_ref().map(|grant| &grant.clusters);
    let clusters = if scope.clusters.is_empty() { granted } else { Some(&scope.clusters) };
    let here = clusters.is_none_or(|it| it.is_empty() || it.contains(&workload.cluster_id));
    let kinds = scope.kinds.is_empty() || scope.kinds.contains(&kind);
    if !here || !kinds || !scope.tenants.contains(&request.tenant_id) {
        let message = format!("waiver `{name}` is for other tenants, clusters or kinds");
        let hint = "leave it out, or ask for one for this request";
        return Err(Refusal::new("WAIVER_NOT_FOR_THIS", message, hint));
    }
    if !claims.is_large_enough(workload) {
        let gpus = claims.max_gpu_count.map(|most| format!(" at most {most} GPUs"));
        let seconds = claims.max_duration_seconds.map(|most| format!(" at most {most} s"));
        let bounds: Vec<_> = [gpus, seconds].into_iter().flatten().collect();
        let message = format!("waiver `{name}` is for{}", bounds.join(" and"));
        let hint = "ask for less, or for a larger waiver";
        return Err(Refusal::new("WAIVER_TOO_SMALL", message, hint));
    }
    Ok(())
}

fn may_freeze<'a>(approver: &'a Approver, by: &Id) -> Result<&'a FreezeGrant, Refusal> {
    if approver.name != *by {
        let message = format!("says that it is by `{by}`, but its key is another's");
        let hint = "have it signed by who orders it, under the name of that approver";
        return Err(Refusal::new("FREEZE_UNKNOWN_KEY", message, hint));
    }
    approver.freeze.as_ref().ok_or_else(|| {
        let message = format!("`{by}` may not freeze");
        Refusal::new("FREEZE_OVER_BROAD", message, "have who may freeze it sign")
    })
}

/// That a waiver's time has not begun.
#[must_use]
pub fn not_yet_valid(name: &Id, nbf: u64) -> Refusal {
    let message = format!("waiver `{name}` can be used from {} on", utc(nbf));
    let hint = "ask again then, under a new request id";
    Refusal { retry: true, ..Refusal::new("WAIVER_NOT_YET_VALID", message, hint) }
}

/// That a waiver's time is over.
#[must_use]
pub fn expired(name: &Id, exp: u64) -> Refusal {
    let message = format!("waiver `{name}` could be used until {}", utc(exp));
    Refusal::new("WAIVER_EXPIRED", message, "ask for a new one")
}

/// That a waiver is another than the one which that name was first used with.
#[must_use]
pub fn changed(name: &Id) -> Refusal {
    let message = format!("another waiver was used under the name `{name}`");
    Refusal::new("WAIVER_CHANGED", message, "have a new waiver signed under a name of its own")
}

fn first_line(error: &dyn std::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
