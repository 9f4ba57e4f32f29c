//! The cost of an answer over gRPC: a bare echo of the same messages beside a full `Admit`, in one
//! run.
//!
//! Client and server share this machine, as they do in production only on the smallest of hosts.
//! What counts are the ratios between the rows. Run with `cargo bench -p placet-server --bench
//! roundtrip`, arguments after `--`: the shipped bundle's directory and facts default to those of
//! this repository.
#![expect(
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::print_stdout,
    reason = "it measures time and prints what it measured"
)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, stream};
use hdrhistogram::Histogram;
use placet_proto::admission::v1 as pb;
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_proto::admission::v1::admission_service_server::{
    AdmissionService, AdmissionServiceServer,
};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

/// Requests of one measurement.
const REQUESTS: u64 = 4_000;
/// Bytes of a usual token.
const TOKEN_BYTES: usize = 2_000;

/// Answers at once with an answer of the usual size.
struct Echo(String);

type Answers = Pin<Box<dyn Stream<Item = Result<pb::StreamResponse, Status>> + Send>>;

impl Echo {
    fn answer(&self, request_id: String) -> pb::AdmitResponse {
        let effect = pb::Effect::Permit.into();
        pb::AdmitResponse { request_id, token: self.0.clone(), effect, position: 1 }
    }
}

#[tonic::async_trait]
impl AdmissionService for Echo {
    async fn admit(
        &self,
        request: Request<pb::AdmitRequest>,
    ) -> Result<Response<pb::AdmitResponse>, Status> {
        Ok(Response::new(self.answer(request.into_inner().request_id)))
    }

    type AdmitStreamStream = Answers;

