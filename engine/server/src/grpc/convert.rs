//! From the contract's messages to the core's types: the only place that knows both, and where
//! every bound of `admission.proto` is checked.

use std::collections::HashSet;

use placet_core::{
    AdmissionRequest, Extends, GangPlace, Id, IsolationLevel, MAX_AMOUNT, MAX_APPROVAL_BYTES,
    MAX_DURATION_SECONDS, MAX_FABRIC_GBPS, MAX_GANG, MAX_GPU_COUNT, MAX_GPU_MODELS, MAX_GROUPS,
    MAX_PRINCIPAL_BYTES, MAX_REFERENCES, MAX_WAIVERS, MILLI_PER_GPU, ModelUse, NameError,
    Principal, PriorityClass, ReservationState, Subject, Workload,
};
use placet_proto::admission::v1 as proto;
use placet_proto::{FieldError, json};

use crate::clock::MAX_TIME;
pub use crate::sequencer::Target;
pub use change::{change, change_kind};
pub use event::{event_kind, event_subject};
pub use held::{account_use, reservation};

mod change;
mod event;
mod held;

#[cfg(test)]
mod tests;

/// A confirm or a release after decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettleRequest {
    /// Echoed in the answer.
    pub request_id: Id,
    /// The tenant that holds the reservation.
    pub tenant_id: Id,
    /// Which reservation.
    pub target: Target,
    /// The fencing epoch in which its holder believes it to be: 1..=2^53-1.
    pub epoch: u64,
}

/// What one event of a stream, or one line of a JSONL file, asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Decide.
    Admit(Box<AdmissionRequest>),
    /// Make a reservation active.
    Confirm(SettleRequest),
    /// End a reservation.
    Release(SettleRequest),
}

impl Ask {
    /// The id that the answer echoes.
    #[must_use]
    pub fn request_id(&self) -> &Id {
        match self {
            Self::Admit(request) => &request.request_id,
            Self::Confirm(request) | Self::Release(request) => &request.request_id,
        }
    }
}

/// One event of a stream, or one line of a JSONL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedAsk {
    /// What is asked.
    pub ask: Ask,
    /// When, in seconds since 1970-01-01 UTC, if the event says so: 0..=253,402,300,799 (the year
    /// 9999).
    pub time: Option<u64>,
}

/// Reads one line of a JSONL file: `{"admit": {...}, "time": 1760000000}`, or `confirm` or
/// `release`.
///
/// # Errors
/// [`FieldError`]: the text is no such JSON, or a bound of the contract is broken.
pub fn parse_event(text: &str) -> Result<TimedAsk, FieldError> {
    timed_ask(json::from_json::<proto::StreamRequest>(text)?)
}

/// Reads the JSON form of an `AdmitRequest`.
///
/// # Errors
/// [`FieldError`]: the text is no such JSON, or a bound of the contract is broken.
pub fn parse_admit(text: &str) -> Result<AdmissionRequest, FieldError> {
    admission_request(json::from_json::<proto::AdmitRequest>(text)?)
}

/// Checks one event. Paths start within what is asked: `lease.gpu_count`, not
/// `admit.lease.gpu_count`.
///
/// # Errors
/// [`FieldError`] with code `MISSING_FIELD`, `OUT_OF_BOUNDS`, `BAD_NAME`, `DUPLICATE`, `TOO_MANY`,
/// `BAD_TEXT` or `UNKNOWN_ENUM_VALUE`.
pub fn timed_ask(event: proto::StreamRequest) -> Result<TimedAsk, FieldError> {
    use proto::stream_request::Event;
    let time = event.time.map(|time| within("time", time, 0, MAX_TIME)).transpose()?;
    let ask = match event.event {
        None => return Err(missing("event", "give one of `admit`, `confirm` and `release`")),
        Some(Event::Admit(request)) => Ask::Admit(Box::new(admission_request(request)?)),
        Some(Event::Confirm(request)) => Ask::Confirm(confirm_request(request)?),
        Some(Event::Release(request)) => Ask::Release(release_request(request)?),
    };
    Ok(TimedAsk { ask, time })
}

