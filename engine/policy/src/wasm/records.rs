//! The records of `placet:policy/types` as they cross into a guest: views of the input going in,
//! owned answers coming out.
//!
//! Field order and names are the WIT's; loading a component compares them with the component's own
//! types.

use placet_core::Id;
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::answer::{RawClaim, RawDecided, RawDenial, RawObligation, RawRule, RawWarning};
use crate::input;

/// An enum of the contract, with the core's type that it mirrors.
macro_rules! mirror {
    ($type:ident = $core:path { $($value:ident = $name:literal),* $(,)? }) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower, Lift)]
        #[component(enum)]
        #[repr(u8)]
        pub(super) enum $type {
            $(#[component(name = $name)] $value),*
        }

        impl From<$core> for $type {
            fn from(value: $core) -> Self {
                use $core as Core;
                match value {
                    $(Core::$value => Self::$value),*
                }
            }
        }

        impl From<$type> for $core {
            fn from(value: $type) -> Self {
                match value {
                    $($type::$value => Self::$value),*
                }
            }
        }
    };
}

mirror!(PriorityClass = placet_core::PriorityClass {
    InternalResearch = "internal-research",
    ExternalCommercial = "external-commercial",
});

mirror!(IsolationLevel = placet_core::IsolationLevel {
    Shared = "shared",
    Partitioned = "partitioned",
    Passthrough = "passthrough",
    Dedicated = "dedicated",
    Confidential = "confidential",
});

mirror!(Classification = input::Classification {
    Public = "public",
    Internal = "internal",
    Confidential = "confidential",
    Restricted = "restricted",
});

mirror!(ModelUse = placet_core::ModelUse {
    Training = "training",
    FineTuning = "fine-tuning",
    Inference = "inference",
    Evaluation = "evaluation",
});

mirror!(FabricKind = input::FabricKind {
    Ethernet = "ethernet",
    Roce = "roce",
    Infiniband = "infiniband",
});

mirror!(PartitionMode = input::PartitionMode { Mig = "mig", Sriov = "sriov" });

mirror!(TenantKind = input::TenantKind { Own = "own", Customer = "customer" });

/// `input`: everything a policy may know about a request.
#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Input<'a> {
    cluster: Cluster<'a>,
    datasets: Vec<Dataset<'a>>,
    day: &'a str,
    job: Option<Workload<'a>>,
    lease: Option<Workload<'a>>,
    models: Vec<Model<'a>>,
    month: &'a str,
    principal: Option<Principal<'a>>,
    #[component(name = "priority-class")]
    priority_class: PriorityClass,
    tenant: Tenant<'a>,
    time: u64,
}

impl<'a> Input<'a> {
    /// The input with `gpu_model` as the model under evaluation.
    pub(super) fn new(input: &'a input::Input, gpu_model: &'a Id) -> Self {
        let input::Input { cluster, datasets, day, job, lease, models, month, .. } = input;
        Self {
            cluster: Cluster::new(cluster),
            day,
            datasets: datasets.iter().map(Dataset::new).collect(),
            job: job.as_ref().map(|job| Workload::new(job, gpu_model)),
            lease: lease.as_ref().map(|lease| Workload::new(lease, gpu_model)),
            models: models.iter().map(Model::new).collect(),
            month,
            principal: input.principal.as_ref().map(Principal::new),
            priority_class: input.priority_class.into(),
            tenant: Tenant::new(&input.tenant),
            time: input.time,
        }
    }
}

fn texts(ids: &[Id]) -> Vec<&str> {
    ids.iter().map(Id::as_str).collect()
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Workload<'a> {
    #[component(name = "checkpoint-jurisdictions")]
    checkpoint_jurisdictions: Vec<&'a str>,
    #[component(name = "duration-seconds")]
    duration_seconds: u64,
    #[component(name = "egress-bytes")]
    egress_bytes: u64,
    #[component(name = "egress-jurisdictions")]
    egress_jurisdictions: Vec<&'a str>,
    extends: Option<Extends<'a>>,
    #[component(name = "fabric-gbps")]
    fabric_gbps: u32,
    #[component(name = "gpu-count")]
    gpu_count: u32,
    #[component(name = "gpu-milli")]
    gpu_milli: u32,
    #[component(name = "gpu-model")]
    gpu_model: &'a str,
    #[component(name = "gpu-models")]
    gpu_models: Vec<&'a str>,
    #[component(name = "gpu-seconds")]
    gpu_seconds: u64,
    #[component(name = "isolation-level")]
    isolation_level: IsolationLevel,
    #[component(name = "lease-id")]
    lease_id: Option<&'a str>,
    #[component(name = "may-preempt")]
    may_preempt: bool,
    #[component(name = "milli-gpus")]
    milli_gpus: u64,
    #[component(name = "model-use")]
    model_use: Option<ModelUse>,
    start: u64,
    #[component(name = "storage-io-bytes")]
    storage_io_bytes: u64,
}

