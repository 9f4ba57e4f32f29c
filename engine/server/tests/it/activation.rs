//! Bundles and facts that are replaced while requests are decided.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt as _;
use placet_core::{Decision, Digest, Event, Id, KeySet, Leaf, SigningKey, canonical_json};
use placet_policy::{Bundle, Evaluator, Input, PolicySet, WasmRuntime};
use placet_proto::admission::v1 as proto;
use placet_proto::control::v1 as control;
use placet_proto::json::from_json;
use placet_server::Settings;
use placet_server::store::{Store, StoreOptions};
use proto::stream_request::Event as Asked;
use proto::stream_response::Answer;
use tokio::sync::Semaphore;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::running::Running;

/// Policies of the large bundle; five of them select every request, the others a tenant each.
const POLICIES: usize = 1_000;
/// How often the large bundle is replaced.
const SWITCHES: usize = 4;
/// Clients that ask one request after another.
const CLIENTS: usize = 4;

const FACTS: &str = r#"
schema: placet.facts/v1
revision: "1"
tenants:
  - {id: acme, kind: OWN, min_isolation: SHARED, priority_classes: [INTERNAL_RESEARCH],
     allowed_jurisdictions: [], attestations: [], licensed_models: []}
clusters:
  - {id: c-1, jurisdiction: DE, isolation_levels: [SHARED], fabric_gbps: 0, attestations: [],
     gpus: [{model: H100, count: 100000, safety_buffer: 0}]}
datasets: []
models: []
quotas: []
"#;

const CASES: &str = r#"
facts: facts.yaml
cases:
  - name: each generation obliges
    time: 1795305600
    request:
      request_id: r
      tenant_id: acme
      priority_class: INTERNAL_RESEARCH
      lease: {cluster_id: c-1, gpu_count: 1, duration_seconds: 60, isolation_level: SHARED,
              gpu_models: [H100]}
    expect: {effect: PERMIT, obligations: [generation-0, generation-1, generation-2, generation-3,
             generation-4]}
"#;

/// A policy that obliges whoever is admitted to note its generation.
fn policy(name: usize, generation: usize) -> String {
    format!(
        "package generations.p{name}\n\nimport rego.v1\n\n\
         obligations contains {{\n\
         \t\"id\": \"generation-{name}\",\n\
         \t\"params\": {{\"generation\": \"{generation}\", \"tenant\": input.tenant.id}},\n}}\n"
    )
}

/// Writes a bundle whose policies speak of their generation.
fn write_bundle(folder: &Path, policies: usize, generation: usize) -> Bundle {
    let mut manifest = format!("schema: placet.bundle/v1\nrevision: \"g{generation}\"\n");
    manifest.push_str("required: {lease: [p0]}\npolicies:\n");
    std::fs::create_dir_all(folder.join("cases")).unwrap();
    for name in 0..policies {
        std::fs::write(folder.join(format!("p{name}.rego")), policy(name, generation)).unwrap();
        write!(manifest, "  - {{name: p{name}, source: p{name}.rego").unwrap();
        if name >= 5 {
            write!(manifest, ", select: {{tenants: [t-{name}]}}").unwrap();
        }
        manifest.push_str("}\n");
    }
    std::fs::write(folder.join("bundle.yaml"), manifest).unwrap();
    std::fs::write(folder.join("cases/all.yaml"), CASES.replace("facts.yaml", "../facts.yaml"))
        .unwrap();
    std::fs::write(folder.join("facts.yaml"), FACTS).unwrap();
    Bundle::load(folder).unwrap()
}

/// Puts a file into place in one step.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn admit(request_id: String) -> proto::AdmitRequest {
    let lease = r#"{"tenant_id": "acme", "priority_class": "INTERNAL_RESEARCH",
        "lease": {"cluster_id": "c-1", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["H100"]}}"#;
    proto::AdmitRequest { request_id, ..from_json(lease).unwrap() }
}

fn operated(settings: &mut Settings, directory: &Path) {
    settings.bundle = directory.join("bundle.tar.gz");
    settings.facts = directory.join("facts.yaml");
    settings.operators = vec![Id::new("loopback").unwrap()];
    std::fs::write(&settings.facts, FACTS).unwrap();
}