/// Checks an admission.
///
/// # Errors
/// As [`timed_ask`].
pub fn admission_request(request: proto::AdmitRequest) -> Result<AdmissionRequest, FieldError> {
    use proto::admit_request::Subject as Asked;
    let priority_class = request.priority_class();
    let extends = request.extends.map(|it| extends(it).map_err(|error| error.inside("extends")));
    let mut admission = AdmissionRequest {
        extends: extends.transpose()?,
        gang: None,
        request_id: id("request_id", request.request_id)?,
        tenant_id: id("tenant_id", request.tenant_id)?,
        waivers: waivers(request.waivers)?,
        principal: request
            .principal
            .map(|it| principal(it).map_err(|error| error.inside("principal")))
            .transpose()?,
        priority_class: match priority_class {
            proto::PriorityClass::InternalResearch => PriorityClass::InternalResearch,
            proto::PriorityClass::ExternalCommercial => PriorityClass::ExternalCommercial,
            proto::PriorityClass::Unspecified => {
                let known = [1, 2].map(proto::PriorityClass::try_from);
                let known = known.iter().flatten().map(|it| it.as_str_name());
                return Err(enumerated("priority_class", request.priority_class, known));
            }
        },
        subject: match request.subject {
            None => return Err(missing("subject", "give one of `lease` and `job`")),
            Some(Asked::Lease(lease)) => {
                Subject::Lease(workload(lease).map_err(|error| error.inside("lease"))?)
            }
            Some(Asked::Job(job)) => {
                Subject::Job(job_workload(job).map_err(|error| error.inside("job"))?)
            }
        },
    };
    if let Some(extends) = &admission.extends {
        let kind = admission.subject.kind().as_str();
        let (Subject::Lease(workload) | Subject::Job(workload)) = &mut admission.subject;
        go_on(workload, extends).map_err(|error| error.inside(kind))?;
    }
    Ok(admission)
}

/// Checks that texts may be waivers: what is signed in them is looked at when they are decided on.
fn waivers(texts: Vec<String>) -> Result<Vec<String>, FieldError> {
    if texts.len() > MAX_WAIVERS {
        let message = format!("has {} elements", texts.len());
        let hint = format!("give at most {MAX_WAIVERS}");
        return Err(FieldError::new("TOO_MANY", message, hint).inside("waivers"));
    }
    for (index, text) in texts.iter().enumerate() {
        let wrong = |code, message: String, hint: &str| {
            Err(FieldError::new(code, message, hint).inside(&format!("waivers[{index}]")))
        };
        let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
        let is_part = |part: &str| !part.is_empty() && part.chars().all(allowed);
        if text.len() > MAX_APPROVAL_BYTES {
            let message = format!("has {} bytes, at most {MAX_APPROVAL_BYTES}", text.len());
            return wrong("BAD_TEXT", message, "give it as `placet waiver sign` wrote it");
        }
        if text.split('.').count() != 3 || !text.split('.').all(is_part) {
            let hint = "give it as `placet waiver sign` wrote it: three parts joined by dots";
            return wrong("BAD_TEXT", "is no compact JWS".to_owned(), hint);
        }
        if texts.iter().take(index).any(|before| before == text) {
            return wrong("DUPLICATE", "was given before".to_owned(), "give each once");
        }
    }
    Ok(texts)
}

/// Checks what is to go on.
fn extends(extends: proto::Extends) -> Result<Extends, FieldError> {
    let proto::Extends { reservation_id, epoch, start, end } = extends;
    Ok(Extends {
        reservation_id: id("reservation_id", reservation_id)?,
        epoch: within("epoch", epoch, 1, MAX_AMOUNT)?,
        start: within("start", start, 1, MAX_TIME)?,
        end: within("end", end, start.saturating_add(1), MAX_TIME)?,
    })
}

/// What is added begins where what is held ends, on the same GPUs.
fn go_on(workload: &mut Workload, extends: &Extends) -> Result<(), FieldError> {
    let wrong = |field: &str, message: &str, hint: &str| {
        Err(FieldError::new("OUT_OF_BOUNDS", message, hint).inside(field))
    };
    if workload.start.is_some() {
        let hint = "leave it out: what is added begins at the end of what is extended";
        return wrong("start", "is given for an extension", hint);
    }
    if workload.gpu_models.len() != 1 {
        let hint = "name the one that was granted";
        return wrong("gpu_models", "has several models for an extension", hint);
    }
    if workload.may_preempt {
        let hint = "leave it out: only what begins now displaces others";
        return wrong("may_preempt", "is true for an extension", hint);
    }
    workload.start = Some(extends.end);
    Ok(())
}

