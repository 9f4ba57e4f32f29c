//! The form of what a case asks, for the published schema alone: a request is read as the server
//! reads it, once all of its parts lie over each other. Until then anything may be absent.

use placet_core::{Id, IsolationLevel, ModelUse, PriorityClass};
use schemars::JsonSchema;

/// What a PEP asks, or a part of it: the JSON form of `AdmitRequest` of `admission.proto`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Request {
    /// Names this attempt.
    request_id: Option<Id>,
    /// The tenant that pays.
    tenant_id: Option<Id>,
    /// Who acts for the tenant.
    principal: Option<Principal>,
    /// The order in which requests may displace one another.
    priority_class: Option<PriorityClass>,
    /// GPUs for a while. Either this or `job`.
    lease: Option<Lease>,
    /// A batch workload. Either this or `lease`.
    job: Option<Job>,
    /// The reservation that is to go on.
    extends: Option<Extends>,
    /// Signed waivers, which a case does not look at.
    #[schemars(length(max = 4))]
    waivers: Option<Vec<String>>,
}

/// Claims of the customer's identity provider.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Principal {
    /// Issuer of the identity.
    issuer: Option<String>,
    /// Subject at that issuer.
    subject: Option<String>,
    /// Groups that the issuer vouches for.
    groups: Option<Vec<Id>>,
}

/// The reservation that is to go on, as its holder knows it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Extends {
    /// Its id.
    reservation_id: Option<Id>,
    /// Its fencing epoch.
    epoch: Option<u64>,
    /// Its first second, since 1970-01-01 UTC.
    start: Option<u64>,
    /// First second after it, since 1970-01-01 UTC.
    end: Option<u64>,
}

macro_rules! workload {
    ($(#[$doc:meta])* $name:ident { $($(#[$more:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(JsonSchema)]
        #[schemars(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its schema is used")]
        struct $name {
            /// The cluster.
            cluster_id: Option<Id>,
            /// GPUs, 1 to 1,000,000.
            #[schemars(range(max = 1_000_000))]
            gpu_count: Option<u32>,
            /// Length in seconds from the start on, 1 to 31,622,400 (366 days).
            #[schemars(range(max = 31_622_400))]
            duration_seconds: Option<u64>,
            /// How far it is kept apart from its neighbours.
            isolation_level: Option<IsolationLevel>,
            /// Acceptable GPU models, the preferred first: 1 to 8, each once.
            #[schemars(length(max = 8))]
            gpu_models: Option<Vec<Id>>,
            /// Share of each GPU in thousandths, 1 to 1,000; the whole GPU if absent.
            #[schemars(range(max = 1_000))]
            gpu_milli: Option<u32>,
            /// Fabric bandwidth in Gbit/s over all GPUs together, 0 to 10,000,000.
            #[schemars(range(max = 10_000_000))]
            fabric_gbps: Option<u32>,
            /// Datasets that it reads, at most 32, each once.
            #[schemars(length(max = 32))]
            dataset_ids: Option<Vec<Id>>,
            /// Hosted models that it uses, at most 32, each once.
            #[schemars(length(max = 32))]
            model_ids: Option<Vec<Id>>,
            /// Jurisdictions to which results are written, at most 32, each once.
            #[schemars(length(max = 32))]
            checkpoint_jurisdictions: Option<Vec<Id>>,
            /// Asks to displace others when capacity is saturated.
            may_preempt: Option<bool>,
            /// First second of an advance reservation, since 1970-01-01 UTC; from the decision on
            /// if absent.
            start: Option<u64>,
            /// What it does with the models that it names.
            model_use: Option<ModelUse>,
            /// Jurisdictions to which its results are read out or sent, at most 32, each once.
            #[schemars(length(max = 32))]
            egress_jurisdictions: Option<Vec<Id>>,
            /// Bytes that leave the cluster, over the whole duration.
            egress_bytes: Option<u64>,
            /// Bytes that it reads from and writes to storage, over the whole duration.
            storage_io_bytes: Option<u64>,
            $($(#[$more])* $field: $type,)*
        }
    };
}

workload!(
    /// GPUs for a while.
    Lease {}
);

workload!(
    /// A batch workload.
    Job {
        /// The reservation of a confirmed lease inside which it runs.
        lease_id: Option<Id>,
    }
);