/// Admissions one after another, until told to stop.
async fn ask(running: &Running, client: usize, stop: &AtomicBool, asked: &AtomicU64) {
    let mut service = running.client();
    for number in 0_u64.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let answer = service.admit(admit(format!("c{client}-{number}"))).await;
        let answer = answer.expect("no request fails because of an activation").into_inner();
        assert_eq!(answer.effect(), proto::Effect::Permit);
        asked.fetch_add(1, Ordering::AcqRel);
    }
}

/// Admissions on one stream, each released by the event right behind it: their order must hold.
async fn stream(running: &Running, stop: &Arc<AtomicBool>, asked: &AtomicU64) {
    let seen = Arc::clone(stop);
    let events = (0_u64..).flat_map(|number| {
        let target = proto::reservation_ref::Target::AdmitRequestId(format!("s-{number}"));
        let release = proto::ReleaseRequest {
            request_id: format!("e-{number}"),
            tenant_id: "acme".to_owned(),
            reservation: Some(proto::ReservationRef { target: Some(target), epoch: 1 }),
        };
        [Asked::Admit(admit(format!("s-{number}"))), Asked::Release(release)]
    });
    let events = events.take_while(move |_| !seen.load(Ordering::Acquire));
    let events = events.map(|event| proto::StreamRequest { event: Some(event), time: None });
    let answers = running.client().admit_stream(futures::stream::iter(events)).await.unwrap();
    let mut answers = answers.into_inner();
    while let Some(answer) = answers.next().await {
        match answer.unwrap().answer.unwrap() {
            Answer::Admitted(it) => assert_eq!(it.effect(), proto::Effect::Permit),
            Answer::Settled(it) => assert_eq!(it.state(), proto::ReservationState::Released),
            Answer::Error(error) => panic!("an activation disturbed a stream: {error:?}"),
        }
        asked.fetch_add(1, Ordering::AcqRel);
    }
}

/// What the log says: each decision under the bundle that was active at its place, and evaluated
/// again with the bundle that it names, its evaluation.
fn audit(store: &Path, evaluators: &mut BTreeMap<Digest, Evaluator>) -> (usize, Vec<Digest>) {
    let store = Store::open(store, StoreOptions::default()).unwrap();
    let reader = store.reader();
    let (mut decisions, mut activated) = (0, Vec::new());
    for position in 0..reader.size().unwrap() {
        let leaf = reader.leaves(position, position + 1).unwrap();
        match serde_json::from_slice::<Leaf>(&leaf[0]).unwrap().event {
            Event::BundleActivation { digest, .. } => activated.push(digest),
            Event::Decision { token, .. } => {
                let payload = token.split('.').nth(1).unwrap();
                let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
                let decision: Decision = serde_json::from_slice(&payload).unwrap();
                assert_eq!(Some(&decision.bundle_digest), activated.last(), "at {position}");
                let (input, evaluation) = reader.evidence(position).unwrap().unwrap();
                let input: Input = serde_json::from_slice(&input.unwrap()).unwrap();
                let evaluator = evaluators.get_mut(&decision.bundle_digest).unwrap();
                let again = canonical_json(&evaluator.evaluate(&input).unwrap()).unwrap();
                assert_eq!(again, evaluation, "at {position}");
                assert_eq!(decision.evaluation_digest, Digest::of(&evaluation));
                decisions += 1;
            }
            _ => {}
        }
    }
    (decisions, activated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "the time to activate is told")]
async fn a_bundle_of_a_thousand_policies_is_replaced_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let bundles = [0, 1].map(|generation| {
        write_bundle(&folder.path().join(generation.to_string()), POLICIES, generation)
    });
    let running = Running::start_with(|settings, directory| {
        operated(settings, directory);
        std::fs::write(&settings.bundle, bundles[0].to_archive()).unwrap();
    })
    .await;
    let bundle = running.directory.path().join("bundle.tar.gz");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let switching = async {
        let mut took = Vec::new();
        for number in 1..=SWITCHES {
            let before = asked.load(Ordering::Acquire);
            let next = &bundles[number % 2];
            replace(&bundle, &next.to_archive());
            let request = control::ActivateRequest {
                sources: vec![control::Source::Bundle.into()],
                expected_digest: next.digest().to_string(),
            };
            let answer = running.control().activate(request).await.unwrap().into_inner();
            let attempt = answer.active[0].last_attempt.clone().unwrap();
            assert!(attempt.changed, "{attempt:?}");
            assert_eq!(
                (answer.active[0].digest.as_str(), attempt.cases),
                (&*next.digest().to_string(), 1)
            );
            took.push((attempt.took_micros / 1_000, asked.load(Ordering::Acquire) - before));
        }
        stop.store(true, Ordering::Release);
        took
    };
    let clients = (0..CLIENTS).map(|client| ask(&running, client, &stop, &asked));
    let (took, _, ()) = tokio::join!(
        switching,
        futures::future::join_all(clients),
        stream(&running, &stop, &asked)
    );
    let directory = running.stop().await;
    let runtime = WasmRuntime::new().unwrap();
    let evaluators = bundles.iter().map(|bundle| {
        let set = PolicySet::compile(bundle, &runtime).unwrap();
        (bundle.digest(), Evaluator::new(Arc::new(set)))
    });
    let (decisions, activated) =
        audit(&directory.path().join("placet.db"), &mut evaluators.collect());
    assert_eq!(activated.len(), SWITCHES + 1);
    assert!(took.iter().all(|(_, answered)| *answered > 0), "requests were decided all the while");
    println!(
        "{POLICIES} policies made active under load (ms, answers meanwhile): {took:?}; \
         {decisions} decisions evaluated again to the same bytes"
    );
}

