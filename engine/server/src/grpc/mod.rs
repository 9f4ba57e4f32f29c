//! The gRPC service: decodes, checks bounds, runs the pipeline, and maps errors to status.

mod audit;
mod bounded;
mod caller;
mod changes;
mod control;
pub mod convert;
mod events;
mod follow;
mod ledger;
mod pipeline;

use std::pin::Pin;

use futures::future::BoxFuture;
use futures::stream::{self, Stream, StreamExt as _};
use placet_core::{AdmissionRequest, Id};
use placet_proto::FILE_DESCRIPTOR_SET;
use placet_proto::admission::v1 as proto;
use placet_proto::admission::v1::admission_service_server::{
    AdmissionService, AdmissionServiceServer,
};
use placet_proto::audit::v1::audit_service_server::AuditServiceServer;
use placet_proto::control::v1::control_service_server::ControlServiceServer;
use placet_proto::ledger::v1::ledger_service_server::LedgerServiceServer;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::server::HealthReporter;
use tracing::{Instrument as _, Span};

use crate::admission::{Admission, Prepared};
use crate::error::AdmitError;
use crate::sequencer::{Decided, SettleKind, Settled};

use audit::{Audit, MAX_AUDIT_BYTES, MAX_LISTENERS};
use bounded::Bounded;
use caller::caller;
use control::{Control, MAX_CONTROL_BYTES};
use convert::{Ask, SettleRequest, TimedAsk};
use follow::Watchers;
use ledger::{LedgerLook, MAX_LOOK_BYTES};
use pipeline::pipeline;

/// Largest request in bytes: several times the largest within the bounds of the contract (two
/// principals' worth of text and 168 ids of 128 bytes), far below what would hurt to hold for every
/// connection.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// All gRPC services: admission, control, ledger, audit, health and reflection. Once `stopped` is
/// true, streams take no further events and tell nothing further, so that a client that never ends
/// its stream cannot keep the server from stopping.
pub(crate) async fn routes(
    admission: Admission,
    operators: &[Id],
    stopped: watch::Receiver<bool>,
) -> Routes {
    let (health, health_server) = tonic_health::server::health_reporter();
    health.set_serving::<AdmissionServiceServer<Service>>().await;
    let control = Control { admission: admission.clone(), operators: operators.into() };
    let control = ControlServiceServer::new(control).max_decoding_message_size(MAX_CONTROL_BYTES);
    let watchers = Watchers::default();
    let audit = Audit {
        admission: admission.clone(),
        files: admission.files(),
        operators: operators.into(),
        stopped: stopped.clone(),
        watchers: watchers.beside(MAX_LISTENERS),
    };
    let audit = AuditServiceServer::new(audit).max_decoding_message_size(MAX_AUDIT_BYTES);
    let look = LedgerLook {
        admission: admission.clone(),
        operators: operators.into(),
        stopped: stopped.clone(),
        watchers,
    };
    let look = LedgerServiceServer::new(look).max_decoding_message_size(MAX_LOOK_BYTES);
    let service = AdmissionServiceServer::new(Service { admission, health, stopped })
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let whole = "descriptors that a compiler wrote refer to nothing outside";
    Routes::new(Bounded::new(service))
        .add_service(control)
        .add_service(look)
        .add_service(audit)
        .add_service(health_server)
        .add_service(reflection().build_v1().expect(whole))
        .add_service(reflection().build_v1alpha().expect(whole))
}

/// The admission service over one decision point.
#[derive(Debug, Clone)]
struct Service {
    admission: Admission,
    health: HealthReporter,
    stopped: watch::Receiver<bool>,
}

impl Service {
    /// Notes a failure in log, metrics and health; called once per request that was not decided.
    async fn failed(&self, error: &AdmitError) {
        error.log();
        self.admission.failed(error);
        // What only waits for the store to come back is told by `/readyz`: here it would never be
        // taken back.
        if self.admission.has_ended() {
            self.health.set_not_serving::<AdmissionServiceServer<Self>>().await;
        }
    }

    /// The status of a request that was not decided.
    async fn refused(&self, error: impl Into<AdmitError>) -> Status {
        let error = error.into();
        self.failed(&error).await;
        error.to_status()
    }

