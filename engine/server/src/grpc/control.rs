//! The service for operators: what is active, and having it read again.

use std::collections::BTreeSet;

use placet_core::{Digest, FreezeClaims, Id, PriorityClass};
use placet_proto::FieldError;
use placet_proto::control::v1 as proto;
use placet_proto::control::v1::control_service_server::ControlService;
use tonic::{Request, Response, Status};

use super::caller::{caller, operator};
use crate::activation::{ActivateError, ActiveSource, Source, message_and_hint};
use crate::admission::Admission;
use crate::erase::{Erased, Person};
use crate::error::AdmitError;
use crate::sequencer::Freeze;

/// Largest request in bytes: a signed order of 4,096 with what stands around it.
pub(super) const MAX_CONTROL_BYTES: usize = 8 * 1024;

/// The control service over one decision point.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) admission: Admission,
    pub(super) operators: std::sync::Arc<[Id]>,
}

#[tonic::async_trait]
impl ControlService for Control {
    async fn activate(
        &self,
        request: Request<proto::ActivateRequest>,
    ) -> Result<Response<proto::ActivateResponse>, Status> {
        operator(&request, &self.operators)?;
        let refused = |error: AdmitError| {
            error.log();
            error.to_status()
        };
        let (sources, expected) =
            asked(&request.into_inner()).map_err(|error| refused(AdmitError::Invalid(error)))?;
        match self.admission.activate(&sources, expected).await {
            Ok(active) => {
                let active = active.into_iter().map(shown).collect();
                Ok(Response::new(proto::ActivateResponse { active }))
            }
            Err(error) => Err(refused(error.into())),
        }
    }

    async fn erase_personal(
        &self,
        request: Request<proto::ErasePersonalRequest>,
    ) -> Result<Response<proto::ErasePersonalResponse>, Status> {
        let caller = operator(&request, &self.operators)?;
        let refused = |error: AdmitError| {
            error.log();
            error.to_status()
        };
        let proto::ErasePersonalRequest { subject, tenant_id, dry_run } = request.into_inner();
        let person = Person::new(&subject, &tenant_id)
            .map_err(|error| refused(AdmitError::Invalid(error)))?;
        let erased = self.admission.erase_personal(&caller, &person, dry_run).await;
        let Erased { decisions, size, is_pending } = erased.map_err(refused)?;
        let pending = is_pending;
        Ok(Response::new(proto::ErasePersonalResponse { decisions, size, pending }))
    }

    async fn freeze(
        &self,
        request: Request<proto::FreezeRequest>,
    ) -> Result<Response<proto::FreezeResponse>, Status> {
        let caller = operator(&request, &self.operators)?;
        let frozen = self.admission.freeze(&caller, request.into_inner().token).await;
        let frozen = frozen.map_err(|error| refused(&error))?;
        Ok(Response::new(proto::FreezeResponse { freeze: Some(frozen_as(&frozen)) }))
    }

    async fn thaw(
        &self,
        request: Request<proto::ThawRequest>,
    ) -> Result<Response<proto::ThawResponse>, Status> {
        let caller = operator(&request, &self.operators)?;
        let lifted = self.admission.thaw(&caller, request.into_inner().token).await;
        let lifted = lifted.map_err(|error| refused(&error))?;
        Ok(Response::new(proto::ThawResponse { freeze: Some(frozen_as(&lifted)) }))
    }

    async fn list_freezes(
        &self,
        request: Request<proto::ListFreezesRequest>,
    ) -> Result<Response<proto::ListFreezesResponse>, Status> {
        caller(&request)?;
        let freezes = self.admission.freezes();
        let freezes = freezes.standing.values().map(frozen_as).collect();
        Ok(Response::new(proto::ListFreezesResponse { freezes }))
    }

    async fn get_active(
        &self,
        request: Request<proto::GetActiveRequest>,
    ) -> Result<Response<proto::GetActiveResponse>, Status> {
        caller(&request)?;
        let active = self.admission.active().into_iter().map(shown).collect();
        Ok(Response::new(proto::GetActiveResponse { active }))
    }
}

/// An error at the edge: logged once, and told.
fn refused(error: &AdmitError) -> Status {
    error.log();
    error.to_status()
}

