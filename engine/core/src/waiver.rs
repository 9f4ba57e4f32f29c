//! Waivers: signed, expiring exceptions that lift named denials of overridable policies.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::approval::{Approval, ApprovalError, MAX_SCOPE_NAMES, check_shared, private};
use crate::{Code, Id, SubjectKind, Workload};

/// `typ` of the header of a waiver.
pub const WAIVER_TYP: &str = "placet-waiver+jwt";
/// Most denials that one waiver lifts: each is looked over by a person.
pub const MAX_LIFTS: usize = 16;
/// Most permits that one waiver lifts denials of.
pub const MAX_WAIVER_USES: u32 = 1_000;
/// Longest time for which a waiver may be used, in seconds: 90 days. What is needed for longer is a
/// change of the policy.
pub const MAX_WAIVER_SECONDS: u64 = 7_776_000;
/// Name under which the engine itself denies: what it denies is never lifted.
const ENGINE: &str = "placet";

/// A denial that can be lifted: one code of one policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// Its code.
    pub code: Code,
    /// The policy that gives it.
    pub policy: Id,
}

/// A denial that a waiver lifts, and by which one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waived {
    /// Its code.
    pub code: Code,
    /// The policy that gives it.
    pub policy: Id,
    /// Name of the waiver.
    pub waiver: Id,
}

/// What a waiver may be used for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaiverScope {
    /// Where: at most 64; empty means every cluster for which its key may waive.
    pub clusters: BTreeSet<Id>,
    /// What kinds of subject; empty means any.
    pub kinds: BTreeSet<SubjectKind>,
    /// For whom: 1 to 64.
    pub tenants: BTreeSet<Id>,
}

/// The claims of a waiver: registered JWT claims (RFC 7519 §4.1) and Placet's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaiverClaims {
    /// Who approved it: the name under which the server knows the key.
    pub approved_by: Id,
    /// The deployment that may use it: the issuer of its decisions.
    pub aud: String,
    /// First second at which it can no longer be used, since 1970-01-01 UTC; at most 90 days after
    /// `nbf`.
    pub exp: u64,
    /// When it was signed, in seconds since 1970-01-01 UTC.
    pub iat: u64,
    /// Its name, given to no other waiver.
    pub jti: Id,
    /// What it lifts: 1 to 16 denials.
    pub lifts: BTreeSet<Lift>,
    /// Longest duration that it lifts for, in seconds; for an extension, of what is added.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_duration_seconds: Option<u64>,
    /// Most GPUs that it lifts for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_gpu_count: Option<u32>,
    /// First second at which it can be used, since 1970-01-01 UTC.
    pub nbf: u64,
    /// Version of these claims: 1.
    pub placet: u8,
    /// Why, for a person to read: a ticket or a sentence, 1 to 256 bytes. Logged for ever, so it
    /// names no person.
    pub reason: String,
    /// Who asked for it: never the approver.
    pub requested_by: Id,
    /// What it may be used for.
    pub scope: WaiverScope,
    /// How many permits it may lift denials of: 1 to 1,000.
    pub uses: u32,
}

impl WaiverClaims {
    /// Whether a denial is one of those that it lifts.
    #[must_use]
    pub fn lifts(&self, policy: &Id, code: &Code) -> bool {
        self.lifts.iter().any(|lift| lift.policy == *policy && lift.code == *code)
    }

    /// Whether something is as small as what it lifts for.
    #[must_use]
    pub fn is_large_enough(&self, workload: &Workload) -> bool {
        self.max_gpu_count.is_none_or(|most| workload.gpu_count <= most)
            && self.max_duration_seconds.is_none_or(|most| workload.duration_seconds <= most)
    }
}

impl private::Sealed for WaiverClaims {}

impl Approval for WaiverClaims {
    const TYP: &'static str = WAIVER_TYP;

    fn name(&self) -> &Id {
        &self.jti
    }

    fn iat(&self) -> u64 {
        self.iat
    }

    fn check(&self) -> Result<(), ApprovalError> {
        let wrong = |field, problem| Err(ApprovalError::Senseless { field, problem });
        check_shared(self.placet, &self.aud, &self.reason)?;
        if self.nbf < self.iat {
            return wrong("nbf", "is before `iat`: nothing is waived that has been decided");
        }
        if self.exp <= self.nbf {
            return wrong("exp", "is not after `nbf`");
        }
        if self.exp.saturating_sub(self.nbf) > MAX_WAIVER_SECONDS {
            return wrong("exp", "is more than 90 days after `nbf`");
        }
        if self.lifts.is_empty() || self.lifts.len() > MAX_LIFTS {
            return wrong("lifts", "does not name 1 to 16 denials");
        }
        if self.lifts.iter().any(|lift| lift.policy.as_str() == ENGINE) {
            return wrong("lifts", "names `placet`: what the engine itself denies is never lifted");
        }
        let WaiverScope { clusters, tenants, .. } = &self.scope;
        if tenants.is_empty() || tenants.len() > MAX_SCOPE_NAMES {
            return wrong("scope.tenants", "does not name 1 to 64 tenants");
        }
        if clusters.len() > MAX_SCOPE_NAMES {
            return wrong("scope.clusters", "names more than 64 clusters");
        }
        if !(1..=MAX_WAIVER_USES).contains(&self.uses) {
            return wrong("uses", "is not 1 to 1000");
        }
        if self.max_gpu_count == Some(0) {
            return wrong("max_gpu_count", "is 0: it would lift for nothing");
        }
        if self.max_duration_seconds == Some(0) {
            return wrong("max_duration_seconds", "is 0: it would lift for nothing");
        }
        Ok(())
    }
}