    /// Takes a request as far as it may go beside others.
    async fn prepare(&self, caller: &Id, asked: TimedAsk) -> Result<Ready, AdmitError> {
        let TimedAsk { ask, time } = asked;
        Ok(match ask {
            Ask::Admit(request) => {
                let stage = tracing::debug_span!("prepare");
                let prepared = self.admission.prepare(caller, *request, time).instrument(stage);
                Ready::Admit(prepared.await?)
            }
            Ask::Confirm(request) => Ready::Settle(SettleKind::Confirm, request, time),
            Ask::Release(request) => Ready::Settle(SettleKind::Release, request, time),
        })
    }

    /// Gives a request its place in the order; the future that it returns is the answer.
    async fn sequence(&self, caller: &Id, ready: Ready) -> Result<Pending, AdmitError> {
        Ok(match ready {
            Ready::Admit(prepared) => {
                let pending = self.admission.sequence(prepared).await?;
                Box::pin(async move {
                    let mut decided = pending.await?;
                    let one = decided.pop().expect("one request is answered with one decision");
                    Ok(Answer::Decided(one))
                }) as Pending
            }
            Ready::Settle(kind, request, time) => {
                let pending = self.admission.settle(caller, kind, request, time).await?;
                Box::pin(async move { pending.await.map(Answer::Settled) })
            }
        })
    }

    /// The whole pipeline for one request.
    async fn answer(&self, caller: &Id, asked: TimedAsk) -> Result<Answer, AdmitError> {
        let ready = self.prepare(caller, asked).await?;
        let stage = tracing::debug_span!("sequence");
        async { self.sequence(caller, ready).await?.await }.instrument(stage).await
    }

    /// The whole pipeline for one unary call.
    async fn unary(&self, caller: &Id, ask: Ask) -> Result<Answer, Status> {
        let span = span(caller, &ask);
        let answered = async {
            match self.answer(caller, TimedAsk { ask, time: None }).await {
                Ok(answer) => Ok(answer.logged()),
                Err(error) => Err(self.refused(error).await),
            }
        };
        answered.instrument(span).await
    }

    async fn settle(
        &self,
        caller: &Id,
        request_id: String,
        ask: Ask,
    ) -> Result<Response<proto::Settlement>, Status> {
        match self.unary(caller, ask).await? {
            Answer::Settled(settled) => Ok(Response::new(settlement(request_id, settled))),
            // INVARIANT: a settlement is never answered with a decision; see `sequence`.
            Answer::Decided(_) => Err(Status::internal("answered with a decision")),
        }
    }
}

/// A request that waits for its place in the order.
enum Ready {
    Admit(Prepared),
    Settle(SettleKind, SettleRequest, Option<u64>),
}

/// The answer of a request that has its place in the order.
type Pending = BoxFuture<'static, Result<Answer, AdmitError>>;

/// What came of a request.
#[derive(Debug)]
enum Answer {
    Decided(Decided),
    Settled(Settled),
}

impl Answer {
    /// Notes it in the log, within the request's span.
    fn logged(self) -> Self {
        match &self {
            Self::Decided(it) => {
                tracing::debug!(effect = ?it.effect, position = it.position, "decided");
            }
            Self::Settled(it) => tracing::debug!(state = ?it.state, epoch = it.epoch, "settled"),
        }
        self
    }
}

/// The span of one request: every line that is logged within it carries the request id.
fn span(caller: &Id, ask: &Ask) -> Span {
    let request_id = ask.request_id();
    match ask {
        Ask::Admit(_) => tracing::info_span!("admit", %request_id, %caller),
        Ask::Confirm(_) => tracing::info_span!("confirm", %request_id, %caller),
        Ask::Release(_) => tracing::info_span!("release", %request_id, %caller),
    }
}

fn admitted(request_id: String, decided: Decided) -> proto::AdmitResponse {
    proto::AdmitResponse {
        request_id,
        token: decided.token,
        effect: convert::effect(decided.effect).into(),
        position: decided.position,
    }
}

fn settlement(request_id: String, settled: Settled) -> proto::Settlement {
    proto::Settlement {
        request_id,
        reservation_id: settled.reservation.map(String::from).unwrap_or_default(),
        state: convert::state(settled.state).into(),
        epoch: settled.epoch,
        time: settled.time,
        refunded_gpu_seconds: settled.refunded_gpu_seconds,
    }
}