/// Checks the members of a gang, and gives each its place in it.
///
/// # Errors
/// As [`timed_ask`], with paths such as `members[1].lease.gpu_count`.
///
/// # Panics
/// Never: the number of members is bounded.
pub fn gang_request(gang: proto::AdmitGangRequest) -> Result<Vec<AdmissionRequest>, FieldError> {
    let name = id("gang_id", gang.gang_id)?;
    let size = within("members", gang.members.len(), 2, MAX_GANG);
    let size = size.map_err(|error| FieldError { code: "TOO_MANY", ..error })?;
    let size = u32::try_from(size).expect("a gang has at most 32 members");
    let mut members = Vec::with_capacity(gang.members.len());
    let mut seen = HashSet::new();
    for (index, member) in (0..size).zip(gang.members) {
        let at = |error: FieldError| error.inside(&format!("members[{index}]"));
        let mut member = admission_request(member).map_err(at)?;
        if member.extends.is_some() {
            let hint = "ask for it apart";
            let error = FieldError::new("OUT_OF_BOUNDS", "is given for a member of a gang", hint);
            return Err(at(error.inside("extends")));
        }
        if !seen.insert(member.request_id.clone()) {
            let error = FieldError::new("DUPLICATE", "was given before", "name each once");
            return Err(at(error.inside("request_id")));
        }
        member.gang = Some(GangPlace { id: name.clone(), index, size });
        members.push(member);
    }
    Ok(members)
}

/// Checks a question without consequences.
///
/// # Errors
/// As [`timed_ask`].
pub fn explain_request(request: proto::ExplainRequest) -> Result<AdmissionRequest, FieldError> {
    let hint = "give the request that would be made";
    admission_request(request.admit.ok_or_else(|| missing("admit", hint))?)
}

/// Checks a confirm.
///
/// # Errors
/// As [`timed_ask`].
pub fn confirm_request(request: proto::ConfirmRequest) -> Result<SettleRequest, FieldError> {
    settle_request(request.request_id, request.tenant_id, request.reservation)
}

/// Checks a release.
///
/// # Errors
/// As [`timed_ask`].
pub fn release_request(request: proto::ReleaseRequest) -> Result<SettleRequest, FieldError> {
    settle_request(request.request_id, request.tenant_id, request.reservation)
}

/// A reservation's state as the contract writes it; none means that there was nothing to settle.
pub(crate) fn state(state: Option<ReservationState>) -> proto::ReservationState {
    match state {
        None => proto::ReservationState::NotReserved,
        Some(ReservationState::Reserved) => proto::ReservationState::Reserved,
        Some(ReservationState::Active) => proto::ReservationState::Active,
        Some(ReservationState::Released) => proto::ReservationState::Released,
        Some(ReservationState::Expired) => proto::ReservationState::Expired,
        Some(ReservationState::Revoked) => proto::ReservationState::Revoked,
    }
}

/// An effect as the contract writes it.
pub(crate) fn effect(effect: placet_core::Effect) -> proto::Effect {
    match effect {
        placet_core::Effect::Permit => proto::Effect::Permit,
        placet_core::Effect::Deny => proto::Effect::Deny,
    }
}

fn settle_request(
    request_id: String,
    tenant_id: String,
    reservation: Option<proto::ReservationRef>,
) -> Result<SettleRequest, FieldError> {
    use proto::reservation_ref::Target as Named;
    let request_id = id("request_id", request_id)?;
    let tenant_id = id("tenant_id", tenant_id)?;
    let reservation =
        reservation.ok_or_else(|| missing("reservation", "name the reservation and its epoch"))?;
    let inside = |error: FieldError| error.inside("reservation");
    let target = match reservation.target {
        None => {
            let hint = "give one of `reservation_id` and `admit_request_id`";
            return Err(inside(missing("target", hint)));
        }
        Some(Named::ReservationId(name)) => id("reservation_id", name).map(Target::ById),
        Some(Named::AdmitRequestId(name)) => id("admit_request_id", name).map(Target::ByRequest),
    };
    let target = target.map_err(inside)?;
    let epoch = within("epoch", reservation.epoch, 1, MAX_AMOUNT).map_err(inside)?;
    Ok(SettleRequest { request_id, tenant_id, target, epoch })
}

