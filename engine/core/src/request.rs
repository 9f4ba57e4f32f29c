//! What a PEP asks, checked and normalised.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Id;

/// Most GPUs in one request: several times the largest fleet.
pub const MAX_GPU_COUNT: u32 = 1_000_000;
/// Longest lease or job in seconds: 366 days. Longer needs are renewed, so that facts and policies
/// are looked at again.
pub const MAX_DURATION_SECONDS: u64 = 31_622_400;
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
    /// Asks to displace others.
    pub may_preempt: bool,
    /// Hosted models that it uses; each once.
    pub model_ids: Vec<Id>,
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
}

/// A request after decoding: every bound of `admission.proto` holds.
///
/// Its JSON form (without the principal's subject) is what the request digest covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdmissionRequest {
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
}
