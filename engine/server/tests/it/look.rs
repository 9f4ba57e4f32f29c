//! Looking at the ledger over a real connection: who may, how new the answer is, and page by page.

use placet_core::Id;
use placet_proto::admission::v1 as admission;
use placet_proto::admission::v1::ReservationState;
use placet_proto::json::from_json;
use placet_proto::ledger::v1 as proto;
use placet_proto::ledger::v1::ledger_service_client::LedgerServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::running::Running;

async fn start() -> (Running, LedgerServiceClient<Channel>) {
    let server = Running::start_with(|settings, _| {
        settings.operators = vec![Id::new("loopback").unwrap()];
    })
    .await;
    let ledger = LedgerServiceClient::new(server.channel.clone());
    (server, ledger)
}

fn admit(request_id: &str) -> admission::AdmitRequest {
    let lease = r#"{"tenant_id": "platform-tools", "priority_class": "INTERNAL_RESEARCH",
        "lease": {"cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["A100"]}}"#;
    admission::AdmitRequest { request_id: request_id.to_owned(), ..from_json(lease).unwrap() }
}

/// Admits so many leases; the position of the last decision.
async fn admit_some(server: &Running, count: usize) -> u64 {
    let mut position = 0;
    for number in 0..count {
        let answer = server.client().admit(admit(&format!("r-{number}"))).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.effect(), admission::Effect::Permit);
        position = answer.position;
    }
    position
}

/// The text that the server's HTTP side gives for a path.
async fn fetch(server: &Running, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.http).await.unwrap();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: placet\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_at_least_as_new_as_the_decision_named() {
    let (server, mut ledger) = start().await;
    let position = admit_some(&server, 3).await;
    let own = |at_least| proto::UsageRequest {
        prefix: "tenant/platform-tools".to_owned(),
        at_least,
        ..proto::UsageRequest::default()
    };
    let usage = ledger.usage(own(Some(position))).await.unwrap().into_inner();
    assert!(usage.position >= position && usage.next.is_empty(), "{usage:?}");
    let gpus = usage.accounts.iter().find(|it| it.account == "tenant/platform-tools/gpu");
    let gpus = gpus.unwrap();
    assert_eq!((gpus.kind(), gpus.unit()), (proto::AccountKind::Level, proto::Unit::MilliGpu));
    assert_eq!(gpus.used, 3_000);
    assert!(gpus.limit.is_some_and(|limit| limit >= gpus.used), "{gpus:?}");
    let again = ledger.usage(own(Some(usage.position))).await.unwrap().into_inner();
    assert_eq!(again.accounts, usage.accounts, "an answer's own position will do");

    let ahead = ledger.usage(own(Some(usage.position + 1_000))).await.unwrap_err();
    assert_eq!(ahead.code(), Code::FailedPrecondition);
    let details = ahead.get_error_details();
    assert_eq!(details.error_info().map(|it| it.reason.as_str()), Some("POSITION_AHEAD"));
    assert!(ahead.message().contains("`at_least` is") && ahead.message().contains("hint: "));

    let released = admission::ReleaseRequest {
        request_id: "release".to_owned(),
        tenant_id: "platform-tools".to_owned(),
        reservation: Some(admission::ReservationRef {
            epoch: 1,
            target: Some(admission::reservation_ref::Target::AdmitRequestId("r-1".to_owned())),
        }),
    };
    server.client().release(released).await.unwrap();
    let named = proto::UsageRequest {
        accounts: vec!["tenant/platform-tools/gpu".to_owned(), "no/such".to_owned()],
        ..proto::UsageRequest::default()
    };
    let after = ledger.usage(named).await.unwrap().into_inner();
    let used: Vec<_> = after.accounts.iter().map(|it| it.used).collect();
    assert_eq!((used, after.position), (vec![2_000], usage.position + 1));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_are_told_by_filter_and_page() {
    let (server, mut ledger) = start().await;
    admit_some(&server, 5).await;
    let confirm = admission::ConfirmRequest {
        request_id: "confirm".to_owned(),
        tenant_id: "platform-tools".to_owned(),
        reservation: Some(admission::ReservationRef {
            epoch: 1,
            target: Some(admission::reservation_ref::Target::AdmitRequestId("r-2".to_owned())),
        }),
    };
    let confirmed = server.client().confirm(confirm).await.unwrap().into_inner();
    let mut ask = async |change: &dyn Fn(&mut proto::ReservationsRequest)| {
        let mut request = proto::ReservationsRequest { page_size: 2, ..Default::default() };
        let mut found = Vec::new();
        change(&mut request);
        loop {
            let page = ledger.reservations(request.clone()).await.unwrap().into_inner();
            assert!(page.reservations.len() <= 2);
            found.extend(page.reservations);
            if page.next.is_empty() {
                return found;
            }
            request.after = page.next;
        }
    };
    let all = ask(&|_| {}).await;
    assert_eq!(all.len(), 5);
    let last = all.last().unwrap();
    assert_eq!(last.reservation_id, confirmed.reservation_id, "it ends last");
    assert_eq!(
        (last.state(), last.epoch, last.since),
        (ReservationState::Active, 1, confirmed.time)
    );
    assert_eq!((last.end - last.start, last.caller.as_str()), (3_600, "loopback"));
    let gpus = last.charges.iter().find(|it| it.account == "tenant/platform-tools/gpu").unwrap();
    assert_eq!((gpus.amount, gpus.unit()), (1_000, proto::Unit::MilliGpu));

    let active = ask(&|it| it.set_state(ReservationState::Active)).await;
    assert_eq!(active, std::slice::from_ref(last));
    let waiting = ask(&|it| it.set_state(ReservationState::Reserved)).await;
    assert_eq!(waiting.len(), 4);
    assert_eq!(ask(&|it| it.account = "tenant/platform-tools/gpu".to_owned()).await.len(), 5);
    assert!(ask(&|it| it.tenant_id = "acme".to_owned()).await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_operators_look() {
    let server = Running::start().await;
    let mut ledger = LedgerServiceClient::new(server.channel.clone());
    let usage = ledger.usage(proto::UsageRequest::default()).await.unwrap_err();
    let reservations = ledger.reservations(proto::ReservationsRequest::default()).await;
    for refused in [usage, reservations.unwrap_err()] {
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("--operator"), "{refused:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_use_and_limit_of_accounts() {
    let (server, _ledger) = start().await;
    admit_some(&server, 2).await;
    let text = fetch(&server, "/metrics").await;
    let account = "{account=\"tenant/platform-tools/gpu\",unit=\"milli-gpu\"}";
    assert!(text.contains(&format!("placet_account_use{account} 2000\n")), "{text}");
    assert!(text.contains(&format!("placet_account_limit{account} ")), "{text}");
    assert!(text.contains("placet_accounts{name=\"untold\"} 0\n"), "{text}");
    assert!(text.contains("placet_reservations{name=\"held\"} 2\n"), "{text}");
    server.stop().await;
}
