use placet_core::{Digest, SubjectKind, canonical_json};
use proptest::prelude::*;
use proto::admit_request::Subject as Asked;

use super::*;

fn lease() -> proto::Lease {
    proto::Lease {
        cluster_id: "c-1".into(),
        gpu_count: 8,
        duration_seconds: 3_600,
        isolation_level: proto::IsolationLevel::Dedicated.into(),
        gpu_models: vec!["H100".into(), "A100".into()],
        ..proto::Lease::default()
    }
}

fn admit() -> proto::AdmitRequest {
    proto::AdmitRequest {
        request_id: "r-1".into(),
        tenant_id: "acme".into(),
        principal: Some(proto::Principal {
            issuer: "https://id.example".into(),
            subject: "Zo\u{eb}".into(),
            groups: vec!["research".into()],
        }),
        extends: None,
        waivers: Vec::new(),
        priority_class: proto::PriorityClass::InternalResearch.into(),
        subject: Some(Asked::Lease(lease())),
    }
}

fn release() -> proto::ReleaseRequest {
    proto::ReleaseRequest {
        request_id: "r-2".into(),
        tenant_id: "acme".into(),
        reservation: Some(proto::ReservationRef {
            target: Some(proto::reservation_ref::Target::ReservationId("d-1".into())),
            epoch: 1,
        }),
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("n-{number}")).collect()
}

fn refusal(spoil: impl FnOnce(&mut proto::AdmitRequest)) -> (&'static str, String) {
    let mut request = admit();
    spoil(&mut request);
    let error = admission_request(request).expect_err("a bound is broken");
    assert!(!error.hint.is_empty(), "{error}");
    (error.code, error.field)
}

fn lease_refusal(spoil: impl FnOnce(&mut proto::Lease)) -> (&'static str, String) {
    refusal(|request| {
        let mut lease = lease();
        spoil(&mut lease);
        request.subject = Some(Asked::Lease(lease));
    })
}

