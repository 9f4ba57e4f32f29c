//! The claims of a signed decision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Charge, Digest, Effect, Extends, GangPlace, Id, IsolationLevel, Obligation, PreemptionRule,
    PriorityClass, Reason, SlaTerms, SubjectKind, Warning,
};

/// `typ` of the token's header (RFC 8725 §3.11: explicit typing).
pub const DECISION_TYP: &str = "placet-decision+jwt";
/// Version of the claims; a reader refuses others.
pub const DECISION_VERSION: u8 = 1;

/// What is granted or refused, resolved: what a provisioner compares with the work before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Where.
    pub cluster_id: Id,
    /// Gbit/s over all GPUs together.
    pub fabric_gbps: u32,
    /// GPUs.
    pub gpu_count: u32,
    /// Share of each GPU in thousandths, 1..=1,000.
    pub gpu_milli: u32,
    /// Which model: the first acceptable one that could be admitted; for a denial the first asked
    /// for.
    pub gpu_model: Id,
    /// How far it is kept apart.
    pub isolation_level: IsolationLevel,
}

/// Quota held for the subject. Where a reservation goes on, this is what is added: it begins at the
/// end of what was held before, has the next epoch, and is confirmed already, so that `confirm_by`
/// is its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReservationGrant {
    /// What is held, in account order.
    pub charges: Vec<Charge>,
    /// Last second at which it may be confirmed: seconds since 1970-01-01 UTC, exclusive.
    pub confirm_by: u64,
    /// First second after it: seconds since 1970-01-01 UTC.
    pub end: u64,
    /// Fencing epoch; a fresh reservation has 1.
    pub epoch: u64,
    /// Its name.
    pub id: Id,
    /// First second: seconds since 1970-01-01 UTC.
    pub start: u64,
}

/// A reservation that has to make room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eviction {
    /// Its fencing epoch from when the preemptor is confirmed.
    pub epoch: u64,
    /// First second at which it must not run any more, in seconds since 1970-01-01 UTC: the first
    /// of the preemptor's.
    pub evict_by: u64,
    /// Its name.
    pub reservation: Id,
    /// Whose it is.
    pub tenant_id: Id,
}

/// The payload of a decision token: registered JWT claims (RFC 7519 §4.1) and Placet's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Who may rely on it.
    pub aud: Vec<String>,
    /// SHA-256 of the policy bundle.
    pub bundle_digest: Digest,
    /// Permit or deny.
    pub effect: Effect,
    /// Who has to make room once the reservation is confirmed, in the order of the reservations'
    /// ids; left out if nobody.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub evictions: Vec<Eviction>,
    /// SHA-256 of the canonical evaluation.
    pub evaluation_digest: Digest,
    /// A PEP must not act on it from this second on.
    pub exp: u64,
    /// The reservation that goes on, or was to go on, as the request told of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub extends: Option<Extends>,
    /// SHA-256 of the facts.
    pub facts_digest: Digest,
    /// The gang that it is decided with: all of its members have the same effect.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gang: Option<GangPlace>,
    /// When it was decided.
    pub iat: u64,
    /// SHA-256 of the canonical input; absent where a request could not be resolved to one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub input_digest: Option<Digest>,
    /// Who decided.
    pub iss: String,
    /// Id of the decision.
    pub jti: Id,
    /// What kind of subject it is about.
    pub kind: SubjectKind,
    /// Duties of the PEP: it fulfils each one, or refuses.
    pub obligations: Vec<Obligation>,
    /// Version of these claims: 1.
    pub placet: u8,
    /// Whom the subject may displace.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub preemption: Option<PreemptionRule>,
    /// The order in which it may displace others.
    pub priority_class: PriorityClass,
    /// Every denial; empty exactly if permitted.
    pub reasons: Vec<Reason>,
    /// The reservation of the lease inside which the job runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease_id: Option<Id>,
    /// SHA-256 of the canonical request without personal fields.
    pub request_digest: Digest,
    /// The request that it answers.
    pub request_id: Id,
    /// Quota held; present exactly if permitted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reservation: Option<ReservationGrant>,
    /// The subject: `lease/<jti>` or `job/<jti>`.
    pub sub: String,
    /// Who pays.
    pub tenant_id: Id,
    /// What the subject is promised should it be displaced; what a reservation that goes on is
    /// promised is the best of all that its decisions say. Left out if nothing was promised.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub terms: Option<SlaTerms>,
    /// Names of the waivers that were used, in their order, each once; empty unless permitted.
    pub waivers: Vec<Id>,
    /// What a person should know.
    pub warnings: Vec<Warning>,
    /// What was granted or refused.
    pub workload: Grant,
}

/// Where a reservation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReservationState {
    /// Held, waiting to be confirmed.
    Reserved,
    /// Confirmed.
    Active,
    /// Ended by its holder.
    Released,
    /// Not confirmed in time, or at its end.
    Expired,
    /// Taken back.
    Revoked,
}