/// A freeze, as the contract shows it.
fn frozen_as(freeze: &Freeze) -> proto::Frozen {
    let FreezeClaims { by, jti, reason, scope, .. } = &freeze.claims;
    let names = |ids: &BTreeSet<Id>| ids.iter().map(ToString::to_string).collect();
    let class = |class: &PriorityClass| match class {
        PriorityClass::InternalResearch => "INTERNAL_RESEARCH".to_owned(),
        PriorityClass::ExternalCommercial => "EXTERNAL_COMMERCIAL".to_owned(),
    };
    proto::Frozen {
        name: jti.to_string(),
        by: by.to_string(),
        reason: reason.clone(),
        since: freeze.since,
        everything: scope.everything,
        clusters: names(&scope.clusters),
        tenants: names(&scope.tenants),
        kinds: scope.kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        priority_classes: scope.priority_classes.iter().map(class).collect(),
    }
}

/// The sources asked for, in the order in which they are read.
fn asked(request: &proto::ActivateRequest) -> Result<(Vec<Source>, Option<Digest>), FieldError> {
    let wrong = |message: &str| {
        let hint = "name SOURCE_BUNDLE, SOURCE_FACTS, each once, or nothing for both";
        FieldError::new("OUT_OF_BOUNDS", message, hint).inside("sources")
    };
    let mut sources = Vec::new();
    for source in request.sources() {
        let source = match source {
            proto::Source::Bundle => Source::Bundle,
            proto::Source::Facts => Source::Facts,
            proto::Source::Unspecified => return Err(wrong("names no source")),
        };
        if sources.contains(&source) {
            return Err(wrong("names one source twice"));
        }
        sources.push(source);
    }
    if sources.is_empty() {
        sources.extend(Source::ALL);
    }
    sources.sort();
    let expected = match request.expected_digest.as_str() {
        "" => None,
        text => Some(digest(text, &sources)?),
    };
    Ok((sources, expected))
}

fn digest(text: &str, sources: &[Source]) -> Result<Digest, FieldError> {
    let wrong = |message: &str, hint| {
        FieldError::new("OUT_OF_BOUNDS", message, hint).inside("expected_digest")
    };
    if sources.len() != 1 {
        return Err(wrong("is given for two sources", "name the one that must have it"));
    }
    Digest::try_from(text.to_owned()).map_err(|_not_one| {
        wrong("is no digest", "give `sha256:` and 64 hexadecimal digits in lower case")
    })
}

fn shown(active: ActiveSource) -> proto::Active {
    let ActiveSource { source, digest, revision, last } = active;
    let source = match source {
        Source::Bundle => proto::Source::Bundle,
        Source::Facts => proto::Source::Facts,
    };
    proto::Active {
        source: source.into(),
        digest: digest.to_string(),
        revision,
        last_attempt: Some(proto::Attempt {
            time: last.time,
            changed: last.changed,
            error: last.error.unwrap_or_default(),
            took_micros: u64::try_from(last.took.as_micros()).unwrap_or(u64::MAX),
            cases: u64::try_from(last.cases).unwrap_or(u64::MAX),
        }),
    }
}

impl From<ActivateError> for AdmitError {
    fn from(error: ActivateError) -> Self {
        match error {
            ActivateError::Refused { refused, reason } => {
                let code = match refused {
                    Source::Bundle => "BUNDLE_REFUSED",
                    Source::Facts => "FACTS_REFUSED",
                };
                let (message, hint) = message_and_hint(&reason);
                let message = format!("leaves everything as it was: {message}");
                Self::FailedPrecondition(FieldError::new(code, message, hint))
            }
            ActivateError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sources: &[proto::Source], expected: &str) -> proto::ActivateRequest {
        proto::ActivateRequest {
            sources: sources.iter().map(|source| (*source).into()).collect(),
            expected_digest: expected.to_owned(),
        }
    }

    #[test]
    fn what_is_asked_is_read_strictly() {
        let none = asked(&request(&[], "")).unwrap();
        assert_eq!(none, (vec![Source::Bundle, Source::Facts], None));
        let both = asked(&request(&[proto::Source::Facts, proto::Source::Bundle], "")).unwrap();
        assert_eq!(both.0, [Source::Bundle, Source::Facts]);
        let digest = Digest::of(b"x");
        let one = asked(&request(&[proto::Source::Facts], &digest.to_string())).unwrap();
        assert_eq!(one, (vec![Source::Facts], Some(digest)));
        for (sources, expected, field) in [
            (vec![proto::Source::Unspecified], "", "sources"),
            (vec![proto::Source::Facts, proto::Source::Facts], "", "sources"),
            (vec![proto::Source::Facts], "sha256:1", "expected_digest"),
            (vec![], &*digest.to_string(), "expected_digest"),
        ] {
            let error = asked(&request(&sources, expected)).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