impl<'a> Workload<'a> {
    fn new(workload: &'a input::Workload, gpu_model: &'a Id) -> Self {
        Self {
            checkpoint_jurisdictions: texts(&workload.checkpoint_jurisdictions),
            duration_seconds: workload.duration_seconds,
            fabric_gbps: workload.fabric_gbps,
            gpu_count: workload.gpu_count,
            gpu_milli: workload.gpu_milli,
            gpu_model: gpu_model.as_str(),
            gpu_models: texts(&workload.gpu_models),
            gpu_seconds: workload.gpu_seconds,
            isolation_level: workload.isolation_level.into(),
            may_preempt: workload.may_preempt,
            milli_gpus: workload.milli_gpus,
            start: workload.start,
            extends: workload.extends.as_ref().map(|extends| Extends {
                end: extends.end,
                reservation_id: extends.reservation_id.as_str(),
                start: extends.start,
            }),
            lease_id: workload.lease_id.as_ref().map(Id::as_str),
            egress_bytes: workload.egress_bytes,
            egress_jurisdictions: texts(&workload.egress_jurisdictions),
            model_use: workload.model_use.map(Into::into),
            storage_io_bytes: workload.storage_io_bytes,
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Extends<'a> {
    end: u64,
    #[component(name = "reservation-id")]
    reservation_id: &'a str,
    start: u64,
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Principal<'a> {
    groups: Vec<&'a str>,
    issuer: &'a str,
    #[component(name = "subject-commitment")]
    subject_commitment: &'a str,
}

impl<'a> Principal<'a> {
    fn new(principal: &'a input::Principal) -> Self {
        Self {
            groups: texts(&principal.groups),
            issuer: &principal.issuer,
            subject_commitment: &principal.subject_commitment,
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Cluster<'a> {
    attestations: Vec<Attestation<'a>>,
    #[component(name = "fabric-gbps")]
    fabric_gbps: u64,
    #[component(name = "fabric-kind")]
    fabric_kind: FabricKind,
    gpus: Vec<GpuPool<'a>>,
    id: &'a str,
    #[component(name = "isolation-levels")]
    isolation_levels: Vec<IsolationLevel>,
    jurisdiction: &'a str,
}

impl<'a> Cluster<'a> {
    fn new(cluster: &'a input::Cluster) -> Self {
        Self {
            attestations: cluster.attestations.iter().map(Attestation::new).collect(),
            fabric_gbps: cluster.fabric_gbps,
            fabric_kind: cluster.fabric_kind.into(),
            gpus: cluster.gpus.iter().map(GpuPool::new).collect(),
            id: cluster.id.as_str(),
            isolation_levels: cluster
                .isolation_levels
                .iter()
                .map(|level| (*level).into())
                .collect(),
            jurisdiction: cluster.jurisdiction.as_str(),
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct GpuPool<'a> {
    count: u32,
    #[component(name = "gpus-per-host")]
    gpus_per_host: u32,
    model: &'a str,
    #[component(name = "partition-modes")]
    partition_modes: Vec<PartitionMode>,
    #[component(name = "safety-buffer")]
    safety_buffer: u32,
}

impl<'a> GpuPool<'a> {
    fn new(pool: &'a input::GpuPool) -> Self {
        Self {
            count: pool.count,
            gpus_per_host: pool.gpus_per_host,
            model: pool.model.as_str(),
            partition_modes: pool.partition_modes.iter().map(|mode| (*mode).into()).collect(),
            safety_buffer: pool.safety_buffer,
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Attestation<'a> {
    framework: &'a str,
    #[component(name = "valid-from")]
    valid_from: u64,
    #[component(name = "valid-until")]
    valid_until: u64,
}

impl<'a> Attestation<'a> {
    fn new(attestation: &'a input::Attestation) -> Self {
        Self {
            framework: attestation.framework.as_str(),
            valid_from: attestation.valid_from,
            valid_until: attestation.valid_until,
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Dataset<'a> {
    classification: Classification,
    id: &'a str,
    jurisdictions: Vec<&'a str>,
    owner: &'a str,
    personal: bool,
    readers: Vec<&'a str>,
}

impl<'a> Dataset<'a> {
    fn new(dataset: &'a input::Dataset) -> Self {
        Self {
            classification: dataset.classification.into(),
            id: dataset.id.as_str(),
            jurisdictions: texts(&dataset.jurisdictions),
            owner: dataset.owner.as_str(),
            personal: dataset.personal,
            readers: texts(&dataset.readers),
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Model<'a> {
    classification: Classification,
    id: &'a str,
    owner: &'a str,
    readers: Vec<&'a str>,
}

impl<'a> Model<'a> {
    fn new(model: &'a input::Model) -> Self {
        Self {
            classification: model.classification.into(),
            id: model.id.as_str(),
            owner: model.owner.as_str(),
            readers: texts(&model.readers),
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Licence<'a> {
    model: &'a str,
    uses: Vec<ModelUse>,
    #[component(name = "valid-from")]
    valid_from: u64,
    #[component(name = "valid-until")]
    valid_until: u64,
}

impl<'a> Licence<'a> {
    fn new(licence: &'a input::Licence) -> Self {
        Self {
            model: licence.model.as_str(),
            uses: licence.uses.iter().map(|one| (*one).into()).collect(),
            valid_from: licence.valid_from,
            valid_until: licence.valid_until,
        }
    }
}

#[derive(Debug, ComponentType, Lower)]
#[component(record)]
pub(super) struct Tenant<'a> {
    #[component(name = "allowed-jurisdictions")]
    allowed_jurisdictions: Vec<&'a str>,
    attestations: Vec<Attestation<'a>>,
    id: &'a str,
    kind: TenantKind,
    licences: Vec<Licence<'a>>,
    #[component(name = "licensed-models")]
    licensed_models: Vec<&'a str>,
    #[component(name = "min-isolation")]
    min_isolation: IsolationLevel,
    #[component(name = "priority-classes")]
    priority_classes: Vec<PriorityClass>,
    seat: Option<&'a str>,
    sla: Option<&'a str>,
}

impl<'a> Tenant<'a> {
    fn new(tenant: &'a input::Tenant) -> Self {
        Self {
            allowed_jurisdictions: texts(&tenant.allowed_jurisdictions),
            attestations: tenant.attestations.iter().map(Attestation::new).collect(),
            id: tenant.id.as_str(),
            kind: tenant.kind.into(),
            licences: tenant.licences.iter().map(Licence::new).collect(),
            licensed_models: texts(&tenant.licensed_models),
            min_isolation: tenant.min_isolation.into(),
            priority_classes: tenant.priority_classes.iter().map(|class| (*class).into()).collect(),
            seat: tenant.seat.as_ref().map(Id::as_str),
            sla: tenant.sla.as_ref().map(Id::as_str),
        }
    }
}

/// `answer`: what a policy says.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(super) enum Answer {
    #[component(name = "decided")]
    Decided(Decided),
    #[component(name = "not-applicable")]
    NotApplicable,
    #[component(name = "failed")]
    Failed(String),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Decided {
    denials: Vec<Denial>,
    warnings: Vec<Warning>,
    obligations: Vec<Obligation>,
    claims: Vec<Claim>,
    preemption: Option<PreemptionRule>,
    terms: Option<SlaTerms>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Denial {
    code: String,
    message: String,
    field: Option<String>,
    hint: Option<String>,
    retry: bool,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Warning {
    code: String,
    message: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Obligation {
    id: String,
    params: Vec<(String, String)>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct Claim {
    account: String,
    amount: u64,
    limit: Option<u64>,
    code: Option<String>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct PreemptionRule {
    #[component(name = "victim-classes")]
    victim_classes: Vec<PriorityClass>,
    #[component(name = "grace-seconds")]
    grace_seconds: u32,
    #[component(name = "min-runtime-seconds")]
    min_runtime_seconds: u32,
    #[component(name = "max-victims")]
    max_victims: u32,
    #[component(name = "protected-tenants")]
    protected_tenants: Vec<String>,
    #[component(name = "cool-down-seconds")]
    cool_down_seconds: u32,
    #[component(name = "max-victims-per-tenant")]
    max_victims_per_tenant: Option<u32>,
}

/// `sla-terms`: what the request is promised should it be displaced.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct SlaTerms {
    #[component(name = "min-runtime-seconds")]
    min_runtime_seconds: u32,
    #[component(name = "notice-seconds")]
    notice_seconds: u32,
}

impl From<Decided> for RawDecided {
    fn from(decided: Decided) -> Self {
        let Decided { denials, warnings, obligations, claims, preemption, terms } = decided;
        Self {
            denials: denials.into_iter().map(RawDenial::from).collect(),
            warnings: warnings
                .into_iter()
                .map(|Warning { code, message }| RawWarning { code, message })
                .collect(),
            obligations: obligations
                .into_iter()
                .map(|Obligation { id, params }| RawObligation { id, params })
                .collect(),
            claims: claims.into_iter().map(RawClaim::from).collect(),
            preemption: preemption.map(RawRule::from),
            terms: terms.map(|terms| placet_core::SlaTerms {
                min_runtime_seconds: terms.min_runtime_seconds,
                notice_seconds: terms.notice_seconds,
            }),
        }
    }
}

impl From<Denial> for RawDenial {
    fn from(denial: Denial) -> Self {
        let Denial { code, message, field, hint, retry } = denial;
        Self { code, message, field, hint, retry }
    }
}

impl From<Claim> for RawClaim {
    fn from(claim: Claim) -> Self {
        let Claim { account, amount, limit, code } = claim;
        Self { account, amount, limit, code }
    }
}

impl From<PreemptionRule> for RawRule {
    fn from(rule: PreemptionRule) -> Self {
        let PreemptionRule { victim_classes, grace_seconds, min_runtime_seconds, .. } = rule;
        Self {
            cool_down_seconds: rule.cool_down_seconds,
            grace_seconds,
            max_victims: rule.max_victims,
            max_victims_per_tenant: rule.max_victims_per_tenant,
            min_runtime_seconds,
            protected_tenants: rule.protected_tenants,
            victim_classes: victim_classes.into_iter().map(Into::into).collect(),
        }
    }
}
