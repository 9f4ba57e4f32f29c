//! Requests that a server must refuse or deny: by field, with nothing stored, and unharmed.

use placet_core::{Decision, Effect};
use placet_proto::admission::v1 as pb;
use tonic::Code;

use crate::server::{Server, claims, root};

/// A lease that the shipped facts and policies admit.
fn good(id: &str) -> pb::AdmitRequest {
    let text = std::fs::read_to_string(root().join("policies/requests/lease-permitted.json"))
        .expect("shipped");
    let mut request: pb::AdmitRequest = placet_proto::json::from_json(&text).expect("a request");
    request.request_id = id.into();
    request
}

fn lease(request: &mut pb::AdmitRequest) -> &mut pb::Lease {
    match request.subject.as_mut() {
        Some(pb::admit_request::Subject::Lease(lease)) => lease,
        _ => panic!("the shipped request is a lease"),
    }
}

fn shipped(folder: &std::path::Path) -> Server {
    std::fs::copy(root().join("policies/reference/facts.yaml"), folder.join("facts.yaml"))
        .expect("copied");
    Server::start(folder, &[])
}

type Spoil = fn(&mut pb::AdmitRequest);

/// Each spoils a good request in one place; the error must name it.
const SPOILED: [(&str, &str, Spoil); 18] = [
    ("no GPUs", "lease.gpu_count", |r| lease(r).gpu_count = 0),
    ("too many GPUs", "lease.gpu_count", |r| lease(r).gpu_count = 1_000_001),
    ("all the GPUs there could be", "lease.gpu_count", |r| lease(r).gpu_count = u32::MAX),
    ("no time", "lease.duration_seconds", |r| lease(r).duration_seconds = 0),
    ("a century", "lease.duration_seconds", |r| lease(r).duration_seconds = 3_155_760_000),
    ("for ever", "lease.duration_seconds", |r| lease(r).duration_seconds = u64::MAX),
    ("a start in year 10000", "lease.start", |r| lease(r).start = 253_402_300_800),
    ("unknown isolation", "lease.isolation_level", |r| lease(r).isolation_level = 77),
    ("no isolation", "lease.isolation_level", |r| lease(r).isolation_level = 0),
    ("unknown class", "priority_class", |r| r.priority_class = 99),
    ("negative class", "priority_class", |r| r.priority_class = -1),
    ("control characters", "tenant_id", |r| r.tenant_id = "a\u{0}\u{1b}[2Jb".into()),
    ("a long name", "lease.cluster_id", |r| lease(r).cluster_id = "c".repeat(10_000)),
    ("no name", "request_id", |r| r.request_id = String::new()),
    ("no model", "lease.gpu_models", |r| lease(r).gpu_models.clear()),
    ("a model twice", "lease.gpu_models", |r| {
        lease(r).gpu_models = vec!["H100".into(), "H100".into()];
    }),
    ("more than a whole GPU", "lease.gpu_milli", |r| lease(r).gpu_milli = 1_001),
    ("no subject", "lease", |r| r.subject = None),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_spoiled_request_is_refused_by_field_and_stores_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = shipped(folder.path());
    let mut client = server.client().await;
    let before = client.admit(good("before")).await.expect("decided").into_inner();
    assert_eq!(before.effect(), pb::Effect::Permit, "{:?}", claims(&before.token).reasons);
    for (what, field, spoil) in SPOILED {
        let mut request = good("spoiled");
        spoil(&mut request);
        let status = client.admit(request).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}");
        assert!(status.message().contains(field), "{what}: {status}");
        assert!(status.message().contains("hint: "), "{what}: {status}");
    }
    let empty = client.admit(pb::AdmitRequest::default()).await.expect_err("empty");
    assert_eq!(empty.code(), Code::InvalidArgument, "{empty}");
    let mut huge = good("huge");
    huge.request_id = "x".repeat(10_000_000);
    let huge = client.admit(huge).await.expect_err("10 MB");
    assert_eq!(huge.code(), Code::InvalidArgument, "{huge}");
    // Positions have no gap: had anything been stored, the next one would be further on.
    let mut client = server.client().await;
    let after = client.admit(good("after")).await.expect("decided").into_inner();
    assert_eq!(after.position, before.position + 1);
}