#[test]
fn a_good_request_keeps_everything_and_gets_the_default() {
    let request = admission_request(admit()).expect("it keeps every bound");
    assert_eq!(request.subject.kind(), SubjectKind::Lease);
    assert_eq!(request.subject.workload().gpu_milli, MILLI_PER_GPU);
    let canonical = String::from_utf8(canonical_json(&request).unwrap()).unwrap();
    assert!(canonical.contains(r#""gpu_models":["H100","A100"]"#), "{canonical}");
    assert!(!canonical.contains("Zo"), "personal fields stay out: {canonical}");
}

#[test]
fn what_is_missing_is_named() {
    let missing = |field: &str| ("MISSING_FIELD", field.to_owned());
    assert_eq!(refusal(|it| it.request_id.clear()), missing("request_id"));
    assert_eq!(refusal(|it| it.tenant_id.clear()), missing("tenant_id"));
    assert_eq!(refusal(|it| it.priority_class = 0), missing("priority_class"));
    assert_eq!(refusal(|it| it.subject = None), missing("subject"));
    assert_eq!(lease_refusal(|it| it.cluster_id.clear()), missing("lease.cluster_id"));
    assert_eq!(lease_refusal(|it| it.isolation_level = 0), missing("lease.isolation_level"));
    assert_eq!(lease_refusal(|it| it.gpu_models.clear()), missing("lease.gpu_models"));
    let nobody = || Some(proto::Principal::default());
    assert_eq!(refusal(|it| it.principal = nobody()), missing("principal.issuer"));
    assert_eq!(admission_request(proto::AdmitRequest::default()).unwrap_err().field, "request_id");
}

#[test]
fn waivers_have_the_form_of_what_is_signed() {
    let with = |waivers: &[&str]| {
        let waivers: Vec<String> = waivers.iter().map(|text| (*text).to_owned()).collect();
        refusal(|it| it.waivers = waivers)
    };
    let bad = |field: &str| ("BAD_TEXT", field.to_owned());
    for text in ["", "a.b", "a..c", "a.b.c.d", "a.b.c=", "a.b. c", &"x.".repeat(2_049)] {
        assert_eq!(with(&[text]), bad("waivers[0]"), "{text}");
    }
    assert_eq!(with(&["a.b.c", "a.b.d", "a.b.c"]), ("DUPLICATE", "waivers[2]".to_owned()));
    let five = ["a.b.1", "a.b.2", "a.b.3", "a.b.4", "a.b.5"];
    assert_eq!(with(&five), ("TOO_MANY", "waivers".to_owned()));
    let with = |waivers| admission_request(proto::AdmitRequest { waivers, ..admit() }).unwrap();
    let digest = |request| Digest::of(&canonical_json(&request).unwrap());
    let four = five[..4].iter().map(|text| (*text).to_owned()).collect();
    assert_ne!(digest(with(four)), digest(with(Vec::new())), "a request is told by them too");
}

#[test]
fn each_bound_is_held() {
    let out = |field: &str| ("OUT_OF_BOUNDS", field.to_owned());
    assert_eq!(lease_refusal(|it| it.gpu_count = 0), out("lease.gpu_count"));
    assert_eq!(lease_refusal(|it| it.gpu_count = 1_000_001), out("lease.gpu_count"));
    assert_eq!(lease_refusal(|it| it.duration_seconds = 0), out("lease.duration_seconds"));
    let century = 3_155_760_000;
    assert_eq!(lease_refusal(|it| it.duration_seconds = century), out("lease.duration_seconds"));
    assert_eq!(lease_refusal(|it| it.gpu_milli = 1_001), out("lease.gpu_milli"));
    assert_eq!(lease_refusal(|it| it.fabric_gbps = 10_000_001), out("lease.fabric_gbps"));
    assert_eq!(lease_refusal(|it| it.start = 253_402_300_800), out("lease.start"));
    assert_eq!(lease_refusal(|it| it.start = u64::MAX), out("lease.start"));

    let many = |field: &str| ("TOO_MANY", field.to_owned());
    assert_eq!(lease_refusal(|it| it.gpu_models = names(9)), many("lease.gpu_models"));
    assert_eq!(lease_refusal(|it| it.dataset_ids = names(33)), many("lease.dataset_ids"));
    assert_eq!(lease_refusal(|it| it.model_ids = names(33)), many("lease.model_ids"));
    let jurisdictions = lease_refusal(|it| it.checkpoint_jurisdictions = names(33));
    assert_eq!(jurisdictions, many("lease.checkpoint_jurisdictions"));
    let groups = refusal(|it| it.principal.as_mut().unwrap().groups = names(65));
    assert_eq!(groups, many("principal.groups"));

    let unknown = |field: &str| ("UNKNOWN_ENUM_VALUE", field.to_owned());
    assert_eq!(refusal(|it| it.priority_class = 3), unknown("priority_class"));
    assert_eq!(lease_refusal(|it| it.isolation_level = -1), unknown("lease.isolation_level"));

    let twice = lease_refusal(|it| it.gpu_models = vec!["a".into(), "b".into(), "a".into()]);
    assert_eq!(twice, ("DUPLICATE", "lease.gpu_models[2]".into()));
}

#[test]
fn a_start_is_kept_and_its_absence_changes_no_digest() {
    let converted = |start| {
        let lease = proto::Lease { start, ..lease() };
        let subject = Some(Asked::Lease(lease));
        admission_request(proto::AdmitRequest { subject, ..admit() }).expect("within the bounds")
    };
    let canonical = |request| String::from_utf8(canonical_json(&request).unwrap()).unwrap();
    let none = converted(0);
    assert_eq!(none.subject.workload().start, None);
    assert!(!canonical(none).contains("start"), "as it was before there was such a field");
    // Whether it has passed depends on when it is decided.
    for start in [1, 253_402_300_799] {
        let some = converted(start);
        assert_eq!(some.subject.workload().start, Some(start));
        assert!(canonical(some).contains(&format!(r#""start":{start}"#)));
    }
    let job = proto::Job {
        cluster_id: "c-1".into(),
        gpu_count: 1,
        duration_seconds: 1,
        isolation_level: proto::IsolationLevel::Shared.into(),
        gpu_models: vec!["H100".into()],
        start: 7,
        ..proto::Job::default()
    };
    let subject = Some(Asked::Job(job));
    let job = admission_request(proto::AdmitRequest { subject, ..admit() }).expect("within them");
    assert_eq!(job.subject.workload().start, Some(7));
}

#[test]
fn hostile_names_are_refused_without_being_repeated() {
    for bad in ["a b", "a/b", "a\u{0}", "\u{e4}", "-a", "a\nb", &"x".repeat(10_000_000)] {
        let refused = refusal(|it| it.request_id = bad.to_owned());
        assert_eq!(refused, ("BAD_NAME", "request_id".into()));
        let refused = lease_refusal(|it| it.model_ids = vec!["m".into(), bad.to_owned()]);
        assert_eq!(refused, ("BAD_NAME", "lease.model_ids[1]".into()));
    }
    let mut request = admit();
    request.tenant_id = "x".repeat(10_000_000);
    assert!(admission_request(request).unwrap_err().to_string().len() < 300);

    let subject = |text: &str| refusal(|it| it.principal.as_mut().unwrap().subject = text.into());
    assert_eq!(subject("a\u{7f}b"), ("BAD_TEXT", "principal.subject".into()));
    assert_eq!(subject(&"x".repeat(257)), ("BAD_TEXT", "principal.subject".into()));
    let issuer = refusal(|it| it.principal.as_mut().unwrap().issuer = "a b".into());
    assert_eq!(issuer, ("BAD_TEXT", "principal.issuer".into()));
}

#[test]
fn a_settlement_names_its_reservation_and_epoch() {
    let good = release_request(release()).expect("it keeps every bound");
    assert_eq!(good.target, Target::ById(Id::new("d-1").unwrap()));
    let refusal = |spoil: fn(&mut proto::ReservationRef)| {
        let mut request = release();
        spoil(request.reservation.as_mut().unwrap());
        let error = release_request(request).unwrap_err();
        (error.code, error.field)
    };
    assert_eq!(refusal(|it| it.epoch = 0), ("OUT_OF_BOUNDS", "reservation.epoch".into()));
    assert_eq!(refusal(|it| it.epoch = 1 << 53), ("OUT_OF_BOUNDS", "reservation.epoch".into()));
    assert_eq!(refusal(|it| it.target = None), ("MISSING_FIELD", "reservation.target".into()));
    let bare = proto::ReleaseRequest { reservation: None, ..release() };
    assert_eq!(release_request(bare).unwrap_err().field, "reservation");
}

#[test]
fn a_line_of_jsonl_becomes_an_event() {
    let line = r#"{"release": {"request_id": "r", "tenant_id": "t",
        "reservation": {"admit_request_id": "a", "epoch": 1}}, "time": 5}"#;
    let event = parse_event(line).expect("a good line");
    assert_eq!((event.ask.request_id().as_str(), event.time), ("r", Some(5)));
    let error = parse_event(r#"{"time": 5}"#).unwrap_err();
    assert_eq!((error.code, error.field.as_str()), ("MISSING_FIELD", "event"));
    let late = parse_event(r#"{"admit": {}, "time": 253402300800}"#).unwrap_err();
    assert_eq!((late.code, late.field.as_str()), ("OUT_OF_BOUNDS", "time"));
    assert_eq!(parse_admit("{}").unwrap_err().field, "request_id");
}

prop_compose! {
    fn any_ids(max: usize)(
        ids in prop::collection::hash_set("[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", 0..=max),
    ) -> Vec<String> {
        ids.into_iter().collect()
    }
}

prop_compose! {
    fn any_lease()(
        cluster_id in "[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}",
        gpu_count in 1..=MAX_GPU_COUNT,
        duration_seconds in 1..=MAX_DURATION_SECONDS,
        isolation_level in 1..=5_i32,
        gpu_models in any_ids(MAX_GPU_MODELS).prop_filter("one model", |it| !it.is_empty()),
        gpu_milli in 0..=MILLI_PER_GPU,
        fabric_gbps in 0..=MAX_FABRIC_GBPS,
        (dataset_ids, model_ids) in (any_ids(MAX_REFERENCES), any_ids(MAX_REFERENCES)),
        checkpoint_jurisdictions in any_ids(MAX_REFERENCES),
        (may_preempt, start) in (any::<bool>(), 0..=MAX_TIME),
        (model_use, egress_jurisdictions) in (0..=4_i32, any_ids(MAX_REFERENCES)),
        (egress_bytes, storage_io_bytes) in (0..=MAX_AMOUNT, 0..=MAX_AMOUNT),
    ) -> proto::Lease {
        proto::Lease {
            cluster_id, gpu_count, duration_seconds, isolation_level, gpu_models, gpu_milli,
            fabric_gbps, dataset_ids, model_ids, checkpoint_jurisdictions, may_preempt, start,
            model_use, egress_jurisdictions, egress_bytes, storage_io_bytes,
        }
    }
}

proptest! {
    #[test]
    fn every_request_within_the_bounds_converts(lease in any_lease()) {
        let subject = Some(Asked::Lease(lease.clone()));
        let request = admission_request(proto::AdmitRequest { subject, ..admit() });
        let request = request.expect("every bound is kept");
        let workload = request.subject.workload();
        prop_assert_eq!(workload.gpu_count, lease.gpu_count);
        prop_assert_eq!(workload.duration_seconds, lease.duration_seconds);
        prop_assert_eq!(workload.may_preempt, lease.may_preempt);
        prop_assert_eq!(workload.egress_bytes, lease.egress_bytes);
        prop_assert_eq!(workload.storage_io_bytes, lease.storage_io_bytes);
        prop_assert_eq!(workload.model_use.is_some(), lease.model_use > 0);
        prop_assert_eq!(workload.egress_jurisdictions.len(), lease.egress_jurisdictions.len());
        prop_assert_eq!(workload.start.unwrap_or(0), lease.start);
        prop_assert!((1..=MILLI_PER_GPU).contains(&workload.gpu_milli));
        let kept: Vec<_> = workload.model_ids.iter().map(|it| it.as_str().to_owned()).collect();
        prop_assert_eq!(kept, lease.model_ids, "in the request's order");
    }

    #[test]
    fn one_bound_broken_is_refused_by_name(lease in any_lease(), which in 0..10_usize) {
        let mut bad = lease;
        let field = match which {
            0 => { bad.gpu_count = 0; "gpu_count" }
            1 => { bad.gpu_count = MAX_GPU_COUNT + 1; "gpu_count" }
            2 => { bad.duration_seconds = MAX_DURATION_SECONDS + 1; "duration_seconds" }
            3 => { bad.gpu_milli = MILLI_PER_GPU + 1; "gpu_milli" }
            4 => { bad.fabric_gbps = MAX_FABRIC_GBPS + 1; "fabric_gbps" }
            5 => { bad.start = MAX_TIME + 1; "start" }
            6 => { bad.model_use = 5; "model_use" }
            7 => { bad.egress_bytes = MAX_AMOUNT + 1; "egress_bytes" }
            8 => { bad.storage_io_bytes = MAX_AMOUNT + 1; "storage_io_bytes" }
            _ => { bad.isolation_level = 6; "isolation_level" }
        };
        let subject = Some(Asked::Lease(bad));
        let error = admission_request(proto::AdmitRequest { subject, ..admit() });
        prop_assert_eq!(error.expect_err("one bound is broken").field, format!("lease.{field}"));
    }
}
