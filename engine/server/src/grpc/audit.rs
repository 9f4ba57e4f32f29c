//! The service for auditors: decisions, events and proofs, read past the writer, and what witnesses
//! say of the log; the same rule of who may ask as control.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{Stream, StreamExt as _};
use placet_core::{Cosignature, Event, Id, Leaf, MAX_WITNESSES};
use placet_proto::FieldError;
use placet_proto::audit::v1 as proto;
use placet_proto::audit::v1::audit_service_server::AuditService;
use placet_proto::audit::v1::get_decision_request::Decision as Named;
use placet_proto::audit::v1::get_receipt_request::Leaf as Wanted;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::operator;
use super::events::{Events, Filter};
use super::follow::{Course, Watchers, ahead, check_reached};
use crate::admission::Admission;
use crate::clock::Clock;
use crate::error::AdmitError;
use crate::log::{Checked, FileError, Files, check, read_claims};
use crate::name::decision_meant;
use crate::sequencer::{Cosigned, Published};
use crate::store::{Evidence, Personal, ReadError, Reader, StoredDecision};
use crate::workers::SUBJECT_PATH;

/// Largest request in bytes: six lists of 64 values, of at most 512 bytes each, and some more.
pub(super) const MAX_AUDIT_BYTES: usize = 256 * 1024;
/// Most lists and tails at once: what each has found and nobody has taken yet is held in memory,
/// leaves and all.
pub(super) const MAX_LISTENERS: usize = 16;
/// Longest wait for a checkpoint: several times the usual time between two of them.
const MAX_WAIT_SECONDS: u32 = 60;
/// Where an input holds the commitment to the personal value of a request, and the path under which
/// the value is kept.
const COMMITTED: (&str, &str) = ("/principal/subject_commitment", SUBJECT_PATH);

/// The audit service over one decision point.
#[derive(Debug, Clone)]
pub(super) struct Audit {
    pub(super) admission: Admission,
    pub(super) files: Files,
    pub(super) operators: Arc<[Id]>,
    /// True once the server stops.
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) watchers: Watchers,
}

