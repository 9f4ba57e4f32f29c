use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::admission::v1::{AdmitRequest, PriorityClass, StreamRequest, StreamResponse};
use crate::samples::any_message;

fn refusal(text: &str) -> (&'static str, String) {
    let error = from_json::<StreamRequest>(text).expect_err("the text breaks a rule");
    (error.code, error.field)
}

#[test]
fn both_spellings_of_names_and_numbers_are_read() {
    let snake = r#"{"admit": {"request_id": "r", "priority_class": "INTERNAL_RESEARCH",
        "lease": {"gpu_count": 4, "duration_seconds": 60, "gpu_models": ["H100"]}}, "time": 7}"#;
    let camel = r#"{"admit": {"requestId": "r", "priorityClass": "INTERNAL_RESEARCH",
        "tenantId": null, "lease": {"gpuCount": "4", "durationSeconds": "60",
        "gpuModels": ["H100"]}}, "time": "7"}"#;
    let event: StreamRequest = from_json(snake).expect("snake_case is read");
    assert_eq!(from_json::<StreamRequest>(camel), Ok(event.clone()));
    assert_eq!(event.time, Some(7));
    let written = to_json(&event);
    assert_eq!(written["admit"]["lease"]["duration_seconds"], json!(60));
    assert_eq!(written["admit"]["priority_class"], json!("INTERNAL_RESEARCH"));
    assert_eq!(from_json::<StreamRequest>(&written.to_string()), Ok(event));
}

#[test]
fn each_broken_rule_is_named_with_the_field() {
    let table = [
        (
            r#"{"admit": {"request_id": "a", "requestId": "b"}}"#,
            "DUPLICATE_FIELD",
            "admit.request_id",
        ),
        (r#"{"time": 1, "time": 1}"#, "DUPLICATE_FIELD", "time"),
        (r#"{"time": null, "time": 1}"#, "DUPLICATE_FIELD", "time"),
        (r#"{"admit": {}, "release": {}}"#, "ONEOF_CONFLICT", "release"),
        (r#"{"admit": {"lease": {}, "job": {}}}"#, "ONEOF_CONFLICT", "admit.job"),
        (r#"{"admit": {"gpus": 1}}"#, "UNKNOWN_FIELD", "admit.gpus"),
        (
            r#"{"admit": {"lease": {"gpu_count": 4294967296}}}"#,
            "OUT_OF_BOUNDS",
            "admit.lease.gpu_count",
        ),
        (r#"{"admit": {"lease": {"gpu_count": -1}}}"#, "OUT_OF_BOUNDS", "admit.lease.gpu_count"),
        (r#"{"time": "18446744073709551616"}"#, "OUT_OF_BOUNDS", "time"),
        (r#"{"time": 1.5}"#, "WRONG_TYPE", "time"),
        (r#"{"time": "+1"}"#, "WRONG_TYPE", "time"),
        (r#"{"time": ""}"#, "WRONG_TYPE", "time"),
        (r#"{"time": 18446744073709551616}"#, "WRONG_TYPE", "time"),
        (r#"{"admit": {"request_id": 5}}"#, "WRONG_TYPE", "admit.request_id"),
        (r#"{"admit": {"lease": {"gpu_models": "H100"}}}"#, "WRONG_TYPE", "admit.lease.gpu_models"),
        (
            r#"{"admit": {"lease": {"gpu_models": ["a", null]}}}"#,
            "WRONG_TYPE",
            "admit.lease.gpu_models[1]",
        ),
        (r#"{"admit": {"lease": {"may_preempt": 1}}}"#, "WRONG_TYPE", "admit.lease.may_preempt"),
        (r#"{"admit": {"priority_class": "HIGH"}}"#, "UNKNOWN_ENUM_VALUE", "admit.priority_class"),
        (r#"{"admit": {"priority_class": 1}}"#, "WRONG_TYPE", "admit.priority_class"),
        (r#"{"admit": []}"#, "WRONG_TYPE", "admit"),
        (r#"[]"#, "WRONG_TYPE", ""),
        (r#"{"admit": "#, "MALFORMED_JSON", ""),
        (r#"{} {}"#, "MALFORMED_JSON", ""),
        ("", "MALFORMED_JSON", ""),
    ];
    for (text, code, field) in table {
        assert_eq!(refusal(text), (code, field.to_owned()), "{text}");
    }
}

#[test]
fn bombs_are_refused() {
    let deep = format!("{{\"admit\": {}", "[".repeat(100_000));
    assert_eq!(refusal(&deep).0, "MALFORMED_JSON", "the parser's own bound");
    let long = format!("{{\"admit\": {{\"request_id\": \"{}\"}}}}", "x".repeat(MAX_JSON_BYTES));
    assert_eq!(refusal(&long).0, "TOO_LARGE");
    let key = format!("{{\"\\u0007{}\": 1}}", "k".repeat(1_000));
    let (code, field) = refusal(&key);
    assert_eq!(code, "UNKNOWN_FIELD");
    assert!(field.len() < 80 && !field.contains('\u{7}'), "{field}");
}

#[test]
fn hints_name_what_is_known() {
    let error = from_json::<AdmitRequest>(r#"{"priority_class": "HIGH"}"#).expect_err("unknown");
    let text = error.to_string();
    assert!(text.ends_with("hint: give one of INTERNAL_RESEARCH, EXTERNAL_COMMERCIAL"), "{text}");
}

#[test]
fn numbers_that_readers_would_round_are_strings() {
    let event = |time| StreamRequest { event: None, time: Some(time) };
    assert_eq!(to_json(&event((1 << 53) - 1)), json!({"time": 9_007_199_254_740_991_u64}));
    assert_eq!(to_json(&event(1 << 53)), json!({"time": "9007199254740992"}));
}

#[test]
fn a_newer_servers_value_is_still_written() {
    let request = AdmitRequest { priority_class: 77, ..AdmitRequest::default() };
    assert_eq!(to_json(&request)["priority_class"], json!(77));
    assert!(PriorityClass::try_from(77).is_err());
}

#[test]
fn the_contracts_hold_only_kinds_that_have_a_json_form_here() {
    for field in POOL.all_messages().flat_map(|it| it.fields().collect::<Vec<_>>()) {
        let bare = matches!(field.kind(), Kind::Double | Kind::Float | Kind::Bytes);
        assert!(!bare && !field.is_map(), "{}: extend this module first", field.full_name());
    }
}

proptest! {
    #[test]
    fn requests_survive_json(message in any_message::<StreamRequest>()) {
        let text = to_json(&message).to_string();
        prop_assert_eq!(from_json::<StreamRequest>(&text), Ok(message));
    }

    #[test]
    fn answers_survive_json(message in any_message::<StreamResponse>()) {
        let text = to_json(&message).to_string();
        prop_assert_eq!(from_json::<StreamResponse>(&text), Ok(message));
    }

    #[test]
    fn any_text_is_safe(text in ".{0,200}") {
        let result = from_json::<StreamRequest>(&text);
        let object = text.trim_start().starts_with('{');
        prop_assert!(result.is_err() || object);
    }
}
