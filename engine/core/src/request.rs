//! What a PEP asks, checked and normalised.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Code, Id, Reason, utc};

/// Most GPUs in one request: several times the largest fleet.
pub const MAX_GPU_COUNT: u32 = 1_000_000;
/// Longest lease or job in seconds: 366 days. Longer needs are renewed, so that facts and policies
/// are looked at again.
pub const MAX_DURATION_SECONDS: u64 = 31_622_400;
/// Farthest that a start may lie ahead of the decision, in seconds: 366 days. What is booked
/// farther ahead would be held on facts and policies that say little about that time.
pub const MAX_LEAD_SECONDS: u64 = 31_622_400;
/// Thousandths in a whole GPU.
pub const MILLI_PER_GPU: u32 = 1_000;
/// Most acceptable GPU models in one request: each is evaluated apart.
pub const MAX_GPU_MODELS: usize = 8;
/// Most datasets, models, jurisdictions in one request.
pub const MAX_REFERENCES: usize = 32;
/// Most groups of a principal.
pub const MAX_GROUPS: usize = 64;
/// Most Gbit/s in one request.
pub const MAX_FABRIC_GBPS: u32 = 10_000_000;
/// Most members of a gang: each is a decision of its own, and the writer takes all of them in one
/// step.
pub const MAX_GANG: usize = 32;
/// Most waivers of a request: each is a signature to verify before anything is evaluated.
pub const MAX_WAIVERS: usize = 4;
/// Longest issuer and subject of a principal, in bytes.
pub const MAX_PRINCIPAL_BYTES: usize = 256;

/// The order in which requests may displace one another.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PriorityClass {
    /// The owner's own work.
    InternalResearch,
    /// Sold capacity.
    ExternalCommercial,
}

impl PriorityClass {
    /// Whether a request of this class may ever displace one of another: the owner's own work what
    /// is sold, and nothing else. Whatever policies say, what was displaced can displace nobody in
    /// turn.
    #[must_use]
    pub fn may_displace(self, other: Self) -> bool {
        match (self, other) {
            (Self::InternalResearch, Self::ExternalCommercial) => true,
            (Self::InternalResearch, Self::InternalResearch) | (Self::ExternalCommercial, _) => {
                false
            }
        }
    }
}

/// How far a workload is kept apart from its neighbours: a chain, in order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IsolationLevel {
    /// GPUs time-sliced between tenants.
    Shared,
    /// MIG slices or SR-IOV functions.
    Partitioned,
    /// Whole GPUs on a shared host.
    Passthrough,
    /// Whole hosts.
    Dedicated,
    /// Whole hosts with encrypted memory and remote attestation.
    Confidential,
}

/// What a workload does with the models that it names.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ModelUse {
    /// Makes new weights from them.
    Training,
    /// Changes a copy of them.
    FineTuning,
    /// Serves answers.
    Inference,
    /// Measures them, and keeps nothing else.
    Evaluation,
}

/// Who acts for the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// Groups that the issuer vouches for, in the request's order.
    pub groups: Vec<Id>,
    /// Issuer of the identity.
    pub issuer: String,
    /// Subject at that issuer. Personal: never serialised, so that no digest or log entry can hold
    /// it.
    #[serde(skip)]
    pub subject: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// GPUs for a while.
    Lease(Workload),
    /// A batch workload.
    Job(Workload),
}

impl Subject {
    /// The workload of either kind.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        match self {
            Self::Lease(workload) | Self::Job(workload) => workload,
        }
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> SubjectKind {
        match self {
            Self::Lease(_) => SubjectKind::Lease,
            Self::Job(_) => SubjectKind::Job,
        }
    }
}

/// The kinds of [`Subject`].
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// GPUs for a while.
    Lease,
    /// A batch workload.
    Job,
}

impl SubjectKind {
    /// Its name in JSON, selectors and `sub` claims.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Job => "job",
        }
    }
}

/// Why work cannot start when it is asked to. All times are seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The start has passed.
    #[error("the start {} is before {}, when it was decided", utc(*.start), utc(*.now))]
    InThePast {
        /// Asked for.
        start: u64,
        /// When it is decided.
        now: u64,
    },
    /// The start is more than [`MAX_LEAD_SECONDS`] ahead.
    #[error("the start {} is after {}, the latest that can be booked", utc(*.start), utc(*.latest))]
    TooFarAhead {
        /// Asked for.
        start: u64,
        /// The latest that may be asked for now.
        latest: u64,
    },
}

impl StartError {
    /// The denial that it is: the engine's own, under the field `start` of the subject.
    ///
    /// # Panics
    /// Never: the engine's name follows the rule of names.
    #[must_use]
    pub fn reason(self, kind: SubjectKind) -> Reason {
        let (code, hint, retry) = match self {
            Self::InThePast { .. } => {
                let hint = "ask for a later start, or without one to begin at once";
                ("START_IN_THE_PAST", hint.to_owned(), false)
            }
            Self::TooFarAhead { start, .. } => {
                let from = utc(start.saturating_sub(MAX_LEAD_SECONDS));
                let hint = format!("ask for an earlier start, or for this one from {from} on");
                ("START_TOO_FAR_AHEAD", hint, true)
            }
        };
        Reason {
            code: Code::known(code),
            counterfactual: None,
            field: Some(format!("{}.start", kind.as_str())),
            hint: Some(hint),
            message: self.to_string(),
            policy: Id::new("placet").expect("the engine's name follows the rule of names"),
            retry,
        }
    }
}

