//! What a good tenant notices of a hostile neighbour: the latencies of its requests, one at a time,
//! first alone and then beside a tenant with one hostile policy that keeps 16 requests under way.
//!
//! Once for the whole server over gRPC on loopback, and once without connection, ledger, log and
//! disk, where only the threads that evaluate are shared. The neighbour `globex` is not hostile: it
//! has the same policies as the good tenant, and shows what plain load does. Rows are named by
//! policies of `tests/it/hostile/neighbours.rs`; words on the command line choose among them.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::panic,
    reason = "a benchmark reads the clock, prints, and gives up loudly"
)]

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use placet_core::{Effect, Id};
use placet_proto::admission::v1 as pb;
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_server::{Admission, AdmitError, Settings, convert, serve};
use tokio::sync::oneshot;
use tonic::transport::Channel;

#[path = "../tests/it/hostile/neighbours.rs"]
mod neighbours;

use neighbours::{CLUSTER, GOOD, GPU_MODEL, HOSTILE, LIKE_IT};

/// Requests of the good tenant in each stretch: ten are beyond the 99th percentile.
const REQUESTS: usize = 1_000;
/// Requests that warm everything up, and let the server get to know the tenants.
const WARM: usize = 100;
/// Requests that the neighbour keeps under way.
const IN_FLIGHT: usize = 16;

static NEXT: AtomicU64 = AtomicU64::new(0);

fn request(tenant: &str) -> pb::AdmitRequest {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    pb::AdmitRequest {
        request_id: format!("bench-{number}"),
        tenant_id: tenant.to_owned(),
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

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Decided(Effect),
    /// Evaluated; nothing was asked of ledger and log.
    Evaluated,
    /// Not decided: the wall-clock backstop, on a machine that is too busy.
    Undecided,
}

/// Something that decides.
trait Decide: Clone + Send + Sync + 'static {
    fn decide(&self, request: pb::AdmitRequest) -> impl Future<Output = Told> + Send;
}

/// The whole server.
#[derive(Clone)]
struct Remote(AdmissionServiceClient<Channel>);

impl Decide for Remote {
    async fn decide(&self, request: pb::AdmitRequest) -> Told {
        match self.0.clone().admit(request).await.map(tonic::Response::into_inner) {
            Ok(it) if it.effect() == pb::Effect::Permit => Told::Decided(Effect::Permit),
            Ok(_) => Told::Decided(Effect::Deny),
            Err(status) if status.code() == tonic::Code::Unavailable => Told::Undecided,
            Err(status) => panic!("{status}"),
        }
    }
}

/// The threads that evaluate, alone.
#[derive(Clone)]
struct Alone(Admission);

impl Decide for Alone {
    async fn decide(&self, request: pb::AdmitRequest) -> Told {
        let caller = Id::new("bench").expect("a word is an id");
        let request = convert::admission_request(request).expect("a good request");
        match self.0.prepare(&caller, request, None).await {
            Ok(_) => Told::Evaluated,
            Err(AdmitError::Unavailable { .. }) => Told::Undecided,
            Err(error) => panic!("{error}"),
        }
    }
}

fn settings(folder: &Path, store: &str) -> Settings {
    Settings {
        store: folder.join(store),
        workers: std::thread::available_parallelism().map_or(2, usize::from),
        ..Settings::local(folder.join("bundle"), folder.join("facts.yaml"), folder)
    }
}

async fn remote(folder: &Path) -> Remote {
    let (ready, address) = oneshot::channel();
    let settings = settings(folder, "placet.db");
    tokio::spawn(serve(settings, std::future::pending(), move |at| {
        ready.send(at.grpc).expect("the benchmark waits for it");
    }));
    let address = address.await.expect("the server starts");
    Remote(AdmissionServiceClient::connect(format!("http://{address}")).await.expect("connects"))
}

/// Latencies in microseconds of the good tenant's requests, one after the other.
async fn good(decide: &impl Decide, requests: usize) -> Histogram<u64> {
    let mut latencies = Histogram::new(3).expect("three digits are allowed");
    for _ in 0..requests {
        let sent = Instant::now();
        let told = decide.decide(request(GOOD)).await;
        assert!(matches!(told, Told::Evaluated | Told::Decided(Effect::Permit)), "{told:?}");
        let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        latencies.record(micros.max(1)).expect("the histogram grows by itself");
    }
    latencies
}