/// The workload of a job: that of a lease, and the lease inside which it runs.
fn job_workload(job: proto::Job) -> Result<Workload, FieldError> {
    let proto::Job {
        cluster_id,
        gpu_count,
        duration_seconds,
        isolation_level,
        gpu_models,
        gpu_milli,
        fabric_gbps,
        dataset_ids,
        model_ids,
        checkpoint_jurisdictions,
        may_preempt,
        start,
        lease_id,
        model_use,
        egress_jurisdictions,
        egress_bytes,
        storage_io_bytes,
    } = job;
    let lease_id = Some(lease_id).filter(|name| !name.is_empty());
    let lease_id = lease_id.map(|name| id("lease_id", name)).transpose()?;
    let lease = proto::Lease {
        cluster_id,
        gpu_count,
        duration_seconds,
        isolation_level,
        gpu_models,
        gpu_milli,
        fabric_gbps,
        dataset_ids,
        model_ids,
        checkpoint_jurisdictions,
        may_preempt,
        start,
        model_use,
        egress_jurisdictions,
        egress_bytes,
        storage_io_bytes,
    };
    Ok(Workload { lease_id, ..workload(lease)? })
}

fn workload(lease: proto::Lease) -> Result<Workload, FieldError> {
    let isolation_level = isolation_level(&lease)?;
    let model_use = model_use(&lease)?;
    if lease.gpu_models.is_empty() {
        return Err(missing("gpu_models", "name 1 to 8 acceptable GPU models"));
    }
    // The contract's one default: nothing said means whole GPUs.
    let gpu_milli = if lease.gpu_milli == 0 { MILLI_PER_GPU } else { lease.gpu_milli };
    Ok(Workload {
        cluster_id: id("cluster_id", lease.cluster_id)?,
        gpu_count: within("gpu_count", lease.gpu_count, 1, MAX_GPU_COUNT)?,
        duration_seconds: within(
            "duration_seconds",
            lease.duration_seconds,
            1,
            MAX_DURATION_SECONDS,
        )?,
        isolation_level,
        lease_id: None,
        gpu_models: ids("gpu_models", lease.gpu_models, MAX_GPU_MODELS)?,
        gpu_milli: within("gpu_milli", gpu_milli, 1, MILLI_PER_GPU)?,
        fabric_gbps: within("fabric_gbps", lease.fabric_gbps, 0, MAX_FABRIC_GBPS)?,
        dataset_ids: ids("dataset_ids", lease.dataset_ids, MAX_REFERENCES)?,
        model_ids: ids("model_ids", lease.model_ids, MAX_REFERENCES)?,
        model_use,
        egress_bytes: within("egress_bytes", lease.egress_bytes, 0, MAX_AMOUNT)?,
        egress_jurisdictions: ids(
            "egress_jurisdictions",
            lease.egress_jurisdictions,
            MAX_REFERENCES,
        )?,
        storage_io_bytes: within("storage_io_bytes", lease.storage_io_bytes, 0, MAX_AMOUNT)?,
        checkpoint_jurisdictions: ids(
            "checkpoint_jurisdictions",
            lease.checkpoint_jurisdictions,
            MAX_REFERENCES,
        )?,
        may_preempt: lease.may_preempt,
        // 0 means from the decision on. Whether the start can be is decided, and logged.
        start: Some(within("start", lease.start, 0, MAX_TIME)?).filter(|start| *start > 0),
    })
}

fn isolation_level(lease: &proto::Lease) -> Result<IsolationLevel, FieldError> {
    Ok(match lease.isolation_level() {
        proto::IsolationLevel::Shared => IsolationLevel::Shared,
        proto::IsolationLevel::Partitioned => IsolationLevel::Partitioned,
        proto::IsolationLevel::Passthrough => IsolationLevel::Passthrough,
        proto::IsolationLevel::Dedicated => IsolationLevel::Dedicated,
        proto::IsolationLevel::Confidential => IsolationLevel::Confidential,
        proto::IsolationLevel::Unspecified => {
            let known = [1, 2, 3, 4, 5].map(proto::IsolationLevel::try_from);
            let known = known.iter().flatten().map(|it| it.as_str_name());
            return Err(enumerated("isolation_level", lease.isolation_level, known));
        }
    })
}