#[tonic::async_trait]
impl AdmissionService for Service {
    type AdmitStreamStream =
        Pin<Box<dyn Stream<Item = Result<proto::StreamResponse, Status>> + Send>>;

    async fn admit(
        &self,
        request: Request<proto::AdmitRequest>,
    ) -> Result<Response<proto::AdmitResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let request_id = request.request_id.clone();
        let request = match convert::admission_request(request) {
            Ok(request) => request,
            Err(error) => return Err(self.refused(error).await),
        };
        match self.unary(&caller, Ask::Admit(Box::new(request))).await? {
            Answer::Decided(decided) => Ok(Response::new(admitted(request_id, decided))),
            // INVARIANT: an admission is never answered with a settlement; see `sequence`.
            Answer::Settled(_) => Err(Status::internal("answered with a settlement")),
        }
    }

    async fn admit_gang(
        &self,
        request: Request<proto::AdmitGangRequest>,
    ) -> Result<Response<proto::AdmitGangResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let gang_id = request.gang_id.clone();
        let members = match convert::gang_request(request) {
            Ok(members) => members,
            Err(error) => return Err(self.refused(error).await),
        };
        let span = tracing::info_span!("gang", %gang_id, %caller);
        let names: Vec<Id> = members.iter().map(|member| member.request_id.clone()).collect();
        let decided = self.gang(&caller, members).instrument(span).await?;
        let members = names.into_iter().zip(decided);
        let members = members.map(|(name, decided)| admitted(name.into(), decided)).collect();
        Ok(Response::new(proto::AdmitGangResponse { gang_id, members }))
    }

    async fn admit_stream(
        &self,
        request: Request<Streaming<proto::StreamRequest>>,
    ) -> Result<Response<Self::AdmitStreamStream>, Status> {
        let caller = caller(&request)?;
        let events = request.into_inner().map(|it| it.map_err(bounded::explained));
        let events = until_stopped(events, self.stopped.clone());
        Ok(Response::new(Box::pin(answers(self.clone(), caller, events))))
    }

    async fn confirm(
        &self,
        request: Request<proto::ConfirmRequest>,
    ) -> Result<Response<proto::Settlement>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let request_id = request.request_id.clone();
        match convert::confirm_request(request) {
            Ok(request) => self.settle(&caller, request_id, Ask::Confirm(request)).await,
            Err(error) => Err(self.refused(error).await),
        }
    }

    async fn release(
        &self,
        request: Request<proto::ReleaseRequest>,
    ) -> Result<Response<proto::Settlement>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let request_id = request.request_id.clone();
        match convert::release_request(request) {
            Ok(request) => self.settle(&caller, request_id, Ask::Release(request)).await,
            Err(error) => Err(self.refused(error).await),
        }
    }

    async fn explain(
        &self,
        request: Request<proto::ExplainRequest>,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        let caller = caller(&request)?;
        let request = match convert::explain_request(request.into_inner()) {
            Ok(request) => request,
            Err(error) => return Err(self.refused(error).await),
        };
        let span = tracing::info_span!("explain", request_id = %request.request_id, %caller);
        async { self.explained(&caller, request).await }.instrument(span).await
    }
}

impl Service {
    /// The whole pipeline for a gang.
    async fn gang(
        &self,
        caller: &Id,
        members: Vec<AdmissionRequest>,
    ) -> Result<Vec<Decided>, Status> {
        let decided = async {
            let prepared = self.admission.prepare_gang(caller, members).await?;
            self.admission.sequence(prepared).await?.await
        };
        match decided.await {
            Ok(decided) => {
                for it in &decided {
                    tracing::debug!(effect = ?it.effect, position = it.position, "decided");
                }
                Ok(decided)
            }
            Err(error) => Err(self.refused(error).await),
        }
    }

    async fn explained(
        &self,
        caller: &Id,
        request: AdmissionRequest,
    ) -> Result<Response<proto::ExplainResponse>, Status> {
        match self.admission.explain(caller, request).await {
            Ok(explained) => Ok(Response::new(proto::ExplainResponse {
                effect: convert::effect(explained.effect).into(),
                input: explained.input,
                evaluation: explained.evaluation,
                reasons: explained.reasons,
            })),
            Err(error) => Err(self.refused(error).await),
        }
    }
}