/// A neighbour that asks as fast as it is answered.
struct Neighbour {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    undecided: Arc<AtomicU64>,
    since: Instant,
    callers: Vec<tokio::task::JoinHandle<()>>,
}

impl Neighbour {
    fn start(decide: &impl Decide, tenant: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (answers, undecided) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let effect = if tenant == LIKE_IT { Effect::Permit } else { Effect::Deny };
        let callers = (0..IN_FLIGHT).map(|_| {
            let (decide, tenant) = (decide.clone(), tenant.to_owned());
            let (over, answers) = (Arc::clone(&over), Arc::clone(&answers));
            let undecided = Arc::clone(&undecided);
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    match decide.decide(request(&tenant)).await {
                        Told::Decided(told) => assert_eq!(told, effect, "{tenant}"),
                        Told::Evaluated => {}
                        Told::Undecided => {
                            undecided.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let callers = callers.collect();
        Self { over, answers, undecided, since: Instant::now(), callers }
    }

    /// Ends it, and tells how many answers a second it got, and how many of all were no decision.
    async fn stop(self) -> (f64, u64) {
        let (answers, time) = (self.answers.load(Ordering::Relaxed), self.since.elapsed());
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("the neighbour lives");
        }
        (answers as f64 / time.as_secs_f64(), self.undecided.load(Ordering::Relaxed))
    }
}

async fn row(decide: &impl Decide, name: &str, tenant: &str) -> f64 {
    good(decide, WARM).await;
    let quiet = good(decide, REQUESTS).await;
    let neighbour = Neighbour::start(decide, tenant);
    good(decide, WARM).await;
    let beside = good(decide, REQUESTS).await;
    let (rate, undecided) = neighbour.stop().await;
    let at = |latencies: &Histogram<u64>, quantile| latencies.value_at_quantile(quantile);
    let ratio = at(&beside, 0.99) as f64 / at(&quiet, 0.99) as f64;
    println!(
        "{name:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7.2} {rate:>10.0} {undecided:>9}",
        at(&quiet, 0.5),
        at(&quiet, 0.99),
        at(&beside, 0.5),
        at(&beside, 0.99),
        beside.max(),
        ratio,
    );
    ratio
}

async fn table(title: &str, decide: &impl Decide, chosen: &[String]) {
    println!("\n{title}");
    println!(
        "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>10} {:>9}",
        "beside",
        "quiet p50",
        "quiet p99",
        "p50 us",
        "p99 us",
        "max us",
        "ratio",
        "answers/s",
        "undecided"
    );
    let like_it = (LIKE_IT, LIKE_IT.to_owned());
    let hostile = HOSTILE.iter().map(|hostile| (hostile.name, hostile.tenant()));
    let mut worst = 0.0_f64;
    for (name, tenant) in std::iter::once(like_it).chain(hostile) {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            let ratio = row(decide, name, &tenant).await;
            worst = if tenant == LIKE_IT { worst } else { worst.max(ratio) };
        }
    }
    println!("worst ratio of p99 beside a hostile neighbour: {worst:.2}");
}

/// What each policy gets.
async fn verdicts(admission: &Admission) {
    println!("{:<14} verdict", "policy");
    let caller = Id::new("bench").expect("a word is an id");
    for hostile in HOSTILE {
        let request = convert::admission_request(request(&hostile.tenant())).expect("it is good");
        let explained = admission.explain(&caller, request).await.expect("explained");
        assert_eq!(explained.effect, Effect::Deny);
        assert!(explained.reasons.contains("POLICY_INDETERMINATE"), "{}", explained.reasons);
        assert!(explained.evaluation.contains(hostile.why), "{}", explained.evaluation);
        println!("{:<14} POLICY_INDETERMINATE: {}", hostile.name, hostile.why);
    }
}

fn main() {
    // `cargo test --benches` passes `--test`: nothing is measured then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let chosen: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a folder");
    neighbours::write(folder.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let path = folder.path().to_owned();
        let open = move || Admission::open(&settings(&path, "alone.db"));
        let opened = tokio::task::spawn_blocking(open).await.expect("no panic");
        let alone = Alone(opened.expect("it opens"));
        let remote = remote(folder.path()).await;
        verdicts(&alone.0).await;
        table("threads that evaluate, alone", &alone, &chosen).await;
        table("whole server, over gRPC on loopback", &remote, &chosen).await;
    });
    runtime.shutdown_timeout(Duration::ZERO);
}
