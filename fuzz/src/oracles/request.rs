//! Requests, on the wire and as JSON.

use placet_core::MAX_LEAD_SECONDS;
use placet_proto::admission::v1 as pb;
use placet_proto::{FieldError, decode_strict, json};
use placet_server::convert;
use prost::Message;

use super::work::accept;
use super::world::TIME;

/// Of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

fn check_error(error: &FieldError) {
    assert!(!error.code.is_empty() && !error.message.is_empty(), "{error:?}");
    assert!(error.to_string().len() < 4_096, "an error repeats no more than a line of its input");
}

/// A request that passes says the same again, and one that passes every bound has amounts that
/// cannot overflow.
fn request(request: pb::AdmitRequest) {
    let again: pb::AdmitRequest =
        decode_strict(&request.encode_to_vec()).expect("what was decoded can be decoded again");
    assert_eq!(request, again);
    match convert::admission_request(request) {
        Err(error) => check_error(&error),
        Ok(request) => {
            accept();
            let workload = request.subject.workload();
            assert!(workload.gpu_count >= 1 && workload.duration_seconds >= 1);
            assert!(workload.gpu_seconds() >= 1 && workload.gpu_seconds() < 1 << 53);
            assert!((1..=8).contains(&workload.gpu_models.len()));
            assert!(workload.start.is_none_or(|start| (1..=LAST_SECOND).contains(&start)));
            match workload.start_at(TIME) {
                Ok(start) => assert!((TIME..=TIME + MAX_LEAD_SECONDS).contains(&start)),
                Err(error) => {
                    let reason = error.reason(request.subject.kind());
                    assert!(reason.hint.is_some() && reason.field.is_some(), "{reason:?}");
                }
            }
            let json = placet_core::canonical_json(&request).expect("a request has a JSON form");
            assert!(json.len() < 65_536);
        }
    }
}

/// The wire form of an `AdmitRequest`: refused with a reason, or understood the same by every
/// reader.
///
/// # Panics
/// If the bytes show a bug.
pub fn request_wire(bytes: &[u8]) {
    match decode_strict::<pb::AdmitRequest>(bytes) {
        Err(error) => check_error(&error),
        Ok(decoded) => {
            let lenient = pb::AdmitRequest::decode(bytes).expect("strict means at least as strict");
            assert_eq!(decoded, lenient);
            request(decoded);
        }
    }
}

/// The JSON form of an `AdmitRequest`: the same.
///
/// # Panics
/// If the text shows a bug.
pub fn request_json(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match json::from_json::<pb::AdmitRequest>(text) {
        Err(error) => check_error(&error),
        Ok(decoded) => {
            let again: pb::AdmitRequest =
                json::from_json(&json::to_json(&decoded).to_string()).expect("our own JSON");
            assert_eq!(decoded, again);
            request(decoded);
        }
    }
}
