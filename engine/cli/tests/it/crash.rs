//! `kill -9` under load: what was acknowledged stays, once and unchanged, and no limit is passed.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use placet_core::{Decision, Effect};
use placet_proto::admission::v1 as pb;
use placet_proto::admission::v1::stream_request::Event;
use placet_proto::admission::v1::stream_response::Answer;

use crate::server::{Server, claims};

/// Time of the first event: 2026-11-21T00:00:00Z.
const START: u64 = 1_795_219_200;
/// GPUs of the one cluster, in thousandths.
const CAPACITY: u64 = 40_000;

const FACTS: &str = r#"
schema: placet.facts/v1
revision: crash
tenants:
  - id: research
    kind: OWN
    allowed_jurisdictions: []
    attestations: []
    licensed_models: []
    min_isolation: SHARED
    priority_classes: [INTERNAL_RESEARCH]
  - id: customer
    kind: CUSTOMER
    allowed_jurisdictions: []
    attestations: [{framework: ISO27001, valid_from: 0, valid_until: 4000000000}]
    licensed_models: []
    min_isolation: SHARED
    priority_classes: [EXTERNAL_COMMERCIAL]
clusters:
  - id: c1
    jurisdiction: DE
    attestations:
      - {framework: SOC2, valid_from: 0, valid_until: 4000000000}
      - {framework: ISO27001, valid_from: 0, valid_until: 4000000000}
    isolation_levels: [SHARED, PARTITIONED, PASSTHROUGH, DEDICATED, CONFIDENTIAL]
    fabric_gbps: 1000
    gpus: [{model: H100, count: 40, safety_buffer: 8}]
datasets: []
models: []
quotas:
  - {account: tenant/research/gpu, kind: level, unit: milli-gpu, limit: 36000}
  - {account: "tenant/research/gpu-seconds/{month}", kind: budget, unit: gpu-second, limit: 400000}
  - {account: tenant/customer/gpu, kind: level, unit: milli-gpu, limit: 30000}
  - {account: "tenant/customer/gpu-seconds/{month}", kind: budget, unit: gpu-second, limit: 400000}
"#;

/// A small generator of our own, so that the load is the same in every run (Knuth's MMIX
/// constants).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn admit(number: u64, dice: &mut Dice) -> pb::AdmitRequest {
    let internal = dice.below(2) == 0;
    let (tenant, class) = if internal {
        ("research", pb::PriorityClass::InternalResearch)
    } else {
        ("customer", pb::PriorityClass::ExternalCommercial)
    };
    pb::AdmitRequest {
        request_id: format!("admit-{number}"),
        tenant_id: tenant.into(),
        extends: None,
        waivers: Vec::new(),
        priority_class: class.into(),
        principal: Some(pb::Principal {
            issuer: "https://idp.example".into(),
            subject: format!("person-{number}"),
            groups: vec![],
        }),
        subject: Some(pb::admit_request::Subject::Lease(pb::Lease {
            cluster_id: "c1".into(),
            gpu_count: u32::try_from(1 + dice.below(8)).expect("small"),
            duration_seconds: 60 + dice.below(1_200),
            isolation_level: pb::IsolationLevel::Partitioned.into(),
            gpu_models: vec!["H100".into()],
            ..pb::Lease::default()
        })),
    }
}

/// A fixed day of events, in order of time.
fn events() -> Vec<pb::StreamRequest> {
    let mut dice = Dice(20_261_121);
    let mut events = Vec::new();
    let mut time = START;
    let mut tenants = Vec::new();
    for number in 0..400 {
        time += dice.below(40);
        let request = admit(number, &mut dice);
        tenants.push(request.tenant_id.clone());
        events.push(pb::StreamRequest { event: Some(Event::Admit(request)), time: Some(time) });
        let settle = |verb: &str, of: u64, tenants: &[String]| {
            let target = pb::reservation_ref::Target::AdmitRequestId(format!("admit-{of}"));
            let reservation = Some(pb::ReservationRef { epoch: 1, target: Some(target) });
            let tenant_id = tenants[usize::try_from(of).expect("small")].clone();
            (format!("{verb}-{of}"), tenant_id, reservation)
        };
        if dice.below(4) > 0 {
            let (request_id, tenant_id, reservation) = settle("confirm", number, &tenants);
            let confirm = pb::ConfirmRequest { request_id, tenant_id, reservation };
            let event = Some(Event::Confirm(confirm));
            events.push(pb::StreamRequest { event, time: Some(time) });
        }
        if number > 10 && dice.below(3) == 0 {
            let of = number - 1 - dice.below(10);
            let (request_id, tenant_id, reservation) = settle("release", of, &tenants);
            let request_id = format!("{request_id}-at-{number}");
            let release = pb::ReleaseRequest { request_id, tenant_id, reservation };
            let event = Some(Event::Release(release));
            events.push(pb::StreamRequest { event, time: Some(time) });
        }
    }
    events
}

