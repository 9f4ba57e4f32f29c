//! A server whose bundle has a hostile policy for each of a good tenant's neighbours: what they
//! get, and what the good tenant notices of it. And bundles that no server takes.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use placet_core::{Decision, Digest, Effect, KeySet, Verifier};
use placet_policy::Evaluation;
use placet_proto::admission::v1 as proto;
use placet_server::convert;
use placet_server::{Admission, Settings, serve};

use crate::running::Running;

pub(crate) mod neighbours;

use neighbours::{CLUSTER, GOOD, GPU_MODEL, HOSTILE, guest};

const ISSUER: &str = "placet.test";

fn settings(folder: &Path) -> Settings {
    let bundle = folder.join("bundle");
    let issuer = ISSUER.to_owned();
    Settings { issuer, ..Settings::local(bundle, folder.join("facts.yaml"), folder) }
}

/// A server on that bundle.
async fn start() -> Running {
    Running::start_with(|own, folder| {
        neighbours::write(folder);
        *own = settings(folder);
    })
    .await
}

impl Running {
    async fn decide(&self, request: proto::AdmitRequest) -> (String, proto::AdmitResponse) {
        let tenant = request.tenant_id.clone();
        let answer = self.client().admit(request).await.unwrap();
        (tenant, answer.into_inner())
    }

    async fn explain(&self, tenant: &str) -> proto::ExplainResponse {
        let request = proto::ExplainRequest { admit: Some(request(tenant, "explain")) };
        self.client().explain(request).await.unwrap().into_inner()
    }

    /// Status line and body of a page.
    async fn page(&self, path: &str) -> (String, String) {
        let (address, path) = (self.http, path.to_owned());
        let fetched = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let head = "Host: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}").as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let text = fetched.await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }
}

fn request(tenant: &str, request_id: &str) -> proto::AdmitRequest {
    proto::AdmitRequest {
        request_id: request_id.to_owned(),
        tenant_id: tenant.to_owned(),
        principal: None,
        extends: None,
        waivers: Vec::new(),
        priority_class: proto::PriorityClass::InternalResearch.into(),
        subject: Some(proto::admit_request::Subject::Lease(proto::Lease {
            cluster_id: CLUSTER.to_owned(),
            gpu_count: 1,
            duration_seconds: 3_600,
            isolation_level: proto::IsolationLevel::Shared.into(),
            gpu_models: vec![GPU_MODEL.to_owned()],
            gpu_milli: 1,
            ..proto::Lease::default()
        })),
    }
}

fn verified(keys: &KeySet, answer: &proto::AdmitResponse) -> Decision {
    let verifier = Verifier::new(keys.clone());
    let decision = verifier.verify_issued(&answer.token, ISSUER).expect("it is signed");
    assert_eq!(decision.request_id.as_str(), answer.request_id);
    decision
}

