//! Reads requests from JSON, with what the server's conversion does: defaults, and nothing unknown.

use placet_core::{
    AdmissionRequest, Extends, Id, IsolationLevel, ModelUse, Principal, PriorityClass, Subject,
    Workload,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    request_id: Id,
    tenant_id: Id,
    principal: Option<Who>,
    priority_class: PriorityClass,
    lease: Option<Work>,
    job: Option<Work>,
    extends: Option<Extends>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    issuer: String,
    subject: String,
    #[serde(default)]
    groups: Vec<Id>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Work {
    cluster_id: Id,
    gpu_count: u32,
    duration_seconds: u64,
    isolation_level: IsolationLevel,
    gpu_models: Vec<Id>,
    #[serde(default)]
    gpu_milli: u32,
    #[serde(default)]
    fabric_gbps: u32,
    #[serde(default)]
    dataset_ids: Vec<Id>,
    #[serde(default)]
    model_ids: Vec<Id>,
    #[serde(default)]
    checkpoint_jurisdictions: Vec<Id>,
    #[serde(default)]
    may_preempt: bool,
    #[serde(default)]
    start: u64,
    #[serde(default)]
    lease_id: Option<Id>,
    model_use: Option<ModelUse>,
    #[serde(default)]
    egress_jurisdictions: Vec<Id>,
    #[serde(default)]
    egress_bytes: u64,
    #[serde(default)]
    storage_io_bytes: u64,
}

impl From<Work> for Workload {
    fn from(work: Work) -> Self {
        Self {
            checkpoint_jurisdictions: work.checkpoint_jurisdictions,
            cluster_id: work.cluster_id,
            dataset_ids: work.dataset_ids,
            duration_seconds: work.duration_seconds,
            fabric_gbps: work.fabric_gbps,
            gpu_count: work.gpu_count,
            gpu_milli: if work.gpu_milli == 0 { 1_000 } else { work.gpu_milli },
            gpu_models: work.gpu_models,
            isolation_level: work.isolation_level,
            lease_id: work.lease_id,
            may_preempt: work.may_preempt,
            model_ids: work.model_ids,
            start: Some(work.start).filter(|start| *start > 0),
            model_use: work.model_use,
            egress_jurisdictions: work.egress_jurisdictions,
            egress_bytes: work.egress_bytes,
            storage_io_bytes: work.storage_io_bytes,
        }
    }
}

/// A request from its JSON form.
pub(crate) fn convert(json: &Value) -> Result<AdmissionRequest, String> {
    let request = Request::deserialize(json).map_err(|error| error.to_string())?;
    let subject = match (request.lease, request.job) {
        (Some(lease), None) => Subject::Lease(lease.into()),
        (None, Some(job)) => Subject::Job(job.into()),
        _ => return Err("give a lease or a job".into()),
    };
    let mut subject = subject;
    if let (Some(extends), Subject::Lease(work) | Subject::Job(work)) =
        (&request.extends, &mut subject)
    {
        work.start = Some(extends.end);
    }
    Ok(AdmissionRequest {
        extends: request.extends,
        gang: None,
        principal: request.principal.map(|who| Principal {
            groups: who.groups,
            issuer: who.issuer,
            subject: who.subject,
        }),
        priority_class: request.priority_class,
        request_id: request.request_id,
        subject,
        tenant_id: request.tenant_id,
        waivers: Vec::new(),
    })
}