/// Streams all events to a fresh process and kills it after `kill_after` answers; the answers that
/// came.
fn run(
    folder: &std::path::Path,
    events: &[pb::StreamRequest],
    kill_after: usize,
) -> Vec<pb::StreamResponse> {
    let mut server = Server::start(folder, &["--clock", "events"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut answers = Vec::new();
    runtime.block_on(async {
        let mut client = server.client().await;
        let stream = stream::iter(events.to_vec());
        let mut incoming = client.admit_stream(stream).await.expect("a stream").into_inner();
        while let Some(Ok(answer)) = incoming.next().await {
            answers.push(answer);
            if answers.len() == kill_after {
                server.kill();
            }
        }
    });
    answers
}

#[test]
fn kill_nine_under_load_loses_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("facts.yaml"), FACTS).expect("written");
    let events = events();
    let mut acknowledged: BTreeMap<String, Answer> = BTreeMap::new();
    for kill_after in [1, 57, 150, 151, 400, usize::MAX] {
        let answers = run(folder.path(), &events, kill_after);
        assert!(answers.len() >= kill_after.min(events.len()), "killed too early");
        for (answer, event) in answers.iter().zip(&events) {
            let is_admit = matches!(event.event, Some(Event::Admit(_)));
            let new = answer.answer.clone().expect("every answer says something");
            let id = answer.request_id.clone();
            match acknowledged.get(&id) {
                Some(first) if is_admit => assert_eq!(first, &new, "{id} changed"),
                Some(_) => {}
                None => {
                    acknowledged.insert(id, new);
                }
            }
        }
    }
    assert_eq!(acknowledged.len(), events.len(), "every event was answered in the end");
    audit(&events, &acknowledged);
}

/// Amount held on an account over an interval.
struct Held {
    account: String,
    amount: u64,
    start: u64,
    end: u64,
}

/// An auditor with a model of its own: intervals in a list.
fn audit(events: &[pb::StreamRequest], acknowledged: &BTreeMap<String, Answer>) {
    let mut held: BTreeMap<String, Vec<Held>> = BTreeMap::new();
    let mut confirmed: BTreeMap<String, u64> = BTreeMap::new();
    let (mut permits, mut denials) = (0, 0);
    for event in events {
        let time = event.time.expect("every event has one");
        match event.event.as_ref().expect("every event is one") {
            Event::Admit(request) => {
                let Some(Answer::Admitted(answer)) = acknowledged.get(&request.request_id) else {
                    panic!("{} was not decided", request.request_id);
                };
                let decision: Decision = claims(&answer.token);
                assert_eq!(decision.request_id.as_str(), request.request_id);
                assert_eq!(decision.iat, time);
                let Some(reservation) = decision.reservation else {
                    assert_eq!(decision.effect, Effect::Deny);
                    denials += 1;
                    continue;
                };
                permits += 1;
                // Until it is confirmed it is held no longer than its deadline.
                confirmed.insert(request.request_id.clone(), reservation.confirm_by);
                let held = held.entry(request.request_id.clone()).or_default();
                for charge in reservation.charges {
                    held.push(Held {
                        account: charge.account.to_string(),
                        amount: charge.amount,
                        start: reservation.start,
                        end: reservation.end,
                    });
                }
            }
            Event::Confirm(confirm) => settle(
                &mut held,
                acknowledged,
                &confirm.request_id,
                confirm.reservation.as_ref(),
                &mut confirmed,
                None,
            ),
            Event::Release(release) => settle(
                &mut held,
                acknowledged,
                &release.request_id,
                release.reservation.as_ref(),
                &mut confirmed,
                Some(time),
            ),
        }
    }
    for (request, deadline) in confirmed {
        for held in held.get_mut(&request).into_iter().flatten() {
            held.end = held.end.min(deadline);
        }
    }
    assert!(permits > 100 && denials > 20, "a load worth the name: {permits} and {denials}");
    within_limits(&held.into_values().flatten().collect::<Vec<_>>());
}

/// At every instant at which something begins, the sum of what is held is within the limits.
fn within_limits(held: &[Held]) {
    let limits = [
        ("cluster/c1/gpu/H100", CAPACITY),
        ("tenant/research/gpu", 36_000),
        ("tenant/customer/gpu", 30_000),
    ];
    for (account, limit) in limits {
        let on = |held: &&Held| held.account == account;
        for instant in held.iter().filter(on).map(|held| held.start) {
            let live = |held: &&Held| held.start <= instant && instant < held.end;
            let used: u64 = held.iter().filter(on).filter(live).map(|held| held.amount).sum();
            assert!(used <= limit, "{account} held {used} of {limit} at {instant}");
        }
    }
}

fn settle(
    held: &mut BTreeMap<String, Vec<Held>>,
    acknowledged: &BTreeMap<String, Answer>,
    request_id: &str,
    reservation: Option<&pb::ReservationRef>,
    unconfirmed: &mut BTreeMap<String, u64>,
    released_at: Option<u64>,
) {
    let Some(pb::reservation_ref::Target::AdmitRequestId(of)) =
        reservation.and_then(|reservation| reservation.target.clone())
    else {
        panic!("the load names request ids");
    };
    let Some(Answer::Settled(settled)) = acknowledged.get(request_id) else {
        // Refused: too late, or ended already. Then nothing has changed.
        return;
    };
    match (settled.state(), released_at) {
        (pb::ReservationState::Active, None) => {
            unconfirmed.remove(&of);
        }
        (pb::ReservationState::Released, Some(time)) => {
            unconfirmed.remove(&of);
            for held in held.get_mut(&of).into_iter().flatten() {
                held.end = held.end.min(time);
            }
        }
        (pb::ReservationState::NotReserved, _) => assert!(!held.contains_key(&of)),
        (state, _) => panic!("{request_id} was answered with {state:?}"),
    }
}