    async fn admit_stream(
        &self,
        request: Request<Streaming<pb::StreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let token = self.0.clone();
        let answers = request.into_inner().map(move |event| {
            let Some(pb::stream_request::Event::Admit(admit)) = event?.event else {
                return Err(Status::invalid_argument("only admit"));
            };
            let request_id = admit.request_id;
            let admitted = Echo(token.clone()).answer(request_id.clone());
            let answer = Some(pb::stream_response::Answer::Admitted(admitted));
            Ok(pb::StreamResponse { request_id, answer })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn admit_gang(
        &self,
        _: Request<pb::AdmitGangRequest>,
    ) -> Result<Response<pb::AdmitGangResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn confirm(
        &self,
        _: Request<pb::ConfirmRequest>,
    ) -> Result<Response<pb::Settlement>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn release(
        &self,
        _: Request<pb::ReleaseRequest>,
    ) -> Result<Response<pb::Settlement>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn explain(
        &self,
        _: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// One small lease: it fits many times over, so the ledger says yes for the whole run.
fn request() -> pb::AdmitRequest {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    pb::AdmitRequest {
        request_id: format!("bench-{number}"),
        tenant_id: "research".into(),
        principal: None,
        extends: None,
        waivers: Vec::new(),
        priority_class: pb::PriorityClass::InternalResearch.into(),
        subject: Some(pb::admit_request::Subject::Lease(pb::Lease {
            cluster_id: CLUSTER.into(),
            gpu_count: 1,
            duration_seconds: 1,
            isolation_level: pb::IsolationLevel::Shared.into(),
            gpu_models: vec![GPU_MODEL.into()],
            gpu_milli: 1,
            ..pb::Lease::default()
        })),
    }
}

const CLUSTER: &str = "bench";
const GPU_MODEL: &str = "H100";

struct Row {
    latencies: Histogram<u64>,
    elapsed: Duration,
    permitted: u64,
}

async fn unary(client: &AdmissionServiceClient<Channel>, in_flight: usize) -> Row {
    let start = Instant::now();
    let calls = stream::iter((0..REQUESTS).map(|_| {
        let mut client = client.clone();
        async move {
            let sent = Instant::now();
            let answer = client.admit(request()).await.expect("decided").into_inner();
            (sent.elapsed(), answer.effect() == pb::Effect::Permit)
        }
    }));
    collect(start, calls.buffer_unordered(in_flight)).await
}

async fn streamed(client: &AdmissionServiceClient<Channel>, in_flight: usize) -> Row {
    let start = Instant::now();
    let permits = Arc::new(tokio::sync::Semaphore::new(in_flight));
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let wait = Arc::clone(&permits);
    let events = stream::unfold((0, sender), move |(sent, sender)| {
        let wait = Arc::clone(&wait);
        async move {
            if sent == REQUESTS {
                return None;
            }
            wait.acquire_owned().await.expect("never closed").forget();
            sender.send(Instant::now()).expect("the reader outlives the stream");
            let event = Some(pb::stream_request::Event::Admit(request()));
            Some((pb::StreamRequest { event, time: None }, (sent + 1, sender)))
        }
    });
    let mut client = client.clone();
    let answers = client.admit_stream(events).await.expect("a stream").into_inner();
    let timed = answers.zip(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver));
    let rows = timed.map(|(answer, sent)| {
        permits.add_permits(1);
        let answer = answer.expect("decided").answer;
        let permit = matches!(
            &answer,
            Some(pb::stream_response::Answer::Admitted(a)) if a.effect() == pb::Effect::Permit
        );
        (sent.elapsed(), permit)
    });
    collect(start, rows).await
}

async fn collect(start: Instant, rows: impl Stream<Item = (Duration, bool)>) -> Row {
    let mut latencies = Histogram::new(3).expect("three digits are allowed");
    let mut permitted = 0;
    let mut rows = std::pin::pin!(rows);
    while let Some((latency, permit)) = rows.next().await {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        latencies.record(micros.max(1)).expect("the histogram grows by itself");
        permitted += u64::from(permit);
    }
    Row { latencies, elapsed: start.elapsed(), permitted }
}

fn print(name: &str, in_flight: usize, row: &Row) {
    println!(
        "{name:<16} {in_flight:>9} {:>12.0} {:>9} {:>9} {:>9} {:>10}",
        REQUESTS as f64 / row.elapsed.as_secs_f64(),
        row.latencies.value_at_quantile(0.5),
        row.latencies.value_at_quantile(0.99),
        row.latencies.max(),
        row.permitted,
    );
}

/// Facts in which the bench's lease always fits.
const FACTS: &str = r#"
schema: placet.facts/v1
revision: bench
tenants:
  - id: research
    kind: OWN
    allowed_jurisdictions: []
    attestations: [{framework: SOC2, valid_from: 0, valid_until: 4000000000}]
    licensed_models: []
    min_isolation: SHARED
    priority_classes: [INTERNAL_RESEARCH]
clusters:
  - id: bench
    jurisdiction: DE
    attestations:
      - {framework: SOC2, valid_from: 0, valid_until: 4000000000}
      - {framework: ISO27001, valid_from: 0, valid_until: 4000000000}
    isolation_levels: [SHARED, PARTITIONED, PASSTHROUGH, DEDICATED, CONFIDENTIAL]
    fabric_gbps: 1000000
    gpus: [{model: H100, count: 1000000, safety_buffer: 0}]
datasets: []
models: []
quotas:
  - {account: tenant/research/gpu, kind: level, unit: milli-gpu, limit: 1000000000}
  - account: tenant/research/gpu-seconds/{month}
    kind: budget
    unit: gpu-second
    limit: 9000000000000
"#;

async fn echo() -> AdmissionServiceClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = AdmissionServiceServer::new(Echo("x".repeat(TOKEN_BYTES)));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    AdmissionServiceClient::connect(format!("http://{address}")).await.expect("connects")
}

async fn placet(folder: &std::path::Path) -> AdmissionServiceClient<Channel> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let facts = folder.join("facts.yaml");
    std::fs::write(&facts, FACTS).expect("written");
    let bundle = root.join("policies/reference");
    let settings = placet_server::Settings {
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        ..placet_server::Settings::local(bundle, facts, folder)
    };
    let (ready, address) = oneshot::channel();
    tokio::spawn(placet_server::serve(settings, std::future::pending(), move |at| {
        ready.send(at.grpc).expect("the benchmark waits for it");
    }));
    let address = address.await.expect("the server starts");
    AdmissionServiceClient::connect(format!("http://{address}")).await.expect("connects")
}

fn main() {
    // `cargo test --benches` passes `--test`: nothing is measured then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (echo, placet) = (echo().await, placet(folder.path()).await);
        println!(
            "{:<16} {:>9} {:>12} {:>9} {:>9} {:>9} {:>10}",
            "", "in flight", "requests/s", "p50 us", "p99 us", "max us", "permitted"
        );
        for in_flight in [1, 16, 64] {
            for (name, client) in [("echo", &echo), ("admit", &placet)] {
                unary(client, in_flight).await;
                print(&format!("{name} unary"), in_flight, &unary(client, in_flight).await);
            }
            for (name, client) in [("echo", &echo), ("admit", &placet)] {
                print(&format!("{name} stream"), in_flight, &streamed(client, in_flight).await);
            }
        }
    });
    runtime.shutdown_background();
}
