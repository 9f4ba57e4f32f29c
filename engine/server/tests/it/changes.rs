//! Watching what becomes of reservations: in order, once each, from any position, slowing nobody.

use std::collections::BTreeMap;

use placet_core::{Id, Leaf};
use placet_proto::admission::v1 as admission;
use placet_proto::json::from_json;
use placet_proto::ledger::v1 as proto;
use placet_proto::ledger::v1::ChangeKind;
use placet_proto::ledger::v1::ledger_service_client::LedgerServiceClient;
use placet_proto::ledger::v1::watch_response::Change;
use placet_server::convert;
use placet_server::sequencer::{SequencerHandle, SettleKind};
use placet_server::store::{ReadError, Store};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use crate::preemption::{burst, sold};
use crate::running::Running;
use crate::world::{World, decide, proposal, run, settle, settled};

type Ledger = LedgerServiceClient<Channel>;

async fn start() -> (Running, Ledger) {
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

fn reservation(of: &str) -> Option<admission::ReservationRef> {
    let target = admission::reservation_ref::Target::AdmitRequestId(of.to_owned());
    Some(admission::ReservationRef { epoch: 1, target: Some(target) })
}

async fn confirm(server: &Running, of: &str) -> admission::Settlement {
    let request = admission::ConfirmRequest {
        request_id: format!("confirm-{of}"),
        tenant_id: "platform-tools".to_owned(),
        reservation: reservation(of),
    };
    server.client().confirm(request).await.unwrap().into_inner()
}

async fn release(server: &Running, of: &str) -> admission::Settlement {
    let request = admission::ReleaseRequest {
        request_id: format!("release-{of}"),
        tenant_id: "platform-tools".to_owned(),
        reservation: reservation(of),
    };
    server.client().release(request).await.unwrap().into_inner()
}

/// Leases that are admitted; every second one is confirmed, every third released.
async fn some_changes(server: &Running, count: usize) {
    for number in 0..count {
        let id = format!("r-{number}");
        let answer = server.client().admit(admit(&id)).await.unwrap().into_inner();
        assert_eq!(answer.effect(), admission::Effect::Permit);
        if number % 2 == 0 {
            confirm(server, &id).await;
        }
        if number % 3 == 0 {
            release(server, &id).await;
        }
    }
}

async fn watch(
    ledger: &mut Ledger,
    position: u64,
    kinds: &[ChangeKind],
) -> Streaming<proto::WatchResponse> {
    let kinds = kinds.iter().map(|kind| (*kind).into()).collect();
    ledger.watch(proto::WatchRequest { position, kinds }).await.unwrap().into_inner()
}

/// The changes up to the first response without one, and the position of that.
async fn until_quiet(
    changes: &mut Streaming<proto::WatchResponse>,
) -> (Vec<proto::WatchResponse>, u64) {
    let mut found = Vec::new();
    loop {
        let response = changes.message().await.unwrap().unwrap();
        if response.change.is_none() {
            return (found, response.position);
        }
        found.push(response);
    }
}

/// The next change.
async fn next(changes: &mut Streaming<proto::WatchResponse>) -> proto::WatchResponse {
    loop {
        let response = changes.message().await.unwrap().unwrap();
        if response.change.is_some() {
            return response;
        }
    }
}

/// Position, time, kind and reservation of every confirmation and release in a store's log.
fn logged(store: &std::path::Path) -> Vec<(u64, u64, String, String)> {
    let store = Store::open_read_only(store).unwrap();
    let (mut found, mut position) = (Vec::new(), 0);
    let each = |leaf: &[u8]| {
        let leaf: Value = serde_json::from_slice(leaf).unwrap();
        let text = |name: &str| leaf["event"][name].as_str().unwrap().to_owned();
        if ["confirmation", "release"].contains(&text("kind").as_str()) {
            let time = leaf["time"].as_u64().unwrap();
            found.push((position, time, text("kind"), text("reservation")));
        }
        position += 1;
        Ok::<(), ReadError>(())
    };
    store.for_each_leaf(0, each).unwrap();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_in_the_order_of_the_log_and_resume_anywhere() {
    let (server, mut ledger) = start().await;
    some_changes(&server, 12).await;
    let (all, last) = until_quiet(&mut watch(&mut ledger, 0, &[]).await).await;
    for from in 0..=last + 1 {
        let (rest, end) = until_quiet(&mut watch(&mut ledger, from, &[]).await).await;
        let expected: Vec<_> = all.iter().filter(|it| it.position >= from).cloned().collect();
        assert_eq!((rest, end), (expected, last), "from {from}");
    }
    let confirmed = watch(&mut ledger, 0, &[ChangeKind::Confirmed]).await;
    let (confirmed, end) = until_quiet(&mut { confirmed }).await;
    assert_eq!((confirmed.len(), end), (6, last));
    let both = [ChangeKind::Released, ChangeKind::Confirmed];
    assert_eq!(until_quiet(&mut watch(&mut ledger, 0, &both).await).await.0, all);
    let none = [ChangeKind::Expired, ChangeKind::EvictionOrdered];
    assert_eq!(until_quiet(&mut watch(&mut ledger, 0, &none).await).await, (Vec::new(), last));

    let directory = server.stop().await;
    assert!(!directory.path().join("placet.db-wal").exists(), "no reader was left behind");
    let told: Vec<_> = all
        .into_iter()
        .map(|it| {
            let (kind, reservation) = match it.change.unwrap() {
                Change::Confirmed(it) => ("confirmation", it.reservation_id),
                Change::Released(it) => ("release", it.reservation_id),
                other => panic!("{other:?}"),
            };
            (it.position, it.time, kind.to_owned(), reservation)
        })
        .collect();
    assert_eq!(told.len(), 10);
    assert_eq!(told, logged(&directory.path().join("placet.db")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_as_it_happens() {
    let (server, mut ledger) = start().await;
    let mut changes = watch(&mut ledger, 0, &[]).await;
    assert!(until_quiet(&mut changes).await.0.is_empty());
    some_changes(&server, 2).await;
    let id = next(&mut changes).await;
    let Some(Change::Confirmed(confirmed)) = &id.change else { panic!("{id:?}") };
    assert_eq!(confirmed.epoch, 1);
    let released = next(&mut changes).await;
    let Some(Change::Released(it)) = &released.change else { panic!("{released:?}") };
    assert_eq!((&it.reservation_id, it.epoch), (&confirmed.reservation_id, 1));
    assert_eq!(released.position, id.position + 1);
    let settled = confirm(&server, "r-1").await;
    let confirmed = next(&mut changes).await;
    assert_eq!((confirmed.time, confirmed.position), (settled.time, released.position + 2));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_slows_nobody_and_loses_nothing() {
    const COUNT: usize = 200;
    let (server, mut ledger) = start().await;
    // The window has room for some ten changes.
    let narrow = server.narrow_channel(512).await;
    let mut slow = watch(&mut LedgerServiceClient::new(narrow), 0, &[]).await;
    let mut quick = watch(&mut ledger, 0, &[]).await;
    let mut reservations = Vec::new();
    for number in 0..COUNT {
        let id = format!("r-{number}");
        server.client().admit(admit(&id)).await.unwrap();
        let released = release(&server, &id).await;
        let Some(Change::Released(told)) = next(&mut quick).await.change else { panic!("{id}") };
        assert_eq!(told.reservation_id, released.reservation_id, "{id}");
        reservations.push(told.reservation_id);
    }
    for reservation in reservations {
        let Some(Change::Released(told)) = next(&mut slow).await.change else { panic!("released") };
        assert_eq!(told.reservation_id, reservation);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_refused_before_the_stream_begins() {
    let (server, mut ledger) = start().await;
    let last = until_quiet(&mut watch(&mut ledger, 0, &[]).await).await.1;
    let ahead = proto::WatchRequest { position: last + 2, kinds: Vec::new() };
    let ahead = ledger.watch(ahead).await.unwrap_err();
    assert_eq!(ahead.code(), Code::FailedPrecondition);
    let details = ahead.get_error_details();
    assert_eq!(details.error_info().map(|it| it.reason.as_str()), Some("POSITION_AHEAD"));
    assert!(ahead.message().starts_with("`position` is "), "{ahead:?}");
    let twice = proto::WatchRequest { position: 0, kinds: vec![ChangeKind::Expired.into(); 2] };
    let twice = ledger.watch(twice).await.unwrap_err();
    assert_eq!(twice.code(), Code::InvalidArgument);
    assert!(twice.message().contains("`kinds[1]` is named twice"), "{twice:?}");
    server.stop().await;

    let server = Running::start().await;
    let mut ledger = LedgerServiceClient::new(server.channel.clone());
    let refused = ledger.watch(proto::WatchRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_does_not_keep_the_server_from_stopping() {
    let (server, mut ledger) = start().await;
    let mut changes = watch(&mut ledger, 0, &[]).await;
    until_quiet(&mut changes).await;
    drop(ledger);
    server.stop().await;
    let end = changes.message().await.unwrap_err();
    let details = end.get_error_details();
    assert_eq!(details.error_info().map(|it| it.reason.as_str()), Some("STOPPING"));
}

/// Every change in a log.
fn changes(sequencer: &SequencerHandle) -> Vec<proto::WatchResponse> {
    let leaves = sequencer.reader().leaves(0, 1_000).unwrap();
    let leaves = leaves.iter().map(|leaf| serde_json::from_slice::<Leaf>(leaf).unwrap());
    (0..).zip(leaves).filter_map(|(at, leaf)| convert::change(at, leaf)).collect()
}

#[test]
fn an_eviction_is_ordered_takes_effect_and_is_over() {
    let world = World::new();
    run(async {
        let sequencer = world.start();
        for name in ["e-1", "e-2"] {
            decide(&sequencer, sold(name, 20)).await.unwrap();
            settled(&sequencer, settle(SettleKind::Confirm, name, 1_000)).await.unwrap();
        }
        // The first announcement comes to nothing, the second one takes effect.
        decide(&sequencer, burst("i-1", 18, 1_100)).await.unwrap();
        decide(&sequencer, burst("i-2", 18, 1_200)).await.unwrap();
        settled(&sequencer, settle(SettleKind::Confirm, "i-2", 1_220)).await.unwrap();
        decide(&sequencer, proposal("n-1", 1, 60, 1_260)).await.unwrap();

        let mut names = BTreeMap::new();
        let mut name = |id: String| {
            let fresh = names.len();
            *names.entry(id).or_insert(fresh)
        };
        let told: Vec<_> = changes(&sequencer)
            .into_iter()
            .map(|it| match it.change.unwrap() {
                Change::EvictionOrdered(order) => {
                    assert_eq!(order.token.split('.').count(), 3, "a compact JWS");
                    let (victim, preemptor) = (name(order.victim), name(order.preemptor));
                    let by = order.evict_by;
                    format!("{} {victim} makes room for {preemptor} by {by}", it.time)
                }
                Change::Confirmed(own) => {
                    format!("{} {} confirmed, {}", it.time, name(own.reservation_id), own.epoch)
                }
                Change::Released(own) => panic!("{own:?}"),
                Change::Expired(own) => {
                    let (cause, epoch) = (own.cause().as_str_name(), own.epoch);
                    format!("{} {} {cause}, {epoch}", it.time, name(own.reservation_id))
                }
            })
            .collect();
        let victim = if told[2].contains(" 0 makes") { 0 } else { 1 };
        let expected = [
            "1000 0 confirmed, 1".to_owned(),
            "1000 1 confirmed, 1".to_owned(),
            format!("1100 {victim} makes room for 2 by 1160"),
            "1160 2 UNCONFIRMED, 1".to_owned(),
            format!("1200 {victim} makes room for 3 by 1260"),
            "1220 3 confirmed, 1".to_owned(),
            format!("1260 {victim} EVICTED, 2"),
        ];
        assert_eq!(told, expected);
        sequencer.close().await;
    });
}