/// An event of a stream on its way: its request id for the answer, its span, and what it has come
/// to.
struct Staged<T> {
    request_id: String,
    span: Span,
    result: Result<T, AdmitError>,
}

/// The events of a stream until the server stops, which is then said in place of the next event.
fn until_stopped<T: Send>(
    events: impl Stream<Item = Result<T, Status>> + Send + Unpin,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = Result<T, Status>> + Send {
    stream::unfold(Some((events, stopped)), |open| async move {
        let (mut events, mut stopped) = open?;
        let next = tokio::select! {
            biased;
            // A sender that is gone means the same as one that says stop.
            _ = stopped.wait_for(|stop| *stop) => Err(AdmitError::stopping().to_status()),
            event = events.next() => Ok(event?),
        };
        Some(match next {
            Ok(event) => (event, Some((events, stopped))),
            Err(stopping) => (Err(stopping), None),
        })
    })
}

/// The answers of one stream.
fn answers(
    service: Service,
    caller: Id,
    events: impl Stream<Item = Result<proto::StreamRequest, Status>> + Send,
) -> impl Stream<Item = Result<proto::StreamResponse, Status>> + Send {
    let (preparing, preparing_caller) = (service.clone(), caller.clone());
    let prepare = move |event: proto::StreamRequest| {
        let (service, caller) = (preparing.clone(), preparing_caller.clone());
        async move { stage(&service, &caller, event).await }
    };
    let (sequencing, sequencing_caller) = (service.clone(), caller);
    let sequence = move |staged: Staged<Ready>| {
        let (service, caller) = (sequencing.clone(), sequencing_caller.clone());
        async move {
            let Staged { request_id, span, result } = staged;
            let result = match result {
                Ok(ready) => service.sequence(&caller, ready).instrument(span.clone()).await,
                Err(error) => Err(error),
            };
            Staged { request_id, span, result }
        }
    };
    let finish = move |staged: Staged<Pending>| {
        let service = service.clone();
        let Staged { request_id, span, result } = staged;
        let answered = async move {
            let result = match result {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            respond(&service, request_id, result).await
        };
        answered.instrument(span)
    };
    pipeline(events, prepare, sequence, finish)
}

/// Checks and evaluates one event.
async fn stage(service: &Service, caller: &Id, event: proto::StreamRequest) -> Staged<Ready> {
    let echoed = echoed_id(&event);
    match convert::timed_ask(event) {
        Ok(asked) => {
            let span = span(caller, &asked.ask);
            let result = service.prepare(caller, asked).instrument(span.clone()).await;
            Staged { request_id: echoed, span, result }
        }
        Err(error) => {
            let span = tracing::info_span!("event", request_id = %echoed, %caller);
            Staged { request_id: echoed, span, result: Err(error.into()) }
        }
    }
}

/// The request id of an event, to be echoed; empty if it has none that is an id.
fn echoed_id(event: &proto::StreamRequest) -> String {
    use proto::stream_request::Event;
    let text = match &event.event {
        None => "",
        Some(Event::Admit(request)) => &request.request_id,
        Some(Event::Confirm(request)) => &request.request_id,
        Some(Event::Release(request)) => &request.request_id,
    };
    Id::new(text).map(String::from).unwrap_or_default()
}

async fn respond(
    service: &Service,
    request_id: String,
    result: Result<Answer, AdmitError>,
) -> proto::StreamResponse {
    use proto::stream_response::Answer as Sent;
    let answer = match result.map(Answer::logged) {
        Ok(Answer::Decided(decided)) => Sent::Admitted(admitted(request_id.clone(), decided)),
        Ok(Answer::Settled(settled)) => Sent::Settled(settlement(request_id.clone(), settled)),
        Err(error) => {
            service.failed(&error).await;
            Sent::Error(proto::Error {
                status: error.status_code().into(),
                code: error.code().to_owned(),
                message: error.to_string(),
                field: error.field().to_owned(),
            })
        }
    };
    proto::StreamResponse { request_id, answer: Some(answer) }
}