/// Requests of all tenants at once, each good one among as many hostile ones.
async fn crowd(server: &Running, round: usize) -> Vec<(String, proto::AdmitResponse)> {
    let tenants = (0..3).flat_map(|_| HOSTILE.iter().map(|hostile| hostile.tenant()));
    let requests = tenants.enumerate().flat_map(|(number, tenant)| {
        let id = |who: &str| format!("{round}-{number}-{who}");
        [request(&tenant, &id("hostile")), request(GOOD, &id("good"))]
    });
    join_all(requests.map(|request| server.decide(request))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_policies_are_contained_and_named_and_the_others_get_their_decisions() {
    let server = start().await;
    let (_, jwks) = server.page("/.well-known/jwks.json").await;
    let keys = KeySet::from_json(jwks.as_bytes()).unwrap();
    let mut digests = std::collections::BTreeMap::<String, Digest>::new();
    let mut good = 0;
    for round in 0..2 {
        for (tenant, answer) in crowd(&server, round).await {
            let decision = verified(&keys, &answer);
            assert_eq!(decision.tenant_id.as_str(), tenant);
            let digest = decision.evaluation_digest;
            assert_eq!(*digests.entry(tenant.clone()).or_insert(digest), digest, "{tenant}");
            if tenant == GOOD {
                assert_eq!(decision.effect, Effect::Permit, "{:?}", decision.reasons);
                assert!(decision.reservation.is_some_and(|it| !it.charges.is_empty()));
                good += 1;
                continue;
            }
            let told: Vec<_> =
                decision.reasons.iter().map(|it| (it.code.as_str(), it.policy.as_str())).collect();
            let policy = tenant.trim_start_matches("h-");
            assert_eq!(told, [("POLICY_INDETERMINATE", policy)], "{:?}", decision.reasons);
            assert_eq!(decision.effect, Effect::Deny);
            assert!(decision.reservation.is_none() && decision.obligations.is_empty());
        }
    }
    assert_eq!(good, 2 * 3 * HOSTILE.len());

    for hostile in HOSTILE {
        let explained = server.explain(&hostile.tenant()).await;
        let evaluation = explained.evaluation;
        assert_eq!(Digest::of(evaluation.as_bytes()), digests[&hostile.tenant()]);
        let evaluation: Evaluation = serde_json::from_str(&evaluation).unwrap();
        let [verdict] = evaluation.candidates[0].verdicts.as_slice() else {
            panic!("one policy was asked: {evaluation:?}")
        };
        assert_eq!(verdict.policy.as_str(), hostile.name);
        let why = verdict.error.as_deref().unwrap_or_default();
        assert!(why.contains(hostile.why), "{}: {why}", hostile.name);
    }

    assert!(server.page("/readyz").await.0.contains("200"));
    let (_, metrics) = server.page("/metrics").await;
    let count = 2 * 3 * HOSTILE.len();
    for line in [
        format!("placet_decisions_total{{name=\"PERMIT\"}} {count}"),
        format!("placet_decisions_total{{name=\"DENY\"}} {count}"),
        format!("placet_denials_total{{name=\"POLICY_INDETERMINATE\"}} {count}"),
        "placet_waiting{name=\"fast\"} 0".to_owned(),
        "placet_waiting{name=\"slow\"} 0".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
    assert!(metrics.contains("placet_stage_seconds_count{name=\"queue_slow\"}"), "{metrics}");
    assert!(!metrics.contains("placet_errors_total{"), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_expensive_evaluations_comes_before_nobody() {
    /// Requests that the hostile tenant keeps under way: in one queue for all, each good request
    /// would wait for as many.
    const FLOOD: usize = 64;
    /// What may end while a good request is under way: those that threads had begun, and a few for
    /// a machine that gives the good request's thread no time.
    const OTHERS: usize = 16;
    let folder = tempfile::tempdir().unwrap();
    neighbours::write(folder.path());
    let settings = settings(folder.path());
    let opened = tokio::task::spawn_blocking(move || Admission::open(&settings));
    let admission = opened.await.unwrap().unwrap();
    let (ended, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let caller = placet_core::Id::new("scheduler").unwrap();
    let expensive = HOSTILE.iter().find(|hostile| hostile.name == "comprehension").unwrap();
    let flood = (0..FLOOD).map(|number| {
        let (admission, caller) = (admission.clone(), caller.clone());
        let (ended, over) = (Arc::clone(&ended), Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let request = request(&expensive.tenant(), &format!("h-{number}"));
                let request = convert::admission_request(request).unwrap();
                admission.prepare(&caller, request, None).await.unwrap();
                ended.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let flood: Vec<_> = flood.collect();
    while ended.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    for number in 0..50 {
        let request = convert::admission_request(request(GOOD, &format!("r-{number}"))).unwrap();
        let before = ended.load(Ordering::Relaxed);
        admission.prepare(&caller, request, None).await.unwrap();
        let others = ended.load(Ordering::Relaxed) - before;
        assert!(others <= OTHERS, "{others} others came before good request {number}");
    }
    over.store(true, Ordering::Relaxed);
    for caller in flood {
        caller.await.unwrap();
    }
    admission.close().await;
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Why a server with this one policy does not start.
async fn refusal(file: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::create_dir(&settings.bundle).unwrap();
    std::fs::write(&settings.facts, neighbours::facts()).unwrap();
    let manifest = format!(
        "schema: placet.bundle/v1\nrevision: \"1\"\npolicies: [{{name: p, source: {file}}}]\n"
    );
    std::fs::write(settings.bundle.join("bundle.yaml"), manifest).unwrap();
    std::fs::write(settings.bundle.join(file), bytes).unwrap();
    let (store, keys) = (settings.store.clone(), settings.keys.clone());
    let served = serve(settings, std::future::pending(), |_| unreachable!("it must not start"));
    let error = served.await.expect_err("it must not start");
    assert!(!store.exists() && !keys.exists(), "nothing was touched");
    chain(&error)
}

#[tokio::test]
async fn rego_that_asks_the_world_is_refused_with_its_place_before_the_store_is_touched() {
    let rule = "package placet.p\n\nimport rego.v1\n\ndeny contains {\"code\": \"A\", \
        \"message\": \"m\"} if {\n\t";
    for (body, message, hint) in [
        ("http.send({\"url\": \"x\"})", "`http.send`", "put what it needs into the facts"),
        ("rand.intn(\"x\", 3) > 1", "`rand.intn`", "a decision must be repeatable"),
        ("opa.runtime()", "`opa.runtime`", "use `data.params`"),
        ("input.lease.gpu_cout > 1", "`gpu_cout`", "did you mean `gpu_count`?"),
    ] {
        let told = refusal("p.rego", format!("{rule}{body}\n}}\n").as_bytes()).await;
        assert!(told.contains(": p.rego:6:"), "{body}: {told}");
        assert!(told.contains(message), "{body}: {told}");
        let (_, remedy) = told.split_once("\nhint: ").expect("there is a remedy");
        assert!(remedy.contains(hint), "{body}: {told}");
    }
}

#[tokio::test]
async fn what_is_no_component_of_our_world_is_refused_before_the_store_is_touched() {
    let wat = |text: &str| wat::parse_str(text).unwrap();
    // The head of what wasmtime writes: ELF (64 bits, little-endian) for its own ABI, number 200,
    // with the flag of a component.
    let mut native = b"\x7fELF\x02\x01\x01\xc8".to_vec();
    native.resize(64, 0);
    (native[16], native[18], native[20], native[48]) = (1, 62, 1, 2);
    (native[52], native[58]) = (64, 64);
    let quiet = "(i32.store8 (i32.const 16) (i32.const 1)) (i32.const 16)";
    let starts = guest(quiet, "(func $start (loop $again (br $again))) (start $start)");
    let clock = wat(r#"(component (import "wasi:clocks/wall-clock@0.2.0"
        (instance (export "now" (func (result u64))))))"#);
    let version = wat(r#"(component (type u8) (import "placet:policy/types@0.5.0"
        (instance (alias outer 1 0 (type)) (export "input" (type (eq 0))))))"#);
    let bare = "build it without WASI";
    for (bytes, message, hint) in [
        (wat("(module)"), "is a core module, not a component", "build it with `placet build`"),
        (clock, "imports `now` of `wasi:clocks/wall-clock@0.2.0`", bare),
        (version, "is built for version 0.5.0 of the policy world, not 0.4.0", ""),
        (native, "is precompiled native code", "put the component in the bundle"),
        (starts, "cannot be instantiated: the policy spent its fuel of 20000000", ""),
        (vec![0; 50 << 20], "bytes", ""),
        (b"\0asm".to_vec(), "is not a valid component", ""),
    ] {
        let told = refusal("p.wasm", &bytes).await;
        assert!(told.contains(": p.wasm: ") && told.contains(message), "{message}: {told}");
        let (_, remedy) = told.split_once("\nhint: ").expect("there is a remedy");
        assert!(remedy.contains(hint), "{message}: {told}");
    }
}