/// The resources of a lease or a job; the bounds are those of `admission.proto`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Where results are written; each once.
    pub checkpoint_jurisdictions: Vec<Id>,
    /// Cluster that was asked for.
    pub cluster_id: Id,
    /// Datasets that it reads; each once.
    pub dataset_ids: Vec<Id>,
    /// Longest run time: 1..=31,622,400 seconds.
    pub duration_seconds: u64,
    /// Bytes that leave the cluster, over the whole duration: 0..=2^53-1. Where it is 0, it is no
    /// part of the canonical request.
    #[serde(skip_serializing_if = "is_zero")]
    pub egress_bytes: u64,
    /// Where results are read out or sent to; each once. Empty, it is no part of the canonical
    /// request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_jurisdictions: Vec<Id>,
    /// 0..=10,000,000 Gbit/s over all GPUs together.
    pub fabric_gbps: u32,
    /// 1..=1,000,000.
    pub gpu_count: u32,
    /// Share of each GPU: 1..=1,000 thousandths.
    pub gpu_milli: u32,
    /// Acceptable models, the preferred first: 1..=8, each once.
    pub gpu_models: Vec<Id>,
    /// How far it is kept apart.
    pub isolation_level: IsolationLevel,
    /// The reservation of the lease inside which a job runs; never of a lease. Absent, it is no
    /// part of the canonical request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<Id>,
    /// Asks to displace others.
    pub may_preempt: bool,
    /// Hosted models that it uses; each once.
    pub model_ids: Vec<Id>,
    /// What it does with them. Absent, it is no part of the canonical request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_use: Option<ModelUse>,
    /// First second, since 1970-01-01 UTC, of an advance reservation: 1..=253,402,300,799 (the year
    /// 9999); of an extension, the end of what it extends. Absent: from the decision on, and then
    /// it is no part of the canonical request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Bytes that it reads from and writes to storage, over the whole duration: 0..=2^53-1. Where
    /// it is 0, it is no part of the canonical request.
    #[serde(skip_serializing_if = "is_zero")]
    pub storage_io_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

impl Workload {
    /// Thousandths of a GPU over all GPUs: 1..=10^9.
    #[must_use]
    pub fn milli_gpus(&self) -> u64 {
        u64::from(self.gpu_count) * u64::from(self.gpu_milli)
    }

    /// GPU-seconds over the whole duration, rounded up: 1..=3.2 * 10^13.
    #[must_use]
    pub fn gpu_seconds(&self) -> u64 {
        (self.milli_gpus() * self.duration_seconds).div_ceil(u64::from(MILLI_PER_GPU))
    }

    /// First second if it is decided at `now`: the start that is asked for, or `now`.
    ///
    /// # Errors
    /// [`StartError`]: whoever decides has to deny.
    pub fn start_at(&self, now: u64) -> Result<u64, StartError> {
        let start = self.start.unwrap_or(now);
        if start < now {
            return Err(StartError::InThePast { start, now });
        }
        let latest = now.saturating_add(MAX_LEAD_SECONDS);
        if start > latest {
            return Err(StartError::TooFarAhead { start, latest });
        }
        Ok(start)
    }
}

/// The reservation that is to go on, as its holder knows it. Times are seconds since 1970-01-01
/// UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extends {
    /// First second after it, as things stand: later than `start`.
    pub end: u64,
    /// Its fencing epoch, as things stand: 1..=2^53-1.
    pub epoch: u64,
    /// Which reservation.
    pub reservation_id: Id,
    /// Its first second: that of its first decision.
    pub start: u64,
}

/// A member's place in a gang: requests that are admitted together, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GangPlace {
    /// Name of the gang, unique per caller.
    pub id: Id,
    /// Place among the members, from 0.
    pub index: u32,
    /// Members in all: 2..=32.
    pub size: u32,
}

/// A request after decoding: every bound of `admission.proto` holds.
///
/// Its JSON form (without the principal's subject) is what the request digest covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdmissionRequest {
    /// The reservation that is to go on; absent for what is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<Extends>,
    /// The gang that it is a member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangPlace>,
    /// Who acts, if named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Principal>,
    /// The order in which it may displace others.
    pub priority_class: PriorityClass,
    /// Names this attempt.
    pub request_id: Id,
    /// What is asked for.
    #[serde(flatten)]
    pub subject: Subject,
    /// Who pays.
    pub tenant_id: Id,
    /// Signed waivers, as they were sent: 0..=4 of at most 4,096 bytes, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waivers: Vec<String>,
}

impl AdmissionRequest {
    /// First second if it is decided at `now`: the start that is asked for, the end of what is to
    /// go on, or `now`.
    ///
    /// # Errors
    /// The denial, if that cannot be.
    ///
    /// # Panics
    /// Never: the engine's name follows the rule of names.
    pub fn start_at(&self, now: u64) -> Result<u64, Box<Reason>> {
        let start = self.subject.workload().start_at(now);
        start.map_err(|error| {
            Box::new(match (&self.extends, error) {
                (Some(extends), StartError::InThePast { .. }) => extends.ended(now),
                _ => error.reason(self.subject.kind()),
            })
        })
    }
}

impl Extends {
    fn ended(&self, now: u64) -> Reason {
        let (id, end) = (&self.reservation_id, utc(self.end));
        Reason {
            code: Code::known("RESERVATION_ENDED"),
            counterfactual: None,
            field: Some("extends.end".to_owned()),
            hint: Some("ask for a new reservation".to_owned()),
            message: format!("reservation `{id}` ended at {end}, before {}", utc(now)),
            policy: Id::new("placet").expect("the engine's name follows the rule of names"),
            retry: false,
        }
    }
}