/// A field that no version knows, beside a good request.
#[derive(Clone, PartialEq, prost::Message)]
struct WithUnknownField {
    #[prost(string, tag = "1")]
    request_id: String,
    #[prost(string, tag = "99")]
    surprise: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_field_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = shipped(folder.path());
    let address = format!("http://127.0.0.1:{}", server.grpc);
    let endpoint = tonic::transport::Endpoint::new(address).expect("an address");
    let mut grpc = tonic::client::Grpc::new(endpoint.connect().await.expect("listens"));
    grpc.ready().await.expect("ready");
    let message = WithUnknownField { request_id: "r".into(), surprise: "x".into() };
    let path = "/placet.admission.v1.AdmissionService/Admit".parse().expect("a path");
    let codec = tonic_prost::ProstCodec::<WithUnknownField, pb::AdmitResponse>::default();
    let status = grpc.unary(tonic::Request::new(message), path, codec).await;
    let status = status.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("99"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_and_impossible_starts_get_a_signed_denial() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = shipped(folder.path());
    let mut client = server.client().await;
    let denied: [(&str, Spoil); 7] = [
        ("UNKNOWN_TENANT", |r| r.tenant_id = "nobody".into()),
        ("UNKNOWN_CLUSTER", |r| lease(r).cluster_id = "nowhere".into()),
        ("UNKNOWN_GPU_MODEL", |r| lease(r).gpu_models = vec!["ABACUS".into()]),
        ("UNKNOWN_DATASET", |r| lease(r).dataset_ids = vec!["nothing".into()]),
        ("UNKNOWN_MODEL", |r| lease(r).model_ids = vec!["nothing".into()]),
        ("START_IN_THE_PAST", |r| lease(r).start = 1),
        ("START_TOO_FAR_AHEAD", |r| lease(r).start = 253_402_300_799),
    ];
    for (code, spoil) in denied {
        let mut request = good(code);
        spoil(&mut request);
        let answer = client.admit(request).await.expect("decided").into_inner();
        assert_eq!(answer.effect(), pb::Effect::Deny);
        let decision: Decision = claims(&answer.token);
        assert_eq!(decision.effect, Effect::Deny);
        assert!(decision.reasons.iter().any(|r| r.code.as_str() == code), "{decision:?}");
        assert!(decision.reservation.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_the_cluster_lacks_gives_way_to_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = shipped(folder.path());
    let mut request = good("second-choice");
    lease(&mut request).gpu_models = vec!["ABACUS".into(), "H100".into()];
    let answer = server.client().await.admit(request).await.expect("decided").into_inner();
    let decision: Decision = claims(&answer.token);
    assert_eq!(decision.effect, Effect::Permit, "{:?}", decision.reasons);
    assert_eq!(decision.workload.gpu_model.as_str(), "H100");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_the_first_answer_and_another_content_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = shipped(folder.path());
    let mut client = server.client().await;
    let mut first = good("once");
    first.principal = Some(pb::Principal {
        issuer: "https://idp.example".into(),
        subject: "someone".into(),
        groups: vec![],
    });
    let answer = client.admit(first.clone()).await.expect("decided").into_inner();
    let again = client.admit(first.clone()).await.expect("decided").into_inner();
    assert_eq!(answer, again, "byte for byte");
    let changes: [Spoil; 3] = [
        |r| lease(r).gpu_count += 1,
        |r| r.principal = None,
        |r| r.principal.as_mut().expect("set above").subject = "another".into(),
    ];
    for change in changes {
        let mut other = first.clone();
        change(&mut other);
        let status = client.admit(other).await.expect_err("the id is taken");
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains("request_id"), "{status}");
    }
}
