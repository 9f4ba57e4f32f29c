//! The whole server over a real connection: what a PEP sees of good requests and of bad ones.

use futures::{StreamExt as _, stream};
use placet_proto::admission::v1 as proto;
use placet_proto::json::from_json;
use proto::stream_request::Event;
use proto::stream_response::Answer;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::running::Running;

/// Events of one stream, and their answers.
trait Streams {
    async fn stream(&self, events: Vec<Event>) -> Vec<Result<proto::StreamResponse, Status>>;
}

impl Streams for Running {
    async fn stream(&self, events: Vec<Event>) -> Vec<Result<proto::StreamResponse, Status>> {
        let events = events.into_iter().map(at_no_time);
        let answers = self.client().admit_stream(stream::iter(events)).await.unwrap();
        answers.into_inner().collect().await
    }
}

fn at_no_time(event: Event) -> proto::StreamRequest {
    proto::StreamRequest { event: Some(event), time: None }
}

fn admit(request_id: &str) -> proto::AdmitRequest {
    let lease = r#"{"tenant_id": "platform-tools", "priority_class": "INTERNAL_RESEARCH",
        "lease": {"cluster_id": "de-fra-edge", "gpu_count": 1, "duration_seconds": 3600,
        "isolation_level": "SHARED", "gpu_models": ["A100"]}}"#;
    proto::AdmitRequest { request_id: request_id.to_owned(), ..from_json(lease).unwrap() }
}

fn reservation_of(request_id: &str) -> Option<proto::ReservationRef> {
    let target = proto::reservation_ref::Target::AdmitRequestId(request_id.to_owned());
    Some(proto::ReservationRef { target: Some(target), epoch: 1 })
}

fn confirm(request_id: &str, of: &str) -> proto::ConfirmRequest {
    proto::ConfirmRequest {
        request_id: request_id.to_owned(),
        tenant_id: "platform-tools".to_owned(),
        reservation: reservation_of(of),
    }
}

fn release(request_id: &str, of: &str) -> proto::ReleaseRequest {
    proto::ReleaseRequest {
        request_id: request_id.to_owned(),
        tenant_id: "platform-tools".to_owned(),
        reservation: reservation_of(of),
    }
}