/// A server with a small bundle of its own.
async fn small(change: impl FnOnce(&mut Settings, &Path)) -> (Running, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let bundle = write_bundle(folder.path(), 5, 0);
    let running = Running::start_with(|settings, directory| {
        operated(settings, directory);
        std::fs::write(&settings.bundle, bundle.to_archive()).unwrap();
        change(settings, directory);
    });
    (running.await, folder)
}

async fn activate(
    running: &Running,
    sources: &[control::Source],
) -> Result<Vec<control::Active>, (Code, String, String)> {
    let request = control::ActivateRequest {
        sources: sources.iter().map(|source| (*source).into()).collect(),
        expected_digest: String::new(),
    };
    match running.control().activate(request).await {
        Ok(answer) => Ok(answer.into_inner().active),
        Err(status) => {
            let details = status.get_error_details();
            let reason = details.error_info().map(|it| it.reason.clone()).unwrap_or_default();
            Err((status.code(), reason, status.message().to_owned()))
        }
    }
}

async fn active(running: &Running) -> Vec<control::Active> {
    let request = control::GetActiveRequest {};
    running.control().get_active(request).await.unwrap().into_inner().active
}

async fn effect(running: &Running, request_id: &str, tenant: &str) -> proto::Effect {
    let request =
        proto::AdmitRequest { tenant_id: tenant.to_owned(), ..admit(request_id.to_owned()) };
    running.client().admit(request).await.unwrap().into_inner().effect()
}

#[tokio::test]
async fn a_bad_bundle_never_becomes_active_and_says_why() {
    let (running, folder) = small(|_, _| {}).await;
    let (archive, good) = (running.directory.path().join("bundle.tar.gz"), active(&running).await);
    let manifest = std::fs::read_to_string(folder.path().join("bundle.yaml")).unwrap();
    let first = policy(0, 0);
    let typo = first.replace("input.tenant.id", "input.lease.gpu_cout");
    for (name, source, message, hint) in [
        ("a typo", typo, "p0.rego:7:", "did you mean `gpu_count`?"),
        ("no Rego", "package p\nx := ".to_owned(), "p0.rego:", ""),
        ("the world", first.replace("input.tenant.id", "http.send({}).body"), "`http.send`", ""),
        ("a failing case", first.replace("generation-0", "other"), "1 of 1 cases", "placet test"),
    ] {
        std::fs::write(folder.path().join("p0.rego"), source).unwrap();
        match Bundle::load(folder.path()) {
            Ok(bundle) => replace(&archive, &bundle.to_archive()),
            Err(error) => panic!("{name}: its form is right: {error}"),
        }
        let (code, reason, told) =
            activate(&running, &[control::Source::Bundle]).await.unwrap_err();
        assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "BUNDLE_REFUSED"), "{name}");
        assert!(told.contains(message) && told.contains(hint), "{name}: {told}");
        let now = active(&running).await;
        assert_eq!(now[0].digest, good[0].digest, "{name}");
        let attempt = now[0].last_attempt.clone().unwrap();
        assert!(!attempt.changed && attempt.error.contains(message), "{name}: {attempt:?}");
        assert_eq!(
            effect(&running, &format!("r {name}").replace(' ', "-"), "acme").await,
            proto::Effect::Permit
        );
    }
    for (name, bytes) in [("no archive", b"PK".to_vec()), ("nothing", vec![])] {
        replace(&archive, &bytes);
        let refused = activate(&running, &[]).await.unwrap_err();
        assert_eq!(refused.1, "BUNDLE_REFUSED", "{name}: {refused:?}");
    }
    let metrics = metrics(&running).await;
    assert!(metrics.contains("placet_activation_refused{source=\"bundle\""), "{metrics}");
    // Mended, it is as if nothing had been.
    std::fs::write(folder.path().join("p0.rego"), first).unwrap();
    std::fs::write(folder.path().join("bundle.yaml"), manifest.replace("g0", "mended")).unwrap();
    replace(&archive, &Bundle::load(folder.path()).unwrap().to_archive());
    let mended = activate(&running, &[]).await.unwrap();
    assert_eq!((mended[0].revision.as_str(), mended.len()), ("mended", 2));
    assert!(!mended[1].last_attempt.clone().unwrap().changed, "the facts were as before");
    let metrics = self::metrics(&running).await;
    assert!(!metrics.contains("placet_activation_refused{"), "{metrics}");
    running.stop().await;
}