fn model_use(lease: &proto::Lease) -> Result<Option<ModelUse>, FieldError> {
    Ok(match proto::ModelUse::try_from(lease.model_use) {
        Ok(proto::ModelUse::Unspecified) => None,
        Ok(proto::ModelUse::Training) => Some(ModelUse::Training),
        Ok(proto::ModelUse::FineTuning) => Some(ModelUse::FineTuning),
        Ok(proto::ModelUse::Inference) => Some(ModelUse::Inference),
        Ok(proto::ModelUse::Evaluation) => Some(ModelUse::Evaluation),
        Err(_unknown) => {
            let known = [1, 2, 3, 4].map(proto::ModelUse::try_from);
            let known = known.iter().flatten().map(|it| it.as_str_name());
            return Err(enumerated("model_use", lease.model_use, known));
        }
    })
}

fn principal(principal: proto::Principal) -> Result<Principal, FieldError> {
    let proto::Principal { issuer, subject, groups } = principal;
    text("issuer", &issuer, "visible ASCII characters", |it| it.is_ascii_graphic())?;
    check_subject(&subject)?;
    Ok(Principal { issuer, subject, groups: ids("groups", groups, MAX_GROUPS)? })
}

/// Checks that a text can be somebody's name at their identity provider.
pub(crate) fn check_subject(subject: &str) -> Result<(), FieldError> {
    text("subject", subject, "bytes of text without control characters", |it| !it.is_control())
}

/// Checks one of a principal's texts.
fn text(
    field: &str,
    text: &str,
    rule: &str,
    allowed: impl Fn(char) -> bool,
) -> Result<(), FieldError> {
    let hint = format!("give 1 to {MAX_PRINCIPAL_BYTES} {rule}");
    if text.is_empty() {
        return Err(missing(field, hint));
    }
    let message = if text.len() > MAX_PRINCIPAL_BYTES {
        format!("has {} bytes", text.len())
    } else if let Some((at, _)) = text.char_indices().find(|(_, it)| !allowed(*it)) {
        format!("has a character at byte {at} that is not allowed")
    } else {
        return Ok(());
    };
    Err(FieldError::new("BAD_TEXT", message, hint).inside(field))
}

pub(crate) fn id(field: &str, text: String) -> Result<Id, FieldError> {
    Id::new(text).map_err(|error| match error {
        NameError::Empty => missing(field, "give an id of 1 to 128 characters"),
        broken => {
            let hint = "give 1 to 128 of A-Z a-z 0-9 . _ : @ -, the first a letter or a digit";
            FieldError::new("BAD_NAME", broken.to_string(), hint).inside(field)
        }
    })
}

fn ids(field: &str, texts: Vec<String>, max: usize) -> Result<Vec<Id>, FieldError> {
    if texts.len() > max {
        let message = format!("has {} elements", texts.len());
        let hint = format!("give at most {max}");
        return Err(FieldError::new("TOO_MANY", message, hint).inside(field));
    }
    let at = |at: usize| format!("{field}[{at}]");
    let ids = texts.into_iter().enumerate().map(|(index, text)| id(&at(index), text));
    let ids: Vec<Id> = ids.collect::<Result<_, _>>()?;
    let mut seen = HashSet::with_capacity(ids.len());
    match ids.iter().position(|it| !seen.insert(it)) {
        None => Ok(ids),
        Some(index) => {
            let error = FieldError::new("DUPLICATE", "was given before", "name each once");
            Err(error.inside(&at(index)))
        }
    }
}

fn within<N>(field: &str, value: N, least: N, most: N) -> Result<N, FieldError>
where
    N: PartialOrd + std::fmt::Display,
{
    if least <= value && value <= most {
        return Ok(value);
    }
    let hint = format!("give {least} to {most}");
    Err(FieldError::new("OUT_OF_BOUNDS", format!("is {value}"), hint).inside(field))
}

/// The error of an enum that was left out, or holds a value of a newer contract.
fn enumerated<'a>(field: &str, value: i32, known: impl Iterator<Item = &'a str>) -> FieldError {
    let hint = format!("give one of {}", known.collect::<Vec<_>>().join(", "));
    if value == 0 {
        return missing(field, hint);
    }
    FieldError::new("UNKNOWN_ENUM_VALUE", format!("has the unknown value {value}"), hint)
        .inside(field)
}

fn missing(field: &str, hint: impl Into<String>) -> FieldError {
    FieldError::new("MISSING_FIELD", "is missing", hint).inside(field)
}