/// Status code, stable code and field of a refusal.
fn told(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let code = details.error_info().map(|it| it.reason.clone()).unwrap_or_default();
    let fields = details.bad_request().map(|it| it.field_violations.as_slice()).unwrap_or_default();
    (status.code(), code, fields.first().map(|it| it.field.clone()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_field_and_the_server_goes_on() {
    let server = Running::start().await;
    let mut client = server.client();
    let good = client.admit(admit("good")).await.unwrap().into_inner();
    let invalid = |code: &str, field: &str| (Code::InvalidArgument, code.into(), field.into());

    let mut bad = admit(&"x".repeat(10_000_000));
    assert_eq!(told(&client.admit(bad).await.unwrap_err()), invalid("TOO_LARGE", ""));
    bad = proto::AdmitRequest { priority_class: 9, ..admit("bad") };
    let refused = told(&client.admit(bad).await.unwrap_err());
    assert_eq!(refused, invalid("UNKNOWN_ENUM_VALUE", "priority_class"));
    let refused = told(&client.admit(proto::AdmitRequest::default()).await.unwrap_err());
    assert_eq!(refused, invalid("MISSING_FIELD", "request_id"));
    bad = proto::AdmitRequest { tenant_id: "a\u{0}b".to_owned(), ..admit("bad") };
    assert_eq!(told(&client.admit(bad).await.unwrap_err()), invalid("BAD_NAME", "tenant_id"));
    let refused = client.explain(proto::ExplainRequest { admit: None }).await.unwrap_err();
    assert_eq!(told(&refused), invalid("MISSING_FIELD", "admit"));

    let other = proto::AdmitRequest { tenant_id: "acme".to_owned(), ..admit("good") };
    let refused = told(&client.admit(other).await.unwrap_err());
    assert_eq!(refused, (Code::AlreadyExists, "REQUEST_ID_REUSED".into(), "request_id".into()));
    let refused = client.confirm(confirm("c", "never-asked")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    let mut stale = confirm("c", "good");
    stale.reservation.as_mut().unwrap().epoch = 7;
    let refused = told(&client.confirm(stale).await.unwrap_err());
    let expected = (Code::FailedPrecondition, "STALE_EPOCH".into(), "reservation.epoch".into());
    assert_eq!(refused, expected);

    let again = client.admit(admit("good")).await.unwrap().into_inner();
    assert_eq!(again, good, "the first answer, byte for byte");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_sequenced_and_answered_in_the_order_sent() {
    let server = Running::start().await;
    let mut events = Vec::new();
    for number in 0..100 {
        let id = format!("r-{number}");
        events.push(Event::Admit(admit(&id)));
        events.push(Event::Confirm(confirm(&format!("{id}-confirm"), &id)));
        events.push(Event::Release(release(&format!("{id}-release"), &id)));
    }
    let bad = proto::AdmitRequest { tenant_id: "a b".to_owned(), ..admit("spoilt") };
    events.insert(150, Event::Admit(bad));
    let answers = server.stream(events).await;
    assert_eq!(answers.len(), 301);
    let (mut position, mut spoilt) = (None, 0);
    for (number, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect("the stream goes on");
        match answer.answer.unwrap() {
            Answer::Admitted(it) => {
                assert_eq!(it.effect(), proto::Effect::Permit, "{number}: each was released");
                assert!(position < Some(it.position), "{number}: sequenced in order");
                position = Some(it.position);
            }
            Answer::Settled(it) => {
                let confirmed = answer.request_id.ends_with("confirm");
                let [active, released] =
                    [proto::ReservationState::Active, proto::ReservationState::Released];
                assert_eq!(it.state(), if confirmed { active } else { released }, "{number}");
            }
            Answer::Error(it) => {
                assert_eq!((number, answer.request_id.as_str()), (150, "spoilt"));
                assert_eq!((it.code.as_str(), it.field.as_str()), ("BAD_NAME", "tenant_id"));
                assert_eq!(it.status, i32::from(Code::InvalidArgument));
                spoilt += 1;
            }
        }
    }
    assert_eq!(spoilt, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecodable_event_ends_the_stream_after_the_earlier_answers() {
    let server = Running::start().await;
    let unknown = proto::AdmitRequest { priority_class: 7, ..admit("bad") };
    let large = admit(&"x".repeat(100_000));
    for (round, (bad, code)) in
        [(unknown, "UNKNOWN_ENUM_VALUE"), (large, "TOO_LARGE")].into_iter().enumerate()
    {
        let id = |number: usize| format!("r-{round}-{number}");
        let mut events: Vec<_> = (0..20).map(|it| Event::Admit(admit(&id(it)))).collect();
        events[10] = Event::Admit(bad);
        let answers = server.stream(events).await;
        assert_eq!(answers.len(), 11);
        for (number, answer) in answers.iter().take(10).enumerate() {
            assert_eq!(answer.as_ref().unwrap().request_id, id(number));
        }
        let (status, told, _) = told(answers[10].as_ref().unwrap_err());
        assert_eq!((status, told.as_str()), (Code::InvalidArgument, code));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_may_not_bring_its_own_time_to_a_server_with_a_clock() {
    let server = Running::start().await;
    let event = Some(Event::Admit(admit("timed")));
    let events =
        [proto::StreamRequest { event, time: Some(4) }, at_no_time(Event::Admit(admit("r")))];
    let answers = server.client().admit_stream(stream::iter(events)).await.unwrap();
    let answers: Vec<_> = answers.into_inner().collect().await;
    let Some(Answer::Error(refused)) = &answers[0].as_ref().unwrap().answer else {
        panic!("{answers:?}");
    };
    assert_eq!((refused.code.as_str(), refused.field.as_str()), ("TIME_NOT_TAKEN", "time"));
    assert!(matches!(answers[1].as_ref().unwrap().answer, Some(Answer::Admitted(_))));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_the_server_unharmed() {
    let server = Running::start().await;
    for round in 0..5 {
        let id = move |number: usize| format!("gone-{round}-{number}");
        let events = (0..200).map(move |it| at_no_time(Event::Admit(admit(&id(it)))));
        // Never ends by itself, so that the server is in the middle of it when the client goes.
        let events = stream::iter(events).chain(stream::pending());
        let mut answers = server.client().admit_stream(events).await.unwrap().into_inner();
        assert!(answers.next().await.is_some_and(|it| it.is_ok()));
        drop(answers);
    }
    let admitted = server.client().admit(admit("after")).await.unwrap().into_inner();
    assert_eq!(admitted.request_id, "after");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_never_ends_does_not_keep_the_server_from_stopping() {
    let server = Running::start().await;
    let events = stream::iter([at_no_time(Event::Admit(admit("r")))]).chain(stream::pending());
    let mut answers = server.client().admit_stream(events).await.unwrap().into_inner();
    assert!(answers.next().await.is_some_and(|it| it.is_ok()));
    server.stop().await;
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(told(&refused), (Code::Unavailable, "STOPPING".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    };
    let server = Running::start().await;
    for service in ["", "placet.admission.v1.AdmissionService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(server.channel.clone()).check(request).await.unwrap();
        assert_eq!(answer.into_inner().status().as_str_name(), "SERVING");
    }
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(server.channel.clone());
    let answers = reflection.server_reflection_info(stream::iter([ask])).await.unwrap();
    let answer = format!("{:?}", answers.into_inner().next().await.unwrap().unwrap());
    assert!(answer.contains("placet.admission.v1.AdmissionService"), "{answer}");
    drop(reflection);
    server.stop().await;
}

fn gang(members: Vec<proto::AdmitRequest>) -> proto::AdmitGangRequest {
    proto::AdmitGangRequest { gang_id: "g-1".to_owned(), members }
}

fn lease(request: &mut proto::AdmitRequest) -> &mut proto::Lease {
    match &mut request.subject {
        Some(proto::admit_request::Subject::Lease(lease)) => lease,
        other => panic!("{other:?} is no lease"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_is_answered_member_by_member_and_bad_ones_are_refused_with_the_place() {
    let server = Running::start().await;
    let mut client = server.client();
    let together = || gang(vec![admit("m-0"), admit("m-1")]);
    let good = client.admit_gang(together()).await.unwrap().into_inner();
    assert_eq!((good.gang_id.as_str(), good.members.len()), ("g-1", 2));
    assert!(good.members.iter().all(|one| one.effect() == proto::Effect::Permit));
    let names: Vec<_> = good.members.iter().map(|one| one.request_id.as_str()).collect();
    assert_eq!(names, ["m-0", "m-1"]);
    let again = client.admit_gang(together()).await.unwrap().into_inner();
    assert_eq!(again, good, "the first answers, byte for byte");

    // The smallest cluster has 8: one member that is denied denies the other.
    let mut large = admit("n-1");
    lease(&mut large).gpu_count = 7;
    let denied = client.admit_gang(gang(vec![admit("n-0"), large])).await.unwrap().into_inner();
    assert!(denied.members.iter().all(|one| one.effect() == proto::Effect::Deny));

    let extends = proto::Extends { reservation_id: "r".to_owned(), epoch: 1, start: 1, end: 2 };
    let extending = proto::AdmitRequest { extends: Some(extends), ..admit("o-1") };
    let unnamed = proto::AdmitGangRequest { gang_id: String::new(), ..together() };
    for (bad, code, field) in [
        (gang(vec![admit("o-0")]), "TOO_MANY", "members"),
        (gang((0..33).map(|at| admit(&format!("o-{at}"))).collect()), "TOO_MANY", "members"),
        (gang(vec![admit("o-0"), admit("o-0")]), "DUPLICATE", "members[1].request_id"),
        (gang(vec![admit("o-0"), admit("")]), "MISSING_FIELD", "members[1].request_id"),
        (gang(vec![admit("o-0"), extending]), "OUT_OF_BOUNDS", "members[1].extends"),
        (unnamed, "MISSING_FIELD", "gang_id"),
    ] {
        let status = client.admit_gang(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let reason = details.error_info().map(|it| it.reason.as_str());
        let place = &details.bad_request().unwrap().field_violations[0].field;
        assert_eq!((reason, place.as_str()), (Some(code), field));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_names_what_is_held_and_nothing_that_it_cannot_change() {
    let server = Running::start().await;
    let mut client = server.client();
    let extends =
        || proto::Extends { reservation_id: "rsv-1".to_owned(), epoch: 1, start: 5, end: 9 };
    let asked = |extends, change: &dyn Fn(&mut proto::Lease)| {
        let mut request = proto::AdmitRequest { extends: Some(extends), ..admit("x-1") };
        change(lease(&mut request));
        request
    };
    let same = |_: &mut proto::Lease| {};
    let models = |lease: &mut proto::Lease| lease.gpu_models = vec!["A100".into(), "H100".into()];
    for (bad, code, field) in [
        (asked(proto::Extends { epoch: 0, ..extends() }, &same), "OUT_OF_BOUNDS", "extends.epoch"),
        (asked(proto::Extends { end: 5, ..extends() }, &same), "OUT_OF_BOUNDS", "extends.end"),
        (asked(proto::Extends { start: 0, ..extends() }, &same), "OUT_OF_BOUNDS", "extends.start"),
        (asked(extends(), &|lease| lease.start = 7), "OUT_OF_BOUNDS", "lease.start"),
        (asked(extends(), &|lease| lease.may_preempt = true), "OUT_OF_BOUNDS", "lease.may_preempt"),
        (asked(extends(), &models), "OUT_OF_BOUNDS", "lease.gpu_models"),
    ] {
        let status = client.admit(bad).await.unwrap_err();
        let details = status.get_error_details();
        let reason = details.error_info().map(|it| it.reason.as_str());
        let place = &details.bad_request().unwrap().field_violations[0].field;
        assert_eq!((reason, place.as_str()), (Some(code), field), "{status:?}");
    }
    let decided = client.admit(asked(extends(), &same)).await.unwrap().into_inner();
    assert_eq!(decided.effect(), proto::Effect::Deny, "it has ended long ago");
    server.stop().await;
}