async fn metrics(running: &Running) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn facts_are_replaced_without_the_policies() {
    let (running, _folder) = small(|_, _| {}).await;
    let facts = running.directory.path().join("facts.yaml");
    assert_eq!(effect(&running, "before", "newcomer").await, proto::Effect::Deny);
    let tenant = FACTS.lines().find(|line| line.contains("acme")).unwrap();
    let rest = FACTS.lines().skip_while(|line| !line.contains("acme")).nth(1).unwrap();
    let newcomer = format!("tenants:\n{}\n{rest}", tenant.replace("acme", "newcomer"));
    replace(&facts, FACTS.replacen("tenants:", &newcomer, 1).as_bytes());
    let before = active(&running).await;
    let now = activate(&running, &[control::Source::Facts]).await.unwrap();
    assert_eq!((now.len(), now[0].source()), (1, control::Source::Facts));
    assert_ne!(now[0].digest, before[1].digest);
    assert_eq!(active(&running).await[0].digest, before[0].digest);
    assert_eq!(effect(&running, "after", "newcomer").await, proto::Effect::Permit);
    // Facts that break a rule stay outside, and so does the good bundle that came with them.
    replace(&facts, b"schema: placet.facts/v1\nrevision: 1\ntenants: 7\n");
    let refused = activate(&running, &[]).await.unwrap_err();
    assert_eq!(refused.1, "FACTS_REFUSED", "{refused:?}");
    assert_eq!(effect(&running, "still", "newcomer").await, proto::Effect::Permit);
    running.stop().await;
}

#[tokio::test]
async fn only_operators_activate_and_only_what_they_expect() {
    let (running, _folder) = small(|settings, _| settings.operators.clear()).await;
    let refused = activate(&running, &[]).await.unwrap_err();
    assert_eq!((refused.0, refused.1.as_str()), (Code::PermissionDenied, "NOT_AN_OPERATOR"));
    running.stop().await;

    let (running, _folder) = small(|_, _| {}).await;
    let request = control::ActivateRequest {
        sources: vec![control::Source::Facts.into()],
        expected_digest: Digest::of(b"another").to_string(),
    };
    let status = running.control().activate(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("its digest is sha256:"), "{}", status.message());
    running.stop().await;
}