type EventStream = Pin<Box<dyn Stream<Item = Result<proto::EventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AuditService for Audit {
    type ListEventsStream = EventStream;
    type TailStream = EventStream;

    async fn get_decision(
        &self,
        request: Request<proto::GetDecisionRequest>,
    ) -> Result<Response<proto::GetDecisionResponse>, Status> {
        operator(&request, &self.operators)?;
        let found = self.decision(request.into_inner()).await;
        found.map(Response::new).map_err(|error| self.refused(error))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        operator(&request, &self.operators)?;
        let listed = self.list(request.into_inner()).await;
        listed.map(Response::new).map_err(|error| self.refused(error))
    }

    async fn tail(
        &self,
        request: Request<proto::TailRequest>,
    ) -> Result<Response<EventStream>, Status> {
        operator(&request, &self.operators)?;
        let tail = self.follow(&request.into_inner());
        tail.map(Response::new).map_err(|error| self.refused(error))
    }

    async fn get_receipt(
        &self,
        request: Request<proto::GetReceiptRequest>,
    ) -> Result<Response<proto::GetReceiptResponse>, Status> {
        operator(&request, &self.operators)?;
        let receipt = self.receipt(request.into_inner()).await;
        receipt.map(Response::new).map_err(|error| self.refused(error))
    }

    async fn get_checkpoint(
        &self,
        request: Request<proto::GetCheckpointRequest>,
    ) -> Result<Response<proto::GetCheckpointResponse>, Status> {
        operator(&request, &self.operators)?;
        let found = self.checkpoint(request.into_inner().witnesses);
        let found = found.map_err(|error| self.refused(error))?;
        let (checkpoint, size) = (found.note.clone(), found.head.size);
        Ok(Response::new(proto::GetCheckpointResponse { checkpoint, size }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<proto::GetConsistencyProofRequest>,
    ) -> Result<Response<proto::GetConsistencyProofResponse>, Status> {
        operator(&request, &self.operators)?;
        let proof = self.consistency(request.into_inner()).await;
        proof.map(Response::new).map_err(|error| self.refused(error))
    }

    async fn add_cosignatures(
        &self,
        request: Request<proto::AddCosignaturesRequest>,
    ) -> Result<Response<proto::AddCosignaturesResponse>, Status> {
        operator(&request, &self.operators)?;
        let added = self.cosign(request.into_inner().note).await;
        added.map(Response::new).map_err(|error| self.refused(error))
    }
}

impl Audit {
    fn refused(&self, error: impl Into<AdmitError>) -> Status {
        let error = error.into();
        error.log();
        self.admission.failed(&error);
        error.to_status()
    }

    async fn decision(
        &self,
        request: proto::GetDecisionRequest,
    ) -> Result<proto::GetDecisionResponse, AdmitError> {
        let named = request
            .decision
            .ok_or_else(|| missing("names no decision", "give `id`, `position` or `request`"))?;
        let (wanted, field) = match named {
            Named::Id(text) => (WantedDecision::Name(named_decision(&text)?), "id"),
            Named::Position(position) => (WantedDecision::Position(position), "position"),
            Named::Request(request) => {
                let id = |text: String, field| {
                    let bad = |error: placet_core::NameError| {
                        let hint = "give it as the decision has it";
                        FieldError::new("BAD_NAME", error.to_string(), hint)
                            .inside(field)
                            .inside("request")
                    };
                    Id::new(text).map_err(bad)
                };
                let caller = id(request.caller, "caller")?;
                let request_id = id(request.request_id, "request_id")?;
                (WantedDecision::Request(caller, request_id), "request")
            }
        };
        let (reader, _news) = self.admission.log();
        let found = self.watchers.read(move || look_up(&reader, wanted)).await?;
        let kept = found.ok_or_else(|| no_such_decision(field))?;
        Ok(kept.into_response(request.with_evidence))
    }

    async fn list(&self, request: proto::ListEventsRequest) -> Result<EventStream, AdmitError> {
        let filter = Filter::read(&request.filter.unwrap_or_default())?;
        let (from, until) = (request.from_time, request.until_time);
        if until.is_some_and(|until| until <= from) {
            let until = until.unwrap_or_default();
            let message = format!("is {until}, not after `from_time`, which is {from}");
            let hint = "give the first second after the events that are wanted, or leave it out";
            let error = FieldError::new("OUT_OF_BOUNDS", message, hint).inside("until_time");
            return Err(error.into());
        }
        let (reader, news) = self.admission.log();
        let size = *news.size.borrow();
        let newest_first = request.newest_first;
        let (mut first, mut end) = (0, size);
        if let Some(position) = request.position {
            check_reached(position, size)?;
            // From the newest on, the position is the last one that is wanted.
            match newest_first {
                true => end = position.saturating_add(1).min(size),
                false => first = position,
            }
        }
        let searched = reader.clone();
        let (since, before) = self
            .watchers
            .read(move || {
                let since = if from == 0 { 0 } else { searched.first_since(from, size)? };
                let before = until.map(|until| searched.first_since(until, size)).transpose()?;
                Ok((since, before.unwrap_or(size)))
            })
            .await?;
        let (first, end) = (first.max(since), end.min(before));
        let course = match newest_first {
            true => Course::backward(first.min(end)..end),
            false => Course::forward(first..end.max(first)),
        };
        let events = Events { filter, newest_first };
        self.told((reader, news), events, course, (request.most > 0).then_some(request.most))
    }

    fn follow(&self, request: &proto::TailRequest) -> Result<EventStream, AdmitError> {
        let filter = Filter::read(&request.filter.clone().unwrap_or_default())?;
        let (reader, news) = self.admission.log();
        let size = *news.size.borrow();
        let position = request.position.unwrap_or(size);
        check_reached(position, size)?;
        let events = Events { filter, newest_first: false };
        self.told((reader, news), events, Course::following(position, size), None)
    }

    fn told(
        &self,
        log: (Reader, crate::sequencer::LogNews),
        events: Events,
        course: Course,
        most: Option<u64>,
    ) -> Result<EventStream, AdmitError> {
        let told = self.watchers.open(log, events, course, most, self.stopped.clone())?;
        let service = self.clone();
        Ok(Box::pin(told.map(move |told| told.map_err(|error| service.refused(error)))))
    }

    async fn receipt(
        &self,
        request: proto::GetReceiptRequest,
    ) -> Result<proto::GetReceiptResponse, AdmitError> {
        let seconds = request.wait_seconds;
        if seconds > MAX_WAIT_SECONDS {
            let message = format!("is {seconds}, at most {MAX_WAIT_SECONDS}");
            let error = FieldError::new("OUT_OF_BOUNDS", message, "wait for less, and ask again");
            return Err(error.inside("wait_seconds").into());
        }
        let witnesses = self.witnesses(request.witnesses)?;
        let (reader, news) = self.admission.log();
        let position = match request.leaf {
            None => return Err(missing("names no leaf", "give `id` or `position`").into()),
            Some(Wanted::Id(text)) => {
                let name = named_decision(&text)?;
                let found = self.watchers.read(move || reader.decision(&name)).await?;
                found.ok_or_else(|| no_such_decision("id"))?.position
            }
            Some(Wanted::Position(position)) => {
                let size = *news.size.borrow();
                if position >= size {
                    return Err(ahead(position, size));
                }
                position
            }
        };
        let within = Duration::from_secs(seconds.into());
        let size = position.saturating_add(1);
        let mut stopped = self.stopped.clone();
        let published = tokio::select! {
            biased;
            // A sender that is gone means the same as one that says stop.
            _ = stopped.wait_for(|stop| *stop) => return Err(AdmitError::stopping()),
            published = self.files.reaching(size, witnesses, within) => published,
        };
        let published = published.ok_or_else(|| never_cosigned(witnesses))?;
        if published.head.size < size {
            return Err(not_yet(position, published.head.size, witnesses));
        }
        let size = published.head.size;
        let receipt = self.files.receipt(position, published).await.map_err(not_read)?;
        Ok(proto::GetReceiptResponse { receipt: receipt.to_text(), position, size })
    }

    async fn consistency(
        &self,
        request: proto::GetConsistencyProofRequest,
    ) -> Result<proto::GetConsistencyProofResponse, AdmitError> {
        let newest = self.newest()?;
        let published = newest.head.size;
        let old_size = request.old_size;
        let new_size = if request.new_size == 0 { published } else { request.new_size };
        let wrong =
            |code, message: String, hint, field| FieldError::new(code, message, hint).inside(field);
        if old_size == 0 {
            let hint = "give the size of a checkpoint";
            let message = "is 0: every log begins with the one without leaves";
            return Err(wrong("OUT_OF_BOUNDS", message.to_owned(), hint, "old_size").into());
        }
        for (field, size) in [("new_size", new_size), ("old_size", old_size)] {
            if size > published {
                let message = format!("is {size}, but the newest checkpoint has {published}");
                let hint = "ask again when a checkpoint reaches it; if one did, the store was \
                            restored from a copy and has lost it";
                let error = wrong("NOT_YET_PUBLISHED", message, hint, field);
                return Err(AdmitError::FailedPrecondition(error));
            }
        }
        if old_size > new_size {
            let message = format!("is {old_size}, more than `new_size`, which is {new_size}");
            let hint = "give the smaller size here";
            return Err(wrong("OUT_OF_BOUNDS", message, hint, "old_size").into());
        }
        let hashes = self.files.consistency(old_size, new_size).await.map_err(not_read)?;
        Ok(proto::GetConsistencyProofResponse {
            old_size,
            new_size,
            hashes: hashes.iter().map(|hash| STANDARD.encode(hash.as_bytes())).collect(),
            checkpoint: (new_size == published).then(|| newest.note.clone()),
        })
    }

    fn newest(&self) -> Result<Arc<Published>, AdmitError> {
        self.files.checkpoint().ok_or_else(|| never_cosigned(0))
    }

    fn checkpoint(&self, witnesses: u32) -> Result<Arc<Published>, AdmitError> {
        let witnesses = self.witnesses(witnesses)?;
        self.files.checkpoint_with(witnesses).ok_or_else(|| never_cosigned(witnesses))
    }

    /// How many witnesses are asked for, if there can be as many.
    fn witnesses(&self, asked: u32) -> Result<usize, AdmitError> {
        let asked = usize::try_from(asked).unwrap_or(usize::MAX);
        let error =
            |code, message: String, hint| FieldError::new(code, message, hint).inside("witnesses");
        if asked > MAX_WITNESSES {
            let message = format!("is {asked}, at most {MAX_WITNESSES}");
            return Err(error("OUT_OF_BOUNDS", message, "ask for fewer").into());
        }
        let options = self.admission.checkpoints();
        let known = options.map_or(0, |options| options.witnesses.as_slice().len());
        if asked > known {
            let message = format!("is {asked}, but this server knows {known}");
            let hint = "ask for fewer, or start the server with `--witness` for each";
            let error = error("TOO_FEW_WITNESSES", message, hint);
            return Err(AdmitError::FailedPrecondition(error));
        }
        Ok(asked)
    }

    async fn cosign(&self, note: String) -> Result<proto::AddCosignaturesResponse, AdmitError> {
        let options = self.admission.checkpoints().cloned();
        let options = options.filter(|options| !options.witnesses.as_slice().is_empty());
        let options = options.ok_or_else(|| {
            let hint = "start the server with `--witness` and the verifier key of each";
            let message = "needs a witness, and this server knows none";
            AdmitError::FailedPrecondition(FieldError::new("NO_WITNESSES", message, hint))
        })?;
        let witnesses = options.witnesses.clone();
        let checked =
            self.files.read(move |reader| Ok(check(reader, &options, &note, Clock::now())));
        let Checked { cosigning, passed_over } = checked.await.map_err(not_read)??;
        let Cosigned { size, note, added } = self.admission.cosign(cosigning).await?;
        let found = witnesses.cosignatures(&note).map_err(AdmitError::internal)?;
        let told = |cosignature: Cosignature| {
            let Cosignature { time, witness } = cosignature;
            let added = added.contains(&witness);
            proto::Cosignature { witness, time, added }
        };
        Ok(proto::AddCosignaturesResponse {
            size,
            checkpoint: note,
            cosignatures: found.into_iter().map(told).collect(),
            passed_over,
        })
    }
}

fn missing(message: &str, hint: &str) -> FieldError {
    FieldError::new("MISSING", message, hint)
}

fn named_decision(text: &str) -> Result<Id, FieldError> {
    decision_meant(text).ok_or_else(|| {
        let hint = "give `dec-` or `rsv-` and 32 hexadecimal digits, as decisions have them";
        FieldError::new("BAD_NAME", "is no id of a decision or a reservation", hint).inside("id")
    })
}

fn no_such_decision(field: &str) -> AdmitError {
    let hint = "a request that was never decided has none; another server's is in its own log";
    let error = FieldError::new("DECISION_NOT_FOUND", "names no decision of this log", hint);
    AdmitError::NotFound(error.inside(field))
}

/// There is no checkpoint that so many witnesses cosigned.
fn never_cosigned(witnesses: usize) -> AdmitError {
    let (message, hint) = match witnesses {
        0 => (
            "needs a checkpoint of the log, and none was made".to_owned(),
            "start the server with `--checkpoint-every`, or ask again in a few seconds",
        ),
        _ => (
            format!("needs a checkpoint that {witnesses} of the witnesses cosigned"),
            "have it cosigned (`placet log cosign`), or ask for fewer",
        ),
    };
    AdmitError::FailedPrecondition(FieldError::new("NOT_YET_PUBLISHED", message, hint))
}

fn not_yet(position: u64, size: u64, witnesses: usize) -> AdmitError {
    let which = match witnesses {
        0 => "the newest checkpoint".to_owned(),
        _ => format!("the newest checkpoint that {witnesses} of the witnesses cosigned"),
    };
    AdmitError::FailedPrecondition(FieldError::new(
        "NOT_YET_PUBLISHED",
        format!("is about position {position}, but {which} is of {size} leaves"),
        "ask again in a few seconds, or with `wait_seconds`",
    ))
}

fn not_read(error: FileError) -> AdmitError {
    match error {
        FileError::Read(error) => AdmitError::log_not_read(error),
        FileError::Absent | FileError::Stopped => AdmitError::stopping(),
    }
}

/// Which decision, checked.
#[derive(Debug)]
enum WantedDecision {
    Name(Id),
    Position(u64),
    Request(Id, Id),
}

/// A decision with all that is kept of it.
#[derive(Debug)]
struct Kept {
    evidence: Evidence,
    leaf: String,
    name: Id,
    stored: StoredDecision,
    time: u64,
}

/// Everything that is kept of a decision; `None` if there is none. Blocks.
fn look_up(reader: &Reader, wanted: WantedDecision) -> Result<Option<Kept>, ReadError> {
    let damaged = ReadError::Damaged;
    let claims = |token: &str| {
        read_claims(token).map_err(|_malformed| damaged("the claims of a decision cannot be read"))
    };
    let leaf_at = |position: u64| -> Result<Option<(Leaf, Vec<u8>)>, ReadError> {
        let bytes = reader.leaves(position, position.saturating_add(1))?.pop();
        let Some(bytes) = bytes else { return Ok(None) };
        let leaf =
            serde_json::from_slice(&bytes).map_err(|_malformed| damaged("a leaf is no leaf"))?;
        Ok(Some((leaf, bytes)))
    };
    let stored = match wanted {
        WantedDecision::Name(name) => reader.decision(&name)?,
        WantedDecision::Request(caller, request_id) => reader.decision_on(&caller, &request_id)?,
        WantedDecision::Position(position) => match leaf_at(position)? {
            Some((Leaf { event: Event::Decision { token, .. }, .. }, _)) => {
                let found = reader.decision(&claims(&token)?.jti)?;
                if found.as_ref().is_none_or(|found| found.position != position) {
                    return Err(damaged("a decision is not found by its name"));
                }
                found
            }
            Some(_) | None => None,
        },
    };
    let Some(stored) = stored else { return Ok(None) };
    let (leaf, bytes) = leaf_at(stored.position)?.ok_or(damaged("a leaf is missing"))?;
    let leaf_text = String::from_utf8(bytes).map_err(|_other| damaged("a leaf is no leaf"))?;
    let evidence = reader.evidence(stored.position)?;
    Ok(Some(Kept {
        evidence: evidence.ok_or(damaged("the evidence of a decision is missing"))?,
        leaf: leaf_text,
        name: claims(&stored.token)?.jti,
        time: leaf.time,
        stored,
    }))
}

impl Kept {
    fn into_response(self, with_evidence: bool) -> proto::GetDecisionResponse {
        let Self { evidence: (input, evaluation), leaf, name, stored, time } = self;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let mut personal: Vec<proto::PersonalValue> =
            stored.personal.into_iter().map(kept_value).collect();
        let (pointer, path) = COMMITTED;
        let is_committed = input.as_deref().is_some_and(|input| {
            let input = serde_json::from_slice::<serde_json::Value>(input);
            input.is_ok_and(|input| input.pointer(pointer).is_some_and(|it| !it.is_null()))
        });
        if is_committed && personal.iter().all(|value| value.path != path) {
            let path = path.to_owned();
            personal.push(proto::PersonalValue { path, erased: true, ..Default::default() });
        }
        let evidence = with_evidence
            .then(|| proto::Evidence { input: input.map(text), evaluation: text(evaluation) });
        proto::GetDecisionResponse {
            decision_id: name.into(),
            position: stored.position,
            time,
            caller: stored.caller.into(),
            request_id: stored.request_id.into(),
            token: stored.token,
            leaf,
            personal,
            evidence,
        }
    }
}

fn kept_value(value: Personal) -> proto::PersonalValue {
    let Personal { path, salt, value } = value;
    proto::PersonalValue { path, value, salt: STANDARD.encode(salt), erased: false }
}