#[tokio::test]
async fn a_bundle_must_be_signed_where_that_is_demanded() {
    let key = SigningKey::generate().unwrap();
    let keys = KeySet::new([key.verifying_key().clone()]).unwrap().to_json();
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = write_bundle(folder.path(), 5, 0);
    bundle.sign(&key, None).unwrap();
    let running = Running::start_with(|settings, directory| {
        operated(settings, directory);
        std::fs::write(&settings.bundle, bundle.to_archive()).unwrap();
        std::fs::write(directory.join("jwks.json"), keys).unwrap();
        settings.bundle_keys = Some(directory.join("jwks.json"));
    })
    .await;
    let archive = running.directory.path().join("bundle.tar.gz");
    let mut next = write_bundle(folder.path(), 5, 1);
    replace(&archive, &next.to_archive());
    let refused = activate(&running, &[]).await.unwrap_err();
    assert!(refused.2.contains("placet bundle sign"), "{refused:?}");
    next.sign(&SigningKey::generate().unwrap(), None).unwrap();
    replace(&archive, &next.to_archive());
    assert_eq!(activate(&running, &[]).await.unwrap_err().1, "BUNDLE_REFUSED");
    next.sign(&key, None).unwrap();
    replace(&archive, &next.to_archive());
    assert_eq!(activate(&running, &[]).await.unwrap()[0].revision, "g1");
    running.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_found_without_being_told() {
    let (running, folder) = small(|settings, _| {
        settings.operators.clear();
        settings.watch = Some(Duration::from_millis(20));
    })
    .await;
    let next = write_bundle(folder.path(), 5, 7);
    replace(&running.directory.path().join("bundle.tar.gz"), &next.to_archive());
    let found = async {
        while active(&running).await[0].revision != "g7" {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, found).await.expect("the change is found");
    assert_eq!(effect(&running, "r", "acme").await, proto::Effect::Permit);
    running.stop().await;
}

/// Far longer than anything here takes: past it, the server hangs.
const HANGS: Duration = Duration::from_secs(90);
/// Streams of one tenant, and callers who replace its facts meanwhile.
const STREAMS: usize = 10;
/// Events of each stream: together, more than have room.
const UNDER_WAY: usize = 64;
const CALLERS: usize = 3;
/// How often each of them does.
const ACTIVATIONS: usize = 40;

/// Makes one of two states of the facts active; the callers' files are in each other's way, which
/// may be said.
async fn flip(running: &Running, caller: usize, number: usize) {
    let facts = running.directory.path().join("facts.yaml");
    let beside = running.directory.path().join(format!("facts-{caller}"));
    let state = FACTS.replace("\"1\"", &format!("\"state-{}\"", number % 2));
    std::fs::write(&beside, state).unwrap();
    std::fs::rename(beside, facts).unwrap();
    if let Err(refused) = activate(running, &[control::Source::Facts]).await {
        assert!(refused.2.contains("changes while it is read"), "{refused:?}");
    }
}

/// Admissions on one stream, [`UNDER_WAY`] at a time.
async fn flood(running: &Running, name: usize, stop: &Arc<AtomicBool>) -> usize {
    let (places, seen) = (Arc::new(Semaphore::new(UNDER_WAY)), Arc::clone(stop));
    let free = Arc::clone(&places);
    let events = futures::stream::unfold(0_u64, move |number| {
        let (free, seen) = (Arc::clone(&free), Arc::clone(&seen));
        async move {
            free.acquire().await.unwrap().forget();
            let event = Some(Asked::Admit(admit(format!("f{name}-{number}"))));
            let event = proto::StreamRequest { event, time: None };
            (!seen.load(Ordering::Acquire)).then_some((event, number + 1))
        }
    });
    let mut client = running.another_client().await;
    let mut answers = client.admit_stream(events).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.next().await {
        match answer.unwrap().answer.unwrap() {
            Answer::Admitted(it) => assert_eq!(it.effect(), proto::Effect::Permit),
            other => panic!("an activation disturbed a stream: {other:?}"),
        }
        answered += 1;
        places.add_permits(1);
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_and_activations_back_to_back_leave_nobody_waiting() {
    let (running, _folder) = small(|_, _| {}).await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers = (0..CALLERS).map(|caller| {
        let running = &running;
        async move {
            for number in 0..ACTIVATIONS {
                flip(running, caller, caller + number).await;
            }
        }
    });
    let switching = async {
        futures::future::join_all(callers).await;
        stop.store(true, Ordering::Release);
    };
    let floods = (0..STREAMS).map(|name| flood(&running, name, &stop));
    let all = async { tokio::join!(switching, futures::future::join_all(floods)) };
    let ((), answered) = tokio::time::timeout(HANGS, all).await.expect("everything is answered");
    assert!(answered.iter().all(|answered| *answered > 0), "{answered:?}");
    let other = effect(&running, "other", "newcomer");
    let other = tokio::time::timeout(HANGS, other).await.expect("other tenants are answered");
    assert_eq!(other, proto::Effect::Deny);
    running.stop().await;
}

async fn yields(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_leaves_log_and_memory_in_agreement() {
    let (running, _folder) = small(|_, _| {}).await;
    for number in 0..60_usize {
        let patience = yields(1 << (number % 15));
        tokio::select! {
            biased;
            () = flip(&running, 0, number) => {}
            () = patience => {}
        }
        let name = format!("r-{number}");
        let answer = effect(&running, &name, "acme");
        let answer = tokio::time::timeout(HANGS, answer).await.expect("the server still decides");
        assert_eq!(answer, proto::Effect::Permit);
    }
    running.stop().await;
}
